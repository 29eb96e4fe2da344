//! Grants, restarts and a clock that is wrong at times, against true time, which only the test knows.
//!
//! The clock is ahead for as long as it likes. It is behind for less than the five minutes in which
//! NTP corrects it, or while it is behind the greatest time that earlier runs have shown; it is then
//! corrected for good. More cannot be judged: a clock that is behind for hours and shows nothing
//! that it has shown before looks right.
//!
//! Two rentals of one device follow each other without a pause, for the same renter: never do packets of both
//! pass.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::packets::*;
use super::world::*;
use crate::forward::headers::{Ip, address};
use crate::forward::{Config, Forwarder};
use crate::messages::{GrantRole, GrantSpec, GrantTarget, PolicyChange};
use crate::time::{Mono, Wall};

const FIVE_MINUTES: u64 = 300;
/// Each grant has a host of its own, so that a packet tells which grant let it pass.
const HOSTS: [i64; 3] = [11, 12, 21];
/// Rentals of device 12 for renter 3 of customer 51. Their grants stand behind those of the hosts.
const RENTALS: [i64; 2] = [41, 42];
const GRANTS: usize = HOSTS.len() + RENTALS.len();

#[derive(Clone, Debug)]
enum Op {
    /// Both ends are relative to true time, in seconds.
    Grant {
        host: usize,
        from: Option<i64>,
        until: Option<i64>,
    },
    /// The first rental ends and the second one begins at `turn`.
    Rent {
        before: i64,
        turn: i64,
        after: i64,
    },
    Withdraw(usize),
    Advance(u64),
    /// No work is done meanwhile: the next packet comes first.
    Suspend(u64),
    /// From now on the clock shows so much more than true time.
    SetClock(i64),
    /// The gateway is off for a while. `boots`: the machine was too. Then the clock shows this much
    /// more than true time.
    Restart {
        off: u64,
        boots: bool,
        ahead: i64,
    },
    /// An admin accepts the clock, if it is right.
    Accept,
}

fn op() -> impl Strategy<Value = Op> {
    let edge = || prop::option::weighted(0.7, prop_oneof![-500i64..500, -20_000i64..20_000]);
    let ahead = || prop_oneof![3 => Just(0), 2 => 2i64..400, 2 => 400i64..9_000, 2 => -9_000i64..-2];
    let grant = (0usize..3, edge(), edge()).prop_map(|(host, from, until)| Op::Grant { host, from, until });
    let turn = prop_oneof![2 => -100i64..1_000, 1 => -20_000i64..20_000];
    let rent =
        (1i64..2_000, turn, 1i64..2_000).prop_map(|(before, turn, after)| Op::Rent { before, turn, after });
    prop_oneof![
        4 => grant,
        4 => rent,
        1 => (0..GRANTS).prop_map(Op::Withdraw),
        4 => (0u64..100).prop_map(Op::Advance),
        3 => (100u64..700).prop_map(Op::Advance),
        1 => Just(Op::Advance(FIVE_MINUTES)),
        1 => (0u64..5_000).prop_map(Op::Suspend),
        4 => ahead().prop_map(Op::SetClock),
        2 => (0u64..4_000, any::<bool>(), ahead())
            .prop_map(|(off, boots, ahead)| Op::Restart { off, boots, ahead }),
        1 => Just(Op::Accept),
    ]
}

struct Truth {
    world: World,
    /// True time, and how far the clock is ahead of it, in seconds.
    now: i64,
    ahead: i64,
    /// The content of the database.
    grants: [Option<GrantSpec>; GRANTS],
    floor: Option<Wall>,
    /// The floor of this run: while the clock is behind it, only grants without a window pass.
    start_floor: Option<Wall>,
    /// Seconds on the boot-time clock since the last step or start.
    even_for: u64,
    /// No step since the start, so that windows open at once.
    is_fresh: bool,
    /// The clock was behind the floor for a while, so that the boot-time clock has late ends.
    late_ends: bool,
    /// How far the clock was ahead when it last ran evenly for five minutes.
    proved: Option<i64>,
    /// A proved clock was set back, at once or in several steps, so that grants may have ended early.
    early: bool,
    passed: u64,
    denied: u64,
}

impl Truth {
    fn new() -> Truth {
        let mut truth = Truth {
            world: world(),
            now: 0,
            ahead: 0,
            grants: Default::default(),
            floor: None,
            start_floor: None,
            even_for: 0,
            is_fresh: true,
            late_ends: false,
            proved: None,
            early: false,
            passed: 0,
            denied: 0,
        };
        truth.start();
        truth
    }

    fn wall(&self) -> Wall {
        wall(self.now + self.ahead)
    }

    fn is_withheld(&self) -> bool {
        self.start_floor.is_some_and(|floor| self.wall() < floor)
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Grant { host, from, until } => self.grant(host, from, until),
            Op::Rent { before, turn, after } => self.rent(turn - before, turn, turn + after),
            Op::Withdraw(place) => {
                if let Some(spec) = self.grants[place].take() {
                    self.world.change(PolicyChange::WithdrawGrant(spec.id));
                }
            }
            Op::Advance(s) => {
                self.pass(s);
                self.world.work();
            }
            Op::Suspend(s) => self.pass(s),
            Op::SetClock(ahead) => self.set_clock(ahead),
            Op::Restart { off, boots, ahead } => self.restart(off, boots, ahead),
            Op::Accept => self.accept(),
        }
        self.look();
        self.world.work();
        self.look();
    }

    fn grant(&mut self, host: usize, from: Option<i64>, until: Option<i64>) {
        let at = |offset: i64| wall(self.now + offset);
        let target = GrantTarget::Host(id(HOSTS[host]));
        let spec = GrantSpec { from: from.map(at), until: until.map(at), ..grant(host as i64 + 1, target) };
        self.put(host, spec);
    }

    fn put(&mut self, place: usize, spec: GrantSpec) {
        self.grants[place] = Some(spec.clone());
        self.world.change(PolicyChange::Grant(spec));
    }

    fn rent(&mut self, from: i64, turn: i64, until: i64) {
        let at = |offset: i64| Some(wall(self.now + offset));
        let windows = [(at(from), at(turn)), (at(turn), at(until))];
        for (n, (from, until)) in windows.into_iter().enumerate() {
            self.put(HOSTS.len() + n, rental_grant(RENTALS[n], 51, from, until));
        }
    }

    /// Time passes. A clock that is behind is corrected before it would be believed.
    fn pass(&mut self, s: u64) {
        let room = match self.start_floor {
            Some(floor) if self.is_withheld() => floor.since(self.wall()).as_secs().saturating_sub(1),
            _ => (FIVE_MINUTES - 1).saturating_sub(self.even_for),
        };
        if self.ahead < 0 && room < s {
            self.advance(room);
            self.set_clock(0);
            return self.advance(s - room);
        }
        self.advance(s);
    }

    fn advance(&mut self, s: u64) {
        self.now += i64::try_from(s).expect("less than a day");
        self.even_for += s;
        self.world.advance(seconds(s));
        self.keep_floor();
        self.late_ends &= self.ahead < 0 || self.even_for < FIVE_MINUTES;
    }

    fn keep_floor(&mut self) {
        if self.even_for >= FIVE_MINUTES && !self.is_withheld() {
            self.floor = self.floor.max(Some(self.wall()));
        }
    }

    fn set_clock(&mut self, ahead: i64) {
        // The clock ran right up to the step.
        self.keep_floor();
        let is_behind = self.start_floor.is_some_and(|floor| wall(self.now + ahead) < floor);
        let ahead = if self.late_ends && !is_behind { ahead.max(0) } else { ahead };
        self.late_ends |= ahead < 0 && is_behind;
        if self.even_for >= FIVE_MINUTES {
            self.proved = Some(self.ahead);
        }
        let step = ahead - self.ahead;
        self.ahead = ahead;
        let to = self.wall();
        self.world.set_clock(to);
        if step.abs() > 1 {
            self.early |= self.proved.is_some_and(|proved| ahead < proved - 1);
            (self.even_for, self.is_fresh) = (0, false);
        }
        if step < -1 {
            self.load();
        }
    }

    /// Sends every grant that has not ended by the clock, as the shell does at a start and after a
    /// step back.
    fn load(&mut self) {
        let now = self.world.now.wall;
        for spec in self.grants.iter().flatten() {
            if spec.until.is_none_or(|until| now < until) {
                self.world.forwarder.change(PolicyChange::Grant(spec.clone()), self.world.now);
            }
        }
    }

    fn restart(&mut self, off: u64, boots: bool, ahead: i64) {
        self.now += i64::try_from(off).expect("less than a day");
        self.ahead = ahead;
        let shows_the_floor = self.floor.is_none_or(|floor| floor <= self.wall());
        if self.ahead < 0 && shows_the_floor {
            self.ahead = 0;
        }
        let mono = if boots { Mono::from_secs(20) } else { self.world.now.mono + seconds(off) };
        self.world.now.mono = mono;
        self.world.now.wall = self.wall();
        self.start();
    }

    fn start(&mut self) {
        (self.even_for, self.is_fresh, self.proved, self.early) = (0, true, None, false);
        self.start_floor = self.floor;
        self.late_ends = self.ahead < 0;
        self.world.forwarder = Forwarder::new(Config {
            gateway_v4: "10.0.0.254".parse().expect("an address"),
            gateway_v6: "fd00::fe".parse().expect("an address"),
            limits: Default::default(),
        });
        self.world.now.wall = self.wall();
        if let Some(floor) = self.floor {
            self.world.change(PolicyChange::Floor(floor));
        }
        self.world.change(PolicyChange::Source(source(1, OPERATOR, Some(GrantRole::Operator))));
        self.world.change(PolicyChange::Source(renter(3, 51)));
        let rentals = RENTALS.map(|n| rental(n, 12));
        for target in [device(11), device(12), behind(21)].into_iter().chain(rentals) {
            self.world.change(PolicyChange::Target(target));
        }
        self.load();
    }

    fn accept(&mut self) {
        if self.ahead != 0 {
            return;
        }
        (self.floor, self.start_floor) = (Some(self.wall()), None);
        self.world.change(PolicyChange::AcceptClock);
        self.load();
        (self.late_ends, self.proved, self.early, self.is_fresh) = (false, None, false, true);
    }

    /// Sends a packet in each direction to each host and rental, and judges what passed.
    fn look(&mut self) {
        for (host, number) in HOSTS.into_iter().enumerate() {
            let (dst, real, device) = match number {
                21 => (ALIAS[0].to_owned(), REAL[0].to_owned(), 11),
                n => (format!("10.1.0.{n}"), format!("10.1.0.{n}"), n),
            };
            self.look_at(host, (1, OPERATOR[0]), (dst.as_str(), real.as_str(), device));
        }
        let of_rental = |truth: &mut Truth, n: usize| {
            let (at, alias) = (renter_at(3), alias_of(RENTALS[n]));
            truth.look_at(HOSTS.len() + n, (3, at[0].as_str()), (alias[0].as_str(), "10.1.0.12", 12))
        };
        let passes = [of_rental(self, 0), of_rental(self, 1)];
        assert_ne!(passes, [true; 2], "packets of both rentals pass at {}", self.now);
    }

    /// Sends a packet in each direction. Returns whether any passed.
    fn look_at(
        &mut self,
        place: usize,
        (peer, src): (i64, &str),
        (dst, real, device): (&str, &str, i64),
    ) -> bool {
        let back = self.replies(device, (real, src), dst);
        let out = self.world.passes(peer, &echo(src, dst, true, 7));
        let back = back | self.replies(device, (real, src), dst);
        self.judge(place, out, back);
        out || back
    }

    /// Whether a reply passes as one from the address that the source asked.
    fn replies(&mut self, device: i64, (real, src): (&str, &str), asked: &str) -> bool {
        let sent = self.world.send(device, &echo(real, src, false, 7));
        sent.is_ok_and(|(_, packet)| {
            let ip = Ip::parse(&packet).expect("a packet");
            address(ip.v6, ip.src) == ip_of(asked)
        })
    }

    fn judge(&mut self, place: usize, out: bool, back: bool) {
        let Some(spec) = &self.grants[place] else {
            assert!(!out && !back, "place {place} without a grant");
            return;
        };
        let (true_now, shown) = (wall(self.now), self.world.now.wall);
        if out || back {
            assert!(spec.until.is_none_or(|until| true_now < until), "{spec:?} passes at {}", self.now);
            assert!(spec.until.is_none_or(|until| shown < until), "{spec:?} passes at {shown:?}");
            assert!(spec.from.is_none_or(|from| from <= shown), "{spec:?} passes at {shown:?}");
            let timed = spec.from.is_some() || spec.until.is_some();
            assert!(!timed || !self.is_withheld(), "{spec:?} passes behind the floor");
        }
        let open =
            spec.from.is_none_or(|from| from <= true_now) && spec.until.is_none_or(|until| true_now < until);
        let is_sure = self.ahead == 0 && !self.is_withheld() && !self.early;
        let is_calm = self.is_fresh || self.even_for >= FIVE_MINUTES;
        if open && is_sure && is_calm {
            assert!(out, "{spec:?} does not pass at {}", self.now);
        }
        self.passed += u64::from(out);
        self.denied += u64::from(!out);
    }
}

proptest! {
    #![proptest_config(at_least(1_000))]

    #[test]
    fn nothing_passes_late_and_nothing_valid_stays_missing(story in prop::collection::vec(op(), 1..60)) {
        let mut truth = Truth::new();
        story.into_iter().for_each(|op| truth.run(op));
    }
}

#[test]
fn the_random_clocks_let_packets_pass_and_stop_them() {
    let mut runner = TestRunner::deterministic();
    let (mut passed, mut denied) = (0, 0);
    for _ in 0..100 {
        let story = prop::collection::vec(op(), 60).new_tree(&mut runner).expect("a story").current();
        let mut truth = Truth::new();
        story.into_iter().for_each(|op| truth.run(op));
        (passed, denied) = (passed + truth.passed, denied + truth.denied);
    }
    assert!(passed > 1_000 && denied > 1_000, "{passed} passed, {denied} were denied");
}

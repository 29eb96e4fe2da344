//! A clock that is set at times, beside the naive model of the windows: renters never pass outside of a window, and they
//! pass inside of it unless the clock is doubted.
//!
//! The clock is ahead for as long as it likes. It is behind for less than the time in which it is doubted, and at no
//! start. The tests of the engine (`forward/tests/restarts.rs`) say why more cannot be judged.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::{ClockStep, Mono, Now, Wall};

use super::super::rentals::{device, shop};
use super::{Claim, PacketFilter, blocks, claims, id, no_two_overlap, renter, step};
use crate::api::request::ids::IdKind;
use crate::api::testing::TestApi;
use crate::store::fixture::Dice;

/// A clock that was set is doubted for so long.
const DOUBT: Duration = Duration::from_secs(300);
/// The longest time between two calls.
const LONGEST: Duration = Duration::from_secs(900);
const MOMENT: Duration = Duration::from_millis(1);

/// The windows of the rentals, and the blocks of their devices.
struct Windows {
    claims: BTreeMap<Id, Claim>,
    blocks: Vec<(String, Wall, Wall)>,
}

impl Windows {
    async fn of(api: &TestApi) -> Windows {
        Windows { claims: claims(api).await, blocks: blocks(api).await }
    }

    fn is_blocked(&self, device: &str, at: Wall) -> bool {
        let mut own = self.blocks.iter().filter(|(blocked, ..)| blocked == device);
        own.any(|(_, from, until)| (*from..*until).contains(&at))
    }

    /// Returns the next moment at which one of them begins or ends.
    fn next_edge(&self, after: Wall) -> Option<Wall> {
        let of_claims = self.claims.values().flat_map(|claim| [claim.from, claim.until]);
        let of_blocks = self.blocks.iter().flat_map(|(_, from, until)| [*from, *until]);
        of_claims.chain(of_blocks).filter(|at| *at > after).min()
    }
}

/// How often renters passed, how often they had to, and how often they were kept out of an open window.
#[derive(Debug, Default)]
struct Seen {
    passed: usize,
    surely: usize,
    kept_out: usize,
}

/// The packet filter of a gateway, and what only the test knows of its clock.
struct Gateway {
    filter: PacketFilter,
    /// True time, and how many seconds the clock is ahead of it.
    time: Wall,
    ahead: i64,
    /// How long the clock has run evenly since it was set, or since the start.
    even_for: Duration,
    /// What the clock showed when it was set and was not doubted yet. `None`: it was not set since the start.
    trusted: Option<Wall>,
    /// How far the clock was ahead when it had last run evenly for as long as a doubt.
    proved: Option<i64>,
    /// A proved clock was set back, so that windows may have ended early.
    early: bool,
}

impl Gateway {
    async fn started(api: &mut TestApi, (mono, time): (Mono, Wall), ahead: i64) -> Gateway {
        let now = Now { mono, wall: shown(time, ahead) };
        let filter = PacketFilter::started(api, now).await;
        let even_for = Duration::ZERO;
        Gateway { filter, time, ahead, even_for, trusted: None, proved: None, early: false }
    }

    /// A crash. What it had not heard is lost, and it is off for a while.
    async fn restart(&mut self, api: &mut TestApi, dice: &mut Dice) {
        let off = Duration::from_secs(dice.below(300));
        let at = (self.filter.now.mono + off, self.time + off);
        *self = Gateway::started(api, at, any_offset(dice).max(0)).await;
    }

    async fn set_clock(&mut self, api: &mut TestApi, ahead: i64) {
        if ahead == self.ahead {
            return;
        }
        let before = self.filter.now;
        self.trusted = self.before_doubt().or(Some(before.wall));
        if self.even_for >= DOUBT {
            self.proved = Some(self.ahead);
        }
        self.early |= self.proved.is_some_and(|proved| ahead < proved);
        let went_back = ahead < self.ahead;
        (self.ahead, self.even_for) = (ahead, Duration::ZERO);
        let now = Now { wall: shown(self.time, ahead), ..before };
        self.filter.now = now;
        self.filter.forwarder.clock(ClockStep::between(before, now), now);
        if went_back {
            // As the watch of the clock does.
            api.state.handle.reload_grants().await;
            self.filter.hear(api);
        }
    }

    /// Time passes. A clock that is behind is corrected before it would be believed.
    async fn pass(&mut self, api: &mut TestApi, by: Duration) {
        if self.ahead < 0 && self.even_for + by >= DOUBT {
            self.set_clock(api, 0).await;
        }
        self.time = self.time + by;
        self.even_for += by;
        self.filter.advance(by);
        self.filter.forwarder.clock(None, self.filter.now);
        while self.filter.forwarder.work(self.filter.now).is_some() {}
    }

    /// Returns what the clock showed before it was set, while it is doubted.
    fn before_doubt(&self) -> Option<Wall> {
        self.trusted.filter(|_| self.even_for < DOUBT)
    }

    /// Compares what passes now with the windows.
    fn look(&self, windows: &Windows, renter: Id, story: &str, seen: &mut Seen) {
        let (shown, before) = (self.filter.now.wall, self.before_doubt());
        let is_sure = self.ahead == 0 && before.is_none() && !self.early;
        for (rental, claim) in &windows.claims {
            let is_blocked = |at: Wall| windows.is_blocked(&claim.device, at);
            let is_open = claim.opens && (claim.from..claim.until).contains(&shown) && !is_blocked(shown);
            let was_open = before.is_none_or(|at| claim.from <= at && !is_blocked(at));
            let passes = self.filter.permits(renter, *rental, shown);
            let at = format!("{story}: {rental} at {}, {} s ahead", crate::ids::time(self.time), self.ahead);
            assert!(!passes || is_open, "{at}: it passes outside of its window");
            assert!(!passes || self.time < claim.until, "{at}: it passes after its end");
            let mut blocks = windows.blocks.iter().filter(|(blocked, ..)| *blocked == claim.device);
            let has_begun = blocks.any(|(_, from, until)| *from <= self.time && shown < *until);
            assert!(!passes || !has_begun, "{at}: it passes after the begin of a block");
            assert!(!passes || was_open, "{at}: it begins to pass while the clock is doubted");
            assert!(passes || !is_open || !is_sure, "{at}: it does not pass inside of its window");
            seen.passed += usize::from(passes);
            seen.surely += usize::from(passes && is_sure);
            seen.kept_out += usize::from(is_open && !passes);
        }
    }

    /// Returns the time to the end of the doubt, to an edge by true time or by the clock, or any.
    fn any_wait(&self, windows: &Windows, dice: &mut Dice) -> Duration {
        let to_edge = |now: Wall| windows.next_edge(now).map(|at| at.since(now));
        let wait = match dice.below(4) {
            0 => Some(DOUBT.saturating_sub(self.even_for)),
            1 => to_edge(self.time),
            2 => to_edge(self.filter.now.wall),
            _ => None,
        };
        let wait = wait.filter(|wait| (MOMENT..LONGEST).contains(wait));
        wait.unwrap_or_else(|| Duration::from_secs(dice.below(LONGEST.as_secs())) + MOMENT)
    }
}

/// Returns what a clock shows that is so many seconds ahead.
fn shown(time: Wall, ahead: i64) -> Wall {
    Wall::from_millis(time.as_millis() + ahead * 1_000)
}

/// Returns how many seconds the clock is ahead from now on: right, minutes or hours ahead, or behind.
fn any_offset(dice: &mut Dice) -> i64 {
    let seconds = 30 * (dice.below(20) as i64 + 1);
    match dice.below(6) {
        0..=2 => 0,
        3 => seconds,
        4 => 12 * seconds,
        _ => -12 * seconds,
    }
}

async fn tell(seed: u64, seen: &mut Seen) {
    let mut api = shop().await;
    device(&api, "cam-3").await;
    let laptop = renter(&api, "crm-17", "laptop").await;
    let laptop = id(IdKind::Renter, &laptop);
    let (mut dice, mut bookings) = (Dice(seed), Vec::new());
    // Ahead of the clock of the calls, so that what they end is over.
    let at = (Mono::from_secs(1_000_000), crate::clock::wall() + LONGEST);
    let mut gateway = Gateway::started(&mut api, at, 0).await;
    for n in 0..40 {
        let story = format!("seed {seed}, step {n}");
        step(&api, &mut dice, &mut bookings).await;
        if dice.once_in(6) {
            gateway.restart(&mut api, &mut dice).await;
        }
        gateway.filter.hear(&mut api);
        let windows = Windows::of(&api).await;
        no_two_overlap(&windows.claims, &story);
        gateway.look(&windows, laptop, &story, seen);
        if dice.once_in(3) {
            gateway.set_clock(&mut api, any_offset(&mut dice)).await;
            gateway.look(&windows, laptop, &story, seen);
        }
        let wait = gateway.any_wait(&windows, &mut dice);
        for by in [wait - MOMENT, MOMENT] {
            gateway.pass(&mut api, by).await;
            gateway.look(&windows, laptop, &story, seen);
        }
    }
}

#[tokio::test]
async fn renters_pass_at_no_time_outside_of_the_windows_though_the_clock_is_set() {
    let mut seen = Seen::default();
    for seed in 21..=24 {
        tell(seed, &mut seen).await;
    }
    assert!(seen.passed > 40 && seen.surely > 10 && seen.kept_out > 0, "{seen:?}");
}

//! A naive model of the semantics: an operator with a list of all hosts who gets the result of
//! every check. The model decides which results count, which states are hard or flapping, which
//! hosts are unreachable, whether the uplink is down, and which messages are sent.
//!
//! The model schedules nothing and probes nothing. It shares no code with the engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use fleetgate_engine::time::{Mono, Now, Wall};

use super::{ATTEMPTS, INTERVAL};

/// SEMANTICS 8: the fleet fails when a fifth of those that were up, and at least five, fall silent
/// within an interval. Sleepers do not count. The others have half a minute to be heard.
const FEWEST: usize = 5;
const SHARE: usize = 5;
const PATIENCE: Duration = Duration::from_secs(30);
/// After a host is hard down, a possible later failure of a parent or of others delays its message
/// no longer than this.
const HELD: Duration = Duration::from_secs(30);
/// Others that fail at the same time: this many, and one in so many of all, are more than chance.
const CROWD: usize = 4;
const CROWD_SHARE: usize = 50;
/// A keepalive of 25 s, and a fifth of it.
const RHYTHM: Duration = Duration::from_secs(30);
/// Two failed checks that are closer count as one.
const APART: Duration = Duration::from_secs(5);
/// A smaller correction of the clock is the daily work of a time server.
const JUMP: Duration = Duration::from_secs(10);
/// A smaller correction is no step.
const STEP: Duration = Duration::from_secs(1);
/// SEMANTICS 7: the number of results, and the percentages for stable and for flapping.
const RING: usize = 21;
const LOW: usize = 20;
const HIGH: usize = 30;

/// The result of one check of a host.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub began: Mono,
    /// The last known authenticated packet.
    pub packet: Option<Mono>,
    /// Whether it replied, if it was probed beyond the evidence.
    pub answered: Option<bool>,
    /// The last known handshake.
    pub handshake: Option<Mono>,
}

/// The displayed state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    pub up: bool,
    pub hard: bool,
    pub attempt: u32,
    pub hard_up: bool,
    pub reachable: bool,
    pub asleep: bool,
    pub flapping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum NotifiedState {
    Well,
    Down,
    Flapping,
}

#[derive(Clone, Debug)]
struct Sheet {
    router: Option<usize>,
    max_silence: Option<Duration>,
    /// The last results, oldest first; true is good.
    results: VecDeque<bool>,
    /// Consecutive failures.
    failures: u32,
    hard_up: bool,
    flapping: bool,
    reachable: bool,
    asleep: bool,
    /// The displayed state is the newest that could be known.
    current: bool,
    /// Its last result came while it was unreachable, so a newer one is awaited.
    awaits: bool,
    /// When it became reachable again. A look that began before that shows the time before.
    back_since: Option<Mono>,
    told: NotifiedState,
    failing_since: Option<Mono>,
    /// Since when it is hard down; after a restart, the time from which others are judged again.
    hard_since: Option<Mono>,
    /// It is counted as failing.
    among_failing: bool,
    /// The first silence of a series, even if it did not count.
    silent_since: Option<Mono>,
    /// The time of a silence that came while the host was up and, as far as is known, not because
    /// of the uplink.
    fell: Option<Mono>,
    /// The last result, by both clocks.
    counted: Mono,
    counted_on: Wall,
    /// When this series of failures began, by the wall clock.
    failing_on: Wall,
    /// The newest proof of life.
    heard: Option<Mono>,
    /// Consecutive checks without a reply while the host is known to be alive: the first, the last
    /// that counts, and how many.
    vain: Option<(Mono, Mono, u32)>,
    watched_from: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Sight {
    Clear,
    /// Many hosts fell silent; the others are checked.
    Doubt(Mono),
    CutOff(Mono),
}

pub struct Model {
    sheets: Vec<Sheet>,
    behind: Vec<Vec<usize>>,
    sight: Sight,
    /// Since the last start, or since the uplink recovered.
    sees_again: Option<Mono>,
    /// The times at which a wait for a parent or for others ends by itself.
    doubts: BTreeSet<(Mono, usize)>,
    /// Hosts that were up, are silent, and not hard down yet.
    failing: usize,
    /// Hosts that were found silent while the uplink is suspect; they are judged when its state is
    /// known.
    undecided: BTreeMap<usize, Look>,
    said: Vec<String>,
}

impl Sheet {
    fn is_failing(&self) -> bool {
        self.failures > 0
    }

    fn is_soft(&self) -> bool {
        self.is_failing() && self.hard_up
    }

    /// Returns whether the check succeeded. Evidence counts like a reply within the interval; after
    /// a failure only newer evidence does. A host without a reply is alive if a packet came since
    /// it was probed, or so recently that the next is not due yet.
    fn is_good(&self, look: Look, at: Mono) -> bool {
        let fresh = |packet: Mono| {
            look.began.since(packet) < INTERVAL && (!self.is_failing() || packet > self.counted)
        };
        match look.answered {
            Some(true) => true,
            Some(false) => look.packet > Some(look.began.min(at - RHYTHM)),
            None => self.vain.is_none() && look.packet.is_some_and(fresh),
        }
    }

    /// Counts checks without a reply. Returns how many of them were failures, once the host is
    /// known to be silent.
    fn note_vain(&mut self, look: Look, good: bool) -> u32 {
        let answered = look.answered == Some(true) || look.handshake >= Some(look.began);
        match (good, look.answered) {
            (true, None) => 0,
            (true, Some(_)) if answered => {
                self.vain = None;
                0
            }
            (true, Some(_)) => {
                let vain = self.vain.get_or_insert((look.began, look.began, 1));
                if look.began.since(vain.1) >= APART {
                    (vain.1, vain.2) = (look.began, vain.2 + 1);
                }
                0
            }
            (false, _) => match self.vain.take() {
                Some((since, _, looks)) if self.heard < Some(since) => looks,
                _ => 0,
            },
        }
    }

    /// The look began before the host became reachable again.
    fn is_stale(&self, look: Look) -> bool {
        Some(look.began) <= self.back_since
    }

    fn may_sleep(&self, at: Mono) -> bool {
        let heard = self.heard.unwrap_or(self.watched_from).max(self.watched_from);
        !self.is_failing() && self.max_silence.is_some_and(|limit| at.since(heard) < limit)
    }

    fn see_flapping(&mut self) {
        let missing = RING - self.results.len();
        let pairs = self.results.iter().zip(self.results.iter().skip(1)).enumerate();
        let changes = pairs.filter(|(_, (before, after))| before != after);
        // A change weighs 0.8 to 1.2, in 95ths; percent = sum / 20 * 100.
        let weight: usize = changes.map(|(i, _)| 76 + 2 * (missing + i)).sum();
        self.flapping = weight * 100 > if self.flapping { LOW } else { HIGH } * 20 * 95;
    }

    fn word(up: bool) -> &'static str {
        if up { "up" } else { "down" }
    }
}

impl Model {
    /// Makes a model with the router and the allowed silence of each host; all hosts are up.
    pub fn new(hosts: impl Iterator<Item = (Option<usize>, Option<Duration>)>, now: Now) -> Model {
        let sheet = |(router, max_silence)| Sheet {
            router,
            max_silence,
            results: VecDeque::new(),
            failures: 0,
            hard_up: true,
            flapping: false,
            reachable: true,
            asleep: false,
            current: true,
            awaits: false,
            back_since: None,
            told: NotifiedState::Well,
            failing_since: None,
            hard_since: None,
            among_failing: false,
            silent_since: None,
            fell: None,
            counted: now.mono,
            counted_on: now.wall,
            failing_on: now.wall,
            heard: None,
            vain: None,
            watched_from: now.mono,
        };
        let sheets: Vec<Sheet> = hosts.map(sheet).collect();
        let mut behind = vec![Vec::new(); sheets.len()];
        for (n, sheet) in sheets.iter().enumerate() {
            sheet.router.into_iter().for_each(|router| behind[router].push(n));
        }
        Model {
            sheets,
            behind,
            sight: Sight::Clear,
            sees_again: None,
            doubts: BTreeSet::new(),
            failing: 0,
            undecided: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    pub fn take_said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    pub fn shown(&self, n: usize) -> Shown {
        let sheet = &self.sheets[n];
        let attempt = if sheet.hard_up { sheet.failures.max(1) } else { ATTEMPTS };
        Shown {
            up: !sheet.is_failing(),
            hard: !sheet.is_soft(),
            attempt,
            hard_up: sheet.hard_up,
            reachable: sheet.reachable,
            asleep: sheet.asleep,
            flapping: sheet.flapping,
        }
    }

    /// Applies the changes that come with time alone.
    pub fn pass(&mut self, at: Mono) {
        if let Sight::Doubt(since) = self.sight
            && at.since(since) >= PATIENCE
        {
            self.sight = Sight::CutOff(since + PATIENCE);
            self.said.push("gateway problem up>down".to_owned());
        }
        while let Some((due, n)) = self.doubts.first().copied().filter(|(due, _)| *due <= at) {
            self.doubts.pop_first();
            self.tell(n, due);
        }
    }

    pub fn look(&mut self, n: usize, now: Now, look: Look) {
        self.pass(now.mono);
        let look = self.with_undecided(n, look);
        let sheet = &mut self.sheets[n];
        if sheet.is_stale(look) {
            return;
        }
        let doubtful = matches!(self.sight, Sight::Doubt(_));
        if doubtful && sheet.hard_up && !sheet.is_good(look, now.mono) && !sheet.may_sleep(now.mono) {
            sheet.silent_since = sheet.silent_since.or(Some(now.mono));
            self.undecided.insert(n, look);
            return self.recount(n, now.mono);
        }
        self.judge(n, now, look);
        self.recount(n, now.mono);
    }

    /// While it is not known whether we are cut off, the evidence of a silent host is read again, and
    /// once more when that is known. It belongs to the look that found nothing.
    fn with_undecided(&mut self, n: usize, look: Look) -> Look {
        match self.undecided.remove(&n) {
            Some(found) if look.answered.is_none() => {
                Look { packet: look.packet, handshake: look.handshake, ..found }
            }
            _ => look,
        }
    }

    fn recount(&mut self, n: usize, at: Mono) {
        let sheet = &mut self.sheets[n];
        let fails = sheet.hard_up && sheet.silent_since.is_some();
        match (std::mem::replace(&mut sheet.among_failing, fails), fails) {
            (false, true) => self.failing += 1,
            (true, false) => {
                self.failing -= 1;
                self.end_waiting(at);
            }
            _ => {}
        }
    }

    /// Ends the waiting when others that failed turn out to be lost or up.
    fn end_waiting(&mut self, at: Mono) {
        if self.failing < self.crowd() {
            let waiting: Vec<usize> = self.doubts.iter().map(|(_, n)| *n).collect();
            waiting.into_iter().for_each(|n| self.tell(n, at));
        }
    }

    fn crowd(&self) -> usize {
        CROWD.max(self.sheets.len() / CROWD_SHARE)
    }

    fn judge(&mut self, n: usize, now: Now, look: Look) {
        let at = now.mono;
        let (may_be_us, sees) = (self.may_be_us(at), self.sight == Sight::Clear);
        let sheet = &mut self.sheets[n];
        if sheet.is_good(look, at) {
            let proof = if look.answered == Some(true) { Some(at) } else { look.packet };
            sheet.heard = sheet.heard.max(proof);
            sheet.note_vain(look, true);
            self.count(n, true, 0, now);
        } else if sheet.hard_up && may_be_us {
            sheet.current = false;
            if !sees && !sheet.may_sleep(at) {
                sheet.silent_since = sheet.silent_since.or(Some(at));
            }
        } else if sheet.may_sleep(at) {
            sheet.asleep = true;
        } else {
            let missed = sheet.note_vain(look, false);
            self.count(n, false, missed, now);
        }
    }

    /// Returns whether the uplink may explain a silence: while it is not ok, and for an interval
    /// after it recovered.
    fn may_be_us(&self, at: Mono) -> bool {
        self.sight != Sight::Clear || self.sees_again.is_some_and(|since| at.since(since) < INTERVAL)
    }

    /// SEMANTICS 4 and 7.
    fn count(&mut self, n: usize, good: bool, missed: u32, now: Now) {
        let at = now.mono;
        let sheet = &mut self.sheets[n];
        let was_up = sheet.hard_up;
        sheet.failures = if good { 0 } else { sheet.failures + 1 + missed };
        sheet.hard_up = good || was_up && sheet.failures < ATTEMPTS;
        if !good && sheet.failing_since.is_none() {
            sheet.failing_on = now.wall;
        }
        sheet.failing_since = if good { None } else { sheet.failing_since.or(Some(at)) };
        sheet.hard_since = if sheet.hard_up { None } else { sheet.hard_since.or(Some(at)) };
        (sheet.counted, sheet.counted_on) = (at, now.wall);
        (sheet.current, sheet.asleep) = (true, false);
        sheet.awaits = !sheet.reachable;
        if sheet.reachable {
            sheet.results.push_back(good);
            if sheet.results.len() > RING {
                sheet.results.pop_front();
            }
            sheet.see_flapping();
        }
        if let Some(since) = sheet.hard_since {
            self.doubts.insert((since + HELD, n));
        }
        self.tell(n, at);
        self.look_behind(n, at);
        self.weigh(n, was_up, at);
    }

    /// SEMANTICS 8: hosts behind a host that is down are unreachable.
    fn look_behind(&mut self, router: usize, at: Mono) {
        let there = self.sheets[router].hard_up && !self.sheets[router].asleep;
        for n in self.behind[router].clone() {
            let sheet = &mut self.sheets[n];
            if there && !sheet.reachable {
                (sheet.awaits, sheet.back_since) = (true, Some(at));
                self.undecided.remove(&n);
            }
            sheet.reachable = there;
            self.tell(n, at);
        }
    }

    /// SEMANTICS 8, the fleet-wide rule: many of those that were up fall silent within an interval.
    fn weigh(&mut self, n: usize, was_up: bool, at: Mono) {
        let sheet = &mut self.sheets[n];
        if sheet.is_failing() {
            if sheet.silent_since.is_none() {
                sheet.silent_since = Some(at);
                sheet.fell = was_up.then_some(at);
                if was_up && self.sight == Sight::Clear && self.is_crowd(at) {
                    self.sight = Sight::Doubt(at);
                }
            }
            return;
        }
        (sheet.silent_since, sheet.fell) = (None, None);
        let heard = sheet.heard;
        match self.sight {
            Sight::Doubt(since) if heard > Some(since) => self.see_clearly(),
            Sight::CutOff(since) if heard > Some(since) => {
                self.see_clearly();
                self.sees_again = Some(at);
                self.said.push("gateway recovery down>up".to_owned());
            }
            _ => {}
        }
    }

    fn is_crowd(&self, at: Mono) -> bool {
        let fell = |sheet: &&Sheet| sheet.fell.is_some_and(|since| at.since(since) < INTERVAL);
        let fallen = self.sheets.iter().filter(fell).count();
        let were_up =
            self.sheets.iter().filter(|sheet| sheet.hard_up && !sheet.asleep || fell(sheet)).count();
        fallen >= FEWEST && fallen * SHARE >= were_up
    }

    /// The hosts that are silent by now were counted, and are silent by themselves.
    fn see_clearly(&mut self) {
        self.sight = Sight::Clear;
        self.sheets.iter_mut().for_each(|sheet| sheet.fell = None);
    }

    /// SEMANTICS 8: after a jump of the clock silence proves nothing for an interval. The time
    /// since when a host sleeps is recorded anew.
    pub fn see_clock_set(&mut self, now: Now, by: Duration) {
        if by > JUMP {
            self.sees_again = Some(now.mono);
        }
        for sheet in self.sheets.iter_mut().filter(|sheet| sheet.asleep && by > STEP) {
            let heard = sheet.heard.unwrap_or(sheet.watched_from).max(sheet.watched_from);
            sheet.counted_on = now.wall_at(heard);
        }
    }

    /// Returns whether the host's message waits: its router is not known to have been alive since
    /// the failure began, or others fail at the same time.
    fn is_in_doubt(&self, n: usize, at: Mono) -> bool {
        let sheet = &self.sheets[n];
        let Some(since) = sheet.failing_since else { return false };
        let asked = sheet.router.is_some_and(|router| self.sheets[router].heard < Some(since));
        let others = self.failing - usize::from(sheet.among_failing);
        let of_crowd = sheet.hard_since.is_some() && others >= self.crowd();
        sheet.hard_since.is_none_or(|since| at < since + HELD) && (asked || of_crowd)
    }

    /// SEMANTICS 6: compares the state with the last notification.
    fn tell(&mut self, n: usize, at: Mono) {
        let sheet = &self.sheets[n];
        let silent = !sheet.reachable || sheet.asleep || !sheet.current || sheet.awaits;
        if silent || self.is_in_doubt(n, at) {
            return;
        }
        let (flapping, soft, up) = (sheet.flapping, sheet.is_soft(), sheet.hard_up);
        let shown = !sheet.is_failing();
        match (sheet.told, flapping) {
            (NotifiedState::Flapping, true) => {}
            (_, true) => self.say(n, "flapping_start", shown, NotifiedState::Flapping),
            (NotifiedState::Flapping, false) => {
                self.say(n, "flapping_end", up, NotifiedState::Well);
                self.tell(n, at);
            }
            (NotifiedState::Well, false) if !soft && !up => self.say(n, "problem", up, NotifiedState::Down),
            (NotifiedState::Down, false) if !soft && up => self.say(n, "recovery", up, NotifiedState::Well),
            _ => {}
        }
    }

    fn say(&mut self, n: usize, kind: &str, to: bool, told: NotifiedState) {
        let sheet = &mut self.sheets[n];
        let from = Sheet::word(sheet.told != NotifiedState::Down);
        self.said.push(format!("h{n} {kind} {from}>{}", Sheet::word(to)));
        sheet.told = told;
    }

    /// Restarts the gateway, which keeps what it had stored, with the wall-clock times of then.
    pub fn restart(&mut self, now: Now) {
        let at = now.mono;
        self.sight = match self.sight {
            Sight::CutOff(_) => Sight::CutOff(at),
            Sight::Clear | Sight::Doubt(_) => Sight::Clear,
        };
        self.sees_again = Some(at);
        self.failing = 0;
        self.undecided.clear();
        let newest = self.sheets.iter().map(|sheet| sheet.counted_on).max();
        let long = newest.is_none_or(|newest| now.wall.since(newest) > INTERVAL);
        for (n, sheet) in self.sheets.iter_mut().enumerate() {
            let counted = now.mono_at(sheet.counted_on);
            (sheet.silent_since, sheet.fell, sheet.among_failing) = (None, None, false);
            sheet.vain = None;
            sheet.heard = (!sheet.is_failing()).then_some(counted);
            sheet.watched_from = if long { at } else { counted };
            sheet.current &= at.since(counted) <= INTERVAL * 2;
            sheet.failing_since = sheet.failing_since.map(|_| now.mono_at(sheet.failing_on));
            sheet.hard_since = sheet.hard_since.map(|_| at + INTERVAL);
            self.doubts.extend(sheet.hard_since.map(|since| (since + HELD, n)));
        }
        (0..self.sheets.len()).for_each(|n| self.tell(n, at));
    }
}

//! Whether it is the gateway that has lost its way, by SEMANTICS 8: many hosts that were up fall
//! silent at once, and nobody else can be heard.
//!
//! Pure bookkeeping over all hosts. When a large share fails within one window, nothing counts until
//! others have been asked: one that is heard acquits the gateway, and who fails is judged as ever. If
//! nobody is, the gateway is taken to be cut off until the first sign of life. Knows no questions and
//! no messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::HostId;
use crate::time::Mono;

/// Failures this close together are one happening: the usual interval of checks.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer are never a sign of the gateway: a small site has as many devices.
const FEWEST: usize = 5;
/// Of those that were up, one in so many.
const SHARE: usize = 5;
/// Others have so long to be heard: the cap of SEMANTICS 8, more than one question takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a host is to the population.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its hard state is up.
    pub up: bool,
    pub failing_since: Option<Mono>,
    pub good_at: Option<Mono>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Others are to be asked now.
    Ask,
    /// So many, of so many that were up, and nobody else was heard.
    Lost { lost: usize, of: usize },
    /// Somebody is heard again.
    Back,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Calm,
    Asking(Mono),
    Lost(Mono),
}

#[derive(Debug, Default)]
pub struct Population {
    up: BTreeSet<HostId>,
    /// Were up, and have failed since.
    failing: BTreeMap<HostId, Mono>,
    phase: Phase,
}

impl Population {
    /// An earlier run ended cut off.
    pub fn restore_lost(&mut self, now: Mono) {
        self.phase = Phase::Lost(now);
    }

    /// Silence proves nothing now.
    pub fn is_doubtful(&self) -> bool {
        self.phase != Phase::Calm
    }

    pub fn is_failing(&self, id: HostId) -> bool {
        self.failing.contains_key(&id)
    }

    pub fn due(&self) -> Option<Mono> {
        match self.phase {
            Phase::Asking(since) => Some(since + PATIENCE),
            Phase::Calm | Phase::Lost(_) => None,
        }
    }

    /// A host has changed; `None`: it is gone.
    pub fn note(&mut self, id: HostId, member: Option<Member>, now: Mono) -> Option<Step> {
        let was_up = self.up.remove(&id);
        let Some(member) = member else {
            self.failing.remove(&id);
            return None;
        };
        if member.up {
            self.up.insert(id);
        }
        match member.failing_since {
            None => drop(self.failing.remove(&id)),
            // Counted once, by its first failure.
            Some(since) if was_up && now.since(since) < WINDOW => {
                self.failing.entry(id).or_insert(since);
            }
            Some(_) => {}
        }
        self.weigh(member, now)
    }

    fn weigh(&mut self, member: Member, now: Mono) -> Option<Step> {
        let heard_after =
            |since| member.failing_since.is_none() && member.good_at.is_some_and(|at| at > since);
        match self.phase {
            Phase::Calm if self.is_suspicious(now) => {
                self.phase = Phase::Asking(now);
                Some(Step::Ask)
            }
            Phase::Asking(since) if heard_after(since) => {
                self.acquit();
                None
            }
            Phase::Lost(since) if heard_after(since) => {
                self.acquit();
                Some(Step::Back)
            }
            _ => None,
        }
    }

    /// Time has passed.
    pub fn look(&mut self, now: Mono) -> Option<Step> {
        if self.due().is_none_or(|at| at > now) {
            return None;
        }
        let (lost, of) = (self.failing.len(), self.count());
        self.phase = Phase::Lost(now);
        Some(Step::Lost { lost, of })
    }

    fn acquit(&mut self) {
        self.phase = Phase::Calm;
        self.failing.clear();
    }

    fn is_suspicious(&self, now: Mono) -> bool {
        let recent = self.failing.values().filter(|since| now.since(**since) < WINDOW).count();
        recent >= FEWEST && recent * SHARE >= self.count()
    }

    /// All that were up when it began.
    fn count(&self) -> usize {
        self.up.len() + self.failing.keys().filter(|id| !self.up.contains(id)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn at(secs: u64) -> Mono {
        Mono::from_secs(1_000 + secs)
    }

    fn well(secs: u64) -> Option<Member> {
        Some(Member { up: true, failing_since: None, good_at: Some(at(secs)) })
    }

    fn fails(secs: u64) -> Option<Member> {
        Some(Member { up: true, failing_since: Some(at(secs)), good_at: Some(at(0)) })
    }

    fn population(count: i64) -> Population {
        let mut all = Population::default();
        (0..count).for_each(|n| assert_eq!(all.note(Id::from_i64(n), well(0), at(0)), None));
        all
    }

    /// One host after the other fails, each `gap` seconds after the one before; how many until others
    /// are asked.
    fn suspects(count: i64, gap: u64) -> Option<i64> {
        let mut all = population(count);
        (0..count).find(|n| {
            let t = 10 + *n as u64 * gap;
            all.note(Id::from_i64(*n), fails(t), at(t)) == Some(Step::Ask)
        })
    }

    #[test]
    fn a_fifth_and_at_least_five_at_once_are_suspicious() {
        assert_eq!(suspects(4, 1), None);
        assert_eq!(suspects(5, 1), Some(4));
        assert_eq!(suspects(25, 1), Some(4));
        assert_eq!(suspects(50, 1), Some(9));
        assert_eq!(suspects(1_000, 0), Some(199));
        assert_eq!(suspects(50, 10), None, "six in a minute are six devices");
    }

    #[test]
    fn one_that_is_heard_acquits_the_gateway_and_nobody_heard_convicts_it() {
        let mut all = population(10);
        let steps: Vec<_> = (0..5).filter_map(|n| all.note(Id::from_i64(n), fails(10), at(10))).collect();
        assert_eq!(steps, [Step::Ask]);
        assert!(all.is_doubtful());
        assert_eq!(all.note(Id::from_i64(7), well(9), at(11)), None);
        assert!(all.is_doubtful(), "that packet was older");
        assert_eq!(all.note(Id::from_i64(7), well(12), at(12)), None);
        assert!(!all.is_doubtful());
        assert_eq!(all.note(Id::from_i64(1), fails(10), at(20)), None, "they were weighed");

        let mut all = population(10);
        let steps: Vec<_> = (0..5).filter_map(|n| all.note(Id::from_i64(n), fails(10), at(10))).collect();
        assert_eq!(steps, [Step::Ask]);
        assert_eq!(all.look(at(39)), None);
        assert_eq!(all.look(at(40)), Some(Step::Lost { lost: 5, of: 10 }));
        assert_eq!(all.look(at(41)), None);
        assert_eq!(all.note(Id::from_i64(3), well(50), at(50)), Some(Step::Back));
        assert!(!all.is_doubtful());
    }

    #[test]
    fn who_was_down_before_or_is_gone_does_not_count() {
        let mut all = population(6);
        let down = Some(Member { up: false, failing_since: Some(at(1)), good_at: None });
        all.note(Id::from_i64(0), down, at(1));
        for n in [0, 1, 2, 3, 4] {
            let failing = if n == 0 { down } else { fails(100) };
            assert_eq!(all.note(Id::from_i64(n), failing, at(100)), None);
        }
        all.note(Id::from_i64(1), None, at(100));
        assert_eq!(all.note(Id::from_i64(5), fails(101), at(101)), None);
    }
}

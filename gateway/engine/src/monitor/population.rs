//! Whether it is the gateway that has lost its way, by SEMANTICS 8: many hosts that were up fall
//! silent at once, and nobody else can be heard.
//!
//! Pure bookkeeping over all hosts. When a large share fails within one window, or the sentinel accuses
//! the gateway, nothing counts until others have been asked: one that is heard acquits the gateway, and
//! who fails is judged as ever. If nobody is, the gateway is taken to be cut off until the first sign of
//! life, or until the sentinel that said so takes it back. Knows no questions and no messages.

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
/// Under a clear sky a crowd that stays silent is the gateway's for so long: time enough for whoever
/// got the message to look at it, and for a router that starts again.
const CLEAR_SKY: Duration = Duration::from_secs(300);
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
    /// Nothing speaks against the gateway any more: who is silent is judged.
    Seen,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Calm,
    /// `crowd`: so many fail that it would be said without the sentinel. `told`: it was said.
    Asking {
        since: Mono,
        crowd: bool,
        told: bool,
    },
    Lost {
        since: Mono,
        crowd: bool,
    },
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
        self.phase = Phase::Lost { since: now, crowd: true };
    }

    /// The sentinel sees no way out.
    pub fn accuse(&mut self, now: Mono) -> Option<Step> {
        if self.phase != Phase::Calm {
            return None;
        }
        self.phase = Phase::Asking { since: now, crowd: false, told: false };
        Some(Step::Ask)
    }

    /// That explains how many are silent: when it is over, they are judged.
    pub fn explain(&mut self) {
        if let Phase::Lost { crowd, .. } = &mut self.phase {
            *crowd = false;
        }
    }

    /// The sentinel sees the way out again. Who says nothing now is silent by itself, unless they are
    /// so many that it is the gateway for all that.
    pub fn excuse(&mut self, now: Mono) -> Option<Step> {
        match self.phase {
            Phase::Asking { crowd: false, told: false, .. } => {
                self.acquit();
                None
            }
            Phase::Lost { crowd, .. } if !crowd || self.count() < FEWEST => {
                self.phase = Phase::Asking { since: now, crowd: false, told: true };
                Some(Step::Ask)
            }
            _ => None,
        }
    }

    /// The sentinel sees the way out; `proved`: somebody outside answers. What is silent for long enough
    /// under such a sky is silent by itself. Few were never a crowd: it was the sentinel's word.
    pub fn clear_sky(&mut self, proved: bool, now: Mono) -> Option<Step> {
        let Phase::Lost { since, .. } = self.phase else { return None };
        let believed = proved || self.count() < FEWEST;
        if !believed || now.since(since) < CLEAR_SKY {
            return None;
        }
        self.phase = Phase::Asking { since: now, crowd: false, told: true };
        Some(Step::Ask)
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
            Phase::Asking { since, .. } => Some(since + PATIENCE),
            Phase::Calm | Phase::Lost { .. } => None,
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
                self.phase = Phase::Asking { since: now, crowd: true, told: false };
                Some(Step::Ask)
            }
            Phase::Asking { since, told, .. } if heard_after(since) => {
                self.acquit();
                told.then_some(Step::Back)
            }
            Phase::Asking { since, crowd: false, told } if self.is_suspicious(now) => {
                self.phase = Phase::Asking { since, crowd: true, told };
                None
            }
            Phase::Lost { since, .. } if heard_after(since) => {
                self.acquit();
                Some(Step::Back)
            }
            _ => None,
        }
    }

    /// Time has passed. `dark`: the sentinel sees no way out.
    pub fn look(&mut self, dark: bool, now: Mono) -> Option<Step> {
        let Phase::Asking { since, crowd, told } = self.phase else { return None };
        if since + PATIENCE > now {
            return None;
        }
        if !crowd && !dark {
            self.acquit();
            return told.then_some(Step::Seen);
        }
        let (lost, of) = (self.failing.len(), self.count());
        self.phase = Phase::Lost { since: now, crowd: crowd && !dark };
        (!told).then_some(Step::Lost { lost, of })
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
        assert_eq!(all.look(false, at(39)), None);
        assert_eq!(all.look(false, at(40)), Some(Step::Lost { lost: 5, of: 10 }));
        assert_eq!(all.look(false, at(41)), None);
        assert_eq!(all.note(Id::from_i64(3), well(50), at(50)), Some(Step::Back));
        assert!(!all.is_doubtful());
    }

    #[test]
    fn a_sentinel_that_sees_no_way_out_needs_no_crowd_and_one_that_is_heard_contradicts_it() {
        let mut all = population(2);
        assert_eq!(all.accuse(at(10)), Some(Step::Ask));
        assert!(all.is_doubtful());
        assert_eq!(all.note(Id::from_i64(0), well(12), at(12)), None);
        assert!(!all.is_doubtful(), "whatever the sentinel sees");

        assert_eq!(all.accuse(at(20)), Some(Step::Ask));
        assert_eq!(all.note(Id::from_i64(0), fails(25), at(25)), None);
        assert_eq!(all.look(true, at(50)), Some(Step::Lost { lost: 1, of: 2 }));
        assert_eq!(all.note(Id::from_i64(1), well(60), at(60)), Some(Step::Back));
    }

    #[test]
    fn a_sentinel_that_sees_again_lets_those_be_judged_that_stay_silent() {
        let mut all = population(2);
        assert_eq!((all.accuse(at(10)), all.excuse(at(12))), (Some(Step::Ask), None));
        assert!(!all.is_doubtful(), "one bad look");

        all.accuse(at(20));
        assert_eq!(all.look(true, at(50)), Some(Step::Lost { lost: 0, of: 2 }));
        assert_eq!((all.excuse(at(90)), all.is_doubtful()), (Some(Step::Ask), true));
        assert_eq!((all.look(false, at(119)), all.look(false, at(120))), (None, Some(Step::Seen)));
        assert!(!all.is_doubtful());
    }

    #[test]
    fn a_crowd_that_falls_silent_is_the_gateways_until_one_is_heard_or_the_sky_was_clear_for_long() {
        let mut all = population(10);
        for n in 0..5 {
            all.note(Id::from_i64(n), fails(10), at(10));
        }
        assert_eq!(all.look(false, at(40)), Some(Step::Lost { lost: 5, of: 10 }));
        assert_eq!((all.excuse(at(50)), all.is_doubtful()), (None, true));
        assert_eq!(all.clear_sky(false, at(9_999)), None, "a default route proves nothing");
        assert_eq!(all.clear_sky(true, at(339)), None);
        let mut judged = population(10);
        (0..5).for_each(|n| assert!(judged.note(Id::from_i64(n), fails(10), at(10)) != Some(Step::Back)));
        judged.look(false, at(40));
        assert_eq!(judged.clear_sky(true, at(340)), Some(Step::Ask));
        assert_eq!(judged.look(false, at(370)), Some(Step::Seen));
        all.explain();
        assert_eq!(all.excuse(at(60)), Some(Step::Ask), "it was dark in between");
        assert_eq!(all.note(Id::from_i64(7), well(61), at(61)), Some(Step::Back));
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

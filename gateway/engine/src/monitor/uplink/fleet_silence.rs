//! Fleet silence: decides whether the gateway itself is cut off (SEMANTICS 8). The sign is that
//! many hosts that were up fall silent at once, and no other is heard.
//!
//! Pure bookkeeping over all hosts. If a large share falls silent within one interval, or the
//! uplink check suspects the gateway, no failure counts until other hosts have been checked. A host
//! that is heard clears the gateway, and failures count as usual. If no host is heard, the gateway
//! is considered cut off. That lasts until the first sign of life, or until the uplink check that
//! reported the loss reports the uplink back.
//!
//! If both signs speak against the gateway, a single host that is heard may be a neighbour and
//! proves nothing. The gateway is then cleared when most of the silent hosts are heard again, or so
//! many that the rest is too few. This module knows no probes and no messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::HostId;
use crate::time::{Mono, age};

use crate::monitor::uplink::health::UplinkStatus;

/// Silences within this time count as one event, however often the fleet is checked. Three failures
/// of one host take about as long.
const WINDOW: Duration = Duration::from_secs(60);
/// The smallest number of silent hosts that can point to the gateway: a small site has as many
/// devices.
const FEWEST: usize = 5;
/// The share of the hosts that were up: one in this many.
const SHARE: usize = 5;
/// While the uplink check is ok, a mass silence is attributed to the gateway for at least this
/// time. That is enough for an operator to look at the notification, and for a router to restart.
const CLEAR_SKY: Duration = Duration::from_secs(300);
/// The time for other hosts to be heard: the limit of SEMANTICS 8, and longer than one probe takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A host, as it counts for the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its hard state is up.
    pub up: bool,
    /// It is up and expected to be silent, so its silence would not show.
    pub asleep: bool,
    /// The start of its silence, whether its failures counted or not.
    pub silent_since: Option<Mono>,
    /// The time of its last own proof of life; a passive result is none.
    pub good_at: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Silence {
    since: Mono,
    /// Its last proof of life before the silence.
    good_at: Option<Mono>,
}

/// The next action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilenceAction {
    /// Check other hosts now.
    ProbeRequest,
    /// The gateway is cut off.
    Lost(Loss),
    /// A host is heard again.
    Back,
    /// Nothing points to the gateway any more: silent hosts are evaluated.
    Seen,
}

/// The evidence that the gateway is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The number of hosts that fell silent, out of `of` that were up.
    pub lost: usize,
    pub of: usize,
    pub within: Duration,
    /// Whether they are so many that the gateway is suspected without the uplink check.
    pub crowd: bool,
}

impl Loss {
    /// Describes the loss for people.
    pub fn words(&self) -> String {
        let Loss { lost, of, .. } = self;
        format!("{lost} of {of} hosts that were up fell silent within {}", age(self.within))
    }
}

/// `crowd`: so many fell silent that the gateway is suspected without the uplink check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Calm,
    /// `told`: the loss was reported.
    Asking { since: Mono, crowd: bool, told: bool },
    /// `explained`: the uplink check found the cause. When the uplink is back, the silent hosts are
    /// evaluated.
    Lost { since: Mono, crowd: bool, explained: bool },
}

#[derive(Debug)]
pub struct FleetSilence {
    window: Duration,
    up: BTreeSet<HostId>,
    /// The hosts among `up` that are asleep.
    asleep: BTreeSet<HostId>,
    /// Hosts that were up and fell silent within the window.
    silent: BTreeMap<HostId, Silence>,
    /// The hosts among `silent` that were heard since the other checks began.
    back: BTreeSet<HostId>,
    /// Hosts that were silent by then have had their part in a decision.
    weighed: Mono,
    sky: UplinkStatus,
    phase: Phase,
}

impl FleetSilence {
    /// `interval`: the time in which most hosts are checked once.
    pub fn new(interval: Duration) -> Self {
        FleetSilence {
            window: interval.max(WINDOW),
            up: BTreeSet::new(),
            asleep: BTreeSet::new(),
            silent: BTreeMap::new(),
            back: BTreeSet::new(),
            weighed: Mono::ZERO,
            sky: UplinkStatus::Clear,
            phase: Phase::Calm,
        }
    }

    /// Continues from an earlier run that ended while cut off.
    pub fn restore_lost(&mut self, now: Mono) {
        self.phase = Phase::Lost { since: now, crowd: true, explained: false };
    }

    /// Records the state of the uplink check. A lost uplink explains any number of silent hosts.
    pub fn look_up(&mut self, sky: UplinkStatus) {
        self.sky = sky;
        if let Phase::Lost { explained, .. } = &mut self.phase {
            *explained |= sky == UplinkStatus::Dark;
        }
    }

    /// Records that the uplink check reports no uplink.
    pub fn suspect_uplink(&mut self, now: Mono) -> Option<SilenceAction> {
        if self.phase != Phase::Calm {
            return None;
        }
        self.phase = Phase::Asking { since: now, crowd: false, told: false };
        Some(SilenceAction::ProbeRequest)
    }

    /// Records that the uplink is back. Hosts that are silent now are evaluated by themselves,
    /// unless they are so many that the gateway is still suspected.
    pub fn excuse(&mut self, now: Mono) -> Option<SilenceAction> {
        let is_small = self.count(now) < FEWEST;
        match self.phase {
            Phase::Asking { crowd: false, told: false, .. } => {
                self.phase = Phase::Calm;
                None
            }
            Phase::Lost { explained, .. } if explained || is_small => self.probe_again(now),
            _ => None,
        }
    }

    /// Records that the uplink check is ok; `proved`: an address outside replied. Hosts that stay
    /// silent long enough meanwhile are silent by themselves. A few silent hosts never pointed to
    /// the gateway; only the uplink check did.
    pub fn clear_sky(&mut self, proved: bool, now: Mono) -> Option<SilenceAction> {
        let Phase::Lost { since, .. } = self.phase else { return None };
        let believed = proved || self.count(now) < FEWEST;
        let long = now.since(since) >= CLEAR_SKY.max(self.window);
        if believed && long { self.probe_again(now) } else { None }
    }

    /// Treats the hosts that are silent so far as explained.
    fn probe_again(&mut self, now: Mono) -> Option<SilenceAction> {
        self.weighed = now;
        self.silent.clear();
        self.back.clear();
        self.phase = Phase::Asking { since: now, crowd: false, told: true };
        Some(SilenceAction::ProbeRequest)
    }

    /// Whether silence proves nothing now.
    pub fn is_doubtful(&self) -> bool {
        self.phase != Phase::Calm
    }

    /// Whether other hosts are being checked, without a decision yet.
    pub fn asks(&self) -> bool {
        matches!(self.phase, Phase::Asking { told: false, .. })
    }

    pub fn is_silent(&self, id: HostId) -> bool {
        self.silent.contains_key(&id)
    }

    pub fn due(&self) -> Option<Mono> {
        match self.phase {
            Phase::Asking { since, .. } => Some(since + PATIENCE),
            Phase::Calm | Phase::Lost { .. } => None,
        }
    }

    /// Records a changed host; `None`: it is removed.
    pub fn note(&mut self, id: HostId, member: Option<Member>, now: Mono) -> Option<SilenceAction> {
        let was_up = self.up.remove(&id);
        self.asleep.remove(&id);
        let Some(member) = member else {
            self.silent.remove(&id);
            self.back.remove(&id);
            return None;
        };
        if member.up {
            self.up.insert(id);
        }
        if member.up && member.asleep {
            self.asleep.insert(id);
        }
        let Some(since) = member.silent_since else {
            let is_heard = |silence: &Silence| member.good_at > silence.good_at;
            if self.silent.get(&id).is_some_and(is_heard) {
                self.silent.remove(&id);
                if self.is_doubtful() {
                    self.back.insert(id);
                }
            }
            return self.on_result(member.good_at, now);
        };
        let is_new = was_up && since > self.weighed && now.since(since) < self.window;
        let silence = Silence { since, good_at: member.good_at };
        if !is_new || self.silent.insert(id, silence).is_some() {
            return None;
        }
        self.back.remove(&id);
        if self.is_crowd(now) { self.suspect(now) } else { None }
    }

    /// Suspects the gateway, because so many hosts fell silent.
    fn suspect(&mut self, now: Mono) -> Option<SilenceAction> {
        match &mut self.phase {
            Phase::Calm => {
                self.back.clear();
                self.phase = Phase::Asking { since: now, crowd: true, told: false };
                Some(SilenceAction::ProbeRequest)
            }
            Phase::Asking { crowd, .. } | Phase::Lost { crowd, .. } => {
                *crowd = true;
                None
            }
        }
    }

    /// Clears the gateway, because a host is heard. While the uplink check finds no uplink, this
    /// does not apply if many are silent.
    fn on_result(&mut self, at: Option<Mono>, now: Mono) -> Option<SilenceAction> {
        let (since, crowd, told) = match self.phase {
            Phase::Calm => return None,
            Phase::Asking { since, crowd, told } => (since, crowd, told),
            Phase::Lost { since, crowd, .. } => (since, crowd, true),
        };
        // At this point the number of silent hosts is unknown: after a restart each host has yet to
        // be checked.
        let early = now.since(since) < self.window && self.count(now) >= FEWEST;
        let most_are_silent = self.is_crowd(now) && self.back.len() < self.silent.len();
        let is_neighbour = crowd && self.sky != UplinkStatus::Clear && (early || most_are_silent);
        if is_neighbour || at <= Some(since) {
            return None;
        }
        self.clear_suspicion(crowd || told, now);
        told.then_some(SilenceAction::Back)
    }

    /// Decides once the wait for other hosts is over.
    pub fn look(&mut self, now: Mono) -> Option<SilenceAction> {
        let Phase::Asking { since, crowd, told } = self.phase else { return None };
        if since + PATIENCE > now {
            return None;
        }
        let dark = self.sky == UplinkStatus::Dark;
        if !crowd && !dark {
            self.clear_suspicion(told, now);
            return told.then_some(SilenceAction::Seen);
        }
        let of = self.count(now);
        self.phase = Phase::Lost { since: now, crowd, explained: dark };
        (!told).then_some(SilenceAction::Lost(Loss {
            lost: self.silent.len(),
            of,
            within: self.window,
            crowd,
        }))
    }

    /// `weighed`: the decision covered all hosts that are silent.
    fn clear_suspicion(&mut self, weighed: bool, now: Mono) {
        self.phase = Phase::Calm;
        self.back.clear();
        if weighed {
            self.weighed = now;
            self.silent.clear();
        }
    }

    fn is_crowd(&mut self, now: Mono) -> bool {
        let all = self.count(now);
        self.silent.len() >= FEWEST && self.silent.len() * SHARE >= all
    }

    /// Returns the number of hosts that were up and awake when the window began. The window stands
    /// still while other hosts are checked. While the gateway is cut off, a silent host leaves it
    /// only by being heard.
    fn count(&mut self, now: Mono) -> usize {
        let end = match self.phase {
            Phase::Calm => now,
            Phase::Asking { since, .. } => since,
            Phase::Lost { .. } => Mono::ZERO,
        };
        self.silent.retain(|_, silence| end.since(silence.since) < self.window);
        self.up.len() - self.asleep.len() + self.silent.keys().filter(|id| !self.up.contains(id)).count()
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
        Some(Member { up: true, asleep: false, silent_since: None, good_at: Some(at(secs)) })
    }

    fn fails(secs: u64) -> Option<Member> {
        Some(Member { up: true, asleep: false, silent_since: Some(at(secs)), good_at: Some(at(0)) })
    }

    const MINUTE: Duration = Duration::from_secs(60);

    fn population(count: i64, interval: Duration) -> FleetSilence {
        let mut all = FleetSilence::new(interval);
        (0..count).for_each(|n| assert_eq!(all.note(Id::from_i64(n), well(0), at(0)), None));
        all
    }

    /// Lets these hosts fall silent at once and returns the steps.
    fn silence(all: &mut FleetSilence, who: std::ops::Range<i64>, secs: u64) -> Vec<SilenceAction> {
        who.filter_map(|n| all.note(Id::from_i64(n), fails(secs), at(secs))).collect()
    }

    fn on_result(all: &mut FleetSilence, n: i64, secs: u64) -> Option<SilenceAction> {
        all.note(Id::from_i64(n), well(secs), at(secs))
    }

    fn dark(all: &mut FleetSilence) {
        all.look_up(UplinkStatus::Dark);
    }

    fn lost(lost: usize, of: usize, crowd: bool) -> Option<SilenceAction> {
        Some(SilenceAction::Lost(Loss { lost, of, within: MINUTE, crowd }))
    }

    /// Lets one host after the other fall silent, `gap` seconds apart. Returns the number after
    /// which other hosts are checked.
    fn suspects(count: i64, gap: u64, interval: Duration) -> Option<i64> {
        let mut all = population(count, interval);
        (0..count).find(|n| {
            let t = 10 + *n as u64 * gap;
            !silence(&mut all, *n..n + 1, t).is_empty()
        })
    }

    #[test]
    fn a_fifth_of_the_fleet_and_at_least_five_within_an_interval_raise_a_doubt() {
        assert_eq!(suspects(4, 1, MINUTE), None);
        assert_eq!(suspects(5, 1, MINUTE), Some(4));
        assert_eq!(suspects(25, 1, MINUTE), Some(4));
        assert_eq!(suspects(50, 1, MINUTE), Some(9));
        assert_eq!(suspects(1_000, 0, MINUTE), Some(199));
        assert_eq!(suspects(50, 10, MINUTE), None, "six in a minute are six devices");
        assert_eq!(suspects(50, 10, 5 * MINUTE), Some(9), "where each is asked in five");
        assert_eq!(suspects(50, 10, MINUTE / 6), None, "a minute at least");
    }

    #[test]
    fn hosts_that_fell_silent_long_ago_do_not_count() {
        let mut all = population(30, MINUTE);
        for n in 0..6 {
            let t = 10 + n * 30;
            assert_eq!(silence(&mut all, n as i64..n as i64 + 1, t), [], "one after the other");
            let down = Member { up: false, asleep: false, silent_since: Some(at(t)), good_at: None };
            all.note(Id::from_i64(n as i64), Some(down), at(t + 20));
        }
        assert_eq!(silence(&mut all, 6..10, 1_000), [], "four");
        let down = Member { up: false, asleep: false, silent_since: Some(at(1_000)), good_at: None };
        (6..10).for_each(|n| assert_eq!(all.note(Id::from_i64(n), Some(down), at(1_030)), None));
        assert_eq!(silence(&mut all, 10..11, 1_031), [SilenceAction::ProbeRequest], "five of 24");
        assert_eq!(all.look(at(1_061)), lost(5, 24, true));
    }

    #[test]
    fn one_host_that_is_heard_ends_the_doubt_and_none_makes_it_a_loss() {
        let mut all = population(10, MINUTE);
        assert_eq!(silence(&mut all, 0..5, 10), [SilenceAction::ProbeRequest]);
        assert!(all.is_doubtful());
        assert_eq!(all.note(Id::from_i64(7), well(9), at(11)), None);
        assert!(all.is_doubtful(), "that packet was older");
        assert_eq!(on_result(&mut all, 7, 12), None);
        assert!(!all.is_doubtful());
        assert_eq!(silence(&mut all, 0..5, 10), [], "they were weighed");

        let mut all = population(10, MINUTE);
        assert_eq!(silence(&mut all, 0..5, 10), [SilenceAction::ProbeRequest]);
        assert_eq!(all.look(at(39)), None);
        assert_eq!(all.look(at(40)), lost(5, 10, true));
        assert_eq!(all.look(at(41)), None);
        assert_eq!(on_result(&mut all, 3, 50), Some(SilenceAction::Back));
        assert!(!all.is_doubtful());
    }

    /// A passive result is no proof of the host's own.
    #[test]
    fn a_host_that_is_no_longer_silent_without_a_proof_is_not_heard() {
        let mut all = population(10, MINUTE);
        assert_eq!(silence(&mut all, 0..5, 10), [SilenceAction::ProbeRequest]);
        assert_eq!(all.note(Id::from_i64(0), well(0), at(11)), None);
        assert!(all.is_doubtful() && all.is_silent(Id::from_i64(0)));
        assert_eq!(all.look(at(40)), lost(5, 10, true));
    }

    #[test]
    fn a_failed_uplink_probe_needs_no_other_failures_and_a_host_that_is_heard_contradicts_it() {
        let mut all = population(2, MINUTE);
        dark(&mut all);
        assert_eq!(all.suspect_uplink(at(10)), Some(SilenceAction::ProbeRequest));
        assert!(all.is_doubtful());
        assert_eq!(on_result(&mut all, 0, 12), None);
        assert!(!all.is_doubtful(), "whatever the sentinel sees");

        assert_eq!(all.suspect_uplink(at(20)), Some(SilenceAction::ProbeRequest));
        assert_eq!(silence(&mut all, 0..1, 25), []);
        assert_eq!(all.look(at(50)), lost(1, 2, false));
        assert_eq!(on_result(&mut all, 1, 60), Some(SilenceAction::Back));
    }

    #[test]
    fn while_the_uplink_probe_fails_one_host_that_is_heard_does_not_clear_many_silent_ones() {
        let mut all = population(10, MINUTE);
        dark(&mut all);
        assert_eq!(all.suspect_uplink(at(10)), Some(SilenceAction::ProbeRequest));
        assert_eq!(silence(&mut all, 0..4, 11), []);
        assert_eq!((on_result(&mut all, 9, 12), all.is_doubtful()), (None, false), "four are no crowd");
        assert_eq!(
            silence(&mut all, 4..5, 20),
            [SilenceAction::ProbeRequest],
            "with those from before they are"
        );
        assert_eq!((on_result(&mut all, 9, 21), all.is_doubtful()), (None, true));
        assert_eq!(all.look(at(50)), lost(5, 10, true));
        assert_eq!((on_result(&mut all, 9, 60), all.is_doubtful()), (None, true));
        assert_eq!((all.clear_sky(true, at(70)), all.is_doubtful()), (None, true));
        all.look_up(UplinkStatus::Clear);
        assert_eq!((all.excuse(at(3_600)), all.is_doubtful()), (Some(SilenceAction::ProbeRequest), true));
        assert_eq!(silence(&mut all, 4..9, 20), [], "that was explained");
        assert_eq!(on_result(&mut all, 9, 3_601), Some(SilenceAction::Back));
    }

    #[test]
    fn while_the_uplink_probe_fails_the_loss_ends_when_too_few_hosts_stay_silent() {
        let mut all = population(10, MINUTE);
        dark(&mut all);
        assert_eq!(silence(&mut all, 0..7, 10), [SilenceAction::ProbeRequest]);
        assert_eq!(all.look(at(40)), lost(7, 10, true));
        assert_eq!(
            (on_result(&mut all, 9, 3_600), on_result(&mut all, 0, 3_601), on_result(&mut all, 1, 3_602)),
            (None, None, None)
        );
        assert_eq!(on_result(&mut all, 2, 3_603), Some(SilenceAction::Back), "four are no crowd");
        assert!(!all.is_doubtful());
    }

    #[test]
    fn sleeping_hosts_do_not_count_in_the_share_of_silent_ones() {
        let mut all = population(30, MINUTE);
        let asleep = Member { up: true, asleep: true, silent_since: None, good_at: Some(at(0)) };
        (0..24).for_each(|n| assert_eq!(all.note(Id::from_i64(n), Some(asleep), at(5)), None));
        assert_eq!(silence(&mut all, 25..30, 10), [SilenceAction::ProbeRequest]);
        assert_eq!(all.look(at(40)), lost(5, 6, true));
        assert_eq!(on_result(&mut all, 3, 50), Some(SilenceAction::Back), "it woke");

        let mut all = population(30, MINUTE);
        (0..30).for_each(|n| assert_eq!(all.note(Id::from_i64(n), Some(asleep), at(5)), None));
        assert_eq!(
            silence(&mut all, 0..6, 10),
            [SilenceAction::ProbeRequest],
            "none of those that should have woken did"
        );
    }

    #[test]
    fn while_the_uplink_probe_fails_hosts_that_went_down_meanwhile_do_not_prolong_the_loss() {
        let mut all = population(21, MINUTE);
        dark(&mut all);
        assert_eq!(silence(&mut all, 0..20, 10), [SilenceAction::ProbeRequest]);
        assert_eq!(all.look(at(40)), lost(20, 21, true));
        let back: Vec<Option<SilenceAction>> =
            (0..10).map(|n| on_result(&mut all, n, 3_600 + n as u64)).collect();
        assert_eq!((back.iter().flatten().count(), back[9]), (1, Some(SilenceAction::Back)), "ten of twenty");
    }

    #[test]
    fn after_a_restart_one_host_that_is_heard_counts_only_after_the_others_were_probed() {
        let mut all = population(10, MINUTE);
        all.restore_lost(at(10));
        dark(&mut all);
        assert_eq!((on_result(&mut all, 9, 20), all.is_doubtful()), (None, true));
        assert_eq!(silence(&mut all, 0..5, 30), []);
        assert_eq!((on_result(&mut all, 9, 80), all.is_doubtful()), (None, true));
        assert_eq!(on_result(&mut all, 0, 90), Some(SilenceAction::Back));
    }

    #[test]
    fn after_the_uplink_probe_succeeds_silent_hosts_are_evaluated_again() {
        let mut all = population(2, MINUTE);
        assert_eq!(
            (all.suspect_uplink(at(10)), all.excuse(at(12))),
            (Some(SilenceAction::ProbeRequest), None)
        );
        assert!(!all.is_doubtful(), "one bad look");

        dark(&mut all);
        all.suspect_uplink(at(20));
        assert_eq!(all.look(at(50)), lost(0, 2, false));
        all.look_up(UplinkStatus::Clear);
        assert_eq!((all.excuse(at(90)), all.is_doubtful()), (Some(SilenceAction::ProbeRequest), true));
        assert_eq!((all.look(at(119)), all.look(at(120))), (None, Some(SilenceAction::Seen)));
        assert!(!all.is_doubtful());
    }

    #[test]
    fn many_silent_hosts_are_a_loss_until_one_is_heard_or_the_uplink_probe_succeeds_for_long() {
        let fallen = || {
            let mut all = population(10, MINUTE);
            assert_eq!(silence(&mut all, 0..5, 10), [SilenceAction::ProbeRequest]);
            assert_eq!(all.look(at(40)), lost(5, 10, true));
            all
        };
        let mut all = fallen();
        assert_eq!((all.excuse(at(50)), all.is_doubtful()), (None, true));
        assert_eq!(all.clear_sky(false, at(9_999)), None, "a default route proves nothing");
        assert_eq!(all.clear_sky(true, at(339)), None);
        let mut judged = fallen();
        assert_eq!(judged.clear_sky(true, at(340)), Some(SilenceAction::ProbeRequest));
        assert_eq!(judged.look(at(370)), Some(SilenceAction::Seen));
        assert_eq!(silence(&mut judged, 0..5, 330), [], "whoever was silent then is judged");
        [UplinkStatus::Dark, UplinkStatus::Clear].into_iter().for_each(|sky| all.look_up(sky));
        assert_eq!(all.excuse(at(60)), Some(SilenceAction::ProbeRequest), "it was dark in between");
        assert_eq!(on_result(&mut all, 7, 61), Some(SilenceAction::Back));
    }

    #[test]
    fn hosts_that_were_down_before_or_removed_do_not_count() {
        let mut all = population(6, MINUTE);
        let down = Some(Member { up: false, asleep: false, silent_since: Some(at(1)), good_at: None });
        all.note(Id::from_i64(0), down, at(1));
        for n in [0, 1, 2, 3, 4] {
            let silent = if n == 0 { down } else { fails(100) };
            assert_eq!(all.note(Id::from_i64(n), silent, at(100)), None);
        }
        all.note(Id::from_i64(1), None, at(100));
        assert_eq!(all.note(Id::from_i64(5), fails(101), at(101)), None);
    }
}

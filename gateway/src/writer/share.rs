//! Decides which events of a host the log lists, and which it only counts. Pure.
//!
//! A device controls its results and how often they change. Each host therefore has a daily share of
//! rows; beyond it, soft changes of state are counted in one row. Hard changes, events of notifications
//! and the actions of operators are always listed.

use std::collections::BTreeMap;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Event, EventKind, GATEWAY};

/// Rows of one host in a day (UTC) before its soft changes are only counted. A link that fails every
/// five minutes makes as many. At 2 kB each, soft changes of a host add 1 MB a day; hard changes are
/// always listed.
pub(super) const LISTED_A_DAY: u32 = 500;

/// The used share of a host on one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub listed: u32,
    pub counted: u32,
    /// The row that holds the count.
    pub event: Option<i64>,
}

/// The shares of one day. A host that is not in here has used nothing.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: BTreeMap<HostId, Share>,
    changed: BTreeMap<HostId, u32>,
}

impl Shares {
    pub fn new(known: impl IntoIterator<Item = (HostId, Share)>) -> Self {
        Shares { shares: known.into_iter().collect(), changed: BTreeMap::new() }
    }

    /// Whether the log lists this event; otherwise it is counted.
    pub fn lists(&mut self, event: &Event) -> bool {
        if event.host == GATEWAY {
            return true;
        }
        let share = self.shares.entry(event.host).or_default();
        let counted = self.changed.entry(event.host).or_default();
        if is_soft_change(&event.kind) && share.listed >= LISTED_A_DAY {
            (share.counted, *counted) = (share.counted.saturating_add(1), *counted + 1);
            return false;
        }
        share.listed = share.listed.saturating_add(1);
        true
    }

    /// Returns the changed shares, each with the number of events counted just now.
    pub fn changed(&mut self) -> impl Iterator<Item = (HostId, &mut Share, u32)> {
        let changed = &self.changed;
        self.shares.iter_mut().filter_map(|(host, share)| Some((*host, share, *changed.get(host)?)))
    }
}

fn is_soft_change(kind: &EventKind) -> bool {
    matches!(kind, EventKind::StateChanged { hard: false, .. })
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::time::Wall;

    use super::*;

    const HOST: HostId = Id::from_i64(7);

    fn event(host: HostId, kind: EventKind) -> Event {
        let (at, cause) = (Wall::from_millis(0), String::new());
        Event { at, host, service: None, kind, cause, evidence: "".into(), by: None }
    }

    fn changed(host: HostId, hard: bool) -> Event {
        event(host, EventKind::StateChanged { from: "ok", to: "critical", hard, measured_at: None })
    }

    fn had(listed: u32) -> Shares {
        Shares::new([(HOST, Share { listed, counted: 2, event: Some(9) })])
    }

    #[test]
    fn soft_changes_are_listed_until_the_share_is_used_up() {
        let mut shares = Shares::default();
        let listed = (0..LISTED_A_DAY + 3).filter(|_| shares.lists(&changed(HOST, false))).count();
        assert_eq!(listed, LISTED_A_DAY as usize);
        let share = Share { listed: LISTED_A_DAY, counted: 3, event: None };
        assert_eq!(
            shares.changed().map(|(host, s, n)| (host, *s, n)).collect::<Vec<_>>(),
            [(HOST, share, 3)]
        );
        assert!(shares.lists(&changed(Id::from_i64(8), false)), "of another host");
    }

    #[test]
    fn events_listed_before_count_towards_the_share() {
        let mut shares = had(LISTED_A_DAY - 1);
        assert!(shares.lists(&event(HOST, EventKind::FirstHandshake)));
        assert!(!shares.lists(&changed(HOST, false)));
        let share = Share { listed: LISTED_A_DAY, counted: 3, event: Some(9) };
        assert_eq!(shares.changed().map(|(_, s, n)| (*s, n)).collect::<Vec<_>>(), [(share, 1)]);
    }

    #[test]
    fn hard_changes_and_other_events_are_always_listed() {
        let mut shares = had(LISTED_A_DAY);
        assert!(shares.lists(&changed(HOST, true)));
        for kind in [EventKind::FlappingStarted, EventKind::HostKeyChanged, EventKind::FellAsleep] {
            assert!(shares.lists(&event(HOST, kind)));
        }
    }

    #[test]
    fn the_gateway_has_no_share() {
        let mut shares = Shares::default();
        assert!((0..LISTED_A_DAY + 1).all(|_| shares.lists(&changed(GATEWAY, false))));
        assert_eq!(shares.changed().count(), 0);
    }

    #[test]
    fn the_share_of_an_unchanged_host_is_not_written_again() {
        assert_eq!(had(5).changed().count(), 0);
    }
}

//! Finds the changes of the intervals among the events of a batch. Pure.
//!
//! Every hard change, downtime and loss is an event, and no event is lost, so that also the states
//! that were replaced while the disk was full have their intervals.

use std::collections::HashMap;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Event, EventKind};
use fleetgate_engine::time::Wall;

use super::pending::{Batch, Entry};
use crate::store::intervals::{Change, Series};

/// A clock that is further behind the greatest time that it has shown is wrong. An event that waits
/// for the disk may be a little behind.
const TOLERATED: Duration = Duration::from_secs(5 * 60);
/// The name of a state before the first result.
const PENDING: &str = "pending";

/// Whether the batch has a change, so that the floor is needed.
pub(super) fn has_changes(batch: &Batch) -> bool {
    batch.log.iter().any(|entry| change(entry).is_some())
}

/// Returns the changes in order. `floor`: the greatest time that the clock has shown. A clock behind
/// it would move a change before years of intervals; the floor takes the place of its time.
pub(super) fn changes(batch: &Batch, floor: Option<Wall>) -> Vec<Change<'_>> {
    let found: Vec<Change<'_>> = batch.log.iter().filter_map(change).collect();
    let mut last = HashMap::new();
    for (n, change) in found.iter().enumerate().filter(|(_, change)| change.series == Series::State) {
        last.insert((change.host, change.service), n);
    }
    let is_last = |n, change: &Change<'_>| last.get(&(change.host, change.service)) == Some(&n);
    let changes = found.iter().enumerate().map(|(n, change)| {
        let since = hard_since(batch, change).filter(|_| is_last(n, change));
        placed(*change, since, floor)
    });
    changes.collect()
}

/// A problem began with its first failure, unless the clock is wrong.
fn placed(change: Change<'_>, since: Option<Wall>, floor: Option<Wall>) -> Change<'_> {
    match floor {
        Some(floor) if change.at + TOLERATED < floor => Change { at: floor, ..change },
        _ => Change { since: since.filter(|since| *since < change.at), ..change },
    }
}

fn change(entry: &Entry) -> Option<Change<'_>> {
    let Entry::Event(event) = entry else { return None };
    let (series, begins) = what(&event.kind)?;
    let measured_at = match event.kind {
        EventKind::StateChanged { measured_at, .. } => measured_at,
        _ => None,
    };
    let (host, service, at) = (event.host, service(event), event.at);
    Some(Change { host, service, series, at, since: None, begins, measured_at })
}

fn service(event: &Event) -> &str {
    event.service.as_deref().unwrap_or_default()
}

fn what(kind: &EventKind) -> Option<(Series, Option<&'static str>)> {
    Some(match kind {
        EventKind::StateChanged { to, hard: true, .. } => {
            (Series::State, Some(*to).filter(|to| *to != PENDING))
        }
        EventKind::DowntimeStarted(_) => (Series::Downtime, Some("")),
        EventKind::DowntimeEnded(_) => (Series::Downtime, None),
        EventKind::RentalQuietStarted => (Series::Rental, Some("")),
        EventKind::RentalQuietEnded => (Series::Rental, None),
        EventKind::Unreachable => (Series::Unreachable, Some("")),
        EventKind::Reachable => (Series::Unreachable, None),
        EventKind::UplinkLost => (Series::UplinkLost, Some("")),
        EventKind::UplinkBack => (Series::UplinkLost, None),
        _ => return None,
    })
}

/// Returns since when the hard state that this change begins has its value, if it is that of the
/// batch.
fn hard_since(batch: &Batch, change: &Change<'_>) -> Option<Wall> {
    if change.series != Series::State {
        return None;
    }
    match change.service {
        "" => host_since(batch, change.host, change.begins),
        name => {
            let state = batch.service(change.host, name)?;
            (state.hard.map(|hard| hard.name()) == change.begins).then_some(state.hard_since)
        }
    }
}

fn host_since(batch: &Batch, host: HostId, begins: Option<&str>) -> Option<Wall> {
    let state = batch.hosts.get(&host)?;
    (Some(state.hard.name()) == begins).then_some(state.hard_since)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{DowntimeOccurrence, GATEWAY, HostState, HostStatus};
    use fleetgate_probes::sample::Status;

    use super::*;
    use crate::store::fixture;

    const HOST: HostId = Id::from_i64(7);

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    fn event(host: HostId, service: Option<&str>, seconds: i64, kind: EventKind) -> Entry {
        Entry::Event(Event {
            at: at(seconds),
            host,
            service: service.map(str::to_owned),
            kind,
            cause: String::new(),
            evidence: "".into(),
            by: None,
        })
    }

    fn turned(service: Option<&str>, seconds: i64, to: &'static str) -> Entry {
        event(
            HOST,
            service,
            seconds,
            EventKind::StateChanged { from: "up", to, hard: true, measured_at: None },
        )
    }

    /// A host that is down since second 90, and a service that is critical since then.
    fn batch(log: Vec<Entry>) -> Batch {
        let down = HostState { hard: HostStatus::Down, hard_since: at(90), ..fixture::up(HOST) };
        let ping = fixture::service("ping", Status::Critical);
        let ping = fleetgate_engine::messages::ServiceState { hard_since: at(90), ..ping };
        let hosts = [(HOST, down)].into();
        Batch { hosts, services: [(HOST, vec![Arc::new(ping)])].into(), log, ..Batch::default() }
    }

    fn times(batch: &Batch, floor: Option<i64>) -> Vec<i64> {
        let found = changes(batch, floor.map(at));
        found.iter().map(|change| change.since.unwrap_or(change.at).as_millis() / 1_000).collect()
    }

    #[test]
    fn a_problem_counts_from_its_first_failure() {
        let batch = batch(vec![turned(None, 100, "down"), turned(Some("ping"), 110, "critical")]);
        assert_eq!(times(&batch, None), [90, 90]);
        assert!(has_changes(&batch));
    }

    #[test]
    fn of_several_changes_the_last_has_the_time_of_the_state() {
        let batch = batch(vec![turned(None, 70, "down"), turned(None, 80, "up"), turned(None, 100, "down")]);
        assert_eq!(times(&batch, None), [70, 80, 90]);
        let begins: Vec<_> = changes(&batch, None).iter().map(|change| change.begins).collect();
        assert_eq!(begins, [Some("down"), Some("up"), Some("down")]);
    }

    #[test]
    fn the_time_of_a_clock_that_is_behind_does_not_count() {
        let of = |floor| times(&batch(vec![turned(None, 100, "down")]), Some(floor));
        assert_eq!((of(120), of(400), of(401), of(9_999)), (vec![90], vec![90], vec![401], vec![9_999]));
    }

    #[test]
    fn downtimes_and_losses_are_series_of_their_own() {
        let of = DowntimeOccurrence { downtime: Id::from_i64(1), from: at(1) };
        let kinds = [
            EventKind::DowntimeStarted(of),
            EventKind::DowntimeEnded(of),
            EventKind::Unreachable,
            EventKind::Reachable,
            EventKind::UplinkLost,
            EventKind::UplinkBack,
        ];
        let log = kinds.into_iter().map(|kind| event(GATEWAY, None, 5, kind)).collect();
        let batch = Batch { log, ..Batch::default() };
        let found: Vec<_> = changes(&batch, None).iter().map(|of| (of.series, of.begins.is_some())).collect();
        let [downtime, unreachable, lost] = [Series::Downtime, Series::Unreachable, Series::UplinkLost];
        let pairs = [downtime, unreachable, lost].map(|series| [(series, true), (series, false)]);
        assert_eq!(found, pairs.concat());
    }

    #[test]
    fn a_result_that_was_sent_late_keeps_its_own_time() {
        let kind =
            EventKind::StateChanged { from: "ok", to: "critical", hard: true, measured_at: Some(at(40)) };
        let batch = batch(vec![event(HOST, Some("ping"), 100, kind)]);
        let [change] = changes(&batch, None)[..] else { panic!("one change") };
        assert_eq!((change.since, change.measured_at), (Some(at(90)), Some(at(40))));
    }

    #[test]
    fn soft_changes_and_other_events_change_nothing() {
        let soft = EventKind::StateChanged { from: "ok", to: "critical", hard: false, measured_at: None };
        let log = vec![event(HOST, Some("ping"), 5, soft), event(HOST, None, 5, EventKind::FellAsleep)];
        assert!(!has_changes(&batch(log)));
        let pending = batch(vec![turned(Some("ping"), 5, "pending")]);
        assert_eq!(changes(&pending, None)[0].begins, None);
    }
}

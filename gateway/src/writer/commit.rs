//! Writes one batch in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{Event, EventKind, NotificationState, Sample};
use fleetgate_engine::time::Wall;

use super::intervals;
use super::moved::Rows;
use super::pending::{Batch, Entry};
use super::share::{Share, Shares};
use crate::clock;
use crate::history::Turn;
use crate::store::event_shares::Row;
use crate::store::history::{redo, series};
use crate::store::settings::ClockFloor;
use crate::store::{
    self, Connection as _, SqliteConnection, Store, Trouble, acknowledgements, downtimes, event_shares,
    events, host_settings, incidents, notices, peer_state, settings, states, suppression_detail, wire_days,
};

/// The setting that a commit writes when it has nothing else to write.
const PROVED_AT: &str = "heartbeat.proved_at";

/// Facts that the dashboards and the dispatcher are notified of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub last_event: Option<i64>,
    pub messages: bool,
    /// Soft changes that the log only counts.
    pub not_listed: u64,
}

/// Commits a batch. `rows` are its states, and `turn` is that of its samples, which are dropped without one.
///
/// # Errors
/// Fails when the database refuses; then nothing was written. After an I/O error the connection is
/// closed, so that the next attempt begins with a new one.
pub(super) async fn commit(
    store: &Store,
    batch: &Batch,
    rows: &Rows<'_>,
    turn: Option<Turn>,
) -> crate::store::Result<Done> {
    let started = clock::now().mono;
    let mut conn = store.write.acquire().await?;
    let outcome = write(&mut conn, batch, rows, turn).await;
    if outcome.as_ref().is_err_and(|e| store::trouble(e) == Some(Trouble::Disk)) {
        // An error of closing would add nothing to the one that led here.
        let _ = conn.close().await;
    }
    let took = clock::now().mono.since(started);
    metrics::histogram!("fleetgate_commit_seconds").record(took.as_secs_f64());
    outcome
}

async fn write(
    conn: &mut SqliteConnection,
    batch: &Batch,
    rows: &Rows<'_>,
    mut turn: Option<Turn>,
) -> crate::store::Result<Done> {
    let mut tx = conn.begin_with("begin immediate").await?;
    write_states(&mut tx, rows).await?;
    let hosts = rows.hosts.all().map(|state| &state.notification);
    let services = rows.services.all().map(|(_, state)| &state.notification);
    for (id, at) in first_begins(hosts.chain(services)) {
        downtimes::begun(&mut tx, id, at).await?;
    }
    write_intervals(&mut tx, batch).await?;
    let done = write_log(&mut tx, &batch.log).await?;
    for peer in &batch.rekeyed {
        peer_state::forget_key(&mut tx, *peer).await?;
    }
    for peer in &batch.clock_reset {
        peer_state::forget_clock(&mut tx, *peer).await?;
    }
    let stamps: Vec<_> = batch.stamps.iter().map(|(peer, stamp)| (*peer, *stamp)).collect();
    peer_state::write_stamps(&mut tx, &stamps).await?;
    let retired: Vec<_> = batch.retired_stamps.iter().map(|(key, stamp)| (*key, *stamp)).collect();
    peer_state::write_retired_stamps(&mut tx, &retired).await?;
    for (peer, (endpoint, seen)) in &batch.endpoints {
        peer_state::write_endpoint(&mut tx, *peer, *endpoint, *seen).await?;
    }
    peer_state::write_statuses(&mut tx, &batch.statuses).await?;
    wire_days::write(&mut tx, &batch.statuses).await?;
    if batch.proof {
        settings::put(&mut tx, PROVED_AT, &clock::wall().as_millis().to_string()).await?;
    }
    if let Some(turn) = &mut turn {
        write_samples(&mut tx, &batch.samples, turn).await?;
    }
    tx.commit().await?;
    if let Some(turn) = turn {
        turn.committed()?;
    }
    Ok(done)
}

/// Writes whole rows where rows were made anew meanwhile, because a host or service was removed and added again.
async fn write_states(conn: &mut SqliteConnection, rows: &Rows<'_>) -> crate::store::Result<()> {
    let Rows { hosts, services } = rows;
    states::write_hosts(conn, &hosts.changed).await?;
    if states::repeat_hosts(conn, &hosts.repeated).await? < hosts.repeated.len() as u64 {
        states::write_hosts(conn, &hosts.repeated).await?;
    }
    states::write_services(conn, &services.changed).await?;
    if states::repeat_services(conn, &services.repeated).await? < services.repeated.len() as u64 {
        states::write_services(conn, &services.repeated).await?;
    }
    Ok(())
}

/// Writes the samples as redo, so that a result that was acknowledged has its samples after a kill.
async fn write_samples(
    conn: &mut SqliteConnection,
    samples: &[Sample],
    turn: &mut Turn,
) -> crate::store::Result<()> {
    if !turn.has_room(samples) {
        return Ok(());
    }
    let (cache, cut) = turn.series();
    let numbered = series::number(conn, cache, samples, cut).await?;
    let rows = turn.rows(numbered);
    redo::append(conn, turn.generation(), &rows).await?;
    turn.written()
}

async fn write_intervals(conn: &mut SqliteConnection, batch: &Batch) -> crate::store::Result<()> {
    if !intervals::has_changes(batch) {
        return Ok(());
    }
    let floor = match settings::clock_floor(&mut *conn).await? {
        ClockFloor::At(floor) => Some(floor),
        ClockFloor::None | ClockFloor::Unreadable => None,
    };
    store::intervals::write(conn, &intervals::changes(batch, floor)).await
}

/// Returns when each flexible downtime began first. One that selects hosts by labels can begin for
/// thousands of them at once, but has one row.
fn first_begins<'a>(states: impl Iterator<Item = &'a NotificationState>) -> BTreeMap<Id, Wall> {
    let mut first = BTreeMap::new();
    for begun in states.flat_map(|state| &state.begun) {
        let at = first.entry(begun.of.downtime).or_insert(begun.of.from);
        *at = begun.of.from.min(*at);
    }
    first
}

/// Appends an event. A suppressed notification gets the evidence behind its suppression, because its
/// output is that of the notification.
async fn append(conn: &mut SqliteConnection, event: &Event) -> crate::store::Result<i64> {
    let EventKind::NotificationHeld { reason, .. } = event.kind else {
        return events::append_observed(conn, event).await;
    };
    let evidence = suppression_detail::of(conn, event.host, event.service.as_deref(), reason).await?;
    let evidence = if evidence.is_empty() { event.evidence.clone() } else { evidence.into() };
    events::append_observed(conn, &Event { evidence, ..event.clone() }).await
}

async fn write_log(conn: &mut SqliteConnection, log: &[Entry]) -> crate::store::Result<Done> {
    let mut done = Done::default();
    let today = clock::day();
    let mut shares = shares(conn, log, today).await?;
    // The last event and its host or service.
    let mut seen = None;
    for entry in log {
        match entry {
            Entry::Event(event) if !shares.lists(event) => done.not_listed += 1,
            Entry::Event(event) => {
                let seq = append(conn, event).await?;
                seen = Some((event.host, &event.service, seq));
                notices::insert_held(conn, event, seq).await?;
                done.last_event = Some(seq);
            }
            Entry::Message(message) => {
                // The event that causes a message precedes it. A message due to a timer has none.
                let same =
                    |(host, service, _): &(_, &_, _)| (*host, *service) == (message.host, &message.service);
                let cause = seen.filter(same).map(|(_, _, seq)| seq);
                notices::insert(conn, message, cause).await?;
                done.messages = true;
            }
            Entry::AckEnded(id, at) => {
                acknowledgements::ended(conn, *id, *at).await?;
                // The acknowledgement's end may resume notifications that it has stopped.
                done.messages = true;
            }
            Entry::Incident(record) => {
                let seq = incidents::write(conn, record).await?;
                done.last_event = seq.or(done.last_event);
            }
            Entry::Pinned { host, key } => host_settings::learn_pin(conn, *host, key).await?,
        }
    }
    let seq = write_shares(conn, &mut shares, today).await?;
    done.last_event = seq.or(done.last_event);
    Ok(done)
}

/// Returns today's share of the log of the hosts in these entries.
async fn shares(conn: &mut SqliteConnection, log: &[Entry], today: i64) -> crate::store::Result<Shares> {
    let host = |entry: &Entry| if let Entry::Event(event) = entry { Some(event.host) } else { None };
    let hosts: BTreeSet<HostId> = log.iter().filter_map(host).collect();
    if hosts.is_empty() {
        return Ok(Shares::default());
    }
    let rows = event_shares::of(conn, &hosts.into_iter().collect::<Vec<_>>(), today).await?;
    let share = |row: Row| Share { listed: row.listed, counted: row.counted, event: row.event };
    Ok(Shares::new(rows.into_iter().map(|row| (row.host, share(row)))))
}

/// Returns the newest row of the log that begins to count.
async fn write_shares(
    conn: &mut SqliteConnection,
    shares: &mut Shares,
    today: i64,
) -> crate::store::Result<Option<i64>> {
    let (now, mut began, mut rows) = (clock::wall(), None, Vec::new());
    for (host, share, counted_now) in shares.changed() {
        let row = Row { host, listed: share.listed, counted: share.counted, event: share.event };
        if counted_now > 0 {
            let seq = event_shares::tell_counted(conn, &row, now).await?;
            began = if share.event.is_none() { Some(seq) } else { began };
            share.event = Some(seq);
        }
        rows.push(Row { event: share.event, ..row });
    }
    event_shares::write(conn, today, &rows).await?;
    Ok(began)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleetgate_engine::messages::{
        BegunDowntime, DowntimeOccurrence, HostState, HostStatus, ServiceState,
    };
    use fleetgate_probes::sample::{Metric, Status};

    use super::super::moved::Written;
    use super::*;
    use crate::store::fixture::{self, TIMING};

    /// Changes of states, of which some only repeat a result.
    fn change(round: i64, host: &mut HostState, service: &mut ServiceState) {
        let at = Wall::from_millis(round * 1_000);
        (host.last_check, service.last_check) = (Some(at), Some(at));
        match round % 11 {
            0 => (host.since, host.status) = (at, HostStatus::Down),
            1 => (host.output, host.last_alive) = (round.to_string(), Some(at)),
            2 => host.detail.metrics = [Metric::plain("rta", round as f64, "ms")].into(),
            3 => host.notification.recent.push(2),
            4 => host.detail.long_text = round.to_string(),
            5 => {
                (service.since, service.status) = (at, Some(Status::Warning));
                service.result.status = Status::Warning;
            }
            6 => service.result.metrics = [Metric::plain("used", round as f64, "%")].into(),
            7 => service.notification.awaits_result ^= true,
            8 => service.result.warnings = vec![round.to_string()],
            9 => service.next_check = Some(at),
            _ => service.result.text = round.to_string(),
        }
    }

    #[tokio::test]
    async fn rows_are_the_last_states_whatever_changes_between_results() {
        let (store, _dir) = fixture::store().await;
        let id = fixture::device(&store, 7, "cam-07").await;
        store.all_hosts(&TIMING).await.unwrap();
        let (mut host, mut service) = (fixture::up(id), fixture::service("ping", Status::Ok));
        let (mut written, mut repeated) = (Written::default(), 0);
        for round in 1..80 {
            if round % 3 == 0 {
                change(round, &mut host, &mut service);
            }
            change(round / 2, &mut host, &mut service);
            if round % 13 == 0 {
                // The rows of a service that was removed and added again.
                let hosts = "update host_states set since = 1, attempt = 9, kind = 'soft', output = ''";
                let services = "update service_states set since = 1, attempt = 9, kind = 'soft', output = ''";
                fixture::run(&store, hosts, &[]).await;
                fixture::run(&store, services, &[]).await;
            }
            let batch = Batch {
                hosts: [(id, host.clone())].into(),
                services: [(id, vec![Arc::new(service.clone())])].into(),
                ..Batch::default()
            };
            let rows = written.rows(&batch);
            repeated += rows.hosts.repeated.len() + rows.services.repeated.len();
            commit(&store, &batch, &rows, None).await.unwrap();
            written.changes(&batch);
            let restored = store.all_hosts(&TIMING).await.unwrap().remove(0);
            assert_eq!(
                (restored.state, restored.services),
                (Some(host.clone()), vec![service.clone()]),
                "{round}"
            );
        }
        assert!((40..140).contains(&repeated), "{repeated} states of 158 are repeats");
    }

    #[test]
    fn a_flexible_downtime_of_several_hosts_begins_with_the_first() {
        let (id, other) = (Id::from_i64(1), Id::from_i64(2));
        let state = |begins: &[(Id, i64)]| {
            let begun = begins.iter().map(|(downtime, at)| BegunDowntime {
                of: DowntimeOccurrence { downtime: *downtime, from: Wall::from_millis(*at) },
                until: Wall::from_millis(at + 60),
            });
            NotificationState { begun: begun.collect(), ..NotificationState::default() }
        };
        let notification_states =
            [state(&[(id, 20)]), state(&[(id, 10), (other, 30)]), state(&[(id, 15)]), state(&[])];
        let first = [(id, Wall::from_millis(10)), (other, Wall::from_millis(30))];
        assert_eq!(first_begins(notification_states.iter()), BTreeMap::from(first));
    }
}

use fleetgate_engine::history::Point;
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{
    DEFAULT_MTU, Event, EventKind, HostKey, HostStatus, KeyType, Sample, Tai64n,
};
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::{Metric, Status};

use super::*;
use crate::history::Keep;
use crate::store::events::{EventFilter, Span};
use crate::store::fixture::{self, TIMING};

struct Setup {
    store: Store,
    _dir: tempfile::TempDir,
    host: HostId,
    live: LiveState,
    history: Recorder,
    writer: Writer,
    tasks: JoinSet<()>,
}

impl Setup {
    /// Creates a host with a settled state and a running writer.
    async fn new() -> Setup {
        let (store, dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        store.all_hosts(&TIMING).await.unwrap();
        let (live, mut tasks) = (LiveState::default(), JoinSet::new());
        let history = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
        let wakeups = Wakeups::default();
        let writer = Writer::start(&mut tasks, store.clone(), live.clone(), wakeups, history.clone());
        Setup { store, _dir: dir, host, live, history, writer, tasks }
    }

    async fn finish(mut self) -> (Store, tempfile::TempDir) {
        self.writer.finish().await;
        while self.tasks.join_next().await.is_some() {}
        (self.store, self._dir)
    }
}

fn event(host: HostId, n: i64) -> Record {
    Record::Event(Event {
        at: Wall::from_millis(n),
        host,
        service: None,
        kind: EventKind::StateChanged { from: "up", to: "down", hard: true, measured_at: None },
        cause: n.to_string(),
        evidence: "".into(),
        by: None,
    })
}

fn typed(fingerprint: &str) -> HostKey {
    HostKey { key_type: Some(KeyType::EcdsaP256), ..HostKey::from(fingerprint) }
}

fn sample(host: HostId, at: i64) -> Record {
    let metrics = vec![Metric::plain("rtt", at as f64, "ms")];
    Record::Sample(Sample {
        host,
        service: "ping".into(),
        at: Wall::from_millis(at),
        metrics: metrics.into(),
    })
}

#[tokio::test]
async fn appended_records_are_on_disk_after_the_writer_ended() {
    let setup = Setup::new().await;
    let host = setup.host;
    let down = fleetgate_engine::messages::HostState { hard: HostStatus::Down, ..fixture::up(host) };
    let service = fixture::service("ping", Status::Critical);
    setup
        .writer
        .append(vec![
            event(host, 1),
            Record::Message(fixture::down(host)),
            Record::Host(Box::new(down.clone())),
            Record::Service(host, service.clone()),
            sample(host, 5_000),
            Record::Pinned { host, key: "SHA256:abc".into() },
            Record::Pinned { host, key: typed("SHA256:other") },
            Record::Pinned { host, key: typed("SHA256:abc") },
        ])
        .await;
    setup.writer.memory(Some(MemoryUpdate::Stamp(host, Tai64n([3; 12]))));
    let history = setup.history.clone();
    let (store, _dir) = setup.finish().await;

    let restored = store.all_hosts(&TIMING).await.unwrap().remove(0);
    assert_eq!((restored.state, restored.services), (Some(down), vec![service]));
    assert_eq!(
        restored.spec.ssh.pin,
        Some(typed("SHA256:abc")),
        "the first key, and its type when it is known"
    );
    assert_eq!(store.peer_spec(host, DEFAULT_MTU).await.unwrap().unwrap().1.stamp, Some(Tai64n([3; 12])));
    let kinds: Vec<String> = store
        .events(Span::Since(0), &EventFilter::default(), 9)
        .await
        .unwrap()
        .into_iter()
        .map(|e| e.kind)
        .collect();
    assert_eq!(kinds, ["state.changed"]);
    assert_eq!(fixture::texts(&store, "select cast(event as text) from notices").await, ["1"]);
    let series = store.series(host, Some("ping")).await.unwrap();
    assert_eq!(history.series(series[0].id, 0, 9).await.unwrap(), [Point { at: 5, value: Some(5_000.0) }]);
    let again = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
    assert_eq!(again.series(series[0].id, 0, 9).await.unwrap().len(), 1, "after a start");
}

#[tokio::test]
async fn listeners_are_notified_after_the_commit() {
    let setup = Setup::new().await;
    let mut changes = setup.live.listen();
    setup.writer.append(vec![event(setup.host, 1), Record::Host(Box::new(fixture::up(setup.host)))]).await;
    assert_eq!(changes.recv().await.unwrap(), Change::Host(setup.host));
    assert_eq!(changes.recv().await.unwrap(), Change::Event(1));
    assert_eq!(setup.store.last_event().await.unwrap(), 1);
    setup.finish().await;
}

#[tokio::test]
async fn a_result_for_a_removed_service_makes_no_row() {
    let setup = Setup::new().await;
    let stranger = Id::from_i64(99);
    setup
        .writer
        .append(vec![
            Record::Host(Box::new(fixture::up(stranger))),
            Record::Service(setup.host, fixture::service("switched-off", Status::Ok)),
        ])
        .await;
    let (store, _dir) = setup.finish().await;
    assert_eq!(fixture::texts(&store, "select cast(host as text) from host_states").await, ["7"]);
    let services = fixture::texts(&store, "select service from service_states order by 1").await;
    assert_eq!(services, ["ping", "tunnel"]);
}

/// Makes the database refuse every event, as a full disk would.
async fn fill_the_disk(store: &Store) {
    let sql = "create trigger full before insert on events begin select raise(abort, 'disk full'); end";
    fixture::run(store, sql, &[]).await;
}

async fn free_the_disk(store: &Store) {
    fixture::run(store, "drop trigger full", &[]).await;
}

#[tokio::test]
async fn a_failed_commit_is_repeated_with_everything_in_order() {
    let setup = Setup::new().await;
    fill_the_disk(&setup.store).await;
    for n in 1..=3 {
        setup.writer.append(vec![event(setup.host, n)]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(setup.store.last_event().await.unwrap(), 0);
    assert!(!setup.live.health().is_well(Part::States), "what fails is known");
    free_the_disk(&setup.store).await;
    let mut changes = setup.live.listen();
    while setup.store.last_event().await.unwrap() < 3 {
        changes.recv().await.unwrap();
    }
    assert!(setup.live.health().is_well(Part::States), "and what works again");
    let rows = setup.store.events(Span::Since(0), &EventFilter::default(), 9).await.unwrap();
    assert_eq!(rows.iter().map(|e| e.cause.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    setup.finish().await;
}

#[tokio::test]
async fn a_stop_does_not_hang_on_a_full_disk() {
    let setup = Setup::new().await;
    fill_the_disk(&setup.store).await;
    setup.writer.append(vec![event(setup.host, 1)]).await;
    tokio::time::timeout(Duration::from_secs(5), setup.finish()).await.unwrap();
}

#[tokio::test]
async fn many_events_make_the_monitor_wait() {
    let setup = Setup::new().await;
    fill_the_disk(&setup.store).await;
    let batch = |n: usize| vec![event(setup.host, 0); n];
    // The writer has taken the first event; the others are queued.
    setup.writer.append(batch(1)).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    setup.writer.append(batch(pending::MAX_LOG)).await;
    let one_more = setup.writer.append(batch(1));
    assert!(tokio::time::timeout(Duration::from_millis(50), one_more).await.is_err());
    setup.finish().await;
}

#[tokio::test]
async fn a_queued_stamp_does_not_outlive_its_key() {
    let setup = Setup::new().await;
    let host = setup.host;
    setup.writer.memory(Some(MemoryUpdate::Stamp(host, Tai64n([9; 12]))));
    // The API has changed the key meanwhile, and a batch with the old timestamp comes after it.
    for _ in 0..500 {
        if setup.store.peer_spec(host, DEFAULT_MTU).await.unwrap().unwrap().1.stamp.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    setup.writer.memory(Some(MemoryUpdate::Rekeyed(host)));
    let (store, _dir) = setup.finish().await;
    assert_eq!(store.peer_spec(host, DEFAULT_MTU).await.unwrap().unwrap().1.stamp, None);
}

fn hard(host: HostId, service: Option<&str>, (from, to): (&'static str, &'static str), at: i64) -> Record {
    Record::Event(Event {
        at: Wall::from_millis(at),
        host,
        service: service.map(str::to_owned),
        kind: EventKind::StateChanged { from, to, hard: true, measured_at: None },
        cause: String::new(),
        evidence: "".into(),
        by: None,
    })
}

const INTERVALS: &str = "select service || ':' || value || ' ' || began_at || '-' || coalesce(ended_at, '')
                         from intervals order by service, began_at";

#[tokio::test]
async fn a_hard_state_is_an_interval_from_its_first_failure_on() {
    let setup = Setup::new().await;
    let host = setup.host;
    let up = fixture::up(host);
    let down = fleetgate_engine::messages::HostState {
        status: HostStatus::Down,
        hard: HostStatus::Down,
        hard_since: Wall::from_millis(5_000),
        ..up.clone()
    };
    let first = vec![Record::Host(Box::new(up)), hard(host, None, ("pending", "up"), 1_500)];
    setup.writer.append(first).await;
    setup.writer.append(vec![hard(host, Some("ping"), ("pending", "ok"), 2_000)]).await;
    setup.writer.append(vec![hard(host, Some("removed"), ("pending", "ok"), 2_000)]).await;
    setup.writer.append(vec![Record::Host(Box::new(down)), hard(host, None, ("up", "down"), 7_000)]).await;
    let (store, _dir) = setup.finish().await;
    let found = fixture::texts(&store, INTERVALS).await;
    // The first commit may have had the second state too, and then the time of the event.
    assert!(found[0] == ":up 1000-5000" || found[0] == ":up 1500-5000", "{found:?}");
    assert_eq!(found[1..], [":down 5000-", "ping:ok 2000-"]);
}

#[tokio::test]
async fn a_change_by_a_clock_that_is_behind_takes_the_greatest_time() {
    let setup = Setup::new().await;
    let host = setup.host;
    let floor = "insert into settings (name, value) values ('clock_floor', '9000000')";
    fixture::run(&setup.store, floor, &[]).await;
    setup.writer.append(vec![hard(host, None, ("pending", "up"), 8_999_000)]).await;
    setup.writer.append(vec![hard(host, Some("ping"), ("pending", "ok"), 5_000)]).await;
    let (store, _dir) = setup.finish().await;
    assert_eq!(fixture::texts(&store, INTERVALS).await, [":up 8999000-", "ping:ok 9000000-"]);
}

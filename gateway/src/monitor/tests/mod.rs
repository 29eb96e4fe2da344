//! The shell of the monitor on a real store.

mod suppression;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{Downtime, HostScope, Message, PassiveResult, Record, Scope, Ticket, When};
use fleetgate_engine::monitor::Config;
use fleetgate_engine::time::Wall;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use tokio::task::JoinSet;

use super::*;
use crate::engine::live_state::LiveState;
use crate::history::{Keep, Recorder};
use crate::notification::Wakeups;
use crate::store::fixture::{self, TIMING};
use crate::store::managed::{BY_HAND, Managed};
use crate::store::{Store, acknowledgements, downtimes, incidents};

#[tokio::test]
async fn a_changed_or_removed_host_loses_its_kept_connection() {
    let (store, _dir) = fixture::store().await;
    let host = fixture::device(&store, 7, "cam-07").await;
    let spec = store.host_spec(host, &TIMING).await.unwrap().unwrap();
    assert_eq!(outdated(&MonitorInput::Upsert(Box::new(spec))), Some(host));
    assert_eq!(outdated(&MonitorInput::Remove(host)), Some(host));
    assert_eq!(outdated(&MonitorInput::CheckNow { host, service: None }), None);
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_dialled() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dial = |outbound: Outbound| async move {
        direct(&outbound, "localhost", port, Duration::from_secs(5)).await.map(drop)
    };
    let Err(ConnectFailure::Unreachable(why)) = dial(Outbound::default()).await else { panic!("dialled") };
    assert!(why.contains("outbound.allow"), "{why}");
    let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap());
    dial(Outbound::allowing(loopback.into())).await.unwrap();
}

#[test]
fn failures_of_the_gateway_itself_do_not_count_against_a_host() {
    let ends = |code| failure(&std::io::Error::from_raw_os_error(code));
    assert_eq!([libc::EMFILE, libc::EADDRNOTAVAIL].map(ends), [ConnectFailure::Busy, ConnectFailure::Busy]);
    assert_eq!(ends(libc::ECONNREFUSED), ConnectFailure::Refused);
    assert!(matches!(ends(libc::EHOSTUNREACH), ConnectFailure::Unreachable(_)));
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let lookup = std::io::Error::other("failed to lookup address information: Name or service not known");
    let expected = "the name cam.example.com does not resolve (Name or service not known)";
    let failed = failure(&unresolved("cam.example.com", lookup));
    assert_eq!(failed, ConnectFailure::Unreachable(expected.to_owned()));
    let scarce = unresolved("cam.example.com", std::io::Error::from_raw_os_error(libc::EMFILE));
    assert_eq!(failure(&scarce), ConnectFailure::Busy);
}

/// A monitor on a store, created as at a start; its records are committed.
struct Running {
    monitor: Monitor,
    writer: Writer,
    _tasks: JoinSet<()>,
    told: Vec<String>,
}

const HOST: HostId = HostId::from_i64(7);

impl Running {
    async fn start(store: &Store) -> Running {
        let mut monitor = Monitor::new(Config::default(), 1);
        let mut conn = store.reader().await.unwrap();
        for downtime in downtimes::open(&mut conn, clock::wall()).await.unwrap() {
            monitor.handle(MonitorInput::Downtime(Box::new(downtime.plan)), clock::now());
        }
        monitor.recall_incidents(incidents::memories(&mut conn).await.unwrap(), clock::now());
        drop(conn);
        monitor.restore(store.all_hosts(&TIMING).await.unwrap(), clock::now());
        let mut tasks = JoinSet::new();
        let (live, wakeups) = (LiveState::default(), Wakeups::default());
        let history = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
        let writer = Writer::start(&mut tasks, store.clone(), live, wakeups, history);
        let mut running = Running { monitor, writer, _tasks: tasks, told: Vec::new() };
        running.input(MonitorInput::Timeout).await;
        running
    }

    async fn input(&mut self, input: MonitorInput) {
        self.monitor.handle(input, clock::now());
        let mut records = Vec::new();
        loop {
            match self.monitor.poll_output() {
                MonitorOutput::Record(record) => records.push(record),
                MonitorOutput::ProbeRequest(_)
                | MonitorOutput::ProbeUplink
                | MonitorOutput::HandedOver(_)
                | MonitorOutput::FirstContact(_) => {}
                MonitorOutput::Wait(..) => break,
            }
        }
        let messages = records.iter().filter_map(|record| match record {
            Record::Message(m) => Some(m),
            _ => None,
        });
        let said = |m: &Message| format!("{} {}", m.service.as_deref().unwrap_or("host"), m.kind.name());
        self.told.extend(messages.map(said));
        self.writer.append(records).await;
    }

    async fn submit(&mut self, service: &str, results: &[Status]) {
        for status in results {
            let (result, at) = (PluginResult::new(*status, "sent", Vec::new()), clock::wall());
            let (service, by) = (Some(service.to_owned()), String::new());
            let sent = PassiveResult {
                host: HOST,
                service,
                result,
                at,
                by,
                identity: Default::default(),
                ticket: Ticket(1),
            };
            self.input(MonitorInput::Submit(Box::new(sent))).await;
        }
    }

    async fn end(self) {
        self.writer.finish().await;
    }
}

async fn host_with_three_jobs() -> (Store, tempfile::TempDir) {
    let (store, dir) = fixture::store().await;
    fixture::device(&store, 7, "cam-07").await;
    for job in ["flaps", "known", "planned"] {
        let sql = "insert into service_overrides (host, service, disabled, definition)
                   values (7, $1, 0, '{\"check\":{\"type\":\"passive\"}}')";
        fixture::run(&store, sql, &[job]).await;
    }
    let spec = store.host_spec(HOST, &TIMING).await.unwrap().unwrap();
    store.settle(&spec).await.unwrap();
    (store, dir)
}

async fn acknowledge(store: &Store, running: &mut Running, service: &str) {
    let ack = acknowledgements::Acknowledgement {
        id: Id::from_i64(1),
        host: HOST,
        service: Some(service.to_owned()),
        sticky: true,
        expires_at: None,
        author: "user:jo".into(),
        comment: "on it".into(),
        created_at: clock::wall(),
        incident: None,
    };
    let mut tx = store.begin().await.unwrap();
    acknowledgements::put(&mut tx, &ack).await.unwrap();
    tx.commit().await.unwrap();
    let service = ack.service.clone();
    running.input(MonitorInput::Acknowledge { host: HOST, service, ack: (&ack).into() }).await;
}

fn downtime_of(plan: Downtime, created_at: Wall) -> downtimes::Downtime {
    downtimes::Downtime {
        plan,
        host_name: None,
        name: None,
        managed: Managed { by: BY_HAND.into(), edited_by: None },
        author: "user:jo".into(),
        comment: "new disk".into(),
        created_at,
        cancelled_at: None,
        begun_at: None,
        version: 1,
    }
}

async fn plan(store: &Store, running: &mut Running, service: &str) {
    let (start, end) = (clock::wall(), clock::wall() + Duration::from_secs(3_600));
    let scope = Scope { hosts: HostScope::One(HOST), service: Some(service.to_owned()) };
    let when = When::Once { start, end, duration: None };
    let downtime = downtime_of(Downtime { id: Id::from_i64(2), scope, when }, start);
    let mut tx = store.begin().await.unwrap();
    downtimes::insert(&mut tx, &downtime).await.unwrap();
    tx.commit().await.unwrap();
    running.input(MonitorInput::Downtime(Box::new(downtime.plan))).await;
}

#[tokio::test]
async fn flapping_acknowledgements_and_downtimes_continue_over_a_restart() {
    use Status::{Critical, Ok, Unknown};
    let (store, _dir) = host_with_three_jobs().await;
    let mut running = Running::start(&store).await;
    running.submit("flaps", &[Ok, Critical, Ok, Critical, Ok, Critical, Ok, Critical, Ok]).await;
    running.submit("known", &[Critical; 3]).await;
    acknowledge(&store, &mut running, "known").await;
    plan(&store, &mut running, "planned").await;
    running.submit("planned", &[Critical; 3]).await;
    assert_eq!(running.told, ["flaps flapping_start", "known problem"]);
    running.end().await;

    let mut running = Running::start(&store).await;
    running.submit("flaps", &[Critical, Critical, Critical]).await;
    running.submit("known", &[Unknown]).await;
    running.submit("planned", &[Critical]).await;
    assert_eq!(running.told, [""; 0], "a start repeats nothing, and all three go on");
    running.submit("flaps", &[Ok; 20]).await;
    running.submit("known", &[Ok]).await;
    running.input(MonitorInput::CancelDowntime(Id::from_i64(2))).await;
    assert_eq!(running.told, ["flaps flapping_end", "known recovery", "planned problem"]);
    running.end().await;

    let mut conn = store.reader().await.unwrap();
    assert_eq!(acknowledgements::open(&mut conn).await.unwrap(), [], "what is well needs none");
}

//! Two years of rows expire at once, while results arrive and pages are read: how long these wait.
//!
//! The longest waits of the same load without retention are shown next to them, because the disk
//! has pauses of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate::maintenance::retention::round;
use fleetgate::store::Store;
use fleetgate::store::retention::Retention;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Outcome, PassiveResult};
use fleetgate_probes::plugin::{Ending, PluginResult};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::program::Program;
use super::report;

/// Expired rows of all kinds.
const EVENTS: i64 = 700_000;
/// Each with its message and dependent rows, and the event that gives the reason why another
/// contact was not notified.
const NOTICES: i64 = 75_000;
/// Rows of these tables that are recent.
const RECENT: i64 = 100_000;
const ALONE: Duration = Duration::from_secs(20);
const EVERY: Duration = Duration::from_millis(20);
const DAY_MS: i64 = 86_400_000;
/// Pages that are read meanwhile, in turn.
const PAGES: [&str; 3] = ["/events?limit=50", "/problems", "/notifications?limit=50"];

/// # Errors
/// Fails when the program does not start, loses a result, or keeps expired rows.
pub fn run() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let program = Arc::new(Program::start().await?);
    let store = program.server.state.store.clone();
    let host = enrol(&program).await?;
    fill(&store, host).await?;
    let before = size(&program)?;
    let alone = Load::start(&program, host);
    tokio::time::sleep(ALONE).await;
    let alone = alone.end().await?;

    let meanwhile = Load::start(&program, host);
    let years = Duration::from_secs(730 * 86_400);
    let keep = Retention { keep: years, audit: None, intervals: years };
    let begun = Instant::now();
    let removed: u64 = round(&store, &keep.limits(fleetgate::clock::wall())).await?.values().sum();
    let took = begun.elapsed();
    let meanwhile = meanwhile.end().await?;
    ensure!(removed as i64 >= EVENTS + 4 * NOTICES, "only {removed} rows were removed");

    report("rows that were removed", &format!("{removed}"), "all that are too old");
    report("  in", &format!("{:.0} s", took.as_secs_f64()), "-");
    alone.report("without retention");
    meanwhile.report("meanwhile");
    report(
        "fleetgate.db before and after: free pages are used again",
        &format!("{}, {}", mb(before), mb(size(&program)?)),
        "-",
    );
    Arc::into_inner(program).context("the load has ended")?.server.stop().await;
    Ok(())
}

fn size(program: &Program) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(program.data().join("fleetgate.db"))?.len())
}

fn mb(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

async fn enrol(program: &Program) -> anyhow::Result<HostId> {
    let made = program.call(Method::POST, "/devices", &json!({ "name": "nas" })).await?;
    let service = json!({ "check": { "type": "passive" }, "max_check_attempts": 3 });
    program.call(Method::PUT, "/hosts/nas/services/backup", &service).await?;
    let id = made["device"]["id"].as_str().and_then(|id| id.strip_prefix("h_"));
    Ok(id.context("an id")?.parse()?)
}

/// Spreads the old rows over three years up to two years ago, and adds recent rows after them.
async fn fill(store: &Store, host: HostId) -> anyhow::Result<()> {
    let now = fleetgate::clock::wall().as_millis();
    let (old, step) = (now - 5 * 365 * DAY_MS, 3 * 365 * DAY_MS / (EVENTS + NOTICES));
    let mut tx = store.begin().await?;
    // Events of the enrolment would conflict with the ids chosen here.
    sqlx::query("delete from events").execute(&mut *tx).await?;
    for sql in [
        "with recursive n (n) as (select 1 union all select n + 1 from n where n < $3)
         insert into events (seq, at, kind, object, object_id, service, cause, evidence, data, principal)
         select n, $1 + n * $2, 'state.changed', 'service', $5, 'backup', 'check failed', hex(zeroblob(60)),
                '{\"from\":\"ok\",\"to\":\"critical\",\"state_type\":\"soft\"}', 'system' from n",
        "insert into notices (id, at, event, host, host_name, service, kind, problem, from_state, to_state, output,
                              since, routed_at)
         select seq, at, seq, $5, 'nas', 'backup', 'problem', 1, 'ok', 'critical', hex(zeroblob(60)), at, at
         from events where seq <= $4",
        "insert into outbox (id, contact, contact_name, channel, address, kind, created_at, next_attempt, sent_at)
         select id, 1, 'ops', 'email', 'ops@example.org', 'notices', at, at, at from notices",
        "insert into outbox_notices (message, notice, root) select id, id, id from notices",
        "insert into notices_held (notice, contact, event) select id, 2, id from notices",
    ] {
        let query = sqlx::query(sql).bind(old).bind(step).bind(EVENTS).bind(NOTICES).bind(host.as_i64());
        query.execute(&mut *tx).await?;
    }
    let recent = "insert into events (at, kind, object, object_id, service, cause, evidence, principal)
         select $1, kind, object, object_id, service, cause, evidence, principal from events limit $2";
    sqlx::query(recent).bind(now).bind(RECENT).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// The waiting times of each kind of request.
#[derive(Default)]
struct Waits {
    results: Vec<Duration>,
    writers: Vec<Duration>,
    readers: Vec<Duration>,
}

impl Waits {
    fn report(&self, when: &str) {
        println!("  {when}:");
        for (what, waits) in [
            ("from result to committed state", &self.results),
            ("for the writing connection", &self.writers),
            ("for a page of the API", &self.readers),
        ] {
            let mut waits = waits.clone();
            waits.sort_unstable();
            let at = |part: usize| waits.get((waits.len() * part / 1_000).min(waits.len() - 1));
            let ms = |wait: Option<&Duration>| wait.map_or(0.0, |wait| wait.as_secs_f64() * 1e3);
            let [half, most, longest] = [500, 990, 1_000].map(|part| ms(at(part)));
            report(
                &format!("{what}: p50, p99, longest of {}", waits.len()),
                &format!("{half:.1} {most:.1} {longest:.1} ms"),
                "some 10 ms more",
            );
        }
    }
}

/// Results, writers and readers, each sequential.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<anyhow::Result<Waits>>,
}

impl Load {
    fn start(program: &Arc<Program>, host: HostId) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        tasks.spawn(results(program.clone(), host, stop.clone()));
        tasks.spawn(writers(program.server.state.store.clone(), stop.clone()));
        tasks.spawn(readers(program.clone(), stop.clone()));
        Load { stop, tasks }
    }

    async fn end(mut self) -> anyhow::Result<Waits> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Waits::default();
        while let Some(ended) = self.tasks.join_next().await {
            let waits = ended??;
            all.results.extend(waits.results);
            all.writers.extend(waits.writers);
            all.readers.extend(waits.readers);
        }
        Ok(all)
    }
}

async fn results(program: Arc<Program>, host: HostId, stop: Arc<AtomicBool>) -> anyhow::Result<Waits> {
    let mut waits = Waits::default();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let output = format!("copied {n}|n={n}");
        let result = PluginResult::from_run(&Ending::Exit(0), output.as_bytes(), b"", false);
        let (at, by) = (fleetgate::clock::wall(), "token:bench".to_owned());
        let (service, identity) = (Some("backup".to_owned()), Default::default());
        let begun = Instant::now();
        let handle = &program.server.state.handle;
        let sent =
            handle.submit(None, |ticket| PassiveResult { host, service, result, at, by, identity, ticket });
        let outcome = sent.await;
        ensure!(outcome == Ok(Outcome::Done), "a result came to nothing: {outcome:?}");
        waits.results.push(begun.elapsed());
        tokio::time::sleep(EVERY).await;
    }
    Ok(waits)
}

async fn writers(store: Store, stop: Arc<AtomicBool>) -> anyhow::Result<Waits> {
    let mut waits = Waits::default();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let tx = store.begin().await?;
        waits.writers.push(begun.elapsed());
        tx.rollback().await?;
        tokio::time::sleep(EVERY).await;
    }
    Ok(waits)
}

async fn readers(program: Arc<Program>, stop: Arc<AtomicBool>) -> anyhow::Result<Waits> {
    let mut waits = Waits::default();
    for path in PAGES.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        program.call(Method::GET, path, &Value::Null).await?;
        waits.readers.push(begun.elapsed());
        tokio::time::sleep(EVERY).await;
    }
    Ok(waits)
}

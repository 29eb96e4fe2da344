//! The load on the gateway while backups are made, and what the gateway has acknowledged of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use fleetgate::engine::handle::NotTaken;
use fleetgate::store::history::Sealable;
use fleetgate::store::{self, Trouble, trouble};
use fleetgate_engine::history::DAY;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Outcome, PassiveResult};
use fleetgate_probes::plugin::{Ending, PluginResult};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::super::history::fleet::Fleet;
use super::super::history::series::Generator;
use super::super::program::Program;
use super::{OLD_DAYS, OLD_HOST, Proof, today};

/// Time between two additions of blocks during the run, each with a seal.
const ADDITIONS: Duration = Duration::from_millis(500);
/// Interval at which the size of the logs is read.
const GLANCE: Duration = Duration::from_millis(20);
/// Time between two changes of one caller over the API.
const CHANGES: Duration = Duration::from_millis(20);

/// Everything that the gateway has acknowledged.
pub(super) struct Ledger {
    pub proof: Proof,
    pub hosts: Vec<HostId>,
    /// For each service the number of the last result; the result's text contains it.
    results: Vec<AtomicU64>,
    devices: AtomicU64,
    notes: AtomicU64,
    /// Results that were not on disk in time.
    pub delayed: AtomicU64,
    /// Additions of blocks, each with a seal before.
    pub additions: AtomicU64,
    pub stop: AtomicBool,
}

/// The acknowledged state at one moment.
pub(super) struct Acknowledged {
    pub results: Vec<u64>,
    pub devices: u64,
    pub notes: u64,
    pub last_event: i64,
}

impl Ledger {
    pub async fn new(program: &Program, proof: Proof) -> anyhow::Result<Ledger> {
        let service = json!({ "check": { "type": "passive" }, "max_check_attempts": 1 });
        let services: serde_json::Map<String, Value> =
            (0..proof.services).map(|n| (service_name(n), service.clone())).collect();
        program.call(Method::PUT, "/profiles/jobs", &json!({ "services": services })).await?;
        let mut hosts = Vec::new();
        for n in 0..proof.hosts {
            let wanted = json!({ "name": host_name(n), "profile": "jobs" });
            let made = program.call(Method::POST, "/devices", &wanted).await?;
            let id = made["device"]["id"].as_str().and_then(|id| id.strip_prefix("h_")).context("an id")?;
            hosts.push(id.parse()?);
        }
        let results = (0..proof.hosts * proof.services).map(|_| AtomicU64::new(0)).collect();
        let [devices, notes, delayed, additions] = [0; 4].map(AtomicU64::new);
        Ok(Ledger { proof, hosts, results, devices, notes, delayed, additions, stop: AtomicBool::new(false) })
    }

    pub fn load(self: &Arc<Self>, program: &Arc<Program>, load: &mut JoinSet<anyhow::Result<()>>) {
        for service in 0..self.results.len() {
            load.spawn(send(self.clone(), program.clone(), service));
        }
        load.spawn(enrol(self.clone(), program.clone()));
        load.spawn(rename(self.clone(), program.clone()));
    }

    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub fn taken(&self) -> u64 {
        self.results.iter().map(|n| n.load(Ordering::SeqCst)).sum()
    }

    pub async fn now(&self, program: &Program) -> anyhow::Result<Acknowledged> {
        Ok(Acknowledged {
            last_event: program.server.state.store.last_event().await?,
            results: self.results.iter().map(|n| n.load(Ordering::SeqCst)).collect(),
            devices: self.devices.load(Ordering::SeqCst),
            notes: self.notes.load(Ordering::SeqCst),
        })
    }
}

pub(super) fn host_name(n: usize) -> String {
    format!("h-{n}")
}

pub(super) fn service_name(n: usize) -> String {
    format!("job-{n:02}")
}

/// Sends results of one service, each after the previous one was acknowledged. Every seventh begins
/// a problem.
async fn send(ledger: Arc<Ledger>, program: Arc<Program>, index: usize) -> anyhow::Result<()> {
    let host = ledger.hosts[index / ledger.proof.services];
    let name = service_name(index % ledger.proof.services);
    for round in 1.. {
        if !ledger.goes_on() {
            break;
        }
        let code = if round % 7 == 0 { 2 } else { 0 };
        let output = format!("round {round} | round={round}");
        let result = PluginResult::from_run(&Ending::Exit(code), output.as_bytes(), b"", false);
        let (at, by) = (fleetgate::clock::wall(), "token:bench".to_owned());
        let service = Some(name.clone());
        let handle = &program.server.state.handle;
        let outcome = handle
            .submit(None, |ticket| PassiveResult {
                host,
                service,
                result,
                at,
                by,
                identity: Default::default(),
                ticket,
            })
            .await;
        match outcome {
            Ok(Outcome::Done) => ledger.results[index].store(round, Ordering::SeqCst),
            // A disk that is held up: the sender is asked to repeat, and nothing is promised.
            Err(NotTaken::NotYet | NotTaken::Refused(Some(Trouble::Busy))) => {
                ledger.delayed.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(CHANGES).await;
            }
            other => bail!("a result came to nothing: {other:?}"),
        }
    }
    Ok(())
}

async fn enrol(ledger: Arc<Ledger>, program: Arc<Program>) -> anyhow::Result<()> {
    while ledger.goes_on() {
        let n = ledger.devices.load(Ordering::SeqCst) + 1;
        program.call(Method::POST, "/devices", &json!({ "name": format!("new-{n}") })).await?;
        ledger.devices.store(n, Ordering::SeqCst);
        tokio::time::sleep(CHANGES).await;
    }
    Ok(())
}

async fn rename(ledger: Arc<Ledger>, program: Arc<Program>) -> anyhow::Result<()> {
    while ledger.goes_on() {
        let n = ledger.notes.load(Ordering::SeqCst) + 1;
        program.call(Method::PATCH, "/hosts/h-0", &json!({ "notes": format!("note {n}") })).await?;
        ledger.notes.store(n, Ordering::SeqCst);
        tokio::time::sleep(CHANGES).await;
    }
    Ok(())
}

/// The largest sizes of the write-ahead logs.
#[derive(Default)]
pub(super) struct Logs([AtomicU64; 2]);

impl Logs {
    pub async fn watch(self: Arc<Self>, data: PathBuf, ledger: Arc<Ledger>) -> anyhow::Result<()> {
        while ledger.goes_on() {
            for (slot, name) in self.0.iter().zip(["fleetgate.db-wal", "history.db-wal"]) {
                let size = std::fs::metadata(data.join(name)).map_or(0, |m| m.len());
                slot.fetch_max(size, Ordering::Relaxed);
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    pub fn reset(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Relaxed));
    }

    pub fn largest(&self) -> [u64; 2] {
        [0, 1].map(|n| self.0[n].load(Ordering::Relaxed))
    }
}

/// Seals what was recorded, and adds a series with its days, again and again.
pub(super) async fn seal(ledger: Arc<Ledger>, program: Arc<Program>) -> anyhow::Result<()> {
    let (store, recorder) = (&program.server.state.store, &program.server.state.history);
    let mut host = 2 * OLD_HOST;
    while ledger.goes_on() {
        if is_held_up(recorder.seal_now().await)? {
            tokio::time::sleep(ADDITIONS).await;
            continue;
        }
        let mut fleet = Fleet::new(host, 1);
        fleet.enrol(recorder, store, today() * DAY).await?;
        for (n, series) in fleet.stored(store).await? {
            let days = days(series.id, Generator::new(n), today());
            while is_held_up(store.put_days(&days).await)? && ledger.goes_on() {
                tokio::time::sleep(ADDITIONS).await;
            }
        }
        host += i64::from(fleet.hosts());
        ledger.additions.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(ADDITIONS).await;
    }
    Ok(())
}

/// Whether a disk that is held up has refused a step, which the gateway repeats as well.
fn is_held_up(outcome: store::Result<()>) -> store::Result<bool> {
    match outcome {
        Err(error) if trouble(&error) == Some(Trouble::Busy) => Ok(true),
        outcome => outcome.map(|()| false),
    }
}

fn days(series: u32, mut generator: Generator, today: i64) -> Sealable {
    let points = generator.samples((today - OLD_DAYS) * DAY, today * DAY);
    Sealable { series, kind: generator.profile.kind(), points }
}

//! Results a second through state logic, store and event log, on one core: the whole program in
//! this process, with submitted results. Each result is on disk before its sender continues.
//!
//! The results are submitted behind the API first. The same services then use HTTP with kept
//! connections: one result per call, then a hundred per call, then one per call with a hundred more
//! profiles. The HTTP clients are a separate process (`senders`), whose CPU time is excluded.
//! `checks` measures the cost of active checks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate::engine::handle::Handle;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Outcome, PassiveResult};
use fleetgate_engine::time::Wall;
use fleetgate_probes::plugin::{Ending, PluginResult};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::program::Program;
use super::senders::{CONNECTIONS, Wave};
use super::{Counting, process_cpu, report};

pub(super) const HOSTS: usize = 2_500;
/// Services per host: 50,000 with two metrics each, as many series as 10,000 hosts have.
pub(super) const SERVICES: usize = 20;
/// Results in flight at a time, while each sender waits only for its own.
const SENDERS: usize = 1_024;
const FLAT_OUT: Duration = Duration::from_secs(40);
const STEADY: Duration = Duration::from_secs(20);
/// Duration of each variant over HTTP.
const OVER_HTTP: Duration = Duration::from_secs(20);
/// Results in one call of the variant with many.
const BATCH: usize = 100;
/// Profiles that no host has.
const EXTRA_PROFILES: usize = 100;
/// One in this many results of a service begins a problem.
const CYCLE: usize = 100;
/// The service that is checked at the end, from the middle of the fleet.
pub(super) const WATCHED: usize = HOSTS / 2 * SERVICES + 3;
/// Failures in a row, followed by OK: three problems recover while soft, one turns hard.
const TROUBLES: [usize; 4] = [1, 1, 1, 3];
/// The history keeps the last sample of a second. One variant may follow another within a second.
const VARIANTS: u64 = 7;
/// Longer than any write is delayed.
const WRITTEN: Duration = Duration::from_secs(5);

/// # Errors
/// Fails when the program does not start, or loses a result.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let program = Program::start().await?;
    let empty = Memory::now();
    let fleet = Arc::new(enrol(&program).await?);
    let pending = Memory::now();
    let once = send(&program, &fleet, 0, Pace::Once).await?;
    tokio::time::sleep(WRITTEN).await;
    Memory::now().report(&pending, &empty);
    stay_on_one_core();

    let flat_out = send(&program, &fleet, 1, Pace::FlatOut).await?;
    flat_out.report(&format!("flat out, {SENDERS} under way"));
    let half = flat_out.count as f64 / FLAT_OUT.as_secs_f64() / 2.0;
    let steady = send(&program, &fleet, flat_out.rounds, Pace::Steady(half)).await?;
    steady.report("at half that rate");
    let http = over_http(&program, &fleet, (&flat_out, steady.rounds)).await?;
    tokio::time::sleep(WRITTEN).await;
    let dropped = dropped(&program);
    report("samples that were dropped", &format!("{dropped}"), "0");
    let all = [once, flat_out, steady].into_iter().chain(http);
    let watched: Vec<usize> = all.flat_map(|sent| sent.watched).collect();
    is_stored(&program, &watched, dropped).await?;
    program.server.stop().await;
    Ok(())
}

/// Runs each variant in turn, and the one behind the API once more, because the speed of the machine varies during the
/// run, and results cost more as the files grow. Each variant is compared with the runs beside it.
async fn over_http(
    program: &Program,
    fleet: &Arc<Vec<HostId>>,
    (before, round): (&Sent, usize),
) -> anyhow::Result<Vec<Sent>> {
    println!(
        "  over HTTP, {CONNECTIONS} connections that are kept; the CPU of all threads of the program's process, \
         the clients being another:"
    );
    let wanted = json!({ "name": "bench", "role": "operator" });
    let token = program.call(Method::POST, "/tokens", &wanted).await?;
    let token = token["secret"].as_str().context("a token")?;
    let single = wave(program, token, 1, round).await?;
    let batched = wave(program, token, BATCH, single.rounds).await?;
    let after = send(program, fleet, batched.rounds, Pace::FlatOut).await?;
    add_profiles(program).await?;
    let crowded = wave(program, token, 1, after.rounds).await?;
    let behind = f64::midpoint(before.per_cpu(), after.per_cpu());
    report("results per CPU second, behind the API, before and after", &format!("{behind:.0}"), "-");
    single.compare("one a call", behind, "0.3");
    batched.compare(&format!("{BATCH} a call"), behind, "0.8");
    report("results per CPU second, behind the API, after", &format!("{:.0}", after.per_cpu()), "-");
    crowded.compare(&format!("one a call, {EXTRA_PROFILES} more profiles"), after.per_cpu(), "0.3");
    Ok(vec![single, batched, after, crowded])
}

async fn wave(program: &Program, token: &str, batch: usize, round: usize) -> anyhow::Result<Sent> {
    let (to, token, cpu) = (program.server.api, token.to_owned(), process_cpu());
    let wave = Wave { batch, hosts: HOSTS, round, time: OVER_HTTP };
    let sent = tokio::task::spawn_blocking(move || wave.send(to, &token)).await??;
    Ok(Sent { cpu: process_cpu() - cpu, ..sent })
}

/// Adds profiles, each with as many services as a host has.
async fn add_profiles(program: &Program) -> anyhow::Result<()> {
    for n in 0..EXTRA_PROFILES {
        program.call(Method::PUT, &format!("/profiles/extra-{n}"), &jobs()).await?;
    }
    Ok(())
}

/// Pins all present and future threads of this process to one core.
fn stay_on_one_core() {
    for task in std::fs::read_dir("/proc/self/task").expect("Linux").flatten() {
        let id = task.file_name().to_string_lossy().parse().expect("a thread's number");
        assert!(stay_on_core(0, id), "core 0 may be used");
    }
}

/// Pins the thread (0: the caller) to a core; returns whether it worked.
#[allow(unsafe_code, reason = "std cannot choose a core")]
pub(super) fn stay_on_core(core: usize, thread: libc::pid_t) -> bool {
    // SAFETY: a set of cores is a plain bit set, for which zeroes mean empty; the call only reads
    // it.
    let rc = unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &raw const cores)
    };
    rc == 0
}

struct Memory {
    resident: usize,
    in_use: usize,
}

impl Memory {
    fn now() -> Memory {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident size");
        let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
        Memory { resident: kib * 1024, in_use: Counting::in_use() }
    }

    fn report(&self, pending: &Memory, empty: &Memory) {
        let each = |bytes: usize| format!("{} B", bytes / (HOSTS * SERVICES));
        let asked = each(pending.in_use.saturating_sub(empty.in_use));
        report("memory of a service without a result", &asked, "-");
        let asked = each(self.in_use.saturating_sub(empty.in_use));
        report("memory of a service with results", &asked, "under 4 KB");
        let resident = each(self.resident.saturating_sub(empty.resident));
        report("  the same as the process grew (caches, the allocator)", &resident, "-");
    }
}

pub(super) fn host_name(n: usize) -> String {
    format!("h-{n}")
}

pub(super) fn service_name(n: usize) -> String {
    format!("job-{n:02}")
}

/// Returns a profile.
fn jobs() -> Value {
    let service = json!({ "check": { "type": "passive" }, "max_check_attempts": 3 });
    let services: BTreeMap<String, &Value> = (0..SERVICES).map(|n| (service_name(n), &service)).collect();
    json!({ "services": services })
}

async fn enrol(program: &Program) -> anyhow::Result<Vec<HostId>> {
    program.call(Method::PUT, "/profiles/jobs", &jobs()).await?;
    let mut hosts = Vec::new();
    for n in 0..HOSTS {
        let wanted = json!({ "name": host_name(n), "profile": "jobs" });
        let made = program.call(Method::POST, "/devices", &wanted).await?;
        let id = made["device"]["id"].as_str().and_then(|id| id.strip_prefix("h_"));
        hosts.push(id.context("an id")?.parse()?);
    }
    Ok(hosts)
}

#[derive(Clone, Copy)]
enum Pace {
    /// One result of each service.
    Once,
    FlatOut,
    /// This many a second, even if earlier results are not on disk yet.
    Steady(f64),
}

#[derive(Default)]
pub(super) struct Sent {
    pub count: usize,
    /// The round that the fastest sender has reached.
    pub rounds: usize,
    /// The rounds in which the watched service had a result.
    pub watched: Vec<usize>,
    pub waited: Vec<Duration>,
    /// CPU time of the program.
    pub cpu: Duration,
    pub took: Duration,
}

async fn send(program: &Program, fleet: &Arc<Vec<HostId>>, round: usize, pace: Pace) -> anyhow::Result<Sent> {
    let (begin, cpu) = (Instant::now(), process_cpu());
    let mut senders = JoinSet::new();
    for n in 0..SENDERS {
        let (handle, fleet) = (program.server.state.handle.clone(), fleet.clone());
        senders.spawn(async move { Sender { handle, fleet, n, round, begin }.run(pace).await });
    }
    let mut all = Sent::default();
    while let Some(sent) = senders.join_next().await {
        let sent = sent??;
        all.rounds = all.rounds.max(sent.rounds);
        all.watched.extend(sent.watched);
        all.waited.extend(sent.waited);
    }
    all.waited.sort_unstable();
    (all.count, all.cpu, all.took) = (all.waited.len(), process_cpu() - cpu, begin.elapsed());
    Ok(all)
}

/// Sends results for every nth service, one after the other.
struct Sender {
    handle: Handle,
    fleet: Arc<Vec<HostId>>,
    n: usize,
    round: usize,
    begin: Instant,
}

impl Sender {
    async fn run(self, pace: Pace) -> anyhow::Result<Sent> {
        let mut sent = Sent { rounds: self.round, ..Sent::default() };
        let mut ticks = self.ticks(pace);
        loop {
            for service in (self.n..self.fleet.len() * SERVICES).step_by(SENDERS) {
                let from = match &mut ticks {
                    Some(ticks) => ticks.tick().await,
                    None => Instant::now(),
                };
                if self.is_over(pace) {
                    return Ok(sent);
                }
                self.submit(service, sent.rounds).await?;
                sent.waited.push(from.elapsed());
                if service == WATCHED {
                    sent.watched.push(sent.rounds);
                }
            }
            sent.rounds += 1;
            if matches!(pace, Pace::Once) {
                return Ok(sent);
            }
        }
    }

    /// Returns the ticks of a sender; the senders alternate.
    fn ticks(&self, pace: Pace) -> Option<tokio::time::Interval> {
        let Pace::Steady(rate) = pace else { return None };
        let period = Duration::from_secs_f64(SENDERS as f64 / rate);
        let first = self.begin + period.mul_f64(self.n as f64 / SENDERS as f64);
        let mut ticks = tokio::time::interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        Some(ticks)
    }

    fn is_over(&self, pace: Pace) -> bool {
        match pace {
            Pace::Once => false,
            Pace::FlatOut => self.begin.elapsed() >= FLAT_OUT,
            Pace::Steady(_) => self.begin.elapsed() >= STEADY,
        }
    }

    async fn submit(&self, service: usize, round: usize) -> anyhow::Result<()> {
        let (host, name) = (self.fleet[service / SERVICES], service_name(service % SERVICES));
        let code = exit_status(service, round);
        let output = said(code, service, round);
        let result = PluginResult::from_run(&Ending::Exit(code), output.as_bytes(), b"", false);
        let (at, by): (Wall, String) = (fleetgate::clock::wall(), "token:bench".to_owned());
        let outcome = self
            .handle
            .submit(None, |ticket| PassiveResult {
                host,
                service: Some(name),
                result,
                at,
                by,
                identity: Default::default(),
                ticket,
            })
            .await;
        ensure!(outcome == Ok(Outcome::Done), "a result came to nothing: {outcome:?}");
        Ok(())
    }
}

pub(super) fn exit_status(service: usize, round: usize) -> u32 {
    let failures = TROUBLES[service % TROUBLES.len()];
    // Problems are spread, so that equally many services begin one at any time.
    let position = (service / TROUBLES.len() * 7 + round) % CYCLE;
    if position < failures { 2 } else { 0 }
}

pub(super) fn said(code: u32, service: usize, round: usize) -> String {
    let used = 40 + (service + round) % 20;
    let word = if code == 0 { "OK" } else { "CRITICAL" };
    format!("DISK {word} - {used}% used, {} MB free | used={used}%;80;90 free={}MB;;;0", 99 - used, 99 - used)
}

impl Sent {
    fn waited_ms(&self, percent: usize) -> f64 {
        let at = (self.waited.len() * percent / 100).min(self.waited.len() - 1);
        self.waited[at].as_secs_f64() * 1e3
    }

    fn per_cpu(&self) -> f64 {
        self.count as f64 / self.cpu.as_secs_f64()
    }

    /// Compares with the rate behind the API.
    fn compare(&self, how: &str, behind: f64, aim: &str) {
        let (rate, waited) = (self.per_cpu(), [50, 99].map(|percent| self.waited_ms(percent)));
        let busy = self.cpu.as_secs_f64() / self.took.as_secs_f64() * 100.0;
        report(&format!("  the same, {how}"), &format!("{rate:.0}"), "-");
        report("    against behind the API", &format!("{:.2}", rate / behind), aim);
        let waited = format!("{:.0} ms, {:.0} ms", waited[0], waited[1]);
        report("    the share of that core we had; a call: p50, p99", &format!("{busy:.0} %; {waited}"), "-");
    }

    fn report(&self, how: &str) {
        let count = self.count as f64;
        println!("  {how}:");
        let rate = count / self.took.as_secs_f64();
        report("results a second, on one core", &format!("{rate:.0}"), "-");
        let busy = self.cpu.as_secs_f64() / self.took.as_secs_f64() * 100.0;
        report("  the share of that core we had", &format!("{busy:.0} %"), "-");
        report("results per CPU second", &format!("{:.0}", self.per_cpu()), "-");
        let each = self.cpu.as_secs_f64() * 1e6 / count;
        report("CPU of 1,000 results", &format!("{each:.1} ms"), "-");
        let waited = [50, 99].map(|percent| self.waited_ms(percent));
        report(
            "from result to committed state: p50, p99",
            &format!("{:.0} ms, {:.0} ms", waited[0], waited[1]),
            "-",
        );
    }
}

/// Checks that the last submitted result is shown, and that the metrics of every result are in the
/// history or counted as dropped. Within a variant, the results of a service are more than a second apart.
async fn is_stored(program: &Program, rounds: &[usize], dropped: u64) -> anyhow::Result<()> {
    let path =
        format!("/hosts/{}/services/{}", host_name(WATCHED / SERVICES), service_name(WATCHED % SERVICES));
    let shown = program.call(Method::GET, &path, &Value::Null).await?;
    let last = rounds.last().map(|round| said(exit_status(WATCHED, *round), WATCHED, *round));
    let last = last.context("no result was sent")?;
    let text = shown["text"].as_str().context("a text")?;
    ensure!(last.starts_with(text), "{text:?} is shown, not {last:?}");
    let path = format!("{path}/metrics/used?limit=1000");
    let samples = program.call(Method::GET, &path, &Value::Null).await?;
    let stored = samples["points"].as_array().context("samples")?.len();
    let missing = rounds.len().checked_sub(stored).context("more samples than results")?;
    ensure!(
        missing as u64 <= dropped + VARIANTS,
        "{missing} of {} results are not in the history",
        rounds.len()
    );
    Ok(())
}

fn dropped(program: &Program) -> u64 {
    let text = program.server.state.metrics.render();
    let counts = text.lines().filter(|line| line.starts_with("fleetgate_samples_dropped_total"));
    counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

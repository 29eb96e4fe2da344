//! The cost of an `Idempotency-Key` for a call while many keys are stored, and the cost for other
//! calls while old keys are deleted.
//!
//! The whole program runs in this process, and calls its API, one call after the other.

use std::time::Duration;

use anyhow::ensure;
use fleetgate::store::idempotency::{self, Answer, Call, KEPT, PRUNED_AT_ONCE};
use fleetgate_engine::time::Wall;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::program::Program;
use super::{process_cpu, report};

/// The maximum number of keys of one caller.
const KEPT_KEYS: usize = 100_000;
/// Calls of each kind.
const CALLS: usize = 300;
/// Rows per transaction while the table is filled.
const FILLED_AT_ONCE: usize = 10_000;

/// # Errors
/// Fails when the program does not start, or refuses a call.
pub fn run() -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> anyhow::Result<()> {
    let program = Program::start().await?;
    program.call(Method::POST, "/devices", &json!({ "name": "cam" })).await?;
    calls(&program, Some("warm")).await?;
    let without = calls(&program, None).await?;
    let few = calls(&program, Some("few")).await?;
    let now = fleetgate::clock::wall();
    fill(&program, "kept", now).await?;
    let many = calls(&program, Some("many")).await?;
    // The age of keys that a gateway finds after it was off for a day.
    fill(&program, "old", now - (KEPT + Duration::from_secs(1))).await?;
    let beside = calls(&program, Some("beside")).await?;
    without.report("a call without a key");
    few.report("a call with a key, few are kept");
    many.report(&format!("a call with a key, {KEPT_KEYS} are kept"));
    beside.report(&format!("the same, and {KEPT_KEYS} are too old"));
    let ratio = many.cpu.as_secs_f64() / few.cpu.as_secs_f64();
    report("  CPU of a call with many to one with few", &format!("{ratio:.2}"), "1");
    prune(&program, now).await?;
    program.server.stop().await;
    Ok(())
}

struct Cost {
    cpu: Duration,
    median: Duration,
}

impl Cost {
    fn report(&self, what: &str) {
        let (cpu, median) = (self.cpu.as_secs_f64() * 1e3, self.median.as_secs_f64() * 1e3);
        report(what, &format!("{cpu:.2} ms CPU, {median:.2} ms"), "-");
    }
}

/// Requests "check now", each in a separate call.
async fn calls(program: &Program, keys: Option<&str>) -> anyhow::Result<Cost> {
    let (cpu, mut took) = (process_cpu(), Vec::with_capacity(CALLS));
    for n in 0..CALLS {
        let key = keys.map(|keys| format!("{keys}-{n}"));
        let begun = Instant::now();
        program.call_once(Method::POST, "/hosts/cam/check", &json!({}), key.as_deref()).await?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(Cost { cpu: (process_cpu() - cpu) / CALLS as u32, median: took[CALLS / 2] })
}

async fn fill(program: &Program, keys: &str, at: Wall) -> anyhow::Result<()> {
    let answer = Answer { status: 201, etag: Some("\"1\"".into()), body: "x".repeat(500) };
    for first in (0..KEPT_KEYS).step_by(FILLED_AT_ONCE) {
        let mut tx = program.server.state.store.begin().await?;
        for n in first..first + FILLED_AT_ONCE {
            let key = format!("{keys}-{n}");
            let call = Call { principal: "local:0", key: &key, request: [7; 32] };
            idempotency::answered(&mut tx, call, &answer, at).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Deletes old keys in the steps of the program. Each step delays every other write.
async fn prune(program: &Program, now: Wall) -> anyhow::Result<()> {
    let (mut gone, mut longest, mut took) = (0, Duration::ZERO, Vec::new());
    loop {
        let mut tx = program.server.state.store.begin().await?;
        let begun = Instant::now();
        let step = idempotency::prune(&mut tx, now - KEPT).await?;
        tx.commit().await?;
        took.push(begun.elapsed());
        longest = longest.max(begun.elapsed());
        gone += step;
        if step < u64::from(PRUNED_AT_ONCE) {
            break;
        }
    }
    took.sort_unstable();
    let median = took[took.len() / 2].as_secs_f64() * 1e3;
    let figure = format!("{median:.1} ms, {:.1} ms", longest.as_secs_f64() * 1e3);
    report(&format!("{PRUNED_AT_ONCE} old keys go: median, longest step"), &figure, "-");
    // The program's own housekeeping may have deleted some before.
    ensure!(gone <= KEPT_KEYS as u64, "{gone} of {KEPT_KEYS} keys have gone");
    Ok(())
}

//! The gateway's memory over time: `fleetgate demo` over hours, with submitted results.
//!
//! The program runs as a process of its own. Its caches fill first; those of the databases grow
//! with written data to 16 MiB each, and 2 MiB for each reader. The growth of the second half is
//! the one that counts. A higher rate shows in one hour what a low rate shows in many.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::demo_process::Demo;
use super::report;

const MINUTE: Duration = Duration::from_secs(60);
/// Default number of results a second.
pub const RATE: u32 = 50;
/// The interval of calls; each sends its share of the results.
const TICK: Duration = Duration::from_millis(100);
const HOST: &str = "cam-01";
const SERVICE: &str = "soak";
const MIB: f64 = 1024.0 * 1024.0;

/// Starts the demo with a service that takes results.
async fn started() -> anyhow::Result<Demo> {
    let demo = Demo::start().await?;
    let check = json!({ "check": { "type": "passive" } });
    demo.call(Method::PUT, &format!("hosts/{HOST}/services/{SERVICE}"), &check).await?;
    Ok(demo)
}

/// Returns the resident bytes.
fn resident(demo: &Demo) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", demo.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a resident size")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// Sends results for this long; returns how many were accepted.
async fn send_for(demo: &Demo, time: Duration, rate: u32, mut sent: u64) -> anyhow::Result<u64> {
    let mut tick = tokio::time::interval(TICK);
    let (end, share) = (Instant::now() + time, u64::from(rate) * TICK.as_millis() as u64 / 1_000);
    while Instant::now() < end {
        tick.tick().await;
        let result = |n: u64| json!({ "host": HOST, "service": SERVICE, "exit_status": 0, "output": format!("fine | count={n}") });
        let results: Vec<Value> = (sent..sent + share).map(result).collect();
        demo.call(Method::POST, "results", &json!({ "results": results })).await?;
        sent += share;
    }
    Ok(sent)
}

/// # Errors
/// Fails when the demo does not start, or ends.
pub fn run(minutes: usize, rate: u32) -> anyhow::Result<()> {
    ensure!(minutes >= 4, "4 minutes at least: the first half fills caches");
    ensure!((10..=10_000).contains(&rate), "10 to 10,000 results a second");
    tokio::runtime::Runtime::new()?.block_on(measure(minutes, rate))
}

async fn measure(minutes: usize, rate: u32) -> anyhow::Result<()> {
    let demo = started().await?;
    let (mut sizes, mut sent) = (vec![resident(&demo)?], 0);
    for minute in 1..=minutes {
        sent = send_for(&demo, MINUTE, rate, sent).await?;
        sizes.push(resident(&demo)?);
        println!("minute {minute:>4}: {:>6.1} MiB resident, {sent} results", sizes[minute] / MIB);
    }
    let half = &sizes[minutes / 2..];
    let hourly = slope(half) * 60.0;
    report("resident at the end", &format!("{:.1} MiB", sizes[minutes] / MIB), "-");
    report("growth of the second half", &format!("{:.1} MiB an hour", hourly / MIB), "under 1");
    report(
        "  per result that was sent",
        &format!("{:.1} B", hourly / (f64::from(rate) * 3_600.0)),
        "under 2",
    );
    Ok(())
}

/// Returns the slope of the best-fitting line, per step.
fn slope(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let (mid, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let steps = || values.iter().enumerate().map(|(n, value)| (n as f64 - mid, value - mean));
    steps().map(|(x, y)| x * y).sum::<f64>() / steps().map(|(x, _)| x * x).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_that_of_the_line_that_fits() {
        assert!((slope(&[1.0, 3.0, 5.0, 7.0]) - 2.0).abs() < 1e-9);
        assert!(slope(&[4.0, 4.0, 4.0]).abs() < 1e-9);
    }
}

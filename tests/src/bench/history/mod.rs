//! The history over years: its bytes, what it writes, its CPU and memory, and how fast it is read. rrdtool and
//! VictoriaMetrics get the same samples in the same run, if they are installed.
//!
//! Each aim of the project is a line of the report.

mod day;
pub(super) mod fleet;
mod load;
pub(super) mod patterns;
mod rrd;
pub(super) mod series;
mod spent;
mod stored;
mod tiers;
mod victoria;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use fleetgate::history::Keep;
use fleetgate_engine::history::DAY;

/// Series of the large fleet, and years of the deep ones, unless an option says otherwise.
const SERIES: u32 = 100_000;
const YEARS: u32 = 3;
/// The defaults of the settings.
const KEEP: Keep = Keep {
    raw: Duration::from_secs(30 * 86_400),
    five_minutes: Duration::from_secs(90 * 86_400),
    hours: Duration::from_secs(1_098 * 86_400),
    days: None,
};

/// # Errors
/// Fails when a database refuses a write, or the program does not start.
pub fn run() -> anyhow::Result<()> {
    run_with(&[])
}

/// Runs with `--series N` and `--years Y`. With `--stored-days D` it reads beside D days of each series, and does
/// nothing else.
///
/// # Errors
/// Fails like [`run`], and for an unknown option.
pub fn run_with(options: &[String]) -> anyhow::Result<()> {
    let Options { series, years, stored_days } = parse(options)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let now = fleetgate::clock::wall().as_millis().div_euclid(1_000);
        if let Some(days) = stored_days {
            return stored::measure(series, days, years, now).await;
        }
        let today = now.div_euclid(DAY);
        tiers::measure(years, today).await?;
        let roll_ups = day::measure(today).await?;
        load::measure(series, years, now, roll_ups).await
    })
}

struct Options {
    series: u32,
    years: u32,
    stored_days: Option<u32>,
}

fn parse(options: &[String]) -> anyhow::Result<Options> {
    let (mut series, mut years, mut stored_days) = (SERIES, YEARS, None);
    for pair in options.chunks(2) {
        let [option, value] = pair else { bail!("{} needs a value", pair[0]) };
        match option.as_str() {
            "--series" => series = value.parse().context("--series needs a number")?,
            "--years" => years = value.parse().context("--years needs a number")?,
            "--stored-days" => stored_days = Some(value.parse().context("--stored-days needs a number")?),
            other => bail!("there is no option {other}: --series, --years or --stored-days is expected"),
        }
    }
    ensure!((1..=1_000_000).contains(&series), "--series is 1 to 1000000");
    ensure!((1..=20).contains(&years), "--years is 1 to 20");
    let days = stored_days.unwrap_or(1);
    ensure!((1..=365).contains(&days), "--stored-days is 1 to 365");
    Ok(Options { series, years, stored_days })
}

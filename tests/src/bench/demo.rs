//! How soon the past of `fleetgate demo` can be read: the last 24 hours, and all of its days.
//!
//! The program runs as a process of its own, in a fresh folder. A time can be read when the API has it of a metric of each
//! service of every device. The rental unit has no service and therefore no past.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fleetgate::demo::{past, plan};
use fleetgate_engine::history::{BUCKET, DAY, HOUR, Second};
use reqwest::Method;
use serde_json::Value;

use super::demo_process::Demo;
use super::{cpu_of_process, median, report};

/// Runs, unless an option says otherwise.
pub const RUNS: usize = 3;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// The services of the devices, each with a metric that every check of a device that is there has.
const METRICS: [(&str, &str); 7] = [
    ("tunnel", "packet_age"),
    ("ping", "rta"),
    ("ssh", "time"),
    ("disk", "used"),
    ("memory", "used"),
    ("temperature", "temperature"),
    ("pictures", "age"),
];

/// A time before the start, as a graph shows it.
struct Span {
    days: Second,
    step: Second,
    points: u32,
    /// The first value is in one of so many steps.
    begins: usize,
    /// The part of the steps that have a value, at least: a site was without power for three hours of the last day.
    filled: f64,
    /// Interval between two looks.
    look: Duration,
}

const LAST_DAY: Span =
    Span { days: 1, step: BUCKET, points: 300, begins: 4, filled: 0.7, look: Duration::from_millis(100) };
const ALL_DAYS: Span = Span {
    days: past::DAYS as Second,
    step: HOUR,
    points: 800,
    begins: 2,
    filled: 0.95,
    look: Duration::from_millis(500),
};

impl Span {
    fn is_in(&self, column: &[Value]) -> bool {
        let begins = column.iter().take(self.begins).any(|value| !value.is_null());
        let filled = column.iter().filter(|value| !value.is_null()).count();
        begins && filled as f64 >= self.filled * column.len() as f64
    }
}

/// A metric of all devices with a service.
struct Graph {
    service: &'static str,
    metric: &'static str,
    devices: Vec<&'static str>,
}

impl Graph {
    /// Whether the API has the time before `start` of every device.
    async fn has(&self, span: &Span, demo: &Demo, start: Second) -> anyhow::Result<bool> {
        let hosts: Vec<String> = self.devices.iter().map(|device| format!("host={device}")).collect();
        let path = format!(
            "metrics/query?{}&service={}&metric={}&from={}&to={}&points={}",
            hosts.join("&"),
            self.service,
            self.metric,
            text(start - span.days * DAY)?,
            text(start)?,
            span.points
        );
        let answer = demo.call(Method::GET, &path, &Value::Null).await?;
        ensure!(answer["step_s"] == span.step, "the steps have {} s", answer["step_s"]);
        let series = answer["series"].as_array().context("series")?;
        let is_in = |series: &Value| series["avg"].as_array().is_some_and(|column| span.is_in(column));
        Ok(series.len() == self.devices.len() && series.iter().all(is_in))
    }
}

fn text(at: Second) -> anyhow::Result<String> {
    Ok(jiff::Timestamp::from_second(at)?.to_string())
}

/// What one run took since its start.
struct Run {
    enrolled: Duration,
    last_day: Duration,
    all_days: Duration,
    cpu: Duration,
}

/// # Errors
/// Fails when the demo does not start, ends, or has no past.
pub fn run(runs: usize) -> anyhow::Result<()> {
    ensure!((1..=100).contains(&runs), "--runs is 1 to 100");
    let runs = tokio::runtime::Runtime::new()?.block_on(measure(runs))?;
    report("last 24 hours of all devices: minimum, median", &figures(&runs, |run| run.last_day), "10 s");
    let all = format!("all {} days: the same", past::DAYS);
    report(&all, &figures(&runs, |run| run.all_days), "120 s");
    report("CPU of the program until then: the same", &figures(&runs, |run| run.cpu), "-");
    Ok(())
}

async fn measure(runs: usize) -> anyhow::Result<Vec<Run>> {
    let mut done = Vec::new();
    for n in 1..=runs {
        let run = once().await?;
        let [enrolled, day, all, cpu] =
            [run.enrolled, run.last_day, run.all_days, run.cpu].map(|time| time.as_secs_f64());
        println!(
            "run {n}: all devices after {enrolled:.1} s, 24 hours after {day:.1} s, {} days after {all:.1} s, \
             {cpu:.1} s of CPU",
            past::DAYS
        );
        done.push(run);
    }
    Ok(done)
}

async fn once() -> anyhow::Result<Run> {
    let start = fleetgate::clock::wall().as_millis().div_euclid(1_000);
    let begun = Instant::now();
    let demo = Demo::start().await?;
    let enrolled = begun.elapsed();
    let graphs = graphs(&demo).await?;
    let mut times = [Duration::ZERO; 2];
    for (time, span) in times.iter_mut().zip([LAST_DAY, ALL_DAYS]) {
        for graph in &graphs {
            while !graph.has(&span, &demo, start).await? {
                let days = span.days;
                ensure!(begun.elapsed() < PATIENCE, "{} lacks a part of the last {days} days", graph.service);
                tokio::time::sleep(span.look).await;
            }
        }
        *time = begun.elapsed();
    }
    let [last_day, all_days] = times;
    Ok(Run { enrolled, last_day, all_days, cpu: cpu_of_process(demo.id())? })
}

/// Returns the graphs of the devices as the gateway has them.
async fn graphs(demo: &Demo) -> anyhow::Result<Vec<Graph>> {
    let mut graphs = METRICS.map(|(service, metric)| Graph { service, metric, devices: Vec::new() });
    for device in plan::plan() {
        let path = format!("hosts/{}/services", device.name);
        let page = demo.call(Method::GET, &path, &Value::Null).await?;
        let services = page["items"].as_array().context("services")?;
        for graph in &mut graphs {
            if services.iter().any(|service| service["name"] == graph.service) {
                graph.devices.push(device.name);
            }
        }
    }
    let without = graphs.iter().find(|graph| graph.devices.is_empty());
    ensure!(without.is_none(), "no device has {}", without.map_or("", |graph| graph.service));
    Ok(graphs.into())
}

/// Returns the minimum and the median.
fn figures(runs: &[Run], of: impl Fn(&Run) -> Duration) -> String {
    let seconds: Vec<f64> = runs.iter().map(|run| of(run).as_secs_f64()).collect();
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    format!("{least:.1} s, {:.1} s", median(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(len: usize, has: impl Fn(usize) -> bool) -> Vec<Value> {
        (0..len).map(|n| if has(n) { Value::from(1.5) } else { Value::Null }).collect()
    }

    #[test]
    fn a_time_is_there_from_its_begin_and_with_the_gaps_of_outages() {
        let is_in = |has: &dyn Fn(usize) -> bool| LAST_DAY.is_in(&column(289, has));
        assert!(is_in(&|n| n >= 2 && !(180..220).contains(&n)));
        assert!(!is_in(&|n| n >= 4), "the day is not there yet");
        assert!(!is_in(&|n| n == 0 || n > 280), "some minutes of it are there");
        assert!(!is_in(&|_| false) && !LAST_DAY.is_in(&[]));
    }
}

//! The same samples in files of rrdtool, with archives as wide and as long as the tiers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use fleetgate_engine::history::{DAY, HOUR, Point, Second, SeriesKind};

use super::super::{cpu_of_process, median};
use super::series::{Generator, MINUTE};

/// A sample may be this late, in seconds.
const HEARTBEAT: Second = 3 * MINUTE;
/// Updates in one call, as a cache in front of it makes them.
const BATCH: usize = 60;
/// The days that are written with one update a call.
const SINGLE_DAYS: Second = 3;
const READINGS: usize = 21;

/// The costs of rrdtool.
pub struct Rrd {
    /// Bytes of one file.
    pub bytes: u64,
    /// CPU of one update, with one update in a call and with [`BATCH`].
    pub single: Duration,
    pub batched: Duration,
    /// The median time to read the averages of a year by the hour.
    pub year: Duration,
}

/// Writes the samples of `[from, to)` of the first `series` series, a file each. `None` if rrdtool is not installed.
///
/// # Errors
/// Fails when rrdtool refuses a command.
pub fn measure(series: u32, from: Second, to: Second) -> anyhow::Result<Option<Rrd>> {
    if Command::new("rrdtool").arg("--version").output().is_err() {
        return Ok(None);
    }
    let dir = tempfile::tempdir()?;
    let mut tool = Tool::start(dir.path())?;
    let (mut single, mut batched) = (Costs::default(), Costs::default());
    for n in 0..series {
        let mut generator = Generator::new(n);
        tool.create(n, generator.profile.kind(), (from, to))?;
        let singly = generator.samples(from, from + SINGLE_DAYS * DAY);
        single.add(&mut tool, n, &singly, 1)?;
        for day in (from + SINGLE_DAYS * DAY..to).step_by(DAY as usize) {
            batched.add(&mut tool, n, &generator.samples(day, to.min(day + DAY)), BATCH)?;
        }
    }
    let year = tool.year(to)?;
    let bytes = std::fs::metadata(dir.path().join("0.rrd"))?.len();
    Ok(Some(Rrd { bytes, single: single.each(), batched: batched.each(), year }))
}

#[derive(Default)]
struct Costs {
    cpu: Duration,
    updates: u32,
}

impl Costs {
    fn add(&mut self, tool: &mut Tool, n: u32, points: &[Point], batch: usize) -> anyhow::Result<()> {
        let before = cpu_of_process(tool.child.id())?;
        for part in points.chunks(batch) {
            tool.update(n, part)?;
        }
        self.cpu += cpu_of_process(tool.child.id())? - before;
        self.updates += points.len() as u32;
        Ok(())
    }

    fn each(&self) -> Duration {
        self.cpu / self.updates.max(1)
    }
}

/// One rrdtool that reads its commands from a pipe.
struct Tool {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Tool {
    fn start(dir: &Path) -> anyhow::Result<Tool> {
        let mut child = Command::new("rrdtool")
            .arg("-")
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = child.stdin.take().context("a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Tool { child, commands, answers })
    }

    /// Returns the number of lines before the last.
    fn call(&mut self, command: &str) -> anyhow::Result<usize> {
        writeln!(self.commands, "{command}")?;
        let (mut lines, mut line) = (0, String::new());
        loop {
            line.clear();
            if self.answers.read_line(&mut line)? == 0 {
                bail!("rrdtool has ended");
            }
            if line.starts_with("OK") {
                return Ok(lines);
            }
            if line.starts_with("ERROR") {
                bail!("rrdtool: {}", line.trim());
            }
            lines += 1;
        }
    }

    fn create(&mut self, n: u32, kind: SeriesKind, (from, to): (Second, Second)) -> anyhow::Result<()> {
        let source = match kind {
            SeriesKind::Gauge => format!("DS:v:GAUGE:{HEARTBEAT}:U:U"),
            SeriesKind::Counter => format!("DS:v:DERIVE:{HEARTBEAT}:0:U"),
        };
        let mut archives = format!("RRA:AVERAGE:0.5:1:{}", 30 * DAY / MINUTE);
        for (width, days) in [(300, 90), (HOUR, (to - from) / DAY), (DAY, (to - from) / DAY)] {
            for function in ["MIN", "AVERAGE", "MAX"] {
                let rows = days * DAY / width;
                archives += &format!(" RRA:{function}:0.5:{}:{rows}", width / MINUTE);
            }
        }
        let start = from - MINUTE;
        self.call(&format!("create {n}.rrd --start {start} --step {MINUTE} {source} {archives}")).map(drop)
    }

    fn update(&mut self, n: u32, points: &[Point]) -> anyhow::Result<()> {
        let mut command = format!("update {n}.rrd");
        for Point { at, value } in points {
            match value {
                Some(value) => command += &format!(" {at}:{value}"),
                None => command += &format!(" {at}:U"),
            }
        }
        self.call(&command).map(drop)
    }

    fn year(&mut self, to: Second) -> anyhow::Result<Duration> {
        let command = format!("fetch 0.rrd AVERAGE -r 3600 -s {} -e {to}", to - 365 * DAY);
        let mut took = Vec::new();
        for _ in 0..READINGS {
            let begun = Instant::now();
            let lines = self.call(&command)?;
            took.push(begun.elapsed().as_secs_f64());
            ensure!(lines > 8_000, "rrdtool has only {lines} lines of a year");
        }
        Ok(Duration::from_secs_f64(median(took)))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

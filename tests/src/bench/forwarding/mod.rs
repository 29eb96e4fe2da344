//! Measures the cost to forward packets between two peers, for this program and for other hubs.
//!
//! Each hub runs in a network namespace. The peers run in this process, with their own cryptography,
//! and are the same for every hub. A round measures one hub after the other, so that each median comes
//! from the same stretch of time. CPU is that of the hub's process alone: user and system time of all
//! its threads, with what the kernel does in their name (for a hub with a TUN device that includes
//! routing, for every hub the delivery of what it sends to the socket of its peer).

mod crowd;
mod hub;
mod load;
pub mod peer;
mod tcp;
mod tun;

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::lab::Lab;
use hub::{Candidate, Hub, HubKind};
use load::{Load, Measured, Phase, Rate, median_of};
use tcp::Transfer;

const ROUNDS: usize = 5;
/// Inner packets.
const SIZES: [usize; 2] = [1_200, 1_400];
/// 10,000 packets a second, ten in one call.
const BURSTS: Rate = Rate { at_once: 10, every: Duration::from_millis(1) };
/// 10,000 packets a second, one by one.
const SINGLE: Rate = Rate { at_once: 1, every: Duration::from_micros(100) };
const PACED: Duration = Duration::from_secs(3);
const FULL: Duration = Duration::from_secs(2);
const PROBES: Duration = Duration::from_millis(5);
const DIRECT_PROBES: u32 = 400;
/// New flows a second of a peer that floods the table.
const FLOOD: u64 = 50_000;

struct Options {
    hubs: Vec<Candidate>,
    rounds: usize,
    flood: u64,
}

impl Options {
    fn parse(arguments: &[String]) -> anyhow::Result<Options> {
        let mut options = Options { hubs: Vec::new(), rounds: ROUNDS, flood: FLOOD };
        for pair in arguments.chunks(2) {
            let [option, value] = pair else { bail!("{} needs a value", pair[0]) };
            match option.as_str() {
                "--hub" => options.hubs.push(Candidate::parse(value)?),
                "--rounds" => options.rounds = value.parse().context("--rounds needs a number")?,
                "--flood" => options.flood = value.parse().context("--flood needs a number")?,
                other => bail!("there is no option {other}: --hub, --rounds or --flood is expected"),
            }
        }
        ensure!(options.rounds > 0, "--rounds is at least 1");
        ensure!(options.flood >= 1_000, "--flood is at least 1000");
        if options.hubs.is_empty() {
            options.hubs = Candidate::all()?;
        }
        Ok(options)
    }
}

/// The measurements of one hub in all rounds, in the order of [`PHASES`].
#[derive(Default)]
struct Figures {
    phases: [Vec<Measured>; PHASES.len()],
    transfers: Vec<Transfer>,
}

const PHASES: [(&str, Phase); 5] = [
    (
        "idle",
        Phase {
            size: SIZES[0],
            rate: Some(Rate { at_once: 0, every: PROBES }),
            probe_every: PROBES,
            time: FULL,
        },
    ),
    ("bursts, 1,200", Phase { size: SIZES[0], rate: Some(BURSTS), probe_every: PROBES, time: PACED }),
    ("bursts, 1,400", Phase { size: SIZES[1], rate: Some(BURSTS), probe_every: PROBES, time: PACED }),
    ("one by one, 1,200", Phase { size: SIZES[0], rate: Some(SINGLE), probe_every: PROBES, time: PACED }),
    ("all it takes, 1,400", Phase { size: SIZES[1], rate: None, probe_every: Duration::ZERO, time: FULL }),
];

/// # Errors
/// Fails when an option is wrong, a hub does not start, or one does not forward.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let options = Options::parse(arguments)?;
    let labs: Vec<Lab> = options.hubs.iter().map(|_| tcp::lab()).collect();
    let hubs = labs.iter().zip(options.hubs).map(|(lab, candidate)| Hub::start(lab, candidate));
    let hubs: Vec<Hub<'_>> = hubs.collect::<anyhow::Result<_>>()?;
    let loads: Vec<Load> = labs.iter().map(Load::new).collect::<anyhow::Result<_>>()?;
    let mut figures: Vec<Figures> = hubs.iter().map(|_| Figures::default()).collect();
    let mut direct = Vec::new();
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        direct.push(loads[0].direct(PROBES, DIRECT_PROBES)?);
        for (n, figures) in figures.iter_mut().enumerate() {
            for (phase, measured) in PHASES.iter().zip(&mut figures.phases) {
                measured.push(loads[n].run(&hubs[n], phase.1).with_context(|| phase.0)?);
            }
            figures.transfers.push(tcp::transfer(&labs[n], &loads[n], &hubs[n])?);
        }
    }
    print(&hubs, &figures, &direct)?;
    match hubs.iter().position(|hub| hub.candidate.kind == HubKind::Fleetgate) {
        Some(at) => crowd::run((&labs[at], &hubs[at], &loads[at]), options.rounds, options.flood),
        None => Ok(()),
    }
}

/// A line of the table: a figure of each hub.
struct Line {
    name: String,
    unit: &'static str,
    figures: Vec<f64>,
}

fn print(hubs: &[Hub<'_>], figures: &[Figures], direct: &[Measured]) -> anyhow::Result<()> {
    for hub in hubs {
        println!(
            "{:?}: {}, {}",
            hub.candidate.kind,
            hub.candidate.version(),
            hub.candidate.program.display()
        );
    }
    println!("Medians of {} rounds; in brackets the ratio to the first hub.\n", direct.len());
    let line = |name: &str, unit, of: &dyn Fn(&Figures) -> anyhow::Result<f64>| {
        let figures = figures.iter().map(of).collect::<anyhow::Result<Vec<f64>>>()?;
        anyhow::Ok(Line { name: name.to_owned(), unit, figures })
    };
    let mut lines = Vec::new();
    for (at, (name, phase)) in PHASES.iter().enumerate().skip(1) {
        lines.push(line(&format!("CPU per packet, {name} bytes"), "us", &|f| {
            median_of(&f.phases[at], Measured::us_per_packet)
        })?);
        if phase.rate.is_some() {
            lines.push(line("  lost", "%", &|f| median_of(&f.phases[at], lost_percent))?);
        }
    }
    lines.push(line("throughput, 1,400 bytes", "Gbit/s", &|f| {
        median_of(&f.phases[4], |m| m.delivered as f64 * SIZES[1] as f64 * 8.0 / m.time.as_secs_f64() / 1e9)
    })?);
    lines.push(line("CPU per GB of TCP", "s", &|f| tcp::median_of(&f.transfers, Transfer::seconds_per_gb))?);
    lines.push(line("throughput of TCP", "Gbit/s", &|f| tcp::median_of(&f.transfers, Transfer::gbit_per_s))?);
    for (at, when) in [(0, "idle"), (1, "10,000/s in bursts"), (3, "10,000/s one by one")] {
        for (share, name) in [(0.5, "p50"), (0.99, "p99")] {
            let alone = median_of(direct, |m| m.rtt_us(share))?;
            lines.push(line(&format!("added round trip, {when}, {name}"), "us", &|f| {
                Ok(median_of(&f.phases[at], |m| m.rtt_us(share))? - alone)
            })?);
        }
    }
    lines.push(line("CPU of kernel threads meanwhile, per packet in bursts", "us", &|f| {
        median_of(&f.phases[1], |m| m.kernel.as_secs_f64() * 1e6 / m.forwarded() as f64)
    })?);
    lines.iter().for_each(Line::print);
    for hub in hubs {
        println!("{:?} is {:.0} MiB resident now", hub.candidate.kind, hub.resident_mib());
    }
    Ok(())
}

/// Packets and probes that did not arrive.
fn lost_percent(measured: &Measured) -> f64 {
    let arrived = measured.delivered + measured.rtts.len() as u64;
    100.0 * (1.0 - arrived as f64 / (measured.sent + measured.probes) as f64)
}

impl Line {
    fn print(&self) {
        let first = self.figures.first().copied().unwrap_or(f64::NAN);
        let figure = |figure: &f64| format!("{figure:10.2} ({:5.2})", figure / first);
        let figures: Vec<String> = self.figures.iter().map(figure).collect();
        println!("{:<56} {:<7} {}", self.name, self.unit, figures.join(" "));
    }
}

//! Prints the traces of simulated fleets, so that two commits can be compared:
//! `cargo run -p fleetgate-tests --bin traces -- --seeds 200`.
//!
//! A line of a message is: seed, second, contact, kind, checkable, states. After each seed and at
//! the end follow the digests of the messages, and of all that the engine emitted.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use fleetgate_tests::traces::{Digest, Size, trace};

struct Args {
    seeds: u64,
    size: Size,
}

fn args() -> anyhow::Result<Args> {
    let mut args = Args { seeds: 200, size: Size { hosts: 20, hours: 24 } };
    let mut given = std::env::args().skip(1);
    while let Some(option) = given.next() {
        let text = given.next().with_context(|| format!("{option} needs a number"))?;
        let number = || format!("{option}: {text:?} is no number");
        match option.as_str() {
            "--seeds" => args.seeds = text.parse().with_context(number)?,
            "--hosts" => args.size.hosts = text.parse().with_context(number)?,
            "--hours" => args.size.hours = text.parse().with_context(number)?,
            _ => bail!("unknown option {option}: there are --seeds, --hosts and --hours"),
        }
    }
    Ok(args)
}

fn main() -> anyhow::Result<()> {
    let Args { seeds, size } = args()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let (mut sent, mut all) = (Digest::default(), Digest::default());
    for seed in 1..=seeds {
        let trace = trace(seed, size);
        for line in &trace.messages {
            writeln!(out, "{seed} {line}")?;
        }
        let (messages, probes, events) = (trace.messages.len(), trace.probes, trace.events);
        writeln!(
            out,
            "seed {seed}: {messages} messages {}, with {probes} probes and {events} events {}",
            trace.sent, trace.all
        )?;
        sent.add(&trace.sent.to_string());
        all.add(&trace.all.to_string());
    }
    writeln!(out, "all {seeds} seeds: messages {sent}, everything {all}")?;
    Ok(out.flush()?)
}

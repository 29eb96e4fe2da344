//! Prints the figures of docs/performance.md.
//!
//! `cargo run --release -p fleetgate-tests --bin bench` runs all benchmarks; a name selects one.
//! `bench backup --history-gb N` makes one backup of a history of N GB. `bench reading --events N`
//! reads with a log of N events. `bench soak MINUTES [--rate N]` watches the memory of the demo
//! while it receives N results a second. `bench demo [--runs N]` says how soon the past of the demo can be read.
//! `bench history [--series N] [--years Y]` records N series, some of them for Y
//! years; with `--stored-days D` it reads beside D days of each of them. `bench forwarding` compares
//! this program with other hubs; it needs root, and takes `--hub`, `--rounds` and `--flood`.

use anyhow::bail;
use fleetgate_tests::bench::{
    Counting, backup, checks, cipher, demo, downtimes, forwarding, handshake, history, idle, keys, memory,
    peers, reading, results, retention, senders, soak,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Bench = (&'static str, fn() -> anyhow::Result<()>);

/// Wraps the benchmarks that cannot fail.
macro_rules! always {
    ($run:path) => {
        || {
            $run();
            Ok(())
        }
    };
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == [senders::NAME] {
        return senders::run_senders();
    }
    if let [name, options @ ..] = arguments.as_slice()
        && name == "forwarding"
    {
        return forwarding::run(options);
    }
    if let [name, options @ ..] = arguments.as_slice()
        && name == "history"
    {
        return history::run_with(options);
    }
    if let [name, option, gigabytes] = arguments.as_slice()
        && (name.as_str(), option.as_str()) == ("backup", "--history-gb")
    {
        return backup::run_large(gigabytes.parse()?);
    }
    if let [name, option, events] = arguments.as_slice()
        && (name.as_str(), option.as_str()) == ("reading", "--events")
    {
        return reading::run_with(events.parse()?);
    }
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["demo"] => return demo::run(demo::RUNS),
        ["demo", "--runs", runs] => return demo::run(runs.parse()?),
        ["soak", minutes] => return soak::run(minutes.parse()?, soak::RATE),
        ["soak", minutes, "--rate", rate] => return soak::run(minutes.parse()?, rate.parse()?),
        _ => {}
    }
    let wanted = arguments.first().cloned();
    let benches: [Bench; 13] = [
        ("handshake", always!(handshake::run)),
        ("cipher", always!(cipher::run)),
        ("memory", always!(memory::run)),
        ("peers", always!(peers::run)),
        ("idle", idle::run),
        ("downtimes", always!(downtimes::run)),
        ("checks", checks::run),
        ("results", results::run),
        ("keys", keys::run),
        ("history", history::run),
        ("backup", backup::run),
        ("retention", retention::run),
        ("reading", reading::run),
    ];
    let names: Vec<&str> = benches.iter().map(|(name, _)| *name).collect();
    if let Some(name) = wanted.as_deref().filter(|name| !names.contains(name)) {
        bail!("there is no benchmark {name:?}: one of {} is expected", names.join(", "));
    }
    for (name, run) in benches {
        if wanted.as_deref().is_none_or(|wanted| wanted == name) {
            println!("\n{name}");
            run()?;
        }
    }
    Ok(())
}

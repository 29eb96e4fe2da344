//! Prints the figures of docs/performance.md. `cargo run --release -p fleetgate-tests --bin bench`
//! for all of them, with a name for one.

use anyhow::bail;
use fleetgate_tests::bench::{Counting, checks, cipher, handshake, idle, memory, peers};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> anyhow::Result<()> {
    let wanted = std::env::args().nth(1);
    let benches: [(&str, fn() -> anyhow::Result<()>); 6] = [
        ("handshake", || Ok(handshake::run())),
        ("cipher", || Ok(cipher::run())),
        ("memory", || Ok(memory::run())),
        ("peers", || Ok(peers::run())),
        ("idle", idle::run),
        ("checks", checks::run),
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

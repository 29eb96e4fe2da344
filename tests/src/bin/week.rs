//! The whole week of `fleetgate_tests::week`: `bash tests/run week`, or with other figures: `cargo
//! run --release -p fleetgate-tests --bin week -- HOSTS HOURS SEED`.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use fleetgate_tests::week::{Size, live};

const HOSTS: u64 = 10_000;
const HOURS: u64 = 7 * 24;

fn main() -> anyhow::Result<()> {
    let given: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse().with_context(|| format!("{text:?} is no number")))
        .collect::<anyhow::Result<_>>()?;
    let or = |at: usize, usual: u64| given.get(at).copied().unwrap_or(usual);
    let size = Size { hosts: usize::try_from(or(0, HOSTS))?, hours: u32::try_from(or(1, HOURS))? };
    let seed = or(2, 1);
    println!("seed {seed}: {} hosts, {} hours", size.hosts, size.hours);
    let begin = Instant::now();
    let report = live(seed, size);
    println!("{report:#?}");
    println!("engine and model agreed on every state and every message, after {:?}", begin.elapsed());
    ensure!(report.restarts > 0 && !report.messages.is_empty(), "hardly anything happened");
    Ok(())
}

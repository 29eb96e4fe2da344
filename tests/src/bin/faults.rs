//! The whole matrix of `fleetgate_tests::faults`: `bash tests/run faults`, or a part of it: `bash
//! tests/run faults [--at-once N] [--short] [WORDS OF A NAME ...]`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use fleetgate_tests::faults::cells::{Cell, all};
use fleetgate_tests::faults::{Outcome, run_all, table};

/// Cells at a time. They mostly wait.
const AT_ONCE: usize = 6;

struct FaultArgs {
    at_once: usize,
    short: bool,
    names: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let wanted = wanted(std::env::args().skip(1))?;
    let cells: Vec<Cell> = all().into_iter().filter(|cell| wanted.has(cell)).collect();
    if cells.is_empty() {
        bail!("no cell has such a name");
    }
    println!("{} cells, {} at once", cells.len(), wanted.at_once);
    let outcomes = run_all(&cells, wanted.at_once);
    println!("\n{}", table(&outcomes));
    Ok(if outcomes.iter().all(Outcome::is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wanted(mut args: impl Iterator<Item = String>) -> anyhow::Result<FaultArgs> {
    let mut wanted = FaultArgs { at_once: AT_ONCE, short: false, names: Vec::new() };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--at-once" => {
                let number = args.next().context("--at-once wants a number")?;
                wanted.at_once = number.parse().with_context(|| format!("{number:?} is no number"))?;
            }
            "--short" => wanted.short = true,
            _ => wanted.names.push(arg),
        }
    }
    Ok(wanted)
}

impl FaultArgs {
    fn has(&self, cell: &Cell) -> bool {
        let named =
            self.names.is_empty() || self.names.iter().any(|words| cell.name.contains(words.as_str()));
        named && (cell.short || !self.short)
    }
}

//! The simulation of `bash tests/run week` with fewer hosts and days, for every test run.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed.

use std::collections::BTreeMap;

use fleetgate_tests::dice::seeds;
use fleetgate_tests::week::{Size, live};

const SIZE: Size = Size { hosts: 200, hours: 96 };

#[test]
fn engine_and_model_agree_on_a_fleet_over_days() {
    let mut messages: BTreeMap<String, u64> = BTreeMap::new();
    for seed in seeds() {
        let report = live(seed, SIZE);
        println!("seed {seed}: {report:?}");
        assert!(report.restarts > 0 && report.clock_steps > 0);
        assert!(report.asleep > 0 && report.unreachable > 0);
        report.messages.into_iter().for_each(|(kind, n)| *messages.entry(kind).or_default() += n);
    }
    println!("messages: {messages:?}");
    let kinds = ["problem", "recovery", "flapping_start", "flapping_end", "gateway"];
    // A single seed may lack a kind.
    if seeds().len() > 1 {
        kinds.iter().for_each(|kind| assert!(messages.contains_key(*kind), "{kind} must have happened"));
    }
}

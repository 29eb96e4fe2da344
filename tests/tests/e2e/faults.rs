//! A part of the fault matrix (`bash tests/run faults` runs all of it): the gateway's reports on
//! real devices at each moment, during one or two faults.

use fleetgate_tests::faults::cells::{Cell, all};
use fleetgate_tests::faults::{Outcome, run_all, table};

/// Cells at a time. They mostly wait, so that the whole part takes two rounds.
const AT_ONCE: usize = 8;

#[test]
fn at_each_moment_of_a_fault_only_what_is_true_is_said() {
    let cells: Vec<Cell> = all().into_iter().filter(|cell| cell.short).collect();
    let outcomes = run_all(&cells, AT_ONCE);
    assert!(outcomes.iter().all(Outcome::is_right), "\n{}", table(&outcomes));
}

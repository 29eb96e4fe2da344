//! The history, killed with SIGKILL at the calls by which it changes files: while samples are taken and sealed, days
//! rolled up, periods merged, old blocks removed, and an older history converted.
//!
//! A process lives a part of a story, with the parts of the program that a gateway runs. After the kill, the folder is
//! opened again and kept up until nothing is left to do. Samples and graphs must be those that a naive model makes of
//! what was acknowledged. A commit that was not acknowledged may be there as a whole, or not at all.
//!
//! The kills are some of all calls, by `FLEETGATE_SIM_SEED`, and the first and the last of each kind.
//! `FLEETGATE_KILLS=all` kills at every call, which takes minutes.

mod model;
mod older;
mod process;
mod reading;
mod story;

use std::path::Path;

use anyhow::bail;
use fleetgate_tests::dice::{Dice, seeds_to};
use older::Older;
use process::{Kill, Killer, copied};

/// A process that is killed again and again is killed after so many calls at most. A start makes some hundred after a
/// kill.
const CALLS: u64 = 250;

fn block_on<T>(life: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(life)
}

async fn live(task: &str, data: &Path) -> anyhow::Result<()> {
    match task.split(' ').collect::<Vec<_>>()[..] {
        [older::TASK] => older::live(data).await,
        ["acts", first, end] => story::live(data, first.parse()?..end.parse()?).await,
        _ => bail!("{task:?} is no task"),
    }
}

#[test]
#[ignore = "the other tests start it as a process, and kill it"]
fn the_process_that_is_killed() {
    let (Ok(task), Some(data)) = (std::env::var(process::TASK), std::env::var_os(process::DATA)) else {
        return;
    };
    block_on(live(&task, Path::new(&data))).expect("a life");
    println!("\n{}", process::LIVED);
}

#[test]
fn a_kill_while_samples_are_taken_and_sealed_loses_none_that_were_acknowledged() {
    story::SEALED.is_survived();
}

#[test]
fn a_kill_while_days_are_rolled_up_loses_nothing() {
    story::ROLLED_UP.is_survived();
}

#[test]
fn a_kill_while_periods_are_merged_loses_nothing() {
    story::MERGED.is_survived();
}

#[test]
fn a_kill_while_old_blocks_are_removed_loses_nothing_that_is_kept() {
    story::REMOVED.is_survived();
}

#[test]
fn a_kill_while_an_older_history_is_converted_loses_nothing() {
    Older { samples: 46_860, was_killed: false }.is_survived();
}

#[test]
fn the_history_of_an_older_gateway_that_was_killed_is_moved_and_converted_whatever_the_next_kill() {
    Older { samples: 600, was_killed: true }.is_survived();
}

#[test]
fn a_gateway_that_is_killed_again_and_again_has_the_history_of_one_that_never_was() {
    let (killer, mut dice) = (Killer::new(), Dice(seeds_to(1)[0]));
    let all = story::ALL;
    let models = all.models();
    let data = block_on(story::prepared(0)).expect("a history");
    let (mut next, mut kills) = (0, 0);
    while next < all.acts.end {
        let task = story::Part { acts: next..all.acts.end, until: all.until }.task();
        let kill = Kill { at: 1 + dice.roll(CALLS) as usize, is_torn: dice.one_in(2) };
        let ended = killer.run(&task, data.path(), kill);
        next = story::next_act(&ended.said).unwrap_or(next);
        kills += usize::from(ended.was_killed);
        // The last act removes most of it: what a kill before that has lost would not be seen at the end.
        if next < all.acts.end - 1 {
            let copy = copied(data.path());
            let rest = story::Part { acts: next..all.acts.end, until: story::OVER };
            block_on(rest.check(&models, copy.path(), next)).expect("what was acknowledged");
        }
        assert!(kills < 200, "it does not get beyond act {next}");
    }
    println!("{kills} kills");
    assert!(kills > 3, "only {kills} kills");
    let end = story::Part { acts: next..next, until: all.until };
    block_on(end.check(&models, data.path(), next)).expect("the same history");
}

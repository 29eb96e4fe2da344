//! Extends the corpus of a target by mutation: `bash tests/run fuzz TARGET SECONDS [SEED]`. Without a
//! target, all of them.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use fleetgate_tests::fuzz::{TARGETS, api, extend};

const USUAL: Duration = Duration::from_secs(60);

fn main() -> anyhow::Result<()> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| {
        given.get(at).map(|text| text.parse::<u64>().with_context(|| format!("{text:?} is no number")))
    };
    let time = number(1).transpose()?.map_or(USUAL, Duration::from_secs);
    let seed = number(2).transpose()?.unwrap_or(1);
    let wanted = given.first().map(String::as_str);
    let is_wanted = |name: &str| wanted.is_none_or(|wanted| wanted == name);
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).chain([api::NAME]).collect();
    ensure!(names.iter().any(|name| is_wanted(name)), "no target is called {wanted:?}: {}", names.join(", "));
    for target in TARGETS.iter().filter(|(name, _)| is_wanted(name)) {
        extend(target, time, seed)?;
    }
    if is_wanted(api::NAME) {
        tokio::runtime::Runtime::new()?.block_on(api::extend(time, seed))?;
    }
    Ok(())
}

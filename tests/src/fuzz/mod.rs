//! Hostile inputs by mutation. `bash tests/run fuzz TARGET SECONDS` extends the corpus in
//! `tests/corpus`; the simulations replay it.
//!
//! An input is kept when its outcome is of a kind that no earlier input had. An input that panics is
//! kept as well, before the process ends, so that the next replay fails with its name.

pub mod api;
mod mutate;
mod targets;

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::dice::Dice;
pub use targets::{TARGETS, Target};

/// The longest input: a datagram or output of this size has every structure that longer ones have.
pub const LONGEST: usize = 4_096;

/// Returns the directory of a target's corpus.
pub fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// Reads a corpus, in the order of its names.
///
/// # Errors
/// Fails when it cannot be read.
pub fn read(target: &str) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let dir = corpus(target);
    let entries = fs::read_dir(&dir).with_context(|| format!("no corpus in {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter().map(|path| Ok((path.clone(), fs::read(path)?))).collect()
}

/// Runs every input of a corpus.
///
/// # Panics
/// Panics with the input's name when the target panics.
pub fn replay((name, run): &Target) -> usize {
    let inputs = read(name).expect("a corpus");
    for (path, input) in &inputs {
        let outcome = catch_unwind(|| run(input));
        assert!(outcome.is_ok(), "{name}: {} panics", path.display());
    }
    inputs.len()
}

/// The most words of an outcome that tell its kind.
const WORDS: usize = 24;

/// The kind of an outcome: its names of variants and fields, each once, without the content that an input chooses. Such
/// content is numbers, texts in quotes, and the short words of addresses in hexadecimal.
fn kind(outcome: &str) -> String {
    let outcome = outcome.replace("\\\"", "");
    let outside = outcome.split('"').step_by(2);
    let words = outside.flat_map(|text| text.split(|c: char| !c.is_alphabetic()));
    let is_name = |word: &&str| word.len() > 4 || word.starts_with(char::is_uppercase);
    let mut names: Vec<&str> = Vec::new();
    for word in words.filter(is_name) {
        if names.len() < WORDS && !names.contains(&word) {
            names.push(word);
        }
    }
    names.join(" ")
}

/// Mutates inputs for this long, and writes those with a new kind of outcome to the corpus.
///
/// # Errors
/// Fails when the corpus cannot be written, or with the input that panics.
pub fn extend((name, run): &Target, time: Duration, seed: u64) -> anyhow::Result<()> {
    let mut dice = Dice(seed);
    let mut pool: Vec<Vec<u8>> = read(name)?.into_iter().map(|(_, input)| input).collect();
    let mut kinds: HashSet<String> = pool.iter().map(|input| kind(&run(input))).collect();
    let (begin, mut count, known) = (Instant::now(), 0u64, pool.len());
    while begin.elapsed() < time {
        let input = mutate::next(&pool, &mut dice);
        count += 1;
        match catch_unwind(AssertUnwindSafe(|| run(&input))) {
            Ok(outcome) if kinds.insert(kind(&outcome)) => {
                keep(name, &input)?;
                pool.push(input);
            }
            Ok(_) => {}
            Err(_) => {
                let path = keep(name, &input)?;
                bail!("{name}: {} panics after {count} inputs, seed {seed}", path.display());
            }
        }
    }
    println!("{name}: {count} inputs, {} kinds of outcomes, {} new", kinds.len(), pool.len() - known);
    Ok(())
}

/// Writes an input under the name of its digest.
///
/// # Errors
/// Fails when the file cannot be written.
pub fn keep(target: &str, input: &[u8]) -> anyhow::Result<PathBuf> {
    use blake2::Digest as _;
    let digest = blake2::Blake2s256::digest(input);
    let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let path = corpus(target).join(name);
    fs::write(&path, input).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn inputs_that_differ_in_their_content_have_one_kind() {
        let of = |text: &str, number: u8, address: &str| {
            kind(&format!("Ok Packet {{ from: {address}, length: {number}, text: {text:?} }} [{number}, 7]"))
        };
        let one = of("disk full", 7, "fd00::beef");
        assert_eq!(one, "Ok Packet length");
        assert_eq!(of("a \"quote\" and Words", 250, "fe80::dead:1"), one);
        assert_ne!(kind("Err TooShort"), one);
    }
}

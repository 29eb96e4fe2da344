//! Bodies of API requests: the document's examples, mutated. Each gets an answer below 500.

use std::time::{Duration, Instant};

use anyhow::ensure;
use reqwest::Method;
use serde_json::Value;

use super::{keep, mutate, read};
use crate::bench::program::Program;
use crate::dice::Dice;

pub const NAME: &str = "api";
/// They replace the program's data, or write large files.
const LEFT_OUT: [&str; 2] = ["/restore", "/backups"];

/// `METHOD PATH`, a line break, and the body.
struct Call {
    method: Method,
    path: String,
    body: Vec<u8>,
}

impl Call {
    fn parse(input: &[u8]) -> Option<Call> {
        let end = input.iter().position(|byte| *byte == b'\n')?;
        let (method, path) = std::str::from_utf8(&input[..end]).ok()?.split_once(' ')?;
        let method = method.parse().ok()?;
        Some(Call { method, path: path.to_owned(), body: input[end + 1..].to_vec() })
    }
}

/// Returns each request body of the document's examples, and the corpus.
fn seeds() -> anyhow::Result<Vec<Vec<u8>>> {
    let document = fleetgate::api::openapi();
    let mut found: Vec<Vec<u8>> = read(NAME)?.into_iter().map(|(_, input)| input).collect();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        if LEFT_OUT.iter().any(|part| path.contains(part)) {
            continue;
        }
        let path = path.trim_start_matches("/api/v1");
        let path: Vec<&str> =
            path.split('/').map(|part| if part.starts_with('{') { "cam-1" } else { part }).collect();
        for (method, operation) in item.as_object().into_iter().flatten() {
            let body = &operation["requestBody"]["content"]["application/json"];
            let examples = body["examples"].as_object().into_iter().flatten().map(|(_, e)| &e["value"]);
            for example in examples.chain([&body["example"]]).filter(|example| !example.is_null()) {
                let line = format!("{} {}\n{example}", method.to_uppercase(), path.join("/"));
                found.push(line.into_bytes());
            }
        }
    }
    Ok(found)
}

async fn send(program: &Program, input: &[u8]) -> anyhow::Result<Option<(u16, Value)>> {
    let Some(call) = Call::parse(input) else { return Ok(None) };
    let (status, body) = program.send(call.method, &call.path, call.body).await?;
    let refused_for_now = matches!(status, 503 | 507);
    ensure!(status < 500 || refused_for_now, "{status} for {:?}: {body}", String::from_utf8_lossy(input));
    Ok(Some((status, body)))
}

/// Sends every example and the corpus.
///
/// # Errors
/// Fails with the input that got an answer of 500 or above.
pub async fn replay() -> anyhow::Result<usize> {
    let program = Program::start().await?;
    let seeds = seeds()?;
    for input in &seeds {
        send(&program, input).await?;
    }
    program.stop().await;
    Ok(seeds.len())
}

/// Mutates bodies for this long, and writes one that fails to the corpus.
///
/// # Errors
/// Fails with the input that got an answer of 500 or above.
pub async fn extend(time: Duration, seed: u64) -> anyhow::Result<()> {
    let program = Program::start().await?;
    let (pool, mut dice, begin) = (seeds()?, Dice(seed), Instant::now());
    let (mut sent, mut taken) = (0u64, 0u64);
    while begin.elapsed() < time {
        let mut input = mutate::next(&pool, &mut dice);
        // Half of them keep the call of an example, so that the body is what is read.
        if dice.one_in(2) {
            let first = pool[usize::try_from(dice.roll(pool.len() as u64))?].split(|b| *b == b'\n').next();
            input = [first.unwrap_or_default(), b"\n", &input].concat();
        }
        match send(&program, &input).await {
            Ok(None) => {}
            Ok(Some((status, _))) => {
                sent += 1;
                taken += u64::from(status < 300);
            }
            Err(why) => {
                let path = keep(NAME, &input)?;
                return Err(why.context(format!("kept as {}, seed {seed}", path.display())));
            }
        }
    }
    println!("{NAME}: {sent} calls, {taken} taken, none failed");
    program.stop().await;
    Ok(())
}

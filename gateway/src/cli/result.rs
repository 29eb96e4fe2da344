//! `fleetgate result`: sends the state of a host or service, as a plugin would.

use std::io::Read as _;

use clap::Args;
use fleetgate_probes::plugin::MAX_OUTPUT;
use serde_json::json;

use super::client::{Client, path_of};
use super::device::{present, said};
use super::table;
use super::token::when;
use crate::api::results::Submitted;
use crate::cli::out;

#[derive(Args)]
pub(crate) struct ResultArgs {
    /// A host (cam-07), or a service of it (nas/backup)
    object: String,
    /// ok, warning, critical, unknown, or 0 to 3; for a host also up and down
    #[arg(value_parser = exit_status)]
    status: u32,
    /// Output in plugin format, with metrics after a |; - reads standard input
    output: Vec<String>,
    /// Time of the result: RFC 3339, or how long ago, such as 10m [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Key that makes repetition safe: a result with the same key and --at counts once
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

fn exit_status(word: &str) -> Result<u32, String> {
    match word {
        "0" | "ok" | "up" => Ok(0),
        "1" | "warning" => Ok(1),
        "2" | "critical" | "down" => Ok(2),
        "3" | "unknown" => Ok(3),
        _ => Err("ok, warning, critical, unknown, up, down, or 0 to 3 is expected".to_owned()),
    }
}

pub(crate) async fn run(client: &Client, args: ResultArgs) -> anyhow::Result<()> {
    let at = args.at.as_deref().map(|text| when("--at", text, table::now())).transpose()?;
    let at = at.map(|at| at.to_string());
    let output = output(&args.output)?;
    let body = present(json!({ "exit_status": args.status, "output": output, "timestamp": at }));
    let path = format!("{}/results", path_of(&args.object, None));
    let answer: Submitted = match &args.key {
        Some(key) => client.post_once(&path, &body, key).await?,
        None => client.post(&path, &body).await?,
    };
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&answer)?);
        return Ok(());
    }
    said(client, &format!("{}: {}", args.object, outcome(&answer)))
}

/// Reads the output up to the gateway's limit. One more byte shows that there was more.
fn output(words: &[String]) -> anyhow::Result<String> {
    if words != ["-"] {
        return Ok(words.join(" "));
    }
    let mut bytes = Vec::new();
    std::io::stdin().take(MAX_OUTPUT as u64 + 1).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn outcome(answer: &Submitted) -> String {
    if answer.ignored.is_some() {
        return "ignored; a newer result exists".to_owned();
    }
    if answer.repeated {
        return format!("repeated, nothing changed: {}", state(answer));
    }
    state(answer)
}

fn state(answer: &Submitted) -> String {
    let service = answer.service.as_ref().map(|s| (&s.last_result, &s.state_type, s.attempt, s.max_attempts));
    let host = answer.host.as_ref().map(|h| &h.state);
    let host = host.map(|s| (&s.last_result, &s.state_type, s.attempt, s.max_attempts));
    match service.or(host) {
        Some((state, kind, attempt, most)) if kind == "soft" => {
            format!("{state}, attempt {attempt} of {most}")
        }
        Some((state, ..)) => state.clone(),
        None => "accepted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_word_or_an_exit_code() {
        let codes = ["ok", "1", "down", "unknown"].map(exit_status);
        assert_eq!(codes, [Ok(0), Ok(1), Ok(2), Ok(3)]);
        assert!(exit_status("4").is_err() && exit_status("bad").is_err());
    }

    #[test]
    fn a_repetition_is_called_one() {
        let answer = Submitted { repeated: true, ..Submitted::default() };
        assert_eq!(outcome(&answer), "repeated, nothing changed: accepted");
    }
}

//! How a command says that it failed: in words, or with `--json` as a problem document, on stderr; and
//! the exit codes for it.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::Refused;
use super::{status, table};

const FAILED: u8 = 1;
/// What the command line's parser exits with everywhere.
const USAGE: u8 = 2;

/// What a command could not do.
pub(super) fn failed(error: &anyhow::Error, json: bool, is_status: bool) -> ExitCode {
    if json {
        anstream::eprintln!("{}", document(error));
    } else {
        anstream::eprintln!("fleetgate: {}", table::safe(&format!("{error:#}")));
    }
    ExitCode::from(if is_status { status::UNKNOWN } else { FAILED })
}

/// The gateway's own document, or one of ours.
fn document(error: &anyhow::Error) -> Value {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refused.document.clone(),
        None => problem("failed", "Failed", &format!("{error:#}")),
    }
}

fn problem(code: &str, title: &str, detail: &str) -> Value {
    let kind = format!("urn:fleetgate:problem:{code}");
    json!({ "type": kind, "title": title, "code": code, "detail": detail })
}

/// A command line that is none, or asks for help. `command`: how it should be.
pub(super) fn usage(error: &clap::Error, command: &mut clap::Command) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if error.use_stderr() && arguments.iter().any(|a| a == "--json") {
        anstream::eprintln!("{}", problem("usage", "Wrong usage", error.render().to_string().trim()));
    } else {
        // Nothing is left to say where even this cannot be printed.
        let _ = error.print();
    }
    match error.use_stderr() {
        true => ExitCode::from(usage_code(arguments, command)),
        false => ExitCode::SUCCESS,
    }
}

/// To a monitoring system 2 would say that the fleet is in a critical state.
fn usage_code(arguments: Vec<OsString>, command: &mut clap::Command) -> u8 {
    // Behind an option that there is not the parser sees no command: it is the first word then.
    let word = arguments.iter().skip(1).find(|a| !a.as_encoded_bytes().starts_with(b"-"));
    let first_is_status = word.is_some_and(|word| word == "status");
    let lenient = command.clone().ignore_errors(true).try_get_matches_from(arguments);
    match lenient.ok().as_ref().and_then(|matches| matches.subcommand_name()) {
        Some("status") => status::UNKNOWN,
        None if first_is_status => status::UNKNOWN,
        _ => USAGE,
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::super::Cli;
    use super::*;

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn code(line: &str) -> u8 {
        assert!(Cli::try_parse_from(arguments(line)).is_err(), "{line}");
        usage_code(arguments(line), &mut Cli::command())
    }

    #[test]
    fn a_wrong_status_command_is_unknown_and_not_critical() {
        for line in [
            "fleetgate status --bogus",
            "fleetgate --data /x status extra",
            "fleetgate --url gw.example status",
            "fleetgate --bogus status",
            "fleetgate status --url gw.example:8080 --json",
        ] {
            assert_eq!(code(line), status::UNKNOWN, "{line}");
        }
        for line in ["fleetgate device add status --bogus", "fleetgate bogus", "fleetgate device show"] {
            assert_eq!(code(line), USAGE, "{line}");
        }
    }

    #[test]
    fn an_address_without_a_scheme_is_told_what_to_write() {
        for wrong in ["gw.example", "gw.example:8080", "ftp://gw.example", "https://", "http://:80"] {
            let error = Cli::try_parse_from(["fleetgate", "--url", wrong, "status"]).err().unwrap();
            assert!(error.to_string().contains("https://fleet.example.com"), "{wrong}: {error}");
        }
        assert!(Cli::try_parse_from(["fleetgate", "--url", "http://[::1]:8080", "status"]).is_ok());
    }

    #[test]
    fn errors_for_programs_are_problem_documents() {
        let refused = Refused { document: json!({ "code": "not_found", "detail": "no device" }) };
        assert_eq!(refused.to_string(), "no device");
        assert_eq!(document(&refused.into())["code"], "not_found");
        let other = anyhow::anyhow!("refused").context("no gateway answers");
        let shown = document(&other);
        assert_eq!(
            (&shown["code"], &shown["detail"]),
            (&json!("failed"), &json!("no gateway answers: refused"))
        );
    }
}

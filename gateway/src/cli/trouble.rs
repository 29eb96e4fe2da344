//! Reports a failed command on stderr, in words or with `--json` as a problem document, and chooses
//! the exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::Refused;
use super::{status, table};

const FAILED: u8 = 1;
/// The exit code of the command line's parser.
const USAGE: u8 = 2;

/// Reports a failure of a command.
pub(super) fn failed(error: &anyhow::Error, json: bool, is_status: bool) -> ExitCode {
    if json {
        anstream::eprintln!("{}", document(error));
    } else {
        let text = format!("{error:#}");
        let names = error.downcast_ref::<Refused>().and_then(|_| list_of_names(&text));
        let advice = names.map(|list| format!(": see `fleetgate {list} list`")).unwrap_or_default();
        anstream::eprintln!("fleetgate: {}{advice}", table::safe(&text));
    }
    ExitCode::from(if is_status { status::UNKNOWN } else { FAILED })
}

/// Objects with a name or an id, and the command whose `list` shows them.
const LISTS: [(&str, &str); 17] = [
    ("host or device", "host"),
    ("booking", "booking"),
    ("customer", "customer"),
    ("message", "message"),
    ("person", "customer person"),
    ("rental", "rental"),
    ("renter", "renter"),
    ("subscription", "subscription"),
    ("token", "token"),
    ("enrolment", "enrolment"),
    ("user", "user"),
    ("downtime", "downtime"),
    ("contact", "contact"),
    ("rule", "rule"),
    ("incident", "incident"),
    ("operator", "operator"),
    ("grant", "grant"),
];

/// Returns the command with the names that exist, for an error that ends in an unknown one.
fn list_of_names(text: &str) -> Option<&'static str> {
    let (before, name) = text.rsplit_once(" is called ")?;
    let is_last = name.len() > 1 && name.starts_with('"') && name.ends_with('"');
    let ends_in = |noun: &str| before.strip_suffix(noun).is_some_and(|rest| rest.ends_with("no "));
    LISTS.into_iter().find(|(noun, _)| is_last && ends_in(noun)).map(|(_, list)| list)
}

/// Returns the gateway's document, or one for a local error.
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

/// Reports a wrong command line or prints the requested help. `command`: the definition.
pub(super) fn usage(error: &clap::Error, command: &mut clap::Command) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if error.use_stderr() && arguments.iter().any(|a| a == "--json") {
        anstream::eprintln!("{}", problem("usage", "Wrong usage", error.render().to_string().trim()));
    } else {
        // If even this cannot be printed, there is no other way to report it.
        let _ = error.print();
        let is_unknown = error.kind() == clap::error::ErrorKind::InvalidSubcommand;
        if let Some(tip) = tip(&arguments).filter(|_| is_unknown) {
            anstream::eprintln!("\n  tip: {tip}");
        }
    }
    match error.use_stderr() {
        true => ExitCode::from(usage_code(arguments, command)),
        false => ExitCode::SUCCESS,
    }
}

/// Returns what to write for `check HOST`, where a subcommand is expected.
fn tip(arguments: &[OsString]) -> Option<String> {
    let words: Vec<&str> = arguments.iter().skip(1).filter_map(|a| a.to_str()).collect();
    let at = words.iter().position(|word| *word == "check")?;
    let object = words[at + 1..].iter().find(|word| !word.starts_with('-'))?;
    let is_name = object.split('/').all(|part| crate::names::Name::parse(part).is_ok());
    let is_command = matches!(*object, "now" | "help");
    (is_name && !is_command).then(|| format!("to check a host now: fleetgate check now {object}"))
}

/// Returns the exit code for wrong usage. For a monitoring system, 2 would mean that the fleet is
/// critical.
fn usage_code(arguments: Vec<OsString>, command: &mut clap::Command) -> u8 {
    // After an unknown option the parser finds no command. The first word is the command then.
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
    fn a_host_in_place_of_a_subcommand_gets_a_tip() {
        let tip = |line: &str| tip(&arguments(line));
        assert_eq!(
            tip("fleetgate check lab-1").as_deref(),
            Some("to check a host now: fleetgate check now lab-1")
        );
        assert!(tip("fleetgate --data /x check lab-1/ping").is_some_and(|t| t.ends_with("lab-1/ping")));
        for other in
            ["fleetgate check", "fleetgate check now --bogus", "fleetgate check --help", "fleetgate x"]
        {
            assert_eq!(tip(other), None, "{other}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_where_the_names_are() {
        let list = |text: &str| list_of_names(text);
        assert_eq!(list("no host or device is called \"cam1\""), Some("host"));
        assert_eq!(list("source.user: no user is called \"ana\""), Some("user"));
        assert_eq!(list("no incident is called \"i_1\""), Some("incident"));
        assert_eq!(list("--person: no person is called \"y_1\""), Some("customer person"));
        for other in
            ["no profile is called \"x\"; there are: nas", "no host is called \"", "is called \"x\"", ""]
        {
            assert_eq!(list(other), None, "{other}");
        }
        for (_, command) in LISTS {
            let words = ["fleetgate"].into_iter().chain(command.split(' ')).chain(["list"]);
            assert!(Cli::try_parse_from(words).is_ok(), "{command}");
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
        let refused = Refused::new(json!({ "code": "not_found", "detail": "no device" }));
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

//! The commands that run on devices for renters, and what their output means. Pure.

use std::time::Duration;

use fleetgate_engine::messages::{CommandEnd, CommandReply};
use fleetgate_engine::rental::device_access::{Access, Action, Mode};

use crate::identity::ssh_ca;
use crate::ids::IdKind;
use crate::sanitize::harmless;

/// The program that `enrol.sh` installs on a device, and all that the account of the gateway runs as root there.
const HELPER: &str = "/usr/local/lib/fleetgate/rental-access";
/// How each line of its output begins.
const MARK: &str = "fleetgate-rental 2 ";
/// The same, with any version.
const ANY_MARK: &str = "fleetgate-rental ";
/// It waits for processes to end for 20 s, and for another call for 30 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(75);
/// A cleaning command may wipe a disk. It is ended then, and has failed.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(600);
/// Keys and marks of keys that the helper takes.
const MOST_KEYS: usize = 64;
const MOST_MARKS: usize = 256;
/// Characters of a reason that are shown.
const MAX_REASON: usize = 200;

/// A command for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub line: String,
    pub timeout: Duration,
}

/// Returns the call of an action. `None`: nothing is run on the device.
pub(super) fn call(
    action: &Action,
    (account, cleaning_command): (Option<&str>, Option<&str>),
) -> Option<Call> {
    let line = match action {
        Action::Ask => as_root("status </dev/null"),
        Action::Revoke(_) => as_root("revoke </dev/null"),
        Action::Grant(access) => grant(access, account.unwrap_or_default()),
        Action::Clean(_) => {
            return cleaning_command.map(|line| Call { line: line.to_owned(), timeout: CLEANING_TIMEOUT });
        }
        Action::Use(_) => return None,
    };
    Some(Call { line, timeout: CALL_TIMEOUT })
}

/// Runs the helper as root: root itself needs nothing for that, other accounts the one of `sudo` and `doas` that permits
/// it. Without `doas`, `sudo` says why it does not.
fn as_root(arguments: &str) -> String {
    format!(
        "h={HELPER};r=;[ \"$(id -u)\" = 0 ]||{{ r='sudo -n';sudo -n -l $h status </dev/null >/dev/null 2>&1||\
         {{ command -v doas >/dev/null 2>&1&&r='doas -n';}};}};$r $h {arguments}"
    )
}

/// Returns why the helper would not take these keys.
pub(super) fn too_many(action: &Action) -> Option<String> {
    let Action::Grant(access) = action else { return None };
    too_many_keys(access.keys.len(), access.mode)
}

/// Says why a device is not given so many keys.
pub fn too_many_keys(count: usize, mode: Mode) -> Option<String> {
    let most = match mode {
        Mode::Certificates => MOST_MARKS,
        Mode::Keys => MOST_KEYS,
    };
    (count > most).then(|| {
        format!(
            "the renters who are admitted have {count} SSH keys, and the device takes at most {most} ({}): admit \
             fewer renters, or remove keys",
            mode.name()
        )
    })
}

fn grant(access: &Access, account: &str) -> String {
    let until = access.until.as_millis() / 1_000;
    let verb =
        format!("grant {} {until} {} {account}", IdKind::Rental.text(access.rental), access.mode.name());
    let keys: String = access.keys.iter().filter_map(|key| given(key, access.mode)).collect();
    if keys.is_empty() {
        return as_root(&format!("{verb} </dev/null"));
    }
    format!("printf '%s\\n'{keys}|{{ {};}}", as_root(&verb))
}

fn given(key: &str, mode: Mode) -> Option<String> {
    match mode {
        Mode::Certificates => Some(format!(" {}", ssh_ca::mark(key))),
        // The API has only taken such keys. One that would end the quotes is left out.
        Mode::Keys => Some(format!(" '{key}'")).filter(|_| !key.contains(['\'', '\n'])),
    }
}

/// The finding of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The helper has said how renters log in.
    Account {
        mode: Mode,
        /// The id of the rental that it has let in, or `-`.
        has: String,
    },
    /// The device has no such account for renters, or no helper. Why, in words for operators.
    NoAccount(String),
}

/// Returns what came of an action, or why it failed, in words for operators.
pub(super) fn outcome(
    action: &Action,
    account: Option<&str>,
    reply: &CommandReply,
) -> Result<Outcome, String> {
    if let Action::Clean(_) = action {
        return cleaned(reply);
    }
    let stdout = String::from_utf8_lossy(&reply.stdout);
    let said = stdout.lines().rev().find_map(|line| line.strip_prefix(MARK));
    let Some(said) = said else { return no_helper(action, reply) };
    if let Some(status) = said.strip_prefix("status ")
        && matches!(action, Action::Ask | Action::Grant(_))
    {
        return asked(status, account);
    }
    if reply.end != CommandEnd::Exit(0) {
        let why = short(said.strip_prefix("error: ").unwrap_or(said));
        // It knows of no account that it could name.
        return if *action == Action::Ask { Ok(Outcome::NoAccount(why)) } else { Err(why) };
    }
    match action {
        Action::Grant(_) if said.starts_with("granted ") => Ok(Outcome::Done),
        Action::Revoke(_) if said == "revoked" => Ok(Outcome::Done),
        _ => Err(format!("the helper on the device answered {:?}", short(said))),
    }
}

/// Reads `account=U mode=M principal=R ...`. The helper says it to a question, and where it is not as a grant expects.
fn asked(said: &str, account: Option<&str>) -> Result<Outcome, String> {
    let value = |name: &str| {
        said.split(' ').find_map(|word| word.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
    };
    let has = value("account").unwrap_or_default();
    if Some(has) != account {
        let wanted = account.unwrap_or_default();
        return Ok(Outcome::NoAccount(format!(
            "the account of renters on the device is {has:?}, and {wanted:?} in its settings: run enrol.sh \
             with --rental-user {wanted} there, or set the other one"
        )));
    }
    let mode = value("mode").and_then(Mode::named).ok_or_else(other_version)?;
    Ok(Outcome::Account { mode, has: value("principal").unwrap_or_default().to_owned() })
}

fn other_version() -> String {
    "the helper on the device is of another version: run enrol.sh with --rental-user there again".to_owned()
}

/// A shell that has ended by itself has not found the helper, or may not run it.
fn no_helper(action: &Action, reply: &CommandReply) -> Result<Outcome, String> {
    let stdout = String::from_utf8_lossy(&reply.stdout);
    if stdout.lines().any(|line| line.starts_with(ANY_MARK)) {
        return Err(other_version());
    }
    let is_final =
        matches!(reply.end, CommandEnd::Exit(_)) && matches!(action, Action::Ask | Action::Grant(_));
    if is_final { Ok(Outcome::NoAccount(not_run(reply))) } else { Err(not_run(reply)) }
}

fn not_run(reply: &CommandReply) -> String {
    let stderr = String::from_utf8_lossy(&reply.stderr);
    let why = stderr.lines().rev().find(|line| !line.trim().is_empty()).map(short);
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    format!(
        "the helper on the device did not run ({}{why}): run enrol.sh with --rental-user there",
        ended(&reply.end)
    )
}

fn cleaned(reply: &CommandReply) -> Result<Outcome, String> {
    if reply.end == CommandEnd::Exit(0) {
        return Ok(Outcome::Done);
    }
    let output = [&reply.stderr, &reply.stdout].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let last = output.iter().find_map(|text| text.lines().rev().find(|line| !line.trim().is_empty()));
    let last = last.map(|line| format!(": {}", short(line))).unwrap_or_default();
    Err(format!("the cleaning command failed ({}){last}", ended(&reply.end)))
}

fn ended(end: &CommandEnd) -> String {
    match end {
        CommandEnd::Exit(status) => format!("exit status {status}"),
        CommandEnd::Signal(name) => format!("ended by the signal {}", short(name)),
        CommandEnd::Timeout => "it took too long".to_owned(),
        CommandEnd::Lost => "the connection ended".to_owned(),
    }
}

/// A text of a device, for people.
fn short(text: &str) -> String {
    harmless(text.trim()).chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::time::Wall;

    use super::*;

    fn reply(status: u32, stdout: &str, stderr: &str) -> CommandReply {
        CommandReply {
            name: "rental-access".to_owned(),
            end: CommandEnd::Exit(status),
            stdout: stdout.as_bytes().to_vec(),
            stderr: stderr.as_bytes().to_vec(),
            truncated: false,
            took: Duration::ZERO,
        }
    }

    fn access(keys: &[&str]) -> Access {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let until = Wall::from_millis(1_900_000_000_999);
        Access { rental: Id::from_i64(5), until, mode: Mode::Keys, keys }
    }

    const SUDO: (&str, &str) = ("sudo", "[ \"$2\" != -l ]||exit 0;shift;exec \"$@\"");

    /// Runs a line with a helper that prints its arguments and input.
    fn run(line: &str) -> String {
        run_with(&[SUDO], line)
    }

    fn run_with(programs: &[(&str, &str)], line: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("helper");
        for (name, body) in [&[("helper", "echo \"$*\";cat")][..], programs].concat() {
            let file = dir.path().join(name);
            std::fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let line = line.replace(HELPER, helper.to_str().unwrap());
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let done =
            std::process::Command::new("/bin/sh").arg("-c").arg(line).env("PATH", path).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    #[test]
    fn the_helper_gets_its_verb_and_the_keys() {
        let line = |action: Action| call(&action, (Some("renter"), None)).unwrap().line;
        assert_eq!(run(&line(Action::Ask)), "status\n");
        assert_eq!(run(&line(Action::Revoke(Id::from_i64(5)))), "revoke\n");
        let granted = format!("grant {} 1900000000 keys renter\n", IdKind::Rental.text(Id::from_i64(5)));
        assert_eq!(run(&line(Action::Grant(access(&[])))), granted);
        let keys = ["ssh-ed25519 AAAA+/=", "ssh-rsa BBBB", "x'; touch /tmp/x; '"];
        let given = run(&line(Action::Grant(access(&keys))));
        assert_eq!(given, format!("{granted}ssh-ed25519 AAAA+/=\nssh-rsa BBBB\n"));
        let certificates = Access { mode: Mode::Certificates, ..access(&keys) };
        let given = run(&line(Action::Grant(certificates)));
        let marks = keys.map(|key| format!("{}\n", ssh_ca::mark(key))).concat();
        assert_eq!(given, format!("{}{marks}", granted.replace(" keys ", " certificates ")));
    }

    #[test]
    fn the_helper_is_run_by_the_program_that_permits_it() {
        let line = call(&Action::Ask, (Some("renter"), None)).unwrap().line;
        let id = ("id", "echo 1000");
        let (no_sudo, no_doas) = (("sudo", "exit 1"), ("doas", "exit 1"));
        let doas = ("doas", "echo by doas;shift;exec \"$@\"");
        assert_eq!(run_with(&[id, SUDO, no_doas], &line), "status\n");
        assert_eq!(run_with(&[id, no_sudo, doas], &line), "by doas\nstatus\n");
        assert_eq!(run_with(&[("id", "echo 0"), no_sudo, no_doas], &line), "status\n");
    }

    #[test]
    fn more_keys_than_a_device_takes_are_named_and_not_left_out() {
        let grant =
            |mode, count| Action::Grant(Access { mode, keys: vec![String::new(); count], ..access(&[]) });
        for (mode, most) in [(Mode::Keys, MOST_KEYS), (Mode::Certificates, MOST_MARKS)] {
            assert_eq!(too_many(&grant(mode, most)), None);
            let why = too_many(&grant(mode, most + 1)).unwrap();
            assert!(why.contains(&format!("have {} SSH keys", most + 1)), "{why}");
            assert!(why.contains(&format!("at most {most}")), "{why}");
        }
        assert_eq!(too_many(&Action::Ask), None);
        let marks =
            Access { mode: Mode::Certificates, keys: vec!["k".to_owned(); MOST_MARKS], ..access(&[]) };
        let line = call(&Action::Grant(marks), (Some("renter"), None)).unwrap().line;
        assert!(fleetgate_probes::remote::run(&line, CALL_TIMEOUT).is_some(), "one line has room for all");
    }

    #[test]
    fn an_answer_of_the_helper_is_believed_and_nothing_else_is() {
        let (ask, revoke) = (Action::Ask, Action::Revoke(Id::from_i64(5)));
        let of = |action: &Action, status, stdout: &str, stderr: &str| {
            outcome(action, Some("renter"), &reply(status, stdout, stderr))
        };
        let grant = Action::Grant(access(&[]));
        let status = "fleetgate-rental 2 status account=renter mode=keys principal=l_5 until=- processes=0\n";
        let known = || Ok(Outcome::Account { mode: Mode::Keys, has: "l_5".to_owned() });
        assert_eq!((of(&ask, 0, status, ""), of(&grant, 1, status, "")), (known(), known()));
        let lost = |finding: Result<Outcome, String>| match finding {
            Ok(Outcome::NoAccount(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(lost(of(&grant, 1, &status.replace("=renter", "=other"), "")).contains("\"other\""));
        assert!(lost(of(&ask, 127, "", "sh: not found\n")).contains("not found"));
        let gone = "fleetgate-rental 2 error: there is no account renter any more\n";
        assert!(lost(of(&ask, 1, gone, "")).contains("no account renter"));
        assert!(of(&ask, 0, &status.replace(" 2 ", " 1 "), "").unwrap_err().contains("another version"));
        assert_eq!(of(&revoke, 0, "banner\nfleetgate-rental 2 revoked\n", ""), Ok(Outcome::Done));
        let left = of(&revoke, 1, "fleetgate-rental 2 left: processes 7\n", "").unwrap_err();
        assert_eq!(left, "left: processes 7");
        let error = of(&revoke, 1, "fleetgate-rental 2 error: the disk\u{1b} is full\n", "").unwrap_err();
        assert_eq!(error, "the disk\u{fffd} is full");
        let missing = of(&revoke, 1, "", "sudo: a password is required\n").unwrap_err();
        assert!(missing.contains("a password is required") && missing.contains("--rental-user"), "{missing}");
        assert!(of(&revoke, 0, "revoked\n", "").is_err() && of(&revoke, 0, status, "").is_err());
    }

    #[test]
    fn a_cleaning_command_has_succeeded_with_exit_status_0_alone() {
        let clean = Action::Clean(Id::from_i64(5));
        assert_eq!(call(&clean, (None, Some("wipe /data"))).unwrap().line, "wipe /data");
        assert_eq!(call(&clean, (None, None)), None);
        assert_eq!(outcome(&clean, None, &reply(0, "", "careful")), Ok(Outcome::Done));
        let failed = outcome(&clean, None, &reply(3, "", "busy\n\n")).unwrap_err();
        assert_eq!(failed, "the cleaning command failed (exit status 3): busy");
        let late = CommandReply { end: CommandEnd::Timeout, ..reply(0, "", "") };
        assert!(outcome(&clean, None, &late).unwrap_err().contains("too long"));
    }
}

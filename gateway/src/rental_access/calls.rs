//! The commands that run on devices for renters, and what their output means. Pure.

use std::time::Duration;

use fleetgate_engine::messages::{CommandEnd, CommandReply};
use fleetgate_engine::rental::device_access::{Access, Action, Mode};

use crate::ids::Kind;
use crate::sanitize::harmless;

/// The program that `enrol.sh` installs on a device, and all that the account of the gateway runs as root there.
const HELPER: &str = "/usr/local/lib/fleetgate/rental-access";
/// How each line of its output begins.
const MARK: &str = "fleetgate-rental 1 ";
/// It waits for processes to end for 20 s, and for another call for 30 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(75);
/// A cleaning command may wipe a disk. It is ended then, and has failed.
const CLEANING_TIMEOUT: Duration = Duration::from_secs(600);
/// Characters of a reason that are shown.
const MAX_REASON: usize = 200;

/// A command for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub line: String,
    pub timeout: Duration,
}

/// Returns the call of an action. `None`: nothing is run on the device.
pub(super) fn call(action: &Action, cleaning_command: Option<&str>) -> Option<Call> {
    let line = match action {
        Action::Ask => as_root("status </dev/null"),
        Action::Revoke(_) => as_root("revoke </dev/null"),
        Action::Grant(access) => grant(access),
        Action::Clean(_) => {
            return cleaning_command.map(|line| Call { line: line.to_owned(), timeout: CLEANING_TIMEOUT });
        }
        Action::Use(_) => return None,
    };
    Some(Call { line, timeout: CALL_TIMEOUT })
}

/// Runs the helper as root: root itself needs nothing for that, other accounts `sudo` or `doas`.
fn as_root(arguments: &str) -> String {
    format!(
        "h={HELPER};r=;[ \"$(id -u)\" = 0 ]||{{ command -v sudo >/dev/null 2>&1&&r='sudo -n'||r='doas -n';}};\
         $r $h {arguments}"
    )
}

fn grant(access: &Access) -> String {
    let until = access.until.as_millis() / 1_000;
    let verb = format!("grant {} {until}", Kind::Rental.text(access.rental));
    // The API has only taken such keys. One that would end the quotes is left out.
    let keys = access.keys.iter().filter(|key| !key.contains(['\'', '\n']));
    let keys: String = keys.map(|key| format!(" '{key}'")).collect();
    if keys.is_empty() {
        return as_root(&format!("{verb} </dev/null"));
    }
    format!("printf '%s\\n'{keys}|{{ {};}}", as_root(&verb))
}

/// The finding of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The helper has said how renters log in.
    Mode(Mode),
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
    let Some(said) = said else { return Err(no_helper(reply)) };
    if reply.end != CommandEnd::Exit(0) {
        let why = said.strip_prefix("error: ").unwrap_or(said);
        return Err(short(why));
    }
    match action {
        Action::Ask => asked(said, account).map(Outcome::Mode),
        Action::Grant(_) if said.starts_with("granted ") => Ok(Outcome::Done),
        Action::Revoke(_) if said == "revoked" => Ok(Outcome::Done),
        _ => Err(format!("the helper on the device answered {:?}", short(said))),
    }
}

/// Reads `status account=U mode=M ...`.
fn asked(said: &str, account: Option<&str>) -> Result<Mode, String> {
    let value = |name: &str| {
        said.split(' ').find_map(|word| word.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
    };
    let has = value("account").unwrap_or_default();
    if Some(has) != account {
        let wanted = account.unwrap_or_default();
        return Err(format!(
            "the account of renters on the device is {has:?}, and {wanted:?} in its settings: run enrol.sh \
             with --rental-user {wanted} there, or set the other one"
        ));
    }
    let mode = value("mode").and_then(Mode::named);
    mode.ok_or_else(|| "the helper on the device is of another version: run enrol.sh there again".to_owned())
}

fn no_helper(reply: &CommandReply) -> String {
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
        Access { rental: Id::from_i64(5), until: Wall::from_millis(1_900_000_000_999), keys }
    }

    /// Runs a line with a helper that prints its arguments and input.
    fn run(line: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let helper = dir.path().join("helper");
        std::fs::write(&helper, "#!/bin/sh\necho \"$*\"\ncat\n").unwrap();
        std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let sudo = dir.path().join("sudo");
        std::fs::write(&sudo, "#!/bin/sh\nshift\nexec \"$@\"\n").unwrap();
        std::fs::set_permissions(&sudo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let line = line.replace(HELPER, helper.to_str().unwrap());
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let done =
            std::process::Command::new("/bin/sh").arg("-c").arg(line).env("PATH", path).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    #[test]
    fn the_helper_gets_its_verb_and_the_keys() {
        let line = |action: Action| call(&action, None).unwrap().line;
        assert_eq!(run(&line(Action::Ask)), "status\n");
        assert_eq!(run(&line(Action::Revoke(Id::from_i64(5)))), "revoke\n");
        let granted = format!("grant {} 1900000000\n", Kind::Rental.text(Id::from_i64(5)));
        assert_eq!(run(&line(Action::Grant(access(&[])))), granted);
        let keys = ["ssh-ed25519 AAAA+/=", "ssh-rsa BBBB", "x'; touch /tmp/x; '"];
        let given = run(&line(Action::Grant(access(&keys))));
        assert_eq!(given, format!("{granted}ssh-ed25519 AAAA+/=\nssh-rsa BBBB\n"));
    }

    #[test]
    fn an_answer_of_the_helper_is_believed_and_nothing_else_is() {
        let (ask, revoke) = (Action::Ask, Action::Revoke(Id::from_i64(5)));
        let of = |action: &Action, status, stdout: &str, stderr: &str| {
            outcome(action, Some("renter"), &reply(status, stdout, stderr))
        };
        let status = "fleetgate-rental 1 status account=renter mode=keys principal=- until=- processes=0\n";
        assert_eq!(of(&ask, 0, status, ""), Ok(Outcome::Mode(Mode::Keys)));
        assert!(of(&ask, 0, &status.replace("=renter", "=other"), "").unwrap_err().contains("\"other\""));
        assert_eq!(of(&revoke, 0, "banner\nfleetgate-rental 1 revoked\n", ""), Ok(Outcome::Done));
        let left = of(&revoke, 1, "fleetgate-rental 1 left: processes 7\n", "").unwrap_err();
        assert_eq!(left, "left: processes 7");
        let error = of(&revoke, 1, "fleetgate-rental 1 error: the disk\u{1b} is full\n", "").unwrap_err();
        assert_eq!(error, "the disk\u{fffd} is full");
        let missing = of(&revoke, 1, "", "sudo: a password is required\n").unwrap_err();
        assert!(missing.contains("a password is required") && missing.contains("--rental-user"), "{missing}");
        assert!(of(&revoke, 0, "revoked\n", "").is_err() && of(&revoke, 0, status, "").is_err());
    }

    #[test]
    fn a_cleaning_command_has_succeeded_with_exit_status_0_alone() {
        let clean = Action::Clean(Id::from_i64(5));
        assert_eq!(call(&clean, Some("wipe /data")).unwrap().line, "wipe /data");
        assert_eq!(call(&clean, None), None);
        assert_eq!(outcome(&clean, None, &reply(0, "", "careful")), Ok(Outcome::Done));
        let failed = outcome(&clean, None, &reply(3, "", "busy\n\n")).unwrap_err();
        assert_eq!(failed, "the cleaning command failed (exit status 3): busy");
        let late = CommandReply { end: CommandEnd::Timeout, ..reply(0, "", "") };
        assert!(outcome(&clean, None, &late).unwrap_err().contains("too long"));
    }
}

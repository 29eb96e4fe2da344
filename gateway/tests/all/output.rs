//! The behaviour of a command whose output cannot be written.

use std::fs::File;
use std::io::Read as _;
use std::process::{Command, Stdio};

/// A listing of some length that needs no gateway.
fn completions() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetgate"));
    command.args(["completions", "bash"]).stderr(Stdio::piped());
    command
}

#[test]
fn a_full_disk_is_said_in_words_and_not_as_a_panic() {
    let full = File::options().write(true).open("/dev/full").expect("the device of every Linux");
    let output = completions().stdout(full).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "as sysexits.h has it: {said}");
    assert!(said.contains("cannot write the output") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_reader_that_has_gone_is_no_failure_to_talk_about() {
    let mut child = completions().stdout(Stdio::piped()).spawn().expect("it runs");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    child.wait().expect("it ends");
    assert_eq!(said, "");
}

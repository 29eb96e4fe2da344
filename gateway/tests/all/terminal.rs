//! The prompts of commands at a terminal before they remove something, and the effect of each reply. A
//! script gets no prompt.
//!
//! `script` of util-linux gives each command a terminal of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use fleetgate_keys::PrivateKey;

use super::gateway::{Gateway, PROGRAM};

impl Gateway {
    /// Runs a command at a terminal, with `answer` as the operator's input. Returns the exit code and the
    /// output.
    fn at_terminal(&self, args: &[&str], answer: &str) -> (i32, String) {
        self.at_terminal_of(80, args, answer)
    }

    /// The same with this many columns; 0 means that the terminal does not report its size.
    fn at_terminal_of(&self, columns: u16, args: &[&str], answer: &str) -> (i32, String) {
        let program = format!("'{PROGRAM}' --data '{}' {}", self.data().display(), args.join(" "));
        let line = format!("stty cols {columns}; {program}");
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let piped = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut script = piped.spawn().expect("script of util-linux");
        let mut keyboard = script.stdin.take().expect("piped");
        keyboard.write_all(answer.as_bytes()).expect("it reads");
        drop(keyboard);
        let output = script.wait_with_output().expect("it ends");
        (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn hosts(&self) -> Vec<String> {
        let listed = self.json(&["host", "list"]);
        let names =
            listed.as_array().expect("a list").iter().map(|host| host["name"].as_str().expect("a name"));
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    }

    fn key(&self, device: &str) -> String {
        let shown = self.json(&["device", "show", device]);
        shown["tunnel"]["public_key"].as_str().expect("a key").to_owned()
    }
}

/// A device with two hosts behind it, and another one that has it as a parent.
fn site() -> Gateway {
    let gateway = Gateway::start();
    gateway.must(&["device", "add", "router"]);
    gateway.must(&["device", "set", "router", "--network", "192.168.1.0/24"]);
    for (name, address) in [("camera", "192.168.1.2"), ("printer", "192.168.1.3")] {
        gateway.must(&["host", "add", name, "--via", "router", "--address", address]);
    }
    gateway.must(&["device", "add", "mast"]);
    gateway.must(&["host", "set", "mast", "--parent", "router"]);
    gateway
}

const ALL: [&str; 4] = ["camera", "mast", "printer", "router"];
const QUESTION: &str = "hosts behind it that are removed too: camera, printer; hosts that lose it as a parent: mast. \
                        Remove? [y/N] ";

#[test]
fn a_device_with_hosts_behind_it_is_removed_from_a_terminal_by_yes_alone() {
    let gateway = site();
    // Return, a no, the end of the input, other words.
    for answer in ["\n", "n\n", "\u{4}", "yeah\n", "no, y\n"] {
        let (code, screen) = gateway.at_terminal(&["device", "remove", "router"], answer);
        assert!(screen.contains(QUESTION) && screen.contains("Nothing was removed"), "{answer:?}: {screen}");
        assert_eq!((code, gateway.hosts()), (0, ALL.map(str::to_owned).to_vec()), "{answer:?}");
    }
    let (code, screen) = gateway.at_terminal(&["device", "remove", "router"], "y\n");
    assert_eq!((code, gateway.hosts()), (0, vec!["mast".to_owned()]), "{screen}");
    assert!(screen.contains("router removed; its tunnel has ended"), "{screen}");
    let (code, screen) = gateway.at_terminal(&["device", "remove", "mast"], "");
    assert!(code == 0 && !screen.contains("Remove?"), "nothing goes along, nothing is asked: {screen}");
}

#[test]
fn a_table_has_readable_columns_however_narrow_the_terminal_is() {
    let gateway = site();
    let longest = |columns: u16| {
        let (code, text) = gateway.at_terminal_of(columns, &["host", "list"], "");
        assert!(code == 0 && text.contains("mast"), "{columns}: {text}");
        text.lines().map(|line| line.trim_end().chars().count()).max().unwrap_or_default()
    };
    assert!(longest(0) > 70 && longest(300) > 70, "whole lines");
    assert!(longest(10) > 40, "one letter a line");
}

#[test]
fn a_password_is_asked_for_twice_at_a_terminal_and_read_once_from_a_program() {
    let gateway = Gateway::start();
    gateway.must(&["user", "add", "ada", "--role", "operator"]);
    let typed = |first: &str, second: &str| {
        gateway.at_terminal(&["user", "password", "ada"], &format!("{first}\n{second}\n"))
    };
    let (code, text) = typed("correct horse", "another horse");
    assert!(code == 1 && text.contains("the two passwords differ"), "{code} {text}");
    let (code, text) = typed("correct horse", "correct horse");
    assert!(code == 0 && text.contains("ada: password set"), "{code} {text}");
    assert!(!gateway.run(&["user", "password", "ada"]).status.success(), "nothing to read");
    gateway.must(&["user", "role", "ada", "viewer"]);
    assert_eq!(gateway.json(&["user", "list"])[0]["role"], "viewer");
    gateway.must(&["user", "remove", "ada"]);
    assert_eq!(gateway.json(&["user", "list"]).as_array().map(Vec::len), Some(1));
}

#[test]
fn a_program_is_not_asked_and_says_that_the_others_are_meant_too() {
    let gateway = site();
    let refused = gateway.run(&["device", "remove", "router"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("camera, printer") && said.contains("--cascade"), "{said}");
    assert_eq!(gateway.hosts(), ALL);
    gateway.must(&["device", "remove", "router", "--cascade"]);
    assert_eq!(gateway.hosts(), ["mast"]);
    let gateway = site();
    let (code, screen) = gateway.at_terminal(&["device", "remove", "router", "--yes"], "");
    assert!(code == 0 && !screen.contains("Remove?"), "{screen}");
    assert_eq!(gateway.hosts(), ["mast"]);
}

const REPLACE: &str = "Replace its keys? [y/N] ";

#[test]
fn a_working_configuration_is_replaced_from_a_terminal_by_yes_alone() {
    let gateway = Gateway::start();
    gateway.must(&["device", "add", "cam"]);
    let before = gateway.key("cam");
    for answer in ["\n", "n\n", "\u{4}", "yeah\n"] {
        let (code, screen) = gateway.at_terminal(&["device", "reissue", "cam"], answer);
        assert!(screen.contains(REPLACE) && screen.contains("stops working at once"), "{answer:?}: {screen}");
        assert!(screen.contains("nothing was changed") && !screen.contains("PrivateKey"), "{screen}");
        assert_eq!((code, gateway.key("cam")), (1, before.clone()), "{answer:?}");
    }
    let (code, screen) = gateway.at_terminal(&["device", "reissue", "cam"], "y\n");
    assert!(code == 0 && screen.contains("PrivateKey = "), "{screen}");
    assert_ne!(gateway.key("cam"), before);
    let before = gateway.key("cam");
    let (code, screen) = gateway.at_terminal(&["device", "reissue", "cam", "--yes"], "");
    assert!(code == 0 && !screen.contains(REPLACE) && screen.contains("PrivateKey = "), "{screen}");
    assert_ne!(gateway.key("cam"), before);
    let (code, screen) = gateway.at_terminal(&["device", "reissue", "nobody"], "y\n");
    assert!(code == 1 && !screen.contains(REPLACE), "{screen}");
}

#[test]
fn a_program_gets_a_new_configuration_unasked_as_text_as_a_code_or_in_a_file() {
    let gateway = Gateway::start();
    gateway.must(&["device", "add", "cam"]);
    let conf = gateway.must(&["device", "reissue", "cam"]);
    assert!(conf.starts_with("[Interface]") && conf.contains("PrivateKey = "), "{conf}");
    let code = gateway.must(&["device", "reissue", "cam", "--qr"]);
    assert!(!code.contains("PrivateKey") && code.chars().any(|c| "█▀▄".contains(c)), "{code}");
    let out = gateway.file("cam.conf");
    let printed = gateway.must(&["device", "reissue", "cam", "--out", out.to_str().expect("UTF-8")]);
    assert_eq!(printed, "", "the secret is in the file alone");
    let kept = fs::read_to_string(&out).expect("the file");
    assert!(kept.starts_with("[Interface]") && kept.contains("PrivateKey = "), "{kept}");
    assert_eq!(out.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
    let own = PrivateKey::generate().public().to_string();
    let given = gateway.must(&["device", "reissue", "cam", "--public-key", &own]);
    let secret = given.lines().any(|line| line.starts_with("PrivateKey"));
    assert!(!secret, "the device has its own: {given}");
    assert_eq!(gateway.key("cam"), own);
}

/// Keys are not replaced if the new ones would be lost: the device would be cut off for nothing.
#[test]
fn a_file_that_cannot_be_written_is_found_out_before_keys_are_made() {
    let gateway = Gateway::start();
    gateway.must(&["device", "add", "cam"]);
    let before = gateway.key("cam");
    let taken = gateway.file("taken.conf");
    fs::write(&taken, "of another").expect("a file");
    let dangling = gateway.file("dangling.conf");
    std::os::unix::fs::symlink("/nonexistent/cam.conf", &dangling).expect("a link");
    for out in
        [taken.clone(), dangling, gateway.file("no-such-folder/cam.conf"), PathBuf::from("/proc/cam.conf")]
    {
        let out = out.to_str().expect("UTF-8");
        for yes in [&[][..], &["--yes"]] {
            let refused = gateway.run(&[&["device", "reissue", "cam", "--out", out], yes].concat());
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{out}: {said}");
            assert_eq!(gateway.key("cam"), before, "{out}: {said}");
        }
        let refused = gateway.run(&["device", "add", "other", "--out", out]);
        assert_eq!(refused.status.code(), Some(1), "{out}");
        assert_eq!(gateway.hosts(), ["cam"], "{out}");
    }
    assert_eq!(fs::read_to_string(&taken).expect("the file"), "of another");
    let left: Vec<_> = fs::read_dir(gateway.data()).expect("the folder").flatten().collect();
    let left = left.iter().filter(|entry| entry.file_name().to_string_lossy().contains(".conf"));
    assert_eq!(left.count(), 2, "nothing half made is left");
}

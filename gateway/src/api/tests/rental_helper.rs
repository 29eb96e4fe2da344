//! The helper that `enrol.sh --rental-user` installs, run by the system's shells in a folder of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::script::{SHELLS, has};

const HELPER: &str = include_str!("../enrol/rental-access.sh");
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJVdG0q5aQ0GfhZ8yQ0wq7rJm4L0y3sVn7v5a9zR8q2k";
const OTHER: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY=";
const RENTAL: &str = "l_38h601nahgbz6";
/// Those of two keys.
const MARK: &str = "00112233445566778899";
const OTHER_MARK: &str = "aabbccddeeff00112233";

/// A device with an account `renter`. Programs that need root are replaced.
struct Device(tempfile::TempDir);

impl Device {
    fn new(mode: &str) -> Device {
        let device = Device(tempfile::tempdir().unwrap());
        for dir in ["bin", "etc/fleetgate/rental", "home/renter", "var/spool/cron/crontabs"] {
            fs::create_dir_all(device.at(dir)).unwrap();
        }
        let conf = format!("account=renter\nmode={mode}\nexpiry=\n");
        fs::write(device.at("etc/fleetgate/rental.conf"), conf).unwrap();
        fs::write(device.at("etc/passwd"), "renter:x:4000123:4000123::/home/renter:/bin/sh\n").unwrap();
        fs::write(device.at("etc/shadow"), "renter:*:20000::::::\n").unwrap();
        device.program("id", "case $* in -u) echo 0 ;; '-u renter') echo 4000123 ;; *) exit 1 ;; esac");
        for program in ["chown", "crontab", "loginctl", "atq", "usermod", "chpasswd"] {
            device.program(program, "exit 0");
        }
        let path = format!("PATH={}:", device.at("bin").display());
        let text = HELPER.replace("ROOT=''", &format!("ROOT='{}'", device.0.path().display()));
        fs::write(device.at("helper"), text.replacen("PATH=", &path, 1)).unwrap();
        device
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn program(&self, name: &str, body: &str) {
        let file = self.at("bin").join(name);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_default()
    }

    /// Runs the helper. Returns its line, and whether it says that it has succeeded.
    async fn run(&self, shell: &[&str], arguments: &[&str], input: &str) -> (String, bool) {
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(self.at("helper")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A verb that reads no input may have ended.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
        let done = child.wait_with_output().await.unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        let line = said.trim_end().strip_prefix("fleetgate-rental 2 ");
        let line = line.unwrap_or_else(|| panic!("{said:?} {}", String::from_utf8_lossy(&done.stderr)));
        assert!(!line.contains('\n'), "one line is expected: {line}");
        (line.to_owned(), done.status.success())
    }
}

/// What the helper is told: this rental, until then, with the mode and the account that the gateway expects.
fn grant<'a>(rental: &'a str, mode: &'a str) -> [&'a str; 5] {
    ["grant", rental, "1900000000", mode, "renter"]
}

fn shells() -> impl Iterator<Item = &'static [&'static str]> {
    SHELLS.into_iter().filter(|shell| has(shell[0]))
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

#[tokio::test]
async fn a_principal_is_granted_again_and_revoked() {
    for shell in shells() {
        let device = Device::new("certificates");
        let granted = (format!("granted {RENTAL} until 1900000000"), true);
        for _ in 0..2 {
            let said = device.run(shell, &grant(RENTAL, "certificates"), &format!("{MARK}\n")).await;
            assert_eq!(said, granted, "{shell:?}");
        }
        assert_eq!(device.read("etc/fleetgate/rental/principals"), format!("{RENTAL}.{MARK}\n"));
        let status = format!(
            "status account=renter mode=certificates principal={RENTAL} until=1900000000 processes=0"
        );
        assert_eq!(device.run(shell, &["status"], "").await, (status, true));
        let other = device.run(shell, &grant("l_other", "certificates"), MARK).await;
        assert_eq!(
            other,
            ("granted l_other until 1900000000".to_owned(), true),
            "the gateway has forgotten one"
        );
        assert_eq!(device.read("etc/fleetgate/rental/principals"), format!("l_other.{MARK}\n"));
        fs::write(device.at("var/spool/cron/crontabs/renter"), "* * * * * id\n").unwrap();
        assert_eq!(device.run(shell, &["revoke"], "").await, ("revoked".to_owned(), true));
        assert_eq!(device.read("etc/fleetgate/rental/principals"), "");
        assert!(!device.at("var/spool/cron/crontabs/renter").exists());
        let (status, _) = device.run(shell, &["status"], "").await;
        assert!(status.contains(" principal=- until=- "), "{status}");
    }
}

#[tokio::test]
async fn a_renter_cannot_keep_the_access_by_a_full_disk_or_by_the_lock() {
    for shell in shells() {
        for mode in ["certificates", "keys"] {
            let device = Device::new(mode);
            fs::write(device.at("etc/fleetgate/rental/keys"), "").unwrap();
            let key = if mode == "keys" { KEY } else { MARK };
            assert!(device.run(shell, &grant(RENTAL, mode), key).await.1, "{shell:?}");
            if let Ok(lock) = fs::metadata(device.at("etc/fleetgate/rental/lock")) {
                assert_eq!(lock.permissions().mode() & 0o077, 0, "whoever can open it can hold it");
            }
            // No file can be put in the place of another one.
            device.program("mv", "exit 1");
            assert_eq!(device.run(shell, &["revoke"], "").await, ("revoked".to_owned(), true), "{shell:?}");
            assert_eq!(device.read("etc/fleetgate/rental/principals"), "");
            assert_eq!(device.read("home/renter/.ssh/authorized_keys"), "");
            let (said, is_granted) = device.run(shell, &grant(RENTAL, mode), key).await;
            assert!(!is_granted && said.contains("is the disk full?"), "{said}");
        }
    }
}

#[tokio::test]
async fn keys_are_written_where_the_account_cannot_and_no_link_is_followed() {
    for shell in shells() {
        let device = Device::new("keys");
        fs::create_dir(device.at("elsewhere")).unwrap();
        fs::write(device.at("elsewhere/authorized_keys"), "mine").unwrap();
        symlink(device.at("elsewhere"), device.at("home/renter/.ssh")).unwrap();
        let keys = format!("{KEY}\n\n{OTHER}\n");
        let (said, is_granted) = device.run(shell, &grant(RENTAL, "keys"), &keys).await;
        assert!(is_granted, "{shell:?}: {said}");
        assert!(is_dir(&device.at("home/renter/.ssh")));
        assert_eq!(device.read("home/renter/.ssh/authorized_keys"), format!("{KEY}\n{OTHER}\n"));
        assert_eq!(device.read("elsewhere/authorized_keys"), "mine");
        let mode = |path: &str| fs::metadata(device.at(path)).unwrap().permissions().mode() & 0o022;
        assert_eq!(
            (mode("home/renter"), mode("home/renter/.ssh")),
            (0, 0),
            "servers refuse what others can write"
        );
        let (_, is_granted) = device.run(shell, &grant(RENTAL, "keys"), KEY).await;
        assert!(is_granted);
        assert_eq!(device.read("home/renter/.ssh/authorized_keys"), format!("{KEY}\n"));
        assert_eq!(device.run(shell, &["revoke"], "").await, ("revoked".to_owned(), true));
        assert_eq!(device.read("home/renter/.ssh/authorized_keys"), "");
    }
}

#[tokio::test]
async fn keys_permit_what_a_certificate_does_and_end_where_the_server_can_read_that() {
    for shell in shells() {
        let device = Device::new("keys");
        fs::write(device.at("etc/fleetgate/rental.conf"), "account=renter\nmode=keys\nexpiry=yes\n").unwrap();
        let (said, is_granted) = device.run(shell, &grant(RENTAL, "keys"), KEY).await;
        assert!(is_granted, "{shell:?}: {said}");
        let line = device.read("home/renter/.ssh/authorized_keys");
        let end = line.strip_prefix("restrict,pty,expiry-time=\"").and_then(|rest| rest.split_once("\" "));
        let (at, key) = end.unwrap_or_else(|| panic!("{line}"));
        // In the time zone of the machine.
        assert!(at.starts_with("203003") && at.len() == 14 && at.ends_with("40"), "{at}");
        assert_eq!(key, format!("{KEY}\n"));
    }
}

#[tokio::test]
async fn processes_under_the_subordinate_ids_of_the_account_are_its_own() {
    for shell in shells() {
        let device = Device::new("certificates");
        let ranges = "other:100000:65536\nrenter:165536:65536\n4000123:400000:1\nrenter:0:1000\n";
        fs::write(device.at("etc/subuid"), ranges).unwrap();
        let ids = [
            ("S", 4_000_123),
            ("S", 165_536),
            ("R", 231_071),
            ("T", 400_000),
            ("Z", 165_536),
            ("S", 231_072),
            ("S", 165_535),
            ("S", 0),
            ("S", 999),
            ("S", 400_001),
        ];
        for (n, (state, uid)) in ids.into_iter().enumerate() {
            let dir = device.at(&format!("proc/{}", n + 10));
            fs::create_dir_all(&dir).unwrap();
            let status = format!(
                "Name:\tsh\nState:\t{state} (x)\nPid:\t{}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n",
                n + 10
            );
            fs::write(dir.join("status"), status).unwrap();
        }
        let helper =
            device.read("helper").replace("PROC=/proc", &format!("PROC='{}'", device.at("proc").display()));
        fs::write(device.at("helper"), helper).unwrap();
        // Not `revoke`, which would end the processes that have these numbers.
        let (status, _) = device.run(shell, &["status"], "").await;
        assert!(status.ends_with(" processes=4"), "{shell:?}: {status}");
    }
}

#[tokio::test]
async fn units_of_the_account_are_moved_aside_and_not_what_they_link_to() {
    for shell in shells() {
        let device = Device::new("certificates");
        let folders = [".config/systemd/user", ".config/systemd/user.control", ".local/share/systemd/user"];
        let folders = folders.map(|folder| device.at(&format!("home/renter/{folder}")));
        for folder in &folders {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("bot.service"), "x").unwrap();
        }
        assert_eq!(device.run(shell, &["revoke"], "").await.0, "revoked");
        for folder in &folders {
            assert!(!folder.exists(), "{shell:?}: {}", folder.display());
        }
        fs::create_dir_all(device.at("system/user")).unwrap();
        fs::remove_dir_all(device.at("home/renter/.config/systemd")).unwrap();
        symlink(device.at("system"), device.at("home/renter/.config/systemd")).unwrap();
        assert_eq!(device.run(shell, &["revoke"], "").await.0, "revoked");
        assert!(device.at("system/user").is_dir());
        assert!(!device.at("home/renter/.config/systemd").exists());
    }
}

#[tokio::test]
async fn a_key_that_is_taken_away_during_a_rental_ends_what_runs_and_another_one_does_not() {
    for (mode, keys, file) in [
        ("certificates", [MARK, OTHER_MARK], "etc/fleetgate/rental/principals"),
        ("keys", [KEY, OTHER], "home/renter/.ssh/authorized_keys"),
    ] {
        for shell in shells() {
            let device = Device::new(mode);
            device.program("sleep", "exit 0");
            // What runs as the account is ended together with its jobs.
            let job = device.at("var/spool/cron/crontabs/renter");
            fs::write(&job, "* * * * * id\n").unwrap();
            let [first, second] = keys;
            for given in [first.to_owned(), format!("{first}\n{second}\n"), format!("{second}\n{first}\n")] {
                let (said, is_granted) = device.run(shell, &grant(RENTAL, mode), &given).await;
                assert!(is_granted && job.exists(), "{shell:?} {mode}: {said}");
            }
            let lines = device.read(file);
            assert!(lines.contains(first) && lines.contains(second), "{lines}");
            let (said, is_granted) = device.run(shell, &grant(RENTAL, mode), second).await;
            assert!(is_granted && !job.exists(), "{shell:?} {mode}: {said}");
            let lines = device.read(file);
            assert!(!lines.contains(first) && lines.contains(second), "{lines}");
            fs::write(&job, "* * * * * id\n").unwrap();
            let (said, is_granted) = device.run(shell, &grant(RENTAL, mode), "").await;
            assert!(is_granted && !job.exists() && device.read(file).is_empty(), "{shell:?} {mode}: {said}");
        }
    }
}

#[tokio::test]
async fn a_grant_for_another_account_or_mode_is_answered_with_the_status() {
    for shell in shells() {
        let device = Device::new("certificates");
        for expected in [["keys", "renter"], ["certificates", "other"]] {
            let call = ["grant", RENTAL, "1900000000", expected[0], expected[1]];
            let (said, is_granted) = device.run(shell, &call, "").await;
            assert!(!is_granted && said.starts_with("status account=renter mode=certificates "), "{said}");
        }
        assert_eq!(device.read("etc/fleetgate/rental/granted"), "");
        for marks in ["0011", &format!("{MARK}0"), "l_other", &MARK.replace('0', "G"), &format!("{MARK} x")] {
            let (said, is_granted) = device.run(shell, &grant(RENTAL, "certificates"), marks).await;
            assert!(!is_granted && said.contains("marks of keys"), "{shell:?} {marks}: {said}");
        }
    }
}

#[tokio::test]
async fn what_is_no_call_or_no_key_changes_nothing() {
    let many = format!("{KEY}\n").repeat(65);
    let long = format!("ssh-rsa AAAA{}\n", "A".repeat(70_000));
    for shell in shells() {
        let device = Device::new("keys");
        for arguments in [
            &["foo"][..],
            &[],
            &["status", "x"],
            &["revoke", RENTAL],
            &["grant", RENTAL],
            &["grant", RENTAL, "1900000000"],
            &["grant", "root", "1900000000", "keys", "renter"],
            &["grant", "l_a b", "1900000000", "keys", "renter"],
            &["grant", "l_a\nl_b", "1900000000", "keys", "renter"],
            &["grant", "l_../../x", "1900000000", "keys", "renter"],
            &["grant", "l_", "1900000000", "keys", "renter"],
            &["grant", RENTAL, "never", "keys", "renter"],
            &["grant", RENTAL, "1;id", "keys", "renter"],
            &["grant", RENTAL, "", "keys", "renter"],
        ] {
            let (said, is_done) = device.run(shell, arguments, KEY).await;
            assert!(!is_done && said.starts_with("error: "), "{shell:?} {arguments:?}: {said}");
        }
        for keys in [
            "nonsense",
            "ssh-ed25519",
            "ssh-dss AAAAB3NzaC1kc3M=",
            &format!("command=\"id\" {KEY}"),
            &format!("{KEY} comment"),
            &format!("{KEY}\n$(id)\n"),
            &many,
            &long,
        ] {
            let (said, is_done) = device.run(shell, &grant(RENTAL, "keys"), keys).await;
            assert!(!is_done && said.contains("keys"), "{shell:?}: {said}");
        }
        assert_eq!(device.read("home/renter/.ssh/authorized_keys"), "");
        assert_eq!(device.read("etc/fleetgate/rental/granted"), "");
    }
}

#[tokio::test]
async fn an_account_that_is_gone_or_root_is_named() {
    let shell = &["/bin/sh"][..];
    let device = Device::new("certificates");
    device.program("id", "case $* in -u) echo 0 ;; *) exit 1 ;; esac");
    let (gone, _) = device.run(shell, &["status"], "").await;
    assert!(gone.contains("there is no account renter any more"), "{gone}");
    device.program("id", "echo 0");
    let (root, _) = device.run(shell, &grant(RENTAL, "certificates"), "").await;
    assert!(root.contains("renter is root"), "{root}");
    device.program("id", "echo 1000");
    let (user, _) = device.run(shell, &["status"], "").await;
    assert!(user.contains("must run as root"), "{user}");
    fs::remove_file(device.at("etc/fleetgate/rental.conf")).unwrap();
    device.program("id", "echo 0");
    let (missing, _) = device.run(shell, &["status"], "").await;
    assert!(missing.contains("run enrol.sh with --rental-user"), "{missing}");
}

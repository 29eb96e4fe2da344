//! A first start that is killed at any moment, with the real program and a real `kill -9`. The next
//! start completes it with the same key, and one of the two shows the login.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleetgate_tests::lab::{eventually, program};

const PATIENCE: Duration = Duration::from_secs(60);
/// Delays before the kill. The progress of a start at each delay depends on the machine; the next
/// start must work in every case.
const MOMENTS_MS: [u64; 16] = [0, 1, 3, 6, 10, 15, 22, 30, 40, 55, 75, 100, 140, 200, 300, 500];

struct Start {
    child: Child,
    out: std::path::PathBuf,
}

impl Start {
    fn of(data: &Path, out: std::path::PathBuf) -> Start {
        let made = || File::create(&out).expect("a file");
        let child = Command::new(program())
            .args(["--data", data.to_str().expect("UTF-8"), "serve"])
            .env("FLEETGATE_LISTEN", "127.0.0.1:0")
            .env("FLEETGATE_API_LISTEN", "127.0.0.1:0")
            .stdout(Stdio::from(made()))
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        Start { child, out }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_first_start_that_is_killed_is_completed_by_the_next() {
    for ms in MOMENTS_MS {
        let dir = tempfile::tempdir().expect("a folder");
        let data = dir.path().join("data");
        fs::create_dir(&data).expect("a folder");
        fs::set_permissions(&data, Permissions::from_mode(0o700)).expect("its mode");
        let mut first = Start::of(&data, dir.path().join("first"));
        std::thread::sleep(Duration::from_millis(ms));
        first.kill();
        let key = fs::read(data.join("gateway.key")).ok();
        let mut second = Start::of(&data, dir.path().join("second"));
        eventually(&format!("a start after a kill at {ms} ms"), PATIENCE, || {
            second.said().contains("dashboard") && !data.join("first-start").exists()
        });
        let shown =
            [&first, &second].iter().any(|start| start.said().contains("first login, not shown again"));
        assert!(shown, "{ms} ms: {}{}", first.said(), second.said());
        second.kill();
        let now = fs::read(data.join("gateway.key")).expect("a key");
        assert!(key.is_none_or(|key| key == now), "{ms} ms: another key");
    }
}

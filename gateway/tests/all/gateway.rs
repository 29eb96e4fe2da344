//! A gateway as a process, and its operator's commands.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Timeout for a busy machine, not a promise of speed.
const PATIENCE: Duration = Duration::from_secs(60);
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_fleetgate");
const SETTINGS: &str =
    "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\nendpoint = \"127.0.0.1:51820\"\n";

pub struct Gateway {
    dir: tempfile::TempDir,
    process: Child,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Gateway {
    pub fn start() -> Gateway {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("our own");
        fs::write(dir.path().join("fleetgate.toml"), SETTINGS).expect("a file");
        let mut serve = Command::new(PROGRAM);
        serve.arg("--data").arg(dir.path()).arg("serve").stdout(Stdio::null()).stderr(Stdio::null());
        let gateway = Gateway { process: serve.spawn().expect("it runs"), dir };
        let begin = Instant::now();
        while !gateway.run(&["device", "list"]).status.success() {
            assert!(begin.elapsed() < PATIENCE, "the gateway does not answer");
            sleep(Duration::from_millis(50));
        }
        gateway
    }

    pub fn data(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    /// Runs a command without a terminal, as a script does.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(PROGRAM);
        command.arg("--data").arg(self.data()).args(args).stdin(Stdio::null());
        command.output().expect("it runs")
    }

    pub fn must(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.must(&[args, &["--json"]].concat());
        serde_json::from_str(&text).expect("JSON")
    }

    /// Returns the answer of the API to a GET.
    pub fn api(&self, path: &str) -> Value {
        let mut socket = UnixStream::connect(self.file("fleetgate.sock")).expect("the gateway listens");
        write!(socket, "GET /api/v1/{path} HTTP/1.0\r\nhost: localhost\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("text");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        serde_json::from_str(body).expect("JSON")
    }
}

//! A real dropbear, as on small devices.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;

use super::*;
use crate::monitor::ssh::tests::openssh_server::user;

const DROPBEAR: &str = "/usr/sbin/dropbear";

struct Dropbear {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Drop for Dropbear {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dropbear {
    /// Starts it on loopback. `None` when this machine has no dropbear.
    fn new(key_types: &[&str], options: &[&str]) -> Option<Dropbear> {
        if !Path::new(DROPBEAR).exists() {
            eprintln!("skipped: no {DROPBEAR}");
            return None;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let port =
            std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let mut command = Command::new(DROPBEAR);
        command.args(["-F", "-E", "-p", &format!("127.0.0.1:{port}")]).args(options);
        for key_type in key_types {
            let file = dir.path().join(key_type);
            let mut make = Command::new("dropbearkey");
            let made =
                make.args(["-t", key_type, "-f"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
            assert!(made.status().expect("dropbearkey runs").success());
            command.arg("-r").arg(file);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("dropbear starts");
        Some(Dropbear { child, port, dir })
    }

    /// Retries, because the server needs a moment until it listens.
    async fn connect(&self) -> Result<TcpStream, ConnectFailure> {
        let deadline = Deadline::after(PLENTY);
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)).await {
                Ok(stream) => return Ok(stream),
                Err(_) if deadline.remaining().is_zero() => return Err(ConnectFailure::Refused),
                Err(_) => tokio::time::sleep(SECOND / 50).await,
            }
        }
    }

    fn pin(&self, key_type: &str) -> HostKey {
        let out =
            Command::new("dropbearkey").arg("-y").arg("-f").arg(self.dir.path().join(key_type)).output();
        let out = String::from_utf8(out.expect("dropbearkey runs").stdout).expect("text");
        let line = out.lines().find(|line| line.contains("AAAA")).expect("a public key");
        let key: fleetgate_keys::SshPublicKey = line.parse().expect("a public key");
        HostKey { key_type: KeyType::from_name(key.algorithm()), ..HostKey::from(key.fingerprint().as_str()) }
    }

    async fn ask(&self, pin: Option<HostKey>, user: Option<String>) -> SshReply {
        let run = SshRun { learn: pin.is_none(), pin, user, commands: Vec::new() };
        client().run(key(), || self.connect(), run, PLENTY).await
    }
}

#[tokio::test]
async fn dropbear_is_known_again_by_each_of_its_keys() {
    let key_types = ["ed25519", "ecdsa", "rsa"];
    for key_type in key_types {
        let Some(alone) = Dropbear::new(&[key_type], &[]) else { return };
        let answer = alone.ask(None, None).await;
        assert_eq!((answer.failure, answer.host_key), (None, Some(alone.pin(key_type))));
    }
    let Some(all) = Dropbear::new(&key_types, &[]) else { return };
    for key_type in key_types {
        let pin = all.pin(key_type);
        for asked in [pin.clone(), HostKey { key_type: None, ..pin.clone() }] {
            let answer = all.ask(Some(asked), None).await;
            assert_eq!((answer.failure, answer.host_key), (None, Some(pin.clone())), "{key_type}");
        }
    }
}

#[tokio::test]
async fn dropbear_refuses_a_key_that_it_does_not_know() {
    // The user's own authorized keys do not contain the test's key. No file of the user is changed.
    let Some(dropbear) = Dropbear::new(&["ed25519"], &["-s"]) else { return };
    let refused = SshFailure::LoginRefused { user: user(), why: LoginRefusal::Key };
    assert_eq!(dropbear.ask(None, Some(user())).await.failure, Some(refused));
}

//! A signal ends the gateway cleanly at any moment of its start.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Timeout for a busy machine, not a promise of speed.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Moments of a start at which a signal is sent, in milliseconds after its first statement.
const MOMENTS: [u64; 14] = [0, 1, 2, 3, 5, 8, 12, 17, 25, 35, 50, 80, 130, 250];

/// Creates a folder that only its owner can enter.
fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).expect("our own");
    dir
}

fn folder() -> tempfile::TempDir {
    let dir = closed();
    let settings = "listen = \"127.0.0.1:0\"\napi_listen = \"127.0.0.1:0\"\n";
    std::fs::write(dir.path().join("fleetgate.toml"), settings).expect("a file");
    dir
}

fn gateway(command: &str, data: &Path) -> Child {
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_fleetgate"));
    gateway.args([command, "--data"]).arg(data).stdout(Stdio::piped()).stderr(Stdio::piped());
    gateway.spawn().expect("it runs")
}

/// Returns a mask of `/proc/PID/status`, or 0 when the process has ended.
fn mask(child: &Child, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    u64::from_str_radix(line.trim(), 16).expect("a mask in hexadecimal")
}

fn eventually(what: &str, mut yes: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !yes() {
        assert!(begin.elapsed() < PATIENCE, "not in time: {what}");
        sleep(LOOK_AGAIN);
    }
}

/// Waits for the first statement of the program. Before it, the system handles signals.
fn until_main(child: &Child) {
    const TERM: u64 = 1 << (15 - 1);
    eventually("signals are held", || (mask(child, "SigBlk:") | mask(child, "SigCgt:")) & TERM != 0);
}

fn send(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().expect("kill").success(), "{signal}");
}

fn end(child: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("it ends", || {
        status = child.try_wait().expect("a child");
        status.is_some()
    });
    status.expect("it has ended")
}

fn log(child: &mut Child) -> String {
    let mut log = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut log).expect("text");
    log
}

/// Starts a program and sends it `signal` after this time.
fn signalled(command: &str, dir: &Path, moment: u64, signal: &str) -> Child {
    let child = gateway(command, dir);
    until_main(&child);
    sleep(Duration::from_millis(moment));
    send(&child, signal);
    child
}

/// Expects a clean exit; `what` describes the cause.
fn ends_cleanly(mut child: Child, what: &str) {
    let status = end(&mut child);
    assert_eq!(status.code(), Some(0), "{what}: {status}, {}", log(&mut child));
}

#[test]
fn a_stop_at_any_moment_of_a_start_is_a_clean_exit() {
    for signal in ["TERM", "INT"] {
        for moment in MOMENTS {
            let dir = folder();
            let child = signalled("serve", dir.path(), moment, signal);
            ends_cleanly(child, &format!("{signal} after {moment} ms"));
        }
    }
}

#[test]
fn the_demo_ends_cleanly_while_it_starts_too() {
    for (moment, signal) in [(0, "TERM"), (20, "INT"), (200, "HUP"), (600, "TERM")] {
        let dir = closed();
        let child = signalled("demo", dir.path(), moment, signal);
        ends_cleanly(child, &format!("{signal} after {moment} ms"));
    }
}

#[test]
fn a_hangup_at_any_moment_of_a_start_loads_the_settings_again() {
    for moment in MOMENTS {
        let dir = folder();
        let child = signalled("serve", dir.path(), moment, "HUP");
        let taken = "fleetgate_config_reloads_total{outcome=\"ok\"} 1\n";
        eventually("the hangup is taken", || said(dir.path(), taken));
        send(&child, "TERM");
        ends_cleanly(child, &format!("HUP after {moment} ms"));
    }
}

/// Whether the metrics of the gateway contain this text, read over its socket as `fleetgate metrics`
/// does.
fn said(data: &Path, wanted: &str) -> bool {
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(data.join("fleetgate.sock")) else {
        return false;
    };
    let mut answer = String::new();
    let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    asked.and_then(|()| stream.read_to_string(&mut answer)).is_ok() && answer.contains(wanted)
}

#[test]
fn a_stop_of_a_command_that_is_no_gateway_ends_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetgate"));
    command.args(["status", "--url", &url, "--token", "fgt_x", "--data"]).arg(dir.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
    // It waits for a response that never comes.
    let _asked = listener.accept().expect("it asks");
    send(&child, "TERM");
    assert_eq!(end(&mut child).signal(), Some(15));
}

#[test]
fn a_reload_that_is_refused_can_be_seen_and_one_that_works_ends_that() {
    let dir = folder();
    let mut child = gateway("serve", dir.path());
    let value = |n: u32| format!("fleetgate_config_last_reload_successful {n}\n");
    eventually("it starts", || said(dir.path(), &value(1)));
    assert!(said(dir.path(), "fleetgate_config_reloads_total{outcome=\"failed\"} 0\n"));
    let good = std::fs::read_to_string(dir.path().join("fleetgate.toml")).expect("settings");
    for (text, shown) in [("keepalive = \"often\"", 0), (good.as_str(), 1)] {
        std::fs::write(dir.path().join("fleetgate.toml"), text).expect("a file");
        send(&child, "HUP");
        eventually("it is seen", || said(dir.path(), &value(shown)));
    }
    // A missing file must not count as a request for the defaults.
    std::fs::remove_file(dir.path().join("fleetgate.toml")).expect("a file");
    send(&child, "HUP");
    eventually("it is seen", || said(dir.path(), &value(0)));
    assert!(said(dir.path(), "fleetgate_config_reloads_total{outcome=\"failed\"} 2\n"));
    send(&child, "TERM");
    assert_eq!(end(&mut child).code(), Some(0));
}

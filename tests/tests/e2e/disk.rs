//! A full disk, on a real file system of a few megabytes. The gateway keeps running, reports it,
//! loses nothing that it acknowledged, and resumes work by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fleetgate_tests::lab::{Api, Gateway, Lab, Make, SshServer, eventually, program, run};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
/// Large enough for the databases a dozen times over.
const SIZE: &str = "size=24m,mode=0700";
/// With room for two limits.
const LARGER: &str = "size=96m,mode=0700";
const MB: u64 = 1024 * 1024;

const SETTINGS: &str = r#"
endpoint = "10.77.0.2:51820"
api_listen = "10.77.0.2:8080"
api_cleartext = true

[checks]
interval = 2
retry = 1
attempts = 2
timeout = 1
"#;

/// A mounted file system; dropping it unmounts it.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts a small file system. `None`: this machine does not permit a mount.
    fn mount(at: &Path) -> Option<SmallDisk> {
        SmallDisk::mount_of(at, SIZE)
    }

    fn mount_of(at: &Path, options: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).ok()?;
        let mut mount = Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status().ok()?;
        done.success().then(|| SmallDisk(at.to_owned()))
    }

    /// Leaves this many bytes free, without a moment at which there are fewer.
    fn leave(&self, bytes: u64) {
        let ballast = self.0.join("ballast");
        let said = run("df", &["-B1", "--output=avail", &self.0.display().to_string()]);
        let free: u64 =
            said.lines().next_back().and_then(|free| free.trim().parse().ok()).expect("the free bytes");
        let length = std::fs::metadata(&ballast).map_or(0, |found| found.len());
        let length = (length + free).checked_sub(bytes).expect("a disk of that size");
        run("fallocate", &["-l", &length.to_string(), &ballast.display().to_string()]);
        let ballast = std::fs::File::options().write(true).open(ballast).expect("the ballast");
        ballast.set_len(length).expect("the ballast");
    }

    /// Fills the disk to the last byte.
    fn fill(&self) {
        let ballast = format!("of={}", self.0.join("ballast").display());
        let out = Command::new("dd").args(["if=/dev/zero", &ballast, "bs=4096"]).output().expect("dd");
        assert!(!out.status.success(), "the disk is not full");
    }

    /// Fills the disk and leaves this many bytes.
    fn fill_but(&self, bytes: u64) {
        self.fill();
        let ballast = std::fs::File::options().write(true).open(self.0.join("ballast")).expect("the ballast");
        let length = ballast.metadata().expect("its size").len();
        ballast.set_len(length - bytes).expect("the ballast");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).expect("the ballast");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Returns status and body of `path`, as monitoring of the gateway sees them.
fn fetch(lab: &Lab, path: &str) -> String {
    lab.try_sh("gw", &format!("curl -s -w ' %{{http_code}}' http://10.77.0.2:8080{path}")).1
}

fn is_ready(lab: &Lab) -> bool {
    fetch(lab, "/readyz").ends_with(" 200")
}

/// Adds devices until one is refused; the earlier ones were acknowledged.
fn add_until_refused(gateway: &Gateway<'_>) -> (Vec<String>, String) {
    let mut added = Vec::new();
    for n in 0..2_000 {
        let name = format!("cam-{n}");
        match gateway.attempt(&["device", "add", &name]) {
            Ok(_) => added.push(name),
            Err(said) => return (added, said),
        }
    }
    panic!("a full disk refuses nothing");
}

fn assert_all_there(gateway: &Gateway<'_>, added: &[String]) {
    let list = gateway.json(&["device", "list"]).to_string();
    for name in added {
        assert!(list.contains(&format!("\"{name}\"")), "{name} was acknowledged and is lost");
    }
}

#[test]
fn a_full_disk_stops_nothing_and_loses_nothing_that_was_acknowledged() {
    let lab = Lab::new();
    let Some(disk) = SmallDisk::mount(&lab.path("data")) else {
        println!("skipped: this machine does not let root mount a tmpfs");
        return;
    };
    let mut sshd = SshServer::start(&lab, "d1", Make::OpenSsh, "");
    let mut gateway = Gateway::start(&lab, SETTINGS);
    gateway.cli(&["device", "add", "nas-1", "--no-tunnel", "--direct", "10.77.1.2"]);
    gateway.becomes("nas-1", None, "up");
    assert!(is_ready(&lab));

    disk.fill();
    let (added, said) = add_until_refused(&gateway);
    assert!(said.contains("disk is full") || said.contains("database cannot be used now"), "{said}");
    sshd.stop();
    eventually("readiness says so", PATIENCE, || {
        fetch(&lab, "/readyz").contains("database: takes no writes")
    });
    assert!(fetch(&lab, "/healthz").ends_with(" 200"), "a new start would mend nothing");
    // Readiness follows the free space, the log the first commit that fails.
    eventually("the log says so", PATIENCE, || lab.log("gateway.log").contains("the database takes nothing"));
    assert_all_there(&gateway, &added);

    disk.make_room();
    eventually("it is ready again by itself", PATIENCE, || is_ready(&lab));
    gateway.becomes("nas-1", None, "down");
    assert!(gateway.cli(&["events", "-n", "20"]).contains("nas-1"), "what waited in memory is on disk");
    gateway.cli(&["device", "add", "after"]);

    // The disk is full again, and the gateway is killed meanwhile.
    disk.fill();
    let (more, _) = add_until_refused(&gateway);
    gateway.process.as_mut().expect("running").kill();
    disk.make_room();
    gateway.again();
    assert_all_there(&gateway, &added);
    assert_all_there(&gateway, &more);
    assert_all_there(&gateway, &["after".to_owned()]);
    sshd.again();
    gateway.becomes("nas-1", None, "up");
    gateway.stop();
    drop(gateway);
}

#[test]
fn a_gateway_on_a_full_disk_stops_in_time() {
    let lab = Lab::new();
    let Some(disk) = SmallDisk::mount(&lab.path("data")) else {
        println!("skipped: this machine does not let root mount a tmpfs");
        return;
    };
    let mut gateway = Gateway::start(&lab, SETTINGS);
    gateway.cli(&["device", "add", "nas-1", "--no-tunnel", "--direct", "10.77.1.2"]);
    disk.fill();
    add_until_refused(&gateway);
    eventually("readiness says so", PATIENCE, || !is_ready(&lab));
    gateway.stop();
}

/// A host and a service of it, with submitted results.
const OBJECTS: [&str; 2] = ["hosts/nas-1", "hosts/nas-1/services/backup"];

/// Room for some results; after them the disk is full.
const ROOM: u64 = 2 * 1024 * 1024;

/// Returns one of many failures; each has its own text, so that none is a repetition.
fn failure(n: u64) -> Value {
    json!({ "exit_status": 2, "output": format!("failure {n}") })
}

fn send(api: &Api, object: &str, body: &Value) -> (u16, Value) {
    api.answer("POST", &format!("{object}/results"), Some(body)).expect("an answer")
}

/// Returns how many consecutive failures the gateway has counted.
fn failures(api: &Api, object: &str) -> u64 {
    let shown = api.get(object).expect("an answer");
    let state = if shown["state"].is_object() { &shown["state"] } else { &shown };
    let failing = ["critical", "down"].iter().any(|bad| state["last_result"] == *bad);
    if failing { state["attempt"].as_u64().expect("a number") } else { 0 }
}

/// Submits failures of an object until one is refused; returns how many were accepted, and the
/// error.
fn fail_until_refused(api: &Api, object: &str) -> (u64, Value) {
    for taken in 0..500 {
        match send(api, object, &failure(taken)) {
            (202, _) => {}
            (507, said) => return (taken, said),
            other => panic!("{object}: {other:?}"),
        }
    }
    panic!("a full disk takes every result of {object}");
}

#[test]
fn a_full_disk_refuses_results_before_they_take_effect() {
    let lab = Lab::new();
    let Some(disk) = SmallDisk::mount(&lab.path("data")) else {
        println!("skipped: this machine does not let root mount a tmpfs");
        return;
    };
    let mut gateway = Gateway::start(&lab, SETTINGS);
    gateway.cli(&["device", "add", "nas-1"]);
    let passive = r#"{"type": "passive"}"#;
    gateway.cli(&["service", "set", "nas-1", "backup", "--check", passive, "--attempts", "100"]);
    let api = Api::new(gateway.socket());
    api.send("PATCH", "hosts/nas-1", &json!({ "max_check_attempts": 100 })).expect("taken");
    for object in OBJECTS {
        assert_eq!(send(&api, object, &json!({ "exit_status": 0, "output": "well" })).0, 202);
    }

    disk.fill_but(ROOM);
    let taken = OBJECTS.map(|object| {
        let (taken, said) = fail_until_refused(&api, object);
        assert_eq!(said["code"], "disk_full", "{said}");
        assert_eq!(failures(&api, object), taken, "{object}: what was refused has no effect");
        taken
    });
    assert!(taken[0] > 0 && taken[1] == 0, "{taken:?}");
    // A refused result must not be counted, neither in this run nor in the next.
    disk.make_room();
    for (object, taken) in OBJECTS.iter().zip(taken) {
        assert_eq!(failures(&api, object), taken, "{object}");
    }
    gateway.process.as_mut().expect("running").kill();
    gateway.again();
    for (object, taken) in OBJECTS.iter().zip(taken) {
        assert_eq!(failures(&api, object), taken, "{object} after a kill");
        assert_eq!(send(&api, object, &failure(taken)).0, 202);
        assert_eq!(failures(&api, object), taken + 1, "{object}: the refused one, sent again, counts once");
    }
}

/// The limits of the next test, with room between them for what a gateway writes meanwhile.
const HISTORY: u64 = 40 * MB;
const RESERVE: u64 = 20 * MB;
/// Writes of the gateway during a step are much smaller.
const BESIDE: u64 = 4 * MB;
/// Looks of the sealer, which come each 5 seconds.
const SOME_LOOKS: Duration = Duration::from_secs(12);

/// Bytes of unsealed samples: those of [`measure`] are more, and those of the gateway's own checks in a minute are less.
const MUCH: f64 = 4_000.0;

/// Returns a metric of the gateway, as Prometheus reads it on the same machine.
fn metric(lab: &Lab, gateway: &Gateway<'_>, name: &str) -> Option<f64> {
    let socket = gateway.socket();
    let text = lab.sh("gw", &format!("curl -s --unix-socket {} http://localhost/metrics", socket.display()));
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Whether many samples wait to be sealed. `None`: no look has counted them since the start.
fn many_wait(lab: &Lab, gateway: &Gateway<'_>) -> Option<bool> {
    metric(lab, gateway, "fleetgate_history_redo_bytes").map(|bytes| bytes > MUCH)
}

/// Returns what the banner of the page says.
fn banner(api: &Api) -> String {
    api.get("overview").expect("an answer")["disk_problem"].as_str().unwrap_or_default().to_owned()
}

/// Submits results with many values. Returns the status of the last answer.
fn measure(api: &Api) -> u16 {
    let mut status = 0;
    for n in 1..=60 {
        let values: Vec<String> = (0..50).map(|label| format!("v{label}={}", n * 1_000 + label)).collect();
        let body = json!({ "exit_status": 0, "output": format!("well|{}", values.join(" ")) });
        status = send(api, OBJECTS[1], &body).0;
    }
    status
}

#[test]
fn below_one_limit_no_history_is_written_and_below_the_other_no_result_is_taken() {
    let lab = Lab::new();
    let Some(disk) = SmallDisk::mount_of(&lab.path("data"), LARGER) else {
        println!("skipped: this machine does not let root mount a tmpfs");
        return;
    };
    let limits = format!("\n[disk]\nhistory_mb = {}\nreserve_mb = {}\n", HISTORY / MB, RESERVE / MB);
    let settings = SETTINGS.to_owned() + &limits;
    let mut gateway = Gateway::start_program(&lab, &settings, Vec::new(), &program());
    gateway.cli(&["device", "add", "nas-1"]);
    gateway.cli(&["service", "set", "nas-1", "backup", "--check", r#"{"type": "passive"}"#]);
    let api = Api::new(gateway.socket());
    for (name, bytes) in [("history", HISTORY), ("reserve", RESERVE)] {
        let limit = metric(&lab, &gateway, &format!("fleetgate_disk_limit_bytes{{limit=\"{name}\"}}"));
        assert_eq!(limit, Some(bytes as f64), "{name}");
    }

    // A start seals what the last run has left: above the limit it does.
    disk.leave(HISTORY + BESIDE);
    assert_eq!(measure(&api), 202);
    eventually("many samples wait", PATIENCE, || many_wait(&lab, &gateway) == Some(true));
    gateway.stop();
    gateway.again();
    eventually("the history is written", PATIENCE, || many_wait(&lab, &gateway) == Some(false));
    assert_eq!(banner(&api), "");
    assert!(fetch(&lab, "/healthz").contains(r#""history":"ok""#));

    disk.leave(HISTORY - BESIDE);
    eventually("the page says so", PATIENCE, || banner(&api).contains("no history is written"));
    assert!(fetch(&lab, "/healthz").contains("is not written because the disk is nearly full"));
    assert!(is_ready(&lab), "results and changes are taken");
    assert!(lab.log("gateway.log").contains("MB are free: the disk is nearly full"), "the log says so");
    assert!(gateway.attempt(&["status"]).expect_err("status fails").contains("no history is written"));
    let free = metric(&lab, &gateway, "fleetgate_disk_free_bytes").expect("the free bytes");
    assert!(free < HISTORY as f64, "{free}");
    assert_eq!(measure(&api), 202);
    gateway.cli(&["device", "add", "nas-2"]);
    gateway.stop();
    gateway.again();
    std::thread::sleep(SOME_LOOKS);
    assert_eq!(many_wait(&lab, &gateway), Some(true), "nothing is sealed");
    let points = api.get("hosts/nas-1/services/backup/metrics/v7").expect("an answer")["points"].clone();
    let newest = points.as_array().and_then(|points| points.last()).map(|point| point["value"].clone());
    assert_eq!(newest, Some(json!(60_007.0)), "graphs have what waits: {points}");

    // One result: the log of the database may grow by many.
    let well = json!({ "exit_status": 0, "output": "well" });
    disk.leave(RESERVE + BESIDE);
    assert_eq!(send(&api, OBJECTS[1], &well).0, 202);
    disk.leave(RESERVE - BESIDE);
    let (status, said) = send(&api, OBJECTS[1], &failure(1));
    assert_eq!((status, &said["code"]), (507, &json!("disk_full")), "{said}");
    assert!(gateway.refused(&["device", "add", "nas-3"]).contains("disk is full"));
    eventually("the page says so", PATIENCE, || banner(&api).contains("results and changes are refused"));
    assert!(fetch(&lab, "/readyz").contains("database: takes no writes: the disk is full"));
    assert_eq!(failures(&api, OBJECTS[1]), 0, "what was refused has no effect");
    disk.leave(RESERVE + BESIDE);
    assert_eq!(send(&api, OBJECTS[1], &well).0, 202, "at once");

    disk.make_room();
    eventually("the history is written again", PATIENCE, || many_wait(&lab, &gateway) == Some(false));
    assert_eq!(banner(&api), "");
    assert!(lab.log("gateway.log").contains("the disk has room again"));
    gateway.stop();
}

//! Devices submit results through real tunnels, with the tools of the smallest devices.

use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fleetgate_tests::lab::{
    API, Api, CHECKS, Gateway, KEEPALIVE, Lab, Running, WireGuard, eventually, settings,
};
use serde_json::{Value, json};

fn quick() -> String {
    settings(&[API, KEEPALIVE, CHECKS])
}

/// Returns the default settings: a minute's resolution, keepalives every 25 s.
fn idle() -> String {
    settings(&[API])
}

/// The time that is observed. It includes one `ping`, and two or three handshakes.
const WATCHED: Duration = Duration::from_secs(300);

const DOOR: &str = "http://10.112.0.1/results/backup";

fn with_backup<'a>(lab: &'a Lab, gateway: &Gateway<'_>, ns: &'static str, name: &str) -> WireGuard<'a> {
    let conf = gateway.cli(&["device", "add", name]);
    let tunnel = WireGuard::up(lab, ns, &conf);
    let passive = r#"{"type": "passive"}"#;
    gateway.cli(&["service", "set", name, "backup", "--check", passive, "--attempts", "1"]);
    gateway.becomes(name, None, "up");
    tunnel
}

/// Returns the status code of one request.
fn code(lab: &Lab, ns: &str, args: &str) -> String {
    lab.try_sh(ns, &format!("curl -g -s -m 5 -o /dev/null -w '%{{http_code}}' {args}")).1
}

#[test]
fn a_device_sends_results_through_its_tunnel_with_busybox_and_speaks_for_itself_only() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &quick());
    let _one = with_backup(&lab, &gateway, "d1", "cam-1");
    let _two = with_backup(&lab, &gateway, "d2", "cam-2");

    let said =
        lab.sh("d1", &format!("busybox wget -q -O - --post-data 'slow|files=7' '{DOOR}?exit_status=1'"));
    assert!(said.contains(r#""state":"warning""#), "{said}");
    assert_eq!(gateway.state("cam-1", Some("backup")), "warning", "on disk before the answer");
    assert_eq!(gateway.state("cam-2", Some("backup")), "pending");

    let v6 = "'http://[fd72:6c65:6574::1]/results/backup?exit_status=2'";
    assert_eq!(code(&lab, "d1", &format!("-d gone {v6}")), "202");
    assert_eq!(gateway.state("cam-1", Some("backup")), "critical");

    let bare = "POST /results/backup?exit_status=0 HTTP/1.0\\r\\nContent-Length: 4\\r\\n\\r\\nfine";
    let said = lab.sh("d1", &format!("printf '{bare}' | busybox nc 10.112.0.1 80"));
    assert!(said.starts_with("HTTP/1.0 202"), "{said}");
    assert_eq!(gateway.state("cam-1", Some("backup")), "ok");

    let me = lab.sh("d2", "busybox wget -q -O - http://10.112.0.1/");
    assert!(me.contains("you are cam-2"), "{me}");
    assert_eq!(code(&lab, "d2", &format!("-d x '{DOOR}?exit_status=2&host=cam-1'")), "403");
    assert_eq!(code(&lab, "d2", "-d x 'http://10.112.0.1/results/nope?exit_status=2'"), "404");
    assert_eq!(gateway.state("cam-1", Some("backup")), "ok");

    for closed in ["http://10.112.0.1:8080/", "http://10.112.0.1:22/", "http://10.112.0.3/"] {
        assert_eq!(code(&lab, "d2", &format!("-m 2 {closed}")), "000", "{closed} is closed");
    }
}

#[test]
fn what_fails_together_is_listed_shown_acknowledged_and_taken_back_by_command() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &quick());
    let _one = with_backup(&lab, &gateway, "d1", "cam-1");
    let passive = r#"{"type": "passive"}"#;
    gateway.cli(&["service", "set", "cam-1", "sync", "--check", passive, "--attempts", "1"]);
    let send = |service: &str, status: u8| {
        let door = format!("http://10.112.0.1/results/{service}?exit_status={status}");
        lab.sh("d1", &format!("busybox wget -q -O - --post-data x '{door}'"))
    };
    send("backup", 2);
    send("sync", 1);
    let listed = gateway.json(&["incident", "list"]);
    let id = listed[0]["id"].as_str().expect("an incident").to_owned();
    let shows = |args: &[&str], words: &[&str]| {
        let said = gateway.attempt(args).unwrap_or_else(|said| said);
        words.iter().for_each(|word| assert!(said.contains(word), "{args:?} without {word:?}: {said}"));
    };
    shows(&["incident", "list"], &[&id, "cam-1: several services have problems"]);
    shows(
        &["incident", "show", &id],
        &["problems: 2 of 2 members", "cam-1/backup, since", "cam-1/sync, since"],
    );
    for command in [vec!["host", "show", "cam-1"], vec!["status"], vec!["why", &id]] {
        shows(&command, &[&id]);
    }

    gateway.cli(&["incident", "ack", &id, "-m", "on my way", "--sticky", "--for", "4h"]);
    shows(&["incident", "show", &id], &["acknowledged by ", " until ", "on my way"]);
    shows(&["host", "show", "cam-1"], &["acknowledged"]);
    gateway.cli(&["incident", "unack", &id]);
    assert!(!gateway.cli(&["incident", "show", &id]).contains("acknowledged by"));
    assert!(gateway.refused(&["incident", "unack", &id]).contains("is not acknowledged"));

    send("backup", 0);
    shows(&["incident", "show", &id], &["problems: 1 of 2 members", "cam-1/backup, recovered"]);
    send("sync", 0);
    let late = gateway.refused(&["incident", "ack", &id]);
    assert!(late.contains("is closed: all its members have recovered"), "{late}");
    assert!(gateway.refused(&["incident", "show", "i_0000000000000"]).contains("i_0000000000000"));
}

#[test]
fn a_device_that_holds_every_connection_costs_its_own_share_alone() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &quick());
    let _one = with_backup(&lab, &gateway, "d1", "cam-1");
    let _two = with_backup(&lab, &gateway, "d2", "cam-2");
    lab.sh("d1", "for n in $(seq 40); do (sleep 60 | busybox nc 10.112.0.1 80 >/dev/null 2>&1 &) ; done");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(code(&lab, "d2", &format!("-d fine '{DOOR}?exit_status=0'")), "202");
    assert_eq!(gateway.state("cam-1", None), "up", "its own checks go on");
    let post = format!("-d fine '{DOOR}?exit_status=0'");
    eventually("the idle connections are closed, and it finds room again", Duration::from_secs(90), || {
        code(&lab, "d1", &post) == "202"
    });
}

/// Counts the tunnel's IP traffic, headers included, as a provider does.
fn count_datagrams(lab: &Lab, ns: &str) {
    lab.sh(
        ns,
        "nft add table inet cost; nft add counter inet cost datagrams; \
         nft add chain inet cost in '{ type filter hook input priority 0; }'; \
         nft add chain inet cost out '{ type filter hook output priority 0; }'; \
         nft add rule inet cost in udp sport 51820 counter name datagrams; \
         nft add rule inet cost out udp dport 51820 counter name datagrams",
    );
}

fn counted(lab: &Lab, ns: &str) -> u64 {
    let shown = lab.sh(ns, "nft list counter inet cost datagrams");
    let bytes = shown.split("bytes ").nth(1).and_then(|rest| rest.split_whitespace().next());
    bytes.expect("a count").parse().expect("a number")
}

fn told(gateway: &Gateway<'_>, host: &str) -> u64 {
    let days = gateway.json(&["host", "traffic", host])["days"].clone();
    days.as_array().into_iter().flatten().filter_map(|day| day["bytes"].as_u64()).sum()
}

#[test]
fn an_idle_device_stays_under_a_megabyte_a_day_on_the_wire() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &idle());
    let conf = gateway.cli(&["device", "add", "cam-1"]);
    let _tunnel = WireGuard::up(&lab, "d1", &conf);
    gateway.becomes("cam-1", None, "up");
    count_datagrams(&lab, "d1");
    // The first checks are over, and their traffic is published.
    std::thread::sleep(Duration::from_secs(10));
    let (before, told_before) = (counted(&lab, "d1"), told(&gateway, "cam-1"));
    std::thread::sleep(WATCHED);
    let cost = counted(&lab, "d1") - before;
    std::thread::sleep(Duration::from_secs(2));
    let told = told(&gateway, "cam-1") - told_before;
    // The published count lies between the two readings of the wire.
    let later = counted(&lab, "d1") - before;
    let day = cost * 86_400 / WATCHED.as_secs();
    println!(
        "on the wire in {} s: {cost} bytes ({told} by the gateway's count), {day} a day",
        WATCHED.as_secs()
    );
    assert!(day < 1_000_000, "{day} bytes a day");
    let (least, most) = (cost - cost / 20, later + later / 20);
    assert!((least..=most).contains(&told), "the gateway counted {told} of {cost} to {later} bytes");
}

/// Results that are committed although their senders never get a response.
const UNANSWERED: usize = 4;
/// Delays the return of each file sync in the gateway. Between the commit and the response the test
/// has time to kill it.
const HELD: &str = "inject=fsync,fdatasync:delay_exit=1000000";
/// Time after which written data is synced, while the sender still waits.
const SYNCED: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);

const TROUBLES: &str = "hosts/cam-1/services/backup/results";

/// One failure, submitted repeatedly.
struct Trouble {
    text: String,
    headers: String,
    body: Value,
}

impl Trouble {
    /// A failure identified by its time or by its key.
    fn new(n: usize) -> Trouble {
        let text = format!("trouble number {n}.");
        let mut body = json!({ "exit_status": 2, "output": text });
        if n % 2 == 1 {
            return Trouble { text, headers: format!("Idempotency-Key: trouble-{n}\r\n"), body };
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        body["timestamp"] = json!(now.as_secs_f64());
        Trouble { text, headers: String::new(), body }
    }

    fn send(&self, api: &Api) -> anyhow::Result<(u16, Value)> {
        api.answer_to("POST", TROUBLES, &self.headers, Some(&self.body))
    }
}

/// Delays every sync of the gateway. `None`: this machine does not permit tracing.
fn hold_syncs(lab: &Lab, gateway: &Gateway<'_>) -> Option<Running> {
    let pid = gateway.process.as_ref().expect("running").pid();
    let args = ["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", HELD, "-p", &pid.to_string()];
    let mut tracer = lab.spawn("gw", "strace.log", "strace", &args, &[]);
    let is_traced = |task: std::io::Result<std::fs::DirEntry>| {
        let status = task.and_then(|task| std::fs::read_to_string(task.path().join("status")));
        status.is_ok_and(|text| {
            text.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        })
    };
    let mut refused = false;
    eventually("the gateway is traced", PATIENCE, || {
        refused = tracer.ended(Duration::ZERO);
        refused || std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").all(is_traced)
    });
    (!refused).then_some(tracer)
}

/// Waits until the file has this text. The sync is held for a second only, so this looks often, and with a program
/// that is fast also in a log of megabytes.
fn wait_for(text: &str, file: &Path) {
    let line = format!("until grep -qaF '{text}' '{}'; do sleep 0.02; done", file.display());
    let patience = PATIENCE.as_secs().to_string();
    let found = Command::new("timeout").args([&patience, "sh", "-c", &line]).status();
    assert!(found.is_ok_and(|status| status.success()), "{text} is not written");
}

fn attempt(api: &Api) -> u64 {
    let backup = api.get("hosts/cam-1/services/backup").expect("an answer");
    if backup["last_result"] == "critical" { backup["attempt"].as_u64().expect("a number") } else { 0 }
}

/// Adds a device with a passive service that stays soft for long.
fn add_backup(gateway: &Gateway<'_>) {
    gateway.cli(&["device", "add", "cam-1", "--no-tunnel", "--direct", "10.77.1.2"]);
    let passive = r#"{"type": "passive"}"#;
    gateway.cli(&["service", "set", "cam-1", "backup", "--check", passive, "--attempts", "100"]);
}

#[test]
fn a_result_whose_sender_was_not_answered_because_the_gateway_was_killed_counts_once() {
    let lab = Lab::new();
    let mut gateway = Gateway::start(&lab, &settings(&[API]));
    add_backup(&gateway);
    let api = Api::new(gateway.socket());
    let well = json!({ "exit_status": 0, "output": "well" });
    assert_eq!(api.answer("POST", TROUBLES, Some(&well)).expect("an answer").0, 202);
    let log = lab.path("data").join("fleetgate.db-wal");
    for n in 0..UNANSWERED {
        let trouble = Trouble::new(n);
        let Some(tracer) = hold_syncs(&lab, &gateway) else {
            println!("skipped: strace cannot trace the gateway on this machine");
            return;
        };
        let answered = thread::scope(|scope| {
            let sender = scope.spawn(|| trouble.send(&api).is_ok());
            wait_for(&trouble.text, &log);
            sleep(SYNCED);
            gateway.process.as_mut().expect("running").kill();
            sender.join().expect("no panic")
        });
        drop(tracer);
        assert!(!answered, "it was killed before the answer");
        gateway.again();
        let count = n as u64 + 1;
        assert_eq!(attempt(&api), count, "{}: it was committed before the kill", trouble.text);
        let (status, again) = trouble.send(&api).expect("an answer");
        assert_eq!((status, &again["repeated"]), (202, &json!(true)), "{again}");
        assert_eq!(attempt(&api), count, "{} counts once", trouble.text);
    }
}

/// Results between two kills, and how often the gateway is killed.
const SENT: u64 = 25;
const KILLS: u64 = 3;

/// Returns the stored values of a metric, oldest first.
fn stored(api: &Api, label: &str) -> Vec<f64> {
    let path = format!("hosts/cam-1/services/backup/metrics/{label}?limit=1000");
    let samples = api.get(&path).expect("an answer");
    let points = samples["points"].as_array().expect("samples");
    points.iter().map(|point| point["value"].as_f64().expect("a value")).collect()
}

#[test]
fn a_result_that_was_acknowledged_has_its_samples_after_a_kill() {
    let lab = Lab::new();
    let mut gateway = Gateway::start(&lab, &settings(&[API]));
    add_backup(&gateway);
    let api = Api::new(gateway.socket());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for kill in 0..KILLS {
        for n in kill * SENT..(kill + 1) * SENT {
            // A second apart: of two results of one second, the later one counts.
            let at = (now - KILLS * SENT + n) as f64;
            let body = json!({ "exit_status": 0, "output": format!("well | files={n}"), "timestamp": at });
            assert_eq!(api.answer("POST", TROUBLES, Some(&body)).expect("an answer").0, 202);
        }
        gateway.process.as_mut().expect("running").kill();
        gateway.again();
        let expected: Vec<f64> = (0..(kill + 1) * SENT).map(|n| n as f64).collect();
        assert_eq!(stored(&api, "files"), expected, "after kill {kill}");
    }
}

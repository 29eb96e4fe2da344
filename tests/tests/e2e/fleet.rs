//! The life of a device, with a real WireGuard client, a real SSH server and a real mail server in
//! network namespaces. The gateway is an unprivileged process.

use std::time::Duration;

use fleetgate_tests::lab::{
    ACCOUNT, API, CHECKS, Gateway, KEEPALIVE, Lab, MAIL, MailSink, Make, SshServer, WireGuard,
    ensure_account, eventually, settings,
};
use serde_json::Value;

/// Messages are sent at once, without waiting for others of the incident.
const AT_ONCE: &str = "[notifications]\ngroup_wait = 0\n";

const PATIENCE: Duration = Duration::from_secs(90);

fn gateway_ssh_key(gateway: &Gateway<'_>) -> String {
    let facts = gateway.json(&["gateway", "show"]);
    facts["ssh_public_key"].as_str().expect("a public key").to_owned()
}

fn text_of(gateway: &Gateway<'_>, host: &str, field: &str) -> String {
    gateway.json(&["host", "show", host])["host"]["state"][field].as_str().unwrap_or_default().to_owned()
}

fn endpoint(gateway: &Gateway<'_>, host: &str) -> String {
    gateway.json(&["host", "show", host])["host"]["tunnel"]["endpoint"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn header(message: &str, name: &str) -> String {
    message.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned()
}

fn about<'m>(messages: &'m [String], words: &str) -> Vec<&'m String> {
    messages.iter().filter(|m| m.contains(words)).collect()
}

/// Plugins with the state that each must lead to. They have one attempt each, so a failure is hard
/// at once. `PID` becomes the id of this process: another suite on the machine has its own.
const PLUGINS: [(&str, &str, &str); 9] = [
    ("p-disk", "/usr/lib/nagios/plugins/check_disk -w 1% -c 1% -p /", "ok"),
    ("p-load", "/usr/lib/nagios/plugins/check_load -w 900,900,900 -c 999,999,999", "ok"),
    ("p-procs", "/usr/lib/nagios/plugins/check_procs -w 0:1 -c 0:99999", "warning"),
    ("p-users", "/usr/lib/nagios/plugins/check_users -w 500 -c 1000", "ok"),
    ("p-age", "/usr/lib/nagios/plugins/check_file_age -w 1 -c 2000000000 -f /etc/passwd", "warning"),
    (
        "p-long",
        "/usr/lib/nagios/plugins/check_dummy 0 \"$(printf 'all | a=1.5ms;~:3;@5:9;0\\nsecond line\\nthird | b=7%%')\"",
        "ok",
    ),
    ("p-slow", "sleep 61.PID; echo never", "unknown"),
    ("p-killed", "kill -9 $$", "unknown"),
    ("p-none", "/usr/lib/nagios/plugins/check_nothing", "unknown"),
];

/// Returns the details of one service.
fn shown(gateway: &Gateway<'_>, service: &str) -> Value {
    gateway.json(&["service", "show", "cam-1", service])
}

/// Returns the metric of that name: value and unit, then its warn, crit, min and max.
fn metric(service: &Value, label: &str) -> (f64, String, [Option<String>; 2], [Option<f64>; 2]) {
    let all = service["metrics"].as_array().expect("metrics");
    let found = all.iter().find(|m| m["label"] == label).unwrap_or_else(|| panic!("{label}: {service:#}"));
    let text = |field: &str| found[field].as_str().map(str::to_owned);
    let number = |field: &str| found[field].as_f64();
    let value = number("value").expect("a value");
    let uom = text("uom").unwrap_or_default();
    (value, uom, ["warn", "crit"].map(text), ["min", "max"].map(number))
}

fn plugins_of_debian_say_what_they_say_on_the_device(gateway: &Gateway<'_>, host: &str) {
    let id = std::process::id().to_string();
    for (name, line, _) in PLUGINS {
        let line = line.replace("PID", &id);
        let check = serde_json::json!({ "type": "command", "line": line }).to_string();
        gateway.cli(&[
            "service",
            "set",
            host,
            name,
            "--check",
            &check,
            "--attempts",
            "1",
            "--timeout",
            "1.5",
        ]);
    }
    for (name, _, state) in PLUGINS {
        gateway.becomes(host, Some(name), state);
    }
    metrics_have_units_and_limits(gateway);
    for (name, words) in [("p-slow", "timed out after 1.5 s"), ("p-killed", "killed by signal")] {
        let text = shown(gateway, name)["text"].as_str().unwrap_or_default().to_owned();
        assert!(text.contains(words), "{name}: {text}");
    }
    // The plugin reports OK, but a threshold on the server does not.
    gateway.cli(&["service", "set", host, "p-users", "--crit", "users=@0:400"]);
    gateway.becomes(host, Some("p-users"), "critical");
    PLUGINS.iter().for_each(|(name, ..)| drop(gateway.cli(&["service", "reset", host, name])));
    nothing_stays_of(&format!("sleep 61.{id}"));
}

/// Asserts that a cancelled command has ended on the device too.
fn nothing_stays_of(command: &str) {
    let stays = || std::process::Command::new("pgrep").args(["-fx", command]).output().expect("pgrep");
    eventually(&format!("no {command} is left on the device"), PATIENCE, || !stays().status.success());
}

fn metrics_have_units_and_limits(gateway: &Gateway<'_>) {
    let (used, uom, limits, [least, most]) = metric(&shown(gateway, "p-disk"), "/");
    assert_eq!((uom.as_str(), least), ("B", Some(0.0)));
    assert!(most.is_some_and(|most| 0.0 < used && used < most) && limits.iter().all(Option::is_some));
    for label in ["load1", "load5", "load15"] {
        let (load, _, limits, _) = metric(&shown(gateway, "p-load"), label);
        assert!(load >= 0.0 && limits == [Some("900".into()), Some("999".into())], "{label}: {limits:?}");
    }
    let (count, uom, limits, _) = metric(&shown(gateway, "p-procs"), "procs");
    assert!(count > 1.0 && uom.is_empty());
    // A range without a start begins at zero.
    assert_eq!(limits, [Some("1".into()), Some("99999".into())]);
    let long = shown(gateway, "p-long");
    assert_eq!((&long["text"], &long["long_text"]), (&"OK: all".into(), &"second line\nthird".into()));
    let (first, uom, limits, [least, _]) = metric(&long, "a");
    assert_eq!((first, uom.as_str(), least), (1.5, "ms", Some(0.0)));
    assert_eq!(limits, [Some("~:3".into()), Some("@5:9".into())]);
    assert_eq!(metric(&long, "b").0, 7.0);
}

#[test]
fn a_device_is_watched_through_every_kind_of_trouble_and_each_is_mailed_once() {
    let lab = Lab::new();
    ensure_account();
    let mut mail = MailSink::start(&lab);
    let mut gateway = Gateway::start(&lab, &settings(&[API, KEEPALIVE, CHECKS, MAIL, AT_ONCE]));
    let mut sshd = SshServer::start(&lab, "d1", Make::OpenSsh, &gateway_ssh_key(&gateway));

    let conf = gateway.cli(&[
        "device",
        "add",
        "cam-1",
        "--direct",
        "10.77.1.2",
        "--ssh-user",
        ACCOUNT,
        "--label",
        "site=hill",
    ]);
    gateway.bear_with_the_machine("cam-1");
    gateway.cli(&["device", "add", "ghost"]);
    let mut tunnel = WireGuard::up(&lab, "d1", &conf);
    gateway.becomes("cam-1", None, "up");
    for service in ["tunnel", "ping", "ssh", "disk", "load", "memory"] {
        gateway.becomes("cam-1", Some(service), "ok");
    }

    plugins_of_debian_say_what_they_say_on_the_device(&gateway, "cam-1");

    // The tunnel breaks, and the device replies on the Internet.
    tunnel.down();
    gateway.becomes("cam-1", Some("tunnel"), "critical");
    assert_eq!(gateway.state("cam-1", None), "up");
    eventually("the host is proved alive directly", PATIENCE, || {
        text_of(&gateway, "cam-1", "source") == "direct"
    });
    gateway.verdict_becomes("cam-1", "tunnel_down");
    gateway.becomes("cam-1", Some("ssh"), "ok");

    // Both paths are gone.
    sshd.stop();
    gateway.becomes("cam-1", None, "down");
    // The address refuses connections, so a machine is there, and no other host can be probed.
    gateway.verdict_becomes("cam-1", "undetermined");
    eventually("DOWN is mailed", PATIENCE, || !about(&mail.messages(), "Subject: DOWN cam-1").is_empty());

    // The mail server is down when the host recovers; the message comes later. A message whose acceptance the gateway
    // did not hear of would rightly come again.
    eventually("the gateway knows what was mailed", PATIENCE, || {
        let events = gateway.cli(&["events", "-n", "400", "--json"]);
        events.matches("\"message.sent\"").count() >= mail.messages().len()
    });
    mail.stop();
    sshd.again();
    tunnel.start();
    gateway.becomes("cam-1", None, "up");
    gateway.becomes("cam-1", Some("tunnel"), "ok");
    gateway.verdict_becomes("cam-1", "ok");
    mail.again();
    eventually("the recovery is mailed", Duration::from_secs(180), || {
        !about(&mail.messages(), "Subject: RECOVERED cam-1").is_empty()
    });

    assert_eq!(
        gateway.state("ghost", None),
        "pending",
        "what never came and has no other address is pending"
    );

    // Roaming: the endpoint follows authenticated packets.
    lab.sh("d1", "ip route replace default via 10.77.2.1 dev e2 && ip link set e1 down");
    eventually("the endpoint follows", PATIENCE, || endpoint(&gateway, "cam-1").starts_with("10.77.2.2:"));
    assert_eq!(gateway.state("cam-1", None), "up");

    // Killed and started again: states stay, nothing is repeated, and the tunnel carries data
    // again. The new endpoint is on disk within two seconds. An earlier kill would make the gateway
    // dial the old address until the device sends a packet.
    std::thread::sleep(Duration::from_secs(3));
    gateway.process.as_mut().expect("running").kill();
    gateway.again();
    assert_eq!(gateway.state("cam-1", None), "up", "a restart continues where it was");
    eventually("the gateway found the device again", PATIENCE, || {
        gateway.json(&["host", "show", "cam-1"])["host"]["tunnel"]["established"] == true
    });
    // A message that still waited for the mail server may come now; a sent one must not come again.
    let all = mail.messages();
    let mut ids: Vec<String> = all.iter().map(|m| header(m, "Message-ID:")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "a message came twice: {:?}", mail.subjects());
    let log = gateway.cli(&["events", "-n", "40"]);
    for subject in ["DOWN cam-1", "RECOVERED cam-1"] {
        let times = mail.subjects().iter().filter(|s| *s == subject).count();
        assert_eq!(times, 1, "{subject}: {:?}\n{log}", mail.subjects());
    }

    // With another host key no login happens until a person trusts the key.
    sshd.stop();
    sshd.new_host_key();
    sshd.again();
    gateway.becomes("cam-1", Some("ssh"), "critical");

    // After the removal the tunnel ends at once.
    gateway.cli(&["device", "remove", "cam-1"]);
    let own = tunnel.own_v4();
    assert!(!own.is_empty());
    gateway.refused(&["host", "show", "cam-1"]);

    gateway.stop();
}

#[test]
fn a_device_enrols_itself_with_the_script_and_is_approved() {
    let lab = Lab::new();
    ensure_account();
    let gateway = Gateway::start(&lab, &settings(&[API, KEEPALIVE, CHECKS, MAIL, AT_ONCE]));
    let sshd = SshServer::start(&lab, "d2", Make::Dropbear, "");
    let token = gateway.cli(&["token", "create", "field", "--enrol", "--approval", "--ssh-user", ACCOUNT]);
    let token = token.trim();
    let etc = lab.path("etc");
    let interface = format!("e2e{}", std::process::id());
    let enrol = format!(
        "export FLEETGATE_ETC={etc} FLEETGATE_INTERFACE={interface} WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go; \
         curl -fsS http://10.77.0.2:8080/enrol.sh -o {etc}.sh && \
         sh {etc}.sh --url http://10.77.0.2:8080 --token {token} --name nas-2 --ssh-user {ACCOUNT} --ssh-host-key {key} \
         --no-service --wait 60",
        etc = etc.display(),
        key = sshd.public_key_file().display()
    );

    let log = "enrol.log";
    let mut script = lab.spawn("d2", log, "sh", &["-c", &enrol], &[]);
    eventually("the enrolment waits for a person", PATIENCE, || {
        gateway.json(&["enrolment", "list"]).as_array().is_some_and(|list| !list.is_empty())
    });
    let list = gateway.json(&["enrolment", "list"]);
    let id = list[0]["id"].as_str().expect("an id");
    assert!(!gateway.json(&["host", "list"]).to_string().contains("nas-2"), "no host before the approval");
    gateway.cli(&["enrolment", "approve", id]);
    assert!(script.ended(PATIENCE), "{}", lab.log(log));

    gateway.bear_with_the_machine("nas-2");
    gateway.becomes("nas-2", None, "up");
    for service in ["tunnel", "ping", "ssh", "disk"] {
        gateway.becomes("nas-2", Some(service), "ok");
    }

    // dropbear does not kill the command it started either.
    let check = r#"{"type": "command", "line": "sleep 62.25; echo never"}"#;
    gateway.cli(&["service", "set", "nas-2", "p-slow", "--check", check, "--timeout", "1.5"]);
    gateway.becomes("nas-2", Some("p-slow"), "unknown");
    gateway.cli(&["service", "reset", "nas-2", "p-slow"]);
    nothing_stays_of("sleep 62.25");

    another_preshared_key_is_named(&lab, &gateway, &interface);

    // Running the enrolment again gives the same device and creates nothing new.
    let (ok, said) = lab.try_sh("d2", &enrol);
    assert!(ok, "{said}");
    assert_eq!(gateway.json(&["host", "list"]).as_array().map(Vec::len), Some(1));

    // The spent token is refused with another key.
    let other = enrol.replace(&format!("{}", etc.display()), &format!("{}-other", etc.display()));
    let (ok, said) = lab.try_sh("d2", &other);
    assert!(!ok, "a spent token was taken: {said}");
    let _ = lab.try_sh("d2", &format!("ip link del {interface}"));
}

/// The device is alive, but its handshakes fail.
fn another_preshared_key_is_named(lab: &Lab, gateway: &Gateway<'_>, interface: &str) {
    let (right, wrong) = (lab.path("right.conf"), lab.path("wrong.conf"));
    let (right, wrong) = (right.display(), wrong.display());
    let other = "eHh4".repeat(10) + "eHg=";
    lab.sh(
        "d2",
        &format!(
            "umask 077; wg showconf {interface} > {right}; \
             sed 's|^PresharedKey.*|PresharedKey = {other}|' {right} > {wrong}; wg setconf {interface} {wrong}"
        ),
    );
    gateway.becomes("nas-2", None, "down");
    // wireguard-go makes one handshake here and then waits to be dialled. That does not prove that
    // it lives, because an observer of a dial can send a wrong response to it.
    eventually("the preshared key is one of the candidates", PATIENCE, || {
        let verdict = gateway.json(&["host", "show", "nas-2"])["host"]["verdict"].clone();
        verdict["candidates"].as_array().is_some_and(|all| all.iter().any(|kind| kind == "key_refused"))
    });
    lab.sh("d2", &format!("wg setconf {interface} {right}"));
    gateway.becomes("nas-2", None, "up");
    gateway.verdict_becomes("nas-2", "ok");
}

//! Devices send their own results through real tunnels, with what the smallest of them have.

use std::time::Duration;

use fleetgate_tests::lab::{Gateway, Lab, WireGuard, eventually};

const SETTINGS: &str = r#"
endpoint = "10.77.0.2:51820"
api_listen = "10.77.0.2:8080"
api_cleartext = true
keepalive = 2

[checks]
interval = 3
retry = 1
attempts = 3
timeout = 2
ping_interval = 3
"#;

const DOOR: &str = "http://172.24.0.1/results/backup";

fn with_backup<'a>(lab: &'a Lab, gateway: &Gateway<'_>, ns: &'static str, name: &str) -> WireGuard<'a> {
    let conf = gateway.cli(&["device", "add", name]);
    let tunnel = WireGuard::up(lab, ns, &conf);
    let passive = r#"{"type": "passive"}"#;
    gateway.cli(&["service", "set", name, "backup", "--check", passive, "--attempts", "1"]);
    gateway.becomes(name, None, "up");
    tunnel
}

/// The status code of one request.
fn code(lab: &Lab, ns: &str, args: &str) -> String {
    lab.try_sh(ns, &format!("curl -g -s -m 5 -o /dev/null -w '%{{http_code}}' {args}")).1
}

#[test]
fn a_device_sends_results_through_its_tunnel_with_busybox_and_speaks_for_itself_only() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, SETTINGS);
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
    let said = lab.sh("d1", &format!("printf '{bare}' | busybox nc 172.24.0.1 80"));
    assert!(said.starts_with("HTTP/1.0 202"), "{said}");
    assert_eq!(gateway.state("cam-1", Some("backup")), "ok");

    let me = lab.sh("d2", "busybox wget -q -O - http://172.24.0.1/");
    assert!(me.contains("you are cam-2"), "{me}");
    assert_eq!(code(&lab, "d2", &format!("-d x '{DOOR}?exit_status=2&host=cam-1'")), "403");
    assert_eq!(code(&lab, "d2", "-d x 'http://172.24.0.1/results/nope?exit_status=2'"), "404");
    assert_eq!(gateway.state("cam-1", Some("backup")), "ok");

    for closed in ["http://172.24.0.1:8080/", "http://172.24.0.1:22/", "http://172.24.0.3/"] {
        assert_eq!(code(&lab, "d2", &format!("-m 2 {closed}")), "000", "{closed} is closed");
    }
}

#[test]
fn a_device_that_holds_every_connection_costs_its_own_share_alone() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, SETTINGS);
    let _one = with_backup(&lab, &gateway, "d1", "cam-1");
    let _two = with_backup(&lab, &gateway, "d2", "cam-2");
    lab.sh("d1", "for n in $(seq 40); do (sleep 60 | busybox nc 172.24.0.1 80 >/dev/null 2>&1 &) ; done");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(code(&lab, "d2", &format!("-d fine '{DOOR}?exit_status=0'")), "202");
    assert_eq!(gateway.state("cam-1", None), "up", "its own checks go on");
    let post = format!("-d fine '{DOOR}?exit_status=0'");
    eventually("the idle connections are closed, and it finds room again", Duration::from_secs(90), || {
        code(&lab, "d1", &post) == "202"
    });
}

//! iperf3 from a laptop through the gateway to a device, until the grant ends.

use std::time::{Duration, Instant};

use fleetgate_tests::lab::{DEVICES, LAPTOP, Lab, Reach, eventually};
use serde_json::Value;

/// The time of the grant. Three runs of a second and two long ones fit into it.
const GRANTED: Duration = Duration::from_secs(12);

fn count_from(lab: &Lab, ns: &str, source: &str) {
    lab.sh(
        ns,
        &format!(
            "nft add table inet seen; nft add chain inet seen in '{{ type filter hook prerouting priority -300; }}'; \
             nft add rule inet seen in ip saddr {source} counter"
        ),
    );
}

fn counted(lab: &Lab, ns: &str) -> u64 {
    let text = lab.sh(ns, "nft list table inet seen");
    let count = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    count.and_then(|count| count.parse().ok()).expect("a counter")
}

#[test]
fn iperf3_runs_in_both_directions_and_ends_with_its_grant() {
    let lab = Lab::new();
    let reach = Reach::new(&lab);
    let (device, laptop) = (reach.v4(0), reach.laptop.own_v4());
    let servers = ["5201", "5202"].map(|port| {
        let server = lab.spawn(DEVICES[0], &format!("iperf-{port}.log"), "iperf3", &["-s", "-p", port], &[]);
        eventually("iperf3 listens", Duration::from_secs(10), || {
            lab.try_sh(DEVICES[0], &format!("ss -ltn | grep -q ':{port} '")).0
        });
        server
    });
    let run = |arguments: &str| -> Value {
        let (_, said) = lab.try_sh(LAPTOP, &format!("timeout 8 iperf3 -J -c {device} -t 1 {arguments}"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments}: {error}: {said}"))
    };
    let denied = run("-p 5201");
    assert!(denied["error"].is_string(), "no grant yet: {denied}");
    let seconds = format!("{}s", GRANTED.as_secs());
    reach.gateway.cli(&[
        "grant",
        "add",
        "--user",
        "anna",
        "--to",
        "cam-1",
        "--tcp",
        "5201-5202",
        "--udp",
        "5201-5202",
        "--for",
        &seconds,
    ]);
    let begun = Instant::now();
    for (arguments, sum) in [("", "sum_received"), ("-R", "sum_received"), ("-u -b 8M", "sum")] {
        let result = run(&format!("-p 5201 {arguments}"));
        let bytes = result["end"][sum]["bytes"].as_f64().unwrap_or_default();
        println!("iperf3 {arguments}: {:.1} Mbit/s", bytes * 8.0 / 1e6);
        assert!(bytes > 500_000.0, "{arguments}: {result}");
    }
    count_from(&lab, DEVICES[0], &laptop);
    count_from(&lab, LAPTOP, &device);
    // A flood to the device, and one from it.
    let long = |port: &str, arguments: &[&str]| {
        let all = [&["-c", &device, "-p", port, "-t", "60"], arguments].concat();
        lab.spawn(LAPTOP, &format!("iperf-long-{port}.log"), "iperf3", &all, &[])
    };
    let _floods = [long("5201", &["-b", "50M"]), long("5202", &["-u", "-b", "4M", "-R"])];
    let both = || [counted(&lab, DEVICES[0]), counted(&lab, LAPTOP)];
    std::thread::sleep((GRANTED - Duration::from_secs(2)).saturating_sub(begun.elapsed()));
    let [to, from] = both();
    assert!(to > 500 && from > 500, "{to} and {from} packets while it is granted");
    std::thread::sleep((GRANTED + Duration::from_secs(1)).saturating_sub(begun.elapsed()));
    let at_the_end = both();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(both(), at_the_end, "no packet in either direction after the end");
    drop(servers);
}

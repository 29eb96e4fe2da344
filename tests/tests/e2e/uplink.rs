//! Two hundred real tunnels, and the gateway's own link is cut. No host is marked down, hardly any
//! notification is sent, and a real failure during the cut is reported afterwards.
//!
//! The devices are boringtun on sockets of their own in another namespace, with WireGuard's timers.
//! As many processes of `wireguard-go` would take 4 GB and most of two cores, and would send the
//! same datagrams. One device uses it, so that the cut also affects a device as in the field.

use std::thread::sleep;
use std::time::{Duration, Instant};

use fleetgate_keys::conf::Conf;
use fleetgate_tests::attacker::socket_in;
use fleetgate_tests::device::Device;
use fleetgate_tests::lab::{Gateway, KEEPALIVE, Lab, MAIL, MailSink, WireGuard, eventually, run, settings};
use serde_json::Value;

const DEVICES: usize = 200;
/// The device with a real client.
const STOCK: usize = 0;
/// The device that fails during the cut.
const DIES: usize = 77;
/// Many times as long as three failures take, and twice as long as the gateway needs to be sure.
const CUT: Duration = Duration::from_secs(60);
const DEATH: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(120);
/// All pending notifications have been sent after this time.
const QUIET: Duration = Duration::from_secs(12);

/// Less frequent than elsewhere, because two hundred devices are checked.
const RARE: &str = "[checks]\ninterval = 4\nretry = 1\nattempts = 3\ntimeout = 2\nping_interval = 10\n";
const GROUPED: &str = "[notifications]\ngroup_wait = 2\n";

fn name(n: usize) -> String {
    format!("dev-{n:03}")
}

/// Returns their configurations, from one call of the API each.
fn enrol(lab: &Lab) -> Vec<String> {
    let socket = lab.path("data").join("fleetgate.sock");
    let call = format!(
        "for n in $(seq -w 0 {last}); do \
           curl -sS --unix-socket {socket} -H 'content-type: application/json' \
             -d '{{\"name\": \"dev-'$n'\"}}' http://localhost/api/v1/devices; echo; \
         done",
        last = format_args!("{:03}", DEVICES - 1),
        socket = socket.display()
    );
    let answers = lab.sh("gw", &call);
    let conf = |line: &str| {
        let made: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        made["credentials"]["conf"].as_str().unwrap_or_else(|| panic!("no configuration: {line}")).to_owned()
    };
    answers.lines().filter(|line| !line.is_empty()).map(conf).collect()
}

struct Fleet<'a> {
    devices: Vec<Option<Device>>,
    _stock: WireGuard<'a>,
}

impl<'a> Fleet<'a> {
    fn start(lab: &'a Lab) -> Fleet<'a> {
        let confs = enrol(lab);
        assert_eq!(confs.len(), DEVICES);
        let gateway = "10.77.0.2:51820".parse().expect("an address");
        let start = |(n, conf): (usize, &String)| {
            let conf = Conf::parse(conf).expect("a configuration");
            (n != STOCK).then(|| Device::start(&conf, socket_in(&lab.ns("d1"), "0.0.0.0:0"), gateway))
        };
        let devices = confs.iter().enumerate().map(start).collect();
        Fleet { devices, _stock: WireGuard::up(lab, "d2", &confs[STOCK]) }
    }
}

/// Returns the number of hosts in this state.
fn count(gateway: &Gateway<'_>, state: &str) -> u64 {
    gateway.json(&["status"])["hosts"][state].as_u64().expect("a number")
}

/// Returns the hosts that were ever down.
fn ever_down(gateway: &Gateway<'_>) -> Vec<String> {
    let log = gateway.cli(&["events", "-n", "1000", "--json"]);
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    let downs = events.filter(|e| {
        e["kind"] == "state.changed"
            && e["object"] == "host"
            && e["data"]["to"] == "down"
            && e["data"]["state_type"] == "hard"
    });
    downs.map(|e| e["object_name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Restores the link. An interface that was taken down must be configured anew.
fn restore_link(lab: &Lab) {
    lab.sh(
        "gw",
        "ip link set e0 up; ip route add default via 10.77.0.1; \
         ip -6 addr replace fd77:0::2/64 dev e0 nodad; ip -6 route add default via fd77:0::1",
    );
}

#[test]
fn two_hundred_devices_behind_a_cut_uplink_are_three_messages_and_none_is_down() {
    let lab = Lab::new();
    let mail = MailSink::start(&lab);
    let mut gateway = Gateway::start(&lab, &settings(&[KEEPALIVE, RARE, MAIL, GROUPED]));
    let mut fleet = Fleet::start(&lab);
    eventually("all are up", PATIENCE, || count(&gateway, "up") == DEVICES as u64);
    assert_eq!(mail.subjects(), [""; 0], "all is well");

    lab.sh("gw", "ip link set e0 down");
    let cut = Instant::now();
    while cut.elapsed() < CUT {
        sleep(Duration::from_secs(2));
        if cut.elapsed() > DEATH {
            fleet.devices[DIES] = None;
        }
        assert_eq!(count(&gateway, "down"), 0, "after {:?}: {:?}", cut.elapsed(), ever_down(&gateway));
    }
    gateway.verdict_becomes(&name(0), "gateway_uplink_lost");
    restore_link(&lab);

    let rest = DEVICES as u64 - 1;
    eventually("what died is found, and all others", PATIENCE, || {
        count(&gateway, "up") == rest && count(&gateway, "down") == 1
    });
    // It is the only host of its site, and has no second path.
    gateway.verdict_becomes(&name(DIES), "undetermined");
    eventually("it is told of", PATIENCE, || mail.messages().iter().any(|m| m.contains(&name(DIES))));
    sleep(QUIET);
    assert_eq!(ever_down(&gateway), [name(DIES)]);
    let told = mail.subjects();
    let dead = format!("DOWN {}", name(DIES));
    // Notifications about one host are in order. Those of another one do not wait while a mail is tried again.
    let (of_gateway, of_others): (Vec<&String>, Vec<&String>) =
        told.iter().partition(|subject| subject.ends_with(" gateway"));
    assert_eq!(of_gateway, ["DOWN gateway", "RECOVERED gateway"], "the loss and its end");
    assert_eq!(of_others, [&dead], "what it hid");
    let others = |m: &String| (0..DEVICES).any(|n| n != DIES && m.contains(&name(n)));
    assert_eq!(mail.messages().iter().filter(|m| others(m)).count(), 0, "{told:?}");
    gateway.stop();
    assert_eq!(stored(&lab), "1 True", "one row for the loss, and others for the dead device at most");
}

/// Returns the number of stored losses of the uplink, and whether states of one host at most changed meanwhile.
fn stored(lab: &Lab) -> String {
    let code = "import sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute('''
    select count(distinct l.id), count(distinct i.host) <= 1
    from intervals l left join intervals i on i.series in ('state', 'unreachable')
                                              and i.began_at >= l.began_at and i.began_at < l.ended_at
    where l.series = 'uplink_lost' ''')
losses, few = rows.fetchone()
print(losses, bool(few))";
    let file = lab.path("data").join("fleetgate.db").display().to_string();
    run("/usr/bin/python3", &["-c", code, &file]).trim().to_owned()
}

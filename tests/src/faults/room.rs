//! One small, entirely real fleet in namespaces of its own: a gateway, devices with wireguard-go,
//! an SSH server, hosts behind a device, and a mail server.
//!
//! ```text
//!   gw ── r ── one   10.77.1.2  site hill, SSH ── lan: camera 192.168.50.2, nas .3, printer .4
//!         ├─── two   10.77.2.2  site hill
//!         ├─── three 10.77.6.2  site hill
//!         ├─── far   10.77.3.2  site dale
//!         ├─── lone  10.77.4.2  no site
//!         ├─── alt   10.77.5.2  a copy of a device
//!         └─── m     10.77.9.2  mail
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{
    ACCOUNT, CHECKS, Gateway, KEEPALIVE, Lab, MAIL, MailSink, Make, SshServer, WireGuard, eventually, run,
    settings,
};

use super::truth::Host;
use crate::lab::Api;

/// Time for the first check of everything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
const AROUND: [(&str, u8); 8] =
    [("gw", 0), ("one", 1), ("two", 2), ("far", 3), ("lone", 4), ("alt", 5), ("three", 6), ("m", 9)];
const GROUPED: &str = "[notifications]\ngroup_wait = 2\n";
/// Anchors on the mail server's machine: one port accepts, the other refuses, and both prove the
/// uplink.
const ANCHORS: &str = "[uplink]\nanchors = [\"10.77.9.2:2525\", \"10.77.9.2:9\"]\ninterval = 2\n";
/// The network behind `one`.
const LAN: &str = "192.168.50";

/// The options of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `one` has an Internet address.
    pub direct: bool,
    /// There are hosts behind `one`.
    pub lan: bool,
    /// The gateway has no anchors to probe its own uplink.
    pub no_anchors: bool,
}

impl Plan {
    pub fn hosts(self) -> Vec<Host> {
        let behind = Host::BEHIND.into_iter().filter(|_| self.lan);
        Host::DEVICES.into_iter().chain(behind).collect()
    }
}

pub struct Room<'a> {
    pub lab: &'a Lab,
    pub plan: Plan,
    _gateway: Gateway<'a>,
    pub api: Api,
    pub tunnels: BTreeMap<Host, WireGuard<'a>>,
    /// The configurations from the enrolment.
    pub confs: BTreeMap<Host, String>,
    pub ssh: SshServer<'a>,
    /// The copy of a device, while it exists.
    pub copy: Option<WireGuard<'a>>,
    pub mail: MailSink<'a>,
}

/// Makes the namespaces of a room.
pub fn lab() -> Lab {
    let mut lab = Lab::of(&AROUND);
    lab.namespace("lan");
    lab
}

/// Returns the net of a device's namespace, which has the name of the host.
pub fn net(device: Host) -> u8 {
    let found = AROUND.iter().find(|(name, _)| *name == device.name());
    found.expect("a device has a net").1
}

impl<'a> Room<'a> {
    /// Opens a room; every host is ok when it returns.
    pub fn open(lab: &'a Lab, plan: Plan) -> Room<'a> {
        let mail = MailSink::start(lab);
        let anchors = if plan.no_anchors { "" } else { ANCHORS };
        let gateway = Gateway::start(lab, &settings(&[KEEPALIVE, CHECKS, anchors, GROUPED, MAIL]));
        let api = Api::new(gateway.socket());
        call(&api, "PUT", "profiles/room", &profile());
        let facts = api.get("gateway").expect("the gateway answers");
        let key = facts["ssh_public_key"].as_str().expect("a public key");
        let ssh = SshServer::start(lab, "one", Make::OpenSsh, key);
        let mut room = Room {
            lab,
            plan,
            _gateway: gateway,
            api,
            tunnels: BTreeMap::new(),
            confs: BTreeMap::new(),
            ssh,
            copy: None,
            mail,
        };
        Host::DEVICES.iter().for_each(|device| room.enrol(*device));
        if plan.lan {
            room.open_lan();
        }
        room.is_well();
        room
    }

    fn enrol(&mut self, device: Host) {
        let made = call(&self.api, "POST", "devices", &self.described(device));
        let conf = made["credentials"]["conf"].as_str().expect("a configuration").to_owned();
        self.tunnels.insert(device, WireGuard::up(self.lab, device.name(), &conf));
        self.confs.insert(device, conf);
    }

    fn described(&self, device: Host) -> Value {
        let labels = match device {
            Host::One | Host::Two | Host::Three => json!({"site": "hill"}),
            Host::Far => json!({"site": "dale"}),
            _ => json!({}),
        };
        let mut body = json!({"name": device.name(), "labels": labels, "profile": "room"});
        if device == Host::One {
            body["ssh"] = json!({"user": ACCOUNT});
            body["networks"] = json!([format!("{LAN}.0/24")]);
            body["direct_address"] = if self.plan.direct { json!("10.77.1.2") } else { Value::Null };
        }
        body
    }

    fn open_lan(&self) {
        let lan = self.lab.ns("lan");
        let one = self.lab.ns(Host::One.name());
        run(
            "ip",
            &["link", "add", "lan0", "netns", &one, "type", "veth", "peer", "name", "lan1", "netns", &lan],
        );
        self.lab.sh(
            "one",
            &format!(
                "sysctl -qw net.ipv4.ip_forward=1; ip addr add {LAN}.1/24 dev lan0; ip link set lan0 up"
            ),
        );
        self.lab.sh("lan", "ip link set lan1 up");
        for host in Host::BEHIND {
            let address = Room::address_behind(host);
            self.lab.sh("lan", &format!("ip addr add {address}/32 dev lan1"));
            let body = json!({"name": host.name(), "via": "one", "address": address, "profile": "room"});
            call(&self.api, "POST", "hosts", &body);
        }
        self.lab.sh("lan", &format!("ip route add {LAN}.1 dev lan1; ip route add default via {LAN}.1"));
    }

    pub fn address_behind(host: Host) -> String {
        let last = match host {
            Host::Camera => 2,
            Host::Nas => 3,
            _ => 4,
        };
        format!("{LAN}.{last}")
    }

    /// Waits until each host is up with the verdict `ok`, and each service was checked.
    fn is_well(&self) {
        for host in self.plan.hosts() {
            eventually(&format!("{} is well", host.name()), PATIENCE, || self.says_well(host));
        }
    }

    fn says_well(&self, host: Host) -> bool {
        let Ok(row) = self.api.get(&format!("hosts/{}", host.name())) else { return false };
        let services = &row["services"];
        row["state"]["state"] == "up" && row["verdict"]["kind"] == "ok" && services["pending"] == 0
    }
}

/// Returns the checks of a device. None of them depends on the machine that runs the test.
fn profile() -> Value {
    json!({"services": {
        "tunnel": {"check": {"type": "tunnel"}},
        "ping": {"check": {"type": "ping", "count": 3}},
        "ssh": {"check": {"type": "ssh"}},
        "uptime": {"check": {"type": "sensor", "sensor": "uptime"}},
    }})
}

pub fn call(api: &Api, method: &str, path: &str, body: &Value) -> Value {
    api.send(method, path, body).unwrap_or_else(|e| panic!("{e:#}"))
}

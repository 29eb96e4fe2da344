//! People reach devices through the gateway: a laptop with a real WireGuard client, a device with a real
//! SSH server, and a host behind it.

use std::fs;
use std::time::{Duration, Instant};

use fleetgate_tests::lab::{
    ACCOUNT, API, CHECKS, Gateway, KEEPALIVE, Lab, Make, SshServer, WireGuard, eventually, run, settings,
};

const PATIENCE: Duration = Duration::from_secs(30);
/// The laptop, the device, and the machine behind the device, which the device reaches by its own route.
const LAPTOP: &str = "x";
const DEVICE: &str = "d1";
const BEHIND: &str = "m";
const BEHIND_ADDRESS: &str = "10.77.9.2";
const NETWORK: &str = "10.77.9.0/24";

struct Site<'a> {
    lab: &'a Lab,
    gateway: Gateway<'a>,
    _device: WireGuard<'a>,
    laptop: WireGuard<'a>,
    _ssh: SshServer<'a>,
    key: String,
}

fn inner(gateway: &Gateway<'_>, host: &str, field: &str) -> String {
    gateway.json(&["host", "show", host])["host"][field].as_str().unwrap_or_default().to_owned()
}

fn site(lab: &Lab) -> Site<'_> {
    let gateway = Gateway::start(lab, &settings(&[KEEPALIVE, CHECKS]));
    let conf = gateway.cli(&["device", "add", "cam-1"]);
    let device = WireGuard::up(lab, DEVICE, &conf);
    gateway.cli(&["user", "add", "anna", "--role", "operator"]);
    let conf = gateway.cli(&["operator", "add", "anna-laptop", "--user", "anna"]);
    let laptop = WireGuard::up(lab, LAPTOP, &conf);
    let key = lab.path("anna").display().to_string();
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &key]);
    let public = fs::read_to_string(format!("{key}.pub")).expect("a public key");
    let ssh = SshServer::start(lab, DEVICE, Make::OpenSsh, &public);
    gateway.becomes("cam-1", None, "up");
    Site { lab, gateway, _device: device, laptop, _ssh: ssh, key }
}

impl Site<'_> {
    fn device_v4(&self) -> String {
        inner(&self.gateway, "cam-1", "address")
    }

    fn ssh(&self, address: &str, command: &str) -> String {
        let options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes \
                       -o ConnectTimeout=5 -o LogLevel=ERROR";
        format!("ssh {options} -i {} {ACCOUNT}@{address} '{command}'", self.key)
    }

    /// The copy on the device, which shares its files with all labs.
    fn copied(&self) -> String {
        format!("/tmp/{}", self.lab.ns("copied"))
    }

    /// Returns a command that copies a file by scp for longer than any test runs.
    fn endless_copy(&self, address: &str) -> String {
        let (file, copied) = (self.lab.path("large").display().to_string(), self.copied());
        format!(
            "truncate -s 100M {file}; exec scp -q -O -l 2000 -i {} -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile=/dev/null -o BatchMode=yes {file} {ACCOUNT}@{address}:{copied}",
            self.key
        )
    }

    fn pings(&self, address: &str) -> bool {
        self.lab.try_sh(LAPTOP, &format!("ping -n -c 1 -W 2 {address}")).0
    }

    /// Returns how long a TCP connection takes to be refused.
    fn refused(&self, address: &str, port: u16) -> Duration {
        let begun = Instant::now();
        let line = format!("timeout 10 bash -c '</dev/tcp/{address}/{port}'");
        assert!(!self.lab.try_sh(LAPTOP, &line).0, "{address} {port} is closed");
        begun.elapsed()
    }

    /// Counts packets of the laptop that reach the device.
    fn count_arrivals(&self) {
        let own = self.laptop.own_v4();
        self.lab.sh(
            DEVICE,
            &format!(
                "nft add table inet seen; nft add chain inet seen in '{{ type filter hook input priority 0; }}'; \
                 nft add rule inet seen in ip saddr {own} counter"
            ),
        );
    }

    fn arrivals(&self) -> u64 {
        let text = self.lab.sh(DEVICE, "nft list table inet seen");
        let count = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse().ok()).expect("a counter")
    }

    /// Returns the count once nothing more of former connections arrives.
    fn settled_arrivals(&self) -> u64 {
        let mut before = self.arrivals();
        eventually("former connections are over", PATIENCE, || {
            std::thread::sleep(Duration::from_millis(500));
            std::mem::replace(&mut before, self.arrivals()) == before
        });
        before
    }
}

#[test]
fn a_person_reaches_what_is_granted_and_nothing_else() {
    let lab = Lab::new();
    let site = site(&lab);
    let (v4, gateway) = (site.device_v4(), &site.gateway);

    // The default grants: ping and SSH of every device, in both families.
    eventually("the first packets find their sessions", PATIENCE, || site.pings(&v4));
    let all = gateway.json(&["device", "show", "cam-1"]);
    let v6 = all
        .to_string()
        .split('"')
        .find(|text| text.starts_with("fd") && text.contains("::"))
        .map(str::to_owned);
    let v6 = v6.expect("an IPv6 address").split('/').next().expect("an address").to_owned();
    assert!(site.pings(&v6), "{v6}");
    // The laptop's interface has an MTU of 1420, so both ends learn of 1280 on the way.
    let bytes = lab.sh(LAPTOP, &site.ssh(&v4, "head -c 3000000 /dev/zero | wc -c"));
    assert_eq!(bytes.trim(), "3000000");
    let copied = format!(
        "head -c 2000000 /dev/urandom >{0}/blob; scp -q -O -i {1} -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o BatchMode=yes {0}/blob {ACCOUNT}@{v4}:/tmp/fleetgate-e2e-blob; \
         sha256sum <{0}/blob",
        lab.dir.path().display(),
        site.key
    );
    let sum = lab.sh(LAPTOP, &copied);
    let there =
        lab.sh(LAPTOP, &site.ssh(&v4, "sha256sum </tmp/fleetgate-e2e-blob; rm /tmp/fleetgate-e2e-blob"));
    assert_eq!(sum.trim(), there.trim());

    // A port without a grant is refused at once, and nothing of it arrives.
    site.count_arrivals();
    let before = site.settled_arrivals();
    for port in [23, 81, 8080] {
        assert!(site.refused(&v4, port) < Duration::from_secs(5), "{port}");
    }
    assert_eq!(site.arrivals(), before);

    // A device opens nothing.
    let own = site.laptop.own_v4();
    assert!(!lab.try_sh(DEVICE, &format!("ping -n -c 2 -W 1 {own}")).0);

    let said = gateway.cli(&["explain", "--from", "anna", "--to", "cam-1:22"]);
    assert!(said.starts_with("permitted: anna reaches cam-1 (tcp 22)"), "{said}");
    let said = gateway.refused(&["explain", "--from", "anna-laptop", "--to", "cam-1:23"]);
    assert!(said.contains("no grant permits it"), "{said}");
    a_probe_compares_the_policy_with_the_device(&site);
}

fn a_probe_compares_the_policy_with_the_device(site: &Site<'_>) {
    let (v4, gateway) = (site.device_v4(), &site.gateway);
    let all = |to: &str| ["explain", "--from", "anna", "--to", to, "--probe"].map(str::to_owned);
    let answered = |to: &str| gateway.cli(&all(to).each_ref().map(String::as_str));
    let refused = |to: &str| gateway.refused(&all(to).each_ref().map(String::as_str));
    let count =
        "nft add table inet probed; nft add chain inet probed in '{ type filter hook input priority 0; }'; ";
    site.lab.sh(LAPTOP, &format!("{count} nft add rule inet probed in ip saddr {v4} counter"));
    site.lab.sh(DEVICE, "nft delete table inet seen");
    site.count_arrivals();
    for to in ["cam-1", "cam-1:22"] {
        let said = answered(to);
        assert!(said.contains("permitted: anna reaches cam-1") && said.contains("it answered in"), "{said}");
    }
    eventually("an echo request, a SYN and a reset arrived", PATIENCE, || site.arrivals() == 3);
    let said = refused("cam-1:80");
    assert!(said.contains("refused: the policy permits it, and cam-1 refused the connection"), "{said}");
    let before = site.arrivals();
    let said = refused("cam-1:23");
    assert!(said.contains("anna does not reach cam-1 (tcp 23): no grant permits it"), "{said}");
    assert_eq!(site.arrivals(), before, "nothing was sent");
    site.lab.sh(DEVICE, "nft add rule inet seen in tcp dport 443 drop");
    let said = refused("cam-1:443");
    assert!(said.contains("no answer: the policy permits it, and cam-1 did not answer within 3 s"), "{said}");
    let seen = site.lab.sh(LAPTOP, "nft list table inet probed");
    assert!(seen.contains("packets 0 "), "the laptop gets nothing of it: {seen}");
}

#[test]
fn an_end_cuts_shells_and_datagrams_within_a_second() {
    let lab = Lab::new();
    let site = site(&lab);
    let (v4, gateway) = (site.device_v4(), &site.gateway);
    eventually("the first packets find their sessions", PATIENCE, || site.pings(&v4));
    gateway.cli(&["grant", "withdraw", "operators"]);
    eventually("a withdrawn grant denies", Duration::from_secs(3), || !site.pings(&v4));

    gateway.cli(&[
        "grant", "add", "--user", "anna", "--to", "cam-1", "--icmp", "--tcp", "22", "--udp", "9", "--for",
        "8s",
    ]);
    let begun = Instant::now();
    site.count_arrivals();
    let sleep = site.ssh(&v4, "sleep 60");
    let shell = lab.spawn(LAPTOP, "shell.log", "sh", &["-c", &sleep], &[]);
    let copy = lab.spawn(LAPTOP, "copy.log", "sh", &["-c", &site.endless_copy(&v4)], &[]);
    let stream = format!("for i in $(seq 140); do echo x >/dev/udp/{v4}/9; sleep 0.1; done 2>/dev/null");
    let _datagrams = lab.spawn(LAPTOP, "udp.log", "bash", &["-c", &stream], &[]);
    let _pings = lab.spawn(LAPTOP, "ping.log", "ping", &["-n", "-i", "0.2", "-c", "70", &v4], &[]);
    std::thread::sleep(Duration::from_secs(6).saturating_sub(begun.elapsed()));
    let while_open = site.arrivals();
    assert!(while_open > 40, "{while_open} packets while it is granted");
    std::thread::sleep(Duration::from_secs(9).saturating_sub(begun.elapsed()));
    let at_the_end = site.arrivals();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(site.arrivals(), at_the_end, "nothing arrives after the end");
    for (mut process, log) in [(shell, "shell.log"), (copy, "copy.log")] {
        assert!(process.ended(Duration::from_secs(5)), "it has got a reset: {}", lab.log(log));
    }
    lab.sh(DEVICE, &format!("rm {}", site.copied()));

    let hours = gateway.json(&["forwarded", "--host", "cam-1"]);
    eventually("what was forwarded is in the audit", PATIENCE, || {
        let hours = gateway.json(&["forwarded", "--host", "cam-1"]);
        let ports: Vec<i64> =
            hours["hours"].as_array().into_iter().flatten().filter_map(|h| h["port"].as_i64()).collect();
        [0, 9, 22].iter().all(|port| ports.contains(port))
    });
    assert!(hours["hours"].is_array());
}

/// Enrols the device by the script, which also sets up what the documentation asks of it for its network.
fn enrols_with_its_network(lab: &Lab, gateway: &Gateway<'_>, interface: &str) {
    let token = gateway.cli(&["token", "create", "field", "--enrol"]);
    let etc = lab.path("etc").display().to_string();
    let address = "http://10.77.0.2:8080";
    let line = format!(
        "export FLEETGATE_ETC={etc} FLEETGATE_INTERFACE={interface} WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go; \
         curl -fsS {address}/enrol.sh -o {etc}.sh; \
         sh {etc}.sh --url {address} --token {} --name cam-1 --network {NETWORK} --no-service",
        token.trim(),
    );
    // A new network namespace may have what the machine around it has.
    lab.sh(DEVICE, "sysctl -qw net.ipv4.ip_forward=0");
    let said = lab.try_sh(DEVICE, &line);
    assert!(said.0 && said.1.contains("fleetgate device set cam-1 --network"), "{}", said.1);
    gateway.cli(&["device", "set", "cam-1", "--network", NETWORK]);
}

/// Ends the interface of the device with the lab, also after a panic.
struct Enrolled<'a>(&'a Lab, String);

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_sh(DEVICE, &format!("ip link del {}", self.1));
    }
}

/// An interface that appears after the enrolment, such as one of a modem, gets no packet of another.
fn becomes_no_router_for_a_later_interface(lab: &Lab) {
    let later = "ip link add later0 type veth peer name later1; ip link set later1 up; ip link set later0 up; \
                 ip address add 10.55.0.1/24 dev later0; \
                 nft add table ip later; \
                 nft add chain ip later out '{ type filter hook postrouting priority 0; }'; \
                 nft add rule ip later out oifname later0 ip daddr 10.55.0.9 counter";
    lab.sh(DEVICE, later);
    lab.sh("r", "ip route add 10.55.0.0/24 via 10.77.1.2");
    let sent = || lab.sh(DEVICE, "nft list table ip later");
    lab.try_sh("r", "ping -n -c 1 -W 1 10.55.0.9");
    assert!(sent().contains("packets 0 "), "nothing is forwarded: {}", sent());
    lab.try_sh(DEVICE, "ping -n -c 1 -W 1 10.55.0.9");
    assert!(!sent().contains("packets 0 "), "the device's own packets are counted: {}", sent());
}

#[test]
fn a_host_behind_an_enrolled_device_is_reached_at_its_alias() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, &settings(&[API, KEEPALIVE, CHECKS]));
    let interface = format!("fwd{}", std::process::id());
    let _enrolled = Enrolled(&lab, interface.clone());
    enrols_with_its_network(&lab, &gateway, &interface);
    gateway.cli(&["user", "add", "anna", "--role", "operator"]);
    let conf = gateway.cli(&["operator", "add", "anna-laptop", "--user", "anna"]);
    let laptop = WireGuard::up(&lab, LAPTOP, &conf);
    gateway.becomes("cam-1", None, "up");
    let pings = |from: &str, address: &str| lab.try_sh(from, &format!("ping -n -c 1 -W 2 {address}")).0;

    gateway.cli(&["host", "add", "nvr", "--via", "cam-1", "--address", BEHIND_ADDRESS]);
    gateway.becomes("nvr", None, "up");
    let v4 = inner(&gateway, "cam-1", "address");
    eventually("the first packets find their sessions", PATIENCE, || pings(LAPTOP, &v4));
    let alias = inner(&gateway, "nvr", "alias");
    assert!(!pings(LAPTOP, &alias), "the default grants are for devices alone");
    gateway.cli(&["grant", "add", "--user", "anna", "--to", "nvr", "--icmp", "--tcp", "8000"]);
    eventually("the alias answers", PATIENCE, || pings(LAPTOP, &alias));
    fs::write(lab.path("index.html"), "pictures").expect("a page");
    let folder = lab.dir.path().display().to_string();
    let _web = lab.spawn(BEHIND, "web.log", "python3", &["-m", "http.server", "-d", &folder, "8000"], &[]);
    eventually("a page of the host behind the device", PATIENCE, || {
        lab.try_sh(LAPTOP, &format!("curl -sf --max-time 3 http://{alias}:8000/index.html")).1 == "pictures"
    });

    // The device is a router for the tunnel alone: not into it, and not between its other interfaces.
    let others = "ip route add 10.112.0.0/14 via 10.77.1.2; ip route add 10.99.0.0/24 via 10.77.1.2; \
                  nft add table ip seen; \
                  nft add chain ip seen in '{ type filter hook prerouting priority -300; }'; \
                  nft add rule ip seen in ip daddr 10.99.0.9 counter";
    lab.sh("r", others);
    let own = laptop.own_v4();
    assert!(!pings("r", &own) && !pings("r", "10.99.0.9"));
    assert!(lab.sh("r", "nft list table ip seen").contains("packets 0 "), "the device sends nothing back");
    let dropped = gateway.json(&["host", "show", "cam-1"])["host"]["tunnel"]["drops"].clone();
    assert_eq!(dropped.get("spoofed_source"), None, "{dropped}");

    becomes_no_router_for_a_later_interface(&lab);

    // Denied packets are counted for their sender.
    assert!(!lab.try_sh(LAPTOP, &format!("timeout 10 bash -c '</dev/tcp/{v4}/23'")).0);
    eventually("the drop is counted", PATIENCE, || {
        gateway.cli(&["operator", "show", "anna-laptop"]).contains("dropped     not_granted")
    });
    assert!(gateway.cli(&["host", "show", "nvr"]).contains("access      user anna: icmp, tcp 8000"));

    // Without networks it forwards nothing any more.
    let etc = lab.path("etc").display().to_string();
    let line = format!(
        "sh {etc}/{interface}.forward remove; cat /proc/sys/net/ipv4/ip_forward; nft list ruleset | grep fleetgate || true"
    );
    assert_eq!(lab.sh(DEVICE, &line).trim(), "0");
    assert!(!pings(LAPTOP, &alias));
}

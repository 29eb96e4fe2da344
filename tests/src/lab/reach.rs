//! A person with a laptop, and devices that answer on every port: what gets through shows the policy.

use std::thread::sleep;
use std::time::Duration;

use super::{CHECKS, Gateway, KEEPALIVE, Lab, Running, WireGuard, eventually, settings};

const PATIENCE: Duration = Duration::from_secs(30);

/// Accepts every TCP connection on port 7777, and sends back what comes by UDP to port 7778 and by TCP.
const ANSWER_ALL: &str = r#"
import socket, selectors
selector = selectors.DefaultSelector()
tcp = socket.socket(socket.AF_INET6)
tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
tcp.bind(("::", 7777)); tcp.listen(512); tcp.setblocking(False)
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); udp.bind(("::", 7778)); udp.setblocking(False)
selector.register(tcp, selectors.EVENT_READ); selector.register(udp, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        try:
            if key.fileobj is tcp:
                conn = tcp.accept()[0]; conn.setblocking(False); selector.register(conn, selectors.EVENT_READ)
            elif key.fileobj is udp:
                data, source = udp.recvfrom(2048); udp.sendto(data, source)
            else:
                data = key.fileobj.recv(4096)
                if data: key.fileobj.send(data)
                else: selector.unregister(key.fileobj); key.fileobj.close()
        except OSError:
            if key.fileobj not in (tcp, udp): selector.unregister(key.fileobj); key.fileobj.close()
"#;

/// Tries ports of addresses at once, and prints `protocol address port` of each that answers. Arguments:
/// seconds, `tcp` or `udp`, ports such as `1-300,443`, addresses.
const SWEEP: &str = r#"
import errno, resource, select, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
seconds, protocol, ranges, addresses = float(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
ports = [p for r in ranges.split(",") for a, _, b in [r.partition("-")] for p in range(int(a), int(b or a) + 1)]
poll, waiting = select.poll(), {}
for address in addresses:
    for port in ports:
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind); s.setblocking(False)
        try:
            done = s.connect_ex((address, port))
            if done not in (0, errno.EINPROGRESS): continue
            if protocol == "udp": s.send(b"knock")
        except OSError: continue
        waiting[s.fileno()] = (s, address, port)
        poll.register(s, select.POLLOUT if protocol == "tcp" else select.POLLIN)
end = time.monotonic() + seconds
while waiting and time.monotonic() < end:
    for fd, event in poll.poll(100):
        s, address, port = waiting.pop(fd); poll.unregister(fd)
        try:
            if protocol == "tcp" and s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0: print(protocol, address, port)
            elif protocol == "udp" and s.recv(100) == b"knock": print(protocol, address, port)
        except OSError: pass
        s.close()
"#;

/// Starts what answers on every port of the namespace's tunnel, and counts what arrives there.
pub struct AnswersAll<'a> {
    lab: &'a Lab,
    ns: &'static str,
    interface: String,
    _server: Running,
}

impl<'a> AnswersAll<'a> {
    pub fn start(lab: &'a Lab, ns: &'static str, interface: &str) -> AnswersAll<'a> {
        let log = format!("answers-{ns}.log");
        let server = lab.spawn(ns, &log, "python3", &["-u", "-c", ANSWER_ALL], &[]);
        eventually("the server answers", PATIENCE, || lab.log(&log).contains("ready"));
        lab.sh(
            ns,
            &format!(
                "nft add table inet answers; nft add chain inet answers pre '{{ type nat hook prerouting priority -100; }}'; \
                 nft add rule inet answers pre iifname {interface} meta l4proto tcp redirect to :7777; \
                 nft add rule inet answers pre iifname {interface} meta l4proto udp redirect to :7778"
            ),
        );
        AnswersAll { lab, ns, interface: interface.to_owned(), _server: server }
    }

    /// Counts every packet that arrives through the tunnel from these addresses, from now on.
    pub fn count(&self, from: &[String]) {
        let rule = |address: &String| {
            let family = if address.contains(':') { "ip6" } else { "ip" };
            format!("nft add rule inet seen in iifname {} {family} saddr {address} counter; ", self.interface)
        };
        let rules: String = from.iter().map(rule).collect();
        self.lab.sh(
            self.ns,
            &format!(
                "nft delete table inet seen 2>/dev/null || true; nft add table inet seen; \
                 nft add chain inet seen in '{{ type filter hook prerouting priority -300; }}'; {rules}"
            ),
        );
    }

    /// Packets since [`AnswersAll::count`].
    pub fn counted(&self) -> u64 {
        let text = self.lab.sh(self.ns, "nft list table inet seen");
        let counts =
            text.split("packets ").skip(1).filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        counts.sum()
    }
}

/// Returns what answers a sweep from a namespace, sorted: `protocol address port`.
pub fn sweep(lab: &Lab, ns: &str, protocol: &str, ports: &str, addresses: &[String]) -> Vec<String> {
    let file = lab.path("sweep.py");
    std::fs::write(&file, SWEEP).expect("the lab's directory");
    let line = format!("python3 {} 2.5 {protocol} {ports} {}", file.display(), addresses.join(" "));
    let mut found: Vec<String> = lab.sh(ns, &line).lines().map(str::to_owned).collect();
    found.sort();
    found
}

/// Two devices and the laptop of a person, all with real clients. Nobody has a grant but the default ones.
pub struct Reach<'a> {
    pub lab: &'a Lab,
    pub gateway: Gateway<'a>,
    /// `cam-1` in the namespace `d1`, and `cam-2` in `d2`.
    pub devices: [WireGuard<'a>; 2],
    /// `anna-laptop` in the namespace `x`, of the user `anna`.
    pub laptop: WireGuard<'a>,
}

pub const DEVICES: [&str; 2] = ["d1", "d2"];
pub const LAPTOP: &str = "x";

impl<'a> Reach<'a> {
    pub fn new(lab: &'a Lab) -> Reach<'a> {
        let gateway = Gateway::start(lab, &settings(&[KEEPALIVE, CHECKS]));
        let devices = [("cam-1", DEVICES[0]), ("cam-2", DEVICES[1])].map(|(name, ns)| {
            let conf = gateway.cli(&["device", "add", name]);
            WireGuard::up(lab, ns, &conf)
        });
        gateway.cli(&["user", "add", "anna", "--role", "operator"]);
        let conf = gateway.cli(&["operator", "add", "anna-laptop", "--user", "anna"]);
        let laptop = WireGuard::up(lab, LAPTOP, &conf);
        let reach = Reach { lab, gateway, devices, laptop };
        for name in ["cam-1", "cam-2"] {
            reach.gateway.becomes(name, None, "up");
        }
        for device in &reach.devices {
            let address = device.own_v4();
            eventually("the first packets find their sessions", PATIENCE, || reach.pings(LAPTOP, &address));
        }
        reach
    }

    pub fn pings(&self, from: &str, to: &str) -> bool {
        self.lab.try_sh(from, &format!("ping -n -c 1 -W 2 {to}")).0
    }

    /// The inner address of a device.
    pub fn v4(&self, device: usize) -> String {
        self.devices[device].own_v4()
    }

    /// Counts dropped packets of a device by this reason.
    pub fn drops(&self, device: &str, reason: &str) -> u64 {
        // The counters are published once a second.
        sleep(Duration::from_millis(1_500));
        self.gateway.json(&["host", "show", device])["host"]["tunnel"]["drops"][reason].as_u64().unwrap_or(0)
    }
}

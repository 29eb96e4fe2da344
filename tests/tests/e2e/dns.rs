//! People resolve the names of what they may reach, with the resolvers of the C library and of busybox,
//! over UDP and TCP, IPv4 and IPv6.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use fleetgate_tests::lab::{CHECKS, Gateway, KEEPALIVE, Lab, WireGuard, eventually, settings};

const PATIENCE: Duration = Duration::from_secs(30);
const LAPTOP: &str = "x";
const DEVICE: &str = "d1";
/// The machine with the name server for other names.
const SERVER: &str = "m";
const GATEWAY_V4: &str = "10.112.0.1";
const GATEWAY_V6: &str = "fd72:6c65:6574::1";
const RESOLVERS: &str = "[dns]\nresolvers = [\"10.77.9.2\"]\n";

/// A name server that answers every query with one address, and over UDP only with the advice to come
/// back over TCP, as for a large answer.
const OTHER_NAMES: &str = r#"
import socket, threading
def answer(query, truncated):
    end = query.index(b"\0", 12) + 5
    flags = b"\x83\x80" if truncated else b"\x81\x80"
    record = b"" if truncated else b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\x00\x02\x4d"
    return query[:2] + flags + b"\0\1" + (b"\0\0" if truncated else b"\0\1") + b"\0\0\0\0" + query[12:end] + record
def tcp():
    listener = socket.create_server(("10.77.9.2", 53))
    while True:
        with listener.accept()[0] as stream:
            query = stream.recv(4096)
            reply = answer(query[2:], False)
            stream.sendall(len(reply).to_bytes(2, "big") + reply)
threading.Thread(target=tcp, daemon=True).start()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("10.77.9.2", 53))
print("listens", flush=True)
while True:
    query, client = server.recvfrom(4096)
    server.sendto(answer(query, True), client)
"#;

/// The settings of the C library's resolver in one namespace, which `ip netns exec` puts over those of
/// the machine.
struct ResolverSettings(PathBuf);

impl ResolverSettings {
    fn new(lab: &Lab, namespace: &str) -> ResolverSettings {
        let dir = PathBuf::from("/etc/netns").join(lab.ns(namespace));
        fs::create_dir_all(&dir).expect("root");
        fs::write(dir.join("nsswitch.conf"), "hosts: dns\n").expect("own directory");
        let settings = ResolverSettings(dir);
        settings.set(GATEWAY_V4, "");
        settings
    }

    fn set(&self, server: &str, options: &str) {
        let text = format!("nameserver {server}\nsearch fleet.internal\noptions timeout:2 {options}\n");
        fs::write(self.0.join("resolv.conf"), text).expect("own directory");
    }
}

impl Drop for ResolverSettings {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // The last of several tests removes it.
        let _ = fs::remove_dir("/etc/netns");
    }
}

/// Returns the addresses of a name with blanks between them, without repetitions.
fn resolve(lab: &Lab, database: &str, name: &str) -> String {
    let (_, text) = lab.try_sh(LAPTOP, &format!("getent {database} {name}"));
    let mut found: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    found.dedup();
    found.join(" ")
}

/// Returns what busybox says of a name.
fn nslookup(lab: &Lab, namespace: &str, rtype: &str, name: &str) -> String {
    lab.try_sh(namespace, &format!("busybox nslookup -type={rtype} {name} {GATEWAY_V4}")).1
}

#[test]
fn people_resolve_what_they_may_reach_and_nothing_else() {
    let lab = Lab::new();
    let mut gateway = Gateway::start(&lab, &settings(&[KEEPALIVE, CHECKS]));
    let conf = gateway.cli(&["device", "add", "cam-1"]);
    gateway.cli(&["device", "set", "cam-1", "--network", "10.77.9.0/24"]);
    gateway.cli(&["host", "add", "nvr", "--via", "cam-1", "--address", "10.77.9.2"]);
    let _device = WireGuard::up(&lab, DEVICE, &conf);
    gateway.cli(&["user", "add", "anna", "--role", "operator"]);
    let conf = gateway.cli(&["operator", "add", "anna-laptop", "--user", "anna"]);
    let line = format!("# PostUp = resolvectl dns %i {GATEWAY_V4} {GATEWAY_V6}; resolvectl domain");
    assert!(conf.contains(&line) && !conf.contains("\nDNS"), "{conf}");
    let _laptop = WireGuard::up(&lab, LAPTOP, &conf);
    let resolver = ResolverSettings::new(&lab, LAPTOP);
    gateway.becomes("cam-1", None, "up");
    let device = gateway.json(&["device", "show", "cam-1"]);
    let addresses: Vec<String> = device["tunnel"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    let [v4, v6] = &addresses[..] else { panic!("{device}") };

    // Both address families, over both families and carriers.
    eventually("the first query is answered", PATIENCE, || {
        resolve(&lab, "ahostsv4", "cam-1.fleet.internal") == *v4
    });
    for (server, options) in
        [(GATEWAY_V4, ""), (GATEWAY_V6, ""), (GATEWAY_V4, "use-vc"), (GATEWAY_V6, "use-vc edns0")]
    {
        resolver.set(server, options);
        assert_eq!(resolve(&lab, "ahostsv4", "cam-1.fleet.internal"), *v4, "{server} {options}");
        assert_eq!(resolve(&lab, "ahostsv6", "CAM-1.fleet.internal"), *v6, "{server} {options}");
        let name = lab.sh(LAPTOP, &format!("getent hosts {v6}"));
        assert!(name.contains("cam-1.fleet.internal"), "{name}");
        for other in ["nvr.fleet.internal", "cam-2.fleet.internal", "example.net"] {
            assert_eq!(resolve(&lab, "ahosts", other), "", "{server} {options} {other}");
        }
    }
    resolver.set(GATEWAY_V4, "");
    lab.sh(LAPTOP, "ping -c 1 -W 5 cam-1");

    // A host that exists and is not granted is answered as one that does not exist.
    let said = ["nvr", "cam-2"].map(|name| {
        let text = nslookup(&lab, LAPTOP, "a", &format!("{name}.fleet.internal"));
        assert!(text.contains("NXDOMAIN"), "{text}");
        text.replace(name, "host")
    });
    assert_eq!(said[0], said[1]);
    assert!(nslookup(&lab, LAPTOP, "a", "example.net").contains("REFUSED"));
    assert!(nslookup(&lab, DEVICE, "a", "cam-1.fleet.internal").contains("REFUSED"), "a device asks");

    // Grants come and go.
    gateway.cli(&["grant", "add", "--user", "anna", "--to", "nvr", "--tcp", "8000"]);
    let alias =
        gateway.json(&["host", "show", "nvr"])["host"]["alias"].as_str().expect("an alias").to_owned();
    eventually("the host behind the device has a name", PATIENCE, || {
        resolve(&lab, "ahosts", "nvr.fleet.internal") == alias
    });
    gateway.cli(&["grant", "withdraw", "operators"]);
    eventually("a withdrawn grant takes the name away", Duration::from_secs(3), || {
        resolve(&lab, "ahosts", "cam-1.fleet.internal").is_empty()
    });
    assert!(!lab.try_sh(LAPTOP, &format!("getent hosts {v4}")).0);

    other_names(&lab, &mut gateway);
}

/// With a resolver, people get other names too, and devices still get nothing.
fn other_names(lab: &Lab, gateway: &mut Gateway<'_>) {
    let _server = lab.spawn(SERVER, "names.log", "python3", &["-c", OTHER_NAMES], &[]);
    eventually("the name server listens", PATIENCE, || lab.log("names.log").contains("listens"));
    gateway.stop();
    gateway.set(&settings(&[KEEPALIVE, CHECKS, RESOLVERS]));
    gateway.again();
    eventually("another name is answered", PATIENCE, || {
        resolve(lab, "ahostsv4", "www.example.net") == "192.0.2.77"
    });
    assert!(nslookup(lab, LAPTOP, "a", "cam-1.fleet.internal").contains("NXDOMAIN"), "still no grant");
    assert!(nslookup(lab, DEVICE, "a", "www.example.net").contains("REFUSED"), "a device asks");
}

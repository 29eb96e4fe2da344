//! Sweeps of ports and addresses through real tunnels: exactly what is granted answers, and a device that
//! attacks reaches nothing.

use std::time::Duration;

use fleetgate_tests::lab::{AnswersAll, DEVICES, LAPTOP, Lab, Reach, eventually, sweep};

/// The ports of the default grants, both ends of a granted range with their neighbours, and the last port.
const PORTS: &str = "1-120,443,7999,8000,8100,8101,65535";
/// The gateway's inner addresses.
const GATEWAY: [&str; 2] = ["10.112.0.1", "fd72:6c65:6574::1"];

fn answering(protocol: &str, addresses: &[String], ports: &[u16]) -> Vec<String> {
    let each = |address| ports.iter().map(move |port| format!("{protocol} {address} {port}"));
    let mut all: Vec<String> = addresses.iter().flat_map(each).collect();
    all.sort();
    all
}

#[test]
fn exactly_what_is_granted_answers_a_sweep_in_both_families() {
    let lab = Lab::new();
    let reach = Reach::new(&lab);
    let gateway = &reach.gateway;
    let servers: Vec<AnswersAll<'_>> = [0, 1]
        .map(|n| AnswersAll::start(&lab, DEVICES[n], &reach.devices[n].interface))
        .into_iter()
        .chain([AnswersAll::start(&lab, LAPTOP, &reach.laptop.interface)])
        .collect();
    let (first, second, laptop) = (reach.devices[0].own(), reach.devices[1].own(), reach.laptop.own());
    let grant =
        ["grant", "add", "--peer", "anna-laptop", "--to", "cam-1", "--tcp", "8000-8100", "--udp", "53"];
    gateway.cli(&grant);
    let all = [first.clone(), second.clone()].concat();
    let default = answering("tcp", &all, &[22, 80, 443]);
    let mut expected = [default, answering("tcp", &first, &[8000, 8100])].concat();
    expected.sort();
    assert_eq!(sweep(&lab, LAPTOP, "tcp", PORTS, &all), expected);
    assert_eq!(sweep(&lab, LAPTOP, "udp", "1-100,65535", &all), answering("udp", &first, &[53]));
    for address in &all {
        assert!(reach.pings(LAPTOP, address), "{address}");
    }
    // An address that is neither a device nor a host behind one answers nothing, but for the names that the gateway
    // answers.
    let own = GATEWAY.map(str::to_owned);
    let others = GATEWAY.map(str::to_owned).into_iter().chain(["10.112.0.77".to_owned()]).collect::<Vec<_>>();
    assert_eq!(sweep(&lab, LAPTOP, "tcp", "1-100,51820", &others), answering("tcp", &own, &[53]));

    // A device reaches neither the laptop nor another device, and of the gateway the port for results.
    servers[1].count(&first);
    servers[2].count(&first);
    let targets = [second.clone(), laptop.clone()].concat();
    assert_eq!(sweep(&lab, DEVICES[0], "tcp", PORTS, &targets), Vec::<String>::new());
    assert_eq!(sweep(&lab, DEVICES[0], "udp", "1-100,65535", &targets), Vec::<String>::new());
    for address in &targets {
        assert!(!reach.pings(DEVICES[0], address), "{address}");
    }
    assert_eq!((servers[1].counted(), servers[2].counted()), (0, 0), "nothing of the device arrives");
    assert_eq!(sweep(&lab, DEVICES[0], "tcp", "1-120,51820,65535", &own), answering("tcp", &own, &[80]));

    spoofed_sources_are_dropped(&reach, &servers);
}

/// The laptop and a device send with addresses that are not their own.
fn spoofed_sources_are_dropped(reach: &Reach<'_>, servers: &[AnswersAll<'_>]) {
    let lab = reach.lab;
    let (first, second, laptop) = (reach.v4(0), reach.v4(1), reach.laptop.own_v4());
    let before = reach.drops("cam-1", "spoofed_source");
    servers[0].count(std::slice::from_ref(&second));
    servers[1].count(std::slice::from_ref(&laptop));
    for (from, as_source, to) in [(LAPTOP, &second, &first), (DEVICES[0], &laptop, &second)] {
        lab.sh(from, &format!("ip addr add {as_source}/32 dev lo"));
        let (answered, _) = lab.try_sh(from, &format!("ping -n -c 3 -i 0.2 -W 1 -I {as_source} {to}"));
        lab.sh(from, &format!("ip addr del {as_source}/32 dev lo"));
        assert!(!answered, "{from} as {as_source}");
    }
    assert_eq!((servers[0].counted(), servers[1].counted()), (0, 0));
    assert_eq!(reach.drops("cam-1", "spoofed_source"), before + 3);
}

/// Sends what a device of an attacker could: datagrams from a permitted port, connections, echo requests,
/// and resets and ICMP errors about a connection whose sequence numbers it does not know. Arguments: its
/// own address, that of the laptop, the ports of the connection, seconds.
const ATTACK: &str = r#"
import os, random, socket, struct, sys, time
own, laptop, sport, dport, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
a, b = socket.inet_aton(own), socket.inet_aton(laptop)
def total(data):
    if len(data) % 2: data += b"\0"
    s = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while s >> 16: s = (s & 0xffff) + (s >> 16)
    return ~s & 0xffff
def ip(protocol, body, source=a, to=b):
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), random.randrange(65536), 0, 64, protocol, 0, source, to) + body
def tcp(flags, source_port, port):
    head = struct.pack("!HHIIBBHHH", source_port, port, random.randrange(2**32), random.randrange(2**32), 0x50, flags, 1024, 0, 0)
    pseudo = a + b + struct.pack("!BBH", 0, 6, len(head))
    return ip(6, head[:16] + struct.pack("!H", total(pseudo + head)) + head[18:])
def udp(source_port, port):
    return ip(17, struct.pack("!HHHH", source_port, port, 8 + 32, 0) + os.urandom(32))
def icmp(kind, code, body):
    head = struct.pack("!BBHI", kind, code, 0, 0) + body
    return ip(1, head[:2] + struct.pack("!H", total(head)) + head[4:])
quoted = ip(6, struct.pack("!HHI", sport + 1, dport, 7) + bytes(12), b, a)
# A few resets only: of many, one would hit the window by chance.
for n in range(20):
    for flags in (4, 20): raw.sendto(tcp(flags, dport, sport), (laptop, 0))
sent, end = 0, time.monotonic() + seconds
while time.monotonic() < end:
    for packet in (udp(dport, 4444), udp(53, 33434), tcp(2, dport, 22), tcp(18, dport, sport + 1),
                   icmp(8, 0, b"x" * 16), icmp(3, 3, quoted), icmp(5, 1, quoted)):
        raw.sendto(packet, (laptop, 0)); sent += 1
    time.sleep(0.002)
print(sent)
"#;

/// Holds a connection open from a fixed port, and prints the number of echoes. Arguments: address, port, own
/// port, seconds.
const TALK: &str = r#"
import socket, sys, time
s = socket.socket(); s.bind(("", int(sys.argv[3]))); s.settimeout(5); s.connect((sys.argv[1], int(sys.argv[2])))
echoes, end = 0, time.monotonic() + float(sys.argv[4])
while time.monotonic() < end:
    s.sendall(b"hello"); assert s.recv(100) == b"hello"; echoes += 1; time.sleep(0.05)
print("echoes", echoes)
"#;

#[test]
fn a_device_that_attacks_a_laptop_reaches_nothing_and_breaks_no_connection() {
    let lab = Lab::new();
    let reach = Reach::new(&lab);
    let _servers = [0, 1].map(|n| AnswersAll::start(&lab, DEVICES[n], &reach.devices[n].interface));
    let laptop = AnswersAll::start(&lab, LAPTOP, &reach.laptop.interface);
    let (device, other, own) = (reach.v4(0), reach.v4(1), reach.laptop.own_v4());
    // One connection to the device that attacks, and one to another device.
    let talk = |to: &str, port: &str, log: &str| {
        lab.spawn(LAPTOP, log, "python3", &["-c", TALK, to, "22", port, "8"], &[])
    };
    let mut talks = [talk(&device, "40000", "talk-1.log"), talk(&other, "40010", "talk-2.log")];
    eventually("both connections are open", Duration::from_secs(10), || {
        lab.sh(LAPTOP, "ss -tnH state established | grep -cE ':(40000|40010) ' || true").trim() == "2"
    });
    // Everything but the packets of that connection.
    lab.sh(
        LAPTOP,
        &format!(
            "nft add table inet odd; nft add chain inet odd in '{{ type filter hook prerouting priority -300; }}'; \
             nft add rule inet odd in ip saddr {device} tcp dport 40000 tcp flags '& (rst | syn) == 0' accept; \
             nft add rule inet odd in ip saddr {device} counter"
        ),
    );
    let dropped = reach.drops("cam-1", "no_flow");
    let arguments = ["-c", ATTACK, &device, &own, "40000", "22", "3"];
    let mut attack = lab.spawn(DEVICES[0], "attack.log", "python3", &arguments, &[]);
    assert!(attack.ended(Duration::from_secs(30)), "{}", lab.log("attack.log"));
    let sent: u64 = lab.log("attack.log").trim().parse().expect("a count");
    assert!(sent > 1_000, "{sent}");
    let odd = lab.sh(LAPTOP, "nft list table inet odd");
    let counted = odd.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    assert_eq!(counted, Some("0"), "{odd}");
    for (talk, log) in talks.iter_mut().zip(["talk-1.log", "talk-2.log"]) {
        assert!(talk.ended(Duration::from_secs(30)));
        let said = lab.log(log);
        let echoes: u64 =
            said.trim().strip_prefix("echoes ").and_then(|n| n.parse().ok()).unwrap_or_default();
        assert!(echoes > 40, "{log}: {said}");
    }
    assert!(reach.drops("cam-1", "no_flow") > dropped + 100);
    assert!(reach.drops("cam-1", "bad_reset") >= 38, "resets with other numbers");
    laptop.count(std::slice::from_ref(&device));
    assert!(reach.pings(LAPTOP, &device) && reach.pings(LAPTOP, &other), "both devices still answer");
    assert_eq!(laptop.counted(), 1, "the reply");
}

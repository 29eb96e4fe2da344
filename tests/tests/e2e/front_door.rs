//! The front door under attack (docs/security.md): strangers, replays and floods against the real
//! program, in network namespaces.
//!
//! Packets are counted exactly. A packet of a device to the gateway's own inner address opens, is
//! unsolicited, and is counted as `unsolicited` on the host's page.

use std::net::UdpSocket;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fleetgate_keys::conf::Conf;
use fleetgate_tests::attacker::{
    COOKIE, Initiator, RESPONSE, handshake, inside, receive, reply_to, send, stamp,
};
use fleetgate_tests::front::{
    Bystander, Family, Hand, PATIENCE, PUBLISHED, SETTINGS, SILENCE, V4, V6, data, dropped, drops_become,
    endpoint, enrol,
};
use fleetgate_tests::lab::{Gateway, Lab, run};

fn resident_kib(gateway: &Gateway<'_>) -> u64 {
    let pid = gateway.process.as_ref().expect("running").pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the gateway runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[test]
fn strangers_get_silence_and_leave_nothing_behind() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, SETTINGS);
    let bystander = Bystander::start(&lab, &gateway);
    let conf = enrol(&gateway, "cam-1");
    let before = resident_kib(&gateway);

    for family in [V4, V6] {
        let socket = family.socket(&lab, "x");
        for bytes in nonsense() {
            send(&socket, &bytes, family.gateway());
        }
        assert!(receive(&socket, SILENCE, |_| Some(())).is_none(), "{family:?}: nonsense was answered");

        let known = Initiator::device(&conf);
        let mut wrong_mac = known.initiation(stamp(0), 1).bytes;
        wrong_mac[120] ^= 1;
        let mut other_gateway = known.initiation(stamp(0), 2).bytes;
        other_gateway[20] ^= 1;
        let stranger = Initiator::stranger(&conf.peer).initiation(stamp(0), 3).bytes;
        for bytes in [wrong_mac, other_gateway, stranger] {
            send(&socket, &bytes, family.gateway());
        }
        assert!(receive(&socket, SILENCE, |_| Some(())).is_none(), "{family:?}: a stranger was answered");
    }

    let answered = ten_thousand_strangers(&lab, &conf);
    assert_eq!(answered, 0, "strangers got responses");
    let hosts = gateway.json(&["host", "list"]);
    assert_eq!(hosts.as_array().map(Vec::len), Some(2), "{hosts:#}");
    let growth = resident_kib(&gateway).saturating_sub(before);
    println!("resident growth after 10,000 unknown keys: {growth} KiB");
    assert!(growth < 32 * 1_024, "{growth} KiB");
    bystander.is_fine();
    assert_eq!(gateway.state("cam-1", None), "pending");
}

/// Returns datagrams of all sizes, with and without a valid header.
fn nonsense() -> Vec<Vec<u8>> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut byte = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 56) as u8
    };
    let sizes = (0..200).chain([512, 1_000, 1_280, 1_420, 1_472, 4_096, 9_000]);
    let with_head = |(len, kind): (usize, u8), byte: &mut dyn FnMut() -> u8| {
        let mut bytes: Vec<u8> = (0..len).map(|_| byte()).collect();
        if let Some(head) = bytes.get_mut(..4).filter(|_| kind > 0) {
            head.copy_from_slice(&[kind, 0, 0, 0]);
        }
        bytes
    };
    sizes.flat_map(|len| (0..5).map(move |kind| (len, kind))).map(|what| with_head(what, &mut byte)).collect()
}

/// Sends initiations of strangers, each with its own key, from 250 addresses, at a rate that
/// requires no cookies.
fn ten_thousand_strangers(lab: &Lab, conf: &Conf) -> usize {
    let sockets = many_sources(lab, 250);
    let begin = Instant::now();
    for n in 0..10_000u32 {
        let initiation = Initiator::stranger(&conf.peer).initiation(stamp(0), n);
        send(&sockets[n as usize % sockets.len()], &initiation.bytes, V4.gateway());
        pace(begin, n, 1_500);
    }
    sleep(SILENCE);
    count_replies(&sockets, RESPONSE)
}

/// Opens sockets on this many addresses, all controlled by the attacker.
fn many_sources(lab: &Lab, count: usize) -> Vec<UdpSocket> {
    lab.sh("x", "ip route replace local 10.78.0.0/16 dev lo");
    lab.sh("r", "ip route replace 10.78.0.0/16 via 10.77.8.2");
    let bind =
        |n: usize| UdpSocket::bind(format!("10.78.{}.{}:0", n / 200, 1 + n % 200)).expect("an address");
    inside(&lab.ns("x"), || (0..count).map(bind).collect())
}

fn count_replies(sockets: &[UdpSocket], len: usize) -> usize {
    let mut room = [0; 2_048];
    let mut count = 0;
    for socket in sockets {
        socket.set_nonblocking(true).expect("an option");
        while let Ok(got) = socket.recv(&mut room) {
            count += usize::from(got == len);
        }
    }
    count
}

/// Sleeps until the `n`th of a series is due.
fn pace(begin: Instant, n: u32, per_s: u32) {
    let due = Duration::from_secs(1) * n / per_s;
    if let Some(left) = due.checked_sub(begin.elapsed()).filter(|left| left.as_millis() > 2) {
        sleep(left);
    }
}

#[test]
fn replays_leave_a_live_session_and_its_endpoint_alone() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, SETTINGS);
    for (family, name) in [(V4, "cam-4"), (V6, "cam-6")] {
        let conf = enrol(&gateway, name);
        let mut device = Hand::connect(&lab, &conf, family);
        device.send_counted();
        drops_become(&gateway, name, "unsolicited", 1);
        let home = device.address().to_string();
        assert_eq!(endpoint(&gateway, name), home);

        // A captured initiation, and an older one that never arrived.
        let eavesdropper = family.socket(&lab, "x");
        let older = device.us.initiation(stamp(-60), 5).bytes;
        for initiation in [&device.initiation, &older] {
            send(&eavesdropper, initiation, family.gateway());
            assert_eq!(reply_to(&eavesdropper, initiation, SILENCE), None, "{name}");
        }
        let recorded = device.counted();
        send(&device.socket, &recorded, family.gateway());
        drops_become(&gateway, name, "unsolicited", 2);
        send(&eavesdropper, &recorded, family.gateway());
        drops_become(&gateway, name, "replay", 1);

        // An initiation with the newest stamp from another address is answered there, but does not
        // move the endpoint.
        let genuine = device.us.initiation(stamp(0), 6).bytes;
        send(&eavesdropper, &genuine, family.gateway());
        assert!(reply_to(&eavesdropper, &genuine, PATIENCE).is_some(), "{name}: a genuine initiation");

        sleep(PUBLISHED);
        assert_eq!(endpoint(&gateway, name), home);
        assert!(receive(&eavesdropper, SILENCE, data).is_none(), "{name}: data went to the eavesdropper");
        device.send_counted();
        drops_become(&gateway, name, "unsolicited", 3);
        assert!(
            device.hears(PATIENCE).is_some(),
            "{name}: the old session still carries the gateway's pings"
        );
    }
}

/// The share of its packets that a bystander may lose during a flood.
const TOLERATED: f64 = 0.01;
const FLOOD_PER_S: u32 = 5_000;
const FLOOD_S: u32 = 5;

#[test]
fn floods_leave_bystanders_alone_and_cookies_end_after_them() {
    let lab = Lab::new();
    let gateway = Gateway::start(&lab, SETTINGS);
    comes_first(&gateway);
    let conf = enrol(&gateway, "bystander");
    let mut bystander = Hand::connect(&lab, &conf, V4);
    let sixth = enrol(&gateway, "bystander-6");
    let mut sixth = Hand::connect(&lab, &sixth, V6);
    let strangers: Vec<Vec<u8>> =
        (0..1_000).map(|n| Initiator::stranger(&conf.peer).initiation(stamp(0), n).bytes).collect();

    let quiet = loss_during(&gateway, &mut bystander, "bystander", || sleep(Duration::from_secs(2)));
    let one = [V4.socket(&lab, "x")];
    let from_one = loss_during(&gateway, &mut bystander, "bystander", || flood(&one, &strangers, V4));
    let one = [V6.socket(&lab, "x")];
    let from_one_6 = loss_during(&gateway, &mut sixth, "bystander-6", || flood(&one, &strangers, V6));
    let many = many_sources(&lab, 500);
    let from_many = loss_during(&gateway, &mut bystander, "bystander", || flood(&many, &strangers, V4));
    println!(
        "lost: quiet {quiet:.4}, one source {from_one:.4} (IPv6 {from_one_6:.4}), 500 sources {from_many:.4}"
    );
    for lost in [from_one, from_one_6, from_many] {
        assert!(lost <= quiet + TOLERATED, "{lost}");
    }
    let (cookies, responses) = (count_replies(&many, COOKIE), count_replies(&many, RESPONSE));
    assert_eq!(responses, 0);
    println!("cookies sent to the flood: {cookies} or more");

    // Under load a device with a key connects at once with a cookie, and 3 s later without one.
    scope(|scope| {
        let flooding = scope.spawn(|| flood(&many, &strangers, V4));
        sleep(Duration::from_secs(2));
        let mut initiation = bystander.us.initiation(stamp(0), 11);
        assert!(
            handshake(&bystander.socket, &mut initiation, V4.gateway()).is_some(),
            "no way in during a flood"
        );
        assert!(initiation.bytes[132..] != [0; 16], "the flood brought no cookies");
        flooding.join().expect("the flood ends");
    });
    sleep(Duration::from_secs(3));
    let plain = bystander.us.initiation(stamp(0), 12);
    send(&bystander.socket, &plain.bytes, V4.gateway());
    let reply = reply_to(&bystander.socket, &plain.bytes, PATIENCE).expect("an answer");
    assert_eq!(reply.len(), RESPONSE, "a cookie is still asked for 3 s after the flood");
}

/// Raises the gateway's priority: a compiler on the same machine would cost the bystander more
/// packets than the flood does.
fn comes_first(gateway: &Gateway<'_>) {
    let pid = gateway.process.as_ref().expect("running").pid();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the gateway runs");
    for task in tasks.flatten() {
        run("renice", &["-n", "-15", "-p", task.file_name().to_str().expect("a number")]);
    }
}

/// Sends the messages at the flood's rate.
fn flood(sockets: &[UdpSocket], messages: &[Vec<u8>], family: Family) {
    let begin = Instant::now();
    for n in 0..FLOOD_PER_S * FLOOD_S {
        let message = &messages[n as usize % messages.len()];
        // Datagrams that the network refuses (a full queue) are part of a flood.
        let _ = sockets[n as usize % sockets.len()].send_to(message, family.gateway());
        pace(begin, n, FLOOD_PER_S);
    }
    let rate = f64::from(FLOOD_PER_S * FLOOD_S) / begin.elapsed().as_secs_f64();
    assert!(rate > 0.8 * f64::from(FLOOD_PER_S), "the flood came to {rate:.0}/s only");
}

/// Returns the share of lost packets of a device that sends 100 a second meanwhile.
fn loss_during(gateway: &Gateway<'_>, device: &mut Hand, name: &str, work: impl FnOnce() + Send) -> f64 {
    let before = dropped(gateway, name, "unsolicited");
    let mut sent = 0;
    scope(|scope| {
        let working = scope.spawn(work);
        while !working.is_finished() {
            device.send_counted();
            sent += 1;
            sleep(Duration::from_millis(10));
        }
    });
    sleep(PUBLISHED + Duration::from_millis(500));
    let arrived = dropped(gateway, name, "unsolicited") - before;
    println!("{name}: {arrived} of {sent} arrived");
    1.0 - arrived as f64 / f64::from(sent)
}

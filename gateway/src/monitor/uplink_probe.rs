//! Probes the gateway's own uplink, at an interval and whenever the monitor requests it. It examines
//! the default route, whether the tunnels' socket can send, and the external anchors that the settings
//! name.
//!
//! It contacts no external host that is not in the settings. It reads and dials; the engine interprets
//! the readings.

use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::messages::UplinkReading;
use fleetgate_engine::time::Mono;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::UplinkSettings;
use crate::engine::handle::Handle;
use crate::tunnel::udp::SocketStats;

/// Pause after a reading with a failure.
const AGAIN: Duration = Duration::from_secs(2);
/// Time limit for a connection to an anchor: two of its first packets may be lost.
const PATIENCE: Duration = Duration::from_secs(4);

/// Time without a passed packet after which the socket may count as stuck. A live device sends a packet
/// every 25 s. While packets pass, the uplink works, and those without a route are a problem of their
/// destination.
const HUSH: Duration = Duration::from_secs(30);

pub fn start(
    tasks: &mut JoinSet<()>,
    uplink: UplinkSettings,
    handle: Handle,
    passage: SocketStats,
    wanted: Arc<Notify>,
    stop: CancellationToken,
) {
    let probe = UplinkProbe { uplink, had_route: false, socket: Socket::new(passage, clock::now().mono) };
    tasks.spawn(async move {
        tokio::select! {
            () = probe.run(handle, wanted) => {}
            () = stop.cancelled() => {}
        }
    });
}

struct UplinkProbe {
    uplink: UplinkSettings,
    /// A gateway that never had a default route cannot have lost it.
    had_route: bool,
    socket: Socket,
}

/// Progress of the packets of the tunnels.
struct Socket {
    passage: SocketStats,
    /// Batches that had passed when the count last rose, its time, and the number stuck until then.
    passed: u64,
    passed_at: Mono,
    stuck: u64,
}

impl Socket {
    fn new(passage: SocketStats, now: Mono) -> Socket {
        let (passed, stuck) = (passage.passed(), passage.stuck());
        Socket { passage, passed, passed_at: now, stuck }
    }

    fn is_stuck(&mut self, now: Mono) -> bool {
        let (passed, stuck) = (self.passage.passed(), self.passage.stuck());
        if passed != self.passed {
            (self.passed, self.passed_at, self.stuck) = (passed, now, stuck);
        }
        stuck > self.stuck && now.since(self.passed_at) >= HUSH
    }
}

impl UplinkProbe {
    async fn run(mut self, handle: Handle, wanted: Arc<Notify>) {
        loop {
            let reading = self.look(default_route()).await;
            let is_well = reading.default_route != Some(false)
                && !reading.socket_is_stuck
                && reading.anchors.iter().all(|(_, answers)| *answers);
            handle.uplink(reading).await;
            let rest = if is_well { self.uplink.interval } else { AGAIN.min(self.uplink.interval) };
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = wanted.notified() => {}
            }
        }
    }

    async fn look(&mut self, route: Option<bool>) -> UplinkReading {
        self.had_route |= route == Some(true);
        let mut dials = JoinSet::new();
        for (at, anchor) in self.uplink.anchors.iter().cloned().enumerate() {
            dials.spawn(async move { (at, answers(&anchor).await) });
        }
        let mut found = vec![false; self.uplink.anchors.len()];
        while let Some(dialled) = dials.join_next().await {
            let Ok((at, answers)) = dialled else { continue };
            found[at] = answers;
        }
        let anchors = self.uplink.anchors.iter().cloned().zip(found).collect();
        let socket_is_stuck = self.socket.is_stuck(clock::now().mono);
        UplinkReading { default_route: route.filter(|_| self.had_route), anchors, socket_is_stuck }
    }
}

/// A refused connection counts as a reply.
async fn answers(anchor: &str) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    match tokio::time::timeout(PATIENCE, TcpStream::connect(anchor)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => matches!(error.kind(), ConnectionRefused | ConnectionReset),
        Err(_) => false,
    }
}

/// `None` when this system does not expose its routes.
fn default_route() -> Option<bool> {
    let v4 = std::fs::read_to_string("/proc/net/route").ok()?;
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    Some(v4.lines().skip(1).any(is_default_v4) || v6.lines().any(is_default_v6))
}

/// Fields: interface, destination, gateway, flags, ..., mask (the eighth). The route must be up and
/// lead everywhere.
fn is_default_v4(line: &str) -> bool {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, destination, _, flags, _, _, _, mask, ..] = fields[..] else { return false };
    destination == "00000000" && mask == "00000000" && is_up(flags)
}

/// Fields: destination, its length, ..., flags (the ninth), interface. The kernel keeps one on the
/// loopback that rejects everything.
fn is_default_v6(line: &str) -> bool {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, length, .., flags, _] = fields[..] else { return false };
    destination.bytes().all(|b| b == b'0') && length == "00" && is_up(flags)
}

fn is_up(flags: &str) -> bool {
    const UP: u32 = 1;
    const REJECT: u32 = 0x200;
    u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UP != 0 && flags & REJECT == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LONGEST_UPLINK_INTERVAL;

    fn probe(anchors: &[&str]) -> UplinkProbe {
        let anchors = anchors.iter().map(|a| (*a).to_owned()).collect();
        let socket = Socket::new(SocketStats::default(), Mono::ZERO);
        UplinkProbe {
            uplink: UplinkSettings { anchors, interval: LONGEST_UPLINK_INTERVAL },
            had_route: false,
            socket,
        }
    }

    #[test]
    fn a_socket_that_nothing_leaves_and_nothing_comes_to_is_stuck_until_something_passes() {
        let passage = SocketStats::default();
        let at = |secs: u64| Mono::from_secs(1_000 + secs);
        let mut socket = Socket::new(passage.clone(), at(0));
        assert!(!socket.is_stuck(at(100)), "nothing was to be sent");
        passage.note_passed();
        passage.note_stuck();
        assert!(!socket.is_stuck(at(110)), "one had nowhere to go, others are heard");
        assert!(!socket.is_stuck(at(200)), "and nothing was to be sent since");
        passage.note_stuck();
        assert!(socket.is_stuck(at(210)) && socket.is_stuck(at(212)));
        passage.note_passed();
        assert!(!socket.is_stuck(at(214)));
        passage.note_stuck();
        assert_eq!([243, 244].map(|secs| socket.is_stuck(at(secs))), [false, true]);
    }

    #[test]
    fn a_default_route_is_told_from_the_others() {
        for (line, expected) in [
            ("eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0", true),
            ("eth0\t00000000\t010200C0\t0002\t0\t0\t0\t00000000\t0\t0\t0", false),
            ("eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0", false),
            ("tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0", false),
            ("", false),
        ] {
            assert_eq!(is_default_v4(line), expected, "{line}");
        }
        let (zero, router) = ("0".repeat(32), "20010db8".to_owned() + &"0".repeat(23) + "1");
        for (line, expected) in [
            (format!("{zero} 00 {zero} 00 {router} 00000400 00000003 00000000 00000003     eth0"), true),
            (format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo"), false),
            (format!("{router} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0"), false),
            (String::new(), false),
        ] {
            assert_eq!(is_default_v6(&line), expected, "{line}");
        }
    }

    #[tokio::test]
    async fn a_route_that_never_was_is_not_missed_and_one_that_was_is() {
        let mut probe = probe(&[]);
        let routes = [None, Some(false), Some(true), Some(false), Some(true)];
        let mut seen = Vec::new();
        for route in routes {
            seen.push(probe.look(route).await.default_route);
        }
        assert_eq!(seen, [None, None, Some(true), Some(false), Some(true)]);
    }

    #[tokio::test]
    async fn a_refused_connection_proves_an_anchor_up_and_an_unknown_name_does_not() {
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let [there, refuses] = [&listening, &gone].map(|l| l.local_addr().unwrap().to_string());
        drop(gone);
        let reading = probe(&[&there, &refuses, "nowhere.invalid:443"]).look(None).await;
        let found = [(there, true), (refuses, true), ("nowhere.invalid:443".to_owned(), false)];
        assert_eq!(reading.anchors, found);
    }
}

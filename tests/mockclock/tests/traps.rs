//! Each trap of boringtun 0.7.1 twice: its own behaviour, and the proof that the engine's session
//! avoids it.

use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use fleetgate_keys::PrivateKey;
use fleetgate_mockclock::{Came, Clock, DATA, End, Fenced, INITIATION, Naive, Out, packet, tunn};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A device and a gateway without a network between them.
struct Pair<G> {
    clock: Clock,
    gateway: G,
    device: Naive,
}

fn naive() -> Pair<Naive> {
    let (gateway, device) = (PrivateKey::generate(), PrivateKey::generate());
    let clock = Clock::start();
    let end = Naive(tunn(&gateway, &device.public(), None));
    Pair { clock, gateway: end, device: Naive(tunn(&device, &gateway.public(), None)) }
}

fn fenced() -> Pair<Fenced> {
    let (gateway, device) = (PrivateKey::generate(), PrivateKey::generate());
    let clock = Clock::start();
    let end = Fenced::new(&gateway, device.public());
    Pair { clock, gateway: end, device: Naive(tunn(&device, &gateway.public(), None)) }
}

impl<G: End> Pair<G> {
    fn deliver(&mut self, datagram: &[u8]) -> (Came, Out) {
        let mut out = Out::new();
        (self.gateway.receive(datagram, self.clock.now(), &mut out), out)
    }

    fn device_dials(&mut self) {
        let mut out = Out::new();
        // A real device polls itself continuously; here it is polled before it dials.
        self.device.poll(self.clock.now(), &mut Out::new());
        self.device.dial(self.clock.now(), &mut out);
        let (_, answer) = self.deliver(&out[0]);
        let mut keepalive = Out::new();
        self.device.receive(&answer[0], self.clock.now(), &mut keepalive);
        assert_eq!(self.deliver(&keepalive[0]).0, Came::Other);
    }

    fn device_sends(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = Out::new();
        self.device.send(packet, self.clock.now(), &mut out);
        out.remove(0)
    }

    fn gateway_sends(&mut self) -> Out {
        let mut out = Out::new();
        self.gateway.send(&packet(), self.clock.now(), &mut out);
        out
    }

    fn gateway_polls(&mut self) -> Out {
        let mut out = Out::new();
        self.gateway.poll(self.clock.now(), &mut out);
        out
    }

    /// Polls whenever the gateway is due; returns the types of the messages it sends.
    fn wait(&mut self, length: Duration) -> Vec<u8> {
        let end = self.clock.now() + length;
        let mut sent = Vec::new();
        while let Some(due) = self.gateway.next_poll(self.clock.now()).filter(|due| *due <= end) {
            self.clock.advance_to(due);
            sent.extend(self.gateway_polls().iter().map(|datagram| datagram[0]));
        }
        self.clock.advance_to(end);
        sent
    }
}

fn types(out: &Out) -> Vec<u8> {
    out.iter().map(|datagram| datagram[0]).collect()
}

// ------------------------------------------------------------------ A: the time of the last poll

#[test]
fn a_new_session_of_an_unpolled_tunn_dies_at_the_next_poll() {
    let mut pair = naive();
    pair.clock.advance(secs(600));
    pair.device_dials();
    assert!(matches!(pair.gateway.0.update_timers(&mut [0; 2_048]), TunnResult::Err(_)));
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Refused("NoCurrentSession".into()));
}

#[test]
fn fenced_a_new_session_lives_its_whole_time_however_long_nobody_polled() {
    let mut pair = fenced();
    pair.device_dials();
    for _ in 0..5 {
        pair.clock.advance(secs(170));
        pair.device_dials();
        pair.clock.advance(secs(5));
        pair.gateway_polls();
        assert!(pair.gateway.established(pair.clock.now()));
        pair.clock.advance(secs(171));
        let datagram = pair.device_sends(&packet());
        assert_eq!(pair.deliver(&datagram).0, Came::Packet, "at 176 s");
    }
}

// ------------------------------------------------------------------ C: ages are not enforced

#[test]
fn an_unpolled_session_opens_packets_after_1000_s() {
    let mut pair = naive();
    pair.device_dials();
    pair.clock.advance(secs(1_000));
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Packet);
}

#[test]
fn fenced_a_session_works_at_176_s_and_is_refused_at_181_s_both_ways() {
    let mut pair = fenced();
    pair.device_dials();
    pair.clock.advance(secs(176));
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Packet);
    assert_eq!(types(&pair.gateway_sends()), [DATA]);
    pair.clock.advance(secs(5));
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Refused("SessionExpired".into()));
    assert!(!pair.gateway.established(pair.clock.now()));
    assert_eq!(types(&pair.gateway_sends()), [INITIATION], "it may dial, but sends no data");
}

#[test]
fn fenced_also_between_polls_it_is_refused() {
    let mut pair = fenced();
    pair.device_dials();
    pair.wait(secs(179));
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Packet);
    pair.clock.advance(secs(1));
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Refused("SessionExpired".into()));
}

#[test]
fn fenced_a_session_that_ended_is_dropped_and_costs_nothing() {
    let mut pair = fenced();
    pair.device_dials();
    assert_eq!(pair.wait(secs(200)), []);
    assert!(pair.gateway.session.is_none());
}

// ------------------------------------------------- D, E: earlier quiet counts as later silence

#[test]
fn a_packet_after_15_quiet_seconds_makes_the_next_poll_shake_hands() {
    let mut pair = naive();
    pair.device_dials();
    pair.clock.advance(secs(20));
    pair.gateway_polls();
    pair.gateway_sends();
    assert_eq!(types(&pair.gateway_polls()), [INITIATION]);
}

#[test]
fn fenced_only_silence_after_a_packet_counts() {
    let mut pair = fenced();
    pair.device_dials();
    for _ in 0..5 {
        pair.wait(secs(20));
        assert_eq!(types(&pair.gateway_sends()), [DATA]);
        assert_eq!(types(&pair.gateway_polls()), []);
        assert_eq!(pair.wait(secs(10)), []);
        let keepalive = pair.device_sends(&[]);
        pair.deliver(&keepalive);
    }
    pair.gateway_sends();
    assert_eq!(pair.wait(secs(15)), [INITIATION]);
}

#[test]
fn a_packet_after_10_quiet_seconds_makes_the_next_poll_send_a_keepalive() {
    let mut pair = naive();
    pair.device_dials();
    pair.clock.advance(secs(20));
    pair.gateway_polls();
    let datagram = pair.device_sends(&packet());
    pair.deliver(&datagram);
    assert_eq!(types(&pair.gateway_polls()), [DATA]);
}

#[test]
fn fenced_a_packet_is_answered_after_10_s_and_once() {
    let mut pair = fenced();
    pair.device_dials();
    pair.wait(secs(20));
    let datagram = pair.device_sends(&packet());
    pair.deliver(&datagram);
    assert_eq!(pair.wait(Duration::from_millis(9_900)), []);
    assert_eq!(pair.wait(secs(100)), [DATA]);
}

// ------------------------------------------------------------------ G, H: an absent peer

#[test]
fn a_packet_for_an_offline_peer_makes_18_initiations_and_then_everything_expires() {
    let mut pair = naive();
    let first = pair.gateway_sends();
    let later = pair.wait(secs(600));
    assert_eq!(first.len() + later.len(), 18);
    assert!(pair.gateway.0.is_expired());
}

#[test]
fn fenced_an_offline_peer_gets_two_initiations_and_is_dropped() {
    let mut pair = fenced();
    let first = pair.gateway_sends();
    let later = pair.wait(secs(60));
    assert_eq!((types(&first), later), (vec![INITIATION], vec![INITIATION]));
    assert!(pair.gateway.session.is_none());
}

#[test]
fn fenced_a_handshake_that_failed_does_not_end_the_session_that_works() {
    let mut pair = fenced();
    pair.device_dials();
    pair.gateway_sends();
    assert_eq!(pair.wait(secs(30)), [INITIATION, INITIATION]);
    // The network is back. boringtun alone would wipe the session 90 s after the first initiation.
    let keepalive = pair.device_sends(&[]);
    assert_eq!(pair.deliver(&keepalive).0, Came::Other);
    let initiation = pair.gateway_polls().remove(0);
    let mut response = Out::new();
    pair.device.receive(&initiation, pair.clock.now(), &mut response);
    pair.deliver(&response[0]);
    assert_eq!(pair.wait(secs(140)), []);
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Packet);
}

#[test]
fn fenced_a_device_that_comes_back_after_an_hour_is_let_in() {
    let mut pair = fenced();
    pair.gateway_sends();
    pair.wait(secs(3_600));
    pair.device_dials();
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Packet);
}

// ------------------------------------------------------------------ replays, after a renewal too

#[test]
fn fenced_what_was_received_once_is_refused_for_ever() {
    let mut pair = fenced();
    pair.device_dials();
    let datagram = pair.device_sends(&packet());
    assert_eq!(pair.deliver(&datagram).0, Came::Packet);
    for _ in 0..4 {
        assert!(matches!(pair.deliver(&datagram).0, Came::Refused(_)));
        pair.clock.advance(secs(100));
        pair.device_dials();
    }
}

#[test]
fn boringtun_cuts_a_long_index_which_the_engine_refuses_to_give() {
    let (gateway, device) = (PrivateKey::generate(), PrivateKey::generate());
    let secret = x25519_dalek::StaticSecret::from(*gateway.as_bytes());
    let mut tunn = Tunn::new(secret, (*device.public().as_bytes()).into(), None, None, 1 << 24, None);
    let mut room = [0; 148];
    tunn.format_handshake_initiation(&mut room, true);
    assert_eq!(room[5..8], [0, 0, 0]);
}

/// The device keeps sending in its session and receives no handshake of the gateway. Returns for
/// how many seconds its packets are accepted.
fn heard_while_handshakes_are_lost<G: End>(mut pair: Pair<G>) -> u64 {
    pair.device_dials();
    for second in 1..178 {
        pair.clock.advance(secs(1));
        if second % 10 == 0 {
            pair.gateway.dial(pair.clock.now(), &mut Out::new());
        }
        pair.gateway_polls();
        let sent = pair.device_sends(&packet());
        if pair.deliver(&sent).0 != Came::Packet {
            return second;
        }
    }
    178
}

#[test]
fn handshakes_that_come_to_nothing_end_no_session_in_use() {
    let naive = heard_while_handshakes_are_lost(naive());
    assert!((99..110).contains(&naive), "boringtun ends all sessions after 90 s: {naive}");
    assert_eq!(heard_while_handshakes_are_lost(fenced()), 178);
}

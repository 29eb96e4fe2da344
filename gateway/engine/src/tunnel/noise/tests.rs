use super::peer::{Device, Said, packet};
use super::*;
use crate::time::Wall;

const FROM: &str = "192.0.2.7:40000";
/// The start of these tests. boringtun's own clock stands still meanwhile.
const START: Mono = Mono::from_secs(1_000);

/// A gateway's session and the device at its other end.
struct Pair {
    session: BoringSession,
    device: Device,
    now: Mono,
    scratch: Vec<u8>,
}

/// The result of a datagram for a session, and the datagrams it sent.
type Made = (String, Vec<Vec<u8>>);

impl Pair {
    fn new() -> Self {
        Self::with(None, None)
    }

    fn with(ours: Option<PresharedKey>, theirs: Option<PresharedKey>) -> Self {
        let gateway = PrivateKey::generate();
        let device = Device::new(&gateway.public(), theirs.as_ref());
        let mut noise = BoringNoise::new(&gateway, [3; 32]);
        let now = Now { mono: START, wall: Wall::from_millis(0) };
        let session = noise.session(&device.public(), ours.as_ref(), 0xab_cdef, now);
        Pair { session, device, now: START, scratch: vec![0; LEAST_SCRATCH] }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = START + Duration::from_secs(seconds);
        self
    }

    fn receive(&mut self, datagram: &[u8]) -> Made {
        let mut sent = Vec::new();
        let from = FROM.parse().unwrap();
        let mut sink = |bytes: &[u8]| sent.push(bytes.to_vec());
        let opened = self.session.receive(datagram, from, self.now, &mut self.scratch, &mut sink);
        let opened = match opened {
            Opened::Packet(packet) => format!("packet of {}", packet.len()),
            Opened::HandshakeAnswered(_) => "HandshakeAnswered".to_owned(),
            other => format!("{other:?}"),
        };
        (opened, sent)
    }

    fn send(&mut self, packet: &[u8]) -> Result<Vec<Vec<u8>>, NoSession> {
        let mut sent = Vec::new();
        let mut sink = |bytes: &[u8]| sent.push(bytes.to_vec());
        self.session.send(packet, self.now, &mut self.scratch, &mut sink).map(|()| sent)
    }

    fn initiate(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        self.session.initiate(self.now, &mut self.scratch, &mut |bytes| sent.push(bytes.to_vec()));
        sent
    }

    fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        self.session.poll(self.now, &mut self.scratch, &mut |bytes| sent.push(bytes.to_vec()));
        sent
    }

    /// Polls at each deadline up to `seconds`; returns the times and types of what was sent.
    fn poll_until(&mut self, seconds: u64) -> Vec<(u64, u8)> {
        let mut seen = Vec::new();
        let end = START + Duration::from_secs(seconds);
        while let Some(due) = self.session.next_poll().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let at = self.now.since(START).as_secs();
            seen.extend(self.poll().iter().map(|message| (at, message[0])));
        }
        self.now = end;
        seen
    }

    /// The device makes a handshake and confirms it with its first packet.
    fn device_dials(&mut self) {
        let initiation = self.device.initiation();
        let (opened, sent) = self.receive(&initiation);
        assert_eq!(opened, "HandshakeAnswered");
        let keepalive = self.device.receive(&sent[0]).reply();
        assert_eq!(self.receive(&keepalive).0, "Keepalive");
    }

    fn gateway_dials(&mut self) {
        let initiation = self.initiate().remove(0);
        let response = self.device.receive(&initiation).reply();
        let (opened, sent) = self.receive(&response);
        assert_eq!(opened, "HandshakeDone");
        assert_eq!(self.device.receive(&sent[0]), Said::Nothing);
    }

    fn assert_flows(&mut self) {
        let sent = self.send(&packet(84)).unwrap();
        assert_eq!(self.device.receive(&sent[0]), Said::Packet(packet(84)));
        let datagram = self.device.send(&packet(99));
        assert_eq!(self.receive(&datagram).0, "packet of 99");
    }
}

#[test]
fn a_device_dials_in_and_packets_flow_both_ways() {
    let mut pair = Pair::new();
    pair.device_dials();
    pair.assert_flows();
}

#[test]
fn the_gateway_dials_and_packets_flow_both_ways() {
    let mut pair = Pair::new();
    pair.gateway_dials();
    assert!(pair.session.established(pair.now));
    pair.assert_flows();
}

#[test]
fn data_is_padded_within_the_mtu_and_arrives_unchanged() {
    let mut pair = Pair::new();
    pair.device_dials();
    for mtu in [DEFAULT_MTU, 1_300, *MTU_RANGE.end(), DEFAULT_MTU] {
        if mtu != pair.session.mtu {
            pair.session.set_mtu(mtu);
        }
        for len in (20..=100).chain(mtu - 40..=mtu) {
            let sent = pair.send(&packet(len)).unwrap().remove(0);
            let carried = sent.len() - DATA_OVERHEAD;
            let expected = usize::from(len).next_multiple_of(16).min(mtu.into());
            assert_eq!(carried, expected, "{len} of {mtu}");
            assert_eq!(pair.device.receive(&sent), Said::Packet(packet(len)), "{len}");
        }
        let beyond = pair.send(&packet(mtu + 1)).unwrap().remove(0);
        assert_eq!(beyond.len() - DATA_OVERHEAD, usize::from(mtu) + 1, "never more than what came");
    }
    assert_eq!(pair.send(&[]).unwrap()[0].len(), DATA_OVERHEAD, "a keepalive");
}

#[test]
fn a_preshared_key_must_be_the_same_at_both_ends() {
    let psk = PresharedKey::generate();
    let mut pair = Pair::with(Some(psk.clone()), Some(psk.clone()));
    pair.device_dials();
    pair.assert_flows();
    let mut pair = Pair::with(Some(psk), None);
    let initiation = pair.initiate().remove(0);
    let response = pair.device.receive(&initiation).reply();
    assert_eq!(pair.receive(&response).0, "Dropped(Crypto)");
}

#[test]
fn a_session_is_established_only_once_the_device_has_confirmed_it() {
    let mut pair = Pair::new();
    let initiation = pair.device.initiation();
    pair.receive(&initiation);
    assert!(!pair.session.established(pair.now));
    assert_eq!(pair.send(&packet(84)), Err(NoSession));
    pair.at(1).device_dials();
    assert!(pair.session.established(pair.now));
}

#[test]
fn without_a_session_nothing_is_sent_queued_or_dialled() {
    let mut pair = Pair::new();
    for _ in 0..300 {
        assert_eq!(pair.send(&packet(84)), Err(NoSession));
    }
    assert_eq!(pair.session.next_poll(), None);
    pair.device_dials();
    assert_eq!(pair.poll(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_session_is_good_at_179_s_and_refused_at_180_s_both_ways() {
    let mut pair = Pair::new();
    pair.device_dials();
    pair.at(179).assert_flows();
    let late = pair.device.send(&packet(84));
    assert_eq!(pair.at(180).receive(&late).0, "Dropped(SessionExpired)");
    assert_eq!(pair.send(&packet(84)), Err(NoSession));
    assert!(!pair.session.established(pair.now));
}

#[test]
fn a_session_that_ended_is_dropped() {
    let mut pair = Pair::new();
    pair.device_dials();
    assert_eq!(pair.session.next_poll(), Some(START + WIPE_AFTER));
    assert_eq!(pair.poll_until(200), []);
    assert_eq!(pair.session.next_poll(), None);
}

#[test]
fn a_dial_has_two_initiations_and_is_then_given_up() {
    let mut pair = Pair::new();
    assert_eq!(pair.initiate().len(), 1);
    assert_eq!(pair.initiate().len(), 0, "one is in flight");
    assert_eq!(pair.poll_until(100), [(5, 1)]);
    assert_eq!(pair.session.next_poll(), None);
    assert_eq!(pair.at(300).initiate().len(), 1, "a new dial");
}

#[test]
fn a_dial_repeated_on_request_uses_the_second_initiation() {
    let mut pair = Pair::new();
    pair.initiate();
    assert_eq!(pair.at(5).initiate().len(), 1);
    assert_eq!(pair.poll_until(100), []);
}

#[test]
fn the_response_to_either_initiation_is_taken() {
    for late in [false, true] {
        let mut pair = Pair::new();
        let first = pair.initiate().remove(0);
        let response = pair.device.receive(&first).reply();
        let second = pair.at(5).poll().remove(0);
        let response = if late { pair.device.receive(&second).reply() } else { response };
        assert_eq!(pair.receive(&response).0, "HandshakeDone");
        assert_eq!(pair.poll_until(100), []);
    }
}

#[test]
fn an_unexpected_response_costs_nothing() {
    let mut pair = Pair::new();
    let initiation = pair.initiate().remove(0);
    let response = pair.device.receive(&initiation).reply();
    for _ in 0..MAX_RESPONSES {
        let mut forged = response.clone();
        forged[20] ^= 1;
        assert_eq!(pair.receive(&forged).0, "Dropped(BadMac1)");
    }
    assert_eq!(pair.receive(&response).0, "Dropped(UnknownIndex)");
}

#[test]
fn a_replayed_packet_is_dropped() {
    let mut pair = Pair::new();
    pair.device_dials();
    let datagram = pair.device.send(&packet(84));
    assert_eq!(pair.receive(&datagram).0, "packet of 84");
    assert_eq!(pair.receive(&datagram).0, "Dropped(Replay)");
}

#[test]
fn a_counter_at_the_end_of_its_range_does_not_reach_the_replay_window() {
    let mut pair = Pair::new();
    pair.device_dials();
    let mut datagram = pair.device.send(&packet(84));
    datagram[8..16].copy_from_slice(&(u64::MAX - (1 << 13)).to_le_bytes());
    assert_eq!(pair.receive(&datagram).0, "Dropped(CounterExhausted)");
    datagram[8..16].copy_from_slice(&(u64::MAX - (1 << 13) - 1).to_le_bytes());
    assert_eq!(pair.receive(&datagram).0, "Dropped(Crypto)");
}

#[test]
fn an_authentic_packet_that_is_not_ip_counts_as_heard() {
    let mut pair = Pair::new();
    pair.device_dials();
    pair.send(&packet(84)).unwrap();
    let datagram = pair.device.send(b"this is not an IP packet");
    assert_eq!(pair.receive(&datagram).0, "NotIp");
    assert_eq!(pair.session.unanswered, None);
}

#[test]
fn a_received_packet_is_followed_by_a_keepalive_within_ten_seconds() {
    let mut pair = Pair::new();
    pair.device_dials();
    let datagram = pair.device.send(&packet(84));
    pair.receive(&datagram);
    assert_eq!(pair.poll_until(60), [(10, 4)]);
    let keepalive = pair.device.send(&[]);
    pair.receive(&keepalive);
    assert_eq!(pair.poll_until(100), [], "a keepalive wants no answer");
}

#[test]
fn silence_after_a_packet_starts_one_dial_and_no_second() {
    let mut pair = Pair::new();
    pair.device_dials();
    pair.send(&packet(84)).unwrap();
    assert_eq!(pair.poll_until(60), [(15, 1), (20, 1)]);
    pair.send(&packet(84)).unwrap();
    assert_eq!(pair.poll_until(175), []);
}

#[test]
fn an_answer_within_15_s_starts_no_handshake_however_long_it_was_quiet_before() {
    let mut pair = Pair::new();
    pair.device_dials();
    for seconds in [30, 60, 90] {
        pair.poll_until(seconds);
        pair.send(&packet(84)).unwrap();
        assert_eq!(pair.poll(), Vec::<Vec<u8>>::new());
        pair.at(seconds + 14);
        let answer = pair.device.send(&[]);
        pair.receive(&answer);
    }
    assert_eq!(pair.poll_until(150), []);
}

#[test]
fn a_handshake_that_was_given_up_resumes_when_a_packet_of_the_peer_arrives() {
    let mut pair = Pair::new();
    pair.device_dials();
    pair.send(&packet(84)).unwrap();
    pair.poll_until(60);
    let keepalive = pair.device.send(&[]);
    pair.receive(&keepalive);
    let initiation = pair.poll().remove(0);
    let response = pair.device.receive(&initiation).reply();
    assert_eq!(pair.receive(&response).0, "HandshakeDone");
    pair.assert_flows();
}

#[test]
fn the_initiator_renews_a_session_it_sends_on_after_120_s() {
    let mut pair = Pair::new();
    pair.gateway_dials();
    assert_eq!(pair.at(119).send(&packet(84)).unwrap().len(), 1);
    let keepalive = pair.device.send(&[]);
    pair.receive(&keepalive);
    let sent = pair.at(120).send(&packet(84)).unwrap();
    assert_eq!((sent[0][0], sent[1][0]), (4, 1));
    let response = pair.device.receive(&sent[1]).reply();
    pair.receive(&response);
    pair.at(290).assert_flows();
}

#[test]
fn the_initiator_renews_a_session_it_only_receives_on_after_165_s() {
    let mut pair = Pair::new();
    pair.gateway_dials();
    let keepalives = [0, 1].map(|_| pair.device.send(&[]));
    pair.at(164).receive(&keepalives[0]);
    assert_eq!(pair.session.next_poll(), Some(START + WIPE_AFTER));
    pair.at(165).receive(&keepalives[1]);
    assert_eq!(pair.poll()[0][0], 1);
}

#[test]
fn the_responder_leaves_renewing_to_the_initiator() {
    let mut pair = Pair::new();
    pair.device_dials();
    assert_eq!(pair.at(175).send(&packet(84)).unwrap().len(), 1);
    let keepalive = pair.device.send(&[]);
    pair.receive(&keepalive);
    assert_eq!(pair.poll(), Vec::<Vec<u8>>::new());
}

#[test]
fn a_stamp_that_the_caller_lets_pass_is_answered_even_if_it_is_older() {
    let mut pair = Pair::new();
    let older = pair.device.initiation();
    pair.device_dials();
    assert_eq!(pair.at(1).receive(&older).0, "HandshakeAnswered");
}

#[test]
fn one_peer_is_answered_fifty_times_a_second_at_most() {
    let mut pair = Pair::new();
    pair.device_dials();
    let initiations = [0, 1].map(|_| pair.device.initiation());
    pair.now = START + Duration::from_millis(19);
    assert_eq!(pair.receive(&initiations[0]).0, "Dropped(RateLimited)");
    pair.now = START + Duration::from_millis(20);
    assert_eq!(pair.receive(&initiations[1]).0, "HandshakeAnswered");
}

#[test]
fn a_handshake_of_the_device_ends_ours_unless_ours_is_newer() {
    for repeated in [false, true] {
        let mut pair = Pair::new();
        pair.initiate();
        let initiation = pair.device.initiation();
        let answer = pair.at(1).receive(&initiation).1.remove(0);
        if repeated {
            assert_eq!(pair.at(5).poll()[0][0], 1);
        }
        let keepalive = pair.device.receive(&answer).reply();
        assert_eq!(pair.receive(&keepalive).0, "Keepalive");
        assert_eq!(pair.session.dial.is_some(), repeated);
    }
}

#[test]
fn after_a_panic_inside_the_peer_shakes_hands_anew() {
    let mut pair = Pair::new();
    pair.device_dials();
    assert_eq!(pair.session.guarded(|_| panic!("as boringtun does when its clock goes back")), None::<()>);
    assert!(!pair.session.established(pair.now));
    pair.device_dials();
    pair.assert_flows();
}

#[test]
fn garbage_for_a_session_changes_nothing() {
    let mut pair = Pair::new();
    pair.device_dials();
    let good = pair.device.send(&packet(84));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let (opened, sent) = pair.receive(&bad);
        assert!(opened.starts_with("Dropped"), "{opened}");
        assert!(sent.is_empty());
        assert!(pair.receive(&good[..at]).0.starts_with("Dropped"));
    }
    assert!(pair.receive(&vec![4; 70_000]).0.starts_with("Dropped"));
    pair.assert_flows();
}

#[test]
fn roaming_through_many_handshakes_keeps_the_newest_session() {
    let mut pair = Pair::new();
    for round in 0..300 {
        pair.at(round);
        if round % 3 == 0 {
            pair.gateway_dials()
        } else {
            pair.device_dials()
        }
        pair.assert_flows();
    }
}

#[test]
fn the_index_of_a_session_is_the_one_that_was_given() {
    let mut pair = Pair::new();
    assert_eq!(word(&pair.initiate()[0], 4) >> 8, 0xab_cdef);
}

#[test]
fn a_session_needs_less_than_13_kilobytes() {
    assert!(size_of::<BoringSession>() + size_of::<Tunn>() < 13_000);
}

//! The same stories with real cryptography: our session at both ends, and a bare boringtun as the
//! device.

use std::net::SocketAddr;
use std::time::Duration;

use boringtun::noise::{Tunn, TunnResult};
use fleetgate_keys::PresharedKey;

use super::super::noise::BoringNoise;
use super::super::session::{NoSession, Noise, Opened, Session, Sink};
use super::world::*;
use crate::messages::{
    Command, ConnectFailure, DropReason, EchoReply, PeerSnapshot, PeerSpec, ProbeReply, StreamInput,
    StreamOutput, TunnelEvent,
};
use crate::time::Mono;

const SECOND: Duration = Duration::from_secs(1);

fn psk() -> PresharedKey {
    PresharedKey::from_bytes([9; 32])
}

fn spec_with_psk() -> PeerSpec {
    let mut spec = spec(2);
    spec.keys[0].psk = Some(psk());
    spec
}

fn gateway<S: Session>() -> World<BoringNoise, S> {
    let mut world = World::new(BoringNoise::new(&private(200), [7; 32]));
    world.command(Command::Upsert(Box::new(spec_with_psk()), PeerSnapshot::default()));
    world
}

pub fn ours() -> World<BoringNoise> {
    let mut world = gateway();
    let mut noise = BoringNoise::new(&private(2), [8; 32]);
    let session = noise.session(&gateway_key(), Some(&psk()), 77, world.now);
    world.add(2, session);
    world
}

/// boringtun used as in its own examples.
struct Bare(Tunn);

impl Bare {
    fn new(psk: Option<[u8; 32]>) -> Self {
        let secret = x25519_dalek::StaticSecret::from(*private(2).as_bytes());
        Bare(Tunn::new(secret, (*gateway_key().as_bytes()).into(), psk, None, 5, None))
    }
}

impl Session for Bare {
    fn receive<'b>(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        _: Mono,
        scratch: &'b mut [u8],
        sink: Sink<'_>,
    ) -> Opened<'b> {
        match self.0.decapsulate(Some(from.ip()), datagram, scratch) {
            TunnResult::WriteToNetwork(bytes) => {
                sink(bytes);
                Opened::Nothing
            }
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Opened::Packet(packet)
            }
            TunnResult::Done => Opened::Nothing,
            TunnResult::Err(_) => Opened::Dropped(DropReason::Crypto),
        }
    }

    fn seal(&mut self, packet: &[u8], _: Mono, room: &mut [u8]) -> Result<usize, NoSession> {
        match self.0.encapsulate(packet, room) {
            TunnResult::WriteToNetwork(bytes) => Ok(bytes.len()),
            _ => Err(NoSession),
        }
    }

    fn renew(&mut self, _: Mono, _: &mut [u8], _: Sink<'_>) {}

    fn initiate(&mut self, _: Mono, scratch: &mut [u8], sink: Sink<'_>) {
        if let TunnResult::WriteToNetwork(bytes) = self.0.format_handshake_initiation(scratch, true) {
            sink(bytes);
        }
    }

    fn poll(&mut self, _: Mono, _: &mut [u8], _: Sink<'_>) {}

    fn next_poll(&self) -> Option<Mono> {
        None
    }

    fn set_mtu(&mut self, _: u16) {}

    fn established(&self, _: Mono) -> bool {
        true
    }
}

fn bare(psk: Option<[u8; 32]>) -> World<BoringNoise, Bare> {
    let mut world = gateway();
    world.add(2, Bare::new(psk));
    world
}

fn echo_and_connect_work<S: Session>(world: &mut World<BoringNoise, S>) {
    for address in [v4(2), v6(2), behind()] {
        let expected = EchoReply { sent: 2, rtts: vec![RTT; 2], failure: None };
        assert_eq!(world.echo(2, address, 2), ProbeReply::Echo(expected));
        assert_eq!(world.connect(2, address, 22), ProbeReply::Connect(Ok(RTT)));
        assert_eq!(world.connect(2, address, 23), ProbeReply::Connect(Err(ConnectFailure::Refused)));
    }
}

#[test]
fn a_device_calls_and_is_probed_by_icmp_and_tcp() {
    let mut world = ours();
    world.initiate(2);
    world.run(SECOND);
    assert!(world.established(2) && world.news.contains(&TunnelEvent::FirstHandshake(id(2))));
    echo_and_connect_work(&mut world);
}

#[test]
fn a_bare_boringtun_is_served_as_well() {
    let mut world = bare(Some(*psk().as_bytes()));
    world.initiate(2);
    world.run(SECOND);
    assert!(world.established(2));
    echo_and_connect_work(&mut world);
}

#[test]
fn the_gateway_calls_a_bare_boringtun_after_a_restart() {
    let mut world = bare(Some(*psk().as_bytes()));
    world.command(Command::Remove(id(2)));
    let memory = PeerSnapshot { endpoint: Some(public_address(2)), ..PeerSnapshot::default() };
    world.command(Command::Upsert(Box::new(spec_with_psk()), memory));
    world.command(Command::DialAll);
    world.run(SECOND);
    assert!(world.established(2));
    echo_and_connect_work(&mut world);
}

#[test]
fn a_wrong_preshared_key_makes_no_tunnel() {
    let mut world = bare(Some([1; 32]));
    world.initiate(2);
    world.run(SECOND);
    assert!(!world.established(2));
}

#[test]
fn replayed_handshakes_and_data_change_nothing() {
    let mut world = ours();
    world.initiate(2);
    world.run(6 * SECOND);
    let captured = world.captured.clone();
    let before = world.tunnel.status(id(2)).expect("a peer");
    for (_, bytes) in captured {
        world.inject("192.0.2.66:666".parse().expect("an address"), &bytes);
    }
    let after = world.tunnel.status(id(2)).expect("a peer");
    assert_eq!((before.endpoint, before.handshakes), (after.endpoint, after.handshakes));
    assert_eq!(after.drops[&DropReason::StaleStamp], 1);
    assert!(after.drops[&DropReason::Replay] >= 1);
    echo_and_connect_work(&mut world);
}

#[test]
fn a_stream_through_real_cryptography_echoes_everything() {
    let mut world = ours();
    world.initiate(2);
    world.run(SECOND);
    let to = SocketAddr::new(v6(2), 22);
    let opened = world.stream(StreamInput::Open { peer: id(2), to, timeout: 5 * SECOND });
    assert!(matches!(opened[..], [StreamOutput::Connected, StreamOutput::Writable(_)]));
    let echoed = world.stream(StreamInput::Send(vec![5; 20_000]));
    let bytes = echoed.iter().map(|output| match output {
        StreamOutput::Data(data) => data.len(),
        _ => 0,
    });
    assert_eq!(bytes.sum::<usize>(), 20_000);
}

#[test]
fn an_hour_of_probes_over_sessions_that_the_gateway_renews() {
    let mut world = ours();
    world.initiate(2);
    world.run(SECOND);
    for _ in 0..60 {
        let expected = EchoReply { sent: 1, rtts: vec![RTT], failure: None };
        assert_eq!(world.echo(2, v4(2), 1), ProbeReply::Echo(expected));
        world.run(45 * SECOND);
    }
}

//! A gateway starts with 100,000 devices: when all have a tunnel again, and how it affects checks.
//!
//! The tunnel's thread takes time: each handshake message keeps it busy, and datagrams that arrive
//! meanwhile wait for the next turn, as in the real loop.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fleetgate_keys::PublicKey;
use fleetgate_probes::packet::{answer_to_echo, parse};

use super::super::Tunnel;
use super::super::session::{Noise as _, Opened, SCRATCH, Session as _};
use super::world::{DELAY, RTT, config, gateway_address, gateway_key};
use crate::id::Id;
use crate::messages::{
    Command, DEFAULT_MTU, Input, Output, PeerKey, PeerKind, PeerSnapshot, PeerSpec, Probe, ProbeId,
    ProbeReply, ProbeRequest, TunnelEvent,
};
use crate::time::{Mono, Now, Wall};
use crate::tunnel::sim::cleartext::{PlainNoise, PlainSession};

const DEVICES: u32 = 100_000;
/// Cost of one handshake message that is made or opened. By `bench handshake` a whole rekey is 4.84
/// X25519 of some 50 us each, so this is four times the actual cost of the gateway's half.
const PRICE: Duration = Duration::from_micros(500);
/// Cost of everything else in a turn.
const TURN: Duration = Duration::from_micros(20);
/// Datagrams of one turn: four batches of the socket.
const BATCH: usize = 128;
/// Time between two checks, for a fleet that is checked once in five minutes.
const BETWEEN_CHECKS: Duration = Duration::from_millis(3);
const PATIENCE: Duration = Duration::from_secs(20);
/// The promised time.
const ALL_UP: Duration = Duration::from_secs(180);
/// The dials and responses of one turn, and of the one before it.
const MAY_WAIT: Duration = Duration::from_millis(30);

enum Flight {
    ToGateway(u32, Vec<u8>),
    ToDevice(u32, Vec<u8>),
}

struct Fleet {
    now: Now,
    tunnel: Tunnel<PlainNoise>,
    devices: Vec<PlainSession>,
    scratch: Vec<u8>,
    /// Ordered by arrival, then by departure.
    flights: BinaryHeap<Reverse<(Mono, u64)>>,
    aboard: BTreeMap<u64, Flight>,
    launched: u64,
    due: Option<Mono>,
    next_check: Mono,
    checks: u64,
    asked: BTreeMap<ProbeId, (Mono, bool)>,
    /// The time that a check of a connected device took beyond its round trip.
    waits: Vec<Duration>,
    unanswered: usize,
    messages: u32,
    /// Devices that have had a tunnel. An idle tunnel ends after three minutes.
    up: BTreeSet<Id>,
}

fn key(n: u32) -> PublicKey {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    PublicKey::from_bytes(bytes).expect("canonical")
}

fn inner(n: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(config().pool_v4.network()) + 16 + n).into()
}

fn public(n: u32) -> SocketAddr {
    (Ipv4Addr::from(0x0a00_0000 + n), 40_000).into()
}

fn number(at: SocketAddr) -> u32 {
    let IpAddr::V4(address) = at.ip() else { panic!("a device's address, not {at}") };
    u32::from(address) - 0x0a00_0000
}

fn id(n: u32) -> Id {
    Id::from_i64(i64::from(n) + 1)
}

impl Fleet {
    fn new() -> Self {
        let now = Now { mono: Mono::from_secs(1_000), wall: Wall::from_millis(1_750_000_000_000) };
        let mut tunnel = Tunnel::new(config(), PlainNoise::new(gateway_key(), [0; 32]), [1; 32]);
        let peer = |n: u32| {
            let spec = PeerSpec {
                id: id(n),
                kind: PeerKind::Device,
                keys: vec![PeerKey { public: key(n), psk: None }],
                addresses: vec![inner(n)],
                networks: vec![],
                mtu: DEFAULT_MTU,
            };
            (spec, PeerSnapshot { endpoint: Some(public(n)), ..PeerSnapshot::default() })
        };
        tunnel.restore((0..DEVICES).map(peer), now);
        let device = |n: u32| {
            let mut noise = PlainNoise::new(key(n), [n as u8; 32]);
            noise.session(&gateway_key(), None, n, now).as_client(None)
        };
        Fleet {
            now,
            tunnel,
            devices: (0..DEVICES).map(device).collect(),
            scratch: vec![0; SCRATCH],
            flights: BinaryHeap::new(),
            aboard: BTreeMap::new(),
            launched: 0,
            due: None,
            next_check: now.mono,
            checks: 0,
            asked: BTreeMap::new(),
            waits: Vec::new(),
            unanswered: 0,
            messages: 0,
            up: BTreeSet::new(),
        }
    }

    fn launch(&mut self, at: Mono, flight: Flight) {
        self.launched += 1;
        self.flights.push(Reverse((at + DELAY, self.launched)));
        self.aboard.insert(self.launched, flight);
    }

    /// Returns the next datagram that has arrived by then.
    fn landed(&mut self, by: Mono) -> Option<(Mono, Flight)> {
        let Reverse((at, key)) = *self.flights.peek().filter(|next| next.0.0 <= by)?;
        self.flights.pop();
        Some((at, self.aboard.remove(&key).expect("it is aboard")))
    }

    /// Runs one turn of the tunnel's thread. It begins when something is due and ends when the cost
    /// of its work has passed.
    fn turn(&mut self) {
        let arrival = self.flights.peek().map(|next| next.0.0);
        let next = [arrival, self.due, Some(self.next_check)].into_iter().flatten().min().expect("a check");
        self.advance_to(next);
        self.messages = 0;
        for _ in 0..BATCH {
            match self.landed(self.now.mono) {
                Some((at, Flight::ToDevice(n, bytes))) => self.device(n, &bytes, at),
                Some((_, Flight::ToGateway(n, bytes))) => {
                    self.messages += u32::from(bytes[0] != 4);
                    self.tunnel.handle(
                        Input::Datagram { from: public(n), to: None, arrived: self.now.mono, bytes: &bytes },
                        self.now,
                    );
                }
                None => break,
            }
        }
        while self.next_check <= self.now.mono {
            self.check();
        }
        self.tunnel.handle(Input::Timeout, self.now);
        self.drain();
        self.advance_to(self.now.mono + TURN + PRICE * self.messages);
    }

    fn advance_to(&mut self, at: Mono) {
        let step = at.since(self.now.mono);
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall + step };
    }

    fn device(&mut self, n: u32, bytes: &[u8], at: Mono) {
        let mut sent = Vec::new();
        let device = &mut self.devices[n as usize];
        let opened = device
            .receive(bytes, gateway_address(), at, &mut self.scratch, &mut |bytes| sent.push(bytes.to_vec()));
        if let Opened::Packet(packet) = opened {
            let reply = parse(packet).ok().and_then(|packet| answer_to_echo(&packet)).expect("an echo");
            let sealed = device.send(&reply, at, &mut self.scratch, &mut |bytes| sent.push(bytes.to_vec()));
            sealed.expect("a session");
        }
        sent.into_iter().for_each(|bytes| self.launch(at, Flight::ToGateway(n, bytes)));
    }

    /// Sends an echo to the next device of the fleet, in an order unrelated to that of the dials.
    fn check(&mut self) {
        let n = (self.checks * 7_919 % u64::from(DEVICES)) as u32;
        self.checks += 1;
        let ask = ProbeId(self.checks);
        let established = self.is_up(n);
        self.asked.insert(ask, (self.next_check, established));
        let probe = Probe::Echo { peer: id(n), address: inner(n), count: 1 };
        let ask = ProbeRequest { id: ask, host: id(n), probe, timeout: PATIENCE };
        self.tunnel.handle(Input::Command(Command::ProbeRequest(ask)), self.now);
        self.next_check = self.next_check + BETWEEN_CHECKS;
    }

    fn drain(&mut self) {
        loop {
            match self.tunnel.poll_output() {
                Output::Transmit(transmit) => {
                    for datagram in transmit.datagrams() {
                        self.messages += u32::from(datagram[0] != 4);
                        let flight = Flight::ToDevice(number(transmit.to), datagram.to_vec());
                        self.launch(self.now.mono, flight);
                    }
                }
                Output::ProbeReply(ask, answer) => self.answered(ask, answer),
                Output::TunnelEvent(TunnelEvent::Up(id)) => drop(self.up.insert(id)),
                Output::Wait(at, _) => {
                    self.due = at;
                    return;
                }
                _ => {}
            }
        }
    }

    fn answered(&mut self, ask: ProbeId, answer: ProbeReply) {
        let (asked, was_up) = self.asked.remove(&ask).expect("asked once");
        let ProbeReply::Echo(echo) = answer else { panic!("an echo is expected, not {answer:?}") };
        self.unanswered += usize::from(echo.rtts.is_empty());
        if was_up {
            self.waits.push(self.now.mono.since(asked).saturating_sub(RTT));
        }
    }

    fn is_up(&self, n: u32) -> bool {
        self.tunnel.status(id(n)).expect("a peer").established
    }
}

#[test]
fn a_hundred_thousand_devices_have_tunnels_in_three_minutes_and_checks_do_not_wait() {
    let mut fleet = Fleet::new();
    let begin = fleet.now.mono;
    fleet.tunnel.handle(Input::Command(Command::DialAll), fleet.now);
    fleet.drain();
    while fleet.up.len() < DEVICES as usize {
        let took = fleet.now.mono.since(begin);
        assert!(took < ALL_UP, "after {took:?} {} have had a tunnel", fleet.up.len());
        fleet.turn();
    }
    let took = fleet.now.mono.since(begin);
    fleet.waits.sort();
    let (median, longest) = (fleet.waits[fleet.waits.len() / 2], fleet.waits[fleet.waits.len() - 1]);
    println!(
        "all within {:.0} s; {} checks of devices with a tunnel waited {median:?} (median), {longest:?} (at most)",
        took.as_secs_f64(),
        fleet.waits.len(),
    );
    assert_eq!(fleet.unanswered, 0, "checks without an answer");
    assert!(fleet.waits.len() > 10_000 && longest < MAY_WAIT, "{longest:?}");
}

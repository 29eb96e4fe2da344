//! A gateway, some devices, and a network of constant delay between them, under a virtual clock.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};

use super::super::session::{Noise, Session};
use super::super::{Config, Tunnel};
use crate::id::{Id, PeerId};
use crate::messages::{
    Command, DEFAULT_MTU, DnsClient, DnsDecision, DnsId, DropReason, ExplainId, Explanation, FlowRecord,
    ForwardProbeReply, Input, Output, PeerKey, PeerKind, PeerSnapshot, PeerSpec, PeerStatus, Probe, ProbeId,
    ProbeReply, ProbeRequest, Route, StreamId, StreamInput, StreamOutput, TunnelEvent,
};
use crate::time::{Mono, Now, Wall};
use crate::tunnel::sim::cleartext::{PlainNoise, PlainSession};
use crate::tunnel::sim::device::Device;

/// Delay of one direction.
pub const DELAY: Duration = Duration::from_millis(20);
pub const RTT: Duration = Duration::from_millis(40);

const START: Wall = Wall::from_millis(1_750_000_000_000);

pub fn config() -> Config {
    Config {
        pool_v4: "172.24.0.0/14".parse().expect("a network"),
        pool_v6: "fd00:1::/64".parse().expect("a network"),
        results_port: std::num::NonZeroU16::new(80),
    }
}

pub fn private(n: u8) -> PrivateKey {
    PrivateKey::from_bytes([n; 32])
}

pub fn gateway_key() -> PublicKey {
    private(200).public()
}

pub fn id(n: u8) -> PeerId {
    Id::from_i64(i64::from(n))
}

pub fn v4(n: u8) -> IpAddr {
    [172, 24, 0, n].into()
}

pub fn v6(n: u8) -> IpAddr {
    format!("fd00:1::{n:x}").parse().expect("an address")
}

/// Returns the address of a camera behind device `n`; every site has the same network.
pub fn behind() -> IpAddr {
    [192, 168, 1, 50].into()
}

pub fn gateway_address() -> SocketAddr {
    "198.51.100.1:51820".parse().expect("an address")
}

pub fn public_address(n: u8) -> SocketAddr {
    format!("203.0.113.{n}:40000").parse().expect("an address")
}

pub fn spec(n: u8) -> PeerSpec {
    PeerSpec {
        id: id(n),
        kind: PeerKind::Device,
        keys: vec![PeerKey { public: private(n).public(), psk: None }],
        addresses: vec![v4(n), v6(n)],
        networks: vec!["192.168.1.0/24".parse().expect("a network")],
        mtu: DEFAULT_MTU,
    }
}

pub struct End<S> {
    pub device: Device<S>,
    pub at: SocketAddr,
    /// The device is off, or without a network.
    pub off: bool,
    /// Datagrams to the device are lost.
    pub deaf: bool,
}

enum Flight {
    ToGateway(SocketAddr, Vec<u8>),
    ToDevice(SocketAddr, Vec<u8>),
}

pub struct World<N: Noise, S = <N as Noise>::Session> {
    pub now: Now,
    pub tunnel: Tunnel<N>,
    pub ends: Vec<End<S>>,
    flights: Vec<(Mono, Flight)>,
    due: Option<Mono>,
    pub answers: Vec<(ProbeId, ProbeReply, Mono)>,
    pub news: Vec<TunnelEvent>,
    pub explanations: Vec<(ExplainId, Explanation)>,
    pub forward_probes: Vec<(ForwardProbeReply, Mono)>,
    pub flows: Vec<FlowRecord>,
    pub dns_answers: Vec<(DnsId, DnsDecision)>,
    pub dns_forwards: Vec<(DnsClient, Vec<u8>)>,
    pub streams: Vec<(StreamId, StreamOutput)>,
    /// Types of the messages that the gateway sent.
    pub sent: Vec<u8>,
    /// The same with their destinations.
    pub sent_to: Vec<(u8, SocketAddr)>,
    /// Every datagram that reached the gateway.
    pub captured: Vec<(SocketAddr, Vec<u8>)>,
    /// How long datagrams lie in the gateway's socket.
    pub waited: Duration,
    next_ask: u64,
}

pub type Plain = World<PlainNoise>;

pub fn plain_session(n: u8, psk: Option<&PresharedKey>, now: Now) -> PlainSession {
    let mut noise = PlainNoise::new(private(n).public(), [n; 32]);
    noise.session(&gateway_key(), psk, u32::from(n), now).as_client(Some(Duration::from_secs(25)))
}

/// Returns a gateway that knows device 2, 3, ... and these devices, which have sent nothing yet.
pub fn plain(devices: u8) -> Plain {
    let mut world = World::new(PlainNoise::new(gateway_key(), [0; 32]));
    for n in 2..2 + devices {
        world.command(Command::Upsert(Box::new(spec(n)), PeerSnapshot::default()));
        let session = plain_session(n, None, world.now);
        world.add(n, session);
    }
    world
}

/// Returns the same world with established tunnels.
pub fn connected(devices: u8) -> Plain {
    let mut world = plain(devices);
    for n in 2..2 + devices {
        world.initiate(n);
    }
    world.run(Duration::from_secs(1));
    world.news.clear();
    world.sent.clear();
    world
}

impl<N: Noise, S: Session> World<N, S> {
    pub fn new(noise: N) -> Self {
        World {
            now: Now { mono: Mono::from_secs(1_000), wall: START },
            tunnel: Tunnel::new(config(), noise, [1; 32]),
            ends: Vec::new(),
            flights: Vec::new(),
            due: None,
            answers: Vec::new(),
            news: Vec::new(),
            explanations: Vec::new(),
            forward_probes: Vec::new(),
            flows: Vec::new(),
            dns_answers: Vec::new(),
            dns_forwards: Vec::new(),
            streams: Vec::new(),
            sent: Vec::new(),
            sent_to: Vec::new(),
            captured: Vec::new(),
            waited: Duration::ZERO,
            next_ask: 0,
        }
    }

    /// Adds device `n`. Devices are added in order, from 2.
    pub fn add(&mut self, n: u8, session: S) {
        assert_eq!(self.ends.len() + 2, usize::from(n));
        let device = Device::new(session, vec![v4(n), v6(n), behind()], vec![22]);
        self.ends.push(End { device, at: public_address(n), off: false, deaf: false });
    }

    pub fn end(&mut self, n: u8) -> &mut End<S> {
        &mut self.ends[usize::from(n) - 2]
    }

    pub fn initiate(&mut self, n: u8) {
        let now = self.now.mono;
        let datagrams = self.end(n).device.initiate(now);
        self.launch(n, datagrams);
    }

    /// Sends an inner packet of device `n` that the test made.
    pub fn say(&mut self, n: u8, packet: &[u8]) {
        let now = self.now.mono;
        let datagrams = self.end(n).device.send(packet, now).expect("a session");
        self.launch(n, datagrams);
    }

    /// Connects device `n` to the gateway at `to` and sends `words`.
    pub fn call(&mut self, n: u8, from: SocketAddr, to: SocketAddr, words: &[u8]) {
        let now = self.now.mono;
        let datagrams = self.end(n).device.call(from, to, words, now);
        self.launch(n, datagrams);
    }

    fn launch(&mut self, n: u8, datagrams: Vec<Vec<u8>>) {
        let (at, off, arrival) = (self.end(n).at, self.end(n).off, self.now.mono + DELAY);
        for bytes in datagrams.into_iter().filter(|_| !off) {
            self.flights.push((arrival, Flight::ToGateway(at, bytes)));
        }
    }

    pub fn command(&mut self, command: Command) {
        self.tunnel.handle(Input::Command(command), self.now);
        self.drain();
    }

    pub fn inject(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.tunnel.handle(
            Input::Datagram { from, to: None, arrived: self.now.mono - self.waited, bytes },
            self.now,
        );
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.tunnel.poll_output() {
                Output::Transmit(transmit) => {
                    for datagram in transmit.datagrams() {
                        self.sent.push(datagram[0]);
                        self.sent_to.push((datagram[0], transmit.to));
                        let flight = Flight::ToDevice(transmit.to, datagram.to_vec());
                        self.flights.push((self.now.mono + DELAY, flight));
                    }
                    self.tunnel.lend(transmit.bytes);
                }
                Output::ProbeReply(id, answer) => self.answers.push((id, answer, self.now.mono)),
                Output::Stream(id, output) => self.streams.push((id, output)),
                Output::TunnelEvent(news) => self.news.push(news),
                Output::Explanation(id, explanation) => self.explanations.push((id, explanation)),
                Output::ForwardProbe(_, reply) => self.forward_probes.push((reply, self.now.mono)),
                Output::Flow(record) => self.flows.push(record),
                Output::DnsAnswer(id, decision) => self.dns_answers.push((id, decision)),
                Output::DnsForward(client, query) => self.dns_forwards.push((client, query)),
                Output::Wait(at, _) => {
                    assert!(at.is_none_or(|at| at > self.now.mono), "a wait that is over");
                    self.due = at;
                    return;
                }
            }
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            self.advance_to(at);
            self.deliver();
            self.poll_devices();
            self.tunnel.handle(Input::Timeout, self.now);
            self.drain();
        }
        self.advance_to(end);
    }

    fn advance_to(&mut self, at: Mono) {
        let step = at.since(self.now.mono);
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall + step };
    }

    /// Returns the next full millisecond with an event. Like the real clock, it always advances.
    fn next_event(&mut self) -> Option<Mono> {
        let now = self.now.mono;
        let devices = self.ends.iter_mut().filter(|end| !end.off).filter_map(|end| end.device.next_poll(now));
        let flights = self.flights.iter().map(|(at, _)| *at);
        let soonest = devices.chain(flights).chain(self.due).min()?;
        Some(soonest.max(now + Duration::from_millis(1)))
    }

    fn deliver(&mut self) {
        let now = self.now.mono;
        let mut arrived: Vec<_> = self.flights.extract_if(.., |(at, _)| *at <= now).collect();
        arrived.sort_by_key(|(at, _)| *at);
        for (_, flight) in arrived {
            match flight {
                Flight::ToGateway(from, bytes) => {
                    self.captured.push((from, bytes.clone()));
                    self.inject(from, &bytes);
                }
                Flight::ToDevice(to, bytes) => self.deliver_to_device(to, &bytes),
            }
        }
    }

    fn deliver_to_device(&mut self, to: SocketAddr, bytes: &[u8]) {
        let now = self.now.mono;
        let Some(place) = self.ends.iter().position(|end| end.at == to && !end.off && !end.deaf) else {
            return;
        };
        let replies = self.ends[place].device.receive(bytes, gateway_address(), now);
        self.launch(place as u8 + 2, replies);
    }

    fn poll_devices(&mut self) {
        let now = self.now.mono;
        for place in 0..self.ends.len() {
            let end = &mut self.ends[place];
            if !end.off && end.device.next_poll(now).is_some_and(|due| due <= now) {
                let datagrams = end.device.poll(now);
                self.launch(place as u8 + 2, datagrams);
            }
        }
    }

    pub fn ask(&mut self, probe: Probe, timeout: Duration) -> ProbeId {
        self.next_ask += 1;
        let id = ProbeId(self.next_ask);
        self.command(Command::ProbeRequest(ProbeRequest { id, host: super::world::id(2), probe, timeout }));
        id
    }

    /// Sends a probe, waits, and returns its one reply and the time it took.
    pub fn answer(&mut self, probe: Probe, timeout: Duration) -> (ProbeReply, Duration) {
        let asked = self.now.mono;
        let ask = self.ask(probe, timeout);
        self.run(timeout + Duration::from_millis(100));
        let mut answers = self.answers.extract_if(.., |(id, ..)| *id == ask);
        let (_, answer, at) = answers.next().expect("an answer in time");
        assert!(answers.next().is_none(), "exactly one answer");
        (answer, at.since(asked))
    }

    pub fn echo(&mut self, n: u8, address: IpAddr, count: u8) -> ProbeReply {
        self.answer(Probe::Echo { peer: id(n), address, count }, Duration::from_secs(15)).0
    }

    pub fn connect(&mut self, n: u8, address: IpAddr, port: u16) -> ProbeReply {
        let route = Route::Tunnel { peer: id(n), address };
        self.answer(Probe::Connect { route, port }, Duration::from_secs(15)).0
    }

    pub fn handshake(&mut self, n: u8) -> (ProbeReply, Duration) {
        self.answer(Probe::Handshake { peer: id(n) }, Duration::from_secs(20))
    }

    pub fn stream(&mut self, input: StreamInput) -> Vec<StreamOutput> {
        self.command(Command::Stream(StreamId(1), input));
        self.run(Duration::from_millis(500));
        std::mem::take(&mut self.streams).into_iter().map(|(_, output)| output).collect()
    }

    pub fn established(&self, n: u8) -> bool {
        self.tunnel.status(id(n)).expect("a peer").established
    }

    pub fn dropped(&self, n: u8, reason: DropReason) -> u64 {
        self.tunnel.status(id(n)).expect("a peer").drops.get(&reason).copied().unwrap_or(0)
    }

    /// Returns the newest datagram of this message type that reached the gateway.
    pub fn last_captured(&self, kind: u8) -> (SocketAddr, Vec<u8>) {
        self.captured.iter().rev().find(|(_, bytes)| bytes[0] == kind).cloned().expect("one was sent")
    }

    /// Returns how many initiations were sent to this address.
    pub fn initiations_to(&self, to: SocketAddr) -> usize {
        self.sent_to.iter().filter(|sent| **sent == (1, to)).count()
    }

    pub fn status(&self, n: u8) -> PeerStatus {
        self.tunnel.status(id(n)).expect("a peer")
    }

    pub fn initiations(&self) -> usize {
        self.sent.iter().filter(|kind| **kind == 1).count()
    }
}

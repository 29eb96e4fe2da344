//! The gateway, its store, the devices and random events.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_engine::id::{Id, PeerId};
use fleetgate_engine::messages::{
    Command, EchoReply, Input, Output, PeerSnapshot, PeerSpec, Probe, ProbeId, ProbeReply, ProbeRequest,
    Refusal, Route, StreamId, StreamInput, StreamOutput, Tai64n, TunnelEvent,
};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::tunnel::sim::cleartext::PlainNoise;
use fleetgate_engine::tunnel::sim::device::Device;
use fleetgate_engine::tunnel::{Config, Tunnel};
use fleetgate_keys::PrivateKey;

use super::host::{Host, behind, session};
use super::model::{self, Model};
use super::network::{CALM, Datagram, Network, Weather};
use super::random::Random;

const START: Mono = Mono::from_secs(10_000);
const WALL: Wall = Wall::from_millis(1_750_000_000_000);
/// The real clock always advances between two turns.
const TURN: Duration = Duration::from_micros(50);

/// Message type of a handshake response.
const RESPONSE: u8 = 2;

/// Far more events than a simulated second can have: the loop does not come to rest.
const EVENTS_PER_SECOND: u64 = 10_000;

fn gateway_address() -> SocketAddr {
    "198.51.100.1:51820".parse().expect("an address")
}

fn stranger() -> SocketAddr {
    "192.0.2.66:666".parse().expect("an address")
}

fn config() -> Config {
    Config {
        pool_v4: "172.24.0.0/14".parse().expect("a network"),
        pool_v6: "fd00:1::/64".parse().expect("a network"),
        results_port: None,
    }
}

pub struct World {
    random: Random,
    now: Now,
    /// The true time, against which the device clocks are measured. The gateway's own clock may
    /// step.
    true_wall: Wall,
    tunnel: Tunnel<PlainNoise>,
    due: Option<Mono>,
    store: BTreeMap<PeerId, (PeerSpec, PeerSnapshot)>,
    network: Network,
    hosts: Vec<Host>,
    model: Model,
    answers: BTreeMap<ProbeId, ProbeReply>,
    streams: Vec<(StreamId, StreamOutput)>,
    asks: u64,
    moves: u16,
    trace: u64,
}

impl World {
    pub fn new(seed: u64, devices: u8) -> Self {
        let mut random = Random::new(seed);
        let tunnel = gateway(&mut random);
        let mut world = World {
            now: Now { mono: START, wall: WALL },
            true_wall: WALL,
            tunnel,
            due: None,
            store: BTreeMap::new(),
            network: Network::new(),
            hosts: Vec::new(),
            model: Model::default(),
            answers: BTreeMap::new(),
            streams: Vec::new(),
            asks: 0,
            moves: 0,
            trace: 0,
            random,
        };
        for n in 2..2 + devices {
            let host = world.host(n);
            world.hosts.push(host);
            world.enrol(world.hosts.len() - 1);
        }
        world
    }

    fn host(&mut self, n: u8) -> Host {
        let at = self.new_place();
        let awake = !self.random.chance(250);
        let mut host = Host {
            n,
            id: Id::from_i64(i64::from(n)),
            device: Device::new(session(n, 0, 0, awake, self.now), vec![], vec![]),
            at,
            online: true,
            awake,
            ahead_ms: 0,
            generation: 0,
            boots: 0,
        };
        self.boot(&mut host);
        host
    }

    /// Returns a fingerprint of all outputs.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    fn note(&mut self, what: &impl std::fmt::Debug) {
        for byte in format!("{:?} {what:?}", self.now.mono).bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    // ------------------------------------------------------------------ time

    /// Runs with random events.
    pub fn storm(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.now.mono < end {
            self.befall();
            let pause = if self.random.chance(100) { (60_000, 400_000) } else { (1, 20_000) };
            let pause = self.random.millis(pause.0, pause.1);
            self.run(pause);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        let mut left = EVENTS_PER_SECOND * (1 + time.as_secs());
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            left = left.checked_sub(1).expect("there is a rest between events");
            self.advance_to(at);
            self.deliver();
            self.poll_hosts();
            self.turn(Input::Timeout);
        }
        self.advance_to(end);
        self.model.check(self.now.mono);
    }

    fn advance_to(&mut self, at: Mono) {
        let step = at.since(self.now.mono);
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall + step };
        self.true_wall = self.true_wall + step;
    }

    fn next_event(&mut self) -> Option<Mono> {
        let now = self.now.mono;
        let hosts =
            self.hosts.iter_mut().filter(|host| host.online).filter_map(|host| host.device.next_poll(now));
        let soonest = hosts.chain(self.network.next()).chain(self.due).min()?;
        Some(soonest.max(now + TURN))
    }

    fn deliver(&mut self) {
        while let Some(datagram) = self.network.arrive(self.now.mono) {
            if datagram.to == gateway_address() {
                self.deliver_to_gateway(&datagram);
            } else {
                self.deliver_to_host(&datagram);
            }
        }
    }

    fn deliver_to_gateway(&mut self, datagram: &Datagram) {
        let Datagram { from, bytes, .. } = datagram;
        if bytes[0] == 1 {
            let key = bytes[8..40].try_into().expect("32 bytes");
            let stamp = Tai64n(bytes[40..52].try_into().expect("twelve bytes"));
            self.model.initiation(key, stamp, self.now.mono);
        }
        if bytes[0] == RESPONSE {
            self.model.response_from(*from);
        }
        if *from != stranger() {
            self.network.overhear(datagram, &mut self.random);
        }
        self.turn(Input::Datagram { from: *from, to: None, arrived: self.now.mono, bytes });
    }

    fn deliver_to_host(&mut self, datagram: &Datagram) {
        let now = self.now.mono;
        let Some(place) = self.hosts.iter().position(|host| host.at == datagram.to && host.online) else {
            return;
        };
        if datagram.bytes[0] == RESPONSE {
            self.model.response_to(self.hosts[place].id);
        }
        let replies = self.hosts[place].device.receive(&datagram.bytes, gateway_address(), now);
        self.launch(place, replies);
    }

    fn poll_hosts(&mut self) {
        let now = self.now.mono;
        for place in 0..self.hosts.len() {
            let host = &mut self.hosts[place];
            if host.online && host.device.next_poll(now).is_some_and(|due| due <= now) {
                let datagrams = host.device.poll(now);
                self.launch(place, datagrams);
            }
        }
    }

    fn launch(&mut self, place: usize, datagrams: Vec<Vec<u8>>) {
        let from = self.hosts[place].at;
        for bytes in datagrams {
            let datagram = Datagram { from, to: gateway_address(), bytes };
            self.network.send(datagram, &mut self.random, self.now.mono);
        }
    }

    fn turn(&mut self, input: Input<'_>) {
        self.tunnel.handle(input, self.now);
        self.drain();
    }

    fn command(&mut self, command: Command) {
        self.turn(Input::Command(command));
    }

    fn drain(&mut self) {
        loop {
            let output = self.tunnel.poll_output();
            if let Output::Wait(at, _) = output {
                assert!(at.is_none_or(|at| at > self.now.mono), "a wait that is over");
                self.due = at;
                return;
            }
            match &output {
                Output::Transmit(transmit) => self.note(&(transmit.to, transmit.bytes.len())),
                other => self.note(other),
            }
            self.take(output);
        }
    }

    fn take(&mut self, output: Output) {
        let now = self.now.mono;
        match output {
            Output::Transmit(transmit) => {
                for bytes in transmit.datagrams() {
                    let to_stranger = transmit.to == stranger();
                    assert!(!to_stranger || bytes[0] == 2, "a stranger gets an answer at most");
                    let (from, to) = (gateway_address(), transmit.to);
                    let datagram = Datagram { from, to, bytes: bytes.to_vec() };
                    self.network.send(datagram, &mut self.random, now);
                }
                self.tunnel.lend(transmit.bytes);
            }
            Output::ProbeReply(ask, answer) => {
                self.model.answered(ask, now);
                self.answers.insert(ask, answer);
            }
            Output::TunnelEvent(news) => self.news(news),
            Output::Stream(id, output) => self.streams.push((id, output)),
            Output::Explanation(..) | Output::ForwardProbe(..) | Output::Flow(_) | Output::Wait(..) => {}
            Output::DnsAnswer(..) | Output::DnsForward(..) => {}
        }
    }

    /// Updates the store and the model with an event of the tunnel.
    fn news(&mut self, news: TunnelEvent) {
        let now = self.now.mono;
        match news {
            TunnelEvent::Stamp(id, stamp) => {
                self.model.stamp_told(id, stamp);
                self.remember(id, |memory| memory.stamp = Some(stamp));
            }
            TunnelEvent::Endpoint(id, endpoint) => {
                self.model.endpoint_told(id, endpoint);
                self.remember(id, |memory| memory.endpoint = Some(endpoint));
            }
            TunnelEvent::FirstHandshake(id) => {
                self.model.first_handshake_told(id);
                let wall = self.now.wall;
                self.remember(id, |memory| memory.last_handshake = Some(wall));
            }
            TunnelEvent::Status(id, status) => self.model.status_told(id, &status, now),
            TunnelEvent::UnknownKey(key, _) => {
                assert!(self.model.peers.values().all(|peer| peer.key != key), "the key is known");
            }
            TunnelEvent::Refused(id, Refusal::ReplacedKey { .. }) => self.model.replaced_key_refused(id),
            TunnelEvent::RemovedPeer(id, from) => {
                assert!(!self.store.contains_key(&id) && from != stranger(), "{id} is there, or a replay");
            }
            TunnelEvent::Up(_)
            | TunnelEvent::Heard(_)
            | TunnelEvent::Refused(..)
            | TunnelEvent::Rekeyed(_)
            | TunnelEvent::ClockReset(_)
            | TunnelEvent::RetiredStamp(..) => {}
        }
    }

    fn remember(&mut self, id: PeerId, change: impl FnOnce(&mut PeerSnapshot)) {
        let (_, memory) = self.store.get_mut(&id).expect("news of enrolled peers only");
        change(memory);
    }

    // ------------------------------------------------------------------ fate

    fn befall(&mut self) {
        let place = self.random.below(self.hosts.len() as u64) as usize;
        match self.random.below(100) {
            0..35 => self.ask_something(place),
            35..40 => (0..4).for_each(|_| self.ask_something(place)),
            40..50 => self.roam(place),
            50..56 => self.reboot(place),
            56..62 => self.hosts[place].online ^= true,
            62..66 => self.step_device_clock(place),
            66..68 => self.step_gateway_clock(),
            68..71 => self.restart_gateway(),
            71..74 => self.remove_or_enrol(place),
            74..77 => self.rekey(place),
            77..80 => self.reset_clock(place),
            80..83 => self.edit(place),
            83..90 => self.network.replay(stranger(), &mut self.random, self.now.mono),
            90..95 => self.network.weather = Weather::draw(&mut self.random),
            _ => self.wake_up(place),
        }
    }

    fn new_place(&mut self) -> SocketAddr {
        self.moves += 1;
        SocketAddr::new([203, 0, (self.moves >> 8) as u8, self.moves as u8].into(), 40_000)
    }

    /// Moves a device: a NAT forgot its mapping, or it is in another network now.
    fn roam(&mut self, place: usize) {
        let at = self.new_place();
        let host = &mut self.hosts[place];
        host.at = at;
        if let Some(peer) = self.model.peers.get_mut(&host.id) {
            peer.places.insert(at);
        }
    }

    fn clock_of(&self, host: &Host) -> Now {
        let ahead = host.ahead_ms;
        Now { mono: self.now.mono, wall: Wall::from_millis(self.true_wall.as_millis() + ahead) }
    }

    fn boot(&self, host: &mut Host) {
        host.boots += 1;
        let clock = self.clock_of(host);
        let session = session(host.n, host.generation, host.boots, host.awake, clock);
        host.device = Device::new(session, vec![host.v4(), host.v6(), behind()], vec![22]);
    }

    fn reboot(&mut self, place: usize) {
        let mut host = self.hosts.remove(place);
        self.boot(&mut host);
        self.hosts.insert(place, host);
        self.wake_up(place);
    }

    fn wake_up(&mut self, place: usize) {
        let now = self.now.mono;
        if self.hosts[place].online {
            let datagrams = self.hosts[place].device.initiate(now);
            self.launch(place, datagrams);
        }
    }

    fn step_device_clock(&mut self, place: usize) {
        let step = self.random.below(4_000_000) as i64 - 2_000_000;
        self.hosts[place].ahead_ms += step;
        let clock = self.clock_of(&self.hosts[place]);
        self.hosts[place].device.session.set_clock(clock);
    }

    fn step_gateway_clock(&mut self) {
        let step = self.random.below(600_000) as i64 - 300_000;
        self.now.wall = Wall::from_millis(self.now.wall.as_millis() + step);
    }

    /// Restarts the gateway with nothing but the store.
    fn restart_gateway(&mut self) {
        self.streams.clear();
        self.tunnel = gateway(&mut self.random);
        self.model.gateway_restarted();
        let peers: Vec<(PeerSpec, PeerSnapshot)> = self.store.values().cloned().collect();
        self.tunnel.restore(peers, self.now);
        self.command(Command::DialAll);
    }

    fn enrol(&mut self, place: usize) {
        let host = &self.hosts[place];
        let (id, spec, at) = (host.id, host.spec(), host.at);
        self.model.keyed(id, spec.keys[0].public);
        self.model.peers.insert(id, model::Peer::new(spec.keys[0].public, at));
        self.store.insert(id, (spec.clone(), PeerSnapshot::default()));
        self.command(Command::Upsert(Box::new(spec), PeerSnapshot::default()));
    }

    fn remove_or_enrol(&mut self, place: usize) {
        let id = self.hosts[place].id;
        if self.store.remove(&id).is_none() {
            return self.enrol(place);
        }
        self.command(Command::Remove(id));
        self.model.peers.remove(&id);
        assert!(self.tunnel.status(id).is_none());
    }

    /// Replaces the key of a device, which gets it at once or never.
    fn rekey(&mut self, place: usize) {
        let host = &mut self.hosts[place];
        host.generation = host.generation.wrapping_add(1) % 3;
        let (id, spec, at) = (host.id, host.spec(), host.at);
        let Some((stored, memory)) = self.store.get_mut(&id) else { return };
        *stored = spec.clone();
        memory.stamp = None;
        memory.last_handshake = None;
        let mut peer = model::Peer::new(spec.keys[0].public, at);
        let before = self.model.peers.remove(&id).expect("it is enrolled");
        peer.places.extend(before.places);
        peer.status_told = before.status_told;
        peer.responses = before.responses;
        self.model.keyed(id, peer.key);
        self.model.peers.insert(id, peer);
        self.command(Command::Upsert(Box::new(spec), PeerSnapshot::default()));
        assert!(!self.tunnel.status(id).expect("it is enrolled").established, "the old session has ended");
        if self.random.chance(800) {
            self.reboot(place);
        }
    }

    fn reset_clock(&mut self, place: usize) {
        let id = self.hosts[place].id;
        if self.store.contains_key(&id) {
            self.remember(id, |memory| memory.stamp = None);
        }
        self.model.reset_clock(id);
        self.command(Command::ResetClock(id));
    }

    /// Changes the list of networks, which does not affect a session.
    fn edit(&mut self, place: usize) {
        let id = self.hosts[place].id;
        let Some((spec, _)) = self.store.get_mut(&id) else { return };
        spec.networks.push("10.7.0.0/16".parse().expect("a network"));
        spec.networks.truncate(3);
        let spec = spec.clone();
        let before = self.tunnel.status(id).map(|status| status.established);
        self.command(Command::Upsert(Box::new(spec), PeerSnapshot::default()));
        assert_eq!(self.tunnel.status(id).map(|status| status.established), before);
    }

    // ------------------------------------------------------------- questions

    fn ask(&mut self, probe: Probe, timeout: Duration) -> ProbeId {
        self.asks += 1;
        let id = ProbeId(self.asks);
        self.model.asked.insert(id, self.now.mono + timeout + TURN);
        self.command(Command::ProbeRequest(ProbeRequest { id, host: Id::from_i64(1), probe, timeout }));
        id
    }

    fn ask_something(&mut self, place: usize) {
        let host = &self.hosts[place];
        let (peer, addresses) = (host.id, [host.v4(), host.v6(), behind()]);
        let address = addresses[self.random.below(3) as usize];
        let probe = match self.random.below(5) {
            0 => Probe::Evidence { peer },
            1 | 2 => Probe::Echo { peer, address, count: 1 + self.random.below(5) as u8 },
            3 => Probe::Connect {
                route: Route::Tunnel { peer, address },
                port: 22 + self.random.below(2) as u16,
            },
            _ => Probe::Handshake { peer },
        };
        let longest = if self.random.chance(500) { 300 } else { 20_000 };
        let timeout = self.random.millis(1, longest);
        self.ask(probe, timeout);
    }

    fn answer(&mut self, probe: Probe) -> ProbeReply {
        let timeout = Duration::from_secs(20);
        let ask = self.ask(probe, timeout);
        self.run(timeout + Duration::from_secs(1));
        self.answers.remove(&ask).expect("an answer")
    }

    // ------------------------------------------------------------------ calm

    /// Repairs everything; then every device that should be reachable must be.
    pub fn calm_down(&mut self) {
        self.network.weather = CALM;
        for place in 0..self.hosts.len() {
            self.mend(place);
        }
        // A session that only one side remembers ends after 180 s.
        self.run(Duration::from_secs(400));
        for place in 0..self.hosts.len() {
            self.check_host(place);
        }
        assert!(self.tunnel.totals().sessions <= self.hosts.len());
        assert_eq!(self.tunnel.totals().initiations_waiting, 0);
        self.run(Duration::from_secs(20));
        assert_eq!(self.tunnel.totals().connections, 0, "no connection is left behind");
    }

    /// Gives the device its key and switches it on; the operator resets its clock.
    fn mend(&mut self, place: usize) {
        if !self.store.contains_key(&self.hosts[place].id) {
            self.enrol(place);
        }
        self.hosts[place].online = true;
        self.reset_clock(place);
        self.reboot(place);
    }

    fn check_host(&mut self, place: usize) {
        let (id, at, awake) = (self.hosts[place].id, self.hosts[place].at, self.hosts[place].awake);
        let status = self.tunnel.status(id).expect("it is enrolled");
        assert_eq!(status.endpoint, Some(at), "{id} is where it is");
        assert!(status.established || !awake, "{id} sends keepalives and has no tunnel");
        for address in [self.hosts[place].v4(), self.hosts[place].v6(), behind()] {
            self.check_echo(id, address, awake);
        }
        let route = Route::Tunnel { peer: id, address: self.hosts[place].v6() };
        let connect = self.answer(Probe::Connect { route, port: 22 });
        assert!(matches!(connect, ProbeReply::Connect(Ok(_))) || !awake, "{id}: {connect:?}");
        if awake {
            self.check_stream(place);
        }
    }

    fn check_stream(&mut self, place: usize) {
        let (peer, to) = (self.hosts[place].id, SocketAddr::new(self.hosts[place].v4(), 22));
        self.asks += 1;
        let id = StreamId(self.asks);
        let said: Vec<u8> = (0..20_000).map(|n| n as u8).collect();
        let words = [
            StreamInput::Open { peer, to, timeout: Duration::from_secs(5) },
            StreamInput::Send(said.clone()),
            StreamInput::Finish,
        ];
        for word in words {
            self.command(Command::Stream(id, word));
            self.run(Duration::from_secs(5));
        }
        let (mut heard, mut ends) = (Vec::new(), Vec::new());
        for (_, output) in self.streams.extract_if(.., |(other, _)| *other == id) {
            match output {
                StreamOutput::Data(data) => heard.extend(data),
                StreamOutput::Finished | StreamOutput::Closed(_) => ends.push(output),
                StreamOutput::Accepted { .. } | StreamOutput::Connected | StreamOutput::Writable(_) => {}
            }
        }
        assert!(heard == said, "{peer} says everything back");
        assert!(matches!(ends[..], [StreamOutput::Finished, StreamOutput::Closed(None)]), "{ends:?}");
    }

    fn check_echo(&mut self, peer: PeerId, address: IpAddr, awake: bool) {
        let answer = self.answer(Probe::Echo { peer, address, count: 3 });
        let ProbeReply::Echo(EchoReply { sent, rtts, .. }) = &answer else {
            panic!("{peer}: an echo answer is expected, not {answer:?}");
        };
        assert!((*sent, rtts.len()) == (3, 3) || !awake, "{peer} at {address}: {answer:?}");
        assert!(rtts.iter().all(|rtt| (20..=60).contains(&rtt.as_millis())), "{rtts:?}");
    }
}

fn gateway(random: &mut Random) -> Tunnel<PlainNoise> {
    let own = PrivateKey::from_bytes([200; 32]).public();
    Tunnel::new(config(), PlainNoise::new(own, random.seed()), random.seed())
}

//! A device and a gateway on one clock that only the test moves.
//!
//! The device is plain boringtun, polled four times a second as it requires. The gateway is either
//! the same ([`Naive`]) or the engine's session ([`Fenced`]); both get the same calls.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::tunnel::noise::{BoringNoise, BoringSession};
use fleetgate_engine::tunnel::session::{Noise as _, Opened, SCRATCH, Session as _};
use fleetgate_keys::{PrivateKey, PublicKey};
use mock_instant::MockClock;
use x25519_dalek::StaticSecret;

pub const INITIATION: u8 = 1;
pub const DATA: u8 = 4;
/// How often boringtun asks to be polled.
const BORING_POLL: Duration = Duration::from_millis(250);
/// How often the fenced gateway dials a device that is gone.
const DIAL_AGAIN: Duration = Duration::from_secs(300);
/// The clocks begin here, so that no test depends on a zero.
const EPOCH: Duration = Duration::from_secs(1_000);

/// Both clocks, moved together. There is one per thread, hence one per test.
pub struct Clock(Duration);

impl Clock {
    pub fn start() -> Self {
        MockClock::set_time(EPOCH);
        Clock(EPOCH)
    }

    pub fn now(&self) -> Mono {
        Mono::ZERO + self.0
    }

    /// Returns the time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0 - EPOCH
    }

    pub fn advance(&mut self, by: Duration) {
        self.0 += by;
        MockClock::advance(by);
    }

    pub fn advance_to(&mut self, at: Mono) {
        self.advance(at.since(self.now()));
    }
}

/// Returns plain boringtun.
pub fn tunn(private: &PrivateKey, peer: &PublicKey, keepalive: Option<u16>) -> Tunn {
    let secret = StaticSecret::from(*private.as_bytes());
    let limiter = Arc::new(RateLimiter::new(&(&secret).into(), u64::MAX));
    Tunn::new(secret, (*peer.as_bytes()).into(), None, keepalive, 1, Some(limiter))
}

/// Makes an IPv4 packet, valid only as far as boringtun looks.
pub fn packet() -> Vec<u8> {
    let mut bytes = vec![0; 84];
    bytes[0] = 0x45;
    bytes[3] = 84;
    bytes
}

/// The result of a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    Packet,
    /// A keepalive, a handshake, a cookie.
    Other,
    Refused(String),
}

/// The datagrams that one end sends.
pub type Out = Vec<Vec<u8>>;

fn boring_receive(tunn: &mut Tunn, datagram: &[u8], out: &mut Out) -> Came {
    let mut room = vec![0; 2_048];
    match tunn.decapsulate(None, datagram, &mut room) {
        TunnResult::Done => Came::Other,
        TunnResult::Err(error) => Came::Refused(format!("{error:?}")),
        TunnResult::WriteToNetwork(bytes) => {
            out.push(bytes.to_vec());
            Came::Other
        }
        TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => Came::Packet,
    }
}

fn boring_write(result: TunnResult<'_>, out: &mut Out) {
    if let TunnResult::WriteToNetwork(bytes) = result {
        out.push(bytes.to_vec());
    }
}

/// One end of a tunnel, as the world drives it.
pub trait End {
    fn receive(&mut self, datagram: &[u8], now: Mono, out: &mut Out) -> Came;
    fn send(&mut self, packet: &[u8], now: Mono, out: &mut Out);
    fn dial(&mut self, now: Mono, out: &mut Out);
    fn poll(&mut self, now: Mono, out: &mut Out);
    fn next_poll(&self, now: Mono) -> Option<Mono>;
    fn established(&self, now: Mono) -> bool;
}

/// boringtun, polled as its documentation requires.
pub struct Naive(pub Tunn);

impl End for Naive {
    fn receive(&mut self, datagram: &[u8], _now: Mono, out: &mut Out) -> Came {
        boring_receive(&mut self.0, datagram, out)
    }

    fn send(&mut self, packet: &[u8], _now: Mono, out: &mut Out) {
        boring_write(self.0.encapsulate(packet, &mut [0; 2_048]), out);
    }

    fn dial(&mut self, _now: Mono, out: &mut Out) {
        boring_write(self.0.format_handshake_initiation(&mut [0; 2_048], true), out);
    }

    fn poll(&mut self, _now: Mono, out: &mut Out) {
        boring_write(self.0.update_timers(&mut [0; 2_048]), out);
    }

    fn next_poll(&self, now: Mono) -> Option<Mono> {
        Some(now + BORING_POLL)
    }

    fn established(&self, _now: Mono) -> bool {
        self.0.time_since_last_handshake().is_some()
    }
}

/// The engine's session, made on demand and dropped when it allows it.
pub struct Fenced {
    noise: BoringNoise,
    device: PublicKey,
    pub session: Option<BoringSession>,
    dialled: Option<Mono>,
    scratch: Vec<u8>,
}

impl Fenced {
    pub fn new(private: &PrivateKey, device: PublicKey) -> Self {
        let noise = BoringNoise::new(private, [5; 32]);
        Fenced { noise, device, session: None, dialled: None, scratch: vec![0; SCRATCH] }
    }

    fn with<R>(&mut self, now: Mono, act: impl FnOnce(&mut BoringSession, &mut [u8]) -> R) -> R {
        let (noise, device) = (&mut self.noise, &self.device);
        let now = Now { mono: now, wall: Wall::from_millis(0) };
        let session = self.session.get_or_insert_with(|| noise.session(device, None, 1, now));
        let result = act(session, &mut self.scratch);
        if session.next_poll().is_none() {
            self.session = None;
        }
        result
    }
}

impl End for Fenced {
    fn receive(&mut self, datagram: &[u8], now: Mono, out: &mut Out) -> Came {
        if self.session.is_none() && datagram[0] != INITIATION {
            return Came::Refused("no session".into());
        }
        let from = SocketAddr::from(([192, 0, 2, 7], 40_000));
        self.with(now, |session, scratch| {
            match session.receive(datagram, from, now, scratch, &mut |bytes| out.push(bytes.to_vec())) {
                Opened::Packet(_) => Came::Packet,
                Opened::Dropped(reason) => Came::Refused(format!("{reason:?}")),
                _ => Came::Other,
            }
        })
    }

    fn send(&mut self, packet: &[u8], now: Mono, out: &mut Out) {
        if self.established(now) {
            self.with(now, |session, scratch| {
                let sent = session.send(packet, now, scratch, &mut |bytes| out.push(bytes.to_vec()));
                sent.expect("an established session sends");
            });
        } else if self.dialled.is_none_or(|at| now.since(at) >= DIAL_AGAIN) {
            self.dial(now, out);
        }
    }

    fn dial(&mut self, now: Mono, out: &mut Out) {
        self.dialled = Some(now);
        self.with(now, |session, scratch| {
            session.initiate(now, scratch, &mut |bytes| out.push(bytes.to_vec()));
        });
    }

    fn poll(&mut self, now: Mono, out: &mut Out) {
        self.with(now, |session, scratch| {
            session.poll(now, scratch, &mut |bytes| out.push(bytes.to_vec()));
        });
    }

    fn next_poll(&self, _now: Mono) -> Option<Mono> {
        self.session.as_ref()?.next_poll()
    }

    fn established(&self, now: Mono) -> bool {
        self.session.as_ref().is_some_and(|session| session.established(now))
    }
}

/// The conditions of an hour.
#[derive(Clone, Copy)]
pub struct Plan {
    pub length: Duration,
    /// The gateway sends a packet at this interval, and the device echoes it.
    pub probe_every: Option<Duration>,
    pub one_way: Duration,
    /// Lost datagrams of 1,000, in each direction.
    pub lost_per_mille: u64,
    pub device_keepalive: Option<u16>,
    /// The device is off from then on.
    pub device_gone_at: Option<Duration>,
    /// The gateway makes the first handshake; otherwise the device does.
    pub gateway_dials: bool,
}

impl Plan {
    pub const HOUR: Plan = Plan {
        length: Duration::from_secs(3_600),
        probe_every: Some(Duration::from_secs(30)),
        one_way: Duration::from_millis(25),
        lost_per_mille: 0,
        device_keepalive: Some(25),
        device_gone_at: None,
        gateway_dials: false,
    };
}

/// The counts of an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub gateway_initiations: usize,
    pub device_initiations: usize,
    pub gateway_polls: usize,
    pub probes: usize,
    /// Echoes of the device that opened at the gateway.
    pub answers: usize,
    /// Probes that were due without a session.
    pub gaps: usize,
    /// Data of the device that the gateway refused, with the reason.
    pub refused: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Gateway,
    Device,
}

/// Two ends, and datagrams in flight between them.
struct World<G> {
    clock: Clock,
    gateway: G,
    device: Naive,
    plan: Plan,
    /// Ordered by arrival, then by the order of sending.
    wire: BTreeMap<(Mono, u64), (To, Vec<u8>)>,
    sent: u64,
    gateway_poll: Option<Mono>,
    device_poll: Mono,
    probe: Option<Mono>,
    tally: Tally,
}

/// Runs an hour between a device and a naive gateway.
pub fn naive_hour(plan: Plan) -> Tally {
    let (gateway, device) = (PrivateKey::generate(), PrivateKey::generate());
    let clock = Clock::start();
    let end = Naive(tunn(&gateway, &device.public(), None));
    World::new(clock, end, &device, gateway.public(), plan).run()
}

/// Runs an hour between a device and the engine's session.
pub fn fenced_hour(plan: Plan) -> Tally {
    let (gateway, device) = (PrivateKey::generate(), PrivateKey::generate());
    let clock = Clock::start();
    let end = Fenced::new(&gateway, device.public());
    World::new(clock, end, &device, gateway.public(), plan).run()
}

impl<G: End> World<G> {
    fn new(clock: Clock, gateway: G, device: &PrivateKey, public: PublicKey, plan: Plan) -> Self {
        let device = Naive(tunn(device, &public, plan.device_keepalive));
        let start = clock.now();
        World {
            gateway,
            device,
            plan,
            wire: BTreeMap::new(),
            sent: 0,
            gateway_poll: None,
            device_poll: start,
            probe: plan.probe_every.map(|every| start + every),
            tally: Tally::default(),
            clock,
        }
    }

    fn run(mut self) -> Tally {
        let mut out = Out::new();
        if self.plan.gateway_dials {
            self.gateway.dial(self.clock.now(), &mut out);
            self.gateway_sent(out);
        } else {
            self.device.dial(self.clock.now(), &mut out);
            self.device_sent(out);
        }
        let end = self.clock.now() + self.plan.length;
        while self.clock.now() < end {
            self.turn();
        }
        self.tally
    }

    /// Advances to the next event and runs it.
    fn turn(&mut self) {
        self.gateway_poll = self.gateway.next_poll(self.clock.now()).map(|due| match self.gateway_poll {
            // boringtun returns "in 250 ms" at every call.
            Some(planned) if planned > self.clock.now() => planned.min(due),
            _ => due,
        });
        let arrival = self.wire.keys().next().map(|(at, _)| *at);
        let next = [arrival, self.gateway_poll, Some(self.device_poll), self.probe];
        self.clock.advance_to(next.into_iter().flatten().min().expect("the device is always polled"));
        let now = self.clock.now();
        if arrival.is_some_and(|at| at <= now) {
            self.deliver(now);
        }
        if self.gateway_poll.is_some_and(|at| at <= now) {
            self.poll_gateway(now);
        }
        if self.device_poll <= now {
            self.poll_device(now);
        }
        if self.probe.is_some_and(|at| at <= now) {
            self.send_probe(now);
        }
    }

    fn deliver(&mut self, now: Mono) {
        let Some((_, (to, datagram))) = self.wire.pop_first() else { return };
        let mut out = Out::new();
        match to {
            To::Gateway => {
                let came = self.gateway.receive(&datagram, now, &mut out);
                self.tally.answers += usize::from(came == Came::Packet);
                if let (Came::Refused(reason), DATA) = (came, datagram[0]) {
                    self.tally.refused.push(reason);
                }
                self.gateway_sent(out);
            }
            To::Device if self.device_is_gone() => {}
            To::Device => {
                if self.device.receive(&datagram, now, &mut out) == Came::Packet {
                    self.device.send(&packet(), now, &mut out);
                }
                self.device_sent(out);
            }
        }
    }

    fn poll_gateway(&mut self, now: Mono) {
        let mut out = Out::new();
        self.tally.gateway_polls += 1;
        self.gateway_poll = None;
        self.gateway.poll(now, &mut out);
        self.gateway_sent(out);
    }

    fn poll_device(&mut self, now: Mono) {
        self.device_poll = now + BORING_POLL;
        if !self.device_is_gone() {
            let mut out = Out::new();
            self.device.poll(now, &mut out);
            self.device_sent(out);
        }
    }

    fn send_probe(&mut self, now: Mono) {
        self.probe = self.plan.probe_every.map(|every| now + every);
        self.tally.probes += 1;
        self.tally.gaps += usize::from(!self.gateway.established(now));
        let mut out = Out::new();
        self.gateway.send(&packet(), now, &mut out);
        self.gateway_sent(out);
    }

    fn device_is_gone(&self) -> bool {
        self.plan.device_gone_at.is_some_and(|at| self.clock.elapsed() >= at)
    }

    fn gateway_sent(&mut self, out: Out) {
        self.tally.gateway_initiations += out.iter().filter(|d| d[0] == INITIATION).count();
        self.carry(To::Device, out);
    }

    fn device_sent(&mut self, out: Out) {
        self.tally.device_initiations += out.iter().filter(|d| d[0] == INITIATION).count();
        self.carry(To::Gateway, out);
    }

    fn carry(&mut self, to: To, out: Out) {
        for datagram in out {
            self.sent += 1;
            if !self.is_lost() {
                let arrival = self.clock.now() + self.plan.one_way;
                self.wire.insert((arrival, self.sent), (to, datagram));
            }
        }
    }

    /// Loses the same datagrams in each run, without a pattern (splitmix64).
    fn is_lost(&self) -> bool {
        let mut x = self.sent.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ x >> 31) % 1_000 < self.plan.lost_per_mille
    }
}

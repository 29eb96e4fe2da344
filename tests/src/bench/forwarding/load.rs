//! Datagrams of 16 flows through a hub, at a rate or as fast as it takes them, and round trips
//! beside them.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::hub::{HUB, Hub, LOAD, LOAD_ADDRESS, kernel_cpu};
use super::peer::{OVERHEAD, Opener, Sealer, Wire, halves};
use crate::attacker::socket_in;
use crate::lab::Lab;
use crate::packets::udp;

const FLOWS: u16 = 16;
/// The first port of the flows, and the port of the probes.
const FLOW_PORT: u16 = 5_000;
const PROBE_PORT: u16 = 4_999;
const UDP_HEADERS: usize = 28;
/// Inner length of a probe, which no packet of the load has.
const PROBE: usize = 96;
/// Packets in one call when there is no rate: the kernel takes 64 KiB.
const FULL_BATCH: usize = 44;
/// Packets between the two peers at most when there is no rate, so that a hub that is slower than the
/// load drops few.
const WINDOW: u64 = 1_024;
/// Without a packet for this long, those on their way are lost.
const STALLED: Duration = Duration::from_millis(20);
/// The kernel may let a thread sleep longer by this time.
const TIMER_SLACK_NS: libc::c_ulong = 1_000;
const ROOM: usize = 65_536;

/// How packets leave: so many in one call, each so often.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub at_once: u32,
    pub every: Duration,
}

/// The load of one phase.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// Inner length of the packets.
    pub size: usize,
    /// `None`: as many as the hub takes.
    pub rate: Option<Rate>,
    /// The time between two probes; zero for none.
    pub probe_every: Duration,
    pub time: Duration,
}

/// The measurements of one phase.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub sent: u64,
    pub delivered: u64,
    pub probes: u64,
    pub time: Duration,
    pub cpu: Duration,
    /// The share of the gateway's thread that carries packets.
    pub tunnel: Duration,
    /// CPU of the kernel's threads for interrupts in that time, whoever caused it.
    pub kernel: Duration,
    /// Round trips of the probes, sorted.
    pub rtts: Vec<Duration>,
}

impl Measured {
    /// Packets that the hub forwarded: those of the load, and each probe in both directions.
    pub fn forwarded(&self) -> u64 {
        self.delivered + 2 * self.rtts.len() as u64
    }

    pub fn us_per_packet(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.forwarded() as f64
    }

    pub fn tunnel_us_per_packet(&self) -> f64 {
        self.tunnel.as_secs_f64() * 1e6 / self.forwarded() as f64
    }

    /// Returns the round trip that this share of the probes did not exceed, in microseconds.
    pub fn rtt_us(&self, share: f64) -> f64 {
        let last = self.rtts.len().saturating_sub(1) as f64;
        self.rtts.get((last * share).round() as usize).map_or(f64::NAN, |rtt| rtt.as_secs_f64() * 1e6)
    }
}

/// Two peers beside each other, with a link to the hub.
pub struct Load {
    pub wires: [Wire; 2],
}

impl Load {
    /// # Errors
    /// Fails when a socket does not take its options.
    pub fn new(lab: &Lab) -> anyhow::Result<Load> {
        let wire = || Wire::new(socket_in(&lab.ns(LOAD), &format!("{LOAD_ADDRESS}:0")), HUB);
        Ok(Load { wires: [wire()?, wire()?] })
    }

    /// Makes new sessions and runs one phase.
    ///
    /// # Errors
    /// Fails when the hub does not answer or forwards nothing.
    pub fn run(&self, hub: &Hub<'_>, phase: Phase) -> anyhow::Result<Measured> {
        let [here, there] = &self.wires;
        let [us, them] = &hub.members;
        let (sealer, opener) = halves(&here.shake_hands(&us.keys, 1)?);
        let (back, theirs) = halves(&there.shake_hands(&them.keys, 2)?);
        let run = Run {
            phase,
            inner: [us.inner, them.inner],
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            delivered: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            rtts: Mutex::default(),
        };
        let (tunnel, cpu, kernel, begun) = (hub.tunnel_cpu()?, hub.cpu()?, kernel_cpu(), Instant::now());
        let (sent, probes) = scope(|scope| {
            scope.spawn(|| run.echo(there, &theirs, back));
            scope.spawn(|| run.listen(here, &opener));
            let sent = run.send(here, sealer);
            sleep(STALLED);
            run.stop.store(true, Ordering::Relaxed);
            sent
        });
        let time = begun.elapsed();
        let mut rtts = run.rtts.into_inner().unwrap_or_default();
        rtts.sort_unstable();
        let (delivered, broken) = (run.delivered.into_inner(), run.broken.into_inner());
        // A hub may seal a few packets for the session of the phase before.
        ensure!(
            broken * 100 <= delivered,
            "{:?} sent {broken} packets that do not open, of {delivered}",
            hub.candidate.kind
        );
        ensure!(delivered > 0 || !rtts.is_empty(), "{:?} forwarded nothing", hub.candidate.kind);
        let (tunnel, cpu, kernel) = (hub.tunnel_cpu()? - tunnel, hub.cpu()? - cpu, kernel_cpu() - kernel);
        Ok(Measured { sent, delivered, probes, time, cpu, tunnel, kernel, rtts })
    }

    /// Measures round trips between the two peers without a hub, on the same link.
    pub fn direct(&self, every: Duration, count: u32) -> anyhow::Result<Measured> {
        let [here, there] = &self.wires;
        let datagram = vec![0; PROBE + OVERHEAD];
        let stop = AtomicBool::new(false);
        let mut rtts = scope(|scope| {
            scope.spawn(|| {
                let mut room = vec![0; ROOM];
                while !stop.load(Ordering::Relaxed) {
                    if let Some((len, _)) = there.receive(&mut room) {
                        there.send_to(here.address(), &room[..len], len);
                    }
                }
            });
            let mut room = vec![0; ROOM];
            let rtts: Vec<Duration> = (0..count)
                .filter_map(|_| {
                    sleep(every);
                    let begun = Instant::now();
                    here.send_to(there.address(), &datagram, datagram.len());
                    here.receive(&mut room).map(|_| begun.elapsed())
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            rtts
        });
        rtts.sort_unstable();
        ensure!(!rtts.is_empty(), "nothing came back on the link");
        Ok(Measured { probes: u64::from(count), rtts, ..Measured::default() })
    }
}

struct Run {
    phase: Phase,
    inner: [Ipv4Addr; 2],
    begun: Instant,
    stop: AtomicBool,
    delivered: AtomicU64,
    broken: AtomicU64,
    rtts: Mutex<Vec<Duration>>,
}

impl Run {
    /// Sends the load and the probes; returns how many of each.
    fn send(&self, wire: &Wire, sealer: Sealer) -> (u64, u64) {
        thin_timers();
        let mut sender = Sender::new(self, wire, sealer);
        while self.begun.elapsed() < self.phase.time {
            match self.phase.rate {
                Some(rate) => sender.paced(rate),
                None => sender.windowed(),
            }
        }
        (sender.sent, sender.probes)
    }

    /// Receives the load, and answers the probes.
    fn echo(&self, wire: &Wire, opener: &Opener, mut sealer: Sealer) {
        let (mut room, mut reply) = (vec![0; ROOM], Vec::new());
        let [us, them] = self.inner;
        while !self.stop.load(Ordering::Relaxed) {
            let Some((len, size)) = wire.receive(&mut room) else { continue };
            let mut first = true;
            for datagram in room[..len].chunks_mut(size) {
                if datagram.len() == PROBE + OVERHEAD {
                    let Some(packet) = opener.open(datagram) else { continue };
                    let answer = udp(them.into(), us.into(), PROBE_PORT, &packet[UDP_HEADERS..PROBE]);
                    reply.clear();
                    sealer.seal(&turned(answer), &mut reply);
                    wire.send(&reply, reply.len());
                } else if datagram.len() >= self.phase.size + OVERHEAD {
                    self.delivered.fetch_add(1, Ordering::Relaxed);
                    // One of each batch is opened, which costs less than to open all.
                    if std::mem::take(&mut first) && opener.open(datagram).is_none() {
                        self.broken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Receives the answers to the probes.
    fn listen(&self, wire: &Wire, opener: &Opener) {
        let mut room = vec![0; ROOM];
        while !self.stop.load(Ordering::Relaxed) {
            let Some((len, size)) = wire.receive(&mut room) else { continue };
            let arrived = self.begun.elapsed();
            for datagram in room[..len].chunks_mut(size) {
                let Some(packet) = opener.open(datagram).filter(|packet| packet.len() >= PROBE) else {
                    continue;
                };
                let stamp = packet[UDP_HEADERS..UDP_HEADERS + 8].try_into().expect("eight bytes");
                let rtt = arrived.saturating_sub(Duration::from_nanos(u64::from_le_bytes(stamp)));
                self.rtts.lock().expect("nobody panics with it").push(rtt);
            }
        }
    }
}

/// Exchanges the ports of a datagram, so that it is a reply. The checksum stays the same.
fn turned(mut packet: Vec<u8>) -> Vec<u8> {
    packet[20..24].rotate_left(2);
    packet
}

struct Sender<'a> {
    run: &'a Run,
    wire: &'a Wire,
    sealer: Sealer,
    /// One packet of each flow.
    flows: Vec<Vec<u8>>,
    batch: Vec<u8>,
    sent: u64,
    lost: u64,
    probes: u64,
    /// When the last packet arrived, and how many had arrived then.
    progress: (Instant, u64),
}

impl<'a> Sender<'a> {
    fn new(run: &'a Run, wire: &'a Wire, sealer: Sealer) -> Self {
        let [us, them] = run.inner;
        let data = vec![0x55; run.phase.size - UDP_HEADERS];
        let flow = |n| udp(us.into(), them.into(), FLOW_PORT + n, &data);
        let flows = (0..FLOWS).map(flow).collect();
        let progress = (Instant::now(), 0);
        Sender { run, wire, sealer, flows, batch: Vec::new(), sent: 0, lost: 0, probes: 0, progress }
    }

    /// Sends a probe behind the packets of the moment, where it waits longest.
    fn probe_if_due(&mut self) {
        let every = self.run.phase.probe_every;
        if every.is_zero() || self.run.begun.elapsed() < every * self.probes as u32 {
            return;
        }
        self.probes += 1;
        let [us, them] = self.run.inner;
        let mut data = [0; PROBE - UDP_HEADERS];
        data[..8].copy_from_slice(&(self.run.begun.elapsed().as_nanos() as u64).to_le_bytes());
        self.batch.clear();
        self.sealer.seal(&udp(us.into(), them.into(), PROBE_PORT, &data), &mut self.batch);
        self.wire.send(&self.batch, PROBE + OVERHEAD);
    }

    /// Sends what is due by now, and sleeps until the next is.
    fn paced(&mut self, rate: Rate) {
        let ticks = self.run.begun.elapsed().as_nanos() / rate.every.as_nanos();
        let due = (ticks as u64 + 1) * u64::from(rate.at_once);
        self.send(due.saturating_sub(self.sent) as usize);
        self.probe_if_due();
        let next = rate.every * (ticks as u32 + 1);
        sleep(next.saturating_sub(self.run.begun.elapsed()));
    }

    /// Sends a batch if there is room in the window.
    fn windowed(&mut self) {
        let delivered = self.run.delivered.load(Ordering::Relaxed);
        if delivered != self.progress.1 {
            self.progress = (Instant::now(), delivered);
        }
        let waiting = self.sent.saturating_sub(delivered + self.lost);
        if waiting + FULL_BATCH as u64 <= WINDOW {
            self.send(FULL_BATCH);
        } else if self.progress.0.elapsed() > STALLED {
            self.lost += waiting;
        } else {
            sleep(Duration::from_micros(20));
        }
    }

    fn send(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.batch.clear();
        for _ in 0..count {
            let flow = &self.flows[(self.sent % u64::from(FLOWS)) as usize];
            self.sealer.seal(flow, &mut self.batch);
            self.sent += 1;
        }
        self.wire.send(&self.batch, self.batch.len() / count);
    }
}

/// Lets this thread sleep to the microsecond.
#[allow(unsafe_code, reason = "std has no timer slack")]
pub fn thin_timers() {
    // SAFETY: the call takes numbers only.
    let rc = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0) };
    assert_eq!(rc, 0, "Linux has timer slack");
}

/// Returns the median of a figure over the rounds.
///
/// # Errors
/// Fails without a round.
pub fn median_of(rounds: &[Measured], figure: impl Fn(&Measured) -> f64) -> anyhow::Result<f64> {
    let figures: Vec<f64> = rounds.iter().map(figure).collect();
    (!figures.is_empty()).then(|| crate::bench::median(figures)).context("no round was measured")
}

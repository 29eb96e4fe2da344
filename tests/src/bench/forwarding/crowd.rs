//! This program alone: with many grants and open flows, and beside a peer that floods the flow table.
//!
//! The same load runs on a gateway with one grant and 16 flows, on one with a full policy and table, and
//! on the first one again while another peer floods it. A round measures all of them one after the other.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::hub::{HUB, Hub, LOAD, LOAD_ADDRESS, Member};
use super::load::{Load, Measured, Phase, median_of, thin_timers};
use super::peer::{Sealer, Wire, halves};
use super::{BURSTS, DIRECT_PROBES, FULL, PACED, PROBES, SIZES, lost_percent};
use crate::attacker::{inside, socket_in};
use crate::lab::{Api, Lab};
use crate::packets::udp;

/// Grants in effect: as many as a gateway takes.
const GRANTS: usize = 10_000;
/// The open flows are 100,000. A source may have 4,096 of them, and a device 16,384.
const SOURCES: usize = 25;
const SINKS: usize = 7;
const FLOWS_OF_SOURCE: u16 = 4_000;
/// A user may have 16 operators.
const USERS: usize = 2;
/// A datagram may get lost on the way into the table, so each flow gets two.
const PASSES: usize = 2;
/// Flows that are opened in one call, each millisecond.
const AT_ONCE: usize = 50;
const TICK: Duration = Duration::from_millis(1);
/// The timer looks at no flow before. In each round the table was empty before, so that the measurement ends before
/// the first look: what the gateway does for open flows without packets is no cost of a packet, and stands apart.
const FIRST_LOOK: Duration = Duration::from_secs(30);
/// By then all flows have ended, and what they carried is written.
const OVER: Duration = Duration::from_secs(50);
/// The content of a datagram that only opens a flow.
const DATA: [u8; 8] = [0; 8];
/// The address of the API unless the settings say otherwise.
const API: &str = "127.0.0.1:8080";

const PACED_LOAD: Phase = Phase { size: SIZES[0], rate: Some(BURSTS), probe_every: PROBES, time: PACED };
const FULL_LOAD: Phase = Phase { size: SIZES[1], rate: None, probe_every: Duration::ZERO, time: FULL };

/// The measurements of the rounds.
#[derive(Default)]
struct Figures {
    direct: Vec<Measured>,
    calm: Vec<Measured>,
    calm_full: Vec<Measured>,
    crowded: Vec<Measured>,
    crowded_full: Vec<Measured>,
    /// Beside as many datagrams in one flow as the flood has.
    busy: Vec<Measured>,
    flooded: Vec<Measured>,
    open_flows: Vec<f64>,
    kept: Vec<Kept>,
}

/// The CPU that the gateway spends on the open flows after the measurement: the timer looks at each of them once, and
/// ends it later; then it is recorded.
struct Kept {
    tunnel: Duration,
    /// All threads, with those that write the records.
    all: Duration,
}

impl Kept {
    fn spent(hub: &Hub<'_>) -> anyhow::Result<Kept> {
        Ok(Kept { tunnel: hub.tunnel_cpu()?, all: hub.cpu_of_all()? })
    }

    fn since(&self, before: &Kept) -> Kept {
        Kept { tunnel: self.tunnel - before.tunnel, all: self.all - before.all }
    }
}

/// Measures both scenarios. `plain`: the gateway that only the load has used so far. `flood`: new flows a
/// second.
///
/// # Errors
/// Fails when a gateway does not take its grants or peers, or does not forward.
pub fn run((lab, hub, load): (&Lab, &Hub<'_>, &Load), rounds: usize, flood: u64) -> anyhow::Result<()> {
    let crowded_lab = Lab::of(&[("gw", 0)]);
    let crowded_hub = Hub::start(&crowded_lab, hub.candidate.clone())?;
    let crowded_load = Load::new(&crowded_lab)?;
    eprintln!("adding {GRANTS} grants");
    let crowd = Crowd::new(&crowded_lab, &crowded_hub)?;
    let flood = Flood::new(lab, hub, flood)?;
    let mut figures = Figures::default();
    for round in 0..rounds {
        eprintln!("round {} of {rounds}, fleetgate alone", round + 1);
        figures.direct.push(load.direct(PROBES, DIRECT_PROBES)?);
        figures.calm.push(load.run(hub, PACED_LOAD)?);
        figures.calm_full.push(load.run(hub, FULL_LOAD)?);
        let opened = Instant::now();
        crowd.open_flows()?;
        figures.crowded.push(crowded_load.run(&crowded_hub, PACED_LOAD)?);
        figures.crowded_full.push(crowded_load.run(&crowded_hub, FULL_LOAD)?);
        ensure!(opened.elapsed() < FIRST_LOOK, "opening the flows took too long to measure beside them");
        figures.open_flows.push(open_flows(&crowded_lab)?);
        let before = Kept::spent(&crowded_hub)?;
        figures.busy.push(flood.beside(false, || load.run(hub, PACED_LOAD))?);
        figures.flooded.push(flood.beside(true, || load.run(hub, PACED_LOAD))?);
        sleep(OVER.saturating_sub(opened.elapsed()));
        figures.kept.push(Kept::spent(&crowded_hub)?.since(&before));
    }
    figures.print(flood.per_second)
}

/// Makes a wire in the namespace of the load.
fn wire(lab: &Lab) -> anyhow::Result<Wire> {
    Wire::new(socket_in(&lab.ns(LOAD), &format!("{LOAD_ADDRESS}:0")), HUB)
}

/// Empties a socket, which may be full of the round before and then takes no answer to a handshake.
fn drain(wire: &Wire) {
    let mut room = vec![0; usize::from(u16::MAX)];
    while wire.receive(&mut room).is_some() {}
}

/// A device that reads nothing. Datagrams that its socket does not hold are lost, which costs the load least.
struct Sink {
    member: Member,
    wire: Wire,
}

impl Sink {
    fn new(lab: &Lab, hub: &Hub<'_>, name: &str) -> anyhow::Result<Sink> {
        Ok(Sink { member: hub.add_device(name)?, wire: wire(lab)? })
    }
}

/// The peers whose flows fill the table.
struct Crowd {
    sources: Vec<Member>,
    sinks: Vec<Sink>,
    wire: Wire,
}

impl Crowd {
    fn new(lab: &Lab, hub: &Hub<'_>) -> anyhow::Result<Crowd> {
        let gateway = hub.gateway()?;
        for user in 0..USERS {
            let name = format!("crowd-{user}");
            gateway.cli(&["user", "add", &name, "--role", "operator"]);
            gateway.cli(&["grant", "add", "--user", &name, "--to-all-devices", "--udp", "1-65535"]);
        }
        let source = |n| hub.add_operator(&format!("source-{n}"), &format!("crowd-{}", n % USERS));
        let sources: Vec<Member> = (0..SOURCES).map(source).collect::<anyhow::Result<_>>()?;
        let sinks = (0..SINKS).map(|n| Sink::new(lab, hub, &format!("sink-{n}")));
        let sinks: Vec<Sink> = sinks.collect::<anyhow::Result<_>>()?;
        add_grants(&Api::new(gateway.socket()))?;
        Ok(Crowd { sources, sinks, wire: wire(lab)? })
    }

    /// Makes new sessions, and sends two datagrams of each flow, so that all of them are open for the next 30 s.
    fn open_flows(&self) -> anyhow::Result<()> {
        for (index, sink) in (1_000..).zip(&self.sinks) {
            drain(&sink.wire);
            sink.wire.shake_hands(&sink.member.keys, index)?;
        }
        drain(&self.wire);
        let mut sealers = Vec::new();
        for (index, source) in (2_000..).zip(&self.sources) {
            sealers.push(halves(&self.wire.shake_hands(&source.keys, index)?).0);
        }
        for _ in 0..PASSES {
            self.send(&mut sealers);
        }
        Ok(())
    }

    fn send(&self, sealers: &mut [Sealer]) {
        let mut batch = Vec::new();
        let ports: Vec<u16> = (1..=FLOWS_OF_SOURCE).collect();
        for ports in ports.chunks(AT_ONCE) {
            for (n, (source, sealer)) in self.sources.iter().zip(&mut *sealers).enumerate() {
                let to = self.sinks[n % SINKS].member.inner;
                batch.clear();
                for port in ports {
                    sealer.seal(&udp(source.inner.into(), to.into(), *port, &DATA), &mut batch);
                }
                self.wire.send(&batch, batch.len() / ports.len());
                sleep(TICK);
            }
        }
    }
}

/// Adds grants until as many are in effect as there may be. Half of them are for the user of the load, and
/// none of them selects a host.
fn add_grants(api: &Api) -> anyhow::Result<()> {
    for n in 0..GRANTS {
        let user = if n % 2 == 0 { "anna" } else { "crowd-0" };
        let grant = json!({
            "source": { "user": user }, "target": { "labels": { "rental": n.to_string() } },
            "access": [{ "protocol": "tcp", "ports": [22] }],
        });
        match api.answer("POST", "grants", Some(&grant))? {
            (201, _) => {}
            (_, refused) if refused["code"] == "limit_reached" => return Ok(()),
            (status, refused) => bail!("grant {n}: {status} {refused}"),
        }
    }
    Ok(())
}

/// Returns the number of open flows, as the gateway has published it within the last 5 s.
fn open_flows(lab: &Lab) -> anyhow::Result<f64> {
    let mut stream = inside(&lab.ns("gw"), || TcpStream::connect(API)).context("the API of the gateway")?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let value = text.lines().find_map(|line| line.strip_prefix("fleetgate_flows "));
    value.and_then(|value| value.trim().parse().ok()).context("no metric fleetgate_flows")
}

/// A peer that opens a flow with each datagram, to a device of its own.
struct Flood {
    source: Member,
    wire: Wire,
    sink: Sink,
    per_second: u64,
}

impl Flood {
    fn new(lab: &Lab, hub: &Hub<'_>, per_second: u64) -> anyhow::Result<Flood> {
        let gateway = hub.gateway()?;
        gateway.cli(&["user", "add", "eve", "--role", "operator"]);
        let source = hub.add_operator("flood", "eve")?;
        let sink = Sink::new(lab, hub, "sink")?;
        gateway.cli(&["grant", "add", "--user", "eve", "--to", "sink", "--udp", "1-65535"]);
        Ok(Flood { source, wire: wire(lab)?, sink, per_second })
    }

    /// Measures beside the flood, or beside as many datagrams in one flow.
    fn beside(
        &self,
        new_flows: bool,
        measure: impl FnOnce() -> anyhow::Result<Measured>,
    ) -> anyhow::Result<Measured> {
        self.sink.wire.shake_hands(&self.sink.member.keys, 4)?;
        let (sealer, _) = halves(&self.wire.shake_hands(&self.source.keys, 3)?);
        let stop = AtomicBool::new(false);
        scope(|scope| {
            scope.spawn(|| self.send(new_flows, sealer, &stop));
            let measured = measure();
            stop.store(true, Ordering::Relaxed);
            measured
        })
    }

    fn send(&self, new_flows: bool, mut sealer: Sealer, stop: &AtomicBool) {
        thin_timers();
        let (begun, mut batch, mut sent) = (Instant::now(), Vec::new(), 0u64);
        let (from, to) = (self.source.inner.into(), self.sink.member.inner.into());
        while !stop.load(Ordering::Relaxed) {
            let ticks = begun.elapsed().as_millis() as u64 + 1;
            let due = (ticks * self.per_second / 1_000).saturating_sub(sent);
            batch.clear();
            for _ in 0..due {
                let port = if new_flows { 1 + (sent % 65_535) as u16 } else { 1 };
                sealer.seal(&udp(from, to, port, &DATA), &mut batch);
                sent += 1;
            }
            if due > 0 {
                self.wire.send(&batch, batch.len() / due as usize);
            }
            sleep((TICK * ticks as u32).saturating_sub(begun.elapsed()));
        }
    }
}

/// The aim for the figure with the scenario, or for its ratio to the one without.
#[derive(Clone, Copy)]
enum Aim {
    None,
    RatioBelow(f64),
    RatioAbove(f64),
    AtLeast(f64),
}

impl Aim {
    fn words(self, without: f64, with: f64) -> String {
        let (words, met) = match self {
            Aim::None => return "-".to_owned(),
            Aim::RatioBelow(most) => (format!("ratio below {most}"), with / without < most),
            Aim::RatioAbove(least) => (format!("ratio above {least}"), with / without > least),
            Aim::AtLeast(least) => (format!("at least {least}"), with >= least),
        };
        if met { words } else { format!("{words}: not met") }
    }
}

impl Figures {
    fn print(&self, flood: u64) -> anyhow::Result<()> {
        println!("\nfleetgate alone: without and with the scenario, in brackets the ratio, and the aim.\n");
        let per_packet = |rounds: &[Measured]| median_of(rounds, Measured::us_per_packet);
        let in_tunnel = |rounds: &[Measured]| median_of(rounds, Measured::tunnel_us_per_packet);
        let below_a_tenth = Aim::RatioBelow(1.1);
        let crowd = format!("{GRANTS} grants, {} flows", SOURCES * usize::from(FLOWS_OF_SOURCE));
        let (calm, crowded) = (per_packet(&self.calm)?, per_packet(&self.crowded)?);
        print_line(
            &format!("CPU per packet, {crowd}, bursts, 1,200 bytes"),
            "us",
            (calm, crowded),
            below_a_tenth,
        );
        let share = "  the share of the thread that carries packets";
        print_line(share, "us", (in_tunnel(&self.calm)?, in_tunnel(&self.crowded)?), Aim::None);
        let (calm, crowded) = (per_packet(&self.calm_full)?, per_packet(&self.crowded_full)?);
        print_line(
            &format!("CPU per packet, {crowd}, all it takes, 1,400"),
            "us",
            (calm, crowded),
            below_a_tenth,
        );
        print_line(share, "us", (in_tunnel(&self.calm_full)?, in_tunnel(&self.crowded_full)?), Aim::None);
        let open = crate::bench::median(self.open_flows.clone());
        print_line("  open flows meanwhile", "", (f64::NAN, open), Aim::AtLeast(100_000.0));
        let each = |spent: fn(&Kept) -> Duration| {
            let spent = self.kept.iter().map(|kept| crate::bench::micros(spent(kept)) / open);
            (f64::NAN, crate::bench::median(spent.collect()))
        };
        print_line(
            "  afterwards: a look at an open flow, and its end",
            "us",
            each(|kept| kept.tunnel),
            Aim::None,
        );
        print_line("  the same with its record", "us", each(|kept| kept.all), Aim::None);
        let kinds = [("in one flow", &self.busy, false), ("each in a new flow", &self.flooded, true)];
        for (kind, rounds, has_aim) in kinds {
            println!("beside another peer's {flood} datagrams a second, {kind}:");
            self.print_beside(rounds, has_aim)?;
        }
        Ok(())
    }

    fn print_beside(&self, rounds: &[Measured], has_aim: bool) -> anyhow::Result<()> {
        let aim = |aim| if has_aim { aim } else { Aim::None };
        let alone = median_of(&self.direct, |m| m.rtt_us(0.99))?;
        let both =
            |of: &dyn Fn(&Measured) -> f64| anyhow::Ok((median_of(&self.calm, of)?, median_of(rounds, of)?));
        let delivered = both(&|m| m.delivered as f64 / m.time.as_secs_f64())?;
        print_line("  delivered packets", "1/s", delivered, aim(Aim::RatioAbove(0.8)));
        print_line("  lost", "%", both(&lost_percent)?, Aim::None);
        let added = both(&|m| m.rtt_us(0.99) - alone)?;
        print_line("  added round trip, p99", "us", added, aim(Aim::RatioBelow(1.2)));
        let cores = both(&|m| 100.0 * m.cpu.as_secs_f64() / m.time.as_secs_f64())?;
        print_line("  CPU of the gateway", "%", cores, Aim::None);
        Ok(())
    }
}

fn print_line(name: &str, unit: &str, (without, with): (f64, f64), aim: Aim) {
    let ratio = with / without;
    println!("{name:<64} {unit:<4} {without:10.2} {with:10.2} ({ratio:5.2}) {}", aim.words(without, with));
}

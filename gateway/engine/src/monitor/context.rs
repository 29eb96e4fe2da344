//! The context of one turn: the time, the slots, the probes in flight, and the outputs.
//!
//! The modules below decide with it; it only decides the lengths of "soon" and of a grace period.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::HostId;
use crate::incident::Incidents;
use crate::messages::{EventKind, MonitorOutput, Probe, ProbeId, ProbeRequest, Record, SENT, Timing};
use crate::time::{Mono, Now, Wall};

use crate::monitor::host::alive::HostProbe;
use crate::monitor::host::allowed_silence::AllowedSilence;
use crate::monitor::schedule::{InFlight, Jitter, Slots};
use crate::monitor::service::Next;
use crate::monitor::state::{Change, Level, Track};
use crate::monitor::traffic_budget;
use crate::monitor::traffic_budget::Queue;

/// The part of a host that sent a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOwner {
    Host(HostProbe),
    Service(usize),
    /// The SSH session, for all services in it.
    Ssh,
}

/// Counters for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MonitorStats {
    pub hosts: usize,
    pub services: usize,
    /// Probes in flight.
    pub in_flight: usize,
    /// Checks started, and the sum of their delays after the planned time.
    pub checks: u64,
    pub latency: Duration,
    pub latency_max: Duration,
    /// Probes that were given up because no reply came in time.
    pub lost_probes: u64,
}

/// The minimum retry interval: a check that ends at once must not start again in the same turn.
const MIN_RETRY: Duration = Duration::from_millis(100);
/// A year: a longer interval is pointless, and arithmetic cannot overflow.
const MAX_RETRY: Duration = Duration::from_secs(366 * 86_400);

/// The state that all hosts share between turns.
#[derive(Debug)]
pub struct Shared {
    pub asks: InFlight<ProbeOwner>,
    pub incidents: Incidents,
    pub out: VecDeque<MonitorOutput>,
    pub figures: MonitorStats,
    /// When checks became meaningful again, after a start, a suspend or an outage of the gateway.
    pub woke: Option<Mono>,
    /// Whether the gateway itself may be cut off.
    pub cut_off: bool,
    /// Whether witnesses are being checked to decide that.
    pub asks_witnesses: bool,
    /// Whether an uplink check is running.
    pub is_watched: bool,
    /// Whether others fail like the host of this turn.
    pub with_others: bool,
    /// The number of monitored hosts.
    pub hosts: usize,
    waiting: Queue,
    rhythm: AllowedSilence,
    jitter: Jitter,
    /// Fixed by the first time that it sees.
    slots: Option<Slots>,
}

impl Shared {
    /// `seed` feeds the jitter.
    pub fn new(seed: u64, rhythm: AllowedSilence) -> Self {
        Shared {
            asks: InFlight::new(),
            incidents: Incidents::default(),
            out: VecDeque::new(),
            figures: MonitorStats::default(),
            woke: None,
            cut_off: false,
            asks_witnesses: false,
            is_watched: false,
            with_others: false,
            hosts: 0,
            waiting: Queue::default(),
            rhythm,
            jitter: Jitter::new(seed),
            slots: None,
        }
    }

    /// Attributes the state changes of this checkable after the first `before` outputs to `by`, who
    /// sent the result.
    pub fn sign(&mut self, before: usize, (host, service): (HostId, Option<&str>), by: &str) {
        for output in self.out.iter_mut().skip(before) {
            if let MonitorOutput::Record(Record::Event(event)) = output
                && (event.host, event.service.as_deref()) == (host, service)
                && matches!(event.kind, EventKind::StateChanged { .. })
            {
                event.by = Some(by.to_owned());
            }
        }
    }

    pub fn ctx(&mut self, now: Now) -> Ctx<'_> {
        let slots = *self.slots.get_or_insert_with(|| Slots::new(now));
        let (retry_factor, spread) = (self.jitter.retry_factor(), self.jitter.unit());
        Ctx { now, slots, shared: self, retry_factor, spread }
    }
}

pub struct Ctx<'a> {
    pub now: Now,
    slots: Slots,
    pub(super) shared: &'a mut Shared,
    /// One random number per turn: checks that failed together are retried together, in one SSH
    /// session.
    retry_factor: f64,
    spread: f64,
}

impl Ctx<'_> {
    pub fn ask(&mut self, host: HostId, asker: ProbeOwner, probe: Probe, timeout: Duration) -> ProbeId {
        let id = self.shared.asks.open(host, asker, timeout, self.now.mono);
        self.shared.out.push_back(MonitorOutput::ProbeRequest(ProbeRequest { id, host, probe, timeout }));
        id
    }

    /// Returns the rhythm that bounds the silence of a device that is up.
    pub fn rhythm(&self) -> AllowedSilence {
        self.shared.rhythm
    }

    /// Cancels a probe; a later reply is ignored.
    pub fn cancel(&mut self, id: ProbeId) {
        self.shared.asks.close(id);
    }

    pub fn started(&mut self, planned: Option<Mono>) {
        let late = planned.map_or(Duration::ZERO, |at| self.now.mono.since(at));
        let figures = &mut self.shared.figures;
        figures.checks += 1;
        figures.latency += late;
        figures.latency_max = figures.latency_max.max(late);
    }

    /// Returns the times of the next check. `begun`: the start of the attempt that has just ended.
    /// The retry interval counts from there, so that it does not include the timeout.
    pub fn next(&self, host: HostId, timing: &Timing, begun: Mono) -> Next {
        let now = self.now.mono;
        let retry = timing.retry.clamp(MIN_RETRY, MAX_RETRY).mul_f64(self.retry_factor);
        Next { regular: self.slot(host, timing), retry: (begun + retry).max(now + MIN_RETRY) }
    }

    pub fn slot(&self, host: HostId, timing: &Timing) -> Mono {
        self.slots.next(host, timing.interval, self.now.mono)
    }

    /// Returns the earliest time for a check.
    pub fn earliest(&self) -> Mono {
        self.now.mono + MIN_RETRY
    }

    /// Returns a time within `within` before `at`, spread over the hosts.
    pub fn shortly_before(&self, at: Mono, within: Duration) -> Mono {
        at - within.mul_f64(self.spread)
    }

    /// Returns when the grace period of this interval ends, if it has not.
    pub fn grace_ends(&self, interval: Duration) -> Option<Mono> {
        let ends = self.shared.woke.map(|woke| woke + interval);
        ends.filter(|at| *at > self.now.mono)
    }

    /// Returns a time within `within` from now, spread over the hosts.
    pub fn soon(&self, within: Duration) -> Mono {
        self.now.mono + within.min(MAX_RETRY).mul_f64(self.spread)
    }

    /// Returns when the host of this turn may start checks that waited for a recovery. A few hosts
    /// start at once, more of them one after the other. If that takes too long, they are spread
    /// over the longest wait.
    pub fn promptly(&mut self) -> Mono {
        let place = self.shared.waiting.place(self.shared.hosts, self.now.mono);
        place.unwrap_or_else(|| self.soon(traffic_budget::LONGEST))
    }

    /// Whether failures wait for a reading of the uplink.
    pub fn is_watched(&self) -> bool {
        self.shared.is_watched
    }

    /// Whether others fail like this host.
    pub fn fails_with_others(&self) -> bool {
        self.shared.with_others
    }

    /// Returns a random number for an id.
    pub fn draw(&self) -> u32 {
        (self.spread * f64::from(u32::MAX)) as u32
    }

    /// Whether the gateway may be unable to hear any host.
    pub fn is_cut_off(&self) -> bool {
        self.shared.cut_off
    }

    /// Whether witnesses are being checked to decide that.
    pub fn asks_witnesses(&self) -> bool {
        self.shared.asks_witnesses
    }

    /// Whether the gateway may be the cause of a silence: it may be cut off, or it came back less
    /// than an interval ago.
    pub fn in_grace(&self, interval: Duration) -> bool {
        self.is_cut_off() || self.shared.woke.is_some_and(|woke| self.now.mono.since(woke) < interval)
    }
}

/// Returns when the result that decided was measured, if it was sent later. A check measures when it is made.
pub fn measured_at(source: &str, result_at: Option<Wall>, now: Now) -> Option<Wall> {
    result_at.filter(|at| source == SENT && *at < now.wall)
}

/// Describes the cause of a state change.
pub fn cause<S: Level>(track: &Track<S>, change: &Change<S>, attempts: u32) -> String {
    match (change.to.is_problem(), change.hard) {
        (true, false) => format!("failure {} of {attempts}", track.attempt),
        (true, true) if change.from.is_problem() => "the problem changed".to_owned(),
        (true, true) if attempts <= 1 => "failed".to_owned(),
        (true, true) => format!("{attempts} failures in a row"),
        (false, false) => "recovered before the problem was hard".to_owned(),
        (false, true) if change.from == S::PENDING => "first result".to_owned(),
        (false, true) => "recovered".to_owned(),
    }
}

//! What one turn has at hand: the time, the slots, the questions under way, the outputs.
//!
//! Rooms below decide with it; it decides nothing but what "soon" and "a grace" are.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::HostId;
use crate::incident::Incidents;
use crate::time::{Mono, Now};
use crate::wire::{Ask, AskId, EventKind, MonitorOutput, Question, Record, Timing};

use super::liveness::Asked;
use super::pace::{self, Queue};
use super::rhythm::Rhythm;
use super::schedule::{Asks, Jitter, Slots};
use super::service::Next;
use super::status::{Change, Level, Track};

/// What of a host asked a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Host(Asked),
    Service(usize),
    /// The one SSH session, for all that ride in it.
    Ssh,
}

/// Counters for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub hosts: usize,
    pub services: usize,
    /// Questions under way.
    pub in_flight: usize,
    /// Checks that were started, and by how much after their plan, summed up.
    pub checks: u64,
    pub latency: Duration,
    pub latency_max: Duration,
    /// Questions that nobody answered in time.
    pub lost_answers: u64,
}

/// Retries are at least this far apart, whatever is configured: a check that ends at once must not
/// be made again in the same turn.
const MIN_RETRY: Duration = Duration::from_millis(100);
/// A year: nobody waits longer, and arithmetic cannot overflow.
const MAX_RETRY: Duration = Duration::from_secs(366 * 86_400);

/// What all hosts share between turns.
#[derive(Debug)]
pub struct Desk {
    pub asks: Asks<Asker>,
    pub incidents: Incidents,
    pub out: VecDeque<MonitorOutput>,
    pub figures: Figures,
    /// Since when the world is seen again, after a start, a suspend or an outage of our own.
    pub woke: Option<Mono>,
    /// It may be ourselves that are cut off.
    pub cut_off: bool,
    /// Others are asked whether it is.
    pub asks_witnesses: bool,
    /// Somebody looks at our own way out.
    pub is_watched: bool,
    /// Others fail as the host does whose turn it is.
    pub with_others: bool,
    /// Hosts that are watched.
    pub hosts: usize,
    waiting: Queue,
    rhythm: Rhythm,
    jitter: Jitter,
    /// Fixed by the first time that is seen.
    slots: Option<Slots>,
}

impl Desk {
    /// `seed` feeds the jitter.
    pub fn new(seed: u64, rhythm: Rhythm) -> Self {
        Desk {
            asks: Asks::new(),
            incidents: Incidents::default(),
            out: VecDeque::new(),
            figures: Figures::default(),
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

    /// A change of this object's state since there were `before` outputs is of a result that `by` sent.
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

    pub fn turn(&mut self, now: Now) -> Turn<'_> {
        let slots = *self.slots.get_or_insert_with(|| Slots::new(now));
        let (retry_factor, spread) = (self.jitter.retry_factor(), self.jitter.unit());
        Turn { now, slots, desk: self, retry_factor, spread }
    }
}

pub struct Turn<'a> {
    pub now: Now,
    slots: Slots,
    pub(super) desk: &'a mut Desk,
    /// One draw per turn: what failed together is retried together, in one SSH session.
    retry_factor: f64,
    spread: f64,
}

impl Turn<'_> {
    pub fn ask(&mut self, host: HostId, asker: Asker, question: Question, timeout: Duration) -> AskId {
        let id = self.desk.asks.open(host, asker, timeout, self.now.mono);
        self.desk.out.push_back(MonitorOutput::Ask(Ask { id, host, question, timeout }));
        id
    }

    /// How long a device that lives may be silent.
    pub fn rhythm(&self) -> Rhythm {
        self.desk.rhythm
    }

    /// Whatever is answered to it means nothing any more.
    pub fn cancel(&mut self, id: AskId) {
        self.desk.asks.close(id);
    }

    pub fn started(&mut self, planned: Option<Mono>) {
        let late = planned.map_or(Duration::ZERO, |at| self.now.mono.since(at));
        let figures = &mut self.desk.figures;
        figures.checks += 1;
        figures.latency += late;
        figures.latency_max = figures.latency_max.max(late);
    }

    /// `begun`: when the attempt was that is over now. A retry counts from there, so that a timeout is no
    /// part of the distance between two attempts.
    pub fn next(&self, host: HostId, timing: &Timing, begun: Mono) -> Next {
        let now = self.now.mono;
        let retry = timing.retry.clamp(MIN_RETRY, MAX_RETRY).mul_f64(self.retry_factor);
        Next { regular: self.slot(host, timing), retry: (begun + retry).max(now + MIN_RETRY) }
    }

    pub fn slot(&self, host: HostId, timing: &Timing) -> Mono {
        self.slots.next(host, timing.interval, self.now.mono)
    }

    /// No check is planned sooner.
    pub fn earliest(&self) -> Mono {
        self.now.mono + MIN_RETRY
    }

    /// Within so long before `at`, but not everything at the same moment.
    pub fn shortly_before(&self, at: Mono, within: Duration) -> Mono {
        at - within.mul_f64(self.spread)
    }

    /// When silence is no longer excused by our own.
    pub fn grace_ends(&self, interval: Duration) -> Option<Mono> {
        let ends = self.desk.woke.map(|woke| woke + interval);
        ends.filter(|at| *at > self.now.mono)
    }

    /// Promptly, but not everything at the same moment.
    pub fn soon(&self, within: Duration) -> Mono {
        self.now.mono + within.min(MAX_RETRY).mul_f64(self.spread)
    }

    /// When the host whose turn it is may start what waited for something that is there again: at once where few
    /// do, else one host after the other. Where even that takes too long, somewhere in that time.
    pub fn promptly(&mut self) -> Mono {
        let place = self.desk.waiting.place(self.desk.hosts, self.now.mono);
        place.unwrap_or_else(|| self.soon(pace::LONGEST))
    }

    /// Whether what fails waits for a look at our own way out.
    pub fn is_watched(&self) -> bool {
        self.desk.is_watched
    }

    /// Whether others fail as this host does.
    pub fn fails_with_others(&self) -> bool {
        self.desk.with_others
    }

    /// For an id.
    pub fn draw(&self) -> u32 {
        (self.spread * f64::from(u32::MAX)) as u32
    }

    /// Whether nobody may be heard at all.
    pub fn is_cut_off(&self) -> bool {
        self.desk.cut_off
    }

    /// Whether others are being asked if it is so.
    pub fn asks_witnesses(&self) -> bool {
        self.desk.asks_witnesses
    }

    /// Whether silence may be our own: we may be cut off, or it is less than an interval since we see
    /// again.
    pub fn in_grace(&self, interval: Duration) -> bool {
        self.is_cut_off() || self.desk.woke.is_some_and(|woke| self.now.mono.since(woke) < interval)
    }
}

/// Why a state changed, in words.
pub fn cause<S: Level>(track: &Track<S>, change: &Change<S>, attempts: u32) -> String {
    match (change.to.is_problem(), change.hard) {
        (true, false) => format!("failure {} of {attempts}", track.attempt),
        (true, true) if change.from.is_problem() => "another problem".to_owned(),
        (true, true) if attempts <= 1 => "failed".to_owned(),
        (true, true) => format!("{attempts} failures in a row"),
        (false, false) => "good again before the failure was hard".to_owned(),
        (false, true) if change.from == S::PENDING => "first result".to_owned(),
        (false, true) => "good again".to_owned(),
    }
}

//! What one turn has at hand: the time, the slots, the questions under way, the outputs.
//!
//! Rooms below decide with it; it decides nothing but what "soon" and "a grace" are.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::HostId;
use crate::time::{Mono, Now};
use crate::wire::{Ask, AskId, MonitorOutput, Question, Record, Timing};

use super::schedule::{Asks, Jitter, Slots};
use super::service::Next;
use super::status::{Change, Level, Track};

/// What of a host asked a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Host,
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

pub struct Turn<'a> {
    pub now: Now,
    pub slots: Slots,
    /// Since when the monitor sees the world again, after a start or a suspend.
    pub woke: Option<Mono>,
    asks: &'a mut Asks<Asker>,
    out: &'a mut VecDeque<MonitorOutput>,
    figures: &'a mut Figures,
    /// One draw per turn: what failed together is retried together, in one SSH session.
    retry_factor: f64,
    spread: f64,
}

impl<'a> Turn<'a> {
    pub fn new(
        now: Now,
        (slots, woke): (Slots, Option<Mono>),
        jitter: &mut Jitter,
        asks: &'a mut Asks<Asker>,
        out: &'a mut VecDeque<MonitorOutput>,
        figures: &'a mut Figures,
    ) -> Self {
        let (retry_factor, spread) = (jitter.retry_factor(), jitter.unit());
        Turn { now, slots, woke, asks, out, figures, retry_factor, spread }
    }

    pub fn record(&mut self, record: Record) {
        self.out.push_back(MonitorOutput::Record(record));
    }

    pub fn ask(&mut self, host: HostId, asker: Asker, question: Question, timeout: Duration) -> AskId {
        let id = self.asks.open(host, asker, timeout, self.now.mono);
        self.out.push_back(MonitorOutput::Ask(Ask { id, host, question, timeout }));
        id
    }

    /// Whatever is answered to it means nothing any more.
    pub fn cancel(&mut self, id: AskId) {
        self.asks.close(id);
    }

    pub fn started(&mut self, planned: Option<Mono>) {
        let late = planned.map_or(Duration::ZERO, |at| self.now.mono.since(at));
        self.figures.checks += 1;
        self.figures.latency += late;
        self.figures.latency_max = self.figures.latency_max.max(late);
    }

    pub fn next(&self, host: HostId, timing: &Timing) -> Next {
        Next {
            regular: self.slots.next(host, timing.interval, self.now.mono),
            retry: self.now.mono + timing.retry.mul_f64(self.retry_factor),
        }
    }

    /// Promptly, but not everything at the same moment.
    pub fn soon(&self, within: Duration) -> Mono {
        self.now.mono + within.mul_f64(self.spread)
    }

    /// Whether silence may still be our own: less than an interval since we see again.
    pub fn in_grace(&self, interval: Duration) -> bool {
        self.woke.is_some_and(|woke| self.now.mono.since(woke) < interval)
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

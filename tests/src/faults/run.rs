//! Runs cells, several at once, because they mostly wait.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::ensure_account;

use super::cells::Cell;
use super::judge::{Case, Judged, Span, judge};
use super::observer::{Millis, Observer, Timeline, now};
use super::report;
use super::room::{Room, call, lab};
use super::truth::{Fault, Host};

/// Time in which a room is ok before the first fault.
const CALM: Duration = Duration::from_secs(4);
/// Time in which everything must be ok again.
const PATIENCE: Duration = Duration::from_secs(120);

/// The outcome of a cell.
pub struct Outcome {
    pub cell: Cell,
    pub spans: Vec<Span>,
    pub timeline: Timeline,
    /// `Err`: the cell itself failed to run.
    pub judged: Result<Judged, String>,
    pub took: Duration,
}

impl Outcome {
    pub fn is_right(&self) -> bool {
        self.judged.as_ref().is_ok_and(Judged::is_right)
    }
}

/// Runs cells and prints each as soon as it has ended; returns the outcomes in the order of the
/// cells.
pub fn run_all(cells: &[Cell], at_once: usize) -> Vec<Outcome> {
    ensure_account();
    let (next, done) = (Mutex::new(0..cells.len()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, cells.len().max(1)) {
            scope.spawn(|| {
                while let Some(at) = { next.lock().expect("no panic beside it").next() } {
                    let outcome = run(&cells[at]);
                    let mut done = done.lock().expect("no panic beside it");
                    report::print(&outcome);
                    done.push((at, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no panic beside it");
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

fn run(cell: &Cell) -> Outcome {
    let begin = Instant::now();
    let lived = catch_unwind(AssertUnwindSafe(|| live(cell)));
    let (spans, timeline, judged) = match lived {
        Ok((spans, timeline, judged)) => (spans, timeline, Ok(judged)),
        Err(panic) => (Vec::new(), Timeline::default(), Err(words(panic.as_ref()))),
    };
    Outcome { cell: cell.clone(), spans, timeline, judged, took: begin.elapsed() }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

fn live(cell: &Cell) -> (Vec<Span>, Timeline, Judged) {
    let lab = lab();
    let mut room = Room::open(&lab, cell.plan);
    let hosts = cell.plan.hosts();
    let observer = Observer::start(room.api.clone(), hosts.clone());
    sleep(CALM);
    let (begun, check_now) = break_things(&mut room, cell);
    let spans: Vec<Span> = begun
        .into_iter()
        .map(|(fault, begun)| {
            let before = now();
            room.heal(fault);
            Span { fault, begun, ended: (before, now()) }
        })
        .collect();
    wait_until_well(&observer, &hosts);
    let timeline = observer.end(room.mail.subjects());
    let case = Case {
        spans: &spans,
        hosts: &hosts,
        direct: cell.plan.direct,
        finals: &cell.finals,
        within: cell.within,
        at_most_messages: cell.at_most_messages,
        check_now,
    };
    let judged = judge(&case, &timeline);
    (spans, timeline, judged)
}

type Begun = Vec<(Fault, (Millis, Millis))>;

/// Injects the faults at their times, and lets them last.
fn break_things(room: &mut Room<'_>, cell: &Cell) -> (Begun, Option<(Host, Millis)>) {
    let begin = Instant::now();
    let until = |at: Duration| sleep(at.saturating_sub(begin.elapsed()));
    let mut begun = Vec::new();
    for (after, fault) in &cell.faults {
        until(*after);
        let before = now();
        room.inject(*fault);
        begun.push((*fault, (before, now())));
    }
    let check_now = cell.check_now.map(|(after, host)| {
        until(after);
        let at = now();
        call(&room.api, "POST", &format!("hosts/{}/check", host.name()), &Value::Object(Default::default()));
        (host, at)
    });
    until(cell.lasts());
    (begun, check_now)
}

fn wait_until_well(observer: &Observer, hosts: &[Host]) {
    let begin = Instant::now();
    let well = |host: &Host| observer.last(*host).is_some_and(|seen| seen.state == "up" && seen.kind == "ok");
    while !hosts.iter().all(well) && begin.elapsed() < PATIENCE {
        sleep(Duration::from_millis(500));
    }
}

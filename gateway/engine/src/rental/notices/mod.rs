//! What the contacts of a rental are sent: the problems of its device that begin in its window, and their ends.
//!
//! The caller looks at the device every few seconds while the rental is active, and keeps what is known between two
//! looks. A state that holds for [`GATHER`] is sent, and each problem at most once. This module knows neither
//! addresses nor texts.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::HostId;
use crate::time::Wall;

/// How long a change waits for others, so that one message has all of them. A problem that is over meanwhile is not
/// sent. The monitor settles its doubts about parents in half of this time.
pub const GATHER: Duration = Duration::from_secs(60);
/// Messages of a rental within [`DAY`]. After the last one, changes wait until it may send again.
pub const MOST: usize = 20;
pub const DAY: Duration = Duration::from_secs(86_400);

/// A bad state of the device or one of its services. WARNING is not one: the report of the rental counts it as
/// available.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Down,
    /// Its parents are down, which is not the customer's concern.
    Unreachable,
    Critical,
    Unknown,
}

impl State {
    pub const ALL: [State; 4] = [State::Down, State::Unreachable, State::Critical, State::Unknown];

    pub const fn name(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Unreachable => "unreachable",
            State::Critical => "critical",
            State::Unknown => "unknown",
        }
    }
}

/// The state of the device or a service at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    Fine,
    Bad {
        state: State,
        since: Wall,
    },
    /// It is not known, in doubt, in a downtime, or another problem explains it. Known problems stay.
    Hidden,
}

/// The step that was taken about a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It began before the customer had the device, and is not sent.
    Earlier,
    Waits,
    Sent,
    /// It was sent and is over, which is not sent yet.
    Over,
}

impl Stage {
    pub const ALL: [Stage; 4] = [Stage::Earlier, Stage::Waits, Stage::Sent, Stage::Over];

    pub const fn name(self) -> &'static str {
        match self {
            Stage::Earlier => "earlier",
            Stage::Waits => "waits",
            Stage::Sent => "sent",
            Stage::Over => "over",
        }
    }

    /// Whether the contacts are to get something.
    const fn is_news(self) -> bool {
        matches!(self, Stage::Waits | Stage::Over)
    }
}

/// A problem that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    pub device: HostId,
    pub state: State,
    pub since: Wall,
    pub stage: Stage,
    /// When the stage began.
    pub stage_at: Wall,
}

/// The problems that are known, by service. The empty name is the device itself.
pub type KnownProblems = BTreeMap<String, Problem>;

/// A rental that is active.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rented {
    pub device: HostId,
    /// When the customer got this device.
    pub had_from: Wall,
    /// It was handed over by hand, so that the customer has a right to know what was wrong with it.
    pub is_forced: bool,
    /// Its messages within the last [`DAY`].
    pub sent: usize,
}

/// The statement of a message about the device or a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Empty: the device itself.
    pub service: String,
    pub state: State,
    /// `None`: since before the customer had the device.
    pub since: Option<Wall>,
    pub is_over: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// In the order of the services, the device first.
    pub parts: Vec<Part>,
    /// Further changes wait, because there were [`MOST`] messages.
    pub is_last: bool,
}

/// Returns the message that is due, and takes down what it says and what the look shows. What is no longer shown, and
/// what is of another device, is forgotten.
pub fn look(
    rented: &Rented,
    known: &mut KnownProblems,
    shown: &BTreeMap<String, Shown>,
    now: Wall,
) -> Option<Message> {
    known.retain(|service, problem| problem.device == rented.device && shown.contains_key(service));
    for (service, shown) in shown {
        note(rented, known, (service.as_str(), *shown), now);
    }
    let is_shown = |service: &String| shown.get(service).is_some_and(|shown| *shown != Shown::Hidden);
    let is_due = known.iter().any(|(service, problem)| is_shown(service) && problem.is_due(now));
    if !is_due || rented.sent >= MOST {
        return None;
    }
    let mut parts = Vec::new();
    known.retain(|service, problem| {
        if problem.stage.is_news() && is_shown(service) {
            parts.push(part(rented, service, problem));
            problem.stage_at = now;
            let is_over = problem.stage == Stage::Over;
            problem.stage = Stage::Sent;
            return !is_over;
        }
        true
    });
    Some(Message { parts, is_last: rented.sent + 1 == MOST })
}

impl Problem {
    /// Returns a problem that a look shows for the first time.
    fn new(rented: &Rented, state: State, since: Wall, now: Wall) -> Problem {
        let is_earlier = since < rented.had_from && !rented.is_forced;
        let stage = if is_earlier { Stage::Earlier } else { Stage::Waits };
        Problem { device: rented.device, state, since, stage, stage_at: now }
    }

    /// Whether it has waited long enough. A time to come is that of a clock that was ahead.
    fn is_due(&self, now: Wall) -> bool {
        let has_waited = now < self.stage_at || self.stage_at + GATHER <= now;
        self.stage.is_news() && has_waited
    }

    /// Whether the look shows another problem, whose predecessor was over unseen. A state that only became another one
    /// is the same problem.
    fn is_replaced(&self, state: State, since: Wall) -> bool {
        let is_unsent = matches!(self.stage, Stage::Earlier | Stage::Waits);
        is_unsent && state == self.state && since > self.since
    }
}

/// Takes down what a look shows of the device or a service.
fn note(rented: &Rented, known: &mut KnownProblems, (service, shown): (&str, Shown), now: Wall) {
    match (shown, known.get_mut(service)) {
        (Shown::Bad { state, since }, None) => {
            known.insert(service.to_owned(), Problem::new(rented, state, since, now));
        }
        (Shown::Bad { state, since }, Some(problem)) if problem.is_replaced(state, since) => {
            *problem = Problem::new(rented, state, since, now);
        }
        (Shown::Bad { state, .. }, Some(problem)) => {
            problem.state = state;
            // It was over for so short a time that the contacts never heard of it.
            if problem.stage == Stage::Over {
                (problem.stage, problem.stage_at) = (Stage::Sent, now);
            }
        }
        (Shown::Fine, Some(problem)) => match problem.stage {
            Stage::Sent => (problem.stage, problem.stage_at) = (Stage::Over, now),
            Stage::Over => {}
            Stage::Earlier | Stage::Waits => drop(known.remove(service)),
        },
        (Shown::Fine, None) | (Shown::Hidden, _) => {}
    }
}

fn part(rented: &Rented, service: &str, problem: &Problem) -> Part {
    Part {
        service: service.to_owned(),
        state: problem.state,
        since: Some(problem.since).filter(|since| rented.had_from <= *since),
        is_over: problem.stage == Stage::Over,
    }
}

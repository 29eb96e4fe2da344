//! The reasons that keep a grant shut within its window: the device of a rental is not handed over, or it is blocked.
//!
//! Both are judged elsewhere. Here they are data, as the window is: a block begins and ends without a message.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use super::window::{Shut, Span};
use crate::id::GrantId;
use crate::messages::Gate;
use crate::time::Wall;

/// Returns the time around `now` in which the gate is open. `known`: when the device was handed over during this run.
///
/// # Errors
/// Fails with the reason for which the gate is shut.
pub fn pass(gate: &Gate, known: Option<Wall>, now: Wall) -> Result<Span, Shut> {
    gate.blocks.iter().try_fold(handed_over(gate, known, now)?, |span, &(from, until)| match () {
        () if now < from => Ok(Span { until: span.until.min(from), ..span }),
        () if until <= now => Ok(Span { from: span.from.max(until), ..span }),
        () => Err(Shut::Blocked),
    })
}

pub fn is_blocked(gate: &Gate, at: Wall) -> bool {
    gate.blocks.iter().any(|(from, until)| (*from..*until).contains(&at))
}

/// Returns since when the device is handed over. The store may not have it yet. What is to come was handed over by a
/// clock that was ahead, and waits until the store has taken it back or the device is handed over again.
fn handed_over(gate: &Gate, known: Option<Wall>, now: Wall) -> Result<Span, Shut> {
    let at = gate.handed_over_at.into_iter().chain(known).min();
    match at {
        Some(at) if at <= now => Ok(Span { from: at, ..Span::default() }),
        _ if gate.awaits_handover || gate.handed_over_at.is_some() => Err(Shut::Delayed),
        _ => Ok(Span::default()),
    }
}

/// The moments at which blocks begin. The flows of the grant are looked at then.
#[derive(Default)]
pub struct BlockBegins {
    all: BTreeSet<(Wall, GrantId)>,
    /// The last one that was taken.
    taken: Option<(Wall, GrantId)>,
}

impl BlockBegins {
    pub fn add(&mut self, id: GrantId, gate: &Gate) {
        self.all.extend(gate.blocks.iter().map(|(from, _)| (*from, id)));
    }

    pub fn remove(&mut self, id: GrantId, gate: &Gate) {
        for (from, _) in &gate.blocks {
            self.all.remove(&(*from, id));
        }
    }

    /// Each of them may come again, because the clock was set.
    pub fn rewind(&mut self) {
        self.taken = None;
    }

    /// Takes the next one that has come.
    pub fn take(&mut self, now: Wall) -> Option<GrantId> {
        let next = self.first().filter(|(at, _)| *at <= now)?;
        self.taken = Some(next);
        Some(next.1)
    }

    pub fn next(&self) -> Option<Wall> {
        self.first().map(|(at, _)| at)
    }

    fn first(&self) -> Option<(Wall, GrantId)> {
        let after = self.taken.map_or(Unbounded, Excluded);
        self.all.range((after, Unbounded)).next().copied()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    #[test]
    fn a_gate_is_open_between_its_blocks() {
        let gate = Gate { blocks: vec![(at(10), at(20)), (at(40), at(50))], ..Gate::default() };
        assert_eq!(pass(&gate, None, at(10)), Err(Shut::Blocked));
        assert_eq!(pass(&gate, None, at(19)), Err(Shut::Blocked));
        let between = Span { from: at(20), until: at(40), ..Span::default() };
        assert_eq!(pass(&gate, None, at(20)), Ok(between));
        assert_eq!(pass(&gate, None, at(9)).map(|span| span.until), Ok(at(10)));
        let delayed = Gate { awaits_handover: true, ..gate };
        assert_eq!(pass(&delayed, None, at(15)), Err(Shut::Delayed), "it was never open");
        assert_eq!(pass(&delayed, Some(at(5)), at(20)), Ok(between));
    }

    #[test]
    fn a_handover_by_a_clock_that_was_ahead_opens_nothing_before_its_time() {
        let stored = Gate { handed_over_at: Some(at(30)), ..Gate::default() };
        assert_eq!(pass(&stored, None, at(29)), Err(Shut::Delayed));
        let since = |second| Ok(Span { from: at(second), ..Span::default() });
        assert_eq!(pass(&stored, None, at(30)), since(30));
        assert_eq!(
            pass(&stored, Some(at(20)), at(25)),
            since(20),
            "the store does not have the second one yet"
        );
        let awaited = Gate { awaits_handover: true, ..Gate::default() };
        assert_eq!(pass(&awaited, Some(at(30)), at(29)), Err(Shut::Delayed));
        assert_eq!(pass(&awaited, Some(at(30)), at(30)), since(30));
    }

    #[test]
    fn each_begin_is_taken_once_until_the_clock_is_set() {
        let (one, other) = (Id::from_i64(1), Id::from_i64(2));
        let gate = |from: i64| Gate { blocks: vec![(at(from), at(99))], ..Gate::default() };
        let mut begins = BlockBegins::default();
        begins.add(other, &gate(10));
        begins.add(one, &gate(10));
        begins.add(one, &gate(30));
        assert_eq!((begins.take(at(9)), begins.next()), (None, Some(at(10))));
        assert_eq!([(); 3].map(|()| begins.take(at(10))), [Some(one), Some(other), None]);
        begins.rewind();
        begins.remove(one, &gate(10));
        assert_eq!([(); 3].map(|()| begins.take(at(30))), [Some(other), Some(one), None]);
        assert_eq!(begins.next(), None);
    }
}

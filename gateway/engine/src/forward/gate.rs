//! The reasons that keep a grant shut within its window: the device of a rental is not handed over, or it is blocked.
//!
//! Both are judged elsewhere. Here they are data, as the window is: a block begins and ends without a message. It begins as
//! a window ends: by either clock, so that no step of the wall clock delays it.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use super::window::{Shut, Span, Trust, Window};
use crate::id::GrantId;
use crate::messages::Gate;
use crate::time::{Mono, Now, Wall};

/// Returns the begins of the blocks of a gate, in their order. One of the `known` stays where it was on the boot-time
/// clock.
pub fn begins(trust: &Trust, gate: &Gate, known: &[Window], now: Now) -> Vec<Window> {
    let begin = |from: Wall| {
        let same = known.iter().find(|begin| begin.until == Some(from));
        same.copied().unwrap_or_else(|| trust.load(None, Some(from), now))
    };
    gate.blocks.iter().map(|(from, _)| begin(*from)).collect()
}

/// Returns the time around `now` in which the gate is open. `begins`: of its blocks. `known`: when the device was handed
/// over during this run.
///
/// # Errors
/// Fails with the reason for which the gate is shut.
pub fn pass(gate: &Gate, begins: &[Window], known: Option<Wall>, now: Now) -> Result<Span, Shut> {
    let mut blocks = gate.blocks.iter().zip(begins);
    blocks.try_fold(handed_over(gate, known, now.wall)?, |span, (&(from, until), begin)| match () {
        () if until <= now.wall => Ok(Span { from: span.from.max(until), ..span }),
        () if from <= now.wall || begin.end <= now.mono => Err(Shut::Blocked),
        () => Ok(Span { until: span.until.min(from), end: span.end.min(begin.end), ..span }),
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

/// The moments at which blocks begin, on both clocks. The flows of the grant are looked at then.
#[derive(Default)]
pub struct BlockBegins {
    by_wall: InOrder<Wall>,
    by_boot: InOrder<Mono>,
}

impl BlockBegins {
    pub fn add(&mut self, id: GrantId, begins: &[Window]) {
        self.by_wall.all.extend(begins.iter().filter_map(|begin| begin.until).map(|from| (from, id)));
        self.by_boot.all.extend(begins.iter().map(|begin| (begin.end, id)));
    }

    pub fn remove(&mut self, id: GrantId, begins: &[Window]) {
        for begin in begins {
            self.by_boot.all.remove(&(begin.end, id));
            if let Some(from) = begin.until {
                self.by_wall.all.remove(&(from, id));
            }
        }
    }

    /// Each of them may come again, because the clock was set.
    pub fn rewind(&mut self) {
        self.by_wall.taken = None;
        self.by_boot.taken = None;
    }

    /// Takes the next one that has come.
    pub fn take(&mut self, now: Now) -> Option<GrantId> {
        self.by_wall.take(now.wall).or_else(|| self.by_boot.take(now.mono))
    }

    /// Returns when the next one comes, as the clocks run now.
    pub fn next(&self, now: Now) -> Option<Mono> {
        let by_wall = self.by_wall.next().map(|at| now.mono + at.since(now.wall));
        [by_wall, self.by_boot.next()].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_wall.all.is_empty() && self.by_boot.all.is_empty()
    }
}

/// The moments on one clock.
#[derive(Default)]
struct InOrder<T> {
    all: BTreeSet<(T, GrantId)>,
    /// The last one that was taken.
    taken: Option<(T, GrantId)>,
}

impl<T: Copy + Ord> InOrder<T> {
    fn take(&mut self, now: T) -> Option<GrantId> {
        let next = self.first().filter(|(at, _)| *at <= now)?;
        self.taken = Some(next);
        Some(next.1)
    }

    fn next(&self) -> Option<T> {
        self.first().map(|(at, _)| at)
    }

    fn first(&self) -> Option<(T, GrantId)> {
        let after = self.taken.map_or(Unbounded, Excluded);
        self.all.range((after, Unbounded)).next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    /// The boot-time clock began when the wall clock showed zero.
    fn now(second: u64) -> Now {
        Now { mono: Mono::from_secs(second), wall: at(second as i64) }
    }

    /// What a gate that was loaded at zero lets pass.
    fn passed(gate: &Gate, known: Option<Wall>, now: Now) -> Result<Span, Shut> {
        pass(gate, &begins(&Trust::default(), gate, &[], self::now(0)), known, now)
    }

    #[test]
    fn a_gate_is_open_between_its_blocks() {
        let gate = Gate { blocks: vec![(at(10), at(20)), (at(40), at(50))], ..Gate::default() };
        assert_eq!(passed(&gate, None, now(10)), Err(Shut::Blocked));
        assert_eq!(passed(&gate, None, now(19)), Err(Shut::Blocked));
        let between = Span { from: at(20), until: at(40), end: Mono::from_secs(40) };
        assert_eq!(passed(&gate, None, now(20)), Ok(between));
        let before = passed(&gate, None, now(9)).map(|span| (span.until, span.end));
        assert_eq!(before, Ok((at(10), Mono::from_secs(10))));
        let delayed = Gate { awaits_handover: true, ..gate };
        assert_eq!(passed(&delayed, None, now(15)), Err(Shut::Delayed), "it was never open");
        assert_eq!(passed(&delayed, Some(at(5)), now(20)), Ok(between));
    }

    #[test]
    fn a_block_begins_by_either_clock_and_ends_by_the_one_that_is_shown() {
        let gate = Gate { blocks: vec![(at(10), at(20))], ..Gate::default() };
        let shown = |mono, wall| Now { mono: Mono::from_secs(mono), wall: at(wall) };
        assert!(passed(&gate, None, shown(9, 3)).is_ok());
        assert_eq!(passed(&gate, None, shown(10, 4)), Err(Shut::Blocked), "the clock was set back");
        assert_eq!(passed(&gate, None, shown(25, 19)), Err(Shut::Blocked));
        assert!(passed(&gate, None, shown(26, 20)).is_ok());
        assert_eq!(passed(&gate, None, shown(5, 10)), Err(Shut::Blocked), "it was set ahead");
        let known = begins(&Trust::default(), &gate, &[], now(0));
        let longer = Gate { blocks: vec![(at(10), at(90)), (at(60), at(70))], ..Gate::default() };
        let ends: Vec<Mono> =
            begins(&Trust::default(), &longer, &known, shown(9, 3)).iter().map(|b| b.end).collect();
        assert_eq!(ends, [Mono::from_secs(10), Mono::from_secs(66)], "the first one stays where it was");
    }

    #[test]
    fn a_handover_in_a_block_that_began_by_one_clock_opens_nothing_before_its_end() {
        let gate = Gate { awaits_handover: true, blocks: vec![(at(10), at(20))], ..Gate::default() };
        let shown = |mono, wall| Now { mono: Mono::from_secs(mono), wall: at(wall) };
        // The clock was set back from 11 to 5, and the monitor goes by the clock that is shown.
        let handed_over = Some(at(5));
        assert_eq!(passed(&gate, handed_over, shown(11, 5)), Err(Shut::Blocked));
        assert_eq!(passed(&gate, handed_over, shown(25, 19)), Err(Shut::Blocked));
        assert!(passed(&gate, handed_over, shown(26, 20)).is_ok());
    }

    #[test]
    fn a_handover_by_a_clock_that_was_ahead_opens_nothing_before_its_time() {
        let stored = Gate { handed_over_at: Some(at(30)), ..Gate::default() };
        assert_eq!(passed(&stored, None, now(29)), Err(Shut::Delayed));
        let since = |second| Ok(Span { from: at(second), ..Span::default() });
        assert_eq!(passed(&stored, None, now(30)), since(30));
        assert_eq!(
            passed(&stored, Some(at(20)), now(25)),
            since(20),
            "the store does not have the second one yet"
        );
        let awaited = Gate { awaits_handover: true, ..Gate::default() };
        assert_eq!(passed(&awaited, Some(at(30)), now(29)), Err(Shut::Delayed));
        assert_eq!(passed(&awaited, Some(at(30)), now(30)), since(30));
    }

    #[test]
    fn each_begin_is_taken_once_of_each_clock_until_the_wall_clock_is_set() {
        let (one, other) = (Id::from_i64(1), Id::from_i64(2));
        let begin = |from: i64, end| Window {
            from: None,
            until: Some(at(from)),
            end: Mono::from_secs(end),
            provisional: false,
        };
        let mut begins = BlockBegins::default();
        begins.add(other, &[begin(10, 500)]);
        begins.add(one, &[begin(10, 100), begin(30, 500)]);
        let shown = |mono, wall| Now { mono: Mono::from_secs(mono), wall: at(wall) };
        assert_eq!((begins.take(shown(9, 9)), begins.next(shown(9, 9))), (None, Some(Mono::from_secs(10))));
        assert_eq!([(); 3].map(|()| begins.take(shown(10, 10))), [Some(one), Some(other), None]);
        assert_eq!(begins.next(shown(10, 10)), Some(Mono::from_secs(30)));
        begins.rewind();
        assert_eq!(begins.next(shown(99, 0)), Some(Mono::from_secs(100)), "the clock was set back");
        assert_eq!([(); 2].map(|()| begins.take(shown(100, 1))), [Some(one), None]);
        begins.remove(one, &[begin(10, 100), begin(30, 500)]);
        assert_eq!([(); 2].map(|()| begins.take(shown(130, 31))), [Some(other), None]);
        assert_eq!([(); 2].map(|()| begins.take(shown(500, 401))), [Some(other), None]);
        assert_eq!(begins.next(shown(500, 401)), None);
        begins.remove(other, &[begin(10, 500)]);
        assert!(begins.is_empty());
    }
}

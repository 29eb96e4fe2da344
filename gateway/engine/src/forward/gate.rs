//! The reasons that keep a grant shut within its window: the device of a rental is not handed over, or it is blocked.
//!
//! Both are judged elsewhere. Here they are data, as the window is: a block begins and ends without a message.

use super::blocks;
use super::window::{Shut, Span, Trust, Window};
use crate::messages::Gate;
use crate::time::{Now, Wall};

/// Returns the time around `now` in which the gate is open. `begins`: of its blocks. `known`: when the device was handed
/// over during this run.
///
/// # Errors
/// Fails with the reason for which the gate is shut.
pub fn pass(
    trust: &Trust,
    gate: &Gate,
    begins: &[Window],
    known: Option<Wall>,
    now: Now,
) -> Result<Span, Shut> {
    if blocks::goes_on(trust, &gate.blocks, now.mono) {
        return Err(Shut::Blocked);
    }
    let handed_over = handed_over(gate, known, now.wall)?;
    let free = blocks::free(trust, &gate.blocks, begins, now).ok_or(Shut::Blocked)?;
    Ok(handed_over.and(free))
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

#[cfg(test)]
mod tests {
    use super::super::blocks::begins;
    use super::*;
    use crate::time::Mono;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    /// The boot-time clock began when the wall clock showed zero.
    fn now(second: u64) -> Now {
        Now { mono: Mono::from_secs(second), wall: at(second as i64) }
    }

    /// What a gate that was loaded at zero lets pass.
    fn passed(gate: &Gate, known: Option<Wall>, now: Now) -> Result<Span, Shut> {
        let trust = Trust::default();
        pass(&trust, gate, &begins(&trust, &gate.blocks, &[], self::now(0)), known, now)
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
    }

    #[test]
    fn a_handover_in_a_block_that_began_by_one_clock_opens_nothing_before_its_end() {
        let gate = Gate { awaits_handover: true, blocks: vec![(at(10), at(20))], ..Gate::default() };
        let shown = |mono, wall| Now { mono: Mono::from_secs(mono), wall: at(wall) };
        // By hand, after the clock was set back from 11 to 5.
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
}

//! The states that a rental enters as time passes.
//!
//! The caller keeps the last state that it knows, and since when. It asks for what came after it, also
//! after a time in which nobody asked.

use super::life::{Life, State};
use crate::time::Wall;

/// A state, and the moment at which the rental had it.
pub type StateAt = (Wall, State);

/// Returns the states that a rental enters after a known one and not after `to`, each with its moment, in
/// order. A state without length is left out.
///
/// The known moment may be before an end or a return that was stored later: nothing changes between both.
pub fn transitions(life: &Life, (from, state): StateAt, to: Wall) -> Vec<StateAt> {
    let stored = [life.ending.map(|ending| ending.at), returned_at(life)];
    let begin = stored.into_iter().flatten().fold(from, Wall::max);
    let mut moments: Vec<Wall> = boundaries(life).into_iter().flatten().collect();
    moments.push(begin);
    moments.retain(|at| (begin..=to).contains(at));
    moments.sort_unstable();
    moments.dedup();
    let mut last = state;
    let entered = |at: Wall| {
        let state = life.state(at);
        let is_new = state != last;
        last = state;
        is_new.then_some((at, state))
    };
    moments.into_iter().filter_map(entered).collect()
}

/// Returns the moment of the next transition. `None`: time alone changes nothing any more.
pub fn next(life: &Life, known: StateAt) -> Option<Wall> {
    transitions(life, known, Wall::from_millis(i64::MAX)).first().map(|(at, _)| *at)
}

/// Every moment at which the state can change, in any order.
fn boundaries(life: &Life) -> [Option<Wall>; 9] {
    let end = life.ending.map_or(life.window.until(), |ending| ending.at);
    [
        Some(life.prepared_from),
        Some(life.window.from()),
        life.begins_at(),
        Some(life.window.until()),
        life.lapses_at(),
        Some(end),
        Some(end + life.turnaround),
        returned_at(life),
        returned_at(life).map(|at| at + life.turnaround),
    ]
}

fn returned_at(life: &Life) -> Option<Wall> {
    life.delivery.shipment().and_then(|shipment| shipment.returned_at)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::rental::life::{Delivery, EndReason, Ending, Handover, Shipment};
    use crate::rental::occupancy::Window;

    const SECONDS: i64 = 60;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    fn seconds(count: i64) -> Duration {
        Duration::from_secs(count.unsigned_abs())
    }

    fn life(prepared: i64, (from, until): (i64, i64), turnaround: i64) -> Life {
        Life {
            window: Window::new(at(from), at(until)).expect("a window"),
            prepared_from: at(prepared),
            turnaround: seconds(turnaround),
            hold_until: None,
            handover: Handover::AtBegin,
            ending: None,
            delivery: Delivery::Mounted,
        }
    }

    fn names(found: &[StateAt]) -> Vec<(i64, &'static str)> {
        found.iter().map(|(at, state)| (at.as_millis() / 1_000, state.name())).collect()
    }

    #[test]
    fn a_rental_passes_through_its_states_at_their_times() {
        let life = life(10, (20, 30), 5);
        let all = transitions(&life, (at(0), State::Booked), at(100));
        assert_eq!(names(&all), [(10, "preparing"), (20, "active"), (30, "cleaning"), (35, "closed")]);
        assert_eq!(names(&transitions(&life, (at(10), State::Preparing), at(20))), [(20, "active")]);
        assert!(transitions(&life, (at(20), State::Active), at(19)).is_empty(), "the clock was set back");
        assert_eq!(next(&life, (at(30), State::Cleaning)), Some(at(35)));
        assert_eq!(next(&life, (at(35), State::Closed)), None);
    }

    #[test]
    fn a_rental_is_delayed_between_its_begin_and_the_handover() {
        let awaited = Life { handover: Handover::Awaited, ..life(10, (20, 30), 5) };
        let known = (at(0), State::Booked);
        let never = [(10, "preparing"), (20, "delayed"), (30, "failed")];
        assert_eq!(names(&transitions(&awaited, known, at(99))), never);
        let late = Life { handover: Handover::Done(at(24)), ..awaited };
        assert_eq!(names(&transitions(&late, (at(20), State::Delayed), at(29))), [(24, "active")]);
        let in_time = Life { handover: Handover::Done(at(20)), ..awaited };
        let all = [(10, "preparing"), (20, "active"), (30, "cleaning"), (35, "closed")];
        assert_eq!(names(&transitions(&in_time, known, at(99))), all, "it was never delayed");
    }

    #[test]
    fn a_shipped_device_that_does_not_come_back_in_time_is_overdue() {
        let sent = Shipment { dispatched_at: Some(at(10)), ..Shipment::default() };
        let sent = Life { delivery: Delivery::Shipped(sent), ..life(10, (20, 30), 5) };
        let known = (at(20), State::Active);
        assert_eq!(names(&transitions(&sent, known, at(99))), [(30, "returning"), (35, "overdue")]);
        assert_eq!(next(&sent, (at(35), State::Overdue)), None, "no time brings it back");
        let back = Shipment { returned_at: Some(at(50)), ..sent.delivery.shipment().unwrap_or_default() };
        let back = Life { delivery: Delivery::Shipped(back), ..sent };
        let stored_later = (at(35), State::Overdue);
        assert_eq!(names(&transitions(&back, stored_later, at(99))), [(50, "cleaning"), (55, "closed")]);
    }

    #[test]
    fn what_was_not_confirmed_lapses_once_also_after_its_end_was_stored() {
        let held = Life { hold_until: Some(at(15)), ..life(10, (20, 30), 5) };
        let known = (at(0), State::Held);
        assert_eq!(names(&transitions(&held, known, at(99))), [(15, "cancelled")]);
        let stored = Life { ending: Some(Ending { at: at(15), reason: EndReason::Lapsed }), ..held };
        assert_eq!(names(&transitions(&stored, known, at(99))), [(15, "cancelled")]);
        assert!(transitions(&stored, known, at(14)).is_empty());
        assert_eq!(next(&stored, (at(15), State::Cancelled)), None);
    }

    /// One thing that happens at a second.
    #[derive(Clone, Copy, Debug)]
    enum Deed {
        Nothing,
        Extend {
            by: i64,
        },
        Confirm,
        Hold {
            until: i64,
        },
        Finish,
        HandOver,
        Dispatch,
        Return,
        /// The gateway looks which states were entered.
        Look,
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            20 => Just(Deed::Nothing),
            2 => (-10i64..20).prop_map(|by| Deed::Extend { by }),
            1 => Just(Deed::Confirm),
            1 => (1i64..20).prop_map(|until| Deed::Hold { until }),
            1 => Just(Deed::Finish),
            2 => Just(Deed::HandOver),
            2 => Just(Deed::Dispatch),
            2 => Just(Deed::Return),
            3 => Just(Deed::Look),
        ]
    }

    /// Returns the life after a call at this second. `None`: it is refused, or does not change it.
    fn changed(life: Life, deed: Deed, now: i64) -> Option<Life> {
        let state = life.state(at(now));
        let ended = |reason| Life { ending: Some(Ending { at: at(now), reason }), ..life };
        if !state.is_open() && !state.awaits_return() {
            return None;
        }
        let shipment = life.delivery.shipment().unwrap_or_default();
        let ship = |shipment| Some(Life { delivery: Delivery::Shipped(shipment), ..life });
        match (deed, state) {
            (Deed::Return, State::Returning | State::Overdue) => {
                ship(Shipment { returned_at: Some(at(now)), ..shipment })
            }
            (_, State::Returning | State::Overdue) => None,
            (Deed::Dispatch, State::Booked | State::Preparing | State::Delayed) if !life.is_away() => {
                ship(Shipment { dispatched_at: Some(at(now)), ..shipment })
            }
            (Deed::Extend { by }, _) => {
                let until = life.window.until().as_millis() / 1_000 + by;
                let window = Window::new(life.window.from(), at(until)).filter(|_| until > now)?;
                Some(Life { window, ..life })
            }
            (Deed::Confirm, State::Held) => Some(Life { hold_until: None, ..life }),
            (Deed::Hold { until }, State::Held) => Some(Life { hold_until: Some(at(now + until)), ..life }),
            (Deed::HandOver, State::Delayed) => Some(Life { handover: Handover::Done(at(now)), ..life }),
            (Deed::Finish, State::Active | State::Delayed) => Some(ended(EndReason::Ended)),
            (Deed::Finish, _) => Some(ended(EndReason::Cancelled)),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_every_second_shows(
            prepared in 0i64..20, preparation in 0i64..10, length in 1i64..20, turnaround in 0i64..10,
            hold in proptest::option::of(1i64..40), is_gated in any::<bool>(),
            deeds in proptest::collection::vec(deed(), SECONDS as usize),
        ) {
            let from = prepared + preparation;
            let mut life = life(prepared, (from, from + length), turnaround);
            life.hold_until = hold.map(at);
            life.handover = if is_gated { Handover::Awaited } else { Handover::AtBegin };
            let mut known = (at(0), life.state(at(0)));
            // The model looks at every second, and after each call.
            let (mut model, mut shown) = (Vec::new(), known.1);
            let mut found: Vec<StateAt> = Vec::new();
            for (second, deed) in deeds.into_iter().enumerate() {
                let now = second as i64;
                let mut see = |life: &Life| {
                    let state = life.state(at(now));
                    if state != shown {
                        shown = state;
                        model.push((at(now), state));
                    }
                };
                see(&life);
                let after = changed(life, deed, now);
                if after.is_some() || matches!(deed, Deed::Look) {
                    let passed = transitions(&life, known, at(now));
                    known = passed.last().copied().unwrap_or(known);
                    found.extend(passed);
                }
                if let Some(after) = after {
                    life = after;
                    see(&life);
                    let state = life.state(at(now));
                    if state != known.1 {
                        found.push((at(now), state));
                    }
                    known = (at(now), state);
                }
            }
            found.extend(transitions(&life, known, at(SECONDS - 1)));
            prop_assert_eq!(found, model);
        }

        #[test]
        fn a_look_in_between_changes_nothing(
            prepared in 0i64..20, preparation in 0i64..10, length in 1i64..20, turnaround in 0i64..10,
            middle in 0i64..60,
        ) {
            let from = prepared + preparation;
            let life = life(prepared, (from, from + length), turnaround);
            let known = (at(0), life.state(at(0)));
            let all = transitions(&life, known, at(SECONDS));
            let mut parts = transitions(&life, known, at(middle));
            let known = parts.last().copied().unwrap_or(known);
            parts.extend(transitions(&life, known, at(SECONDS)));
            prop_assert_eq!(&parts, &all);
            let first = all.first().map(|(at, _)| *at);
            prop_assert_eq!(next(&life, (at(0), life.state(at(0)))), first);
        }
    }
}

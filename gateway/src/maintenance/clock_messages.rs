//! The messages that the gateway's clock is behind, and that it is right again. Pure.

use std::time::Duration;

use fleetgate_engine::messages::Message;
use fleetgate_engine::time::Wall;

use crate::health::ClockProblem;
use crate::notification::gateway_message;
use crate::store::events;

/// A clock that is less behind is right again before anybody has read the message.
const WORTH_A_MESSAGE: Duration = Duration::from_secs(60);

/// The text of the recovery.
pub(super) const TRUSTED: &str = "the gateway's clock is trusted again: grants with a window pass as it says";

pub(super) fn is_worth_a_message(problem: ClockProblem, now: Wall) -> bool {
    match problem {
        ClockProblem::Behind { floor, .. } => floor.since(now) > WORTH_A_MESSAGE,
        ClockProblem::NoFloor => true,
    }
}

pub(super) fn message(is_problem: bool, text: &str, at: Wall) -> Message {
    gateway_message(events::CLOCK_SERVICE, is_problem, text, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_right_in_a_minute_is_not_worth_a_message() {
        let floor = Wall::from_millis(5_000_000);
        let behind = ClockProblem::Behind { floor, withheld: true };
        assert!(is_worth_a_message(behind, Wall::from_millis(4_939_000)));
        assert!(!is_worth_a_message(behind, Wall::from_millis(4_940_000)), "it is right in a minute");
        assert!(is_worth_a_message(ClockProblem::NoFloor, floor));
    }
}

//! The messages that the gateway's clock is behind, and that it is right again. Pure.

use std::time::Duration;

use fleetgate_engine::messages::{GATEWAY, Message, MessageKind};
use fleetgate_engine::time::Wall;

use crate::health::ClockProblem;
use crate::store::events;

/// A clock that is less behind is right again before anybody has read the message.
const WORTH_A_MESSAGE: Duration = Duration::from_secs(60);

/// The names in a notification.
const GATEWAY_NAME: &str = "gateway";
const SERVICE: &str = events::CLOCK_SERVICE;
const OK: &str = "ok";
const CRITICAL: &str = "critical";

/// The text of the recovery.
pub(super) const TRUSTED: &str = "the gateway's clock is trusted again: grants with a window pass as it says";

pub(super) fn is_worth_a_message(problem: ClockProblem, now: Wall) -> bool {
    match problem {
        ClockProblem::Behind { floor, .. } => floor.since(now) > WORTH_A_MESSAGE,
        ClockProblem::NoFloor => true,
    }
}

pub(super) fn message(is_problem: bool, text: &str, at: Wall) -> Message {
    let (kind, from, to) = match is_problem {
        true => (MessageKind::Problem, OK, CRITICAL),
        false => (MessageKind::Recovery, CRITICAL, OK),
    };
    Message {
        at,
        host: GATEWAY,
        host_name: GATEWAY_NAME.to_owned(),
        service: Some(SERVICE.to_owned()),
        kind,
        problem: is_problem,
        from,
        to,
        output: text.into(),
        since: at,
        incident: None,
        note: String::new(),
    }
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

//! A notification about a problem of the gateway itself, such as its clock, which no check has found.

use fleetgate_engine::messages::{GATEWAY, Message, MessageKind};
use fleetgate_engine::time::Wall;

/// The name of the gateway in a notification.
const NAME: &str = "gateway";
const OK: &str = "ok";
const CRITICAL: &str = "critical";

/// Returns the problem, or its end. `service`: what it is about.
pub fn gateway_message(service: &str, is_problem: bool, text: &str, at: Wall) -> Message {
    let (kind, from, to) = match is_problem {
        true => (MessageKind::Problem, OK, CRITICAL),
        false => (MessageKind::Recovery, CRITICAL, OK),
    };
    Message {
        at,
        host: GATEWAY,
        host_name: NAME.to_owned(),
        service: Some(service.to_owned()),
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

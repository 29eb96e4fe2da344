//! Ids and times in paths and queries: an invalid one becomes a problem document.

use fleetgate_engine::time::Wall;

use crate::api::response::problem::Problem;
pub use crate::ids::*;

impl From<Unknown> for Problem {
    fn from(unknown: Unknown) -> Problem {
        Problem::not_found(unknown.0)
    }
}

/// # Errors
/// Returns 400 with the parameter's name.
pub fn parse_time(name: &str, text: &str) -> Result<Wall, Problem> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    let expected = format!("{name}: a time such as 2026-03-10T13:03:22Z is expected");
    at.map(|at| Wall::from_millis(at.as_millisecond()))
        .map_err(|_| Problem::bad_request("bad_query", expected))
}

/// Formats a time that may be unknown.
pub fn time_if_known(at: Option<Wall>) -> Option<String> {
    at.map(time)
}

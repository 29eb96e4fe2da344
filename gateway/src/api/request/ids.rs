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

/// Reads both ends of a time; each may be absent.
///
/// # Errors
/// Returns 400 for what is no time, and for an end that is not after the begin.
pub fn parse_times(from: Option<&str>, to: Option<&str>) -> Result<(Option<Wall>, Option<Wall>), Problem> {
    let from = from.map(|text| parse_time("from", text)).transpose()?;
    let to = to.map(|text| parse_time("to", text)).transpose()?;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(Problem::bad_request("bad_query", "from: a time before `to` is expected"));
    }
    Ok((from, to))
}

/// Formats a time that may be unknown.
pub fn time_if_known(at: Option<Wall>) -> Option<String> {
    at.map(time)
}

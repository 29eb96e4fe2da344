//! The fault of the gateway's clock, as far as grants with a window suffer from it.

use std::fmt;

use fleetgate_engine::time::Wall;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockProblem {
    /// It is behind `floor`, a time that it has shown before. `withheld`: it was so at the start, so
    /// that no grant with a window passes.
    Behind { floor: Wall, withheld: bool },
    /// The greatest time that it has shown cannot be read.
    NoFloor,
}

impl ClockProblem {
    /// The time that the clock has shown before, if it is known.
    pub fn floor(&self) -> Option<String> {
        match self {
            ClockProblem::Behind { floor, .. } => Some(text(*floor)),
            ClockProblem::NoFloor => None,
        }
    }
}

/// Formats the problem and the remedy for people.
impl fmt::Display for ClockProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClockProblem::Behind { floor, withheld: true } => write!(
                f,
                "the gateway's clock is behind {}, a time that it has shown before: no grant with a window \
                 passes until it is right. Set the clock; if it is right, run `fleetgate gateway accept-clock`",
                text(*floor)
            ),
            ClockProblem::Behind { floor, withheld: false } => write!(
                f,
                "the gateway's clock is behind {}, a time that it has shown before: grants that ended by that \
                 time do not pass, and after a restart no grant with a window does. Set the clock; if it is \
                 right, run `fleetgate gateway accept-clock`",
                text(*floor)
            ),
            ClockProblem::NoFloor => f.write_str(
                "the greatest time that the gateway's clock has shown cannot be read from the database, so \
                 that the clock may be behind it: no grant with a window passes. Check the clock, then run \
                 `fleetgate gateway accept-clock`",
            ),
        }
    }
}

fn text(at: Wall) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_says_what_waits_and_what_to_do() {
        let floor = Wall::from_millis(60_000);
        for (problem, words) in [
            (ClockProblem::Behind { floor, withheld: true }, "behind 1970-01-01T00:01:00Z, a time"),
            (ClockProblem::Behind { floor, withheld: false }, "after a restart no grant"),
            (ClockProblem::NoFloor, "cannot be read from the database"),
        ] {
            let text = problem.to_string();
            assert!(text.contains(words) && text.contains("fleetgate gateway accept-clock"), "{text}");
        }
        assert_eq!(ClockProblem::NoFloor.floor(), None);
    }
}

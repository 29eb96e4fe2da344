//! The freshness of passive results: when they are overdue, and what their lack means.
//!
//! Time in which no result could be expected does not count; the caller excuses it. This module
//! knows no states.

use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::plugin::PluginResult;

use crate::messages::{Check, Taken};
use crate::time::{Mono, Now, Wall, age};

/// The route of a result that records missing passive results.
pub const SILENCE: &str = "none";
/// The cause of a state change without a result.
pub const NOTHING_CAME: &str = "nothing came in time";

/// The passive results of a host.
#[derive(Debug)]
pub struct Submitted {
    /// Those that were accepted, so that a repetition is recognized.
    pub taken: Taken,
    /// The time from which their freshness counts.
    heard_at: Mono,
}

impl Submitted {
    pub fn none(now: Mono) -> Submitted {
        Submitted { taken: Taken::default(), heard_at: now }
    }

    /// Counts freshness from now on, because a result came or a threshold was set.
    pub fn restart(&mut self, now: Mono) {
        self.heard_at = now;
    }

    /// Excuses missing results until now; later ones count.
    pub fn excuse(&mut self, until: Mono) {
        self.heard_at = self.heard_at.max(until);
    }

    /// Returns when a result is overdue.
    pub fn overdue_at(&self, threshold: Duration) -> Mono {
        self.heard_at + threshold
    }

    /// Whether the last result is younger than the threshold, if there is one.
    pub fn is_fresh(&self, threshold: Option<Duration>, now: Mono) -> bool {
        threshold.is_none_or(|limit| now.since(self.heard_at) < limit)
    }
}

/// Whether a result is older than the newest. A stored time in the future comes from a wrong clock
/// and does not count.
pub fn is_older(newest: Option<Wall>, at: Wall, now: Now) -> bool {
    newest.is_some_and(|newest| newest <= now.wall && at < newest)
}

/// Returns the result of a service whose passive results are overdue.
pub fn silence(threshold: Duration) -> PluginResult {
    PluginResult::unknown(no_result(threshold)).because(Cause::Overdue)
}

pub fn no_result(threshold: Duration) -> String {
    format!("no result for {}", age(threshold))
}

/// Whether missing results count for this service. An active check that waits for its dependency is
/// only marked as not current.
pub fn listens(check: &Check, waits: bool) -> bool {
    check.is_sent() || !waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excuse_never_shortens_the_time_that_is_left() {
        let (at, hour) = (Mono::from_secs, Duration::from_secs(3_600));
        let mut submitted = Submitted::none(at(100));
        submitted.restart(at(900));
        submitted.excuse(at(500));
        assert_eq!(submitted.overdue_at(hour), at(900) + hour);
        assert!(submitted.is_fresh(Some(hour), at(4_499)) && !submitted.is_fresh(Some(hour), at(4_500)));
    }

    #[test]
    fn a_time_in_the_future_makes_no_result_old() {
        let now = Now { mono: Mono::from_secs(100), wall: Wall::from_millis(50_000) };
        let at = Wall::from_millis;
        assert!(is_older(Some(at(50_000)), at(49_999), now));
        assert!(!is_older(Some(at(50_001)), at(49_999), now));
        assert!(!is_older(None, at(1), now));
    }
}

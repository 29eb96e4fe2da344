//! The last result of a host that counted, as it is shown.
//!
//! It remains until the next result. If it may be out of date, it is marked as not current. This
//! module knows no states and attempts.

use fleetgate_probes::plugin::PluginResult;

use crate::id::HostId;
use crate::messages::{
    Detail, HostState, HostStatus, Record, Sample, is_answer, is_beside_tunnel, is_of_others,
};
use crate::time::{Mono, Wall};

use crate::monitor::host::alive::EVIDENCE;
use crate::monitor::state::{Change, Since};

/// A result of the host itself, with its source and its time.
pub struct HostResult<'a> {
    pub source: &'a str,
    pub result: PluginResult,
    pub at: Wall,
    /// The start of the attempt.
    pub begun: Mono,
    /// Earlier attempts that also failed, as is known by now.
    pub missed: u32,
}

#[derive(Debug)]
pub struct LastResult {
    since: Since,
    /// `None` before the first result.
    at: Option<Wall>,
    source: String,
    output: String,
    detail: Detail,
    stale: bool,
}

impl LastResult {
    /// Returns the result of a host that was never checked.
    pub fn none(now: Wall) -> LastResult {
        LastResult {
            since: Since::both(now),
            at: None,
            source: String::new(),
            output: String::new(),
            detail: Detail::default(),
            stale: false,
        }
    }

    pub fn restored(state: &HostState) -> LastResult {
        LastResult {
            since: Since { status: state.since, hard: state.hard_since },
            at: state.last_check,
            source: state.source.clone(),
            output: state.output.clone(),
            detail: state.detail.clone(),
            stale: state.stale,
        }
    }

    /// Records the source of a new result, and its time if it has one of its own.
    pub fn came_from(&mut self, source: &str, at: Option<Wall>) {
        self.source = source.to_owned();
        self.at = at.or(self.at);
    }

    /// Shows a new result; `changed`: it changed the status that is shown.
    pub fn show(
        &mut self,
        result: PluginResult,
        changed: bool,
        change: Option<&Change<HostStatus>>,
        now: Wall,
    ) {
        let PluginResult { text, long_text, metrics, warnings, .. } = result;
        self.since.note(changed, change, now);
        (self.output, self.stale) = (text, false);
        self.detail = Detail { long_text, metrics, warnings };
    }

    /// Marks it as not current; returns whether that is a change.
    pub fn mark_stale(&mut self) -> bool {
        !std::mem::replace(&mut self.stale, true)
    }

    /// Moves its time, because the wall clock was set.
    pub fn move_to(&mut self, at: Wall) {
        self.at = Some(at);
    }

    pub fn since(&self) -> Since {
        self.since
    }

    pub fn at(&self) -> Option<Wall> {
        self.at
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn output(&self) -> &str {
        &self.output
    }

    pub fn detail(&self) -> &Detail {
        &self.detail
    }

    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// Whether a packet proved the host up, so that no probe was needed.
    pub fn is_evidence(&self) -> bool {
        self.source == EVIDENCE
    }

    /// Whether it is a passive result or the lack of one.
    pub fn is_passive(&self) -> bool {
        is_of_others(&self.source)
    }

    pub fn is_answer(&self) -> bool {
        is_answer(&self.source)
    }

    pub fn is_beside_tunnel(&self) -> bool {
        is_beside_tunnel(&self.source)
    }

    /// Returns the metrics to store. The age of a packet is no measurement, so evidence is not
    /// stored.
    pub fn sample(&self, host: HostId) -> Option<Record> {
        let (metrics, at) = (self.detail.metrics.clone(), self.at?);
        let sample = Sample { host, service: String::new(), at, metrics };
        (!self.is_evidence() && !sample.metrics.is_empty()).then_some(Record::Sample(sample))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_new_result_is_current_and_changes_the_time_only_with_the_status() {
        let (start, later) = (Wall::from_millis(1_000), Wall::from_millis(9_000));
        let mut last = LastResult::none(start);
        assert!(last.mark_stale() && !last.mark_stale());
        last.came_from("echo", Some(later));
        last.show(PluginResult::ok("echo in 3 ms"), false, None, later);
        assert_eq!((last.is_stale(), last.since().status, last.at()), (false, start, Some(later)));
        last.came_from("silence", None);
        last.show(PluginResult::unknown("no result for 5m"), true, None, later + Duration::from_secs(1));
        assert_eq!((last.since().status, last.at()), (later + Duration::from_secs(1), Some(later)));
        assert!(last.is_passive() && !last.is_answer());
    }
}

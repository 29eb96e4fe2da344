//! The uplink check: the gateway's own uplink as seen from the inside (SEMANTICS 8). Its faults are
//! a missing default route, a tunnel socket that sends nothing, and outside addresses that do not
//! reply.
//!
//! It raises a suspicion and never decides. A host that is heard outweighs an outside address that
//! does not reply, unless many other hosts are silent. Without readings there is no uplink check,
//! and no host waits for one. This module knows no hosts.

use std::time::Duration;

use crate::messages::UplinkReading;
use crate::time::Mono;

/// Failed readings in a row until the uplink counts as lost.
const ATTEMPTS: u32 = 2;
/// A failing host waits this long for a newer reading (SEMANTICS 8).
const PATIENCE: Duration = Duration::from_secs(30);
/// The minimum time between two readings, so that hosts that fail together share one.
const APART: Duration = Duration::from_secs(1);

/// The change caused by a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// No change.
    Same,
    /// The first failed reading.
    Dim,
    /// Enough failed readings in a row: the uplink is lost.
    Dark,
    /// The first good reading after failed ones.
    Clear,
}

/// The state of the uplink after the last reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkStatus {
    /// The uplink is ok, or there is no uplink check.
    Clear,
    /// The last reading failed.
    Dim,
    /// Enough readings in a row failed: the uplink is lost.
    Dark,
}

#[derive(Debug, Default)]
pub struct UplinkHealth {
    /// The time of the last reading; `None`: there is no uplink check.
    seen: Option<Mono>,
    asked: Option<Mono>,
    /// A failure needs a newer reading, which is yet to be requested.
    wanted: bool,
    failures: u32,
    words: String,
}

impl UplinkHealth {
    pub fn see(&mut self, reading: &UplinkReading, now: Mono) -> Sight {
        (self.seen, self.asked, self.wanted) = (Some(now), None, false);
        let Some(words) = fault(reading) else {
            let before = std::mem::take(&mut self.failures);
            return if before > 0 { Sight::Clear } else { Sight::Same };
        };
        self.words = words;
        self.failures = self.failures.saturating_add(1);
        match self.failures {
            1 => Sight::Dim,
            ATTEMPTS => Sight::Dark,
            _ => Sight::Same,
        }
    }

    pub fn sky(&self) -> UplinkStatus {
        match self.failures {
            0 => UplinkStatus::Clear,
            n if n < ATTEMPTS => UplinkStatus::Dim,
            _ => UplinkStatus::Dark,
        }
    }

    /// Returns `None` if the last reading failed, else whether an outside address replied.
    pub fn is_clear(&self, reading: &UplinkReading) -> Option<bool> {
        (self.failures == 0).then_some(!reading.anchors.is_empty())
    }

    /// Describes the fault while the uplink is lost.
    pub fn fault(&self) -> Option<&str> {
        (self.sky() == UplinkStatus::Dark).then_some(&self.words)
    }

    /// Whether a failure since then has no newer reading yet.
    pub fn in_doubt(&self, since: Mono, now: Mono) -> bool {
        self.seen.is_some_and(|seen| seen < since) && now.since(since) < PATIENCE
    }

    /// Requests a reading, because a host fails now and earlier readings prove nothing about that.
    pub fn want(&mut self, now: Mono) {
        self.wanted = self.seen.is_some_and(|seen| seen < now) && self.asked.is_none_or(|asked| asked < now);
    }

    /// Whether to take a reading now. A request too soon after another is deferred.
    pub fn looks(&mut self, now: Mono) -> bool {
        let looks = self.looks_at().is_some_and(|at| at <= now);
        if looks {
            (self.wanted, self.asked) = (false, Some(now));
        }
        looks
    }

    fn looks_at(&self) -> Option<Mono> {
        let lately = self.seen.max(self.asked).filter(|_| self.wanted)?;
        Some(lately + APART)
    }

    /// Returns when the next reading is due, or when the pending one is given up.
    pub fn due(&self) -> Option<Mono> {
        self.looks_at().into_iter().chain(self.gives_up()).min()
    }

    /// Returns when the pending reading is given up.
    pub fn gives_up(&self) -> Option<Mono> {
        self.asked.map(|at| at + PATIENCE)
    }

    pub fn give_up(&mut self) {
        self.asked = None;
    }
}

/// Describes the fault in a reading.
fn fault(reading: &UplinkReading) -> Option<String> {
    let anchors = &reading.anchors;
    if reading.socket_is_stuck {
        return Some("the system refuses to send the packets of the tunnels".to_owned());
    }
    if reading.default_route == Some(false) && !anchors.iter().any(|(_, answers)| *answers) {
        return Some("there is no default route".to_owned());
    }
    if anchors.is_empty() || anchors.iter().any(|(_, answers)| *answers) {
        return None;
    }
    let names: Vec<&str> = anchors.iter().map(|(name, _)| name.as_str()).collect();
    Some(format!("no anchor answers ({})", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono::from_secs(1_000 + secs)
    }

    fn anchors(answers: &[bool]) -> UplinkReading {
        let anchors = answers.iter().enumerate().map(|(n, a)| (format!("anchor{n}"), *a)).collect();
        UplinkReading { default_route: Some(true), anchors, socket_is_stuck: false }
    }

    fn wants(sentinel: &mut UplinkHealth, now: Mono) -> bool {
        sentinel.want(now);
        sentinel.looks(now)
    }

    #[test]
    fn one_reply_from_outside_is_enough_despite_a_missing_route() {
        let reading = |default_route, answers: &[bool]| UplinkReading { default_route, ..anchors(answers) };
        for (reading, expected) in [
            (reading(Some(true), &[]), None),
            (reading(None, &[]), None),
            (reading(Some(false), &[]), Some("there is no default route")),
            (reading(Some(false), &[false, true]), None),
            (reading(Some(false), &[false]), Some("there is no default route")),
            (reading(Some(true), &[false, true]), None),
            (reading(None, &[false, false]), Some("no anchor answers (anchor0, anchor1)")),
        ] {
            assert_eq!(fault(&reading).as_deref(), expected, "{reading:?}");
        }
    }

    #[test]
    fn a_stuck_socket_outweighs_replies_of_the_anchors() {
        let stuck = UplinkReading { socket_is_stuck: true, ..anchors(&[true, true]) };
        assert_eq!(fault(&stuck).as_deref(), Some("the system refuses to send the packets of the tunnels"));
    }

    #[test]
    fn two_failed_readings_in_a_row_are_a_fault_and_one_good_one_ends_it() {
        let mut sentinel = UplinkHealth::default();
        let sights = [true, false, true, false, false, false, true, true]
            .map(|good| (sentinel.see(&anchors(&[good]), at(0)), sentinel.fault().is_some()));
        use Sight::{Clear, Dark, Dim, Same};
        let expected = [
            (Same, false),
            (Dim, false),
            (Clear, false),
            (Dim, false),
            (Dark, true),
            (Same, true),
            (Clear, false),
            (Same, false),
        ];
        assert_eq!(sights, expected);
    }

    #[test]
    fn a_failure_waits_for_a_newer_reading_for_a_bounded_time_and_only_if_readings_come() {
        let mut sentinel = UplinkHealth::default();
        assert!(!sentinel.in_doubt(at(5), at(5)) && !wants(&mut sentinel, at(5)), "nobody looks");
        sentinel.see(&anchors(&[true]), at(0));
        assert!(sentinel.in_doubt(at(5), at(5)) && wants(&mut sentinel, at(5)));
        assert!(!wants(&mut sentinel, at(5)), "one look for all that fail");
        assert_eq!(sentinel.gives_up(), Some(at(35)));
        assert!(!sentinel.in_doubt(at(5), at(35)), "the look never came");
        sentinel.see(&anchors(&[true]), at(6));
        assert!(!sentinel.in_doubt(at(5), at(6)));
    }

    #[test]
    fn a_failure_just_after_a_reading_waits_a_second_for_the_next() {
        let ms = |ms: u64| at(0) + Duration::from_millis(ms);
        let mut sentinel = UplinkHealth::default();
        sentinel.see(&anchors(&[true]), at(0));
        assert!(sentinel.in_doubt(ms(1), ms(1)) && !wants(&mut sentinel, ms(1)));
        assert_eq!(sentinel.due(), Some(at(1)));
        assert!(!wants(&mut sentinel, ms(500)), "another that fails does not put it off");
        assert_eq!(sentinel.due(), Some(at(1)));
        assert!(sentinel.looks(at(1)) && !sentinel.looks(at(1)));
        sentinel.see(&anchors(&[true]), ms(1_030));
        assert!(!sentinel.in_doubt(ms(500), ms(1_030)) && sentinel.due().is_none());
    }
}

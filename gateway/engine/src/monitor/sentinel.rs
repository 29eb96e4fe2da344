//! What the gateway's own way out looks like from the inside, by SEMANTICS 8: no default route, a socket
//! of the tunnels that nothing leaves, or no place outside that answers.
//!
//! It accuses and never convicts: who is heard all the same is believed more than a place outside that
//! answers nothing, unless many others are not. Without a reading there is no sentinel, and nobody waits for one. Knows no hosts.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::UplinkReading;

/// Looks in a row that found nothing, until it is said.
const ATTEMPTS: u32 = 2;
/// What fails waits so long for a look that is newer, by SEMANTICS 8.
const PATIENCE: Duration = Duration::from_secs(30);
/// Readings wanted by many hosts that fail together are one.
const APART: Duration = Duration::from_secs(1);

/// What a look comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// As before.
    Same,
    /// The first that found nothing.
    Dim,
    /// So many in a row that it is lost.
    Dark,
    /// The first good one after others.
    Clear,
}

/// How it looks after the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sky {
    /// Nothing is wrong, or nobody looks.
    Clear,
    /// The last look found nothing.
    Dim,
    /// So many in a row did that it is lost.
    Dark,
}

#[derive(Debug, Default)]
pub struct Sentinel {
    /// The last look; `None`: nobody looks.
    seen: Option<Mono>,
    asked: Option<Mono>,
    /// Something failed, and a look that is newer is to be asked for.
    wanted: bool,
    failures: u32,
    words: String,
}

impl Sentinel {
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

    pub fn sky(&self) -> Sky {
        match self.failures {
            0 => Sky::Clear,
            n if n < ATTEMPTS => Sky::Dim,
            _ => Sky::Dark,
        }
    }

    /// Nothing is wrong; whether somebody outside says so.
    pub fn is_clear(&self, reading: &UplinkReading) -> Option<bool> {
        (self.failures == 0).then_some(!reading.anchors.is_empty())
    }

    /// What is wrong, while it is.
    pub fn fault(&self) -> Option<&str> {
        (self.sky() == Sky::Dark).then_some(&self.words)
    }

    /// Something fails since then, and no look is newer.
    pub fn in_doubt(&self, since: Mono, now: Mono) -> bool {
        self.seen.is_some_and(|seen| seen < since) && now.since(since) < PATIENCE
    }

    /// Something fails now: no look so far says anything of it.
    pub fn want(&mut self, now: Mono) {
        self.wanted = self.seen.is_some_and(|seen| seen < now) && self.asked.is_none_or(|asked| asked < now);
    }

    /// Whether a look is to be asked for now. One that follows another too closely comes when it may.
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

    /// When something is to be done: a look that is wanted, or one that nobody waits for any more.
    pub fn due(&self) -> Option<Mono> {
        self.looks_at().into_iter().chain(self.gives_up()).min()
    }

    /// When nobody waits any more for the look that was asked for.
    pub fn gives_up(&self) -> Option<Mono> {
        self.asked.map(|at| at + PATIENCE)
    }

    pub fn give_up(&mut self) {
        self.asked = None;
    }
}

/// What is wrong, in words.
fn fault(reading: &UplinkReading) -> Option<String> {
    let anchors = &reading.anchors;
    if reading.socket_is_stuck {
        return Some("the system sends no packet of the tunnels anywhere".to_owned());
    }
    if reading.default_route == Some(false) && !anchors.iter().any(|(_, answers)| *answers) {
        return Some("there is no default route".to_owned());
    }
    if anchors.is_empty() || anchors.iter().any(|(_, answers)| *answers) {
        return None;
    }
    let names: Vec<&str> = anchors.iter().map(|(name, _)| name.as_str()).collect();
    Some(format!("nothing outside answers ({})", names.join(", ")))
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

    fn wants(sentinel: &mut Sentinel, now: Mono) -> bool {
        sentinel.want(now);
        sentinel.looks(now)
    }

    #[test]
    fn one_answer_from_outside_is_enough_whatever_the_routes_say() {
        let reading = |default_route, answers: &[bool]| UplinkReading { default_route, ..anchors(answers) };
        for (reading, expected) in [
            (reading(Some(true), &[]), None),
            (reading(None, &[]), None),
            (reading(Some(false), &[]), Some("there is no default route")),
            (reading(Some(false), &[false, true]), None),
            (reading(Some(false), &[false]), Some("there is no default route")),
            (reading(Some(true), &[false, true]), None),
            (reading(None, &[false, false]), Some("nothing outside answers (anchor0, anchor1)")),
        ] {
            assert_eq!(fault(&reading).as_deref(), expected, "{reading:?}");
        }
    }

    #[test]
    fn a_socket_that_nothing_leaves_is_believed_more_than_places_that_others_may_reach() {
        let stuck = UplinkReading { socket_is_stuck: true, ..anchors(&[true, true]) };
        assert_eq!(fault(&stuck).as_deref(), Some("the system sends no packet of the tunnels anywhere"));
    }

    #[test]
    fn two_looks_in_a_row_are_a_fault_and_one_good_one_ends_it() {
        let mut sentinel = Sentinel::default();
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
    fn what_fails_waits_for_a_newer_look_but_not_for_ever_and_not_without_a_sentinel() {
        let mut sentinel = Sentinel::default();
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
    fn what_fails_just_after_a_look_waits_a_second_for_the_next() {
        let ms = |ms: u64| at(0) + Duration::from_millis(ms);
        let mut sentinel = Sentinel::default();
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

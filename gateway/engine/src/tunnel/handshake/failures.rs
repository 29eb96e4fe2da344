//! Evidence that initiations without a result are being made now.
//!
//! A stamp is sealed with the initiator's key, so a stranger cannot make one. A stranger can replay
//! a captured initiation, which proves nothing about the present. A replayed initiation keeps its
//! stamp. The stamps of a living device advance with time, even if its clock is wrong.
//!
//! One case remains: a stranger who recorded several initiations can replay them at their original
//! pace. This module knows no peers.

use std::net::SocketAddr;
use std::time::Duration;

use crate::messages::{Attempts, ReplacedKeyUse, Tai64n, UnprovedHandshakes};
use crate::time::{ClockStep, Mono, Now, Wall};
use crate::tunnel::handshake::tai64n::unix_ms;
use crate::tunnel::peers::Endpoint;

/// Tolerated difference of the travel times of two initiations. It is less than the five seconds
/// between two attempts of a device, so that two attempts are never taken for one.
const JITTER: Duration = Duration::from_secs(3);
/// Two initiations further apart than this are not compared, so that the evidence is recent.
const APART: Duration = Duration::from_secs(180);

/// A single response may be lost. This many initiations, the last one included, show that the
/// responses have no effect.
const UNPROVED: u32 = 3;
/// A stamp within this distance of now, by the device's clock in its last session, is recent: such
/// an initiation was not held back.
const OF_NOW_MS: i64 = 5_000;
/// After a failed dial to the source of such initiations, the same source is not dialled again
/// sooner.
const DIAL_SAME_SOURCE: Duration = Duration::from_secs(300);
/// Another source of the same peer is not dialled sooner than this: a device behind two address
/// translators alternates between two.
const DIAL_OTHER_SOURCE: Duration = Duration::from_secs(60);

/// The evidence about one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// Initiations that were refused for their stamps.
    pub refused: Sign,
    /// Initiations that were answered, without any packet afterwards.
    pub unproved: Unused,
    /// Use of a key that this peer had before.
    pub replaced: Option<ReplacedKeyUse>,
}

impl Signs {
    pub fn attempts(&self) -> Attempts {
        let Signs { refused, unproved, replaced } = self;
        Attempts {
            refused: refused.seen(),
            unproved: unproved.seen(),
            pending: unproved.last,
            replaced: *replaced,
        }
    }

    /// Adjusts the wall times after the wall clock was set.
    pub fn mind_step(&mut self, step: ClockStep) {
        let Signs { refused, unproved, replaced } = self;
        refused.mind_step(step);
        unproved.sign.mind_step(step);
        for at in [&mut unproved.since, &mut unproved.last] {
            *at = at.map(|at| step.rebase(at));
        }
        *replaced = replaced.map(|used| ReplacedKeyUse { last: step.rebase(used.last), ..used });
    }
}

/// Initiations that were answered since the last session, if there was one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unused {
    sign: Sign,
    count: u32,
    since: Option<Wall>,
    last: Option<Wall>,
    /// The last initiation whose stamp was recent.
    of_now: Option<Mono>,
    from: Option<Endpoint>,
    dialled: Option<(SocketAddr, Mono)>,
}

impl Unused {
    /// Records an answered initiation that has not led to a session yet. `skew_ms`: the device's
    /// clock minus ours, where it is known.
    pub fn note(&mut self, stamp: Tai64n, from: Endpoint, skew_ms: Option<i64>, now: Now) {
        if self.sign.last.is_none_or(|(_, at)| now.mono.since(at) > APART) {
            (self.sign, self.count, self.since) = (Sign::default(), 0, Some(now.wall));
        }
        self.sign.note(stamp, now);
        self.count = self.count.saturating_add(1);
        (self.last, self.from) = (Some(now.wall), Some(from));
        let off_ms = unix_ms(stamp).saturating_sub(now.wall.as_millis());
        if skew_ms.is_some_and(|skew| off_ms.saturating_sub(skew).saturating_abs() <= OF_NOW_MS) {
            self.of_now = Some(now.mono);
        }
    }

    /// Clears the evidence, because a packet of a new session shows that our responses arrive. The
    /// time of the last dial is kept.
    pub fn proved(&mut self) {
        *self = Unused { dialled: self.dialled, ..Unused::default() };
    }

    pub fn seen(&self) -> Option<UnprovedHandshakes> {
        let (last, since, from) = (self.sign.seen()?, self.since?, self.from?);
        let seen = UnprovedHandshakes { count: self.count, since, last, from: from.remote };
        (self.count >= UNPROVED).then_some(seen)
    }

    /// Returns the time of the last initiation that is known to be made now: by its own stamp, or
    /// by several stamps.
    pub fn heard(&self) -> Option<Mono> {
        let several = self.seen().and(self.sign.seen).map(|now| now.mono);
        several.max(self.of_now)
    }

    /// Returns the source of initiations that cannot use our responses, if the last one is recent.
    pub fn source(&self, now: Mono) -> Option<Endpoint> {
        self.seen()?;
        let lately = self.sign.last.is_some_and(|(_, at)| now.since(at) <= APART);
        self.from.filter(|_| lately)
    }

    /// Returns whether to dial `source` now, and remembers it.
    pub fn may_dial(&mut self, source: SocketAddr, now: Mono) -> bool {
        let too_soon = self.dialled.is_some_and(|(before, at)| {
            let gap = if before == source { DIAL_SAME_SOURCE } else { DIAL_OTHER_SOURCE };
            now.since(at) < gap
        });
        if !too_soon {
            self.dialled = Some((source, now));
        }
        !too_soon
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sign {
    /// The last initiation: its stamp in ms, and its arrival.
    last: Option<(i64, Mono)>,
    seen: Option<Now>,
}

impl Sign {
    /// Records an authentic initiation that was refused or led to nothing. Returns whether its
    /// stamp advances from the last one.
    pub fn note(&mut self, stamp: Tai64n, now: Now) -> bool {
        let made = unix_ms(stamp);
        let made_now = self.last.is_some_and(|(last, at)| goes_on(made, last, now.mono.since(at)));
        if made_now {
            self.seen = Some(now);
        }
        // A repetition of the same stamp is no evidence for or against.
        if self.last.is_none_or(|(last, _)| last != made) {
            self.last = Some((made, now.mono));
        }
        made_now
    }

    fn mind_step(&mut self, step: ClockStep) {
        self.seen = self.seen.map(|now| Now { wall: step.rebase(now.wall), ..now });
    }

    /// Returns when the last evidence was found.
    pub fn seen(&self) -> Option<Wall> {
        self.seen.map(|now| now.wall)
    }
}

fn goes_on(made: i64, last: i64, apart: Duration) -> bool {
    let apart_ms = i64::try_from(apart.as_millis()).unwrap_or(i64::MAX);
    let stamps_ms = made.saturating_sub(last);
    let jitter_ms = i64::try_from(JITTER.as_millis()).unwrap_or(i64::MAX);
    stamps_ms > 0 && apart <= APART && stamps_ms.saturating_sub(apart_ms).abs() <= jitter_ms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::handshake::tai64n::from_unix_ms;

    fn now(seconds: i64) -> Now {
        Now { mono: Mono::from_secs(seconds.cast_unsigned()), wall: Wall::from_millis(seconds * 1_000) }
    }

    /// Records initiations given as (arrival in s, stamp in s); returns the time of the last
    /// evidence.
    fn seen(initiations: &[(i64, i64)]) -> Option<i64> {
        let mut sign = Sign::default();
        for (came, made) in initiations {
            sign.note(from_unix_ms(made * 1_000), now(*came));
        }
        sign.seen().map(|at| at.as_millis() / 1_000)
    }

    #[test]
    fn stamps_that_go_on_as_time_does_are_a_sign_whatever_they_show() {
        assert_eq!(seen(&[(100, -900), (105, -895)]), Some(105));
        assert_eq!(seen(&[(100, 7), (105, 14), (125, 32)]), Some(125), "slow links");
        assert_eq!(seen(&[(100, 7)]), None, "one says nothing");
    }

    #[test]
    fn replayed_initiations_are_no_sign_of_failed_handshakes() {
        assert_eq!(seen(&[(100, 7), (103, 7), (280, 7), (460, 7)]), None, "one stamp");
        assert_eq!(seen(&[(100, 7), (180, 12)]), None, "two of an earlier day, at another pace");
        assert_eq!(seen(&[(100, 12), (105, 7)]), None, "backwards");
        assert_eq!(seen(&[(100, 7), (400, 307)]), None, "too long ago to be of now");
    }

    /// Records answered initiations given as (arrival in s, stamp in s), from one address.
    fn unused(initiations: &[(i64, i64)]) -> Unused {
        let mut unused = Unused::default();
        for (came, made) in initiations {
            unused.note(from_unix_ms(made * 1_000), place(1), None, now(*came));
        }
        unused
    }

    fn source(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    fn place(port: u16) -> Endpoint {
        Endpoint { remote: source(port), local: None }
    }

    #[test]
    fn the_third_response_without_a_session_is_a_sign_and_a_session_ends_it() {
        assert_eq!(unused(&[(100, 100), (105, 105)]).seen(), None, "one answer may be lost");
        let mut three = unused(&[(100, 100), (105, 105), (110, 110)]);
        let seen = three.seen().expect("a sign");
        assert_eq!(three.heard(), Some(Mono::from_secs(110)));
        let seconds = |wall: Wall| wall.as_millis() / 1_000;
        assert_eq!((seen.count, seconds(seen.since), seconds(seen.last)), (3, 100, 110));
        assert_eq!(three.source(Mono::from_secs(110)), Some(place(1)));
        assert_eq!(three.source(Mono::from_secs(291)), None, "long ago");
        three.proved();
        assert_eq!((three.seen(), three.heard(), three.last), (None, None, None));
    }

    #[test]
    fn a_single_response_without_a_session_is_reported() {
        let signs = Signs { unproved: unused(&[(100, 100)]), ..Signs::default() };
        let Attempts { unproved, pending, .. } = signs.attempts();
        assert_eq!((unproved, pending), (None, Some(Wall::from_millis(100_000))));
    }

    #[test]
    fn an_initiation_with_a_current_timestamp_proves_the_device_up() {
        let heard = |made: i64, skew_ms| {
            let mut unused = Unused::default();
            unused.note(from_unix_ms(made * 1_000), place(1), skew_ms, now(100));
            unused.heard().is_some()
        };
        assert!(heard(98, Some(0)) && heard(40, Some(-60_000)));
        assert!(!heard(90, Some(0)), "kept back by somebody");
        assert!(!heard(100, None), "its clock is not known");
    }

    #[test]
    fn responses_without_a_session_that_are_far_apart_are_counted_anew() {
        assert_eq!(unused(&[(100, 100), (105, 105), (400, 400), (405, 405)]).seen(), None);
    }

    #[test]
    fn captured_initiations_at_another_pace_are_no_sign() {
        let captured = unused(&[(100, 7), (101, 12), (102, 17), (103, 22)]);
        assert_eq!((captured.seen(), captured.heard()), (None, None));
        let replayed = unused(&[(100, 100), (105, 105), (110, 110), (140, 110), (170, 105)]);
        assert_eq!(replayed.heard(), Some(Mono::from_secs(110)), "what is sent again proves nothing");
    }

    #[test]
    fn a_source_is_dialled_once_in_five_minutes_and_two_sources_once_a_minute() {
        let mut unused = Unused::default();
        let mut may = |port, s| unused.may_dial(source(port), Mono::from_secs(s));
        assert!(may(1, 100) && !may(1, 399) && may(1, 400));
        assert!(!may(2, 459) && may(2, 460));
        assert!(!may(1, 519) && may(1, 520), "back at the first");
    }

    #[test]
    fn a_clock_that_jumps_again_is_seen_by_the_next_two_attempts() {
        assert_eq!(seen(&[(100, 100), (105, 5), (110, 10)]), Some(110));
    }
}

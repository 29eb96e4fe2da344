//! The windows of grants, and how far the clocks are trusted.
//!
//! An end may come early but never late: a window is open only while the wall clock lies in `[from,
//! until)` and the boot-time clock is before the end that was computed when the grant was loaded.
//! After a step of the wall clock this holds at once, but for [`DOUBT`] no window newly opens and no
//! end becomes final. When the doubt ends, ends on the boot-time clock move earlier if the clock that
//! is believed then says so. While the clock is behind the greatest time of earlier runs, no window is
//! open.
//!
//! The end of a grant that was loaded during the doubt is provisional: it is computed anew when the
//! doubt ends. A clock is proved when it has run evenly for [`DOUBT`] since the start. A step before
//! that makes every end provisional, as if the gateway had started after the step: a clock that was
//! wrong at the start is corrected soon after it. A clock that is behind a time that was proved
//! computes nothing: the earlier of both ends counts, and a grant that it ends waits for an admin.

use std::time::Duration;

use crate::time::{ClockStep, Mono, Now, Wall};

/// How long a stepped clock is doubted. NTP corrects a wrong step within that time.
pub const DOUBT: Duration = Duration::from_secs(300);

/// The beginning of a window without one.
const SINCE_EVER: Wall = Wall::from_millis(i64::MIN);
/// The end of a window without one.
const FOREVER: Wall = Wall::from_millis(i64::MAX);
const NEVER: Mono = Mono::from_nanos(u64::MAX);

/// The window of a loaded grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from: Option<Wall>,
    pub until: Option<Wall>,
    /// The end on the boot-time clock.
    pub end: Mono,
    /// The end was computed by a clock that was doubted.
    pub provisional: bool,
}

impl Window {
    /// Whether the window depends on the clock.
    pub fn is_timed(&self) -> bool {
        self.from.is_some() || self.until.is_some()
    }
}

/// The time in which a decision holds, as a flow caches it. Without a limit a bound is the end of
/// its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Wall,
    pub until: Wall,
    pub end: Mono,
}

impl Span {
    /// Returns the time in which both hold.
    pub fn and(self, other: Span) -> Span {
        Span {
            from: self.from.max(other.from),
            until: self.until.min(other.until),
            end: self.end.min(other.end),
        }
    }

    pub fn contains(&self, now: Now) -> bool {
        self.from <= now.wall && now.wall < self.until && now.mono < self.end
    }
}

impl Default for Span {
    fn default() -> Self {
        Span { from: SINCE_EVER, until: FOREVER, end: NEVER }
    }
}

/// Why a window is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shut {
    Over,
    NotYet,
    /// The device of the rental is not handed over.
    Delayed,
    /// The device of the rental is blocked.
    Blocked,
    /// The clock was set, and may be wrong.
    Doubted,
    /// The clock is behind a time that it has shown before.
    Behind,
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// Both clocks at the step, with the wall clock as it would be without the step.
    trusted: Now,
    until: Mono,
    /// The clock was not proved before the step.
    unproved: bool,
}

/// How far the wall clock is trusted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trust {
    /// The greatest time of earlier runs.
    floor: Option<Wall>,
    /// The greatest time that a proved clock showed when it was set.
    shown: Option<Wall>,
    /// When the clock that was there at the start is proved. `None`: an admin has accepted it.
    proved_at: Option<Mono>,
    doubt: Option<Doubt>,
    /// Some times may be provisional although no clock is doubted, because the clock is behind.
    waits: bool,
}

/// The times that are computed anew by the clock that is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    All,
    /// Those that are provisional.
    Provisional,
}

impl Moves {
    pub fn includes(self, time: &Window) -> bool {
        time.until.is_some() && (self == Moves::All || time.provisional)
    }
}

impl Trust {
    /// Notes the first reading of the clocks.
    pub fn start(&mut self, now: Mono) {
        self.proved_at = Some(now + DOUBT);
    }

    pub fn set_floor(&mut self, floor: Wall) {
        self.floor = self.floor.max(Some(floor));
    }

    /// The clock is right by the word of an admin.
    pub fn accept(&mut self) {
        *self = Trust::default();
    }

    /// Notes a step. A further step within the doubt extends it; what was trusted before the first
    /// one stays. Returns whether every end is provisional now.
    pub fn step(&mut self, step: ClockStep, now: Now) -> bool {
        let doubt = match self.doubt_at(now.mono) {
            Some(doubt) => Doubt { until: now.mono + DOUBT, ..*doubt },
            None => self.first_doubt(before(step, now)),
        };
        self.doubt = Some(doubt);
        doubt.unproved
    }

    /// `trusted`: both clocks as they would be without the step.
    fn first_doubt(&mut self, trusted: Now) -> Doubt {
        let unproved = self.proved_at.is_some_and(|at| trusted.mono < at);
        if !unproved {
            self.shown = self.shown.max(Some(trusted.wall));
        }
        Doubt { trusted, until: trusted.mono + DOUBT, unproved }
    }

    fn doubt_at(&self, now: Mono) -> Option<&Doubt> {
        self.doubt.as_ref().filter(|doubt| now < doubt.until)
    }

    /// Returns the time that the clock showed before the step, while it is doubted.
    pub fn before_doubt(&self, now: Mono) -> Option<Wall> {
        self.doubt_at(now).map(|doubt| doubt.trusted.wall)
    }

    /// Ends the doubt when its time has come. Returns the times that move by the clock that is believed then. A gateway
    /// that started with its clock behind has computed them far too late.
    pub fn settle(&mut self, now: Now) -> Option<Moves> {
        let ended = self.doubt.take_if(|doubt| doubt.until <= now.mono).is_some();
        // A clock that was behind has passed the time that it had shown.
        let passed = self.waits && self.is_believed(now);
        if !ended && !passed {
            return None;
        }
        self.waits = !self.is_believed(now);
        Some(if ended { Moves::All } else { Moves::Provisional })
    }

    /// Returns the end of the present doubt.
    pub fn doubted_until(&self) -> Option<Mono> {
        self.doubt.map(|doubt| doubt.until)
    }

    /// Returns when times may move by the clock that is believed then, as the clocks run now.
    pub fn settles_at(&self, now: Now) -> Option<Mono> {
        let shown = self.floor.max(self.shown).filter(|_| self.waits);
        self.doubted_until().or_else(|| shown.map(|shown| now.mono + shown.since(now.wall)))
    }

    /// Whether the clock is behind the greatest time of earlier runs.
    pub fn is_behind(&self, now: Wall) -> bool {
        self.floor.is_some_and(|floor| now < floor)
    }

    /// Whether the clock is behind a time that it has shown in any run.
    pub fn is_behind_proved(&self, now: Wall) -> bool {
        self.is_behind(now) || self.shown.is_some_and(|shown| now < shown)
    }

    /// Whether ends are computed by the clock: it is neither doubted nor behind.
    pub fn is_believed(&self, now: Now) -> bool {
        self.doubt_at(now.mono).is_none() && !self.is_behind_proved(now.wall)
    }

    /// Returns the window of a grant that is loaded now. While the clock is doubted, the earlier of
    /// both possible ends counts.
    pub fn load(&self, from: Option<Wall>, until: Option<Wall>, now: Now) -> Window {
        let end = until.map_or(NEVER, |until| now.mono + until.since(self.latest(now)));
        Window { from, until, end, provisional: self.doubt_at(now.mono).is_some() }
    }

    /// Returns the window as the clock that is believed now says: a provisional end is computed anew,
    /// and any other one only moves earlier.
    pub fn believe(&self, window: Window, now: Now) -> Window {
        let fresh = self.load(window.from, window.until, now);
        match window.provisional && !self.is_behind_proved(now.wall) {
            true => fresh,
            false => Window { end: fresh.end.min(window.end), ..window },
        }
    }

    /// Whether the provisional end of a window is not to be believed, so that it ends nothing: the
    /// clock is behind, and says that the window is open.
    pub fn is_unsure(&self, window: &Window, now: Wall) -> bool {
        let runs = window.until.is_some_and(|until| now < until);
        window.provisional && runs && self.is_behind_proved(now)
    }

    /// Returns the later of the time that the clock shows and, while it is doubted, the time that
    /// it would show without the step.
    fn latest(&self, now: Now) -> Wall {
        let trusted = self.doubt_at(now.mono).map(|doubt| doubt.trusted);
        trusted.map_or(now.wall, |at| now.wall.max(at.wall + now.mono.since(at.mono)))
    }

    /// Returns the time in which the window is open, if that contains `now`.
    ///
    /// # Errors
    /// Fails with the reason for which the window is not open.
    pub fn open(&self, window: &Window, now: Now) -> Result<Span, Shut> {
        if !window.is_timed() {
            return Ok(Span::default());
        }
        let (span, doubt) = (self.span(window), self.doubt_at(now.mono));
        let was_open = doubt.is_none_or(|doubt| window.from.is_none_or(|from| from <= doubt.trusted.wall));
        // While the clock is doubted, a window that was open waits.
        let shut = |shut| Err(if doubt.is_some() && was_open { Shut::Doubted } else { shut });
        if now.mono >= span.end || now.wall >= span.until {
            return shut(if self.is_unsure(window, now.wall) { Shut::Behind } else { Shut::Over });
        }
        if window.from.is_some_and(|from| now.wall < from) {
            return shut(Shut::NotYet);
        }
        if !was_open {
            return Err(Shut::Doubted);
        }
        if self.is_behind(now.wall) {
            return Err(Shut::Behind);
        }
        Ok(span)
    }

    fn span(&self, window: &Window) -> Span {
        let from = window.from.unwrap_or(SINCE_EVER).max(self.floor.unwrap_or(SINCE_EVER));
        Span { from, until: window.until.unwrap_or(FOREVER), end: window.end }
    }

    /// Returns whether the end of the window has come and is final.
    pub fn is_final(&self, window: &Window, now: Now) -> bool {
        let reached = now.mono >= window.end || window.until.is_some_and(|until| until <= now.wall);
        reached && self.doubt_at(now.mono).is_none() && !self.is_unsure(window, now.wall)
    }
}

/// Returns both clocks as they would be without the step.
pub fn before(step: ClockStep, now: Now) -> Now {
    let wall = now.wall.as_millis().saturating_sub(step.ahead_ms());
    Now { mono: now.mono, wall: Wall::from_millis(wall) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_s: u64, wall_s: i64) -> Now {
        Now { mono: Mono::from_secs(mono_s), wall: wall(wall_s) }
    }

    fn wall(s: i64) -> Wall {
        Wall::from_millis(s * 1_000)
    }

    /// The clock goes on from `before` for a second and then shows `wall_s`.
    fn stepped(trust: &mut Trust, before: Now, wall_s: i64) -> Now {
        let now = Now { mono: before.mono + Duration::from_secs(1), wall: wall(wall_s) };
        trust.step(ClockStep::between(before, now).expect("a step"), now);
        now
    }

    fn later(now: Now, s: u64) -> Now {
        let d = Duration::from_secs(s);
        Now { mono: now.mono + d, wall: now.wall + d }
    }

    #[test]
    fn a_window_contains_its_beginning_and_not_its_end() {
        let trust = Trust::default();
        let window = trust.load(Some(wall(100)), Some(wall(200)), at(10, 50));
        assert_eq!(trust.open(&window, at(59, 99)), Err(Shut::NotYet));
        assert!(trust.open(&window, at(60, 100)).is_ok());
        assert!(trust.open(&window, at(159, 199)).is_ok());
        assert_eq!(trust.open(&window, at(160, 200)), Err(Shut::Over));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_move_the_end() {
        let mut trust = Trust::default();
        let start = at(10, 50);
        let window = trust.load(None, Some(wall(200)), start);
        let back = stepped(&mut trust, at(100, 140), 20);
        assert!(trust.open(&window, back).is_ok(), "it was open before");
        assert!(trust.open(&window, at(159, 78)).is_ok());
        assert_eq!(trust.open(&window, at(160, 79)), Err(Shut::Doubted), "150 s after it was loaded");
        assert_eq!(trust.open(&window, at(401, 320)), Err(Shut::Over));
    }

    #[test]
    fn a_clock_that_jumps_ahead_closes_at_once_but_not_for_good() {
        let mut trust = Trust::default();
        let start = at(10, 50);
        let window = trust.load(None, Some(wall(200)), start);
        let ahead = stepped(&mut trust, start, 5_000);
        assert_eq!(trust.open(&window, ahead), Err(Shut::Doubted));
        assert!(!trust.is_final(&window, ahead));
        let corrected = stepped(&mut trust, ahead, 52);
        assert!(trust.open(&window, corrected).is_ok());
        let mut wrong = Trust::default();
        let ahead = stepped(&mut wrong, start, 5_000);
        assert!(!wrong.is_final(&window, later(ahead, 299)));
        assert!(wrong.is_final(&window, later(ahead, 300)), "the clock is believed");
    }

    #[test]
    fn a_stepped_clock_opens_nothing_new_for_five_minutes() {
        let mut trust = Trust::default();
        let start = at(10, 50);
        let window = trust.load(Some(wall(1_000)), None, start);
        let ahead = stepped(&mut trust, start, 2_000);
        assert_eq!(trust.open(&window, ahead), Err(Shut::Doubted));
        assert_eq!(trust.open(&window, later(ahead, 299)), Err(Shut::Doubted));
        assert!(trust.open(&window, later(ahead, 300)).is_ok());
    }

    #[test]
    fn a_grant_loaded_during_doubt_has_the_earlier_end() {
        let mut trust = Trust::default();
        let back = stepped(&mut trust, at(1_000, 10_000), 6_000);
        let window = trust.load(None, Some(wall(10_101)), back);
        assert_eq!(window.end, back.mono + Duration::from_secs(100));
    }

    #[test]
    fn behind_the_floor_no_window_is_open_and_grants_without_one_are() {
        let mut trust = Trust::default();
        trust.set_floor(wall(1_000));
        let timed = trust.load(Some(wall(0)), Some(wall(5_000)), at(1, 400));
        let untimed = trust.load(None, None, at(1, 400));
        assert_eq!(trust.open(&timed, at(2, 401)), Err(Shut::Behind));
        assert!(trust.open(&untimed, at(2, 401)).is_ok());
        assert!(trust.open(&timed, at(601, 1_000)).is_ok(), "the clock passes the floor");
        trust.accept();
        assert!(trust.open(&timed, at(2, 401)).is_ok());
    }
}

//! The times in which the devices of rentals are blocked, by both clocks.
//!
//! A block begins as a window ends: by either clock, so that no step of the wall clock delays it. It ends by the clock
//! that is shown. The packet filter decides by [`free`]. The handover of devices and the access of renters to devices
//! decide by [`KnownTimes`], which does so too.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use super::window::{self, Span, Trust, Window};
use crate::id::{GrantId, RentalId};
use crate::time::{ClockStep, Mono, Now, Wall};

/// A block of a device: `[from, until)`.
pub type Block = (Wall, Wall);

/// What is known of a rental is kept this long after its end: a clock that was ahead may be set back.
const KEPT: Duration = Duration::from_secs(86_400);

/// Returns when blocks begin, in their order. One of the `known` stays where it was on the boot-time clock.
pub fn begins(trust: &Trust, blocks: &[Block], known: &[Window], now: Now) -> Vec<Window> {
    let begin = |from: Wall| {
        let same = known.iter().find(|begin| begin.until == Some(from));
        same.copied().unwrap_or_else(|| trust.load(None, Some(from), now))
    };
    blocks.iter().map(|(from, _)| begin(*from)).collect()
}

/// Whether a block that had begun goes on because the clock is doubted.
pub fn goes_on(trust: &Trust, blocks: &[Block], now: Mono) -> bool {
    let contains = |at: Wall| blocks.iter().any(|(from, until)| (*from..*until).contains(&at));
    trust.before_doubt(now).is_some_and(contains)
}

/// Whether a block holds by one of the clocks. `begin`: its own.
fn holds((from, until): Block, begin: &Window, now: Now) -> bool {
    now.wall < until && (from <= now.wall || begin.end <= now.mono)
}

/// Returns the time around `now` in which a device is not blocked. `None`: it is. `begins`: of the blocks.
pub fn free(trust: &Trust, blocks: &[Block], begins: &[Window], now: Now) -> Option<Span> {
    if goes_on(trust, blocks, now.mono) {
        return None;
    }
    let mut each = blocks.iter().zip(begins);
    each.try_fold(Span::default(), |span, (&(from, until), begin)| match () {
        () if holds((from, until), begin, now) => None,
        () if until <= now.wall => Some(Span { from: span.from.max(until), ..span }),
        () => Some(Span { until: span.until.min(from), end: span.end.min(begin.end), ..span }),
    })
}

/// Returns when the blocks are over that hold now, as the clocks run now. With none it is now.
fn free_from(trust: &Trust, blocks: &[Block], begins: &[Window], now: Now) -> Mono {
    let holding = blocks.iter().zip(begins).filter(|(block, begin)| holds(**block, begin, now));
    let by_wall = holding.map(|((_, until), _)| now.mono + until.since(now.wall));
    let doubted = trust.doubted_until().filter(|_| goes_on(trust, blocks, now.mono));
    by_wall.chain(doubted).fold(now.mono, Ord::max)
}

/// The ends of rentals and the begins of their blocks by both clocks, for a part that decides about renters beside the
/// packet filter. That part says how the clocks go before it asks, and passes on what the filter hears of rentals.
#[derive(Clone, Debug, Default)]
pub struct KnownTimes {
    trust: Trust,
    rentals: BTreeMap<RentalId, RentalWindows>,
    /// The clocks at the last look.
    looked: Option<Now>,
}

#[derive(Clone, Debug)]
struct RentalWindows {
    /// `None`: the rental has no end.
    end: Option<Window>,
    begins: Vec<Window>,
}

impl KnownTimes {
    /// Notes the progress of the clocks. Returns whether blocks may begin at other times since then. A reading from before
    /// the last look is none: it would look as if the clock had been set.
    pub fn look(&mut self, now: Now) -> bool {
        if self.looked.is_some_and(|looked| now.mono < looked.mono) {
            return false;
        }
        let Some(before) = self.looked.replace(now) else {
            self.trust.start(now.mono);
            return false;
        };
        let Some(step) = ClockStep::between(before, now) else { return self.settle(now) };
        // A doubt whose time has come ends by the clock that this step leaves.
        let settled = self.settle(window::before(step, now));
        if self.trust.step(step, now) {
            self.times().for_each(|time| time.provisional = true);
        }
        settled
    }

    fn settle(&mut self, now: Now) -> bool {
        let Some(moves) = self.trust.settle(now) else { return false };
        let trust = self.trust;
        let moving = self.times().filter(|time| moves.includes(time));
        moving.for_each(|time| *time = trust.believe(*time, now));
        true
    }

    fn times(&mut self) -> impl Iterator<Item = &mut Window> {
        self.rentals.values_mut().flat_map(|known| known.end.iter_mut().chain(&mut known.begins))
    }

    /// Notes the end of a rental and the blocks within it. A time that is known stays where it was on the boot-time clock.
    pub fn put(&mut self, rental: RentalId, until: Option<Wall>, blocks: &[Block], now: Now) {
        let known = self.rentals.get(&rental).and_then(|known| known.end).filter(|end| end.until == until);
        let end = known.or_else(|| until.map(|until| self.trust.load(None, Some(until), now)));
        let begins = self.begins_of(rental, blocks, now);
        self.rentals.insert(rental, RentalWindows { end, begins });
    }

    pub fn forget(&mut self, rental: RentalId) {
        self.rentals.remove(&rental);
    }

    /// Forgets the rentals that are over for long by a clock that is believed.
    pub fn forget_over(&mut self, now: Now) {
        if !self.trust.is_believed(now) {
            return;
        }
        let until = |known: &RentalWindows| known.end.and_then(|end| end.until);
        self.rentals.retain(|_, known| until(known).is_none_or(|until| now.wall < until + KEPT));
    }

    /// Notes the greatest time that the clock has shown in earlier runs.
    pub fn set_floor(&mut self, floor: Wall) {
        self.trust.set_floor(floor);
    }

    /// The clock is right by the word of an admin.
    pub fn accept_clock(&mut self, now: Now) {
        self.trust.accept();
        let trust = self.trust;
        self.times().for_each(|time| *time = trust.load(None, time.until, now));
    }

    /// Returns when times may move, because the clock is believed then.
    pub fn due(&self) -> Option<Mono> {
        self.trust.settles_at(self.looked?).filter(|_| !self.rentals.is_empty())
    }

    /// Whether a rental with this end is over by one of the clocks.
    pub fn is_over(&self, rental: RentalId, until: Wall, now: Now) -> bool {
        let end =
            self.rentals.get(&rental).and_then(|known| known.end).filter(|end| end.until == Some(until));
        until <= now.wall || end.is_some_and(|end| end.end <= now.mono)
    }

    /// Returns when the device of a rental with these blocks is free, as the clocks run now. If it is, that is now.
    pub fn free_from(&self, rental: RentalId, blocks: &[Block], now: Now) -> Mono {
        free_from(&self.trust, blocks, &self.begins_of(rental, blocks, now), now)
    }

    /// Whether the device of a rental with these blocks is blocked.
    pub fn is_blocked(&self, rental: RentalId, blocks: &[Block], now: Now) -> bool {
        free(&self.trust, blocks, &self.begins_of(rental, blocks, now), now).is_none()
    }

    fn begins_of(&self, rental: RentalId, blocks: &[Block], now: Now) -> Vec<Window> {
        let known = self.rentals.get(&rental).map(|known| known.begins.as_slice()).unwrap_or_default();
        begins(&self.trust, blocks, known, now)
    }
}

/// The moments at which blocks begin, on both clocks. The flows of the grant are looked at then.
#[derive(Default)]
pub struct BlockBegins {
    by_wall: InOrder<Wall>,
    by_boot: InOrder<Mono>,
}

impl BlockBegins {
    pub fn add(&mut self, id: GrantId, begins: &[Window]) {
        self.by_wall.all.extend(begins.iter().filter_map(|begin| begin.until).map(|from| (from, id)));
        self.by_boot.all.extend(begins.iter().map(|begin| (begin.end, id)));
    }

    pub fn remove(&mut self, id: GrantId, begins: &[Window]) {
        for begin in begins {
            self.by_boot.all.remove(&(begin.end, id));
            if let Some(from) = begin.until {
                self.by_wall.all.remove(&(from, id));
            }
        }
    }

    /// Each of them may come again, because the clock was set.
    pub fn rewind(&mut self) {
        self.by_wall.taken = None;
        self.by_boot.taken = None;
    }

    /// Takes the next one that has come.
    pub fn take(&mut self, now: Now) -> Option<GrantId> {
        self.by_wall.take(now.wall).or_else(|| self.by_boot.take(now.mono))
    }

    /// Returns when the next one comes, as the clocks run now.
    pub fn next(&self, now: Now) -> Option<Mono> {
        let by_wall = self.by_wall.next().map(|at| now.mono + at.since(now.wall));
        [by_wall, self.by_boot.next()].into_iter().flatten().min()
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.by_wall.all.is_empty() && self.by_boot.all.is_empty()
    }
}

/// The moments on one clock.
#[derive(Default)]
struct InOrder<T> {
    all: BTreeSet<(T, GrantId)>,
    /// The last one that was taken.
    taken: Option<(T, GrantId)>,
}

impl<T: Copy + Ord> InOrder<T> {
    fn take(&mut self, now: T) -> Option<GrantId> {
        let next = self.first().filter(|(at, _)| *at <= now)?;
        self.taken = Some(next);
        Some(next.1)
    }

    fn next(&self) -> Option<T> {
        self.first().map(|(at, _)| at)
    }

    fn first(&self) -> Option<(T, GrantId)> {
        let after = self.taken.map_or(Unbounded, Excluded);
        self.all.range((after, Unbounded)).next().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    fn clocks(mono: u64, wall: i64) -> Now {
        Now { mono: Mono::from_secs(mono), wall: at(wall) }
    }

    #[test]
    fn a_begin_that_is_known_stays_where_it_was_on_the_boot_time_clock() {
        let trust = Trust::default();
        let known = begins(&trust, &[(at(10), at(20))], &[], clocks(0, 0));
        let longer = begins(&trust, &[(at(10), at(90)), (at(60), at(70))], &known, clocks(9, 3));
        let ends: Vec<Mono> = longer.iter().map(|begin| begin.end).collect();
        assert_eq!(ends, [Mono::from_secs(10), Mono::from_secs(66)]);
    }

    #[test]
    fn a_device_is_free_when_every_block_that_holds_is_over() {
        let trust = Trust::default();
        let blocks = [(at(10), at(20)), (at(15), at(40)), (at(60), at(70))];
        let begins = begins(&trust, &blocks, &[], clocks(0, 0));
        let of = |now| free_from(&trust, &blocks, &begins, now).since(Mono::ZERO).as_secs();
        assert_eq!(
            [(9, 9), (10, 10), (16, 16), (39, 39), (40, 40)].map(|(m, w)| of(clocks(m, w))),
            [9, 20, 40, 40, 40]
        );
        assert_eq!(
            of(clocks(15, 5)),
            50,
            "both have begun by the boot-time clock, and last until the clock shows 40"
        );
        let open = [(at(0), Wall::from_millis(i64::MAX))];
        let begins = super::begins(&trust, &open, &[], clocks(0, 0));
        let never = free_from(&trust, &open, &begins, clocks(9, 9));
        assert!(never.since(Mono::ZERO) > Duration::from_secs(1_000_000_000), "{never:?}");
    }

    #[test]
    fn what_is_known_of_a_rental_is_forgotten_a_day_after_its_end() {
        let (rental, open_ended, blocks) = (Id::from_i64(1), Id::from_i64(2), [(at(10), at(20))]);
        let mut known = KnownTimes::default();
        known.look(clocks(0, 0));
        known.put(rental, Some(at(100)), &blocks, clocks(0, 0));
        known.put(open_ended, None, &blocks, clocks(0, 0));
        known.forget_over(clocks(86_499, 100 + 86_399));
        assert_eq!(known.rentals.len(), 2);
        known.forget_over(clocks(86_500, 100 + 86_400));
        assert!(known.rentals.keys().eq([&open_ended]));
    }

    #[test]
    fn a_clock_that_is_doubted_forgets_no_rental() {
        let (rental, until) = (Id::from_i64(1), at(1_000));
        let mut known = KnownTimes::default();
        known.look(clocks(0, 0));
        known.put(rental, Some(until), &[], clocks(0, 0));
        known.look(clocks(600, 600));
        known.look(clocks(601, 200_000));
        known.forget_over(clocks(601, 200_000));
        known.look(clocks(610, 100));
        assert!(known.is_over(rental, until, clocks(1_000, 490)));
    }

    #[test]
    fn a_reading_from_before_the_last_look_is_no_step_of_the_clock() {
        let (rental, block) = (Id::from_i64(1), (at(1_100), at(2_000)));
        let mut known = KnownTimes::default();
        known.look(clocks(0, 0));
        known.put(rental, Some(at(9_000)), &[block], clocks(0, 0));
        known.look(clocks(1_205, 1_205));
        known.look(clocks(1_200, 1_200));
        known.look(clocks(1_206, 1_206));
        let ended = [(block.0, at(1_207))];
        known.put(rental, Some(at(9_000)), &ended, clocks(1_207, 1_207));
        assert!(!known.is_blocked(rental, &ended, clocks(1_207, 1_207)), "no clock is doubted");
        assert_eq!(known.due(), None);
    }

    #[test]
    fn a_rental_is_over_by_either_clock_until_an_admin_accepts_the_one_that_is_shown() {
        let (rental, until) = (Id::from_i64(1), at(1_000));
        let mut known = KnownTimes::default();
        known.look(clocks(0, 0));
        known.put(rental, Some(until), &[], clocks(0, 0));
        known.look(clocks(900, 900));
        known.look(clocks(901, 500));
        assert!(!known.is_over(rental, until, clocks(999, 598)));
        assert!(known.is_over(rental, until, clocks(1_000, 599)), "the clock was set back");
        known.put(rental, Some(until), &[], clocks(1_000, 599));
        assert!(known.is_over(rental, until, clocks(1_000, 599)), "it is sent again");
        assert!(!known.is_over(rental, at(1_100), clocks(1_000, 599)), "it is longer now");
        known.accept_clock(clocks(1_001, 600));
        assert!(!known.is_over(rental, until, clocks(1_400, 999)));
        assert!(known.is_over(rental, until, clocks(1_401, 1_000)));
    }

    #[test]
    fn each_begin_is_taken_once_of_each_clock_until_the_wall_clock_is_set() {
        let (one, other) = (Id::from_i64(1), Id::from_i64(2));
        let begin = |from: i64, end| Window {
            from: None,
            until: Some(at(from)),
            end: Mono::from_secs(end),
            provisional: false,
        };
        let mut begins = BlockBegins::default();
        begins.add(other, &[begin(10, 500)]);
        begins.add(one, &[begin(10, 100), begin(30, 500)]);
        let shown = |mono, wall| Now { mono: Mono::from_secs(mono), wall: at(wall) };
        assert_eq!((begins.take(shown(9, 9)), begins.next(shown(9, 9))), (None, Some(Mono::from_secs(10))));
        assert_eq!([(); 3].map(|()| begins.take(shown(10, 10))), [Some(one), Some(other), None]);
        assert_eq!(begins.next(shown(10, 10)), Some(Mono::from_secs(30)));
        begins.rewind();
        assert_eq!(begins.next(shown(99, 0)), Some(Mono::from_secs(100)), "the clock was set back");
        assert_eq!([(); 2].map(|()| begins.take(shown(100, 1))), [Some(one), None]);
        begins.remove(one, &[begin(10, 100), begin(30, 500)]);
        assert_eq!([(); 2].map(|()| begins.take(shown(130, 31))), [Some(other), None]);
        assert_eq!([(); 2].map(|()| begins.take(shown(500, 401))), [Some(other), None]);
        assert_eq!(begins.next(shown(500, 401)), None);
        begins.remove(other, &[begin(10, 500)]);
        assert!(begins.is_empty());
    }
}

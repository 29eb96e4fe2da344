//! Random sequences of bookings, holds, extensions, swaps, ends and blocks beside a naive model with
//! one cell for each minute of each device.

mod shipped;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::life::{Delivery, EndReason, Ending, Handover, Life, State};
use super::occupancy::{self, Margins, Occupancy, Window};
use crate::time::Wall;

const DEVICES: usize = 2;
const MINUTES: i64 = 240;

fn at(minute: i64) -> Wall {
    Wall::from_millis(minute * 60_000)
}

fn minutes(count: i64) -> Duration {
    Duration::from_secs(count.unsigned_abs() * 60)
}

fn window(from: i64, until: i64) -> Window {
    Window::new(at(from), at(until)).expect("a window")
}

/// A rental whose device is prepared for ten minutes.
fn life() -> Life {
    Life {
        window: window(60, 120),
        prepared_from: at(50),
        turnaround: minutes(5),
        hold_until: None,
        handover: Handover::AtBegin,
        ending: None,
        delivery: Delivery::Mounted,
    }
}

fn taken(spans: &[(i64, i64)]) -> Vec<Occupancy> {
    spans.iter().map(|(from, until)| Occupancy { from: at(*from), until: Some(at(*until)) }).collect()
}

const MARGINS: Margins =
    Margins { preparation: Duration::from_secs(600), turnaround: Duration::from_secs(300) };

#[test]
fn a_window_may_begin_where_another_one_ends() {
    let wanted = Occupancy { from: at(10), until: Some(at(20)) };
    for (from, until, conflicts) in
        [(0, 10, false), (20, 30, false), (0, 11, true), (19, 30, true), (12, 13, true)]
    {
        let found = occupancy::conflict(&taken(&[(from, until)]), wanted);
        assert_eq!(found.is_some(), conflicts, "{from}-{until}");
    }
    let open = Occupancy { from: at(5), until: None };
    assert!(open.overlaps(wanted) && wanted.overlaps(open) && open.overlaps(open));
    let empty = Occupancy { from: at(15), until: Some(at(15)) };
    assert!(!empty.overlaps(wanted), "an empty one occupies nothing");
    assert_eq!(Window::new(at(3), at(3)), None);
    assert_eq!(Window::new(at(3), at(2)), None);
}

#[test]
fn preparation_and_turnaround_are_occupied_and_no_preparation_begins_in_the_past() {
    let occupied = MARGINS.around(window(60, 120), at(0));
    assert_eq!(occupied, Occupancy { from: at(50), until: Some(at(125)) });
    assert_eq!(MARGINS.around(window(60, 120), at(55)).from, at(55));
    assert_eq!(MARGINS.around(window(60, 120), at(60)).from, at(60));
}

#[test]
fn free_windows_leave_room_for_preparation_and_turnaround() {
    let taken = taken(&[(100, 130), (60, 90), (85, 95)]);
    let free = occupancy::free(&taken, MARGINS, window(0, 200), at(10));
    assert_eq!(free, [window(10, 55), window(140, 200)]);
    let next =
        |length: i64| occupancy::next_free(&taken, MARGINS, window(20, 20 + length), (at(10), at(1_000)));
    assert_eq!(next(35), Some(window(20, 55)));
    assert_eq!(next(36), Some(window(140, 176)));
    assert_eq!(next(900), None, "beyond the horizon");
    let never = [Occupancy { from: at(30), until: None }];
    assert_eq!(occupancy::free(&never, MARGINS, window(0, 200), at(0)), [window(0, 25)]);
}

#[test]
fn the_latest_end_leaves_the_turnaround_before_what_follows() {
    let present = window(10, 20);
    let latest = |others: &[(i64, i64)]| occupancy::latest_until(&taken(others), present, MARGINS.turnaround);
    assert_eq!(latest(&[]), None);
    assert_eq!(latest(&[(0, 5), (60, 70), (50, 55)]), Some(at(45)));
    assert_eq!(latest(&[(22, 60)]), Some(at(20)), "a block over the rental");
}

#[test]
fn the_state_follows_from_data_and_time() {
    let life = life();
    let states = |life: Life, moments: &[i64]| -> Vec<&'static str> {
        moments.iter().map(|minute| life.state(at(*minute)).name()).collect()
    };
    let all = states(life, &[0, 49, 50, 59, 60, 119, 120, 124, 125]);
    let expected =
        ["booked", "booked", "preparing", "preparing", "active", "active", "cleaning", "cleaning", "closed"];
    assert_eq!(all, expected);
    let ended = |reason, minute| Life { ending: Some(Ending { at: at(minute), reason }), ..life };
    assert_eq!(
        states(ended(EndReason::ReturnedEarly, 90), &[90, 94, 95]),
        ["cleaning", "cleaning", "closed"]
    );
    assert_eq!(states(ended(EndReason::Failed, 90), &[90, 200]), ["failed", "failed"]);
    assert_eq!(states(ended(EndReason::Cancelled, 10), &[10, 200]), ["cancelled", "cancelled"]);
    let held = Life { hold_until: Some(at(70)), ..life };
    assert_eq!(states(held, &[0, 65, 69, 70, 300]), ["held", "held", "held", "cancelled", "cancelled"]);
    let long = Life { hold_until: Some(at(700)), ..life };
    assert_eq!(states(long, &[119, 120]), ["held", "cancelled"], "never longer than its window");
    assert_eq!(ended(EndReason::Ended, 90).occupied_until(at(90)), Some(at(95)));
    assert_eq!(ended(EndReason::Cancelled, 10).occupied_until(at(10)), None);
}

#[test]
fn a_rental_is_delayed_until_its_device_is_handed_over_and_fails_at_its_end() {
    let awaited = Life { handover: Handover::Awaited, ..life() };
    let states = |life: Life| [59, 60, 79, 80, 119, 120, 300].map(|minute| life.state(at(minute)).name());
    let never = ["preparing", "delayed", "delayed", "delayed", "delayed", "failed", "failed"];
    assert_eq!(states(awaited), never);
    let handed_over = |minute| Life { handover: Handover::Done(at(minute)), ..awaited };
    let late = ["preparing", "delayed", "delayed", "active", "active", "cleaning", "closed"];
    assert_eq!(states(handed_over(80)), late);
    let in_time = ["preparing", "active", "active", "active", "active", "cleaning", "closed"];
    assert_eq!(states(handed_over(55)), in_time, "never before the window");
    assert_eq!(states(handed_over(120)), never, "too late");
    let ended = Life { ending: Some(Ending { at: at(70), reason: EndReason::Revoked }), ..awaited };
    assert_eq!([69, 74, 75].map(|minute| ended.state(at(minute)).name()), ["cleaning", "cleaning", "closed"]);

    let at_200 = |life: Life| (life.used(at(200)), life.delay(at(200)));
    assert_eq!(at_200(awaited), (None, minutes(60)));
    assert_eq!(at_200(ended), (None, minutes(10)));
    assert_eq!(at_200(handed_over(80)), (Some(window(80, 120)), minutes(20)));
    assert_eq!(at_200(handed_over(55)), (Some(window(60, 120)), minutes(0)));
    assert_eq!([50, 70].map(|minute| awaited.delay(at(minute))), [minutes(0), minutes(10)]);
    assert_eq!(awaited.access(), Some((at(60), at(120))), "the gate is no part of the window");
}

#[test]
fn a_customer_has_a_device_from_the_begin_to_the_end_and_never_of_what_was_not_confirmed() {
    let life = life();
    assert_eq!([59, 60].map(|minute| life.used(at(minute))), [None, None]);
    assert_eq!([61, 300].map(|minute| life.used(at(minute))), [Some(window(60, 61)), Some(window(60, 120))]);
    let ended = |reason, minute| Life { ending: Some(Ending { at: at(minute), reason }), ..life };
    assert_eq!(ended(EndReason::Failed, 90).used(at(300)), Some(window(60, 90)));
    assert_eq!(ended(EndReason::Cancelled, 10).used(at(300)), None);
    let held = Life { hold_until: Some(at(110)), ..life };
    assert_eq!([100, 300].map(|minute| held.used(at(minute))), [None, None]);
}

#[test]
fn each_device_was_in_use_until_the_next_one_took_its_place() {
    let used = window(60, 120);
    assert_eq!(occupancy::in_use(&[('a', at(50))], used), [('a', used)]);
    let swapped = [('a', at(50)), ('b', at(80)), ('a', at(90))];
    let parts = [('a', window(60, 80)), ('b', window(80, 90)), ('a', window(90, 120))];
    assert_eq!(occupancy::in_use(&swapped, used), parts);
    let at_once = [('a', at(50)), ('b', at(60)), ('c', at(120))];
    assert_eq!(occupancy::in_use(&at_once, used), [('b', used)], "a and c had no time");
    assert!(occupancy::in_use::<char>(&[], used).is_empty());
}

#[test]
fn access_and_alias_follow_from_the_end_that_comes_first() {
    let life = life();
    let ended = |reason, minute| Life { ending: Some(Ending { at: at(minute), reason }), ..life };
    let held = Life { hold_until: Some(at(70)), ..life };
    let day = 24 * 60;
    for (life, access, freed_at) in [
        (life, Some((60, 120)), 125 + day),
        (ended(EndReason::Ended, 90), Some((60, 90)), 95 + day),
        (ended(EndReason::Failed, 60), Some((60, 60)), 65 + day),
        (ended(EndReason::Ended, 130), Some((60, 120)), 135 + day),
        (ended(EndReason::Cancelled, 10), None, 10 + day),
        (ended(EndReason::Lapsed, 70), None, 70 + day),
        (held, None, 70 + day),
        (Life { hold_until: Some(at(700)), ..life }, None, 120 + day),
    ] {
        assert_eq!(life.access(), access.map(|(from, until)| (at(from), at(until))), "{life:?}");
        assert_eq!(life.alias_freed_at(), Some(at(freed_at)), "{life:?}");
    }
}

// ---------------------------------------------------------------- the naive model

/// One call, in minutes after now.
#[derive(Clone, Debug)]
enum Call {
    Book { device: usize, in_minutes: i64, length: i64, hold: Option<i64> },
    Confirm { rental: usize },
    Extend { rental: usize, by: i64 },
    Swap { rental: usize, device: usize },
    End { rental: usize },
    Block { device: usize, in_minutes: i64, length: Option<i64> },
    Wait { minutes: i64 },
}

fn call() -> impl Strategy<Value = Call> {
    let book = (0..DEVICES, 0i64..60, 1i64..40, proptest::option::of(1i64..30));
    prop_oneof![
        4 => book.prop_map(|(device, in_minutes, length, hold)| Call::Book { device, in_minutes, length, hold }),
        1 => (0usize..12).prop_map(|rental| Call::Confirm { rental }),
        2 => (0usize..12, -10i64..30).prop_map(|(rental, by)| Call::Extend { rental, by }),
        2 => (0usize..12, 0..DEVICES).prop_map(|(rental, device)| Call::Swap { rental, device }),
        2 => (0usize..12).prop_map(|rental| Call::End { rental }),
        1 => (0..DEVICES, 0i64..60, proptest::option::weighted(0.9, 1i64..30))
            .prop_map(|(device, in_minutes, length)| Call::Block { device, in_minutes, length }),
        3 => (1i64..20).prop_map(|minutes| Call::Wait { minutes }),
    ]
}

/// Whose minute it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Rental(usize),
    Block,
}

#[derive(Clone, Debug)]
struct Row {
    device: usize,
    owner: Owner,
    occupied: Occupancy,
}

/// The calls on the functions of this folder, and beside them one cell for each minute.
#[derive(Default)]
struct World {
    now: i64,
    rows: Vec<Row>,
    rentals: Vec<(usize, Life)>,
    cells: BTreeMap<(usize, i64), Owner>,
}

/// Minutes of preparation and turnaround of a device, which differ.
fn margins(device: usize) -> Margins {
    let count = device as i64;
    Margins { preparation: minutes(3 * count), turnaround: minutes(2 + count) }
}

fn minute(at: Wall) -> i64 {
    at.as_millis() / 60_000
}

impl World {
    fn now(&self) -> Wall {
        at(self.now)
    }

    fn taken(&self, device: usize, but: Option<usize>) -> Vec<Occupancy> {
        let counts =
            |row: &&Row| row.device == device && but.is_none_or(|rental| row.owner != Owner::Rental(rental));
        self.rows.iter().filter(counts).map(|row| row.occupied).collect()
    }

    fn cells_of(&self, occupied: Occupancy) -> std::ops::Range<i64> {
        minute(occupied.from)..occupied.until.map_or(MINUTES * 10, minute)
    }

    /// Decides by the cells, which know no windows.
    fn is_free(&self, device: usize, occupied: Occupancy, but: Option<usize>) -> bool {
        let foreign = |minute| {
            let owner = self.cells.get(&(device, minute));
            owner.is_some_and(|owner| but.is_none_or(|rental| *owner != Owner::Rental(rental)))
        };
        !self.cells_of(occupied).any(foreign)
    }

    fn occupy(&mut self, row: Row) {
        self.fill(row.device, row.owner, row.occupied);
        self.rows.push(row);
    }

    fn fill(&mut self, device: usize, owner: Owner, occupied: Occupancy) {
        for minute in self.cells_of(occupied) {
            let before = self.cells.insert((device, minute), owner);
            let free = before.is_none_or(|before| before == owner);
            assert!(free, "minute {minute} of device {device} belongs to {before:?} and {owner:?}");
        }
    }

    /// The newest row of a rental is that of its device. A row of an earlier device is only its turnaround.
    fn current(&self, rental: usize) -> usize {
        self.rows.iter().rposition(|row| row.owner == Owner::Rental(rental)).expect("it occupies a device")
    }

    /// Ends what a rental occupies now. `None`: it gives all of it back.
    fn give_back(&mut self, rental: usize, from: Option<Wall>) {
        let at = self.current(rental);
        let row = self.rows[at].clone();
        let gone = Occupancy { from: from.unwrap_or(row.occupied.from), ..row.occupied };
        for minute in self.cells_of(gone) {
            self.cells.remove(&(row.device, minute));
        }
        match from.filter(|from| *from > row.occupied.from) {
            Some(from) => self.rows[at].occupied.until = row.occupied.until.map(|until| until.min(from)),
            None => drop(self.rows.remove(at)),
        }
    }

    fn lapse(&mut self) {
        let now = self.now();
        for rental in 0..self.rentals.len() {
            let life = &mut self.rentals[rental].1;
            if life.ending.is_none() && life.lapses_at().is_some_and(|at| at <= now) {
                life.ending = Some(Ending { at: now, reason: EndReason::Lapsed });
                self.give_back(rental, None);
            }
        }
    }

    fn book(&mut self, device: usize, wanted: Window, hold_until: Option<Wall>) {
        let (now, margins) = (self.now(), margins(device));
        let occupied = margins.around(wanted, now);
        let taken = self.taken(device, None);
        let conflict = occupancy::conflict(&taken, occupied);
        assert_eq!(conflict.is_none(), self.is_free(device, occupied, None), "{occupied:?} in {taken:?}");
        let next = occupancy::next_free(&taken, margins, wanted, (now, at(MINUTES * 10)));
        assert_eq!(conflict.is_none(), next == Some(wanted), "free now is the next free window: {next:?}");
        if let Some(next) = next {
            assert!(self.is_free(device, margins.around(next, now), None), "{next:?}");
        }
        if conflict.is_some() {
            return;
        }
        let (turnaround, prepared_from) = (margins.turnaround, occupied.from);
        let life = Life { window: wanted, prepared_from, turnaround, hold_until, ..life() };
        let owner = Owner::Rental(self.rentals.len());
        self.rentals.push((device, life));
        self.occupy(Row { device, owner, occupied });
    }

    fn open(&self, rental: usize) -> Option<(usize, Life)> {
        let (device, life) = *self.rentals.get(rental)?;
        life.state(self.now()).is_open().then_some((device, life))
    }

    fn confirm(&mut self, rental: usize) {
        if self.open(rental).is_some() {
            self.rentals[rental].1.hold_until = None;
        }
    }

    fn extend(&mut self, rental: usize, until: Wall) {
        let Some((device, life)) = self.open(rental) else { return };
        let Some(window) = Window::new(life.window.from().max(self.now()), until) else { return };
        let window = Window::new(life.window.from(), window.until()).expect("it begins before");
        let others = self.taken(device, Some(rental));
        let extra = occupancy::extension(life.window, until, life.turnaround);
        let longer = until > life.window.until();
        let refused = longer && occupancy::conflict(&others, extra).is_some();
        assert_eq!(refused, longer && !self.is_free(device, extra, Some(rental)));
        let latest = occupancy::latest_until(&others, life.window, life.turnaround);
        assert_eq!(refused, longer && latest.is_some_and(|latest| until > latest), "{latest:?}");
        if refused {
            return;
        }
        let occupied_until = until + life.turnaround;
        match longer {
            true => {
                let row = self.current(rental);
                self.rows[row].occupied.until = Some(occupied_until);
                self.fill(device, Owner::Rental(rental), extra);
            }
            false => self.give_back(rental, Some(occupied_until)),
        }
        self.rentals[rental].1 = Life { window, ..life };
    }

    fn swap(&mut self, rental: usize, to: usize) {
        let Some((device, life)) = self.open(rental) else { return };
        let (now, margins) = (self.now(), margins(to));
        let Some(rest) = Window::new(life.window.from().max(now), life.window.until()) else { return };
        let occupied = margins.around(rest, now);
        let conflict = occupancy::conflict(&self.taken(to, None), occupied);
        assert_eq!(conflict.is_none(), self.is_free(to, occupied, None));
        if conflict.is_some() || device == to {
            return;
        }
        let is_active = life.state(now) == State::Active;
        self.give_back(rental, is_active.then(|| now + life.turnaround));
        let prepared_from = if is_active { life.prepared_from } else { occupied.from };
        let life = Life { prepared_from, turnaround: margins.turnaround, ..life };
        self.rentals[rental] = (to, life);
        self.occupy(Row { device: to, owner: Owner::Rental(rental), occupied });
    }

    fn end(&mut self, rental: usize) {
        let Some((_, life)) = self.open(rental) else { return };
        let now = self.now();
        let is_active = life.state(now) == State::Active;
        let reason = if is_active { EndReason::ReturnedEarly } else { EndReason::Cancelled };
        self.rentals[rental].1.ending = Some(Ending { at: now, reason });
        self.give_back(rental, is_active.then(|| now + life.turnaround));
    }

    fn block(&mut self, device: usize, occupied: Occupancy) {
        let conflict = occupancy::conflict(&self.taken(device, None), occupied);
        assert_eq!(conflict.is_none(), self.is_free(device, occupied, None));
        if conflict.is_none() {
            self.occupy(Row { device, owner: Owner::Block, occupied });
        }
    }

    fn take(&mut self, call: &Call) {
        let now = self.now;
        match *call {
            Call::Book { device, in_minutes, length, hold } => {
                let from = now + in_minutes;
                self.book(device, window(from, from + length), hold.map(|hold| at(now + hold)));
            }
            Call::Confirm { rental } => self.confirm(rental),
            Call::Extend { rental, by } => {
                let until = self.rentals.get(rental).map_or(0, |(_, life)| minute(life.window.until()));
                self.extend(rental, at(until + by));
            }
            Call::Swap { rental, device } => self.swap(rental, device),
            Call::End { rental } => self.end(rental),
            Call::Block { device, in_minutes, length } => {
                let from = now + in_minutes;
                self.block(
                    device,
                    Occupancy { from: at(from), until: length.map(|length| at(from + length)) },
                );
            }
            Call::Wait { minutes } => self.now += minutes,
        }
    }

    /// No two rows of a device overlap. A rental that is active has its device in this minute, and no other one
    /// lets its renters reach it.
    fn is_sound(&self) {
        for (n, one) in self.rows.iter().enumerate() {
            let others = self.rows[n + 1..].iter().filter(|other| other.device == one.device);
            others.for_each(|other| assert!(!one.occupied.overlaps(other.occupied), "{one:?} and {other:?}"));
        }
        for (rental, (device, life)) in self.rentals.iter().enumerate() {
            let is_active = life.state(self.now()) == State::Active;
            let reached = life.access().is_some_and(|(from, until)| (from..until).contains(&self.now()));
            assert_eq!(reached, is_active, "{life:?} at {}", self.now);
            if is_active {
                assert_eq!(self.cells.get(&(*device, self.now)), Some(&Owner::Rental(rental)));
            }
        }
    }
}

proptest! {
    #[test]
    fn no_two_rentals_of_a_device_overlap(calls in proptest::collection::vec(call(), 1..80)) {
        let mut world = World::default();
        for call in &calls {
            world.lapse();
            world.take(call);
            world.lapse();
            world.is_sound();
        }
    }

    #[test]
    fn a_free_window_is_as_long_as_possible(
        spans in proptest::collection::vec((0i64..MINUTES, 1i64..20), 0..12),
        now in 0i64..60,
    ) {
        let spans: Vec<(i64, i64)> = spans.into_iter().map(|(from, length)| (from, from + length)).collect();
        let (taken, within) = (taken(&spans), window(now, MINUTES));
        let free = occupancy::free(&taken, MARGINS, within, at(now));
        for from in now..MINUTES {
            let inside = free.iter().any(|w| w.from() <= at(from) && at(from + 1) <= w.until());
            let fits = occupancy::conflict(&taken, MARGINS.around(window(from, from + 1), at(now))).is_none();
            prop_assert_eq!(inside, fits, "minute {}", from);
        }
        for pair in free.windows(2) {
            prop_assert!(pair[0].until() < pair[1].from());
        }
    }
}

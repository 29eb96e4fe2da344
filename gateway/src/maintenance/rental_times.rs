//! Writes the events of rentals that come by the time alone: a preparation or a rental begins, a rental
//! ends, its device is free, a hold lapses.
//!
//! It sleeps until the next of them, but not for long. After a time in which the gateway did not run it writes
//! what came meanwhile, in order and with the true times. A machine without a battery starts with a clock of the
//! past, by which no rental that is over would have begun: until the clock is right, it writes nothing. Nor does it
//! while a clock that was set is doubted: one that is wrong for some seconds would announce the ends of rentals.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetgate_engine::id::RentalId;
use fleetgate_engine::time::{ClockStep, Mono, Now};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::handle::{Changes, Handle};
use crate::rental_events::Wakeups;
use crate::store::policy::PolicyRows;
use crate::store::{Store, settings};

/// Longest time until the next look: the clock may be set, and a sleep does not count a suspend. Events of the
/// time are promised within a second. A look at what is due reads five places of indexes.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a clock that was set is doubted, as for the windows of grants: none of them opens in this time.
const DOUBT: Duration = Duration::from_secs(300);
/// A clock that is set by less is not doubted: what it announces is true in a moment, and is not taken back.
const SMALL: Duration = Duration::from_secs(60);
/// Shortest time until the next look: the clock has milliseconds.
const AT_LEAST: Duration = Duration::from_millis(1);
/// Pause after a failure, and between two of many transactions, which lets other writes go first.
const RETRY: Duration = Duration::from_secs(5);
const BREATH: Duration = Duration::from_millis(20);

pub fn start(
    tasks: &mut JoinSet<()>,
    (store, handle): (Store, Handle),
    wakeups: Wakeups,
    stop: CancellationToken,
) {
    tasks.spawn(async move {
        let mut times = Times::new(store, wakeups);
        while !stop.is_cancelled() {
            let wait = times.turn(clock::now()).await.unwrap_or_else(|error| {
                tracing::warn!("events of rentals that are due are not written yet: {error}");
                RETRY
            });
            let rentals = std::mem::take(&mut times.shut);
            if !rentals.is_empty() {
                let policy = PolicyRows { rentals, ..PolicyRows::default() };
                handle.changed(Changes { policy, ..Changes::default() }).await;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = times.wakeups.rentals() => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

struct Times {
    store: Store,
    wakeups: Wakeups,
    /// Since the start the clock is behind the greatest time that it has shown before.
    is_behind: bool,
    doubt: Doubt,
    /// Rentals whose gates are to be passed again, or that are held again, for the engine.
    shut: BTreeSet<RentalId>,
}

impl Times {
    fn new(store: Store, wakeups: Wakeups) -> Times {
        Times { store, wakeups, is_behind: true, doubt: Doubt::default(), shut: BTreeSet::new() }
    }

    /// Writes what is due, for some rentals. Returns the time until the next turn.
    async fn turn(&mut self, now: Now) -> crate::store::Result<Duration> {
        if self.doubt.holds(now) {
            return Ok(LOOK_EVERY);
        }
        let now = now.wall;
        if self.is_behind {
            let floor = settings::clock_floor(&mut *self.store.reader().await?).await?;
            self.is_behind = floor.at().is_some_and(|floor| now < floor);
        }
        if self.is_behind {
            return Ok(LOOK_EVERY);
        }
        let announced = self.store.announce_rentals(now).await?;
        self.shut.extend(announced.shut);
        if announced.events > 0 {
            self.wakeups.written();
        }
        if announced.more {
            return Ok(BREATH);
        }
        let next = announced.next.map_or(LOOK_EVERY, |at| at.since(now));
        Ok(next.clamp(AT_LEAST, LOOK_EVERY))
    }
}

/// Whether the clock was set some minutes ago at most.
#[derive(Default)]
pub struct Doubt {
    /// The clocks at the last look.
    looked: Option<Now>,
    until: Mono,
}

impl Doubt {
    /// Whether it was, as far as the looks show.
    pub fn holds(&mut self, now: Now) -> bool {
        let step = self.looked.replace(now).and_then(|before| ClockStep::between(before, now));
        if step.is_some_and(|step| step.size() > SMALL) {
            self.until = now.mono + DOUBT;
        }
        now.mono < self.until
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::time::Wall;

    use super::*;
    use crate::store::fixture;

    async fn events(store: &Store) -> Vec<String> {
        fixture::texts(store, "select kind || ' ' || (at / 1000) from rental_events order by seq").await
    }

    #[tokio::test]
    async fn a_clock_that_starts_behind_or_is_doubted_announces_and_takes_back_nothing() {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam").await;
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  created_at, announced_state, announced_at, announce_at)
             values (10, 2, 7, 600000, 1200000, 600000, 0, 0, 0, 'active', 600000, 1200000)",
            "insert into settings (name, value) values ('clock_floor', '700000')",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let mut times = Times::new(store.clone(), Wakeups::default());
        let all = ["rental.ended 1200", "rental.closed 1200", "rental.changed 305"];
        for (mono_s, wall_s, count, why) in [
            (10, 5, 0, "it starts behind"),
            (11, 800, 0, "it is doubted"),
            (411, 1_200, 2, "it is right"),
            (412, 5, 2, "it is set back, and doubted"),
            (712, 305, 3, "it is not set again"),
            (713, 9_000_000, 3, "it is wrong for a second"),
            (714, 307, 3, "and right again"),
        ] {
            let now = Now { mono: Mono::from_secs(mono_s), wall: Wall::from_millis(wall_s * 1_000) };
            let wait = times.turn(now).await.unwrap();
            assert_eq!(events(&store).await, all[..count], "{why}");
            assert!(wait <= LOOK_EVERY, "the clock may be set meanwhile: {wait:?}");
        }
    }

    #[test]
    fn a_small_step_is_an_adjustment() {
        let mut doubt = Doubt::default();
        let mut doubted = |mono_s, wall_s: i64| {
            doubt.holds(Now { mono: Mono::from_secs(mono_s), wall: Wall::from_millis(wall_s * 1_000) })
        };
        assert!(!doubted(10, 1_000), "the start");
        assert!(!doubted(11, 1_060) && !doubted(12, 1_002));
        assert!(doubted(13, 1_064) && doubted(312, 1_363));
        assert!(!doubted(313, 1_364));
    }
}

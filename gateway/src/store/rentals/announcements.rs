//! Which events of a rental are written, and when time alone brings the next one.
//!
//! Each write of a rental comes here, in its transaction. What came by the time before the write is
//! announced first, with its own time. So the events of a rental are in the order of what happened, also
//! after a time in which the gateway did not run.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetgate_engine::id::{Id, RentalId};
use fleetgate_engine::rental::events::{RentalEventKind, entering};
use fleetgate_engine::rental::life::{EndReason, Life, State};
use fleetgate_engine::rental::phase::HANDOVER_TAKES;
use fleetgate_engine::rental::transitions::{self, StateAt, transitions};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

use super::blocks::{self, Block, Covers};
use super::device_choices::DeviceChoice;
use super::events::{Happened, append, append_block};
use super::{Rental, bookings, find, handovers, reports};
use crate::store::Store;

/// Rentals of one transaction. Other writers wait for one transaction at most.
const AT_ONCE: i64 = 100;
/// A clock that is set back by less is adjusted, and what was announced is true in a moment.
pub(super) const SET_BACK: Duration = Duration::from_secs(60);

/// Announces a new rental.
pub(super) async fn booked(tx: &mut SqliteConnection, rental: &Rental) -> sqlx::Result<()> {
    let (kind, state) = match rental.life.hold_until {
        Some(_) => (RentalEventKind::Held, State::Held),
        None => (RentalEventKind::Booked, State::Booked),
    };
    let at = rental.created_at;
    append(tx, rental, Happened { kind, at, state, previous_device: None }).await?;
    enter(tx, rental, state, at).await
}

/// Announces a change of a rental. The caller has written `after`, and raised the version.
pub(super) async fn changed(
    tx: &mut SqliteConnection,
    before: &Rental,
    after: &Rental,
    now: Wall,
) -> sqlx::Result<()> {
    let was = catch_up(tx, before, now).await?;
    let after = Rental { version: before.version + 1, ..after.clone() };
    for kind in acts(before, &after) {
        let previous_device = (kind == RentalEventKind::Swapped).then_some(before.device);
        let state = after.life.state(now);
        append(tx, &after, Happened { kind, at: now, state, previous_device }).await?;
    }
    enter(tx, &after, was, now).await
}

/// Returns what a call did beside ending the rental, which its state says.
fn acts(before: &Rental, after: &Rental) -> impl Iterator<Item = RentalEventKind> {
    let is_swapped = before.device != after.device;
    // The rental as it would be on the device that it had.
    let there = Rental {
        device: before.device,
        device_name: before.device_name.clone(),
        preparation: before.preparation,
        version: before.version,
        choice: DeviceChoice { other_at: before.choice.other_at, ..after.choice.clone() },
        life: Life {
            prepared_from: before.life.prepared_from,
            turnaround: before.life.turnaround,
            handover: before.life.handover,
            delivery: before.life.delivery,
            ..after.life
        },
        ..after.clone()
    };
    let is_changed = there != *before && there.life.ending == before.life.ending;
    let [was, is] = [before, after].map(|rental| rental.life.delivery.shipment().unwrap_or_default());
    let has_left = was.dispatched_at.is_none() && is.dispatched_at.is_some();
    let is_back = was.returned_at.is_none() && is.returned_at.is_some();
    let all = [
        (is_swapped, RentalEventKind::Swapped),
        (is_changed, RentalEventKind::Changed),
        (has_left, RentalEventKind::Dispatched),
        (is_back, RentalEventKind::Returned),
    ];
    all.into_iter().filter(|(happened, _)| *happened).map(|(_, kind)| kind)
}

/// Announces that the device of a rental was handed over. The caller has written it.
pub(super) async fn handed_over(tx: &mut SqliteConnection, after: &Rental, at: Wall) -> sqlx::Result<()> {
    let was = catch_up(tx, after, at).await?;
    enter(tx, after, was, at).await
}

/// Announces another hold of the booking of a rental, or its confirmation.
pub(super) async fn hold_changed(
    tx: &mut SqliteConnection,
    before: &Rental,
    hold_until: Option<Wall>,
    now: Wall,
) -> sqlx::Result<()> {
    let was = catch_up(tx, before, now).await?;
    let after = Rental { life: Life { hold_until, ..before.life }, ..before.clone() };
    // Announced events may be ahead of it, by a clock that was set back.
    if before.life.state(now) != State::Held {
        return remember(tx, &after, (now, was)).await;
    }
    let (kind, state) = match hold_until {
        Some(_) => (RentalEventKind::Changed, State::Held),
        None => (RentalEventKind::Confirmed, State::Booked),
    };
    append(tx, &after, Happened { kind, at: now, state, previous_device: None }).await?;
    enter(tx, &after, state, now).await
}

/// Announces that a rental was not confirmed in time. The caller has written it.
pub(super) async fn lapsed(tx: &mut SqliteConnection, rental: Id, at: Wall) -> sqlx::Result<()> {
    let Some(rental) = readable(tx, rental).await? else { return Ok(()) };
    let was = catch_up(tx, &rental, at).await?;
    enter(tx, &rental, was, at).await
}

/// Announces what a rental has reached of its allowance, after what came by the time.
pub(super) async fn reached(
    tx: &mut SqliteConnection,
    rental: &Rental,
    kinds: &[RentalEventKind],
    now: Wall,
) -> sqlx::Result<()> {
    let was = catch_up(tx, rental, now).await?;
    let state = rental.life.state(now);
    for kind in kinds {
        append(tx, rental, Happened { kind: *kind, at: now, state, previous_device: None }).await?;
    }
    enter(tx, rental, was, now).await
}

/// Announces to the open rentals that a block covers that it was made. They hear of its end, too. Returns to how many.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn blocked(tx: &mut SqliteConnection, block: &Block, now: Wall) -> sqlx::Result<usize> {
    let count = of_block(tx, RentalEventKind::Blocked, block, now).await?;
    if count > 0 {
        blocks::set_covers(tx, block.id, Covers::Now).await?;
    }
    Ok(count)
}

/// Announces to the open rentals that a block covered that it has ended. Returns to how many.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn unblocked(tx: &mut SqliteConnection, block: &Block, at: Wall) -> sqlx::Result<usize> {
    if !blocks::covers(tx, block.id).await? {
        return Ok(0);
    }
    blocks::set_covers(tx, block.id, Covers::Before).await?;
    of_block(tx, RentalEventKind::Unblocked, block, at).await
}

async fn of_block(
    tx: &mut SqliteConnection,
    kind: RentalEventKind,
    block: &Block,
    at: Wall,
) -> sqlx::Result<usize> {
    let mut count = 0;
    for rental in blocks::covered(tx, block).await? {
        let Some(rental) = readable(tx, rental).await? else { continue };
        // A call may have announced more before this turn.
        let at = known(tx, rental.id).await?.map_or(at, |(known, _)| at.max(known));
        let was = catch_up(tx, &rental, at).await?;
        let state = rental.life.state(at);
        if state.is_open() {
            let happened = Happened { kind, at, state, previous_device: None };
            append_block(tx, &rental, happened, block).await?;
            count += 1;
        }
        enter(tx, &rental, was, at).await?;
    }
    Ok(count)
}

/// Announces the state that a rental has after a call, if it is another one.
async fn enter(tx: &mut SqliteConnection, rental: &Rental, was: State, now: Wall) -> sqlx::Result<()> {
    let state = rental.life.state(now);
    if state == State::Delayed && was.is_open() && was != State::Active {
        return remember(tx, rental, (now, was)).await;
    }
    for kind in entering(was, state, over(rental, now)) {
        append(tx, rental, Happened { kind, at: now, state, previous_device: None }).await?;
    }
    remember(tx, rental, (now, state)).await
}

/// Announces what came by the time up to now. Returns the state that was announced last.
async fn catch_up(tx: &mut SqliteConnection, rental: &Rental, now: Wall) -> sqlx::Result<State> {
    let Some(known) = known(tx, rental.id).await? else { return Ok(rental.life.state(now)) };
    for happened in passed(rental, known, now) {
        append(tx, rental, happened).await?;
    }
    Ok(transitions(&rental.life, known, now).last().map_or(known.1, |(_, state)| *state))
}

/// Why a rental has ended, if it has.
fn over(rental: &Rental, at: Wall) -> Option<EndReason> {
    rental.life.over(at).map(|over| over.reason)
}

/// Returns what came by the time after a known state.
fn passed(rental: &Rental, known: StateAt, to: Wall) -> Vec<Happened> {
    let mut was = known.1;
    let mut all = Vec::new();
    for (at, state) in transitions(&rental.life, known, to) {
        let happened = |kind| Happened { kind, at, state, previous_device: None };
        all.extend(entering(was, state, over(rental, at)).into_iter().map(happened));
        was = state;
    }
    all
}

/// Returns what was announced last. `None`: nothing, because the rental is older than the events.
async fn known(conn: &mut SqliteConnection, rental: Id) -> sqlx::Result<Option<StateAt>> {
    let sql = "select announced_at, announced_state from rentals
               where id = $1 and announced_at is not null and announced_state is not null";
    let found: Option<(i64, String)> = sqlx::query_as(sql).bind(rental.as_i64()).fetch_optional(conn).await?;
    let Some((at, name)) = found else { return Ok(None) };
    let state = State::ALL.into_iter().find(|state| state.name() == name);
    Ok(state.map(|state| (Wall::from_millis(at), state)))
}

/// Returns a rental. One whose row cannot be read holds up no other: nothing comes of it by the time.
pub(super) async fn readable(tx: &mut SqliteConnection, rental: Id) -> sqlx::Result<Option<Rental>> {
    let error = match find(tx, rental).await {
        Err(error @ (sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_))) => error,
        found => return found,
    };
    tracing::error!("the rental {rental} cannot be read, so that it gets no events by the time: {error}");
    let sql = "update rentals set announced_at = null, announce_at = null where id = $1";
    sqlx::query(sql).bind(rental.as_i64()).execute(tx).await?;
    Ok(None)
}

/// Stores what was announced, and when time alone brings the next event.
async fn remember(tx: &mut SqliteConnection, rental: &Rental, known: StateAt) -> sqlx::Result<()> {
    let sql = "update rentals set announced_at = $2, announced_state = $3, announce_at = $4 where id = $1";
    sqlx::query(sql)
        .bind(rental.id.as_i64())
        .bind(known.0.as_millis())
        .bind(known.1.name())
        .bind(due(&rental.life, known).map(Wall::as_millis))
        .execute(tx)
        .await
        .map(drop)
}

/// Returns when time alone brings the next event of a rental.
fn due(life: &Life, known: StateAt) -> Option<Wall> {
    let at = transitions::next(life, known)?;
    // The handover at the begin may be on its way.
    Some(if life.state(at) == State::Delayed { at + HANDOVER_TAKES } else { at })
}

/// The events that one turn has announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    pub events: usize,
    /// More rentals wait for their turn.
    pub more: bool,
    /// When the next event comes.
    pub next: Option<Wall>,
    /// Rentals whose gates are to be passed again, or that are held again.
    pub shut: BTreeSet<RentalId>,
}

const DUE: &str =
    "select id, announce_at from rentals where announce_at <= $1 order by announce_at, id limit $2";
/// Rentals of which something was announced that is to come again, because the clock was set back. In the
/// order of the index: each look asks for them, and rentals are never removed.
const AHEAD: &str =
    "select id, announced_at from rentals where announced_at > $1 order by announced_at, id limit $2";
/// Blocks that have ended by the time, of which rentals are to hear.
const BLOCKS_OVER: &str = "select id, until_at from device_blocks
     where covers = 1 and until_at <= $1 order by until_at, id limit $2";
/// Blocks whose end was announced by a clock that was ahead.
const BLOCKS_AHEAD: &str = "select id, until_at from device_blocks
     where covers = 2 and ended_at is null and until_at > $1 order by until_at, id limit $2";
const NEXT: &str = "select min(announce_at) from rentals where announce_at > $1";

/// Announces what came by the time, in the order of the times, for some rentals.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn announce(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<Announced> {
    let ahead: Vec<(i64, i64)> = rows(tx, AHEAD, now + SET_BACK).await?;
    let (mut events, mut shut) = (0, BTreeSet::new());
    for (rental, _) in &ahead {
        let rental = Id::from_i64(*rental);
        let (written, is_shut) = take_back(tx, rental, now).await?;
        events += written;
        shut.extend(is_shut.then_some(rental));
    }
    let blocked_again: Vec<(i64, i64)> = rows(tx, BLOCKS_AHEAD, now + SET_BACK).await?;
    for (block, _) in &blocked_again {
        if let Some(block) = blocks::find(tx, Id::from_i64(*block)).await? {
            blocks::set_covers(tx, block.id, Covers::Now).await?;
            events += blocked(tx, &block, now).await?;
        }
    }
    let over: Vec<(i64, i64)> = rows(tx, BLOCKS_OVER, now).await?;
    for (block, until) in &over {
        if let Some(block) = blocks::find(tx, Id::from_i64(*block)).await? {
            events += unblocked(tx, &block, Wall::from_millis(*until)).await?;
        }
    }
    let due: Vec<(i64, i64)> = rows(tx, DUE, now).await?;
    let is_full = |rows: &[(i64, i64)]| rows.len() >= usize::try_from(AT_ONCE).unwrap_or(usize::MAX);
    // What other rentals have before this moment comes with the next turn, and nothing later before it.
    let horizon = due.last().filter(|_| is_full(&due)).map_or(now, |(_, at)| Wall::from_millis(*at));
    let mut happened: Vec<(Rental, Happened)> = Vec::new();
    for (rental, _) in &due {
        happened.extend(advance(tx, Id::from_i64(*rental), horizon, now).await?);
    }
    // Stable, so that the events of a rental stay in their order.
    happened.sort_by_key(|(_, happened)| happened.at);
    for (rental, happened) in &happened {
        append(tx, rental, *happened).await?;
    }
    let next: Option<i64> = sqlx::query_scalar(NEXT).bind(now.as_millis()).fetch_one(tx).await?;
    Ok(Announced {
        events: events + happened.len(),
        more: [&due, &ahead, &over, &blocked_again].into_iter().any(|rows| is_full(rows)),
        next: next.map(Wall::from_millis),
        shut,
    })
}

async fn rows(conn: &mut SqliteConnection, sql: &'static str, moment: Wall) -> sqlx::Result<Vec<(i64, i64)>> {
    sqlx::query_as(sql).bind(moment.as_millis()).bind(AT_ONCE).fetch_all(conn).await
}

/// Remembers what came up to a moment, and returns what is to be announced.
async fn advance(
    tx: &mut SqliteConnection,
    rental: Id,
    horizon: Wall,
    now: Wall,
) -> sqlx::Result<Vec<(Rental, Happened)>> {
    let Some(rental) = readable(tx, rental).await? else { return Ok(Vec::new()) };
    let Some(known) = known(tx, rental.id).await? else {
        // Of a rental from an earlier version only what comes from now on is announced.
        remember(tx, &rental, (now, rental.life.state(now))).await?;
        return Ok(Vec::new());
    };
    let last = transitions(&rental.life, known, horizon).last().copied().unwrap_or(known);
    remember(tx, &rental, last).await?;
    Ok(passed(&rental, known, horizon).into_iter().map(|happened| (rental.clone(), happened)).collect())
}

/// Corrects what was announced and stored of a rental by a clock that was ahead. An event that comes again is
/// announced again. Returns how many events that wrote, and whether the engine is to hear of it: its gate is to be
/// passed again, or it was not confirmed in time only by that clock.
async fn take_back(tx: &mut SqliteConnection, rental: Id, now: Wall) -> sqlx::Result<(usize, bool)> {
    let Some(mut rental) = readable(tx, rental).await? else { return Ok((0, false)) };
    let is_shut = handovers::take_back(tx, &mut rental, now).await?;
    let is_back = bookings::take_back(tx, &mut rental, now).await?;
    let was = known(tx, rental.id).await?.map(|(_, state)| state);
    let state = rental.life.state(now);
    remember(tx, &rental, (now, state)).await?;
    if state.is_open() || state == State::Cleaning {
        reports::take_back(tx, rental.id).await?;
    }
    if was == Some(state) {
        return Ok((0, is_shut || is_back));
    }
    let happened = Happened { kind: RentalEventKind::Changed, at: now, state, previous_device: None };
    append(tx, &rental, happened).await?;
    Ok((1, is_shut || is_back))
}

impl Store {
    /// Announces what came by the time, as [`announce`] does. Writes nothing while nothing is due.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn announce_rentals(&self, now: Wall) -> sqlx::Result<Announced> {
        let mut conn = self.reader().await?;
        let before = now + SET_BACK;
        let mut is_due = false;
        for (sql, moment) in [(DUE, now), (AHEAD, before), (BLOCKS_OVER, now), (BLOCKS_AHEAD, before)] {
            is_due = is_due || !rows(&mut conn, sql, moment).await?.is_empty();
        }
        if !is_due {
            let next: Option<i64> =
                sqlx::query_scalar(NEXT).bind(now.as_millis()).fetch_one(&mut *conn).await?;
            let next = next.map(Wall::from_millis);
            return Ok(Announced { events: 0, more: false, next, shut: BTreeSet::new() });
        }
        drop(conn);
        let mut tx = self.begin().await?;
        let announced = announce(&mut tx, now).await?;
        tx.commit().await?;
        Ok(announced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn what_is_due_is_found_without_a_look_at_all_rentals() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        for (sql, index) in [
            (DUE, "rentals_announce "),
            (AHEAD, "rentals_announced "),
            (NEXT, "rentals_announce "),
            (BLOCKS_OVER, "device_blocks_covers "),
            (BLOCKS_AHEAD, "device_blocks_covered "),
        ] {
            let plan = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
            let query = sqlx::query_as(plan).bind(0).bind(9);
            let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(&mut *conn).await.unwrap();
            let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
            assert!(plan.contains(index) && !plan.contains("SCAN"), "{sql}: {plan}");
        }
    }
}

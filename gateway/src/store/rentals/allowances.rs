//! Allowances of forwarded bytes: what a rental has used, and what it has reached of its allowance.
//!
//! The level that was announced stands in the row of the rental and is written with its events, so that each comes
//! exactly once. Another allowance begins below its first level.

use std::collections::BTreeSet;

use fleetgate_engine::id::{Id, RentalId};
use fleetgate_engine::rental::allowance::Level;
use fleetgate_engine::time::Wall;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Rental, announcements, damaged};
use crate::store::Store;

/// Rentals of one transaction. Other writers wait for one transaction at most.
const AT_ONCE: i64 = 100;

/// How many bytes the gateway forwards for a rental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// In both directions, with IP headers. At least 1.
    pub bytes: u64,
    /// Its renters reach nothing any more when they are used.
    pub cuts: bool,
}

pub(super) fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reads what a rental has forwarded.
pub(super) fn forwarded(row: &SqliteRow) -> sqlx::Result<u64> {
    let bytes: i64 = row.try_get("forwarded_bytes")?;
    u64::try_from(bytes).map_err(|_| damaged("forwarded_bytes"))
}

pub(super) fn allowance(row: &SqliteRow) -> sqlx::Result<Option<Allowance>> {
    let Some(bytes): Option<i64> = row.try_get("allowance_bytes")? else { return Ok(None) };
    let bytes = u64::try_from(bytes).map_err(|_| damaged("allowance_bytes"))?;
    Ok(Some(Allowance { bytes, cuts: row.try_get("cut_at_allowance")? }))
}

pub(super) fn level(row: &SqliteRow) -> sqlx::Result<Level> {
    let number: i64 = row.try_get("allowance_level")?;
    let level = Level::ALL.into_iter().find(|level| level_row(*level) == number);
    level.ok_or_else(|| damaged("allowance_level"))
}

/// The value of the column `allowance_level`.
pub(super) const fn level_row(level: Level) -> i64 {
    match level {
        Level::Below => 0,
        Level::Nearly => 1,
        Level::Reached => 2,
    }
}

/// Returns the level that is announced of a rental after a change.
pub(super) fn kept_level(before: &Rental, after: &Rental) -> Level {
    let bytes = |rental: &Rental| rental.allowance.map(|allowance| allowance.bytes);
    if bytes(before) == bytes(after) { before.allowance_level } else { Level::Below }
}

impl Rental {
    /// Whether its renters reach nothing, because its allowance is used.
    pub fn is_cut(&self) -> bool {
        self.allowance_level == Level::Reached && self.allowance.is_some_and(|allowance| allowance.cuts)
    }
}

/// Adds what was forwarded for a rental.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn add(tx: &mut SqliteConnection, rental: RentalId, bytes: u64) -> sqlx::Result<()> {
    let sql = "update rentals set forwarded_bytes = forwarded_bytes + $2 where id = $1";
    sqlx::query(sql).bind(rental.as_i64()).bind(count(bytes)).execute(tx).await.map(drop)
}

/// The parts of their allowances that rentals have reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Crossed {
    pub events: usize,
    /// Those whose renters reach nothing any more.
    pub cut: BTreeSet<RentalId>,
    /// More rentals wait for their turn.
    pub more: bool,
}

/// Announces what a rental has reached of its allowance and was not announced yet.
pub(super) async fn cross(tx: &mut SqliteConnection, rental: Id, now: Wall) -> sqlx::Result<Crossed> {
    let Some(found) = announcements::readable(tx, rental).await? else {
        // It permits nothing, and waits for no turn any more.
        set_level(tx, rental, Level::Reached).await?;
        return Ok(Crossed::default());
    };
    let Some(allowance) = found.allowance else { return Ok(Crossed::default()) };
    let level = Level::of(found.forwarded_bytes, allowance.bytes);
    let kinds = found.allowance_level.entering(level);
    if kinds.is_empty() {
        return Ok(Crossed::default());
    }
    set_level(tx, rental, level).await?;
    announcements::reached(tx, &found, &kinds, now).await?;
    let after = Rental { allowance_level: level, ..found };
    let cut = after.is_cut().then_some(rental).into_iter().collect();
    Ok(Crossed { events: kinds.len(), cut, more: false })
}

async fn set_level(tx: &mut SqliteConnection, rental: Id, level: Level) -> sqlx::Result<()> {
    let sql = "update rentals set allowance_level = $2 where id = $1";
    sqlx::query(sql).bind(rental.as_i64()).bind(level_row(level)).execute(tx).await.map(drop)
}

/// The words of the index `rentals_allowance_due`.
const DUE: &str = "select id from rentals
     where allowance_bytes is not null and allowance_level < 2
       and forwarded_bytes * 5 >= allowance_bytes * (4 + allowance_level)
     order by id limit $1";

impl Store {
    /// Announces what rentals have reached of their allowances, for some of them. Writes nothing while there is none.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn cross_allowances(&self, now: Wall) -> sqlx::Result<Crossed> {
        let due: Vec<i64> =
            sqlx::query_scalar(DUE).bind(AT_ONCE).fetch_all(&mut *self.reader().await?).await?;
        let mut all = Crossed::default();
        if due.is_empty() {
            return Ok(all);
        }
        let mut tx = self.begin().await?;
        for rental in &due {
            let Crossed { events, cut, .. } = cross(&mut tx, Id::from_i64(*rental), now).await?;
            all.events += events;
            all.cut.extend(cut);
        }
        tx.commit().await?;
        Ok(Crossed { more: due.len() >= usize::try_from(AT_ONCE).unwrap_or(usize::MAX), ..all })
    }
}

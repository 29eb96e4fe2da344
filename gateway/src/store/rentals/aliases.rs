//! The aliases of rentals: the addresses at which renters reach the devices. Each is a slot of the block of the
//! customer, stays with the rental whatever device it has, and rests for a day when the rental is over.
//!
//! Whether an alias is free follows from the times of its rental, so that no job can be missed. The column
//! `alias_freed_at` is written when a rental loses its alias to another one, or after it has rested: the
//! rental does not get it back, even if the clock is set back. If it goes on then, it gets another one at the next
//! start.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fleetgate_engine::id::{CustomerId, Id, RentalId};
use fleetgate_engine::time::Wall;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use super::{Rental, alias_blocks, damaged, select};
use crate::store::addresses::{NoAddress, Pools};
use crate::store::lists::{Entry, readable};

/// The address at which renters reach a rented device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alias {
    /// Within the block of the customer.
    pub slot: i64,
    /// IPv4 first.
    pub addresses: [IpAddr; 2],
}

/// Reads the alias that a rental still has.
pub(super) fn alias(row: &SqliteRow) -> sqlx::Result<Option<Alias>> {
    let freed_at: Option<i64> = row.try_get("alias_freed_at")?;
    let slot: Option<i64> = row.try_get("alias_slot")?;
    let Some(slot) = slot.filter(|_| freed_at.is_none()) else { return Ok(None) };
    let address = |column: &str| -> sqlx::Result<IpAddr> {
        let text: Option<&str> = row.try_get(column)?;
        text.and_then(|text| text.parse().ok()).ok_or_else(|| damaged(column))
    };
    Ok(Some(Alias { slot, addresses: [address("alias_v4")?, address("alias_v6")?] }))
}

/// When the alias of a rental has rested that was dispatched and whose device has not come back.
pub const NOT_KNOWN: Wall = Wall::from_millis(i64::MAX);

/// When the alias of a rental has rested, in the order of `Life::alias_freed_at`. A test compares both.
macro_rules! freed_at {
    () => {
        "case
             when r.dispatched_at is not null and r.returned_at is null then 9223372036854775807
             when r.dispatched_at is not null then r.returned_at + r.turnaround_ms + 86400000
             when r.end_reason in ('cancelled', 'lapsed') then r.ended_at + 86400000
             when r.ended_at is not null then r.ended_at + r.turnaround_ms + 86400000
             when b.hold_until is not null then min(b.hold_until, r.until_at) + 86400000
             else r.until_at + r.turnaround_ms + 86400000
         end"
    };
}

const OF_CUSTOMER: &str = select!(concat!(
    "where b.customer = $1 and r.alias_freed_at is null and ",
    freed_at!(),
    " > $2 order by r.id"
));

/// Returns the rentals of a customer whose names and aliases are in use, those that can be read.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn in_use(
    conn: &mut SqliteConnection,
    customer: CustomerId,
    now: Wall,
) -> sqlx::Result<Vec<Rental>> {
    let query = sqlx::query_as(OF_CUSTOMER).bind(customer.as_i64()).bind(now.as_millis());
    let rows: Vec<Entry<Rental>> = query.fetch_all(conn).await?;
    Ok(readable(rows))
}

/// Only what the decision needs is read, so that a damaged row keeps no other rental from its name.
const NAMES: &str = concat!(
    "select r.name, ",
    freed_at!(),
    " from rentals r join bookings b on b.id = r.booking
     where b.customer = $1 and r.alias_freed_at is null and ",
    freed_at!(),
    " > $2 order by r.id"
);

/// Returns the names of rentals of a customer that are in use, and when each has rested, or [`NOT_KNOWN`].
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn names(
    conn: &mut SqliteConnection,
    customer: CustomerId,
    now: Wall,
) -> sqlx::Result<Vec<(String, Wall)>> {
    let query = sqlx::query_as(NAMES).bind(customer.as_i64()).bind(now.as_millis());
    let rows: Vec<(String, i64)> = query.fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(name, freed_at)| (name, Wall::from_millis(freed_at))).collect())
}

/// Returns the rental that has an address as its alias. After it has rested, the alias is that of the rental that
/// got it last.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, address: IpAddr) -> sqlx::Result<Option<Rental>> {
    let sql = match address {
        IpAddr::V4(_) => {
            select!("where r.alias_v4 = $1 and r.alias_freed_at is null order by r.id desc limit 1")
        }
        IpAddr::V6(_) => {
            select!("where r.alias_v6 = $1 and r.alias_freed_at is null order by r.id desc limit 1")
        }
    };
    sqlx::query_as(sql).bind(address.to_string()).fetch_optional(conn).await
}

/// Why a rental gets no alias.
#[derive(Debug, thiserror::Error)]
pub enum NoAlias {
    #[error("all {slots} addresses of this customer are in use by rentals")]
    Full {
        slots: i64,
        /// When the next one has rested, or [`NOT_KNOWN`].
        next_at: Wall,
    },
    #[error(transparent)]
    Address(#[from] NoAddress),
    #[error(transparent)]
    Store(#[from] sqlx::Error),
}

/// Only what the decision needs is read, so that a damaged row keeps no other rental from its alias.
const TAKEN: &str = concat!(
    "select r.alias_slot, ",
    freed_at!(),
    " from rentals r join bookings b on b.id = r.booking
     where b.customer = $1 and r.alias_slot is not null and r.alias_freed_at is null and ",
    freed_at!(),
    " > $2"
);

/// Returns the slots that are in use, and when the alias of each has rested.
async fn taken(
    tx: &mut SqliteConnection,
    customer: CustomerId,
    now: Wall,
) -> sqlx::Result<BTreeMap<i64, Wall>> {
    let query = sqlx::query_as(TAKEN).bind(customer.as_i64()).bind(now.as_millis());
    let rows: Vec<(i64, i64)> = query.fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(slot, freed_at)| (slot, Wall::from_millis(freed_at))).collect())
}

/// Finds the lowest free alias in the block of a customer, and takes it from rentals whose alias has rested.
/// Returns it with these rentals.
///
/// # Errors
/// Fails when the block is full or no block is free, or the database cannot be written.
pub async fn take(
    tx: &mut SqliteConnection,
    customer: CustomerId,
    (slots, pools): (u32, Pools),
    now: Wall,
) -> Result<(Alias, Vec<RentalId>), NoAlias> {
    let block = alias_blocks::ensure(tx, customer, slots, pools, now).await?;
    let taken = taken(tx, customer, now).await?;
    let Some(slot) = (0..block.slots).find(|slot| !taken.contains_key(slot)) else {
        let next_at = taken.into_values().min().unwrap_or(now);
        return Err(NoAlias::Full { slots: block.slots, next_at });
    };
    let sql = "update rentals set alias_freed_at = $3
               where alias_slot = $2 and alias_freed_at is null
                 and booking in (select id from bookings where customer = $1)
               returning id";
    let query = sqlx::query_scalar(sql).bind(customer.as_i64()).bind(slot).bind(now.as_millis());
    let former: Vec<i64> = query.fetch_all(tx).await?;
    let former = former.into_iter().map(Id::from_i64).collect();
    Ok((Alias { slot, addresses: block.at(slot, pools) }, former))
}

/// A rental that is over gets none again, however long its device is away: no renter reaches it, and another rental may
/// have its name.
const MISSING: &str = concat!(
    "select r.id, b.customer from rentals r join bookings b on b.id = r.booking
         join customers c on c.id = b.customer and c.erased_at is null
     where (r.alias_slot is null or r.alias_freed_at is not null)
       and coalesce(r.ended_at, r.until_at) + r.turnaround_ms + 86400000 > $1 and ",
    freed_at!(),
    " > $1 order by r.id"
);

/// Gives an alias to the rentals of an earlier version, to those for which there was no room, and to those that lost
/// theirs to another one because the clock was ahead. Returns the number of rentals that got none.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn take_missing(
    tx: &mut SqliteConnection,
    (slots, pools): (u32, Pools),
    now: Wall,
) -> sqlx::Result<usize> {
    let rentals: Vec<(i64, i64)> = sqlx::query_as(MISSING).bind(now.as_millis()).fetch_all(&mut *tx).await?;
    // A customer may have thousands of rentals, each of which would read all of them to find no room.
    let (mut without, mut full) = (0, BTreeSet::new());
    for (rental, customer) in rentals {
        if full.contains(&customer) {
            without += 1;
            continue;
        }
        match take(tx, Id::from_i64(customer), (slots, pools), now).await {
            Ok((alias, _)) => set(tx, Id::from_i64(rental), alias).await?,
            Err(NoAlias::Full { .. } | NoAlias::Address(NoAddress::Full(_) | NoAddress::NoBlock { .. })) => {
                full.insert(customer);
                without += 1;
            }
            Err(NoAlias::Store(error) | NoAlias::Address(NoAddress::Store(error))) => return Err(error),
        }
    }
    Ok(without)
}

async fn set(tx: &mut SqliteConnection, rental: RentalId, alias: Alias) -> sqlx::Result<()> {
    let sql = "update rentals set alias_slot = $2, alias_v4 = $3, alias_v6 = $4, alias_freed_at = null where id = $1";
    let [v4, v6] = alias.addresses;
    let query = sqlx::query(sql).bind(rental.as_i64()).bind(alias.slot);
    query.bind(v4.to_string()).bind(v6.to_string()).execute(tx).await.map(drop)
}

/// Those of erased customers too: no renter is left who could ask about them.
const RESTED: &str = concat!(
    "select r.id from rentals r join bookings b on b.id = r.booking join customers c on c.id = b.customer
     where r.alias_slot is not null and r.alias_freed_at is null and (c.erased_at is not null or ",
    freed_at!(),
    " <= $1)
     limit 1000"
);

/// Returns rentals that have an alias which has rested, at most a thousand.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rested(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<RentalId>> {
    let ids: Vec<i64> = sqlx::query_scalar(RESTED).bind(now.as_millis()).fetch_all(conn).await?;
    // In another order the statement reads every rental of the past.
    let mut rentals: Vec<RentalId> = ids.into_iter().map(Id::from_i64).collect();
    rentals.sort_unstable();
    Ok(rentals)
}

/// Takes the aliases from rentals for good.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn free(tx: &mut SqliteConnection, rentals: &[RentalId], now: Wall) -> sqlx::Result<()> {
    let ids: Vec<i64> = rentals.iter().map(|rental| rental.as_i64()).collect();
    let sql = "update rentals set alias_freed_at = $2
               where id in (select value from json_each($1)) and alias_freed_at is null";
    sqlx::query(sql).bind(Json(ids)).bind(now.as_millis()).execute(tx).await.map(drop)
}

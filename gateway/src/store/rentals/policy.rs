//! What rentals permit, for the policy of the engine: each is a target at its alias, and a grant for the renters of
//! its customer.
//!
//! A rental permits nothing until it is confirmed, and nothing any more when it was cancelled, ended by a call, or cut
//! at its allowance. One that has ended by the time stays, so that the engine says when it was over, until its alias
//! has rested: the engine itself judges its window, because a clock that the shell reads may be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fleetgate_engine::id::{CustomerId, HostId, Id, RentalId};
use fleetgate_engine::messages::{
    Gate, GrantSource, GrantSpec, GrantTarget, TargetAddress, TargetId, TargetSpec,
};
use fleetgate_engine::rental::life::ALIAS_RESTS;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::handovers::{blocks, blocks_column};
use super::{admits, aliases, damaged, life};
use crate::store::access::{id, maybe_wall};
use crate::store::devices::inner_addresses;
use crate::store::grants::access_column;

/// Rentals that permit something at some time.
macro_rules! permitting {
    ($which:literal) => {
        concat!(
            " from rentals r join bookings b on b.id = r.booking and b.hold_until is null
             join customers c on c.id = b.customer and c.erased_at is null
             join hosts h on h.id = r.device and h.removed_at is null
             join peers p on p.id = h.id and p.removed_at is null
             where coalesce(r.end_reason, '') not in ('cancelled', 'lapsed')
               and r.alias_slot is not null and r.alias_freed_at is null
               and not (r.cut_at_allowance = 1 and r.allowance_level = 2) and ",
            $which,
            " order by r.id"
        )
    };
}

macro_rules! rows {
    ($which:literal) => {
        concat!(
            "select r.*, b.customer, b.hold_until,
                    (select o.from_at from occupancies o
                     where o.rental = r.id order by o.id desc limit 1) as occupied_from,
                    (select string_agg(a.address, ' ') from addresses a
                     where a.peer = h.id and a.released_at is null) as inner_addresses, ",
            blocks!(),
            permitting!($which)
        )
    };
}

/// Those that end after `$1`.
const OPEN: &str = rows!("coalesce(min(r.ended_at, r.until_at), r.until_at) > $1");
const OPEN_IDS: &str =
    concat!("select r.id", permitting!("coalesce(min(r.ended_at, r.until_at), r.until_at) > $1"));
/// `$1`: the ids as JSON.
const THESE: &str = rows!("r.id in (select value from json_each($1))");

/// The entry of a rental in the policy.
pub struct Permission {
    pub target: TargetSpec,
    pub grant: GrantSpec,
}

impl FromRow<'_, SqliteRow> for Permission {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let (rental, device) = (id(row, "id")?, id(row, "device")?);
        let life = life(row)?;
        let (from, until) = life.access().ok_or_else(|| damaged("end_reason"))?;
        let gate = Gate {
            awaits_handover: life.handover.is_awaited(),
            handed_over_at: life.handover.done_at(),
            blocks: blocks_column(row)?,
        };
        let alias = aliases::alias(row)?.ok_or_else(|| damaged("alias_slot"))?;
        let real = inner_addresses(row)?;
        let address = |reached_at: IpAddr| {
            let real = real.iter().find(|real| real.is_ipv4() == reached_at.is_ipv4());
            real.map(|real| TargetAddress { reached_at, real: *real })
        };
        let target = TargetSpec {
            id: TargetId::Rental(rental),
            host: device,
            name: row.try_get("name")?,
            peer: device,
            behind: false,
            labels: BTreeMap::new(),
            addresses: alias.addresses.into_iter().filter_map(address).collect(),
        };
        let grant = GrantSpec {
            id: rental,
            source: GrantSource::Customer(id(row, "customer")?),
            target: GrantTarget::Rental(rental),
            // What was ended stays so, also if the clock is set back to a time before.
            access: if life.ending.is_none() { access_column(row)? } else { Vec::new() },
            // Its present device was perhaps that of another rental before a swap, whose window opens again if the
            // clock is set back.
            from: Some(from).max(maybe_wall(row, "occupied_from")?),
            until: Some(until),
            only: admits(row)?,
            gate,
        };
        Ok(Permission { target, grant })
    }
}

/// Returns the rows of the rentals that have not been over for a day by this clock, for the start.
///
/// # Errors
/// Fails when the database cannot be read.
pub(in crate::store) async fn open(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<SqliteRow>> {
    sqlx::query(OPEN).bind((now - ALIAS_RESTS).as_millis()).fetch_all(conn).await
}

/// Returns the ids of the same rentals.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn open_ids(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<RentalId>> {
    let since = (now - ALIAS_RESTS).as_millis();
    let ids: Vec<i64> = sqlx::query_scalar(OPEN_IDS).bind(since).fetch_all(conn).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

/// Returns those of these rentals that permit something at some time.
///
/// # Errors
/// Fails when the database cannot be read.
pub(in crate::store) async fn these(
    conn: &mut SqliteConnection,
    rentals: &BTreeSet<RentalId>,
) -> sqlx::Result<Vec<SqliteRow>> {
    if rentals.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<i64> = rentals.iter().map(|id| id.as_i64()).collect();
    sqlx::query(THESE).bind(Json(ids)).fetch_all(conn).await
}

/// Of two calls, such as the end of a rental and the booking of the next one on its device, the engine may hear of the
/// later one first. So it learns of both with either. Between a commit and its way to the engine there are not as
/// many other changes.
const CHANGED_LATELY: &str = "select l.rental from rental_changes l
     where l.id > (select max(id) from rental_changes) - 200
       and exists (select 1 from rental_changes h
                   where h.rental = l.rental
                     and h.device in (select device from rentals
                                      where id in (select value from json_each($1))))";

/// Returns the rentals that were changed lately, of those that have or had a device of one of these.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn changed_lately(
    conn: &mut SqliteConnection,
    rentals: &BTreeSet<RentalId>,
) -> sqlx::Result<BTreeSet<RentalId>> {
    selected(conn, CHANGED_LATELY, rentals).await
}

const OF_DEVICES: &str = "select id from rentals where device in (select value from json_each($1))
     and alias_slot is not null and alias_freed_at is null";

/// Returns the rentals of these devices that may be in the policy: a change of the device changes them.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_devices(
    conn: &mut SqliteConnection,
    devices: &BTreeSet<HostId>,
) -> sqlx::Result<BTreeSet<RentalId>> {
    selected(conn, OF_DEVICES, devices).await
}

const OF_CUSTOMER: &str = "select r.id from rentals r join bookings b on b.id = r.booking
     where b.customer in (select value from json_each($1)) and r.alias_slot is not null and r.alias_freed_at is null";

/// Returns the rentals of a customer that may be in the policy, which has their names.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_customer(
    conn: &mut SqliteConnection,
    customer: CustomerId,
) -> sqlx::Result<BTreeSet<RentalId>> {
    selected(conn, OF_CUSTOMER, &[customer].into()).await
}

/// Returns the ids that a statement selects by these.
async fn selected(
    conn: &mut SqliteConnection,
    sql: &'static str,
    by: &BTreeSet<Id>,
) -> sqlx::Result<BTreeSet<RentalId>> {
    if by.is_empty() {
        return Ok(BTreeSet::new());
    }
    let by: Vec<i64> = by.iter().map(|id| id.as_i64()).collect();
    let ids: Vec<i64> = sqlx::query_scalar(sql).bind(Json(by)).fetch_all(conn).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

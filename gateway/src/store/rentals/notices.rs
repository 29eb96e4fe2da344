//! What the contacts of running rentals know of their devices, and what these devices are like now.
//!
//! `fleetgate_engine::rental::notices` decides what is sent, and `messages.rs` has it until it is.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id, RentalId};
use fleetgate_engine::messages::GATEWAY;
use fleetgate_engine::rental::notices::{KnownProblems, Problem, Rented, Shown, Stage};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow as _, Row as _};

use super::messages::{self, state_named};
use super::{Rental, damaged, select};
use crate::store::access::{id, maybe_wall, wall};

/// Rentals with contacts in their window whose device has a problem, or had one that is known.
const CONCERNED: &str = select!(
    "where r.contacts is not null and r.ended_at is null and r.until_at > $1 and r.from_at <= $1
       and (exists (select 1 from rental_problems p where p.rental = r.id)
            or exists (select 1 from host_states s where s.host = r.device and s.hard = 'down')
            or exists (select 1 from service_states c
                       where c.host = r.device and c.hard in ('critical', 'unknown')))
     order by r.id"
);

/// Returns the active rentals whose contacts may be sent something. One that cannot be read is left out: its events
/// have reported it.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn concerned(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<Rental>> {
    let rows = sqlx::query(CONCERNED).bind(now.as_millis()).fetch_all(conn).await?;
    let readable = rows.iter().filter_map(|row| Rental::from_row(row).ok());
    Ok(readable.filter(|rental| rental.sends_to_contacts(now)).collect())
}

/// Returns the rentals of which something is known or was sent, but whose contacts get nothing any more.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn over(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<RentalId>> {
    let sql = "select rental from rental_problems union select rental from rental_messages order by 1";
    let followed: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut *conn).await?;
    let mut over = Vec::new();
    for rental in followed.into_iter().map(Id::from_i64) {
        let sends = match super::find(conn, rental).await {
            Ok(found) => found.is_some_and(|rental| rental.sends_to_contacts(now)),
            // One that cannot be read sends nothing.
            Err(sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_)) => false,
            Err(error) => return Err(error),
        };
        if !sends {
            over.push(rental);
        }
    }
    Ok(over)
}

/// Forgets what the contacts of a rental know, and what waits for them.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn forget(tx: &mut SqliteConnection, rental: RentalId) -> sqlx::Result<()> {
    for sql in
        ["delete from rental_problems where rental = $1", "delete from rental_messages where rental = $1"]
    {
        sqlx::query(sql).bind(rental.as_i64()).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Returns since when the customer has the device, and how much the contacts were sent.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rented(conn: &mut SqliteConnection, rental: &Rental, now: Wall) -> sqlx::Result<Rented> {
    let sql = r#"select max(iif(what = 'changed' and changed like '%"device"%', at, null)),
                        max(iif(what = 'handed_over', at, null))
                 from rental_changes where rental = $1"#;
    let (swapped_at, forced_at): (Option<i64>, Option<i64>) =
        sqlx::query_as(sql).bind(rental.id.as_i64()).fetch_one(&mut *conn).await?;
    let begins_at = rental.life.begins_at().unwrap_or(rental.life.window.from());
    Ok(Rented {
        device: rental.device,
        had_from: swapped_at.map_or(begins_at, |at| begins_at.max(Wall::from_millis(at))),
        is_forced: forced_at.is_some_and(|forced| swapped_at.is_none_or(|swapped| swapped <= forced)),
        sent: messages::lately(conn, rental.id, now).await?,
    })
}

/// Returns the problems that are known of a rental.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid.
pub async fn known(conn: &mut SqliteConnection, rental: RentalId) -> sqlx::Result<KnownProblems> {
    let sql = "select * from rental_problems where rental = $1";
    let rows = sqlx::query(sql).bind(rental.as_i64()).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get("service")?, problem(row)?))).collect()
}

fn problem(row: &SqliteRow) -> sqlx::Result<Problem> {
    let (state, stage): (&str, &str) = (row.try_get("state")?, row.try_get("stage")?);
    let stage = Stage::ALL.into_iter().find(|known| known.name() == stage);
    Ok(Problem {
        device: id(row, "device")?,
        state: state_named(state).ok_or_else(|| damaged("state"))?,
        since: wall(row, "since")?,
        stage: stage.ok_or_else(|| damaged("stage"))?,
        stage_at: wall(row, "stage_at")?,
    })
}

/// Replaces the problems that are known of a rental.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn keep(tx: &mut SqliteConnection, rental: RentalId, known: &KnownProblems) -> sqlx::Result<()> {
    let sql = "delete from rental_problems where rental = $1";
    sqlx::query(sql).bind(rental.as_i64()).execute(&mut *tx).await?;
    for (service, problem) in known {
        let sql = "insert into rental_problems (rental, service, device, state, since, stage, stage_at)
                   values ($1, $2, $3, $4, $5, $6, $7)";
        sqlx::query(sql)
            .bind(rental.as_i64())
            .bind(service)
            .bind(problem.device.as_i64())
            .bind(problem.state.name())
            .bind(problem.since.as_millis())
            .bind(problem.stage.name())
            .bind(problem.stage_at.as_millis())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// The device or a service as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub shown: Shown,
    pub output: String,
    pub last_check: Option<Wall>,
}

/// The device and its services. What suppresses the notifications of operators hides them, except acknowledgements
/// and settings. The service `rental` is about the handover of the device, and is the matter of operators.
const SEEN: &str = "with uplink as (select exists (select 1 from incident_members
                                                  where host = $2 and left_at is null) as lost)
     select '' as service, h.hard_since, h.last_check, '' as output, case
             when uplink.lost or h.asleep or h.stale or h.notification ->> '$.awaits_result'
                  or h.notification ->> '$.in_downtime' or h.notification ->> '$.flapping'
                  or h.notification ->> '$.suppressed_by' = 'parent_in_doubt' then 'hidden'
             when h.hard = 'down' then iif(h.reachable = 1, 'down', 'unreachable')
             when h.hard = 'up' and h.reachable = 1 then 'fine'
             else 'hidden'
         end as shown
     from host_states h join uplink where h.host = $1
     union all
     select s.service, s.hard_since, s.last_check, s.output, case
             when uplink.lost or h.hard = 'down' or h.reachable = 0 or s.stale
                  or s.notification ->> '$.awaits_result' or s.notification ->> '$.in_downtime'
                  or s.notification ->> '$.flapping'
                  or s.notification ->> '$.suppressed_by' = 'parent_in_doubt' then 'hidden'
             when s.hard in ('critical', 'unknown') then s.hard
             when s.hard in ('ok', 'warning') then 'fine'
             else 'hidden'
         end as shown
     from host_states h join service_states s on s.host = h.host join uplink
     where h.host = $1 and s.service <> 'rental'";

/// Returns a device and its services, by name. The empty name is the device itself, whose output would name addresses
/// and is left out.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn seen(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<BTreeMap<String, Seen>> {
    let rows = sqlx::query(SEEN).bind(device.as_i64()).bind(GATEWAY.as_i64()).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get("service")?, one_seen(row)?))).collect()
}

fn one_seen(row: &SqliteRow) -> sqlx::Result<Seen> {
    let name: &str = row.try_get("shown")?;
    let shown = match (name, state_named(name)) {
        ("fine", _) => Shown::Fine,
        (_, Some(state)) => Shown::Bad { state, since: wall(row, "hard_since")? },
        (_, None) => Shown::Hidden,
    };
    Ok(Seen { shown, output: row.try_get("output")?, last_check: maybe_wall(row, "last_check")? })
}

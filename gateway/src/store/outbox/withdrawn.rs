//! Withdraws notices whose recipient or subject is gone: a removed contact, a changed address, or a
//! removed host or service.
//!
//! A removal leaves the outbox alone. The dispatcher checks before each attempt, so that a message
//! created at the same moment cannot slip through.

use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::MessageRow;
use crate::store::backlog::{DROPPED, Dropped, GIVE_UP_EMPTY};
use crate::store::contacts::BUILT_IN;

/// The reason for withdrawing a notice.
pub const REMOVED: &str = "superseded: it was removed";
/// Messages checked at once. The next check takes the following ones.
const LOOK: i64 = 500;

/// The address of a contact that is gone or has other addresses. The settings define the built-in
/// contact. Without them (`$3` null) its address cannot be compared.
macro_rules! unreachable {
    () => {
        "o.sent_at is null and o.given_up_at is null and case
             when o.contact = $2 then $3 is not null and o.channel = 'email'
                                      and o.address not in (select value from json_each($3))
             else not exists (select 1 from contacts c where c.id = o.contact and case o.channel
                 when 'email' then o.address in (select value from json_each(c.emails))
                 else c.webhook_url = o.address end) end"
    };
}

/// Hosts and services that are gone. The gateway is no row of `hosts`.
macro_rules! gone {
    () => {
        "l.dropped is null and (exists (select 1 from hosts h where h.id = n.host and h.removed_at is not null)
             or (n.service is not null and exists (select 1 from host_states t where t.host = n.host)
                 and not exists (select 1 from service_states s where s.host = n.host and s.service = n.service)))"
    };
}

const UNREACHABLE: &str = concat!("select o.* from outbox o where ", unreachable!(), " limit $1");
const IS_UNREACHABLE: &str =
    concat!("select exists (select 1 from outbox o where o.id = $1 and ", unreachable!(), ")");
const ABOUT_GONE: &str = concat!(
    "select distinct o.id from outbox o join outbox_notices l on l.message = o.id join notices n on n.id = l.notice
     where o.sent_at is null and o.given_up_at is null and ",
    gone!(),
    " limit $1"
);
const DROP_GONE: &str = concat!(
    "update outbox_notices as l set dropped = $2 from notices n
     where n.id = l.notice and l.message in (select value from json_each($1)) and ",
    gone!(),
    " returning notice"
);

/// The addresses of the built-in contact. `None` if they are unknown.
pub type BuiltIn<'a> = Option<&'a [String]>;

/// Returns waiting messages whose contact no longer has the address.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn unreachable(
    conn: &mut SqliteConnection,
    built_in: BuiltIn<'_>,
) -> sqlx::Result<Vec<MessageRow>> {
    let found = sqlx::query_as(UNREACHABLE).bind(LOOK).bind(BUILT_IN.as_i64()).bind(built_in.map(Json));
    found.fetch_all(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn is_unreachable(
    conn: &mut SqliteConnection,
    message: i64,
    built_in: BuiltIn<'_>,
) -> sqlx::Result<bool> {
    let found = sqlx::query_scalar(IS_UNREACHABLE).bind(message).bind(BUILT_IN.as_i64());
    found.bind(built_in.map(Json)).fetch_one(conn).await
}

/// Returns waiting messages about removed hosts or services.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn about_gone(conn: &mut SqliteConnection) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(ABOUT_GONE).bind(LOOK).fetch_all(conn).await
}

/// Drops the notices about removed hosts and services from these messages. Returns the dropped
/// ones.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn drop_gone(tx: &mut SqliteConnection, messages: &[i64], now: Wall) -> sqlx::Result<Vec<Dropped>> {
    let gone: Vec<i64> =
        sqlx::query_scalar(DROP_GONE).bind(Json(messages)).bind(REMOVED).fetch_all(&mut *tx).await?;
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let mut dropped: Vec<Dropped> = sqlx::query_as(DROPPED).bind(Json(messages)).fetch_all(&mut *tx).await?;
    dropped.retain(|dropped| dropped.why == REMOVED && gone.contains(&dropped.notice));
    sqlx::query(GIVE_UP_EMPTY).bind(Json(messages)).bind(now.as_millis()).execute(tx).await?;
    Ok(dropped)
}

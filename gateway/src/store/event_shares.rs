//! The share of the event log that each host has used today, and the log row that counts its
//! unlisted events.
//!
//! This module decides nothing. The writer selects the listed events (`writer/share.rs`).

use std::sync::LazyLock;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::events::{self, NewEvent, SYSTEM};
use super::rows::{Batched, NARROW};

/// The kind of the counting row.
const NOT_LISTED: &str = "state.not_listed";

/// The share of a host on one day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub host: HostId,
    pub listed: u32,
    pub counted: u32,
    pub event: Option<i64>,
}

/// Returns the shares of these hosts on this day. Hosts without events have no row.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of(conn: &mut SqliteConnection, hosts: &[HostId], day: i64) -> sqlx::Result<Vec<Row>> {
    let hosts: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
    let sql = "select host, listed, counted, event from event_shares
               where day = $1 and host in (select value from json_each($2))";
    let rows: Vec<(i64, u32, u32, Option<i64>)> =
        sqlx::query_as(sql).bind(day).bind(Json(hosts)).fetch_all(conn).await?;
    let row = |(host, listed, counted, event)| Row { host: Id::from_i64(host), listed, counted, event };
    Ok(rows.into_iter().map(row).collect())
}

static SHARES: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 5, |values| {
        format!(
            "insert into event_shares (host, day, listed, counted, event) values {values}
             on conflict (host) do update set day = excluded.day, listed = excluded.listed,
                    counted = excluded.counted, event = excluded.event"
        )
    })
});

/// # Errors
/// Fails when the database refuses the write.
pub async fn write(conn: &mut SqliteConnection, day: i64, rows: &[Row]) -> sqlx::Result<()> {
    SHARES
        .run(conn, rows, |row, arguments| {
            let host = row.host.as_i64();
            arguments.add(host).add(day).add(row.listed).add(row.counted).add(row.event);
        })
        .await
}

/// Records in the log the number of unlisted soft changes of a host. Writes a new row (`None`) or
/// updates the earlier one. Returns the row's number.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn tell_counted(conn: &mut SqliteConnection, row: &Row, at: Wall) -> sqlx::Result<i64> {
    let date = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default().strftime("%Y-%m-%d");
    let (counted, s) = (row.counted, if row.counted == 1 { "" } else { "s" });
    let cause = format!(
        "{counted} soft change{s} more on {date} (UTC), not listed: the host had its share of events"
    );
    let data = serde_json::json!({ "soft_changes": counted, "date": date.to_string() });
    if let Some(seq) = row.event {
        let sql = "update events set cause = $2, data = $3 where seq = $1";
        sqlx::query(sql).bind(seq).bind(&cause).bind(data.to_string()).execute(conn).await?;
        return Ok(seq);
    }
    let about = events::about(row.host, false);
    events::append(conn, &NewEvent { data, ..NewEvent::new(at, NOT_LISTED, about, &cause, SYSTEM) }).await
}

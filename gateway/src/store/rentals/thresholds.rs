//! The thresholds that services of a device have while a rental is active, in place of their own.
//!
//! `store/snapshot/host_rows.rs` makes the hosts for the monitor with them.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::Threshold;
use serde_json::{Map, Value};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use super::damaged;
use crate::store::definition;

/// The thresholds of a rental, by service.
pub type Limits = BTreeMap<String, Vec<Threshold>>;

pub(super) fn thresholds(row: &SqliteRow) -> sqlx::Result<Limits> {
    let stored: Option<Json<Map<String, Value>>> = row.try_get("thresholds")?;
    let stored = stored.map(|stored| stored.0).unwrap_or_default();
    let read = |(service, list): (String, Value)| {
        let own = definition::thresholds(&list).map_err(|_| damaged("thresholds"));
        own.map(|own| (service, own))
    };
    stored.into_iter().map(read).collect()
}

/// The value of the column `thresholds`.
pub(super) fn thresholds_row(limits: &Limits) -> Option<Json<Map<String, Value>>> {
    let json =
        |(service, own): (&String, &Vec<Threshold>)| (service.clone(), definition::thresholds_json(own));
    Some(limits.iter().map(json).collect()).filter(|limits: &Map<String, Value>| !limits.is_empty()).map(Json)
}

/// Devices whose services have the thresholds of a rental now, by an index. Of two rentals the later one counts, as in
/// `host_rows.rs`.
const IN_FORCE: &str = "select device, thresholds from rentals indexed by rentals_of_now
     where announced_state not in ('closed', 'cancelled', 'failed') and announced_state = 'active'
       and thresholds is not null
     order by id";

/// Returns the thresholds of the rentals that are active, as they are stored, by device.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn in_force(conn: &mut SqliteConnection) -> sqlx::Result<BTreeMap<HostId, String>> {
    let rows: Vec<(i64, String)> = sqlx::query_as(IN_FORCE).fetch_all(conn).await?;
    Ok(rows.into_iter().map(|(device, limits)| (Id::from_i64(device), limits)).collect())
}

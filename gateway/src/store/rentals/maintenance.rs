//! The maintenance that is planned within a rental. Its comments are the client's own, and go with the customer.

use fleetgate_engine::id::CustomerId;
use fleetgate_engine::rental::maintenance::Maintenance;
use fleetgate_engine::rental::occupancy::Window;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

use super::damaged;

#[derive(Serialize, Deserialize)]
pub(super) struct MaintenanceRow {
    from: i64,
    until: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    comment: String,
}

pub(super) fn maintenance(row: &SqliteRow) -> sqlx::Result<Vec<Maintenance>> {
    let stored: Option<Json<Vec<MaintenanceRow>>> = row.try_get("maintenance")?;
    let read = |row: MaintenanceRow| -> sqlx::Result<Maintenance> {
        let window = Window::new(Wall::from_millis(row.from), Wall::from_millis(row.until));
        let window = window.ok_or_else(|| damaged("maintenance"))?;
        Ok(Maintenance { window, comment: row.comment })
    };
    stored.map(|stored| stored.0).unwrap_or_default().into_iter().map(read).collect()
}

/// The value of the column `maintenance`.
pub(super) fn maintenance_row(planned: &[Maintenance]) -> Option<Json<Vec<MaintenanceRow>>> {
    let row = |of: &Maintenance| MaintenanceRow {
        from: of.window.from().as_millis(),
        until: of.window.until().as_millis(),
        comment: of.comment.clone(),
    };
    Some(planned.iter().map(row).collect()).filter(|rows: &Vec<MaintenanceRow>| !rows.is_empty()).map(Json)
}

/// Deletes the comments of all rentals of a customer.
pub(super) async fn erase(tx: &mut SqliteConnection, customer: CustomerId) -> sqlx::Result<()> {
    let sql = "update rentals set version = version + 1,
                   maintenance = (select json_group_array(json_remove(value, '$.comment')) from json_each(maintenance))
               where maintenance is not null and booking in (select id from bookings where customer = $1)";
    sqlx::query(sql).bind(customer.as_i64()).execute(tx).await.map(drop)
}

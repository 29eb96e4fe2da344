//! The references of bookings and the names of rentals. Clients chose them, so only their own rows have them.

use std::collections::{BTreeMap, BTreeSet};

use fleetgate_engine::id::Id;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use crate::ids::IdKind;

/// What a client called a booking or rental.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// That of the booking.
    pub external_ref: Option<String>,
    /// `None`: of a booking.
    pub name: Option<String>,
}

/// Whether it is a rental, its id, and its reference.
type Row = (i64, i64, Option<String>, Option<String>);

/// Returns the present references of rentals and bookings, by their ids as texts.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of(
    conn: &mut SqliteConnection,
    rentals: &BTreeSet<Id>,
    bookings: &BTreeSet<Id>,
) -> sqlx::Result<BTreeMap<String, Reference>> {
    let ids = |of: &BTreeSet<Id>| Json(of.iter().map(|id| id.as_i64()).collect::<Vec<i64>>());
    let sql = "select 1, r.id, b.external_ref, r.name from rentals r join bookings b on b.id = r.booking
               where r.id in (select value from json_each($1))
               union all
               select 0, b.id, b.external_ref, null from bookings b where b.id in (select value from json_each($2))";
    let rows: Vec<Row> = sqlx::query_as(sql).bind(ids(rentals)).bind(ids(bookings)).fetch_all(conn).await?;
    let reference = |(is_rental, id, external_ref, name): Row| {
        let kind = if is_rental == 1 { IdKind::Rental } else { IdKind::Booking };
        (kind.text(Id::from_i64(id)), Reference { external_ref, name })
    };
    Ok(rows.into_iter().map(reference).collect())
}

//! The contacts, who get messages about the device of a rental while it runs. Personal data, which goes with the
//! customer.

use fleetgate_engine::id::CustomerId;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;

/// Someone who gets messages about the device of a rental.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    pub name: Option<String>,
    pub email: String,
}

pub(super) fn contacts(row: &SqliteRow) -> sqlx::Result<Vec<Contact>> {
    let contacts: Option<Json<Vec<Contact>>> = row.try_get("contacts")?;
    Ok(contacts.map(|contacts| contacts.0).unwrap_or_default())
}

/// The value of the column `contacts`.
pub(super) fn contacts_row(contacts: &[Contact]) -> Option<Json<&[Contact]>> {
    Some(contacts).filter(|contacts| !contacts.is_empty()).map(Json)
}

/// Deletes the contacts of all rentals of a customer, and what they were sent.
pub(super) async fn erase(tx: &mut SqliteConnection, customer: CustomerId) -> sqlx::Result<()> {
    for sql in [
        "delete from rental_messages where rental in
             (select r.id from rentals r join bookings b on b.id = r.booking where b.customer = $1)",
        "update rentals set contacts = null, version = version + 1
         where contacts is not null and booking in (select id from bookings where customer = $1)",
    ] {
        sqlx::query(sql).bind(customer.as_i64()).execute(&mut *tx).await?;
    }
    Ok(())
}

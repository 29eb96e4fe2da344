//! Customers. Their names and contacts are personal data, which is erased with them.

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::{contacts, maintenance};
use crate::ids::{IdKind, Named};
use crate::store::access::{id, wall};
use crate::store::idempotency;
use crate::store::lists::{Entry, ListRow};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    pub id: Id,
    pub external_ref: Option<String>,
    pub name: String,
    pub contacts: Vec<Contact>,
    /// Counts the changes of people and programs.
    pub version: i64,
    pub created_at: Wall,
}

impl Customer {
    /// A customer of whom nothing is known.
    pub fn new(id: Id, now: Wall) -> Customer {
        let name = String::new();
        Customer { id, external_ref: None, name, contacts: Vec::new(), version: 1, created_at: now }
    }
}

/// How a customer is reached. Plain data: the gateway sends nothing there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    pub name: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
}

impl FromRow<'_, SqliteRow> for Customer {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let contacts: Json<Vec<Contact>> = row.try_get("contacts")?;
        Ok(Customer {
            id: id(row, "id")?,
            external_ref: row.try_get("external_ref")?,
            name: row.try_get("name")?,
            contacts: contacts.0,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

impl ListRow for Customer {
    const TABLE: &'static str = "customers";
}

/// Adds a customer.
///
/// # Errors
/// Fails when another one has this `external_ref` (a unique violation), or the database cannot be
/// written.
pub async fn insert(tx: &mut SqliteConnection, customer: &Customer) -> sqlx::Result<()> {
    let sql = "insert into customers (id, external_ref, name, contacts, created_at, version)
               values ($1, $2, $3, $4, $5, $6)";
    sqlx::query(sql)
        .bind(customer.id.as_i64())
        .bind(customer.external_ref.as_deref())
        .bind(&customer.name)
        .bind(Json(&customer.contacts))
        .bind(customer.created_at.as_millis())
        .bind(customer.version)
        .execute(tx)
        .await
        .map(drop)
}

/// Stores a changed customer and raises the version.
///
/// # Errors
/// Fails as [`insert`] does.
pub async fn update(tx: &mut SqliteConnection, customer: &Customer) -> sqlx::Result<()> {
    let sql = "update customers set external_ref = $2, name = $3, contacts = $4, version = version + 1
               where id = $1";
    sqlx::query(sql)
        .bind(customer.id.as_i64())
        .bind(customer.external_ref.as_deref())
        .bind(&customer.name)
        .bind(Json(&customer.contacts))
        .execute(tx)
        .await
        .map(drop)
}

/// Returns a customer by the id or the `external_ref`. One who was erased is not found.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, named: &Named) -> sqlx::Result<Option<Customer>> {
    match named {
        Named::Id(id) => {
            let sql = "select * from customers where id = $1 and erased_at is null";
            sqlx::query_as(sql).bind(id.as_i64()).fetch_optional(conn).await
        }
        Named::Name(external_ref) => {
            let sql = "select * from customers where external_ref = $1";
            sqlx::query_as(sql).bind(external_ref).fetch_optional(conn).await
        }
    }
}

const LIST: &str = "select * from customers
     where id < $1 and erased_at is null and ($2 is null or external_ref = $2) order by id desc limit $3";

/// Returns the newest customers first, below an id.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    external_ref: Option<&str>,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Entry<Customer>>> {
    sqlx::query_as(LIST).bind(before).bind(external_ref).bind(limit).fetch_all(conn).await
}

/// Counts the customers.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn count(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from customers where erased_at is null").fetch_one(conn).await
}

/// Deletes the personal data of a customer, the contacts and names of the rentals, and what the client wrote about the
/// bookings, their references included. The rows stay without it. Stored answers to repeated calls are of the time before, so
/// those about the customer are deleted.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn erase(tx: &mut SqliteConnection, customer: Id, now: Wall) -> sqlx::Result<()> {
    let sql = "update customers set external_ref = null, name = '', contacts = '[]', erased_at = $2,
                   version = version + 1
               where id = $1";
    sqlx::query(sql).bind(customer.as_i64()).bind(now.as_millis()).execute(&mut *tx).await?;
    for sql in [
        "update bookings set external_ref = null, notes = '', metadata = '{}', version = version + 1
         where customer = $1",
        // A name stays a DNS label, and unique.
        "update rentals set name = 'rental-' || id, end_note = '', version = version + 1
         where booking in (select id from bookings where customer = $1)",
        // The keys of renters, on a device that is not reached. That they are to be removed there stays.
        "update device_ssh_access set granted = null
         where rental in (select r.id from rentals r join bookings b on b.id = r.booking where b.customer = $1)",
    ] {
        sqlx::query(sql).bind(customer.as_i64()).execute(&mut *tx).await?;
    }
    idempotency::forget_answers(tx, &IdKind::Customer.text(customer)).await?;
    maintenance::erase(tx, customer).await?;
    contacts::erase(tx, customer).await
}

//! The people of customers. Their names and mail addresses are personal data, which leaves with them.

use fleetgate_engine::id::{CustomerId, PersonId};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::person_sessions;
use crate::store::access::{id, wall};

/// A person who uses what a customer rents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: PersonId,
    pub customer: CustomerId,
    pub name: String,
    pub email: Option<String>,
    /// Counts the changes of people and programs.
    pub version: i64,
    pub created_at: Wall,
}

impl Person {
    /// A person of whom nothing is known.
    pub fn new(id: PersonId, customer: CustomerId, now: Wall) -> Person {
        Person { id, customer, name: String::new(), email: None, version: 1, created_at: now }
    }
}

impl FromRow<'_, SqliteRow> for Person {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Person {
            id: id(row, "id")?,
            customer: id(row, "customer")?,
            name: row.try_get("name")?,
            email: row.try_get("email")?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

/// Adds a person.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, person: &Person) -> sqlx::Result<()> {
    sqlx::query("insert into people (id, customer, name, email, created_at) values ($1, $2, $3, $4, $5)")
        .bind(person.id.as_i64())
        .bind(person.customer.as_i64())
        .bind(&person.name)
        .bind(person.email.as_deref())
        .bind(person.created_at.as_millis())
        .execute(tx)
        .await
        .map(drop)
}

/// Stores a changed person and raises the version.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, person: &Person) -> sqlx::Result<()> {
    let sql = "update people set name = $2, email = $3, version = version + 1 where id = $1";
    let query = sqlx::query(sql).bind(person.id.as_i64()).bind(&person.name).bind(person.email.as_deref());
    query.execute(tx).await.map(drop)
}

/// Returns a person. One who was removed is not found.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, person: PersonId) -> sqlx::Result<Option<Person>> {
    let sql = "select * from people where id = $1 and removed_at is null";
    sqlx::query_as(sql).bind(person.as_i64()).fetch_optional(conn).await
}

const LIST: &str = "select * from people
     where id < $1 and removed_at is null and ($2 is null or customer = $2) order by id desc limit $3";

/// Returns the newest people first, below an id. `customer`: only those of this customer.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    customer: Option<CustomerId>,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Person>> {
    let query = sqlx::query_as(LIST).bind(before).bind(customer.map(CustomerId::as_i64)).bind(limit);
    query.fetch_all(conn).await
}

/// Returns the people of a customer, the oldest first.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_customer(conn: &mut SqliteConnection, customer: CustomerId) -> sqlx::Result<Vec<Person>> {
    let sql = "select * from people where customer = $1 and removed_at is null order by id";
    sqlx::query_as(sql).bind(customer.as_i64()).fetch_all(conn).await
}

/// Removes a person with all personal data and sessions. The row stays without them.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, person: PersonId, now: Wall) -> sqlx::Result<()> {
    person_sessions::end_those_of(tx, person).await?;
    let sql = "update people set name = '', email = null, removed_at = $2, version = version + 1
               where id = $1";
    sqlx::query(sql).bind(person.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;
    use crate::store::rentals::customers;
    use crate::store::{files, fixture};

    #[tokio::test]
    async fn the_data_of_a_removed_person_is_not_left_in_the_file() {
        let (store, dir) = fixture::store().await;
        let (customer, now) = (Id::from_i64(1), Wall::from_millis(1_000));
        let mut tx = store.begin().await.unwrap();
        customers::insert(&mut tx, &customers::Customer::new(customer, now)).await.unwrap();
        let ada = Person::new(Id::from_i64(11), customer, now);
        let ada =
            Person { name: "Ada Lovelace".into(), email: Some("ada.lovelace@example.net".into()), ..ada };
        insert(&mut tx, &ada).await.unwrap();
        tx.commit().await.unwrap();
        let has = async |text: &str| {
            let sql = "pragma wal_checkpoint(truncate)";
            let written: (i64, i64, i64) = sqlx::query_as(sql).fetch_one(&store.write).await.unwrap();
            assert_eq!(written, (0, 0, 0), "all of the log is in the file");
            let file = std::fs::read(dir.path().join(files::MAIN_FILE)).unwrap();
            file.windows(text.len()).any(|part| part == text.as_bytes())
        };
        assert!(has("Ada Lovelace").await && has("ada.lovelace@example.net").await);
        let mut tx = store.begin().await.unwrap();
        remove(&mut tx, ada.id, now).await.unwrap();
        tx.commit().await.unwrap();
        let secure: i64 = sqlx::query_scalar("pragma secure_delete").fetch_one(&store.write).await.unwrap();
        assert_eq!(secure, 2);
        assert!(!has("Ada Lovelace").await);
        assert!(!has("ada.lovelace@example.net").await);
    }
}

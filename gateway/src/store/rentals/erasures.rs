//! Erasures of customers that are known from outside of the database: a backup that was made before an
//! erasure has the personal data again.
//!
//! This module asks for no open rental. The customer was erased when there was none, and a restored rental
//! stays without the data.

use std::collections::BTreeMap;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use serde_json::json;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::customers;
use crate::ids::Kind;
use crate::store::events::{self, NewEvent, Object};

/// A customer that was erased, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    pub customer: Id,
    pub at: Wall,
}

/// Returns the customers that the database knows as erased, in the order of their ids.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn all(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Erasure>> {
    let sql = "select id, erased_at from customers where erased_at is not null order by id";
    let rows: Vec<(i64, i64)> = sqlx::query_as(sql).fetch_all(conn).await?;
    let erasure = |(id, at)| Erasure { customer: Id::from_i64(id), at: Wall::from_millis(at) };
    Ok(rows.into_iter().map(erasure).collect())
}

/// Erases those of these customers that are not erased, with an event each, and returns them. Unknown ids
/// are left out.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn apply(tx: &mut SqliteConnection, erasures: &[Erasure], now: Wall) -> sqlx::Result<Vec<Id>> {
    let ids: BTreeMap<i64, Wall> = erasures.iter().map(|e| (e.customer.as_i64(), e.at)).collect();
    let sql = "select id from customers where erased_at is null and id in (select value from json_each($1))";
    let known: Vec<i64> = ids.keys().copied().collect();
    let present: Vec<i64> = sqlx::query_scalar(sql).bind(Json(known)).fetch_all(&mut *tx).await?;
    let mut erased = Vec::with_capacity(present.len());
    for id in present {
        let customer = Id::from_i64(id);
        customers::erase(tx, customer, ids.get(&id).copied().unwrap_or(now)).await?;
        let data = json!({ "id": Kind::Customer.text(customer) });
        let about = (Object::Customer, Some(customer));
        let event = NewEvent::new(now, "customer.erased", about, AGAIN, events::SYSTEM);
        events::append(tx, &NewEvent { data, ..event }).await?;
        erased.push(customer);
    }
    Ok(erased)
}

/// Why the gateway erases a customer by itself.
const AGAIN: &str = "erased according to the file erased-ids";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    fn erasure(customer: i64, at: i64) -> Erasure {
        Erasure { customer: Id::from_i64(customer), at: Wall::from_millis(at) }
    }

    #[tokio::test]
    async fn only_those_that_have_data_are_erased_and_unknown_ids_harm_nothing() {
        let (store, _dir) = fixture::store().await;
        let insert = "insert into customers (id, external_ref, name, created_at, erased_at)
            values (1, 'crm-1', 'Ada', 1, null), (2, 'crm-2', 'Bob', 1, null), (3, null, '', 1, 500)";
        fixture::run(&store, insert, &[]).await;
        let mut tx = store.begin().await.unwrap();
        let known = [erasure(1, 600), erasure(1, 700), erasure(3, 800), erasure(99, 900)];
        let now = Wall::from_millis(1_000);
        assert_eq!(apply(&mut tx, &known, now).await.unwrap(), [Id::from_i64(1)]);
        assert_eq!(apply(&mut tx, &known, now).await.unwrap(), []);
        assert_eq!(all(&mut tx).await.unwrap(), [erasure(1, 700), erasure(3, 500)]);
        tx.commit().await.unwrap();
        assert_eq!(fixture::texts(&store, "select name from customers order by id").await, ["", "Bob", ""]);
        let events = fixture::texts(&store, "select principal from events where kind = 'customer.erased'");
        assert_eq!(events.await, ["system"]);
    }
}

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

use super::{customers, people, renters};
use crate::ids::IdKind;
use crate::store::events::{self, NewEvent, Object};
use crate::store::tokens;

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

/// Erases those of these customers that are not erased, and removes their people and renters, with an event
/// each. Returns the customers. Unknown ids are left out.
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
        remove_people(tx, customer, now).await?;
        for token in tokens::erase_those_of(tx, customer, now).await? {
            let event =
                NewEvent::new(now, "token.revoked", (Object::Token, Some(token)), AGAIN, events::SYSTEM);
            events::append(tx, &event).await?;
        }
        customers::erase(tx, customer, ids.get(&id).copied().unwrap_or(now)).await?;
        note(tx, "customer.erased", (Object::Customer, IdKind::Customer), customer, now).await?;
        erased.push(customer);
    }
    Ok(erased)
}

/// Removes the people of a customer with their renters, as the call that erases a customer does. It reads only
/// ids: a row that is damaged elsewhere keeps no personal data.
async fn remove_people(tx: &mut SqliteConnection, customer: Id, now: Wall) -> sqlx::Result<()> {
    let of_customer = "select r.id from renters r join people y on y.id = r.person
                       where y.customer = $1 and r.removed_at is null order by r.id";
    for renter in ids_of(tx, of_customer, customer).await? {
        renters::remove(tx, renter, now).await?;
        note(tx, "renter.removed", (Object::Renter, IdKind::Renter), renter, now).await?;
    }
    let of_customer = "select id from people where customer = $1 and removed_at is null order by id";
    for person in ids_of(tx, of_customer, customer).await? {
        people::remove(tx, person, now).await?;
        note(tx, "person.removed", (Object::Person, IdKind::Person), person, now).await?;
    }
    Ok(())
}

async fn ids_of(tx: &mut SqliteConnection, sql: &'static str, customer: Id) -> sqlx::Result<Vec<Id>> {
    let ids: Vec<i64> = sqlx::query_scalar(sql).bind(customer.as_i64()).fetch_all(tx).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

async fn note(
    tx: &mut SqliteConnection,
    kind: &str,
    (object, ids): (Object, IdKind),
    id: Id,
    now: Wall,
) -> sqlx::Result<()> {
    let event = NewEvent::new(now, kind, (object, Some(id)), AGAIN, events::SYSTEM);
    let data = json!({ "id": ids.text(id) });
    events::append(tx, &NewEvent { data, ..event }).await.map(drop)
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

    #[tokio::test]
    async fn the_people_of_an_erased_customer_go_with_their_renters_and_keys() {
        let (store, _dir) = fixture::store().await;
        for sql in [
            "insert into customers (id, name, created_at) values (1, 'Ada Ltd', 1), (2, 'Bob Ltd', 1)",
            "insert into people (id, customer, name, email, created_at)
                values (11, 1, 'Ada', 'ada@example.org', 1), (12, 2, 'Bob', null, 1)",
            "insert into peers (id, kind, created_at) values (21, 'renter', 1), (22, 'renter', 1)",
            "insert into renters (id, person, name, created_at) values (21, 11, 'ada-laptop', 1), (22, 12, 'bob-phone', 1)",
            "insert into peer_keys (public_key, peer, added_at) values ('one', 21, 1), ('two', 22, 1)",
            "insert into addresses (address, slot, peer, allocated_at) values ('10.112.0.9', 9, 21, 1)",
            "insert into peer_memory (peer, endpoint) values (21, '192.0.2.1:1')",
            "insert into tokens (id, hash, name, role, customer, created_by, created_at)
                values (31, x'01', 'of Ada', 'viewer', 1, '', 1), (32, x'02', 'of Bob', 'viewer', 2, '', 1)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let mut tx = store.begin().await.unwrap();
        for _ in 0..2 {
            apply(&mut tx, &[erasure(1, 600)], Wall::from_millis(1_000)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let left: [(&'static str, &[&str]); 7] = [
            ("select name || coalesce(email, '') from people order by id", &["", "Bob"]),
            ("select name from renters order by id", &["", "bob-phone"]),
            ("select public_key from peer_keys where retired_at is null", &["two"]),
            ("select address from addresses where released_at is null", &[]),
            ("select endpoint from peer_memory", &[]),
            ("select name from tokens order by revoked_at is null, id", &["", "of Bob"]),
            (
                "select kind || object_id from events order by seq",
                &["renter.removed21", "person.removed11", "token.revoked31", "customer.erased1"],
            ),
        ];
        for (sql, left) in left {
            assert_eq!(fixture::texts(&store, sql).await, left, "{sql}");
        }
    }
}

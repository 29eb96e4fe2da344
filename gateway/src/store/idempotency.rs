//! Stored responses for repeated API calls. The API keeps secrets out of them.

use std::collections::BTreeSet;
use std::time::Duration;

use fleetgate_engine::time::Wall;
use sqlx::SqliteConnection;
use sqlx::types::Json;

use crate::ids::IdKind;

/// The time that a call can be repeated. Clients retry for minutes, and a day outlasts an outage.
pub const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Old responses deleted in one step. The step takes some milliseconds, and other writes wait for
/// it.
pub const PRUNED_AT_ONCE: u32 = 500;

/// A call that must take effect only once.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub principal: &'a str,
    pub key: &'a str,
    /// SHA-256 of method, path and body.
    pub request: [u8; 32],
}

/// The record of an earlier call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    pub request: [u8; 32],
    /// `None` if the call took effect and the gateway stopped before it stored the response, or the response was deleted
    /// since, or its customer was erased before it was stored.
    pub answer: Option<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub body: String,
}

/// The status of a row without a stored response.
const NO_ANSWER: u16 = 0;

const FIND: &str =
    "select request_hash, status, etag, body from idempotency where principal = $1 and key = $2";

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, by: &str, key: &str) -> sqlx::Result<Option<Before>> {
    let row: Option<(Vec<u8>, u16, Option<String>, String)> =
        sqlx::query_as(FIND).bind(by).bind(key).fetch_optional(conn).await?;
    Ok(row.map(|(hash, status, etag, body)| Before {
        request: hash.try_into().unwrap_or_default(),
        answer: (status != NO_ANSWER).then_some(Answer { status, etag, body }),
    }))
}

/// Records that the call takes effect in this transaction.
///
/// # Errors
/// Fails when the database cannot be written, or when the call is recorded already.
pub async fn begin(tx: &mut SqliteConnection, call: Call<'_>, now: Wall) -> sqlx::Result<()> {
    sqlx::query(
        "insert into idempotency (principal, key, request_hash, status, body, created_at)
         values ($1, $2, $3, $4, '', $5)",
    )
    .bind(call.principal)
    .bind(call.key)
    .bind(call.request.as_slice())
    .bind(NO_ANSWER)
    .bind(now.as_millis())
    .execute(tx)
    .await?;
    Ok(())
}

/// Stores the response to the call. One about a customer who was erased meanwhile is not kept, and its key stays, as with
/// [`forget_answers`].
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn answered(
    tx: &mut SqliteConnection,
    call: Call<'_>,
    answer: &Answer,
    now: Wall,
) -> sqlx::Result<()> {
    let forgotten = Answer { status: NO_ANSWER, etag: None, body: String::new() };
    let answer = if names_erased(&mut *tx, &answer.body).await? { &forgotten } else { answer };
    sqlx::query(
        "insert into idempotency (principal, key, request_hash, status, etag, body, created_at)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (principal, key) do update set status = excluded.status, etag = excluded.etag,
                                                    body = excluded.body",
    )
    .bind(call.principal)
    .bind(call.key)
    .bind(call.request.as_slice())
    .bind(answer.status)
    .bind(&answer.etag)
    .bind(&answer.body)
    .bind(now.as_millis())
    .execute(tx)
    .await?;
    Ok(())
}

/// Whether a response names a customer who was erased.
async fn names_erased(conn: &mut SqliteConnection, body: &str) -> sqlx::Result<bool> {
    let customers = customers_in(body);
    if customers.is_empty() {
        return Ok(false);
    }
    let sql = "select exists (select 1 from customers
                              where id in (select value from json_each($1)) and erased_at is not null)";
    sqlx::query_scalar(sql).bind(Json(customers)).fetch_one(conn).await
}

/// Returns the ids of customers that stand in a response, as a whole text of its JSON or within one.
fn customers_in(body: &str) -> BTreeSet<i64> {
    let words = body.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(|word| IdKind::Customer.parse(word).ok()).map(|id| id.as_i64()).collect()
}

/// Deletes the stored responses that contain a text. Their keys stay, so that none of these calls takes effect again: a
/// late repetition would bring back what was deleted.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn forget_answers(tx: &mut SqliteConnection, text: &str) -> sqlx::Result<()> {
    let sql = "update idempotency set status = $2, etag = null, body = '' where instr(body, $1) > 0";
    sqlx::query(sql).bind(text).bind(NO_ANSWER).execute(tx).await.map(drop)
}

const PRUNE: &str = "delete from idempotency where rowid in
     (select rowid from idempotency where created_at < $1 order by created_at limit $2)";

/// Deletes responses from before `before`. Returns their number, which is at most
/// [`PRUNED_AT_ONCE`].
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn prune(tx: &mut SqliteConnection, before: Wall) -> sqlx::Result<u64> {
    let gone = sqlx::query(PRUNE).bind(before.as_millis()).bind(PRUNED_AT_ONCE).execute(tx).await?;
    Ok(gone.rows_affected())
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;
    use crate::store::rentals::customers;
    use crate::store::{Store, fixture};

    async fn plan(store: &Store, sql: &'static str) -> String {
        let mut conn = store.reader().await.unwrap();
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sql).bind(0).bind(0).fetch_all(&mut *conn).await.unwrap();
        rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ")
    }

    async fn fill(store: &Store, at: impl Iterator<Item = i64>) {
        let mut tx = store.begin().await.unwrap();
        for (n, at) in at.enumerate() {
            let key = format!("{n}");
            let call = Call { principal: "user:a", key: &key, request: [7; 32] };
            begin(&mut tx, call, Wall::from_millis(at)).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn neither_a_keyed_call_nor_the_removal_of_old_ones_scans_the_table() {
        let (store, _dir) = fixture::store().await;
        let found = plan(&store, FIND).await;
        assert!(found.contains("(principal=? AND key=?)") && !found.contains("SCAN"), "{found}");
        let pruned = plan(&store, PRUNE).await;
        assert!(pruned.contains("idempotency_age (created_at<?)") && !pruned.contains("SCAN"), "{pruned}");
    }

    #[tokio::test]
    async fn answers_about_something_are_deleted_and_their_keys_are_not() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        for (key, body) in [("a", "{\"customer\":\"c_1\"}"), ("b", "{\"customer\":\"c_2\"}")] {
            let call = Call { principal: "user:a", key, request: [7; 32] };
            begin(&mut tx, call, Wall::from_millis(1)).await.unwrap();
            let answer = Answer { status: 201, etag: Some("\"1\"".to_owned()), body: body.to_owned() };
            answered(&mut tx, call, &answer, Wall::from_millis(1)).await.unwrap();
        }
        forget_answers(&mut tx, "c_1").await.unwrap();
        let gone = find(&mut tx, "user:a", "a").await.unwrap();
        assert_eq!(gone, Some(Before { request: [7; 32], answer: None }));
        let other = find(&mut tx, "user:a", "b").await.unwrap().expect("the call is known");
        assert!(other.answer.is_some_and(|answer| answer.etag.is_some() && answer.body.contains("c_2")));
    }

    #[tokio::test]
    async fn an_answer_that_comes_after_the_erasure_of_its_customer_is_not_kept() {
        let (store, _dir) = fixture::store().await;
        fixture::run(&store, "insert into customers (id, created_at) values (1, 0), (2, 0)", &[]).await;
        let [gone, other] = [1, 2].map(|id| IdKind::Customer.text(Id::from_i64(id)));
        let body = |customer: &str| format!("{{\"customer\":\"{customer}\",\"external_ref\":\"zora\"}}");
        let call = |key| Call { principal: "user:a", key, request: [7; 32] };
        let mut tx = store.begin().await.unwrap();
        for key in ["gone", "other"] {
            begin(&mut tx, call(key), Wall::from_millis(1)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        customers::erase(&mut tx, Id::from_i64(1), Wall::from_millis(2)).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = store.begin().await.unwrap();
        for (key, customer) in [("gone", &gone), ("other", &other), ("late", &gone)] {
            let answer = Answer { status: 201, etag: Some("\"1\"".to_owned()), body: body(customer) };
            answered(&mut tx, call(key), &answer, Wall::from_millis(3)).await.unwrap();
        }
        for key in ["gone", "late"] {
            let known = find(&mut tx, "user:a", key).await.unwrap();
            assert_eq!(known, Some(Before { request: [7; 32], answer: None }), "{key}");
        }
        let known = find(&mut tx, "user:a", "other").await.unwrap().and_then(|before| before.answer);
        assert_eq!(known.map(|answer| answer.body), Some(body(&other)));
        tx.commit().await.unwrap();
        let left =
            fixture::texts(&store, "select coalesce(etag, '') || body from idempotency where key <> 'other'");
        assert_eq!(left.await, ["", ""]);
    }

    #[test]
    fn the_customers_of_an_answer_are_found_where_they_stand() {
        let ids = [1, 1 << 60].map(Id::from_i64);
        let [one, other] = ids.map(|id| IdKind::Customer.text(id));
        let body = format!(
            "{{\"customer\":\"{one}\",\"note\":\"of {other}, k_ and xk_1\",\"id\":\"b_{}\"}}",
            ids[0]
        );
        assert_eq!(customers_in(&body), BTreeSet::from(ids.map(Id::as_i64)));
        assert!(customers_in("").is_empty());
    }

    #[tokio::test]
    async fn old_answers_are_removed_in_small_steps() {
        let (store, _dir) = fixture::store().await;
        fill(&store, 0..1_200).await;
        let mut steps = Vec::new();
        loop {
            let mut tx = store.begin().await.unwrap();
            steps.push(prune(&mut tx, Wall::from_millis(1_100)).await.unwrap());
            tx.commit().await.unwrap();
            if steps.last() < Some(&u64::from(PRUNED_AT_ONCE)) {
                break;
            }
        }
        assert_eq!(steps, [500, 500, 100]);
        let mut conn = store.reader().await.unwrap();
        assert!(find(&mut conn, "user:a", "1099").await.unwrap().is_none());
        assert!(find(&mut conn, "user:a", "1100").await.unwrap().is_some());
    }
}

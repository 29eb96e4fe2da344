//! Answers that a repeated call gets again. They hold no secrets: the API sees to that.

use std::time::Duration;

use fleetgate_engine::time::Wall;
use sqlx::SqliteConnection;

/// How long a call can be repeated. Clients retry for minutes; a day outlives an outage.
pub const KEPT: Duration = Duration::from_secs(24 * 3_600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// SHA-256 of method, path and body.
    pub request: [u8; 32],
    pub status: u16,
    pub body: String,
}

/// # Errors
/// When the database cannot be read.
pub async fn find(tx: &mut SqliteConnection, by: &str, key: &str) -> sqlx::Result<Option<Answer>> {
    let sql = "select request_hash, status, body from idempotency where principal = $1 and key = $2";
    let row: Option<(Vec<u8>, u16, String)> =
        sqlx::query_as(sql).bind(by).bind(key).fetch_optional(tx).await?;
    Ok(row.map(|(hash, status, body)| Answer { request: hash.try_into().unwrap_or_default(), status, body }))
}

/// Also forgets what is too old.
///
/// # Errors
/// When the database cannot be written.
pub async fn insert(
    tx: &mut SqliteConnection,
    by: &str,
    key: &str,
    answer: &Answer,
    now: Wall,
) -> sqlx::Result<()> {
    sqlx::query("delete from idempotency where created_at < $1")
        .bind((now - KEPT).as_millis())
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "insert into idempotency (principal, key, request_hash, status, body, created_at)
         values ($1, $2, $3, $4, $5, $6)",
    )
    .bind(by)
    .bind(key)
    .bind(answer.request.as_slice())
    .bind(answer.status)
    .bind(&answer.body)
    .bind(now.as_millis())
    .execute(tx)
    .await?;
    Ok(())
}

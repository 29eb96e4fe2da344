//! Subscriptions: who receives the events of rentals by webhook.

pub mod deliveries;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::{id, maybe_wall, wall};
use super::lists::{Entry, ListRow, readable};
use crate::outbound::secret_url::SecretUrl;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub id: Id,
    pub url: SecretUrl,
    /// Names of kinds. Empty: all.
    pub kinds: Vec<String>,
    /// Sealed for [`secret_place`].
    pub secret: Vec<u8>,
    /// The number of the last event that was taken for delivery or left out.
    pub cursor: i64,
    pub paused_at: Option<Wall>,
    /// Since when an event has failed so often that it was reported. `None`: none has.
    pub failing_since: Option<Wall>,
    /// When an event that has failed is tried again. `None`: none has.
    pub next_attempt: Option<Wall>,
    /// The last failure since the subscription was made or resumed.
    pub last_error: Option<(Wall, String)>,
    /// When an event was accepted last.
    pub delivered_at: Option<Wall>,
    /// The principal.
    pub created_by: String,
    /// Counts the changes of people and programs.
    pub version: i64,
    pub created_at: Wall,
    /// Events that were taken and not accepted yet.
    pub waiting: i64,
}

/// Returns the place that the secret of a subscription is sealed for.
pub fn secret_place(subscription: Id) -> String {
    format!("subscriptions.secret.{subscription}")
}

impl FromRow<'_, SqliteRow> for Subscription {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let kinds: Json<Vec<String>> = row.try_get("kinds")?;
        let (error_at, error) = (maybe_wall(row, "last_error_at")?, row.try_get("last_error")?);
        Ok(Subscription {
            id: id(row, "id")?,
            url: SecretUrl::from(row.try_get::<String, _>("url")?),
            kinds: kinds.0,
            secret: row.try_get("secret")?,
            cursor: row.try_get("cursor")?,
            paused_at: maybe_wall(row, "paused_at")?,
            failing_since: maybe_wall(row, "failing_since")?,
            next_attempt: maybe_wall(row, "next_attempt")?,
            last_error: error_at.zip(error),
            delivered_at: maybe_wall(row, "delivered_at")?,
            created_by: row.try_get("created_by")?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
            waiting: row.try_get("waiting")?,
        })
    }
}

impl ListRow for Subscription {
    const TABLE: &'static str = "subscriptions";
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select s.*, (select count(*) from subscription_deliveries d where d.subscription = s.id) as waiting,
                 (select min(d.next_at) from subscription_deliveries d
                  where d.subscription = s.id and d.attempts > 0) as next_attempt
             from subscriptions s ",
            $rest
        )
    };
}

/// Returns the subscriptions that can be read, in the order of their making.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Subscription>> {
    let entries: Vec<Entry<Subscription>> = sqlx::query_as(select!("order by s.id")).fetch_all(conn).await?;
    Ok(readable(entries))
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, subscription: Id) -> sqlx::Result<Option<Subscription>> {
    sqlx::query_as(select!("where s.id = $1")).bind(subscription.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn count(conn: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from subscriptions").fetch_one(conn).await
}

/// Adds a subscription.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, subscription: &Subscription) -> sqlx::Result<()> {
    let sql = "insert into subscriptions (id, url, kinds, secret, cursor, created_by, created_at)
               values ($1, $2, $3, $4, $5, $6, $7)";
    sqlx::query(sql)
        .bind(subscription.id.as_i64())
        .bind(subscription.url.reveal())
        .bind(Json(&subscription.kinds))
        .bind(&subscription.secret)
        .bind(subscription.cursor)
        .bind(&subscription.created_by)
        .bind(subscription.created_at.as_millis())
        .execute(tx)
        .await
        .map(drop)
}

/// Stores what a call can change, and raises the version.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, subscription: &Subscription) -> sqlx::Result<()> {
    let sql = "update subscriptions set url = $2, kinds = $3, paused_at = $4, version = version + 1
               where id = $1";
    sqlx::query(sql)
        .bind(subscription.id.as_i64())
        .bind(subscription.url.reveal())
        .bind(Json(&subscription.kinds))
        .bind(subscription.paused_at.map(Wall::as_millis))
        .execute(tx)
        .await
        .map(drop)
}

/// Lets all events that wait be tried again now.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn resume(tx: &mut SqliteConnection, subscription: Id) -> sqlx::Result<()> {
    let sql = "update subscription_deliveries set attempts = 0, next_at = 0 where subscription = $1";
    sqlx::query(sql).bind(subscription.as_i64()).execute(&mut *tx).await?;
    let sql = "update subscriptions set failing_since = null, last_error = null, last_error_at = null
               where id = $1";
    sqlx::query(sql).bind(subscription.as_i64()).execute(tx).await.map(drop)
}

/// Removes a subscription. Events that wait for it are dropped.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, subscription: Id) -> sqlx::Result<()> {
    sqlx::query("delete from subscriptions where id = $1")
        .bind(subscription.as_i64())
        .execute(tx)
        .await
        .map(drop)
}

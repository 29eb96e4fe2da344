//! Tokens that enrol a new device or the replacement of an existing one.

use std::collections::BTreeMap;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use fleetgate_keys::TokenHash;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::Store;
use super::access::{id, maybe_wall, wall};
use super::lists::{Entry, ListRow};
use super::tokens::hash;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentToken {
    pub id: Id,
    pub label: String,
    pub host_labels: BTreeMap<String, String>,
    pub profile: String,
    pub ssh_user: Option<String>,
    pub needs_approval: bool,
    /// The device whose key and SSH pin are replaced. `None` enrols a new device.
    pub replaces: Option<HostId>,
    /// `None`: no limit.
    pub uses_left: Option<i64>,
    pub expires_at: Option<Wall>,
    pub created_by: String,
    pub created_at: Wall,
    pub revoked_at: Option<Wall>,
    pub last_used_at: Option<Wall>,
}

impl FromRow<'_, SqliteRow> for EnrolmentToken {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let host_labels: Json<BTreeMap<String, String>> = row.try_get("host_labels")?;
        Ok(EnrolmentToken {
            id: id(row, "id")?,
            label: row.try_get("label")?,
            host_labels: host_labels.0,
            profile: row.try_get("profile")?,
            ssh_user: row.try_get("ssh_user")?,
            needs_approval: row.try_get::<i64, _>("needs_approval")? != 0,
            replaces: row.try_get::<Option<i64>, _>("replaces")?.map(Id::from_i64),
            uses_left: row.try_get("uses_left")?,
            expires_at: maybe_wall(row, "expires_at")?,
            created_by: row.try_get("created_by")?,
            created_at: wall(row, "created_at")?,
            revoked_at: maybe_wall(row, "revoked_at")?,
            last_used_at: maybe_wall(row, "last_used_at")?,
        })
    }
}

impl ListRow for EnrolmentToken {
    const TABLE: &'static str = "enrolment_tokens";
}

/// The reason why a token does not enrol a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    #[error("this gateway does not know this enrolment token: ask for a new one")]
    Unknown,
    #[error("this enrolment token was revoked: ask for a new one")]
    Revoked,
    #[error("this enrolment token has expired: ask for a new one")]
    Expired,
    #[error("this enrolment token has been used up by another key: ask for a new one")]
    Spent,
}

impl EnrolmentToken {
    /// Returns the reason why [`consume`] refused the token.
    pub fn refusal(&self, now: Wall) -> TokenRefused {
        if self.uses_left == Some(0) {
            return TokenRefused::Spent;
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return TokenRefused::Expired;
        }
        TokenRefused::Revoked
    }
}

impl Store {
    /// Returns the newest tokens first, from below the id `before`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn enrolment_tokens(
        &self,
        before: i64,
        limit: i64,
    ) -> sqlx::Result<Vec<Entry<EnrolmentToken>>> {
        let sql = "select * from enrolment_tokens where id < $1 order by id desc limit $2";
        sqlx::query_as(sql).bind(before).bind(limit).fetch_all(&self.read).await
    }
}

/// Returns a token in any state, with the hash of its secret.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn find(
    conn: &mut SqliteConnection,
    token: Id,
) -> sqlx::Result<Option<(EnrolmentToken, TokenHash)>> {
    let row = sqlx::query("select * from enrolment_tokens where id = $1").bind(token.as_i64());
    let row = row.fetch_optional(conn).await?;
    row.map(|row| Ok((EnrolmentToken::from_row(&row)?, hash(&row)?))).transpose()
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, token: &EnrolmentToken, hash: &TokenHash) -> sqlx::Result<()> {
    sqlx::query(
        "insert into enrolment_tokens (id, hash, label, host_labels, profile, ssh_user, needs_approval,
             replaces, uses_left, expires_at, created_by, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(token.id.as_i64())
    .bind(hash.as_slice())
    .bind(&token.label)
    .bind(Json(&token.host_labels))
    .bind(&token.profile)
    .bind(token.ssh_user.as_deref())
    .bind(i64::from(token.needs_approval))
    .bind(token.replaces.map(Id::as_i64))
    .bind(token.uses_left)
    .bind(token.expires_at.map(Wall::as_millis))
    .bind(&token.created_by)
    .bind(token.created_at.as_millis())
    .execute(tx)
    .await
    .map(drop)
}

/// Uses a token once. One conditional update ensures that exactly as many concurrent calls succeed
/// as the token has uses.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn consume(tx: &mut SqliteConnection, token: Id, now: Wall) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "update enrolment_tokens set uses_left = uses_left - 1, last_used_at = $2
         where id = $1 and revoked_at is null and (expires_at is null or expires_at > $2)
             and (uses_left is null or uses_left > 0)",
    )
    .bind(token.as_i64())
    .bind(now.as_millis())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Revokes a token and returns whether it exists. A second call changes nothing.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn revoke(tx: &mut SqliteConnection, token: Id, now: Wall) -> sqlx::Result<bool> {
    let sql = "update enrolment_tokens set revoked_at = coalesce(revoked_at, $2) where id = $1";
    let done = sqlx::query(sql).bind(token.as_i64()).bind(now.as_millis()).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

/// Revokes the tokens that would replace a device, because only the newest counts.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn revoke_replacements(tx: &mut SqliteConnection, device: HostId, now: Wall) -> sqlx::Result<()> {
    let sql = "update enrolment_tokens set revoked_at = $2 where replaces = $1 and revoked_at is null";
    sqlx::query(sql).bind(device.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}

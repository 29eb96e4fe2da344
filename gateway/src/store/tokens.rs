//! API tokens of programs.

use fleetgate_engine::id::{CustomerId, Id, UserId};
use fleetgate_engine::time::Wall;
use fleetgate_keys::TokenHash;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::Store;
use super::access::{Role, id, maybe_wall, role, wall};
use super::lists::{Entry, ListRow};

/// The user that a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenUser {
    pub id: UserId,
    /// The name when the token was made. Users keep their names.
    pub name: String,
    pub state: UserState,
}

/// The state of the user of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    Enabled(Role),
    Disabled,
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub id: Id,
    pub name: String,
    /// The greatest role that it has. [`ApiToken::effective_role`] has the present one.
    pub role: Role,
    /// `None`: it belongs to a program.
    pub user: Option<TokenUser>,
    /// The customer that it belongs to. It then has no role, and reads what is the customer's.
    pub customer: Option<CustomerId>,
    /// Areas of the API. Empty: all areas that the role allows.
    pub scopes: Vec<String>,
    pub created_by: String,
    pub created_at: Wall,
    pub expires_at: Option<Wall>,
    pub revoked_at: Option<Wall>,
    pub last_used_at: Option<Wall>,
}

impl ApiToken {
    pub fn is_good(&self, now: Wall) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Returns the present role: the token of a user has at most the role of the user. `None`: the user
    /// is disabled or was removed.
    pub fn effective_role(&self) -> Option<Role> {
        match self.user.as_ref().map(|user| user.state) {
            None => Some(self.role),
            Some(UserState::Enabled(role)) => Some(self.role.min(role)),
            Some(UserState::Disabled | UserState::Removed) => None,
        }
    }
}

impl FromRow<'_, SqliteRow> for ApiToken {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let scopes: sqlx::types::Json<Vec<String>> = row.try_get("scopes")?;
        Ok(ApiToken {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            role: role(row, "role")?,
            user: user(row)?,
            customer: row.try_get::<Option<i64>, _>("customer")?.map(Id::from_i64),
            scopes: scopes.0,
            created_by: row.try_get("created_by")?,
            created_at: wall(row, "created_at")?,
            expires_at: maybe_wall(row, "expires_at")?,
            revoked_at: maybe_wall(row, "revoked_at")?,
            last_used_at: maybe_wall(row, "last_used_at")?,
        })
    }
}

impl ListRow for ApiToken {
    const TABLE: &'static str = "tokens";
}

fn user(row: &SqliteRow) -> sqlx::Result<Option<TokenUser>> {
    let Some(id) = row.try_get::<Option<i64>, _>("user")?.map(Id::from_i64) else { return Ok(None) };
    let name: Option<String> = row.try_get("user_name")?;
    let state = match row.try_get::<Option<&str>, _>("user_role")? {
        None => UserState::Removed,
        Some(_) if row.try_get::<Option<i64>, _>("user_disabled_at")?.is_some() => UserState::Disabled,
        Some(_) => UserState::Enabled(role(row, "user_role")?),
    };
    Ok(Some(TokenUser { id, name: name.unwrap_or_default(), state }))
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select t.*, u.role as user_role, u.disabled_at as user_disabled_at
             from tokens t left join users u on u.id = t.user where ",
            $rest
        )
    };
}

impl Store {
    /// Returns a token in any state, with the hash of its secret.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn api_token(&self, token: Id) -> sqlx::Result<Option<(ApiToken, TokenHash)>> {
        let row = sqlx::query(select!("t.id = $1")).bind(token.as_i64());
        let row = row.fetch_optional(&self.read).await?;
        row.map(|row| Ok((ApiToken::from_row(&row)?, hash(&row)?))).transpose()
    }

    /// Returns the newest tokens first, from below the id `before`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn api_tokens(&self, before: i64, limit: i64) -> sqlx::Result<Vec<Entry<ApiToken>>> {
        let sql = select!("t.id < $1 order by t.id desc limit $2");
        sqlx::query_as(sql).bind(before).bind(limit).fetch_all(&self.read).await
    }
}

/// Reads a hash column.
pub(crate) fn hash(row: &SqliteRow) -> sqlx::Result<TokenHash> {
    let bytes: Vec<u8> = row.try_get("hash")?;
    bytes
        .try_into()
        .map_err(|_| sqlx::Error::ColumnDecode { index: "hash".into(), source: "a hash has 32 bytes".into() })
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(tx: &mut SqliteConnection, token: &ApiToken, hash: &TokenHash) -> sqlx::Result<()> {
    sqlx::query(
        "insert into tokens (id, hash, name, role, scopes, created_by, created_at, expires_at, user, user_name, customer)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(token.id.as_i64())
    .bind(hash.as_slice())
    .bind(&token.name)
    .bind(token.role.name())
    .bind(sqlx::types::Json(&token.scopes))
    .bind(&token.created_by)
    .bind(token.created_at.as_millis())
    .bind(token.expires_at.map(Wall::as_millis))
    .bind(token.user.as_ref().map(|user| user.id.as_i64()))
    .bind(token.user.as_ref().map(|user| user.name.as_str()))
    .bind(token.customer.map(CustomerId::as_i64))
    .execute(tx)
    .await
    .map(drop)
}

/// Revokes a token and returns whether it exists. A second call changes nothing.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn revoke(tx: &mut SqliteConnection, token: Id, now: Wall) -> sqlx::Result<bool> {
    let sql = "update tokens set revoked_at = coalesce(revoked_at, $2) where id = $1";
    let done = sqlx::query(sql).bind(token.as_i64()).bind(now.as_millis()).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

/// Revokes the tokens of a user, and returns those that were not revoked before.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn revoke_those_of(tx: &mut SqliteConnection, user: UserId, now: Wall) -> sqlx::Result<Vec<Id>> {
    let sql = "update tokens set revoked_at = $2 where user = $1 and revoked_at is null returning id";
    let ids: Vec<i64> =
        sqlx::query_scalar(sql).bind(user.as_i64()).bind(now.as_millis()).fetch_all(tx).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

/// Revokes the tokens of a customer, and returns those that were not revoked before. Their names, which may be personal
/// data, are deleted.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn erase_those_of(
    tx: &mut SqliteConnection,
    customer: CustomerId,
    now: Wall,
) -> sqlx::Result<Vec<Id>> {
    sqlx::query("update tokens set name = '' where customer = $1")
        .bind(customer.as_i64())
        .execute(&mut *tx)
        .await?;
    let sql = "update tokens set revoked_at = $2 where customer = $1 and revoked_at is null returning id";
    let ids: Vec<i64> =
        sqlx::query_scalar(sql).bind(customer.as_i64()).bind(now.as_millis()).fetch_all(tx).await?;
    Ok(ids.into_iter().map(Id::from_i64).collect())
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn touch(tx: &mut SqliteConnection, token: Id, now: Wall) -> sqlx::Result<()> {
    let sql = "update tokens set last_used_at = $2 where id = $1";
    sqlx::query(sql).bind(token.as_i64()).bind(now.as_millis()).execute(tx).await.map(drop)
}

//! Users, their roles and sessions, and one-time login links.
//!
//! The tables hold hashes, never secrets. Tokens and the first password are returned once, when
//! they are generated.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use fleetgate_keys::{Token, TokenHash, TokenKind};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};
use zeroize::Zeroizing;

use super::Store;
use super::events::{self, NewEvent, Object, SYSTEM};
use super::lists::{Entry, ListRow};
use crate::password;

/// The permissions of a user or token. Each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Operator,
    Admin,
}

impl Role {
    pub const fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a role: admin, operator or viewer is expected")]
pub struct BadRole;

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(text: &str) -> Result<Self, BadRole> {
        [Role::Viewer, Role::Operator, Role::Admin].into_iter().find(|r| r.name() == text).ok_or(BadRole)
    }
}

/// Reads a role column.
pub(crate) fn role(row: &SqliteRow, column: &str) -> sqlx::Result<Role> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|e| sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(e) })
}

pub(crate) fn wall(row: &SqliteRow, column: &str) -> sqlx::Result<Wall> {
    row.try_get(column).map(Wall::from_millis)
}

pub(crate) fn maybe_wall(row: &SqliteRow, column: &str) -> sqlx::Result<Option<Wall>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Wall::from_millis))
}

pub(crate) fn id(row: &SqliteRow, column: &str) -> sqlx::Result<Id> {
    row.try_get(column).map(Id::from_i64)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub id: Id,
    pub name: String,
    pub role: Role,
    pub created_at: Wall,
    pub disabled_at: Option<Wall>,
}

impl FromRow<'_, SqliteRow> for User {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(User {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            role: role(row, "role")?,
            created_at: wall(row, "created_at")?,
            disabled_at: maybe_wall(row, "disabled_at")?,
        })
    }
}

impl ListRow for User {
    const TABLE: &'static str = "users";

    fn place(row: &SqliteRow) -> sqlx::Result<String> {
        row.try_get("name")
    }
}

/// A session, found by the hash of its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub user: User,
    pub seen_at: Wall,
    pub expires_at: Wall,
    /// The session began with a one-time login.
    pub by_link: bool,
}

impl Store {
    /// Returns the session for any user and of any age. The caller checks both.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn session(&self, hash: &TokenHash) -> sqlx::Result<Option<Session>> {
        let row = sqlx::query(
            "select u.id, u.name, u.role, u.created_at, u.disabled_at, s.seen_at, s.expires_at, s.by_link
             from sessions s join users u on u.id = s.user where s.hash = $1",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.read)
        .await?;
        let session = |row: SqliteRow| {
            let (seen_at, expires_at) = (wall(&row, "seen_at")?, wall(&row, "expires_at")?);
            Ok(Session { user: User::from_row(&row)?, seen_at, expires_at, by_link: row.try_get("by_link")? })
        };
        row.map(session).transpose()
    }

    /// Returns a user and the hash of the password.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn user_with_password(&self, name: &str) -> sqlx::Result<Option<(User, String)>> {
        let row = sqlx::query("select * from users where name = $1").bind(name);
        let row = row.fetch_optional(&self.read).await?;
        row.map(|row| Ok((User::from_row(&row)?, row.try_get("password_hash")?))).transpose()
    }

    /// Returns users in name order, starting after the name `after`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn users(&self, after: &str, limit: i64) -> sqlx::Result<Vec<Entry<User>>> {
        let sql = "select * from users where name > $1 order by name limit $2";
        sqlx::query_as(sql).bind(after).bind(limit).fetch_all(&self.read).await
    }

    /// Creates `admin` if there is no user. Returns the password and a one-time link, to be shown
    /// once.
    ///
    /// `unfinished`: an earlier start may have created the user and ended before it showed the
    /// password. The user then gets a new one, unless it has logged in.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn ensure_first_admin(
        &self,
        now: Wall,
        unfinished: bool,
    ) -> anyhow::Result<Option<FirstAdmin>> {
        let mut tx = self.begin().await?;
        let users: i64 = sqlx::query_scalar("select count(*) from users").fetch_one(&mut *tx).await?;
        if users > 0 && !(unfinished && is_unused(&mut tx).await?) {
            return Ok(None);
        }
        let password = first_password();
        let hashed = password.clone();
        let hash = tokio::task::spawn_blocking(move || password::hash(&hashed)).await?;
        let user = match user_named(&mut tx, FIRST_ADMIN).await? {
            Some(made) => {
                set_password(&mut tx, made.id, &hash).await?;
                made.id
            }
            None => insert_first_admin(&mut tx, &hash, now).await?,
        };
        let link = insert_login_link(&mut tx, user, now + FIRST_LINK_LIFE).await?;
        tx.commit().await?;
        Ok(Some(FirstAdmin { name: FIRST_ADMIN, password, link }))
    }

    /// Creates a one-time login link for a user, to be shown once.
    ///
    /// # Errors
    /// Fails when there is no such user, or the database cannot be written.
    pub async fn login_link(&self, name: &str, until: Wall) -> anyhow::Result<Token> {
        let mut tx = self.begin().await?;
        let user = user_named(&mut tx, name).await?;
        let user = user.ok_or_else(|| anyhow::anyhow!("no user is called {name:?}"))?;
        let link = insert_login_link(&mut tx, user.id, until).await?;
        tx.commit().await?;
        Ok(link)
    }
}

/// Whether the first administrator is the only user and has never logged in.
async fn is_unused(tx: &mut SqliteConnection) -> sqlx::Result<bool> {
    let sql = "select not exists (select 1 from users where name != $1)
               and not exists (select 1 from events where kind = 'session.begun')";
    sqlx::query_scalar(sql).bind(FIRST_ADMIN).fetch_one(tx).await
}

async fn insert_first_admin(tx: &mut SqliteConnection, hash: &str, now: Wall) -> sqlx::Result<Id> {
    let user = Id::new(now.as_millis(), 1);
    insert_user(tx, user, FIRST_ADMIN, Role::Admin, hash, now).await?;
    let about = (Object::User, Some(user));
    let data = serde_json::json!({ "name": FIRST_ADMIN, "role": Role::Admin.name() });
    let event = NewEvent { data, ..NewEvent::new(now, "user.created", about, "the first start", SYSTEM) };
    events::append(tx, &event).await?;
    Ok(user)
}

const FIRST_ADMIN: &str = "admin";
/// Enough time to read the manual first. The password stays valid afterwards.
const FIRST_LINK_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// The credentials that a first start shows, once.
pub struct FirstAdmin {
    pub name: &'static str,
    pub password: Zeroizing<String>,
    pub link: Token,
}

/// Returns 125 random bits in a form that can be read aloud.
fn first_password() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 16]);
    getrandom::fill(bytes.as_mut()).expect("the operating system gives random bytes");
    let number = u128::from_ne_bytes(*bytes);
    let alphabet = b"0123456789abcdefghjkmnpqrstvwxyz";
    let digit = |i: u32| char::from(alphabet[(number >> (5 * i) & 31) as usize]);
    let group = |g: u32| (0..5).map(|i| digit(5 * g + i)).collect::<String>();
    Zeroizing::new((0..5).map(group).collect::<Vec<_>>().join("-"))
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn user_named(tx: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<User>> {
    sqlx::query_as("select * from users where name = $1").bind(name).fetch_optional(tx).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn user_by_id(tx: &mut SqliteConnection, id: Id) -> sqlx::Result<Option<User>> {
    sqlx::query_as("select * from users where id = $1").bind(id.as_i64()).fetch_optional(tx).await
}

/// # Errors
/// Fails when the name is taken (a unique violation), or the database cannot be written.
pub async fn insert_user(
    tx: &mut SqliteConnection,
    id: Id,
    name: &str,
    role: Role,
    password_hash: &str,
    now: Wall,
) -> sqlx::Result<()> {
    sqlx::query("insert into users (id, name, role, password_hash, created_at) values ($1, $2, $3, $4, $5)")
        .bind(id.as_i64())
        .bind(name)
        .bind(role.name())
        .bind(password_hash)
        .bind(now.as_millis())
        .execute(tx)
        .await
        .map(drop)
}

/// Writes the user's role and whether the user may log in. Ends the user's sessions, because they
/// carry the old role.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn update_user(tx: &mut SqliteConnection, user: &User) -> sqlx::Result<()> {
    sqlx::query("update users set role = $2, disabled_at = $3 where id = $1")
        .bind(user.id.as_i64())
        .bind(user.role.name())
        .bind(user.disabled_at.map(Wall::as_millis))
        .execute(&mut *tx)
        .await?;
    end_sessions(tx, user.id).await
}

/// Sets the password hash and ends the user's sessions.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn set_password(tx: &mut SqliteConnection, user: Id, hash: &str) -> sqlx::Result<()> {
    let sql = "update users set password_hash = $2 where id = $1";
    sqlx::query(sql).bind(user.as_i64()).bind(hash).execute(&mut *tx).await?;
    end_sessions(tx, user).await
}

async fn end_sessions(tx: &mut SqliteConnection, user: Id) -> sqlx::Result<()> {
    for sql in ["delete from sessions where user = $1", "delete from login_links where user = $1"] {
        sqlx::query(sql).bind(user.as_i64()).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Removes a user with all sessions and login links. The user's actions stay in the audit log under
/// the name.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn delete_user(tx: &mut SqliteConnection, user: Id) -> sqlx::Result<()> {
    end_sessions(tx, user).await?;
    sqlx::query("delete from users where id = $1").bind(user.as_i64()).execute(tx).await.map(drop)
}

/// Counts the admins who may log in.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn active_admins(tx: &mut SqliteConnection) -> sqlx::Result<i64> {
    let sql = "select count(*) from users where role = 'admin' and disabled_at is null";
    sqlx::query_scalar(sql).fetch_one(tx).await
}

/// Creates a session and returns the token for the cookie. Deletes expired sessions. `by_link`: the
/// session began with a one-time login.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert_session(
    tx: &mut SqliteConnection,
    (user, by_link): (Id, bool),
    now: Wall,
    until: Wall,
) -> sqlx::Result<Token> {
    let sql = "delete from sessions where expires_at <= $1";
    sqlx::query(sql).bind(now.as_millis()).execute(&mut *tx).await?;
    let token = Token::generate(TokenKind::Session, user);
    let sql = "insert into sessions (hash, user, created_at, seen_at, expires_at, by_link) values ($1, $2, $3, $3, $4, $5)";
    sqlx::query(sql)
        .bind(token.hash().to_vec())
        .bind(user.as_i64())
        .bind(now.as_millis())
        .bind(until.as_millis())
        .bind(by_link)
        .execute(tx)
        .await?;
    Ok(token)
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn touch_session(tx: &mut SqliteConnection, hash: &TokenHash, now: Wall) -> sqlx::Result<()> {
    let sql = "update sessions set seen_at = $2 where hash = $1";
    sqlx::query(sql).bind(hash.as_slice()).bind(now.as_millis()).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn delete_session(tx: &mut SqliteConnection, hash: &TokenHash) -> sqlx::Result<()> {
    sqlx::query("delete from sessions where hash = $1").bind(hash.as_slice()).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn insert_login_link(tx: &mut SqliteConnection, user: Id, until: Wall) -> sqlx::Result<Token> {
    let token = Token::generate(TokenKind::LoginLink, user);
    sqlx::query("insert into login_links (hash, user, expires_at) values ($1, $2, $3)")
        .bind(token.hash().to_vec())
        .bind(user.as_i64())
        .bind(until.as_millis())
        .execute(tx)
        .await?;
    Ok(token)
}

/// Uses a login link. If two calls use it at once, one succeeds.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn take_login_link(
    tx: &mut SqliteConnection,
    hash: &TokenHash,
    now: Wall,
) -> sqlx::Result<Option<Id>> {
    let user: Option<i64> = sqlx::query_scalar(
        "update login_links set used_at = $2
         where hash = $1 and used_at is null and expires_at > $2 returning user",
    )
    .bind(hash.as_slice())
    .bind(now.as_millis())
    .fetch_optional(tx)
    .await?;
    Ok(user.map(Id::from_i64))
}

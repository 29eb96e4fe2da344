//! Logins of the people of customers: sessions, and one-time links. A person who is removed has neither.
//!
//! The tables hold hashes, never secrets. This module decides nothing about how long they are good.

use fleetgate_engine::id::{CustomerId, PersonId};
use fleetgate_engine::time::Wall;
use fleetgate_keys::{Token, TokenHash, TokenKind};
use sqlx::FromRow;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::store::access::{id, wall};

/// Browsers in which a person is logged in at once. The oldest session ends for another one.
pub const MAX_SESSIONS: i64 = 8;
/// Links of a person that wait to be used. The oldest one ends for another one.
pub const MAX_LINKS: i64 = 8;

/// A session, found by the hash of its cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonSession {
    pub person: PersonId,
    pub customer: CustomerId,
    pub seen_at: Wall,
    pub expires_at: Wall,
}

impl FromRow<'_, SqliteRow> for PersonSession {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(PersonSession {
            person: id(row, "person")?,
            customer: id(row, "customer")?,
            seen_at: wall(row, "seen_at")?,
            expires_at: wall(row, "expires_at")?,
        })
    }
}

/// Returns the session of any age. That of a person who was removed is not found.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, hash: &TokenHash) -> sqlx::Result<Option<PersonSession>> {
    let sql = "select s.person, y.customer, s.seen_at, s.expires_at from person_sessions s
               join people y on y.id = s.person and y.removed_at is null
               join customers c on c.id = y.customer and c.erased_at is null
               where s.hash = $1";
    sqlx::query_as(sql).bind(hash.as_slice()).fetch_optional(conn).await
}

/// Creates a session and returns the token for the cookie. Deletes expired sessions, and the oldest one of a person
/// who has too many.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert(
    tx: &mut SqliteConnection,
    person: PersonId,
    now: Wall,
    until: Wall,
) -> sqlx::Result<Token> {
    let sql = "delete from person_sessions where expires_at <= $1";
    sqlx::query(sql).bind(now.as_millis()).execute(&mut *tx).await?;
    let sql = "delete from person_sessions where hash in
                   (select hash from person_sessions where person = $1 order by created_at desc, hash limit -1 offset $2)";
    sqlx::query(sql).bind(person.as_i64()).bind(MAX_SESSIONS - 1).execute(&mut *tx).await?;
    let token = Token::generate(TokenKind::Session, person);
    let sql = "insert into person_sessions (hash, person, created_at, seen_at, expires_at)
               values ($1, $2, $3, $3, $4)";
    sqlx::query(sql)
        .bind(token.hash().to_vec())
        .bind(person.as_i64())
        .bind(now.as_millis())
        .bind(until.as_millis())
        .execute(tx)
        .await?;
    Ok(token)
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn touch(tx: &mut SqliteConnection, hash: &TokenHash, now: Wall) -> sqlx::Result<()> {
    let sql = "update person_sessions set seen_at = $2 where hash = $1";
    sqlx::query(sql).bind(hash.as_slice()).bind(now.as_millis()).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn delete(tx: &mut SqliteConnection, hash: &TokenHash) -> sqlx::Result<()> {
    sqlx::query("delete from person_sessions where hash = $1")
        .bind(hash.as_slice())
        .execute(tx)
        .await
        .map(drop)
}

/// Creates a one-time link. Deletes expired ones, and the oldest one of a person who has too many.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn insert_link(
    tx: &mut SqliteConnection,
    person: PersonId,
    now: Wall,
    until: Wall,
) -> sqlx::Result<Token> {
    let sql = "delete from person_login_links where expires_at <= $1";
    sqlx::query(sql).bind(now.as_millis()).execute(&mut *tx).await?;
    let sql = "delete from person_login_links where hash in
                   (select hash from person_login_links where person = $1
                    order by created_at desc, hash limit -1 offset $2)";
    sqlx::query(sql).bind(person.as_i64()).bind(MAX_LINKS - 1).execute(&mut *tx).await?;
    let token = Token::generate(TokenKind::LoginLink, person);
    let sql = "insert into person_login_links (hash, person, created_at, expires_at) values ($1, $2, $3, $4)";
    sqlx::query(sql)
        .bind(token.hash().to_vec())
        .bind(person.as_i64())
        .bind(now.as_millis())
        .bind(until.as_millis())
        .execute(tx)
        .await?;
    Ok(token)
}

/// Uses a link. If two calls use it at once, one succeeds.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn take_link(
    tx: &mut SqliteConnection,
    hash: &TokenHash,
    now: Wall,
) -> sqlx::Result<Option<PersonId>> {
    let sql = "delete from person_login_links where hash = $1 and expires_at > $2 returning person";
    let query = sqlx::query_scalar(sql).bind(hash.as_slice()).bind(now.as_millis());
    let person: Option<i64> = query.fetch_optional(tx).await?;
    Ok(person.map(PersonId::from_i64))
}

/// Ends the sessions and links of a person.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end_those_of(tx: &mut SqliteConnection, person: PersonId) -> sqlx::Result<()> {
    for sql in
        ["delete from person_sessions where person = $1", "delete from person_login_links where person = $1"]
    {
        sqlx::query(sql).bind(person.as_i64()).execute(&mut *tx).await?;
    }
    Ok(())
}

/// Ends all sessions and links of a database that is being restored: what ended after the backup must not come back with
/// it. Its schema may be older than the tables.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn end_all(tx: &mut SqliteConnection) -> sqlx::Result<()> {
    for (table, sql) in [
        ("person_sessions", "delete from person_sessions"),
        ("person_login_links", "delete from person_login_links"),
    ] {
        let there = "select exists (select 1 from sqlite_schema where type = 'table' and name = $1)";
        if sqlx::query_scalar::<_, bool>(there).bind(table).fetch_one(&mut *tx).await? {
            sqlx::query(sql).execute(&mut *tx).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fleetgate_engine::id::Id;

    use super::*;
    use crate::store::rentals::{customers, people};
    use crate::store::{Store, fixture};

    const NOW: Wall = Wall::from_millis(1_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn id(n: i64) -> Id {
        Id::from_i64(n)
    }

    /// Two people of a customer, 11 and 12.
    async fn store() -> (Store, tempfile::TempDir) {
        let (store, dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        customers::insert(&mut tx, &customers::Customer::new(id(1), NOW)).await.unwrap();
        for n in [11, 12] {
            people::insert(&mut tx, &people::Person::new(id(n), id(1), NOW)).await.unwrap();
        }
        tx.commit().await.unwrap();
        (store, dir)
    }

    #[tokio::test]
    async fn a_link_is_used_once_and_in_its_time() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        let link = insert_link(&mut tx, id(11), NOW, NOW + HOUR).await.unwrap();
        assert_eq!(take_link(&mut tx, &link.hash(), NOW + HOUR).await.unwrap(), None);
        assert_eq!(take_link(&mut tx, &link.hash(), NOW).await.unwrap(), Some(id(11)));
        assert_eq!(take_link(&mut tx, &link.hash(), NOW).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_person_has_a_bounded_number_of_sessions_and_links_and_the_newest_stay() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        let other = insert(&mut tx, id(12), NOW, NOW + HOUR).await.unwrap();
        let (mut sessions, mut links) = (Vec::new(), Vec::new());
        for n in 0..12 {
            let now = NOW + Duration::from_secs(n);
            sessions.push(insert(&mut tx, id(11), now, now + HOUR).await.unwrap());
            links.push(insert_link(&mut tx, id(11), now, now + HOUR).await.unwrap());
        }
        for (n, session) in sessions.iter().enumerate() {
            let found = find(&mut tx, &session.hash()).await.unwrap();
            assert_eq!(found.is_some(), n >= 4, "{n}");
        }
        for (n, link) in links.iter().enumerate() {
            assert_eq!(take_link(&mut tx, &link.hash(), NOW).await.unwrap().is_some(), n >= 4, "{n}");
        }
        assert!(find(&mut tx, &other.hash()).await.unwrap().is_some(), "that of another person stays");
    }

    #[tokio::test]
    async fn the_sessions_and_links_of_a_removed_person_are_gone() {
        let (store, _dir) = store().await;
        let mut tx = store.begin().await.unwrap();
        let session = insert(&mut tx, id(11), NOW, NOW + HOUR).await.unwrap();
        insert_link(&mut tx, id(11), NOW, NOW + HOUR).await.unwrap();
        assert_eq!(find(&mut tx, &session.hash()).await.unwrap().unwrap().customer, id(1));
        people::remove(&mut tx, id(11), NOW).await.unwrap();
        tx.commit().await.unwrap();
        let left = "select cast((select count(*) from person_sessions) + (select count(*) from person_login_links) as text)";
        assert_eq!(fixture::texts(&store, left).await, ["0"]);
    }
}

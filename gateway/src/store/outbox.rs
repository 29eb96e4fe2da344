//! Messages to people, one row per receiver, from the transaction that makes them necessary until
//! they are delivered.
//!
//! A row is never taken away by a failure: it waits for its next attempt until it is sent or given
//! up, both with a time. Knows nothing of SMTP.

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::Message;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::Store;

/// A message as it stands in the column `body`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// When it became necessary, in milliseconds.
    pub at: i64,
    pub host_name: String,
    pub service: Option<String>,
    /// `MessageKind::name`; empty in rows from before there were kinds.
    #[serde(default)]
    pub kind: String,
    pub problem: bool,
    pub from: String,
    pub to: String,
    pub output: String,
    /// Since when the reported state holds, in milliseconds.
    pub since: i64,
}

impl From<&Message> for Body {
    fn from(m: &Message) -> Self {
        Body {
            at: m.at.as_millis(),
            host_name: m.host_name.clone(),
            service: m.service.clone(),
            kind: m.kind.name().to_owned(),
            problem: m.problem,
            from: m.from.to_owned(),
            to: m.to.to_owned(),
            output: m.output.clone(),
            since: m.since.as_millis(),
        }
    }
}

/// A message that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub id: i64,
    pub host: HostId,
    pub recipient: String,
    pub body: Body,
    pub created_at: Wall,
    /// So many were made already.
    pub attempts: u32,
}

/// Puts a message in; gives its number. `event` is what made it necessary.
///
/// # Errors
/// When the database refuses the write.
pub async fn insert(
    conn: &mut SqliteConnection,
    message: &Message,
    recipient: &str,
    event: Option<i64>,
    now: Wall,
) -> sqlx::Result<i64> {
    let body = serde_json::to_string(&Body::from(message)).expect("text and numbers");
    sqlx::query_scalar(
        "insert into outbox (event, host, recipient, body, created_at, next_attempt)
         values ($1, $2, $3, $4, $5, $5) returning id",
    )
    .bind(event)
    .bind(message.host.as_i64())
    .bind(recipient)
    .bind(body)
    .bind(now.as_millis())
    .fetch_one(conn)
    .await
}

/// # Errors
/// When the database refuses the write.
pub async fn sent(conn: &mut SqliteConnection, id: i64, at: Wall) -> sqlx::Result<()> {
    sqlx::query("update outbox set sent_at = $2, attempts = attempts + 1, last_error = null where id = $1")
        .bind(id)
        .bind(at.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// # Errors
/// When the database refuses the write.
pub async fn failed(conn: &mut SqliteConnection, id: i64, error: &str, next: Wall) -> sqlx::Result<()> {
    sqlx::query("update outbox set attempts = attempts + 1, last_error = $2, next_attempt = $3 where id = $1")
        .bind(id)
        .bind(error)
        .bind(next.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// Nothing more is tried.
///
/// # Errors
/// When the database refuses the write.
pub async fn given_up(conn: &mut SqliteConnection, id: i64, why: &str, at: Wall) -> sqlx::Result<()> {
    sqlx::query("update outbox set given_up_at = $3, last_error = $2 where id = $1")
        .bind(id)
        .bind(why)
        .bind(at.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

impl Store {
    /// Gives up everything that waits, with one reason.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn give_up_all(&self, why: &str, at: Wall) -> sqlx::Result<()> {
        let sql = "update outbox set given_up_at = $1, last_error = $2
                   where sent_at is null and given_up_at is null";
        sqlx::query(sql).bind(at.as_millis()).bind(why).execute(&self.write).await?;
        Ok(())
    }

    /// What is due, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn due_messages(&self, now: Wall, limit: i64) -> sqlx::Result<Vec<Waiting>> {
        let rows = sqlx::query(
            "select id, host, recipient, body, created_at, attempts from outbox
             where sent_at is null and given_up_at is null and next_attempt <= $1 order by id limit $2",
        )
        .bind(now.as_millis())
        .bind(limit)
        .fetch_all(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                let body: &str = row.try_get(3)?;
                Ok(Waiting {
                    id: row.try_get(0)?,
                    host: HostId::from_i64(row.try_get(1)?),
                    recipient: row.try_get(2)?,
                    body: serde_json::from_str(body).map_err(|e| sqlx::Error::Decode(e.into()))?,
                    created_at: Wall::from_millis(row.try_get(4)?),
                    attempts: row.try_get(5)?,
                })
            })
            .collect()
    }

    /// When the next message is due; `None` if none waits.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn next_message_due(&self) -> sqlx::Result<Option<Wall>> {
        let at: Option<i64> = sqlx::query_scalar(
            "select min(next_attempt) from outbox where sent_at is null and given_up_at is null",
        )
        .fetch_one(&self.read)
        .await?;
        Ok(at.map(Wall::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::wire::MessageKind;

    use super::*;
    use crate::store::fixture;

    fn message() -> Message {
        Message {
            at: Wall::from_millis(1_000),
            host: Id::from_i64(7),
            host_name: "cam-07".into(),
            service: None,
            kind: MessageKind::Problem,
            problem: true,
            from: "up",
            to: "down",
            output: "no answer".into(),
            since: Wall::from_millis(500),
        }
    }

    #[tokio::test]
    async fn a_message_waits_until_it_is_sent_or_given_up() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let at = Wall::from_millis(2_000);
        let mut ids = Vec::new();
        for to in ["a@example.org", "b@example.org", "c@example.org"] {
            ids.push(insert(&mut tx, &message(), to, None, at).await.unwrap());
        }
        sent(&mut tx, ids[0], at).await.unwrap();
        failed(&mut tx, ids[1], "451 later", Wall::from_millis(9_000)).await.unwrap();
        given_up(&mut tx, ids[2], "nobody there", at).await.unwrap();
        tx.commit().await.unwrap();

        assert!(store.due_messages(Wall::from_millis(8_999), 9).await.unwrap().is_empty());
        assert_eq!(store.next_message_due().await.unwrap(), Some(Wall::from_millis(9_000)));
        let due = store.due_messages(Wall::from_millis(9_000), 9).await.unwrap();
        assert_eq!((due[0].recipient.as_str(), due[0].attempts), ("b@example.org", 1));
        assert_eq!(due[0].body, Body::from(&message()));
    }
}

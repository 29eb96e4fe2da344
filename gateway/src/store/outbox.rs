//! Messages to people, one row per receiver, from the transaction that makes them necessary until
//! they are delivered.
//!
//! A row is never taken away by a failure: it waits for its next attempt until it is sent or given
//! up, both with a time. What one receiver is told of one host comes in order: a message waits for
//! those before it. Knows nothing of SMTP.

use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::Message;
use serde::{Deserialize, Serialize};
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::Store;
use super::backlog::Dropped;

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

/// Longest pause between two attempts. A row that says more was written before the wall clock went
/// back, and is due.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// What waits, with the first of each receiver and host.
macro_rules! waiting {
    () => {
        "with waiting as (select *, min(id) over (partition by recipient, host) as first from outbox
                          where sent_at is null and given_up_at is null) "
    };
}

const DUE: &str = concat!(
    waiting!(),
    "select id, host, recipient, body, created_at, attempts from waiting
     where id = first and (attempts = 0 or next_attempt <= $1 or next_attempt > $2) order by id limit $3"
);

const NEXT: &str = concat!(
    waiting!(),
    "select min(case when attempts = 0 then created_at else next_attempt end) from waiting where id = first"
);

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

/// Gives up everything that waits, with one reason; gives what that was.
///
/// # Errors
/// When the database refuses the write.
pub async fn give_up_all(conn: &mut SqliteConnection, why: &str, at: Wall) -> sqlx::Result<Vec<Dropped>> {
    sqlx::query_as(
        "update outbox set given_up_at = $1, last_error = $2 where sent_at is null and given_up_at is null
         returning id, host, recipient, body ->> '$.service', last_error",
    )
    .bind(at.as_millis())
    .bind(why)
    .fetch_all(conn)
    .await
}

impl Store {
    /// What is due, the oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn due_messages(&self, now: Wall, limit: i64) -> sqlx::Result<Vec<Waiting>> {
        let rows = sqlx::query(DUE)
            .bind(now.as_millis())
            .bind((now + LONGEST_PAUSE).as_millis())
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
        let at: Option<i64> = sqlx::query_scalar(NEXT).fetch_one(&self.read).await?;
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

    /// A message that failed `attempts` times and waits until `next`.
    async fn failing(store: &Store, to: &str, next: i64) -> i64 {
        let mut tx = store.begin().await.unwrap();
        let id = insert(&mut tx, &message(), to, None, Wall::from_millis(0)).await.unwrap();
        failed(&mut tx, id, "451 later", Wall::from_millis(next)).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn due(store: &Store, now: i64) -> Vec<i64> {
        let due = store.due_messages(Wall::from_millis(now), 9).await.unwrap();
        due.into_iter().map(|w| w.id).collect()
    }

    #[tokio::test]
    async fn a_clock_that_goes_back_holds_no_mail_up() {
        let (store, _dir) = fixture::store().await;
        let day = 86_400_000;
        let id = failing(&store, "a@example.org", day + 60_000).await;
        assert_eq!(due(&store, day).await, [0; 0]);
        assert_eq!(due(&store, 0).await, [id], "a day back is longer than any pause");
    }

    #[tokio::test]
    async fn what_one_receiver_is_told_of_one_host_comes_in_order() {
        let (store, _dir) = fixture::store().await;
        let refused = failing(&store, "a@example.org", 60_000).await;
        let mut tx = store.begin().await.unwrap();
        let at = Wall::from_millis(1_000);
        insert(&mut tx, &message(), "a@example.org", None, at).await.unwrap();
        let other = insert(&mut tx, &message(), "b@example.org", None, at).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(due(&store, 2_000).await, [other]);
        assert_eq!(due(&store, 60_000).await, [refused, other]);
        let mut tx = store.begin().await.unwrap();
        sent(&mut tx, other, at).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store.next_message_due().await.unwrap(), Some(Wall::from_millis(60_000)));
    }
}

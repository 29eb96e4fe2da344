//! What an outage of the mail server leaves in the outbox: of the messages about one object that
//! waited together, only the last one still says something.
//!
//! Never touches what was delivered. Knows nothing of SMTP and of who reads.

use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

/// A message that waited longer was held up by an outage: a server that is only slow takes one well
/// within this, and whoever follows a change as it happens is to see each step.
pub const HELD_UP: Duration = Duration::from_secs(120);

/// Why an older message is not sent any more.
pub const OVERTAKEN: &str = "superseded: a newer message about the same was waiting behind it";
/// Why a recovery is not sent.
pub const OVER: &str = "superseded: the problem was over before anybody was told of it";

/// A message that is not sent any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub id: i64,
    pub host: HostId,
    pub service: Option<String>,
    pub recipient: String,
    pub why: String,
}

impl FromRow<'_, SqliteRow> for Dropped {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Dropped {
            id: row.try_get(0)?,
            host: Id::from_i64(row.try_get(1)?),
            recipient: row.try_get(2)?,
            service: row.try_get(3)?,
            why: row.try_get(4)?,
        })
    }
}

/// Problems, reminders of them and recoveries are states, of which the last counts; all else is news
/// of its own.
macro_rules! of_states {
    () => {
        "coalesce(body ->> '$.kind', '') in ('', 'problem', 'reminder', 'recovery')"
    };
}

/// Changes of one object, by which a receiver follows it.
macro_rules! one_object {
    () => {
        "partition by recipient, host, body ->> '$.service' order by id"
    };
}

const ANY: &str = "select exists (select 1 from outbox
     where sent_at is null and given_up_at is null and created_at <= $1)";

const DROP_OVERTAKEN: &str = concat!(
    "update outbox set given_up_at = $1, last_error = $3
     from (select id as older, created_at as since, lead(id) over (",
    one_object!(),
    ") as newer from outbox where sent_at is null and given_up_at is null and ",
    of_states!(),
    ") where id = older and newer is not null and since <= $2
     returning id, host, recipient, body ->> '$.service', last_error"
);

/// `told`: the newest one before it that was sent or may have been.
const DROP_OVER: &str = concat!(
    "update outbox set given_up_at = $1, last_error = $2
     from (select id as last, max(case when sent_at is not null or attempts > 0 then id end) over (",
    one_object!(),
    " rows between unbounded preceding and 1 preceding) as told
           from outbox where ",
    of_states!(),
    " and host in (select host from outbox where given_up_at = $1))
     where id = last and sent_at is null and given_up_at is null and attempts = 0
       and (body ->> '$.problem') = 0
       and not exists (select 1 from outbox t where t.id = told and (t.body ->> '$.problem') = 1)
     returning id, host, recipient, body ->> '$.service', last_error"
);

/// Whether something waits since before `since`.
///
/// # Errors
/// When the database cannot be read.
pub async fn is_held_up(conn: &mut SqliteConnection, since: Wall) -> sqlx::Result<bool> {
    sqlx::query_scalar(ANY).bind(since.as_millis()).fetch_one(conn).await
}

/// Ends every message that was held up and overtaken, and recoveries from what nobody was told of;
/// gives those that ended.
///
/// # Errors
/// When the database refuses the write.
pub async fn collapse(conn: &mut SqliteConnection, now: Wall) -> sqlx::Result<Vec<Dropped>> {
    let overtaken = sqlx::query_as(DROP_OVERTAKEN).bind(now.as_millis());
    let overtaken = overtaken.bind((now - HELD_UP).as_millis()).bind(OVERTAKEN);
    let mut dropped: Vec<Dropped> = overtaken.fetch_all(&mut *conn).await?;
    if !dropped.is_empty() {
        let over = sqlx::query_as(DROP_OVER).bind(now.as_millis()).bind(OVER);
        dropped.append(&mut over.fetch_all(conn).await?);
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::wire::{Message, MessageKind};

    use super::*;
    use crate::store::{Store, fixture, outbox};

    const LATER: Wall = Wall::from_millis(600_000);

    /// `+service` is its problem, `!service` a reminder, `-service` its recovery; an empty service is
    /// the host.
    async fn queue(store: &Store, changes: &[&str], at: i64) -> Vec<i64> {
        let mut tx = store.begin().await.unwrap();
        let mut ids = Vec::new();
        for change in changes {
            let (kind, service) = (&change[..1], change[1..].to_owned());
            let kind = match kind {
                "+" => MessageKind::Problem,
                "!" => MessageKind::Reminder,
                _ => MessageKind::Recovery,
            };
            let message = Message {
                at: Wall::from_millis(at),
                host: Id::from_i64(7),
                host_name: "cam-07".into(),
                service: (!service.is_empty()).then_some(service),
                kind,
                problem: kind != MessageKind::Recovery,
                from: "up",
                to: "down",
                output: String::new(),
                since: Wall::from_millis(at),
            };
            ids.push(outbox::insert(&mut tx, &message, "a@b.c", None, Wall::from_millis(at)).await.unwrap());
        }
        tx.commit().await.unwrap();
        ids
    }

    async fn collapsed(store: &Store) -> Vec<(i64, String)> {
        let mut tx = store.begin().await.unwrap();
        let dropped = collapse(&mut tx, LATER).await.unwrap();
        tx.commit().await.unwrap();
        dropped.into_iter().map(|d| (d.id, d.why)).collect()
    }

    async fn waiting(store: &Store) -> Vec<i64> {
        let sql = "select id from outbox where sent_at is null and given_up_at is null order by id";
        sqlx::query_scalar(sql).fetch_all(&store.read).await.unwrap()
    }

    #[tokio::test]
    async fn of_a_row_of_changes_the_last_one_is_sent() {
        let (store, _dir) = fixture::store().await;
        let ids = queue(&store, &["+", "+disk", "-", "+", "+disk"], 0).await;
        let dropped = collapsed(&store).await;
        let expected = [ids[0], ids[2], ids[1]].map(|id| (id, OVERTAKEN.to_owned()));
        assert_eq!(sorted(dropped), sorted(expected.to_vec()));
        assert_eq!(waiting(&store).await, [ids[3], ids[4]]);
    }

    fn sorted(mut dropped: Vec<(i64, String)>) -> Vec<(i64, String)> {
        dropped.sort();
        dropped
    }

    #[tokio::test]
    async fn a_problem_that_nobody_heard_of_ends_in_silence() {
        let (store, _dir) = fixture::store().await;
        let ids = queue(&store, &["+", "!", "-"], 0).await;
        let expected = [(ids[0], OVERTAKEN), (ids[1], OVERTAKEN), (ids[2], OVER)];
        assert_eq!(sorted(collapsed(&store).await), expected.map(|(id, why)| (id, why.to_owned())));
        assert_eq!(waiting(&store).await, [0; 0]);
    }

    #[tokio::test]
    async fn a_problem_that_may_have_been_told_is_taken_back() {
        let (store, _dir) = fixture::store().await;
        let ids = queue(&store, &["+", "-", "+disk", "-disk", "+disk", "-disk"], 0).await;
        let mut tx = store.begin().await.unwrap();
        // The server may have taken it before it went away.
        outbox::failed(&mut tx, ids[0], "connection reset", LATER).await.unwrap();
        outbox::sent(&mut tx, ids[2], Wall::from_millis(1)).await.unwrap();
        tx.commit().await.unwrap();
        collapsed(&store).await;
        assert_eq!(waiting(&store).await, [ids[1], ids[5]]);
    }

    #[tokio::test]
    async fn what_waits_for_a_moment_only_is_sent_step_by_step() {
        let (store, _dir) = fixture::store().await;
        queue(&store, &["+", "-"], LATER.as_millis() - 1_000).await;
        assert!(collapsed(&store).await.is_empty());
        let mut conn = store.reader().await.unwrap();
        assert!(!is_held_up(&mut conn, LATER - HELD_UP).await.unwrap());
    }
}

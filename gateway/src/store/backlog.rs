//! Thins the outbox after an outage: of several notifications about one checkable, only the last
//! still matters.
//!
//! Delivered messages stay untouched. This module knows nothing of SMTP or recipients.

use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::GATEWAY;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::events;
use super::outbox::{Address, Channel};

/// A message that waited longer was delayed by an outage. A server that is only slow takes a
/// message well within this time, and its recipient should see each step.
pub const HELD_UP: Duration = Duration::from_secs(120);

/// The reason for dropping an older notice.
pub const OVERTAKEN: &str = "superseded: a newer message about the same was waiting behind it";
/// Why a message that was given up is not sent again.
pub const TOLD_SINCE: &str = "superseded: a newer message to the same address reports it";
/// Why a problem that nobody heard of is not told any more.
pub const WELL: &str = "superseded: it recovered";
/// Why a recovery is not told.
pub const OVER: &str = "superseded: the problem was over before it was notified";

/// A notice that is no longer sent to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub message: i64,
    pub notice: i64,
    pub host: HostId,
    pub service: Option<String>,
    pub address: Address,
    pub why: String,
}

impl FromRow<'_, SqliteRow> for Dropped {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Dropped {
            message: row.try_get(0)?,
            notice: row.try_get(1)?,
            host: Id::from_i64(row.try_get(2)?),
            service: row.try_get(3)?,
            address: Address::new(Channel::named(row.try_get(6)?), row.try_get(4)?),
            why: row.try_get(5)?,
        })
    }
}

/// The notices about states for an address: problems, reminders and recoveries. Only the last of
/// them counts. All other notices stand alone.
macro_rules! of_states {
    () => {
        " from outbox_notices l join outbox o on o.id = l.message and o.kind = 'notifications'
          join notices x on x.id = l.notice and x.kind in ('problem', 'reminder', 'recovery') "
    };
}

/// The changes of one checkable as one address receives them.
macro_rules! one_object {
    () => {
        "partition by o.channel, o.address, x.host, x.service order by l.notice, l.message"
    };
}

const ANY: &str = "select exists (select 1 from outbox
     where sent_at is null and given_up_at is null and created_at <= $1)";

const DROP_OVERTAKEN: &str = concat!(
    "update outbox_notices set dropped = $2
     from (select l.message as m, l.notice as n, o.created_at as since, lead(l.notice) over (",
    one_object!(),
    ") as newer",
    of_states!(),
    "where o.sent_at is null and o.given_up_at is null and l.dropped is null
       and (o.channel, o.address) not in (select value ->> 0, value ->> 1 from json_each($3)))
     where message = m and notice = n and newer is not null and since <= $1
     returning message"
);

/// `told`: the newest earlier notice that was sent or may have been.
const DROP_OVER: &str = concat!(
    "update outbox_notices set dropped = $2
     from (select l.message as m, l.notice as n, x.problem as problem,
                  o.sent_at is null and o.given_up_at is null and o.attempts = 0 as untold,
                  max(case when o.sent_at is not null or o.attempts > 0 then l.notice end) over (",
    one_object!(),
    " rows between unbounded preceding and 1 preceding) as told",
    of_states!(),
    "where x.host in (select y.host from outbox_notices d join notices y on y.id = d.notice
                      where d.message in (select value from json_each($1)) and d.dropped is not null)
       and (o.channel, o.address) not in (select value ->> 0, value ->> 1 from json_each($3)))
     where message = m and notice = n and untold and problem = 0 and dropped is null
       and not exists (select 1 from notices t where t.id = told and t.problem = 1)
     returning message"
);

pub(super) const DROPPED: &str =
    "select l.message, l.notice, n.host, n.service, o.address, l.dropped, o.channel
     from outbox_notices l join notices n on n.id = l.notice join outbox o on o.id = l.message
     where l.dropped is not null and o.given_up_at is null
       and l.message in (select value from json_each($1)) order by l.notice, l.message";

pub(super) const GIVE_UP_EMPTY: &str = "update outbox set given_up_at = $2, last_error = 'superseded'
     where id in (select value from json_each($1)) and not exists
       (select 1 from outbox_notices l where l.message = outbox.id and l.dropped is null)";

/// Returns whether a message waits since before `since`.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn is_held_up(conn: &mut SqliteConnection, since: Wall) -> sqlx::Result<bool> {
    sqlx::query_scalar(ANY).bind(since.as_millis()).fetch_one(conn).await
}

/// Drops delayed notices that a newer one supersedes, and recoveries from problems that were never
/// sent. Returns the dropped ones. `busy`: addresses with a delivery under way, which stay
/// untouched.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn collapse(
    tx: &mut SqliteConnection,
    busy: &[(Channel, String)],
    now: Wall,
) -> sqlx::Result<Vec<Dropped>> {
    let busy = Json(busy.iter().map(|(channel, address)| (channel.name(), address)).collect::<Vec<_>>());
    let overtaken = sqlx::query_scalar(DROP_OVERTAKEN).bind((now - HELD_UP).as_millis()).bind(OVERTAKEN);
    let overtaken = overtaken.bind(&busy);
    let mut messages: Vec<i64> = overtaken.fetch_all(&mut *tx).await?;
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    let over = sqlx::query_scalar(DROP_OVER).bind(Json(&messages)).bind(OVER).bind(&busy);
    let over: Vec<i64> = over.fetch_all(&mut *tx).await?;
    messages.extend(over);
    let dropped = sqlx::query_as(DROPPED).bind(Json(&messages)).fetch_all(&mut *tx).await?;
    sqlx::query(GIVE_UP_EMPTY).bind(Json(&messages)).bind(now.as_millis()).execute(tx).await?;
    Ok(dropped)
}

const DROP_TOLD_SINCE: &str = "update outbox_notices as l set dropped = $2 where message = $1
     and exists (select 1 from outbox o join outbox p on p.channel = o.channel and p.address = o.address
                      and p.kind = 'notifications' and p.given_up_at is null
                 join outbox_notices f on f.message = p.id and f.dropped is null and f.notice > l.notice
                 join notices n on n.id = l.notice
                 join notices x on x.id = f.notice and x.host = n.host and x.service is n.service
                      and x.kind in ('problem', 'reminder', 'recovery')
                 where o.id = $1 and o.kind = 'notifications' and n.kind in ('problem', 'reminder', 'recovery'))";

/// The gateway's own uplink is recorded as its incident, its clock in the event log, and a restore in the row
/// of the instance.
const DROP_WELL: &str = concat!(
    "update outbox_notices as l set dropped = $2 where message = $1 and dropped is null
     and exists (select 1 from notices n where n.id = l.notice and n.problem = 1
         and not exists (select 1 from host_states h
                         where h.host = n.host and n.service is null and h.hard = 'down')
         and not exists (select 1 from service_states s
                         where s.host = n.host and s.service = n.service and s.hard not in ('ok', 'pending'))
         and not exists (select 1 from incident_members m
                         where n.host = $3 and n.service is null and m.host = n.host and m.left_at is null)
         and not (n.host = $3 and n.service = 'restore'
                  and exists (select 1 from instance where restored_at is not null and confirmed_at is null))
         and not (n.host = $3 and n.service = 'clock' and ",
    events::clock_untrusted!(),
    "))"
);

/// Drops from a given-up message the notices sent since and the problems that are over.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn refresh(tx: &mut SqliteConnection, message: i64) -> sqlx::Result<()> {
    sqlx::query(DROP_TOLD_SINCE).bind(message).bind(TOLD_SINCE).execute(&mut *tx).await?;
    let well = sqlx::query(DROP_WELL).bind(message).bind(WELL).bind(GATEWAY.as_i64());
    well.execute(tx).await.map(drop)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::{Message, MessageKind};
    use fleetgate_engine::notification::Item;

    use super::*;
    use crate::store::outbox::{self, NewMessage, OutboxKind};
    use crate::store::{Store, fixture, notices};

    const LATER: Wall = Wall::from_millis(600_000);

    /// Queues one message per word. `+service` is a problem, `!service` a reminder and `-service` a
    /// recovery. An empty service means the host.
    async fn queue(store: &Store, changes: &[&str], at: i64) -> Vec<i64> {
        let mut tx = store.begin().await.unwrap();
        let mut ids = Vec::new();
        for word in changes {
            let mut items = Vec::new();
            for change in word.split(' ') {
                let (kind, service) = (&change[..1], change[1..].to_owned());
                let kind = match kind {
                    "+" => MessageKind::Problem,
                    "!" => MessageKind::Reminder,
                    _ => MessageKind::Recovery,
                };
                let problem = kind != MessageKind::Recovery;
                let service = (!service.is_empty()).then_some(service);
                let message = Message { service, kind, problem, ..fixture::down(Id::from_i64(7)) };
                let notice = notices::insert(&mut tx, &message, None).await.unwrap();
                items.push(Item { notice, root: notice, rule: None });
            }
            let new = NewMessage {
                contact: Id::from_i64(1),
                contact_name: "ops",
                channel: Channel::Email,
                address: "a@b.c",
                kind: OutboxKind::Notices,
                site: "",
                folded: 0,
                items: &items,
            };
            ids.push(outbox::insert(&mut tx, &new, Wall::from_millis(at)).await.unwrap());
        }
        tx.commit().await.unwrap();
        ids
    }

    async fn collapsed(store: &Store) -> Vec<(i64, String)> {
        let mut tx = store.begin().await.unwrap();
        let dropped = collapse(&mut tx, &[], LATER).await.unwrap();
        tx.commit().await.unwrap();
        dropped.into_iter().map(|d| (d.message, d.why)).collect()
    }

    async fn waiting(store: &Store) -> Vec<i64> {
        let mut conn = store.reader().await.unwrap();
        let rows = outbox::list(&mut conn, outbox::Filter::Waiting, i64::MAX, 99).await.unwrap();
        rows.into_iter().rev().map(|message| message.id).collect()
    }

    #[tokio::test]
    async fn of_a_row_of_changes_the_last_one_is_sent() {
        let (store, _dir) = fixture::store().await;
        let ids = queue(&store, &["+", "+disk", "-", "+", "+disk"], 0).await;
        let expected = [ids[0], ids[1], ids[2]].map(|id| (id, OVERTAKEN.to_owned()));
        assert_eq!(collapsed(&store).await, expected);
        assert_eq!(waiting(&store).await, [ids[3], ids[4]]);
    }

    #[tokio::test]
    async fn a_message_about_several_problems_keeps_the_current_ones() {
        let (store, _dir) = fixture::store().await;
        let ids = queue(&store, &["+disk +load", "-disk"], 0).await;
        let expected = [(ids[0], OVERTAKEN.to_owned()), (ids[1], OVER.to_owned())];
        assert_eq!(collapsed(&store).await, expected);
        assert_eq!(waiting(&store).await, [ids[0]]);
        let left = outbox::contents(&mut store.reader().await.unwrap(), ids[0], 9, outbox::Order::Time)
            .await
            .unwrap();
        assert_eq!((left.total(), left.notices[0].service.as_deref()), (1, Some("load")));
    }

    #[tokio::test]
    async fn a_problem_that_was_never_delivered_gets_no_recovery() {
        let (store, _dir) = fixture::store().await;
        let ids = queue(&store, &["+", "!", "-"], 0).await;
        let expected =
            [(ids[0], OVERTAKEN.to_owned()), (ids[1], OVERTAKEN.to_owned()), (ids[2], OVER.to_owned())];
        assert_eq!(collapsed(&store).await, expected);
        assert_eq!(waiting(&store).await, [0; 0]);
    }

    #[tokio::test]
    async fn a_problem_that_may_have_been_delivered_gets_a_recovery() {
        let (store, _dir) = fixture::store().await;
        let ids = queue(&store, &["+", "-", "+disk", "-disk", "+disk", "-disk"], 0).await;
        let mut tx = store.begin().await.unwrap();
        // The server may have taken the message before it went away.
        outbox::begun(&mut tx, ids[0]).await.unwrap();
        outbox::failed(&mut tx, ids[0], "connection reset", LATER).await.unwrap();
        outbox::sent(&mut tx, ids[2], Wall::from_millis(1)).await.unwrap();
        tx.commit().await.unwrap();
        collapsed(&store).await;
        assert_eq!(waiting(&store).await, [ids[1], ids[5]]);
    }

    #[tokio::test]
    async fn messages_in_delivery_are_not_collapsed() {
        let (store, _dir) = fixture::store().await;
        queue(&store, &["+", "-"], 0).await;
        let mut tx = store.begin().await.unwrap();
        let busy = [(Channel::Email, "a@b.c".to_owned())];
        assert!(collapse(&mut tx, &busy, LATER).await.unwrap().is_empty());
        let elsewhere = [(Channel::Webhook, "a@b.c".to_owned()), (Channel::Email, "x@y.z".to_owned())];
        assert_eq!(collapse(&mut tx, &elsewhere, LATER).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn messages_that_waited_briefly_are_not_collapsed() {
        let (store, _dir) = fixture::store().await;
        queue(&store, &["+", "-"], LATER.as_millis() - 1_000).await;
        assert!(collapsed(&store).await.is_empty());
        let mut conn = store.reader().await.unwrap();
        assert!(!is_held_up(&mut conn, LATER - HELD_UP).await.unwrap());
    }
}

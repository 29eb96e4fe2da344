//! The outbox: one message for each address of a contact, from the transaction that requests it
//! until its delivery.
//!
//! A failure never removes a row. The row waits for its next attempt until it is sent or given up,
//! each with a time. Messages to one address about one host stay in order, so a message waits for
//! earlier ones. This module knows nothing of SMTP and HTTP.

mod address;
mod contents;
pub mod withdrawn;

use std::sync::LazyLock;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::notification::{ContactId, Item};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::Store;
use super::access::{id, maybe_wall, wall};
use super::rows::{Batched, NARROW};
pub use address::Address;
pub use contents::{Concern, Contents, Count, Order, Rented, contents};

/// The longest pause between two attempts. A row with a later attempt was written before the wall
/// clock went back, and is due.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);
/// Messages to one address taken at once. The rest follow.
const TAKEN: i64 = 200;
/// Conversations that one message continues. A mail program follows the first of them.
const THREADS: i64 = 20;

/// The channel of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Email,
    Webhook,
}

impl Channel {
    pub const ALL: [Channel; 2] = [Channel::Email, Channel::Webhook];

    pub const fn name(self) -> &'static str {
        match self {
            Channel::Email => "email",
            Channel::Webhook => "webhook",
        }
    }

    pub fn named(name: &str) -> Channel {
        if name == "webhook" { Channel::Webhook } else { Channel::Email }
    }
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboxKind {
    /// New changes.
    Notices,
    /// Problems that persist.
    Digest,
    /// A test message that an operator requested.
    Test,
}

impl OutboxKind {
    pub const ALL: [OutboxKind; 3] = [OutboxKind::Notices, OutboxKind::Digest, OutboxKind::Test];

    pub const fn name(self) -> &'static str {
        match self {
            OutboxKind::Notices => "notifications",
            OutboxKind::Digest => "digest",
            OutboxKind::Test => "test",
        }
    }

    fn named(name: &str) -> OutboxKind {
        [OutboxKind::Digest, OutboxKind::Test]
            .into_iter()
            .find(|k| k.name() == name)
            .unwrap_or(OutboxKind::Notices)
    }
}

/// A new message.
#[derive(Clone, Debug)]
pub struct NewMessage<'a> {
    pub contact: ContactId,
    pub contact_name: &'a str,
    pub channel: Channel,
    pub address: &'a str,
    pub kind: OutboxKind,
    pub site: &'a str,
    /// The number of messages that were postponed and merged into this one. 0: none.
    pub folded: usize,
    pub items: &'a [Item],
}

/// A stored message without its contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    pub id: i64,
    pub contact: ContactId,
    pub contact_name: String,
    pub channel: Channel,
    pub address: Address,
    pub kind: OutboxKind,
    pub site: String,
    /// The number of messages that the limit postponed and merged into this one. 0: the message
    /// left when it was due.
    pub folded: i64,
    pub created_at: Wall,
    /// The number of attempts so far.
    pub attempts: u32,
    pub next_attempt: Wall,
    pub last_error: Option<String>,
    pub sent_at: Option<Wall>,
    pub given_up_at: Option<Wall>,
}

impl FromRow<'_, SqliteRow> for MessageRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(MessageRow {
            id: row.try_get("id")?,
            contact: id(row, "contact")?,
            contact_name: row.try_get("contact_name")?,
            channel: Channel::named(row.try_get("channel")?),
            address: Address::new(Channel::named(row.try_get("channel")?), row.try_get("address")?),
            kind: OutboxKind::named(row.try_get("kind")?),
            site: row.try_get("site")?,
            folded: row.try_get("folded")?,
            created_at: wall(row, "created_at")?,
            attempts: row.try_get("attempts")?,
            next_attempt: wall(row, "next_attempt")?,
            last_error: row.try_get("last_error")?,
            sent_at: maybe_wall(row, "sent_at")?,
            given_up_at: maybe_wall(row, "given_up_at")?,
        })
    }
}

static ITEMS: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 4, |values| {
        format!("insert into outbox_notices (message, notice, root, rule) values {values}")
    })
});

/// Adds a message and returns its number.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn insert(tx: &mut SqliteConnection, new: &NewMessage<'_>, now: Wall) -> sqlx::Result<i64> {
    let number: i64 = sqlx::query_scalar(
        "insert into outbox (contact, contact_name, channel, address, kind, site, created_at, next_attempt,
             folded)
         values ($1, $2, $3, $4, $5, $6, $7, $7, $8) returning id",
    )
    .bind(new.contact.as_i64())
    .bind(new.contact_name)
    .bind(new.channel.name())
    .bind(new.address)
    .bind(new.kind.name())
    .bind(new.site)
    .bind(now.as_millis())
    .bind(i64::try_from(new.folded).unwrap_or(i64::MAX))
    .fetch_one(&mut *tx)
    .await?;
    ITEMS
        .run(tx, new.items, |item, arguments| {
            let rule = item.rule.map(Id::as_i64);
            arguments.add(number).add(item.notice.0).add(item.root.0).add(rule);
        })
        .await?;
    Ok(number)
}

/// Records the start of an attempt. From now on, the receiver may have the message, even if the
/// gateway stops.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn begun(conn: &mut SqliteConnection, id: i64) -> sqlx::Result<()> {
    let sql = "update outbox set attempts = attempts + 1 where id = $1";
    sqlx::query(sql).bind(id).execute(conn).await.map(drop)
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn sent(conn: &mut SqliteConnection, id: i64, at: Wall) -> sqlx::Result<()> {
    sqlx::query("update outbox set sent_at = $2, last_error = null, given_up_at = null where id = $1")
        .bind(id)
        .bind(at.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// Records a failed attempt. A message that was given up meanwhile stays so.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn failed(conn: &mut SqliteConnection, id: i64, error: &str, next: Wall) -> sqlx::Result<()> {
    sqlx::query("update outbox set last_error = $2, next_attempt = $3 where id = $1 and given_up_at is null")
        .bind(id)
        .bind(error)
        .bind(next.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// Postpones the next attempt. Only messages about the same hosts wait for it.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn put_off(conn: &mut SqliteConnection, id: i64, next: Wall) -> sqlx::Result<()> {
    let sql = "update outbox set next_attempt = $2 where id = $1";
    sqlx::query(sql).bind(id).bind(next.as_millis()).execute(conn).await.map(drop)
}

/// Gives a message up.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn given_up(conn: &mut SqliteConnection, id: i64, why: &str, at: Wall) -> sqlx::Result<()> {
    sqlx::query("update outbox set given_up_at = $3, last_error = $2 where id = $1")
        .bind(id)
        .bind(why)
        .bind(at.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// Sends a given-up message again as if it were new. Superseded notices stay dropped, because they
/// are over or a newer message covers them.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn resend(tx: &mut SqliteConnection, id: i64, now: Wall) -> sqlx::Result<()> {
    sqlx::query(
        "update outbox set given_up_at = null, attempts = 0, created_at = $2, next_attempt = $2 where id = $1",
    )
    .bind(id)
    .bind(now.as_millis())
    .execute(tx)
    .await
    .map(drop)
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, id: i64) -> sqlx::Result<Option<MessageRow>> {
    sqlx::query_as("select * from outbox where id = $1").bind(id).fetch_optional(conn).await
}

/// Returns whether all notices of a message were dropped.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn is_superseded(conn: &mut SqliteConnection, id: i64) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "select exists (select 1 from outbox_notices where message = $1)
            and not exists (select 1 from outbox_notices where message = $1 and dropped is null)",
    )
    .bind(id)
    .fetch_one(conn)
    .await
}

/// Selects messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    All,
    Waiting,
    Sent,
    GivenUp,
}

/// Returns the newest messages first, below `before`.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    wanted: Filter,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<MessageRow>> {
    let sql = match wanted {
        Filter::All => "select * from outbox where id < $1 order by id desc limit $2",
        Filter::Waiting => {
            "select * from outbox where id < $1 and sent_at is null and given_up_at is null
             order by id desc limit $2"
        }
        Filter::Sent => {
            "select * from outbox where id < $1 and sent_at is not null order by id desc limit $2"
        }
        Filter::GivenUp => {
            "select * from outbox where id < $1 and given_up_at is not null order by id desc limit $2"
        }
    };
    sqlx::query_as(sql).bind(before).bind(limit).fetch_all(conn).await
}

/// Returns the posts since then, in order, each with its time. One post goes to several addresses,
/// and several posts may share a time.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn posted_since(conn: &mut SqliteConnection, since: Wall) -> sqlx::Result<Vec<(ContactId, Wall)>> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "select contact, created_at, max(posts) from
             (select contact, created_at, count(*) as posts from outbox
              where kind = 'notifications' and created_at > $1 group by contact, created_at, channel, address)
         group by contact, created_at order by created_at",
    )
    .bind(since.as_millis())
    .fetch_all(conn)
    .await?;
    let post = |(contact, at, _): &_| (Id::from_i64(*contact), Wall::from_millis(*at));
    let times = |row: &(_, _, i64)| usize::try_from(row.2).unwrap_or_default();
    Ok(rows.iter().flat_map(|row| std::iter::repeat_n(post(row), times(row))).collect())
}

/// Returns the messages to the same address that this one continues, oldest first. They are the
/// messages about the same checkables or the same incidents.
///
/// The query starts from those, for any number of messages. The `cross join` keeps SQLite from
/// starting with all messages.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn thread(conn: &mut SqliteConnection, message: &MessageRow) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar(
        "with whole (id) as (select distinct coalesce(i.merged_into, i.id) from outbox_notices l
                  join notices n on n.id = l.notice join incidents i on i.id = n.incident where l.message = $1),
              part (id, whole) as (select id, id from whole union all
                  select i.id, w.id from whole w cross join incidents i on i.merged_into = w.id)
         select min(f.message) from outbox_notices l
         join outbox_notices f on f.notice = l.root
         join outbox o on o.id = f.message and o.channel = $2 and o.address = $3 and o.kind = 'notifications'
         where l.message = $1 and f.message < $1
         group by l.root
         union
         select min(f.message) from part p
         cross join notices m on m.incident = p.id cross join outbox_notices f on f.notice = m.id
         join outbox o on o.id = f.message and o.channel = $2 and o.address = $3 and o.kind = 'notifications'
         where f.message < $1
         group by p.whole
         order by 1 limit $4",
    )
    .bind(message.id)
    .bind(message.channel.name())
    .bind(message.address.reveal())
    .bind(THREADS)
    .fetch_all(conn)
    .await
}

/// The messages that may go to one address now, and the time to look again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub messages: Vec<MessageRow>,
    pub next: Option<Wall>,
}

/// The waiting messages of an address, and whether each is due. A first attempt is always due, and
/// so is one that waits longer than any pause. Only the oldest message about each host counts, so
/// that messages about a host stay in order.
macro_rules! heads {
    () => {
        "with waiting (id, attempts, next_attempt, due) as materialized (
             select id, attempts, next_attempt, attempts = 0 or next_attempt <= $3 or next_attempt > $4
             from outbox where channel = $1 and address = $2 and sent_at is null and given_up_at is null),
         about (id, host) as materialized (
             select w.id, n.host from waiting w cross join outbox_notices l on l.message = w.id
             cross join notices n on n.id = l.notice),
         first (host, id) as materialized (select host, min(id) from about group by host),
         behind (id) as (select a.id from about a cross join first f on f.host = a.host where f.id < a.id),
         head as (select * from waiting where id not in (select id from behind)) "
    };
}

/// New messages come before failed ones, which must not delay them. Each group is in order of its
/// due time.
const DUE: &str = concat!(
    heads!(),
    "select o.* from head h cross join outbox o on o.id = h.id where h.due
     order by h.attempts > 0, h.next_attempt, h.id limit $5"
);

const NEXT: &str = concat!(heads!(), "select min(next_attempt) from head where not due");

impl Store {
    /// Returns the addresses with waiting messages.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn waiting_addresses(&self) -> sqlx::Result<Vec<(Channel, String)>> {
        let rows = sqlx::query(
            "select distinct channel, address from outbox where sent_at is null and given_up_at is null",
        )
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(|row| Ok((Channel::named(row.try_get(0)?), row.try_get(1)?))).collect()
    }

    /// Returns the messages that may go to an address now, for any length of its queue.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn due_messages(&self, channel: Channel, address: &str, now: Wall) -> sqlx::Result<Due> {
        let mut conn = self.reader().await?;
        let ages = (now.as_millis(), (now + LONGEST_PAUSE).as_millis());
        let messages = sqlx::query_as(DUE).bind(channel.name()).bind(address).bind(ages.0).bind(ages.1);
        let next = sqlx::query_scalar(NEXT).bind(channel.name()).bind(address).bind(ages.0).bind(ages.1);
        let messages = messages.bind(TAKEN).fetch_all(&mut *conn).await?;
        let next: Option<i64> = next.fetch_one(&mut *conn).await?;
        Ok(Due { messages, next: next.map(Wall::from_millis) })
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::notification::NoticeId;

    use super::*;
    use crate::store::{fixture, notices};

    /// Queues a message to `address` about these hosts.
    async fn queue(store: &Store, address: &str, hosts: &[i64]) -> i64 {
        let mut tx = store.begin().await.unwrap();
        let mut items = Vec::new();
        for host in hosts {
            let notice = notices::insert(&mut tx, &fixture::down(Id::from_i64(*host)), None).await.unwrap();
            items.push(Item { notice, root: notice, rule: None });
        }
        let id = insert(&mut tx, &new(address, &items), Wall::from_millis(2_000)).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    fn new<'a>(address: &'a str, items: &'a [Item]) -> NewMessage<'a> {
        NewMessage {
            contact: Id::from_i64(1),
            contact_name: "ops",
            channel: Channel::Email,
            address,
            kind: OutboxKind::Notices,
            site: "",
            folded: 0,
            items,
        }
    }

    async fn fail(tx: &mut SqliteConnection, id: i64, next: i64) {
        begun(tx, id).await.unwrap();
        failed(tx, id, "451 later", Wall::from_millis(next)).await.unwrap();
    }

    async fn due(store: &Store, address: &str, now: i64) -> (Vec<i64>, Option<i64>) {
        let due = store.due_messages(Channel::Email, address, Wall::from_millis(now)).await.unwrap();
        (due.messages.into_iter().map(|m| m.id).collect(), due.next.map(Wall::as_millis))
    }

    #[tokio::test]
    async fn a_message_waits_until_it_is_sent_or_given_up() {
        let (store, _dir) = fixture::store().await;
        let ids =
            [queue(&store, "a", &[1]).await, queue(&store, "b", &[1]).await, queue(&store, "c", &[1]).await];
        let at = Wall::from_millis(2_000);
        let mut tx = store.begin().await.unwrap();
        sent(&mut tx, ids[0], at).await.unwrap();
        fail(&mut tx, ids[1], 9_000).await;
        given_up(&mut tx, ids[2], "nobody there", at).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(store.waiting_addresses().await.unwrap(), [(Channel::Email, "b".to_owned())]);
        assert_eq!(due(&store, "b", 8_999).await, (vec![], Some(9_000)));
        assert_eq!(due(&store, "b", 9_000).await, (vec![ids[1]], None));

        let mut tx = store.begin().await.unwrap();
        resend(&mut tx, ids[2], at).await.unwrap();
        let again = find(&mut tx, ids[2]).await.unwrap().unwrap();
        assert_eq!((again.attempts, again.given_up_at), (0, None));
        tx.commit().await.unwrap();
        assert_eq!(due(&store, "c", 2_000).await, (vec![ids[2]], None));
    }

    #[tokio::test]
    async fn recent_messages_are_counted_once_for_all_addresses() {
        let (store, _dir) = fixture::store().await;
        for address in ["a", "b", "a"] {
            queue(&store, address, &[1]).await;
        }
        let post = (Id::from_i64(1), Wall::from_millis(2_000));
        let mut conn = store.reader().await.unwrap();
        assert_eq!(posted_since(&mut conn, Wall::from_millis(0)).await.unwrap(), [post; 2]);
        assert!(posted_since(&mut conn, post.1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_clock_step_back_delays_no_message() {
        let (store, _dir) = fixture::store().await;
        let id = queue(&store, "a", &[1]).await;
        let day = 86_400_000;
        let mut tx = store.begin().await.unwrap();
        fail(&mut tx, id, day + 60_000).await;
        tx.commit().await.unwrap();
        assert_eq!(due(&store, "a", day).await, (vec![], Some(day + 60_000)));
        assert_eq!(due(&store, "a", 0).await, (vec![id], None), "a day back is longer than any pause");
    }

    #[tokio::test]
    async fn messages_about_one_host_reach_an_address_in_order() {
        let (store, _dir) = fixture::store().await;
        let refused = queue(&store, "a", &[1, 2]).await;
        let (behind, beside) = (queue(&store, "a", &[2, 3]).await, queue(&store, "a", &[4]).await);
        let after = queue(&store, "a", &[3]).await;
        let mut tx = store.begin().await.unwrap();
        fail(&mut tx, refused, 60_000).await;
        tx.commit().await.unwrap();
        assert_eq!(due(&store, "a", 2_000).await, (vec![beside], Some(60_000)));
        assert_eq!(
            due(&store, "a", 60_000).await.0,
            [beside, refused],
            "what was refused before comes after"
        );
        let mut tx = store.begin().await.unwrap();
        sent(&mut tx, refused, Wall::from_millis(0)).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(due(&store, "a", 60_000).await.0, [behind, beside]);
        assert!(after > behind);
    }

    #[tokio::test]
    async fn refused_messages_do_not_hide_later_ones() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        let mut refused = Vec::new();
        for host in 0..TAKEN + 50 {
            let notice = notices::insert(&mut tx, &fixture::down(Id::from_i64(host)), None).await.unwrap();
            let items = [Item { notice, root: notice, rule: None }];
            let id = insert(&mut tx, &new("a", &items), Wall::from_millis(2_000)).await.unwrap();
            fail(&mut tx, id, 60_000 - host).await;
            refused.push(id);
        }
        tx.commit().await.unwrap();
        let (new, behind) = (queue(&store, "a", &[9_999]).await, queue(&store, "a", &[3]).await);
        assert_eq!(due(&store, "a", 3_000).await, (vec![new], Some(60_000 - TAKEN - 49)));
        let all = due(&store, "a", 70_000).await.0;
        assert_eq!(all.len() as i64, TAKEN);
        assert_eq!(all[..3], [new, refused[refused.len() - 1], refused[refused.len() - 2]], "by due time");
        assert!(!all.contains(&behind), "its host has an older one");
    }

    #[tokio::test]
    async fn a_message_continues_the_thread_of_its_address() {
        let (store, _dir) = fixture::store().await;
        let [root_a, root_b] = [queue(&store, "a", &[1, 2]).await, queue(&store, "b", &[1, 2]).await];
        let mut tx = store.begin().await.unwrap();
        let recovery = notices::insert(&mut tx, &fixture::down(Id::from_i64(1)), None).await.unwrap();
        let items = [Item { notice: recovery, root: NoticeId(1), rule: None }];
        let id = insert(&mut tx, &new("a", &items), Wall::from_millis(0)).await.unwrap();
        let message = find(&mut tx, id).await.unwrap().unwrap();
        assert_eq!(thread(&mut tx, &message).await.unwrap(), [root_a]);
        let first = find(&mut tx, root_b).await.unwrap().unwrap();
        assert_eq!(thread(&mut tx, &first).await.unwrap(), [0; 0]);
    }
}

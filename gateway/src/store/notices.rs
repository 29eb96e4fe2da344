//! Notices from the monitor, and their routing: the contacts they wait for, the contacts that were
//! notified, and the reasons for suppressed ones.
//!
//! The writer adds notices in the transaction of their states. All other rows copy the router's
//! memory. This module knows nothing of contacts and addresses.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{Event, EventKind, Excerpt, GATEWAY, IncidentId, Message, MessageKind};
use fleetgate_engine::notification::{
    CheckableId, ContactId, Item, Notice, NoticeId, Notified, Severity, WaitFor, Waiting,
};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::{id, maybe_wall, wall};
use super::lists::{Entry, ListRow};
use super::rows::{Batched, NARROW};

/// A stored notice.
#[derive(Clone, Debug, PartialEq)]
pub struct NoticeRow {
    pub id: NoticeId,
    pub at: Wall,
    pub event: Option<i64>,
    pub host: HostId,
    pub host_name: String,
    pub service: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub kind: String,
    pub problem: bool,
    pub from: String,
    pub to: String,
    /// The output of the check that decided the state.
    pub output: Excerpt,
    pub since: Wall,
    /// The incident at that time. It may have been merged into another.
    pub incident: Option<IncidentId>,
    /// The author of the change and the comment.
    pub note: String,
}

impl FromRow<'_, SqliteRow> for NoticeRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let labels: Json<BTreeMap<String, String>> = row.try_get("labels")?;
        Ok(NoticeRow {
            id: NoticeId(row.try_get("id")?),
            at: wall(row, "at")?,
            event: row.try_get("event")?,
            host: id(row, "host")?,
            host_name: row.try_get("host_name")?,
            service: row.try_get("service")?,
            labels: labels.0,
            kind: row.try_get("kind")?,
            problem: row.try_get::<i64, _>("problem")? != 0,
            from: row.try_get("from_state")?,
            to: row.try_get("to_state")?,
            output: Excerpt::stored(row.try_get("output")?, row.try_get("truncated")?),
            since: wall(row, "since")?,
            incident: incident(row)?,
            note: row.try_get("note")?,
        })
    }
}

impl ListRow for NoticeRow {
    const TABLE: &'static str = "notices";
}

fn incident(row: &SqliteRow) -> sqlx::Result<Option<IncidentId>> {
    Ok(row.try_get::<Option<i64>, _>("incident")?.map(|id| IncidentId(Id::from_i64(id))))
}

impl NoticeRow {
    /// Converts the row for the router.
    ///
    /// # Errors
    /// Fails when the row was written by a newer version.
    pub fn notice(&self) -> sqlx::Result<Notice> {
        let unknown = || sqlx::Error::ColumnDecode { index: "kind".into(), source: "unknown kind".into() };
        Ok(Notice {
            id: self.id,
            at: self.at,
            object: CheckableId { host: self.host, service: self.service.clone() },
            labels: Arc::new(self.labels.clone()),
            kind: MessageKind::named(&self.kind).ok_or_else(unknown)?,
            severity: if self.problem { Severity::of_state(&self.to) } else { None },
            incident: self.incident,
        })
    }
}

/// Stores a notification that the monitor requests. `event` is the event that caused it. The
/// recovery of a former member belongs to its closed incident.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn insert(
    conn: &mut SqliteConnection,
    message: &Message,
    event: Option<i64>,
) -> sqlx::Result<NoticeId> {
    let number = sqlx::query_scalar(
        "insert into notices (at, event, host, host_name, service, labels, kind, problem, from_state,
             to_state, output, truncated, since, note, incident)
         values ($1, $2, $3, $4, $5, coalesce((select labels from hosts where id = $3), '{}'), $6, $7, $8,
                 $9, $10, $11, $12, $13, coalesce($14, (select incident from incident_members
                     where host = $3 and service = coalesce($5, '') and $6 in ('recovery', 'flapping_end')
                     order by joined_at desc limit 1)))
         returning id",
    )
    .bind(message.at.as_millis())
    .bind(event)
    .bind(message.host.as_i64())
    .bind(&message.host_name)
    .bind(message.service.as_deref())
    .bind(message.kind.name())
    .bind(i64::from(message.problem))
    .bind(message.from)
    .bind(message.to)
    .bind(&*message.output)
    .bind(message.output.is_truncated())
    .bind(message.since.as_millis())
    .bind(&message.note)
    .bind(message.incident.map(|id| id.0.as_i64()))
    .fetch_one(conn)
    .await?;
    Ok(NoticeId(number))
}

/// Stores a notification that the monitor suppressed. `seq` is the event with the reason.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn insert_held(conn: &mut SqliteConnection, event: &Event, seq: i64) -> sqlx::Result<()> {
    let EventKind::NotificationHeld { kind, from, to, .. } = &event.kind else { return Ok(()) };
    let number: i64 = sqlx::query_scalar(
        "insert into notices (at, event, host, host_name, service, kind, problem, from_state, to_state,
             output, truncated, since, routed_at, incident)
         values ($1, $2, $3, coalesce((select name from hosts where id = $3), ''), $4, $5, $6, $7, $8, $9,
                 $10, $1, $1, (select incident from incident_members where host = $3
                          and service = coalesce($4, '') and left_at is null order by joined_at desc limit 1))
         returning id",
    )
    .bind(event.at.as_millis())
    .bind(seq)
    .bind(event.host.as_i64())
    .bind(event.service.as_deref())
    .bind(kind.name())
    .bind(i64::from(Severity::of_state(to).is_some()))
    .bind(*from)
    .bind(*to)
    .bind(&*event.evidence)
    .bind(event.evidence.is_truncated())
    .fetch_one(&mut *conn)
    .await?;
    hold(conn, &[HeldRow { notice: NoticeId(number), contact: None, event: seq, stopped: false }]).await
}

/// Returns the notices that are not routed yet, in order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn unrouted(conn: &mut SqliteConnection, limit: i64) -> sqlx::Result<Vec<NoticeRow>> {
    let sql = "select * from notices where routed_at is null order by id limit $1";
    sqlx::query_as(sql).bind(limit).fetch_all(conn).await
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn routed(tx: &mut SqliteConnection, up_to: NoticeId, at: Wall) -> sqlx::Result<()> {
    let sql = "update notices set routed_at = $2 where routed_at is null and id <= $1";
    sqlx::query(sql).bind(up_to.0).bind(at.as_millis()).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, notice: NoticeId) -> sqlx::Result<Option<NoticeRow>> {
    sqlx::query_as("select * from notices where id = $1").bind(notice.0).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read, or a row was written by a newer version.
pub async fn waiting(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Waiting>> {
    let sql = "select n.*, w.contact, w.why, w.until, w.rule from notices_waiting w join notices n on n.id = w.notice";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            Ok(Waiting {
                contact: id(row, "contact")?,
                notice: NoticeRow::from_row(row)?.notice()?,
                why: WaitFor::named(row.try_get("why")?).unwrap_or(WaitFor::Group),
                until: wall(row, "until")?,
                rule: row.try_get::<Option<i64>, _>("rule")?.map(Id::from_i64),
            })
        })
        .collect()
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn wait(tx: &mut SqliteConnection, waits: &Waiting) -> sqlx::Result<()> {
    sqlx::query(
        "insert into notices_waiting (contact, notice, why, until, rule) values ($1, $2, $3, $4, $5)
         on conflict (contact, notice) do update set why = excluded.why, until = excluded.until,
             rule = excluded.rule",
    )
    .bind(waits.contact.as_i64())
    .bind(waits.notice.id.0)
    .bind(waits.why.name())
    .bind(waits.until.as_millis())
    .bind(waits.rule.map(Id::as_i64))
    .execute(tx)
    .await
    .map(drop)
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn wait_no_more(
    tx: &mut SqliteConnection,
    contact: ContactId,
    notice: NoticeId,
) -> sqlx::Result<()> {
    let sql = "delete from notices_waiting where contact = $1 and notice = $2";
    sqlx::query(sql).bind(contact.as_i64()).bind(notice.0).execute(tx).await.map(drop)
}

/// Removes the waiting notices that a message now carries.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn posted(tx: &mut SqliteConnection, contact: ContactId, items: &[Item]) -> sqlx::Result<()> {
    let numbers: Vec<i64> = items.iter().map(|i| i.notice.0).collect();
    let sql =
        "delete from notices_waiting where contact = $1 and notice in (select value from json_each($2))";
    sqlx::query(sql).bind(contact.as_i64()).bind(Json(numbers)).execute(tx).await.map(drop)
}

/// Returns checkables with notices that wait for their rule and were acknowledged meanwhile.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn acknowledged_meanwhile(conn: &mut SqliteConnection) -> sqlx::Result<Vec<CheckableId>> {
    let rows: Vec<(i64, Option<String>)> = sqlx::query_as(
        "select distinct n.host, n.service from notices_waiting w join notices n on n.id = w.notice
         join acknowledgements a on a.host = n.host and a.service = coalesce(n.service, '')
                                and a.ended_at is null
         where w.why not in ('group', 'cap')",
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(host, service)| CheckableId { host: Id::from_i64(host), service }).collect())
}

/// Returns removed hosts and services that a contact was notified about or has waiting notices of.
/// The gateway, which is no row of `hosts`, is never gone.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn removed(conn: &mut SqliteConnection) -> sqlx::Result<Vec<CheckableId>> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "with of (host, service) as (select host, service from notices_told union
                 select n.host, coalesce(n.service, '') from notices_waiting w join notices n on n.id = w.notice),
              gone (host) as (select distinct of.host from of left join hosts h on h.id = of.host
                              where of.host != $1 and (h.id is null or h.removed_at is not null))
         select host, '' from gone
         union all
         select of.host, of.service from of join host_states h on h.host = of.host
         left join service_states s on s.host = of.host and s.service = of.service
         where of.service != '' and s.host is null and of.host not in (select host from gone)",
    )
    .bind(GATEWAY.as_i64())
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(object).collect())
}

/// Returns checkables that a contact was notified about and that are ok now without a recovery
/// notification. Either recoveries are filtered out, or the notified state was lost. Checkables
/// with unrouted notices are left out.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn over(conn: &mut SqliteConnection) -> sqlx::Result<Vec<CheckableId>> {
    let rows: Vec<(i64, String)> = sqlx::query_as(
        "with new (host, service) as (select host, coalesce(service, '') from notices where routed_at is null),
              of (host, service) as (select host, service from notices_told)
         select of.host, '' from of join host_states h on h.host = of.host
         where of.service = '' and h.hard = 'up' and h.notified is null
             and h.notification ->> '$.told_flapping' is null and (of.host, '') not in (select * from new)
         union
         select of.host, of.service from of
         join service_states s on s.host = of.host and s.service = of.service
         where s.hard = 'ok' and s.notified is null
             and s.notification ->> '$.told_flapping' is null and (of.host, of.service) not in (select * from new)",
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(object).collect())
}

fn object((host, service): (i64, String)) -> CheckableId {
    CheckableId { host: Id::from_i64(host), service: Some(service).filter(|s| !s.is_empty()) }
}

/// Returns the problems that contacts were notified about.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn told(conn: &mut SqliteConnection) -> sqlx::Result<Vec<(ContactId, CheckableId, Notified)>> {
    let sql = "select t.*, coalesce(l.incident, r.incident) as incident,
                      coalesce(l.kind = 'flapping_start', 0) as flapping from notices_told t
               left join notices l on l.id = t.last left join notices r on r.id = t.root";
    let rows = sqlx::query(sql).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let (service, severity): (String, Option<String>) =
                (row.try_get("service")?, row.try_get("severity")?);
            let object =
                CheckableId { host: id(row, "host")?, service: (!service.is_empty()).then_some(service) };
            let told = Notified {
                root: NoticeId(row.try_get("root")?),
                last: NoticeId(row.try_get("last")?),
                at: wall(row, "at")?,
                severity: severity.as_deref().and_then(Severity::of_state),
                flapping: row.try_get("flapping")?,
                incident: incident(row)?,
            };
            Ok((id(row, "contact")?, object, told))
        })
        .collect()
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn tell(
    tx: &mut SqliteConnection,
    contact: ContactId,
    object: &CheckableId,
    told: Option<&Notified>,
) -> sqlx::Result<()> {
    let service = object.service.as_deref().unwrap_or_default();
    let Some(told) = told else {
        let sql = "delete from notices_told where contact = $1 and host = $2 and service = $3";
        let gone = sqlx::query(sql).bind(contact.as_i64()).bind(object.host.as_i64()).bind(service);
        return gone.execute(tx).await.map(drop);
    };
    sqlx::query(
        "insert into notices_told (contact, host, service, root, last, at, severity)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (contact, host, service) do update set root = excluded.root, last = excluded.last,
             at = excluded.at, severity = excluded.severity",
    )
    .bind(contact.as_i64())
    .bind(object.host.as_i64())
    .bind(service)
    .bind(told.root.0)
    .bind(told.last.0)
    .bind(told.at.as_millis())
    .bind(told.severity.map(Severity::name))
    .execute(tx)
    .await
    .map(drop)
}

static HELD: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 4, |values| {
        format!("insert into notices_held (notice, contact, event, stopped) values {values}")
    })
});

/// A notice that is suppressed for a contact.
#[derive(Clone, Copy, Debug)]
pub struct HeldRow {
    pub notice: NoticeId,
    /// `None` if it is suppressed for all contacts.
    pub contact: Option<ContactId>,
    /// The event with the reason.
    pub event: i64,
    /// An acknowledgement has stopped the delay of its rule.
    pub stopped: bool,
}

/// Records the reasons for suppressed notices, by their events.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn hold(tx: &mut SqliteConnection, held: &[HeldRow]) -> sqlx::Result<()> {
    HELD.run(tx, held, |row, arguments| {
        let contact = row.contact.map(Id::as_i64);
        arguments.add(row.notice.0).add(contact).add(row.event).add(row.stopped);
    })
    .await
}

/// `x` superseded `n`. A problem that the monitor suppressed does not count: its event gives the
/// reason and requested no notification.
macro_rules! overtaken {
    () => {
        "x.host = n.host and x.service is n.service and x.id > n.id
         and x.kind in ('problem', 'recovery', 'flapping_start', 'flapping_end')
         and not (x.problem = 1 and exists (select 1 from notices_held k
                                            where k.notice = x.id and k.event = x.event))"
    };
}

/// The notices that a now ended acknowledgement had stopped: the newest of each checkable, with its
/// contact and the time of that end.
const ACKNOWLEDGEMENT_ENDED: &str = concat!(
    "select n.*, h.contact as waits,
         (select max(a.ended_at) from acknowledgements a
          where a.host = n.host and a.service = coalesce(n.service, '')) as ended
     from notices_held h join notices n on n.id = h.notice
     where h.stopped = 1 and h.contact is not null and n.problem = 1
         and not exists (select 1 from acknowledgements a where a.host = n.host
                         and a.service = coalesce(n.service, '') and a.ended_at is null)
         and not exists (select 1 from notices x where ",
    overtaken!(),
    ")
         and not exists (select 1 from hosts g where g.id = n.host and g.removed_at is not null)
     order by n.id"
);

/// Returns the notices whose stopping acknowledgement has ended.
///
/// # Errors
/// Fails when the database cannot be read, or a row was written by a newer version.
pub async fn acknowledgement_ended(conn: &mut SqliteConnection) -> sqlx::Result<Vec<(ContactId, Notice)>> {
    let rows = sqlx::query(ACKNOWLEDGEMENT_ENDED).fetch_all(conn).await?;
    rows.iter()
        .map(|row| {
            let notice = NoticeRow::from_row(row)?.notice()?;
            let at = maybe_wall(row, "ended")?.unwrap_or(notice.at);
            Ok((id(row, "waits")?, Notice { at, ..notice }))
        })
        .collect()
}

/// Clears the mark of these notices and of superseded ones. Others keep it, so that an
/// acknowledgement that ends during the handover is found the next time.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn note_acknowledgement_ended(
    tx: &mut SqliteConnection,
    known: &[(ContactId, NoticeId)],
) -> sqlx::Result<()> {
    for (contact, notice) in known {
        let sql = "update notices_held set stopped = 0 where stopped = 1 and contact = $1 and notice = $2";
        sqlx::query(sql).bind(contact.as_i64()).bind(notice.0).execute(&mut *tx).await?;
    }
    let sql = concat!(
        "update notices_held set stopped = 0 where stopped = 1 and notice in
             (select n.id from notices_held s join notices n on n.id = s.notice join notices x on ",
        overtaken!(),
        " where s.stopped = 1)"
    );
    sqlx::query(sql).execute(tx).await.map(drop)
}

/// Selects notices, newest first. `None` means all.
#[derive(Clone, Debug, Default)]
pub struct NoticeFilter<'a> {
    pub host: Option<HostId>,
    /// The service, or empty for the host alone.
    pub service: Option<&'a str>,
    pub since: Option<Wall>,
    /// The incident, including those merged into it. Used without a host.
    pub incident: Option<IncidentId>,
}

/// Returns the newest notices first, below `before`.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    filter: &NoticeFilter<'_>,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Entry<NoticeRow>>> {
    let sql = match filter.host {
        Some(_) => {
            "select * from notices where id < $1 and host = $2 and ($3 is null or coalesce(service, '') = $3)
             and ($4 is null or at >= $4) order by id desc limit $5"
        }
        None if filter.incident.is_some() => {
            "select * from notices where id < $1 and $2 is null and $3 is null
             and incident in (select id from incidents where id = $6 or merged_into = $6)
             and ($4 is null or at >= $4) order by id desc limit $5"
        }
        None => {
            "select * from notices where id < $1 and $2 is null and $3 is null
             and ($4 is null or at >= $4) order by id desc limit $5"
        }
    };
    sqlx::query_as(sql)
        .bind(before)
        .bind(filter.host.map(Id::as_i64))
        .bind(filter.service)
        .bind(filter.since.map(Wall::as_millis))
        .bind(limit)
        .bind(filter.incident.map(|id| id.0.as_i64()))
        .fetch_all(conn)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn waiting_and_notified_problems_survive_the_store() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        let mut tx = store.begin().await.unwrap();
        let id = insert(&mut tx, &fixture::down(host), None).await.unwrap();
        let notice = unrouted(&mut tx, 9).await.unwrap().remove(0).notice().unwrap();
        assert_eq!((notice.id, notice.severity), (id, Some(Severity::Critical)));
        let (contact, object) = (Id::from_i64(1), notice.object.clone());
        let until = Wall::from_millis(9_000);
        let waits = Waiting { contact, notice, why: WaitFor::Delay, until, rule: Some(Id::from_i64(3)) };
        wait(&mut tx, &waits).await.unwrap();
        routed(&mut tx, id, Wall::from_millis(1)).await.unwrap();
        assert!(unrouted(&mut tx, 9).await.unwrap().is_empty());
        assert_eq!(waiting(&mut tx).await.unwrap(), [waits]);
        let at = Wall::from_millis(2_000);
        let severity = Some(Severity::Critical);
        let known = Notified { root: id, last: id, at, severity, flapping: false, incident: None };
        tell(&mut tx, contact, &object, Some(&known)).await.unwrap();
        assert_eq!(told(&mut tx).await.unwrap(), [(contact, object.clone(), known)]);
        tell(&mut tx, contact, &object, None).await.unwrap();
        posted(&mut tx, contact, &[Item { notice: id, root: id, rule: None }]).await.unwrap();
        assert!(told(&mut tx).await.unwrap().is_empty() && waiting(&mut tx).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_acknowledgement_of_a_waiting_problem_is_found() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        let mut tx = store.begin().await.unwrap();
        insert(&mut tx, &fixture::down(host), None).await.unwrap();
        let notice = unrouted(&mut tx, 9).await.unwrap().remove(0).notice().unwrap();
        let (contact, object) = (Id::from_i64(1), notice.object.clone());
        let until = Wall::from_millis(9_000);
        wait(&mut tx, &Waiting { contact, notice, why: WaitFor::Period, until, rule: None }).await.unwrap();
        assert!(acknowledged_meanwhile(&mut tx).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        let ack = "insert into acknowledgements (id, host, sticky, author, comment, created_at)
                   values (1, 7, 0, 'user:ada', 'on it', 0)";
        fixture::run(&store, ack, &[]).await;
        assert_eq!(acknowledged_meanwhile(&mut store.reader().await.unwrap()).await.unwrap(), [object]);
    }
}

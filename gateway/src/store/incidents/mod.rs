//! Incidents: their members, their times and their acknowledgements.
//!
//! The rows copy the engine's decisions. They are written in the transaction of the states that
//! caused them, together with their events. Only an acknowledgement is written by the API call that
//! gives it. This module decides nothing.

use std::collections::BTreeSet;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{
    CauseKind, CheckableId, Excerpt, IncidentAck, IncidentChange, IncidentId, IncidentRecord, IncidentScope,
    IncidentSnapshot, IncidentSummary, MemberSnapshot,
};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::{id, maybe_wall, wall};
use super::events::{self, NewEvent, SYSTEM};

// ------------------------------------------------------------------- writing

/// Stores one change. Returns the number of its event.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn write(conn: &mut SqliteConnection, record: &IncidentRecord) -> sqlx::Result<Option<i64>> {
    match &record.change {
        IncidentChange::Opened(matter) => open(conn, record, matter).await?,
        IncidentChange::Widened(matter) => widen(conn, record.id, matter).await?,
        IncidentChange::Reworded(words) => reword(conn, record.id, words).await?,
        IncidentChange::Joined { object, began } => join(conn, record, object, *began).await?,
        IncidentChange::Left(object) => leave(conn, record, object).await?,
        IncidentChange::Merged(into) => merge(conn, record, *into).await?,
        IncidentChange::Closed => close(conn, record).await?,
        IncidentChange::Covered { object, ack } => cover(conn, record, object, *ack).await?,
        IncidentChange::AckEnded(_) => drop(unacknowledge(conn, record.id, record.at).await?),
    }
    note(conn, record).await
}

async fn open(
    conn: &mut SqliteConnection,
    record: &IncidentRecord,
    matter: &IncidentSummary,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into incidents (id, extent, cause, words, site, head, opened_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(record.id.0.as_i64())
    .bind(matter.extent.name())
    .bind(matter.cause.name())
    .bind(&matter.words)
    .bind(matter.site.as_deref())
    .bind(matter.head.map(Id::as_i64))
    .bind(record.at.as_millis())
    .execute(conn)
    .await
    .map(drop)
}

async fn widen(conn: &mut SqliteConnection, id: IncidentId, matter: &IncidentSummary) -> sqlx::Result<()> {
    sqlx::query(
        "update incidents set extent = $2, cause = $3, words = $4, site = $5, head = $6 where id = $1",
    )
    .bind(id.0.as_i64())
    .bind(matter.extent.name())
    .bind(matter.cause.name())
    .bind(&matter.words)
    .bind(matter.site.as_deref())
    .bind(matter.head.map(Id::as_i64))
    .execute(conn)
    .await
    .map(drop)
}

async fn reword(conn: &mut SqliteConnection, id: IncidentId, words: &str) -> sqlx::Result<()> {
    let query = sqlx::query("update incidents set words = $2 where id = $1").bind(id.0.as_i64()).bind(words);
    query.execute(conn).await.map(drop)
}

/// Adds a member. A member that comes back keeps its row.
async fn join(
    conn: &mut SqliteConnection,
    record: &IncidentRecord,
    object: &CheckableId,
    began: Wall,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into incident_members (incident, host, service, began_at, joined_at)
         values ($1, $2, $3, $4, $5)
         on conflict (incident, host, service) do update set began_at = excluded.began_at, left_at = null",
    )
    .bind(record.id.0.as_i64())
    .bind(object.host.as_i64())
    .bind(object.service.as_deref().unwrap_or_default())
    .bind(began.as_millis())
    .bind(record.at.as_millis())
    .execute(conn)
    .await
    .map(drop)
}

async fn leave(
    conn: &mut SqliteConnection,
    record: &IncidentRecord,
    object: &CheckableId,
) -> sqlx::Result<()> {
    let sql = "update incident_members set left_at = $4 where incident = $1 and host = $2 and service = $3";
    sqlx::query(sql)
        .bind(record.id.0.as_i64())
        .bind(object.host.as_i64())
        .bind(object.service.as_deref().unwrap_or_default())
        .bind(record.at.as_millis())
        .execute(conn)
        .await
        .map(drop)
}

/// Merges an incident into another. Its acknowledgement ends, but the checkables that it covered
/// keep theirs as their own.
async fn merge(conn: &mut SqliteConnection, record: &IncidentRecord, into: IncidentId) -> sqlx::Result<()> {
    for sql in [
        "insert into incident_members (incident, host, service, began_at, joined_at, left_at)
         select $2, host, service, began_at, $3, left_at from incident_members where incident = $1
         on conflict (incident, host, service) do update set began_at = excluded.began_at, left_at = null
             where excluded.left_at is null",
        "update incident_members set left_at = $3 where incident = $1 and left_at is null and $2 is not null",
        "update incidents set merged_into = $2, closed_at = $3,
             ack_ended_at = iif(acked_at is null, null, coalesce(ack_ended_at, $3)) where id = $1",
        "update acknowledgements set incident = null
         where incident = $1 and ended_at is null and $2 is not null and $3 is not null",
        "update incidents set merged_into = $2 where merged_into = $1 and $3 is not null",
    ] {
        let query = sqlx::query(sql).bind(record.id.0.as_i64()).bind(into.0.as_i64());
        query.bind(record.at.as_millis()).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn close(conn: &mut SqliteConnection, record: &IncidentRecord) -> sqlx::Result<()> {
    let sql = "update incidents set closed_at = $2 where id = $1";
    let query = sqlx::query(sql).bind(record.id.0.as_i64()).bind(record.at.as_millis());
    query.execute(conn).await.map(drop)
}

/// Gives a member the acknowledgement of its incident.
async fn cover(
    conn: &mut SqliteConnection,
    record: &IncidentRecord,
    object: &CheckableId,
    ack: Id,
) -> sqlx::Result<()> {
    let service = object.service.as_deref().unwrap_or_default();
    sqlx::query(
        "update acknowledgements set ended_at = $3 where host = $1 and service = $2 and ended_at is null",
    )
    .bind(object.host.as_i64())
    .bind(service)
    .bind(record.at.as_millis())
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "insert into acknowledgements (id, host, service, sticky, expires_at, author, comment, created_at,
             incident)
         select $1, $2, $3, coalesce(ack_sticky, 0), ack_expires_at, coalesce(ack_author, 'system'),
             coalesce(ack_comment, ''), $4, id
         from incidents where id = $5",
    )
    .bind(ack.as_i64())
    .bind(object.host.as_i64())
    .bind(service)
    .bind(record.at.as_millis())
    .bind(record.id.0.as_i64())
    .execute(conn)
    .await
    .map(drop)
}

/// Writes the event for a change. Member changes and new states have none, because the state events
/// cover them.
async fn note(conn: &mut SqliteConnection, record: &IncidentRecord) -> sqlx::Result<Option<i64>> {
    let matter = |m: &IncidentSummary| serde_json::json!({ "scope": m.extent.name(), "cause": m.cause.name(), "site": m.site });
    let (kind, cause, data) = match &record.change {
        IncidentChange::Opened(m) => ("incident.opened", m.words.clone(), matter(m)),
        IncidentChange::Widened(m) => ("incident.widened", m.words.clone(), matter(m)),
        IncidentChange::Merged(into) => (
            "incident.merged",
            format!("merged into {into}"),
            serde_json::json!({ "into": into.to_string() }),
        ),
        IncidentChange::Closed => {
            ("incident.closed", "all members have recovered".to_owned(), serde_json::json!({}))
        }
        IncidentChange::AckEnded(end) => (
            "incident.acknowledgement_ended",
            end.words().to_owned(),
            serde_json::json!({ "why": end.name() }),
        ),
        IncidentChange::Reworded(_)
        | IncidentChange::Joined { .. }
        | IncidentChange::Left(_)
        | IncidentChange::Covered { .. } => return Ok(None),
    };
    let about = (events::Object::Incident, Some(record.id.0));
    let event = NewEvent { data, ..NewEvent::new(record.at, kind, about, &cause, SYSTEM) };
    events::append(conn, &event).await.map(Some)
}

// ------------------------------------------------------------ acknowledgement

/// The acknowledgement of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    pub at: Wall,
    /// The principal.
    pub author: String,
    pub comment: String,
    pub sticky: bool,
    pub expires_at: Option<Wall>,
}

impl From<&Ack> for IncidentAck {
    fn from(ack: &Ack) -> IncidentAck {
        let words = format!("{}: {}", ack.author, ack.comment);
        IncidentAck { sticky: ack.sticky, expires: ack.expires_at, words }
    }
}

/// Acknowledges an incident. Replaces an earlier acknowledgement.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn acknowledge(tx: &mut SqliteConnection, of: IncidentId, ack: &Ack) -> sqlx::Result<()> {
    sqlx::query(
        "update incidents set acked_at = $2, ack_author = $3, ack_comment = $4, ack_sticky = $5,
             ack_expires_at = $6, ack_ended_at = null where id = $1",
    )
    .bind(of.0.as_i64())
    .bind(ack.at.as_millis())
    .bind(&ack.author)
    .bind(&ack.comment)
    .bind(ack.sticky)
    .bind(ack.expires_at.map(Wall::as_millis))
    .execute(tx)
    .await
    .map(drop)
}

/// Removes the acknowledgement. Returns whether there was one.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn unacknowledge(tx: &mut SqliteConnection, of: IncidentId, at: Wall) -> sqlx::Result<bool> {
    let sql = "update incidents set ack_ended_at = $2
               where id = $1 and acked_at is not null and ack_ended_at is null";
    let ended = sqlx::query(sql).bind(of.0.as_i64()).bind(at.as_millis()).execute(tx).await?;
    Ok(ended.rows_affected() > 0)
}

// ------------------------------------------------------------------- reading

/// A stored incident with its member counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentRow {
    pub id: IncidentId,
    pub extent: String,
    pub cause: String,
    pub words: String,
    pub site: Option<String>,
    pub head: Option<HostId>,
    pub opened_at: Wall,
    pub closed_at: Option<Wall>,
    pub merged_into: Option<IncidentId>,
    /// The last acknowledgement, unless it was removed or has ended with the recovery.
    pub ack: Option<Ack>,
    /// The number of members with a problem, and of all members that ever belonged to it.
    pub ill: i64,
    pub members: i64,
}

impl FromRow<'_, SqliteRow> for IncidentRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(IncidentRow {
            id: IncidentId(id(row, "id")?),
            extent: row.try_get("extent")?,
            cause: row.try_get("cause")?,
            words: row.try_get("words")?,
            site: row.try_get("site")?,
            head: row.try_get::<Option<i64>, _>("head")?.map(Id::from_i64),
            opened_at: wall(row, "opened_at")?,
            closed_at: maybe_wall(row, "closed_at")?,
            merged_into: row.try_get::<Option<i64>, _>("merged_into")?.map(|id| IncidentId(Id::from_i64(id))),
            ack: ack(row)?,
            ill: row.try_get("ill")?,
            members: row.try_get("members")?,
        })
    }
}

fn ack(row: &SqliteRow) -> sqlx::Result<Option<Ack>> {
    let (at, ended) = (maybe_wall(row, "acked_at")?, maybe_wall(row, "ack_ended_at")?);
    let Some(at) = at.filter(|_| ended.is_none()) else { return Ok(None) };
    Ok(Some(Ack {
        at,
        author: row.try_get::<Option<String>, _>("ack_author")?.unwrap_or_default(),
        comment: row.try_get::<Option<String>, _>("ack_comment")?.unwrap_or_default(),
        sticky: row.try_get::<Option<bool>, _>("ack_sticky")?.unwrap_or_default(),
        expires_at: maybe_wall(row, "ack_expires_at")?,
    }))
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "select i.*, (select count(*) from incident_members m where m.incident = i.id
                          and m.left_at is null) as ill,
                    (select count(*) from incident_members m where m.incident = i.id) as members
             from incidents i where ",
            $condition
        )
    };
}

const BY_ID: &str = select!("i.id = $1");
const NEWEST: &str = select!("i.id < $1 and i.merged_into is null order by i.id desc limit $2");
const NEWEST_OPEN: &str = select!("i.id < $1 and i.closed_at is null order by i.id desc limit $2");
const NEWEST_CLOSED: &str =
    select!("i.id < $1 and i.closed_at is not null and i.merged_into is null order by i.id desc limit $2");
/// By the members: the incidents of a host are few among those of a fleet.
const OF_HOST: &str = select!(
    "i.id in (select o.incident from incident_members o where o.host = $3) and i.id < $1
         and i.merged_into is null and ($4 is null or (i.closed_at is null) = $4)
         and ($5 is null or i.closed_at is null or i.closed_at > $5) and ($6 is null or i.opened_at < $6)
     order by i.id desc limit $2"
);
const OF_MESSAGE: &str = select!(
    "i.id in (select coalesce(x.merged_into, x.id) from outbox_notices l join notices n on n.id = l.notice
              join incidents x on x.id = n.incident where l.message = $1 and l.dropped is null)
     order by i.id limit $2"
);

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, of: IncidentId) -> sqlx::Result<Option<IncidentRow>> {
    sqlx::query_as(BY_ID).bind(of.0.as_i64()).fetch_optional(conn).await
}

/// Returns the newest incidents first, below `before`, without merged ones. `open`: `None` means
/// all.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(
    conn: &mut SqliteConnection,
    open: Option<bool>,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<IncidentRow>> {
    let sql = match open {
        None => NEWEST,
        Some(true) => NEWEST_OPEN,
        Some(false) => NEWEST_CLOSED,
    };
    sqlx::query_as(sql).bind(before).bind(limit).fetch_all(conn).await
}

/// Selects incidents of a host. `None` means all.
#[derive(Clone, Copy, Debug, Default)]
pub struct OfHost {
    pub open: Option<bool>,
    /// Those that were open at this time or later.
    pub from: Option<Wall>,
    /// Those that opened before this time.
    pub to: Option<Wall>,
}

/// Like [`list`], but only incidents that have this host or a service of it as a member, or had.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_host(
    conn: &mut SqliteConnection,
    host: HostId,
    OfHost { open, from, to }: OfHost,
    (before, limit): (i64, i64),
) -> sqlx::Result<Vec<IncidentRow>> {
    let query = sqlx::query_as(OF_HOST).bind(before).bind(limit).bind(host.as_i64()).bind(open);
    query.bind(from.map(Wall::as_millis)).bind(to.map(Wall::as_millis)).fetch_all(conn).await
}

/// An incident as far as a host and its services were part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartRow {
    pub id: IncidentId,
    pub extent: String,
    pub cause: String,
    /// When the first of them had a problem.
    pub from: Wall,
    /// When the last of them had recovered. `None`: not yet.
    pub until: Option<Wall>,
}

impl FromRow<'_, SqliteRow> for PartRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(PartRow {
            id: IncidentId(id(row, "id")?),
            extent: row.try_get("extent")?,
            cause: row.try_get("cause")?,
            from: wall(row, "part_from")?,
            until: maybe_wall(row, "part_until")?,
        })
    }
}

/// A member that came back keeps the time at which it joined, and counts from then. When it left in between is not known:
/// if it joined before the time that is asked for, it counts from its return.
const PARTS: &str = "with m as (
         select incident, left_at,
                iif(began_at > joined_at and joined_at < $3, began_at, min(began_at, joined_at)) as since
         from incident_members where host = $1 and service <> $2),
     parts as (
         select i.id, i.extent, i.cause, min(m.since) as part_from,
                iif(count(m.left_at) < count(*), i.closed_at, max(m.left_at)) as part_until
         from m join incidents i on i.id = m.incident
         where i.merged_into is null and m.since < $4 and (m.left_at is null or m.left_at > $3)
         group by i.id)
     select parts.*, (select count(*) from parts) as total from parts order by part_from, id limit $5";

/// Returns the incidents that a host and its services, without one, were part of in a time: the first `limit`, and
/// how many there are.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn parts(
    conn: &mut SqliteConnection,
    (host, without): (HostId, &str),
    (from, until): (Wall, Wall),
    limit: i64,
) -> sqlx::Result<(Vec<PartRow>, u64)> {
    let query = sqlx::query(PARTS).bind(host.as_i64()).bind(without);
    let query = query.bind(from.as_millis()).bind(until.as_millis()).bind(limit);
    let rows = query.fetch_all(conn).await?;
    let total = rows.first().map(|row| row.try_get::<i64, _>("total")).transpose()?;
    let parts = rows.iter().map(PartRow::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    Ok((parts, total.and_then(|total| u64::try_from(total).ok()).unwrap_or_default()))
}

/// Returns the incidents of a message, oldest first. A merged incident counts as the one it belongs
/// to.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_message(
    conn: &mut SqliteConnection,
    message: i64,
    limit: i64,
) -> sqlx::Result<Vec<IncidentRow>> {
    sqlx::query_as(OF_MESSAGE).bind(message).bind(limit).fetch_all(conn).await
}

/// A present or former member of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    pub host: HostId,
    /// The current or the last name. The gateway has none.
    pub host_name: Option<String>,
    pub site: Option<String>,
    pub service: Option<String>,
    /// The output of its last check; empty when it is gone.
    pub output: Excerpt,
    pub began_at: Wall,
    pub joined_at: Wall,
    pub left_at: Option<Wall>,
}

impl FromRow<'_, SqliteRow> for MemberRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let service: String = row.try_get("service")?;
        Ok(MemberRow {
            host: id(row, "host")?,
            host_name: row.try_get("name")?,
            site: row.try_get("site")?,
            service: Some(service).filter(|s| !s.is_empty()),
            output: row.try_get::<String, _>("output")?.into(),
            began_at: wall(row, "began_at")?,
            joined_at: wall(row, "joined_at")?,
            left_at: maybe_wall(row, "left_at")?,
        })
    }
}

/// Returns the members. Those with a problem come first, then the recovered ones, both in name
/// order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn members(
    conn: &mut SqliteConnection,
    of: IncidentId,
    limit: i64,
) -> sqlx::Result<Vec<MemberRow>> {
    sqlx::query_as(
        "select m.*, h.name, h.labels ->> '$.site' as site, coalesce(s.output, o.output, '') as output
         from incident_members m left join hosts h on h.id = m.host
         left join service_states s on s.host = m.host and s.service = m.service
         left join host_states o on o.host = m.host and m.service = ''
         where m.incident = $1 order by m.left_at is not null, h.name, m.service limit $2",
    )
    .bind(of.0.as_i64())
    .bind(limit)
    .fetch_all(conn)
    .await
}

/// Returns the incidents of several hosts that have unrouted, waiting or sent notices. Each comes
/// with the incident that it is reported under.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn wide_waiting(conn: &mut SqliteConnection) -> sqlx::Result<Vec<(IncidentId, IncidentId)>> {
    let wide: Vec<&str> =
        IncidentScope::ALL.into_iter().filter(|e| e.is_wide()).map(IncidentScope::name).collect();
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "with n (incident) as (select n.incident from notices_waiting w join notices n on n.id = w.notice
                               union select incident from notices where routed_at is null
                               union select n.incident from notices_told t join notices n on n.id = t.last)
         select distinct i.id, r.id from n
         join incidents i on i.id = n.incident join incidents r on r.id = coalesce(i.merged_into, i.id)
         where r.extent in (select value from json_each($1))",
    )
    .bind(Json(wide))
    .fetch_all(conn)
    .await?;
    let incident = |id| IncidentId(Id::from_i64(id));
    Ok(rows.into_iter().map(|(id, root)| (incident(id), incident(root))).collect())
}

/// Returns the incidents that an earlier run left open.
///
/// # Errors
/// Fails when the database cannot be read, or a row was written by a newer version.
pub async fn memories(conn: &mut SqliteConnection) -> sqlx::Result<Vec<IncidentSnapshot>> {
    let rows: Vec<IncidentRow> =
        sqlx::query_as(NEWEST_OPEN).bind(i64::MAX).bind(i64::MAX).fetch_all(&mut *conn).await?;
    let mut memories = Vec::with_capacity(rows.len());
    for row in rows {
        let members = members(conn, row.id, i64::MAX).await?;
        let covered = covered(conn, &row).await?;
        memories.push(memory(row, members, &covered)?);
    }
    Ok(memories)
}

/// Returns the checkables that got their acknowledgement from the incident.
async fn covered(conn: &mut SqliteConnection, row: &IncidentRow) -> sqlx::Result<BTreeSet<CheckableId>> {
    let Some(ack) = &row.ack else { return Ok(BTreeSet::new()) };
    let sql = "select host, service from acknowledgements where incident = $1 and created_at >= $2";
    let query = sqlx::query_as(sql).bind(row.id.0.as_i64()).bind(ack.at.as_millis());
    let rows: Vec<(i64, String)> = query.fetch_all(conn).await?;
    let object = |(host, service): (i64, String)| CheckableId {
        host: Id::from_i64(host),
        service: Some(service).filter(|s| !s.is_empty()),
    };
    Ok(rows.into_iter().map(object).collect())
}

fn memory(
    row: IncidentRow,
    members: Vec<MemberRow>,
    covered: &BTreeSet<CheckableId>,
) -> sqlx::Result<IncidentSnapshot> {
    let unknown = |what: &str| sqlx::Error::Decode(format!("incident {}: unknown {what}", row.id).into());
    let member = |m: MemberRow| {
        let object = CheckableId { host: m.host, service: m.service };
        let covered = covered.contains(&object);
        MemberSnapshot { object, began: m.began_at, left: m.left_at, covered }
    };
    Ok(IncidentSnapshot {
        id: row.id,
        opened: row.opened_at,
        matter: IncidentSummary {
            extent: IncidentScope::named(&row.extent).ok_or_else(|| unknown("extent"))?,
            cause: CauseKind::named(&row.cause).ok_or_else(|| unknown("cause"))?,
            words: row.words.clone(),
            site: row.site.clone(),
            head: row.head,
        },
        members: members.into_iter().map(member).collect(),
        ack: row.ack.as_ref().map(IncidentAck::from),
    })
}

#[cfg(test)]
mod tests;

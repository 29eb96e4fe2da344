//! The one ordered event log: states, writes, enrolments, messages.
//!
//! Rows are added in the transaction of what they tell of; the sequence number is the order. One kind of row
//! changes afterwards: the count of what a host's day has beside its listed rows (`event_shares.rs`). Knows
//! nothing of who may read them.

use std::fmt;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::{Event, EventKind, Excerpt, GATEWAY, Occasion};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use super::Store;

/// The principal of what the gateway does by itself; such rows are not part of the audit view, nor are
/// changes of state by results that somebody sent.
pub const SYSTEM: &str = "system";

const UPLINK_LOST: &str = "uplink.lost";
const UPLINK_BACK: &str = "uplink.back";
/// Events of an outage that are looked through for its beginning: a failure and a silence of each of
/// tens of thousands of hosts, then little.
const OUTAGE_EVENTS: i64 = 100_000;

/// Whether the gateway was cut off when it was last heard of.
///
/// # Errors
/// When the database cannot be read.
pub async fn was_cut_off(conn: &mut SqliteConnection) -> sqlx::Result<bool> {
    Ok(cut_off_since(conn).await?.is_some())
}

/// Since when the gateway is taken to be cut off.
///
/// # Errors
/// When the database cannot be read.
pub async fn cut_off_since(conn: &mut SqliteConnection) -> sqlx::Result<Option<Wall>> {
    let sql = "select kind, at from events
               where kind in ($1, $2) and seq > (select max(seq) from events) - $3 order by seq desc limit 1";
    let last: Option<(String, i64)> = sqlx::query_as(sql)
        .bind(UPLINK_LOST)
        .bind(UPLINK_BACK)
        .bind(OUTAGE_EVENTS)
        .fetch_optional(conn)
        .await?;
    Ok(last.filter(|(kind, _)| kind == UPLINK_LOST).map(|(_, at)| Wall::from_millis(at)))
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Host,
    Service,
    Device,
    Enrolment,
    Token,
    User,
    Downtime,
    Profile,
    System,
    Contact,
    Rule,
    Message,
    Incident,
}

impl Object {
    pub const fn name(self) -> &'static str {
        match self {
            Object::Host => "host",
            Object::Service => "service",
            Object::Device => "device",
            Object::Enrolment => "enrolment",
            Object::Token => "token",
            Object::User => "user",
            Object::Downtime => "downtime",
            Object::Profile => "profile",
            Object::System => "system",
            Object::Contact => "contact",
            Object::Rule => "rule",
            Object::Message => "message",
            Object::Incident => "incident",
        }
    }
}

/// What concerns no object, or too many to name one.
pub const NOBODY: (Object, Option<Id>) = (Object::System, None);

/// A host, or a service of it.
pub fn about(host: HostId, service: bool) -> (Object, Option<Id>) {
    (if service { Object::Service } else { Object::Host }, Some(host))
}

/// A line to be added. `kind` is a stable dotted name such as `device.created`; `cause` and
/// `evidence` are for people; `data` is for programs.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    pub at: Wall,
    pub kind: &'a str,
    pub object: Object,
    pub object_id: Option<Id>,
    pub service: Option<&'a str>,
    pub cause: &'a str,
    pub evidence: Excerpt,
    pub data: serde_json::Value,
    /// `user:NAME`, `token:ID`, `device:ID` or [`SYSTEM`].
    pub principal: &'a str,
}

impl<'a> NewEvent<'a> {
    /// An event without evidence and data.
    pub fn new(
        at: Wall,
        kind: &'a str,
        (object, id): (Object, Option<Id>),
        cause: &'a str,
        principal: &'a str,
    ) -> Self {
        NewEvent {
            at,
            kind,
            object,
            object_id: id,
            service: None,
            cause,
            evidence: Excerpt::default(),
            data: serde_json::json!({}),
            principal,
        }
    }
}

/// Adds one line; gives its sequence number.
///
/// # Errors
/// When the database refuses the write.
pub async fn append(conn: &mut SqliteConnection, event: &NewEvent<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "insert into events (at, kind, object, object_id, service, cause, evidence, data, principal, truncated)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning seq",
    )
    .bind(event.at.as_millis())
    .bind(event.kind)
    .bind(event.object.name())
    .bind(event.object_id.map(Id::as_i64))
    .bind(event.service)
    .bind(event.cause)
    .bind(&*event.evidence)
    .bind(event.data.to_string())
    .bind(event.principal)
    .bind(event.evidence.is_truncated())
    .fetch_one(conn)
    .await
}

/// Adds what the monitor saw.
///
/// # Errors
/// When the database refuses the write.
pub async fn append_observed(conn: &mut SqliteConnection, event: &Event) -> sqlx::Result<i64> {
    let object = match &event.service {
        _ if event.host == GATEWAY => Object::System,
        Some(_) => Object::Service,
        None => Object::Host,
    };
    let (kind, data) = observed(&event.kind);
    let row = NewEvent {
        at: event.at,
        kind,
        object,
        object_id: Some(event.host).filter(|host| *host != GATEWAY),
        service: event.service.as_deref(),
        cause: &event.cause,
        evidence: event.evidence.clone(),
        data,
        principal: event.by.as_deref().unwrap_or(SYSTEM),
    };
    append(conn, &row).await
}

/// The stable name of what the monitor saw, and what programs want of it.
fn observed(kind: &EventKind) -> (&'static str, serde_json::Value) {
    let nothing = serde_json::json!({});
    match kind {
        EventKind::StateChanged { from, to, hard } => {
            let state_type = if *hard { "hard" } else { "soft" };
            ("state", serde_json::json!({ "from": from, "to": to, "state_type": state_type }))
        }
        EventKind::HostKeyPinned => ("ssh.key_pinned", nothing),
        EventKind::HostKeyChanged => ("ssh.key_changed", nothing),
        EventKind::EndpointMoved => ("tunnel.endpoint_moved", nothing),
        EventKind::HandshakeRefused => ("tunnel.handshake_refused", nothing),
        EventKind::FirstHandshake => ("tunnel.first_handshake", nothing),
        EventKind::FellAsleep => ("host.asleep", nothing),
        EventKind::Woke => ("host.awake", nothing),
        EventKind::UplinkLost => (UPLINK_LOST, nothing),
        EventKind::UplinkBack => (UPLINK_BACK, nothing),
        EventKind::Unreachable => ("host.unreachable", nothing),
        EventKind::Reachable => ("host.reachable", nothing),
        EventKind::NotificationHeld { kind, from, to, reason } => (
            "notification_held",
            serde_json::json!({ "kind": kind.name(), "from": from, "to": to, "reason": reason.name() }),
        ),
        EventKind::FlappingStarted => ("flapping.started", nothing),
        EventKind::FlappingEnded => ("flapping.ended", nothing),
        EventKind::DowntimeStarted(of) => ("downtime.started", occasion(of)),
        EventKind::DowntimeEnded(of) => ("downtime.ended", occasion(of)),
        EventKind::AcknowledgementEnded(id, end) => {
            ("acknowledgement.ended", serde_json::json!({ "id": format!("a_{id}"), "why": end.name() }))
        }
    }
}

/// Which downtime, and which of its windows.
fn occasion(of: &Occasion) -> serde_json::Value {
    let from = jiff::Timestamp::from_millisecond(of.from.as_millis()).unwrap_or_default();
    serde_json::json!({ "id": format!("d_{}", of.downtime), "from": from.to_string() })
}

/// One line as it is stored, with the object's name of today.
#[derive(Clone, Debug, PartialEq)]
pub struct EventRow {
    pub seq: i64,
    pub at: Wall,
    pub kind: String,
    pub object: String,
    pub object_id: Option<Id>,
    pub object_name: Option<String>,
    pub service: Option<String>,
    pub cause: String,
    pub evidence: Excerpt,
    /// JSON.
    pub data: String,
    pub principal: String,
}

impl FromRow<'_, SqliteRow> for EventRow {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(EventRow {
            seq: row.try_get(0)?,
            at: Wall::from_millis(row.try_get(1)?),
            kind: row.try_get(2)?,
            object: row.try_get(3)?,
            object_id: row.try_get::<Option<i64>, _>(4)?.map(Id::from_i64),
            object_name: row.try_get(5)?,
            service: row.try_get(6)?,
            cause: row.try_get(7)?,
            evidence: Excerpt::stored(row.try_get(8)?, row.try_get(11)?),
            data: row.try_get(9)?,
            principal: row.try_get(10)?,
        })
    }
}

/// Which lines are wanted. `None` stands for all.
#[derive(Clone, Debug, Default)]
pub struct EventFilter<'a> {
    /// What is about this host, device or other object.
    pub object: Option<Id>,
    /// A whole kind (`state`) or its first part (`device` for `device.created`).
    pub kind: Option<&'a str>,
    /// Only what somebody caused.
    pub audit: bool,
}

/// Where in the log to read, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The newest first, below this number.
    Before(i64),
    /// The oldest first, above this number.
    Since(i64),
}

/// What all readings share. The object is a condition of its own text, so that its index is used.
macro_rules! select {
    ($object:literal, $range:literal) => {
        concat!(
            "select e.seq, e.at, e.kind, e.object, e.object_id,
                    coalesce(h.name, en.name, u.name, t.name, et.label), e.service, e.cause,
                    e.evidence, e.data, e.principal, e.truncated
             from events e
             left join hosts h on h.id = e.object_id
             left join enrolments en on en.id = e.object_id
             left join users u on u.id = e.object_id
             left join tokens t on t.id = e.object_id
             left join enrolment_tokens et on et.id = e.object_id
             where ",
            $object,
            " and ($3 is null or e.kind = $3 or substr(e.kind, 1, length($3) + 1) = $3 || '.')
               and ($4 = 0 or e.principal != 'system' and e.kind != 'state') and ",
            $range,
            " limit $5"
        )
    };
}

const NEWEST_FIRST: &str = select!("$2 is null", "e.seq < $1 order by e.seq desc");
const OLDEST_FIRST: &str = select!("$2 is null", "e.seq > $1 order by e.seq");
const NEWEST_OF_OBJECT: &str = select!("e.object_id = $2", "e.seq < $1 order by e.seq desc");
const OLDEST_OF_OBJECT: &str = select!("e.object_id = $2", "e.seq > $1 order by e.seq");

impl Store {
    /// # Errors
    /// When the database cannot be read.
    pub async fn events(
        &self,
        span: Span,
        filter: &EventFilter<'_>,
        limit: i64,
    ) -> sqlx::Result<Vec<EventRow>> {
        let (sql, from) = match (span, filter.object) {
            (Span::Before(seq), None) => (NEWEST_FIRST, seq),
            (Span::Since(seq), None) => (OLDEST_FIRST, seq),
            (Span::Before(seq), Some(_)) => (NEWEST_OF_OBJECT, seq),
            (Span::Since(seq), Some(_)) => (OLDEST_OF_OBJECT, seq),
        };
        sqlx::query_as(sql)
            .bind(from)
            .bind(filter.object.map(Id::as_i64))
            .bind(filter.kind)
            .bind(i64::from(filter.audit))
            .bind(limit)
            .fetch_all(&self.read)
            .await
    }

    /// The newest sequence number; 0 for an empty log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_event(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar("select coalesce(max(seq), 0) from events").fetch_one(&self.read).await
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::wire::AckEnd;

    use super::*;
    use crate::store::fixture;

    fn seqs(rows: &[EventRow]) -> Vec<i64> {
        rows.iter().map(|r| r.seq).collect()
    }

    async fn log(store: &Store) {
        let mut conn = store.write.acquire().await.unwrap();
        let host = Some(Id::from_i64(7));
        for (kind, principal) in [
            ("device.created", "user:ada"),
            ("state", SYSTEM),
            ("device.removed", "token:x"),
            ("devices", SYSTEM),
            ("state", "device:h_x"),
        ] {
            let event =
                NewEvent::new(Wall::from_millis(5), kind, (Object::Device, host), "because", principal);
            append(&mut conn, &event).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_log_is_read_in_both_directions() {
        let (store, _dir) = fixture::store().await;
        log(&store).await;
        let all = EventFilter::default();
        assert_eq!(seqs(&store.events(Span::Before(i64::MAX), &all, 2).await.unwrap()), [5, 4]);
        assert_eq!(seqs(&store.events(Span::Before(3), &all, 9).await.unwrap()), [2, 1]);
        assert_eq!(seqs(&store.events(Span::Since(2), &all, 9).await.unwrap()), [3, 4, 5]);
        assert_eq!(store.last_event().await.unwrap(), 5);
    }

    #[tokio::test]
    async fn filters_take_kinds_families_and_what_somebody_caused() {
        let (store, _dir) = fixture::store().await;
        log(&store).await;
        let newest = Span::Before(i64::MAX);
        let family = EventFilter { kind: Some("device"), ..EventFilter::default() };
        assert_eq!(seqs(&store.events(newest, &family, 9).await.unwrap()), [3, 1]);
        let audit = EventFilter { audit: true, ..EventFilter::default() };
        assert_eq!(seqs(&store.events(newest, &audit, 9).await.unwrap()), [3, 1]);
        let other = EventFilter { object: Some(Id::from_i64(8)), ..EventFilter::default() };
        assert!(store.events(newest, &other, 9).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_state_change_carries_its_data() {
        let (store, _dir) = fixture::store().await;
        let event = Event {
            at: Wall::from_millis(1),
            host: Id::from_i64(7),
            service: Some("ping".into()),
            kind: EventKind::StateChanged { from: "ok", to: "critical", hard: true },
            cause: "three in a row".into(),
            evidence: "100% loss".into(),
            by: Some("device:h_x".into()),
        };
        let end = EventKind::AcknowledgementEnded(Id::from_i64(9), AckEnd::Expired);
        let mut conn = store.write.acquire().await.unwrap();
        append_observed(&mut conn, &event).await.unwrap();
        append_observed(&mut conn, &Event { kind: end, by: None, ..event }).await.unwrap();
        drop(conn);
        let rows = store.events(Span::Since(0), &EventFilter::default(), 9).await.unwrap();
        assert_eq!((rows[0].principal.as_str(), rows[1].principal.as_str()), ("device:h_x", SYSTEM));
        let ended: serde_json::Value = serde_json::from_str(&rows[1].data).unwrap();
        assert_eq!(ended["id"], format!("a_{}", Id::from_i64(9)));
        assert_eq!((rows[0].kind.as_str(), rows[0].object.as_str()), ("state", "service"));
        assert_eq!(rows[0].data, r#"{"from":"ok","state_type":"hard","to":"critical"}"#);
    }
}

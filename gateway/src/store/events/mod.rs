//! The single ordered event log: states, writes, enrolments, messages.
//!
//! Rows are added in the transaction of their change. The sequence number is the order. Only one
//! kind of row changes later: the count of a host's unlisted events on a day (`event_shares.rs`).
//! This module does not check permissions. The log is read by `reading.rs`.

mod gateway;
mod reading;

use std::fmt;
use std::ops::Range;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{DowntimeOccurrence, Event, EventKind, Excerpt, GATEWAY};
use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

pub(super) use gateway::clock_untrusted;
pub use gateway::{
    CLOCK_SERVICE, CLOCK_TRUSTED, CLOCK_UNTRUSTED, RESTORE_SERVICE, RESTORE_UNCONFIRMED, append_restored,
    clock_is_untrusted, cut_off_since, restore_is_noted, was_cut_off,
};
pub use reading::{EventFilter, EventRow, Span, Topic};

use super::Store;
use gateway::{UPLINK_BACK, UPLINK_LOST};

/// The principal of the gateway's own actions. Such rows are not part of the audit view, nor are
/// state changes by results from a token or device.
pub const SYSTEM: &str = "system";

/// The subject of an event.
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
    Operator,
    Grant,
    Customer,
    Person,
    Renter,
    Booking,
    Rental,
    Subscription,
}

impl Object {
    pub const ALL: [Object; 21] = [
        Object::Host,
        Object::Service,
        Object::Device,
        Object::Enrolment,
        Object::Token,
        Object::User,
        Object::Downtime,
        Object::Profile,
        Object::System,
        Object::Contact,
        Object::Rule,
        Object::Message,
        Object::Incident,
        Object::Operator,
        Object::Grant,
        Object::Customer,
        Object::Person,
        Object::Renter,
        Object::Booking,
        Object::Rental,
        Object::Subscription,
    ];

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
            Object::Operator => "operator",
            Object::Grant => "grant",
            Object::Customer => "customer",
            Object::Person => "person",
            Object::Renter => "renter",
            Object::Booking => "booking",
            Object::Rental => "rental",
            Object::Subscription => "subscription",
        }
    }
}

/// The object of an event that concerns no object, or too many to name one.
pub const NOBODY: (Object, Option<Id>) = (Object::System, None);

/// Returns the object for a host, or for a service of it.
pub fn about(host: HostId, service: bool) -> (Object, Option<Id>) {
    (if service { Object::Service } else { Object::Host }, Some(host))
}

/// An event to be added. `kind` is a stable dotted name such as `device.created`. `cause` and
/// `evidence` are for people, `data` is for programs.
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
    /// `user:NAME`, `user:NAME/ID` for the token of a user, `token:ID`, `device:ID` or [`SYSTEM`].
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

/// Appends an event and returns its sequence number.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn append(conn: &mut SqliteConnection, event: &NewEvent<'_>) -> sqlx::Result<i64> {
    #[cfg(test)]
    crate::store::event_data::check(event.kind, &event.data).expect("events are as they are declared");
    insert(conn, event).await
}

async fn insert(conn: &mut SqliteConnection, event: &NewEvent<'_>) -> sqlx::Result<i64> {
    insert_at(conn, None, event).await
}

/// `seq`: `None` gives it the next number.
async fn insert_at(conn: &mut SqliteConnection, seq: Option<i64>, event: &NewEvent<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "insert into events (at, kind, object, object_id, service, cause, evidence, data, principal, truncated, seq)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) returning seq",
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
    .bind(seq)
    .fetch_one(conn)
    .await
}

/// Appends an event of the monitor.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn append_observed(conn: &mut SqliteConnection, event: &Event) -> sqlx::Result<i64> {
    append(conn, &observed_row(event)).await
}

/// Adds an event of the monitor from before the log began, with a number that was reserved.
///
/// # Errors
/// Fails when the database refuses the write, and when the number is taken.
pub async fn add_past(conn: &mut SqliteConnection, event: &Event, seq: i64) -> sqlx::Result<()> {
    insert_at(conn, Some(seq), &observed_row(event)).await.map(drop)
}

fn observed_row(event: &Event) -> NewEvent<'_> {
    let object = match &event.service {
        _ if event.host == GATEWAY => Object::System,
        Some(_) => Object::Service,
        None => Object::Host,
    };
    let (kind, data) = observed(&event.kind);
    NewEvent {
        at: event.at,
        kind,
        object,
        object_id: Some(event.host).filter(|host| *host != GATEWAY),
        service: event.service.as_deref(),
        cause: &event.cause,
        evidence: event.evidence.clone(),
        data,
        principal: event.by.as_deref().unwrap_or(SYSTEM),
    }
}

impl Store {
    /// Reserves sequence numbers: the next event follows them. They are for events from before, so that the log is
    /// in the order of time.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn reserve_events(&self, count: i64) -> sqlx::Result<Range<i64>> {
        let mut tx = self.begin().await?;
        let last: Option<i64> = sqlx::query_scalar("select seq from sqlite_sequence where name = 'events'")
            .fetch_optional(&mut *tx)
            .await?;
        let first = last.unwrap_or_default() + 1;
        let sql = match last {
            Some(_) => "update sqlite_sequence set seq = $1 where name = 'events'",
            None => "insert into sqlite_sequence (name, seq) values ('events', $1)",
        };
        sqlx::query(sql).bind(first + count - 1).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(first..first + count)
    }
}

/// Returns the stable name of a monitor event, and its data for programs.
fn observed(kind: &EventKind) -> (&'static str, serde_json::Value) {
    let nothing = serde_json::json!({});
    match kind {
        EventKind::StateChanged { from, to, hard, .. } => {
            let state_type = if *hard { "hard" } else { "soft" };
            ("state.changed", serde_json::json!({ "from": from, "to": to, "state_type": state_type }))
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
            "notification.suppressed",
            serde_json::json!({ "kind": kind.name(), "from": from, "to": to, "reason": reason.name() }),
        ),
        EventKind::FlappingStarted => ("flapping.started", nothing),
        EventKind::FlappingEnded => ("flapping.ended", nothing),
        EventKind::DowntimeStarted(of) => ("downtime.started", occasion(of)),
        EventKind::DowntimeEnded(of) => ("downtime.ended", occasion(of)),
        EventKind::RentalQuietStarted => ("maintenance.started", nothing),
        EventKind::RentalQuietEnded => ("maintenance.ended", nothing),
        EventKind::AcknowledgementEnded(id, end) => {
            ("acknowledgement.ended", serde_json::json!({ "id": format!("a_{id}"), "why": end.name() }))
        }
    }
}

/// Returns the id of the downtime and the start of the window.
fn occasion(of: &DowntimeOccurrence) -> serde_json::Value {
    let from = jiff::Timestamp::from_millisecond(of.from.as_millis()).unwrap_or_default();
    serde_json::json!({ "id": format!("d_{}", of.downtime), "from": from.to_string() })
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::AckEnd;

    use super::gateway::CUT_OFF;
    use super::reading::{
        ALL, AUDIT, AUDIT_OF_KIND, AUDIT_OF_OBJECT, KINDS, OF_KIND, OF_NUMBERS, OF_OBJECT, WITHOUT_TOPICS,
        WITHOUT_TOPICS_OF_OBJECT,
    };
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
            ("state.changed", SYSTEM),
            ("device.removed", "token:x"),
            ("devices", SYSTEM),
            ("state.changed", "device:h_x"),
        ] {
            let event =
                NewEvent::new(Wall::from_millis(5), kind, (Object::Device, host), "because", principal);
            insert(&mut conn, &event).await.unwrap();
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
    async fn filters_select_kinds_families_and_principals() {
        let (store, _dir) = fixture::store().await;
        log(&store).await;
        let newest = Span::Before(i64::MAX);
        let family = EventFilter { kind: Some("device"), ..EventFilter::default() };
        assert_eq!(seqs(&store.events(newest, &family, 9).await.unwrap()), [3, 1]);
        let audit = EventFilter { audit: true, ..EventFilter::default() };
        assert_eq!(seqs(&store.events(newest, &audit, 9).await.unwrap()), [3, 1]);
        let other = EventFilter { object: Some(Id::from_i64(8)), ..EventFilter::default() };
        assert!(store.events(newest, &other, 9).await.unwrap().is_empty());
        let at = |ms| Some(Wall::from_millis(ms));
        let of = EventFilter { object: Some(Id::from_i64(7)), ..EventFilter::default() };
        for (from, to, found) in [(at(5), at(6), 5), (at(6), None, 0), (None, at(5), 0), (None, None, 5)] {
            for (audit, without, expected) in [
                (false, &Topic::ALL[..0], found),
                (true, &Topic::ALL[..0], found.min(2)),
                (false, &Topic::ALL[..], found),
            ] {
                let filter = EventFilter { from, to, audit, without, ..of.clone() };
                let read = store.events(newest, &filter, 9).await.unwrap();
                assert_eq!(read.len(), expected, "{from:?} {to:?} {audit}");
            }
        }
    }

    #[tokio::test]
    async fn events_of_people_are_left_out_by_every_filter() {
        let (store, _dir) = fixture::store().await;
        let host = Some(Id::from_i64(7));
        let mut conn = store.write.acquire().await.unwrap();
        let kinds: Vec<&str> = crate::store::event_data::KINDS.iter().map(|(kind, _)| *kind).collect();
        for kind in &kinds {
            let event =
                NewEvent::new(Wall::from_millis(5), kind, (Object::Host, host), "because", "user:ada");
            insert(&mut conn, &event).await.unwrap();
        }
        drop(conn);
        assert_eq!(["device.removed", "stream.opened"].map(Topic::of), [None, Some(Topic::Access)]);
        for without in [&Topic::ALL[..], &[Topic::Access], &[Topic::Rentals]] {
            let is_read = |kind: &str| Topic::of(kind).is_none_or(|topic| !without.contains(&topic));
            let others: Vec<&str> = kinds.iter().copied().filter(|kind| is_read(kind)).collect();
            for object in [None, host] {
                let filter = EventFilter { object, without, ..EventFilter::default() };
                let read = store.events(Span::Since(0), &filter, 1_000).await.unwrap();
                assert_eq!(read.iter().map(|row| row.kind.as_str()).collect::<Vec<_>>(), others);
                for kind in ["grant", "grant.created", "rental", "rental.ended"] {
                    let filter = EventFilter { kind: Some(kind), ..filter.clone() };
                    let found = store.events(Span::Since(0), &filter, 9).await.unwrap();
                    assert_eq!(!found.is_empty(), is_read(kind), "{kind}");
                }
            }
        }
    }

    async fn plan(conn: &mut SqliteConnection, sql: &str) -> String {
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
        let query = sqlx::query_as(sql).bind(0).bind(0).bind(0).bind("").bind("[]").bind(0).bind("[]");
        let rows: Vec<(i64, i64, i64, String)> = query.fetch_all(conn).await.unwrap();
        rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn no_reading_of_the_log_scans_or_sorts_it() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.reader().await.unwrap();
        let expected = [
            (ALL, "INTEGER PRIMARY KEY (rowid"),
            (AUDIT, "events_audit (seq"),
            (OF_OBJECT, "events_object (object_id=? AND seq"),
            (AUDIT_OF_OBJECT, "events_object (object_id=? AND seq"),
            (WITHOUT_TOPICS, "INTEGER PRIMARY KEY (rowid"),
            (WITHOUT_TOPICS_OF_OBJECT, "events_object (object_id=? AND seq"),
            (OF_KIND, "COVERING INDEX events_kind (kind=? AND seq"),
            (AUDIT_OF_KIND, "INDEX events_audit_kind (kind=? AND seq"),
            (OF_NUMBERS, "INTEGER PRIMARY KEY (rowid=?"),
        ];
        for (texts, index) in expected {
            for sql in texts {
                let plan = plan(&mut conn, sql).await;
                let sorts = plan.contains("TEMP B-TREE FOR ORDER BY");
                assert!(plan.contains(index) && !plan.contains("SCAN e") && !sorts, "{index}: {plan}");
            }
        }
        for sql in [CUT_OFF, KINDS] {
            let plan = plan(&mut conn, sql).await;
            assert!(plan.contains("events_kind (kind") && !plan.contains("SCAN events"), "{plan}");
        }
    }

    #[tokio::test]
    async fn the_last_uplink_event_counts_at_any_age() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.write.acquire().await.unwrap();
        let uplink = async |conn: &mut SqliteConnection, kind, at| {
            let event = NewEvent::new(Wall::from_millis(at), kind, NOBODY, "", SYSTEM);
            append(conn, &event).await.unwrap();
        };
        assert_eq!(cut_off_since(&mut conn).await.unwrap(), None);
        uplink(&mut conn, UPLINK_LOST, 5).await;
        let many = "insert into events (at, kind, object, cause, principal)
                    with recursive n (n) as (select 1 union all select n + 1 from n where n < 100001)
                    select 6, 'state.changed', 'host', '', 'system' from n";
        sqlx::query(many).execute(&mut *conn).await.unwrap();
        assert_eq!(cut_off_since(&mut conn).await.unwrap(), Some(Wall::from_millis(5)));
        uplink(&mut conn, UPLINK_BACK, 7).await;
        assert_eq!(cut_off_since(&mut conn).await.unwrap(), None);
        uplink(&mut conn, UPLINK_LOST, 8).await;
        assert_eq!(cut_off_since(&mut conn).await.unwrap(), Some(Wall::from_millis(8)));
    }

    #[tokio::test]
    async fn a_family_is_read_in_pages_in_both_directions() {
        let (store, _dir) = fixture::store().await;
        log(&store).await;
        log(&store).await;
        for (audit, kind, all) in [
            (false, "device", &[1, 3, 6, 8][..]),
            (true, "device", &[1, 3, 6, 8]),
            (false, "state", &[2, 5, 7, 10]),
            (false, "state.changed", &[2, 5, 7, 10]),
            (true, "state", &[]),
            (true, "state.changed", &[]),
            (false, "device.created", &[1, 6]),
            (true, "devices", &[]),
            (false, "devic", &[]),
        ] {
            for object in [None, Some(Id::from_i64(7))] {
                let filter = EventFilter { object, kind: Some(kind), audit, ..EventFilter::default() };
                let (mut up, mut down) = (vec![0], vec![i64::MAX]);
                while let Some(next) = up.last().copied()
                    && let [seq, ..] = seqs(&store.events(Span::Since(next), &filter, 1).await.unwrap())[..]
                {
                    up.push(seq);
                }
                while let Some(next) = down.last().copied()
                    && let page @ [_, ..] =
                        &seqs(&store.events(Span::Before(next), &filter, 2).await.unwrap())[..]
                {
                    down.extend(page);
                }
                down.reverse();
                assert_eq!((&up[1..], &down[..down.len() - 1]), (all, all), "{audit} {kind} {object:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_state_change_carries_its_data() {
        let (store, _dir) = fixture::store().await;
        let event = Event {
            at: Wall::from_millis(1),
            host: Id::from_i64(7),
            service: Some("ping".into()),
            kind: EventKind::StateChanged { from: "ok", to: "critical", hard: true, measured_at: None },
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
        assert_eq!((rows[0].kind.as_str(), rows[0].object.as_str()), ("state.changed", "service"));
        assert_eq!(rows[0].data, r#"{"from":"ok","state_type":"hard","to":"critical"}"#);
    }

    #[tokio::test]
    async fn events_of_the_past_stand_before_those_that_follow_the_reservation() {
        let (store, _dir) = fixture::store().await;
        log(&store).await;
        let reserved = store.reserve_events(10).await.unwrap();
        assert_eq!(reserved, 6..16);
        log(&store).await;
        let event = Event {
            at: Wall::from_millis(1),
            host: Id::from_i64(7),
            service: None,
            kind: EventKind::StateChanged { from: "up", to: "down", hard: true, measured_at: None },
            cause: String::new(),
            evidence: Excerpt::default(),
            by: None,
        };
        let mut conn = store.write.acquire().await.unwrap();
        for seq in [15, 14] {
            add_past(&mut conn, &event, seq).await.unwrap();
        }
        assert!(add_past(&mut conn, &event, 14).await.is_err());
        drop(conn);
        let state = EventFilter { kind: Some("state.changed"), ..EventFilter::default() };
        let newest = store.events(Span::Before(i64::MAX), &state, 5).await.unwrap();
        assert_eq!(seqs(&newest), [20, 17, 15, 14, 5]);
        assert_eq!((newest[2].at, newest[2].object.as_str()), (Wall::from_millis(1), "host"));
    }
}

//! The log as it is read: in pages of either direction, by object, kind or audit, with the current names.
//!
//! An index serves each set of filters, so that a page costs the same at any length of the log. This module does not
//! know who may read it.

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::Excerpt;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::store::Store;

/// A stored event, with the object's current name.
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

/// Selects events. `None` means all.
#[derive(Clone, Debug, Default)]
pub struct EventFilter<'a> {
    /// Events about this host, device or other object.
    pub object: Option<Id>,
    /// A whole kind (`state.changed`) or its first part (`device` for `device.created`).
    pub kind: Option<&'a str>,
    /// Events of an object at this time or later.
    pub from: Option<Wall>,
    /// Events of an object before this time.
    pub to: Option<Wall>,
    /// Only events that a user, token or device caused.
    pub audit: bool,
    /// No events about people of these topics.
    pub without: &'a [Topic],
    /// No events of an object of these families: the first parts of kinds.
    pub families: &'a [&'a str],
}

impl EventFilter<'_> {
    /// Returns the families of which there are no events.
    fn left_out(&self) -> Vec<&str> {
        let topics = self.without.iter().flat_map(|topic| topic.families());
        let mut families: Vec<&str> = topics.copied().collect();
        families.extend(self.families);
        families
    }
}

/// What events about people and customers say: what they may do, and what they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Who may reach or change what, and who reached something or logged in.
    Access,
    /// Who rents what.
    Rentals,
}

impl Topic {
    pub const ALL: [Topic; 2] = [Topic::Access, Topic::Rentals];

    /// Returns the topic of a kind or family. `None`: its events are not about people. The condition `not_of_topics` says
    /// the same of a row.
    pub fn of(kind: &str) -> Option<Topic> {
        let family = kind.split('.').next()?;
        Topic::ALL.into_iter().find(|topic| topic.families().contains(&family))
    }

    const fn families(self) -> &'static [&'static str] {
        match self {
            Topic::Access => &["grant", "operator", "stream", "forwarding", "user", "token", "session"],
            Topic::Rentals => &["customer", "person", "renter", "booking", "rental", "subscription"],
        }
    }
}

/// The position in the log and the direction of reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The newest first, below this number.
    Before(i64),
    /// The oldest first, above this number.
    Since(i64),
}

/// The visible events, with current names.
macro_rules! select {
    ($which:expr) => {
        concat!(
            "select e.seq, e.at, e.kind, e.object, e.object_id,
                    coalesce(h.name, en.name, u.name, t.name, et.label, c.name, r.name, o.name, g.name),
                    e.service, e.cause,
                    e.evidence, e.data, e.principal, e.truncated
             from events e
             left join hosts h on h.id = e.object_id
             left join enrolments en on en.id = e.object_id
             left join users u on u.id = e.object_id
             left join tokens t on t.id = e.object_id
             left join enrolment_tokens et on et.id = e.object_id
             left join contacts c on c.id = e.object_id
             left join notification_rules r on r.id = e.object_id
             left join operators o on o.id = e.object_id
             left join grants g on g.id = e.object_id
             where ",
            $which
        )
    };
}

/// One query in both directions. Each set of filters has its own text, so that an index serves it
/// in the order of the log.
macro_rules! both_ways {
    ($select:ident, $filter:expr) => {
        [
            $select!(concat!($filter, " and e.seq < $1 order by e.seq desc limit $2")),
            $select!(concat!($filter, " and e.seq > $1 order by e.seq limit $2")),
        ]
    };
}

macro_rules! numbers {
    ($which:expr) => {
        concat!("select e.seq from events e where ", $which)
    };
}

/// The parameter has the families of the topics as JSON.
macro_rules! not_of_topics {
    ($families:literal) => {
        concat!(
            "substr(e.kind, 1, instr(e.kind || '.', '.') - 1) not in (select value from json_each(",
            $families,
            "))"
        )
    };
}

/// Events of an object. `$3`: the object, `$4`: a kind or its family, `$5` and `$6`: a time.
macro_rules! of_object {
    ($more:expr) => {
        concat!(
            "e.object_id = $3 and ($4 is null or e.kind = $4 or substr(e.kind, 1, length($4) + 1) = $4 || '.')
             and ($5 is null or e.at >= $5) and ($6 is null or e.at < $6)",
            $more
        )
    };
}

/// The audit view: actions of users, tokens and devices, without state changes by results that they
/// sent. The conditions match those of the indexes.
pub(super) const ALL: [&str; 2] = both_ways!(select, "true");
pub(super) const AUDIT: [&str; 2] =
    both_ways!(select, "e.principal != 'system' and e.kind != 'state.changed'");
pub(super) const OF_OBJECT: [&str; 2] = both_ways!(select, of_object!(""));
/// The same without events of some topics.
pub(super) const WITHOUT_TOPICS: [&str; 2] = both_ways!(select, not_of_topics!("$3"));
pub(super) const WITHOUT_TOPICS_OF_OBJECT: [&str; 2] =
    both_ways!(select, of_object!(concat!(" and ", not_of_topics!("$7"))));
pub(super) const AUDIT_OF_OBJECT: [&str; 2] =
    both_ways!(select, of_object!(" and e.principal != 'system' and e.kind != 'state.changed'"));
/// `$3`: one kind.
pub(super) const OF_KIND: [&str; 2] = both_ways!(numbers, "e.kind = $3");
pub(super) const AUDIT_OF_KIND: [&str; 2] =
    both_ways!(numbers, "e.kind = $3 and e.principal != 'system' and e.kind != 'state.changed'");

/// The kinds of a family that occur, each found by one step in the index. `$1`: the family.
pub(super) const KINDS: &str = "
    with recursive k (kind) as (
        select min(kind) from events where kind >= $1 || '.' and kind < $1 || '/'
        union all
        select (select min(kind) from events where kind > k.kind and kind < $1 || '/') from k
        where k.kind is not null)
    select kind from k where kind is not null";

/// The rows with these numbers, in order. `$1`: the numbers as JSON.
pub(super) const OF_NUMBERS: [&str; 2] = [
    select!("e.seq in (select value from json_each($1)) order by e.seq desc"),
    select!("e.seq in (select value from json_each($1)) order by e.seq"),
];

impl Span {
    fn from(self) -> i64 {
        let (Span::Before(seq) | Span::Since(seq)) = self;
        seq
    }

    fn of(self, both: [&'static str; 2]) -> &'static str {
        both[usize::from(matches!(self, Span::Since(_)))]
    }
}

impl Store {
    /// Reads a page. The audit has all events of people.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn events(
        &self,
        span: Span,
        filter: &EventFilter<'_>,
        limit: i64,
    ) -> sqlx::Result<Vec<EventRow>> {
        let topic = filter.kind.and_then(Topic::of);
        if topic.is_some_and(|topic| filter.without.contains(&topic)) {
            return Ok(Vec::new());
        }
        let mut conn = self.read.acquire().await?;
        let left_out = filter.left_out();
        let sql = match (filter.object, filter.kind) {
            (None, Some(kind)) => return of_kind(&mut conn, span, kind, filter.audit, limit).await,
            (None, None) if filter.audit => AUDIT,
            (None, None) if left_out.is_empty() => ALL,
            (None, None) => WITHOUT_TOPICS,
            (Some(_), _) if filter.audit => AUDIT_OF_OBJECT,
            (Some(_), _) if left_out.is_empty() => OF_OBJECT,
            (Some(_), _) => WITHOUT_TOPICS_OF_OBJECT,
        };
        let query = sqlx::query_as(span.of(sql)).bind(span.from()).bind(limit);
        let query = match filter.object {
            Some(object) => {
                let (from, to) = (filter.from.map(Wall::as_millis), filter.to.map(Wall::as_millis));
                query.bind(object.as_i64()).bind(filter.kind).bind(from).bind(to)
            }
            None => query,
        };
        let query = if left_out.is_empty() { query } else { query.bind(sqlx::types::Json(left_out)) };
        query.fetch_all(&mut *conn).await
    }

    /// The newest sequence number; 0 for an empty log.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn last_event(&self) -> sqlx::Result<i64> {
        sqlx::query_scalar("select coalesce(max(seq), 0) from events").fetch_one(&self.read).await
    }
}

/// Reads a whole kind or a family: the next rows of each kind, and of those the next of all.
async fn of_kind(
    conn: &mut SqliteConnection,
    span: Span,
    kind: &str,
    audit: bool,
    limit: i64,
) -> sqlx::Result<Vec<EventRow>> {
    let mut kinds: Vec<String> = sqlx::query_scalar(KINDS).bind(kind).fetch_all(&mut *conn).await?;
    kinds.push(kind.to_owned());
    let sql = span.of(if audit { AUDIT_OF_KIND } else { OF_KIND });
    let mut numbers: Vec<i64> = Vec::new();
    for kind in &kinds {
        let found = sqlx::query_scalar(sql).bind(span.from()).bind(limit).bind(kind);
        let found: Vec<i64> = found.fetch_all(&mut *conn).await?;
        numbers.extend(found);
    }
    match span {
        Span::Before(_) => numbers.sort_unstable_by(|a, b| b.cmp(a)),
        Span::Since(_) => numbers.sort_unstable(),
    }
    numbers.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    sqlx::query_as(span.of(OF_NUMBERS)).bind(sqlx::types::Json(numbers)).fetch_all(conn).await
}

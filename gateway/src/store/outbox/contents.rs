//! What a message tells: its first notices, all of them counted, and the incidents that they are of.
//!
//! Read only. Knows no wording.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::store::incidents::{self, IncidentRow, MemberRow};
use crate::store::notices::NoticeRow;

/// What a message tells: its first notices in order, and all of them counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub notices: Vec<NoticeRow>,
    pub counts: Vec<Count>,
    /// How many of each site, the most first, where there are several.
    pub sites: Vec<(String, i64)>,
    /// What they belong to, the oldest first.
    pub incidents: Vec<Concern>,
}

/// An incident that a message tells of.
#[derive(Clone, Debug, PartialEq)]
pub struct Concern {
    pub incident: IncidentRow,
    /// The first things in it that are not well now.
    pub ill: Vec<MemberRow>,
}

/// Incidents that one message names, and what of each is said to be wrong still.
const CONCERNS: i64 = 20;
/// Sites that one message counts.
const SITES: i64 = 20;

/// Notices that would stand under one heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub kind: String,
    pub problem: bool,
    pub to: String,
    pub services: bool,
    /// The service that all of them are about.
    pub service: Option<String>,
    /// On so many hosts.
    pub hosts: i64,
    pub count: i64,
}

impl FromRow<'_, SqliteRow> for Count {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Count {
            kind: row.try_get("kind")?,
            problem: row.try_get("problem")?,
            to: row.try_get("to_state")?,
            services: row.try_get("services")?,
            service: row.try_get("service")?,
            hosts: row.try_get("hosts")?,
            count: row.try_get("count")?,
        })
    }
}

impl Contents {
    pub fn total(&self) -> i64 {
        self.counts.iter().map(|c| c.count).sum()
    }
}

/// # Errors
/// When the database cannot be read.
pub async fn contents(conn: &mut SqliteConnection, id: i64, limit: i64) -> sqlx::Result<Contents> {
    let notices = sqlx::query_as(
        "select n.* from outbox_notices l join notices n on n.id = l.notice
         where l.message = $1 and l.dropped is null order by n.id limit $2",
    );
    let counts = sqlx::query_as(
        "select n.kind, n.problem, n.to_state, n.service is not null as services, count(*) as count,
             iif(count(distinct n.service) = 1, min(n.service), null) as service,
             count(distinct n.host) as hosts
         from outbox_notices l join notices n on n.id = l.notice
         where l.message = $1 and l.dropped is null
         group by n.kind, n.problem, n.to_state, services order by min(n.id)",
    );
    Ok(Contents {
        notices: notices.bind(id).bind(limit).fetch_all(&mut *conn).await?,
        counts: counts.bind(id).fetch_all(&mut *conn).await?,
        sites: sites(conn, id).await?,
        incidents: concerns(conn, id).await?,
    })
}

async fn sites(conn: &mut SqliteConnection, id: i64) -> sqlx::Result<Vec<(String, i64)>> {
    let sites: Vec<(String, i64)> = sqlx::query_as(
        "select coalesce(n.labels ->> '$.site', ''), count(*) from outbox_notices l
         join notices n on n.id = l.notice where l.message = $1 and l.dropped is null
         group by 1 order by 2 desc, 1 limit $2",
    )
    .bind(id)
    .bind(SITES)
    .fetch_all(conn)
    .await?;
    Ok(if sites.len() > 1 { sites } else { Vec::new() })
}

async fn concerns(conn: &mut SqliteConnection, id: i64) -> sqlx::Result<Vec<Concern>> {
    let mut concerns = Vec::new();
    for incident in incidents::of_message(conn, id, CONCERNS).await? {
        let mut ill = incidents::members(conn, incident.id, CONCERNS).await?;
        ill.retain(|m| m.left_at.is_none());
        concerns.push(Concern { incident, ill });
    }
    Ok(concerns)
}

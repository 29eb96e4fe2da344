//! The contents of a message: its first or worst notices, the counts of all, and their incidents.
//!
//! Read only. This module contains no wording.

use std::collections::BTreeMap;

use fleetgate_engine::id::RentalId;
use fleetgate_engine::notification::NoticeId;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{FromRow, Row as _};

use crate::store::access;
use crate::store::incidents::{self, IncidentRow, MemberRow};
use crate::store::notices::NoticeRow;

/// The contents of a message: its first notices in the given order, and the counts of all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub notices: Vec<NoticeRow>,
    /// The worst first.
    pub counts: Vec<Count>,
    /// The start of the problem that each recovery among them ends.
    pub began: BTreeMap<NoticeId, Wall>,
    /// The rentals that had the devices of notices then.
    pub rented: BTreeMap<NoticeId, Rented>,
    /// The number of notices per site, the largest first, if there are several sites.
    pub sites: Vec<(String, i64)>,
    /// The incidents of the notices, oldest first.
    pub incidents: Vec<Concern>,
}

/// The rental that has a device, without a word about the customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rented {
    pub rental: RentalId,
    /// The name of the device for its renters.
    pub name: String,
    pub until: Wall,
    /// That of the booking, for display.
    pub time_zone: Option<String>,
}

/// An incident that a message names.
#[derive(Clone, Debug, PartialEq)]
pub struct Concern {
    pub incident: IncidentRow,
    /// Its first members that have a problem now.
    pub ill: Vec<MemberRow>,
}

/// The order of the notices, for a limited number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// In the order of their creation, for programs.
    Time,
    /// The worst first, for readers of the beginning.
    Severity,
}

/// The worst state first, new problems before reminders, and recoveries last.
macro_rules! severity {
    () => {
        "n.problem = 0, case n.to_state when 'down' then 0 when 'critical' then 1 when 'unknown' then 2 else 3 end,
         case n.kind when 'problem' then 0 when 'reminder' then 1 else 2 end, "
    };
}

const BY_TIME: &str = "select n.* from outbox_notices l join notices n on n.id = l.notice
     where l.message = $1 and l.dropped is null order by n.id limit $2";
const BY_SEVERITY: &str = concat!(
    "select n.* from outbox_notices l join notices n on n.id = l.notice
     where l.message = $1 and l.dropped is null order by ",
    severity!(),
    "n.id limit $2"
);
const COUNTS: &str = concat!(
    "select n.kind, n.problem, n.to_state, n.service is not null as services, count(*) as count,
         iif(count(distinct n.service) = 1, min(n.service), null) as service,
         count(distinct n.host) as hosts
     from outbox_notices l join notices n on n.id = l.notice
     where l.message = $1 and l.dropped is null
     group by n.kind, n.problem, n.to_state, services order by ",
    severity!(),
    "min(n.id)"
);
const BEGAN: &str = "select n.id, r.since from outbox_notices l join notices n on n.id = l.notice
     join notices r on r.id = l.root and r.problem = 1 and r.since <= n.since
     where l.message = $1 and l.dropped is null and n.kind = 'recovery' order by n.id limit $2";

const RENTED: &str = "select n.id, r.id as rental, r.name, b.time_zone,
            coalesce(min(r.ended_at, r.until_at), r.until_at) as until
     from outbox_notices l join notices n on n.id = l.notice
     join rentals r on r.device = n.host and r.until_at > n.at and r.from_at <= n.at
                   and coalesce(r.ended_at, r.until_at) > n.at
                   and coalesce(r.end_reason, '') not in ('cancelled', 'lapsed')
     join bookings b on b.id = r.booking and b.hold_until is null
     where l.message = $1 and l.dropped is null order by n.id, r.id";

/// Incidents that one message names, and remaining problems listed for each.
const CONCERNS: i64 = 20;
/// Sites that one message counts.
const SITES: i64 = 20;

/// Notices under one heading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    pub kind: String,
    pub problem: bool,
    pub to: String,
    pub services: bool,
    /// The service, if all of them are about the same one.
    pub service: Option<String>,
    /// The number of hosts.
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
/// Fails when the database cannot be read.
pub async fn contents(
    conn: &mut SqliteConnection,
    id: i64,
    limit: i64,
    order: Order,
) -> sqlx::Result<Contents> {
    let notices = sqlx::query_as(if order == Order::Time { BY_TIME } else { BY_SEVERITY });
    let began = sqlx::query_as::<_, (i64, i64)>(BEGAN).bind(id).bind(limit).fetch_all(&mut *conn).await?;
    Ok(Contents {
        notices: notices.bind(id).bind(limit).fetch_all(&mut *conn).await?,
        counts: sqlx::query_as(COUNTS).bind(id).fetch_all(&mut *conn).await?,
        began: began.into_iter().map(|(id, at)| (NoticeId(id), Wall::from_millis(at))).collect(),
        rented: rented(conn, id).await?,
        sites: sites(conn, id).await?,
        incidents: concerns(conn, id).await?,
    })
}

async fn rented(conn: &mut SqliteConnection, id: i64) -> sqlx::Result<BTreeMap<NoticeId, Rented>> {
    let rows = sqlx::query(RENTED).bind(id).fetch_all(conn).await?;
    let rented = |row: &SqliteRow| {
        let rented = Rented {
            rental: access::id(row, "rental")?,
            name: row.try_get("name")?,
            until: access::wall(row, "until")?,
            time_zone: row.try_get("time_zone")?,
        };
        Ok((NoticeId(row.try_get("id")?), rented))
    };
    rows.iter().map(rented).collect()
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

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::Message;
    use fleetgate_engine::notification::Item;

    use super::*;
    use crate::store::outbox::{self, Channel, NewMessage, OutboxKind};
    use crate::store::{fixture, notices};

    #[tokio::test]
    async fn a_message_names_the_rental_that_had_the_device_when_the_notice_came() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        for sql in [
            "insert into customers (id, created_at) values (1, 0)",
            "insert into bookings (id, customer, author, time_zone, created_at, hold_until)
             values (2, 1, '', 'Europe/Vienna', 0, null), (3, 1, '', null, 0, 9000)",
            "insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                                  created_at, name, ended_at, end_reason)
             values (10, 2, 7, 1000, 2000, 1000, 0, 0, 0, 'first', null, null),
                    (11, 2, 7, 2000, 8000, 2000, 0, 0, 0, 'second', 5000, 'returned_early'),
                    (12, 2, 7, 2000, 8000, 2000, 0, 0, 0, 'never', 500, 'cancelled'),
                    (13, 3, 7, 2000, 8000, 2000, 0, 0, 0, 'held', null, null)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let mut tx = store.begin().await.unwrap();
        let mut items = Vec::new();
        for at in [999, 1_000, 1_999, 2_000, 4_999, 5_000].map(Wall::from_millis) {
            let message = Message { at, ..fixture::down(host) };
            let notice = notices::insert(&mut tx, &message, None).await.unwrap();
            items.push(Item { notice, root: notice, rule: None });
        }
        let message = NewMessage {
            contact: Id::from_i64(1),
            contact_name: "ops",
            channel: Channel::Email,
            address: "ops@example.org",
            kind: OutboxKind::Notices,
            site: "",
            folded: 0,
            items: &items,
        };
        let id = outbox::insert(&mut tx, &message, Wall::from_millis(6_000)).await.unwrap();
        let found = contents(&mut tx, id, 99, Order::Time).await.unwrap();
        tx.commit().await.unwrap();
        let names: Vec<Option<&str>> = items
            .iter()
            .map(|item| found.rented.get(&item.notice).map(|rented| rented.name.as_str()))
            .collect();
        assert_eq!(names, [None, Some("first"), Some("first"), Some("second"), Some("second"), None]);
        let second = &found.rented[&items[4].notice];
        assert_eq!((second.rental, second.until), (Id::from_i64(11), Wall::from_millis(5_000)));
        assert_eq!(second.time_zone.as_deref(), Some("Europe/Vienna"));
    }
}

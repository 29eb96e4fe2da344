//! The outcome of each notice: sent, waiting or suppressed, for each contact and address, with the
//! rule or the reason. Read only.

use fleetgate_engine::notification::NoticeId;
use fleetgate_engine::time::Wall;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::maybe_wall;
use super::outbox::{Address, Channel};

/// One outcome of a notice: on its way to an address, waiting, or suppressed.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub notice: NoticeId,
    /// `sent`, `sending`, `given_up`, `waiting`, `suppressed`.
    pub outcome: String,
    /// The current or the last name. `None` if no contact was selected.
    pub contact: Option<String>,
    pub message: Option<i64>,
    pub channel: Option<String>,
    pub address: Option<Address>,
    /// The time of the last step.
    pub at: Option<Wall>,
    /// A stable name.
    pub reason: String,
    pub text: String,
    pub evidence: String,
    pub attempts: i64,
}

impl FromRow<'_, SqliteRow> for Outcome {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let channel = row.try_get::<Option<&str>, _>("channel")?.map_or(Channel::Email, Channel::named);
        Ok(Outcome {
            notice: NoticeId(row.try_get("notice")?),
            outcome: row.try_get("outcome")?,
            contact: row.try_get("contact")?,
            message: row.try_get("message")?,
            channel: row.try_get("channel")?,
            address: row.try_get::<Option<String>, _>("address")?.map(|text| Address::new(channel, text)),
            at: maybe_wall(row, "at")?,
            reason: row.try_get("reason")?,
            text: row.try_get("text")?,
            evidence: row.try_get("evidence")?,
            attempts: row.try_get("attempts")?,
        })
    }
}

/// The text for a rule. `a` is its number. Notices sent without any rule have 0.
macro_rules! by_rule {
    ($a:literal) => {
        concat!(
            "case when ", $a, " is null then null when ", $a, " = 0 then 'no rule: everything is notified'
             else coalesce((select 'rule ' || r.name || iif(r.delay_ms > 0, ', after ' || (r.delay_ms / 1000) || ' s', '')
                                   || coalesce(', ' || r.period, '') from notification_rules r where r.id = ", $a, "),
                           'a rule that was removed') end"
        )
    };
}

/// In the order: on their way, waiting, suppressed.
const OUTCOMES: &str = concat!(
    "select l.notice, case when l.dropped is not null then 'suppressed' when o.sent_at is not null
             then 'sent' when o.given_up_at is not null then 'given_up' else 'sending' end as outcome,
         o.contact_name as contact, o.id as message, o.channel, o.address,
         coalesce(o.sent_at, o.given_up_at, o.next_attempt) as at, iif(l.dropped is null, '', 'superseded') as reason,
         coalesce(l.dropped, ",
    by_rule!("l.rule"),
    ", iif(l.root != l.notice, 'it was notified of the problem', ''))
         || case when l.dropped is not null or o.folded = 0 then ''
                 when o.folded = 1 then '; kept back for a while: this contact had too many messages'
                 else '; kept back for a while and made one of ' || o.folded || ': this contact had too many messages'
            end as text,
         coalesce(o.last_error,
             case when o.sent_at is null and o.given_up_at is null then
                 (select 'this address has not taken what goes before: ' || p.last_error from outbox p
                  where p.channel = o.channel and p.address = o.address and p.id < o.id and p.sent_at is null
                      and p.given_up_at is null and p.last_error is not null order by p.id limit 1) end,
             '') as evidence, o.attempts
     from outbox_notices l join outbox o on o.id = l.message and o.kind = 'notifications'
     where l.notice in (select value from json_each($1))
     union all
     select w.notice, 'waiting', case w.contact when 0 then 'default' else c.name end, null, null, null, w.until,
         w.why, '', coalesce(",
    by_rule!("w.rule"),
    ", ''), 0
     from notices_waiting w left join contacts c on c.id = w.contact
     where w.notice in (select value from json_each($1))
     union all
     select x.notice, 'suppressed', case x.contact when 0 then 'default' else c.name end, null, null, null, e.at,
         coalesce(e.data ->> '$.reason', ''), e.cause, e.evidence, 0
     from notices_held x join events e on e.seq = x.event left join contacts c on c.id = x.contact
     where x.notice in (select value from json_each($1))"
);

/// Returns the outcomes of these notices, one after the other.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn outcomes(conn: &mut SqliteConnection, of: &[NoticeId]) -> sqlx::Result<Vec<Outcome>> {
    let numbers: Vec<i64> = of.iter().map(|n| n.0).collect();
    sqlx::query_as(OUTCOMES).bind(Json(numbers)).fetch_all(conn).await
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::{Event, EventKind, MessageKind};
    use fleetgate_engine::notification::{Item, WaitFor, Waiting};

    use super::*;
    use crate::store::fixture;
    use crate::store::lists::readable;
    use crate::store::notices::{self, NoticeFilter, insert_held, list, unrouted};
    use crate::store::outbox::{self, NewMessage, OutboxKind};

    #[tokio::test]
    async fn outcomes_include_notifications_that_the_monitor_suppressed() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        let event = Event {
            at: Wall::from_millis(5_000),
            host,
            service: Some("disk".into()),
            kind: EventKind::NotificationHeld {
                kind: MessageKind::Problem,
                from: "ok",
                to: "critical",
                reason: fleetgate_engine::messages::SuppressReason::Downtime,
            },
            cause: "a downtime is in effect".into(),
            evidence: "97% used".into(),
            by: None,
        };
        let mut tx = store.begin().await.unwrap();
        let seq = crate::store::events::append_observed(&mut tx, &event).await.unwrap();
        insert_held(&mut tx, &event, seq).await.unwrap();
        assert!(unrouted(&mut tx, 9).await.unwrap().is_empty());
        let filter = NoticeFilter { host: Some(host), service: Some("disk"), ..NoticeFilter::default() };
        let rows = readable(list(&mut tx, &filter, i64::MAX, 9).await.unwrap());
        assert_eq!(
            (rows[0].host_name.as_str(), rows[0].to.as_str(), rows[0].problem),
            ("cam-07", "critical", true)
        );
        let outcome = outcomes(&mut tx, &[rows[0].id]).await.unwrap().remove(0);
        assert_eq!(
            (outcome.outcome.as_str(), outcome.reason.as_str(), outcome.contact),
            ("suppressed", "downtime", None)
        );
        assert_eq!(
            (outcome.text.as_str(), outcome.evidence.as_str()),
            ("a downtime is in effect", "97% used")
        );
    }

    #[tokio::test]
    async fn sent_and_waiting_outcomes_name_their_rule() {
        let (store, _dir) = fixture::store().await;
        let host = fixture::device(&store, 7, "cam-07").await;
        for sql in [
            "insert into contacts (id, name, emails, time_zone, managed_by, version, created_at, digested_at)
             values (1, 'boss', '[]', 'UTC', 'api', 1, 0, 0)",
            "insert into notification_rules (id, name, contact, severity, period, delay_ms, created_at)
             values (3, 'late', 1, 'critical', 'mon-fri 08:00-18:00', 1800000, 0)",
        ] {
            fixture::run(&store, sql, &[]).await;
        }
        let (contact, rule) = (Id::from_i64(1), Some(Id::from_i64(3)));
        let mut tx = store.begin().await.unwrap();
        let first = notices::insert(&mut tx, &fixture::down(host), None).await.unwrap();
        let notice = unrouted(&mut tx, 9).await.unwrap().remove(0).notice().unwrap();
        let waits = Waiting { contact, notice, why: WaitFor::Delay, until: Wall::from_millis(9), rule };
        notices::wait(&mut tx, &waits).await.unwrap();
        let second = notices::insert(&mut tx, &fixture::down(host), None).await.unwrap();
        let third = notices::insert(&mut tx, &fixture::down(host), None).await.unwrap();
        let items =
            [Item { notice: second, root: second, rule }, Item { notice: third, root: second, rule: None }];
        let (channel, kind) = (Channel::Email, OutboxKind::Notices);
        let new = NewMessage {
            contact,
            contact_name: "boss",
            channel,
            address: "boss@example.org",
            kind,
            site: "",
            folded: 0,
            items: &items,
        };
        outbox::insert(&mut tx, &new, Wall::from_millis(5)).await.unwrap();
        let told = outcomes(&mut tx, &[first, second, third]).await.unwrap();
        let words: Vec<_> = told.iter().map(|o| (o.notice, o.text.as_str(), o.evidence.as_str())).collect();
        let late = "rule late, after 1800 s, mon-fri 08:00-18:00";
        assert_eq!(
            words,
            [(second, late, ""), (third, "it was notified of the problem", ""), (first, "", late)]
        );
        sqlx::query("update outbox set folded = 4").execute(&mut *tx).await.unwrap();
        let kept = outcomes(&mut tx, &[second]).await.unwrap().remove(0).text;
        let why = "; kept back for a while and made one of 4: this contact had too many messages";
        assert_eq!(kept, format!("{late}{why}"));
        sqlx::query("update outbox set last_error = 'it hangs'").execute(&mut *tx).await.unwrap();
        let behind = [Item { notice: first, root: first, rule }];
        outbox::insert(&mut tx, &NewMessage { items: &behind, ..new }, Wall::from_millis(6)).await.unwrap();
        let told = outcomes(&mut tx, &[first]).await.unwrap();
        let sending = told.iter().find(|o| o.outcome == "sending").unwrap();
        assert_eq!(sending.evidence, "this address has not taken what goes before: it hangs");
    }
}

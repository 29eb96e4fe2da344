//! Contacts and the rules that select them.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::notification::{ContactId, Period, RuleId, Severity};
use fleetgate_engine::time::Wall;
use jiff::civil::Time;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::access::{id, wall};
use super::lists::{Entry, ListRow, readable};
use super::managed::Managed;
use crate::outbound::secret_url::SecretUrl;

/// A recipient and its addresses. The store keeps its secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Contact {
    pub id: ContactId,
    pub name: String,
    pub emails: Vec<String>,
    pub webhook_url: Option<SecretUrl>,
    /// Sealed for [`secret_place`].
    pub webhook_secret: Option<Vec<u8>>,
    pub time_zone: String,
    pub digest_at: Option<Time>,
    pub group_wait: Option<Duration>,
    pub managed: Managed,
    pub version: i64,
    pub created_at: Wall,
    pub digested_at: Wall,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub id: RuleId,
    pub name: String,
    pub contact: ContactId,
    pub labels: BTreeMap<String, String>,
    pub severity: Severity,
    pub period: Option<Period>,
    pub delay: Duration,
    pub managed: Managed,
    pub version: i64,
    pub created_at: Wall,
}

/// Returns the place that a contact's webhook secret is sealed for.
pub fn secret_place(contact: ContactId) -> String {
    format!("contacts.webhook_secret.{contact}")
}

fn damaged(column: &str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.into(), source: "not written by this program".into() }
}

fn millis(row: &SqliteRow, column: &str) -> sqlx::Result<Option<Duration>> {
    let ms: Option<i64> = row.try_get(column)?;
    Ok(ms.map(|ms| Duration::from_millis(ms.unsigned_abs())))
}

fn as_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl FromRow<'_, SqliteRow> for Contact {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let emails: Json<Vec<String>> = row.try_get("emails")?;
        let digest_at: Option<String> = row.try_get("digest_at")?;
        let digest_at = digest_at.map(|t| t.parse().map_err(|_| damaged("digest_at"))).transpose()?;
        Ok(Contact {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            emails: emails.0,
            webhook_url: row.try_get::<Option<String>, _>("webhook_url")?.map(SecretUrl::from),
            webhook_secret: row.try_get("webhook_secret")?,
            time_zone: row.try_get("time_zone")?,
            digest_at,
            group_wait: millis(row, "group_wait_ms")?,
            managed: Managed::from_row(row)?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
            digested_at: wall(row, "digested_at")?,
        })
    }
}

impl ListRow for Contact {
    const TABLE: &'static str = "contacts";

    fn place(row: &SqliteRow) -> sqlx::Result<String> {
        row.try_get("name")
    }
}

impl FromRow<'_, SqliteRow> for Rule {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let labels: Json<BTreeMap<String, String>> = row.try_get("labels")?;
        let (severity, period): (String, Option<String>) = (row.try_get("severity")?, row.try_get("period")?);
        Ok(Rule {
            id: id(row, "id")?,
            name: row.try_get("name")?,
            contact: id(row, "contact")?,
            labels: labels.0,
            severity: Severity::of_state(&severity).ok_or_else(|| damaged("severity"))?,
            period: period.map(|p| p.parse().map_err(|_| damaged("period"))).transpose()?,
            delay: millis(row, "delay_ms")?.unwrap_or_default(),
            managed: Managed::from_row(row)?,
            version: row.try_get("version")?,
            created_at: wall(row, "created_at")?,
        })
    }
}

impl ListRow for Rule {
    const TABLE: &'static str = "notification_rules";

    fn place(row: &SqliteRow) -> sqlx::Result<String> {
        row.try_get("name")
    }
}

const ALL: &str = "select * from contacts order by name";

/// Returns all contacts in name order.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid. A notification must not count as one to a
/// removed contact.
pub async fn all(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Contact>> {
    sqlx::query_as(ALL).fetch_all(conn).await
}

/// Returns the contacts that can be read, in name order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Contact>> {
    let entries: Vec<Entry<Contact>> = sqlx::query_as(ALL).fetch_all(conn).await?;
    Ok(readable(entries))
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, contact: ContactId) -> sqlx::Result<Option<Contact>> {
    let sql = "select * from contacts where id = $1";
    sqlx::query_as(sql).bind(contact.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find_named(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Contact>> {
    sqlx::query_as("select * from contacts where name = $1").bind(name).fetch_optional(conn).await
}

/// Adds a contact, or replaces the one with the same id.
///
/// # Errors
/// Fails when the database refuses the write, for example because another contact has the name.
pub async fn put(tx: &mut SqliteConnection, contact: &Contact) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "insert into contacts (id, name, emails, webhook_url, webhook_secret, time_zone, digest_at,
             group_wait_ms, managed_by, version, created_at, digested_at, edited_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         on conflict (id) do update set name = excluded.name, emails = excluded.emails,
             webhook_url = excluded.webhook_url, webhook_secret = excluded.webhook_secret,
             time_zone = excluded.time_zone, digest_at = excluded.digest_at,
             group_wait_ms = excluded.group_wait_ms, managed_by = excluded.managed_by,
             edited_by = excluded.edited_by,
             digested_at = excluded.digested_at,
             version = contacts.version + ((contacts.name, contacts.emails, contacts.webhook_url,
                 contacts.webhook_secret, contacts.time_zone, contacts.digest_at, contacts.group_wait_ms,
                 contacts.managed_by, contacts.edited_by)
                 is not (excluded.name, excluded.emails, excluded.webhook_url, excluded.webhook_secret,
                 excluded.time_zone, excluded.digest_at, excluded.group_wait_ms, excluded.managed_by,
                 excluded.edited_by))
         returning version",
    )
    .bind(contact.id.as_i64())
    .bind(&contact.name)
    .bind(Json(&contact.emails))
    .bind(contact.webhook_url.as_ref().map(SecretUrl::reveal))
    .bind(contact.webhook_secret.as_deref())
    .bind(&contact.time_zone)
    .bind(contact.digest_at.map(|t| t.to_string()))
    .bind(contact.group_wait.map(as_millis))
    .bind(&contact.managed.by)
    .bind(contact.version)
    .bind(contact.created_at.as_millis())
    .bind(contact.digested_at.as_millis())
    .bind(contact.managed.edited_by.as_deref())
    .fetch_one(tx)
    .await
}

/// # Errors
/// Fails when the database refuses the write, for example because a rule names the contact.
pub async fn remove(tx: &mut SqliteConnection, contact: ContactId) -> sqlx::Result<()> {
    sqlx::query("delete from contacts where id = $1").bind(contact.as_i64()).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn digested(tx: &mut SqliteConnection, contact: ContactId, at: Wall) -> sqlx::Result<()> {
    let sql = "update contacts set digested_at = $2 where id = $1";
    sqlx::query(sql).bind(contact.as_i64()).bind(at.as_millis()).execute(tx).await.map(drop)
}

const ALL_RULES: &str = "select * from notification_rules order by name";

/// Returns all rules in name order.
///
/// # Errors
/// Fails when the database cannot be read or a row is invalid. A problem must not go to fewer people than
/// the rules say.
pub async fn rules(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Rule>> {
    sqlx::query_as(ALL_RULES).fetch_all(conn).await
}

/// Returns the rules that can be read, in name order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list_rules(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Rule>> {
    let entries: Vec<Entry<Rule>> = sqlx::query_as(ALL_RULES).fetch_all(conn).await?;
    Ok(readable(entries))
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find_rule(conn: &mut SqliteConnection, rule: RuleId) -> sqlx::Result<Option<Rule>> {
    let sql = "select * from notification_rules where id = $1";
    sqlx::query_as(sql).bind(rule.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find_rule_named(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Rule>> {
    sqlx::query_as("select * from notification_rules where name = $1").bind(name).fetch_optional(conn).await
}

/// Adds a rule, or replaces the one with the same id.
///
/// # Errors
/// Fails when the database refuses the write, for example because another rule has the name.
pub async fn put_rule(tx: &mut SqliteConnection, rule: &Rule) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "insert into notification_rules (id, name, contact, labels, severity, period, delay_ms, managed_by,
             version, created_at, edited_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         on conflict (id) do update set name = excluded.name, contact = excluded.contact,
             labels = excluded.labels, severity = excluded.severity, period = excluded.period,
             delay_ms = excluded.delay_ms, managed_by = excluded.managed_by,
             edited_by = excluded.edited_by,
             version = notification_rules.version + ((notification_rules.name, notification_rules.contact,
                 notification_rules.labels, notification_rules.severity, notification_rules.period,
                 notification_rules.delay_ms, notification_rules.managed_by, notification_rules.edited_by)
                 is not (excluded.name, excluded.contact, excluded.labels, excluded.severity, excluded.period,
                 excluded.delay_ms, excluded.managed_by, excluded.edited_by))
         returning version",
    )
    .bind(rule.id.as_i64())
    .bind(&rule.name)
    .bind(rule.contact.as_i64())
    .bind(Json(&rule.labels))
    .bind(rule.severity.name())
    .bind(rule.period.as_ref().map(ToString::to_string))
    .bind(as_millis(rule.delay))
    .bind(&rule.managed.by)
    .bind(rule.version)
    .bind(rule.created_at.as_millis())
    .bind(rule.managed.edited_by.as_deref())
    .fetch_one(tx)
    .await
}

/// # Errors
/// Fails when the database refuses the write.
pub async fn remove_rule(tx: &mut SqliteConnection, rule: RuleId) -> sqlx::Result<()> {
    let sql = "delete from notification_rules where id = $1";
    sqlx::query(sql).bind(rule.as_i64()).execute(tx).await.map(drop)
}

/// Returns the names of the rules that select a contact.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn rules_of(conn: &mut SqliteConnection, contact: ContactId) -> sqlx::Result<Vec<String>> {
    let sql = "select name from notification_rules where contact = $1 order by name";
    sqlx::query_scalar(sql).bind(contact.as_i64()).fetch_all(conn).await
}

/// The contact from the settings (`mail.to`).
pub const BUILT_IN: ContactId = Id::from_i64(0);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    fn contact() -> Contact {
        Contact {
            id: Id::from_i64(7),
            name: "ops".into(),
            emails: vec!["ops@example.org".into()],
            webhook_url: Some("https://hooks.example.org/x".into()),
            webhook_secret: Some(vec![1, 2, 3]),
            time_zone: "Europe/Berlin".into(),
            digest_at: Some(Time::constant(8, 30, 0, 0)),
            group_wait: Some(Duration::from_secs(5)),
            managed: Managed { by: "api".into(), edited_by: None },
            version: 1,
            created_at: Wall::from_millis(5),
            digested_at: Wall::from_millis(5),
        }
    }

    fn rule() -> Rule {
        Rule {
            id: Id::from_i64(8),
            name: "nights".into(),
            contact: Id::from_i64(7),
            labels: [("site".to_owned(), "*".to_owned())].into(),
            severity: Severity::Critical,
            period: Some("mon-fri 22:00-06:00".parse().unwrap()),
            delay: Duration::from_secs(900),
            managed: Managed { by: "api".into(), edited_by: None },
            version: 1,
            created_at: Wall::from_millis(6),
        }
    }

    #[tokio::test]
    async fn contacts_and_rules_survive_the_store() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        put(&mut tx, &contact()).await.unwrap();
        put_rule(&mut tx, &rule()).await.unwrap();
        assert_eq!(find_named(&mut tx, "ops").await.unwrap(), Some(contact()));
        assert_eq!(rules(&mut tx).await.unwrap(), [rule()]);
        assert_eq!(rules_of(&mut tx, contact().id).await.unwrap(), ["nights"]);
        let changed = Contact { name: "crew".into(), digest_at: None, ..contact() };
        put(&mut tx, &changed).await.unwrap();
        assert_eq!(find(&mut tx, changed.id).await.unwrap(), Some(Contact { version: 2, ..changed }));
    }

    #[tokio::test]
    async fn a_contact_with_a_rule_cannot_be_removed() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        put(&mut tx, &contact()).await.unwrap();
        put_rule(&mut tx, &rule()).await.unwrap();
        assert!(remove(&mut tx, contact().id).await.is_err());
        remove_rule(&mut tx, rule().id).await.unwrap();
        remove(&mut tx, contact().id).await.unwrap();
        assert_eq!(all(&mut tx).await.unwrap(), []);
    }
}

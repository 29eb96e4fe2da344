//! Profiles that operators created, and the rules that select a profile.
//!
//! Each value must be valid by itself. [`Catalogue`] checks whether they fit together before the
//! transaction is committed.

use anyhow::Context as _;
use fleetgate_engine::id::Id;
use fleetgate_engine::monitor::profile::{Catalogue, Profile, ProfileRule, ServiceOverride};
use fleetgate_engine::notification::Selector;
use serde_json::{Map, Value, json};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::definition;
use super::managed::Managed;
use super::rentals::terms::{terms_column, terms_json};

/// A stored profile.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub profile: Profile,
    pub managed: Managed,
    pub version: i64,
}

impl FromRow<'_, SqliteRow> for Stored {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let extends: Json<Vec<String>> = row.try_get("extends")?;
        let services: Json<Map<String, Value>> = row.try_get("services")?;
        let services = services.0.into_iter().map(|(name, value)| definition::parse_service(&name, &value));
        Ok(Stored {
            profile: Profile {
                name: row.try_get("name")?,
                summary: row.try_get("summary")?,
                extends: extends.0,
                services: services.collect::<Result<_, _>>().map_err(|e| sqlx::Error::Decode(e.into()))?,
                rental: terms_column(row)?,
            },
            managed: Managed::from_row(row)?,
            version: row.try_get("version")?,
        })
    }
}

/// The stored list of rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    pub rules: Vec<ProfileRule>,
    pub managed: Managed,
    pub version: i64,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct RuleRow {
    labels: std::collections::BTreeMap<String, String>,
    profile: String,
}

impl FromRow<'_, SqliteRow> for Rules {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let rules: Json<Vec<RuleRow>> = row.try_get("rules")?;
        let rule = |r: RuleRow| ProfileRule { selector: Selector(r.labels), profile: r.profile };
        Ok(Rules {
            rules: rules.0.into_iter().map(rule).collect(),
            managed: Managed::from_row(row)?,
            version: row.try_get("version")?,
        })
    }
}

/// Returns all profiles with the rules.
///
/// # Errors
/// Fails when the database cannot be read, or the stored profiles do not fit together.
pub async fn catalogue(conn: &mut SqliteConnection) -> anyhow::Result<Catalogue> {
    let own = list(&mut *conn).await?.into_iter().map(|stored| stored.profile).collect();
    Catalogue::new(own, rules(conn).await?.rules).context("the stored profiles")
}

/// Returns the profiles in name order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(conn: &mut SqliteConnection) -> sqlx::Result<Vec<Stored>> {
    sqlx::query_as("select * from profiles order by name").fetch_all(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Stored>> {
    sqlx::query_as("select * from profiles where name = $1").bind(name).fetch_optional(conn).await
}

/// Creates or replaces a profile and returns its new version.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn put(tx: &mut SqliteConnection, profile: &Profile, managed: &Managed) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "insert into profiles (name, summary, extends, services, managed_by, edited_by, rental, version)
         values ($1, $2, $3, $4, $5, $6, $7, (select version from instance))
         on conflict (name) do update set summary = excluded.summary, extends = excluded.extends,
                services = excluded.services, managed_by = excluded.managed_by,
                edited_by = excluded.edited_by, rental = excluded.rental,
                version = profiles.version + ((profiles.summary, profiles.extends, profiles.services,
                    profiles.managed_by, profiles.edited_by, profiles.rental)
                    is not (excluded.summary, excluded.extends, excluded.services, excluded.managed_by,
                    excluded.edited_by, excluded.rental))
         returning version",
    )
    .bind(&profile.name)
    .bind(&profile.summary)
    .bind(Json(&profile.extends))
    .bind(services_json(&profile.services).to_string())
    .bind(&managed.by)
    .bind(managed.edited_by.as_deref())
    .bind(terms_json(&profile.rental))
    .fetch_one(tx)
    .await
}

/// Returns the services of a profile as JSON, by name.
pub fn services_json(services: &[ServiceOverride]) -> Value {
    services.iter().map(|s| (s.service.clone(), definition::service_json(s))).collect::<Map<_, _>>().into()
}

/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, name: &str) -> sqlx::Result<()> {
    sqlx::query("delete from profiles where name = $1").bind(name).execute(tx).await.map(drop)
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn rules(conn: &mut SqliteConnection) -> sqlx::Result<Rules> {
    sqlx::query_as("select * from profile_rules where id = 1").fetch_one(conn).await
}

/// Replaces the list and returns its new version.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn put_rules(
    tx: &mut SqliteConnection,
    rules: &[ProfileRule],
    managed: &Managed,
) -> sqlx::Result<i64> {
    let row = |r: &ProfileRule| json!({ "labels": r.selector.0, "profile": r.profile });
    let rules: Value = rules.iter().map(row).collect();
    sqlx::query_scalar(
        "update profile_rules set rules = $1, managed_by = $2, edited_by = $3,
                version = version + ((rules, managed_by, edited_by) is not ($1, $2, $3))
         where id = 1 returning version",
    )
    .bind(rules.to_string())
    .bind(&managed.by)
    .bind(managed.edited_by.as_deref())
    .fetch_one(tx)
    .await
}

/// Returns the labels (or ids) of unrevoked tokens that would assign this profile.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn tokens(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Vec<String>> {
    let sql = "select id, label from enrolment_tokens where profile = $1 and revoked_at is null order by id";
    let rows: Vec<(i64, String)> = sqlx::query_as(sql).bind(name).fetch_all(conn).await?;
    let shown = |(id, label): (i64, String)| match label.as_str() {
        "" => format!("t_{}", Id::from_i64(id)),
        _ => label,
    };
    Ok(rows.into_iter().map(shown).collect())
}

//! The settings of a host, and hosts that stand behind a device.
//!
//! `devices.rs` creates a device's own host. Its settings are changed here like those of any other
//! host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{HostKey, KeyType, RoutePolicy, Threshold};
use fleetgate_engine::monitor::profile::AlertingChange;
use fleetgate_engine::time::Wall;
use ipnet::IpNet;
use serde_json::Value;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::types::Json;
use sqlx::{FromRow, Row as _};

use super::devices::{self, NotMade, Pin, Ssh};
use super::managed::Managed;
use super::{alerting, definition, snapshot};

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Empty: the profile rules decide.
    pub profile: String,
    pub route: RoutePolicy,
    /// The address behind its device. `None` for a device itself.
    pub address: Option<IpAddr>,
    pub direct_address: Option<String>,
    pub ssh: Ssh,
    pub timing: Timing,
    /// The limit for the traffic of its checks, in bytes per UTC day.
    pub budget: Option<u64>,
    /// Parents other than the device it stands behind.
    pub parents: Vec<HostId>,
    pub alerting: AlertingChange,
    pub thresholds: Vec<Threshold>,
    pub notes: String,
}

/// Timing that differs from the gateway's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    pub interval: Option<Duration>,
    pub retry: Option<Duration>,
    pub attempts: Option<u32>,
    pub timeout: Option<Duration>,
    pub max_silence: Option<Duration>,
    pub freshness: Option<Duration>,
}

/// The stored settings of a host.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub id: HostId,
    /// The device it stands behind.
    pub via: Option<HostId>,
    pub via_name: Option<String>,
    pub settings: Settings,
    pub managed: Managed,
    pub version: i64,
    pub created_at: Wall,
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "select h.*, v.name as via_name from hosts h left join hosts v on v.id = h.via
             where h.removed_at is null and ",
            $condition
        )
    };
}

impl FromRow<'_, SqliteRow> for Stored {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let via: Option<i64> = row.try_get("via")?;
        Ok(Stored {
            id: Id::from_i64(row.try_get("id")?),
            via: via.map(Id::from_i64),
            via_name: row.try_get("via_name")?,
            settings: settings(row)?,
            managed: Managed::from_row(row)?,
            version: row.try_get("version")?,
            created_at: Wall::from_millis(row.try_get("created_at")?),
        })
    }
}

fn settings(row: &SqliteRow) -> sqlx::Result<Settings> {
    let labels: Json<BTreeMap<String, String>> = row.try_get("labels")?;
    let (route, address): (&str, Option<&str>) = (row.try_get("route")?, row.try_get("address")?);
    let damaged =
        |column: &str, why: &str| sqlx::Error::ColumnDecode { index: column.to_owned(), source: why.into() };
    let address = address.map(str::parse).transpose();
    let (pin, source): (Option<String>, Option<String>) =
        (row.try_get("ssh_pin")?, row.try_get("ssh_pin_source")?);
    let key_type: Option<String> = row.try_get("ssh_pin_type")?;
    Ok(Settings {
        name: row.try_get("name")?,
        labels: labels.0,
        profile: row.try_get("profile")?,
        route: devices::route_named(route)
            .ok_or_else(|| damaged("route", "tunnel, direct or auto is expected"))?,
        address: address.map_err(|_| damaged("address", "an IP address is expected"))?,
        direct_address: row.try_get("direct_address")?,
        ssh: Ssh {
            port: row.try_get("ssh_port")?,
            user: row.try_get("ssh_user")?,
            pin: pin.map(|fingerprint| Pin { fingerprint, source: source.unwrap_or_default(), key_type }),
        },
        timing: timing(row)?,
        budget: row.try_get::<Option<i64>, _>("budget_bytes_per_day")?.map(i64::cast_unsigned),
        parents: parents(row)?,
        alerting: snapshot::stored_alerting(row.try_get("alerting")?)
            .map_err(|e| sqlx::Error::Decode(e.into()))?,
        thresholds: definition::thresholds(&row.try_get::<Json<Value>, _>("thresholds")?.0)
            .map_err(|e| sqlx::Error::Decode(e.into()))?,
        notes: row.try_get("notes")?,
    })
}

fn parents(row: &SqliteRow) -> sqlx::Result<Vec<HostId>> {
    let ids: Json<Vec<i64>> = row.try_get("parents")?;
    Ok(ids.0.into_iter().map(Id::from_i64).collect())
}

fn timing(row: &SqliteRow) -> sqlx::Result<Timing> {
    let time = |column: &str| -> sqlx::Result<Option<Duration>> {
        let ms: Option<i64> = row.try_get(column)?;
        Ok(ms.map(|ms| Duration::from_millis(ms.cast_unsigned())))
    };
    Ok(Timing {
        interval: time("interval_ms")?,
        retry: time("retry_ms")?,
        attempts: row.try_get("attempts")?,
        timeout: time("timeout_ms")?,
        max_silence: time("max_silence_ms")?,
        freshness: time("freshness_ms")?,
    })
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_id(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<Stored>> {
    sqlx::query_as(select!("h.id = $1")).bind(host.as_i64()).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn by_name(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<Stored>> {
    sqlx::query_as(select!("h.name = $1")).bind(name).fetch_optional(conn).await
}

/// Returns the networks behind a device. `None` if it has no tunnel.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn networks(conn: &mut SqliteConnection, device: HostId) -> sqlx::Result<Option<Vec<IpNet>>> {
    let sql = "select networks from peers where id = $1 and removed_at is null";
    let found: Option<Json<Vec<IpNet>>> =
        sqlx::query_scalar(sql).bind(device.as_i64()).fetch_optional(conn).await?;
    Ok(found.map(|networks| networks.0))
}

/// Returns the name of a host that is not removed.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn name_of(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Option<String>> {
    let sql = "select name from hosts where id = $1 and removed_at is null";
    sqlx::query_scalar(sql).bind(host.as_i64()).fetch_optional(conn).await
}

/// Returns the hosts directly before one: its parents and the device it stands behind.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn before(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Vec<HostId>> {
    let found = by_id(conn, host).await?;
    Ok(found.into_iter().flat_map(|h| h.via.into_iter().chain(h.settings.parents)).collect())
}

/// Creates a host behind a device.
///
/// # Errors
/// Fails when the name is taken, or the database cannot be written.
pub async fn insert(
    tx: &mut SqliteConnection,
    host: HostId,
    via: HostId,
    settings: &Settings,
    now: Wall,
) -> Result<(), NotMade> {
    let sql = "insert into hosts (id, name, profile, via, created_at, version)
               values ($1, $2, '', $3, $4, (select version from instance))";
    sqlx::query(sql)
        .bind(host.as_i64())
        .bind(&settings.name)
        .bind(via.as_i64())
        .bind(now.as_millis())
        .execute(&mut *tx)
        .await
        .map_err(|e| devices::name_taken(e, &settings.name))?;
    write(tx, host, settings).await
}

/// Stores changed settings and raises the version.
///
/// # Errors
/// Fails when the name is taken, or the database cannot be written.
pub async fn update(tx: &mut SqliteConnection, host: HostId, settings: &Settings) -> Result<(), NotMade> {
    let sql = "update hosts set version = version + 1 where id = $1";
    sqlx::query(sql).bind(host.as_i64()).execute(&mut *tx).await?;
    write(tx, host, settings).await
}

async fn write(tx: &mut SqliteConnection, host: HostId, settings: &Settings) -> Result<(), NotMade> {
    let ms = |d: Option<Duration>| d.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
    let (pin, timing) = (settings.ssh.pin.as_ref(), &settings.timing);
    sqlx::query(
        "update hosts set name = $2, labels = $3, profile = $4, route = $5, address = $6,
                direct_address = $7, ssh_port = $8, ssh_user = $9, ssh_pin = $10, ssh_pin_source = $11,
                interval_ms = $12, retry_ms = $13, attempts = $14, timeout_ms = $15,
                max_silence_ms = $16, notes = $17, parents = $18, alerting = $19,
                freshness_ms = $20, budget_bytes_per_day = $21, thresholds = $22,
                ssh_pin_type = case when ssh_pin = $10 then ssh_pin_type end,
                ssh_pin_line = case when ssh_pin = $10 then ssh_pin_line end
         where id = $1",
    )
    .bind(host.as_i64())
    .bind(&settings.name)
    .bind(Json(&settings.labels))
    .bind(&settings.profile)
    .bind(devices::route_name(settings.route))
    .bind(settings.address.map(|a| a.to_string()))
    .bind(settings.direct_address.as_deref())
    .bind(settings.ssh.port)
    .bind(settings.ssh.user.as_deref())
    .bind(pin.map(|p| p.fingerprint.as_str()))
    .bind(pin.map(|p| p.source.as_str()))
    .bind(ms(timing.interval))
    .bind(ms(timing.retry))
    .bind(timing.attempts)
    .bind(ms(timing.timeout))
    .bind(ms(timing.max_silence))
    .bind(&settings.notes)
    .bind(Json(settings.parents.iter().map(|id| id.as_i64()).collect::<Vec<_>>()))
    .bind(Value::Object(alerting::to_json(&settings.alerting)).to_string())
    .bind(ms(timing.freshness))
    .bind(settings.budget.map(u64::cast_signed))
    .bind(definition::thresholds_json(&settings.thresholds).to_string())
    .execute(tx)
    .await
    .map_err(|e| devices::name_taken(e, &settings.name))?;
    Ok(())
}
/// Stores the host key of the first contact through the tunnel, or the type and the line of the pinned key. A
/// key that an operator has pinned meanwhile stays.
///
/// The version does not change, so that an operator's pending edit does not fail.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn learn_pin(conn: &mut SqliteConnection, host: HostId, key: &HostKey) -> sqlx::Result<()> {
    let statements = [
        "update hosts set ssh_pin = $2, ssh_pin_source = 'tunnel', ssh_pin_type = $3, ssh_pin_line = $4
         where id = $1 and ssh_pin is null",
        "update hosts set ssh_pin_type = coalesce(ssh_pin_type, $3), ssh_pin_line = coalesce(ssh_pin_line, $4)
         where id = $1 and ssh_pin = $2 and (ssh_pin_type is null or ssh_pin_line is null)",
    ];
    for sql in statements {
        let query = sqlx::query(sql).bind(host.as_i64()).bind(&key.fingerprint);
        query.bind(key.key_type.map(KeyType::name)).bind(&key.line).execute(&mut *conn).await?;
    }
    Ok(())
}

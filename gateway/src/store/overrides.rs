//! Sparse differences between the services of a host and its profile.

use fleetgate_engine::id::HostId;
use fleetgate_engine::monitor::profile::ServiceOverride;
use sqlx::sqlite::SqliteConnection;

use super::definition;
use super::managed::Managed;
use super::snapshot::stored_override;

/// An override with its version.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub change: ServiceOverride,
    pub managed: Managed,
    pub version: i64,
}

type Row = (String, bool, String, String, Option<String>, i64);

fn stored((service, disabled, json, by, edited_by, version): Row) -> sqlx::Result<Stored> {
    let change = stored_override(&service, disabled, &json).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(Stored { change, managed: Managed { by, edited_by }, version })
}

/// Returns the overrides of a host in service order.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn list(conn: &mut SqliteConnection, host: HostId) -> sqlx::Result<Vec<Stored>> {
    let rows: Vec<Row> = sqlx::query_as(
        "select service, disabled, definition, managed_by, edited_by, version from service_overrides
         where host = $1 order by service",
    )
    .bind(host.as_i64())
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(stored).collect()
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, host: HostId, service: &str) -> sqlx::Result<Option<Stored>> {
    let row: Option<Row> = sqlx::query_as(
        "select service, disabled, definition, managed_by, edited_by, version from service_overrides
         where host = $1 and service = $2",
    )
    .bind(host.as_i64())
    .bind(service)
    .fetch_optional(conn)
    .await?;
    row.map(stored).transpose()
}

/// Creates or replaces an override and returns its new version.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn put(
    tx: &mut SqliteConnection,
    host: HostId,
    change: &ServiceOverride,
    managed: &Managed,
) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "insert into service_overrides (host, service, disabled, definition, managed_by, edited_by, version)
         values ($1, $2, $3, $4, $5, $6, (select version from instance))
         on conflict (host, service) do update set disabled = excluded.disabled,
                definition = excluded.definition, managed_by = excluded.managed_by,
                edited_by = excluded.edited_by,
                version = service_overrides.version + ((service_overrides.disabled,
                    service_overrides.definition, service_overrides.managed_by, service_overrides.edited_by)
                    is not (excluded.disabled, excluded.definition, excluded.managed_by, excluded.edited_by))
         returning version",
    )
    .bind(host.as_i64())
    .bind(&change.service)
    .bind(change.disabled)
    .bind(definition::to_json(change).to_string())
    .bind(&managed.by)
    .bind(managed.edited_by.as_deref())
    .fetch_one(tx)
    .await
}

/// Removes an override, so that the profile applies. Returns `false` if there was none.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn remove(tx: &mut SqliteConnection, host: HostId, service: &str) -> sqlx::Result<bool> {
    let sql = "delete from service_overrides where host = $1 and service = $2";
    let done = sqlx::query(sql).bind(host.as_i64()).bind(service).execute(tx).await?;
    Ok(done.rows_affected() > 0)
}

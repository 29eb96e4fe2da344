//! Small facts about this installation, by name.

use sqlx::SqliteConnection;

/// # Errors
/// When the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("select value from settings where name = $1").bind(name).fetch_optional(conn).await
}

/// # Errors
/// When the database cannot be written.
pub async fn put(tx: &mut SqliteConnection, name: &str, value: &str) -> sqlx::Result<()> {
    sqlx::query(
        "insert into settings (name, value) values ($1, $2)
         on conflict (name) do update set value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(tx)
    .await
    .map(drop)
}

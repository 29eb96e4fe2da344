//! Small facts about this installation, by name.

use fleetgate_engine::time::Wall;
use sqlx::SqliteConnection;

use super::Store;

/// The setting that makes a `Message-ID` unique to this installation.
const INSTALLATION: &str = "installation";

impl Store {
    /// Returns sixteen characters, generated once and kept for ever.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn installation(&self) -> sqlx::Result<String> {
        let mut conn = self.reader().await?;
        if let Some(known) = find(&mut conn, INSTALLATION).await? {
            return Ok(known);
        }
        drop(conn);
        let made = format!("{:016x}", rand_core::RngCore::next_u64(&mut rand_core::OsRng));
        let mut tx = self.begin().await?;
        // A concurrent delivery may have stored one meanwhile.
        if let Some(known) = find(&mut tx, INSTALLATION).await? {
            return Ok(known);
        }
        put(&mut tx, INSTALLATION, &made).await?;
        tx.commit().await?;
        Ok(made)
    }
}

/// Names in the table of settings.
pub const PUBLIC_KEY: &str = "gateway_public_key";

/// The greatest time that the clock has shown, in milliseconds since 1970.
const CLOCK_FLOOR: &str = "clock_floor";

/// The greatest time that the clock has shown, as the database has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockFloor {
    /// The clock has not run for long enough yet.
    None,
    At(Wall),
    /// The row has no time, so that no clock can be compared with it.
    Unreadable,
}

impl ClockFloor {
    /// Returns the time that the clock must have passed. No clock passes an unreadable floor.
    pub fn at(self) -> Option<Wall> {
        match self {
            ClockFloor::None => None,
            ClockFloor::At(floor) => Some(floor),
            ClockFloor::Unreadable => Some(Wall::from_millis(i64::MAX)),
        }
    }
}

/// Returns the greatest time that the clock has shown.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn clock_floor(conn: &mut SqliteConnection) -> sqlx::Result<ClockFloor> {
    let Some(text) = find(conn, CLOCK_FLOOR).await? else { return Ok(ClockFloor::None) };
    Ok(text.parse().map_or(ClockFloor::Unreadable, |millis| ClockFloor::At(Wall::from_millis(millis))))
}

/// Records a time that the clock shows, unless it has shown a later one. A floor that cannot be read
/// stays: only an admin replaces it.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn raise_clock_floor(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<()> {
    match clock_floor(tx).await? {
        ClockFloor::None => {}
        ClockFloor::At(floor) if floor < now => {}
        ClockFloor::At(_) | ClockFloor::Unreadable => return Ok(()),
    }
    put(tx, CLOCK_FLOOR, &now.as_millis().to_string()).await
}

/// Replaces the floor by this time: an admin says that the clock is right.
///
/// # Errors
/// Fails when the database cannot be written.
pub async fn accept_clock(tx: &mut SqliteConnection, now: Wall) -> sqlx::Result<()> {
    put(tx, CLOCK_FLOOR, &now.as_millis().to_string()).await
}

/// # Errors
/// Fails when the database cannot be read.
pub async fn find(conn: &mut SqliteConnection, name: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("select value from settings where name = $1").bind(name).fetch_optional(conn).await
}

/// # Errors
/// Fails when the database cannot be written.
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

//! Lists for people and programs: a row that cannot be read is left out, and hides no other row.
//!
//! Only a database that was damaged or edited by hand has such rows. The log names each of them once.

use std::collections::BTreeSet;
use std::sync::Mutex;

use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};

/// The number of rows that are reported. A database with more of them needs its backup.
const MOST_REPORTED: usize = 1_000;

/// Lists are read often, and one message for each row is enough.
static REPORTED: Mutex<BTreeSet<(&'static str, String)>> = Mutex::new(BTreeSet::new());

/// A row that lists have.
pub trait ListRow: for<'r> FromRow<'r, SqliteRow> {
    const TABLE: &'static str;

    /// Returns the place of the row in its list, as the cursor of a page names it.
    ///
    /// # Errors
    /// Fails when not even the place can be read.
    fn place(row: &SqliteRow) -> sqlx::Result<String> {
        Ok(row.try_get::<i64, _>("id")?.to_string())
    }
}

/// A row of a list, or the place of one that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry<T> {
    Row(T),
    Unreadable(String),
}

impl<T> Entry<T> {
    pub fn as_row(&self) -> Option<&T> {
        match self {
            Entry::Row(row) => Some(row),
            Entry::Unreadable(_) => None,
        }
    }

    pub fn row(self) -> Option<T> {
        match self {
            Entry::Row(row) => Some(row),
            Entry::Unreadable(_) => None,
        }
    }

    pub fn map<U>(self, to: impl FnOnce(T) -> U) -> Entry<U> {
        match self {
            Entry::Row(row) => Entry::Row(to(row)),
            Entry::Unreadable(place) => Entry::Unreadable(place),
        }
    }
}

impl<T: ListRow> FromRow<'_, SqliteRow> for Entry<T> {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let error = match T::from_row(row) {
            Ok(found) => return Ok(Entry::Row(found)),
            Err(error) => error,
        };
        let place = T::place(row)?;
        let id = row.try_get::<i64, _>("id").map_or_else(|_| place.clone(), |id| id.to_string());
        report(T::TABLE, id, &error);
        Ok(Entry::Unreadable(place))
    }
}

fn report(table: &'static str, id: String, error: &sqlx::Error) {
    let mut reported = REPORTED.lock().expect("no holder panics");
    if reported.len() < MOST_REPORTED && reported.insert((table, id.clone())) {
        metrics::counter!("fleetgate_unreadable_rows_total", "table" => table).increment(1);
        tracing::error!(
            "the row {id} of the table {table} cannot be read, so that lists leave it out: {error}"
        );
    }
}

/// Returns the rows that can be read.
pub fn readable<T>(entries: Vec<Entry<T>>) -> Vec<T> {
    entries.into_iter().filter_map(Entry::row).collect()
}

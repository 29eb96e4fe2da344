//! Writes many rows in one round trip. Provides the text of `VALUES` lists and cuts the rows into
//! the lengths of the prepared texts.
//!
//! The parameters have no numbers here, unlike everywhere else. SQLite finds a `$n` by walking a
//! list of names, so the cost of a statement would grow with the square of their number.

use sqlx::sqlite::{SqliteArguments, SqliteConnection};

/// Rows per statement for the state tables (at most 27 columns). A round trip to the database
/// thread costs as much as changing ten rows.
pub const WIDE: usize = 64;
/// Rows per statement for narrow tables (at most 4 columns).
pub const NARROW: usize = 256;

/// Returns `(?, ?), (?, ?)` for two rows of two columns.
fn values(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

/// A statement for rows, in three lengths.
pub struct Batched {
    many: String,
    few: String,
    one: String,
    length: usize,
}

/// The ratio of the long to the middle length.
const FEWER: usize = 8;

impl Batched {
    /// `text` builds the statement around a `VALUES` list.
    pub fn new(length: usize, columns: usize, text: impl Fn(&str) -> String) -> Self {
        let statement = |rows: usize| text(&values(rows, columns));
        let few = length.div_ceil(FEWER);
        Batched { many: statement(length), few: statement(few), one: statement(1), length }
    }

    /// Runs the statement for all rows. `bind` adds the arguments of one row in column order.
    ///
    /// # Errors
    /// Fails when the database refuses a statement. Earlier statements have run.
    pub async fn run<T>(
        &'static self,
        conn: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&T, &mut Arguments),
    ) -> sqlx::Result<()> {
        self.changed(conn, rows, bind).await.map(drop)
    }

    /// Like [`run`](Self::run). Returns how many rows of the database were changed.
    ///
    /// # Errors
    /// Fails when the database refuses a statement. Earlier statements have run.
    pub async fn changed<T>(
        &'static self,
        conn: &mut SqliteConnection,
        mut rows: &[T],
        bind: impl Fn(&T, &mut Arguments),
    ) -> sqlx::Result<u64> {
        let mut changed = 0;
        let few = self.length.div_ceil(FEWER);
        let sizes = [(&self.many, self.length), (&self.few, few), (&self.one, 1)];
        for (sql, size) in sizes {
            while let Some((chunk, rest)) = rows.split_at_checked(size).filter(|_| !rows.is_empty()) {
                changed += execute(conn, sql, chunk, &bind).await?;
                rows = rest;
            }
        }
        Ok(changed)
    }
}

async fn execute<T>(
    conn: &mut SqliteConnection,
    sql: &'static str,
    rows: &[T],
    bind: impl Fn(&T, &mut Arguments),
) -> sqlx::Result<u64> {
    let mut arguments = Arguments::default();
    rows.iter().for_each(|row| bind(row, &mut arguments));
    Ok(sqlx::query_with(sql, arguments.0).execute(conn).await?.rows_affected())
}

/// Arguments of a statement under construction.
#[derive(Default)]
pub struct Arguments(SqliteArguments);

impl Arguments {
    /// # Panics
    /// Never panics for the types of the gateway's rows: numbers, text and blobs always encode.
    pub fn add<'q, T: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        &mut self,
        value: T,
    ) -> &mut Self {
        use sqlx::Arguments as _;
        self.0.add(value).expect("numbers, text and blobs encode");
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::store::fixture;

    static INSERT: LazyLock<Batched> = LazyLock::new(|| {
        Batched::new(16, 2, |values| format!("insert into settings (name, value) values {values}"))
    });

    #[test]
    fn there_is_a_parameter_for_each_column_of_each_row() {
        assert_eq!(values(2, 3), "(?, ?, ?), (?, ?, ?)");
        assert_eq!(values(1, 1), "(?)");
    }

    #[tokio::test]
    async fn every_row_is_written_once_whatever_their_number() {
        for count in [0, 1, 2, 3, 7, 24, 25, 26, 27, 48, 77] {
            let (store, _dir) = fixture::store().await;
            let rows: Vec<i64> = (0..count).collect();
            let mut conn = store.write.acquire().await.unwrap();
            let changed = INSERT
                .changed(&mut conn, &rows, |n, arguments| {
                    arguments.add(format!("{n:03}")).add(n.to_string());
                })
                .await
                .unwrap();
            assert_eq!(i64::try_from(changed), Ok(count));
            let written: Vec<(String,)> = sqlx::query_as("select value from settings order by name")
                .fetch_all(&mut *conn)
                .await
                .unwrap();
            let expected: Vec<(String,)> = rows.iter().map(|n| (n.to_string(),)).collect();
            assert_eq!(written, expected);
        }
    }
}

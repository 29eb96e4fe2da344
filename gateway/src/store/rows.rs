//! Many rows in one statement: the text of `VALUES` lists, and the cutting of rows into the
//! lengths that there is a statement for.
//!
//! SQLite resolves each `$n` by walking the list of all names, so that a statement's cost grows
//! with the square of its parameters; around two hundred of them it is still nothing, and the
//! round trip to the database thread is shared by a dozen rows.

use sqlx::sqlite::{SqliteArguments, SqliteConnection};

/// Rows of a full statement of the state tables (16 columns and less).
pub const WIDE: usize = 12;
/// Rows of a full statement of narrow tables (4 columns and less).
pub const NARROW: usize = 48;

/// `($1, $2), ($3, $4)` for two rows of two columns.
pub fn values(rows: usize, columns: usize) -> String {
    let row = |r: usize| {
        let cells: Vec<String> = (1..=columns).map(|c| format!("${}", r * columns + c)).collect();
        format!("({})", cells.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// One statement in two lengths.
pub struct Batched {
    many: String,
    one: String,
    length: usize,
}

impl Batched {
    /// `text` makes the statement around a `VALUES` list.
    pub fn new(length: usize, columns: usize, text: impl Fn(&str) -> String) -> Self {
        Batched { many: text(&values(length, columns)), one: text(&values(1, columns)), length }
    }

    /// Runs over all rows; `bind` adds one row's arguments, in the order of its columns.
    ///
    /// # Errors
    /// When the database refuses a statement; those before it have run.
    pub async fn run<T>(
        &'static self,
        conn: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(&T, &mut Arguments),
    ) -> sqlx::Result<()> {
        let mut chunks = rows.chunks_exact(self.length);
        for chunk in &mut chunks {
            execute(conn, &self.many, chunk, &bind).await?;
        }
        for row in chunks.remainder() {
            execute(conn, &self.one, std::slice::from_ref(row), &bind).await?;
        }
        Ok(())
    }
}

async fn execute<T>(
    conn: &mut SqliteConnection,
    sql: &'static str,
    rows: &[T],
    bind: impl Fn(&T, &mut Arguments),
) -> sqlx::Result<()> {
    let mut arguments = Arguments::default();
    rows.iter().for_each(|row| bind(row, &mut arguments));
    sqlx::query_with(sql, arguments.0).execute(conn).await?;
    Ok(())
}

/// Arguments of a statement under construction.
#[derive(Default)]
pub struct Arguments(SqliteArguments);

impl Arguments {
    /// # Panics
    /// Never for the types of our rows: numbers, text and blobs always encode.
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
    use super::*;

    #[test]
    fn parameters_are_numbered_through() {
        assert_eq!(values(2, 3), "($1, $2, $3), ($4, $5, $6)");
        assert_eq!(values(1, 1), "($1)");
    }
}

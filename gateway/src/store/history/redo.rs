//! The redo: samples that no block has yet, in the main database.
//!
//! A row is written in the transaction of the states that the samples belong to, so that a result
//! that was acknowledged has its samples after a crash. A generation is what one seal takes. The
//! caller writes no row of a generation after a row of a later one.

use std::sync::LazyLock;

use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::super::rows::{Batched, WIDE};

static APPEND: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(WIDE, 2, |values| format!("insert into redo (generation, data) values {values}"))
});

/// # Errors
/// Fails when the database refuses the write.
pub async fn append(conn: &mut SqliteConnection, generation: i64, rows: &[Vec<u8>]) -> sqlx::Result<()> {
    APPEND
        .run(conn, rows, |data, arguments| {
            arguments.add(generation).add(data.as_slice());
        })
        .await
}

/// Passes the generation and the data of each row to `each`, oldest first. Returns their bytes.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn replay(conn: &mut SqliteConnection, mut each: impl FnMut(i64, &[u8])) -> sqlx::Result<u64> {
    let mut rows = sqlx::query("select generation, data from redo order by id").fetch(conn);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let data: &[u8] = row.try_get(1)?;
        bytes += data.len() as u64;
        each(row.try_get(0)?, data);
    }
    Ok(bytes)
}

/// Removes at most `most` of the oldest rows of the generations up to this one. Returns their bytes, 0
/// if there are none left.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn forget(conn: &mut SqliteConnection, up_to: i64, most: i64) -> sqlx::Result<u64> {
    // The inner list is cut first, because the rows of later generations follow: no statement reads them all.
    let sql = "delete from redo where id in
               (select id from (select id, generation from redo order by id limit $2) where generation <= $1)
               returning length(data)";
    let gone: Vec<i64> = sqlx::query_scalar(sql).bind(up_to).bind(most).fetch_all(conn).await?;
    // A row without data would otherwise end the caller's loop.
    Ok(gone.into_iter().map(|bytes| bytes.unsigned_abs().max(1)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, fixture};

    async fn all(store: &Store) -> (Vec<(i64, Vec<u8>)>, u64) {
        let mut found = Vec::new();
        let mut conn = store.reader().await.unwrap();
        let bytes = replay(&mut conn, |generation, data| found.push((generation, data.to_vec()))).await;
        (found, bytes.unwrap())
    }

    #[tokio::test]
    async fn rows_come_back_in_the_order_in_which_they_were_written() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        append(&mut tx, 1, &[vec![1], vec![], vec![2, 3]]).await.unwrap();
        append(&mut tx, 2, &[]).await.unwrap();
        append(&mut tx, 2, &[vec![4]]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(all(&store).await, (vec![(1, vec![1]), (1, vec![]), (1, vec![2, 3]), (2, vec![4])], 4));
        let mut failed = store.begin().await.unwrap();
        append(&mut failed, 2, &[vec![5]]).await.unwrap();
        failed.rollback().await.unwrap();
        assert_eq!(all(&store).await.1, 4);
    }

    #[tokio::test]
    async fn what_is_sealed_is_forgotten_a_few_rows_at_a_time() {
        let (store, _dir) = fixture::store().await;
        let mut conn = store.begin().await.unwrap();
        append(&mut conn, 1, &vec![vec![7; 10]; 250]).await.unwrap();
        append(&mut conn, 2, &[vec![8; 3]]).await.unwrap();
        append(&mut conn, 3, &[vec![9; 5]]).await.unwrap();
        let mut bytes = Vec::new();
        for _ in 0..4 {
            bytes.push(forget(&mut conn, 2, 200).await.unwrap());
        }
        conn.commit().await.unwrap();
        assert_eq!(bytes, [2_000, 503, 0, 0]);
        assert_eq!(all(&store).await, (vec![(3, vec![9; 5])], 5));
    }
}

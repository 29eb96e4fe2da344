//! Prunes samples older than the retention period, a few at a time.
//!
//! This also removes the samples of removed hosts, which get no new ones. Empty series are removed
//! too.

use fleetgate_engine::time::Wall;
use sqlx::sqlite::SqliteConnection;

/// Samples removed in one step. The step takes some 20 ms, and new samples wait for it.
const SAMPLES: u32 = 5_000;
/// Series checked in one step. Most have nothing to remove.
const SERIES: i64 = 1_000;

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The start of the next step. `None` after all series.
    pub next: Option<i64>,
    pub samples: u64,
    /// The number of removed series.
    pub series: u64,
}

/// The series that one step checks.
macro_rules! group {
    () => {
        "(select id from series where id > $1 order by id limit $2)"
    };
}

const LAST: &str = concat!("select max(id) from ", group!());
const SAMPLES_OF_GROUP: &str = concat!(
    "delete from samples where (series, at) in
     (select series, at from samples where series in ",
    group!(),
    " and at < $3 limit $4)"
);
const EMPTY_OF_GROUP: &str = concat!(
    "delete from series where id in ",
    group!(),
    " and not exists (select 1 from samples where samples.series = series.id)"
);

/// Removes samples from before `before`, of series with numbers above `after`.
///
/// # Errors
/// Fails when the history database refuses the write.
pub async fn step(conn: &mut SqliteConnection, after: i64, before: Wall) -> sqlx::Result<Step> {
    let last: Option<i64> = sqlx::query_scalar(LAST).bind(after).bind(SERIES).fetch_one(&mut *conn).await?;
    let Some(last) = last else { return Ok(Step { next: None, samples: 0, series: 0 }) };
    let gone = sqlx::query(SAMPLES_OF_GROUP).bind(after).bind(SERIES).bind(before.as_millis());
    let samples = gone.bind(SAMPLES).execute(&mut *conn).await?.rows_affected();
    if samples >= u64::from(SAMPLES) {
        return Ok(Step { next: Some(after), samples, series: 0 });
    }
    let empty = sqlx::query(EMPTY_OF_GROUP).bind(after).bind(SERIES).execute(conn).await?;
    Ok(Step { next: Some(last), samples, series: empty.rows_affected() })
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::Sample;
    use fleetgate_probes::sample::Metric;

    use super::*;
    use crate::store::history::{self, SeriesCache};
    use crate::store::{Store, fixture};

    async fn put(store: &Store, host: i64, times: impl Iterator<Item = i64>) {
        let sample = |at| Sample {
            host: Id::from_i64(host),
            service: "ping".into(),
            at: Wall::from_millis(at),
            metrics: vec![Metric::plain("rtt", 1.0, "ms")],
        };
        let samples: Vec<Sample> = times.map(sample).collect();
        let mut tx = store.history.write().begin().await.unwrap();
        history::write(&mut tx, &mut SeriesCache::default(), &samples).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Returns the numbers of removed samples and series, and of steps.
    async fn pass(store: &Store, before: i64) -> (u64, u64, usize) {
        let (mut after, mut samples, mut series, mut steps) = (Some(0), 0, 0, 0);
        while let Some(from) = after {
            let mut tx = store.history.write().begin().await.unwrap();
            let step = step(&mut tx, from, Wall::from_millis(before)).await.unwrap();
            tx.commit().await.unwrap();
            assert!(step.samples <= u64::from(SAMPLES));
            (after, samples, series, steps) =
                (step.next, samples + step.samples, series + step.series, steps + 1);
        }
        (samples, series, steps)
    }

    #[tokio::test]
    async fn old_samples_are_removed_and_others_kept() {
        let (store, _dir) = fixture::store().await;
        put(&store, 1, [10, 99, 100, 200].into_iter()).await;
        put(&store, 2, [5, 6].into_iter()).await;
        assert_eq!(pass(&store, 100).await, (4, 1, 2));
        assert!(store.series(Id::from_i64(2), None).await.unwrap().is_empty(), "a host that is no more");
        let series = store.series(Id::from_i64(1), None).await.unwrap();
        let span = (Wall::from_millis(0), Wall::from_millis(1_000));
        let left = store.samples(series[0].id, span.0, span.1, 9).await.unwrap();
        assert_eq!(left.iter().map(|(at, _)| at.as_millis()).collect::<Vec<_>>(), [100, 200]);
        assert_eq!(pass(&store, 100).await, (0, 0, 2));
    }

    #[tokio::test]
    async fn a_large_backlog_is_removed_in_small_steps() {
        let (store, _dir) = fixture::store().await;
        put(&store, 1, 0..12_000).await;
        assert_eq!(pass(&store, 12_000).await, (12_000, 1, 4));
    }
}

//! Samples: the metrics of every result with their time, in a database of their own.
//!
//! A sample belongs to a series (host, service, label). Gaps stay gaps (NULL). The main database
//! never depends on the history.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::Sample;
use fleetgate_probes::sample::Metric;
use sqlx::sqlite::SqliteConnection;

use super::Store;
use super::rows::{Batched, NARROW};

/// Series of one service. The series of a plugin with more metrics are cut off here, so that a
/// plugin with ever new labels cannot fill the disk.
const MAX_SERIES: i64 = 64;
/// Cached series numbers: 10,000 hosts with a dozen metrics each, at about 100 bytes. A larger
/// cache is cleared and filled again.
const MAX_CACHED: usize = 131_072;

/// Cached series numbers.
#[derive(Default)]
pub struct SeriesCache {
    hosts: HashMap<HostId, Vec<Known>>,
    count: usize,
}

struct Known {
    service: Box<str>,
    label: Box<str>,
    uom: Box<str>,
    /// `None` if the service has too many series.
    series: Option<i64>,
}

impl SeriesCache {
    fn find(&self, sample: &Sample, metric: &Metric) -> Option<Option<i64>> {
        let known =
            self.hosts.get(&sample.host)?.iter().find(|k| {
                *k.label == *metric.label && *k.service == *sample.service && *k.uom == *metric.uom
            });
        known.map(|k| k.series)
    }

    fn remember(&mut self, sample: &Sample, metric: &Metric, series: Option<i64>) {
        if self.count >= MAX_CACHED {
            *self = SeriesCache::default();
        }
        let of_host = self.hosts.entry(sample.host).or_default();
        let before = of_host.len();
        of_host.retain(|k| *k.label != *metric.label || *k.service != *sample.service);
        of_host.push(Known {
            service: sample.service.as_str().into(),
            label: metric.label.as_str().into(),
            uom: metric.uom.as_str().into(),
            series,
        });
        self.count += of_host.len() - before;
    }

    /// Clears the cache. Series that a failed transaction created do not exist.
    pub fn clear(&mut self) {
        *self = SeriesCache::default();
    }
}

static INSERT: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 3, |values| {
        format!(
            "insert into samples (series, at, value) values {values}
             on conflict (series, at) do update set value = excluded.value"
        )
    })
});

/// Writes samples. Returns the number of values beyond `MAX_SERIES`.
///
/// # Errors
/// Fails when the database refuses the write. The cache must then be cleared.
pub async fn write(
    conn: &mut SqliteConnection,
    cache: &mut SeriesCache,
    samples: &[Sample],
) -> sqlx::Result<u64> {
    let mut rows: Vec<(i64, i64, Option<f64>)> = Vec::with_capacity(samples.len() * 2);
    let mut refused = 0;
    for sample in samples {
        for metric in &sample.metrics {
            match series_of(conn, cache, sample, metric).await? {
                Some(series) => rows.push((series, sample.at.as_millis(), metric.value)),
                None => refused += 1,
            }
        }
    }
    // Table order, because neighbours share a page. If times are equal, the last value counts.
    rows.sort_by_key(|&(series, at, _)| (series, at));
    INSERT
        .run(conn, &rows, |&(series, at, value), arguments| {
            arguments.add(series).add(at).add(value);
        })
        .await?;
    Ok(refused)
}

async fn series_of(
    conn: &mut SqliteConnection,
    cache: &mut SeriesCache,
    sample: &Sample,
    metric: &Metric,
) -> sqlx::Result<Option<i64>> {
    if let Some(known) = cache.find(sample, metric) {
        return Ok(known);
    }
    let series = find_or_make(conn, sample, metric).await?;
    cache.remember(sample, metric, series);
    Ok(series)
}

/// Finds or creates a series. Its unit is that of the newest sample.
async fn find_or_make(
    conn: &mut SqliteConnection,
    sample: &Sample,
    metric: &Metric,
) -> sqlx::Result<Option<i64>> {
    let (host, service, label) = (sample.host.as_i64(), &sample.service, &metric.label);
    let update = "update series set uom = $4 where host = $1 and service = $2 and label = $3 returning id";
    let found: Option<i64> = sqlx::query_scalar(update)
        .bind(host)
        .bind(service)
        .bind(label)
        .bind(&metric.uom)
        .fetch_optional(&mut *conn)
        .await?;
    if found.is_some() {
        return Ok(found);
    }
    sqlx::query_scalar(
        "insert into series (host, service, label, uom) select $1, $2, $3, $4
         where (select count(*) from series where host = $1 and service = $2) < $5 returning id",
    )
    .bind(host)
    .bind(service)
    .bind(label)
    .bind(&metric.uom)
    .bind(MAX_SERIES)
    .fetch_optional(conn)
    .await
}

/// A series that clients can query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub id: i64,
    pub service: String,
    pub label: String,
    pub uom: String,
}

/// Aggregated samples of one time bucket. Samples without a value are not counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub at: Wall,
    pub min: f64,
    pub avg: f64,
    pub max: f64,
    pub count: i64,
}

/// Number of the bucket, minimum, average, maximum and count.
type BucketRow = (i64, f64, Option<f64>, f64, i64);

impl Store {
    /// Returns the series of a host, or of one of its services. An empty name is the host check.
    ///
    /// # Errors
    /// Fails when the history database cannot be read.
    pub async fn series(&self, host: HostId, service: Option<&str>) -> sqlx::Result<Vec<Series>> {
        let rows: sqlx::Result<Vec<(i64, String, String, String)>> = sqlx::query_as(
            "select id, service, label, uom from series
             where host = $1 and ($2 is null or service = $2) order by service, label",
        )
        .bind(host.as_i64())
        .bind(service)
        .fetch_all(&self.history.read())
        .await;
        let row = |(id, service, label, uom)| Series { id, service, label, uom };
        Ok(self.history.judge(rows)?.into_iter().map(row).collect())
    }

    /// Returns the newest `limit` samples of `[from, to)`, oldest first.
    ///
    /// # Errors
    /// Fails when the history database cannot be read.
    pub async fn samples(
        &self,
        series: i64,
        from: Wall,
        to: Wall,
        limit: i64,
    ) -> sqlx::Result<Vec<(Wall, Option<f64>)>> {
        let rows: sqlx::Result<Vec<(i64, Option<f64>)>> = sqlx::query_as(
            "select at, value from samples where series = $1 and at >= $2 and at < $3
             order by at desc limit $4",
        )
        .bind(series)
        .bind(from.as_millis())
        .bind(to.as_millis())
        .bind(limit)
        .fetch_all(&self.history.read())
        .await;
        let mut rows = self.history.judge(rows)?;
        rows.reverse();
        Ok(rows.into_iter().map(|(at, value)| (Wall::from_millis(at), value)).collect())
    }

    /// Aggregates the samples of `[from, to)` into buckets of `width`, oldest first. Buckets start
    /// at multiples of `width` since 1970. A bucket without a value is absent.
    ///
    /// SQLite sorts in its own cache and spills to a file. The gateway holds one row per bucket.
    ///
    /// # Errors
    /// Fails when the history database cannot be read.
    pub async fn buckets(
        &self,
        series: i64,
        from: Wall,
        to: Wall,
        width: Duration,
    ) -> sqlx::Result<Vec<Bucket>> {
        let width = i64::try_from(width.as_millis()).unwrap_or(i64::MAX).max(1);
        let rows: sqlx::Result<Vec<BucketRow>> = sqlx::query_as(
            "select at / $4, min(value), sum(value) / count(value), max(value), count(value) from samples
             where series = $1 and at >= $2 and at < $3 and value is not null
             group by at / $4 order by at / $4",
        )
        .bind(series)
        .bind(from.as_millis())
        .bind(to.as_millis())
        .bind(width)
        .fetch_all(&self.history.read())
        .await;
        let row = |(n, min, avg, max, count): BucketRow| {
            // A sum beyond the range of a double has no average.
            let avg = avg.unwrap_or(min).clamp(min, max);
            Bucket { at: Wall::from_millis(n.saturating_mul(width)), min, avg, max, count }
        };
        Ok(self.history.judge(rows)?.into_iter().map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;
    use crate::store::fixture;

    fn sample(at: i64, metrics: Vec<Metric>) -> Sample {
        Sample { host: Id::from_i64(7), service: "ping".into(), at: Wall::from_millis(at), metrics }
    }

    async fn put(store: &Store, cache: &mut SeriesCache, samples: &[Sample]) -> u64 {
        let mut tx = store.history.write().begin().await.unwrap();
        let refused = write(&mut tx, cache, samples).await.unwrap();
        tx.commit().await.unwrap();
        refused
    }

    #[tokio::test]
    async fn samples_come_back_in_order_and_gaps_stay_gaps() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let gap = Metric { value: None, ..Metric::plain("rtt", 0.0, "ms") };
        let many: Vec<Sample> = (0..200)
            .map(|n| sample(n, vec![Metric::plain("rtt", n as f64, "ms"), Metric::plain("loss", 0.0, "%")]))
            .collect();
        put(&store, &mut cache, &many).await;
        put(&store, &mut cache, &[sample(200, vec![gap])]).await;

        let series = store.series(Id::from_i64(7), Some("ping")).await.unwrap();
        assert_eq!(series.iter().map(|s| s.label.as_str()).collect::<Vec<_>>(), ["loss", "rtt"]);
        let all = (Wall::from_millis(0), Wall::from_millis(1_000));
        let last = store.samples(series[1].id, all.0, all.1, 3).await.unwrap();
        let expected = [(198, Some(198.0)), (199, Some(199.0)), (200, None)];
        assert_eq!(last, expected.map(|(at, value)| (Wall::from_millis(at), value)));
        assert_eq!(store.samples(series[1].id, all.0, all.1, 999).await.unwrap().len(), 201);
    }

    #[tokio::test]
    async fn of_results_of_one_time_the_last_counts_as_it_does_for_the_state() {
        let (store, _dir) = fixture::store().await;
        let many: Vec<Sample> =
            (0..200).map(|n| sample(60_000 + n % 2, vec![Metric::plain("rtt", n as f64, "ms")])).collect();
        put(&store, &mut SeriesCache::default(), &many).await;
        let found: Vec<f64> = buckets(&store, 0, 120_000, 60).await.iter().map(|b| b.1).collect();
        assert_eq!(found, [198.0]);
    }

    #[tokio::test]
    async fn the_unit_is_what_the_newest_sample_says_also_where_it_comes_back() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        for (at, uom) in [(1, "ms"), (2, "s"), (3, "ms")] {
            put(&store, &mut cache, &[sample(at, vec![Metric::plain("time", 1.0, uom)])]).await;
            let series = store.series(Id::from_i64(7), None).await.unwrap();
            assert_eq!((series.len(), series[0].uom.as_str()), (1, uom));
        }
        assert_eq!(cache.count, 1);
    }

    async fn buckets(store: &Store, from: i64, to: i64, secs: u64) -> Vec<(i64, f64, f64, f64, i64)> {
        let series = store.series(Id::from_i64(7), Some("ping")).await.unwrap()[0].id;
        let (from, to) = (Wall::from_millis(from), Wall::from_millis(to));
        let found = store.buckets(series, from, to, Duration::from_secs(secs)).await.unwrap();
        found.into_iter().map(|b| (b.at.as_millis(), b.min, b.avg, b.max, b.count)).collect()
    }

    #[tokio::test]
    async fn a_bucket_is_what_its_samples_say_and_a_gap_is_none() {
        let (store, _dir) = fixture::store().await;
        let value = |at: i64, value: Option<f64>| {
            sample(at, vec![Metric { value, ..Metric::plain("rtt", 0.0, "ms") }])
        };
        let samples = [
            value(60_000, Some(1.0)),
            value(70_000, Some(9.0)),
            value(80_000, Some(2.0)),
            value(90_000, None),
            value(120_000, None),
            value(180_000, Some(-5.0)),
            value(239_999, Some(5.0)),
            value(240_000, Some(7.0)),
        ];
        put(&store, &mut SeriesCache::default(), &samples).await;
        let all = [(60_000, 1.0, 4.0, 9.0, 3), (180_000, -5.0, 0.0, 5.0, 2), (240_000, 7.0, 7.0, 7.0, 1)];
        assert_eq!(buckets(&store, 0, 1_000_000, 60).await, all);
        assert_eq!(buckets(&store, 70_000, 240_000, 60).await[0], (60_000, 2.0, 5.5, 9.0, 2));
        let hour = [(0, -5.0, 19.0 / 6.0, 9.0, 6)];
        assert_eq!(buckets(&store, 0, 1_000_000, 3_600).await, hour, "not the mean of means");
        let huge = [value(300_000, Some(f64::MAX)), value(301_000, Some(f64::MAX))];
        put(&store, &mut SeriesCache::default(), &huge).await;
        assert!(buckets(&store, 300_000, 400_000, 60).await[0].2.is_finite());
    }

    #[tokio::test]
    async fn a_changed_unit_replaces_the_old_one() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        put(&store, &mut cache, &[sample(1, vec![Metric::plain("rtt", 1.0, "s")])]).await;
        put(&store, &mut cache, &[sample(2, vec![Metric::plain("rtt", 1.0, "ms")])]).await;
        let series = store.series(Id::from_i64(7), None).await.unwrap();
        assert_eq!((series.len(), series[0].uom.as_str()), (1, "ms"));
    }

    #[tokio::test]
    async fn a_plugin_that_invents_labels_is_cut() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let metrics = (0..100).map(|n| Metric::plain(&format!("label{n}"), 1.0, "")).collect();
        assert_eq!(put(&store, &mut cache, &[sample(1, metrics)]).await, 36);
        assert_eq!(store.series(Id::from_i64(7), None).await.unwrap().len(), 64);
    }
}

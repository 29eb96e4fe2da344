//! The series of the history: their names and numbers, in the main database.
//!
//! A series is a metric of a host or of one of its services, in one unit. The blocks and the redo know
//! only its number, which is never reused. A host's new metric gets its number in the transaction of the
//! state.
//!
//! A metric whose unit changes goes on in another series, so that no line has values of two units. The
//! series of the earlier unit gets a label that names it, and its own one again if the unit comes back.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use fleetgate_engine::history::{DAY, HOUR, Kind, Point, Second};
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::Sample;
use fleetgate_engine::time::Wall;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::super::Store;
use super::super::rows::{Batched, NARROW};
use super::blocks::MAX_HOUR;

/// Series of one service that have recent samples. The others of a plugin are cut off, so that a
/// plugin with ever new labels cannot fill the disk.
const MAX_ACTIVE: i64 = 64;
/// The same where only a unit has changed: each of the others may have changed its own.
const MAX_ACTIVE_CHANGED: i64 = 2 * MAX_ACTIVE;
/// Series of one service, at any time.
const MAX_SERIES: i64 = 4_096;
/// Cached series: 20,000 hosts with a dozen metrics each, at about 100 bytes. A larger cache is
/// cleared and filled again.
const MAX_CACHED: usize = 262_144;
/// How much older than the last sample the stored time of it may be: it is written when a day is rolled up, which waits
/// while the disk is full.
const LATE: Second = 30 * DAY;
/// Series that one step of [`remove_gone`] checks.
const CHECKED: i64 = 1_000;

/// Cached numbers of series.
#[derive(Default)]
pub struct SeriesCache {
    hosts: HashMap<HostId, Vec<CachedSeries>>,
    count: usize,
    /// The counters among all series, also of those that are not cached.
    counters: HashSet<u32>,
    /// Services that take no new series on this day. A label that is refused is not cached: a plugin with ever new
    /// ones would fill the cache, and each of its samples would be compared with all of them.
    full: HashSet<(HostId, Box<str>)>,
    /// The same for metrics whose unit changed, of which a service may have more.
    full_changed: HashSet<(HostId, Box<str>)>,
    full_on: Second,
}

struct CachedSeries {
    service: Box<str>,
    label: Box<str>,
    uom: Box<str>,
    series: u32,
}

/// What identifies a series, and its unit.
#[derive(Clone, Copy)]
struct Name<'a> {
    host: HostId,
    service: &'a str,
    label: &'a str,
    uom: &'a str,
    /// A sample without a value fits any unit: plugins print `U` without one.
    is_gap: bool,
}

impl CachedSeries {
    fn is_of(&self, name: Name<'_>) -> bool {
        *self.label == *name.label && *self.service == *name.service
    }
}

impl SeriesCache {
    /// Clears the names. Series that a failed transaction created do not exist.
    pub fn clear(&mut self) {
        self.hosts.clear();
        self.full.clear();
        self.full_changed.clear();
        self.count = 0;
    }

    /// What the values of a series are.
    pub fn kind(&self, series: u32) -> Kind {
        if self.counters.contains(&series) { Kind::Counter } else { Kind::Gauge }
    }

    fn find(&self, name: Name<'_>) -> Option<u32> {
        let mut of_host = self.hosts.get(&name.host)?.iter();
        let fits = |known: &&CachedSeries| known.is_of(name) && (name.is_gap || *known.uom == *name.uom);
        of_host.find(fits).map(|known| known.series)
    }

    /// Forgets the series of a host, because some have other labels now.
    fn forget(&mut self, host: HostId) {
        self.count -= self.hosts.remove(&host).map_or(0, |of_host| of_host.len());
    }

    fn remember(&mut self, name: Name<'_>, series: u32) {
        if self.count >= MAX_CACHED {
            self.clear();
        }
        self.note_kind(name, series);
        let of_host = self.hosts.entry(name.host).or_default();
        let before = of_host.len();
        of_host.retain(|known| !known.is_of(name));
        of_host.push(CachedSeries {
            service: name.service.into(),
            label: name.label.into(),
            uom: name.uom.into(),
            series,
        });
        self.count = self.count + of_host.len() - before;
    }

    fn note_kind(&mut self, name: Name<'_>, series: u32) {
        match Kind::of(name.uom) {
            Kind::Counter => _ = self.counters.insert(series),
            Kind::Gauge => _ = self.counters.remove(&series),
        }
    }

    /// Forgets the refusals of an earlier day.
    fn retry_refused(&mut self, day: Second) {
        if self.full_on != day {
            self.full.clear();
            self.full_changed.clear();
            self.full_on = day;
        }
    }
}

/// Reads all series into the cache.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn load(conn: &mut SqliteConnection, cache: &mut SeriesCache) -> sqlx::Result<()> {
    let sql = "select id, host, service, label, uom from series";
    let mut rows = sqlx::query_as::<_, Row>(sql).fetch(conn);
    while let Some(row) = rows.try_next().await? {
        let series = Series::from_row(row)?;
        let Series { host, service, label, uom, .. } = &series;
        let name = Name { host: *host, service, label, uom, is_gap: false };
        if cache.count < MAX_CACHED {
            cache.remember(name, series.id);
        } else {
            cache.note_kind(name, series.id);
        }
    }
    Ok(())
}

/// Samples with the numbers of their series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Numbered {
    /// In the order of the results, and of their metrics.
    pub samples: Vec<(u32, Point)>,
    /// Values of series beyond the limits.
    pub refused: u64,
    /// Values of a time that is not stored any more.
    pub too_old: u64,
}

/// Returns the number of the series of each value, and makes new series. `active_since`: samples of
/// earlier days are removed, and are left out here, because the roll-up of such a day would lack
/// those that are removed already.
///
/// # Errors
/// Fails when the database refuses a write. The cache must be cleared then, and also when the
/// transaction fails later.
pub async fn number(
    conn: &mut SqliteConnection,
    cache: &mut SeriesCache,
    samples: &[Sample],
    active_since: Wall,
) -> sqlx::Result<Numbered> {
    let active_since = second(active_since);
    cache.retry_refused(active_since.div_euclid(DAY));
    let mut numbered = Numbered::default();
    for sample in samples {
        let at = second(sample.at);
        if !is_storable(at, active_since) {
            numbered.too_old += sample.metrics.len() as u64;
            continue;
        }
        for metric in &sample.metrics {
            let (service, label, uom) = (&sample.service, &metric.label, &metric.uom);
            let value = metric.value.filter(|value| value.is_finite());
            let name = Name { host: sample.host, service, label, uom, is_gap: value.is_none() };
            match series_of(conn, cache, name, at, active_since).await? {
                Some(series) => numbered.samples.push((series, Point { at, value })),
                // The unit of a value that never was is not known.
                None if name.is_gap && uom.is_empty() => {}
                None => numbered.refused += 1,
            }
        }
    }
    Ok(numbered)
}

fn second(at: Wall) -> Second {
    at.as_millis().div_euclid(1_000)
}

/// Whether the time is recent, and fits the key of a block.
fn is_storable(at: Second, active_since: Second) -> bool {
    at >= 0 && at / HOUR <= i64::from(MAX_HOUR) && at.div_euclid(DAY) >= active_since.div_euclid(DAY)
}

async fn series_of(
    conn: &mut SqliteConnection,
    cache: &mut SeriesCache,
    name: Name<'_>,
    at: Second,
    active_since: Second,
) -> sqlx::Result<Option<u32>> {
    if let Some(known) = cache.find(name) {
        return Ok(Some(known));
    }
    let service = || (name.host, Box::<str>::from(name.service));
    let series = match found(conn, name, name.label).await? {
        Some((id, uom)) if name.is_gap || uom == name.uom => {
            let series = number_of(id)?;
            cache.remember(Name { uom: &uom, ..name }, series);
            return Ok(Some(series));
        }
        Some(other) => {
            let most = if cache.full_changed.contains(&service()) { 0 } else { MAX_ACTIVE_CHANGED };
            let series = changed(conn, name, other, (at, active_since), most).await?;
            let Some(series) = series else {
                cache.full_changed.insert(service());
                return Ok(None);
            };
            cache.forget(name.host);
            Some(series)
        }
        None if cache.full.contains(&service()) => None,
        None if name.is_gap && name.uom.is_empty() => return Ok(None),
        None => made(conn, name, (at, active_since), MAX_ACTIVE).await?,
    };
    match series {
        Some(series) => cache.remember(name, series),
        None => _ = cache.full.insert(service()),
    }
    Ok(series)
}

/// Returns the number and the unit of the series with this label.
async fn found(
    conn: &mut SqliteConnection,
    name: Name<'_>,
    label: &str,
) -> sqlx::Result<Option<(i64, String)>> {
    let sql = "select id, uom from series where host = $1 and service = $2 and label = $3";
    let found = sqlx::query_as(sql).bind(name.host.as_i64()).bind(name.service).bind(label);
    found.fetch_optional(conn).await
}

impl Series {
    /// The label under which its values were measured. That the unit has changed later says nothing of them.
    pub fn measured_label(&self) -> &str {
        let numbered = self.label.strip_suffix(&format!(" ({})", self.id)).unwrap_or(&self.label);
        let measured = numbered.strip_suffix(&former("", &self.uom));
        measured.filter(|label| !label.is_empty()).unwrap_or(&self.label)
    }
}

/// The label of a series whose metric has another unit now.
pub(super) fn former(label: &str, uom: &str) -> String {
    if uom.is_empty() {
        format!("{label}, formerly without unit")
    } else {
        format!("{label}, formerly in {uom}")
    }
}

/// Gives the label to the series of the new unit, which it finds or makes. `None`: it would be one too many, and all
/// stays as it is.
async fn changed(
    conn: &mut SqliteConnection,
    name: Name<'_>,
    (old, old_uom): (i64, String),
    times: (Second, Second),
    most: i64,
) -> sqlx::Result<Option<u32>> {
    let earlier = found(conn, name, &former(name.label, name.uom)).await?;
    let earlier = earlier.filter(|(_, uom)| uom == name.uom);
    if earlier.is_none() && most == 0 {
        return Ok(None);
    }
    // A plugin may have these very labels too. A label that is there twice would fail the commit of all results.
    let mut aside = former(name.label, &old_uom);
    if found(conn, name, &aside).await?.is_some() {
        aside = format!("{aside} ({old})");
        if found(conn, name, &aside).await?.is_some() {
            return Ok(None);
        }
    }
    relabel(conn, old, &aside).await?;
    if let Some((id, _)) = earlier {
        relabel(conn, id, name.label).await?;
        return number_of(id).map(Some);
    }
    let made = made(conn, name, times, most).await?;
    if made.is_none() {
        relabel(conn, old, name.label).await?;
    }
    Ok(made)
}

async fn relabel(conn: &mut SqliteConnection, id: i64, label: &str) -> sqlx::Result<()> {
    let update = sqlx::query("update series set label = $2 where id = $1").bind(id).bind(label);
    update.execute(conn).await.map(drop)
}

async fn made(
    conn: &mut SqliteConnection,
    name: Name<'_>,
    (at, active_since): (Second, Second),
    most: i64,
) -> sqlx::Result<Option<u32>> {
    let sql = "insert into series (host, service, label, uom, last_at) select $1, $2, $3, $4, $5
               where (select count(*) from series where host = $1 and service = $2 and last_at >= $6) < $7
                 and (select count(*) from series where host = $1 and service = $2) < $8
               returning id";
    let id: Option<i64> = sqlx::query_scalar(sql)
        .bind(name.host.as_i64())
        .bind(name.service)
        .bind(name.label)
        .bind(name.uom)
        .bind(at)
        .bind(active_since)
        .bind(most)
        .bind(MAX_SERIES)
        .fetch_optional(conn)
        .await?;
    id.map(number_of).transpose()
}

/// The key of a block has 31 bits for it.
fn number_of(id: i64) -> sqlx::Result<u32> {
    let number = u32::try_from(id).ok().filter(|number| *number <= u32::MAX >> 1);
    number.ok_or_else(|| sqlx::Error::Decode(format!("{id} is no number of a series").into()))
}

/// A series that clients can query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    pub id: u32,
    pub host: HostId,
    /// Empty for the host check.
    pub service: String,
    pub label: String,
    pub uom: String,
}

/// Number, host, service, label and unit.
type Row = (i64, i64, String, String, String);

impl Series {
    fn from_row((id, host, service, label, uom): Row) -> sqlx::Result<Series> {
        Ok(Series { id: number_of(id)?, host: Id::from_i64(host), service, label, uom })
    }
}

impl Store {
    /// Returns the series of a host, or of one of its services. An empty name is the host check.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn series(&self, host: HostId, service: Option<&str>) -> sqlx::Result<Vec<Series>> {
        let sql = "select id, host, service, label, uom from series
                   where host = $1 and ($2 is null or service = $2) order by service, label";
        let rows: Vec<Row> =
            sqlx::query_as(sql).bind(host.as_i64()).bind(service).fetch_all(&self.read).await?;
        rows.into_iter().map(Series::from_row).collect()
    }

    /// Returns series of a host, without those of one service, that may have samples since a time: the first `limit`.
    /// Those that surely have come first, and older ones before those that were added later.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn series_since(
        &self,
        (host, without): (HostId, &str),
        since: Wall,
        limit: i64,
    ) -> sqlx::Result<Vec<Series>> {
        let sql = "select id, host, service, label, uom from series
                   where host = $1 and service <> $2 and last_at >= $3 order by last_at < $5, id limit $4";
        let rows = sqlx::query_as(sql).bind(host.as_i64()).bind(without);
        let rows = rows.bind(second(since).saturating_sub(LATE)).bind(limit).bind(second(since));
        let rows: Vec<Row> = rows.fetch_all(&self.read).await?;
        rows.into_iter().map(Series::from_row).collect()
    }

    /// Returns one metric of many hosts, in the order of their ids. A host that lacks it is left out.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn series_of(&self, hosts: &[HostId], service: &str, label: &str) -> sqlx::Result<Vec<Series>> {
        let hosts: Vec<i64> = hosts.iter().map(|host| host.as_i64()).collect();
        let sql = "select id, host, service, label, uom from series
                   where host in (select value from json_each($1)) and service = $2 and label = $3
                   order by host";
        let rows = sqlx::query_as(sql).bind(Json(hosts)).bind(service).bind(label);
        let rows: Vec<Row> = rows.fetch_all(&self.read).await?;
        rows.into_iter().map(Series::from_row).collect()
    }
}

static SEEN: LazyLock<Batched> = LazyLock::new(|| {
    Batched::new(NARROW, 2, |values| {
        format!(
            "with v (id, at) as (values {values}) update series set last_at = v.at from v
             where series.id = v.id and v.at > series.last_at"
        )
    })
});

/// Stores the time of the last sample of series. An earlier one changes nothing.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn seen(conn: &mut SqliteConnection, last: &[(u32, Second)]) -> sqlx::Result<()> {
    SEEN.run(conn, last, |&(series, at), arguments| {
        arguments.add(i64::from(series)).add(at);
    })
    .await
}

/// The result of one step of [`remove_gone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The series after which the next step begins. `None` after all.
    pub next: Option<u32>,
    /// If it is not 0, the cache of series must be cleared.
    pub removed: u64,
}

/// Removes series with numbers above `after` whose host is removed and whose last sample is from
/// before `before`: the caller keeps no tier that long.
///
/// # Errors
/// Fails when the database refuses the write.
pub async fn remove_gone(conn: &mut SqliteConnection, after: u32, before: Second) -> sqlx::Result<Gone> {
    let last = "select max(id), count(*) from (select id from series where id > $1 order by id limit $2)";
    let last = sqlx::query_as(last).bind(i64::from(after)).bind(CHECKED);
    let (last, count): (Option<i64>, i64) = last.fetch_one(&mut *conn).await?;
    let Some(last) = last else { return Ok(Gone { next: None, removed: 0 }) };
    let sql = "delete from series where id > $1 and id <= $2 and last_at < $3
               and not exists (select 1 from hosts h where h.id = series.host and h.removed_at is null)";
    let gone = sqlx::query(sql).bind(i64::from(after)).bind(last).bind(before).execute(conn).await?;
    let next = if count < CHECKED { None } else { Some(number_of(last)?) };
    Ok(Gone { next, removed: gone.rows_affected() })
}

/// The number of a series of an older history. `None`: the series of that name has another unit.
pub(super) async fn adopted(
    conn: &mut SqliteConnection,
    (host, service, label, uom): (i64, &str, &str, &str),
    last_at: Second,
) -> sqlx::Result<Option<u32>> {
    let sql = "insert into series (host, service, label, uom, last_at) values ($1, $2, $3, $4, $5)
               on conflict (host, service, label) do update set last_at = max(last_at, excluded.last_at)
                   where series.uom = excluded.uom
               returning id";
    let id = sqlx::query_scalar(sql).bind(host).bind(service).bind(label).bind(uom).bind(last_at);
    id.fetch_optional(conn).await?.map(number_of).transpose()
}

#[cfg(test)]
mod tests {
    use fleetgate_probes::sample::Metric;

    use super::*;
    use crate::store::fixture;

    const HOST: HostId = Id::from_i64(7);
    const START: Second = 20_000 * DAY;

    fn sample(at: Second, metrics: Vec<Metric>) -> Sample {
        Sample { host: HOST, service: "ping".into(), at: Wall::from_millis(at * 1_000 + 999), metrics }
    }

    fn plain(label: &str, uom: &str) -> Metric {
        Metric::plain(label, 1.5, uom)
    }

    fn labels(from: usize, count: usize) -> Vec<Metric> {
        (from..from + count).map(|n| plain(&format!("label{n}"), "")).collect()
    }

    fn since(at: Second) -> Wall {
        Wall::from_millis(at * 1_000)
    }

    async fn put(store: &Store, cache: &mut SeriesCache, samples: &[Sample], active: Second) -> Numbered {
        let mut tx = store.begin().await.unwrap();
        let numbered = number(&mut tx, cache, samples, since(active)).await.unwrap();
        tx.commit().await.unwrap();
        numbered
    }

    #[tokio::test]
    async fn values_get_the_number_of_their_series_and_whole_seconds() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let gap = Metric::gap("rtt", "ms");
        let samples =
            [sample(START, vec![plain("rtt", "ms"), plain("loss", "%")]), sample(START + 60, vec![gap])];
        let numbered = put(&store, &mut cache, &samples, 0).await;
        let series = store.series(HOST, Some("ping")).await.unwrap();
        let named: Vec<(&str, u32)> = series.iter().map(|s| (s.label.as_str(), s.id)).collect();
        assert_eq!(named, [("loss", 2), ("rtt", 1)]);
        let point = |at, value| Point { at, value };
        let wanted =
            [(1, point(START, Some(1.5))), (2, point(START, Some(1.5))), (1, point(START + 60, None))];
        assert_eq!((numbered.samples, numbered.refused, numbered.too_old), (wanted.to_vec(), 0, 0));
        assert_eq!(put(&store, &mut SeriesCache::default(), &samples, 0).await.samples, wanted);
        assert!(store.series(HOST, Some("")).await.unwrap().is_empty());
        let (here, elsewhere) = (HOST, Id::from_i64(8));
        let of = store.series_of(&[here, elsewhere], "ping", "rtt").await.unwrap();
        assert_eq!(of.iter().map(|s| (s.host, s.id)).collect::<Vec<_>>(), [(HOST, 1)]);
    }

    #[tokio::test]
    async fn values_of_two_units_are_in_two_series_and_the_label_is_that_of_the_present_one() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let (in_ms, in_c) = ("time, formerly in ms", "time, formerly in c");
        for (at, uom, number, former) in [
            (1, "ms", 1, None),
            (2, "c", 2, Some((in_ms, "ms", 1))),
            (3, "ms", 1, Some((in_c, "c", 2))),
            (4, "c", 2, Some((in_ms, "ms", 1))),
            (5, "", 3, Some((in_c, "c", 2))),
        ] {
            let numbered = put(&store, &mut cache, &[sample(START + at, vec![plain("time", uom)])], 0).await;
            assert_eq!(numbered.samples[0].0, number, "{at}");
            let all = store.series(HOST, None).await.unwrap();
            let found: Vec<_> = all.iter().map(|s| (s.label.as_str(), s.uom.as_str(), s.id)).collect();
            assert_eq!(found[0], ("time", uom, number), "{at}");
            assert_eq!(found.get(1).copied(), former, "{at}");
            assert_eq!(cache.kind(number), Kind::of(uom), "{at}");
            let of = store.series_of(&[HOST], "ping", "time").await.unwrap();
            assert_eq!(
                of.iter().map(|s| s.id).collect::<Vec<_>>(),
                [number],
                "a query has one of them: {at}"
            );
        }
        let all = store.series(HOST, None).await.unwrap();
        assert_eq!((all.len(), all[2].label.as_str(), cache.count), (3, in_ms, 1));
        let again =
            put(&store, &mut SeriesCache::default(), &[sample(START, vec![plain("time", "ms")])], 0).await;
        assert_eq!(again.samples[0].0, 1);
        let labels: Vec<String> =
            store.series(HOST, None).await.unwrap().into_iter().map(|s| s.label).collect();
        assert_eq!(labels, ["time", in_c, "time, formerly without unit"]);
    }

    #[tokio::test]
    async fn a_gap_has_no_unit_of_its_own() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let at = |n: Second, metric| sample(START + n, vec![metric]);
        let unknown = put(&store, &mut cache, &[at(0, Metric::gap("rtt", ""))], 0).await;
        assert_eq!((unknown.samples.len(), unknown.refused), (0, 0), "its unit is not known");
        let samples = [at(1, plain("rtt", "ms")), at(2, Metric::gap("rtt", "")), at(3, plain("rtt", "ms"))];
        for cache in [&mut cache, &mut SeriesCache::default()] {
            let numbered = put(&store, cache, &samples, 0).await;
            assert_eq!(numbered.samples.iter().map(|(series, _)| *series).collect::<Vec<_>>(), [1, 1, 1]);
        }
        put(&store, &mut SeriesCache::default(), &samples[1..2], 0).await;
        let series = store.series(HOST, None).await.unwrap();
        assert_eq!((series.len(), series[0].uom.as_str()), (1, "ms"));
    }

    #[tokio::test]
    async fn all_metrics_of_a_service_may_change_their_unit_and_none_for_ever() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let of = |uom: &str| sample(START, (0..64).map(|n| plain(&format!("label{n}"), uom)).collect());
        let mut refused = Vec::new();
        for uom in ["KB", "MB", "GB", "MB"] {
            refused.push(put(&store, &mut cache, &[of(uom)], START - DAY).await.refused);
            // A service is asked again on another day.
            cache.full.clear();
        }
        assert_eq!(refused, [0, 0, 64, 0]);
        let all = store.series(HOST, None).await.unwrap();
        let present: Vec<_> = all.iter().filter(|s| !s.label.contains("formerly")).collect();
        assert!(present.len() == 64 && present.iter().all(|s| s.uom == "MB"), "{}", present.len());
    }

    #[tokio::test]
    async fn a_plugin_with_a_label_of_a_former_unit_keeps_it() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        for uom in ["ms", "s"] {
            let metrics = vec![plain("a, formerly in ms", "%"), plain("a", uom)];
            put(&store, &mut cache, &[sample(START, metrics)], 0).await;
        }
        let all = store.series(HOST, None).await.unwrap();
        let found: Vec<_> = all.iter().map(|s| (s.label.as_str(), s.uom.as_str(), s.id)).collect();
        let wanted = [("a", "s", 3), ("a, formerly in ms", "%", 1), ("a, formerly in ms (2)", "ms", 2)];
        assert_eq!(found, wanted);
        let measured: Vec<&str> = all.iter().map(Series::measured_label).collect();
        assert_eq!(measured, ["a", "a, formerly in ms", "a"]);
    }

    #[tokio::test]
    async fn labels_that_guess_those_of_former_units_refuse_the_change_and_fail_nothing() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let guesses = (1..=9).map(|n| plain(&format!("a, formerly in ms ({n})"), "%"));
        let mut first = vec![plain("a, formerly in ms", "%"), plain("a", "ms")];
        first.extend(guesses);
        put(&store, &mut cache, &[sample(START, first)], 0).await;
        for _ in 0..2 {
            let numbered = put(&store, &mut cache, &[sample(START + 60, vec![plain("a", "s")])], 0).await;
            assert_eq!((numbered.samples.len(), numbered.refused), (0, 1));
        }
        let numbered = put(&store, &mut cache, &[sample(START + 120, vec![plain("a", "ms")])], 0).await;
        assert_eq!((numbered.samples.len(), numbered.refused), (1, 0), "the unit that it had goes on");
    }

    #[tokio::test]
    async fn a_start_knows_the_series_and_their_kinds() {
        let (store, _dir) = fixture::store().await;
        let samples = [sample(START, vec![plain("rx", "c"), plain("rtt", "ms")])];
        let numbered = put(&store, &mut SeriesCache::default(), &samples, 0).await;
        let mut cache = SeriesCache::default();
        load(&mut store.reader().await.unwrap(), &mut cache).await.unwrap();
        assert_eq!((cache.count, cache.kind(1), cache.kind(2)), (2, Kind::Counter, Kind::Gauge));
        cache.clear();
        assert_eq!(cache.kind(1), Kind::Counter, "a failed transaction changes no stored series");
        assert_eq!(put(&store, &mut cache, &samples, 0).await, numbered);
    }

    #[tokio::test]
    async fn a_series_of_a_transaction_that_failed_does_not_exist() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let mut tx = store.begin().await.unwrap();
        number(&mut tx, &mut cache, &[sample(START, vec![plain("rx", "c")])], since(0)).await.unwrap();
        tx.rollback().await.unwrap();
        cache.clear();
        let numbered = put(&store, &mut cache, &[sample(START, vec![plain("rtt", "s")])], 0).await;
        assert_eq!((numbered.samples[0].0, cache.kind(1)), (1, Kind::Gauge), "the number had another kind");
    }

    #[tokio::test]
    async fn a_plugin_that_invents_labels_is_cut_until_its_others_are_old() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let first = put(&store, &mut cache, &[sample(START, labels(0, 100))], START - DAY).await;
        assert_eq!((first.samples.len(), first.refused), (64, 36));
        assert_eq!((cache.count, cache.full.len()), (64, 1), "what is refused takes no memory");
        let (full, full_on) = (cache.full.clone(), cache.full_on);
        let mut forgetful = SeriesCache { full, full_on, ..SeriesCache::default() };
        let known = put(&store, &mut forgetful, &[sample(START, labels(0, 1))], START - DAY).await;
        assert_eq!(known.samples.len(), 1, "a series that is there is found in a full service too");
        let later = START + 20 * DAY;
        let again = put(&store, &mut cache, &[sample(later, labels(64, 36))], START - DAY).await;
        assert_eq!((again.samples.len(), again.refused), (0, 36));
        let old = put(&store, &mut cache, &[sample(later, labels(64, 36))], START + DAY).await;
        assert_eq!((old.samples.len(), old.refused), (36, 0));
        assert_eq!(cache.count, 100);
    }

    #[tokio::test]
    async fn a_service_never_has_more_series_than_the_hard_limit() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let many = "with recursive n (i) as (select 1 union all select i + 1 from n where i < 4090)
                    insert into series (host, service, label, uom, last_at)
                    select 7, 'ping', 'old' || i, '', 5 from n";
        fixture::run(&store, many, &[]).await;
        let numbered = put(&store, &mut cache, &[sample(START, labels(0, 10))], START - DAY).await;
        assert_eq!((numbered.samples.len(), numbered.refused), (6, 4));
    }

    #[tokio::test]
    async fn samples_of_days_that_are_removed_are_left_out() {
        let (store, _dir) = fixture::store().await;
        let mut cache = SeriesCache::default();
        let times = [-1, 0, START - 1, START, START + DAY - 1, START + DAY, i64::MAX / 2_000];
        let samples: Vec<Sample> = times.map(|at| sample(at, vec![plain("rtt", "s")])).into();
        let numbered = put(&store, &mut cache, &samples, START + 5).await;
        let taken: Vec<Second> = numbered.samples.iter().map(|(_, p)| p.at).collect();
        assert_eq!(taken, [START, START + DAY - 1, START + DAY]);
        assert_eq!(numbered.too_old, 4);
        let ever = put(&store, &mut cache, &samples, i64::MIN / 2_000).await;
        assert_eq!((ever.samples.len(), ever.too_old), (5, 2), "what no key can hold");
    }

    #[tokio::test]
    async fn a_removed_hosts_series_goes_when_no_tier_has_a_sample_of_it() {
        let (store, _dir) = fixture::store().await;
        fixture::device(&store, 7, "cam-07").await;
        let mut cache = SeriesCache::default();
        put(&store, &mut cache, &[sample(START, vec![plain("rtt", "s"), plain("loss", "%")])], 0).await;
        let step = async |after, before| {
            let mut tx = store.begin().await.unwrap();
            let gone = remove_gone(&mut tx, after, before).await.unwrap();
            tx.commit().await.unwrap();
            (gone.next, gone.removed)
        };
        assert_eq!(step(0, i64::MAX).await, (None, 0), "the host is there");
        fixture::run(&store, "update hosts set removed_at = 5 where id = 7", &[]).await;
        let mut tx = store.begin().await.unwrap();
        seen(&mut tx, &[(1, START + 60), (2, START - 60)]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(step(0, START).await, (None, 0));
        assert_eq!(step(1, START + 60).await, (None, 1), "the first is not looked at");
        assert_eq!(step(0, START + 60).await, (None, 0), "it was seen later");
        assert_eq!(step(0, START + 61).await, (None, 1));
        let numbered = put(&store, &mut SeriesCache::default(), &[sample(START, labels(0, 1))], 0).await;
        assert_eq!(numbered.samples[0].0, 3, "numbers are not reused");
    }

    #[tokio::test]
    async fn an_adopted_series_is_found_or_made() {
        let (store, _dir) = fixture::store().await;
        put(&store, &mut SeriesCache::default(), &[sample(START, vec![plain("rtt", "ms")])], 0).await;
        let mut tx = store.begin().await.unwrap();
        assert_eq!(adopted(&mut tx, (7, "ping", "rtt", "ms"), 5).await.unwrap(), Some(1));
        assert_eq!(adopted(&mut tx, (7, "ping", "rtt", "s"), 5).await.unwrap(), None, "of another unit");
        assert_ne!(adopted(&mut tx, (7, "ping", "loss", "%"), 5).await.unwrap(), Some(1));
        tx.commit().await.unwrap();
        let units: Vec<String> = store.series(HOST, None).await.unwrap().into_iter().map(|s| s.uom).collect();
        assert_eq!(units, ["%", "ms"]);
    }
}

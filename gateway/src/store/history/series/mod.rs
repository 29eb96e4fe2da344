//! The series of the history: their names and numbers, in the main database.
//!
//! A series is a metric of a host or of one of its services, in one unit. The blocks and the redo know
//! only its number, which is never reused. A host's new metric gets its number in the transaction of the
//! state.

mod unit_change;

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use fleetgate_engine::history::{DAY, HOUR, Point, Second, SeriesKind};
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::Sample;
use fleetgate_engine::time::Wall;
use futures_util::TryStreamExt as _;
use sqlx::sqlite::SqliteConnection;
use sqlx::types::Json;

use super::super::Store;
use super::super::rows::{Batched, NARROW};
use super::blocks::MAX_HOUR;
use unit_change::changed;
pub(super) use unit_change::former;

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
    pub fn kind(&self, series: u32) -> SeriesKind {
        if self.counters.contains(&series) { SeriesKind::Counter } else { SeriesKind::Gauge }
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
        match SeriesKind::of(name.uom) {
            SeriesKind::Counter => _ = self.counters.insert(series),
            SeriesKind::Gauge => _ = self.counters.remove(&series),
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
        for metric in sample.metrics.iter() {
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
mod tests;

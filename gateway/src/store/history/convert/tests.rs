use std::collections::BTreeMap;
use std::path::PathBuf;

use fleetgate_engine::history::rollup::roll_up;
use fleetgate_engine::history::{BUCKET, query::Tier};
use fleetgate_keys::SealKey;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::SqliteSynchronous;
use tempfile::TempDir;

use super::super::file::OLD;
use super::*;
use crate::store::files::{HISTORY_FILE, OLD_HISTORY_FILE, SIDE_FILES, beside};
use crate::store::history::Table;
use crate::store::{fixture, migrate, migrations, pools};

const START: Second = 20_000 * DAY;

async fn open(dir: &Path) -> Store {
    Store::open(dir, SealKey::from_bytes([1; 32])).await.unwrap()
}

/// The folder of a gateway with a history of the first schema: one series of 40 days with a sample a minute
/// and two of a second, a counter with a gap, one without samples, and one of a host check.
async fn old_gateway() -> TempDir {
    let (store, dir) = fixture::store().await;
    store.close().await;
    let file = dir.path().join(HISTORY_FILE);
    std::fs::remove_file(&file).unwrap();
    let (write, read) = pools(&file, SqliteSynchronous::Off).await.unwrap();
    migrate(migrations(&OLD), &write, &file).await.unwrap();
    let rows = format!(
        "insert into series (id, host, service, label, uom) values
             (3, 7, 'ping', 'rtt', 's'), (5, 7, 'net', 'rx', 'c'), (6, 7, 'net', 'tx', 'c'), (9, 8, '', 'rta', 'ms');
         with recursive n (i) as (select 0 union all select i + 1 from n where i < 57599)
             insert into samples select 3, {START}000 + i * 60000 + 17, i % 97 / 8.0 from n;
         insert into samples select 3, at + 900, 1000.0 from samples where series = 3 and value = 5.0;
         with recursive n (i) as (select 0 union all select i + 1 from n where i < 2999)
             insert into samples select 5, {START}000 + i * 60000, iif(i % 500 = 7, null, i * 1000.0) from n;
         insert into samples values (9, {START}000 + 5, 1.5);"
    );
    sqlx::raw_sql(AssertSqlSafe(rows)).execute(&write).await.unwrap();
    read.close().await;
    write.close().await;
    dir
}

/// The samples of each series of the old file.
async fn rows(file: PathBuf) -> BTreeMap<(i64, String), Vec<Point>> {
    let mut conn = files::read_only(&file).await.unwrap();
    let sql = "select host, label, at, value from samples join series on id = series order by series, at";
    let rows: Vec<(i64, String, i64, Option<f64>)> = sqlx::query_as(sql).fetch_all(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let mut all: BTreeMap<(i64, String), Vec<Point>> = BTreeMap::new();
    for (host, label, at, value) in rows {
        all.entry((host, label)).or_default().push(Point { at: at / 1_000, value });
    }
    all.into_iter().map(|(name, points)| (name, fleetgate_engine::history::ordered(points))).collect()
}

async fn assert_converted(store: &Store, wanted: &BTreeMap<(i64, String), Vec<Point>>) {
    let mut found = BTreeMap::new();
    for host in [7, 8] {
        for series in store.series(HostId::from_i64(host), None).await.unwrap() {
            let read = store.raw(series.id, 0, i64::MAX).await.unwrap();
            assert_eq!(read.damaged, 0);
            let (kind, mut before, mut wanted) = (SeriesKind::of(&series.uom), None, Vec::new());
            for day in read.points.chunk_by(|a, b| a.at / DAY == b.at / DAY) {
                wanted.extend(roll_up(day, before, kind, BUCKET));
                before = day.last().copied();
            }
            let buckets = store.buckets(series.id, Tier::FiveMinutes, 0, i64::MAX).await.unwrap();
            assert_eq!(buckets, wanted, "{series:?}");
            found.insert((host, series.label), read.points);
        }
    }
    assert!(found == *wanted, "{:?}", found.keys());
}

#[tokio::test]
async fn an_older_history_is_converted_and_its_file_removed() {
    let dir = old_gateway().await;
    let store = open(dir.path()).await;
    assert!(!store.history.was_set_aside());
    let old = dir.path().join(OLD_HISTORY_FILE);
    let wanted = rows(old.clone()).await;
    assert_eq!(wanted.values().map(Vec::len).collect::<Vec<_>>(), [57_600, 3_000, 1]);
    let mut percents = Vec::new();
    while let Conversion::More { percent } = store.convert_step().await.unwrap() {
        percents.push(percent);
    }
    assert_eq!(percents, [33, 33, 55, 66, 99], "the first series takes two steps");
    assert_converted(&store, &wanted).await;
    for side in ["", SIDE_FILES[0], SIDE_FILES[1]] {
        assert!(!beside(&old, side).exists());
    }
    assert_eq!(store.convert_step().await.unwrap(), Conversion::None);
    let progress = fixture::history_text(&store, "select group_concat(name) from progress").await;
    assert_eq!(progress, None);
}

#[tokio::test]
async fn a_conversion_goes_on_after_each_step_and_takes_a_step_twice() {
    let dir = old_gateway().await;
    let store = open(dir.path()).await;
    let wanted = rows(dir.path().join(OLD_HISTORY_FILE)).await;
    store.close().await;
    let mut steps = 0;
    loop {
        let store = open(dir.path()).await;
        let places =
            "select group_concat('insert into progress values (''' || name || ''', ' || value || ');', ' ')
                      from progress";
        let before = fixture::history_text(&store, places).await.unwrap_or_default();
        if store.convert_step().await.unwrap() == Conversion::Done {
            assert_converted(&store, &wanted).await;
            break;
        }
        // As if the transaction had been lost and written again.
        fixture::history_run(&store, "delete from progress").await;
        if !before.is_empty() {
            sqlx::raw_sql(AssertSqlSafe(before)).execute(&store.history.write()).await.unwrap();
        }
        assert!(matches!(store.convert_step().await.unwrap(), Conversion::More { .. }));
        store.close().await;
        steps += 1;
    }
    assert_eq!(steps, 5);
}

#[tokio::test]
async fn samples_since_the_upgrade_count_and_their_first_interval_too() {
    let dir = old_gateway().await;
    let store = open(dir.path()).await;
    let mut wanted = rows(dir.path().join(OLD_HISTORY_FILE)).await;
    let mut tx = store.begin().await.unwrap();
    let series = series::adopted(&mut tx, (7, "net", "rx", "c"), START).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    let last = wanted[&(7, "rx".to_owned())].last().unwrap().at;
    // The same second, and the following day.
    let new: Vec<Point> =
        [last, last + DAY].map(|at| Point { at, value: Some(5_000_000.0) }).into_iter().collect();
    store.seal_step(&[Sealable { series, kind: SeriesKind::Counter, points: new.clone() }]).await.unwrap();
    for day in [day_of(last), day_of(last) + 1] {
        store.compact_step(day, 0, 9, &|_| SeriesKind::Counter).await.unwrap();
    }
    while store.convert_step().await.unwrap() != Conversion::Done {}
    let of_series = wanted.get_mut(&(7, "rx".to_owned())).unwrap();
    *of_series = fleetgate_engine::history::merged(of_series, &new);
    assert_converted(&store, &wanted).await;
}

#[tokio::test]
async fn samples_of_another_unit_than_that_since_the_upgrade_are_in_a_series_beside() {
    let dir = old_gateway().await;
    let store = open(dir.path()).await;
    let mut tx = store.begin().await.unwrap();
    let present = series::adopted(&mut tx, (7, "ping", "rtt", "ms"), START).await.unwrap().unwrap();
    tx.commit().await.unwrap();
    while store.convert_step().await.unwrap() != Conversion::Done {}
    assert!(store.raw(present, 0, i64::MAX).await.unwrap().points.is_empty());
    let all = store.series(HostId::from_i64(7), Some("ping")).await.unwrap();
    let [_, former] = &all[..] else { panic!("{all:?}") };
    assert_eq!((former.label.as_str(), former.uom.as_str()), ("rtt, formerly in s", "s"));
    assert_eq!(store.raw(former.id, 0, i64::MAX).await.unwrap().points.len(), 57_600);
}

#[tokio::test]
async fn samples_whose_labels_are_taken_in_other_units_are_left_out_and_the_others_converted() {
    let dir = old_gateway().await;
    let store = open(dir.path()).await;
    let mut wanted = rows(dir.path().join(OLD_HISTORY_FILE)).await;
    let mut tx = store.begin().await.unwrap();
    for label in ["rtt", "rtt, formerly in s", "rtt, formerly in s (older)"] {
        series::adopted(&mut tx, (7, "ping", label, "ms"), START).await.unwrap().unwrap();
        wanted.insert((7, label.to_owned()), Vec::new());
    }
    tx.commit().await.unwrap();
    while store.convert_step().await.unwrap() != Conversion::Done {}
    assert_converted(&store, &wanted).await;
    assert!(store.history.was_set_aside(), "the old file has what was left out");
}

#[tokio::test]
async fn a_damaged_older_history_is_set_aside_and_the_gateway_goes_on() {
    let dir = old_gateway().await;
    let store = open(dir.path()).await;
    let old = dir.path().join(OLD_HISTORY_FILE);
    let mut bytes = std::fs::read(&old).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    std::fs::write(&old, bytes).unwrap();
    let mut steps = 0;
    while store.convert_step().await.unwrap() != Conversion::Done {
        steps += 1;
        assert!(steps < 9);
    }
    assert!(!old.exists() && store.history.was_set_aside());
    let point = Point { at: START, value: Some(1.0) };
    store.seal_step(&[Sealable { series: 1, kind: SeriesKind::Gauge, points: vec![point] }]).await.unwrap();
    assert_eq!(store.raw(1, START, START + 1).await.unwrap().points, [point]);
}

#[tokio::test]
async fn a_second_older_history_is_set_aside() {
    let (dir, other) = (old_gateway().await, old_gateway().await);
    open(dir.path()).await.close().await;
    std::fs::remove_file(dir.path().join(HISTORY_FILE)).unwrap();
    std::fs::copy(other.path().join(HISTORY_FILE), dir.path().join(HISTORY_FILE)).unwrap();
    let store = open(dir.path()).await;
    assert!(store.history.was_set_aside() && dir.path().join(OLD_HISTORY_FILE).exists());
    let mut conn = store.history.read().acquire().await.unwrap();
    assert_eq!(blocks::oldest_hour(&mut conn, Table::Raw, 0).await.unwrap(), None);
}

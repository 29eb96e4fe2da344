use std::fs;

use fleetgate_engine::history::query::Tier;
use fleetgate_engine::history::rollup::Bucket;
use fleetgate_engine::history::{DAY, HOUR, Point, Second, SeriesKind};
use fleetgate_keys::SealKey;
use tempfile::TempDir;

use super::super::super::files::{HISTORY_FILE, MAIN_FILE};
use super::super::super::history::Sealable;
use super::super::super::{Store, fixture, template};
use super::*;

/// A period of 8 days, the days that are compacted, and the one that is sealed.
const PERIOD: i64 = 2_500;
const FIRST: i64 = PERIOD * 8;
const SEALED: i64 = FIRST + 3;
const SERIES: [u32; 2] = [1, 2];
/// A series that the copy of the main database does not know.
const NEWER: u32 = 3;

fn samples(series: u32, from: Second, to: Second) -> Sealable {
    let value = |at: Second| (at / HOUR % 23) as f64 + f64::from(series);
    let points = (from..to).step_by(900).map(|at| Point { at, value: Some(value(at)) }).collect();
    Sealable { series, kind: SeriesKind::Gauge, points }
}

/// The folder of a stopped gateway that has blocks in the first three tables.
async fn original() -> TempDir {
    let (store, dir) = fixture::store().await;
    for series in SERIES.into_iter().chain([NEWER]) {
        store.put_days(&samples(series, FIRST * DAY, SEALED * DAY)).await.unwrap();
        store.seal_step(&[samples(series, SEALED * DAY, SEALED * DAY + 2 * HOUR)]).await.unwrap();
    }
    store.close().await;
    dir
}

async fn open(dir: &Path) -> Store {
    Store::open(dir, SealKey::from_bytes([1; 32])).await.unwrap()
}

#[derive(Clone, Copy, Debug)]
enum HistoryStep {
    Nothing,
    Seal,
    Compact,
    Merge,
    All,
}

impl HistoryStep {
    const ALL: [HistoryStep; 5] =
        [HistoryStep::Nothing, HistoryStep::Seal, HistoryStep::Compact, HistoryStep::Merge, HistoryStep::All];

    async fn run(self, store: &Store) {
        let (first, last) = (SERIES[0], NEWER);
        if matches!(self, HistoryStep::Seal | HistoryStep::All) {
            for series in SERIES {
                let hour = SEALED * DAY + HOUR;
                store.seal_step(&[samples(series, hour, hour + 2 * HOUR)]).await.unwrap();
            }
        }
        if matches!(self, HistoryStep::Compact | HistoryStep::All) {
            store.compact_step(SEALED, first, last, &|_| SeriesKind::Gauge).await.unwrap();
        }
        if matches!(self, HistoryStep::Merge | HistoryStep::All) {
            store.merge_step(PERIOD, first, last).await.unwrap();
        }
    }
}

/// What a reader finds of a series: the samples that were there before the copy began, and each tier of the days that
/// were compacted by then.
async fn found(store: &Store, series: u32) -> (Vec<Point>, Vec<Vec<Bucket>>) {
    let (from, to) = (FIRST * DAY, SEALED * DAY);
    let raw = store.raw(series, from, to + 2 * HOUR).await.unwrap();
    assert_eq!(raw.damaged, 0);
    let mut tiers = Vec::new();
    for tier in [Tier::FiveMinutes, Tier::Hours, Tier::Days] {
        tiers.push(store.buckets(series, tier, from, to).await.unwrap());
    }
    (raw.points, tiers)
}

/// Copies both databases of `from` in chunks of one block, and runs a step of the gateway once so many are copied.
/// Returns the number of chunks.
async fn copied(from: &Path, to: &Path, step: (usize, HistoryStep)) -> usize {
    let store = open(from).await;
    template::copy_to(to);
    fs::remove_file(to.join(HISTORY_FILE)).unwrap();
    let mut conn = attached(&from.join(HISTORY_FILE), &to.join(HISTORY_FILE)).await.unwrap();
    let schema = schema(&mut conn).await.unwrap();
    create(&mut conn, &schema, |_| true).await.unwrap();
    copy_table(&mut conn, "_sqlx_migrations").await.unwrap();
    let (mut blocks, mut chunks) = (Blocks::new(i64::from(SERIES[1]), 1), 0);
    loop {
        if chunks == step.0 {
            step.1.run(&store).await;
        }
        if blocks.copy_next(&mut conn).await.unwrap().is_none() {
            break;
        }
        chunks += 1;
    }
    closed(conn, to).await.unwrap();
    store.close().await;
    chunks
}

#[tokio::test]
async fn a_copy_has_every_block_whatever_moves_meanwhile_and_whenever() {
    let template = original().await;
    let store = open(template.path()).await;
    let wanted = (found(&store, SERIES[0]).await, found(&store, SERIES[1]).await);
    assert_eq!((wanted.0.0.len(), wanted.0.1[0].len()), (3 * 96 + 8, 3 * 96));
    store.close().await;
    for step in HistoryStep::ALL {
        let mut at = 0;
        loop {
            let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            for file in [MAIN_FILE, HISTORY_FILE] {
                fs::copy(template.path().join(file), from.path().join(file)).unwrap();
            }
            let chunks = copied(from.path(), to.path(), (at, step)).await;
            let store = open(to.path()).await;
            let copied = (found(&store, SERIES[0]).await, found(&store, SERIES[1]).await);
            assert_eq!(copied, wanted, "{step:?} after {at} of {chunks}");
            assert!(found(&store, NEWER).await.0.is_empty());
            store.close().await;
            if at >= chunks || matches!(step, HistoryStep::Nothing) {
                assert!(chunks > 20, "{chunks}");
                break;
            }
            at += 1;
        }
    }
}

#[tokio::test]
async fn a_copy_has_the_small_tables_and_leaves_newer_series_out() {
    let dir = original().await;
    let store = open(dir.path()).await;
    fixture::history_run(&store, "insert into progress (name, value) values ('day', 7)").await;
    fixture::history_run(
        &store,
        "insert into damaged (source, key, data, found_at) values ('raw', 5, x'01', 9)",
    )
    .await;
    let to = tempfile::tempdir().unwrap();
    template::copy_to(to.path());
    fs::remove_file(to.path().join(HISTORY_FILE)).unwrap();
    let (from, target) = (dir.path().join(HISTORY_FILE), to.path().join(HISTORY_FILE));
    let seen = std::sync::Mutex::new(Vec::new());
    history(&from, &target, Some(2), &|percent| seen.lock().unwrap().push(percent)).await.unwrap();
    assert_eq!(seen.lock().unwrap().last(), Some(&100));
    let copy = open(to.path()).await;
    for (sql, newer) in [
        ("select group_concat(name || value) from progress where name = 'day'", false),
        ("select group_concat(source || key || found_at) from damaged", false),
        ("select group_concat(hex(data)) from raw where (key & 4294967295) < 3", false),
        ("select group_concat(key) from raw_hours where (key & 4294967295) = 3", true),
        ("select group_concat(key) from days where (key & 4294967295) = 3", true),
    ] {
        let original = fixture::history_text(&store, sql).await;
        assert!(original.is_some(), "{sql}");
        let copied = fixture::history_text(&copy, sql).await;
        assert_eq!(copied, original.filter(|_| !newer), "{sql}");
    }
}

#[tokio::test]
async fn the_newest_series_counts_even_if_it_was_removed() {
    let (store, dir) = fixture::store().await;
    let file = dir.path().join(MAIN_FILE);
    assert_eq!(newest_series(&file).await.unwrap(), Some(0));
    for sql in [
        "insert into series (id, host, service, label, uom, last_at) values (7, 1, '', 'rtt', 'ms', 0)",
        "delete from series",
    ] {
        fixture::run(&store, sql, &[]).await;
    }
    assert_eq!(newest_series(&file).await.unwrap(), Some(7));
    fixture::run(&store, "drop table series", &[]).await;
    assert_eq!(newest_series(&file).await.unwrap(), None, "of an earlier version");
    let to = dir.path().join("copy.db");
    let error = history(&dir.path().join(HISTORY_FILE), &to, None, &|_| {}).await.unwrap_err();
    assert!(format!("{error:#}").contains("another version just now"), "{error:#}");
}

#[test]
fn a_chunk_is_whole_blocks_up_to_its_size_and_at_least_one() {
    assert_eq!(cut(&[], 10), None);
    assert_eq!(cut(&[(1, 50), (2, 1)], 10), Some((1, 50)));
    assert_eq!(cut(&[(1, 4), (2, 6), (3, 1)], 10), Some((2, 10)));
    assert_eq!(cut(&[(1, 4), (2, 6)], 100), Some((2, 10)));
}

use std::collections::BTreeMap;

use fleetgate_engine::history::query::Tier;
use fleetgate_engine::history::rollup::{merge, roll_up};
use sqlx::AssertSqlSafe;

use super::*;
use crate::store::fixture::{self, Dice};

/// The first day of a period of 8 days.
const DAY_0: i64 = 20_000;
const START: Second = DAY_0 * DAY;
const PERIOD: i64 = DAY_0 / 8;

fn point(at: Second, value: f64) -> Point {
    Point { at, value: Some(value) }
}

/// Odd series are counters.
fn kind(series: u32) -> SeriesKind {
    if series % 2 == 1 { SeriesKind::Counter } else { SeriesKind::Gauge }
}

fn sealable(series: u32, points: Vec<Point>) -> Sealable {
    Sealable { series, kind: kind(series), points }
}

async fn seal(store: &Store, series: u32, points: &[Point]) {
    store.seal_step(&[sealable(series, points.to_vec())]).await.unwrap();
}

async fn compact(store: &Store, day: i64) -> Vec<(u32, Second)> {
    store.compact_step(day, 0, 99, &kind).await.unwrap()
}

async fn raw(store: &Store, series: u32) -> Vec<Point> {
    let read = store.raw(series, 0, i64::MAX).await.unwrap();
    assert_eq!((read.before, read.damaged), (None, 0));
    read.points
}

async fn tier(store: &Store, series: u32, tier: Tier) -> Vec<Bucket> {
    store.buckets(series, tier, 0, i64::MAX).await.unwrap()
}

/// The rows of each table.
async fn rows(store: &Store) -> [usize; 6] {
    let mut conn = store.history.read().acquire().await.unwrap();
    let mut counts = [0; 6];
    for (count, table) in counts.iter_mut().zip(Table::ALL) {
        *count = blocks::range(&mut conn, table, 0, i64::MAX).await.unwrap().len();
    }
    counts
}

/// All blocks.
async fn content(store: &Store) -> Vec<Vec<Block>> {
    let mut conn = store.history.read().acquire().await.unwrap();
    let mut all = Vec::new();
    for table in Table::ALL {
        all.push(blocks::range(&mut conn, table, 0, i64::MAX).await.unwrap());
    }
    all
}

/// The buckets of 5 minutes of samples, computed from all of them at once.
fn rolled(points: &[Point], kind: SeriesKind) -> Vec<Bucket> {
    let (mut all, mut before) = (Vec::new(), None);
    for day in points.chunk_by(|a, b| a.at / DAY == b.at / DAY) {
        all.extend(roll_up(day, before, kind, BUCKET));
        before = day.last().copied();
    }
    all
}

#[tokio::test]
async fn samples_move_through_the_tables_and_read_the_same_everywhere() {
    let (store, _dir) = fixture::store().await;
    let points: Vec<Point> = (0..2_000).map(|n| point(START + n * 60, n as f64)).collect();
    seal(&store, 2, &points).await;
    assert_eq!((rows(&store).await, store.uncompacted(0).await.unwrap()), ([34, 0, 0, 0, 0, 0], Some(DAY_0)));
    assert_eq!(raw(&store, 2).await, points);
    assert!(tier(&store, 2, Tier::FiveMinutes).await.is_empty(), "not compacted");

    assert_eq!(compact(&store, DAY_0).await, [(2, START + DAY - 60)]);
    assert_eq!(compact(&store, DAY_0 + 1).await, [(2, points[1_999].at)]);
    assert_eq!((rows(&store).await, store.uncompacted(0).await.unwrap()), ([0, 3, 2, 0, 0, 0], None));
    assert_eq!(raw(&store, 2).await, points);
    let buckets = rolled(&points, SeriesKind::Gauge);
    let (hours, days) = (merge(&buckets, BUCKET, HOUR), merge(&buckets, BUCKET, DAY));
    for (period, tables) in [(PERIOD + 1, [0, 3, 2, 0, 0, 0]), (PERIOD, [0, 3, 0, 1, 1, 1])] {
        store.merge_step(period, 0, 99).await.unwrap();
        assert_eq!(rows(&store).await, tables);
        assert_eq!(tier(&store, 2, Tier::FiveMinutes).await, buckets);
        assert_eq!(tier(&store, 2, Tier::Hours).await, hours);
        assert_eq!(tier(&store, 2, Tier::Days).await, days);
    }
    assert!(compact(&store, DAY_0).await.is_empty(), "nothing is left to do");
    assert_eq!(store.merge_step(PERIOD, 0, 99).await.unwrap(), 0);
}

#[tokio::test]
async fn a_range_is_cut_to_the_second_and_knows_the_sample_before_it() {
    let (store, _dir) = fixture::store().await;
    let points: Vec<Point> = (0..3_000).map(|n| point(START + n * 60, n as f64)).collect();
    seal(&store, 2, &points[..1_440]).await;
    compact(&store, DAY_0).await;
    seal(&store, 2, &points[1_440..]).await;
    let midnight = START + DAY;
    for (from, to) in [(midnight, midnight + 61), (midnight - 5, midnight), (midnight + 1, midnight + 60)] {
        let read = store.raw(2, from, to).await.unwrap();
        let wanted: Vec<Point> = points.iter().filter(|p| (from..to).contains(&p.at)).copied().collect();
        assert_eq!((read.points, read.before), (wanted, points.iter().rev().find(|p| p.at < from).copied()));
    }
    let after = store.raw(2, points[2_999].at + 3 * HOUR + 1, i64::MAX).await.unwrap();
    assert_eq!(after.before, None, "it covers nothing of the range");
    assert!(store.raw(2, START, START).await.unwrap().points.is_empty());
    assert!(store.raw(3, 0, i64::MAX).await.unwrap().points.is_empty());
    let buckets = store.buckets(2, Tier::Hours, START + HOUR, START + 3 * HOUR).await.unwrap();
    assert_eq!(buckets.iter().map(|b| b.at).collect::<Vec<_>>(), [START + HOUR, START + 2 * HOUR]);
}

#[tokio::test]
async fn of_one_second_the_sample_counts_that_was_sealed_last() {
    let (store, _dir) = fixture::store().await;
    seal(&store, 2, &[point(START, 1.0), point(START, 2.0)]).await;
    assert_eq!(raw(&store, 2).await, [point(START, 2.0)]);
    seal(&store, 2, &[point(START, 3.0)]).await;
    assert_eq!(raw(&store, 2).await, [point(START, 3.0)]);
    compact(&store, DAY_0).await;
    seal(&store, 2, &[point(START, 4.0), Point { at: START + 60, value: None }]).await;
    let late = [point(START, 4.0), Point { at: START + 60, value: None }];
    assert_eq!(raw(&store, 2).await, late, "hours are above blocks");
    compact(&store, DAY_0).await;
    assert_eq!(raw(&store, 2).await, late);
    store.put_days(&sealable(2, vec![point(START, 9.0), point(START + 120, 9.0)])).await.unwrap();
    assert_eq!(raw(&store, 2).await, [late[0], late[1], point(START + 120, 9.0)], "what is there stays");
}

#[tokio::test]
async fn the_first_interval_of_a_day_begins_in_the_day_before() {
    let (store, _dir) = fixture::store().await;
    let midnight = START + DAY;
    let day = |from: Second| (0..10).map(move |n| point(from + n * 60, n as f64));
    let (earlier, later): (Vec<_>, Vec<_>) = (day(midnight - 600).collect(), day(midnight).collect());
    for (first, second) in [(&earlier, &later), (&later, &earlier)] {
        for series in [2, 3] {
            let (store, _dir) = fixture::store().await;
            seal(&store, series, first).await;
            for day in [DAY_0, DAY_0 + 1] {
                compact(&store, day).await;
            }
            seal(&store, series, second).await;
            for day in [DAY_0, DAY_0 + 1] {
                compact(&store, day).await;
            }
            let all = merged(&earlier, &later);
            let wanted = rolled(&all, kind(series));
            assert_eq!(tier(&store, series, Tier::FiveMinutes).await, wanted, "{series}");
        }
    }
    for of_day in [&later, &earlier] {
        store.put_days(&sealable(3, of_day.clone())).await.unwrap();
    }
    assert_eq!(
        tier(&store, 3, Tier::FiveMinutes).await,
        rolled(&merged(&earlier, &later), SeriesKind::Counter),
        "also of a past that is written backwards"
    );
}

#[tokio::test]
async fn days_that_are_put_at_once_are_those_that_were_sealed_and_compacted() {
    let points: Vec<Point> = (0..4_000).map(|n| point(START + n * 61, (n % 700) as f64)).collect();
    let (one, _dir) = fixture::store().await;
    let (other, _other_dir) = fixture::store().await;
    let backwards = [2, 3].map(|series| sealable(series, points.iter().rev().copied().collect()));
    one.put_days_of(&backwards).await.unwrap();
    for series in [2, 3] {
        seal(&other, series, &points).await;
    }
    for day in DAY_0..DAY_0 + 3 {
        compact(&other, day).await;
    }
    let (first, second) = (content(&one).await, content(&other).await);
    assert!(first == second && !first[1].is_empty());
    one.put_days(&sealable(2, points)).await.unwrap();
    assert!(content(&one).await == first, "again");
}

/// A history that is written in a random order of steps, and the samples that it must have.
struct Random {
    dice: Dice,
    store: Store,
    samples: BTreeMap<(u32, Second), Point>,
}

const DAYS: i64 = 9;

impl Random {
    /// Samples of any of four series, mostly of neighbouring times.
    async fn seal(&mut self) {
        let mut parts = Vec::new();
        for series in 2..6 {
            let begin = START + DAY * self.below(DAYS) + HOUR * self.below(24);
            let step = [10, 60, 300, 4_000][self.dice.below(4) as usize];
            let mut points = Vec::new();
            for n in 0..self.below(40) {
                let at = begin + n * step + self.below(3);
                let value = self.below(1_000) as f64 / 4.0;
                points.push(Point { at, value: Some(value).filter(|_| !self.dice.once_in(9)) });
            }
            for point in &points {
                self.samples.insert((series, point.at), *point);
            }
            parts.push(sealable(series, points));
        }
        self.twice(async |store: &Store| store.seal_step(&parts).await.unwrap()).await;
    }

    fn below(&mut self, sides: i64) -> i64 {
        self.dice.below(sides.unsigned_abs()).cast_signed()
    }

    async fn compact(&mut self) {
        while let Some(day) = self.store.uncompacted(0).await.unwrap() {
            for (first, last) in [(0, 3), (4, 4), (5, 99)] {
                self.store.compact_step(day, first, last, &kind).await.unwrap();
                if self.dice.once_in(4) {
                    self.store.compact_step(day, first, last, &kind).await.unwrap();
                }
            }
        }
    }

    /// Runs a step, sometimes again, as after a kill that its caller did not survive.
    async fn twice(&mut self, step: impl AsyncFn(&Store)) {
        step(&self.store).await;
        if self.dice.once_in(2) {
            let before = content(&self.store).await;
            step(&self.store).await;
            assert!(content(&self.store).await == before, "a repeated step changed something");
        }
    }

    fn of(&self, series: u32) -> Vec<Point> {
        self.samples.range((series, 0)..(series + 1, 0)).map(|(_, point)| *point).collect()
    }

    async fn check(&self, is_compacted: bool) {
        for series in 2..6 {
            let points = self.of(series);
            assert_eq!(raw(&self.store, series).await, points);
            if is_compacted {
                let buckets = rolled(&points, kind(series));
                assert_eq!(tier(&self.store, series, Tier::FiveMinutes).await, buckets);
                assert_eq!(tier(&self.store, series, Tier::Hours).await, merge(&buckets, BUCKET, HOUR));
                assert_eq!(tier(&self.store, series, Tier::Days).await, merge(&buckets, BUCKET, DAY));
            }
        }
    }
}

#[tokio::test]
async fn in_whatever_order_samples_come_the_history_says_the_same() {
    for seed in 0..8 {
        let (store, _dir) = fixture::store().await;
        let mut random = Random { dice: Dice(seed), store, samples: BTreeMap::new() };
        for _ in 0..12 {
            random.seal().await;
            random.check(false).await;
            if random.dice.once_in(3) {
                random.compact().await;
                random.check(true).await;
            }
        }
        random.compact().await;
        random
            .twice(async |store: &Store| {
                store.merge_step(PERIOD, 0, 4).await.unwrap();
            })
            .await;
        random.check(true).await;
        random
            .twice(async |store: &Store| {
                store.merge_step(PERIOD, 5, 99).await.unwrap();
            })
            .await;
        random.check(true).await;
        assert_eq!(rows(&random.store).await[0], 0);
    }
}

#[tokio::test]
async fn late_samples_of_a_merged_day_change_its_buckets_alone() {
    let (store, _dir) = fixture::store().await;
    let points: Vec<Point> = (0..8 * 288).map(|n| point(START + n * 300, n as f64)).collect();
    store.put_days(&sealable(2, points.clone())).await.unwrap();
    assert_eq!(store.merge_step(PERIOD, 0, 99).await.unwrap(), 8);
    let late: Vec<Point> = (0..9).map(|n| point(START + 2 * DAY + 1 + n * 60, 9_999.0)).collect();
    seal(&store, 2, &late).await;
    compact(&store, DAY_0 + 2).await;
    let all = merged(&points, &late);
    let buckets = rolled(&all, SeriesKind::Gauge);
    for _ in 0..2 {
        assert_eq!(tier(&store, 2, Tier::FiveMinutes).await, buckets);
        assert_eq!(tier(&store, 2, Tier::Hours).await, merge(&buckets, BUCKET, HOUR));
        assert_eq!(tier(&store, 2, Tier::Days).await, merge(&buckets, BUCKET, DAY));
        store.merge_step(PERIOD, 0, 99).await.unwrap();
    }
    assert_eq!(rows(&store).await, [0, 16, 0, 1, 1, 1]);
}

/// Changes a bit in a block.
async fn harm(store: &Store, table: Table, key: i64) {
    let mut conn = store.history.write().acquire().await.unwrap();
    let mut block = blocks::get(&mut conn, table, &[key]).await.unwrap();
    *block[0].1.last_mut().unwrap() ^= 1;
    blocks::put(&mut conn, table, &block).await.unwrap();
}

async fn damaged(store: &Store) -> i64 {
    blocks::damaged(&mut store.history.read().acquire().await.unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_damaged_block_costs_itself() {
    let (store, _dir) = fixture::store().await;
    let points: Vec<Point> = (0..1_440).map(|n| point(START + n * 60, n as f64)).collect();
    for series in [2, 4] {
        store.put_days(&sealable(series, points.clone())).await.unwrap();
    }
    let buckets = rolled(&points, SeriesKind::Gauge);
    harm(&store, Table::Raw, Table::Raw.key(u32::try_from(START / HOUR).unwrap(), 2)).await;
    for _ in 0..2 {
        let read = store.raw(2, 0, i64::MAX).await.unwrap();
        assert_eq!((read.points, read.damaged), (points[720..].to_vec(), 1));
        assert_eq!(damaged(&store).await, 0, "a reader only notes it");
    }
    assert_eq!(raw(&store, 4).await, points);

    let late = point(START + DAY - 1, 5.0);
    seal(&store, 2, &[late]).await;
    assert_eq!(damaged(&store).await, 1);
    let found = "select source || count(*) from damaged";
    assert_eq!(fixture::history_text(&store, found).await.as_deref(), Some("raw1"));
    assert_eq!(store.raw(2, 0, i64::MAX).await.unwrap().damaged, 0);
    assert_eq!(tier(&store, 2, Tier::FiveMinutes).await, buckets, "they do not need the samples");
}

#[tokio::test]
async fn stored_buckets_survive_the_samples_they_were_made_of() {
    let (store, _dir) = fixture::store().await;
    let points: Vec<Point> = (0..1_440).map(|n| point(START + n * 60, n as f64)).collect();
    store.put_days(&sealable(2, points.clone())).await.unwrap();
    harm(&store, Table::Raw, Table::Raw.key(u32::try_from(START / HOUR).unwrap(), 2)).await;
    seal(&store, 2, &[point(START + DAY - 1, 5.0)]).await;
    compact(&store, DAY_0).await;
    let wanted = rolled(&merged(&points, &[point(START + DAY - 1, 5.0)]), SeriesKind::Gauge);
    let found = tier(&store, 2, Tier::FiveMinutes).await;
    assert_eq!(found.len(), wanted.len());
    assert_eq!(found[..144], wanted[..144]);
    assert_eq!(found[145..], wanted[145..]);
}

#[tokio::test]
async fn buckets_outlive_their_samples_also_when_the_block_is_aside_and_the_day_merged() {
    let points: Vec<Point> = (0..1_440).map(|n| point(START + n * 60, n as f64)).collect();
    for is_merged in [false, true] {
        let (store, _dir) = fixture::store().await;
        store.put_days(&sealable(2, points.clone())).await.unwrap();
        if is_merged {
            store.merge_step(PERIOD, 0, 99).await.unwrap();
        }
        harm(&store, Table::Raw, Table::Raw.key(u32::try_from(START / HOUR).unwrap(), 2)).await;
        for n in 1..3 {
            seal(&store, 2, &[point(START + DAY - n, 5.0)]).await;
            compact(&store, DAY_0).await;
            for when in ["rolled up", "merged"] {
                for (width, of_day) in [(Tier::FiveMinutes, 288), (Tier::Hours, 24), (Tier::Days, 1)] {
                    let found = tier(&store, 2, width).await;
                    assert_eq!(found.len(), of_day, "{is_merged} {n} {when}");
                    assert_eq!((found[0].min, found[0].at), (0.0, START), "{is_merged} {n} {when} {width:?}");
                }
                if is_merged && when == "rolled up" {
                    store.merge_step(PERIOD, 0, 99).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn every_step_goes_on_past_damaged_blocks() {
    let (store, _dir) = fixture::store().await;
    let points: Vec<Point> = (0..2_880).map(|n| point(START + n * 60, n as f64)).collect();
    let hour = u32::try_from(START / HOUR).unwrap();
    for series in [2, 4] {
        seal(&store, series, &points).await;
    }
    harm(&store, Table::RawHours, Table::RawHours.key(hour + 5, 2)).await;
    seal(&store, 2, &points[300..301]).await;
    harm(&store, Table::RawHours, Table::RawHours.key(hour + 6, 2)).await;
    compact(&store, DAY_0).await;
    compact(&store, DAY_0 + 1).await;
    assert_eq!(damaged(&store).await, 2);
    let left = [&points[..301], &points[420..]].concat();
    assert_eq!(raw(&store, 2).await, left);
    harm(&store, Table::Days, Table::Days.key(hour, 2)).await;
    assert_eq!(tier(&store, 2, Tier::Days).await.len(), 1, "a gap");
    store.merge_step(PERIOD, 0, 99).await.unwrap();
    assert_eq!(damaged(&store).await, 3);
    harm(&store, Table::Daily, Table::Daily.key(hour, 2)).await;
    store.put_days(&sealable(2, left.clone())).await.unwrap();
    store.merge_step(PERIOD, 0, 99).await.unwrap();
    let buckets = rolled(&left, SeriesKind::Gauge);
    assert_eq!(tier(&store, 2, Tier::Days).await, merge(&buckets, BUCKET, DAY));
    assert_eq!(tier(&store, 2, Tier::FiveMinutes).await, buckets);
    assert_eq!(damaged(&store).await, 4);
    assert_eq!(tier(&store, 4, Tier::Hours).await, merge(&rolled(&points, SeriesKind::Gauge), BUCKET, HOUR));
}

#[tokio::test]
async fn a_history_that_becomes_damaged_is_set_aside_and_a_new_one_takes_samples() {
    let (store, dir) = fixture::store().await;
    let mut dice = Dice(1);
    let points: Vec<Point> =
        (0..100_000).map(|n| point(START + n * 7, dice.below(99_999_989) as f64)).collect();
    seal(&store, 2, &points).await;
    fixture::history_run(&store, "pragma wal_checkpoint(truncate)").await;
    let file = dir.path().join(crate::store::files::HISTORY_FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    let tables = 16 * 4_096;
    assert!(bytes.len() > 2 * tables);
    bytes[tables..].fill(0x5a);
    std::fs::write(&file, bytes).unwrap();
    assert!(store.raw(2, 0, i64::MAX).await.is_err());
    let lost = store.history.mend().await.unwrap().expect("it is set aside");
    store.tell_of_lost_history(&lost).await;
    assert_eq!(store.history.mend().await.unwrap(), None);
    seal(&store, 2, &points[..1]).await;
    assert_eq!(raw(&store, 2).await, points[..1]);
    let told = fixture::texts(&store, "select data from events where kind = 'history.set_aside'").await;
    assert!(told.len() == 1 && store.history.was_set_aside(), "{told:?}");
}

/// What devices measure: round-trip times with noise and loss, disks with a purge a day, temperatures, loads,
/// and counters.
fn measured(series: u32, n: i64, dice: &mut Dice) -> f64 {
    let noise = dice.below(1_000) as f64 / 1_000.0;
    let day = (n % 1_440) as f64 / 1_440.0;
    match series / 2 % 6 {
        // Seconds with six decimals, as our own probes have them.
        0 => ((0.02 + 0.004 * noise * noise * noise) * 1e6).round() / 1e6,
        1 => f64::from(u8::from(dice.once_in(200))) * 20.0,
        2 => ((40.0 + 50.0 * day) * 10.0).round() / 10.0,
        3 => ((45.0 + 10.0 * (day * std::f64::consts::TAU).sin() + noise / 2.0) * 2.0).round() / 2.0,
        4 => ((0.3 + 0.4 * noise * noise) * 100.0).round() / 100.0,
        _ => (n * 60_000 + dice.below(4_000).cast_signed()) as f64,
    }
}

#[tokio::test]
async fn a_sample_takes_less_than_two_bytes_of_the_file() {
    const SERIES: u32 = 12;
    const DAYS: i64 = 10;
    let (store, _dir) = fixture::store().await;
    let pages =
        "select cast(page_count - freelist_count as text) from pragma_page_count, pragma_freelist_count";
    let used = async || fixture::history_text(&store, pages).await.unwrap().parse::<i64>().unwrap();
    let empty = used().await;
    let mut dice = Dice(1);
    for day in 0..DAYS {
        let of_day = |series: u32| {
            let at = |n: i64| START + n * 60 + i64::from(series) + n / 900 % 2;
            let points =
                (day * 1_440..(day + 1) * 1_440).map(|n| point(at(n), measured(series, n, &mut dice)));
            let kind = if series / 2 % 6 == 5 { SeriesKind::Counter } else { SeriesKind::Gauge };
            Sealable { series, kind, points: points.collect() }
        };
        let part: Vec<Sealable> = (0..SERIES).map(of_day).collect();
        store.seal_step(&part).await.unwrap();
        let of = |series: u32| part[series as usize].kind;
        store.compact_step(DAY_0 + day, 0, SERIES, &of).await.unwrap();
    }
    for table in [Table::RawHours, Table::Days] {
        let sql = format!("delete from {}", table.name());
        sqlx::query(AssertSqlSafe(sql)).execute(&store.history.write()).await.unwrap();
    }
    let bytes = ((used().await - empty) * 4_096) as f64;
    let samples = (i64::from(SERIES) * DAYS * 1_440) as f64;
    assert!(bytes / samples < 2.0, "{:.2} bytes a sample", bytes / samples);
}

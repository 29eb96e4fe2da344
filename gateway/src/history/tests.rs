use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use fleetgate_engine::history::query::{self, Plan, Tier, columns};
use fleetgate_engine::history::rollup::{self, Bucket};
use fleetgate_engine::history::{BUCKET, HOUR, Point, SeriesKind};
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::Sample;
use fleetgate_keys::SealKey;
use fleetgate_probes::sample::Metric;

use super::*;
use crate::health::{Part, Space};
use crate::store::files::HISTORY_FILE;
use crate::store::fixture;
use crate::store::history::{Sealable, Series, Table, blocks};

impl Keep {
    /// Practically for ever: many samples of tests are of 1970.
    pub(crate) const ALL: Keep = {
        let long = Duration::from_secs(100 * 366 * 86_400);
        Keep { raw: long, five_minutes: long, hours: long, days: None }
    };
    const USUAL: Keep = Keep {
        raw: Duration::from_secs(30 * 86_400),
        five_minutes: Duration::from_secs(90 * 86_400),
        hours: Duration::from_secs(1_098 * 86_400),
        days: None,
    };
}

const HOST: HostId = Id::from_i64(7);
const LABELS: [&str; 3] = ["rtt", "used", "packets"];

/// Returns a sample of each of these labels; packets are a counter.
fn sample(at: Second, values: &[(&str, f64)]) -> Sample {
    let uom = |label: &str| if label == "packets" { "c" } else { "ms" };
    let metrics = values.iter().map(|(label, value)| Metric::plain(label, *value, uom(label))).collect();
    Sample { host: HOST, service: "ping".into(), at: Wall::from_millis(at * 1_000 + 250), metrics }
}

/// Commits as the writer does.
async fn commit(recorder: &Recorder, samples: &[Sample]) -> Result<()> {
    let mut turn = recorder.turn().await;
    let mut tx = recorder.0.store.begin().await?;
    if turn.has_room(samples) {
        let (cache, cut) = turn.series();
        let numbered = series::number(&mut tx, cache, samples, cut).await?;
        let rows = turn.rows(numbered);
        redo::append(&mut tx, turn.generation(), &rows).await?;
        turn.written()?;
    }
    tx.commit().await?;
    turn.committed()
}

async fn store_in(dir: &Path) -> Store {
    Store::open(dir, SealKey::from_bytes([1; 32])).await.unwrap()
}

/// Opens a recorder that believes this time, which is at least a day ago.
async fn opened_at(store: &Store, at: Second) -> Recorder {
    store.note_believed(at).await.unwrap();
    Recorder::open(store.clone(), Keep::USUAL).await.unwrap()
}

async fn named(recorder: &Recorder, label: &str) -> Option<Series> {
    let all = recorder.0.store.series(HOST, Some("ping")).await.unwrap();
    all.into_iter().find(|series| series.label == label)
}

/// Returns all samples of a label, each as it was found.
async fn points(recorder: &Recorder, label: &str) -> Vec<(Second, f64)> {
    let Some(series) = named(recorder, label).await else { return Vec::new() };
    let found = recorder.series(series.id, 0, i64::from(i32::MAX) * 2).await.unwrap();
    found.into_iter().map(|point| (point.at, point.value.unwrap())).collect()
}

async fn value_at(recorder: &Recorder, label: &str, at: Second) -> Option<f64> {
    points(recorder, label).await.into_iter().find(|(found, _)| *found == at).map(|(_, value)| value)
}

fn now() -> Second {
    second(clock::wall())
}

/// Returns the first second of the day so many days ago.
fn days_ago(days: i64) -> Second {
    (now().div_euclid(DAY) - days) * DAY
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A recorder that is killed and started again, and what it acknowledged.
struct World {
    dir: tempfile::TempDir,
    recorder: Recorder,
    dice: Dice,
    at: At,
    /// Whether the kill is still to come, and after how many passes of the place.
    armed: Arc<AtomicBool>,
    passes: u64,
    acknowledged: BTreeMap<(&'static str, Second), f64>,
    /// Committed, but the kill came before the answer: any of these, or none, may be there.
    unanswered: BTreeMap<(&'static str, Second), Vec<f64>>,
}

fn kill_at(at: At, armed: &Arc<AtomicBool>, passes: u64) -> Fault {
    let (armed, passed) = (armed.clone(), AtomicU64::new(0));
    Arc::new(move |place| {
        place == at && passed.fetch_add(1, Ordering::SeqCst) == passes && armed.swap(false, Ordering::SeqCst)
    })
}

impl World {
    async fn new(at: At, seed: u64) -> World {
        let (store, dir) = fixture::store().await;
        let mut dice = Dice(seed);
        let (armed, passes) = (Arc::new(AtomicBool::new(true)), dice.below(3));
        let fault = kill_at(at, &armed, passes);
        let recorder = Recorder::open_with(store, Keep::USUAL, (REDO_BYTES, Some(fault))).await.unwrap();
        let (acknowledged, unanswered) = (BTreeMap::new(), BTreeMap::new());
        World { dir, recorder, dice, at, armed, passes, acknowledged, unanswered }
    }

    fn was_killed(&self) -> bool {
        !self.armed.load(Ordering::SeqCst)
    }

    /// Everything in memory is lost. What was in a transaction is not there.
    async fn start_again(&mut self) {
        let fault = kill_at(self.at, &self.armed, self.passes);
        let store = store_in(self.dir.path()).await;
        self.recorder = Recorder::open_with(store, Keep::USUAL, (REDO_BYTES, Some(fault))).await.unwrap();
    }

    /// Commits some samples of the last days, of which some replace earlier ones.
    async fn commit(&mut self) {
        let mut samples = Vec::new();
        for _ in 0..1 + self.dice.below(30) {
            let at = days_ago(12) + (self.dice.below(10 * 24 * 12) * 300) as Second;
            let label = LABELS[self.dice.below(3) as usize];
            samples.push((label, at, self.dice.below(100_000) as f64));
        }
        let sent: Vec<Sample> = samples.iter().map(|(label, at, v)| sample(*at, &[(*label, *v)])).collect();
        let is_acknowledged = commit(&self.recorder, &sent).await.is_ok();
        for (label, at, value) in samples {
            if is_acknowledged {
                self.acknowledged.insert((label, at), value);
                self.unanswered.remove(&(label, at));
            } else {
                self.unanswered.entry((label, at)).or_default().push(value);
            }
        }
    }

    async fn act(&mut self) {
        let before = self.was_killed();
        match self.dice.below(8) {
            0..4 => self.commit().await,
            4 | 5 => drop(self.recorder.seal_now().await),
            6 => drop(self.recorder.upkeep(&Health::default()).await),
            _ => self.start_again().await,
        }
        if self.was_killed() != before {
            self.start_again().await;
        }
    }

    /// Seals and rolls up everything that waits.
    async fn settle(&self) -> Result<()> {
        self.recorder.seal_now().await?;
        self.recorder.upkeep(&Health::default()).await
    }

    /// Asserts that everything acknowledged is read back, each second once, and nothing else.
    async fn assert_all_there(&self, when: &str) {
        for label in LABELS {
            let found = points(&self.recorder, label).await;
            let seconds: BTreeSet<Second> = found.iter().map(|(at, _)| *at).collect();
            assert_eq!(seconds.len(), found.len(), "{label} {when}: each second once");
            for ((_, at), value) in self.acknowledged.iter().filter(|((of, _), _)| *of == label) {
                assert!(seconds.contains(at), "{label} at {at} {when}: {value} is lost");
            }
            for (at, value) in found {
                let acknowledged = self.acknowledged.get(&(label, at));
                let unanswered = self.unanswered.get(&(label, at));
                let is_known =
                    acknowledged == Some(&value) || unanswered.is_some_and(|values| values.contains(&value));
                assert!(is_known, "{label} at {at} {when}: {value}, not {acknowledged:?} or {unanswered:?}");
            }
        }
    }

    /// Asserts that each tier is what its samples say, wherever they are.
    async fn assert_rolled_up(&self, when: &str) {
        for label in LABELS {
            let Some(series) = named(&self.recorder, label).await else { continue };
            let from = days_ago(14);
            let all = self.recorder.series(series.id, from - DAY, from + 14 * DAY).await.unwrap();
            for (tier, step) in [(Tier::FiveMinutes, BUCKET), (Tier::Hours, HOUR), (Tier::Days, DAY)] {
                let plan = Plan { tier, step, start: from, end: from + 14 * DAY };
                let expected = columns(&of_samples(&all, SeriesKind::of(&series.uom), step), &plan);
                let found = self.recorder.query(std::slice::from_ref(&series), &plan).await.unwrap();
                assert_eq!(found[0].count, expected.count, "{label} {tier:?} {when}");
                assert_eq!((&found[0].min, &found[0].max), (&expected.min, &expected.max), "{label} {when}");
            }
        }
    }
}

/// Rolls up day by day.
fn of_samples(points: &[Point], kind: SeriesKind, step: Second) -> Vec<Bucket> {
    let (mut before, mut buckets) = (None, Vec::new());
    for day in points.chunk_by(|a, b| a.at.div_euclid(DAY) == b.at.div_euclid(DAY)) {
        buckets.extend(rollup::merge(&rollup::roll_up(day, before, kind, BUCKET), BUCKET, step));
        before = day.last().copied();
    }
    buckets
}

/// Runs random schedules, each killed once at this place. Returns how many were.
async fn killed_at(at: At) -> usize {
    let mut kills = 0;
    for seed in 0..4 {
        let mut world = World::new(at, seed * 977 + at as u64).await;
        for _ in 0..20 {
            world.act().await;
        }
        world.assert_all_there("at the end").await;
        world.assert_rolled_up("at the end").await;
        // The kill may come here too, and only once.
        while let Err(error) = world.settle().await {
            assert!(world.was_killed(), "{at:?} {seed}: {error}");
            world.start_again().await;
        }
        assert_eq!(world.recorder.status().hot_bytes, 0, "{at:?} {seed}");
        assert_eq!(world.recorder.status().redo_bytes, 0, "{at:?} {seed}");
        world.assert_all_there("after the upkeep").await;
        world.assert_rolled_up("after the upkeep").await;
        kills += usize::from(world.was_killed());
    }
    kills
}

#[tokio::test]
async fn a_kill_at_any_step_loses_nothing_acknowledged_and_keeps_nothing_twice() {
    // A conversion is killed in `tests/tests/sim/kills`.
    for at in At::ALL.into_iter().filter(|at| *at != At::ConvertStep) {
        let kills = killed_at(at).await;
        assert!(kills > 0, "no schedule was killed at {at:?}");
    }
}

#[tokio::test]
async fn a_start_replays_what_no_block_has_and_the_later_sample_counts() {
    let (store, dir) = fixture::store().await;
    let recorder = Recorder::open(store, Keep::ALL).await.unwrap();
    commit(&recorder, &[sample(60, &[("rtt", 1.0)]), sample(120, &[("rtt", 2.0)])]).await.unwrap();
    recorder.seal_now().await.unwrap();
    commit(&recorder, &[sample(120, &[("rtt", 3.0)]), sample(90, &[("rtt", 4.0)])]).await.unwrap();
    drop(recorder);
    let again = Recorder::open(store_in(dir.path()).await, Keep::ALL).await.unwrap();
    let all = [(60, 1.0), (90, 4.0), (120, 3.0)];
    assert_eq!(points(&again, "rtt").await, all);
    commit(&again, &[sample(90, &[("rtt", 5.0)])]).await.unwrap();
    again.seal_now().await.unwrap();
    assert_eq!(points(&again, "rtt").await, [(60, 1.0), (90, 5.0), (120, 3.0)]);
    assert_eq!(again.status(), Status::default());
}

#[tokio::test]
async fn a_damaged_row_of_redo_costs_its_own_samples() {
    let (store, dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
    for at in [60, 120, 180] {
        commit(&recorder, &[sample(at, &[("rtt", 1.0)])]).await.unwrap();
    }
    fixture::run(&store, "update redo set data = x'ff' where id = (select min(id) + 1 from redo)", &[]).await;
    drop(recorder);
    let again = Recorder::open(store_in(dir.path()).await, Keep::ALL).await.unwrap();
    assert_eq!(points(&again, "rtt").await, [(60, 1.0), (180, 1.0)]);
    again.seal_now().await.unwrap();
    assert_eq!(fixture::texts(&store, "select cast(count(*) as text) from redo").await, ["0"]);
}

#[tokio::test]
async fn a_full_redo_lets_the_states_go_on_without_samples_until_it_is_sealed() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open_with(store.clone(), Keep::ALL, (40, None)).await.unwrap();
    for at in 1..200 {
        commit(&recorder, &[sample(at * 60, &[("rtt", 1.0)])]).await.unwrap();
    }
    let taken = points(&recorder, "rtt").await;
    assert!(!taken.is_empty() && taken.len() < 50, "{}", taken.len());
    assert!(recorder.status().redo_bytes < 100, "at most one commit more than the bound");
    recorder.seal_now().await.unwrap();
    commit(&recorder, &[sample(99_000, &[("rtt", 1.0)])]).await.unwrap();
    assert_eq!(points(&recorder, "rtt").await.len(), taken.len() + 1);
}

#[tokio::test]
async fn while_the_disk_is_nearly_full_fewer_samples_wait_and_states_go_on() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open_with(store, Keep::ALL, (1_000, None)).await.unwrap();
    for (bound, at, taken) in
        [(None, 60, 1), (Some(u64::MAX), 120, 2), (Some(1), 180, 2), (Some(0), 240, 2), (None, 300, 3)]
    {
        recorder.bound_redo(bound);
        commit(&recorder, &[sample(at, &[("rtt", 1.0)])]).await.unwrap();
        assert_eq!(points(&recorder, "rtt").await.len(), taken, "{bound:?}");
    }
}

#[tokio::test]
async fn a_history_that_takes_nothing_holds_up_no_commit_and_gets_everything_later() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
    for (break_it, mend_it) in [
        ("pragma query_only = 1", "pragma query_only = 0"),
        (
            "create trigger full before insert on raw_hours begin select raise(abort, 'disk full'); end",
            "drop trigger full",
        ),
        ("pragma max_page_count = 1", "pragma max_page_count = 1000000"),
    ] {
        let before = points(&recorder, "rtt").await.len();
        fixture::history_run(&store, break_it).await;
        let at = (before as Second + 1) * 100_000;
        let noise = |n: Second| (n * 7_919 % 100_003) as f64 / 7.0;
        let many: Vec<Sample> =
            (0..400).map(|n| sample(at + n, &[("rtt", noise(n)), ("used", noise(n + 1))])).collect();
        commit(&recorder, &many).await.unwrap();
        let outcome = recorder.seal_now().await;
        if !break_it.contains("max_page_count") {
            assert!(outcome.is_err(), "{break_it}");
            assert!(recorder.status().redo_bytes > 0, "{break_it}");
        }
        assert_eq!(points(&recorder, "rtt").await.len(), before + 400, "{break_it}: from memory");
        fixture::history_run(&store, mend_it).await;
        recorder.seal_now().await.unwrap();
        assert_eq!((recorder.status().redo_bytes, recorder.status().hot_bytes), (0, 0), "{mend_it}");
        assert_eq!(points(&recorder, "rtt").await.len(), before + 400, "{mend_it}: from blocks");
    }
}

#[tokio::test]
async fn a_failure_begins_no_generation_each_time_it_is_tried_again() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
    fixture::history_run(&store, "pragma query_only = 1").await;
    for at in 1..5 {
        commit(&recorder, &[sample(at * 60, &[("rtt", 1.0)])]).await.unwrap();
        assert!(recorder.seal_now().await.is_err());
    }
    assert_eq!(recorder.hot().before(i64::MAX).len(), 2, "the one that waits, and the present one");
    assert!(recorder.is_due().await);
}

#[tokio::test]
async fn a_history_that_becomes_damaged_is_set_aside_and_the_last_hour_survives() {
    let (store, dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
    let noise = |n: Second| (n * 7_919 % 100_003) as f64 / 7.0;
    for hour in 0..200 {
        let many: Vec<Sample> =
            (0..60).map(|n| sample(hour * HOUR + n * 60, &[("rtt", noise(n + hour))])).collect();
        commit(&recorder, &many).await.unwrap();
    }
    recorder.seal_now().await.unwrap();
    commit(&recorder, &[sample(9_000_000, &[("rtt", 5.0)])]).await.unwrap();
    fixture::history_run(&store, "pragma wal_checkpoint(truncate)").await;
    let file = dir.path().join(HISTORY_FILE);
    let mut bytes = std::fs::read(&file).unwrap();
    assert!(bytes.len() > 20_000, "{}", bytes.len());
    bytes[4_096..].fill(0x5a);
    std::fs::write(&file, bytes).unwrap();
    let series = named(&recorder, "rtt").await.unwrap().id;
    assert!(recorder.series(series, 0, 9_999_999).await.is_err());
    sealer::mend(&store).await;
    assert_eq!(points(&recorder, "rtt").await, [(9_000_000, 5.0)]);
    recorder.seal_now().await.unwrap();
    assert_eq!(points(&recorder, "rtt").await, [(9_000_000, 5.0)]);
    let told = fixture::texts(&store, "select data from events where kind = 'history.set_aside'").await;
    assert!(told.len() == 1 && store.history.was_set_aside(), "{told:?}");
}

#[tokio::test]
async fn a_history_that_is_removed_in_use_loses_no_redo() {
    let (store, dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
    commit(&recorder, &[sample(60, &[("rtt", 1.0)])]).await.unwrap();
    std::fs::remove_file(dir.path().join(HISTORY_FILE)).unwrap();
    assert!(recorder.seal_now().await.is_err(), "nothing is sealed into a file that nobody can find");
    sealer::mend(&store).await;
    recorder.seal_now().await.unwrap();
    assert_eq!(recorder.status().redo_bytes, 0);
    drop(recorder);
    let again = Recorder::open(store_in(dir.path()).await, Keep::ALL).await.unwrap();
    assert_eq!(points(&again, "rtt").await, [(60, 1.0)]);
}

#[tokio::test]
async fn a_failed_commit_leaves_no_number_of_a_series_that_does_not_exist() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
    let one = [sample(60, &[("rtt", 1.0)])];
    let mut turn = recorder.turn().await;
    let mut tx = store.begin().await.unwrap();
    let (cache, cut) = turn.series();
    let numbered = series::number(&mut tx, cache, &one, cut).await.unwrap();
    let rows = turn.rows(numbered);
    redo::append(&mut tx, turn.generation(), &rows).await.unwrap();
    drop((tx, turn));
    assert_eq!((recorder.status(), points(&recorder, "rtt").await.len()), (Status::default(), 0));
    commit(&recorder, &one).await.unwrap();
    assert_eq!(points(&recorder, "rtt").await, [(60, 1.0)]);
}

#[tokio::test]
async fn a_sample_of_a_clock_that_was_ahead_is_kept_and_not_rolled_up_before_its_day() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::USUAL).await.unwrap();
    let (ahead, yesterday) = (now() + 400 * DAY, days_ago(1) + 60);
    commit(&recorder, &[sample(ahead, &[("rtt", 1.0)]), sample(days_ago(2), &[("rtt", 2.0)])]).await.unwrap();
    commit(&recorder, &[sample(yesterday, &[("rtt", 3.0)])]).await.unwrap();
    recorder.seal_now().await.unwrap();
    recorder.upkeep(&Health::default()).await.unwrap();
    assert_eq!(points(&recorder, "rtt").await.len(), 3);
    let uncompacted = store.uncompacted(0).await.unwrap().unwrap();
    assert!(uncompacted >= days_ago(1) / DAY, "the days before are rolled up: {uncompacted}");
    assert_eq!(value_at(&recorder, "rtt", ahead).await, Some(1.0));
}

#[tokio::test]
async fn a_clock_that_is_ahead_for_less_than_a_day_removes_nothing() {
    let (store, _dir) = fixture::store().await;
    // By the last run, samples of 29 days ago are kept. By the clock of this one they are much too old.
    let last = now() - 400 * DAY;
    store.note_believed(last).await.unwrap();
    let recorder = Recorder::open(store.clone(), Keep::USUAL).await.unwrap();
    let kept = last - 29 * DAY - 12 * HOUR;
    commit(&recorder, &[sample(kept, &[("rtt", 1.0)])]).await.unwrap();
    recorder.seal_now().await.unwrap();
    for _ in 0..2 {
        recorder.upkeep(&Health::default()).await.unwrap();
        assert_eq!(points(&recorder, "rtt").await, [(kept, 1.0)]);
    }
}

#[tokio::test]
async fn a_late_sample_is_taken_while_it_is_younger_than_samples_are_kept() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::USUAL).await.unwrap();
    let (late, newest) = (now() - 30 * DAY + 60, days_ago(2));
    commit(&recorder, &[sample(newest, &[("rtt", 2.0)])]).await.unwrap();
    recorder.seal_now().await.unwrap();
    recorder.upkeep(&Health::default()).await.unwrap();
    commit(&recorder, &[sample(late, &[("rtt", 1.0)])]).await.unwrap();
    let series = named(&recorder, "rtt").await.unwrap();
    let start = late.div_euclid(HOUR) * HOUR;
    let plan = Plan { tier: Tier::Hours, step: HOUR, start, end: start + HOUR };
    for when in ["in memory", "sealed", "rolled up"] {
        assert_eq!(points(&recorder, "rtt").await, [(late, 1.0), (newest, 2.0)], "{when}");
        let found = recorder.query(std::slice::from_ref(&series), &plan).await.unwrap().remove(0);
        assert_eq!(found.max, [Some(1.0)], "{when}");
        match when {
            "in memory" => recorder.seal_now().await.unwrap(),
            _ => recorder.upkeep(&Health::default()).await.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_late_sample_of_the_last_minute_is_rolled_up_before_its_day_is_removed() {
    let (store, _dir) = fixture::store().await;
    let midnight = days_ago(400);
    let late = midnight - 31 * DAY + 60;
    commit(&opened_at(&store, midnight - 60).await, &[sample(late, &[("rtt", 1.0)])]).await.unwrap();
    let start = late.div_euclid(HOUR) * HOUR;
    let plan = Plan { tier: Tier::Hours, step: HOUR, start, end: start + HOUR };
    for (hours, left) in [(2, vec![(late, 1.0)]), (4, Vec::new())] {
        let recorder = opened_at(&store, midnight + hours * HOUR).await;
        recorder.seal_now().await.unwrap();
        recorder.upkeep(&Health::default()).await.unwrap();
        assert_eq!(points(&recorder, "rtt").await, left, "{hours} hours after it is taken");
        let series = named(&recorder, "rtt").await.unwrap();
        let found = recorder.query(std::slice::from_ref(&series), &plan).await.unwrap().remove(0);
        assert_eq!(found.max, [Some(1.0)], "{hours} hours after it is taken");
    }
}

#[tokio::test]
async fn samples_of_a_day_that_is_not_whole_any_more_are_not_taken() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store, Keep::USUAL).await.unwrap();
    let taken = recorder.raw_cut();
    commit(&recorder, &[sample(taken - 1, &[("rtt", 1.0)]), sample(taken, &[("rtt", 2.0)])]).await.unwrap();
    assert_eq!(points(&recorder, "rtt").await, [(taken, 2.0)]);
}

/// Opens a recorder that keeps samples for so many days.
async fn keeping(store: &Store, days: u64) -> Recorder {
    let keep = Keep { raw: Duration::from_secs(days * 86_400), ..Keep::USUAL };
    Recorder::open(store.clone(), keep).await.unwrap()
}

#[tokio::test]
async fn a_day_that_lost_its_samples_to_a_shorter_setting_keeps_its_roll_ups() {
    let (store, _dir) = fixture::store().await;
    let (usual, from) = (keeping(&store, 30).await, days_ago(15));
    let many: Vec<Sample> = (0..720).map(|n| sample(from + n * 120, &[("rtt", n as f64)])).collect();
    commit(&usual, &many).await.unwrap();
    usual.seal_now().await.unwrap();
    usual.upkeep(&Health::default()).await.unwrap();
    let short = keeping(&store, 5).await;
    short.upkeep(&Health::default()).await.unwrap();
    assert!(points(&short, "rtt").await.is_empty(), "only the roll-ups are left");
    let again = keeping(&store, 30).await;
    commit(&again, &[sample(from + 90, &[("rtt", 1e6)])]).await.unwrap();
    let series = named(&again, "rtt").await.unwrap();
    let tier = |days| {
        let from = days_ago(days);
        query::plan(from, from + HOUR, 600, now(), &again.kept(now())).tier
    };
    assert_eq!([tier(15), tier(13)], [Tier::FiveMinutes, Tier::Raw], "a query takes what is left");
    for when in ["in memory", "sealed", "rolled up"] {
        for (tier, step) in [(Tier::FiveMinutes, BUCKET), (Tier::Hours, HOUR), (Tier::Days, DAY)] {
            let plan = Plan { tier, step, start: from, end: from + DAY };
            let found = again.query(std::slice::from_ref(&series), &plan).await.unwrap().remove(0);
            assert_eq!(found.count.iter().sum::<u32>(), 720, "{when} {tier:?}");
        }
        assert_eq!(points(&again, "rtt").await, [(from + 90, 1e6)], "{when}");
        match when {
            "in memory" => again.seal_now().await.unwrap(),
            _ => again.upkeep(&Health::default()).await.unwrap(),
        }
    }
}

/// Records this value every 10 minutes of the day before `midnight`, and works as the gateway does 2 hours later.
async fn lived(store: &Store, midnight: Second, value: f64) -> Recorder {
    let recorder = opened_at(store, midnight + 2 * HOUR).await;
    let day: Vec<Sample> = (0..144).map(|n| sample(midnight - DAY + n * 600, &[("rtt", value)])).collect();
    commit(&recorder, &day).await.unwrap();
    recorder.seal_now().await.unwrap();
    recorder.upkeep(&Health::default()).await.unwrap();
    recorder
}

/// Returns count and maximum of the stored buckets of the day before `midnight`, for each tier of buckets.
async fn stored(recorder: &Recorder, midnight: Second) -> [(u32, f64); 3] {
    let series = named(recorder, "rtt").await.unwrap().id;
    let mut found = [(0, 0.0); 3];
    for (place, tier) in [Tier::FiveMinutes, Tier::Hours, Tier::Days].into_iter().enumerate() {
        let buckets = recorder.0.store.buckets(series, tier, midnight - DAY, midnight).await.unwrap();
        let count = buckets.iter().map(|bucket| bucket.count).sum();
        found[place] = (count, buckets.iter().map(|bucket| bucket.max).fold(0.0, f64::max));
    }
    found
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_months_and_is_set_back_costs_no_roll_up() {
    let (store, _dir) = fixture::store().await;
    let midnight = days_ago(400);
    lived(&store, midnight, 1.0).await;
    // The clock is ahead, and then further ahead: what it recorded first is removed, and is still to come.
    lived(&store, midnight + 10 * DAY, 7.0).await;
    let ahead = lived(&store, midnight + 60 * DAY, 8.0).await;
    assert_eq!(points(&ahead, "rtt").await.len(), 144, "the samples of the other two days are removed");

    let back = lived(&store, midnight + DAY, 2.0).await;
    assert_eq!(stored(&back, midnight).await, [(144, 1.0); 3], "what was rolled up before");
    assert_eq!(stored(&back, midnight + DAY).await, [(144, 2.0); 3], "what came after it was set back");

    commit(&back, &[sample(midnight - HOUR + 60, &[("rtt", 3.0)])]).await.unwrap();
    back.seal_now().await.unwrap();
    back.upkeep(&Health::default()).await.unwrap();
    assert_eq!(
        stored(&back, midnight).await.map(|(count, _)| count),
        [144; 3],
        "a late sample removes nothing"
    );

    let later = lived(&store, midnight + 10 * DAY, 4.0).await;
    assert_eq!(
        stored(&later, midnight + 10 * DAY).await,
        [(144, 4.0); 3],
        "the day comes for the second time"
    );
    assert_eq!(stored(&later, midnight + DAY).await, [(144, 2.0); 3]);
    let age = later.kept(midnight + 10 * DAY + 2 * HOUR).raw;
    assert_eq!(age, 9 * DAY, "queries choose samples since the clock was set back");
}

#[tokio::test]
async fn a_clock_that_was_set_back_today_rolls_up_and_shows_samples_at_once() {
    let (store, _dir) = fixture::store().await;
    let (ahead, end) = (days_ago(-10), u32::try_from(days_ago(-31) / HOUR).unwrap());
    let mut tx = store.begin().await.unwrap();
    let one = [sample(ahead, &[("rtt", 7.0)])];
    let mut cache = SeriesCache::default();
    let numbered = series::number(&mut tx, &mut cache, &one, Wall::from_millis(0)).await.unwrap();
    tx.commit().await.unwrap();
    let (of, point) = numbered.samples[0];
    store.put_days(&Sealable { series: of, kind: SeriesKind::Gauge, points: vec![point] }).await.unwrap();
    assert_eq!(store.expire_step(Table::Raw, end, 100).await.unwrap(), 1);
    store.note_believed(days_ago(-60)).await.unwrap();

    let recorder = Recorder::open(store, Keep::USUAL).await.unwrap();
    commit(&recorder, &[sample(days_ago(2), &[("rtt", 2.0)])]).await.unwrap();
    recorder.seal_now().await.unwrap();
    recorder.upkeep(&Health::default()).await.unwrap();
    assert_eq!(stored(&recorder, days_ago(1)).await, [(1, 2.0); 3]);
    assert_eq!(recorder.kept(now()).raw, 30 * DAY);
    assert_eq!(points(&recorder, "rtt").await, [(days_ago(2), 2.0)]);
}

#[tokio::test]
async fn days_before_a_stop_of_weeks_are_rolled_up_before_their_samples_are_removed() {
    let (store, _dir) = fixture::store().await;
    store.note_believed(days_ago(40)).await.unwrap();
    let recorder = keeping(&store, 30).await;
    commit(&recorder, &[sample(days_ago(42), &[("rtt", 1.0)])]).await.unwrap();
    recorder.seal_now().await.unwrap();
    recorder.upkeep(&Health::default()).await.unwrap();
    let rows = "select cast((select count(*) from raw_hours) || ' ' || (select count(*) from raw) || ' ' ||
                (select count(*) from (select key from days union all select key from five_minutes)) as text)";
    assert_eq!(fixture::history_text(&store, rows).await.as_deref(), Some("0 1 1"));
    let noted = store.noted().await.unwrap().believed.unwrap();
    assert!((days_ago(40)..days_ago(39)).contains(&noted), "the clock is not believed for a day: {noted}");
}

#[tokio::test]
async fn a_block_that_stays_behind_holds_up_no_later_one() {
    let (store, _dir) = fixture::store().await;
    let recorder = keeping(&store, 30).await;
    let mut conn = store.history.write().acquire().await.unwrap();
    for (table, days) in [(Table::RawHours, 5), (Table::Days, 28)] {
        let hour = u32::try_from(days_ago(days) / HOUR).unwrap();
        let of_nobody = (fleetgate_engine::history::block::key(hour, 1_000_000), vec![0]);
        blocks::put(&mut conn, table, &[of_nobody]).await.unwrap();
    }
    drop(conn);
    for days in [20, 3] {
        commit(&recorder, &[sample(days_ago(days), &[("rtt", 1.0)])]).await.unwrap();
    }
    recorder.seal_now().await.unwrap();
    recorder.upkeep(&Health::default()).await.unwrap();
    let rows = "select cast((select count(*) from raw_hours) || ' ' || (select count(*) from raw) || ' ' ||
                (select count(*) from five_minutes) as text)";
    assert_eq!(fixture::history_text(&store, rows).await.as_deref(), Some("1 2 1"));
}

#[tokio::test]
async fn a_late_sample_of_a_day_that_is_merged_counts_in_every_tier() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::USUAL).await.unwrap();
    let from = days_ago(20);
    let many: Vec<Sample> = (0..18 * 24).map(|n| sample(from + n * HOUR, &[("rtt", n as f64)])).collect();
    commit(&recorder, &many).await.unwrap();
    recorder.seal_now().await.unwrap();
    recorder.upkeep(&Health::default()).await.unwrap();
    let merged = fixture::history_text(&store, "select cast(count(*) as text) from five_minutes").await;
    assert_ne!(merged.as_deref(), Some("0"), "a period is over");
    let (spike, series) = (from + DAY + 90, named(&recorder, "rtt").await.unwrap());
    commit(&recorder, &[sample(spike, &[("rtt", 1e6)])]).await.unwrap();
    for when in ["in memory", "sealed", "rolled up"] {
        for (tier, step) in [(Tier::FiveMinutes, BUCKET), (Tier::Hours, HOUR), (Tier::Days, DAY)] {
            let plan = Plan { tier, step, start: from, end: from + 18 * DAY };
            let found = recorder.query(std::slice::from_ref(&series), &plan).await.unwrap().remove(0);
            let place = usize::try_from((spike - from) / step).unwrap();
            assert_eq!(found.max[place], Some(1e6), "{when} {tier:?}");
            assert_eq!(found.count.iter().sum::<u32>(), 18 * 24 + 1, "{when} {tier:?}");
        }
        match when {
            "in memory" => recorder.seal_now().await.unwrap(),
            _ => recorder.upkeep(&Health::default()).await.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_disk_with_little_room_is_not_filled_with_history_and_old_blocks_still_go() {
    let (store, _dir) = fixture::store().await;
    let recorder = Recorder::open(store.clone(), Keep::USUAL).await.unwrap();
    commit(&recorder, &[sample(days_ago(3), &[("rtt", 1.0)])]).await.unwrap();
    recorder.seal_now().await.unwrap();
    fixture::history_run(&store, "insert into raw (key, data) values (1 << 32 | 1, x'00')").await;
    let low = Health::default();
    low.space_is(Space::Low);
    recorder.upkeep(&low).await.unwrap();
    let count = "select cast((select count(*) from raw) || ' ' || (select count(*) from raw_hours) as text)";
    assert_eq!(fixture::history_text(&store, count).await.as_deref(), Some("0 1"));
    recorder.upkeep(&Health::default()).await.unwrap();
    assert_eq!(fixture::history_text(&store, count).await.as_deref(), Some("1 0"));
}

#[tokio::test]
async fn the_tasks_seal_what_an_earlier_run_left_and_end_with_the_stop() {
    let (store, dir) = fixture::store().await;
    let recorder = Recorder::open(store, Keep::ALL).await.unwrap();
    commit(&recorder, &[sample(60, &[("rtt", 1.0)])]).await.unwrap();
    drop(recorder);
    let again = Recorder::open(store_in(dir.path()).await, Keep::ALL).await.unwrap();
    let (mut tasks, health, stop) = (JoinSet::new(), Health::default(), CancellationToken::new());
    again.start(&mut tasks, health.clone(), stop.clone());
    let sealed = async {
        while again.status().redo_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), sealed).await.unwrap();
    assert!(health.is_well(Part::History));
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(points(&again, "rtt").await, [(60, 1.0)]);
}

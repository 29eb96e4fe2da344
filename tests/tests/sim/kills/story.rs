//! What happens to a history over forty days: samples are taken and sealed, days are rolled up, periods merged, and old
//! blocks removed.
//!
//! The clock is that of the recorder. A clock that is more than a day ahead of the time that was noted last does not move
//! it for a day, so that a note sets it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleetgate::health::Health;
use fleetgate::history::{Keep, Recorder};
use fleetgate::store::Store;
use fleetgate::store::history::{redo, series};
use fleetgate_engine::history::{DAY, HOUR, Second};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::Sample;
use fleetgate_engine::time::Wall;
use fleetgate_keys::SealKey;
use fleetgate_probes::sample::Metric;
use tempfile::TempDir;

use super::block_on;
use super::model::{Model, Name, Samples};
use super::process::kill_everywhere;
use super::reading::Reader;
use Act::{Seal, Take, Upkeep};
use Batch::{Backlog, Days, Late};

/// In 2024. With the eight days that begin here, a block of each tier ends.
pub const START: Second = 19_960 * DAY;
/// No sample is later.
pub const END: Second = START + 16 * DAY;
/// The day on which all samples can be rolled up, long before anything is removed.
pub const OVER: i64 = 16;
/// Each tier is kept for a month. What is removed depends on the length of its blocks.
pub const KEPT: Second = 30 * DAY;
const KEEP: Keep = {
    let month = Duration::from_secs(KEPT as u64);
    Keep { raw: month, five_minutes: month, hours: month, days: Some(month) }
};

#[derive(Clone, Copy)]
enum Act {
    /// One commit.
    Take(Batch),
    Seal,
    /// The upkeep on this day.
    Upkeep(i64),
}

#[derive(Clone, Copy)]
enum Batch {
    /// A sample a second, of a device that was cut off: more than one step seals.
    Backlog,
    /// Of the days from the first on, before the second.
    Days(i64, i64),
    /// Of a day that is merged already.
    Late,
}

/// The process acknowledges each act.
const STORY: [Act; 17] = [
    Take(Backlog),
    Take(Days(0, 1)),
    Seal,
    Take(Days(1, 3)),
    Seal,
    Upkeep(3),
    Take(Days(3, 8)),
    Seal,
    Upkeep(7),
    Upkeep(8),
    Take(Late),
    Seal,
    Upkeep(8),
    Take(Days(8, 13)),
    Seal,
    Upkeep(16),
    Upkeep(40),
];
/// The acts that a process lives, and the day on which its history is opened again.
pub const SEALED: Part = Part { acts: 1..5, until: 3 };
pub const ROLLED_UP: Part = Part { acts: 5..6, until: 3 };
pub const MERGED: Part = Part { acts: 9..13, until: 8 };
pub const REMOVED: Part = Part { acts: 16..17, until: 40 };
pub const ALL: Part = Part { acts: 0..STORY.len(), until: 40 };

const HOST: i64 = 7;
const SERVICE: &str = "ping";
/// The series with their units. The last one is made by the second day.
const SERIES: [(&str, &str); 4] = [("rtt", "ms"), ("used", "%"), ("packets", "c"), ("load", "")];
const PACKETS: usize = 2;
/// One step of sealing ends with the series that has the 40,000th sample.
const CUT_OFF: Second = 40_000;
/// The numbers are far apart, so that two steps roll up a day.
const MADE: [&str; 2] = [
    "insert into hosts (id, name, profile, created_at) values (7, 'cam-1', 'default', 0)",
    "insert into series (id, host, service, label, uom, last_at) values
         (1, 7, 'ping', 'rtt', 'ms', 0), (2, 7, 'ping', 'used', '%', 0), (41, 7, 'ping', 'packets', 'c', 0)",
];

/// A sample of a series.
struct Value {
    series: usize,
    at: Second,
    value: Option<f64>,
}

pub async fn open(data: &Path) -> Result<Store> {
    Store::open(data, SealKey::from_bytes([1; 32])).await
}

pub const fn noon(day: i64) -> Second {
    START + day * DAY + 12 * HOUR + HOUR / 2
}

/// Opens a recorder that believes that it is this day.
pub async fn at_noon(store: &Store, day: i64) -> Result<Recorder> {
    let now = noon(day);
    ensure!(
        fleetgate::clock::wall().as_millis() / 1_000 > now + 2 * DAY,
        "the clock of this machine is behind the story"
    );
    store.note_believed(now).await?;
    Ok(Recorder::open(store.clone(), KEEP).await?)
}

/// Lives some acts in a folder.
pub async fn live(data: &Path, acts: Range<usize>) -> Result<()> {
    let store = open(data).await?;
    let mut recorder = at_noon(&store, day_before(acts.start)).await?;
    for n in acts {
        match STORY[n] {
            Take(batch) => take(&recorder, &store, &batch.samples()).await?,
            Seal => recorder.seal_now().await?,
            Upkeep(day) => {
                recorder = at_noon(&store, day).await?;
                recorder.upkeep(&Health::default()).await?;
            }
        }
        // The test program may have begun a line.
        println!("\ndid {n}");
    }
    store.close().await;
    Ok(())
}

fn day_before(act: usize) -> i64 {
    let day = |act: &Act| if let Upkeep(day) = act { Some(*day) } else { None };
    STORY[..act].iter().rev().find_map(day).unwrap_or(0)
}

/// Returns the first act that was not acknowledged, if any was.
pub fn next_act(said: &str) -> Option<usize> {
    let acts = said.lines().filter_map(|line| line.strip_prefix("did ")?.parse::<usize>().ok());
    acts.max().map(|act| act + 1)
}

/// Commits as the writer does.
async fn take(recorder: &Recorder, store: &Store, samples: &[Sample]) -> Result<()> {
    let mut turn = recorder.turn().await;
    let mut tx = store.begin().await?;
    ensure!(turn.has_room(samples), "the redo is full");
    let (cache, cut) = turn.series();
    let numbered = series::number(&mut tx, cache, samples, cut).await?;
    ensure!((numbered.refused, numbered.too_old) == (0, 0), "some samples are not taken");
    let rows = turn.rows(numbered);
    redo::append(&mut tx, turn.generation(), &rows).await?;
    turn.written()?;
    tx.commit().await?;
    turn.committed()?;
    Ok(())
}

/// Makes a folder in which so many acts have been lived.
pub async fn prepared(acts: usize) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let store = open(dir.path()).await?;
    let mut tx = store.begin().await?;
    for sql in MADE {
        sqlx::query(sql).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    store.close().await;
    live(dir.path(), 0..acts).await?;
    Ok(dir)
}

/// Returns what the history must say after so many acts.
fn model(acts: usize) -> Model {
    let name = |(label, uom): (&str, &str)| Name {
        host: HOST,
        service: SERVICE.to_owned(),
        label: label.to_owned(),
        uom: uom.to_owned(),
    };
    let mut all = SERIES.map(|series| (name(series), Samples::new()));
    for act in &STORY[..acts] {
        let Take(batch) = act else { continue };
        for Value { series, at, value } in batch.values() {
            all[series].1.insert(at, value);
        }
    }
    Model::of(BTreeMap::from(all))
}

/// A part of the story.
pub struct Part {
    pub acts: Range<usize>,
    pub until: i64,
}

impl Part {
    /// Kills the process that lives this part at its calls.
    pub fn is_survived(&self) {
        let prepared = block_on(prepared(self.acts.start)).expect("a history");
        let models = self.models();
        kill_everywhere(&self.task(), prepared.path(), |data, said, place| {
            let next = next_act(said).unwrap_or(self.acts.start);
            block_on(self.check(&models, data, next))
                .with_context(|| format!("act {next}, {place}"))
                .unwrap();
        });
    }

    pub fn task(&self) -> String {
        format!("acts {} {}", self.acts.start, self.acts.end)
    }

    /// Returns the models at the begin of this part and after each of its commits, by the number of acts.
    pub fn models(&self) -> BTreeMap<usize, Model> {
        let acts = self.acts.start..=self.acts.end;
        let is_new = |acts: &usize| *acts == self.acts.start || matches!(STORY[acts - 1], Take(_));
        acts.filter(is_new).map(|acts| (acts, model(acts))).collect()
    }

    /// Fails if a folder does not have what was acknowledged before this act. That act may have happened.
    pub async fn check(&self, models: &BTreeMap<usize, Model>, data: &Path, next: usize) -> Result<()> {
        let possible = [next, (next + 1).min(self.acts.end)];
        let models = possible.map(|acts| models.range(..=acts).next_back().expect("a model").1);
        let reader = Reader::open(data, self.until).await?;
        let model = reader.one_of(&models).await?;
        reader.graphs_are(model).await?;
        reader.keep_up().await?;
        reader.everything_is(model).await?;
        reader.store.close().await;
        Ok(())
    }
}

impl Batch {
    fn samples(self) -> Vec<Sample> {
        self.values().into_iter().map(sample).collect()
    }

    fn values(self) -> Vec<Value> {
        match self {
            Backlog => backlog(),
            Days(first, end) => (first..end).flat_map(of_day).collect(),
            Late => (0..SERIES.len()).flat_map(late).collect(),
        }
    }
}

fn sample(Value { series, at, value }: Value) -> Sample {
    let (label, uom) = SERIES[series];
    let metrics = [Metric { value, ..Metric::gap(label, uom) }].into();
    let at = Wall::from_millis(at * 1_000 + 250);
    Sample { host: HostId::from_i64(HOST), service: SERVICE.to_owned(), at, metrics }
}

/// A long series, and others that the next step seals.
fn backlog() -> Vec<Value> {
    let from = START + 11 * HOUR;
    let long = (0..CUT_OFF).map(|n| Value { series: 0, at: from + n, value: Some((n % 97) as f64 / 4.0) });
    long.chain([1, PACKETS].map(|series| value(series, 0, from))).collect()
}

/// Samples of a minute around both midnights and noon.
fn of_day(day: i64) -> Vec<Value> {
    let begin = START + day * DAY;
    let parts = [(begin + 10, 12), (begin + 12 * HOUR - 300, 12), (begin + DAY - 600, 10)];
    let times: Vec<Second> = parts.into_iter().flat_map(|(from, count)| minutes(from, count)).collect();
    let series = 0..SERIES.len() - usize::from(day == 0);
    let of_series = |series| times.iter().enumerate().map(move |(n, at)| value(series, n, *at));
    series.flat_map(of_series).collect()
}

fn minutes(from: Second, count: Second) -> impl Iterator<Item = Second> {
    (0..count).map(move |n| from + n * 60)
}

/// Returns the n-th sample of a day. Some are gaps.
fn value(series: usize, n: usize, at: Second) -> Value {
    let value = if series == PACKETS { packets(at) } else { level(series, at) };
    Value { series, at, value: (n % 11 != 5).then_some(value) }
}

/// New samples, and one that takes the place of an earlier one.
fn late(series: usize) -> Vec<Value> {
    let begin = START + 2 * DAY;
    let level = |at: Second| 1_000.25 + (at % 7) as f64;
    let value = |at: Second| if series == PACKETS { packets(at) } else { level(at) };
    let times = minutes(begin + 12 * HOUR + HOUR / 2, 6).chain([begin + 10]);
    times.map(|at| Value { series, at, value: Some(value(at)) }).collect()
}

fn level(series: usize, at: Second) -> f64 {
    ((at / 10 + 13 * series as Second) % 400) as f64 / 4.0
}

/// A counter that begins again every two days, with another rate.
fn packets(at: Second) -> f64 {
    let (time, begin) = ((at - START) / (2 * DAY), (at - START) % (2 * DAY));
    (begin / 10 * 5 * (1 + time % 3)) as f64
}

//! What a history must say of given samples. It is computed from all of them at once, second by second and from the
//! documented rules, without the functions of the program.

use std::collections::BTreeMap;

use fleetgate_engine::history::rollup::Bucket;
use fleetgate_engine::history::{BUCKET, DAY, HOUR, Second};

/// Samples of a series by their second.
pub type Samples = BTreeMap<Second, Option<f64>>;

/// What identifies a series, and its unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub host: i64,
    pub service: String,
    pub label: String,
    pub uom: String,
}

/// All series, also those without samples.
pub struct Model(pub BTreeMap<Name, OfSeries>);

pub struct OfSeries {
    pub samples: Samples,
    slots: BTreeMap<Second, Slot>,
}

/// Five minutes with a value.
#[derive(Default)]
struct Slot {
    /// Values as they are, or rates.
    values: Vec<f64>,
    /// Seconds that a sample covers.
    covered: u32,
}

impl Model {
    pub fn of(series: BTreeMap<Name, Samples>) -> Model {
        let of = |(name, samples): (Name, Samples)| {
            let slots = slots(&samples, name.uom == "c");
            (name, OfSeries { samples, slots })
        };
        Model(series.into_iter().map(of).collect())
    }
}

impl OfSeries {
    /// Returns the buckets of this width. Five minutes without a value are unknown in wider ones.
    pub fn buckets(&self, width: Second) -> Vec<Bucket> {
        let mut buckets: BTreeMap<Second, Bucket> = BTreeMap::new();
        for (at, slot) in &self.slots {
            let at = at.div_euclid(width) * width;
            let bucket = buckets.entry(at).or_insert(Bucket {
                at,
                min: f64::INFINITY,
                max: f64::NEG_INFINITY,
                sum: 0.0,
                count: 0,
                last: 0.0,
                unknown_s: width as u32,
            });
            for value in &slot.values {
                bucket.min = bucket.min.min(*value);
                bucket.max = bucket.max.max(*value);
                bucket.sum += value;
                bucket.count += 1;
                bucket.last = *value;
            }
            bucket.unknown_s -= slot.covered;
        }
        buckets.into_values().collect()
    }
}

fn slots(samples: &Samples, is_counter: bool) -> BTreeMap<Second, Slot> {
    let (mut slots, mut before) = (BTreeMap::new(), None);
    let mut next = samples.keys().next().copied();
    while let Some(at) = next {
        let begin = at.div_euclid(DAY) * DAY;
        let of_day: Vec<Sample> =
            samples.range(begin..begin + DAY).map(|(at, value)| (*at, *value)).collect();
        add_day(&mut slots, begin, before, &of_day, is_counter);
        before = of_day.last().copied();
        next = samples.range(begin + DAY..).next().map(|(at, _)| *at);
    }
    slots
}

type Sample = (Second, Option<f64>);

fn add_day(
    slots: &mut BTreeMap<Second, Slot>,
    begin: Second,
    mut before: Option<Sample>,
    of_day: &[Sample],
    is_counter: bool,
) {
    let reach = reach(of_day);
    let mut covered = vec![false; DAY as usize];
    for (at, value) in of_day {
        let near = before.filter(|(from, _)| at - from <= reach);
        before = Some((*at, *value));
        let value = if is_counter { near.and_then(|near| rate(near, (*at, *value))) } else { *value };
        let Some(value) = value else { continue };
        slots.entry(at.div_euclid(BUCKET) * BUCKET).or_default().values.push(value);
        if let Some((from, _)) = near {
            covered[(from.max(begin) - begin) as usize..(at - begin) as usize].fill(true);
        }
    }
    for (at, slot) in slots.range_mut(begin..begin + DAY) {
        let seconds = &covered[(at - begin) as usize..][..BUCKET as usize];
        slot.covered = seconds.iter().filter(|is_covered| **is_covered).count() as u32;
    }
}

/// A sample covers three times the usual interval of its day at most: at least ten seconds, and no more than three hours.
fn reach(of_day: &[Sample]) -> Second {
    let mut intervals: Vec<Second> = of_day.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    intervals.sort_unstable();
    match intervals.len() {
        0 => 0,
        len => (3 * intervals[(len - 1) / 2]).clamp(10, 3 * HOUR),
    }
}

/// A counter that fell began again. The counters here have rates of few digits.
fn rate((from, before): Sample, (at, value): Sample) -> Option<f64> {
    let (before, value) = (before?, value?);
    (value >= before).then(|| (value - before) / (at - from) as f64)
}

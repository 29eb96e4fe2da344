//! Queries: the resolution that answers one, its columns, and groups of hosts.

use std::cmp::{max, min};

use fleetgate_probes::range::{Range, Thresholds};

pub use super::sparkline::sparkline;

use super::rollup::Bucket;
use super::{BUCKET, DAY, HOUR, Second};

/// Widths below a day: readable divisors of a day.
pub const USUAL_WIDTHS_S: [Second; 15] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 10_800, 21_600];
/// Times beyond 30,000 years count as this one.
const FAR: Second = 1_000_000_000_000;

/// A resolution in which history is kept, from fine to coarse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Raw,
    FiveMinutes,
    Hours,
    Days,
}

impl Tier {
    pub const ALL: [Tier; 4] = [Tier::Raw, Tier::FiveMinutes, Tier::Hours, Tier::Days];

    /// Returns the name that the API uses.
    pub const fn name(self) -> &'static str {
        match self {
            Tier::Raw => "raw",
            Tier::FiveMinutes => "5m",
            Tier::Hours => "1h",
            Tier::Days => "1d",
        }
    }

    /// Returns the width of its buckets; a second for samples.
    pub const fn step_s(self) -> Second {
        match self {
            Tier::Raw => 1,
            Tier::FiveMinutes => BUCKET,
            Tier::Hours => HOUR,
            Tier::Days => DAY,
        }
    }

    /// Returns the days of one block of buckets. Samples have two blocks a day.
    pub const fn block_days(self) -> Second {
        match self {
            Tier::Raw => 1,
            Tier::FiveMinutes => 8,
            Tier::Hours => 64,
            Tier::Days => 512,
        }
    }
}

/// How long each tier is kept, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    pub raw: Second,
    pub five_minutes: Second,
    pub hours: Second,
    /// `None`: for ever.
    pub days: Option<Second>,
}

impl Kept {
    fn age(&self, tier: Tier) -> Second {
        match tier {
            Tier::Raw => self.raw,
            Tier::FiveMinutes => self.five_minutes,
            Tier::Hours => self.hours,
            Tier::Days => self.days.unwrap_or(Second::MAX),
        }
    }
}

/// What to read for a query: buckets of `step` within `[start, end)`, which are multiples of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub tier: Tier,
    pub step: Second,
    pub start: Second,
    pub end: Second,
}

impl Plan {
    fn steps(&self) -> usize {
        usize::try_from((self.end - self.start) / max(self.step, 1)).unwrap_or(0)
    }

    /// Returns the part of which every bucket lies within `[from, to)` as a whole. `None`: no bucket does.
    pub fn within(self, from: Second, to: Second) -> Option<Plan> {
        let step = max(self.step, 1);
        let start = max(from, self.start).saturating_add(step - 1).div_euclid(step) * step;
        let end = min(to, self.end).div_euclid(step) * step;
        (start < end).then_some(Plan { start, end, ..self })
    }
}

/// Plans a query of `[from, to)` with at most so many points, two at least. Samples answer steps below five
/// minutes; otherwise the coarsest tier that has the step answers it, as a finer one would. One that is not
/// kept for as long is left to the next coarser one, with its step.
pub fn plan(from: Second, to: Second, points: u32, now: Second, kept: &Kept) -> Plan {
    let (from, now) = (from.clamp(-FAR, FAR), now.clamp(-FAR, FAR));
    let to = to.clamp(from + 1, max(from + 1, FAR));
    let wanted = width(from, to, points);
    let tier = tier(wanted, now - from, kept);
    let step = max(wanted, tier.step_s());
    let start = from.div_euclid(step) * step;
    Plan { tier, step, start, end: ((to - 1).div_euclid(step) + 1) * step }
}

/// Returns the smallest usual width that cuts `[from, to)` into at most `most` buckets, including partial
/// ones. At least two are always allowed, because a short time may have midnight in it.
pub fn width(from: Second, to: Second, most: u32) -> Second {
    let most = Second::from(most.max(2));
    let least = max((to - from) / DAY / most, 1);
    let days = (least..).map(|n| n.saturating_mul(DAY));
    let buckets = |width: Second| (to - 1).div_euclid(width) - from.div_euclid(width) + 1;
    let mut widths = USUAL_WIDTHS_S.into_iter().chain(days);
    widths.find(|width| buckets(*width) <= most).unwrap_or(DAY)
}

/// Returns the tier for a usual width and a time that is `age` old.
fn tier(width: Second, age: Second, kept: &Kept) -> Tier {
    let is_kept = |tier: &Tier| kept.age(*tier) >= age;
    let usual = |tier: &Tier| (width >= BUCKET) == (*tier != Tier::Raw);
    let fitting = |tier: &Tier| tier.step_s() <= width && usual(tier);
    let coarsest = Tier::ALL.into_iter().rev().filter(fitting).find(is_kept);
    let coarser =
        || Tier::ALL.into_iter().find(|tier| tier.step_s() > width && *tier != Tier::Raw && is_kept(tier));
    let longest = || Tier::ALL.into_iter().skip(1).max_by_key(|tier| kept.age(*tier));
    coarsest.or_else(coarser).or_else(longest).unwrap_or(Tier::Days)
}

/// A series by steps, from the start of a plan; `None` is a gap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Columns {
    pub min: Vec<Option<f64>>,
    pub avg: Vec<Option<f64>>,
    pub max: Vec<Option<f64>>,
    pub count: Vec<u32>,
}

impl Columns {
    fn empty(len: usize) -> Columns {
        Columns { min: vec![None; len], avg: vec![None; len], max: vec![None; len], count: vec![0; len] }
    }

    /// Returns the columns of a plan without a value.
    pub fn of(plan: &Plan) -> Columns {
        Columns::empty(plan.steps())
    }

    /// Takes the values of columns that begin `offset` steps later.
    pub fn put(&mut self, later: &Columns, offset: usize) {
        for (i, count) in later.count.iter().enumerate().take(self.count.len().saturating_sub(offset)) {
            if let Some(values) = later.get(i) {
                self.set(i + offset, values, *count);
            }
        }
    }

    /// Removes the first value. That of a counter is a rate since a sample that may be before the first step.
    pub fn remove_first(&mut self) {
        if let Some(i) = self.count.iter().position(|count| *count > 0) {
            (self.min[i], self.avg[i], self.max[i], self.count[i]) = (None, None, None, 0);
        }
    }

    fn set(&mut self, i: usize, [min, avg, max]: [f64; 3], count: u32) {
        (self.min[i], self.avg[i], self.max[i]) = (Some(min), Some(avg), Some(max));
        self.count[i] = count;
    }

    fn get(&self, i: usize) -> Option<[f64; 3]> {
        let at = |column: &[Option<f64>]| column.get(i).copied().flatten();
        Some([at(&self.min)?, at(&self.avg)?, at(&self.max)?])
    }
}

/// Returns the columns of a plan from buckets in order of time, as wide as its step or a part of it. Those
/// outside of it are left out.
pub fn columns(buckets: &[Bucket], plan: &Plan) -> Columns {
    let step = max(plan.step, 1);
    let len = plan.steps();
    let mut columns = Columns::empty(len);
    let slot = |bucket: &Bucket| (bucket.at - plan.start).div_euclid(step);
    for part in super::rollup::merge(buckets, 1, step) {
        if let Some(i) = usize::try_from(slot(&part)).ok().filter(|i| *i < len && part.count > 0) {
            columns.set(i, [part.min, part.sum / f64::from(part.count), part.max], part.count);
        }
    }
    columns
}

/// The direction in which a value is bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Direction {
    High,
    Low,
    /// Away from this middle.
    Outside(f64),
    /// Near this middle.
    Inside(f64),
}

/// Returns the direction of the critical threshold, or else of the warning one; high without any. A range
/// that begins at 0 is one without a lower end, because `90` means 0 to 90.
pub fn direction(limits: Thresholds) -> Direction {
    let Some(Range { start, end, inside }) = limits.crit.or(limits.warn) else { return Direction::High };
    let middle = start + (end - start) / 2.0;
    match (start.is_finite(), end.is_finite(), inside) {
        (true, true, true) => Direction::Inside(middle),
        (true, true, false) if start != 0.0 => Direction::Outside(middle),
        (true, false, false) | (false, true, true) => Direction::Low,
        _ => Direction::High,
    }
}

/// The hosts of a group together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// The means over the hosts that have a value; `count` is how many these are.
    pub columns: Columns,
    /// The worst value of any host.
    pub worst: Vec<Option<f64>>,
    pub hosts: u32,
}

/// Puts the columns of several hosts together. Each host counts the same, however often it is checked.
pub fn group(members: &[Columns], direction: Direction) -> Group {
    let len = members.iter().map(|member| member.count.len()).max().unwrap_or(0);
    let hosts = u32::try_from(members.len()).unwrap_or(u32::MAX);
    let mut group = Group { columns: Columns::empty(len), worst: vec![None; len], hosts };
    for i in 0..len {
        let known: Vec<[f64; 3]> = members.iter().filter_map(|member| member.get(i)).collect();
        let Ok(count @ 1..) = u32::try_from(known.len()) else { continue };
        let mean = |field: usize| known.iter().map(|values| values[field]).sum::<f64>() / f64::from(count);
        group.columns.set(i, [mean(0), mean(1), mean(2)], count);
        group.worst[i] = known.iter().flatten().copied().reduce(|a, b| worse(a, b, direction));
    }
    group
}

fn worse(a: f64, b: f64, direction: Direction) -> f64 {
    match direction {
        Direction::High => a.max(b),
        Direction::Low => a.min(b),
        Direction::Outside(middle) => {
            if (b - middle).abs() > (a - middle).abs() {
                b
            } else {
                a
            }
        }
        Direction::Inside(middle) => {
            if (b - middle).abs() < (a - middle).abs() {
                b
            } else {
                a
            }
        }
    }
}

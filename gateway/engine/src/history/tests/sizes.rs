//! What twelve realistic series take: RTT, loss, SSH time, saw-tooth disks, temperature, load and counters,
//! one sample a minute with the jitter of a schedule.

use super::super::block::{encode_buckets, encode_raw};
use super::super::packed::Packed;
use super::super::rollup::{Bucket, merge, roll_up};
use super::super::{BUCKET, DAY, HOUR};
use super::*;

/// A SplitMix, which every test has the same of.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Around 0, with a deviation of 1.
    fn noise(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }

    fn one_in(&mut self, n: f64) -> bool {
        self.next() * n < 1.0
    }
}

const DAYS: Second = 64;

fn rounded(value: f64, decimals: i32) -> f64 {
    let power = 10f64.powi(decimals);
    (value * power).round() / power
}

/// Calls `value` each minute, with the minute of the day.
fn series(seed: u64, mut value: impl FnMut(&mut Dice, f64) -> Option<f64>) -> Vec<Point> {
    let (mut dice, mut list) = (Dice(seed), Vec::new());
    let mut phase = 17.0;
    for minute in 0..DAYS * 1_440 {
        phase += dice.noise() * 0.05;
        let at = minute * 60 + (phase as Second).clamp(0, 59);
        list.push(Point { at, value: value(&mut dice, (minute % 1_440) as f64 / 1_440.0) });
    }
    list
}

fn daily(part: f64) -> f64 {
    (part * std::f64::consts::TAU).sin()
}

fn rtt(seed: u64, base: f64, jitter: f64) -> Vec<Point> {
    series(seed, |dice, part| {
        let spike = if dice.one_in(200.0) { dice.next() * 40.0 } else { 0.0 };
        let ms = base + base * 0.05 * daily(part) + jitter * dice.noise().abs() + spike;
        (!dice.one_in(500.0)).then(|| rounded(ms, 3))
    })
}

fn loss(seed: u64) -> Vec<Point> {
    series(seed, |dice, _| {
        Some(if dice.one_in(60.0) { 100.0 * (1.0 + dice.next() * 2.0).floor() / 3.0 } else { 0.0 })
    })
}

fn ssh_time(seed: u64) -> Vec<Point> {
    series(seed, |dice, part| Some(rounded(0.21 + 0.01 * daily(part) + 0.004 * dice.noise().abs(), 6)))
}

/// A disk that pictures fill, and a purge at night: percent used as the sensor divides it.
fn saw_tooth(seed: u64) -> Vec<Point> {
    let (total, mut used) = (59_242_680.0, 20e6);
    series(seed, |dice, part| {
        if dice.one_in(5.0) {
            used += (dice.next() * 60_000.0).floor();
        }
        if part == 0.125 {
            used = f64::max(used * 0.75, 10e6).floor();
        }
        Some(100.0 * f64::min(used, total) / total)
    })
}

fn temperature(seed: u64, step: f64) -> Vec<Point> {
    series(seed, |dice, part| Some(rounded((45.0 + 6.0 * daily(part) + dice.noise()) / step, 0) * step))
}

fn load(seed: u64) -> Vec<Point> {
    let mut load = 0.4;
    series(seed, |dice, part| {
        load = load * 0.8 + 0.2 * (0.5 + 0.2 * daily(part) + 0.2 * dice.noise()).max(0.0);
        Some(rounded(load, 2))
    })
}

fn counter(seed: u64, rate: f64) -> Vec<Point> {
    let mut count = 0.0;
    series(seed, |dice, part| {
        count += (rate * 60.0 * (1.0 + 0.5 * daily(part) + 0.3 * dice.noise()).max(0.0)).floor();
        if dice.one_in(20_000.0) {
            count = 0.0;
        }
        Some(count)
    })
}

/// Two series of each kind.
fn all() -> Vec<(&'static str, SeriesKind, Vec<Point>)> {
    use SeriesKind::*;
    vec![
        ("rtt of a lan", Gauge, rtt(1, 0.4, 0.05)),
        ("rtt of a line", Gauge, rtt(2, 18.0, 1.5)),
        ("loss", Gauge, loss(3)),
        ("loss", Gauge, loss(4)),
        ("saw-tooth", Gauge, saw_tooth(5)),
        ("saw-tooth", Gauge, saw_tooth(6)),
        ("temperature in halves", Gauge, temperature(7, 0.5)),
        ("temperature in 16ths", Gauge, temperature(8, 0.0625)),
        ("load", Gauge, load(9)),
        ("load", Gauge, load(10)),
        ("slow counter", Counter, counter(11, 900.0)),
        ("fast counter", Counter, counter(12, 2_500_000.0)),
    ]
}

/// Series of which nearly every digit is noise.
fn noisy() -> Vec<(&'static str, SeriesKind, Vec<Point>)> {
    vec![
        ("rtt of mobile radio", SeriesKind::Gauge, rtt(13, 55.0, 12.0)),
        ("ssh time", SeriesKind::Gauge, ssh_time(14)),
    ]
}

/// Cuts into windows of a length, by the times of the entries.
fn windows<T>(list: &[T], length: Second, at: impl Fn(&T) -> Second) -> Vec<&[T]> {
    list.chunk_by(|a, b| at(a).div_euclid(length) == at(b).div_euclid(length)).collect()
}

/// Returns the bytes of a table of these blocks, appended in this order, as SQLite lays out pages of 4,096
/// bytes: a leaf row has its lengths, key and pointer as well, and what is longer than 4,061 bytes fills
/// pages of its own but for a rest.
fn paged(blocks: impl Iterator<Item = usize>) -> f64 {
    const PAGE: usize = 4_096;
    const LONGEST: usize = PAGE - 35;
    const LEAST: usize = (PAGE - 12) * 32 / 255 - 23;
    let (mut pages, mut room) = (0, 0);
    for block in blocks {
        let payload = block + 5;
        let rest = LEAST + payload.saturating_sub(LEAST) % (PAGE - 4);
        let local = match payload {
            ..=LONGEST => payload,
            _ if rest <= LONGEST => rest,
            _ => LEAST,
        };
        pages += (payload - local).div_ceil(PAGE - 4);
        let row = local + 13;
        if row > room {
            (pages, room) = (pages + 1, PAGE - 8);
        }
        room -= row.min(room);
    }
    (pages * PAGE) as f64
}

/// Returns the sizes of the blocks of one tier.
fn tier(buckets: &[Bucket], width: Second, days: Second) -> Vec<usize> {
    let length = days * DAY;
    windows(buckets, length, |b| b.at)
        .into_iter()
        .map(|part| encode_buckets(0, 0, width, part).len())
        .collect()
}

/// The sizes of a series: bytes a sample in memory, then those of blocks.
struct Sizes {
    memory: f64,
    hours: Vec<usize>,
    raw: Vec<usize>,
    tiers: [Vec<usize>; 3],
}

/// The days that each kind of block of [`Sizes::tiers`] has.
const BLOCK_DAYS: [Second; 3] = [8, 64, 512];
/// For how many days raw samples and each tier are kept.
const KEPT: [f64; 4] = [30.0, 90.0, 1_098.0, 1_098.0];

/// Returns days for a whole block: those there are, again and again. A block knows no such patterns.
fn repeated(days: &[Bucket]) -> Vec<Bucket> {
    let again = |i: Second| Bucket { at: i * DAY, ..days[(i * 37 % DAYS) as usize] };
    (0..512).map(again).collect()
}

fn sizes(list: &[Point], kind: SeriesKind) -> Sizes {
    let blocks = |length| -> Vec<usize> {
        windows(list, length, |p| p.at).into_iter().map(|part| encode_raw(0, 0, part, kind).len()).collect()
    };
    let mut packed = Packed::default();
    list.iter().take(60).for_each(|point| packed.push(*point, kind));
    let days = windows(list, DAY, |p| p.at).into_iter();
    let narrow: Vec<Bucket> = days.flat_map(|day| roll_up(day, None, kind, BUCKET)).collect();
    let hourly = merge(&narrow, BUCKET, HOUR);
    let daily = repeated(&merge(&hourly, HOUR, DAY));
    let widths = [(&narrow, BUCKET), (&hourly, HOUR), (&daily, DAY)].into_iter().zip(BLOCK_DAYS);
    let tiers: Vec<_> = widths.map(|((buckets, width), days)| tier(buckets, width, days)).collect();
    Sizes {
        memory: packed.len_bytes() as f64 / 60.0,
        hours: blocks(HOUR),
        raw: blocks(12 * HOUR),
        tiers: tiers.try_into().expect("three"),
    }
}

/// Returns the bytes of a day of all series in pages. Blocks of one window stand next to each other.
fn of_a_day(found: &[Sizes], blocks: impl Fn(&Sizes) -> &[usize]) -> f64 {
    let windows = found.iter().map(|s| blocks(s).len()).max().unwrap_or(0);
    let in_order = (0..windows).flat_map(|i| found.iter().map(move |s| (s, i)));
    paged(in_order.filter_map(|(s, i)| blocks(s).get(i).copied())) / DAYS as f64
}

fn print(name: &str, samples: usize, sizes: &Sizes) {
    let sum = |blocks: &[usize]| blocks.iter().sum::<usize>() as f64;
    let [hours, raw] = [&sizes.hours, &sizes.raw].map(|blocks| sum(blocks) / samples as f64);
    let kb = |blocks: &[usize], kept: f64, days: Second| sum(blocks) / days as f64 * kept / 1e3;
    let [five, hour, day] =
        [(0, DAYS), (1, DAYS), (2, 512)].map(|(i, days)| kb(&sizes.tiers[i], KEPT[i + 1], days));
    print!("{name:<36} {:7.2} {hours:7.2} {raw:10.2}", sizes.memory);
    println!(" {:11.1} {five:9.1} {hour:8.1} {day:8.1}", kb(&sizes.raw, KEPT[0], DAYS));
}

#[test]
fn a_sample_takes_less_than_two_bytes_and_three_years_of_a_series_less_than_350_kb() {
    let all = all();
    let found: Vec<Sizes> = all.iter().map(|(_, kind, list)| sizes(list, *kind)).collect();
    println!(
        "series               bytes a sample: memory   hours  half days   KB: 30 d  5 m 90 d  1 h 3 y  1 d 3 y"
    );
    all.iter().zip(&found).for_each(|((name, _, list), sizes)| print(name, list.len(), sizes));
    noisy().iter().for_each(|(name, kind, list)| print(name, list.len(), &sizes(list, *kind)));
    let samples: usize = all.iter().map(|(.., list)| list.len()).sum();
    let per_sample = of_a_day(&found, |s| &s.raw) * DAYS as f64 / samples as f64;
    let days = [
        of_a_day(&found, |s| &s.raw),
        of_a_day(&found, |s| &s.tiers[0]),
        of_a_day(&found, |s| &s.tiers[1]),
        of_a_day(&found, |s| &s.tiers[2]) * DAYS as f64 / 512.0,
    ];
    let kb = days.iter().zip(KEPT).map(|(day, kept)| day * kept).sum::<f64>() / found.len() as f64 / 1e3;
    println!("in pages: {per_sample:.2} bytes a sample, {kb:.0} KB a series for three years");
    assert!(per_sample < 2.0, "{per_sample}");
    assert!(kb < 350.0, "{kb}");
}

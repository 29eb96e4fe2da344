//! What twelve realistic series take: RTT, loss, SSH time, saw-tooth disks, temperature, load and counters,
//! one sample a minute with the jitter of a schedule.

use super::super::block::{encode_buckets, encode_raw};
use super::super::packed::Packed;
use super::super::rollup::{Bucket, merge, roll_up, values};
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

fn all() -> Vec<(&'static str, Kind, Vec<Point>)> {
    use Kind::*;
    vec![
        ("rtt of a lan", Gauge, rtt(1, 0.4, 0.05)),
        ("rtt of a line", Gauge, rtt(2, 18.0, 1.5)),
        ("rtt of mobile radio", Gauge, rtt(3, 55.0, 12.0)),
        ("loss", Gauge, loss(4)),
        ("loss", Gauge, loss(5)),
        ("ssh time", Gauge, ssh_time(6)),
        ("saw-tooth", Gauge, saw_tooth(7)),
        ("saw-tooth", Gauge, saw_tooth(8)),
        ("temperature", Gauge, temperature(9, 0.5)),
        ("load", Gauge, load(10)),
        ("slow counter", Counter, counter(11, 900.0)),
        ("fast counter", Counter, counter(12, 2_500_000.0)),
    ]
}

/// Cuts into windows of a length, by the times of the entries.
fn windows<T>(list: &[T], length: Second, at: impl Fn(&T) -> Second) -> Vec<&[T]> {
    list.chunk_by(|a, b| at(a).div_euclid(length) == at(b).div_euclid(length)).collect()
}

/// Bytes of the pages of a table with these blocks in order: leaves of 4,096 bytes, of which each row
/// takes its key, its lengths and its pointer as well. One that is too long has pages of its own.
fn paged(blocks: &[usize]) -> usize {
    let (mut pages, mut room) = (0, 0);
    for block in blocks {
        let row = block + 14;
        if row > 4_061 {
            pages += row.div_ceil(4_092);
        } else if row > room {
            (pages, room) = (pages + 1, 4_088 - row);
        } else {
            room -= row;
        }
    }
    pages * 4_096
}

/// Blocks of one tier over a time, as many series would have them next to each other.
fn tier(buckets: &[Bucket], width: Second, days: Second) -> Vec<usize> {
    let length = days * DAY;
    windows(buckets, length, |b| b.at)
        .into_iter()
        .map(|part| encode_buckets(0, 0, width, part).len())
        .collect()
}

struct Sizes {
    fresh: f64,
    hours: f64,
    raw: Vec<usize>,
    /// Bytes of 5-minute, hourly and daily buckets, for as long as each is kept.
    tiers: [f64; 3],
    raw_kb: f64,
}

fn sizes(list: &[Point], kind: Kind) -> Sizes {
    let n = list.len() as f64;
    let raw_blocks = |length| -> Vec<usize> {
        windows(list, length, |p| p.at).into_iter().map(|part| encode_raw(0, 0, part, kind).len()).collect()
    };
    let (hours, raw) = (raw_blocks(HOUR), raw_blocks(12 * HOUR));
    let mut packed = Packed::default();
    list.iter().take(60).for_each(|point| packed.push(*point, kind));
    let narrow: Vec<Bucket> =
        windows(list, DAY, |p| p.at).into_iter().flat_map(|day| roll_up(day, None, kind, BUCKET)).collect();
    let hourly = merge(&narrow, BUCKET, HOUR);
    let daily = merge(&hourly, HOUR, DAY);
    let bytes = |blocks: &[usize]| blocks.iter().sum::<usize>() as f64;
    let kept = |buckets: &[Bucket], width, block_days, days: f64| {
        bytes(&tier(buckets, width, block_days)) / DAYS as f64 * days
    };
    Sizes {
        fresh: packed.len_bytes() as f64 / 60.0,
        hours: bytes(&hours) / n,
        raw_kb: bytes(&raw) / DAYS as f64 * 30.0,
        tiers: [
            kept(&narrow, BUCKET, 8, 90.0),
            kept(&hourly, HOUR, 64, 1_098.0),
            kept(&daily, DAY, 512, 1_098.0),
        ],
        raw,
    }
}

#[test]
fn a_sample_takes_less_than_two_bytes_and_three_years_of_a_series_less_than_350_kb() {
    println!("series               memory  hour blocks  half days    30 d      5 m      1 h      1 d (KB)");
    let all = all();
    let found: Vec<Sizes> = all.iter().map(|(_, kind, list)| sizes(list, *kind)).collect();
    for ((name, _, list), sizes) in all.iter().zip(&found) {
        let n = list.len() as f64;
        let raw = sizes.raw.iter().sum::<usize>() as f64 / n;
        let [five, hours, days] = sizes.tiers.map(|bytes| bytes / 1e3);
        let (fresh, hour, kb) = (sizes.fresh, sizes.hours, sizes.raw_kb / 1e3);
        println!("{name:<20} {fresh:6.2} {hour:12.2} {raw:10.2} {kb:8.1} {five:8.1} {hours:8.1} {days:8.1}");
    }
    // Blocks of one window stand next to each other.
    let blocks = found[0].raw.len();
    let in_order: Vec<usize> =
        (0..blocks).flat_map(|i| found.iter().filter_map(move |s| s.raw.get(i).copied())).collect();
    let samples: usize = all.iter().map(|(.., list)| list.len()).sum();
    let per_sample = paged(&in_order) as f64 / samples as f64;
    let mean = |of: &dyn Fn(&Sizes) -> f64| found.iter().map(of).sum::<f64>() / found.len() as f64 / 1e3;
    let kb = mean(&|s| s.raw_kb + s.tiers.iter().sum::<f64>());
    println!("{per_sample:.2} bytes a sample in pages, {kb:.0} KB a series for three years without slack");
    assert!(per_sample < 2.0, "{per_sample}");
    // Pages are filled to four fifths at least.
    assert!(kb * 1.25 < 350.0, "{kb}");
}

/// Prints the time of an encoding and a decoding; nothing depends on it.
#[test]
#[ignore = "prints times"]
fn times() {
    for (name, kind, list) in all() {
        let day = &list[..1_440];
        let timed = |what: &mut dyn FnMut() -> usize| {
            let begin = std::time::Instant::now();
            let total: usize = (0..200).map(|_| what()).sum();
            (begin.elapsed().as_micros() as f64 / 200.0, total)
        };
        let encode = timed(&mut || encode_raw(0, 0, &day[..720], kind).len()).0;
        let block = encode_raw(0, 0, &day[..720], kind);
        let decode = timed(&mut || super::super::block::decode_raw(0, 0, &block).map_or(0, |p| p.len())).0;
        let rolled = timed(&mut || roll_up(day, None, kind, BUCKET).len()).0;
        let meant = timed(&mut || values(day, None, kind, 180).len()).0;
        let buckets = roll_up(day, None, kind, BUCKET);
        let buckets = timed(&mut || encode_buckets(0, 0, BUCKET, &buckets).len()).0;
        println!(
            "{name:<20} encode 720 {encode:.0} us, decode {decode:.0}, roll up a day {rolled:.0} (values {meant:.0}), encode it {buckets:.0}"
        );
    }
}

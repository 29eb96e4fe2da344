//! Blocks: the samples or buckets of one series in one window of time, compressed and checksummed.
//!
//! `version u8 | kind u8 (0 raw, 1 buckets) | n u32 | crc32 u32 | columns`, little endian. The checksum
//! covers the block without itself, and the key under which it is stored: a block in the wrong place is
//! damaged as well.
//!
//! Columns of raw samples: seconds since the begin of the window, the values there are, and runs of samples
//! without one. Columns of buckets: number within the window, count, unknown seconds, min, max, sum and
//! last, the latter four as [`differences`]. Values of buckets that are not all decimal numbers of one
//! exponent are stored as they are, as the bits of doubles.

use std::borrow::Cow;

use super::column::{self, Column};
use super::decimal::{self, FLOAT};
use super::differences;
use super::rollup::Bucket;
use super::{Point, Second, SeriesKind, sorted};

/// Most samples of a block: 12 hours of one a second. Of more, the newest are kept.
pub const MAX_IN_BLOCK: usize = 43_200;

const VERSION: u8 = 1;
const RAW: u8 = 0;
const BUCKETS: u8 = 1;
/// The values of a bucket in the order of their columns.
const FIELDS: [fn(&Bucket) -> f64; 4] = [|b| b.min, |b| b.max, |b| b.sum, |b| b.last];
/// The bytes before the columns.
const HEAD: usize = 10;
/// The bytes of them that the checksum covers.
const COVERED: usize = 6;

/// Why bytes are not a block or a row of the redo.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Damaged {
    #[error("it is shorter than its head")]
    Short,
    #[error("its version is {0}, which this program does not know")]
    Version(u8),
    #[error("its content is of kind {0}, which is not expected here")]
    Kind(u8),
    #[error("its checksum does not match")]
    Checksum,
    #[error("its length does not match its content")]
    Length,
    #[error("one of its columns cannot be decoded")]
    Column,
}

/// Returns the key of a block: blocks are in order of time, then of series. `series` is below 2^31.
pub const fn key(start_hour: u32, series: u32) -> i64 {
    (start_hour as i64) << 32 | series as i64
}

/// Returns the hour since 1970 in which a block begins, and its series.
pub const fn parts(key: i64) -> (u32, u32) {
    ((key >> 32) as u32, key as u32)
}

/// Encodes samples in order of time. A value that is not finite is a gap.
pub fn encode_raw(key: i64, start: Second, points: &[Point], kind: SeriesKind) -> Vec<u8> {
    let points = newest(points, |p| p.at);
    let finite = |point: &Point| point.value.filter(|v| v.is_finite());
    let seconds: Vec<i64> = points.iter().map(|p| p.at.wrapping_sub(start)).collect();
    let values: Vec<f64> = points.iter().filter_map(finite).collect();
    let mut block = headed(RAW, points.len());
    column::put(&mut block, 0, &seconds);
    column::put_scaled(&mut block, &decimal::scaled(&values, kind));
    column::put_list(&mut block, &gaps(points.iter().map(|p| finite(p).is_none())));
    sealed(block, key)
}

/// Decodes samples, in order of time.
///
/// # Errors
/// Fails if the bytes are not those that [`encode_raw`] made for this key. It never panics.
pub fn decode_raw(key: i64, start: Second, data: &[u8]) -> Result<Vec<Point>, Damaged> {
    let (n, mut columns) = opened(data, RAW, key)?;
    let seconds = Column::read(&mut columns)?.numbers(n)?;
    let values = Column::read(&mut columns)?;
    let is_gap = unfolded(&Column::read(&mut columns)?.list()?, n)?;
    ended(columns)?;
    let known = is_gap.iter().filter(|is_gap| !**is_gap).count();
    let mut kept = values.numbers(known)?.into_iter().map(|m| decimal::value(m, values.exponent));
    let point = |(second, is_gap): (i64, bool)| Point {
        at: start.wrapping_add(second),
        value: if is_gap { None } else { kept.next().filter(|v| v.is_finite()) },
    };
    rising(seconds.into_iter().zip(is_gap).map(point).collect(), |p: &Point| p.at)
}

/// Encodes buckets in order of time. `width` is that of a bucket; each begins at a multiple of it after
/// `start`.
pub fn encode_buckets(key: i64, start: Second, width: Second, buckets: &[Bucket]) -> Vec<u8> {
    let buckets = newest(buckets, |b| b.at);
    let slots: Vec<i64> = buckets.iter().map(|b| b.at.wrapping_sub(start).div_euclid(width.max(1))).collect();
    let of = |number: &dyn Fn(&Bucket) -> i64| -> Vec<i64> { buckets.iter().map(number).collect() };
    let mut block = headed(BUCKETS, buckets.len());
    column::put(&mut block, 0, &slots);
    column::put(&mut block, 0, &of(&|b| i64::from(b.count)));
    column::put(&mut block, 0, &of(&|b| i64::from(b.unknown_s)));
    match differences::of(&buckets) {
        Some((exponent, columns)) => {
            columns.iter().for_each(|ways| column::put_shorter(&mut block, exponent, ways))
        }
        None => FIELDS.iter().for_each(|field| {
            column::put(&mut block, FLOAT, &of(&|b| field(b).to_bits() as i64));
        }),
    }
    sealed(block, key)
}

/// Decodes buckets, in order of time.
///
/// # Errors
/// Fails if the bytes are not those that [`encode_buckets`] made for this key. It never panics.
pub fn decode_buckets(key: i64, start: Second, width: Second, data: &[u8]) -> Result<Vec<Bucket>, Damaged> {
    let (n, mut columns) = opened(data, BUCKETS, key)?;
    let mut next = || Column::read(&mut columns);
    let (slot, count, unknown) = (next()?, next()?, next()?);
    let values = [next()?, next()?, next()?, next()?];
    ended(columns)?;
    let (slot, count, unknown) = (slot.numbers(n)?, count.numbers(n)?, unknown.numbers(n)?);
    let values = absolute(&values, &count)?;
    let bucket = |(i, [min, max, sum, last]): (usize, [f64; 4])| {
        let (count, unknown_s) = (u32::try_from(count[i]).ok()?, u32::try_from(unknown[i]).ok()?);
        let at = start.checked_add(slot[i].checked_mul(width)?)?;
        Some(Bucket { at, min, max, sum, count, last, unknown_s })
    };
    let buckets: Option<Vec<Bucket>> = values.into_iter().enumerate().map(bucket).collect();
    rising(buckets.ok_or(Damaged::Column)?, |b| b.at)
}

/// Returns min, max, sum and last of each bucket.
fn absolute(columns: &[Column<'_>; 4], count: &[i64]) -> Result<Vec<[f64; 4]>, Damaged> {
    let exponent = columns[0].exponent;
    if columns.iter().any(|column| column.exponent != exponent) {
        return Err(Damaged::Column);
    }
    let is_second = columns.each_ref().map(Column::is_second);
    let [min, max, sum, last] = columns.each_ref().map(|column| column.numbers(count.len()));
    let numbers = [min?, max?, sum?, last?];
    let mut previous = 0;
    let row = |(i, count): (usize, &i64)| {
        let row = numbers.each_ref().map(|numbers| numbers[i]);
        let whole = match exponent {
            FLOAT => row,
            _ => differences::values(row, is_second, *count, previous)?,
        };
        previous = whole[3];
        Some(whole.map(|mantissa| decimal::value(mantissa, exponent)))
    };
    count.iter().enumerate().map(row).collect::<Option<_>>().ok_or(Damaged::Column)
}

/// Returns the runs of samples without a value: how many have one before each run, and its length.
fn gaps(is_gap: impl Iterator<Item = bool>) -> Vec<u64> {
    let mut runs: Vec<u64> = Vec::new();
    // After an odd number of runs, the one in progress has no values.
    let mut length = 0;
    for is_gap in is_gap {
        let was_gap = runs.len() % 2 == 1;
        if is_gap != was_gap {
            runs.push(std::mem::take(&mut length));
        }
        length += 1;
    }
    if runs.len() % 2 == 1 {
        runs.push(length);
    }
    runs
}

/// Returns which of `n` samples have no value.
fn unfolded(runs: &[u64], n: usize) -> Result<Vec<bool>, Damaged> {
    let mut is_gap = Vec::with_capacity(n);
    for (i, run) in runs.iter().enumerate() {
        let run = usize::try_from(*run).ok().filter(|run| *run <= n - is_gap.len()).ok_or(Damaged::Column)?;
        is_gap.resize(is_gap.len() + run, i % 2 == 1);
    }
    is_gap.resize(n, false);
    Ok(is_gap)
}

fn headed(kind: u8, n: usize) -> Vec<u8> {
    let mut block = vec![VERSION, kind];
    block.extend(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    block.extend([0; HEAD - COVERED]);
    block
}

/// Fills in the checksum.
fn sealed(mut block: Vec<u8>, key: i64) -> Vec<u8> {
    let checksum = checksum(&block, key).to_le_bytes();
    block[COVERED..HEAD].copy_from_slice(&checksum);
    block
}

fn checksum(block: &[u8], key: i64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&block[..COVERED]);
    hasher.update(&key.to_le_bytes());
    hasher.update(&block[HEAD..]);
    hasher.finalize()
}

/// Returns the number of entries and the columns of a block that is whole.
fn opened(data: &[u8], expected: u8, key: i64) -> Result<(usize, &[u8]), Damaged> {
    let (head, columns) = data.split_first_chunk::<HEAD>().ok_or(Damaged::Short)?;
    let [version, kind, n0, n1, n2, n3, crc @ ..] = *head;
    if version != VERSION {
        return Err(Damaged::Version(version));
    }
    if kind != expected {
        return Err(Damaged::Kind(kind));
    }
    if u32::from_le_bytes(crc) != checksum(data, key) {
        return Err(Damaged::Checksum);
    }
    let n = usize::try_from(u32::from_le_bytes([n0, n1, n2, n3])).unwrap_or(usize::MAX);
    if n <= MAX_IN_BLOCK { Ok((n, columns)) } else { Err(Damaged::Length) }
}

fn ended(columns: &[u8]) -> Result<(), Damaged> {
    if columns.is_empty() { Ok(()) } else { Err(Damaged::Length) }
}

/// Returns the entries that a block takes, in order of time.
fn newest<T: Copy>(list: &[T], at: impl Fn(&T) -> Second) -> Cow<'_, [T]> {
    let is_fit = list.len() <= MAX_IN_BLOCK && is_rising(list, &at);
    if is_fit {
        return Cow::Borrowed(list);
    }
    let mut list = sorted(list.to_vec(), at);
    Cow::Owned(list.split_off(list.len().saturating_sub(MAX_IN_BLOCK)))
}

fn is_rising<T>(list: &[T], at: impl Fn(&T) -> Second) -> bool {
    list.is_sorted_by(|a, b| at(a) < at(b))
}

/// Readers merge lists, so one that is out of order is none.
fn rising<T>(list: Vec<T>, at: impl Fn(&T) -> Second) -> Result<Vec<T>, Damaged> {
    if is_rising(&list, at) { Ok(list) } else { Err(Damaged::Column) }
}

//! Samples that are not sealed yet: in memory by series, and in the redo by commit. Both are made a sample
//! at a time, in 2 to 5 bytes of it, in any order of times.
//!
//! A token has the kind of the value in its high half and the difference of times in its low half:
//! `0..=9` an exponent, with the mantissa behind it; [`BITS`] a double; [`GAP`]. Times, mantissas and
//! numbers of series are differences from those before.

use super::block::Damaged;
use super::decimal::{self, FLOAT};
use super::varint::{self, Reader};
use super::{Point, Second, SeriesKind};

/// The version of a row of the redo.
const VERSION: u8 = 1;
/// The bytes before the samples of a row: the version and a checksum.
const HEAD: usize = 5;
const BITS: u8 = 10;
const GAP: u8 = 11;
/// The low half of a token whose difference of times follows it.
const FAR: u8 = 15;
/// The low half of a token for no difference.
const MIDDLE: i64 = 7;
/// The most bytes of a sample: token, time and value.
const LONGEST: usize = 21;
/// Memory is taken in such steps: a buffer that doubles would waste a third.
const GROWTH: usize = 48;

/// The samples of one series, append-only.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    bytes: Vec<u8>,
    state: State,
    count: u32,
}

impl Packed {
    pub fn push(&mut self, point: Point, kind: SeriesKind) {
        if self.bytes.capacity() - self.bytes.len() < LONGEST {
            self.bytes.reserve_exact(GROWTH);
        }
        let value = kept(point, kind).map(|value| self.state.fitted(value));
        self.state.put(point.at, value, &mut self.bytes);
        self.count = self.count.saturating_add(1);
    }

    /// Returns the samples in the order in which they were pushed. A value that is not finite is a gap.
    pub fn points(&self) -> Vec<Point> {
        let (mut reader, mut state) = (Reader(&self.bytes), State::default());
        let mut points = Vec::with_capacity(self.count as usize);
        points.extend(std::iter::from_fn(|| state.read(&mut reader)));
        points
    }

    /// Returns the memory that the samples take.
    pub fn len_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    pub fn count(&self) -> u32 {
        self.count
    }
}

/// Encodes the samples of one commit, of any series and order. A sample takes at most 26 bytes.
pub fn redo_row(samples: &[(u32, Point)], kind: impl Fn(u32) -> SeriesKind) -> Vec<u8> {
    let mut row = vec![0; HEAD];
    let (mut state, mut last) = (State::default(), 0);
    for (series, point) in samples {
        varint::put_signed(&mut row, i64::from(*series) - last);
        last = i64::from(*series);
        state.put(point.at, kept(*point, kind(*series)), &mut row);
    }
    let checksum = crc32fast::hash(&row[HEAD..]).to_le_bytes();
    row[0] = VERSION;
    row[1..HEAD].copy_from_slice(&checksum);
    row
}

/// Decodes the samples of one commit, in their order.
///
/// # Errors
/// Fails if the bytes are not those of [`redo_row`]. It never panics.
pub fn read_redo(data: &[u8]) -> Result<Vec<(u32, Point)>, Damaged> {
    let (head, samples) = data.split_first_chunk::<HEAD>().ok_or(Damaged::Short)?;
    let [version, checksum @ ..] = *head;
    if version != VERSION {
        return Err(Damaged::Version(version));
    }
    if u32::from_le_bytes(checksum) != crc32fast::hash(samples) {
        return Err(Damaged::Checksum);
    }
    let (mut reader, mut state, mut last, mut found) = (Reader(samples), State::default(), 0i64, Vec::new());
    while !reader.is_empty() {
        last = last.checked_add(reader.signed().ok_or(Damaged::Length)?).ok_or(Damaged::Column)?;
        let series = u32::try_from(last).map_err(|_| Damaged::Column)?;
        found.push((series, state.read(&mut reader).ok_or(Damaged::Column)?));
    }
    Ok(found)
}

/// Returns the exponent and mantissa of a sample's value.
fn kept(point: Point, kind: SeriesKind) -> Option<(u8, i64)> {
    point.value.filter(|v| v.is_finite()).map(|v| decimal::one(v, kind))
}

/// What the next sample is relative to.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    at: Second,
    /// The last difference of times.
    step: Second,
    mantissa: i64,
    exponent: u8,
}

impl State {
    fn put(&mut self, at: Second, value: Option<(u8, i64)>, bytes: &mut Vec<u8>) {
        let step = at.wrapping_sub(self.at);
        let low = step.wrapping_sub(self.step).checked_add(MIDDLE);
        let low = low.filter(|low| (0..i64::from(FAR)).contains(low));
        let high = match value {
            None => GAP,
            Some((FLOAT, _)) => BITS,
            Some((exponent, _)) => exponent,
        };
        bytes.push(high << 4 | low.map_or(FAR, |low| low as u8));
        if low.is_none() {
            varint::put_signed(bytes, step);
        }
        (self.at, self.step) = (at, step);
        match value {
            None => {}
            Some((FLOAT, bits)) => bytes.extend(bits.to_le_bytes()),
            Some((exponent, mantissa)) => {
                varint::put_signed(bytes, mantissa.wrapping_sub(self.base(exponent)));
                (self.exponent, self.mantissa) = (exponent, mantissa);
            }
        }
    }

    /// Returns `None` at the end, and where the bytes are no sample.
    fn read(&mut self, reader: &mut Reader<'_>) -> Option<Point> {
        let token = reader.byte()?;
        let (high, low) = (token >> 4, token & 15);
        let step = match low {
            FAR => reader.signed()?,
            near => self.step.wrapping_add(i64::from(near) - MIDDLE),
        };
        (self.at, self.step) = (self.at.wrapping_add(step), step);
        let value = match high {
            GAP => None,
            BITS => Some(f64::from_bits(u64::from_le_bytes(reader.bytes()?))).filter(|v| v.is_finite()),
            exponent if exponent < BITS => {
                let mantissa = reader.signed()?.wrapping_add(self.base(exponent));
                (self.exponent, self.mantissa) = (exponent, mantissa);
                Some(decimal::value(mantissa, exponent))
            }
            _ => return None,
        };
        Some(Point { at: self.at, value })
    }

    /// Returns the value with the exponent of the one before, if it has room: a change of the exponent
    /// costs a whole mantissa.
    fn fitted(&self, (exponent, mantissa): (u8, i64)) -> (u8, i64) {
        let fitted =
            (exponent != FLOAT).then(|| decimal::raised(mantissa, exponent, self.exponent)).flatten();
        fitted.map_or((exponent, mantissa), |raised| (self.exponent, raised))
    }

    /// Returns what a mantissa of this exponent is relative to.
    fn base(&self, exponent: u8) -> i64 {
        decimal::raised(self.mantissa, self.exponent, exponent).unwrap_or(0)
    }
}

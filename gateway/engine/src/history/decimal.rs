//! Values as decimal numbers: a whole mantissa and an exponent, which compress far better than the bits of
//! a double.
//!
//! A value keeps at least 7 significant digits. Whole numbers, counters, and numbers of up to 10 digits with
//! up to 9 decimals are kept as they are; only the noise behind the 7th digit of a measured value is dropped.
//! What is kept of a value depends on this value alone, and is kept again unchanged. Minus zero becomes zero.

use super::SeriesKind;

/// In place of an exponent: the mantissa is the bits of a double.
pub(super) const FLOAT: u8 = 255;
/// Most decimals.
const MAX_EXPONENT: u8 = 9;
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// Below it a whole number is the same as a double.
const WHOLE: f64 = (1u64 << 53) as f64;
/// Below it decimal numbers of one exponent are so far apart that a value is near to one of them only.
const APART: f64 = (1u64 << 49) as f64;
/// Below it hardly any noise is near to a decimal number: one value in a million. Such a one would give its
/// decimals to the whole column.
const MEANT: f64 = 1e10;
/// How far a value may be from its decimal number, in units in the last place: the dust of a division.
const DUST: u64 = 1;
/// Digits that are kept of a value that is no decimal number.
const DIGITS: u32 = 7;

/// The values of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaled {
    /// Each value is its mantissa divided by ten to this exponent.
    Decimal { exponent: u8, mantissas: Vec<i64> },
    /// The bits of each value.
    Float(Vec<i64>),
}

/// Returns the values with one exponent for all, or as bits where none fits them.
pub fn scaled(values: &[f64], kind: SeriesKind) -> Scaled {
    common(values.iter().map(|v| one(*v, kind)).collect())
}

/// Returns the values with one exponent for all if each is exactly a decimal number.
pub(super) fn exactly(values: impl Iterator<Item = f64>) -> Option<(u8, Vec<i64>)> {
    match common(values.map(exact).collect::<Option<_>>()?) {
        Scaled::Decimal { exponent, mantissas } => Some((exponent, mantissas)),
        Scaled::Float(_) => None,
    }
}

/// Returns the sum without the dust that adding doubles leaves, as far as all are decimal numbers. It is
/// finite.
pub(super) fn sum(values: impl Iterator<Item = f64> + Clone) -> f64 {
    match exactly(values.clone()) {
        Some((exponent, mantissas)) => sum_of(&mantissas, exponent),
        None => values.sum::<f64>().clamp(f64::MIN, f64::MAX),
    }
}

/// Returns the sum of decimal numbers of one exponent.
pub(super) fn sum_of(mantissas: &[i64], exponent: u8) -> f64 {
    let sum: i128 = mantissas.iter().map(|m| i128::from(*m)).sum();
    sum as f64 / power(exponent)
}

/// Returns the value of a mantissa; exponent 255: of its bits.
pub fn value(mantissa: i64, exponent: u8) -> f64 {
    if exponent == FLOAT { f64::from_bits(mantissa as u64) } else { mantissa as f64 / power(exponent) }
}

/// Returns the nearest value with so many decimals, or the value itself where a double has no room for
/// them.
pub fn snapped(value: f64, exponent: u8) -> f64 {
    let mantissa = (value * power(exponent)).round();
    if mantissa.abs() < WHOLE { mantissa / power(exponent) } else { value }
}

/// Rounds to so many significant digits, one at least.
pub fn significant(value: f64, digits: u32) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let decimals = digits.max(1) as i32 - 1 - value.abs().log10().floor() as i32;
    let power = POWERS.get(decimals.unsigned_abs() as usize);
    let rounded = match power {
        Some(power) if decimals >= 0 => (value * power).round() / power,
        Some(power) => (value / power).round() * power,
        None => format!("{value:.*e}", digits.max(1) as usize - 1).parse().unwrap_or(value),
    };
    if rounded.is_finite() { rounded } else { value }
}

/// Returns the exponent and mantissa that are kept of a value; exponent 255: its bits.
pub fn one(value: f64, kind: SeriesKind) -> (u8, i64) {
    let found = match kind {
        SeriesKind::Gauge => decimal(value, MEANT).or_else(|| decimal(significant(value, DIGITS), MEANT)),
        SeriesKind::Counter => decimal(value, APART),
    };
    found.unwrap_or((FLOAT, value.to_bits() as i64))
}

/// Returns what is kept of a value.
pub(super) fn kept(of: f64, kind: SeriesKind) -> f64 {
    let (exponent, mantissa) = one(of, kind);
    value(mantissa, exponent)
}

/// Returns the mantissa for a greater exponent, if it has room.
pub(super) fn raised(mantissa: i64, from: u8, to: u8) -> Option<i64> {
    let raised = mantissa.checked_mul(10i64.checked_pow(u32::from(to.checked_sub(from)?))?)?;
    (raised.unsigned_abs() < WHOLE as u64).then_some(raised)
}

fn common(ones: Vec<(u8, i64)>) -> Scaled {
    let exponent = ones.iter().map(|(e, _)| *e).max().unwrap_or(0);
    let raise = |(e, m): &(u8, i64)| raised(*m, *e, exponent);
    let mantissas = (exponent != FLOAT).then(|| ones.iter().map(raise).collect()).flatten();
    match mantissas {
        Some(mantissas) => Scaled::Decimal { exponent, mantissas },
        None => Scaled::Float(ones.iter().map(|(e, m)| value(*m, *e).to_bits() as i64).collect()),
    }
}

/// Returns the decimal number that a value is meant to be: the one with the fewest decimals. With decimals
/// it has a mantissa below `most`.
fn decimal(value: f64, most: f64) -> Option<(u8, i64)> {
    if value.fract() == 0.0 {
        return (value.abs() < WHOLE).then_some((0, value as i64));
    }
    (1..=MAX_EXPONENT).find_map(|exponent| {
        let mantissa = (value * power(exponent)).round();
        let is_near = mantissa != 0.0 && mantissa.abs() < most && near(mantissa / power(exponent), value);
        is_near.then_some((exponent, mantissa as i64))
    })
}

/// Returns the decimal number that a value is to the last bit.
fn exact(value: f64) -> Option<(u8, i64)> {
    (0..=MAX_EXPONENT).find_map(|exponent| {
        let mantissa = (value * power(exponent)).round();
        let is_it = mantissa.abs() < WHOLE && mantissa / power(exponent) == value;
        is_it.then_some((exponent, mantissa as i64))
    })
}

/// Whether two values of one sign are the same but for dust.
fn near(a: f64, b: f64) -> bool {
    a.to_bits().abs_diff(b.to_bits()) <= DUST
}

fn power(exponent: u8) -> f64 {
    POWERS.get(usize::from(exponent)).copied().unwrap_or(1.0)
}

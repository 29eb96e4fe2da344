//! The values of buckets as mantissas of one exponent, each said in two ways, of which a block has the
//! shorter one: a value that grows begins where the bucket before ended, and ends at its greatest.

use super::decimal;
use super::rollup::Bucket;

/// Columns of min, max, sum and last, each in two ways.
pub(super) type Ways = [[Vec<i64>; 2]; 4];

/// Returns the exponent and the columns of buckets. `None` if their values are not decimal numbers of one
/// exponent or have no room.
pub(super) fn of(buckets: &[Bucket]) -> Option<(u8, Ways)> {
    let all = buckets.iter().flat_map(|b| [b.min, b.max, b.sum, b.last]);
    let (exponent, mantissas) = decimal::exactly(all)?;
    let mut columns = Ways::default();
    let mut previous = 0;
    for (values, bucket) in mantissas.chunks_exact(4).zip(buckets) {
        let &[min, max, sum, last] = values else { return None };
        let row = ways([min, max, sum, last], i64::from(bucket.count), previous)?;
        for (column, way) in columns.iter_mut().zip(row) {
            column.iter_mut().zip(way).for_each(|(column, number)| column.push(number));
        }
        previous = last;
    }
    Some((exponent, columns))
}

fn ways([min, max, sum, last]: [i64; 4], count: i64, previous: i64) -> Option<[[i64; 2]; 4]> {
    let (above, end) = (max.checked_sub(min)?, last.checked_sub(min)?);
    let excess = sum.checked_sub(min.checked_mul(count)?)?;
    let others = excess.checked_sub(above)?.checked_sub(end)?;
    Some([
        [min, min.checked_sub(previous)?],
        [above, max.checked_sub(previous)?],
        [excess, others],
        [end, max.checked_sub(last)?],
    ])
}

/// Returns min, max, sum and last of one bucket. `is_second`: which way each column says it; `previous`: the
/// last value of the bucket before, 0 for the first. `None` if they have no room.
pub(super) fn values(row: [i64; 4], is_second: [bool; 4], count: i64, previous: i64) -> Option<[i64; 4]> {
    let min = row[0].checked_add(if is_second[0] { previous } else { 0 })?;
    let max = row[1].checked_add(if is_second[1] { previous } else { min })?;
    let last = if is_second[3] { max.checked_sub(row[3])? } else { min.checked_add(row[3])? };
    let excess = row[2].checked_add(match is_second[2] {
        true => max.checked_sub(min)?.checked_add(last.checked_sub(min)?)?,
        false => 0,
    })?;
    Some([min, max, min.checked_mul(count)?.checked_add(excess)?, last])
}

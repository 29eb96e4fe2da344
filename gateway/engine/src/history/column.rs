//! Columns of a block: whole numbers, compressed by pco or as differences, whichever is shorter.
//!
//! `tag u8 | exponent u8 (0..=9, 255 = bits of doubles) | len u32 | bytes`, little endian. Bit 0 of the tag is
//! set for pco, bit 1 if the numbers are the second of two ways to say the same.

use pco::ChunkConfig;
use pco::standalone::{simple_compress, simple_decompress_into};

use super::block::Damaged;
use super::decimal::{FLOAT, Scaled};
use super::varint::{self, Reader};

const HEAD: usize = 6;
const PLAIN: u8 = 0;
const PCO: u8 = 1;
const SECOND: u8 = 2;
/// Up to this length differences may be shorter.
const SHORT: usize = 64;
/// Above it pco gains 1 % and takes twice the time.
const LEVEL: usize = 4;

/// Appends a column.
pub(super) fn put(block: &mut Vec<u8>, exponent: u8, numbers: &[i64]) {
    let (tag, bytes) = compressed(numbers);
    put_bytes(block, tag, exponent, &bytes);
}

/// Appends the shorter one of two columns that say the same.
pub(super) fn put_shorter(block: &mut Vec<u8>, exponent: u8, [first, second]: &[Vec<i64>; 2]) {
    let (first, second) = (compressed(first), compressed(second));
    match second.1.len() < first.1.len() {
        true => put_bytes(block, second.0 | SECOND, exponent, &second.1),
        false => put_bytes(block, first.0, exponent, &first.1),
    }
}

pub(super) fn put_scaled(block: &mut Vec<u8>, scaled: &Scaled) {
    match scaled {
        Scaled::Decimal { exponent, mantissas } => put(block, *exponent, mantissas),
        Scaled::Float(bits) => put(block, FLOAT, bits),
    }
}

/// Appends a column of whole numbers without their count, such as differences of any length.
pub(super) fn put_list(block: &mut Vec<u8>, numbers: &[u64]) {
    let mut bytes = Vec::new();
    numbers.iter().for_each(|number| varint::put(&mut bytes, *number));
    put_bytes(block, PLAIN, 0, &bytes);
}

fn put_bytes(block: &mut Vec<u8>, tag: u8, exponent: u8, bytes: &[u8]) {
    block.extend([tag, exponent]);
    block.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    block.extend(bytes);
}

fn compressed(numbers: &[i64]) -> (u8, Vec<u8>) {
    if numbers.is_empty() {
        return (PLAIN, Vec::new());
    }
    let config = ChunkConfig::default().with_compression_level(LEVEL);
    let small = simple_compress(numbers, &config).ok();
    match small {
        Some(small) if numbers.len() > SHORT => (PCO, small),
        small => {
            let plain = differences(numbers);
            small.filter(|small| small.len() < plain.len()).map_or((PLAIN, plain), |small| (PCO, small))
        }
    }
}

fn differences(numbers: &[i64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(numbers.len() * 2);
    let mut last = 0i64;
    for number in numbers {
        varint::put_signed(&mut bytes, number.wrapping_sub(last));
        last = *number;
    }
    bytes
}

/// A column before its numbers are decoded.
pub(super) struct Column<'a> {
    tag: u8,
    pub(super) exponent: u8,
    bytes: &'a [u8],
}

impl<'a> Column<'a> {
    /// Takes a column off the front of a block.
    pub(super) fn read(block: &mut &'a [u8]) -> Result<Column<'a>, Damaged> {
        let (head, rest) = block.split_first_chunk::<HEAD>().ok_or(Damaged::Short)?;
        let [tag, exponent, len @ ..] = *head;
        let len = usize::try_from(u32::from_le_bytes(len)).map_err(|_| Damaged::Length)?;
        let (bytes, rest) = rest.split_at_checked(len).ok_or(Damaged::Length)?;
        *block = rest;
        let is_known = tag <= (PCO | SECOND) && (exponent <= 9 || exponent == FLOAT);
        if is_known { Ok(Column { tag, exponent, bytes }) } else { Err(Damaged::Column) }
    }

    /// Whether its numbers are the second of two ways to say the same.
    pub(super) fn is_second(&self) -> bool {
        self.tag & SECOND != 0
    }

    /// Returns exactly so many numbers.
    pub(super) fn numbers(&self, n: usize) -> Result<Vec<i64>, Damaged> {
        match self.tag & PCO {
            PLAIN => self.plain(n),
            _ => self.unpacked(n),
        }
    }

    /// Returns the numbers of [`put_list`].
    pub(super) fn list(&self) -> Result<Vec<u64>, Damaged> {
        let (mut reader, mut numbers) = (Reader(self.bytes), Vec::new());
        while !reader.is_empty() {
            numbers.push(reader.number().ok_or(Damaged::Column)?);
        }
        if self.tag == PLAIN { Ok(numbers) } else { Err(Damaged::Column) }
    }

    fn plain(&self, n: usize) -> Result<Vec<i64>, Damaged> {
        let (mut reader, mut last, mut numbers) = (Reader(self.bytes), 0i64, Vec::with_capacity(n));
        for _ in 0..n {
            last = last.wrapping_add(reader.signed().ok_or(Damaged::Column)?);
            numbers.push(last);
        }
        if reader.is_empty() { Ok(numbers) } else { Err(Damaged::Column) }
    }

    /// A damaged chunk may claim any length, so the room for it is what the block says.
    fn unpacked(&self, n: usize) -> Result<Vec<i64>, Damaged> {
        let mut numbers = vec![0; n];
        let done = simple_decompress_into(self.bytes, &mut numbers).map_err(|_| Damaged::Column)?;
        let is_whole = done.finished && done.n_processed == n;
        if is_whole { Ok(numbers) } else { Err(Damaged::Column) }
    }
}

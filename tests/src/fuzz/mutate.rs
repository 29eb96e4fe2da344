//! Mutations of inputs: of bits, lengths, numbers at the edges of their types, and words of the formats.

use super::LONGEST;
use crate::dice::Dice;

/// Pieces that the parsers look for.
const WORDS: [&[u8]; 24] = [
    b"|",
    b"'",
    b"=",
    b";",
    b"\n",
    b"\r\n",
    b"\0",
    b"%",
    b"@",
    b"~:",
    b"..",
    b"NaN",
    b"1e400",
    b"-0",
    b"18446744073709551616",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"\"",
    b"\\u0000",
    b"\xff\xfe",
    b"\xe2\x80\xae",
    b" ",
];
const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0xffff_ffff, u64::MAX];

/// Makes an input from one of the pool.
pub(super) fn next(pool: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = pool[at(pool.len(), dice)].clone();
    for _ in 0..=dice.roll(4) {
        change(&mut input, pool, dice);
    }
    input.truncate(LONGEST);
    input
}

fn at(len: usize, dice: &mut Dice) -> usize {
    usize::try_from(dice.roll(len.max(1) as u64)).expect("an index")
}

fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], dice: &mut Dice) {
    let here = at(input.len() + 1, dice);
    match dice.roll(7) {
        0 => flip(input, here, dice),
        1 => input.truncate(here),
        2 => number(input, here, dice),
        3 => splice(input, here, WORDS[at(WORDS.len(), dice)]),
        4 => {
            let other = &pool[at(pool.len(), dice)];
            let (from, to) = (at(other.len() + 1, dice), at(other.len() + 1, dice));
            splice(input, here, &other[from.min(to)..from.max(to)]);
        }
        5 => {
            let end = (here + at(16, dice)).min(input.len());
            input.drain(here.min(end)..end);
        }
        _ => {
            let end = (here + at(64, dice)).min(input.len());
            let part = input[here.min(end)..end].to_vec();
            (0..dice.roll(32)).for_each(|_| splice(input, here, &part));
        }
    }
}

fn flip(input: &mut [u8], here: usize, dice: &mut Dice) {
    if let Some(byte) = input.get_mut(here) {
        *byte ^= 1 << dice.roll(8);
    }
}

/// Overwrites one to eight bytes.
fn number(input: &mut [u8], here: usize, dice: &mut Dice) {
    let bytes = NUMBERS[at(NUMBERS.len(), dice)].to_be_bytes();
    let width: usize = 1 << dice.roll(4);
    let end = (here + width).min(input.len());
    let Some(place) = input.get_mut(here..end) else { return };
    let low = &bytes[bytes.len() - place.len()..];
    place.copy_from_slice(low);
}

fn splice(input: &mut Vec<u8>, here: usize, part: &[u8]) {
    if input.len() + part.len() <= LONGEST {
        input.splice(here..here, part.iter().copied());
    }
}

//! Identities. Devices, hosts, peers, enrolments, tokens and users share one number space, so that
//! a host behind a device can never be confused with the device's own host.

use std::fmt;
use std::str::FromStr;

/// Crockford's base 32 in lower case: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 63 bits in groups of five.
const TEXT_LEN: usize = 13;

/// An id: 42 bits of milliseconds since 1970 (until the year 2109), then 21 random bits. It sorts
/// by creation and fits a signed 64-bit column. The database's primary key guarantees uniqueness.
///
/// Its text is 13 characters of Crockford base 32. The API puts a kind before it (`h_`, `e_`, `t_`,
/// `u_`). Names never contain `_`, so that a path can take either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an id: 13 characters of 0-9 a-z without i, l, o, u")]
pub struct BadId;

impl Id {
    pub fn new(wall_ms: i64, random: u32) -> Self {
        let ms = u64::try_from(wall_ms).unwrap_or(0) & ((1 << 42) - 1);
        Id(ms << 21 | u64::from(random) & ((1 << 21) - 1))
    }

    pub const fn from_i64(raw: i64) -> Self {
        Id(raw as u64 & (u64::MAX >> 1))
    }

    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_LEN];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = ALPHABET[(rest & 31) as usize];
            rest >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Id {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.len() != TEXT_LEN {
            return Err(BadId);
        }
        let mut value: u64 = 0;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|&a| a == byte).ok_or(BadId)?;
            value = value << 5 | digit as u64;
        }
        // 13 * 5 = 65 bits: a value above 63 bits is never printed.
        if ALPHABET[0..8].contains(&text.as_bytes()[0]) { Ok(Id(value)) } else { Err(BadId) }
    }
}

/// A host; a device's host has the device's id.
pub type HostId = Id;
/// A WireGuard peer; a device's peer has the device's id.
pub type PeerId = Id;
/// A person with a login.
pub type UserId = Id;
/// A permission to reach something through the gateway.
pub type GrantId = Id;
/// A customer, who rents devices.
pub type CustomerId = Id;
/// A person of a customer, who uses rented devices.
pub type PersonId = Id;
/// A device in one window for one customer.
pub type RentalId = Id;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        for raw in [0, 1, 31, 32, i64::MAX, 0x1234_5678_9abc_def0] {
            let id = Id::from_i64(raw);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for bad in ["", "abc", "zzzzzzzzzzzzz", "000000000000i", "0000000000000x"] {
            assert_eq!(bad.parse::<Id>(), Err(BadId));
        }
    }

    #[test]
    fn ids_sort_by_creation() {
        assert!(Id::new(1_000, u32::MAX) < Id::new(1_001, 0));
    }
}

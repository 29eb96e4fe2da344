//! WireGuard keys (Curve25519) and preshared keys.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub const KEY_LEN: usize = 32;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadKey {
    #[error("not a key: 44 characters of base64 ending in '=' are expected")]
    Text,
    #[error("a key of small order (or zero): no shared secret can be made with it")]
    LowOrder,
    #[error("not in canonical form: no WireGuard implementation prints such a key")]
    NotCanonical,
}

fn from_base64(text: &str) -> Result<[u8; KEY_LEN], BadKey> {
    let bytes = Zeroizing::new(BASE64.decode(text.trim()).map_err(|_| BadKey::Text)?);
    bytes.as_slice().try_into().map_err(|_| BadKey::Text)
}

/// A peer's static public key. It is never of small order and always canonical.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// # Errors
    /// Refuses points of small order (zero is one of them) and encodings that are not reduced.
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Result<Self, BadKey> {
        if !is_canonical(&bytes) {
            return Err(BadKey::NotCanonical);
        }
        if SMALL_ORDER.contains(&bytes) {
            return Err(BadKey::LowOrder);
        }
        Ok(PublicKey(bytes))
    }

    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

/// Every reduced point of small order on the curve and its twist: 0, 1, the two of order 8, -1.
/// They are compared instead of multiplied out, because every stranger's initiation passes this
/// test.
const SMALL_ORDER: [[u8; KEY_LEN]; 5] = [
    [0; KEY_LEN],
    with_ends(0x01, 0x00, 0x00),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    with_ends(0xec, 0xff, 0x7f),
];

const fn with_ends(first: u8, middle: u8, last: u8) -> [u8; KEY_LEN] {
    let mut bytes = [middle; KEY_LEN];
    bytes[0] = first;
    bytes[KEY_LEN - 1] = last;
    bytes
}

/// Returns whether the number is below 2^255 - 19, in little-endian order.
fn is_canonical(bytes: &[u8; KEY_LEN]) -> bool {
    let all_ones = bytes[1..31].iter().all(|&b| b == 0xff);
    bytes[31] < 0x7f || bytes[31] == 0x7f && !(all_ones && bytes[0] >= 0xed)
}

impl FromStr for PublicKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        PublicKey::from_bytes(from_base64(text)?)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A static private key.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; KEY_LEN]);

impl PrivateKey {
    /// Clamps like `wg genkey`, so that the text equals what other tools print for this key.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        PrivateKey(bytes)
    }

    /// # Panics
    /// Panics when the operating system cannot provide randomness.
    pub fn generate() -> Self {
        let mut bytes = [0u8; KEY_LEN];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        PrivateKey::from_bytes(bytes)
    }

    pub fn public(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.0))
    }
}

impl FromStr for PrivateKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        Ok(PrivateKey::from_bytes(from_base64(text)?))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A preshared key of one pair of peers.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; KEY_LEN]);

impl PresharedKey {
    pub fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        PresharedKey(bytes)
    }

    /// # Panics
    /// Panics when the operating system cannot provide randomness.
    pub fn generate() -> Self {
        let mut bytes = [0u8; KEY_LEN];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        PresharedKey(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(self.0))
    }
}

impl FromStr for PresharedKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        Ok(PresharedKey(from_base64(text)?))
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(text: &str) -> [u8; KEY_LEN] {
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn points_of_small_order_are_refused_zero_among_them() {
        for point in SMALL_ORDER {
            assert_eq!(PublicKey::from_bytes(point), Err(BadKey::LowOrder));
        }
    }

    #[test]
    fn the_points_of_small_order_are_those_that_make_no_secret() {
        let secret = x25519_dalek::StaticSecret::from([0x42; KEY_LEN]);
        let makes_one = |point: [u8; KEY_LEN]| secret.diffie_hellman(&point.into()).was_contributory();
        assert!(SMALL_ORDER.into_iter().all(|point| !makes_one(point)));
        assert!((2..200).all(|first| makes_one(with_ends(first, 0, 0))));
    }

    #[test]
    fn encodings_that_are_not_reduced_are_refused() {
        let p = unhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        let p_plus_one = unhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f");
        let mut high_bit = *PrivateKey::generate().public().as_bytes();
        high_bit[31] |= 0x80;
        for bytes in [p, p_plus_one, high_bit, [0xff; KEY_LEN]] {
            assert_eq!(PublicKey::from_bytes(bytes), Err(BadKey::NotCanonical));
        }
    }

    #[test]
    fn a_key_survives_its_text() {
        let private = PrivateKey::generate();
        let again: PrivateKey = private.to_base64().parse().unwrap();
        assert_eq!(private.as_bytes(), again.as_bytes());
        assert_eq!(private.public().to_string().parse(), Ok(again.public()));
        let psk = PresharedKey::generate();
        assert_eq!(psk.to_base64().parse::<PresharedKey>().unwrap().as_bytes(), psk.as_bytes());
    }

    #[test]
    fn the_public_key_is_the_one_that_wg_pubkey_prints() {
        let private = PrivateKey::from_bytes(std::array::from_fn(|i| i as u8));
        assert_eq!(private.public().to_string(), "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8=");
    }

    #[test]
    fn what_is_not_a_key_is_refused_as_text() {
        for bad in ["", "x", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "=", "a key"] {
            assert_eq!(bad.parse::<PublicKey>(), Err(BadKey::Text), "{bad}");
        }
    }

    #[test]
    fn secrets_redact_their_debug() {
        assert_eq!(format!("{:?}", PrivateKey::generate()), "PrivateKey(..)");
        assert_eq!(format!("{:?}", PresharedKey::generate()), "PresharedKey(..)");
    }
}

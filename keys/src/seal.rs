//! Sealing at rest, for secrets that the store must read again but a copy of the database must not
//! reveal.
//!
//! XChaCha20-Poly1305 under a key derived from the gateway's own. Its nonces are long enough to be
//! drawn at random forever. `aad` binds a secret to its place (table, column, id), so that a row
//! cannot be moved.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key::PrivateKey;

/// The first byte of every sealed value, so that the format can change.
const VERSION: u8 = 1;
const NONCE_LEN: usize = 24;
const HEADER_LEN: usize = 1 + NONCE_LEN;
const DOMAIN: &[u8] = b"fleetgate sealing key, version 1\0";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "a sealed secret does not open: it is damaged, stands in another place, or was sealed under another gateway key"
)]
pub struct BadSeal;

#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// Derives a separate key for each `purpose`.
    pub fn derive(gateway: &PrivateKey, purpose: &str) -> Self {
        let digest = Sha256::new().chain_update(DOMAIN).chain_update(gateway.as_bytes());
        SealKey(digest.chain_update(purpose).finalize().into())
    }

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        SealKey(bytes)
    }

    /// # Panics
    /// Panics when the operating system cannot provide randomness.
    pub fn seal(&self, plain: &[u8], aad: &[u8]) -> Vec<u8> {
        let mut sealed = vec![VERSION; HEADER_LEN];
        getrandom::fill(&mut sealed[1..]).expect("the operating system gives random bytes");
        let nonce = XNonce::from_slice(&sealed[1..]);
        let payload = Payload { msg: plain, aad };
        let body = self.cipher().encrypt(nonce, payload).expect("a secret is short enough to seal");
        sealed.extend_from_slice(&body);
        sealed
    }

    /// # Errors
    /// Fails when the bytes, `aad` or the key differ from those at sealing.
    pub fn open(&self, sealed: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, BadSeal> {
        let (header, body) = sealed.split_first_chunk::<HEADER_LEN>().ok_or(BadSeal)?;
        if header[0] != VERSION {
            return Err(BadSeal);
        }
        let payload = Payload { msg: body, aad };
        let plain = self.cipher().decrypt(XNonce::from_slice(&header[1..]), payload);
        plain.map(Zeroizing::new).map_err(|_| BadSeal)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(purpose: &str) -> SealKey {
        SealKey::derive(&PrivateKey::from_bytes([7; 32]), purpose)
    }

    #[test]
    fn what_was_sealed_opens_again() {
        for plain in [&b""[..], b"a preshared key", &[0; 5_000]] {
            let sealed = key("psk").seal(plain, b"peer/1");
            assert_eq!(key("psk").open(&sealed, b"peer/1").unwrap().as_slice(), plain);
        }
    }

    #[test]
    fn two_seals_of_one_secret_differ() {
        assert_ne!(key("psk").seal(b"x", b""), key("psk").seal(b"x", b""));
    }

    #[test]
    fn any_changed_bit_or_cut_is_refused() {
        let sealed = key("psk").seal(b"secret", b"here");
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(key("psk").open(&bad, b"here"), Err(BadSeal));
            assert_eq!(key("psk").open(&sealed[..at], b"here"), Err(BadSeal));
        }
    }

    #[test]
    fn another_place_or_purpose_or_gateway_does_not_open_it() {
        let sealed = key("psk").seal(b"secret", b"here");
        assert_eq!(key("psk").open(&sealed, b"there"), Err(BadSeal));
        assert_eq!(key("smtp").open(&sealed, b"here"), Err(BadSeal));
        let other = SealKey::derive(&PrivateKey::from_bytes([8; 32]), "psk");
        assert_eq!(other.open(&sealed, b"here"), Err(BadSeal));
    }

    #[test]
    fn the_key_redacts_its_debug() {
        assert_eq!(format!("{:?}", key("psk")), "SealKey(..)");
    }
}

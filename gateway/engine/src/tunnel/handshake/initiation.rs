//! Opens a WireGuard initiation without the state of a peer: who sent it and when it was made.
//!
//! The module only reads. Nothing made here reaches the network: the peer's session opens the same
//! bytes again before it answers them. It does not know loads, sources or enrolled keys. It
//! implements Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as in section 5.4 of the WireGuard paper.

use std::collections::BTreeMap;

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput as _, Mac};
use blake2::{Blake2s256, Blake2sMac, Digest as _};
use chacha20poly1305::{AeadInPlace as _, ChaCha20Poly1305, KeyInit as _};
use fleetgate_keys::{PrivateKey, PublicKey};
use hmac::SimpleHmac;
use x25519_dalek::{SharedSecret, StaticSecret};

use crate::messages::Tai64n;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
const TAG_LEN: usize = 16;
const STAMP_LEN: usize = 12;

/// Static-static secrets that are kept, at about 100 bytes each. The number is that of the peers
/// that a gateway is made for. Beyond it, the secret of some peer is computed again at its next
/// handshake.
const MAX_SECRETS: usize = 131_072;

pub const INITIATION_LEN: usize = 148;

/// The encrypted parts of an initiation.
pub struct Sealed<'a> {
    ephemeral: &'a [u8; 32],
    key: &'a [u8; 32 + TAG_LEN],
    stamp: &'a [u8; STAMP_LEN + TAG_LEN],
}

impl<'a> Sealed<'a> {
    pub fn of(message: &'a [u8; INITIATION_LEN]) -> Self {
        Sealed { ephemeral: part(message, 8), key: part(message, 40), stamp: part(message, 88) }
    }
}

fn part<const N: usize>(message: &[u8; INITIATION_LEN], at: usize) -> &[u8; N] {
    message[at..at + N].try_into().expect("the parts lie inside the message")
}

/// An initiation whose first half is open. The sender is not proved yet: only the stamp is sealed
/// with the initiator's own key.
pub struct HalfOpen {
    pub from: PublicKey,
    chain: [u8; 32],
    hash: [u8; 32],
}

/// The gateway's half of the cryptography of initiations.
pub struct Opener {
    secret: StaticSecret,
    /// The hash over the constant prefix of every initiation to this gateway.
    start_chain: [u8; 32],
    start_hash: [u8; 32],
    /// Static-static secrets by the peers' keys. `forget` drops them.
    secrets: BTreeMap<PublicKey, SharedSecret>,
}

impl Opener {
    pub fn new(private: &PrivateKey) -> Self {
        let start_chain = hash(&[CONSTRUCTION]);
        let start_hash = hash(&[&start_chain, IDENTIFIER]);
        Opener {
            secret: StaticSecret::from(*private.as_bytes()),
            start_chain,
            start_hash: hash(&[&start_hash, private.public().as_bytes()]),
            secrets: BTreeMap::new(),
        }
    }

    /// Opens the static key with one X25519 operation. `None`: the initiation was made for another
    /// gateway, is damaged, or has an invalid key.
    pub fn open_key(&self, sealed: &Sealed<'_>) -> Option<HalfOpen> {
        let hash_1 = hash(&[&self.start_hash, sealed.ephemeral]);
        let chain = derive(&self.start_chain, sealed.ephemeral).0;
        let shared = self.secret.diffie_hellman(&(*sealed.ephemeral).into());
        if !shared.was_contributory() {
            return None;
        }
        let (chain, key) = derive(&chain, shared.as_bytes());
        let from = PublicKey::from_bytes(open(&key, sealed.key, &hash_1)?).ok()?;
        Some(HalfOpen { from, chain, hash: hash(&[&hash_1, sealed.key]) })
    }

    /// Opens the stamp, with one X25519 operation at the first time for a peer and none later.
    /// `None`: the sender does not have the private key of the peer it names.
    pub fn open_stamp(&mut self, half: &HalfOpen, sealed: &Sealed<'_>) -> Option<Tai64n> {
        let shared = self.static_static(&half.from);
        let (_, key) = derive(&half.chain, shared.as_bytes());
        open(&key, sealed.stamp, &half.hash).map(Tai64n)
    }

    fn static_static(&mut self, peer: &PublicKey) -> &SharedSecret {
        if self.secrets.len() >= MAX_SECRETS && !self.secrets.contains_key(peer) {
            self.secrets.pop_first();
        }
        let secret = &self.secret;
        self.secrets.entry(*peer).or_insert_with(|| secret.diffie_hellman(&(*peer.as_bytes()).into()))
    }

    pub fn forget(&mut self, peer: &PublicKey) {
        self.secrets.remove(peer);
    }
}

/// Computes `HASH` of the paper over the concatenated parts.
pub fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// Computes `MAC` of the paper: keyed BLAKE2s with 16 bytes of output. The caller finalizes it or
/// compares it in constant time.
pub fn mac(key: &[u8], parts: &[&[u8]]) -> Blake2sMac<U16> {
    let mut mac = <Blake2sMac<U16> as Mac>::new_from_slice(key).expect("a key has 16 or 32 bytes");
    parts.iter().for_each(|part| Mac::update(&mut mac, part));
    mac
}

/// Computes `KDF2` of the paper: the next chaining key, and a key.
fn derive(chain: &[u8; 32], input: &[u8]) -> ([u8; 32], [u8; 32]) {
    let start = hmac(chain, &[input]);
    let first = hmac(&start, &[&[1]]);
    let second = hmac(&start, &[&first, &[2]]);
    (first, second)
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut hmac = <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key).expect("HMAC takes any key");
    parts.iter().for_each(|part| Mac::update(&mut hmac, part));
    hmac.finalize_fixed().into()
}

/// Opens a sealed field. Every key of a handshake seals one text only, so the nonce is always zero.
fn open<const SEALED: usize, const PLAIN: usize>(
    key: &[u8; 32],
    sealed: &[u8; SEALED],
    aad: &[u8],
) -> Option<[u8; PLAIN]> {
    let (text, tag) = sealed.split_at(PLAIN);
    let mut plain: [u8; PLAIN] = text.try_into().ok()?;
    let cipher = ChaCha20Poly1305::new(key.into());
    let nonce = Default::default();
    cipher.decrypt_in_place_detached(&nonce, aad, &mut plain, tag.into()).ok()?;
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::noise::peer::Device;

    fn initiation(device: &mut Device) -> [u8; INITIATION_LEN] {
        device.initiation().try_into().unwrap()
    }

    #[test]
    fn an_initiation_yields_its_static_key_and_timestamp() {
        let gateway = PrivateKey::generate();
        let mut device = Device::new(&gateway.public(), None);
        let mut opener = Opener::new(&gateway);
        let messages = [0, 1].map(|_| initiation(&mut device));
        let stamps = messages.map(|message| {
            let sealed = Sealed::of(&message);
            let half = opener.open_key(&sealed).unwrap();
            assert_eq!(half.from, device.public());
            opener.open_stamp(&half, &sealed).unwrap()
        });
        assert!(stamps[1] > stamps[0]);
        assert_eq!(opener.secrets.len(), 1);
        opener.forget(&device.public());
        assert_eq!(opener.secrets.len(), 0);
    }

    #[test]
    fn an_initiation_to_another_gateway_does_not_open() {
        let mut device = Device::new(&PrivateKey::generate().public(), None);
        let message = initiation(&mut device);
        assert!(Opener::new(&PrivateKey::generate()).open_key(&Sealed::of(&message)).is_none());
    }

    #[test]
    fn an_initiation_with_a_known_key_but_without_its_secret_fails_at_the_timestamp() {
        let gateway = PrivateKey::generate();
        let mut device = Device::new(&gateway.public(), None);
        let mut opener = Opener::new(&gateway);
        let mut message = initiation(&mut device);
        message[100] ^= 1;
        let sealed = Sealed::of(&message);
        let half = opener.open_key(&sealed).unwrap();
        assert!(opener.open_stamp(&half, &sealed).is_none());
    }

    #[test]
    fn an_ephemeral_key_of_small_order_is_refused() {
        let gateway = PrivateKey::generate();
        let mut device = Device::new(&gateway.public(), None);
        let mut message = initiation(&mut device);
        message[8..40].fill(0);
        assert!(Opener::new(&gateway).open_key(&Sealed::of(&message)).is_none());
    }
}

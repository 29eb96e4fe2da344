//! The front door: classifies a datagram from the Internet before the state of a peer is touched.
//!
//! Until mac1 is verified, only type and length are parsed. The only reply is a cookie reply, which
//! is smaller than the datagram it replies to. Memory does not grow with the number of sources. The
//! static-static secrets are the only state per peer. The front asks the caller whether a key is
//! enrolled, and returns drop reasons instead of counting them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use blake2::digest::{FixedOutput as _, Mac as _};
use chacha20poly1305::{AeadInPlace as _, KeyInit as _, XChaCha20Poly1305, XNonce};
use fleetgate_keys::{PrivateKey, PublicKey};

use crate::messages::DropReason;
use crate::time::{Mono, Now};
use crate::tunnel::handshake::initiation::{INITIATION_LEN, Opener, Sealed, hash, mac};
use crate::tunnel::handshake::rate_limit::{Admission, DEFAULT_LOAD_PER_S, Floods};
use crate::tunnel::session::{Front, Initiation};

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
const MAC_LEN: usize = 16;
const RESPONSE_LEN: usize = 92;
const COOKIE_LEN: usize = 64;
/// Header and tag of a message without content.
pub const DATA_OVERHEAD: usize = 32;
/// Lifetime of a cookie, by the protocol. A cookie of the previous period is accepted as well, so
/// that a device is not asked twice within seconds.
const COOKIE_PERIOD: Duration = Duration::from_secs(120);

/// A WireGuard message, by type and length only.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    Initiation(&'a [u8; INITIATION_LEN]),
    Response(&'a [u8; RESPONSE_LEN]),
    Cookie(&'a [u8; COOKIE_LEN]),
    Data(&'a [u8]),
}

impl<'a> Message<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        // The three bytes after the type are zero in every message.
        match (bytes.get(..4)?, bytes.len()) {
            ([1, 0, 0, 0], INITIATION_LEN) => bytes.try_into().ok().map(Message::Initiation),
            ([2, 0, 0, 0], RESPONSE_LEN) => bytes.try_into().ok().map(Message::Response),
            ([3, 0, 0, 0], COOKIE_LEN) => bytes.try_into().ok().map(Message::Cookie),
            ([4, 0, 0, 0], DATA_OVERHEAD..) => Some(Message::Data(bytes)),
            _ => None,
        }
    }

    /// Returns the receiver index. An initiation has none.
    pub fn receiver(&self) -> Option<u32> {
        match self {
            Message::Initiation(_) => None,
            Message::Response(m) => Some(word(&m[..], 8)),
            Message::Cookie(m) => Some(word(&m[..], 4)),
            Message::Data(m) => Some(word(m, 4)),
        }
    }
}

/// Returns the little-endian number at `at`.
pub fn word(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(message[at..at + 4].try_into().expect("four bytes"))
}

#[derive(Clone, Copy, Debug)]
pub struct FrontSettings {
    /// Initiations per second over all sources before cookies are required.
    pub load_per_s: u32,
}

impl Default for FrontSettings {
    fn default() -> Self {
        FrontSettings { load_per_s: DEFAULT_LOAD_PER_S }
    }
}

pub struct FrontDoor {
    opener: Opener,
    mac1_key: [u8; 32],
    cookies: Cookies,
    floods: Floods,
}

impl FrontDoor {
    /// Creates the front door. `seed` makes cookies and sorts sources; it comes from the operating
    /// system and must not be used for anything else.
    pub fn new(private: &PrivateKey, seed: [u8; 32], settings: FrontSettings) -> Self {
        let public = private.public();
        let part = |label: &[u8]| hash(&[&seed, label]);
        FrontDoor {
            opener: Opener::new(private),
            mac1_key: hash(&[LABEL_MAC1, public.as_bytes()]),
            cookies: Cookies::new(&public, part(b"cookies")),
            floods: Floods::new(settings.load_per_s, part(b"sources")),
        }
    }

    /// See [`Noise::front`](crate::tunnel::session::Noise::front).
    pub fn judge(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        known: &dyn Fn(&PublicKey) -> bool,
        now: Now,
    ) -> Front {
        let Some(message) = Message::parse(datagram) else {
            return Front::Dropped(DropReason::Malformed);
        };
        match message {
            Message::Initiation(m) if self.mac1_holds(m) => self.judge_initiation(m, from, known, now.mono),
            Message::Response(m) if !self.mac1_holds(m) => Front::Dropped(DropReason::BadMac1),
            _ => message.receiver().map_or(Front::Dropped(DropReason::BadMac1), |i| Front::ForIndex(i >> 8)),
        }
    }

    fn mac1_holds(&self, message: &[u8]) -> bool {
        let (covered, macs) = message.split_at(message.len() - 2 * MAC_LEN);
        mac(&self.mac1_key, &[covered]).verify_slice(&macs[..MAC_LEN]).is_ok()
    }

    fn judge_initiation(
        &mut self,
        message: &[u8; INITIATION_LEN],
        from: SocketAddr,
        known: &dyn Fn(&PublicKey) -> bool,
        now: Mono,
    ) -> Front {
        let proven = self.cookies.mac2_holds(message, from, now);
        match self.floods.admit(from, proven, now) {
            Admission::Open => self.open(message, known),
            Admission::AskForCookie => Front::Cookie(self.cookies.reply(message, from, now)),
            Admission::Refuse => Front::Dropped(DropReason::RateLimited),
        }
    }

    fn open(&mut self, message: &[u8; INITIATION_LEN], known: &dyn Fn(&PublicKey) -> bool) -> Front {
        let sealed = Sealed::of(message);
        let Some(half) = self.opener.open_key(&sealed) else {
            return Front::Dropped(DropReason::Crypto);
        };
        if !known(&half.from) {
            return Front::UnknownKey(half.from);
        }
        match self.opener.open_stamp(&half, &sealed) {
            Some(stamp) => Front::Initiation(Initiation { peer: half.from, stamp }),
            None => Front::Dropped(DropReason::Crypto),
        }
    }

    pub fn forget(&mut self, peer: &PublicKey) {
        self.opener.forget(peer);
    }
}

/// Proof that a sender is at its source address (the paper, section 5.3). No state is kept per
/// source: a cookie is computed from the source and the secret of the period.
struct Cookies {
    seed: [u8; 32],
    reply_key: [u8; 32],
    /// Counts replies, because each has its own nonce. With the seed of this start no nonce
    /// repeats.
    replies: u64,
}

impl Cookies {
    fn new(public: &PublicKey, seed: [u8; 32]) -> Self {
        Cookies { seed, reply_key: hash(&[LABEL_COOKIE, public.as_bytes()]), replies: 0 }
    }

    fn mac2_holds(&self, message: &[u8; INITIATION_LEN], from: SocketAddr, now: Mono) -> bool {
        let (covered, mac2) = message.split_at(INITIATION_LEN - MAC_LEN);
        if mac2 == [0; MAC_LEN] {
            return false;
        }
        let period = period_of(now);
        [Some(period), period.checked_sub(1)].into_iter().flatten().any(|period| {
            let cookie = self.cookie(from, period);
            mac(&cookie, &[covered]).verify_slice(mac2).is_ok()
        })
    }

    /// Computes the cookie of an address and port, because many devices may share the address of a
    /// carrier.
    fn cookie(&self, from: SocketAddr, period: u64) -> [u8; 16] {
        let secret = hash(&[&self.seed, b"secret", &period.to_le_bytes()]);
        let ip = match from.ip().to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        mac(&secret, &[&ip.octets(), &from.port().to_le_bytes()]).finalize_fixed().into()
    }

    fn reply(&mut self, message: &[u8; INITIATION_LEN], from: SocketAddr, now: Mono) -> Vec<u8> {
        self.replies += 1;
        let random = hash(&[&self.seed, b"nonce", &self.replies.to_le_bytes()]);
        let nonce = XNonce::from_slice(&random[..24]);
        let mut cookie = self.cookie(from, period_of(now));
        let mac1 = &message[INITIATION_LEN - 2 * MAC_LEN..INITIATION_LEN - MAC_LEN];
        let cipher = XChaCha20Poly1305::new(&self.reply_key.into());
        let tag = cipher
            .encrypt_in_place_detached(nonce, mac1, &mut cookie)
            .expect("sixteen bytes are not too long to be sealed");
        [&[3, 0, 0, 0], &message[4..8], nonce.as_slice(), &cookie, tag.as_slice()].concat()
    }
}

fn period_of(now: Mono) -> u64 {
    now.as_nanos() / COOKIE_PERIOD.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Wall;
    use crate::tunnel::noise::peer::{Device, Said};

    const SOURCE: &str = "192.0.2.7:40000";

    fn door(load_per_s: u32) -> (FrontDoor, PublicKey) {
        let private = PrivateKey::generate();
        (FrontDoor::new(&private, [9; 32], FrontSettings { load_per_s }), private.public())
    }

    fn at(seconds: u64) -> Now {
        Now { mono: Mono::from_secs(seconds), wall: Wall::from_millis(0) }
    }

    fn judge(door: &mut FrontDoor, datagram: &[u8], from: &str, seconds: u64) -> Front {
        door.judge(datagram, from.parse().unwrap(), &|_| true, at(seconds))
    }

    #[test]
    fn an_initiation_of_a_known_peer_is_opened() {
        let (mut door, gateway) = door(2_000);
        let mut device = Device::new(&gateway, None);
        let first = judge(&mut door, &device.initiation(), SOURCE, 1);
        let second = judge(&mut door, &device.initiation(), SOURCE, 1);
        match (first, second) {
            (Front::Initiation(one), Front::Initiation(two)) => {
                assert_eq!((one.peer, two.peer), (device.public(), device.public()));
                assert!(two.stamp > one.stamp);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_unknown_key_is_reported_and_not_stored() {
        let (mut door, gateway) = door(2_000);
        let mut device = Device::new(&gateway, None);
        let verdict = door.judge(&device.initiation(), SOURCE.parse().unwrap(), &|_| false, at(1));
        assert_eq!(verdict, Front::UnknownKey(device.public()));
    }

    #[test]
    fn random_bytes_of_every_size_get_silence() {
        let (mut door, _) = door(0);
        let mut noise = 1u64;
        for len in (0..1_600).chain([65_535]) {
            for kind in 0..6 {
                let mut bytes: Vec<u8> = (0..len)
                    .map(|_| {
                        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        (noise >> 56) as u8
                    })
                    .collect();
                if let Some(head) = bytes.get_mut(..4) {
                    head.copy_from_slice(&[kind, 0, 0, 0]);
                }
                let verdict = judge(&mut door, &bytes, SOURCE, 1);
                assert!(matches!(verdict, Front::Dropped(_) | Front::ForIndex(_)), "{verdict:?}");
            }
        }
    }

    #[test]
    fn a_wrong_length_type_or_mac1_is_distinguished() {
        let (mut door, gateway) = door(2_000);
        let good = Device::new(&gateway, None).initiation();
        let mut verdict_of = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            judge(&mut door, &bytes, SOURCE, 1)
        };
        let malformed = Front::Dropped(DropReason::Malformed);
        assert_eq!(verdict_of(&|b| b.truncate(147)), malformed);
        assert_eq!(verdict_of(&|b| b.push(0)), malformed);
        assert_eq!(verdict_of(&|b| b[1] = 1), malformed);
        assert_eq!(verdict_of(&|b| b[0] = 5), malformed);
        assert_eq!(verdict_of(&|b| b[20] ^= 1), Front::Dropped(DropReason::BadMac1));
    }

    #[test]
    fn a_session_packet_is_routed_by_the_first_24_bits_of_its_index() {
        let (mut door, _) = door(2_000);
        let mut data = vec![4, 0, 0, 0, 0x07, 0x33, 0x22, 0x11];
        data.resize(DATA_OVERHEAD, 0);
        assert_eq!(judge(&mut door, &data, SOURCE, 1), Front::ForIndex(0x11_2233));
        data[0] = 3;
        data.resize(COOKIE_LEN, 0);
        assert_eq!(judge(&mut door, &data, SOURCE, 1), Front::ForIndex(0x11_2233));
    }

    /// Puts the door under load from the first initiation; returns the reply, and what the device
    /// sends after it.
    fn asked_for_a_cookie(door: &mut FrontDoor, device: &mut Device) -> Vec<u8> {
        match judge(door, &device.initiation(), SOURCE, 1_000) {
            Front::Cookie(reply) => assert_eq!(device.receive(&reply), Said::Nothing),
            other => panic!("{other:?}"),
        }
        device.initiation()
    }

    #[test]
    fn under_load_a_real_peer_is_let_in_with_its_cookie() {
        let (mut door, gateway) = door(1);
        judge(&mut door, &Device::new(&gateway, None).initiation(), SOURCE, 1_000);
        let mut device = Device::new(&gateway, None);
        let with_cookie = asked_for_a_cookie(&mut door, &mut device);
        let verdict = judge(&mut door, &with_cookie, SOURCE, 1_000);
        assert!(matches!(verdict, Front::Initiation(i) if i.peer == device.public()), "{verdict:?}");
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_port_only_and_not_for_ever() {
        let (mut door, gateway) = door(1);
        judge(&mut door, &Device::new(&gateway, None).initiation(), SOURCE, 1_000);
        let with_cookie = asked_for_a_cookie(&mut door, &mut Device::new(&gateway, None));
        let message = with_cookie.as_slice().try_into().unwrap();
        let holds = |from: &str, seconds| {
            door.cookies.mac2_holds(message, from.parse().unwrap(), Mono::from_secs(seconds))
        };
        assert!(holds(SOURCE, 1_000) && holds(SOURCE, 1_119));
        assert!(holds("[::ffff:192.0.2.7]:40000", 1_000));
        assert!(!holds("192.0.2.7:40001", 1_000));
        assert!(!holds("192.0.2.8:40000", 1_000));
        assert!(!holds(SOURCE, 1_241));
    }

    #[test]
    fn no_two_cookie_replies_share_a_nonce() {
        let (mut door, gateway) = door(0);
        let message: [u8; INITIATION_LEN] = Device::new(&gateway, None).initiation().try_into().unwrap();
        let from = SOURCE.parse().unwrap();
        let [one, two] = [0, 1].map(|_| door.cookies.reply(&message, from, Mono::from_secs(1)));
        assert_ne!(one[8..32], two[8..32]);
    }
}

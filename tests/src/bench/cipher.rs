//! Sealing and opening through a session, against the raw cipher.

use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_engine::tunnel::noise::{BoringNoise, BoringSession};
use fleetgate_engine::tunnel::session::{Noise as _, Opened, SCRATCH, Session as _};
use fleetgate_keys::PrivateKey;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::{cpu_of, home, median, micros, report};

const ROUNDS: usize = 300;
/// Packets of each kind in one round.
const BATCH: u32 = 200;
const TAG: usize = 16;
const NOW: Now = Now { mono: Mono::from_secs(1_000), wall: Wall::from_millis(0) };

pub fn run() {
    let mut pair = Pair::new();
    for len in [1_400, 84] {
        let mut raw = Raw::new(len);
        let packet = packet(len);
        let (mut ratios, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (theirs, ()) = cpu_of(|| (0..BATCH).for_each(|_| raw.seal_and_open()));
            let (through, ()) = cpu_of(|| (0..BATCH).for_each(|_| pair.carry(&packet)));
            ratios.push(through.as_secs_f64() / theirs.as_secs_f64());
            ours.push(micros(through / BATCH));
        }
        let figure = format!("{:.3} ({:.2} us)", median(ratios), median(ours));
        report(&format!("seal + open of {len} bytes, against ring"), &figure, "1.1 at 1,400 bytes");
    }
}

struct Raw {
    key: LessSafeKey,
    bytes: Vec<u8>,
    counter: u64,
}

impl Raw {
    fn new(len: usize) -> Raw {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("32 bytes");
        Raw { key: LessSafeKey::new(key), bytes: vec![0; len + TAG], counter: 0 }
    }

    fn seal_and_open(&mut self) {
        self.counter += 1;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_le_bytes());
        let len = self.bytes.len() - TAG;
        let (plain, room) = self.bytes.split_at_mut(len);
        let nonce = || Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce(), Aad::empty(), plain).expect("short");
        room.copy_from_slice(tag.as_ref());
        self.key.open_in_place(nonce(), Aad::empty(), &mut self.bytes).expect("what was sealed");
    }
}

/// A device and a gateway, both of the engine, with a session between them.
struct Pair {
    device: BoringSession,
    gateway: BoringSession,
    rooms: [Vec<u8>; 2],
}

impl Pair {
    fn new() -> Pair {
        let keys = [PrivateKey::generate(), PrivateKey::generate()];
        let session = |own: usize| {
            BoringNoise::new(&keys[own], [own as u8; 32]).session(&keys[1 - own].public(), None, 5, NOW)
        };
        let (device, gateway) = (session(0), session(1));
        let mut pair = Pair { device, gateway, rooms: [vec![0; SCRATCH], vec![0; SCRATCH]] };
        pair.shake_hands();
        pair
    }

    fn shake_hands(&mut self) {
        let [one, other] = &mut self.rooms;
        let (mut request, mut response, mut proof) = (vec![], vec![], vec![]);
        self.device.initiate(NOW.mono, one, &mut |bytes| request = bytes.to_vec());
        let answered = self.gateway.receive(&request, home(0), NOW.mono, other, &mut |bytes| {
            response = bytes.to_vec();
        });
        assert!(matches!(answered, Opened::HandshakeAnswered(_)), "{answered:?}");
        let done = self.device.receive(&response, home(0), NOW.mono, one, &mut |bytes| {
            proof = bytes.to_vec();
        });
        assert_eq!(done, Opened::HandshakeDone);
        let proved = self.gateway.receive(&proof, home(0), NOW.mono, other, &mut |_| {});
        assert_eq!(proved, Opened::Keepalive);
    }

    fn carry(&mut self, packet: &[u8]) {
        let [one, other] = &mut self.rooms;
        let gateway = &mut self.gateway;
        let mut arrived = false;
        let sink = &mut |sealed: &[u8]| {
            let opened = gateway.receive(sealed, home(0), NOW.mono, other, &mut |_| {});
            arrived = matches!(opened, Opened::Packet(_));
        };
        self.device.send(packet, NOW.mono, one, sink).expect("a session");
        assert!(arrived, "what was sealed opens");
    }
}

/// Makes an IPv4 packet, valid only as far as a session looks.
fn packet(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    bytes
}

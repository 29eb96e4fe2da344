//! A device's end of its tunnel. It turns datagrams into packets and packets into datagrams, and has no
//! socket. boringtun reads its own clock, which is allowed in a device.

use std::net::IpAddr;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use fleetgate_engine::time::Mono;
use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};

/// The largest datagram that is accepted; the gateway sends no larger one.
pub(crate) const MAX_DATAGRAM: usize = 2048;
/// boringtun exposes no deadline and rounds its timers to seconds.
const TICK: Duration = Duration::from_secs(1);
/// Interval of new handshakes. After 90 s without a response boringtun gives up, but a device with a
/// keepalive never does.
const REDIAL: Duration = Duration::from_secs(5);

pub(crate) struct Link {
    tunn: Tunn,
    out: Vec<Vec<u8>>,
    scratch: Box<[u8]>,
    next_tick: Mono,
    last_dial: Mono,
}

impl Link {
    pub(crate) fn new(
        private: &PrivateKey,
        gateway: &PublicKey,
        psk: Option<&PresharedKey>,
        keepalive: Option<Duration>,
        now: Mono,
    ) -> Self {
        let secret = x25519::StaticSecret::from(*private.as_bytes());
        let public = x25519::PublicKey::from(*gateway.as_bytes());
        let psk = psk.map(|key| *key.as_bytes());
        let keepalive = keepalive.map(|k| u16::try_from(k.as_secs()).unwrap_or(u16::MAX));
        let tunn = Tunn::new(secret, public, psk, keepalive, session_index(), None);
        let scratch = vec![0; MAX_DATAGRAM + 256].into_boxed_slice();
        Link { tunn, out: Vec::new(), scratch, next_tick: now + TICK, last_dial: now }
    }

    /// Starts a handshake, even if one is in flight.
    pub(crate) fn dial(&mut self, now: Mono) {
        self.last_dial = now;
        let result = self.tunn.format_handshake_initiation(&mut self.scratch, true);
        queue(&mut self.out, result);
    }

    /// Takes a datagram. Returns the packet in it.
    pub(crate) fn receive(&mut self, datagram: &[u8], from: IpAddr) -> Option<Vec<u8>> {
        match self.tunn.decapsulate(Some(from), datagram, &mut self.scratch) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Some(packet.to_vec())
            }
            result => {
                // A datagram to send may be followed by packets that waited for the session.
                let mut more = queue(&mut self.out, result);
                while more {
                    let result = self.tunn.decapsulate(None, &[], &mut self.scratch);
                    more = queue(&mut self.out, result);
                }
                None
            }
        }
    }

    pub(crate) fn send(&mut self, packet: &[u8]) {
        let result = self.tunn.encapsulate(packet, &mut self.scratch);
        queue(&mut self.out, result);
    }

    pub(crate) fn next_tick(&self) -> Mono {
        self.next_tick
    }

    /// Runs the timers if they are due.
    pub(crate) fn tick(&mut self, now: Mono) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        match self.tunn.update_timers(&mut self.scratch) {
            TunnResult::Err(WireGuardError::ConnectionExpired) => self.redial(now),
            result => drop(queue(&mut self.out, result)),
        }
    }

    fn redial(&mut self, now: Mono) {
        if now.since(self.last_dial) >= REDIAL {
            self.dial(now);
        }
    }

    pub(crate) fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out)
    }
}

/// Queues a datagram. Returns whether there was one.
fn queue(out: &mut Vec<Vec<u8>>, result: TunnResult<'_>) -> bool {
    match result {
        TunnResult::WriteToNetwork(datagram) => {
            out.push(datagram.to_vec());
            true
        }
        _ => false,
    }
}

/// boringtun keeps 24 bits of it.
fn session_index() -> u32 {
    super::device::random_u64() as u32 >> 8
}

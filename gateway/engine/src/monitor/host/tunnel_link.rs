//! The facts about a host's tunnel besides its packets: whether it has ever worked, since when it
//! has its key, and the clock of the device.

use crate::time::Mono;

use crate::monitor::host::event_limits::EventLimits;

#[derive(Debug, Default)]
pub struct TunnelLink {
    /// Whether it has ever carried a packet.
    came: bool,
    /// The time of the last key change in this run of the gateway.
    keyed_at: Mono,
    /// The last clock skew of the device that the tunnel reported.
    pub skew_ms: Option<i64>,
    pub events: EventLimits,
}

impl TunnelLink {
    pub fn restored(came: bool) -> TunnelLink {
        TunnelLink { came, ..TunnelLink::default() }
    }

    pub fn has_come(&self) -> bool {
        self.came
    }

    pub fn note_came(&mut self) {
        self.came = true;
    }

    /// Forgets that it has worked, because the host got another peer.
    pub fn replace(&mut self) {
        self.came = false;
    }

    pub fn note_rekeyed(&mut self, now: Mono) {
        self.keyed_at = now;
    }

    pub fn keyed_at(&self) -> Mono {
        self.keyed_at
    }
}

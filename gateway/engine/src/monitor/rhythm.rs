//! The longest silence of a device that is up.
//!
//! A packet proves a device up until the next one must have come. This module knows no devices: the
//! keepalive interval is the one in the configurations that the gateway issues.

use std::time::Duration;

/// A fraction of the keepalive interval: the timer is late on a busy device, and a mobile link
/// delays the packet.
const LATE_SHARE: u32 = 5;
const LATE: Duration = Duration::from_secs(1);
/// A device without a session retries every five seconds, and one attempt may be lost.
const TRIES: Duration = Duration::from_secs(11);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Zero: the device sends no keepalives.
    keepalive: Duration,
}

impl Rhythm {
    pub fn of(keepalive: Duration) -> Rhythm {
        Rhythm { keepalive }
    }

    /// Returns the longest silence between two packets of a session.
    pub fn packets(self) -> Duration {
        match self.keepalive {
            Duration::ZERO => Duration::ZERO,
            keepalive => keepalive + (keepalive / LATE_SHARE).max(LATE),
        }
    }

    /// Returns the longest silence between two failed handshakes: a device gives up after 90 s,
    /// until the next keepalive is due.
    pub fn tries(self) -> Duration {
        self.packets().max(TRIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_may_be_late_by_a_fifth_of_the_keepalive_or_a_second() {
        let secs = Duration::from_secs;
        let of = |keepalive| (Rhythm::of(secs(keepalive)).packets(), Rhythm::of(secs(keepalive)).tries());
        assert_eq!(of(25), (secs(30), secs(30)));
        assert_eq!(of(2), (secs(3), secs(11)));
        assert_eq!(of(0), (secs(0), secs(11)), "only handshakes are sent unasked");
    }
}

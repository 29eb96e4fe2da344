//! How long a device that lives may be silent.
//!
//! A packet is life for as long as the next one need not have come yet. Knows no device: the keepalive is
//! the one in the configurations that the gateway gives out.

use std::time::Duration;

/// Of the keepalive: its timer is late on a busy device, and a mobile link delays the packet.
const LATE_SHARE: u32 = 5;
const LATE: Duration = Duration::from_secs(1);
/// A device without a session tries again every five seconds, and one try may be lost.
const TRIES: Duration = Duration::from_secs(11);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// Zero: nothing is sent unasked.
    keepalive: Duration,
}

impl Rhythm {
    pub fn of(keepalive: Duration) -> Rhythm {
        Rhythm { keepalive }
    }

    /// The longest silence between two packets of a session.
    pub fn packets(self) -> Duration {
        match self.keepalive {
            Duration::ZERO => Duration::ZERO,
            keepalive => keepalive + (keepalive / LATE_SHARE).max(LATE),
        }
    }

    /// The longest silence between two handshakes that lead to nothing: after 90 s a device gives up, until the
    /// next keepalive is due.
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

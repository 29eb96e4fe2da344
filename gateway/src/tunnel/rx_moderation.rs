//! Decides when the tunnel thread may leave received packets unread for a moment.
//!
//! Waking a thread for one keepalive costs ten times as much as the keepalive itself. While no probe
//! waits for its reply, packets are taken together, [`REST`] after the last read. While probes wait, it
//! is [`GATHER`]. Pure: the caller reports what happened and when.

use std::time::Duration;

use fleetgate_engine::time::Mono;

/// Pause between two reads of the socket. It adds half of itself, on average, to the response to a
/// handshake, which devices start every two minutes, and to the first probe after an idle period.
/// The bytes of streams never wait for it. 5,000 devices send ten keepalives in it.
const REST: Duration = Duration::from_millis(50);

/// The same pause while replies to probes are expected. Their round trips do not contain it, because the
/// kernel notes when a datagram arrives. The first reply after a pause is taken at once, so only a fleet
/// with hundreds of checks a second gathers them.
const GATHER: Duration = Duration::from_millis(1);

/// Datagrams in one read that an idle fleet does not send. A receive buffer of the kernel's default
/// size holds 500 keepalives.
const BUSY: usize = 64;

/// Time after a busy read during which every packet is taken at once: a flood that pauses continues.
const ATTENTIVE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct RxModeration {
    looked: Option<Mono>,
    attentive_until: Option<Mono>,
    /// Probes that have no reply yet.
    asked: usize,
    /// Whether the kernel tells when datagrams arrive.
    is_timed: bool,
}

impl RxModeration {
    pub fn asked(&mut self) {
        self.asked += 1;
    }

    pub fn answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// Returns the time of the last look, or that of the start of the machine.
    pub fn last_look(&self) -> Mono {
        self.looked.unwrap_or(Mono::ZERO)
    }

    /// Records that the socket was read and returned this many datagrams. `is_timed`: the kernel told when each of
    /// them had arrived.
    pub fn looked(&mut self, datagrams: usize, is_timed: bool, now: Mono) {
        self.looked = Some(now);
        if datagrams > 0 {
            self.is_timed = is_timed;
        }
        if datagrams >= BUSY {
            self.attentive_until = Some(now + ATTENTIVE);
        }
    }

    /// Returns how long packets may stay unread from now on, with this many connections open.
    pub fn left(&self, connections: usize, now: Mono) -> Duration {
        let attentive = self.attentive_until.is_some_and(|until| now < until);
        let pause = match self.asked {
            _ if attentive || connections > 0 => return Duration::ZERO,
            0 => REST,
            _ if self.is_timed => GATHER,
            _ => return Duration::ZERO,
        };
        self.looked.map_or(Duration::ZERO, |looked| (looked + pause).since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn datagrams_are_gathered_for_a_moment() {
        let mut rest = RxModeration::default();
        assert_eq!(rest.left(0, ms(5)), Duration::ZERO, "the first is taken at once");
        rest.looked(1, true, ms(10));
        assert_eq!(rest.left(0, ms(12)), Duration::from_millis(48));
        assert_eq!(rest.left(0, ms(60)), Duration::ZERO);
        assert_eq!(rest.left(0, ms(99)), Duration::ZERO);
    }

    #[test]
    fn replies_are_gathered_briefly_and_only_where_the_kernel_tells_when_they_came() {
        for (is_timed, gathered) in [(true, GATHER), (false, Duration::ZERO)] {
            let mut rest = RxModeration::default();
            rest.looked(1, is_timed, ms(10));
            assert_eq!(rest.left(1, ms(10)), Duration::ZERO, "a connection is open");
            rest.asked();
            rest.asked();
            rest.answered();
            assert_eq!(rest.left(0, ms(10)), gathered);
            assert_eq!(rest.left(0, ms(11)), Duration::ZERO);
            rest.looked(0, true, ms(12));
            assert_eq!(rest.left(0, ms(12)), gathered, "a look that found nothing tells nothing");
            assert_eq!(rest.last_look(), ms(12));
            rest.answered();
            assert_eq!(rest.left(0, ms(13)), Duration::from_millis(49));
        }
    }

    #[test]
    fn many_datagrams_keep_the_socket_polled_for_a_while() {
        let mut rest = RxModeration::default();
        rest.looked(BUSY, true, ms(10));
        rest.looked(3, true, ms(20));
        assert_eq!(rest.left(0, ms(21)), Duration::ZERO);
        rest.looked(3, true, ms(1_010));
        assert_eq!(rest.left(0, ms(1_010)), REST);
    }
}

//! Decides when the tunnel thread may leave received packets unread for a moment.
//!
//! Waking a thread for one keepalive costs ten times as much as the keepalive itself. While no probe
//! waits for its reply, packets are taken together, [`REST`] after the last read. Pure: the caller
//! reports what happened and when.

use std::time::Duration;

use fleetgate_engine::time::Mono;

/// Pause between two reads of the socket. It adds half of itself, on average, to the response to a
/// handshake, which devices start every two minutes, and to the first probe after an idle period.
/// Replies to checks and the bytes of streams never wait for it. 5,000 devices send ten keepalives in it.
const REST: Duration = Duration::from_millis(50);

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
}

impl RxModeration {
    pub fn asked(&mut self) {
        self.asked += 1;
    }

    pub fn answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// Records that the socket was read and returned this many datagrams.
    pub fn looked(&mut self, datagrams: usize, now: Mono) {
        self.looked = Some(now);
        if datagrams >= BUSY {
            self.attentive_until = Some(now + ATTENTIVE);
        }
    }

    /// Returns how long packets may stay unread from now on, with this many connections open.
    pub fn left(&self, connections: usize, now: Mono) -> Duration {
        let attentive = self.attentive_until.is_some_and(|until| now < until);
        if attentive || self.asked > 0 || connections > 0 {
            return Duration::ZERO;
        }
        self.looked.map_or(Duration::ZERO, |looked| (looked + REST).since(now))
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
        rest.looked(1, ms(10));
        assert_eq!(rest.left(0, ms(12)), Duration::from_millis(48));
        assert_eq!(rest.left(0, ms(60)), Duration::ZERO);
        assert_eq!(rest.left(0, ms(99)), Duration::ZERO);
    }

    #[test]
    fn datagrams_are_not_delayed_while_a_reply_is_awaited() {
        let mut rest = RxModeration::default();
        rest.looked(1, ms(10));
        assert_eq!(rest.left(1, ms(11)), Duration::ZERO);
        rest.asked();
        rest.asked();
        rest.answered();
        assert_eq!(rest.left(0, ms(11)), Duration::ZERO);
        rest.answered();
        assert_eq!(rest.left(0, ms(11)), Duration::from_millis(49));
    }

    #[test]
    fn many_datagrams_keep_the_socket_polled_for_a_while() {
        let mut rest = RxModeration::default();
        rest.looked(BUSY, ms(10));
        rest.looked(3, ms(20));
        assert_eq!(rest.left(0, ms(21)), Duration::ZERO);
        rest.looked(3, ms(1_010));
        assert_eq!(rest.left(0, ms(1_010)), REST);
    }
}

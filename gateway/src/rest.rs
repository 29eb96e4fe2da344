//! When the tunnel thread may leave arrivals lying for a moment.
//!
//! Waking a thread for one keepalive costs ten times what the keepalive itself does. While nobody
//! waits for an answer, arrivals are taken together, [`REST`] after the last look. Pure: it is told
//! what happened and when.

use std::time::Duration;

use fleetgate_engine::time::Mono;

/// Adds half of it, on average, to the answer to a handshake, which devices ask for every two
/// minutes, and to the first question after a silence; answers to checks and the bytes of streams
/// never wait for it. 5,000 devices send eight keepalives in it.
const REST: Duration = Duration::from_millis(40);

/// So many datagrams at one look are no idle fleet. A receive buffer that the kernel has not been
/// told to enlarge holds 500 keepalives.
const BUSY: usize = 64;

/// After a busy look every arrival is taken at once for this long: a flood that pauses goes on.
const ATTENTIVE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Rest {
    looked: Option<Mono>,
    attentive_until: Option<Mono>,
    /// Questions that have no answer yet.
    asked: usize,
}

impl Rest {
    pub fn asked(&mut self) {
        self.asked += 1;
    }

    pub fn answered(&mut self) {
        self.asked = self.asked.saturating_sub(1);
    }

    /// The socket was looked at, and so many datagrams were there.
    pub fn looked(&mut self, datagrams: usize, now: Mono) {
        self.looked = Some(now);
        if datagrams >= BUSY {
            self.attentive_until = Some(now + ATTENTIVE);
        }
    }

    /// How long arrivals may lie from now on, with so many connections open.
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
    fn arrivals_lie_for_a_moment_after_the_last_look() {
        let mut rest = Rest::default();
        assert_eq!(rest.left(0, ms(5)), Duration::ZERO, "the first is taken at once");
        rest.looked(1, ms(10));
        assert_eq!(rest.left(0, ms(12)), Duration::from_millis(38));
        assert_eq!(rest.left(0, ms(50)), Duration::ZERO);
        assert_eq!(rest.left(0, ms(99)), Duration::ZERO);
    }

    #[test]
    fn nothing_lies_while_an_answer_or_a_connection_is_waited_for() {
        let mut rest = Rest::default();
        rest.looked(1, ms(10));
        assert_eq!(rest.left(1, ms(11)), Duration::ZERO);
        rest.asked();
        rest.asked();
        rest.answered();
        assert_eq!(rest.left(0, ms(11)), Duration::ZERO);
        rest.answered();
        assert_eq!(rest.left(0, ms(11)), Duration::from_millis(39));
    }

    #[test]
    fn a_busy_look_keeps_it_attentive_for_a_while() {
        let mut rest = Rest::default();
        rest.looked(BUSY, ms(10));
        rest.looked(3, ms(20));
        assert_eq!(rest.left(0, ms(21)), Duration::ZERO);
        rest.looked(3, ms(1_010));
        assert_eq!(rest.left(0, ms(1_010)), REST);
    }
}

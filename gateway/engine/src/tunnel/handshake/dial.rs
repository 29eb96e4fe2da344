//! Dialling: when to send initiations, how often and how fast.
//!
//! A dial sends two initiations at most. A failed dial is remembered, so that a dead peer costs one
//! dial in five minutes. After a restart the whole fleet is dialled at a limited rate.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Mono;
use crate::tunnel::peers::{Endpoint, Slot};

/// WireGuard's REKEY-TIMEOUT: an initiation is not repeated sooner.
const REPEAT_AFTER: Duration = Duration::from_secs(5);

/// The second initiation gets as much time as the first.
const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// Limit per dial, and per silence of a peer whose session renews itself.
pub const MAX_INITIATIONS: u8 = 2;

/// How long a dial that failed is remembered.
const REMEMBER_FAILURE: Duration = Duration::from_secs(300);

/// The fleet is dialled within this time: 100,000 devices in two and a half minutes.
const WINDOW: Duration = Duration::from_secs(150);

/// The rate never falls below 200 a second. At that rate 1,000 devices are dialled within 5 s,
/// which leaves time for the second initiation within the promised 10 s. 200 initiations take about
/// 70 ms of one core.
const SLOWEST_GAP: Duration = Duration::from_millis(5);

/// Dials that one turn makes at most to catch up with its schedule. 16 take about 6 ms.
pub const DIALS_PER_TURN: usize = 16;

/// The next action of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialAction {
    Nothing,
    Repeat,
    GiveUp,
}

#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// The endpoint that the initiations are sent to.
    pub to: Endpoint,
    started: Mono,
    repeated: bool,
}

impl Dial {
    pub fn new(to: Endpoint, now: Mono) -> Self {
        Dial { to, started: now, repeated: false }
    }

    pub fn step(&mut self, now: Mono) -> DialAction {
        if now >= self.started + GIVE_UP_AFTER {
            DialAction::GiveUp
        } else if !self.repeated && now >= self.started + REPEAT_AFTER {
            self.repeated = true;
            DialAction::Repeat
        } else {
            DialAction::Nothing
        }
    }

    /// Returns whether a handshake that began at `begun` completes this dial. An earlier handshake
    /// does not.
    pub fn is_answered_by(&self, begun: Mono) -> bool {
        begun >= self.started
    }

    pub fn due(&self) -> Mono {
        self.started + if self.repeated { GIVE_UP_AFTER } else { REPEAT_AFTER }
    }
}

/// Returns whether an ordinary check may dial a peer whose last dial failed at `failed`.
pub fn may_dial(failed: Option<Mono>, now: Mono) -> bool {
    failed.is_none_or(|failed| now.since(failed) >= REMEMBER_FAILURE)
}

/// The peers that wait to be dialled after a restart.
#[derive(Default)]
pub struct Pacer {
    queue: VecDeque<Slot>,
    next: Mono,
    gap: Duration,
}

impl Pacer {
    pub fn start(&mut self, peers: impl Iterator<Item = Slot>, now: Mono) {
        self.queue = peers.collect();
        let count = u32::try_from(self.queue.len()).unwrap_or(u32::MAX).max(1);
        self.gap = (WINDOW / count).min(SLOWEST_GAP);
        self.next = now;
    }

    pub fn stop(&mut self) {
        self.queue.clear();
    }

    /// Returns the next peer that is due.
    pub fn pop(&mut self, now: Mono) -> Option<Slot> {
        if now < self.next {
            return None;
        }
        let peer = self.queue.pop_front()?;
        self.next = self.next + self.gap;
        Some(peer)
    }

    pub fn due(&self) -> Option<Mono> {
        (!self.queue.is_empty()).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished_after(count: u32) -> Duration {
        let mut pacer = Pacer::default();
        pacer.start((0..count).map(|index| Slot { index, generation: 0 }), Mono::ZERO);
        let mut now = Mono::ZERO;
        while let Some(due) = pacer.due() {
            now = due;
            assert!(pacer.pop(now).is_some());
            assert!(pacer.due().is_none_or(|next| next > now), "two at once");
        }
        now.since(Mono::ZERO)
    }

    #[test]
    fn twenty_devices_are_dialled_at_once_1000_in_5_s_100000_in_3_minutes() {
        assert!(finished_after(20) <= Duration::from_millis(100));
        assert!(finished_after(1_000) <= Duration::from_secs(5));
        assert!(finished_after(100_000) <= Duration::from_secs(150));
    }

    #[test]
    fn a_dial_repeats_once_and_gives_up_at_10_s() {
        let start = Mono::from_secs(100);
        let to = Endpoint { remote: ([192, 0, 2, 1], 1).into(), local: None };
        let mut dial = Dial::new(to, start);
        assert_eq!(dial.step(start), DialAction::Nothing);
        assert_eq!(dial.due(), start + REPEAT_AFTER);
        assert_eq!(dial.step(dial.due()), DialAction::Repeat);
        assert_eq!(dial.step(start + REPEAT_AFTER), DialAction::Nothing);
        assert_eq!(dial.step(dial.due()), DialAction::GiveUp);
    }

    #[test]
    fn a_failure_is_remembered_for_five_minutes() {
        let failed = Some(Mono::from_secs(10));
        assert!(may_dial(None, Mono::ZERO));
        assert!(!may_dial(failed, Mono::from_secs(309)));
        assert!(may_dial(failed, Mono::from_secs(310)));
    }
}

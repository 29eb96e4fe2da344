//! Due work: ends of grants, begins of blocks, flows that a change cut, idle flows, and the resets
//! for connections that are cut. Work beyond the budget of a turn waits for the next one, so that it delays no packet.

use super::Forwarder;
use super::flows::{Flow, Progress};
use super::lists::{List, Slot};
use super::reject::Reset;
use super::tcp_state::Direction;
use crate::id::PeerId;
use crate::messages::FlowEnd;
use crate::time::{Mono, Now};

/// Steps in a turn. Most take less than a microsecond: about half a millisecond.
const STEPS_PER_TURN: usize = 512;

/// The steps that are left of this turn.
#[derive(Clone, Copy, Debug)]
pub struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Budget(STEPS_PER_TURN)
    }
}

impl Budget {
    fn spend(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 -= usize::from(left);
        left
    }
}

impl Forwarder {
    /// Does due work. Returns a packet for a peer; the caller calls it until it returns `None`, in
    /// every turn.
    pub fn work(&mut self, now: Now) -> Option<(PeerId, &[u8])> {
        self.begin(now);
        if let Some(to) = self.build_displaced() {
            return Some((to, &self.reply));
        }
        while self.budget.spend() {
            if let Some(slot) = self.flows.first(List::Cut) {
                if let Some(to) = self.next_reset(slot) {
                    return Some((to, &self.reply));
                }
            } else if !self.step() {
                break;
            }
        }
        None
    }

    /// Returns a reset that goes out before the packet that has just passed, whose flow took the place of one that
    /// was cut. The caller calls it until it returns `None`.
    pub fn reset_before(&mut self) -> Option<(PeerId, &[u8])> {
        let to = self.build_displaced()?;
        Some((to, &self.reply))
    }

    fn build_displaced(&mut self) -> Option<PeerId> {
        let (to, reset) = self.displaced.pop_front()?;
        reset.build(&mut self.reply);
        Some(to)
    }

    /// Returns when there is work, at the latest; `None`: no work is planned.
    pub fn next_due(&self) -> Option<Mono> {
        let reviews = !self.reviews.is_empty() || self.sweep.is_some();
        if reviews || !self.displaced.is_empty() || self.flows.first(List::Cut).is_some() {
            return Some(self.now.mono);
        }
        [self.policy.next_end(self.now), self.flows.next_due()].into_iter().flatten().min()
    }

    /// Looks at each flow that is in a list now.
    pub(super) fn review_all(&mut self, list: List) {
        let flows = self.flows.count(list);
        if flows > 0 {
            self.reviews.insert(list, flows);
        }
    }

    fn step(&mut self) -> bool {
        let ended = self.policy.take_ended(self.now);
        if let Some(grant) = ended.or_else(|| self.policy.take_blocked(self.now)) {
            self.review_all(List::Grant(grant));
            return true;
        }
        self.review_one() || self.sweep_one() || self.run_timer()
    }

    fn review_one(&mut self) -> bool {
        let Some(mut review) = self.reviews.first_entry() else { return false };
        let list = *review.key();
        if *review.get() == 0 {
            review.remove();
            return true;
        }
        *review.get_mut() -= 1;
        match self.flows.rotate(list) {
            // A flow that is not permitted is cut there.
            Some(slot) => {
                let _ = self.permitted(slot);
            }
            None => {
                self.reviews.remove(&list);
            }
        }
        true
    }

    /// Looks at the next of all flows.
    fn sweep_one(&mut self) -> bool {
        let Some(slot) = self.sweep.filter(|slot| *slot < self.flows.places()) else {
            self.sweep = None;
            return false;
        };
        self.sweep = Some(slot + 1);
        // A flow that is not permitted is cut there.
        let _ = self.permitted(slot);
        true
    }

    fn run_timer(&mut self) -> bool {
        let Some((slot, expired)) = self.flows.due(self.now.mono) else { return false };
        if expired {
            self.end_unless_over(slot, FlowEnd::TimedOut);
        } else if let Some(flow) = self.flows.get_mut(slot) {
            self.records.interim(flow, self.now);
        }
        true
    }

    /// Ends a flow with the gateway. One that was over before keeps its own reason.
    pub(super) fn stop(&mut self, slot: Slot) {
        let Some(flow) = self.flows.remove(slot).filter(|flow| !flow.is_probe()) else { return };
        let why = flow.over().unwrap_or(FlowEnd::Stopped);
        self.records.stopped(&flow, why, self.now);
    }

    /// Ends a flow that is not permitted, so that a new one has its place. Its resets go out before the first packet
    /// of the new one, whose connection they would break afterwards. `renewed`: this end has opened the connection
    /// anew and gets none. Returns false if too many resets wait.
    pub(super) fn displace(&mut self, slot: Slot, renewed: Option<PeerId>) -> bool {
        if self.displaced.len() + MOST_RESETS > MOST_DISPLACED {
            return false;
        }
        while let Some((to, reset)) = self.take_reset(slot) {
            self.displaced.extend((Some(to) != renewed).then_some((to, reset)));
        }
        self.end(slot, FlowEnd::NotGranted);
        true
    }

    /// Builds the next reset for a connection that is cut, in the buffer for replies. Returns its
    /// receiver. A flow without further resets ends.
    fn next_reset(&mut self, slot: Slot) -> Option<PeerId> {
        let Some((to, reset)) = self.take_reset(slot) else {
            self.end(slot, FlowEnd::NotGranted);
            return None;
        };
        reset.build(&mut self.reply);
        Some(to)
    }

    /// Takes the next reset for a connection that the gateway ends.
    fn take_reset(&mut self, slot: Slot) -> Option<(PeerId, Reset)> {
        let flow = self.flows.get_mut(slot)?;
        while usize::from(flow.resets_sent) < MOST_RESETS {
            flow.resets_sent += 1;
            let found = reset(flow, usize::from(flow.resets_sent) - 1);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Resets that wait for the caller. It takes them with each packet.
const MOST_DISPLACED: usize = 64;

/// Two to each end.
const MOST_RESETS: usize = 4;

/// Returns the reset of this number, if the connection needs it.
fn reset(flow: &Flow, number: usize) -> Option<(PeerId, Reset)> {
    let Progress::Tcp(tcp) = &flow.progress else { return None };
    let direction = if number < 2 { Direction::Back } else { Direction::Out };
    // The source knows nothing of a connection that the gateway opened in its name.
    if flow.is_probe() && direction == Direction::Back {
        return None;
    }
    let (seq, ack) = tcp.resets(direction)[number % 2]?;
    let path = &flow.path;
    // As the receiver sees the connection.
    let (src, dst) = match direction {
        Direction::Out => (path.src, path.real),
        Direction::Back => (path.reached_at, path.src),
    };
    let (src_port, dst_port) = match direction {
        Direction::Out => (path.src_port, path.dst_port),
        Direction::Back => (path.dst_port, path.src_port),
    };
    let reset = Reset { v6: path.v6, src, dst, src_port, dst_port, seq, ack: Some(ack) };
    Some((path.receiver(direction), reset))
}

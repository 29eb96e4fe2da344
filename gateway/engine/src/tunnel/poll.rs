//! One turn of the loop: runs what is due, within budgets, and returns when the next turn is.
//!
//! Work that exceeds a budget waits for the next turn, so that a flood of one kind starves neither
//! the others nor the socket.

use std::time::Duration;

use super::Tunnel;
use crate::messages::{Output, WakeReason};
use crate::time::Mono;
use crate::tunnel::forward_probes::InFlight;
use crate::tunnel::handshake::dial::DIALS_PER_TURN;
use crate::tunnel::peer_sessions::due;
use crate::tunnel::peers::Slot;
use crate::tunnel::session::Noise;

/// Answering a handshake takes about half a millisecond: 4 ms a turn.
const HANDSHAKES_PER_TURN: usize = 8;

/// A poll of an idle session takes half a microsecond.
const TIMERS_PER_TURN: usize = 1_024;

/// Each stack takes at most 64 packets each way.
const STACKS_PER_TURN: usize = 64;

/// Each status is a message to the shell.
const STATUSES_PER_TURN: usize = 256;

/// Work that is left over is resumed at the next reading of the clock.
const NEXT_TURN: Duration = Duration::from_micros(1);

/// The remaining budgets of this turn.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    handshakes: usize,
    timers: usize,
    stacks: usize,
    dials: usize,
    statuses: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            handshakes: HANDSHAKES_PER_TURN,
            timers: TIMERS_PER_TURN,
            stacks: STACKS_PER_TURN,
            dials: DIALS_PER_TURN,
            statuses: STATUSES_PER_TURN,
        }
    }
}

fn spend(budget: &mut usize) -> bool {
    let left = *budget > 0;
    *budget -= usize::from(left);
    left
}

impl Budget {
    pub fn has_handshake(&self) -> bool {
        self.handshakes > 0
    }

    pub fn handshake(&mut self) -> bool {
        spend(&mut self.handshakes)
    }

    pub fn stack(&mut self) -> bool {
        spend(&mut self.stacks)
    }

    pub fn dial(&mut self) -> bool {
        spend(&mut self.dials)
    }

    pub fn publish(&mut self) -> bool {
        spend(&mut self.statuses)
    }
}

impl<N: Noise> Tunnel<N> {
    /// Does one piece of due work. Returns false when nothing is left for this turn.
    pub(super) fn work(&mut self) -> bool {
        if self.quiet {
            return self.run_publish();
        }
        self.run_stack()
            || self.run_forwarding()
            || self.run_forward_probe()
            || self.run_initiation()
            || self.run_timer()
            || self.run_dial()
            || self.run_publish()
    }

    fn run_timer(&mut self) -> bool {
        if self.budget.timers == 0 {
            return false;
        }
        let Some((slot, ticket)) = self.wheel.pop(self.now.mono) else { return false };
        self.budget.timers -= 1;
        if self.peers.get_mut(slot).is_some_and(|peer| peer.filed.redeem(ticket)) {
            self.fire(slot);
        }
        true
    }

    fn fire(&mut self, slot: Slot) {
        self.poll_session(slot);
        self.step_dial(slot);
        self.expire_waiting(slot);
        self.run_echoes(slot);
        self.wake_if_due(slot);
        self.settle(slot);
    }

    fn wake_if_due(&mut self, slot: Slot) {
        let now = self.now.mono;
        let stack = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut());
        if stack.is_some_and(|stack| stack.due().is_some_and(|due| due <= now)) {
            self.wake(slot);
        }
    }

    pub(super) fn wait(&self) -> Output {
        let publish = self.changed.front().map(|(at, _)| (*at, WakeReason::Publish));
        let soonest = if self.quiet { publish } else { self.soonest(publish) };
        match soonest {
            Some((at, why)) => Output::Wait(Some(at.max(self.now.mono + NEXT_TURN)), why),
            None => Output::Wait(None, WakeReason::Idle),
        }
    }

    fn soonest(&self, publish: Option<(Mono, WakeReason)>) -> Option<(Mono, WakeReason)> {
        let leftover = !self.ready.is_empty() || !self.initiations.is_empty();
        let leftover = leftover.then_some((self.now.mono, WakeReason::SessionTimer));
        let timer = self.wheel.next().map(|(at, slot)| (at, self.why(slot)));
        let dial = self.pacer.due().map(|at| (at, WakeReason::PacedDial));
        let forwarding = self.forwarder.next_due().map(|at| (at, WakeReason::Forwarding));
        let probe = self.forward_probes.iter().map(InFlight::next).min();
        let probe = probe.map(|at| (at, WakeReason::ProbeTimeout));
        [leftover, timer, dial, forwarding, probe, publish].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Returns the wake reason of a slot. The timers of idle sessions fire slot by slot, and the
    /// first peer of a slot represents it.
    fn why(&self, slot: Slot) -> WakeReason {
        self.peers.get(slot).and_then(due).map_or(WakeReason::Idle, |(_, why)| why)
    }
}

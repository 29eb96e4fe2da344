//! A grant that has not ended: its window, the blocks of its device, and its handover, by both clocks.

use super::blocks;
use super::gate;
use super::window::{Moves, Shut, Span, Trust, Window};
use crate::id::HostId;
use crate::messages::GrantSpec;
use crate::time::{Now, Wall};

pub struct Grant {
    pub spec: GrantSpec,
    pub window: Window,
    /// Those of its blocks, in their order, as ends of windows.
    pub begins: Vec<Window>,
    /// The device that was handed over during this run, and when.
    pub handed_over: Option<(HostId, Wall)>,
}

impl Grant {
    /// Returns the time around `now` in which it permits something to this device.
    pub fn open(&self, trust: &Trust, device: HostId, now: Now) -> Result<Span, Shut> {
        let window = trust.open(&self.window, now);
        let known = self.handed_over.filter(|(handed_over, _)| *handed_over == device).map(|(_, at)| at);
        let gate = gate::pass(trust, &self.spec.gate, &self.begins, known, now);
        let is_stored = self.spec.gate.handed_over_at.is_some();
        match (window, gate) {
            // The clock was set back over the handover. The flows wait, as those of other grants do.
            (Err(Shut::Doubted), Err(Shut::Delayed)) if is_stored => Err(Shut::Doubted),
            (Err(shut @ (Shut::Over | Shut::NotYet)), _) | (_, Err(shut)) | (Err(shut), Ok(_)) => Err(shut),
            (Ok(window), Ok(gate)) => Ok(window.and(gate)),
        }
    }

    /// Computes its times anew, by a clock that is right.
    pub fn load(&mut self, trust: &Trust, now: Now) {
        self.window = trust.load(self.spec.from, self.spec.until, now);
        self.begins = blocks::begins(trust, &self.spec.gate.blocks, &[], now);
    }

    /// Its times on the boot-time clock.
    fn times(&mut self) -> impl Iterator<Item = &mut Window> {
        std::iter::once(&mut self.window).chain(&mut self.begins)
    }

    pub fn be_provisional(&mut self) {
        self.times().for_each(|time| time.provisional = true);
    }

    /// Whether the clock that is believed moves one of its times.
    pub fn may_move(&self, moves: Moves) -> bool {
        moves.includes(&self.window) || self.begins.iter().any(|begin| moves.includes(begin))
    }

    pub fn believe(&mut self, trust: &Trust, moves: Moves, now: Now) {
        for time in self.times().filter(|time| moves.includes(time)) {
            *time = trust.believe(*time, now);
        }
    }

    /// Forgets a handover by a clock that was ahead: it is to come again. Returns whether it did.
    pub fn mind_step(&mut self, now: Wall) -> bool {
        self.handed_over.take_if(|(_, at)| now < *at).is_some()
    }
}

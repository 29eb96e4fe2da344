//! Traces of simulated fleets: every message to a contact, and digests of all that the engine
//! emits.
//!
//! Equal digests of two commits show that a change of the engine did not change its behaviour, as
//! far as these fleets go. They prove nothing about whether that behaviour is right.

mod digest;
mod fleet;
mod life;
mod recorder;

use std::time::Duration;

use life::Life;
use recorder::Recorder;

pub use digest::Digest;
pub use recorder::Trace;

/// An action is due on a full second.
const STEP: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub hosts: i64,
    pub hours: u32,
}

/// Runs a fleet and returns its trace; the same seed gives the same fleet.
pub fn trace(seed: u64, size: Size) -> Trace {
    let mut life = Life::new(seed, size.hosts);
    let mut recorder = Recorder::new(&life.world);
    let end = life.world.now.mono + HOUR * size.hours;
    let mut next = life.world.now.mono;
    while life.world.now.mono < end {
        if life.world.now.mono >= next {
            next = life.world.now.mono + life.act(&mut recorder);
        }
        recorder.pass(&mut life.world, STEP);
    }
    recorder.trace
}

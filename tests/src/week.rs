//! A fleet over days of virtual time, next to a naive model.
//!
//! Sites and the gateway's own uplink fail, links flap, devices sleep or die, and the gateway
//! restarts. The engine decides when it checks a host. The model gets the result of every check as
//! well; it counts by the rules of the semantics and shares no code with the engine.
//!
//! Each hour all states and messages of both must be equal. Those of hosts that have not changed
//! for long must also be true.

mod fleet;
mod model;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use world::World;

/// A check in four minutes, so that a fifth of a disconnected fleet fails within a minute.
pub const INTERVAL: Duration = Duration::from_secs(240);
pub const RETRY: Duration = Duration::from_secs(70);
pub const ATTEMPTS: u32 = 3;
/// The silence that sleepers are allowed.
pub const MAX_SILENCE: Duration = Duration::from_secs(26 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub hosts: usize,
    pub hours: u32,
}

/// The counts of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Completed checks.
    pub looks: u64,
    pub restarts: u32,
    pub clock_steps: u32,
    /// Messages by kind; `gateway` for those about the gateway itself.
    pub messages: BTreeMap<String, u64>,
    /// The most hosts that were unreachable, and asleep, at the end of an hour.
    pub unreachable: usize,
    pub asleep: usize,
    /// States that were compared.
    pub compared: u64,
}

/// Runs a simulation. The same seed gives the same run.
///
/// # Panics
/// Panics when engine and model differ, or either differs from the truth; the message names the
/// seed.
pub fn live(seed: u64, size: Size) -> Report {
    let mut world = World::new(seed, size.hosts);
    for _ in 0..size.hours {
        world.run(HOUR);
        world.compare();
    }
    world.report
}

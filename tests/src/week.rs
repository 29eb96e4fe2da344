//! A fleet over days of virtual time, beside a naive model: outages of sites and of the gateway's own
//! uplink, links that flap, devices that sleep or die, and restarts of the gateway.
//!
//! The engine decides when it looks at a host. Every look is given to the model too, which counts by the
//! words of the semantics and shares no code with the engine; each hour all states and all messages of
//! both must be the same, and those of hosts that have been one way for long must be true.

mod fleet;
mod model;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use world::World;

/// A check in four minutes, so that a fifth of a fleet that is cut off fails within a minute.
pub const INTERVAL: Duration = Duration::from_secs(240);
pub const RETRY: Duration = Duration::from_secs(70);
pub const ATTEMPTS: u32 = 3;
/// Silence that sleepers are allowed.
pub const MAX_SILENCE: Duration = Duration::from_secs(26 * 3_600);
const HOUR: Duration = Duration::from_secs(3_600);

#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub hosts: usize,
    pub hours: u32,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Report {
    /// Checks that came to an end.
    pub looks: u64,
    pub restarts: u32,
    pub clock_steps: u32,
    /// By kind; `gateway` for those that are about the gateway itself.
    pub messages: BTreeMap<String, u64>,
    /// The most hosts that were unreachable, and asleep, at the end of an hour.
    pub unreachable: usize,
    pub asleep: usize,
    /// States that were compared.
    pub compared: u64,
}

/// Lives through it. The same seed gives the same story.
///
/// # Panics
/// When engine and model, or either and the truth, do not agree; it names the seed.
pub fn live(seed: u64, size: Size) -> Report {
    let mut world = World::new(seed, size.hosts);
    for _ in 0..size.hours {
        world.run(HOUR);
        world.compare();
    }
    world.report
}

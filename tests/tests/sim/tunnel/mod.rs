//! The tunnel in a simulated network, next to a naive model of the required results.
//!
//! Each seed is a separate run. Devices roam, reboot and lose their clocks. The network loses,
//! duplicates and reorders. Strangers replay what they captured. The gateway restarts and its clock
//! steps. Operators remove, add and re-key devices.
//!
//! In every run each probe gets exactly one reply in time, and stamps and endpoints equal the
//! model's. Once the network is calm, every enrolled device is reachable again.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed alone.

mod host;
mod model;
mod network;
pub mod random;
mod world;

use std::time::Duration;

use world::World;

const HOUR: Duration = Duration::from_secs(3_600);

/// Prints the seed of a failed run.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("\nthe simulation failed: rerun it with FLEETGATE_SIM_SEED={}\n", self.0);
        }
    }
}

fn live(seed: u64, devices: u8, storm: Duration) {
    let _named = Named(seed);
    let mut world = World::new(seed, devices);
    world.storm(storm);
    world.calm_down();
}

/// Returns the requested seed, or all of them.
fn seeds(all: std::ops::Range<u64>) -> std::ops::Range<u64> {
    match std::env::var("FLEETGATE_SIM_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => all,
    }
}

#[test]
fn hundreds_of_short_lives_end_with_everybody_reachable() {
    for seed in seeds(0..300) {
        live(seed, 1 + (seed % 5) as u8, HOUR / 2);
    }
}

#[test]
fn days_of_a_larger_fleet_end_with_everybody_reachable() {
    for seed in seeds(1_000..1_002) {
        live(seed, 12, 24 * HOUR);
    }
}

#[test]
fn the_same_seed_is_the_same_life() {
    let trace = |seed| {
        let mut world = World::new(seed, 3);
        world.storm(HOUR / 4);
        world.trace()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}

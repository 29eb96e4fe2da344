//! The tunnel in a simulated network, beside a naive model of what must come of it.
//!
//! Each seed is a life of its own: devices roam, reboot, lose their clocks; the network loses,
//! doubles and reorders; strangers replay what they saw; the gateway restarts, its clock steps,
//! operators remove, add and re-key. Whatever happens, each question gets exactly one answer in
//! time, stamps and endpoints are the model's, and once it is calm everybody is reachable again.
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

/// Says which life it was that failed.
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

/// The one that was asked for, or all of them.
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

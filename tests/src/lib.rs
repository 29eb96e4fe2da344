//! The shared parts of the end-to-end tests and benchmarks.
//!
//! The lab has network namespaces, a gateway under an unprivileged user, real WireGuard devices
//! with real SSH servers, and a real mail sink. `week` simulates a fleet over a week. `world` is the fleet
//! of the simulations, and `traces` prints what the engine makes of random ones.

pub mod attacker;
pub mod bench;
pub mod blocks;
pub mod device;
pub mod dice;
pub mod faults;
pub mod front;
pub mod fuzz;
pub mod lab;
pub mod layers;
pub mod packets;
pub mod traces;
pub mod week;
pub mod world;

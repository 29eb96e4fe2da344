//! What the end-to-end tests and benchmarks share: a lab of network namespaces, a gateway under
//! an unprivileged user, real WireGuard devices with real SSH servers, a real mail sink; and a fleet
//! over a week, in no time.

pub mod attacker;
pub mod bench;
pub mod device;
pub mod dice;
pub mod faults;
pub mod front;
pub mod lab;
pub mod layers;
pub mod packets;
pub mod week;

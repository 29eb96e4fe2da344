//! What the end-to-end tests and benchmarks share: a lab of network namespaces, a gateway under
//! an unprivileged user, real WireGuard devices with real SSH servers, a real mail sink.

pub mod attacker;
pub mod bench;
pub mod device;
pub mod lab;
pub mod layers;
pub mod packets;

//! The simulated devices: real WireGuard clients on loopback UDP with an IP stack and an SSH server
//! of their own, in this process. `fleetgate demo` shows the fleet of them, and tests use them one
//! by one.
//!
//! They know of the gateway what any device knows: its address, its public key and its SSH key.
//! Nothing in here reaches into the gateway; what the page shows was measured.

pub mod control;
pub mod device;
pub mod fleet;
mod link;
pub mod plan;
mod public;
pub mod rental;
pub mod sensors;
pub mod sshd;
mod stack;
#[cfg(test)]
mod tests;

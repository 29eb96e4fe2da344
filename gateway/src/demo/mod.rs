//! The simulated devices: real WireGuard clients on loopback UDP with their own IP stack and SSH
//! server, in this process. `fleetgate demo` runs a fleet of them, and tests use single ones.
//!
//! They know the same of the gateway as any device: its address, its public key and its SSH key. No
//! code in here calls into the gateway; the page shows measured values. Only what was before the start
//! is computed: `past` lets the devices live through it in virtual time.

pub mod control;
pub mod device;
pub mod fleet;
pub(crate) mod link;
pub mod past;
pub mod plan;
mod public;
pub mod rental;
pub mod renter;
pub mod sensors;
pub mod sshd;
mod stack;
#[cfg(test)]
mod tests;

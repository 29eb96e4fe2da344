//! Rentals: how long each occupies its device, its state, what it may use, what happens to it, and what its contacts hear.
//!
//! Everything here is a function of stored times and of the moment that the caller passes in. The
//! caller reads what occupies a device, decides and writes in one transaction.

pub mod access;
pub mod allowance;
pub mod device_access;
pub mod events;
pub mod handover;
pub mod life;
pub mod maintenance;
pub mod notices;
pub mod occupancy;
pub mod phase;
pub mod terms;
#[cfg(test)]
mod tests;
pub mod transitions;

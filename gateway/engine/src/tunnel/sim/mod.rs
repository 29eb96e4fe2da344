//! Simulated sessions and devices, for tests.

pub mod cleartext;
pub mod device;

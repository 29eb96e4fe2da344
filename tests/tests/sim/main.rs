//! Simulations under a virtual clock, the architecture's layers, and programs that need no network
//! of their own.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed of a simulation.

mod backups;
mod dashboard_build;
mod endless;
mod fuzz;
mod kills;
mod layers;
mod monitor;
mod notify;
mod tunnel;

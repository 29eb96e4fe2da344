//! The shell of fleetgate: everything that touches the world, around the pure engine.

pub mod api;
pub mod clock;
pub mod config;
pub mod handle;
pub mod live;
pub mod store;

//! The shell of fleetgate: everything that touches the world, around the pure engine.

pub mod clock;

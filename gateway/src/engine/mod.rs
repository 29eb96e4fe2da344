//! The shell's side of the engine: how other parts change it, read it, and wait for what it decided.

pub mod commit_wait;
pub(crate) mod definitions;
pub mod handle;
pub mod live_state;
pub mod questions;
pub mod rental_times;
pub mod unknown_keys;

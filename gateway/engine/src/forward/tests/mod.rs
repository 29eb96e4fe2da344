//! Stories of forwarding, and random ones beside a naive model.

mod bounds;
mod clock;
mod cut;
mod flows;
mod hostile;
mod known_times;
mod model;
pub mod packets;
mod path;
mod probe;
mod random;
mod rentals;
mod restarts;
mod stories;
mod world;

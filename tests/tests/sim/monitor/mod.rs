//! The monitor in virtual time: stories of one rule each, and seeded lives of fleets next to naive
//! models.

mod clerk;
mod model;
mod stories;

mod clock;
mod detection;
mod fleet;
mod jobs;
mod limits;
mod missed;
mod notifications;
mod rules;
mod silence;
mod sites;
mod uplink;
mod week;

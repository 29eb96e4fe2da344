//! The shell of fleetgate: everything that touches the world, around the pure engine.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod demo;
pub mod driver;
pub mod handle;
pub mod housekeeping;
pub mod identity;
pub mod live;
pub mod mail;
pub mod names;
pub mod password;
pub mod server;
pub mod ssh;
pub mod store;
pub mod stream;
pub mod telemetry;
pub mod udp;
pub mod watch;
pub mod web;
pub mod writer;

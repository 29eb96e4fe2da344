//! The shell of fleetgate: everything that touches the world, around the pure engine.

pub mod api;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod demo;
pub mod engine;
pub mod first_start;
pub mod health;
pub mod http;
pub mod identity;
pub mod ids;
pub mod maintenance;
pub mod monitor;
pub mod names;
pub mod notification;
pub mod outbound;
pub mod password;
pub mod sanitize;
pub mod server;
pub mod signals;
pub mod store;
pub mod tunnel;
pub mod watchdog;
pub mod writer;

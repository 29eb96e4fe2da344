//! Tunnels between a gateway and simulated devices, as stories.

mod day;
mod door;
mod handshakes;
mod inside;
mod questions;
mod real;
mod world;

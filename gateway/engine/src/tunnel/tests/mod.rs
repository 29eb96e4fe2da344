//! Tunnels between a gateway and simulated devices, as stories.

mod handshakes;
mod inside;
mod questions;
mod real;
mod world;

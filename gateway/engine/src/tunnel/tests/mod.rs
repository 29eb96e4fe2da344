//! Tunnels between a gateway and simulated devices, as stories.

mod clock;
mod day;
mod dns;
mod door;
mod forward_probes;
mod forwarding;
mod handshakes;
mod inside;
mod proof;
mod questions;
mod real;
mod replaced;
mod restart;
mod source;
mod world;

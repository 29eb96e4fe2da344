//! Sequences over several hosts while their links, their parents or the gateway's own uplink fail.

mod doubt;
mod incidents;
mod lab;
mod parents;
mod restart;
mod silence;

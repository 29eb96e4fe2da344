//! Everything that can be asked of a host, and what the answer means.
//!
//! Packets in, packets and samples out. Knows no WireGuard, no sockets, no runtime, no database.

pub mod cause;
pub mod echo;
pub mod job;
pub mod packet;
pub mod perfdata;
pub mod plugin;
pub mod range;
pub mod remote;
pub mod sample;
pub mod sensors;
pub mod ssh;
pub mod tcp;

mod escapes;
mod words;

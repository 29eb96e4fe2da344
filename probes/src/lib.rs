//! The probes of a host, and the results of their replies.
//!
//! The crate takes and makes packets and samples. It knows no WireGuard, no sockets, no runtime and
//! no database.

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

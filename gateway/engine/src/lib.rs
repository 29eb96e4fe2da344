//! The decisions of fleetgate: who may speak through which tunnel, what state a host and its
//! services are in, what is wrong, and who is to be told.
//!
//! Everything here is a function of its inputs and of the [`time::Now`] handed in. It knows no
//! sockets, no files, no database, no runtime and no clock; the shell (`fleetgate`) carries the
//! messages of [`wire`] between the two halves, the network and the store.

mod calendar;
pub mod id;
pub mod incident;
pub mod monitor;
pub mod notify;
pub mod time;
pub mod tunnel;
pub mod verdict;
pub mod wire;

//! The decisions of fleetgate: the traffic that each peer may send through its tunnel and to other
//! peers, the states of hosts and services, their availability, the causes of problems, and the
//! notifications.
//!
//! Everything here is a function of its inputs and of the [`time::Now`] that the caller supplies.
//! It knows no sockets, files, database, runtime or clock. The shell (`fleetgate`) carries the
//! messages of [`messages`] between the two halves, the network and the store.

pub mod availability;
pub mod calendar;
pub mod dns;
pub mod forecast;
pub mod forward;
pub mod history;
pub mod id;
pub mod incident;
pub mod messages;
pub mod monitor;
pub mod notification;
pub mod rental;
pub mod time;
mod token_bucket;
pub mod tunnel;
pub mod verdict;

//! Faults of devices, paths and sites, alone and in pairs, with real wireguard-go and sshd. The
//! test compares the gateway's reports at each moment with the truth.
//!
//! `cells` is the matrix. Each cell has a room of its own (`room`), where `inject` breaks things.
//! `observer` records the API's responses from before the faults until everything is ok again.
//! `judge` compares the records with `truth`, a naive model of the room that shares no code with
//! the gateway. Truth and judge are pure.

pub mod cells;
mod inject;
mod judge;
mod observer;
mod report;
mod room;
mod run;
mod truth;

pub use judge::{Judged, judge};
pub use report::{print, table};
pub use run::{Outcome, run_all};
pub use truth::{Fault, Host};

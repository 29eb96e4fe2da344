//! Faults of devices, paths and sites, alone and in pairs, with real wireguard-go and sshd: what the
//! gateway says of them at each moment, beside what is true.
//!
//! `cells` is the matrix. Each cell has a room of its own (`room`), where `inject` breaks things and
//! `observer` notes what the API says, before the faults until all is well again. `judge` compares the
//! notes with `truth`, a naive model of the room that shares no code with the gateway. Truth and judge
//! are pure.

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

//! The messages between the two halves of the engine and the shell.
//!
//! ```text
//!            Input                    ProbeRequest (the shell carries it)
//! network  ────────▶  Tunnel  ◀──────────────────────────────  Monitor  ──▶ Record (store)
//!          ◀────────          ──────────────────────────────▶           ──▶ Output::Wait
//!            Output            ProbeReply, TunnelEvent
//! ```
//!
//! Values only: no module here decides anything.

mod dns;
mod excerpt;
#[cfg(any(test, feature = "fixtures"))]
mod fixture;
pub mod flapping;
mod forwarding;
mod handover;
mod incident;
mod monitor;
mod notification;
mod probe;
mod rental_phase;
mod tunnel;

pub use dns::*;
pub use excerpt::*;
pub use forwarding::*;
pub use handover::*;
pub use incident::*;
pub use monitor::*;
pub use notification::*;
pub use probe::*;
pub use rental_phase::*;
pub use tunnel::*;

/// The reason of a deadline, for the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeReason {
    Idle,
    SessionTimer,
    StackTimer,
    ProbeTimeout,
    Forwarding,
    PacedDial,
    Publish,
    CheckDue,
}

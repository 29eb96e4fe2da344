//! The messages between the two halves of the engine and the shell.
//!
//! ```text
//!            Input                    Question (carried by the shell)
//! network  ────────▶  Tunnel  ◀──────────────────────────────  Monitor  ──▶ Record (store)
//!          ◀────────          ──────────────────────────────▶           ──▶ Output::Wait
//!            Output            Answer, News
//! ```
//!
//! Values only: no module here decides anything.

mod ask;
mod excerpt;
mod incident;
mod monitor;
mod tunnel;
mod voice;

pub use ask::*;
pub use excerpt::*;
pub use incident::*;
pub use monitor::*;
pub use tunnel::*;
pub use voice::*;

/// The reason of a deadline, for the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Idle,
    SessionTimer,
    StackTimer,
    ProbeTimeout,
    PacedDial,
    Publish,
    CheckDue,
}

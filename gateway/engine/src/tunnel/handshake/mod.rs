//! Handshakes: which initiations are taken, how many, and when the gateway makes its own.

pub(super) mod dial;
pub(crate) mod failures;
pub mod gate;
pub(super) mod initiation;
pub(super) mod rate_limit;
pub(super) mod retired_keys;
pub(crate) mod tai64n;
pub(super) mod unconfirmed;

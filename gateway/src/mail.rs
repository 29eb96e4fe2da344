//! Mail: the text of a message, and the dialogue with an SMTP server.
//!
//! It decides neither when to send nor whether to retry.

mod concerns;
mod dialogue;
pub(crate) mod hello;
pub mod letter;
#[cfg(test)]
pub(crate) mod sink;
pub(crate) mod smtp;
mod transport;
mod trust;

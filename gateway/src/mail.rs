//! Mail: what a message looks like to a person, and the conversation with an SMTP server.
//!
//! Knows nothing of when to send and whether to try again.

mod concerns;
mod dialogue;
pub(crate) mod hello;
pub mod letter;
#[cfg(test)]
pub(crate) mod sink;
pub(crate) mod smtp;
mod transport;
mod trust;

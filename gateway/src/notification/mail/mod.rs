//! Mail: the text of a message, and the dialogue with an SMTP server.
//!
//! It decides neither when to send nor whether to retry.

mod dialogue;
mod incident_part;
pub mod render;
mod rental_part;
mod secrets;
#[cfg(test)]
pub(crate) mod sink;
pub(crate) mod smtp;
mod transport;
mod trust;
pub mod value_part;

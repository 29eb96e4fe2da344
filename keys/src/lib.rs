//! Keys and tokens: what they are, how they are written, and that they do not leak.
//!
//! Knows no clock, no file and no network. Secrets redact their `Debug`, have no `Display`, and
//! are wiped when dropped.

pub mod key;

pub use key::{BadKey, PresharedKey, PrivateKey, PublicKey};

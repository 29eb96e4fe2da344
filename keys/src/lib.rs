//! Keys and tokens: their types, their text forms, and their protection against leaks.
//!
//! The crate knows no clock, no file and no network. Secrets redact their `Debug`, have no
//! `Display`, and are wiped when dropped.

pub mod conf;
pub mod endpoint;
pub mod key;
pub mod seal;
pub mod ssh_key;
pub mod token;

pub use conf::{Conf, SplitDns};
pub use endpoint::{BadEndpoint, Endpoint};
pub use key::{BadKey, PresharedKey, PrivateKey, PublicKey};
pub use seal::{BadSeal, SealKey};
pub use ssh_key::{BadSshKey, SshKey, SshPublicKey};
pub use token::{BadToken, Token, TokenHash, TokenKind};

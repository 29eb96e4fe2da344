//! The address of a message. A webhook's address may contain a token, so it shows only its server.

use std::fmt;

use super::Channel;
use crate::secret_url::SecretUrl;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Email(String),
    Webhook(SecretUrl),
}

impl Address {
    pub fn new(channel: Channel, text: String) -> Address {
        match channel {
            Channel::Email => Address::Email(text),
            Channel::Webhook => Address::Webhook(text.into()),
        }
    }

    pub fn channel(&self) -> Channel {
        match self {
            Address::Email(_) => Channel::Email,
            Address::Webhook(_) => Channel::Webhook,
        }
    }

    /// The complete address, for delivery only.
    pub fn reveal(&self) -> &str {
        match self {
            Address::Email(mailbox) => mailbox,
            Address::Webhook(url) => url.reveal(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Email(mailbox) => f.write_str(mailbox),
            Address::Webhook(url) => url.fmt(f),
        }
    }
}

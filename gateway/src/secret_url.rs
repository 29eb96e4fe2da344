//! The address of a webhook or of the heartbeat. Its path or query may contain a token, and knowledge
//! of the address is enough to call it.
//!
//! Output shows the server's name only. The whole address is for the call itself and for callers that
//! may set it.

use std::fmt;

use reqwest::Url;

/// `Display` and `Debug` show the server only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Returns the whole address.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        SecretUrl(url)
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        SecretUrl(url.to_owned())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.parse::<Url>() {
            // Scheme, host and port. The part before the host is a login.
            Ok(url) if url.has_host() => f.write_str(&url.origin().ascii_serialization()),
            _ => f.write_str("(an address that is none)"),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretUrl({self})")
    }
}

/// Returns the text as typed, without the login before its host.
pub fn without_login(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + 3);
    match text.rfind('@') {
        Some(at) if at >= begin => format!("{}...{}", &text[..begin], &text[at..]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_the_server() {
        for (url, server) in [
            ("https://hooks.example.com/services/T0/s3cret?key=s3cret#s3cret", "https://hooks.example.com"),
            ("http://s3cret:s3cret@[2001:db8::1]:8080/", "http://[2001:db8::1]:8080"),
            ("s3cret", "(an address that is none)"),
            ("mailto:s3cret@example.com", "(an address that is none)"),
        ] {
            let secret = SecretUrl::from(url);
            assert_eq!((secret.to_string().as_str(), secret.reveal()), (server, url));
            assert_eq!(format!("{secret:?}"), format!("SecretUrl({server})"));
        }
    }

    #[test]
    fn a_login_is_left_out_of_what_people_typed() {
        for (typed, shown) in [
            ("https://u:s3cret@fleet.example.com/x", "https://...@fleet.example.com/x"),
            ("u:s3@cret@host", "...@host"),
            ("https://fleet.example.com", "https://fleet.example.com"),
        ] {
            assert_eq!(without_login(typed), shown);
        }
    }
}

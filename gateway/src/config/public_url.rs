//! The gateway's address as operators and devices use it: `http(s)://host[:port][/path]`.
//!
//! It goes unescaped into a shell script, into mails and into the Origin check. It therefore contains
//! no character that has a special meaning to a shell, a mail or a browser.

use std::fmt;
use std::str::FromStr;

use fleetgate_keys::endpoint::{is_host, port_number};

use crate::outbound::secret_url::without_login;

/// Longest accepted URL: longer than any real one. Every mail contains it.
const LONGEST: usize = 300;

/// Has no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    /// Length of scheme, host and port, in bytes.
    origin: usize,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "public_url = {0:?}: expected http://host or https://host, with :port and /path if need be, such as \
     https://fleet.example.com; no user, no ? or #, no quotes or blanks"
)]
/// Holds the URL as given, without its login.
pub struct BadUrl(String);

impl PublicUrl {
    /// Scheme, host and port, as a browser sends them in `Origin`.
    pub fn origin(&self) -> &str {
        &self.text[..self.origin]
    }

    /// The path behind the origin, such as `/fleet`; empty where the page is at the root of its host.
    pub fn path(&self) -> &str {
        &self.text[self.origin..]
    }

    pub fn is_https(&self) -> bool {
        self.text.starts_with("https://")
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for PublicUrl {
    type Err = BadUrl;

    fn from_str(given: &str) -> Result<Self, BadUrl> {
        let text = given.trim_end_matches('/');
        parse(text).filter(|_| text.len() <= LONGEST).ok_or_else(|| BadUrl(without_login(given)))
    }
}

fn parse(text: &str) -> Option<PublicUrl> {
    let (scheme, rest) = text.split_once("://").filter(|(s, _)| ["http", "https"].contains(s))?;
    let authority = rest.find('/').map_or(rest, |slash| &rest[..slash]);
    let path = &rest[authority.len()..];
    let ends_in_bracket = authority.ends_with(']');
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !ends_in_bracket => (host, Some(port)),
        _ => (authority, None),
    };
    let port_ok = port.is_none_or(|p| port_number(p).is_some());
    let in_path = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    // Browsers resolve these before they ask: the page would not find itself.
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    let path_ok = path.bytes().all(in_path) && path.split('/').skip(1).all(is_plain);
    if !is_host(host) || !port_ok || !path_ok {
        return None;
    }
    Some(PublicUrl { text: text.to_owned(), origin: scheme.len() + 3 + authority.len() })
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_with_port_and_path_and_knows_its_origin() {
        for (given, text, origin) in [
            ("https://gw.example/", "https://gw.example", "https://gw.example"),
            ("http://10.0.0.1:8080", "http://10.0.0.1:8080", "http://10.0.0.1:8080"),
            (
                "https://[2001:db8::1]:8443/fleet/",
                "https://[2001:db8::1]:8443/fleet",
                "https://[2001:db8::1]:8443",
            ),
            ("https://[2001:db8::1]", "https://[2001:db8::1]", "https://[2001:db8::1]"),
        ] {
            let url: PublicUrl = given.parse().unwrap();
            assert_eq!((url.as_str(), url.origin()), (text, origin));
            assert_eq!(format!("{origin}{}", url.path()), text);
        }
    }

    #[test]
    fn what_a_shell_a_mail_or_a_browser_could_misread_is_refused() {
        for bad in [
            "",
            "gw.example",
            "ftp://gw.example",
            "HTTPS://gw.example",
            "https://",
            "https:///path",
            "https://gw.example'; reboot; '",
            "https://gw.example//evil.example",
            "https://gw.example/fleet/../x",
            "https://gw.example/./x",
            "https://gw.example/\"",
            "https://gw.example/$(x)",
            "https://gw.example/a b",
            "https://gw.example/\n",
            "https://gw.example/`x`",
            "https://user@gw.example",
            "https://gw.example?a",
            "https://gw.example#a",
            "https://gw.example:0",
            "https://gw.example:99999",
            "https://gw.example:+80",
            "https://2001:db8::1",
            "https://gw_example",
            "https://300.1.1.1",
            "https://-gw.example",
            "https://gw.example/\u{7f}",
            "https://gw.example/%0a",
        ] {
            assert!(bad.parse::<PublicUrl>().is_err(), "{bad:?}");
        }
        assert!(format!("https://{}.example", "a".repeat(400)).parse::<PublicUrl>().is_err());
    }
}

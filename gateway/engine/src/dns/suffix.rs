//! The domain that contains the names of all hosts.

use domain::base::Name;

use super::message::DomainName;

/// The longest name of a host, with the dot behind it, and the root.
const ROOM: usize = 63 + 1 + 1;
/// The longest name in DNS (RFC 1035, section 2.3.4), as text.
const LONGEST: usize = 253;
const LONGEST_LABEL: usize = 63;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSuffix {
    #[error(
        "{0:?} is no domain: labels of a-z, 0-9 and - with dots between them are expected, such as fleet.internal"
    )]
    Form(String),
    #[error("a domain of at most {} characters is expected, so that the names of hosts have room", LONGEST - ROOM)]
    TooLong,
    #[error("{0} belongs to {1}: use another domain, such as fleet.internal")]
    Taken(String, &'static str),
}

/// A domain in lower case, such as `fleet.internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffix {
    text: String,
    name: DomainName,
}

impl Suffix {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, BadSuffix> {
        let bad = || BadSuffix::Form(text.to_owned());
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if lower.len() > LONGEST - ROOM {
            return Err(BadSuffix::TooLong);
        }
        if !lower.split('.').all(is_label) {
            return Err(bad());
        }
        match lower.rsplit('.').next() {
            Some("local") => return Err(BadSuffix::Taken(lower, "multicast DNS")),
            Some("arpa") => return Err(BadSuffix::Taken(lower, "the Internet's own infrastructure")),
            // Resolvers take it for an address (RFC 3696, section 2).
            Some(last) if last.bytes().all(|b| b.is_ascii_digit()) => return Err(bad()),
            _ => {}
        }
        let name = lower.parse().map_err(|_| bad())?;
        Ok(Suffix { text: lower, name })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn name(&self) -> &DomainName {
        &self.name
    }

    /// Returns what stands before the suffix, in lower case, as a host would be named. It is empty
    /// for the suffix itself. `None`: the name is not below the suffix.
    pub(super) fn strip(&self, name: &DomainName) -> Option<String> {
        if !name.ends_with(&self.name) {
            return None;
        }
        let text = name.to_string().to_ascii_lowercase();
        let host = text.strip_suffix(&self.text)?;
        Some(host.strip_suffix('.').unwrap_or(host).to_owned())
    }

    /// Returns the whole name of a host. `None`: its name cannot be one in DNS, because two dots
    /// follow each other.
    pub(super) fn name_of(&self, host: &str) -> Option<DomainName> {
        format!("{host}.{}", self.text).parse::<Name<Vec<u8>>>().ok()
    }
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= LONGEST_LABEL
        && outer(bytes.first())
        && outer(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

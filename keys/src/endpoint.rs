//! The endpoint of a gateway: a host and a UDP port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// The longest host name of DNS (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;
/// The longest label of a host name (the same section).
const MAX_LABEL: usize = 63;

/// Characters of a wrong text that its error repeats.
const MAX_SHOWN: usize = 80;

/// A host name or address to send to, with its port; IPv6 in brackets. It never contains blanks or
/// line ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    #[error("{0:?} is not an endpoint: `host:port`, `192.0.2.1:51820` or `[2001:db8::1]:51820` is expected")]
    Form(String),
    #[error("no device can send to {0}: say the address or name at which devices reach the gateway")]
    Nowhere(IpAddr),
}

impl Endpoint {
    /// Returns the name or the address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the endpoint is a loopback address, which other machines cannot reach.
    pub fn is_loopback(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self.host.parse::<IpAddr>().is_ok_and(|a| a.to_canonical().is_loopback())
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let form = || BadEndpoint::Form(text.chars().take(MAX_SHOWN).collect());
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(form)?;
        let port = port_number(port).filter(|_| is_host(host)).ok_or_else(form)?;
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if let Some(nowhere) = address.filter(|a| is_nowhere(*a)) {
            return Err(BadEndpoint::Nowhere(nowhere));
        }
        Ok(Endpoint { host: address.map_or_else(|| host.to_owned(), |a| a.to_string()), port })
    }
}

fn is_nowhere(address: IpAddr) -> bool {
    let plain = address.to_canonical();
    plain.is_unspecified() || plain.is_multicast() || plain == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Parses a port as people write it: no sign, no leading zeros, not 0.
pub fn port_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port: &u16| *port > 0 && port.to_string() == text)
}

/// Returns whether the text is a DNS name (letters, digits and hyphens), an IPv4 address, or an
/// IPv6 address in brackets.
pub fn is_host(text: &str) -> bool {
    if let Some(v6) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return v6.parse::<Ipv6Addr>().is_ok();
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        // No name ends in a number (RFC 1123, section 2.1), so an address is meant.
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= MAX_HOST && name.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_taken_as_they_stand() {
        for good in
            ["vpn.example.com:51820", "gw:1", "gw.:1", "192.0.2.1:65535", "[2001:db8::1]:51820", "1and1.de:9"]
        {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn what_no_device_could_look_up_is_no_endpoint() {
        for bad in [
            "",
            "a",
            ":1",
            "a:0",
            "a:65536",
            "host:+5",
            "host:051820",
            "-:1",
            "-a:1",
            "a-.b:1",
            "a..b:1",
            "a_b:1",
            "300.1.1.1:5",
            "1.2.3:5",
            "1.2.3.4.:5",
            "1234:5",
            "01.2.3.4:5",
            "[::1:1",
            "::1:1",
            "[1.2.3.4]:5",
            "a b:1",
            "a:1\nPostUp = x",
        ] {
            assert!(matches!(bad.parse::<Endpoint>(), Err(BadEndpoint::Form(_))), "{bad:?}");
        }
    }

    #[test]
    fn what_no_device_can_send_to_is_no_endpoint() {
        for bad in [
            "0.0.0.0:51820",
            "[::]:51820",
            "[::ffff:0.0.0.0]:1",
            "224.0.0.1:1",
            "[ff02::1]:1",
            "255.255.255.255:1",
        ] {
            let error = bad.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().starts_with("no device can send to"), "{bad}: {error}");
        }
    }

    #[test]
    fn an_endpoint_on_this_machine_is_known_for_it() {
        for (text, is) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("localhost:1", true), ("192.0.2.1:1", false)]
        {
            assert_eq!(text.parse::<Endpoint>().unwrap().is_loopback(), is, "{text}");
        }
    }
}

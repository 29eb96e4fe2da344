//! The addresses that the gateway connects to because an operator configured them: webhooks, the
//! heartbeat, and hosts that are checked without a tunnel.
//!
//! One rule applies to all of them. It is evaluated when an address is saved and again at each
//! connection, since a name may resolve to another address by then. `outbound.allow` opens networks
//! that the rule closes.

pub mod address;
pub mod secret_url;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

/// Time limit of a name lookup while the caller waits for a change to be saved.
const LOOKUP: Duration = Duration::from_secs(2);

/// Metadata services of clouds, which give a machine's credentials to every program on it, besides
/// 169.254.169.254: Alibaba, Azure, Oracle; AWS, Google and Oracle over IPv6.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
];

/// The use of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A webhook or the heartbeat. The receiver may be a program on this machine.
    Call,
    /// A host that is checked. It is never this machine, whose own services are out of bounds for
    /// operators.
    Watch,
}

/// The reason to refuse an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    LinkLocal,
    Metadata,
    /// Broadcast, multicast, or unspecified.
    NoHost,
    ThisMachine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is not connected to: {reason}; to open it, add it to outbound.allow in fleetgate.toml")]
pub struct Refused {
    pub address: IpAddr,
    pub reason: Reason,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::LinkLocal => "it is link-local, where clouds keep their machines' credentials",
            Reason::Metadata => "clouds give their machines' credentials there",
            Reason::NoHost => "it is not the address of one host",
            Reason::ThisMachine => "it is the gateway's own machine",
        })
    }
}

/// The rule of this gateway. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    allow: Arc<[IpNet]>,
}

impl Outbound {
    pub fn allowing(networks: Vec<IpNet>) -> Outbound {
        Outbound { allow: networks.into() }
    }

    /// # Errors
    /// Names the address and the reason.
    pub fn permit(&self, address: IpAddr, purpose: Purpose) -> Result<(), Refused> {
        // An IPv6 address that embeds an IPv4 address leads to that address.
        let mut forms = [Some(address), carried(address)].into_iter().flatten();
        if self.allow.iter().any(|net| net.contains(&address.to_canonical())) {
            return Ok(());
        }
        match forms.find_map(|form| reason(form, purpose)) {
            Some(reason) => Err(Refused { address, reason }),
            None => Ok(()),
        }
    }

    /// Returns all addresses of `host` that the rule permits.
    ///
    /// # Errors
    /// `PermissionDenied` when every address is refused; otherwise the error of the system's resolver.
    pub async fn resolve(&self, host: &str, port: u16, purpose: Purpose) -> io::Result<Vec<SocketAddr>> {
        let mut permitted = Vec::new();
        let mut refused = None;
        for found in tokio::net::lookup_host((host, port)).await? {
            match self.permit(found.ip(), purpose) {
                Ok(()) => permitted.push(found),
                Err(error) => refused = Some(error),
            }
        }
        match refused {
            Some(refused) if permitted.is_empty() => {
                Err(io::Error::new(io::ErrorKind::PermissionDenied, refused))
            }
            _ => Ok(permitted),
        }
    }

    /// Whether an address may be saved. A name that does not resolve now may be saved: the rule applies
    /// again at each connection.
    ///
    /// # Errors
    /// Names the address and the reason.
    pub async fn may_save(&self, host: &str, purpose: Purpose) -> Result<(), Refused> {
        if let Ok(address) = host.parse() {
            return self.permit(address, purpose);
        }
        match tokio::time::timeout(LOOKUP, self.resolve(host, 0, purpose)).await {
            Ok(Err(error)) => match error.get_ref().and_then(|e| e.downcast_ref::<Refused>()) {
                Some(refused) => Err(*refused),
                None => Ok(()),
            },
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

fn reason(address: IpAddr, purpose: Purpose) -> Option<Reason> {
    let link_local = match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    if link_local {
        return Some(Reason::LinkLocal);
    }
    if METADATA.contains(&address) {
        return Some(Reason::Metadata);
    }
    if broadcast || address.is_multicast() || address.is_unspecified() {
        return Some(Reason::NoHost);
    }
    let own = purpose == Purpose::Watch && (address.is_loopback() || is_own(address));
    own.then_some(Reason::ThisMachine)
}

/// Whether the address belongs to this machine. The system talks to its own address from that very
/// address. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

/// The IPv4 address embedded in an IPv6 address: mapped, translated, compatible, NAT64 or 6to4.
fn carried(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(ip) = address else { return None };
    let segments = ip.segments();
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => of(high, low),
        // The well-known prefix of NAT64, and any prefix of 96 bits from its range for local use (RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => of(high, low),
        // ::1 and :: are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(outbound: &Outbound, address: &str, purpose: Purpose) -> Option<Reason> {
        outbound.permit(address.parse().unwrap(), purpose).err().map(|refused| refused.reason)
    }

    #[test]
    fn what_gives_credentials_away_is_called_by_nobody() {
        let rule = Outbound::default();
        for (address, reason) in [
            ("169.254.169.254", Reason::LinkLocal),
            ("169.254.0.1", Reason::LinkLocal),
            ("fe80::1", Reason::LinkLocal),
            ("febf::1", Reason::LinkLocal),
            ("::ffff:169.254.169.254", Reason::LinkLocal),
            ("::169.254.169.254", Reason::LinkLocal),
            ("64:ff9b::a9fe:a9fe", Reason::LinkLocal),
            ("64:ff9b:1::a9fe:a9fe", Reason::LinkLocal),
            ("64:ff9b:1:7:8:9:a9fe:a9fe", Reason::LinkLocal),
            ("::ffff:0:169.254.169.254", Reason::LinkLocal),
            ("2002:a9fe:a9fe::1", Reason::LinkLocal),
            ("100.100.100.200", Reason::Metadata),
            ("168.63.129.16", Reason::Metadata),
            ("fd00:ec2::254", Reason::Metadata),
            ("0.0.0.0", Reason::NoHost),
            ("::", Reason::NoHost),
            ("224.0.0.1", Reason::NoHost),
            ("255.255.255.255", Reason::NoHost),
            ("ff02::1", Reason::NoHost),
        ] {
            assert_eq!(refused(&rule, address, Purpose::Call), Some(reason), "{address}");
            assert_eq!(refused(&rule, address, Purpose::Watch), Some(reason), "{address}");
        }
        for address in ["192.0.2.1", "10.0.0.1", "192.168.1.4", "fd00::1", "2001:db8::1", "100.64.0.1"] {
            assert_eq!(refused(&rule, address, Purpose::Call), None, "{address}");
            assert_eq!(refused(&rule, address, Purpose::Watch), None, "{address}");
        }
    }

    #[test]
    fn this_machine_is_called_and_not_watched() {
        let rule = Outbound::default();
        for address in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
            assert_eq!(refused(&rule, address, Purpose::Call), None, "{address}");
            assert_eq!(refused(&rule, address, Purpose::Watch), Some(Reason::ThisMachine), "{address}");
        }
        // Any address that this machine uses towards others. A machine without one has nothing to test.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:9").is_ok() {
            let own = socket.local_addr().unwrap().ip().to_string();
            assert_eq!(refused(&rule, &own, Purpose::Watch), Some(Reason::ThisMachine), "{own}");
        }
    }

    #[test]
    fn what_is_allowed_is_open_and_nothing_beside_it() {
        let rule = Outbound::allowing(vec!["127.0.0.0/8".parse().unwrap()]);
        for open in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert_eq!(refused(&rule, open, Purpose::Watch), None, "{open}");
        }
        assert_eq!(refused(&rule, "::1", Purpose::Watch), Some(Reason::ThisMachine));
        assert_eq!(refused(&rule, "169.254.169.254", Purpose::Watch), Some(Reason::LinkLocal));
    }

    #[tokio::test]
    async fn a_name_is_asked_where_it_leads() {
        let rule = Outbound::default();
        let refused = rule.resolve("localhost", 22, Purpose::Watch).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(rule.may_save("localhost", Purpose::Watch).await.is_err());
        assert!(rule.may_save("fe80::1", Purpose::Call).await.is_err());
        assert!(rule.may_save("localhost", Purpose::Call).await.is_ok());
        assert!(rule.may_save("nowhere.invalid", Purpose::Watch).await.is_ok());
        assert!(!rule.resolve("localhost", 22, Purpose::Call).await.unwrap().is_empty());
    }
}

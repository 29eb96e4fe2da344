//! The source of a request: the Unix socket or the network, and the address that counts.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::FromRequestParts;
use axum::extract::connect_info::ConnectInfo;
use axum::http::{HeaderMap, request::Parts};
use fleetgate_engine::id::PeerId;
use tokio::net::UnixStream;

use crate::api::AppState;

/// The other end of a connection. The listener adds it to each request as `ConnectInfo<Client>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// A local process. The kernel reports its user.
    Local {
        uid: u32,
    },
    Remote(SocketAddr),
    /// A device through its own tunnel, which authenticates it.
    Device(PeerId),
    /// A renter through its own tunnel.
    Renter(PeerId),
}

/// Stands for an unknown user. No process of the gateway has this id.
const NOBODY_KNOWS: u32 = u32::MAX;
/// Root can read the data directory anyway. `sudo fleetgate device add` is the usual call on a
/// server where the gateway has its own user.
const ROOT: u32 = 0;

/// Whether a user has logged in over this connection. The listener adds it to each request, and the
/// login handler sets it.
#[derive(Clone, Debug, Default)]
pub struct Login(Arc<AtomicBool>);

impl Login {
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Client {
    /// Returns the client for the user that the kernel reports at the other end of the Unix socket.
    pub fn local(stream: &UnixStream) -> Client {
        Client::Local { uid: stream.peer_cred().map_or(NOBODY_KNOWS, |c| c.uid()) }
    }

    /// Whether it is the gateway's own user or root.
    pub fn is_own_user(self) -> bool {
        matches!(self, Client::Local { uid } if uid != NOBODY_KNOWS && (uid == ROOT || Some(uid) == own_uid()))
    }

    pub fn is_this_machine(self) -> bool {
        match self {
            Client::Local { .. } => true,
            Client::Remote(address) => address.ip().to_canonical().is_loopback(),
            Client::Device(_) | Client::Renter(_) => false,
        }
    }

    /// Returns the source address. Behind trusted proxies, that is the last address that belongs to
    /// none of them.
    pub fn source(self, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
        let Client::Remote(address) = self else { return IpAddr::V4(Ipv4Addr::LOCALHOST) };
        let peer = address.ip().to_canonical();
        if !trusted.contains(&peer) {
            if peer.is_loopback() && headers.contains_key("x-forwarded-for") {
                tell_of_proxy(peer);
            }
            return peer;
        }
        let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok());
        let hops: Vec<&str> = forwarded.flat_map(|v| v.split(',')).collect();
        let hops = hops.iter().rev().map_while(|h| h.trim().parse::<IpAddr>().ok());
        hops.map(|ip| ip.to_canonical()).find(|ip| !trusted.contains(ip)).unwrap_or(peer)
    }
}

/// Warns once about an unknown proxy. All clients behind it share one allowance of logins.
fn tell_of_proxy(peer: IpAddr) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            "a proxy on this machine passes requests on; all who come through it count as one: \
             set trusted_proxies = [\"{peer}\"]"
        );
    });
}

/// Returns the address for throttling. One customer of a provider has a whole /64, so counting
/// single IPv6 addresses limits nothing.
pub fn throttled_as(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
    }
}

fn own_uid() -> Option<u32> {
    static OWN: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
    *OWN.get_or_init(|| UnixStream::pair().ok()?.0.peer_cred().ok().map(|c| c.uid()))
}

/// A request without connection info comes from a stranger.
impl FromRequestParts<AppState> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let info = ConnectInfo::<Client>::from_request_parts(parts, state).await;
        Ok(info.ok().map_or(Client::Remote(SocketAddr::from(([0, 0, 0, 0], 0))), |info| info.0))
    }
}

/// The address for throttling and the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Source(pub IpAddr);

impl FromRequestParts<AppState> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let client = Client::from_request_parts(parts, state).await?;
        Ok(Source(client.source(&parts.headers, &state.config.trusted_proxies)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let client = Client::Remote(SocketAddr::new(peer.parse().unwrap(), 1));
        client.source(&headers, &["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()]).to_string()
    }

    #[test]
    fn a_forwarded_address_is_believed_from_configured_proxies_only() {
        assert_eq!(source("192.0.2.9", &["198.51.100.1"]), "192.0.2.9");
        assert_eq!(source("10.0.0.1", &["203.0.113.7, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(source("10.0.0.1", &["198.51.100.1", "10.0.0.2"]), "198.51.100.1");
        assert_eq!(source("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(source("10.0.0.1", &["198.51.100.1, nonsense"]), "10.0.0.1");
        assert_eq!(source("10.0.0.1", &[]), "10.0.0.1");
    }

    #[tokio::test]
    async fn our_own_user_is_known_on_the_socket() {
        let uid = own_uid().unwrap();
        assert!(Client::Local { uid }.is_own_user());
        assert!(!Client::Local { uid: uid + 1 }.is_own_user());
        assert!(!Client::Local { uid: NOBODY_KNOWS }.is_own_user());
    }

    #[test]
    fn neighbours_in_one_v6_network_are_throttled_as_one() {
        let [a, b] = ["2001:db8::1", "2001:db8::ffff:2"].map(|a| throttled_as(a.parse().unwrap()));
        assert_eq!(a, b);
    }
}

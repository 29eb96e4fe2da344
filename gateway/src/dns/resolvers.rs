//! The name servers that answer other names.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::dns::{self, Carrier, Relayed};
use tokio::net::{TcpStream, UdpSocket};

use super::stream::{read_message, write_message};

/// How long a server has for its reply. Clients repeat a query after five seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest reply over UDP that is read. A larger one than the client takes only makes it come back
/// over TCP.
const LARGEST_REPLY: usize = 4_096;

/// Cheap to clone.
#[derive(Clone)]
pub struct Resolvers(Arc<[SocketAddr]>);

impl Resolvers {
    pub fn new(servers: &[SocketAddr]) -> Self {
        Resolvers(servers.into())
    }

    /// Returns the answer to a query: of the first server that replies, or that all of them failed. `None`:
    /// it is no query.
    pub async fn ask(&self, query: &[u8], carrier: Carrier) -> Option<Vec<u8>> {
        for server in self.0.iter() {
            let exchange = exchange(*server, query, carrier);
            match tokio::time::timeout(PATIENCE, exchange).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
                Err(_) => tracing::debug!(%server, "a name server does not answer"),
            }
        }
        metrics::counter!("fleetgate_dns_resolver_failures_total").increment(1);
        dns::failure(query, carrier)
    }
}

async fn exchange(server: SocketAddr, query: &[u8], carrier: Carrier) -> io::Result<Vec<u8>> {
    let sent = dns::query_of(query, random_id()?).ok_or(io::ErrorKind::InvalidInput)?;
    match carrier {
        Carrier::Udp => over_udp(server, query, &sent).await,
        Carrier::Tcp => over_tcp(server, query, &sent).await,
    }
}

/// Asks from a port and with an id that a stranger would have to guess.
async fn over_udp(server: SocketAddr, query: &[u8], sent: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(sent).await?;
    let mut buffer = vec![0; LARGEST_REPLY];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if let Relayed::Reply(reply) = dns::relayed(query, sent, &buffer[..len], Carrier::Udp) {
            return Ok(reply);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8], sent: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, sent).await?;
    let reply =
        read_message(&mut stream, usize::from(u16::MAX)).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match dns::relayed(query, sent, &reply, Carrier::Tcp) {
        Relayed::Reply(reply) => Ok(reply),
        Relayed::NoAnswer => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn random_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u16::from_be_bytes(bytes))
}

//! Queries over TCP: messages with their length before them (RFC 7766), one after the other.

use std::io;
use std::time::Duration;

use fleetgate_engine::dns::{Carrier, LARGEST_QUERY};
use fleetgate_engine::id::PeerId;
use fleetgate_engine::messages::DnsDecision;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Service;
use crate::tunnel::stream::AcceptedStream;

/// How long a client may be silent. The engine ends every connection after half a minute.
const IDLE: Duration = Duration::from_secs(10);

impl Service {
    pub async fn serve_stream(self, AcceptedStream { peer, mut stream }: AcceptedStream) {
        let ended = self.serve_queries(peer, &mut stream).await;
        if let Err(error) = ended {
            tracing::trace!(%peer, "a connection with queries broke off: {error}");
        }
        let _ = stream.shutdown().await;
    }

    /// Answers queries until the client has no more.
    async fn serve_queries<S>(&self, peer: PeerId, stream: &mut S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let next = tokio::time::timeout(IDLE, read_message(stream, LARGEST_QUERY)).await;
            let Some(query) = next.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? else {
                return Ok(());
            };
            let Some(reply) = self.answer(peer, query).await? else { return Ok(()) };
            write_message(stream, &reply).await?;
        }
    }

    /// Returns the answer to a query; `None` ends the connection.
    async fn answer(&self, peer: PeerId, query: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        match self.handle.dns_query(peer, query.clone()).await.map_err(io::Error::other)? {
            DnsDecision::Answer(reply) => Ok(Some(reply)),
            DnsDecision::Drop => Ok(None),
            DnsDecision::Forward => {
                let Some(_place) = self.in_flight.enter(peer) else { return Ok(None) };
                Ok(self.resolvers.ask(&query, Carrier::Tcp).await)
            }
        }
    }
}

/// Reads one message. `None`: the stream has ended.
///
/// # Errors
/// Fails when the message is longer than `longest` or breaks off.
pub async fn read_message<S>(stream: &mut S, longest: usize) -> io::Result<Option<Vec<u8>>>
where
    S: AsyncRead + Unpin,
{
    let first = match stream.read_u8().await {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = usize::from(u16::from_be_bytes([first, stream.read_u8().await?]));
    if len > longest {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
    }
    let mut message = vec![0; len];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Writes one message at once, so that its length is in the same segment.
///
/// # Errors
/// Fails when the stream does, or for a message that no length fits.
pub async fn write_message<S>(stream: &mut S, message: &[u8]) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await?;
    stream.flush().await
}

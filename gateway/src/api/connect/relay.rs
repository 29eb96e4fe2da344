//! The bytes between a WebSocket and a TCP connection through a tunnel, until one end or the right of
//! the caller is over.
//!
//! Back pressure: a side is read only when the other one has taken what came before. It knows no
//! grants and no logins: it is told when the right has ended.

use std::error::Error as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseCode, CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
// The same one that axum has: a message over the limit is recognised by its error.
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;

use super::BUFFER;
use crate::tunnel::stream::TunnelStream;

/// Proxies close connections that are silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Time after which a client that sends nothing, not even the reply to a ping, counts as gone.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest time for the last message, and for the client's reply to it.
const FAREWELL: Duration = Duration::from_secs(1);
/// The longest time for the host to take what the client sent before its end. It is then in the buffers of the
/// tunnel, 64 KiB at most, which even a slow link carries within this time.
const DELIVERY: Duration = Duration::from_secs(30);
/// The same for a host that has not ended, and sends on to a client that is gone.
const DELIVERY_UNENDED: Duration = Duration::from_secs(5);
/// Bytes of the reason in the last message (RFC 6455, 5.5).
const MAX_REASON: usize = 123;
/// The connection to the host broke. The codes from 4000 on are free for applications.
const HOST_BROKE: CloseCode = 4000;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Both sides sent all their data.
    Closed,
    /// The client closed the WebSocket, or the connection to the client broke.
    ClientGone,
    /// The client did not reply to pings.
    ClientSilent,
    /// The client sent something else than binary messages.
    BadMessage,
    /// The connection to the host broke.
    HostBroke(String),
    /// No grant permits it any more.
    NotGranted(String),
    /// The session, token or user of the client has ended, or has another role.
    LoginOver(String),
    /// The host was removed, or is reached in another way now.
    HostRemoved,
    /// The audit log cannot be written.
    NotRecorded(String),
    /// The gateway stops.
    Stopping,
}

impl End {
    /// The name in the event.
    pub fn name(&self) -> &'static str {
        match self {
            End::Closed => "closed",
            End::ClientGone => "client_gone",
            End::ClientSilent => "client_silent",
            End::BadMessage => "bad_message",
            End::HostBroke(_) => "host_broke",
            End::NotGranted(_) => "not_granted",
            End::LoginOver(_) => "login_over",
            End::HostRemoved => "host_removed",
            End::NotRecorded(_) => "not_recorded",
            End::Stopping => "stopping",
        }
    }

    /// The reason for people.
    pub fn text(&self) -> String {
        match self {
            End::Closed => "both sides closed it".to_owned(),
            End::ClientGone => "the client closed it".to_owned(),
            End::ClientSilent => format!("the client was silent for {} s", SILENCE.as_secs()),
            End::BadMessage => "only binary messages of up to 64 KiB are expected".to_owned(),
            End::HostBroke(why) => format!("the connection to the host broke: {why}"),
            End::NotGranted(why) | End::LoginOver(why) => why.clone(),
            End::HostRemoved => "the host was removed or has another way now".to_owned(),
            End::NotRecorded(why) => format!("the audit log cannot be written: {why}"),
            End::Stopping => "the gateway stops".to_owned(),
        }
    }

    fn code(&self) -> CloseCode {
        match self {
            End::Closed | End::ClientGone => close_code::NORMAL,
            End::BadMessage => close_code::UNSUPPORTED,
            End::HostBroke(_) => HOST_BROKE,
            End::NotGranted(_) | End::LoginOver(_) | End::HostRemoved | End::ClientSilent => {
                close_code::POLICY
            }
            End::NotRecorded(_) => close_code::ERROR,
            End::Stopping => close_code::AWAY,
        }
    }

    fn frame(&self) -> CloseFrame {
        CloseFrame { code: self.code(), reason: shortened(&self.text()).into() }
    }
}

fn shortened(text: &str) -> &str {
    let fits = |at: &usize| *at <= MAX_REASON;
    let ends = text.char_indices().map(|(at, letter)| at + letter.len_utf8());
    &text[..ends.take_while(fits).last().unwrap_or_default()]
}

/// The bytes of one connection.
#[derive(Default)]
pub(super) struct Traffic {
    /// From the client to the host.
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// Which sides have sent all their data.
#[derive(Default)]
struct Finished {
    client: AtomicBool,
    host: AtomicBool,
}

impl Finished {
    fn both(&self) -> bool {
        self.client.load(Ordering::Relaxed) && self.host.load(Ordering::Relaxed)
    }
}

type Sink = SplitSink<WebSocket, Message>;
type Source = SplitStream<WebSocket>;

/// Carries bytes both ways until the end, and returns the reason. `ended` is ready when the right has
/// ended: then no further byte passes.
pub(super) async fn run(
    socket: WebSocket,
    stream: TunnelStream,
    (ended, stop): (impl Future<Output = End>, CancellationToken),
    traffic: &Traffic,
) -> End {
    let (mut sink, mut source) = socket.split();
    let resetter = stream.resetter();
    let (mut from_host, mut to_host) = tokio::io::split(stream);
    let finished = Finished::default();
    // A client that has sent its end leaves bytes behind, which would still be delivered.
    let mut ended = pin!(async {
        let end = ended.await;
        resetter.reset();
        end
    });
    let carried = tokio::select! {
        biased;
        end = &mut ended => Err(end),
        () = stop.cancelled() => Err(End::Stopping),
        end = send_to_host(&mut source, &mut to_host, &finished, traffic) => Ok(end),
        end = send_to_client(&mut from_host, &mut sink, &finished, traffic) => Ok(end),
    };
    let host = from_host.unsplit(to_host);
    match carried {
        Err(end) => {
            // The stream ends here, before the last message: it may take a moment.
            drop(host);
            farewell(sink, source, &end).await;
            end
        }
        Ok(end) => {
            let rest = deliver_rest(host, &finished, (ended, &stop));
            let ((), cut) = tokio::join!(farewell(sink, source, &end), rest);
            cut.unwrap_or(end)
        }
    }
}

/// Waits until the host has taken what the client sent before its end. Returns the reason if the right ends first.
async fn deliver_rest(
    mut host: TunnelStream,
    finished: &Finished,
    (ended, stop): (Pin<&mut impl Future<Output = End>>, &CancellationToken),
) -> Option<End> {
    // Without the end of the client's data, the end of the stream resets the connection.
    if !finished.client.load(Ordering::Relaxed) {
        return None;
    }
    let patience = if finished.both() { DELIVERY } else { DELIVERY_UNENDED };
    let resetter = host.resetter();
    tokio::select! {
        biased;
        end = ended => Some(end),
        () = stop.cancelled() => None,
        closed = tokio::time::timeout(patience, host.closed()) => {
            if closed.is_err() {
                resetter.reset();
            }
            None
        }
    }
}

/// Closes a WebSocket that carries nothing.
pub(super) async fn refuse(socket: WebSocket, end: End) -> End {
    let (sink, source) = socket.split();
    farewell(sink, source, &end).await;
    end
}

async fn send_to_host(
    source: &mut Source,
    host: &mut WriteHalf<TunnelStream>,
    finished: &Finished,
    traffic: &Traffic,
) -> End {
    loop {
        let Ok(message) = tokio::time::timeout(SILENCE, source.next()).await else {
            return End::ClientSilent;
        };
        let done = match message {
            None | Some(Ok(Message::Close(_))) => return End::ClientGone,
            Some(Err(error)) => return broken(&error),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Text(_))) => return End::BadMessage,
            Some(Ok(Message::Binary(_))) if finished.client.load(Ordering::Relaxed) => {
                return End::BadMessage;
            }
            Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {
                finished.client.store(true, Ordering::Relaxed);
                host.shutdown().await
            }
            Some(Ok(Message::Binary(bytes))) => write(host, &bytes, traffic).await,
        };
        match done {
            Err(error) => return End::HostBroke(error.to_string()),
            Ok(()) if finished.both() => return End::Closed,
            Ok(()) => {}
        }
    }
}

/// Counts what the host's connection takes: it may be cut in the middle of a message.
async fn write(host: &mut (impl AsyncWrite + Unpin), bytes: &[u8], traffic: &Traffic) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let count = host.write(left).await?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        traffic.sent.fetch_add(count as u64, Ordering::Relaxed);
        left = &left[count..];
    }
    Ok(())
}

/// A message over the limit, or anything else that is no WebSocket, is the client's fault.
fn broken(error: &axum::Error) -> End {
    tracing::debug!("a WebSocket broke: {error}");
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(tungstenite::Error::Capacity(_)) => End::BadMessage,
        _ => End::ClientGone,
    }
}

async fn send_to_client(
    host: &mut ReadHalf<TunnelStream>,
    sink: &mut Sink,
    finished: &Finished,
    traffic: &Traffic,
) -> End {
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut buffer = vec![0; BUFFER];
    loop {
        let is_open = !finished.host.load(Ordering::Relaxed);
        let message = tokio::select! {
            read = host.read(&mut buffer), if is_open => match read {
                Err(error) => return End::HostBroke(error.to_string()),
                Ok(count) => {
                    finished.host.store(count == 0, Ordering::Relaxed);
                    traffic.received.fetch_add(count as u64, Ordering::Relaxed);
                    Message::Binary(Bytes::copy_from_slice(&buffer[..count]))
                }
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if sink.send(message).await.is_err() {
            return End::ClientGone;
        }
        if finished.both() {
            return End::Closed;
        }
    }
}

/// Sends the reason, and reads until the client has it: a connection that is closed with bytes unread
/// would be reset, and the reason lost.
async fn farewell(mut sink: Sink, mut source: Source, end: &End) {
    let said = async {
        if sink.send(Message::Close(Some(end.frame()))).await.is_ok() {
            while let Some(Ok(_)) = source.next().await {}
        }
    };
    let _ = tokio::time::timeout(FAREWELL, said).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_over_the_limit_is_the_fault_of_the_client() {
        let large = tungstenite::error::CapacityError::MessageTooLong { size: 70_000, max_size: 65_536 };
        assert_eq!(broken(&axum::Error::new(tungstenite::Error::Capacity(large))), End::BadMessage);
        assert_eq!(broken(&axum::Error::new(tungstenite::Error::ConnectionClosed)), End::ClientGone);
    }

    #[tokio::test]
    async fn bytes_of_a_message_that_is_cut_are_counted() {
        let traffic = Traffic::default();
        let (mut host, _reads_nothing) = tokio::io::duplex(10);
        let cut = tokio::time::timeout(Duration::from_millis(50), write(&mut host, &[7; 64], &traffic)).await;
        assert!(cut.is_err(), "there is no room for the rest");
        assert_eq!(traffic.sent(), 10);
    }

    #[test]
    fn a_reason_fits_the_last_message_and_splits_no_letter() {
        assert_eq!(shortened("the gateway stops"), "the gateway stops");
        let long = "\u{e4}".repeat(100);
        assert_eq!(shortened(&long).len(), 122);
        assert_eq!(shortened(&"x".repeat(200)).len(), MAX_REASON);
        let frame = End::NotGranted("no grant permits it".into()).frame();
        assert_eq!((frame.code, frame.reason.as_str()), (1008, "no grant permits it"));
    }
}

//! The bytes between a local reader and writer and a WebSocket of the gateway.

use std::io::{Error as IoError, ErrorKind, Read as _, Result as IoResult};
use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_util::io::StreamReader;

use super::super::client::Socket;

/// Bytes of one message: a quarter of what the gateway takes.
const CHUNK: usize = 16 * 1024;
/// Chunks of stdin that wait to be sent.
const WAITING: usize = 4;
/// The gateway sends a ping every 20 s. After four lost ones the path to it is broken.
const SILENCE: Duration = Duration::from_secs(90);

/// The regular end of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// The host has sent all its data: there is nothing left to print.
    HostEnds,
    /// Both sides have sent all their data.
    BothEnd,
}

/// Carries bytes both ways until the end.
///
/// # Errors
/// Returns the gateway's reason when the end is not an orderly one.
pub(super) async fn run(
    socket: Socket,
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    until: Until,
) -> anyhow::Result<()> {
    let (sink, source) = socket.split();
    tokio::select! {
        ended = receive(source, to, until) => ended,
        () = send(sink, from) => Ok(()),
    }
}

/// Sends what is read, and an empty message at its end. Returns when the reader breaks.
async fn send(mut sink: SplitSink<Socket, Message>, mut from: impl AsyncRead + Unpin) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let Ok(count) = from.read(&mut buffer).await else { return };
        let sent = sink.send(Message::Binary(Bytes::copy_from_slice(&buffer[..count]))).await;
        if count == 0 || sent.is_err() {
            // The end, or the reason of a failure, comes from the gateway.
            return std::future::pending().await;
        }
    }
}

async fn receive(
    mut source: SplitStream<Socket>,
    mut to: impl AsyncWrite + Unpin,
    until: Until,
) -> anyhow::Result<()> {
    loop {
        let message = tokio::time::timeout(SILENCE, source.next()).await;
        let message = message.map_err(|_| anyhow!("no word from the gateway for {} s", SILENCE.as_secs()))?;
        let bytes = match message {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Close(frame))) => return closed(frame),
            Some(Ok(_)) => continue,
            Some(Err(error)) => bail!("the connection to the gateway broke: {error}"),
            None => bail!("the connection to the gateway broke"),
        };
        let is_end = bytes.is_empty();
        let written = if is_end { to.shutdown().await } else { write(&mut to, &bytes).await };
        match written {
            Ok(()) if is_end && until == Until::HostEnds => return Ok(()),
            Ok(()) => {}
            // A local program that reads no more has its reasons.
            Err(error) if reads_no_more(&error) => return Ok(()),
            Err(error) => bail!("what the host sends cannot be written here: {error}"),
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> IoResult<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Whether a local program has closed its side. All other failures lose bytes, such as a full disk.
fn reads_no_more(error: &IoError) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

fn closed(frame: Option<CloseFrame>) -> anyhow::Result<()> {
    match frame {
        Some(frame) if frame.code == CloseCode::Normal => Ok(()),
        Some(frame) if !frame.reason.is_empty() => {
            Err(anyhow!("the gateway ended the connection: {}", frame.reason.as_str()))
        }
        _ => Err(anyhow!("the gateway ended the connection and gives no reason")),
    }
}

/// Returns stdin. A thread of its own reads it, because a read in progress would hold up the end of the
/// program.
pub(super) fn stdin() -> impl AsyncRead + Unpin {
    let (chunks, read) = mpsc::channel::<IoResult<Bytes>>(WAITING);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; CHUNK];
        loop {
            let chunk = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = chunk.is_err();
            if chunks.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    });
    StreamReader::new(ReceiverStream::new(read))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_disk_is_a_failure_and_a_reader_that_is_gone_is_none() {
        let mut full = tokio::fs::OpenOptions::new().write(true).open("/dev/full").await.unwrap();
        let error = write(&mut full, b"bytes").await.unwrap_err();
        assert!(!reads_no_more(&error), "{error}");
        let (reader, mut pipe) = tokio::io::duplex(64);
        drop(reader);
        let error = write(&mut pipe, b"bytes").await.unwrap_err();
        assert!(reads_no_more(&error), "{error}");
    }
}

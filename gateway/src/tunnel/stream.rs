//! A TCP connection through a tunnel as a tokio stream, opened by the gateway or by a peer.
//!
//! The bytes are in the engine's in-process stack. This end keeps to the window that it granted, so
//! that neither side can be flooded.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fleetgate_engine::id::PeerId;
use fleetgate_engine::messages::{Command, ConnectFailure, Published, StreamId, StreamInput, StreamOutput};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Opens streams and delivers the tunnel's messages to them. Cheap to clone.
///
/// Its channels are unbounded in type and bounded in fact: the engine grants `STREAM_WINDOW` bytes in
/// each direction of a stream and caps the streams of a peer.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

struct Inner {
    next: AtomicU64,
    open: Mutex<HashMap<StreamId, UnboundedSender<StreamOutput>>>,
    tunnel: UnboundedSender<Command>,
    results: mpsc::Sender<AcceptedStream>,
    dns: mpsc::Sender<AcceptedStream>,
    page: mpsc::Sender<AcceptedStream>,
}

/// A connection that a peer opened. The tunnel authenticates the peer.
pub struct AcceptedStream {
    pub peer: PeerId,
    pub stream: TunnelStream,
}

/// Connections that peers opened, by what they opened them to.
pub struct Arrivals {
    pub results: mpsc::Receiver<AcceptedStream>,
    pub dns: mpsc::Receiver<AcceptedStream>,
    pub page: mpsc::Receiver<AcceptedStream>,
}

/// Arrivals that wait to be served: as many as the engine admits.
const ARRIVALS: usize = 512;

impl Streams {
    /// If the caller drops a receiver, its arrivals are refused.
    pub fn new(tunnel: UnboundedSender<Command>) -> (Self, Arrivals) {
        let (results, results_arrive) = mpsc::channel(ARRIVALS);
        let (dns, dns_arrive) = mpsc::channel(ARRIVALS);
        let (page, page_arrive) = mpsc::channel(ARRIVALS);
        let inner = Inner { next: AtomicU64::new(1), open: Mutex::default(), tunnel, results, dns, page };
        let arrivals = Arrivals { results: results_arrive, dns: dns_arrive, page: page_arrive };
        (Streams(Arc::new(inner)), arrivals)
    }

    /// Connects to `to` through the tunnel of `peer`.
    ///
    /// # Errors
    /// Returns the reason of the failure.
    pub async fn connect(
        &self,
        peer: PeerId,
        to: SocketAddr,
        timeout: Duration,
    ) -> Result<TunnelStream, ConnectFailure> {
        let mut stream = self.stream(StreamId(self.0.next.fetch_add(1, Ordering::Relaxed)));
        stream.say(StreamInput::Open { peer, to, timeout });
        let connected = tokio::time::timeout(timeout + OPEN_GRACE, stream.connected()).await;
        connected.unwrap_or(Err(ConnectFailure::Timeout)).map(|()| stream)
    }

    fn stream(&self, id: StreamId) -> TunnelStream {
        let (sender, words) = mpsc::unbounded_channel();
        self.open().insert(id, sender);
        TunnelStream { id, streams: self.clone(), words, state: State::default(), halves: Arc::default() }
    }

    /// Delivers a message to its stream. The tunnel thread calls it.
    pub fn deliver(&self, id: StreamId, word: StreamOutput) {
        if let StreamOutput::Accepted { peer, service, .. } = word {
            let arrival = AcceptedStream { peer, stream: self.stream(id) };
            let arrivals = match service {
                Published::Results => &self.0.results,
                Published::Dns => &self.0.dns,
                Published::Page => &self.0.page,
            };
            // An arrival without a free place is dropped, which closes the connection.
            return drop(arrivals.try_send(arrival));
        }
        let last = matches!(word, StreamOutput::Closed(_));
        let mut open = self.open();
        if let Some(stream) = open.get(&id) {
            // A reader that is gone has already sent `Abort`.
            let _ = stream.send(word);
        }
        if last {
            open.remove(&id);
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<StreamId, UnboundedSender<StreamOutput>>> {
        self.0.open.lock().expect("no holder panics")
    }
}

/// Added to the timeout: the engine replies within it, and the message takes time both ways.
const OPEN_GRACE: Duration = Duration::from_secs(1);

pub struct TunnelStream {
    id: StreamId,
    streams: Streams,
    words: UnboundedReceiver<StreamOutput>,
    state: State,
    halves: Arc<Halves>,
}

/// The wakers of both halves. They may live in different tasks, and a channel remembers only one waker.
#[derive(Default)]
struct Halves {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Halves {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

#[derive(Default)]
struct State {
    /// Bytes received and not yet read, with the reader's position. At most a window is unread.
    data: Vec<u8>,
    read: usize,
    writable: usize,
    finished: bool,
    closed: Option<Option<ConnectFailure>>,
    sent_finish: bool,
}

/// Resets a connection from outside of the task that carries it.
pub struct Resetter {
    id: StreamId,
    tunnel: UnboundedSender<Command>,
}

impl Resetter {
    /// Ends the connection: nothing that was sent before and has not arrived is delivered. Afterwards
    /// its stream only has to be dropped.
    pub fn reset(&self) {
        // The tunnel thread outlives every stream except at shutdown.
        let _ = self.tunnel.send(Command::Stream(self.id, StreamInput::Reset));
    }
}

impl TunnelStream {
    pub fn resetter(&self) -> Resetter {
        Resetter { id: self.id, tunnel: self.streams.0.tunnel.clone() }
    }

    /// Waits until the other side has taken all that was sent and both directions have ended, or until the
    /// connection is broken. What it receives meanwhile is discarded.
    pub async fn closed(&mut self) {
        let unread = self.state.data.len() - self.state.read;
        self.state.read += unread;
        self.say(StreamInput::Taken(unread));
        while self.state.closed.is_none() {
            match self.words.recv().await {
                Some(StreamOutput::Data(bytes)) => self.say(StreamInput::Taken(bytes.len())),
                Some(word) => self.state.apply(word),
                None => return,
            }
        }
    }

    fn say(&self, word: StreamInput) {
        // The tunnel thread outlives every stream except at shutdown.
        let _ = self.streams.0.tunnel.send(Command::Stream(self.id, word));
    }

    async fn connected(&mut self) -> Result<(), ConnectFailure> {
        loop {
            match self.words.recv().await {
                Some(StreamOutput::Connected) => return Ok(()),
                Some(StreamOutput::Closed(reason)) => {
                    self.state.closed = Some(reason.clone());
                    return Err(reason.unwrap_or(ConnectFailure::Reset));
                }
                Some(StreamOutput::Writable(more)) => self.state.writable += more,
                Some(StreamOutput::Accepted { .. } | StreamOutput::Data(_) | StreamOutput::Finished) => {}
                None => return Err(ConnectFailure::NoTunnel),
            }
        }
    }

    /// Applies the tunnel's messages, and wakes both halves if there were any.
    fn take_words(&mut self) {
        let waker = Waker::from(self.halves.clone());
        let mut cx = Context::from_waker(&waker);
        let mut any = false;
        while self.state.closed.is_none() {
            match self.words.poll_recv(&mut cx) {
                Poll::Ready(Some(word)) => self.state.apply(word),
                Poll::Ready(None) => self.state.closed = Some(Some(ConnectFailure::Reset)),
                Poll::Pending => break,
            }
            any = true;
        }
        if any {
            // A message that one half received may be the one that the other half waits for.
            waker.wake();
        }
    }
}

impl State {
    fn apply(&mut self, word: StreamOutput) {
        match word {
            StreamOutput::Accepted { .. } | StreamOutput::Connected => {}
            StreamOutput::Writable(more) => self.writable += more,
            StreamOutput::Data(bytes) if self.read == self.data.len() => {
                self.data = bytes;
                self.read = 0;
            }
            StreamOutput::Data(bytes) => {
                // Bytes that were read leave first: a reader that is slower than the sender never catches up.
                self.data.drain(..self.read);
                self.read = 0;
                self.data.extend_from_slice(&bytes);
            }
            StreamOutput::Finished => self.finished = true,
            StreamOutput::Closed(reason) => self.closed = Some(reason),
        }
    }

    fn broken(&self) -> Option<io::Error> {
        match &self.closed {
            Some(Some(reason)) => Some(io::Error::new(io::ErrorKind::ConnectionReset, reason.to_string())),
            Some(None) | None => None,
        }
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.halves.reader.register(cx.waker());
        self.take_words();
        let state = &mut self.state;
        let ready = &state.data[state.read..];
        if !ready.is_empty() {
            let n = ready.len().min(buf.remaining());
            buf.put_slice(&ready[..n]);
            state.read += n;
            self.say(StreamInput::Taken(n));
            return Poll::Ready(Ok(()));
        }
        match state.broken() {
            Some(error) => Poll::Ready(Err(error)),
            None if state.finished || state.closed.is_some() => Poll::Ready(Ok(())),
            None => Poll::Pending,
        }
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.halves.writer.register(cx.waker());
        self.take_words();
        if self.state.closed.is_some() || self.state.sent_finish {
            let error = self.state.broken().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
            return Poll::Ready(Err(error));
        }
        let n = bytes.len().min(self.state.writable);
        if n == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        self.state.writable -= n;
        self.say(StreamInput::Send(bytes[..n].to_vec()));
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.state.sent_finish {
            self.state.sent_finish = true;
            self.say(StreamInput::Finish);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        if self.state.closed.is_none() {
            self.say(StreamInput::Abort);
        }
        self.streams.open().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::STREAM_WINDOW;

    use super::*;

    #[test]
    fn a_reader_that_never_catches_up_holds_no_more_than_a_window() {
        let part = STREAM_WINDOW / 4;
        let mut state = State::default();
        state.apply(StreamOutput::Data(vec![0; STREAM_WINDOW]));
        for n in 1..=100u8 {
            state.read += part;
            state.apply(StreamOutput::Data(vec![n; part]));
            assert_eq!(state.data.len() - state.read, STREAM_WINDOW);
            assert!(state.data.capacity() <= 4 * STREAM_WINDOW, "{} bytes", state.data.capacity());
            let unread = &state.data[state.read..];
            assert_eq!((unread.first(), unread.last()), (Some(&n.saturating_sub(3)), Some(&n)), "in order");
        }
    }
}

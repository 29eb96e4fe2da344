//! One TCP connection of a peer's stack: a connect probe, or a byte stream with back pressure that
//! either side opened.
//!
//! A connection watches its socket and reports each change once. It does not know which peer it
//! belongs to.

use std::net::SocketAddr;
use std::time::Duration;

use fleetgate_probes::packet::{Parsed, TCP};
use smoltcp::iface::{Context, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use crate::messages::{
    ConnectFailure, ProbeId, ProbeReply, Published, STREAM_WINDOW, StreamId, StreamOutput,
};
use crate::time::Mono;
use crate::tunnel::icmp_error::Undelivered;

/// Buffer of a connect probe. A probe carries no data, and the first bytes of the server are
/// discarded.
const PROBE_BUFFER: usize = 1_024;

/// Bytes in flight each way of a stream that a peer opened. A result is a few hundred bytes, and 512
/// of these streams take 4 MB.
const ACCEPTED_WINDOW: usize = 8 * 1_024;

/// How long an accepted connection may stay half-open. Even a slow link completes the TCP handshake
/// within this time.
const HALF_OPEN: Duration = Duration::from_secs(10);

/// Lifetime of a stream that a peer opened, idle or not. The largest result takes 8 s over the
/// slowest telephone line, and the disk takes a second.
const ACCEPTED_LIFE: Duration = Duration::from_secs(30);

/// A stream ends when its data stays unacknowledged for this long.
const SEND_TIMEOUT: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(60);

/// How long an ended connection may take to close before it is reset.
const LINGER: Duration = Duration::from_secs(5);

/// TIME-WAIT is cut to this: long enough to repeat the last acknowledgement once. Ports are drawn
/// at random for each connection, so a port is rarely reused soon.
const TIME_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Replies as soon as the connection is established, then closes it.
    Probe(ProbeId),
    Stream(StreamId),
    /// A stream that the peer opened; reported as soon as it is established.
    Accepted(StreamId, Published),
}

#[derive(Debug)]
pub enum Report {
    ProbeReply(ProbeId, ProbeReply),
    Stream(StreamId, StreamOutput),
    /// A stream that the peer opened, with the peer's address.
    Accepted(StreamId, SocketAddr, Published),
}

impl Report {
    /// Returns whether the other side has replied to something of ours. An established connection,
    /// a refusal and new room (which comes with acknowledgements) are replies. Data may be a
    /// repetition, and the peer may close a stream by itself.
    pub fn is_answer(&self) -> bool {
        match self {
            Report::ProbeReply(_, ProbeReply::Connect(outcome)) => {
                matches!(outcome, Ok(_) | Err(ConnectFailure::Refused | ConnectFailure::Reset))
            }
            Report::ProbeReply(..) => false,
            Report::Stream(_, output) => {
                matches!(output, StreamOutput::Connected | StreamOutput::Writable(_))
            }
            Report::Accepted(..) => true,
        }
    }
}

impl Purpose {
    /// Returns the report of a connection that failed.
    pub fn failed(self, failure: Option<ConnectFailure>) -> Report {
        match self {
            Purpose::Stream(id) | Purpose::Accepted(id, _) => {
                Report::Stream(id, StreamOutput::Closed(failure))
            }
            Purpose::Probe(ask) => {
                Report::ProbeReply(ask, ProbeReply::Connect(Err(failure.unwrap_or(ConnectFailure::Reset))))
            }
        }
    }

    fn stream(self) -> Option<StreamId> {
        match self {
            Purpose::Probe(_) => None,
            Purpose::Stream(id) | Purpose::Accepted(id, _) => Some(id),
        }
    }

    /// Bytes that may be between the socket and the application, each way.
    fn window(self) -> usize {
        match self {
            Purpose::Probe(_) => 2 * PROBE_BUFFER,
            Purpose::Stream(_) => STREAM_WINDOW,
            Purpose::Accepted(..) => ACCEPTED_WINDOW,
        }
    }

    /// Size of the socket's buffer: half of the window.
    fn buffer(self) -> usize {
        self.window() / 2
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening {
        until: Mono,
    },
    Open,
    /// Reported as over, while the closing segments are still in flight.
    Ended {
        until: Mono,
    },
}

pub struct Conn {
    handle: SocketHandle,
    purpose: Purpose,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    started: Mono,
    phase: Phase,
    /// The time at which the connection ends, even if it is in use.
    ends: Option<Mono>,
    /// Sequence number of our SYN, as sent.
    seq: Option<[u8; 4]>,
    /// The reason that a router gave for not delivering our SYN.
    undelivered: Option<&'static str>,
    /// Bytes that the application may send before the next `Writable`.
    credit: usize,
    /// Bytes that the application has not taken yet.
    untaken: usize,
    /// The other side ended its direction, and the application was notified.
    peer_finished: bool,
    /// The application ended its direction.
    finished: bool,
    reset_seen: bool,
    /// TIME-WAIT is over.
    waited: bool,
}

fn tcp_socket(purpose: Purpose) -> Socket<'static> {
    let size = purpose.buffer();
    let mut socket = Socket::new(SocketBuffer::new(vec![0; size]), SocketBuffer::new(vec![0; size]));
    socket.set_nagle_enabled(false);
    socket
}

impl Conn {
    /// # Errors
    /// Fails with `Unreachable` when the address cannot be connected to.
    pub fn open(
        purpose: Purpose,
        (local, remote): (SocketAddr, SocketAddr),
        (now, deadline): (Mono, Mono),
        sockets: &mut SocketSet<'static>,
        context: &mut Context,
    ) -> Result<Self, ConnectFailure> {
        let mut socket = tcp_socket(purpose);
        socket
            .connect(context, remote, local)
            .map_err(|error| ConnectFailure::Unreachable(error.to_string()))?;
        Ok(Conn::new(sockets.add(socket), purpose, (local, remote), (now, deadline)))
    }

    /// Waits for the SYN of `remote`, which must be handed in next. `None` if the port cannot be
    /// listened on.
    pub fn listen(
        id: StreamId,
        service: Published,
        (local, remote): (SocketAddr, SocketAddr),
        now: Mono,
        sockets: &mut SocketSet<'static>,
    ) -> Option<Self> {
        let purpose = Purpose::Accepted(id, service);
        let mut socket = tcp_socket(purpose);
        socket.listen(local).ok()?;
        let conn = Conn::new(sockets.add(socket), purpose, (local, remote), (now, now + HALF_OPEN));
        Some(Conn { ends: Some(now + ACCEPTED_LIFE), ..conn })
    }

    fn new(
        handle: SocketHandle,
        purpose: Purpose,
        (local, remote): (SocketAddr, SocketAddr),
        (now, deadline): (Mono, Mono),
    ) -> Self {
        Conn {
            handle,
            purpose,
            local,
            remote,
            started: now,
            phase: Phase::Opening { until: deadline },
            ends: None,
            seq: None,
            undelivered: None,
            credit: 0,
            untaken: 0,
            peer_finished: false,
            finished: false,
            reset_seen: false,
            waited: false,
        }
    }

    pub fn is_stream(&self, id: StreamId) -> bool {
        self.stream() == Some(id)
    }

    /// Returns its stream. `None`: it is a probe.
    pub fn stream(&self) -> Option<StreamId> {
        self.purpose.stream()
    }

    /// Returns whether the peer opened the connection.
    pub fn is_accepted(&self) -> bool {
        self.service().is_some()
    }

    /// Returns what the peer opened the connection to.
    pub fn service(&self) -> Option<Published> {
        match self.purpose {
            Purpose::Accepted(_, service) => Some(service),
            Purpose::Probe(_) | Purpose::Stream(_) => None,
        }
    }

    fn socket<'a>(&self, sockets: &'a mut SocketSet<'static>) -> &'a mut Socket<'static> {
        sockets.get_mut(self.handle)
    }

    /// Ends the connection if it took too long.
    pub fn expire(&mut self, now: Mono, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        match self.phase {
            Phase::Opening { until } if now >= until => {
                self.abort(Some(ConnectFailure::Timeout), sockets, reports);
            }
            Phase::Open if self.ends.is_some_and(|end| now >= end) => {
                self.abort(Some(ConnectFailure::Timeout), sockets, reports);
            }
            Phase::Ended { until } if now >= until => self.give_up(sockets),
            _ => {}
        }
    }

    /// Reports what changed since the last time.
    pub fn advance(&mut self, now: Mono, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        match self.phase {
            Phase::Opening { .. } => self.advance_opening(now, sockets, reports),
            Phase::Open => self.advance_open(now, sockets, reports),
            Phase::Ended { until } => self.advance_ended(until, now, sockets),
        }
    }

    fn advance_ended(&mut self, until: Mono, now: Mono, sockets: &mut SocketSet<'static>) {
        let socket = self.socket(sockets);
        discard(socket);
        if socket.state() == State::TimeWait {
            self.phase = Phase::Ended { until: until.min(now + TIME_WAIT) };
        }
    }

    fn give_up(&mut self, sockets: &mut SocketSet<'static>) {
        let socket = self.socket(sockets);
        match socket.state() {
            State::TimeWait => self.waited = true,
            _ => socket.abort(),
        }
    }

    fn advance_opening(&mut self, now: Mono, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        if let Some(reason) = self.undelivered {
            return self.abort(Some(ConnectFailure::Unreachable(reason.into())), sockets, reports);
        }
        match self.socket(sockets).state() {
            // The peer withdrew its SYN. Another SYN would be another connection.
            State::Listen if self.reset_seen => self.abort(Some(ConnectFailure::Reset), sockets, reports),
            State::Listen | State::SynSent | State::SynReceived => {}
            State::Closed => {
                let failure = if self.reset_seen { ConnectFailure::Refused } else { ConnectFailure::Timeout };
                self.end(Some(failure), now, reports);
            }
            _ => self.opened(now, sockets, reports),
        }
    }

    fn opened(&mut self, now: Mono, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        let socket = self.socket(sockets);
        match self.purpose {
            Purpose::Probe(ask) => {
                socket.close();
                reports.push(Report::ProbeReply(ask, ProbeReply::Connect(Ok(now.since(self.started)))));
                self.phase = Phase::Ended { until: now + LINGER };
            }
            // After an invalid SYN the socket listens again and may take the next one.
            Purpose::Accepted(..) if socket.remote_endpoint() != Some(self.remote.into()) => {
                self.abort(Some(ConnectFailure::Reset), sockets, reports);
            }
            Purpose::Stream(id) => {
                reports.push(Report::Stream(id, StreamOutput::Connected));
                self.flow(now, sockets, reports);
            }
            Purpose::Accepted(id, service) => {
                reports.push(Report::Accepted(id, self.remote, service));
                self.flow(now, sockets, reports);
            }
        }
    }

    fn flow(&mut self, now: Mono, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        self.socket(sockets).set_timeout(Some(SEND_TIMEOUT));
        self.phase = Phase::Open;
        self.advance_open(now, sockets, reports);
    }

    fn advance_open(&mut self, now: Mono, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        let Some(id) = self.purpose.stream() else { return };
        let socket = self.socket(sockets);
        self.deliver(id, socket, reports);
        self.notice_end(id, socket, reports);
        self.offer(id, socket, reports);
        match socket.state() {
            State::TimeWait => self.end(None, now, reports),
            State::Closed => self.end(self.reason_of_end(), now, reports),
            _ => {}
        }
    }

    /// Hands received bytes to the application, as long as it keeps up.
    fn deliver(&mut self, id: StreamId, socket: &mut Socket<'_>, reports: &mut Vec<Report>) {
        let window = self.purpose.window();
        while self.untaken < window && socket.can_recv() {
            let room = window - self.untaken;
            let take = |bytes: &mut [u8]| {
                let count = bytes.len().min(room);
                (count, bytes[..count].to_vec())
            };
            let Ok(data) = socket.recv(take) else { return };
            self.untaken += data.len();
            reports.push(Report::Stream(id, StreamOutput::Data(data)));
        }
    }

    fn notice_end(&mut self, id: StreamId, socket: &Socket<'_>, reports: &mut Vec<Report>) {
        let ended =
            matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if ended && !self.peer_finished && socket.recv_queue() == 0 {
            self.peer_finished = true;
            reports.push(Report::Stream(id, StreamOutput::Finished));
        }
    }

    /// Offers room in quarters of the buffer, so that a slow link does not cause a message per
    /// segment.
    fn offer(&mut self, id: StreamId, socket: &Socket<'_>, reports: &mut Vec<Report>) {
        if self.finished || !socket.may_send() {
            return;
        }
        let buffer = self.purpose.buffer();
        let fresh = buffer - socket.send_queue() - self.credit;
        if fresh >= buffer / 4 || fresh > 0 && socket.send_queue() == 0 {
            self.credit += fresh;
            reports.push(Report::Stream(id, StreamOutput::Writable(fresh)));
        }
    }

    fn reason_of_end(&self) -> Option<ConnectFailure> {
        match (self.finished && self.peer_finished, self.reset_seen) {
            (true, _) => None,
            (false, true) => Some(ConnectFailure::Reset),
            (false, false) => Some(ConnectFailure::Timeout),
        }
    }

    fn end(&mut self, failure: Option<ConnectFailure>, now: Mono, reports: &mut Vec<Report>) {
        reports.push(self.purpose.failed(failure));
        self.phase = Phase::Ended { until: now + LINGER };
    }

    /// Ends the connection at once. The other side gets a reset with the next poll.
    pub fn abort(
        &mut self,
        failure: Option<ConnectFailure>,
        sockets: &mut SocketSet<'static>,
        reports: &mut Vec<Report>,
    ) {
        self.socket(sockets).abort();
        if !matches!(self.phase, Phase::Ended { .. }) {
            self.end(failure, Mono::ZERO, reports);
        }
    }

    /// Drops the connection after the application is gone. Data that the application had finished
    /// sending is still delivered.
    pub fn let_go(&mut self, now: Mono, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        match self.phase {
            Phase::Open if self.finished => self.end(None, now, reports),
            _ => self.abort(None, sockets, reports),
        }
    }

    pub fn send(&mut self, bytes: &[u8], sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        if self.phase != Phase::Open {
            return;
        }
        if bytes.len() > self.credit || self.finished {
            return self.abort(Some(ConnectFailure::Busy), sockets, reports);
        }
        self.credit -= bytes.len();
        // A socket that can no longer send shows it in its state, which `advance` reports.
        let _ = self.socket(sockets).send_slice(bytes);
    }

    pub fn taken(&mut self, count: usize) {
        self.untaken = self.untaken.saturating_sub(count);
    }

    /// Ends the application's direction: it will send no more.
    pub fn finish(&mut self, sockets: &mut SocketSet<'static>, reports: &mut Vec<Report>) {
        match self.phase {
            Phase::Opening { .. } => self.abort(None, sockets, reports),
            Phase::Open => {
                self.finished = true;
                self.socket(sockets).close();
            }
            Phase::Ended { .. } => {}
        }
    }

    /// Returns whether nothing remains to be sent or received, not even a reset.
    pub fn is_over(&self, sockets: &SocketSet<'static>) -> bool {
        let socket: &Socket<'_> = sockets.get(self.handle);
        let closed = socket.state() == State::Closed && socket.remote_endpoint().is_none();
        matches!(self.phase, Phase::Ended { .. }) && (closed || self.waited)
    }

    pub fn release(&self, sockets: &mut SocketSet<'static>) {
        sockets.remove(self.handle);
    }

    pub fn due(&self) -> Option<Mono> {
        match self.phase {
            Phase::Opening { until } => Some(until),
            Phase::Open => self.ends,
            Phase::Ended { until } => Some(until),
        }
    }

    pub fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. })
    }

    /// Remembers the sequence number of our SYN. An ICMP error must quote it to be trusted.
    pub fn note_syn(&mut self, outgoing: &Parsed<'_>) {
        let ours = ports(outgoing) == Some((self.local.port(), self.remote.port()));
        if self.is_opening() && ours {
            self.seq = outgoing.payload[4..8].try_into().ok();
        }
    }

    /// Remembers a segment with RST, to distinguish a refusal from a timeout.
    pub fn note_reset(&mut self, incoming: &Parsed<'_>) {
        const RST: u8 = 0x04;
        let ours = ports(incoming) == Some((self.remote.port(), self.local.port()));
        if ours && incoming.payload[13] & RST != 0 {
            self.reset_seen = true;
        }
    }

    pub fn undelivered(&mut self, error: &Undelivered) -> bool {
        let ours = self.is_opening()
            && error.protocol == TCP
            && (error.src, error.dst) == (self.local.ip(), self.remote.ip())
            && error.quoted[0..2] == self.local.port().to_be_bytes()
            && error.quoted[2..4] == self.remote.port().to_be_bytes()
            && self.seq.is_some_and(|seq| error.quoted[4..8] == seq);
        if ours {
            self.undelivered = Some(error.reason);
        }
        ours
    }
}

/// Returns source and destination port of a complete TCP segment.
pub fn ports(packet: &Parsed<'_>) -> Option<(u16, u16)> {
    if packet.protocol != TCP || packet.payload.len() < smoltcp::wire::TCP_HEADER_LEN {
        return None;
    }
    let port = |at: usize| u16::from_be_bytes([packet.payload[at], packet.payload[at + 1]]);
    Some((port(0), port(2)))
}

/// Returns source and destination port of a segment that would open a connection.
pub fn opens(packet: &Parsed<'_>) -> Option<(u16, u16)> {
    const FIN_SYN_RST_ACK: u8 = 0x17;
    const SYN: u8 = 0x02;
    ports(packet).filter(|_| packet.payload[13] & FIN_SYN_RST_ACK == SYN)
}

/// Reads and discards what the other side sends, so that it can end.
fn discard(socket: &mut Socket<'_>) {
    while socket.can_recv() && socket.recv(|bytes| (bytes.len(), ())).is_ok() {}
}

//! TCP/IP inside the process, one stack per peer with a connection: connect probes and streams.
//!
//! smoltcp looks at every socket for every packet, so a stack belongs to one peer and exists only
//! while it has a connection. It is handed only segments that fit a connection of its own or that
//! the caller decided to accept, so it never replies to strangers. Packets go in; packets and
//! [`Report`]s come out. The stack knows no session.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use fleetgate_probes::packet::{Parsed, parse};
use smoltcp::iface::{Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::messages::{ConnectFailure, Published, StreamId};
use crate::time::Mono;
use crate::tunnel::Config;
use crate::tunnel::icmp_error::Undelivered;
use crate::tunnel::random::Random;
use crate::tunnel::tcp::conn::{Conn, Purpose, Report, opens, ports};

/// IPv6's minimum: every path carries it inside WireGuard, so path MTU discovery is not needed.
pub const MTU: usize = 1_280;

/// Connections to one peer at a time, including those that linger after their end. Checks need no
/// more than half of them, and the shell gives people the other half. Looking at all of them for each
/// packet stays cheap (about 0.2 us each).
pub const MAX_CONNECTIONS: usize = 32;

/// Connections that one peer has opened at a time, including those that linger: the jobs that a
/// device runs at midnight, or the queries of a person's resolver. Further connections wait until the
/// peer repeats its SYN.
const MAX_ACCEPTED: usize = 8;

/// The part of them that may be half-open. A flood of SYNs fills only these places.
const MAX_HALF_OPEN: usize = 4;

/// Packets of one peer that wait for its stack: two batches of a UDP socket.
const MAX_QUEUED: usize = 64;

/// Packets that one stack may send per poll, before the others get their turn.
const MAX_BURST: usize = 64;

/// Local ports come from the upper half of the range, as is usual.
const FIRST_PORT: u16 = 0x8000;

/// The device between smoltcp and the tunnel: two bounded queues.
#[derive(Default)]
struct Wire {
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        if self.outbound.len() >= MAX_BURST {
            return None;
        }
        let packet = self.inbound.pop_front()?;
        Some((Received(packet), Sending(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        (self.outbound.len() < MAX_BURST).then_some(Sending(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

pub struct Stack {
    config: Config,
    iface: Interface,
    sockets: SocketSet<'static>,
    wire: Wire,
    conns: Vec<Conn>,
    due: Option<Mono>,
    /// The stack is in the queue of stacks to be polled.
    pub ready: bool,
}

/// Converts to smoltcp's time, which counts microseconds.
fn instant(at: Mono) -> Instant {
    Instant::from_micros(i64::try_from(at.as_nanos() / 1_000).unwrap_or(i64::MAX))
}

fn mono(at: Instant) -> Mono {
    Mono::from_nanos(u64::try_from(at.total_micros()).unwrap_or(0).saturating_mul(1_000))
}

impl Stack {
    pub fn new(config: Config, random: &mut Random, now: Mono) -> Self {
        let mut wire = Wire::default();
        let mut settings = smoltcp::iface::Config::new(HardwareAddress::Ip);
        settings.random_seed = random.u64();
        let mut iface = Interface::new(settings, &mut wire, instant(now));
        let (v4, v6) = (config.gateway_v4(), config.gateway_v6());
        iface.update_ip_addrs(|addrs| {
            addrs.push(IpCidr::new(IpAddress::Ipv4(v4), 32)).expect("smoltcp holds two addresses");
            addrs.push(IpCidr::new(IpAddress::Ipv6(v6), 128)).expect("smoltcp holds two addresses");
        });
        iface.routes_mut().add_default_ipv4_route(v4).expect("smoltcp holds two routes");
        iface.routes_mut().add_default_ipv6_route(v6).expect("smoltcp holds two routes");
        Stack {
            config,
            iface,
            sockets: SocketSet::new(Vec::new()),
            wire,
            conns: Vec::new(),
            due: None,
            ready: false,
        }
    }

    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Starts a connection.
    ///
    /// # Errors
    /// Fails with `Busy` over [`MAX_CONNECTIONS`] and with `Unreachable` when the address cannot be
    /// connected to.
    pub fn connect(
        &mut self,
        purpose: Purpose,
        to: SocketAddr,
        deadline: Mono,
        random: &mut Random,
        now: Mono,
    ) -> Result<(), ConnectFailure> {
        if self.conns.len() - self.accepted() >= MAX_CONNECTIONS {
            return Err(ConnectFailure::Busy);
        }
        let local = SocketAddr::new(self.local_for(to.ip()), self.free_port(random));
        let context = self.iface.context();
        self.conns.push(Conn::open(purpose, (local, to), (now, deadline), &mut self.sockets, context)?);
        Ok(())
    }

    /// Returns the number of connections that the peer opened.
    pub fn accepted(&self) -> usize {
        self.conns.iter().filter(|conn| conn.is_accepted()).count()
    }

    /// Returns the number of connections that the peer opened to this service.
    pub fn accepted_by(&self, service: Published) -> usize {
        self.conns.iter().filter(|conn| conn.service() == Some(service)).count()
    }

    /// Returns the streams that the peer opened to this service, the oldest first.
    pub fn streams_to(&self, service: Published) -> impl Iterator<Item = StreamId> {
        self.conns.iter().filter(move |conn| conn.service() == Some(service)).filter_map(Conn::stream)
    }

    /// Returns whether the peer may open another connection.
    pub fn has_place(&self) -> bool {
        let half_open = self.conns.iter().filter(|conn| conn.is_accepted() && conn.is_opening()).count();
        self.accepted() < MAX_ACCEPTED && half_open < MAX_HALF_OPEN
    }

    /// Makes room for the connection that this packet opens; the caller hands the packet to `push`
    /// next. Returns false when the peer has reached its limit.
    pub fn accept(&mut self, id: StreamId, service: Published, packet: &Parsed<'_>, now: Mono) -> bool {
        let Some((from, to)) = opens(packet) else { return false };
        if !self.has_place() {
            return false;
        }
        let ends = (SocketAddr::new(packet.dst, to), SocketAddr::new(packet.src, from));
        let conn = Conn::listen(id, service, ends, now, &mut self.sockets);
        self.conns.extend(conn);
        self.wants(packet)
    }

    fn local_for(&self, remote: IpAddr) -> IpAddr {
        match remote {
            IpAddr::V4(_) => self.config.gateway_v4().into(),
            IpAddr::V6(_) => self.config.gateway_v6().into(),
        }
    }

    fn free_port(&self, random: &mut Random) -> u16 {
        loop {
            let port = random.u16() | FIRST_PORT;
            if self.conns.iter().all(|conn| conn.local.port() != port) {
                return port;
            }
        }
    }

    /// Returns whether a packet for the gateway is a segment of a connection of this stack.
    pub fn wants(&self, packet: &Parsed<'_>) -> bool {
        let Some((from, to)) = ports(packet) else { return false };
        let (remote, local) = (SocketAddr::new(packet.src, from), SocketAddr::new(packet.dst, to));
        self.conns.iter().any(|conn| conn.remote == remote && conn.local == local)
    }

    /// Takes a packet that the stack `wants`, with its bytes. Returns false when too many wait.
    pub fn push(&mut self, packet: &Parsed<'_>, bytes: &[u8]) -> bool {
        if self.wire.inbound.len() >= MAX_QUEUED {
            return false;
        }
        for conn in &mut self.conns {
            conn.note_reset(packet);
        }
        self.wire.inbound.push_back(bytes[..packet.len].to_vec());
        true
    }

    /// Takes the ICMP error of a router about a segment of ours. The error counts for a connection
    /// that is being opened, if it quotes the exact sequence number.
    pub fn undelivered(&mut self, error: &Undelivered) -> bool {
        self.conns.iter_mut().any(|conn| conn.undelivered(error))
    }

    /// Sends bytes of the application on a stream.
    pub fn send(&mut self, id: StreamId, bytes: &[u8], reports: &mut Vec<Report>) {
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.is_stream(id)) {
            conn.send(bytes, &mut self.sockets, reports);
        }
    }

    pub fn taken(&mut self, id: StreamId, count: usize) {
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.is_stream(id)) {
            conn.taken(count);
        }
    }

    pub fn finish(&mut self, id: StreamId, reports: &mut Vec<Report>) {
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.is_stream(id)) {
            conn.finish(&mut self.sockets, reports);
        }
    }

    pub fn let_go(&mut self, id: StreamId, now: Mono, reports: &mut Vec<Report>) {
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.is_stream(id)) {
            conn.let_go(now, &mut self.sockets, reports);
        }
    }

    /// Resets a stream, even if the application had finished sending.
    pub fn reset(&mut self, id: StreamId, reports: &mut Vec<Report>) {
        if let Some(conn) = self.conns.iter_mut().find(|conn| conn.is_stream(id)) {
            conn.abort(None, &mut self.sockets, reports);
        }
    }

    /// Ends all connections with `failure`, without notifying the other side.
    pub fn fail_all(&mut self, failure: &ConnectFailure, reports: &mut Vec<Report>) {
        for mut conn in self.conns.drain(..) {
            conn.abort(Some(failure.clone()), &mut self.sockets, reports);
            conn.release(&mut self.sockets);
        }
        self.due = None;
    }

    /// Runs packets and timers once.
    pub fn poll(&mut self, now: Mono, reports: &mut Vec<Report>) {
        for conn in &mut self.conns {
            conn.expire(now, &mut self.sockets, reports);
        }
        self.iface.poll(instant(now), &mut self.wire, &mut self.sockets);
        for conn in &mut self.conns {
            conn.advance(now, &mut self.sockets, reports);
        }
        self.iface.poll(instant(now), &mut self.wire, &mut self.sockets);
        self.sweep();
        self.due = self.compute_due(now);
    }

    fn sweep(&mut self) {
        let sockets = &mut self.sockets;
        self.conns.retain(|conn| {
            let over = conn.is_over(sockets);
            if over {
                conn.release(sockets);
            }
            !over
        });
    }

    fn compute_due(&mut self, now: Mono) -> Option<Mono> {
        let conns = self.conns.iter().filter_map(Conn::due).min();
        let stack = self.iface.poll_at(instant(now), &self.sockets).map(|at| mono(at).max(now));
        [conns, stack].into_iter().flatten().min()
    }

    pub fn take_packet(&mut self) -> Option<Vec<u8>> {
        let packet = self.wire.outbound.pop_front()?;
        if self.conns.iter().any(Conn::is_opening)
            && let Ok(parsed) = parse(&packet)
        {
            self.conns.iter_mut().for_each(|conn| conn.note_syn(&parsed));
        }
        Some(packet)
    }

    /// Returns when `poll` is due.
    pub fn due(&self) -> Option<Mono> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

    use super::*;
    use crate::messages::{ProbeId, ProbeReply, STREAM_WINDOW, StreamOutput};
    use crate::tunnel::icmp_error::host_unreachable;

    const STREAM: StreamId = StreamId(1);

    /// A device's own stack with one listener, and the gateway's stack for it.
    struct Pair {
        stack: Stack,
        random: Random,
        now: Mono,
        iface: Interface,
        sockets: SocketSet<'static>,
        wire: Wire,
        listener: smoltcp::iface::SocketHandle,
        device: SocketAddr,
        /// The link between the two is cut.
        cut: bool,
        reports: Vec<Report>,
    }

    fn config() -> Config {
        Config {
            pool_v4: "172.24.0.0/14".parse().expect("a network"),
            pool_v6: "fd00:1::/64".parse().expect("a network"),
            results_port: None,
        }
    }

    impl Pair {
        fn new(device: &str) -> Self {
            let device: SocketAddr = device.parse().expect("an address");
            let mut wire = Wire::default();
            let settings = smoltcp::iface::Config::new(HardwareAddress::Ip);
            let mut iface = Interface::new(settings, &mut wire, Instant::ZERO);
            iface.update_ip_addrs(|addrs| {
                addrs.push(IpCidr::new(device.ip().into(), 0)).expect("smoltcp holds two addresses");
            });
            let buffer = || SocketBuffer::new(vec![0; 8_192]);
            let mut socket = Socket::new(buffer(), buffer());
            socket.listen(22).expect("it is closed");
            let mut sockets = SocketSet::new(Vec::new());
            let listener = sockets.add(socket);
            let mut random = Random::new([1; 32]);
            let stack = Stack::new(config(), &mut random, Mono::ZERO);
            let now = Mono::from_secs(1);
            Pair { stack, random, now, iface, sockets, wire, listener, device, cut: false, reports: vec![] }
        }

        fn connect(&mut self, purpose: Purpose, port: u16) {
            let to = SocketAddr::new(self.device.ip(), port);
            let deadline = self.now + Duration::from_secs(5);
            self.stack.connect(purpose, to, deadline, &mut self.random, self.now).expect("there is room");
        }

        fn server(&mut self) -> &mut Socket<'static> {
            self.sockets.get_mut(self.listener)
        }

        /// Exchanges all pending packets once.
        fn exchange(&mut self) {
            self.stack.poll(self.now, &mut self.reports);
            while let Some(packet) = self.stack.take_packet() {
                self.wire.inbound.push_back(packet);
            }
            self.wire.inbound.retain(|_| !self.cut);
            self.iface.poll(instant(self.now), &mut self.wire, &mut self.sockets);
            for packet in std::mem::take(&mut self.wire.outbound) {
                let parsed = parse(&packet).expect("a packet");
                if !self.cut && self.stack.wants(&parsed) {
                    assert!(self.stack.push(&parsed, &packet));
                }
            }
        }

        fn run(&mut self, time: Duration) -> Vec<Report> {
            let end = self.now + time;
            while self.now < end {
                self.exchange();
                self.now = self.now + Duration::from_millis(5);
            }
            std::mem::take(&mut self.reports)
        }

        fn stream(&mut self) -> Vec<StreamOutput> {
            let reports = self.run(Duration::from_millis(200));
            reports
                .into_iter()
                .map(|report| match report {
                    Report::Stream(STREAM, output) => output,
                    other => panic!("only the stream is there: {other:?}"),
                })
                .collect()
        }

        fn probe(&mut self, port: u16) -> Result<Duration, ConnectFailure> {
            self.connect(Purpose::Probe(ProbeId(9)), port);
            match self.run(Duration::from_secs(6)).as_slice() {
                [Report::ProbeReply(ProbeId(9), ProbeReply::Connect(result))] => result.clone(),
                other => panic!("one answer is expected: {other:?}"),
            }
        }
    }

    const V4: &str = "172.24.0.2:22";
    const V6: &str = "[fd00:1::2]:22";

    #[test]
    fn an_open_port_answers_with_a_time_and_the_stack_is_empty_afterwards() {
        for device in [V4, V6] {
            let mut pair = Pair::new(device);
            assert!(pair.probe(22).is_ok_and(|rtt| rtt < Duration::from_millis(50)));
            assert_eq!(pair.stack.connections(), 0);
            assert_eq!(pair.stack.due(), None);
        }
    }

    #[test]
    fn a_closed_port_refuses() {
        assert_eq!(Pair::new(V6).probe(23), Err(ConnectFailure::Refused));
    }

    #[test]
    fn silence_times_out() {
        let mut pair = Pair::new(V4);
        pair.cut = true;
        assert_eq!(pair.probe(22), Err(ConnectFailure::Timeout));
        assert_eq!(pair.stack.connections(), 0);
    }

    #[test]
    fn an_icmp_error_ends_a_connect_only_with_the_right_sequence_number() {
        let mut pair = Pair::new(V4);
        pair.connect(Purpose::Probe(ProbeId(9)), 22);
        pair.stack.poll(pair.now, &mut pair.reports);
        let syn = pair.stack.take_packet().expect("a SYN");
        for (flip, taken) in [(1, false), (0, true)] {
            let mut quoted = syn.clone();
            quoted[27] ^= flip;
            let error = host_unreachable([172, 24, 0, 2].into(), &quoted);
            let error = Undelivered::parse(&parse(&error).expect("a packet")).expect("an error");
            assert_eq!(pair.stack.undelivered(&error), taken);
        }
        pair.stack.poll(pair.now, &mut pair.reports);
        let unreachable = ConnectFailure::Unreachable("no route to the host".into());
        assert!(matches!(&pair.reports[..],
            [Report::ProbeReply(_, ProbeReply::Connect(Err(failure)))] if *failure == unreachable));
    }

    #[test]
    fn a_stream_carries_bytes_both_ways_and_ends_in_order() {
        let mut pair = Pair::new(V4);
        pair.connect(Purpose::Stream(STREAM), 22);
        let [StreamOutput::Connected, StreamOutput::Writable(room)] = pair.stream()[..] else {
            panic!("connected and writable");
        };
        assert!(room <= STREAM_WINDOW);
        pair.stack.send(STREAM, b"hello", &mut pair.reports);
        pair.stream();
        let mut got = [0; 16];
        assert_eq!(pair.server().recv_slice(&mut got), Ok(5));
        pair.server().send_slice(b"world").expect("it is open");
        assert!(matches!(&pair.stream()[..], [StreamOutput::Data(data)] if data == b"world"));
        pair.server().close();
        assert!(matches!(pair.stream()[..], [StreamOutput::Finished]));
        pair.stack.finish(STREAM, &mut pair.reports);
        assert!(matches!(pair.stream()[..], [StreamOutput::Closed(None)]));
        assert_eq!(pair.stack.connections(), 0);
    }

    #[test]
    fn a_reader_that_takes_nothing_stops_the_sender_and_loses_nothing() {
        let mut pair = Pair::new(V4);
        pair.connect(Purpose::Stream(STREAM), 22);
        pair.stream();
        let (mut sent, mut got, mut held) = (0, 0, 0);
        for round in 0..400 {
            let room = if pair.server().may_send() { 4_096 } else { 0 };
            sent += pair.server().send_slice(&vec![7; room]).expect("it is open");
            for report in pair.run(Duration::from_millis(20)) {
                if let Report::Stream(_, StreamOutput::Data(data)) = report {
                    held += data.len();
                    got += data.len();
                }
            }
            assert!(held <= STREAM_WINDOW);
            if round == 200 {
                assert!(sent > STREAM_WINDOW && pair.server().send_queue() > 0, "the sender is stopped");
            }
            if round > 200 {
                pair.stack.taken(STREAM, held);
                held = 0;
            }
        }
        assert!(got > 4 * STREAM_WINDOW, "{got} of {sent} arrived");
    }

    #[test]
    fn more_than_was_offered_ends_the_stream() {
        let mut pair = Pair::new(V4);
        pair.connect(Purpose::Stream(STREAM), 22);
        pair.stream();
        pair.stack.send(STREAM, &vec![0; STREAM_WINDOW + 1], &mut pair.reports);
        assert!(matches!(pair.stream()[..], [StreamOutput::Closed(Some(ConnectFailure::Busy))]));
    }

    #[test]
    fn an_abort_reaches_the_device() {
        let mut pair = Pair::new(V4);
        pair.connect(Purpose::Stream(STREAM), 22);
        pair.stream();
        pair.stack.let_go(STREAM, pair.now, &mut pair.reports);
        pair.stream();
        assert_eq!(pair.server().state(), State::Closed);
        assert_eq!(pair.stack.connections(), 0);
    }

    #[test]
    fn a_reset_is_distinguished_from_a_timeout() {
        let mut pair = Pair::new(V4);
        pair.connect(Purpose::Stream(STREAM), 22);
        pair.stream();
        pair.server().abort();
        assert!(matches!(pair.stream()[..], [StreamOutput::Closed(Some(ConnectFailure::Reset))]));
        let mut pair = Pair::new(V4);
        pair.connect(Purpose::Stream(STREAM), 22);
        pair.stream();
        pair.cut = true;
        pair.stack.send(STREAM, b"anyone?", &mut pair.reports);
        let reports = pair.run(Duration::from_secs(70));
        let gone = ConnectFailure::Timeout;
        assert!(matches!(&reports[..], [Report::Stream(_, StreamOutput::Closed(Some(end)))] if *end == gone));
    }

    #[test]
    fn connections_are_bounded() {
        let mut pair = Pair::new(V4);
        for _ in 0..MAX_CONNECTIONS {
            pair.connect(Purpose::Probe(ProbeId(9)), 22);
        }
        let deadline = pair.now + Duration::from_secs(5);
        let over =
            pair.stack.connect(Purpose::Stream(STREAM), pair.device, deadline, &mut pair.random, pair.now);
        assert_eq!(over, Err(ConnectFailure::Busy));
    }
}

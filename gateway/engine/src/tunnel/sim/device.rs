//! A simulated device, for tests: the other end of a tunnel, over any [`Session`].
//!
//! It replies to echo requests for its addresses and accepts TCP on its open ports, where it echoes
//! every byte. It refuses the other ports, and connects to the gateway on request. It is only built
//! for tests (feature `sim`).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use fleetgate_probes::packet::{TCP, answer_to_echo, datagram, parse};
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device as Phy, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::time::Mono;
use crate::tunnel::session::{NoSession, Opened, SCRATCH, Session};

/// Listeners per port: smoltcp has no backlog, a listening socket becomes the connection.
const LISTENERS: usize = 4;

pub struct Device<S> {
    pub session: S,
    /// Whether the IP stack replies. The session continues without it.
    pub answers: bool,
    /// The first address of each family is the device's own.
    addresses: Vec<IpAddr>,
    server: Option<Server>,
    ports: Vec<u16>,
    scratch: Vec<u8>,
    /// Packets that came through the tunnel.
    pub received: usize,
    /// The data of the UDP datagrams among them.
    pub datagrams: Vec<Vec<u8>>,
    /// The last one of them.
    pub last: Vec<u8>,
}

/// Datagrams for the gateway.
pub type Datagrams = Vec<Vec<u8>>;

impl<S: Session> Device<S> {
    pub fn new(session: S, addresses: Vec<IpAddr>, ports: Vec<u16>) -> Self {
        Device {
            session,
            answers: true,
            addresses,
            server: None,
            ports,
            scratch: vec![0; SCRATCH],
            received: 0,
            datagrams: Vec::new(),
            last: Vec::new(),
        }
    }

    pub fn initiate(&mut self, now: Mono) -> Datagrams {
        let mut sent = Vec::new();
        self.session.initiate(now, &mut self.scratch, &mut |datagram| sent.push(datagram.to_vec()));
        sent
    }

    /// Sends an inner packet that the test made.
    ///
    /// # Errors
    /// Fails when there is no session.
    pub fn send(&mut self, packet: &[u8], now: Mono) -> Result<Datagrams, NoSession> {
        let mut sent = Vec::new();
        self.session.send(packet, now, &mut self.scratch, &mut |datagram| sent.push(datagram.to_vec()))?;
        Ok(sent)
    }

    pub fn receive(&mut self, datagram: &[u8], from: SocketAddr, now: Mono) -> Datagrams {
        let mut sent = Vec::new();
        let opened = self.session.receive(datagram, from, now, &mut self.scratch, &mut |datagram| {
            sent.push(datagram.to_vec());
        });
        let Opened::Packet(packet) = opened else { return sent };
        let packet = packet.to_vec();
        self.last.clone_from(&packet);
        if !self.answers {
            return sent;
        }
        for reply in self.reply(&packet, now) {
            sent.extend(self.send(&reply, now).unwrap_or_default());
        }
        sent
    }

    /// Connects to the gateway, sends `words` and no more, and reads until the other side ends.
    pub fn call(&mut self, from: SocketAddr, to: SocketAddr, words: &[u8], now: Mono) -> Datagrams {
        let (addresses, ports) = (&self.addresses, &self.ports);
        let server = self.server.get_or_insert_with(|| Server::new(addresses, ports, now));
        server.call(from, to, words);
        let packets = server.run(None, now);
        packets.iter().flat_map(|packet| self.send(packet, now).unwrap_or_default()).collect()
    }

    /// Returns what the gateway sent over each connection of the device, in order.
    pub fn heard(&self) -> Vec<&[u8]> {
        self.server.iter().flat_map(|server| &server.calls).map(|call| &call.heard[..]).collect()
    }

    fn reply(&mut self, packet: &[u8], now: Mono) -> Vec<Vec<u8>> {
        self.received += 1;
        let parsed = parse(packet).ok().filter(|parsed| self.addresses.contains(&parsed.dst));
        let (addresses, ports) = (&self.addresses, &self.ports);
        self.datagrams.extend(parsed.as_ref().and_then(datagram).map(|datagram| datagram.data.to_vec()));
        match parsed {
            Some(parsed) if parsed.protocol == TCP => {
                let server = self.server.get_or_insert_with(|| Server::new(addresses, ports, now));
                server.run(Some(packet), now)
            }
            Some(parsed) => answer_to_echo(&parsed).into_iter().collect(),
            None => Vec::new(),
        }
    }

    pub fn poll(&mut self, now: Mono) -> Datagrams {
        let mut sent = Vec::new();
        self.session.poll(now, &mut self.scratch, &mut |datagram| sent.push(datagram.to_vec()));
        let packets = self.server.as_mut().map(|server| server.run(None, now)).unwrap_or_default();
        for packet in packets {
            sent.extend(self.send(&packet, now).unwrap_or_default());
        }
        sent
    }

    pub fn next_poll(&mut self, now: Mono) -> Option<Mono> {
        let server = self.server.as_mut().and_then(|server| server.due(now));
        [self.session.next_poll(), server].into_iter().flatten().min().map(|at| at.max(now))
    }
}

#[derive(Default)]
struct Queues {
    inbound: VecDeque<Vec<u8>>,
    outbound: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Phy for Queues {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.inbound.pop_front()?), Sending(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = crate::tunnel::MTU;
        capabilities
    }
}

/// A connection that the device opened.
struct Call {
    handle: SocketHandle,
    words: Vec<u8>,
    heard: Vec<u8>,
}

/// The TCP side of the device: ports that echo what they receive, and its own connections.
struct Server {
    iface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<(SocketHandle, u16)>,
    calls: Vec<Call>,
    queues: Queues,
}

fn instant(at: Mono) -> Instant {
    Instant::from_micros((at.as_nanos() / 1_000) as i64)
}

impl Server {
    fn new(addresses: &[IpAddr], ports: &[u16], now: Mono) -> Self {
        let mut queues = Queues::default();
        let settings = smoltcp::iface::Config::new(HardwareAddress::Ip);
        let mut iface = Interface::new(settings, &mut queues, instant(now));
        iface.set_any_ip(true);
        for address in addresses {
            let first = iface
                .ip_addrs()
                .iter()
                .all(|own| own.address().version() != IpCidr::new((*address).into(), 0).address().version());
            if first {
                iface.update_ip_addrs(|own| {
                    own.push(IpCidr::new((*address).into(), 0)).expect("one per family");
                });
                add_route(&mut iface, *address);
            }
        }
        let mut sockets = SocketSet::new(Vec::new());
        let all = ports.iter().flat_map(|port| std::iter::repeat_n(*port, LISTENERS));
        let handles = all.map(|port| (sockets.add(listener(port)), port)).collect();
        Server { iface, sockets, handles, calls: Vec::new(), queues }
    }

    fn call(&mut self, from: SocketAddr, to: SocketAddr, words: &[u8]) {
        let buffer = || SocketBuffer::new(vec![0; 16_384]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.connect(self.iface.context(), to, from).expect("a free port");
        let handle = self.sockets.add(socket);
        self.calls.push(Call { handle, words: words.to_vec(), heard: Vec::new() });
    }

    fn run(&mut self, packet: Option<&[u8]>, now: Mono) -> Vec<Vec<u8>> {
        self.queues.inbound.extend(packet.map(<[u8]>::to_vec));
        self.iface.poll(instant(now), &mut self.queues, &mut self.sockets);
        for (handle, port) in &self.handles {
            serve(self.sockets.get_mut(*handle), *port);
        }
        for call in &mut self.calls {
            call.go_on(self.sockets.get_mut(call.handle));
        }
        self.iface.poll(instant(now), &mut self.queues, &mut self.sockets);
        std::mem::take(&mut self.queues.outbound)
    }

    fn due(&mut self, now: Mono) -> Option<Mono> {
        let at = self.iface.poll_at(instant(now), &self.sockets)?;
        Some(Mono::from_nanos(at.total_micros() as u64 * 1_000).max(now))
    }
}

impl Call {
    fn go_on(&mut self, socket: &mut Socket<'_>) {
        if socket.can_send() && !self.words.is_empty() {
            let sent = socket.send_slice(&self.words).unwrap_or_default();
            self.words.drain(..sent);
        }
        while let Ok(bytes) = socket.recv(|bytes| (bytes.len(), bytes.to_vec())) {
            if bytes.is_empty() {
                break;
            }
            self.heard.extend(bytes);
        }
        if socket.state() == State::CloseWait {
            socket.close();
        }
    }
}

fn add_route(iface: &mut Interface, address: IpAddr) {
    match address {
        IpAddr::V4(address) => iface.routes_mut().add_default_ipv4_route(address),
        IpAddr::V6(address) => iface.routes_mut().add_default_ipv6_route(address),
    }
    .expect("one per family");
}

fn listener(port: u16) -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; 16_384]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.listen(port).expect("a closed socket and a port");
    socket
}

fn serve(socket: &mut Socket<'_>, port: u16) {
    let room = socket.send_capacity() - socket.send_queue();
    if socket.can_recv() && room > 0 {
        let take = |bytes: &mut [u8]| {
            let count = bytes.len().min(room);
            (count, bytes[..count].to_vec())
        };
        if let Ok(bytes) = socket.recv(take) {
            // A peer that left in the meantime receives nothing.
            let _ = socket.send_slice(&bytes);
        }
    }
    match socket.state() {
        State::CloseWait if socket.recv_queue() == 0 => socket.close(),
        State::Closed | State::TimeWait => {
            socket.abort();
            let _ = socket.listen(port);
        }
        _ => {}
    }
}

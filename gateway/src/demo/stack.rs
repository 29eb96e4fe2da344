//! A device's IP stack: replies to echo requests, serves TCP and opens connections. Packets in, packets out.
//!
//! Each connection ends in one half of an in-memory pipe; the service has the other half. The stack
//! does not know WireGuard or sockets.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fleetgate_engine::time::Mono;
use ipnet::IpNet;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{self, State};
use smoltcp::time::Instant;
use smoltcp::wire::{
    HardwareAddress, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpAddress, IpCidr, IpProtocol,
    Ipv4Packet, Ipv6Packet,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// The MTU inside WireGuard on an Ethernet link.
const MTU: usize = 1420;
/// A listening socket of smoltcp becomes the connection, so this many may arrive at once per port.
const BACKLOG: usize = 4;
/// Open connections of a device; further ones are reset.
const MAX_FLOWS: usize = 32;
/// Bytes per connection and direction, in the stack and again in the pipe.
pub(super) const BUFFER: usize = 16 * 1024;
/// The first port of connections that a device opens (RFC 6335, section 6).
const FIRST_PORT: u16 = 49_152;
/// How long a device waits for the other end of a connection that it has opened.
const UNANSWERED: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(10);
const HOPS: u8 = 64;

/// Serves one connection to a port; spawns its own tasks.
pub type Service = Arc<dyn Fn(DuplexStream) + Send + Sync>;

pub(super) struct Stack {
    iface: Interface,
    sockets: SocketSet<'static>,
    queue: Queue,
    addresses: Vec<IpAddr>,
    networks: Vec<IpNet>,
    ports: Vec<Port>,
    flows: Vec<Flow>,
    next_port: u16,
}

struct Port {
    number: u16,
    service: Service,
    listeners: Vec<SocketHandle>,
}

struct Flow {
    socket: SocketHandle,
    app: DuplexStream,
    /// The service has received the end of the stream.
    ended: bool,
}

impl Stack {
    /// `networks` are behind the device, which replies for their addresses as well.
    pub(super) fn new(
        addresses: &[IpAddr],
        networks: &[IpNet],
        services: &[(u16, Service)],
        seed: u64,
        now: Mono,
    ) -> Self {
        let mut queue = Queue::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut queue, instant(now));
        configure(&mut iface, addresses);
        let mut stack = Stack {
            iface,
            sockets: SocketSet::new(Vec::new()),
            queue,
            addresses: addresses.to_vec(),
            networks: networks.to_vec(),
            ports: Vec::new(),
            flows: Vec::new(),
            next_port: FIRST_PORT,
        };
        for (number, service) in services {
            let listeners = (0..BACKLOG).map(|_| listen(&mut stack.sockets, *number)).collect();
            stack.ports.push(Port { number: *number, service: service.clone(), listeners });
        }
        stack
    }

    /// Takes a packet from the tunnel. A packet for another destination is dropped.
    pub(super) fn receive(&mut self, mut packet: Vec<u8>) {
        if !destination(&packet).is_some_and(|to| self.answers_for(to)) {
            return;
        }
        match echo_reply(&mut packet) {
            Some(()) => self.queue.tx.push_back(packet),
            None => self.queue.rx.push_back(packet),
        }
    }

    /// Opens a connection for `app`, which reads the end of the stream if nothing answers.
    pub(super) fn connect(&mut self, to: SocketAddr, app: DuplexStream) {
        let own = self.addresses.iter().find(|own| own.is_ipv4() == to.is_ipv4());
        let Some(own) = own.filter(|_| self.flows.len() < MAX_FLOWS) else { return };
        let from = (IpAddress::from(*own), self.next_port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
        let mut socket = closed();
        socket.set_timeout(Some(UNANSWERED));
        if socket.connect(self.iface.context(), to, from).is_ok() {
            self.flows.push(Flow { socket: self.sockets.add(socket), app, ended: false });
        }
    }

    /// Does all work that is possible now, and registers the task with everything that it waits for.
    pub(super) fn work(&mut self, cx: &mut Context<'_>, now: Mono) {
        loop {
            let changed = self.iface.poll(instant(now), &mut self.queue, &mut self.sockets);
            self.accept();
            let moved = self.pump(cx);
            if !moved && changed == PollResult::None {
                return;
            }
        }
    }

    pub(super) fn take_packets(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.queue.tx)
    }

    /// Returns the time at which `work` is due without input.
    pub(super) fn deadline(&mut self, now: Mono) -> Option<Mono> {
        let delay = self.iface.poll_delay(instant(now), &self.sockets)?;
        Some(now + Duration::from_micros(delay.total_micros()))
    }

    fn answers_for(&self, to: IpAddr) -> bool {
        self.addresses.contains(&to) || self.networks.iter().any(|net| net.contains(&to))
    }

    /// Hands established connections to their services.
    fn accept(&mut self) {
        for port in &mut self.ports {
            for slot in &mut port.listeners {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(*slot);
                if matches!(socket.state(), State::Listen | State::SynReceived) {
                    continue;
                }
                let new = listen(&mut self.sockets, port.number);
                let socket = std::mem::replace(slot, new);
                let (app, service) = tokio::io::duplex(BUFFER);
                if self.flows.len() < MAX_FLOWS {
                    (port.service)(service);
                } else {
                    self.sockets.get_mut::<tcp::Socket<'_>>(socket).abort();
                }
                self.flows.push(Flow { socket, app, ended: false });
            }
        }
    }

    /// Moves bytes between sockets and services, and removes ended connections. Returns whether any bytes
    /// moved.
    fn pump(&mut self, cx: &mut Context<'_>) -> bool {
        let sockets = &mut self.sockets;
        let mut moved = false;
        self.flows.retain_mut(|flow| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(flow.socket);
            moved |= flow.pump(socket, cx);
            // While a closed socket still has a remote endpoint, it has something to send or to wait for.
            if socket.state() == State::Closed && socket.remote_endpoint().is_none() {
                sockets.remove(flow.socket);
                return false;
            }
            true
        });
        moved
    }
}

impl Flow {
    fn pump(&mut self, socket: &mut tcp::Socket<'_>, cx: &mut Context<'_>) -> bool {
        let inward = self.pump_inward(socket, cx);
        let outward = self.pump_outward(socket, cx);
        inward || outward
    }

    fn pump_inward(&mut self, socket: &mut tcp::Socket<'_>, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while socket.can_recv() {
            let app = Pin::new(&mut self.app);
            let taken = socket.recv(|bytes| match app.poll_write(cx, bytes) {
                Poll::Ready(Ok(n)) => (n, n),
                // The service is gone, so the bytes are discarded.
                Poll::Ready(Err(_)) => (bytes.len(), bytes.len()),
                Poll::Pending => (0, 0),
            });
            if !taken.is_ok_and(|n| n > 0) {
                break;
            }
            moved = true;
        }
        // A rental that has not begun has not ended.
        let is_over = socket.state() != State::SynSent && !socket.may_recv();
        if !self.ended && is_over {
            self.ended = Pin::new(&mut self.app).poll_shutdown(cx).is_ready();
        }
        moved
    }

    fn pump_outward(&mut self, socket: &mut tcp::Socket<'_>, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while socket.can_send() {
            let app = Pin::new(&mut self.app);
            let sent = socket.send(|room| {
                let mut buf = ReadBuf::new(room);
                match app.poll_read(cx, &mut buf) {
                    Poll::Ready(Ok(())) => (buf.filled().len(), Some(buf.filled().len())),
                    Poll::Ready(Err(_)) => (0, Some(0)),
                    Poll::Pending => (0, None),
                }
            });
            match sent {
                Ok(Some(0)) => {
                    socket.close();
                    return true;
                }
                Ok(Some(_)) => moved = true,
                Ok(None) | Err(_) => break,
            }
        }
        moved
    }
}

fn configure(iface: &mut Interface, addresses: &[IpAddr]) {
    iface.update_ip_addrs(|own| {
        for address in addresses {
            let host = IpCidr::new((*address).into(), if address.is_ipv4() { 32 } else { 128 });
            // smoltcp has room for two: one of each family.
            let _ = own.push(host);
        }
    });
    // Without these, the stack would neither reply for networks behind it nor send to other hosts.
    iface.set_any_ip(true);
    for address in addresses {
        let _ = match *address {
            IpAddr::V4(own) => iface.routes_mut().add_default_ipv4_route(own),
            IpAddr::V6(own) => iface.routes_mut().add_default_ipv6_route(own),
        };
    }
}

fn listen(sockets: &mut SocketSet<'static>, port: u16) -> SocketHandle {
    let mut socket = closed();
    socket.listen(port).expect("a new socket can listen on any port but 0");
    sockets.add(socket)
}

fn closed() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
    tcp::Socket::new(buffer(), buffer())
}

fn instant(now: Mono) -> Instant {
    Instant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(Ipv4Packet::new_checked(packet).ok()?.dst_addr().into()),
        6 => Some(Ipv6Packet::new_checked(packet).ok()?.dst_addr().into()),
        _ => None,
    }
}

/// Turns an echo request into its reply, in place. `None` leaves any other packet unchanged.
fn echo_reply(packet: &mut [u8]) -> Option<()> {
    match packet.first()? >> 4 {
        4 => echo_reply_v4(packet),
        _ => echo_reply_v6(packet),
    }
}

fn echo_reply_v4(packet: &mut [u8]) -> Option<()> {
    let mut ip = Ipv4Packet::new_checked(packet).ok()?;
    let whole = !ip.more_frags() && ip.frag_offset() == 0;
    if ip.next_header() != IpProtocol::Icmp || !whole {
        return None;
    }
    let mut icmp = Icmpv4Packet::new_checked(ip.payload_mut()).ok()?;
    if icmp.msg_type() != Icmpv4Message::EchoRequest {
        return None;
    }
    icmp.set_msg_type(Icmpv4Message::EchoReply);
    icmp.fill_checksum();
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    ip.set_src_addr(to);
    ip.set_dst_addr(from);
    ip.set_hop_limit(HOPS);
    ip.fill_checksum();
    Some(())
}

fn echo_reply_v6(packet: &mut [u8]) -> Option<()> {
    let mut ip = Ipv6Packet::new_checked(packet).ok()?;
    if ip.next_header() != IpProtocol::Icmpv6 {
        return None;
    }
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let mut icmp = Icmpv6Packet::new_checked(ip.payload_mut()).ok()?;
    if icmp.msg_type() != Icmpv6Message::EchoRequest {
        return None;
    }
    icmp.set_msg_type(Icmpv6Message::EchoReply);
    icmp.fill_checksum(&to, &from);
    ip.set_src_addr(to);
    ip.set_dst_addr(from);
    ip.set_hop_limit(HOPS);
    Some(())
}

/// The network card: two queues.
#[derive(Default)]
struct Queue {
    rx: VecDeque<Vec<u8>>,
    tx: VecDeque<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl Device for Queue {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        self.rx.pop_front().map(|packet| (Received(packet), Sending(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// Carries packets in both directions, a millisecond each time.
    async fn carry(client: &mut Stack, server: &mut Stack, ms: &mut u64) {
        loop {
            *ms += 1;
            let now = Mono::from_millis(*ms);
            poll_fn(|cx| {
                client.work(cx, now);
                server.work(cx, now);
                Poll::Ready(())
            })
            .await;
            client.take_packets().into_iter().for_each(|packet| server.receive(packet));
            server.take_packets().into_iter().for_each(|packet| client.receive(packet));
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_connection_reads_what_a_port_serves_and_ends_where_none_does() {
        let [here, there] = [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])];
        let other_family = IpAddr::from([0xfd72, 0, 0, 0, 0, 0, 0, 2]);
        let greeting: Service = Arc::new(|mut stream: DuplexStream| {
            tokio::spawn(async move { stream.write_all(b"hello").await });
        });
        let mut ms = 0;
        let now = Mono::from_millis(ms);
        let mut client = Stack::new(&[here], &[], &[], 1, now);
        let mut server = Stack::new(&[there], &[], &[(80, greeting)], 2, now);
        for (address, port, served) in [(there, 80, "hello"), (there, 81, ""), (other_family, 80, "")] {
            let (mut program, app) = tokio::io::duplex(BUFFER);
            client.connect(SocketAddr::new(address, port), app);
            let mut got = String::new();
            tokio::select! {
                () = carry(&mut client, &mut server, &mut ms) => {}
                read = program.read_to_string(&mut got) => drop(read.expect("an end")),
            }
            assert_eq!(got, served, "{address}, port {port}");
        }
    }
}

//! The one UDP socket of the tunnels: dual-stack, batched in both directions.
//!
//! It splits each GRO batch that it receives into datagrams. It sends datagrams of one size to one
//! destination as a single GSO call. It does not know WireGuard.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use fleetgate_engine::messages::Transmit;
use fleetgate_engine::time::Mono;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::clock::Moment;

/// A GRO batch fills one buffer with up to 64 KiB. The rest shifts each buffer in the processor's cache, where
/// the beginnings of all buffers would otherwise share one place.
const BUFFER: usize = 65_536 + 1_344;
/// Requested from the kernel for bursts: about 3,000 full datagrams in each direction. The kernel may
/// grant less.
const SOCKET_BUFFER: usize = 4 << 20;
/// Batches taken in one turn, so that commands and timers get theirs.
const BATCHES_PER_TURN: usize = 4;
/// Datagrams after which a turn takes no other batch, so that the first of them leave soon: about 3 ms.
const DATAGRAMS_PER_TURN: usize = 512;

/// Counts the batches that passed the socket in either direction, and those that had no route. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct SocketStats(Arc<[AtomicU64; 2]>);

impl SocketStats {
    pub fn passed(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    pub fn stuck(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }

    pub fn note_passed(&self) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
    }

    pub fn note_stuck(&self) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }
}

pub struct Udp {
    socket: UdpSocket,
    state: UdpSocketState,
    buffers: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
    /// The socket is IPv6 and carries IPv4 as mapped addresses.
    dual: bool,
    passage: SocketStats,
}

/// Binds to `listen`, or to IPv4 alone when the machine has no IPv6.
///
/// # Errors
/// Names the address, and says so when the port is in use.
pub fn bind(listen: SocketAddr) -> anyhow::Result<std::net::UdpSocket> {
    let wanted = open(listen);
    let no_v6 = |e: &io::Error| {
        e.raw_os_error() == Some(libc::EAFNOSUPPORT) || e.kind() == io::ErrorKind::AddrNotAvailable
    };
    let socket = match wanted {
        Err(e) if no_v6(&e) && listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port()))
        }
        other => other,
    };
    socket.with_context(|| match std::net::UdpSocket::bind(listen).err().map(|e| e.kind()) {
        Some(io::ErrorKind::AddrInUse) => format!(
            "UDP port {} is in use: another WireGuard or fleetgate runs here; stop it or set `listen` to another port",
            listen.port()
        ),
        _ => format!("cannot listen for tunnels on UDP {listen}"),
    })
}

fn open(listen: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let domain = if listen.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Best effort: a smaller buffer only shortens the burst that the socket survives.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

impl Udp {
    /// # Errors
    /// Fails when the kernel refuses the options that receiving needs.
    pub fn new(socket: std::net::UdpSocket, passage: SocketStats) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let dual = socket.local_addr()?.is_ipv6();
        allow_fragments(&socket, dual);
        Ok(Udp {
            socket: UdpSocket::from_std(socket)?,
            state,
            buffers: vec![0; BUFFER * BATCH_SIZE],
            meta: [RecvMeta::default(); BATCH_SIZE],
            dual,
            passage,
        })
    }

    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Passes on the datagrams that have arrived, a few batches at most, each with the time at which it came,
    /// if the kernel tells it. An error of a single datagram is ignored, such as the ICMP port unreachable of a peer that
    /// has left.
    pub fn receive(&mut self, mut each: impl FnMut(SocketAddr, Option<IpAddr>, Option<Mono>, &[u8])) {
        let mut datagrams = 0;
        for _ in 0..BATCHES_PER_TURN {
            let Ok(count) = self.receive_batch() else { return };
            self.passage.note_passed();
            let read = Moment::now();
            for (meta, buffer) in self.meta[..count].iter().zip(self.buffers.chunks(BUFFER)) {
                let from = canonical(meta.addr);
                let to = meta.dst_ip.map(|ip| ip.to_canonical());
                // quinn-udp has asked the kernel for it.
                let arrived = meta.timestamp.map(|at| read.mono_at(at));
                // The stride is zero only for an empty datagram, which carries nothing.
                for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    each(from, to, arrived, datagram);
                    datagrams += 1;
                }
            }
            if count < BATCH_SIZE || datagrams >= DATAGRAMS_PER_TURN {
                return;
            }
        }
    }

    /// A batch that is not full has emptied the socket. It then counts as unreadable until the kernel
    /// announces more, which saves a call that would only return `WouldBlock`.
    fn receive_batch(&mut self) -> io::Result<usize> {
        let mut chunks = self.buffers.chunks_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().expect("a buffer for each of the batch")));
        let mut received = Ok(0);
        let _ = self.socket.try_io(Interest::READABLE, || {
            received = self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut self.meta);
            let more = matches!(received, Ok(BATCH_SIZE));
            more.then_some(()).ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        received
    }

    /// Sends datagrams to one destination, with as few calls as the kernel allows. A datagram that the
    /// kernel does not take at once is lost, as any datagram may be: every layer above retransmits.
    pub fn send(&mut self, transmit: &Transmit) {
        let size = transmit.size.max(1);
        for run in transmit.bytes.chunks(size * self.state.max_gso_segments()) {
            self.send_run(transmit, run, size);
        }
    }

    fn send_run(&mut self, to: &Transmit, run: &[u8], size: usize) {
        let Err(error) = self.try_send(to, run, size) else { return self.passage.note_passed() };
        if run.len() > size && may_pass_singly(&error) {
            return run.chunks(size).for_each(|datagram| self.send_run(to, datagram, size));
        }
        if has_no_way(&error, to.from) {
            self.passage.note_stuck();
        }
        let lost = run.len().div_ceil(size) as u64;
        metrics::counter!("fleetgate_udp_send_errors_total").increment(lost);
        tracing::debug!(to = %to.to, %error, "datagrams were not sent");
    }

    fn try_send(&self, to: &Transmit, run: &[u8], size: usize) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: self.mapped(to.to),
            ecn: None,
            contents: run,
            segment_size: (run.len() > size).then_some(size),
            src_ip: to.from,
        };
        // Bypasses tokio, which calls a new socket unwritable until its reactor has turned. The first
        // datagrams after a start are those that bring the fleet back.
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }

    fn mapped(&self, to: SocketAddr) -> SocketAddr {
        match to {
            SocketAddr::V4(v4) if self.dual => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
            other => other,
        }
    }
}

/// Whether the kernel may still take the datagrams of a batch singly. It fragments a datagram that is larger
/// than the path takes, but refuses a batch of them (`EMSGSIZE`, older kernels `EINVAL`). Some network cards
/// take no batches (`EIO`).
fn may_pass_singly(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL | libc::EIO))
}

/// Whether there is no route, no link, or no longer the source address. IPv6 reports a missing source
/// address as an invalid argument.
fn has_no_way(error: &io::Error, from: Option<IpAddr>) -> bool {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL) => true,
        Some(libc::EINVAL) => from.is_some(),
        _ => false,
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(addr.ip().to_canonical(), v6.port())
        }
        other => other,
    }
}

/// Allows fragmentation, which quinn-udp forbids for its own path MTU discovery. A tunnel needs it:
/// without it, a device behind a link with an MTU below 1,500 bytes would receive only small packets.
fn allow_fragments(socket: &std::net::UdpSocket, dual: bool) {
    set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT);
    if dual {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT);
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0);
    }
}

/// Sets an option. A kernel that does not know it works without.
#[allow(unsafe_code, reason = "neither std nor socket2 has these options")]
fn set(socket: &std::net::UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the descriptor is open and `value` outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn v4_and_v6_come_and_go_through_one_socket() {
        let gate = bind("[::]:0".parse().unwrap()).unwrap();
        let port = gate.local_addr().unwrap().port();
        let mut udp = Udp::new(gate, SocketStats::default()).unwrap();
        for (own, gate) in
            [("127.0.0.1:0", format!("127.0.0.1:{port}")), ("[::1]:0", format!("[::1]:{port}"))]
        {
            let peer = std::net::UdpSocket::bind(own).unwrap();
            peer.send_to(b"hello", gate).unwrap();
            udp.readable().await.unwrap();
            let mut seen = Vec::new();
            udp.receive(|from, to, _, bytes| seen.push((from, to, bytes.to_vec())));
            assert_eq!(seen.len(), 1);
            assert_eq!(seen[0].0, peer.local_addr().unwrap());
            let reply = Transmit { to: seen[0].0, from: seen[0].1, size: 3, bytes: b"onetwo3".to_vec() };
            udp.send(&reply);
            let mut buf = [0; 16];
            for expected in [b"one".as_slice(), b"two", b"3"] {
                let (n, _) = peer.recv_from(&mut buf).unwrap();
                assert_eq!(&buf[..n], expected);
            }
        }
    }

    #[tokio::test]
    async fn the_time_in_the_socket_does_not_count() {
        const LAIN: Duration = Duration::from_millis(20);
        let gate = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = gate.local_addr().unwrap();
        let mut udp = Udp::new(gate, SocketStats::default()).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        // The kernel notes the times soon after the first socket has asked for them. Until then it tells that of the read.
        for _ in 0..50 {
            let sent = clock::now().mono;
            peer.send_to(b"hello", to).unwrap();
            udp.readable().await.unwrap();
            std::thread::sleep(LAIN);
            let mut arrivals = Vec::new();
            udp.receive(|_, _, arrived, _| arrivals.push(arrived.expect("the kernel tells it")));
            let [arrived] = arrivals[..] else { panic!("one datagram, not {arrivals:?}") };
            assert!(sent <= arrived + LAIN && arrived <= clock::now().mono);
            if clock::now().mono.since(arrived) >= LAIN {
                return;
            }
        }
        panic!("each datagram came when it was read");
    }

    #[tokio::test]
    async fn datagrams_that_the_path_fragments_arrive_in_a_batch_too() {
        let gate = bind("[::]:0".parse().unwrap()).unwrap();
        // As after an ICMPv6 error of a router, which a stranger can forge.
        set(&gate, libc::IPPROTO_IPV6, libc::IPV6_MTU, 1_280);
        let mut udp = Udp::new(gate, SocketStats::default()).unwrap();
        let peer = std::net::UdpSocket::bind("[::1]:0").unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut buf = [0; 2_048];
        // The first batch that is refused may end all batches: a second one goes the same way.
        for last in [3, 4] {
            let bytes = [vec![1; 1_312], vec![2; 1_312], vec![last; 800]].concat();
            udp.send(&Transmit { to: peer.local_addr().unwrap(), from: None, size: 1_312, bytes });
            for (first, len) in [(1, 1_312), (2, 1_312), (last, 800)] {
                let (n, _) = peer.recv_from(&mut buf).unwrap();
                assert_eq!((buf[0], n), (first, len));
            }
        }
    }

    #[tokio::test]
    async fn a_new_socket_sends_at_once() {
        let mut udp =
            Udp::new(bind("127.0.0.1:0".parse().unwrap()).unwrap(), SocketStats::default()).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        udp.send(&Transmit::one(peer.local_addr().unwrap(), None, vec![7]));
        assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 1);
    }

    #[tokio::test]
    async fn datagrams_without_a_route_are_told_from_sent_ones() {
        let passage = SocketStats::default();
        let mut udp = Udp::new(bind("[::]:0".parse().unwrap()).unwrap(), passage.clone()).unwrap();
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send(&Transmit::one(peer.local_addr().unwrap(), None, vec![7]));
        assert_eq!((passage.passed(), passage.stuck()), (1, 0));
        // As if the gateway had lost the addresses that its peers know.
        for (to, gone) in [("127.0.0.1:9", "198.51.100.7"), ("[::1]:9", "2001:db8::7")] {
            let from = Some(gone.parse().unwrap());
            udp.send(&Transmit::one(to.parse().unwrap(), from, vec![7]));
        }
        assert_eq!((passage.passed(), passage.stuck()), (1, 2));
    }

    #[test]
    fn a_busy_port_says_so() {
        let first = bind("[::]:0".parse().unwrap()).unwrap();
        let error = bind(first.local_addr().unwrap()).unwrap_err();
        assert!(format!("{error:#}").contains("in use"), "{error:#}");
    }
}

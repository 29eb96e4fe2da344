//! A WireGuard device in this process: plain boringtun, over a socket in a namespace.
//!
//! It answers the gateway's handshakes and echo requests, sends keepalives and counts what it
//! receives. It is cheap enough to run many; `lab::WireGuard` is a device as in the field.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use fleetgate_keys::conf::Conf;
use fleetgate_probes::packet;

/// How often boringtun's own timers are polled.
const TICK: Duration = Duration::from_millis(100);
/// Message type of data.
const DATA: u8 = 4;
/// Larger than any datagram of a tunnel.
const ROOM: usize = 2_048;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    heard: AtomicU64,
    echoes: AtomicU64,
}

/// A running device; it ends when dropped.
pub struct Device {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The inner addresses; the first of each family is the device's own.
    pub addresses: Vec<IpAddr>,
}

impl Device {
    /// Makes a handshake with the gateway and keeps running.
    pub fn start(conf: &Conf, socket: UdpSocket, gateway: SocketAddr) -> Device {
        let shared = Arc::new(Shared::default());
        let wire = Wire { tunn: tunn(conf), socket, gateway, shared: shared.clone() };
        let thread = std::thread::spawn(move || wire.run());
        let addresses = conf.addresses.iter().map(|net| net.addr()).collect();
        Device { shared, thread: Some(thread), addresses }
    }

    /// Data messages that opened, keepalives included.
    pub fn heard(&self) -> u64 {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// Echo requests that got a reply.
    pub fn echoes(&self) -> u64 {
        self.shared.echoes.load(Ordering::Relaxed)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn tunn(conf: &Conf) -> Tunn {
    let private = conf.private_key.as_ref().expect("a configuration with its private key");
    let psk = conf.psk.as_ref().map(|psk| *psk.as_bytes());
    Tunn::new((*private.as_bytes()).into(), (*conf.peer.as_bytes()).into(), psk, conf.keepalive, 1, None)
}

struct Wire {
    tunn: Tunn,
    socket: UdpSocket,
    gateway: SocketAddr,
    shared: Arc<Shared>,
}

impl Wire {
    fn run(mut self) {
        self.socket.set_read_timeout(Some(TICK)).expect("a time");
        let (mut datagram, mut room) = ([0; ROOM], [0; ROOM]);
        self.shake_hands(&mut room);
        let mut ticked = Instant::now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            if let Ok(len) = self.socket.recv(&mut datagram) {
                self.take(&datagram[..len], &mut room);
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                let due = self.tunn.update_timers(&mut room);
                self.send(&due);
            }
        }
    }

    fn shake_hands(&mut self, room: &mut [u8]) {
        let initiation = self.tunn.format_handshake_initiation(room, false);
        self.send(&initiation);
    }

    fn take(&mut self, datagram: &[u8], room: &mut [u8]) {
        let result = self.tunn.decapsulate(None, datagram, room);
        let opened = !matches!(result, TunnResult::Err(_));
        self.send(&result);
        let reply = match result {
            TunnResult::WriteToTunnelV4(bytes, _) | TunnResult::WriteToTunnelV6(bytes, _) => {
                packet::parse(bytes).ok().and_then(|asked| packet::answer_to_echo(&asked))
            }
            _ => None,
        };
        if opened && datagram.first() == Some(&DATA) {
            self.shared.heard.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reply) = reply {
            self.shared.echoes.fetch_add(1, Ordering::Relaxed);
            let sealed = self.tunn.encapsulate(&reply, room);
            self.send(&sealed);
        }
    }

    /// Sends a datagram. Those that the network refuses (the gateway is away) are lost, like any
    /// datagram.
    fn send(&self, result: &TunnResult<'_>) {
        if let TunnResult::WriteToNetwork(bytes) = result {
            let _ = self.socket.send_to(bytes, self.gateway);
        }
    }
}

//! One simulated device: a WireGuard client on a UDP socket, an IP stack, and its services.
//!
//! Each device is one task that sleeps until its next deadline. It can be switched off and on, lose its
//! address, and hang as real devices do.

use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::Poll;
use std::time::Duration;

use fleetgate_engine::time::Mono;
use fleetgate_keys::ssh_key::{SshKey, SshPublicKey};
use fleetgate_keys::{PresharedKey, PrivateKey, PublicKey};
use ipnet::IpNet;
use tokio::io::DuplexStream;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::link::{Link, MAX_DATAGRAM};
use super::sensors::{NoSensor, Sensors};
use super::sshd::Sshd;
pub use super::stack::Service;
use super::stack::{BUFFER, Stack};
use crate::clock;

/// Orders queued for a device.
const ORDERS: usize = 8;

/// The keys, addresses and services of a device.
pub struct DeviceSpec {
    pub private: PrivateKey,
    pub psk: Option<PresharedKey>,
    pub gateway: PublicKey,
    pub endpoint: SocketAddr,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the device. It replies for all their addresses.
    pub networks: Vec<IpNet>,
    pub keepalive: Option<Duration>,
    pub sensors: Sensors,
    pub ssh: Option<SshSpec>,
    /// Further TCP services by port.
    pub services: Vec<(u16, Service)>,
}

/// The SSH server of a device.
#[derive(Clone)]
pub struct SshSpec {
    pub port: u16,
    pub host_key: SshKey,
    pub user: String,
    /// The only authorized key: the gateway's.
    pub authorized: SshPublicKey,
}

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("the device has no UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error("the device's SSH server cannot use its keys: {0}")]
    Ssh(#[from] russh::keys::Error),
    #[error("the device's task has ended")]
    Gone,
}

/// A running device. Dropping it ends the device.
pub struct DeviceHandle {
    orders: mpsc::Sender<(Order, oneshot::Sender<Done>)>,
    sensors: Sensors,
    task: AbortOnDropHandle<()>,
}

enum Order {
    Off,
    On,
    Rebind,
    HangIp,
    /// The stream is the device's end of the pipe to the program that connects.
    Connect(SocketAddr, DuplexStream),
}

/// The local address after an order; `None` when the device is off.
type Done = Result<Option<SocketAddr>, std::io::Error>;

pub struct Device;

impl Device {
    /// Switches a device on.
    ///
    /// # Errors
    /// Fails when there is no socket for it, or when its keys are unusable.
    pub async fn start(spec: DeviceSpec) -> Result<DeviceHandle, DeviceError> {
        let sensors = spec.sensors.clone();
        let mut services = spec.services.clone();
        if let Some(ssh) = &spec.ssh {
            services.push((ssh.port, Sshd::new(ssh, sensors.clone())?.service()));
        }
        let (orders, inbox) = mpsc::channel(ORDERS);
        let powered = Some(Powered::on(&spec, &services).await?);
        let machine = Machine { spec, services, powered, orders: inbox };
        let task = AbortOnDropHandle::new(tokio::spawn(machine.run()));
        Ok(DeviceHandle { orders, sensors, task })
    }
}

impl DeviceHandle {
    /// Cuts the power: socket, session and connections vanish without notice.
    ///
    /// # Errors
    /// Fails when the device has ended.
    pub async fn off(&self) -> Result<(), DeviceError> {
        self.order(Order::Off).await.map(drop)
    }

    /// Boots a device that is off, from another port and with a new session. For a running device it only
    /// ends a hang.
    ///
    /// # Errors
    /// Fails when the device has ended or finds no socket.
    pub async fn on(&self) -> Result<(), DeviceError> {
        self.order(Order::On).await.map(drop)
    }

    /// Behaves as after a NAT has lost its mapping: the same session continues from another port. Returns
    /// the new local address.
    ///
    /// # Errors
    /// Fails when the device has ended or finds no socket.
    pub async fn rebind(&self) -> Result<Option<SocketAddr>, DeviceError> {
        self.order(Order::Rebind).await
    }

    /// Makes the IP stack hang: the tunnel stays up, but the device replies to nothing.
    ///
    /// # Errors
    /// Fails when the device has ended.
    pub async fn hang_ip(&self) -> Result<(), DeviceError> {
        self.order(Order::HangIp).await.map(drop)
    }

    /// Opens a TCP connection from the device. The stream ends when nothing answers, or the device is off.
    ///
    /// # Errors
    /// Fails when the device has ended.
    pub async fn connect(&self, to: SocketAddr) -> Result<DuplexStream, DeviceError> {
        let (program, device) = tokio::io::duplex(BUFFER);
        self.order(Order::Connect(to, device)).await?;
        Ok(program)
    }

    /// # Errors
    /// Fails when the device has no such sensor.
    pub fn set_sensor(&self, name: &str, value: f64) -> Result<(), NoSensor> {
        self.sensors.set(name, value)
    }

    /// Ends the device.
    pub async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    async fn order(&self, order: Order) -> Result<Option<SocketAddr>, DeviceError> {
        let (reply, done) = oneshot::channel();
        self.orders.send((order, reply)).await.map_err(|_| DeviceError::Gone)?;
        Ok(done.await.map_err(|_| DeviceError::Gone)??)
    }
}

struct Machine {
    spec: DeviceSpec,
    services: Vec<(u16, Service)>,
    powered: Option<Powered>,
    orders: mpsc::Receiver<(Order, oneshot::Sender<Done>)>,
}

impl Machine {
    async fn run(mut self) {
        loop {
            let order = match &mut self.powered {
                None => self.orders.recv().await,
                Some(powered) => powered.run(&mut self.orders).await,
            };
            let Some((order, reply)) = order else { return };
            let done = self.obey(order).await;
            let _ = reply.send(done);
        }
    }

    async fn obey(&mut self, order: Order) -> Done {
        match (order, &mut self.powered) {
            (Order::Off, _) => self.powered = None,
            (Order::On, Some(powered)) => powered.hung = false,
            (Order::On, None) => self.powered = Some(Powered::on(&self.spec, &self.services).await?),
            (Order::Rebind, Some(powered)) => powered.socket = bind(self.spec.endpoint).await?,
            (Order::HangIp, Some(powered)) => powered.hung = true,
            (Order::Connect(to, app), Some(powered)) => powered.stack.connect(to, app),
            (Order::Rebind | Order::HangIp | Order::Connect(..), None) => {}
        }
        self.powered.as_ref().map(|powered| powered.socket.local_addr()).transpose()
    }
}

/// The state of a device while it has power.
struct Powered {
    socket: UdpSocket,
    endpoint: SocketAddr,
    link: Link,
    stack: Stack,
    hung: bool,
    datagram: Box<[u8]>,
}

impl Powered {
    async fn on(spec: &DeviceSpec, services: &[(u16, Service)]) -> std::io::Result<Self> {
        let now = clock::now().mono;
        let socket = bind(spec.endpoint).await?;
        let mut link = Link::new(&spec.private, &spec.gateway, spec.psk.as_ref(), spec.keepalive, now);
        link.dial(now);
        Ok(Powered {
            socket,
            endpoint: spec.endpoint,
            link,
            stack: Stack::new(&spec.addresses, &spec.networks, services, random_u64(), now),
            hung: false,
            datagram: vec![0; MAX_DATAGRAM].into_boxed_slice(),
        })
    }

    /// Runs until the next order.
    async fn run<T>(&mut self, orders: &mut mpsc::Receiver<T>) -> Option<T> {
        loop {
            let deadline = self.turn().await;
            let wait = tokio::time::sleep(deadline.since(clock::now().mono));
            tokio::select! {
                biased;
                order = orders.recv() => return order,
                received = self.socket.recv_from(&mut self.datagram) => {
                    // An ICMP error of an earlier datagram: the gateway may not be running.
                    let Ok((len, from)) = received else { continue };
                    self.take(len, from);
                }
                () = wait => {}
                () = woken() => {}
            }
        }
    }

    fn take(&mut self, len: usize, from: SocketAddr) {
        if let Some(packet) = self.link.receive(&self.datagram[..len], from.ip())
            && !self.hung
        {
            self.stack.receive(packet);
        }
    }

    /// Does the work that is due and sends its results. Returns the next deadline.
    async fn turn(&mut self) -> Mono {
        let now = clock::now().mono;
        self.link.tick(now);
        if !self.hung {
            let stack = &mut self.stack;
            poll_fn(|cx| {
                stack.work(cx, now);
                Poll::Ready(())
            })
            .await;
            for packet in stack.take_packets() {
                self.link.send(&packet);
            }
        }
        for datagram in self.link.take_datagrams() {
            // As on any IP network, a datagram that does not fit is lost.
            let _ = self.socket.try_send_to(&datagram, self.endpoint);
        }
        let stack = if self.hung { None } else { self.stack.deadline(now) };
        stack.map_or(self.link.next_tick(), |at| at.min(self.link.next_tick()))
    }
}

/// Ready once the task is polled again: the stack registered the task with the pipe of every service,
/// and any of them may have woken it.
async fn woken() {
    let mut first = true;
    poll_fn(|_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) }).await;
}

async fn bind(endpoint: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: IpAddr = match endpoint {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    // `turn` uses `try_send_to`, which fails until the runtime has seen the socket writable once.
    socket.writable().await?;
    Ok(socket)
}

pub(super) fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u64::from_le_bytes(bytes)
}

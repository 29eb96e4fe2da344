//! A device at the front door whose every message is made by the test, a bystander, and the
//! gateway's counters of both.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use fleetgate_keys::conf::Conf;
use serde_json::Value;

use crate::attacker::{Initiator, Transport, handshake, receive, send, socket_in, stamp};
use crate::device::Device;
use crate::lab::{Gateway, Lab, eventually};
use crate::packets::udp;

/// Settings with frequent checks.
pub const SETTINGS: &str = r#"
endpoint = "10.77.0.2:51820"
keepalive = 2

[checks]
interval = 2
retry = 1
timeout = 1
ping_interval = 1
"#;

pub const PATIENCE: Duration = Duration::from_secs(30);
/// Long enough for a reply on a busy machine, short enough to wait for silence often.
pub const SILENCE: Duration = Duration::from_millis(700);
/// Counters of a device are published a second after they changed, at the next tick.
pub const PUBLISHED: Duration = Duration::from_millis(2_000);

/// The two address families, outside and inside the tunnel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    V4,
    V6,
}

pub use Family::{V4, V6};

impl Family {
    pub fn gateway(self) -> SocketAddr {
        let text = if self == V4 { "10.77.0.2:51820" } else { "[fd77:0::2]:51820" };
        text.parse().expect("an address")
    }

    pub fn inner_gateway(self) -> IpAddr {
        let text = if self == V4 { "10.112.0.1" } else { "fd72:6c65:6574::1" };
        text.parse().expect("an address")
    }

    pub fn address(self, net: u8) -> String {
        if self == V4 { format!("10.77.{net}.2") } else { format!("fd77:{net}::2") }
    }

    pub fn socket(self, lab: &Lab, name: &str) -> UdpSocket {
        socket_in(&lab.ns(name), if self == V4 { "0.0.0.0:0" } else { "[::]:0" })
    }

    /// Returns the device's own inner address.
    pub fn of(self, conf: &Conf) -> IpAddr {
        let own = conf.addresses.iter().map(|net| net.addr());
        own.into_iter().find(|ip| ip.is_ipv4() == (self == V4)).expect("both families")
    }
}

pub fn enrol(gateway: &Gateway<'_>, name: &str) -> Conf {
    Conf::parse(&gateway.cli(&["device", "add", name])).expect("a configuration")
}

pub fn tunnel(gateway: &Gateway<'_>, name: &str) -> Value {
    gateway.json(&["host", "show", name])["host"]["tunnel"].clone()
}

pub fn endpoint(gateway: &Gateway<'_>, name: &str) -> String {
    tunnel(gateway, name)["endpoint"].as_str().unwrap_or_default().to_owned()
}

pub fn dropped(gateway: &Gateway<'_>, name: &str, reason: &str) -> u64 {
    tunnel(gateway, name)["drops"][reason].as_u64().unwrap_or(0)
}

/// Asserts that the drops of this reason reach `count` and stay there.
pub fn drops_become(gateway: &Gateway<'_>, name: &str, reason: &str, count: u64) {
    eventually(&format!("{name}: {count} {reason}"), PATIENCE, || dropped(gateway, name, reason) >= count);
    sleep(PUBLISHED);
    assert_eq!(dropped(gateway, name, reason), count, "{name}: {reason}");
}

pub fn data(datagram: &[u8]) -> Option<()> {
    (datagram.first() == Some(&4)).then_some(())
}

/// A bystander: a device with a tunnel that is not part of the attack.
pub struct Bystander {
    device: Device,
}

impl Bystander {
    pub fn start(lab: &Lab, gateway: &Gateway<'_>) -> Bystander {
        let conf = enrol(gateway, "bystander");
        let device = Device::start(&conf, V4.socket(lab, "d2"), V4.gateway());
        let bystander = Bystander { device };
        bystander.is_fine();
        bystander
    }

    /// Asserts that the gateway's pings still reach it.
    pub fn is_fine(&self) {
        let before = self.device.echoes();
        eventually("the bystander is pinged", PATIENCE, || self.device.echoes() > before + 1);
    }
}

/// A device whose every message is made by the test.
pub struct Hand {
    pub socket: UdpSocket,
    pub us: Initiator,
    pub transport: Transport,
    pub family: Family,
    pub own: IpAddr,
    /// The first message, as an eavesdropper would have captured it.
    pub initiation: Vec<u8>,
}

impl Hand {
    pub fn connect(lab: &Lab, conf: &Conf, family: Family) -> Hand {
        Hand::connect_at(lab, conf, family, stamp(0))
    }

    pub fn connect_at(lab: &Lab, conf: &Conf, family: Family, stamp: [u8; 12]) -> Hand {
        let socket = family.socket(lab, "d1");
        let us = Initiator::device(conf);
        let mut initiation = us.initiation(stamp, 0x00de_71ce);
        let transport = handshake(&socket, &mut initiation, family.gateway()).expect("a session");
        Hand { socket, us, transport, family, own: family.of(conf), initiation: initiation.bytes }
    }

    pub fn port(&self) -> u16 {
        self.socket.local_addr().expect("bound").port()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.family.address(1).parse().expect("an address"), self.port())
    }

    /// Makes a packet that the gateway opens and counts.
    pub fn counted(&mut self) -> Vec<u8> {
        let packet = udp(self.own, self.family.inner_gateway(), 9, b"count me");
        self.transport.seal(&packet)
    }

    pub fn send(&mut self, packet: &[u8]) {
        let sealed = self.transport.seal(packet);
        send(&self.socket, &sealed, self.family.gateway());
    }

    pub fn send_counted(&mut self) {
        let sealed = self.counted();
        send(&self.socket, &sealed, self.family.gateway());
    }

    /// Returns the next inner packet that is not empty.
    pub fn hears(&self, patience: Duration) -> Option<Vec<u8>> {
        let opened = |datagram: &[u8]| self.transport.open(datagram).filter(|packet| !packet.is_empty());
        receive(&self.socket, patience, opened)
    }
}

//! A person with a WireGuard client of the own: a whole gateway that forwards packets to a device.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use fleetgate_keys::PrivateKey;
use fleetgate_probes::packet::echo_request;
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use super::connect::Site;
use crate::clock;
use crate::demo::link::{Link, MAX_DATAGRAM};
use crate::store::{Store, forwarded};

/// More than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// After this time a ping is repeated.
const LOST: Duration = Duration::from_millis(500);

struct Laptop {
    link: Link,
    socket: UdpSocket,
    gateway: SocketAddr,
    own: IpAddr,
    device: IpAddr,
    sent: u16,
}

impl Laptop {
    async fn of_anna(site: &Site) -> Laptop {
        let private = PrivateKey::generate();
        let user = json!({ "name": "anna", "role": "operator", "password": "correct horse battery" });
        site.call("POST", "/users", user).await;
        let operator =
            json!({ "name": "anna-laptop", "user": "anna", "public_key": private.public().to_string() });
        let made = site.call("POST", "/operators", operator).await;
        let device = site.call("GET", "/devices/cam-07", Value::Null).await;
        let psk = made["credentials"]["preshared_key"].as_str().map(|key| key.parse().unwrap());
        let gateway = site.server().identity.wireguard.public();
        let keepalive = Some(Duration::from_secs(5));
        Laptop {
            link: Link::new(&private, &gateway, psk.as_ref(), keepalive, clock::now().mono),
            socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(),
            gateway: ([127, 0, 0, 1], site.server().udp_port).into(),
            own: v4(&made["operator"]["addresses"]),
            device: v4(&device["tunnel"]["addresses"]),
            sent: 0,
        }
    }

    /// Pings the device until it replies. Returns the time of the successful ping.
    async fn ping(&mut self) -> Duration {
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < PATIENCE, "the device is not reached");
            self.sent += 1;
            let sent_at = Instant::now();
            self.link.send(&echo_request(self.own, self.device, 7, self.sent, &[0; 16]).unwrap());
            self.flush().await;
            if tokio::time::timeout(LOST, self.reply()).await.is_ok() {
                return sent_at.elapsed();
            }
        }
    }

    async fn reply(&mut self) {
        let mut datagram = vec![0; MAX_DATAGRAM];
        loop {
            let (len, from) = self.socket.recv_from(&mut datagram).await.unwrap();
            let packet = self.link.receive(&datagram[..len], from.ip());
            self.flush().await;
            // The sequence number stands in the last two bytes of an echo's header.
            let sequence = packet.as_ref().and_then(|packet| packet.get(26..28));
            if sequence == Some(&self.sent.to_be_bytes()) {
                return;
            }
        }
    }

    async fn flush(&mut self) {
        self.link.tick(clock::now().mono);
        for datagram in self.link.take_datagrams() {
            self.socket.send_to(&datagram, self.gateway).await.unwrap();
        }
    }
}

fn v4(addresses: &Value) -> IpAddr {
    let mut all =
        addresses.as_array().unwrap().iter().map(|a| a.as_str().unwrap().parse::<IpAddr>().unwrap());
    all.find(IpAddr::is_ipv4).expect("an IPv4 address")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_sent_is_kept_when_the_gateway_stops() {
    let mut site = Site::new().await;
    let mut laptop = Laptop::of_anna(&site).await;
    laptop.ping().await;
    // The flow lives on, so that only the stop records it.
    let server = site.server.take().unwrap();
    let seal = server.identity.seal_key();
    server.stop().await;
    let store = Store::open(site.dir.path(), seal).await.unwrap();
    let rows = forwarded::newest(&mut store.reader().await.unwrap(), forwarded::Filter::default(), 10)
        .await
        .unwrap();
    let [row] = &rows[..] else { panic!("one flow is expected: {rows:?}") };
    assert_eq!((row.source_name.as_deref(), row.user_name.as_deref()), (Some("anna-laptop"), Some("anna")));
    assert_eq!((row.host_name.as_deref(), row.protocol.as_str()), (Some("cam-07"), "icmp"));
    assert!(row.sent.bytes >= 44 && row.received.bytes >= 44, "{row:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_of_a_connected_person_do_not_wait_for_others() {
    let site = Site::new().await;
    let mut laptop = Laptop::of_anna(&site).await;
    laptop.ping().await;
    let mut times = Vec::new();
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        times.push(laptop.ping().await);
    }
    times.sort();
    // While it rests, the tunnel thread reads the socket every 50 ms, and a reply comes right after a read.
    assert!(times[times.len() / 2] < Duration::from_millis(25), "{times:?}");
}

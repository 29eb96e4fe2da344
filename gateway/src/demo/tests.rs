//! Devices against the gateway's own tunnel: the engine, its driver, streams and SSH client, over UDP
//! on loopback.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::messages::{
    Command, CommandEnd, ConnectFailure, DEFAULT_MTU, EchoReply, Evidence, HostKey, KeyType, LoginRefusal,
    PeerKey, PeerKind, PeerSnapshot, PeerSpec, Probe, ProbeId, ProbeReply, ProbeRequest, RemoteCommand,
    Route, SshFailure, SshReply, SshRun, TunnelEvent,
};
use fleetgate_engine::tunnel::noise::BoringNoise;
use fleetgate_engine::tunnel::{Config, Tunnel};
use fleetgate_keys::ssh_key::SshKey;
use fleetgate_keys::{PrivateKey, PublicKey};
use fleetgate_probes::sensors::{Sensor, parse, script};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::control::{Control, Order, send};
use super::device::{Device, DeviceHandle, DeviceSpec, Service, SshSpec};
use super::fleet::{DemoFleet, Gateway, Member, recruit};
use super::past::world::World;
use super::sensors::Sensors;
use crate::monitor::ssh::{Limits, SessionKey, SshClient};
use crate::tunnel::stream::Streams;
use crate::tunnel::thread;
use crate::tunnel::thread::{Inbox, TunnelOutputs};
use crate::tunnel::udp;
use crate::tunnel::udp::SocketStats;

/// More than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
const PING: Duration = Duration::from_secs(2);

/// A gateway's data plane, and its SSH client.
struct Lab {
    key: PrivateKey,
    ssh_key: SshKey,
    endpoint: SocketAddr,
    asks: mpsc::UnboundedSender<Command>,
    answers: mpsc::UnboundedReceiver<(ProbeId, ProbeReply)>,
    news: mpsc::UnboundedReceiver<TunnelEvent>,
    streams: Streams,
    ssh: SshClient,
    next: u64,
    /// The API's end, which must not appear closed.
    _commands: mpsc::Sender<Command>,
    _stop: DropGuard,
}

impl Lab {
    fn new() -> Lab {
        let (key, ssh_key) = (PrivateKey::generate(), SshKey::generate("gateway"));
        let socket = udp::bind("127.0.0.1:0".parse().expect("an address")).expect("binds");
        let endpoint = socket.local_addr().expect("bound");
        let pools = Config {
            pool_v4: "10.112.0.0/14".parse().expect("a prefix"),
            pool_v6: "fd72::/64".parse().expect("a prefix"),
            results_port: None,
        };
        let tunnel = Tunnel::new(pools, BoringNoise::new(&key, [1; 32]), [2; 32]);
        let (asks, asked) = mpsc::unbounded_channel();
        let (commands_open, commands) = mpsc::channel(1);
        let (answer, answers) = mpsc::unbounded_channel();
        let (tell, news) = mpsc::unbounded_channel();
        let (streams, _) = Streams::new(asks.clone());
        let mouths = TunnelOutputs {
            answer: Box::new(move |id, said| drop(answer.send((id, said)))),
            news: Box::new(move |said| drop(tell.send(said))),
            explanations: Box::new(|_, _| {}),
            forward_probes: Box::new(|_, _| {}),
            flows: Box::new(|_| {}),
            dns_answers: Box::new(|_, _| {}),
            dns_forwards: Box::new(|_, _| {}),
            streams: streams.clone(),
            passage: SocketStats::default(),
        };
        let stop = CancellationToken::new();
        thread::start(tunnel, socket, Inbox { commands, asks: asked }, mouths, stop.clone()).expect("starts");
        let ssh = SshClient::new(&ssh_key.to_openssh(), Limits::default()).expect("a key");
        let (_stop, _commands) = (stop.drop_guard(), commands_open);
        Lab { key, ssh_key, endpoint, asks, answers, news, streams, ssh, next: 0, _commands, _stop }
    }

    fn enrol(&self, id: PeerId, key: PublicKey, addresses: &[IpAddr]) {
        let spec = PeerSpec {
            id,
            kind: PeerKind::Device,
            keys: vec![PeerKey { public: key, psk: None }],
            addresses: addresses.to_vec(),
            networks: Vec::new(),
            mtu: DEFAULT_MTU,
        };
        let upsert = Command::Upsert(Box::new(spec), PeerSnapshot::default());
        self.asks.send(upsert).expect("the driver runs");
    }

    async fn ask(&mut self, probe: Probe, timeout: Duration) -> ProbeReply {
        self.next += 1;
        let id = ProbeId(self.next);
        let ask = ProbeRequest { id, host: HostId::from_i64(1), probe, timeout };
        self.asks.send(Command::ProbeRequest(ask)).expect("the driver runs");
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await;
        let (answered, answer) = answer.expect("in time").expect("the driver runs");
        assert_eq!(answered, id);
        answer
    }

    /// Waits until the enrolments are loaded, so that no first handshake comes too early.
    async fn settle(&mut self) {
        self.evidence(peer()).await;
    }

    async fn echo(&mut self, peer: PeerId, address: IpAddr) -> EchoReply {
        match self.ask(Probe::Echo { peer, address, count: 2 }, PING).await {
            ProbeReply::Echo(echo) => echo,
            other => panic!("{other:?}"),
        }
    }

    /// Packets sent during the handshake are lost, as on any network; the later ones get a reply.
    async fn answers_again(&mut self) -> bool {
        for _ in 0..10 {
            if self.echo(peer(), inner_v4()).await.rtts.len() == 2 {
                return true;
            }
        }
        false
    }

    async fn connect(&mut self, peer: PeerId, address: IpAddr, port: u16) -> ProbeReply {
        let route = Route::Tunnel { peer, address };
        self.ask(Probe::Connect { route, port }, PATIENCE).await
    }

    async fn evidence(&mut self, peer: PeerId) -> Evidence {
        match self.ask(Probe::Evidence { peer }, PING).await {
            ProbeReply::Evidence(evidence) => evidence,
            ProbeReply::Refused(_) => Evidence::default(),
            other => panic!("{other:?}"),
        }
    }

    async fn news_until<T>(&mut self, mut wanted: impl FnMut(TunnelEvent) -> Option<T>) -> T {
        let search = async {
            loop {
                let news = self.news.recv().await.expect("the driver runs");
                if let Some(found) = wanted(news) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("in time")
    }

    async fn log_in(&self, peer: PeerId, to: SocketAddr, run: SshRun) -> SshReply {
        let route = Route::Tunnel { peer, address: to.ip() };
        let key = SessionKey { host: peer, route, port: to.port() };
        self.ssh.run(key, || self.streams.connect(peer, to, PATIENCE), run, PATIENCE).await
    }
}

fn peer() -> PeerId {
    Id::from_i64(7)
}

fn inner_v4() -> IpAddr {
    Ipv4Addr::new(172, 24, 0, 7).into()
}

fn inner_v6() -> IpAddr {
    Ipv6Addr::new(0xfd72, 0, 0, 0, 0, 0, 0, 7).into()
}

/// Sends back what it receives.
fn echo_service() -> Service {
    Arc::new(|mut stream| {
        tokio::spawn(async move {
            let mut buf = vec![0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buf).await {
                if stream.write_all(&buf[..n]).await.is_err() {
                    return;
                }
            }
        });
    })
}

fn spec(lab: &Lab) -> DeviceSpec {
    DeviceSpec {
        private: PrivateKey::generate(),
        psk: None,
        gateway: lab.key.public(),
        endpoint: lab.endpoint,
        addresses: vec![inner_v4(), inner_v6()],
        networks: Vec::new(),
        keepalive: Some(Duration::from_secs(1)),
        sensors: Sensors::default(),
        ssh: Some(SshSpec {
            port: 22,
            host_key: SshKey::generate("device"),
            user: "watch".to_owned(),
            authorized: lab.ssh_key.public(),
        }),
        services: vec![(7, echo_service())],
    }
}

/// Starts an enrolled device, and waits for its first handshake.
async fn enrolled(lab: &mut Lab, spec: DeviceSpec) -> DeviceHandle {
    lab.enrol(peer(), spec.private.public(), &spec.addresses);
    lab.settle().await;
    let device = Device::start(spec).await.expect("starts");
    lab.news_until(|news| matches!(news, TunnelEvent::FirstHandshake(id) if id == peer()).then_some(()))
        .await;
    device
}

fn asking(sensors: &[(String, Sensor)], pin: Option<HostKey>) -> SshRun {
    let line = script(sensors, PATIENCE);
    let command = RemoteCommand { name: "sensors".to_owned(), line, timeout: PATIENCE, bounded: true };
    let learn = pin.is_none();
    SshRun { pin, learn, user: Some("watch".to_owned()), commands: vec![command] }
}

#[tokio::test]
async fn a_device_answers_echo_and_tcp_across_its_tunnel() {
    let mut lab = Lab::new();
    let spec = spec(&lab);
    let _device = enrolled(&mut lab, spec).await;
    for address in [inner_v4(), inner_v6()] {
        let echo = lab.echo(peer(), address).await;
        assert_eq!((echo.sent, echo.rtts.len(), echo.failure), (2, 2, None), "{address}");
        assert!(matches!(lab.connect(peer(), address, 22).await, ProbeReply::Connect(Ok(_))));
        let closed = lab.connect(peer(), address, 23).await;
        assert_eq!(closed, ProbeReply::Connect(Err(ConnectFailure::Refused)));
    }
}

#[tokio::test]
async fn a_stream_through_the_tunnel_loses_nothing_and_ends_in_order() {
    let mut lab = Lab::new();
    let spec = spec(&lab);
    let _device = enrolled(&mut lab, spec).await;
    let to = SocketAddr::new(inner_v6(), 7);
    let stream = lab.streams.connect(peer(), to, PATIENCE).await.expect("connects");
    let (mut read, mut write) = tokio::io::split(stream);
    let sent: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    let writing = async {
        write.write_all(&sent).await.expect("takes all");
        write.shutdown().await.expect("ends");
    };
    let mut back = Vec::new();
    let both = async { tokio::join!(writing, read.read_to_end(&mut back)).1.expect("comes back") };
    tokio::time::timeout(PATIENCE, both).await.expect("in time");
    assert!(back == sent, "{} bytes of {}", back.len(), sent.len());
}

#[tokio::test]
async fn the_sensor_script_is_answered_over_ssh_with_what_the_sensors_say() {
    let mut lab = Lab::new();
    let spec = spec(&lab);
    let fingerprint = spec.ssh.as_ref().expect("has one").host_key.public().fingerprint();
    let pin = HostKey { fingerprint, key_type: Some(KeyType::Ed25519), line: None };
    let device = enrolled(&mut lab, spec).await;
    device.set_sensor("temperature", 81.5).expect("has one");
    let sensors = [("hot".to_owned(), Sensor::Temperature { name: None })];
    let to = SocketAddr::new(inner_v4(), 22);
    let answer = lab.log_in(peer(), to, asking(&sensors, None)).await;
    assert_eq!((&answer.failure, answer.host_key.as_ref()), (&None, Some(&pin)));
    assert_eq!(answer.commands[0].end, CommandEnd::Exit(0));
    let readings = parse(&answer.commands[0].stdout).expect("an answer");
    assert_eq!(readings[0].1.values[0].value, 81_500.0);
    let again = lab.log_in(peer(), to, asking(&sensors, Some(pin))).await;
    assert!(again.reused && again.failure.is_none());
}

#[tokio::test]
async fn a_device_lets_in_no_other_key_or_user() {
    let mut lab = Lab::new();
    let mut strict = spec(&lab);
    strict.ssh.as_mut().expect("has one").authorized = SshKey::generate("other").public();
    let _device = enrolled(&mut lab, strict).await;
    let to = SocketAddr::new(inner_v4(), 22);
    let answer = lab.log_in(peer(), to, asking(&[], None)).await;
    assert_eq!(
        answer.failure,
        Some(SshFailure::LoginRefused { user: "watch".to_owned(), why: LoginRefusal::Key })
    );
}

#[tokio::test]
async fn a_device_without_power_is_silent_and_comes_back() {
    let mut lab = Lab::new();
    let spec = spec(&lab);
    let device = enrolled(&mut lab, spec).await;
    device.off().await.expect("obeys");
    assert!(lab.echo(peer(), inner_v4()).await.rtts.is_empty());
    device.on().await.expect("obeys");
    assert!(lab.answers_again().await, "it comes back");
}

#[tokio::test]
async fn a_hanging_device_keeps_its_tunnel_alive_and_answers_nothing() {
    let mut lab = Lab::new();
    let spec = spec(&lab);
    let device = enrolled(&mut lab, spec).await;
    device.hang_ip().await.expect("obeys");
    let before = lab.evidence(peer()).await.last_packet;
    assert!(lab.echo(peer(), inner_v4()).await.rtts.is_empty());
    tokio::time::sleep(PING).await;
    assert!(lab.evidence(peer()).await.last_packet > before, "keepalives go on");
    device.on().await.expect("obeys");
    assert_eq!(lab.echo(peer(), inner_v4()).await.rtts.len(), 2);
}

#[tokio::test]
async fn a_device_behind_a_forgetful_nat_is_followed() {
    let mut lab = Lab::new();
    let spec = spec(&lab);
    let device = enrolled(&mut lab, spec).await;
    let port = device.rebind().await.expect("obeys").expect("has power").port();
    lab.news_until(|news| match news {
        TunnelEvent::Endpoint(id, at) => (id == peer() && at.port() == port).then_some(()),
        _ => None,
    })
    .await;
    assert_eq!(lab.echo(peer(), inner_v4()).await.rtts.len(), 2);
}

/// Starts the whole fleet of the demo, enrolled by hand.
async fn fleet(lab: &mut Lab) -> (DemoFleet, BTreeMap<&'static str, SocketAddr>) {
    let recruits = recruit(&[5; 32]).await.expect("finds ports");
    let mut members = Vec::new();
    let mut direct = BTreeMap::new();
    for (n, recruit) in recruits.into_iter().enumerate() {
        let address = IpAddr::from([172, 24, 1, u8::try_from(n).expect("25")]);
        match recruit.direct() {
            Some(at) => drop(direct.insert(recruit.planned.name, at)),
            None => lab.enrol(Id::from_i64(n as i64), recruit.public_key(), &[address]),
        }
        members.push(Member { recruit, addresses: vec![address], psk: None });
    }
    let gateway =
        Gateway { endpoint: lab.endpoint, public_key: lab.key.public(), ssh_key: lab.ssh_key.public() };
    let world = Arc::new(World::new(crate::clock::wall()));
    (DemoFleet::start(&gateway, &world, members).await.expect("starts"), direct)
}

#[tokio::test]
async fn the_fleet_dials_in_and_obeys_orders_from_another_terminal() {
    let mut lab = Lab::new();
    let (fleet, direct) = fleet(&mut lab).await;
    let mut up = std::collections::BTreeSet::new();
    lab.news_until(|news| {
        if let TunnelEvent::FirstHandshake(id) = news {
            up.insert(id);
        }
        (up.len() == 23).then_some(())
    })
    .await;
    let data = tempfile::tempdir().expect("a folder");
    let _control = Control::serve(data.path(), Arc::new(fleet)).expect("listens");
    let names = send(data.path(), &Order::List).await.expect("obeys");
    assert_eq!(names.split(' ').count(), 25);
    let public = direct["cam-19"];
    assert!(tokio::net::TcpStream::connect(public).await.is_ok());
    send(data.path(), &Order::Off("cam-19".to_owned())).await.expect("obeys");
    assert!(tokio::net::TcpStream::connect(public).await.is_err());
    send(data.path(), &Order::On("cam-19".to_owned())).await.expect("obeys");
    assert!(tokio::net::TcpStream::connect(public).await.is_ok());
    let nobody = send(data.path(), &Order::Off("cam-99".to_owned())).await;
    assert!(nobody.expect_err("no such device").to_string().contains("cam-99"));
}

#[tokio::test]
async fn the_rental_unit_goes_once_it_has_passed() {
    let mut lab = Lab::new();
    let (fleet, direct) = fleet(&mut lab).await;
    let looks = std::sync::atomic::AtomicU32::new(0);
    let passed = || async { looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= 1 };
    super::rental::reconfigure(&fleet, "cam-20", passed).await.expect("it is there");
    assert_eq!(looks.into_inner(), 2);
    assert!(tokio::net::TcpStream::connect(direct["cam-20"]).await.is_err());
}

//! ICMP checks through the tunnel up to stored states: the whole program in this process, from the
//! UDP socket to the databases, against simulated devices. The CPU time of the devices is excluded.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fleetgate_keys::conf::Conf;
use fleetgate_probes::packet::{answer_to_echo, parse};
use reqwest::Method;
use serde_json::{Value, json};

use super::program::Program;
use super::{named_thread_cpu, process_cpu, report};
use crate::attacker::{Initiator, Transport, handshake, stamp};

const DEVICES: u32 = 1_600;
/// Interval of every `ping` with one echo request each, about 5,000 a second over all devices in
/// practice. With a shorter interval they queue behind the devices on two cores, and a late reply
/// gives no result.
const INTERVAL_S: f64 = 0.25;
/// Each site is a thread with a socket on its own address, because the gateway accepts 500
/// handshakes at once from each address.
const SITES: u32 = 4;
const WARM_UP: Duration = Duration::from_secs(5);
/// Shorter than the time until the sessions of the first devices are renewed.
const MEASURED: Duration = Duration::from_secs(20);
/// Longer than the writer collects results before it commits them.
const COMMITTED: Duration = Duration::from_secs(3);
const THREAD: &str = "devices";
/// The device whose replies are compared with the history.
const SAMPLED: u32 = DEVICES / 2;

/// # Errors
/// Fails when the program does not start or refuses a request.
pub fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let gate = runtime.block_on(Gate::start())?;
    let enrolling = Instant::now();
    let devices = runtime.block_on(gate.enrol())?;
    let each = enrolling.elapsed() / DEVICES;
    report("adding a device over the API, and its override", &format!("{:.1} ms", millis(each)), "-");
    let fleet = Fleet::start(devices, gate.address);
    std::thread::sleep(WARM_UP);
    let spent = fleet.measure();
    spent.report();
    let seconds = fleet.stop();
    std::thread::sleep(COMMITTED);
    runtime.block_on(gate.has_stored(SAMPLED, seconds[SAMPLED as usize]))?;
    runtime.block_on(gate.program.server.stop());
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

struct Gate {
    program: Program,
    address: SocketAddr,
}

impl Gate {
    async fn start() -> anyhow::Result<Gate> {
        let program = Program::start().await?;
        let address = SocketAddr::from(([127, 0, 0, 1], program.server.udp_port));
        Ok(Gate { program, address })
    }

    async fn enrol(&self) -> anyhow::Result<Vec<Initiator>> {
        let ping = json!({
            "check": { "type": "ping", "count": 1 },
            "interval_s": INTERVAL_S,
            "retry_s": INTERVAL_S,
            "timeout_s": INTERVAL_S * 0.8,
        });
        let mut devices = Vec::new();
        for n in 0..DEVICES {
            let made = self.program.call(Method::POST, "/devices", &json!({ "name": name(n) })).await?;
            let conf = made["credentials"]["conf"].as_str().context("a configuration")?;
            devices.push(Initiator::device(&Conf::parse(conf)?));
            self.program.call(Method::PUT, &format!("/hosts/{}/services/ping", name(n)), &ping).await?;
        }
        Ok(devices)
    }

    /// Checks that the replies of a device are in the history, which keeps the last of each second.
    async fn has_stored(&self, device: u32, seconds: u64) -> anyhow::Result<()> {
        let path = format!("/hosts/{}/services/ping/metrics/rta?limit=1000", name(device));
        let samples = self.program.call(Method::GET, &path, &Value::Null).await?;
        let stored = samples["points"].as_array().context("samples")?.len();
        report("seconds with a reply of one device in the history", &format!("{stored} of {seconds}"), "-");
        ensure!(
            stored as f64 > 0.9 * seconds as f64,
            "{stored} seconds are stored of {seconds} in which a device sent a reply"
        );
        Ok(())
    }
}

fn name(n: u32) -> String {
    format!("d-{n}")
}

struct Fleet {
    stop: Arc<AtomicBool>,
    /// The replies of each device.
    replies: Arc<[AtomicU64]>,
    /// The seconds in which each device sent a reply.
    seconds: Arc<[AtomicU64]>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    fn start(devices: Vec<Initiator>, gateway: SocketAddr) -> Fleet {
        let stop = Arc::new(AtomicBool::new(false));
        let zeroes = || devices.iter().map(|_| AtomicU64::new(0)).collect();
        let mut fleet =
            Fleet { stop: stop.clone(), replies: zeroes(), seconds: zeroes(), threads: Vec::new() };
        let (ready, wait) = std::sync::mpsc::channel();
        for (at, devices) in devices.chunks((DEVICES / SITES) as usize).enumerate() {
            let socket = UdpSocket::bind(format!("127.0.9.{}:0", at + 1)).expect("a loopback address");
            let (devices, ready) = (devices.to_vec(), ready.clone());
            let (stop, replies, seconds) = (stop.clone(), fleet.replies.clone(), fleet.seconds.clone());
            let first = at * (DEVICES / SITES) as usize;
            let thread = std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
                let mut site = Site::connect(socket, &devices, gateway);
                ready.send(()).expect("somebody waits");
                let mut last = vec![0; devices.len()];
                while !stop.load(Ordering::Relaxed) {
                    if let Some(device) = site.answer_one() {
                        replies[first + device].fetch_add(1, Ordering::Relaxed);
                        let second = fleetgate::clock::wall().as_millis().div_euclid(1_000);
                        if last[device] != second {
                            last[device] = second;
                            seconds[first + device].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
            fleet.threads.push(thread.expect("a thread"));
        }
        (0..SITES).for_each(|_| wait.recv().expect("every site connects"));
        fleet
    }

    fn replies(&self) -> u64 {
        self.replies.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn measure(&self) -> Spent {
        let now = || (process_cpu(), THREADS.map(named_thread_cpu), self.replies());
        let (all, parts, checks) = now();
        std::thread::sleep(MEASURED);
        let (all_then, parts_then, checks_then) = now();
        let mut parts_spent = [Duration::ZERO; 3];
        for (at, spent) in parts_spent.iter_mut().enumerate() {
            *spent = parts_then[at] - parts[at];
        }
        Spent { all: all_then - all, parts: parts_spent, checks: checks_then - checks }
    }

    /// Stops the devices; returns the number of seconds in which each of them sent a reply.
    fn stop(mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.seconds.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

const THREADS: [&str; 3] = [THREAD, "tunnel", "monitor"];

struct Spent {
    all: Duration,
    /// In the order of `THREADS`.
    parts: [Duration; 3],
    checks: u64,
}

impl Spent {
    fn report(&self) {
        let [devices, tunnel, monitor] = self.parts;
        let program = self.all - devices;
        let per_check = |time: Duration| time.as_secs_f64() * 1e6 / self.checks as f64;
        let rate = self.checks as f64 / MEASURED.as_secs_f64();
        let figure = format!("{:.0}", self.checks as f64 / program.as_secs_f64());
        report("in-tunnel ICMP checks per CPU second, stored", &figure, "15,000");
        let rest = program - tunnel - monitor;
        for (what, figure) in [
            ("  checks a second meanwhile", format!("{rate:.0}")),
            ("  CPU per check: tunnel", format!("{:.1} us", per_check(tunnel))),
            ("  CPU per check: monitor", format!("{:.1} us", per_check(monitor))),
            ("  CPU per check: writer, databases, the rest", format!("{:.1} us", per_check(rest))),
        ] {
            report(what, &figure, "");
        }
    }
}

/// Devices behind one socket, distinguished by the receiver index.
struct Site {
    socket: UdpSocket,
    gateway: SocketAddr,
    sessions: Vec<Transport>,
    room: Vec<u8>,
}

impl Site {
    fn connect(socket: UdpSocket, devices: &[Initiator], gateway: SocketAddr) -> Site {
        let session = |(n, device): (usize, &Initiator)| {
            let mut initiation = device.initiation(stamp(0), n as u32);
            handshake(&socket, &mut initiation, gateway).expect("a session")
        };
        let sessions = devices.iter().enumerate().map(session).collect();
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
        Site { socket, gateway, sessions, room: vec![0; 2_048] }
    }

    /// Returns the device that got an echo request and sent its reply.
    fn answer_one(&mut self) -> Option<usize> {
        let len = self.socket.recv(&mut self.room).ok()?;
        let (device, reply) = self.reply(len)?;
        self.socket.send_to(&reply, self.gateway).ok()?;
        Some(device)
    }

    fn reply(&mut self, len: usize) -> Option<(usize, Vec<u8>)> {
        let datagram = &self.room[..len];
        let device = u32::from_le_bytes(datagram.get(4..8)?.try_into().ok()?) as usize;
        let session = self.sessions.get_mut(device)?;
        let packet = session.open(datagram)?;
        let reply = answer_to_echo(&parse(&packet).ok()?)?;
        Some((device, session.seal(&reply)))
    }
}

//! 5,000 sessions with keepalives and timers only: the share of a core that the tunnel's thread
//! takes, with its socket and its system calls.

use std::net::{SocketAddr, UdpSocket};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use fleetgate_keys::PrivateKey;

use super::tunnel_thread::TunnelThread;
use super::{Gate, cpu_of, home, report, spec};
use crate::attacker::{Initiator, Transport, handshake, send, stamp};

const SESSIONS: u32 = 5_000;
/// The keepalive interval of devices behind a NAT.
const KEEPALIVE_S: u32 = 25;
/// A quarter of the time between two handshakes, so that none falls into it.
const MEASURED: Duration = Duration::from_secs(30);
/// The same for the engine alone, in virtual time.
const ENGINE_S: u32 = 60;
/// Source addresses of the devices, because the gateway accepts 500 handshakes at once from each.
const SOURCES: u32 = 50;

/// # Errors
/// Fails when the gateway's socket or thread cannot be made.
pub fn run() -> anyhow::Result<()> {
    let private = PrivateKey::generate();
    let devices: Vec<Initiator> = (0..SESSIONS).map(|_| Initiator::stranger(&private.public())).collect();
    let specs = devices.iter().enumerate().map(|(n, device)| spec(n as u32, device.public()));
    let gate = TunnelThread::start(&private, specs)?;
    let mut fleet = Fleet::connect(&devices, gate.address);
    let busy = gate.cpu_while(|| fleet.idle(MEASURED));
    let share = 100.0 * busy.as_secs_f64() / MEASURED.as_secs_f64();
    report("5,000 idle sessions, keepalives every 25 s", &format!("{share:.2} % of a core"), "0.4 %");
    drop(gate);
    engine_alone();
    let share = 100.0 * floor(&mut fleet)?.as_secs_f64() / MEASURED.as_secs_f64();
    report("  a thread that does nothing but receive them", &format!("{share:.2} %"), "");
    Ok(())
}

/// Measures the cost of merely waking a thread that often on this machine.
fn floor(fleet: &mut Fleet) -> anyhow::Result<Duration> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    fleet.gateway = socket.local_addr()?;
    let receiving = std::thread::spawn(move || {
        let mut room = [0; 2_048];
        let (time, ()) = cpu_of(|| while socket.recv(&mut room).is_ok_and(|len| len > 0) {});
        time
    });
    fleet.idle(MEASURED);
    send(&fleet.sockets[0], &[], fleet.gateway);
    Ok(receiving.join().expect("a receiver"))
}

/// Measures the engine without the socket, in virtual time.
fn engine_alone() {
    let mut gate = Gate::default();
    let mut sessions: Vec<Transport> = Vec::new();
    for n in 0..SESSIONS {
        let device = Initiator::stranger(&gate.public);
        gate.add(spec(n, device.public()));
        sessions.push(gate.shake_hands(&device, n));
    }
    let begin = gate.now.mono;
    let (mut busy, mut turns) = (Duration::ZERO, 0);
    for n in 0..ENGINE_S * SESSIONS / KEEPALIVE_S {
        let keepalive = sessions[(n % SESSIONS) as usize].seal(&[]);
        let at = begin + Duration::from_secs(1) * n / (SESSIONS / KEEPALIVE_S);
        let (time, count) = cpu_of(|| {
            let count = gate.run_until(at);
            gate.receive(home(n % SESSIONS), &keepalive);
            count
        });
        busy += time;
        turns += count + 1;
    }
    let share = 100.0 * busy.as_secs_f64() / f64::from(ENGINE_S);
    report("  of that, the engine", &format!("{share:.3} %"), "");
    report("  turns a second that it asks for", &format!("{}", turns / ENGINE_S), "");
}

struct Fleet {
    sockets: Vec<UdpSocket>,
    sessions: Vec<Transport>,
    gateway: SocketAddr,
}

impl Fleet {
    fn connect(devices: &[Initiator], gateway: SocketAddr) -> Fleet {
        let bind = |n: u32| UdpSocket::bind(format!("127.0.9.{}:0", n + 1)).expect("a loopback address");
        let sockets: Vec<UdpSocket> = (0..SOURCES).map(bind).collect();
        // The handshakes run in parallel, because a response may wait until the gateway's next
        // turn. In sequence the first sessions would end during the measurement.
        let session = |n: usize| {
            let mut initiation = devices[n].initiation(stamp(0), n as u32);
            handshake(&sockets[n % sockets.len()], &mut initiation, gateway).expect("a session")
        };
        let of_source =
            |source: usize| (source..devices.len()).step_by(SOURCES as usize).map(session).collect();
        let sources: Vec<Vec<Transport>> = scope(|scope| {
            let waves: Vec<_> = (0..SOURCES as usize).map(|n| scope.spawn(move || of_source(n))).collect();
            waves.into_iter().map(|wave| wave.join().expect("a source")).collect()
        });
        let mut sources: Vec<_> = sources.into_iter().map(Vec::into_iter).collect();
        let in_turn = |n: usize| sources[n % SOURCES as usize].next().expect("one for each device");
        let sessions = (0..devices.len()).map(in_turn).collect();
        Fleet { sockets, sessions, gateway }
    }

    /// Sends keepalives at their interval, evenly spread.
    fn idle(&mut self, time: Duration) {
        let per_s = SESSIONS / KEEPALIVE_S;
        let begin = Instant::now();
        for n in 0.. {
            let due = Duration::from_secs(1) * n / per_s;
            if due >= time {
                return;
            }
            sleep(due.saturating_sub(begin.elapsed()));
            let at = n as usize % self.sessions.len();
            let keepalive = self.sessions[at].seal(&[]);
            send(&self.sockets[at % self.sockets.len()], &keepalive, self.gateway);
        }
    }
}

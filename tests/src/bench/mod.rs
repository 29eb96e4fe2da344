//! The shared parts of the benchmarks: CPU clocks, counted memory, and a gateway's tunnels in this
//! process.
//!
//! Figures are CPU time instead of wall time, and ratios of work that ran interleaved, because
//! seconds alone mean little on a shared machine. Absolute figures are printed next to the ratios.

pub mod backup;
pub mod checks;
pub mod cipher;
pub mod demo;
mod demo_process;
pub mod downtimes;
pub mod forwarding;
pub mod handshake;
pub mod history;
pub mod idle;
pub mod keys;
pub mod memory;
pub mod peers;
pub mod program;
pub mod reading;
pub mod results;
pub mod retention;
pub mod senders;
pub mod soak;
pub mod tunnel_thread;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_engine::id::{Id, PeerId};
use fleetgate_engine::messages::{
    Command, DEFAULT_MTU, Input, Output, PeerKey, PeerKind, PeerSnapshot, PeerSpec,
};
use fleetgate_engine::time::{Mono, Now};
use fleetgate_engine::tunnel::noise::BoringNoise;
use fleetgate_engine::tunnel::{Config, Tunnel};
use fleetgate_keys::{PrivateKey, PublicKey};

use crate::attacker::{Initiator, RESPONSE, Transport, stamp};

/// Returns the CPU time of this thread.
pub fn thread_cpu() -> Duration {
    cpu_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Returns the CPU time of all threads of this process.
pub fn process_cpu() -> Duration {
    cpu_clock(libc::CLOCK_PROCESS_CPUTIME_ID)
}

#[allow(unsafe_code, reason = "std has no CPU clocks")]
fn cpu_clock(clock: libc::clockid_t) -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec for the call to fill.
    let rc = unsafe { libc::clock_gettime(clock, &raw mut t) };
    assert_eq!(rc, 0, "Linux has CPU clocks");
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Returns the CPU time of the thread with that name in this process, since it began.
pub fn named_thread_cpu(name: &str) -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").flatten().map(|task| task.path());
    let of = |file: std::path::PathBuf| std::fs::read_to_string(file).unwrap_or_default();
    let found = tasks.filter(|task| of(task.join("comm")).trim() == name);
    let nanos = found.map(|task| {
        let schedstat = of(task.join("schedstat"));
        schedstat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}

/// Returns the CPU time of another process in hundredths of a second, in user and in system mode, with the threads that
/// have ended: over a longer time.
///
/// # Errors
/// Fails when the process has ended.
pub fn cpu_of_process(pid: u32) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("the process has ended")?;
    let (_, fields) = text.rsplit_once(") ").context("the kernel has no statistics of the process")?;
    let times = fields.split_whitespace().skip(USER_TIME).take(2).map(str::parse::<u64>);
    let ticks: u64 = times.sum::<Result<_, _>>()?;
    Ok(TICK * ticks as u32)
}

/// The place of the user time among the fields of `/proc/PID/stat` behind the name. The system time follows.
const USER_TIME: usize = 11;
/// Its unit.
const TICK: Duration = Duration::from_millis(10);

/// Returns the CPU time that `work` takes on this thread.
pub fn cpu_of<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begin = thread_cpu();
    let made = work();
    (thread_cpu() - begin, made)
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Prints one line of the report. `target` is the figure that the project promises.
pub fn report(what: &str, figure: &str, target: &str) {
    println!("{what:<58} {figure:>22}   {target}");
}

/// The system's allocator with a count of allocations and of the bytes in use, for a program's `global_allocator`.
pub struct Counting;

/// Each thread counts in one of these, so that counting costs the program little. A thread may free what another has
/// allocated: only the sum of the bytes means something.
static COUNTS: [Count; 64] =
    [const { Count { in_use: AtomicUsize::new(0), allocations: AtomicUsize::new(0) } }; 64];

#[repr(align(128))]
struct Count {
    in_use: AtomicUsize,
    allocations: AtomicUsize,
}

impl Count {
    fn mine() -> &'static Count {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
        }
        let own = OWN.try_with(|own| {
            if own.get() == usize::MAX {
                own.set(NEXT.fetch_add(1, Ordering::Relaxed) % COUNTS.len());
            }
            own.get()
        });
        &COUNTS[own.unwrap_or_default()]
    }

    fn allocated(bytes: usize) {
        let count = Count::mine();
        count.in_use.fetch_add(bytes, Ordering::Relaxed);
        count.allocations.fetch_add(1, Ordering::Relaxed);
    }

    fn freed(bytes: usize) {
        Count::mine().in_use.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Counting {
    /// Returns the number of allocations since the start.
    pub fn allocations() -> usize {
        COUNTS.iter().map(|count| count.allocations.load(Ordering::Relaxed)).sum()
    }

    /// Returns the bytes that are allocated and not freed.
    pub fn in_use() -> usize {
        COUNTS.iter().map(|count| count.in_use.load(Ordering::Relaxed)).fold(0, usize::wrapping_add)
    }
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait")]
// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Count::allocated(layout.size());
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    // Without these two, the default copies each block that grows and clears each block that is asked for as clear.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Count::allocated(layout.size());
        // SAFETY: the caller upholds the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Count::allocated(size);
        Count::freed(layout.size());
        // SAFETY: the caller upholds the contract of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        Count::freed(layout.size());
        // SAFETY: the caller upholds the contract of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Returns the network address of the `n`th peer. Each has its own, so that no two share a rate
/// limit.
pub fn home(n: u32) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::from(0x0b00_0000 + n).into(), 40_000)
}

pub fn pool() -> Config {
    Config {
        pool_v4: "10.112.0.0/14".parse().expect("a prefix"),
        pool_v6: "fd72:6c65:6574::/64".parse().expect("a prefix"),
        results_port: None,
    }
}

pub fn peer_id(n: u32) -> PeerId {
    Id::from_i64(i64::from(n) + 1)
}

/// Returns inner addresses as the store assigns them, one of each family.
pub fn inner_addresses(n: u32) -> [IpAddr; 2] {
    let v4 = u32::from(pool().pool_v4.network()) + 2 + n;
    let v6 = u128::from(pool().pool_v6.network()) + 2 + u128::from(n);
    [Ipv4Addr::from(v4).into(), Ipv6Addr::from(v6).into()]
}

pub fn spec(n: u32, public: PublicKey) -> PeerSpec {
    PeerSpec {
        id: peer_id(n),
        kind: PeerKind::Device,
        keys: vec![PeerKey { public, psk: None }],
        addresses: inner_addresses(n).to_vec(),
        networks: Vec::new(),
        mtu: DEFAULT_MTU,
    }
}

/// The tunnels of a gateway without a socket, with a clock of their own.
pub struct Gate {
    pub tunnel: Tunnel<BoringNoise>,
    pub public: PublicKey,
    pub now: Now,
    wait: Option<Mono>,
}

impl Default for Gate {
    fn default() -> Self {
        let private = PrivateKey::generate();
        let noise = BoringNoise::new(&private, seed());
        let now = Now { mono: Mono::from_secs(1_000), wall: fleetgate::clock::wall() };
        Gate { tunnel: Tunnel::new(pool(), noise, seed()), public: private.public(), now, wait: None }
    }
}

fn seed() -> [u8; 32] {
    *PrivateKey::generate().as_bytes()
}

impl Gate {
    pub fn pass(&mut self, time: Duration) {
        self.now.mono = self.now.mono + time;
        self.now.wall = self.now.wall + time;
    }

    pub fn add(&mut self, spec: PeerSpec) {
        let command = Command::Upsert(Box::new(spec), PeerSnapshot::default());
        self.tunnel.handle(Input::Command(command), self.now);
        self.drain();
    }

    pub fn remove(&mut self, peer: PeerId) {
        self.tunnel.handle(Input::Command(Command::Remove(peer)), self.now);
        self.drain();
    }

    /// Returns the datagrams that the gateway sends.
    pub fn receive(&mut self, from: SocketAddr, bytes: &[u8]) -> Vec<Vec<u8>> {
        let input = Input::Datagram { from, to: None, arrived: self.now.mono, bytes };
        self.tunnel.handle(input, self.now);
        self.drain()
    }

    fn drain(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        self.wait = loop {
            match self.tunnel.poll_output() {
                Output::Transmit(transmit) => {
                    sent.extend(transmit.datagrams().map(<[u8]>::to_vec));
                    self.tunnel.lend(transmit.bytes);
                }
                Output::Wait(at, _) => break at,
                _ => {}
            }
        };
        sent
    }

    /// Advances the time to `end`, with a turn whenever one is due. Returns the number of turns.
    pub fn run_until(&mut self, end: Mono) -> u32 {
        let mut turns = 0;
        while let Some(at) = self.wait.filter(|at| *at <= end) {
            self.pass(at.since(self.now.mono));
            self.tunnel.handle(Input::Timeout, self.now);
            self.drain();
            turns += 1;
        }
        self.pass(end.since(self.now.mono));
        turns
    }

    /// Makes the `n`th peer's first handshake.
    pub fn shake_hands(&mut self, device: &Initiator, n: u32) -> Transport {
        self.pass(Duration::from_millis(1));
        let initiation = device.initiation(stamp(0), n);
        let sent = self.receive(home(n), &initiation.bytes);
        let response = sent.iter().find(|sent| sent.len() == RESPONSE).expect("a response");
        let mut transport = initiation.finish(response).expect("a session");
        self.receive(home(n), &transport.seal(&[]));
        transport
    }
}

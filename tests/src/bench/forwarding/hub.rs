//! The hubs that forward between two peers: this program, and two implementations of WireGuard that
//! route through a TUN device.
//!
//! Each has a lab of its own: the hub is in the namespace `gw`, and the load in `r`, one link away.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use fleetgate_keys::conf::Conf;
use fleetgate_keys::{PrivateKey, PublicKey};

use super::super::cpu_of_process;
use crate::attacker::Initiator;
use crate::lab::{Gateway, Lab, Running, eventually, settings};

/// The address at which every hub listens.
pub const HUB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), 51_820);
/// The namespace of the load, and its address on the link.
pub const LOAD: &str = "r";
pub const LOAD_ADDRESS: &str = "10.77.0.1";
/// The inner MTU of the peers, for every hub.
pub const MTU: usize = 1_420;
/// Control sockets of all namespaces share one directory, so each interface has its own name.
static INTERFACES: AtomicU32 = AtomicU32::new(0);
const MACHINE_PATIENCE: Duration = Duration::from_secs(60);

/// A hub to measure: what it is, and its program.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub kind: HubKind,
    pub program: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubKind {
    Fleetgate,
    BoringtunCli,
    WireguardGo,
}

const KINDS: [(&str, HubKind); 3] = [
    ("fleetgate", HubKind::Fleetgate),
    ("boringtun-cli", HubKind::BoringtunCli),
    ("wireguard-go", HubKind::WireguardGo),
];

impl Candidate {
    /// Reads `KIND` or `KIND=PROGRAM`.
    ///
    /// # Errors
    /// Fails when there is no such kind or no such program.
    pub fn parse(text: &str) -> anyhow::Result<Candidate> {
        let (name, program) = text.split_once('=').map_or((text, None), |(name, path)| (name, Some(path)));
        let Some((name, kind)) = KINDS.into_iter().find(|(known, _)| *known == name) else {
            bail!("there is no hub {name:?}: fleetgate, boringtun-cli or wireguard-go is expected");
        };
        let program = match (program, kind) {
            (Some(path), _) => PathBuf::from(path),
            (None, HubKind::Fleetgate) => std::env::current_exe()?.with_file_name("fleetgate"),
            (None, _) => found(name)?,
        };
        ensure!(program.exists(), "{} does not exist: build or install it first", program.display());
        Ok(Candidate { kind, program })
    }

    /// All three, from their usual places.
    ///
    /// # Errors
    /// Fails when one is not installed.
    pub fn all() -> anyhow::Result<Vec<Candidate>> {
        KINDS.iter().map(|(name, _)| Candidate::parse(name)).collect()
    }

    pub fn version(&self) -> String {
        let said = Command::new(&self.program).arg("--version").output();
        let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
        let line = said.lines().next().unwrap_or_default();
        line.split(" - ").next().unwrap_or(line).trim().to_owned()
    }
}

/// Searches the program in `PATH`.
fn found(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file());
    found.with_context(|| {
        format!("{name} is not in PATH: install it, or name its file with --hub {name}=FILE")
    })
}

/// A peer as the hub knows it.
#[derive(Clone)]
pub struct Member {
    pub keys: Initiator,
    pub inner: Ipv4Addr,
}

/// A running hub with its two peers: the first may open connections to the second.
pub struct Hub<'a> {
    pub candidate: Candidate,
    pub members: [Member; 2],
    pid: u32,
    process: Process<'a>,
}

enum Process<'a> {
    Gateway(Gateway<'a>),
    Router { _running: Running },
}

impl<'a> Hub<'a> {
    /// Starts the hub and enrols its peers.
    ///
    /// # Errors
    /// Fails when the hub does not take its configuration.
    pub fn start(lab: &'a Lab, candidate: Candidate) -> anyhow::Result<Hub<'a>> {
        if candidate.kind == HubKind::Fleetgate {
            return Hub::start_gateway(lab, candidate);
        }
        Hub::start_router(lab, candidate)
    }

    fn start_gateway(lab: &'a Lab, candidate: Candidate) -> anyhow::Result<Hub<'a>> {
        let gateway = Gateway::start_program(lab, &settings(&[]), Vec::new(), &candidate.program);
        let mtu = MTU.to_string();
        let device = Conf::parse(&gateway.cli(&["device", "add", "device", "--mtu", &mtu]))?;
        gateway.cli(&["user", "add", "anna", "--role", "operator"]);
        let laptop = gateway.cli(&["operator", "add", "laptop", "--user", "anna", "--mtu", &mtu]);
        let laptop = Conf::parse(&laptop)?;
        gateway.cli(&[
            "grant", "add", "--user", "anna", "--to", "device", "--icmp", "--tcp", "1-65535", "--udp",
            "1-65535",
        ]);
        let pid = gateway.process.as_ref().context("a running gateway")?.pid();
        let members = [member(&laptop)?, member(&device)?];
        Ok(Hub { candidate, members, pid, process: Process::Gateway(gateway) })
    }

    fn start_router(lab: &'a Lab, candidate: Candidate) -> anyhow::Result<Hub<'a>> {
        let private = PrivateKey::generate();
        let program = candidate.program.display().to_string();
        let interface = format!("h{}x{}", std::process::id(), INTERFACES.fetch_add(1, Ordering::Relaxed));
        let args: &[&str] = match candidate.kind {
            HubKind::BoringtunCli => &["--foreground", "--disable-drop-privileges", &interface],
            _ => &["-f", &interface],
        };
        let running = lab.spawn("gw", "hub.log", &program, args, &[]);
        let pid = running.pid();
        eventually("the hub made its interface", MACHINE_PATIENCE, || {
            lab.try_sh("gw", &format!("wg show {interface}")).0
        });
        let members = [2, 3].map(|last| Member {
            keys: Initiator::stranger(&private.public()),
            inner: Ipv4Addr::new(10, 112, 0, last),
        });
        configure(lab, &interface, &private, &members)?;
        Ok(Hub { candidate, members, pid, process: Process::Router { _running: running } })
    }

    /// Returns the gateway.
    ///
    /// # Errors
    /// Fails for another program.
    pub fn gateway(&self) -> anyhow::Result<&Gateway<'a>> {
        match &self.process {
            Process::Gateway(gateway) => Ok(gateway),
            Process::Router { .. } => bail!("{:?} is another program", self.candidate.kind),
        }
    }

    /// Adds a device to the gateway.
    ///
    /// # Errors
    /// Fails for another program.
    pub fn add_device(&self, name: &str) -> anyhow::Result<Member> {
        member(&Conf::parse(&self.gateway()?.cli(&["device", "add", name]))?)
    }

    /// Adds an operator to the gateway.
    ///
    /// # Errors
    /// Fails for another program.
    pub fn add_operator(&self, name: &str, user: &str) -> anyhow::Result<Member> {
        member(&Conf::parse(&self.gateway()?.cli(&["operator", "add", name, "--user", user]))?)
    }

    /// Returns the CPU time that all threads of the hub have taken, in user and in system mode. The work of the
    /// kernel in an interrupt counts for the thread that it interrupts.
    ///
    /// # Errors
    /// Fails when the hub has ended.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.cpu_of(|_| true)
    }

    /// Returns the CPU time of the gateway's thread that carries packets. Another program has no such thread.
    ///
    /// # Errors
    /// Fails when the hub has ended.
    pub fn tunnel_cpu(&self) -> anyhow::Result<Duration> {
        self.cpu_of(|task| name(task) == "tunnel")
    }

    fn cpu_of(&self, is_meant: fn(&Path) -> bool) -> anyhow::Result<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).context("the hub has ended")?;
        tasks.flatten().map(|task| task.path()).filter(|task| is_meant(task)).map(|task| ran(&task)).sum()
    }

    /// Returns the CPU time of the hub in hundredths of a second, with the threads that have ended: over a longer time.
    ///
    /// # Errors
    /// Fails when the hub has ended.
    pub fn cpu_of_all(&self) -> anyhow::Result<Duration> {
        cpu_of_process(self.pid)
    }

    pub fn resident_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }
}

fn name(task: &Path) -> String {
    fs::read_to_string(task.join("comm")).unwrap_or_default().trim().to_owned()
}

/// Returns for how long a thread ran. A thread that has just ended counts as nothing.
fn ran(task: &Path) -> anyhow::Result<Duration> {
    let text = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
    let nanos = text.split_whitespace().next().map_or(Ok(0), str::parse);
    Ok(Duration::from_nanos(nanos.context("the kernel has no scheduler statistics")?))
}

/// Returns the CPU time that the kernel spent in its own threads for interrupts, which is nobody's.
pub fn kernel_cpu() -> Duration {
    let tasks = fs::read_dir("/proc").into_iter().flatten().flatten().map(|task| task.path());
    let ours = tasks.filter(|task| name(task).starts_with("ksoftirqd/"));
    ours.filter_map(|task| ran(&task).ok()).sum()
}

fn member(conf: &Conf) -> anyhow::Result<Member> {
    let v4 = conf.addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    });
    Ok(Member { keys: Initiator::device(conf), inner: v4.context("an IPv4 address")? })
}

/// Makes the namespace a router between its peers.
fn configure(lab: &Lab, interface: &str, private: &PrivateKey, members: &[Member; 2]) -> anyhow::Result<()> {
    let file = lab.path("hub.conf");
    let peer = |public: PublicKey, inner: Ipv4Addr| {
        format!("[Peer]\nPublicKey = {public}\nAllowedIPs = {inner}/32\n")
    };
    let peers: String = members.iter().map(|member| peer(member.keys.public(), member.inner)).collect();
    let port = HUB.port();
    fs::write(
        &file,
        format!("[Interface]\nPrivateKey = {}\nListenPort = {port}\n{peers}", private.to_base64().as_str()),
    )?;
    lab.sh(
        "gw",
        &format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.{interface}.send_redirects=0; \
             wg setconf {interface} {}; ip addr add 10.112.0.1/16 dev {interface}; \
             ip link set mtu {MTU} up dev {interface}",
            file.display()
        ),
    );
    Ok(())
}

//! Network namespaces with real peers. It needs root, and cleans up even after a panic.
//!
//! ```text
//!   gw 10.77.0.2 ── r (router) ── d1 10.77.1.2 (and 10.77.2.2 to roam to)
//!                    │  │  └───── d2 10.77.3.2
//!                    │  └──────── m  10.77.9.2  (mail)
//!                    └─────────── x  10.77.8.2  (attacker)
//! ```
//! Each link also has IPv6: fd77:N::/64.

mod api;
mod mail;
mod reach;
mod settings;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub use api::Api;
pub use mail::{MailDoor, MailSink};
pub use reach::{AnswersAll, DEVICES, LAPTOP, Reach, sweep};
pub use settings::{API, CHECKS, KEEPALIVE, MAIL, settings};

/// The unprivileged user that the gateway runs as.
const NOBODY: u32 = 65_534;

/// Time for a program to start. It usually takes a moment, but long while a build and a browser run
/// on the same machine.
const MACHINE_PATIENCE: Duration = Duration::from_secs(60);

/// Attempts to start wireguard-go. It may end at its start when many start at once, because they
/// share the directory of their control sockets.
const STARTS: usize = 3;

static LABS: AtomicU32 = AtomicU32::new(0);

/// Runs a command to its end; panics with its output if it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(out.status.success(), "{program} {args:?}\n{}", both(&out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn both(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Polls until the condition holds; panics with `what` when the time is over. The limit allows for
/// a busy machine and promises no speed.
pub fn eventually(what: &str, patience: Duration, mut yes: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !yes() {
        assert!(begin.elapsed() < patience, "not within {} s: {what}", patience.as_secs());
        sleep(Duration::from_millis(200));
    }
}

/// A process of the lab; it ends when dropped.
pub struct Running(Child);

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, name: &str) {
        run("kill", &[&format!("-{name}"), &self.pid().to_string()]);
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for the process to end after a signal.
    pub fn ended(&mut self, patience: Duration) -> bool {
        let begin = Instant::now();
        loop {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return true;
            }
            if begin.elapsed() >= patience {
                return false;
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

pub struct Lab {
    tag: String,
    pub dir: TempDir,
    namespaces: Vec<String>,
}

impl Default for Lab {
    fn default() -> Self {
        Lab::new()
    }
}

impl Lab {
    /// Builds the namespaces and the links.
    pub fn new() -> Lab {
        let lab = Lab::of(&[("gw", 0), ("d1", 1), ("d2", 3), ("x", 8), ("m", 9)]);
        lab.link("d1", 2, false);
        lab
    }

    /// Builds the router, and these namespaces around it, each with the number of its net.
    pub fn of(around: &[(&str, u8)]) -> Lab {
        let tag = format!("fg{}x{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
        let mut lab = Lab { tag, dir, namespaces: Vec::new() };
        lab.namespace("r");
        lab.sh("r", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (name, net) in around {
            lab.namespace(name);
            lab.link(name, *net, true);
        }
        lab
    }

    /// Adds a namespace without a link.
    pub fn namespace(&mut self, name: &str) {
        let ns = self.ns(name);
        run("ip", &["netns", "add", &ns]);
        self.namespaces.push(ns);
        self.sh(
            name,
            "ip link set lo up; sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0",
        );
    }

    /// Links the router to `name`, which gets 10.77.NET.2 and fd77:NET::2.
    fn link(&self, name: &str, net: u8, default: bool) {
        let (own, far) = (format!("e{net}"), format!("r{net}"));
        let (ns, router) = (self.ns(name), self.ns("r"));
        run(
            "ip",
            &["link", "add", &own, "netns", &ns, "type", "veth", "peer", "name", &far, "netns", &router],
        );
        self.sh("r", &format!("ip addr add 10.77.{net}.1/24 dev {far}; ip -6 addr add fd77:{net}::1/64 dev {far} nodad; ip link set {far} up"));
        self.sh(name, &format!("ip addr add 10.77.{net}.2/24 dev {own}; ip -6 addr add fd77:{net}::2/64 dev {own} nodad; ip link set {own} up"));
        if default {
            self.sh(
                name,
                &format!("ip route add default via 10.77.{net}.1; ip -6 route add default via fd77:{net}::1"),
            );
        }
    }

    pub fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.tag)
    }

    /// Runs a shell line in a namespace; panics with its output if it fails.
    pub fn sh(&self, name: &str, line: &str) -> String {
        run("ip", &["netns", "exec", &self.ns(name), "sh", "-ec", line])
    }

    /// Does the same; returns whether it succeeded, and its output.
    pub fn try_sh(&self, name: &str, line: &str) -> (bool, String) {
        let ns = self.ns(name);
        let out =
            Command::new("ip").args(["netns", "exec", &ns, "sh", "-c", line]).output().expect("ip is there");
        (out.status.success(), both(&out))
    }

    /// Starts a program in a namespace; its output goes to a file of the lab.
    pub fn spawn(
        &self,
        name: &str,
        log: &str,
        program: &str,
        args: &[&str],
        env: &[(&str, String)],
    ) -> Running {
        let file = fs::File::create(self.path(log)).expect("a log in the lab's directory");
        let child = Command::new("ip")
            .args(["netns", "exec", &self.ns(name), program])
            .args(args)
            .envs(env.iter().map(|(k, v)| (*k, v.as_str())))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{program}: {e}"));
        Running(child)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for entry in fs::read_dir(self.dir.path()).into_iter().flatten().flatten() {
                if entry.path().extension().is_some_and(|e| e == "log") {
                    eprintln!("--- {}\n{}", entry.path().display(), tail(&entry.path()));
                }
            }
        }
        for ns in &self.namespaces {
            end_all_in(ns);
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
    }
}

/// Ends what still runs in a namespace: a session of sshd, and what it started, outlive the daemon and their connection.
fn end_all_in(ns: &str) {
    let Ok(found) = Command::new("ip").args(["netns", "pids", ns]).output() else { return };
    let own = std::process::id().to_string();
    for pid in String::from_utf8_lossy(&found.stdout).split_whitespace().filter(|pid| *pid != own) {
        let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
    }
}

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Returns the program that cargo built next to this test.
pub fn program() -> PathBuf {
    let mut dir = std::env::current_exe().expect("own path");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let file = dir.join("fleetgate");
    assert!(file.exists(), "{} is not built: run `cargo build` first", file.display());
    file
}

/// Links the program within one file system, so that many labs at once need no copy each.
fn place(program: &Path, at: &Path) {
    if fs::hard_link(program, at).is_err() {
        fs::copy(program, at).expect("the program");
    }
}

/// A gateway in the namespace `gw`, run by an unprivileged user without capabilities.
pub struct Gateway<'a> {
    lab: &'a Lab,
    data: PathBuf,
    binary: PathBuf,
    env: Vec<(&'static str, String)>,
    pub process: Option<Running>,
}

impl<'a> Gateway<'a> {
    /// Starts with these settings (TOML) and waits until it is ready.
    pub fn start(lab: &'a Lab, settings: &str) -> Gateway<'a> {
        Gateway::start_in(lab, settings, Vec::new())
    }

    /// Does the same with these environment variables.
    pub fn start_in(lab: &'a Lab, settings: &str, env: Vec<(&'static str, String)>) -> Gateway<'a> {
        // The disks of the lab are small.
        let disk =
            ["FLEETGATE_DISK__HISTORY_MB", "FLEETGATE_DISK__RESERVE_MB"].map(|name| (name, "1".to_owned()));
        Gateway::start_program(lab, settings, env.into_iter().chain(disk).collect(), &program())
    }

    /// Does the same with this program, such as an older one.
    pub fn start_program(
        lab: &'a Lab,
        settings: &str,
        env: Vec<(&'static str, String)>,
        program: &Path,
    ) -> Gateway<'a> {
        let data = lab.path("data");
        // The directory may exist already, as another mounted file system.
        fs::create_dir_all(&data).expect("a data directory");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("own directory");
        chown(&data, Some(NOBODY), Some(NOBODY)).expect("root");
        // A place where any user may read and run it, regardless of the checkout.
        let binary = lab.path("fleetgate");
        place(program, &binary);
        let mut gateway = Gateway { lab, data, binary, env, process: None };
        gateway.set(settings);
        gateway.again();
        gateway
    }

    /// Writes settings (TOML) for the next start. They may contain a password.
    pub fn set(&self, settings: &str) {
        let file = self.data.join("fleetgate.toml");
        fs::write(&file, settings).expect("settings");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("own file");
        chown(&file, Some(NOBODY), Some(NOBODY)).expect("root");
    }

    /// Stops the gateway as a service manager does.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("running");
        process.signal("TERM");
        assert!(process.ended(Duration::from_secs(10)), "SIGTERM ends the gateway within 10 s");
    }

    /// Starts the gateway, or starts it again.
    pub fn again(&mut self) {
        let (data, binary) = (self.data.display().to_string(), self.binary.display().to_string());
        // `env` sets the variables, so that the privileged programs before it do not get them.
        let env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let program = env.iter().chain([&binary]).map(String::as_str);
        let args: Vec<&str> = program.chain(["--data", &data, "serve"]).collect();
        let args = unprivileged(Path::new("env"), &args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let home = ("HOME", data.clone());
        self.process = Some(self.lab.spawn("gw", "gateway.log", "setpriv", &args, &[home]));
        eventually("the gateway is ready", Duration::from_secs(60), || {
            self.try_cli(&["status", "--json"]).is_some()
        });
    }

    /// Returns the path of the API socket for root of this machine.
    pub fn socket(&self) -> PathBuf {
        self.data.join("fleetgate.sock")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut full = vec!["--data", self.data.to_str().expect("UTF-8")];
        full.extend(args);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.lab.ns("gw"), "setpriv"])
            .args(unprivileged(&self.binary, &full));
        command
    }

    /// Returns what a command prints on stdout; panics if it fails.
    pub fn cli(&self, args: &[&str]) -> String {
        self.attempt(args).unwrap_or_else(|said| panic!("fleetgate {args:?}: {said}"))
    }

    /// Returns what a command prints on stdout, or its error.
    pub fn attempt(&self, args: &[&str]) -> Result<String, String> {
        let out = self.command(args).output().expect("the program runs");
        if out.status.success() {
            Ok(String::from_utf8_lossy(&out.stdout).into_owned())
        } else {
            Err(both(&out))
        }
    }

    /// Returns the error of a command that must fail.
    pub fn refused(&self, args: &[&str]) -> String {
        let said = self.attempt(args);
        said.expect_err(&format!("fleetgate {args:?} was to fail"))
    }

    /// Returns the JSON output, if the gateway responds. `status` exits with a plugin's code, so
    /// the code is ignored.
    fn try_cli(&self, args: &[&str]) -> Option<Value> {
        let out = self.command(args).output().ok()?;
        serde_json::from_slice(&out.stdout).ok()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let mut full = args.to_vec();
        full.push("--json");
        self.try_cli(&full).unwrap_or_else(|| panic!("fleetgate {full:?} printed no JSON"))
    }

    /// Returns `state` of a host or one of its services.
    pub fn state(&self, host: &str, service: Option<&str>) -> String {
        let shown = self.json(&["host", "show", host]);
        let state = match service {
            None => shown["host"]["state"]["state"].clone(),
            Some(name) => {
                let services = shown["services"].as_array().cloned().unwrap_or_default();
                services.iter().find(|s| s["name"] == name).map(|s| s["state"].clone()).unwrap_or_default()
            }
        };
        state.as_str().unwrap_or("missing").to_owned()
    }

    pub fn becomes(&self, host: &str, service: Option<&str>, state: &str) {
        let what = format!("{host} {} is {state}", service.unwrap_or("(host)"));
        let begin = Instant::now();
        while self.state(host, service) != state {
            if begin.elapsed() > Duration::from_secs(90) {
                panic!("not within 90 s: {what}; it is:\n{:#}", self.json(&["host", "show", host]));
            }
            sleep(Duration::from_millis(300));
        }
    }
}

/// The default limits about the machine that runs the tests. All devices of a lab share it, and it
/// may be busy, hot or full without a fault of theirs.
const MACHINE: [(&str, &[&str]); 4] = [
    ("load", &["load15_per_cpu"]),
    ("disk", &["fullness", "inodes"]),
    ("memory", &["used", "swap"]),
    ("temperature", &["temperature"]),
];

impl Gateway<'_> {
    /// Removes the limits that this machine may exceed.
    pub fn bear_with_the_machine(&self, host: &str) {
        for (service, metrics) in MACHINE {
            let none: Vec<String> = metrics.iter().map(|metric| format!("{metric}=")).collect();
            let limits = none.iter().flat_map(|none| ["--warn", none, "--crit", none]);
            self.cli(&["service", "set", host, service].into_iter().chain(limits).collect::<Vec<_>>());
        }
    }
}

/// Time for a check's three attempts on a busy machine.
const VERDICT: Duration = Duration::from_secs(60);

impl Gateway<'_> {
    /// Returns the kind of the verdict on a host.
    pub fn verdict(&self, host: &str) -> String {
        let shown = self.json(&["host", "show", host]);
        shown["host"]["verdict"]["kind"].as_str().unwrap_or("missing").to_owned()
    }

    pub fn verdict_becomes(&self, host: &str, kind: &str) {
        eventually(&format!("the verdict on {host} is {kind}"), VERDICT, || self.verdict(host) == kind);
    }
}

fn unprivileged(binary: &Path, args: &[&str]) -> Vec<String> {
    let fences = [
        format!("--reuid={NOBODY}"),
        format!("--regid={NOBODY}"),
        "--clear-groups".to_owned(),
        "--no-new-privs".to_owned(),
        "--bounding-set=-all".to_owned(),
        "--inh-caps=-all".to_owned(),
    ];
    let program = [binary.display().to_string()];
    fences.into_iter().chain(program).chain(args.iter().map(|a| (*a).to_owned())).collect()
}

/// wireguard-go in a namespace, configured by a `.conf`.
pub struct WireGuard<'a> {
    lab: &'a Lab,
    ns: &'static str,
    pub interface: String,
    process: Option<Running>,
    conf: String,
}

impl<'a> WireGuard<'a> {
    pub fn up(lab: &'a Lab, ns: &'static str, conf: &str) -> WireGuard<'a> {
        // Control sockets of all namespaces share one directory, so the names must differ.
        let interface = format!("w{}{ns}", lab.tag.trim_start_matches("fg").replace('x', ""));
        let interface = interface[interface.len().saturating_sub(15)..].to_owned();
        let mut wg = WireGuard { lab, ns, interface, process: None, conf: conf.to_owned() };
        wg.start();
        wg
    }

    pub fn start(&mut self) {
        let file = self.lab.path(&format!("{}.conf", self.interface));
        fs::write(&file, plain_conf(&self.conf)).expect("a configuration");
        let started = (0..STARTS).find_map(|_| self.launch());
        let said = || self.lab.log(&format!("{}.log", self.interface));
        self.process = Some(started.unwrap_or_else(|| panic!("wireguard-go ended: {}", said())));
        let dev = &self.interface;
        self.lab.sh(self.ns, &format!("wg setconf {dev} {}", file.display()));
        for address in addresses(&self.conf) {
            let family = if address.contains(':') { "-6" } else { "-4" };
            let nodad = if address.contains(':') { "nodad" } else { "" };
            self.lab.sh(self.ns, &format!("ip {family} addr add {address} dev {dev} {nodad}"));
        }
        self.lab.sh(self.ns, &format!("ip link set mtu 1420 up dev {dev}"));
        for net in allowed(&self.conf) {
            let family = if net.contains(':') { "-6" } else { "-4" };
            self.lab.sh(self.ns, &format!("ip {family} route add {net} dev {dev}"));
        }
    }

    /// Starts wireguard-go. `None`: it ended before it had made its interface.
    fn launch(&self) -> Option<Running> {
        let (dev, log) = (&self.interface, format!("{}.log", self.interface));
        let mut process = self.lab.spawn(self.ns, &log, "wireguard-go", &["-f", dev], &[]);
        let mut ended = false;
        eventually("wireguard-go made its interface", MACHINE_PATIENCE, || {
            ended = process.ended(Duration::ZERO);
            ended || self.lab.try_sh(self.ns, &format!("wg show {dev}")).0
        });
        (!ended).then_some(process)
    }

    /// Starts again with this configuration, from another port, like a reinstalled device.
    pub fn reinstall(&mut self, conf: &str) {
        self.down();
        conf.clone_into(&mut self.conf);
        self.start();
    }

    pub fn signal(&self, name: &str) {
        self.process.as_ref().expect("running").signal(name);
    }

    /// Stops the client: the tunnel is dead, but the device is not.
    pub fn down(&mut self) {
        self.process = None;
        let dev = &self.interface;
        let _ = self.lab.try_sh(self.ns, &format!("ip link del {dev}"));
    }

    /// Its inner addresses.
    pub fn own(&self) -> Vec<String> {
        let bare = |address: String| address.split('/').next().expect("before the slash").to_owned();
        addresses(&self.conf).into_iter().map(bare).collect()
    }

    pub fn own_v4(&self) -> String {
        self.own().into_iter().find(|a| !a.contains(':')).expect("an IPv4 address")
    }
}

/// Returns the part that `wg setconf` accepts, without wg-quick's own keys.
fn plain_conf(conf: &str) -> String {
    let own = ["address", "mtu", "dns", "table", "preup", "postup", "predown", "postdown"];
    let keep = |line: &&str| !own.iter().any(|k| line.trim().to_lowercase().starts_with(k));
    conf.lines().filter(keep).map(|l| format!("{l}\n")).collect()
}

fn list(conf: &str, key: &str) -> Vec<String> {
    let lines = conf.lines().filter_map(|l| l.split_once('='));
    let values = lines.filter(|(k, _)| k.trim().eq_ignore_ascii_case(key)).map(|(_, v)| v);
    values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).collect()
}

pub fn addresses(conf: &str) -> Vec<String> {
    list(conf, "Address")
}

fn allowed(conf: &str) -> Vec<String> {
    list(conf, "AllowedIPs")
}

/// The account that the gateway uses on the devices.
pub const ACCOUNT: &str = "fgdevice";

/// Creates a plain user with a plain shell, because root's login files may start slow programs.
pub fn ensure_account() -> PathBuf {
    let home = PathBuf::from("/var/tmp/fleetgate-device-home");
    if !Command::new("id").arg(ACCOUNT).output().is_ok_and(|o| o.status.success()) {
        let home = home.display().to_string();
        run("useradd", &["--system", "--create-home", "--home-dir", &home, "--shell", "/bin/sh", ACCOUNT]);
    }
    // sshd locks an account without a password unless it has an impossible one.
    run("usermod", &["-p", "*", ACCOUNT]);
    home
}

/// A real SSH server in a namespace, which accepts the keys in `authorized`.
pub struct SshServer<'a> {
    lab: &'a Lab,
    ns: &'static str,
    make: Make,
    /// Of the account.
    home: PathBuf,
    port: u16,
    process: Option<Running>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Make {
    OpenSsh,
    Dropbear,
}

impl<'a> SshServer<'a> {
    pub fn start(lab: &'a Lab, ns: &'static str, make: Make, authorized: &str) -> SshServer<'a> {
        let home = ensure_account();
        match make {
            Make::OpenSsh => authorize(&lab.path("authorized_keys"), authorized),
            Make::Dropbear if authorized.is_empty() => authorize_at_home(&home, authorized),
            Make::Dropbear => {
                let own = lab.path(&format!("home-{ns}"));
                fs::create_dir(&own).expect("the lab's directory");
                authorize_at_home(&own, authorized);
            }
        }
        let mut server = SshServer { lab, ns, make, home, port: 22, process: None };
        server.new_host_key();
        server.again();
        server
    }

    fn key_file(&self) -> PathBuf {
        self.lab.path(&format!("host-key-{}", self.ns))
    }

    /// Makes another host key for the next start.
    pub fn new_host_key(&mut self) {
        let file = self.key_file();
        let _ = fs::remove_file(&file);
        let name = file.to_str().expect("UTF-8");
        match self.make {
            Make::OpenSsh => drop(run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", name])),
            Make::Dropbear => {
                let shown = run("dropbearkey", &["-t", "ed25519", "-f", name]);
                let public = shown.lines().find(|l| l.starts_with("ssh-")).expect("the public key");
                fs::write(file.with_extension("pub"), format!("{public}\n")).expect("the lab's directory");
            }
        }
    }

    /// Returns the file of its public host key.
    pub fn public_key_file(&self) -> PathBuf {
        self.key_file().with_extension("pub")
    }

    pub fn again(&mut self) {
        let (key, port) = (self.key_file().display().to_string(), self.port.to_string());
        let log = format!("ssh-{}.log", self.ns);
        let process = match self.make {
            Make::OpenSsh => {
                let conf = self.lab.path(&format!("sshd-{}.conf", self.ns));
                let keys = self.lab.path("authorized_keys");
                let text = format!(
                    "Port {port}\nHostKey {key}\nUsePAM no\nPasswordAuthentication no\nStrictModes no\n\
                     AuthorizedKeysFile {}\n",
                    keys.display()
                );
                fs::write(&conf, text).expect("sshd's settings");
                let _ = fs::create_dir_all("/run/sshd");
                let conf = conf.display().to_string();
                self.lab.spawn(self.ns, &log, "/usr/sbin/sshd", &["-D", "-e", "-f", &conf], &[])
            }
            Make::Dropbear => {
                // It reads one file of authorized keys in the home of the account, which all labs share. With
                // keys of its own, this server alone sees another home.
                let own = self.lab.path(&format!("home-{}", self.ns));
                let mount = format!("mount --bind {} {} && ", own.display(), self.home.display());
                let mount = if own.exists() { mount } else { String::new() };
                let line = format!("{mount}exec dropbear -F -E -s -r {key} -p {port}");
                self.lab.spawn(self.ns, &log, "sh", &["-c", &line], &[])
            }
        };
        self.process = Some(process);
        let listening = format!("ss -ltn | grep -q ':{port} '");
        eventually("the SSH server listens", MACHINE_PATIENCE, || self.lab.try_sh(self.ns, &listening).0);
    }

    /// Stops the listener and every session, because a session outlives the listener that accepted
    /// it.
    pub fn stop(&mut self) {
        self.process = None;
        self.signal("KILL");
    }

    /// Signals the listener and every session; `STOP` hangs them all.
    pub fn signal(&self, signal: &str) {
        let name = if self.make == Make::OpenSsh { "sshd" } else { "dropbear" };
        let pids = run("ip", &["netns", "pids", &self.lab.ns(self.ns)]);
        for pid in pids.lines() {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if comm.trim() == name {
                let _ = Command::new("kill").args([&format!("-{signal}"), pid]).status();
            }
        }
    }
}

/// Authorizes a key for one lab alone, because others run at the same time.
fn authorize(file: &Path, key: &str) {
    fs::write(file, format!("{key}\n")).expect("authorised keys");
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("own file");
}

/// Authorizes a key in the only file that dropbear reads.
fn authorize_at_home(home: &Path, key: &str) {
    let keys = home.join(".ssh");
    let _ = fs::create_dir(&keys);
    fs::write(keys.join("authorized_keys"), format!("{key}\n")).expect("authorised keys");
    run("chown", &["-R", &format!("{ACCOUNT}:"), home.to_str().expect("UTF-8")]);
    run("chmod", &["-R", "go-rwx", home.to_str().expect("UTF-8")]);
}

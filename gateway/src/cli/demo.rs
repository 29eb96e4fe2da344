//! `fleetgate demo`: a gateway with a simulated fleet over real tunnels, and the commands that
//! switch its devices off and on. The fleet enrols through the API like a real one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use fleetgate_engine::monitor::profile::ServiceOverride;
use ipnet::Ipv4Net;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, DEMO, api_path, find_socket};
use super::device::present;
use super::{Connection, demo_past, demo_rentals, serve, terminal};
use crate::cli::out;
use crate::clock;
use crate::config::Config;
use crate::data_dir::{self, DataDir};
use crate::demo::control::{self, Control, Order};
use crate::demo::fleet::{self, DemoFleet, Gateway, Member, Recruit};
use crate::demo::past::{self, world::World};
use crate::demo::{plan, rental};
use crate::health::telemetry;
use crate::outbound::Outbound;
use crate::server::Server;
use crate::signals::{self, Signals};
use crate::store::TimingDefaults;
use crate::store::definition;

/// Marks a directory as a demo's, which the next demo may empty.
const MARK: &str = "this-is-a-demo";
/// A machine that compiles beside the demo may hold up its disk for seconds.
const BUSY: Duration = Duration::from_secs(60);
/// The lifetime of the printed login.
const LOGIN_LIFE: Duration = Duration::from_secs(24 * 3600);

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    /// Days of history that the devices have; 0 leaves more of the processor to others
    #[arg(long, value_name = "DAYS", default_value_t = past::DAYS)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(past::DAYS)))]
    past: u32,
    #[command(subcommand)]
    order: Option<DemoOrder>,
}

#[derive(Subcommand)]
enum DemoOrder {
    /// Switch off a device of the running demo
    Off {
        /// Name of a device, such as cam-07
        device: String,
    },
    /// Switch a device on again
    On {
        /// Name of a device, such as cam-07
        device: String,
    },
    /// Set the value of a sensor
    Sensor {
        /// Name of a device, such as cam-12
        device: String,
        /// Name of a sensor, such as temperature
        sensor: String,
        /// The value that it reads from now on
        #[arg(allow_negative_numbers = true)]
        value: f64,
    },
    /// List the names of the devices
    List,
}

impl From<DemoOrder> for Order {
    fn from(order: DemoOrder) -> Order {
        match order {
            DemoOrder::Off { device } => Order::Off(device),
            DemoOrder::On { device } => Order::On(device),
            DemoOrder::Sensor { device, sensor, value } => Order::Sensor { device, sensor, value },
            DemoOrder::List => Order::List,
        }
    }
}

pub(crate) async fn run(to: &Connection, args: DemoArgs) -> anyhow::Result<()> {
    let path = data_dir::default_path(to.data.clone(), DEMO)?;
    if let Some(order) = args.order {
        signals::release();
        out::line!("{}", control::send(&path, &order.into()).await?);
        return Ok(());
    }
    // As `nohup` wants it; asked before there is a handler of ours.
    let outlives_terminal = signals::hangup_is_ignored();
    let mut signals = Signals::listen()?;
    let data = fresh_directory(&path)?;
    let config = settings(&path)?;
    telemetry::init_quietly(config.log_json, config.log_filter.as_deref());
    let start = Server::start(config, data);
    let Some(server) = serve::started(&mut signals, start).await? else { return Ok(()) };
    let ended = tokio::select! {
        ended = entertain(&server, &path, args.past, to.data.is_some()) => ended,
        ended = serve::until_stopped(&server, &mut signals, || outlives_terminal) => ended,
        () = terminal::closed(), if !outlives_terminal => Ok(()),
    };
    server.stop().await;
    ended
}

/// Enrols the fleet and runs it. Returns only on failure.
async fn entertain(server: &Server, path: &Path, days: u32, own_data: bool) -> anyhow::Result<()> {
    let local = Connection { data: Some(path.to_owned()), url: None, token: None, json: false };
    let client = Client::new(&local)?.patient(BUSY);
    let seed = server.identity.wireguard.as_bytes();
    let recruits = fleet::recruit(seed).await.context("no free port for a device of the demo")?;
    let gateway = gateway_of(server);
    // The past ends before the first device is there, and its events are numbered before all that follow.
    let world = Arc::new(World::new(clock::wall()));
    let numbers = server.state.store.reserve_events(demo_past::EVENTS).await?;
    let fleet = Arc::new(enrol(&gateway, &client, &world, recruits).await?);
    let _past = demo_past::begin(server, &world, numbers, days).await.context("the demo has no past")?;
    let _control = Control::serve(path, fleet.clone()).context("cannot open the demo's control socket")?;
    announce(server, path, days, own_data).await?;
    server.login_shown()?;
    let _renter = demo_rentals::begin(&client, &gateway).await.context("the demo cannot book its rentals")?;
    // The unit passes once, and the demo continues.
    rental::reconfigure(&fleet, plan::RENTAL, || passed(&client)).await?;
    std::future::pending().await
}

/// Returns an empty directory. Empties that of the last demo.
fn fresh_directory(path: &Path) -> anyhow::Result<DataDir> {
    let data = DataDir::open(path)?;
    let name = path.display();
    let entries: Vec<PathBuf> = std::fs::read_dir(path)?.filter_map(|e| Some(e.ok()?.path())).collect();
    let lock = data_dir::LOCK;
    if !path.join(MARK).exists() && entries.iter().any(|e| !e.ends_with(lock)) {
        bail!("{name} contains files that are not of a demo: name an empty directory with --data");
    }
    for entry in entries.iter().filter(|e| !e.ends_with(lock)) {
        std::fs::remove_file(entry).with_context(|| format!("cannot empty {name}"))?;
    }
    std::fs::write(path.join(MARK), "").with_context(|| format!("cannot write in {name}"))?;
    Ok(data)
}

/// Returns settings with everything on loopback, and the usual ports if they are free.
fn settings(path: &Path) -> anyhow::Result<Config> {
    let mut config = Config::load(path, None)?;
    config.simulated = true;
    config.listen = free(51_820, |a| UdpSocket::bind(a).and_then(|s| s.local_addr()))?;
    config.api_listen = free(8080, |a| TcpListener::bind(a).and_then(|s| s.local_addr()))?;
    config.endpoint = Some(config.listen.to_string().parse()?);
    // The demo's devices outside the VPN run on this machine.
    config.outbound = Outbound::allowing(vec![Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8).into()]);
    config.keepalive = u16::try_from(plan::KEEPALIVE.as_secs()).unwrap_or(u16::MAX);
    config.timing = TimingDefaults {
        interval: plan::TIMING.interval,
        retry: plan::TIMING.retry,
        attempts: plan::TIMING.attempts,
        timeout: plan::TIMING.timeout,
        ping_interval: plan::TIMING.interval,
    };
    Ok(config)
}

fn free(port: u16, bind: impl Fn(SocketAddr) -> std::io::Result<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    bind(at(port)).or_else(|_| bind(at(0))).context("no port is free on 127.0.0.1")
}

fn gateway_of(server: &Server) -> Gateway {
    Gateway {
        endpoint: SocketAddr::from(([127, 0, 0, 1], server.udp_port)),
        public_key: server.identity.wireguard.public(),
        ssh_key: server.identity.ssh.public(),
    }
}

async fn enrol(
    gateway: &Gateway,
    client: &Client,
    world: &Arc<World>,
    recruits: Vec<Recruit>,
) -> anyhow::Result<DemoFleet> {
    let mut members = Vec::new();
    for recruit in recruits {
        members.push(enrol_one(client, recruit).await?);
    }
    Ok(DemoFleet::start(gateway, world, members).await?)
}

async fn enrol_one(client: &Client, recruit: Recruit) -> anyhow::Result<Member> {
    let planned = &recruit.planned;
    let direct = recruit.direct();
    let body = present(json!({
        "name": planned.name,
        "labels": planned.labels,
        "profile": planned.profile,
        "public_key": direct.is_none().then(|| recruit.public_key().to_string()),
        "tunnel": direct.is_none(),
        "direct_address": direct.map(|d| d.ip().to_string()),
        "ssh": {
            "user": planned.ssh_user,
            "port": direct.map_or(plan::SSH_PORT, |d| d.port()),
            // A device outside the VPN has no tunnel to prove its key.
            "host_key": direct.map(|_| recruit.host_key()),
        },
    }));
    let made: Value = client.post("/devices", &body).await.with_context(|| planned.name)?;
    for change in &planned.overrides {
        let path = api_path!("/hosts/{}/services/{}", planned.name, change.service);
        client.call(Method::PUT, &path, Some(&settings_of(change))).await.with_context(|| path.clone())?;
    }
    let addresses = made["device"]["tunnel"]["addresses"].as_array().cloned().unwrap_or_default();
    let addresses = addresses.iter().filter_map(|a| a.as_str()?.parse().ok()).collect();
    let psk = made["credentials"]["preshared_key"].as_str().map(str::parse).transpose()?;
    Ok(Member { recruit, addresses, psk })
}

fn settings_of(change: &ServiceOverride) -> Value {
    let mut body = definition::to_json(change);
    body["disabled"] = Value::Bool(change.disabled);
    body
}

/// Whether the rental unit is UP. It has no services.
async fn passed(client: &Client) -> bool {
    let path = api_path!("/hosts/{}", plan::RENTAL);
    let Ok(host) = client.get::<Value>(&path, &[]).await else { return false };
    host["state"]["state"] == "up"
}

async fn announce(server: &Server, path: &Path, days: u32, own_data: bool) -> anyhow::Result<()> {
    let link = server.state.store.login_link("admin", clock::wall() + LOGIN_LIFE).await?;
    let program = program(named(path, own_data, found_without_data().as_deref()));
    out::line!(
        "fleetgate demo: {} devices over real tunnels, on UDP port {}\n\n  \
         {}\n\n\
         opens the page and works once. In a minute the page shows Up 24, and 1 handled:\n\
         the rental unit is being reconfigured.{} From another terminal:\n\n  \
         {program} status\n  \
         {program} host show cam-12\n  \
         {program} demo off cam-07\n  \
         {program} demo on cam-07\n  \
         {program} demo sensor cam-12 temperature 25\n  \
         {program} events --follow\n  \
         {program} rental list\n  \
         {program} user login-link admin\n\n\
         Ctrl-C ends it; nothing of it stays but {}.",
        plan::plan().len(),
        server.udp_port,
        server.login_url(&link),
        past_words(days),
        path.display(),
    );
    Ok(())
}

/// Returns what the graphs show, in lines that fit a terminal.
fn past_words(days: u32) -> String {
    let days = match days {
        0 => return " Its graphs begin now.".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    format!(
        " Its graphs go back for {days}, which\nare simulated, too: in two minutes all of them are there."
    )
}

/// Returns the directory that commands have to name, because without it they would find another gateway.
fn named<'a>(path: &'a Path, own_data: bool, found: Option<&Path>) -> Option<&'a Path> {
    (own_data || found != Some(path)).then_some(path)
}

/// Returns the directory of the gateway that commands find by themselves.
fn found_without_data() -> Option<PathBuf> {
    let to = Connection { data: None, url: None, token: None, json: false };
    Some(find_socket(&to).ok()?.parent()?.to_owned())
}

/// Returns the command for this program from the present directory.
fn program(data: Option<&Path>) -> String {
    let exe = std::env::current_exe().unwrap_or_else(|_| "fleetgate".into());
    let here = std::env::current_dir().unwrap_or_default();
    let shown = exe.strip_prefix(&here).unwrap_or(&exe).display().to_string();
    match data {
        Some(dir) => format!("{shown} --data {}", dir.display()),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;

    /// Four intervals of the demo detect any fault, but the machine may be busy.
    const BOUND: Duration = Duration::from_secs(90);
    /// Three sites and one device on the Internet.
    const DEVICES: usize = 12;

    #[test]
    fn commands_name_the_directory_of_a_demo_beside_another_gateway() {
        let (demo, other) = (Path::new("/data/fleetgate-demo"), Path::new("/data/fleetgate"));
        assert_eq!(named(demo, false, Some(demo)), None);
        assert_eq!(named(demo, false, Some(other)), Some(demo));
        assert_eq!(named(demo, false, None), Some(demo));
        assert_eq!(named(demo, true, Some(demo)), Some(demo));
    }

    /// The real program, and devices that connect to it.
    struct Scene {
        server: Server,
        client: Client,
        fleet: DemoFleet,
        _dir: tempfile::TempDir,
    }

    impl Scene {
        /// With the first of these devices.
        async fn start(wanted: impl Fn(&Recruit) -> bool) -> Scene {
            // Another test of this process may have installed it.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("demo");
            let data = fresh_directory(&path).expect("an empty one");
            let mut config = settings(&path).expect("settings");
            config.listen.set_port(0);
            config.api_listen.set_port(0);
            let server = Server::start(config, data).await.expect("a gateway");
            let local = Connection { data: Some(path), url: None, token: None, json: false };
            let client = Client::new(&local).expect("a client");
            let all = fleet::recruit(server.identity.wireguard.as_bytes()).await.expect("recruits");
            let recruits: Vec<Recruit> = all.into_iter().filter(wanted).take(DEVICES + 1).collect();
            let world = Arc::new(World::new(clock::wall()));
            let fleet =
                enrol(&gateway_of(&server), &client, &world, recruits).await.expect("all are enrolled");
            Scene { server, client, fleet, _dir: dir }
        }

        async fn get(&self, path: &str) -> Value {
            self.client.get(path, &[]).await.expect("an answer")
        }

        async fn off(&self, names: &[&str]) {
            for name in names {
                self.fleet.off(name).await.expect("a device");
            }
        }

        async fn verdict(&self, host: &str) -> Value {
            self.get(&format!("/hosts/{host}")).await["verdict"].clone()
        }

        async fn all_come_up(&self) {
            let began = Instant::now();
            while self.get("/overview").await["hosts"]["up"] != json!(DEVICES + 1) {
                assert!(began.elapsed() < BOUND, "{:#}", self.get("/overview").await);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }

        /// Waits for the hard state, because a failing host is no problem before that.
        async fn is_a_problem(&self, host: &str, kind: &str) {
            let began = Instant::now();
            loop {
                let problems = self.get("/problems").await;
                let mut items = problems["items"].as_array().into_iter().flatten();
                if items.any(|p| p["host_name"] == host && p["verdict"]["kind"] == kind) {
                    return;
                }
                assert!(began.elapsed() < BOUND, "{host} is not {kind}: {problems:#}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }

        /// `candidates`: the remaining causes of an undetermined verdict.
        async fn becomes(&self, host: &str, kind: &str, candidates: &[&str]) {
            let began = Instant::now();
            loop {
                let verdict = self.verdict(host).await;
                if verdict["kind"] == kind && verdict["candidates"] == json!(candidates) {
                    return;
                }
                assert!(began.elapsed() < BOUND, "{host} is not {kind}: {verdict:#}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn faults_in_the_running_program_come_out_as_verdicts() {
        let scene = Scene::start(|r| r.planned.public.is_some() || r.planned.name <= "cam-12").await;
        scene.all_come_up().await;
        // One device of a site. The others are heard, but there is no second path.
        scene.off(&["cam-01"]).await;
        scene.becomes("cam-01", "undetermined", &["tunnel_down", "line_lost", "device_gone"]).await;
        // A whole site, while others are heard.
        scene.off(&["cam-05", "cam-06", "cam-07", "cam-08"]).await;
        for name in ["cam-05", "cam-08"] {
            scene.becomes(name, "site_uplink_lost", &[]).await;
        }
        scene.is_a_problem("cam-05", "site_uplink_lost").await;
        // All devices.
        let rest: Vec<String> = scene.fleet.names().map(str::to_owned).collect();
        scene.off(&rest.iter().map(String::as_str).collect::<Vec<_>>()).await;
        for name in ["cam-02", "cam-10"] {
            scene.becomes(name, "gateway_uplink_lost", &[]).await;
        }
        // A sign of life from one device refutes the verdict.
        scene.fleet.on("cam-10").await.expect("a device");
        scene.becomes("cam-10", "ok", &[]).await;
        scene.server.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn three_customers_rent_and_one_of_their_renters_is_connected() {
        let scene = Scene::start(|r| plan::RENTABLE.contains(&r.planned.name)).await;
        let gateway = gateway_of(&scene.server);
        let _renter = demo_rentals::begin(&scene.client, &gateway).await.expect("all are booked");
        for path in ["/customers", "/people", "/renters"] {
            assert_eq!(scene.get(path).await["items"].as_array().map(Vec::len), Some(3), "{path}");
        }
        let rentals = scene.get("/rentals").await;
        let rentals: Vec<&Value> = rentals["items"].as_array().into_iter().flatten().collect();
        let state =
            |r: &&Value| Some((r["device_name"].as_str()?.to_owned(), r["state"].as_str()?.to_owned()));
        let states: BTreeMap<String, String> = rentals.iter().filter_map(state).collect();
        let expected =
            [("cam-10", "active"), ("cam-13", "booked"), ("cam-16", "booked"), (plan::RENTAL, "preparing")];
        let expected = expected.map(|(device, state)| (device.to_owned(), state.to_owned()));
        assert_eq!(states, BTreeMap::from(expected));
        // What it sends is counted a minute later: tests/examples looks at it.
        let began = Instant::now();
        loop {
            let renters = scene.get("/renters").await;
            let renters = renters["items"].as_array().into_iter().flatten();
            if renters.filter(|renter| renter["established"] == true).count() == 1 {
                break;
            }
            assert!(began.elapsed() < BOUND, "no renter is connected");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        scene.server.stop().await;
    }
}

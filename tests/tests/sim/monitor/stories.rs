//! The shared parts of the monitoring stories: hosts, and short forms of their results.

use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, HostSpec, HostStatus, Probe, ProbeRequest, Route, ServiceSpec, SshSpec,
};
use fleetgate_probes::sample::Status;
use fleetgate_probes::sensors::Sensor;

use fleetgate_tests::world::{Truth, World, service};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

pub fn temperature() -> ServiceSpec {
    let mut sensor = service("board", Check::Sensor(Sensor::Temperature { name: None }));
    let limits = fleetgate_probes::range::Thresholds { warn: "50".parse().ok(), crit: "60".parse().ok() };
    sensor.thresholds = vec![fleetgate_engine::messages::Threshold { metric: "temperature".into(), limits }];
    sensor
}

pub fn tunnel_and_ping() -> Vec<ServiceSpec> {
    vec![service("tunnel", Check::Tunnel), service("ping", Check::Ping { count: 3 })]
}

pub fn everything() -> Vec<ServiceSpec> {
    let mut all = tunnel_and_ping();
    all.push(service("ssh", Check::Ssh));
    all.push(temperature());
    all.push(service("plugin", Check::Command { line: "/usr/lib/check".into() }));
    all.push(service("web", Check::Tcp { port: 443 }));
    all
}

pub fn with_direct(spec: HostSpec) -> HostSpec {
    HostSpec { direct: Some("cam.example".into()), ..spec }
}

pub fn pinned(spec: HostSpec) -> HostSpec {
    HostSpec { ssh: SshSpec { pin: Some("SHA256:own".into()), ..spec.ssh }, ..spec }
}

/// Returns a device that is ok and has been watched for a while.
pub fn settled(spec: HostSpec) -> (World, HostId) {
    let mut world = World::new(1);
    let id = world.add(spec, Truth::well());
    world.run(10 * MINUTE);
    world.asked.clear();
    (world, id)
}

pub fn status(world: &World, id: HostId) -> HostStatus {
    world.host(id).map(|s| s.hard).unwrap_or_default()
}

pub fn hard(world: &World, id: HostId, name: &str) -> Option<Status> {
    world.service(id, name).and_then(|s| s.hard)
}

pub fn is_stale(world: &World, id: HostId, name: &str) -> bool {
    world.service(id, name).is_some_and(|s| s.stale)
}

/// Returns the messages in short: `cam-1 up down`, `cam-1/ping ok critical`.
pub fn told(world: &World) -> Vec<String> {
    let object = |m: &fleetgate_engine::messages::Message| match &m.service {
        Some(service) => format!("{}/{service}", m.host_name),
        None => m.host_name.clone(),
    };
    world.kept.messages.iter().map(|m| format!("{} {} {}", object(m), m.from, m.to)).collect()
}

pub fn kind(ask: &ProbeRequest) -> &'static str {
    match ask.probe {
        Probe::Evidence { .. } => "evidence",
        Probe::Echo { .. } => "echo",
        Probe::LargeEcho { .. } => "large echo",
        Probe::Connect { route: Route::Tunnel { .. }, .. } => "tcp",
        Probe::Connect { .. } => "direct tcp",
        Probe::Handshake { .. } => "handshake",
        Probe::Ssh { route: Route::Tunnel { .. }, .. } => "ssh",
        Probe::Ssh { .. } => "direct ssh",
    }
}

pub fn kinds(world: &World) -> Vec<&'static str> {
    world.asked.iter().map(|(_, ask)| kind(ask)).collect()
}

pub fn count(world: &World, wanted: &str) -> usize {
    kinds(world).iter().filter(|k| **k == wanted).count()
}

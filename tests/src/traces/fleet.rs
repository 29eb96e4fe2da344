//! Random hosts with every kind of path, check and setting.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Alerting, Check, Flapping, HostSpec, Kinds, MessageKind, Notify, RoutePolicy, ServiceSpec, SshSpec,
    States, Threshold, Timing,
};
use fleetgate_probes::job::{Due, Job};
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sensors::Sensor;

use crate::dice::Dice;
use crate::world::{device, public, service, with, with_login};

/// The first device of each site: its router, and the device that others are behind.
pub const ROUTERS: [i64; 2] = [1, 2];
const SITES: [&str; 2] = ["north", "south"];
const MINUTE: Duration = Duration::from_secs(60);

/// Returns the specs of a fleet: of three hosts, one is at each site and one at none.
pub fn hosts(dice: &mut Dice, count: i64) -> Vec<HostSpec> {
    (1..=count).map(|raw| host(dice, raw)).collect()
}

pub fn host(dice: &mut Dice, raw: i64) -> HostSpec {
    let site = usize::try_from(raw - 1).expect("from 1 on") % 3;
    let spec = if ROUTERS.contains(&raw) { with_login(device(raw)) } else { shape(dice, raw) };
    let mut spec = set(dice, spec);
    if let Some(name) = SITES.get(site) {
        spec.labels = BTreeMap::from([("site".to_owned(), (*name).to_owned())]);
        let router = HostId::from_i64(ROUTERS[site]);
        if router != spec.id && !spec.parents.contains(&router) && dice.one_in(2) {
            spec.parents.push(router);
        }
    }
    let services = services(dice, &spec);
    with(spec, services)
}

fn shape(dice: &mut Dice, raw: i64) -> HostSpec {
    let direct = Some("cam.example".to_owned());
    match dice.roll(9) {
        0 => public(raw),
        1 => device(raw),
        2 => HostSpec { max_silence: Some(120 * MINUTE), ..with_login(device(raw)) },
        3 => HostSpec { direct, ..with_login(device(raw)) },
        4 => HostSpec { direct, route: RoutePolicy::Tunnel, ..with_login(device(raw)) },
        5 => HostSpec { budget: Some(1_000_000), ..with_login(device(raw)) },
        6 => {
            let router = HostId::from_i64(ROUTERS[dice.roll(2) as usize]);
            let (peer, parents) = (Some(router), vec![router]);
            HostSpec { peer, parents, own_tunnel: false, ..with_login(device(raw)) }
        }
        7 => {
            let freshness = Some(20 * MINUTE);
            HostSpec { peer: None, own_tunnel: false, address: None, freshness, ..device(raw) }
        }
        _ => {
            let ssh = SshSpec { port: 22, user: Some("fleet".into()), pin: Some("SHA256:own".into()) };
            let other_address = Some("fd00::7".parse().expect("an address"));
            HostSpec { direct, ssh, other_address, ..device(raw) }
        }
    }
}

/// Sets its timing and its notifications.
fn set(dice: &mut Dice, spec: HostSpec) -> HostSpec {
    let interval = MINUTE * [1, 2, 3, 5][dice.roll(4) as usize];
    let attempts = 1 + dice.roll(4) as u32;
    let timing = Timing { interval, attempts, ..Timing::DEFAULT };
    HostSpec { timing, alerting: alerting(dice), ..spec }
}

fn alerting(dice: &mut Dice) -> Alerting {
    let notify = Notify {
        interval: dice.one_in(3).then(|| 30 * MINUTE),
        delay: if dice.one_in(5) { 5 * MINUTE } else { Duration::ZERO },
        states: if dice.one_in(6) { States::of([2, 3]) } else { States::ALL },
        kinds: if dice.one_in(2) { Kinds::USUAL } else { Kinds::of(MessageKind::ALL) },
    };
    let flapping = Flapping { enabled: !dice.one_in(4), ..Flapping::default() };
    Alerting { volatile: dice.one_in(8), flapping, notify }
}

fn services(dice: &mut Dice, spec: &HostSpec) -> Vec<ServiceSpec> {
    let mut all = Vec::new();
    if spec.own_tunnel && !dice.one_in(4) {
        all.push(service("tunnel", Check::Tunnel));
    }
    if spec.address.is_some() && spec.route != RoutePolicy::Direct {
        all.push(service("ping", Check::Ping { count: 3 }));
    }
    if spec.ssh.user.is_some() {
        all.extend(over_ssh());
    }
    if dice.one_in(2) && (spec.address.is_some() || spec.direct.is_some()) {
        all.push(service("web", Check::Tcp { port: 443 }));
    }
    if spec.address.is_none() || dice.one_in(3) {
        all.push(ServiceSpec { freshness: Some(15 * MINUTE), ..service("results", Check::Passive) });
        let job = Job { due: Due::Every(60 * MINUTE), grace: 10 * MINUTE };
        all.push(service("backup", Check::Heartbeat(job)));
    }
    for service in &mut all {
        let interval = MINUTE * [2, 3, 5][dice.roll(3) as usize];
        service.timing = Timing { interval, attempts: 1 + dice.roll(3) as u32, ..Timing::DEFAULT };
        service.alerting = alerting(dice);
    }
    all
}

fn over_ssh() -> [ServiceSpec; 3] {
    let limits = Thresholds { warn: "50".parse().ok(), crit: "60".parse().ok() };
    let thresholds = vec![Threshold { metric: "temperature".into(), limits }];
    let board = service("board", Check::Sensor(Sensor::Temperature { name: None }));
    [
        service("ssh", Check::Ssh),
        ServiceSpec { thresholds, ..board },
        service("plugin", Check::Command { line: "/usr/lib/check".into() }),
    ]
}

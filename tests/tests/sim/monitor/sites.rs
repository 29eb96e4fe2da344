//! Sites behind a router, in seconds of test time. When many hosts fail at once, notifications
//! about unreachable hosts are suppressed. A host that is still down when its parent is back is
//! notified once.
//!
//! `FLEETGATE_SIM_SEED=n` runs one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, EventKind, HostSpec, HostStatus, IncidentAck, IncidentChange, IncidentRecord, IncidentScope,
    MonitorInput,
};
use fleetgate_tests::dice::{Dice, seeds};
use fleetgate_tests::world::{Truth, World, device, service, with};

/// Unreachable hosts are checked every five minutes. A state is final after three failures, and a
/// recovery after that.
const SETTLED: Duration = Duration::from_secs(30 * 60);
const MINUTE: Duration = Duration::from_secs(60);

/// The expected notifications about a host, from the truth.
#[derive(Default)]
struct Person {
    told_down: bool,
}

impl Person {
    /// Returns a notification if the state is new, and nothing while the host is unreachable.
    fn says(&mut self, there: bool, reachable: bool) -> Option<&'static str> {
        if !reachable || there != self.told_down {
            return None;
        }
        self.told_down = !there;
        Some(if there { "up" } else { "down" })
    }
}

struct Site {
    /// Two routers, one of which is enough.
    routers: [HostId; 2],
    /// A device with its own tunnel, behind both routers.
    camera: HostId,
    /// A host behind the camera, reached through its tunnel.
    nas: HostId,
}

struct Sim {
    world: World,
    dice: Dice,
    sites: Vec<Site>,
    people: BTreeMap<HostId, Person>,
    there: BTreeMap<HostId, bool>,
    seen: usize,
    seed: u64,
}

impl Sim {
    fn new(seed: u64) -> Sim {
        let mut sim = Sim {
            world: World::new(seed),
            dice: Dice(seed),
            sites: Vec::new(),
            people: BTreeMap::new(),
            there: BTreeMap::new(),
            seen: 0,
            seed,
        };
        sim.world.keep_asked = false;
        for n in 0..6 {
            let site = sim.site(n * 10 + 1);
            sim.sites.push(site);
        }
        sim
    }

    /// Makes a site. A host has at least as many attempts as its parents, because a message waits
    /// for a parent for half a minute at most.
    fn site(&mut self, first: i64) -> Site {
        let mut most = 1;
        let routers = [first, first + 1].map(|raw| {
            let attempts = 1 + self.dice.roll(4) as u32;
            most = most.max(attempts);
            self.add(device(raw), attempts)
        });
        let ping = vec![service("ping", Check::Ping { count: 3 })];
        let behind = most + self.dice.roll(2) as u32;
        let camera = HostSpec { parents: routers.to_vec(), ..with(device(first + 2), ping) };
        let camera = self.add(camera, behind);
        let (peer, parents) = (Some(camera), vec![camera]);
        let nas = HostSpec { peer, own_tunnel: false, parents, ..device(first + 3) };
        let more = self.dice.roll(2) as u32;
        let nas = self.add(nas, behind + more);
        Site { routers, camera, nas }
    }

    fn add(&mut self, mut spec: HostSpec, attempts: u32) -> HostId {
        spec.timing.attempts = attempts;
        self.there.insert(spec.id, true);
        self.world.add(spec, Truth::well())
    }

    /// Lets some hosts fail or recover at the same moment.
    fn turn_page(&mut self) {
        for i in 0..self.sites.len() {
            let Site { routers, camera, nas } = self.sites[i];
            for id in [routers[0], routers[1], camera, nas] {
                if self.dice.one_in(3) {
                    let there = !self.there[&id];
                    self.there.insert(id, there);
                }
            }
            let path = routers.iter().any(|id| self.there[id]);
            for id in [routers[0], routers[1], camera, nas] {
                let linked = id != camera || path;
                let truth =
                    if self.there[&id] { Truth { link: linked, ..Truth::well() } } else { Truth::off() };
                self.world.set(id, truth);
            }
        }
    }

    fn disturb(&mut self) {
        let away = self.dice.secs(1, 600);
        match self.dice.roll(6) {
            0 => self.world.restart(away),
            1 => self.world.suspend(away),
            _ => {}
        }
    }

    fn compare(&mut self) {
        let mut expected: Vec<String> = Vec::new();
        for site in &self.sites {
            let up = |id: HostId| self.there[&id];
            let path = site.routers.iter().any(|id| up(*id));
            let seen = up(site.camera) && path;
            let truths = [
                (site.routers[0], up(site.routers[0]), true),
                (site.routers[1], up(site.routers[1]), true),
                (site.camera, seen, path),
                (site.nas, up(site.nas) && seen, seen),
            ];
            for (id, there, reachable) in truths {
                let news = self.people.entry(id).or_default().says(there, reachable);
                expected.extend(news.map(|to| format!("{id} {to}")));
                let state = self.world.host(id).expect("a state");
                assert_eq!(state.reachable, reachable, "seed {}: {id} {state:?}", self.seed);
                let hard = if there { HostStatus::Up } else { HostStatus::Down };
                assert!(!reachable || state.hard == hard, "seed {}: {id} {state:?}", self.seed);
            }
        }
        let messages = self.world.kept.messages[self.seen..].iter();
        let mut told: Vec<String> =
            messages.filter(|m| m.service.is_none()).map(|m| format!("{} {}", m.host, m.to)).collect();
        self.seen = self.world.kept.messages.len();
        expected.sort();
        told.sort();
        assert_eq!(told, expected, "seed {} at {:?}", self.seed, self.world.now.mono);
    }
}

#[test]
fn what_stands_behind_something_that_is_down_is_told_to_nobody() {
    for seed in seeds() {
        let mut sim = Sim::new(seed);
        sim.world.run(SETTLED);
        for _ in 0..40 {
            sim.compare();
            sim.turn_page();
            sim.world.run(SETTLED);
            sim.disturb();
            sim.world.run(SETTLED);
        }
        println!("seed {seed}: {} messages", sim.seen);
        assert!(sim.seen > 60, "something must have happened");
    }
}

#[test]
fn a_lost_site_is_one_message_and_its_return_another() {
    let mut world = World::new(1);
    let router = world.add(device(1), Truth::well());
    for raw in 2..=30 {
        world.add(HostSpec { parents: vec![router], ..device(raw) }, Truth::well());
    }
    let everybody: Vec<HostId> = world.devices.keys().copied().collect();
    for raw in 31..=60 {
        world.add(device(raw), Truth::well());
    }
    world.run(10 * MINUTE);
    everybody.iter().for_each(|id| world.set(*id, Truth::off()));
    world.run(20 * MINUTE);
    assert_eq!(told(&world), ["cam-1 down"]);
    assert_eq!(world.kept.hosts.values().filter(|s| !s.reachable).count(), 29);
    let site = world.kept.incident_of(router).expect("an incident");
    assert_eq!((site.matter.extent, site.members.len()), (IncidentScope::Site, 30));
    assert_eq!(world.kept.messages[0].incident, Some(site.id));
    let dead = HostId::from_i64(7);
    everybody.iter().filter(|id| **id != dead).for_each(|id| world.set(*id, Truth::well()));
    world.run(10 * MINUTE);
    assert_eq!(told(&world)[1..], ["cam-1 up", "cam-7 down"], "what died meanwhile is told after it");
    let lost = |kind: EventKind| world.kept.events.iter().filter(|e| e.kind == kind).count();
    assert_eq!((lost(EventKind::Unreachable), lost(EventKind::Reachable)), (29, 29));
    let own = world.kept.incident_of(dead).expect("an incident of its own");
    assert_eq!((own.matter.extent, own.members.len()), (IncidentScope::Host, 1));
    assert_eq!(world.kept.messages[2].incident, Some(own.id));
    let open: Vec<_> = world.kept.open_incidents().into_iter().map(|i| i.id).collect();
    assert_eq!(open, [own.id], "that of the site is closed");
}

/// Returns a router with a thousand hosts behind it, and other hosts elsewhere that are heard.
fn large_site() -> (World, HostId) {
    let mut world = World::new(1);
    world.keep_asked = false;
    let router = world.add(device(1), Truth::well());
    for raw in 2..=1_000 {
        world.add(HostSpec { parents: vec![router], ..device(raw) }, Truth::well());
    }
    for raw in 1_001..=1_300 {
        world.add(device(raw), Truth::well());
    }
    world.run(5 * MINUTE);
    (world, router)
}

fn lose(world: &mut World, from: i64, to: i64) {
    (from..=to).for_each(|raw| world.set(HostId::from_i64(raw), Truth::off()));
}

#[test]
fn a_thousand_hosts_behind_a_router_are_one_incident_also_over_a_restart() {
    let (mut world, router) = large_site();
    lose(&mut world, 1, 1_000);
    world.run(MINUTE + MINUTE / 6);
    world.restart(MINUTE / 6);
    world.run(30 * MINUTE);
    assert_eq!(told(&world), ["cam-1 down"]);
    let site = world.kept.incident_of(router).expect("an incident");
    let open = world.kept.open_incidents();
    assert_eq!((open.len(), site.members.len()), (1, 1_000));
    (1..=1_000).for_each(|raw| world.set(HostId::from_i64(raw), Truth::well()));
    world.run(30 * MINUTE);
    assert_eq!((told(&world).len(), world.kept.open_incidents().len()), (2, 0));
}

#[test]
fn who_joins_an_acknowledged_incident_is_told_to_nobody_and_who_outlives_it_is() {
    let mut world = World::new(1);
    let router = world.add(device(1), Truth::well());
    let spec = HostSpec { parents: vec![router], ..device(2) };
    let dead = world.add(spec, Truth::well());
    for raw in 31..=60 {
        world.add(device(raw), Truth::well());
    }
    world.run(10 * MINUTE);
    lose(&mut world, 1, 1);
    world.run(5 * MINUTE);
    let site = world.kept.incident_of(router).expect("an incident");
    let ack = IncidentAck { sticky: true, expires: None, words: "user:ada: on it".into() };
    world.kept.known.insert(site.id, ack.clone());
    world.input(MonitorInput::AcknowledgeIncident(site.id, ack));
    lose(&mut world, 2, 2);
    world.run(30 * MINUTE);
    let covered = |r: &&IncidentRecord| matches!(r.change, IncidentChange::Covered { .. });
    assert_eq!(world.kept.incidents.iter().filter(covered).count(), 2);
    assert_eq!(told(&world), ["cam-1 down"]);
    world.set(router, Truth::well());
    world.run(30 * MINUTE);
    assert_eq!(told(&world), ["cam-1 down", "cam-1 up", "cam-2 down"]);
    assert_eq!(world.kept.incident_of(dead).map(|i| i.matter.extent), Some(IncidentScope::Host));
}

#[test]
fn most_of_a_site_without_a_router_is_one_incident() {
    let mut world = World::new(1);
    let site = |raw: i64, name: &str| {
        let mut spec = device(raw);
        spec.labels.insert("site".into(), name.into());
        spec
    };
    for raw in 1..=30 {
        world.add(site(raw, "north"), Truth::well());
    }
    for raw in 31..=230 {
        world.add(site(raw, "south"), Truth::well());
    }
    world.run(10 * MINUTE);
    lose(&mut world, 1, 28);
    world.run(10 * MINUTE);
    let open = world.kept.open_incidents();
    assert_eq!((open.len(), open[0].members.len()), (1, 28));
    assert_eq!(open[0].matter.site.as_deref(), Some("north"));
    let merged = |r: &&IncidentRecord| matches!(r.change, IncidentChange::Merged(_));
    assert_eq!(world.kept.incidents.iter().filter(merged).count(), 4, "five are more than chance");
    assert_eq!(open[0].matter.words, "most of north stopped answering at once");
}

/// 120 sites of five hosts, where one carrier serves two and another serves three; those of one
/// fail.
#[test]
fn a_carriers_outage_over_many_sites_is_one_incident_also_over_a_restart() {
    let mut world = World::new(1);
    world.keep_asked = false;
    for raw in 1..=600 {
        let mut spec = device(raw);
        spec.labels.insert("site".into(), format!("site-{}", raw % 120));
        world.add(spec, Truth::well());
    }
    world.run(10 * MINUTE);
    lose(&mut world, 1, 240);
    world.run(MINUTE + MINUTE / 6);
    world.restart(MINUTE / 6);
    world.run(10 * MINUTE);
    let open = world.kept.open_incidents();
    assert_eq!((open.len(), open[0].matter.extent, open[0].members.len()), (1, IncidentScope::Fleet, 240));
    assert_eq!(open[0].matter.words, "many hosts stopped answering at once");
    let ack = IncidentAck { sticky: true, expires: None, words: "user:ada: it is the carrier".into() };
    world.kept.known.insert(open[0].id, ack.clone());
    world.input(MonitorInput::AcknowledgeIncident(open[0].id, ack));
    let covered = |r: &&IncidentRecord| matches!(r.change, IncidentChange::Covered { .. });
    assert_eq!(world.kept.incidents.iter().filter(covered).count(), 240, "one acknowledgement is for all");
    (2..=240).for_each(|raw| world.set(HostId::from_i64(raw), Truth::well()));
    lose(&mut world, 500, 500);
    world.run(30 * MINUTE);
    let open = world.kept.open_incidents();
    let ill: Vec<usize> =
        open.iter().map(|i| i.members.iter().filter(|m| m.left.is_none()).count()).collect();
    assert_eq!(ill, [1, 1], "who falls later, and who does not come back");
    assert_eq!(told(&world).last().map(String::as_str), Some("cam-500 down"));
}

/// Two in five of a fleet of 100 on ten sites get an update that breaks their checks, within a
/// minute or two of each other.
#[test]
fn an_update_that_breaks_a_service_on_many_hosts_is_one_incident_also_over_a_restart() {
    let mut world = World::new(1);
    for raw in 1..=100 {
        let services =
            vec![service("ssh", Check::Ssh), service("disk", Check::Command { line: "disk".into() })];
        let mut spec = with(device(raw), services);
        spec.labels.insert("site".into(), format!("site-{}", raw % 10));
        spec.ssh.user = Some("fleet".into());
        spec.ssh.pin = Some("SHA256:own".into());
        world.add(spec, Truth::well());
    }
    world.run(10 * MINUTE);
    let update = |world: &mut World, hosts: std::ops::RangeInclusive<i64>, truth: Truth| {
        hosts.for_each(|raw| world.set(HostId::from_i64(raw), truth.clone()));
        world.run(MINUTE);
    };
    update(&mut world, 1..=20, Truth { sshd: false, ..Truth::well() });
    world.restart(MINUTE / 6);
    update(&mut world, 21..=40, Truth { sshd: false, ..Truth::well() });
    world.run(10 * MINUTE);
    let open = world.kept.open_incidents();
    assert_eq!((open.len(), open[0].matter.extent, open[0].members.len()), (1, IncidentScope::Fleet, 40));
    assert_eq!(open[0].matter.words, "ssh critical on many hosts");
    assert_eq!(told(&world).len(), 40, "each is told, as part of it");
    update(&mut world, 1..=40, Truth { plugin_exit: 2, ..Truth::well() });
    world.run(10 * MINUTE);
    let open = world.kept.open_incidents();
    assert_eq!((open.len(), open[0].members.len()), (1, 40), "another service is another");
    assert_eq!(open[0].matter.words, "disk critical on many hosts");
    update(&mut world, 1..=40, Truth::well());
    world.run(10 * MINUTE);
    assert_eq!(world.kept.open_incidents().len(), 0);
}

#[test]
fn a_lost_site_is_no_failure_of_its_services() {
    let mut world = World::new(1);
    for raw in 1..=30 {
        let mut spec = with(device(raw), vec![service("tunnel", Check::Tunnel), service("ssh", Check::Ssh)]);
        spec.labels.insert("site".into(), if raw <= 15 { "north" } else { "south" }.into());
        world.add(spec, Truth::well());
    }
    world.run(10 * MINUTE);
    lose(&mut world, 1, 14);
    world.run(30 * MINUTE);
    let open = world.kept.open_incidents();
    assert_eq!((open.len(), open[0].matter.extent), (1, IncidentScope::Site));
}

fn told(world: &World) -> Vec<String> {
    world.kept.messages.iter().map(|m| format!("{} {}", m.host_name, m.to)).collect()
}

fn fleet(count: i64) -> World {
    let mut world = World::new(1);
    for raw in 1..=count {
        let ping = vec![service("tunnel", Check::Tunnel), service("ping", Check::Ping { count: 3 })];
        world.add(with(device(raw), ping), Truth::well());
    }
    world.run(10 * MINUTE);
    world
}

fn set_all(world: &mut World, truth: &Truth) {
    let all: Vec<HostId> = world.devices.keys().copied().collect();
    all.into_iter().for_each(|id| world.set(id, truth.clone()));
}

#[test]
fn a_gateway_that_is_cut_off_says_so_once_and_marks_nobody_down() {
    for minutes in [3, 20, 300] {
        let mut world = fleet(200);
        set_all(&mut world, &Truth { link: false, ..Truth::well() });
        world.run(minutes * MINUTE);
        assert_eq!(told(&world), ["gateway down"]);
        assert!(world.kept.hosts.values().all(|s| s.hard == HostStatus::Up));
        world.restart(MINUTE / 2);
        world.run(5 * MINUTE);
        set_all(&mut world, &Truth::well());
        let dead = HostId::from_i64(7);
        world.set(dead, Truth::off());
        world.run(10 * MINUTE);
        assert_eq!(told(&world), ["gateway down", "gateway up", "cam-7 down"], "after {minutes} minutes");
    }
}

#[test]
fn while_others_are_heard_everybody_who_is_gone_is_told_of() {
    let mut world = fleet(100);
    (1..=30).for_each(|raw| world.set(HostId::from_i64(raw), Truth::off()));
    world.run(10 * MINUTE);
    let mut expected: Vec<String> = (1..=30).map(|raw| format!("cam-{raw} down")).collect();
    let mut told = told(&world);
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn a_child_that_fails_has_its_parent_asked_before_it_is_told_of() {
    let mut world = World::new(1);
    let router = world.add(device(1), Truth::well());
    let mut child = HostSpec { parents: vec![router], ..device(2) };
    child.timing.attempts = 1;
    let child = world.add(child, Truth::well());
    world.run(10 * MINUTE);
    world.asked.clear();
    world.set(child, Truth::off());
    world.run(3 * MINUTE);
    let told: Vec<&str> = world.kept.messages.iter().map(|m| m.host_name.as_str()).collect();
    assert_eq!(told, ["cam-2"]);
    let held =
        world.kept.events.iter().filter(|e| matches!(e.kind, EventKind::NotificationHeld { .. })).count();
    assert_eq!(held, 1, "for the moment in which its parent was asked");
}

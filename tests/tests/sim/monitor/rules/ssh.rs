//! The checks over SSH, and the meaning of their failures.

use fleetgate_engine::messages::{HostKey, KeyType};

use super::*;

fn ssh_runs(world: &World) -> Vec<&fleetgate_engine::messages::SshRun> {
    let asks = world.asked.iter().map(|(_, ask)| &ask.probe);
    asks.filter_map(|q| if let Probe::Ssh { run, .. } = q { Some(run) } else { None }).collect()
}

#[test]
fn all_that_runs_over_ssh_rides_in_one_session() {
    let mut services = everything();
    services.push(service("load", Check::Sensor(Sensor::Load)));
    let (mut world, _) = settled(with(with_login(device(1)), services));
    world.run(10 * MINUTE);
    let runs = ssh_runs(&world);
    assert_eq!(runs.len(), 10);
    for run in runs {
        let names: Vec<&str> = run.commands.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, [":sensors", "plugin"], "one script for all sensors, one command for each plugin");
    }
}

#[test]
fn the_host_key_is_learnt_through_the_tunnel_once() {
    let mut world = World::new(1);
    let id = world.add(with(with_direct(with_login(device(1))), everything()), Truth::well());
    world.run(10 * MINUTE);
    assert_eq!(world.kept.pins, [(id, own_key())]);
    let pinned = world.kept.events.iter().filter(|e| e.kind == EventKind::HostKeyPinned).count();
    assert_eq!(pinned, 1);
    let runs = ssh_runs(&world);
    let learning: Vec<bool> = runs.iter().skip_while(|run| !run.learn).map(|run| run.learn).collect();
    assert!(learning.len() > 5 && learning[0] && !learning[1..].contains(&true));
    assert!(runs.last().is_some_and(|run| run.pin == Some(own_key())));
}

fn own_key() -> HostKey {
    HostKey { key_type: Some(KeyType::Ed25519), ..HostKey::from("SHA256:own") }
}

#[test]
fn the_type_of_a_key_that_a_person_gave_is_learnt_once_and_survives_a_change() {
    let mut world = World::new(1);
    let mut spec = with(with_login(device(1)), everything());
    spec.ssh.pin = Some("SHA256:own".into());
    let id = world.add(spec, Truth::well());
    world.run(10 * MINUTE);
    assert_eq!(world.kept.pins, [(id, own_key())]);
    assert!(world.kept.events.iter().all(|e| e.kind != EventKind::HostKeyPinned), "it was pinned before");
    world.change(id, |spec| spec.ssh.pin = Some("SHA256:own".into()));
    world.run(MINUTE);
    assert!(ssh_runs(&world).last().is_some_and(|run| run.pin == Some(own_key())));
    world.change(id, |spec| spec.ssh.pin = Some("SHA256:new".into()));
    world.run(MINUTE);
    assert!(ssh_runs(&world).last().is_some_and(|run| run.pin == Some("SHA256:new".into())));
}

#[test]
fn without_a_confirmed_key_nobody_logs_in_over_the_internet() {
    let mut world = World::new(1);
    let mut spec = with(public(1), everything()[2..].to_vec());
    spec.ssh.pin = None;
    let id = world.add(spec, Truth::well());
    world.run(10 * MINUTE);
    assert!(ssh_runs(&world).iter().all(|r| r.user.is_none() && r.commands.is_empty() && !r.learn));
    assert_eq!(hard(&world, id, "board"), None, "what needs the login has not run");
    assert!(world.service(id, "ssh").is_some_and(|s| s.result.text.contains("not confirmed")));
    assert!(world.kept.pins.is_empty());
    world.change(id, |spec| spec.ssh.pin = Some("SHA256:own".into()));
    world.run(MINUTE);
    assert_eq!(hard(&world, id, "board"), Some(Status::Ok));
}

#[test]
fn a_changed_host_key_is_critical_and_written_down_once() {
    let (mut world, id) = settled(with(with_login(device(1)), everything()));
    world.set(id, Truth { host_key: "SHA256:other", ..Truth::well() });
    world.run(10 * MINUTE);
    world.restart(SECOND);
    world.run(HOUR);
    assert_eq!(told(&world), ["cam-1/ssh ok critical"]);
    let changed = world.kept.events.iter().filter(|e| e.kind == EventKind::HostKeyChanged).count();
    assert_eq!(changed, 1);
}

#[test]
fn with_ssh_switched_off_its_failure_is_that_of_each_rider() {
    let (mut world, id) = settled(with(with_login(device(1)), vec![temperature()]));
    assert_eq!(hard(&world, id, "board"), Some(Status::Ok));
    world.set(id, Truth { login: false, ..Truth::well() });
    world.run(5 * MINUTE);
    let board = world.service(id, "board").expect("a state");
    assert_eq!(board.hard, Some(Status::Unknown));
    assert!(board.result.text.starts_with("ssh: login refused"), "{}", board.result.text);
}

#[test]
fn a_direct_ping_says_why_it_cannot_be() {
    let mut world = World::new(1);
    let id = world.add(with(public(1), vec![service("ping", Check::Ping { count: 1 })]), Truth::well());
    world.run(MINUTE);
    let ping = world.service(id, "ping").expect("a state");
    assert_eq!(ping.status, Some(Status::Unknown));
    assert!(ping.result.text.contains("raw socket"));
}

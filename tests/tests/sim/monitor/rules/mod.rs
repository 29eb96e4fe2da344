//! The rules of monitoring, one story each, in virtual time.

mod ssh;

use std::time::Duration;

use super::stories::*;
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, EventKind, HostSpec, HostStatus, Message, MessageKind, MonitorInput, PassiveResult, Probe,
    ProbeRequest, RoutePolicy, StateType, Ticket,
};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Status;
use fleetgate_probes::sensors::Sensor;
use fleetgate_tests::world::{Truth, World, device, public, service, with, with_login};

// ----------------------------------------------------------- the host check

#[test]
fn a_device_that_speaks_is_up_without_being_asked_anything() {
    let (mut world, id) = settled(device(1));
    world.run(HOUR);
    // The evidence expires when the last packet is a minute old. Two more have come by then, the
    // newest 50 s after it.
    assert_eq!(kinds(&world), vec!["evidence"; 72]);
    let state = world.host(id).expect("a state");
    assert_eq!((state.status, state.source.as_str()), (HostStatus::Up, "evidence"));
    assert!(state.output.starts_with("authenticated packet"), "{}", state.output);
    assert_eq!(told(&world), Vec::<String>::new());
}

/// A check of a device without a keepalive, or of one behind another device, costs an echo.
#[test]
fn who_says_nothing_unasked_is_asked_for_an_echo_and_nothing_more() {
    let quiet = Truth { quiet: true, ..Truth::well() };
    let behind = HostSpec { own_tunnel: false, peer: Some(HostId::from_i64(2)), ..device(1) };
    for spec in [device(1), behind] {
        let mut world = World::new(1);
        world.add(device(2), quiet.clone());
        world.run(10 * SECOND);
        let id = world.add(spec, quiet.clone());
        world.run(10 * MINUTE);
        world.asked.clear();
        world.run(HOUR);
        let count = |what| world.asked.iter().filter(|(_, ask)| ask.host == id && kind(ask) == what).count();
        assert!((58..=61).contains(&count("echo")), "{} echoes", count("echo"));
        assert_eq!((count("tcp"), count("handshake")), (0, 0));
        assert_eq!(status(&world, id), HostStatus::Up);
    }
}

#[test]
fn echo_tcp_handshake_and_the_public_address_are_asked_in_the_moment_in_which_the_evidence_expires() {
    let (mut world, id) = settled(with_direct(device(1)));
    // While the session is still considered alive, every probe is tried.
    world.run(10 * SECOND);
    world.set(id, Truth::off());
    let last = world.device(id).heard().expect("a packet");
    world.run(2 * MINUTE);
    let asked: Vec<_> = world.asked.iter().skip_while(|(_, ask)| kind(ask) != "echo").take(4).collect();
    let kinds_then: Vec<_> = asked.iter().map(|(at, ask)| (at.since(last), kind(ask))).collect();
    assert_eq!(kinds_then, ["echo", "tcp", "handshake", "direct tcp"].map(|kind| (MINUTE, kind)));
    // Without a session echo and TCP have no path.
    world.run(10 * MINUTE);
    world.asked.clear();
    world.check_now(id, None);
    world.run(MINUTE / 2);
    let asked = kinds(&world);
    let dial = asked.iter().position(|kind| *kind == "handshake").expect("a dial");
    assert_eq!(asked[dial - 1..dial + 2], ["evidence", "handshake", "direct tcp"]);
    assert!(!asked.contains(&"echo") && !asked.contains(&"tcp"), "{asked:?}");
}

#[test]
fn three_failures_make_a_host_down_and_one_answer_brings_it_back() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.set(id, Truth::off());
    world.run(5 * MINUTE);
    assert_eq!(status(&world, id), HostStatus::Down);
    let kinds: Vec<_> =
        world.kept.events.iter().filter(|e| e.service.is_none()).map(|e| e.kind.clone()).collect();
    let change = |from, to, hard| EventKind::StateChanged { from, to, hard, measured_at: None };
    assert_eq!(kinds[kinds.len() - 2..], [change("up", "down", false), change("up", "down", true)]);
    assert_eq!(world.host(id).map(|s| (s.kind, s.attempt)), Some((StateType::Hard, 3)));
    assert!(is_stale(&world, id, "ping") && is_stale(&world, id, "tunnel"));
    assert_eq!(hard(&world, id, "ping"), Some(Status::Ok), "the last state is kept");

    world.set(id, Truth::well());
    world.run(20 * SECOND);
    assert_eq!(status(&world, id), HostStatus::Up, "the session that is back starts a check");
    assert!(!is_stale(&world, id, "ping") && !is_stale(&world, id, "tunnel"));
    assert_eq!(told(&world), ["cam-1 up down", "cam-1 down up"]);
}

#[test]
fn a_soft_failure_is_told_to_nobody() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.set(id, Truth::off());
    while world.host(id).is_none_or(|s| s.status != HostStatus::Down) {
        world.run(SECOND);
    }
    assert_eq!(world.host(id).map(|s| (s.kind, s.hard)), Some((StateType::Soft, HostStatus::Up)));
    world.set(id, Truth::well());
    world.run(MINUTE);
    let state = world.host(id).expect("a state");
    assert_eq!((state.status, state.kind, state.attempt), (HostStatus::Up, StateType::Hard, 1));
    assert_eq!(told(&world), Vec::<String>::new());
}

#[test]
fn in_a_retry_only_evidence_newer_than_the_failure_counts() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.set(id, Truth::off());
    // A check requested by a user fails at once, although the last packet is only seconds old.
    world.check_now(id, None);
    world.run(MINUTE);
    assert_eq!(world.host(id).map(|s| s.status), Some(HostStatus::Down));
    world.run(MINUTE);
    assert_eq!(status(&world, id), HostStatus::Down);
}

#[test]
fn a_refused_connection_proves_life_inside_the_tunnel_and_nothing_outside() {
    let mut world = World::new(1);
    let id = world.add(public(1), Truth { sshd: false, ..Truth::well() });
    world.run(10 * MINUTE);
    assert_eq!(status(&world, id), HostStatus::Down);
}

#[test]
fn whoever_answers_under_another_key_is_not_the_device() {
    let (mut world, id) = settled(pinned(with_direct(with_login(device(1)))));
    world.set(id, Truth { link: false, host_key: "SHA256:stranger", ..Truth::well() });
    world.run(10 * MINUTE);
    assert_eq!(status(&world, id), HostStatus::Down);
    world.set(id, Truth { link: false, ..Truth::well() });
    world.run(2 * MINUTE);
    assert_eq!(world.host(id).map(|s| (s.hard, s.source.clone())), Some((HostStatus::Up, "direct".into())));
}

#[test]
fn a_host_that_is_down_is_dialled_once_in_five_minutes() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.set(id, Truth::off());
    world.run(10 * MINUTE);
    world.asked.clear();
    world.run(HOUR);
    // After each dial the evidence is read again.
    assert_eq!((count(&world, "evidence"), count(&world, "handshake")), (72, 12));
    assert_eq!(world.asked.len(), 84, "and nothing else is sent");
}

#[test]
fn a_host_that_only_sends_its_results_is_down_when_it_is_silent_for_too_long() {
    let mut world = World::new(1);
    let told_of = HostSpec { peer: None, own_tunnel: false, address: None, ..device(1) };
    let id = world.add(HostSpec { freshness: Some(HOUR), ..told_of }, Truth::off());
    let sends = |world: &mut World| {
        let (result, at) = (PluginResult::ok("here"), world.now.wall);
        world.input(MonitorInput::Submit(Box::new(PassiveResult {
            host: id,
            service: None,
            result,
            at,
            by: String::new(),
            identity: Default::default(),
            ticket: Ticket(1),
        })));
    };
    sends(&mut world);
    world.run(50 * MINUTE);
    // A restart does not count as silence of the host.
    world.restart(20 * MINUTE);
    world.run(55 * MINUTE);
    let state = world.host(id).expect("a state");
    assert_eq!((state.hard, state.stale, state.source.as_str()), (HostStatus::Up, false, "passive"));
    let last = state.last_check;
    world.run(6 * MINUTE);
    let state = world.host(id).expect("a state");
    assert_eq!((state.hard, state.stale, state.attempt), (HostStatus::Down, false, 3));
    assert_eq!((state.output.as_str(), state.source.as_str()), ("no result for 60 min", "silence"));
    assert_eq!(state.last_check, last, "when it was heard last is known");
    world.run(3 * HOUR);
    sends(&mut world);
    assert_eq!(status(&world, id), HostStatus::Up);
    assert_eq!(told(&world), ["cam-1 up down", "cam-1 down up"]);
    assert!(world.asked.is_empty(), "there is no way to ask");
}

#[test]
fn a_host_that_can_be_asked_is_judged_by_its_check_alone() {
    let (mut world, id) = settled(HostSpec { freshness: Some(MINUTE), ..device(1) });
    world.run(HOUR);
    world.suspend(HOUR);
    world.run(HOUR);
    assert_eq!((status(&world, id), told(&world)), (HostStatus::Up, Vec::<String>::new()));
}

#[test]
fn a_sleeper_is_left_alone_until_its_silence_is_too_long() {
    let asleep = |world: &World, id| world.host(id).is_some_and(|s: &_| s.asleep);
    let spec = HostSpec { max_silence: Some(2 * HOUR), ..with(device(1), tunnel_and_ping()) };
    let (mut world, id) = settled(spec);
    world.set(id, Truth::off());
    world.run(10 * MINUTE);
    assert!(asleep(&world, id) && is_stale(&world, id, "ping"));
    assert_eq!(world.host(id).map(|s| (s.status, s.attempt)), Some((HostStatus::Up, 1)));
    world.asked.clear();
    world.run(HOUR);
    let dials = count(&world, "handshake");
    assert!(dials <= 12 && world.asked.len() <= 60 + 2 * dials, "{:?}", kinds(&world));
    // The device wakes for a moment, and sleeps again.
    world.set(id, Truth::well());
    world.run(MINUTE);
    assert!(!asleep(&world, id) && !is_stale(&world, id, "ping"));
    world.set(id, Truth::off());
    world.run(HOUR + 50 * MINUTE);
    assert!(asleep(&world, id));
    assert_eq!(told(&world), Vec::<String>::new());
    let slept: Vec<EventKind> = world.kept.events.iter().map(|e| e.kind.clone()).rev().take(3).collect();
    assert_eq!(slept, [EventKind::FellAsleep, EventKind::Woke, EventKind::FellAsleep]);
    world.run(20 * MINUTE);
    assert!(!asleep(&world, id));
    assert_eq!(told(&world), ["cam-1 up down"]);
}

#[test]
fn what_stands_behind_a_device_is_asked_itself() {
    let (mut world, router) = settled(device(1));
    let spec = HostSpec { id: HostId::from_i64(2), name: "nas".into(), ..device(1) };
    let spec =
        HostSpec { own_tunnel: false, services: vec![service("ping", Check::Ping { count: 3 })], ..spec };
    let nas = world.add(spec, Truth::well());
    world.run(MINUTE);
    assert_eq!(world.host(nas).map(|s| (s.hard, s.source.clone())), Some((HostStatus::Up, "echo".into())));
    world.set(nas, Truth::off());
    world.run(5 * MINUTE);
    assert_eq!((status(&world, nas), status(&world, router)), (HostStatus::Down, HostStatus::Up));
    assert_eq!(told(&world), ["nas up down"]);
    assert!(world.service(nas, "ping").is_some_and(|s| s.stale && s.status == Some(Status::Ok)));
}

// ------------------------------------------------------------------ pending

#[test]
fn what_never_came_and_has_no_other_way_stays_pending() {
    let never = Truth { link: false, ..Truth::well() };
    let nowhere = Truth { direct: false, ..never.clone() };
    let only_tunnel = |spec| HostSpec { route: RoutePolicy::Tunnel, ..spec };
    let only_direct = |spec| HostSpec { route: RoutePolicy::Direct, ..spec };
    use HostStatus::{Down, Pending, Up};
    let table: Vec<(&str, HostSpec, &Truth, HostStatus)> = vec![
        ("a device that never came", device(1), &never, Pending),
        (
            "with a public address that is not to be used",
            only_tunnel(with_direct(device(1))),
            &never,
            Pending,
        ),
        ("with a public address that answers", with_direct(device(1)), &never, Up),
        ("with a public address that does not", with_direct(device(1)), &nowhere, Down),
        ("directly only", only_direct(with_direct(device(1))), &never, Up),
        ("outside the VPN, there", public(1), &never, Up),
        ("outside the VPN, not there", public(1), &nowhere, Down),
        ("without any address", HostSpec { peer: None, own_tunnel: false, ..device(1) }, &never, Pending),
    ];
    for (what, spec, truth, expected) in table {
        let mut world = World::new(1);
        let id = world.add(with(spec, tunnel_and_ping()), truth.clone());
        world.run(30 * MINUTE);
        world.check_now(id, None);
        world.run(30 * MINUTE);
        world.restart(SECOND);
        world.run(30 * MINUTE);
        assert_eq!(status(&world, id), expected, "{what}");
        if expected == Pending {
            assert!(world.asked.len() < 6, "{what}: nothing is asked again and again: {:?}", kinds(&world));
            assert_eq!(told(&world), Vec::<String>::new(), "{what}");
        }
    }
}

#[test]
fn checks_through_the_tunnel_start_right_after_the_first_handshake() {
    let mut world = World::new(1);
    let spec = with(with_login(device(1)), everything());
    let id = world.add(spec, Truth { link: false, ..Truth::well() });
    world.run(3 * HOUR);
    assert!(world.kept.services.is_empty());
    world.set(id, Truth::well());
    world.run(3 * SECOND);
    assert_eq!(status(&world, id), HostStatus::Up);
    for service in everything() {
        assert_eq!(hard(&world, id, &service.name), Some(Status::Ok), "{}", service.name);
    }
    assert!(world.kept.events.iter().any(|e| e.kind == EventKind::FirstHandshake));
    assert_eq!(told(&world), Vec::<String>::new());
}

#[test]
fn checks_on_a_public_address_start_at_once_and_those_through_the_tunnel_wait() {
    let mut world = World::new(1);
    let spec = with(pinned(with_direct(with_login(device(1)))), everything());
    let id = world.add(spec, Truth { link: false, ..Truth::well() });
    world.run(SECOND);
    assert_eq!(status(&world, id), HostStatus::Up);
    let known = ["tunnel", "ping", "ssh", "board", "plugin", "web"].map(|name| hard(&world, id, name));
    let ok = Some(Status::Ok);
    assert_eq!(known, [None, None, ok, ok, ok, None]);
    world.run(HOUR);
    assert_eq!(hard(&world, id, "tunnel"), None, "what never came has no broken tunnel");
    world.set(id, Truth::well());
    world.run(3 * SECOND);
    let known = ["tunnel", "ping", "web"].map(|name| hard(&world, id, name));
    assert_eq!(known, [ok, ok, ok]);
}

#[test]
fn a_check_that_began_before_the_first_handshake_is_no_failure() {
    let mut world = World::new(1);
    let spec = device(1);
    world.add(spec.clone(), Truth { link: false, ..Truth::well() });
    let id = spec.id;
    // The handshake comes at the same moment as the failure of the forced one.
    world.device(id).truth.link = true;
    world.input(fleetgate_engine::messages::MonitorInput::TunnelEvent(
        fleetgate_engine::messages::TunnelEvent::FirstHandshake(id),
    ));
    world.run(5 * SECOND);
    assert!(world.kept.events.iter().all(|e| !matches!(e.kind, EventKind::StateChanged { to: "down", .. })));
}

#[test]
fn a_new_key_is_asked_for_at_once_and_what_came_under_the_old_one_proves_nothing() {
    let mut world = World::new(1);
    let id = world.add(device(1), Truth::well());
    world.run(5 * SECOND);
    assert_eq!(status(&world, id), HostStatus::Up);
    world.set(id, Truth { link: false, ..Truth::well() });
    world.input(fleetgate_engine::messages::MonitorInput::TunnelEvent(
        fleetgate_engine::messages::TunnelEvent::Rekeyed(id),
    ));
    world.run(45 * SECOND);
    assert_eq!(
        world.host(id).map(|state| state.status),
        Some(HostStatus::Down),
        "its packets count for 60 s, those of an old key do not"
    );
}

#[test]
fn a_check_that_somebody_asked_for_is_not_lost_by_news_or_a_change_meanwhile() {
    use fleetgate_engine::messages::{MonitorInput, TunnelEvent};
    let mut world = World::new(1);
    let id = world.add(device(1), Truth::well());
    world.run(30 * SECOND);
    assert_eq!(world.host(id).map(|state| state.source.as_str()), Some("evidence"));
    let renamed = HostSpec { name: "another".into(), ..device(1) };
    let interruptions =
        [MonitorInput::TunnelEvent(TunnelEvent::FirstHandshake(id)), MonitorInput::Upsert(Box::new(renamed))];
    for interruption in interruptions {
        let asked = world.now.wall;
        world.input(MonitorInput::CheckNow { host: id, service: None });
        world.input(interruption);
        world.run(11 * SECOND);
        let state = world.host(id).expect("a state");
        assert!(state.last_check >= Some(asked), "by the deadline of a check: {state:?}");
        assert_ne!(state.source, "evidence", "what came before it was asked proves nothing: {state:?}");
    }
}

// ------------------------------------------------------------- dependencies

/// Returns the displayed state of each service: status and, with a question mark, not current.
fn picture(world: &World, id: HostId) -> String {
    let one = |name: &str| {
        let state = world.service(id, name);
        let status = state.and_then(|s| s.hard).map_or("-", Status::name);
        let letter = if status == "-" { "-".to_owned() } else { status[..1].to_uppercase() };
        format!("{letter}{}", if state.is_some_and(|s| s.stale) { "?" } else { "" })
    };
    let services = ["tunnel", "ping", "ssh", "board", "plugin", "web"].map(one).join(" ");
    format!("{} {services}", status(world, id).name())
}

#[test]
fn a_failure_counts_only_while_what_it_depends_on_holds() {
    let well = Truth::well;
    let hot = Truth { temperature: 70.0, ..well() };
    // (the fault, tunnel only, with a public address):      tunnel ping ssh board plugin web
    let table: Vec<(&str, Truth, &str, &str)> = vec![
        ("nothing", well(), "up O O O O O O", "up O O O O O O"),
        ("the device is off", Truth::off(), "down O? O? O? O? O? O?", "down O? O? O? O? O? O?"),
        ("the tunnel", Truth { link: false, ..well() }, "down O? O? O? O? O? O?", "up C O? O O O O?"),
        ("the IP stack", Truth { hung: true, ..well() }, "up O C C O? O? C", "up O C C O? O? C"),
        ("sshd", Truth { sshd: false, ..well() }, "up O O C O? O? O", "up O O C O? O? O"),
        ("the login", Truth { login: false, ..well() }, "up O O C O? O? O", "up O O C O? O? O"),
        ("the host key", Truth { host_key: "x", ..well() }, "up O O C O? O? O", "up O O C O? O? O"),
        ("the web server", Truth { tcp: false, ..well() }, "up O O O O O C", "up O O O O O C"),
        ("a hot board", hot.clone(), "up O O O C O O", "up O O O C O O"),
        ("a plugin", Truth { plugin_exit: 1, ..well() }, "up O O O O W O", "up O O O O W O"),
        ("a plugin that crashes", Truth { plugin_exit: 127, ..well() }, "up O O O O U O", "up O O O O U O"),
        ("tunnel, board", Truth { link: false, ..hot.clone() }, "down O? O? O? O? O? O?", "up C O? O C O O?"),
        ("sshd, board", Truth { sshd: false, ..hot }, "up O O C O? O? O", "up O O C O? O? O"),
    ];
    for (what, truth, inside, both) in table {
        let inner = with(pinned(with_login(device(1))), everything());
        for (spec, expected) in [(inner.clone(), inside), (with_direct(inner), both)] {
            let (mut world, id) = settled(spec);
            world.set(id, truth.clone());
            world.run(20 * MINUTE);
            assert_eq!(picture(&world, id), expected, "{what}");
            let expected =
                expected.matches(['C', 'W', 'U']).count() + usize::from(expected.starts_with("down"));
            assert_eq!(told(&world).len(), expected, "{what}: one message for each: {:?}", told(&world));
        }
    }
}

#[test]
fn a_broken_tunnel_beside_a_public_address_is_a_matter_of_the_tunnel() {
    let (mut world, id) = settled(with(pinned(with_direct(with_login(device(1)))), everything()));
    world.set(id, Truth { link: false, ..Truth::well() });
    world.run(10 * MINUTE);
    assert_eq!(told(&world), ["cam-1/tunnel ok critical"]);
    assert_eq!(world.host(id).map(|s| s.source.clone()), Some("direct".into()));
    assert_eq!(world.service(id, "ssh").map(|s| s.route.clone()), Some("direct".into()));
    world.set(id, Truth::well());
    world.run(2 * MINUTE);
    assert_eq!(told(&world)[1..], ["cam-1/tunnel critical ok"]);
    assert_eq!(world.service(id, "ssh").map(|s| s.route.clone()), Some("tunnel".into()));
    assert!(!is_stale(&world, id, "ping"), "what waited for the tunnel is asked promptly");
}

#[test]
fn a_hung_ip_stack_is_an_up_host_with_a_good_tunnel_and_no_ping() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.set(id, Truth { hung: true, ..Truth::well() });
    world.run(10 * MINUTE);
    assert_eq!((status(&world, id), hard(&world, id, "tunnel")), (HostStatus::Up, Some(Status::Ok)));
    assert_eq!(hard(&world, id, "ping"), Some(Status::Critical));
    assert_eq!(told(&world), ["cam-1/ping ok critical"]);
}

#[test]
fn services_of_a_host_that_was_down_begin_with_fresh_attempts() {
    let mut spec = with(device(1), tunnel_and_ping());
    spec.services[1].timing.attempts = 4;
    let (mut world, id) = settled(spec);
    world.set(id, Truth { hung: true, ..Truth::well() });
    while world.service(id, "ping").is_none_or(|s| s.attempt < 3) {
        world.run(SECOND);
    }
    world.set(id, Truth::off());
    world.run(5 * MINUTE);
    assert_eq!(status(&world, id), HostStatus::Down);
    world.set(id, Truth { hung: true, ..Truth::well() });
    world.run(20 * SECOND);
    let ping = world.service(id, "ping").expect("a state");
    assert_eq!((ping.kind, ping.status), (StateType::Soft, Some(Status::Critical)));
    assert!(ping.attempt <= 2, "{}", ping.attempt);
}

#[test]
fn a_problem_that_outlives_its_hosts_outage_is_not_told_twice() {
    let (mut world, id) = settled(with(with_login(device(1)), everything()));
    world.set(id, Truth { temperature: 70.0, ..Truth::well() });
    world.run(5 * MINUTE);
    world.set(id, Truth { temperature: 70.0, ..Truth::off() });
    world.run(10 * MINUTE);
    world.set(id, Truth { temperature: 70.0, ..Truth::well() });
    world.run(10 * MINUTE);
    world.set(id, Truth::well());
    world.run(10 * MINUTE);
    let expected = ["cam-1/board ok critical", "cam-1 up down", "cam-1 down up", "cam-1/board critical ok"];
    assert_eq!(told(&world), expected);
}

fn send(world: &mut World, host: HostId, service: &str, status: Status) {
    let (service, at) = (Some(service.to_owned()), world.now.wall);
    let result = PluginResult::new(status, "sent", Vec::new());
    let (by, identity, ticket) = (String::new(), Default::default(), Ticket(1));
    let sent = PassiveResult { host, service, result, at, by, identity, ticket };
    world.input(MonitorInput::Submit(Box::new(sent)));
}

/// Returns a device with a job whose results are submitted, behind a router.
fn with_a_job() -> (World, HostId, HostId) {
    let mut world = World::new(1);
    let router = world.add(device(9), Truth::well());
    let mut job = service("job", Check::Passive);
    job.timing.attempts = 1;
    let behind = HostSpec { parents: vec![router], ..with(device(1), vec![job]) };
    let id = world.add(behind, Truth::well());
    world.run(10 * MINUTE);
    send(&mut world, id, "job", Status::Ok);
    (world, router, id)
}

#[test]
fn what_is_sent_while_the_host_is_away_is_current_and_told_with_the_next_result() {
    let unreachable = |world: &World, id| world.host(id).is_some_and(|s| !s.reachable);
    for router_too in [false, true] {
        let (mut world, router, id) = with_a_job();
        world.set(id, Truth::off());
        if router_too {
            world.set(router, Truth::off());
        }
        world.run(10 * MINUTE);
        assert_eq!((status(&world, id), unreachable(&world, id)), (HostStatus::Down, router_too));
        let before = told(&world);
        send(&mut world, id, "job", Status::Critical);
        world.run(10 * MINUTE);
        assert_eq!((hard(&world, id, "job"), is_stale(&world, id, "job")), (Some(Status::Critical), true));
        assert_eq!(told(&world), before, "the host speaks for it");
        [router, id].into_iter().for_each(|host| world.set(host, Truth::well()));
        world.run(10 * MINUTE);
        assert_eq!(status(&world, id), HostStatus::Up);
        assert!(is_stale(&world, id, "job"), "it is of the outage");
        assert!(!told(&world).iter().any(|told| told.starts_with("cam-1/job")));
        // The row as an earlier version stored it.
        world.kept.services.get_mut(&(id, "job".to_owned())).expect("a row").stale = false;
        world.restart(SECOND);
        world.run(10 * MINUTE);
        assert!(is_stale(&world, id, "job"), "a restart makes it no newer");
        send(&mut world, id, "job", Status::Critical);
        assert!(!is_stale(&world, id, "job"));
        assert_eq!(told(&world).last().map(String::as_str), Some("cam-1/job ok critical"));
    }
}

#[test]
fn what_is_sent_by_a_host_that_is_asleep_counts() {
    let (mut world, _, id) = with_a_job();
    world.change(id, |spec| spec.max_silence = Some(24 * HOUR));
    world.set(id, Truth::off());
    world.run(HOUR);
    assert!(world.host(id).is_some_and(|s| s.asleep) && is_stale(&world, id, "job"));
    send(&mut world, id, "job", Status::Critical);
    assert!(!is_stale(&world, id, "job"));
    assert_eq!(told(&world), ["cam-1/job ok critical"]);
}

// ----------------------------------------------------------------- schedule

#[test]
fn each_host_that_has_to_be_asked_keeps_its_slot_and_hosts_are_spread() {
    let mut world = World::new(3);
    for raw in 1..=600 {
        world.add(public(raw), Truth::well());
    }
    world.run(2 * MINUTE);
    (world.peak, world.questions) = (0, 0);
    world.run(10 * MINUTE);
    assert_eq!(world.questions, 6_000, "each once a minute");
    assert!(world.peak <= 30, "ten a second on average, {} at most", world.peak);
}

#[test]
fn looks_at_the_evidence_are_as_spread_as_the_packets_are() {
    let mut world = World::new(3);
    for raw in 1..=600 {
        world.add(device(raw), Truth::well());
        world.run(Duration::from_millis(raw as u64 * 7_919 % 83));
    }
    world.run(2 * MINUTE);
    (world.peak, world.questions) = (0, 0);
    world.run(10 * MINUTE);
    assert_eq!(world.questions, 7_200, "each when its evidence expires");
    assert!(world.peak <= 40, "twelve a second on average, {} at most", world.peak);
}

#[test]
fn a_restart_brings_neither_a_burst_nor_a_message() {
    let mut world = World::new(3);
    for raw in 1..=600 {
        world.add(with(device(raw), tunnel_and_ping()), Truth::well());
        world.run(SECOND / 24);
    }
    world.run(10 * MINUTE);
    let off = HostId::from_i64(7);
    world.set(off, Truth::off());
    world.run(10 * MINUTE);
    for away in [0, 5, 59, 61, 4_000] {
        world.peak = 0;
        world.restart(Duration::from_secs(away));
        world.run(10 * MINUTE);
        // The average is thirty a second, and a dial for each tunnel that is not back yet.
        assert!(world.peak <= 120, "away {away} s: {} questions in a second", world.peak);
        assert_eq!(told(&world), ["cam-7 up down"]);
    }
}

#[test]
fn a_suspended_gateway_marks_nobody_down() {
    let mut world = World::new(3);
    for raw in 1..=100 {
        world.add(with(device(raw), tunnel_and_ping()), Truth::well());
        world.run(SECOND / 4);
    }
    world.run(10 * MINUTE);
    for away in [11, 70, 600, 30_000] {
        world.peak = 0;
        world.suspend(Duration::from_secs(away));
        world.run(10 * MINUTE);
        // Twelve or thirteen hosts come back each second. Each takes three probes of the host (a
        // dial is followed by another look at the evidence), two of the tunnel and a ping.
        assert!(world.peak <= 75, "away {away} s: {} questions in a second", world.peak);
    }
    let changes = |e: &&_| matches!(e, fleetgate_engine::messages::Event { kind: EventKind::StateChanged { to, .. }, .. } if *to != "ok" && *to != "up");
    assert_eq!(world.kept.events.iter().filter(changes).count(), 0);
}

#[test]
fn a_restart_goes_on_counting_where_it_was() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.set(id, Truth { hung: true, ..Truth::well() });
    while world.service(id, "ping").is_none_or(|s| s.attempt < 2) {
        world.run(SECOND);
    }
    world.restart(SECOND);
    assert_eq!(world.service(id, "ping").map(|s| (s.kind, s.attempt)), Some((StateType::Soft, 2)));
    world.run(5 * MINUTE);
    assert_eq!(told(&world), ["cam-1/ping ok critical"]);
}

#[test]
fn a_late_answer_to_a_host_that_was_removed_or_changed_is_ignored() {
    let (mut world, id) = settled(device(1));
    world.set(id, Truth::off());
    world.check_now(id, None);
    world.run(SECOND / 2);
    let before = (world.kept.events.len(), world.host(id).cloned());
    world.set(id, Truth::well());
    world.change(id, |spec| spec.name = "renamed".into());
    world.run(15 * SECOND);
    assert_eq!(world.kept.events[before.0..], [], "the old check is forgotten, the new one is good");
    world.check_now(id, None);
    world.remove(id);
    let events = world.kept.events.len();
    world.run(HOUR);
    assert_eq!((world.kept.events.len(), world.monitor.figures().in_flight), (events, 0));
}

#[test]
fn states_survive_a_changed_spec_where_the_service_still_exists() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.set(id, Truth { hung: true, ..Truth::well() });
    world.run(5 * MINUTE);
    world.change(id, |spec| {
        spec.services.remove(0);
        spec.services[0].timing.interval = 2 * MINUTE;
        spec.services.push(service("web", Check::Tcp { port: 80 }));
    });
    world.run(5 * MINUTE);
    assert_eq!(told(&world)[..1], ["cam-1/ping ok critical"], "known, so not told again");
    assert_eq!(hard(&world, id, "ping"), Some(Status::Critical));
    assert_eq!(hard(&world, id, "web"), Some(Status::Critical), "what is new is checked promptly");
}

#[test]
fn a_question_that_nobody_answers_is_no_failure_and_does_not_hang_the_check() {
    let (mut world, id) = settled(with(device(1), tunnel_and_ping()));
    world.deaf = true;
    world.run(10 * MINUTE);
    assert_eq!(status(&world, id), HostStatus::Up);
    assert!(world.host(id).is_some_and(|s| s.stale));
    assert!(world.monitor.figures().lost_probes > 0);
    world.deaf = false;
    world.run(3 * MINUTE);
    assert!(world.host(id).is_some_and(|s| !s.stale));
    assert_eq!(told(&world), Vec::<String>::new());
}

#[test]
fn results_leave_samples() {
    let (world, _) = settled(with(with_login(device(1)), everything()));
    assert!(world.kept.samples > 30, "{}", world.kept.samples);
}

/// Returns a device with an inner address of each family.
fn of_both_families() -> HostSpec {
    let other_address = "fd00::1".parse().ok();
    HostSpec { other_address, ..with_login(with(device(1), everything())) }
}

/// Runs for a while and asserts that nothing has a problem at any moment.
fn stays_well(world: &mut World, id: HostId) {
    for _ in 0..20 * 60 {
        world.run(SECOND);
        assert_ne!(world.host(id).map(|s| s.status), Some(HostStatus::Down));
        for spec in everything() {
            let found = world.service(id, &spec.name).and_then(|s| s.status);
            assert!(found.is_none_or(|status| status == Status::Ok), "{}: {found:?}", spec.name);
        }
    }
}

fn asked(world: &World, id: HostId) -> [String; 3] {
    let words = |address: Option<std::net::IpAddr>| address.map(|a| a.to_string()).unwrap_or_default();
    let service = |name| words(world.service(id, name).and_then(|s| s.asked));
    [words(world.host(id).and_then(|s| s.asked)), service("ping"), service("ssh")]
}

#[test]
fn a_device_that_uses_one_of_its_inner_addresses_is_asked_there() {
    let mut world = World::new(1);
    let id = world.add(of_both_families(), Truth { uses: (false, true), ..Truth::well() });
    stays_well(&mut world, id);
    assert_eq!(asked(&world, id), ["fd00::1"; 3]);
    world.restart(MINUTE);
    world.asked.clear();
    stays_well(&mut world, id);
    let at = |(_, ask): &(_, ProbeRequest)| ask.probe.inner_address();
    assert!(world.asked.iter().filter_map(at).all(|address| address.is_ipv6()), "that is remembered");
    world.set(id, Truth { uses: (true, false), ..Truth::well() });
    stays_well(&mut world, id);
    assert_eq!(asked(&world, id), ["172.24.0.1"; 3]);
    world.set(id, Truth { uses: (false, false), ..Truth::well() });
    world.run(10 * MINUTE);
    let ping = world.service(id, "ping").map(|s| s.result.text.clone()).unwrap_or_default();
    assert!(ping.ends_with("no answer at fd00::1 either"), "{ping}");
}

#[test]
fn the_other_inner_address_of_a_device_that_answers_costs_nothing() {
    let (mut world, id) = settled(of_both_families());
    stays_well(&mut world, id);
    let at = |(_, ask): &(_, ProbeRequest)| ask.probe.inner_address();
    assert!(world.asked.iter().filter_map(at).all(|address| address.is_ipv4()));
}

#[test]
fn what_is_removed_is_reminded_of_no_more() {
    let mut world = World::new(1);
    let mut board = temperature();
    board.alerting.notify.interval = Some(10 * MINUTE);
    let [stays, gone, idle] = [1, 2, 3].map(|n| {
        let spec = with(with_login(device(n)), vec![board.clone()]);
        world.add(spec, Truth { temperature: 95.0, ..Truth::well() })
    });
    let reminders = |world: &World| {
        let of = |id| move |m: &&Message| m.host == id && m.kind == MessageKind::Reminder;
        [stays, gone, idle].map(|id| world.kept.messages.iter().filter(of(id)).count())
    };
    world.run(HOUR);
    let before = reminders(&world);
    assert!(before.iter().all(|count| *count >= 4), "{before:?}");
    world.remove(gone);
    world.change(idle, |spec| spec.services.clear());
    world.run(2 * HOUR);
    let after = reminders(&world);
    assert!(after[0] >= before[0] + 11, "{after:?}");
    assert_eq!(after[1..], before[1..], "the host that is removed, and the one whose service is");
}

#[test]
fn the_timeout_of_the_tunnel_service_bounds_the_handshake_that_it_asks_for() {
    let mut tunnel = service("tunnel", Check::Tunnel);
    // A timeout that no other check has.
    tunnel.timing.timeout = Duration::from_millis(3_300);
    let (mut world, id) = settled(with(with_direct(device(1)), vec![tunnel]));
    world.set(id, Truth { link: false, ..Truth::well() });
    world.run(10 * MINUTE);
    let own = world.asked.iter().filter(|(_, ask)| ask.timeout == Duration::from_millis(3_300));
    let handshakes = own.filter(|(_, ask)| matches!(ask.probe, Probe::Handshake { .. })).count();
    assert!(handshakes > 0, "it asks for none of its own");
}

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_engine::messages::{Check, DEFAULT_MTU, HostStatus, PeerKind};
use fleetgate_probes::sample::Status;

use super::*;
use crate::store::fixture::{self, TIMING, run};

fn names(spec: &HostSpec) -> Vec<&str> {
    spec.services.iter().map(|s| s.name.as_str()).collect()
}

#[tokio::test]
async fn a_peer_is_loaded_with_keys_addresses_and_snapshot() {
    let (store, _dir) = fixture::store().await;
    let id = fixture::device(&store, 7, "cam-07").await;
    let public = fleetgate_keys::PrivateKey::from_bytes([7; 32]).public();
    let sealed = store.seal(&psk_place(&public), &[9; 32]);
    sqlx::query("update peer_keys set psk = $1").bind(sealed).execute(&store.write).await.unwrap();
    run(&store, "update peers set networks = '[\"192.168.1.0/24\"]'", &[]).await;
    run(
        &store,
        "insert into peer_memory (peer, stamp, endpoint, rx_bytes) values (7, x'0102030405060708090a0b0c', $1, 5)",
        &["192.0.2.1:51820"],
    )
    .await;

    let (spec, memory) = store.peer_spec(id, DEFAULT_MTU).await.unwrap().unwrap();
    assert_eq!((spec.id, spec.kind), (id, PeerKind::Device));
    assert_eq!(spec.keys[0].public, public);
    assert_eq!(spec.keys[0].psk.as_ref().unwrap().as_bytes(), &[9; 32]);
    assert_eq!(spec.addresses, ["10.112.0.7".parse::<IpAddr>().unwrap(), "fd72::7".parse().unwrap()]);
    assert_eq!(spec.networks, ["192.168.1.0/24".parse().unwrap()]);
    assert_eq!(memory.stamp, Some(Tai64n([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])));
    assert_eq!((memory.endpoint, memory.rx_bytes), ("192.0.2.1:51820".parse().ok(), 5));
}

#[tokio::test]
async fn one_invalid_row_does_not_stop_the_others_from_loading() {
    let (store, _dir) = fixture::store().await;
    let good = fixture::device(&store, 7, "cam-07").await;
    let bad = fixture::device(&store, 8, "cam-08").await;
    run(&store, "update peer_keys set psk = x'00' where peer = 8", &[]).await;
    run(&store, "update hosts set profile = 'toaster' where id = 8", &[]).await;
    for (n, spoil) in [
        (9, "update hosts set labels = '[1]' where id = 9"),
        (10, "update hosts set parents = 'x' where id = 10"),
        (11, "update hosts set thresholds = 'x' where id = 11"),
    ] {
        fixture::device(&store, n, &format!("cam-{n}")).await;
        run(&store, spoil, &[]).await;
        run(&store, "update peers set networks = 'x' where id > 8", &[]).await;
    }
    let peers = store.all_peers(DEFAULT_MTU).await.unwrap();
    assert_eq!(peers.iter().map(|(spec, _)| spec.id).collect::<Vec<_>>(), [good]);
    let hosts = store.all_hosts(&TIMING).await.unwrap();
    assert_eq!(hosts.iter().map(|h| h.spec.id).collect::<Vec<_>>(), [good]);
    assert!(store.peer_spec(bad, DEFAULT_MTU).await.is_err());
    assert!(store.host_spec(bad, &TIMING).await.unwrap_err().to_string().contains(&bad.to_string()));
}

#[tokio::test]
async fn a_removed_peer_is_gone() {
    let (store, _dir) = fixture::store().await;
    let id = fixture::device(&store, 7, "cam-07").await;
    run(&store, "update peers set removed_at = 1", &[]).await;
    assert!(store.peer_spec(id, DEFAULT_MTU).await.unwrap().is_none());
    assert!(store.all_peers(DEFAULT_MTU).await.unwrap().is_empty());
    let spec = store.host_spec(id, &TIMING).await.unwrap().unwrap();
    assert_eq!((spec.peer, names(&spec)), (None, vec![]));
}

#[tokio::test]
async fn a_host_is_its_profile_its_overrides_and_the_settings() {
    let (store, _dir) = fixture::store().await;
    let id = fixture::device(&store, 7, "cam-07").await;
    run(&store, "update hosts set interval_ms = 5000, ssh_user = 'probe'", &[]).await;
    for (service, disabled, definition) in [
        ("disk", "1", "{}"),
        ("http", "0", r#"{"check":{"type":"tcp","port":80},"interval_s":7}"#),
        ("mounts", "1", "{}"),
        ("load", "1", "{}"),
        ("memory", "1", "{}"),
        ("temperature", "1", "{}"),
    ] {
        run(
            &store,
            "insert into service_overrides (host, service, disabled, definition)
             values (7, $1, cast($2 as integer), $3)",
            &[service, disabled, definition],
        )
        .await;
    }
    let spec = store.host_spec(id, &TIMING).await.unwrap().unwrap();
    assert_eq!(names(&spec), ["tunnel", "ping", "ssh", "uptime", "http"]);
    assert_eq!((spec.peer, spec.own_tunnel, spec.address), (Some(id), true, "10.112.0.7".parse().ok()));
    let seconds = |n| Duration::from_secs(n);
    assert_eq!((spec.timing.interval, spec.timing.timeout), (seconds(5), seconds(4)));
    assert_eq!(spec.services[1].timing.interval, TIMING.ping_interval);
    assert_eq!(spec.services[4].check, Check::Tcp { port: 80 });
    assert_eq!(spec.services[4].timing.interval, seconds(7));
}

#[tokio::test]
async fn thresholds_of_a_rental_count_while_it_is_active() {
    let (store, _dir) = fixture::store().await;
    let id = fixture::device(&store, 7, "cam-07").await;
    for sql in [
        "insert into customers (id, created_at) values (1, 0)",
        "insert into bookings (id, customer, author, created_at) values (2, 1, '', 0)",
        r#"insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms,
                                turnaround_ms, created_at, announced_state, thresholds)
           values (10, 2, 7, 1000, 9000, 1000, 0, 0, 0, 'booked',
                   '{"ping":[{"metric":"rta","crit":"7"}],"none":[{"metric":"x","crit":"7"}]}')"#,
    ] {
        run(&store, sql, &[]).await;
    }
    let limited = async || {
        let spec = store.host_spec(id, &TIMING).await.unwrap().unwrap();
        let all = store.all_hosts(&TIMING).await.unwrap();
        assert!(all.iter().any(|memory| memory.spec == spec), "as at a start");
        let ping = spec.services.iter().find(|service| service.name == "ping").unwrap();
        ping.usual.is_some()
    };
    assert!(!limited().await, "it has not begun");
    run(&store, "update rentals set announced_state = 'active'", &[]).await;
    assert!(limited().await);
    run(&store, "update rentals set announced_state = 'closed'", &[]).await;
    assert!(!limited().await);
    run(&store, "update rentals set announced_state = 'active', thresholds = 'x'", &[]).await;
    assert!(!limited().await, "a damaged rental takes no host away");
}

/// A device may use only one of its two addresses, so the engine gets both.
#[tokio::test]
async fn a_device_has_an_inner_address_of_each_family() {
    let (store, _dir) = fixture::store().await;
    let id = fixture::device(&store, 7, "cam-07").await;
    let inside = async || {
        let spec = store.host_spec(id, &TIMING).await.unwrap().unwrap();
        (spec.address, spec.other_address)
    };
    assert_eq!(inside().await, ("10.112.0.7".parse().ok(), "fd72::7".parse().ok()));
    assert_eq!(nas_behind_device_7(&store).await.other_address, None, "it has one, behind the device");
    run(&store, "update addresses set released_at = 1 where address = '10.112.0.7'", &[]).await;
    assert_eq!(inside().await, ("fd72::7".parse().ok(), None));
    run(
        &store,
        "update addresses set address = '10.112.0.8', released_at = null where address = 'fd72::7'",
        &[],
    )
    .await;
    assert_eq!(inside().await, ("10.112.0.8".parse().ok(), None));
}

/// Returns the engine's host behind device 7.
async fn nas_behind_device_7(store: &Store) -> HostSpec {
    run(
        store,
        "insert into hosts (id, name, profile, via, address, created_at)
         values (8, 'nas', 'default', 7, '192.168.1.5', 0)",
        &[],
    )
    .await;
    store.host_spec(Id::from_i64(8), &TIMING).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_host_behind_a_device_is_reached_through_it() {
    let (store, _dir) = fixture::store().await;
    let device = fixture::device(&store, 7, "site-1").await;
    let spec = nas_behind_device_7(&store).await;
    assert_eq!((spec.peer, spec.own_tunnel), (Some(device), false));
    assert_eq!(spec.address, "192.168.1.5".parse().ok());
}

#[tokio::test]
async fn a_host_behind_a_device_has_its_traffic_budget() {
    let (store, _dir) = fixture::store().await;
    fixture::device(&store, 7, "site-1").await;
    run(&store, "update hosts set budget_bytes_per_day = 50000", &[]).await;
    let spec = nas_behind_device_7(&store).await;
    assert_eq!(spec.budget, Some(50_000));
}

#[tokio::test]
async fn the_start_of_waiting_for_a_job_survives_a_restart() {
    let (store, _dir) = fixture::store().await;
    let id = fixture::device(&store, 7, "cam-07").await;
    run(
        &store,
        "insert into service_overrides (host, service, disabled, definition)
         values (7, 'backup', 0, '{\"check\":{\"type\":\"heartbeat\",\"by\":\"03:00\"}}')",
        &[],
    )
    .await;
    store.settle(&store.host_spec(id, &TIMING).await.unwrap().unwrap()).await.unwrap();
    let services = store.all_hosts(&TIMING).await.unwrap().remove(0).services;
    let waited: Vec<_> = services.iter().map(|s| (s.name.as_str(), s.status)).collect();
    assert_eq!(waited, [("backup", None)]);
}

#[tokio::test]
async fn states_survive_a_restart_except_those_of_removed_services() {
    let (store, _dir) = fixture::store().await;
    let id = fixture::device(&store, 7, "cam-07").await;
    let first = store.all_hosts(&TIMING).await.unwrap();
    assert!(first[0].state.is_none() && first[0].services.is_empty());

    let ping = fixture::service("ping", Status::Critical);
    let mut tx = store.begin().await.unwrap();
    states::write_hosts(&mut tx, &[&fixture::up(id)]).await.unwrap();
    states::write_services(&mut tx, &[(id, &ping), (id, &fixture::service("gone", Status::Ok))])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let again = store.all_hosts(&TIMING).await.unwrap();
    assert_eq!(again[0].state.as_ref().unwrap().hard, HostStatus::Up);
    assert_eq!(again[0].state, Some(fixture::up(id)));
    assert_eq!(again[0].services, [ping]);

    run(&store, "insert into service_overrides (host, service, disabled) values (7, 'ping', 1)", &[]).await;
    assert!(store.all_hosts(&TIMING).await.unwrap()[0].services.is_empty());
    let rows: Vec<(String,)> =
        sqlx::query_as("select service from service_states").fetch_all(&store.read).await.unwrap();
    assert_eq!(rows, [("tunnel".to_owned(),)]);
}

use fleetgate_engine::messages::{HostStatus, ServiceState};
use fleetgate_probes::sample::Status;

use super::problems::TROUBLES;
use super::totals::{COUNT_HOSTS, COUNT_SERVICES};
use super::*;
use crate::store::fixture::{self, TIMING, run};
use crate::store::lists::readable;
use crate::store::states;

async fn put(store: &Store, hosts: &[HostState], services: &[(HostId, ServiceState)]) {
    let mut tx = store.begin().await.unwrap();
    states::write_hosts(&mut tx, &hosts.iter().collect::<Vec<_>>()).await.unwrap();
    let services: Vec<_> = services.iter().map(|(host, s)| (*host, s)).collect();
    states::write_services(&mut tx, &services).await.unwrap();
    tx.commit().await.unwrap();
}

fn down(host: HostId, reachable: bool) -> HostState {
    HostState { status: HostStatus::Down, hard: HostStatus::Down, reachable, ..fixture::up(host) }
}

/// Creates four hosts, one in each part. `a` has a critical ping. `b` has a stale ping and a
/// critical tunnel.
async fn fleet() -> (Store, tempfile::TempDir) {
    let (store, dir) = fixture::store().await;
    for (n, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        fixture::device(&store, n, name).await;
    }
    store.all_hosts(&TIMING).await.unwrap();
    let id = Id::from_i64;
    let stale = ServiceState { stale: true, ..fixture::service("ping", Status::Critical) };
    let failing =
        ServiceState { since: Wall::from_millis(9_000), ..fixture::service("ping", Status::Critical) };
    put(
        &store,
        &[fixture::up(id(1)), down(id(2), true), down(id(3), false)],
        &[
            (id(1), failing),
            (id(1), fixture::service("tunnel", Status::Ok)),
            (id(2), stale),
            (id(2), fixture::service("tunnel", Status::Critical)),
        ],
    )
    .await;
    (store, dir)
}

async fn names(store: &Store, filter: Filter) -> Vec<String> {
    readable(store.hosts(&filter, "", 99).await.unwrap()).into_iter().map(|h| h.name).collect()
}

async fn totals(store: &Store) -> Totals {
    super::totals(&mut store.reader().await.unwrap(), None).await.unwrap()
}

async fn troubles(store: &Store, after: &TroublePlace, limit: i64) -> Vec<Trouble> {
    super::troubles(&mut store.reader().await.unwrap(), after, limit).await.unwrap()
}

#[tokio::test]
async fn counters_and_problems_read_only_rows_that_are_not_plainly_ok() {
    let (store, _dir) = fixture::store().await;
    let mut conn = store.reader().await.unwrap();
    for sql in [COUNT_HOSTS, COUNT_SERVICES, TROUBLES] {
        let sql = sqlx::AssertSqlSafe(format!("explain query plan {sql}"));
        let rows: Vec<(i64, i64, i64, String)> = sqlx::query_as(sql)
            .bind(0)
            .bind(0)
            .bind("")
            .bind("")
            .bind(0)
            .fetch_all(&mut *conn)
            .await
            .unwrap();
        let plan = rows.into_iter().map(|row| row.3).collect::<Vec<_>>().join("; ");
        // A full count must use a narrow index.
        for table in ["SCAN host_states", "SCAN service_states", "SCAN s", "SCAN c"] {
            let scans = plan.split("; ").filter(|step| step.split(" USING").next() == Some(table));
            assert!(scans.into_iter().all(|step| step.contains("INDEX")), "{plan}");
        }
    }
}

#[tokio::test]
async fn the_counters_are_a_partition() {
    let (store, _dir) = fleet().await;
    let totals = totals(&store).await;
    assert_eq!((totals.up, totals.down, totals.unreachable, totals.pending), (1, 1, 1, 1));
    let services = ServiceTally { ok: 1, critical: 1, pending: 4, stale: 2, ..ServiceTally::default() };
    assert_eq!(totals.services, services);
    assert_eq!(totals.last_check, Some(Wall::from_millis(2_000)));
}

#[tokio::test]
async fn a_row_has_state_tunnel_and_counts() {
    let (store, _dir) = fleet().await;
    run(&store, "insert into peer_memory (peer, endpoint, rx_bytes) values (1, '192.0.2.1:1', 7)", &[]).await;
    let mut conn = store.reader().await.unwrap();
    let row = by_name(&mut conn, "a").await.unwrap().unwrap();
    assert_eq!(row.state, Some(fixture::up(row.id)));
    assert_eq!(row.address.as_deref(), Some("10.112.0.1"));
    assert_eq!(row.services, ServiceTally { ok: 1, critical: 1, ..ServiceTally::default() });
    let tunnel = row.tunnel.clone().unwrap();
    assert_eq!((tunnel.endpoint.as_deref(), tunnel.rx_bytes), (Some("192.0.2.1:1"), 7));
    assert_eq!(by_id(&mut conn, row.id).await.unwrap(), Some(row));
}

#[tokio::test]
async fn lists_are_filtered_and_continue_after_a_name() {
    let (store, _dir) = fleet().await;
    run(&store, r#"update hosts set labels = '{"rack":"7","site":"North"}' where id in (1, 4)"#, &[]).await;
    let state = |s: &str| Filter { state: Some(s.to_owned()), ..Filter::default() };
    for (wanted, expected) in [("up", "a"), ("down", "b"), ("unreachable", "c"), ("pending", "d")] {
        assert_eq!(names(&store, state(wanted)).await, [expected]);
    }
    let label = |v: &str| Filter { labels: vec![("site".into(), v.to_owned())], ..Filter::default() };
    assert_eq!(names(&store, label("North")).await, ["a", "d"]);
    assert!(names(&store, label("Nor")).await.is_empty());
    assert_eq!(names(&store, Filter { q: Some("NORTH".into()), ..Filter::default() }).await, ["a", "d"]);
    let rest = readable(store.hosts(&Filter::default(), "b", 1).await.unwrap());
    assert_eq!(rest.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn problems_come_worst_first_and_in_pages() {
    let (store, _dir) = fleet().await;
    let all = troubles(&store, &TroublePlace::first(), 9).await;
    let shown: Vec<_> = all
        .iter()
        .map(|t| (t.place.host_name.as_str(), t.place.service.as_str(), t.state.as_str()))
        .collect();
    let expected = [("b", "", "down"), ("a", "ping", "critical"), ("c", "", "unreachable")];
    assert_eq!(shown, expected, "a host that is down speaks for its services");
    let second = troubles(&store, &all[1].place, 1).await;
    assert_eq!(second, all[2..]);
    assert_eq!(all[1].place.since(), Wall::from_millis(9_000));
}

#[tokio::test]
async fn problems_show_acknowledgements_and_downtimes() {
    let (store, _dir) = fleet().await;
    let ack = "insert into acknowledgements (id, host, service, sticky, author, comment, created_at)
               select 1, id, 'ping', 0, 'user:ada', 'on it', 0 from hosts where name = 'a'";
    run(&store, ack, &[]).await;
    let downtime =
        "update host_states set notification = json_set(notification, '$.in_downtime', json('true'))
                    where host = (select id from hosts where name = 'c')";
    run(&store, downtime, &[]).await;
    let all = troubles(&store, &TroublePlace::first(), 9).await;
    let marks: Vec<_> = all.iter().map(|t| (t.acknowledged, t.in_downtime, t.handled)).collect();
    let untouched = (false, false, false);
    assert_eq!(marks, [untouched, (true, false, true), (false, true, true)], "what is handled is last");
    let totals = totals(&store).await;
    assert_eq!((totals.problems(), totals.handled, totals.services.handled), (1, 1, 1));
}

#[tokio::test]
async fn a_removed_host_is_in_no_count() {
    let (store, _dir) = fleet().await;
    run(&store, "update hosts set removed_at = 1 where name = 'b'", &[]).await;
    store.all_hosts(&TIMING).await.unwrap();
    let totals = totals(&store).await;
    assert_eq!((totals.down, totals.services.stale), (0, 0));
    assert!(names(&store, Filter { state: Some("down".into()), ..Filter::default() }).await.is_empty());
}

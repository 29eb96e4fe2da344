//! Headline, tiles, list and exit code count the same things in every fleet.

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{HostState, HostStatus, NotificationState, ServiceState};
use fleetgate_probes::sample::Status;

use crate::api::hosts::Host;
use crate::api::overview::types::{HostCounts, Overview, Problem};
use crate::api::services::ServiceCounts;
use crate::api::testing::TestApi;
use crate::api::types::Page;
use crate::engine::live_state::Change;
use crate::store::fixture::{self, Dice, TIMING};
use crate::store::{Store, states};

/// Hosts of a fleet. Each has two services.
const HOSTS: u8 = 12;
const FLEETS: u64 = 40;

fn notification(dice: &mut Dice) -> NotificationState {
    NotificationState {
        in_downtime: dice.once_in(4),
        flapping: dice.once_in(4),
        ..NotificationState::default()
    }
}

fn host(dice: &mut Dice, id: i64) -> HostState {
    let hard =
        [HostStatus::Up, HostStatus::Down, HostStatus::Down, HostStatus::Pending][dice.below(4) as usize];
    HostState {
        status: hard,
        hard,
        reachable: dice.once_in(2),
        stale: dice.once_in(3),
        asleep: dice.once_in(4),
        notification: notification(dice),
        ..fixture::up(Id::from_i64(id))
    }
}

fn service(dice: &mut Dice, name: &str) -> ServiceState {
    let all = [None, Some(Status::Ok), Some(Status::Warning), Some(Status::Critical), Some(Status::Unknown)];
    let hard = all[dice.below(5) as usize];
    let state = fixture::service(name, hard.unwrap_or(Status::Ok));
    ServiceState { hard, status: hard, stale: dice.once_in(3), notification: notification(dice), ..state }
}

/// Generates a fleet: states, downtimes, acknowledgements.
async fn throw(store: &Store, dice: &mut Dice) {
    let mut tx = store.begin().await.unwrap();
    sqlx::query("delete from acknowledgements").execute(&mut *tx).await.unwrap();
    for id in 1..=i64::from(HOSTS) {
        states::write_hosts(&mut tx, &[&host(dice, id)]).await.unwrap();
        let services = ["ping", "tunnel"].map(|name| service(dice, name));
        let services: Vec<_> = services.iter().map(|service| (Id::from_i64(id), service)).collect();
        states::write_services(&mut tx, &services).await.unwrap();
        for service in ["", "ping", "tunnel"] {
            let (known, over) = (dice.once_in(3), dice.once_in(3));
            let sql =
                "insert into acknowledgements (host, service, sticky, author, comment, created_at, ended_at)
                       values ($1, $2, 0, 'user:ada', '', 0, $3)";
            let insert = sqlx::query(sql).bind(id).bind(service).bind(over.then_some(9));
            if known {
                insert.execute(&mut *tx).await.unwrap();
            }
        }
    }
    tx.commit().await.unwrap();
}

async fn problems(api: &TestApi) -> Vec<Problem> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let answer = api.viewer().get(&format!("/api/v1/problems?limit=5{after}")).await;
        assert_eq!(answer.status, 200, "{after}: {}", answer.text);
        let page: Page<Problem> = serde_json::from_value(answer.json).unwrap();
        all.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

async fn hosts(api: &TestApi, filter: &str) -> Vec<Host> {
    let answer = api.viewer().get(&format!("/api/v1/hosts?limit=99{filter}")).await;
    assert_eq!(answer.status, 200, "{filter}: {}", answer.text);
    serde_json::from_value::<Page<Host>>(answer.json).unwrap().items
}

fn count(list: &[Problem], of_services: bool, state: &str) -> i64 {
    let is = |p: &&Problem| !p.handled && p.service.is_some() == of_services && p.state == state;
    list.iter().filter(is).count() as i64
}

fn total(s: &ServiceCounts) -> i64 {
    s.ok + s.warning + s.critical + s.unknown + s.pending + s.stale + s.handled
}

fn added(a: &ServiceCounts, b: &ServiceCounts) -> ServiceCounts {
    ServiceCounts {
        ok: a.ok + b.ok,
        warning: a.warning + b.warning,
        critical: a.critical + b.critical,
        unknown: a.unknown + b.unknown,
        pending: a.pending + b.pending,
        stale: a.stale + b.stale,
        handled: a.handled + b.handled,
    }
}

/// Computes the exit code from the list alone.
fn exit_code(list: &[Problem]) -> u8 {
    let worst = |p: &Problem| if matches!(&*p.state, "down" | "unreachable" | "critical") { 2 } else { 1 };
    list.iter().filter(|p| !p.handled).map(worst).max().unwrap_or(0)
}

async fn check(api: &TestApi, seed: u64) {
    let overview: Overview = serde_json::from_value(api.viewer().get("/api/v1/overview").await.json).unwrap();
    let (list, rows) = (problems(api).await, hosts(api, "").await);
    let Overview { hosts: h, services: s, .. } = &overview;
    for (state, tile) in [("down", h.down), ("unreachable", h.unreachable), ("stale", h.stale)] {
        assert_eq!(count(&list, false, state), tile, "seed {seed}: hosts {state}");
    }
    for (state, tile) in [("warning", s.warning), ("critical", s.critical), ("unknown", s.unknown)] {
        assert_eq!(count(&list, true, state), tile, "seed {seed}: services {state}");
    }
    let handled = list.iter().filter(|p| p.handled).count() as i64;
    assert_eq!((handled, list.len() as i64 - handled), (overview.handled, overview.problems), "seed {seed}");
    assert!(list.is_sorted_by_key(|p| p.handled), "seed {seed}: what is handled comes last");
    assert!(list.iter().all(|p| p.handled == (p.acknowledged || p.in_downtime)), "seed {seed}");
    assert_eq!(overview.exit_code(), exit_code(&list), "seed {seed}");
    let speaks = |p: &Problem| {
        rows.iter().any(|h| h.name == p.host_name && h.state.state != "down" && h.state.reachable)
    };
    assert!(list.iter().filter(|p| p.service.is_some()).all(speaks), "seed {seed}: its host is the problem");

    let HostCounts { up, down, unreachable, pending, stale, handled, asleep } = h.clone();
    assert_eq!(up + down + unreachable + pending + stale + handled, i64::from(HOSTS), "seed {seed}");
    assert_eq!(total(s), 2 * i64::from(HOSTS), "seed {seed}");
    assert_eq!(rows.iter().fold(ServiceCounts::default(), |sum, row| added(&sum, &row.services)), *s);
    let tiles = [("up", up), ("down", down), ("unreachable", unreachable), ("pending", pending)];
    for (part, tile) in tiles.into_iter().chain([("stale", stale), ("handled", handled), ("asleep", asleep)])
    {
        let found = hosts(api, &format!("&state={part}")).await.len() as i64;
        assert_eq!(found, tile, "seed {seed}: the list of {part}");
    }
}

#[tokio::test]
async fn tiles_list_filters_and_exit_code_agree_on_any_fleet() {
    let api = TestApi::new().await;
    for n in 1..=HOSTS {
        fixture::device(&api.state.store, n, &format!("cam-{n:02}")).await;
    }
    api.state.store.all_hosts(&TIMING).await.unwrap();
    // Keep only the two generated services.
    let others = "delete from service_states where service not in ('ping', 'tunnel')";
    sqlx::query(others).execute(&api.state.store.write).await.unwrap();
    for seed in 0..FLEETS {
        throw(&api.state.store, &mut Dice(seed)).await;
        api.state.live.tell(Change::Problems);
        check(&api, seed).await;
    }
}

//! How changes reach the threads.

use super::*;
use crate::store::fixture;
use fleetgate_engine::messages::DEFAULT_MTU;

#[tokio::test]
async fn a_withdrawn_grant_does_not_wait_for_the_monitor() {
    let (store, _dir) = fixture::store().await;
    let (to_tunnel, mut commands) = mpsc::channel(8);
    let (to_monitor, _inputs) = mpsc::channel(1);
    let handle =
        Handle::new(store, LiveState::default(), (fixture::TIMING, DEFAULT_MTU), to_tunnel, to_monitor);
    // The monitor takes nothing, and its queue is full.
    handle.nudge();
    let changed = |changes: Changes| {
        let handle = handle.clone();
        tokio::spawn(async move { handle.changed(changes).await })
    };
    let host = changed(Changes { hosts: [Id::from_i64(7)].into(), ..Changes::default() });
    assert!(matches!(commands.recv().await, Some(Command::Policy(_))), "the host is no target");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!host.is_finished(), "the monitor does not have the host");
    let policy = PolicyRows { grants: [Id::from_i64(9)].into(), ..PolicyRows::default() };
    changed(Changes { policy, ..Changes::default() });
    let next = tokio::time::timeout(Duration::from_secs(5), commands.recv()).await.expect("at once");
    let Some(Command::Policy(changes)) = next else { panic!("a change of the policy") };
    assert_eq!(changes, [PolicyChange::WithdrawGrant(Id::from_i64(9))]);
}

#[tokio::test]
async fn the_rentals_of_a_profile_reach_both_threads_in_slices() {
    let (store, _dir) = fixture::store().await;
    let (to_tunnel, mut commands) = mpsc::channel(8);
    let (to_monitor, mut inputs) = mpsc::channel(QUEUE);
    let handle =
        Handle::new(store, LiveState::default(), (fixture::TIMING, DEFAULT_MTU), to_tunnel, to_monitor);
    let settled: BTreeSet<RentalId> = (1..=600).map(Id::from_i64).collect();
    handle.changed(Changes { settled, ..Changes::default() }).await;
    let mut slices = Vec::new();
    while let Ok(Command::Policy(changes)) = commands.try_recv() {
        slices.push(changes.len());
    }
    assert_eq!(slices, [2 * GRANTS_AT_ONCE, 200], "the grant and the target of each");
    let mut forgotten = 0;
    while let Ok(MonitorInput::ForgetHandover(_)) = inputs.try_recv() {
        forgotten += 1;
    }
    assert_eq!(forgotten, 600);
    assert!(handle.behind().is_empty());
}

//! Notifies people once that a restore waits for an admin. The confirmation ends it (`api/restore_review.rs`).

use serde_json::json;

use crate::clock;
use crate::engine::live_state::{Change, LiveState};
use crate::health::restore_problem;
use crate::ids;
use crate::notification::{Wakeups, gateway_message};
use crate::store::events::{self, NewEvent, RESTORE_SERVICE, RESTORE_UNCONFIRMED};
use crate::store::{Store, instance, notices};

/// Adds the event and the notification at the first start after a restore. A failure is repeated at the next
/// start: the gateway shows the problem in any case.
pub async fn notify_once(store: &Store, live: &LiveState, wakeups: &Wakeups) {
    match noted(store).await {
        Ok(Some(seq)) => {
            live.tell(Change::Event(seq));
            wakeups.notices();
        }
        Ok(None) => {}
        Err(error) => tracing::warn!("that a restore waits for an admin is not notified: {error}"),
    }
}

/// Returns the number of the event, if it is new.
async fn noted(store: &Store) -> crate::store::Result<Option<i64>> {
    let mut tx = store.begin().await?;
    let Some(restored_at) = instance::unconfirmed(&mut tx).await? else { return Ok(None) };
    let (text, now) = (restore_problem(restored_at), clock::wall());
    tracing::warn!("{text}");
    if events::restore_is_noted(&mut tx).await? {
        return Ok(None);
    }
    let data = json!({ "restored_at": ids::time(restored_at) });
    let event = NewEvent::new(now, RESTORE_UNCONFIRMED, events::NOBODY, &text, events::SYSTEM);
    let seq = events::append(&mut tx, &NewEvent { data, ..event }).await?;
    notices::insert(&mut tx, &gateway_message(RESTORE_SERVICE, true, &text, now), Some(seq)).await?;
    tx.commit().await?;
    Ok(Some(seq))
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::time::Wall;

    use super::*;
    use crate::store::fixture;

    #[tokio::test]
    async fn people_are_notified_once_for_each_restore() {
        let (store, _dir) = fixture::store().await;
        let (live, wakeups) = (LiveState::default(), Wakeups::default());
        notify_once(&store, &live, &wakeups).await;
        let notices = "select service || ' ' || kind from notices";
        assert_eq!(fixture::texts(&store, notices).await, [""; 0], "a first start");
        fixture::restored(&store, Wall::from_millis(1_700_000_000_000)).await;
        for _ in 0..2 {
            notify_once(&store, &live, &wakeups).await;
            assert_eq!(fixture::texts(&store, notices).await, ["restore problem"]);
        }
        // Another restore, whose backup has the event of the former one.
        let event = NewEvent::new(clock::wall(), "gateway.restored", events::NOBODY, "again", events::SYSTEM);
        let mut tx = store.begin().await.unwrap();
        events::append(&mut tx, &event).await.unwrap();
        tx.commit().await.unwrap();
        notify_once(&store, &live, &wakeups).await;
        assert_eq!(fixture::texts(&store, notices).await, ["restore problem", "restore problem"]);
    }
}

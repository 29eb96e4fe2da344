//! Cuts the intervals that a clock that was ahead has left in the future, once the clock is right.

use std::time::Duration;

use fleetgate_engine::time::{Mono, Now, Wall};

use crate::store::{Store, intervals};

/// How long after a step back, an acceptance or a start the intervals are looked at: a clock that was ahead
/// may have left some in the future, and it may be set more than once.
const CUT_AFTER: Duration = Duration::from_secs(60);

/// When the intervals are looked at next.
pub(super) struct FutureIntervals {
    due: Option<Mono>,
}

impl FutureIntervals {
    /// The gateway starts.
    pub fn new(now: Mono) -> FutureIntervals {
        FutureIntervals { due: Some(now + CUT_AFTER) }
    }

    /// The clock was set back, or an admin has accepted it.
    pub fn may_exist(&mut self, now: Mono) {
        self.due = self.due.or(Some(now + CUT_AFTER));
    }

    /// A clock that is `behind` its greatest time would cut intervals of the past.
    pub async fn look(&mut self, store: &Store, now: Now, behind: bool) {
        let is_due = self.due.is_some_and(|at| at <= now.mono);
        if !is_due || behind {
            return;
        }
        self.due = match cut(store, now.wall).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!("intervals in the future stay for now: {error}");
                Some(now.mono + CUT_AFTER)
            }
        };
    }
}

async fn cut(store: &Store, now: Wall) -> crate::store::Result<()> {
    if !intervals::has_future(&mut *store.reader().await?, now).await? {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    intervals::remove_future(&mut tx, now).await?;
    tx.commit().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture;

    fn wall(s: i64) -> Wall {
        Wall::from_millis(s * 1_000)
    }

    /// Returns the ends of the intervals, in seconds.
    async fn ends(store: &Store) -> Vec<String> {
        fixture::texts(store, "select cast(ended_at / 1000 as text) from intervals").await
    }

    #[tokio::test]
    async fn intervals_in_the_future_are_cut_a_minute_after_a_step_by_a_clock_that_is_right() {
        let (store, _dir) = fixture::store().await;
        let mut tx = store.begin().await.unwrap();
        intervals::add_stop(&mut tx, wall(1_000), wall(9_000)).await.unwrap();
        tx.commit().await.unwrap();
        let at = |mono_s| Now { mono: Mono::from_secs(mono_s), wall: wall(5_000) };
        let mut future = FutureIntervals::new(Mono::from_secs(10));
        future.look(&store, at(69), false).await;
        assert_eq!(ends(&store).await, ["9000"], "the clock may be set more than once");
        future.look(&store, at(70), true).await;
        assert_eq!(ends(&store).await, ["9000"], "the clock is behind");
        future.look(&store, at(72), false).await;
        assert_eq!(ends(&store).await, ["5000"]);
        assert_eq!(future.due, None);
        future.may_exist(Mono::from_secs(100));
        future.may_exist(Mono::from_secs(130));
        assert_eq!(future.due, Some(Mono::from_secs(160)), "many steps do not put it off");
    }
}

//! Looks at the free space of the disk, and says so when it becomes too little or enough again.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Recorder;
use crate::health::{Health, Space};

/// Interval between two looks. The API looks by itself before each change.
const EVERY: Duration = Duration::from_secs(10);

/// The free space below which something stops, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The history is not written below it.
    pub history: u64,
    /// Results and changes are refused below it.
    pub reserve: u64,
}

/// Looks at once and then regularly.
pub fn start(
    tasks: &mut JoinSet<()>,
    recorder: Recorder,
    health: Health,
    limits: Limits,
    stop: CancellationToken,
) {
    for (limit, bytes) in [("history", limits.history), ("reserve", limits.reserve)] {
        metrics::gauge!("fleetgate_disk_limit_bytes", "limit" => limit).set(bytes as f64);
    }
    look(&recorder, &health, limits);
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => look(&recorder, &health, limits),
                () = stop.cancelled() => return,
            }
        }
    });
}

fn look(recorder: &Recorder, health: &Health, limits: Limits) {
    let free = recorder.0.store.free_bytes();
    if let Some(free) = free {
        metrics::gauge!("fleetgate_disk_free_bytes").set(free as f64);
    }
    let space = space(free, limits);
    recorder.bound_redo(redo_bound(space, limits));
    if !health.space_is(space) {
        return;
    }
    match space.problem() {
        Some(problem) => tracing::warn!("{} MB are free: {problem}", free.unwrap_or_default() >> 20),
        None => tracing::warn!("the disk has room again: history, results and changes are written"),
    }
}

/// A file system that does not say how much is free counts as one with room.
fn space(free: Option<u64>, limits: Limits) -> Space {
    match free {
        Some(free) if free < limits.reserve => Space::Reserved,
        Some(free) if free < limits.history => Space::Low,
        _ => Space::Enough,
    }
}

/// The bytes of unsealed samples that may wait in the main database. `None`: as many as usual. Samples that wait for a
/// nearly full disk must not fill it up to the reserve.
fn redo_bound(space: Space, limits: Limits) -> Option<u64> {
    match space {
        Space::Enough => None,
        Space::Low => Some(limits.history.saturating_sub(limits.reserve) / 2),
        Space::Reserved => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keep;
    use super::*;
    use crate::store::fixture;

    #[test]
    fn each_limit_begins_with_the_first_byte_that_is_missing() {
        let limits = Limits { history: 256, reserve: 64 };
        let of = |free| space(Some(free), limits);
        assert_eq!((of(256), of(255), of(64)), (Space::Enough, Space::Low, Space::Low));
        assert_eq!((of(63), of(0)), (Space::Reserved, Space::Reserved));
        assert_eq!(space(None, limits), Space::Enough);
    }

    #[test]
    fn what_waits_for_a_nearly_full_disk_does_not_fill_it() {
        let limits = Limits { history: 256, reserve: 64 };
        let of = |space| redo_bound(space, limits);
        assert_eq!((of(Space::Enough), of(Space::Low), of(Space::Reserved)), (None, Some(96), Some(0)));
    }

    #[tokio::test]
    async fn a_look_records_what_the_file_system_says() {
        let (store, _dir) = fixture::store().await;
        let recorder = Recorder::open(store, Keep::ALL).await.unwrap();
        let health = Health::default();
        let mut tasks = JoinSet::new();
        let limits = Limits { history: u64::MAX, reserve: 0 };
        start(&mut tasks, recorder.clone(), health.clone(), limits, CancellationToken::new());
        assert_eq!(health.space(), Space::Low, "before anything else begins");
        look(&recorder, &health, Limits { reserve: u64::MAX, ..limits });
        assert_eq!(health.space(), Space::Reserved);
        look(&recorder, &health, Limits { history: 0, reserve: 0 });
        assert_eq!(health.space(), Space::Enough);
    }
}

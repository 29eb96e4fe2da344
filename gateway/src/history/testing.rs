//! Records samples as the writer does, for tests of what reads them.

use fleetgate_engine::messages::Sample;

use super::Recorder;
use crate::store::Store;
use crate::store::history::{redo, series};

/// # Panics
/// Panics when a sample is not taken.
pub async fn record(recorder: &Recorder, store: &Store, samples: &[Sample]) {
    let mut turn = recorder.turn().await;
    let mut tx = store.begin().await.expect("a transaction");
    let (cache, since) = turn.series();
    let numbered = series::number(&mut tx, cache, samples, since).await.expect("numbers");
    assert_eq!((numbered.refused, numbered.too_old), (0, 0));
    let generation = turn.generation();
    let rows = turn.rows(numbered);
    redo::append(&mut tx, generation, &rows).await.expect("a redo");
    tx.commit().await.expect("a commit");
    turn.committed().expect("samples in memory");
}

//! A store in a folder of its own, for tests.

use fleetgate_keys::SealKey;
use tempfile::TempDir;

use super::Store;

pub(crate) async fn store() -> (Store, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    (Store::open(dir.path(), SealKey::from_bytes([1; 32])).await.expect("a new store"), dir)
}

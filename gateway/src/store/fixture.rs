//! A store in a folder of its own, for tests.

use tempfile::TempDir;

use super::Store;

pub(crate) async fn store() -> (Store, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    (Store::open(dir.path()).await.expect("a new store"), dir)
}

//! A new store as files, for tests. Each test is a process of its own, and the steps of the schema take longer
//! than most of them: the first process runs the steps, and the others copy what they made.
//!
//! Tests of the steps themselves open a store of their own, which runs all of them.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use fleetgate_keys::SealKey;

use super::files::{HISTORY_FILE, MAIN_FILE, SIDE_FILES, beside};
use super::{HISTORY, MAIN, Store};

const FILES: [&str; 2] = [MAIN_FILE, HISTORY_FILE];

/// Columns that differ between two new stores, because a step writes something random or the time.
pub(super) const OF_EACH_STORE: [(&str, &str); 2] = [("instance", "epoch"), ("grants", "created_at")];

/// Gives a copy its own values in [`OF_EACH_STORE`], as the steps write them.
pub(super) const MAKE_ITS_OWN: [&str; 2] = [
    "update instance set epoch = lower(hex(randomblob(8)))",
    "update grants set created_at = cast(unixepoch('subsec') * 1000 as integer)",
];

/// Copies the databases of the template into `dir`.
pub(super) fn copy_to(dir: &Path) {
    let template = made();
    for file in FILES {
        fs::copy(template.join(file), dir.join(file)).expect("a copy of a database");
    }
}

/// Returns the folder of the template. The first caller makes it while the others wait.
fn made() -> PathBuf {
    let out = Path::new(env!("OUT_DIR"));
    let template = out.join(format!("store-{:016x}", digest()));
    if template.exists() {
        return template;
    }
    fs::create_dir_all(out).expect("the build's own folder");
    let lock = File::create(out.join("store.lock")).expect("a file to lock");
    lock.lock().expect("the lock");
    if !template.exists() {
        make(&template);
    }
    template
}

/// Returns a digest of what the databases depend on. A change of a dependency changes `OUT_DIR`.
fn digest() -> u64 {
    let mut hasher = DefaultHasher::new();
    for step in MAIN.iter().chain(&HISTORY) {
        (step.version, step.name, step.sql).hash(&mut hasher);
    }
    // How the files are opened, and how they are made.
    [include_str!("mod.rs"), include_str!("template.rs")].hash(&mut hasher);
    hasher.finish()
}

/// Makes it under another name, so that an interrupted process leaves no half of a template.
fn make(template: &Path) {
    let part = template.with_extension("part");
    if part.exists() {
        fs::remove_dir_all(&part).expect("what an interrupted process left can be removed");
    }
    fs::create_dir(&part).expect("a new folder");
    // The caller holds the lock, and another task of its runtime may wait for it. So it waits for this thread
    // instead of awaiting.
    std::thread::scope(|scope| scope.spawn(|| migrate_in(&part)).join()).expect("a new store");
    fs::rename(&part, template).expect("a new name");
}

fn migrate_in(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        Store::open(dir, SealKey::from_bytes([1; 32])).await.expect("a new store").close().await;
    });
    for file in FILES {
        let log = beside(&dir.join(file), SIDE_FILES[0]);
        assert!(!log.exists(), "{} is not in the file that is copied", log.display());
    }
}

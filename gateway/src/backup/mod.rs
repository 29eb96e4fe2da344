//! Backups of a gateway: one file with both databases and the keys, made while the gateway runs.
//!
//! A backup shows the gateway at one moment after the request, so it contains everything acknowledged
//! before. Its file gets its name only after it was read back and verified. The main database is copied
//! first, with the redo of the samples that were unsealed by then, and the blocks of the history after
//! it. What was sealed in between is in both, and is replayed over the same blocks. It does not know the
//! caller.

pub mod archive;
pub mod erased_ids;
mod make;
pub mod names;
mod restore;
pub mod room;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

pub use archive::Head;
pub use make::{Made, Order, Workshop, make};
pub use restore::{Restored, UPLOAD, finish_restore, is_half_restored, restore, stage, unstage};

use crate::clock;
use crate::data_dir::{self, SSH_FILE, WIREGUARD_FILE};
use crate::store::files::{HISTORY_FILE, MAIN_FILE, OLD_HISTORY_FILE, SIDE_FILES, beside};

/// The step of a backup or restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Database,
    History,
    Checking,
    Writing,
    Reading,
}

impl Phase {
    pub const fn words(self) -> &'static str {
        match self {
            Phase::Database => "copying the database",
            Phase::History => "copying the history",
            Phase::Checking => "checking the databases",
            Phase::Writing => "writing the backup",
            Phase::Reading => "reading the backup back",
        }
    }
}

/// Said of a backup that was made during the conversion of an older history.
pub const CONVERTING: &str = "the gateway was converting the history of an earlier version; the backup lacks the samples that were not \
     converted yet: make another one after the conversion";

/// Callback for each percent.
pub type Progress = Arc<dyn Fn(Phase, u8) + Send + Sync>;

/// Creates a new folder in the data directory, with the time in its name.
///
/// # Errors
/// Fails when the directory cannot be written.
pub fn new_folder(data: &Path, what: &str) -> anyhow::Result<PathBuf> {
    let at = jiff::Timestamp::from_millisecond(clock::wall().as_millis()).unwrap_or_default();
    let name = format!("{what}-{}", at.strftime("%Y%m%dT%H%M%SZ"));
    let mut names = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}.{n}")));
    loop {
        let folder = data.join(names.next().expect("numbers do not end"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make {}", folder.display())),
        }
    }
}

/// Moves every file of the gateway in `data`, the key last. The file of erased customers stays: it holds for
/// every backup that is restored there later.
///
/// # Errors
/// Fails when a file cannot be moved.
pub fn move_gateway(data: &Path, to: &Path) -> anyhow::Result<()> {
    let databases = [MAIN_FILE, HISTORY_FILE, OLD_HISTORY_FILE]
        .map(|name| ["", SIDE_FILES[0], SIDE_FILES[1]].map(|side| beside(Path::new(name), side)));
    let others = [data_dir::FIRST_START, SSH_FILE, WIREGUARD_FILE].map(PathBuf::from);
    for name in databases.into_iter().flatten().chain(others) {
        match fs::rename(data.join(&name), to.join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let (name, to) = (data.join(&name), to.display());
                return Err(error).with_context(|| format!("cannot move {} to {to}", name.display()));
            }
            _ => {}
        }
    }
    sync(to)?;
    sync(data)
}

/// Makes the names in a folder survive a power cut.
fn sync(folder: &Path) -> anyhow::Result<()> {
    let synced = File::open(folder).and_then(|f| f.sync_all());
    synced.with_context(|| format!("cannot write {}", folder.display()))
}

/// Removes a folder with its content, even while another thread still creates files in it: the work of a
/// dropped call ends later than the call. Each round removes what was created during the round before.
fn remove_folder(folder: impl AsRef<Path>) -> io::Result<()> {
    let mut rounds = 0;
    loop {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && rounds < MAX_ROUNDS => {
                rounds += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => return removed,
        }
    }
}

/// Each round needs a new file. A backup creates a handful of them.
const MAX_ROUNDS: usize = 100;

/// Runs work on whole files on a blocking thread, where it delays no other task.
async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("the work on files has ended early")?
}

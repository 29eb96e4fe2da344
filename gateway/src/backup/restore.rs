//! Restores a gateway from its backup: read and checked in a folder of its own, then moved into place
//! as a whole.
//!
//! A restore that is cut off leaves one of two folders. The next restore replaces an unfinished one;
//! the next start moves a finished one into place. No file is ever overwritten, except for the file of erased
//! customers, whose lines the restored one has too.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};

use super::archive::{self, CONTENTS, Head, SETTINGS_FILE};
use super::erased_ids::{self, ERASED_FILE};
use super::make::counting;
use super::{Phase, Progress, apart, move_gateway, new_folder, remove_folder, sync};
use crate::data_dir::{self, DataDir, LOCK, SSH_FILE, WIREGUARD_FILE, secret_file};
use crate::identity::Identity;
use crate::store::copy;
use crate::store::files::{HISTORY_FILE, MAIN_FILE, OLD_HISTORY_FILE};

/// The folder of a restore. Only the gateway uses these names, so an abandoned folder is removed.
const STAGED: &str = ".fleetgate-restore";
/// File in it that marks a complete check.
const READY: &str = "ready";
/// File in it that marks that the former content of the data directory is out of the way.
const MOVED: &str = "moved";
/// Name of the folder once everything is in place.
const DONE: &str = ".fleetgate-restored";
/// The folder into which an upload is read before it is staged.
pub const UPLOAD: &str = ".fleetgate-upload";
/// Names that an empty directory may contain: our lock, the administrator's settings, the customers that a
/// former gateway has erased, and the parts of a new file system.
const IN_AN_EMPTY_ONE: [&str; 5] = [LOCK, SETTINGS_FILE, ERASED_FILE, "lost+found", STAGED];

/// A backup that was checked and marked as restored.
#[derive(Clone, Debug)]
pub struct Restored {
    pub head: Head,
    /// Customers that were erased after the backup, and were erased again.
    pub erased: usize,
    /// Which lines of the file of erased customers were skipped.
    pub damage: Option<String>,
}

/// Restores a backup into a data directory without a gateway.
///
/// # Errors
/// Fails when the directory is not empty or the backup is incomplete; then nothing has changed.
pub async fn restore(file: &Path, data: &DataDir, progress: Progress) -> anyhow::Result<Restored> {
    let path = data.path();
    must_be_empty(path)?;
    let archive = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let size = archive.metadata()?.len();
    let staged = path.join(STAGED);
    let unpacked = unpack(archive, size, (path, &staged), progress).await;
    if unpacked.is_err() {
        let _ = remove_folder(&staged);
    }
    let restored = unpacked.with_context(|| format!("cannot restore {}", file.display()))?;
    finish_restore(path)?;
    Ok(restored)
}

fn must_be_empty(data: &Path) -> anyhow::Result<()> {
    if data.join(STAGED).join(READY).exists() {
        bail!("{} has been restored already: start the gateway", data.display());
    }
    let entries = fs::read_dir(data).with_context(|| format!("cannot read {}", data.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<String> = names.filter(|name| !IN_AN_EMPTY_ONE.contains(&name.as_str())).collect();
    others.sort();
    if others.is_empty() {
        return Ok(());
    }
    let more = if others.len() > 3 { ", ..." } else { "" };
    others.truncate(3);
    bail!(
        "{} is not empty (it holds {}{more}): move it away, or say another --data",
        data.display(),
        others.join(", ")
    )
}

/// Reads a backup for the next start of a gateway that runs in `data`.
///
/// # Errors
/// Fails when it is incomplete; then nothing has changed.
pub async fn stage(archive: impl Read + Send + 'static, data: &Path) -> anyhow::Result<Restored> {
    let upload = Temporary(data.join(UPLOAD));
    let restored = unpack(archive, 0, (data, &upload.0), Arc::new(|_, _| {})).await?;
    let target = data.join(STAGED);
    remove_folder(&target).with_context(|| format!("cannot replace {}", target.display()))?;
    fs::rename(&upload.0, &target).with_context(|| format!("cannot make {}", target.display()))?;
    sync(data)?;
    Ok(restored)
}

/// A folder that is removed when the call that fills it ends, unless it was moved away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = remove_folder(&self.0);
    }
}

/// Reverts [`stage`].
///
/// # Errors
/// Fails when it cannot be removed.
pub fn unstage(data: &Path) -> anyhow::Result<()> {
    let staged = data.join(STAGED);
    // The rename comes first, so that the next start does not use it.
    fs::rename(&staged, data.join(UPLOAD)).with_context(|| format!("cannot move {}", staged.display()))?;
    sync(data)?;
    remove_folder(data.join(UPLOAD)).context("cannot remove what was given")
}

/// Reads an archive into a new folder and checks all of it. Erases who was erased in `data` or in the backup.
/// The mark of completion is written last.
async fn unpack(
    archive: impl Read + Send + 'static,
    size: u64,
    (data, into): (&Path, &Path),
    progress: Progress,
) -> anyhow::Result<Restored> {
    let _ = remove_folder(into);
    let folder = DirBuilder::new().mode(0o700).create(into);
    folder.with_context(|| format!("cannot make {}", into.display()))?;
    let (folder, told) = (into.to_owned(), progress.clone());
    let head = apart(move || {
        let place = |name: &str| Ok(Box::new(secret_file::create(&folder.join(name))?) as Box<dyn Write>);
        archive::read(archive, accept, place, counting(size, |percent| told(Phase::Reading, percent)))
    })
    .await?;
    progress(Phase::Checking, 0);
    check(into, &head).await?;
    let ids = erased_ids::merge(data, into)?;
    let erased = copy::mark_restored(&into.join(MAIN_FILE), &head.made_at, &ids.erasures).await?;
    for name in CONTENTS.iter().filter(|name| into.join(name).exists()) {
        let synced = File::open(into.join(name)).and_then(|file| file.sync_all());
        synced.with_context(|| format!("cannot write {name}"))?;
    }
    mark(into, READY)?;
    progress(Phase::Checking, 100);
    Ok(Restored { head, erased, damage: ids.damage() })
}

/// Refuses a backup that this version cannot open, before it is unpacked.
fn accept(head: &Head) -> anyhow::Result<()> {
    let (main, history) = copy::newest_schemas();
    let ours = (Some(head.main_schema), main, MAIN_FILE);
    for (schema, known, file) in [ours, (head.history_schema, history, HISTORY_FILE)] {
        ensure!(
            schema.is_none_or(|schema| schema <= known),
            "it was made by the newer fleetgate {} (its {file} has schema {}; this version knows {known}): restore it \
             with that version",
            head.program,
            schema.unwrap_or_default()
        );
    }
    Ok(())
}

async fn check(folder: &Path, head: &Head) -> anyhow::Result<()> {
    let identity = Identity::read(folder)?;
    ensure!(identity.wireguard.public() == head.key, "its {WIREGUARD_FILE} is not the key that it describes");
    let known = copy::check_main(&folder.join(MAIN_FILE)).await?;
    ensure!(
        known.key.is_none_or(|key| key == head.key),
        "its {WIREGUARD_FILE} is not the key of its {MAIN_FILE}"
    );
    if folder.join(HISTORY_FILE).exists() {
        copy::check_history(&folder.join(HISTORY_FILE)).await?;
    }
    Ok(())
}

fn mark(folder: &Path, name: &str) -> anyhow::Result<()> {
    let file = folder.join(name);
    if !file.exists() {
        secret_file::create(&file)?.sync_all().with_context(|| format!("cannot write {}", file.display()))?;
    }
    sync(folder)
}

/// Whether a restore was cut off before its check was complete.
pub fn is_half_restored(data: &Path) -> bool {
    let staged = data.join(STAGED);
    staged.exists() && !staged.join(READY).exists()
}

/// Moves a restored gateway into place, if there is one. After an interruption, the next call
/// continues. A former gateway goes into a folder beside it.
///
/// # Errors
/// Fails when a file cannot be moved.
pub fn finish_restore(data: &Path) -> anyhow::Result<bool> {
    let (staged, done) = (data.join(STAGED), data.join(DONE));
    // The remains of an upload or a restore that was cut off.
    for abandoned in [&done, &data.join(UPLOAD)] {
        let _ = remove_folder(abandoned);
    }
    if !staged.join(READY).exists() {
        return Ok(false);
    }
    if !staged.join(MOVED).exists() {
        let lies_there = |name: &&str| fs::symlink_metadata(data.join(name)).is_ok();
        let databases = [MAIN_FILE, HISTORY_FILE, OLD_HISTORY_FILE];
        let others = [WIREGUARD_FILE, SSH_FILE, data_dir::FIRST_START];
        if databases.iter().chain(&others).any(lies_there) {
            move_gateway(data, &new_folder(data, "before-restore")?)?;
        }
        mark(&staged, MOVED)?;
    }
    // The data directory may have got lines since the backup was staged.
    erased_ids::merge(data, &staged)?;
    for name in CONTENTS {
        put(&staged, name, data)?;
    }
    if data.join(LOCK).exists() {
        give_to_the_owner(&data.join(LOCK), data)?;
    }
    sync(data)?;
    fs::rename(&staged, &done).with_context(|| format!("cannot move {}", staged.display()))?;
    sync(data)?;
    let _ = remove_folder(&done);
    Ok(true)
}

/// Moves one file into place. The administrator's settings stay; those of the backup go beside them.
fn put(staged: &Path, name: &str, data: &Path) -> anyhow::Result<()> {
    let from = staged.join(name);
    let taken = name == SETTINGS_FILE && data.join(name).exists();
    let to = if taken { data.join("fleetgate.toml.restored") } else { data.join(name) };
    match fs::symlink_metadata(&from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.with_context(|| format!("cannot read {}", from.display()))?,
    };
    give_to_the_owner(&from, data)?;
    fs::rename(&from, &to).with_context(|| format!("cannot make {}", to.display()))
}

/// The owner of the directory runs the gateway, and root may restore in the owner's place.
fn give_to_the_owner(file: &Path, data: &Path) -> anyhow::Result<()> {
    let (of_file, of_data) = (fs::metadata(file)?, fs::metadata(data)?);
    if of_file.uid() != of_data.uid() {
        chown(file, Some(of_data.uid()), Some(of_data.gid()))
            .with_context(|| format!("cannot give {} to the owner of {}", file.display(), data.display()))?;
    }
    Ok(())
}

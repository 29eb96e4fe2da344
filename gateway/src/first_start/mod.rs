//! Examines the data directory at a start: it is empty, holds a gateway, or holds the remains of one.
//!
//! A gateway that has lost its database would start empty and report no problems. A start is therefore
//! a first start only if the directory holds no file of a gateway. It writes a mark before its first
//! file, and removes the mark when the first login was shown. With the mark, the next start completes
//! one that was cut off. Without it, a directory that lacks a file is refused.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::backup;
use crate::data_dir::start::restore_hint;
use crate::data_dir::{FIRST_START, SSH_FILE, WIREGUARD_FILE, secret_file};
use crate::store::files::{self, HISTORY_FILE, MAIN_FILE, Main, OLD_HISTORY_FILE};

const MARK_TEXT: &str = "A first start of fleetgate is not over: the next start completes it.\n";

/// The kind of start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartKind {
    /// A first start begins, or one that was cut off continues.
    FirstStart,
    Gateway,
}

/// Reasons to refuse a start that would do harm.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{file} is missing, but {beside} lies beside it: without its database this gateway would watch nothing. {}", remedy(.dir))]
    NoDatabase { file: String, beside: String, dir: String },
    #[error("{file} {what}, but {beside} lies beside it: with an empty database this gateway would watch nothing. {}", remedy(.dir))]
    EmptyDatabase { file: String, what: &'static str, beside: String, dir: String },
    #[error("{file} is damaged: {why}. {}", remedy(.dir))]
    DamagedDatabase { file: String, why: String, dir: String },
    #[error("{file} cannot be opened: {why}. Give it to the user who runs the gateway (chown, chmod 600)")]
    ClosedDatabase { file: String, why: io::Error },
    #[error("{file} is missing, and the devices in {database} know no other. {}", remedy(.dir))]
    NoKey { file: String, database: String, dir: String },
    #[error("a restore into {dir} was cut off: run `fleetgate restore FILE --data {dir}` again")]
    HalfRestored { dir: String },
}

/// How to restore the gateway, and how to begin a new one.
fn remedy(dir: &str) -> String {
    format!(
        "{}; or start over with `fleetgate serve --new`, which sets the old files aside",
        restore_hint(Path::new(dir))
    )
}

/// Examines the data directory without changing it.
///
/// # Errors
/// A [`Refusal`], or an error when the directory cannot be read.
pub async fn examine(data: &Path) -> anyhow::Result<StartKind> {
    if lies_in(data, FIRST_START) {
        return Ok(StartKind::FirstStart);
    }
    let ours = [WIREGUARD_FILE, SSH_FILE, HISTORY_FILE, OLD_HISTORY_FILE, MAIN_FILE];
    let Some(beside) = ours.into_iter().find(|name| lies_in(data, name)) else {
        return match backup::is_half_restored(data) {
            true => Err(Refusal::HalfRestored { dir: data.display().to_string() }.into()),
            false => Ok(StartKind::FirstStart),
        };
    };
    let (dir, beside) = (data.display().to_string(), beside.to_owned());
    let file = data.join(MAIN_FILE).display().to_string();
    match files::inspect_main(data).await? {
        Main::Missing => Err(Refusal::NoDatabase { file, beside, dir }.into()),
        Main::Empty(what) => Err(Refusal::EmptyDatabase { file, what, beside, dir }.into()),
        Main::Damaged(why) => Err(Refusal::DamagedDatabase { file, why, dir }.into()),
        Main::Unreadable(why) => Err(Refusal::ClosedDatabase { file, why }.into()),
        Main::Gateway => keys_are_there(data, file, dir).map(|()| StartKind::Gateway),
    }
}

fn keys_are_there(data: &Path, database: String, dir: String) -> anyhow::Result<()> {
    match [WIREGUARD_FILE, SSH_FILE].into_iter().find(|name| !lies_in(data, name)) {
        Some(name) => {
            Err(Refusal::NoKey { file: data.join(name).display().to_string(), database, dir }.into())
        }
        None => Ok(()),
    }
}

/// A dangling link counts: its target may come back.
fn lies_in(data: &Path, name: &str) -> bool {
    fs::symlink_metadata(data.join(name)).is_ok()
}

/// Marks that a first start has begun.
///
/// # Errors
/// Fails when the directory cannot be written.
pub fn begin(data: &Path) -> anyhow::Result<()> {
    match lies_in(data, FIRST_START) {
        true => Ok(()),
        false => secret_file::write_new(&data.join(FIRST_START), MARK_TEXT),
    }
}

/// Removes the mark, because the login was shown.
///
/// # Errors
/// Fails when the directory cannot be written.
pub fn finish(data: &Path) -> anyhow::Result<()> {
    let mark = data.join(FIRST_START);
    match fs::remove_file(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::open(data).and_then(|dir| dir.sync_all()),
    }
    .with_context(|| format!("cannot remove {}", mark.display()))
}

/// Implements `--new`: where a start would be refused, it sets the remains of the old gateway aside, so
/// that a first start begins. Returns the folder that holds them. An intact gateway stays as it is,
/// because `--new` may have been left in a unit file.
///
/// # Errors
/// Fails when the directory cannot be read or written.
pub async fn start_over(data: &Path) -> anyhow::Result<Option<PathBuf>> {
    match examine(data).await {
        Ok(_) => Ok(None),
        Err(error) if error.downcast_ref::<Refusal>().is_none() => Err(error),
        Err(_) => set_aside(data).map(Some),
    }
}

/// Moves every file of a gateway into a folder of its own, the key last. A move that is cut off leaves
/// a directory that the next start refuses as well.
///
/// # Errors
/// Fails when the directory cannot be written.
fn set_aside(data: &Path) -> anyhow::Result<PathBuf> {
    let folder = backup::new_folder(data, "set-aside")?;
    backup::move_gateway(data, &folder)?;
    Ok(folder)
}

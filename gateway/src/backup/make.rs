//! Makes one backup, in a folder of its own beside the target file.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::archive::{self, Head, SETTINGS_FILE};
use super::erased_ids::ERASED_FILE;
use super::{Phase, Progress, apart, names, remove_folder, room, sync};
use crate::data_dir::{SSH_FILE, WIREGUARD_FILE, secret_file};
use crate::identity::Identity;
use crate::store::copy;
use crate::store::files::{self, HISTORY_FILE, MAIN_FILE, Main, OLD_HISTORY_FILE};
use crate::{clock, data_dir};

/// Name of the archive until it is complete.
const ARCHIVE: &str = "backup.tar";
/// Room for everything else: keys, settings, and parts that SQLite does not count.
const SPARE: u64 = 4 * 1024 * 1024;

/// The source, the target and the options of a backup.
#[derive(Clone, Debug)]
pub struct Order {
    /// The data directory.
    pub data: PathBuf,
    /// A file that does not exist, or a folder.
    pub target: PathBuf,
    pub history: bool,
    /// Number of backups of this kind that are kept.
    pub keep: Option<NonZeroUsize>,
}

/// A backup that was read back.
#[derive(Clone, Debug)]
pub struct Made {
    pub file: PathBuf,
    pub bytes: u64,
    pub head: Head,
    /// Older backups that were removed.
    pub removed: Vec<PathBuf>,
    /// Whether the gateway was converting the history of an earlier version. The backup lacks what was not
    /// converted yet.
    pub converting: bool,
}

/// Makes a backup. It gets its name only when it is complete and was read back. A dropped call leaves
/// nothing behind.
///
/// # Errors
/// Describes the obstacle.
pub async fn make(order: &Order, progress: Progress) -> anyhow::Result<Made> {
    let file = names::target(&order.target, clock::wall())?;
    let identity = must_be_a_gateway(&order.data).await?;
    let shop = Workshop::open(&file)?;
    must_have_room(order, &shop.folder).await?;
    let made_at = now_text();
    let converting = order.history && order.data.join(OLD_HISTORY_FILE).exists();
    let (from, to) = (order.data.join(MAIN_FILE), shop.folder.join(MAIN_FILE));
    copy::main(&from, &to, &|percent| progress(Phase::Database, percent)).await?;
    if order.history {
        copy_history(order, &shop, &progress).await.context(WITHOUT)?;
    }
    copy_small(&order.data, &shop.folder)?;
    progress(Phase::Checking, 0);
    let known = copy::check_main(&to).await?;
    let key = identity.wireguard.public();
    ensure!(
        known.key.is_none_or(|known| known == key),
        "{} is not the key of its database: a backup of both could not be restored",
        order.data.join(WIREGUARD_FILE).display()
    );
    let history_schema = match order.history {
        true => Some(copy::check_history(&shop.folder.join(HISTORY_FILE)).await?),
        false => None,
    };
    progress(Phase::Checking, 100);
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let head = Head { made_at, program, key, main_schema: known.schema, history_schema };
    let (folder, written_head) = (shop.folder.clone(), head.clone());
    let bytes = apart(move || written(&folder, &written_head, &progress)).await?;
    shop.publish(&file)?;
    let removed = match order.keep {
        Some(keep) => names::keep_newest(&file, &key, keep)
            .with_context(|| format!("the backup {} is made, but", file.display()))?,
        None => Vec::new(),
    };
    Ok(Made { file, bytes, head, removed, converting })
}

const WITHOUT: &str = "the history cannot be copied; --without-history leaves it out";

async fn copy_history(order: &Order, shop: &Workshop, progress: &Progress) -> anyhow::Result<()> {
    let newest = copy::newest_series(&shop.folder.join(MAIN_FILE)).await?;
    let (from, to) = (order.data.join(HISTORY_FILE), shop.folder.join(HISTORY_FILE));
    copy::history(&from, &to, newest, &|percent| progress(Phase::History, percent)).await
}

fn now_text() -> String {
    jiff::Timestamp::from_millisecond(clock::wall().as_millis()).unwrap_or_default().to_string()
}

async fn must_be_a_gateway(data: &Path) -> anyhow::Result<Identity> {
    let file = data.join(MAIN_FILE);
    let file = file.display();
    match files::inspect_main(data).await? {
        Main::Gateway => Identity::read(data),
        Main::Missing => bail!("no gateway keeps its data in {}: say --data DIR", data.display()),
        Main::Empty(what) => bail!("{file} {what}: there is nothing to back up"),
        Main::Damaged(why) => bail!("{file} is damaged and cannot be backed up: {why}"),
        Main::Unreadable(why) => bail!("cannot open {file}: {why}; run this as the user of the gateway"),
    }
}

/// The copies and the archive of them exist at the same time for a while.
async fn must_have_room(order: &Order, folder: &Path) -> anyhow::Result<()> {
    let main = copy::used_bytes(&order.data.join(MAIN_FILE)).await?;
    let history = match order.history {
        true => copy::used_bytes(&order.data.join(HISTORY_FILE)).await?,
        false => 0,
    };
    let needed = (main + history) * 2 + SPARE;
    match room::free_bytes(folder) {
        Some(free) if free < needed => bail!(
            "there is too little room in {}: a backup needs {} MB until it is finished and half of that \
             afterwards, {} MB are free",
            names::folder_of(folder).display(),
            needed.div_ceil(1_000_000),
            free / 1_000_000
        ),
        _ => Ok(()),
    }
}

/// The file of erased customers is copied after the databases, so that it has every erasure of the copy.
fn copy_small(data: &Path, to: &Path) -> anyhow::Result<()> {
    for name in [WIREGUARD_FILE, SSH_FILE, SETTINGS_FILE, ERASED_FILE] {
        let from = data.join(name);
        let is_needed = ![SETTINGS_FILE, ERASED_FILE].contains(&name);
        if is_needed || from.exists() {
            fs::copy(&from, to.join(name)).with_context(|| format!("cannot copy {}", from.display()))?;
        }
    }
    Ok(())
}

/// Writes the archive and reads it back.
fn written(folder: &Path, head: &Head, progress: &Progress) -> anyhow::Result<u64> {
    let file = folder.join(ARCHIVE);
    let mut out = secret_file::create(&file)?;
    let all: u64 = archive::CONTENTS
        .iter()
        .filter_map(|name| fs::metadata(folder.join(name)).ok())
        .map(|m| m.len())
        .sum();
    archive::write(folder, head, &mut out, counting(all, |percent| progress(Phase::Writing, percent)))?;
    out.sync_all().with_context(|| format!("cannot write {}", file.display()))?;
    let nowhere = |_: &str| Ok(Box::new(io::sink()) as Box<dyn io::Write>);
    let again = File::open(&file)?;
    let seen = archive::read(again, |_| Ok(()), nowhere, counting(all, |p| progress(Phase::Reading, p)))
        .context("the backup is not what was written; is the disk in order?")?;
    ensure!(seen == *head, "the backup is not what was written; is the disk in order?");
    Ok(out.metadata()?.len())
}

/// Turns bytes into percent, and reports each value once.
pub(super) fn counting(all: u64, tell: impl Fn(u8)) -> impl FnMut(u64) {
    let (mut done, mut told) = (0u64, None);
    move |bytes| {
        done += bytes;
        let percent = u8::try_from((done * 100 / all.max(1)).min(100)).unwrap_or(100);
        if told.replace(percent) != Some(percent) {
            tell(percent);
        }
    }
}

/// The folder in which a backup is made, locked. It is removed with its content.
pub struct Workshop {
    folder: PathBuf,
    _lock: File,
}

impl Workshop {
    /// # Errors
    /// Fails when another backup to the same file is in progress, or when the folder cannot be written.
    pub fn open(file: &Path) -> anyhow::Result<Workshop> {
        let path = names::workshop(file);
        clear_abandoned(&path);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("another backup to {} is under way", file.display())
            }
            made => made.with_context(|| format!("cannot write in {}", names::folder_of(file).display()))?,
        }
        let folder = File::open(&path)
            .with_context(|| format!("another backup to {} is under way", file.display()))?;
        ensure!(data_dir::try_lock(&folder), "another backup to {} is under way", file.display());
        Ok(Workshop { folder: path, _lock: folder })
    }

    /// The path of the archive while it is written.
    pub fn archive(&self) -> PathBuf {
        self.folder.join(ARCHIVE)
    }

    /// Gives the archive its name. It never replaces another file.
    ///
    /// # Errors
    /// Fails when such a file exists by now.
    pub fn publish(&self, file: &Path) -> anyhow::Result<()> {
        let from = self.archive();
        let named = match fs::hard_link(&from, file) {
            // A file system without hard links, such as a USB stick or a share.
            Err(error)
                if error.kind() != io::ErrorKind::AlreadyExists && fs::symlink_metadata(file).is_err() =>
            {
                fs::rename(&from, file)
            }
            linked => linked,
        };
        named.with_context(|| format!("cannot make {}", file.display()))?;
        sync(names::folder_of(file))
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let _ = remove_folder(&self.folder);
    }
}

/// Removes the folders of killed backups of this kind: their locks are free.
fn clear_abandoned(path: &Path) {
    let kind = names::kind(path.file_name().unwrap_or_default());
    for entry in fs::read_dir(names::folder_of(path)).into_iter().flatten().flatten() {
        let free = || File::open(entry.path()).is_ok_and(|folder| data_dir::try_lock(&folder));
        if names::kind(&entry.file_name()) == kind && entry.file_type().is_ok_and(|t| t.is_dir()) && free() {
            let _ = remove_folder(entry.path());
        }
    }
}

//! The data directory: its path, its permissions, and the lock that admits one gateway.

pub mod secret_file;
pub mod start;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// File names of the gateway's own keys.
pub const WIREGUARD_FILE: &str = "gateway.key";
pub const SSH_FILE: &str = "gateway_ssh_key";
/// File name of the mark of an unfinished first start.
pub const FIRST_START: &str = "first-start";
/// The socket for commands on the same machine.
pub const SOCKET: &str = "fleetgate.sock";
/// File that is locked while a gateway runs in the directory.
pub const LOCK: &str = "lock";

/// Digits of the number of a process.
const MAX_PID: u64 = 10;

/// `--data`, `$STATE_DIRECTORY` (systemd), or the user's data directory.
///
/// # Errors
/// Fails when there is no home directory either.
pub fn default_path(given: Option<PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    given
        .or_else(|| variable("STATE_DIRECTORY"))
        .or_else(|| variable("XDG_DATA_HOME").map(|d| d.join(name)))
        .or_else(|| variable("HOME").map(|h| h.join(".local/share").join(name)))
        .context("there is no home directory to keep data in: say --data DIR")
}

/// The locked data directory of a running gateway.
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory (0700) and locks it. A directory that is open to others is closed to them if
    /// it is empty or has been a gateway's: service managers create such directories.
    ///
    /// # Errors
    /// Fails when another gateway runs in the directory, or when it cannot be written. Also fails when it
    /// is open to others and contains foreign files: closing it might lock their users out.
    pub fn open(path: &Path) -> anyhow::Result<DataDir> {
        let name = path.display();
        keep_to_ourselves();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data directory {name}"))?;
        close_to_others(path)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .with_context(|| format!("cannot write in the data directory {name}"))?;
        if !try_lock(&lock) {
            let holder = holder(&lock).map(|pid| format!(" (process {pid})")).unwrap_or_default();
            bail!(
                "another fleetgate{holder} runs in {name}: stop it, or choose another directory with --data"
            );
        }
        // Only for the message above: one that cannot be written is no reason not to start.
        let _ = lock.set_len(0).and_then(|()| write!(&lock, "{}", std::process::id()));
        Ok(DataDir { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }
}

/// The holder of the lock, as that process has written it.
fn holder(lock: &File) -> Option<u32> {
    let mut text = String::new();
    Read::take(lock, MAX_PID).read_to_string(&mut text).ok()?;
    text.parse().ok()
}

fn close_to_others(path: &Path) -> anyhow::Result<()> {
    let name = path.display();
    let mode = fs::metadata(path).with_context(|| format!("cannot read {name}"))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let remedy = || {
        format!(
            "others can enter the data directory {name} (mode {:o}): run `chmod 700 {name}`",
            mode & 0o7777
        )
    };
    let ours = path.join(LOCK).exists() || fs::read_dir(path).with_context(remedy)?.next().is_none();
    if !ours {
        bail!("{}, or choose another directory with --data", remedy());
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).with_context(remedy)
}

/// Restricts all new files to their owner, independently of the mode of the directory.
#[allow(unsafe_code, reason = "umask, which std does not have")]
fn keep_to_ourselves() {
    // SAFETY: sets a number of the process and cannot fail.
    unsafe { libc::umask(0o077) };
}

#[allow(unsafe_code, reason = "flock, which the kernel gives back however the process ends")]
pub(crate) fn try_lock(file: &File) -> bool {
    // SAFETY: the descriptor is open for the length of the call.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_gateway_in_one_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).err().unwrap();
        let holder = format!("another fleetgate (process {}) runs in", std::process::id());
        assert!(error.to_string().contains(&holder), "{error}");
        drop(first);
        assert!(DataDir::open(dir.path()).is_ok());
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn open_to_others(path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_directory_is_ours_alone_from_the_first_start_on() {
        let dir = tempfile::tempdir().unwrap();
        let fresh = dir.path().join("a/b");
        drop(DataDir::open(&fresh).unwrap());
        assert_eq!((mode(&fresh), mode(&dir.path().join("a"))), (0o700, 0o700));
        open_to_others(&fresh);
        drop(DataDir::open(&fresh).unwrap());
        assert_eq!(mode(&fresh), 0o700, "it was a gateway's: closed again");
        open_to_others(dir.path());
        let empty = dir.path().join("made-by-a-service-manager");
        fs::create_dir(&empty).unwrap();
        drop(DataDir::open(&empty).unwrap());
        assert_eq!(mode(&empty), 0o700);
    }

    #[test]
    fn a_directory_of_others_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "").unwrap();
        open_to_others(dir.path());
        let error = DataDir::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(&format!("chmod 700 {}", dir.path().display())), "{error}");
        assert_eq!(mode(dir.path()), 0o755);
    }
}

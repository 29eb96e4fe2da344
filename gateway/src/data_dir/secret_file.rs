//! Files that contain a secret: created for their owner only, refused when others can read them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

use crate::bounded_file;

/// Bytes reserved for the secret: more than a configuration or a key needs.
const ROOM: usize = 4096;

/// Creates a new file, completely or not at all.
///
/// # Errors
/// Fails when the file exists or cannot be written.
pub fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    ReservedFile::reserve(file)?.keep(text)
}

/// A reserved file for a secret that is created elsewhere and shown once. It is reserved first, so that
/// no secret is created that cannot be stored. If no secret follows, it leaves no file behind.
pub struct ReservedFile {
    file: PathBuf,
    /// The temporary file, which gets the final name when it is complete.
    half: PathBuf,
    out: File,
}

impl ReservedFile {
    /// # Errors
    /// Fails when the file exists or cannot be written.
    pub fn reserve(file: &Path) -> anyhow::Result<ReservedFile> {
        ReservedFile::make(file).with_context(|| format!("cannot write {}", file.display()))
    }

    fn make(file: &Path) -> io::Result<ReservedFile> {
        if file.symlink_metadata().is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut half = file.as_os_str().to_owned();
        half.push(".new");
        let half = PathBuf::from(half);
        // The remains of an earlier write that was cut off.
        let _ = fs::remove_file(&half);
        let out = make_new(&half)?;
        let mut place = ReservedFile { file: file.to_owned(), half, out };
        place.out.write_all(&[b' '; ROOM])?;
        place.out.sync_all()?;
        Ok(place)
    }

    /// # Errors
    /// Fails when another file has taken the name meanwhile, or when the file cannot be written any more.
    pub fn keep(self, text: &str) -> anyhow::Result<()> {
        self.fill(text).with_context(|| format!("cannot write {}", self.file.display()))
    }

    fn fill(&self, text: &str) -> io::Result<()> {
        let mut out = &self.out;
        out.rewind()?;
        out.write_all(text.as_bytes())?;
        out.set_len(text.len() as u64)?;
        out.sync_all()?;
        // Unlike a rename, a link never replaces an existing file.
        fs::hard_link(&self.half, &self.file)?;
        sync_folder(&self.file)
    }
}

impl Drop for ReservedFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.half);
    }
}

/// Creates an empty file that only its owner can read.
///
/// # Errors
/// Fails when the file exists or cannot be created.
pub fn create(file: &Path) -> anyhow::Result<File> {
    make_new(file).with_context(|| format!("cannot make {}", file.display()))
}

fn make_new(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(file)
}

/// Makes the name of the file survive a power cut.
///
/// # Errors
/// Fails when the folder cannot be synchronised.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Reads a file of the gateway's own, which only its owner may read.
///
/// # Errors
/// Fails when the file cannot be read, or when the group or others can read it too.
pub fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    refuse(file, 0o077, "600", "replace what it holds if it leaked")?;
    text(file)
}

/// Reads a file of the administrator. The group may read it: the owner of a machine thus hands a key or
/// a password to a service that runs as another user.
///
/// # Errors
/// Fails when the file cannot be read, when the group can write it, or when others can read it.
pub fn read_given(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    must_be_guarded(file, "replace what it holds if it leaked")?;
    text(file)
}

/// # Errors
/// As [`read_given`]; names the file, the remedy, and `advice`.
pub fn must_be_guarded(file: &Path, advice: &str) -> anyhow::Result<()> {
    refuse(file, 0o037, "640", advice)
}

fn text(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    bounded_file::regular_text(file)
        .map(Zeroizing::new)
        .with_context(|| format!("cannot read {}", file.display()))
}

fn refuse(file: &Path, forbidden: u32, remedy: &str, advice: &str) -> anyhow::Result<()> {
    let name = file.display();
    let mode = fs::metadata(file).with_context(|| format!("cannot read {name}"))?.permissions().mode();
    if mode & forbidden != 0 {
        bail!("others can read {name} (mode {:o}): run `chmod {remedy} {name}`, and {advice}", mode & 0o777);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_for_its_owner_and_refused_when_others_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        write_new(&file, "secret").unwrap();
        assert_eq!(read(&file).unwrap().as_str(), "secret");
        assert!(write_new(&file, "other").is_err());
        assert_eq!(read(&file).unwrap().as_str(), "secret");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", file.display())), "{error}");
        }
    }

    #[test]
    fn a_place_is_taken_before_there_is_a_secret_and_leaves_nothing_without_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        drop(ReservedFile::reserve(&file).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("key.new"), "what a power cut left").unwrap();
        ReservedFile::reserve(&file).unwrap().keep("secret").unwrap();
        assert_eq!(read(&file).unwrap().as_str(), "secret");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        for (at, why) in [("key", "already"), ("none/key", "cannot write")] {
            let error = format!("{:#}", ReservedFile::reserve(&dir.path().join(at)).err().unwrap());
            assert!(error.contains("cannot write") && error.contains(why), "{error}");
        }
        let late = ReservedFile::reserve(&dir.path().join("late")).unwrap();
        fs::write(dir.path().join("late"), "of another").unwrap();
        assert!(late.keep("secret").is_err());
        assert_eq!(fs::read_to_string(dir.path().join("late")).unwrap(), "of another");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_group_may_read_what_the_administrator_gives_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key.pem");
        write_new(&file, "secret").unwrap();
        for (mode, taken) in [(0o400, true), (0o640, true), (0o660, false), (0o644, false), (0o641, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_given(&file).is_ok(), taken, "{mode:o}");
        }
    }
}

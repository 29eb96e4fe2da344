//! Files that hold a secret: made for their owner alone, refused when others can read them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use zeroize::Zeroizing;

/// Makes a file that was not there.
///
/// # Errors
/// When it is there, or cannot be written.
pub fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    let name = file.display();
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(|| format!("cannot make {name}"))?;
    out.write_all(text.as_bytes())
        .and_then(|()| out.sync_all())
        .with_context(|| format!("cannot write {name}"))
}

/// A file of our own: its owner's alone.
///
/// # Errors
/// When it cannot be read, or group or others can read it too.
pub fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    refuse(file, 0o077, "600", "replace what it holds if it leaked")?;
    text(file)
}

/// A file of the administrator: a group may read it, which is how the owner of a machine hands a
/// key or a password to a service that runs under another name.
///
/// # Errors
/// When it cannot be read, the group can write it, or others can read it.
pub fn read_given(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    must_be_guarded(file, "replace what it holds if it leaked")?;
    text(file)
}

/// # Errors
/// As of [`read_given`]; names the file, the remedy, and `advice`.
pub fn must_be_guarded(file: &Path, advice: &str) -> anyhow::Result<()> {
    refuse(file, 0o037, "640", advice)
}

fn text(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    fs::read_to_string(file).map(Zeroizing::new).with_context(|| format!("cannot read {}", file.display()))
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
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", file.display())), "{error}");
        }
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

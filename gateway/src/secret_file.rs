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

/// # Errors
/// When it cannot be read, or others can read it too.
pub fn read(file: &Path) -> anyhow::Result<Zeroizing<String>> {
    must_be_private(file, "replace what it holds if it leaked")?;
    fs::read_to_string(file).map(Zeroizing::new).with_context(|| format!("cannot read {}", file.display()))
}

/// # Errors
/// When group or others may do anything with it: names the file, the remedy, and `advice`.
pub fn must_be_private(file: &Path, advice: &str) -> anyhow::Result<()> {
    let name = file.display();
    let mode = fs::metadata(file).with_context(|| format!("cannot read {name}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("others can read {name} (mode {:o}): run `chmod 600 {name}`, and {advice}", mode & 0o777);
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
}

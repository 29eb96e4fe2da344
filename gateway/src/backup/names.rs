//! The names of backups: the target of a new one, and the older ones of the same kind.

use std::ffi::OsStr;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fleetgate_engine::time::Wall;
use fleetgate_keys::PublicKey;

use super::archive;

/// Returns the target file of a backup: `given`, or a name with the time in the folder `given`.
///
/// # Errors
/// Fails when the file exists, or when its folder does not.
pub fn target(given: &Path, now: Wall) -> anyhow::Result<PathBuf> {
    let is_folder = given.is_dir() || given.as_os_str().as_encoded_bytes().ends_with(b"/");
    let file = if is_folder { given.join(dated(now)) } else { given.to_owned() };
    let folder = folder_of(&file);
    if !folder.is_dir() {
        bail!("there is no folder {}: make it first", folder.display());
    }
    file.file_name().context("a name for the backup is expected")?;
    if fs::symlink_metadata(&file).is_ok() {
        bail!(
            "{} is there already: say another name, or a folder, where each backup gets one",
            file.display()
        );
    }
    Ok(file)
}

/// Returns a name such as `fleetgate-20261128T191500Z.tar`.
pub fn dated(now: Wall) -> String {
    let at = jiff::Timestamp::from_millisecond(now.as_millis()).unwrap_or_default();
    format!("fleetgate-{}.tar", at.strftime("%Y%m%dT%H%M%SZ"))
}

pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the hidden folder beside the file in which the backup is made.
pub fn workshop(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    folder_of(file).join(format!(".{name}.partial"))
}

/// Replaces each number in a name by the same mark: backups of one kind differ only in numbers.
pub fn kind(name: &OsStr) -> String {
    let mut kind = String::new();
    for c in name.to_string_lossy().chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if c != '#' || !kind.ends_with('#') {
            kind.push(c);
        }
    }
    kind
}

/// Removes all but the `keep` newest backups of this gateway whose names are of the kind of `file`.
/// Returns the removed files. Other files stay, even under such a name: only complete backups of the
/// same gateway count.
///
/// # Errors
/// Fails when a file cannot be removed.
pub fn keep_newest(file: &Path, key: &PublicKey, keep: NonZeroUsize) -> anyhow::Result<Vec<PathBuf>> {
    let wanted = kind(file.file_name().unwrap_or_default());
    let folder = folder_of(file);
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let alike = entries.flatten().filter(|entry| {
        kind(&entry.file_name()) == wanted && entry.file_type().is_ok_and(|kind| kind.is_file())
    });
    let mut ours: Vec<(Option<jiff::Timestamp>, PathBuf)> = alike
        .filter_map(|entry| Some((archive::head_of(&entry.path())?, entry.path())))
        .filter(|(head, _)| head.key == *key)
        .map(|(head, path)| (time_of(&head.made_at), path))
        .collect();
    // The newest first. The backup that was just made counts as the newest, even if the clock went back.
    ours.sort_by(|a, b| (b.1 == *file, &b.0, &b.1).cmp(&(a.1 == *file, &a.0, &a.1)));
    let old: Vec<PathBuf> = ours.into_iter().skip(keep.get()).map(|(_, path)| path).collect();
    for path in &old {
        fs::remove_file(path).with_context(|| format!("cannot remove the old backup {}", path.display()))?;
    }
    Ok(old)
}

/// The text of a time does not sort: a second without a fraction ends with the letter Z.
fn time_of(made_at: &str) -> Option<jiff::Timestamp> {
    made_at.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_of_one_kind_differ_in_their_numbers_only() {
        let same = |a: &str, b: &str| kind(OsStr::new(a)) == kind(OsStr::new(b));
        assert!(same("fleetgate-20261128T191500Z.tar", "fleetgate-20250101T000000Z.tar"));
        assert!(same("nightly-9.tar", "nightly-10.tar"));
        assert!(!same("nightly-9.tar", "weekly-9.tar"));
        assert!(!same("nightly-9.tar", "nightly-9.tar.gz"));
        assert!(!same("nightly.tar", "nightly-9.tar"));
    }

    #[test]
    fn a_backup_later_in_the_same_second_is_newer() {
        let ascending = ["", "2026-01-02T12:00:00Z", "2026-01-02T12:00:00.1Z", "2026-01-02T12:00:00.12Z"];
        assert!(ascending.windows(2).all(|pair| time_of(pair[0]) < time_of(pair[1])));
    }

    #[test]
    fn a_folder_gets_a_name_with_the_time_and_a_file_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let made = target(dir.path(), Wall::from_millis(1_700_000_000_000)).unwrap();
        assert_eq!(made, dir.path().join("fleetgate-20231114T221320Z.tar"));
        fs::write(&made, "").unwrap();
        let again = target(dir.path(), Wall::from_millis(1_700_000_000_000)).unwrap_err().to_string();
        assert!(again.contains("is there already"), "{again}");
        let nowhere = target(&dir.path().join("no/x.tar"), Wall::from_millis(0)).unwrap_err().to_string();
        assert!(nowhere.contains("there is no folder"), "{nowhere}");
    }
}

//! The file of erased customers: a line of JSON for each, with its id and the time, and no personal data.
//!
//! It lies outside of the databases, because a backup that was made before an erasure has the data again: a
//! restore erases it by this file. A line is on disk before its erasure is committed. If the gateway ends in
//! between, its next start completes the erasure ([`reconcile`]). A line that cannot be read is reported
//! and skipped, and it stays for a person who can repair it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::Context as _;
use fleetgate_engine::time::Wall;
use serde_json::Value;

use crate::clock;
use crate::data_dir::{self, secret_file};
use crate::ids::{self, IdKind};
use crate::store::Store;
use crate::store::rentals::erasures::{self, Erasure};

/// Its name in the data directory and in a backup.
pub const ERASED_FILE: &str = "erased-ids";

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasedIds {
    pub erasures: Vec<Erasure>,
    /// The numbers of lines that cannot be read.
    pub damaged: Vec<usize>,
}

impl ErasedIds {
    fn parse(text: &[u8]) -> ErasedIds {
        let mut found = ErasedIds::default();
        for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
            match erasure(line) {
                Some(erasure) => found.erasures.push(erasure),
                None if line.is_empty() => {}
                None => found.damaged.push(number),
            }
        }
        found
    }

    /// Says which lines were skipped. `None`: no line was.
    pub fn damage(&self) -> Option<String> {
        let numbers: Vec<String> = self.damaged.iter().map(usize::to_string).collect();
        (!numbers.is_empty()).then(|| {
            format!(
                "{ERASED_FILE} has lines that cannot be read and were skipped ({}), so that a customer who was \
                 erased may not be: repair or delete them",
                numbers.join(", ")
            )
        })
    }
}

fn erasure(line: &[u8]) -> Option<Erasure> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let at: jiff::Timestamp = value["erased_at"].as_str()?.parse().ok()?;
    let customer = IdKind::Customer.parse(value["customer"].as_str()?).ok()?;
    Some(Erasure { customer, at: Wall::from_millis(at.as_millisecond()) })
}

fn line(erasure: &Erasure) -> String {
    let (at, customer) = (ids::time(erasure.at), IdKind::Customer.text(erasure.customer));
    // Neither has a character that JSON escapes.
    format!("{{\"erased_at\":\"{at}\",\"customer\":\"{customer}\"}}\n")
}

/// Reads the file of a directory. Without one nobody was erased.
///
/// # Errors
/// Fails when it cannot be read.
pub fn read(dir: &Path) -> anyhow::Result<ErasedIds> {
    Ok(ErasedIds::parse(&bytes(dir)?))
}

fn bytes(dir: &Path) -> anyhow::Result<Vec<u8>> {
    let file = dir.join(ERASED_FILE);
    match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Lines that are on disk. Dropped, they stay: the next start erases these customers.
#[derive(Debug)]
pub struct Appended {
    /// Locked, so that the lines are the last ones.
    file: File,
    before: u64,
}

impl Appended {
    /// Takes the lines back, because their erasure was refused.
    ///
    /// # Errors
    /// Fails when the file cannot be written. The lines stay then.
    pub fn withdraw(self) -> io::Result<()> {
        self.file.set_len(self.before)?;
        self.file.sync_all()
    }
}

/// Adds erasures to the file of a directory, all or none, and waits until they are on disk.
///
/// # Errors
/// Fails when the file cannot be written, and as `WouldBlock` while another erasure is not complete. Then
/// nothing was added.
pub fn append(dir: &Path, erasures: &[Erasure]) -> io::Result<Appended> {
    let path = dir.join(ERASED_FILE);
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
    if !data_dir::try_lock(&file) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let before = file.metadata()?.len();
    // The remains of a line that was cut off must not damage the next one.
    let end = if ends_a_line(&file, before)? { "" } else { "\n" };
    let lines: String = erasures.iter().map(line).collect();
    let written = file.write_all(format!("{end}{lines}").as_bytes());
    let written = written.and_then(|()| file.sync_all()).and_then(|()| secret_file::sync_folder(&path));
    let appended = Appended { file, before };
    match written {
        Ok(()) => Ok(appended),
        Err(error) => {
            // What is left of the lines is a damaged line, or completes the erasure at the next start.
            let _ = appended.withdraw();
            Err(error)
        }
    }
}

fn ends_a_line(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// Adds the lines of the data directory to the file of a backup that was unpacked into `staged`. Returns all
/// of them.
///
/// # Errors
/// Fails when a file cannot be read or written.
pub(super) fn merge(data: &Path, staged: &Path) -> anyhow::Result<ErasedIds> {
    let (ours, theirs) = (bytes(data)?, bytes(staged)?);
    let mut all = ours.clone();
    if !all.is_empty() && !all.ends_with(b"\n") {
        all.push(b'\n');
    }
    let known: BTreeSet<&[u8]> = ours.split(|byte| *byte == b'\n').collect();
    for new in theirs.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !known.contains(line)) {
        all.extend_from_slice(new);
        all.push(b'\n');
    }
    if !all.is_empty() {
        replace(&staged.join(ERASED_FILE), &all)?;
    }
    Ok(ErasedIds::parse(&all))
}

/// Replaces a file as a whole: after a stop it has the former lines or the new ones.
fn replace(file: &Path, lines: &[u8]) -> anyhow::Result<()> {
    let half = file.with_extension("new");
    // The remains of a write that was cut off.
    let _ = fs::remove_file(&half);
    let mut out = secret_file::create(&half)?;
    let written = out.write_all(lines).and_then(|()| out.sync_all()).and_then(|()| fs::rename(&half, file));
    written.with_context(|| format!("cannot write {}", file.display()))
}

/// Makes the database and the file agree before the gateway runs: an erasure that either of them knows is in
/// both afterwards.
///
/// # Errors
/// Fails when the database or the file cannot be read or written.
pub async fn reconcile(store: &Store, data: &Path) -> anyhow::Result<()> {
    let found = read(data)?;
    if let Some(damage) = found.damage() {
        tracing::error!("{}: {damage}", data.display());
    }
    let mut tx = store.begin().await?;
    let erased = erasures::apply(&mut tx, &found.erasures, clock::wall()).await?;
    let stored = erasures::all(&mut tx).await?;
    tx.commit().await?;
    if !erased.is_empty() {
        tracing::warn!("{} customers were erased according to {ERASED_FILE}", erased.len());
    }
    let known: BTreeSet<_> = found.erasures.iter().map(|of| of.customer).collect();
    let missing: Vec<Erasure> = stored.into_iter().filter(|of| !known.contains(&of.customer)).collect();
    if !missing.is_empty() {
        append(data, &missing).with_context(|| format!("cannot write {ERASED_FILE}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use fleetgate_engine::id::Id;

    use super::*;
    use crate::store::fixture;

    fn erasure(customer: i64, at: i64) -> Erasure {
        Erasure { customer: Id::from_i64(customer), at: Wall::from_millis(at) }
    }

    fn text(dir: &Path) -> String {
        fs::read_to_string(dir.join(ERASED_FILE)).unwrap_or_default()
    }

    #[test]
    fn a_line_has_an_id_and_a_time_and_belongs_to_the_gateway_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), ErasedIds::default());
        drop(append(dir.path(), &[erasure(7, 1_000)]).unwrap());
        drop(append(dir.path(), &[erasure(8, 2_000), erasure(9, 3_000)]).unwrap());
        let first = "{\"erased_at\":\"1970-01-01T00:00:01Z\",\"customer\":\"k_0000000000007\"}\n";
        assert!(text(dir.path()).starts_with(first), "{}", text(dir.path()));
        let found = read(dir.path()).unwrap();
        assert_eq!(found.erasures, [erasure(7, 1_000), erasure(8, 2_000), erasure(9, 3_000)]);
        assert_eq!(found.damage(), None);
        let mode = fs::metadata(dir.path().join(ERASED_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_that_was_cut_off_anywhere_is_reported_and_hides_no_other() {
        let whole = line(&erasure(8, 2_000));
        for length in 1..whole.len() - 1 {
            let dir = tempfile::tempdir().unwrap();
            let before = line(&erasure(7, 1_000)) + &whole[..length];
            fs::write(dir.path().join(ERASED_FILE), before).unwrap();
            drop(append(dir.path(), &[erasure(9, 3_000)]).unwrap());
            let found = read(dir.path()).unwrap();
            assert_eq!(found.erasures, [erasure(7, 1_000), erasure(9, 3_000)], "{length}");
            assert_eq!(found.damaged, [2]);
            assert!(found.damage().unwrap().contains("skipped (2)"), "{:?}", found.damage());
        }
    }

    #[test]
    fn foreign_lines_are_reported_by_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let good = line(&erasure(7, 1_000));
        let bad = [
            "{}",
            "[]",
            "null",
            "\u{0}",
            "{\"customer\":\"h_0000000000007\",\"erased_at\":\"1970-01-01T00:00:01Z\"}",
            "{\"customer\":\"k_0000000000007\",\"erased_at\":\"yesterday\"}",
        ];
        fs::write(dir.path().join(ERASED_FILE), format!("\n{good}{}\n{good}", bad.join("\n"))).unwrap();
        let found = read(dir.path()).unwrap();
        assert_eq!((found.erasures.len(), found.damaged), (2, vec![3, 4, 5, 6, 7, 8]));
        fs::write(dir.path().join(ERASED_FILE), [0xff, 0xfe, b'\n']).unwrap();
        assert_eq!(read(dir.path()).unwrap().damaged, [1]);
    }

    #[test]
    fn an_erasure_that_is_refused_takes_its_line_back_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        drop(append(dir.path(), &[erasure(7, 1_000)]).unwrap());
        let before = text(dir.path());
        let second = append(dir.path(), &[erasure(8, 2_000)]).unwrap();
        let meanwhile = append(dir.path(), &[erasure(9, 3_000)]).unwrap_err();
        assert_eq!(meanwhile.kind(), io::ErrorKind::WouldBlock);
        second.withdraw().unwrap();
        assert_eq!(text(dir.path()), before);
        drop(append(dir.path(), &[erasure(9, 3_000)]).unwrap());
        assert_eq!(read(dir.path()).unwrap().erasures.len(), 2);
    }

    #[test]
    fn the_lines_of_both_files_are_joined_also_those_that_are_damaged() {
        let (data, staged) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(merge(data.path(), staged.path()).unwrap(), ErasedIds::default());
        assert!(!staged.path().join(ERASED_FILE).exists(), "nobody was erased");
        let [seven, eight, nine] = [7, 8, 9].map(|n| line(&erasure(n, 1_000)));
        fs::write(data.path().join(ERASED_FILE), format!("{seven}{eight}half")).unwrap();
        fs::write(staged.path().join(ERASED_FILE), format!("{eight}{nine}")).unwrap();
        let all = merge(data.path(), staged.path()).unwrap();
        assert_eq!(text(staged.path()), format!("{seven}{eight}half\n{nine}"));
        assert_eq!((all.erasures.len(), all.damaged), (3, vec![3]));
        assert_eq!(text(data.path()), format!("{seven}{eight}half"), "the data directory is as it was");
    }

    #[tokio::test]
    async fn a_start_completes_what_ended_between_the_line_and_the_commit() {
        let (store, dir) = fixture::store().await;
        let insert = "insert into customers (id, name, created_at, erased_at)
            values (1, 'Ada', 1, null), (2, 'Bob', 1, null), (3, '', 1, 500)";
        fixture::run(&store, insert, &[]).await;
        // The gateway ended after the line of 1. The line of 3 was never written: it was erased by an older
        // version.
        drop(append(dir.path(), &[erasure(1, 600)]).unwrap());
        for _ in 0..2 {
            reconcile(&store, dir.path()).await.unwrap();
            let names = "select name from customers order by id";
            assert_eq!(fixture::texts(&store, names).await, ["", "Bob", ""]);
            assert_eq!(read(dir.path()).unwrap().erasures, [erasure(1, 600), erasure(3, 500)]);
        }
    }

    #[tokio::test]
    async fn a_gateway_without_erasures_has_no_file() {
        let (store, dir) = fixture::store().await;
        reconcile(&store, dir.path()).await.unwrap();
        assert!(!dir.path().join(ERASED_FILE).exists());
    }
}

//! The format of a backup: a tar archive of plain files, which `tar xf` and `sha256sum -c` can also
//! read. It begins with a description and ends with the digests of all other files, so that a truncated
//! file lacks them. A reader trusts nothing in it: names, sizes and order are checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use fleetgate_keys::PublicKey;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::erased_ids::ERASED_FILE;
use crate::data_dir::{SSH_FILE, WIREGUARD_FILE};
use crate::store::files::{HISTORY_FILE, MAIN_FILE};

/// The settings, under their name in the data directory.
pub const SETTINGS_FILE: &str = "fleetgate.toml";
const HEAD_FILE: &str = "fleetgate-backup.json";
const SUMS_FILE: &str = "SHA256SUMS";
/// Version of the format. A reader refuses an unknown one.
const FORMAT: u64 = 1;
/// Largest size of keys, settings and description: real ones are far below it.
const MAX_SMALL: u64 = 1024 * 1024;
/// Largest size of the file of erased customers: more than 800,000 lines.
const MAX_ERASED: u64 = 64 * 1024 * 1024;
const BUFFER: usize = 256 * 1024;

/// Files that a backup may contain, in this order.
pub const CONTENTS: [&str; 6] =
    [WIREGUARD_FILE, SSH_FILE, SETTINGS_FILE, ERASED_FILE, MAIN_FILE, HISTORY_FILE];
/// Files without which there is no gateway.
const NEEDED: [&str; 3] = [WIREGUARD_FILE, SSH_FILE, MAIN_FILE];

/// The description of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// RFC 3339.
    pub made_at: String,
    /// The version that made it.
    pub program: String,
    pub key: PublicKey,
    pub main_schema: i64,
    /// `None` when it was made without the history.
    pub history_schema: Option<i64>,
}

impl Head {
    fn to_json(&self) -> Value {
        json!({
            "format": FORMAT,
            "made_at": self.made_at,
            "program": self.program,
            "public_key": self.key.to_string(),
            "main_schema": self.main_schema,
            "history_schema": self.history_schema,
        })
    }

    fn parse(text: &[u8]) -> anyhow::Result<Head> {
        let value: Value = serde_json::from_slice(text).context("its description is no JSON")?;
        let text = |name: &str| value[name].as_str().with_context(|| format!("its description lacks {name}"));
        let number = |name: &str| value[name].as_i64();
        ensure!(
            value["format"].as_u64() == Some(FORMAT),
            "its format is {}, this version knows {FORMAT}: restore it with the version that made it",
            value["format"]
        );
        Ok(Head {
            made_at: text("made_at")?.to_owned(),
            program: text("program")?.to_owned(),
            key: text("public_key")?.parse().context("its public key cannot be read")?,
            main_schema: number("main_schema").context("its description lacks main_schema")?,
            history_schema: number("history_schema"),
        })
    }
}

/// Writes the existing files of `from`. The caller syncs.
///
/// # Errors
/// Fails when a file cannot be read or the archive cannot be written.
pub fn write(from: &Path, head: &Head, out: &mut File, mut progress: impl FnMut(u64)) -> anyhow::Result<()> {
    let mut tar = tar::Builder::new(io::BufWriter::with_capacity(BUFFER, out));
    let mut sums = String::new();
    let text = serde_json::to_vec_pretty(&head.to_json())?;
    add(&mut tar, &mut sums, HEAD_FILE, text.len() as u64, &text[..], &mut progress)?;
    for name in CONTENTS {
        let file = from.join(name);
        if !file.exists() {
            continue;
        }
        let open = File::open(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let size = open.metadata()?.len();
        add(&mut tar, &mut sums, name, size, open, &mut progress)
            .with_context(|| format!("cannot put {name} into the backup"))?;
    }
    let ended = sums.clone();
    add(&mut tar, &mut sums, SUMS_FILE, ended.len() as u64, ended.as_bytes(), &mut progress)?;
    tar.into_inner()?.flush().context("cannot write the backup")
}

fn add(
    tar: &mut tar::Builder<impl Write>,
    sums: &mut String,
    name: &str,
    size: u64,
    content: impl Read,
    progress: impl FnMut(u64),
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    let mut hashed = Hashed { inner: content, hash: Sha256::new(), done: 0, progress };
    tar.append_data(&mut header, name, &mut hashed)?;
    if hashed.done != size {
        return Err(io::Error::other("the file changed while it was read"));
    }
    sums.push_str(&format!("{}  {name}\n", hex(&hashed.hash.finalize())));
    Ok(())
}

struct Hashed<R, P> {
    inner: R,
    hash: Sha256,
    done: u64,
    progress: P,
}

impl<R: Read, P: FnMut(u64)> Read for Hashed<R, P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        self.done += count as u64;
        (self.progress)(count as u64);
        Ok(count)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Reads a whole archive. `accept` checks the description before anything else is read, and `place`
/// returns the target of each of [`CONTENTS`].
///
/// # Errors
/// Fails when it is not a backup, was truncated, or a digest differs.
pub fn read(
    archive: impl Read,
    accept: impl FnOnce(&Head) -> anyhow::Result<()>,
    mut place: impl FnMut(&str) -> anyhow::Result<Box<dyn Write>>,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Head> {
    let mut tar = tar::Archive::new(BufReader::with_capacity(BUFFER, archive));
    let mut reading = Reading::default();
    let mut accept = Some(accept);
    // Extension headers (long names, PAX) are entries here, which `name_of` refuses. The library would read
    // them into memory, whatever their size.
    for entry in tar.entries()?.raw(true) {
        let mut entry = entry.map_err(|e| broken(&e))?;
        let name = name_of(&entry)?;
        reading.expect(&name)?;
        match name.as_str() {
            HEAD_FILE => {
                let head = Head::parse(&reading.small(&name, &mut entry)?)?;
                accept.take().context("it describes itself twice")?(&head)?;
                reading.head = Some(head);
            }
            SUMS_FILE => {
                let text = small(&name, &mut entry)?;
                reading.sums = Some(parse_sums(&text)?);
            }
            content => {
                let mut out = place(content)?;
                reading.copy(&name, &mut entry, &mut out, &mut progress)?;
                out.flush().with_context(|| format!("cannot write {content}"))?;
            }
        }
    }
    must_have_ended(tar.into_inner())?;
    reading.finish()
}

fn broken(error: &io::Error) -> anyhow::Error {
    anyhow::anyhow!("it is no backup of fleetgate, or was damaged: {error}")
}

fn name_of(entry: &tar::Entry<'_, impl Read>) -> anyhow::Result<String> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    ensure!(entry.header().entry_type().is_file(), "it is no backup of fleetgate: {name:?} in it is no file");
    Ok(name)
}

/// Only zeroes may follow the end of an archive.
fn must_have_ended(mut rest: impl Read) -> anyhow::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = rest.read(&mut buffer).map_err(|e| broken(&e))?;
        if count == 0 {
            return Ok(());
        }
        ensure!(buffer[..count].iter().all(|b| *b == 0), "something else follows behind its end");
    }
}

/// The parts of an archive read so far.
#[derive(Default)]
struct Reading {
    head: Option<Head>,
    found: BTreeMap<String, String>,
    sums: Option<BTreeMap<String, String>>,
}

impl Reading {
    fn expect(&self, name: &str) -> anyhow::Result<()> {
        ensure!(self.sums.is_none(), "{name:?} stands behind its digests");
        ensure!(
            self.head.is_some() || name == HEAD_FILE,
            "it is no backup of fleetgate: it begins with {name:?}, not with {HEAD_FILE}"
        );
        let known = name == HEAD_FILE || name == SUMS_FILE || CONTENTS.contains(&name);
        ensure!(known, "it holds {name:?}, which no backup has");
        ensure!(!self.found.contains_key(name), "it holds {name} twice");
        Ok(())
    }

    fn small(&mut self, name: &str, entry: &mut tar::Entry<'_, impl Read>) -> anyhow::Result<Vec<u8>> {
        let text = small(name, entry)?;
        self.found.insert(name.to_owned(), hex(&Sha256::digest(&text)));
        Ok(text)
    }

    fn copy(
        &mut self,
        name: &str,
        entry: &mut tar::Entry<'_, impl Read>,
        out: &mut dyn Write,
        mut progress: impl FnMut(u64),
    ) -> anyhow::Result<()> {
        let size = entry.size();
        ensure!(size <= largest(name), "{name} in it has {size} bytes, which no backup has");
        let (mut buffer, mut hash, mut done) = (vec![0; BUFFER], Sha256::new(), 0);
        loop {
            let count = entry.read(&mut buffer).map_err(|e| broken(&e))?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            out.write_all(&buffer[..count]).with_context(|| format!("cannot write {name}"))?;
            done += count as u64;
            progress(count as u64);
        }
        ensure!(done == size, "it was cut off in {name}: {done} of {size} bytes are there");
        self.found.insert(name.to_owned(), hex(&hash.finalize()));
        Ok(())
    }

    fn finish(self) -> anyhow::Result<Head> {
        let head = self.head.context("it is empty, or no backup of fleetgate")?;
        let sums = self.sums.context("it was cut off: its digests are missing")?;
        for (name, digest) in &self.found {
            let wanted = sums.get(name).with_context(|| format!("its digests do not name {name}"))?;
            ensure!(
                wanted == digest,
                "{name} in it was damaged or changed: its SHA-256 is {digest}, not {wanted}"
            );
        }
        if let Some(name) = sums.keys().find(|name| !self.found.contains_key(*name)) {
            bail!("it was cut off or changed: {name} is missing");
        }
        let history = head.history_schema.map(|_| HISTORY_FILE);
        for name in NEEDED.into_iter().chain(history) {
            ensure!(self.found.contains_key(name), "it lacks {name}");
        }
        Ok(head)
    }
}

fn largest(name: &str) -> u64 {
    match name {
        MAIN_FILE | HISTORY_FILE => u64::MAX,
        ERASED_FILE => MAX_ERASED,
        _ => MAX_SMALL,
    }
}

fn small(name: &str, entry: &mut tar::Entry<'_, impl Read>) -> anyhow::Result<Vec<u8>> {
    let size = entry.size();
    ensure!(size <= MAX_SMALL, "{name} in it has {size} bytes, which no backup has");
    let mut text = Vec::new();
    entry.read_to_end(&mut text).map_err(|e| broken(&e))?;
    ensure!(text.len() as u64 == size, "it was cut off in {name}");
    Ok(text)
}

/// Parses digests in the format of `sha256sum`.
fn parse_sums(text: &[u8]) -> anyhow::Result<BTreeMap<String, String>> {
    let text = std::str::from_utf8(text).context("its digests are no text")?;
    let line = |line: &str| {
        let (digest, name) = line.split_once("  ")?;
        Some((name.to_owned(), digest.to_owned()))
    };
    let sums: Option<BTreeMap<String, String>> = text.lines().map(line).collect();
    sums.context("its digests cannot be read")
}

/// Returns the description of a file that appears to be a complete backup, without reading all of it.
/// The digests are last, so it is not truncated.
pub fn head_of(file: &Path) -> Option<Head> {
    let mut tar = tar::Archive::new(File::open(file).ok()?);
    let (mut head, mut last) = (None, String::new());
    for entry in tar.entries_with_seek().ok()?.raw(true) {
        let mut entry = entry.ok()?;
        let name = name_of(&entry).ok()?;
        match name.as_str() {
            HEAD_FILE => head = Some(Head::parse(&small(HEAD_FILE, &mut entry).ok()?).ok()?),
            SUMS_FILE => parse_sums(&small(SUMS_FILE, &mut entry).ok()?).map(drop).ok()?,
            _ if head.is_none() => return None,
            _ => {}
        }
        last = name;
    }
    head.filter(|_| last == SUMS_FILE)
}

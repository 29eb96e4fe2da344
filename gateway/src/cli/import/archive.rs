//! Configurations in one tar archive that only its owner can read.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::data_dir::secret_file;
use crate::{clock, names};

pub struct Archive {
    tar: tar::Builder<File>,
    path: PathBuf,
}

impl Archive {
    /// # Errors
    /// When the file exists, or cannot be written.
    pub fn create(path: &Path) -> anyhow::Result<Archive> {
        let file = secret_file::create(path)?;
        secret_file::sync_folder(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Archive { tar: tar::Builder::new(file), path: path.to_owned() })
    }

    /// Adds a configuration. It is on disk afterwards: its key is stored nowhere else.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add(&mut self, device: &str, conf: &str) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(conf.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(clock::wall().as_millis().unsigned_abs() / 1_000);
        let added = self.tar.append_data(&mut header, names::conf_path(device), conf.as_bytes());
        let stored = added.and_then(|()| self.tar.get_ref().sync_data());
        stored.with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> anyhow::Result<()> {
        let path = self.path;
        let written = self.tar.into_inner().and_then(|file| file.sync_all());
        written.with_context(|| format!("cannot write {}", path.display()))
    }
}

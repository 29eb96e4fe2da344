//! The gateway's own keys: generated at the first start, readable by their owner only.

pub mod continuity;
pub mod ssh_ca;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use fleetgate_keys::ssh_key::SshKey;
use fleetgate_keys::{PrivateKey, SealKey};

use crate::data_dir::start::{Reached, StartStep, restore_hint};
use crate::data_dir::{SSH_FILE, WIREGUARD_FILE, secret_file};
use ssh_ca::SshCa;

/// Separates the sealing key from every other use of the gateway's key.
const SEALS: &str = "fleetgate database secrets";

/// The keys by which the whole fleet identifies the gateway.
pub struct Identity {
    pub wireguard: PrivateKey,
    pub ssh: SshKey,
    /// Signs the SSH keys of renters. It comes from the WireGuard key and has no file of its own.
    pub ssh_ca: Arc<SshCa>,
}

impl Identity {
    /// Reads the keys of `data`, and generates a missing one. The caller has checked that it may be
    /// missing.
    ///
    /// # Errors
    /// Refuses a key file that others can read. Names the file and the remedy.
    pub fn open(data: &Path, reached: Reached<'_>) -> anyhow::Result<Identity> {
        let wireguard_file = data.join(WIREGUARD_FILE);
        if !wireguard_file.exists() {
            secret_file::write_new(&wireguard_file, &PrivateKey::generate().to_base64())?;
        }
        reached(StartStep::WireguardKey)?;
        let ssh_file = data.join(SSH_FILE);
        if !ssh_file.exists() {
            secret_file::write_new(&ssh_file, &SshKey::generate("fleetgate").to_openssh())?;
        }
        reached(StartStep::SshKey)?;
        Identity::read(data)
    }

    /// Reads the keys of `data`.
    ///
    /// # Errors
    /// Fails when a key is missing, invalid, or readable by others.
    pub fn read(data: &Path) -> anyhow::Result<Identity> {
        let (wireguard_file, ssh_file) = (data.join(WIREGUARD_FILE), data.join(SSH_FILE));
        let wireguard: PrivateKey = secret_file::read(&wireguard_file)?
            .trim()
            .parse()
            .with_context(|| unusable(&wireguard_file, "a WireGuard private key", data))?;
        let ssh = secret_file::read(&ssh_file)?
            .parse::<SshKey>()
            .with_context(|| unusable(&ssh_file, "an OpenSSH ed25519 key", data))?;
        let ssh_ca = Arc::new(SshCa::of(&wireguard)?);
        Ok(Identity { wireguard, ssh, ssh_ca })
    }

    /// Returns the key that seals the secrets in the database. The gateway's key is enough to open them.
    pub fn seal_key(&self) -> SealKey {
        SealKey::derive(&self.wireguard, SEALS)
    }
}

fn unusable(file: &Path, wanted: &str, data: &Path) -> String {
    format!("{} does not hold {wanted}. {}", file.display(), restore_hint(data))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_keys_are_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::open(dir.path(), &|_| Ok(())).unwrap();
        let second = Identity::open(dir.path(), &|_| Ok(())).unwrap();
        assert_eq!(first.wireguard.public(), second.wireguard.public());
        assert_eq!(first.ssh_ca.public_line(), second.ssh_ca.public_line());
        let mode = fs::metadata(dir.path().join(WIREGUARD_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        Identity::open(dir.path(), &|_| Ok(())).unwrap();
        fs::set_permissions(dir.path().join(WIREGUARD_FILE), fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::open(dir.path(), &|_| Ok(())).err().unwrap();
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
}

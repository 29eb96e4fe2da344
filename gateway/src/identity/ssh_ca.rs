//! The certificate authority for the SSH keys of renters.
//!
//! Its key is derived from the key of the gateway. So it is in the same file and in each backup, a restored gateway has
//! the same one, and devices that trust it keep their configuration. It signs for users only, never for hosts.

use anyhow::Context as _;
use fleetgate_engine::id::RentalId;
use fleetgate_engine::rental::occupancy::Window;
use fleetgate_engine::time::Wall;
use fleetgate_keys::ssh_key::SshKey;
use fleetgate_keys::{PrivateKey, SshPublicKey};
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{PublicKey, decode_secret_key};
use sha2::{Digest as _, Sha256};

use crate::ids::IdKind;

/// Separates this key from every other use of the gateway's key.
const PURPOSE: &str = "renters' SSH certificates";
/// Bytes of the digest of a key that are its mark. Two keys with one mark are not found with so many.
const MARK: usize = 10;
/// How the line of the public key calls it.
const COMMENT: &str = "fleetgate-rentals";
/// Bytes of chance in a certificate (PROTOCOL.certkeys: typically 16 or 32).
const NONCE: usize = 32;
/// The rights of a renter beside running a command. Port forwarding would lead past the device into its network, an
/// agent would be open to the device, and `~/.ssh/rc` may be what a renter before has left there.
const EXTENSIONS: [&str; 1] = ["permit-pty"];

/// The authority of one gateway.
pub struct SshCa {
    key: russh::keys::PrivateKey,
    public: SshPublicKey,
}

/// For whom a certificate is made.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// The text about a login in the log of the device.
    pub key_id: &'a str,
    /// The only name under which the certificate is accepted.
    pub principal: &'a str,
}

/// Returns the principal of the certificate of a key for a rental. The device lists the principals of the keys that are
/// let in, so that a key which is removed takes its certificate with it.
pub fn principal(rental: RentalId, key: &str) -> String {
    format!("{}.{}", IdKind::Rental.text(rental), mark(key))
}

/// Returns the part of the principal that stands for a key, which is written as the gateway keeps it.
pub fn mark(key: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(key).into();
    digest[..MARK].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A certificate and its window, in whole seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// As in a file whose name ends in `-cert.pub`.
    pub line: String,
    pub from: Wall,
    /// Not included.
    pub until: Wall,
}

#[derive(Debug, thiserror::Error)]
pub enum NotSigned {
    #[error("the window has no whole second, and a certificate counts in seconds")]
    TooShort,
    #[error("the certificate cannot be made: {0}")]
    Refused(#[from] russh::keys::ssh_key::Error),
}

impl SshCa {
    /// Returns the authority of the gateway with this key.
    ///
    /// # Errors
    /// Fails when the SSH library refuses the derived key.
    pub fn of(gateway: &PrivateKey) -> anyhow::Result<SshCa> {
        let key = SshKey::derive(gateway, PURPOSE, COMMENT);
        let decoded = decode_secret_key(&key.to_openssh(), None);
        Ok(SshCa { key: decoded.context("the SSH CA cannot be used")?, public: key.public() })
    }

    /// Returns the line for `TrustedUserCAKeys` of sshd.
    pub fn public_line(&self) -> String {
        self.public.to_string()
    }

    /// Makes a user certificate that is valid in a window, never before it begins and never after it ends.
    ///
    /// # Errors
    /// Fails for a window without a whole second.
    pub fn sign(&self, key: &PublicKey, holder: Holder<'_>, valid: Window) -> Result<Signed, NotSigned> {
        let millis = |at: Wall| u64::try_from(at.as_millis()).unwrap_or_default();
        let (after, before) = (millis(valid.from()).div_ceil(1_000), millis(valid.until()) / 1_000);
        if after >= before {
            return Err(NotSigned::TooShort);
        }
        let mut builder = Builder::new(nonce(), key, after, before)?;
        builder.serial(serial(key, holder, (after, before))?)?;
        builder.cert_type(CertType::User)?;
        builder.key_id(holder.key_id)?;
        builder.valid_principal(holder.principal)?;
        for extension in EXTENSIONS {
            builder.extension(extension, "")?;
        }
        let line = builder.sign(&self.key)?.to_openssh()?.trim_end().to_owned();
        Ok(Signed { line, from: wall(after), until: wall(before) })
    }
}

fn wall(seconds: u64) -> Wall {
    Wall::from_millis(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000))
}

fn nonce() -> Vec<u8> {
    let mut bytes = vec![0; NONCE];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// The same certificate has the same number each time that it is made, so that a log or a list of revoked numbers names
/// it.
fn serial(
    key: &PublicKey,
    holder: Holder<'_>,
    (after, before): (u64, u64),
) -> Result<u64, russh::keys::ssh_key::Error> {
    let digest = Sha256::new().chain_update(key.to_bytes()?).chain_update(holder.principal);
    let digest = digest.chain_update(after.to_be_bytes()).chain_update(before.to_be_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    Ok(u64::from_be_bytes(head))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use russh::keys::{Certificate, HashAlg};

    use super::*;

    const HOLDER: Holder<'_> =
        Holder { key_id: "rental l_38h601nahgbz6 renter w_38h601nahgbz6", principal: "l_38h601nahgbz6" };

    fn ca(seed: u8) -> SshCa {
        SshCa::of(&PrivateKey::from_bytes([seed; 32])).unwrap()
    }

    fn key(seed: u8) -> PublicKey {
        PublicKey::from_openssh(&SshKey::from_seed(&[seed; 32], "ada@laptop").public().to_string()).unwrap()
    }

    fn window(from: i64, until: i64) -> Window {
        Window::new(Wall::from_millis(from), Wall::from_millis(until)).unwrap()
    }

    fn is_valid(line: &str, at: u64, by: &SshCa) -> bool {
        let ca = PublicKey::from_openssh(&by.public_line()).unwrap().fingerprint(HashAlg::Sha256);
        Certificate::from_openssh(line).unwrap().validate_at(at, &[ca]).is_ok()
    }

    #[test]
    fn a_certificate_is_valid_inside_its_window_and_by_this_authority_alone() {
        let ca = ca(7);
        let signed = ca.sign(&key(1), HOLDER, window(1_000_000, 2_000_000)).unwrap();
        let valid = |at| is_valid(&signed.line, at, &ca);
        assert_eq!([999, 1_000, 1_999, 2_000].map(valid), [false, true, true, false]);
        assert!(!is_valid(&signed.line, 1_500, &self::ca(8)), "another gateway");
        assert_eq!((signed.from, signed.until), (Wall::from_millis(1_000_000), Wall::from_millis(2_000_000)));
    }

    #[test]
    fn parts_of_a_second_make_a_certificate_shorter() {
        let ca = ca(7);
        let signed = ca.sign(&key(1), HOLDER, window(1_000_001, 2_000_999)).unwrap();
        let valid = |at| is_valid(&signed.line, at, &ca);
        assert_eq!([1_000, 1_001, 1_999, 2_000].map(valid), [false, true, true, false]);
        for (from, until) in [(1_000_001, 1_000_999), (1_000_001, 1_001_000), (1_000_001, 1_001_999)] {
            assert!(matches!(ca.sign(&key(1), HOLDER, window(from, until)), Err(NotSigned::TooShort)));
        }
    }

    #[test]
    fn a_certificate_names_its_rental_and_permits_a_terminal_and_no_more() {
        let signed = ca(7).sign(&key(1), HOLDER, window(1_000_000, 2_000_000)).unwrap();
        assert!(signed.line.starts_with("ssh-ed25519-cert-v01@openssh.com AAAA"), "{}", signed.line);
        let certificate = Certificate::from_openssh(&signed.line).unwrap();
        assert_eq!(certificate.cert_type(), CertType::User);
        assert_eq!(certificate.valid_principals(), ["l_38h601nahgbz6"]);
        assert_eq!(certificate.key_id(), HOLDER.key_id);
        assert_eq!(certificate.public_key(), key(1).key_data());
        assert_eq!(certificate.comment(), "", "it may name a person");
        assert!(certificate.critical_options().is_empty());
        assert_eq!(certificate.extensions().keys().collect::<Vec<_>>(), ["permit-pty"]);
    }

    #[test]
    fn a_principal_is_of_one_rental_and_one_key() {
        let of = |rental: i64, key: &str| principal(RentalId::from_i64(rental), key);
        let first = of(5, "ssh-ed25519 AAAA");
        let (rental, mark) = first.split_once('.').unwrap();
        assert_eq!((rental, mark.len()), (IdKind::Rental.text(RentalId::from_i64(5)).as_str(), 2 * MARK));
        assert!(mark.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()), "{mark}");
        assert_eq!(of(5, "ssh-ed25519 AAAA"), first);
        assert_ne!(of(5, "ssh-ed25519 AAAB"), first);
        assert_ne!(of(6, "ssh-ed25519 AAAA"), first);
    }

    #[test]
    fn the_number_is_that_of_the_certificate_and_the_rest_is_chance() {
        let ca = ca(7);
        let serial = |key: &PublicKey, holder, window| {
            let line = ca.sign(key, holder, window).unwrap().line;
            Certificate::from_openssh(&line).unwrap().serial()
        };
        let first = serial(&key(1), HOLDER, window(1_000_000, 2_000_000));
        assert_eq!(serial(&key(1), HOLDER, window(1_000_000, 2_000_000)), first);
        let other = Holder { principal: "l_38h601nahgbz7", ..HOLDER };
        for another in [
            serial(&key(2), HOLDER, window(1_000_000, 2_000_000)),
            serial(&key(1), other, window(1_000_000, 2_000_000)),
            serial(&key(1), HOLDER, window(1_000_000, 3_000_000)),
        ] {
            assert_ne!(another, first);
        }
    }

    #[test]
    fn openssh_reads_the_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id-cert.pub");
        let signed = ca(7).sign(&key(1), HOLDER, window(1_000_000, 2_000_000)).unwrap();
        std::fs::write(&file, format!("{}\n", signed.line)).unwrap();
        // Not every machine has it.
        let Ok(out) = Command::new("ssh-keygen").arg("-L").arg("-f").arg(&file).output() else { return };
        let text = String::from_utf8(out.stdout).unwrap();
        let principals = format!("Principals: \n                {}\n", HOLDER.principal);
        for part in ["user certificate", HOLDER.key_id, &principals, "Critical Options: (none)", "permit-pty"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("forwarding") && !text.contains("permit-user-rc"), "{text}");
    }

    #[test]
    fn the_authority_stays_with_the_key_of_the_gateway() {
        assert_eq!(ca(7).public_line(), ca(7).public_line());
        assert_ne!(ca(7).public_line(), ca(8).public_line());
        let line = ca(7).public_line();
        assert!(line.starts_with("ssh-ed25519 AAAA") && line.ends_with(" fleetgate-rentals"), "{line}");
    }
}

//! Handles requests of the server: it checks the host key, and refuses everything else.

use std::sync::{Arc, OnceLock};

use fleetgate_engine::messages::{HostKey, KeyType, SshFailure, SshRun};
use russh::client::{ChannelOpenHandle, Handler, Msg, Session};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, Error};

/// The key that the server proved to own; empty until the key exchange is done.
pub(super) type SeenKey = Arc<OnceLock<HostKey>>;

/// Returns the signature algorithms requested for a key type. None hashes with SHA-1.
pub(super) fn algorithms(key_type: KeyType) -> &'static [Algorithm] {
    match key_type {
        KeyType::Ed25519 => &[Algorithm::Ed25519],
        KeyType::EcdsaP256 => &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }],
        KeyType::EcdsaP384 => &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 }],
        KeyType::EcdsaP521 => &[Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 }],
        KeyType::Rsa => {
            &[Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }]
        }
    }
}

/// Bytes of a key in OpenSSH's text. The largest RSA key that OpenSSH takes needs less than three quarters of it.
const MAX_LINE: usize = 4_096;

/// Returns a key as OpenSSH writes it, without a comment.
fn line(key: &PublicKey) -> Option<String> {
    let line = key.to_openssh().ok()?;
    Some(line.trim_end().to_owned()).filter(|line| line.len() <= MAX_LINE)
}

/// Checks whether a run accepts a host key.
///
/// # Errors
/// Returns the failure that ends the run.
pub(super) fn judge(run: &SshRun, seen: &HostKey) -> Result<(), SshFailure> {
    match &run.pin {
        Some(pinned) if pinned.is(seen) => Ok(()),
        Some(pinned) => Err(SshFailure::HostKeyChanged { pinned: pinned.clone(), seen: seen.clone() }),
        None if run.learn => Ok(()),
        None => Err(SshFailure::HostKeyUnknown { seen: seen.clone() }),
    }
}

pub(super) struct HostKeyCheck {
    pub(super) run: SshRun,
    pub(super) seen: SeenKey,
}

/// Refuses every kind of channel that a server may open: dropping the reply does that.
impl Handler for HostKeyCheck {
    type Error = Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Error> {
        let key = key.public_key();
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let key_type = KeyType::from_name(key.algorithm().as_str());
        let seen = HostKey { fingerprint, key_type, line: line(&key) };
        // A server that changes its key during a session is refused like one with a wrong pin.
        let first = self.seen.get_or_init(|| seen.clone());
        Ok(*first == seen && judge(&self.run, &seen).is_ok())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pin: Option<&str>, learn: bool) -> SshRun {
        SshRun { pin: pin.map(HostKey::from), learn, user: None, commands: Vec::new() }
    }

    #[test]
    fn a_pin_decides_alone_and_an_unknown_key_needs_leave_to_be_learnt() {
        assert_eq!(judge(&run(Some("SHA256:a"), false), &"SHA256:a".into()), Ok(()));
        assert!(matches!(
            judge(&run(Some("SHA256:a"), true), &"SHA256:b".into()),
            Err(SshFailure::HostKeyChanged { .. })
        ));
        assert_eq!(judge(&run(None, true), &"SHA256:b".into()), Ok(()));
        assert!(matches!(judge(&run(None, false), &"x".into()), Err(SshFailure::HostKeyUnknown { .. })));
    }
}

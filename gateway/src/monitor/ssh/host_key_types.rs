//! Decides which key types a server is asked for, and in which order. Pure.
//!
//! A server has one key for each of several types, and shows the first requested one that it has. The
//! type of a pinned key comes first: a server that gains another key still shows the pinned one.

use fleetgate_engine::messages::{HostKey, KeyType, SshRun};

pub(super) struct HostKeyTypes {
    key_types: Vec<KeyType>,
    /// The pin is a fingerprint without a type: the server may show another key than the pinned one.
    blind: bool,
}

impl HostKeyTypes {
    pub(super) fn of(run: &SshRun) -> Self {
        let pinned = run.pin.as_ref().and_then(|pin| pin.key_type);
        let others = KeyType::ALL.into_iter().filter(|t| Some(*t) != pinned);
        HostKeyTypes {
            key_types: pinned.into_iter().chain(others).collect(),
            blind: run.pin.is_some() && pinned.is_none(),
        }
    }

    pub(super) fn key_types(&self) -> &[KeyType] {
        &self.key_types
    }

    /// Removes the type of the key that was shown. Returns whether another one is left to ask for.
    pub(super) fn another_than(&mut self, shown: &HostKey) -> bool {
        let before = self.key_types.len();
        self.key_types.retain(|t| Some(*t) != shown.key_type);
        self.blind && self.key_types.len() < before && !self.key_types.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pin: Option<HostKey>) -> HostKeyTypes {
        HostKeyTypes::of(&SshRun { pin, learn: false, user: None, commands: Vec::new() })
    }

    fn shown(key_type: KeyType) -> HostKey {
        HostKey { key_type: Some(key_type), ..HostKey::from("SHA256:b") }
    }

    #[test]
    fn the_type_of_the_pinned_key_comes_first() {
        assert_eq!(wanted(None).key_types(), KeyType::ALL);
        assert_eq!(wanted(Some("SHA256:a".into())).key_types(), KeyType::ALL);
        let pin = HostKey { key_type: Some(KeyType::EcdsaP384), ..HostKey::from("SHA256:a") };
        let wanted = wanted(Some(pin));
        assert_eq!(wanted.key_types()[..2], [KeyType::EcdsaP384, KeyType::Ed25519]);
        assert_eq!(wanted.key_types().len(), KeyType::ALL.len());
    }

    #[test]
    fn a_bare_fingerprint_is_looked_for_among_all_types_once() {
        let mut wanted = wanted(Some("SHA256:a".into()));
        let looks: Vec<bool> = KeyType::ALL.into_iter().map(|t| wanted.another_than(&shown(t))).collect();
        assert_eq!(looks, [true, true, true, true, false]);
    }

    #[test]
    fn a_server_that_shows_the_same_type_again_is_left_alone() {
        let mut wanted = wanted(Some("SHA256:a".into()));
        assert!(wanted.another_than(&shown(KeyType::Rsa)));
        assert!(!wanted.another_than(&shown(KeyType::Rsa)));
    }

    #[test]
    fn a_key_of_the_pinned_type_that_differs_has_changed() {
        let pin = HostKey { key_type: Some(KeyType::Rsa), ..HostKey::from("SHA256:a") };
        assert!(!wanted(Some(pin)).another_than(&shown(KeyType::Rsa)));
        assert!(!wanted(None).another_than(&shown(KeyType::Rsa)));
    }
}

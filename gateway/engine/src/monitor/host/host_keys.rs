//! The SSH host key of a host: the one that is required, and the one that was seen instead.

use crate::messages::HostKey;

#[derive(Debug, Default)]
pub struct HostKeys {
    /// A host key first seen through the tunnel, or the type and the line of the pinned one, until the
    /// spec has it.
    learnt: Option<HostKey>,
    /// The fingerprint of the key that was seen instead of the pinned one in the last session.
    strange: Option<String>,
}

impl HostKeys {
    pub fn restored(strange: Option<String>) -> HostKeys {
        HostKeys { learnt: None, strange }
    }

    /// Returns the key to require; `spec`: the one in the spec.
    pub fn pin(&self, spec: Option<&HostKey>) -> Option<HostKey> {
        self.learnt.as_ref().or(spec).cloned()
    }

    pub fn learn(&mut self, key: HostKey) {
        self.learnt = Some(key);
    }

    /// Forgets the learnt key: another machine may have come.
    pub fn forget(&mut self) {
        self.learnt = None;
    }

    /// Applies a new spec; the learnt key remains only if it is that of the spec.
    pub fn apply(&mut self, spec: Option<&HostKey>) {
        self.learnt = self.learnt.take().filter(|key| spec.is_none_or(|pin| pin.is(key)));
    }

    pub fn strange(&self) -> Option<&str> {
        self.strange.as_deref()
    }

    /// Records the key seen instead of the pinned one; returns whether that is a change.
    pub fn set_strange(&mut self, fingerprint: Option<&str>) -> bool {
        let news = self.strange.as_deref() != fingerprint;
        self.strange = fingerprint.map(str::to_owned);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_learnt_key_is_required_until_the_spec_has_another() {
        let (first, other) = (HostKey::from("SHA256:a"), HostKey::from("SHA256:b"));
        let mut keys = HostKeys::default();
        assert_eq!(keys.pin(Some(&other)), Some(other.clone()));
        keys.learn(first.clone());
        keys.apply(None);
        assert_eq!(keys.pin(None), Some(first.clone()));
        keys.apply(Some(&first));
        assert_eq!(keys.pin(Some(&first)), Some(first));
        keys.apply(Some(&other));
        assert_eq!(keys.pin(None), None);
    }

    #[test]
    fn the_same_strange_key_is_no_news() {
        let mut keys = HostKeys::default();
        let news = [None, Some("SHA256:b"), Some("SHA256:b"), None].map(|key| keys.set_strange(key));
        assert_eq!(news, [false, true, false, true]);
    }
}

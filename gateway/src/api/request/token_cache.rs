//! Cached API tokens, so that a program that calls often needs no database reads.
//!
//! A cached token is never older than a change whose response was sent. Every commit of the API
//! ([`ApiTx`](super::transaction::ApiTx)) clears the cache, and a token read before it is not cached. No
//! token is cached for longer than [`KEPT`], so that changes by hand in the file take effect soon.
//! This module decides nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::{Mono, Wall};
use fleetgate_keys::TokenHash;

use crate::store::tokens::ApiToken;

/// The gateway's own changes take effect at once. Only an operator in an emergency writes the file
/// by hand.
const KEPT: Duration = Duration::from_secs(10);
/// Tokens of programs that call often, some 300 bytes each.
const MOST: usize = 1_024;

/// A token and the hash of its secret.
pub type StoredToken = (ApiToken, TokenHash);

#[derive(Default)]
pub struct TokenCache {
    /// The number of commits so far.
    changes: AtomicU64,
    known: Mutex<HashMap<Id, CachedToken>>,
}

struct CachedToken {
    token: Arc<StoredToken>,
    /// The number of commits before the read.
    changes: u64,
    read_at: Mono,
}

/// A commit under way. On drop, it invalidates the cache, even if the commit failed.
pub struct Change<'a>(&'a TokenCache);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.changes.fetch_add(1, Ordering::SeqCst);
    }
}

impl TokenCache {
    /// Must be kept across a commit.
    pub fn change(&self) -> Change<'_> {
        Change(self)
    }

    /// Must be called before reading a token that is to be cached.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub fn find(&self, id: Id, now: Mono) -> Option<Arc<StoredToken>> {
        let known = self.lock();
        let found = known.get(&id)?;
        let counts = found.changes == self.changes() && now.since(found.read_at) < KEPT;
        counts.then(|| found.token.clone())
    }

    /// `changes`: the number before the read.
    pub fn keep(&self, token: Arc<StoredToken>, changes: u64, now: Mono) {
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&token.0.id) {
            known.clear();
        }
        known.insert(token.0.id, CachedToken { token, changes, read_at: now });
    }

    /// Records the last use of a token.
    pub fn touched(&self, id: Id, at: Wall) {
        if let Some(known) = self.lock().get_mut(&id) {
            Arc::make_mut(&mut known.token).0.last_used_at = Some(at);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, CachedToken>> {
        self.known.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_keys::{Token, TokenKind};

    use super::*;
    use crate::store::access::Role;

    fn at(secs: u64) -> Mono {
        Mono::from_secs(secs)
    }

    fn token(n: i64) -> Arc<StoredToken> {
        let id = Id::from_i64(n);
        let token = ApiToken {
            id,
            name: "ci".into(),
            role: Role::Operator,
            user: None,
            customer: None,
            scopes: Vec::new(),
            created_by: "user:jo".into(),
            created_at: Wall::from_millis(0),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        Arc::new((token, Token::generate(TokenKind::Api, id).hash()))
    }

    #[test]
    fn a_token_is_known_until_something_is_committed_or_it_is_old() {
        let tokens = TokenCache::default();
        let (id, keep) = (Id::from_i64(1), |changes| tokens.keep(token(1), changes, at(100)));
        keep(tokens.changes());
        assert!(tokens.find(id, at(109)).is_some());
        assert!(tokens.find(id, at(110)).is_none(), "too old");
        drop(tokens.change());
        assert!(tokens.find(id, at(100)).is_none());
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_known_after_it() {
        let tokens = TokenCache::default();
        let before = tokens.changes();
        drop(tokens.change());
        tokens.keep(token(1), before, at(100));
        assert!(tokens.find(Id::from_i64(1), at(100)).is_none());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let tokens = TokenCache::default();
        for n in 0..2 * MOST as i64 + 5 {
            tokens.keep(token(n), 0, at(100));
            assert!(tokens.lock().len() <= MOST && tokens.find(Id::from_i64(n), at(100)).is_some());
        }
    }
}

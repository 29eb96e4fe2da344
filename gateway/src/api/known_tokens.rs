//! API tokens as they were read last, so that a program that calls often costs no reading.
//!
//! Promises that none of them is older than a change that was answered: every commit of the API
//! ([`Write`](super::write::Write)) ends them all, and what was read before it is not kept. Beside that none is kept
//! for longer than [`KEPT`], so that what was changed in the file by hand counts soon. Decides nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::{Mono, Wall};
use fleetgate_keys::TokenHash;

use crate::store::tokens::ApiToken;

/// What only this program does is known at once; nobody else writes the file but a person in need.
const KEPT: Duration = Duration::from_secs(10);
/// Programs that call often, some 300 bytes each.
const MOST: usize = 1_024;

#[derive(Default)]
pub struct KnownTokens {
    /// Commits so far.
    changes: AtomicU64,
    known: Mutex<HashMap<Id, Known>>,
}

struct Known {
    token: ApiToken,
    hash: TokenHash,
    /// The commits before it was read.
    changes: u64,
    read_at: Mono,
}

/// Says at its end that something was committed, however that ended.
pub struct Change<'a>(&'a KnownTokens);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.changes.fetch_add(1, Ordering::SeqCst);
    }
}

impl KnownTokens {
    /// To be held over a commit.
    pub fn change(&self) -> Change<'_> {
        Change(self)
    }

    /// To be asked before a token is read that is to be kept.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub fn find(&self, id: Id, now: Mono) -> Option<(ApiToken, TokenHash)> {
        let known = self.lock();
        let found = known.get(&id)?;
        let counts = found.changes == self.changes() && now.since(found.read_at) < KEPT;
        counts.then(|| (found.token.clone(), found.hash))
    }

    /// `changes`: those before it was read.
    pub fn keep(&self, (token, hash): (ApiToken, TokenHash), changes: u64, now: Mono) {
        let mut known = self.lock();
        if known.len() >= MOST && !known.contains_key(&token.id) {
            known.clear();
        }
        known.insert(token.id, Known { token, hash, changes, read_at: now });
    }

    /// Its last use was noted.
    pub fn touched(&self, id: Id, at: Wall) {
        if let Some(known) = self.lock().get_mut(&id) {
            known.token.last_used_at = Some(at);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Known>> {
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

    fn token(n: i64) -> (ApiToken, TokenHash) {
        let id = Id::from_i64(n);
        let token = ApiToken {
            id,
            name: "ci".into(),
            role: Role::Operator,
            scopes: Vec::new(),
            created_by: "user:jo".into(),
            created_at: Wall::from_millis(0),
            expires_at: None,
            revoked_at: None,
            last_used_at: None,
        };
        (token, Token::generate(TokenKind::Api, id).hash())
    }

    #[test]
    fn a_token_is_known_until_something_is_committed_or_it_is_old() {
        let tokens = KnownTokens::default();
        let (id, keep) = (Id::from_i64(1), |changes| tokens.keep(token(1), changes, at(100)));
        keep(tokens.changes());
        assert!(tokens.find(id, at(109)).is_some());
        assert!(tokens.find(id, at(110)).is_none(), "too old");
        drop(tokens.change());
        assert!(tokens.find(id, at(100)).is_none());
    }

    #[test]
    fn what_was_read_before_a_commit_is_not_known_after_it() {
        let tokens = KnownTokens::default();
        let before = tokens.changes();
        drop(tokens.change());
        tokens.keep(token(1), before, at(100));
        assert!(tokens.find(Id::from_i64(1), at(100)).is_none());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let tokens = KnownTokens::default();
        for n in 0..2 * MOST as i64 + 5 {
            tokens.keep(token(n), 0, at(100));
            assert!(tokens.lock().len() <= MOST && tokens.find(Id::from_i64(n), at(100)).is_some());
        }
    }
}

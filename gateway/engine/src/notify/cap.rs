//! How many messages a contact gets: one at a time while there are few, and when there are too many,
//! what waits is folded into one message now and then. Nothing is lost by it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::time::Mono;

use super::ContactId;

const HOUR: Duration = Duration::from_secs(3_600);
/// Who gets one every two minutes for an hour reads none of them.
pub const MESSAGES_AN_HOUR: usize = 30;
/// Beyond that, what is new is told together so often: late enough to be few, soon enough that
/// nobody waits long for what matters.
const FOLD: Duration = Duration::from_secs(300);

/// What was posted within the last hour, of contacts that have a cap.
#[derive(Debug, Default)]
pub(super) struct Caps {
    posts: BTreeMap<ContactId, VecDeque<Mono>>,
    /// Something of theirs was kept back, and is folded when they are free.
    folding: BTreeSet<ContactId>,
}

impl Caps {
    pub fn posted(&mut self, contact: ContactId, now: Mono) {
        let posts = self.posts.entry(contact).or_default();
        posts.push_back(now);
        while posts.len() > MESSAGES_AN_HOUR {
            posts.pop_front();
        }
    }

    /// Forgets the posts of contacts that have no cap any more.
    pub fn lift(&mut self, lifted: impl Fn(ContactId) -> bool) {
        self.posts.retain(|contact, _| !lifted(*contact));
    }

    /// Until when a contact gets nothing; in the past: it is free.
    pub fn free_at(&self, contact: ContactId) -> Mono {
        let Some(posts) = self.posts.get(&contact).filter(|p| p.len() >= MESSAGES_AN_HOUR) else {
            return Mono::ZERO;
        };
        match (posts.front(), posts.back()) {
            (Some(first), Some(last)) => (*first + HOUR).min(*last + FOLD),
            _ => Mono::ZERO,
        }
    }

    /// Whether that is new.
    pub fn fold(&mut self, contact: ContactId) -> bool {
        self.folding.insert(contact)
    }

    /// Whether something was kept back that leaves now.
    pub fn unfold(&mut self, contact: ContactId) -> bool {
        self.folding.remove(&contact)
    }
}

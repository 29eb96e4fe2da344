//! The message limit of a contact. Messages leave one at a time while they are few. When there are
//! too many, the waiting ones are folded into one message now and then. No notification is lost.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::time::Mono;

use super::ContactId;

const HOUR: Duration = Duration::from_secs(3_600);
/// The limit: a person who gets a message every two minutes for an hour reads none of them.
pub const MESSAGES_AN_HOUR: usize = 30;
/// Above the limit, new notifications are folded at this interval: long enough to keep messages
/// few, short enough for important ones.
const FOLD: Duration = Duration::from_secs(300);

/// The messages of the last hour to contacts that have a limit.
#[derive(Debug, Default)]
pub(super) struct Caps {
    posts: BTreeMap<ContactId, VecDeque<Mono>>,
    /// Contacts with suppressed messages, which are folded when the limit allows.
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

    /// Forgets the messages of contacts that no longer have a limit.
    pub fn lift(&mut self, lifted: impl Fn(ContactId) -> bool) {
        self.posts.retain(|contact, _| !lifted(*contact));
    }

    /// Returns the time until which a contact gets no message; a time in the past means that it is
    /// free.
    pub fn free_at(&self, contact: ContactId) -> Mono {
        let Some(posts) = self.posts.get(&contact).filter(|p| p.len() >= MESSAGES_AN_HOUR) else {
            return Mono::ZERO;
        };
        match (posts.front(), posts.back()) {
            (Some(first), Some(last)) => (*first + HOUR).min(*last + FOLD),
            _ => Mono::ZERO,
        }
    }

    /// Marks a contact for folding; returns whether that is new.
    pub fn fold(&mut self, contact: ContactId) -> bool {
        self.folding.insert(contact)
    }

    /// Unmarks a contact; returns whether it was marked for folding.
    pub fn unfold(&mut self, contact: ContactId) -> bool {
        self.folding.remove(&contact)
    }
}

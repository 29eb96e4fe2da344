//! What stands against telling of something that waits, by the states as they are now.
//!
//! The monitor holds back what begins in a silence (a downtime, its host is down, ...); this holds back
//! what was on its way to a contact when the silence began. A silence ends without a word where
//! nothing else is to be said: what was kept is told then, if the problem is still there.

use std::collections::BTreeMap;

use crate::wire::{HeldReason, MessageKind};

use super::rule::Class;
use super::{Notice, NoticeId, Object};

/// How it stands with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is told of it now.
    Silent(HeldReason),
    /// It is well, and nothing is to be said of that.
    Well,
}

/// Of all that waits, what cannot simply be told.
#[derive(Debug, Default)]
pub(super) struct Standings(pub BTreeMap<Object, Standing>);

/// A group as it may leave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parted {
    pub leaves: Vec<Notice>,
    /// The newest of each object that is silent.
    pub stays: Vec<(Notice, HeldReason)>,
    /// What stood before that: the notice, and by which it is overtaken.
    pub overtaken: Vec<(NoticeId, NoticeId)>,
    /// Reminders of what is silent, or well.
    pub untimely: Vec<(NoticeId, Standing)>,
}

impl Standings {
    pub fn of(&self, notice: &Notice) -> Option<Standing> {
        let standing = *self.0.get(&notice.object)?;
        let concerns = match standing {
            Standing::Silent(HeldReason::Acknowledged) => notice.severity.is_some(),
            // Flapping may begin where the state is well, and end without a word.
            Standing::Well => notice.severity.is_some() || notice.kind == MessageKind::FlappingStart,
            // It is what is told instead.
            Standing::Silent(HeldReason::Flapping) => notice.kind != MessageKind::FlappingStart,
            Standing::Silent(_) => true,
        };
        concerns.then_some(standing)
    }

    /// Problems of what is silent stay, and nobody is reminded of them. What ends one leaves, and so does
    /// what people did; an acknowledgement is told together with what it is of.
    pub fn part(&self, notices: Vec<Notice>) -> Parted {
        let mut newest = BTreeMap::new();
        for notice in notices.iter().filter(|n| matches!(Class::of(n), Class::Problem | Class::Recovery)) {
            newest.insert(notice.object.clone(), notice.clone());
        }
        newest.retain(|_, notice| Class::of(notice) == Class::Problem && self.silence(notice).is_some());
        let mut parted = Parted::default();
        for notice in notices {
            match newest.get(&notice.object) {
                Some(last) if last.id == notice.id => {}
                Some(last) if matches!(Class::of(&notice), Class::Problem | Class::Recovery) => {
                    parted.overtaken.push((notice.id, last.id));
                }
                _ => match self.of(&notice).filter(|_| Class::of(&notice) == Class::Reminder) {
                    Some(standing) => parted.untimely.push((notice.id, standing)),
                    None => parted.leaves.push(notice),
                },
            }
        }
        let stays = newest.into_values().filter_map(|n| self.silence(&n).map(|why| (n, why)));
        parted.stays.extend(stays);
        parted
    }

    fn silence(&self, notice: &Notice) -> Option<HeldReason> {
        match self.of(notice)? {
            Standing::Silent(HeldReason::Acknowledged) | Standing::Well => None,
            Standing::Silent(why) => Some(why),
        }
    }
}

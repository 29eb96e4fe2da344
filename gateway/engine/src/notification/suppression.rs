//! Suppressions of waiting notices, by the current states.
//!
//! The monitor suppresses a notification that begins during a suppression (a downtime, the host is
//! down, ...). This module suppresses a notification that was on its way to a contact when the
//! suppression began. A suppression may end without any event; its notices are then sent if the
//! problem persists.

use std::collections::BTreeMap;

use crate::messages::{MessageKind, SuppressReason};

use super::{CheckableId, Notice, NoticeId};
use crate::notification::rule::Class;

/// The state of a checkable for notifications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suppression {
    /// Its notifications are suppressed.
    Silent(SuppressReason),
    /// It is ok, and no recovery will be notified.
    Well,
}

/// The waiting checkables whose notices cannot simply be sent.
#[derive(Debug, Default)]
pub(in crate::notification) struct Suppressions(pub BTreeMap<CheckableId, Suppression>);

/// A group, split for sending.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::notification) struct Parted {
    pub leaves: Vec<Notice>,
    /// The newest problem of each suppressed checkable.
    pub stays: Vec<(Notice, SuppressReason)>,
    /// Older notices of those, each with the notice that replaced it.
    pub overtaken: Vec<(NoticeId, NoticeId)>,
    /// Reminders of suppressed or recovered checkables.
    pub untimely: Vec<(NoticeId, Suppression)>,
}

impl Suppressions {
    pub fn of(&self, notice: &Notice) -> Option<Suppression> {
        let standing = *self.0.get(&notice.object)?;
        let concerns = match standing {
            Suppression::Silent(
                SuppressReason::Acknowledged | SuppressReason::State | SuppressReason::Kind,
            ) => notice.severity.is_some(),
            // Flapping may begin while the state is ok, and end without a notification.
            Suppression::Well => notice.severity.is_some() || notice.kind == MessageKind::FlappingStart,
            // It is the notification that replaces the others.
            Suppression::Silent(SuppressReason::Flapping) => notice.kind != MessageKind::FlappingStart,
            Suppression::Silent(_) => true,
        };
        concerns.then_some(standing)
    }

    /// Splits a group. Problems of a suppressed checkable stay, and their reminders are dropped.
    /// Recoveries and operators' actions leave. An acknowledgement is sent together with its
    /// problem.
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

    fn silence(&self, notice: &Notice) -> Option<SuppressReason> {
        match self.of(notice)? {
            Suppression::Silent(SuppressReason::Acknowledged) | Suppression::Well => None,
            Suppression::Silent(why) => Some(why),
        }
    }
}

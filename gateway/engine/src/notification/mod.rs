//! Notification routing: contacts, rules, delays, groups and digests.
//!
//! ```text
//! Notice (a notification of the monitor) ─▶ Router ─▶ Post (to one contact, many notices)
//!                                                  ─▶ Held (suppressed, with the reason)
//!                                                  ─▶ Waits, Notified (state for a restart)
//! ```
//!
//! [`Router`] guarantees for each contact that every notice ends as posted or as suppressed with a
//! reason. A contact gets the notices of one checkable in order. A recovery goes exactly to the
//! contacts that were notified of the problem. Waiting and notified states are output as they
//! change, so that the store can restore them after any end ([`Router::restore`]). This module
//! knows no addresses, channels or message texts.

mod deferred;
mod groups;
mod incident_roots;
mod notified;
mod period;
mod rate_limit;
mod router;
mod rule;
mod suppression;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;

use crate::id::Id;
pub use crate::messages::CheckableId;
use crate::messages::{IncidentId, MessageKind, SuppressReason};
use crate::time::{Mono, Wall};

pub use period::{BadPeriod, Period};
pub use rate_limit::MESSAGES_AN_HOUR;
pub use router::Router;
pub use rule::{Refusal, Rule, Selector, Severity};
pub use suppression::Suppression;

pub type ContactId = Id;
pub type RuleId = Id;

/// The store's number of a notice: a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId(pub i64);

/// A notification from the monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub id: NoticeId,
    pub at: Wall,
    pub object: CheckableId,
    /// The labels of the host at that time.
    pub labels: Arc<BTreeMap<String, String>>,
    pub kind: MessageKind,
    /// The severity of the state; `None`: the state is ok.
    pub severity: Option<Severity>,
    /// The incident at that time.
    pub incident: Option<IncidentId>,
}

/// A receiver, as the router knows it.
#[derive(Clone, Debug)]
pub struct Contact {
    pub id: ContactId,
    pub zone: TimeZone,
    /// A message waits until no notice was added for this time. Zero: each leaves at once, alone.
    pub group_wait: Duration,
    /// The time of the daily digest of open problems.
    pub digest: Option<civil::Time>,
    /// The time of the last digest, or of the contact's creation.
    pub digested: Wall,
    /// Whether a person reads it: more than [`MESSAGES_AN_HOUR`] messages are then folded.
    pub capped: bool,
}

/// Contacts and rules in force.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    pub contacts: Vec<Contact>,
    pub rules: Vec<Rule>,
}

/// The last notification of a problem that a contact got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notified {
    /// The notice that began the thread.
    pub root: NoticeId,
    pub last: NoticeId,
    pub at: Wall,
    pub severity: Option<Severity>,
    /// Whether it was notified as flapping, without a notified end.
    pub flapping: bool,
    /// The incident at that time.
    pub incident: Option<IncidentId>,
}

impl Notified {
    /// Whether the notice contains no news for a contact that got this.
    fn says_as_much_as(&self, notice: &Notice) -> bool {
        let flapping = notice.kind == MessageKind::FlappingStart;
        let is_end = rule::Class::of(notice) == rule::Class::Recovery;
        !is_end && self.severity == notice.severity && self.flapping == flapping
    }
}

/// Why a notice waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitFor {
    /// More notices of its group.
    Group,
    /// The rule's delay, in which the problem may be acknowledged or recover.
    Delay,
    /// The start of the rule's time period.
    Period,
    /// The contact's message limit.
    Cap,
    /// The end of a suppression that began while it waited.
    Silence(SuppressReason),
}

impl WaitFor {
    pub const BY_RULES: [WaitFor; 4] = [WaitFor::Group, WaitFor::Delay, WaitFor::Period, WaitFor::Cap];

    pub fn named(name: &str) -> Option<WaitFor> {
        let by_rules = Self::BY_RULES.into_iter().find(|why| why.name() == name);
        by_rules.or_else(|| SuppressReason::named(name).map(WaitFor::Silence))
    }

    /// The lower-case name used in the API and the store.
    pub const fn name(self) -> &'static str {
        match self {
            WaitFor::Group => "group",
            WaitFor::Delay => "delay",
            WaitFor::Period => "period",
            WaitFor::Cap => "cap",
            WaitFor::Silence(why) => why.name(),
        }
    }
}

/// A notice that waits, for one contact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub contact: ContactId,
    pub notice: Notice,
    pub why: WaitFor,
    /// The end of the wait by the current clocks; for a suppression, its start.
    pub until: Wall,
    /// The rule that then sends it; `None`: it follows from an earlier notification.
    pub rule: Option<RuleId>,
}

/// Why a notice was suppressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// There is no contact at all.
    NoContact,
    /// No rule's labels select this host.
    NoRule,
    /// Every rule that selects it requires a higher severity.
    BelowSeverity(Severity),
    /// The contact was never notified of the problem.
    NeverTold,
    /// The problem was over, by this notice, before the contact's notification was due.
    OverBefore(NoticeId),
    /// The problem was over before the contact's notification was due, and messages of that kind
    /// are not wanted.
    Over,
    /// The problem was acknowledged before the notification was due.
    Acknowledged,
    /// A newer notice of the same checkable replaced it.
    Superseded(NoticeId),
    /// The state changed and changed back while notifications were suppressed.
    AlreadyTold,
    /// It is only of temporary interest, and came outside of the rule's time period.
    OutsidePeriod,
    /// It repeated the current state, and a suppression began while it waited.
    Untimely(SuppressReason),
    /// The contact was removed while the notice waited.
    ContactRemoved,
    HostRemoved,
    ServiceRemoved,
}

impl NotSent {
    fn by(standing: Suppression) -> NotSent {
        match standing {
            Suppression::Silent(why) => NotSent::Untimely(why),
            Suppression::Well => NotSent::Over,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Input {
    Notice(Notice),
    /// Contacts or rules have changed.
    Configure(Routing),
    /// The problem is acknowledged, whether or not that is notified.
    Acknowledged(CheckableId),
    /// An acknowledgement that had stopped the delay of this notice has ended. The delay counts
    /// from that end.
    AcknowledgementEnded {
        contact: ContactId,
        notice: Notice,
    },
    /// All incidents that have several hosts or were merged into such a one, each with the incident
    /// under which it is notified.
    IncidentRoots(BTreeMap<IncidentId, IncidentId>),
    /// The state of all waiting checkables whose notifications are suppressed. It comes before the
    /// notices that were committed together with it.
    Stands(BTreeMap<CheckableId, Suppression>),
    /// This service, or this host with all its services, was removed.
    Forget(CheckableId),
    /// The problem is over, all its earlier notices were handed in, and its recovery was not.
    Over(CheckableId),
    /// All notices so far were handed in: due ones may be sent.
    Timeout,
}

/// One notice of a post, and the notice that began the thread of its checkable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    pub notice: NoticeId,
    pub root: NoticeId,
    /// The rule that sends it; `None`: it follows from an earlier notification.
    pub rule: Option<RuleId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be remembered until it is posted, suppressed, or waits for another reason.
    Waits(Waiting),
    /// Suppressed for this contact, or for all (`None`).
    Suppressed { contact: Option<ContactId>, notice: NoticeId, why: NotSent },
    /// A message to one contact, in order; its notices no longer wait. `site`: the label that they
    /// share. `folded`: the number of messages that the message limit folded into this one; 0: it
    /// left when it was due.
    Post { contact: ContactId, site: String, folded: usize, items: Vec<Item> },
    /// To be remembered until it changes; `None`: the thread has ended.
    Notified { contact: ContactId, object: CheckableId, told: Option<Notified> },
    /// The open problems that the contact was notified of, by the last notice of each; may be
    /// empty.
    Digest { contact: ContactId, items: Vec<NoticeId> },
    /// All outputs are drained. `None`: no action is planned.
    Wait(Option<Mono>),
}

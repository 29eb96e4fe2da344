//! Who is told of what, and when: contacts, rules, delays, groups, digests.
//!
//! ```text
//! Notice (what the monitor wants told) ─▶ Router ─▶ Post (to one contact, many notices)
//!                                                ─▶ Held (not told, with the reason)
//!                                                ─▶ Waits, Told (what a restart must know)
//! ```
//!
//! [`Router`] promises: for each contact every notice ends as posted or as held back with a reason;
//! of one object a contact hears in order; a recovery goes to whoever was told of the problem and
//! to nobody else. What waits and what was told is handed out as it changes, so that the store can
//! give it back after any end ([`Router::restore`]). Knows no address, no channel and no wording.

mod cap;
mod groups;
mod known;
mod later;
mod period;
mod router;
mod rule;
mod standing;
mod wide;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;

use crate::id::Id;
use crate::time::{Mono, Wall};
pub use crate::wire::Object;
use crate::wire::{HeldReason, IncidentId, MessageKind};

pub use cap::MESSAGES_AN_HOUR;
pub use period::{BadPeriod, Period};
pub use router::Router;
pub use rule::{Refusal, Rule, Selector, Severity};
pub use standing::Standing;

pub type ContactId = Id;
pub type RuleId = Id;

/// The store's number of a notice: a later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NoticeId(pub i64);

/// Something that the monitor wants told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub id: NoticeId,
    pub at: Wall,
    pub object: Object,
    /// The host's, at the time.
    pub labels: Arc<BTreeMap<String, String>>,
    pub kind: MessageKind,
    /// Of the state that it tells; `None`: the object is well.
    pub severity: Option<Severity>,
    /// What it belonged to then.
    pub incident: Option<IncidentId>,
}

/// A receiver as the router sees it.
#[derive(Clone, Debug)]
pub struct Contact {
    pub id: ContactId,
    pub zone: TimeZone,
    /// A message waits until so long nothing was added to it. Zero: it leaves at once, alone.
    pub group_wait: Duration,
    /// When, each day, to be reminded of what is still wrong.
    pub digest: Option<civil::Time>,
    /// The last digest, or when the contact was made.
    pub digested: Wall,
    /// A person reads it: at most [`MESSAGES_AN_HOUR`], then what is new is folded.
    pub capped: bool,
}

/// Contacts and rules in force.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    pub contacts: Vec<Contact>,
    pub rules: Vec<Rule>,
}

/// What a contact was last told of an object that is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The notice that began the conversation.
    pub root: NoticeId,
    pub last: NoticeId,
    pub at: Wall,
    pub severity: Option<Severity>,
    /// That it changes too often was told, and not yet that it does no more.
    pub flapping: bool,
    /// What it belonged to then.
    pub incident: Option<IncidentId>,
}

impl Told {
    /// Whether who knows this learns nothing from the notice.
    fn says_as_much_as(&self, notice: &Notice) -> bool {
        let flapping = notice.kind == MessageKind::FlappingStart;
        let is_end = rule::Class::of(notice) == rule::Class::Recovery;
        !is_end && self.severity == notice.severity && self.flapping == flapping
    }
}

/// Why a notice waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitFor {
    /// Others that belong to it.
    Group,
    /// The rule's delay: somebody may acknowledge, or it may be over by then.
    Delay,
    /// The begin of the rule's time period.
    Period,
    /// The contact had too many messages already.
    Cap,
    /// The end of what began while it waited: nothing is told of the object now.
    Silence(HeldReason),
}

impl WaitFor {
    pub const BY_RULES: [WaitFor; 4] = [WaitFor::Group, WaitFor::Delay, WaitFor::Period, WaitFor::Cap];

    pub fn named(name: &str) -> Option<WaitFor> {
        let by_rules = Self::BY_RULES.into_iter().find(|why| why.name() == name);
        by_rules.or_else(|| HeldReason::named(name).map(WaitFor::Silence))
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
    /// By today's reading of the clocks; of a silence: since when.
    pub until: Wall,
    /// That tells of it then; `None`: it follows from what was told before.
    pub rule: Option<RuleId>,
}

/// Why a notice was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// There is no contact at all.
    NoContact,
    /// No rule's labels select this host.
    NoRule,
    /// Every rule that selects it wants worse states.
    BelowSeverity(Severity),
    /// The contact was never told that it was ill.
    NeverTold,
    /// It was over before the contact was due to hear of it, by this notice.
    OverBefore(NoticeId),
    /// It was over before the contact was due to hear of it, and messages of that kind are not wanted.
    Over,
    /// Somebody took care before it was due.
    Acknowledged,
    /// A newer notice of the same object took its place.
    Superseded(NoticeId),
    /// It changed and changed back while nothing could be told.
    AlreadyTold,
    /// Only of passing interest, and outside of the rule's time period.
    OutsidePeriod,
    /// It told again what is so, and fell silent while it waited.
    Untimely(HeldReason),
    /// The contact was taken away while the notice waited.
    ContactRemoved,
    HostRemoved,
    ServiceRemoved,
}

impl Hold {
    fn by(standing: Standing) -> Hold {
        match standing {
            Standing::Silent(why) => Hold::Untimely(why),
            Standing::Well => Hold::Over,
        }
    }
}

#[derive(Clone, Debug)]
pub enum Input {
    Notice(Notice),
    /// Contacts or rules have changed.
    Configure(Routing),
    /// Somebody takes care of this, whether or not anybody is told of that.
    Acknowledged(Object),
    /// An acknowledgement has stopped the delay of this notice, and has ended; the notice is as old as
    /// that.
    CareEnded {
        contact: ContactId,
        notice: Notice,
    },
    /// All incidents that are of several hosts, or were merged into one that is; by which they are
    /// told.
    Wide(BTreeMap<IncidentId, IncidentId>),
    /// How it stands with all that waits, as far as something stands against telling it; said before the
    /// notices that were committed together with that.
    Stands(BTreeMap<Object, Standing>),
    /// Nothing more is told of this service, or of this host and all its services.
    Forget(Object),
    /// It is well, all that was to be said of it was handed in, and that it is well was not.
    Over(Object),
    /// All that is known now was said: what is due may be told.
    Timeout,
}

/// One notice of a post, and the one that began the conversation about its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    pub notice: NoticeId,
    pub root: NoticeId,
    /// That tells of it; `None`: it follows from what was told before.
    pub rule: Option<RuleId>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be remembered until it is posted, held, or waits for something else.
    Waits(Waiting),
    /// Told to nobody (`None`), or not to this contact.
    Held { contact: Option<ContactId>, notice: NoticeId, why: Hold },
    /// To one contact, in order; they wait no more. `site`: the label that they share. `folded`: so
    /// many messages were kept back because there were too many, and made one; 0: it left when it was due.
    Post { contact: ContactId, site: String, folded: usize, items: Vec<Item> },
    /// To be remembered until it changes; `None`: the conversation is over.
    Told { contact: ContactId, object: Object, told: Option<Told> },
    /// What the contact was told and is still so, by the last notice of each; perhaps nothing.
    Digest { contact: ContactId, items: Vec<NoticeId> },
    /// Drained. `None`: nothing is planned.
    Wait(Option<Mono>),
}

//! The values of notifications: their settings, their stored state, and the operators' actions on
//! them.
//!
//! Values only. This module knows no receivers and channels.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;

use crate::calendar::recurrence::Recurrence;
use crate::id::{HostId, Id};
use crate::messages::flapping::Ring;
use crate::messages::incident::IncidentId;
use crate::time::Wall;

/// The notification settings of a host or service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Alerting {
    /// Notifies every hard failure again.
    pub volatile: bool,
    pub flapping: Flapping,
    pub notify: Notify,
}

/// Flap detection, by the percentage of weighted changes among the last results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flapping {
    pub enabled: bool,
    /// At or below it, flapping ends.
    pub low: f64,
    /// Above it, flapping begins.
    pub high: f64,
    /// Results in these states do not count as changes.
    pub ignore: States,
}

impl Default for Flapping {
    /// SEMANTICS 7.
    fn default() -> Self {
        Flapping { enabled: true, low: 20.0, high: 30.0, ignore: States::NONE }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify {
    /// The interval between reminders; `None`: a problem is notified once.
    pub interval: Option<Duration>,
    /// A problem that recovers within this time is not notified.
    pub delay: Duration,
    pub states: States,
    pub kinds: Kinds,
}

impl Default for Notify {
    fn default() -> Self {
        Notify { interval: None, delay: Duration::ZERO, states: States::ALL, kinds: Kinds::USUAL }
    }
}

/// A set of states, by their plugin codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u8);

impl States {
    /// Every problem state.
    pub const ALL: States = States(0b1110);
    pub const NONE: States = States(0);

    pub fn of(codes: impl IntoIterator<Item = u8>) -> Self {
        States(codes.into_iter().filter(|c| *c < 4).fold(0, |set, code| set | 1 << code))
    }

    pub const fn has(self, code: u8) -> bool {
        self.0 & (1 << code) != 0
    }
}

/// A set of message kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// All but those about operators' actions.
    pub const USUAL: Kinds = Kinds(0b1_1111);

    pub fn of(kinds: impl IntoIterator<Item = MessageKind>) -> Self {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u16))
    }

    pub const fn has(self, kind: MessageKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }
}

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// A hard problem, or one that differs from the last notified.
    Problem,
    /// The notified problem is over.
    Recovery,
    /// The notified problem persists.
    Reminder,
    /// The state changes too often to notify each change.
    FlappingStart,
    /// Flapping has ended; if the state is ok, this is also the recovery.
    FlappingEnd,
    Acknowledged,
    DowntimeStart,
    DowntimeEnd,
    DowntimeCancelled,
}

impl MessageKind {
    pub const ALL: [MessageKind; 9] = [
        MessageKind::Problem,
        MessageKind::Recovery,
        MessageKind::Reminder,
        MessageKind::FlappingStart,
        MessageKind::FlappingEnd,
        MessageKind::Acknowledged,
        MessageKind::DowntimeStart,
        MessageKind::DowntimeEnd,
        MessageKind::DowntimeCancelled,
    ];

    /// The lower-case name used in the API, the store and the log.
    pub const fn name(self) -> &'static str {
        match self {
            MessageKind::Problem => "problem",
            MessageKind::Recovery => "recovery",
            MessageKind::Reminder => "reminder",
            MessageKind::FlappingStart => "flapping_start",
            MessageKind::FlappingEnd => "flapping_end",
            MessageKind::Acknowledged => "acknowledged",
            MessageKind::DowntimeStart => "downtime_start",
            MessageKind::DowntimeEnd => "downtime_end",
            MessageKind::DowntimeCancelled => "downtime_cancelled",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Why a notification was suppressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SuppressReason {
    /// The host's notification covers its services.
    HostDown,
    Unreachable,
    /// No result is newer than the time without notifications.
    NotCurrent,
    /// A parent, the gateway's own uplink or a common failure may be the cause; this is being
    /// checked.
    ParentInDoubt,
    /// Its device is prepared for a rental, on its way to or from a customer, or in the maintenance of its rental.
    Rental,
    Downtime,
    Acknowledged,
    Flapping,
    /// Notifications of this state are not wanted.
    State,
    /// Messages of this kind are not wanted.
    Kind,
    /// The problem has not lasted long enough.
    Delay,
}

impl SuppressReason {
    pub const ALL: [SuppressReason; 11] = [
        SuppressReason::HostDown,
        SuppressReason::Unreachable,
        SuppressReason::NotCurrent,
        SuppressReason::ParentInDoubt,
        SuppressReason::Rental,
        SuppressReason::Downtime,
        SuppressReason::Acknowledged,
        SuppressReason::Flapping,
        SuppressReason::State,
        SuppressReason::Kind,
        SuppressReason::Delay,
    ];

    /// The lower-case name used in the API, the store and the log.
    pub const fn name(self) -> &'static str {
        match self {
            SuppressReason::HostDown => "host_down",
            SuppressReason::Unreachable => "unreachable",
            SuppressReason::NotCurrent => "not_current",
            SuppressReason::ParentInDoubt => "parent_in_doubt",
            SuppressReason::Rental => "rental",
            SuppressReason::Downtime => "downtime",
            SuppressReason::Acknowledged => "acknowledged",
            SuppressReason::Flapping => "flapping",
            SuppressReason::State => "state_filter",
            SuppressReason::Kind => "kind_filter",
            SuppressReason::Delay => "delay",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The text for people.
    pub const fn words(self) -> &'static str {
        match self {
            SuppressReason::HostDown => "its host is down",
            SuppressReason::Unreachable => "it is unreachable: all its parents are down",
            SuppressReason::NotCurrent => "its state is stale: the next result decides",
            SuppressReason::ParentInDoubt => {
                "its parents, its neighbours and the gateway's own uplink are being checked first"
            }
            SuppressReason::Rental => {
                "its device is in preparation for a rental, on its way, or in the maintenance of its rental"
            }
            SuppressReason::Downtime => "it is in a downtime",
            SuppressReason::Acknowledged => "the problem is acknowledged",
            SuppressReason::Flapping => "it is flapping",
            SuppressReason::State => "notify.states excludes this state",
            SuppressReason::Kind => "notify.types excludes this type",
            SuppressReason::Delay => "notify.delay_s has not passed yet",
        }
    }
}

/// The last suppressed notification, so that it is recorded only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Suppressed {
    pub kind: MessageKind,
    /// The plugin code of the state that it would have notified.
    pub to: u8,
    pub reason: SuppressReason,
}

/// The stored notification state of a checkable.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
pub struct NotificationState {
    pub recent: Ring,
    pub flapping: bool,
    /// Whether the last notification was that it flaps.
    pub told_flapping: bool,
    /// Whether a downtime of its own or of its host is in effect, or its device is quiet for a rental.
    pub in_downtime: bool,
    /// Whether its device is prepared for a rental, on its way, or in the maintenance of its rental.
    pub is_quiet: bool,
    /// The downtime in effect that names the checkable itself.
    pub own_downtime: Option<DowntimeOccurrence>,
    /// Flexible downtimes that have begun.
    pub begun: Vec<BegunDowntime>,
    pub remind_from: Option<Wall>,
    /// Since when the hard state is a problem.
    pub problem_since: Option<Wall>,
    /// Whether the state dates from a time without notifications, so that they wait for a newer
    /// result.
    pub awaits_result: bool,
    pub held: Option<Suppressed>,
    /// The reason that suppresses its problem and that no other field of the stored state shows:
    /// its parents are in doubt, or its settings exclude the problem.
    pub suppressed_by: Option<SuppressReason>,
}

/// The acknowledgement of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub id: Id,
    /// Whether it lasts until the recovery; if not, it ends with the next change of state.
    pub sticky: bool,
    pub expires: Option<Wall>,
    /// The author and the comment, as text.
    pub words: String,
    /// The acknowledged incident; `None` if the checkable itself was acknowledged.
    pub incident: Option<IncidentId>,
}

/// How an acknowledgement ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckEnd {
    Well,
    StateChanged,
    Expired,
    /// The checkable left the acknowledged incident.
    LeftIncident,
    /// When it came, there was no problem to acknowledge.
    Late,
}

impl AckEnd {
    pub const ALL: [AckEnd; 5] =
        [AckEnd::Well, AckEnd::StateChanged, AckEnd::Expired, AckEnd::LeftIncident, AckEnd::Late];

    /// The lower-case name used in the API, the store and the log.
    pub const fn name(self) -> &'static str {
        match self {
            AckEnd::Well => "recovered",
            AckEnd::StateChanged => "state_changed",
            AckEnd::Expired => "expired",
            AckEnd::LeftIncident => "left_incident",
            AckEnd::Late => "late",
        }
    }

    /// The text for people.
    pub const fn words(self) -> &'static str {
        match self {
            AckEnd::Well => "it recovered",
            AckEnd::StateChanged => "the state changed, and it was not sticky",
            AckEnd::Expired => "its time is over",
            AckEnd::LeftIncident => "it left the acknowledged incident",
            AckEnd::Late => "the problem was over, or belonged to another incident",
        }
    }
}

/// The scope of a downtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub hosts: HostScope,
    /// `None`: the host and, with it, all its services.
    pub service: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostScope {
    One(HostId),
    /// Hosts that have all of these labels, including hosts added later.
    Labels(BTreeMap<String, String>),
}

/// A downtime: checks continue, and notifications are suppressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downtime {
    pub id: Id,
    pub scope: Scope,
    pub when: When,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    Once {
        /// The start, by the calendar.
        start: Wall,
        /// The end, exclusive.
        end: Wall,
        /// Flexible: the first failure between start and end begins an effect of this length.
        duration: Option<Duration>,
    },
    Repeated(Recurrence),
}

/// One effect of a downtime: a repeated one has many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DowntimeOccurrence {
    pub downtime: Id,
    pub from: Wall,
}

/// A flexible downtime that has begun. Begin and end stay, whatever is planned afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BegunDowntime {
    pub of: DowntimeOccurrence,
    pub until: Wall,
}

/// A request whose commit to disk the shell awaits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A passive result.
#[derive(Clone, Debug, PartialEq)]
pub struct PassiveResult {
    pub host: HostId,
    /// `None`: for the host itself.
    pub service: Option<String>,
    pub result: PluginResult,
    /// The time of the result, as the submitter gave it.
    pub at: Wall,
    /// The principal that sent it.
    pub by: String,
    /// The identity by which a repeated submission is recognized.
    pub identity: Identity,
    pub ticket: Ticket,
}

/// The shell's digest of a value; accidental collisions are out of the question.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 12]);

/// The identity of a result of one service (or host). Empty: a repeated submission is not
/// recognized.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct Identity {
    /// The digest of principal, timestamp and content, if the submitter gave the timestamp.
    pub dated: Option<Digest>,
    /// The digests of principal and `Idempotency-Key`, and of the content sent with it.
    pub keyed: Option<(Digest, Digest)>,
}

/// The number of remembered results of one service (or host). A submitter repeats its last few;
/// results older than the newest are ignored in any case.
pub const MAX_TAKEN: usize = 64;
/// The limit of results of one service with the same time in one call. As many more may come in
/// between before a repetition of the call would count again.
pub const MAX_AT_ONCE: usize = MAX_TAKEN / 2;

/// The newest accepted results, the newest last; at most [`MAX_TAKEN`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Taken(Vec<Identity>);

/// How a result compares with those accepted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It differs from all of them.
    New,
    Same,
    /// Its key was sent with another content.
    KeyReused,
}

impl Taken {
    pub fn of(&self, sent: &Identity) -> Repetition {
        let keyed = sent.keyed.and_then(|(key, content)| Some((self.content_of(key)?, content)));
        match keyed {
            Some((before, content)) if before != content => return Repetition::KeyReused,
            Some(_) => return Repetition::Same,
            None => {}
        }
        let dated = sent.dated.is_some() && self.0.iter().any(|before| before.dated == sent.dated);
        if dated { Repetition::Same } else { Repetition::New }
    }

    fn content_of(&self, key: Digest) -> Option<Digest> {
        let keys = self.0.iter().rev().filter_map(|before| before.keyed);
        keys.filter(|(known, _)| *known == key).map(|(_, content)| content).next()
    }

    pub fn note(&mut self, sent: Identity) {
        if sent == Identity::default() {
            return;
        }
        if self.0.len() >= MAX_TAKEN {
            self.0.remove(0);
        }
        self.0.push(sent);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        self.0.iter()
    }
}

/// Keeps the last [`MAX_TAKEN`] of them.
impl FromIterator<Identity> for Taken {
    fn from_iter<I: IntoIterator<Item = Identity>>(identities: I) -> Self {
        let mut taken = Taken::default();
        identities.into_iter().for_each(|identity| taken.note(identity));
        taken
    }
}

/// The outcome of a request with a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was accepted before; no state changed.
    Repeated,
    /// Its key was sent with another content; no state changed.
    KeyReused,
    /// A newer result exists; no state changed, and its metrics are recorded.
    Older,
    /// There is no such host or service (any more).
    Unknown,
}

//! What is to be said of an object and when: the rules, what is remembered of what was said, and
//! what people do about it.
//!
//! Values only. It knows nothing of receivers and channels.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;

use super::incident::IncidentId;
use crate::id::{HostId, Id};
use crate::monitor::flapping::Ring;
use crate::monitor::recurrence::Recurrence;
use crate::time::Wall;

/// When an object speaks. Each host and each service has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Alerting {
    /// Tells every hard failure anew.
    pub volatile: bool,
    pub flapping: Flapping,
    pub notify: Notify,
}

/// Percent of weighted changes among the last results.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flapping {
    pub enabled: bool,
    /// At or below it, it has calmed down.
    pub low: f64,
    /// Above it, it flaps.
    pub high: f64,
    /// Results in these states count as if nothing had changed.
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
    /// Between reminders; `None`: a problem is told once.
    pub interval: Option<Duration>,
    /// A problem that is over sooner is told to nobody.
    pub delay: Duration,
    pub states: States,
    pub kinds: Kinds,
}

impl Default for Notify {
    fn default() -> Self {
        Notify { interval: None, delay: Duration::ZERO, states: States::ALL, kinds: Kinds::USUAL }
    }
}

/// States, by their plugin codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u8);

impl States {
    /// Of problems.
    pub const ALL: States = States(0b1110);
    pub const NONE: States = States(0);

    pub fn of(codes: impl IntoIterator<Item = u8>) -> Self {
        States(codes.into_iter().filter(|c| *c < 4).fold(0, |set, code| set | 1 << code))
    }

    pub const fn has(self, code: u8) -> bool {
        self.0 & (1 << code) != 0
    }
}

/// Kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// All but those about what people did themselves.
    pub const USUAL: Kinds = Kinds(0b1_1111);

    pub fn of(kinds: impl IntoIterator<Item = MessageKind>) -> Self {
        Kinds(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u16))
    }

    pub const fn has(self, kind: MessageKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }
}

/// What a message tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MessageKind {
    /// A hard problem, or another one than was told.
    Problem,
    /// What was told is over.
    Recovery,
    /// What was told still holds.
    Reminder,
    /// The state changes too often to be told each time.
    FlappingStart,
    /// It has calmed down; where it is well now, this also ends what was told.
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

/// Why something was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HeldReason {
    /// The host speaks for its services.
    HostDown,
    Unreachable,
    /// Nothing newer is known than what was before a silence.
    NotCurrent,
    /// It may be the parent, our own way out, or a crowd; that is being asked.
    ParentInDoubt,
    Downtime,
    Acknowledged,
    Flapping,
    /// This state is not to be told.
    State,
    /// Messages of this kind are not wanted.
    Kind,
    /// It has not lasted long enough.
    Delay,
}

impl HeldReason {
    pub const ALL: [HeldReason; 10] = [
        HeldReason::HostDown,
        HeldReason::Unreachable,
        HeldReason::NotCurrent,
        HeldReason::ParentInDoubt,
        HeldReason::Downtime,
        HeldReason::Acknowledged,
        HeldReason::Flapping,
        HeldReason::State,
        HeldReason::Kind,
        HeldReason::Delay,
    ];

    /// The lower-case name used in the API, the store and the log.
    pub const fn name(self) -> &'static str {
        match self {
            HeldReason::HostDown => "host_down",
            HeldReason::Unreachable => "unreachable",
            HeldReason::NotCurrent => "not_current",
            HeldReason::ParentInDoubt => "parent_in_doubt",
            HeldReason::Downtime => "downtime",
            HeldReason::Acknowledged => "acknowledged",
            HeldReason::Flapping => "flapping",
            HeldReason::State => "state_filter",
            HeldReason::Kind => "kind_filter",
            HeldReason::Delay => "delay",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            HeldReason::HostDown => "its host is down",
            HeldReason::Unreachable => "it is unreachable: all its parents are down",
            HeldReason::NotCurrent => "its state is stale: the next result decides",
            HeldReason::ParentInDoubt => {
                "its parents, its neighbours and the gateway's own uplink are being checked first"
            }
            HeldReason::Downtime => "it is in a downtime",
            HeldReason::Acknowledged => "the problem is acknowledged",
            HeldReason::Flapping => "it is flapping",
            HeldReason::State => "notify.states excludes this state",
            HeldReason::Kind => "notify.types excludes this type",
            HeldReason::Delay => "notify.delay_s has not passed yet",
        }
    }
}

/// The last notice that was held back: it is written down once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub kind: MessageKind,
    /// The plugin code of the state that it would have told.
    pub to: u8,
    pub reason: HeldReason,
}

/// What is remembered of an object beside its state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VoiceState {
    pub recent: Ring,
    pub flapping: bool,
    /// What was told last is that it flaps.
    pub told_flapping: bool,
    /// In effect now, of its own or of its host.
    pub in_downtime: bool,
    /// One that names the object itself is in effect: this.
    pub own_downtime: Option<Occasion>,
    /// Flexible downtimes that have begun, and until when each has its effect.
    pub begun: Vec<(Id, Wall)>,
    pub remind_from: Option<Wall>,
    /// Since when the hard state is a problem.
    pub problem_since: Option<Wall>,
    /// What is known came while nothing could be told: a newer result is waited for.
    pub awaits_result: bool,
    pub held: Option<Held>,
}

/// Somebody knows of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub id: Id,
    /// Until it is well; else until the state changes.
    pub sticky: bool,
    pub expires: Option<Wall>,
    /// Who and why, in words.
    pub words: String,
    /// It was given to this incident, not to the object itself.
    pub incident: Option<IncidentId>,
}

/// How an acknowledgement ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckEnd {
    Well,
    StateChanged,
    Expired,
    /// It was of an incident that this does not belong to any more.
    LeftIncident,
    /// When it came, nothing was there to be acknowledged.
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

    /// For people.
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

/// What a downtime is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub hosts: HostScope,
    /// `None`: the host and, with it, all its services.
    pub service: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostScope {
    One(HostId),
    /// Hosts that have all of these, also those that come later.
    Labels(BTreeMap<String, String>),
}

/// Work is done on something: it is watched, and nobody is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downtime {
    pub id: Id,
    pub scope: Scope,
    pub when: When,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    Once {
        /// From here on, by the calendar.
        start: Wall,
        /// Up to here, this moment not included.
        end: Wall,
        /// Flexible: the first failure between start and end begins an effect of this length.
        duration: Option<Duration>,
    },
    Repeated(Recurrence),
}

/// One effect of a downtime: a repeated one has many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasion {
    pub downtime: Id,
    pub from: Wall,
}

/// A question that the shell waits to see answered on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A result from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Submission {
    pub host: HostId,
    /// `None`: of the host itself.
    pub service: Option<String>,
    pub result: PluginResult,
    /// When it was so, by whoever sent it.
    pub at: Wall,
    /// The principal that sent it.
    pub by: String,
    /// By what a repetition of it is known.
    pub identity: Identity,
    pub ticket: Ticket,
}

/// The shell's digest of something, beyond any accident.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 12]);

/// What tells a result of one service (or host) from its repetition. Empty: nothing does.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct Identity {
    /// Of principal, timestamp and content, where the sender said the timestamp.
    pub dated: Option<Digest>,
    /// Of principal and `Idempotency-Key`, and of what was sent with it.
    pub keyed: Option<(Digest, Digest)>,
}

/// Results of one service (or host) that are remembered. A sender repeats its last few; of those that are
/// older than the newest result nothing counts anyway.
pub const MAX_TAKEN: usize = 64;
/// Results of one service and one moment in one call. As many more may come between before a repetition of the
/// call would count again.
pub const MAX_AT_ONCE: usize = MAX_TAKEN / 2;

/// The newest results that were taken, the newest last; at most [`MAX_TAKEN`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken(Vec<Identity>);

/// What a result is to those that were taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// Of none of them.
    New,
    Same,
    /// Its key was sent with something else.
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

/// The last [`MAX_TAKEN`] of them.
impl FromIterator<Identity> for Taken {
    fn from_iter<I: IntoIterator<Item = Identity>>(identities: I) -> Self {
        let mut taken = Taken::default();
        identities.into_iter().for_each(|identity| taken.note(identity));
        taken
    }
}

/// What became of what a ticket stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was taken before: nothing changed.
    Repeated,
    /// Its key was sent with something else: nothing changed.
    KeyReused,
    /// A newer result is known.
    Older,
    /// There is no such host or service (any more).
    Unknown,
}

//! What the shell and the monitor say to each other: hosts as the store has them in, what is to be
//! committed out.
//!
//! Values only. It knows nothing of sessions and packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use fleetgate_probes::job::Job;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;

use super::Why;
use super::ask::{Answer, Ask, AskId, HostKey, PathCheck};
use super::excerpt::Excerpt;
use super::incident::{IncidentAck, IncidentId, IncidentRecord};
use super::tunnel::News;
use super::voice::{
    AckEnd, Acknowledgement, Alerting, Downtime, HeldReason, MessageKind, Occasion, Outcome, Submission,
    Taken, Ticket, VoiceState,
};
use crate::id::{HostId, Id, PeerId};
use crate::time::{Mono, Wall};

/// A host as the store has it: profile and overrides already folded into `services`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    pub id: HostId,
    pub name: String,
    /// What downtimes select it by.
    pub labels: BTreeMap<String, String>,
    /// Any of these that is there makes it reachable; with the device it stands behind.
    pub parents: Vec<HostId>,
    /// The peer it is reached through: its own, or the device it stands behind.
    pub peer: Option<PeerId>,
    /// Its own peer (`peer == Some(id)`) can prove it alive; a host behind a device cannot be
    /// proved alive by that device's packets.
    pub own_tunnel: bool,
    /// Inside the tunnel.
    pub address: Option<IpAddr>,
    /// Inside the tunnel too, of the other address family: a device may use but one of the two.
    pub other_address: Option<IpAddr>,
    /// On the Internet, for direct checks and the fallback.
    pub direct: Option<String>,
    pub ssh: SshSpec,
    pub route: RoutePolicy,
    /// Expected to be silent for this long at a time (`asleep` within it).
    pub max_silence: Option<Duration>,
    /// Silence of this length is a finding, where nobody can ask and somebody sends its results.
    pub freshness: Option<Duration>,
    pub timing: Timing,
    /// Of what its own check measures.
    pub thresholds: Vec<Threshold>,
    /// Bytes on the wire per day of UTC that its checks keep to: of the device that they go through, with
    /// those of all hosts behind it.
    pub budget: Option<u64>,
    pub alerting: Alerting,
    pub services: Vec<ServiceSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutePolicy {
    Tunnel,
    Direct,
    /// Through the tunnel, and if it is down by the public address.
    Auto,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSpec {
    pub port: u16,
    /// Without a user there is no login, and what needs one is not run.
    pub user: Option<String>,
    pub pin: Option<HostKey>,
}

/// Of an interval, where the timeout follows from it: the rest is for the check's other questions.
pub const TIMEOUT_SHARE: f64 = 0.8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub interval: Duration,
    /// Between the failures of a soft state.
    pub retry: Duration,
    /// Failures in a row that make a state hard; at least 1.
    pub attempts: u32,
    /// Of each question, and of each command in an SSH session.
    pub timeout: Duration,
}

impl Timing {
    /// SEMANTICS 9; the timeout leaves a check of several questions room in its interval.
    pub const DEFAULT: Timing = Timing {
        interval: Duration::from_secs(60),
        retry: Duration::from_secs(10),
        attempts: 3,
        timeout: Duration::from_secs(10),
    };

    /// A check has ended before the next one begins: a timeout that reaches the interval is cut.
    #[must_use]
    pub fn ending_in_time(self) -> Timing {
        if self.timeout < self.interval {
            return self;
        }
        Timing { timeout: self.interval.mul_f64(TIMEOUT_SHARE), ..self }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// Unique within the host.
    pub name: String,
    pub check: Check,
    pub timing: Timing,
    pub thresholds: Vec<Threshold>,
    /// Silence of this length is a finding.
    pub freshness: Option<Duration>,
    pub alerting: Alerting,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    pub metric: String,
    pub limits: Thresholds,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Whether the tunnel carries authenticated packets.
    Tunnel,
    Ping {
        count: u8,
    },
    Tcp {
        port: u16,
    },
    /// Identification, host key, and login where one is configured.
    Ssh,
    /// One of the built-in agentless checks.
    Sensor(Sensor),
    /// A plugin on the device.
    Command {
        line: String,
    },
    /// Nothing is asked: somebody sends the results.
    Passive,
    /// The same, of a job that should have run by now.
    Heartbeat(Job),
}

impl Check {
    /// Whether its results are sent, and never asked for.
    pub fn is_sent(&self) -> bool {
        matches!(self, Check::Passive | Check::Heartbeat(_))
    }
}

#[derive(Debug)]
pub enum MonitorInput {
    Answer(AskId, Answer),
    News(News),
    /// Adds or changes a host; its states are kept where the service still exists. The rows of
    /// states are the store's to add and to take away: a record only changes one.
    Upsert(Box<HostSpec>),
    Remove(HostId),
    /// Check now; `None`: the host and all its services. Who asked stands in the shell's event.
    CheckNow {
        host: HostId,
        service: Option<String>,
    },
    /// Answered by a `Reply` that follows what it causes.
    Submit(Box<Submission>),
    Acknowledge {
        host: HostId,
        service: Option<String>,
        ack: Acknowledgement,
    },
    Unacknowledge {
        host: HostId,
        service: Option<String>,
    },
    /// All that is in it, and what joins it.
    AcknowledgeIncident(IncidentId, IncidentAck),
    UnacknowledgeIncident(IncidentId),
    /// Also before the hosts are restored.
    Downtime(Box<Downtime>),
    CancelDowntime(Id),
    /// An earlier run ended cut off. Before the hosts are restored.
    WasCutOff,
    /// How the gateway's own way out looks. Regularly, or never.
    Uplink(UplinkReading),
    /// Answered by a `Reply` that follows all that was before.
    Mark(Ticket),
    Timeout,
}

/// One look at the gateway's own way out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkReading {
    /// `None`: that cannot be told, or there never was one.
    pub default_route: Option<bool>,
    /// Places outside that have nothing to do with each other or with the fleet, and whether each
    /// answers. May be none.
    pub anchors: Vec<(String, bool)>,
    /// For longer than any live device is silent, no packet of the tunnels came or left, and those that
    /// were to leave had nowhere to go.
    pub socket_is_stuck: bool,
}

/// What the store remembers of a host from an earlier run; without states it is new.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMemory {
    pub spec: HostSpec,
    pub state: Option<HostState>,
    pub services: Vec<ServiceState>,
    /// What is acknowledged; `None`: the host itself.
    pub acknowledged: Vec<(Option<String>, Acknowledgement)>,
}

#[derive(Debug)]
pub enum MonitorOutput {
    Ask(Ask),
    Record(Record),
    /// A look at the gateway's way out is wanted now. Only of a shell that has sent one before.
    LookOutside,
    Wait(Option<Mono>, Why),
}

/// The gateway itself, where an event or a message is about no host.
pub const GATEWAY: HostId = Id::from_i64(0);

/// What is to be committed, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Host(Box<HostState>),
    Service(HostId, ServiceState),
    Sample(Sample),
    Event(Event),
    Message(Message),
    /// First contact through the tunnel: this key is the host's from now on. Or the type of the key that is
    /// pinned already.
    Pinned {
        host: HostId,
        key: HostKey,
    },
    /// An acknowledgement ended by itself.
    AckEnded(Id, Wall),
    /// Before what is told of it.
    Incident(IncidentRecord),
    Reply(Ticket, Outcome),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostStatus {
    #[default]
    Pending,
    Up,
    Down,
}

impl HostStatus {
    /// The lower-case name used in the API, the store and the log.
    pub const fn name(self) -> &'static str {
        match self {
            HostStatus::Pending => "pending",
            HostStatus::Up => "up",
            HostStatus::Down => "down",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateType {
    Soft,
    #[default]
    Hard,
}

/// What the host's address on the Internet said in its last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectAnswer {
    /// There is none, or the tunnel had proved the host alive before.
    #[default]
    NotAsked,
    Answered,
    /// Something is there that does not prove to be this host: it refuses, hangs, or has another key.
    Doubtful,
    Silent,
}

impl DirectAnswer {
    /// The name that the store uses.
    pub const fn name(self) -> &'static str {
        match self {
            DirectAnswer::NotAsked => "not_asked",
            DirectAnswer::Answered => "answered",
            DirectAnswer::Doubtful => "doubtful",
            DirectAnswer::Silent => "silent",
        }
    }
}

/// State, reachability and currency are separate fields.
#[derive(Clone, Debug, PartialEq)]
pub struct HostState {
    pub host: HostId,
    pub status: HostStatus,
    pub kind: StateType,
    pub attempt: u32,
    /// The status that is hard, also while a soft one is shown: what counters and mails go by.
    pub hard: HostStatus,
    pub reachable: bool,
    /// The last result is older than the checks allow.
    pub stale: bool,
    pub asleep: bool,
    /// Since when `status` is what it is.
    pub since: Wall,
    /// The last result; an inconclusive check yields none.
    pub last_check: Option<Wall>,
    pub next_check: Option<Wall>,
    /// What decided: `evidence`, `echo`, `tcp`, `handshake`, `direct`; `none` when all failed,
    /// `passive` when it was sent, `silence` when too long nothing was; empty before the first
    /// result.
    pub source: String,
    pub direct: DirectAnswer,
    /// Its packets arrive through the tunnel, and the questions of its last check got no answer: packets
    /// are lost in one direction, from the gateway to it.
    pub one_way: bool,
    /// When the first question was asked of those that nothing answered since; `None`: it is heard.
    pub silent_since: Option<Wall>,
    /// The last proof that it was alive.
    pub last_alive: Option<Wall>,
    /// When its own check began last.
    pub asked_at: Option<Wall>,
    /// The inner address that was asked last.
    pub asked: Option<IpAddr>,
    /// The fingerprint of the SSH host key that was seen instead of the pinned one.
    pub strange_key: Option<String>,
    pub output: String,
    pub detail: Detail,
    /// The last hard status that was mailed; `None`: nothing is to be taken back.
    pub notified: Option<HostStatus>,
    pub voice: VoiceState,
    /// Results that were sent.
    pub taken: Taken,
}

/// The route of a result that was sent, and the source of one of a host.
pub const SENT: &str = "passive";

/// The source of the finding that nobody sent a result of a host; `none` says that all was asked and failed.
pub const SILENT: &str = "silence";

/// Whether what is known of a host is what others sent, or did not send, by its source.
pub fn is_of_others(source: &str) -> bool {
    source == SENT || source == SILENT
}

/// Whether a host's last result is an answer of its own, by its source: it is there, whatever its state.
pub fn is_answer(source: &str) -> bool {
    matches!(source, "evidence" | "echo" | "tcp" | "handshake") || is_beside_tunnel(source)
}

/// The source of a host whose own handshakes arrive and lead to no session.
pub const ATTEMPTS: &str = "handshakes";
/// The source of a host that answers at its public address.
pub const DIRECT: &str = "direct";

/// Whether this proves the host alive and its tunnel not.
pub fn is_beside_tunnel(source: &str) -> bool {
    matches!(source, ATTEMPTS | DIRECT)
}

/// Whether this is an answer to something that was sent through a tunnel.
pub fn is_through_tunnel(source: &str) -> bool {
    matches!(source, "echo" | "tcp" | "handshake")
}

/// What a result of a host says beside its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    pub long_text: String,
    pub metrics: Vec<Metric>,
    /// Performance data that was skipped, and why.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceState {
    pub name: String,
    /// `None`: pending.
    pub status: Option<Status>,
    pub kind: StateType,
    pub attempt: u32,
    pub hard: Option<Status>,
    /// Not current: the host is down or what it depends on fails; the last state is kept.
    pub stale: bool,
    pub since: Wall,
    pub last_check: Option<Wall>,
    pub next_check: Option<Wall>,
    /// `tunnel` or `direct`; empty before the first result.
    pub route: String,
    /// The inner address that was asked, where the result came through a tunnel.
    pub asked: Option<IpAddr>,
    /// What echoes of two sizes said of the path after a stall.
    pub path: PathCheck,
    /// Since when the results have the cause of the last one.
    pub cause_since: Wall,
    pub result: PluginResult,
    pub notified: Option<Status>,
    pub voice: VoiceState,
    /// Results that were sent.
    pub taken: Taken,
}

/// The metrics of one result.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub host: HostId,
    /// Empty for the host check itself.
    pub service: String,
    pub at: Wall,
    pub metrics: Vec<Metric>,
}

/// One line of the event log; the sequence number is the store's.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub at: Wall,
    pub host: HostId,
    pub service: Option<String>,
    pub kind: EventKind,
    /// In words, for people: why.
    pub cause: String,
    /// The text of the result that decided.
    pub evidence: Excerpt,
    /// The principal that sent that result; `None`: nobody did.
    pub by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Old and new as lower-case names, `soft` or `hard`.
    StateChanged {
        from: &'static str,
        to: &'static str,
        hard: bool,
    },
    HostKeyPinned,
    HostKeyChanged,
    EndpointMoved,
    HandshakeRefused,
    FirstHandshake,
    /// Silent, as it may be for a while.
    FellAsleep,
    /// Heard from after that.
    Woke,
    /// Of [`GATEWAY`]: many fell silent at once, and nobody else was heard.
    UplinkLost,
    /// Of [`GATEWAY`]: somebody was heard again.
    UplinkBack,
    /// All its parents are down.
    Unreachable,
    /// One of them is there again.
    Reachable,
    /// A message that was not sent.
    NotificationHeld {
        kind: MessageKind,
        from: &'static str,
        to: &'static str,
        reason: HeldReason,
    },
    FlappingStarted,
    FlappingEnded,
    DowntimeStarted(Occasion),
    DowntimeEnded(Occasion),
    /// With the reason.
    AcknowledgementEnded(Id, AckEnd),
}

/// Something a person is to be told; the store's outbox gives it its stable id.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub at: Wall,
    pub host: HostId,
    pub host_name: String,
    pub service: Option<String>,
    pub kind: MessageKind,
    /// The object is not well now.
    pub problem: bool,
    /// The state that was told last; well where there is nothing to take back.
    pub from: &'static str,
    pub to: &'static str,
    pub output: Excerpt,
    /// Since when the reported state holds.
    pub since: Wall,
    /// What it belongs to.
    pub incident: Option<IncidentId>,
    /// Who did something and why, where that is what it tells.
    pub note: String,
}

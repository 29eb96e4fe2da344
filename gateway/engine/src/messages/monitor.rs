//! The messages between the shell and the monitor: hosts from the store go in, records to commit
//! come out.
//!
//! Values only. This module knows no sessions and packets.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetgate_probes::job::Job;
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;

use super::WakeReason;
use crate::id::{HostId, Id, PeerId, RentalId};
use crate::messages::excerpt::Excerpt;
use crate::messages::handover::{FirstContact, HandedOver, HandoverSpec};
use crate::messages::incident::{IncidentAck, IncidentId, IncidentRecord};
use crate::messages::notification::{
    AckEnd, Acknowledgement, Alerting, Downtime, DowntimeOccurrence, MessageKind, NotificationState, Outcome,
    PassiveResult, SuppressReason, Taken, Ticket,
};
use crate::messages::probe::{HostKey, PathCheck, ProbeId, ProbeReply, ProbeRequest};
use crate::messages::rental_phase::RentalPhase;
use crate::messages::tunnel::TunnelEvent;
use crate::time::{Mono, Wall};

/// A host from the store, with its profile and overrides already combined into `services`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    pub id: HostId,
    pub name: String,
    /// The labels by which downtimes select it.
    pub labels: BTreeMap<String, String>,
    /// Any of these that is up makes it reachable; includes the device that it is behind.
    pub parents: Vec<HostId>,
    /// The peer of its path: its own, or the device that it is behind.
    pub peer: Option<PeerId>,
    /// Whether the peer is its own (`peer == Some(id)`), so that packets prove it up. Packets of a
    /// device do not prove that a host behind it is up.
    pub own_tunnel: bool,
    /// The address inside the tunnel.
    pub address: Option<IpAddr>,
    /// The tunnel address of the other family: a device may use only one of the two.
    pub other_address: Option<IpAddr>,
    /// The address on the Internet, for direct checks and the fallback.
    pub direct: Option<String>,
    pub ssh: SshSpec,
    pub route: RoutePolicy,
    /// The longest expected silence; the host is `asleep` during it.
    pub max_silence: Option<Duration>,
    /// Passive results that stay away for this long are a problem, if the host cannot be checked.
    pub freshness: Option<Duration>,
    pub timing: Timing,
    /// Thresholds of its own check.
    pub thresholds: Vec<Threshold>,
    /// The traffic budget of its checks, in bytes per UTC day. It counts all traffic of the device
    /// that they go through, including that of all hosts behind it.
    pub budget: Option<u64>,
    pub alerting: Alerting,
    pub services: Vec<ServiceSpec>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutePolicy {
    Tunnel,
    Direct,
    /// Through the tunnel, or over the public address if the tunnel is down.
    Auto,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshSpec {
    pub port: u16,
    /// The login. Without a user, the checks that need a login do not run.
    pub user: Option<String>,
    pub pin: Option<HostKey>,
}

/// The share of the interval for a derived timeout: the rest is for the check's other probes.
pub const TIMEOUT_SHARE: f64 = 0.8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub interval: Duration,
    /// The interval between the failures of a soft state.
    pub retry: Duration,
    /// Failures in a row that make a state hard; at least 1.
    pub attempts: u32,
    /// The timeout of each probe, and of each command in an SSH session.
    pub timeout: Duration,
}

impl Timing {
    /// SEMANTICS 9; the timeout leaves room in the interval for a check with several probes.
    pub const DEFAULT: Timing = Timing {
        interval: Duration::from_secs(60),
        retry: Duration::from_secs(10),
        attempts: 3,
        timeout: Duration::from_secs(10),
    };

    /// Cuts a timeout that reaches the interval, so that a check ends before the next one begins.
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
    /// Those that it has without the rental that is active. `None`: no rental has thresholds for it.
    pub usual: Option<Vec<Threshold>>,
    /// Results that stay away for this long are a problem.
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
    /// Identification, host key, and login if one is configured.
    Ssh,
    /// One of the built-in agentless checks.
    Sensor(Sensor),
    /// A plugin on the device.
    Command {
        line: String,
    },
    /// No probe is sent; a submitter sends passive results.
    Passive,
    /// The same, for the runs of a scheduled job.
    Heartbeat(Job),
    /// What a rented device is in: the gateway itself sets the state ([`MonitorInput::RentalPhase`]).
    Rental,
}

impl Check {
    /// Whether its results are passive.
    pub fn is_sent(&self) -> bool {
        matches!(self, Check::Passive | Check::Heartbeat(_) | Check::Rental)
    }
}

/// The name of the service with the check [`Check::Rental`], and its route.
pub const RENTAL_SERVICE: &str = "rental";

#[derive(Debug)]
pub enum MonitorInput {
    ProbeReply(ProbeId, ProbeReply),
    TunnelEvent(TunnelEvent),
    /// Adds or changes a host; a service that still exists keeps its state. The store adds and
    /// removes the rows of states: a record only changes one.
    Upsert(Box<HostSpec>),
    Remove(HostId),
    /// Check now; `None`: the host and all its services. The shell's event names the requester.
    CheckNow {
        host: HostId,
        service: Option<String>,
    },
    /// A passive result; a `Reply` follows everything that it causes.
    Submit(Box<PassiveResult>),
    Acknowledge {
        host: HostId,
        service: Option<String>,
        ack: Acknowledgement,
    },
    Unacknowledge {
        host: HostId,
        service: Option<String>,
    },
    /// Acknowledges all members, and those that join later.
    AcknowledgeIncident(IncidentId, IncidentAck),
    UnacknowledgeIncident(IncidentId),
    /// Allowed even before the hosts are restored.
    Downtime(Box<Downtime>),
    CancelDowntime(Id),
    /// A rental that awaits, or had, the handover of its device; [`MonitorOutput::HandedOver`] follows once.
    Handover(Box<HandoverSpec>),
    ForgetHandover(RentalId),
    /// The greatest wall time of earlier runs.
    ClockFloor(Wall),
    /// An admin confirmed that the clock is right.
    AcceptClock,
    /// The effect of the rentals of a device on its monitoring; replaces what was known. Also allowed before the
    /// device.
    RentalPhase(Box<RentalPhase>),
    /// When services are full; each replaces what was known of its service.
    Forecasts(Vec<FullAt>),
    /// An earlier run ended while cut off. Sent before the hosts are restored.
    RestoreUplinkLost,
    /// A reading of the gateway's own uplink. Sent regularly, or never.
    Uplink(UplinkReading),
    /// A `Reply` follows everything before it.
    Mark(Ticket),
    Timeout,
}

/// The metric of a forecast: the seconds until [`USED`] is full.
pub const FULL_WITHIN: &str = "full_within";
/// The metric of which there are forecasts, in percent.
pub const USED: &str = "used";

/// The forecast of a service's metric [`USED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullAt {
    pub host: HostId,
    pub service: String,
    /// When it is full. `None`: the past supports no such forecast.
    pub at: Option<Wall>,
    /// When the forecast was made.
    pub made_at: Wall,
}

/// One reading of the gateway's own uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkReading {
    /// `None`: it cannot be determined, or there never was one.
    pub default_route: Option<bool>,
    /// Addresses outside that are independent of each other and of the fleet, and whether each
    /// replies. May be empty.
    pub anchors: Vec<(String, bool)>,
    /// Whether no tunnel packet came or left for longer than the silence of any live device,
    /// because the packets to be sent had no route.
    pub socket_is_stuck: bool,
}

/// The stored state of a host from an earlier run; a host without states is new.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSnapshot {
    pub spec: HostSpec,
    pub state: Option<HostState>,
    pub services: Vec<ServiceState>,
    /// The acknowledgements; `None`: that of the host itself.
    pub acknowledged: Vec<(Option<String>, Acknowledgement)>,
}

#[derive(Debug)]
pub enum MonitorOutput {
    ProbeRequest(ProbeRequest),
    Record(Record),
    /// The device of a rental passed the gate: the grant of the rental is to be opened, also while the store is away.
    HandedOver(HandedOver),
    /// The shipped device of a rental was heard from.
    FirstContact(FirstContact),
    /// Requests a reading of the uplink now; only from a shell that has sent one before.
    ProbeUplink,
    Wait(Option<Mono>, WakeReason),
}

/// The gateway itself, for events and messages that concern no host.
pub const GATEWAY: HostId = Id::from_i64(0);

/// A record to commit; records are in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Host(Box<HostState>),
    Service(HostId, ServiceState),
    Sample(Sample),
    Event(Event),
    Message(Message),
    /// The host key from the first contact through the tunnel, which is pinned from now on; or the
    /// type of the key that is already pinned.
    Pinned {
        host: HostId,
        key: HostKey,
    },
    /// An acknowledgement ended by itself.
    AckEnded(Id, Wall),
    /// Comes before the notifications of the incident.
    Incident(IncidentRecord),
    Reply(Ticket, Outcome),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StateType {
    Soft,
    #[default]
    Hard,
}

/// The result at the host's public address in its last check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DirectReply {
    /// There is none, or the tunnel had proved the host up before.
    #[default]
    NotAsked,
    Answered,
    /// A server is there that does not prove to be this host: it refuses, hangs, or has another
    /// key.
    Doubtful,
    Silent,
}

impl DirectReply {
    /// The name in the store.
    pub const fn name(self) -> &'static str {
        match self {
            DirectReply::NotAsked => "not_asked",
            DirectReply::Answered => "answered",
            DirectReply::Doubtful => "doubtful",
            DirectReply::Silent => "silent",
        }
    }
}

/// The state of a host. State, reachability and currency are separate fields.
#[derive(Clone, Debug, PartialEq)]
pub struct HostState {
    pub host: HostId,
    pub status: HostStatus,
    pub kind: StateType,
    pub attempt: u32,
    /// The hard status, also while a soft one is shown. Counters and mails use it.
    pub hard: HostStatus,
    pub reachable: bool,
    /// The last result is older than the checks allow.
    pub stale: bool,
    pub asleep: bool,
    /// Since when `status` has its value.
    pub since: Wall,
    /// Since when `hard` has its value; a problem counts from its first failure.
    pub hard_since: Wall,
    /// The last result; an inconclusive check has none.
    pub last_check: Option<Wall>,
    pub next_check: Option<Wall>,
    /// The source of the result: `evidence`, `echo`, `tcp`, `handshake`, `handshakes` or `direct`.
    /// `none`: all probes failed; `passive`: a passive result; `silence`: passive results are
    /// overdue. Empty before the first result.
    pub source: String,
    pub direct: DirectReply,
    /// Its packets arrive through the tunnel, and the probes of its last check got no reply.
    /// Packets from the gateway to it are lost.
    pub one_way: bool,
    /// The time of the first probe since its last reply; `None`: it replies.
    pub silent_since: Option<Wall>,
    /// The last proof that it was up.
    pub last_alive: Option<Wall>,
    /// The start of its last own check.
    pub asked_at: Option<Wall>,
    /// The inner address that was probed last.
    pub asked: Option<IpAddr>,
    /// The fingerprint of the SSH host key that was seen instead of the pinned one.
    pub strange_key: Option<String>,
    pub output: String,
    pub detail: Detail,
    /// The last hard status that was notified; `None`: no recovery is due.
    pub notified: Option<HostStatus>,
    pub notification: NotificationState,
    /// Passive results that were accepted.
    pub taken: Taken,
}

/// The route of a passive result, and the source of one of a host.
pub const SENT: &str = "passive";

/// The source of a result for overdue passive results; `none` means that every probe failed.
pub const SILENT: &str = "silence";

/// Whether the state of a host comes from passive results or their absence, by its source.
pub fn is_of_others(source: &str) -> bool {
    source == SENT || source == SILENT
}

/// Whether a host's last result is a reply of its own, by its source. The host is then up, even if
/// its state is down by a threshold.
pub fn is_answer(source: &str) -> bool {
    matches!(source, "evidence" | "echo" | "tcp" | "handshake") || is_beside_tunnel(source)
}

/// The source for a host whose own handshakes arrive and lead to no session.
pub const ATTEMPTS: &str = "handshakes";
/// The source for a host that replies at its public address.
pub const DIRECT: &str = "direct";

/// Whether this source proves the host up, but not its tunnel.
pub fn is_beside_tunnel(source: &str) -> bool {
    matches!(source, ATTEMPTS | DIRECT)
}

/// Whether this source is a reply to a packet that was sent through a tunnel.
pub fn is_through_tunnel(source: &str) -> bool {
    matches!(source, "echo" | "tcp" | "handshake")
}

/// The parts of a host's result besides its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Detail {
    pub long_text: String,
    pub metrics: Arc<[Metric]>,
    /// Performance data that was skipped, with the reason.
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
    /// Not current: the host is down or a dependency fails; the last state is kept.
    pub stale: bool,
    pub since: Wall,
    /// Since when `hard` has its value; a problem counts from its first failure.
    pub hard_since: Wall,
    pub last_check: Option<Wall>,
    pub next_check: Option<Wall>,
    /// `tunnel` or `direct`; empty before the first result.
    pub route: String,
    /// The inner address that was probed, if the result came through a tunnel.
    pub asked: Option<IpAddr>,
    /// The path check after a stall.
    pub path: PathCheck,
    /// Since when the results have the cause of the last one.
    pub cause_since: Wall,
    pub result: PluginResult,
    pub notified: Option<Status>,
    pub notification: NotificationState,
    /// Passive results that were accepted.
    pub taken: Taken,
}

/// The metrics of one result.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub host: HostId,
    /// Empty for the host check itself.
    pub service: String,
    pub at: Wall,
    pub metrics: Arc<[Metric]>,
}

/// One line of the event log; the sequence number is the store's.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub at: Wall,
    pub host: HostId,
    pub service: Option<String>,
    pub kind: EventKind,
    /// The reason, for people.
    pub cause: String,
    /// The text of the result that decided.
    pub evidence: Excerpt,
    /// The principal that sent that result; `None`: it was not a passive result.
    pub by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Old and new as lower-case names, `soft` or `hard`.
    StateChanged {
        from: &'static str,
        to: &'static str,
        hard: bool,
        /// When the result that decided was measured, if it was sent later. `None`: at the change.
        measured_at: Option<Wall>,
    },
    HostKeyPinned,
    HostKeyChanged,
    EndpointMoved,
    HandshakeRefused,
    FirstHandshake,
    /// Silent, within the expected silence.
    FellAsleep,
    /// Heard again after that.
    Woke,
    /// For [`GATEWAY`]: many hosts fell silent at once, and no other was heard.
    UplinkLost,
    /// For [`GATEWAY`]: a host was heard again.
    UplinkBack,
    /// All its parents are down.
    Unreachable,
    /// One of its parents is up again.
    Reachable,
    /// A notification was suppressed.
    NotificationHeld {
        kind: MessageKind,
        from: &'static str,
        to: &'static str,
        reason: SuppressReason,
    },
    FlappingStarted,
    FlappingEnded,
    DowntimeStarted(DowntimeOccurrence),
    DowntimeEnded(DowntimeOccurrence),
    /// The device is prepared for a rental, on its way, or in the planned maintenance of its rental: no notifications.
    RentalQuietStarted,
    RentalQuietEnded,
    /// With the reason.
    AcknowledgementEnded(Id, AckEnd),
}

/// A notification for people; the store's outbox assigns its stable id.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub at: Wall,
    pub host: HostId,
    pub host_name: String,
    pub service: Option<String>,
    pub kind: MessageKind,
    /// Whether the checkable has a problem now.
    pub problem: bool,
    /// The last notified state; ok if no problem is open.
    pub from: &'static str,
    pub to: &'static str,
    pub output: Excerpt,
    /// Since when the reported state holds.
    pub since: Wall,
    /// The incident of the checkable.
    pub incident: Option<IncidentId>,
    /// The author and the comment of an operator's action, if the message is about one.
    pub note: String,
}

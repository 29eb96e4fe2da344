//! The messages between the two halves of the engine and the shell.
//!
//! ```text
//!            Input                    Question (carried by the shell)
//! network  ────────▶  Tunnel  ◀──────────────────────────────  Monitor  ──▶ Record (store)
//!          ◀────────          ──────────────────────────────▶           ──▶ Output::Wait
//!            Output            Answer, News
//! ```
//!
//! Values only: nothing in here decides.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_keys::{PresharedKey, PublicKey};
use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;
use ipnet::IpNet;

use crate::id::{HostId, PeerId};
use crate::time::{Mono, Wall};

// ---------------------------------------------------------------- tunnel: in

/// WireGuard's handshake timestamp: TAI64N, compared as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n(pub [u8; 12]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKind {
    Device,
    Operator,
    Renter,
}

/// A peer as the store has it. Sent whole after each change; the tunnel keeps the session, the
/// counters and the newest stamp over a change of anything but the key.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    pub id: PeerId,
    pub kind: PeerKind,
    /// The first is the one the gateway dials with. More than one while keys rotate.
    pub keys: Vec<PeerKey>,
    /// Inner addresses of the pool that are this peer's own.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the peer; answers from there are accepted only to what was sent there.
    pub networks: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub struct PeerKey {
    pub public: PublicKey,
    pub psk: Option<PresharedKey>,
}

/// What the store remembers of a peer from an earlier run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerMemory {
    pub stamp: Option<Tai64n>,
    pub endpoint: Option<SocketAddr>,
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

#[derive(Debug)]
pub enum Input<'a> {
    /// One UDP datagram (already split out of a GRO batch). `to` is the local address it came to.
    Datagram {
        from: SocketAddr,
        to: Option<IpAddr>,
        bytes: &'a [u8],
    },
    Command(Command),
    /// The time that `Output::Wait` named has come, or any other time.
    Timeout,
}

#[derive(Debug)]
pub enum Command {
    /// Adds or changes a peer. `memory` counts only for a peer that is not there yet.
    Upsert(Box<PeerSpec>, PeerMemory),
    Remove(PeerId),
    /// Forget the newest handshake stamp: the device's clock was wrong in the future.
    ResetClock(PeerId),
    /// After a restart: initiate to every peer with an endpoint, paced.
    DialAll,
    Ask(Ask),
    Stream(StreamId, StreamInput),
    /// The interface is told to stop: sends nothing more of its own accord.
    Quiesce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A TCP connection through a tunnel, made by the in-process stack. Back pressure: the tunnel
/// takes at most `STREAM_WINDOW` unacknowledged bytes each way.
#[derive(Debug)]
pub enum StreamInput {
    Open {
        peer: PeerId,
        to: SocketAddr,
        timeout: Duration,
    },
    /// Bytes to send; at most what `StreamOutput::Writable` offered.
    Send(Vec<u8>),
    /// The reader took so many bytes of `StreamOutput::Data`.
    Taken(usize),
    /// No more bytes will be sent (FIN).
    Finish,
    /// Give everything up (RST).
    Abort,
}

/// Bytes in flight between the shell and the stack, each way, per stream.
pub const STREAM_WINDOW: usize = 64 * 1024;

// --------------------------------------------------------------- tunnel: out

#[derive(Debug)]
pub enum Output {
    Transmit(Transmit),
    Answer(AskId, Answer),
    Stream(StreamId, StreamOutput),
    News(News),
    /// Drained. `None`: nothing is planned.
    Wait(Option<Mono>, Why),
}

/// The reason of a deadline, for the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Idle,
    SessionTimer,
    StackTimer,
    ProbeTimeout,
    PacedDial,
    Publish,
    CheckDue,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Transmit {
    pub to: SocketAddr,
    /// The local address that the peer knows us by.
    pub from: Option<IpAddr>,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub enum StreamOutput {
    Connected,
    /// So many more bytes may be sent.
    Writable(usize),
    Data(Vec<u8>),
    /// The other side will send no more.
    Finished,
    /// The end, with the reason where it is not an orderly one. Nothing follows.
    Closed(Option<ConnectFailure>),
}

/// What the shell is told without having asked.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// The first handshake of this peer ever, or since it was re-keyed.
    FirstHandshake(PeerId),
    /// A session exists again after there was none.
    Up(PeerId),
    /// A newer stamp was answered; to be stored within a second.
    Stamp(PeerId, Tai64n),
    /// The peer's endpoint moved, by an authenticated packet; at most once a second.
    Endpoint(PeerId, SocketAddr),
    /// A known peer's handshake was not answered.
    Refused(PeerId, Refusal),
    /// Somebody with a right mac1 and a key that nobody enrolled; at most one a minute and key.
    UnknownKey(PublicKey, SocketAddr),
    /// Changed peers, at most once a second each.
    Status(PeerId, Box<PeerStatus>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The stamp is not newer than the last that was answered: a replay, or the device's clock
    /// went back. `behind`: how far.
    ClockWentBack {
        behind: Duration,
    },
    RateLimited,
    /// The static key is right, the rest is not: another preshared key, most likely.
    Crypto,
}

/// A peer as an operator wants to see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStatus {
    /// A session younger than 180 s exists.
    pub established: bool,
    pub endpoint: Option<SocketAddr>,
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    /// Device clock minus gateway clock at the last handshake, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    pub last_refusal: Option<(Wall, Refusal)>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub handshakes: u64,
    pub drops: BTreeMap<DropReason, u64>,
}

/// Why a datagram or packet went nowhere. Counted per peer where the peer is known, else globally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Not a WireGuard message by type and length.
    Malformed,
    BadMac1,
    RateLimited,
    UnknownKey,
    UnknownIndex,
    StaleStamp,
    /// Did not open, or was seen before.
    Crypto,
    Replay,
    /// A session of 180 s or older.
    SessionExpired,
    /// A counter at the end of its range.
    CounterExhausted,
    NoSession,
    /// The inner packet is not IP, or is truncated.
    BadPacket,
    /// The inner source address belongs to somebody else.
    SpoofedSource,
    /// `access::verdict` said no.
    NotAllowed,
    /// Addressed to the gateway, which asked for nothing like it.
    Unsolicited,
    NoRoute,
    TooBig,
    Budget,
}

impl DropReason {
    /// The name used in the API and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::BadMac1 => "bad_mac1",
            DropReason::RateLimited => "rate_limited",
            DropReason::UnknownKey => "unknown_key",
            DropReason::UnknownIndex => "unknown_index",
            DropReason::StaleStamp => "stale_stamp",
            DropReason::Crypto => "crypto",
            DropReason::Replay => "replay",
            DropReason::SessionExpired => "session_expired",
            DropReason::CounterExhausted => "counter_exhausted",
            DropReason::NoSession => "no_session",
            DropReason::BadPacket => "bad_packet",
            DropReason::SpoofedSource => "spoofed_source",
            DropReason::NotAllowed => "not_allowed",
            DropReason::Unsolicited => "unsolicited",
            DropReason::NoRoute => "no_route",
            DropReason::TooBig => "too_big",
            DropReason::Budget => "budget",
        }
    }
}

// ---------------------------------------------------- questions and answers

/// A question about a host. The shell carries it: to the tunnel where the route is a tunnel, to a
/// task of its own where it is direct, to the SSH client where it is SSH. Each gets exactly one
/// answer within `timeout` and a little.
#[derive(Clone, Debug)]
pub struct Ask {
    pub id: AskId,
    pub host: HostId,
    pub question: Question,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// `address` is the peer's own, or one behind it.
    Tunnel { peer: PeerId, address: IpAddr },
    /// A host name or address on the Internet or the gateway's own network.
    Direct { host: String },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// What the tunnel knows already. Sends nothing.
    Evidence {
        peer: PeerId,
    },
    /// Echo requests, one after the other. Like `Connect` and `Ssh` through a tunnel: without a
    /// session it dials first, unless a dial has just failed or no endpoint is known; then the
    /// answer is `NoTunnel` at once. The monitor does not ask where nobody is to be dialled.
    Echo {
        peer: PeerId,
        address: IpAddr,
        count: u8,
    },
    Connect {
        route: Route,
        port: u16,
    },
    /// A handshake, forced even beside a session: at most two initiations.
    Handshake {
        peer: PeerId,
    },
    Ssh {
        route: Route,
        port: u16,
        /// Of the whole time, for the TCP connection: a way that leads nowhere is given up before
        /// the commands' share is spent on it.
        connect: Duration,
        run: SshRun,
    },
}

/// One SSH session: identification, host key, and, where there is a login, commands in order.
/// Without a user it ends after the key exchange and is never answered from a kept session: it
/// asks whether that host is there now.
#[derive(Clone, Debug, PartialEq)]
pub struct SshRun {
    /// `SHA256:...` of the host key to insist on. Nothing is authenticated under another one.
    pub pin: Option<String>,
    /// Whether an unknown key may be learnt (through the tunnel) or must be confirmed by a person.
    pub learn: bool,
    pub user: Option<String>,
    pub commands: Vec<RemoteCommand>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RemoteCommand {
    pub name: String,
    pub line: String,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Evidence(Evidence),
    Echo(EchoAnswer),
    Connect(Result<Duration, ConnectFailure>),
    Handshake(Result<Duration, ConnectFailure>),
    Ssh(SshAnswer),
    /// The shell or the tunnel could not even try (no such peer, shutting down, over a bound).
    Refused(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    pub last_packet: Option<Mono>,
    pub last_handshake: Option<Mono>,
    pub established: bool,
    pub clock_skew_ms: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct EchoAnswer {
    pub sent: u8,
    pub rtts: Vec<Duration>,
    /// Where nothing could be sent at all.
    pub failure: Option<ConnectFailure>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    #[error("no tunnel")]
    NoTunnel,
    #[error("timed out")]
    Timeout,
    #[error("connection refused")]
    Refused,
    #[error("connection reset")]
    Reset,
    #[error("unreachable: {0}")]
    Unreachable(String),
    #[error("too much is in flight")]
    Busy,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SshAnswer {
    /// How far it came; the first failure ends the run.
    pub failure: Option<SshFailure>,
    /// `SSH-2.0-...` as the server said it.
    pub identification: Option<String>,
    /// `SHA256:...` of the key that the server proved to have.
    pub host_key: Option<String>,
    pub logged_in: bool,
    /// To the end of the key exchange; `None` on a session that was kept.
    pub connect: Option<Duration>,
    /// A session from before was used again.
    pub reused: bool,
    /// In the order of the commands; may stop early.
    pub commands: Vec<CommandAnswer>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SshFailure {
    Connect(ConnectFailure),
    /// Something else than SSH answers there.
    NotSsh(String),
    Protocol(String),
    HostKeyChanged {
        pinned: String,
        seen: String,
    },
    /// No pin, and none may be learnt on this route.
    HostKeyUnknown {
        seen: String,
    },
    LoginRefused {
        user: String,
    },
    Timeout,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CommandAnswer {
    pub name: String,
    pub end: CommandEnd,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Output went over the size limit and was cut there.
    pub truncated: bool,
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CommandEnd {
    Exit(u32),
    Signal(String),
    Timeout,
    /// The connection ended before the command did.
    Lost,
}

// ------------------------------------------------------------- monitor: in

/// A host as the store has it: profile and overrides already folded into `services`.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    pub id: HostId,
    pub name: String,
    /// The peer it is reached through: its own, or the device it stands behind.
    pub peer: Option<PeerId>,
    /// Its own peer (`peer == Some(id)`) can prove it alive; a host behind a device cannot be
    /// proved alive by that device's packets.
    pub own_tunnel: bool,
    /// Inside the tunnel.
    pub address: Option<IpAddr>,
    /// On the Internet, for direct checks and the fallback.
    pub direct: Option<String>,
    pub ssh: SshSpec,
    pub route: RoutePolicy,
    /// Expected to be silent for this long at a time (`asleep` within it).
    pub max_silence: Option<Duration>,
    pub timing: Timing,
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
    pub pin: Option<String>,
}

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
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpec {
    /// Unique within the host.
    pub name: String,
    pub check: Check,
    pub timing: Timing,
    pub thresholds: Vec<Threshold>,
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
    Timeout,
}

// ------------------------------------------------------------ monitor: out

/// What the store remembers of a host from an earlier run; without states it is new.
#[derive(Clone, Debug, PartialEq)]
pub struct HostMemory {
    pub spec: HostSpec,
    pub state: Option<HostState>,
    pub services: Vec<ServiceState>,
}

#[derive(Debug)]
pub enum MonitorOutput {
    Ask(Ask),
    Record(Record),
    Wait(Option<Mono>, Why),
}

/// What is to be committed, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    Host(HostState),
    Service(HostId, ServiceState),
    Sample(Sample),
    Event(Event),
    Message(Message),
    /// First contact through the tunnel: this key is the host's from now on.
    Pinned {
        host: HostId,
        fingerprint: String,
    },
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
    /// empty before the first result.
    pub source: String,
    pub output: String,
    /// The last hard status that was mailed; `None`: nothing is to be taken back.
    pub notified: Option<HostStatus>,
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
    pub result: PluginResult,
    pub notified: Option<Status>,
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
    pub evidence: String,
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
}

/// Something a person is to be told; the store's outbox gives it its stable id.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub at: Wall,
    pub host: HostId,
    pub host_name: String,
    pub service: Option<String>,
    pub problem: bool,
    pub from: &'static str,
    pub to: &'static str,
    pub output: String,
    /// Since when the reported state holds.
    pub since: Wall,
}

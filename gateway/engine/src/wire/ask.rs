//! Questions about a host, and their answers: what the monitor asks, the shell carries, and the
//! tunnel, a task or the SSH client answers.
//!
//! Values only. It knows nothing of what an answer means for a state.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use fleetgate_probes::ssh::{KeyType, LoginRefusal, Negotiated};

use crate::id::{HostId, PeerId};
use crate::time::Mono;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

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
    /// The same with packets as large as any, to tell a path that drops them. Answered like `Echo`.
    LargeEcho {
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

impl Question {
    /// The address inside a tunnel that it goes to.
    pub fn inner_address(&self) -> Option<IpAddr> {
        match self {
            Question::Echo { address, .. } | Question::LargeEcho { address, .. } => Some(*address),
            Question::Connect { route: Route::Tunnel { address, .. }, .. }
            | Question::Ssh { route: Route::Tunnel { address, .. }, .. } => Some(*address),
            _ => None,
        }
    }
}

/// One SSH session: identification, host key, and, where there is a login, commands in order.
/// Without a user it ends after the key exchange and is never answered from a kept session: it
/// asks whether that host is there now.
#[derive(Clone, Debug, PartialEq)]
pub struct SshRun {
    /// The host key to insist on. Nothing is authenticated under another one.
    pub pin: Option<HostKey>,
    /// Whether an unknown key may be learnt (through the tunnel) or must be confirmed by a person.
    pub learn: bool,
    pub user: Option<String>,
    pub commands: Vec<RemoteCommand>,
}

/// A host key, by its fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// `SHA256:...`
    pub fingerprint: String,
    /// A server has one key of each type and shows one of them: the first that it is asked for. `None`:
    /// only the fingerprint is known, so that it is asked for one after the other.
    pub key_type: Option<KeyType>,
}

impl HostKey {
    pub fn is(&self, other: &HostKey) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// Of which nothing but the fingerprint is known.
impl From<&str> for HostKey {
    fn from(fingerprint: &str) -> Self {
        HostKey { fingerprint: fingerprint.to_owned(), key_type: None }
    }
}

/// The type, where it is known, and the fingerprint.
impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key_type.iter().try_for_each(|t| write!(f, "{} ", t.name()))?;
        f.write_str(&self.fingerprint)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RemoteCommand {
    pub name: String,
    pub line: String,
    pub timeout: Duration,
    /// Whether the line is one of `fleetgate_probes::remote::run` already; else it becomes one, and where a
    /// device does not take that, it is run as it is.
    pub bounded: bool,
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
    /// When something that was sent through the tunnel was answered last: an echo, a connection, a handshake.
    /// A packet that merely arrives proves one direction.
    pub last_answer: Option<Mono>,
    /// The last handshake of the peer that was answered and led to no session, where several of them, or its own
    /// stamp, show that it was made now: the peer is alive. A replayed one does not count.
    pub last_attempt: Option<Mono>,
    pub established: bool,
    pub clock_skew_ms: Option<i64>,
    /// Bytes of the peer on the wire, both ways, since midnight UTC.
    pub wire_today: u64,
}

impl Evidence {
    /// When both directions were proved last.
    pub fn answered(&self) -> Option<Mono> {
        self.last_answer.max(self.last_handshake)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct EchoAnswer {
    pub sent: u8,
    pub rtts: Vec<Duration>,
    /// Where nothing could be sent at all.
    pub failure: Option<ConnectFailure>,
}

/// What echoes of two sizes say of a path on which a question got no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathCheck {
    #[default]
    NotAsked,
    /// A packet as large as any came back: the path is not what stalls.
    LargeAnswered,
    /// Small packets came back and large ones did not: the path drops large packets.
    LargeLost,
    /// Some came back and some did not, or one attempt differs from another: packets are lost by chance.
    Lossy,
    /// Neither came back.
    Silent,
}

impl PathCheck {
    pub const ALL: [PathCheck; 5] = [
        PathCheck::NotAsked,
        PathCheck::LargeAnswered,
        PathCheck::LargeLost,
        PathCheck::Lossy,
        PathCheck::Silent,
    ];

    /// The name that the store uses.
    pub const fn name(self) -> &'static str {
        match self {
            PathCheck::NotAsked => "not_asked",
            PathCheck::LargeAnswered => "large_answered",
            PathCheck::LargeLost => "large_lost",
            PathCheck::Lossy => "lossy",
            PathCheck::Silent => "silent",
        }
    }

    /// Whether something came back: the path leads there and back.
    pub const fn is_answered(self) -> bool {
        matches!(self, PathCheck::LargeAnswered | PathCheck::LargeLost | PathCheck::Lossy)
    }

    pub fn named(name: &str) -> Option<PathCheck> {
        PathCheck::ALL.into_iter().find(|check| check.name() == name)
    }
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
    /// The key that the server proved to have.
    pub host_key: Option<HostKey>,
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
        pinned: HostKey,
        seen: HostKey,
    },
    /// No pin, and none may be learnt on this route.
    HostKeyUnknown {
        seen: HostKey,
    },
    /// Nothing that both sides can do; what the server offered.
    NothingInCommon {
        what: Negotiated,
        offered: Vec<String>,
    },
    LoginRefused {
        user: String,
        why: LoginRefusal,
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

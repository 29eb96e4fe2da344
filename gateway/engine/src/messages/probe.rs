//! Probes and their replies. The monitor requests a probe, the shell carries it, and the tunnel, a
//! task or the SSH client replies.
//!
//! Values only. This module does not know what a reply means for a state.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

pub use fleetgate_probes::ssh::{KeyType, LoginRefusal, Negotiated};

use crate::id::{HostId, PeerId};
use crate::time::Mono;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

/// A probe of a host. The shell carries it to the tunnel or, on a direct route, to a task of its
/// own; SSH goes to the SSH client. Each probe gets exactly one reply, within `timeout` and a
/// little.
#[derive(Clone, Debug)]
pub struct ProbeRequest {
    pub id: ProbeId,
    pub host: HostId,
    pub probe: Probe,
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
pub enum Probe {
    /// Reads the evidence that the tunnel already has. Sends no packet.
    Evidence {
        peer: PeerId,
    },
    /// Echo requests, one after the other. Through a tunnel, this probe dials first if there is no
    /// session, and so do `Connect` and `Ssh`. If a dial has just failed or no endpoint is known,
    /// the reply is `NoTunnel` at once. The monitor does not send it when the peer must not be
    /// dialled.
    Echo {
        peer: PeerId,
        address: IpAddr,
        count: u8,
    },
    /// The same with packets as large as any, to detect a path that drops them. The reply is as for
    /// `Echo`.
    LargeEcho {
        peer: PeerId,
        address: IpAddr,
        count: u8,
    },
    Connect {
        route: Route,
        port: u16,
    },
    /// A handshake, forced even during a session: at most two initiations.
    Handshake {
        peer: PeerId,
    },
    Ssh {
        route: Route,
        port: u16,
        /// The part of the timeout for opening the session, login included. A path that leads
        /// nowhere is given up before it uses the commands' share.
        connect: Duration,
        run: SshRun,
    },
}

impl Probe {
    /// Returns the address inside a tunnel that it goes to.
    pub fn inner_address(&self) -> Option<IpAddr> {
        match self {
            Probe::Echo { address, .. } | Probe::LargeEcho { address, .. } => Some(*address),
            Probe::Connect { route: Route::Tunnel { address, .. }, .. }
            | Probe::Ssh { route: Route::Tunnel { address, .. }, .. } => Some(*address),
            _ => None,
        }
    }
}

/// One SSH session: identification, host key, and with a login, commands in order. Without a user
/// it ends after the key exchange. It then never uses a kept session, because it checks whether
/// that host is there now.
#[derive(Clone, Debug, PartialEq)]
pub struct SshRun {
    /// The required host key. The client does not authenticate to a server with another one.
    pub pin: Option<HostKey>,
    /// Whether an unknown key may be learnt (through the tunnel), or an operator must confirm it.
    pub learn: bool,
    pub user: Option<String>,
    pub commands: Vec<RemoteCommand>,
}

/// A host key, by its fingerprint.
#[derive(Clone, Debug)]
pub struct HostKey {
    /// `SHA256:...`
    pub fingerprint: String,
    /// The type of the key. A server has one key of each type and presents the first type that the
    /// client asks for. `None`: only the fingerprint is known, so the client asks for one type
    /// after the other.
    pub key_type: Option<KeyType>,
    /// The key as OpenSSH writes it, such as `ssh-ed25519 AAAA...`. `None`: only the fingerprint is known.
    pub line: Option<String>,
}

/// Two keys with one fingerprint have one line.
impl PartialEq for HostKey {
    fn eq(&self, other: &HostKey) -> bool {
        self.is(other) && self.key_type == other.key_type
    }
}

impl Eq for HostKey {}

impl HostKey {
    pub fn is(&self, other: &HostKey) -> bool {
        self.fingerprint == other.fingerprint
    }

    /// Whether the same key, as a server has shown it, says more of itself.
    pub fn is_known_less_than(&self, shown: &HostKey) -> bool {
        let has_type = self.key_type.is_some() || shown.key_type.is_none();
        let has_line = self.line.is_some() || shown.line.is_none();
        !(has_type && has_line)
    }
}

/// Creates a host key of which only the fingerprint is known.
impl From<&str> for HostKey {
    fn from(fingerprint: &str) -> Self {
        HostKey { fingerprint: fingerprint.to_owned(), key_type: None, line: None }
    }
}

/// Writes the type, if it is known, and the fingerprint.
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
    /// Whether the line already comes from `fleetgate_probes::remote::run`. If not, it is wrapped;
    /// if the device does not accept that, it runs as it is.
    pub bounded: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ProbeReply {
    Evidence(Evidence),
    Echo(EchoReply),
    Connect(Result<Duration, ConnectFailure>),
    Handshake(Result<Duration, ConnectFailure>),
    Ssh(SshReply),
    /// The shell or the tunnel could not send the probe (no such peer, shutting down, over a
    /// limit).
    Refused(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evidence {
    pub last_packet: Option<Mono>,
    pub last_handshake: Option<Mono>,
    /// The time of the last reply to a packet that was sent through the tunnel: an echo, a
    /// connection, a handshake. A packet that merely arrives proves one direction.
    pub last_answer: Option<Mono>,
    /// The last handshake of the peer that got a response and led to no session. It counts if
    /// several of them, or its own timestamp, prove that it is new: the peer is up. A replayed one
    /// does not count.
    pub last_attempt: Option<Mono>,
    pub established: bool,
    pub clock_skew_ms: Option<i64>,
    /// Traffic of the peer since midnight UTC, in bytes, both directions.
    pub wire_today: u64,
}

impl Evidence {
    /// Returns when both directions were last proved.
    pub fn answered(&self) -> Option<Mono> {
        self.last_answer.max(self.last_handshake)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct EchoReply {
    pub sent: u8,
    pub rtts: Vec<Duration>,
    /// Why no request could be sent.
    pub failure: Option<ConnectFailure>,
}

/// The result of echoes of two sizes on a path on which a probe got no reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathCheck {
    #[default]
    NotAsked,
    /// A packet as large as any came back: the path is not the cause.
    LargeAnswered,
    /// Small packets came back and large ones did not: the path drops large packets.
    LargeLost,
    /// Some came back and some did not, or attempts differ: packets are lost by chance.
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

    /// The name in the store.
    pub const fn name(self) -> &'static str {
        match self {
            PathCheck::NotAsked => "not_asked",
            PathCheck::LargeAnswered => "large_answered",
            PathCheck::LargeLost => "large_lost",
            PathCheck::Lossy => "lossy",
            PathCheck::Silent => "silent",
        }
    }

    /// Whether some packet came back: the path works in both directions.
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
pub struct SshReply {
    /// The failure that ended the run, if one did.
    pub failure: Option<SshFailure>,
    /// `SSH-2.0-...` as the server sent it.
    pub identification: Option<String>,
    /// The key that the server proved to have.
    pub host_key: Option<HostKey>,
    pub logged_in: bool,
    /// The time to the end of the key exchange; `None` for a kept session.
    pub connect: Option<Duration>,
    /// Whether a kept session was used again.
    pub reused: bool,
    /// In the order of the commands; may stop early.
    pub commands: Vec<CommandReply>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SshFailure {
    Connect(ConnectFailure),
    /// The server there does not speak SSH.
    NotSsh(String),
    Protocol(String),
    HostKeyChanged {
        pinned: HostKey,
        seen: HostKey,
    },
    /// There is no pin, and this route must not learn one.
    HostKeyUnknown {
        seen: HostKey,
    },
    /// No algorithm in common; the server's offer.
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
pub struct CommandReply {
    pub name: String,
    pub end: CommandEnd,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The output was cut at the size limit.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_shown_says_more_than_its_fingerprint() {
        let pinned = HostKey::from("SHA256:a");
        let typed = HostKey { key_type: Some(KeyType::Ed25519), ..pinned.clone() };
        let shown = HostKey { line: Some("ssh-ed25519 AAAA".into()), ..typed.clone() };
        assert!(pinned.is_known_less_than(&typed) && typed.is_known_less_than(&shown));
        for (known, shown) in [(&shown, &shown), (&shown, &pinned), (&typed, &typed), (&pinned, &pinned)] {
            assert!(!known.is_known_less_than(shown), "{known:?} {shown:?}");
        }
    }
}

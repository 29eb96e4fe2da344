//! The messages between the shell and the tunnel: peers and datagrams go in; datagrams, streams and
//! news come out.
//!
//! Values only. This module knows no hosts, services and states.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use fleetgate_keys::{PresharedKey, PublicKey};
use ipnet::IpNet;

use super::WakeReason;
use crate::id::PeerId;
use crate::messages::dns::{DnsClient, DnsDecision, DnsId};
use crate::messages::forwarding::{
    ExplainRequest, Explanation, FlowRecord, ForwardProbe, ForwardProbeReply, PolicyChange,
};
use crate::messages::probe::{ConnectFailure, ProbeId, ProbeReply, ProbeRequest};
use crate::time::{Mono, Wall};

/// WireGuard's handshake timestamp: TAI64N, compared as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n(pub [u8; 12]);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerKind {
    Device,
    Operator,
    Renter,
}

/// A peer from the store. It is sent whole after each change; the tunnel keeps the session, the
/// counters and the newest timestamp unless the key changes.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    pub id: PeerId,
    pub kind: PeerKind,
    /// The gateway dials with the first key. There is more than one while keys rotate.
    pub keys: Vec<PeerKey>,
    /// Inner addresses of the pool that are this peer's own.
    pub addresses: Vec<IpAddr>,
    /// Networks behind the peer; packets from there are accepted only as replies.
    pub networks: Vec<IpNet>,
    /// The largest inner packet that the peer takes, within [`MTU_RANGE`].
    pub mtu: u16,
}

/// The inner MTU of a peer unless a setting names another: the minimum of IPv6, which passes every
/// mobile network and every outer tunnel.
pub const DEFAULT_MTU: u16 = 1_280;

/// The inner MTUs that a peer may have. IPv6 needs the first. With the last, a datagram of WireGuard
/// over IPv6 (80 bytes of headers) fills a packet of 1,500 bytes; a larger one would arrive in
/// fragments or not at all.
pub const MTU_RANGE: RangeInclusive<u16> = DEFAULT_MTU..=1_420;

#[derive(Clone, Debug)]
pub struct PeerKey {
    pub public: PublicKey,
    pub psk: Option<PresharedKey>,
}

/// A former key of a peer. `stamp`: the newest handshake under it, if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetiredKey {
    pub public: PublicKey,
    pub peer: PeerId,
    /// The time from which it was no longer the peer's key.
    pub at: Wall,
    pub stamp: Option<Tai64n>,
}

/// The stored state of a peer from an earlier run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerSnapshot {
    pub stamp: Option<Tai64n>,
    pub endpoint: Option<SocketAddr>,
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    /// See [`PeerStatus::clock_skew_ms`].
    pub clock_skew_ms: Option<i64>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// See [`PeerStatus::wire`].
    pub wire: [WireDay; 2],
}

/// The traffic of a peer on one UTC day: every datagram that the gateway accepted or sent, with
/// handshakes and keepalives, and with its UDP and IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireDay {
    /// Days since 1970.
    pub day: i64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
}

impl WireDay {
    pub fn total(&self) -> u64 {
        self.rx_bytes.saturating_add(self.tx_bytes)
    }
}

#[derive(Debug)]
pub enum Input<'a> {
    /// One UDP datagram (already split out of a GRO batch). `to` is the local address it came to. `arrived`: when it
    /// came to the socket. The time that it lay there is no part of a round trip.
    Datagram {
        from: SocketAddr,
        to: Option<IpAddr>,
        arrived: Mono,
        bytes: &'a [u8],
    },
    Command(Command),
    /// The time that `Output::Wait` named has come, or any other time.
    Timeout,
}

#[derive(Debug)]
pub enum Command {
    /// Adds or changes a peer. `memory` only applies to a peer that is not there yet.
    Upsert(Box<PeerSpec>, PeerSnapshot),
    Remove(PeerId),
    /// Forget the newest handshake timestamp, because the device's clock was ahead.
    ResetClock(PeerId),
    /// After a restart: initiate to every peer with an endpoint, paced.
    DialAll,
    ProbeRequest(ProbeRequest),
    Stream(StreamId, StreamInput),
    /// Changes of who may reach what; each holds for the next packet.
    Policy(Vec<PolicyChange>),
    /// Asks for the decision of the filter about a packet, with its reason.
    Explain(ExplainId, ExplainRequest),
    /// A DNS query that a peer sent over TCP. Each gets one decision.
    DnsQuery(DnsId, PeerId, Vec<u8>),
    /// The answer of a resolver to a query that came over UDP.
    DnsReply(DnsClient, Vec<u8>),
    /// The same, and whether the target answers.
    ForwardProbe(ExplainId, ForwardProbe),
    /// The interface is stopping: the tunnel sends no more packets on its own.
    Quiesce,
}

/// The shell counts from 1; streams that peers open have the highest bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// The shell numbers its questions about the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExplainId(pub u64);

/// A TCP connection through a tunnel, made by the in-process stack. Back pressure: the tunnel takes
/// at most `STREAM_WINDOW` unacknowledged bytes in each direction.
#[derive(Debug)]
pub enum StreamInput {
    Open {
        peer: PeerId,
        to: SocketAddr,
        timeout: Duration,
    },
    /// Bytes to send; at most the number that `StreamOutput::Writable` offered.
    Send(Vec<u8>),
    /// The reader took so many bytes of `StreamOutput::Data`.
    Taken(usize),
    /// No more bytes will be sent (FIN).
    Finish,
    /// Abort the connection (RST); after `Finish`, bytes sent before are still delivered.
    Abort,
    /// Abort the connection (RST) at once, also after `Finish`: what was not delivered yet is discarded.
    Reset,
}

/// Bytes in flight between the shell and the stack, in each direction, per stream.
pub const STREAM_WINDOW: usize = 64 * 1024;

#[derive(Debug)]
pub enum Output {
    Transmit(Transmit),
    ProbeReply(ProbeId, ProbeReply),
    Stream(StreamId, StreamOutput),
    TunnelEvent(TunnelEvent),
    Explanation(ExplainId, Explanation),
    ForwardProbe(ExplainId, ForwardProbeReply),
    /// The traffic of a flow between peers.
    Flow(FlowRecord),
    /// The outcome of a query that came over TCP.
    DnsAnswer(DnsId, DnsDecision),
    /// A query over UDP that a resolver is to answer.
    DnsForward(DnsClient, Vec<u8>),
    /// All outputs are drained. `None`: no action is planned.
    Wait(Option<Mono>, WakeReason),
}

/// Datagrams of one size for one destination, behind each other, so that one call can send them. The
/// shell lends the buffer to the tunnel again (`Tunnel::lend`).
#[derive(Debug, PartialEq, Eq)]
pub struct Transmit {
    pub to: SocketAddr,
    /// The local address that the peer knows.
    pub from: Option<IpAddr>,
    /// The size of each datagram. The last may be shorter.
    pub size: usize,
    pub bytes: Vec<u8>,
}

impl Transmit {
    /// One datagram.
    pub fn one(to: SocketAddr, from: Option<IpAddr>, bytes: Vec<u8>) -> Transmit {
        Transmit { to, from, size: bytes.len(), bytes }
    }

    pub fn datagrams(&self) -> std::slice::Chunks<'_, u8> {
        self.bytes.chunks(self.size.max(1))
    }
}

/// The listeners on the gateway's inner addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Published {
    /// The port to which devices send their results.
    Results,
    /// DNS for the peers of people.
    Dns,
    /// The page on which renters see what they reach.
    Page,
}

#[derive(Debug)]
pub enum StreamOutput {
    /// A peer opened it from its own inner address to a published port. The tunnel assigns the
    /// number.
    Accepted {
        peer: PeerId,
        from: SocketAddr,
        service: Published,
    },
    Connected,
    /// So many more bytes may be sent.
    Writable(usize),
    Data(Vec<u8>),
    /// The other side will send no more.
    Finished,
    /// The end, with the reason if it is not an orderly one. No output follows.
    Closed(Option<ConnectFailure>),
}

/// Events that the tunnel reports to the shell on its own.
#[derive(Clone, Debug, PartialEq)]
pub enum TunnelEvent {
    /// The first handshake of this peer ever, or since it got a new key.
    FirstHandshake(PeerId),
    /// There is a session again after there was none.
    Up(PeerId),
    /// An authenticated packet of its own came after a silence with at least one missed keepalive.
    Heard(PeerId),
    /// The peer has other keys; discard the news under the former ones. All later news is about the
    /// new keys.
    Rekeyed(PeerId),
    /// The newest timestamp was reset on request; an earlier one must no longer be stored.
    ClockReset(PeerId),
    /// A handshake with a newer timestamp got a response; store it within a second.
    Stamp(PeerId, Tai64n),
    /// The peer's endpoint moved, by an authenticated packet; at most once a second.
    Endpoint(PeerId, SocketAddr),
    /// A known peer's handshake got no response.
    Refused(PeerId, Refusal),
    /// The newest timestamp under a retired key; stored so that a replay is still recognized.
    RetiredStamp(PublicKey, Tai64n),
    /// A removed peer makes handshakes with its key; at most one an hour and key.
    RemovedPeer(PeerId, SocketAddr),
    /// A stranger sent a handshake with a correct mac1 and an unknown key; at most one a minute and
    /// key.
    UnknownKey(PublicKey, SocketAddr),
    /// Changed peers, at most once a second each.
    Status(PeerId, Box<PeerStatus>),
}

impl TunnelEvent {
    /// Returns the peer whose hosts receive the event; `None`: it concerns no host.
    pub fn concerned_peer(&self) -> Option<PeerId> {
        match self {
            TunnelEvent::FirstHandshake(peer)
            | TunnelEvent::Up(peer)
            | TunnelEvent::Heard(peer)
            | TunnelEvent::Rekeyed(peer)
            | TunnelEvent::Endpoint(peer, _)
            | TunnelEvent::Refused(peer, _) => Some(*peer),
            TunnelEvent::ClockReset(_)
            | TunnelEvent::Stamp(..)
            | TunnelEvent::RetiredStamp(..)
            | TunnelEvent::RemovedPeer(..)
            | TunnelEvent::UnknownKey(..)
            | TunnelEvent::Status(..) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The timestamp is not newer than the last accepted one: a replay, or the device's clock went
    /// back. `behind`: how far.
    ClockWentBack {
        behind: Duration,
    },
    RateLimited,
    /// The static key is right, the rest is not: another preshared key, most likely.
    Crypto,
    /// The static key is a former one of the peer.
    ReplacedKey {
        replaced_at: Wall,
    },
}

/// The last handshakes with a peer's key that led to no session. Their timestamps advance with
/// time, unlike those of a captured handshake that is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Refused for their timestamps.
    pub refused: Option<Wall>,
    /// The gateway responded, and no packet ever came.
    pub unproved: Option<UnprovedHandshakes>,
    /// The last response since the last session, without a packet yet. One such response may be
    /// lost.
    pub pending: Option<Wall>,
    /// Made with a replaced key; no response was sent.
    pub replaced: Option<ReplacedKeyUse>,
}

/// The use of a former key: packets of its last session, or handshakes whose timestamps advance
/// with time. The sender has the old configuration and is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacedKeyUse {
    pub replaced_at: Wall,
    pub last: Wall,
    pub from: SocketAddr,
}

/// Handshakes of a peer, one after the other, that got a response and led to no session. The sender
/// has the key and is up; the responses do not arrive or are refused (another preshared key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnprovedHandshakes {
    /// The number since the last session.
    pub count: u32,
    pub since: Wall,
    pub last: Wall,
    /// The source of the last one.
    pub from: SocketAddr,
}

/// The state of a peer for an operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStatus {
    /// A session younger than 180 s exists.
    pub established: bool,
    pub endpoint: Option<SocketAddr>,
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    /// The time of the last reply to a packet that was sent through the tunnel.
    pub last_answer: Option<Wall>,
    /// Device clock minus gateway clock at the last handshake, in milliseconds.
    pub clock_skew_ms: Option<i64>,
    pub last_refusal: Option<(Wall, Refusal)>,
    pub attempts: Attempts,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub handshakes: u64,
    /// The day of the last datagram, and the one counted before it.
    pub wire: [WireDay; 2],
    pub drops: BTreeMap<DropReason, u64>,
}

/// Why a datagram or packet was dropped. Counted per peer if the peer is known, else globally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Not a WireGuard message by type and length.
    Malformed,
    BadMac1,
    RateLimited,
    UnknownKey,
    /// A former key of a peer, or that of a removed peer.
    RetiredKey,
    UnknownIndex,
    StaleStamp,
    /// Did not decrypt, or was seen before.
    Crypto,
    Replay,
    /// A session of 180 s or older.
    SessionExpired,
    /// A counter at the end of its range.
    CounterExhausted,
    NoSession,
    /// The inner packet is not IP, or is truncated.
    BadPacket,
    /// The inner source address is not among the peer's.
    SpoofedSource,
    /// Addressed to the gateway, but not a reply to a packet that it sent.
    Unsolicited,
    NoRoute,
    TooBig,
    Budget,
    /// No grant covers the packet now.
    NotGranted,
    /// Only a grant with a window covers the packet, and the gateway's clock is behind a time that it
    /// has shown before.
    ClockBehind,
    /// Only a grant with a window covers the packet, and the gateway's clock was set a moment ago.
    ClockStep,
    /// No flow that a permitted source opened expects the packet.
    NoFlow,
    /// A TCP reset whose sequence number lies outside of the receiver's window.
    BadReset,
    /// The sender, its target or the gateway has as many flows as it may have.
    FlowTableFull,
    /// Replies of the new flow could not be told from those of a live one.
    FlowConflict,
    /// IPv4 options, or an IPv6 extension header other than a fragment header.
    IpOptions,
    /// A fragment that follows no permitted first one, hides a header or is malformed.
    Fragment,
    /// The hop limit of the packet is used up.
    Ttl,
    /// An ICMP message that is neither an echo nor an error.
    IcmpType,
}

impl DropReason {
    pub const ALL: [DropReason; 29] = [
        DropReason::Malformed,
        DropReason::BadMac1,
        DropReason::RateLimited,
        DropReason::UnknownKey,
        DropReason::RetiredKey,
        DropReason::UnknownIndex,
        DropReason::StaleStamp,
        DropReason::Crypto,
        DropReason::Replay,
        DropReason::SessionExpired,
        DropReason::CounterExhausted,
        DropReason::NoSession,
        DropReason::BadPacket,
        DropReason::SpoofedSource,
        DropReason::Unsolicited,
        DropReason::NoRoute,
        DropReason::TooBig,
        DropReason::Budget,
        DropReason::NotGranted,
        DropReason::ClockBehind,
        DropReason::ClockStep,
        DropReason::NoFlow,
        DropReason::BadReset,
        DropReason::FlowTableFull,
        DropReason::FlowConflict,
        DropReason::IpOptions,
        DropReason::Fragment,
        DropReason::Ttl,
        DropReason::IcmpType,
    ];

    /// The name used in the API and the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::BadMac1 => "bad_mac1",
            DropReason::RateLimited => "rate_limited",
            DropReason::UnknownKey => "unknown_key",
            DropReason::RetiredKey => "retired_key",
            DropReason::UnknownIndex => "unknown_index",
            DropReason::StaleStamp => "stale_stamp",
            DropReason::Crypto => "crypto",
            DropReason::Replay => "replay",
            DropReason::SessionExpired => "session_expired",
            DropReason::CounterExhausted => "counter_exhausted",
            DropReason::NoSession => "no_session",
            DropReason::BadPacket => "bad_packet",
            DropReason::SpoofedSource => "spoofed_source",
            DropReason::Unsolicited => "unsolicited",
            DropReason::NoRoute => "no_route",
            DropReason::TooBig => "too_big",
            DropReason::Budget => "budget",
            DropReason::NotGranted => "not_granted",
            DropReason::ClockBehind => "clock_behind",
            DropReason::ClockStep => "clock_step",
            DropReason::NoFlow => "no_flow",
            DropReason::BadReset => "bad_reset",
            DropReason::FlowTableFull => "flow_table_full",
            DropReason::FlowConflict => "flow_conflict",
            DropReason::IpOptions => "ip_options",
            DropReason::Fragment => "fragment",
            DropReason::Ttl => "ttl",
            DropReason::IcmpType => "icmp_type",
        }
    }
}

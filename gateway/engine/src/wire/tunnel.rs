//! What the shell and the tunnel say to each other: peers and datagrams in, datagrams, streams and
//! news out.
//!
//! Values only. It knows nothing of hosts, services and their states.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fleetgate_keys::{PresharedKey, PublicKey};
use ipnet::IpNet;

use super::Why;
use super::ask::{Answer, Ask, AskId, ConnectFailure};
use crate::id::PeerId;
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

/// A key that a peer had before. `stamp`: the newest handshake under it, if there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetiredKey {
    pub public: PublicKey,
    pub peer: PeerId,
    /// Since when it is not the peer's any more.
    pub at: Wall,
    pub stamp: Option<Tai64n>,
}

/// What the store remembers of a peer from an earlier run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerMemory {
    pub stamp: Option<Tai64n>,
    pub endpoint: Option<SocketAddr>,
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    /// As [`PeerStatus::clock_skew_ms`].
    pub clock_skew_ms: Option<i64>,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// As [`PeerStatus::wire`].
    pub wire: [WireDay; 2],
}

/// What a peer cost on the wire on one day of UTC: every datagram of it that the gateway took or sent,
/// handshakes and keepalives included, with its UDP and IP headers.
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

/// The shell counts from 1; streams that devices open have the highest bit set.
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
    /// Give everything up (RST); after `Finish`, what was said before is still delivered.
    Abort,
}

/// Bytes in flight between the shell and the stack, each way, per stream.
pub const STREAM_WINDOW: usize = 64 * 1024;

#[derive(Debug)]
pub enum Output {
    Transmit(Transmit),
    Answer(AskId, Answer),
    Stream(StreamId, StreamOutput),
    News(News),
    /// Drained. `None`: nothing is planned.
    Wait(Option<Mono>, Why),
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
    /// A device opened it, from its own inner address, at the one published port. The number is the
    /// tunnel's.
    Accepted {
        peer: PeerId,
        from: SocketAddr,
    },
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
    /// An authentic packet of its own came after a silence in which at least one keepalive was missed.
    Heard(PeerId),
    /// The peer has other keys: what was told under those before is to be forgotten. All that
    /// follows is of the new ones.
    Rekeyed(PeerId),
    /// The newest stamp was forgotten on demand: one told before is not to be stored any more.
    ClockReset(PeerId),
    /// A newer stamp was answered; to be stored within a second.
    Stamp(PeerId, Tai64n),
    /// The peer's endpoint moved, by an authenticated packet; at most once a second.
    Endpoint(PeerId, SocketAddr),
    /// A known peer's handshake was not answered.
    Refused(PeerId, Refusal),
    /// The newest stamp under a key that is retired; to be stored, so that a replay stays one.
    RetiredStamp(PublicKey, Tai64n),
    /// A peer that was removed makes handshakes with its key; at most one an hour and key.
    RemovedPeer(PeerId, SocketAddr),
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
    /// The static key is one that the peer had before.
    ReplacedKey {
        replaced_at: Wall,
    },
}

/// When it was last seen that somebody with a peer's key makes handshakes that lead to nothing: their
/// stamps go on as time does, which those of a captured one that is sent again do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Refused for their stamps.
    pub refused: Option<Wall>,
    /// Answered, and no packet ever came.
    pub unproved: Option<UnprovedHandshakes>,
    /// The last that was answered since the last session: no packet came of it yet. One such answer may be lost.
    pub pending: Option<Wall>,
    /// Made with a key that was replaced, and not answered.
    pub replaced: Option<ReplacedKeyUse>,
}

/// A key that a peer had before is in use: packets of its last session, or handshakes whose stamps go on as
/// time does. Whoever makes them has the old configuration and is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplacedKeyUse {
    pub replaced_at: Wall,
    pub last: Wall,
    pub from: SocketAddr,
}

/// Handshakes of a peer that were answered, one after the other, and led to no session: whoever makes them
/// has the key and is alive, and the answers do not arrive or are refused (another preshared key).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnprovedHandshakes {
    /// Since the last session.
    pub count: u32,
    pub since: Wall,
    pub last: Wall,
    /// Where the last one came from.
    pub from: SocketAddr,
}

/// A peer as an operator wants to see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStatus {
    /// A session younger than 180 s exists.
    pub established: bool,
    pub endpoint: Option<SocketAddr>,
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    /// When something that was sent through the tunnel was answered last.
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

/// Why a datagram or packet went nowhere. Counted per peer where the peer is known, else globally.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// Not a WireGuard message by type and length.
    Malformed,
    BadMac1,
    RateLimited,
    UnknownKey,
    /// A key that a peer had before, or that of a removed peer.
    RetiredKey,
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
    pub const ALL: [DropReason; 19] = [
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
        DropReason::NotAllowed,
        DropReason::Unsolicited,
        DropReason::NoRoute,
        DropReason::TooBig,
        DropReason::Budget,
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
            DropReason::NotAllowed => "not_allowed",
            DropReason::Unsolicited => "unsolicited",
            DropReason::NoRoute => "no_route",
            DropReason::TooBig => "too_big",
            DropReason::Budget => "budget",
        }
    }
}

//! The messages between the shell and forwarding: who may reach what, and when.
//!
//! The shell sends each object whole after each change, as it does with peers. Values only.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::id::{CustomerId, GrantId, HostId, Id, PeerId, PersonId, RentalId, UserId};
use crate::messages::{DropReason, HandedOver};
use crate::time::{Mono, Wall};

/// The role of a user, as far as it reaches anything. Viewers reach nothing, so they have none here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantRole {
    Operator,
    Admin,
}

/// The source of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantSource {
    /// One peer of a person.
    Peer(PeerId),
    /// Every peer of a user.
    User(UserId),
    /// Every peer of the users with exactly this role.
    Role(GrantRole),
    /// Every renter of a customer: a peer of one of the customer's people.
    Customer(CustomerId),
}

/// The destination of a grant. A target that selects nothing permits nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantTarget {
    /// Every device, but no host behind a device.
    AllDevices,
    /// One device, or one host behind a device.
    Host(HostId),
    /// Every device and every host behind one that has all of these labels. An empty selection permits nothing.
    Labels(BTreeMap<String, String>),
    /// The device of a rental, at the alias of the rental.
    Rental(RentalId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GrantProtocol {
    /// Echo requests, IPv4 and IPv6.
    Icmp,
    Tcp,
    Udp,
}

/// A protocol and the ports of the target. ICMP has no ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantAccess {
    pub protocol: GrantProtocol,
    /// Sorted, without overlaps; empty for ICMP.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// A permission to reach a target in the window `[from, until)`. Only a grant for a customer opens a rental, and it
/// opens nothing else: operators reach no alias of a rental, and renters reach nothing but these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantSpec {
    pub id: GrantId,
    pub source: GrantSource,
    pub target: GrantTarget,
    /// Any of these; an empty list permits nothing.
    pub access: Vec<GrantAccess>,
    /// `None`: since ever.
    pub from: Option<Wall>,
    /// `None`: until it is withdrawn.
    pub until: Option<Wall>,
    /// Only these peers of the source. `None`: all.
    pub only: Option<BTreeSet<PeerId>>,
    pub gate: Gate,
}

/// The reason that keeps a grant shut within its window. Without anything it is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// It permits nothing before [`PolicyChange::HandOver`] of its device.
    pub awaits_handover: bool,
    /// When the store has that its device was handed over. It permits nothing before.
    pub handed_over_at: Option<Wall>,
    /// The device is blocked in these times `[from, until)`.
    pub blocks: Vec<(Wall, Wall)>,
}

/// Whose peer a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceOwner {
    User {
        user: UserId,
        /// `None`: a viewer, who reaches nothing by role.
        role: Option<GrantRole>,
    },
    Person {
        person: PersonId,
        customer: CustomerId,
    },
}

impl SourceOwner {
    /// Returns the id of the user or of the person. No user has the id of a person.
    pub const fn id(self) -> Id {
        match self {
            SourceOwner::User { user, .. } => user,
            SourceOwner::Person { person, .. } => person,
        }
    }
}

/// A peer that may use grants: an operator, whose user is enabled, or a renter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    pub peer: PeerId,
    pub owner: SourceOwner,
    pub addresses: BTreeSet<IpAddr>,
}

/// The key of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TargetId {
    /// A device or a host behind one, at its own address.
    Host(HostId),
    /// The device of a rental, at the alias of the rental.
    Rental(RentalId),
}

impl TargetId {
    pub const fn rental(self) -> Option<RentalId> {
        match self {
            TargetId::Host(_) => None,
            TargetId::Rental(rental) => Some(rental),
        }
    }
}

/// The targets that grants can select: a device, a host behind one, or a rental.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    pub id: TargetId,
    /// The device or host that packets reach.
    pub host: HostId,
    /// In lower case. No other host has the name of a host, but rentals of several customers may have one name.
    pub name: String,
    /// The peer that its packets go through: its own, or the device in front of it.
    pub peer: PeerId,
    /// It stands behind the device.
    pub behind: bool,
    pub labels: BTreeMap<String, String>,
    pub addresses: Vec<TargetAddress>,
}

/// An address of a target. Both are of the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetAddress {
    /// The address that a source sends to: the device's own pool address, or the alias of a host behind it or of a
    /// rental.
    pub reached_at: IpAddr,
    /// The address that the target itself has. It differs from `reached_at` for hosts behind a device and for rentals.
    pub real: IpAddr,
}

/// Changes of the policy. Each takes effect before the next packet.
#[derive(Clone, Debug, PartialEq)]
pub enum PolicyChange {
    Grant(GrantSpec),
    WithdrawGrant(GrantId),
    /// The grant of a rental passes from then on, while this is its device. Another device waits for a handover of its
    /// own.
    HandOver(HandedOver),
    Source(SourceSpec),
    RemoveSource(PeerId),
    Target(TargetSpec),
    RemoveTarget(TargetId),
    /// The greatest wall time of earlier runs. While the clock is behind it, no grant with a window passes.
    Floor(Wall),
    /// An admin confirmed that the clock is right although it is behind the floor.
    AcceptClock,
}

/// The traffic of a flow since the last record of it. A flow is recorded each hour, one of
/// a rental each minute, and each when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    pub source: PeerId,
    /// As it was when the flow was opened.
    pub owner: SourceOwner,
    pub host: HostId,
    /// The rental whose alias was used.
    pub rental: Option<RentalId>,
    pub protocol: GrantProtocol,
    /// The target's port; 0 for ICMP.
    pub port: u16,
    pub from: Wall,
    pub until: Wall,
    /// From the source to the target.
    pub sent: FlowTraffic,
    /// From the target to the source.
    pub received: FlowTraffic,
    /// The grant that permitted the last packet.
    pub grant: GrantId,
    /// `None`: the flow goes on.
    pub ended: Option<FlowEnd>,
}

/// Packets as they were forwarded, with their IP headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTraffic {
    pub packets: u64,
    pub bytes: u64,
}

impl FlowTraffic {
    pub(crate) fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    pub(crate) fn subtract(&mut self, bytes: usize) {
        self.packets = self.packets.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }
}

/// Why a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowEnd {
    /// Both ends of a TCP connection closed it.
    Closed,
    /// One end of a TCP connection reset it.
    Reset,
    /// No packet came for the time that its state allows.
    TimedOut,
    /// No grant covers it any more.
    NotGranted,
    /// It waited for its first reply, and a newer flow needed its place.
    Evicted,
    /// The gateway stopped.
    Stopped,
}

impl FlowEnd {
    pub const ALL: [FlowEnd; 6] = [
        FlowEnd::Closed,
        FlowEnd::Reset,
        FlowEnd::TimedOut,
        FlowEnd::NotGranted,
        FlowEnd::Evicted,
        FlowEnd::Stopped,
    ];

    /// The name used in the API.
    pub const fn name(self) -> &'static str {
        match self {
            FlowEnd::Closed => "closed",
            FlowEnd::Reset => "reset",
            FlowEnd::TimedOut => "timed_out",
            FlowEnd::NotGranted => "not_granted",
            FlowEnd::Evicted => "evicted",
            FlowEnd::Stopped => "stopped",
        }
    }
}

/// Whom a question about the policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainSource {
    Peer(PeerId),
    /// Any peer of a user: the first that is permitted decides.
    User(UserId),
    /// Any renter of a person, likewise.
    Person(PersonId),
    /// A caller of the API, who needs no peer: by the grants of the user and of the role. `user` is
    /// `None` for a program.
    Login {
        user: Option<UserId>,
        role: Option<GrantRole>,
    },
}

/// The subject of a question about the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExplainTarget {
    /// An address that a source sends to.
    Address(IpAddr),
    Host(HostId),
    Rental(RentalId),
}

/// A question about the policy: may this source reach this target at this time?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExplainRequest {
    pub from: ExplainSource,
    pub to: ExplainTarget,
    pub protocol: GrantProtocol,
    /// Not used for ICMP.
    pub port: u16,
    pub at: Wall,
}

/// The window of a grant as the filter applies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantWindow {
    pub grant: GrantId,
    pub from: Option<Wall>,
    pub until: Option<Wall>,
    /// The end on the boot-time clock, computed when the grant was loaded.
    pub ends_at: Option<Mono>,
}

/// The decision of the filter about a packet, with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// This grant lets it pass.
    Permitted(GrantWindow),
    /// The peer belongs to no enabled user and to no person, or the user or person has no peer.
    UnknownSource,
    /// No device, no host behind one and no rental has this address or id.
    UnknownTarget,
    /// The source and the target have no addresses of one family.
    NoCommonFamily,
    /// No grant covers this source, target, protocol and port at any time.
    NoGrant,
    /// The grant begins later.
    NotYet(GrantWindow),
    /// The grant has ended.
    Over(GrantWindow),
    /// The device of the rental is not handed over yet.
    Delayed(GrantWindow),
    /// The device of the rental is blocked.
    Blocked(GrantWindow),
    /// The gateway's clock is behind a time that it has shown before.
    ClockBehind(GrantWindow),
    /// The gateway's clock was set, and for some minutes no window opens.
    ClockStep(GrantWindow),
}

/// The packet that a probe of forwarding sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardProbeKind {
    /// An echo request.
    Echo,
    /// The first segment of a TCP connection. One that the target accepts is reset at once.
    Connect { port: u16 },
}

/// A question about the policy that a real packet answers as well. It is sent with an address of the
/// source through the filter to the target, and whatever answers comes back to the gateway alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardProbe {
    pub from: ExplainSource,
    pub to: ExplainTarget,
    pub kind: ForwardProbeKind,
    pub timeout: Duration,
}

/// The result of a probe of forwarding. Each gets exactly one reply, at the latest when its time is
/// over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardProbeReply {
    /// The answer of the policy.
    pub explanation: Explanation,
    /// Source and destination of the packet, as the source sends it; `None`: no packet was made.
    pub packet: Option<(IpAddr, IpAddr)>,
    pub outcome: ForwardProbeOutcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardProbeOutcome {
    /// The policy denies it. Nothing was sent.
    Denied,
    /// Too many probes are in flight, or the gateway stops. Nothing was sent.
    Busy,
    /// The policy permits it, but the filter dropped the packet.
    Dropped(DropReason),
    /// The target answered the echo request, or accepts the connection.
    Answered(Duration),
    /// The target refuses the connection.
    Refused(Duration),
    /// A router or the target says that the packet cannot be delivered.
    Unreachable(Duration, &'static str),
    /// The device had no session in the whole time.
    NoTunnel,
    NoAnswer,
}

//! Flows: what was permitted and goes on, and the bounds of their table.

mod table;

use std::time::Duration;

use super::headers::Bits;
use super::lists::{List, Slot, Spare};
use super::policy::{Granted, Permit};
use super::tcp_state::{Direction, HALF_OPEN, State, Tcp};
use crate::id::{HostId, PeerId};
use crate::messages::{FlowEnd, FlowTraffic, GrantProtocol, SourceOwner, TargetId};
use crate::time::Mono;
pub use table::Flows;

/// The idle time of a UDP flow without and with a reply, from the last packet of the source on.
pub const UDP_UNREPLIED: Duration = Duration::from_secs(30);
pub const UDP_REPLIED: Duration = Duration::from_secs(180);
/// The idle time of a series of echo requests.
pub const ECHO: Duration = Duration::from_secs(30);

/// A flow that goes on is recorded as often.
const RECORD: Duration = Duration::from_secs(3_600);
/// One of a rental is recorded as often, so that what a rental has forwarded is known within about a minute.
const RECORD_OF_RENTAL: Duration = Duration::from_secs(60);

/// The bounds of the table. A flow takes about 450 bytes with its places in the lists and in the
/// index: 262,144 take 113 MiB, and the 4,096 of one source 1.8 MiB. A device takes the flows of
/// several sources, so that one alone does not fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub flows: usize,
    /// Flows that a source opened.
    pub per_source: usize,
    /// Flows to a device and the hosts behind it.
    pub per_device: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { flows: 262_144, per_source: 4_096, per_device: 16_384 }
    }
}

/// A flow, and no later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId {
    pub(super) slot: Slot,
    serial: u64,
}

/// The part of a packet that shows its flow, as its sender sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub peer: PeerId,
    pub v6: bool,
    pub protocol: GrantProtocol,
    pub src: Bits,
    pub dst: Bits,
    /// Both are the identifier of an echo.
    pub src_port: u16,
    pub dst_port: u16,
}

/// The key of a flow in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    pub source: PeerId,
    pub device: PeerId,
    pub v6: bool,
    pub protocol: GrantProtocol,
    /// The address of the source.
    pub src: Bits,
    /// The address that the source sends to.
    pub reached_at: Bits,
    /// The address that the target has.
    pub real: Bits,
    pub src_port: u16,
    pub dst_port: u16,
}

impl Path {
    pub fn key(&self, direction: Direction) -> Key {
        let Path { v6, protocol, src, src_port, dst_port, .. } = *self;
        match direction {
            Direction::Out => {
                Key { peer: self.source, v6, protocol, src, dst: self.reached_at, src_port, dst_port }
            }
            Direction::Back => Key {
                peer: self.device,
                v6,
                protocol,
                src: self.real,
                dst: src,
                src_port: dst_port,
                dst_port: src_port,
            },
        }
    }

    /// Returns the peer that packets of this direction go to.
    pub fn receiver(&self, direction: Direction) -> PeerId {
        match direction {
            Direction::Out => self.device,
            Direction::Back => self.source,
        }
    }
}

/// The memory of the transport of a flow.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    Tcp(Tcp),
    Udp { replied: bool },
    Echo { replied: bool },
}

impl Progress {
    pub fn timeout(&self) -> Duration {
        match self {
            Progress::Tcp(tcp) => tcp.timeout(),
            Progress::Udp { replied: false } => UDP_UNREPLIED,
            Progress::Udp { replied: true } => UDP_REPLIED,
            Progress::Echo { .. } => ECHO,
        }
    }

    /// Returns whether a packet prolongs the flow. Without a connection only the source does: a device
    /// that goes on to send may speak to nobody.
    fn prolongs(&self, direction: Direction) -> bool {
        direction == Direction::Out || matches!(self, Progress::Tcp(_))
    }

    /// Returns why the flow may leave for a new one. `None`: it may not.
    fn spare(&self) -> Option<Spare> {
        let half_open = match self {
            Progress::Tcp(tcp) if tcp.state == State::Closed => return Some(Spare::Closed),
            Progress::Tcp(tcp) => tcp.is_half_open(),
            Progress::Udp { replied } | Progress::Echo { replied } => !replied,
        };
        half_open.then_some(Spare::HalfOpen)
    }
}

pub struct Flow {
    pub path: Path,
    /// The owner of the source when the flow was opened.
    pub owner: SourceOwner,
    pub target: TargetId,
    pub host: HostId,
    pub permit: Permit,
    pub progress: Progress,
    /// The last packet that prolonged the flow.
    prolonged: Mono,
    pub expires: Mono,
    /// The last record, or the beginning.
    pub recorded: Mono,
    /// Since the last record.
    pub sent: FlowTraffic,
    pub received: FlowTraffic,
    /// A number that no later flow in the same place has.
    pub serial: u64,
    /// Resets that were already sent, once no grant covers the flow any more.
    pub resets_sent: u8,
    is_cut: bool,
    /// The gateway opened it in the name of the source. Nothing of it reaches the source, and it is
    /// not recorded as traffic of the source.
    is_probe: bool,
    /// Why it may leave, as the lists have it.
    spare: Option<Spare>,
    timer: u8,
}

impl Flow {
    pub fn new(path: Path, granted: &Granted, progress: Progress, now: Mono) -> Flow {
        Flow {
            path,
            owner: granted.owner,
            target: granted.route.target,
            host: granted.route.host,
            permit: granted.permit,
            progress,
            prolonged: now,
            expires: now + HALF_OPEN,
            recorded: now,
            sent: FlowTraffic::default(),
            received: FlowTraffic::default(),
            serial: 0,
            resets_sent: 0,
            is_cut: false,
            is_probe: false,
            spare: Some(Spare::HalfOpen),
            timer: 0,
        }
    }

    /// Whether no grant covers the flow any more. Nothing passes then.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Makes the flow one of the gateway's own.
    pub fn become_probe(&mut self) {
        self.is_probe = true;
        (self.sent, self.received) = Default::default();
    }

    pub fn id(&self, slot: Slot) -> FlowId {
        FlowId { slot, serial: self.serial }
    }

    /// Returns the peer that packets of this direction go to.
    ///
    /// # Errors
    /// Fails with the flow if they are for the gateway: the answers to a probe of its own.
    pub fn receiver(&self, slot: Slot, direction: Direction) -> Result<PeerId, FlowId> {
        if self.is_probe && direction == Direction::Back {
            return Err(self.id(slot));
        }
        Ok(self.path.receiver(direction))
    }

    /// Whether both ends closed the connection. Only repeated segments may come then.
    pub fn is_closed(&self) -> bool {
        self.progress.spare() == Some(Spare::Closed)
    }

    /// Returns why it is over already, although it still has its place.
    pub fn over(&self) -> Option<FlowEnd> {
        match (self.is_cut, self.is_closed()) {
            (true, _) => Some(FlowEnd::NotGranted),
            (false, true) => Some(FlowEnd::Closed),
            (false, false) => None,
        }
    }

    /// How often the flow is recorded while it goes on.
    pub fn record_every(&self) -> Duration {
        match self.target {
            TargetId::Host(_) => RECORD,
            TargetId::Rental(_) => RECORD_OF_RENTAL,
        }
    }

    /// When the timer looks at the flow. It looks at each flow within its horizon, which is often enough for a
    /// record each hour.
    fn looked_at(&self, now: Mono) -> Mono {
        if self.target.rental().is_none() {
            return self.expires;
        }
        let record = self.recorded + RECORD_OF_RENTAL;
        // One that is due comes in this turn.
        let record = if record > now { record } else { now + RECORD_OF_RENTAL };
        self.expires.min(record)
    }

    /// The list of its next event.
    fn due_list(&self) -> List {
        if self.is_cut { List::Cut } else { List::Timer(self.timer) }
    }

    pub fn count(&mut self, direction: Direction, bytes: usize) {
        if !self.is_probe {
            self.traffic(direction).add(bytes);
        }
    }

    /// Takes back the count of a packet that was not sent after all.
    pub fn uncount(&mut self, direction: Direction, bytes: usize) {
        self.traffic(direction).subtract(bytes);
    }

    fn traffic(&mut self, direction: Direction) -> &mut FlowTraffic {
        match direction {
            Direction::Out => &mut self.sent,
            Direction::Back => &mut self.received,
        }
    }

    pub fn has_news(&self) -> bool {
        self.sent.packets + self.received.packets > 0
    }
}

//! Whether one packet passes: in a live flow, as an error about one, as a later fragment, or as the
//! first of a new flow. A packet that passes is rewritten here.

use super::Forwarder;
use super::flows::{Flow, FlowId, Key, Path, Progress};
use super::fragments::{Followed, PacketId};
use super::headers::{Fragment, Ip, RST, SYN, Transport};
use super::icmp_errors::Quote;
use super::lists::Slot;
use super::policy::{Denial, Granted, Request, Route};
use super::rewrite::{Side, clamp_mss, decrement_ttl, translate};
use super::tcp_state::{Direction, SegmentEffect, Tcp};
use super::window::Shut;
use crate::id::PeerId;
use crate::messages::{DropReason, FlowEnd, GrantProtocol};
use crate::time::Now;

/// Bytes of a TCP header before its options.
const TCP_OPTIONS: usize = 20;

/// Why a packet does not pass, and what its sender hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Silent(DropReason),
    /// A source gets a reset or an ICMP error.
    Denied(DropReason),
    TimeExceeded,
    TooBig(u16),
    /// It passes, but it is for the gateway: an answer to a probe of its own.
    Diverted(FlowId),
}

impl From<DropReason> for Refusal {
    fn from(reason: DropReason) -> Self {
        Refusal::Silent(reason)
    }
}

impl From<FlowId> for Refusal {
    fn from(flow: FlowId) -> Self {
        Refusal::Diverted(flow)
    }
}

/// The reason that a denial is counted under.
fn reason(denial: Denial) -> DropReason {
    match denial {
        Denial::NoTarget => DropReason::NoRoute,
        Denial::Shut(_, Shut::Doubted) => DropReason::ClockStep,
        Denial::Shut(_, Shut::Behind) => DropReason::ClockBehind,
        Denial::NoSource | Denial::NoGrant | Denial::Shut(..) => DropReason::NotGranted,
    }
}

/// Returns the key of a packet. `None`: packets of this kind belong to no flow.
pub(super) fn key(sender: PeerId, ip: &Ip, transport: &Transport) -> Option<Key> {
    let (protocol, src_port, dst_port) = match *transport {
        Transport::Tcp(segment) => (GrantProtocol::Tcp, segment.src_port, segment.dst_port),
        Transport::Udp { src_port, dst_port } => (GrantProtocol::Udp, src_port, dst_port),
        Transport::EchoRequest { ident } | Transport::EchoReply { ident } => {
            (GrantProtocol::Icmp, ident, ident)
        }
        Transport::IcmpError | Transport::OtherIcmp | Transport::Other => return None,
    };
    Some(Key { peer: sender, v6: ip.v6, protocol, src: ip.src, dst: ip.dst, src_port, dst_port })
}

/// The options of a TCP segment; empty for everything else.
fn options<'a>(ip: &Ip, transport: &Transport, packet: &'a [u8]) -> &'a [u8] {
    let Transport::Tcp(segment) = transport else { return &[] };
    packet.get(ip.payload + TCP_OPTIONS..ip.payload + segment.header).unwrap_or_default()
}

/// A packet with its headers.
pub(super) struct Packet<'a> {
    pub ip: Ip,
    pub transport: Transport,
    pub bytes: &'a mut [u8],
}

impl Forwarder {
    /// Returns the peer that the packet goes to. It is rewritten for that peer.
    pub(super) fn admit(&mut self, sender: PeerId, bytes: &mut [u8], now: Now) -> Result<PeerId, Refusal> {
        let ip = Ip::parse(bytes)?;
        if let Fragment::Later { id, offset } = ip.fragment {
            return self.later_fragment(sender, &ip, (id, offset), bytes);
        }
        let transport = Transport::parse(&ip, bytes)?;
        let Some(key) = key(sender, &ip, &transport) else {
            return self.without_flow(sender, &ip, &transport, bytes);
        };
        let packet = Packet { ip, transport, bytes };
        match self.live(&key, now) {
            Some((slot, direction)) if !self.is_reopened(slot, direction, &key, &transport) => {
                self.in_flow(slot, direction, packet)
            }
            _ => self.open(&key, packet),
        }
    }

    fn without_flow(
        &mut self,
        sender: PeerId,
        ip: &Ip,
        transport: &Transport,
        bytes: &mut [u8],
    ) -> Result<PeerId, Refusal> {
        match transport {
            Transport::IcmpError => self.related(sender, ip, bytes),
            Transport::OtherIcmp => Err(DropReason::IcmpType.into()),
            _ if self.policy.is_source(sender) => Err(Refusal::Denied(DropReason::NotGranted)),
            _ => Err(DropReason::NoFlow.into()),
        }
    }

    /// Finds a flow. One that has expired ends here.
    pub(super) fn live(&mut self, key: &Key, now: Now) -> Option<(Slot, Direction)> {
        let (slot, direction) = self.flows.find(key)?;
        let flow = self.flows.get(slot)?;
        if now.mono < flow.expires || flow.is_cut() {
            return Some((slot, direction));
        }
        self.end_unless_over(slot, FlowEnd::TimedOut);
        None
    }

    /// Returns whether a packet opens the addresses and ports of a flow again that is over. That one ends then.
    fn is_reopened(&mut self, slot: Slot, direction: Direction, key: &Key, transport: &Transport) -> bool {
        if direction == Direction::Back || !opens(transport) {
            return false;
        }
        let is_closed = |flow: &Flow| flow.is_closed() && !flow.is_cut();
        if self.flows.get(slot).is_some_and(is_closed) {
            self.end(slot, FlowEnd::Closed);
            return true;
        }
        // Nothing covers it any more, but the same addresses lead elsewhere: a rented device was swapped.
        let is_cut = self.permitted(slot) == Err(DropReason::NotGranted);
        is_cut && self.policy.decide(&request(key), self.now).is_ok() && self.displace(slot, Some(key.peer))
    }

    fn in_flow(&mut self, slot: Slot, direction: Direction, packet: Packet<'_>) -> Result<PeerId, Refusal> {
        let Packet { ip, transport, bytes } = packet;
        self.permitted(slot).map_err(|reason| match (direction, reason) {
            (Direction::Out, DropReason::NotGranted) => Refusal::Denied(reason),
            // A flow that only the clock keeps from passing waits: a reset would end it for good.
            _ => Refusal::Silent(reason),
        })?;
        let Some(flow) = self.flows.get(slot) else { return Err(DropReason::NoFlow.into()) };
        let (path, receiver) = (flow.path, flow.receiver(slot, direction));
        self.can_go_on(path.receiver(direction), &ip, bytes.len())?;
        let step = self.follow(slot, direction, &transport, options(&ip, &transport, bytes))?;
        self.note_first_fragment(slot, direction, &ip, &transport)?;
        self.rewrite(&path, direction, &ip, &transport, bytes);
        self.count(slot, direction, bytes.len());
        match step {
            SegmentEffect::Passes => self.flows.touch(slot, direction, self.now.mono),
            SegmentEffect::Resets => self.end(slot, FlowEnd::Reset),
        }
        Ok(receiver?)
    }

    /// Returns whether the policy permits a packet of the flow now.
    pub(super) fn permitted(&mut self, slot: Slot) -> Result<(), DropReason> {
        let Some(flow) = self.flows.get(slot) else { return Err(DropReason::NoFlow) };
        if flow.is_cut() {
            return Err(DropReason::NotGranted);
        }
        if self.policy.holds(&flow.permit, self.now) {
            return Ok(());
        }
        self.decide_again(slot)
    }

    /// Asks the policy about a flow. It cuts a flow that no grant covers; a flow that only the clock
    /// keeps from passing waits.
    pub(super) fn decide_again(&mut self, slot: Slot) -> Result<(), DropReason> {
        let Some(flow) = self.flows.get(slot) else { return Err(DropReason::NoFlow) };
        let (path, owner) = (flow.path, flow.owner);
        let route = Route { target: flow.target, host: flow.host, device: path.device, real: path.real };
        let decision = match self.policy.route(path.v6, path.reached_at) {
            Some(now) if now == route => self.policy.decide(&request(&path.key(Direction::Out)), self.now),
            // The target is elsewhere now.
            _ => Err(Denial::NoTarget),
        };
        match decision {
            Ok(granted) if granted.owner.id() == owner.id() => {
                self.flows.permit(slot, granted.permit);
                Ok(())
            }
            Err(denial @ Denial::Shut(_, Shut::Doubted | Shut::Behind)) => Err(reason(denial)),
            _ => {
                self.flows.cut(slot);
                Err(DropReason::NotGranted)
            }
        }
    }

    /// Judges hop limit and size. Errors are made about the packet as its sender sent it. The gateway
    /// fragments nothing: a sender that lets routers fragment its packets learns the size too.
    fn can_go_on(&self, to: PeerId, ip: &Ip, length: usize) -> Result<(), Refusal> {
        if ip.ttl <= 1 {
            return Err(Refusal::TimeExceeded);
        }
        let mtu = self.peers.mtu(to);
        if length > usize::from(mtu) { Err(Refusal::TooBig(mtu)) } else { Ok(()) }
    }

    fn follow(
        &mut self,
        slot: Slot,
        direction: Direction,
        transport: &Transport,
        options: &[u8],
    ) -> Result<SegmentEffect, DropReason> {
        let flow = self.flows.get_mut(slot).ok_or(DropReason::NoFlow)?;
        match (&mut flow.progress, transport, direction) {
            (Progress::Tcp(tcp), Transport::Tcp(segment), _) => tcp.step(direction, segment, options),
            (Progress::Udp { .. }, Transport::Udp { .. }, Direction::Out)
            | (Progress::Echo { .. }, Transport::EchoRequest { .. }, Direction::Out) => {
                Ok(SegmentEffect::Passes)
            }
            (Progress::Udp { replied }, Transport::Udp { .. }, Direction::Back)
            | (Progress::Echo { replied }, Transport::EchoReply { .. }, Direction::Back) => {
                *replied = true;
                Ok(SegmentEffect::Passes)
            }
            _ => Err(DropReason::NoFlow),
        }
    }

    fn note_first_fragment(
        &mut self,
        slot: Slot,
        direction: Direction,
        ip: &Ip,
        transport: &Transport,
    ) -> Result<(), DropReason> {
        let Fragment::First { id } = ip.fragment else { return Ok(()) };
        let Some(flow) = self.flows.get(slot) else { return Err(DropReason::NoFlow) };
        let sender = flow.path.key(direction).peer;
        let followed = Followed { slot, serial: flow.serial, direction, header: transport.header() };
        self.fragments.note(sender, packet_id(ip, id), followed, self.now.mono);
        Ok(())
    }

    fn later_fragment(
        &mut self,
        sender: PeerId,
        ip: &Ip,
        (id, offset): (u32, usize),
        bytes: &mut [u8],
    ) -> Result<PeerId, Refusal> {
        let now = self.now;
        let followed = self.fragments.follow(sender, &packet_id(ip, id), offset, now.mono)?;
        let flow = self.flows.get(followed.slot).filter(|flow| flow.serial == followed.serial);
        let flow = flow.filter(|flow| now.mono < flow.expires).ok_or(DropReason::Fragment)?;
        let (path, receiver) = (flow.path, flow.receiver(followed.slot, followed.direction));
        self.permitted(followed.slot)?;
        self.can_go_on(path.receiver(followed.direction), ip, bytes.len())?;
        self.rewrite(&path, followed.direction, ip, &Transport::Other, bytes);
        self.count(followed.slot, followed.direction, bytes.len());
        Ok(receiver?)
    }

    /// Passes an ICMP error about a live flow. It does not prolong the flow.
    fn related(&mut self, sender: PeerId, ip: &Ip, bytes: &mut [u8]) -> Result<PeerId, Refusal> {
        let quote = Quote::parse(sender, ip, bytes).ok_or(DropReason::NoFlow)?;
        let (slot, direction) = self.live(&quote.answer, self.now).ok_or(DropReason::NoFlow)?;
        // The error goes to the sender of the packet that it quotes.
        if quote.src != ip.dst || !quote.went_against(direction) {
            return Err(DropReason::NoFlow.into());
        }
        self.permitted(slot)?;
        let flow = self.flows.get(slot).ok_or(DropReason::NoFlow)?;
        let (path, receiver) = (flow.path, flow.receiver(slot, direction));
        let to = path.receiver(direction);
        // A device forwards errors of routers behind it. A source speaks for its own address only.
        if direction == Direction::Out && ip.src != path.src {
            return Err(DropReason::NoFlow.into());
        }
        self.can_go_on(to, ip, bytes.len()).map_err(|refusal| match refusal {
            Refusal::TooBig(_) => DropReason::TooBig,
            _ => DropReason::Ttl,
        })?;
        quote.translate(bytes, ip, &path, direction);
        decrement_ttl(bytes, ip.v6);
        self.count(slot, direction, bytes.len());
        Ok(receiver?)
    }

    /// Opens a flow, if the sender is a source and the policy permits it.
    pub(super) fn open(&mut self, key: &Key, packet: Packet<'_>) -> Result<PeerId, Refusal> {
        let Packet { ip, transport, bytes } = packet;
        if !self.policy.is_source(key.peer) {
            return Err(DropReason::NoFlow.into());
        }
        let granted =
            self.policy.decide(&request(key), self.now).map_err(|denial| Refusal::Denied(reason(denial)))?;
        let progress = begin(&transport, options(&ip, &transport, bytes))?;
        self.can_go_on(granted.route.device, &ip, bytes.len())?;
        let path = path(key, &granted);
        self.clear_the_way(&path)?;
        while let Some(spare) = self.flows.make_room(&path).map_err(Refusal::Denied)? {
            self.end_unless_over(spare, FlowEnd::Evicted);
        }
        let flow = Flow::new(path, &granted, progress, self.now.mono);
        let slot = self.flows.insert(flow)?;
        self.note_first_fragment(slot, Direction::Out, &ip, &transport)?;
        self.rewrite(&path, Direction::Out, &ip, &transport, bytes);
        self.count(slot, Direction::Out, bytes.len());
        Ok(path.device)
    }

    /// Ends a flow that has the same packets of the device, unless these pass: it has expired, or is not permitted any
    /// more, as after the end of an earlier rental of the same device.
    ///
    /// # Errors
    /// Fails when the flow goes on.
    fn clear_the_way(&mut self, path: &Path) -> Result<(), DropReason> {
        let Some((slot, _)) = self.live(&path.key(Direction::Back), self.now) else { return Ok(()) };
        let is_over = self.permitted(slot).is_err();
        if is_over && self.displace(slot, None) { Ok(()) } else { Err(DropReason::FlowConflict) }
    }

    fn rewrite(&self, path: &Path, direction: Direction, ip: &Ip, transport: &Transport, bytes: &mut [u8]) {
        match direction {
            Direction::Out => translate(bytes, ip, Side::Dst, path.real),
            Direction::Back => translate(bytes, ip, Side::Src, path.reached_at),
        }
        decrement_ttl(bytes, ip.v6);
        // The MTUs are looked up for a segment that announces a size only.
        if let Transport::Tcp(segment) = transport
            && segment.has(SYN)
        {
            let mtu = self.peers.mtu(path.source).min(self.peers.mtu(path.device));
            clamp_mss(bytes, ip, segment, mtu);
        }
    }

    fn count(&mut self, slot: Slot, direction: Direction, bytes: usize) {
        if let Some(flow) = self.flows.get_mut(slot) {
            flow.count(direction, bytes);
            self.counted = Some((flow.id(slot), direction));
        }
    }

    /// Ends a flow that makes room or has expired. One that was over before keeps its own reason: it was
    /// cut, or both ends closed it and it was kept for repeated segments only.
    pub(super) fn end_unless_over(&mut self, slot: Slot, why: FlowEnd) {
        let why = self.flows.get(slot).and_then(Flow::over).unwrap_or(why);
        self.end(slot, why);
    }

    /// Ends a flow and records what it carried.
    pub(super) fn end(&mut self, slot: Slot, why: FlowEnd) {
        if let Some(flow) = self.flows.remove(slot).filter(|flow| !flow.is_probe()) {
            self.records.ended(&flow, why, self.now);
        }
    }
}

fn request(key: &Key) -> Request {
    let Key { peer, v6, protocol, src, dst, dst_port, .. } = *key;
    Request { source: peer, v6, src, dst, protocol, port: dst_port }
}

fn path(key: &Key, granted: &Granted) -> Path {
    Path {
        source: key.peer,
        device: granted.route.device,
        v6: key.v6,
        protocol: key.protocol,
        src: key.src,
        reached_at: key.dst,
        real: granted.route.real,
        src_port: key.src_port,
        dst_port: key.dst_port,
    }
}

/// Returns whether a packet may be the first one of a flow.
fn opens(transport: &Transport) -> bool {
    match transport {
        Transport::Tcp(segment) => segment.is_pure_syn(),
        Transport::Udp { .. } | Transport::EchoRequest { .. } => true,
        _ => false,
    }
}

/// Returns how a flow begins.
///
/// # Errors
/// Fails for packets that belong into a flow: only a SYN opens a connection. A client that goes on
/// with a connection of an earlier run of the gateway gets a reset.
fn begin(transport: &Transport, options: &[u8]) -> Result<Progress, Refusal> {
    match transport {
        Transport::Tcp(segment) if segment.is_pure_syn() => Ok(Progress::Tcp(Tcp::open(segment, options))),
        Transport::Tcp(segment) if !segment.has(RST) => Err(Refusal::Denied(DropReason::NoFlow)),
        Transport::Udp { .. } => Ok(Progress::Udp { replied: false }),
        Transport::EchoRequest { .. } => Ok(Progress::Echo { replied: false }),
        _ => Err(DropReason::NoFlow.into()),
    }
}

fn packet_id(ip: &Ip, id: u32) -> PacketId {
    PacketId { v6: ip.v6, src: ip.src, dst: ip.dst, protocol: ip.protocol, id }
}

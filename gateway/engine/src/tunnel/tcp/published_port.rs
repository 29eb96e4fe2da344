//! The published ports of the gateway's inner addresses: peers may open connections to them.
//!
//! The tunnel that a SYN came through identifies the peer. A SYN is accepted only from the peer's
//! own addresses, within the limits of its stack and of all peers together. Devices reach the port
//! for results, people reach DNS, and renters reach a page. The shell handles the content of the stream.

use std::cmp::Reverse;
use std::net::SocketAddr;

use fleetgate_probes::packet::Parsed;

use crate::dns;
use crate::id::CustomerId;
use crate::messages::{DropReason, Output, PeerKind, Published, StreamId, StreamOutput};
use crate::tunnel::Tunnel;
use crate::tunnel::peers::Slot;
use crate::tunnel::session::Noise;
use crate::tunnel::tcp::conn::opens;
use crate::tunnel::tcp::stack::Stack;

/// Connections of all devices to the port for results. Each takes 8 KB here and three times that in
/// the shell, where large bodies share a budget of their own. A connection is short; a device that
/// finds no room repeats its SYN a second later. The limit is separate from the one for the
/// gateway's own probes, so accepted connections cannot displace them.
const MAX_RESULTS: usize = 512;

/// Connections of all people to DNS. Only answers that are too large for a datagram need one. The
/// limit is separate from the one of devices, so that people cannot displace results.
const MAX_DNS: usize = 64;

/// Where renters reach their page: a browser asks there when a person enters the address alone.
const PAGE_PORT: u16 = 80;

/// Connections of all renters to their page. A browser opens a few and each is short. The limit is separate from the
/// others, so that renters displace neither results nor DNS. If all are taken, the customer with the most loses its
/// oldest one.
const MAX_PAGE: usize = 64;

/// The part of them that one renter has at a time. The page is one document and one style sheet.
const PAGE_BY_PEER: usize = 4;

/// Marks the ids of these streams, so that they never collide with those that the shell assigns.
const ACCEPTED: u64 = 1 << 63;

/// The connections of a stack, or of all stacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    pub all: usize,
    results: usize,
    dns: usize,
    page: usize,
}

impl Census {
    pub fn of(stack: &Stack) -> Self {
        Census {
            all: stack.connections(),
            results: stack.accepted_by(Published::Results),
            dns: stack.accepted_by(Published::Dns),
            page: stack.accepted_by(Published::Page),
        }
    }

    /// The connections that peers opened.
    pub fn accepted(&self) -> usize {
        self.results + self.dns + self.page
    }

    fn of_service(&mut self, service: Published) -> &mut usize {
        match service {
            Published::Results => &mut self.results,
            Published::Dns => &mut self.dns,
            Published::Page => &mut self.page,
        }
    }

    fn has_room(&self, service: Published) -> bool {
        match service {
            Published::Results => self.results < MAX_RESULTS,
            Published::Dns => self.dns < MAX_DNS,
            Published::Page => self.page < MAX_PAGE,
        }
    }

    fn replace(&mut self, before: Census, after: Census) {
        self.all = self.all - before.all + after.all;
        self.results = self.results - before.results + after.results;
        self.dns = self.dns - before.dns + after.dns;
        self.page = self.page - before.page + after.page;
    }
}

impl<N: Noise> Tunnel<N> {
    /// Takes a segment that belongs to no existing connection.
    pub(in crate::tunnel) fn knock(
        &mut self,
        slot: Slot,
        packet: &Parsed<'_>,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let service = self.published(slot, packet).ok_or(DropReason::Unsolicited)?;
        let stack = self.peers.get(slot).and_then(|peer| peer.stack());
        // Whom the own limits keep out displaces no other.
        if stack.is_some_and(|stack| !has_share(stack, service)) {
            return Err(DropReason::Budget);
        }
        if service == Published::Page && !self.connections.has_room(service) {
            self.close_oldest_page(slot);
        }
        if !self.connections.has_room(service) {
            return Err(DropReason::Budget);
        }
        let id = StreamId(ACCEPTED | self.arrivals);
        let (config, now) = (self.config, self.now.mono);
        let peer = self.peers.get_mut(slot).ok_or(DropReason::Unsolicited)?;
        let new = || Box::new(Stack::new(config, &mut self.random, now));
        let stack = peer.live().stack.get_or_insert_with(new);
        if !stack.accept(id, service, packet, now) {
            return Err(DropReason::Budget);
        }
        let pushed = stack.push(packet, bytes);
        self.arrivals += 1;
        self.connections.all += 1;
        *self.connections.of_service(service) += 1;
        if service == Published::Page {
            self.page_readers.insert(slot);
        }
        self.streams.insert(id, slot);
        self.wake(slot);
        if pushed { Ok(()) } else { Err(DropReason::Budget) }
    }

    /// Returns which published port a packet opens a connection to. Packets from a network behind a
    /// device do not count as the device's.
    fn published(&self, slot: Slot, packet: &Parsed<'_>) -> Option<Published> {
        let (_, port) = opens(packet).filter(|_| !self.quiet)?;
        let peer = self.peers.get(slot).filter(|peer| peer.addresses.contains(&packet.src))?;
        let results = self.config.results_port.is_some_and(|own| own.get() == port);
        match peer.kind {
            PeerKind::Device => results.then_some(Published::Results),
            PeerKind::Operator | PeerKind::Renter if !self.forwarder.is_source(peer.id) => None,
            PeerKind::Renter if port == PAGE_PORT => Some(Published::Page),
            PeerKind::Operator | PeerKind::Renter => {
                (self.dns.is_some() && port == dns::PORT).then_some(Published::Dns)
            }
        }
    }

    pub(in crate::tunnel) fn accepted(&mut self, id: StreamId, from: SocketAddr, service: Published) {
        let peer = self.streams.get(&id).and_then(|slot| self.peers.get(*slot));
        if let Some(peer) = peer {
            let word = StreamOutput::Accepted { peer: peer.id, from, service };
            self.out.push_back(Output::Stream(id, word));
        }
    }

    pub(in crate::tunnel) fn recount(&mut self, slot: Slot, before: Census, after: Census) {
        self.connections.replace(before, after);
        if after.page == 0 {
            self.page_readers.remove(&slot);
        }
    }

    /// Closes the oldest connection to the page of the customer that has the most, with the one that comes.
    fn close_oldest_page(&mut self, newcomer: Slot) {
        let customer = self.peers.get(newcomer).and_then(|peer| self.forwarder.customer(peer.id));
        let Some((id, slot)) = displaced(&self.page_connections(), customer) else { return };
        let mut reports = Vec::new();
        if let Some(stack) = self.peers.get_mut(slot).and_then(|peer| peer.stack_mut()) {
            stack.reset(id, &mut reports);
        }
        reports.into_iter().for_each(|report| self.report(report));
        // Sends the reset and frees the place at once.
        self.poll_stack(slot);
    }

    fn page_connections(&self) -> Vec<PageConnection> {
        let mut found = Vec::new();
        for slot in &self.page_readers {
            let Some(peer) = self.peers.get(*slot) else { continue };
            let customer = self.forwarder.customer(peer.id);
            let ids = peer.stack().into_iter().flat_map(|stack| stack.streams_to(Published::Page));
            found.extend(ids.map(|id| PageConnection { customer, id, slot: *slot }));
        }
        found
    }
}

/// A connection of a renter to the page. Ids rise with time.
struct PageConnection {
    /// `None`: the policy does not know the renter any more.
    customer: Option<CustomerId>,
    id: StreamId,
    slot: Slot,
}

/// Returns the oldest connection of the customer that has the most. The one that comes counts for its customer.
fn displaced(open: &[PageConnection], newcomer: Option<CustomerId>) -> Option<(StreamId, Slot)> {
    let count = |customer: Option<CustomerId>| {
        let open = open.iter().filter(|other| other.customer == customer).count();
        open + usize::from(customer == newcomer)
    };
    let chosen = open.iter().max_by_key(|of| (count(of.customer), Reverse(of.id)))?;
    Some((chosen.id, chosen.slot))
}

/// Whether the peer may have another connection to this service.
fn has_share(stack: &Stack, service: Published) -> bool {
    let is_in_share = match service {
        Published::Page => stack.accepted_by(service) < PAGE_BY_PEER,
        Published::Results | Published::Dns => true,
    };
    is_in_share && stack.has_place()
}

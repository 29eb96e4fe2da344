//! DNS on the gateway's inner addresses: queries of peers, and their answers.
//!
//! The meaning of a name is decided in [`crate::dns`]. Here a query has a sender, and the sender a
//! limit. A reply of a resolver goes only to a peer that may still use grants.

use std::net::SocketAddr;
use std::time::Duration;

use fleetgate_probes::packet::{self, Parsed};

use super::Tunnel;
use crate::dns::{self, Carrier, Dns};
use crate::id::PeerId;
use crate::messages::{DnsClient, DnsDecision, DnsId, DnsOutcome, DropReason, Output};
use crate::token_bucket::Rate;
use crate::tunnel::peers::Slot;
use crate::tunnel::session::Noise;

/// Queries of one peer. A laptop that starts its programs asks for some dozens of names at once, and
/// a name costs two queries. An answer takes a few microseconds.
const QUERIES: Rate = Rate { every: Duration::from_millis(20), burst: 200 };

impl<N: Noise> Tunnel<N> {
    /// Answers queries for names from now on.
    pub fn serve_dns(&mut self, config: dns::Config) {
        self.dns = Some(Dns::new(config, self.config.pool_v4, self.config.pool_v6));
    }

    /// Returns what became of the queries.
    pub fn dns_queries(&self) -> impl Iterator<Item = (DnsOutcome, u64)> {
        self.dns.iter().flat_map(Dns::counts)
    }

    /// Takes a datagram for the gateway. It may only be a query, from the peer's own address.
    pub(super) fn datagram_query(&mut self, slot: Slot, packet: &Parsed<'_>) -> Result<(), DropReason> {
        let datagram = packet::datagram(packet).filter(|datagram| datagram.dst_port == dns::PORT);
        let datagram = datagram.filter(|_| !self.quiet).ok_or(DropReason::Unsolicited)?;
        let peer = self.peers.get(slot).filter(|peer| peer.addresses.contains(&packet.src));
        let peer = peer.filter(|_| self.dns.is_some()).ok_or(DropReason::Unsolicited)?.id;
        let from = SocketAddr::new(packet.src, datagram.src_port);
        let client = DnsClient { peer, from, to: packet.dst };
        match self.decide_query(slot, peer, datagram.data, Carrier::Udp)? {
            DnsDecision::Answer(reply) => self.send_reply(slot, client, &reply),
            DnsDecision::Forward => {
                self.out.push_back(Output::DnsForward(client, datagram.data.to_vec()));
            }
            DnsDecision::Drop => return Err(DropReason::BadPacket),
        }
        Ok(())
    }

    /// Decides about a query that came over TCP.
    pub(super) fn stream_query(&mut self, id: DnsId, peer: PeerId, query: &[u8]) {
        let slot = self.peers.find(peer).filter(|_| !self.quiet);
        let decision = slot.and_then(|slot| self.decide_query(slot, peer, query, Carrier::Tcp).ok());
        self.out.push_back(Output::DnsAnswer(id, decision.unwrap_or(DnsDecision::Drop)));
    }

    fn decide_query(
        &mut self,
        slot: Slot,
        peer: PeerId,
        query: &[u8],
        carrier: Carrier,
    ) -> Result<DnsDecision, DropReason> {
        let now = self.now;
        let live = self.peers.get_mut(slot).and_then(|peer| peer.live.as_mut());
        let live = live.ok_or(DropReason::NoSession)?;
        let dns = self.dns.as_mut().ok_or(DropReason::Unsolicited)?;
        if !live.queries.take(&QUERIES, now.mono) {
            dns.count(DnsOutcome::RateLimited);
            return Err(DropReason::RateLimited);
        }
        Ok(dns.query(&self.forwarder, peer, query, carrier, now))
    }

    /// Passes the reply of a resolver on.
    pub(super) fn reply_to_query(&mut self, client: DnsClient, reply: &[u8]) {
        let Some(slot) = self.peers.find(client.peer).filter(|_| !self.quiet) else { return };
        let has_address = self.peers.get(slot).is_some_and(|peer| peer.addresses.contains(&client.from.ip()));
        if has_address && self.forwarder.is_source(client.peer) && reply.len() <= dns::LARGEST_DATAGRAM {
            self.send_reply(slot, client, reply);
        }
    }

    fn send_reply(&mut self, slot: Slot, client: DnsClient, reply: &[u8]) {
        let own = SocketAddr::new(client.to, dns::PORT);
        let Ok(packet) = packet::udp(own, client.from, reply) else { return };
        self.seal(slot, &packet);
        self.settle(slot);
    }
}

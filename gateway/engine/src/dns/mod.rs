//! The names of hosts over DNS: `cam-07.fleet.internal` for a peer that may reach `cam-07`.
//!
//! An operator learns the names of hosts, and a renter those of rentals. Each learns exactly the names and
//! addresses that its grants let it reach at this instant; any grant in effect counts, by any protocol and
//! port. A host that it may not reach is answered like one that does not exist. Rentals of two customers may
//! have one name. All other peers, devices among them, are refused. Answers are remembered for [`TTL`] or
//! [`RENTAL_TTL`] by their readers, so that a name outlives its grant by no more than that; packets are
//! judged by the filter alone.
//!
//! This module knows no sessions and no sockets. The caller knows the asker by its tunnel, and limits
//! how often it asks.

mod message;
mod relay;
mod reverse;
mod suffix;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use domain::base::Rtype;
use domain::base::iana::{Class, Opcode, Rcode};
use ipnet::{Ipv4Net, Ipv6Net};

use crate::forward::Forwarder;
use crate::id::PeerId;
use crate::messages::{DnsDecision, DnsOutcome};
use crate::time::Now;
use message::{Data, DomainName, Query, Response, Unreadable};
use reverse::{Pools, ReversePosition};

pub use relay::{Relayed, failure, query_of, relayed};
pub use suffix::{BadSuffix, Suffix};

/// The port of DNS, over UDP and TCP.
pub const PORT: u16 = 53;

/// The largest message in a datagram: it passes every tunnel with an MTU of 1,280.
pub const LARGEST_DATAGRAM: usize = 1_232;

/// The largest query. One with all options that clients send has a few hundred bytes.
pub const LARGEST_QUERY: usize = 1_232;

/// How long an answer may be remembered, and that there is none, in seconds. Long enough for a
/// program that resolves a name for each of several connections, and short against the time in which
/// a person notices.
pub const TTL: u32 = 10;

/// The same for renters. The name of a rental begins and ends with its window, to the second, and clients look
/// it up once for each of their sessions.
pub const RENTAL_TTL: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The domain that contains the names of all hosts.
    pub suffix: Suffix,
    /// Whether resolvers answer other names, for operators. What resolvers inside an organization know is no business
    /// of its customers, so renters get rental names alone.
    pub forwards: bool,
}

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Udp,
    Tcp,
}

/// Answers queries by the policy of the forwarder, and counts them.
pub struct Dns {
    config: Config,
    pools: Pools,
    counts: BTreeMap<DnsOutcome, u64>,
}

/// The meaning of a name for an asker.
enum Meaning {
    /// It exists, with this data of all types.
    Known(Vec<Data>),
    Unknown,
    /// It is a name of others.
    Foreign,
}

impl Dns {
    pub fn new(config: Config, pool_v4: Ipv4Net, pool_v6: Ipv6Net) -> Self {
        Dns { config, pools: Pools { v4: pool_v4, v6: pool_v6 }, counts: BTreeMap::new() }
    }

    pub fn count(&mut self, outcome: DnsOutcome) {
        *self.counts.entry(outcome).or_default() += 1;
    }

    /// Returns what became of the queries, for each outcome that occurred.
    pub fn counts(&self) -> impl Iterator<Item = (DnsOutcome, u64)> {
        self.counts.iter().map(|(outcome, count)| (*outcome, *count))
    }

    /// Decides about a query of this peer.
    pub fn query(
        &mut self,
        forwarder: &Forwarder,
        asker: PeerId,
        bytes: &[u8],
        carrier: Carrier,
        now: Now,
    ) -> DnsDecision {
        let (outcome, decision) = self.decide(forwarder, asker, bytes, carrier, now);
        self.count(outcome);
        decision
    }

    fn decide(
        &self,
        forwarder: &Forwarder,
        asker: PeerId,
        bytes: &[u8],
        carrier: Carrier,
        now: Now,
    ) -> (DnsOutcome, DnsDecision) {
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err(Unreadable::NoQuery) => return (DnsOutcome::Invalid, DnsDecision::Drop),
            Err(Unreadable::Malformed(header)) => {
                return (DnsOutcome::Invalid, DnsDecision::Answer(header.form_error()));
            }
        };
        let is_renter = forwarder.is_renter(asker);
        let forwards = self.config.forwards && !is_renter;
        let (outcome, response) = match self.refusal(forwarder, asker, &query) {
            Some(refusal) => refusal,
            None => match self.meaning(forwarder, asker, &query.name, now) {
                Meaning::Foreign if forwards && query.wants_recursion() => {
                    return (DnsOutcome::Forwarded, DnsDecision::Forward);
                }
                Meaning::Foreign => (DnsOutcome::Refused, Response::error(Rcode::REFUSED)),
                Meaning::Unknown => (DnsOutcome::NotFound, self.not_found(&query)),
                Meaning::Known(data) => self.data_of_type(&query, data),
            },
        };
        let ttl = if is_renter { RENTAL_TTL } else { TTL };
        let response = Response { recursion: forwards, ttl, ..response };
        (outcome, DnsDecision::Answer(query.answer(&response, carrier)))
    }

    /// Returns the answer to a query that is refused, whatever the name is.
    fn refusal(
        &self,
        forwarder: &Forwarder,
        asker: PeerId,
        query: &Query<'_>,
    ) -> Option<(DnsOutcome, Response)> {
        let refused = (DnsOutcome::Refused, Response::error(Rcode::REFUSED));
        if !forwarder.is_source(asker) {
            return Some(refused);
        }
        if query.opcode() != Opcode::QUERY {
            return Some((DnsOutcome::Invalid, Response::error(Rcode::NOTIMP)));
        }
        if query.edns_version() > 0 {
            return Some((DnsOutcome::Invalid, Response::bad_version()));
        }
        let is_transfer = matches!(query.rtype, Rtype::AXFR | Rtype::IXFR);
        (is_transfer || !matches!(query.class, Class::IN | Class::ANY)).then_some(refused)
    }

    fn meaning(&self, forwarder: &Forwarder, asker: PeerId, name: &DomainName, now: Now) -> Meaning {
        if let Some(host) = self.config.suffix.strip(name) {
            return match host.as_str() {
                // The domain itself.
                "" => Meaning::Known(vec![Data::Soa(self.config.suffix.name().clone())]),
                host => meaning_of_host(forwarder, asker, host, now),
            };
        }
        match self.pools.place(name) {
            Some(ReversePosition::Above) => Meaning::Known(Vec::new()),
            Some(ReversePosition::Below) => Meaning::Unknown,
            Some(ReversePosition::At(address)) => {
                let host = forwarder.name_of(asker, address, now);
                let name = host.and_then(|host| self.config.suffix.name_of(host));
                name.map_or(Meaning::Unknown, |name| Meaning::Known(vec![Data::Pointer(name)]))
            }
            None => Meaning::Foreign,
        }
    }

    fn data_of_type(&self, query: &Query<'_>, data: Vec<Data>) -> (DnsOutcome, Response) {
        let fits = |data: &Data| query.rtype == Rtype::ANY || query.rtype == data.rtype();
        let data: Vec<Data> = data.into_iter().filter(fits).collect();
        let outcome = if data.is_empty() { DnsOutcome::NoData } else { DnsOutcome::Answered };
        let authority = data.is_empty().then(|| self.apex(query));
        (outcome, Response { data, authority, ..Response::own(Rcode::NOERROR) })
    }

    fn not_found(&self, query: &Query<'_>) -> Response {
        Response { authority: Some(self.apex(query)), ..Response::own(Rcode::NXDOMAIN) }
    }

    /// Returns the domain that an absence is remembered by (RFC 2308): one above the name.
    fn apex(&self, query: &Query<'_>) -> DomainName {
        let reverse = self.pools.apex(&query.name);
        reverse.unwrap_or_else(|| self.config.suffix.name().clone())
    }
}

/// A name without addresses exists if names below it do, because its absence would stand for theirs (RFC
/// 8020).
fn meaning_of_host(forwarder: &Forwarder, asker: PeerId, name: &str, now: Now) -> Meaning {
    let addresses = forwarder.addresses_of(asker, name, now);
    if addresses.is_empty() && !forwarder.reaches_below(asker, name, now) {
        return Meaning::Unknown;
    }
    Meaning::Known(addresses.into_iter().map(Data::Address).collect())
}

//! The messages between the shell and the names of hosts.
//!
//! A query over UDP needs the shell only if a resolver is to answer it. The shell reads queries over
//! TCP and asks what becomes of them. Values only.

use std::net::{IpAddr, SocketAddr};

use crate::id::PeerId;

/// The shell numbers the queries that it reads from streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsId(pub u64);

/// The sender of a query over UDP, and its destination among the gateway's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsClient {
    pub peer: PeerId,
    pub from: SocketAddr,
    pub to: IpAddr,
}

/// The decision about a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsDecision {
    /// This message is the answer.
    Answer(Vec<u8>),
    /// A resolver is to answer it.
    Forward,
    /// It gets no answer: it is no query, or there were too many.
    Drop,
}

/// Outcomes of queries, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsOutcome {
    Answered,
    /// The name exists for the asker, but has no data of this type.
    NoData,
    /// No host has the name, or the asker may not reach it.
    NotFound,
    /// The asker uses no grants, or the name is none of ours.
    Refused,
    /// A resolver is to answer.
    Forwarded,
    /// No query that DNS defines, or one that the gateway does not implement.
    Invalid,
    RateLimited,
}

impl DnsOutcome {
    pub const ALL: [DnsOutcome; 7] = [
        DnsOutcome::Answered,
        DnsOutcome::NoData,
        DnsOutcome::NotFound,
        DnsOutcome::Refused,
        DnsOutcome::Forwarded,
        DnsOutcome::Invalid,
        DnsOutcome::RateLimited,
    ];

    /// The name used in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DnsOutcome::Answered => "answered",
            DnsOutcome::NoData => "no_data",
            DnsOutcome::NotFound => "not_found",
            DnsOutcome::Refused => "refused",
            DnsOutcome::Forwarded => "forwarded",
            DnsOutcome::Invalid => "invalid",
            DnsOutcome::RateLimited => "rate_limited",
        }
    }
}

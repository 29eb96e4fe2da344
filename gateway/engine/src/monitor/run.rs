//! The check of a service that is in progress.

use std::net::IpAddr;

use crate::messages::{ConnectFailure, ProbeId, ProbeReply};
use crate::monitor::dependency::DependsOn;
use crate::monitor::host::path_check::PathQuestion;
use crate::monitor::paths::Via;
use crate::monitor::thresholds::Evaluated;
use crate::time::Mono;

/// The check in progress; a check never runs twice at once.
#[derive(Debug, PartialEq)]
pub enum Run {
    Idle,
    Asked(ProbeId),
    /// No reply came from one inner address, and the other one is probed.
    AskedOther(ProbeId, Box<ProbeReply>),
    /// The tunnel's own check: a handshake failed, and other evidence is read.
    Doubted(ProbeId, ConnectFailure),
    /// No reply came, and the path is checked.
    AskedPath(ProbeId, Box<Unanswered>),
    /// Part of the host's SSH session.
    Riding,
    /// Failed, and waits for its dependency.
    PendingFailure(Box<PendingFailure>),
}

impl Run {
    /// Returns the probe that it has in flight by itself.
    pub fn probe(&self) -> Option<ProbeId> {
        match self {
            Run::Asked(id) | Run::AskedOther(id, _) | Run::Doubted(id, _) | Run::AskedPath(id, _) => {
                Some(*id)
            }
            Run::Idle | Run::Riding | Run::PendingFailure(_) => None,
        }
    }
}

/// A probe without reply, and the path check that follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Unanswered {
    pub answer: ProbeReply,
    /// The other inner address, if that was silent, too.
    pub silent: Option<IpAddr>,
    pub path: PathQuestion,
}

#[derive(Clone, Debug, PartialEq)]
pub struct PendingFailure {
    pub result: Evaluated,
    pub way: Via,
    pub failed_at: Mono,
    pub on: DependsOn,
    /// Whether its dependency was checked on its behalf.
    pub asked: bool,
}

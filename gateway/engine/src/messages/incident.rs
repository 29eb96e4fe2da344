//! The values of an incident, as they are committed and restored.

use std::fmt;

use crate::id::{HostId, Id};
use crate::messages::notification::AckEnd;
use crate::time::Wall;

/// A checkable: a host (`service` is `None`), or a service of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckableId {
    pub host: HostId,
    pub service: Option<String>,
}

impl CheckableId {
    pub const fn host(host: HostId) -> CheckableId {
        CheckableId { host, service: None }
    }
}

/// The id of an incident. Its text begins with the `i_` that the API and the mails show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId(pub Id);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "i_{}", self.0)
    }
}

impl fmt::Debug for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The scope of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IncidentScope {
    Service,
    Host,
    /// Several hosts, of one site or behind one host.
    Site,
    /// Many hosts of any site, or one service of many hosts.
    Fleet,
    Gateway,
}

impl IncidentScope {
    pub const ALL: [IncidentScope; 5] = [
        IncidentScope::Service,
        IncidentScope::Host,
        IncidentScope::Site,
        IncidentScope::Fleet,
        IncidentScope::Gateway,
    ];

    /// The lower-case name used in the API and the store.
    pub const fn name(self) -> &'static str {
        match self {
            IncidentScope::Service => "service",
            IncidentScope::Host => "host",
            IncidentScope::Site => "site",
            IncidentScope::Fleet => "fleet",
            IncidentScope::Gateway => "gateway",
        }
    }

    pub fn named(name: &str) -> Option<IncidentScope> {
        IncidentScope::ALL.into_iter().find(|extent| extent.name() == name)
    }

    /// Whether it covers several hosts, so that its notifications form one message across sites.
    pub const fn is_wide(self) -> bool {
        matches!(self, IncidentScope::Site | IncidentScope::Fleet | IncidentScope::Gateway)
    }
}

/// The cause of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseKind {
    ServiceFailed,
    HostDown,
    /// A host that others are behind is down.
    ParentDown,
    /// Most hosts of a site, or many of a large one, went down together.
    SiteLost,
    UplinkLost,
}

impl CauseKind {
    pub const ALL: [CauseKind; 5] = [
        CauseKind::ServiceFailed,
        CauseKind::HostDown,
        CauseKind::ParentDown,
        CauseKind::SiteLost,
        CauseKind::UplinkLost,
    ];

    pub fn named(name: &str) -> Option<CauseKind> {
        CauseKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The lower-case name used in the API and the store.
    pub const fn name(self) -> &'static str {
        match self {
            CauseKind::ServiceFailed => "service_failed",
            CauseKind::HostDown => "host_down",
            CauseKind::ParentDown => "parent_down",
            CauseKind::SiteLost => "site_lost",
            CauseKind::UplinkLost => "gateway_uplink_lost",
        }
    }
}

/// The subject of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentSummary {
    pub extent: IncidentScope,
    pub cause: CauseKind,
    /// The cause as a text. That of a service has its state, and the value that crossed a limit, as
    /// they were when the state began.
    pub words: String,
    /// The label that its hosts share, if it covers a site.
    pub site: Option<String>,
    /// The host whose loss explains the others'.
    pub head: Option<HostId>,
}

/// A change of an incident to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentRecord {
    pub id: IncidentId,
    pub at: Wall,
    pub change: IncidentChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentChange {
    Opened(IncidentSummary),
    /// Its scope is wider than was known.
    Widened(IncidentSummary),
    /// Its text describes the present state of its service; the scope is the same.
    Reworded(String),
    /// `began`: the start of this checkable's problem.
    Joined {
        object: CheckableId,
        began: Wall,
    },
    Left(CheckableId),
    /// All its members belong to another incident now; it is closed.
    Merged(IncidentId),
    /// All its members have been ok since `at`.
    Closed,
    /// The incident's acknowledgement covers this checkable, under an id of its own.
    Covered {
        object: CheckableId,
        ack: Id,
    },
    AckEnded(AckEnd),
}

/// The acknowledgement of an incident: of all its members, and of those that join it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentAck {
    pub sticky: bool,
    pub expires: Option<Wall>,
    /// The author and the comment, as text.
    pub words: String,
}

impl IncidentAck {
    pub fn holds(&self, now: Wall) -> bool {
        self.expires.is_none_or(|at| at > now)
    }
}

/// An open incident of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentSnapshot {
    pub id: IncidentId,
    pub opened: Wall,
    pub matter: IncidentSummary,
    pub members: Vec<MemberSnapshot>,
    pub ack: Option<IncidentAck>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSnapshot {
    pub object: CheckableId,
    pub began: Wall,
    /// When it recovered or left the incident.
    pub left: Option<Wall>,
    /// Whether it had the acknowledgement of its incident, which may have ended since.
    pub covered: bool,
}

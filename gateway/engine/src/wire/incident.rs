//! What belongs together: the values of an incident, as they are committed and restored.

use std::fmt;

use super::voice::AckEnd;
use crate::id::{HostId, Id};
use crate::time::Wall;

/// Something that has a state: a host (`service` is `None`), or a service of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    pub host: HostId,
    pub service: Option<String>,
}

impl Object {
    pub const fn host(host: HostId) -> Object {
        Object { host, service: None }
    }
}

/// Its text begins with the `i_` that the API and the mails show.
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

/// How far an incident reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    Service,
    Host,
    /// Several hosts, of one site or behind one host.
    Site,
    /// One service of many hosts, wherever they stand.
    Fleet,
    Gateway,
}

impl Extent {
    pub const ALL: [Extent; 5] =
        [Extent::Service, Extent::Host, Extent::Site, Extent::Fleet, Extent::Gateway];

    /// The lower-case name used in the API and the store.
    pub const fn name(self) -> &'static str {
        match self {
            Extent::Service => "service",
            Extent::Host => "host",
            Extent::Site => "site",
            Extent::Fleet => "fleet",
            Extent::Gateway => "gateway",
        }
    }

    pub fn named(name: &str) -> Option<Extent> {
        Extent::ALL.into_iter().find(|extent| extent.name() == name)
    }

    /// Of several hosts: what is told of it belongs into one message, wherever they stand.
    pub const fn is_wide(self) -> bool {
        matches!(self, Extent::Site | Extent::Fleet | Extent::Gateway)
    }
}

/// What began an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CauseKind {
    ServiceFailed,
    HostDown,
    /// What others stand behind is down.
    ParentDown,
    /// Most hosts of a site fell silent together.
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

/// What an incident is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matter {
    pub extent: Extent,
    pub cause: CauseKind,
    /// The cause for people.
    pub words: String,
    /// The label that its hosts share, where it is of a site.
    pub site: Option<String>,
    /// The host whose loss explains the others'.
    pub head: Option<HostId>,
}

/// Something about an incident that is to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentRecord {
    pub id: IncidentId,
    pub at: Wall,
    pub change: IncidentChange,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IncidentChange {
    Opened(Matter),
    /// More belongs to it than was known.
    Widened(Matter),
    /// `began`: when this object began to fail.
    Joined {
        object: Object,
        began: Wall,
    },
    Left(Object),
    /// Everything of it belongs to another now; it is closed.
    Merged(IncidentId),
    /// Since `at` nothing of it is wrong any more.
    Closed,
    /// The incident's acknowledgement covers this object, under an id of its own.
    Covered {
        object: Object,
        ack: Id,
    },
    AckEnded(AckEnd),
}

/// Somebody knows of an incident: of all that is in it, and of what joins it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentAck {
    pub sticky: bool,
    pub expires: Option<Wall>,
    /// Who and why, in words.
    pub words: String,
}

impl IncidentAck {
    pub fn holds(&self, now: Wall) -> bool {
        self.expires.is_none_or(|at| at > now)
    }
}

/// An open incident of an earlier run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentMemory {
    pub id: IncidentId,
    pub opened: Wall,
    pub matter: Matter,
    pub members: Vec<MemberMemory>,
    pub ack: Option<IncidentAck>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMemory {
    pub object: Object,
    pub began: Wall,
    /// When it was well again, or belonged to this no more.
    pub left: Option<Wall>,
    /// It has had the acknowledgement that its incident has; maybe not any more.
    pub covered: bool,
}

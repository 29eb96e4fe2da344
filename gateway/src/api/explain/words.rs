//! Says in words what the packet filter does with a packet, and what is missing.

use fleetgate_engine::messages::{Explanation as PolicyDecision, GrantAccess, GrantProtocol, GrantWindow};
use fleetgate_engine::time::Wall;

use super::rentals::{RentalDecision, Renting};
use super::types::Explanation;
use crate::api::request::ids::{self, IdKind};
use crate::store::grants::protocol_name;

/// Returns the option of `fleetgate grant add` for the grants of a user.
pub fn whom_of(user: &str) -> String {
    format!("--user {user}")
}

/// The access that a grant would permit: its source, host, protocol and port.
pub struct RequestedAccess<'a> {
    /// The option of `fleetgate grant add` that names the source.
    pub whom: &'a str,
    pub host: &'a str,
    pub protocol: GrantProtocol,
    pub port: u16,
}

impl RequestedAccess<'_> {
    pub fn what(&self) -> String {
        match self.protocol {
            GrantProtocol::Icmp => "icmp".to_owned(),
            GrantProtocol::Tcp | GrantProtocol::Udp => {
                format!("{} {}", protocol_name(self.protocol), self.port)
            }
        }
    }

    fn access(&self) -> GrantAccess {
        let ports =
            if self.protocol == GrantProtocol::Icmp { Vec::new() } else { vec![self.port..=self.port] };
        GrantAccess { protocol: self.protocol, ports }
    }
}

/// The subject of a question, for its answer.
pub struct Words<'a> {
    pub from: &'a str,
    pub wanted: RequestedAccess<'a>,
    pub no_source: Option<&'a str>,
    /// `None`: grants alone decide.
    pub renting: Option<Renting<'a>>,
}

/// Says what is missing, and how a grant is added if there is none.
pub fn denial(found: &PolicyDecision, wanted: &RequestedAccess<'_>) -> String {
    let missing = missing(found);
    match found {
        PolicyDecision::NoGrant | PolicyDecision::Over(_) => {
            let RequestedAccess { whom, host, .. } = wanted;
            let what = wanted.what();
            format!("{missing}; an admin adds one with `fleetgate grant add {whom} --to {host} --{what}`")
        }
        _ => missing,
    }
}

/// Says what is missing, short enough for the end of a WebSocket.
pub fn missing(found: &PolicyDecision) -> String {
    let id = |window: &GrantWindow| IdKind::Grant.text(window.grant);
    let at = |at: Option<Wall>| at.map(ids::time).unwrap_or_default();
    match found {
        PolicyDecision::Permitted(of) => format!("the grant {} permits it", id(of)),
        PolicyDecision::NoGrant => "no grant permits it".to_owned(),
        PolicyDecision::NotYet(of) => format!("the grant {} begins at {}", id(of), at(of.from)),
        PolicyDecision::Over(of) => format!("the grant {} ended at {}", id(of), at(of.until)),
        PolicyDecision::Delayed(of) => format!("the rental of the grant {} awaits its device", id(of)),
        PolicyDecision::Blocked(of) => format!("the device of the grant {} is blocked", id(of)),
        PolicyDecision::ClockBehind(of) => {
            format!("the grant {} waits, because the gateway's clock is behind an earlier time", id(of))
        }
        PolicyDecision::ClockStep(of) => {
            format!("the grant {} waits, because the gateway's clock was set minutes ago", id(of))
        }
        PolicyDecision::NoCommonFamily => "they have no addresses of one family, IPv4 or IPv6".to_owned(),
        PolicyDecision::UnknownSource => "no peer of this user may use grants".to_owned(),
        PolicyDecision::UnknownTarget => {
            "the host has no address that grants lead to: it has no tunnel".to_owned()
        }
    }
}

pub const fn name(found: &PolicyDecision) -> &'static str {
    match found {
        PolicyDecision::Permitted(_) => "permitted",
        PolicyDecision::NoGrant => "no_grant",
        PolicyDecision::NotYet(_) => "not_yet",
        PolicyDecision::Over(_) => "over",
        PolicyDecision::Delayed(_) => "delayed",
        PolicyDecision::Blocked(_) => "blocked",
        PolicyDecision::ClockBehind(_) => "clock_behind",
        PolicyDecision::ClockStep(_) => "clock_step",
        PolicyDecision::NoCommonFamily => "no_common_family",
        PolicyDecision::UnknownSource => "unknown_source",
        PolicyDecision::UnknownTarget => "unknown_target",
    }
}

/// Returns the grant that decides, or that comes nearest.
const fn window(found: &PolicyDecision) -> Option<&GrantWindow> {
    match found {
        PolicyDecision::Permitted(of)
        | PolicyDecision::NotYet(of)
        | PolicyDecision::Over(of)
        | PolicyDecision::Delayed(of)
        | PolicyDecision::Blocked(of)
        | PolicyDecision::ClockBehind(of)
        | PolicyDecision::ClockStep(of) => Some(of),
        PolicyDecision::NoGrant
        | PolicyDecision::NoCommonFamily
        | PolicyDecision::UnknownSource
        | PolicyDecision::UnknownTarget => None,
    }
}

fn text(found: &PolicyDecision, words: &Words<'_>) -> String {
    let Words { from, wanted, no_source, .. } = words;
    let (to, what) = (wanted.host, wanted.what());
    let id = |window: &GrantWindow| IdKind::Grant.text(window.grant);
    match found {
        PolicyDecision::Permitted(of) => {
            let ends = of.until.map(|at| format!(", until {}", ids::time(at))).unwrap_or_default();
            format!("{from} reaches {to} ({what}) by the grant {}{ends}", id(of))
        }
        PolicyDecision::UnknownSource => {
            let missing = no_source.map_or_else(|| missing(found), str::to_owned);
            format!("{from} does not reach {to} ({what}): {missing}")
        }
        denied => format!("{from} does not reach {to} ({what}): {}", denial(denied, wanted)),
    }
}

pub fn to_api(found: &PolicyDecision, words: &Words<'_>, at: Wall) -> Explanation {
    if let Some(renting) = &words.renting {
        return of_rental(renting, found, words, at);
    }
    let (result, window) = (name(found), window(found));
    Explanation {
        permitted: matches!(found, PolicyDecision::Permitted(_)),
        result: result.to_owned(),
        text: text(found, words),
        grant: window.map(|of| IdKind::Grant.text(of.grant)),
        rental: None,
        from: window.and_then(|of| ids::time_if_known(of.from)),
        until: window.and_then(|of| ids::time_if_known(of.until)),
        at: ids::time(at),
    }
}

fn of_rental(renting: &Renting<'_>, found: &PolicyDecision, words: &Words<'_>, at: Wall) -> Explanation {
    let Words { from, wanted, no_source, .. } = words;
    let (to, what) = (wanted.host, wanted.what());
    let RentalDecision { result, why, window } = match (found, no_source) {
        (PolicyDecision::UnknownSource, Some(why)) => {
            RentalDecision { result: name(found), why: (*why).to_owned(), window: None }
        }
        _ => renting.decision(found, &wanted.access()),
    };
    let permitted = matches!(found, PolicyDecision::Permitted(_));
    let text = match permitted {
        true => format!("{from} reaches {to} ({what}) {why}"),
        false => format!("{from} does not reach {to} ({what}): {why}"),
    };
    let decides = renting.rental.filter(|_| window.is_some());
    Explanation {
        permitted,
        result: result.to_owned(),
        text,
        grant: None,
        rental: decides.map(|rental| IdKind::Rental.text(rental.id)),
        from: window.map(|(from, _)| ids::time(from)),
        until: window.map(|(_, until)| ids::time(until)),
        at: ids::time(at),
    }
}

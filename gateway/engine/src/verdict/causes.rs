//! Which causes the evidence leaves open.
//!
//! Each question is put alone: what would have to be different if this were the cause? Absent
//! evidence never answers it.

use super::{Behind, Evidence, Finding, Kind, Others, TOGETHER};
use crate::wire::{DirectAnswer, HostStatus, Refusal, is_of_others};

/// Nothing: it is well.
pub fn findings(e: &Evidence) -> Vec<Finding> {
    match e.host.status {
        // Who knocks and is refused is awake.
        _ if e.host.asleep && refused_as(e.fresh_refusal()).is_some() => vec![silence(e)],
        _ if e.host.asleep => Vec::new(),
        HostStatus::Pending => vec![Finding(vec![Kind::Pending])],
        HostStatus::Down if e.is_over_limit() => {
            path(e).into_iter().chain(device(e)).chain([Finding(vec![Kind::ServiceProblem])]).collect()
        }
        // Somebody said so, who may have meant anything, or says nothing any more.
        HostStatus::Down if is_of_others(&e.host.source) => {
            vec![Finding(all_of(e).into_iter().chain([Kind::ServiceProblem]).collect())]
        }
        HostStatus::Down => vec![silence(e)],
        // Too old to go by: nobody is known to be silent, so that nothing is claimed.
        HostStatus::Up if e.host.stale && e.cut_off.is_none() => vec![Finding(all_of(e))],
        HostStatus::Up if e.host.stale => vec![silence(e)],
        HostStatus::Up => path(e).into_iter().chain(device(e)).collect(),
    }
}

// ------------------------------------------------------------------ silent

/// It does not answer: each cause that nothing speaks against.
fn silence(e: &Evidence) -> Finding {
    let open: Vec<Kind> = match &e.behind {
        Some(behind) => behind_causes(e, behind),
        None => own_causes(e),
    };
    // Each cause is contradicted: more than one thing is wrong, and none of it is claimed.
    Finding(if open.is_empty() { all_of(e) } else { open })
}

/// Whatever can make it silent.
fn all_of(e: &Evidence) -> Vec<Kind> {
    if e.behind.is_some() {
        return vec![Kind::GatewayUplinkLost, Kind::ParentDown, Kind::LocalNetworkLost, Kind::DeviceGone];
    }
    let tunnel = e.tunnel.as_ref().map(|_| Kind::TunnelDown);
    let own = [Kind::GatewayUplinkLost, Kind::SiteUplinkLost];
    own.into_iter().chain(tunnel).chain([Kind::DeviceGone]).collect()
}

fn own_causes(e: &Evidence) -> Vec<Kind> {
    if !e.host.reachable && !is_alive(e) {
        return parent_causes(e);
    }
    let refused = refused_as(e.refusal().map(|(_, refusal)| refusal));
    let table = [
        (Kind::GatewayUplinkLost, may_be_gateway(e)),
        (Kind::SiteUplinkLost, may_be_site(e)),
        (Kind::KeyRefused, refused == Some(Kind::KeyRefused) && may_be_tunnel(e)),
        (Kind::ClockWrong, refused == Some(Kind::ClockWrong) && may_be_tunnel(e)),
        (Kind::TunnelDown, may_be_tunnel(e) && refused_as(e.fresh_refusal()).is_none()),
        (Kind::DeviceGone, may_be_device(e)),
    ];
    table.into_iter().filter(|(_, open)| *open).map(|(kind, _)| kind).collect()
}

/// What stands behind a device is judged by that device first.
fn behind_causes(e: &Evidence, behind: &Behind) -> Vec<Kind> {
    if !behind.heard || !e.host.reachable {
        return parent_causes(e);
    }
    let others = site(e);
    let network = others.heard == 0;
    let device = !(network && others.silent >= TOGETHER);
    let table = [(Kind::LocalNetworkLost, network), (Kind::DeviceGone, device)];
    table.into_iter().filter(|(_, open)| *open).map(|(kind, _)| kind).collect()
}

/// What stands before it is judged by itself; that it does not answer is no cause of its own where
/// nobody is heard at all.
fn parent_causes(e: &Evidence) -> Vec<Kind> {
    let table = [(Kind::GatewayUplinkLost, may_be_gateway(e)), (Kind::ParentDown, !is_everybody(e))];
    table.into_iter().filter(|(_, open)| *open).map(|(kind, _)| kind).collect()
}

fn site(e: &Evidence) -> Others {
    e.site.as_ref().map(|site| site.others).unwrap_or_default()
}

/// Nobody is heard, and more places are silent than fail by chance.
fn is_everybody(e: &Evidence) -> bool {
    may_be_gateway(e) && e.elsewhere.silent >= TOGETHER
}

/// Several of its place fell silent together.
fn is_whole_site(e: &Evidence) -> bool {
    site(e).heard == 0 && site(e).silent >= TOGETHER
}

/// It, or what has its key, was heard from after it fell silent.
fn is_alive(e: &Evidence) -> bool {
    e.host.direct == DirectAnswer::Answered || e.fresh_refusal().is_some()
}

fn may_be_gateway(e: &Evidence) -> bool {
    let silent = matches!(e.host.direct, DirectAnswer::NotAsked | DirectAnswer::Silent);
    silent && e.elsewhere.heard == 0 && site(e).heard == 0 && !is_alive(e)
}

fn may_be_site(e: &Evidence) -> bool {
    site(e).heard == 0 && !is_alive(e) && !is_everybody(e)
}

/// Its tunnel alone, for whatever reason: with the device and its uplink well, another path answers.
fn may_be_tunnel(e: &Evidence) -> bool {
    let other_path = e.host.direct == DirectAnswer::Silent && e.fresh_refusal().is_none();
    e.tunnel.is_some() && !other_path && !is_shared(e)
}

fn may_be_device(e: &Evidence) -> bool {
    !is_alive(e) && !is_shared(e)
}

/// Too many fell silent together for a cause of its own; a sign of life is one of its own.
fn is_shared(e: &Evidence) -> bool {
    !is_alive(e) && (is_whole_site(e) || is_everybody(e))
}

fn refused_as(refusal: Option<Refusal>) -> Option<Kind> {
    match refusal? {
        Refusal::ClockWentBack { .. } => Some(Kind::ClockWrong),
        Refusal::Crypto | Refusal::ReplacedKey { .. } => Some(Kind::KeyRefused),
        Refusal::RateLimited => None,
    }
}

// ------------------------------------------------------------------ heard

/// It answers, and not through its tunnel; or somebody is refused under its name.
fn path(e: &Evidence) -> Option<Finding> {
    e.tunnel.as_ref()?;
    let refused = refused_as(e.fresh_refusal());
    match refused {
        Some(kind) if e.host.direct == DirectAnswer::Answered || e.uses_replaced_key() => {
            Some(Finding(vec![kind]))
        }
        Some(kind) => Some(Finding(vec![kind, Kind::ClonedKey])),
        None if e.host.direct == DirectAnswer::Answered => Some(Finding(vec![Kind::TunnelDown])),
        None => None,
    }
}

/// What is wrong with a device that answers.
fn device(e: &Evidence) -> Vec<Finding> {
    let tunnel = e.tunnel.as_ref();
    let clock = e.skew_ms().map(|_| match e.clocks.right {
        0 => vec![Kind::ClockWrong, Kind::GatewayClockWrong],
        _ => vec![Kind::ClockWrong],
    });
    let cloned = tunnel.is_some_and(|tunnel| !tunnel.in_turn.is_empty());
    let hung = !e.services_that(|service| service.is_hung()).is_empty();
    let reports = !e.services_that(|service| service.reports()).is_empty();
    [
        cloned.then(|| vec![Kind::ClonedKey]),
        clock,
        hung.then(|| vec![Kind::ServiceHung]),
        reports.then(|| vec![Kind::ServiceProblem]),
    ]
    .into_iter()
    .flatten()
    .map(Finding)
    .collect()
}

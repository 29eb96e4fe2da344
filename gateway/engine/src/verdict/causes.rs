//! Which causes the evidence leaves open.
//!
//! Each cause is judged alone: what would be different if it were the cause? Missing evidence never
//! excludes a cause.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    Behind, Carriage, EVERYWHERE, Evidence, Finding, Others, RequestedResult, ServiceFacts, TOGETHER,
    TunnelFacts, VerdictKind,
};
use crate::messages::{ATTEMPTS, DirectReply, HostStatus, PathCheck, Refusal, is_of_others};
use crate::time::Wall;

/// Two devices with one key alternate at the pace of their keepalives. After a move without a
/// return for this long, there is only one device.
const SETTLED: Duration = Duration::from_secs(600);
/// How close to a move a service problem must begin to be related to it: two intervals of a check.
const ABOUT: Duration = Duration::from_secs(120);
/// The longest time in which a lossy path loses every echo of a service.
const ALL_LOST: Duration = Duration::from_secs(300);
/// Returns the findings, none if the host is ok.
pub fn findings(e: &Evidence) -> Vec<Finding> {
    match e.host.status {
        // A device whose handshakes arrive is awake, even if they are refused.
        _ if e.host.asleep && (refused_as(e.fresh_refusal()).is_some() || e.knocks_in_vain()) => {
            vec![silence(e)]
        }
        _ if e.host.asleep => Vec::new(),
        HostStatus::Pending => vec![Finding(vec![VerdictKind::Pending])],
        HostStatus::Down if e.is_over_limit() => {
            path(e).into_iter().chain(device(e)).chain([Finding(vec![VerdictKind::ServiceProblem])]).collect()
        }
        // The problem comes from a submitted result, or from the absence of one. Its sender may
        // have meant anything, and may have stopped sending.
        HostStatus::Down if is_of_others(&e.host.source) => {
            vec![Finding(all_of(e).into_iter().chain([VerdictKind::ServiceProblem]).collect())]
        }
        // The uplink has just recovered, and the host was not checked since.
        HostStatus::Down if e.host.stale && e.cut_off.is_none() => vec![wider(silence(e), e)],
        HostStatus::Down if e.host.stale => vec![cut_off(e)],
        HostStatus::Down => vec![silence(e)],
        // The result is stale. No host is known to be silent, so nothing is claimed.
        HostStatus::Up if e.host.stale && e.cut_off.is_none() => vec![Finding(all_of(e))],
        HostStatus::Up if e.host.stale => vec![cut_off(e)],
        HostStatus::Up => path(e).into_iter().chain(device(e)).collect(),
    }
}

// ------------------------------------------------------------------ silent

/// Returns each cause of silence that the evidence does not contradict.
fn silence(e: &Evidence) -> Finding {
    let mut open: Vec<VerdictKind> = match &e.behind {
        Some(behind) => behind_causes(e, behind),
        None => own_causes(e),
    };
    if open.is_empty() {
        // Each cause is contradicted: more than one fault exists, and none of them is claimed.
        open = all_of(e);
    }
    // Many lines lose one packet in three, so a failure proves nothing before it is repeated.
    // On a line that loses more than that, a repeated failure proves nothing either. Such a host
    // recovers every now and then.
    let unproved = e.is_soft() || e.host.notification.recent.has_recovered();
    let lossy = unproved && !is_alive(e) && !is_shared(e);
    open.extend(lossy.then_some(VerdictKind::PacketLoss));
    Finding(open)
}

/// Judges a stale result while the gateway's own uplink is considered lost. If another host was heard since,
/// the uplink works again, and this host was not checked since: its silence shows nothing.
fn cut_off(e: &Evidence) -> Finding {
    let heard = e.elsewhere.heard + site(e).heard;
    if heard == 0 { silence(e) } else { wider(silence(e), e) }
}

/// Adds to the open causes all others that make a host silent.
fn wider(Finding(open): Finding, e: &Evidence) -> Finding {
    let all: BTreeSet<VerdictKind> = open.into_iter().chain(all_of(e)).collect();
    Finding(all.into_iter().collect())
}

/// Returns every cause that can make the host silent.
fn all_of(e: &Evidence) -> Vec<VerdictKind> {
    if e.behind.is_some() {
        return all_behind();
    }
    let tunnel = e.tunnel.as_ref().map(|_| VerdictKind::TunnelDown);
    let own = [VerdictKind::GatewayUplinkLost, VerdictKind::SiteUplinkLost];
    own.into_iter().chain(tunnel).chain([VerdictKind::LineLost, VerdictKind::DeviceGone]).collect()
}

fn all_behind() -> Vec<VerdictKind> {
    use VerdictKind::{DeviceGone, GatewayUplinkLost, LineLost, LocalNetworkLost, ParentDown};
    vec![GatewayUplinkLost, ParentDown, LocalNetworkLost, LineLost, DeviceGone]
}

fn open(table: &[(VerdictKind, bool)]) -> Vec<VerdictKind> {
    table.iter().filter(|(_, open)| *open).map(|(kind, _)| *kind).collect()
}

fn own_causes(e: &Evidence) -> Vec<VerdictKind> {
    if !e.host.reachable && !is_alive(e) {
        return parent_causes(e);
    }
    if let Some(causes) = vain_knocks(e) {
        return causes;
    }
    let refused = refused_as(e.refusal().map(|(_, refusal)| refusal));
    let unexplained = refused_as(e.fresh_refusal()).is_none();
    let other_key = unexplained && e.may_have_another_key();
    open(&[
        (VerdictKind::GatewayUplinkLost, may_be_gateway(e)),
        (VerdictKind::SiteUplinkLost, may_be_site(e)),
        (
            VerdictKind::KeyRefused,
            (refused == Some(VerdictKind::KeyRefused) || other_key) && may_be_tunnel(e),
        ),
        (VerdictKind::ClockWrong, refused == Some(VerdictKind::ClockWrong) && may_be_tunnel(e)),
        (VerdictKind::TunnelDown, may_be_tunnel(e) && unexplained),
        (VerdictKind::OneWayLoss, may_be_tunnel(e) && unexplained && e.awaits_session()),
        (VerdictKind::LineLost, may_be_device(e)),
        (VerdictKind::DeviceGone, may_be_device(e)),
    ])
}

/// Returns the causes of handshakes that arrive, are answered and lead to nothing: the key is
/// refused, or the responses do not arrive.
fn vain_knocks(e: &Evidence) -> Option<Vec<VerdictKind>> {
    match () {
        () if refused_as(e.fresh_refusal()).is_some() => None,
        () if e.knocks_in_vain() => Some(vec![VerdictKind::KeyRefused, VerdictKind::OneWayLoss]),
        // A single response may be lost by chance.
        () if e.host.source == ATTEMPTS => {
            Some(vec![VerdictKind::KeyRefused, VerdictKind::OneWayLoss, VerdictKind::PacketLoss])
        }
        () => None,
    }
}

/// Returns the causes for a host behind a device. The tunnel of that device is judged first.
fn behind_causes(e: &Evidence, behind: &Behind) -> Vec<VerdictKind> {
    let others = site(e);
    let network = others.heard == 0;
    let device = !(network && others.unasked == 0 && others.silent >= TOGETHER);
    let network = (VerdictKind::LocalNetworkLost, network);
    let own = [(VerdictKind::LineLost, device), (VerdictKind::DeviceGone, device)];
    let everybody = is_everybody(e);
    match e.carriage(behind) {
        Carriage::Fails => parent_causes(e),
        Carriage::Carries => open(&[network, own[0], own[1]]),
        // Replies of other hosts behind the device prove its tunnel only for their own probes.
        Carriage::Unknown => open(&[
            (VerdictKind::GatewayUplinkLost, may_be_gateway(e)),
            (VerdictKind::ParentDown, others.heard == 0 && !everybody),
            (network.0, network.1 && !everybody),
            (VerdictKind::LineLost, !everybody),
            (VerdictKind::DeviceGone, !everybody),
        ]),
    }
}

/// Returns the causes when the parent fails. The parent is judged by itself. Its silence is no
/// separate cause when no host at all is heard.
fn parent_causes(e: &Evidence) -> Vec<VerdictKind> {
    open(&[(VerdictKind::GatewayUplinkLost, may_be_gateway(e)), (VerdictKind::ParentDown, !is_everybody(e))])
}

fn site(e: &Evidence) -> Others {
    e.site.as_ref().map(|site| site.others).unwrap_or_default()
}

/// Returns whether all hosts are silent. Either all were checked and more places are silent than
/// fail by chance, or the monitor has found the uplink down.
fn is_everybody(e: &Evidence) -> bool {
    let asked = e.elsewhere.unasked == 0 && site(e).unasked == 0;
    may_be_gateway(e) && (e.cut_off.is_some() || asked && e.elsewhere.silent >= EVERYWHERE)
}

/// Returns whether several hosts of the site fell silent together, and none of them was ok since.
fn is_whole_site(e: &Evidence) -> bool {
    let Others { heard, silent, unasked } = site(e);
    heard == 0 && unasked == 0 && silent >= TOGETHER
}

/// Returns whether the device, or another one with its key, was heard after it fell silent.
fn is_alive(e: &Evidence) -> bool {
    e.host.direct == DirectReply::Answered || e.fresh_refusal().is_some() || e.knocks_in_vain()
}

fn may_be_gateway(e: &Evidence) -> bool {
    let silent = matches!(e.host.direct, DirectReply::NotAsked | DirectReply::Silent);
    silent && e.elsewhere.heard == 0 && site(e).heard == 0 && !is_alive(e)
}

fn may_be_site(e: &Evidence) -> bool {
    site(e).heard == 0 && !is_alive(e) && !is_everybody(e)
}

/// Returns whether the tunnel alone may be down, for any reason. While device and uplink work,
/// another path replies.
fn may_be_tunnel(e: &Evidence) -> bool {
    let other_path = e.host.direct == DirectReply::Silent && e.fresh_refusal().is_none();
    e.tunnel.is_some() && !other_path && !is_shared(e)
}

fn may_be_device(e: &Evidence) -> bool {
    !is_alive(e) && !is_shared(e)
}

/// Returns whether too many hosts fell silent together for a separate cause. A sign of life proves
/// a separate cause.
fn is_shared(e: &Evidence) -> bool {
    !is_alive(e) && (is_whole_site(e) || is_everybody(e))
}

fn refused_as(refusal: Option<Refusal>) -> Option<VerdictKind> {
    match refusal? {
        Refusal::ClockWentBack { .. } => Some(VerdictKind::ClockWrong),
        Refusal::Crypto | Refusal::ReplacedKey { .. } => Some(VerdictKind::KeyRefused),
        Refusal::RateLimited => None,
    }
}

// ------------------------------------------------------------------ heard

/// Returns the finding for a host that replies, but not through its tunnel, or whose key is
/// refused.
fn path(e: &Evidence) -> Option<Finding> {
    e.tunnel.as_ref()?;
    let refused = refused_as(e.fresh_refusal());
    match refused {
        Some(kind) if is_beside_its_tunnel(e) || e.uses_replaced_key() => Some(Finding(vec![kind])),
        Some(kind) => Some(Finding(vec![kind, VerdictKind::ClonedKey])),
        None if e.host.direct == DirectReply::Answered => {
            Some(Finding(vain_knocks(e).unwrap_or_else(|| vec![VerdictKind::TunnelDown])))
        }
        None if e.host.source == ATTEMPTS => vain_knocks(e).map(Finding),
        None => None,
    }
}

/// Returns whether the host is proved alive by something other than a packet of a session.
fn is_beside_its_tunnel(e: &Evidence) -> bool {
    e.host.direct == DirectReply::Answered || e.host.source == ATTEMPTS
}

/// Returns the findings about a device that replies.
fn device(e: &Evidence) -> Vec<Finding> {
    let tunnel = e.tunnel.as_ref();
    let clock = e.skew_ms().map(|_| match e.clocks.right {
        0 => vec![VerdictKind::ClockWrong, VerdictKind::GatewayClockWrong],
        _ => vec![VerdictKind::ClockWrong],
    });
    let cloned = tunnel.is_some_and(|tunnel| !tunnel.in_turn.is_empty());
    let first = [cloned.then(|| vec![VerdictKind::ClonedKey]), clock, one_way(e)].into_iter().flatten();
    let services = hung(e).into_iter().chain(outdated(e));
    first.chain(services).chain(reported(e)).map(Finding).collect()
}

/// Returns the causes of problems that services report. They may come from another device with the
/// same key, if the address moved when they began.
fn reported(e: &Evidence) -> Option<Vec<VerdictKind>> {
    let reports = e.services_that(ServiceFacts::reports);
    let moved = e.tunnel.as_ref().and_then(|tunnel| tunnel.moved).filter(|at| e.now.since(*at) <= SETTLED);
    let is_new = |service: &&ServiceFacts| {
        // The order is unknown if the clock was set back after the move.
        let is_since = |moved: Wall| moved > e.now || is_about(moved, service.since);
        service.through_tunnel && moved.is_some_and(is_since)
    };
    match (reports.is_empty(), reports.iter().all(is_new)) {
        (true, _) => None,
        (false, true) => Some(vec![VerdictKind::ClonedKey, VerdictKind::ServiceProblem]),
        (false, false) => Some(vec![VerdictKind::ServiceProblem]),
    }
}

fn is_about(one: Wall, other: Wall) -> bool {
    one.since(other).max(other.since(one)) <= ABOUT
}

/// Returns the causes of one-way traffic: packets of the device arrive, but check after check it
/// replies to no echo, connection or handshake. Either packets to it are lost, all or most of them,
/// or the packets come from another device with its key.
fn one_way(e: &Evidence) -> Option<Vec<VerdictKind>> {
    e.host.one_way.then(|| vec![VerdictKind::OneWayLoss, VerdictKind::ClonedKey, VerdictKind::PacketLoss])
}

/// Returns the causes of outdated service problems: the last known cause, and the reasons why the
/// service could not be checked since.
fn outdated(e: &Evidence) -> BTreeSet<Vec<VerdictKind>> {
    let own = |service: &ServiceFacts| match service.is_hung() {
        true => of_hung(service, e),
        false => vec![VerdictKind::ServiceProblem],
    };
    let why = [VerdictKind::OneWayLoss, VerdictKind::PacketLoss];
    let kinds = |service| own(service).into_iter().chain(why).collect::<BTreeSet<VerdictKind>>();
    e.outdated_problems().map(kinds).map(|kinds| kinds.into_iter().collect()).collect()
}

/// Returns the causes of services that do not reply, each list once.
fn hung(e: &Evidence) -> BTreeSet<Vec<VerdictKind>> {
    e.services_that(ServiceFacts::is_hung).into_iter().map(|service| of_hung(service, e)).collect()
}

/// Returns the causes of a hung service. A path that drops large packets lets a connection open and
/// then stalls it. A path that drops what the gateway sends blocks every probe. A path that drops
/// single packets does either now and then. Echoes of two sizes, and replies to other probes,
/// distinguish them from a hung service.
pub fn of_hung(service: &ServiceFacts, e: &Evidence) -> Vec<VerdictKind> {
    use VerdictKind::{OneWayLoss, PacketLoss, PathMtu, ServiceHung};
    match (service.cause.is_stall(), service.path) {
        (true, PathCheck::LargeAnswered) => vec![ServiceHung],
        (true, PathCheck::LargeLost) => vec![PathMtu],
        (true, PathCheck::NotAsked) => vec![PathMtu, ServiceHung],
        (true, PathCheck::Lossy) => vec![PathMtu, ServiceHung, PacketLoss],
        (true, PathCheck::Silent) => vec![OneWayLoss, PathMtu, ServiceHung, PacketLoss],
        // The packets that open a connection are small.
        (false, PathCheck::LargeAnswered | PathCheck::LargeLost) => vec![ServiceHung],
        (false, PathCheck::Lossy) => vec![ServiceHung, PacketLoss],
        (false, PathCheck::NotAsked | PathCheck::Silent) => unless_unproved(service, e),
    }
}

/// Adds path causes to a probe without a reply, unless the path is proved. If the path carried no
/// other reply since, the path is in doubt. Packets that only arrive may come from another device
/// with the same key.
fn unless_unproved(service: &ServiceFacts, e: &Evidence) -> Vec<VerdictKind> {
    let tunnel = e.tunnel.as_ref().filter(|_| service.asked != RequestedResult::Nothing);
    let doubtful = match tunnel {
        None => Vec::new(),
        Some(tunnel) if service.through_tunnel => unless_answered(tunnel, service, e),
        Some(_) => unless_answered_directly(e),
    };
    match doubtful.is_empty() && !packets_may_be_lost(service, e) {
        true => vec![VerdictKind::ServiceHung],
        false => doubtful.into_iter().chain([VerdictKind::ServiceHung, VerdictKind::PacketLoss]).collect(),
    }
}

/// Whether single lost packets explain the missing replies. If three packets in ten are lost each way, one check in
/// eight gets none of its three echoes back, and so do the echoes after a stall. All checks of five minutes do not.
fn packets_may_be_lost(service: &ServiceFacts, e: &Evidence) -> bool {
    let needs_each = service.asked == RequestedResult::Echo || service.path == PathCheck::Silent;
    needs_each && e.now.since(service.since) < ALL_LOST
}

fn unless_answered(tunnel: &TunnelFacts, service: &ServiceFacts, e: &Evidence) -> Vec<VerdictKind> {
    let since = |at: Option<Wall>| at.is_some_and(|at| at >= service.since);
    match () {
        () if since(tunnel.answered) && service.path != PathCheck::Silent => Vec::new(),
        () if e.host.source == ATTEMPTS => vec![VerdictKind::KeyRefused, VerdictKind::OneWayLoss],
        () if since(tunnel.last_packet) => {
            vec![VerdictKind::TunnelDown, VerdictKind::OneWayLoss, VerdictKind::ClonedKey]
        }
        () => all_of(e).into_iter().chain([VerdictKind::OneWayLoss, VerdictKind::ClonedKey]).collect(),
    }
}

/// Adds path causes unless a direct reply excludes them. Proofs of life through the tunnel do not
/// cover the host's Internet address.
fn unless_answered_directly(e: &Evidence) -> Vec<VerdictKind> {
    match e.host.direct {
        DirectReply::Answered | DirectReply::Doubtful => Vec::new(),
        DirectReply::NotAsked | DirectReply::Silent => vec![VerdictKind::OneWayLoss, VerdictKind::LineLost],
    }
}

//! The verdict: which fault a host has, as far as the available paths show.
//!
//! A verdict claims a cause only when evidence contradicts every other one, and lists the remaining
//! causes otherwise. A missing path contradicts nothing, so with fewer paths the list only grows.
//! The one assumption is that three things do not fail in the same minutes. This module knows the
//! evidence, but not its source, and changes no state.

mod causes;
mod endpoint_flaps;
#[cfg(test)]
mod tests;
mod text;

use std::borrow::Cow;
use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::sample::Status;

use crate::messages::{Attempts, HostState, HostStatus, PathCheck, Refusal, StateType, is_answer};
use crate::time::Wall;

pub use endpoint_flaps::EndpointFlaps;

/// How long a refusal is recent. A refused device tries again every five seconds, and a keepalive
/// restarts its attempts. After this much quiet it has fallen silent, or was accepted.
const FRESH_REFUSAL: Duration = Duration::from_secs(180);
/// How long a refusal for a preshared key is recent. A wrong preshared key shows when the gateway
/// dials, and a device that is down is dialled every five minutes.
const DIALLED_AGAIN: Duration = Duration::from_secs(660);
/// Beyond this skew, logs and pictures carry wrong times and schedules are missed.
pub const MAX_SKEW_MS: u64 = 60_000;
/// A living device with another preshared key makes a handshake at once, and again every five
/// seconds. If none arrived for this long, that cause is excluded.
const TRIES_WITHIN: Duration = Duration::from_secs(16);
/// When this many other hosts of a site fell silent together with this one, they did not fail
/// separately.
const TOGETHER: u32 = 2;
/// When this many other places fell silent together, the gateway is the cause. With this one they
/// are as many as make the monitor suspect the uplink. Two or three devices are sometimes switched
/// off in the same minute.
const EVERYWHERE: u32 = 4;
/// A living host replies within this time, in nearly all cases.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// All that is known about a host, and about the hosts that fell silent with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub now: Wall,
    pub host: HostState,
    /// Since when the gateway's uplink is considered down.
    pub cut_off: Option<Wall>,
    /// The host's own tunnel, if it is a path to the host.
    pub tunnel: Option<TunnelFacts>,
    /// Whether the host has an Internet address that may be probed.
    pub second_path: bool,
    pub behind: Option<Behind>,
    pub services: Vec<ServiceFacts>,
    pub site: Option<SiteFacts>,
    /// Places elsewhere, since [`Evidence::since`]: sites, and hosts without a site.
    pub elsewhere: Others,
    pub clocks: Clocks,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TunnelFacts {
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    /// The last refused handshake.
    pub refusal: Option<(Wall, Refusal)>,
    pub attempts: Attempts,
    /// Device clock minus gateway clock.
    pub clock_skew_ms: Option<i64>,
    /// When the device last replied to something that the gateway sent through the tunnel. A packet
    /// that merely arrives proves one direction.
    pub answered: Option<Wall>,
    /// Addresses that the packets alternate between.
    pub in_turn: Vec<String>,
    /// When the packets began to come from the present address; `None`: always.
    pub moved: Option<Wall>,
}

/// The device in front of a host, by its tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub device: String,
    /// Since when the device is up by its own checks; `None`: it is not.
    pub up_since: Option<Wall>,
    /// When something that the gateway sent through its tunnel last got a reply.
    pub answered: Option<Wall>,
    /// When its tunnel last failed all attempts of a check.
    pub failed: Option<Wall>,
}

/// The state of the device's tunnel while a host behind it is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// It carried probes and replies while the host did not reply.
    Carries,
    /// It was probed, and gave no reply.
    Fails,
    /// It was not probed since then, or not often enough.
    Unknown,
}

/// The other hosts of the same place: of the same `site`, or behind the same device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteFacts {
    pub name: String,
    pub others: Others,
}

/// The hosts that were heard after this one fell silent, and those that may have fallen silent at
/// the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    pub heard: u32,
    pub silent: u32,
    /// Neither: they were ok, and since then they sent nothing and were not probed.
    pub unasked: u32,
}

/// Other devices by the state of their clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    pub right: u32,
    pub wrong: u32,
}

/// The kind of result that a service check requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestedResult {
    /// Any reply: a port, a login.
    Presence,
    /// Replies to single packets, which no system sends again: echoes.
    Echo,
    /// A value, by a command on the device.
    Value,
    /// Nothing: results are submitted.
    Nothing,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceFacts {
    pub name: String,
    pub asked: RequestedResult,
    /// The hard state; `None`: pending.
    pub status: Option<Status>,
    /// Not stale.
    pub current: bool,
    pub cause: Cause,
    /// The result of the echoes of two sizes after a stall.
    pub path: PathCheck,
    /// It was checked through the host's tunnel.
    pub through_tunnel: bool,
    /// Since when its results have this cause.
    pub since: Wall,
    pub said: String,
}

/// The possible faults, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VerdictKind {
    Ok,
    /// No result yet.
    Pending,
    GatewayUplinkLost,
    /// The device in front of the host does not reply.
    ParentDown,
    SiteUplinkLost,
    /// The network behind a device that is heard.
    LocalNetworkLost,
    KeyRefused,
    ClockWrong,
    GatewayClockWrong,
    TunnelDown,
    /// Packets arrive in one direction only.
    OneWayLoss,
    /// The connection between the host and the network that others of its site use.
    LineLost,
    DeviceGone,
    ClonedKey,
    /// Small packets pass, large ones do not.
    PathMtu,
    ServiceHung,
    /// The service replies and reports a problem.
    ServiceProblem,
    /// Single packets were lost, which is no lasting fault.
    PacketLoss,
    Undetermined,
}

impl VerdictKind {
    pub const ALL: [VerdictKind; 19] = [
        VerdictKind::Ok,
        VerdictKind::Pending,
        VerdictKind::GatewayUplinkLost,
        VerdictKind::ParentDown,
        VerdictKind::SiteUplinkLost,
        VerdictKind::LocalNetworkLost,
        VerdictKind::KeyRefused,
        VerdictKind::ClockWrong,
        VerdictKind::GatewayClockWrong,
        VerdictKind::TunnelDown,
        VerdictKind::OneWayLoss,
        VerdictKind::LineLost,
        VerdictKind::DeviceGone,
        VerdictKind::ClonedKey,
        VerdictKind::PathMtu,
        VerdictKind::ServiceHung,
        VerdictKind::ServiceProblem,
        VerdictKind::PacketLoss,
        VerdictKind::Undetermined,
    ];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            VerdictKind::Ok => "ok",
            VerdictKind::Pending => "pending",
            VerdictKind::GatewayUplinkLost => "gateway_uplink_lost",
            VerdictKind::ParentDown => "parent_down",
            VerdictKind::SiteUplinkLost => "site_uplink_lost",
            VerdictKind::LocalNetworkLost => "local_network_lost",
            VerdictKind::KeyRefused => "key_refused",
            VerdictKind::ClockWrong => "clock_wrong",
            VerdictKind::GatewayClockWrong => "gateway_clock_wrong",
            VerdictKind::TunnelDown => "tunnel_down",
            VerdictKind::OneWayLoss => "one_way_loss",
            VerdictKind::LineLost => "line_lost",
            VerdictKind::DeviceGone => "device_gone",
            VerdictKind::ClonedKey => "probable_cloned_key",
            VerdictKind::PathMtu => "path_mtu",
            VerdictKind::ServiceHung => "service_hung",
            VerdictKind::ServiceProblem => "service_problem",
            VerdictKind::PacketLoss => "packet_loss",
            VerdictKind::Undetermined => "undetermined",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: VerdictKind,
    /// For an undetermined verdict: all causes that the available paths cannot tell apart.
    pub candidates: Vec<VerdictKind>,
    pub text: String,
    /// The evidence for the verdict, a line each.
    pub evidence: Vec<String>,
}

/// One fault and its possible causes. A single kind is a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding(Vec<VerdictKind>);

pub fn judge(e: &Evidence) -> Verdict {
    let e = &*e.until_now();
    let findings = causes::findings(e);
    let first = foremost(&findings);
    let (kind, candidates) = named(first);
    let rest: Vec<&Finding> = findings.iter().filter(|finding| Some(*finding) != first).collect();
    let text = text::text(kind, &candidates, &rest, e);
    Verdict { kind, candidates, text, evidence: text::evidence(e) }
}

/// Returns the most important finding. A claim precedes a doubt; among equals the wider cause comes
/// first.
fn foremost(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().min_by_key(|finding| (finding.0.len() != 1, finding.0.first().copied()))
}

fn named(finding: Option<&Finding>) -> (VerdictKind, Vec<VerdictKind>) {
    match finding.map(|finding| finding.0.as_slice()) {
        None => (VerdictKind::Ok, Vec::new()),
        Some([kind]) => (*kind, Vec::new()),
        Some(several) => (VerdictKind::Undetermined, several.to_vec()),
    }
}

impl Evidence {
    /// Returns since when the host is silent: the time of the first probe without a reply. Signs of
    /// life of others after this time show what did not fail. If the clock was set back meanwhile,
    /// it is the time of the last check.
    pub fn since(host: &HostState, cut_off: Option<Wall>, now: Wall) -> Wall {
        let found = host.silent_since.unwrap_or_else(|| match host.status {
            HostStatus::Down => host.since,
            _ => host.last_check.max(cut_off).unwrap_or(host.since),
        });
        let asked = || host.last_check.filter(|at| *at <= now).unwrap_or(now);
        if found <= now { found } else { asked() }
    }

    /// Drops times in the future. They are from before the clock was set back, and prove nothing
    /// about a tunnel.
    fn until_now(&self) -> Cow<'_, Evidence> {
        let tunnel = self.tunnel.clone().map(|tunnel| tunnel.until(self.now));
        let behind = self.behind.clone().map(|behind| behind.until(self.now));
        if tunnel == self.tunnel && behind == self.behind {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Evidence { tunnel, behind, ..self.clone() })
    }

    /// The host is down because the result of its own check exceeds a limit.
    fn is_over_limit(&self) -> bool {
        self.host.status == HostStatus::Down && is_answer(&self.host.source)
    }

    /// Returns a refusal after the last handshake, that is, without an accepted handshake since.
    fn refusal(&self) -> Option<(Wall, Refusal)> {
        let tunnel = self.tunnel.as_ref()?;
        tunnel.refusal.filter(|(at, _)| tunnel.last_handshake.is_none_or(|done| *at > done))
    }

    /// Returns a recent refusal of a handshake that is being made now: the holder of the key is
    /// alive and its packets reach the gateway. A replayed handshake is refused too, but does not
    /// count.
    fn fresh_refusal(&self) -> Option<Refusal> {
        let within = |at: Wall, limit| self.now.since(at) <= limit;
        let (at, refusal) = self.refusal()?;
        let Attempts { refused, unproved, replaced, .. } = self.tunnel.as_ref()?.attempts;
        let (limit, attempt) = match refusal {
            // After the new key was used, the holder of the old one may be another machine.
            Refusal::ReplacedKey { replaced_at } if self.came_since(replaced_at) => return None,
            Refusal::ReplacedKey { .. } => (FRESH_REFUSAL, replaced.map(|seen| seen.last)),
            Refusal::Crypto => (DIALLED_AGAIN, unproved.map(|seen| seen.last).max(refused)),
            Refusal::ClockWentBack { .. } | Refusal::RateLimited => (FRESH_REFUSAL, refused),
        };
        let made_now = attempt.is_some_and(|attempt| within(attempt, FRESH_REFUSAL));
        (made_now && within(at, limit)).then_some(refusal)
    }

    /// The device has the old configuration and never used the new one. All other memory of it is
    /// older.
    fn uses_replaced_key(&self) -> bool {
        matches!(self.fresh_refusal(), Some(Refusal::ReplacedKey { .. }))
    }

    /// Returns whether a handshake under the new key was or may have been completed. If the key was
    /// replaced before the clock was set back, the order is unknown.
    fn came_since(&self, replaced_at: Wall) -> bool {
        let done = self.tunnel.as_ref().and_then(|tunnel| tunnel.last_handshake);
        done.is_some_and(|done| done >= replaced_at || replaced_at > self.now)
    }

    /// Returns whether recent handshakes are answered and lead to nothing. The holder of the key is
    /// alive.
    fn knocks_in_vain(&self) -> bool {
        let Some(tunnel) = &self.tunnel else { return false };
        let unproved = tunnel.attempts.unproved.map(|seen| seen.last);
        let unproved = unproved.filter(|at| tunnel.last_handshake.is_none_or(|done| *at > done));
        unproved.is_some_and(|at| self.now.since(at) <= FRESH_REFUSAL)
    }

    /// Returns whether a recent handshake was answered without a packet so far.
    fn awaits_session(&self) -> bool {
        let Some(tunnel) = &self.tunnel else { return false };
        let pending = tunnel.attempts.pending;
        let pending = pending.filter(|at| tunnel.last_handshake.is_none_or(|done| *at > done));
        pending.is_some_and(|at| self.now.since(at) <= FRESH_REFUSAL)
    }

    /// Returns whether the device may use another key, a new one or a replaced one. It may if it
    /// never used the present key, if its first handshake may still be in flight, or if one led to
    /// nothing.
    fn may_have_another_key(&self) -> bool {
        let Some(tunnel) = &self.tunnel else { return false };
        let lately = tunnel.last_packet.is_none_or(|at| self.now.since(at) <= TRIES_WITHIN);
        lately || self.awaits_session()
    }

    /// Returns what the tunnel of the parent device did while the host was silent.
    fn carriage(&self, behind: &Behind) -> Carriage {
        let silent = Evidence::since(&self.host, self.cut_off, self.now);
        let found = if self.host.status == HostStatus::Down { self.host.since.max(silent) } else { silent };
        // A check in progress has no result yet, and a check from before the silence succeeded.
        let ended = |at: &Wall| self.host.last_check.is_some_and(|done| *at <= done);
        let asked = self.host.asked_at.filter(|at| *at >= silent).filter(ended);
        // The tunnel carried this a round trip after the host was probed, so the host could have
        // replied too.
        let early = asked.map_or(found, |asked| (asked + ROUND_TRIP).min(found));
        // The tunnel may have failed and recovered between two probes. It must have been up before
        // the host fell silent, or before the host was last probed.
        let carried = |up: Wall, answered: Wall| {
            let since_asked = asked.is_some_and(|asked| up <= asked && answered >= early.max(asked));
            up <= silent && answered >= early || since_asked
        };
        if behind.up_since.zip(behind.answered).is_some_and(|(up, answered)| carried(up, answered)) {
            return Carriage::Carries;
        }
        let failed =
            behind.failed.filter(|at| *at >= silent && behind.answered.is_none_or(|done| done < *at));
        if failed.is_some() { Carriage::Fails } else { Carriage::Unknown }
    }

    /// Returns whether the failure is still soft.
    fn is_soft(&self) -> bool {
        self.host.status == HostStatus::Down && self.host.kind == StateType::Soft
    }

    fn skew_ms(&self) -> Option<i64> {
        self.tunnel.as_ref()?.clock_skew_ms.filter(|skew| is_off(*skew))
    }

    /// Returns services whose last result is not ok and is outdated, so that it does not show the
    /// present state.
    fn outdated_problems(&self) -> impl Iterator<Item = &ServiceFacts> {
        let bad = |service: &&ServiceFacts| service.status.is_some_and(|status| status != Status::Ok);
        self.services.iter().filter(|service| !service.current).filter(bad)
    }

    fn services_that(&self, is: impl Fn(&ServiceFacts) -> bool) -> Vec<&ServiceFacts> {
        self.services.iter().filter(|service| service.current && is(service)).collect()
    }
}

impl TunnelFacts {
    /// Drops times in the future. The time of the last move stays: so close to a move, a service
    /// report may come from another device.
    fn until(self, now: Wall) -> TunnelFacts {
        let come = |at: &Wall| *at <= now;
        let Attempts { refused, unproved, pending, replaced } = self.attempts;
        TunnelFacts {
            last_packet: self.last_packet.filter(come),
            last_handshake: self.last_handshake.filter(come),
            answered: self.answered.filter(come),
            refusal: self.refusal.filter(|(at, _)| come(at)),
            attempts: Attempts {
                refused: refused.filter(come),
                unproved: unproved.filter(|seen| come(&seen.last)),
                pending: pending.filter(come),
                replaced: replaced.filter(|used| come(&used.last)),
            },
            ..self
        }
    }
}

impl Behind {
    fn until(self, now: Wall) -> Behind {
        let come = |at: &Wall| *at <= now;
        let (up_since, answered) = (self.up_since.filter(come), self.answered.filter(come));
        Behind { up_since, answered, failed: self.failed.filter(come), ..self }
    }
}

/// Returns whether a clock skew exceeds the limit.
pub fn is_off(skew_ms: i64) -> bool {
    skew_ms.unsigned_abs() > MAX_SKEW_MS
}

impl ServiceFacts {
    /// The service was checked and did not reply.
    fn is_hung(&self) -> bool {
        let bad = self.status.is_some_and(|status| status != Status::Ok);
        bad && !self.cause.is_answer() && self.cause != Cause::NotTried
    }

    fn is_hung_in_itself(&self, e: &Evidence) -> bool {
        self.is_hung() && causes::of_hung(self, e) == [VerdictKind::ServiceHung]
    }

    fn is_stalled_by_its_path(&self, e: &Evidence) -> bool {
        self.is_hung() && causes::of_hung(self, e) == [VerdictKind::PathMtu]
    }

    fn reports(&self) -> bool {
        !self.is_hung() && self.status.is_some_and(|status| status != Status::Ok)
    }
}

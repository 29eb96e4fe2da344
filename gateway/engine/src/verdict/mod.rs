//! What is wrong with a host, as far as the paths at hand can tell.
//!
//! Promises to claim a cause only when every other one is contradicted by evidence, and to list what
//! is left otherwise: a path that is missing contradicts nothing, so that the list only grows with
//! fewer of them. That three things do not fail in the same minutes is the one assumption made.
//! It knows evidence, not where it comes from, and changes no state.

mod causes;
mod turns;
mod words;

use std::borrow::Cow;
use std::time::Duration;

use fleetgate_probes::cause::Cause;
use fleetgate_probes::sample::Status;

use crate::time::Wall;
use crate::wire::{Attempts, HostState, HostStatus, PathCheck, Refusal, StateType, is_answer};

pub use turns::Turns;

/// A device that is refused tries again every five seconds, and a keepalive starts it anew: after
/// this much quiet it has fallen silent, or was let in.
const FRESH_REFUSAL: Duration = Duration::from_secs(180);
/// Another preshared key shows when the gateway dials, and who is down is dialled every five minutes.
const DIALLED_AGAIN: Duration = Duration::from_secs(660);
/// Beyond this, logs and pictures carry wrong times and a schedule is missed.
pub const MAX_SKEW_MS: u64 = 60_000;
/// A living device with another preshared key makes a handshake at once, and again every five seconds: where
/// none came for so long, it is not that.
const TRIES_WITHIN: Duration = Duration::from_secs(16);
/// So many others of one place that fell silent together with this one did not fail each for itself.
const TOGETHER: u32 = 2;
/// So many other places that fell silent together are the gateway's own doing: with this one as many as let
/// the monitor doubt the gateway. Two or three devices are switched off in one minute now and then.
const EVERYWHERE: u32 = 4;
/// Within it a living host has answered, by far most times.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// Everything that is known about a host and about who fell silent with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    pub now: Wall,
    pub host: HostState,
    /// Since when the gateway itself is taken to be cut off.
    pub cut_off: Option<Wall>,
    /// Its own tunnel, where that is a way to it.
    pub tunnel: Option<TunnelFacts>,
    /// Whether it has an address on the Internet that may be asked.
    pub second_path: bool,
    pub behind: Option<Behind>,
    pub services: Vec<ServiceFacts>,
    pub site: Option<SiteFacts>,
    /// Places elsewhere: sites, and hosts that name none. Since [`Evidence::since`].
    pub elsewhere: Others,
    pub clocks: Clocks,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TunnelFacts {
    pub last_packet: Option<Wall>,
    pub last_handshake: Option<Wall>,
    /// The last handshake that was not answered.
    pub refusal: Option<(Wall, Refusal)>,
    pub attempts: Attempts,
    /// Device clock minus gateway clock.
    pub clock_skew_ms: Option<i64>,
    /// When something that the gateway sent through it was answered last. A packet that merely arrives proves
    /// one direction.
    pub answered: Option<Wall>,
    /// Addresses that its packets come from in turn.
    pub in_turn: Vec<String>,
    /// When they began to come from where they come from now; `None`: always.
    pub moved: Option<Wall>,
}

/// The device that a host stands behind, by its tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    pub device: String,
    /// Since when its own checks find it up; `None`: they do not.
    pub up_since: Option<Wall>,
    /// When something that the gateway sent through its tunnel was answered last.
    pub answered: Option<Wall>,
    /// When its tunnel was asked last and, after all attempts, answered nothing.
    pub failed: Option<Wall>,
}

/// What the tunnel of the device says of the time in which a host behind it is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriage {
    /// It carried questions and answers while the host answered nothing.
    Carries,
    /// It was asked, and answered nothing.
    Fails,
    /// It was not asked since then, or not often enough.
    Unknown,
}

/// The other hosts of the same place: of the same `site`, or behind the same device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteFacts {
    pub name: String,
    pub others: Others,
}

/// Who else was heard after this one fell silent, and who may have fallen silent in the same moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    pub heard: u32,
    pub silent: u32,
    /// Neither: they were well, and nothing came from them and nothing was asked of them since.
    pub unasked: u32,
}

/// Other devices by their clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    pub right: u32,
    pub wrong: u32,
}

/// What a service is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To answer at all: a port, a login, an echo.
    Presence,
    /// A value, by a command on the device.
    Value,
    /// Nothing: results are sent.
    Nothing,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServiceFacts {
    pub name: String,
    pub asked: Asked,
    /// Hard; `None`: pending.
    pub status: Option<Status>,
    /// Not stale.
    pub current: bool,
    pub cause: Cause,
    /// What echoes of two sizes said after a stall.
    pub path: PathCheck,
    /// It was asked through the host's tunnel.
    pub through_tunnel: bool,
    /// Since when its results have this cause.
    pub since: Wall,
    pub said: String,
}

/// What may be wrong, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Ok,
    /// No result yet.
    Pending,
    GatewayUplinkLost,
    /// What it stands behind does not answer.
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
    /// What is between the host and the network that others of its place use.
    LineLost,
    DeviceGone,
    ClonedKey,
    /// Small packets pass, large ones do not.
    PathMtu,
    ServiceHung,
    /// It answers, and says that something is not well.
    ServiceProblem,
    /// Single packets were lost, which is no fault that lasts.
    PacketLoss,
    Undetermined,
}

impl Kind {
    pub const ALL: [Kind; 19] = [
        Kind::Ok,
        Kind::Pending,
        Kind::GatewayUplinkLost,
        Kind::ParentDown,
        Kind::SiteUplinkLost,
        Kind::LocalNetworkLost,
        Kind::KeyRefused,
        Kind::ClockWrong,
        Kind::GatewayClockWrong,
        Kind::TunnelDown,
        Kind::OneWayLoss,
        Kind::LineLost,
        Kind::DeviceGone,
        Kind::ClonedKey,
        Kind::PathMtu,
        Kind::ServiceHung,
        Kind::ServiceProblem,
        Kind::PacketLoss,
        Kind::Undetermined,
    ];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Ok => "ok",
            Kind::Pending => "pending",
            Kind::GatewayUplinkLost => "gateway_uplink_lost",
            Kind::ParentDown => "parent_down",
            Kind::SiteUplinkLost => "site_uplink_lost",
            Kind::LocalNetworkLost => "local_network_lost",
            Kind::KeyRefused => "key_refused",
            Kind::ClockWrong => "clock_wrong",
            Kind::GatewayClockWrong => "gateway_clock_wrong",
            Kind::TunnelDown => "tunnel_down",
            Kind::OneWayLoss => "one_way_loss",
            Kind::LineLost => "line_lost",
            Kind::DeviceGone => "device_gone",
            Kind::ClonedKey => "probable_cloned_key",
            Kind::PathMtu => "path_mtu",
            Kind::ServiceHung => "service_hung",
            Kind::ServiceProblem => "service_problem",
            Kind::PacketLoss => "packet_loss",
            Kind::Undetermined => "undetermined",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub kind: Kind,
    /// Of what is undetermined: all that the paths at hand cannot tell apart.
    pub candidates: Vec<Kind>,
    pub text: String,
    /// What it rests on, a line each.
    pub evidence: Vec<String>,
}

/// One thing that is wrong: what it can be. A single kind is a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding(Vec<Kind>);

pub fn judge(e: &Evidence) -> Verdict {
    let e = &*e.until_now();
    let findings = causes::findings(e);
    let first = foremost(&findings);
    let (kind, candidates) = named(first);
    let rest: Vec<&Finding> = findings.iter().filter(|finding| Some(*finding) != first).collect();
    let text = words::text(kind, &candidates, &rest, e);
    Verdict { kind, candidates, text, evidence: words::evidence(e) }
}

/// A claim says more than a doubt; among equals the wider cause comes first.
fn foremost(findings: &[Finding]) -> Option<&Finding> {
    findings.iter().min_by_key(|finding| (finding.0.len() != 1, finding.0.first().copied()))
}

fn named(finding: Option<&Finding>) -> (Kind, Vec<Kind>) {
    match finding.map(|finding| finding.0.as_slice()) {
        None => (Kind::Ok, Vec::new()),
        Some([kind]) => (*kind, Vec::new()),
        Some(several) => (Kind::Undetermined, several.to_vec()),
    }
}

impl Evidence {
    /// Since when it is silent: when the first question was asked that nothing answered. What others did after
    /// this says what did not fail. Where the clock was set back meanwhile, that is when it was asked last.
    pub fn since(host: &HostState, cut_off: Option<Wall>, now: Wall) -> Wall {
        let found = host.silent_since.unwrap_or_else(|| match host.status {
            HostStatus::Down => host.since,
            _ => host.last_check.max(cut_off).unwrap_or(host.since),
        });
        let asked = || host.last_check.filter(|at| *at <= now).unwrap_or(now);
        if found <= now { found } else { asked() }
    }

    /// A time in the future is from before the clock was set back, and says nothing of a tunnel.
    fn until_now(&self) -> Cow<'_, Evidence> {
        let tunnel = self.tunnel.clone().map(|tunnel| tunnel.until(self.now));
        let behind = self.behind.clone().map(|behind| behind.until(self.now));
        if tunnel == self.tunnel && behind == self.behind {
            return Cow::Borrowed(self);
        }
        Cow::Owned(Evidence { tunnel, behind, ..self.clone() })
    }

    /// It is down because its own check answered with more than it may.
    fn is_over_limit(&self) -> bool {
        self.host.status == HostStatus::Down && is_answer(&self.host.source)
    }

    /// A refusal after the last handshake: nobody was let in since.
    fn refusal(&self) -> Option<(Wall, Refusal)> {
        let tunnel = self.tunnel.as_ref()?;
        tunnel.refusal.filter(|(at, _)| tunnel.last_handshake.is_none_or(|done| *at > done))
    }

    /// A refusal of just now, with a sign that what is refused is made now: whoever has the key is alive
    /// and its way here is open. A captured handshake that is sent again is refused too, and is none.
    fn fresh_refusal(&self) -> Option<Refusal> {
        let within = |at: Wall, limit| self.now.since(at) <= limit;
        let (at, refusal) = self.refusal()?;
        let Attempts { refused, unproved, replaced, .. } = self.tunnel.as_ref()?.attempts;
        let (limit, attempt) = match refusal {
            // Once the new key was used, whoever has the old one may be another machine.
            Refusal::ReplacedKey { replaced_at } if self.came_since(replaced_at) => return None,
            Refusal::ReplacedKey { .. } => (FRESH_REFUSAL, replaced.map(|seen| seen.last)),
            Refusal::Crypto => (DIALLED_AGAIN, unproved.map(|seen| seen.last).max(refused)),
            Refusal::ClockWentBack { .. } | Refusal::RateLimited => (FRESH_REFUSAL, refused),
        };
        let made_now = attempt.is_some_and(|attempt| within(attempt, FRESH_REFUSAL));
        (made_now && within(at, limit)).then_some(refusal)
    }

    /// It has the configuration of before and never came with the new one: what else is remembered of it is
    /// from before.
    fn uses_replaced_key(&self) -> bool {
        matches!(self.fresh_refusal(), Some(Refusal::ReplacedKey { .. }))
    }

    /// A handshake under the key that replaced another was completed, or may have been: if the key was replaced
    /// before the clock was set back, nothing tells which came first.
    fn came_since(&self, replaced_at: Wall) -> bool {
        let done = self.tunnel.as_ref().and_then(|tunnel| tunnel.last_handshake);
        done.is_some_and(|done| done >= replaced_at || replaced_at > self.now)
    }

    /// Handshakes of just now that are answered, and nothing comes of it: whoever has the key is alive.
    fn knocks_in_vain(&self) -> bool {
        let Some(tunnel) = &self.tunnel else { return false };
        let unproved = tunnel.attempts.unproved.map(|seen| seen.last);
        let unproved = unproved.filter(|at| tunnel.last_handshake.is_none_or(|done| *at > done));
        unproved.is_some_and(|at| self.now.since(at) <= FRESH_REFUSAL)
    }

    /// A handshake of just now was answered, and nothing came of it yet.
    fn awaits_session(&self) -> bool {
        let Some(tunnel) = &self.tunnel else { return false };
        let pending = tunnel.attempts.pending;
        let pending = pending.filter(|at| tunnel.last_handshake.is_none_or(|done| *at > done));
        pending.is_some_and(|at| self.now.since(at) <= FRESH_REFUSAL)
    }

    /// Nothing excludes yet that it came back with another key, or goes on with one that was replaced: it never
    /// came under the present one, its first handshake may still be on its way, or one came and led to nothing.
    fn may_have_another_key(&self) -> bool {
        let Some(tunnel) = &self.tunnel else { return false };
        let lately = tunnel.last_packet.is_none_or(|at| self.now.since(at) <= TRIES_WITHIN);
        lately || self.awaits_session()
    }

    /// What the tunnel of the device before it did while it was silent.
    fn carriage(&self, behind: &Behind) -> Carriage {
        let silent = Evidence::since(&self.host, self.cut_off, self.now);
        let found = if self.host.status == HostStatus::Down { self.host.since.max(silent) } else { silent };
        // A check that is under way has found nothing yet, and one from before the silence was answered.
        let ended = |at: &Wall| self.host.last_check.is_some_and(|done| *at <= done);
        let asked = self.host.asked_at.filter(|at| *at >= silent).filter(ended);
        // What the tunnel carried a round trip after the host was asked, the host could have answered too.
        let early = asked.map_or(found, |asked| (asked + ROUND_TRIP).min(found));
        // The tunnel may have broken down and come back between two questions: it was up before the host fell
        // silent, or before it was asked last.
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

    /// It failed, and not often enough to be believed.
    fn is_soft(&self) -> bool {
        self.host.status == HostStatus::Down && self.host.kind == StateType::Soft
    }

    fn skew_ms(&self) -> Option<i64> {
        self.tunnel.as_ref()?.clock_skew_ms.filter(|skew| is_off(*skew))
    }

    /// That were not well when they were asked last, which says nothing of now.
    fn outdated_problems(&self) -> impl Iterator<Item = &ServiceFacts> {
        let bad = |service: &&ServiceFacts| service.status.is_some_and(|status| status != Status::Ok);
        self.services.iter().filter(|service| !service.current).filter(bad)
    }

    fn services_that(&self, is: impl Fn(&ServiceFacts) -> bool) -> Vec<&ServiceFacts> {
        self.services.iter().filter(|service| service.current && is(service)).collect()
    }
}

impl TunnelFacts {
    /// When its packets began to come from elsewhere stays: so close to a move, a service that reports may be
    /// another device's.
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

/// Whether a clock is wrong by this much.
pub fn is_off(skew_ms: i64) -> bool {
    skew_ms.unsigned_abs() > MAX_SKEW_MS
}

impl ServiceFacts {
    /// Asked, and nothing came back.
    fn is_hung(&self) -> bool {
        let bad = self.status.is_some_and(|status| status != Status::Ok);
        bad && !self.cause.is_answer() && self.cause != Cause::NotTried
    }

    fn is_hung_in_itself(&self, e: &Evidence) -> bool {
        self.is_hung() && causes::of_hung(self, e) == [Kind::ServiceHung]
    }

    fn is_stalled_by_its_path(&self, e: &Evidence) -> bool {
        self.is_hung() && causes::of_hung(self, e) == [Kind::PathMtu]
    }

    fn reports(&self) -> bool {
        !self.is_hung() && self.status.is_some_and(|status| status != Status::Ok)
    }
}

#[cfg(test)]
mod tests;

//! The text of a verdict and of its evidence. This module decides nothing.

use fleetgate_probes::sample::Status;

use super::{Carriage, Clocks, Evidence, Finding, Others, ServiceFacts, VerdictKind};
use crate::calendar::moment;
use crate::messages::{DirectReply, HostStatus, PathCheck, Refusal};
use crate::time::{Wall, age};

/// Services named in one sentence. The complete list is next to it.
const MAX_NAMED: usize = 3;

pub fn text(kind: VerdictKind, candidates: &[VerdictKind], rest: &[&Finding], e: &Evidence) -> String {
    let main = match kind {
        VerdictKind::Undetermined => format!("undetermined: {}", either(candidates, e)),
        kind => claim(kind, e),
    };
    rest.iter().fold(main, |text, finding| match finding.0.as_slice() {
        [kind] => format!("{text}; also: {}", claim(*kind, e)),
        several => format!("{text}; also undetermined: {}", either(several, e)),
    })
}

/// `a, b or c`.
fn either(kinds: &[VerdictKind], e: &Evidence) -> String {
    let words: Vec<String> = kinds.iter().map(|kind| candidate(*kind, e)).collect();
    match words.as_slice() {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => words.concat(),
    }
}

fn claim(kind: VerdictKind, e: &Evidence) -> String {
    match kind {
        VerdictKind::Ok if e.host.asleep => "asleep, as expected".to_owned(),
        VerdictKind::Ok => "ok".to_owned(),
        VerdictKind::Pending => "no result yet".to_owned(),
        VerdictKind::TunnelDown if e.host.direct == DirectReply::Answered => {
            "tunnel down, the device answers at its Internet address".to_owned()
        }
        VerdictKind::ClockWrong => format!("clock wrong: {}", clock(e)),
        VerdictKind::KeyRefused => format!("key refused: {}", key(e)),
        VerdictKind::ClonedKey => {
            "probably a cloned key: its packets alternate between several addresses".to_owned()
        }
        VerdictKind::ServiceHung => {
            format!("service hung: {}", named(&e.services_that(|s| s.is_hung_in_itself(e))))
        }
        VerdictKind::PathMtu => format!(
            "the path drops large packets, small ones pass: {}",
            named(&e.services_that(|s| s.is_stalled_by_its_path(e)))
        ),
        VerdictKind::ServiceProblem if e.is_over_limit() => {
            "the host answers, but its check crossed a limit".to_owned()
        }
        VerdictKind::ServiceProblem => {
            let services = e.services_that(ServiceFacts::reports);
            let s = if services.len() == 1 { "" } else { "s" };
            format!("service problem{s}: {}", named(&services))
        }
        other => candidate(other, e),
    }
}

fn candidate(kind: VerdictKind, e: &Evidence) -> String {
    let site = e.site.as_ref().map_or_else(|| "its site".to_owned(), |site| site.name.to_string());
    match kind {
        VerdictKind::GatewayUplinkLost => "gateway uplink lost".to_owned(),
        VerdictKind::ParentDown => match &e.behind {
            Some(behind) => format!("parent {} does not answer", behind.device),
            None => "its parent does not answer".to_owned(),
        },
        VerdictKind::SiteUplinkLost => format!("uplink of {site} lost"),
        VerdictKind::LocalNetworkLost => "network behind the device lost".to_owned(),
        VerdictKind::KeyRefused => "key refused".to_owned(),
        VerdictKind::ClockWrong => "clock wrong".to_owned(),
        VerdictKind::GatewayClockWrong => "gateway clock wrong".to_owned(),
        VerdictKind::TunnelDown => "only its tunnel down".to_owned(),
        VerdictKind::OneWayLoss => "packets lost in one direction".to_owned(),
        VerdictKind::LineLost => "its own line lost".to_owned(),
        VerdictKind::DeviceGone => "device gone".to_owned(),
        VerdictKind::ClonedKey => "a cloned key".to_owned(),
        VerdictKind::PathMtu => "a path that drops large packets".to_owned(),
        VerdictKind::ServiceHung => "a service that hangs".to_owned(),
        VerdictKind::ServiceProblem => "a service problem".to_owned(),
        VerdictKind::PacketLoss => "single packets lost".to_owned(),
        VerdictKind::Ok | VerdictKind::Pending | VerdictKind::Undetermined => kind.name().to_owned(),
    }
}

fn key(e: &Evidence) -> String {
    match e.refusal() {
        Some((_, Refusal::ReplacedKey { replaced_at })) => {
            format!("it uses the key that was replaced at {}", moment(replaced_at, e.now))
        }
        _ => "its handshakes come with another preshared key".to_owned(),
    }
}

fn clock(e: &Evidence) -> String {
    match (e.refusal(), e.skew_ms()) {
        (Some((_, Refusal::ClockWentBack { behind })), _) => {
            format!("its handshakes are {} behind the newest one, and are refused", age(behind))
        }
        (_, Some(skew)) => skewed(skew),
        _ => "by an unknown amount".to_owned(),
    }
}

fn skewed(skew_ms: i64) -> String {
    let way = if skew_ms < 0 { "behind" } else { "ahead" };
    format!("{} {way}", age(std::time::Duration::from_millis(skew_ms.unsigned_abs())))
}

fn named(services: &[&ServiceFacts]) -> String {
    let names: Vec<&str> = services.iter().take(MAX_NAMED).map(|service| service.name.as_str()).collect();
    match services.len().saturating_sub(MAX_NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

// ---------------------------------------------------------------- evidence

pub fn evidence(e: &Evidence) -> Vec<String> {
    let silent = e.host.status == HostStatus::Down || e.host.stale;
    let mut lines = Vec::new();
    lines.extend((!e.host.output.is_empty()).then(|| format!("last check: {}", e.host.output)));
    lines.extend(
        e.host.stale.then(|| "the last result is stale: it is older than its checks allow".to_owned()),
    );
    lines.extend(
        e.cut_off
            .map(|at| format!("the gateway's own uplink is considered down for {}", age(e.now.since(at)))),
    );
    lines.extend(tunnel(e));
    lines.extend(direct(e, silent));
    if silent {
        lines.extend(e.behind.as_ref().map(|b| format!("parent {}: {}", b.device, carriage(e.carriage(b)))));
        lines.extend(
            e.site.as_ref().map(|site| others(&format!("other hosts of {}", site.name), site.others)),
        );
        lines.push(elsewhere(e.elsewhere));
    }
    lines.extend(e.services_that(is_bad).into_iter().map(|s| format!("{}: {}", s.name, s.said)));
    lines.extend(e.outdated_problems().map(|s| format!("{}, not checked since: {}", s.name, s.said)));
    lines.extend(e.services_that(is_bad).into_iter().filter_map(path));
    lines
}

fn path(service: &ServiceFacts) -> Option<String> {
    let said = match service.path {
        PathCheck::NotAsked => return None,
        PathCheck::LargeAnswered => "large packets pass",
        PathCheck::LargeLost => "small packets pass, large ones are lost",
        PathCheck::Lossy => "some echoes are lost",
        PathCheck::Silent => "no echo is answered, small or large",
    };
    Some(format!("{}: path check: {said}", service.name))
}

fn is_bad(service: &ServiceFacts) -> bool {
    service.status.is_some_and(|status| status != Status::Ok)
}

fn tunnel(e: &Evidence) -> Vec<String> {
    let Some(tunnel) = &e.tunnel else { return Vec::new() };
    let ago = |at: Option<Wall>| at.map_or("never".to_owned(), |at| format!("{} ago", age(e.now.since(at))));
    let mut lines = vec![format!(
        "tunnel: last packet {}, last handshake {}",
        ago(tunnel.last_packet),
        ago(tunnel.last_handshake)
    )];
    lines
        .extend(e.refusal().map(|(at, refusal)| {
            format!("handshake refused {}: {}", ago(Some(at)), refused(refusal, e.now))
        }));
    lines.extend(e.skew_ms().map(|skew| {
        let Clocks { right, wrong } = e.clocks;
        format!("clock {}; clocks of other devices: {right} right, {wrong} wrong", skewed(skew))
    }));
    let turns = !tunnel.in_turn.is_empty();
    lines.extend(turns.then(|| format!("packets alternate between {}", tunnel.in_turn.join(" and "))));
    lines
}

fn refused(refusal: Refusal, now: Wall) -> String {
    match refusal {
        Refusal::ClockWentBack { behind } => {
            format!(
                "its timestamp is {} older than the newest one; its clock went back, or it was replayed",
                age(behind)
            )
        }
        Refusal::RateLimited => "too many handshakes at once".to_owned(),
        Refusal::Crypto => "the preshared key is wrong".to_owned(),
        Refusal::ReplacedKey { replaced_at } => {
            format!("made with the key that was replaced at {}", moment(replaced_at, now))
        }
    }
}

fn direct(e: &Evidence, silent: bool) -> Option<String> {
    let said = match e.host.direct {
        DirectReply::Answered => "answers",
        DirectReply::Silent => "no answer",
        DirectReply::Doubtful => "something answers, but it may be another host",
        DirectReply::NotAsked if silent && !e.second_path => {
            return Some("no second path to probe: no Internet address is set".to_owned());
        }
        DirectReply::NotAsked => return None,
    };
    Some(format!("Internet address: {said}"))
}

fn carriage(carriage: Carriage) -> &'static str {
    match carriage {
        Carriage::Carries => "its tunnel answered meanwhile",
        Carriage::Fails => "its tunnel does not answer",
        Carriage::Unknown => "its tunnel was not probed since then",
    }
}

fn elsewhere(others: Others) -> String {
    let Others { heard, silent, .. } = others;
    let s = if heard == 1 { "" } else { "s" };
    format!(
        "elsewhere: {heard} place{s} heard from since then, {silent} silent since about then{}",
        unasked(others)
    )
}

fn others(who: &str, others: Others) -> String {
    let Others { heard, silent, .. } = others;
    format!("{who}: {heard} heard from since then, {silent} silent since about then{}", unasked(others))
}

fn unasked(others: Others) -> String {
    match others.unasked {
        0 => String::new(),
        n => format!(", {n} not probed since then"),
    }
}

//! Collects the facts about a host and its surroundings for its verdict.
//!
//! It reads rows and the live status of the tunnel. The conclusion is the engine's.

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{
    Check, HostSpec, HostState, HostStatus, RoutePolicy, ServiceSpec, ServiceState,
};
use fleetgate_engine::time::Wall;
use fleetgate_engine::verdict::{
    self, Behind, Clocks, Evidence, MAX_SKEW_MS, Others, RequestedResult, ServiceFacts, SiteFacts,
    TunnelFacts, Verdict,
};

use crate::engine::live_state::LiveState;
use crate::store::hosts::Listed;
use crate::store::neighbours::{self, OtherHosts, Silent};
use crate::store::{self, SqliteConnection, events, states};

/// The label that names a site.
const SITE: &str = "site";
/// The route of a result that came through the tunnel.
const TUNNEL: &str = "tunnel";

/// Returns the verdict on a host, or `None` while the host has no state yet.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of(
    conn: &mut SqliteConnection,
    live: &LiveState,
    row: &Listed,
    spec: &HostSpec,
    now: Wall,
) -> store::Result<Option<Verdict>> {
    of_one(conn, live, row, spec, now, &mut OtherHosts::default()).await
}

/// Returns one of several verdicts of the same moment, which share the look at `other_hosts`.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn of_one(
    conn: &mut SqliteConnection,
    live: &LiveState,
    row: &Listed,
    spec: &HostSpec,
    now: Wall,
    other_hosts: &mut OtherHosts,
) -> store::Result<Option<Verdict>> {
    let Some(host) = row.state.clone() else { return Ok(None) };
    let mut tunnel = tunnel(live, row, spec, now);
    let clocks = match tunnel.as_ref().and_then(|t| t.clock_skew_ms).is_some_and(verdict::is_off) {
        true => neighbours::clocks(conn, row.id, MAX_SKEW_MS, now).await?,
        false => Clocks::default(),
    };
    let device = spec.peer.filter(|_| !spec.own_tunnel);
    let behind = match device {
        Some(device) => behind(conn, live, device, now).await?,
        None => None,
    };
    let is_silent = host.status == HostStatus::Down || host.stale;
    let cut_off = if is_silent { events::cut_off_since(conn).await? } else { None };
    let (site, elsewhere) = match is_silent {
        true => others(conn, silent(&host, tunnel.as_ref(), cut_off, now), spec, device, other_hosts).await?,
        false => Default::default(),
    };
    let place = behind.as_ref().map(|b| b.device.clone()).or_else(|| spec.labels.get(SITE).cloned());
    let services = services(conn, spec).await?;
    if let Some(tunnel) = &mut tunnel {
        tunnel.answered = tunnel.answered.max(answered(&host, &services, tunnel.last_handshake, now));
    }
    let services = services.into_iter().map(|(facts, _)| facts).collect();
    let evidence = Evidence {
        now,
        cut_off,
        tunnel,
        second_path: spec.direct.is_some() && spec.route != RoutePolicy::Tunnel,
        behind,
        services,
        site: place.map(|name| SiteFacts { name, others: site }),
        elsewhere,
        clocks,
        host,
    };
    Ok(Some(verdict::judge(&evidence)))
}

async fn others(
    conn: &mut SqliteConnection,
    silent: Silent,
    spec: &HostSpec,
    device: Option<HostId>,
    other_hosts: &mut OtherHosts,
) -> store::Result<(Others, Others)> {
    let site = spec.labels.get(SITE).map(String::as_str);
    let near = match (device, site) {
        (Some(device), _) => neighbours::beside(conn, silent, device).await?,
        (None, Some(site)) => neighbours::site(conn, silent, site).await?,
        (None, None) => Others::default(),
    };
    Ok((near, other_hosts.elsewhere(conn, silent, site).await?))
}

/// The live status is newer than the rows. It also covers the time before the clock was set back, in
/// terms of the present clock.
fn tunnel(live: &LiveState, row: &Listed, spec: &HostSpec, now: Wall) -> Option<TunnelFacts> {
    let remembered = row.tunnel.as_ref().filter(|_| spec.own_tunnel && spec.route != RoutePolicy::Direct)?;
    let status = live.peer(row.id).unwrap_or_default();
    Some(TunnelFacts {
        last_packet: status.last_packet.or(remembered.last_packet),
        last_handshake: status.last_handshake.or(remembered.last_handshake),
        refusal: status.last_refusal,
        attempts: status.attempts,
        clock_skew_ms: status.clock_skew_ms.or(remembered.clock_skew_ms),
        answered: status.last_answer,
        moved: live.moved(row.id),
        in_turn: live.in_turn(row.id, now).iter().map(ToString::to_string).collect(),
    })
}

/// The live status is newer than the rows. It has the last reply through the tunnel, which a row loses
/// when a packet spares the next check. It also has the last handshake, which a packet of its session
/// confirms.
async fn behind(
    conn: &mut SqliteConnection,
    live: &LiveState,
    device: HostId,
    now: Wall,
) -> store::Result<Option<Behind>> {
    let found = neighbours::device(conn, device, now).await?;
    let answer = live.peer(device).and_then(|status| status.last_answer.max(status.last_handshake));
    let answer = answer.filter(|at| *at <= now);
    Ok(found.map(|behind| Behind { answered: behind.answered.max(answer), ..behind }))
}

/// The last proof of life is a packet or the result of a check.
fn silent(host: &HostState, tunnel: Option<&TunnelFacts>, cut_off: Option<Wall>, now: Wall) -> Silent {
    let since = Evidence::since(host, cut_off, now);
    let packet = tunnel.and_then(|tunnel| tunnel.last_packet).filter(|at| *at <= now);
    let alive = host.last_alive.filter(|at| *at <= now).max(packet).unwrap_or(Wall::from_millis(0));
    Silent { host: host.host, since, alive, now }
}

/// Each with the time of its last result.
async fn services(
    conn: &mut SqliteConnection,
    spec: &HostSpec,
) -> store::Result<Vec<(ServiceFacts, Option<Wall>)>> {
    let rows = states::services_of(conn, spec.id).await?;
    let state = |name: &str| rows.iter().map(|row| &row.state).find(|state| state.name == name);
    let found = |service: &ServiceSpec| {
        let state = state(&service.name)?;
        Some((facts(service, state)?, state.last_check))
    };
    Ok(spec.services.iter().filter_map(found).collect())
}

/// The last reply to any probe through the host's tunnel. A time in the future, from before the clock
/// was set back, is ignored.
fn answered(
    host: &HostState,
    services: &[(ServiceFacts, Option<Wall>)],
    handshake: Option<Wall>,
    now: Wall,
) -> Option<Wall> {
    let own = host.last_check.filter(|_| matches!(host.source.as_str(), "echo" | "tcp" | "handshake"));
    let asked =
        services.iter().filter(|(facts, _)| facts.through_tunnel && facts.asked != RequestedResult::Nothing);
    let answers =
        asked.filter(|(facts, _)| facts.current && facts.status.is_some() && facts.cause.is_answer());
    answers.filter_map(|(_, at)| *at).chain(own).chain(handshake).filter(|at| *at <= now).max()
}

/// `None` for the check of the tunnel, which is judged by its packets.
fn facts(spec: &ServiceSpec, state: &ServiceState) -> Option<ServiceFacts> {
    let asked = match spec.check {
        Check::Tunnel => return None,
        Check::Ping { .. } => RequestedResult::Echo,
        Check::Tcp { .. } | Check::Ssh => RequestedResult::Presence,
        Check::Sensor(_) | Check::Command { .. } => RequestedResult::Value,
        Check::Passive | Check::Heartbeat(_) | Check::Rental => RequestedResult::Nothing,
    };
    Some(ServiceFacts {
        name: state.name.clone(),
        asked,
        status: state.hard,
        current: !state.stale,
        cause: state.result.cause,
        path: state.path,
        through_tunnel: state.route == TUNNEL,
        since: state.cause_since,
        said: state.result.text.clone(),
    })
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::Timing;
    use fleetgate_probes::cause::Cause;
    use fleetgate_probes::plugin::{Ending, PluginResult};
    use fleetgate_probes::sample::Status;

    use super::*;
    use crate::store::fixture;

    #[test]
    fn plugin_output_is_no_reply_of_the_path() {
        let spec = |check| ServiceSpec {
            name: "x".into(),
            check,
            timing: Timing::DEFAULT,
            thresholds: Vec::new(),
            usual: None,
            freshness: None,
            alerting: Default::default(),
        };
        let command = spec(Check::Command { line: "check".into() });
        for text in ["timed out after 10 s", "connected, then no SSH answer in time", "no answer within 10 s"]
        {
            let result = PluginResult::from_run(&Ending::Exit(3), text.as_bytes(), b"", false);
            let state = ServiceState { result, ..fixture::service("x", Status::Unknown) };
            assert_eq!(facts(&command, &state).map(|f| f.cause), Some(Cause::Answered), "{text}");
        }
        let ended = PluginResult::from_run(&Ending::Timeout(Timing::DEFAULT.timeout), b"OK", b"", false);
        let state = ServiceState { result: ended, ..fixture::service("x", Status::Unknown) };
        assert_eq!(facts(&command, &state).map(|f| f.cause), Some(Cause::CommandTimedOut));
    }

    #[test]
    fn only_replies_prove_both_directions() {
        let at = |seconds: i64| Wall::from_millis(seconds * 1_000);
        let host = |source: &str| HostState {
            source: source.into(),
            last_check: Some(at(50)),
            ..fixture::up(HostId::from_i64(1))
        };
        let now = at(100);
        assert_eq!(answered(&host("evidence"), &[], Some(at(10)), now), Some(at(10)), "a packet proves one");
        assert_eq!(answered(&host("echo"), &[], Some(at(10)), now), Some(at(50)));
        assert_eq!(
            answered(&host("echo"), &[], Some(at(10)), at(40)),
            Some(at(10)),
            "the clock was set back"
        );
        let service = |cause, asked, through_tunnel| {
            let facts = ServiceFacts {
                name: "x".into(),
                asked,
                status: Some(Status::Ok),
                current: true,
                cause,
                path: Default::default(),
                through_tunnel,
                since: at(0),
                said: String::new(),
            };
            (facts, Some(at(60)))
        };
        let proof = |service| answered(&host("evidence"), &[service], None, now);
        assert_eq!(proof(service(Cause::Refused, RequestedResult::Presence, true)), Some(at(60)));
        assert_eq!(proof(service(Cause::NoAnswer, RequestedResult::Presence, true)), None);
        assert_eq!(proof(service(Cause::Answered, RequestedResult::Presence, false)), None, "another way");
        assert_eq!(
            proof(service(Cause::Answered, RequestedResult::Nothing, true)),
            None,
            "it was sent unasked"
        );
    }
}

//! Gathers what is known of a host and of those around it, for its verdict.
//!
//! Reads rows and what memory has of its tunnel. What follows from it is the engine's.

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use fleetgate_engine::verdict::{
    self, Asked, Clocks, Evidence, MAX_SKEW_MS, Others, ServiceFacts, SiteFacts, TunnelFacts, Verdict,
};
use fleetgate_engine::wire::{Check, HostSpec, HostStatus, RoutePolicy, ServiceSpec, ServiceState};
use fleetgate_probes::{plugin, ssh, tcp};

use crate::live::Live;
use crate::store::around::{self, Silent};
use crate::store::hosts::Listed;
use crate::store::{self, SqliteConnection, events, states};

/// The label that names a site.
const SITE: &str = "site";

/// `None`: it was added this moment.
///
/// # Errors
/// When the database cannot be read.
pub async fn of(
    conn: &mut SqliteConnection,
    live: &Live,
    row: &Listed,
    spec: &HostSpec,
    now: Wall,
) -> store::Result<Option<Verdict>> {
    let Some(host) = row.state.clone() else { return Ok(None) };
    let tunnel = tunnel(live, row, spec, now);
    let clocks = match tunnel.as_ref().and_then(|t| t.clock_skew_ms).is_some_and(verdict::is_off) {
        true => around::clocks(conn, row.id, MAX_SKEW_MS, now).await?,
        false => Clocks::default(),
    };
    let device = spec.peer.filter(|_| !spec.own_tunnel);
    let behind = match device {
        Some(device) => around::device(conn, device).await?,
        None => None,
    };
    let is_silent = host.status == HostStatus::Down || host.stale;
    let cut_off = if is_silent { events::cut_off_since(conn).await? } else { None };
    let (site, elsewhere) = match is_silent {
        true => {
            let since = Evidence::since(&host, cut_off, now);
            others(conn, Silent { host: host.host, since, now }, spec, device).await?
        }
        false => Default::default(),
    };
    let place = behind.as_ref().map(|b| b.device.clone()).or_else(|| spec.labels.get(SITE).cloned());
    let evidence = Evidence {
        now,
        cut_off,
        tunnel,
        second_path: spec.direct.is_some() && spec.route != RoutePolicy::Tunnel,
        behind,
        services: services(conn, spec).await?,
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
) -> store::Result<(Others, Others)> {
    let site = spec.labels.get(SITE).map(String::as_str);
    let near = match (device, site) {
        (Some(device), _) => around::beside(conn, silent, device).await?,
        (None, Some(site)) => around::site(conn, silent, site).await?,
        (None, None) => Others::default(),
    };
    Ok((near, around::elsewhere(conn, silent, site).await?))
}

fn tunnel(live: &Live, row: &Listed, spec: &HostSpec, now: Wall) -> Option<TunnelFacts> {
    let remembered = row.tunnel.as_ref().filter(|_| spec.own_tunnel && spec.route != RoutePolicy::Direct)?;
    let status = live.peer(row.id).unwrap_or_default();
    Some(TunnelFacts {
        last_packet: status.last_packet.max(remembered.last_packet),
        last_handshake: status.last_handshake.max(remembered.last_handshake),
        refusal: status.last_refusal,
        attempts: status.attempts,
        clock_skew_ms: status.clock_skew_ms.or(remembered.clock_skew_ms),
        in_turn: live.in_turn(row.id, now).iter().map(ToString::to_string).collect(),
    })
}

async fn services(conn: &mut SqliteConnection, spec: &HostSpec) -> store::Result<Vec<ServiceFacts>> {
    let rows = states::services_of(conn, spec.id).await?;
    let state = |name: &str| rows.iter().map(|row| &row.state).find(|state| state.name == name);
    Ok(spec.services.iter().filter_map(|service| facts(service, state(&service.name)?)).collect())
}

/// The tunnel itself is judged by its packets.
fn facts(spec: &ServiceSpec, state: &ServiceState) -> Option<ServiceFacts> {
    let asked = match spec.check {
        Check::Tunnel => return None,
        Check::Ping { .. } | Check::Tcp { .. } | Check::Ssh => Asked::Presence,
        Check::Sensor(_) | Check::Command { .. } => Asked::Value,
        Check::Passive | Check::Heartbeat(_) => Asked::Nothing,
    };
    Some(ServiceFacts {
        name: state.name.clone(),
        asked,
        status: state.hard,
        current: !state.stale,
        answered: answered(asked, state),
        said: state.result.text.clone(),
    })
}

/// Whether anything came back: a time, a refusal of the connection or of the login, a command's own end,
/// a result.
fn answered(asked: Asked, state: &ServiceState) -> bool {
    let text = &state.result.text;
    match asked {
        Asked::Presence => {
            let measured = |label: &str| label == "time" || label == "rta";
            tcp::is_answer(text)
                || text.starts_with(ssh::KEY_CHANGED)
                || text.starts_with(ssh::LOGIN_REFUSED)
                || state.result.metrics.iter().any(|m| measured(&m.label) && m.value.is_some())
        }
        Asked::Value => !text.starts_with(plugin::TIMED_OUT),
        Asked::Nothing => state.route != "none",
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_probes::plugin::PluginResult;
    use fleetgate_probes::sample::{Metric, Status};
    use fleetgate_probes::tcp::ConnectEnd;

    use super::*;
    use crate::store::fixture;

    #[test]
    fn silence_is_told_from_a_bad_answer() {
        let state = |text: &str| ServiceState {
            result: PluginResult::critical(text.to_owned()),
            route: "tunnel".into(),
            ..fixture::service("x", Status::Critical)
        };
        let answers = |asked, text| answered(asked, &state(text));
        assert!(!answers(Asked::Presence, "port 554: no answer within 10 s"));
        let refused = fleetgate_probes::tcp::judge(554, &ConnectEnd::Refused).text;
        assert!(answers(Asked::Presence, &refused), "nothing listens there, and the host says so: {refused}");
        assert!(answers(Asked::Presence, "host key changed: pinned a, seen b; nothing was authenticated"));
        let mut lossy = state("40 % lost");
        lossy.result.metrics = vec![Metric::plain("rta", 12.5, "ms")];
        assert!(answered(Asked::Presence, &lossy));
        assert!(answers(Asked::Value, "DISK CRITICAL") && !answers(Asked::Value, "timed out after 10 s"));
        let expired = ServiceState { route: "none".into(), ..state("no result for 2 h") };
        assert!(!answered(Asked::Nothing, &expired) && answers(Asked::Nothing, "backup failed"));
    }
}

//! Converts stored and measured data of hosts to the API's types.

use std::time::Duration;

use fleetgate_engine::calendar::moment;
use fleetgate_engine::messages::{self, PeerStatus, Refusal, WireDay};
use fleetgate_engine::monitor::traffic_budget;
use fleetgate_engine::time::Wall;
use fleetgate_engine::verdict;

use super::types::{Budget, Host, HostState, Tunnel, UnprovedHandshakes, Verdict};
use crate::api::peer_drops;
use crate::api::request::ids::{self, IdKind, time_if_known};
use crate::api::services::ServiceCounts;
use crate::api::types::{Metric, not_empty};
use crate::clock;
use crate::store::hosts::{Listed, Remembered};
use crate::store::states::{host_status_name, state_type_name};

/// The parts of the partition of hosts, and the mark beside it.
pub const HOST_FILTERS: [&str; 7] = ["up", "down", "unreachable", "pending", "stale", "handled", "asleep"];

/// `live` is the tunnel state from memory. `attempts` applies to a host without a number of its
/// own.
pub fn host(row: Listed, live: Option<PeerStatus>, attempts: u32) -> Host {
    let max_attempts = i64::from(row.attempts.unwrap_or(attempts));
    Host {
        id: IdKind::Host.text(row.id),
        state: host_state(&row, max_attempts),
        name: row.name,
        labels: row.labels,
        profile: not_empty(&row.profile),
        route: row.route,
        address: row.address,
        alias: row.alias,
        via: row.via,
        direct_address: row.direct_address,
        tunnel: row.tunnel.map(|remembered| tunnel(remembered, live, row.budget)),
        services: ServiceCounts::from(row.services),
        verdict: None,
        acknowledgement: None,
        incident: row.incident.map(|id| id.to_string()),
        created_at: ids::time(row.created_at),
        removed_at: time_if_known(row.removed_at),
    }
}

pub fn verdict(found: verdict::Verdict) -> Verdict {
    Verdict {
        kind: found.kind.name().to_owned(),
        text: found.text,
        candidates: found.candidates.into_iter().map(|kind| kind.name().to_owned()).collect(),
        evidence: found.evidence,
    }
}

fn host_state(row: &Listed, max_attempts: i64) -> HostState {
    let Some(state) = &row.state else { return new_host(max_attempts) };
    HostState {
        state: host_status_name(state.hard).to_owned(),
        last_result: host_status_name(state.status).to_owned(),
        state_type: state_type_name(state.kind).to_owned(),
        attempt: i64::from(state.attempt),
        max_attempts,
        reachable: state.reachable,
        stale: state.stale,
        asleep: state.asleep,
        acknowledged: row.acknowledged,
        in_downtime: state.notification.in_downtime,
        flapping: state.notification.flapping,
        flapping_percent: state.notification.recent.percent(),
        since: Some(ids::time(state.hard_since)),
        last_check: time_if_known(state.last_check),
        next_check: time_if_known(state.next_check),
        check_requested_at: None,
        source: not_empty(&state.source),
        asked_address: state.asked.map(|address| address.to_string()),
        silent_since: time_if_known(state.silent_since),
        text: state.output.clone(),
        long_text: state.detail.long_text.clone(),
        metrics: state.detail.metrics.iter().map(Metric::from).collect(),
        parse_warnings: state.detail.warnings.clone(),
    }
}

/// Returns the state of a host between its commit and its first row.
fn new_host(max_attempts: i64) -> HostState {
    HostState {
        state: "pending".into(),
        last_result: "pending".into(),
        state_type: "hard".into(),
        attempt: 1,
        max_attempts,
        reachable: true,
        stale: false,
        asleep: false,
        acknowledged: false,
        in_downtime: false,
        flapping: false,
        flapping_percent: 0.0,
        since: None,
        last_check: None,
        next_check: None,
        check_requested_at: None,
        source: None,
        asked_address: None,
        silent_since: None,
        text: String::new(),
        long_text: String::new(),
        metrics: Vec::new(),
        parse_warnings: Vec::new(),
    }
}

/// Memory is newer than the store, but it starts empty. After the clock was set back, the store may
/// have times ahead of those of memory.
fn tunnel(remembered: Remembered, live: Option<PeerStatus>, budget: Option<u64>) -> Tunnel {
    let now = clock::wall();
    let wire = live.as_ref().map(|status| status.wire);
    let today = on_day(wire, clock::day());
    let live = live.unwrap_or_default();
    let (refused_at, refusal) = live.last_refusal.unzip();
    let skew_ms = live.clock_skew_ms.or(remembered.clock_skew_ms);
    Tunnel {
        public_key: remembered.public_key,
        established: live.established,
        endpoint: live.endpoint.map(|e| e.to_string()).or(remembered.endpoint),
        last_packet: time_if_known(live.last_packet.or(remembered.last_packet)),
        last_handshake: time_if_known(live.last_handshake.or(remembered.last_handshake)),
        clock_skew_s: skew_ms.map(|ms| ms as f64 / 1_000.0),
        last_refusal: refusal.map(|refusal| refusal_words(refusal, now)),
        unproved_handshakes: live.attempts.unproved.map(unproved),
        last_refusal_at: time_if_known(refused_at),
        rx_bytes: live.rx_bytes.max(remembered.rx_bytes),
        tx_bytes: live.tx_bytes.max(remembered.tx_bytes),
        today_bytes: today,
        yesterday_bytes: on_day(wire, clock::day() - 1).filter(|bytes| *bytes > 0),
        budget: budget.map(|bytes| paced(bytes, today.unwrap_or_default(), now)),
        handshakes: live.handshakes,
        drops: peer_drops::by_name(&live.drops),
    }
}

fn on_day(wire: Option<[WireDay; 2]>, day: i64) -> Option<u64> {
    wire.map(|days| days.iter().find(|d| d.day == day).map_or(0, WireDay::total))
}

/// Returns the present effect of the budget on a device.
fn paced(bytes_per_day: u64, used: u64, now: Wall) -> Budget {
    let stretch = traffic_budget::stretch(bytes_per_day, used, now);
    let text = match stretch {
        1 => "within its budget".to_owned(),
        n => format!("paced by its budget: its checks are {n} times as rare"),
    };
    Budget { bytes_per_day, stretch, text }
}

fn unproved(seen: messages::UnprovedHandshakes) -> UnprovedHandshakes {
    UnprovedHandshakes {
        count: seen.count,
        since: ids::time(seen.since),
        last_at: ids::time(seen.last),
        from: seen.from.to_string(),
    }
}

fn refusal_words(refusal: Refusal, now: Wall) -> String {
    match refusal {
        Refusal::ClockWentBack { behind } => format!(
            "the device's clock went back by {}, or a handshake was replayed: set the clock, or reset it here",
            about(behind)
        ),
        Refusal::RateLimited => "too many handshakes: it is answered again in a moment".to_owned(),
        Refusal::Crypto => {
            "the key is right and the rest is not: is the preshared key the right one?".to_owned()
        }
        Refusal::ReplacedKey { replaced_at } => format!(
            "it uses the key that was replaced at {}: install the configuration that was issued then",
            moment(replaced_at, now)
        ),
    }
}

/// Formats a duration in the largest suitable unit.
fn about(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..=119 => format!("{s} s"),
        120..=7_199 => format!("{} min", s / 60),
        7_200..=172_799 => format!("{} h", s / 3_600),
        _ => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleetgate_engine::messages::DropReason;

    use super::*;

    #[test]
    fn memory_is_believed_where_it_knows_more() {
        let remembered = Remembered {
            endpoint: Some("192.0.2.1:1".into()),
            last_packet: Some(Wall::from_millis(5_000)),
            rx_bytes: 7,
            clock_skew_ms: Some(1_500),
            ..Remembered::default()
        };
        let shown = tunnel(remembered.clone(), None, None);
        assert_eq!(shown.endpoint.as_deref(), Some("192.0.2.1:1"));
        assert_eq!((shown.rx_bytes, shown.clock_skew_s, shown.established), (7, Some(1.5), false));
        let live = PeerStatus {
            established: true,
            endpoint: "192.0.2.9:9".parse().ok(),
            rx_bytes: 9,
            last_refusal: Some((
                Wall::from_millis(1),
                Refusal::ClockWentBack { behind: Duration::from_secs(7_300) },
            )),
            drops: BTreeMap::from([(DropReason::SpoofedSource, 3)]),
            ..PeerStatus::default()
        };
        let shown = tunnel(remembered, Some(live), None);
        assert_eq!((shown.endpoint.as_deref(), shown.rx_bytes), (Some("192.0.2.9:9"), 9));
        assert_eq!(shown.last_packet.as_deref(), Some("1970-01-01T00:00:05Z"));
        assert!(shown.last_refusal.unwrap().contains("went back by 2 h"));
        assert_eq!(shown.drops["spoofed_source"], 3);
    }
}

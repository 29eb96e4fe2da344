//! Converts stored and measured data to the API's types. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::calendar::moment;
use fleetgate_engine::messages::{
    DropReason, IncidentId, PathCheck, PeerStatus, Refusal, ServiceState, Threshold, UnprovedHandshakes,
    WireDay,
};
use fleetgate_engine::monitor::traffic_budget;
use fleetgate_engine::time::Wall;
use fleetgate_engine::verdict::Verdict;
use fleetgate_probes::range::Range;
use fleetgate_probes::sample::Status;

use super::model;
use super::request::ids::{self, Kind};
use crate::clock;
use crate::engine::definitions;
use crate::engine::definitions::Definition;
use crate::store::acknowledgements::Acknowledgement;
use crate::store::events::EventRow;
use crate::store::hosts::{Listed, Remembered, ServiceTally, Totals, Trouble};
use crate::store::managed::Managed;
use crate::store::states::{host_status_name, state_type_name};

/// Empty means none.
pub fn profile(own: &str) -> Option<String> {
    Some(own.to_owned()).filter(|p| !p.is_empty())
}

pub fn managed(managed: &Managed) -> model::Managed {
    model::Managed { managed_by: managed.by.clone(), edited_by: managed.edited_by.clone() }
}

pub fn threshold(threshold: &Threshold) -> model::ThresholdSettings {
    let text = |range: Option<Range>| range.map(|r| r.to_string());
    let limits = threshold.limits;
    let metric = threshold.metric.clone();
    model::ThresholdSettings { metric, warn: text(limits.warn), crit: text(limits.crit) }
}

/// Empty before the first result.
fn named(name: &str) -> Option<String> {
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

fn time(at: Option<Wall>) -> Option<String> {
    at.map(ids::time)
}

pub fn overview(totals: &Totals) -> model::Overview {
    model::Overview {
        hosts: model::HostCounts {
            up: totals.up,
            down: totals.down,
            unreachable: totals.unreachable,
            pending: totals.pending,
            stale: totals.stale,
            handled: totals.handled,
            asleep: totals.asleep,
        },
        services: tally(totals.services),
        problems: totals.problems(),
        handled: totals.handled + totals.services.handled,
        last_check: time(totals.last_check),
        awaiting_approval: totals.awaiting_approval,
    }
}

fn tally(t: ServiceTally) -> model::ServiceCounts {
    model::ServiceCounts {
        ok: t.ok,
        warning: t.warning,
        critical: t.critical,
        unknown: t.unknown,
        pending: t.pending,
        stale: t.stale,
        handled: t.handled,
    }
}

/// `live` is the tunnel state from memory. `attempts` applies to a host without a number of its
/// own.
pub fn host(row: Listed, live: Option<PeerStatus>, attempts: u32) -> model::Host {
    let max_attempts = i64::from(row.attempts.unwrap_or(attempts));
    model::Host {
        id: Kind::Host.text(row.id),
        state: host_state(&row, max_attempts),
        name: row.name,
        labels: row.labels,
        profile: profile(&row.profile),
        route: row.route,
        address: row.address,
        via: row.via,
        direct_address: row.direct_address,
        tunnel: row.tunnel.map(|remembered| tunnel(remembered, live, row.budget)),
        services: tally(row.services),
        verdict: None,
        acknowledgement: None,
        incident: row.incident.map(|id| id.to_string()),
        created_at: ids::time(row.created_at),
        removed_at: time(row.removed_at),
    }
}

pub fn verdict(found: Verdict) -> model::Verdict {
    model::Verdict {
        kind: found.kind.name().to_owned(),
        text: found.text,
        candidates: found.candidates.into_iter().map(|kind| kind.name().to_owned()).collect(),
        evidence: found.evidence,
    }
}

fn host_state(row: &Listed, max_attempts: i64) -> model::HostState {
    let Some(state) = &row.state else { return new_host(max_attempts) };
    model::HostState {
        state: host_status_name(state.hard).to_owned(),
        last_result: host_status_name(state.status).to_owned(),
        state_type: state_type_name(state.kind).to_owned(),
        attempt: i64::from(state.attempt),
        max_attempts,
        reachable: state.reachable,
        stale: state.stale,
        asleep: state.asleep,
        acknowledged: row.acknowledged,
        in_downtime: state.voice.in_downtime,
        flapping: state.voice.flapping,
        flapping_percent: state.voice.recent.percent(),
        since: Some(ids::time(state.since)),
        last_check: time(state.last_check),
        next_check: time(state.next_check),
        check_requested_at: None,
        source: named(&state.source),
        asked_address: state.asked.map(|address| address.to_string()),
        silent_since: time(state.silent_since),
        text: state.output.clone(),
        long_text: state.detail.long_text.clone(),
        metrics: state.detail.metrics.iter().map(metric).collect(),
        parse_warnings: state.detail.warnings.clone(),
    }
}

/// Returns the state of a host between its commit and its first row.
fn new_host(max_attempts: i64) -> model::HostState {
    model::HostState {
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
fn tunnel(remembered: Remembered, live: Option<PeerStatus>, budget: Option<u64>) -> model::Tunnel {
    let now = clock::wall();
    let wire = live.as_ref().map(|status| status.wire);
    let today = on_day(wire, clock::day());
    let live = live.unwrap_or_default();
    let (refused_at, refusal) = live.last_refusal.unzip();
    let skew_ms = live.clock_skew_ms.or(remembered.clock_skew_ms);
    model::Tunnel {
        public_key: remembered.public_key,
        established: live.established,
        endpoint: live.endpoint.map(|e| e.to_string()).or(remembered.endpoint),
        last_packet: time(live.last_packet.or(remembered.last_packet)),
        last_handshake: time(live.last_handshake.or(remembered.last_handshake)),
        clock_skew_s: skew_ms.map(|ms| ms as f64 / 1_000.0),
        last_refusal: refusal.map(|refusal| refusal_words(refusal, now)),
        unproved_handshakes: live.attempts.unproved.map(unproved),
        last_refusal_at: time(refused_at),
        rx_bytes: live.rx_bytes.max(remembered.rx_bytes),
        tx_bytes: live.tx_bytes.max(remembered.tx_bytes),
        today_bytes: today,
        yesterday_bytes: on_day(wire, clock::day() - 1).filter(|bytes| *bytes > 0),
        budget: budget.map(|bytes| paced(bytes, today.unwrap_or_default(), now)),
        handshakes: live.handshakes,
        drops: drops(&live.drops),
    }
}

fn on_day(wire: Option<[WireDay; 2]>, day: i64) -> Option<u64> {
    wire.map(|days| days.iter().find(|d| d.day == day).map_or(0, WireDay::total))
}

/// Returns the present effect of the budget on a device.
fn paced(bytes_per_day: u64, used: u64, now: Wall) -> model::Budget {
    let stretch = traffic_budget::stretch(bytes_per_day, used, now);
    let text = match stretch {
        1 => "within its budget".to_owned(),
        n => format!("paced by its budget: its checks are {n} times as rare"),
    };
    model::Budget { bytes_per_day, stretch, text }
}

fn unproved(seen: UnprovedHandshakes) -> model::UnprovedHandshakes {
    model::UnprovedHandshakes {
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

fn drops(counted: &BTreeMap<DropReason, u64>) -> BTreeMap<String, u64> {
    counted.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
}

/// The acknowledgement and incident of a service, and whether its host is reachable.
pub struct Around<'a> {
    pub ack: Option<&'a Acknowledgement>,
    pub incident: Option<IncidentId>,
    pub reachable: bool,
    /// The time of a requested check without a result so far.
    pub requested: Option<Wall>,
}

/// `state`: absent until the service has a row.
pub fn service(
    host: &Definition,
    spec: &definitions::Service,
    state: Option<&ServiceState>,
    around: &Around<'_>,
) -> model::Service {
    let voice = state.map(|s| s.voice.clone()).unwrap_or_default();
    let name_of = |status: Option<Status>| status.map_or("pending", Status::name).to_owned();
    let result = state.map(|s| &s.result);
    model::Service {
        host: Kind::Host.text(host.id),
        host_name: host.name.clone(),
        name: spec.name.clone(),
        check: spec.check.to_owned(),
        state: name_of(state.and_then(|s| s.hard)),
        last_result: name_of(state.and_then(|s| s.status)),
        state_type: state_type_name(state.map_or_else(Default::default, |s| s.kind)).to_owned(),
        attempt: state.map_or(1, |s| i64::from(s.attempt)),
        max_attempts: i64::from(spec.attempts),
        stale: state.is_some_and(|s| s.stale),
        reachable: around.reachable,
        acknowledged: around.ack.is_some(),
        acknowledgement: around.ack.map(super::acknowledgements::shown),
        incident: around.incident.map(|id| id.to_string()),
        in_downtime: voice.in_downtime,
        flapping: voice.flapping,
        flapping_percent: voice.recent.percent(),
        since: state.map(|s| ids::time(s.since)),
        last_check: time(state.and_then(|s| s.last_check)),
        next_check: time(state.and_then(|s| s.next_check)),
        check_requested_at: time(around.requested),
        route: state.and_then(|s| named(&s.route)),
        cause: state.filter(|s| s.status.is_some()).map(|s| s.result.cause.name().to_owned()),
        asked_address: state.and_then(|s| s.asked).map(|address| address.to_string()),
        path: state.map(|s| s.path).filter(|p| *p != PathCheck::NotAsked).map(|p| p.name().to_owned()),
        text: result.map_or_else(String::new, |r| r.text.clone()),
        long_text: result.map_or_else(String::new, |r| r.long_text.clone()),
        metrics: result.map_or_else(Vec::new, |r| r.metrics.iter().map(metric).collect()),
        parse_warnings: result.map_or_else(Vec::new, |r| r.warnings.clone()),
        thresholds: spec.thresholds.iter().map(threshold).collect(),
        check_interval_s: spec.interval.as_secs_f64(),
        retry_interval_s: spec.retry.as_secs_f64(),
    }
}

fn metric(m: &fleetgate_probes::sample::Metric) -> model::Metric {
    model::Metric {
        label: m.label.clone(),
        value: m.value,
        uom: m.uom.clone(),
        warn: m.warn.map(|r| r.to_string()),
        crit: m.crit.map(|r| r.to_string()),
        min: m.min,
        max: m.max,
    }
}

pub fn problem(trouble: Trouble, verdict: Option<model::VerdictLine>) -> model::Problem {
    let service = Some(trouble.place.service.clone()).filter(|s| !s.is_empty());
    model::Problem {
        host: Kind::Host.text(trouble.host),
        since: Some(ids::time(trouble.place.since())),
        host_name: trouble.place.host_name,
        service,
        state: trouble.state,
        state_type: "hard".into(),
        acknowledged: trouble.acknowledged,
        in_downtime: trouble.in_downtime,
        handled: trouble.handled,
        flapping: trouble.flapping,
        incident: trouble.incident.map(|id| id.to_string()),
        last_check: time(trouble.last_check),
        text: trouble.output,
        verdict,
    }
}

pub fn event(row: EventRow) -> model::Event {
    let kind = match row.object.as_str() {
        "host" | "service" | "device" => Some(Kind::Host),
        "enrolment" => Some(Kind::Enrolment),
        "token" => Some(Kind::Token),
        "user" => Some(Kind::User),
        "downtime" => Some(Kind::Downtime),
        "incident" => Some(Kind::Incident),
        "contact" => Some(Kind::Contact),
        "rule" => Some(Kind::Rule),
        "message" => Some(Kind::Message),
        _ => None,
    };
    model::Event {
        seq: row.seq,
        at: ids::time(row.at),
        kind: row.kind,
        object_id: kind.and_then(|kind| row.object_id.map(|id| kind.text(id))),
        object: row.object,
        object_name: row.object_name,
        service: row.service,
        cause: row.cause,
        evidence: row.evidence.to_string(),
        truncated: row.evidence.is_truncated(),
        data: serde_json::from_str(&row.data).unwrap_or_default(),
        principal: row.principal,
    }
}

/// The parts of the partition of hosts, and the mark beside it.
pub const HOST_FILTERS: [&str; 7] = ["up", "down", "unreachable", "pending", "stale", "handled", "asleep"];

#[cfg(test)]
mod tests {
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

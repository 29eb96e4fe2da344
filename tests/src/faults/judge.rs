//! Compares the gateway's reports with the truth at each moment. This module is pure.

use std::time::Duration;

use super::observer::{Incident, Millis, ObservedNotification, Seen, Timeline};
use super::truth::{Fault, Host, Reach, World};

/// Time after a repair in which the old verdict is not yet false. The gateway notices the repair by
/// its next checks, and the tunnel recovers by the next handshake.
pub const WELL_AGAIN: Duration = Duration::from_secs(60);
/// WireGuard ends a session after three minutes. A session that was made just before the fault
/// lives longest.
const SESSION: Millis = 170_000;
/// Both sides share a clock; a handshake is recorded within this time of its packet.
const NOTED: Millis = 1_500;
/// One check's deadline on a busy machine.
const CHECKED: Millis = 6_000;
/// A page shows a requested check by its next request.
const SHOWN: Millis = 1_500;

/// A fault, and when it was injected and repaired, before and after each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub fault: Fault,
    pub begun: (Millis, Millis),
    pub ended: (Millis, Millis),
}

/// The verdict that must be reached in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Final {
    Claims(&'static str),
    /// Undetermined, with these candidates in any order: the evidence cannot distinguish them.
    Open(&'static [&'static str]),
    /// Claimed, or among the candidates: more may be proved than the gateway is sure to detect.
    Names(&'static str),
    /// Any verdict that is true at that moment, because chance decides what the evidence shows.
    True,
}

#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    pub spans: &'a [Span],
    pub hosts: &'a [Host],
    pub direct: bool,
    /// The final verdicts; hosts that are not named must have `ok`.
    pub finals: &'a [(Host, Final)],
    /// Time since the last fault began.
    pub within: Duration,
    /// Maximum number of problem messages.
    pub at_most_messages: Option<usize>,
    /// The host and time of a requested check.
    pub check_now: Option<(Host, Millis)>,
}

/// A moment with a false report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    pub at: Millis,
    pub host: String,
    pub what: String,
}

/// The final verdict on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub host: Host,
    pub said: String,
    /// Time since the last fault began; `None`: the verdict is wrong.
    pub right_after: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    pub wrong: Vec<Wrong>,
    pub ends: Vec<End>,
    /// Other failed expectations.
    pub missing: Vec<String>,
}

impl Judged {
    pub fn is_right(&self) -> bool {
        self.wrong.is_empty() && self.missing.is_empty()
    }
}

pub fn judge(case: &Case<'_>, timeline: &Timeline) -> Judged {
    let said = timeline.seen.iter().flat_map(|seen| case.seen(seen));
    let told = timeline.told.iter().filter(|told| told.is_told()).filter_map(|told| case.told(told));
    let incidents = timeline.incidents.iter().filter_map(|i| case.incident(i));
    let wrong = said.chain(told).chain(incidents).collect();
    let ends: Vec<End> = case.hosts.iter().map(|host| case.end(*host, timeline)).collect();
    let mut missing = case.late(&ends);
    missing.extend(case.ill_afterwards(timeline));
    missing.extend(case.too_many_messages(timeline));
    missing.extend(case.check_now_was_lost(timeline));
    missing.extend(timeline.failures.first().map(|first| format!("the API did not answer: {first}")));
    Judged { wrong, ends, missing }
}

impl ObservedNotification {
    /// Returns whether a message was or will be sent.
    fn is_told(&self) -> bool {
        !matches!(self.outcome.as_str(), "suppressed" | "new")
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).expect("minutes")
}

impl Span {
    /// Returns whether the fault may have been active within this time, or its traces may remain.
    fn is_possible(&self, from: Millis, to: Millis) -> bool {
        self.begun.0 <= to && from <= self.ended.1 + millis(WELL_AGAIN)
    }

    /// Returns the fault into which this one has developed.
    fn fault_at(&self, at: Millis) -> Fault {
        match self.fault {
            Fault::InLost(device) if at > self.begun.0 + SESSION => Fault::Unanswered(device),
            fault => fault,
        }
    }

    fn is_sure(&self, at: Millis) -> bool {
        self.begun.1 <= at && at <= self.ended.0
    }

    /// Returns whether the fault is repaired, or is being repaired.
    fn is_past(&self, at: Millis) -> bool {
        self.ended.0 <= at
    }
}

impl Case<'_> {
    fn world<'w>(&self, faults: &'w [Fault]) -> World<'w> {
        World { faults, direct: self.direct }
    }

    fn possible(&self, from: Millis, to: Millis) -> Vec<Fault> {
        self.spans.iter().filter(|span| span.is_possible(from, to)).map(|span| span.fault_at(to)).collect()
    }

    fn sure(&self, at: Millis) -> Vec<Fault> {
        self.spans.iter().filter(|span| span.is_sure(at)).map(|span| span.fault).collect()
    }

    fn seen(&self, seen: &Seen) -> Vec<Wrong> {
        let found = [self.false_verdict(seen), self.false_down(seen), self.false_handshake(seen)];
        let wrong = |what| Wrong { at: seen.asked, host: seen.host.name().to_owned(), what };
        found.into_iter().flatten().map(wrong).collect()
    }

    fn false_verdict(&self, seen: &Seen) -> Option<String> {
        let possible = self.possible(seen.asked, seen.answered);
        let says = self.world(&possible).says(seen.host);
        let mended = self.is_mended(seen);
        let right = match seen.kind.as_str() {
            "ok" => !self.is_overdue(seen),
            "undetermined" => {
                mended || seen.candidates.iter().any(|kind| says.listed.contains(&kind.as_str()))
            }
            "tunnel_down" | "service_problem" if mended => true,
            kind => says.claims.contains(&kind),
        };
        (!right).then(|| match seen.kind.as_str() {
            "undetermined" => format!("undetermined of {}", seen.candidates.join(", ")),
            kind => kind.to_owned(),
        })
    }

    /// Returns whether a fault of this host is being or was recently repaired, so that parts of it
    /// may not be ok yet.
    fn is_mended(&self, seen: &Seen) -> bool {
        let of_host = |fault| !self.world(&[fault]).says(seen.host).listed.is_empty();
        let spans = self.spans.iter().filter(|span| span.is_possible(seen.asked, seen.answered));
        spans.into_iter().any(|span| span.is_past(seen.answered) && of_host(span.fault))
    }

    /// Returns whether a fault has lasted longer than it takes to find it. While the gateway
    /// suspects its own uplink, failures of devices do not count.
    fn is_overdue(&self, seen: &Seen) -> bool {
        let sure: Vec<&Span> = self.spans.iter().filter(|span| span.is_sure(seen.asked)).collect();
        let found = |span: &Span| {
            let within = self.world(&[span.fault]).says(seen.host).found_within?;
            Some(span.begun.1 + millis(within))
        };
        let cut =
            sure.iter().filter(|span| span.fault == Fault::GatewayCut).filter_map(|span| found(span)).max();
        let overdue = |span: &&Span| found(span).max(cut).is_some_and(|by| seen.asked > by);
        sure.iter().any(|span| found(span).is_some() && overdue(span))
    }

    fn false_down(&self, seen: &Seen) -> Option<String> {
        let possible = self.possible(seen.asked, seen.answered);
        let reach = self.world(&possible).reach(seen.host);
        let down = seen.state == "down" && reach != Reach::Nothing;
        down.then(|| format!("DOWN although {}", alive(reach)))
    }

    /// Finds a reported handshake that was impossible. Only a packet of the new session proves a
    /// handshake.
    fn false_handshake(&self, seen: &Seen) -> Option<String> {
        let at = seen.last_handshake?;
        let sure = self.sure(at - NOTED);
        let impossible = !self.world(&sure).has_tunnel(seen.host.device()) && self.sure(at) == sure;
        impossible.then(|| "a handshake, and no session was possible".to_owned())
    }

    fn told(&self, told: &ObservedNotification) -> Option<Wrong> {
        let (possible, sure) = (self.possible(told.at, told.at), self.sure(told.at));
        let right = match (Host::named(&told.host), told.service.as_deref(), told.kind.as_str()) {
            (None, _, "problem" | "reminder") => possible.contains(&Fault::GatewayCut),
            (None, _, "recovery") => !sure.contains(&Fault::GatewayCut),
            (Some(host), None, "problem" | "reminder") => self.world(&possible).reach(host) == Reach::Nothing,
            (Some(host), None, "recovery") => self.world(&sure).reach(host) != Reach::Nothing,
            (Some(host), Some("tunnel"), "recovery") => self.world(&sure).has_tunnel(host),
            (Some(host), Some("tunnel"), "problem") => !self.world(&possible).has_tunnel(host),
            (Some(host), Some(_), "problem") => !self.world(&possible).says(host).claims.is_empty(),
            _ => true,
        };
        let service = told.service.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
        let what = format!("message: {}{service} {} ({})", told.kind, told.state, told.cause);
        (!right).then(|| Wrong { at: told.at, host: told.host.clone(), what })
    }

    fn incident(&self, incident: &Incident) -> Option<Wrong> {
        let Incident { at, cause, text, .. } = incident;
        let possible = self.possible(*at, *at);
        let right = match cause.as_str() {
            "site_lost" => possible.contains(&Fault::SiteCut),
            "gateway_uplink_lost" => possible.contains(&Fault::GatewayCut),
            "parent_down" => !self.world(&possible).has_tunnel(Host::One),
            _ => true,
        };
        (!right).then(|| Wrong { at: *at, host: "incident".to_owned(), what: format!("{cause}: {text}") })
    }

    // ------------------------------------------------------------ the end

    /// Returns when the last fault was injected.
    fn last_begun(&self) -> Millis {
        self.spans.iter().map(|span| span.begun.1).max().unwrap_or_default()
    }

    fn first_mended(&self) -> Millis {
        self.spans.iter().map(|span| span.ended.0).min().unwrap_or(Millis::MAX)
    }

    fn wanted(&self, host: Host) -> Final {
        let named = self.finals.iter().find(|(named, _)| *named == host);
        named.map_or(Final::Claims("ok"), |(_, wanted)| *wanted)
    }

    fn end(&self, host: Host, timeline: &Timeline) -> End {
        let of_host = |seen: &&Seen| seen.host == host && seen.answered <= self.first_mended();
        let seen: Vec<&Seen> = timeline.seen.iter().filter(of_host).collect();
        let wanted = self.wanted(host);
        let at_end = seen.iter().rev().take_while(|seen| wanted.is_said(seen));
        let since = at_end.last().map(|seen| seen.asked.saturating_sub(self.last_begun()).max(0));
        let right_after = since.map(|since| Duration::from_millis(since.unsigned_abs()));
        End { host, said: seen.last().map(|seen| seen.verdict()).unwrap_or_default(), right_after }
    }

    fn late(&self, ends: &[End]) -> Vec<String> {
        let late = ends.iter().filter(|end| end.right_after.is_none_or(|after| after > self.within));
        let words = |end: &End| {
            let after =
                end.right_after.map_or(String::new(), |after| format!(" after {} s", after.as_secs()));
            format!(
                "{}: {}{after}, wanted {} within {} s",
                end.host.name(),
                end.said,
                self.wanted(end.host).words(),
                self.within.as_secs()
            )
        };
        late.map(words).collect()
    }

    fn ill_afterwards(&self, timeline: &Timeline) -> Vec<String> {
        let last = |host: &Host| timeline.seen.iter().rev().find(|seen| seen.host == *host);
        let ill = self.hosts.iter().filter_map(last).filter(|seen| seen.state != "up" || seen.kind != "ok");
        ill.map(|seen| format!("{}: not well again: {} {}", seen.host.name(), seen.state, seen.words))
            .collect()
    }

    fn too_many_messages(&self, timeline: &Timeline) -> Option<String> {
        let of_problems = |subject: &&String| !subject.starts_with("RECOVERED");
        let told: Vec<&String> = timeline.subjects.iter().filter(of_problems).collect();
        let many = self.at_most_messages.is_some_and(|most| told.len() > most);
        many.then(|| format!("{} messages: {told:?}", told.len()))
    }

    fn check_now_was_lost(&self, timeline: &Timeline) -> Vec<String> {
        let Some((host, at)) = self.check_now else { return Vec::new() };
        let of_host = timeline.seen.iter().filter(|seen| seen.host == host && seen.asked >= at);
        let within = |limit| of_host.clone().filter(move |seen| seen.asked <= at + limit);
        let is_done = |seen: &Seen| seen.last_check.is_some_and(|checked| checked >= at);
        let shown = within(SHOWN).any(|seen| seen.check_requested.is_some() || is_done(seen));
        let done = within(CHECKED).any(is_done);
        let mut missing = Vec::new();
        missing
            .extend((!shown).then(|| format!("{}: the check that was asked for is not shown", host.name())));
        missing
            .extend((!done).then(|| format!("{}: the check that was asked for has no result", host.name())));
        missing
    }
}

impl Final {
    fn is_said(self, seen: &Seen) -> bool {
        match self {
            Final::Claims(kind) => seen.kind == kind,
            Final::Names(kind) => seen.kind == kind || seen.candidates.iter().any(|named| named == kind),
            Final::Open(candidates) => {
                seen.kind == "undetermined"
                    && seen.candidates.len() == candidates.len()
                    && seen.candidates.iter().all(|kind| candidates.contains(&kind.as_str()))
            }
            Final::True => true,
        }
    }

    fn words(self) -> String {
        match self {
            Final::Claims(kind) => kind.to_owned(),
            Final::Open(candidates) => format!("undetermined of {}", candidates.join(", ")),
            Final::Names(kind) => format!("{kind}, or a list with it"),
            Final::True => "whatever is true".to_owned(),
        }
    }
}

impl Seen {
    pub fn verdict(&self) -> String {
        match self.candidates.as_slice() {
            [] => self.kind.clone(),
            several => format!("{}: {}", self.kind, several.join(", ")),
        }
    }
}

fn alive(reach: Reach) -> &'static str {
    match reach {
        Reach::Answers => "it can be asked and answers",
        Reach::Heard => "its packets come in",
        Reach::Unseen => "the gateway is what is cut off",
        Reach::Nothing => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGUN: Millis = 100_000;
    const MENDED: Millis = 150_000;

    fn span(fault: Fault) -> Span {
        Span { fault, begun: (BEGUN - 500, BEGUN), ended: (MENDED, MENDED + 500) }
    }

    fn at(asked: Millis, host: Host, state: &str, kind: &str, candidates: &[&str]) -> Seen {
        Seen {
            asked,
            answered: asked + 20,
            host,
            state: state.into(),
            last_result: state.into(),
            text: String::new(),
            reachable: true,
            last_check: None,
            check_requested: None,
            last_handshake: Some(BEGUN - 60_000),
            kind: kind.into(),
            candidates: candidates.iter().map(|&c| c.into()).collect(),
            words: kind.into(),
            evidence: Vec::new(),
        }
    }

    fn case<'a>(spans: &'a [Span], finals: &'a [(Host, Final)]) -> Case<'a> {
        let within = Duration::from_secs(40);
        let hosts = &[Host::One];
        Case { spans, hosts, direct: false, finals, within, at_most_messages: None, check_now: None }
    }

    fn wrong(case: &Case<'_>, seen: Vec<Seen>) -> Vec<String> {
        let judged = judge(case, &Timeline { seen, ..Timeline::default() });
        judged.wrong.into_iter().map(|wrong| wrong.what).collect()
    }

    #[test]
    fn a_claim_that_another_cause_would_need_is_false_and_the_true_one_is_not() {
        let spans = [span(Fault::OutLost(Host::One))];
        let case = case(&spans, &[]);
        let said = |kind| wrong(&case, vec![at(BEGUN + 20_000, Host::One, "down", kind, &[])]);
        assert_eq!(said("device_gone"), ["device_gone"]);
        assert_eq!(said("one_way_loss"), [""; 0]);
        assert_eq!(said("gateway_uplink_lost"), ["gateway_uplink_lost"]);
    }

    #[test]
    fn a_list_without_the_true_cause_is_false() {
        let spans = [span(Fault::NewPsk(Host::One))];
        let case = case(&spans, &[]);
        let said =
            |list: &[&str]| wrong(&case, vec![at(BEGUN + 20_000, Host::One, "down", "undetermined", list)]);
        assert_eq!(said(&["tunnel_down", "device_gone"]).len(), 1);
        assert_eq!(said(&["key_refused", "device_gone"]).len(), 0);
    }

    #[test]
    fn ok_is_right_until_it_could_be_found_and_others_stay_ok() {
        let spans = [span(Fault::Off(Host::One))];
        let case = case(&spans, &[]);
        let ok = |ms, host| wrong(&case, vec![at(BEGUN + ms, host, "up", "ok", &[])]).len();
        assert_eq!((ok(5_000, Host::One), ok(45_000, Host::One), ok(45_000, Host::Two)), (0, 1, 0));
        let two = at(BEGUN + 5_000, Host::Two, "down", "device_gone", &[]);
        assert_eq!(wrong(&case, vec![two]).len(), 2, "its state and its verdict");
    }

    #[test]
    fn who_is_off_behind_a_line_of_the_gateway_that_is_cut_is_found_when_that_is() {
        let spans = [span(Fault::GatewayCut), span(Fault::Off(Host::Far))];
        let ok = |ms| wrong(&case(&spans, &[]), vec![at(BEGUN + ms, Host::Far, "up", "ok", &[])]).len();
        assert_eq!((ok(40_000), ok(49_000)), (0, 0));
        let alone = [span(Fault::Off(Host::Far))];
        let seen = vec![at(BEGUN + 40_000, Host::Far, "up", "ok", &[])];
        assert_eq!(wrong(&case(&alone, &[]), seen).len(), 1);
    }

    #[test]
    fn who_lives_is_not_down() {
        let in_lost = [span(Fault::InLost(Host::One))];
        let down = || vec![at(BEGUN + 20_000, Host::One, "down", "one_way_loss", &[])];
        assert_eq!(wrong(&case(&in_lost, &[]), down()), ["DOWN although its packets come in"]);
        let out_lost = [span(Fault::OutLost(Host::One))];
        assert_eq!(wrong(&case(&out_lost, &[]), down()), [""; 0]);
    }

    #[test]
    fn a_handshake_in_mid_fault_is_false() {
        let spans = [span(Fault::UdpBlocked(Host::One))];
        let shaken = |ms| Seen {
            last_handshake: Some(BEGUN + ms),
            ..at(BEGUN + 20_000, Host::One, "up", "tunnel_down", &[])
        };
        let case = case(&spans, &[]);
        assert_eq!(wrong(&case, vec![shaken(10_000)]).len(), 1);
        assert_eq!(wrong(&case, vec![shaken(500)]).len(), 0, "it was under way");
    }

    #[test]
    fn a_recovery_in_mid_fault_is_false_and_one_that_was_held_is_none() {
        let spans = [span(Fault::Off(Host::One))];
        let told = |ms, kind: &str, outcome: &str| ObservedNotification {
            at: BEGUN + ms,
            host: "one".into(),
            service: None,
            kind: kind.into(),
            state: "up".into(),
            outcome: outcome.into(),
            cause: String::new(),
        };
        let wrong = |told| {
            judge(&case(&spans, &[]), &Timeline { told: vec![told], ..Timeline::default() }).wrong.len()
        };
        assert_eq!(wrong(told(30_000, "recovery", "sent")), 1);
        assert_eq!(wrong(told(30_000, "recovery", "suppressed")), 0);
        assert_eq!(wrong(told(55_000, "recovery", "sent")), 0);
        assert_eq!(wrong(told(30_000, "problem", "sent")), 0);
        assert_eq!(wrong(told(-30_000, "problem", "sent")), 1);
    }

    #[test]
    fn an_incident_claims_a_cause_too() {
        let spans = [span(Fault::Off(Host::One))];
        let incident = |cause: &str| Incident {
            at: BEGUN + 9_000,
            id: "i_1".into(),
            cause: cause.into(),
            text: String::new(),
        };
        let incidents = vec![incident("site_lost"), incident("host_down"), incident("gateway_uplink_lost")];
        assert_eq!(judge(&case(&spans, &[]), &Timeline { incidents, ..Timeline::default() }).wrong.len(), 2);
    }

    #[test]
    fn the_end_is_judged_by_what_was_said_last_before_the_fault_was_mended() {
        let spans = [span(Fault::Off(Host::One))];
        let finals = [(Host::One, Final::Open(&["device_gone", "tunnel_down"]))];
        let seen = vec![
            at(BEGUN + 10_000, Host::One, "up", "ok", &[]),
            at(BEGUN + 12_000, Host::One, "down", "undetermined", &["tunnel_down", "device_gone"]),
            at(BEGUN + 48_000, Host::One, "down", "undetermined", &["tunnel_down", "device_gone"]),
            at(MENDED + 20_000, Host::One, "up", "ok", &[]),
        ];
        let judged = judge(&case(&spans, &finals), &Timeline { seen: seen.clone(), ..Timeline::default() });
        assert_eq!(judged.ends[0].right_after, Some(Duration::from_secs(12)));
        assert!(judged.is_right(), "{judged:#?}");
        let judged = judge(&case(&spans, &[]), &Timeline { seen, ..Timeline::default() });
        assert_eq!(judged.missing.len(), 1, "{judged:#?}");
    }

    #[test]
    fn a_cause_is_named_by_a_claim_or_a_list() {
        let said = |kind, list: &[&str]| {
            Final::Names("one_way_loss").is_said(&at(BEGUN, Host::One, "up", kind, list))
        };
        assert!(said("one_way_loss", &[]) && said("undetermined", &["one_way_loss", "service_hung"]));
        assert!(!said("service_hung", &[]) && !said("undetermined", &["service_hung"]));
    }

    #[test]
    fn a_check_that_was_asked_for_is_shown_and_comes_to_its_end() {
        let spans = [span(Fault::TunnelDead(Host::One))];
        let asked = BEGUN + 20_000;
        let case = Case { check_now: Some((Host::One, asked)), ..case(&spans, &[]) };
        let seen = |ms, requested: bool, checked: bool| Seen {
            check_requested: requested.then_some(asked),
            last_check: checked.then_some(asked + 2_000),
            ..at(asked + ms, Host::One, "down", "undetermined", &["tunnel_down"])
        };
        let lost = |seen: Vec<Seen>| case.check_now_was_lost(&Timeline { seen, ..Timeline::default() }).len();
        assert_eq!(lost(vec![seen(300, true, false), seen(2_500, false, true)]), 0);
        assert_eq!(lost(vec![seen(300, false, false), seen(2_500, false, true)]), 1);
        assert_eq!(lost(vec![seen(300, false, false), seen(30_000, false, true)]), 2);
    }
}

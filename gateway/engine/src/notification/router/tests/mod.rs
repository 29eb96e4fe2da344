mod upheaval;

use std::sync::Arc;

use jiff::civil;
use jiff::tz::TimeZone;

use super::*;
use crate::id::Id;
use crate::messages::{GATEWAY, IncidentId, MessageKind, SuppressReason};
use crate::notification::{MESSAGES_AN_HOUR, Selector, Severity};

const OPS: ContactId = Id::from_i64(1);
const BOSS: ContactId = Id::from_i64(2);
/// Monday, 5 January 2026, 00:00 UTC.
const MONDAY: i64 = 1_767_571_200_000;

fn contact(id: ContactId) -> Contact {
    let group_wait = Duration::from_secs(10);
    Contact {
        id,
        zone: TimeZone::UTC,
        group_wait,
        digest: None,
        digested: Wall::from_millis(MONDAY),
        capped: false,
    }
}

fn rule(contact: ContactId) -> Rule {
    Rule {
        id: contact,
        contact,
        selector: Selector::default(),
        least: Severity::Warning,
        period: None,
        delay: Duration::ZERO,
    }
}

fn one(contact_of: Contact, rule_of: Rule) -> Routing {
    Routing { contacts: vec![contact_of], rules: vec![rule_of] }
}

/// A router and its clock; hosts are numbers, all at the site `north`.
struct Harness {
    router: Router,
    secs: u64,
    last: i64,
    /// The incident of the next notices.
    incident: Option<IncidentId>,
}

impl Harness {
    fn new(routing: Routing) -> Harness {
        let mut harness = Harness { router: Router::default(), secs: 0, last: 0, incident: None };
        harness.put(Input::Configure(routing));
        harness
    }

    fn now(&self) -> Now {
        let wall = Wall::from_millis(MONDAY) + Duration::from_secs(self.secs);
        Now { mono: Mono::from_secs(self.secs), wall }
    }

    fn put(&mut self, input: Input) -> Vec<Output> {
        let now = self.now();
        self.router.handle(input, now);
        std::iter::from_fn(|| Some(self.router.poll_output()).filter(|o| !matches!(o, Output::Wait(_))))
            .collect()
    }

    /// Hands in a notice of host `host`; its number is its place in the order of all.
    fn say(&mut self, host: i64, kind: MessageKind, severity: Option<Severity>) -> Vec<String> {
        self.last += 1;
        let object = CheckableId { host: Id::from_i64(host), service: None };
        let labels = Arc::new([("site".to_owned(), "north".to_owned())].into());
        let notice = Notice {
            id: NoticeId(self.last),
            at: self.now().wall,
            object,
            labels,
            kind,
            severity,
            incident: self.incident,
        };
        words(self.put(Input::Notice(notice)))
    }

    fn down(&mut self, host: i64) -> Vec<String> {
        self.say(host, MessageKind::Problem, Some(Severity::Critical))
    }

    fn warn(&mut self, host: i64) -> Vec<String> {
        self.say(host, MessageKind::Problem, Some(Severity::Warning))
    }

    fn up(&mut self, host: i64) -> Vec<String> {
        self.say(host, MessageKind::Recovery, None)
    }

    /// Lets time pass second by second; returns the outputs, each with its second.
    fn pass(&mut self, secs: u64) -> Vec<String> {
        let mut said = Vec::new();
        for _ in 0..secs {
            self.secs += 1;
            let now = self.secs;
            said.extend(words(self.put(Input::Timeout)).into_iter().map(|w| format!("{now}: {w}")));
        }
        said
    }
}

/// Formats posts and suppressions: `1 <- 3 4/3` (contact, notices, root where it is another one).
fn words(outputs: Vec<Output>) -> Vec<String> {
    let item = |i: &Item| match i.notice == i.root {
        true => i.notice.0.to_string(),
        false => format!("{}/{}", i.notice.0, i.root.0),
    };
    let word = |output| match output {
        Output::Post { contact, items, .. } => {
            Some(format!("{} <- {}", contact.as_i64(), items.iter().map(item).collect::<Vec<_>>().join(" ")))
        }
        Output::Suppressed { contact, notice, why } => {
            let contact = contact.map_or("-".to_owned(), |c| c.as_i64().to_string());
            Some(format!("{contact} not {}: {why:?}", notice.0))
        }
        Output::Digest { contact, items } => {
            let items: Vec<_> = items.iter().map(|n| n.0).collect();
            Some(format!("{} digest {items:?}", contact.as_i64()))
        }
        Output::Waits(_) | Output::Notified { .. } | Output::Wait(_) => None,
    };
    outputs.into_iter().filter_map(word).collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn hosts_lost_together_make_one_message() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    for host in 1..=3 {
        assert_eq!(harness.down(host), NOTHING);
        assert_eq!(harness.pass(5), NOTHING);
    }
    assert_eq!(harness.pass(10), ["20: 1 <- 1 2 3"]);
}

#[test]
fn a_group_that_keeps_growing_is_sent_after_ninety_seconds() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    let mut said = Vec::new();
    for host in 0..20 {
        said.extend(harness.down(host));
        said.extend(harness.pass(5));
    }
    said.extend(harness.pass(20));
    let all = |r: std::ops::RangeInclusive<i64>| r.map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
    assert_eq!(said, [format!("90: 1 <- {}", all(1..=18)), format!("105: 1 <- {}", all(19..=20))]);
}

#[test]
fn a_recovery_continues_the_conversation_and_ends_it() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.warn(7);
    harness.pass(20);
    harness.down(7);
    harness.pass(20);
    harness.up(7);
    assert_eq!(harness.pass(20), ["50: 1 <- 3/1"]);
    harness.down(7);
    assert_eq!(harness.pass(10), ["70: 1 <- 4"]);
}

#[test]
fn problems_and_recoveries_of_one_group_are_sent_in_order() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.down(7);
    harness.up(7);
    assert_eq!(harness.pass(10), ["10: 1 <- 1 2/1"]);
    assert_eq!(harness.up(7), ["1 not 3: NeverTold"]);
}

#[test]
fn without_a_wait_everything_leaves_at_once() {
    let hasty = Contact { group_wait: Duration::ZERO, ..contact(OPS) };
    let mut harness = Harness::new(one(hasty, rule(OPS)));
    assert_eq!(harness.down(7), ["1 <- 1"]);
    assert_eq!(harness.up(7), ["1 <- 2/1"]);
}

#[test]
fn a_filtered_warning_has_no_recovery_and_a_notified_problem_always_has_one() {
    let strict = Rule { least: Severity::Critical, ..rule(OPS) };
    let mut harness = Harness::new(one(contact(OPS), strict));
    assert_eq!(harness.warn(7), ["1 not 1: BelowSeverity(Critical)"]);
    assert_eq!(harness.up(7), ["1 not 2: NeverTold"]);
    harness.down(7);
    assert_eq!(harness.pass(10), ["10: 1 <- 3"]);
    assert_eq!(harness.warn(7), ["1 not 4: BelowSeverity(Critical)"]);
    harness.up(7);
    assert_eq!(harness.pass(10), ["20: 1 <- 5/3"]);
}

#[test]
fn every_contact_with_a_rule_is_notified_of_the_gateway() {
    let south = Selector([("site".to_owned(), "south".to_owned())].into());
    let mut harness = Harness::new(one(contact(OPS), Rule { selector: south, ..rule(OPS) }));
    assert_eq!(harness.down(7), ["- not 1: NoRule"]);
    harness.down(GATEWAY.as_i64());
    assert_eq!(harness.pass(10), ["10: 1 <- 2"]);
    harness.up(GATEWAY.as_i64());
    assert_eq!(harness.pass(10), ["20: 1 <- 3/2"]);
}

fn escalating() -> Routing {
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let late = Rule { least: Severity::Critical, delay: minutes(30), ..rule(BOSS) };
    Routing { contacts: vec![contact(OPS), contact(BOSS)], rules: vec![rule(OPS), late] }
}

#[test]
fn an_unacknowledged_problem_escalates() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.pass(600);
    harness.down(7);
    assert_eq!(harness.pass(1_220), ["610: 1 <- 2/1", "1810: 2 <- 2"]);
    harness.up(7);
    assert_eq!(harness.pass(10), ["1830: 1 <- 3/1", "1830: 2 <- 3/2"]);
}

#[test]
fn an_acknowledged_or_short_problem_does_not_escalate() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.pass(60);
    let answer = harness.say(7, MessageKind::Acknowledged, Some(Severity::Critical));
    assert_eq!(answer, ["2 not 1: Acknowledged", "2 not 2: NeverTold"]);
    assert_eq!(harness.pass(3_600), ["70: 1 <- 2/1"]);
    harness.up(7);
    harness.pass(10);
    harness.down(7);
    harness.pass(60);
    assert_eq!(harness.up(7), ["2 not 4: OverBefore(NoticeId(5))", "2 not 5: NeverTold"]);
}

#[test]
fn an_acknowledgement_that_is_not_notified_ends_the_delay_too() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.down(8);
    harness.pass(60);
    let taken_care_of = CheckableId { host: Id::from_i64(7), service: None };
    assert_eq!(words(harness.put(Input::Acknowledged(taken_care_of))), ["2 not 1: Acknowledged"]);
    assert_eq!(harness.pass(1_800), ["1810: 2 <- 2"]);
}

#[test]
fn a_reminder_reaches_notified_contacts_and_starts_the_delay_of_the_others() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.say(7, MessageKind::Acknowledged, Some(Severity::Critical));
    harness.pass(60);
    harness.say(7, MessageKind::Reminder, Some(Severity::Critical));
    assert_eq!(harness.pass(2_000), ["70: 1 <- 3/1", "1870: 2 <- 3"]);
}

fn office() -> Routing {
    one(contact(OPS), Rule { period: Some("mon-fri 08:00-18:00".parse().unwrap()), ..rule(OPS) })
}

const EIGHT: u64 = 8 * 3_600;

#[test]
fn outside_of_its_period_a_problem_waits_and_only_the_last_state_is_sent() {
    let mut harness = Harness::new(office());
    harness.warn(7);
    harness.pass(60);
    assert_eq!(harness.down(7), ["1 not 1: Superseded(NoticeId(2))"]);
    assert_eq!(harness.pass(EIGHT), [format!("{}: 1 <- 2", EIGHT + 10)]);
}

#[test]
fn a_problem_that_ended_before_the_period_is_not_sent() {
    let mut harness = Harness::new(office());
    harness.down(7);
    harness.pass(60);
    assert_eq!(harness.up(7), ["1 not 1: OverBefore(NoticeId(2))", "1 not 2: NeverTold"]);
    assert_eq!(harness.pass(EIGHT + 60), NOTHING);
}

#[test]
fn a_recovery_outside_of_the_period_is_sent_at_its_start_unless_the_problem_is_back() {
    let mut harness = Harness::new(office());
    harness.secs = 17 * 3_600;
    harness.down(7);
    harness.pass(2 * 3_600);
    assert_eq!(harness.up(7), NOTHING);
    harness.pass(60);
    assert_eq!(harness.down(7), ["1 not 2: Superseded(NoticeId(3))"]);
    let morning = 24 * 3_600 + EIGHT;
    let night = morning - harness.secs;
    assert_eq!(harness.pass(night), [format!("{morning}: 1 not 3: AlreadyTold")]);
    harness.up(7);
    assert_eq!(harness.pass(10), [format!("{}: 1 <- 4/1", morning + 10)]);
}

#[test]
fn a_reminder_does_not_wait_for_the_period() {
    let mut harness = Harness::new(office());
    harness.secs = 17 * 3_600;
    harness.down(7);
    harness.pass(2 * 3_600);
    let reminder = harness.say(7, MessageKind::Reminder, Some(Severity::Critical));
    assert_eq!(reminder, ["1 not 2: OutsidePeriod"]);
}

#[test]
fn a_contact_without_a_matching_rule_gets_nothing() {
    let south = Selector([("site".to_owned(), "south".to_owned())].into());
    let mut harness = Harness::new(one(contact(OPS), Rule { selector: south, ..rule(OPS) }));
    assert_eq!(harness.down(7), ["- not 1: NoRule"]);
    assert_eq!(harness.up(7), ["- not 2: NoRule"]);
    let mut nobody = Harness::new(Routing::default());
    assert_eq!(nobody.down(7), ["- not 1: NoContact"]);
}

#[test]
fn waiting_notices_of_a_removed_contact_or_host_are_suppressed() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.down(8);
    let mut gone = words(harness.put(Input::Forget(of_host(7))));
    gone.sort();
    assert_eq!(gone, ["1 not 1: HostRemoved", "2 not 1: HostRemoved"]);
    let gone =
        words(harness.put(Input::Configure(Routing { contacts: vec![contact(BOSS)], ..escalating() })));
    assert_eq!(gone, ["1 not 2: ContactRemoved"]);
    assert_eq!(harness.pass(1_900), ["1810: 2 <- 2"]);
}

#[test]
fn a_digest_comes_daily_without_fresh_problems() {
    let morning = Contact { digest: Some(civil::time(8, 0, 0, 0)), ..contact(OPS) };
    let mut harness = Harness::new(one(morning, rule(OPS)));
    harness.down(7);
    harness.pass(EIGHT - 60);
    harness.down(8);
    assert_eq!(harness.pass(60), [format!("{}: 1 <- 2", EIGHT - 50), format!("{EIGHT}: 1 digest [1]")]);
    assert_eq!(harness.pass(24 * 3_600), [format!("{}: 1 digest [1, 2]", EIGHT + 24 * 3_600)]);
}

#[test]
fn a_wait_survives_a_restart_and_a_clock_that_is_set_back() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    let rule_delay = Duration::from_secs(1_800);
    let notice = |id| Notice {
        id: NoticeId(id),
        at: harness.now().wall,
        object: CheckableId { host: Id::from_i64(id), service: None },
        labels: Arc::default(),
        kind: MessageKind::Problem,
        severity: Some(Severity::Critical),
        incident: None,
    };
    let day_later = harness.now().wall + Duration::from_secs(86_400);
    let waits = |contact, id, why| Waiting { contact, notice: notice(id), why, until: day_later, rule: None };
    let waiting = vec![
        waits(OPS, 4, WaitFor::Group),
        waits(BOSS, 5, WaitFor::Delay),
        waits(Id::from_i64(9), 6, WaitFor::Group),
    ];
    let router = Router::restore(escalating(), Vec::new(), waiting, &[], harness.now());
    let mut harness = Harness { router, secs: 0, last: 6, incident: None };
    assert_eq!(harness.pass(1), ["1: 9 not 6: ContactRemoved"]);
    assert_eq!(harness.pass(rule_delay.as_secs() + 20), ["10: 1 <- 4", "1810: 2 <- 5"]);
}

fn incident(n: i64) -> IncidentId {
    IncidentId(Id::from_i64(n))
}

#[test]
fn problems_that_join_one_incident_leave_as_one_message() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.incident = Some(incident(1));
    harness.down(7);
    harness.pass(5);
    // A notice of another site would otherwise leave alone.
    harness.last += 1;
    let object = CheckableId { host: Id::from_i64(8), service: Some("ping".into()) };
    let (id, at, kind) = (NoticeId(harness.last), harness.now().wall, MessageKind::Problem);
    let severity = Some(Severity::Critical);
    let labels = Arc::new([("site".to_owned(), "south".to_owned())].into());
    let other = Notice { id, at, object, labels, kind, severity, incident: Some(incident(2)) };
    harness.put(Input::Notice(other));
    harness.pass(3);
    let wide = [(incident(1), incident(1)), (incident(2), incident(1))];
    harness.put(Input::IncidentRoots(wide.into()));
    assert_eq!(harness.pass(20), ["15: 1 <- 1 2"]);
    harness.incident = Some(incident(2));
    harness.down(9);
    harness.incident = Some(incident(1));
    harness.down(10);
    assert_eq!(harness.pass(20), ["38: 1 <- 3 4"], "what joins it goes together too");
}

#[test]
fn a_contact_that_had_too_many_messages_gets_the_rest_in_one() {
    let mut harness =
        Harness::new(one(Contact { capped: true, group_wait: Duration::ZERO, ..contact(OPS) }, rule(OPS)));
    let mut told = Vec::new();
    for host in 0..40 {
        told.extend(harness.down(host));
        told.extend(harness.pass(1));
    }
    assert_eq!(told.len(), MESSAGES_AN_HOUR);
    let rest = harness.pass(300);
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(rest[0].ends_with("<- 31 32 33 34 35 36 37 38 39 40"), "{rest:?}");
    harness.down(50);
    assert_eq!(harness.pass(288), NOTHING);
    assert_eq!(harness.pass(1).len(), 1);
    harness.pass(3_600);
    assert_eq!(harness.down(51), ["1 <- 42"], "an hour later all is as it was");
}

#[test]
fn the_delay_restarts_when_the_acknowledgement_ends() {
    let delayed = Rule { delay: Duration::from_secs(900), ..rule(OPS) };
    let mut harness = Harness::new(one(Contact { group_wait: Duration::ZERO, ..contact(OPS) }, delayed));
    harness.down(7);
    harness.pass(60);
    let object = CheckableId { host: Id::from_i64(7), service: None };
    assert_eq!(words(harness.put(Input::Acknowledged(object.clone()))), ["1 not 1: Acknowledged"]);
    assert_eq!(harness.pass(3_000), NOTHING);
    let notice = Notice {
        id: NoticeId(1),
        at: harness.now().wall,
        object,
        labels: Arc::default(),
        kind: MessageKind::Problem,
        severity: Some(Severity::Critical),
        incident: None,
    };
    let ended = Input::AcknowledgementEnded { contact: OPS, notice };
    harness.put(ended.clone());
    assert_eq!(harness.pass(899), NOTHING);
    assert_eq!(harness.pass(1).len(), 1);
    assert_eq!(words(harness.put(ended)), NOTHING, "it was told");
}

fn of_host(host: i64) -> CheckableId {
    CheckableId { host: Id::from_i64(host), service: None }
}

/// The suppressed hosts; no other is suppressed.
fn stands(standing: &[(i64, Suppression)]) -> Input {
    Input::Stands(standing.iter().map(|(host, standing)| (of_host(*host), *standing)).collect())
}

const DOWNTIME: Suppression = Suppression::Silent(SuppressReason::Downtime);

#[test]
fn an_escalation_waits_for_the_end_of_a_downtime_that_began_meanwhile() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.pass(600);
    harness.put(stands(&[(7, DOWNTIME)]));
    assert_eq!(harness.pass(3_000), NOTHING);
    harness.put(stands(&[]));
    assert_eq!(harness.pass(12), ["3611: 2 <- 1"]);
    harness.up(7);
    assert_eq!(harness.pass(10), ["3622: 1 <- 2/1", "3622: 2 <- 2/1"]);
}

#[test]
fn a_problem_that_ended_during_the_suppression_is_not_sent() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.pass(600);
    harness.put(stands(&[(7, DOWNTIME)]));
    harness.pass(3_000);
    harness.put(stands(&[]));
    assert_eq!(harness.up(7), ["2 not 1: OverBefore(NoticeId(2))", "2 not 2: NeverTold"]);
    harness.pass(20);
    harness.down(8);
    harness.pass(20);
    harness.put(stands(&[(8, Suppression::Well)]));
    assert_eq!(harness.pass(1_800), ["5420: 2 not 3: Over"]);
}

#[test]
fn grouped_and_capped_notices_stay_when_a_suppression_begins() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.down(7);
    harness.down(8);
    harness.pass(5);
    harness.put(stands(&[(7, DOWNTIME)]));
    assert_eq!(harness.pass(20), ["10: 1 <- 2"]);
    harness.put(stands(&[]));
    assert_eq!(harness.pass(20), ["36: 1 <- 1"]);
    harness.put(stands(&[(8, Suppression::Silent(SuppressReason::Unreachable))]));
    harness.up(8);
    assert_eq!(harness.pass(20), ["55: 1 <- 3/2"], "an end that was said is told");
}

#[test]
fn an_acknowledged_problem_that_gets_worse_is_not_sent() {
    let period = Some("mon-sun 08:00-18:00".parse().unwrap());
    let mut harness = Harness::new(one(contact(OPS), Rule { period, ..rule(OPS) }));
    harness.pass(8 * 3_600);
    harness.warn(7);
    harness.pass(10 * 3_600);
    harness.down(7);
    harness.put(stands(&[(7, Suppression::Silent(SuppressReason::Acknowledged))]));
    assert_eq!(harness.pass(14 * 3_600), NOTHING);
    harness.put(stands(&[]));
    assert_eq!(harness.pass(20).len(), 1);
}

#[test]
fn a_host_that_joins_an_incident_escalates_with_it() {
    let mut harness = Harness::new(escalating());
    harness.incident = Some(IncidentId(Id::from_i64(1)));
    harness.down(7);
    harness.pass(1_200);
    harness.down(8);
    assert_eq!(harness.pass(700), ["1210: 1 <- 2", "1810: 2 <- 1 2"]);
    harness.down(9);
    assert_eq!(harness.pass(10), ["1910: 1 <- 3", "1910: 2 <- 3"], "he knows of it already");
    harness.incident = Some(IncidentId(Id::from_i64(2)));
    harness.down(10);
    assert_eq!(harness.pass(1_810), ["1920: 1 <- 4", "3720: 2 <- 4"], "another one has its own time");
}

#[test]
fn problems_that_join_one_incident_escalate_as_one() {
    let mut harness = Harness::new(escalating());
    for host in [7, 8] {
        harness.incident = Some(IncidentId(Id::from_i64(host)));
        harness.down(host);
        harness.pass(600);
    }
    let [first, second] = [7, 8].map(|n| IncidentId(Id::from_i64(n)));
    harness.put(Input::IncidentRoots([(first, first), (second, first)].into()));
    assert_eq!(harness.pass(700), ["1810: 2 <- 1 2"]);
}

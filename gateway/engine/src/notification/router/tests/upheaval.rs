//! Changes to the circumstances of waiting notices: rules, flapping, suppressions, and the message
//! limit.

use super::*;

fn nights(contact_of: ContactId) -> Rule {
    Rule { period: Some("mon-sun 20:00-06:00".parse().unwrap()), ..rule(contact_of) }
}

/// A router on Monday at 12:00, outside of the period.
fn at_noon(rule_of: Rule) -> Harness {
    let mut harness = Harness::new(one(Contact { group_wait: Duration::ZERO, ..contact(OPS) }, rule_of));
    harness.secs = 12 * 3_600;
    harness
}

#[test]
fn the_end_of_flapping_is_sent_also_after_a_wait() {
    let mut harness = at_noon(nights(OPS));
    harness.secs = 5 * 3_600;
    assert_eq!(harness.say(7, MessageKind::FlappingStart, None), ["1 <- 1"]);
    harness.pass(3_600);
    assert_eq!(harness.say(7, MessageKind::FlappingEnd, None), NOTHING);
    assert_eq!(harness.pass(14 * 3_600), ["72000: 1 <- 2/1"]);
}

#[test]
fn a_contact_notified_of_flapping_is_notified_of_the_remaining_problem() {
    let mut harness = at_noon(nights(OPS));
    harness.secs = 5 * 3_600;
    let critical = Some(Severity::Critical);
    assert_eq!(harness.say(7, MessageKind::FlappingStart, critical), ["1 <- 1"]);
    harness.pass(3_600);
    assert_eq!(harness.say(7, MessageKind::FlappingEnd, critical), NOTHING);
    assert_eq!(harness.down(7), ["1 not 2: Superseded(NoticeId(3))"]);
    assert_eq!(harness.pass(14 * 3_600), ["72000: 1 <- 3/1"]);
}

#[test]
fn waiting_notices_of_a_removed_rule_are_not_sent() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.pass(20);
    let rules = vec![rule(OPS)];
    assert_eq!(words(harness.put(Input::Configure(Routing { rules, ..escalating() }))), ["2 not 1: NoRule"]);
    assert_eq!(harness.pass(3_000), NOTHING);
}

#[test]
fn a_rule_with_a_raised_severity_sends_nothing_below_it() {
    let mut harness = at_noon(nights(OPS));
    harness.warn(7);
    let worse = Rule { least: Severity::Critical, ..nights(OPS) };
    let routing = one(Contact { group_wait: Duration::ZERO, ..contact(OPS) }, worse);
    assert_eq!(words(harness.put(Input::Configure(routing))), ["1 not 1: BelowSeverity(Critical)"]);
}

#[test]
fn a_waiting_notice_follows_the_changed_rule() {
    let by = |rule_of| Input::Configure(one(Contact { group_wait: Duration::ZERO, ..contact(OPS) }, rule_of));
    let mut harness = at_noon(nights(OPS));
    harness.down(7);
    harness.put(by(Rule { period: Some("mon-sun 13:00-14:00".parse().unwrap()), ..rule(OPS) }));
    assert_eq!(harness.pass(3_600), ["46800: 1 <- 1"], "another period");

    let mut harness = at_noon(nights(OPS));
    harness.down(7);
    let mut told = words(harness.put(by(rule(OPS))));
    told.extend(harness.pass(1));
    assert_eq!(told.len(), 1, "no period any more: {told:?}");

    let slow = |secs| Rule { delay: Duration::from_secs(secs), ..rule(OPS) };
    let mut harness = at_noon(slow(7_200));
    harness.down(7);
    harness.pass(600);
    harness.put(by(slow(900)));
    assert_eq!(harness.pass(900), ["44700: 1 <- 1"], "a shorter delay");
    harness.down(8);
    harness.put(by(slow(7_200)));
    assert_eq!(harness.pass(900), ["45600: 1 <- 2"], "a longer one is for what begins now");
}

#[test]
fn a_reminder_is_not_sent_if_a_suppression_began_while_it_waited() {
    for why in [SuppressReason::Downtime, SuppressReason::Acknowledged] {
        let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
        harness.down(7);
        harness.pass(20);
        harness.say(7, MessageKind::Reminder, Some(Severity::Critical));
        harness.put(stands(&[(7, Suppression::Silent(why))]));
        let said = harness.pass(30);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("30: 1 not 2:"), "{said:?}");
    }
}

#[test]
fn a_problem_that_its_settings_exclude_while_it_waits_stays_and_its_recovery_is_sent() {
    for why in [SuppressReason::State, SuppressReason::Kind] {
        let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
        harness.down(7);
        harness.put(stands(&[(7, Suppression::Silent(why))]));
        assert_eq!(harness.pass(30), [""; 0], "{why:?}");
        harness.put(stands(&[]));
        assert_eq!(harness.pass(20).len(), 1, "{why:?}");
        harness.put(stands(&[(7, Suppression::Silent(why))]));
        harness.up(7);
        assert_eq!(harness.pass(20).len(), 1, "{why:?}: the recovery of a problem that was sent");
    }
}

#[test]
fn an_operators_action_notifies_no_contact_that_was_not_notified_of_the_problem() {
    let mut harness = Harness::new(one(contact(OPS), Rule { least: Severity::Critical, ..rule(OPS) }));
    assert_eq!(harness.warn(7), ["1 not 1: BelowSeverity(Critical)"]);
    harness.say(7, MessageKind::DowntimeEnd, Some(Severity::Warning));
    assert_eq!(harness.up(7), ["1 not 3: NeverTold"]);
    assert_eq!(harness.pass(20), ["10: 1 <- 2"]);
}

#[test]
fn capped_notices_are_reported_once_each() {
    let mut harness =
        Harness::new(one(Contact { capped: true, group_wait: Duration::ZERO, ..contact(OPS) }, rule(OPS)));
    let mut waits = Vec::new();
    for host in 0..40 {
        harness.secs += 1;
        harness.last += 1;
        let (id, at, kind) = (NoticeId(harness.last), harness.now().wall, MessageKind::Problem);
        let severity = Some(Severity::Critical);
        let (labels, incident) = (Arc::default(), None);
        let object = of_host(host);
        let notice = Notice { id, at, object, labels, kind, severity, incident };
        waits.extend(harness.put(Input::Notice(notice)));
    }
    let capped = |o: &Output| match o {
        Output::Waits(w) if w.why == WaitFor::Cap => Some(w.notice.id.0),
        _ => None,
    };
    let capped: Vec<i64> = waits.iter().filter_map(capped).collect();
    assert_eq!(capped, (31..=40).collect::<Vec<_>>());
}

#[test]
fn notices_due_during_the_gateways_absence_wait_until_hosts_were_checked_again() {
    let mut harness = Harness::new(escalating());
    harness.down(7);
    harness.down(8);
    let waits = harness.put(Input::Timeout);
    assert!(waits.is_empty());
    harness.pass(20);
    let waiting: Vec<Waiting> = (1..=2)
        .map(|n| Waiting {
            contact: BOSS,
            notice: Notice {
                id: NoticeId(n),
                at: Wall::from_millis(MONDAY),
                object: of_host(6 + n),
                labels: Arc::default(),
                kind: MessageKind::Problem,
                severity: Some(Severity::Critical),
                incident: None,
            },
            why: WaitFor::Delay,
            until: Wall::from_millis(MONDAY) + Duration::from_secs(1_800),
            rule: None,
        })
        .collect();
    harness.secs = 10_000;
    harness.router = Router::restore(escalating(), Vec::new(), waiting, &[], harness.now());
    let mut said = harness.pass(60);
    said.extend(harness.up(7));
    assert_eq!(
        said,
        ["1 not 3: NeverTold", "2 not 1: OverBefore(NoticeId(3))", "2 not 3: NeverTold"],
        "it had come back meanwhile"
    );
    assert_eq!(harness.pass(60), ["10100: 2 <- 2"]);
}

/// A router on Monday at 17:59:50, ten seconds before the office closes.
fn closing_office() -> Harness {
    let mut harness = Harness::new(office());
    harness.secs = 18 * 3_600 - 10;
    harness
}

#[test]
fn a_suppression_that_ends_outside_of_the_period_is_sent_at_its_start() {
    let mut harness = closing_office();
    harness.down(7);
    harness.put(stands(&[(7, DOWNTIME)]));
    assert_eq!(harness.pass(3_600), NOTHING);
    harness.put(stands(&[]));
    assert_eq!(harness.pass(13 * 3_600), NOTHING);
    assert_eq!(harness.pass(3_600), [format!("{}: 1 <- 1", 32 * 3_600 + 10)]);
}

#[test]
fn a_recovery_suppressed_at_the_start_of_the_period_is_sent_within_it() {
    let mut harness = closing_office();
    harness.down(7);
    harness.pass(60);
    harness.up(7);
    harness.put(stands(&[(7, DOWNTIME)]));
    assert_eq!(harness.pass(25 * 3_600), NOTHING);
    harness.put(stands(&[]));
    let said = harness.pass(14 * 3_600);
    assert_eq!(said, [format!("{}: 1 <- 2/1", 56 * 3_600 + 10)]);
}

#[test]
fn a_notice_that_joins_a_suppressed_incident_keeps_to_the_period() {
    let mut harness = closing_office();
    harness.incident = Some(incident(1));
    harness.down(7);
    harness.put(stands(&[(7, DOWNTIME)]));
    harness.pass(60);
    assert_eq!(harness.down(8), NOTHING);
    assert_eq!(harness.pass(3_600), NOTHING);
}

#[test]
fn a_digest_leaves_out_recovered_problems_whose_recovery_still_waits() {
    let reader = Contact { digest: Some(civil::time(8, 0, 0, 0)), ..contact(OPS) };
    let mut harness = Harness::new(Routing { contacts: vec![reader], ..office() });
    harness.secs = 32 * 3_600;
    for host in 7..=9 {
        harness.down(host);
    }
    harness.pass(10 * 3_600);
    harness.up(7);
    harness.pass(14 * 3_600 - 5);
    harness.up(8);
    let morning = 56 * 3_600;
    assert_eq!(
        harness.pass(15),
        [format!("{morning}: 1 digest [3]"), format!("{}: 1 <- 4/1 5/2", morning + 10)]
    );
}

#[test]
fn a_clock_that_was_ahead_delays_no_digest() {
    let morning = Contact { digest: Some(civil::time(8, 0, 0, 0)), ..contact(OPS) };
    let mut harness = Harness::new(one(morning, rule(OPS)));
    let ahead = Now { mono: Mono::ZERO, wall: harness.now().wall + Duration::from_secs(400 * 86_400) };
    harness.router.handle(Input::Timeout, ahead);
    while !matches!(harness.router.poll_output(), Output::Wait(_)) {}
    assert_eq!(harness.pass(EIGHT), [format!("{EIGHT}: 1 digest []")]);
}

#[test]
fn nothing_is_sent_before_all_known_notices_are_handed_in() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    for host in [7, 8] {
        harness.incident = Some(incident(host));
        harness.last += 1;
        let (id, at, kind) = (NoticeId(harness.last), harness.now().wall, MessageKind::Problem);
        let (severity, object) = (Some(Severity::Critical), of_host(host));
        let labels = Arc::new([("site".to_owned(), host.to_string())].into());
        harness.put(Input::Notice(Notice {
            id,
            at,
            object,
            labels,
            kind,
            severity,
            incident: harness.incident,
        }));
    }
    harness.secs += 10;
    assert_eq!(words(harness.put(stands(&[(9, DOWNTIME)]))), NOTHING);
    assert_eq!(
        words(harness.put(Input::IncidentRoots([7, 8].map(|n| (incident(n), incident(7))).into()))),
        NOTHING
    );
    assert_eq!(words(harness.put(Input::Timeout)), ["1 <- 1 2"]);
}

#[test]
fn without_a_group_wait_each_notice_is_a_message_of_its_own() {
    let late = Rule { delay: Duration::from_secs(900), ..rule(OPS) };
    let hasty = Contact { group_wait: Duration::ZERO, ..contact(OPS) };
    let mut harness = Harness::new(one(hasty, late));
    harness.incident = Some(incident(1));
    for host in [7, 8, 9] {
        harness.down(host);
    }
    assert_eq!(harness.pass(900), ["900: 1 <- 1", "900: 1 <- 2", "900: 1 <- 3"]);
}

#[test]
fn flapping_that_ended_unnotified_is_not_sent_later() {
    let late = Rule { delay: Duration::from_secs(900), ..rule(OPS) };
    let mut harness = Harness::new(one(contact(OPS), late));
    harness.say(7, MessageKind::FlappingStart, None);
    harness.put(stands(&[(7, Suppression::Well)]));
    assert_eq!(harness.pass(1_000), ["900: 1 not 1: Over"]);
}

/// A fleet is lost at once, each host by itself, and contacts have rules with delays.
#[test]
fn ten_thousand_hosts_are_routed_in_moments() {
    let late = Rule { delay: Duration::from_secs(1_800), ..rule(BOSS) };
    let contacts = vec![Contact { capped: true, ..contact(OPS) }, contact(BOSS)];
    let mut harness = Harness::new(Routing { contacts, rules: vec![rule(OPS), late] });
    let begun = std::time::Instant::now();
    for round in 0..3 {
        for host in 0..10_000 {
            harness.incident = Some(incident(if round == 2 { host + 20_000 } else { host }));
            match round {
                0 => harness.warn(host),
                _ => harness.down(host),
            };
        }
        harness.pass(if round == 1 { 3_600 } else { 120 });
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "{took:?}");
    println!("{took:?}");
}

/// Removes every rule.
fn no_rule(contact: Contact) -> Input {
    Input::Configure(Routing { contacts: vec![contact], rules: vec![] })
}

fn critical_only() -> Input {
    Input::Configure(one(contact(OPS), Rule { least: Severity::Critical, ..rule(OPS) }))
}

#[test]
fn a_grouped_notice_follows_a_changed_rule() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.down(7);
    harness.pass(2);
    let mut said = words(harness.put(no_rule(contact(OPS))));
    said.extend(harness.pass(100));
    assert_eq!(said, ["1 not 1: NoRule"]);
}

#[test]
fn a_capped_notice_follows_a_changed_rule() {
    let capped = Contact { capped: true, ..contact(OPS) };
    let mut harness = Harness::new(one(capped.clone(), rule(OPS)));
    for host in 0..MESSAGES_AN_HOUR as i64 {
        harness.down(host);
        harness.pass(11);
    }
    harness.down(77);
    harness.pass(60);
    let mut said = words(harness.put(no_rule(capped.clone())));
    said.extend(harness.pass(4_000));
    assert_eq!(said, [format!("1 not {}: NoRule", MESSAGES_AN_HOUR + 1)]);
    harness.put(Input::Configure(one(capped, rule(OPS))));
    harness.down(78);
    harness.secs += 10;
    let posts = harness.put(Input::Timeout);
    let folded = |o: &Output| matches!(o, Output::Post { folded, .. } if *folded > 0);
    assert!(!posts.is_empty() && !posts.iter().any(folded), "it comes in time: {posts:?}");
}

#[test]
fn later_notices_of_a_problem_that_no_rule_selects_any_more_are_not_sent() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.down(7);
    harness.say(7, MessageKind::Acknowledged, None);
    harness.up(7);
    let mut said = words(harness.put(no_rule(contact(OPS))));
    said.extend(harness.pass(100));
    assert_eq!(said, ["1 not 1: NoRule", "1 not 2: NeverTold", "1 not 3: NeverTold"]);
}

#[test]
fn the_recovery_of_a_notified_problem_is_sent_although_no_rule_selects_it_any_more() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.down(7);
    assert_eq!(harness.pass(10), ["10: 1 <- 1"]);
    harness.up(7);
    harness.down(7);
    harness.up(7);
    assert_eq!(words(harness.put(no_rule(contact(OPS)))), ["1 not 3: NoRule", "1 not 4: NeverTold"]);
    assert_eq!(harness.pass(100), ["20: 1 <- 2/1"]);
}

#[test]
fn a_notice_below_the_changed_severity_leaves_its_group() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.warn(1);
    harness.down(2);
    harness.down(3);
    harness.warn(3);
    let held = words(harness.put(critical_only()));
    assert_eq!(held, ["1 not 1: BelowSeverity(Critical)", "1 not 4: BelowSeverity(Critical)"]);
    assert_eq!(harness.pass(100), ["10: 1 <- 2 3"]);
}

#[test]
fn a_rule_change_without_effect_does_not_delay_a_waiting_notice() {
    let mut harness = Harness::new(one(contact(OPS), rule(OPS)));
    harness.down(7);
    harness.pass(6);
    let delayed = Rule { delay: Duration::from_secs(3_600), ..rule(OPS) };
    assert_eq!(words(harness.put(Input::Configure(one(contact(OPS), delayed)))), NOTHING);
    assert_eq!(harness.pass(60), ["10: 1 <- 1"]);
}

#[test]
fn a_contact_without_a_cap_any_more_gets_the_capped_notices() {
    let capped = Contact { capped: true, ..contact(OPS) };
    let mut harness = Harness::new(one(capped, rule(OPS)));
    for host in 0..=MESSAGES_AN_HOUR as i64 {
        harness.down(host);
        harness.pass(11);
    }
    harness.put(Input::Configure(one(contact(OPS), rule(OPS))));
    let last = MESSAGES_AN_HOUR + 1;
    assert_eq!(harness.pass(1), [format!("{}: 1 <- {last}", harness.secs)]);
}

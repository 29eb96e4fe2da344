use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{GATEWAY, IncidentId};
use fleetgate_engine::notification::NoticeId;
use fleetgate_engine::time::Wall;
use proptest::prelude::*;

use super::*;
use crate::store::incidents::{IncidentRow, MemberRow};
use crate::store::outbox::{Address, Channel, Concern, Count, Rented};

fn down() -> NoticeRow {
    NoticeRow {
        id: NoticeId(1),
        at: Wall::from_millis(1_773_147_810_000),
        event: None,
        host: Id::from_i64(7),
        host_name: "cam-07".into(),
        service: None,
        labels: std::collections::BTreeMap::new(),
        kind: "problem".into(),
        problem: true,
        from: "up".into(),
        to: "down".into(),
        output: "no tunnel for 95 s; tcp 22: timed out".into(),
        since: Wall::from_millis(1_773_147_802_000),
        incident: None,
        note: String::new(),
    }
}

fn message(kind: OutboxKind) -> MessageRow {
    MessageRow {
        id: 1,
        contact: Id::from_i64(1),
        contact_name: "ops".into(),
        channel: Channel::Email,
        address: Address::Email("ops@example.org".into()),
        kind,
        site: "north".into(),
        folded: 0,
        created_at: Wall::from_millis(0),
        attempts: 0,
        next_attempt: Wall::from_millis(0),
        last_error: None,
        sent_at: None,
        given_up_at: None,
    }
}

fn contents(notices: Vec<NoticeRow>) -> Contents {
    let mut counts: Vec<Count> = Vec::new();
    for n in &notices {
        let one = Count {
            kind: n.kind.clone(),
            problem: n.problem,
            to: n.to.clone(),
            services: n.service.is_some(),
            service: n.service.clone(),
            hosts: 0,
            count: 0,
        };
        let at = counts.iter().position(|c| Count { count: 0, hosts: 0, ..c.clone() } == one);
        let at = at.unwrap_or_else(|| {
            counts.push(one);
            counts.len() - 1
        });
        counts[at].count += 1;
        counts[at].hosts += 1;
    }
    Contents { notices, counts, ..Contents::default() }
}

/// Gives each recovery a problem of this duration.
fn after(contents: Contents, time: Duration) -> Contents {
    let recoveries = contents.notices.iter().filter(|n| n.kind == "recovery");
    let began = recoveries.map(|n| (n.id, n.since - time)).collect();
    Contents { began, ..contents }
}

fn shown(letter: &Letter) -> String {
    format!("Subject: {}\n\n{}", letter.subject, letter.text)
}

fn write(kind: OutboxKind, notices: Vec<NoticeRow>) -> Letter {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
    let place = MailContext { zone: &zone, public_url: Some("https://watch.example.com") };
    Letter::write(&message(kind), &contents(notices), None, None, &place)
}

fn one(notice: NoticeRow) -> Letter {
    write(OutboxKind::Notices, vec![notice])
}

#[test]
fn a_host_that_is_down() {
    insta::assert_snapshot!(shown(&one(down())));
}

#[test]
fn a_host_that_is_down_in_html() {
    insta::assert_snapshot!(one(down()).html);
}

#[test]
fn a_service_that_recovered() {
    let recovered = NoticeRow {
        service: Some("disk".into()),
        kind: "recovery".into(),
        problem: false,
        from: "critical".into(),
        to: "ok".into(),
        output: "/ 61% used, 5.2 GB free".into(),
        ..down()
    };
    let all = after(contents(vec![recovered]), Duration::from_secs(12 * 60 + 40));
    let place = MailContext { zone: &TimeZone::UTC, public_url: Some("https://watch.example.com") };
    let letter = Letter::write(&message(OutboxKind::Notices), &all, None, None, &place);
    insta::assert_snapshot!(format!("{}\n\n{}", shown(&letter), letter.html));
}

#[test]
fn a_value_has_a_line_of_its_last_hours() {
    let full = NoticeRow {
        service: Some("disk".into()),
        from: "ok".into(),
        to: "critical".into(),
        output: "/ 93% used, 1.1 GB free (limit 90)".into(),
        ..down()
    };
    let values = RecentValues {
        metric: "used".into(),
        uom: "%".into(),
        hours: 6,
        averages: vec![None, Some(61.0), Some(65.5), Some(70.0), None, None, Some(80.25), Some(92.0), None],
        low: 61.0,
        high: 93.06,
    };
    let place = MailContext { zone: &TimeZone::UTC, public_url: None };
    let letter = |values: &RecentValues| {
        Letter::write(
            &message(OutboxKind::Notices),
            &contents(vec![full.clone()]),
            None,
            Some(values),
            &place,
        )
    };
    let shown_values = letter(&values);
    insta::assert_snapshot!(format!("{}\n\n{}", shown(&shown_values), shown_values.html));
    let hostile = letter(&RecentValues { metric: "<b>x\r\n.".into(), uom: "\u{202e}%".into(), ..values });
    assert!(!hostile.html.contains("<b>") && !hostile.text.contains(['\r', '\u{202e}']), "{hostile:?}");
}

/// Gives each notice a rental.
fn rented(contents: Contents, time_zone: Option<&str>) -> Contents {
    let rented = Rented {
        rental: Id::from_i64(41),
        name: "entrance".into(),
        until: Wall::from_millis(1_796_979_600_000),
        time_zone: time_zone.map(str::to_owned),
    };
    let rented = contents.notices.iter().map(|notice| (notice.id, rented.clone())).collect();
    Contents { rented, ..contents }
}

#[test]
fn a_notice_about_a_rented_device_names_the_rental_and_its_end() {
    let place = MailContext { zone: &TimeZone::UTC, public_url: None };
    let letter = |notices: Vec<NoticeRow>, zone| {
        Letter::write(&message(OutboxKind::Notices), &rented(contents(notices), zone), None, None, &place)
    };
    let words =
        format!("entrance ({}) until 2026-12-11 10:00", crate::ids::IdKind::Rental.text(Id::from_i64(41)));
    let alone = letter(vec![down()], Some("Europe/Vienna"));
    assert!(alone.text.contains(&format!("\nRented  {words} CET\n")), "{}", alone.text);
    assert!(alone.html.contains(&format!("<br>Rented: {words} CET</p>")), "{}", alone.html);
    let words = words.replace("10:00", "09:00");
    let second = NoticeRow { id: NoticeId(2), host_name: "cam-02".into(), ..down() };
    let many = letter(vec![down(), second], None);
    assert_eq!(many.text.matches(&format!(", rented: {words} UTC\n")).count(), 2, "{}", many.text);
    assert_eq!(many.html.matches(&format!("<br>Rented: {words} UTC</td>")).count(), 2, "{}", many.html);
    for letter in [alone, many] {
        assert!(!letter.subject.contains("entrance"), "{}", letter.subject);
    }
}

#[test]
fn how_long_it_lasted_is_said_in_two_units() {
    for (seconds, words) in [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (779, "12 min"),
        (3_600, "1 h"),
        (3_599 + 3_600, "1 h 59 min"),
        (86_400, "1 d"),
        (200_000, "2 d 7 h"),
    ] {
        assert_eq!(lasted(Duration::from_secs(seconds)), words);
    }
}

#[test]
fn without_an_address_the_letter_names_the_command() {
    let place = MailContext { zone: &TimeZone::UTC, public_url: None };
    let letter = Letter::write(&message(OutboxKind::Notices), &contents(vec![down()]), None, None, &place);
    insta::assert_snapshot!(letter.text);
}

fn lost_site() -> Vec<NoticeRow> {
    let host = |n: i64| NoticeRow { host_name: format!("cam-{n:02}"), ..down() };
    let up = NoticeRow { kind: "recovery".into(), problem: false, to: "up".into(), ..host(9) };
    vec![host(1), host(2), host(3), up]
}

#[test]
fn a_site_that_is_lost() {
    insta::assert_snapshot!(shown(&write(OutboxKind::Notices, lost_site())));
}

#[test]
fn a_site_that_is_lost_in_html() {
    insta::assert_snapshot!(write(OutboxKind::Notices, lost_site()).html);
}

#[test]
fn a_thousand_hosts_are_counted_and_not_all_named() {
    let mut all = contents(vec![down(); 100]);
    all.counts[0].count = 1_000;
    let place = MailContext { zone: &TimeZone::UTC, public_url: None };
    let letter = Letter::write(&message(OutboxKind::Notices), &all, None, None, &place);
    assert_eq!(letter.subject, "DOWN: cam-07 and 999 more hosts at north");
    assert!(letter.text.contains("    and 900 more\n") && letter.html.contains("<p>and 900 more</p>"));
}

fn incident(words: &str, extent: &str, ill: i64) -> IncidentRow {
    IncidentRow {
        id: IncidentId(Id::from_i64(3_700_000_000_000_000_000)),
        extent: extent.into(),
        cause: "parent_down".into(),
        words: words.into(),
        site: Some("north".into()),
        head: None,
        opened_at: Wall::from_millis(1_773_147_802_000),
        closed_at: None,
        merged_into: None,
        ack: None,
        ill,
        members: if extent == "host" { 1 } else { 1_000 },
    }
}

fn member(name: &str) -> MemberRow {
    let at = Wall::from_millis(0);
    let (host_name, site) = (Some(name.to_owned()), None);
    MemberRow {
        host: Id::from_i64(9),
        host_name,
        site,
        service: None,
        output: "".into(),
        began_at: at,
        joined_at: at,
        left_at: None,
    }
}

#[test]
fn a_host_with_its_incident_and_what_is_wrong() {
    let zone = TimeZone::UTC;
    let place = MailContext { zone: &zone, public_url: Some("https://watch.example.com") };
    let concern = Concern { incident: incident("cam-07 is down", "host", 1), ill: vec![member("cam-07")] };
    let all = Contents { incidents: vec![concern], ..contents(vec![down()]) };
    let verdict = Verdict {
        kind: fleetgate_engine::verdict::VerdictKind::Undetermined,
        text: "cannot be told: the device is gone, or its uplink".into(),
        candidates: Vec::new(),
        evidence: vec!["no packet for 95 s".into(), "6 others at north answer".into()],
    };
    let letter = Letter::write(&message(OutboxKind::Notices), &all, Some(&verdict), None, &place);
    insta::assert_snapshot!(format!("{}\n\n{}", shown(&letter), letter.html));
}

#[test]
fn an_acknowledgement_says_who_and_why() {
    let known = NoticeRow { kind: "acknowledged".into(), note: "user:ada: on my way".into(), ..down() };
    insta::assert_snapshot!(shown(&one(known)));
}

#[test]
fn a_thousand_hosts_of_one_incident() {
    let zone = TimeZone::UTC;
    let place = MailContext { zone: &zone, public_url: Some("https://watch.example.com") };
    let mut all = contents(vec![down(), down()]);
    all.counts[0].count = 1_000;
    all.sites = vec![("north".into(), 999), (String::new(), 1)];
    all.incidents = vec![Concern { incident: incident("r1 is down", "site", 1_000), ill: Vec::new() }];
    let many = MessageRow { site: String::new(), folded: 4, ..message(OutboxKind::Notices) };
    insta::assert_snapshot!(shown(&Letter::write(&many, &all, None, None, &place)));
}

#[test]
fn one_service_of_many_hosts_is_named_in_the_subject() {
    let ssh = |to: &str| NoticeRow { service: Some("ssh".into()), to: to.into(), ..down() };
    let subject = |notices| write(OutboxKind::Notices, notices).subject;
    let on = |host: &str, to: &str| NoticeRow { host_name: host.into(), ..ssh(to) };
    let two = vec![on("cam-01", "critical"), on("cam-02", "critical")];
    assert_eq!(subject(two), "CRITICAL: ssh on cam-01, cam-02 at north");
    let many = (1..=14).map(|n| on(&format!("cam-{n:02}"), "critical")).collect();
    assert_eq!(subject(many), "CRITICAL: ssh on cam-01, cam-02, cam-03 and 11 more hosts at north");
    let disk = NoticeRow { service: Some("disk".into()), ..ssh("critical") };
    let all = vec![down(), ssh("critical"), disk, ssh("warning")];
    assert_eq!(subject(all), "DOWN: cam-07; CRITICAL: cam-07 ssh, cam-07 disk; WARNING: cam-07 ssh at north");
}

#[test]
fn names_that_a_subject_has_no_room_for_are_counted_and_the_worst_is_named_longest() {
    let host = |n: usize, to: &str| NoticeRow {
        host_name: format!("{}-{n}", "x".repeat(40)),
        to: to.into(),
        ..down()
    };
    let subject = |notices| write(OutboxKind::Notices, notices).subject;
    let name = "x".repeat(40);
    let two = vec![host(1, "down"), host(2, "down"), host(3, "unknown"), host(4, "unknown")];
    assert_eq!(subject(two), format!("DOWN: {name}-1, {name}-2; UNKNOWN: 2 hosts at north"));
    let long = |n: usize| NoticeRow { host_name: format!("{}-{n}", "y".repeat(60)), ..down() };
    assert_eq!(subject(vec![long(1), long(2), long(3)]), "DOWN: 3 hosts at north");
}

#[test]
fn who_outlives_a_lost_site_is_named_among_the_good_news() {
    let zone = TimeZone::UTC;
    let place = MailContext { zone: &zone, public_url: None };
    let up =
        NoticeRow { kind: "recovery".into(), problem: false, from: "down".into(), to: "up".into(), ..down() };
    let mut all = contents(vec![up.clone(), up]);
    let words = "most of north stopped answering at once";
    all.incidents = vec![Concern { incident: incident(words, "site", 25), ill: vec![member("cam-09")] }];
    insta::assert_snapshot!(shown(&Letter::write(&message(OutboxKind::Notices), &all, None, None, &place)));
}

#[test]
fn a_digest_says_what_is_still_so() {
    let disk = NoticeRow { service: Some("disk".into()), to: "warning".into(), ..down() };
    insta::assert_snapshot!(shown(&write(OutboxKind::Digest, vec![down(), disk])));
}

#[test]
fn a_test_says_that_it_is_one() {
    insta::assert_snapshot!(shown(&write(OutboxKind::Test, vec![])));
}

#[test]
fn hostile_text_stays_in_its_place() {
    let hostile = NoticeRow {
        service: Some("disk\r\nBcc: everybody@example.org".into()),
        output: "\u{202e}drow\u{7}\r\n.\r\nSince   yesterday\nhttps://evil.example/\n<img src=x>".into(),
        ..down()
    };
    insta::assert_snapshot!(shown(&one(hostile.clone())));
    let html = one(hostile).html;
    assert!(html.contains("&lt;img src=x&gt;") && !html.contains("<img"), "{html}");
}

#[test]
fn an_output_that_was_cut_says_so() {
    let letter = one(NoticeRow { output: "x".repeat(60_000).into(), ..down() });
    assert!(letter.text.contains("xxx\n    [cut here]\n") && letter.text.len() < 2_000, "{}", letter.text);
    assert!(letter.html.contains("xxx\n[cut here]</pre>") && letter.html.len() < 3_000, "{}", letter.html);
    assert!(!one(down()).text.contains("cut here"));
}

proptest! {
    #[test]
    fn no_text_breaks_out(host in ".{0,300}", output in "(?s).{0,300}") {
        let letter = one(NoticeRow { host_name: host, output: output.into(), ..down() });
        prop_assert!(!letter.subject.contains(char::is_control));
        prop_assert!(letter.subject.chars().count() <= MAX_SUBJECT);
        prop_assert!(!letter.text.chars().any(|c| c.is_control() && c != '\n'));
        let ours = letter.text.lines().filter(|l| !l.starts_with("    ") && !l.is_empty());
        prop_assert_eq!(ours.count(), 4);
        prop_assert_eq!(letter.html.matches('<').count(), 18);
    }
}

#[test]
fn the_gateway_is_no_host_among_others() {
    let gateway = NoticeRow { host: GATEWAY, host_name: "gateway".into(), ..down() };
    let cam = NoticeRow { host_name: "cam-1".into(), ..down() };
    let subject = |notices| write(OutboxKind::Notices, notices).subject;
    assert_eq!(subject(vec![gateway.clone(), cam]), "DOWN: gateway, cam-1 at north");
    let long = |n: usize| NoticeRow { host_name: format!("{}-{n}", "y".repeat(60)), ..down() };
    assert_eq!(subject(vec![gateway, long(1), long(2), long(3)]), "DOWN: gateway, 3 hosts at north");
}

//! The wording of a message: subject, text, and the same as HTML. Pure.
//!
//! Whatever a device or a person said in it is hostile: it cannot make a header, a line of ours, a
//! tag, or another direction of writing. The HTML loads nothing and runs nothing.

use std::fmt::Write as _;

use fleetgate_engine::verdict::Verdict;
use jiff::tz::TimeZone;

use super::concerns;
use crate::store::notices::NoticeRow;
use crate::store::outbox::{Contents, Kind, MessageRow};
use crate::text::harmless;

/// Notices in one letter: what a person scrolls through; the page has the rest.
pub const LISTED: i64 = 100;
/// Longest subject: what a mail program shows of one, twice.
const MAX_SUBJECT: usize = 160;
/// Longest output in a letter about one object; the page has the rest.
const MAX_OUTPUT: usize = 4_000;
/// Of each of many.
pub(super) const MAX_LINE: usize = 200;

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Where it is read: the time zone and the address of the dashboard.
pub struct Place<'a> {
    pub zone: &'a TimeZone,
    pub public_url: Option<&'a str>,
}

impl Letter {
    /// `verdict`: of the host, where the letter tells of one alone.
    pub fn write(
        message: &MessageRow,
        contents: &Contents,
        verdict: Option<&Verdict>,
        place: &Place<'_>,
    ) -> Letter {
        match (message.kind, contents.notices.as_slice()) {
            (Kind::Test, _) => test(message, place),
            (Kind::Notices, [one]) if contents.total() == 1 => of_one(one, contents, verdict, place),
            _ => of_many(message, contents, place),
        }
    }
}

// ----------------------------------------------------------------- one object

fn of_one(notice: &NoticeRow, contents: &Contents, verdict: Option<&Verdict>, place: &Place<'_>) -> Letter {
    let headline = headline(&notice.kind, notice.problem, &notice.to);
    let around =
        Around { incidents: concerns::text(contents, place), verdict: concerns::verdict_text(verdict) };
    let in_html =
        Around { incidents: concerns::html(contents, place), verdict: concerns::verdict_html(verdict) };
    Letter {
        subject: subject(&format!("{headline} {}", object(notice)), contents),
        text: text_of_one(notice, &around, place),
        html: html_of_one(notice, &headline, &in_html, place),
    }
}

/// What surrounds one notice, in words or in HTML.
struct Around {
    incidents: String,
    verdict: String,
}

/// Whatever is cut, the incident is not.
fn subject(words: &str, contents: &Contents) -> String {
    let tag = concerns::tag(contents);
    one_line(words, MAX_SUBJECT - tag.len()) + &tag
}

/// Who did what is told, and why.
fn by(notice: &NoticeRow) -> String {
    match notice.note.as_str() {
        "" => String::new(),
        note => format!("By      {}\n", one_line(note, MAX_LINE)),
    }
}

/// What has happened, in a word or two.
fn headline(kind: &str, problem: bool, to: &str) -> String {
    let to = to.to_uppercase();
    match kind {
        "reminder" => format!("STILL {to}"),
        "flapping_start" => "FLAPPING".to_owned(),
        "flapping_end" => format!("CALM, {to}"),
        "acknowledged" => format!("ACKNOWLEDGED {to}"),
        "downtime_start" => "DOWNTIME BEGINS".to_owned(),
        "downtime_end" | "downtime_cancelled" => "DOWNTIME ENDS".to_owned(),
        _ if problem => to,
        _ => "RECOVERED".to_owned(),
    }
}

fn object(notice: &NoticeRow) -> String {
    match &notice.service {
        Some(service) => format!("{} {service}", notice.host_name),
        None => notice.host_name.clone(),
    }
}

fn sentence(notice: &NoticeRow) -> String {
    let name = one_line(&notice.host_name, MAX_SUBJECT);
    let subject = match &notice.service {
        Some(service) => format!("{} on {name}", one_line(service, MAX_SUBJECT)),
        None => name,
    };
    format!("{subject} is {}, it was {}.", notice.to.to_uppercase(), notice.from.to_uppercase())
}

fn text_of_one(notice: &NoticeRow, around: &Around, place: &Place<'_>) -> String {
    format!(
        "{}\n\nSince   {}\n{}{}{}Output\n{}\n\n{}\n",
        sentence(notice),
        time(notice.since.as_millis(), place.zone),
        by(notice),
        around.incidents,
        around.verdict,
        quoted(&notice.output),
        host_link(&notice.host_name, place),
    )
}

fn html_of_one(notice: &NoticeRow, headline: &str, around: &Around, place: &Place<'_>) -> String {
    let output: String = notice.output.chars().take(MAX_OUTPUT).collect();
    let output = output.lines().map(harmless).collect::<Vec<_>>().join("\n");
    let body = format!(
        "<p><strong style=\"color:{}\">{}</strong> {}</p>\n<p>{}<br>Since {}{}</p>\n{}{}<pre style=\"{}\">{}</pre>\n{}",
        colour(notice),
        escaped(headline),
        escaped(&one_line(&object(notice), MAX_SUBJECT)),
        escaped(&sentence(notice)),
        escaped(&time(notice.since.as_millis(), place.zone)),
        escaped(&by(notice)).replacen("By      ", "<br>By ", 1).trim_end(),
        around.incidents,
        around.verdict,
        PRE,
        escaped(if output.is_empty() { "(none)" } else { &output }),
        html_link(&one_line(&notice.host_name, MAX_SUBJECT), place),
    );
    page(&body)
}

// --------------------------------------------------------------- many objects

fn of_many(message: &MessageRow, contents: &Contents, place: &Place<'_>) -> Letter {
    let site = match message.site.as_str() {
        "" => String::new(),
        site => format!(" at {}", one_line(site, MAX_SUBJECT)),
    };
    let sum = if message.kind == Kind::Digest {
        format!("STILL NOT WELL: {}", things(contents, |_| true))
    } else {
        summary(contents)
    };
    let subject = subject(&format!("{sum}{site}"), contents);
    let more = contents.total() - contents.notices.len() as i64;
    Letter {
        text: text_of_many(&subject, message, contents, more, place),
        html: html_of_many(&subject, message, contents, more, place),
        subject,
    }
}

/// `DOWN: 28 hosts; RECOVERED: 2 hosts`.
fn summary(contents: &Contents) -> String {
    let mut headlines: Vec<String> = Vec::new();
    for count in &contents.counts {
        let headline = headline(&count.kind, count.problem, &count.to);
        if !headlines.contains(&headline) {
            headlines.push(headline);
        }
    }
    let part = |wanted: &String| {
        let things = things(contents, |(kind, problem, to)| headline(kind, problem, to) == *wanted);
        format!("{wanted}: {things}")
    };
    headlines.iter().map(part).collect::<Vec<_>>().join("; ")
}

/// `3 hosts, 1 service` of those that are wanted.
fn things(contents: &Contents, wanted: impl Fn((&str, bool, &str)) -> bool) -> String {
    let count = |services: bool| -> i64 {
        let of = contents.counts.iter().filter(|c| c.services == services);
        of.filter(|c| wanted((&c.kind, c.problem, &c.to))).map(|c| c.count).sum()
    };
    let named = |count: i64, one: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {one}s")),
    };
    let parts = [named(count(false), "host"), named(count(true), "service")];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Why it is so much, and where it stands.
fn preface(message: &MessageRow, contents: &Contents) -> Vec<String> {
    let folded = (message.folded > 1).then(|| {
        format!(
            "Too many messages: what would have been {} is told in this one, and so is what follows for a while.",
            message.folded
        )
    });
    let sites = concerns::sites(contents).map(|sites| format!("By site: {sites}"));
    folded.into_iter().chain(sites).collect()
}

fn text_of_many(
    subject: &str,
    message: &MessageRow,
    contents: &Contents,
    more: i64,
    place: &Place<'_>,
) -> String {
    let mut text = format!("{subject}\n\n");
    for line in preface(message, contents) {
        let _ = writeln!(text, "{line}\n");
    }
    let incidents = concerns::text(contents, place);
    if !incidents.is_empty() {
        let _ = writeln!(text, "{incidents}");
    }
    for notice in &contents.notices {
        let headline = headline(&notice.kind, notice.problem, &notice.to);
        let object = one_line(&object(notice), MAX_SUBJECT);
        let since = time(notice.since.as_millis(), place.zone);
        let output = one_line(notice.output.lines().next().unwrap_or_default(), MAX_LINE);
        let by = one_line(&notice.note, MAX_LINE);
        let by = if by.is_empty() { by } else { format!(", by {by}") };
        let _ = writeln!(text, "    {headline} {object}, since {since}{by}\n        {output}");
    }
    if more > 0 {
        let _ = writeln!(text, "    and {more} more");
    }
    let _ = writeln!(text, "\n{}", place.public_url.unwrap_or("More: fleetgate status"));
    text
}

fn html_of_many(
    subject: &str,
    message: &MessageRow,
    contents: &Contents,
    more: i64,
    place: &Place<'_>,
) -> String {
    let mut body = format!("<p><strong>{}</strong></p>\n", escaped(subject));
    for line in preface(message, contents) {
        let _ = writeln!(body, "<p>{}</p>", escaped(&line));
    }
    let _ = writeln!(body, "{}<table style=\"{TABLE}\">", concerns::html(contents, place));
    for notice in &contents.notices {
        let _ = writeln!(
            body,
            "<tr><td style=\"{CELL};color:{}\"><strong>{}</strong></td><td style=\"{CELL}\">{}</td>\
             <td style=\"{CELL}\">{}</td><td style=\"{CELL}\">{}</td></tr>",
            colour(notice),
            escaped(&headline(&notice.kind, notice.problem, &notice.to)),
            html_object(notice, place),
            escaped(&time(notice.since.as_millis(), place.zone)),
            escaped(&one_line(notice.output.lines().next().unwrap_or_default(), MAX_LINE)),
        );
    }
    body.push_str("</table>\n");
    if more > 0 {
        let _ = writeln!(body, "<p>and {more} more</p>");
    }
    if let Some(url) = place.public_url {
        let _ = writeln!(body, "<p><a href=\"{0}\">{0}</a></p>", escaped(url));
    }
    page(&body)
}

fn html_object(notice: &NoticeRow, place: &Place<'_>) -> String {
    let shown = escaped(&one_line(&object(notice), MAX_SUBJECT));
    match place.public_url {
        Some(url) => {
            let host = escaped(&one_line(&notice.host_name, MAX_SUBJECT));
            format!("<a href=\"{}/hosts/{host}\">{shown}</a>", escaped(url))
        }
        None => shown,
    }
}

// ----------------------------------------------------------------------- test

fn test(message: &MessageRow, place: &Place<'_>) -> Letter {
    let text = format!(
        "This is a test: {} is reached at {}.\nNothing has happened.\n",
        one_line(&message.contact_name, MAX_SUBJECT),
        one_line(&message.address, MAX_SUBJECT),
    );
    let body = format!("<p>{}</p>\n", escaped(&text).replace('\n', "<br>"));
    let link = place.public_url.map(|url| format!("\n{url}\n")).unwrap_or_default();
    Letter { subject: "TEST of fleetgate".to_owned(), text: text + &link, html: page(&body) }
}

// ---------------------------------------------------------------------- parts

const PRE: &str = "background:#f3f4f6;padding:8px;white-space:pre-wrap;font-family:monospace";
const TABLE: &str = "border-collapse:collapse";
const CELL: &str = "padding:2px 12px 2px 0;vertical-align:top";

fn page(body: &str) -> String {
    format!(
        "<!doctype html>\n<html><body style=\"font-family:sans-serif;font-size:14px\">\n{body}</body></html>\n"
    )
}

/// Readable on white and on black.
fn colour(notice: &NoticeRow) -> &'static str {
    match notice.to.as_str() {
        _ if !notice.problem => "#15803d",
        "warning" => "#b45309",
        "unknown" => "#7e22ce",
        _ => "#dc2626",
    }
}

fn host_link(host: &str, place: &Place<'_>) -> String {
    let host = one_line(host, MAX_SUBJECT);
    match place.public_url {
        Some(url) => format!("{url}/hosts/{host}"),
        None => format!("More: fleetgate host show {host}"),
    }
}

fn html_link(host: &str, place: &Place<'_>) -> String {
    match place.public_url {
        Some(_) => format!("<p><a href=\"{0}\">{0}</a></p>\n", escaped(&host_link(host, place))),
        None => format!("<p>{}</p>\n", escaped(&host_link(host, place))),
    }
}

/// With the zone in letters and in hours: readers sit elsewhere.
fn time(at: i64, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(zone.clone());
    at.strftime("%Y-%m-%d %H:%M:%S %Z (UTC%:z)").to_string()
}

/// Output is set in, so that none of its lines can pass for one of ours.
fn quoted(output: &str) -> String {
    let mut text: String = output.chars().take(MAX_OUTPUT).collect();
    if text.len() < output.len() {
        text.push_str("\n[cut here]");
    }
    let lines: Vec<String> = text.lines().map(|line| format!("    {}", harmless(line))).collect();
    if lines.is_empty() { "    (none)".to_owned() } else { lines.join("\n") }
}

pub(super) fn one_line(text: &str, longest: usize) -> String {
    harmless(text).chars().take(longest).collect()
}

/// For the inside of an element and of an attribute in double quotes.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::notify::NoticeId;
    use fleetgate_engine::time::Wall;
    use fleetgate_engine::wire::IncidentId;
    use proptest::prelude::*;

    use super::*;
    use crate::store::incidents::{IncidentRow, MemberRow};
    use crate::store::outbox::{Channel, Concern, Count};

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

    fn message(kind: Kind) -> MessageRow {
        MessageRow {
            id: 1,
            contact: Id::from_i64(1),
            contact_name: "ops".into(),
            channel: Channel::Email,
            address: "ops@example.org".into(),
            kind,
            site: "north".into(),
            folded: 1,
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
                count: 0,
            };
            let at = counts.iter().position(|c| Count { count: 0, ..c.clone() } == one);
            let at = at.unwrap_or_else(|| {
                counts.push(one);
                counts.len() - 1
            });
            counts[at].count += 1;
        }
        Contents { notices, counts, ..Contents::default() }
    }

    fn shown(letter: &Letter) -> String {
        format!("Subject: {}\n\n{}", letter.subject, letter.text)
    }

    fn write(kind: Kind, notices: Vec<NoticeRow>) -> Letter {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let place = Place { zone: &zone, public_url: Some("https://watch.example.com") };
        Letter::write(&message(kind), &contents(notices), None, &place)
    }

    fn one(notice: NoticeRow) -> Letter {
        write(Kind::Notices, vec![notice])
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
        insta::assert_snapshot!(shown(&one(recovered)));
    }

    #[test]
    fn without_an_address_the_letter_names_the_command() {
        let place = Place { zone: &TimeZone::UTC, public_url: None };
        let letter = Letter::write(&message(Kind::Notices), &contents(vec![down()]), None, &place);
        insta::assert_snapshot!(letter.text);
    }

    fn lost_site() -> Vec<NoticeRow> {
        let host = |n: i64| NoticeRow { host_name: format!("cam-{n:02}"), ..down() };
        let up = NoticeRow { kind: "recovery".into(), problem: false, to: "up".into(), ..host(9) };
        vec![host(1), host(2), host(3), up]
    }

    #[test]
    fn a_site_that_is_lost() {
        insta::assert_snapshot!(shown(&write(Kind::Notices, lost_site())));
    }

    #[test]
    fn a_site_that_is_lost_in_html() {
        insta::assert_snapshot!(write(Kind::Notices, lost_site()).html);
    }

    #[test]
    fn a_thousand_hosts_are_counted_and_not_all_named() {
        let mut all = contents(vec![down(); 100]);
        all.counts[0].count = 1_000;
        let place = Place { zone: &TimeZone::UTC, public_url: None };
        let letter = Letter::write(&message(Kind::Notices), &all, None, &place);
        assert_eq!(letter.subject, "DOWN: 1000 hosts at north");
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
            members: 1_000,
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
            began_at: at,
            joined_at: at,
            left_at: None,
        }
    }

    #[test]
    fn a_host_with_its_incident_and_what_is_wrong() {
        let zone = TimeZone::UTC;
        let place = Place { zone: &zone, public_url: Some("https://watch.example.com") };
        let concern =
            Concern { incident: incident("cam-07 is down", "host", 1), ill: vec![member("cam-07")] };
        let all = Contents { incidents: vec![concern], ..contents(vec![down()]) };
        let verdict = Verdict {
            kind: fleetgate_engine::verdict::Kind::Undetermined,
            text: "cannot be told: the device is gone, or its uplink".into(),
            candidates: Vec::new(),
            evidence: vec!["no packet for 95 s".into(), "6 others at north answer".into()],
        };
        let letter = Letter::write(&message(Kind::Notices), &all, Some(&verdict), &place);
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
        let place = Place { zone: &zone, public_url: Some("https://watch.example.com") };
        let mut all = contents(vec![down(), down()]);
        all.counts[0].count = 1_000;
        all.sites = vec![("north".into(), 999), (String::new(), 1)];
        all.incidents = vec![Concern { incident: incident("r1 is down", "site", 1_000), ill: Vec::new() }];
        let many = MessageRow { site: String::new(), folded: 4, ..message(Kind::Notices) };
        insta::assert_snapshot!(shown(&Letter::write(&many, &all, None, &place)));
    }

    #[test]
    fn who_outlives_a_lost_site_is_named_among_the_good_news() {
        let zone = TimeZone::UTC;
        let place = Place { zone: &zone, public_url: None };
        let up = NoticeRow {
            kind: "recovery".into(),
            problem: false,
            from: "down".into(),
            to: "up".into(),
            ..down()
        };
        let mut all = contents(vec![up.clone(), up]);
        let words = "most of north fell silent together: 16 of 30 hosts so far";
        all.incidents = vec![Concern { incident: incident(words, "site", 25), ill: vec![member("cam-09")] }];
        insta::assert_snapshot!(shown(&Letter::write(&message(Kind::Notices), &all, None, &place)));
    }

    #[test]
    fn a_digest_says_what_is_still_so() {
        let disk = NoticeRow { service: Some("disk".into()), to: "warning".into(), ..down() };
        insta::assert_snapshot!(shown(&write(Kind::Digest, vec![down(), disk])));
    }

    #[test]
    fn a_test_says_that_it_is_one() {
        insta::assert_snapshot!(shown(&write(Kind::Test, vec![])));
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

    proptest! {
        #[test]
        fn no_text_breaks_out(host in ".{0,300}", output in "(?s).{0,300}") {
            let letter = one(NoticeRow { host_name: host, output, ..down() });
            prop_assert!(!letter.subject.contains(char::is_control));
            prop_assert!(letter.subject.chars().count() <= MAX_SUBJECT);
            prop_assert!(!letter.text.chars().any(|c| c.is_control() && c != '\n'));
            let ours = letter.text.lines().filter(|l| !l.starts_with("    ") && !l.is_empty());
            prop_assert_eq!(ours.count(), 4);
            prop_assert_eq!(letter.html.matches('<').count(), 18);
        }
    }
}

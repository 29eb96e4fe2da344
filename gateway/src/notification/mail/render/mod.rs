//! The text of a message: its subject, its body, and the same as HTML. Pure.
//!
//! Text from a device or an operator is hostile. It cannot create a header, a line that looks like the
//! gateway's, a tag, or another text direction. The HTML loads nothing and runs nothing.

use std::fmt::Write as _;
use std::time::Duration;

use fleetgate_engine::messages::{Excerpt, GATEWAY};
use fleetgate_engine::verdict::Verdict;
use jiff::tz::TimeZone;

use crate::notification::mail::value_part::{self, RecentValues};
use crate::notification::mail::{incident_part, rental_part};
pub(in crate::notification::mail) use crate::sanitize::escaped;
use crate::sanitize::harmless;
use crate::store::notices::NoticeRow;
use crate::store::outbox::{Contents, Count, MessageRow, OutboxKind};

/// Notices in one mail: as many as a reader scrolls through. The page has the rest.
pub const LISTED: i64 = 100;
/// Hosts or services of each kind that a subject names; the text has the rest.
const NAMED: usize = 3;
/// Longest subject: twice what a mail program displays.
const MAX_SUBJECT: usize = 160;
/// Mark behind a truncated output.
const CUT: &str = "[cut here]";
/// Longest output of each notice, in a mail with several.
pub(in crate::notification::mail) const MAX_LINE: usize = 200;

/// The text of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub subject: String,
    pub text: String,
    /// Empty: the mail has the text alone.
    pub html: String,
}

/// The reader's environment: the time zone and the address of the dashboard.
pub struct MailContext<'a> {
    pub zone: &'a TimeZone,
    pub public_url: Option<&'a str>,
}

impl Letter {
    /// Writes a mail. `verdict` is that of the host, if the mail reports one host only; `values` are the
    /// recent values, if it reports one value only.
    pub fn write(
        message: &MessageRow,
        contents: &Contents,
        verdict: Option<&Verdict>,
        values: Option<&RecentValues>,
        place: &MailContext<'_>,
    ) -> Letter {
        match (message.kind, contents.notices.as_slice()) {
            (OutboxKind::Test, _) => test(message, place),
            (OutboxKind::Notices, [one]) if contents.total() == 1 => {
                of_one(one, contents, (verdict, values), place)
            }
            _ => of_many(message, contents, place),
        }
    }
}

// ----------------------------------------------------------------- one object

fn of_one(
    notice: &NoticeRow,
    contents: &Contents,
    (verdict, values): (Option<&Verdict>, Option<&RecentValues>),
    place: &MailContext<'_>,
) -> Letter {
    let (headline, after) = (headline(&notice.kind, notice.problem, &notice.to), after(notice, contents));
    let rented = rental_part::text(notice, contents, place).map(|rented| format!("Rented  {rented}\n"));
    let around = Around {
        rented: rented.unwrap_or_default(),
        incidents: incident_part::text(contents, place),
        verdict: incident_part::verdict_text(verdict),
        values: value_part::text(values),
    };
    let in_html = Around {
        rented: rental_part::html(notice, contents, place),
        incidents: incident_part::html(contents, place),
        verdict: incident_part::verdict_html(verdict),
        values: value_part::html(values),
    };
    Letter {
        subject: subject(&format!("{headline} {}{after}", object(notice)), contents),
        text: text_of_one(notice, &after, &around, place),
        html: html_of_one(notice, (&headline, &after), &in_html, place),
    }
}

/// The parts around one notice, as text or HTML.
struct Around {
    rented: String,
    incidents: String,
    verdict: String,
    values: String,
}

/// Returns the subject. Truncation never affects the incident.
fn subject(words: &str, contents: &Contents) -> String {
    let tag = incident_part::tag(contents);
    one_line(words, MAX_SUBJECT - tag.len()) + &tag
}

/// Returns the author of an action and the comment.
fn by(notice: &NoticeRow) -> String {
    match notice.note.as_str() {
        "" => String::new(),
        note => format!("By      {}\n", one_line(note, MAX_LINE)),
    }
}

/// Returns the event in one or two words.
fn headline(kind: &str, problem: bool, to: &str) -> String {
    let to = to.to_uppercase();
    match kind {
        "reminder" => format!("STILL {to}"),
        "flapping_start" => "FLAPPING".to_owned(),
        "flapping_end" => format!("FLAPPING ENDED, {to}"),
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

/// Returns ` after 12 min`, for a recovery whose problem is known.
fn after(notice: &NoticeRow, contents: &Contents) -> String {
    let began = contents.began.get(&notice.id);
    began.map_or_else(String::new, |began| format!(" after {}", lasted(notice.since.since(*began))))
}

/// Formats a time in its two largest units, rounded down.
fn lasted(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {smaller}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{minutes} min"),
        3_600..86_400 => two(hours, "h", minutes % 60, "min"),
        _ => two(days, "d", hours % 24, "h"),
    }
}

fn sentence(notice: &NoticeRow, after: &str) -> String {
    let name = one_line(&notice.host_name, MAX_SUBJECT);
    let subject = match &notice.service {
        Some(service) => format!("{} on {name}", one_line(service, MAX_SUBJECT)),
        None => name,
    };
    let to = notice.to.to_uppercase();
    let was = earlier(&notice.from, &notice.to).map_or_else(String::new, |from| format!(", it was {from}"));
    if notice.kind == "recovery" {
        return format!("{subject} recovered{after}: it is {to}{was}.");
    }
    format!("{subject} is {to}{was}.")
}

/// Returns the state that was notified before, in capitals. OK and UP are also the states of what
/// was never notified, or had no result before, so they are left out.
fn earlier(from: &str, to: &str) -> Option<String> {
    (from != to && !matches!(from, "ok" | "up" | "pending")).then(|| from.to_uppercase())
}

fn text_of_one(notice: &NoticeRow, after: &str, around: &Around, place: &MailContext<'_>) -> String {
    format!(
        "{}\n\nSince   {}\n{}{}{}{}{}Output\n{}\n\n{}\n",
        sentence(notice, after),
        time(notice.since.as_millis(), place.zone),
        by(notice),
        around.rented,
        around.incidents,
        around.verdict,
        around.values,
        quoted(&notice.output),
        host_link(&notice.host_name, place),
    )
}

/// `headline` and `after` are the event and the duration of its problem.
fn html_of_one(
    notice: &NoticeRow,
    (headline, after): (&str, &str),
    around: &Around,
    place: &MailContext<'_>,
) -> String {
    let output = whole_or_cut(&notice.output).lines().map(harmless).collect::<Vec<_>>().join("\n");
    let body = format!(
        "<p><strong style=\"color:{}\">{}</strong> {}</p>\n<p>{}<br>Since {}{}{}</p>\n{}{}{}<pre style=\"{}\">{}</pre>\n{}",
        colour(notice),
        escaped(headline),
        escaped(&one_line(&object(notice), MAX_SUBJECT)),
        escaped(&sentence(notice, after)),
        escaped(&time(notice.since.as_millis(), place.zone)),
        escaped(&by(notice)).replacen("By      ", "<br>By ", 1).trim_end(),
        around.rented,
        around.incidents,
        around.verdict,
        around.values,
        PRE,
        escaped(if output.is_empty() { "(none)" } else { &output }),
        html_link(&one_line(&notice.host_name, MAX_SUBJECT), place),
    );
    page(&body)
}

// --------------------------------------------------------------- many objects

fn of_many(message: &MessageRow, contents: &Contents, place: &MailContext<'_>) -> Letter {
    let site = match message.site.as_str() {
        "" => String::new(),
        site => format!(" at {}", one_line(site, MAX_SUBJECT)),
    };
    let sum = [Names::InAll, Names::InFirst, Names::Nowhere].map(|names| sum(message.kind, contents, names));
    let room = MAX_SUBJECT - site.chars().count() - incident_part::tag(contents).len();
    let fits = sum.iter().find(|sum| sum.chars().count() <= room);
    let subject = subject(&format!("{}{site}", fits.unwrap_or(&sum[2])), contents);
    let more = contents.total() - contents.notices.len() as i64;
    Letter {
        text: text_of_many(&subject, message, contents, more, place),
        html: html_of_many(&subject, message, contents, more, place),
        subject,
    }
}

/// The parts of a subject that name hosts and services, as far as they fit: all, the first (the worst),
/// or none.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    InAll,
    InFirst,
    Nowhere,
}

impl Names {
    const fn in_part(self, part: usize) -> bool {
        matches!((self, part), (Names::InAll, _) | (Names::InFirst, 0))
    }
}

fn sum(kind: OutboxKind, contents: &Contents, names: Names) -> String {
    match kind {
        OutboxKind::Digest => format!("OPEN PROBLEMS: {}", things(contents, names.in_part(0), |_| true)),
        OutboxKind::Notices | OutboxKind::Test => summary(contents, names),
    }
}

/// Returns `DOWN: cam-01, cam-02, cam-03 and 25 more hosts; RECOVERED: cam-09`: the worst first, in the
/// order of the counts.
fn summary(contents: &Contents, names: Names) -> String {
    let mut headlines: Vec<String> = Vec::new();
    for count in &contents.counts {
        let headline = headline(&count.kind, count.problem, &count.to);
        if !headlines.contains(&headline) {
            headlines.push(headline);
        }
    }
    let part = |(at, wanted): (usize, &String)| {
        let is_wanted = |(kind, problem, to): (&str, bool, &str)| headline(kind, problem, to) == *wanted;
        format!("{wanted}: {}", things(contents, names.in_part(at), is_wanted))
    };
    headlines.iter().enumerate().map(part).collect::<Vec<_>>().join("; ")
}

/// Lists the hosts and services that `wanted` selects: `cam-01, cam-02`, `nas-1 disk`, `ssh on nas-1,
/// nas-2`, or a number. The gateway itself does not count as a host.
fn things(contents: &Contents, named: bool, wanted: impl Fn((&str, bool, &str)) -> bool) -> String {
    let counts: Vec<&Count> =
        contents.counts.iter().filter(|c| wanted((&c.kind, c.problem, &c.to))).collect();
    let (services, hosts): (Vec<&Count>, Vec<&Count>) = counts.into_iter().partition(|c| c.services);
    let notices = contents.notices.iter().filter(|n| wanted((&n.kind, n.problem, &n.to)));
    let is_gateway = |n: &&NoticeRow| n.host == GATEWAY && n.service.is_none();
    let (of_gateway, others): (Vec<&NoticeRow>, Vec<&NoticeRow>) = notices.partition(is_gateway);
    let (of_services, of_hosts): (Vec<&NoticeRow>, Vec<&NoticeRow>) =
        others.into_iter().filter(|_| named).partition(|notice| notice.service.is_some());
    let count = hosts.iter().map(|c| c.count).sum::<i64>() - of_gateway.len() as i64;
    let hosts = listed(count, "host", of_hosts.iter().map(|n| object(n)));
    let gateway = of_gateway.first().map(|notice| object(notice));
    [gateway, hosts, of_those(&services, &of_services)].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn of_those(counts: &[&Count], notices: &[&NoticeRow]) -> Option<String> {
    let service = counts.first().and_then(|c| c.service.as_deref());
    let shared = service.filter(|_| counts.iter().all(|c| c.service.as_deref() == service));
    let on: i64 = counts.iter().map(|c| c.hosts).sum();
    match shared {
        Some(service) if on > 1 => {
            let hosts = listed(on, "host", notices.iter().map(|n| n.host_name.clone()))?;
            Some(format!("{} on {hosts}", one_line(service, MAX_SUBJECT)))
        }
        _ => listed(counts.iter().map(|c| c.count).sum(), "service", notices.iter().map(|n| object(n))),
    }
}

/// Returns the first of them by name and the number of the others; without names, only the number.
fn listed(count: i64, one: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let mut shown: Vec<String> = Vec::new();
    for name in names.map(|name| one_line(&name, MAX_SUBJECT)) {
        if shown.len() < NAMED && !shown.contains(&name) {
            shown.push(name);
        }
    }
    let more = count - shown.len() as i64;
    let counted = |n: i64, more: &str| format!("{n}{more} {one}{}", if n == 1 { "" } else { "s" });
    match (count, shown.is_empty(), more) {
        (..=0, ..) => None,
        (_, true, _) => Some(counted(count, "")),
        (_, false, ..=0) => Some(shown.join(", ")),
        (_, false, more) => Some(format!("{} and {}", shown.join(", "), counted(more, " more"))),
    }
}

/// Returns why the mail combines so many notices, and their sites.
fn preface(message: &MessageRow, contents: &Contents) -> Vec<String> {
    let folded = (message.folded > 1).then(|| {
        format!(
            "The message limit is reached. This message replaces {} messages, and later notifications are combined for a while.",
            message.folded
        )
    });
    let sites = incident_part::sites(contents).map(|sites| format!("By site: {sites}"));
    folded.into_iter().chain(sites).collect()
}

fn text_of_many(
    subject: &str,
    message: &MessageRow,
    contents: &Contents,
    more: i64,
    place: &MailContext<'_>,
) -> String {
    let mut text = format!("{subject}\n\n");
    for line in preface(message, contents) {
        let _ = writeln!(text, "{line}\n");
    }
    let incidents = incident_part::text(contents, place);
    if !incidents.is_empty() {
        let _ = writeln!(text, "{incidents}");
    }
    for notice in &contents.notices {
        let headline = headline(&notice.kind, notice.problem, &notice.to);
        let after = after(notice, contents);
        let object = one_line(&object(notice), MAX_SUBJECT);
        let since = time(notice.since.as_millis(), place.zone);
        let output = one_line(notice.output.lines().next().unwrap_or_default(), MAX_LINE);
        let by = one_line(&notice.note, MAX_LINE);
        let by = if by.is_empty() { by } else { format!(", by {by}") };
        let rented = rental_part::text(notice, contents, place).map(|rented| format!(", rented: {rented}"));
        let rented = rented.unwrap_or_default();
        let _ = writeln!(text, "    {headline} {object}{after}, since {since}{by}{rented}\n        {output}");
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
    place: &MailContext<'_>,
) -> String {
    let mut body = format!("<p><strong>{}</strong></p>\n", escaped(subject));
    for line in preface(message, contents) {
        let _ = writeln!(body, "<p>{}</p>", escaped(&line));
    }
    let _ = writeln!(body, "{}<table style=\"{TABLE}\">", incident_part::html(contents, place));
    for notice in &contents.notices {
        let _ = writeln!(
            body,
            "<tr><td style=\"{CELL};color:{}\"><strong>{}</strong></td><td style=\"{CELL}\">{}</td>\
             <td style=\"{CELL}\">{}</td><td style=\"{CELL}\">{}</td></tr>",
            colour(notice),
            escaped(&headline(&notice.kind, notice.problem, &notice.to)),
            html_object(notice, place) + &escaped(&after(notice, contents)),
            escaped(&time(notice.since.as_millis(), place.zone)),
            escaped(&one_line(notice.output.lines().next().unwrap_or_default(), MAX_LINE))
                + &rental_part::html(notice, contents, place),
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

fn html_object(notice: &NoticeRow, place: &MailContext<'_>) -> String {
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

fn test(message: &MessageRow, place: &MailContext<'_>) -> Letter {
    let text = format!(
        "This is a test: the contact {} receives notifications at {}.\nThere is no problem.\n",
        one_line(&message.contact_name, MAX_SUBJECT),
        one_line(&message.address.to_string(), MAX_SUBJECT),
    );
    let body = format!("<p>{}</p>\n", escaped(&text).replace('\n', "<br>"));
    let link = place.public_url.map(|url| format!("\n{url}\n")).unwrap_or_default();
    Letter { subject: "TEST of fleetgate".to_owned(), text: text + &link, html: page(&body) }
}

// ---------------------------------------------------------------------- parts

const PRE: &str = "background:#f3f4f6;color:#1f2937;padding:8px;white-space:pre-wrap;font-family:monospace";
const TABLE: &str = "border-collapse:collapse";
const CELL: &str = "padding:2px 12px 2px 0;vertical-align:top";

fn page(body: &str) -> String {
    format!(
        "<!doctype html>\n<html><body style=\"font-family:sans-serif;font-size:14px\">\n{body}</body></html>\n"
    )
}

/// Returns a colour that is readable on white and on black.
fn colour(notice: &NoticeRow) -> &'static str {
    match notice.to.as_str() {
        _ if !notice.problem => "#15803d",
        "warning" => "#b45309",
        "unknown" => "#7e22ce",
        _ => "#dc2626",
    }
}

fn host_link(host: &str, place: &MailContext<'_>) -> String {
    let host = one_line(host, MAX_SUBJECT);
    match place.public_url {
        Some(url) => format!("{url}/hosts/{host}"),
        None => format!("More: fleetgate host show {host}"),
    }
}

fn html_link(host: &str, place: &MailContext<'_>) -> String {
    match place.public_url {
        Some(_) => format!("<p><a href=\"{0}\">{0}</a></p>\n", escaped(&host_link(host, place))),
        None => format!("<p>{}</p>\n", escaped(&host_link(host, place))),
    }
}

/// Formats a time with the name and the offset of its zone: readers may be in another one.
fn time(at: i64, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or_default().to_zoned(zone.clone());
    at.strftime("%Y-%m-%d %H:%M:%S %Z (UTC%:z)").to_string()
}

/// Indents the output, so that none of its lines can pass for one of the gateway's.
fn quoted(output: &Excerpt) -> String {
    let text = whole_or_cut(output);
    let lines: Vec<String> = text.lines().map(|line| format!("    {}", harmless(line))).collect();
    if lines.is_empty() { "    (none)".to_owned() } else { lines.join("\n") }
}

/// Returns an output. A truncated one ends with a line that says so.
fn whole_or_cut(output: &Excerpt) -> String {
    if output.is_truncated() { format!("{output}\n{CUT}") } else { output.to_string() }
}

pub(in crate::notification::mail) fn one_line(text: &str, longest: usize) -> String {
    harmless(text).chars().take(longest).collect()
}

#[cfg(test)]
mod tests;

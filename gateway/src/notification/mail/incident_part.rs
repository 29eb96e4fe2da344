//! The parts of a mail about its incidents, the verdict, and the problems that remain. Pure; the text
//! and the HTML have the same content.

use std::fmt::Write as _;

use fleetgate_engine::verdict::Verdict;

use crate::notification::incident_text;
use crate::notification::mail::render::{MAX_LINE, MailContext, escaped, one_line};
use crate::store::incidents::{IncidentRow, MemberRow};
use crate::store::outbox::{Concern, Contents};

/// Remaining problems that are listed; the page of the incident has all.
const STILL: usize = 20;

/// Returns the tag for the subject: the incident, if there is exactly one.
pub fn tag(contents: &Contents) -> String {
    match contents.incidents.as_slice() {
        [one] => format!(" [{}]", one.incident.id),
        _ => String::new(),
    }
}

fn link(concern: &Concern, place: &MailContext<'_>) -> String {
    match place.public_url {
        Some(url) => format!("{url}/incidents/{}", concern.incident.id),
        None => format!("fleetgate incident show {}", concern.incident.id),
    }
}

/// Describes an incident, with the number of its problems if it has several members.
fn words(incident: &IncidentRow) -> String {
    let words = one_line(&incident_text::of(incident), MAX_LINE);
    match (incident.members, incident.ill) {
        (..=1, _) => words,
        (all, 0) => format!("{words} (all {all} recovered)"),
        (all, ill) if ill == all => format!("{words} ({ill} problems)"),
        (all, ill) => format!("{words} ({ill} of {all} still have problems)"),
    }
}

/// Returns a paragraph about the incidents, or nothing.
pub fn text(contents: &Contents, place: &MailContext<'_>) -> String {
    let mut text = String::new();
    for concern in &contents.incidents {
        let words = words(&concern.incident);
        let _ = writeln!(text, "    {}: {words}\n        {}", concern.incident.id, link(concern, place));
    }
    let incidents = if text.is_empty() { text } else { format!("Incident\n{text}") };
    match still(contents) {
        Some(still) => format!("{incidents}Remaining problems\n    {still}\n"),
        None => incidents,
    }
}

pub fn html(contents: &Contents, place: &MailContext<'_>) -> String {
    let mut html = String::new();
    for concern in &contents.incidents {
        let (id, words) = (concern.incident.id, words(&concern.incident));
        let shown = match place.public_url {
            Some(_) => format!("<a href=\"{}\">{id}</a>", escaped(&link(concern, place))),
            None => id.to_string(),
        };
        let _ = writeln!(html, "<p>Incident {shown}: {}</p>", escaped(&words));
    }
    if let Some(still) = still(contents) {
        let _ = writeln!(html, "<p>Remaining problems: {}</p>", escaped(&still));
    }
    html
}

/// Returns the problems of the incidents that remain, if something has recovered: a remaining problem
/// must not be lost among recoveries.
fn still(contents: &Contents) -> Option<String> {
    if contents.counts.iter().all(|c| c.problem) {
        return None;
    }
    let all: i64 = contents.incidents.iter().map(|c| c.incident.ill).sum();
    let ill: Vec<&MemberRow> = contents.incidents.iter().flat_map(|c| &c.ill).take(STILL).collect();
    if ill.is_empty() {
        return None;
    }
    let name = |m: &&MemberRow| {
        let host = m.host_name.as_deref().unwrap_or("gateway");
        one_line(&m.service.as_ref().map_or(host.to_owned(), |s| format!("{host} {s}")), MAX_LINE)
    };
    let names = ill.iter().map(name).collect::<Vec<_>>().join(", ");
    let more = all - ill.len() as i64;
    Some(if more > 0 { format!("{names}, and {more} more") } else { names })
}

/// Returns the number of notices of each site, if there are several sites.
pub fn sites(contents: &Contents) -> Option<String> {
    let site = |(site, count): &(String, i64)| {
        let name = if site.is_empty() { "no site".to_owned() } else { one_line(site, MAX_LINE) };
        format!("{name} {count}")
    };
    let sites: Vec<String> = contents.sites.iter().map(site).collect();
    (!sites.is_empty()).then(|| sites.join(", "))
}

/// Returns the verdict and its evidence.
pub fn verdict_text(verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else { return String::new() };
    let mut text = format!("Verdict\n    {}\n", one_line(&verdict.text, MAX_LINE));
    for evidence in &verdict.evidence {
        let _ = writeln!(text, "    - {}", one_line(evidence, MAX_LINE));
    }
    text
}

pub fn verdict_html(verdict: Option<&Verdict>) -> String {
    let Some(verdict) = verdict else { return String::new() };
    let mut html = format!("<p><strong>{}</strong></p>\n<ul>\n", escaped(&one_line(&verdict.text, MAX_LINE)));
    for evidence in &verdict.evidence {
        let _ = writeln!(html, "<li>{}</li>", escaped(&one_line(evidence, MAX_LINE)));
    }
    html + "</ul>\n"
}

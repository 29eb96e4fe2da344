//! The wording of a message. Pure.
//!
//! Whatever a device or a person said in it is hostile: it cannot make a header, a line of ours, or
//! another direction of writing.

use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;

use crate::store::outbox::Body;
use crate::text::harmless;

/// Longest subject: what a mail program shows of one, twice.
const MAX_SUBJECT: usize = 160;
/// Longest output in a letter; the page has the rest.
const MAX_OUTPUT: usize = 4_000;

/// What a letter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    pub subject: String,
    pub text: String,
}

/// Where it is read: the time zone and the address of the dashboard.
pub struct Place<'a> {
    pub zone: &'a TimeZone,
    pub public_url: Option<&'a str>,
}

impl Letter {
    pub fn write(body: &Body, place: &Place<'_>) -> Letter {
        let what = headline(body);
        let object = match &body.service {
            Some(service) => format!("{} {service}", body.host_name),
            None => body.host_name.clone(),
        };
        let subject = one_line(&format!("{what} {object}"), MAX_SUBJECT);
        Letter { subject, text: text(body, place) }
    }
}

fn headline(body: &Body) -> String {
    let to = body.to.to_uppercase();
    match body.kind.as_str() {
        "reminder" => format!("STILL {to}"),
        "flapping_start" => "FLAPPING".to_owned(),
        "flapping_end" => format!("CALM, {to}"),
        "acknowledged" => format!("ACKNOWLEDGED {to}"),
        "downtime_start" => "DOWNTIME BEGINS".to_owned(),
        "downtime_end" | "downtime_cancelled" => "DOWNTIME ENDS".to_owned(),
        _ if body.problem => to,
        _ => "RECOVERED".to_owned(),
    }
}

fn text(body: &Body, place: &Place<'_>) -> String {
    let name = one_line(&body.host_name, MAX_SUBJECT);
    let subject = match &body.service {
        Some(service) => format!("{} on {name}", one_line(service, MAX_SUBJECT)),
        None => name.clone(),
    };
    let (from, to) = (body.from.to_uppercase(), body.to.to_uppercase());
    let since = time(body.since, place.zone);
    format!(
        "{subject} is {to}, it was {from}.\n\nSince   {since}\nOutput\n{}\n\n{}\n",
        quoted(&body.output),
        link(&name, place.public_url),
    )
}

fn link(host: &str, public_url: Option<&str>) -> String {
    match public_url {
        Some(url) => format!("{url}/hosts/{host}"),
        None => format!("More: fleetgate host show {host}"),
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

fn one_line(text: &str, longest: usize) -> String {
    harmless(text).chars().take(longest).collect()
}

/// When a letter was written, for its `Date`.
pub fn written_at(body: &Body) -> std::time::SystemTime {
    let since = Wall::from_millis(body.at).since(Wall::from_millis(0));
    std::time::SystemTime::UNIX_EPOCH + since
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body() -> Body {
        Body {
            at: 1_773_147_810_000,
            host_name: "cam-07".into(),
            service: None,
            kind: "problem".into(),
            problem: true,
            from: "up".into(),
            to: "down".into(),
            output: "no tunnel for 95 s; tcp 22: timed out".into(),
            since: 1_773_147_802_000,
        }
    }

    fn shown(letter: &Letter) -> String {
        format!("Subject: {}\n\n{}", letter.subject, letter.text)
    }

    fn write(body: &Body) -> Letter {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        Letter::write(body, &Place { zone: &zone, public_url: Some("https://watch.example.com") })
    }

    #[test]
    fn a_host_that_is_down() {
        insta::assert_snapshot!(shown(&write(&body())));
    }

    #[test]
    fn a_service_that_recovered() {
        let recovered = Body {
            service: Some("disk".into()),
            kind: "recovery".into(),
            problem: false,
            from: "critical".into(),
            to: "ok".into(),
            output: "/ 61% used, 5.2 GB free".into(),
            ..body()
        };
        insta::assert_snapshot!(shown(&write(&recovered)));
    }

    #[test]
    fn without_an_address_the_letter_names_the_command() {
        let letter = Letter::write(&body(), &Place { zone: &TimeZone::UTC, public_url: None });
        insta::assert_snapshot!(letter.text);
    }

    #[test]
    fn hostile_text_stays_in_its_place() {
        let hostile = Body {
            service: Some("disk\r\nBcc: everybody@example.org".into()),
            output: "\u{202e}drow\u{7}\r\n.\r\nSince   yesterday\nhttps://evil.example/\n".into(),
            ..body()
        };
        insta::assert_snapshot!(shown(&write(&hostile)));
    }

    proptest! {
        #[test]
        fn no_text_breaks_out(host in ".{0,300}", output in "(?s).{0,300}") {
            let letter = write(&Body { host_name: host, output, ..body() });
            prop_assert!(!letter.subject.contains(char::is_control));
            prop_assert!(letter.subject.chars().count() <= MAX_SUBJECT);
            prop_assert!(!letter.text.chars().any(|c| c.is_control() && c != '\n'));
            let ours = letter.text.lines().filter(|l| !l.starts_with("    ") && !l.is_empty());
            prop_assert_eq!(ours.count(), 4);
        }
    }
}

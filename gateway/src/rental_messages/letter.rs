//! The text of a mail to the contacts of a rental. Pure.
//!
//! It names the device as the customer does, and nothing else of the fleet: no other name, no address, no link. The
//! output of a service is the text of a device, so it creates no header and no line that looks like the gateway's.

use std::fmt::Write as _;

use fleetgate_engine::rental::notices::MOST;
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;

use crate::notification::mail::render::Letter;
use crate::sanitize::{discreet, harmless};
use crate::store::rentals::messages::{MessageRow, Said};

/// Changes that a subject names; it counts more of them.
const NAMED: usize = 3;
/// Characters of a name in a sentence or a subject.
const MAX_NAME: usize = 80;
/// Lines of an output, and characters of each.
const MAX_LINES: usize = 5;
const MAX_LINE: usize = 200;

/// The rental that a message is about.
pub struct About<'a> {
    /// The name of the device for the customer.
    pub name: &'a str,
    /// The name of it for operators, which no mail contains.
    pub device_name: &'a str,
    /// The `external_ref` of the booking.
    pub reference: Option<&'a str>,
    pub ends_at: Wall,
    /// In which times are written.
    pub zone: &'a TimeZone,
}

impl About<'_> {
    /// Writes the mail.
    pub fn letter(&self, message: &MessageRow) -> Letter {
        Letter { subject: self.subject(message), text: self.text(message), html: String::new() }
    }

    fn subject(&self, message: &MessageRow) -> String {
        let name = short(self.name);
        if message.parts.len() <= NAMED {
            let parts: Vec<String> = message.parts.iter().map(headline).collect();
            return format!("{name}: {}", parts.join(", "));
        }
        let over = message.parts.iter().filter(|said| said.part.is_over).count();
        match message.parts.len() - over {
            0 => format!("{name}: {over} recovered"),
            problems if over == 0 => format!("{name}: {problems} problems"),
            1 => format!("{name}: 1 problem, {over} recovered"),
            problems => format!("{name}: {problems} problems, {over} recovered"),
        }
    }

    fn text(&self, message: &MessageRow) -> String {
        let mut text = String::new();
        for said in &message.parts {
            let _ = writeln!(text, "{}", self.sentence(said));
            for line in said.output.as_deref().unwrap_or_default().lines().take(MAX_LINES) {
                let _ = writeln!(text, "    {}", self.discreet(line));
            }
            text.push('\n');
        }
        let _ = writeln!(text, "Device   {}", short(self.name));
        if let Some(reference) = self.reference {
            let _ = writeln!(text, "Booking  {}", harmless(reference));
        }
        let _ = writeln!(text, "Ends     {}", self.time(self.ends_at));
        let _ = writeln!(text, "\n{}", self.closing(message));
        text
    }

    fn sentence(&self, said: &Said) -> String {
        let since = match said.part.since {
            Some(at) => format!("since {}", self.time(at)),
            None => "since before your rental began".to_owned(),
        };
        let name = short(self.name);
        let of = match said.part.service.as_str() {
            "" => name,
            service => format!("{} on {name}", short(service)),
        };
        let state = said.part.state.name();
        match said.part.is_over {
            true => format!("{of} has recovered. It had been {state} {since}."),
            false => format!("{of} has been {state} {since}."),
        }
    }

    fn closing(&self, message: &MessageRow) -> String {
        let ends = "After the end of the rental no more messages follow.";
        match message.is_last {
            true => format!(
                "This is message {MOST} within 24 hours, the most that are sent. What changes now follows in one \
                 message later. {ends}"
            ),
            false => {
                format!(
                    "You get a message when a problem lasts for a minute, and one when it is over. {ends}"
                )
            }
        }
    }

    /// Formats a time with the name and the offset of its zone.
    fn time(&self, at: Wall) -> String {
        let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M %Z (UTC%:z)").to_string()
    }

    /// Returns a line of an output without addresses and without the name that the operators gave the device.
    fn discreet(&self, line: &str) -> String {
        let line: String = harmless(line).chars().take(MAX_LINE).collect();
        discreet(&line, self.device_name, &short(self.name))
    }
}

/// Returns a change in a few words.
fn headline(said: &Said) -> String {
    let service = short(&said.part.service);
    match (service.as_str(), said.part.is_over) {
        ("", true) => "recovered".to_owned(),
        ("", false) => said.part.state.name().to_owned(),
        (service, true) => format!("{service} recovered"),
        (service, false) => format!("{service} {}", said.part.state.name()),
    }
}

fn short(name: &str) -> String {
    harmless(name).chars().take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::rental::notices::{Part, State};

    use super::*;

    /// 2026-12-10 13:03:20 UTC.
    const NOON: i64 = 1_796_907_800_000;

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(NOON + seconds * 1_000)
    }

    fn about(zone: &TimeZone) -> About<'_> {
        About {
            name: "entrance",
            device_name: "cam-07",
            reference: Some("order-4711"),
            ends_at: at(86_400),
            zone,
        }
    }

    fn said(service: &str, state: State, is_over: bool, output: &str) -> Said {
        let output = Some(output.to_owned()).filter(|output| !output.is_empty());
        Said { part: Part { service: service.to_owned(), state, since: Some(at(0)), is_over }, output }
    }

    fn message(parts: Vec<Said>) -> MessageRow {
        let (id, email) = (1, "ada@example.org".to_owned());
        MessageRow {
            id,
            rental: Id::from_i64(7),
            email,
            parts,
            is_last: false,
            created_at: at(60),
            attempts: 0,
        }
    }

    fn written(parts: Vec<Said>) -> Letter {
        about(&TimeZone::get("Europe/Vienna").unwrap()).letter(&message(parts))
    }

    #[test]
    fn a_problem_is_a_calm_mail_that_names_the_device_as_the_customer_does() {
        let mail =
            written(vec![said("ssh", State::Critical, false, "no answer from 10.112.0.7:22 (cam-07)")]);
        assert_eq!(mail.subject, "entrance: ssh critical");
        assert_eq!(
            mail.text,
            "ssh on entrance has been critical since 2026-12-10 14:03 CET (UTC+01:00).\n    \
             no answer from (address):22 (entrance)\n\n\
             Device   entrance\nBooking  order-4711\nEnds     2026-12-11 14:03 CET (UTC+01:00)\n\n\
             You get a message when a problem lasts for a minute, and one when it is over. After the end of the rental \
             no more messages follow.\n"
        );
        assert_eq!(mail.html, "", "plain text");
    }

    #[test]
    fn a_subject_names_few_changes_and_counts_many() {
        let down = || said("", State::Down, false, "");
        let gone = || said("", State::Unreachable, false, "");
        let ssh = || said("ssh", State::Unknown, false, "");
        let over = |service: &str| said(service, State::Critical, true, "");
        for (parts, subject) in [
            (vec![down()], "entrance: down"),
            (vec![gone()], "entrance: unreachable"),
            (vec![over("")], "entrance: recovered"),
            (vec![over("ssh")], "entrance: ssh recovered"),
            (vec![down(), over("ssh")], "entrance: down, ssh recovered"),
            (vec![ssh(), ssh(), ssh(), ssh()], "entrance: 4 problems"),
            (vec![over(""), over("a"), over("b"), over("c")], "entrance: 4 recovered"),
            (vec![down(), over("a"), over("b"), over("c")], "entrance: 1 problem, 3 recovered"),
            (vec![down(), ssh(), over("b"), over("c")], "entrance: 2 problems, 2 recovered"),
        ] {
            assert_eq!(written(parts).subject, subject);
        }
    }

    #[test]
    fn sentences_say_what_was_and_since_when() {
        let earlier = |is_over| {
            let said = said("ssh", State::Critical, is_over, "");
            Said { part: Part { since: None, ..said.part }, ..said }
        };
        for (parts, begin) in [
            (
                said("", State::Down, false, ""),
                "entrance has been down since 2026-12-10 14:03 CET (UTC+01:00).",
            ),
            (
                said("", State::Down, true, ""),
                "entrance has recovered. It had been down since 2026-12-10 14:03 CET (UTC+01:00).",
            ),
            (earlier(false), "ssh on entrance has been critical since before your rental began."),
            (
                earlier(true),
                "ssh on entrance has recovered. It had been critical since before your rental began.",
            ),
        ] {
            let text = written(vec![parts]).text;
            assert_eq!(text.lines().next(), Some(begin));
        }
    }

    #[test]
    fn the_last_message_of_a_day_says_so_and_times_are_in_the_zone_that_is_given() {
        let last = MessageRow { is_last: true, ..message(vec![said("", State::Down, false, "")]) };
        let mail = About { reference: None, ..about(&TimeZone::UTC) }.letter(&last);
        assert!(mail.text.contains("This is message 20 within 24 hours"), "{}", mail.text);
        assert!(mail.text.contains("Ends     2026-12-11 13:03 UTC (UTC+00:00)"), "{}", mail.text);
        assert!(!mail.text.contains("Booking"), "{}", mail.text);
    }

    #[test]
    fn the_text_of_a_device_stays_within_its_lines_and_names_no_address() {
        let output = "a\u{202e}b\x1b[2J\nSubject: x\n3\n4\n5\n6";
        let mail = written(vec![said("disk\r\nBcc: eve@example.org", State::Critical, false, output)]);
        assert!(!mail.subject.contains(['\r', '\n']), "{:?}", mail.subject);
        assert!(mail.text.contains("    a\u{fffd}b\u{fffd}[2J\n    Subject: x\n    3\n    4\n    5\n\n"));
        assert!(!mail.text.contains("    6"), "{}", mail.text);
        let zone = TimeZone::UTC;
        let about = about(&zone);
        for (line, shown) in [
            ("fd72::7 and [fd72::7]:22, 192.168.1.0/24.", "(address) and [(address)]:22, (address)/24."),
            ("from 10.0.0.1.", "from (address)."),
            ("10.0.0.1: refused at 12:30:45", "(address): refused at 12:30:45"),
            ("addr:10.0.0.1:22 std::bad", "addr:(address):22 std::bad"),
            ("fd72:: of fd72::7:", "(address) of (address):"),
            ("CAM-07: cam-070 of cam-07.", "entrance: cam-070 of entrance."),
            (
                "cam-07.fleet.internal, user@cam-07:22, xcam-07",
                "entrance.fleet.internal, user@entrance:22, xcam-07",
            ),
            ("cam-0\u{e9}", "cam-0\u{e9}"),
            ("load 0.12, 87 % of 3.4 GB, version 1.2.3", "load 0.12, 87 % of 3.4 GB, version 1.2.3"),
            ("", ""),
        ] {
            assert_eq!(about.discreet(line), shown);
        }
        assert_eq!(about.discreet(&"x".repeat(999)).len(), MAX_LINE);
    }
}

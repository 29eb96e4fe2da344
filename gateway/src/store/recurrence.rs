//! The recurrence of a downtime as text: the same in the column `downtimes.recurrence` and in the
//! API.
//!
//! Parsing is strict. A value out of bounds is refused with the field's name. This module knows the
//! names of time zones.

use fleetgate_engine::monitor::recurrence::{Every, Hours, Recurrence};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::definition::{FieldError, wrong};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    pub every: String,
    pub from: String,
    pub to: String,
    pub time_zone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_date: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_date: Option<String>,
}

/// # Errors
/// Names the first wrong field.
pub fn parse(text: &Text) -> Result<Recurrence, FieldError> {
    let every: Every = text.every.parse().map_err(|e| wrong("every", format!("{e}")))?;
    let midnight = "24:00";
    Hours::new(&text.from, midnight).map_err(|e| wrong("from", e.to_string()))?;
    let hours = Hours::new(&text.from, &text.to).map_err(|e| wrong("to", e.to_string()))?;
    let zone = TimeZone::get(&text.time_zone).map_err(|_| {
        let expected = "the name of a time zone such as Europe/Vienna is expected";
        wrong("time_zone", format!("{:?}: {expected}", text.time_zone))
    })?;
    let first = text.first_date.as_deref().map(|d| date("first_date", d)).transpose()?;
    let last = text.last_date.as_deref().map(|d| date("last_date", d)).transpose()?;
    match (first, last) {
        (Some(first), Some(last)) if last < first => {
            Err(wrong("last_date", "a date that is not before first_date is expected"))
        }
        _ => Ok(Recurrence { every, hours, zone, first, last }),
    }
}

fn date(field: &str, text: &str) -> Result<Date, FieldError> {
    text.parse().map_err(|_| wrong(field, "a date such as 2026-12-24 is expected"))
}

/// Writes the text that [`parse`] reads, in canonical form.
pub fn text(recurrence: &Recurrence) -> Text {
    Text {
        every: recurrence.every.to_string(),
        from: recurrence.hours.from(),
        to: recurrence.hours.to(),
        time_zone: recurrence.zone.iana_name().unwrap_or("UTC").to_owned(),
        first_date: recurrence.first.map(|d| d.to_string()),
        last_date: recurrence.last.map(|d| d.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sunday() -> Text {
        Text {
            every: "sunday".into(),
            from: "2:00".into(),
            to: "04:00".into(),
            time_zone: "Europe/Vienna".into(),
            first_date: Some("2026-12-01".into()),
            last_date: None,
        }
    }

    #[test]
    fn a_recurrence_survives_its_text_in_its_one_form() {
        let canonical = text(&parse(&sunday()).unwrap());
        assert_eq!(canonical, Text { every: "sun".into(), from: "02:00".into(), ..sunday() });
        assert_eq!(text(&parse(&canonical).unwrap()), canonical);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("every", Text { every: "sundays".into(), ..sunday() }),
            ("from", Text { from: "24:00".into(), ..sunday() }),
            ("to", Text { to: "02:00".into(), ..sunday() }),
            ("time_zone", Text { time_zone: "Europe/Nowhere".into(), ..sunday() }),
            ("first_date", Text { first_date: Some("1.12.2026".into()), ..sunday() }),
            ("last_date", Text { last_date: Some("2026-11-30".into()), ..sunday() }),
        ];
        for (field, text) in table {
            assert_eq!(parse(&text).unwrap_err().field, field);
        }
    }
}

//! Maintenance of a rental on the command line: `--maintenance 2026-03-10T22:00:00Z/2026-03-11T02:00:00Z=COMMENT`.

use jiff::Timestamp;

use super::rental::window;
use crate::api::rentals::RentalMaintenance;

/// Parses a begin, an end and perhaps a comment.
pub(super) fn parse(text: &str) -> Result<RentalMaintenance, String> {
    let (times, comment) = text.split_once('=').unwrap_or((text, ""));
    let (from, until) = times.split_once('/').ok_or_else(expected)?;
    let time = |text: &str| -> Result<String, String> {
        let at: Timestamp = text.trim().parse().map_err(|_| expected())?;
        Ok(at.to_string())
    };
    Ok(RentalMaintenance { from: time(from)?, until: time(until)?, comment: comment.trim().to_owned() })
}

fn expected() -> String {
    "a begin and an end such as 2026-03-10T22:00:00Z/2026-03-11T02:00:00Z are expected".to_owned()
}

/// Formats `from 2026-03-10 14:00 CET until 2026-03-10 15:00 CET: new lens`.
pub(super) fn words(planned: &RentalMaintenance, zone: Option<&str>) -> String {
    let when = window(&planned.from, &planned.until, zone);
    if planned.comment.is_empty() { when } else { format!("{when}: {}", planned.comment) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maintenance_is_two_times_with_or_without_a_comment() {
        let zone = Some("Europe/Vienna");
        for (text, shown) in [
            (
                "2026-03-10T13:00:00Z/2026-03-10T15:00:00+01:00",
                "from 2026-03-10 14:00 CET until 2026-03-10 15:00 CET",
            ),
            (
                "2026-03-10T13:00:00Z/2026-03-10T14:00:00Z=new lens = old lens",
                "from 2026-03-10 14:00 CET until 2026-03-10 15:00 CET: new lens = old lens",
            ),
        ] {
            assert_eq!(words(&parse(text).unwrap(), zone), shown);
        }
        for bad in ["", "2026-03-10T13:00:00Z", "2026-03-10T13:00:00/2026-03-10T14:00:00Z", "noon/night=x"] {
            assert!(parse(bad).unwrap_err().contains("are expected"), "{bad}");
        }
    }
}

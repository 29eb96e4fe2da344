//! Reads what calls say of rentals.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_engine::rental::occupancy::Window;
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;

use super::types::CustomerContact;
use crate::api::request::ids::IdKind;
use crate::api::request::parse::Fields;
use crate::store::rentals::customers;

/// The longest window of a rental, and the furthest begin.
pub const LONGEST: Duration = Duration::from_secs(3_660 * 86_400);
/// The longest time without confirmation. A client that forgets a hold blocks devices for it.
const LONGEST_HOLD: Duration = Duration::from_secs(31 * 86_400);
/// The longest preparation or turnaround. The document says it too.
const LONGEST_MARGIN_S: f64 = 2_678_400.0;
/// Characters of an `external_ref`.
const MAX_REF: usize = 128;
const MAX_CONTACTS: usize = 16;
/// Characters of a mail address (RFC 5321, section 4.5.3.1.3), and of a name or phone number.
const MAX_CONTACT: usize = 256;
const MAX_METADATA: usize = 32;
const MAX_METADATA_KEY: usize = 63;
const MAX_METADATA_VALUE: usize = 255;

/// Reads a time that has an offset.
pub fn moment(text: &str) -> Result<Wall, String> {
    let at: Result<jiff::Timestamp, _> = text.parse();
    at.map(|at| Wall::from_millis(at.as_millisecond())).map_err(|_| {
        "a time with an offset is expected, such as 2026-03-10T14:03:22+01:00 or 2026-03-10T13:03:22Z"
            .to_owned()
    })
}

/// Reads a window that begins now or later.
pub fn window(
    fields: &mut Fields,
    prefix: &str,
    (from, until): (Option<&str>, &str),
    now: Wall,
) -> Option<Window> {
    let named = |name: &str| format!("{prefix}{name}");
    let from = match from {
        Some(text) => fields.take(&named("from"), begin(text, now)),
        None => Some(now),
    };
    let until = fields.take(&named("until"), moment(until));
    let (from, until) = (from?, until?);
    fields.take(&named("until"), end(from, until, now))
}

/// Reads the begin of a window.
pub fn begin(text: &str, now: Wall) -> Result<Wall, String> {
    let from = moment(text)?;
    match () {
        () if from < now => {
            Err("lies in the past: a time to come is expected; without it the window begins now".to_owned())
        }
        () if from > now + LONGEST => Err(format!("a time within the next {} years is expected", years())),
        () => Ok(from),
    }
}

fn years() -> u64 {
    LONGEST.as_secs() / (366 * 86_400)
}

/// Returns the window from its begin to a new end.
pub fn end(from: Wall, until: Wall, now: Wall) -> Result<Window, String> {
    let window = Window::new(from, until).ok_or_else(|| "a time after from is expected".to_owned())?;
    match () {
        () if until <= now => Err("is over already: a time to come is expected".to_owned()),
        () if window.length() > LONGEST => {
            Err(format!("at most {} years after its begin are expected", years()))
        }
        () => Ok(window),
    }
}

pub fn hold(text: &str, now: Wall) -> Result<Wall, String> {
    let until = moment(text)?;
    if until <= now || until > now + LONGEST_HOLD {
        let days = LONGEST_HOLD.as_secs() / 86_400;
        return Err(format!("a time to come within {days} days is expected"));
    }
    Ok(until)
}

pub fn time_zone(name: String) -> Result<String, String> {
    let expected = || format!("{name:?}: the name of a time zone such as Europe/Vienna is expected");
    TimeZone::get(&name).map_err(|_| expected())?;
    Ok(name)
}

pub fn external_ref(text: String) -> Result<String, String> {
    let fine = (1..=MAX_REF).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if !fine {
        return Err(format!("1 to {MAX_REF} printable ASCII characters without blanks are expected"));
    }
    // A path takes either. A reference that is an id would name another customer or booking.
    let is_id = [IdKind::Customer, IdKind::Booking].into_iter().any(|kind| kind.parse(&text).is_ok());
    if is_id || [".", ".."].contains(&text.as_str()) {
        return Err(format!("{text} would be taken for an id or a path: another reference is expected"));
    }
    Ok(text)
}

pub fn metadata(map: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
    let key =
        |key: &str| (1..=MAX_METADATA_KEY).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    let value =
        |text: &str| text.chars().count() <= MAX_METADATA_VALUE && !text.chars().any(char::is_control);
    let fine = map.len() <= MAX_METADATA && map.iter().all(|(k, v)| key(k) && value(v));
    let expected = format!(
        "at most {MAX_METADATA} entries are expected, with keys of 1 to {MAX_METADATA_KEY} printable ASCII \
         characters without blanks and values of at most {MAX_METADATA_VALUE} characters"
    );
    if fine { Ok(map) } else { Err(expected) }
}

pub fn contacts(list: Vec<CustomerContact>) -> Result<Vec<customers::Contact>, String> {
    if list.len() > MAX_CONTACTS {
        return Err(format!("at most {MAX_CONTACTS} are expected"));
    }
    list.into_iter().map(contact).collect()
}

fn contact(given: CustomerContact) -> Result<customers::Contact, String> {
    let CustomerContact { name, email, phone } = given;
    if ![&name, &phone].into_iter().flatten().all(|text| is_line(text)) {
        return Err(format!("lines of 1 to {MAX_CONTACT} characters are expected"));
    }
    let email = email.map(self::email).transpose().map_err(|wrong| format!("email: {wrong}"))?;
    if email.is_none() && phone.is_none() {
        return Err("each needs an email or a phone".to_owned());
    }
    Ok(customers::Contact { name, email, phone })
}

fn is_line(text: &str) -> bool {
    (1..=MAX_CONTACT).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Reads the mail address of a person. The gateway sends nothing there.
pub fn email(text: String) -> Result<String, String> {
    if is_line(&text) && text.contains('@') {
        return Ok(text);
    }
    Err(format!("an address such as ada@example.org, of at most {MAX_CONTACT} characters, is expected"))
}

/// Reads the name of someone who gets messages.
pub fn contact_name(text: String) -> Result<String, String> {
    if is_line(&text) {
        Ok(text)
    } else {
        Err(format!("one line of 1 to {MAX_CONTACT} characters is expected"))
    }
}

/// Reads an address that the gateway sends mail to, without a name around it.
pub fn mailbox(text: String) -> Result<String, String> {
    let is_address = is_line(&text) && text.parse::<lettre::Address>().is_ok();
    let shown: String = text.chars().take(80).collect();
    let expected = || format!("{shown:?} is no mail address: one such as ada@example.org is expected");
    is_address.then_some(text).ok_or_else(expected)
}

/// Reads a preparation or turnaround.
pub fn margin(seconds: f64) -> Result<Duration, String> {
    if (0.0..=LONGEST_MARGIN_S).contains(&seconds) {
        return Ok(Duration::from_millis((seconds * 1_000.0) as u64));
    }
    Err(format!("seconds from 0 to {LONGEST_MARGIN_S} are expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_without_an_offset_is_refused() {
        let vienna = moment("2026-03-10T14:03:22+01:00").unwrap();
        assert_eq!(vienna, moment("2026-03-10T13:03:22Z").unwrap());
        for bad in ["2026-03-10T14:03:22", "2026-03-10", "14:03", "tomorrow", ""] {
            assert!(moment(bad).unwrap_err().contains("with an offset"), "{bad}");
        }
    }

    #[test]
    fn a_window_over_a_change_to_summer_time_or_back_is_what_its_offsets_say() {
        let now = moment("2026-03-01T00:00:00Z").unwrap();
        for (from, until, hours) in [
            ("2026-03-28T12:00:00+01:00", "2026-03-29T12:00:00+02:00", 23),
            ("2026-10-24T12:00:00+02:00", "2026-10-25T12:00:00+01:00", 25),
            // Both are half past two in Vienna.
            ("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", 1),
        ] {
            let window = end(begin(from, now).unwrap(), moment(until).unwrap(), now).unwrap();
            assert_eq!(window.length(), Duration::from_secs(hours * 3_600), "{from}");
        }
    }

    #[test]
    fn a_reference_is_printable() {
        for fine in ["4711", "order/2026-17", "a@b#c", "k_17", "b_order"] {
            assert!(external_ref(fine.to_owned()).is_ok(), "{fine}");
        }
        let ids =
            [IdKind::Customer, IdKind::Booking].map(|kind| kind.text(fleetgate_engine::id::Id::from_i64(7)));
        for bad in ["", "a b", "\u{fc}", "a\n", &"x".repeat(129), ".", "..", &ids[0], &ids[1]] {
            assert!(external_ref((*bad).to_owned()).is_err(), "{bad:?}");
        }
    }
}

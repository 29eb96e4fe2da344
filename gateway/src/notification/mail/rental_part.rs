//! The rental that had the device of a notice, in a mail: its name, its id and its end. It says nothing of the customer.

use jiff::tz::TimeZone;

use crate::ids::IdKind;
use crate::notification::mail::render::{MAX_LINE, MailContext, escaped, one_line};
use crate::store::notices::NoticeRow;
use crate::store::outbox::Contents;

/// Returns `entrance (l_38h601nahgbz7) until 2026-12-12 10:00 CET`, in the time zone of the booking.
pub(super) fn text(notice: &NoticeRow, contents: &Contents, place: &MailContext<'_>) -> Option<String> {
    let rented = contents.rented.get(&notice.id)?;
    let zone = rented.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
    let until = jiff::Timestamp::from_millisecond(rented.until.as_millis()).unwrap_or_default();
    let until = until.to_zoned(zone.unwrap_or_else(|| place.zone.clone()));
    let until = until.strftime("%Y-%m-%d %H:%M %Z").to_string();
    let (name, rental) = (one_line(&rented.name, MAX_LINE), IdKind::Rental.text(rented.rental));
    Some(format!("{name} ({rental}) until {until}"))
}

pub(super) fn html(notice: &NoticeRow, contents: &Contents, place: &MailContext<'_>) -> String {
    let rented = text(notice, contents, place);
    rented.map(|rented| format!("<br>Rented: {}", escaped(&rented))).unwrap_or_default()
}

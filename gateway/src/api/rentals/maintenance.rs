//! Reads and shows the maintenance that is planned within a rental.

use fleetgate_engine::rental::maintenance::{MOST, Maintenance};
use fleetgate_engine::rental::occupancy::Window;

use super::parse;
use super::types::RentalMaintenance;
use crate::api::request::ids;
use crate::api::request::parse::{self as fields, Fields};

/// Reads maintenance. `field`: where it stands in the request. `within`: the window of the rental, if that is valid.
pub fn maintenance(
    wrong: &mut Fields,
    field: &str,
    list: Vec<RentalMaintenance>,
    within: Option<Window>,
) -> Option<Vec<Maintenance>> {
    if list.len() > MOST {
        return wrong.take(field, Err(format!("at most {MOST} times are expected")));
    }
    let list = list.into_iter().enumerate();
    let read: Vec<Option<Maintenance>> =
        list.map(|(n, given)| planned(wrong, &format!("{field}[{n}]"), given, within)).collect();
    let mut read: Vec<Maintenance> = read.into_iter().collect::<Option<_>>()?;
    read.sort_by_key(|of| (of.window.from(), of.window.until()));
    Some(read)
}

fn planned(
    wrong: &mut Fields,
    field: &str,
    given: RentalMaintenance,
    within: Option<Window>,
) -> Option<Maintenance> {
    let comment = wrong.take(&format!("{field}.comment"), fields::title(given.comment));
    let from = wrong.take(&format!("{field}.from"), parse::moment(&given.from));
    let until = wrong.take(&format!("{field}.until"), parse::moment(&given.until));
    let (from, until) = (from?, until?);
    let window = Window::new(from, until).ok_or("a time after from is expected");
    let window = wrong.take(&format!("{field}.until"), window)?;
    let Some(rental) = within else { return Some(Maintenance { window, comment: comment? }) };
    let (begin, end) = (ids::time(rental.from()), ids::time(rental.until()));
    let begins_in_time = if from < rental.from() {
        Err(format!("lies before the rental, which begins at {begin}"))
    } else {
        Ok(())
    };
    let ends_in_time = if rental.until() < until {
        Err(format!("lies after the rental, which ends at {end}"))
    } else {
        Ok(())
    };
    wrong.take(&format!("{field}.from"), begins_in_time)?;
    wrong.take(&format!("{field}.until"), ends_in_time)?;
    Some(Maintenance { window, comment: comment? })
}

pub fn to_api(planned: &[Maintenance]) -> Vec<RentalMaintenance> {
    let shown = |of: &Maintenance| RentalMaintenance {
        from: ids::time(of.window.from()),
        until: ids::time(of.window.until()),
        comment: of.comment.clone(),
    };
    planned.iter().map(shown).collect()
}

/// Returns it without the words of the client, which go with the customer: an answer to a call is kept for repetitions.
pub fn without_comments(planned: &[Maintenance]) -> Vec<RentalMaintenance> {
    let bare = |of| RentalMaintenance { comment: String::new(), ..of };
    to_api(planned).into_iter().map(bare).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(from: &str, until: &str, comment: &str) -> RentalMaintenance {
        RentalMaintenance { from: from.to_owned(), until: until.to_owned(), comment: comment.to_owned() }
    }

    fn rental() -> Option<Window> {
        let at = |text: &str| parse::moment(text).unwrap();
        Window::new(at("2026-03-10T12:00:00Z"), at("2026-03-12T12:00:00Z"))
    }

    #[test]
    fn maintenance_lies_within_its_rental_and_is_kept_by_its_begin() {
        let mut wrong = Fields::default();
        let fine = vec![
            given("2026-03-11T13:00:00+01:00", "2026-03-12T13:00:00+01:00", ""),
            given("2026-03-10T12:00:00Z", "2026-03-10T13:00:00Z", "new disk"),
        ];
        let read = maintenance(&mut wrong, "maintenance", fine, rental()).unwrap();
        wrong.finish().unwrap();
        let expected = [
            given("2026-03-10T12:00:00Z", "2026-03-10T13:00:00Z", "new disk"),
            given("2026-03-11T12:00:00Z", "2026-03-12T12:00:00Z", ""),
        ];
        assert_eq!(to_api(&read), expected);
        assert!(without_comments(&read).iter().all(|of| of.comment.is_empty()));
    }

    #[test]
    fn each_wrong_time_is_named() {
        let (from, until) = ("2026-03-10T13:00:00Z", "2026-03-10T14:00:00Z");
        for (bad, field) in [
            (vec![given("2026-03-10T11:59:59Z", until, "")], "maintenance[0].from"),
            (vec![given(from, until, ""), given(from, "2026-03-12T12:00:01Z", "")], "maintenance[1].until"),
            (vec![given(until, from, "")], "maintenance[0].until"),
            (vec![given(from, from, "")], "maintenance[0].until"),
            (vec![given("2026-03-10T13:00:00", until, "")], "maintenance[0].from"),
            (vec![given(from, "noon", "")], "maintenance[0].until"),
            (vec![given(from, until, "two\nlines")], "maintenance[0].comment"),
            (vec![given(from, until, ""); MOST + 1], "maintenance"),
        ] {
            let mut wrong = Fields::default();
            assert_eq!(maintenance(&mut wrong, "maintenance", bad.clone(), rental()), None, "{bad:?}");
            let problem = wrong.finish().unwrap_err().to_string();
            assert!(problem.starts_with(&format!("invalid: {field}: ")), "{problem}");
        }
    }
}

//! Maintenance that is planned within a rental. It ends with the rental, and follows it to another device.

use super::life::Life;
use super::occupancy::Window;
use crate::time::Wall;

/// The most of one rental: one in each week of a quarter, and some more.
pub const MOST: usize = 16;

/// A time within a rental in which its device is in maintenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    pub window: Window,
    /// For people.
    pub comment: String,
}

/// Returns when the maintenance that is on ends. `None`: none is on, because none is planned for now, or the rental is not
/// confirmed, has not begun or has ended.
pub fn until(life: &Life, planned: &[Maintenance], now: Wall) -> Option<Wall> {
    if !life.state(now).has_begun() {
        return None;
    }
    let on = planned.iter().map(|of| of.window).filter(|of| of.from() <= now && now < of.until());
    on.map(Window::until).max().map(|end| end.min(life.ends_at()))
}

/// Returns what of it lies before `until`. The rental is to end then.
pub fn before(planned: Vec<Maintenance>, until: Wall) -> Vec<Maintenance> {
    let cut = |Maintenance { window, comment }| {
        let window = Window::new(window.from(), window.until().min(until))?;
        Some(Maintenance { window, comment })
    };
    planned.into_iter().filter_map(cut).collect()
}

/// Returns when the next one begins or ends by its own time.
pub fn changes_at(planned: &[Maintenance], now: Wall) -> Option<Wall> {
    let edges = planned.iter().flat_map(|of| [of.window.from(), of.window.until()]);
    edges.filter(|at| *at > now).min()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rental::life::{Delivery, EndReason, Ending, Handover};

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    fn planned(windows: &[(i64, i64)]) -> Vec<Maintenance> {
        let of = |&(from, until): &(i64, i64)| Maintenance {
            window: Window::new(at(from), at(until)).expect("a window"),
            comment: String::new(),
        };
        windows.iter().map(of).collect()
    }

    /// A rental from second 100 to 200.
    fn life() -> Life {
        Life {
            window: Window::new(at(100), at(200)).expect("a window"),
            prepared_from: at(90),
            turnaround: Duration::from_secs(5),
            hold_until: None,
            handover: Handover::AtBegin,
            ending: None,
            delivery: Delivery::Mounted,
        }
    }

    fn ends(life: &Life, windows: &[(i64, i64)], second: i64) -> Option<i64> {
        until(life, &planned(windows), at(second)).map(|end| end.as_millis() / 1_000)
    }

    #[test]
    fn maintenance_lasts_from_its_begin_to_its_end() {
        let two = [(110, 120), (150, 160)];
        assert_eq!(
            [109, 110, 119, 120].map(|second| ends(&life(), &two, second)),
            [None, Some(120), Some(120), None]
        );
        assert_eq!(ends(&life(), &two, 155), Some(160));
        assert_eq!(ends(&life(), &[(110, 130), (120, 125)], 122), Some(130), "of two the later end counts");
        assert_eq!(ends(&life(), &[], 150), None);
        let moments: Vec<Option<i64>> = [0, 110, 120, 160]
            .map(|second| changes_at(&planned(&two), at(second)).map(|at| at.as_millis() / 1_000))
            .into();
        assert_eq!(moments, [Some(110), Some(120), Some(150), None]);
    }

    #[test]
    fn an_earlier_end_takes_away_what_lies_beyond_it() {
        let all = [(110, 120), (130, 160), (140, 150), (150, 170)];
        for (until, left) in [
            (200, all.to_vec()),
            (150, vec![(110, 120), (130, 150), (140, 150)]),
            (131, vec![(110, 120), (130, 131)]),
            (130, vec![(110, 120)]),
            (110, Vec::new()),
        ] {
            assert_eq!(before(planned(&all), at(until)), planned(&left), "until {until}");
        }
        let commented = Maintenance { comment: "new lens".to_owned(), ..planned(&[(110, 120)]).remove(0) };
        assert_eq!(before(vec![commented.clone()], at(115))[0].comment, commented.comment);
    }

    #[test]
    fn maintenance_ends_with_its_rental_and_is_none_of_one_that_has_not_begun() {
        let all = [(100, 200)];
        let ended = Life { ending: Some(Ending { at: at(150), reason: EndReason::Ended }), ..life() };
        assert_eq!(ends(&ended, &all, 150), None);
        let cancelled = Life { ending: Some(Ending { at: at(50), reason: EndReason::Cancelled }), ..life() };
        assert_eq!(ends(&cancelled, &all, 150), None);
        let shortened = Life { window: Window::new(at(100), at(120)).expect("a window"), ..life() };
        assert_eq!([119, 120].map(|second| ends(&shortened, &all, second)), [Some(120), None]);
        let held = Life { hold_until: Some(at(190)), ..life() };
        assert_eq!(ends(&held, &all, 150), None, "it is not confirmed");
        let awaited = Life { handover: Handover::Awaited, ..life() };
        assert_eq!(ends(&awaited, &all, 150), Some(200), "it is delayed");
    }
}

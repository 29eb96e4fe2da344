//! What the rentals of a device mean for its monitoring: whether it is in maintenance, and the state of its service
//! `rental`.

use std::time::Duration;

use fleetgate_probes::sample::Status;

use super::life::{Life, State};
use super::maintenance::{self, Maintenance};
use super::transitions;
use crate::id::{HostId, RentalId};
use crate::messages::RentalPhase;
use crate::time::Wall;

/// A rental is not delayed before: its handover is then as of its begin, and may be on its way to the store.
pub const HANDOVER_TAKES: Duration = Duration::from_secs(3);

/// The removal of what a rental has left has not failed before: a device may be out of reach for moments.
const REMOVAL_TAKES: Duration = Duration::from_secs(300);

/// How long a rental that got no device until its end is a problem.
const FAILURE_SHOWN: Duration = Duration::from_secs(3_600);

/// How long a rental that was a problem concerns its device after it is over. A service that went at once would take its
/// problem along, and no recovery would be notified.
pub const SHOWN_AFTER: Duration = Duration::from_secs(2 * 3_600);

/// A rental of a device, as far as it concerns the monitoring.
#[derive(Clone, Debug)]
pub struct DeviceRental {
    pub rental: RentalId,
    pub life: Life,
    pub maintenance: Vec<Maintenance>,
}

/// What a rental that is over has left on its device, because a call to remove it has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    pub rental: RentalId,
    /// Its SSH access, and not what the cleaning command removes.
    pub is_access: bool,
    /// From when on it is to be removed.
    pub since: Wall,
    /// Why the last call failed, in one line.
    pub why: String,
}

/// What one rental means for the monitoring of its device.
#[derive(Debug)]
struct Part {
    is_quiet: bool,
    status: Status,
    text: String,
}

/// Returns what the rentals of a device mean for its monitoring now. Its service has the worst of their states: of equal
/// ones that of the rental that is not over and begins first.
pub fn phase(device: HostId, rentals: &[DeviceRental], now: Wall) -> RentalPhase {
    let is_over = |life: &Life| !life.state(now).is_open();
    let mut ordered: Vec<&DeviceRental> = rentals.iter().collect();
    ordered.sort_by_key(|of| (is_over(&of.life), of.life.window.from(), of.rental));
    let parts: Vec<Part> = ordered.into_iter().filter_map(|of| part(of, now)).collect();
    let is_quiet = parts.iter().any(|part| part.is_quiet);
    // Of equal keys the first counts.
    let worst = parts.into_iter().min_by_key(|part| std::cmp::Reverse(part.status));
    RentalPhase { device, is_quiet, service: worst.map(|part| (part.status, part.text)) }
}

/// Returns the phase of a device on which something is left. A rental that is as bad is shown instead.
pub fn with_leftover(phase: RentalPhase, left: &Leftover, now: Wall) -> RentalPhase {
    let status = if now < left.since + REMOVAL_TAKES { Status::Ok } else { Status::Critical };
    let Leftover { rental, is_access, why, .. } = left;
    let text = match is_access {
        true => format!("the SSH access of l_{rental} is not removed: {why}"),
        false => format!("the device is not cleaned after l_{rental}: {why}"),
    };
    let service = phase.service.filter(|(of_rentals, _)| *of_rentals >= status).unwrap_or((status, text));
    RentalPhase { service: Some(service), ..phase }
}

/// Returns the phase of a device whose rental was delayed and has got another device lately: without the service its
/// problem would never recover. Anything else is shown instead.
pub fn with_swapped(phase: RentalPhase, rental: RentalId) -> RentalPhase {
    let service = phase.service.unwrap_or_else(|| (Status::Ok, format!("l_{rental} has got another device")));
    RentalPhase { service: Some(service), ..phase }
}

/// Returns when time alone may change it.
pub fn changes_at(rentals: &[DeviceRental], now: Wall) -> Option<Wall> {
    let next = |DeviceRental { life, maintenance, .. }: &DeviceRental| {
        let announced = Some(life.window.from() + HANDOVER_TAKES);
        let over = trouble_over(life, now);
        let later = [announced, over.map(|at| at + FAILURE_SHOWN), over.map(|at| at + SHOWN_AFTER)];
        let later = later.into_iter().flatten().filter(|at| *at > now);
        let later = later.chain(maintenance::changes_at(maintenance, now));
        later.chain(transitions::next(life, (now, life.state(now)))).min()
    };
    rentals.iter().filter_map(next).min()
}

/// Whether a rental that is over concerns its device all the same, because it was a problem.
pub fn is_shown_after(life: &Life, now: Wall) -> bool {
    trouble_over(life, now).is_some_and(|at| now < at + SHOWN_AFTER)
}

/// Returns when a rental was over that was delayed, or whose device came back too late.
fn trouble_over(life: &Life, now: Wall) -> Option<Wall> {
    let over = life.over(now)?.at;
    let returned_at = life.delivery.shipment().and_then(|shipment| shipment.returned_at);
    let at = match life.state(now) {
        State::Failed => over,
        State::Closed => returned_at.unwrap_or(over) + life.turnaround,
        _ => return None,
    };
    let was_overdue = returned_at.is_some_and(|at| at > over + life.turnaround);
    (was_overdue || life.delay(now) > HANDOVER_TAKES).then_some(at)
}

/// `None`: the rental does not concern the device any more.
fn part(DeviceRental { rental, life, maintenance }: &DeviceRental, now: Wall) -> Option<Part> {
    let (from, until) = (time(life.window.from()), time(life.window.until()));
    let state = life.state(now);
    let planned = maintenance::until(life, maintenance, now);
    let is_quiet = state == State::Preparing || life.is_in_transit(now) || planned.is_some();
    let (status, what) = match state {
        State::Held => (Status::Ok, format!("is held from {from} until {until}")),
        State::Booked => (Status::Ok, format!("is booked from {from} until {until}")),
        State::Preparing => {
            (Status::Ok, format!("is in preparation until {from}: no notifications until then"))
        }
        State::Delayed if now < life.window.from() + HANDOVER_TAKES => {
            (Status::Ok, format!("begins at {from}"))
        }
        State::Delayed => {
            (Status::Warning, format!("is delayed since {from}: the device is not handed over"))
        }
        State::Active => match planned.map(time) {
            Some(end) => (Status::Ok, format!("is in maintenance until {end}: no notifications until then")),
            None => (Status::Ok, format!("has the device until {until}")),
        },
        State::Returning => (Status::Ok, "has ended, and its device is on the way back".to_owned()),
        State::Overdue => {
            let end = time(life.ends_at());
            (Status::Critical, format!("has ended at {end}, and its device was not returned in time"))
        }
        State::Cleaning => (Status::Ok, "has ended, and the turnaround has not".to_owned()),
        State::Closed | State::Cancelled | State::Failed => {
            let over = trouble_over(life, now).filter(|_| is_shown_after(life, now))?;
            // One whose device was sent has failed long before the device was back and cleaned.
            let is_news = state == State::Failed && life.has_failed(now) && now < over + FAILURE_SHOWN;
            match is_news {
                true => (Status::Critical, format!("has failed at {until}: its device was not handed over")),
                false => (Status::Ok, "is over".to_owned()),
            }
        }
    };
    Some(Part { is_quiet, status, text: format!("l_{rental} {what}") })
}

fn time(at: Wall) -> String {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;
    use crate::rental::life::{Delivery, EndReason, Ending, Handover, Shipment};
    use crate::rental::occupancy::Window;

    const DEVICE: HostId = Id::from_i64(7);
    const RENTAL: RentalId = Id::from_i64(41);

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    fn life((from, until): (i64, i64)) -> Life {
        Life {
            window: Window::new(at(from), at(until)).unwrap(),
            prepared_from: at(from - 10),
            turnaround: Duration::from_secs(5),
            hold_until: None,
            handover: Handover::AtBegin,
            ending: None,
            delivery: Delivery::Mounted,
        }
    }

    fn of_device(rentals: &[(RentalId, Life)]) -> Vec<DeviceRental> {
        let of = |(rental, life): &(RentalId, Life)| DeviceRental {
            rental: *rental,
            life: *life,
            maintenance: Vec::new(),
        };
        rentals.iter().map(of).collect()
    }

    fn planned(rentals: &[(RentalId, Life)], windows: &[(i64, i64)]) -> Vec<DeviceRental> {
        let maintenance = |(from, until): &(i64, i64)| Maintenance {
            window: Window::new(at(*from), at(*until)).unwrap(),
            comment: String::new(),
        };
        let maintenance: Vec<Maintenance> = windows.iter().map(maintenance).collect();
        of_device(rentals)
            .into_iter()
            .map(|of| DeviceRental { maintenance: maintenance.clone(), ..of })
            .collect()
    }

    /// Whether it is quiet, the state of its service, and the first words about the rental.
    fn seen(rentals: &[(RentalId, Life)], second: i64) -> (bool, Option<Status>, String) {
        let phase = phase(DEVICE, &of_device(rentals), at(second));
        let words =
            phase.service.as_ref().map(|(_, text)| text.split(' ').take(3).collect::<Vec<_>>().join(" "));
        (phase.is_quiet, phase.service.map(|(status, _)| status), words.unwrap_or_default())
    }

    #[test]
    fn a_device_is_quiet_while_it_is_prepared_and_its_service_shows_the_rental() {
        let one = [(RENTAL, life((100, 200)))];
        let words = |what: &str| format!("l_{RENTAL} {what}");
        let ok = Some(Status::Ok);
        assert_eq!(seen(&one, 89), (false, ok, words("is booked")));
        assert_eq!(seen(&one, 90), (true, ok, words("is in")));
        assert_eq!(seen(&one, 99), (true, ok, words("is in")));
        assert_eq!(seen(&one, 100), (false, ok, words("has the")));
        assert_eq!(seen(&one, 204), (false, ok, words("has ended,")));
        assert_eq!(seen(&one, 205), (false, None, String::new()));
        let text = phase(DEVICE, &of_device(&one), at(90)).service.map(|(_, text)| text);
        let expected = "is in preparation until 1970-01-01 00:01:40 UTC: no notifications until then";
        assert_eq!(text, Some(words(expected)));
    }

    #[test]
    fn a_device_is_quiet_while_maintenance_is_planned_within_an_open_rental() {
        let now = |life: Life, second| {
            let phase = phase(DEVICE, &planned(&[(RENTAL, life)], &[(110, 120), (190, 250)]), at(second));
            (phase.is_quiet, phase.service.map(|(_, text)| text).unwrap_or_default())
        };
        let seconds = [109, 110, 119, 120, 190, 199, 200];
        let quiet = seconds.map(|second| now(life((100, 200)), second).0);
        assert_eq!(quiet, [false, true, true, false, true, true, false], "it ends with the rental");
        let text = now(life((100, 200)), 110).1;
        let expected = "is in maintenance until 1970-01-01 00:02:00 UTC: no notifications until then";
        assert_eq!(text, format!("l_{RENTAL} {expected}"));
        let ended = Ending { at: at(105), reason: EndReason::Ended };
        assert!(!now(Life { ending: Some(ended), ..life((100, 200)) }, 110).0);
    }

    #[test]
    fn a_rental_that_waits_for_its_device_is_a_warning_unless_the_handover_may_be_on_its_way() {
        let awaited = [(RENTAL, Life { handover: Handover::Awaited, ..life((100, 200)) })];
        assert_eq!(seen(&awaited, 102).1, Some(Status::Ok));
        let (is_quiet, status, text) = seen(&awaited, 103);
        assert_eq!(
            (is_quiet, status, text),
            (false, Some(Status::Warning), format!("l_{RENTAL} is delayed"))
        );
        let failed = [200, 3_799].map(|second| seen(&awaited, second));
        assert!(failed.iter().all(|(_, status, _)| *status == Some(Status::Critical)), "{failed:?}");
        assert_eq!(failed[0].2, format!("l_{RENTAL} has failed"));
        let recovered = [3_800, 7_399].map(|second| seen(&awaited, second).1);
        assert_eq!(recovered, [Some(Status::Ok); 2], "its recovery is notified");
        assert_eq!(seen(&awaited, 7_400).1, None);
        let ended = Ending { at: at(150), reason: EndReason::Ended };
        let given_up = [(RENTAL, Life { ending: Some(ended), ..awaited[0].1 })];
        assert_eq!([155, 7_355].map(|second| seen(&given_up, second).1), [Some(Status::Ok), None]);
        let late = [(RENTAL, Life { handover: Handover::Done(at(150)), ..life((100, 200)) })];
        assert_eq!([seen(&late, 149).1, seen(&late, 150).1], [Some(Status::Warning), Some(Status::Ok)]);
    }

    #[test]
    fn a_shipped_device_is_quiet_on_both_ways_and_overdue_is_critical() {
        let sent =
            Shipment { dispatched_at: Some(at(80)), first_contact_at: Some(at(120)), returned_at: None };
        let here = |shipment| (RENTAL, Life { delivery: Delivery::Shipped(shipment), ..life((100, 200)) });
        let away = Shipment { first_contact_at: None, ..sent };
        let awaited = (RENTAL, Life { handover: Handover::Awaited, ..here(away).1 });
        let (is_quiet, status, _) = seen(&[awaited], 110);
        assert_eq!((is_quiet, status), (true, Some(Status::Warning)), "it is delayed, and on its way");
        let begun = (RENTAL, Life { handover: Handover::Done(at(120)), ..here(sent).1 });
        let is = |second| (seen(&[begun], second).0, seen(&[begun], second).1);
        assert_eq!(is(150), (false, Some(Status::Ok)));
        assert_eq!(is(202), (true, Some(Status::Ok)), "it is on its way back");
        assert_eq!(is(205), (true, Some(Status::Critical)), "it is overdue");
        let back = Shipment { returned_at: Some(at(300)), ..sent };
        let back = (RENTAL, Life { delivery: Delivery::Shipped(back), ..begun.1 });
        assert!(!seen(&[back], 301).0, "it is back, and cleaned");
        assert_eq!(seen(&[back], 305).1, Some(Status::Ok), "it was overdue");
        assert_eq!(seen(&[back], 7_505).1, None);
        let soon = Shipment { returned_at: Some(at(202)), ..away };
        let never = [(RENTAL, Life { delivery: Delivery::Shipped(soon), ..awaited.1 })];
        let ok = Some(Status::Ok);
        assert_eq!([203, 207].map(|second| seen(&never, second).1), [ok, ok], "its failure is no news then");
        assert_eq!(seen(&never, 7_407).1, None);
    }

    #[test]
    fn the_worst_of_several_rentals_counts_and_else_the_one_that_is_not_over() {
        let ended = Ending { at: at(60), reason: EndReason::ReturnedEarly };
        let before = (
            Id::from_i64(40),
            Life { ending: Some(ended), turnaround: Duration::from_secs(90), ..life((50, 80)) },
        );
        let awaited = (RENTAL, Life { handover: Handover::Awaited, ..life((100, 200)) });
        let later = (Id::from_i64(39), life((300, 400)));
        assert_eq!(seen(&[before, later], 85).2, format!("l_{} is booked", later.0));
        assert_eq!(seen(&[later, before, awaited], 110).1, Some(Status::Warning));
        let cancelled = Ending { at: at(1), reason: EndReason::Cancelled };
        assert_eq!(seen(&[(RENTAL, Life { ending: Some(cancelled), ..life((100, 200)) })], 95).1, None);
    }

    #[test]
    fn what_a_rental_has_left_is_critical_when_its_removal_fails_for_long() {
        let why = "no route".to_owned();
        let left = Leftover { rental: RENTAL, is_access: true, since: at(200), why };
        let of = |left: &Leftover, rentals: &[(RentalId, Life)], second| {
            with_leftover(phase(DEVICE, &of_device(rentals), at(second)), left, at(second)).service
        };
        let text = format!("the SSH access of l_{RENTAL} is not removed: no route");
        assert_eq!(of(&left, &[], 499), Some((Status::Ok, text.clone())));
        assert_eq!(of(&left, &[], 500), Some((Status::Critical, text.clone())));
        let next = (Id::from_i64(42), Life { handover: Handover::Awaited, ..life((300, 900)) });
        let shown = |second| of(&left, &[next], second).map(|(status, _)| status);
        assert_eq!((shown(499), shown(500)), (Some(Status::Warning), Some(Status::Critical)));
        assert_eq!(of(&left, &[next], 500).map(|(_, shown)| shown), Some(text));
        let dirty = Leftover { is_access: false, ..left };
        let text = of(&dirty, &[], 500).map(|(_, text)| text);
        assert_eq!(text, Some(format!("the device is not cleaned after l_{RENTAL}: no route")));
    }

    #[test]
    fn nothing_changes_between_two_moments_that_are_named() {
        let awaited = Life { handover: Handover::Awaited, ..life((100, 200)) };
        for of in [life((100, 200)), awaited, Life { handover: Handover::Done(at(150)), ..awaited }] {
            let rentals = [(RENTAL, of)];
            for second in (0..220).chain(3_790..3_810).chain(7_390..7_410) {
                let of = planned(&rentals, &[(110, 115), (150, 170), (160, 250)]);
                let is_other = phase(DEVICE, &of, at(second + 1)) != phase(DEVICE, &of, at(second));
                let next = changes_at(&of, at(second));
                assert!(!is_other || next == Some(at(second + 1)), "{second}: {next:?}");
            }
        }
    }
}

//! Rentals whose device is shipped, and random lives of them beside a model that follows the device.

use proptest::prelude::*;

use super::*;
use crate::rental::life::Shipment;

/// A shipped rental that awaits its handover. Its device left, was heard from and came back in these minutes.
fn shipped(times: [Option<i64>; 3]) -> Life {
    let [dispatched_at, first_contact_at, returned_at] = times.map(|minute| minute.map(at));
    let shipment = Shipment { dispatched_at, first_contact_at, returned_at };
    Life { handover: Handover::Awaited, delivery: Delivery::Shipped(shipment), ..life() }
}

fn ended(life: Life, reason: EndReason, minute: i64) -> Life {
    Life { ending: Some(Ending { at: at(minute), reason }), ..life }
}

fn states<const N: usize>(life: Life, moments: [i64; N]) -> [&'static str; N] {
    moments.map(|minute| life.state(at(minute)).name())
}

#[test]
fn a_shipped_device_is_awaited_after_the_rental_and_cleaned_once_it_is_back() {
    let used = Life { handover: Handover::Done(at(70)), ..shipped([Some(50), Some(65), None]) };
    let all = ["delayed", "active", "returning", "returning", "overdue", "overdue"];
    assert_eq!(states(used, [69, 70, 120, 124, 125, 9_000]), all);
    assert_eq!(used.occupied_until(at(119)), Some(at(125)), "the plan");
    assert_eq!([120, 9_000].map(|minute| used.occupied_until(at(minute))), [None, None]);
    let shipment = Shipment { returned_at: Some(at(300)), ..used.delivery.shipment().unwrap_or_default() };
    let back = Life { delivery: Delivery::Shipped(shipment), ..used };
    assert_eq!(states(back, [300, 304, 305]), ["cleaning", "cleaning", "closed"]);
    assert_eq!(back.occupied_until(at(300)), Some(at(305)));
    assert_eq!((used.is_away(), back.is_away()), (true, false));
    let freed = [used, back].map(|life| life.alias_freed_at());
    assert_eq!(freed, [None, Some(at(305) + crate::rental::life::ALIAS_RESTS)], "a day after it is closed");
    assert_eq!(used.used(at(9_000)), Some(window(70, 120)));
}

#[test]
fn a_dispatched_device_comes_back_however_its_rental_ends() {
    let sent = shipped([Some(50), None, None]);
    for reason in EndReason::ALL {
        let over = ended(sent, reason, 80);
        assert_eq!(states(over, [80, 84, 85]), ["returning", "returning", "overdue"], "{reason:?}");
        assert_eq!(over.over(at(80)), Some(Ending { at: at(80), reason }));
    }
    assert_eq!(states(sent, [119, 120, 125]), ["delayed", "returning", "overdue"], "never handed over");
    assert_eq!(sent.over(at(120)).map(|over| over.reason), Some(EndReason::Failed));
    assert_eq!(ended(sent, EndReason::Cancelled, 55).used(at(200)), None);
    assert_eq!(ended(sent, EndReason::Cancelled, 55).delay(at(200)), minutes(0));
    let at_once = Life { turnaround: minutes(0), ..sent };
    assert_eq!(states(at_once, [120]), ["overdue"], "no time is left for the way back");
}

#[test]
fn one_that_was_never_dispatched_ends_as_a_mounted_one() {
    let kept = shipped([None; 3]);
    let mounted = Life { delivery: Delivery::Mounted, ..kept };
    let endings = EndReason::ALL.map(|reason| Some(Ending { at: at(80), reason }));
    for ending in endings.into_iter().chain([None]) {
        let [kept, mounted] = [kept, mounted].map(|life| Life { ending, ..life });
        for minute in [0, 50, 60, 80, 85, 120, 125, 9_000] {
            assert_eq!(kept.state(at(minute)), mounted.state(at(minute)), "{ending:?} at {minute}");
            assert_eq!(kept.occupied_until(at(minute)), mounted.occupied_until(at(minute)));
            assert!(!kept.is_in_transit(at(minute)));
        }
    }
}

/// The place of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Location {
    Home,
    /// Sent, and not heard from.
    WayOut,
    AtRenters,
    WayBack,
}

/// The events of one minute.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Nothing,
    Dispatch,
    Contact,
    Handover,
    End(EndReason),
    Return,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        30 => Just(Deed::Nothing),
        4 => Just(Deed::Dispatch),
        4 => Just(Deed::Contact),
        2 => Just(Deed::Handover),
        1 => prop::sample::select(EndReason::ALL.to_vec()).prop_map(Deed::End),
        4 => Just(Deed::Return),
    ]
}

/// The device and its rental, minute by minute. It knows no times but those of the window.
struct Model {
    place: Location,
    is_handed_over: bool,
    end: Option<(i64, EndReason)>,
    was_sent: bool,
    /// When the cleaning began.
    cleaned_from: Option<i64>,
}

const FROM: i64 = 20;
const UNTIL: i64 = 50;
const TURNAROUND: i64 = 8;

impl Model {
    fn pass(&mut self, minute: i64) {
        if minute == UNTIL && self.end.is_none() {
            let reason = if self.is_handed_over { EndReason::Ended } else { EndReason::Failed };
            self.finish(minute, reason);
        }
    }

    fn finish(&mut self, minute: i64, reason: EndReason) {
        self.end = Some((minute, reason));
        let is_used = !matches!(reason, EndReason::Cancelled | EndReason::Failed);
        match self.place {
            Location::Home => self.cleaned_from = is_used.then_some(minute),
            _ => self.place = Location::WayBack,
        }
    }

    fn state(&self, minute: i64) -> State {
        let Some((end, reason)) = self.end else {
            return match minute {
                0..FROM => State::Preparing,
                _ if self.is_handed_over => State::Active,
                _ => State::Delayed,
            };
        };
        match (self.place, self.cleaned_from) {
            (Location::WayBack, _) if minute < end + TURNAROUND => State::Returning,
            (Location::WayBack, _) => State::Overdue,
            (_, Some(from)) if minute < from + TURNAROUND => State::Cleaning,
            (_, Some(_)) => State::Closed,
            (_, None) if reason == EndReason::Cancelled => State::Cancelled,
            (_, None) => State::Failed,
        }
    }
}

/// Returns the life and the shipment after a deed, as the API decides. `None`: it is refused.
fn after(life: Life, deed: Deed, minute: i64) -> Option<Life> {
    let (state, now) = (life.state(at(minute)), Some(at(minute)));
    let shipment = life.delivery.shipment()?;
    let with = |shipment| Some(Life { delivery: Delivery::Shipped(shipment), ..life });
    match deed {
        Deed::Dispatch if state.is_open() && state != State::Active && shipment.dispatched_at.is_none() => {
            with(Shipment { dispatched_at: now, ..shipment })
        }
        Deed::Contact if state.is_open() && life.is_in_transit(at(minute)) => {
            with(Shipment { first_contact_at: now, ..shipment })
        }
        Deed::Handover if state == State::Delayed => {
            Some(Life { handover: Handover::Done(at(minute)), ..life })
        }
        Deed::End(reason) if state.is_open() => {
            let fits = matches!(reason, EndReason::Cancelled) != state.has_begun();
            (fits && reason != EndReason::Lapsed).then(|| ended(life, reason, minute))
        }
        Deed::Return if state.awaits_return() => with(Shipment { returned_at: now, ..shipment }),
        _ => None,
    }
}

fn follow(model: &mut Model, deed: Deed, minute: i64) {
    match deed {
        Deed::Nothing => {}
        Deed::Dispatch => (model.place, model.was_sent) = (Location::WayOut, true),
        Deed::Contact => model.place = Location::AtRenters,
        Deed::Handover => model.is_handed_over = true,
        Deed::End(reason) => model.finish(minute, reason),
        Deed::Return => (model.place, model.cleaned_from) = (Location::Home, Some(minute)),
    }
}

proptest! {
    #[test]
    fn the_state_is_that_of_a_model_that_follows_the_device(
        deeds in proptest::collection::vec(deed(), 90),
    ) {
        let mut life = Life {
            window: window(FROM, UNTIL),
            prepared_from: at(0),
            turnaround: minutes(TURNAROUND),
            ..shipped([None; 3])
        };
        let mut model = Model {
            place: Location::Home, is_handed_over: false, end: None, was_sent: false, cleaned_from: None,
        };
        for (minute, deed) in (0i64..).zip(deeds) {
            model.pass(minute);
            if let Some(changed) = after(life, deed, minute) {
                life = changed;
                follow(&mut model, deed, minute);
            }
            prop_assert_eq!(life.state(at(minute)), model.state(minute), "{:?} at {}", life, minute);
            let is_moving = matches!(model.place, Location::WayOut | Location::WayBack);
            prop_assert_eq!(life.is_in_transit(at(minute)), is_moving);
            prop_assert_eq!(life.is_away(), model.place != Location::Home);
            let is_known = model.place == Location::Home || model.end.is_none();
            let is_free = matches!(model.state(minute), State::Cancelled);
            prop_assert_eq!(life.occupied_until(at(minute)).is_some(), is_known && !is_free);
        }
        prop_assert!(model.was_sent || !life.is_away());
    }
}

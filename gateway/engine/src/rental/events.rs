//! The events of a rental, as booking systems learn of them.

use super::life::{EndReason, State};

/// The kind of an event of a rental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Booked,
    /// Booked without being confirmed.
    Held,
    Confirmed,
    /// Its end, its hold or something else of it is another one.
    Changed,
    /// It has another device.
    Swapped,
    Preparing,
    /// Its window has begun, and its device is not handed over.
    Delayed,
    Active,
    Ended,
    /// Its shipped device has left for its renters.
    Dispatched,
    /// It has ended, and its shipped device is on the way back.
    Returning,
    /// Its shipped device has not come back within the turnaround.
    Overdue,
    /// Its device has not come back in time from the rental before.
    DeviceOverdue,
    /// Its shipped device is back.
    Returned,
    /// The turnaround of its device has begun.
    Cleaning,
    Closed,
    /// Cancelled before it began, or not confirmed in time.
    Cancelled,
    Failed,
    /// 80 % of its allowance of forwarded bytes are used.
    Allowance80,
    /// All of its allowance is used.
    AllowanceReached,
    /// Its device is blocked within the time in which the rental occupies it.
    Blocked,
    /// That block has ended.
    Unblocked,
}

impl Kind {
    pub const ALL: [Kind; 22] = [
        Kind::Booked,
        Kind::Held,
        Kind::Confirmed,
        Kind::Changed,
        Kind::Swapped,
        Kind::Preparing,
        Kind::Delayed,
        Kind::Active,
        Kind::Ended,
        Kind::Dispatched,
        Kind::Returning,
        Kind::Overdue,
        Kind::DeviceOverdue,
        Kind::Returned,
        Kind::Cleaning,
        Kind::Closed,
        Kind::Cancelled,
        Kind::Failed,
        Kind::Allowance80,
        Kind::AllowanceReached,
        Kind::Blocked,
        Kind::Unblocked,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Kind::Booked => "rental.booked",
            Kind::Held => "rental.held",
            Kind::Confirmed => "rental.confirmed",
            Kind::Changed => "rental.changed",
            Kind::Swapped => "rental.swapped",
            Kind::Preparing => "rental.preparing",
            Kind::Delayed => "rental.delayed",
            Kind::Active => "rental.active",
            Kind::Ended => "rental.ended",
            Kind::Dispatched => "rental.dispatched",
            Kind::Returning => "rental.returning",
            Kind::Overdue => "rental.overdue",
            Kind::DeviceOverdue => "rental.device_overdue",
            Kind::Returned => "rental.returned",
            Kind::Cleaning => "rental.cleaning",
            Kind::Closed => "rental.closed",
            Kind::Cancelled => "rental.cancelled",
            Kind::Failed => "rental.failed",
            Kind::Allowance80 => "rental.allowance_80",
            Kind::AllowanceReached => "rental.allowance_reached",
            Kind::Blocked => "rental.blocked",
            Kind::Unblocked => "rental.unblocked",
        }
    }

    /// Whether it says why the rental is over.
    pub const fn has_reason(self) -> bool {
        matches!(self, Kind::Ended | Kind::Cancelled | Kind::Failed)
    }

    /// Whether it says how much of its allowance the rental has used.
    pub const fn has_allowance(self) -> bool {
        matches!(self, Kind::Allowance80 | Kind::AllowanceReached)
    }
}

/// Returns what happens when a rental leaves one state and enters another, in order. `over`: why it has ended, if it
/// has. A rental that is booked, held or booked again enters that state by a call, which has an event of its own.
pub fn entering(from: State, to: State, over: Option<EndReason>) -> Vec<Kind> {
    let state = match to {
        _ if from == to => None,
        State::Held | State::Booked => None,
        State::Preparing => Some(Kind::Preparing),
        State::Delayed => Some(Kind::Delayed),
        State::Active => Some(Kind::Active),
        State::Returning => Some(Kind::Returning),
        State::Overdue => Some(Kind::Overdue),
        State::Cleaning => Some(Kind::Cleaning),
        State::Closed => Some(Kind::Closed),
        State::Cancelled => Some(Kind::Cancelled),
        State::Failed => Some(Kind::Failed),
    };
    let says_why = matches!(to, State::Cancelled | State::Failed);
    let ends = from.is_open() && !to.is_open() && !says_why;
    ends.then(|| ended(over)).into_iter().chain(state).collect()
}

fn ended(over: Option<EndReason>) -> Kind {
    match over {
        Some(EndReason::Cancelled | EndReason::Lapsed) => Kind::Cancelled,
        Some(EndReason::Failed) => Kind::Failed,
        _ => Kind::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_rental_comes_before_the_turnaround_of_its_device() {
        let ended = |to| entering(State::Active, to, Some(EndReason::Ended));
        assert_eq!(ended(State::Cleaning), [Kind::Ended, Kind::Cleaning]);
        assert_eq!(ended(State::Closed), [Kind::Ended, Kind::Closed], "no turnaround");
        let entering = |from, to| entering(from, to, None);
        assert_eq!(entering(State::Cleaning, State::Closed), [Kind::Closed]);
        assert_eq!(entering(State::Active, State::Failed), [Kind::Failed]);
        assert_eq!(entering(State::Preparing, State::Delayed), [Kind::Delayed]);
        assert_eq!(entering(State::Delayed, State::Active), [Kind::Active]);
        assert_eq!(entering(State::Delayed, State::Failed), [Kind::Failed], "never handed over");
        assert_eq!(entering(State::Held, State::Cancelled), [Kind::Cancelled]);
        assert!(entering(State::Preparing, State::Booked).is_empty(), "after a swap");
        assert!(entering(State::Active, State::Active).is_empty());
    }

    #[test]
    fn a_rental_says_why_it_is_over_before_its_device_is_awaited() {
        for (reason, kind) in [
            (EndReason::NoShow, Kind::Ended),
            (EndReason::Cancelled, Kind::Cancelled),
            (EndReason::Failed, Kind::Failed),
        ] {
            let returning = entering(State::Preparing, State::Returning, Some(reason));
            assert_eq!(returning, [kind, Kind::Returning]);
            assert_eq!(entering(State::Returning, State::Overdue, Some(reason)), [Kind::Overdue]);
            assert_eq!(entering(State::Overdue, State::Cleaning, Some(reason)), [Kind::Cleaning]);
        }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = Kind::ALL.map(Kind::name).into();
        assert_eq!(names.len(), Kind::ALL.len());
        assert!(names.iter().all(|name| name.starts_with("rental.")), "{names:?}");
    }
}

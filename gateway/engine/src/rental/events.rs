//! The events of a rental, as booking systems learn of them.

use super::life::{EndReason, State};

/// The kind of an event of a rental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RentalEventKind {
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

impl RentalEventKind {
    pub const ALL: [RentalEventKind; 22] = [
        RentalEventKind::Booked,
        RentalEventKind::Held,
        RentalEventKind::Confirmed,
        RentalEventKind::Changed,
        RentalEventKind::Swapped,
        RentalEventKind::Preparing,
        RentalEventKind::Delayed,
        RentalEventKind::Active,
        RentalEventKind::Ended,
        RentalEventKind::Dispatched,
        RentalEventKind::Returning,
        RentalEventKind::Overdue,
        RentalEventKind::DeviceOverdue,
        RentalEventKind::Returned,
        RentalEventKind::Cleaning,
        RentalEventKind::Closed,
        RentalEventKind::Cancelled,
        RentalEventKind::Failed,
        RentalEventKind::Allowance80,
        RentalEventKind::AllowanceReached,
        RentalEventKind::Blocked,
        RentalEventKind::Unblocked,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            RentalEventKind::Booked => "rental.booked",
            RentalEventKind::Held => "rental.held",
            RentalEventKind::Confirmed => "rental.confirmed",
            RentalEventKind::Changed => "rental.changed",
            RentalEventKind::Swapped => "rental.swapped",
            RentalEventKind::Preparing => "rental.preparing",
            RentalEventKind::Delayed => "rental.delayed",
            RentalEventKind::Active => "rental.active",
            RentalEventKind::Ended => "rental.ended",
            RentalEventKind::Dispatched => "rental.dispatched",
            RentalEventKind::Returning => "rental.returning",
            RentalEventKind::Overdue => "rental.overdue",
            RentalEventKind::DeviceOverdue => "rental.device_overdue",
            RentalEventKind::Returned => "rental.returned",
            RentalEventKind::Cleaning => "rental.cleaning",
            RentalEventKind::Closed => "rental.closed",
            RentalEventKind::Cancelled => "rental.cancelled",
            RentalEventKind::Failed => "rental.failed",
            RentalEventKind::Allowance80 => "rental.allowance_80",
            RentalEventKind::AllowanceReached => "rental.allowance_reached",
            RentalEventKind::Blocked => "rental.blocked",
            RentalEventKind::Unblocked => "rental.unblocked",
        }
    }

    /// Whether it says why the rental is over.
    pub const fn has_reason(self) -> bool {
        matches!(self, RentalEventKind::Ended | RentalEventKind::Cancelled | RentalEventKind::Failed)
    }

    /// Whether it says how much of its allowance the rental has used.
    pub const fn has_allowance(self) -> bool {
        matches!(self, RentalEventKind::Allowance80 | RentalEventKind::AllowanceReached)
    }
}

/// Returns what happens when a rental leaves one state and enters another, in order. `over`: why it has ended, if it
/// has. A rental that is booked, held or booked again enters that state by a call, which has an event of its own.
pub fn entering(from: State, to: State, over: Option<EndReason>) -> Vec<RentalEventKind> {
    let state = match to {
        _ if from == to => None,
        State::Held | State::Booked => None,
        State::Preparing => Some(RentalEventKind::Preparing),
        State::Delayed => Some(RentalEventKind::Delayed),
        State::Active => Some(RentalEventKind::Active),
        State::Returning => Some(RentalEventKind::Returning),
        State::Overdue => Some(RentalEventKind::Overdue),
        State::Cleaning => Some(RentalEventKind::Cleaning),
        State::Closed => Some(RentalEventKind::Closed),
        State::Cancelled => Some(RentalEventKind::Cancelled),
        State::Failed => Some(RentalEventKind::Failed),
    };
    let says_why = matches!(to, State::Cancelled | State::Failed);
    let ends = from.is_open() && !to.is_open() && !says_why;
    ends.then(|| ended(over)).into_iter().chain(state).collect()
}

fn ended(over: Option<EndReason>) -> RentalEventKind {
    match over {
        Some(EndReason::Cancelled | EndReason::Lapsed) => RentalEventKind::Cancelled,
        Some(EndReason::Failed) => RentalEventKind::Failed,
        _ => RentalEventKind::Ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_rental_comes_before_the_turnaround_of_its_device() {
        let ended = |to| entering(State::Active, to, Some(EndReason::Ended));
        assert_eq!(ended(State::Cleaning), [RentalEventKind::Ended, RentalEventKind::Cleaning]);
        assert_eq!(ended(State::Closed), [RentalEventKind::Ended, RentalEventKind::Closed], "no turnaround");
        let entering = |from, to| entering(from, to, None);
        assert_eq!(entering(State::Cleaning, State::Closed), [RentalEventKind::Closed]);
        assert_eq!(entering(State::Active, State::Failed), [RentalEventKind::Failed]);
        assert_eq!(entering(State::Preparing, State::Delayed), [RentalEventKind::Delayed]);
        assert_eq!(entering(State::Delayed, State::Active), [RentalEventKind::Active]);
        assert_eq!(entering(State::Delayed, State::Failed), [RentalEventKind::Failed], "never handed over");
        assert_eq!(entering(State::Held, State::Cancelled), [RentalEventKind::Cancelled]);
        assert!(entering(State::Preparing, State::Booked).is_empty(), "after a swap");
        assert!(entering(State::Active, State::Active).is_empty());
    }

    #[test]
    fn a_rental_says_why_it_is_over_before_its_device_is_awaited() {
        for (reason, kind) in [
            (EndReason::NoShow, RentalEventKind::Ended),
            (EndReason::Cancelled, RentalEventKind::Cancelled),
            (EndReason::Failed, RentalEventKind::Failed),
        ] {
            let returning = entering(State::Preparing, State::Returning, Some(reason));
            assert_eq!(returning, [kind, RentalEventKind::Returning]);
            assert_eq!(entering(State::Returning, State::Overdue, Some(reason)), [RentalEventKind::Overdue]);
            assert_eq!(entering(State::Overdue, State::Cleaning, Some(reason)), [RentalEventKind::Cleaning]);
        }
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = RentalEventKind::ALL.map(RentalEventKind::name).into();
        assert_eq!(names.len(), RentalEventKind::ALL.len());
        assert!(names.iter().all(|name| name.starts_with("rental.")), "{names:?}");
    }
}

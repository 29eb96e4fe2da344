//! The life of a rental. Its state follows from its data and the time, and is stored nowhere.

use std::time::Duration;

use super::occupancy::Window;
use crate::time::Wall;

/// How long an alias rests after its rental is closed or cancelled, and how long a rental that has ended
/// still answers why it permits nothing. Caches and connections of the renters age out meanwhile.
pub const ALIAS_RESTS: Duration = Duration::from_secs(24 * 3_600);

/// The state of a rental.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not confirmed. It occupies its device until its hold lapses.
    Held,
    Booked,
    /// The preparation of the device has begun.
    Preparing,
    /// Its window has begun, and its device is not handed over.
    Delayed,
    Active,
    /// It has ended, and its shipped device is on the way back.
    Returning,
    /// Its shipped device has not come back within the turnaround.
    Overdue,
    /// It has ended, and the turnaround of the device has not.
    Cleaning,
    Closed,
    /// Cancelled before it began, or not confirmed in time.
    Cancelled,
    /// Ended, because the device or its delivery failed, or never handed over.
    Failed,
}

impl State {
    pub const ALL: [State; 11] = [
        State::Held,
        State::Booked,
        State::Preparing,
        State::Delayed,
        State::Active,
        State::Returning,
        State::Overdue,
        State::Cleaning,
        State::Closed,
        State::Cancelled,
        State::Failed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            State::Held => "held",
            State::Booked => "booked",
            State::Preparing => "preparing",
            State::Delayed => "delayed",
            State::Active => "active",
            State::Returning => "returning",
            State::Overdue => "overdue",
            State::Cleaning => "cleaning",
            State::Closed => "closed",
            State::Cancelled => "cancelled",
            State::Failed => "failed",
        }
    }

    /// Whether the rental still has, or may get, its device.
    pub const fn is_open(self) -> bool {
        matches!(self, State::Held | State::Booked | State::Preparing | State::Delayed | State::Active)
    }

    /// Whether its window has begun and it has not ended.
    pub const fn has_begun(self) -> bool {
        matches!(self, State::Delayed | State::Active)
    }

    /// Whether it has ended, and its shipped device has not come back.
    pub const fn awaits_return(self) -> bool {
        matches!(self, State::Returning | State::Overdue)
    }
}

/// Why a rental ended before its time, or did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    Cancelled,
    /// Its hold was not confirmed in time.
    Lapsed,
    Ended,
    ReturnedEarly,
    NoShow,
    Revoked,
    Failed,
}

impl EndReason {
    pub const ALL: [EndReason; 7] = [
        EndReason::Cancelled,
        EndReason::Lapsed,
        EndReason::Ended,
        EndReason::ReturnedEarly,
        EndReason::NoShow,
        EndReason::Revoked,
        EndReason::Failed,
    ];
    /// The reasons of a rental that had begun.
    pub const AFTER_BEGIN: [EndReason; 5] = [
        EndReason::Ended,
        EndReason::ReturnedEarly,
        EndReason::NoShow,
        EndReason::Revoked,
        EndReason::Failed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            EndReason::Cancelled => "cancelled",
            EndReason::Lapsed => "lapsed",
            EndReason::Ended => "ended",
            EndReason::ReturnedEarly => "returned_early",
            EndReason::NoShow => "no_show",
            EndReason::Revoked => "revoked",
            EndReason::Failed => "failed",
        }
    }
}

/// An end that did not come by the time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub at: Wall,
    pub reason: EndReason,
}

/// When a rental gets its device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Handover {
    /// When its window begins.
    #[default]
    AtBegin,
    /// Once the gate is passed.
    Awaited,
    /// The gate was passed, or opened by hand.
    Done(Wall),
}

impl Handover {
    /// Whether the gate is to be passed yet.
    pub const fn is_awaited(self) -> bool {
        matches!(self, Handover::Awaited)
    }

    /// Returns when the gate was passed.
    pub const fn done_at(self) -> Option<Wall> {
        match self {
            Handover::Done(at) => Some(at),
            Handover::AtBegin | Handover::Awaited => None,
        }
    }
}

/// How a device gets to its renters and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// It stays in its place.
    #[default]
    Mounted,
    Shipped(Shipment),
}

impl Delivery {
    /// As a device is set. A shipped one has not left.
    pub const ALL: [Delivery; 2] = [Delivery::Mounted, Delivery::Shipped(Shipment::KEPT)];

    pub const fn name(self) -> &'static str {
        match self {
            Delivery::Mounted => "mounted",
            Delivery::Shipped(_) => "shipped",
        }
    }

    pub const fn shipment(self) -> Option<Shipment> {
        match self {
            Delivery::Mounted => None,
            Delivery::Shipped(shipment) => Some(shipment),
        }
    }

    pub const fn is_shipped(self) -> bool {
        self.shipment().is_some()
    }
}

/// The way of a device to its renters and back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shipment {
    pub dispatched_at: Option<Wall>,
    /// When it was heard from at its renters.
    pub first_contact_at: Option<Wall>,
    pub returned_at: Option<Wall>,
}

impl Shipment {
    const KEPT: Shipment = Shipment { dispatched_at: None, first_contact_at: None, returned_at: None };
}

/// The times of a rental that decide its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    pub window: Window,
    /// When the device is occupied before the window begins.
    pub prepared_from: Wall,
    pub turnaround: Duration,
    /// `None`: the booking is confirmed.
    pub hold_until: Option<Wall>,
    pub handover: Handover,
    pub ending: Option<Ending>,
    pub delivery: Delivery,
}

impl Life {
    pub fn state(&self, now: Wall) -> State {
        let Some(Ending { at, reason }) = self.over(now) else { return self.before_the_end(now) };
        match (self.dispatched(), reason) {
            (Some(shipment), _) => self.on_the_way_back(shipment, at, now),
            (None, EndReason::Cancelled | EndReason::Lapsed) => State::Cancelled,
            (None, EndReason::Failed) => State::Failed,
            (None, _) => self.after(at, now),
        }
    }

    fn before_the_end(&self, now: Wall) -> State {
        match self.begins_at() {
            _ if self.hold_until.is_some() => State::Held,
            _ if now < self.prepared_from => State::Booked,
            _ if now < self.window.from() => State::Preparing,
            Some(begins_at) if begins_at <= now => State::Active,
            _ => State::Delayed,
        }
    }

    fn on_the_way_back(&self, shipment: Shipment, end: Wall, now: Wall) -> State {
        match shipment.returned_at {
            Some(returned_at) => self.after(returned_at, now),
            None if now < end + self.turnaround => State::Returning,
            None => State::Overdue,
        }
    }

    fn after(&self, end: Wall, now: Wall) -> State {
        if now < end + self.turnaround { State::Cleaning } else { State::Closed }
    }

    /// Returns when and why the rental ended, by a call or by the time. `None`: it has not.
    pub fn over(&self, now: Wall) -> Option<Ending> {
        let until = self.window.until();
        match (self.ending, self.lapses_at()) {
            (Some(ending), _) => Some(ending),
            (None, Some(at)) => (at <= now).then_some(Ending { at, reason: EndReason::Lapsed }),
            (None, None) if now < until => None,
            (None, None) if self.has_failed(now) => Some(Ending { at: until, reason: EndReason::Failed }),
            (None, None) => Some(Ending { at: until, reason: EndReason::Ended }),
        }
    }

    /// Returns the shipment of a device that has left for its renters.
    fn dispatched(&self) -> Option<Shipment> {
        self.delivery.shipment().filter(|shipment| shipment.dispatched_at.is_some())
    }

    /// Whether its device has left and has not come back.
    pub fn is_away(&self) -> bool {
        self.dispatched().is_some_and(|shipment| shipment.returned_at.is_none())
    }

    /// Whether its device is on the way to its renters, or back.
    pub fn is_in_transit(&self, now: Wall) -> bool {
        let is_on_the_way_out = self.dispatched().is_some_and(|shipment| shipment.first_contact_at.is_none());
        match self.over(now) {
            Some(_) => self.is_away(),
            None => is_on_the_way_out,
        }
    }

    /// Returns when the customer gets the device, or got it. `None`: that is not known yet.
    pub fn begins_at(&self) -> Option<Wall> {
        match self.handover {
            Handover::AtBegin => Some(self.window.from()),
            Handover::Awaited => None,
            Handover::Done(at) => Some(at.max(self.window.from())),
        }
    }

    /// Whether the window ended before the device was handed over.
    pub fn has_failed(&self, now: Wall) -> bool {
        let was_open = self.ending.is_none() && self.hold_until.is_none();
        let until = self.window.until();
        was_open && until <= now && self.begins_at().is_none_or(|begins_at| until <= begins_at)
    }

    /// Returns how long the customer waited, or waits, for the device within the window.
    pub fn delay(&self, now: Wall) -> Duration {
        let never_begins = self.state(now) == State::Held || self.is_given_up(now);
        let waited_until = self.begins_at().unwrap_or(now).min(self.ends_at()).min(now);
        if never_begins { Duration::ZERO } else { waited_until.since(self.window.from()) }
    }

    /// The moment from which a rental without confirmation no longer occupies its device.
    pub fn lapses_at(&self) -> Option<Wall> {
        self.hold_until.map(|until| until.min(self.window.until()))
    }

    /// Whether it was given up before it began.
    fn is_given_up(&self, now: Wall) -> bool {
        let reason = self.over(now).map(|over| over.reason);
        matches!(reason, Some(EndReason::Cancelled | EndReason::Lapsed))
    }

    /// Returns the time in which the customer had, or has, a device, up to `now`. `None`: in no time.
    pub fn used(&self, now: Wall) -> Option<Window> {
        if self.state(now) == State::Held || self.is_given_up(now) {
            return None;
        }
        Window::new(self.begins_at()?, self.ends_at().min(now))
    }

    /// Returns the moment from which renters no longer reach the device: the earlier of the end of the window
    /// and of the one that was given.
    pub fn ends_at(&self) -> Wall {
        self.ending.map_or(self.window.until(), |ending| ending.at.min(self.window.until()))
    }

    /// Returns when renters reach the device, `[from, until)`. `None`: a rental that is not confirmed, or that
    /// was cancelled, permits nothing.
    pub fn access(&self) -> Option<(Wall, Wall)> {
        let is_given_up = |ending: Ending| matches!(ending.reason, EndReason::Cancelled | EndReason::Lapsed);
        let permits = self.hold_until.is_none() && !self.ending.is_some_and(is_given_up);
        permits.then(|| (self.window.from(), self.ends_at()))
    }

    /// Returns when the alias of the rental may go to another one: a day after it is closed or cancelled. A change of the
    /// rental moves it. `None`: its device is with the renters or on its way, and that is not known yet.
    pub fn alias_freed_at(&self) -> Option<Wall> {
        let over = match (self.dispatched(), self.ending, self.lapses_at()) {
            (Some(shipment), ..) => shipment.returned_at? + self.turnaround,
            (None, Some(Ending { at, reason: EndReason::Cancelled | EndReason::Lapsed }), _) => at,
            (None, Some(Ending { at, .. }), _) => at + self.turnaround,
            (None, None, Some(lapses_at)) => lapses_at,
            (None, None, None) => self.window.until() + self.turnaround,
        };
        Some(over + ALIAS_RESTS)
    }

    /// Returns when the device is free again. `None`: the rental gave it back before it began, or the device is on its
    /// way back and that is not known yet.
    pub fn occupied_until(&self, now: Wall) -> Option<Wall> {
        let end = self.over(now).map_or(self.window.until(), |over| over.at);
        match self.dispatched() {
            Some(Shipment { returned_at: Some(at), .. }) => Some(at + self.turnaround),
            Some(_) => (!self.state(now).awaits_return()).then(|| end + self.turnaround),
            None => (!self.is_given_up(now)).then(|| end + self.turnaround),
        }
    }
}

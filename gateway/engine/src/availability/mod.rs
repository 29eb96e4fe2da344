//! How long hosts and services were available in a period, from the intervals of their states.
//!
//! Hard states, downtimes, reachability and the outages of the gateway itself are series of their
//! own. They are combined here, so that an outage of the gateway has one interval and not one for
//! each service.
//!
//! A moment counts only if its state is known: the gateway ran, its uplink worked, a parent of the
//! host was up, and there was a result. An available host is UP; an available service is OK or
//! WARNING, and its host is not DOWN, because the checks of a service wait while its host is DOWN.
//!
//! This module knows no store and no clock.

mod series;
mod shares;

use fleetgate_probes::sample::Status;

use crate::messages::HostStatus;
use crate::time::Wall;

use series::Cursor;
pub use series::Series;
pub use shares::{Condition, Shares, Sums};

/// A period that is not empty. Its end is not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    from: Wall,
    until: Wall,
}

impl Period {
    /// Returns `None` if the period does not end after its begin.
    pub fn new(from: Wall, until: Wall) -> Option<Period> {
        (from < until).then_some(Period { from, until })
    }

    pub fn from(self) -> Wall {
        self.from
    }

    pub fn until(self) -> Wall {
        self.until
    }
}

/// The outages of the gateway itself, which hide every host.
#[derive(Debug, Default)]
pub struct GatewaySeries {
    /// It did not run.
    pub stopped: Series<()>,
    pub uplink_lost: Series<()>,
}

#[derive(Debug, Default)]
pub struct HostSeries {
    pub states: Series<HostStatus>,
    /// All its parents were down.
    pub unreachable: Series<()>,
    /// Downtimes of the host and its preparation for rentals, which cover its services.
    pub maintenance: Series<()>,
}

#[derive(Debug, Default)]
pub struct ServiceSeries {
    pub states: Series<Status>,
    /// Downtimes of this service alone.
    pub maintenance: Series<()>,
}

/// Sums up the time of a host.
pub fn of_host(gateway: &GatewaySeries, host: &HostSeries, period: Period) -> Sums {
    let mut hidden = Hidden::new(gateway, host);
    let (mut states, mut maintenance) = (host.states.cursor(), host.maintenance.cursor());
    sum(period, |at| {
        let (hidden, state) = (hidden.at(at), states.at(at));
        let maintenance = maintenance.at(at);
        let condition = hidden.value.unwrap_or_else(|| of_host_state(state.value));
        let until = hidden.until.min(state.until).min(maintenance.until);
        Moment { condition, planned: maintenance.value.is_some(), until }
    })
}

/// Sums up the time of a service of this host.
pub fn of_service(
    gateway: &GatewaySeries,
    host: &HostSeries,
    service: &ServiceSeries,
    period: Period,
) -> Sums {
    let mut hidden = Hidden::new(gateway, host);
    let (mut hosts, mut states) = (host.states.cursor(), service.states.cursor());
    let mut plans = [host.maintenance.cursor(), service.maintenance.cursor()];
    sum(period, |at| {
        let (hidden, host, state) = (hidden.at(at), hosts.at(at), states.at(at));
        let [of_host, own] = plans.each_mut().map(|plan| plan.at(at));
        let down = (host.value == Some(HostStatus::Down)).then_some(Condition::HostDown);
        let condition = hidden.value.or(down).unwrap_or_else(|| of_service_state(state.value));
        let planned = of_host.value.is_some() || own.value.is_some();
        let until = hidden.until.min(host.until).min(state.until).min(of_host.until).min(own.until);
        Moment { condition, planned, until }
    })
}

/// Returns the parts of a period in which a state of a host could be seen: the gateway ran, its uplink worked,
/// and a parent of the host was up.
pub fn seen(gateway: &GatewaySeries, host: &HostSeries, period: Period) -> Vec<Period> {
    let mut hidden = Hidden::new(gateway, host);
    let (mut at, mut seen) = (period.from, Vec::new());
    while at < period.until {
        let hidden = hidden.at(at.as_millis());
        let until = period.until.min(Wall::from_millis(hidden.until));
        if hidden.value.is_none() {
            seen.push(Period { from: at, until });
        }
        at = until;
    }
    seen
}

fn of_host_state(state: Option<HostStatus>) -> Condition {
    match state {
        Some(HostStatus::Up) => Condition::Up,
        Some(HostStatus::Down) => Condition::Down,
        Some(HostStatus::Pending) | None => Condition::NoData,
    }
}

fn of_service_state(state: Option<Status>) -> Condition {
    match state {
        Some(Status::Ok) => Condition::Ok,
        Some(Status::Warning) => Condition::Warning,
        Some(Status::Critical) => Condition::Critical,
        Some(Status::Unknown) => Condition::Unknown,
        None => Condition::NoData,
    }
}

/// The state at a moment, and until when nothing of it changes.
struct Moment {
    condition: Condition,
    planned: bool,
    until: i64,
}

/// Goes through a period from change to change.
fn sum(period: Period, mut look: impl FnMut(i64) -> Moment) -> Sums {
    let (mut at, end) = (period.from.as_millis(), period.until.as_millis());
    let mut sums = Sums::default();
    while at < end {
        let moment = look(at);
        // A cursor returns an end after `at`.
        let until = moment.until.min(end);
        sums.add(moment.condition, moment.planned, until.abs_diff(at));
        at = until;
    }
    sums
}

/// The reasons why the state of a host is not known.
struct Hidden<'a>([(Cursor<'a, ()>, Condition); 3]);

impl<'a> Hidden<'a> {
    /// The first reason that holds counts.
    fn new(gateway: &'a GatewaySeries, host: &'a HostSeries) -> Self {
        Hidden([
            (gateway.stopped.cursor(), Condition::GatewayStopped),
            (gateway.uplink_lost.cursor(), Condition::UplinkLost),
            (host.unreachable.cursor(), Condition::Unreachable),
        ])
    }

    fn at(&mut self, at: i64) -> series::At<Condition> {
        let mut found = series::At { value: None, until: i64::MAX };
        for (cursor, condition) in &mut self.0 {
            let holds = cursor.at(at);
            found.value = found.value.or(holds.value.map(|()| *condition));
            found.until = found.until.min(holds.until);
        }
        found
    }
}

#[cfg(test)]
mod tests;

//! What was recorded of a device while a customer had it, and what follows from it. Pure.

use std::collections::BTreeMap;

use fleetgate_engine::availability::{self, Period, Series as Intervals, ServiceSeries, Sums};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{GATEWAY, HostStatus, RENTAL_SERVICE};
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::Status;

use crate::api::reports::collect::{OfGateway, Rows};
use crate::store::intervals::{Interval, Series};

/// An interval that is cut to the period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// [`GATEWAY`] for the gateway.
    pub host: HostId,
    /// Empty for the device and for the gateway.
    pub service: String,
    pub series: Series,
    pub value: String,
    pub time: Period,
}

/// A time in which a device or a service of it was seen not to be available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    /// Empty for the device.
    pub service: String,
    pub state: &'static str,
    pub time: Period,
}

/// Takes the intervals of the gateway, and of a device and its services.
pub(super) struct Recorded {
    period: Period,
    gateway: OfGateway,
    device: Rows,
    services: BTreeMap<String, Rows>,
    cut: Vec<Cut>,
}

/// The figures that follow from them.
pub(super) struct ReportFigures {
    pub device: Sums,
    pub services: BTreeMap<String, Sums>,
    /// The sums of a service without an interval.
    pub without: Sums,
    pub outages: Vec<Outage>,
    pub intervals: Vec<Cut>,
}

impl Recorded {
    pub fn new(period: Period) -> Recorded {
        Recorded {
            period,
            gateway: OfGateway::default(),
            device: Rows::default(),
            services: BTreeMap::new(),
            cut: Vec::new(),
        }
    }

    /// An interval outside of the period says nothing, and what lies beyond its ends belongs to others.
    /// The service that shows the rentals says nothing of the device.
    pub fn push(&mut self, of: &Interval<'_>) {
        if of.service == RENTAL_SERVICE {
            return;
        }
        let (from, until) =
            (of.from.max(self.period.from()), of.until.unwrap_or(Wall::from_millis(i64::MAX)));
        let Some(time) = Period::new(from, until.min(self.period.until())) else { return };
        match (of.host == GATEWAY, of.service) {
            (true, _) => self.gateway.push(of),
            (false, "") => self.device.push(of),
            (false, service) => match self.services.get_mut(service) {
                Some(rows) => rows.push(of),
                None => self.services.entry(service.to_owned()).or_default().push(of),
            },
        }
        let (service, value) = (of.service.to_owned(), of.value.to_owned());
        self.cut.push(Cut { host: of.host, service, series: of.series, value, time });
    }

    pub fn finish(self) -> ReportFigures {
        let (gateway, device, period) = (self.gateway.series(), self.device.host(), self.period);
        let down = |state: HostStatus| (state == HostStatus::Down).then_some(state.name());
        let seen = availability::seen(&gateway, &device, period);
        let mut outages = outages("", &device.states, &seen, down);
        let mut services = BTreeMap::new();
        for (name, rows) in self.services {
            let service = rows.service();
            outages.extend(self::outages(&name, &service.states, &seen, failed));
            services.insert(name, availability::of_service(&gateway, &device, &service, period));
        }
        let without = availability::of_service(&gateway, &device, &ServiceSeries::default(), period);
        let device = availability::of_host(&gateway, &device, period);
        ReportFigures { device, services, without, outages, intervals: self.cut }
    }
}

/// A service with a warning is available.
fn failed(state: Status) -> Option<&'static str> {
    matches!(state, Status::Critical | Status::Unknown).then_some(state.name())
}

/// Returns the failures as far as they were seen. One that ends while the gateway is off has no known end.
fn outages<T: Copy>(
    service: &str,
    states: &Intervals<T>,
    seen: &[Period],
    failed: impl Fn(T) -> Option<&'static str>,
) -> Vec<Outage> {
    let outage = |(time, state)| Some(Outage { service: service.to_owned(), state: failed(state)?, time });
    seen.iter().flat_map(|part| states.within(*part)).filter_map(outage).collect()
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::availability::{Condition, Shares};
    use fleetgate_engine::id::Id;
    use proptest::prelude::*;

    use super::*;
    use crate::api::reports::collect::Added;

    /// The longest time of a test, in seconds.
    const LONG: i64 = 40;
    const DEVICE: HostId = Id::from_i64(7);

    /// The subject of an interval: the host, the service, the series and the value.
    type About = (HostId, &'static str, Series, &'static str);
    /// An interval with its begin and end in seconds.
    type Row = (About, i64, Option<i64>);

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    fn period(from: i64, until: i64) -> Period {
        Period::new(at(from), at(until)).unwrap()
    }

    fn found(rows: &[Row], period: Period) -> ReportFigures {
        let mut recorded = Recorded::new(period);
        for ((host, service, series, value), from, until) in rows.iter().copied() {
            recorded.push(&Interval { host, service, series, value, from: at(from), until: until.map(at) });
        }
        recorded.finish()
    }

    /// The naive model: of what overlaps in one second, that which began last.
    fn value(rows: &[Row], about: impl Fn(&About) -> bool, second: i64) -> Option<&'static str> {
        let of = rows.iter().filter(|(of, from, until)| about(of) && until.is_none_or(|until| *from < until));
        let begun = of.filter(|(_, from, _)| *from <= second);
        let ((.., value), _, until) = begun.max_by_key(|(_, from, _)| *from)?;
        until.is_none_or(|until| second < until).then_some(*value)
    }

    fn holds(rows: &[Row], host: HostId, service: &str, series: Series, second: i64) -> Option<&'static str> {
        value(rows, |about| (about.0, about.1, about.2) == (host, service, series), second)
    }

    /// Why nothing was seen in one second.
    fn hidden(rows: &[Row], second: i64) -> Option<&'static str> {
        let of = |host, series| holds(rows, host, "", series, second);
        let hidden = [
            (of(GATEWAY, Series::GatewayStopped), "gateway_stopped"),
            (of(GATEWAY, Series::UplinkLost), "uplink_lost"),
            (of(DEVICE, Series::Unreachable), "unreachable"),
        ];
        hidden.into_iter().find_map(|(holds, name)| holds.map(|_| name))
    }

    /// The failure in one second.
    fn failure(rows: &[Row], service: &str, second: i64) -> Option<&'static str> {
        let own = holds(rows, DEVICE, service, Series::State, second);
        own.filter(|state| ["down", "critical", "unknown"].contains(state) && hidden(rows, second).is_none())
    }

    /// The states of one second, and whether they were planned.
    fn second(rows: &[Row], service: &str, second: i64) -> (&'static str, bool) {
        let of = |host, service, series| holds(rows, host, service, series, second);
        let plans = [("", Series::Downtime), ("", Series::Rental), (service, Series::Downtime)];
        let planned = plans.into_iter().any(|(service, series)| of(DEVICE, service, series).is_some());
        let device = of(DEVICE, "", Series::State);
        let hidden = hidden(rows, second);
        let own = of(DEVICE, service, Series::State).unwrap_or("no_data");
        let state = if !service.is_empty() && device == Some("down") { "host_down" } else { own };
        (hidden.unwrap_or(state), planned)
    }

    /// Seconds by condition, in maintenance or outside of it.
    fn naive(rows: &[Row], service: &str, (from, until): (i64, i64), in_maintenance: bool) -> Vec<u64> {
        let mut seconds = vec![0; Condition::ALL.len()];
        for (name, planned) in (from..until).map(|at| second(rows, service, at)) {
            let condition = Condition::ALL.iter().position(|condition| condition.name() == name).unwrap();
            seconds[condition] += u64::from(planned == in_maintenance);
        }
        seconds
    }

    fn seconds(shares: &Shares) -> Vec<u64> {
        Condition::ALL.map(|condition| shares.of(condition) / 1_000).to_vec()
    }

    /// The intervals that a report lists, as its reader has them.
    fn listed(found: &ReportFigures) -> Vec<Row> {
        let names = ["up", "down", "ok", "warning", "critical", "unknown", ""];
        let row = |cut: &Cut| {
            let value = names.into_iter().find(|name| *name == cut.value).unwrap();
            let service = if cut.service.is_empty() { "" } else { "ping" };
            let [from, until] = [cut.time.from(), cut.time.until()].map(|at| at.as_millis() / 1_000);
            ((cut.host, service, cut.series, value), from, Some(until))
        };
        found.intervals.iter().map(row).collect()
    }

    fn abouts() -> impl Strategy<Value = About> {
        let (device, service) = (["up", "down"], ["ok", "warning", "critical", "unknown"]);
        let states = device.map(|value| (DEVICE, "", Series::State, value)).into_iter();
        let states = states.chain(service.map(|value| (DEVICE, "ping", Series::State, value)));
        let others = [
            (GATEWAY, "", Series::GatewayStopped, ""),
            (GATEWAY, "", Series::UplinkLost, ""),
            (DEVICE, "", Series::Unreachable, ""),
            (DEVICE, "", Series::Downtime, ""),
            (DEVICE, "", Series::Rental, ""),
            (DEVICE, "ping", Series::Downtime, ""),
        ];
        prop::sample::select(states.chain(others).collect::<Vec<About>>())
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_each_second_also_for_a_reader_of_the_intervals(
            mut rows in prop::collection::vec((abouts(), -5..LONG, prop::option::of(-5..LONG + 5)), 0..24),
            from in 0..LONG, long in 1..LONG,
        ) {
            // As the store passes them.
            rows.sort_by_key(|(_, from, _)| *from);
            let span = (from, from + long);
            let of = found(&rows, period(span.0, span.1));
            rows.retain(|(_, begin, end)| *begin < span.1 && end.is_none_or(|end| end > span.0));
            let services = of.services.iter().map(|(name, sums)| (name.as_str(), sums));
            for (service, sums) in services.chain([("", &of.device)]) {
                let (normal, planned) = (seconds(&sums.normal), seconds(&sums.maintenance));
                prop_assert_eq!(normal, naive(&rows, service, span, false), "{}", service);
                prop_assert_eq!(planned, naive(&rows, service, span, true), "{}", service);
            }
            let each = |service| (span.0..span.1).map(move |second| (service, second));
            for (service, second) in ["", "ping"].into_iter().flat_map(each) {
                let is_then = |of: &&Outage| of.time.from() <= at(second) && at(second) < of.time.until();
                let outage = of.outages.iter().filter(|of| of.service == service).find(is_then);
                prop_assert_eq!(outage.map(|of| of.state), failure(&rows, service, second), "{} {}", service, second);
            }
            let again = found(&listed(&of), period(span.0, span.1));
            prop_assert_eq!((again.device, &again.services), (of.device, &of.services));
            prop_assert_eq!(again.outages, of.outages);
        }
    }

    /// Intervals of each series that follow each other, as the store has them.
    fn chains() -> impl Strategy<Value = Vec<Row>> {
        let series = [
            (GATEWAY, "", Series::GatewayStopped, [""; 4]),
            (GATEWAY, "", Series::UplinkLost, [""; 4]),
            (DEVICE, "", Series::State, ["up", "down", "up", "down"]),
            (DEVICE, "", Series::Unreachable, [""; 4]),
            (DEVICE, "", Series::Downtime, [""; 4]),
            (DEVICE, "ping", Series::State, ["ok", "warning", "critical", "unknown"]),
            (DEVICE, "ping", Series::Downtime, [""; 4]),
        ];
        let chain = prop::collection::vec((0..4i64, 1..9i64, 0..4usize), 0..6);
        prop::collection::vec(chain, series.len()).prop_map(move |chains| {
            let mut rows = Vec::new();
            for ((host, service, series, values), chain) in series.into_iter().zip(chains) {
                let mut end = -3;
                for (gap, long, n) in chain {
                    let from = end + gap;
                    end = from + long;
                    rows.push(((host, service, series, values[n]), from, Some(end)));
                }
            }
            rows
        })
    }

    proptest! {
        #[test]
        fn the_sums_of_the_parts_of_a_time_are_those_of_the_whole(
            rows in chains(), cuts in prop::collection::btree_set(1..LONG, 0..4),
        ) {
            let whole = found(&rows, period(0, LONG));
            let (mut device, mut services) = (Sums::default(), Added::new());
            let mut from = 0;
            for until in cuts.into_iter().chain([LONG]) {
                let part = found(&rows, period(from, until));
                device += part.device;
                services.add(part.services, part.without);
                from = until;
            }
            prop_assert_eq!((device, services.finish()), (whole.device, whole.services));
        }
    }

    #[test]
    fn an_outage_is_no_longer_than_it_was_seen() {
        let rows = [
            ((GATEWAY, "", Series::GatewayStopped, ""), 12, Some(15)),
            ((DEVICE, "", Series::State, "down"), 11, Some(16)),
            ((DEVICE, "", Series::State, "up"), 16, None),
        ];
        let of = found(&rows, period(10, 20));
        let times: Vec<Period> = of.outages.iter().map(|outage| outage.time).collect();
        assert_eq!(times, [period(11, 12), period(15, 16)]);
        assert_eq!(of.device.all().of(Condition::Down), 2_000, "as the sum says");
    }

    #[test]
    fn outages_are_cut_to_the_time_of_the_customer() {
        let rows = [
            ((DEVICE, "", Series::State, "down"), 0, Some(12)),
            ((DEVICE, "", Series::State, "up"), 12, None),
            ((DEVICE, "disk", Series::State, "warning"), 0, Some(15)),
            ((DEVICE, "disk", Series::State, "critical"), 15, None),
            ((DEVICE, "ping", Series::State, "critical"), 0, Some(10)),
        ];
        let of = found(&rows, period(10, 20));
        let outage = |service: &str, state, from, until| Outage {
            service: service.to_owned(),
            state,
            time: period(from, until),
        };
        assert_eq!(of.outages, [outage("", "down", 10, 12), outage("disk", "critical", 15, 20)]);
        let names: Vec<&str> = of.services.keys().map(String::as_str).collect();
        assert_eq!(names, ["disk"], "ping had no state then");
        assert!(of.intervals.iter().all(|cut| cut.time.from() >= at(10) && cut.time.until() <= at(20)));
        assert_eq!(of.device.all().of(Condition::Down), 2_000);
    }
}

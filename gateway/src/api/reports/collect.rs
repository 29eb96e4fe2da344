//! Sums up hosts and services while their intervals are read, in one pass. Pure.

use std::collections::BTreeMap;

use fleetgate_engine::availability::{
    self, GatewaySeries, HostSeries, Period, Series as Intervals, ServiceSeries, Sums,
};
use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::HostStatus;
use fleetgate_engine::time::Wall;
use fleetgate_probes::sample::Status;

use crate::store::intervals::{Interval, Series, Services};

/// The sums of each host and service. The name of a host's own is empty.
pub(super) type SumsByService = BTreeMap<(HostId, String), Sums>;

/// Adds up what was found in the parts of a time.
pub(in crate::api) struct Added<Key> {
    sums: BTreeMap<Key, Sums>,
    /// Those of what was in no part so far.
    without: Sums,
}

impl<Key: Ord> Added<Key> {
    pub fn new() -> Self {
        Added { sums: BTreeMap::new(), without: Sums::default() }
    }

    /// Adds a part of the time. `without`: the sums of what has no interval in it.
    pub fn add(&mut self, part: BTreeMap<Key, Sums>, without: Sums) {
        for (key, sums) in &mut self.sums {
            *sums += part.get(key).copied().unwrap_or(without);
        }
        let before = self.without;
        for (key, sums) in part {
            self.sums.entry(key).or_insert_with(|| {
                let mut all = before;
                all += sums;
                all
            });
        }
        self.without += without;
    }

    pub fn finish(self) -> BTreeMap<Key, Sums> {
        self.sums
    }
}

/// An interval without its series.
type Row<T> = (Wall, Option<Wall>, T);

/// The intervals of one host or service.
#[derive(Default)]
pub(in crate::api) struct Rows {
    hosts: Vec<Row<HostStatus>>,
    services: Vec<Row<Status>>,
    downtimes: Vec<Row<()>>,
    rentals: Vec<Row<()>>,
    unreachable: Vec<Row<()>>,
}

impl Rows {
    /// A value that is no state counts as no data.
    pub fn push(&mut self, of: &Interval<'_>) {
        match of.series {
            Series::State if of.service.is_empty() => {
                self.hosts.extend(host_status(of.value).map(|status| (of.from, of.until, status)));
            }
            Series::State => {
                let status = Status::ALL.into_iter().find(|status| status.name() == of.value);
                self.services.extend(status.map(|status| (of.from, of.until, status)));
            }
            Series::Downtime => self.downtimes.push((of.from, of.until, ())),
            Series::Rental => self.rentals.push((of.from, of.until, ())),
            Series::Unreachable => self.unreachable.push((of.from, of.until, ())),
            // They belong to the gateway.
            Series::GatewayStopped | Series::UplinkLost => {}
        }
    }

    pub fn host(self) -> HostSeries {
        HostSeries {
            states: Intervals::new(self.hosts),
            unreachable: Intervals::new(self.unreachable),
            maintenance: Intervals::new(self.downtimes).or(Intervals::new(self.rentals)),
        }
    }

    pub fn service(self) -> ServiceSeries {
        ServiceSeries { states: Intervals::new(self.services), maintenance: Intervals::new(self.downtimes) }
    }
}

fn host_status(name: &str) -> Option<HostStatus> {
    [HostStatus::Up, HostStatus::Down].into_iter().find(|status| status.name() == name)
}

/// Collects the intervals of the gateway itself.
#[derive(Default)]
pub(in crate::api) struct OfGateway {
    stopped: Vec<Row<()>>,
    uplink_lost: Vec<Row<()>>,
}

impl OfGateway {
    pub fn push(&mut self, of: &Interval<'_>) {
        match of.series {
            Series::GatewayStopped => self.stopped.push((of.from, of.until, ())),
            Series::UplinkLost => self.uplink_lost.push((of.from, of.until, ())),
            Series::State | Series::Downtime | Series::Rental | Series::Unreachable => {}
        }
    }

    pub fn series(self) -> GatewaySeries {
        GatewaySeries { stopped: Intervals::new(self.stopped), uplink_lost: Intervals::new(self.uplink_lost) }
    }
}

/// Takes intervals host by host, a host before its services.
pub(super) struct Collector {
    gateway: GatewaySeries,
    period: Period,
    /// Whether hosts are reported, or their services.
    of_hosts: bool,
    /// The host or service whose intervals are read.
    current: Option<(HostId, String)>,
    rows: Rows,
    /// The host of the current service.
    host: HostSeries,
    found: SumsByService,
}

impl Collector {
    pub fn new(gateway: GatewaySeries, period: Period, services: Services<'_>) -> Collector {
        Collector {
            gateway,
            period,
            of_hosts: services == Services::None,
            current: None,
            rows: Rows::default(),
            host: HostSeries::default(),
            found: SumsByService::new(),
        }
    }

    pub fn push(&mut self, of: &Interval<'_>) {
        let is_current = self
            .current
            .as_ref()
            .is_some_and(|(host, service)| (*host, service.as_str()) == (of.host, of.service));
        if !is_current {
            self.end_current();
            if self.current.as_ref().is_none_or(|(host, _)| *host != of.host) {
                self.host = HostSeries::default();
            }
            self.current = Some((of.host, of.service.to_owned()));
        }
        self.rows.push(of);
    }

    /// Returns all sums. A host or service of `wanted` without an interval has no data.
    pub fn finish(mut self, wanted: impl IntoIterator<Item = (HostId, String)>) -> SumsByService {
        self.end_current();
        let without = self.without();
        for of in wanted {
            self.found.entry(of).or_insert(without);
        }
        self.found
    }

    /// Returns the sums of a host or service without an interval.
    pub fn without(&self) -> Sums {
        let (host, service) = (HostSeries::default(), ServiceSeries::default());
        match self.of_hosts {
            true => availability::of_host(&self.gateway, &host, self.period),
            false => availability::of_service(&self.gateway, &host, &service, self.period),
        }
    }

    fn end_current(&mut self) {
        let Some((host, service)) = &self.current else { return };
        let rows = std::mem::take(&mut self.rows);
        let sums = if service.is_empty() {
            self.host = rows.host();
            self.of_hosts.then(|| availability::of_host(&self.gateway, &self.host, self.period))
        } else {
            let service = rows.service();
            Some(availability::of_service(&self.gateway, &self.host, &service, self.period))
        };
        self.found.extend(sums.map(|sums| ((*host, service.clone()), sums)));
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::availability::Condition;
    use fleetgate_engine::id::Id;

    use super::*;

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    fn host(n: i64) -> HostId {
        Id::from_i64(n)
    }

    fn of(
        n: i64,
        service: &'static str,
        series: Series,
        value: &'static str,
        from: i64,
    ) -> Interval<'static> {
        Interval { host: host(n), service, series, value, from: at(from), until: None }
    }

    fn collect(services: Services<'_>, wanted: &[(i64, &str)]) -> SumsByService {
        let period = Period::new(at(0), at(10)).unwrap();
        let mut gateway = OfGateway::default();
        let lost = Interval { until: Some(at(2)), ..of(0, "", Series::UplinkLost, "", 1) };
        gateway.push(&lost);
        let mut collector = Collector::new(gateway.series(), period, services);
        for of in [
            of(1, "", Series::State, "down", 4),
            of(1, "disk", Series::State, "ok", 0),
            of(1, "ping", Series::Downtime, "", 3),
            of(1, "ping", Series::State, "warning", 0),
            of(2, "disk", Series::State, "critical", 5),
        ] {
            if services != Services::None || of.service.is_empty() {
                collector.push(&of);
            }
        }
        collector.finish(wanted.iter().map(|(n, service)| (host(*n), (*service).to_owned())))
    }

    fn seconds(found: &SumsByService, n: i64, service: &str, condition: Condition) -> u64 {
        found[&(host(n), service.to_owned())].all().of(condition) / 1_000
    }

    #[test]
    fn hosts_have_their_own_sums_and_those_without_an_interval_have_no_data() {
        let found = collect(Services::None, &[(1, ""), (3, "")]);
        assert_eq!(found.len(), 2);
        assert_eq!(seconds(&found, 1, "", Condition::Down), 6);
        assert_eq!(seconds(&found, 1, "", Condition::UplinkLost), 1);
        assert_eq!(seconds(&found, 3, "", Condition::NoData), 9);
    }

    #[test]
    fn what_is_in_some_parts_only_has_no_data_in_the_others() {
        let of = |seconds: i64| {
            let period = Period::new(at(0), at(seconds)).unwrap();
            Collector::new(GatewaySeries::default(), period, Services::None).without()
        };
        let mut added = Added::new();
        added.add([("a", of(1))].into(), of(1));
        added.add(BTreeMap::new(), of(2));
        added.add([("a", of(4)), ("b", of(4))].into(), of(4));
        let seconds = added.finish().into_values().map(|sums| sums.all().total() / 1_000);
        assert_eq!(seconds.collect::<Vec<_>>(), [7, 7]);
    }

    #[test]
    fn services_have_the_state_of_their_own_host_and_no_other() {
        let found = collect(Services::All, &[(2, "disk"), (3, "ping")]);
        let keys: Vec<(i64, &str)> = found.keys().map(|(host, s)| (host.as_i64(), s.as_str())).collect();
        assert_eq!(keys, [(1, "disk"), (1, "ping"), (2, "disk"), (3, "ping")]);
        assert_eq!(seconds(&found, 1, "disk", Condition::Ok), 3);
        assert_eq!(seconds(&found, 1, "disk", Condition::HostDown), 6);
        assert_eq!(seconds(&found, 2, "disk", Condition::Critical), 5);
        assert_eq!(seconds(&found, 2, "disk", Condition::HostDown), 0);
        assert_eq!(found[&(host(1), "ping".to_owned())].maintenance.total(), 7_000);
    }
}

use proptest::prelude::*;

use super::*;

/// The longest time of a test, in seconds.
const LONG: i64 = 40;

/// Begin and end in seconds, and the value.
type Intervals<T> = Vec<(i64, Option<i64>, T)>;

#[derive(Clone, Debug, Default)]
struct History {
    stopped: Intervals<()>,
    uplink_lost: Intervals<()>,
    hosts: Intervals<HostStatus>,
    unreachable: Intervals<()>,
    host_maintenance: Intervals<()>,
    services: Intervals<Status>,
    maintenance: Intervals<()>,
}

fn at(seconds: i64) -> Wall {
    Wall::from_millis(seconds * 1_000)
}

fn period(from: i64, until: i64) -> Period {
    Period::new(at(from), at(until)).expect("it ends after its begin")
}

fn series<T: Copy>(intervals: &Intervals<T>) -> Series<T> {
    Series::new(intervals.iter().map(|(from, until, value)| (at(*from), until.map(at), *value)))
}

impl History {
    fn gateway(&self) -> GatewaySeries {
        GatewaySeries { stopped: series(&self.stopped), uplink_lost: series(&self.uplink_lost) }
    }

    fn host(&self) -> HostSeries {
        HostSeries {
            states: series(&self.hosts),
            unreachable: series(&self.unreachable),
            maintenance: series(&self.host_maintenance),
        }
    }

    fn service(&self) -> ServiceSeries {
        ServiceSeries { states: series(&self.services), maintenance: series(&self.maintenance) }
    }

    fn of_host(&self, period: Period) -> Sums {
        of_host(&self.gateway(), &self.host(), period)
    }

    fn of_service(&self, period: Period) -> Sums {
        of_service(&self.gateway(), &self.host(), &self.service(), period)
    }
}

/// The naive model: the value in one second.
fn value<T: Copy>(intervals: &Intervals<T>, second: i64) -> Option<T> {
    let has_time = |(from, until, _): &&(i64, Option<i64>, T)| until.is_none_or(|until| *from < until);
    let begun = intervals.iter().filter(has_time).filter(|(from, ..)| *from <= second);
    let (_, until, value) = begun.max_by_key(|(from, ..)| *from)?;
    until.is_none_or(|until| second < until).then_some(*value)
}

fn hidden(history: &History, second: i64) -> Option<Condition> {
    let holds = |intervals| value(intervals, second).is_some();
    if holds(&history.stopped) {
        Some(Condition::GatewayStopped)
    } else if holds(&history.uplink_lost) {
        Some(Condition::UplinkLost)
    } else {
        holds(&history.unreachable).then_some(Condition::Unreachable)
    }
}

fn host_condition(history: &History, second: i64) -> Condition {
    let state = match value(&history.hosts, second) {
        Some(HostStatus::Up) => Condition::Up,
        Some(HostStatus::Down) => Condition::Down,
        _ => Condition::NoData,
    };
    hidden(history, second).unwrap_or(state)
}

fn service_condition(history: &History, second: i64) -> Condition {
    let state = match value(&history.services, second) {
        Some(Status::Ok) => Condition::Ok,
        Some(Status::Warning) => Condition::Warning,
        Some(Status::Critical) => Condition::Critical,
        Some(Status::Unknown) => Condition::Unknown,
        None => Condition::NoData,
    };
    match (hidden(history, second), value(&history.hosts, second)) {
        (Some(hidden), _) => hidden,
        (None, Some(HostStatus::Down)) => Condition::HostDown,
        (None, _) => state,
    }
}

/// The same sums, second by second.
fn naive(seconds: std::ops::Range<i64>, look: impl Fn(i64) -> (Condition, bool)) -> Sums {
    let mut sums = Sums::default();
    for second in seconds {
        let (condition, planned) = look(second);
        sums.add(condition, planned, 1_000);
    }
    sums
}

fn intervals<T: Clone + std::fmt::Debug + 'static>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = Intervals<T>> {
    let interval = (-5..LONG, prop::option::of(-5..LONG + 5), of);
    prop::collection::vec(interval, 0..6)
}

prop_compose! {
    fn histories()(
        stopped in intervals(Just(())),
        uplink_lost in intervals(Just(())),
        hosts in intervals(prop::sample::select(vec![HostStatus::Up, HostStatus::Down, HostStatus::Pending])),
        unreachable in intervals(Just(())),
        host_maintenance in intervals(Just(())),
        services in intervals(prop::sample::select(vec![
            Status::Ok, Status::Warning, Status::Critical, Status::Unknown,
        ])),
        maintenance in intervals(Just(())),
    ) -> History {
        History { stopped, uplink_lost, hosts, unreachable, host_maintenance, services, maintenance }
    }
}

proptest! {
    #[test]
    fn the_sums_are_those_of_each_second(history in histories(), from in 0..LONG, long in 1..LONG) {
        let (of, seconds) = (period(from, from + long), from..from + long);
        let planned = |second| value(&history.host_maintenance, second).is_some();
        let host = naive(seconds.clone(), |second| (host_condition(&history, second), planned(second)));
        prop_assert_eq!(history.of_host(of), host);
        let own = |second| planned(second) || value(&history.maintenance, second).is_some();
        let service = naive(seconds, |second| (service_condition(&history, second), own(second)));
        prop_assert_eq!(history.of_service(of), service);
        prop_assert_eq!(service.all().total(), long.unsigned_abs() * 1_000);
    }

    #[test]
    fn two_periods_add_up_to_one(history in histories(), from in 0..LONG, first in 1..LONG, second in 1..LONG) {
        let mut parts = history.of_service(period(from, from + first));
        parts += history.of_service(period(from + first, from + first + second));
        prop_assert_eq!(history.of_service(period(from, from + first + second)), parts);
    }
}

#[test]
fn time_in_which_the_state_is_not_known_does_not_count() {
    let history = History {
        hosts: vec![(10, Some(20), HostStatus::Up), (20, None, HostStatus::Down)],
        uplink_lost: vec![(22, Some(24), ())],
        stopped: vec![(24, Some(26), ())],
        unreachable: vec![(26, Some(30), ())],
        ..History::default()
    };
    let sums = history.of_host(period(0, 30)).all();
    assert_eq!((sums.known(), sums.available()), (12_000, 10_000));
    let [none, up, down] = [Condition::NoData, Condition::Up, Condition::Down].map(|of| sums.of(of));
    assert_eq!((none, up, down), (10_000, 10_000, 2_000));
    assert_eq!(sums.availability(), Some(10.0 / 12.0));
    assert_eq!(History::default().of_host(period(0, 30)).all().availability(), None);
}

#[test]
fn a_service_whose_host_is_down_is_not_available() {
    let history = History {
        hosts: vec![
            (0, Some(10), HostStatus::Up),
            (10, Some(20), HostStatus::Down),
            (20, None, HostStatus::Up),
        ],
        services: vec![(0, Some(25), Status::Ok), (25, None, Status::Warning)],
        ..History::default()
    };
    let sums = history.of_service(period(0, 30)).all();
    let [ok, warning, host_down] =
        [Condition::Ok, Condition::Warning, Condition::HostDown].map(|of| sums.of(of));
    assert_eq!((ok, warning, host_down), (15_000, 5_000, 10_000));
    assert_eq!((sums.known(), sums.available()), (30_000, 20_000));
}

#[test]
fn maintenance_of_the_host_covers_its_services() {
    let history = History {
        hosts: vec![(0, None, HostStatus::Up)],
        services: vec![(0, Some(10), Status::Ok), (10, None, Status::Critical)],
        host_maintenance: vec![(10, Some(15), ())],
        maintenance: vec![(14, Some(20), ())],
        ..History::default()
    };
    let sums = history.of_service(period(0, 40));
    assert_eq!((sums.maintenance.known(), sums.maintenance.available()), (10_000, 0));
    assert_eq!((sums.normal.known(), sums.normal.available()), (30_000, 10_000));
    assert_eq!(sums.all().availability(), Some(0.25));
    assert_eq!(history.of_host(period(0, 40)).maintenance.available(), 5_000);
}

#[test]
fn a_period_ends_after_its_begin() {
    assert_eq!(Period::new(at(5), at(5)), None);
    assert_eq!(Period::new(at(6), at(5)), None);
}

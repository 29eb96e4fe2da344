//! The plan of the demo's fleet: its devices, their checks, and their problems.
//!
//! | devices | tunnel | ping | ssh | sensor |
//! |---|---|---|---|---|
//! | 4 site gateways, 10 cameras | 14 | 14 | | |
//! | 1 camera on a metered link, checked by its tunnel alone, which costs no traffic | 1 | | | |
//! | 7 cameras with a sensor: 2 over the warning, 5 over the critical limit | 7 | | 7 | 7 |
//! | 2 cameras outside the VPN | | | 2 | |
//! | 1 rental unit, which goes away once it was UP: its host check alone | | | | |
//! | **25** | **22** | **14** | **9** | **7** |
//!
//! Services of a host that is down are stale and are counted as such. The rental unit has none, so that
//! all 52 stay current: 45 OK, 2 WARNING, 5 CRITICAL. Four devices are rented, which adds the service `rental` to each.
//! The rental unit is in preparation, so that it counts as handled.
//!
//! Plain data: it does not know how a gateway imports it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use fleetgate_engine::messages::ServiceSpec;
use fleetgate_engine::messages::{Check, Threshold, Timing};
use fleetgate_engine::monitor::profile::{self, Catalogue, CheckDefaults, Facts, ServiceOverride};
use fleetgate_probes::range::{Range, Thresholds};
use fleetgate_probes::sensors::Sensor;

/// Short, so that the page is complete within a minute and follows each change at once.
pub const TIMING: Timing = Timing {
    interval: Duration::from_secs(5),
    retry: Duration::from_secs(1),
    attempts: 3,
    timeout: Duration::from_secs(4),
};
/// Shorter than the interval: each check of a tunnel finds a newer packet.
pub const KEEPALIVE: Duration = Duration::from_secs(2);
/// The account that the gateway logs in with.
pub const SSH_USER: &str = "watch";
/// SSH port inside the tunnels. Public devices listen on a high port, because an ordinary user runs
/// them.
pub const SSH_PORT: u16 = 22;
/// Port on the addresses of public devices, if it is free.
pub const PUBLIC_SSH_PORT: u16 = 42_022;
/// The unit that is being reconfigured.
pub const RENTAL: &str = "rental-03";
/// The devices that customers rent. The cameras among them serve pictures to renters.
pub const RENTABLE: [&str; 4] = ["cam-10", "cam-13", "cam-16", RENTAL];

/// One device to be enrolled.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedDevice {
    pub name: &'static str,
    pub labels: BTreeMap<String, String>,
    pub profile: &'static str,
    /// The address of a device outside the VPN; `None` behind a tunnel.
    pub public: Option<Ipv4Addr>,
    pub ssh_user: Option<&'static str>,
    /// Sensor values at the start that differ from those of a healthy device.
    pub sensors: Vec<(&'static str, f64)>,
    /// Overrides that reduce the profile to the planned services.
    pub overrides: Vec<ServiceOverride>,
}

#[derive(Clone, Copy)]
enum Watched {
    HostOnly,
    TunnelOnly,
    Ping,
    Sensor(SensorPlan),
    Public(Ipv4Addr),
}

/// A sensor with its value and limits.
#[derive(Clone, Copy)]
struct SensorPlan {
    service: &'static str,
    kind: &'static str,
    argument: Option<&'static str>,
    metric: &'static str,
    value: f64,
    warn: &'static str,
    crit: &'static str,
}

const fn temperature(value: f64) -> Watched {
    Watched::Sensor(SensorPlan {
        service: "temperature",
        kind: "temperature",
        argument: None,
        metric: "temperature",
        value,
        warn: "-20:60",
        crit: "-30:70",
    })
}

const fn disk(value: f64) -> Watched {
    Watched::Sensor(SensorPlan {
        service: "disk",
        kind: "disk",
        argument: Some("/"),
        metric: "used",
        value,
        warn: "80",
        crit: "95",
    })
}

const fn memory(value: f64) -> Watched {
    Watched::Sensor(SensorPlan {
        service: "memory",
        kind: "memory",
        argument: None,
        metric: "used",
        value,
        warn: "80",
        crit: "95",
    })
}

/// A picture is due each minute; none for 3 minutes is late, none for 15 is an error.
const fn pictures(value: f64) -> Watched {
    Watched::Sensor(SensorPlan {
        service: "pictures",
        kind: "file_age",
        argument: Some("/var/lib/camera/pictures"),
        metric: "age",
        value,
        warn: "180",
        crit: "900",
    })
}

const fn public(last: u8) -> Watched {
    Watched::Public(Ipv4Addr::new(127, 0, 0, last))
}

/// Name, site, kind, uplink, and checks.
type Row = (&'static str, &'static str, &'static str, &'static str, Watched);

const FLEET: [Row; 25] = [
    ("cam-01", "harbour", "camera", "dsl", Watched::Ping),
    ("cam-02", "harbour", "camera", "dsl", temperature(71.5)),
    ("cam-03", "harbour", "camera", "dsl", Watched::Ping),
    ("cam-04", "harbour", "camera", "dsl", disk(87.0)),
    ("cam-05", "quarry", "camera", "lte", disk(97.0)),
    ("cam-06", "quarry", "camera", "lte", Watched::Ping),
    ("cam-07", "quarry", "camera", "lte", Watched::Ping),
    ("cam-08", "quarry", "camera", "lte", Watched::Ping),
    ("cam-09", "bridge-north", "camera", "dsl", pictures(2400.0)),
    ("cam-10", "bridge-north", "camera", "dsl", Watched::Ping),
    ("cam-11", "bridge-north", "camera", "dsl", temperature(63.0)),
    ("cam-12", "bridge-south", "camera", "dsl", temperature(78.0)),
    ("cam-13", "bridge-south", "camera", "dsl", Watched::Ping),
    ("cam-14", "stadium", "camera", "dsl", Watched::Ping),
    ("cam-15", "stadium", "camera", "dsl", memory(98.0)),
    ("cam-16", "stadium", "camera", "dsl", Watched::Ping),
    ("cam-17", "wind-farm", "camera", "lte", Watched::TunnelOnly),
    ("cam-18", "wind-farm", "camera", "lte", Watched::Ping),
    ("cam-19", "city-hall", "camera", "public", public(2)),
    ("cam-20", "museum", "camera", "public", public(3)),
    ("gw-bridge", "bridge-north", "gateway", "dsl", Watched::Ping),
    ("gw-harbour", "harbour", "gateway", "dsl", Watched::Ping),
    ("gw-quarry", "quarry", "gateway", "lte", Watched::Ping),
    ("gw-stadium", "stadium", "gateway", "dsl", Watched::Ping),
    (RENTAL, "workshop", "rental", "lte", Watched::HostOnly),
];

/// Returns the 25 devices.
pub fn plan() -> Vec<PlannedDevice> {
    FLEET.iter().map(planned).collect()
}

fn planned(&(name, site, kind, uplink, watched): &Row) -> PlannedDevice {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    PlannedDevice {
        name,
        labels: [label("site", site), label("kind", kind), label("uplink", uplink)].into(),
        profile: profile::DEFAULT,
        public: match watched {
            Watched::Public(address) => Some(address),
            _ => None,
        },
        ssh_user: watched.facts().login.then_some(SSH_USER),
        sensors: match watched {
            Watched::Sensor(sensor) => vec![(sensor.kind, sensor.value)],
            _ => Vec::new(),
        },
        overrides: watched.overrides(),
    }
}

impl PlannedDevice {
    pub fn facts(&self) -> Facts {
        let direct = self.public.is_some();
        Facts { tunnel: !direct, login: self.ssh_user.is_some(), direct, ..Facts::default() }
    }
}

impl Watched {
    fn facts(self) -> Facts {
        match self {
            Watched::HostOnly | Watched::TunnelOnly | Watched::Ping => {
                Facts { tunnel: true, ..Facts::default() }
            }
            Watched::Sensor(_) => Facts { tunnel: true, login: true, ..Facts::default() },
            Watched::Public(_) => Facts { login: true, direct: true, ..Facts::default() },
        }
    }

    fn services(self) -> Vec<&'static str> {
        match self {
            Watched::HostOnly => Vec::new(),
            Watched::TunnelOnly => vec!["tunnel"],
            Watched::Ping => vec!["tunnel", "ping"],
            Watched::Sensor(sensor) => vec!["tunnel", "ssh", sensor.service],
            Watched::Public(_) => vec!["ssh"],
        }
    }

    /// Disables the services of the profile that are not planned, and adds missing ones.
    fn overrides(self) -> Vec<ServiceOverride> {
        let brought = folded(profile::DEFAULT, self.facts(), &[]);
        let wanted = self.services();
        let surplus = brought.into_iter().filter(|s| !wanted.contains(&s.name.as_str()));
        let off = |name| ServiceOverride { service: name, disabled: true, ..ServiceOverride::default() };
        let mut overrides: Vec<_> = surplus.map(|s| off(s.name)).collect();
        overrides.extend(wanted.into_iter().filter_map(|service| self.differs(service)));
        overrides
    }

    fn differs(self, service: &str) -> Option<ServiceOverride> {
        match self {
            Watched::Sensor(sensor) if sensor.service == service => Some(sensor.service()),
            _ => None,
        }
    }
}

/// Returns the services of a built-in profile at the demo's intervals.
fn folded(profile: &str, facts: Facts, overrides: &[ServiceOverride]) -> Vec<ServiceSpec> {
    let built_in = Catalogue::new(Vec::new(), Vec::new()).expect("they fit together");
    let pace = CheckDefaults { timing: TIMING, ping: TIMING.interval };
    built_in.fold(&[profile], facts, pace, overrides).expect("a built-in profile")
}

impl SensorPlan {
    fn service(self) -> ServiceOverride {
        let sensor = Sensor::from_parts(self.kind, self.argument).expect("a sensor of ours");
        let limits = Thresholds { warn: Some(range(self.warn)), crit: Some(range(self.crit)) };
        ServiceOverride {
            service: self.service.to_owned(),
            check: Some(Check::Sensor(sensor)),
            thresholds: Some(vec![Threshold { metric: self.metric.to_owned(), limits }]),
            ..ServiceOverride::default()
        }
    }
}

fn range(text: &str) -> Range {
    text.parse().expect("a range of ours")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::demo::past::world::World;
    use crate::demo::sensors::Sensors;
    use fleetgate_probes::sample::Status;
    use fleetgate_probes::sensors::{judge, parse, script};

    fn services(device: &PlannedDevice) -> Vec<ServiceSpec> {
        folded(device.profile, device.facts(), &device.overrides)
    }

    #[test]
    fn the_allocation_comes_out() {
        let plan = plan();
        let all: Vec<_> = plan.iter().flat_map(services).collect();
        let count = |name| all.iter().filter(|s| s.name == name).count();
        assert_eq!((plan.len(), all.len()), (25, 52));
        assert_eq!((count("tunnel"), count("ping"), count("ssh")), (22, 14, 9));
        assert!(plan.iter().filter(|d| d.name == RENTAL).all(|d| services(d).is_empty()));
        assert_eq!(plan.iter().filter(|d| d.public.is_some()).count(), 2);
        assert!(all.iter().all(|s| s.timing == TIMING), "everything is checked at the demo's pace");
    }

    #[test]
    fn two_sensors_are_over_the_warning_and_five_over_the_critical_limit() {
        let mut statuses = Vec::new();
        let world = Arc::new(World::new(crate::clock::wall()));
        for device in plan() {
            let sensors = Sensors::of(Arc::clone(&world), device.name);
            for service in services(&device) {
                let Check::Sensor(sensor) = &service.check else { continue };
                let asked = script(&[("it".to_owned(), sensor.clone())], TIMING.timeout);
                let answer = sensors.answer(&asked).expect("a request");
                let reading = &parse(answer.as_bytes()).expect("an answer")[0].1;
                let limits: Vec<_> = service.thresholds.into_iter().map(|t| (t.metric, t.limits)).collect();
                statuses.push(judge(sensor, reading, jiff::Timestamp::UNIX_EPOCH, &limits).status);
            }
        }
        let count = |status| statuses.iter().filter(|s| **s == status).count();
        assert_eq!((count(Status::Warning), count(Status::Critical)), (2, 5));
        assert_eq!(statuses.len(), 7);
    }

    #[test]
    fn names_differ_and_the_one_of_the_manual_is_there() {
        let plan = plan();
        let names: std::collections::BTreeSet<_> = plan.iter().map(|d| d.name).collect();
        assert_eq!(names.len(), 25);
        assert!(names.contains("cam-07") && RENTABLE.iter().all(|name| names.contains(name)));
    }
}

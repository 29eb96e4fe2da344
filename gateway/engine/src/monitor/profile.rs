//! Profiles: named sets of services, folded with a host's sparse differences into what is checked.
//!
//! The built-in ones are read-only. Knows what a host has (a tunnel, a login, a public address),
//! not how it is or when it is checked.

use std::time::Duration;

use fleetgate_probes::sensors::Sensor;

use crate::wire::{Alerting, Check, Flapping, Kinds, Notify, ServiceSpec, States, Threshold, Timing};

/// `ping` always sends, so that it is asked more rarely than what evidence answers for free.
pub const PING_INTERVAL: Duration = Duration::from_secs(300);
/// Echo requests per `ping`: loss in thirds, and one lost packet on a mobile link is no outage.
pub const PING_COUNT: u8 = 3;
/// The profile of a host that names no other.
pub const DEFAULT: &str = "default";

/// What a host has; services that need more are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its route goes through a tunnel.
    pub tunnel: bool,
    /// That tunnel is the one of the device it stands behind.
    pub behind: bool,
    /// A user to log in as.
    pub login: bool,
    /// An address on the Internet.
    pub direct: bool,
}

/// A set of services under a name.
#[derive(Debug)]
pub struct Profile {
    pub name: &'static str,
    pub summary: &'static str,
    pub services: Vec<ProfileService>,
}

#[derive(Debug)]
pub struct ProfileService {
    pub name: &'static str,
    pub check: Check,
    /// Where it differs from the host's.
    pub interval: Option<Duration>,
    needs: Need,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    OwnTunnel,
    Tunnel,
    /// A login, or no other way to a host than SSH: then its host key is there to be confirmed.
    Ssh,
    Login,
}

impl Need {
    fn met(self, facts: Facts) -> bool {
        match self {
            Need::OwnTunnel => facts.tunnel && !facts.behind,
            Need::Tunnel => facts.tunnel,
            Need::Ssh => facts.login || facts.direct && !facts.tunnel,
            Need::Login => facts.login,
        }
    }
}

/// How one host differs from its profile in one service. Absent: as the profile has it. With a
/// `check` it may name a service that the profile lacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceOverride {
    pub service: String,
    pub disabled: bool,
    pub check: Option<Check>,
    pub interval: Option<Duration>,
    pub retry: Option<Duration>,
    pub timeout: Option<Duration>,
    pub attempts: Option<u32>,
    pub thresholds: Option<Vec<Threshold>>,
    pub freshness: Option<Duration>,
    pub alerting: AlertingChange,
}

/// How an object differs from the usual in what it tells. Absent: as usual.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertingChange {
    pub volatile: Option<bool>,
    pub flapping_enabled: Option<bool>,
    pub flapping_low: Option<f64>,
    pub flapping_high: Option<f64>,
    /// Zero: a problem is told once.
    pub notify_interval: Option<Duration>,
    pub notify_delay: Option<Duration>,
    pub notify_states: Option<States>,
    pub notify_kinds: Option<Kinds>,
}

impl AlertingChange {
    pub fn over(&self, usual: Alerting) -> Alerting {
        let Alerting { volatile, flapping, notify } = usual;
        Alerting {
            volatile: self.volatile.unwrap_or(volatile),
            flapping: Flapping {
                enabled: self.flapping_enabled.unwrap_or(flapping.enabled),
                low: self.flapping_low.unwrap_or(flapping.low),
                high: self.flapping_high.unwrap_or(flapping.high),
            },
            notify: Notify {
                interval: self.notify_interval.or(notify.interval).filter(|i| !i.is_zero()),
                delay: self.notify_delay.unwrap_or(notify.delay),
                states: self.notify_states.unwrap_or(notify.states),
                kinds: self.notify_kinds.unwrap_or(notify.kinds),
            },
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no profile is called {0:?}; `fleetgate host show` lists a host's services")]
pub struct UnknownProfile(pub String);

/// The profiles that come with the program.
pub fn builtin() -> &'static [Profile] {
    static PROFILES: std::sync::LazyLock<Vec<Profile>> = std::sync::LazyLock::new(|| {
        vec![Profile {
            name: DEFAULT,
            summary: "tunnel and ping; with a login also ssh, disk, load, memory and uptime",
            services: default_services(),
        }]
    });
    &PROFILES
}

fn default_services() -> Vec<ProfileService> {
    let every = |name, needs, check| ProfileService { name, check, interval: None, needs };
    let root = Sensor::Disk { path: "/".into() };
    vec![
        every("tunnel", Need::OwnTunnel, Check::Tunnel),
        ProfileService {
            interval: Some(PING_INTERVAL),
            ..every("ping", Need::Tunnel, Check::Ping { count: PING_COUNT })
        },
        every("ssh", Need::Ssh, Check::Ssh),
        every("disk", Need::Login, Check::Sensor(root)),
        every("load", Need::Login, Check::Sensor(Sensor::Load)),
        every("memory", Need::Login, Check::Sensor(Sensor::Memory)),
        every("uptime", Need::Login, Check::Sensor(Sensor::Uptime)),
    ]
}

/// The services of a host: its profile's as far as the facts allow, changed and completed by its
/// overrides. An override of a service that is in neither and brings no check says nothing.
///
/// # Errors
/// When no profile has that name.
pub fn fold(
    profile: &str,
    facts: Facts,
    host: Timing,
    overrides: &[ServiceOverride],
) -> Result<Vec<ServiceSpec>, UnknownProfile> {
    let profile =
        builtin().iter().find(|p| p.name == profile).ok_or_else(|| UnknownProfile(profile.to_owned()))?;
    let mut services: Vec<ServiceSpec> =
        profile.services.iter().filter(|s| s.needs.met(facts)).map(|s| s.spec(host)).collect();
    for change in overrides {
        apply(change, host, &mut services);
    }
    Ok(services)
}

impl ProfileService {
    /// A service is never checked more often than its host.
    fn spec(&self, host: Timing) -> ServiceSpec {
        let interval = self.interval.map_or(host.interval, |i| i.max(host.interval));
        ServiceSpec {
            name: self.name.to_owned(),
            check: self.check.clone(),
            timing: Timing { interval, ..host },
            thresholds: Vec::new(),
            freshness: None,
            alerting: Alerting::default(),
        }
    }
}

fn apply(change: &ServiceOverride, host: Timing, services: &mut Vec<ServiceSpec>) {
    let at = services.iter().position(|s| s.name == change.service);
    match (at, &change.check) {
        (Some(at), _) if change.disabled => drop(services.remove(at)),
        (Some(at), _) => differ(change, &mut services[at]),
        (None, Some(check)) if !change.disabled => {
            let mut added = ServiceSpec {
                name: change.service.clone(),
                check: check.clone(),
                timing: host,
                thresholds: Vec::new(),
                freshness: None,
                alerting: Alerting::default(),
            };
            differ(change, &mut added);
            services.push(added);
        }
        (None, _) => {}
    }
}

fn differ(change: &ServiceOverride, service: &mut ServiceSpec) {
    let timing = service.timing;
    service.timing = Timing {
        interval: change.interval.unwrap_or(timing.interval),
        retry: change.retry.unwrap_or(timing.retry),
        attempts: change.attempts.unwrap_or(timing.attempts),
        timeout: change.timeout.unwrap_or(timing.timeout),
    };
    if let Some(check) = &change.check {
        service.check = check.clone();
    }
    if let Some(thresholds) = &change.thresholds {
        service.thresholds.clone_from(thresholds);
    }
    service.freshness = change.freshness.or(service.freshness);
    service.alerting = change.alerting.over(service.alerting);
}

#[cfg(test)]
mod tests {
    use super::*;

    const VPN: Facts = Facts { tunnel: true, behind: false, login: false, direct: false };

    fn names(facts: Facts, overrides: &[ServiceOverride]) -> Vec<String> {
        let services = fold(DEFAULT, facts, Timing::DEFAULT, overrides).unwrap();
        services.into_iter().map(|s| s.name).collect()
    }

    fn change(service: &str) -> ServiceOverride {
        ServiceOverride { service: service.into(), ..ServiceOverride::default() }
    }

    #[test]
    fn the_default_profile_grows_with_what_a_host_has() {
        assert_eq!(names(VPN, &[]), ["tunnel", "ping"]);
        let with_login = Facts { login: true, ..VPN };
        let all = ["tunnel", "ping", "ssh", "disk", "load", "memory", "uptime"];
        assert_eq!(names(with_login, &[]), all);
        let behind = Facts { behind: true, ..VPN };
        assert_eq!(names(behind, &[]), ["ping"]);
        let outside = Facts { login: true, direct: true, ..Facts::default() };
        assert_eq!(names(outside, &[]), all[2..]);
        assert_eq!(names(Facts { direct: true, ..Facts::default() }, &[]), ["ssh"]);
        assert_eq!(names(Facts::default(), &[]), Vec::<String>::new());
    }

    #[test]
    fn an_override_switches_off_and_adds() {
        let off = ServiceOverride { disabled: true, ..change("ping") };
        let sensor = Check::Sensor(Sensor::Temperature { name: None });
        let add = ServiceOverride { check: Some(sensor), ..change("temperature") };
        let nothing = change("no-such-service");
        assert_eq!(names(VPN, &[off, add, nothing]), ["tunnel", "temperature"]);
    }

    #[test]
    fn an_override_changes_only_what_it_names() {
        let fast = ServiceOverride { interval: Some(Duration::from_secs(5)), ..change("ping") };
        let services = fold(DEFAULT, VPN, Timing::DEFAULT, &[fast]).unwrap();
        let expected = Timing { interval: Duration::from_secs(5), ..Timing::DEFAULT };
        assert_eq!((&services[1].check, services[1].timing), (&Check::Ping { count: PING_COUNT }, expected));
    }

    #[test]
    fn a_service_of_a_profile_is_not_checked_more_often_than_its_host() {
        let slow = Timing { interval: Duration::from_secs(3600), ..Timing::DEFAULT };
        let services = fold(DEFAULT, VPN, slow, &[]).unwrap();
        assert!(services.iter().all(|s| s.timing.interval == slow.interval));
    }

    #[test]
    fn an_unknown_profile_is_an_error_that_names_it() {
        let error = fold("toaster", VPN, Timing::DEFAULT, &[]).unwrap_err();
        assert!(error.to_string().contains("toaster"));
    }
}

//! The conditions that keep a rented device from being handed over, by the results of its checks.
//!
//! The monitor decides with it, and the API shows the same of the stored states.

use fleetgate_probes::sample::Status;

use crate::messages::{GateRule, HostStatus};
use crate::time::Wall;

/// The state of a device, as its checks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceSeen {
    pub status: HostStatus,
    pub is_reachable: bool,
    /// Its last result is recent, and it does not sleep.
    pub is_current: bool,
    /// Since when it has the status.
    pub since: Wall,
}

impl DeviceSeen {
    /// Whether it is up, and was so lately.
    pub fn is_up(&self) -> bool {
        device_failure(self).is_none()
    }
}

/// The state of a service, as its checks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceSeen<'a> {
    pub name: &'a str,
    /// `None`: it has no result.
    pub status: Option<Status>,
    pub is_current: bool,
    /// Since when it has the status.
    pub since: Wall,
}

/// Something that is not as the gate wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `None`: the device itself.
    pub service: Option<String>,
    /// A name of [`Failure::STATES`].
    pub state: &'static str,
    /// `None`: it was never otherwise.
    pub since: Option<Wall>,
}

impl Failure {
    /// Not current, that is, and not known.
    pub const STALE: &'static str = "stale";
    /// The device has no such service.
    pub const MISSING: &'static str = "missing";
    pub const STATES: [&'static str; 8] = [
        "pending",
        "down",
        "unreachable",
        Failure::STALE,
        "warning",
        "critical",
        "unknown",
        Failure::MISSING,
    ];
}

/// Returns what is not as the gate wants it: a device that is not up, or else each service that is not OK. One without
/// a result is not OK, and one whose result is outdated is not known to be.
pub fn failures(rule: &GateRule, device: Option<&DeviceSeen>, services: &[ServiceSeen<'_>]) -> Vec<Failure> {
    let Some(device) = device else {
        return vec![Failure { service: None, state: HostStatus::Pending.name(), since: None }];
    };
    if let Some(state) = device_failure(device) {
        let since = (device.status != HostStatus::Pending).then_some(device.since);
        return vec![Failure { service: None, state, since }];
    }
    let concerned = services.iter().filter(|service| rule.concerns(service.name));
    let failing = concerned.filter_map(service_failure);
    let is_missing = |name: &&String| services.iter().all(|service| service.name != name.as_str());
    let missing = rule.services.iter().flatten().filter(is_missing).map(|name| Failure {
        service: Some(name.clone()),
        state: Failure::MISSING,
        since: None,
    });
    failing.chain(missing).collect()
}

fn device_failure(device: &DeviceSeen) -> Option<&'static str> {
    match device.status {
        HostStatus::Up if !device.is_reachable => Some("unreachable"),
        HostStatus::Up if !device.is_current => Some(Failure::STALE),
        HostStatus::Up => None,
        status => Some(status.name()),
    }
}

fn service_failure(service: &ServiceSeen<'_>) -> Option<Failure> {
    let failure = |state, since| Some(Failure { service: Some(service.name.to_owned()), state, since });
    match service.status {
        None => failure("pending", None),
        Some(Status::Ok) if service.is_current => None,
        Some(Status::Ok) => failure(Failure::STALE, None),
        Some(status) => failure(status.name(), Some(service.since)),
    }
}

/// Returns since when the device is up and the services that the gate wants are OK, if they all are.
pub fn good_since(rule: &GateRule, device: &DeviceSeen, services: &[ServiceSeen<'_>]) -> Wall {
    let concerned = services.iter().filter(|service| rule.concerns(service.name));
    concerned.map(|service| service.since).fold(device.since, Wall::max)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1_000)
    }

    const UP: DeviceSeen = DeviceSeen {
        status: HostStatus::Up,
        is_reachable: true,
        is_current: true,
        since: Wall::from_millis(5_000),
    };

    fn service(name: &str, status: Option<Status>) -> ServiceSeen<'_> {
        ServiceSeen { name, status, is_current: true, since: at(7) }
    }

    fn rule(services: Option<&[&str]>) -> GateRule {
        let services = services.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        GateRule { services, ok_for: Duration::ZERO }
    }

    fn words(rule: &GateRule, device: Option<&DeviceSeen>, services: &[ServiceSeen<'_>]) -> Vec<String> {
        let found = failures(rule, device, services);
        assert!(found.iter().all(|failure| Failure::STATES.contains(&failure.state)), "{found:?}");
        let name = |failure: &Failure| failure.service.clone().unwrap_or_else(|| "-".to_owned());
        found.iter().map(|failure| format!("{} {}", name(failure), failure.state)).collect()
    }

    #[test]
    fn every_service_must_have_a_result_that_is_ok_and_recent() {
        let old = ServiceSeen { is_current: false, ..service("disk", Some(Status::Ok)) };
        let services = [
            service("ping", Some(Status::Ok)),
            service("ssh", Some(Status::Critical)),
            service("load", Some(Status::Warning)),
            service("job", None),
            old,
        ];
        let all = ["ssh critical", "load warning", "job pending", "disk stale"];
        assert_eq!(words(&rule(None), Some(&UP), &services), all);
        assert_eq!(words(&rule(Some(&["ping"])), Some(&UP), &services), [""; 0]);
        let named = ["ssh critical", "web missing"];
        assert_eq!(words(&rule(Some(&["ping", "ssh", "web"])), Some(&UP), &services), named);
        assert_eq!(good_since(&rule(Some(&["ping"])), &UP, &services), at(7));
        assert_eq!(good_since(&rule(Some(&[])), &UP, &services), at(5));
    }

    #[test]
    fn a_device_without_services_need_only_be_up() {
        assert_eq!(words(&GateRule::usual(), Some(&UP), &[]), [""; 0]);
        assert_eq!(good_since(&GateRule::usual(), &UP, &[]), at(5));
    }

    #[test]
    fn a_device_that_is_not_up_is_the_only_reason() {
        let services = [service("ssh", Some(Status::Critical))];
        let seen = |device: DeviceSeen| words(&rule(None), Some(&device), &services);
        assert_eq!(seen(DeviceSeen { status: HostStatus::Down, ..UP }), ["- down"]);
        assert_eq!(seen(DeviceSeen { status: HostStatus::Pending, ..UP }), ["- pending"]);
        assert_eq!(seen(DeviceSeen { is_reachable: false, ..UP }), ["- unreachable"]);
        assert_eq!(seen(DeviceSeen { is_current: false, ..UP }), ["- stale"]);
        assert_eq!(words(&rule(None), None, &services), ["- pending"]);
    }
}

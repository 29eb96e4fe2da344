//! Profiles: named sets of services. They inherit from each other, are chosen by label rules, and
//! are combined with the overrides of a host into its services.
//!
//! A [`Catalogue`] exists only if every name in it is known, no profile extends itself and every
//! service has a check. It knows which facilities a host has (a tunnel, a login, a public address),
//! not its state or its schedule.

mod builtin;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::messages::{
    Alerting, Check, Flapping, Kinds, Notify, RENTAL_SERVICE, ServiceSpec, States, TIMEOUT_SHARE, Threshold,
    Timing,
};
use crate::notification::Selector;
use crate::rental::terms::Terms;

pub use builtin::builtin;

/// Echo requests per `ping`: loss comes in thirds, and one lost packet on a mobile link is no
/// outage.
pub const PING_COUNT: u8 = 3;
/// The profile of a host that names none and that no rule matches.
pub const DEFAULT: &str = "default";
/// The limit of services of one host, and so of one profile: what a page can show and a minute can
/// check.
pub const MAX_SERVICES: usize = 64;
/// The limit of profiles that one extends directly; more would be hard to follow.
pub const MAX_EXTENDS: usize = 8;

/// The facilities of a host; services that need more are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether its route goes through a tunnel.
    pub tunnel: bool,
    /// Whether that tunnel belongs to the device that the host is behind.
    pub behind: bool,
    /// Whether there is a user to log in as.
    pub login: bool,
    /// Whether it has an address on the Internet.
    pub direct: bool,
}

impl Facts {
    /// Whether the host has the facilities that a check needs.
    fn allow(self, check: &Check) -> bool {
        match check {
            Check::Tunnel => self.tunnel && !self.behind,
            Check::Ping { .. } => self.tunnel,
            Check::Tcp { .. } => self.tunnel || self.direct,
            // With a login, or if SSH is the only path to the host: its host key is then there to
            // be confirmed.
            Check::Ssh => self.login || self.direct && !self.tunnel,
            Check::Sensor(_) | Check::Command { .. } => self.login,
            Check::Passive | Check::Heartbeat(_) | Check::Rental => true,
        }
    }
}

/// The timing of checks that neither a profile nor an override sets.
#[derive(Clone, Copy, Debug)]
pub struct CheckDefaults {
    pub timing: Timing,
    /// `ping` always sends, so it is rarer than checks that evidence satisfies for free.
    pub ping: Duration,
}

/// A named set of services: those it adds to its parents, and its changes to theirs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    pub name: String,
    pub summary: String,
    /// The parents in order; each overrides those before it, and the profile's own services
    /// override all of them.
    pub extends: Vec<String>,
    pub services: Vec<ServiceOverride>,
    /// How devices with this profile are rented, where it differs from the parents.
    pub rental: Terms,
}

/// Assigns a profile to the hosts that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRule {
    pub selector: Selector,
    pub profile: String,
}

/// The change of one service: by a profile to its parents, or by a host to its profile. An absent
/// field inherits. With a `check` it may add a new service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceOverride {
    pub service: String,
    pub disabled: bool,
    pub check: Option<Check>,
    pub interval: Option<Duration>,
    pub retry: Option<Duration>,
    pub timeout: Option<Duration>,
    pub attempts: Option<u32>,
    /// Thresholds by metric; an entry without limits removes the inherited ones.
    pub thresholds: Option<Vec<Threshold>>,
    pub freshness: Option<Duration>,
    pub alerting: AlertingChange,
}

/// The notification settings that differ from the default. An absent field inherits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertingChange {
    pub volatile: Option<bool>,
    pub flapping_enabled: Option<bool>,
    pub flapping_low: Option<f64>,
    pub flapping_high: Option<f64>,
    pub flapping_ignore: Option<States>,
    /// Zero: a problem is notified once.
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
                ignore: self.flapping_ignore.unwrap_or(flapping.ignore),
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

impl AlertingChange {
    /// Combines this change with the one below it; an absent field inherits.
    fn upon(&self, below: &AlertingChange) -> AlertingChange {
        AlertingChange {
            volatile: self.volatile.or(below.volatile),
            flapping_enabled: self.flapping_enabled.or(below.flapping_enabled),
            flapping_low: self.flapping_low.or(below.flapping_low),
            flapping_high: self.flapping_high.or(below.flapping_high),
            flapping_ignore: self.flapping_ignore.or(below.flapping_ignore),
            notify_interval: self.notify_interval.or(below.notify_interval),
            notify_delay: self.notify_delay.or(below.notify_delay),
            notify_states: self.notify_states.or(below.notify_states),
            notify_kinds: self.notify_kinds.or(below.notify_kinds),
        }
    }
}

/// Why profiles and rules do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCatalogue {
    #[error("no profile is called {0:?}; there are: {1}")]
    Unknown(String, String),
    #[error("profile {profile} extends {parent:?}, which there is not; there are: {known}")]
    UnknownParent { profile: String, parent: String, known: String },
    #[error("profile {0} extends itself: {1}")]
    Cycle(String, String),
    #[error("service {service} of profile {profile} has no check, and no profile it extends has one")]
    NoCheck { profile: String, service: String },
    #[error("profile {0} has more than {MAX_SERVICES} services, with those it extends")]
    TooMany(String),
}

/// All profiles, and the rules that choose among them.
#[derive(Clone, Debug)]
pub struct Catalogue {
    profiles: BTreeMap<String, Profile>,
    rules: Vec<ProfileRule>,
}

impl Catalogue {
    /// Creates a catalogue of the built-in profiles and `own`.
    ///
    /// # Errors
    /// Fails with the first profile or rule that does not fit.
    pub fn new(own: Vec<Profile>, rules: Vec<ProfileRule>) -> Result<Catalogue, BadCatalogue> {
        let all = own.into_iter().chain(builtin().iter().cloned());
        let profiles = all.map(|p| (p.name.clone(), p)).collect();
        let catalogue = Catalogue { profiles, rules };
        for name in catalogue.profiles.keys() {
            catalogue.check(name)?;
        }
        for rule in &catalogue.rules {
            catalogue.known(&rule.profile)?;
        }
        Ok(catalogue)
    }

    /// Returns the profiles, by name.
    pub fn profiles(&self) -> impl Iterator<Item = &Profile> {
        self.profiles.values()
    }

    pub fn rules(&self) -> &[ProfileRule] {
        &self.rules
    }

    /// # Errors
    /// Fails when no profile has that name; the error lists the known ones.
    pub fn known(&self, name: &str) -> Result<&Profile, BadCatalogue> {
        self.profiles.get(name).ok_or_else(|| BadCatalogue::Unknown(name.to_owned(), self.names()))
    }

    /// Returns the profiles of a host; each overrides those before it. These are the one that it
    /// names, else those of all matching rules, else [`DEFAULT`].
    pub fn of_host<'a>(&'a self, own: Option<&'a str>, labels: &BTreeMap<String, String>) -> Vec<&'a str> {
        if let Some(name) = own {
            return vec![name];
        }
        let matching = self.rules.iter().filter(|rule| rule.selector.matches(labels));
        let mut names: Vec<&str> = Vec::new();
        for name in matching.map(|rule| rule.profile.as_str()) {
            names.retain(|known| *known != name);
            names.push(name);
        }
        if names.is_empty() { vec![DEFAULT] } else { names }
    }

    /// Whether a profile is `ancestor` or extends it, directly or not.
    pub fn descends(&self, profile: &str, ancestor: &str) -> bool {
        self.lineage(&[profile]).iter().any(|p| p.name == ancestor)
    }

    /// Returns the services of profiles with everything inherited, before the facilities of a host
    /// apply.
    pub fn services(&self, profiles: &[&str]) -> Vec<ServiceOverride> {
        let mut services: Vec<ServiceOverride> = Vec::new();
        for change in self.lineage(profiles).iter().flat_map(|p| &p.services) {
            match services.iter_mut().find(|s| s.service == change.service) {
                Some(below) => *below = change.upon(below),
                None => services.push(change.clone()),
            }
        }
        services
    }

    /// Returns how devices with these profiles are rented, with everything inherited.
    pub fn rental(&self, profiles: &[&str]) -> Terms {
        self.lineage(profiles).iter().fold(Terms::default(), |below, profile| profile.rental.upon(&below))
    }

    /// Whether profiles contain a service, even one that not every host can have.
    pub fn offers(&self, profiles: &[&str], service: &str) -> bool {
        self.services(profiles).iter().any(|s| s.service == service && s.check.is_some())
    }

    /// Returns the services of a host: those of its profiles that its facilities allow, changed and
    /// completed by its overrides. An override without a check is ignored if its service is not
    /// among them.
    ///
    /// # Errors
    /// Fails when one of the profiles does not exist.
    pub fn fold(
        &self,
        profiles: &[&str],
        facts: Facts,
        pace: CheckDefaults,
        overrides: &[ServiceOverride],
    ) -> Result<Vec<ServiceSpec>, BadCatalogue> {
        for name in profiles {
            self.known(name)?;
        }
        let offered = self.services(profiles);
        let mut services: Vec<ServiceSpec> = offered.iter().filter_map(|s| s.offered(facts, pace)).collect();
        for change in overrides {
            apply(change, pace.timing, &mut services);
        }
        Ok(services)
    }

    /// Returns the ancestors before the descendants, each once.
    fn lineage(&self, profiles: &[&str]) -> Vec<&Profile> {
        let mut line: Vec<&Profile> = Vec::new();
        for profile in profiles.iter().filter_map(|name| self.profiles.get(*name)) {
            self.descend(profile, &mut line);
        }
        line
    }

    fn descend<'a>(&'a self, profile: &'a Profile, line: &mut Vec<&'a Profile>) {
        if line.iter().any(|known| known.name == profile.name) {
            return;
        }
        for parent in profile.extends.iter().filter_map(|name| self.profiles.get(name)) {
            self.descend(parent, line);
        }
        line.push(profile);
    }

    fn check(&self, name: &str) -> Result<(), BadCatalogue> {
        self.walk(name, &mut Vec::new(), &mut Vec::new())?;
        let services = self.services(&[name]);
        if services.len() > MAX_SERVICES {
            return Err(BadCatalogue::TooMany(name.to_owned()));
        }
        match services.into_iter().find(|s| s.check.is_none() && !s.disabled) {
            Some(s) => Err(BadCatalogue::NoCheck { profile: name.to_owned(), service: s.service }),
            None => Ok(()),
        }
    }

    /// Refuses a cycle.
    fn walk<'a>(
        &'a self,
        name: &'a str,
        way: &mut Vec<&'a str>,
        done: &mut Vec<&'a str>,
    ) -> Result<(), BadCatalogue> {
        if let Some(at) = way.iter().position(|passed| *passed == name) {
            let circle = [&way[at..], &[name]].concat().join(" -> ");
            return Err(BadCatalogue::Cycle(name.to_owned(), circle));
        }
        if done.contains(&name) {
            return Ok(());
        }
        let Some(profile) = self.profiles.get(name) else {
            let profile = way.last().copied().unwrap_or_default().to_owned();
            return Err(BadCatalogue::UnknownParent {
                profile,
                parent: name.to_owned(),
                known: self.names(),
            });
        };
        way.push(name);
        for parent in &profile.extends {
            self.walk(parent, way, done)?;
        }
        way.pop();
        done.push(name);
        Ok(())
    }

    fn names(&self) -> String {
        self.profiles.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
    }
}

impl ServiceOverride {
    /// Combines this change with the one below it; an absent field inherits.
    fn upon(&self, below: &ServiceOverride) -> ServiceOverride {
        ServiceOverride {
            service: self.service.clone(),
            disabled: self.disabled,
            check: self.check.clone().or_else(|| below.check.clone()),
            interval: self.interval.or(below.interval),
            retry: self.retry.or(below.retry),
            timeout: self.timeout.or(below.timeout),
            attempts: self.attempts.or(below.attempts),
            thresholds: match (&self.thresholds, &below.thresholds) {
                (Some(own), Some(below)) => Some(limits_upon(own, below)),
                (own, below) => own.clone().or_else(|| below.clone()),
            },
            freshness: self.freshness.or(below.freshness),
            alerting: self.alerting.upon(&below.alerting),
        }
    }

    /// Creates the service for a host. Its interval is never shorter than that of the host, and its
    /// timeout ends before the next check, at any host interval.
    fn offered(&self, facts: Facts, pace: CheckDefaults) -> Option<ServiceSpec> {
        let check = self.check.clone().filter(|check| !self.disabled && facts.allow(check))?;
        let is_ping = matches!(check, Check::Ping { .. });
        let usual = if is_ping { pace.ping } else { pace.timing.interval };
        let interval = self.interval.unwrap_or(usual).max(pace.timing.interval);
        let mut service = bare(&self.service, check, Timing { interval, ..pace.timing });
        differ(&ServiceOverride { interval: None, ..self.clone() }, &mut service);
        service.timing.timeout = service.timing.timeout.min(interval.mul_f64(TIMEOUT_SHARE));
        Some(service)
    }
}

/// Combines thresholds by metric; own ones replace those below. An entry without limits is kept,
/// because it may still have to remove one of a lower level.
fn limits_upon(own: &[Threshold], below: &[Threshold]) -> Vec<Threshold> {
    let kept = below.iter().filter(|t| own.iter().all(|o| !replaces(&o.metric, &t.metric)));
    kept.chain(own).cloned().collect()
}

/// Whether one metric's threshold replaces another's. A limit on `used` or `free` also replaces one
/// on `fullness`, because all say how full a disk may be.
fn replaces(own: &str, below: &str) -> bool {
    own == below || below == "fullness" && matches!(own, "used" | "free")
}

fn bare(name: &str, check: Check, timing: Timing) -> ServiceSpec {
    ServiceSpec {
        name: name.to_owned(),
        timing: Timing { attempts: usual_attempts(&check).unwrap_or(timing.attempts), ..timing },
        check,
        thresholds: Vec::new(),
        usual: None,
        freshness: None,
        alerting: Alerting::default(),
    }
}

/// A failed job reports once and runs again the next day, so the first failure counts. So does what the gateway knows.
fn usual_attempts(check: &Check) -> Option<u32> {
    matches!(check, Check::Heartbeat(_) | Check::Rental).then_some(1)
}

/// Returns how many of the services of a host count for [`MAX_SERVICES`].
pub fn count(services: &[ServiceSpec]) -> usize {
    services.iter().filter(|service| service.check != Check::Rental).count()
}

/// Adds the service that shows what a rented device is in. It takes the place of another one of this name.
pub fn add_rental(services: &mut Vec<ServiceSpec>, timing: Timing) {
    services.retain(|service| service.name != RENTAL_SERVICE);
    services.push(bare(RENTAL_SERVICE, Check::Rental, timing));
}

/// Puts the thresholds of a rental that is active in place of those of a service. A service that the host does not have
/// is passed over.
pub fn limit_for_rental(services: &mut [ServiceSpec], service: &str, own: &[Threshold]) {
    if let Some(service) = services.iter_mut().find(|found| found.name == service) {
        service.usual = Some(service.thresholds.clone());
        set_limits(service, own);
    }
}

fn set_limits(service: &mut ServiceSpec, own: &[Threshold]) {
    service.thresholds = limits_upon(own, &service.thresholds);
    service.thresholds.retain(|t| !t.limits.is_unset());
}

fn apply(change: &ServiceOverride, host: Timing, services: &mut Vec<ServiceSpec>) {
    let at = services.iter().position(|s| s.name == change.service);
    match (at, &change.check) {
        (Some(at), _) if change.disabled => drop(services.remove(at)),
        (Some(at), _) => differ(change, &mut services[at]),
        (None, Some(check)) if !change.disabled => {
            let mut added = bare(&change.service, check.clone(), host);
            differ(change, &mut added);
            services.push(added);
        }
        (None, _) => {}
    }
}

fn differ(change: &ServiceOverride, service: &mut ServiceSpec) {
    let timing = service.timing;
    let usual = change.check.as_ref().and_then(usual_attempts);
    service.timing = Timing {
        interval: change.interval.unwrap_or(timing.interval),
        retry: change.retry.unwrap_or(timing.retry),
        attempts: change.attempts.or(usual).unwrap_or(timing.attempts),
        timeout: change.timeout.unwrap_or(timing.timeout),
    }
    .ending_in_time();
    if let Some(check) = &change.check {
        service.check = check.clone();
    }
    if let Some(thresholds) = &change.thresholds {
        set_limits(service, thresholds);
    }
    service.freshness = change.freshness.or(service.freshness);
    service.alerting = change.alerting.over(service.alerting);
}

//! The file that describes a fleet, read strictly. Each error has its line.
//!
//! Accepted contents can be written as they stand, as far as this is known without the gateway.
//! This module does not know the existing resources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use fleetgate_engine::monitor::profile::builtin;
use fleetgate_engine::notification::Period;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use toml::Spanned;
use toml::de::DeTable;

use super::downtime::Downtime;
use super::grant::Grant;
use super::lines::{self, Begins, Lines};
use super::plan::{Desired, ResourceKind};
use crate::api::rentals::terms_in_form;
use crate::names::{self, Labels, Name};
use crate::store::{alerting, definition};

/// An error in the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct BadFile {
    pub file: String,
    pub line: usize,
    pub what: String,
}

type Table<T> = BTreeMap<Spanned<String>, T>;
/// The fields of a service are read one by one, so that each has its line.
type Service = Table<Spanned<toml::Value>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "tables such as [devices.NAME] are expected")]
#[derive(Default)]
struct Fleet {
    profiles: Table<Profile>,
    profile_rules: Option<Vec<Spanned<Rule>>>,
    contacts: Table<Contact>,
    notification_rules: Table<NotificationRule>,
    sites: Table<Site>,
    devices: Table<Device>,
    hosts: Table<Host>,
    downtimes: Table<Downtime>,
    grants: Table<Grant>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Profile {
    summary: String,
    extends: Vec<String>,
    services: Table<Service>,
    rental: Option<Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    profile: String,
}

/// A contact. Absent fields stay as they are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contact {
    emails: Option<Vec<String>>,
    webhook_url: Option<String>,
    time_zone: Option<String>,
    digest_at: Option<String>,
    group_wait_s: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NotificationRule {
    contact: String,
    labels: Option<Spanned<BTreeMap<String, String>>>,
    severity: Option<String>,
    period: Option<Spanned<String>>,
    delay_s: Option<f64>,
}

/// A table for a host or device: its own fields, and those common to all hosts. (serde's `flatten`
/// would accept unknown fields, and no field would have its line.) Absent fields stay as they are.
macro_rules! watched {
    ($(#[$of:meta])* $name:ident { $($(#[$of_field:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$of])*
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($(#[$of_field])* $field: $type,)*
            site: Option<Spanned<String>>,
            labels: Option<Spanned<BTreeMap<String, String>>>,
            profile: Option<String>,
            ssh: Option<Ssh>,
            notes: Option<String>,
            interval_s: Option<f64>,
            retry_s: Option<f64>,
            max_check_attempts: Option<u32>,
            timeout_s: Option<f64>,
            max_silence_s: Option<f64>,
            freshness_s: Option<f64>,
            parents: Option<Vec<String>>,
            volatile: Option<bool>,
            flapping: Option<Spanned<toml::Value>>,
            notify: Option<Spanned<toml::Value>>,
            thresholds: Option<Spanned<toml::Value>>,
            #[serde(default)]
            services: Table<Service>,
        }

        impl $name {
            /// Returns the fields common to all hosts, in the API's form, except labels and
            /// parents, which also depend on the site.
            fn common(&mut self, source: &Source<'_>) -> Result<Value, BadFile> {
                Ok(json!({
                    "profile": self.profile,
                    "ssh": self.ssh.take().map(ssh),
                    "notes": self.notes,
                    "interval_s": self.interval_s,
                    "retry_s": self.retry_s,
                    "max_check_attempts": self.max_check_attempts,
                    "timeout_s": self.timeout_s,
                    "max_silence_s": self.max_silence_s,
                    "freshness_s": self.freshness_s,
                    "volatile": self.volatile,
                    "flapping": source.alerting("flapping", self.flapping.take())?,
                    "notify": source.alerting("notify", self.notify.take())?,
                    "thresholds": source.limits(self.thresholds.take())?,
                }))
            }
        }
    };
}

watched! {
    Device {
        route: Option<String>,
        direct_address: Option<String>,
        networks: Option<Vec<Spanned<String>>>,
        mtu: Option<u16>,
        /// For a new device only.
        public_key: Option<String>,
        tunnel: Option<bool>,
        budget_bytes_per_day: Option<u64>,
    }
}

watched! {
    /// Behind a device.
    Host {
        via: String,
        address: String,
    }
}

/// The common settings of the devices at a place. At the gateway, a site is a label.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    /// The device that is the parent of the others.
    router: Option<String>,
    time_zone: Option<Spanned<String>>,
    labels: Option<Spanned<BTreeMap<String, String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ssh {
    port: Option<u16>,
    user: Option<String>,
    /// For a new device only.
    host_key: Option<String>,
}

/// Ten thousand devices with every possible field take about 10 MB.
pub const MOST_BYTES: u64 = 32 * 1024 * 1024;

/// Reads the text of the file.
///
/// # Errors
/// Fails when the file cannot be read or is larger than [`MOST_BYTES`]. If it is not UTF-8, names
/// the line.
pub fn text(path: &Path) -> anyhow::Result<String> {
    let (file, mut bytes) = (path.display(), Vec::new());
    let open = File::open(path).with_context(|| file.to_string())?;
    open.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| file.to_string())?;
    anyhow::ensure!(
        bytes.len() as u64 <= MOST_BYTES,
        "{file}: larger than {} MiB: split it, each part with a name of its own (--as)",
        MOST_BYTES / 1024 / 1024
    );
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count();
        anyhow::anyhow!("{file}:{line}: this is not UTF-8 text")
    })
}

/// Returns all resources of the file in the order in which they can be created.
///
/// # Errors
/// Names the first error, with its line.
pub fn read(file: &str, text: &str) -> Result<Vec<Desired>, BadFile> {
    let source = Source { file, text, begins: Begins::of(text) };
    let fleet: Fleet = source.parse()?;
    let root = DeTable::parse(text).map_err(|e| source.unread(&e))?;
    if let Some(at) = lines::endless(root.get_ref()) {
        return Err(source.bad(at, "a number with an end is expected"));
    }
    let mut wanted = Vec::new();
    for (name, profile) in fleet.profiles {
        wanted.push(source.profile(&name, profile)?);
    }
    wanted.extend(fleet.profile_rules.map(|rules| source.rules(rules)).transpose()?);
    for (name, contact) in fleet.contacts {
        wanted.push(source.contact(&name, contact)?);
    }
    for (name, rule) in fleet.notification_rules {
        wanted.push(source.notification_rule(&name, rule)?);
    }
    let mut places = source.places(fleet.sites)?;
    for (name, device) in fleet.devices {
        source.device(&name, device, &mut places, &mut wanted)?;
    }
    for (name, host) in fleet.hosts {
        source.host(&name, host, &places, &mut wanted)?;
    }
    for (name, downtime) in fleet.downtimes {
        wanted.push(source.downtime(&name, downtime)?);
    }
    for (name, grant) in fleet.grants {
        wanted.push(source.grant(&name, grant)?);
    }
    // Profiles are already in the order of inheritance, and the sort is stable.
    wanted.sort_by_key(|w| w.kind);
    for w in &mut wanted {
        w.lines = Lines::of(root.get_ref(), &source.begins, w.kind, &w.name);
    }
    Ok(wanted)
}

pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    begins: Begins,
}

impl Source<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, BadFile> {
        toml::from_str(self.text).map_err(|error| self.unread(&error))
    }

    fn unread(&self, error: &toml::de::Error) -> BadFile {
        self.bad(error.span().map_or(0, |span| span.start), error.message())
    }

    pub(super) fn bad(&self, at: usize, what: impl Display) -> BadFile {
        BadFile { file: self.file.to_owned(), line: self.line(at), what: what.to_string() }
    }

    fn line(&self, at: usize) -> usize {
        self.begins.line(at.min(self.text.len()))
    }

    pub(super) fn wanted(&self, kind: ResourceKind, name: &Spanned<String>, fields: Value) -> Desired {
        let fields = fields.as_object().cloned().unwrap_or_default();
        let given = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        Desired::new(kind, name.get_ref().clone(), given, self.line(name.span().start))
    }

    pub(super) fn name(&self, name: &Spanned<String>) -> Result<(), BadFile> {
        Name::parse(name.get_ref()).map(drop).map_err(|e| self.bad(name.span().start, e))
    }

    pub(super) fn labels(&self, labels: Option<Spanned<BTreeMap<String, String>>>) -> Result<Value, BadFile> {
        let Some(labels) = labels else { return Ok(Value::Null) };
        let at = labels.span().start;
        let labels = Labels::parse(labels.into_inner()).map_err(|e| self.bad(at, e))?;
        Ok(json!(labels.into_map()))
    }

    fn profile(&self, name: &Spanned<String>, profile: Profile) -> Result<Desired, BadFile> {
        self.name(name)?;
        if builtin().iter().any(|own| own.name == *name.get_ref()) {
            let what = format!("{} is built in: give yours another name, and extend it", name.get_ref());
            return Err(self.bad(name.span().start, what));
        }
        let mut services = Map::new();
        for (service, fields) in profile.services {
            services.insert(service.get_ref().clone(), self.service(&service, fields)?);
        }
        let rental = self.rental(profile.rental)?;
        let fields = json!({
            "summary": profile.summary, "extends": profile.extends, "services": services, "rental": rental,
        });
        Ok(self.wanted(ResourceKind::Profile, name, fields))
    }

    /// Returns how the devices of a profile are rented, in the gateway's form.
    fn rental(&self, given: Option<Spanned<toml::Value>>) -> Result<Value, BadFile> {
        let Some(given) = given else { return Ok(Value::Null) };
        let at = given.span().start;
        let json = serde_json::to_value(given.into_inner()).map_err(|e| self.bad(at, e))?;
        terms_in_form(json).map_err(|e| self.bad(at, format!("rental: {e}")))
    }

    fn rules(&self, rules: Vec<Spanned<Rule>>) -> Result<Desired, BadFile> {
        let line = rules.first().map_or(1, |rule| self.line(rule.span().start));
        let mut list = Vec::new();
        for rule in rules {
            let at = rule.span().start;
            let Rule { labels, profile } = rule.into_inner();
            let labels = Labels::parse(labels).map_err(|e| self.bad(at, e))?;
            list.push(json!({ "labels": labels.into_map(), "profile": profile }));
        }
        let fields = Map::from_iter([("rules".to_owned(), Value::Array(list))]);
        Ok(Desired::new(ResourceKind::ProfileRules, String::new(), fields, line))
    }

    /// Returns the contact in the gateway's form.
    fn contact(&self, name: &Spanned<String>, c: Contact) -> Result<Desired, BadFile> {
        self.name(name)?;
        let mailbox = |text: &String| {
            let parsed = text.parse::<lettre::message::Mailbox>().map(|m| m.to_string());
            parsed.map_err(|_| self.bad(name.span().start, format!("{text:?} is not an e-mail address")))
        };
        let emails =
            c.emails.map(|list| list.iter().map(mailbox).collect::<Result<Vec<_>, _>>()).transpose()?;
        let fields = json!({
            "emails": emails,
            "webhook_url": c.webhook_url,
            "time_zone": c.time_zone,
            "digest_at": c.digest_at,
            "group_wait_s": c.group_wait_s,
        });
        Ok(self.wanted(ResourceKind::Contact, name, fields))
    }

    fn notification_rule(&self, name: &Spanned<String>, rule: NotificationRule) -> Result<Desired, BadFile> {
        self.name(name)?;
        let period = |text: Spanned<String>| {
            let parsed = text.get_ref().parse::<Period>().map(|p| p.to_string());
            parsed.map_err(|e| self.bad(text.span().start, e))
        };
        let fields = json!({
            "contact": rule.contact,
            "labels": self.labels(rule.labels)?,
            "severity": rule.severity,
            "period": rule.period.map(period).transpose()?,
            "delay_s": rule.delay_s,
        });
        Ok(self.wanted(ResourceKind::NotificationRule, name, fields))
    }

    fn device(
        &self,
        name: &Spanned<String>,
        mut d: Device,
        places: &mut Sites,
        into: &mut Vec<Desired>,
    ) -> Result<(), BadFile> {
        self.name(name)?;
        if let Some(address) = &d.direct_address {
            names::host_address(address).map_err(|e| self.bad(name.span().start, e))?;
        }
        let place = d.site.take().map(|site| self.place(places, &site)).transpose()?;
        let router = place.as_ref().and_then(|p| p.router.clone()).filter(|router| router != name.get_ref());
        let mut fields = d.common(self)?;
        let own = json!({
            "route": d.route,
            "direct_address": d.direct_address,
            "networks": d.networks.map(|n| self.networks(n)).transpose()?,
            "mtu": d.mtu,
            "public_key": d.public_key,
            "tunnel": d.tunnel,
            "budget_bytes_per_day": d.budget_bytes_per_day,
            "labels": self.labels_at(place.as_ref(), d.labels)?,
            "parents": parents(d.parents.or(router.map(|router| vec![router]))),
        });
        join(&mut fields, own);
        places.of_devices.extend(place.map(|place| (name.get_ref().clone(), place)));
        into.push(self.wanted(ResourceKind::Device, name, fields));
        self.services(name, d.services, into)
    }

    /// Reads a host. Without a site of its own, it belongs to that of its device.
    fn host(
        &self,
        name: &Spanned<String>,
        mut h: Host,
        places: &Sites,
        into: &mut Vec<Desired>,
    ) -> Result<(), BadFile> {
        self.name(name)?;
        let own = h.site.take().map(|site| self.place(places, &site)).transpose()?;
        let place = own.or_else(|| places.of_devices.get(&h.via).cloned());
        let mut fields = h.common(self)?;
        let labels = self.labels_at(place.as_ref(), h.labels)?;
        join(
            &mut fields,
            json!({ "via": h.via, "address": h.address, "labels": labels, "parents": parents(h.parents) }),
        );
        into.push(self.wanted(ResourceKind::Host, name, fields));
        self.services(name, h.services, into)
    }

    fn places(&self, sites: Table<Site>) -> Result<Sites, BadFile> {
        let mut places = Sites::default();
        for (name, site) in sites {
            self.name(&name)?;
            let mut labels = BTreeMap::from([("site".to_owned(), name.get_ref().clone())]);
            if let Some(zone) = site.time_zone {
                let expected = "the name of a time zone such as Europe/Vienna is expected";
                TimeZone::get(zone.get_ref()).map_err(|_| self.bad(zone.span().start, expected))?;
                labels.insert("timezone".to_owned(), zone.into_inner());
            }
            if let Some(own) = site.labels {
                let at = own.span().start;
                let own = Labels::parse(own.into_inner()).map_err(|e| self.bad(at, e))?;
                labels.extend(own.into_map());
            }
            places.sites.insert(name.into_inner(), SiteDefaults { router: site.router, labels });
        }
        Ok(places)
    }

    fn place(&self, places: &Sites, site: &Spanned<String>) -> Result<SiteDefaults, BadFile> {
        let unknown = || {
            let name = site.get_ref();
            self.bad(site.span().start, format!("no [sites.{name}] is in this file"))
        };
        places.sites.get(site.get_ref()).cloned().ok_or_else(unknown)
    }

    /// Returns the labels of the site with its own on top. Without a site, returns its own.
    fn labels_at(
        &self,
        place: Option<&SiteDefaults>,
        own: Option<Spanned<BTreeMap<String, String>>>,
    ) -> Result<Value, BadFile> {
        let own = self.labels(own)?;
        let Some(place) = place else { return Ok(own) };
        let mut labels = json!(place.labels);
        join(&mut labels, own);
        Ok(labels)
    }

    /// Returns one part of the alerting settings in the gateway's form.
    fn alerting(&self, part: &str, given: Option<Spanned<toml::Value>>) -> Result<Value, BadFile> {
        let Some(given) = given else { return Ok(Value::Null) };
        let at = given.span().start;
        let json = serde_json::to_value(given.into_inner()).map_err(|e| self.bad(at, e))?;
        let read = alerting::parse(&json!({ part: json })).and_then(alerting::of_host);
        let read = read.map_err(|e| self.bad(at, e))?;
        Ok(alerting::to_json(&read).remove(part).unwrap_or_else(|| json!({})))
    }

    /// Returns the limits in the gateway's form.
    fn limits(&self, given: Option<Spanned<toml::Value>>) -> Result<Value, BadFile> {
        let Some(given) = given else { return Ok(Value::Null) };
        let at = given.span().start;
        let json = serde_json::to_value(given.into_inner()).map_err(|e| self.bad(at, e))?;
        let read = definition::thresholds(&json).map_err(|e| self.bad(at, e))?;
        Ok(definition::thresholds_json(&read))
    }

    /// Returns the networks in the gateway's form.
    fn networks(&self, texts: Vec<Spanned<String>>) -> Result<Vec<String>, BadFile> {
        let network = |text: Spanned<String>| {
            let net: Result<ipnet::IpNet, _> = text.get_ref().parse();
            let expected = "a prefix such as 192.168.1.0/24 is expected";
            net.map(|n| n.trunc().to_string()).map_err(|_| self.bad(text.span().start, expected))
        };
        let read: Result<Vec<String>, BadFile> = texts.into_iter().map(network).collect();
        read.map(each_once)
    }

    fn services(
        &self,
        host: &Spanned<String>,
        services: Table<Service>,
        into: &mut Vec<Desired>,
    ) -> Result<(), BadFile> {
        for (service, fields) in services {
            let (line, fields) = (self.line(service.span().start), self.service(&service, fields)?);
            let name = format!("{}/{}", host.get_ref(), service.get_ref());
            let fields = fields.as_object().cloned().unwrap_or_default();
            into.push(Desired::new(ResourceKind::Service, name, fields, line));
        }
        Ok(())
    }

    /// Returns the service in the gateway's form, so that equal services have equal text.
    fn service(&self, name: &Spanned<String>, fields: Service) -> Result<Value, BadFile> {
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        let mut value = Map::new();
        for (field, given) in fields {
            lines.insert(field.get_ref().clone(), field.span().start);
            let json =
                serde_json::to_value(given.into_inner()).map_err(|e| self.bad(field.span().start, e))?;
            value.insert(field.into_inner(), json);
        }
        let read = definition::parse_new_service(name.get_ref(), &Value::Object(value));
        read.map(|change| definition::service_json(&change)).map_err(|error| {
            let field = error.field.split(['.', '[']).next().unwrap_or_default();
            let at = lines.get(field).copied().unwrap_or(name.span().start);
            self.bad(at, format!("service {}: {error}", name.get_ref()))
        })
    }
}

/// What the sites of the file set for their devices, by site and by device.
#[derive(Default)]
struct Sites {
    sites: BTreeMap<String, SiteDefaults>,
    of_devices: BTreeMap<String, SiteDefaults>,
}

#[derive(Clone)]
struct SiteDefaults {
    router: Option<String>,
    labels: BTreeMap<String, String>,
}

fn parents(names: Option<Vec<String>>) -> Option<Vec<String>> {
    names.map(each_once)
}

/// Keeps the first of equal texts, as the gateway does.
fn each_once(texts: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    texts.into_iter().filter(|text| seen.insert(text.clone())).collect()
}

fn join(into: &mut Value, more: Value) {
    if let (Some(fields), Value::Object(more)) = (into.as_object_mut(), more) {
        fields.extend(more);
    }
}

fn ssh(ssh: Ssh) -> Value {
    let Ssh { port, user, host_key } = ssh;
    super::super::device::present(json!({ "port": port, "user": user, "host_key": host_key }))
}

#[cfg(test)]
mod tests;

//! The file that says what a fleet is: read strictly, each complaint with its line.
//!
//! Promises that what is accepted can be written as it stands, as far as that can be known without the
//! gateway. Does not know what is there.

use std::collections::BTreeMap;
use std::fmt::Display;

use fleetgate_engine::notify::Period;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use toml::Spanned;

use super::downtime::Downtime;
use super::plan::{Kind, Wanted};
use crate::names::{self, Labels, Name};
use crate::store::{alerting, definition};

/// Something in the file that is not understood, or cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct BadFile {
    pub file: String,
    pub line: usize,
    pub what: String,
}

type Table<T> = BTreeMap<Spanned<String>, T>;
/// A service is read field by field, so that each has its line.
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
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Profile {
    summary: String,
    extends: Vec<String>,
    services: Table<Service>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    profile: String,
}

/// What is absent stays as it is.
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

/// A table of what is watched: its own fields, and those that every host can have. (With serde's
/// `flatten` unknown fields would pass, and nothing would know its line.) What is absent stays as it is.
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
            #[serde(default)]
            services: Table<Service>,
        }

        impl $name {
            /// What every host can have, as the API takes it; but labels and parents, which the site
            /// has a word in.
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
        /// For a device that is made.
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

/// What the devices of a place have in common; at the gateway a site is a label.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Site {
    /// The device that stands before the others.
    router: Option<String>,
    time_zone: Option<Spanned<String>>,
    labels: Option<Spanned<BTreeMap<String, String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ssh {
    port: Option<u16>,
    user: Option<String>,
    /// For a device that is made.
    host_key: Option<String>,
}

/// Everything that the file wants, in the order in which it can be made.
///
/// # Errors
/// The first thing that is not understood, with its line.
pub fn read(file: &str, text: &str) -> Result<Vec<Wanted>, BadFile> {
    let source = Source { file, text };
    let fleet: Fleet = source.parse()?;
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
    // Profiles come first among themselves in the order of inheritance; the sort is stable.
    wanted.sort_by_key(|w| w.kind);
    Ok(wanted)
}

pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, BadFile> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.bad(at, error.message())
        })
    }

    pub(super) fn bad(&self, at: usize, what: impl Display) -> BadFile {
        BadFile { file: self.file.to_owned(), line: self.line(at), what: what.to_string() }
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }

    pub(super) fn wanted(&self, kind: Kind, name: &Spanned<String>, fields: Value) -> Wanted {
        let fields = fields.as_object().cloned().unwrap_or_default();
        let given = fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        Wanted { kind, name: name.get_ref().clone(), fields: given, line: self.line(name.span().start) }
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

    fn profile(&self, name: &Spanned<String>, profile: Profile) -> Result<Wanted, BadFile> {
        self.name(name)?;
        let mut services = Map::new();
        for (service, fields) in profile.services {
            services.insert(service.get_ref().clone(), self.service(&service, fields)?);
        }
        let fields = json!({ "summary": profile.summary, "extends": profile.extends, "services": services });
        Ok(self.wanted(Kind::Profile, name, fields))
    }

    fn rules(&self, rules: Vec<Spanned<Rule>>) -> Result<Wanted, BadFile> {
        let line = rules.first().map_or(1, |rule| self.line(rule.span().start));
        let mut list = Vec::new();
        for rule in rules {
            let at = rule.span().start;
            let Rule { labels, profile } = rule.into_inner();
            let labels = Labels::parse(labels).map_err(|e| self.bad(at, e))?;
            list.push(json!({ "labels": labels.into_map(), "profile": profile }));
        }
        let fields = Map::from_iter([("rules".to_owned(), Value::Array(list))]);
        Ok(Wanted { kind: Kind::ProfileRules, name: String::new(), fields, line })
    }

    /// As the gateway writes it.
    fn contact(&self, name: &Spanned<String>, c: Contact) -> Result<Wanted, BadFile> {
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
        Ok(self.wanted(Kind::Contact, name, fields))
    }

    fn notification_rule(&self, name: &Spanned<String>, rule: NotificationRule) -> Result<Wanted, BadFile> {
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
        Ok(self.wanted(Kind::NotificationRule, name, fields))
    }

    fn device(
        &self,
        name: &Spanned<String>,
        mut d: Device,
        places: &mut Places,
        into: &mut Vec<Wanted>,
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
            "public_key": d.public_key,
            "tunnel": d.tunnel,
            "budget_bytes_per_day": d.budget_bytes_per_day,
            "labels": self.labels_at(place.as_ref(), d.labels)?,
            "parents": d.parents.or(router.map(|router| vec![router])),
        });
        join(&mut fields, own);
        places.of_devices.extend(place.map(|place| (name.get_ref().clone(), place)));
        into.push(self.wanted(Kind::Device, name, fields));
        self.services(name, d.services, into)
    }

    /// Its site is that of its device, if it names none.
    fn host(
        &self,
        name: &Spanned<String>,
        mut h: Host,
        places: &Places,
        into: &mut Vec<Wanted>,
    ) -> Result<(), BadFile> {
        self.name(name)?;
        let own = h.site.take().map(|site| self.place(places, &site)).transpose()?;
        let place = own.or_else(|| places.of_devices.get(&h.via).cloned());
        let mut fields = h.common(self)?;
        let labels = self.labels_at(place.as_ref(), h.labels)?;
        join(
            &mut fields,
            json!({ "via": h.via, "address": h.address, "labels": labels, "parents": h.parents }),
        );
        into.push(self.wanted(Kind::Host, name, fields));
        self.services(name, h.services, into)
    }

    fn places(&self, sites: Table<Site>) -> Result<Places, BadFile> {
        let mut places = Places::default();
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
            places.sites.insert(name.into_inner(), Place { router: site.router, labels });
        }
        Ok(places)
    }

    fn place(&self, places: &Places, site: &Spanned<String>) -> Result<Place, BadFile> {
        let unknown = || {
            let name = site.get_ref();
            self.bad(site.span().start, format!("no [sites.{name}] is in this file"))
        };
        places.sites.get(site.get_ref()).cloned().ok_or_else(unknown)
    }

    /// Those of its site, and its own over them; of what names no site only its own.
    fn labels_at(
        &self,
        place: Option<&Place>,
        own: Option<Spanned<BTreeMap<String, String>>>,
    ) -> Result<Value, BadFile> {
        let own = self.labels(own)?;
        let Some(place) = place else { return Ok(own) };
        let mut labels = json!(place.labels);
        join(&mut labels, own);
        Ok(labels)
    }

    /// One part of what is told, as the gateway writes it.
    fn alerting(&self, part: &str, given: Option<Spanned<toml::Value>>) -> Result<Value, BadFile> {
        let Some(given) = given else { return Ok(Value::Null) };
        let at = given.span().start;
        let json = serde_json::to_value(given.into_inner()).map_err(|e| self.bad(at, e))?;
        let read = alerting::parse(&json!({ part: json })).map_err(|e| self.bad(at, e))?;
        Ok(alerting::to_json(&read).remove(part).unwrap_or_else(|| json!({})))
    }

    /// As the gateway writes them.
    fn networks(&self, texts: Vec<Spanned<String>>) -> Result<Vec<String>, BadFile> {
        let network = |text: Spanned<String>| {
            let net: Result<ipnet::IpNet, _> = text.get_ref().parse();
            let expected = "a prefix such as 192.168.1.0/24 is expected";
            net.map(|n| n.trunc().to_string()).map_err(|_| self.bad(text.span().start, expected))
        };
        texts.into_iter().map(network).collect()
    }

    fn services(
        &self,
        host: &Spanned<String>,
        services: Table<Service>,
        into: &mut Vec<Wanted>,
    ) -> Result<(), BadFile> {
        for (service, fields) in services {
            let (line, fields) = (self.line(service.span().start), self.service(&service, fields)?);
            let name = format!("{}/{}", host.get_ref(), service.get_ref());
            let fields = fields.as_object().cloned().unwrap_or_default();
            into.push(Wanted { kind: Kind::Service, name, fields, line });
        }
        Ok(())
    }

    /// As the gateway writes it, so that equal services are equal text.
    fn service(&self, name: &Spanned<String>, fields: Service) -> Result<Value, BadFile> {
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        let mut value = Map::new();
        for (field, given) in fields {
            lines.insert(field.get_ref().clone(), field.span().start);
            let json =
                serde_json::to_value(given.into_inner()).map_err(|e| self.bad(field.span().start, e))?;
            value.insert(field.into_inner(), json);
        }
        let read = definition::parse_service(name.get_ref(), &Value::Object(value));
        read.map(|change| definition::service_json(&change)).map_err(|error| {
            let field = error.field.split(['.', '[']).next().unwrap_or_default();
            let at = lines.get(field).copied().unwrap_or(name.span().start);
            self.bad(at, format!("service {}: {error}", name.get_ref()))
        })
    }
}

/// The sites of the file, and where its devices stand.
#[derive(Default)]
struct Places {
    sites: BTreeMap<String, Place>,
    of_devices: BTreeMap<String, Place>,
}

#[derive(Clone)]
struct Place {
    router: Option<String>,
    labels: BTreeMap<String, String>,
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
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        read("fleet.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_fleet_is_read_in_the_order_in_which_it_can_be_made() {
        let text = r#"
[devices.cam-07]
labels = { site = "hill" }
networks = ["192.168.1.7/24"]
[devices.cam-07.services.disk]
thresholds = [{ metric = "used", warn = 80, crit = "90" }]

[[profile_rules]]
labels = { kind = "camera" }
profile = "lte"

[profiles.lte]
extends = ["timelapse-camera"]
"#;
        let wanted = read("fleet.toml", text).unwrap();
        let shown: Vec<_> = wanted.iter().map(|w| (w.kind, w.name.as_str(), w.line)).collect();
        let expected = [
            (Kind::Profile, "lte", 12),
            (Kind::ProfileRules, "", 8),
            (Kind::Device, "cam-07", 2),
            (Kind::Service, "cam-07/disk", 5),
        ];
        assert_eq!(shown, expected);
        assert_eq!(wanted[2].fields["networks"], json!(["192.168.1.0/24"]));
        assert_eq!(wanted[3].fields["thresholds"][0]["warn"], "80");
    }

    #[test]
    fn a_site_gives_its_devices_labels_and_a_router() {
        let text = r#"
[sites.hill]
router = "hill-router"
time_zone = "Europe/Vienna"
labels = { uplink = "lte" }

[devices.cam-07]
site = "hill"
labels = { uplink = "dsl" }
[devices.hill-router]
site = "hill"
[devices.other]
labels = { site = "sea" }
[hosts.nas-07]
via = "cam-07"
address = "192.168.1.5"
"#;
        let wanted = read("fleet.toml", text).unwrap();
        let of = |name: &str| wanted.iter().find(|w| w.name == name).unwrap().fields.clone();
        let labels = |uplink: &str| json!({ "site": "hill", "timezone": "Europe/Vienna", "uplink": uplink });
        assert_eq!(of("cam-07")["labels"], labels("dsl"));
        assert_eq!(of("cam-07")["parents"], json!(["hill-router"]));
        assert_eq!(
            (of("hill-router")["labels"].clone(), of("hill-router").get("parents")),
            (labels("lte"), None)
        );
        assert_eq!(of("nas-07")["labels"], labels("lte"));
        assert_eq!(of("other")["labels"], json!({ "site": "sea" }));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        let table = [
            ("\n[device.x]\n", "fleet.toml:2: unknown field `device`"),
            ("[devices.x]\n\nlables = {}\n", "fleet.toml:3: unknown field `lables`"),
            ("[devices.x]\nlabels = { A = \"b\" }\n", "fleet.toml:2: a label's key"),
            ("[devices.X]\n", "fleet.toml:1: a name has"),
            ("[devices.x]\nnetworks = [\n \"10.0.0.0/99\"]\n", "fleet.toml:3: a prefix"),
            ("[devices.x]\ninterval_s = \"5\"\n", "fleet.toml:2: invalid type"),
            ("[hosts.nas]\naddress = \"192.168.1.5\"\n", "fleet.toml:1: missing field `via`"),
            (
                "[profiles.p.services.ping]\ninterval_s = 5\nintervall = 5\n",
                "fleet.toml:3: service ping: intervall",
            ),
            (
                "[profiles.p.services.ping]\nthresholds = [{ metric = \"rta\", warn = \"-10\" }]\n",
                "fleet.toml:2: service ping: thresholds[0].warn: range",
            ),
            ("[devices.x]\nlabels = \n", "fleet.toml:2: "),
            ("[devices.x]\n[devices.x]\n", "fleet.toml:2: duplicate key"),
            ("[devices.x]\n\nsite = \"hill\"\n", "fleet.toml:3: no [sites.hill]"),
            ("[sites.hill]\ntime_zone = \"Mars\"\n", "fleet.toml:2: the name of a time zone"),
            ("[sites.hill]\nrouters = []\n", "fleet.toml:2: unknown field `routers`"),
            ("[devices.x]\nnotify = { states = [\"bad\"] }\n", "fleet.toml:2: notify.states"),
            ("[devices.x]\nflapping = { low = 90 }\n", "fleet.toml:2: flapping.low"),
            ("[devices.x]\nnotifyy = {}\n", "fleet.toml:2: unknown field `notifyy`"),
            ("[downtimes.d]\nhost = \"x\"\n", "fleet.toml:1: start and end are expected"),
            ("[downtimes.d]\nend = 5\n", "fleet.toml:2: a time such as"),
            (
                "[downtimes.d]\nevery = \"someday\"\nfrom = \"02:00\"\nto = \"04:00\"\ntime_zone = \"UTC\"\nhost = \"x\"\n",
                "fleet.toml:2: \"someday\"",
            ),
            (
                "[downtimes.d]\nevery = \"day\"\nfrom = \"02:00\"\nto = \"04:00\"\nhost = \"x\"\n",
                "fleet.toml:1: every goes with from, to and time_zone",
            ),
            (
                "[downtimes.d]\nstart = \"2026-12-01T08:00:00Z\"\nend = 2026-12-01T10:00:00Z\n",
                "fleet.toml:1: either host or labels",
            ),
        ];
        for (text, expected) in table {
            let said = refused(text);
            assert!(said.starts_with(expected), "{said}");
        }
    }
}

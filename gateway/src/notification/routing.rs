//! The contacts and rules in force: those of the store, and the built-in one of the settings.
//!
//! The contact `default` has the addresses of `mail.to`. While there is no rule, it receives all
//! notifications; afterwards it receives only the end of those it received before.

use std::collections::BTreeMap;

use fleetgate_engine::notification;
use fleetgate_engine::notification::{ContactId, Routing, Selector, Severity};
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;

use super::Settings;
use crate::clock;
use crate::notification::rule_trace::EvaluatedRule;
use crate::store::contacts::{self, BUILT_IN};
use crate::store::outbox::Address;
use crate::store::{SqliteConnection, settings};

/// Name of the contact of the settings.
pub const BUILT_IN_NAME: &str = "default";
/// The setting that stores the time of its last digest.
const DIGESTED: &str = "notifications.digested";

/// The name and the addresses of a contact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub name: String,
    pub addresses: Vec<Address>,
}

#[derive(Debug)]
pub(super) struct LoadedRouting {
    pub routing: Routing,
    pub reach: BTreeMap<ContactId, Reach>,
    /// The rules of the store, by name.
    pub asked: Vec<EvaluatedRule>,
}

impl LoadedRouting {
    fn asked(&self, found: contacts::Rule) -> EvaluatedRule {
        let to = self.reach.get(&found.contact).map(|reach| reach.name.clone()).unwrap_or_default();
        let of = self.routing.contacts.iter().find(|contact| contact.id == found.contact);
        let zone = of.map_or(TimeZone::UTC, |contact| contact.zone.clone());
        EvaluatedRule { name: found.name.clone(), to, zone, rule: rule(found) }
    }
}

/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn load(
    conn: &mut SqliteConnection,
    settings: &Settings,
) -> crate::store::Result<LoadedRouting> {
    let mut known = LoadedRouting { routing: Routing::default(), reach: BTreeMap::new(), asked: Vec::new() };
    for contact in contacts::all(conn).await? {
        known.reach.insert(contact.id, reach(&contact));
        known.routing.contacts.push(receiver(&contact, settings));
    }
    known.asked = contacts::rules(conn).await?.into_iter().map(|rule| known.asked(rule)).collect();
    known.routing.rules = known.asked.iter().map(|asked| asked.rule.clone()).collect();
    if settings.mail.is_some() {
        built_in(conn, settings, &mut known).await?;
    }
    Ok(known)
}

fn reach(contact: &contacts::Contact) -> Reach {
    let emails = contact.emails.iter().cloned().map(Address::Email);
    let hook = contact.webhook_url.iter().cloned().map(Address::Webhook);
    Reach { name: contact.name.clone(), addresses: emails.chain(hook).collect() }
}

fn zone(contact: &contacts::Contact) -> TimeZone {
    TimeZone::get(&contact.time_zone).unwrap_or_else(|error| {
        tracing::warn!(contact = contact.name, "its time zone is not known here, UTC is taken: {error}");
        TimeZone::UTC
    })
}

/// Returns the time zone of a contact. `None` stands for the machine's: for the built-in contact and
/// for a removed one.
///
/// # Errors
/// Fails when the database cannot be read.
pub(super) async fn zone_of(
    conn: &mut SqliteConnection,
    contact: ContactId,
) -> crate::store::Result<Option<TimeZone>> {
    Ok(contacts::find(conn, contact).await?.as_ref().map(zone))
}

fn receiver(contact: &contacts::Contact, settings: &Settings) -> notification::Contact {
    notification::Contact {
        id: contact.id,
        zone: zone(contact),
        group_wait: contact.group_wait.unwrap_or(settings.group_wait),
        digest: contact.digest_at,
        digested: contact.digested_at,
        capped: !contact.emails.is_empty(),
    }
}

fn rule(rule: contacts::Rule) -> notification::Rule {
    notification::Rule {
        id: rule.id,
        contact: rule.contact,
        selector: Selector(rule.labels),
        least: rule.severity,
        period: rule.period,
        delay: rule.delay,
    }
}

async fn built_in(
    conn: &mut SqliteConnection,
    settings: &Settings,
    known: &mut LoadedRouting,
) -> crate::store::Result<()> {
    let digested = settings::find(conn, DIGESTED).await?.and_then(|at| at.parse().ok());
    known.routing.contacts.push(notification::Contact {
        id: BUILT_IN,
        zone: TimeZone::system(),
        group_wait: settings.group_wait,
        digest: settings.digest,
        digested: digested.map_or_else(clock::wall, Wall::from_millis),
        capped: true,
    });
    let to = settings.mail.iter().flat_map(|mail| &mail.to);
    let addresses = to.map(|address| Address::Email(address.to_string())).collect();
    known.reach.insert(BUILT_IN, Reach { name: BUILT_IN_NAME.to_owned(), addresses });
    if known.routing.rules.is_empty() {
        known.routing.rules.push(notification::Rule {
            id: BUILT_IN,
            contact: BUILT_IN,
            selector: Selector::default(),
            least: Severity::Warning,
            period: None,
            delay: std::time::Duration::ZERO,
        });
    }
    Ok(())
}

/// # Errors
/// Fails when the database refuses the write.
pub(super) async fn digested(
    tx: &mut SqliteConnection,
    contact: ContactId,
    at: Wall,
) -> crate::store::Result<()> {
    if contact == BUILT_IN {
        return settings::put(tx, DIGESTED, &at.as_millis().to_string()).await;
    }
    contacts::digested(tx, contact, at).await
}

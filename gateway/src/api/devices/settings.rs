//! Reads the settings of a device from requests.

use fleetgate_engine::messages::RoutePolicy;
use fleetgate_keys::{PrivateKey, PublicKey};
use ipnet::IpNet;
use serde_json::Value;

use super::Given;
use super::types::{DeviceChange, NewDevice, NewSsh, SshChange};
use crate::api::AppState;
use crate::api::request::merge_patch;
use crate::api::request::parse::{self, Fields, Setter};
use crate::api::request::validation::{self, Validation};
use crate::api::response::problem::Problem;
use crate::store::devices::{self, Pin, Settings, Ssh};

const SSH_PORT: u16 = 22;

/// A parsed request to add a device.
pub struct ParsedDevice {
    pub settings: Settings,
    /// `None` for a device outside the VPN.
    pub tunnel: Option<Given>,
}

impl ParsedDevice {
    pub fn parse(app: &AppState, new: NewDevice) -> Result<ParsedDevice, Problem> {
        let tunnelled = new.tunnel.unwrap_or(true);
        let default_route = if tunnelled { RoutePolicy::Auto } else { RoutePolicy::Direct };
        let mut fields = Fields::default();
        let key = new.public_key.as_deref().map(|k| parse::public_key(app, k));
        let key = key.and_then(|k| fields.take("public_key", k));
        let route = new.route.as_deref().map(parse::route).and_then(|r| fields.take("route", r));
        let route = route.unwrap_or(default_route);
        if tunnelled {
            fields.take("route", leads_somewhere(route, new.direct_address.as_ref()));
        } else {
            direct_only(&mut fields, &new, route);
        }
        let direct = new.direct_address.as_deref().map(crate::names::host_address);
        let settings = Settings {
            name: fields.take("name", parse::name(&new.name)).unwrap_or_default(),
            labels: fields.take("labels", parse::host_labels(new.labels)).unwrap_or_default(),
            profile: new.profile.unwrap_or_default(),
            route,
            direct_address: direct.and_then(|a| fields.take("direct_address", a)),
            ssh: ssh(&mut fields, new.ssh),
            networks: networks(&mut fields, app, &new.networks),
            mtu: new.mtu.and_then(|mtu| fields.take("mtu", parse::mtu(mtu))),
            notes: fields.take("notes", parse::notes(new.notes)).unwrap_or_default(),
        };
        fields.finish()?;
        let given = match key {
            Some(key) => Given::Public(key),
            None => Given::Pair(Box::new(PrivateKey::generate())),
        };
        Ok(ParsedDevice { settings, tunnel: tunnelled.then_some(given) })
    }
}

/// Checks the fields that only devices have, apart from the conditions that depend on this gateway's
/// keys and addresses. `is_new`: a device is to be added with them.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn validate(fields: Value, is_new: bool) -> Validation {
    validation::of(fields, |new| plausible(new, is_new))
}

fn plausible(new: NewDevice, is_new: bool) -> Result<(), Problem> {
    let tunnelled = new.tunnel.unwrap_or(true);
    let mut fields = Fields::default();
    let key = new.public_key.as_deref().map(|key| key.parse::<PublicKey>());
    key.and_then(|key| fields.take("public_key", key.map_err(|e| e.to_string())));
    let route = new.route.as_deref().map(parse::route).and_then(|r| fields.take("route", r));
    if is_new && tunnelled {
        let route = route.unwrap_or(RoutePolicy::Auto);
        fields.take("route", leads_somewhere(route, new.direct_address.as_ref()));
    } else if is_new {
        direct_only(&mut fields, &new, route.unwrap_or(RoutePolicy::Direct));
    }
    let direct = new.direct_address.as_deref().map(crate::names::host_address);
    direct.and_then(|address| fields.take("direct_address", address));
    fields.take("networks", new.networks.iter().try_for_each(|text| parse::plausible(text).map(drop)));
    new.mtu.and_then(|mtu| fields.take("mtu", parse::mtu(mtu)));
    ssh(&mut fields, new.ssh);
    fields.take("labels", parse::host_labels(new.labels));
    fields.take("notes", parse::notes(new.notes));
    fields.finish()
}

/// Checks the fields of a device without a tunnel: it needs some, and others do not apply.
fn direct_only(fields: &mut Fields, new: &NewDevice, route: RoutePolicy) {
    let wrong = [
        (
            "direct_address",
            new.direct_address.is_none(),
            "a device without a tunnel needs one: there is no other way to it",
        ),
        ("public_key", new.public_key.is_some(), "a device without a tunnel has no key"),
        ("networks", !new.networks.is_empty(), "no networks stand behind a device without a tunnel"),
        ("mtu", new.mtu.is_some(), "a device without a tunnel has no inner MTU"),
        ("route", route != RoutePolicy::Direct, "a device without a tunnel has the route direct"),
    ];
    for (field, _, why) in wrong.into_iter().filter(|(_, is_wrong, _)| *is_wrong) {
        fields.take(field, Err::<(), _>(why));
    }
}

fn ssh(fields: &mut Fields, new: NewSsh) -> Ssh {
    let pin = new.host_key.as_deref().map(parse::host_key);
    let pin = pin.and_then(|p| fields.take("ssh.host_key", p));
    let user = new.user.as_deref().map(parse::login);
    Ssh {
        port: fields.take("ssh.port", parse::ssh_port(new.port.unwrap_or(SSH_PORT))).unwrap_or(SSH_PORT),
        user: user.and_then(|u| fields.take("ssh.user", u)),
        pin: pin.map(|fingerprint| Pin::new(fingerprint, "given")),
    }
}

fn networks(fields: &mut Fields, app: &AppState, texts: &[String]) -> Vec<IpNet> {
    fields.take("networks", parse::networks(texts, app.config.pools())).unwrap_or_default()
}

/// Returns the settings after the request.
pub fn changed(app: &AppState, before: &devices::Device, change: DeviceChange) -> Result<Settings, Problem> {
    let mut fields = Fields::default();
    let mut settings = before.settings.clone();
    let mut set = Setter(&mut fields);
    set.to(&mut settings.name, "name", change.name.as_deref().map(parse::name));
    let labels =
        change.labels.map(|change| parse::host_labels(merge_patch::labels(&settings.labels, change)));
    set.to(&mut settings.labels, "labels", labels);
    let usual = if before.tunnel.is_some() { RoutePolicy::Auto } else { RoutePolicy::Direct };
    let route = change.route.map(|route| route.as_deref().map_or(Ok(usual), parse::route));
    set.to(&mut settings.route, "route", route);
    let direct = change.direct_address.map(|a| a.as_deref().map(crate::names::host_address).transpose());
    set.to(&mut settings.direct_address, "direct_address", direct);
    change_ssh(&mut settings.ssh, change.ssh, &mut set);
    let networks = change.networks.map(|n| parse::networks(&n.unwrap_or_default(), app.config.pools()));
    set.to(&mut settings.networks, "networks", networks);
    set.to(&mut settings.mtu, "mtu", change.mtu.map(|mtu| mtu.map(parse::mtu).transpose()));
    set.to(&mut settings.notes, "notes", change.notes.map(|n| parse::notes(n.unwrap_or_default())));
    let moved = (settings.route, &settings.direct_address)
        != (before.settings.route, &before.settings.direct_address);
    if before.tunnel.is_none() {
        fields.take("direct_address", stays_reachable(&settings));
        let no_mtu = settings.mtu.map_or(Ok(()), |_| Err("a device without a tunnel has no inner MTU"));
        fields.take("mtu", no_mtu);
    } else if moved {
        fields.take("route", leads_somewhere(settings.route, settings.direct_address.as_ref()));
    }
    fields.finish()?;
    settings.profile = change.profile.map_or(settings.profile, Option::unwrap_or_default);
    Ok(settings)
}

/// Checks that the route `direct` has an address.
fn leads_somewhere(route: RoutePolicy, direct: Option<&String>) -> Result<(), &'static str> {
    match (route, direct) {
        (RoutePolicy::Direct, None) => {
            Err("the route direct needs a direct_address: set one, or use tunnel or auto")
        }
        _ => Ok(()),
    }
}

fn stays_reachable(settings: &Settings) -> Result<(), &'static str> {
    let direct = settings.direct_address.is_some() && settings.route == RoutePolicy::Direct;
    let wanted =
        "a device without a tunnel needs an address, the route direct, and has no networks behind it";
    if direct && settings.networks.is_empty() { Ok(()) } else { Err(wanted) }
}

/// Applies a change of the SSH settings of a device or host. The pin is no setting: `POST
/// /devices/{device}/trust` and `POST /hosts/{host}/trust` change it.
pub fn change_ssh(ssh: &mut Ssh, change: Option<Option<SshChange>>, set: &mut Setter<'_>) {
    let Some(change) = change else { return };
    let usual = SshChange { port: Some(None), user: Some(None) };
    let change = change.unwrap_or(usual);
    set.to(&mut ssh.port, "ssh.port", change.port.map(|port| parse::ssh_port(port.unwrap_or(SSH_PORT))));
    let user = change.user.map(|user| user.as_deref().map(parse::login).transpose());
    set.to(&mut ssh.user, "ssh.user", user);
}

/// Returns the names of the changed settings, for the event.
pub fn differences(before: &Settings, after: &Settings) -> Vec<&'static str> {
    let pairs = [
        ("name", before.name != after.name),
        ("labels", before.labels != after.labels),
        ("profile", before.profile != after.profile),
        ("route", before.route != after.route),
        ("direct_address", before.direct_address != after.direct_address),
        ("ssh", before.ssh != after.ssh),
        ("networks", before.networks != after.networks),
        ("mtu", before.mtu != after.mtu),
        ("notes", before.notes != after.notes),
    ];
    pairs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

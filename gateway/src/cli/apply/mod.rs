//! `fleetgate apply`: makes a fleet match a file.
//!
//! It reads the file, reads the existing resources, shows the differences, and writes them through
//! the API, which decides. It is no transaction. The next run completes an interrupted one.

mod absent;
mod differences;
mod downtime;
mod ends;
mod file;
mod fits;
mod grant;
mod lines;
mod plan;
mod profile_order;
mod refusals;
mod report;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use owo_colors::OwoColorize as _;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, Refused, api_path};
use super::device::said;
use super::host::pages;
use super::service::settings;
use super::{removal, table};
use crate::api::devices::Device;
use crate::api::gateway::Gateway;
use crate::api::host_settings::HostSettings;
use crate::api::hosts::Host;
use crate::api::profile_rules::ProfileRules;
use crate::api::profiles::Profile;
use crate::api::removals::Removal;
use crate::api::types::{Managed, Page};
use crate::api::{Affected, Effect};
use crate::cli::out;
use plan::{Act, Desired, Existing, PlanStep, Policy, ResourceKind};
use profile_order::Turn;
use refusals::Names;

#[derive(Args)]
pub(crate) struct ApplyArgs {
    /// Fleet file (TOML): sites, devices, hosts, profiles, profile rules, contacts, notification rules, downtimes,
    /// grants
    file: PathBuf,
    /// Show the differences and change nothing
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask for confirmation; required without a terminal
    #[arg(long, short)]
    yes: bool,
    /// Also overwrite changes that people made, and recreate objects that they removed
    #[arg(long)]
    overwrite: bool,
    /// Also take over objects of the file that were made by hand or by another manager
    #[arg(long)]
    adopt: bool,
    /// Also remove devices and hosts that are not in the file any more
    #[arg(long)]
    prune: bool,
    /// Folder for the configurations of new devices, which are not stored
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name of the manager of these objects; use another name for another file
    #[arg(long = "as", value_name = "NAME", default_value = "apply")]
    manager: String,
}

pub(crate) async fn run(client: Client, args: ApplyArgs) -> anyhow::Result<()> {
    let text = file::text(&args.file)?;
    let mut wanted = file::read(&args.file.display().to_string(), &text)?;
    wanted.retain(|w| !downtime::is_over(w) && !grant::is_over(w));
    let policy = Policy {
        manager: args.manager.clone(),
        overwrite: args.overwrite,
        adopt: args.adopt,
        prune: args.prune,
    };
    let (found, names) = look(&client, &wanted, &policy).await?;
    let lost = secrets::unheard(&wanted, &names);
    let steps = steps(wanted, &found, &names, &policy);
    show(&client, &steps)?;
    refusals::check(&args.file, &steps, &found, names, args.out.is_some() || args.dry_run)?;
    match &args.out {
        Some(out) => {
            secrets::have_room(&args.file, out, &steps)?;
            secrets::tell_lost(out, &lost);
        }
        None => secrets::tell_homeless(&steps),
    }
    if !steps.iter().any(|s| s.act != Act::Keep) || !agreed(&args)? {
        return Ok(());
    }
    let client = client.managed_by(&args.manager);
    Run { client: &client, args: &args, steps: &steps, found: &found }.all().await?;
    said(&client, "Done")
}

/// The execution of a plan.
struct Run<'a> {
    client: &'a Client,
    args: &'a ApplyArgs,
    steps: &'a [PlanStep],
    found: &'a [Existing],
}

impl Run<'_> {
    /// Runs all steps. Creations, changes and parents come before removals, because a removed
    /// resource may be in use until then.
    async fn all(&self) -> anyhow::Result<()> {
        let goes = |step: &&PlanStep| matches!(step.act, Act::Remove | Act::Forget);
        let stays = |step: &&PlanStep| !goes(step) && step.act != Act::Keep;
        self.profiles().await?;
        for step in self.steps.iter().filter(stays).filter(|step| step.kind != ResourceKind::Profile) {
            let done = act(self.client, step, self.args.out.as_deref()).await;
            self.or_stop(step, done)?;
        }
        for step in self.steps.iter().filter(stays) {
            self.or_stop(step, place(self.client, step, "parents").await)?;
        }
        for step in self.steps.iter().filter(goes) {
            let done = act(self.client, step, self.args.out.as_deref()).await;
            self.or_stop(step, done)?;
        }
        for step in self.steps.iter().filter(stays) {
            self.or_stop(step, place(self.client, step, "name").await)?;
        }
        Ok(())
    }

    /// Writes the profiles, some of them twice.
    async fn profiles(&self) -> anyhow::Result<()> {
        let mut versions: BTreeMap<&str, i64> = BTreeMap::new();
        for Turn { step, fields, .. } in profile_order::turns(self.steps, self.found) {
            let version = versions.get(step.name.as_str()).copied().or(step.version).unwrap_or(NEW);
            let written = self.client.put(&path(step), &Value::Object(fields), Some(version)).await;
            let now = self.or_stop(step, written)?;
            versions.extend(now["version"].as_i64().map(|version| (step.name.as_str(), version)));
        }
        Ok(())
    }

    fn or_stop<T>(&self, step: &PlanStep, done: anyhow::Result<T>) -> anyhow::Result<T> {
        done.map_err(|error| {
            let to_do: Vec<&PlanStep> = self.steps.iter().filter(|s| s.act != Act::Keep).collect();
            let done = to_do.iter().position(|s| std::ptr::eq(*s, step)).unwrap_or_default();
            anstream::eprintln!("{done} of {} changes were made; another run continues", to_do.len());
            let place = at(self.args, step, &error);
            error.context(place)
        })
    }
}

/// Returns the steps, including those that only report.
fn steps(wanted: Vec<Desired>, found: &[Existing], names: &Names, policy: &Policy) -> Vec<PlanStep> {
    let wanted = absent::settle(wanted, found, policy);
    fits::keep_needed(plan::plan(&wanted, found, policy), found, &names.users)
}

/// Returns the place in the file that caused the gateway's refusal.
fn at(args: &ApplyArgs, step: &PlanStep, error: &anyhow::Error) -> String {
    let refused = error.downcast_ref::<Refused>();
    let field = refused.and_then(|r| r.document["errors"][0]["field"].as_str());
    refusals::place(&args.file, step, field.unwrap_or_default())
}

/// Writes a field that must wait for other resources. A host's parent may be created after the
/// host, and a name may be in use until its other owner has been renamed.
async fn place(client: &Client, step: &PlanStep, field: &str) -> anyhow::Result<()> {
    let Some(value) = step.fields.get(field) else { return Ok(()) };
    let path = match step.kind {
        ResourceKind::Device => api_path!("/hosts/{}", step.name),
        _ => path(step),
    };
    client.patch(&path, &json!({ field: value })).await.map(drop)
}

fn show(client: &Client, steps: &[PlanStep]) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(steps)?);
        return Ok(());
    }
    for line in report::render(steps).lines() {
        let line = table::safe(line);
        match line.as_bytes().first() {
            Some(b'+') => out::line!("{}", line.green()),
            Some(b'-') => out::line!("{}", line.red()),
            Some(b'~' | b'!') => out::line!("{}", line.yellow()),
            _ => out::line!("{line}"),
        }
    }
    let words = report::summary(steps).unwrap_or_else(|| "No differences".to_owned());
    said(client, &words)
}

/// Asks a person at a terminal.
fn agreed(args: &ApplyArgs) -> anyhow::Result<bool> {
    if args.yes || args.dry_run {
        return Ok(args.yes);
    }
    if !std::io::stdin().is_terminal() {
        anstream::eprintln!("Nothing was changed. Without a terminal, --yes applies the changes");
        return Ok(false);
    }
    anstream::eprint!("Apply these changes? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

// ---------------------------------------------------------------- what is there

/// Reads the resources that the file names, those of this manager, and all names that can be
/// referred to.
async fn look(
    client: &Client,
    wanted: &[Desired],
    policy: &Policy,
) -> anyhow::Result<(Vec<Existing>, Names)> {
    let (mut found, mut names) = (Vec::new(), Names::default());
    let gateway: Gateway = client.get("/gateway", &[]).await?;
    names.pools = [gateway.pool_v4, gateway.pool_v6].iter().filter_map(|pool| pool.parse().ok()).collect();
    let profiles: Page<Profile> = client.get("/profiles", &[]).await?;
    for profile in profiles.items {
        names.profiles.insert(profile.name.clone());
        found.push(of_profile(profile)?);
    }
    let rules: ProfileRules = client.get("/profile-rules", &[]).await?;
    found.push(of_rules(rules)?);
    found.extend(people(client, &mut names).await?);
    found.extend(grant::look(client, wanted, &mut names).await?);
    let wanted: BTreeSet<(ResourceKind, &str)> = wanted.iter().map(|w| (w.kind, w.name.as_str())).collect();
    let concerns = |kind: ResourceKind, name: &str| wanted.contains(&(kind, name));
    let devices: Vec<Device> = pages(client, "/devices", &[]).await?;
    for device in devices {
        names.hosts.insert(device.name.clone());
        let is_own = device.managed.managed_by == policy.manager;
        if is_own
            || concerns(ResourceKind::Device, &device.name)
            || concerns(ResourceKind::Host, &device.name)
        {
            found.push(of_device(client, device).await?);
        }
    }
    let hosts: Vec<Host> = pages(client, "/hosts", &[]).await?;
    names.hosts.extend(hosts.iter().map(|host| host.name.clone()));
    let silent = |h: &&Host| h.tunnel.as_ref().is_some_and(|t| t.last_handshake.is_none());
    names.unheard.extend(hosts.iter().filter(silent).map(|host| host.name.clone()));
    names.users.extend(hosts.iter().filter_map(|host| Some((host.name.clone(), host.profile.clone()?))));
    let there: BTreeSet<&str> = hosts.iter().map(|host| host.id.as_str()).collect();
    found.extend(downtime::look(client, policy, &there).await?);
    for host in hosts.into_iter().filter(|h| h.via.is_some()) {
        let settings: HostSettings = client.get(&api_path!("/hosts/{}/settings", host.name), &[]).await?;
        found.push(of_host(&settings)?);
    }
    for name in with_services(&found, policy, &wanted) {
        found.extend(of_services(client, &name).await?);
    }
    let removals: Vec<Removal> =
        pages(client, "/removals", &[("managed_by", policy.manager.clone())]).await?;
    let there: BTreeSet<(ResourceKind, String)> = found.iter().map(|f| (f.kind, f.name.clone())).collect();
    let removed = removals.into_iter().filter_map(of_removal);
    found.extend(removed.filter(|f| !there.contains(&(f.kind, f.name.clone()))));
    Ok((found, names))
}

/// Reads contacts and notification rules. The contact of the settings is no resource of the API.
async fn people(client: &Client, names: &mut Names) -> anyhow::Result<Vec<Existing>> {
    let mut found = Vec::new();
    for (kind, list) in [(ResourceKind::Contact, "/contacts"), (ResourceKind::NotificationRule, "/rules")] {
        let page: Page<Value> = client.get(list, &[]).await?;
        if kind == ResourceKind::Contact {
            let all = page.items.iter().filter_map(|item| item["name"].as_str());
            names.contacts.extend(all.map(str::to_owned));
        }
        for item in page.items.into_iter().filter(|item| item["built_in"] != json!(true)) {
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            let managed: Managed = serde_json::from_value(item.clone())?;
            let version = item["version"].as_i64();
            found.push(thing(kind, name, item, managed, version));
        }
    }
    Ok(found)
}

/// Converts a removal. Ignores kinds that this version does not know.
fn of_removal(r: Removal) -> Option<Existing> {
    let kind = serde_json::from_value(json!(r.kind)).ok()?;
    let removed = absent::Removed { by: r.removed_by, at: r.removed_at, renamed_to: r.renamed_to };
    let managed = Managed { managed_by: r.managed_by, edited_by: None };
    let found = thing(kind, r.name, Value::Null, managed, None);
    Some(Existing { id: Some(r.id), removed: Some(removed), ..found })
}

fn with_services(
    found: &[Existing],
    policy: &Policy,
    wanted: &BTreeSet<(ResourceKind, &str)>,
) -> Vec<String> {
    let concerns =
        |f: &&Existing| f.managed_by == policy.manager || wanted.contains(&(f.kind, f.name.as_str()));
    let hosts =
        found.iter().filter(|f| matches!(f.kind, ResourceKind::Device | ResourceKind::Host)).filter(concerns);
    hosts.map(|f| f.name.clone()).collect()
}

fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        _ => Map::new(),
    }
}

fn thing(kind: ResourceKind, name: String, value: Value, managed: Managed, version: Option<i64>) -> Existing {
    let Managed { managed_by, edited_by } = managed;
    Existing {
        kind,
        name,
        fields: fields(value),
        managed_by,
        edited_by,
        version,
        id: None,
        former: false,
        removed: None,
    }
}

fn of_profile(p: Profile) -> anyhow::Result<Existing> {
    let mut services = serde_json::to_value(&p.services)?;
    if let Some(services) = services.as_object_mut() {
        services.values_mut().for_each(|service| *service = settings(Some(service.take())));
    }
    let rental = serde_json::to_value(&p.rental)?;
    let value = json!({ "summary": p.summary, "extends": p.extends, "services": services, "rental": rental });
    Ok(thing(ResourceKind::Profile, p.name, value, p.managed, Some(p.version)))
}

fn of_rules(rules: ProfileRules) -> anyhow::Result<Existing> {
    let value = json!({ "rules": rules.rules });
    Ok(thing(ResourceKind::ProfileRules, String::new(), value, rules.managed, Some(rules.version)))
}

async fn of_device(client: &Client, d: Device) -> anyhow::Result<Existing> {
    let settings: HostSettings = client.get(&api_path!("/hosts/{}/settings", d.name), &[]).await?;
    let mut value = fields(serde_json::to_value(&settings)?);
    value.insert("networks".to_owned(), json!(d.networks));
    value.extend(d.mtu.map(|mtu| ("mtu".to_owned(), json!(mtu))));
    Ok(thing(ResourceKind::Device, d.name, Value::Object(value), d.managed, Some(d.version)))
}

fn of_host(settings: &HostSettings) -> anyhow::Result<Existing> {
    let value = serde_json::to_value(settings)?;
    Ok(thing(
        ResourceKind::Host,
        settings.name.clone(),
        value,
        settings.managed.clone(),
        Some(settings.version),
    ))
}

async fn of_services(client: &Client, host: &str) -> anyhow::Result<Vec<Existing>> {
    let page: Page<Value> = client.get(&api_path!("/hosts/{}/overrides", host), &[]).await?;
    let found = |stored: Value| -> anyhow::Result<Existing> {
        let managed: Managed = serde_json::from_value(stored.clone())?;
        let (name, version) = (stored["service"].as_str().unwrap_or_default(), stored["version"].as_i64());
        let name = format!("{host}/{name}");
        Ok(thing(ResourceKind::Service, name, settings(Some(stored)), managed, version))
    };
    page.items.into_iter().map(found).collect()
}

// ------------------------------------------------------------------ what is done

/// Fields of a device that belong to its host, except for its parents.
const OF_HOST: [&str; 11] = [
    "interval_s",
    "retry_s",
    "max_check_attempts",
    "timeout_s",
    "max_silence_s",
    "freshness_s",
    "budget_bytes_per_day",
    "volatile",
    "flapping",
    "notify",
    "thresholds",
];
/// The version of a resource that does not exist yet.
const NEW: i64 = 0;
/// Those fields that a new host cannot have.
const AFTERWARDS: [&str; 3] = ["volatile", "flapping", "notify"];

async fn act(client: &Client, step: &PlanStep, out: Option<&Path>) -> anyhow::Result<()> {
    let path = path(step);
    match (step.kind, step.act) {
        (_, Act::Keep) => Ok(()),
        (_, Act::Forget) => match &step.id {
            Some(id) => client.call(Method::DELETE, &api_path!("/removals/{}", id), None).await,
            None => Ok(()),
        },
        (ResourceKind::Downtime, Act::Remove) => downtime::cancel(client, step).await,
        (ResourceKind::Downtime, _) => downtime::write(client, step).await,
        (ResourceKind::ProfileRules, Act::Remove) => {
            client.put(&path, &json!({ "rules": [] }), step.version).await.map(drop)
        }
        (ResourceKind::Device | ResourceKind::Host, Act::Remove) => remove_host(client, &path, step).await,
        (_, Act::Remove) => client.delete(&path, step.version).await,
        (ResourceKind::Profile | ResourceKind::ProfileRules | ResourceKind::Service, _) => {
            let version = step.version.unwrap_or(NEW);
            client.put(&path, &Value::Object(step.fields.clone()), Some(version)).await.map(drop)
        }
        (ResourceKind::Contact | ResourceKind::NotificationRule, Act::Make) => {
            make_named(client, step, out).await
        }
        (ResourceKind::Contact | ResourceKind::NotificationRule, _) => {
            let mut fields = step.fields.clone();
            fields.remove("name");
            change(client, &path, Value::Object(fields), step.version).await.map(drop)
        }
        (ResourceKind::Grant, Act::Make) => client.post("/grants", &named(step)).await.map(|_: Value| ()),
        (ResourceKind::Grant, _) => change(client, &path, grant::change(step), step.version).await.map(drop),
        (ResourceKind::Device, Act::Make) => make_device(client, step, out).await,
        (ResourceKind::Host, Act::Make) => make_host(client, step).await,
        (ResourceKind::Device, _) => {
            let (device, host) = split(step);
            let version = change(client, &path, device, step.version).await?;
            of_its_host(client, &step.name, host, version).await
        }
        (ResourceKind::Host, _) => {
            let (host, timing) = split(step);
            change(client, &path, joined(host, timing), step.version).await.map(drop)
        }
    }
}

fn path(step: &PlanStep) -> String {
    let name = &step.name;
    match step.kind {
        ResourceKind::Profile => api_path!("/profiles/{}", name),
        ResourceKind::ProfileRules => "/profile-rules".to_owned(),
        ResourceKind::Contact => api_path!("/contacts/{}", name),
        ResourceKind::NotificationRule => api_path!("/rules/{}", name),
        ResourceKind::Device => api_path!("/devices/{}", name),
        ResourceKind::Host => api_path!("/hosts/{}", name),
        ResourceKind::Downtime => "/downtimes".to_owned(),
        ResourceKind::Grant => api_path!("/grants/{}", step.id.as_deref().unwrap_or(name)),
        ResourceKind::Service => {
            let (host, service) = name.split_once('/').unwrap_or((name, ""));
            api_path!("/hosts/{}/services/{}", host, service)
        }
    }
}

/// Splits a change into the fields of the resource itself and those of its host. Leaves out fields
/// that count only for a new resource.
fn split(step: &PlanStep) -> (Value, Value) {
    let (mut own, mut host) = (Map::new(), Map::new());
    for (name, value) in &step.fields {
        match name.as_str() {
            "public_key" | "tunnel" | "parents" | "name" => {}
            name if OF_HOST.contains(&name) => drop(host.insert(name.to_owned(), value.clone())),
            _ => drop(own.insert(name.clone(), value.clone())),
        }
    }
    if let Some(ssh) = own.get_mut("ssh").and_then(Value::as_object_mut) {
        ssh.remove("host_key");
    }
    (Value::Object(own), Value::Object(host))
}

/// Joins the settings of a host behind a device into one change.
fn joined(mut host: Value, timing: Value) -> Value {
    if let (Some(fields), Value::Object(timing)) = (host.as_object_mut(), timing) {
        fields.remove("via");
        fields.extend(timing);
    }
    host
}

fn named(step: &PlanStep) -> Value {
    let mut body = step.fields.clone();
    body.insert("name".to_owned(), json!(step.name));
    Value::Object(body)
}

/// Returns a new device. The fields of its host follow later.
fn new_device(step: &PlanStep) -> Value {
    let mut body = named(step);
    let fields = body.as_object_mut();
    fields
        .into_iter()
        .for_each(|fields| fields.retain(|f, _| f != "parents" && !OF_HOST.contains(&f.as_str())));
    body
}

async fn of_its_host(client: &Client, name: &str, fields: Value, version: Option<i64>) -> anyhow::Result<()> {
    if fields.as_object().is_some_and(|f| !f.is_empty()) {
        change(client, &api_path!("/hosts/{}", name), fields, version).await?;
    }
    Ok(())
}

/// Changes a resource unless another client has changed it since it was read. Returns the new
/// version.
async fn change(
    client: &Client,
    path: &str,
    fields: Value,
    version: Option<i64>,
) -> anyhow::Result<Option<i64>> {
    let now = client.write(Method::PATCH, path, &fields, version).await?;
    Ok(now["version"].as_i64())
}

/// Removes a device or host. Other hosts may be affected only if they lose it as a parent and the
/// plan has listed them.
async fn remove_host(client: &Client, path: &str, step: &PlanStep) -> anyhow::Result<()> {
    let Err(refused) = client.delete(path, step.version).await else { return Ok(()) };
    let Some(affected) = removal::affected(&refused) else { return Err(refused) };
    let is_known = |a: &Affected| a.effect == Effect::LosesParent && step.losers.contains(&a.name);
    if affected.iter().all(is_known) {
        return client.delete_cascade(path, step.version).await;
    }
    let (kind, name) = (step.kind.name(), &step.name);
    said(client, &format!("{kind} {name} kept: removing it affects {}", removal::words(&affected)))
}

async fn make_named(client: &Client, step: &PlanStep, out: Option<&Path>) -> anyhow::Result<()> {
    let list = if step.kind == ResourceKind::Contact { "/contacts" } else { "/rules" };
    let place = secrets::reserve(out, step)?;
    let made: Value = client.post(list, &named(step)).await?;
    match (made["webhook_secret"].as_str(), place) {
        (Some(secret), Some(place)) => place.keep(secret),
        (Some(_), None) => said(
            client,
            &format!(
                "{}: the secret of its webhook was not saved; `fleetgate contact renew-secret` prints a new one",
                step.name
            ),
        ),
        (None, _) => Ok(()),
    }
}

async fn make_device(client: &Client, step: &PlanStep, out: Option<&Path>) -> anyhow::Result<()> {
    let (_, host) = split(step);
    let place = secrets::reserve(out, step)?;
    let made: Value = client.post("/devices", &new_device(step)).await?;
    if let (Some(conf), Some(place)) = (made["credentials"]["conf"].as_str(), place) {
        place.keep(conf).with_context(|| {
            format!("{} was added; `fleetgate device reissue {0}` prints a new configuration", step.name)
        })?;
    }
    of_its_host(client, &step.name, host, made["device"]["version"].as_i64()).await
}

async fn make_host(client: &Client, step: &PlanStep) -> anyhow::Result<()> {
    let mut body = step.fields.clone();
    body.remove("parents");
    let later = AFTERWARDS.iter().filter_map(|field| Some(((*field).to_owned(), body.remove(*field)?)));
    let later: Map<String, Value> = later.collect();
    body.insert("name".to_owned(), json!(step.name));
    let _: Value = client.post("/hosts", &Value::Object(body)).await?;
    of_its_host(client, &step.name, Value::Object(later), None).await
}

#[cfg(test)]
mod tests;

//! `fleetgate profile`: named sets of services, and the rules that select them.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, api_path};
use super::device::said;
use super::grant;
use super::host_args::pair;
use super::limits::Limits;
use super::rental_device::gate_in_words;
use super::settings::Settings;
use super::table::{self, Column};
use crate::api::profile_rules::ProfileRules;
use crate::api::profiles::{Profile, ProfileService};
use crate::api::types::Page;
use crate::bounded_file;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum ProfileCommand {
    /// List profiles
    List,
    /// Show the services of a profile, with those that it inherits
    Show {
        /// Name of the profile
        profile: String,
    },
    /// Create or change a profile
    Set(Box<SetArgs>),
    /// Remove a profile that is not in use
    Remove {
        /// Name of the profile
        profile: String,
    },
    /// Manage profile rules (which profiles hosts get by their labels)
    #[command(subcommand)]
    Rule(RuleCommand),
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Name of the profile
    profile: String,
    /// Replace the whole profile by a JSON file: {"extends": [...], "services": {...}}; - is standard input
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["extends", "summary", "services", "service", "drop", "rental"])]
    from: Option<PathBuf>,
    /// Profile to inherit services from; may be repeated, replaces the present list
    #[arg(long, value_name = "PROFILE")]
    extends: Vec<String>,
    /// One line that describes the profile
    #[arg(long)]
    summary: Option<String>,
    /// Define a whole service, such as 'web={"check": {"type": "tcp", "port": 443}}'
    #[arg(long = "service-json", value_name = "NAME=JSON", value_parser = pair)]
    services: Vec<(String, String)>,
    /// The service that limits and settings apply to
    #[arg(long)]
    service: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    settings: Settings,
    /// Remove the profile's own definition of a service; an inherited one remains
    #[arg(long, value_name = "SERVICE")]
    drop: Vec<String>,
    /// How its devices are rented, such as '{"preparation_s": 3600, "gate": {}}'; {} says nothing
    #[arg(long, value_name = "JSON")]
    rental: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum RuleCommand {
    /// List the rules in order; later rules override earlier ones
    List,
    /// Add a rule that gives hosts with these labels a profile
    Add {
        /// Name of the profile
        profile: String,
        /// Label that a host must have, as key=value or key=*; may be repeated [default: every host]
        #[arg(long = "label", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Position in the list, from 1 [default: last]
        #[arg(long, value_name = "NUMBER")]
        at: Option<usize>,
    },
    /// Remove a rule
    Remove {
        /// Number of the rule in `fleetgate profile rule list`
        number: usize,
    },
}

pub(crate) async fn run(client: &Client, command: ProfileCommand) -> anyhow::Result<()> {
    match command {
        ProfileCommand::List => list(client).await,
        ProfileCommand::Show { profile } => show(client, &profile).await,
        ProfileCommand::Set(args) => set(client, *args).await,
        ProfileCommand::Remove { profile } => {
            client.call(Method::DELETE, &api_path!("/profiles/{}", profile), None).await?;
            said(client, &format!("{profile} removed"))
        }
        ProfileCommand::Rule(command) => rule(client, command).await,
    }
}

const COLUMNS: [Column; 6] = [
    Column::name("NAME"),
    Column::name("EXTENDS"),
    Column::whole("SERVICES"),
    Column::whole("HOSTS"),
    Column::name("MANAGED BY"),
    Column::text("SUMMARY"),
];

async fn list(client: &Client) -> anyhow::Result<()> {
    let page: Page<Profile> = client.get("/profiles", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&page.items)?);
        return Ok(());
    }
    let row = |p: &Profile| {
        let by = if p.builtin { "built in".to_owned() } else { p.managed.managed_by.clone() };
        let services = p.effective.len().to_string();
        let (extends, summary) = (p.extends.join(", "), table::safe(&p.summary));
        vec![p.name.clone(), extends, services, p.hosts.to_string(), by, summary]
    };
    table::print(&COLUMNS, page.items.iter().map(row).collect());
    Ok(())
}

const SERVICE_COLUMNS: [Column; 5] = [
    Column::name("SERVICE"),
    Column::name("CHECK"),
    Column::whole("INTERVAL"),
    Column::text("LIMITS"),
    Column::whole("DEFINED"),
];

async fn show(client: &Client, name: &str) -> anyhow::Result<()> {
    let p: Profile = client.get(&api_path!("/profiles/{}", name), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&p)?);
        return Ok(());
    }
    out::line!("{}", format!("{}  {}", p.name, table::safe(&p.summary)).trim_end());
    if !p.extends.is_empty() {
        out::line!("  extends   {}", p.extends.join(", "));
    }
    out::line!("  hosts     {}\n", p.hosts);
    let row = |s: &ProfileService| {
        let own = if p.services.contains_key(&s.name) { "here" } else { "inherited" };
        let interval = s.interval_s.map_or("host interval".to_owned(), |i| format!("{} s", table::number(i)));
        vec![s.name.clone(), s.check.clone(), interval, limits(s), own.to_owned()]
    };
    table::print(&SERVICE_COLUMNS, p.effective.iter().map(row).collect());
    show_rental(&p);
    Ok(())
}

/// Shows what the profile says about how its devices are rented.
fn show_rental(profile: &Profile) {
    let (own, all) = (&profile.rental, &profile.effective_rental);
    let is_without = |name: &str| all.without.iter().any(|without| without == name);
    let seconds = |s: Option<f64>| s.map(|s| format!("{} s", table::number(s)));
    let gate = match &all.gate {
        Some(gate) => Some(gate_in_words(gate)),
        None => is_without("gate").then(|| "none".to_owned()),
    };
    let cleaning = match &all.cleaning_command {
        Some(command) => Some(table::safe(command)),
        None => is_without("cleaning_command").then(|| "none".to_owned()),
    };
    let access = all.access.as_deref().map(grant::access);
    let access = access.map(|words| if words.is_empty() { "nothing".to_owned() } else { words });
    let is_own = |name: &str| own.without.iter().any(|without| without == name);
    let lines = [
        ("preparation", seconds(all.preparation_s), own.preparation_s.is_some()),
        ("turnaround", seconds(all.turnaround_s), own.turnaround_s.is_some()),
        ("access", access, own.access.is_some()),
        ("gate", gate, own.gate.is_some() || is_own("gate")),
        ("delivery", all.delivery.clone(), own.delivery.is_some()),
        (
            "ssh root",
            all.ssh_root.map(|root| if root { "yes" } else { "no" }.to_owned()),
            own.ssh_root.is_some(),
        ),
        ("cleaning", cleaning, own.cleaning_command.is_some() || is_own("cleaning_command")),
    ];
    let said: Vec<_> = lines.into_iter().filter_map(|(name, value, own)| Some((name, value?, own))).collect();
    if said.is_empty() {
        return;
    }
    out::line!("\nRentals of its devices");
    for (name, value, is_own) in said {
        out::line!("  {name:<12}{value}{}", if is_own { "" } else { "  (inherited)" });
    }
}

fn limits(service: &ProfileService) -> String {
    let side = |word: &str, range: &Option<String>| range.as_ref().map(|r| format!(" {word} {r}"));
    let limit = |t: &crate::api::types::ThresholdSettings| {
        let (warn, crit) = (side("warn", &t.warn), side("crit", &t.crit));
        table::safe(&format!("{}{}{}", t.metric, warn.unwrap_or_default(), crit.unwrap_or_default()))
    };
    service.thresholds.iter().map(limit).collect::<Vec<_>>().join("; ")
}

async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let path = api_path!("/profiles/{}", args.profile);
    let page: Page<Profile> = client.get("/profiles", &[]).await?;
    let before = page.items.into_iter().find(|p| p.name == args.profile);
    let version = before.as_ref().filter(|p| !p.builtin).map(|p| p.version);
    anyhow::ensure!(
        args.says_something(),
        "nothing to change in {}: give --extends, --summary, --service with limits or settings, --service-json, \
         --drop, --rental, or --from FILE",
        args.profile
    );
    let body = match &args.from {
        Some(file) => read(file)?,
        None => args.changed(before.as_ref())?,
    };
    let made = client.put(&path, &body, version).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    let hosts = if made["hosts"] == 1 { "1 host".to_owned() } else { format!("{} hosts", made["hosts"]) };
    said(client, &format!("{} saved; {hosts} in use", args.profile))
}

fn read(file: &std::path::Path) -> anyhow::Result<Value> {
    let text = match file.as_os_str() == "-" {
        true => bounded_file::at_most(std::io::stdin(), bounded_file::MOST).context("stdin")?,
        false => bounded_file::any(file, bounded_file::MOST).with_context(|| file.display().to_string())?,
    };
    serde_json::from_slice(&text).with_context(|| format!("{}: not valid JSON", file.display()))
}

impl SetArgs {
    fn says_something(&self) -> bool {
        let lists = [self.extends.is_empty(), self.services.is_empty(), self.drop.is_empty()];
        let service = !(self.limits.is_empty() && self.settings.is_empty());
        lists.contains(&false)
            || service
            || self.summary.is_some()
            || self.rental.is_some()
            || self.from.is_some()
    }

    fn changed(&self, before: Option<&Profile>) -> anyhow::Result<Value> {
        let stored = before.map(serde_json::to_value).transpose()?.unwrap_or_default();
        let mut services: Map<String, Value> = stored["services"].as_object().cloned().unwrap_or_default();
        for (name, text) in &self.services {
            let service = serde_json::from_str(text).with_context(|| format!("--service-json {name}"))?;
            services.insert(name.clone(), service);
        }
        for name in &self.drop {
            anyhow::ensure!(
                services.remove(name).is_some(),
                "--drop {name}: the profile itself does not define this service"
            );
        }
        self.limit(&mut services, before)?;
        let kept = || before.map(|p| p.extends.clone()).unwrap_or_default();
        let extends = if self.extends.is_empty() { kept() } else { self.extends.clone() };
        let summary = self.summary.clone().or_else(|| before.map(|p| p.summary.clone())).unwrap_or_default();
        let rental: Value = match &self.rental {
            Some(text) => serde_json::from_str(text).context("--rental")?,
            None => before.map(|p| serde_json::to_value(&p.rental)).transpose()?.unwrap_or_else(|| json!({})),
        };
        Ok(json!({ "summary": summary, "extends": extends, "services": services, "rental": rental }))
    }

    fn limit(&self, services: &mut Map<String, Value>, before: Option<&Profile>) -> anyhow::Result<()> {
        if self.limits.is_empty() && self.settings.is_empty() {
            return Ok(());
        }
        let name = self.service.as_ref().context("limits and settings need --service NAME")?;
        let known = before.and_then(|p| p.effective.iter().find(|s| s.name == *name));
        let effective = known.map(|s| serde_json::to_value(&s.thresholds)).transpose()?.unwrap_or_default();
        let service = services.entry(name.clone()).or_insert_with(|| json!({}));
        self.settings.merge(service);
        if self.limits.is_empty() {
            return Ok(());
        }
        let mut own = service["thresholds"].as_array().cloned().unwrap_or_default();
        self.limits.merge(&mut own, effective.as_array().map_or(&[], Vec::as_slice));
        service["thresholds"] = json!(own);
        Ok(())
    }
}

async fn rule(client: &Client, command: RuleCommand) -> anyhow::Result<()> {
    let now: ProfileRules = client.get("/profile-rules", &[]).await?;
    let mut rules = serde_json::to_value(&now.rules)?.as_array().cloned().unwrap_or_default();
    match command {
        RuleCommand::List => return list_rules(client, &now),
        RuleCommand::Add { profile, labels, at } => {
            let labels: Map<String, Value> = labels.into_iter().map(|(k, v)| (k, v.into())).collect();
            let at = at.map_or(rules.len(), |n| n.saturating_sub(1).min(rules.len()));
            rules.insert(at, json!({ "labels": labels, "profile": profile }));
        }
        RuleCommand::Remove { number } => {
            anyhow::ensure!(
                (1..=rules.len()).contains(&number),
                "no rule has the number {number}: see `fleetgate profile rule list`"
            );
            rules.remove(number - 1);
        }
    }
    client.put("/profile-rules", &json!({ "rules": rules }), Some(now.version)).await?;
    said(client, &format!("Profile rules saved; their number is {}", rules.len()))
}

const RULE_COLUMNS: [Column; 3] = [Column::whole("NUMBER"), Column::text("LABELS"), Column::name("PROFILE")];

fn list_rules(client: &Client, rules: &ProfileRules) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(rules)?);
        return Ok(());
    }
    let row = |(i, rule): (usize, &crate::api::profile_rules::ProfileRule)| {
        let labels: Vec<String> = rule.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let labels = if labels.is_empty() { "every host".to_owned() } else { labels.join(" ") };
        vec![(i + 1).to_string(), table::safe(&labels), rule.profile.clone()]
    };
    table::print(&RULE_COLUMNS, rules.rules.iter().enumerate().map(row).collect());
    Ok(())
}

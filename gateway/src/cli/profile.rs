//! `fleetgate profile`: named sets of services, and the rules that select them.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::device::{pair, said};
use super::limits::Limits;
use super::settings::Settings;
use super::table;
use crate::api::model::{Page, Profile, ProfileRules, ProfileService};
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum ProfileCommand {
    /// One line a profile
    List,
    /// What a profile has and what comes out of it
    Show { profile: String },
    /// Make a profile, or change what is given of one
    Set(Box<SetArgs>),
    /// Remove a profile that nothing uses
    Remove { profile: String },
    /// Which profiles hosts have by their labels
    #[command(subcommand)]
    Rule(RuleCommand),
}

#[derive(Args)]
pub(crate) struct SetArgs {
    profile: String,
    /// The whole profile as JSON instead: {"extends": [...], "services": {...}}; - reads stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["extends", "summary", "services", "service", "drop"])]
    from: Option<PathBuf>,
    /// A profile whose services it has too; may be repeated, and replaces the former list
    #[arg(long, value_name = "PROFILE")]
    extends: Vec<String>,
    #[arg(long)]
    summary: Option<String>,
    /// name=JSON: a whole service, such as 'web={"check": {"type": "tcp", "port": 443}}'
    #[arg(long = "service-json", value_name = "NAME=JSON", value_parser = pair)]
    services: Vec<(String, String)>,
    /// The service that limits and settings are for
    #[arg(long)]
    service: Option<String>,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    settings: Settings,
    /// Leave a service as the extended profiles have it
    #[arg(long, value_name = "SERVICE")]
    drop: Vec<String>,
}

#[derive(Subcommand)]
pub(crate) enum RuleCommand {
    /// In order: later ones win over those before them
    List,
    /// Give hosts with these labels a profile
    Add {
        profile: String,
        /// key=value, or key=* for any value; may be repeated; none: every host
        #[arg(long = "label", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Its place in the list, from 1; else the last
        #[arg(long)]
        at: Option<usize>,
    },
    /// Take a rule out, by its number in `list`
    Remove { number: usize },
}

pub(crate) async fn run(client: &Client, command: ProfileCommand) -> anyhow::Result<()> {
    match command {
        ProfileCommand::List => list(client).await,
        ProfileCommand::Show { profile } => show(client, &profile).await,
        ProfileCommand::Set(args) => set(client, *args).await,
        ProfileCommand::Remove { profile } => {
            client.call(Method::DELETE, &format!("/profiles/{profile}"), None).await?;
            said(client, &format!("{profile} is removed"))
        }
        ProfileCommand::Rule(command) => rule(client, command).await,
    }
}

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
    let headers = ["NAME", "EXTENDS", "SERVICES", "HOSTS", "MANAGED BY", "SUMMARY"];
    table::print(&headers, page.items.iter().map(row).collect());
    Ok(())
}

async fn show(client: &Client, name: &str) -> anyhow::Result<()> {
    let p: Profile = client.get(&format!("/profiles/{name}"), &[]).await?;
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
        let own = if p.services.contains_key(&s.name) { "own" } else { "inherited" };
        let interval = s.interval_s.map_or("as the host".to_owned(), |i| format!("{} s", table::number(i)));
        vec![s.name.clone(), s.check.clone(), interval, limits(s), own.to_owned()]
    };
    table::print(&["SERVICE", "CHECK", "INTERVAL", "LIMITS", ""], p.effective.iter().map(row).collect());
    Ok(())
}

fn limits(service: &ProfileService) -> String {
    let side = |word: &str, range: &Option<String>| range.as_ref().map(|r| format!(" {word} {r}"));
    let limit = |t: &crate::api::model::ThresholdSettings| {
        let (warn, crit) = (side("warn", &t.warn), side("crit", &t.crit));
        table::safe(&format!("{}{}{}", t.metric, warn.unwrap_or_default(), crit.unwrap_or_default()))
    };
    service.thresholds.iter().map(limit).collect::<Vec<_>>().join("; ")
}

async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let path = format!("/profiles/{}", args.profile);
    let page: Page<Profile> = client.get("/profiles", &[]).await?;
    let before = page.items.into_iter().find(|p| p.name == args.profile);
    let version = before.as_ref().filter(|p| !p.builtin).map(|p| p.version);
    anyhow::ensure!(
        args.says_something(),
        "say what of {} is to be: --extends, --summary, --service with limits or settings, --service-json, \
         --drop, or --from FILE",
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
    let hosts =
        if made["hosts"] == 1 { "1 host is".to_owned() } else { format!("{} hosts are", made["hosts"]) };
    said(client, &format!("{} is set; {hosts} checked by it from now on", args.profile))
}

fn read(file: &std::path::Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text).map(drop).context("stdin")?,
        false => text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?,
    }
    serde_json::from_str(&text).with_context(|| format!("{}: JSON is expected", file.display()))
}

impl SetArgs {
    fn says_something(&self) -> bool {
        let lists = [self.extends.is_empty(), self.services.is_empty(), self.drop.is_empty()];
        let service = !(self.limits.is_empty() && self.settings.is_empty());
        lists.contains(&false) || service || self.summary.is_some() || self.from.is_some()
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
                "--drop {name}: the profile itself says nothing of it"
            );
        }
        self.limit(&mut services, before)?;
        let kept = || before.map(|p| p.extends.clone()).unwrap_or_default();
        let extends = if self.extends.is_empty() { kept() } else { self.extends.clone() };
        let summary = self.summary.clone().or_else(|| before.map(|p| p.summary.clone())).unwrap_or_default();
        Ok(json!({ "summary": summary, "extends": extends, "services": services }))
    }

    fn limit(&self, services: &mut Map<String, Value>, before: Option<&Profile>) -> anyhow::Result<()> {
        if self.limits.is_empty() && self.settings.is_empty() {
            return Ok(());
        }
        let name = self.service.as_ref().context("limits and settings need --service")?;
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
                "there is no rule {number}; see: fleetgate profile rule list"
            );
            rules.remove(number - 1);
        }
    }
    client.put("/profile-rules", &json!({ "rules": rules }), Some(now.version)).await?;
    said(client, &format!("{} rules hold from now on", rules.len()))
}

fn list_rules(client: &Client, rules: &ProfileRules) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(rules)?);
        return Ok(());
    }
    let row = |(i, rule): (usize, &crate::api::model::ProfileRule)| {
        let labels: Vec<String> = rule.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let labels = if labels.is_empty() { "every host".to_owned() } else { labels.join(" ") };
        vec![(i + 1).to_string(), table::safe(&labels), rule.profile.clone()]
    };
    table::print(&["", "LABELS", "PROFILE"], rules.rules.iter().enumerate().map(row).collect());
    Ok(())
}

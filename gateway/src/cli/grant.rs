//! `fleetgate grant`: who may reach which hosts, by which protocols, and when.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::device::{present, said};
use super::host::pages;
use super::host_args::{labels, pair};
use super::table::{self, Column};
use super::token::span;
use crate::api::grants::{Grant, GrantAccess, GrantSource, GrantTarget, Port};
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum GrantCommand {
    /// Permit people to reach hosts through the gateway
    Add(Box<AddArgs>),
    /// List grants that are in effect or planned
    List {
        /// Also list grants that have ended or were withdrawn
        #[arg(long)]
        all: bool,
        /// Only grants that select this host (name or id) now
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
    },
    /// Show one grant
    Show {
        /// Id or name of the grant
        grant: String,
    },
    /// Withdraw a grant; connections that it alone permits end at once
    Withdraw {
        /// Id or name of the grant
        grant: String,
    },
    /// Change a grant that has neither ended nor been withdrawn
    Set(Box<SetArgs>),
}

#[derive(Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    of: GrantFields,
    /// Name, unique among grants in effect or planned
    #[arg(long)]
    name: Option<String>,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Id or name of the grant
    grant: String,
    #[command(flatten)]
    of: GrantFields,
    /// Take effect at once
    #[arg(long, conflicts_with = "from")]
    from_now: bool,
    /// Last until it is withdrawn
    #[arg(long, conflicts_with_all = ["until", "lasts"])]
    no_end: bool,
}

/// The fields of a grant: its source, target, access and window.
#[derive(Args)]
struct GrantFields {
    /// User whose operators may reach the target
    #[arg(long, value_name = "USER", conflicts_with_all = ["role", "peer"])]
    user: Option<String>,
    /// Role whose users may reach it: operator or admin
    #[arg(long, conflicts_with = "peer")]
    role: Option<String>,
    /// Operator (one peer of a person) that may reach it
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    /// Device, or host behind a device
    #[arg(long, value_name = "HOST", conflicts_with_all = ["to_labels", "to_all_devices"])]
    to: Option<String>,
    /// Hosts with all of these labels, as key=value; also those added later
    #[arg(
        long,
        value_name = "KEY=VALUE",
        value_parser = pair,
        value_delimiter = ',',
        conflicts_with = "to_all_devices"
    )]
    to_labels: Vec<(String, String)>,
    /// Every device, but no host behind a device
    #[arg(long)]
    to_all_devices: bool,
    #[command(flatten)]
    access: AccessArgs,
    /// Begin, as RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End, as RFC 3339 [default: until it is withdrawn]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Duration instead of --until, such as 2h or 5d
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    lasts: Option<String>,
    /// Text that others read
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Protocols and ports.
#[derive(Args)]
pub(super) struct AccessArgs {
    /// TCP ports and ranges, such as 22,443,8000-8100
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    tcp: Vec<String>,
    /// UDP ports and ranges
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    udp: Vec<String>,
    /// Echo requests (ping)
    #[arg(long)]
    icmp: bool,
}

impl AccessArgs {
    /// Returns what was given, if anything was.
    pub fn given(&self) -> Option<Vec<GrantAccess>> {
        let entry = |protocol: &str, ports: &[String]| GrantAccess {
            protocol: protocol.to_owned(),
            ports: ports.iter().cloned().map(Port::Range).collect(),
        };
        let icmp = self.icmp.then(|| entry("icmp", &[]));
        let with_ports = [("tcp", &self.tcp), ("udp", &self.udp)];
        let with_ports = with_ports.into_iter().filter(|(_, ports)| !ports.is_empty());
        let access: Vec<_> =
            icmp.into_iter().chain(with_ports.map(|(protocol, ports)| entry(protocol, ports))).collect();
        (!access.is_empty()).then_some(access)
    }
}

impl GrantFields {
    fn source(&self) -> Option<GrantSource> {
        let GrantFields { peer, user, role, .. } = self;
        let source = GrantSource { peer: peer.clone(), user: user.clone(), role: role.clone() };
        (source != GrantSource::default()).then_some(source)
    }

    fn target(&self) -> anyhow::Result<Option<GrantTarget>> {
        let labels = labels(self.to_labels.clone())?;
        let labels =
            (!labels.is_empty()).then(|| serde_json::from_value(Value::Object(labels))).transpose()?;
        let all_devices = self.to_all_devices.then_some(true);
        let target = GrantTarget { all_devices, host: self.to.clone(), labels };
        Ok((target != GrantTarget::default()).then_some(target))
    }

    /// Returns the fields that are given. `begin`: from when a duration counts without `--from`.
    fn body(&self, begin: Timestamp) -> anyhow::Result<Value> {
        let from = self.from.as_deref().map(|text| moment("--from", text)).transpose()?;
        let until = self.until.as_deref().map(|text| moment("--until", text)).transpose()?;
        let lasts = self.lasts.as_deref().map(|text| span("--for", text)).transpose()?;
        let until = match lasts {
            Some(lasts) => Some(from.unwrap_or(begin).checked_add(lasts)?),
            None => until,
        };
        let body = json!({
            "source": self.source(),
            "target": self.target()?,
            "access": self.access.given(),
            "from": from.map(|at| at.to_string()),
            "until": until.map(|at| at.to_string()),
            "reason": self.reason,
        });
        Ok(present(body))
    }
}

pub(super) fn moment(option: &str, text: &str) -> anyhow::Result<Timestamp> {
    text.parse()
        .map_err(|_| anyhow::anyhow!("{option} {text:?}: a time such as 2026-03-10T13:03:22Z is expected"))
}

pub(crate) async fn run(client: &Client, command: GrantCommand) -> anyhow::Result<()> {
    match command {
        GrantCommand::Add(args) => add(client, *args).await,
        GrantCommand::List { all, host } => list(client, all, host).await,
        GrantCommand::Show { grant } => {
            let grant: Grant = client.get(&api_path!("/grants/{}", grant), &[]).await?;
            show(client, &grant)
        }
        GrantCommand::Withdraw { grant } => withdraw(client, &grant).await,
        GrantCommand::Set(args) => set(client, *args).await,
    }
}

async fn add(client: &Client, args: AddArgs) -> anyhow::Result<()> {
    let mut body = args.of.body(table::now())?;
    for (field, options) in [
        ("source", "whom it is for: --user USER, --role ROLE or --peer NAME"),
        ("target", "what they may reach: --to HOST, --to-labels KEY=VALUE or --to-all-devices"),
        ("access", "what it permits: --tcp PORTS, --udp PORTS or --icmp"),
    ] {
        anyhow::ensure!(body.get(field).is_some(), "give {options}");
    }
    if let Some(name) = args.name {
        body["name"] = json!(name);
    }
    let made: Grant = client.post("/grants", &body).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    said(client, &format!("Grant {}: {}", made.id, words(&made)))?;
    note_matches(client, &made)
}

async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let path = api_path!("/grants/{}", args.grant);
    let before: Grant = client.get(&path, &[]).await?;
    let kept = before.from.as_deref().filter(|_| !args.from_now);
    let begin = kept.and_then(|from| from.parse().ok()).unwrap_or_else(table::now);
    let mut body = args.of.body(begin)?;
    let cleared = [("from", args.from_now), ("until", args.no_end)];
    cleared.into_iter().filter(|(_, wanted)| *wanted).for_each(|(field, _)| body[field] = Value::Null);
    anyhow::ensure!(
        body != json!({}),
        "nothing to change: give at least one option, see `fleetgate grant set --help`"
    );
    let changed = client.write(Method::PATCH, &path, &body, Some(before.version)).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&changed)?);
    }
    let after: Grant = serde_json::from_value(changed)?;
    said(client, &format!("Grant {} changed: {}", after.id, words(&after)))?;
    note_matches(client, &after)
}

/// A typing error in a label would permit nothing.
fn note_matches(client: &Client, grant: &Grant) -> anyhow::Result<()> {
    match grant.matches {
        Some(0) => said(client, "It permits nothing now: no host with a tunnel is selected yet"),
        _ => Ok(()),
    }
}

async fn withdraw(client: &Client, grant: &str) -> anyhow::Result<()> {
    let path = api_path!("/grants/{}", grant);
    let found: Grant = client.get(&path, &[]).await?;
    if let Some(at) = &found.withdrawn_at {
        return said(client, &format!("Already withdrawn {}", table::clock_time(at)));
    }
    client.delete(&path, Some(found.version)).await?;
    match found.state.as_str() {
        "ended" => said(client, "Grant withdrawn; it had ended already"),
        _ => said(client, "Grant withdrawn; connections that it alone permitted have ended"),
    }
}

pub(super) const COLUMNS: [Column; 8] = [
    Column::whole("ID"),
    Column::whole("STATE"),
    Column::name("WHO"),
    Column::name("TARGET"),
    Column::text("ACCESS"),
    Column::whole("FROM").optional(),
    Column::whole("UNTIL"),
    Column::text("REASON").optional(),
];

async fn list(client: &Client, all: bool, host: Option<String>) -> anyhow::Result<()> {
    let mut query = vec![("all", all.to_string())];
    query.extend(host.clone().map(|host| ("host", host)));
    let grants: Vec<Grant> = pages(client, "/grants", &query).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&grants)?);
        return Ok(());
    }
    if grants.is_empty() {
        let none = host.map(|host| format!("No grant selects {host}: operators do not reach it"));
        return said(client, &none.unwrap_or_else(|| "No grants: operators reach nothing".to_owned()));
    }
    table::print(&COLUMNS, grants.iter().map(row).collect());
    Ok(())
}

/// Returns the grants in effect that select a host. `None`: the caller may not read grants.
pub(super) async fn reaching(client: &Client, host: &str) -> Option<Vec<Grant>> {
    let grants: Vec<Grant> = pages(client, "/grants", &[("host", host.to_owned())]).await.ok()?;
    Some(grants.into_iter().filter(|grant| grant.state == "active").collect())
}

/// Formats a grant for the page of a host, which is its target.
pub(super) fn for_host(g: &Grant) -> String {
    let until = g.until.as_deref().map(|until| format!(" until {}", table::clock_time(until)));
    let name = g.name.as_deref().unwrap_or(&g.id);
    table::safe(&format!("{}: {}{} ({name})", who(&g.source), access(&g.access), until.unwrap_or_default()))
}

fn row(g: &Grant) -> Vec<String> {
    let end = g.withdrawn_at.as_deref().or(g.until.as_deref());
    vec![
        g.id.clone(),
        g.state.clone(),
        table::safe(&who(&g.source)),
        table::safe(&whither(&g.target)),
        access(&g.access),
        g.from.as_deref().map(table::minute).unwrap_or_default(),
        end.map_or("no end".to_owned(), table::minute),
        table::safe(&g.reason),
    ]
}

fn show(client: &Client, g: &Grant) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(g)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", g.state, g.id);
    let optional = [("name", &g.name), ("withdrawn", &g.withdrawn_at), ("withdrawn by", &g.withdrawn_by)];
    line("who", &who(&g.source));
    line("target", &whither(&g.target));
    line("hosts now", &g.matches.unwrap_or_default().to_string());
    line("access", &access(&g.access));
    line("from", g.from.as_deref().unwrap_or(&g.created_at));
    line("until", g.until.as_deref().unwrap_or("it is withdrawn"));
    line("reason", &g.reason);
    line("author", &g.author);
    line("managed by", &g.managed.managed_by);
    for (key, value) in optional {
        if let Some(value) = value {
            line(key, value);
        }
    }
    Ok(())
}

fn words(g: &Grant) -> String {
    let until = match &g.until {
        Some(until) => format!("until {}", table::clock_time(until)),
        None => "until it is withdrawn".to_owned(),
    };
    let from = g.from.as_deref().map(|from| format!("from {} ", table::clock_time(from)));
    let (who, target) = (table::safe(&who(&g.source)), table::safe(&whither(&g.target)));
    format!("{who} may reach {target} ({}) {}{until}", access(&g.access), from.unwrap_or_default())
}

fn who(source: &GrantSource) -> String {
    match source {
        GrantSource { peer: Some(peer), .. } => format!("operator {peer}"),
        GrantSource { user: Some(user), .. } => format!("user {user}"),
        GrantSource { role, .. } => format!("role {}", role.as_deref().unwrap_or_default()),
    }
}

fn whither(target: &GrantTarget) -> String {
    match target {
        GrantTarget { host: Some(host), .. } => host.clone(),
        GrantTarget { labels: Some(labels), .. } => {
            labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        }
        _ => "all devices".to_owned(),
    }
}

/// Formats `icmp, tcp 22 443, udp 5000-5010`.
pub(super) fn access(list: &[GrantAccess]) -> String {
    let port = |port: &Port| match port {
        Port::Number(number) => number.to_string(),
        Port::Range(range) => range.clone(),
    };
    let entry = |of: &GrantAccess| {
        let ports: Vec<String> = of.ports.iter().map(port).collect();
        table::safe(format!("{} {}", of.protocol, ports.join(" ")).trim_end())
    };
    list.iter().map(entry).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::access::Role;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: GrantCommand,
    }

    fn try_parsed(line: &str) -> Result<GrantCommand, String> {
        let line = <Line as clap::Parser>::try_parse_from(line.split(' '));
        line.map(|line| line.command).map_err(|e| e.to_string())
    }

    async fn try_run(client: &Client, line: &str) -> anyhow::Result<()> {
        run(client, try_parsed(line).map_err(anyhow::Error::msg)?).await
    }

    #[tokio::test]
    async fn a_grant_is_added_changed_and_withdrawn() {
        let (client, _api) = crate::cli::tests::connected_as(Role::Admin).await;
        let user = json!({ "name": "anna", "role": "operator", "password": "correct horse battery" });
        let _: Value = client.post("/users", &user).await.unwrap();
        let device = json!({ "name": "cam-07", "labels": { "site": "north" } });
        let _: Value = client.post("/devices", &device).await.unwrap();
        let add = "grant add --user anna --to cam-07 --tcp 22,443,8000-8100 --icmp --for 2h --reason disk --name n1";
        try_run(&client, add).await.unwrap();
        let made: Grant = client.get("/grants/n1", &[]).await.unwrap();
        assert_eq!(access(&made.access), "icmp, tcp 22 443 8000-8100");
        assert_eq!((who(&made.source), whither(&made.target)), ("user anna".into(), "cam-07".into()));
        assert!(made.until.is_some() && made.from.is_none() && made.matches == Some(1), "{made:?}");
        try_run(&client, "grant set n1 --no-end --udp 53 --to-labels site=south,kind=cam").await.unwrap();
        let after: Grant = client.get("/grants/n1", &[]).await.unwrap();
        assert_eq!((after.until, access(&after.access)), (None, "udp 53".to_owned()));
        assert_eq!((whither(&after.target), after.matches), ("kind=cam site=south".to_owned(), Some(0)));
        let reaching = reaching(&client, "cam-07").await.unwrap();
        let words: Vec<String> = reaching.iter().map(for_host).collect();
        assert_eq!(
            words,
            [
                "role admin: icmp, tcp 22 80 443 (admins)".to_owned(),
                "role operator: icmp, tcp 22 80 443 (operators)".to_owned()
            ]
        );
        let lists = ["grant list", "grant list --all", "grant list --host cam-07"];
        for fine in lists.into_iter().chain(["grant show n1", "grant withdraw n1"]) {
            try_run(&client, fine).await.unwrap();
        }
        let unknown = try_run(&client, "grant list --host cam-8").await.unwrap_err();
        assert!(unknown.to_string().contains("cam-8"), "{unknown}");
        try_run(&client, &format!("grant withdraw {}", made.id)).await.unwrap();
        let gone: Grant = client.get(&format!("/grants/{}", made.id), &[]).await.unwrap();
        assert_eq!(gone.state, "withdrawn");
    }

    #[tokio::test]
    async fn a_duration_counts_from_the_new_begin() {
        let (client, _api) = crate::cli::tests::connected_as(Role::Admin).await;
        let add = "grant add --role operator --to-all-devices --icmp --name n1 --from 2030-01-01T00:00:00Z --for 2h";
        try_run(&client, add).await.unwrap();
        try_run(&client, "grant set n1 --for 3h").await.unwrap();
        let planned: Grant = client.get("/grants/n1", &[]).await.unwrap();
        assert_eq!(planned.until.as_deref(), Some("2030-01-01T03:00:00Z"));
        try_run(&client, "grant set n1 --from-now --for 2h").await.unwrap();
        let running: Grant = client.get("/grants/n1", &[]).await.unwrap();
        let until: Timestamp = running.until.unwrap().parse().unwrap();
        let at_most = table::now().checked_add(jiff::SignedDuration::from_hours(3)).unwrap();
        assert!(running.from.is_none() && until < at_most, "{until}");
    }

    #[tokio::test]
    async fn what_a_grant_lacks_is_named() {
        let (client, _api) = crate::cli::tests::connected_as(Role::Admin).await;
        for (line, says) in [
            ("grant add --to-all-devices --icmp", "--user USER"),
            ("grant add --role operator --icmp", "--to HOST"),
            ("grant add --role operator --to-all-devices", "--tcp PORTS"),
            ("grant add --role operator --to-all-devices --icmp --from noon", "--from \"noon\""),
            ("grant add --role operator --to a --to-all-devices --icmp", "cannot be used with"),
            ("grant add --role operator --user a --to b --icmp", "cannot be used with"),
            ("grant add --role operator --to-all-devices --tcp 0", "a port from 1 to 65535"),
        ] {
            let refused = try_run(&client, line).await.unwrap_err();
            assert!(format!("{refused:#}").contains(says), "{line}: {refused:#}");
        }
    }
}

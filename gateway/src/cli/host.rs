//! `fleetgate host` and `fleetgate check`.

use clap::Subcommand;
use serde_json::Value;

use super::client::{Client, api_path, path_of};
use super::device::{self, said};
use super::grant;
use super::graph;
use super::host_change;
use super::table::{self, Column};
use crate::api::grants::Grant;
use crate::api::host_settings::HostSettings;
use crate::api::hosts::{Host, Tunnel, Verdict};
use crate::api::services::Service;
use crate::api::traffic::{Traffic, TrafficDay};
use crate::api::types::{Metric, Page};
use crate::cli::out;

/// Rows per request. The listing continues to the last page.
const PAGE: usize = 500;
/// Grants that `host show` lists.
const MAX_GRANTS: usize = 8;

#[derive(Subcommand)]
pub(crate) enum HostCommand {
    /// List hosts
    List {
        /// Part of a name, label or address
        query: Option<String>,
        /// Only hosts that are up, down, unreachable, pending, stale, handled or asleep
        #[arg(long)]
        state: Option<String>,
        /// Only hosts with this label, as key=value
        #[arg(long)]
        label: Option<String>,
    },
    /// Show one host with its services
    Show {
        /// Name or id of the host
        host: String,
    },
    /// Change settings of a host
    Set(Box<host_change::SetArgs>),
    /// Add a host behind a device, such as a NAS
    Add(host_change::AddArgs),
    /// Remove a host behind a device; its history is kept
    Remove {
        /// Name or id of the host
        host: String,
        #[command(flatten)]
        along: super::removal::Along,
    },
    /// Pin the SSH host key of a host behind a device
    Trust {
        /// Name or id of the host
        host: String,
        /// SHA256:..., a public key, or a line of known_hosts
        host_key: String,
    },
    /// Show the traffic of a device by day
    Traffic {
        /// Name or id of the host
        host: String,
    },
    /// Limit the traffic of checks, for example: fleetgate host budget cam-07 1000000
    Budget {
        /// Name or id of the host
        host: String,
        /// Bytes per day (UTC), with all headers
        #[arg(required_unless_present = "none")]
        bytes_per_day: Option<u64>,
        /// Remove the limit
        #[arg(long, conflicts_with = "bytes_per_day")]
        none: bool,
    },
}

#[derive(Subcommand)]
pub(crate) enum CheckCommand {
    /// Check a host with all its services, or one service
    Now {
        /// Name or id of the host
        host: String,
        /// Only this service
        service: Option<String>,
    },
}

pub(crate) async fn run(client: &Client, command: HostCommand) -> anyhow::Result<()> {
    match command {
        HostCommand::List { query, state, label } => {
            let filters = [("q", query), ("state", state), ("label", label)];
            let filters: Vec<_> = filters.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
            list(client, &filters).await
        }
        HostCommand::Show { host } => show(client, &host).await,
        HostCommand::Set(args) => host_change::set(client, *args).await,
        HostCommand::Add(args) => host_change::add(client, args).await,
        HostCommand::Remove { host, along } => host_change::remove(client, &host, along).await,
        HostCommand::Trust { host, host_key } => {
            device::trust(client, &api_path!("/hosts/{}", host), &host, &host_key).await
        }
        HostCommand::Traffic { host } => traffic(client, &host).await,
        HostCommand::Budget { host, bytes_per_day, .. } => budget(client, &host, bytes_per_day).await,
    }
}

pub(crate) async fn check(client: &Client, command: CheckCommand) -> anyhow::Result<()> {
    let CheckCommand::Now { host, service } = command;
    let path = format!("{}/check", path_of(&host, service.as_deref()));
    let host = host.split('/').next().unwrap_or_default();
    client.call(reqwest::Method::POST, &path, Some(&Value::Object(Default::default()))).await?;
    anstream::eprintln!("Check requested; see the result with: fleetgate host show {host}");
    Ok(())
}

const TRAFFIC_COLUMNS: [Column; 4] =
    [Column::whole("DAY (UTC)"), Column::whole("TOTAL"), Column::whole("RECEIVED"), Column::whole("SENT")];

async fn traffic(client: &Client, host: &str) -> anyhow::Result<()> {
    let traffic: Traffic = client.get(&api_path!("/hosts/{}/traffic", host), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&traffic)?);
        return Ok(());
    }
    if traffic.days.is_empty() {
        return said(client, &no_traffic(&client.get(&api_path!("/hosts/{}", host), &[]).await?));
    }
    let row = |d: &TrafficDay| {
        vec![d.day.clone(), table::bytes(d.bytes), table::bytes(d.rx_bytes), table::bytes(d.tx_bytes)]
    };
    table::print(&TRAFFIC_COLUMNS, traffic.days.iter().map(row).collect());
    Ok(())
}

fn no_traffic(host: &Host) -> String {
    let name = &host.name;
    match (&host.via, &host.tunnel) {
        (Some(via), _) => format!("{name} uses the tunnel of {via}: see `fleetgate host traffic {via}`"),
        (None, None) => format!("{name} has no tunnel, and traffic is counted only in tunnels"),
        (None, Some(_)) => format!("No traffic in the tunnel of {name} yet"),
    }
}

async fn budget(client: &Client, host: &str, bytes: Option<u64>) -> anyhow::Result<()> {
    let change = serde_json::json!({ "budget_bytes_per_day": bytes });
    client.call(reqwest::Method::PATCH, &api_path!("/hosts/{}", host), Some(&change)).await?;
    said(
        client,
        &bytes.map_or_else(
            || format!("{host}: traffic limit removed"),
            |bytes| format!("{host}: checks may use {} a day", table::bytes(bytes)),
        ),
    )
}

/// Returns all pages of a list.
pub(crate) async fn pages<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    filters: &[(&str, String)],
) -> anyhow::Result<Vec<T>> {
    let mut items = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut query = filters.to_vec();
        query.push(("limit", PAGE.to_string()));
        query.extend(after.map(|a| ("after", a)));
        let page: Page<T> = client.get(path, &query).await?;
        items.extend(page.items);
        after = page.next;
        if after.is_none() {
            return Ok(items);
        }
    }
}

pub(super) const COLUMNS: [Column; 8] = [
    Column::state("STATE"),
    Column::whole("FOR"),
    Column::name("NAME"),
    Column::whole("ADDRESS"),
    Column::text("SERVICES"),
    Column::whole("LAST PACKET").optional(),
    Column::whole("LAST CHECK").optional(),
    Column::text("LABELS").optional(),
];

async fn list(client: &Client, filters: &[(&str, String)]) -> anyhow::Result<()> {
    let hosts: Vec<Host> = pages(client, "/hosts", filters).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&hosts)?);
        return Ok(());
    }
    if hosts.is_empty() {
        anstream::eprintln!(
            "{}",
            if filters.is_empty() {
                "No hosts yet. Add one: fleetgate device add NAME"
            } else {
                "No host matches"
            }
        );
        return Ok(());
    }
    table::print(&COLUMNS, hosts.iter().map(row).collect());
    Ok(())
}

fn row(h: &Host) -> Vec<String> {
    let now = table::now();
    let packet = h.tunnel.as_ref().and_then(|t| t.last_packet.as_deref());
    let address = h.address.as_deref().or(h.direct_address.as_deref()).unwrap_or("-");
    vec![
        shown_state(h),
        table::lasting(h.state.since.as_deref(), now),
        table::safe(&h.name),
        table::safe(address),
        services(h),
        table::ago(packet, now),
        table::ago(h.state.last_check.as_deref(), now),
        labels(h),
    ]
}

fn state_word(h: &Host) -> &str {
    if h.state.state == "down" && !h.state.reachable { "unreachable" } else { &h.state.state }
}

fn shown_state(h: &Host) -> String {
    let word = state_word(h);
    let mark = if h.state.asleep {
        " zz"
    } else if h.state.stale {
        " ?"
    } else {
        ""
    };
    let beside = table::marks(h.state.acknowledged, h.state.in_downtime, h.state.flapping);
    format!("{}{mark}{beside}", table::state(word))
}

fn services(h: &Host) -> String {
    let s = &h.services;
    let parts = [(s.critical, "critical"), (s.unknown, "unknown"), (s.warning, "warning"), (s.ok, "ok")];
    let shown: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, word)| table::coloured(&format!("{n} {word}"), word))
        .collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
}

fn labels(h: &Host) -> String {
    h.labels.iter().map(|(k, v)| table::safe(&format!("{k}={v}"))).collect::<Vec<_>>().join(" ")
}

pub(super) const SERVICE_COLUMNS: [Column; 7] = [
    Column::state("STATE"),
    Column::whole("FOR"),
    Column::name("SERVICE"),
    Column::whole("LAST CHECK").optional(),
    Column::text("OUTPUT"),
    Column::text("METRICS").optional(),
    Column::whole("LAST 24 H").optional(),
];

async fn show(client: &Client, name: &str) -> anyhow::Result<()> {
    let host: Host = client.get(&api_path!("/hosts/{}", name), &[]).await?;
    // A removed host has no settings.
    let settings: Option<HostSettings> = client.get(&api_path!("/hosts/{}/settings", name), &[]).await.ok();
    let services = client.get::<Page<Service>>(&api_path!("/hosts/{}/services", name), &[]).await?.items;
    let grants = grant::reaching(client, name).await;
    if client.json {
        let all = serde_json::json!({ "host": host, "services": services, "grants": grants });
        out::line!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    match &host.removed_at {
        Some(at) => removed_lines(&host, at).iter().for_each(|line| out::line!("{line}")),
        None => headline(&host, settings.as_ref()),
    }
    if let Some(ack) = &host.acknowledgement {
        let known = table::acknowledged_by(&ack.author, ack.expires.as_deref(), &ack.comment);
        out::line!("  acknowledged by {known}");
    }
    if let Some(line) = incident_line(&host, &services) {
        out::line!("{line}");
    }
    if let Some(tunnel) = &host.tunnel {
        tunnel_lines(tunnel);
    }
    let reachable = host.tunnel.is_some() || host.via.is_some();
    let grants = grants.filter(|_| reachable && host.removed_at.is_none());
    grants.map(|grants| grant_lines(&grants)).into_iter().flatten().for_each(|line| out::line!("{line}"));
    out::line!();
    print_services(&services, &graph::sparklines(client, &host.id, &services).await);
    Ok(())
}

/// Prints the services and the bars of each. Without any bar their column is left out.
fn print_services(services: &[Service], sparklines: &[String]) {
    let has_bars = sparklines.iter().any(|bars| !bars.is_empty());
    let shown = if has_bars { SERVICE_COLUMNS.len() } else { SERVICE_COLUMNS.len() - 1 };
    let row = |(service, bars): (&Service, &String)| service_row(service, bars);
    table::print(&SERVICE_COLUMNS[..shown], services.iter().zip(sparklines).map(row).collect());
}

fn headline(h: &Host, settings: Option<&HostSettings>) {
    let now = table::now();
    out::line!("{}  {}  {}", shown_state(h), table::safe(&h.name), h.id);
    h.state.text.lines().for_each(|line| out::line!("  {}", table::safe(line)));
    h.state.long_text.lines().for_each(|line| out::line!("  | {}", table::safe_output(line)));
    if !h.state.metrics.is_empty() {
        out::line!("  metrics     {}", metrics(&h.state.metrics));
    }
    h.verdict.as_ref().into_iter().for_each(verdict_lines);
    let address = h.address.as_deref().unwrap_or("no tunnel address");
    let direct =
        h.direct_address.as_deref().map(|d| format!(", directly {}", table::safe(d))).unwrap_or_default();
    out::line!("  address     {}{direct}", table::safe(address));
    if let Some(alias) = &h.alias {
        out::line!("  alias       {}", table::safe(alias));
    }
    out::line!("  profile     {}, route {}", settings.map_or("-".to_owned(), shown_profiles), h.route);
    if !h.labels.is_empty() {
        out::line!("  labels      {}", labels(h));
    }
    let set = settings.map(host_change::lines).unwrap_or_default();
    set.iter().for_each(|line| out::line!("{line}"));
    let since = h.state.since.as_deref();
    let lasts = since.map(|at| format!(" for {}", table::lasting(Some(at), now))).unwrap_or_default();
    let last = table::ago(h.state.last_check.as_deref(), now);
    let by = h.state.source.as_deref().filter(|source| *source != "none");
    let by = by.map(|source| format!(" by {source}")).unwrap_or_default();
    let asked = h.state.check_requested_at.as_deref();
    let asked =
        asked.map(|at| format!(", check requested {}", table::ago(Some(at), now))).unwrap_or_default();
    out::line!("  {}{lasts}, last check {last}{by}{asked}", state_word(h));
}

/// Returns the lines of a removed host. It has no state any more.
fn removed_lines(h: &Host, at: &str) -> Vec<String> {
    let mut lines = vec![
        format!("removed  {}  {}", table::safe(&h.name), h.id),
        format!("  removed     {}; only its history is kept", table::clock_time(at)),
    ];
    if !h.labels.is_empty() {
        lines.push(format!("  labels      {}", labels(h)));
    }
    lines
}

fn shown_profiles(settings: &HostSettings) -> String {
    let chosen = if settings.profile.is_none() { " (by rules)" } else { "" };
    format!("{}{chosen}", settings.profiles.join(" + "))
}

fn verdict_lines(verdict: &Verdict) {
    out::line!("  verdict     {}", table::safe(&verdict.text));
    if verdict.kind != "ok" {
        for line in &verdict.evidence {
            out::line!("              - {}", table::safe(line));
        }
    }
}

/// Returns the incidents of a host and its services, the host's own first.
fn incident_line(host: &Host, services: &[Service]) -> Option<String> {
    let mut ids: Vec<&str> = Vec::new();
    for id in host.incident.iter().chain(services.iter().filter_map(|s| s.incident.as_ref())) {
        if !ids.contains(&id.as_str()) {
            ids.push(id);
        }
    }
    (!ids.is_empty()).then(|| format!("  incident    {}", ids.join(", ")))
}

fn tunnel_lines(t: &Tunnel) {
    let now = table::now();
    out::line!("  public key  {}", t.public_key);
    out::line!("  endpoint    {}", t.endpoint.as_deref().unwrap_or("never seen"));
    let (packet, handshake) =
        (table::ago(t.last_packet.as_deref(), now), table::ago(t.last_handshake.as_deref(), now));
    out::line!("  last packet {packet}, last handshake {handshake}");
    out::line!("  traffic     {} received, {} sent", table::bytes(t.rx_bytes), table::bytes(t.tx_bytes));
    if let Some(today) = t.today_bytes {
        let yesterday =
            t.yesterday_bytes.map(|b| format!(", yesterday {}", table::bytes(b))).unwrap_or_default();
        out::line!("  traffic today {}{yesterday}", table::bytes(today));
    }
    if let Some(budget) = &t.budget {
        out::line!("  budget      {} a day; {}", table::bytes(budget.bytes_per_day), budget.text);
    }
    if let Some(skew) = t.clock_skew_s.filter(|s| s.abs() >= 1.0) {
        out::line!("  clock       off by {skew:+.0} s");
    }
    if let Some(seen) = &t.unproved_handshakes {
        out::line!(
            "  incomplete  {} handshakes without a session after them, the last from {} ({})",
            seen.count,
            seen.from,
            table::ago(Some(&seen.last_at), now)
        );
    }
    if let Some(refusal) = &t.last_refusal {
        out::line!(
            "  refused     {} ({})",
            table::safe(refusal),
            table::ago(t.last_refusal_at.as_deref(), now)
        );
    }
    let dropped = table::counts(&t.drops);
    if !dropped.is_empty() {
        out::line!("  dropped     {dropped}");
    }
}

/// Returns who reaches the host now.
fn grant_lines(grants: &[Grant]) -> Vec<String> {
    let more = grants.len().saturating_sub(MAX_GRANTS);
    let none = grants.is_empty().then(|| "no grant is in effect: operators do not reach it".to_owned());
    let more = (more > 0).then(|| format!("and {more} more; see: fleetgate grant list --host HOST"));
    let words = grants.iter().take(MAX_GRANTS).map(grant::for_host).chain(none).chain(more);
    let line = |(i, words): (usize, String)| format!("  {:<12}{words}", if i == 0 { "access" } else { "" });
    words.enumerate().map(line).collect()
}

fn service_row(s: &Service, bars: &str) -> Vec<String> {
    let now = table::now();
    let stale = if s.stale { " ?" } else { "" };
    let beside = table::marks(s.acknowledged, s.in_downtime, s.flapping);
    vec![
        format!("{}{stale}{beside}", table::state(&s.state)),
        table::lasting(s.since.as_deref(), now),
        table::safe(&s.name),
        table::ago(s.last_check.as_deref(), now),
        output(s),
        metrics(&s.metrics),
        bars.to_owned(),
    ]
}

/// Returns the text of the last result, and the forecast behind it.
fn output(s: &Service) -> String {
    let forecast = s.forecast.iter().map(|forecast| forecast.text.as_str());
    let texts = Some(s.text.as_str()).filter(|text| !text.is_empty()).into_iter().chain(forecast);
    table::safe(&texts.collect::<Vec<_>>().join("; "))
}

/// Formats `rta=12.5ms pl=0%`.
fn metrics(all: &[Metric]) -> String {
    let metric =
        |m: &Metric| format!("{}={}{}", m.label, m.value.map_or("U".to_owned(), table::number), m.uom);
    all.iter().map(|m| table::safe(&metric(m))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_grants_that_reach_a_host_are_listed_up_to_a_limit() {
        let (client, _api) = crate::cli::tests::connected().await;
        let made: Value = client.post("/devices", &serde_json::json!({ "name": "cam-1" })).await.unwrap();
        assert_eq!(made["device"]["name"], "cam-1");
        show(&client, "cam-1").await.unwrap();
        let default = grant::reaching(&client, "cam-1").await.unwrap();
        let lines = grant_lines(&default);
        assert_eq!(lines[0], "  access      role admin: icmp, tcp 22 80 443 (admins)");
        assert_eq!(lines[1], "              role operator: icmp, tcp 22 80 443 (operators)");
        let many: Vec<Grant> = default.iter().cycle().take(11).cloned().collect();
        let lines = grant_lines(&many);
        assert_eq!((lines.len(), lines[8].trim()), (9, "and 3 more; see: fleetgate grant list --host HOST"));
        assert!(grant_lines(&[])[0].contains("no grant is in effect"));
    }

    #[tokio::test]
    async fn a_removed_host_has_no_state() {
        let (client, _api) = crate::cli::tests::connected().await;
        let made: Value = client.post("/devices", &serde_json::json!({ "name": "cam-1" })).await.unwrap();
        let id = made["device"]["id"].as_str().unwrap();
        client.delete("/devices/cam-1", None).await.unwrap();
        let host: Host = client.get(&format!("/hosts/{id}"), &[]).await.unwrap();
        let lines = removed_lines(&host, host.removed_at.as_deref().unwrap());
        assert_eq!(lines[0], format!("removed  cam-1  {id}"));
        assert!(lines[1].ends_with("; only its history is kept"), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("pending")), "{lines:?}");
        show(&client, id).await.unwrap();
    }
}

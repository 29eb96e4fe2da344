//! `fleetgate ack` and `fleetgate downtime`: acknowledgements of problems, and planned work.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::device::{pair, present, said};
use super::host::pages;
use super::table;
use super::token::span;
use crate::api::model::{Acknowledgement, Downtime, Host};
use crate::cli::out;

#[derive(Args)]
pub(crate) struct AckArgs {
    host: String,
    service: Option<String>,
    #[command(flatten)]
    word: Word,
    /// Take it back
    #[arg(long)]
    remove: bool,
}

/// What is said with an acknowledgement, of whatever.
#[derive(Args)]
pub(crate) struct Word {
    /// Until it is well (of an incident: each of its members); else until the state changes
    #[arg(long)]
    sticky: bool,
    /// Ends after so long, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    #[arg(long, short = 'm', default_value = "")]
    comment: String,
}

impl Word {
    pub(crate) fn body(&self) -> anyhow::Result<Value> {
        let lasts = self.lasts.as_deref().map(|text| span("--for", text)).transpose()?;
        let expires = lasts.map(|lasts| table::now().saturating_add(lasts)).transpose()?;
        let expires = expires.map(|at| at.to_string());
        Ok(present(json!({ "sticky": self.sticky, "expires": expires, "comment": self.comment })))
    }
}

#[derive(Subcommand)]
pub(crate) enum DowntimeCommand {
    /// For a host and its services, one service, or all hosts with some labels
    Add(Box<AddArgs>),
    /// Those that are planned or in effect, or all
    List {
        #[arg(long)]
        all: bool,
    },
    /// End one at once, or before it begins
    Cancel { downtime: String },
}

#[derive(Args)]
pub(crate) struct AddArgs {
    host: Option<String>,
    service: Option<String>,
    /// key=value; hosts that have all of these, in place of one host
    #[arg(long = "label", value_parser = pair, conflicts_with = "host")]
    labels: Vec<(String, String)>,
    /// Only this service of each host
    #[arg(long = "service", requires = "labels")]
    of_each: Option<String>,
    /// RFC 3339, now when absent; with --every a time of day such as 02:00
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// RFC 3339
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// In place of --until: so long, such as 90m or 2h
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    lasts: Option<String>,
    /// Begins with the first failure in that time, and lasts so long
    #[arg(long, value_name = "TIME", conflicts_with = "every")]
    flexible: Option<String>,
    #[command(flatten)]
    again: Again,
    #[arg(long, short = 'm', default_value = "")]
    comment: String,
}

/// A window that comes again.
#[derive(Args)]
struct Again {
    /// day, sunday, mon-fri, 1st, "last day", "2nd tuesday", or several with commas between them
    #[arg(long, value_name = "DAYS", requires_all = ["from", "to"], conflicts_with_all = ["until", "lasts"])]
    every: Option<String>,
    /// The time of day at which each window ends; on the day after where it is not later than --from
    #[arg(long, value_name = "HH:MM", requires = "every")]
    to: Option<String>,
    /// Such as Europe/Vienna; else where the host stands by its label `timezone`, or UTC
    #[arg(long, value_name = "ZONE", requires = "every")]
    zone: Option<String>,
    /// The first date on which a window begins
    #[arg(long, value_name = "DATE", requires = "every")]
    first: Option<String>,
    /// The last date on which a window begins
    #[arg(long, value_name = "DATE", requires = "every")]
    last: Option<String>,
}

const HOW_LONG: &str = "say how long: --for 2h, --until TIME, or --every DAYS with --from and --to";

/// Returns the path of a host or one of its services. `cam-07/disk` is a service too, as in the
/// log.
pub(super) fn place(host: &str, service: Option<&str>) -> String {
    match (service, host.split_once('/')) {
        (Some(service), _) => format!("/hosts/{host}/services/{service}"),
        (None, Some((host, service))) => format!("/hosts/{host}/services/{service}"),
        (None, None) => format!("/hosts/{host}"),
    }
}

pub(crate) async fn acknowledge(client: &Client, args: AckArgs) -> anyhow::Result<()> {
    let place = place(&args.host, args.service.as_deref());
    let path = format!("{place}/acknowledgement");
    if args.remove {
        client.call(Method::DELETE, &path, None).await?;
        return said(client, "taken back: it is told again");
    }
    let made: Acknowledgement = client.post(&path, &args.word.body()?).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    said(client, &acknowledged(args.word.sticky, made.expires.as_deref()))
}

fn acknowledged(sticky: bool, expires: Option<&str>) -> String {
    let until = if sticky { "it is well" } else { "its state changes" };
    let latest = expires.map(|at| format!(", {} at the latest", table::clock_time(at)));
    format!("acknowledged until {until}{}", latest.unwrap_or_default())
}

pub(crate) async fn downtime(client: &Client, command: DowntimeCommand) -> anyhow::Result<()> {
    match command {
        DowntimeCommand::Add(args) => add(client, *args).await,
        DowntimeCommand::List { all } => list(client, all).await,
        DowntimeCommand::Cancel { downtime } => cancel(client, &downtime).await,
    }
}

async fn cancel(client: &Client, id: &str) -> anyhow::Result<()> {
    let path = format!("/downtimes/{id}");
    let found: Downtime = client.get(&path, &[]).await?;
    if let Some(at) = found.cancelled_at {
        return said(client, &format!("it was cancelled at {} already", table::clock_time(&at)));
    }
    client.call(Method::DELETE, &path, None).await?;
    said(client, "cancelled: what is wrong is told again")
}

async fn add(client: &Client, args: AddArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.host.is_some() || !args.labels.is_empty(),
        "say of what: a host, or --label key=value"
    );
    let path = match &args.host {
        Some(host) => format!("{}/downtimes", place(host, args.service.as_deref())),
        None => "/downtimes".to_owned(),
    };
    let made: Downtime = client.post(&path, &body(args)?).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    let whom = match &made.labels {
        Some(labels) => format!(", for {}", concerned(client, labels).await?),
        None => String::new(),
    };
    let (start, end) = (table::clock_time(&made.start), table::clock_time(&made.end));
    said(client, &format!("{} from {start} to {end}{whom}", made.id))
}

/// Counts the hosts of a selection. A typing error in a label would leave planned work without its
/// downtime.
async fn concerned(client: &Client, labels: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let hosts: Vec<Host> = pages(client, "/hosts", &[]).await?;
    let meant = |host: &&Host| labels.iter().all(|(k, v)| host.labels.get(k) == Some(v));
    Ok(match hosts.iter().filter(meant).count() {
        0 => "no host so far: none has these labels".to_owned(),
        1 => "1 host so far".to_owned(),
        n => format!("{n} hosts so far"),
    })
}

fn body(args: AddArgs) -> anyhow::Result<Value> {
    if args.again.every.is_some() {
        return Ok(repeated(args));
    }
    let from = args.from.as_deref().map(|text| moment("--from", text)).transpose()?;
    let start = from.unwrap_or_else(table::now);
    let lasts = args.lasts.as_deref().map(|text| span("--for", text)).transpose()?;
    let until = args.until.as_deref().map(|text| moment("--until", text)).transpose()?;
    let end = match (until, lasts) {
        (Some(end), _) => end,
        (None, Some(lasts)) => start.checked_add(lasts)?,
        (None, None) => anyhow::bail!("{HOW_LONG}"),
    };
    let flexible = args.flexible.as_deref().map(|text| span("--flexible", text)).transpose()?;
    Ok(present(json!({
        "labels": selection(args.labels),
        "service": args.of_each,
        "start": from.map(|at| at.to_string()),
        "end": end.to_string(),
        "fixed": flexible.is_none(),
        "duration_s": flexible.map(|d| d.as_secs()),
        "comment": args.comment,
    })))
}

fn selection(labels: Vec<(String, String)>) -> Option<Map<String, Value>> {
    let labels: Map<String, Value> = labels.into_iter().map(|(k, v)| (k, Value::String(v))).collect();
    (!labels.is_empty()).then_some(labels)
}

fn moment(option: &str, text: &str) -> anyhow::Result<Timestamp> {
    let expected = "a time such as 2026-03-10T13:03:22Z is expected; a time of day goes with --every";
    text.parse().map_err(|_| anyhow::anyhow!("{option} {text:?}: {expected}"))
}

fn repeated(args: AddArgs) -> Value {
    present(json!({
        "labels": selection(args.labels),
        "service": args.of_each,
        "recurrence": {
            "every": args.again.every,
            "from": args.from,
            "to": args.again.to,
            "time_zone": args.again.zone,
            "first_date": args.again.first,
            "last_date": args.again.last,
        },
        "comment": args.comment,
    }))
}

async fn list(client: &Client, all: bool) -> anyhow::Result<()> {
    let downtimes: Vec<Downtime> = pages(client, "/downtimes", &[("all", all.to_string())]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&downtimes)?);
        return Ok(());
    }
    if downtimes.is_empty() {
        return said(client, "none");
    }
    let row = |d: &Downtime| {
        vec![
            d.id.clone(),
            table::safe(&target(d)),
            table::clock_time(&d.start),
            ended(d),
            table::safe(&kind(d)),
            table::safe(&d.author),
            table::safe(&d.comment),
        ]
    };
    let headers = ["ID", "FOR", "START", "END", "EVERY", "BY", "COMMENT"];
    table::print(&headers, downtimes.iter().map(row).collect());
    Ok(())
}

fn ended(d: &Downtime) -> String {
    match &d.cancelled_at {
        Some(at) => format!("cancelled {}", table::clock_time(at)),
        None => table::clock_time(&d.end),
    }
}

fn target(d: &Downtime) -> String {
    let labels = d.labels.iter().flatten().map(|(k, v)| format!("{k}={v}"));
    let hosts = d.host_name.clone().unwrap_or_else(|| labels.collect::<Vec<_>>().join(" "));
    match &d.service {
        Some(service) => format!("{hosts} {service}"),
        None => hosts,
    }
}

/// Describes a downtime that is more than a start and an end.
fn kind(d: &Downtime) -> String {
    match (&d.recurrence, d.duration_s) {
        (Some(of), _) => {
            let zone = of.time_zone.as_deref().unwrap_or("UTC");
            let until = of.last_date.as_ref().map(|date| format!(" until {date}")).unwrap_or_default();
            format!("{} {}-{} {zone}{until}", of.every, of.from, of.to)
        }
        (None, Some(seconds)) => format!("flexible, {seconds} s"),
        (None, None) => "once".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_says_how_long_it_holds() {
        let at = Some("2026-03-10T13:03:22.5Z");
        assert_eq!(acknowledged(true, None), "acknowledged until it is well");
        let both = "acknowledged until its state changes, 2026-03-10 13:03:22Z at the latest";
        assert_eq!(acknowledged(false, at), both);
    }
}

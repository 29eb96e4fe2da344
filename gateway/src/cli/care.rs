//! `fleetgate ack` and `fleetgate downtime`: what people do about problems and work.

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::device::{pair, present, said};
use super::host::pages;
use super::table;
use super::token::span;
use crate::api::model::{Acknowledgement, Downtime};

#[derive(Args)]
pub(crate) struct AckArgs {
    host: String,
    service: Option<String>,
    /// Until it is well; else until the state changes
    #[arg(long)]
    sticky: bool,
    /// Ends after so long, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    #[arg(long, short = 'm', default_value = "")]
    comment: String,
    /// Take it back
    #[arg(long)]
    remove: bool,
}

#[derive(Subcommand)]
pub(crate) enum DowntimeCommand {
    /// For a host and its services, one service, or all hosts with some labels
    Add(AddArgs),
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
    #[arg(required_unless_present = "labels")]
    host: Option<String>,
    service: Option<String>,
    /// key=value; hosts that have all of these, in place of one host
    #[arg(long = "label", value_parser = pair, conflicts_with = "host")]
    labels: Vec<(String, String)>,
    /// Only this service of each host
    #[arg(long = "service", requires = "labels")]
    of_each: Option<String>,
    /// RFC 3339; now when absent
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// RFC 3339
    #[arg(long, value_name = "TIME", required_unless_present = "lasts")]
    until: Option<Timestamp>,
    /// In place of --until: so long, such as 90m or 2h
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    lasts: Option<String>,
    /// Begins with the first failure in that time, and lasts so long
    #[arg(long, value_name = "TIME")]
    flexible: Option<String>,
    #[arg(long, short = 'm', default_value = "")]
    comment: String,
}

/// The path of a host or one of its services.
fn place(host: &str, service: Option<&str>) -> String {
    match service {
        Some(service) => format!("/hosts/{host}/services/{service}"),
        None => format!("/hosts/{host}"),
    }
}

pub(crate) async fn acknowledge(client: &Client, args: AckArgs) -> anyhow::Result<()> {
    let place = place(&args.host, args.service.as_deref());
    let path = format!("{place}/acknowledgement");
    if args.remove {
        client.call(Method::DELETE, &path, None).await?;
        return said(client, "taken back: it is told again");
    }
    let lasts = args.lasts.as_deref().map(|text| span("--for", text)).transpose()?;
    let expires = lasts.map(|lasts| table::now().saturating_add(lasts)).transpose()?;
    let body = present(json!({
        "sticky": args.sticky,
        "expires": expires.map(|at| at.to_string()),
        "comment": args.comment,
    }));
    let made: Acknowledgement = client.post(&path, &body).await?;
    if client.json {
        println!("{}", serde_json::to_string_pretty(&made)?);
    }
    let until = if args.sticky { "until it is well" } else { "until its state changes" };
    said(client, &format!("acknowledged {until}"))
}

pub(crate) async fn downtime(client: &Client, command: DowntimeCommand) -> anyhow::Result<()> {
    match command {
        DowntimeCommand::Add(args) => add(client, args).await,
        DowntimeCommand::List { all } => list(client, all).await,
        DowntimeCommand::Cancel { downtime } => {
            client.call(Method::DELETE, &format!("/downtimes/{downtime}"), None).await?;
            said(client, "cancelled: what is wrong is told again")
        }
    }
}

async fn add(client: &Client, args: AddArgs) -> anyhow::Result<()> {
    let path = match &args.host {
        Some(host) => format!("{}/downtimes", place(host, args.service.as_deref())),
        None => "/downtimes".to_owned(),
    };
    let made: Downtime = client.post(&path, &body(args)?).await?;
    if client.json {
        println!("{}", serde_json::to_string_pretty(&made)?);
    }
    said(client, &format!("{} from {} to {}", made.id, made.start, made.end))
}

fn body(args: AddArgs) -> anyhow::Result<Value> {
    let start = args.from.unwrap_or_else(table::now);
    let lasts = args.lasts.as_deref().map(|text| span("--for", text)).transpose()?;
    let end = match args.until {
        Some(end) => end,
        None => start.checked_add(lasts.unwrap_or(SignedDuration::ZERO))?,
    };
    let flexible = args.flexible.as_deref().map(|text| span("--flexible", text)).transpose()?;
    let labels: Map<String, Value> = args.labels.into_iter().map(|(k, v)| (k, Value::String(v))).collect();
    Ok(present(json!({
        "labels": (!labels.is_empty()).then_some(labels),
        "service": args.of_each,
        "start": args.from.map(|at| at.to_string()),
        "end": end.to_string(),
        "fixed": flexible.is_none(),
        "duration_s": flexible.map(|d| d.as_secs()),
        "comment": args.comment,
    })))
}

async fn list(client: &Client, all: bool) -> anyhow::Result<()> {
    let downtimes: Vec<Downtime> = pages(client, "/downtimes", &[("all", all.to_string())]).await?;
    if client.json {
        println!("{}", serde_json::to_string_pretty(&downtimes)?);
        return Ok(());
    }
    if downtimes.is_empty() {
        return said(client, "none");
    }
    let row = |d: &Downtime| {
        vec![
            d.id.clone(),
            table::safe(&target(d)),
            d.start.clone(),
            d.cancelled_at.as_ref().map_or_else(|| d.end.clone(), |at| format!("cancelled {at}")),
            d.duration_s.map_or_else(String::new, |s| format!("{s} s")),
            table::safe(&d.author),
            table::safe(&d.comment),
        ]
    };
    let headers = ["ID", "FOR", "START", "END", "FLEXIBLE", "BY", "COMMENT"];
    table::print(&headers, downtimes.iter().map(row).collect());
    Ok(())
}

fn target(d: &Downtime) -> String {
    let labels = d.labels.iter().flatten().map(|(k, v)| format!("{k}={v}"));
    let hosts = d.host_name.clone().unwrap_or_else(|| labels.collect::<Vec<_>>().join(" "));
    match &d.service {
        Some(service) => format!("{hosts} {service}"),
        None => hosts,
    }
}

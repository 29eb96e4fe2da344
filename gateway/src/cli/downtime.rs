//! `fleetgate downtime`: planned work.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, api_path, path_of};
use super::device::{present, said};
use super::host::pages;
use super::host_args::pair;
use super::table::{self, Column};
use super::token::span;
use crate::api::downtimes::Downtime;
use crate::api::hosts::Host;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum DowntimeCommand {
    /// Plan a downtime for a host with its services, one service, or all hosts with given labels
    Add(Box<AddArgs>),
    /// List planned and active downtimes
    List {
        /// Also list downtimes that have ended or were cancelled
        #[arg(long)]
        all: bool,
        /// Only downtimes for this host, also those that select it by its labels
        #[arg(long, value_name = "HOST")]
        host: Option<String>,
    },
    /// Change times or comment of a downtime that is not over
    Set(Box<ChangeArgs>),
    /// Cancel a downtime, before it begins or while it is active
    Cancel {
        /// Id of the downtime, as in `fleetgate downtime list`
        #[arg(value_name = "ID")]
        downtime: String,
    },
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Name or id of the host
    host: Option<String>,
    /// Name of the service [default: the host with all its services]
    service: Option<String>,
    /// Instead of one host: all hosts with this label, as key=value; may be repeated
    #[arg(long = "label", value_parser = pair, conflicts_with = "host")]
    labels: Vec<(String, String)>,
    /// With --label: only this service of each host
    #[arg(long = "service", value_name = "SERVICE", requires = "labels")]
    of_each: Option<String>,
    /// Begin, as RFC 3339; with --every a time of day such as 02:00 [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End, as RFC 3339
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Duration instead of --until, such as 90m or 2h
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    lasts: Option<String>,
    /// Flexible downtime: it begins with the first problem in that time and lasts this long
    #[arg(long, value_name = "TIME", conflicts_with = "every")]
    flexible: Option<String>,
    #[command(flatten)]
    again: Again,
    /// Text that others read
    #[arg(long, short = 'm', default_value = "", hide_default_value = true, value_name = "TEXT")]
    comment: String,
}

/// A window that comes again.
#[derive(Args)]
struct Again {
    /// Repeat on: day, sunday, mon-fri, 1st, "last day", "2nd tuesday"; several with commas
    #[arg(long, value_name = "DAYS", requires_all = ["from", "to"], conflicts_with_all = ["until", "lasts"])]
    every: Option<String>,
    /// Time of day at which a repeated downtime ends; on the next day if it is not later than --from
    #[arg(long, value_name = "HH:MM", requires = "every")]
    to: Option<String>,
    /// Time zone, such as Europe/Vienna [default: the host's label timezone, or UTC]
    #[arg(long, value_name = "ZONE", requires = "every")]
    zone: Option<String>,
    /// First date of a repeated downtime
    #[arg(long, value_name = "DATE", requires = "every")]
    first: Option<String>,
    /// Last date of a repeated downtime
    #[arg(long, value_name = "DATE", requires = "every")]
    last: Option<String>,
}

/// The changes of a downtime.
#[derive(Args)]
pub(crate) struct ChangeArgs {
    /// Id of the downtime, as in `fleetgate downtime list`
    #[arg(value_name = "ID")]
    downtime: String,
    /// Begin, as RFC 3339; of a repeated downtime a time of day such as 02:00
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End, as RFC 3339
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Duration instead of --until, such as 90m or 2h
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    lasts: Option<String>,
    /// Duration of a flexible downtime that has not begun
    #[arg(long, value_name = "TIME")]
    flexible: Option<String>,
    /// Repeat on these days: day, sunday, mon-fri, 1st, "last day", "2nd tuesday"
    #[arg(long, value_name = "DAYS")]
    every: Option<String>,
    /// Time of day at which a repeated downtime ends
    #[arg(long, value_name = "HH:MM")]
    to: Option<String>,
    /// Time zone of a repeated downtime, such as Europe/Vienna
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// First date of a repeated downtime
    #[arg(long, value_name = "DATE")]
    first: Option<String>,
    /// Last date of a repeated downtime
    #[arg(long, value_name = "DATE")]
    last: Option<String>,
    /// Text that others read
    #[arg(long, short = 'm', value_name = "TEXT")]
    comment: Option<String>,
}

impl ChangeArgs {
    fn body(&self, now: &Downtime) -> anyhow::Result<Value> {
        let times = if now.recurrence.is_some() { self.recurrence()? } else { self.once(now)? };
        let mut body = present(times);
        if let Some(comment) = &self.comment {
            body["comment"] = json!(comment);
        }
        anyhow::ensure!(
            body != json!({}),
            "nothing to change: give at least one option, see `fleetgate downtime set --help`"
        );
        Ok(body)
    }

    fn once(&self, now: &Downtime) -> anyhow::Result<Value> {
        let of_repeated = [&self.every, &self.to, &self.zone, &self.first, &self.last];
        anyhow::ensure!(
            of_repeated.iter().all(|option| option.is_none()),
            "{} does not repeat: --every, --to, --zone, --first and --last need a new downtime",
            now.id
        );
        let start = self.from.as_deref().map(|text| moment("--from", text)).transpose()?;
        let lasts = self.lasts.as_deref().map(|text| span("--for", text)).transpose()?;
        let until = self.until.as_deref().map(|text| moment("--until", text)).transpose()?;
        let end = match lasts {
            Some(lasts) => Some(start.map_or_else(|| now.start.parse(), Ok)?.checked_add(lasts)?),
            None => until,
        };
        let flexible = self.flexible.as_deref().map(|text| span("--flexible", text)).transpose()?;
        Ok(json!({
            "start": start.map(|at: Timestamp| at.to_string()),
            "end": end.map(|at| at.to_string()),
            "duration_s": flexible.map(|d| d.as_secs()),
        }))
    }

    fn recurrence(&self) -> anyhow::Result<Value> {
        let of_single = [&self.until, &self.lasts, &self.flexible];
        anyhow::ensure!(
            of_single.iter().all(|option| option.is_none()),
            "this downtime repeats: change it with --from, --to, --every, --first and --last"
        );
        let recurrence = present(json!({
            "every": self.every,
            "from": self.from,
            "to": self.to,
            "time_zone": self.zone,
            "first_date": self.first,
            "last_date": self.last,
        }));
        Ok(if recurrence == json!({}) { json!({}) } else { json!({ "recurrence": recurrence }) })
    }
}

const HOW_LONG: &str = "give the duration: --for 2h, --until TIME, or --every DAYS with --from and --to";

pub(crate) async fn run(client: &Client, command: DowntimeCommand) -> anyhow::Result<()> {
    match command {
        DowntimeCommand::Add(args) => add(client, *args).await,
        DowntimeCommand::List { all, host } => list(client, all, host).await,
        DowntimeCommand::Set(args) => set(client, *args).await,
        DowntimeCommand::Cancel { downtime } => cancel(client, &downtime).await,
    }
}

async fn set(client: &Client, args: ChangeArgs) -> anyhow::Result<()> {
    let path = api_path!("/downtimes/{}", args.downtime);
    let before: Downtime = client.get(&path, &[]).await?;
    let changed = client.write(Method::PATCH, &path, &args.body(&before)?, Some(before.version)).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&changed)?);
    }
    let after: Downtime = serde_json::from_value(changed)?;
    let (start, end) = (table::clock_time(&after.start), table::clock_time(&after.end));
    said(client, &format!("Downtime {} changed: from {start} to {end}", after.id))
}

async fn cancel(client: &Client, id: &str) -> anyhow::Result<()> {
    let path = api_path!("/downtimes/{}", id);
    let found: Downtime = client.get(&path, &[]).await?;
    if let Some(at) = found.cancelled_at {
        return said(client, &format!("Already cancelled {}", table::clock_time(&at)));
    }
    client.call(Method::DELETE, &path, None).await?;
    said(client, "Downtime cancelled; notifications resume")
}

async fn add(client: &Client, args: AddArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.host.is_some() || !args.labels.is_empty(),
        "name a host, or hosts with --label key=value"
    );
    let path = match &args.host {
        Some(host) => format!("{}/downtimes", path_of(host, args.service.as_deref())),
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
    said(client, &format!("Downtime {} from {start} to {end}{whom}", made.id))
}

/// Counts the hosts of a selection. A typing error in a label would leave planned work without its
/// downtime.
async fn concerned(client: &Client, labels: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let hosts: Vec<Host> = pages(client, "/hosts", &[]).await?;
    let meant = |host: &&Host| labels.iter().all(|(k, v)| host.labels.get(k) == Some(v));
    Ok(match hosts.iter().filter(meant).count() {
        0 => "no host: none has these labels yet".to_owned(),
        1 => "1 host".to_owned(),
        n => format!("{n} hosts"),
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

pub(super) const COLUMNS: [Column; 7] = [
    Column::whole("ID"),
    Column::name("OBJECT"),
    Column::whole("START"),
    Column::whole("END"),
    Column::text("REPEATS").optional(),
    Column::name("AUTHOR").optional(),
    Column::text("COMMENT"),
];

async fn list(client: &Client, all: bool, host: Option<String>) -> anyhow::Result<()> {
    let mut query = vec![("all", all.to_string())];
    query.extend(host.map(|host| ("host", host)));
    let downtimes: Vec<Downtime> = pages(client, "/downtimes", &query).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&downtimes)?);
        return Ok(());
    }
    if downtimes.is_empty() {
        return said(client, if all { "No downtimes" } else { "No planned or active downtimes" });
    }
    let row = |d: &Downtime| {
        vec![
            d.id.clone(),
            table::safe(&target(d)),
            table::minute(&d.start),
            table::minute(d.cancelled_at.as_ref().unwrap_or(&d.end)),
            table::safe(&kind(d)),
            table::safe(&d.author),
            table::safe(&comment(d)),
        ]
    };
    table::print(&COLUMNS, downtimes.iter().map(row).collect());
    Ok(())
}

/// END of a cancelled downtime is when that was.
fn comment(d: &Downtime) -> String {
    let cancelled = d.cancelled_at.as_ref().map(|_| "cancelled");
    let given = (!d.comment.is_empty()).then_some(d.comment.as_str());
    cancelled.into_iter().chain(given).collect::<Vec<_>>().join("; ")
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

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: DowntimeCommand,
    }

    fn parsed(line: &str) -> DowntimeCommand {
        let line = <Line as clap::Parser>::try_parse_from(line.split(' '));
        line.map_err(|e| e.to_string()).expect("a command").command
    }

    #[tokio::test]
    async fn a_downtime_is_found_by_its_host_and_changed() {
        let (client, mut api) = crate::cli::tests::connected().await;
        let _monitor = api.start_monitor();
        for name in ["cam-1", "cam-2"] {
            let _: Value = client.post("/devices", &json!({ "name": name })).await.unwrap();
            run(&client, parsed(&format!("downtime add {name} --for 2h -m move"))).await.unwrap();
        }
        let of = |host: &str| vec![("host", host.to_owned())];
        let found: Vec<Downtime> = pages(&client, "/downtimes", &of("cam-1")).await.unwrap();
        let [one] = &found[..] else { panic!("{found:?}") };
        run(&client, parsed("downtime list --host cam-1")).await.unwrap();
        assert!(run(&client, parsed("downtime list --host cam-3")).await.is_err());
        let id = &one.id;
        run(&client, parsed(&format!("downtime set {id} --for 3h -m longer"))).await.unwrap();
        let after: Downtime = client.get(&format!("/downtimes/{id}"), &[]).await.unwrap();
        let lasts = |d: &Downtime| {
            let at = |text: &str| text.parse::<Timestamp>().unwrap();
            at(&d.end).duration_since(at(&d.start)).as_secs_f64().round()
        };
        assert_eq!((lasts(one), lasts(&after), after.comment.as_str()), (7_200.0, 10_800.0, "longer"));
        for (wrong, says) in [("", "nothing to change"), (" --every sunday", "does not repeat")] {
            let refused = run(&client, parsed(&format!("downtime set {id}{wrong}"))).await.unwrap_err();
            assert!(refused.to_string().contains(says), "{refused}");
        }
        let every = "downtime add cam-2 --every sunday --from 02:00 --to 04:00";
        run(&client, parsed(every)).await.unwrap();
        let found: Vec<Downtime> = pages(&client, "/downtimes", &of("cam-2")).await.unwrap();
        let again = found.iter().find(|d| d.recurrence.is_some()).unwrap();
        run(&client, parsed(&format!("downtime set {} --to 05:00", again.id))).await.unwrap();
        let after: Downtime = client.get(&format!("/downtimes/{}", again.id), &[]).await.unwrap();
        let of = after.recurrence.unwrap();
        assert_eq!((of.from.as_str(), of.to.as_str()), ("02:00", "05:00"));
        assert!(run(&client, parsed(&format!("downtime set {} --for 3h", again.id))).await.is_err());
    }
}

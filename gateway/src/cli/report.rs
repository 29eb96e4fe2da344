//! `fleetgate report`: how long hosts and services were available.

use clap::{Args, Subcommand};

use super::client::Client;
use super::device::said;
use super::table::{self, Column};
use super::token::when;
use crate::api::reports::{Availability, AvailabilityReport, ObjectAvailability};
use crate::cli::out;

/// Rows of one call, the most that the API gives.
const PAGE: usize = 2_000;

#[derive(Subcommand)]
pub(crate) enum ReportCommand {
    /// Show how long hosts or services were available
    Availability(AvailabilityArgs),
}

#[derive(Args)]
pub(crate) struct AvailabilityArgs {
    /// Begin: RFC 3339, or how long ago, such as 30d
    #[arg(long, value_name = "TIME")]
    from: String,
    /// End, in the same form [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only this host
    #[arg(long)]
    host: Option<String>,
    /// Only hosts with this label; can be given several times
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Only hosts of this site (the label site)
    #[arg(long)]
    site: Option<String>,
    /// This service of each host instead of the hosts; '*' for all services
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Print CSV
    #[arg(long)]
    csv: bool,
}

pub(crate) async fn run(client: &Client, command: ReportCommand) -> anyhow::Result<()> {
    let ReportCommand::Availability(args) = command;
    let found = fetch(client, &args).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&found)?);
    } else if args.csv {
        out::text!("{}", as_csv(&found)?);
    } else if found.items.is_empty() {
        said(client, "No host or service is selected")?;
    } else {
        print(&found);
    }
    Ok(())
}

async fn fetch(client: &Client, args: &AvailabilityArgs) -> anyhow::Result<AvailabilityReport> {
    let now = table::now();
    let to = args.to.as_deref().map(|to| when("--to", to, now)).transpose()?;
    let mut query = vec![("limit", PAGE.to_string()), ("from", when("--from", &args.from, now)?.to_string())];
    // All pages end at the same time.
    query.push(("to", to.unwrap_or(now).to_string()));
    let single = [("host", &args.host), ("site", &args.site), ("service", &args.service)];
    query.extend(single.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    query.extend(args.labels.iter().map(|label| ("label", label.clone())));
    let mut report: AvailabilityReport = client.get("/reports/availability", &query).await?;
    while let Some(after) = report.next.take() {
        let mut query = query.clone();
        query.push(("after", after));
        let page: AvailabilityReport = client.get("/reports/availability", &query).await?;
        report.items.extend(page.items);
        report.next = page.next;
    }
    Ok(report)
}

pub(super) const COLUMNS: [Column; 7] = [
    Column::name("HOST"),
    Column::name("SERVICE").optional(),
    Column::name("SITE").optional(),
    Column::whole("AVAILABLE"),
    Column::whole("NO MAINTENANCE"),
    Column::whole("UNAVAILABLE"),
    Column::whole("NOT KNOWN"),
];

fn print(report: &AvailabilityReport) {
    let mut rows: Vec<Vec<String>> = report.items.iter().map(row).collect();
    if report.sites.len() > 1 {
        let of = |site: &Option<String>| site.clone().unwrap_or_else(|| "no site".to_owned());
        rows.extend(report.sites.iter().map(|s| sum_row("all", &of(&s.site), &s.availability)));
    }
    if report.items.len() > 1 {
        rows.push(sum_row("all", "", &report.total));
    }
    out::line!("{} to {}", table::clock_time(&report.from), table::clock_time(&report.to));
    table::print(&COLUMNS, rows);
}

fn row(of: &ObjectAvailability) -> Vec<String> {
    let text = |text: &Option<String>| table::safe(text.as_deref().unwrap_or_default());
    let mut row = vec![table::safe(&of.host_name), text(&of.service), text(&of.site)];
    row.extend(numbers(&of.availability));
    row
}

fn sum_row(name: &str, site: &str, of: &Availability) -> Vec<String> {
    let mut row = vec![name.to_owned(), String::new(), table::safe(site)];
    row.extend(numbers(of));
    row
}

/// Available, outside of maintenance, not available, and not known.
pub(super) fn numbers(of: &Availability) -> [String; 4] {
    [
        percent(of.all.percent),
        percent(of.outside_maintenance.percent),
        table::time_span(of.all.known_s - of.all.available_s),
        table::time_span(of.unknown_s),
    ]
}

/// Three digits behind the point: a year has 31.5 million seconds. Rounded down, because 100 % means
/// not a moment less.
fn percent(percent: Option<f64>) -> String {
    percent.map_or("-".to_owned(), |percent| format!("{:.3} %", thousandths(percent) / 1_000.0))
}

/// 99.93 % is 99.92999999999999 as a number, and less than 100 % stays less.
fn thousandths(percent: f64) -> f64 {
    let down = (percent * 1_000.0 + 1e-6).floor();
    if percent < 100.0 { down.min(99_999.0) } else { down }
}

const CSV_HEAD: [&str; 12] = [
    "host",
    "service",
    "site",
    "from",
    "to",
    "percent",
    "available_s",
    "known_s",
    "unknown_s",
    "outside_maintenance_percent",
    "outside_maintenance_available_s",
    "outside_maintenance_known_s",
];

fn as_csv(report: &AvailabilityReport) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(CSV_HEAD)?;
    for of in &report.items {
        writer.write_record(csv_record(of, &report.from, &report.to))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

fn csv_record(of: &ObjectAvailability, from: &str, to: &str) -> [String; 12] {
    let number = |number: Option<f64>| number.map(|n| n.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| csv_text(text.as_deref().unwrap_or_default());
    let (all, outside) = (&of.availability.all, &of.availability.outside_maintenance);
    [
        csv_text(&of.host_name),
        text(&of.service),
        text(&of.site),
        from.to_owned(),
        to.to_owned(),
        number(all.percent),
        number(Some(all.available_s)),
        number(Some(all.known_s)),
        number(Some(of.availability.unknown_s)),
        number(outside.percent),
        number(Some(outside.available_s)),
        number(Some(outside.known_s)),
    ]
}

/// A spreadsheet takes a text that begins with one of these signs for a formula; a quote before it
/// makes it text.
fn csv_text(text: &str) -> String {
    let text = table::safe(text);
    if text.starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn args(from: &str) -> AvailabilityArgs {
        AvailabilityArgs {
            from: from.to_owned(),
            to: None,
            host: None,
            labels: Vec::new(),
            site: None,
            service: None,
            csv: false,
        }
    }

    fn shown(report: &AvailabilityReport) -> Vec<String> {
        as_csv(report).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn the_report_of_a_selection_is_fetched_and_printed() {
        let (client, _api) = crate::cli::tests::connected().await;
        for (name, site) in [("cam-1", "hill, north"), ("cam-2", "valley")] {
            let body = json!({ "name": name, "labels": { "site": site } });
            let _: Value = client.post("/devices", &body).await.unwrap();
        }
        let all = fetch(&client, &args("1h")).await.unwrap();
        let lines = shown(&all);
        assert_eq!((lines.len(), lines[0].clone()), (3, CSV_HEAD.join(",")));
        assert!(lines[1].starts_with("cam-1,,\"hill, north\",20"), "{}", lines[1]);
        assert!(lines[2].ends_with(",,0,0,3600,,0,0"), "no state is known: {}", lines[2]);
        let valley = AvailabilityArgs { site: Some("valley".into()), ..args("1h") };
        assert_eq!(fetch(&client, &valley).await.unwrap().items.len(), 1);
        let services = AvailabilityArgs { service: Some("*".into()), ..args("1h") };
        assert!(fetch(&client, &services).await.unwrap().items.len() > 2);
        let label = AvailabilityArgs { labels: vec!["site=valley".into(), "kind=nas".into()], ..args("1h") };
        assert!(fetch(&client, &label).await.unwrap().items.is_empty());
        run(&client, ReportCommand::Availability(args("1h"))).await.unwrap();
        let refused = fetch(&client, &args("yesterday")).await.unwrap_err().to_string();
        assert!(refused.contains("--from \"yesterday\": a time such as"), "{refused}");
    }

    #[test]
    fn a_percentage_is_rounded_down() {
        assert_eq!(percent(Some(99.999_99)), "99.999 %");
        assert_eq!(percent(Some(99.999_999_999_9)), "99.999 %");
        assert_eq!(percent(Some(0.9993 * 100.0)), "99.930 %");
        assert_eq!(percent(Some(100.0)), "100.000 %");
        assert_eq!(percent(None), "-");
    }

    #[test]
    fn a_text_in_csv_is_no_formula() {
        assert_eq!(csv_text("cam-07"), "cam-07");
        assert_eq!(csv_text("=1+1"), "'=1+1");
    }
}

//! `fleetgate metrics`: measured values as a table and a line of bars.

use clap::Args;
use fleetgate_engine::history::query::sparkline;
use reqwest::Url;
use serde_json::Value;

use super::care::place;
use super::client::{Client, api_path};
use super::device::said;
use super::table::{self, Column};
use super::token::when;
use crate::api::metrics::{Bucket, Samples, SeriesInfo};
use crate::api::types::Page;
use crate::cli::out;

/// The default number of points, which fits on a screen.
const USUAL_POINTS: u32 = 24;

#[derive(Args)]
pub(crate) struct MetricsArgs {
    /// A host (cam-07), or a service of it (cam-07/disk)
    object: String,
    /// Name of a metric [default: list all metrics]
    label: Option<String>,
    /// Begin: RFC 3339, or how long ago, such as 2h or 7d [default: 1d]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// End, in the same form [default: now]
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Largest number of rows
    #[arg(long, value_name = "NUMBER", default_value_t = USUAL_POINTS)]
    points: u32,
}

pub(crate) async fn run(client: &Client, args: MetricsArgs) -> anyhow::Result<()> {
    match &args.label {
        Some(label) => course(client, &args, label).await,
        None => list(client, &args.object).await,
    }
}

const METRIC_COLUMNS: [Column; 3] = [Column::name("SERVICE"), Column::name("METRIC"), Column::whole("UNIT")];

async fn list(client: &Client, object: &str) -> anyhow::Result<()> {
    let (host, service) = object.split_once('/').map_or((object, None), |(h, s)| (h, Some(s)));
    let page: Page<SeriesInfo> = client.get(&api_path!("/hosts/{}/metrics", host), &[]).await?;
    let wanted = |s: &&SeriesInfo| service.is_none() || s.service.as_deref() == service;
    let found: Vec<&SeriesInfo> = page.items.iter().filter(wanted).collect();
    if found.is_empty() {
        // An unknown service is an error that names the others.
        let _: Value = client.get(&place(object, None), &[]).await?;
    }
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    if found.is_empty() {
        return said(client, &format!("No metrics of {object} yet"));
    }
    let row = |s: &&SeriesInfo| {
        let service = s.service.as_deref().map(table::safe).unwrap_or_default();
        vec![service, table::safe(&s.label), table::safe(&s.uom)]
    };
    table::print(&METRIC_COLUMNS, found.iter().map(row).collect());
    Ok(())
}

const COLUMNS: [Column; 5] = [
    Column::whole("FROM"),
    Column::whole("MIN"),
    Column::whole("AVG"),
    Column::whole("MAX"),
    Column::whole("SAMPLES"),
];

async fn course(client: &Client, args: &MetricsArgs, label: &str) -> anyhow::Result<()> {
    let now = table::now();
    let mut query = vec![("points", args.points.to_string())];
    for (name, option, text) in [("from", "--from", &args.from), ("to", "--to", &args.to)] {
        query.extend(
            text.as_deref().map(|t| when(option, t, now)).transpose()?.map(|at| (name, at.to_string())),
        );
    }
    let samples: Samples =
        client.get(&format!("{}/metrics/{}", place(&args.object, None), segment(label)), &query).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&samples)?);
        return Ok(());
    }
    let buckets = samples.buckets.unwrap_or_default();
    if buckets.is_empty() {
        return said(client, "No samples in that time");
    }
    let value = |v: f64| format!("{}{}", table::number(v), table::safe(&samples.uom));
    let row = |b: &Bucket| {
        vec![table::clock_time(&b.at), value(b.min), value(b.avg), value(b.max), b.count.to_string()]
    };
    table::print(&COLUMNS, buckets.iter().map(row).collect());
    out::line!("\n{}", sparkline(&buckets.iter().map(|b| Some(b.avg)).collect::<Vec<_>>()));
    Ok(())
}

/// Encodes a label, which may contain anything, as one path segment.
fn segment(label: &str) -> String {
    let mut url: Url = "http://x/".parse().expect("an address of ours");
    url.path_segments_mut().expect("it has a path").clear().push(label);
    url.path().trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_does_not_exist_is_an_error_that_names_the_others() {
        let (client, _api) = crate::cli::tests::connected().await;
        let _: Value = client.post("/devices", &serde_json::json!({ "name": "cam-1" })).await.unwrap();
        let refused = list(&client, "cam-1/wrong").await.unwrap_err().to_string();
        assert!(refused.contains("cam-1 has no service \"wrong\"; it has: "), "{refused}");
        assert!(list(&client, "cam-2").await.is_err());
        list(&client, "cam-1/ping").await.unwrap();
        list(&client, "cam-1").await.unwrap();
    }

    #[test]
    fn a_label_is_one_part_of_a_path() {
        assert_eq!([segment("/var"), segment("a b"), segment("rta")], ["%2Fvar", "a%20b", "rta"]);
    }
}

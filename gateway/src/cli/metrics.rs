//! `fleetgate metrics`: measured values as a table and a line of bars.

use clap::Args;
use fleetgate_engine::history::query::sparkline;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::client::{Client, api_path, path_of};
use super::device::said;
use super::table::{self, Column};
use super::token::when;
use crate::api::metrics::SeriesInfo;
use crate::api::metrics_query::{MetricsQuery, QueriedSeries};
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
    let (host, service) = parts(object);
    let page: Page<SeriesInfo> = client.get(&api_path!("/hosts/{}/metrics", host), &[]).await?;
    let wanted = |s: &&SeriesInfo| service.is_none() || s.service.as_deref() == service;
    let found: Vec<&SeriesInfo> = page.items.iter().filter(wanted).collect();
    if found.is_empty() {
        // An unknown service is an error that names the others.
        let _: Value = client.get(&path_of(object, None), &[]).await?;
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
    let (host, service) = parts(&args.object);
    let mut query = vec![("host", host.to_owned()), ("metric", label.to_owned())];
    query.push(("points", args.points.to_string()));
    query.extend(service.map(|service| ("service", service.to_owned())));
    for (name, option, text) in [("from", "--from", &args.from), ("to", "--to", &args.to)] {
        query.extend(
            text.as_deref().map(|t| when(option, t, now)).transpose()?.map(|at| (name, at.to_string())),
        );
    }
    let found: MetricsQuery = client.get("/metrics/query", &query).await?;
    let Some(series) = found.series.first() else {
        // An unknown service is an error that names the others.
        let _: Value = client.get(&path_of(&args.object, None), &[]).await?;
        let object = &args.object;
        anyhow::bail!("{object} has no samples of {label:?}: `fleetgate metrics {object}` lists its metrics");
    };
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    let rows = rows(series);
    if rows.is_empty() {
        return said(client, "No samples in that time");
    }
    table::print(&COLUMNS, rows);
    out::line!("\n{}", sparkline(&series.avg).trim_end());
    Ok(())
}

fn parts(object: &str) -> (&str, Option<&str>) {
    object.split_once('/').map_or((object, None), |(host, service)| (host, Some(service)))
}

/// Returns a row for each step that has a value.
fn rows(series: &QueriedSeries) -> Vec<Vec<String>> {
    let start: Timestamp = series.start.parse().unwrap_or_default();
    let at = |step: usize| {
        let steps = i64::try_from(step).unwrap_or(i64::MAX);
        let after = SignedDuration::from_secs(steps.saturating_mul(series.step_s));
        table::clock_time(&start.saturating_add(after).unwrap_or(start).to_string())
    };
    let value = |v: f64| format!("{}{}", table::number(v), table::safe(&series.uom));
    let row = |step: usize| {
        let of = |column: &[Option<f64>]| column.get(step).copied().flatten();
        let (min, avg, max) = (of(&series.min)?, of(&series.avg)?, of(&series.max)?);
        let count = series.count.get(step).copied().unwrap_or_default();
        Some(vec![at(step), value(min), value(avg), value(max), count.to_string()])
    };
    (0..series.avg.len()).filter_map(row).collect()
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

    #[tokio::test]
    async fn a_metric_without_samples_is_an_error_that_says_where_to_look() {
        let (client, _api) = crate::cli::tests::connected().await;
        let _: Value = client.post("/devices", &serde_json::json!({ "name": "cam-1" })).await.unwrap();
        let args = |object: &str| MetricsArgs {
            object: object.to_owned(),
            label: Some("rta".to_owned()),
            from: Some("90d".to_owned()),
            to: None,
            points: USUAL_POINTS,
        };
        let refused = run(&client, args("cam-1/ping")).await.unwrap_err().to_string();
        assert!(
            refused.contains("cam-1/ping has no samples of \"rta\": `fleetgate metrics cam-1/ping`"),
            "{refused}"
        );
        let refused = run(&client, args("cam-1/wrong")).await.unwrap_err().to_string();
        assert!(refused.contains("cam-1 has no service \"wrong\"; it has: "), "{refused}");
        assert!(run(&client, args("cam-2/ping")).await.is_err());
    }

    #[test]
    fn a_step_without_a_value_has_no_row() {
        let series = QueriedSeries {
            host_id: None,
            host: None,
            group: None,
            hosts: None,
            start: "2026-03-10T00:00:00Z".to_owned(),
            step_s: 3_600,
            tier: "1h".to_owned(),
            uom: "ms".to_owned(),
            min: vec![Some(1.0), None, Some(0.5)],
            avg: vec![Some(1.5), None, Some(2.0)],
            max: vec![Some(2.0), None, Some(3.25)],
            count: vec![2, 0, 9],
            worst: None,
            limits: None,
        };
        let shown: Vec<String> = rows(&series).iter().map(|row| row.join(" ")).collect();
        assert_eq!(
            shown,
            ["2026-03-10 00:00:00Z 1ms 1.5ms 2ms 2", "2026-03-10 02:00:00Z 0.5ms 2ms 3.25ms 9"]
        );
    }
}

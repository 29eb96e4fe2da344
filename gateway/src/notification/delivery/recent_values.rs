//! Reads the last hours of the value that a mail is about.
//!
//! They only illustrate the mail. It is sent without them if they cannot be read in a moment.

use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::history::query::{Plan, Tier, columns};
use fleetgate_engine::history::rollup::roll_up;
use fleetgate_engine::history::{Point, Second, SeriesKind};
use fleetgate_engine::time::Wall;
use fleetgate_probes::range::Range;
use fleetgate_probes::sample::Metric;

use super::Round;
use crate::clock;
use crate::notification::mail::value_part::RecentValues;
use crate::store::notices::NoticeRow;
use crate::store::outbox::{Contents, MessageRow, OutboxKind};
use crate::store::states;

/// The time before a mail that its bars show.
const HOURS: u32 = 6;
/// The time of one bar: 36 of them fit in a line of a mail.
const BAR_S: Second = 600;
/// Time limit for reading the values, which takes a few milliseconds. A mail is not delayed for longer.
const PATIENCE: Duration = Duration::from_millis(250);

impl Round {
    /// Returns the recent values of a mail about one host or service whose state depends on a value.
    pub(super) async fn recent_values(
        &self,
        message: &MessageRow,
        contents: &Contents,
    ) -> Option<RecentValues> {
        let one = contents.notices.first().filter(|_| contents.total() == 1)?;
        if message.kind != OutboxKind::Notices {
            return None;
        }
        let read = tokio::time::timeout(PATIENCE, self.read_recent(one, clock::wall())).await;
        let read = read.unwrap_or_else(|elapsed| Err(elapsed.into()));
        read.inspect_err(|e| tracing::warn!("a mail goes without its recent values: {e:#}")).ok().flatten()
    }

    async fn read_recent(&self, notice: &NoticeRow, now: Wall) -> anyhow::Result<Option<RecentValues>> {
        let service = notice.service.as_deref();
        let metrics = self.metrics(notice, service).await?;
        let Some(metric) = evaluated(&metrics) else { return Ok(None) };
        let known = self.store.series_of(&[notice.host], service.unwrap_or_default(), &metric.label).await?;
        let Some(series) = known.into_iter().next() else { return Ok(None) };
        let plan = last_hours(now);
        let points = self.history.series(series.id, plan.start, plan.end).await?;
        // A last result without a value may lack the unit too.
        Ok(recent(&Metric { uom: series.uom, ..metric.clone() }, &points, &plan))
    }

    /// Returns the metrics of the last result.
    async fn metrics(&self, notice: &NoticeRow, service: Option<&str>) -> anyhow::Result<Arc<[Metric]>> {
        let mut conn = self.store.reader().await?;
        let metrics = match service {
            Some(service) => {
                let state = states::of_service(&mut conn, notice.host, service).await?;
                state.map(|state| state.result.metrics)
            }
            None => states::of_host(&mut conn, notice.host).await?.map(|state| state.detail.metrics),
        };
        Ok(metrics.unwrap_or_default())
    }
}

/// Returns the metric that explains the state: one beyond its critical limit, then one beyond its warning
/// limit, then the first that has a limit. `None` if no metric has one: the state does not depend on a value.
fn evaluated(metrics: &[Metric]) -> Option<&Metric> {
    let alerts = |range: Option<Range>, m: &Metric| range.zip(m.value).is_some_and(|(r, v)| r.alerts(v));
    let crit = metrics.iter().find(|m| alerts(m.crit, m));
    let warn = || metrics.iter().find(|m| alerts(m.warn, m));
    let limited = || metrics.iter().find(|m| m.warn.is_some() || m.crit.is_some());
    crit.or_else(warn).or_else(limited)
}

/// Returns whole bars, of which the last contains this moment.
fn last_hours(now: Wall) -> Plan {
    let end = (now.as_millis().div_euclid(1_000).div_euclid(BAR_S) + 1) * BAR_S;
    Plan { tier: Tier::Raw, step: BAR_S, start: end - Second::from(HOURS) * 3_600, end }
}

/// Rolls the samples up. `None` if none of them has a value.
fn recent(metric: &Metric, points: &[Point], plan: &Plan) -> Option<RecentValues> {
    let kind = SeriesKind::of(&metric.uom);
    let columns = columns(&roll_up(points, None, kind, plan.step), plan);
    Some(RecentValues {
        metric: metric.label.clone(),
        uom: if kind == SeriesKind::Counter { "/s".to_owned() } else { metric.uom.clone() },
        hours: HOURS,
        low: columns.min.iter().flatten().copied().reduce(f64::min)?,
        high: columns.max.iter().flatten().copied().reduce(f64::max)?,
        averages: columns.avg,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(label: &str, value: f64, warn: &str, crit: &str) -> Metric {
        Metric { warn: warn.parse().ok(), crit: crit.parse().ok(), ..Metric::plain(label, value, "%") }
    }

    fn label(metrics: &[Metric]) -> Option<&str> {
        evaluated(metrics).map(|m| m.label.as_str())
    }

    #[test]
    fn the_value_beyond_its_limit_explains_the_state() {
        let [free, inodes, used] = [
            limited("free", 5.0, "", ""),
            limited("inodes", 85.0, "80", "90"),
            limited("used", 95.0, "80", "90"),
        ];
        assert_eq!(label(&[free.clone(), inodes.clone(), used.clone()]), Some("used"));
        assert_eq!(label(&[free.clone(), inodes.clone()]), Some("inodes"));
        let well = limited("used", 20.0, "80", "90");
        assert_eq!(label(&[free.clone(), well]), Some("used"), "recovered");
        assert_eq!(label(&[free]), None, "without a limit");
    }

    #[test]
    fn the_last_bar_contains_now_and_a_gap_stays_one() {
        let now = Wall::from_millis(1_773_147_810_000);
        let plan = last_hours(now);
        assert_eq!((plan.end - plan.start, plan.start % BAR_S), (6 * 3_600, 0));
        let at = now.as_millis() / 1_000;
        assert!(plan.end - BAR_S <= at && at < plan.end);
        let points = [(at - 3_600, 61.0), (at - 60, 80.0), (at, 90.0)];
        let points = points.map(|(at, value)| Point { at, value: Some(value) });
        let values = recent(&limited("used", 90.0, "80", ""), &points, &plan).unwrap();
        assert_eq!((values.averages.len(), values.low, values.high), (36, 61.0, 90.0));
        assert_eq!(values.averages.iter().flatten().count(), 2 + usize::from(at % BAR_S < 60));
        assert_eq!(recent(&limited("used", 90.0, "80", ""), &[], &plan), None);
    }
}

//! The forecast of a result's value, as one of its metrics.
//!
//! The shell makes forecasts from the history. Here they become an ordinary metric, on which a threshold can be set. A
//! forecast that is not renewed is none after a day.

use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::sample::Metric;

use crate::messages::{FULL_WITHIN, FullAt, USED};
use crate::time::Wall;

/// Forecasts are made each hour.
const STALE: Duration = Duration::from_secs(86_400);

/// Returns the time until the value of a result is full, in whole seconds. `at`: the time of the result.
pub fn full_within(result: &PluginResult, forecast: &FullAt, at: Wall) -> Option<Metric> {
    let known = |label: &str| result.metrics.iter().find(|m| m.label == label);
    let is_measured = known(USED).is_some_and(|used| used.value.is_some()) && known(FULL_WITHIN).is_none();
    let full_at = forecast.at.filter(|_| is_measured && at.since(forecast.made_at) <= STALE)?;
    Some(Metric::amount(FULL_WITHIN, full_at.since(at).as_secs() as f64, "s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn said(forecast: &FullAt, metrics: Vec<Metric>, at: i64) -> Option<Metric> {
        full_within(
            &PluginResult { metrics: metrics.into(), ..PluginResult::ok("") },
            forecast,
            Wall::from_millis(at),
        )
    }

    #[test]
    fn a_forecast_is_a_metric_of_a_result_with_its_value() {
        let [hour, day] = [3_600_000, 86_400_000];
        let (at, made_at) = (Some(Wall::from_millis(2 * day)), Wall::from_millis(0));
        let forecast = FullAt { host: Id::from_i64(1), service: "disk".into(), at, made_at };
        let used = || Metric::percent(USED, 80.0);
        let metric = Metric::amount(FULL_WITHIN, 47.0 * 3_600.0, "s");
        assert_eq!(
            said(&forecast, vec![used()], hour + 1),
            Some(Metric { value: Some(169_199.0), ..metric.clone() })
        );
        assert_eq!(said(&forecast, vec![used()], hour), Some(metric.clone()));
        assert_eq!(said(&forecast, vec![], hour), None, "it was not measured");
        assert_eq!(said(&forecast, vec![Metric::gap(USED, "%")], hour), None);
        assert_eq!(said(&forecast, vec![used(), metric], hour), None, "the result has its own");
        assert_eq!(said(&forecast, vec![used()], day + 1), None, "it was not renewed");
        let over = FullAt { at: Some(Wall::from_millis(hour)), ..forecast.clone() };
        assert_eq!(said(&over, vec![used()], day), Some(Metric::amount(FULL_WITHIN, 0.0, "s")));
        assert_eq!(said(&FullAt { at: None, ..forecast }, vec![used()], hour), None);
    }
}

//! The forecasts of the services of a host, as the API shows them.

use std::collections::BTreeMap;

use fleetgate_engine::forecast::accuracy;
use fleetgate_engine::history::Second;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::request::ids::{time, time_if_known};
use crate::store::forecasts::{Earlier, Stored};

/// When something is full, by its past. Made once an hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Forecast {
    /// Such as `full in about 9 days` or `the daily purge keeps it below 85 %`.
    pub text: String,
    /// Absent if a purge keeps it from being full, or it is not full for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_at: Option<String>,
    pub made_at: String,
    pub basis: ForecastBasis,
    /// The median by which forecasts of the last 30 days were off. Those count that were made at least a day before it
    /// was full, or whose time is over. Absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub error_s: Option<f64>,
    /// For some of them it was not full up to now, so that they were off by at least so much.
    #[serde(default)]
    pub error_is_least: bool,
    /// The median by which `full_at` of those that cannot be judged yet differs from this one. Absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub change_s: Option<f64>,
}

/// What a forecast is based on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ForecastBasis {
    /// The first and the last peak.
    pub from: String,
    pub to: String,
    /// Peaks before purges; without purges, maxima of equal times.
    #[schema(minimum = 4)]
    pub peaks: u32,
    /// The usual time between purges. Absent if there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub period_s: Option<i64>,
    /// How much the peaks grow in a day, in percent of the whole.
    pub slope_per_day: f64,
    /// How far the peaks usually are from their line, in percent of the whole.
    #[schema(minimum = 0)]
    pub spread: f64,
}

/// Returns forecasts by service. `earlier`: those of the days before, by service.
pub fn by_service(
    stored: Vec<Stored>,
    earlier: &BTreeMap<String, Earlier>,
    now: Wall,
) -> BTreeMap<String, Forecast> {
    let shown = |forecast: Stored| {
        let shown = shown(&forecast, earlier.get(&forecast.service), now);
        (forecast.service, shown)
    };
    stored.into_iter().map(shown).collect()
}

fn shown(forecast: &Stored, earlier: Option<&Earlier>, now: Wall) -> Forecast {
    let present = (forecast.full_at.map(seconds), forecast.full_since.map(seconds));
    let earlier = earlier.map(Vec::as_slice).unwrap_or_default();
    let accuracy = accuracy(earlier, seconds(now), present);
    let basis = &forecast.basis;
    let at = |second: Second| time(Wall::from_millis(second.saturating_mul(1_000)));
    Forecast {
        text: forecast.text.clone(),
        full_at: time_if_known(forecast.full_at),
        made_at: time(forecast.at),
        basis: ForecastBasis {
            from: at(basis.from),
            to: at(basis.to),
            peaks: basis.peaks,
            period_s: basis.period_s,
            slope_per_day: basis.slope_per_day,
            spread: basis.spread,
        },
        error_s: accuracy.error_s,
        error_is_least: accuracy.is_least,
        change_s: accuracy.change_s,
    }
}

fn seconds(at: Wall) -> Second {
    at.as_millis().div_euclid(1_000)
}

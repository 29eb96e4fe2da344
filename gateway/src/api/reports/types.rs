//! The JSON of reports.

use fleetgate_engine::availability::{Condition, Shares, Sums};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::types::names;

/// How long hosts or services were available.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AvailabilityReport {
    pub from: String,
    /// Not included. Not later than the time of the answer.
    pub to: String,
    /// The sum of the whole selection, on every page.
    pub total: Availability,
    /// The sums by the label `site`, on every page.
    pub sites: Vec<SiteAvailability>,
    /// By name. Hosts, or services if the call selects services.
    pub items: Vec<ObjectAvailability>,
    /// The next page, as `after`; null on the last.
    pub next: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SiteAvailability {
    /// Null for hosts without this label.
    pub site: Option<String>,
    /// Hosts or services.
    #[schema(minimum = 1)]
    pub objects: u64,
    pub availability: Availability,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ObjectAvailability {
    /// The id of the host.
    pub host: String,
    pub host_name: String,
    pub site: Option<String>,
    /// Null for the host itself.
    pub service: Option<String>,
    pub availability: Availability,
}

/// The known time is the time with a state. Outages of the gateway, unreachable hosts and time without a result are not
/// known and do not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Availability {
    #[serde(flatten)]
    pub all: AvailabilityShares,
    #[schema(minimum = 0)]
    pub unknown_s: f64,
    /// The same without the time in downtimes.
    pub outside_maintenance: AvailabilityShares,
    /// All time by what held. Conditions without time are absent.
    pub conditions: Vec<ConditionTime>,
}

/// The available part of a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AvailabilityShares {
    /// The available part of the known time; null if no time is known.
    #[schema(minimum = 0, maximum = 100)]
    pub percent: Option<f64>,
    #[schema(minimum = 0)]
    pub available_s: f64,
    #[schema(minimum = 0)]
    pub known_s: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConditionTime {
    #[schema(value_type = names::AvailabilityCondition)]
    pub condition: String,
    #[schema(minimum = 0)]
    pub seconds: f64,
}

impl From<&Sums> for Availability {
    fn from(sums: &Sums) -> Self {
        let all = sums.all();
        let times = Condition::ALL.into_iter().map(|condition| (condition, all.of(condition)));
        let time = |(condition, ms): (Condition, u64)| ConditionTime {
            condition: condition.name().to_owned(),
            seconds: seconds(ms),
        };
        Availability {
            all: (&all).into(),
            unknown_s: seconds(all.total() - all.known()),
            outside_maintenance: (&sums.normal).into(),
            conditions: times.filter(|(_, ms)| *ms > 0).map(time).collect(),
        }
    }
}

impl From<&Shares> for AvailabilityShares {
    fn from(shares: &Shares) -> Self {
        AvailabilityShares {
            percent: shares.availability().map(|part| part * 100.0),
            available_s: seconds(shares.available()),
            known_s: seconds(shares.known()),
        }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

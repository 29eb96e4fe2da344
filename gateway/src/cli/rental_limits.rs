//! Thresholds of a rental on the command line: `--warn ping:rta=200 --crit ping:rta=500`.

use clap::Args;

use super::host_args::pair;
use crate::api::rentals::RentalThreshold;

/// A range, and the service and metric that it is for.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    service: String,
    metric: String,
    range: String,
}

#[derive(Args, Clone, Debug, Default)]
pub(super) struct RentalLimits {
    /// WARNING outside of this range while the rental is active, such as
    /// ping:rta=200 (an empty range: no limit)
    #[arg(long, value_name = "SERVICE:METRIC=RANGE", value_parser = parse)]
    warn: Vec<Limit>,
    /// CRITICAL outside of this range, in the same form
    #[arg(long, value_name = "SERVICE:METRIC=RANGE", value_parser = parse)]
    crit: Vec<Limit>,
}

fn parse(text: &str) -> Result<Limit, String> {
    let (service, limit) =
        text.split_once(':').ok_or_else(|| format!("{text:?}: expected service:metric=range"))?;
    let (metric, range) = pair(limit)?;
    Ok(Limit { service: service.to_owned(), metric, range })
}

impl RentalLimits {
    /// Returns what was given, if anything was.
    pub fn given(&self) -> Option<Vec<RentalThreshold>> {
        let mut all: Vec<RentalThreshold> = Vec::new();
        for limit in &self.warn {
            slot(&mut all, limit).warn = range(limit);
        }
        for limit in &self.crit {
            slot(&mut all, limit).crit = range(limit);
        }
        Some(all).filter(|all| !all.is_empty())
    }
}

fn range(limit: &Limit) -> Option<String> {
    Some(limit.range.clone()).filter(|range| !range.is_empty())
}

fn slot<'a>(all: &'a mut Vec<RentalThreshold>, limit: &Limit) -> &'a mut RentalThreshold {
    let known = all.iter().position(|of| (&of.service, &of.metric) == (&limit.service, &limit.metric));
    let at = known.unwrap_or_else(|| {
        let (service, metric) = (limit.service.clone(), limit.metric.clone());
        all.push(RentalThreshold { service, metric, warn: None, crit: None });
        all.len() - 1
    });
    &mut all[at]
}

/// Formats `ping:rta warn 200 crit 500`.
pub(super) fn words(threshold: &RentalThreshold) -> String {
    let RentalThreshold { service, metric, warn, crit } = threshold;
    let of = |name: &str, range: &Option<String>| {
        range.as_deref().map(|range| format!(" {name} {range}")).unwrap_or_default()
    };
    match (warn, crit) {
        (None, None) => format!("{service}:{metric} without limit"),
        _ => format!("{service}:{metric}{}{}", of("warn", warn), of("crit", crit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_of_a_metric_are_one_threshold() {
        let given = |texts: &[&str]| texts.iter().map(|text| parse(text).unwrap()).collect::<Vec<Limit>>();
        let limits = RentalLimits {
            warn: given(&["ping:rta=200", "disk:used="]),
            crit: given(&["ping:rta=500", "load:load1=@1:2"]),
        };
        let shown: Vec<String> = limits.given().unwrap().iter().map(words).collect();
        let expected = ["ping:rta warn 200 crit 500", "disk:used without limit", "load:load1 crit @1:2"];
        assert_eq!(shown, expected);
        assert_eq!(RentalLimits::default().given(), None);
        for bad in ["rta=200", "ping:rta"] {
            assert!(parse(bad).unwrap_err().contains("expected"), "{bad}");
        }
    }
}

//! Reads and shows the thresholds that services of a device have while a rental is active.

use fleetgate_engine::messages::Threshold;
use serde_json::json;

use super::types::RentalThreshold;
use crate::api::request::parse::Fields;
use crate::api::types::ThresholdSettings;
use crate::store::definition;
use crate::store::rentals::thresholds::Limits;

/// Thresholds of one rental.
const MOST: usize = 32;

/// Reads thresholds. `field`: where they stand in the request.
pub fn thresholds(wrong: &mut Fields, field: &str, list: Vec<RentalThreshold>) -> Option<Limits> {
    if list.len() > MOST {
        return wrong.take(field, Err(format!("at most {MOST} thresholds are expected")));
    }
    let (mut limits, mut is_fine) = (Limits::new(), true);
    for (n, given) in list.into_iter().enumerate() {
        is_fine &= add(wrong, &format!("{field}[{n}]"), &mut limits, given).is_some();
    }
    is_fine.then_some(limits)
}

fn add(wrong: &mut Fields, field: &str, limits: &mut Limits, given: RentalThreshold) -> Option<()> {
    let RentalThreshold { service, metric, warn, crit } = given;
    let name = definition::service_name(&service).map_err(|error| error.detail);
    wrong.take(&format!("{field}.service"), name)?;
    let read = definition::thresholds(&json!([ThresholdSettings { metric, warn, crit }]));
    let read = match read {
        Ok(mut one) => one.pop()?,
        Err(error) => {
            let at = error.field.replacen("thresholds[0]", field, 1);
            return wrong.take(&at, Err(error.detail));
        }
    };
    let own = limits.entry(service).or_default();
    if own.iter().any(|known| known.metric == read.metric) {
        return wrong.take(&format!("{field}.metric"), Err("is given twice for this service"));
    }
    own.push(read);
    Some(())
}

pub fn to_api(limits: &Limits) -> Vec<RentalThreshold> {
    limits.iter().flat_map(|(service, own)| own.iter().map(|of| shown(service, of))).collect()
}

fn shown(service: &str, threshold: &Threshold) -> RentalThreshold {
    let ThresholdSettings { metric, warn, crit } = threshold.into();
    RentalThreshold { service: service.to_owned(), metric, warn, crit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(service: &str, metric: &str, warn: Option<&str>) -> RentalThreshold {
        let warn = warn.map(str::to_owned);
        RentalThreshold { service: service.to_owned(), metric: metric.to_owned(), warn, crit: None }
    }

    #[test]
    fn thresholds_are_kept_by_service_and_each_wrong_one_is_named() {
        let mut wrong = Fields::default();
        let fine = vec![given("disk", "used", Some("80")), given("ping", "rta", None)];
        let read = thresholds(&mut wrong, "thresholds", fine.clone()).unwrap();
        assert_eq!(to_api(&read), fine);
        wrong.finish().unwrap();
        for (bad, field) in [
            (vec![given("", "used", Some("80"))], "thresholds[0].service"),
            (vec![given("disk", "", Some("80"))], "thresholds[0].metric"),
            (vec![given("disk", "used", Some("x"))], "thresholds[0].warn"),
            (vec![given("disk", "used", None), given("disk", "used", None)], "thresholds[1].metric"),
            (vec![given("disk", "used", None); 33], "thresholds"),
        ] {
            let mut wrong = Fields::default();
            assert_eq!(thresholds(&mut wrong, "thresholds", bad.clone()), None, "{bad:?}");
            let problem = wrong.finish().unwrap_err().to_string();
            assert!(problem.starts_with(&format!("invalid: {field}: ")), "{problem}");
        }
    }
}

//! Jobs as JSON: the fields of a check of type `heartbeat`.

use std::time::Duration;

use fleetgate_probes::job::{Deadline, Due, Job};
use serde_json::{Map, Value, json};

use super::sensor::{days, days_json, time, time_json, zone, zone_json};
use super::{FieldError, Fields, wrong};

/// Enough for a monthly job by the clock of its own program.
const LONGEST_INTERVAL_S: f64 = 62.0 * 86_400.0;
const LONGEST_GRACE_S: f64 = 7.0 * 86_400.0;
/// The default grace of a job. A backup takes longer on some nights.
const USUAL_GRACE: Duration = Duration::from_secs(900);

pub fn take(fields: &mut Fields) -> Result<Job, FieldError> {
    let grace = fields.seconds_from("grace_s", 0.0, LONGEST_GRACE_S)?.unwrap_or(USUAL_GRACE);
    let every = fields.seconds_from("every_s", 1.0, LONGEST_INTERVAL_S)?;
    let by = time(fields, "by")?;
    let (days, zone) = (days(fields)?, zone(fields)?);
    let due = match (every, by) {
        (Some(_), None) if !days.is_empty() || zone.is_some() => {
            return Err(wrong(fields.path_of("by"), "days and zone belong to it"));
        }
        (Some(every), None) => Due::Every(every),
        (None, Some(time)) => Due::By(Deadline { time, days, zone }),
        _ => return Err(wrong(fields.path_of("by"), "either a time of day or every_s is expected")),
    };
    Ok(Job { due, grace })
}

pub fn to_json(job: &Job) -> Value {
    let grace = ("grace_s", Some(json!(job.grace.as_secs_f64())));
    let due = match &job.due {
        Due::Every(every) => vec![("every_s", Some(json!(every.as_secs_f64())))],
        Due::By(by) => vec![
            ("by", Some(time_json(by.time))),
            ("days", days_json(&by.days)),
            ("zone", zone_json(by.zone.as_ref())),
        ],
    };
    let fields = due.into_iter().chain([grace]);
    Value::Object(fields.filter_map(|(name, v)| Some((name.to_owned(), v?))).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<Job, FieldError> {
        let mut fields = Fields::of("check", value)?;
        let job = take(&mut fields)?;
        fields.end()?;
        Ok(job)
    }

    #[test]
    fn every_job_survives_its_json() {
        for value in [
            json!({ "every_s": 3600.0, "grace_s": 600.0 }),
            json!({ "by": "03:00", "grace_s": 0.0 }),
            json!({ "by": "03:00", "days": ["mon", "sat"], "zone": "Europe/Vienna", "grace_s": 900.0 }),
        ] {
            assert_eq!(to_json(&read(&value).unwrap()), value);
        }
    }

    #[test]
    fn a_wrong_plan_is_refused_with_its_field() {
        let refused = |value: Value| read(&value).unwrap_err().to_string();
        assert!(refused(json!({})).starts_with("check.by: either"));
        assert!(refused(json!({ "by": "03:00", "every_s": 60 })).starts_with("check.by: either"));
        assert!(refused(json!({ "by": "3 am" })).contains("such as 06:30"));
        assert!(refused(json!({ "every_s": 60, "zone": "Europe/Vienna" })).starts_with("check.by: days"));
        assert!(refused(json!({ "by": "03:00", "zone": "Mars/North" })).starts_with("check.zone: "));
    }
}

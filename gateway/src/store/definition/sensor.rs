//! Sensors as JSON: the fields of a check of type `sensor`.

use std::time::Duration;

use fleetgate_probes::sensors::{Capture, Plan, Schedule, Sensor};
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};

use super::{FieldError, Fields, MAX_LABEL, wrong};

/// The longest interval between pictures of a camera. Rarer ones need a schedule.
const LONGEST_INTERVAL_S: f64 = 7.0 * 86_400.0;
const LONGEST_GRACE_S: f64 = 86_400.0;
/// The default grace of a schedule. A missed picture is not late for ever.
const USUAL_GRACE: Duration = Duration::from_secs(300);
const SHORTEST_SLOT_S: f64 = 60.0;
const DAY_S: f64 = 86_400.0;

pub const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// The words for the sensors.
pub const SENSORS: [&str; 15] = [
    "disk",
    "mounts",
    "load",
    "memory",
    "uptime",
    "temperature",
    "processes",
    "file_age",
    "usb",
    "users",
    "cpu",
    "traffic",
    "daily",
    "values",
    "capture",
];

pub(super) fn take(fields: &mut Fields) -> Result<Sensor, FieldError> {
    let kind = fields.required_text("sensor", MAX_LABEL)?;
    Ok(match kind.as_str() {
        "disk" => Sensor::Disk { path: fields.path()? },
        "mounts" => Sensor::Mounts,
        "load" => Sensor::Load,
        "memory" => Sensor::Memory,
        "uptime" => Sensor::Uptime,
        "temperature" => Sensor::Temperature { name: fields.text("name", MAX_LABEL)? },
        "processes" => Sensor::Processes { name: fields.text("name", MAX_LABEL)? },
        "file_age" => Sensor::FileAge { path: fields.path()? },
        "usb" => Sensor::Usb { name: fields.required_text("name", MAX_LABEL)? },
        "users" => Sensor::Users,
        "cpu" => Sensor::Cpu,
        "traffic" => Sensor::Traffic { name: fields.text("name", MAX_LABEL)? },
        "daily" => Sensor::Daily { path: fields.path()? },
        "values" => Sensor::Values { path: fields.path()? },
        "capture" => Sensor::Capture(capture(fields)?),
        _ => {
            return Err(wrong("check.sensor", format!("one of {} is expected", SENSORS.join(", "))));
        }
    })
}

fn capture(fields: &mut Fields) -> Result<Capture, FieldError> {
    let path = fields.path()?;
    let grace = fields.seconds_from("grace_s", 0.0, LONGEST_GRACE_S)?.unwrap_or(USUAL_GRACE);
    let every = fields.seconds_from("every_s", 1.0, LONGEST_INTERVAL_S)?;
    let schedule = fields.take("schedule").map(|value| schedule(&value)).transpose()?;
    let plan = match (every, schedule) {
        (Some(every), None) => Plan::Every(every),
        (None, Some(schedule)) => Plan::Schedule(schedule),
        _ => return Err(wrong("check.every_s", "either this or a schedule is expected")),
    };
    Ok(Capture { path, plan, grace })
}

fn schedule(value: &Value) -> Result<Schedule, FieldError> {
    let mut fields = Fields::of("check.schedule", value)?;
    let days = days(&mut fields)?;
    let from = time(&mut fields, "from")?.ok_or_else(|| fields.missing("from"))?;
    let until = time(&mut fields, "until")?.unwrap_or(from);
    let every = fields.seconds_from("every_s", SHORTEST_SLOT_S, DAY_S)?;
    let zone = zone(&mut fields)?;
    if until < from {
        return Err(wrong("check.schedule.until", "must not be before from; a night is two schedules"));
    }
    if until > from && every.is_none() {
        return Err(fields.missing("every_s"));
    }
    fields.end()?;
    Ok(Schedule { days, from, until, every: every.unwrap_or(Duration::from_secs(DAY_S as u64)), zone })
}

/// An empty list means every day.
pub(super) fn days(fields: &mut Fields) -> Result<Vec<Weekday>, FieldError> {
    let known = |name: &str| DAYS.iter().find(|(word, _)| *word == name).map(|(_, day)| *day);
    Ok(fields.words("days", (DAYS.len(), "mon, tue, wed, thu, fri, sat, sun"), known)?.unwrap_or_default())
}

pub(super) fn days_json(days: &[Weekday]) -> Option<Value> {
    let word = |day: &Weekday| DAYS.iter().find(|(_, d)| d == day).map(|(word, _)| *word);
    (!days.is_empty()).then(|| days.iter().filter_map(word).collect())
}

pub(super) fn time(fields: &mut Fields, name: &str) -> Result<Option<Time>, FieldError> {
    let Some(text) = fields.text(name, MAX_LABEL)? else { return Ok(None) };
    let time = Time::strptime("%H:%M", &text);
    time.map(Some).map_err(|_| wrong(fields.path_of(name), "a time of day such as 06:30 is expected"))
}

pub(super) fn time_json(time: Time) -> Value {
    json!(time.strftime("%H:%M").to_string())
}

pub(super) fn zone(fields: &mut Fields) -> Result<Option<TimeZone>, FieldError> {
    let Some(name) = fields.text("zone", MAX_LABEL)? else { return Ok(None) };
    let zone = TimeZone::get(&name);
    zone.map(Some).map_err(|_| wrong(fields.path_of("zone"), "a time zone such as Europe/Berlin is expected"))
}

pub(super) fn zone_json(zone: Option<&TimeZone>) -> Option<Value> {
    zone.and_then(|zone| Some(json!(zone.iana_name()?)))
}

pub(super) fn to_json(sensor: &Sensor) -> Value {
    let mut json = match sensor {
        Sensor::Capture(capture) => capture_json(capture),
        Sensor::Usb { name } => json!({ "name": name }),
        Sensor::Temperature { name } | Sensor::Processes { name } | Sensor::Traffic { name } => {
            name.as_ref().map_or_else(|| json!({}), |name| json!({ "name": name }))
        }
        other => other.argument().map_or_else(|| json!({}), |path| json!({ "path": path })),
    };
    json["sensor"] = json!(sensor.kind());
    json
}

fn capture_json(capture: &Capture) -> Value {
    let mut json = json!({ "path": capture.path, "grace_s": capture.grace.as_secs_f64() });
    match &capture.plan {
        Plan::Every(every) => json["every_s"] = json!(every.as_secs_f64()),
        Plan::Schedule(schedule) => json["schedule"] = schedule_json(schedule),
    }
    json
}

fn schedule_json(schedule: &Schedule) -> Value {
    let fields = [
        ("days", days_json(&schedule.days)),
        ("from", Some(time_json(schedule.from))),
        ("until", (schedule.until != schedule.from).then(|| time_json(schedule.until))),
        ("every_s", (schedule.until != schedule.from).then(|| json!(schedule.every.as_secs_f64()))),
        ("zone", zone_json(schedule.zone.as_ref())),
    ];
    Value::Object(fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<Sensor, FieldError> {
        let mut fields = Fields::of("check", value)?;
        let sensor = take(&mut fields)?;
        fields.end()?;
        Ok(sensor)
    }

    #[test]
    fn every_sensor_survives_its_json() {
        let schedule = json!({ "days": ["mon", "fri"], "from": "06:30", "until": "20:00", "every_s": 900.0,
                               "zone": "Europe/Berlin" });
        for value in [
            json!({ "sensor": "usb", "name": "04a9:32c5" }),
            json!({ "sensor": "users" }),
            json!({ "sensor": "cpu" }),
            json!({ "sensor": "traffic", "name": "wwan0" }),
            json!({ "sensor": "daily", "path": "/p" }),
            json!({ "sensor": "values", "path": "/run/board" }),
            json!({ "sensor": "capture", "path": "/p", "every_s": 180.0, "grace_s": 60.0 }),
            json!({ "sensor": "capture", "path": "/p", "grace_s": 600.0, "schedule": schedule }),
            json!({ "sensor": "capture", "path": "/p", "grace_s": 600.0, "schedule": { "from": "12:00" } }),
        ] {
            assert_eq!(to_json(&read(&value).unwrap()), value);
        }
    }

    #[test]
    fn a_wrong_plan_is_refused_with_its_field() {
        let of = |extra: Value| {
            let mut value = json!({ "sensor": "capture", "path": "/p" });
            value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            read(&value).unwrap_err().to_string()
        };
        let schedule = |fields: Value| of(json!({ "schedule": fields }));
        assert!(of(json!({})).starts_with("check.every_s: either"));
        assert!(schedule(json!({})).starts_with("check.schedule.from: is missing"));
        assert!(schedule(json!({ "from": "6 am" })).contains("such as 06:30"));
        assert!(schedule(json!({ "from": "06:00", "until": "05:00" })).contains("must not be before"));
        assert!(schedule(json!({ "from": "06:00", "until": "07:00" })).contains("every_s: is missing"));
        assert!(schedule(json!({ "from": "06:00", "zone": "Mars/North" })).contains("Europe/Berlin"));
        assert!(schedule(json!({ "from": "06:00", "days": ["friday"] })).contains("unknown here"));
    }
}

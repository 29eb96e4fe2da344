//! Service overrides as JSON: the same in the column `service_overrides.definition` and in the API.
//!
//! Parsing is strict. An unknown field, a wrong type or a value out of bounds is refused with the
//! field's name, so that a typo never silences a check. This module does not judge whether a host
//! can run the check.

mod heartbeat;
pub mod sensor;

use std::time::Duration;

use fleetgate_engine::messages::{Check, RENTAL_SERVICE, Threshold};
use fleetgate_engine::monitor::profile::ServiceOverride;
use fleetgate_probes::range::{Range, Thresholds};
use serde_json::{Map, Value, json};

use super::alerting;

/// The sensible range of a check interval, in seconds.
const SHORTEST_S: f64 = 0.1;
const LONGEST_S: f64 = 7.0 * 86_400.0;
/// Enough for a yearly job.
pub const LONGEST_FRESHNESS_S: f64 = 400.0 * 86_400.0;
const MAX_ATTEMPTS: u64 = 100;
/// Echo requests of one check. More would be a load test.
const MAX_ECHOES: u64 = 20;
/// Characters of a command line. It holds a command, not a script.
pub const MAX_LINE: usize = 4_096;
const MAX_PATH: usize = 1_024;
/// Characters of a metric's label or a sensor's name.
const MAX_LABEL: usize = 255;
/// Thresholds of one service. A plugin with more metrics sets its own.
const MAX_THRESHOLDS: usize = 32;
const MAX_SERVICE_NAME: usize = 63;

/// A wrong field. `field` is a path such as `check.port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct FieldError {
    pub field: String,
    pub detail: String,
}

pub(super) fn wrong(field: impl Into<String>, detail: impl Into<String>) -> FieldError {
    FieldError { field: field.into(), detail: detail.into() }
}

/// Checks that a service name fits into a path, a subject line and a shell.
///
/// # Errors
/// Names the expected form.
pub fn service_name(name: &str) -> Result<(), FieldError> {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let bytes = name.as_bytes();
    if edge(bytes.first()) && edge(bytes.last()) && bytes.len() <= MAX_SERVICE_NAME && name.bytes().all(inner)
    {
        return Ok(());
    }
    Err(wrong("service", "a name of 1 to 63 characters is expected: a-z 0-9, and . _ - between them"))
}

/// Reads a definition. `service` and `disabled` are columns of their own.
///
/// # Errors
/// Names the first wrong field.
pub fn parse(service: &str, disabled: bool, value: &Value) -> Result<ServiceOverride, FieldError> {
    let mut fields = Fields::of("", value)?;
    let found = ServiceOverride {
        service: service.to_owned(),
        disabled,
        check: fields.take("check").map(|v| check(&v)).transpose()?,
        interval: fields.seconds("interval_s")?,
        retry: fields.seconds("retry_s")?,
        timeout: fields.seconds("timeout_s")?,
        attempts: fields.whole("max_check_attempts", 1..=MAX_ATTEMPTS)?.map(|n| n as u32),
        thresholds: fields.take("thresholds").map(|v| thresholds(&v)).transpose()?,
        freshness: fields.seconds_from("freshness_s", SHORTEST_S, LONGEST_FRESHNESS_S)?,
        alerting: alerting::take(&mut fields)?,
    };
    fields.end()?;
    match (found.timeout, found.interval) {
        (Some(timeout), Some(interval)) if timeout >= interval => {
            Err(wrong("timeout_s", "must be shorter than interval_s"))
        }
        _ => Ok(found),
    }
}

/// Reads a service of a profile or a request, with `disabled`.
///
/// # Errors
/// Names the first wrong field.
pub fn parse_service(service: &str, value: &Value) -> Result<ServiceOverride, FieldError> {
    service_name(service)?;
    let mut value = value.clone();
    let disabled = match value.as_object_mut().and_then(|fields| fields.remove("disabled")) {
        None | Some(Value::Null) => false,
        Some(Value::Bool(disabled)) => disabled,
        Some(_) => return Err(wrong("disabled", "true or false is expected")),
    };
    parse(service, disabled, &value)
}

/// Applies [`parse_service`] to new settings, which must meet more conditions than stored ones.
///
/// # Errors
/// Names the first wrong field.
pub fn parse_new_service(service: &str, value: &Value) -> Result<ServiceOverride, FieldError> {
    if service == RENTAL_SERVICE {
        let detail =
            "this is the name of the service that the gateway adds to rented devices: choose another one";
        return Err(wrong("service", detail));
    }
    let mut found = parse_service(service, value)?;
    found.alerting = alerting::of_problems(found.alerting)?;
    if let Some(check) = &found.check {
        has_effect(check, &found)?;
    }
    Ok(found)
}

/// Refuses settings that would have no effect. A passive service is never probed, and a job has its
/// own grace.
///
/// # Errors
/// Names the first field that this check ignores.
pub fn has_effect(check: &Check, change: &ServiceOverride) -> Result<(), FieldError> {
    let unheeded = [
        ("interval_s", change.interval.is_some() && check.is_sent()),
        ("retry_s", change.retry.is_some() && check.is_sent()),
        ("timeout_s", change.timeout.is_some() && check.is_sent()),
        ("freshness_s", change.freshness.is_some() && matches!(check, Check::Heartbeat(_))),
    ];
    let detail = match check {
        Check::Heartbeat(_) => "has no effect on a heartbeat: every_s or by, and grace_s say when it is late",
        _ => "has no effect on a passive service: its results are sent, freshness_s says when they are late",
    };
    match unheeded.into_iter().find(|(_, unheeded)| *unheeded) {
        Some((field, _)) => Err(wrong(field, detail)),
        None => Ok(()),
    }
}

/// Writes the JSON that [`parse_service`] reads.
pub fn service_json(change: &ServiceOverride) -> Value {
    let mut json = to_json(change);
    if change.disabled {
        json["disabled"] = json!(true);
    }
    json
}

/// Writes only the settings that differ from the profile.
pub fn to_json(change: &ServiceOverride) -> Value {
    let seconds = |d: Duration| json!(d.as_secs_f64());
    let fields = [
        ("check", change.check.as_ref().map(check_json)),
        ("interval_s", change.interval.map(seconds)),
        ("retry_s", change.retry.map(seconds)),
        ("timeout_s", change.timeout.map(seconds)),
        ("max_check_attempts", change.attempts.map(|n| json!(n))),
        ("thresholds", change.thresholds.as_ref().map(|t| t.iter().map(threshold_json).collect())),
        ("freshness_s", change.freshness.map(seconds)),
    ];
    let own = fields.into_iter().filter_map(|(name, v)| Some((name.to_owned(), v?)));
    Value::Object(own.chain(alerting::to_json(&change.alerting)).collect())
}

/// The words for the kinds of checks.
pub const CHECKS: [&str; 8] = ["tunnel", "ping", "tcp", "ssh", "sensor", "command", "passive", "heartbeat"];

/// The word for a kind of check.
pub fn check_kind(check: &Check) -> &'static str {
    match check {
        Check::Tunnel => "tunnel",
        Check::Ping { .. } => "ping",
        Check::Tcp { .. } => "tcp",
        Check::Ssh => "ssh",
        Check::Sensor(_) => "sensor",
        Check::Command { .. } => "command",
        Check::Passive => "passive",
        Check::Heartbeat(_) => "heartbeat",
        Check::Rental => RENTAL_SERVICE,
    }
}

fn check(value: &Value) -> Result<Check, FieldError> {
    let mut fields = Fields::of("check", value)?;
    let kind = fields.required_text("type", MAX_LABEL)?;
    let found = match kind.as_str() {
        "tunnel" => Check::Tunnel,
        "ping" => {
            let count = fields.whole("count", 1..=MAX_ECHOES)?;
            Check::Ping { count: count.map_or(fleetgate_engine::monitor::profile::PING_COUNT, |n| n as u8) }
        }
        "tcp" => {
            let port = fields.whole("port", 1..=u64::from(u16::MAX))?;
            Check::Tcp { port: port.ok_or_else(|| fields.missing("port"))? as u16 }
        }
        "ssh" => Check::Ssh,
        "sensor" => Check::Sensor(sensor::take(&mut fields)?),
        "command" => Check::Command { line: fields.required_text("line", MAX_LINE)? },
        "passive" => Check::Passive,
        "heartbeat" => Check::Heartbeat(heartbeat::take(&mut fields)?),
        _ => {
            return Err(wrong("check.type", format!("one of {} is expected", CHECKS.join(", "))));
        }
    };
    fields.end()?;
    Ok(found)
}

fn check_json(check: &Check) -> Value {
    let mut json = match check {
        Check::Tunnel | Check::Ssh | Check::Passive | Check::Rental => json!({}),
        Check::Ping { count } => json!({ "count": count }),
        Check::Tcp { port } => json!({ "port": port }),
        Check::Sensor(sensor) => sensor::to_json(sensor),
        Check::Heartbeat(job) => heartbeat::to_json(job),
        Check::Command { line } => json!({ "line": line }),
    };
    json["type"] = json!(check_kind(check));
    json
}

/// Reads a list of thresholds, which is the same in the column `hosts.thresholds` and in the API.
///
/// # Errors
/// Names the first wrong field.
pub fn thresholds(value: &Value) -> Result<Vec<Threshold>, FieldError> {
    let list = value.as_array().ok_or_else(|| wrong("thresholds", "a list is expected"))?;
    if list.len() > MAX_THRESHOLDS {
        return Err(wrong("thresholds", format!("at most {MAX_THRESHOLDS} are possible")));
    }
    let mut found: Vec<Threshold> = Vec::with_capacity(list.len());
    for (i, value) in list.iter().enumerate() {
        let threshold = threshold(&format!("thresholds[{i}]"), value)?;
        if found.iter().any(|t| t.metric == threshold.metric) {
            return Err(wrong(format!("thresholds[{i}].metric"), "is given twice"));
        }
        found.push(threshold);
    }
    Ok(found)
}

fn threshold(at: &str, value: &Value) -> Result<Threshold, FieldError> {
    let mut fields = Fields::of(at, value)?;
    let metric = fields.required_text("metric", MAX_LABEL)?;
    let limits = Thresholds { warn: fields.range("warn")?, crit: fields.range("crit")? };
    fields.end()?;
    Ok(Threshold { metric, limits })
}

/// Writes the JSON that [`thresholds`] reads.
pub fn thresholds_json(thresholds: &[Threshold]) -> Value {
    thresholds.iter().map(threshold_json).collect()
}

fn threshold_json(threshold: &Threshold) -> Value {
    let mut json = json!({ "metric": threshold.metric });
    for (name, range) in [("warn", threshold.limits.warn), ("crit", threshold.limits.crit)] {
        if let Some(range) = range {
            json[name] = json!(range.to_string());
        }
    }
    json
}

/// The fields of a JSON object, taken out one by one. Fields left at the end are unknown.
pub(super) struct Fields {
    at: String,
    left: Map<String, Value>,
}

impl Fields {
    pub(super) fn of(at: &str, value: &Value) -> Result<Self, FieldError> {
        let left = value.as_object().cloned().ok_or_else(|| wrong(at, "an object is expected"))?;
        Ok(Fields { at: at.to_owned(), left })
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Treats `null` as absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|v| !v.is_null())
    }

    pub(super) fn missing(&self, name: &str) -> FieldError {
        wrong(self.path_of(name), "is missing")
    }

    pub(super) fn text(&mut self, name: &str, longest: usize) -> Result<Option<String>, FieldError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| wrong(self.path_of(name), "text is expected"))?;
        if text.trim().is_empty() || text.len() > longest || text.chars().any(char::is_control) {
            let detail = format!("1 to {longest} characters without control characters are expected");
            return Err(wrong(self.path_of(name), detail));
        }
        Ok(Some(text.to_owned()))
    }

    pub(super) fn required_text(&mut self, name: &str, longest: usize) -> Result<String, FieldError> {
        self.text(name, longest)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn path(&mut self) -> Result<String, FieldError> {
        let path = self.required_text("path", MAX_PATH)?;
        if path.starts_with('/') {
            return Ok(path);
        }
        Err(wrong(self.path_of("path"), "an absolute path is expected, such as /var/lib/pictures"))
    }

    pub(super) fn whole(
        &mut self,
        name: &str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, FieldError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().filter(|n| bounds.contains(n));
        let detail = || format!("a whole number from {} to {} is expected", bounds.start(), bounds.end());
        number.map(Some).ok_or_else(|| wrong(self.path_of(name), detail()))
    }

    pub(super) fn seconds(&mut self, name: &str) -> Result<Option<Duration>, FieldError> {
        self.seconds_from(name, SHORTEST_S, LONGEST_S)
    }

    pub(super) fn seconds_from(
        &mut self,
        name: &str,
        shortest: f64,
        longest: f64,
    ) -> Result<Option<Duration>, FieldError> {
        let found = self.number(name, shortest, longest, "seconds")?;
        Ok(found.map(Duration::from_secs_f64))
    }

    pub(super) fn percent(&mut self, name: &str) -> Result<Option<f64>, FieldError> {
        self.number(name, 0.0, 100.0, "percent")
    }

    fn number(&mut self, name: &str, low: f64, high: f64, what: &str) -> Result<Option<f64>, FieldError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_f64().filter(|n| (low..=high).contains(n));
        let detail = || format!("{what} from {low} to {high} are expected");
        number.map(Some).ok_or_else(|| wrong(self.path_of(name), detail()))
    }

    pub(super) fn truth(&mut self, name: &str) -> Result<Option<bool>, FieldError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| wrong(self.path_of(name), "true or false is expected"))
    }

    /// Takes a list of at most `most` known words.
    pub(super) fn words<T>(
        &mut self,
        name: &str,
        (most, expected): (usize, &str),
        known: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<Vec<T>>, FieldError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let list = value.as_array().filter(|list| list.len() <= most);
        let list = list
            .ok_or_else(|| wrong(self.path_of(name), format!("a list of up to {most} words is expected")))?;
        let word = |v: &Value| {
            v.as_str().and_then(&known).ok_or_else(|| {
                wrong(self.path_of(name), format!("{v} is unknown here: {expected} are expected"))
            })
        };
        list.iter().map(word).collect::<Result<_, _>>().map(Some)
    }

    /// Takes a range. A number stands for its own text, since `{"warn": 80}` has only one meaning.
    fn range(&mut self, name: &str) -> Result<Option<Range>, FieldError> {
        let text = match self.take(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => {
                return Err(wrong(self.path_of(name), "a range is expected, such as \"80\" or \"10:20\""));
            }
        };
        text.parse().map(Some).map_err(|e| wrong(self.path_of(name), format!("{e}")))
    }

    pub(super) fn end(self) -> Result<(), FieldError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(wrong(self.path_of(name), "is unknown here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use fleetgate_probes::sensors::Sensor;

    use super::*;

    fn refused(value: &Value) -> String {
        parse("x", false, value).unwrap_err().to_string()
    }

    #[test]
    fn the_name_of_the_service_of_rentals_is_taken() {
        let passive = json!({ "check": { "type": "passive" } });
        let refused = parse_new_service(RENTAL_SERVICE, &passive).unwrap_err().to_string();
        assert!(refused.starts_with("service: ") && refused.ends_with("choose another one"), "{refused}");
        assert!(parse_service(RENTAL_SERVICE, &passive).is_ok(), "one of an earlier version stays");
        assert!(parse_new_service("x", &json!({ "check": { "type": "rental" } })).is_err());
    }

    #[test]
    fn a_whole_definition_is_read() {
        let value = json!({
            "check": { "type": "sensor", "sensor": "temperature", "name": "case" },
            "interval_s": 5, "retry_s": 1.5, "timeout_s": 2, "max_check_attempts": 3,
            "thresholds": [{ "metric": "temperature", "warn": "60", "crit": "@70:80" }, { "metric": "b" }],
        });
        let read = parse("temperature", false, &value).unwrap();
        assert_eq!(read.check, Some(Check::Sensor(Sensor::Temperature { name: Some("case".into()) })));
        assert_eq!(read.retry, Some(Duration::from_millis(1500)));
        assert_eq!(read.thresholds.as_ref().map(Vec::len), Some(2));
        assert_eq!(parse("temperature", false, &to_json(&read)).unwrap(), read);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (json!([]), ": an object is expected"),
            (json!({ "intervall_s": 5 }), "intervall_s: is unknown here"),
            (json!({ "interval_s": "5" }), "interval_s: seconds from 0.1 to 604800 are expected"),
            (json!({ "interval_s": 0 }), "interval_s: seconds from 0.1 to 604800 are expected"),
            (json!({ "interval_s": 5, "timeout_s": 5 }), "timeout_s: must be shorter than interval_s"),
            (
                json!({ "max_check_attempts": 0 }),
                "max_check_attempts: a whole number from 1 to 100 is expected",
            ),
            (json!({ "check": { "type": "tcp" } }), "check.port: is missing"),
            (
                json!({ "check": { "type": "tcp", "port": 65536 } }),
                "check.port: a whole number from 1 to 65535 is expected",
            ),
            (json!({ "check": { "type": "ssh", "port": 22 } }), "check.port: is unknown here"),
            (
                json!({ "check": { "type": "sensor", "sensor": "disk", "path": "pictures" } }),
                "check.path: an absolute path is expected, such as /var/lib/pictures",
            ),
            (
                json!({ "thresholds": [{ "metric": "a" }, { "metric": "a" }] }),
                "thresholds[1].metric: is given twice",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(refused(&value), expected);
        }
        assert!(
            refused(&json!({ "thresholds": [{ "metric": "a", "warn": "-10" }] }))
                .starts_with("thresholds[0].warn: ")
        );
        assert!(
            refused(&json!({ "check": { "type": "command", "line": "a\nb" } })).starts_with("check.line: ")
        );
    }

    #[test]
    fn service_names_can_stand_in_a_path() {
        for good in ["a", "disk-root", "file_age.1"] {
            assert_eq!(service_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "A", "a/b", "ä", &"a".repeat(64)] {
            assert!(service_name(bad).is_err(), "{bad}");
        }
    }

    fn any_check() -> impl Strategy<Value = Check> {
        let name = proptest::option::of("[a-z]{1,9}");
        prop_oneof![
            Just(Check::Tunnel),
            Just(Check::Ssh),
            (1u8..=20).prop_map(|count| Check::Ping { count }),
            (1u16..).prop_map(|port| Check::Tcp { port }),
            "[a-z '|]{1,20}[a-z]".prop_map(|line| Check::Command { line }),
            "/[a-z/]{0,20}".prop_map(|path| Check::Sensor(Sensor::Disk { path })),
            name.clone().prop_map(|name| Check::Sensor(Sensor::Processes { name })),
            name.prop_map(|name| Check::Sensor(Sensor::Temperature { name })),
        ]
    }

    proptest! {
        #[test]
        fn a_definition_survives_its_json(
            check in proptest::option::of(any_check()),
            interval in proptest::option::of(1_000u64..600_000_000),
            attempts in proptest::option::of(1u32..=100),
            limit in proptest::option::of(0u32..1_000),
        ) {
            let threshold = |n: u32| Threshold {
                metric: "m".into(),
                limits: Thresholds { warn: Some(n.to_string().parse().unwrap()), crit: None },
            };
            let change = ServiceOverride {
                service: "x".into(),
                check,
                interval: interval.map(Duration::from_millis),
                attempts,
                thresholds: limit.map(|n| vec![threshold(n)]),
                ..ServiceOverride::default()
            };
            prop_assert_eq!(parse("x", false, &to_json(&change)), Ok(change));
        }
    }
}

//! Timing and notification options on the command line, the same for hosts, services and profiles.
//!
//! This module merges the options into the present settings. The gateway validates them.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Seconds between checks
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    interval: Option<f64>,
    /// Seconds between checks in a soft state
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    retry: Option<f64>,
    /// Seconds to wait for an answer
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    timeout: Option<f64>,
    /// Failed checks in a row that make a hard state
    #[arg(long, value_name = "NUMBER")]
    attempts: Option<u32>,
    /// Seconds without a passive result until the state is a problem
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    freshness: Option<f64>,
    /// Whether every hard failure is notified again
    #[arg(long, value_name = "true|false")]
    volatile: Option<bool>,
    /// Whether flapping is detected
    #[arg(long, value_name = "true|false")]
    flapping: Option<bool>,
    /// Percent of changes below which flapping ends
    #[arg(long, value_name = "PERCENT", value_parser = number)]
    flapping_low: Option<f64>,
    /// Percent of changes above which flapping begins
    #[arg(long, value_name = "PERCENT", value_parser = number)]
    flapping_high: Option<f64>,
    /// States that flapping detection ignores: ok,warning,critical,unknown; for a host up,down
    #[arg(long, value_name = "STATES", value_delimiter = ',')]
    flapping_ignore: Vec<String>,
    /// Seconds between reminders; 0 sends none
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    notify_interval: Option<f64>,
    /// Seconds before a problem is notified; if it recovers first, nothing is sent
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    notify_delay: Option<f64>,
    /// States that are notified: warning,critical,unknown; for a host down
    #[arg(long, value_name = "STATES", value_delimiter = ',')]
    notify_states: Vec<String>,
    /// Notifications that are sent: problem, recovery, reminder, flapping_start, flapping_end, acknowledged,
    /// downtime_start, downtime_end, downtime_cancelled
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    notify_types: Vec<String>,
    /// Settings that return to their defaults; several with commas
    #[arg(long, value_name = "SETTINGS", value_delimiter = ',')]
    usual: Vec<Usual>,
}

/// Parses a number. Values without a JSON form would become `null` and restore the default.
pub(crate) fn number(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|n: &f64| n.is_finite()).ok_or("a number is expected, such as 60 or 0.5")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Usual {
    Interval,
    Retry,
    Timeout,
    Attempts,
    Freshness,
    MaxSilence,
    Volatile,
    Flapping,
    Notify,
}

impl Usual {
    const fn field(self) -> &'static str {
        match self {
            Usual::Interval => "interval_s",
            Usual::Retry => "retry_s",
            Usual::Timeout => "timeout_s",
            Usual::Attempts => "max_check_attempts",
            Usual::Freshness => "freshness_s",
            Usual::MaxSilence => "max_silence_s",
            Usual::Volatile => "volatile",
            Usual::Flapping => "flapping",
            Usual::Notify => "notify",
        }
    }
}

impl Settings {
    /// Returns the fields to change. Null restores the default.
    pub fn changes(&self, before: &Value) -> Map<String, Value> {
        let usual = self.usual.iter().map(|usual| (usual.field().to_owned(), Value::Null));
        let mut changes: Map<String, Value> = usual.collect();
        let list = |words: &[String]| (!words.is_empty()).then(|| json!(words));
        let plain = [
            ("interval_s", self.interval.map(|s| json!(s))),
            ("retry_s", self.retry.map(|s| json!(s))),
            ("timeout_s", self.timeout.map(|s| json!(s))),
            ("max_check_attempts", self.attempts.map(|n| json!(n))),
            ("freshness_s", self.freshness.map(|s| json!(s))),
            ("volatile", self.volatile.map(|v| json!(v))),
        ];
        changes.extend(given(plain));
        let flapping = given([
            ("enabled", self.flapping.map(|v| json!(v))),
            ("low", self.flapping_low.map(|p| json!(p))),
            ("high", self.flapping_high.map(|p| json!(p))),
            ("ignore", list(&self.flapping_ignore)),
        ]);
        let notify = given([
            ("interval_s", self.notify_interval.map(|s| json!(s))),
            ("delay_s", self.notify_delay.map(|s| json!(s))),
            ("states", list(&self.notify_states)),
            ("types", list(&self.notify_types)),
        ]);
        for (part, fields) in [("flapping", flapping), ("notify", notify)] {
            if !fields.is_empty() {
                // The part keeps its other fields, unless it is reset to the default.
                let kept = before[part].as_object().filter(|_| !changes.contains_key(part));
                let whole: Map<String, Value> =
                    kept.cloned().unwrap_or_default().into_iter().chain(fields).collect();
                changes.insert(part.to_owned(), Value::Object(whole));
            }
        }
        changes
    }

    /// Writes the options into a complete object, in which an absent field has its default.
    pub fn merge(&self, whole: &mut Value) {
        for (field, value) in self.changes(whole) {
            match (whole.as_object_mut(), value.is_null()) {
                (Some(fields), true) => drop(fields.remove(&field)),
                _ => whole[field] = value,
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.changes(&Value::Null).is_empty()
    }
}

fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_joins_what_is_set() {
        let before = json!({ "notify": { "delay_s": 60.0, "interval_s": 5.0 }, "interval_s": 30.0 });
        let settings = Settings {
            attempts: Some(5),
            notify_interval: Some(3600.0),
            flapping_high: Some(50.0),
            flapping_ignore: vec!["unknown".into()],
            usual: vec![Usual::Interval],
            ..Settings::default()
        };
        let expected = json!({
            "interval_s": null,
            "max_check_attempts": 5,
            "flapping": { "high": 50.0, "ignore": ["unknown"] },
            "notify": { "delay_s": 60.0, "interval_s": 3600.0 },
        });
        assert_eq!(Value::Object(settings.changes(&before)), expected);
        let mut whole = before;
        settings.merge(&mut whole);
        assert_eq!(whole.get("interval_s"), None);
        assert!(Settings::default().is_empty() && !settings.is_empty());
    }

    #[test]
    fn what_goes_back_to_usual_keeps_nothing_of_its_part() {
        let before = json!({ "notify": { "delay_s": 60.0 } });
        let settings =
            Settings { notify_interval: Some(9.0), usual: vec![Usual::Notify], ..Settings::default() };
        assert_eq!(settings.changes(&before)["notify"], json!({ "interval_s": 9.0 }));
    }
}

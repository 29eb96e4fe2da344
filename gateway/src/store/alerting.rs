//! The alerting settings that differ from the default, as JSON: the same in the columns and in the
//! API. Parsing is strict, as in `definition`.

use fleetgate_engine::messages::{Alerting, HostStatus, Kinds, MessageKind, States};
use fleetgate_engine::monitor::profile::AlertingChange;
use fleetgate_probes::sample::Status;
use serde_json::{Map, Value, json};

use super::definition::{FieldError, Fields, wrong};

/// The longest interval in seconds, between reminders and before a first notification. A month
/// suits an operator who only wants not to forget.
const LONGEST_S: f64 = 31.0 * 86_400.0;
/// A list names each state or kind at most once.
const MAX_WORDS: usize = 16;
const STATES: &str = "warning, critical, unknown or down";
const ALL_STATES: &str = "ok, warning, critical, unknown, up or down";

/// Reads a host's column, or the part of a request that has this form.
///
/// # Errors
/// Names the first wrong field.
pub fn parse(value: &Value) -> Result<AlertingChange, FieldError> {
    let mut fields = Fields::of("", value)?;
    let found = take(&mut fields)?;
    fields.end()?;
    Ok(found)
}

/// Checks that new settings list problem states only. A stored column may list others, which have
/// no effect.
///
/// # Errors
/// Names a list with a state that is no problem, because no notification would come from it.
pub fn of_problems(change: AlertingChange) -> Result<AlertingChange, FieldError> {
    match change.notify_states {
        Some(states) if states.has(Status::Ok.exit_code()) => {
            Err(wrong("notify.states", format!("these states are no problems: {STATES} are expected")))
        }
        _ => Ok(change),
    }
}

/// Applies [`of_problems`] to the host itself, which has only one problem state. Its services have
/// lists of their own.
///
/// # Errors
/// Names a list that silences the host without being empty. An empty list states the intention.
pub fn of_host(change: AlertingChange) -> Result<AlertingChange, FieldError> {
    let change = of_problems(change)?;
    match change.notify_states {
        Some(states) if states != States::NONE && !states.has(Status::Critical.exit_code()) => {
            let expected =
                "a host is notified as down: down is expected, or an empty list for no notifications";
            Err(wrong("notify.states", expected))
        }
        _ => Ok(change),
    }
}

/// Takes the alerting fields out of a JSON object that has other fields too.
pub(super) fn take(fields: &mut Fields) -> Result<AlertingChange, FieldError> {
    let mut found = AlertingChange { volatile: fields.truth("volatile")?, ..AlertingChange::default() };
    if let Some(value) = fields.take("flapping") {
        flapping(&mut found, &value)?;
    }
    if let Some(value) = fields.take("notify") {
        notify(&mut found, &value)?;
    }
    Ok(found)
}

fn flapping(found: &mut AlertingChange, value: &Value) -> Result<(), FieldError> {
    let mut fields = Fields::of("flapping", value)?;
    found.flapping_enabled = fields.truth("enabled")?;
    found.flapping_low = fields.percent("low")?;
    found.flapping_high = fields.percent("high")?;
    found.flapping_ignore = fields.words("ignore", (MAX_WORDS, ALL_STATES), state_code)?.map(States::of);
    fields.end()?;
    let rules = found.over(Alerting::default()).flapping;
    if rules.low > rules.high {
        return Err(wrong("flapping.low", "must not be above flapping.high"));
    }
    Ok(())
}

fn notify(found: &mut AlertingChange, value: &Value) -> Result<(), FieldError> {
    let mut fields = Fields::of("notify", value)?;
    found.notify_interval = fields.seconds_from("interval_s", 0.0, LONGEST_S)?;
    found.notify_delay = fields.seconds_from("delay_s", 0.0, LONGEST_S)?;
    found.notify_states = fields.words("states", (MAX_WORDS, STATES), state_code)?.map(States::of);
    let kinds = MessageKind::ALL.map(MessageKind::name).join(", ");
    found.notify_kinds = fields.words("types", (MAX_WORDS, &kinds), MessageKind::named)?.map(Kinds::of);
    fields.end()
}

fn state_code(word: &str) -> Option<u8> {
    match word {
        _ if word == HostStatus::Down.name() => Some(Status::Critical.exit_code()),
        _ if word == HostStatus::Up.name() => Some(Status::Ok.exit_code()),
        _ => Status::from_name(word).map(Status::exit_code),
    }
}

/// Writes only the settings that differ.
pub fn to_json(change: &AlertingChange) -> Map<String, Value> {
    let seconds = |d: std::time::Duration| json!(d.as_secs_f64());
    let flapping = sparse([
        ("enabled", change.flapping_enabled.map(|v| json!(v))),
        ("low", change.flapping_low.map(|v| json!(v))),
        ("high", change.flapping_high.map(|v| json!(v))),
        ("ignore", change.flapping_ignore.map(state_names)),
    ]);
    let notify = sparse([
        ("interval_s", change.notify_interval.map(seconds)),
        ("delay_s", change.notify_delay.map(seconds)),
        ("states", change.notify_states.map(state_names)),
        ("types", change.notify_kinds.map(kind_names)),
    ]);
    let whole = |map: Map<String, Value>| (!map.is_empty()).then_some(Value::Object(map));
    sparse([
        ("volatile", change.volatile.map(|v| json!(v))),
        ("flapping", whole(flapping)),
        ("notify", whole(notify)),
    ])
}

fn state_names(states: States) -> Value {
    let named = |s: &&Status| states.has(s.exit_code());
    Status::ALL.iter().filter(named).map(|s| s.name()).collect()
}

fn kind_names(kinds: Kinds) -> Value {
    MessageKind::ALL.iter().filter(|kind| kinds.has(**kind)).map(|kind| kind.name()).collect()
}

fn sparse<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(value: &Value) -> String {
        parse(value).unwrap_err().to_string()
    }

    #[test]
    fn complete_settings_survive_their_json() {
        let value = json!({
            "volatile": true,
            "flapping": { "enabled": false, "low": 5.0, "high": 20.5, "ignore": ["ok", "unknown"] },
            "notify": { "interval_s": 3600.0, "delay_s": 90.0, "states": ["critical", "unknown"], "types": ["problem"] },
        });
        assert_eq!(Value::Object(to_json(&parse(&value).unwrap())), value);
        assert!(to_json(&AlertingChange::default()).is_empty());
    }

    #[test]
    fn down_is_how_a_host_is_critical() {
        let down = parse(&json!({ "notify": { "states": ["down"] } })).unwrap();
        let critical = parse(&json!({ "notify": { "states": ["critical"] } })).unwrap();
        assert_eq!(down, critical);
    }

    #[test]
    fn ok_alone_is_no_valid_state_filter() {
        let states = |word: &str| parse(&json!({ "notify": { "states": [word] } })).unwrap();
        let expected =
            "notify.states: these states are no problems: warning, critical, unknown or down are expected";
        for well in ["ok", "up"] {
            assert_eq!(of_problems(states(well)).unwrap_err().to_string(), expected);
        }
        assert_eq!(of_problems(states("warning")), Ok(states("warning")));
        assert_eq!(of_host(states("down")), Ok(states("down")));
        let quiet = of_host(states("warning")).unwrap_err().to_string();
        assert!(quiet.starts_with("notify.states: a host is notified as down"), "{quiet}");
        let nothing = parse(&json!({ "notify": { "states": [] } })).unwrap();
        assert_eq!(of_host(nothing.clone()), Ok(nothing));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            (json!({ "flapping": { "low": 40 } }), "flapping.low: must not be above flapping.high"),
            (json!({ "flapping": { "high": 101 } }), "flapping.high: percent from 0 to 100 are expected"),
            (
                json!({ "flapping": { "ignore": ["sad"] } }),
                "flapping.ignore: \"sad\" is unknown here: ok, warning, critical, unknown, up or down are expected",
            ),
            (json!({ "flapping": { "hihg": 1 } }), "flapping.hihg: is unknown here"),
            (json!({ "volatile": 1 }), "volatile: true or false is expected"),
            (
                json!({ "notify": { "states": ["sad"] } }),
                "notify.states: \"sad\" is unknown here: warning, critical, unknown or down are expected",
            ),
            (
                json!({ "notify": { "interval_s": -1 } }),
                "notify.interval_s: seconds from 0 to 2678400 are expected",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(refused(&value), expected);
        }
    }
}

//! The differences between the existing resources and the file, field by field.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::plan::Desired;
use crate::api::request::merge_patch;
use crate::outbound::secret_url::SecretUrl;

/// Fields that count only for a new resource.
const AT_BIRTH: [&str; 3] = ["public_key", "tunnel", "ssh.host_key"];

/// Parts that are given completely or not at all. Other parts count field by field.
const SAID_WHOLE: [&str; 4] = ["labels", "flapping", "notify", "thresholds"];

/// A change from the present value to that of the file. Absent means absent.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Difference {
    pub field: String,
    pub now: Option<String>,
    pub file: Option<String>,
}

/// Compares field by field. For a partial resource, only the fields of the file count.
pub fn compare(w: &Desired, now: &Map<String, Value>) -> Vec<Difference> {
    let wanted = flat(&Value::Object(w.fields.clone()));
    let mut there = flat(&Value::Object(now.clone()));
    if w.kind.is_partial() {
        let said = |field: &str| {
            let whole = field.split('.').next().filter(|part| SAID_WHOLE.contains(part));
            wanted.contains_key(field) || whole.is_some_and(|part| w.fields.contains_key(part))
        };
        there.retain(|field, _| said(field));
    }
    let is_new = now.is_empty();
    let mut differences = diff(&there, &wanted);
    differences.retain(|d| is_new || !AT_BIRTH.contains(&d.field.as_str()));
    differences
}

/// Lists all fields as removed.
pub fn from(now: &Map<String, Value>) -> Vec<Difference> {
    diff(&flat(&Value::Object(now.clone())), &BTreeMap::new())
}

fn diff(now: &BTreeMap<String, String>, file: &BTreeMap<String, String>) -> Vec<Difference> {
    let fields: BTreeSet<&String> = now.keys().chain(file.keys()).collect();
    let of = |field: &String| Difference {
        field: field.clone(),
        now: now.get(field).cloned(),
        file: file.get(field).cloned(),
    };
    fields.into_iter().map(of).filter(|d| d.now != d.file).map(shown).collect()
}

/// Shows only the server of an address that may contain a token, because terminals and job logs may
/// keep it.
fn shown(difference: Difference) -> Difference {
    if difference.field != "webhook_url" {
        return difference;
    }
    let server = |text: String| SecretUrl::from(text.trim_matches('"')).to_string();
    let (now, file) = (difference.now.map(server), difference.file.map(server));
    let file = if now == file { file.map(|server| format!("another address at {server}")) } else { file };
    Difference { now, file, ..difference }
}

/// Returns paths with the text of their values. Limits are keyed by metric, other lists by index.
fn flat(value: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    flatten("", value, &mut found);
    found
}

fn flatten(at: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(name, v)| flatten(&below(name), v, into)),
        Value::Array(list) if list.iter().any(Value::is_object) => {
            for (i, item) in list.iter().enumerate() {
                match item["metric"].as_str() {
                    Some(metric) => limit(&below(metric), item, into),
                    None => flatten(&format!("{at}[{}]", i + 1), item, into),
                }
            }
        }
        // 5 and 5.0 are the same number.
        Value::Number(n) => drop(into.insert(at.to_owned(), n.as_f64().unwrap_or_default().to_string())),
        // Renters who reach nothing reach less than usual.
        Value::Array(list) if list.is_empty() && at == "rental.access" => {
            into.insert(at.to_owned(), "nothing".to_owned());
        }
        // An empty value and a missing one are the same.
        Value::Array(list) if list.is_empty() => {}
        Value::String(text) if text.is_empty() => {}
        other => drop(into.insert(at.to_owned(), other.to_string())),
    }
}

fn limit(at: &str, item: &Value, into: &mut BTreeMap<String, String>) {
    let sides = ["warn", "crit"].map(|side| (side, &item[side]));
    for (side, range) in sides.iter().filter(|(_, range)| !range.is_null()) {
        into.insert(format!("{at}.{side}"), range.to_string());
    }
    if sides.iter().all(|(_, range)| range.is_null()) {
        into.insert(at.to_owned(), "no limit".to_owned());
    }
}

/// Returns the fields for a PATCH. In a part that the file gives completely, unnamed members are
/// removed.
pub fn patched(w: &Desired, now: &Map<String, Value>) -> Map<String, Value> {
    let mut fields = w.fields.clone();
    if !w.kind.is_partial() {
        return fields;
    }
    for part in SAID_WHOLE {
        let before = now.get(part).and_then(Value::as_object);
        if let (Some(before), Some(Value::Object(wanted))) = (before, fields.get_mut(part)) {
            *wanted = merge_patch::between(before, wanted);
        }
    }
    fields
}

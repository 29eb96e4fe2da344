//! Whether the API answers as its document says: each answer of each test is compared with it.
//!
//! Knows the part of JSON Schema that the document uses. Stricter in one point: an object has no field that the
//! document does not name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(crate::api::openapi);

/// # Panics
/// When the document says something else of this answer.
pub fn check_answer(method: &str, path: &str, status: u16, body: &Value) {
    let Some(operation) = operation(method, path.split('?').next().unwrap_or_default()) else { return };
    let schema = match status {
        400.. => &DOCUMENT["components"]["schemas"]["ProblemDocument"],
        _ => {
            let response = &operation["responses"][status.to_string()];
            assert!(response.is_object(), "{method} {path}: the document has no answer {status}");
            &response["content"]["application/json"]["schema"]
        }
    };
    if schema.is_null() || body.is_null() {
        return;
    }
    if let Err(why) = fits(schema, body) {
        panic!("{method} {path}: the answer {status} is not as the document says: {why}\n{body:#}");
    }
}

/// The operation that a path leads to; a literal part wins over a parameter.
pub fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object()?;
    let given: Vec<&str> = path.split('/').collect();
    let matching = paths.iter().filter(|(template, _)| leads(template, &given));
    let (_, item) = matching.min_by_key(|(template, _)| template.matches('{').count())?;
    item.get(method.to_lowercase())
}

fn leads(template: &str, given: &[&str]) -> bool {
    let parts: Vec<&str> = template.split('/').collect();
    let same = |(part, given): (&&str, &&str)| part.starts_with('{') && !given.is_empty() || part == given;
    parts.len() == given.len() && parts.iter().zip(given).all(same)
}

/// # Errors
/// Says where the value is not as the schema says.
pub fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    at("", schema, value, true)
}

fn resolved(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolved(DOCUMENT.pointer(&reference[1..]).expect("a reference leads somewhere")),
        None => schema,
    }
}

/// `whole`: the schema is all that is said of the value, and no part of it.
fn at(path: &str, schema: &Value, value: &Value, whole: bool) -> Result<(), String> {
    let schema = resolved(schema);
    for name in ["oneOf", "anyOf"] {
        if let Some(choices) = schema[name].as_array() {
            let failed: Vec<String> =
                choices.iter().filter_map(|choice| at(path, choice, value, whole).err()).collect();
            if failed.len() == choices.len() {
                return Err(format!(
                    "{path} fits none of {} schemas: {}",
                    choices.len(),
                    failed.join("; or ")
                ));
            }
        }
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        at(path, part, value, false)?;
    }
    scalar(path, schema, value)?;
    match value {
        Value::Object(fields) => object(path, schema, fields, whole),
        Value::Array(items) if schema["items"].is_object() => items
            .iter()
            .enumerate()
            .try_for_each(|(i, item)| at(&format!("{path}[{i}]"), &schema["items"], item, true)),
        Value::String(text) if schema["contentSchema"].is_object() => {
            let content: Value =
                serde_json::from_str(text).map_err(|error| format!("{path} is no JSON: {error}"))?;
            at(path, &schema["contentSchema"], &content, true)
        }
        _ => Ok(()),
    }
}

fn scalar(path: &str, schema: &Value, value: &Value) -> Result<(), String> {
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is(name, value)) {
        return Err(format!("{path} is {value}, and not {}", types.join(" or ")));
    }
    let words = schema["enum"].as_array();
    if words.is_some_and(|words| !words.contains(value)) {
        return Err(format!("{path} is {value}, which is not among {}", schema["enum"]));
    }
    let known = schema["x-extensible-enum"].as_array();
    if known.is_some_and(|known| !known.contains(value)) {
        return Err(format!("{path} is {value}, which the document does not list"));
    }
    let Some(number) = value.as_f64() else { return Ok(()) };
    let low = schema["minimum"].as_f64().is_some_and(|least| number < least);
    let high = schema["maximum"].as_f64().is_some_and(|most| number > most);
    if low || high { Err(format!("{path} is {number}, out of bounds")) } else { Ok(()) }
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn object(path: &str, schema: &Value, fields: &Map<String, Value>, whole: bool) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("{path}.{name} is absent"));
        }
    }
    let mut declared = BTreeMap::new();
    properties(schema, &mut declared);
    let choice = schema["oneOf"].is_array() || schema["anyOf"].is_array();
    for (name, value) in fields {
        let here = format!("{path}.{name}");
        match (declared.get(name.as_str()), &schema["additionalProperties"]) {
            (Some(property), _) => at(&here, property, value, true)?,
            (None, values @ Value::Object(_)) => at(&here, values, value, true)?,
            (None, _) if whole && !declared.is_empty() && !choice => {
                return Err(format!("{here} is not in the document"));
            }
            (None, _) => {}
        }
    }
    Ok(())
}

/// The schema of a field, `null` aside.
pub fn property(schema: &'static Value, name: &str) -> Option<&'static Value> {
    let schema = not_null(resolved(schema));
    let mut declared = BTreeMap::new();
    properties(schema, &mut declared);
    let found = declared
        .get(name)
        .copied()
        .or(schema["additionalProperties"].is_object().then(|| &schema["additionalProperties"]));
    found.map(|schema| not_null(resolved(schema)))
}

fn not_null(schema: &'static Value) -> &'static Value {
    let choices = schema["oneOf"].as_array().into_iter().flatten();
    let other = choices.into_iter().find(|choice| choice["type"] != "null");
    other.map_or(schema, |choice| resolved(choice))
}

/// The properties of the schema itself and of its parts.
fn properties<'a>(schema: &'a Value, found: &mut BTreeMap<&'a str, &'a Value>) {
    let schema = resolved(schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        found.insert(name, property);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        properties(part, found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_document_does_not_say_is_found() {
        let schema = json!({ "type": "object", "required": ["a"], "properties": {
            "a": { "type": "string", "enum": ["x", "y"] },
            "b": { "type": ["integer", "null"], "minimum": 1, "maximum": 9 },
            "d": { "type": "string", "contentSchema": { "type": "array" } },
        } });
        assert_eq!(fits(&schema, &json!({ "a": "x", "b": null, "d": "[]" })), Ok(()));
        for (value, why) in [
            (json!([]), " is []"),
            (json!({}), ".a is absent"),
            (json!({ "a": "z" }), ".a is \"z\", which is not among"),
            (json!({ "a": "x", "b": 10 }), ".b is 10, out of bounds"),
            (json!({ "a": "x", "b": 1.5 }), ".b is 1.5, and not"),
            (json!({ "a": "x", "c": 1 }), ".c is not in the document"),
            (json!({ "a": "x", "d": "[" }), ".d is no JSON"),
            (json!({ "a": "x", "d": "{}" }), ".d is {}, and not array"),
        ] {
            let found = fits(&schema, &value).unwrap_err();
            assert!(found.starts_with(why), "{found}");
        }
    }
}

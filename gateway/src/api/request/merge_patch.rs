//! JSON merge patch (RFC 7396) on maps, for PATCH. An absent member stays, `null` removes it, and
//! any other value replaces it. Lists are replaced as a whole.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::types::{Labels, LabelsChange};

/// Returns the labels after a change.
pub fn labels(before: &Labels, change: Option<LabelsChange>) -> Labels {
    let Some(change) = change else { return Labels::new() };
    let mut after = before.clone();
    for (key, value) in change {
        match value {
            Some(value) => drop(after.insert(key, value)),
            None => drop(after.remove(&key)),
        }
    }
    after
}

/// Patches any object.
pub fn object(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(&name)),
            Value::Object(inner) => object(inside(target, &name), inner),
            value => drop(target.insert(name, value)),
        }
    }
}

/// Returns the member of this name as an object, replacing any other value.
fn inside<'a>(target: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let member = target.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !member.is_object() {
        *member = Value::Object(Map::new());
    }
    member.as_object_mut().expect("it was made one")
}

/// Returns the patch that turns `before` into `wanted`.
pub fn between(before: &Map<String, Value>, wanted: &Map<String, Value>) -> Map<String, Value> {
    let gone =
        before.keys().filter(|name| !wanted.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let there = wanted.iter().map(|(name, value)| {
        let inner = before.get(name).and_then(Value::as_object).zip(value.as_object());
        (name.clone(), inner.map_or_else(|| value.clone(), |(b, w)| Value::Object(between(b, w))))
    });
    gone.chain(there).collect::<BTreeMap<_, _>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    /// The examples of RFC 7396, appendix A, in which both values are objects.
    #[test]
    fn the_examples_of_the_standard_hold() {
        let cases = [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ];
        for (before, patch, after) in cases {
            let mut target = map(before.clone());
            object(&mut target, map(patch.clone()));
            assert_eq!(Value::Object(target), after, "{before} with {patch}");
        }
    }

    #[test]
    fn the_patch_between_two_makes_the_second_of_the_first() {
        let maps =
            [json!({}), json!({"a":1}), json!({"a":{"b":1,"c":2}}), json!({"a":{"b":2},"d":[1]})].map(map);
        for before in &maps {
            for wanted in &maps {
                let mut target = before.clone();
                object(&mut target, between(before, wanted));
                assert_eq!(&target, wanted);
            }
        }
    }
}

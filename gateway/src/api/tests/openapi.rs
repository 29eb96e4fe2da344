//! The API document is true of bodies, numbers, names and parameters.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::api::document::conformance::DOCUMENT;
use crate::api::response::problem::CODES;

/// Each operation as method, path and what is said of it.
pub(super) fn operations() -> Vec<(String, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let of = |(path, item): (&'static String, &'static Value)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, operation)| (method.to_uppercase(), path.as_str(), operation))
    };
    paths.iter().flat_map(of).collect()
}

/// Every value below this one, with its path.
fn walk<'a>(path: &str, value: &'a Value, seen: &mut impl FnMut(&str, &'a Value)) {
    seen(path, value);
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| walk(&format!("{path}/{name}"), value, seen));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| walk(&format!("{path}/{i}"), value, seen));
        }
        _ => {}
    }
}

#[test]
fn every_response_and_operation_is_described() {
    for (method, path, operation) in operations() {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let text = response["description"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{method} {path}: {status}");
        }
        let text = operation["summary"].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{method} {path} has no summary");
    }
}

#[test]
fn a_header_is_no_null_and_conditions_and_labels_have_their_form() {
    let (mut conditional, mut labelled) = (0, 0);
    for (method, path, operation) in operations() {
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for parameter in parameters {
            let (is_header, schema) = (parameter["in"] == "header", &parameter["schema"]);
            assert!(!is_header || schema["type"] == "string", "{method} {path}: {parameter}");
            conditional += usize::from(is_header && schema["pattern"].is_string());
            labelled += usize::from(schema["items"]["pattern"].is_string());
        }
    }
    assert!(conditional > 20 && labelled > 2, "{conditional} conditional, {labelled} by label");
}

/// A reader of the API knows no file and no type of this program.
#[test]
fn no_text_of_the_document_names_the_inside_of_the_program() {
    walk("", &DOCUMENT, &mut |path, value| {
        let Some(text) =
            value.as_str().filter(|_| path.ends_with("/description") || path.ends_with("/summary"))
        else {
            return;
        };
        for inside in ["::", ".rs", ".md", "[`", "BTreeMap", "HashMap", "Vec<", "Option<", "serde", "MAX_"] {
            assert!(!text.contains(inside), "{path} says {inside}: {text}");
        }
    });
    let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
    for name in ["BTreeMap", "HashMap", "Value", "String"] {
        assert!(!schemas.contains_key(name), "{name} is no name of the field");
    }
}

#[test]
fn every_number_of_a_request_has_its_bounds() {
    let mut open = BTreeSet::new();
    let bodies = operations().into_iter().filter_map(|(_, _, operation)| {
        operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
    });
    let mut waiting: Vec<&str> = bodies.collect();
    let mut done = BTreeSet::new();
    while let Some(reference) = waiting.pop() {
        if !done.insert(reference) {
            continue;
        }
        walk(reference, DOCUMENT.pointer(&reference[1..]).unwrap(), &mut |path, value| {
            if path.ends_with("/$ref") {
                waiting.extend(value.as_str());
            }
            let types = value["type"].to_string();
            let number = types.contains("integer") || types.contains("number");
            if number && (value["minimum"].is_null() || value["maximum"].is_null()) {
                open.insert(path.trim_start_matches("#/components/schemas/").to_owned());
            }
        });
    }
    // Seconds since 1970, whenever; and an exit status that no plugin has is UNKNOWN.
    let exempt = ["NewResult/properties/exit_status", "ResultOf/properties/exit_status", "Timestamp/oneOf/1"];
    assert_eq!(open, exempt.map(ToOwned::to_owned).into());
}

#[test]
fn null_is_taken_where_it_removes_something_and_nowhere_else() {
    let property = |schema: &str, name: &str| &DOCUMENT["components"]["schemas"][schema]["properties"][name];
    let takes_null = |property: &Value| {
        let types = property["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
        let choices = property["oneOf"].as_array().is_some_and(|c| c.contains(&json!({ "type": "null" })));
        types || choices
    };
    for (schema, name, expected) in [
        ("HostChange", "labels", true),
        ("HostChange", "interval_s", true),
        ("HostChange", "name", false),
        ("ContactChange", "name", false),
        ("ContactChange", "digest_at", true),
        ("UserChange", "disabled", false),
        ("UserChange", "role", false),
    ] {
        assert_eq!(takes_null(property(schema, name)), expected, "{schema}.{name}");
    }
    let labels = &DOCUMENT["components"]["schemas"]["LabelsChange"]["additionalProperties"];
    assert!(takes_null(labels), "a label that is null is removed: {labels}");
    let labels = &DOCUMENT["components"]["schemas"]["Labels"]["additionalProperties"];
    assert_eq!(labels["type"], "string");
}

fn guide(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(file).unwrap()
}

/// Returns the words in backquotes in the second column of the table of errors.
fn documented_codes(guide: &str) -> BTreeSet<String> {
    let errors = guide.split("## Errors").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = errors.lines().filter(|line| line.starts_with("| ") && line[2..5].parse::<u16>().is_ok());
    let codes = rows.flat_map(|row| row.split('|').nth(2).unwrap().split('`').skip(1).step_by(2));
    codes.map(ToOwned::to_owned).collect()
}

#[test]
fn the_guide_lists_every_error_code() {
    let codes: BTreeSet<String> = CODES.map(ToOwned::to_owned).into();
    assert_eq!(documented_codes(&guide("api.md")), codes);
    assert_eq!(codes.len(), CODES.len(), "each once");
}

/// The code of each error that a file of the API makes.
fn codes_in(source: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for maker in
        ["::bad_request(", "::unauthorized(", "::forbidden(", "::conflict(", "::affects(", "Problem::new("]
    {
        for after in source.split(maker).skip(1) {
            // The status of `new` stands before the code.
            let skipped = if maker == "Problem::new(" {
                after.split_once(',').map_or("", |(_, rest)| rest)
            } else {
                after
            };
            let code = skipped.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            found.extend(code);
        }
    }
    found
}

/// All sources below a folder, tests left out.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = entries.flat_map(|path| match path.is_dir() {
        true if path.ends_with("tests") => Vec::new(),
        true => sources(&path),
        false => vec![path],
    });
    below.filter(|file| file.extension().is_some_and(|ending| ending == "rs")).collect()
}

#[test]
fn every_error_code_of_the_source_is_known() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let mut seen = 0;
    for file in sources(&folder) {
        let source = std::fs::read_to_string(&file).unwrap();
        for code in codes_in(&source) {
            assert!(CODES.contains(&code), "{}: {code} is not listed", file.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} codes were found");
}

#[test]
fn no_value_of_a_set_stands_there_twice() {
    walk("", &DOCUMENT, &mut |path, value| {
        if path.ends_with("/enum") || path.ends_with("/x-extensible-enum") {
            let values: Vec<String> = value.as_array().into_iter().flatten().map(Value::to_string).collect();
            assert_eq!(values.iter().collect::<BTreeSet<_>>().len(), values.len(), "{path}: {values:?}");
        }
    });
}

#[test]
fn the_glossary_explains_every_value_of_the_document() {
    let glossary = guide("glossary.md");
    let explained: BTreeSet<&str> = glossary
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect();
    let mut missing = BTreeSet::new();
    walk("", &DOCUMENT, &mut |path, value| {
        let is_values = path.ends_with("/enum") || path.ends_with("/x-extensible-enum");
        // The table of errors has a page of its own.
        if !is_values || path.contains("/ErrorCode/") {
            return;
        }
        for value in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !explained.contains(value) {
                missing.insert(format!("{value} of {}", path.split('/').nth(3).unwrap_or_default()));
            }
        }
    });
    assert!(missing.is_empty(), "docs/glossary.md lacks: {missing:#?}");
}

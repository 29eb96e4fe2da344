//! The OpenAPI document: the declarations of the handlers, completed with the parts common to all
//! of them.

#[cfg(test)]
pub mod conformance;
mod event_schemas;
pub mod examples;

use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::AppState;
use super::request::idempotency;
use super::response::problem::{CONTENT_TYPE, ProblemDocument};
use super::types::names;

/// What `If-Match` takes: `*`, or a list of quoted tags.
const ETAGS: &str = r#"^(\*|(W/)?"[!#-+\--~]+"(, ?(W/)?"[!#-+\--~]+")*)$"#;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "fleetgate",
        version = "1",
        description = "Every error is a problem document (RFC 9457) with a stable `code`. Lists are paged: \
            `limit`, `after`, and `next` in the answer. Every POST but logins and the restore takes an \
            `Idempotency-Key`; resources that can be changed have an `ETag` and take `If-Match`. \
            The security requirement of an operation has the role and the area that it needs: \
            `devices:operator` is that role or a higher one, and a token without scopes or with the scope \
            `devices`; `unlimited:admin` is that role and a token without scopes; an empty list is any \
            caller with a credential.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact()
    ),
    components(schemas(
        ProblemDocument,
        names::EnrolmentState,
        names::HostFilter,
        names::IncidentFilter,
        names::MessageResult,
        names::TopMetricName
    ))
)]
struct Base;

pub(super) fn base() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Base::openapi())
}

/// Returns the document, which is served, committed and turned into the dashboard's client.
pub(super) fn complete(declared: &OpenApi) -> Value {
    let mut document = serde_json::to_value(declared).expect("a document is JSON");
    document["components"]["securitySchemes"] = json!({
        "token": {
            "type": "http", "scheme": "bearer",
            "description": "An API token, `fgt_...`. Roles: viewer, operator, admin; each includes the former.",
        },
        "session": {
            "type": "apiKey", "in": "cookie", "name": "fleetgate_session",
            "description": "Set by POST /api/v1/session; `__Host-fleetgate_session` over HTTPS. \
                Unsafe methods need the Origin of the gateway, or the header X-Fleetgate.",
        },
        "person": {
            "type": "apiKey", "in": "cookie", "name": "fleetgate_my",
            "description": "The session of a person of a customer, set by POST /api/v1/my/login; \
                `__Host-fleetgate_my` over HTTPS. All other routes answer it with 404. \
                Unsafe methods need the Origin of the gateway, or the header X-Fleetgate.",
        },
        "customer": {
            "type": "http", "scheme": "bearer",
            "description": "An API token of a customer, `fgt_...`. All other routes answer it with 404.",
        },
        "enrolment": {
            "type": "http", "scheme": "bearer",
            "description": "The polling secret that the device made and sent the SHA-256 of.",
        },
    });
    event_schemas::add(&mut document);
    for operation in operations(&mut document) {
        complete_operation(operation);
    }
    for schema in document["components"]["schemas"].as_object_mut().into_iter().flatten() {
        leave_out_null_defaults(schema.1);
    }
    for operation in repeatable(&mut document) {
        take_key(operation);
    }
    document
}

/// Returns every POST except for logins, the logout of a person, and the restore.
fn repeatable(document: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    let paths = paths.filter(|(path, _)| !idempotency::KEYLESS.contains(&path.as_str()));
    paths.filter_map(|(_, item)| item.get_mut("post")?.as_object_mut())
}

fn take_key(operation: &mut Map<String, Value>) {
    let key = json!({
        "name": "Idempotency-Key", "in": "header", "required": false,
        "description": "1 to 255 printable characters. The same call with the same key has one effect; the \
            repetition gets the first answer, without its secrets and with `Idempotency-Replayed: true`. \
            With another request the key is refused (422 `idempotency_key_reused`). Kept for 24 hours; of \
            results: the last 64 of their service.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$" },
    });
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        parameters.push(key);
    }
    let replayed = json!({
        "Idempotency-Replayed": {
            "description": "`true`: this call was made before, and nothing changed. Absent otherwise.",
            "schema": { "type": "string" },
        },
    });
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flatten();
    for (_, response) in responses.filter(|(status, _)| status.starts_with('2')) {
        response["headers"] = replayed.clone();
    }
}

fn operations(document: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let paths = document["paths"].as_object_mut().into_iter();
    let items = paths.flat_map(|paths| paths.values_mut()).filter_map(Value::as_object_mut);
    items.flat_map(|item| item.values_mut()).filter_map(Value::as_object_mut)
}

/// An absent field of a PATCH stays, and `null` clears it: no client may send one for the other.
fn leave_out_null_defaults(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| name != "default" || !value.is_null());
            fields.values_mut().for_each(leave_out_null_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_null_defaults),
        _ => {}
    }
}

/// Every response needs a description (OpenAPI 3.1, section 4.8.17).
fn usual_description(status: &str) -> &'static str {
    match status {
        "201" => "Created.",
        "202" => "Accepted. The work continues after the answer.",
        "204" => "Done. The answer has no body.",
        _ => "Success.",
    }
}

fn complete_parameter(parameter: &mut Value) {
    // A header is text, which is sent or absent and never null.
    if parameter["in"] == "header" {
        parameter["schema"]["type"] = "string".into();
    }
    if parameter["name"] == "If-Match" {
        parameter["schema"]["pattern"] = ETAGS.into();
    }
    if parameter["in"] == "query" && parameter["name"] == "label" {
        parameter["schema"]["items"]["pattern"] = "=".into();
    }
}

fn complete_operation(operation: &mut Map<String, Value>) {
    let problem = json!({
        "description": "What went wrong",
        "content": { CONTENT_TYPE: { "schema": { "$ref": "#/components/schemas/ProblemDocument" } } },
    });
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        for (status, response) in
            responses.iter_mut().filter(|(_, r)| r["description"].as_str().is_none_or(str::is_empty))
        {
            response["description"] = usual_description(status).into();
        }
        responses.insert("default".into(), problem);
    }
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
    parameters.for_each(complete_parameter);
    let example = operation["operationId"].as_str().and_then(examples::of);
    let body = operation.get_mut("requestBody").and_then(|body| body["content"].get_mut("application/json"));
    if let (Some(body), Some(example)) = (body, example) {
        body["example"] = example;
    }
    let token = operation.get("security").and_then(|s| s.get(0)).and_then(|s| s.get("token")).cloned();
    if let Some(role) = token {
        operation.insert("security".into(), json!([{ "token": role }, { "session": role }]));
    }
}

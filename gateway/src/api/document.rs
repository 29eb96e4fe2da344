//! The OpenAPI document: the declarations of the handlers, completed with the parts common to all
//! of them.

use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::AppState;
use super::idempotency;
use super::problem::{CONTENT_TYPE, ProblemDocument};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "fleetgate",
        version = "1",
        description = "Every error is a problem document (RFC 9457) with a stable `code`. Lists are paged: \
            `limit`, `after`, and `next` in the answer. Every POST but the login takes an \
            `Idempotency-Key`; what can be changed has an `ETag` and takes `If-Match`. \
            What an operation needs stands in its security requirement: `devices:operator` is that role, or \
            a higher one, and no token that is limited to other areas than `devices`; `unlimited:admin` is \
            that role and a token without limits; an empty list is any caller who is known.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact()
    ),
    components(schemas(ProblemDocument))
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
        "enrolment": {
            "type": "http", "scheme": "bearer",
            "description": "The polling secret that the device made and sent the SHA-256 of.",
        },
    });
    for operation in operations(&mut document) {
        complete_operation(operation);
    }
    for operation in repeatable(&mut document) {
        take_key(operation);
    }
    document
}

/// Returns every POST except for the login and the restore.
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
            results: the last 32 of their service.",
        "schema": { "type": ["string", "null"], "minLength": 1, "maxLength": 255 },
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

fn complete_operation(operation: &mut Map<String, Value>) {
    let problem = json!({
        "description": "What went wrong",
        "content": { CONTENT_TYPE: { "schema": { "$ref": "#/components/schemas/ProblemDocument" } } },
    });
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        responses.insert("default".into(), problem);
    }
    let token = operation.get("security").and_then(|s| s.get(0)).and_then(|s| s.get("token")).cloned();
    if let Some(role) = token {
        operation.insert("security".into(), json!([{ "token": role }, { "session": role }]));
    }
}

//! The OpenAPI document: what the handlers declare, completed by what holds for all of them.

use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::AppState;
use super::problem::{CONTENT_TYPE, ProblemDocument};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "fleetgate",
        version = "1",
        description = "Every error is a problem document (RFC 9457) with a stable `code`. Lists are paged: \
            `limit`, `after`, and `next` in the answer. A POST that makes something takes an \
            `Idempotency-Key`; what can be changed has an `ETag` and takes `If-Match`. \
            The role that an operation needs stands in its security requirement.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact()
    ),
    components(schemas(ProblemDocument))
)]
struct Base;

pub(super) fn base() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Base::openapi())
}

/// The document that is served, committed, and turned into the dashboard's client.
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
    document
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

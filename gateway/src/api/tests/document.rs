//! The OpenAPI document is fresh, and every route does what it says about roles.

use std::path::Path;

use axum::body::Body;
use serde_json::Value;

use crate::api::openapi;
use crate::api::testing::{Caller, TestApi};

/// Routes that anybody may call; each has its own way to know its caller, or has nothing to hide.
const PUBLIC: [&str; 4] = [
    "POST /api/v1/session",
    "POST /api/v1/enrol",
    "GET /api/v1/enrol/{}",
    "GET /api/v1/enrol/{}/preshared-key",
];
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

#[test]
fn the_committed_document_is_fresh() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let fresh = openapi();
    if std::env::var_os("FLEETGATE_TEST_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&fresh).unwrap() + "\n";
        std::fs::write(&file, text).unwrap();
    }
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert!(
        committed == fresh,
        "docs/openapi.json is not what the program serves: run \
         `FLEETGATE_TEST_BLESS=1 cargo test -p fleetgate the_committed_document_is_fresh`"
    );
}

struct Operation {
    method: String,
    path: String,
    /// `None`: public.
    role: Option<String>,
}

/// As a key of the table of public routes: parameters have no names.
fn shape(method: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split('/').map(|p| if p.starts_with('{') { "{}" } else { p }).collect();
    format!("{} {}", method.to_uppercase(), parts.join("/"))
}

fn operations() -> Vec<Operation> {
    let document = openapi();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|m| item.get(**m).is_some()) {
            let role = item[*method]["security"][0]["token"][0].as_str().map(ToOwned::to_owned);
            all.push(Operation { method: method.to_uppercase(), path: path.clone(), role });
        }
    }
    all
}

#[test]
fn every_route_says_who_may_call_it() {
    let operations = operations();
    assert!(operations.len() > 30, "{}", operations.len());
    for operation in operations {
        let shape = shape(&operation.method, &operation.path);
        let public = PUBLIC.contains(&shape.as_str());
        assert_eq!(operation.role.is_none(), public, "{shape}");
    }
}

#[test]
fn operation_ids_are_unique() {
    let document = openapi();
    let mut seen = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|m| item.get(**m).is_some()) {
            let id = item[*method]["operationId"].as_str().unwrap().to_owned();
            assert!(seen.insert(id.clone()), "{id} of {method} {path}");
        }
    }
}

/// 401 and 403 are what this is about; whatever else comes, the caller was let through.
async fn status(caller: &Caller<'_>, operation: &Operation) -> u16 {
    let path = operation.path.split('/').map(|p| if p.starts_with('{') { "nothing" } else { p });
    let path = path.collect::<Vec<_>>().join("/");
    caller.respond(&operation.method, &path, Body::empty()).await.status().as_u16()
}

#[tokio::test]
async fn every_route_lets_in_whom_it_says_and_nobody_else() {
    for operation in operations() {
        let Some(role) = &operation.role else { continue };
        // Each has a gateway of its own: some of these calls change what others need.
        let api = TestApi::new().await;
        let callers = [("viewer", api.viewer()), ("operator", api.operator()), ("admin", api.admin())];
        let name = format!("{} {}", operation.method, operation.path);
        assert_eq!(status(&api.anonymous(), &operation).await, 401, "{name} anonymous");
        let needed = callers.iter().position(|(r, _)| r == role).unwrap();
        for (i, (who, caller)) in callers.iter().enumerate() {
            let status = status(caller, &operation).await;
            let refused = status == 401 || status == 403;
            assert_eq!(refused, i < needed, "{name} as {who}: {status}");
        }
    }
}

#[tokio::test]
async fn what_has_no_route_is_a_problem_document() {
    let api = TestApi::new().await;
    for (method, path, status, code) in [
        ("GET", "/api/v1/nothing", 404, "not_found"),
        ("PUT", "/api/v1/devices", 405, "method_not_allowed"),
        ("GET", "/api/v2", 404, "not_found"),
    ] {
        let answer = api.admin().send(method, path, Body::empty()).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{method} {path}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.json["request_id"], answer.headers["x-request-id"].to_str().unwrap());
    }
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let api = TestApi::new().await;
    for path in ["/api/v1/gateway", "/api/v1/openapi.json", "/api/v1/docs/", "/healthz", "/", "/nothing.js"] {
        let headers = api.viewer().get(path).await.headers;
        let csp = headers["content-security-policy"].to_str().unwrap();
        assert!(csp.contains("default-src 'none'") && !csp.contains("unsafe"), "{path}: {csp}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["x-frame-options"], "DENY", "{path}");
    }
    assert_eq!(api.viewer().get("/api/v1/gateway").await.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn the_documentation_is_served_without_any_foreign_file() {
    let api = TestApi::new().await;
    let page = api.anonymous().get("/api/v1/docs/").await;
    assert_eq!(page.status, 200);
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
    assert!(!page.text.contains("<script>") && !page.text.contains("<style>"), "{}", page.text);
    for file in page.text.split(['"', '\'']).filter(|t| t.ends_with(".js") || t.ends_with(".css")) {
        let path = format!("/api/v1/docs/{}", file.trim_start_matches("./"));
        assert_eq!(api.anonymous().get(&path).await.status, 200, "{path}");
    }
    let document = api.anonymous().get("/api/v1/openapi.json").await;
    assert_eq!(document.json["openapi"], "3.1.0");
}

#[tokio::test]
async fn health_is_told_to_everybody_and_metrics_to_this_machine() {
    let api = TestApi::new().await;
    let stranger = api.anonymous();
    assert_eq!(stranger.get("/healthz").await.status, 200);
    assert_eq!(stranger.get("/readyz").await.status, 200);
    assert_eq!(stranger.get("/metrics").await.status, 401);
    assert_eq!(api.viewer().get("/metrics").await.status, 403);
    assert_eq!(api.operator().get("/metrics").await.status, 200);
    let local = api.anonymous().at_address("127.0.0.1");
    assert_eq!(local.get("/metrics").await.status, 200);
    assert_eq!(local.header("x-forwarded-for", "192.0.2.1").get("/metrics").await.status, 401);
    api.state.shutdown.cancel();
    assert_eq!(stranger.get("/readyz").await.code(), "not_ready");
}

//! The OpenAPI document is up to date, and every route enforces its declared roles.

use std::collections::BTreeSet;
use std::path::Path;

use axum::body::Body;
use axum::http::Method;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::api::openapi;
use crate::api::request::auth::Role;
use crate::api::request::checks;
use crate::api::request::permission::{Area, Rule, rule};
use crate::api::response::around;
use crate::api::testing::{Caller, TestApi};

/// Routes without authentication. Each has its own proof or returns nothing secret.
pub(super) const OPEN: [&str; 5] = [
    "POST /api/v1/session",
    "POST /api/v1/my/login",
    "POST /api/v1/enrol",
    "GET /api/v1/enrol/{enrolment}",
    "GET /api/v1/enrol/{enrolment}/preshared-key",
];
/// Routes for every authenticated caller, about that caller alone.
const KNOWN: [&str; 3] = ["GET /api/v1/session", "DELETE /api/v1/session", "PUT /api/v1/session/password"];
/// Routes for people of customers, about the caller alone. `mine` tests that they find no others.
const PERSON: [&str; 7] = [
    "GET /api/v1/my",
    "POST /api/v1/my/logout",
    "GET /api/v1/my/rentals/{rental}/ssh",
    "POST /api/v1/my/renters",
    "PATCH /api/v1/my/renters/{renter}",
    "DELETE /api/v1/my/renters/{renter}",
    "POST /api/v1/my/renters/{renter}/credentials",
];
/// Routes for people and for tokens of customers.
const CUSTOMER: [&str; 5] = [
    "GET /api/v1/my/rentals",
    "GET /api/v1/my/rentals/{rental}",
    "GET /api/v1/my/rentals/{rental}/values",
    "GET /api/v1/my/rental-events",
    "GET /api/v1/my/renters",
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
    method: Method,
    path: String,
    rule: Rule,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

fn operations() -> Vec<Operation> {
    let document = openapi();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|m| item.get(**m).is_some()) {
            let method: Method = method.to_uppercase().parse().unwrap();
            let rule = rule(path, &method).unwrap_or_else(|_| panic!("{method} {path} says nothing"));
            all.push(Operation { method, path: path.clone(), rule });
        }
    }
    all
}

#[test]
fn what_is_open_or_asks_for_no_role_is_named_here() {
    let of = |rule: Rule| {
        let names = operations().into_iter().filter(move |o| o.rule == rule).map(|o| o.name());
        names.collect::<BTreeSet<_>>()
    };
    assert_eq!(of(Rule::Open), OPEN.map(ToOwned::to_owned).into());
    assert_eq!(of(Rule::Known), KNOWN.map(ToOwned::to_owned).into());
    assert_eq!(of(Rule::Person), PERSON.map(ToOwned::to_owned).into());
    assert_eq!(of(Rule::Customer), CUSTOMER.map(ToOwned::to_owned).into());
}

#[test]
fn operation_ids_are_unique() {
    let document = openapi();
    let mut seen = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in METHODS.iter().filter(|m| item.get(**m).is_some()) {
            let id = item[*method]["operationId"].as_str().unwrap().to_owned();
            assert!(seen.insert(id.clone()), "{id} of {method} {path}");
        }
    }
}

/// Returns the status. Only 401 and 403 matter here. Any other status means that the caller was
/// admitted.
async fn status(caller: &Caller<'_>, operation: &Operation) -> u16 {
    let path = operation.path.split('/').map(|p| if p.starts_with('{') { "nothing" } else { p });
    let path = path.collect::<Vec<_>>().join("/");
    caller.respond(operation.method.as_str(), &path, Body::empty()).await.status().as_u16()
}

/// Whether an admitted call may have changed something, so that the next one needs another gateway.
fn may_have_changed(operation: &Operation, status: u16) -> bool {
    operation.method != Method::GET && !(400..500).contains(&status)
}

#[tokio::test]
async fn every_route_lets_in_whom_it_says_and_nobody_else() {
    // Refused callers change nothing, so one gateway serves all of them.
    let shared = TestApi::new().await;
    let mut limited = Vec::new();
    for area in Area::ALL {
        limited.push((area, shared.limited(Role::Admin, area).await));
    }
    let mut api = TestApi::new().await;
    for operation in operations() {
        let (area, role) = match operation.rule {
            Rule::Open | Rule::Known => continue,
            Rule::Person | Rule::Customer => {
                for caller in [shared.anonymous(), shared.viewer(), shared.admin()] {
                    assert_eq!(status(&caller, &operation).await, 401, "{}", operation.name());
                }
                continue;
            }
            Rule::Least(area, role) => (Some(area), role),
            Rule::Unlimited(role) => (None, role),
        };
        let name = operation.name();
        assert_eq!(status(&shared.anonymous(), &operation).await, 401, "{name} anonymous");
        for (limit, caller) in limited.iter().filter(|(limit, _)| Some(*limit) != area) {
            assert_eq!(status(caller, &operation).await, 403, "{name} within {limit}");
        }
        let mut changed = false;
        if let Some(area) = area {
            let status = status(&api.limited(role, area).await, &operation).await;
            assert_ne!(status, 403, "{name} within {area}");
            changed |= may_have_changed(&operation, status);
        }
        let callers = [api.viewer(), api.operator(), api.admin()];
        for (who, caller) in [Role::Viewer, Role::Operator, Role::Admin].into_iter().zip(callers) {
            let status = status(&caller, &operation).await;
            let refused = status == 401 || status == 403;
            assert_eq!(refused, who < role, "{name} as {who}: {status}");
            changed |= may_have_changed(&operation, status);
        }
        if changed {
            api = TestApi::new().await;
        }
    }
}

#[tokio::test]
async fn a_route_that_says_nothing_is_closed_to_everybody() {
    let api = TestApi::new().await;
    let forgotten = axum::Router::new().route("/api/v1/gadgets", axum::routing::get(|| async { "secret" }));
    let layer = around::layer(checks::Checks(api.state.clone()));
    let request = axum::extract::Request::get("/api/v1/gadgets").body(Body::empty()).unwrap();
    let answer = forgotten.route_layer(layer).oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 403);
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
    assert_eq!(local.clone().header("x-forwarded-for", "192.0.2.1").get("/metrics").await.status, 401);
    for (host, status) in [
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("localhost:8080", 200),
        ("evil.example:8080", 401),
        ("localhost.evil.example", 401),
        ("a b", 401),
    ] {
        assert_eq!(local.clone().header("host", host).get("/metrics").await.status, status, "{host}");
    }
    api.state.shutdown.cancel();
    assert_eq!(stranger.get("/readyz").await.code(), "not_ready");
}

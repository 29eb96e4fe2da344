//! The permissions for each route. Every request passes here before its handler, and a route
//! without a declaration is closed.
//!
//! A route declares its rule with `security(("token" = ["devices:operator"]))`, an area and the
//! least role. The rules are read from the API document, so that the document is always right.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use axum::extract::{FromRequestParts as _, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use fleetgate_engine::id::Id;
use serde_json::Value;

use super::auth::{Principal, Role};
use super::client::Login;
use super::in_progress::CallPermit;
use super::person::{self, CustomerCaller, PersonCaller};
use crate::api::AppState;
use crate::api::response::problem::Problem;

/// A part of the API that a token can be limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Monitoring,
    Devices,
    Enrolments,
    Access,
    Gateway,
    Rentals,
}

impl Area {
    pub const ALL: [Area; 6] =
        [Area::Monitoring, Area::Devices, Area::Enrolments, Area::Access, Area::Gateway, Area::Rentals];

    pub fn name(self) -> &'static str {
        match self {
            Area::Monitoring => "monitoring",
            Area::Devices => "devices",
            Area::Enrolments => "enrolments",
            Area::Access => "access",
            Area::Gateway => "gateway",
            Area::Rentals => "rentals",
        }
    }

    pub fn named(name: &str) -> Option<Area> {
        Area::ALL.into_iter().find(|area| area.name() == name)
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The requirement of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// No requirement, or the handler checks a proof of its own, such as a password or an
    /// enrolment's secret.
    Open,
    /// Any authenticated caller.
    Known,
    /// A role in an area. Each role includes the lower ones.
    Least(Area, Role),
    /// A role, and no token limited to areas, because the route affects all of them.
    Unlimited(Role),
    /// A person of a customer with a session, and no other caller. Such a person finds no route with another rule than
    /// this and the next one.
    Person,
    /// The same, or a program with a token of a customer, which finds no route with another rule.
    Customer,
}

/// The read of a person or a program of a customer. It counts until its last copy is dropped, when the response is made.
pub type Reading = Arc<CallPermit<Id>>;

/// Reads `devices:operator` or `unlimited:admin` from a declaration.
impl FromStr for Rule {
    type Err = ();

    fn from_str(text: &str) -> Result<Rule, ()> {
        let (area, role) = text.split_once(':').ok_or(())?;
        let role = role.parse().map_err(|_| ())?;
        match area {
            "unlimited" => Ok(Rule::Unlimited(role)),
            area => Area::named(area).map(|area| Rule::Least(area, role)).ok_or(()),
        }
    }
}

impl Rule {
    /// Reads the declaration of one operation. `None` if it cannot be understood.
    fn of(operation: &Value) -> Option<Rule> {
        let all = operation["security"].as_array()?;
        let first = all.first()?.as_object()?;
        if first.contains_key("person") {
            let takes_tokens = all.iter().any(|other| other.get("customer").is_some());
            return Some(if takes_tokens { Rule::Customer } else { Rule::Person });
        }
        match first.get("token").map(Value::as_array) {
            None => (first.is_empty() || first.contains_key("enrolment")).then_some(Rule::Open),
            Some(asked) => match asked?.as_slice() {
                [] => Some(Rule::Known),
                [only] => only.as_str()?.parse().ok(),
                _ => None,
            },
        }
    }
}

/// Routes outside the document: health probes for the operator, and files without a secret.
/// `/metrics` is open to this machine, and its handler checks all other callers.
const UNDOCUMENTED: [&str; 8] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/enrol.sh",
    "/api/v1/openapi.json",
    "/api/v1/docs",
    "/api/v1/docs/",
    "/api/v1/docs/{*rest}",
];

type Rules = HashMap<String, Vec<(Method, Rule)>>;

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let mut rules = declared(&crate::api::openapi());
    rules.extend(UNDOCUMENTED.map(|path| (path.to_owned(), vec![(Method::GET, Rule::Open)])));
    rules
});

fn declared(document: &Value) -> Rules {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.map(|(path, item)| (path.clone(), rules_of(item))).collect()
}

fn rules_of(item: &Value) -> Vec<(Method, Rule)> {
    let operations = item.as_object().into_iter().flatten();
    let rule = |(method, operation): (&String, &Value)| {
        Some((method.to_uppercase().parse().ok()?, Rule::of(operation)?))
    };
    operations.filter_map(rule).collect()
}

/// Returns the requirement of a route.
///
/// # Errors
/// Returns 405 for a method that the route does not have, and 403 for a route without a
/// declaration.
pub fn rule(route: &str, method: &Method) -> Result<Rule, Problem> {
    let rules = RULES.get(route).map(Vec::as_slice).unwrap_or_default();
    // A handler of GET serves HEAD too.
    let method = if method == Method::HEAD { &Method::GET } else { method };
    match rules.iter().find(|(m, _)| m == method) {
        Some((_, rule)) => Ok(*rule),
        None if rules.is_empty() => Err(closed()),
        None => Err(Problem::from_status(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

/// Checks the permission for every route. Stores the caller as [`Principal`] for the handler.
///
/// # Errors
/// Fails as [`rule`] and [`admit`] do. For a person of a customer there is no route with another rule: 404.
pub async fn check(app: &AppState, request: Request) -> Result<Request, Problem> {
    let (mut parts, body) = request.into_parts();
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let rule = match rule(route, &parts.method) {
        Ok(rule) => rule,
        Err(problem) => return Err(person::hidden(app, &parts.headers).await?.unwrap_or(problem)),
    };
    admit(app, &mut parts, rule).await?;
    Ok(Request::from_parts(parts, body))
}

fn closed() -> Problem {
    Problem::forbidden("closed_route", "this route has no permission rule, so it is closed")
}

/// Authenticates the caller again, even if it was known before.
///
/// # Errors
/// Returns 401 or 403 for callers that the rule does not admit, and 404 for a person of a customer.
pub async fn admit(app: &AppState, parts: &mut Parts, rule: Rule) -> Result<(), Problem> {
    if rule == Rule::Open {
        return Ok(());
    }
    parts.extensions.remove::<Principal>();
    if matches!(rule, Rule::Person | Rule::Customer) {
        admit_customer(app, parts, rule).await?;
        parts.extensions.insert(rule);
        return Ok(());
    }
    let caller = Principal::from_request_parts(parts, app).await?;
    match rule {
        Rule::Open | Rule::Known | Rule::Person | Rule::Customer => {}
        Rule::Least(area, role) => caller.must_be(role).and_then(|()| caller.must_reach(area))?,
        Rule::Unlimited(role) => caller.must_be(role).and_then(|()| caller.must_be_unlimited())?,
    }
    if let Some(login) = parts.extensions.get::<Login>() {
        login.note();
    }
    parts.extensions.insert(caller);
    parts.extensions.insert(rule);
    Ok(())
}

async fn admit_customer(app: &AppState, parts: &mut Parts, rule: Rule) -> Result<(), Problem> {
    let caller = match CustomerCaller::by_token(app, parts).await? {
        Some(_) if rule == Rule::Person => return Err(Problem::from_status(StatusCode::NOT_FOUND)),
        Some(program) => program,
        None => {
            let person = PersonCaller::by_cookie(app, parts).await?;
            let caller = CustomerCaller::from(&person);
            parts.extensions.insert(person);
            caller
        }
    };
    if parts.method.is_safe() {
        let place = app.rate_limits().read(caller.id, crate::clock::now().mono)?;
        parts.extensions.insert(Reading::new(place));
    }
    parts.extensions.insert(caller);
    Ok(())
}

/// Checks the permission again, for a response that continues.
///
/// # Errors
/// Fails as [`admit`] does.
pub async fn again(app: &AppState, parts: &mut Parts) -> Result<(), Problem> {
    let rule = parts.extensions.get::<Rule>().copied().ok_or_else(closed)?;
    admit(app, parts, rule).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::testing::TestApi;

    fn of(security: &Value) -> Option<Rule> {
        Rule::of(&json!({ "security": security }))
    }

    #[test]
    fn a_declaration_is_understood_or_closes_the_route() {
        let operator = Some(Rule::Least(Area::Devices, Role::Operator));
        assert_eq!(of(&json!([{ "token": ["devices:operator"] }, { "session": [] }])), operator);
        let admin = Some(Rule::Unlimited(Role::Admin));
        assert_eq!(of(&json!([{ "token": ["unlimited:admin"] }])), admin);
        assert_eq!(of(&json!([{ "token": [] }])), Some(Rule::Known));
        assert_eq!(of(&json!([{}])), Some(Rule::Open));
        assert_eq!(of(&json!([{ "enrolment": [] }])), Some(Rule::Open));
        assert_eq!(of(&json!([{ "person": [] }])), Some(Rule::Person));
        assert_eq!(of(&json!([{ "person": [] }, { "customer": [] }])), Some(Rule::Customer));
        assert_eq!(of(&json!([{ "customer": [] }])), None, "people see what programs see");
        for nonsense in [
            json!([]),
            json!([{ "token": ["operator"] }]),
            json!([{ "token": ["devices:owner"] }]),
            json!([{ "token": ["gadgets:viewer"] }]),
            json!([{ "token": ["devices:viewer", "access:viewer"] }]),
            json!([{ "token": null }]),
            json!([{ "something": [] }]),
        ] {
            assert_eq!(of(&nonsense), None, "{nonsense}");
        }
        assert_eq!(Rule::of(&json!({})), None, "a route that says nothing");
    }

    #[test]
    fn every_operation_of_the_document_has_a_rule() {
        let document = crate::api::openapi();
        let operations: usize =
            document["paths"].as_object().unwrap().values().map(|item| item.as_object().unwrap().len()).sum();
        assert!(operations > 100, "{operations}");
        assert_eq!(declared(&document).values().map(Vec::len).sum::<usize>(), operations);
    }

    #[test]
    fn head_is_asked_what_get_is_and_what_says_nothing_is_closed() {
        let asked = |route, method| rule(route, &method).map_err(|problem| problem.code());
        let admin = Ok(Rule::Least(Area::Access, Role::Admin));
        assert_eq!(asked("/api/v1/tokens", Method::GET), admin);
        assert_eq!(asked("/api/v1/tokens", Method::HEAD), admin);
        assert_eq!(asked("/api/v1/tokens", Method::PUT), Err("method_not_allowed"));
        assert_eq!(asked("/api/v1/gadgets", Method::GET), Err("closed_route"));
        assert_eq!(asked("", Method::GET), Err("closed_route"));
    }

    #[tokio::test]
    async fn whoever_lost_his_login_is_not_taken_for_known_again() {
        let api = TestApi::new().await;
        let request =
            Request::get("/api/v1/stream").header("authorization", format!("Bearer {}", api.viewer_token()));
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        assert!(again(&api.state, &mut parts).await.is_err(), "nobody let it in");
        let viewer = Rule::Least(Area::Monitoring, Role::Viewer);
        admit(&api.state, &mut parts, viewer).await.unwrap();
        again(&api.state, &mut parts).await.unwrap();
        let mine = api.viewer().get("/api/v1/session").await.json["principal"].as_str().unwrap().to_owned();
        let path = mine.replace("token:", "/api/v1/tokens/");
        assert_eq!(api.admin().delete(&path).await.status, 204);
        assert_eq!(again(&api.state, &mut parts).await.map_err(|p| p.code()), Err("token_refused"));
    }
}

//! Query parameters: those that the document declares for a route, and no others.
//!
//! A parameter that a route does not know would be passed over, and its caller would take an unfiltered list for a
//! filtered one.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use serde_json::Value;
use utoipa::IntoParams;

use crate::api::response::problem::Problem;
use crate::names::MAX_LABELS;

/// The names of the query parameters, by path and method.
type Declared = HashMap<(String, Method), BTreeSet<String>>;

static DECLARED: LazyLock<Declared> = LazyLock::new(|| declared(&crate::api::openapi()));

fn declared(document: &Value) -> Declared {
    let paths = document["paths"].as_object().into_iter().flatten();
    let operations = paths.flat_map(|(path, item)| {
        let operations = item.as_object().into_iter().flatten();
        operations.filter_map(move |(method, operation)| {
            let method = method.to_uppercase().parse().ok()?;
            Some(((path.clone(), method), names(operation)))
        })
    });
    operations.collect()
}

fn names(operation: &Value) -> BTreeSet<String> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let query = parameters.filter(|parameter| parameter["in"] == "query");
    query.filter_map(|parameter| parameter["name"].as_str().map(ToOwned::to_owned)).collect()
}

/// # Errors
/// Returns 400 for a parameter that the route does not take.
pub fn check(request: &Request) -> Result<(), Problem> {
    let Some(given) = request.uri().query() else { return Ok(()) };
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    // A handler of GET answers HEAD too.
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    let Some(known) = DECLARED.get(&(route.to_owned(), method.clone())) else { return Ok(()) };
    are_known(given, known).map_err(|detail| Problem::bad_request("bad_query", detail))
}

fn are_known(query: &str, known: &BTreeSet<String>) -> Result<(), String> {
    let mut given = form_urlencoded::parse(query.as_bytes());
    let Some((unknown, _)) = given.find(|(name, _)| !known.contains(name.as_ref())) else { return Ok(()) };
    let shown: String = unknown.chars().take(80).collect();
    let takes = match known.iter().map(String::as_str).collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "it takes none".to_owned(),
        names => format!("it takes {names}"),
    };
    Err(format!("{shown:?} is not a query parameter of this call: {takes}"))
}

/// Which labels a listed host must have.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WithLabels {
    /// `key=value`. Given several times, a host must have all of these labels.
    #[param(value_type = Option<Vec<String>>)]
    pub label: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for WithLabels {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let given = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let texts = given.filter(|(name, _)| name == "label").map(|(_, text)| text);
        let pair = |text: std::borrow::Cow<'_, str>| {
            let pair = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
            pair.ok_or_else(|| Problem::bad_request("bad_query", "label: key=value is expected"))
        };
        let label: BTreeSet<(String, String)> = texts.map(pair).collect::<Result<_, _>>()?;
        if label.len() > MAX_LABELS {
            let text = format!("label: {} were given, and no host has more than {MAX_LABELS}", label.len());
            return Err(Problem::bad_request("bad_query", text));
        }
        Ok(WithLabels { label: label.into_iter().collect() })
    }
}

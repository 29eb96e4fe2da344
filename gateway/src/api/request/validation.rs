//! Whether the API would accept a planned write, as far as its contents show it.
//!
//! `fleetgate apply` and `fleetgate device import` thus find mistakes before they send the first
//! write. A resource that they write has a function `validate`, which uses [`of`]. It knows neither
//! the existing resources nor the gateway's settings. Conditions on those are left to the gateway.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::response::problem::{FieldError, Problem};

/// All fields that would be refused. A field without a name is the whole.
pub type Validation = Result<(), Vec<FieldError>>;

/// Reads the fields as the body of a request would be read, and parses them.
///
/// # Errors
/// Returns the fields that would be refused.
pub fn of<T: DeserializeOwned, P>(fields: Value, parse: impl FnOnce(T) -> Result<P, Problem>) -> Validation {
    let whole = |e: serde_json::Error| vec![FieldError { field: String::new(), detail: e.to_string() }];
    errors(parse(serde_json::from_value(fields).map_err(whole)?))
}

/// # Errors
/// Returns the fields that were refused.
pub fn errors<P>(parsed: Result<P, Problem>) -> Validation {
    parsed.map(drop).map_err(|problem| match problem.errors() {
        [] => vec![FieldError { field: String::new(), detail: problem.detail().to_owned() }],
        errors => errors.to_vec(),
    })
}

//! The manager of a write: an operator by hand, or a program that names itself in a header.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::api::response::problem::Problem;
use crate::names::Name;
use crate::store::managed::{BY_HAND, Managed, Writer};

/// The header of programs that keep resources equal to a file, such as `fleetgate apply`.
pub const HEADER: &str = "fleetgate-manager";

pub struct Manager(String);

impl Manager {
    /// Whether the writer becomes the manager of its resources.
    pub fn is_program(&self) -> bool {
        self.0 != BY_HAND
    }

    pub fn writer<'a>(&'a self, principal: &'a str) -> Writer<'a> {
        Writer { manager: &self.0, principal }
    }
}

/// Returns the manager after this write of a new or existing resource.
pub fn after(before: Option<Managed>, writer: Writer<'_>) -> Managed {
    before.map_or_else(|| Managed::new(writer), |before| before.written(writer))
}

impl<S: Send + Sync> FromRequestParts<S> for Manager {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(given) = parts.headers.get(HEADER) else { return Ok(Manager(BY_HAND.to_owned())) };
        let name = given.to_str().ok().and_then(|text| Name::parse(text).ok());
        name.map(|name| Manager(name.to_string())).ok_or_else(|| {
            Problem::bad_request("bad_manager", "Fleetgate-Manager: a name such as apply is expected")
        })
    }
}

//! Errors as problem documents (RFC 9457) with a stable `code`.
//!
//! Their texts are written for the caller. The chain of an internal error is logged once, and the
//! caller gets the request id to refer to it.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::types::names::ErrorCode;
use crate::store::{self, Trouble};

pub const CONTENT_TYPE: &str = "application/problem+json";

/// Every code. A new one stands here and in the guide of the API.
pub const CODES: [&str; 103] = [
    "access_not_allowed",
    "access_not_removed",
    "alias_block_full",
    "already_dispatched",
    "already_returned",
    "answer_lost",
    "backup_running",
    "bad_idempotency_key",
    "bad_if_match",
    "bad_manager",
    "bad_query",
    "bad_request",
    "broken_body",
    "broken_json",
    "built_in",
    "busy",
    "changed_meanwhile",
    "closed_route",
    "connected_already",
    "cross_site",
    "cursor_gone",
    "database_unavailable",
    "decided_already",
    "device_blocked",
    "device_in_use",
    "device_not_ready",
    "disk_full",
    "downtime_over",
    "endpoint_configured",
    "endpoint_not_set",
    "external_ref_taken",
    "grant_over",
    "hold_over",
    "hosts_behind",
    "idempotency_key_reused",
    "in_use",
    "internal",
    "invalid",
    "is_a_device",
    "key_in_use",
    "last_admin",
    "limit_reached",
    "limited_token",
    "link_refused",
    "login_refused",
    "method_not_allowed",
    "name_taken",
    "no_etag",
    "no_session",
    "no_tunnel",
    "no_webhook",
    "not_a_problem",
    "not_approved",
    "not_connected",
    "not_dispatchable",
    "not_dispatched",
    "not_empty",
    "not_found",
    "not_given_up",
    "not_granted",
    "not_its_host",
    "not_logged_in",
    "not_on_disk",
    "not_open",
    "not_ready",
    "not_recorded",
    "not_rentable",
    "not_shipped",
    "nothing_to_confirm",
    "occupied",
    "other_restore",
    "others_affected",
    "pool_full",
    "profile_in_use",
    "rental_begun",
    "rental_not_begun",
    "rental_not_delayed",
    "rental_not_over",
    "rental_over",
    "rentals_covered",
    "rentals_open",
    "restore_running",
    "restore_staged",
    "restore_unconfirmed",
    "role_missing",
    "scope_missing",
    "secret_missing",
    "session_over",
    "ssh_not_granted",
    "superseded",
    "token_expired",
    "token_invalid",
    "token_refused",
    "token_revoked",
    "token_spent",
    "too_large",
    "too_many_requests",
    "too_slow",
    "tunnel_down",
    "unavailable",
    "unsupported_media_type",
    "upgrade_required",
    "user_disabled",
];

/// A problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// `urn:fleetgate:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Stable: programs branch on this.
    #[schema(value_type = ErrorCode)]
    pub code: String,
    /// The fault, and the remedy.
    pub detail: String,
    /// Identifies this request in the log of the gateway.
    pub request_id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The objects that the call would also remove or change: with `?cascade=true` it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affected: Vec<Affected>,
    /// Why a device cannot be booked, and when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
    /// The rentals (`l_...`) that the call would end or cover.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rentals: Vec<String>,
}

/// The occupancies of a device that was to be booked. They say nothing of who booked it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conflict {
    /// The index of the item in the booking.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub item: Option<u64>,
    /// `h_...`; absent when no device of the selection is free: see `devices`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
    /// When the device is occupied, preparation and turnaround included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Not included. Absent while it has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The next window of the same length that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_free: Option<NextFree>,
    /// The latest end that is possible for this rental.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest_until: Option<String>,
    /// When no device of the selection is free: devices of it and what occupies them, by name, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<OccupiedDevice>,
    /// Further occupied devices of the selection, which are not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0)]
    pub devices_left_out: Option<u64>,
}

/// A device of a selection, and the first occupancy in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OccupiedDevice {
    /// `h_...`
    pub device: String,
    pub device_name: String,
    /// When the device is occupied, preparation and turnaround included.
    pub from: String,
    /// Not included. Absent while it has no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A window in which a device can be booked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextFree {
    /// `h_...`
    pub device: String,
    pub device_name: String,
    pub from: String,
    /// Not included.
    pub until: String,
}

/// An object that a removal also removes or changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Affected {
    /// `h_...`
    pub id: String,
    pub name: String,
    /// `removed`: it is behind the device and is removed with it. `loses_parent`: it stays, without this parent.
    pub effect: Effect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    Removed,
    LosesParent,
}

/// The fault of one field of the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// The path of the field, such as `labels.site`; empty for the whole body.
    pub field: String,
    pub detail: String,
}

/// An error as the result of a handler.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    affected: Vec<Affected>,
    renting: Option<Box<Renting>>,
    retry_after_s: Option<u32>,
    cause: Option<Arc<anyhow::Error>>,
}

/// The part of an error that is about rentals. Few errors do.
#[derive(Clone, Debug, Default)]
struct Renting {
    conflict: Option<Conflict>,
    rentals: Vec<String>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!(CODES.contains(&code), "{code} is no known code");
        Problem {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            affected: Vec::new(),
            renting: None,
            retry_after_s: None,
            cause: None,
        }
    }

    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub fn unauthorized(code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    pub fn forbidden(code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::FORBIDDEN, code, detail)
    }

    /// `what` completes `no device is called "cam1"`.
    pub fn not_found(what: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not_found", what)
    }

    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::CONFLICT, code, detail)
    }

    /// Returns the error for a request with one invalid field.
    pub fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem::invalid_fields(vec![FieldError { field: field.into(), detail: detail.into() }])
    }

    pub fn invalid_fields(errors: Vec<FieldError>) -> Self {
        let first = errors.first().map_or_else(String::new, |e| match e.field.as_str() {
            "" => e.detail.clone(),
            field => format!("{field}: {}", e.detail),
        });
        Problem { errors, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", first) }
    }

    /// Returns the refusal of what a field names. A fault of the gateway stays one: the same call may
    /// succeed later.
    pub fn in_field(self, field: &str) -> Self {
        if self.status.is_server_error() { self } else { Problem::invalid(field, self.detail) }
    }

    /// Returns the error for a change with consequences for other resources.
    pub fn affects(code: &'static str, detail: impl Into<String>, affected: Vec<Affected>) -> Self {
        Problem { affected, ..Problem::conflict(code, detail) }
    }

    /// Returns the error for a device that is occupied.
    pub fn occupied(detail: impl Into<String>, conflict: Conflict) -> Self {
        let renting = Renting { conflict: Some(conflict), ..Renting::default() };
        Problem { renting: Some(Box::new(renting)), ..Problem::conflict("occupied", detail) }
    }

    /// Returns the error for a call that would end or cover rentals.
    pub fn of_rentals(code: &'static str, detail: impl Into<String>, rentals: Vec<String>) -> Self {
        let renting = Renting { rentals, ..Renting::default() };
        Problem { renting: Some(Box::new(renting)), ..Problem::conflict(code, detail) }
    }

    /// A limit of what is kept: something else has to go first.
    pub fn limit_reached(detail: impl Into<String>) -> Self {
        Problem::conflict("limit_reached", detail)
    }

    pub fn too_many(detail: impl Into<String>, retry_after_s: u64) -> Self {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", detail);
        Problem { retry_after_s: Some(u32::try_from(retry_after_s).unwrap_or(u32::MAX)), ..problem }
    }

    /// Returns the error for a busy gateway. Nothing was changed.
    pub fn busy(detail: impl Into<String>, retry_after_s: u64) -> Self {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        Problem { retry_after_s: Some(u32::try_from(retry_after_s).unwrap_or(u32::MAX)), ..problem }
    }

    /// Returns the error for a failure that several callers share.
    pub fn of_store(error: &Arc<store::Error>) -> Self {
        let cause = || anyhow::Error::new(error.clone());
        match store::trouble(error) {
            Some(trouble) => Problem { cause: Some(Arc::new(cause())), ..trouble.into() },
            None => Problem::internal(cause()),
        }
    }

    /// Returns the error for a fault of the gateway, not of the caller.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        let detail = "something went wrong inside; the gateway's log has it under the request id";
        let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail);
        Problem { cause: Some(Arc::new(cause.into())), ..problem }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Returns the document. Logs an internal error once.
    pub fn render(&self, request_id: &str) -> ProblemDocument {
        if let Some(cause) = &self.cause {
            tracing::error!(request_id, error = format!("{cause:#}"), "a request failed");
        }
        ProblemDocument {
            kind: format!("urn:fleetgate:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            request_id: request_id.to_owned(),
            errors: self.errors.clone(),
            affected: self.affected.clone(),
            conflict: self.renting.as_ref().and_then(|renting| renting.conflict.clone()),
            rentals: self.renting.as_ref().map(|renting| renting.rentals.clone()).unwrap_or_default(),
        }
    }

    /// Returns the error for a response of a layer without problem documents, such as a wrong
    /// method or a body over the limit.
    pub fn from_status(status: StatusCode) -> Self {
        let (code, detail) = match status {
            StatusCode::NOT_FOUND => ("not_found", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "this path does not take this method"),
            StatusCode::REQUEST_TIMEOUT => ("too_slow", "the body did not come in time; send it at once"),
            StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the body is larger than this gateway takes"),
            StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "this took too long; try again"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => (
                "unsupported_media_type",
                "the body must be JSON: send it with Content-Type: application/json",
            ),
            s if s.is_client_error() => ("bad_request", "the request was not understood"),
            _ => ("internal", "something went wrong inside; the gateway's log has it under the request id"),
        };
        Problem::new(status, code, detail)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

/// `layers.rs` fills the body, because it knows the request id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"fleetgate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<crate::store::Error>() {
            Ok(error) => error.into(),
            Err(error) => Problem::internal(error),
        }
    }
}

impl From<crate::store::Error> for Problem {
    fn from(error: crate::store::Error) -> Self {
        match store::trouble(&error) {
            Some(trouble) => Problem { cause: Some(Arc::new(error.into())), ..trouble.into() },
            None => Problem::internal(error),
        }
    }
}

/// Nothing was changed.
impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match trouble {
            Trouble::Full => {
                let detail = "the gateway's disk is full or nearly full; nothing was changed. Free some space there; \
                              the gateway continues by itself";
                Problem::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", detail)
            }
            Trouble::Disk => {
                let detail =
                    "the gateway's database cannot be used now; the log says why under the request id";
                Problem::new(unavailable, "database_unavailable", detail)
            }
            Trouble::Busy => Problem::new(unavailable, "busy", "the database is busy; try again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_shows_its_request_id_and_nothing_else() {
        let problem = Problem::internal(anyhow::anyhow!("no such table: peers"));
        let text = serde_json::to_string(&problem.render("r1")).unwrap();
        assert!(text.contains("\"request_id\":\"r1\"") && !text.contains("peers"), "{text}");
    }

    #[test]
    fn a_field_error_names_the_field() {
        let document = Problem::invalid("name", "too long").render("r1");
        assert_eq!((document.status, document.code.as_str()), (422, "invalid"));
        assert_eq!(document.detail, "name: too long");
    }

    #[test]
    fn what_a_field_names_is_refused_and_a_fault_of_the_gateway_stays_one() {
        let refused = Problem::not_found("no user is called \"ada\"").in_field("user");
        assert_eq!((refused.status().as_u16(), refused.detail()), (422, "user: no user is called \"ada\""));
        let busy = Problem::from(Trouble::Busy).in_field("user");
        assert_eq!((busy.status().as_u16(), busy.code()), (503, "busy"));
    }
}

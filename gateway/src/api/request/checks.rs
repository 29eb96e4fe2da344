//! The checks of a request before its handler, in one layer, because each layer costs every request.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};

use super::permission::{self, Reading, Rule};
use super::query;
use crate::api::AppState;
use crate::api::response::around::{self, Around, Below};
use crate::api::response::etag;
use crate::api::response::layers::OpenRoute;
use crate::api::response::problem::Problem;

/// Checks permission, query parameters and conditions.
#[derive(Clone)]
pub struct Checks(pub AppState);

impl Around for Checks {
    async fn around<S: Below>(self, request: Request, below: S) -> Response {
        let request = match checked(&self.0, request).await {
            Ok(request) => request,
            Err(problem) => return problem.into_response(),
        };
        let is_open = request.extensions().get::<Rule>().is_none();
        let reading = request.extensions().get::<Reading>().cloned();
        let mut response = around::run(below, request).await;
        drop(reading);
        if is_open {
            response.extensions_mut().insert(OpenRoute);
        }
        response
    }
}

/// # Errors
/// Returns the problem that the first failed check found.
async fn checked(app: &AppState, request: Request) -> Result<Request, Problem> {
    let request = permission::check(app, request).await?;
    query::check(&request)?;
    etag::check(&request)?;
    Ok(request)
}

//! The checks of a request before its handler, in one layer, because each layer costs every request.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::permission::{self, Rule};
use super::query;
use crate::api::AppState;
use crate::api::response::etag;
use crate::api::response::layers::OpenRoute;
use crate::api::response::problem::Problem;

/// Checks permission, query parameters and conditions.
///
/// # Errors
/// Returns the problem that the first failed check found.
pub async fn layer(State(app): State<AppState>, request: Request, next: Next) -> Result<Response, Problem> {
    let request = permission::check(&app, request).await?;
    query::check(&request)?;
    etag::check(&request)?;
    let is_open = request.extensions().get::<Rule>().is_none();
    let mut response = next.run(request).await;
    if is_open {
        response.extensions_mut().insert(OpenRoute);
    }
    Ok(response)
}

//! The strip of counters, and the list of problems.

pub mod summary;
pub mod types;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::extract::Query;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::Page;
use crate::store::hosts::{self, TroublePlace};
use types::Overview;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(overview)).routes(routes!(problems))
}

/// Counters of hosts, services and problems.
#[utoipa::path(get, path = "/overview", operation_id = "overview", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), responses((status = 200, body = Overview)))]
async fn overview(State(app): State<AppState>) -> Result<Json<Overview>, Problem> {
    Ok(Json(app.summary().await?.overview.clone()))
}

/// Present problems, worst first: hosts that are down, critical and unknown services, hosts that cannot be reached,
/// warnings, hosts whose last result is too old. Those that are acknowledged or in downtime (`handled`) follow in the
/// same order. Services that are not current are left out. The counters of `/overview` are those of this list.
#[utoipa::path(get, path = "/problems", operation_id = "list_problems", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging),
    responses((status = 200, body = Page<types::Problem>)))]
async fn problems(State(app): State<AppState>, Query(paging): Query<Paging>) -> Result<Response, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?);
    let place = match after {
        None => TroublePlace::first(),
        Some(key) => serde_json::from_str(&key).map_err(|_| super::response::page::bad_cursor())?,
    };
    let summary = app.summary().await?;
    let is_first = place == TroublePlace::first();
    if is_first && limit == summary::LISTED {
        return Ok(([(header::CONTENT_TYPE, "application/json")], summary.page.clone()).into_response());
    }
    let rows = match is_first && limit < summary::LISTED {
        true => {
            summary.problems.iter().take(usize::try_from(limit + 1).unwrap_or(usize::MAX)).cloned().collect()
        }
        false => hosts::troubles(&mut *app.store.reader().await?, &place, limit + 1).await?,
    };
    Ok(Json(summary.page_of(rows, limit)).into_response())
}

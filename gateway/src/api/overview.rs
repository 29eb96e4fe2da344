//! The strip of counters, and what is wrong.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::RequireViewer;
use super::extract::Query;
use super::model::{self, Overview, Page};
use super::page::Paging;
use super::problem::Problem;
use super::{AppState, render};
use crate::store::hosts::TroublePlace;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(overview)).routes(routes!(problems))
}

#[utoipa::path(get, path = "/overview", operation_id = "overview", tag = "monitoring",
    security(("token" = ["viewer"])), responses((status = 200, body = Overview)))]
async fn overview(State(app): State<AppState>, _: RequireViewer) -> Result<Json<Overview>, Problem> {
    Ok(Json(render::overview(&app.store.totals().await?)))
}

/// What is wrong now, worst first: hosts that are down, critical and unknown services, hosts that
/// cannot be reached, warnings. Services that are not current are left out.
#[utoipa::path(get, path = "/problems", operation_id = "list_problems", tag = "monitoring",
    security(("token" = ["viewer"])), params(Paging),
    responses((status = 200, body = Page<model::Problem>)))]
async fn problems(
    State(app): State<AppState>,
    _: RequireViewer,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<model::Problem>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?);
    let place = match after {
        None => TroublePlace::first(),
        Some(key) => serde_json::from_str(&key).map_err(|_| super::page::bad_cursor())?,
    };
    let rows = app.store.troubles(&place, limit + 1).await?;
    let key = |t: &crate::store::hosts::Trouble| serde_json::json!(t.place).to_string();
    Ok(Json(Page::of(rows, limit, key, render::problem)))
}

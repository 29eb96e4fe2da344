//! The strip of counters, and what is wrong.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use fleetgate_engine::id::HostId;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::Query;
use super::model::{self, Overview, Page};
use super::page::Paging;
use super::problem::Problem;
use super::{AppState, hosts, render};
use crate::store::SqliteConnection;
use crate::store::hosts::{Trouble, TroublePlace, by_id};

/// Hosts of one page that are given a verdict: a screen of them. In a fleet of 10,000 each costs about
/// 10 ms to look who else is silent.
const MAX_JUDGED: usize = 25;

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(overview)).routes(routes!(problems))
}

#[utoipa::path(get, path = "/overview", operation_id = "overview", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), responses((status = 200, body = Overview)))]
async fn overview(State(app): State<AppState>) -> Result<Json<Overview>, Problem> {
    Ok(Json(render::overview(&app.store.totals().await?)))
}

/// What is wrong now, worst first: hosts that are down, critical and unknown services, hosts that cannot be reached,
/// warnings, hosts whose last result is too old. What is acknowledged or in downtime (`handled`) follows in the same
/// order. Services that are not current are left out. The counters of `/overview` are those of this list.
#[utoipa::path(get, path = "/problems", operation_id = "list_problems", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging),
    responses((status = 200, body = Page<model::Problem>)))]
async fn problems(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<model::Problem>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?);
    let place = match after {
        None => TroublePlace::first(),
        Some(key) => serde_json::from_str(&key).map_err(|_| super::page::bad_cursor())?,
    };
    let rows = app.store.troubles(&place, limit + 1).await?;
    let verdicts = verdicts(&app, &mut *app.store.reader().await?, &rows).await?;
    let key = |t: &Trouble| serde_json::json!(t.place).to_string();
    let render = |t: Trouble| {
        let verdict = verdicts.get(&t.host).filter(|_| is_host(&t)).cloned();
        render::problem(t, verdict)
    };
    Ok(Json(Page::of(rows, limit, key, render)))
}

fn is_host(trouble: &Trouble) -> bool {
    trouble.place.service.is_empty()
}

async fn verdicts(
    app: &AppState,
    conn: &mut SqliteConnection,
    rows: &[Trouble],
) -> Result<BTreeMap<HostId, model::VerdictLine>, Problem> {
    let mut found = BTreeMap::new();
    for trouble in rows.iter().filter(|t| is_host(t)).take(MAX_JUDGED) {
        let Some(row) = by_id(conn, trouble.host).await? else { continue };
        if let Some(verdict) = hosts::judged(app, conn, &row).await? {
            let model::Verdict { kind, text, .. } = verdict;
            found.insert(trouble.host, model::VerdictLine { kind, text });
        }
    }
    Ok(found)
}

//! Managed resources that were removed or renamed, so that their program can keep them so.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::events::reads;
use super::request::auth::Principal;
use super::request::extract::{Path, Query};
use super::request::ids::{self, IdKind};
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::{Page, names};
use crate::store::events::Topic;
use crate::store::removals as stored;

/// An object of a program that somebody else removed or renamed. The program does not create it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Removal {
    pub id: String,
    #[schema(value_type = names::RemovedKind)]
    pub kind: String,
    /// For a service: `HOST/SERVICE`.
    pub name: String,
    /// Absent if it was removed.
    pub renamed_to: Option<String>,
    /// The program that manages it.
    pub managed_by: String,
    pub removed_by: String,
    pub removed_at: String,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(forget))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    /// Only what this program manages.
    managed_by: Option<String>,
}

/// Objects of programs that others removed or renamed, the newest first. Viewers get none of grants, and
/// neither do tokens with scopes other than `access`.
#[utoipa::path(get, path = "/removals", operation_id = "list_removals", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])), params(Paging, Filter),
    responses((status = 200, body = Page<Removal>)))]
async fn list(
    State(app): State<AppState>,
    who: Principal,
    Query(paging): Query<Paging>,
    Query(wanted): Query<Filter>,
) -> Result<Json<Page<Removal>>, Problem> {
    let (limit, before) = (paging.limit()?, paging.after_number()?.unwrap_or(i64::MAX));
    let mut conn = app.store.reader().await?;
    let wanted = (wanted.managed_by.as_deref(), reads(&who, Topic::Access));
    let rows = stored::list(&mut conn, wanted, before, limit + 1).await?;
    Ok(Json(Page::of_entries(rows, limit, |r| r.id.as_i64().to_string(), to_api)))
}

fn to_api(removal: stored::Removal) -> Removal {
    Removal {
        id: IdKind::Removal.text(removal.id),
        kind: removal.kind.name().to_owned(),
        name: removal.name,
        renamed_to: removal.renamed_to,
        managed_by: removal.manager,
        removed_by: removal.by,
        removed_at: ids::time(removal.at),
    }
}

/// Forgets a removal: the program may create the object again.
#[utoipa::path(delete, path = "/removals/{removal}", operation_id = "forget_removal", tag = "monitoring",
    security(("token" = ["monitoring:operator"])), params(("removal" = String, Path)),
    responses((status = 204)))]
async fn forget(
    State(app): State<AppState>,
    who: Principal,
    Path(removal): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = IdKind::Removal.parse(&removal)?;
    let mut write = ApiTx::begin(&app, &who).await?;
    if !stored::forget(write.tx(), id).await? {
        return Err(IdKind::Removal.unknown(&removal).into());
    }
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

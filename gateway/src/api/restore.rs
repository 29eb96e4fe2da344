//! A backup that is given to a gateway without hosts, and takes effect at its next start.
//!
//! The body is as large as a backup is, so that this route has bounds of its own: admins only, one at a
//! time, and a pause that ends it. Nothing changes before all of it was checked.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt as _};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::io::{StreamReader, SyncIoBridge};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::auth::Principal;
use super::model::Restore;
use super::problem::Problem;
use super::write::Write;
use crate::backup;
use crate::store::copy;

/// Whoever sends nothing for so long is cut off.
const PAUSE: Duration = Duration::from_secs(60);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(restore))
}

/// At most one upload. Cheap to clone.
#[derive(Clone)]
pub(super) struct Uploads(Arc<Semaphore>);

impl Default for Uploads {
    fn default() -> Self {
        Uploads(Arc::new(Semaphore::new(1)))
    }
}

/// Takes a backup, checks all of it, and puts it in place of this gateway at its next start. Only a gateway
/// that never had a host takes one; what it has made at its first start goes into a folder beside.
#[utoipa::path(post, path = "/restore", operation_id = "restore", tag = "gateway",
    security(("token" = ["unlimited:admin"])), request_body(content = Vec<u8>, content_type = "application/x-tar"),
    responses((status = 202, body = Restore, description = "whole; takes effect at the next start")))]
async fn restore(
    State(app): State<AppState>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<Restore>), Problem> {
    let _one =
        app.uploads().0.try_acquire().map_err(|_| {
            Problem::conflict("restore_running", "another backup is being uploaded: wait for it")
        })?;
    must_have_no_host(&app).await?;
    let stream = Box::pin(unless_it_stops(body.into_data_stream().map(|c| c.map_err(io::Error::other))));
    let archive = SyncIoBridge::new(StreamReader::new(stream));
    let staged = backup::stage(archive, &app.config.data).await;
    let head = staged.map_err(|error| Problem::invalid("", format!("this cannot be restored: {error:#}")))?;
    let mut write = Write::begin(&app, &who).await?;
    let data = json!({ "public_key": head.key.to_string(), "made_at": head.made_at });
    write.of_nothing("restore.staged", "takes effect at the next start", data).await?;
    write.commit().await?;
    tracing::warn!(
        "the backup of {} was given over the API; it takes effect at the next start",
        head.made_at
    );
    let public_key = head.key.to_string();
    let answer = Restore { public_key, made_at: head.made_at, history: head.history_schema.is_some() };
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

async fn must_have_no_host(app: &AppState) -> Result<(), Problem> {
    let mut conn = app.store.reader().await?;
    if !copy::had_a_host(&mut conn).await? {
        return Ok(());
    }
    let detail = "this gateway has had hosts: a backup is restored into an empty data directory \
                  (`fleetgate restore FILE`), or by a gateway that is new";
    Err(Problem::conflict("not_empty", detail))
}

/// Each part has its time; the whole may take as long as it is large.
fn unless_it_stops(
    parts: impl Stream<Item = io::Result<Bytes>> + Unpin,
) -> impl Stream<Item = io::Result<Bytes>> {
    futures_util::stream::unfold(Some(parts), |parts| async {
        let mut parts = parts?;
        match tokio::time::timeout(PAUSE, parts.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(part))) => Some((Ok(part), Some(parts))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
        }
    })
}

//! Uploads a backup to a gateway without hosts. It takes effect at the next start.
//!
//! The body is as large as the backup, so this route has limits of its own: admins only, one at a
//! time, and a pause ends it. Nothing changes before the whole backup was checked.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use futures_util::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::io::{StreamReader, SyncIoBridge};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::transaction::{ApiTx, PATIENCE};
use super::response::problem::Problem;
use super::types::names::BackupFile;
use crate::backup;
use crate::store::copy;

/// A client that sends nothing for this long is cut off.
const PAUSE: Duration = Duration::from_secs(60);

/// A backup that takes effect at the next start of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Restore {
    /// The public key of the gateway in the backup.
    pub public_key: String,
    /// When the backup was made.
    pub made_at: String,
    /// Whether it contains the samples.
    pub history: bool,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(restore, show, withdraw))
}

/// The uploaded backup, if there is one. From its first byte on, the gateway accepts no writes
/// except logins, because the next start would discard them. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Uploads(Arc<Mutex<Upload>>);

#[derive(Clone, Default)]
enum Upload {
    #[default]
    None,
    Running,
    Staged(Restore),
}

/// An upload under way. On drop, it restores the earlier state.
struct Running<'a> {
    uploads: &'a Uploads,
    after: Upload,
}

impl Uploads {
    /// # Errors
    /// Returns 409 during and after an upload, because the next start would discard any change.
    pub fn must_be_none(&self) -> Result<(), Problem> {
        match &*self.lock() {
            Upload::None => Ok(()),
            Upload::Running => Err(running()),
            Upload::Staged(restore) => Err(Problem::conflict(
                "restore_staged",
                format!(
                    "the backup of {} takes effect at the next start, and what is changed now would be lost: \
                     restart the gateway, or take the backup back (DELETE /api/v1/restore)",
                    restore.made_at
                ),
            )),
        }
    }

    pub fn staged(&self) -> Option<Restore> {
        match &*self.lock() {
            Upload::Staged(restore) => Some(restore.clone()),
            Upload::None | Upload::Running => None,
        }
    }

    fn begin(&self) -> Result<Running<'_>, Problem> {
        let mut upload = self.lock();
        if matches!(*upload, Upload::Running) {
            return Err(running());
        }
        let after = std::mem::replace(&mut *upload, Upload::Running);
        Ok(Running { uploads: self, after })
    }

    fn lock(&self) -> MutexGuard<'_, Upload> {
        self.0.lock().expect("no holder panics")
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.uploads.lock() = std::mem::take(&mut self.after);
    }
}

fn running() -> Problem {
    Problem::conflict("restore_running", "another backup is being uploaded: wait for it")
}

/// Takes a backup, checks all of it, and puts it in place of this gateway at its next start. Only a gateway
/// that never had a host takes one; what it has made at its first start goes into a folder beside. Until then
/// it takes no other change (409 `restore_staged`).
#[utoipa::path(post, path = "/restore", operation_id = "restore", tag = "gateway",
    security(("token" = ["unlimited:admin"])), request_body(content = inline(BackupFile), content_type = "application/octet-stream"),
    responses((status = 202, body = Restore, description = "whole; takes effect at the next start")))]
async fn restore(
    State(app): State<AppState>,
    who: Principal,
    body: Body,
) -> Result<(StatusCode, Json<Restore>), Problem> {
    let mut upload = app.uploads().begin()?;
    must_have_no_host(&app).await?;
    let stream = Box::pin(unless_it_stops(body.into_data_stream().map(|c| c.map_err(io::Error::other))));
    let archive = SyncIoBridge::new(StreamReader::new(stream));
    let staged = backup::stage(archive, &app.config.data).await;
    let staged =
        staged.map_err(|error| Problem::invalid("", format!("this cannot be restored: {error:#}")))?;
    if let Some(damage) = &staged.damage {
        tracing::warn!("{damage}");
    }
    let head = staged.head;
    let public_key = head.key.to_string();
    let answer =
        Restore { public_key, made_at: head.made_at.clone(), history: head.history_schema.is_some() };
    upload.after = Upload::Staged(answer.clone());
    let mut write = ApiTx::of_a_login(&app, &who).await?;
    let data = json!({ "public_key": answer.public_key, "made_at": head.made_at });
    write.of_nothing("restore.staged", "takes effect at the next start", data).await?;
    write.commit().await?;
    tracing::warn!(
        "the backup of {} was given over the API; it takes effect at the next start, and nothing else is \
         written until then",
        head.made_at
    );
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// The backup that is restored at the next start.
#[utoipa::path(get, path = "/restore", operation_id = "show_restore", tag = "gateway",
    security(("token" = ["unlimited:admin"])), responses((status = 200, body = Restore)))]
async fn show(State(app): State<AppState>) -> Result<Json<Restore>, Problem> {
    app.uploads().staged().map(Json).ok_or_else(none_given)
}

/// Withdraws the restore: the gateway stays as it is.
#[utoipa::path(delete, path = "/restore", operation_id = "withdraw_restore", tag = "gateway",
    security(("token" = ["unlimited:admin"])), responses((status = 204)))]
async fn withdraw(State(app): State<AppState>, who: Principal) -> Result<StatusCode, Problem> {
    let mut upload = app.uploads().begin()?;
    let Upload::Staged(restore) = upload.after.clone() else { return Err(none_given()) };
    backup::unstage(&app.config.data)?;
    upload.after = Upload::None;
    let mut write = ApiTx::of_a_login(&app, &who).await?;
    let data = json!({ "public_key": restore.public_key, "made_at": restore.made_at });
    write.of_nothing("restore.withdrawn", "this gateway stays", data).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn none_given() -> Problem {
    Problem::not_found("no backup waits for the next start")
}

/// Checks for hosts after all writes that were under way when the upload began.
async fn must_have_no_host(app: &AppState) -> Result<(), Problem> {
    let mut tx = app.store.begin_within(PATIENCE).await?;
    if !copy::had_a_host(&mut tx).await? {
        return Ok(());
    }
    let detail = "this gateway has had hosts: a backup is restored into an empty data directory \
                  (`fleetgate restore FILE`), or by a gateway that is new";
    Err(Problem::conflict("not_empty", detail))
}

/// Limits the time for each part. The whole may take as long as its size requires.
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

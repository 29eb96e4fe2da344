//! Backups over the API: the gateway creates them in its data directory, one at a time, and serves
//! them from there.
//!
//! A backup contains every secret of the gateway, so only admins may use it, and no token limited
//! to areas. The audit log records each request and download.

use std::num::NonZeroUsize;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Json;
use axum::body::Body as StreamBody;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::io::ReaderStream;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::request::auth::Principal;
use super::request::extract::{Body, Path, Query};
use super::request::ids;
use super::request::transaction::ApiTx;
use super::response::page::Paging;
use super::response::problem::Problem;
use super::types::Page;
use super::types::names::BackupFile;
use crate::backup::{self, Order, Phase, archive, names};
use crate::clock;
use crate::store::events;

/// The folder of backups in the data directory.
const FOLDER: &str = "backups";
/// More than a backup a day for two years.
const MAX_KEEP: u16 = 1_000;
/// The chunk size of a download, in bytes.
const CHUNK: usize = 256 * 1024;

/// Options of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBackup {
    /// Whether it contains the samples; `true` when absent.
    #[serde(default = "yes")]
    pub history: bool,
    /// How many backups are kept afterwards; all when absent.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1000)]
    pub keep: Option<u16>,
}

fn yes() -> bool {
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BackupState {
    Running,
    /// Verified and complete.
    Complete,
    /// `error` has the reason. It is forgotten when the next backup starts.
    Failed,
}

/// A backup in the data directory of the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backup {
    /// Such as `fleetgate-20261128T191500Z.tar`.
    pub name: String,
    pub state: BackupState,
    /// Progress of the current step; 100 when complete.
    #[schema(minimum = 0, maximum = 100)]
    pub percent: u8,
    /// The current step.
    pub step: Option<String>,
    pub error: Option<String>,
    /// The size of a complete backup.
    pub bytes: Option<u64>,
    /// When the copy was started.
    pub made_at: Option<String>,
    /// Whether it contains the samples.
    pub history: Option<bool>,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list, begin)).routes(routes!(show, remove)).routes(routes!(download))
}

/// The backup that is under way or has failed last. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Backups(Arc<Mutex<Option<Current>>>);

#[derive(Clone)]
struct Current {
    name: String,
    history: bool,
    phase: Phase,
    percent: u8,
    /// The reason why the backup failed.
    error: Option<String>,
}

impl Backups {
    fn lock(&self) -> MutexGuard<'_, Option<Current>> {
        self.0.lock().expect("no holder panics")
    }

    fn current(&self) -> Option<Current> {
        self.lock().clone()
    }

    /// # Errors
    /// Returns 409 while another backup is under way.
    fn begin(&self, name: &str, history: bool) -> Result<(), Problem> {
        let mut current = self.lock();
        if let Some(running) = current.as_ref().filter(|c| c.error.is_none()) {
            let detail = format!("{} is being made: wait for it", running.name);
            return Err(Problem::conflict("backup_running", detail));
        }
        let name = name.to_owned();
        *current = Some(Current { name, history, phase: Phase::Database, percent: 0, error: None });
        Ok(())
    }

    fn tell(&self, phase: Phase, percent: u8) {
        if let Some(current) = self.lock().as_mut() {
            (current.phase, current.percent) = (phase, percent);
        }
    }

    fn end(&self, error: Option<String>) {
        let mut current = self.lock();
        match error {
            None => *current = None,
            Some(error) => {
                if let Some(current) = current.as_mut() {
                    current.error = Some(error);
                }
            }
        }
    }
}

impl Current {
    fn to_api(&self) -> Backup {
        let failed = self.error.is_some();
        Backup {
            name: self.name.clone(),
            state: if failed { BackupState::Failed } else { BackupState::Running },
            percent: self.percent,
            step: (!failed).then(|| self.phase.words().to_owned()),
            error: self.error.clone(),
            bytes: None,
            made_at: None,
            history: Some(self.history),
        }
    }
}

/// Backups in the data directory, the newest first, and the one that is being made.
#[utoipa::path(get, path = "/backups", operation_id = "list_backups", tag = "gateway",
    security(("token" = ["unlimited:admin"])), params(Paging), responses((status = 200, body = Page<Backup>)))]
async fn list(
    State(app): State<AppState>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Backup>>, Problem> {
    let (limit, after) = (paging.limit()?, paging.after()?);
    let folder = folder(&app);
    let mut all: Vec<Backup> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| complete(&folder, &entry.file_name().to_string_lossy()))
        .collect();
    let current = app.backups().current().map(|c| c.to_api());
    all.retain(|backup| current.as_ref().is_none_or(|c| c.name != backup.name));
    all.extend(current);
    all.sort_by(|a, b| b.name.cmp(&a.name));
    all.retain(|backup| after.as_ref().is_none_or(|after| backup.name < *after));
    all.truncate(usize::try_from(limit + 1).unwrap_or(usize::MAX));
    Ok(Json(Page::of(all, limit, |backup| backup.name.clone(), |backup| backup)))
}

/// Starts a backup of both databases and the keys.
///
/// It is made while the gateway works, one at a time. `GET /backups/{name}` has its progress. Until it is complete it
/// needs twice the size of the databases in the data directory.
#[utoipa::path(post, path = "/backups", operation_id = "create_backup", tag = "gateway",
    security(("token" = ["unlimited:admin"])), request_body = NewBackup,
    responses((status = 202, body = Backup)))]
async fn begin(
    State(app): State<AppState>,
    who: Principal,
    Body(new): Body<NewBackup>,
) -> Result<Response, Problem> {
    let keep = keep(new.keep)?;
    let write = ApiTx::begin(&app, &who).await?;
    let name = names::dated(write.now);
    if folder(&app).join(&name).exists() {
        return Err(Problem::conflict("backup_running", "one was made in this second: wait a moment"));
    }
    app.backups().begin(&name, new.history)?;
    let started = record(write, &name, new.history).await;
    match started {
        Ok(answer) => {
            tokio::spawn(run(app, name, new.history, keep));
            Ok(answer)
        }
        Err(problem) => {
            app.backups().end(Some(problem.to_string()));
            Err(problem)
        }
    }
}

fn keep(given: Option<u16>) -> Result<Option<NonZeroUsize>, Problem> {
    match given {
        Some(n) if !(1..=MAX_KEEP).contains(&n) => {
            Err(Problem::invalid("keep", format!("1 to {MAX_KEEP} is expected")))
        }
        other => Ok(other.and_then(|n| NonZeroUsize::new(n.into()))),
    }
}

async fn record(mut write: ApiTx<'_>, name: &str, history: bool) -> Result<Response, Problem> {
    let begun = Current { name: name.to_owned(), history, phase: Phase::Database, percent: 0, error: None };
    let data = json!({ "name": name, "history": history });
    write.of_nothing("backup.begun", "asked for over the API", data).await?;
    let begun = begun.to_api();
    write.commit().await?;
    Ok((StatusCode::ACCEPTED, Json(begun)).into_response())
}

async fn run(app: AppState, name: String, history: bool, keep: Option<NonZeroUsize>) {
    let backups = app.backups().clone();
    let made = tokio::select! {
        made = make(&app, &name, history, keep) => made,
        () = app.shutdown.cancelled() => Err(anyhow::anyhow!("the gateway stops")),
    };
    match made {
        Ok(made) => {
            tracing::info!("the backup {} is complete: {} bytes", made.file.display(), made.bytes);
            if made.converting {
                tracing::warn!("{}", backup::CONVERTING);
            }
            backups.end(None);
        }
        Err(error) => {
            tracing::error!("the backup {name} failed: {error:#}");
            backups.end(Some(format!("{error:#}")));
        }
    }
}

async fn make(
    app: &AppState,
    name: &str,
    history: bool,
    keep: Option<NonZeroUsize>,
) -> anyhow::Result<backup::Made> {
    let folder = folder(app);
    make_folder(&folder)?;
    let order = Order { data: app.config.data.clone(), target: folder.join(name), history, keep };
    let told = app.backups().clone();
    backup::make(&order, Arc::new(move |phase, percent| told.tell(phase, percent))).await
}

fn make_folder(folder: &FilePath) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    Ok(())
}

fn folder(app: &AppState) -> PathBuf {
    app.config.data.join(FOLDER)
}

/// A backup, or the progress of one that is being made.
#[utoipa::path(get, path = "/backups/{name}", operation_id = "show_backup", tag = "gateway",
    security(("token" = ["unlimited:admin"])), params(("name" = String, Path)),
    responses((status = 200, body = Backup)))]
async fn show(State(app): State<AppState>, Path(name): Path<String>) -> Result<Json<Backup>, Problem> {
    let current = app.backups().current().filter(|c| c.name == name).map(|c| c.to_api());
    let found = current.or_else(|| complete(&folder(&app), &name));
    found.map(Json).ok_or_else(|| unknown(&name))
}

fn unknown(name: &str) -> Problem {
    let shown: String = name.chars().take(80).collect();
    Problem::not_found(format!("there is no backup {shown:?}; GET /backups lists those there are"))
}

/// Returns a complete backup. No other file counts as one.
fn complete(folder: &FilePath, name: &str) -> Option<Backup> {
    let path = path_of(folder, name)?;
    let head = archive::head_of(&path)?;
    Some(Backup {
        name: name.to_owned(),
        state: BackupState::Complete,
        percent: 100,
        step: None,
        error: None,
        bytes: Some(std::fs::metadata(&path).ok()?.len()),
        made_at: Some(head.made_at),
        history: Some(head.history_schema.is_some()),
    })
}

/// Returns the path for a name in the gateway's own pattern only.
fn path_of(folder: &FilePath, name: &str) -> Option<PathBuf> {
    let pattern = names::kind(names::dated(clock::wall()).as_ref());
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    (plain && names::kind(name.as_ref()) == pattern).then(|| folder.join(name))
}

/// The file of a backup. It contains the keys of the gateway.
#[utoipa::path(get, path = "/backups/{name}/file", operation_id = "download_backup", tag = "gateway",
    security(("token" = ["unlimited:admin"])), params(("name" = String, Path)),
    responses((status = 200, body = BackupFile, content_type = "application/octet-stream")))]
async fn download(
    State(app): State<AppState>,
    who: Principal,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let folder = folder(&app);
    let path = path_of(&folder, &name).filter(|_| complete(&folder, &name).is_some());
    let path = path.ok_or_else(|| unknown(&name))?;
    let file = tokio::fs::File::open(&path).await.map_err(|_| unknown(&name))?;
    let size = file.metadata().await.map_err(Problem::internal)?.len();
    let mut write = ApiTx::begin(&app, &who).await?;
    write.of_nothing("backup.downloaded", "fetched over the API", json!({ "name": name })).await?;
    write.commit().await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
        // Uncompressed, because compressing a database for each download would take the gateway's
        // time.
        (header::CONTENT_ENCODING, "identity".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((headers, StreamBody::from_stream(ReaderStream::with_capacity(file, CHUNK))).into_response())
}

/// Removes a backup from the data directory.
#[utoipa::path(delete, path = "/backups/{name}", operation_id = "delete_backup", tag = "gateway",
    security(("token" = ["unlimited:admin"])), params(("name" = String, Path)), responses((status = 204)))]
async fn remove(
    State(app): State<AppState>,
    who: Principal,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    if app.backups().current().is_some_and(|c| c.name == name && c.error.is_none()) {
        return Err(Problem::conflict("backup_running", format!("{name} is being made: wait for it")));
    }
    let path = path_of(&folder(&app), &name).ok_or_else(|| unknown(&name))?;
    std::fs::remove_file(&path).map_err(|_| unknown(&name))?;
    let mut write = ApiTx::begin(&app, &who).await?;
    write.of_nothing("backup.removed", "removed over the API", json!({ "name": name })).await?;
    write.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

impl ApiTx<'_> {
    /// Writes an event about the gateway as a whole.
    pub(super) async fn of_nothing(
        &mut self,
        kind: &str,
        cause: &str,
        data: serde_json::Value,
    ) -> Result<(), Problem> {
        let (object, _) = events::NOBODY;
        self.event(kind, (object, ids::nothing()), cause, data).await
    }
}

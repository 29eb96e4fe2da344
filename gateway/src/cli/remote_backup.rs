//! Backups of a gateway on another machine: requested, downloaded, checked, and removed there.

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use super::backup::Shown;
use super::client::{Client, api_path};
use crate::api::backups::{Backup, BackupState};
use crate::api::restore::Restore;
use crate::backup::{Made, Phase, Workshop, archive, names};
use crate::clock;

/// The steps after a restore, wherever it was made.
pub(super) const REVIEW_WAITS: &str = "Operators and renters reach nothing until an admin confirms what came back: run `fleetgate restore-review \
     show` after the start";
/// The time between looks at the progress.
const LOOK: Duration = Duration::from_millis(500);

pub(super) struct BackupRequest<'a> {
    pub file: &'a Path,
    pub keep: Option<NonZeroUsize>,
    pub history: bool,
}

/// Creates a backup of the gateway in a local file.
pub(super) async fn fetch(
    client: &Client,
    asked: &BackupRequest<'_>,
    progress: &Shown,
) -> anyhow::Result<Made> {
    let file = names::target(asked.file, clock::wall())?;
    let shop = Workshop::open(&file)?;
    let begun: Backup = client.post("/backups", &json!({ "history": asked.history })).await?;
    let path = api_path!("/backups/{}", begun.name);
    let fetched = fetched(client, &path, &shop, progress).await;
    // The backup contains the keys and must not stay there.
    let removed = client.call(Method::DELETE, &path, None).await;
    let (head, bytes) = fetched?;
    removed.with_context(|| format!("cannot remove {} on the gateway", begun.name))?;
    shop.publish(&file)?;
    let key = head.key;
    let removed = asked.keep.map_or(Ok(Vec::new()), |keep| names::keep_newest(&file, &key, keep))?;
    // The log of that gateway says whether its backup lacks older samples.
    Ok(Made { file, bytes, head, removed, converting: false })
}

async fn fetched(
    client: &Client,
    path: &str,
    shop: &Workshop,
    progress: &Shown,
) -> anyhow::Result<(archive::Head, u64)> {
    loop {
        let now: Backup = client.get(path, &[]).await?;
        match now.state {
            BackupState::Complete => break,
            BackupState::Failed => {
                bail!("the gateway could not make the backup: {}", now.error.unwrap_or_default())
            }
            BackupState::Running => progress.tell(Phase::Database, now.percent),
        }
        tokio::time::sleep(LOOK).await;
    }
    let part = shop.archive();
    let bytes = download(client, &format!("{path}/file"), &part, progress).await?;
    let nowhere = |_: &str| Ok(Box::new(std::io::sink()) as Box<dyn std::io::Write>);
    let open = File::open(&part)?;
    let head = tokio::task::block_in_place(|| archive::read(open, |_| Ok(()), nowhere, |_| {}))
        .context("the downloaded backup is incomplete")?;
    Ok((head, bytes))
}

async fn download(client: &Client, path: &str, to: &Path, progress: &Shown) -> anyhow::Result<u64> {
    let answer = client.stream(path).await?;
    let all = answer.content_length().unwrap_or(0);
    let mut out = tokio::fs::File::from_std(crate::data_dir::secret_file::create(to)?);
    let (mut chunks, mut done) = (answer.bytes_stream(), 0u64);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.context("the transfer was interrupted")?;
        out.write_all(&chunk).await.with_context(|| format!("cannot write {}", to.display()))?;
        done += chunk.len() as u64;
        progress.tell(Phase::Writing, u8::try_from(done * 100 / all.max(1)).unwrap_or(100));
    }
    out.sync_all().await.with_context(|| format!("cannot write {}", to.display()))?;
    Ok(done)
}

/// Uploads a backup to another gateway for its next start. Returns the gateway's message.
pub(super) async fn upload(client: &Client, file: &Path) -> anyhow::Result<String> {
    let open =
        tokio::fs::File::open(file).await.with_context(|| format!("cannot open {}", file.display()))?;
    let size = fs::metadata(file)?.len();
    let answer: Restore = client.upload("/restore", open, size).await?;
    Ok(format!(
        "Backup of the gateway {} as of {} uploaded; it takes effect when the gateway is restarted.\n{REVIEW_WAITS}",
        answer.public_key, answer.made_at
    ))
}

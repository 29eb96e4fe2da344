//! `fleetgate backup` and `fleetgate restore`. On this machine they use the files themselves, with
//! or without a running gateway. With `--url`, they use the API of another machine.

use std::io::{IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Client, DEMO};
use super::{Connection, remote_backup, serve};
use crate::backup::{self, Made, Order, Phase, Progress, Restored};
use crate::cli::out;
use crate::data_dir::{self, DataDir};
use crate::store::files::MAIN_FILE;

#[derive(Args)]
pub(crate) struct BackupArgs {
    /// A new file, or an existing folder (the file is then named fleetgate-TIME.tar)
    file: PathBuf,
    /// Afterwards remove all but the N newest backups of this gateway whose names differ only in digits
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroUsize>,
    /// Leave out the stored samples: a much smaller file, but graphs are empty after a restore
    #[arg(long)]
    without_history: bool,
    /// Print only errors, for cron
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// A file from `fleetgate backup`
    file: PathBuf,
    /// Print no progress
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) async fn back_up(to: &Connection, args: BackupArgs) -> anyhow::Result<()> {
    let progress = Arc::new(Shown::new(args.quiet));
    let history = !args.without_history;
    let made = async {
        if to.url.is_some() {
            let asked = remote_backup::BackupRequest { file: &args.file, keep: args.keep, history };
            return remote_backup::fetch(&Client::new(to)?, &asked, &progress).await;
        }
        let order = Order { data: data_of(to)?, target: args.file.clone(), history, keep: args.keep };
        backup::make(&order, progress.clone().teller()).await
    };
    let made = unless_interrupted(made).await;
    progress.end();
    let made = made?;
    if made.converting {
        anstream::eprintln!("warning: {}", backup::CONVERTING);
    }
    match args.quiet && !to.json {
        true => Ok(()),
        false => report(to, &made),
    }
}

/// Returns the given directory, or that of this user's gateway: `serve` before `demo`.
fn data_of(to: &Connection) -> anyhow::Result<PathBuf> {
    let serve = data_dir::default_path(to.data.clone(), serve::NAME)?;
    let demo = data_dir::default_path(to.data.clone(), DEMO)?;
    Ok(if !serve.join(MAIN_FILE).exists() && demo.join(MAIN_FILE).exists() { demo } else { serve })
}

/// Ctrl-C leaves no files behind: the unfinished work is dropped together with its files.
async fn unless_interrupted<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        done = work => done,
        _ = term.recv() => bail!("ended by a signal; no backup was made"),
        _ = int.recv() => bail!("interrupted; no backup was made"),
    }
}

fn report(to: &Connection, made: &Made) -> anyhow::Result<()> {
    if to.json {
        let shown = json!({
            "file": made.file, "bytes": made.bytes, "made_at": made.head.made_at,
            "public_key": made.head.key.to_string(), "history": made.head.history_schema.is_some(),
            "removed": made.removed,
        });
        out::line!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    out::line!(
        "{}: {}, backup of the gateway {}, verified. It contains the gateway's keys: keep it secret",
        made.file.display(),
        size(made.bytes),
        made.head.key
    );
    for old in &made.removed {
        out::line!("removed {}", old.display());
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

pub(crate) async fn restore(to: &Connection, args: RestoreArgs) -> anyhow::Result<()> {
    let progress = Arc::new(Shown::new(args.quiet));
    if to.url.is_some() {
        let said = remote_backup::upload(&Client::new(to)?, &args.file).await?;
        out::line!("{said}");
        return Ok(());
    }
    let path = data_dir::default_path(to.data.clone(), serve::NAME)?;
    must_not_be_inside(&args.file, &path)?;
    let data = DataDir::open(&path)?;
    let restored = backup::restore(&args.file, &data, progress.clone().teller()).await;
    progress.end();
    let restored = restored?;
    if let Some(damage) = &restored.damage {
        anstream::eprintln!("warning: {damage}");
    }
    match to.json {
        true => out::line!("{}", serde_json::to_string_pretty(&restored_json(&path, &restored))?),
        false => out::line!("{}", restored_text(&path, &restored)),
    }
    Ok(())
}

fn restored_json(path: &Path, Restored { head, erased, .. }: &Restored) -> serde_json::Value {
    json!({
        "data": path, "made_at": head.made_at, "public_key": head.key.to_string(), "customers_erased": erased,
    })
}

fn restored_text(path: &Path, Restored { head, erased, .. }: &Restored) -> String {
    let path = path.display();
    let erased = match erased {
        0 => String::new(),
        count => format!("Customers who were erased after the backup were erased again: {count}.\n"),
    };
    format!(
        "{path} contains the gateway {} as of {}.\n{erased}Stop the old gateway for good before you start this \
         one: `fleetgate serve --data {path}`\n{}",
        head.key,
        head.made_at,
        remote_backup::REVIEW_WAITS
    )
}

/// Refuses a backup inside the target directory, which must be empty.
fn must_not_be_inside(file: &Path, data: &Path) -> anyhow::Result<()> {
    let file = file.canonicalize().with_context(|| format!("cannot open {}", file.display()))?;
    if data.canonicalize().is_ok_and(|data| file.starts_with(data)) {
        bail!(
            "{} lies in {}, which must be empty: move the backup elsewhere",
            file.display(),
            data.display()
        );
    }
    Ok(())
}

/// Progress on stderr: one changing line on a terminal, otherwise one line per step.
pub(super) struct Shown {
    quiet: bool,
    terminal: bool,
    last: Mutex<Option<Phase>>,
}

impl Shown {
    fn new(quiet: bool) -> Shown {
        Shown { quiet, terminal: std::io::stderr().is_terminal(), last: Mutex::new(None) }
    }

    fn teller(self: Arc<Self>) -> Progress {
        Arc::new(move |phase, percent| self.tell(phase, percent))
    }

    pub fn tell(&self, phase: Phase, percent: u8) {
        if self.quiet {
            return;
        }
        let is_new = self.last.lock().expect("no holder panics").replace(phase) != Some(phase);
        let mut out = std::io::stderr().lock();
        // A failure to show progress must not stop the work.
        let _ = match self.terminal {
            true => write!(out, "\r\x1b[K{} {percent} %", phase.words()),
            false if is_new => writeln!(out, "{}", phase.words()),
            false => Ok(()),
        };
        let _ = out.flush();
    }

    fn end(&self) {
        if !self.quiet && self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

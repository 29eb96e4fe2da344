//! `fleetgate device import`: many devices from one table.
//!
//! Reads the whole file and compares it with the gateway before the first device is added. The archive grows with
//! each device, so that a run that is cut off keeps the keys of all that it has added.

mod archive;
mod plan;
mod table_file;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::archive::Archive;
use self::plan::{Action, ImportStep, Inventory};
use self::table_file::Wrong;
use super::client::Client;
use super::device::said;
use super::host::pages;
use super::table;
use crate::api::devices::Device;
use crate::api::gateway::Gateway;
use crate::api::hosts::Host;
use crate::api::profiles::Profile;
use crate::api::types::Page;
use crate::bounded_file;
use crate::cli::out;

/// Errors that are printed; a wrong separator makes one of every line.
const PRINTED: usize = 50;
/// A table of 10,000 devices with every column has 5 MB.
const MOST_BYTES: u64 = 32 * 1024 * 1024;

#[derive(Args)]
pub(crate) struct ImportArgs {
    /// CSV file with a header line: name, and optionally labels, profile, ssh_user, public_key, networks
    file: PathBuf,
    /// Write the configurations of the new devices into a new tar archive that only you can read
    #[arg(long, value_name = "ARCHIVE")]
    out: Option<PathBuf>,
    /// Show what would be added and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(client: &Client, args: ImportArgs) -> anyhow::Result<()> {
    let bytes = bounded_file::any(&args.file, MOST_BYTES).with_context(|| args.file.display().to_string())?;
    let (rows, mut wrong) = table_file::read(&bytes);
    let known = look(client).await?;
    let (steps, misfits) = plan::plan(rows, &known);
    wrong.extend(misfits);
    refuse(client, &args.file, wrong)?;
    if args.dry_run {
        return show(client, &steps);
    }
    let new = steps.iter().filter(|step| step.action == Action::Add).count();
    if new == 0 {
        return report(client, &steps, None);
    }
    ensure!(
        known.has_endpoint,
        "the configurations need the endpoint of the gateway: `fleetgate gateway endpoint HOST:PORT`"
    );
    let out = args.out.as_deref().with_context(|| {
        format!("{new} devices are new, and their configurations are not stored: name an archive with --out FILE.tar")
    })?;
    let mut archive = Archive::create(out).context("nothing was changed")?;
    let added = add_all(client, &args.file, &steps, &mut archive, new).await;
    // The devices that were added are named first, also where the archive cannot be completed.
    let finished = archive.finish();
    added?;
    finished?;
    report(client, &steps, Some(out))
}

/// All that is wrong, before anything is changed.
fn refuse(client: &Client, file: &Path, mut wrong: Vec<Wrong>) -> anyhow::Result<()> {
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.sort_by_key(|w| w.line);
    let lines: Vec<String> =
        wrong.iter().take(PRINTED).map(|w| format!("{}:{}: {}", file.display(), w.line, w.what)).collect();
    let count = if wrong.len() == 1 { "1 error".to_owned() } else { format!("{} errors", wrong.len()) };
    let more = if wrong.len() > PRINTED { format!(", of which {PRINTED} are shown") } else { String::new() };
    if client.json {
        bail!("{count}{more}; nothing was changed: {}", lines.join("; "));
    }
    lines.iter().for_each(|line| anstream::eprintln!("{}", table::safe(line)));
    bail!("{}: {count}{more}; nothing was changed", file.display())
}

async fn look(client: &Client) -> anyhow::Result<Inventory> {
    let gateway: Gateway = client.get("/gateway", &[]).await?;
    let devices: Vec<Device> = pages(client, "/devices", &[]).await?;
    let hosts: Vec<Host> = pages(client, "/hosts", &[]).await?;
    let profiles: Page<Profile> = client.get("/profiles", &[]).await?;
    let pools = [&gateway.pool_v4, &gateway.pool_v6];
    Ok(Inventory {
        has_endpoint: gateway.endpoint.is_some(),
        pools: pools.into_iter().filter_map(|pool| pool.parse().ok()).collect(),
        gateway_key: gateway.public_key,
        behind: hosts.into_iter().filter(|h| h.via.is_some()).map(|h| h.name).collect(),
        devices: devices.into_iter().map(|d| (d.name.clone(), d)).collect(),
        profiles: profiles.items.into_iter().map(|p| p.name).collect(),
    })
}

/// Stops at the first refusal. A device that was added before stays, with its configuration in the archive.
async fn add_all(
    client: &Client,
    file: &Path,
    steps: &[ImportStep],
    archive: &mut Archive,
    new: usize,
) -> anyhow::Result<()> {
    let progress = Progress::new(client, new);
    let to_add = steps.iter().filter(|step| step.action == Action::Add);
    for (done, step) in to_add.enumerate() {
        progress.show(done);
        let added = add(client, step, archive).await;
        added.inspect_err(|_| progress.clear()).with_context(|| {
            let at = format!("{}:{}: {}", file.display(), step.row.line, step.row.name);
            format!("{done} of {new} devices were added; import the file again with another --out for the rest. {at}")
        })?;
    }
    progress.clear();
    Ok(())
}

async fn add(client: &Client, step: &ImportStep, archive: &mut Archive) -> anyhow::Result<()> {
    let made: Value = client.post("/devices", &Value::Object(step.row.fields.clone())).await?;
    let conf = made["credentials"]["conf"].as_str().context("the gateway returned no configuration")?;
    archive.add(&step.row.name, conf).with_context(|| {
        format!("{} was added; `fleetgate device reissue {0}` prints a new configuration", step.row.name)
    })
}

/// On a terminal, one line that changes.
struct Progress {
    shown: bool,
    all: usize,
}

impl Progress {
    fn new(client: &Client, all: usize) -> Progress {
        Progress { shown: !client.json && std::io::stderr().is_terminal(), all }
    }

    fn show(&self, done: usize) {
        if self.shown {
            let mut out = std::io::stderr().lock();
            // That progress cannot be shown is no reason to stop.
            let _ = write!(out, "\r\x1b[KAdded {done} of {} devices", self.all).and_then(|()| out.flush());
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn show(client: &Client, steps: &[ImportStep]) -> anyhow::Result<()> {
    if client.json {
        return listed(steps, "to_add", None);
    }
    steps.iter().for_each(|step| out::line!("{}", table::safe(&step.to_string())));
    said(client, &format!("Would add {}; nothing was changed", counts(steps)))
}

fn report(client: &Client, steps: &[ImportStep], archive: Option<&Path>) -> anyhow::Result<()> {
    if client.json {
        return listed(steps, "added", archive);
    }
    let differing = steps.iter().filter(|step| matches!(&step.action, Action::Skip(d) if !d.is_empty()));
    differing.for_each(|step| out::line!("{}", table::safe(&step.to_string())));
    let place = archive.map(|file| {
        format!("\nThe configurations are in {}. They contain keys: keep the file secret", file.display())
    });
    said(client, &format!("Added {}{}", counts(steps), place.unwrap_or_default()))
}

/// `3 devices; skipped 2 that exist`.
fn counts(steps: &[ImportStep]) -> String {
    let new = steps.iter().filter(|step| step.action == Action::Add).count();
    let devices = if new == 1 { "1 device".to_owned() } else { format!("{new} devices") };
    match steps.len() - new {
        0 => devices,
        skipped => format!("{devices}; skipped {skipped} that exist"),
    }
}

fn listed(steps: &[ImportStep], added: &str, archive: Option<&Path>) -> anyhow::Result<()> {
    let names = |wanted: fn(&Action) -> bool| -> Vec<&str> {
        steps.iter().filter(|step| wanted(&step.action)).map(|step| step.row.name.as_str()).collect()
    };
    let new = names(|action| *action == Action::Add);
    let skipped = names(|action| *action != Action::Add);
    let shown = json!({ added: new, "skipped": skipped, "archive": archive });
    out::line!("{}", serde_json::to_string_pretty(&shown)?);
    Ok(())
}

#[cfg(test)]
mod tests;

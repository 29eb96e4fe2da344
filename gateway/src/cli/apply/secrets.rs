//! What is shown once: configurations of devices and secrets of webhooks, kept for their owner alone.
//!
//! Promises that what is made has its place before it is made. Never writes over a file.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::plan::{Act, Kind, Step, Wanted};
use super::refusals::{self, Names};
use crate::secret_file;

/// The name of the file for what a new thing shows once.
pub fn file(step: &Step) -> String {
    let what = if step.kind == Kind::Device { "conf" } else { "webhook-secret" };
    format!("{}.{what}", step.name)
}

fn shows_once(step: &Step) -> bool {
    match step.kind {
        Kind::Device => step.fields.get("tunnel").is_none_or(|t| *t == json!(true)),
        Kind::Contact => step.fields.contains_key("webhook_url"),
        _ => false,
    }
}

/// # Errors
/// When there is something already where a secret of these steps is to go.
pub fn have_room(fleet: &Path, out: &Path, steps: &[Step]) -> anyhow::Result<()> {
    if out.exists() && !out.is_dir() {
        bail!("--out {}: a folder is expected", out.display());
    }
    for step in steps.iter().filter(|s| s.act == Act::Make && shows_once(s)) {
        let place = out.join(file(step));
        if place.symlink_metadata().is_ok() {
            let at = refusals::place(fleet, step, "");
            bail!("{at}: {} is there already: move it away, or name another folder", place.display());
        }
    }
    Ok(())
}

pub fn keep(folder: &Path, name: &str, secret: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    secret_file::write_new(&folder.join(name), secret)
}

/// Devices of the file that are there and whose tunnel was never up: what they need may never have reached
/// them.
pub fn unheard(wanted: &[Wanted], names: &Names) -> Vec<String> {
    let silent = wanted.iter().filter(|w| w.kind == Kind::Device && names.unheard.contains(&w.name));
    // One with a key of its own can be asked for the rest.
    let silent = silent.filter(|w| !w.fields.contains_key("public_key"));
    silent.map(|w| w.name.clone()).collect()
}

/// A run that was killed between making a device and keeping its configuration leaves such behind.
pub fn tell_lost(out: &Path, unheard: &[String]) {
    for name in unheard.iter().filter(|name| !out.join(format!("{name}.conf")).exists()) {
        anstream::eprintln!(
            "{name} was never heard, and {} has no configuration of it: `fleetgate device reissue {name}` \
             gives it one again",
            out.display()
        );
    }
}

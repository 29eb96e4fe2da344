//! Secrets that are shown once: configurations of devices and secrets of webhooks, in files for
//! their owner alone.
//!
//! A file is reserved before its resource is created. No existing file is overwritten.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::json;

use super::plan::{Act, Desired, PlanStep, ResourceKind};
use super::refusals::{self, Names};
use crate::data_dir::secret_file::ReservedFile;
use crate::names;

/// Names in one hint. A killed run leaves one behind, and a folder of another name leaves all of
/// them.
const MOST_NAMED: usize = 10;

/// The file for what a new thing shows once, below the folder of all of them.
fn file(step: &PlanStep) -> PathBuf {
    match step.kind {
        ResourceKind::Device => names::conf_path(&step.name),
        _ => format!("{}.webhook-secret", step.name).into(),
    }
}

fn shows_once(step: &PlanStep) -> bool {
    match step.kind {
        ResourceKind::Device => step.fields.get("tunnel").is_none_or(|t| *t == json!(true)),
        ResourceKind::Contact => step.fields.contains_key("webhook_url"),
        _ => false,
    }
}

fn makes_secrets(steps: &[PlanStep]) -> impl Iterator<Item = &PlanStep> {
    steps.iter().filter(|s| s.act == Act::Make && shows_once(s))
}

/// # Errors
/// Fails when the place for a secret of these steps is taken.
pub fn have_room(fleet: &Path, out: &Path, steps: &[PlanStep]) -> anyhow::Result<()> {
    if out.exists() && !out.is_dir() {
        bail!("--out {}: not a folder", out.display());
    }
    for step in makes_secrets(steps) {
        let place = out.join(file(step));
        if place.symlink_metadata().is_ok() {
            let at = refusals::place(fleet, step, "");
            bail!("{at}: {} exists already: move it away, or name another folder", place.display());
        }
    }
    Ok(())
}

/// Reserves the file for the secret of a step. Returns `None` if the step has no secret.
///
/// # Errors
/// Fails when the file cannot be reserved.
pub fn reserve(out: Option<&Path>, step: &PlanStep) -> anyhow::Result<Option<ReservedFile>> {
    let Some(folder) = out.filter(|_| shows_once(step)) else { return Ok(None) };
    let file = folder.join(file(step));
    let folder = file.parent().unwrap_or(folder);
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    ReservedFile::reserve(&file).map(Some)
}

/// Returns existing devices of the file whose tunnel was never up. Their configuration may never
/// have reached them.
pub fn unheard(wanted: &[Desired], names: &Names) -> Vec<String> {
    let silent = wanted.iter().filter(|w| w.kind == ResourceKind::Device && names.unheard.contains(&w.name));
    // A device with its own key can fetch the rest again.
    let silent = silent.filter(|w| !w.fields.contains_key("public_key"));
    silent.map(|w| w.name.clone()).collect()
}

/// Reports devices without their configuration. A run killed between creating a device and storing
/// its configuration leaves such a device behind.
pub fn tell_lost(out: &Path, unheard: &[String]) {
    let lost = |name: &&String| !out.join(names::conf_path(name)).exists();
    let lost: Vec<&str> = unheard.iter().filter(lost).map(String::as_str).collect();
    if !lost.is_empty() {
        anstream::eprintln!("{}", lost_words(&lost, out));
    }
}

/// Reports the devices that a real run would refuse.
pub fn tell_homeless(steps: &[PlanStep]) {
    let devices = makes_secrets(steps).filter(|step| step.kind == ResourceKind::Device);
    let names: Vec<&str> = devices.map(|step| step.name.as_str()).collect();
    if !names.is_empty() {
        anstream::eprintln!("--out DIR is required for the configurations (not stored) of {}", few(&names));
    }
}

fn few(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST_NAMED)].join(", ");
    let more = names.len().saturating_sub(MOST_NAMED);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

fn lost_words(lost: &[&str], out: &Path) -> String {
    format!(
        "no handshake yet, and no configuration in {}: {}; `fleetgate device reissue NAME` prints a new one",
        out.display(),
        few(lost)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_many_are_named() {
        let said = lost_words(&["a"; 12], Path::new("conf"));
        assert!(said.starts_with("no handshake yet, and no configuration in conf: a, a, a"), "{said}");
        assert!(said.contains(" and 2 more; "), "{said}");
    }
}

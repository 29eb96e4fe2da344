//! Removals with consequences for other hosts: listed, and done only after consent.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use reqwest::Method;

use super::client::{Client, Refused};
use super::table;
use crate::api::{Affected, Effect};

/// Whether other objects may go along.
#[derive(Args, Clone, Copy, Default)]
pub(crate) struct Along {
    /// Also remove the hosts behind it; hosts that have it as a parent lose that parent
    #[arg(long)]
    cascade: bool,
    /// Do not ask for confirmation; same as --cascade
    #[arg(long, short = 'y')]
    yes: bool,
}

/// Removes the resource at `path`. Returns the hosts affected. `None` if the person declined.
pub(crate) async fn remove(
    client: &Client,
    path: &str,
    along: Along,
) -> anyhow::Result<Option<Vec<Affected>>> {
    let refused = match client.call(Method::DELETE, path, None).await {
        Ok(()) => return Ok(Some(Vec::new())),
        Err(error) => error,
    };
    // It affects no hosts: the device keeps the SSH access of renters, and only --cascade says that this is meant.
    if along.cascade && leaves_access(&refused) {
        client.delete_cascade(path, None).await?;
        return Ok(Some(Vec::new()));
    }
    let Some(affected) = affected(&refused) else { return Err(refused) };
    if !(along.cascade || along.yes) {
        if !std::io::stdin().is_terminal() {
            let said = words(&affected);
            anyhow::bail!("nothing was removed: {said}. Use --cascade to remove it with these effects");
        }
        if !agrees(&affected)? {
            return Ok(None);
        }
    }
    client.delete_cascade(path, None).await?;
    Ok(Some(affected))
}

/// Returns the hosts that a refused removal would affect. `None` if it was refused for another
/// reason.
pub(crate) fn affected(error: &anyhow::Error) -> Option<Vec<Affected>> {
    let document = &error.downcast_ref::<Refused>()?.document;
    if document["code"] != "others_affected" {
        return None;
    }
    serde_json::from_value(document["affected"].clone()).ok()
}

fn leaves_access(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.document["code"] == "access_not_removed")
}

/// `hosts behind it that are removed too: camera; hosts that lose it as a parent: nas`.
pub(crate) fn words(affected: &[Affected]) -> String {
    let of = |effect| {
        let names = affected.iter().filter(move |a| a.effect == effect).map(|a| table::safe(&a.name));
        names.collect::<Vec<_>>().join(", ")
    };
    let removed = of(Effect::Removed);
    let orphaned = of(Effect::LosesParent);
    let parts = [
        (!removed.is_empty()).then(|| format!("hosts behind it that are removed too: {removed}")),
        (!orphaned.is_empty()).then(|| format!("hosts that lose it as a parent: {orphaned}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn agrees(affected: &[Affected]) -> anyhow::Result<bool> {
    eprint!("This affects {}. Remove? [y/N] ", words(affected));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_along_is_named() {
        let of = |name: &str, effect| Affected { id: "h_1".into(), name: name.into(), effect };
        let both =
            [of("camera", Effect::Removed), of("nas", Effect::LosesParent), of("printer", Effect::Removed)];
        assert_eq!(
            words(&both),
            "hosts behind it that are removed too: camera, printer; hosts that lose it as a parent: nas"
        );
        assert_eq!(words(&both[1..2]), "hosts that lose it as a parent: nas");
    }
}

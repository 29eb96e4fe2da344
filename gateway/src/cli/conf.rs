//! The configuration of a peer of a person: it goes to stdout, to a new file, or becomes a QR code. The
//! gateway does not store it.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::client::Client;
use super::device::{is_free, other_name, print_conf, reserve, said};
use crate::cli::out;

/// The destination of a configuration.
#[derive(clap::Args)]
pub(crate) struct Output {
    /// Print a QR code instead of text
    #[arg(long, conflicts_with = "out")]
    qr: bool,
    /// Write the configuration to a new file that only you can read
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A call that makes a configuration.
pub(super) struct Call<'a> {
    pub path: &'a str,
    pub body: Value,
    /// The error if no file can be written, and the call is not made.
    pub otherwise: &'static str,
}

/// The peer that has a new configuration.
pub(super) struct Peer {
    pub name: String,
    /// The command that prints another one.
    pub again: String,
}

/// Calls the gateway for a configuration, which goes to the file or to stdout. A file is reserved before.
pub(super) async fn make(
    client: &Client,
    call: Call<'_>,
    to: Output,
    peer: impl FnOnce(&Value) -> Peer,
) -> anyhow::Result<()> {
    is_free(to.out.as_deref())?;
    let place = reserve(to.out.as_deref()).context(call.otherwise)?;
    let made: Value = client.post(call.path, &call.body).await?;
    let (Peer { name, again }, shown) = (peer(&made), &made["credentials"]);
    if let (Some(conf), Some((out, place))) = (shown["conf"].as_str(), to.out.as_deref().zip(place)) {
        place
            .keep(conf)
            .with_context(|| format!("{name} was added; `{again}` prints a new configuration"))?;
        let kept =
            format!("{name}: the configuration is in {}; the gateway does not store it", out.display());
        return said(client, &format!("{kept}{}", other_name(&name, out)));
    }
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    let next = print_conf(shown, to.qr, &name);
    said(client, &format!("{name}: this configuration is not stored and not shown again. {next}"))
}

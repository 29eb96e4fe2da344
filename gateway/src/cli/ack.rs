//! `fleetgate ack`: acknowledgements of problems.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, path_of};
use super::device::{present, said};
use super::table;
use super::token::span;
use crate::api::acknowledgements::Acknowledgement;
use crate::cli::out;

#[derive(Args)]
pub(crate) struct AckArgs {
    /// Name or id of the host
    host: String,
    /// Name of the service [default: the host itself]
    service: Option<String>,
    #[command(flatten)]
    options: AckOptions,
    /// Remove the acknowledgement
    #[arg(long)]
    remove: bool,
}

/// The options of an acknowledgement, of any object.
#[derive(Args)]
pub(crate) struct AckOptions {
    /// Keep it until the problem recovers [default: until the state changes]
    #[arg(long)]
    sticky: bool,
    /// Let it expire after this time, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    /// Text that others read
    #[arg(long, short = 'm', default_value = "", hide_default_value = true, value_name = "TEXT")]
    comment: String,
}

impl AckOptions {
    pub(crate) fn body(&self) -> anyhow::Result<Value> {
        let lasts = self.lasts.as_deref().map(|text| span("--for", text)).transpose()?;
        let expires = lasts.map(|lasts| table::now().saturating_add(lasts)).transpose()?;
        let expires = expires.map(|at| at.to_string());
        Ok(present(json!({ "sticky": self.sticky, "expires": expires, "comment": self.comment })))
    }
}

pub(crate) async fn run(client: &Client, args: AckArgs) -> anyhow::Result<()> {
    let path = format!("{}/acknowledgement", path_of(&args.host, args.service.as_deref()));
    if args.remove {
        client.call(Method::DELETE, &path, None).await?;
        return said(client, "Acknowledgement removed; notifications resume");
    }
    let made: Acknowledgement = client.post(&path, &args.options.body()?).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    said(client, &acknowledged(args.options.sticky, made.expires.as_deref()))
}

fn acknowledged(sticky: bool, expires: Option<&str>) -> String {
    let until = if sticky { "the problem recovers" } else { "the state changes" };
    let latest = expires.map(|at| format!(", at the latest {}", table::clock_time(at)));
    format!("Acknowledged until {until}{}", latest.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_says_how_long_it_holds() {
        let at = Some("2026-03-10T13:03:22.5Z");
        assert_eq!(acknowledged(true, None), "Acknowledged until the problem recovers");
        let both = "Acknowledged until the state changes, at the latest 2026-03-10 13:03:22Z";
        assert_eq!(acknowledged(false, at), both);
    }
}

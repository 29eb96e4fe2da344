//! `fleetgate enrolment`: devices that request to join.

use clap::Subcommand;
use serde_json::json;

use super::client::Client;
use super::device::{labels, pair, present, said};
use super::host::pages;
use super::table;
use crate::api::model::Enrolment;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum EnrolmentCommand {
    /// Those that wait, or all
    List {
        #[arg(long)]
        all: bool,
    },
    /// Let a device in
    Approve {
        enrolment: String,
        /// Another name than it claims
        #[arg(long)]
        name: Option<String>,
        /// key=value; may be repeated
        #[arg(long = "label", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Send it away
    Reject {
        enrolment: String,
        /// What the device's owner reads
        #[arg(long, default_value = "")]
        reason: String,
    },
}

pub(crate) async fn run(client: &Client, command: EnrolmentCommand) -> anyhow::Result<()> {
    match command {
        EnrolmentCommand::List { all } => list(client, all).await,
        EnrolmentCommand::Approve { enrolment, name, labels: given } => {
            let body = present(json!({ "name": name, "labels": labels(given)? }));
            let done: Enrolment = client.post(&format!("/enrolments/{enrolment}/approve"), &body).await?;
            said(client, &format!("{} is let in", table::safe(&done.name)))
        }
        EnrolmentCommand::Reject { enrolment, reason } => {
            let body = json!({ "reason": reason });
            let done: Enrolment = client.post(&format!("/enrolments/{enrolment}/reject"), &body).await?;
            said(client, &format!("{} is sent away", table::safe(&done.name)))
        }
    }
}

async fn list(client: &Client, all: bool) -> anyhow::Result<()> {
    let filter = if all { vec![] } else { vec![("state", "awaiting_approval".to_owned())] };
    let enrolments: Vec<Enrolment> = pages(client, "/enrolments", &filter).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&enrolments)?);
        return Ok(());
    }
    if enrolments.is_empty() {
        return said(client, "nobody waits");
    }
    let now = table::now();
    let row = |e: &Enrolment| {
        vec![
            table::state(&e.state),
            table::safe(&e.name),
            e.id.clone(),
            e.public_key.clone(),
            e.remote_address.clone(),
            table::ago(Some(&e.created_at), now),
            table::safe(e.replaces.as_deref().unwrap_or("")),
        ]
    };
    let headers = ["STATE", "NAME", "ID", "PUBLIC KEY", "FROM", "ASKED", "REPLACES"];
    table::print(&headers, enrolments.iter().map(row).collect());
    Ok(())
}

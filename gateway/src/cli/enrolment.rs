//! `fleetgate enrolment`: devices that request to join.

use clap::Subcommand;
use serde_json::json;

use super::client::Client;
use super::device::{labels, pair, present, said};
use super::host::pages;
use super::table::{self, Column};
use crate::api::enrolments::Enrolment;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum EnrolmentCommand {
    /// List devices that wait for approval
    List {
        /// Also list approved and rejected ones
        #[arg(long)]
        all: bool,
    },
    /// Approve a device
    Approve {
        /// Id of the enrolment, as in `fleetgate enrolment list`
        #[arg(value_name = "ID")]
        enrolment: String,
        /// Another name than the device asked for
        #[arg(long)]
        name: Option<String>,
        /// Label, as key=value; may be repeated
        #[arg(long = "label", value_parser = pair)]
        labels: Vec<(String, String)>,
    },
    /// Reject a device
    Reject {
        /// Id of the enrolment, as in `fleetgate enrolment list`
        #[arg(value_name = "ID")]
        enrolment: String,
        /// Text that the device's owner reads
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
    },
}

pub(crate) async fn run(client: &Client, command: EnrolmentCommand) -> anyhow::Result<()> {
    match command {
        EnrolmentCommand::List { all } => list(client, all).await,
        EnrolmentCommand::Approve { enrolment, name, labels: given } => {
            let body = present(json!({ "name": name, "labels": labels(given)? }));
            let done: Enrolment = client.post(&format!("/enrolments/{enrolment}/approve"), &body).await?;
            said(client, &format!("{} approved", table::safe(&done.name)))
        }
        EnrolmentCommand::Reject { enrolment, reason } => {
            let body = json!({ "reason": reason });
            let done: Enrolment = client.post(&format!("/enrolments/{enrolment}/reject"), &body).await?;
            said(client, &format!("{} rejected", table::safe(&done.name)))
        }
    }
}

const COLUMNS: [Column; 7] = [
    Column::state("STATE"),
    Column::name("NAME"),
    Column::whole("ID"),
    Column::text("PUBLIC KEY"),
    Column::whole("FROM"),
    Column::whole("REQUESTED"),
    Column::name("REPLACES"),
];

async fn list(client: &Client, all: bool) -> anyhow::Result<()> {
    let filter = if all { vec![] } else { vec![("state", "awaiting_approval".to_owned())] };
    let enrolments: Vec<Enrolment> = pages(client, "/enrolments", &filter).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&enrolments)?);
        return Ok(());
    }
    if enrolments.is_empty() {
        return said(client, "No device waits for approval");
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
    table::print(&COLUMNS, enrolments.iter().map(row).collect());
    Ok(())
}

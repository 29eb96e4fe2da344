//! `fleetgate enrolment`: devices that request to join.

use clap::Subcommand;
use serde_json::json;

use super::client::{Client, api_path};
use super::device::{present, said};
use super::host::pages;
use super::host_args::{labels, pair};
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
            let done: Enrolment = client.post(&api_path!("/enrolments/{}/approve", enrolment), &body).await?;
            said(client, &format!("{} approved", table::safe(&done.name)))
        }
        EnrolmentCommand::Reject { enrolment, reason } => {
            let body = json!({ "reason": reason });
            let done: Enrolment = client.post(&api_path!("/enrolments/{}/reject", enrolment), &body).await?;
            said(client, &format!("{} rejected", table::safe(&done.name)))
        }
    }
}

/// A column with its value, and whether the list has it.
type Cell = (bool, Column, fn(&Enrolment) -> String);

/// The public key is compared with the one on the device, so it is never cut.
fn cells(all: bool, found: &[Enrolment]) -> Vec<Cell> {
    let replaces = found.iter().any(|e| e.replaces.is_some());
    let cells: [Cell; 7] = [
        (all, Column::state("STATE"), |e| table::state(&e.state)),
        (true, Column::name("NAME"), |e| table::safe(&e.name)),
        (replaces, Column::name("REPLACES"), |e| table::safe(e.replaces.as_deref().unwrap_or(""))),
        (true, Column::whole("ID"), |e| e.id.clone()),
        (true, Column::whole("PUBLIC KEY"), |e| e.public_key.clone()),
        (true, Column::whole("FROM").optional(), |e| e.remote_address.clone()),
        (true, Column::whole("REQUESTED").optional(), |e| table::ago(Some(&e.created_at), table::now())),
    ];
    cells.into_iter().filter(|(shown, ..)| *shown).collect()
}

fn lines(all: bool, found: &[Enrolment], room: Option<usize>) -> Vec<String> {
    let cells = cells(all, found);
    let columns: Vec<Column> = cells.iter().map(|(_, column, _)| *column).collect();
    let row = |e: &Enrolment| cells.iter().map(|(_, _, value)| value(e)).collect::<Vec<_>>();
    table::render(&columns, found.iter().map(row).collect(), room)
}

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
    for line in lines(all, &enrolments, table::terminal_width()) {
        out::line!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "luAln1TBtVd7Lbf53Rra/yjqdLf2/tpqDjsr2k6Tpm8=";

    fn waiting(name: &str) -> Enrolment {
        let text = str::to_owned;
        Enrolment {
            id: text("e_38h60j1qx3q6e"),
            state: text("awaiting_approval"),
            name: text(name),
            public_key: text(KEY),
            ssh_host_key: None,
            token: text("t_38h60j1qx3q6e"),
            token_label: text("partner"),
            replaces: None,
            device: None,
            remote_address: text("198.51.100.4"),
            reason: String::new(),
            created_at: text("2026-11-30T12:00:00Z"),
            decided_at: None,
            decided_by: None,
            expires_at: None,
        }
    }

    #[test]
    fn the_public_key_is_whole_in_80_columns() {
        let rows = lines(false, &[waiting("camera-north-07")], Some(80));
        assert!(rows[0].starts_with("NAME ") && !rows[0].contains("STATE"), "{rows:?}");
        assert!(rows[1].starts_with("camera-north-07 ") && rows[1].ends_with(KEY), "{rows:?}");
    }

    #[test]
    fn a_list_of_all_has_the_states_and_one_with_a_successor_the_device_that_it_replaces() {
        let successor = Enrolment { replaces: Some("cam-07".to_owned()), ..waiting("new-07") };
        let rows = lines(false, &[successor, waiting("cam-08")], None);
        assert!(rows[0].contains("REPLACES") && rows[1].contains("  cam-07  "), "{rows:?}");
        let rows = lines(true, &[waiting("cam-08")], None);
        assert!(rows[0].starts_with("STATE") && !rows[0].contains("REPLACES"), "{rows:?}");
    }
}

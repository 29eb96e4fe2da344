//! `fleetgate incident`: problems with one cause, acknowledged together.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::ack::AckOptions;
use super::client::{Client, api_path};
use super::device::said;
use super::host::pages;
use super::table::{self, Column};
use crate::api::incidents::{Incident, IncidentDetails, IncidentMember};
use crate::cli::out;

/// Printed members. `--json` and the dashboard show more.
const PRINTED: usize = 30;

#[derive(Subcommand)]
pub(crate) enum IncidentCommand {
    /// List open incidents, the newest first
    List {
        /// List closed incidents instead
        #[arg(long)]
        closed: bool,
    },
    /// Show cause and members of an incident
    Show {
        /// Id of the incident
        #[arg(value_name = "ID")]
        incident: String,
    },
    /// Acknowledge all problems of an incident, also those that join it later
    Ack(AckArgs),
    /// Remove the acknowledgement of an incident; notifications resume
    Unack {
        /// Id of the incident
        #[arg(value_name = "ID")]
        incident: String,
    },
}

#[derive(Args)]
pub(crate) struct AckArgs {
    /// Id of the incident
    #[arg(value_name = "ID")]
    incident: String,
    #[command(flatten)]
    options: AckOptions,
}

pub(crate) async fn run(client: &Client, command: IncidentCommand) -> anyhow::Result<()> {
    match command {
        IncidentCommand::List { closed } => list(client, closed).await,
        IncidentCommand::Show { incident } => show(client, &incident).await,
        IncidentCommand::Ack(args) => acknowledge(client, args).await,
        IncidentCommand::Unack { incident } => {
            client.call(Method::DELETE, &api_path!("/incidents/{}/acknowledgement", incident), None).await?;
            said(client, "Acknowledgement removed; notifications resume")
        }
    }
}

async fn acknowledge(client: &Client, args: AckArgs) -> anyhow::Result<()> {
    let path = api_path!("/incidents/{}/acknowledgement", args.incident);
    let known: Incident = client.post(&path, &args.options.body()?).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&known)?);
    }
    said(client, &acknowledged(&known.id, known.open_members))
}

fn acknowledged(id: &str, open: i64) -> String {
    let s = if open == 1 { "" } else { "s" };
    format!("{id} acknowledged, with {open} open problem{s}")
}

pub(super) const COLUMNS: [Column; 6] = [
    Column::whole("ID"),
    Column::whole("SCOPE"),
    Column::whole("AGE"),
    Column::whole("PROBLEMS"),
    Column::name("ACKNOWLEDGED BY"),
    Column::text("CAUSE"),
];

async fn list(client: &Client, closed: bool) -> anyhow::Result<()> {
    let state = if closed { "closed" } else { "open" };
    let incidents: Vec<Incident> = pages(client, "/incidents", &[("state", state.to_owned())]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&incidents)?);
        return Ok(());
    }
    if incidents.is_empty() {
        return said(client, if closed { "No closed incidents" } else { "No open incidents" });
    }
    let now = table::now();
    let row = |i: &Incident| {
        vec![
            i.id.clone(),
            i.scope.clone(),
            table::lasting(Some(&i.opened_at), now),
            format!("{} of {}", i.open_members, i.members),
            table::safe(i.acknowledged_by.as_ref().map_or("", |ack| &ack.author)),
            table::safe(&i.text),
        ]
    };
    table::print(&COLUMNS, incidents.iter().map(row).collect());
    Ok(())
}

async fn show(client: &Client, incident: &str) -> anyhow::Result<()> {
    let found: IncidentDetails = client.get(&api_path!("/incidents/{}", incident), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&found)?);
        return Ok(());
    }
    for line in head(&found.incident) {
        out::line!("{line}");
    }
    let more = found.incident.members - found.listed.len().min(PRINTED) as i64;
    found.listed.iter().take(PRINTED).for_each(|m| out::line!("    {}", member(m)));
    if more > 0 {
        out::line!("    and {more} more");
    }
    out::line!("notifications: fleetgate why {}", found.incident.id);
    Ok(())
}

fn head(i: &Incident) -> Vec<String> {
    let mut lines = vec![format!("{}  {}  {}", i.id, i.state, table::safe(&i.text))];
    let over = match (&i.merged_into, &i.closed_at) {
        (Some(into), _) => format!(", merged into {into}"),
        (None, Some(at)) => format!(", closed {}", table::clock_time(at)),
        (None, None) => format!(", problems: {} of {} members", i.open_members, i.members),
    };
    lines.push(format!("opened {}{over}", table::clock_time(&i.opened_at)));
    if let Some(ack) = &i.acknowledged_by {
        let known = table::acknowledged_by(&ack.author, ack.expires.as_deref(), &ack.comment);
        lines.push(format!("acknowledged by {known}"));
    }
    lines
}

fn member(m: &IncidentMember) -> String {
    let service = m.service.as_deref().map(|s| format!("/{s}")).unwrap_or_default();
    let name = table::safe(&format!("{}{service}", m.host_name));
    match &m.left_at {
        Some(at) => format!("{name}, recovered {}", table::clock_time(at)),
        None => format!("{name}, since {}", table::clock_time(&m.began_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::incidents::IncidentAcknowledgement;

    #[test]
    fn problems_are_counted_in_words() {
        assert_eq!(acknowledged("i_1", 1), "i_1 acknowledged, with 1 open problem");
        assert_eq!(acknowledged("i_1", 2), "i_1 acknowledged, with 2 open problems");
    }

    #[test]
    fn the_head_says_what_it_is_and_who_knows() {
        let ack = IncidentAcknowledgement {
            author: "user:ada".into(),
            comment: "on it\u{1b}[2J".into(),
            at: "2026-01-02T12:05:00Z".into(),
            sticky: true,
            expires: None,
        };
        let incident = Incident {
            id: "i_0123456789abc".into(),
            scope: "site".into(),
            cause: "parent_down".into(),
            text: "r1 is down".into(),
            site: Some("north".into()),
            state: "open".into(),
            opened_at: "2026-01-02T12:00:00Z".into(),
            closed_at: None,
            merged_into: None,
            acknowledged_by: Some(ack),
            open_members: 29,
            members: 30,
        };
        let expected = [
            "i_0123456789abc  open  r1 is down",
            "opened 2026-01-02 12:00:00Z, problems: 29 of 30 members",
            "acknowledged by user:ada: on it\u{fffd}[2J",
        ];
        assert_eq!(head(&incident), expected);
    }
}

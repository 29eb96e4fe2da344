//! `fleetgate incident`: problems with one cause, acknowledged together.

use clap::{Args, Subcommand};
use reqwest::Method;

use super::care::Word;
use super::client::Client;
use super::device::said;
use super::host::pages;
use super::table;
use crate::api::model::{Incident, IncidentDetails, IncidentMember};
use crate::cli::out;

/// Printed members. `--json` and the dashboard show more.
const PRINTED: usize = 30;

#[derive(Subcommand)]
pub(crate) enum IncidentCommand {
    /// Those that are open, the newest first
    List {
        /// Those that are over, in place of them
        #[arg(long)]
        closed: bool,
    },
    /// Cause, members, and what was told
    Show { incident: String },
    /// Say that somebody knows: of all that is in it, and of what joins it
    Ack(AckArgs),
    /// Take that back: what is wrong is told again, as far as it was not
    Unack { incident: String },
}

#[derive(Args)]
pub(crate) struct AckArgs {
    incident: String,
    #[command(flatten)]
    word: Word,
}

pub(crate) async fn run(client: &Client, command: IncidentCommand) -> anyhow::Result<()> {
    match command {
        IncidentCommand::List { closed } => list(client, closed).await,
        IncidentCommand::Show { incident } => show(client, &incident).await,
        IncidentCommand::Ack(args) => acknowledge(client, args).await,
        IncidentCommand::Unack { incident } => {
            client.call(Method::DELETE, &format!("/incidents/{incident}/acknowledgement"), None).await?;
            said(client, "taken back: what is wrong is told again, as far as it was not")
        }
    }
}

async fn acknowledge(client: &Client, args: AckArgs) -> anyhow::Result<()> {
    let path = format!("/incidents/{}/acknowledgement", args.incident);
    let known: Incident = client.post(&path, &args.word.body()?).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&known)?);
    }
    said(client, &format!("{} is acknowledged, with all that is in it ({})", known.id, known.open_members))
}

async fn list(client: &Client, closed: bool) -> anyhow::Result<()> {
    let state = if closed { "closed" } else { "open" };
    let incidents: Vec<Incident> = pages(client, "/incidents", &[("state", state.to_owned())]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&incidents)?);
        return Ok(());
    }
    if incidents.is_empty() {
        return said(client, if closed { "none is closed" } else { "none is open" });
    }
    let now = table::now();
    let row = |i: &Incident| {
        vec![
            i.id.clone(),
            i.scope.clone(),
            table::ago(Some(&i.opened_at), now),
            i.open_members.to_string(),
            i.members.to_string(),
            table::safe(i.acknowledged_by.as_ref().map_or("", |ack| &ack.author)),
            table::safe(&i.text),
        ]
    };
    let headers = ["ID", "SCOPE", "OPENED", "WRONG", "OF", "KNOWN TO", "CAUSE"];
    table::print(&headers, incidents.iter().map(row).collect());
    Ok(())
}

async fn show(client: &Client, incident: &str) -> anyhow::Result<()> {
    let found: IncidentDetails = client.get(&format!("/incidents/{incident}"), &[]).await?;
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
    out::line!("what was told: fleetgate why {}", found.incident.id);
    Ok(())
}

fn head(i: &Incident) -> Vec<String> {
    let mut lines = vec![format!("{}  {}  {}", i.id, i.state, table::safe(&i.text))];
    let over = match (&i.merged_into, &i.closed_at) {
        (Some(into), _) => format!(", belongs to {into} now"),
        (None, Some(at)) => format!(", over at {}", table::clock_time(at)),
        (None, None) => format!(", {} of {} not well", i.open_members, i.members),
    };
    lines.push(format!("opened {}{over}", table::clock_time(&i.opened_at)));
    if let Some(ack) = &i.acknowledged_by {
        let known = table::known_to(&ack.author, ack.expires.as_deref(), &ack.comment);
        lines.push(format!("known to {known}"));
    }
    lines
}

fn member(m: &IncidentMember) -> String {
    let service = m.service.as_deref().map(|s| format!("/{s}")).unwrap_or_default();
    let name = table::safe(&format!("{}{service}", m.host_name));
    match &m.left_at {
        Some(at) => format!("{name}, left {}", table::clock_time(at)),
        None => format!("{name}, since {}", table::clock_time(&m.began_at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::model::IncidentAcknowledgement;

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
            "opened 2026-01-02 12:00:00Z, 29 of 30 not well",
            "known to user:ada: on it\u{fffd}[2J",
        ];
        assert_eq!(head(&incident), expected);
    }
}

//! `fleetgate why`: the notifications about a host or service, their recipients, and the reasons
//! for suppressed ones. Also the messages under way.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, api_path, path_of};
use super::device::said;
use super::host::pages;
use super::table::{self, Column};
use super::token::when;
use crate::api::hosts::Host;
use crate::api::notifications::{Message, Notification, NotificationOutcome};
use crate::api::types::Page;
use crate::cli::out;

#[derive(Args)]
pub(crate) struct WhyArgs {
    /// Notification (n_...), incident (i_...), host (cam-07), service (cam-07/disk) or gateway [default: all]
    #[arg(value_name = "OBJECT")]
    what: Option<String>,
    /// Only newer ones: RFC 3339, or how long ago, such as 2h or 3d
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Number of the newest ones
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 20)]
    lines: usize,
}

pub(crate) async fn run(client: &Client, args: WhyArgs) -> anyhow::Result<()> {
    let notifications = match &args.what {
        Some(id) if id.starts_with("n_") => vec![client.get(&api_path!("/notifications/{}", id), &[]).await?],
        _ => newest(client, &args).await?,
    };
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&notifications)?);
        return Ok(());
    }
    if notifications.is_empty() {
        if let Some((host, service)) = args.what.as_deref().and_then(|what| what.split_once('/')) {
            let _: Value = client.get(&path_of(host, Some(service)), &[]).await?;
        }
        let of = args.what.as_ref().map(|what| format!(" for {what}")).unwrap_or_default();
        said(client, &format!("No notifications{of}"))?;
    }
    // The newest comes last, close to the prompt.
    notifications.iter().rev().for_each(print);
    if let Some(what) = &args.what
        && let Some(verdict) = verdict(client, what).await
    {
        out::line!("now: {}", table::safe(&verdict));
    }
    Ok(())
}

async fn newest(client: &Client, args: &WhyArgs) -> anyhow::Result<Vec<Notification>> {
    let since = args.since.as_deref().map(|text| when("--since", text, table::now())).transpose()?;
    let mut query = vec![("limit", args.lines.to_string())];
    query.extend(args.what.clone().map(|what| ("object", what)));
    query.extend(since.map(|at| ("since", at.to_string())));
    let page: Page<Notification> = client.get("/notifications", &query).await?;
    Ok(page.items)
}

/// Returns the present verdict on a host. `None` for anything else and for a removed host.
async fn verdict(client: &Client, what: &str) -> Option<String> {
    if what.contains('/') || what.starts_with("n_") || what.starts_with("i_") {
        return None;
    }
    let host: Host = client.get(&path_of(what, None), &[]).await.ok()?;
    host.verdict.map(|verdict| verdict.text)
}

fn print(n: &Notification) {
    let service = n.service.as_deref().map(|s| format!("/{s}")).unwrap_or_default();
    out::line!(
        "{}  {}  {}  {}{}  ({})",
        table::clock_time(&n.at),
        table::safe(&format!("{}{service}", n.host)),
        n.kind.replace('_', " "),
        table::state(&n.state),
        earlier(n).map(|state| format!(", was {}", table::state(state))).unwrap_or_default(),
        n.id,
    );
    if let Some(incident) = &n.incident {
        out::line!("    incident {incident}");
    }
    if !n.note.is_empty() {
        out::line!("    by {}", table::safe(n.note.lines().next().unwrap_or_default()));
    }
    if !n.cause.is_empty() {
        out::line!("    {}", table::safe(n.cause.lines().next().unwrap_or_default()));
    }
    if n.outcomes.is_empty() {
        out::line!("    new: no contact selected yet");
    }
    for outcome in &n.outcomes {
        out::line!("    {}", line(outcome));
    }
}

/// Returns the state that was notified before. OK and UP also stand for no notification and no
/// result, so they are left out.
fn earlier(n: &Notification) -> Option<&str> {
    let before = n.previous_notified_state.as_str();
    (before != n.state && !matches!(before, "ok" | "up" | "pending")).then_some(before)
}

/// `sent       ops          email to ops@example.org at 12:00:00`.
fn line(o: &NotificationOutcome) -> String {
    let contact = o.contact.as_deref().unwrap_or("no contact");
    let way = match (&o.channel, &o.address) {
        (Some(channel), Some(address)) => format!("{channel} to {}", table::safe(address)),
        _ => String::new(),
    };
    let at = o.at.as_deref().map(table::clock_time).unwrap_or_default();
    let when = match o.outcome.as_str() {
        "sent" => format!("at {at}"),
        "waiting" if !o.reason.as_deref().is_some_and(is_planned) => format!("since {at}"),
        "waiting" => format!("until {at}"),
        "sending" => format!("due {at}"),
        _ => String::new(),
    };
    let head = format!("{way} {when}");
    let said = [head.trim(), &table::safe(&o.text), &table::safe(&o.evidence)].map(str::to_owned);
    let said: Vec<&str> = said.iter().map(String::as_str).filter(|t| !t.is_empty()).collect();
    format!("{:<10} {:<12} {}", o.outcome.replace('_', " "), table::safe(contact), said.join(": "))
}

/// Whether the end of the wait is known in advance.
fn is_planned(reason: &str) -> bool {
    matches!(reason, "group" | "delay" | "period" | "cap")
}

#[derive(Subcommand)]
pub(crate) enum MessageCommand {
    /// List messages, the newest first
    List {
        /// Only messages that are waiting, sent or given_up
        #[arg(long)]
        outcome: Option<String>,
    },
    /// Send a message again that was given up
    Resend {
        /// Id of the message, as in `fleetgate message list`
        #[arg(value_name = "ID")]
        message: String,
    },
}

pub(crate) async fn message(client: &Client, command: MessageCommand) -> anyhow::Result<()> {
    match command {
        MessageCommand::List { outcome } => list(client, outcome).await,
        MessageCommand::Resend { message } => {
            let again: Message = client.post(&api_path!("/messages/{}/resend", message), &json!({})).await?;
            said(client, &format!("{} to {} is sent again", again.id, table::safe(&again.address)))
        }
    }
}

pub(super) const COLUMNS: [Column; 8] = [
    Column::whole("ID"),
    Column::whole("OUTCOME"),
    Column::name("CONTACT"),
    Column::name("TO"),
    Column::whole("NOTIFICATIONS"),
    Column::whole("ATTEMPTS"),
    Column::whole("CREATED").optional(),
    Column::text("LAST ERROR"),
];

async fn list(client: &Client, outcome: Option<String>) -> anyhow::Result<()> {
    let filter: Vec<(&str, String)> = outcome.into_iter().map(|o| ("outcome", o)).collect();
    let messages: Vec<Message> = pages(client, "/messages", &filter).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&messages)?);
        return Ok(());
    }
    let now = table::now();
    let row = |m: &Message| {
        vec![
            m.id.clone(),
            m.outcome.replace('_', " "),
            table::safe(&m.contact),
            table::safe(&m.address),
            m.notifications.to_string(),
            m.attempts.to_string(),
            table::ago(Some(&m.created_at), now),
            table::safe(m.last_error.as_deref().unwrap_or_default()),
        ]
    };
    table::print(&COLUMNS, messages.iter().map(row).collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(outcome: &str) -> NotificationOutcome {
        NotificationOutcome {
            outcome: outcome.into(),
            contact: Some("ops".into()),
            message: None,
            channel: None,
            address: None,
            at: Some("2026-01-02T12:00:00Z".into()),
            reason: None,
            text: String::new(),
            evidence: String::new(),
            attempts: 0,
        }
    }

    #[test]
    fn a_state_that_was_never_notified_is_not_called_earlier() {
        let n = |before: &str| -> Notification {
            serde_json::from_value(json!({
                "id": "n_1", "at": "2026-01-02T12:00:00Z", "type": "problem", "host": "cam", "host_id": "h_1",
                "state": "critical", "previous_notified_state": before, "since": "2026-01-02T12:00:00Z",
                "cause": "", "note": "", "outcome": "new", "outcomes": [],
            }))
            .expect("a notification")
        };
        assert_eq!(earlier(&n("ok")), None, "it may never have been ok");
        assert_eq!(earlier(&n("critical")), None);
        assert_eq!(earlier(&n("warning")), Some("warning"));
    }

    #[test]
    fn a_line_says_who_and_why() {
        let sent = NotificationOutcome {
            channel: Some("email".into()),
            address: Some("ops@example.org".into()),
            ..outcome("sent")
        };
        assert_eq!(line(&sent), "sent       ops          email to ops@example.org at 2026-01-02 12:00:00Z");
        let held = NotificationOutcome {
            contact: None,
            text: "a downtime\u{1b}[2J".into(),
            ..outcome("suppressed")
        };
        let waits = NotificationOutcome {
            reason: Some("downtime".into()),
            text: "in a downtime".into(),
            ..outcome("waiting")
        };
        assert_eq!(line(&waits), "waiting    ops          since 2026-01-02 12:00:00Z: in a downtime");
        assert_eq!(line(&held), "suppressed no contact   a downtime\u{fffd}[2J");
    }
}

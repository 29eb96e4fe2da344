//! `fleetgate subscription`: programs that receive the events of rentals.

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::customer::printed;
use super::device::{present, said};
use super::table::{self, Column};
use crate::api::rentals::{Subscription, SubscriptionWithSecret};
use crate::api::types::Page;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// Add a subscription; its secret is printed once
    Add {
        /// http or https address that receives each event as JSON
        #[arg(value_name = "URL")]
        address: String,
        /// Only this kind, such as rental.active; may be repeated
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<String>,
    },
    /// List subscriptions
    List,
    /// Show one subscription
    Show {
        /// Id of the subscription
        subscription: String,
    },
    /// Change, pause or resume a subscription
    #[command(
        group(clap::ArgGroup::new("change").required(true).multiple(true)),
        override_usage = "fleetgate subscription set [OPTIONS] <SUBSCRIPTION>"
    )]
    Set {
        /// Id of the subscription
        subscription: String,
        /// New address
        #[arg(long, value_name = "URL", group = "change")]
        address: Option<String>,
        /// Kind that replaces the present ones; may be repeated
        #[arg(long = "kind", value_name = "KIND", group = "change")]
        kinds: Vec<String>,
        /// Receive all kinds
        #[arg(long, group = "change", conflicts_with = "kinds")]
        all_kinds: bool,
        /// Let events wait until it is resumed
        #[arg(long, group = "change", conflicts_with = "resume")]
        pause: bool,
        /// Send all waiting events now
        #[arg(long, group = "change")]
        resume: bool,
    },
    /// Remove a subscription
    Remove {
        /// Id of the subscription
        subscription: String,
    },
}

pub(crate) async fn run(client: &Client, command: SubscriptionCommand) -> anyhow::Result<()> {
    match command {
        SubscriptionCommand::Add { address, kinds } => {
            add(client, &json!({ "url": address, "kinds": kinds })).await
        }
        SubscriptionCommand::List => list(client).await,
        SubscriptionCommand::Show { subscription } => {
            show(client, &client.get(&api_path!("/subscriptions/{}", subscription), &[]).await?)
        }
        SubscriptionCommand::Set { subscription, address, kinds, all_kinds, pause, resume } => {
            let kinds = (all_kinds || !kinds.is_empty()).then_some(kinds);
            let paused = (pause || resume).then_some(pause);
            let body = present(json!({ "url": address, "kinds": kinds, "paused": paused }));
            let changed = client.patch(&api_path!("/subscriptions/{}", subscription), &body).await?;
            printed(client, &changed)?;
            said(client, &format!("Subscription {subscription} changed"))
        }
        SubscriptionCommand::Remove { subscription } => {
            client.delete(&api_path!("/subscriptions/{}", subscription), None).await?;
            said(client, &format!("Subscription {subscription} removed"))
        }
    }
}

async fn add(client: &Client, body: &Value) -> anyhow::Result<()> {
    let made: SubscriptionWithSecret = client.post("/subscriptions", body).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    out::line!("Subscription {} added", made.subscription.id);
    if let Some(secret) = &made.secret {
        out::line!("  secret of its signatures, not shown again: {secret}");
    }
    Ok(())
}

pub(super) const COLUMNS: [Column; 5] = [
    Column::whole("ID"),
    Column::whole("STATE"),
    Column::whole("WAITING"),
    Column::text("URL"),
    Column::text("KINDS"),
];

async fn list(client: &Client) -> anyhow::Result<()> {
    // There are so few that all of them are one page.
    let Page { items: all, .. }: Page<Subscription> = client.get("/subscriptions", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    if all.is_empty() {
        return said(client, "No subscriptions. Add one: fleetgate subscription add URL");
    }
    table::print(&COLUMNS, all.iter().map(row).collect());
    Ok(())
}

fn row(s: &Subscription) -> Vec<String> {
    let url = table::safe(s.url.as_deref().unwrap_or_default());
    vec![s.id.clone(), state(s).to_owned(), s.waiting.to_string(), url, kinds(s)]
}

fn state(s: &Subscription) -> &'static str {
    match (s.paused, &s.failing_since) {
        (true, _) => "paused",
        (false, Some(_)) => "failing",
        (false, None) => "active",
    }
}

fn kinds(s: &Subscription) -> String {
    if s.kinds.is_empty() { "all".to_owned() } else { table::safe(&s.kinds.join(", ")) }
}

fn show(client: &Client, s: &Subscription) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(s)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", state(s), s.id);
    line("url", s.url.as_deref().unwrap_or_default());
    line("kinds", &kinds(s));
    line("waiting", &s.waiting.to_string());
    line("accepted", &s.delivered_at.as_deref().map_or("nothing yet".to_owned(), table::minute));
    if let Some(since) = &s.failing_since {
        line("failing", &format!("since {}", table::minute(since)));
    }
    if let Some(at) = &s.next_attempt_at {
        line("tried again", &format!("{}; to try now: --resume", table::minute(at)));
    }
    if let (Some(error), Some(at)) = (&s.last_error, &s.last_error_at) {
        line("last error", &format!("{error} ({})", table::minute(at)));
    }
    line("added", &format!("{} by {}", table::minute(&s.created_at), s.author));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command, rental};
    use super::*;

    async fn try_run(client: &Client, line: &str) -> anyhow::Result<()> {
        let line = Cli::try_parse_from(format!("fleetgate {line}").split(' '));
        match line.map_err(|e| anyhow::anyhow!("{e}"))?.command {
            Command::Subscription(command) => run(client, command).await,
            Command::Rental(command) => rental::run(client, command).await,
            _ => panic!("another command"),
        }
    }

    #[tokio::test]
    async fn a_subscription_is_added_changed_paused_resumed_and_removed() {
        let (client, _api) = crate::cli::tests::connected().await;
        try_run(&client, "subscription list").await.unwrap();
        try_run(&client, "subscription add http://192.0.2.9/a --kind rental.active").await.unwrap();
        let Page { items: all, .. }: Page<Subscription> = client.get("/subscriptions", &[]).await.unwrap();
        let id = all[0].id.clone();
        for change in ["--all-kinds --address http://192.0.2.9/b", "--kind rental.ended --pause"] {
            try_run(&client, &format!("subscription set {id} {change}")).await.unwrap();
        }
        let paused: Subscription = client.get(&format!("/subscriptions/{id}"), &[]).await.unwrap();
        assert_eq!((state(&paused), paused.url.as_deref()), ("paused", Some("http://192.0.2.9/b")));
        assert_eq!(paused.kinds, ["rental.ended"]);
        let fine =
            ["list".to_owned(), format!("show {id}"), format!("set {id} --resume"), format!("remove {id}")];
        for line in fine {
            try_run(&client, &format!("subscription {line}")).await.unwrap();
        }
        for (wrong, says) in [
            (format!("subscription show {id}"), "no subscription"),
            (format!("subscription set {id}"), "required"),
            (format!("subscription set {id} --pause --resume"), "cannot be used with"),
            ("subscription add ftp://example.org/".to_owned(), "url: an address such as"),
            ("subscription add http://192.0.2.9/ --kind active".to_owned(), "use rental.booked"),
            ("rental events --customer nobody".to_owned(), "no customer"),
        ] {
            let refused = try_run(&client, &wrong).await.unwrap_err();
            assert!(format!("{refused:#}").contains(says), "{wrong}: {refused:#}");
        }
        try_run(&client, "rental events").await.unwrap();
    }
}

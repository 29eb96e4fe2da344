//! `fleetgate contact` and `fleetgate rule`: recipients, and the problems that they are notified
//! about.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::device::{present, said};
use super::host_args::{labels, pair};
use super::settings::number;
use super::table::{self, Column};
use super::token::span;
use crate::api::contacts::{Contact, ContactWithSecret};
use crate::api::notifications::{Message, Messages};
use crate::api::rules::Rule;
use crate::api::types::Page;
use crate::cli::out;

/// The longest time to follow a test, and the time between looks.
const TEST_PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);

#[derive(Subcommand)]
pub(crate) enum ContactCommand {
    /// Add a contact; the secret of its webhook is printed once
    Add(ContactArgs),
    /// List contacts
    List,
    /// Show one contact, as JSON
    Show {
        /// Name or id of the contact
        contact: String,
    },
    /// Change a contact
    Set {
        /// Name or id of the contact
        contact: String,
        #[command(flatten)]
        to: ContactFields,
        #[command(flatten)]
        without: ContactWithout,
        /// New name
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove a contact that no rule uses
    Remove {
        /// Name or id of the contact
        contact: String,
    },
    /// Send a test to all addresses of a contact and print the outcome
    Test {
        /// Name or id of the contact
        contact: String,
    },
    /// Replace the secret of its webhook; the new one is printed once
    RenewSecret {
        /// Name or id of the contact
        contact: String,
    },
}

#[derive(Args)]
pub(crate) struct ContactArgs {
    /// Name of the new contact
    name: String,
    #[command(flatten)]
    to: ContactFields,
}

#[derive(Args)]
pub(crate) struct ContactFields {
    /// Mail address; may be repeated
    #[arg(long = "email", value_name = "ADDRESS")]
    emails: Vec<String>,
    /// http or https address that receives messages as JSON
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
    /// Time zone of its periods and digest, such as Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Time of a daily mail with all open problems
    #[arg(long, value_name = "HH:MM")]
    digest: Option<String>,
    /// Seconds that a message waits for related problems
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    group_wait: Option<f64>,
}

impl ContactFields {
    fn body(self, name: Option<String>) -> Value {
        let emails = (!self.emails.is_empty()).then_some(self.emails);
        present(json!({
            "name": name, "emails": emails, "webhook_url": self.webhook, "time_zone": self.time_zone,
            "digest_at": self.digest, "group_wait_s": self.group_wait,
        }))
    }
}

/// Options that take something away.
#[derive(Args)]
pub(crate) struct ContactWithout {
    /// Remove all mail addresses
    #[arg(long, conflicts_with = "emails")]
    no_email: bool,
    /// Remove the webhook
    #[arg(long, conflicts_with = "webhook")]
    no_webhook: bool,
    /// Send no digest
    #[arg(long, conflicts_with = "digest")]
    no_digest: bool,
    /// Return to the group wait of the settings file
    #[arg(long, conflicts_with = "group_wait")]
    usual_group_wait: bool,
}

impl ContactWithout {
    fn of(self, mut body: Value) -> Value {
        let nothing = [
            ("emails", self.no_email, json!([])),
            ("webhook_url", self.no_webhook, Value::Null),
            ("digest_at", self.no_digest, Value::Null),
            ("group_wait_s", self.usual_group_wait, Value::Null),
        ];
        nothing
            .into_iter()
            .filter(|(_, wanted, _)| *wanted)
            .for_each(|(field, _, value)| body[field] = value);
        body
    }
}

pub(crate) async fn run(client: &Client, command: ContactCommand) -> anyhow::Result<()> {
    match command {
        ContactCommand::Add(args) => {
            let body = args.to.body(Some(args.name));
            shown(client, client.post("/contacts", &body).await?, "added")
        }
        ContactCommand::List => list(client).await,
        ContactCommand::Show { contact } => {
            let contact: Contact = client.get(&api_path!("/contacts/{}", contact), &[]).await?;
            out::line!("{}", serde_json::to_string_pretty(&contact)?);
            Ok(())
        }
        ContactCommand::Set { contact, to, without, name } => {
            let body = without.of(to.body(name));
            let changed = client.patch(&api_path!("/contacts/{}", contact), &body).await?;
            shown(client, serde_json::from_value(changed)?, "changed")
        }
        ContactCommand::Remove { contact } => {
            client.call(Method::DELETE, &api_path!("/contacts/{}", contact), None).await?;
            said(client, &format!("{contact} removed"))
        }
        ContactCommand::Test { contact } => test(client, &contact).await,
        ContactCommand::RenewSecret { contact } => {
            let path = api_path!("/contacts/{}/webhook-secret", contact);
            shown(client, client.post(&path, &json!({})).await?, "has a new secret")
        }
    }
}

fn shown(client: &Client, made: ContactWithSecret, what: &str) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    out::line!("{} {what}", table::safe(&made.contact.name));
    if let Some(secret) = &made.webhook_secret {
        out::line!("  secret of its webhook, not shown again: {secret}");
    }
    Ok(())
}

const CONTACT_COLUMNS: [Column; 5] = [
    Column::name("NAME"),
    Column::text("ADDRESSES"),
    Column::name("TIME ZONE"),
    Column::whole("DIGEST"),
    Column::name("MANAGED BY"),
];

async fn list(client: &Client) -> anyhow::Result<()> {
    let page: Page<Contact> = client.get("/contacts", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&page.items)?);
        return Ok(());
    }
    let row = |c: &Contact| {
        let addresses = c.emails.iter().chain(&c.webhook_url).map(|a| table::safe(a));
        vec![
            table::safe(&c.name),
            addresses.collect::<Vec<_>>().join(", "),
            c.time_zone.clone(),
            c.digest_at.clone().unwrap_or_default(),
            if c.built_in { "settings".to_owned() } else { c.managed.managed_by.clone() },
        ]
    };
    table::print(&CONTACT_COLUMNS, page.items.iter().map(row).collect());
    Ok(())
}

/// Waits until each message of a test is sent or has failed once.
async fn test(client: &Client, contact: &str) -> anyhow::Result<()> {
    let started: Messages = client.post(&api_path!("/contacts/{}/test", contact), &json!({})).await?;
    let mut failed = 0;
    for message in started.items {
        let message = follow(client, message).await?;
        let what = match (message.outcome.as_str(), &message.last_error) {
            ("sent", _) => "sent".to_owned(),
            (_, Some(error)) => format!("failed: {}", table::safe(error)),
            _ => "not delivered yet; `fleetgate message list` shows the attempts".to_owned(),
        };
        failed += usize::from(message.outcome != "sent");
        if client.json {
            out::line!("{}", serde_json::to_string(&message)?);
        } else {
            out::line!("{} to {}: {what}", message.channel, table::safe(&message.address));
        }
    }
    if failed > 0 {
        bail!("the test was not delivered to {failed} of the contact's addresses");
    }
    Ok(())
}

async fn follow(client: &Client, mut message: Message) -> anyhow::Result<Message> {
    for _ in 0..TEST_PATIENCE.as_millis() / LOOK.as_millis() {
        if message.outcome != "waiting" || message.last_error.is_some() {
            break;
        }
        tokio::time::sleep(LOOK).await;
        message = client.get(&api_path!("/messages/{}", message.id), &[]).await?;
    }
    Ok(message)
}

// ---------------------------------------------------------------------- rules

#[derive(Subcommand)]
pub(crate) enum RuleCommand {
    /// Add a notification rule. Once a rule exists, mail.to receives only what rules send to it
    Add {
        /// Name of the new rule
        name: String,
        /// Name or id of the contact
        #[arg(long)]
        contact: String,
        #[command(flatten)]
        of: RuleFields,
    },
    /// List rules
    List,
    /// Show one rule, as JSON
    Show {
        /// Name or id of the rule
        rule: String,
    },
    /// Change a rule
    Set {
        /// Name or id of the rule
        rule: String,
        /// Name or id of the contact
        #[arg(long)]
        contact: Option<String>,
        #[command(flatten)]
        of: RuleFields,
        /// Apply to all hosts
        #[arg(long, conflicts_with = "labels")]
        every_host: bool,
        /// Send at any time
        #[arg(long, conflicts_with = "period")]
        always: bool,
        /// Send without a delay
        #[arg(long, conflicts_with = "delay")]
        at_once: bool,
        /// New name
        #[arg(long)]
        name: Option<String>,
    },
    /// Remove a rule; messages that wait only by it are not sent
    Remove {
        /// Name or id of the rule
        rule: String,
    },
}

#[derive(Args)]
pub(crate) struct RuleFields {
    /// Label that a host must have, as key=value or key=*; may be repeated [default: every host]
    #[arg(long = "label", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Lowest severity: warning (all problems), unknown or critical
    #[arg(long)]
    severity: Option<String>,
    /// Time of notifications, such as "mon-fri 08:00-18:00, sat 09:00-12:00", in the contact's time zone
    #[arg(long)]
    period: Option<String>,
    /// Only problems that last longer without an acknowledgement, such as 30m
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,
}

impl RuleFields {
    fn body(self, name: Option<String>, contact: Option<String>) -> anyhow::Result<Value> {
        let labels = labels(self.labels)?;
        let delay = self.delay.as_deref().map(|text| span("--delay", text)).transpose()?;
        Ok(present(json!({
            "name": name, "contact": contact, "labels": (!labels.is_empty()).then_some(labels),
            "severity": self.severity, "period": self.period, "delay_s": delay.map(|d| d.as_secs_f64()),
        })))
    }
}

pub(crate) async fn rule(client: &Client, command: RuleCommand) -> anyhow::Result<()> {
    match command {
        RuleCommand::Add { name, contact, of } => {
            let made: Rule = client.post("/rules", &of.body(Some(name), Some(contact))?).await?;
            if client.json {
                out::line!("{}", serde_json::to_string_pretty(&made)?);
            }
            said(
                client,
                &format!("{} added; it notifies {}", table::safe(&made.name), table::safe(&made.contact)),
            )
        }
        RuleCommand::List => list_rules(client).await,
        RuleCommand::Show { rule } => {
            let rule: Rule = client.get(&api_path!("/rules/{}", rule), &[]).await?;
            out::line!("{}", serde_json::to_string_pretty(&rule)?);
            Ok(())
        }
        RuleCommand::Set { rule, contact, of, every_host, always, at_once, name } => {
            let mut body = of.body(name, contact)?;
            let nothing = [
                ("labels", every_host, Value::Null),
                ("period", always, Value::Null),
                ("delay_s", at_once, json!(0)),
            ];
            nothing
                .into_iter()
                .filter(|(_, wanted, _)| *wanted)
                .for_each(|(field, _, value)| body[field] = value);
            let changed = client.patch(&api_path!("/rules/{}", rule), &body).await?;
            if client.json {
                out::line!("{}", serde_json::to_string_pretty(&changed)?);
            }
            said(client, &format!("{rule} changed"))
        }
        RuleCommand::Remove { rule } => {
            client.call(Method::DELETE, &api_path!("/rules/{}", rule), None).await?;
            said(client, &format!("{rule} removed"))
        }
    }
}

const RULE_COLUMNS: [Column; 6] = [
    Column::name("NAME"),
    Column::name("CONTACT"),
    Column::text("HOSTS"),
    Column::whole("SEVERITY"),
    Column::text("PERIOD"),
    Column::whole("DELAY"),
];

async fn list_rules(client: &Client) -> anyhow::Result<()> {
    let page: Page<Rule> = client.get("/rules", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&page.items)?);
        return Ok(());
    }
    if page.items.is_empty() {
        return said(client, "No rules: mail.to in fleetgate.toml receives all notifications");
    }
    let row = |r: &Rule| {
        let labels: Vec<String> = r.labels.iter().map(|(k, v)| table::safe(&format!("{k}={v}"))).collect();
        vec![
            table::safe(&r.name),
            table::safe(&r.contact),
            if labels.is_empty() { "every host".to_owned() } else { labels.join(" ") },
            r.severity.clone(),
            r.period.clone().unwrap_or_else(|| "always".to_owned()),
            if r.delay_s > 0.0 { format!("{}s", table::number(r.delay_s)) } else { String::new() },
        ]
    };
    table::print(&RULE_COLUMNS, page.items.iter().map(row).collect());
    Ok(())
}

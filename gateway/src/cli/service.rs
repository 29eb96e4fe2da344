//! `fleetgate service`: differences between the services of one host and its profile.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::device::said;
use super::limits::Limits;
use super::rental_device::warning_of_gate;
use super::settings::Settings;
use super::table::{self, Column};
use crate::api::services::{Service, ServiceOverride};
use crate::api::types::Page;
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum ServiceCommand {
    /// Show state, limits, metrics and output of one service
    Show {
        /// Name or id of the host
        host: String,
        /// Name of the service
        service: String,
    },
    /// List how the services of a host differ from its profile
    Differences {
        /// Name or id of the host
        host: String,
    },
    /// Change a service of one host, or add one with --check
    Set(Box<SetArgs>),
    /// Return a service to the settings of the profile
    Reset {
        /// Name or id of the host
        host: String,
        /// Name of the service
        service: String,
    },
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Name or id of the host
    host: String,
    /// Name of the service
    service: String,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    settings: Settings,
    /// The check as JSON, such as {"type": "tcp", "port": 443}
    #[arg(long, value_name = "JSON")]
    check: Option<String>,
    /// Disable the service
    #[arg(long, conflicts_with = "on")]
    off: bool,
    /// Enable the service
    #[arg(long)]
    on: bool,
}

pub(crate) async fn run(client: &Client, command: ServiceCommand) -> anyhow::Result<()> {
    match command {
        ServiceCommand::Show { host, service } => show(client, &host, &service).await,
        ServiceCommand::Differences { host } => differences(client, &host).await,
        ServiceCommand::Set(args) => set(client, *args).await,
        ServiceCommand::Reset { host, service } => {
            client.call(Method::DELETE, &api_path!("/hosts/{}/services/{}", host, service), None).await?;
            said(client, &format!("{host}/{service}: settings of the profile restored"))
        }
    }
}

async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let path = api_path!("/hosts/{}/services/{}", args.host, args.service);
    let all: Page<Value> = client.get(&api_path!("/hosts/{}/overrides", args.host), &[]).await?;
    let before = all.items.into_iter().find(|o| o["service"] == args.service.as_str());
    let version = before.as_ref().and_then(|o| o["version"].as_i64());
    let mut body = settings(before);
    if !args.limits.is_empty() {
        // A new service has no limits yet.
        let now: Option<Value> = client.get(&path, &[]).await.ok();
        // Those of a rental end with it.
        let list = |s: Value| s["usual_thresholds"].as_array().or(s["thresholds"].as_array()).cloned();
        let effective = now.and_then(list).unwrap_or_default();
        let mut own = body["thresholds"].as_array().cloned().unwrap_or_default();
        args.limits.merge(&mut own, &effective);
        body["thresholds"] = json!(own);
    }
    args.write(&mut body)?;
    let made = client.put(&path, &body, version).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    // Most services without a check lack a login.
    let waits = body["disabled"] != true && client.get::<Value>(&path, &[]).await.is_err();
    let waits = if waits {
        format!(
            "; it runs once the host has an SSH user (fleetgate device set {} --ssh-user NAME)",
            args.host
        )
    } else {
        String::new()
    };
    let gate = match body["disabled"] == true {
        true => warning_of_gate(client, &args.host, &args.service).await,
        false => String::new(),
    };
    let back = format!("fleetgate service reset {} {}", args.host, args.service);
    said(client, &format!("{}/{} changed{waits}{gate}; undo with: {back}", args.host, args.service))
}

/// Returns an override without the fields that only the gateway writes.
pub(crate) fn settings(stored: Option<Value>) -> Value {
    let mut fields = stored.and_then(|o| o.as_object().cloned()).unwrap_or_default();
    for own in ["service", "version", "managed_by", "edited_by"] {
        fields.remove(own);
    }
    // Enabled is the default and is left out.
    if fields.get("disabled") == Some(&json!(false)) {
        fields.remove("disabled");
    }
    Value::Object(fields)
}

impl SetArgs {
    fn write(&self, body: &mut Value) -> anyhow::Result<()> {
        self.settings.merge(body);
        let given = [
            ("check", self.check.as_deref().map(check).transpose()?),
            ("disabled", (self.off || self.on).then_some(json!(self.off))),
        ];
        for (field, value) in given {
            if let Some(value) = value {
                body[field] = value;
            }
        }
        Ok(())
    }
}

fn check(text: &str) -> anyhow::Result<Value> {
    serde_json::from_str(text).map_err(|e| {
        anyhow::anyhow!("--check: expected JSON such as {{\"type\": \"tcp\", \"port\": 443}}: {e}")
    })
}

async fn show(client: &Client, host: &str, service: &str) -> anyhow::Result<()> {
    let s: Service = client.get(&api_path!("/hosts/{}/services/{}", host, service), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&s)?);
        return Ok(());
    }
    out::line!(
        "{}{}  {} of {}",
        table::state(&s.state),
        table::marks(s.acknowledged, s.in_downtime, s.flapping),
        table::safe(&s.name),
        table::safe(&s.host_name)
    );
    s.text.lines().for_each(|line| out::line!("  {}", table::safe(line)));
    let limit = |metric: &str, of: Option<&String>, word: &str| {
        of.map(|range| out::line!("  {word:<10}{} {}", table::safe(metric), table::safe(range)))
    };
    for t in &s.thresholds {
        limit(&t.metric, t.warn.as_ref(), "warning");
        limit(&t.metric, t.crit.as_ref(), "critical");
    }
    for m in &s.metrics {
        let value = m.value.map_or("U".to_owned(), table::number);
        out::line!("  metric    {} {value}{}", table::safe(&m.label), table::safe(&m.uom));
    }
    if let Some(ack) = &s.acknowledgement {
        let known = table::acknowledged_by(&ack.author, ack.expires.as_deref(), &ack.comment);
        out::line!("  acknowledged by {known}");
    }
    s.parse_warnings.iter().for_each(|w| out::line!("  skipped   {}", table::safe(w)));
    s.long_text.lines().for_each(|line| out::line!("  | {}", table::safe_output(line)));
    Ok(())
}

const COLUMNS: [Column; 3] =
    [Column::name("SERVICE"), Column::text("DIFFERENCES"), Column::name("MANAGED BY")];

async fn differences(client: &Client, host: &str) -> anyhow::Result<()> {
    let all: Page<Value> = client.get(&api_path!("/hosts/{}/overrides", host), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&all.items)?);
        return Ok(());
    }
    let row = |value: &Value| -> anyhow::Result<Vec<String>> {
        let known: ServiceOverride = serde_json::from_value(value.clone())?;
        let by = known.managed.edited_by.map_or(String::new(), |who| format!(", changed by {who}"));
        Ok(vec![
            table::safe(&known.service),
            table::safe(&settings(Some(value.clone())).to_string()),
            table::safe(&format!("{}{by}", known.managed.managed_by)),
        ])
    };
    let rows = all.items.iter().map(row).collect::<anyhow::Result<_>>()?;
    table::print(&COLUMNS, rows);
    Ok(())
}

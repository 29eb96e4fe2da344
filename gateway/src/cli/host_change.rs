//! `fleetgate host set`, `add` and `remove`: settings of hosts, and hosts behind devices.

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, api_path};
use super::device::{present, said};
use super::host_args::{LabelChanges, LoginChange, Ssh, labels, pair};
use super::limits::Limits;
use super::removal::{self, Along};
use super::settings::{Settings, number};
use super::table;
use crate::api::host_settings::HostSettings;
use crate::api::hosts::Host;
use crate::api::types::ThresholdSettings;
use crate::cli::out;

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Name or id of the host
    host: String,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    limits: Limits,
    /// Seconds of silence that are expected: the host is then asleep, not down
    #[arg(long, value_name = "SECONDS", value_parser = number)]
    max_silence: Option<f64>,
    /// Host that this one is reached through; may be repeated, replaces the present list
    #[arg(long = "parent", value_name = "HOST")]
    parents: Vec<String>,
    /// Remove all parents, except for the device that it is behind
    #[arg(long, conflicts_with = "parents")]
    no_parents: bool,
    /// Profile of its services
    #[arg(long, conflicts_with = "by_rules")]
    profile: Option<String>,
    /// Choose its profiles by its labels again
    #[arg(long)]
    by_rules: bool,
    #[command(flatten)]
    labels: LabelChanges,
    /// Its address in a network behind its device
    #[arg(long)]
    address: Option<String>,
    #[command(flatten)]
    login: LoginChange,
    /// Free text for people who see the host
    #[arg(long)]
    notes: Option<String>,
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Name of the new host
    name: String,
    /// The device that it is behind
    #[arg(long, value_name = "DEVICE")]
    via: String,
    /// Its address in one of the networks behind the device
    #[arg(long)]
    address: String,
    /// Label, as key=value; may be repeated
    #[arg(long = "label", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Profile of its services [default: chosen by its labels]
    #[arg(long)]
    profile: Option<String>,
    #[command(flatten)]
    ssh: Ssh,
}

pub(crate) async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let path = api_path!("/hosts/{}", args.host);
    let before: Value = client.get(&format!("{path}/settings"), &[]).await?;
    let body = args.body(&before)?;
    anyhow::ensure!(
        !body.is_empty(),
        "nothing to change: give at least one option, see `fleetgate host set --help`"
    );
    let made = client.patch(&path, &Value::Object(body)).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    let settings: HostSettings = serde_json::from_value(made)?;
    lines(&settings).iter().for_each(|line| out::line!("{line}"));
    said(client, &format!("{} changed", args.host))
}

impl SetArgs {
    fn body(&self, before: &Value) -> anyhow::Result<Map<String, Value>> {
        let mut body = self.settings.changes(before);
        let own = present(json!({
            "max_silence_s": self.max_silence,
            "profile": self.profile,
            "address": self.address,
            "notes": self.notes,
        }));
        body.extend(own.as_object().cloned().unwrap_or_default());
        if !self.parents.is_empty() || self.no_parents {
            body.insert("parents".to_owned(), json!(self.parents));
        }
        if !self.limits.is_empty() {
            let mut own = before["thresholds"].as_array().cloned().unwrap_or_default();
            self.limits.merge(&mut own, &[]);
            own.retain(|limit| limit.get("warn").or(limit.get("crit")).is_some());
            body.insert("thresholds".to_owned(), json!(own));
        }
        if self.by_rules {
            body.insert("profile".to_owned(), Value::Null);
        }
        if let Some(ssh) = self.login.body() {
            body.insert("ssh".to_owned(), ssh);
        }
        if let Some(labels) = self.labels.body(&self.host, &before["labels"])? {
            body.insert("labels".to_owned(), labels);
        }
        Ok(body)
    }
}

pub(crate) async fn add(client: &Client, args: AddArgs) -> anyhow::Result<()> {
    let body = present(json!({
        "name": args.name,
        "via": args.via,
        "address": args.address,
        "labels": labels(args.labels)?,
        "profile": args.profile,
        "ssh": args.ssh.body(),
    }));
    let made: Host = client.post("/hosts", &body).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    said(client, &format!("{} added; checks begin now, through the tunnel of {}", made.name, args.via))
}

pub(crate) async fn remove(client: &Client, host: &str, along: Along) -> anyhow::Result<()> {
    match removal::remove(client, &api_path!("/hosts/{}", host), along).await? {
        None => said(client, "Nothing was removed"),
        Some(others) if others.is_empty() => said(client, &format!("{host} removed; its history is kept")),
        Some(others) => {
            said(client, &format!("{host} removed; its history is kept; {}", removal::words(&others)))
        }
    }
}

/// Returns the settings that differ from the default, one per line.
pub(crate) fn lines(settings: &HostSettings) -> Vec<String> {
    let seconds = |s: Option<f64>| s.map(|s| format!("{} s", table::number(s)));
    let alerting = &settings.alerting;
    let part = |part: Option<Value>| part.map(|value| table::safe(&words(&value)));
    let known = [
        ("behind", settings.via.as_deref().map(table::safe)),
        ("parents", (!settings.parents.is_empty()).then(|| table::safe(&settings.parents.join(", ")))),
        ("interval", seconds(settings.interval_s)),
        ("retry", seconds(settings.retry_s)),
        ("timeout", seconds(settings.timeout_s)),
        ("attempts", settings.max_check_attempts.map(|n| n.to_string())),
        ("freshness", seconds(settings.freshness_s)),
        ("may sleep", seconds(settings.max_silence_s)),
        ("volatile", alerting.volatile.map(|v| v.to_string())),
        ("flapping", part(alerting.flapping.as_ref().map(|f| json!(f)))),
        ("notify", part(alerting.notify.as_ref().map(|n| json!(n)))),
        ("limits", (!settings.thresholds.is_empty()).then(|| limits(&settings.thresholds))),
        ("notes", (!settings.notes.is_empty()).then(|| table::safe(&settings.notes))),
    ];
    known.into_iter().filter_map(|(name, value)| Some(format!("  {name:<11} {}", value?))).collect()
}

/// Formats `rtt warn 100 crit 200, packet_age crit 90`.
fn limits(all: &[ThresholdSettings]) -> String {
    let range = |word: &str, range: &Option<String>| {
        range.as_ref().map(|r| format!(" {word} {r}")).unwrap_or_default()
    };
    let one = |t: &ThresholdSettings| {
        table::safe(&format!("{}{}{}", t.metric, range("warn", &t.warn), range("crit", &t.crit)))
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Formats `delay 60 s, states critical unknown`.
fn words(part: &Value) -> String {
    let fields = part.as_object().into_iter().flatten();
    let word = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
            Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), table::number),
            other => other.to_string(),
        };
        match name.strip_suffix("_s") {
            Some(name) => format!("{name} {value} s"),
            None => format!("{name} {value}"),
        }
    };
    fields.map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_checks_log_in_is_changed() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            set: SetArgs,
        }
        let parsed = |line: &str| <Line as clap::Parser>::try_parse_from(line.split(' '));
        let body = |line: &str| {
            let set = parsed(line).ok().map(|line| line.set);
            set.map(|set| Value::Object(set.body(&json!({})).unwrap_or_default()))
        };
        let both = json!({ "ssh": { "user": "ops", "port": 2222 } });
        assert_eq!(body("set nas --ssh-user ops --ssh-port 2222"), Some(both));
        assert_eq!(body("set nas --no-ssh-user"), Some(json!({ "ssh": { "user": null } })));
        assert_eq!(body("set nas --notes x"), Some(json!({ "notes": "x" })), "the login stays");
        assert_eq!(body("set nas --ssh-user ops --no-ssh-user"), None);
    }

    #[test]
    fn parts_of_what_is_told_read_well() {
        let notify = json!({ "delay_s": 60.0, "states": ["critical", "unknown"] });
        assert_eq!(words(&notify), "delay 60 s, states critical unknown");
    }
}

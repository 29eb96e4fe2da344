//! `fleetgate device`: identity and tunnel.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::host::pages;
use super::removal::{self, Along};
use super::table;
use crate::api::model::Device;
use crate::cli::out;
use crate::secret_file::Place;

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Add a device; prints its WireGuard configuration, once
    Add(AddArgs),
    /// One line a device
    List,
    /// Identity, keys and addresses of one device
    Show { device: String },
    /// Change what is given; the rest stays as it is. Intervals and what is told: fleetgate host set
    Set(SetArgs),
    /// Give it another name; everything else stays
    Rename { device: String, name: String },
    /// End its tunnel at once; its history stays. Hosts behind it are named first
    Remove {
        device: String,
        #[command(flatten)]
        along: Along,
    },
    /// A token with which a successor takes over its name, addresses and history
    Replace {
        device: String,
        /// A person has to approve the successor
        #[arg(long)]
        approval: bool,
    },
    /// New keys for the same device; the previous ones end at once
    Reissue {
        device: String,
        /// The device's own new key; else a pair is made for it
        #[arg(long)]
        public_key: Option<String>,
        /// Print a QR code instead of the text
        #[arg(long, conflicts_with = "out")]
        qr: bool,
        /// A file for it that only you can read; one that is there already stays as it is
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Do not ask, on a terminal, before the present configuration stops working
        #[arg(long, short)]
        yes: bool,
    },
    /// Insist on this SSH host key from now on
    Trust {
        device: String,
        /// SHA256:..., a public key, or a line of known_hosts
        host_key: String,
    },
    /// Forget the newest handshake time: the device's clock was wrong in the future
    ResetClock { device: String },
}

#[derive(Args)]
pub(crate) struct AddArgs {
    name: String,
    /// key=value; may be repeated
    #[arg(long = "label", value_parser = pair)]
    labels: Vec<(String, String)>,
    #[arg(long)]
    profile: Option<String>,
    /// The device's own WireGuard key; else a pair is made for it and shown once
    #[arg(long)]
    public_key: Option<String>,
    /// Outside of the VPN: no tunnel, watched by SSH at --direct
    #[arg(long, requires = "direct", conflicts_with_all = ["public_key", "qr"])]
    no_tunnel: bool,
    /// Its name or address on the Internet
    #[arg(long, value_name = "HOST")]
    direct: Option<String>,
    /// tunnel, direct or auto
    #[arg(long)]
    route: Option<String>,
    #[command(flatten)]
    ssh: Ssh,
    /// Print a QR code instead of the text
    #[arg(long, conflicts_with = "out")]
    qr: bool,
    /// A file for its configuration that only you can read; one that is there already stays as it is
    #[arg(long, value_name = "FILE", conflicts_with = "no_tunnel")]
    out: Option<PathBuf>,
}

/// How checks log in to something new.
#[derive(Args)]
pub(crate) struct Ssh {
    #[command(flatten)]
    login: Login,
    /// The host key to insist on: SHA256:..., a public key, or a line of known_hosts
    #[arg(long)]
    host_key: Option<String>,
}

#[derive(Args)]
struct Login {
    /// The account that checks log in to
    #[arg(long)]
    ssh_user: Option<String>,
    #[arg(long)]
    ssh_port: Option<u16>,
}

impl Ssh {
    pub(crate) fn body(&self) -> Value {
        let Login { ssh_user, ssh_port } = &self.login;
        json!({ "user": ssh_user, "port": ssh_port, "host_key": self.host_key })
    }
}

#[derive(Args)]
pub(crate) struct SetArgs {
    device: String,
    /// A network that stands behind it, in place of those it has; may be repeated
    #[arg(long = "network", value_name = "PREFIX")]
    networks: Vec<String>,
    /// No network stands behind it
    #[arg(long, conflicts_with = "networks")]
    no_networks: bool,
    /// tunnel, direct or auto
    #[arg(long)]
    route: Option<String>,
    /// Its name or address on the Internet
    #[arg(long, value_name = "HOST")]
    direct: Option<String>,
    #[command(flatten)]
    login: Login,
}

/// Parses `key=value` from the command line.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: expected key=value"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Returns the `--label` options as an object.
///
/// # Errors
/// Names a key that is given twice, because one value would be lost.
pub(crate) fn labels(pairs: Vec<(String, String)>) -> anyhow::Result<Map<String, Value>> {
    let mut labels = Map::new();
    for (key, value) in pairs {
        if labels.contains_key(&key) {
            anyhow::bail!("--label {key} is given twice: say which value it has");
        }
        labels.insert(key, Value::String(value));
    }
    Ok(labels)
}

pub(crate) async fn run(client: &Client, command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Add(args) => add(client, args).await,
        DeviceCommand::List => list(client).await,
        DeviceCommand::Show { device } => show(client, &device).await,
        DeviceCommand::Rename { device, name } => {
            client.patch(&format!("/devices/{device}"), &json!({ "name": name })).await?;
            said(client, &format!("{device} is now {name}"))
        }
        DeviceCommand::Remove { device, along } => remove(client, &device, along).await,
        DeviceCommand::Replace { device, approval } => replace(client, &device, approval).await,
        DeviceCommand::Set(args) => set(client, args).await,
        DeviceCommand::Reissue { device, public_key, qr, out, yes } => {
            is_free(out.as_deref())?;
            if !yes {
                may_replace(client, &device).await?;
            }
            let place = reserve(out.as_deref()).context("nothing was changed")?;
            let body = present(json!({ "public_key": public_key }));
            let made: Value = client.post(&format!("/devices/{device}/credentials"), &body).await?;
            credentials(client, &made, qr, out.as_deref().zip(place))
        }
        DeviceCommand::Trust { device, host_key } => {
            let body = json!({ "host_key": host_key });
            client.call(Method::POST, &format!("/devices/{device}/trust"), Some(&body)).await?;
            said(client, &format!("{device}: this host key is insisted on from now on"))
        }
        DeviceCommand::ResetClock { device } => {
            client.call(Method::POST, &format!("/devices/{device}/reset-clock"), Some(&json!({}))).await?;
            said(client, &format!("{device}: the next handshake is taken whatever its clock says"))
        }
    }
}

/// Asks a person at a terminal before a working configuration stops. A program has already decided.
async fn may_replace(client: &Client, device: &str) -> anyhow::Result<()> {
    // An unknown device is an error before the question.
    let found: Device = client.get(&format!("/devices/{device}"), &[]).await?;
    if found.tunnel.is_none() || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    anstream::eprint!(
        "The present configuration of {} stops working at once; its tunnel is down until the new one is \
         installed. Replace its keys? [y/N] ",
        table::safe(&found.name)
    );
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => anyhow::bail!("nothing was changed"),
    }
}

/// Prints a message for a person. Prints nothing for a program.
pub(crate) fn said(client: &Client, words: &str) -> anyhow::Result<()> {
    if !client.json {
        anstream::eprintln!("{words}");
    }
    Ok(())
}

/// Leaves out options that were not given, because `null` has a meaning of its own.
pub(crate) fn present(body: Value) -> Value {
    let Value::Object(fields) = body else { return body };
    let given = fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, present(v)));
    Value::Object(given.collect::<Map<_, _>>())
}

async fn remove(client: &Client, device: &str, along: Along) -> anyhow::Result<()> {
    match removal::remove(client, &format!("/devices/{device}"), along).await? {
        None => said(client, "nothing is removed"),
        Some(others) if others.is_empty() => {
            said(client, &format!("{device} is removed; its tunnel has ended, its history stays"))
        }
        Some(others) => {
            let others = removal::words(&others);
            said(client, &format!("{device} is removed; its tunnel has ended, its history stays; {others}"))
        }
    }
}

async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let networks = (!args.networks.is_empty() || args.no_networks).then_some(args.networks);
    let mut body = present(json!({
        "networks": networks,
        "route": args.route,
        "direct_address": args.direct,
        "ssh": { "user": args.login.ssh_user, "port": args.login.ssh_port },
    }));
    body.as_object_mut().into_iter().for_each(|fields| fields.retain(|_, value| *value != json!({})));
    anyhow::ensure!(body != json!({}), "nothing is given that could be set: fleetgate device set --help");
    let made = client.patch(&format!("/devices/{}", args.device), &body).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    said(client, &format!("{} is set", args.device))
}

/// Checks the file before any request.
fn is_free(out: Option<&Path>) -> anyhow::Result<()> {
    match out.filter(|file| file.symlink_metadata().is_ok()) {
        Some(file) => anyhow::bail!("--out {}: it is there already: choose another name", file.display()),
        None => Ok(()),
    }
}

/// Reserves the file. A key that cannot be stored is not generated.
fn reserve(out: Option<&Path>) -> anyhow::Result<Option<Place>> {
    out.map(Place::reserve).transpose()
}

async fn add(client: &Client, args: AddArgs) -> anyhow::Result<()> {
    is_free(args.out.as_deref())?;
    let body = present(json!({
        "name": args.name,
        "labels": labels(args.labels)?,
        "profile": args.profile,
        "public_key": args.public_key,
        "tunnel": args.no_tunnel.then_some(false),
        "route": args.route,
        "direct_address": args.direct,
        "ssh": args.ssh.body(),
    }));
    let place = reserve(args.out.as_deref()).context("nothing was added")?;
    let made: Value = client.post("/devices", &body).await?;
    credentials(client, &made, args.qr, args.out.as_deref().zip(place))
}

/// Writes only the configuration to the file or to stdout.
fn credentials(client: &Client, made: &Value, qr: bool, out: Option<(&Path, Place)>) -> anyhow::Result<()> {
    let conf = made["credentials"]["conf"].as_str();
    let name = made["device"]["name"].as_str().unwrap_or_default();
    if let (Some(conf), Some((out, place))) = (conf, out) {
        place
            .keep(conf)
            .with_context(|| format!("{name} is made; `fleetgate device reissue {name}` shows it again"))?;
        return said(
            client,
            &format!("{name}: its configuration is in {}; it is not stored here", out.display()),
        );
    }
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(made)?);
        return Ok(());
    }
    let Some(shown) = made.get("credentials").filter(|c| !c.is_null()) else {
        return said(client, &format!("{name} is added; it has no tunnel, checks begin now"));
    };
    match shown["qr_text"].as_str().filter(|_| qr) {
        Some(code) => out::line!("{code}"),
        None => out::text!("{}", shown["conf"].as_str().unwrap_or_default()),
    }
    said(client, &format!("{name}: this was shown once and is not stored"))
}

async fn list(client: &Client) -> anyhow::Result<()> {
    let devices: Vec<Device> = pages(client, "/devices", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&devices)?);
        return Ok(());
    }
    let row = |d: &Device| {
        let tunnel = d.tunnel.as_ref();
        let addresses = tunnel.map(|t| t.addresses.join(" "));
        vec![
            table::safe(&d.name),
            addresses.or_else(|| d.direct_address.clone()).map_or("-".to_owned(), |a| table::safe(&a)),
            own_profile(d.profile.as_deref()),
            d.route.clone(),
            tunnel.map_or("no tunnel".to_owned(), |t| t.public_key.clone()),
            d.id.clone(),
        ]
    };
    table::print(
        &["NAME", "ADDRESS", "PROFILE", "ROUTE", "PUBLIC KEY", "ID"],
        devices.iter().map(row).collect(),
    );
    Ok(())
}

/// Returns the profile that the host itself names.
fn own_profile(own: Option<&str>) -> String {
    own.unwrap_or("by rules").to_owned()
}

async fn show(client: &Client, name: &str) -> anyhow::Result<()> {
    let d: Device = client.get(&format!("/devices/{name}"), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&d)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", table::safe(&d.name), d.id);
    if let Some(tunnel) = &d.tunnel {
        line("public key", &format!("{} (since {})", tunnel.public_key, tunnel.keyed_at));
        line("addresses", &tunnel.addresses.join(" "));
    }
    line("directly", d.direct_address.as_deref().unwrap_or("-"));
    line("route", &d.route);
    line("profile", &own_profile(d.profile.as_deref()));
    line("ssh", &format!("{} port {}", d.ssh.user.as_deref().unwrap_or("no login"), d.ssh.port));
    if let Some(pin) = &d.ssh.pin {
        let key_type = d.ssh.pin_type.as_deref().map(|t| format!("{t} ")).unwrap_or_default();
        line("host key", &format!("{key_type}{pin} ({})", d.ssh.pin_source.as_deref().unwrap_or("pinned")));
    }
    if !d.labels.is_empty() {
        line("labels", &d.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "));
    }
    line("added", &d.created_at);
    Ok(())
}

async fn replace(client: &Client, device: &str, approval: bool) -> anyhow::Result<()> {
    let body = json!({ "needs_approval": approval });
    let made: Value = client.post(&format!("/devices/{device}/replacement"), &body).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    out::line!("{}", made["secret"].as_str().unwrap_or_default());
    let command = made["command"].as_str().unwrap_or_default();
    said(client, &format!("shown once. On the successor, as root:\n  {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_given_is_left_out_and_false_is_not() {
        let body = json!({ "a": null, "b": false, "c": { "d": null, "e": 1 } });
        assert_eq!(present(body), json!({ "b": false, "c": { "e": 1 } }));
    }

    #[test]
    fn a_label_is_key_and_value() {
        assert_eq!(pair("site=hill=1"), Ok(("site".to_owned(), "hill=1".to_owned())));
        assert!(pair("site").is_err());
    }

    #[test]
    fn a_label_has_one_value() {
        let pairs = |keys: [&str; 2]| keys.map(|k| (k.to_owned(), "x".to_owned())).to_vec();
        assert_eq!(labels(pairs(["site", "kind"])).unwrap().len(), 2);
        let refused = labels(pairs(["site", "site"])).unwrap_err().to_string();
        assert!(refused.contains("--label site is given twice"), "{refused}");
    }
}

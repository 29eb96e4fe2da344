//! `fleetgate device`: identity and tunnel.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, api_path};
use super::host::pages;
use super::host_args::{LabelChanges, LoginChange, Ssh, labels, pair};
use super::import;
use super::removal::{self, Along};
use super::table::{self, Column};
use crate::api::devices::Device;
use crate::cli::out;
use crate::data_dir::secret_file::ReservedFile;
use crate::names;

#[derive(Subcommand)]
pub(crate) enum DeviceCommand {
    /// Add a device and print its WireGuard configuration, which is not stored
    Add(AddArgs),
    /// Add many devices from a CSV file
    Import(import::ImportArgs),
    /// List devices
    List,
    /// Show keys, addresses and networks of one device
    Show {
        /// Name or id of the device
        device: String,
    },
    /// Change settings of a device. For checks and notifications see: fleetgate host set
    Set(SetArgs),
    /// Rename a device
    Rename {
        /// Name or id of the device
        device: String,
        /// The new name
        name: String,
    },
    /// Remove a device and end its tunnel; its history is kept
    Remove {
        /// Name or id of the device
        device: String,
        #[command(flatten)]
        along: Along,
    },
    /// Create a token for new hardware that takes over name, addresses and history
    Replace {
        /// Name or id of the device
        device: String,
        /// The new hardware needs approval by an operator
        #[arg(long)]
        approval: bool,
        /// Also during a rental, which the new hardware interrupts
        #[arg(long)]
        force: bool,
    },
    /// Give a device new keys; the present ones stop working at once
    Reissue {
        /// Name or id of the device
        device: String,
        /// The device's own new public key [default: the gateway generates a key pair]
        #[arg(long)]
        public_key: Option<String>,
        /// Print a QR code instead of text
        #[arg(long, conflicts_with = "out")]
        qr: bool,
        /// Write the configuration to a new file that only you can read
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
        /// Also during a rental, which the new keys interrupt
        #[arg(long)]
        force: bool,
    },
    /// Pin the SSH host key of a device
    Trust {
        /// Name or id of the device
        device: String,
        /// SHA256:..., a public key, or a line of known_hosts
        host_key: String,
    },
    /// Accept handshakes again from a device whose clock was set back
    ResetClock {
        /// Name or id of the device
        device: String,
    },
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Name of the new device
    name: String,
    /// Label, as key=value; may be repeated
    #[arg(long = "label", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Profile of its services [default: chosen by its labels]
    #[arg(long)]
    profile: Option<String>,
    /// The device's own WireGuard public key [default: the gateway generates a key pair]
    #[arg(long)]
    public_key: Option<String>,
    /// No tunnel: the device is checked by SSH at its --direct address
    #[arg(long, requires = "direct", conflicts_with_all = ["public_key", "qr"])]
    no_tunnel: bool,
    /// Its host name or address on the Internet
    #[arg(long, value_name = "HOST")]
    direct: Option<String>,
    /// Path of the checks: tunnel, direct or auto
    #[arg(long)]
    route: Option<String>,
    #[command(flatten)]
    ssh: Ssh,
    /// Largest packet inside the tunnel, from 1280 to 1420 bytes [default: as the gateway has it]
    #[arg(long, value_name = "BYTES", conflicts_with = "no_tunnel")]
    mtu: Option<u16>,
    /// Print a QR code instead of text
    #[arg(long, conflicts_with = "out")]
    qr: bool,
    /// Write the configuration to a new file that only you can read
    #[arg(long, value_name = "FILE", conflicts_with = "no_tunnel")]
    out: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Name or id of the device
    device: String,
    /// Network behind the device, such as 192.168.7.0/24; may be repeated, replaces the present list
    #[arg(long = "network", value_name = "PREFIX")]
    networks: Vec<String>,
    /// Remove all networks behind the device
    #[arg(long, conflicts_with = "networks")]
    no_networks: bool,
    /// Largest packet inside the tunnel, from 1280 to 1420 bytes; its configuration needs the same
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
    /// Path of the checks: tunnel, direct or auto
    #[arg(long)]
    route: Option<String>,
    /// Its host name or address on the Internet
    #[arg(long, value_name = "HOST")]
    direct: Option<String>,
    #[command(flatten)]
    labels: LabelChanges,
    #[command(flatten)]
    login: LoginChange,
}

impl SetArgs {
    /// Returns what changes, apart from labels.
    fn body(&self) -> Value {
        let networks = (!self.networks.is_empty() || self.no_networks).then_some(&self.networks);
        let mut body = present(json!({
            "networks": networks,
            "mtu": self.mtu,
            "route": self.route,
            "direct_address": self.direct,
        }));
        if let Some(ssh) = self.login.body() {
            body["ssh"] = ssh;
        }
        body
    }
}

pub(crate) async fn run(client: &Client, command: DeviceCommand) -> anyhow::Result<()> {
    match command {
        DeviceCommand::Add(args) => add(client, args).await,
        DeviceCommand::Import(args) => import::run(client, args).await,
        DeviceCommand::List => list(client).await,
        DeviceCommand::Show { device } => show(client, &device).await,
        DeviceCommand::Rename { device, name } => {
            client.patch(&api_path!("/devices/{}", device), &json!({ "name": name })).await?;
            said(client, &format!("{device} renamed to {name}"))
        }
        DeviceCommand::Remove { device, along } => remove(client, &device, along).await,
        DeviceCommand::Replace { device, approval, force } => {
            replace(client, &device, (approval, force)).await
        }
        DeviceCommand::Set(args) => set(client, args).await,
        DeviceCommand::Reissue { device, public_key, qr, out, yes, force } => {
            is_free(out.as_deref())?;
            if !yes {
                may_replace(client, &device).await?;
            }
            let place = reserve(out.as_deref()).context("nothing was changed")?;
            let body = present(json!({ "public_key": public_key, "force": force }));
            let made: Value = client.post(&api_path!("/devices/{}/credentials", device), &body).await?;
            credentials(client, &made, qr, out.as_deref().zip(place))
        }
        DeviceCommand::Trust { device, host_key } => {
            trust(client, &api_path!("/devices/{}", device), &device, &host_key).await
        }
        DeviceCommand::ResetClock { device } => {
            client
                .call(Method::POST, &api_path!("/devices/{}/reset-clock", device), Some(&json!({})))
                .await?;
            said(client, &format!("{device}: the next handshake is accepted, whatever its time"))
        }
    }
}

/// Pins the SSH host key of the device or host at this path.
pub(super) async fn trust(client: &Client, path: &str, name: &str, host_key: &str) -> anyhow::Result<()> {
    let body = json!({ "host_key": host_key });
    client.call(Method::POST, &format!("{path}/trust"), Some(&body)).await?;
    said(client, &format!("{name}: host key pinned"))
}

/// Asks a person at a terminal before a working configuration stops. A program has already decided.
async fn may_replace(client: &Client, device: &str) -> anyhow::Result<()> {
    // An unknown device is an error before the question.
    let found: Device = client.get(&api_path!("/devices/{}", device), &[]).await?;
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
    match removal::remove(client, &api_path!("/devices/{}", device), along).await? {
        None => said(client, "Nothing was removed"),
        Some(others) if others.is_empty() => {
            said(client, &format!("{device} removed; its tunnel has ended, its history is kept"))
        }
        Some(others) => {
            let others = removal::words(&others);
            said(client, &format!("{device} removed; its tunnel has ended, its history is kept; {others}"))
        }
    }
}

async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let path = api_path!("/devices/{}", args.device);
    let mut body = args.body();
    let before: Value = client.get(&path, &[]).await?;
    if let Some(labels) = args.labels.body(&args.device, &before["labels"])? {
        body["labels"] = labels;
    }
    anyhow::ensure!(
        body != json!({}),
        "nothing to change: give at least one option, see `fleetgate device set --help`"
    );
    let made = client.patch(&path, &body).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
    }
    said(client, &format!("{} changed", args.device))
}

/// Checks the file before any request.
pub(super) fn is_free(out: Option<&Path>) -> anyhow::Result<()> {
    match out.filter(|file| file.symlink_metadata().is_ok()) {
        Some(file) => anyhow::bail!("--out {}: the file exists already: choose another name", file.display()),
        None => Ok(()),
    }
}

/// Reserves the file. A key that cannot be stored is not generated.
pub(super) fn reserve(out: Option<&Path>) -> anyhow::Result<Option<ReservedFile>> {
    out.map(ReservedFile::reserve).transpose()
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
        "mtu": args.mtu,
    }));
    let place = reserve(args.out.as_deref()).context("nothing was added")?;
    let made: Value = client.post("/devices", &body).await?;
    credentials(client, &made, args.qr, args.out.as_deref().zip(place))
}

/// Writes only the configuration to the file or to stdout.
fn credentials(
    client: &Client,
    made: &Value,
    qr: bool,
    out: Option<(&Path, ReservedFile)>,
) -> anyhow::Result<()> {
    let conf = made["credentials"]["conf"].as_str();
    let name = made["device"]["name"].as_str().unwrap_or_default();
    if let (Some(conf), Some((out, place))) = (conf, out) {
        place.keep(conf).with_context(|| {
            format!("{name} was added; `fleetgate device reissue {name}` prints a new configuration")
        })?;
        let kept =
            format!("{name}: the configuration is in {}; the gateway does not store it", out.display());
        return said(client, &format!("{kept}{}", other_name(name, out)));
    }
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(made)?);
        return Ok(());
    }
    let Some(shown) = made.get("credentials").filter(|c| !c.is_null()) else {
        return said(client, &format!("{name} added without a tunnel; checks begin now"));
    };
    let next = print_conf(shown, qr, name);
    said(client, &format!("{name}: this configuration is not stored and not shown again. {next}"))
}

/// Prints a configuration to stdout. Returns what to do with it.
pub(super) fn print_conf(shown: &Value, qr: bool, name: &str) -> String {
    match shown["qr_text"].as_str().filter(|_| qr) {
        Some(code) => {
            out::line!("{code}");
            "Scan the code with the WireGuard app".to_owned()
        }
        None => {
            out::text!("{}", shown["conf"].as_str().unwrap_or_default());
            file_to_save(name)
        }
    }
}

/// `wg-quick` names the interface after the file.
fn file_to_save(name: &str) -> String {
    format!("For wg-quick, save it as {}", names::conf_file(name))
}

/// Returns what to do with a file that `wg-quick` refuses; nothing of any other.
pub(super) fn other_name(name: &str, out: &Path) -> String {
    if names::is_interface_file(out) {
        return String::new();
    }
    format!(
        ". wg-quick refuses file names of more than 15 characters: rename it to {}",
        names::conf_file(name)
    )
}

pub(super) const COLUMNS: [Column; 6] = [
    Column::whole("ID"),
    Column::name("NAME"),
    Column::whole("ADDRESS"),
    Column::name("PROFILE"),
    Column::whole("ROUTE"),
    Column::text("PUBLIC KEY"),
];

async fn list(client: &Client) -> anyhow::Result<()> {
    let devices: Vec<Device> = pages(client, "/devices", &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&devices)?);
        return Ok(());
    }
    table::print(&COLUMNS, devices.iter().map(row).collect());
    Ok(())
}

fn row(d: &Device) -> Vec<String> {
    let tunnel = d.tunnel.as_ref();
    // The first of its addresses is enough to recognise it; `device show` has all.
    let first = tunnel.and_then(|t| t.addresses.first()?.split('/').next());
    vec![
        d.id.clone(),
        table::safe(&d.name),
        first.or(d.direct_address.as_deref()).map_or("-".to_owned(), table::safe),
        own_profile(d.profile.as_deref()),
        d.route.clone(),
        tunnel.map_or("no tunnel".to_owned(), |t| t.public_key.clone()),
    ]
}

/// The inner MTU of a peer, for a person.
pub(super) fn mtu(own: Option<u16>) -> String {
    own.map_or_else(|| "the default (fleetgate gateway show)".to_owned(), |mtu| mtu.to_string())
}

/// The profile that a host names itself.
fn own_profile(own: Option<&str>) -> String {
    own.unwrap_or("by rules").to_owned()
}

async fn show(client: &Client, name: &str) -> anyhow::Result<()> {
    let d: Device = client.get(&api_path!("/devices/{}", name), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&d)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", table::safe(&d.name), d.id);
    if let Some(tunnel) = &d.tunnel {
        line("public key", &format!("{} (since {})", tunnel.public_key, tunnel.keyed_at));
        line("addresses", &tunnel.addresses.join(" "));
        line("networks", &if d.networks.is_empty() { "none".to_owned() } else { d.networks.join(" ") });
        line("MTU", &mtu(d.mtu));
        line(
            "allowed IPs",
            &tunnel.addresses.iter().chain(&d.networks).cloned().collect::<Vec<_>>().join(" "),
        );
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

async fn replace(client: &Client, device: &str, (approval, force): (bool, bool)) -> anyhow::Result<()> {
    let body = json!({ "needs_approval": approval, "force": force });
    let made: Value = client.post(&api_path!("/devices/{}/replacement", device), &body).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&made)?);
        return Ok(());
    }
    out::line!("{}", made["secret"].as_str().unwrap_or_default());
    let command = made["command"].as_str().unwrap_or_default();
    let hint = made["hint"].as_str().map(|hint| format!("\n{hint}")).unwrap_or_default();
    said(client, &format!("The token is not shown again. On the new hardware, as root:\n  {command}{hint}"))
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
    fn the_user_of_checks_is_removed_and_is_never_called_none() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            set: SetArgs,
        }
        let parsed = |line: &str| <Line as clap::Parser>::try_parse_from(line.split(' '));
        let body = |line: &str| parsed(line).ok().map(|line| line.set.body());
        assert_eq!(body("set cam --no-ssh-user"), Some(json!({ "ssh": { "user": null } })));
        assert_eq!(body("set cam --ssh-user ops"), Some(json!({ "ssh": { "user": "ops" } })));
        assert!(body("set cam --ssh-user ops --no-ssh-user").is_none());
        let refused = parsed("set cam --ssh-user none").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(refused.contains("--no-ssh-user"), "{refused}");
    }

    #[test]
    fn a_file_that_wg_quick_refuses_gets_another_name() {
        let out = |file| other_name("bridge-north-camera-07", Path::new(file));
        assert_eq!(out("conf/fleet0.conf"), "");
        assert!(out("bridge-north-camera-07.conf").ends_with("rename it to bridge-north-ca.conf"));
        assert!(file_to_save("cam-07").ends_with("save it as cam-07.conf"));
    }
}

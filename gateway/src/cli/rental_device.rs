//! `fleetgate rental device`: how a device is rented.

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use super::device::present;
use super::grant::{self, AccessArgs};
use super::table;
use super::token::span;
use crate::api::rentals::{DeviceRentalSettings, HandoverGate};
use crate::cli::out;

#[derive(Args)]
pub(crate) struct DeviceArgs {
    /// Name or id of the device
    device: String,
    /// Let it be booked
    #[arg(long, conflicts_with = "not_rentable")]
    rentable: bool,
    /// Do not let it be booked any more; its rentals stay
    #[arg(long)]
    not_rentable: bool,
    /// Time that it needs before a rental, such as 1h
    #[arg(long, value_name = "TIME")]
    preparation: Option<String>,
    /// Time that it needs after a rental, such as 30m
    #[arg(long, value_name = "TIME")]
    turnaround: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Let renters reach nothing of it
    #[arg(long, conflicts_with_all = ["tcp", "udp", "icmp"])]
    no_access: bool,
    /// Set it ready to be handed over
    #[arg(long, conflicts_with = "not_ready")]
    ready: bool,
    /// Set it not ready, for this reason; rentals that begin are delayed
    #[arg(long, value_name = "REASON")]
    not_ready: Option<String>,
    /// Hand it over once it is up and its services are OK
    #[arg(long)]
    gate: bool,
    /// Require only this service to be OK; repeat it for more
    #[arg(long, value_name = "SERVICE")]
    gate_service: Vec<String>,
    /// Time for which they must be OK, such as 10m
    #[arg(long, value_name = "TIME")]
    gate_for: Option<String>,
    /// Hand it over without regard to its services
    #[arg(long, conflicts_with_all = ["gate", "gate_service", "gate_for"])]
    no_gate: bool,
    /// Send it to the renters of each rental; dispatch and return note its way
    #[arg(long, conflicts_with = "mounted")]
    shipped: bool,
    /// Keep it in its place
    #[arg(long)]
    mounted: bool,
    /// Account for renters, as enrol.sh --rental-user set it up
    #[arg(long, value_name = "USER", conflicts_with = "no_ssh_account")]
    ssh_account: Option<String>,
    /// Have no account for renters
    #[arg(long)]
    no_ssh_account: bool,
    /// The account can become root: ask for new keys after each rental
    #[arg(long, conflicts_with = "no_ssh_root")]
    ssh_root: bool,
    /// The account cannot become root
    #[arg(long)]
    no_ssh_root: bool,
    /// Run this command on the device after each rental, for 10m at most
    #[arg(long, value_name = "CMD", conflicts_with = "no_cleaning_command")]
    cleaning_command: Option<String>,
    /// Run no command after rentals
    #[arg(long)]
    no_cleaning_command: bool,
}

/// Returns a changed setting. `None`: it stays; `null`: there is none.
fn changed(given: Option<&String>, is_dropped: bool) -> Option<Value> {
    (given.is_some() || is_dropped).then(|| json!(given))
}

/// Returns the changed gate. `None`: it stays; `null`: there is none.
fn gate(args: &DeviceArgs, before: Option<&HandoverGate>) -> anyhow::Result<Option<Value>> {
    if args.no_gate {
        return Ok(Some(Value::Null));
    }
    if !args.gate && args.gate_service.is_empty() && args.gate_for.is_none() {
        return Ok(None);
    }
    // Options that are not given keep what they set; `--gate` alone is all services.
    let kept = before.filter(|_| !args.gate).and_then(|gate| gate.services.clone());
    let services = Some(args.gate_service.clone()).filter(|named| !named.is_empty()).or(kept);
    let ok_for = match &args.gate_for {
        Some(text) => Some(span("--gate-for", text)?.as_secs_f64()),
        None => before.map(|gate| gate.ok_for_s),
    };
    Ok(Some(present(json!({ "services": services, "ok_for_s": ok_for }))))
}

pub(super) async fn run(client: &Client, args: DeviceArgs) -> anyhow::Result<()> {
    let path = api_path!("/devices/{}/rental-settings", args.device);
    let before: DeviceRentalSettings = client.get(&path, &[]).await?;
    let seconds = |option: &str, text: &Option<String>, before: f64| -> anyhow::Result<f64> {
        text.as_deref().map_or(Ok(before), |text| Ok(span(option, text)?.as_secs_f64()))
    };
    let rentable = match (args.rentable, args.not_rentable) {
        (true, _) => true,
        (_, true) => false,
        _ => before.rentable,
    };
    let access = if args.no_access { Some(Vec::new()) } else { args.access.given() };
    let gate = gate(&args, before.gate.as_ref())?;
    let delivery = args.shipped.then_some("shipped").or(args.mounted.then_some("mounted"));
    let account = changed(args.ssh_account.as_ref(), args.no_ssh_account);
    let cleaning = changed(args.cleaning_command.as_ref(), args.no_cleaning_command);
    let ssh_root = args.ssh_root.then_some(true).or(args.no_ssh_root.then_some(false));
    let is_change = account.is_some()
        || cleaning.is_some()
        || ssh_root.is_some()
        || args.rentable
        || args.not_rentable
        || args.preparation.is_some()
        || args.turnaround.is_some()
        || access.is_some()
        || args.ready
        || args.not_ready.is_some()
        || gate.is_some()
        || delivery.is_some();
    let ready = args.ready.then_some(true).or(args.not_ready.as_ref().map(|_| false));
    let mut body = present(json!({
        "rentable": rentable,
        "preparation_s": seconds("--preparation", &args.preparation, before.preparation_s)?,
        "turnaround_s": seconds("--turnaround", &args.turnaround, before.turnaround_s)?,
        "access": access, "ready": ready, "not_ready_reason": args.not_ready, "delivery": delivery, "ssh_root": ssh_root,
    }));
    for (key, value) in [("gate", gate), ("ssh_account", account), ("cleaning_command", cleaning)] {
        if let Some(value) = value {
            body[key] = value;
        }
    }
    let after: DeviceRentalSettings = match is_change {
        true => serde_json::from_value(client.put(&path, &body, Some(before.version)).await?)?,
        false => before,
    };
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&after)?);
        return Ok(());
    }
    let state = if after.rentable { "rentable" } else { "not rentable" };
    let line = |key: &str, seconds: f64| out::line!("  {key:<12}{seconds} s");
    out::line!("{}  {state}", table::safe(&after.device_name));
    line("preparation", after.preparation_s);
    line("turnaround", after.turnaround_s);
    let access = grant::access(&after.access);
    out::line!("  {:<12}{}", "access", if access.is_empty() { "nothing" } else { &access });
    let not_ready = after.not_ready_reason.as_deref().map(|reason| format!("no: {}", table::safe(reason)));
    out::line!("  {:<12}{}", "ready", not_ready.as_deref().unwrap_or("yes"));
    out::line!("  {:<12}{}", "delivery", after.delivery);
    out::line!("  {:<12}{}", "gate", after.gate.as_ref().map_or_else(|| "none".to_owned(), gate_in_words));
    if let Some(account) = &after.ssh_account {
        let mode = after.ssh_mode.as_deref().unwrap_or("not asked yet");
        let root = if after.ssh_root { ", can become root" } else { "" };
        out::line!("  {:<12}{} ({}{root})", "ssh account", table::safe(account), table::safe(mode));
    }
    if let Some(command) = &after.cleaning_command {
        out::line!("  {:<12}{}", "cleaning", table::safe(command));
    }
    Ok(())
}

/// Formats `ssh, disk OK for 300 s`.
fn gate_in_words(gate: &HandoverGate) -> String {
    let services = gate.services.as_ref().map(|names| table::safe(&names.join(", ")));
    let services = services.unwrap_or_else(|| "all services".to_owned());
    format!("{services} OK for {} s", gate.ok_for_s)
}

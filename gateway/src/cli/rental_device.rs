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

/// The settings that a profile may say too, and all of them.
const OF_PROFILE: [&str; 8] =
    ["preparation", "turnaround", "access", "gate", "delivery", "ssh-root", "cleaning-command", "all"];

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
    /// Hand it over once it is up and its services are OK [default: for 5m]
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
    /// Leave this setting to the profile, or all; repeat it for more
    #[arg(long, value_name = "SETTING", value_parser = OF_PROFILE, hide_possible_values = true)]
    from_profile: Vec<String>,
}

impl DeviceArgs {
    /// Returns the fields of the settings that are left to the profile.
    fn left_to_profile(&self) -> Vec<String> {
        let names = OF_PROFILE.into_iter().filter(|name| *name != "all");
        let is_left = |name: &&str| self.from_profile.iter().any(|left| left == name || left == "all");
        names.filter(is_left).map(field).collect()
    }

    /// Returns the settings that are none, whatever the profile says.
    fn without(&self) -> Vec<&'static str> {
        let dropped = [(self.no_gate, "gate"), (self.no_cleaning_command, "cleaning_command")];
        dropped.into_iter().filter(|(is_dropped, _)| *is_dropped).map(|(_, name)| name).collect()
    }
}

/// Returns the field of a setting in the API.
fn field(name: &str) -> String {
    match name {
        "preparation" | "turnaround" => format!("{name}_s"),
        name => name.replace('-', "_"),
    }
}

/// Returns the changed account. `None`: it stays; `null`: there is none.
fn changed(given: Option<&String>, is_dropped: bool) -> Option<Value> {
    (given.is_some() || is_dropped).then(|| json!(given))
}

/// Returns the changed gate. `None`: it stays.
fn gate(args: &DeviceArgs, before: Option<&HandoverGate>) -> anyhow::Result<Option<Value>> {
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
    let left = args.left_to_profile();
    // A time that is absent is left to the profile.
    let seconds = |name: &str, text: &Option<String>, before_s: f64| -> anyhow::Result<Option<f64>> {
        let (field, is_own) = (field(name), origin(&before, &field(name)) == "device");
        match text {
            Some(text) => Ok(Some(span(&format!("--{name}"), text)?.as_secs_f64())),
            None => Ok(Some(before_s).filter(|_| is_own && !left.contains(&field))),
        }
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
    let without = args.without();
    let ssh_root = args.ssh_root.then_some(true).or(args.no_ssh_root.then_some(false));
    let is_change = account.is_some()
        || args.cleaning_command.is_some()
        || !without.is_empty()
        || !left.is_empty()
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
        "preparation_s": seconds("preparation", &args.preparation, before.preparation_s)?,
        "turnaround_s": seconds("turnaround", &args.turnaround, before.turnaround_s)?,
        "access": access, "ready": ready, "not_ready_reason": args.not_ready, "delivery": delivery, "ssh_root": ssh_root,
        "gate": gate, "cleaning_command": args.cleaning_command, "without": without,
    }));
    if let Some(account) = account {
        body["ssh_account"] = account;
    }
    for field in &left {
        let is_given = body.get(field).is_some() || without.contains(&field.as_str());
        anyhow::ensure!(!is_given, "{field}: set it, or leave it to the profile with --from-profile");
        body[field] = Value::Null;
    }
    let after: DeviceRentalSettings = match is_change {
        true => serde_json::from_value(client.put(&path, &body, Some(before.version)).await?)?,
        false => before,
    };
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&after)?);
        return Ok(());
    }
    show(&after);
    Ok(())
}

/// Returns what decides about a setting: `device`, `profile` or `default`.
fn origin<'a>(settings: &'a DeviceRentalSettings, field: &str) -> &'a str {
    settings.origins.get(field).map_or("device", String::as_str)
}

fn show(settings: &DeviceRentalSettings) {
    let state = if settings.rentable { "rentable" } else { "not rentable" };
    out::line!("{}  {state}", table::safe(&settings.device_name));
    // Own settings are the rule.
    let from = |name: &str| match origin(settings, &field(name)) {
        "device" => String::new(),
        other => format!("  ({})", table::safe(other)),
    };
    let line = |name: &str, value: &str| out::line!("  {name:<12}{value}{}", from(name));
    line("preparation", &format!("{} s", settings.preparation_s));
    line("turnaround", &format!("{} s", settings.turnaround_s));
    let access = grant::access(&settings.access);
    line("access", if access.is_empty() { "nothing" } else { &access });
    let not_ready = settings.not_ready_reason.as_deref().map(|reason| format!("no: {}", table::safe(reason)));
    out::line!("  {:<12}{}", "ready", not_ready.as_deref().unwrap_or("yes"));
    line("delivery", &settings.delivery);
    line("gate", &settings.gate.as_ref().map_or_else(|| "none".to_owned(), gate_in_words));
    if let Some(lacked) = lacked_in_words(&settings.gate_lacks) {
        out::line!("  {:<12}{lacked}", "");
    }
    if let Some(account) = &settings.ssh_account {
        let mode = settings.ssh_mode.as_deref().unwrap_or("not asked yet");
        let root = if settings.ssh_root { ", can become root" } else { "" };
        let account = format!("{} ({}{root})", table::safe(account), table::safe(mode));
        out::line!("  {:<12}{account}{}", "ssh account", from("ssh-root"));
    }
    if let Some(command) = &settings.cleaning_command {
        out::line!("  {:<12}{}{}", "cleaning", table::safe(command), from("cleaning-command"));
    }
}

/// Formats `the device has no service ssh, disk: it is not handed over`. `None`: it has what its gate names.
fn lacked_in_words(lacked: &[String]) -> Option<String> {
    let names = Some(lacked.join(", ")).filter(|names| !names.is_empty())?;
    Some(format!("the device has no service {}: it is not handed over", table::safe(&names)))
}

/// Says of a service that was switched off that a device is not handed over without it; empty for any other. What the
/// caller may not read it need not know.
pub(super) async fn warning_of_gate(client: &Client, host: &str, service: &str) -> String {
    let path = api_path!("/devices/{}/rental-settings", host);
    let found: Option<DeviceRentalSettings> = client.get(&path, &[]).await.ok();
    let is_lacked =
        found.is_some_and(|found| found.rentable && found.gate_lacks.iter().any(|s| s == service));
    match is_lacked {
        true => format!("; its gate names {service}, so the device is not handed over to renters"),
        false => String::new(),
    }
}

/// Formats `ssh, disk OK for 300 s`.
pub(super) fn gate_in_words(gate: &HandoverGate) -> String {
    let services = gate.services.as_ref().map(|names| table::safe(&names.join(", ")));
    let services = services.unwrap_or_else(|| "all services".to_owned());
    format!("{services} OK for {} s", gate.ok_for_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_that_a_gate_waits_for_in_vain_are_named() {
        let words = |lacked: &[&str]| {
            let lacked: Vec<String> = lacked.iter().map(|name| (*name).to_owned()).collect();
            lacked_in_words(&lacked)
        };
        assert_eq!(words(&[]), None);
        let both = "the device has no service ssh, disk: it is not handed over";
        assert_eq!(words(&["ssh", "disk"]).as_deref(), Some(both));
    }
}

//! `fleetgate rental`: devices in windows of time, and which devices are rented.

mod blocks;
#[cfg(test)]
mod tests;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::booking::Times;
use super::client::{Client, api_path};
use super::customer::printed;
use super::device::{present, said};
use super::grant::{self, AccessArgs, moment};
use super::host::pages;
use super::host_args::pair;
use super::rental_contacts;
use super::rental_device::{self, DeviceArgs};
use super::rental_events::{self, RentalEventsArgs};
use super::rental_limits::{self, RentalLimits};
use super::rental_maintenance;
use super::rental_report;
use super::rental_ssh::{self, RentalSshArgs};
use super::size;
use super::table::{self, Column};
use super::token::span;
use crate::api::rentals::{DeviceAvailability, Rental, RentalContact, RentalMaintenance};
use crate::cli::out;
use blocks::{BlockArgs, block};

#[derive(Subcommand)]
pub(crate) enum RentalCommand {
    /// List rentals
    List(Box<ListArgs>),
    /// Show one rental
    Show {
        /// Id of the rental
        rental: String,
    },
    /// Show the report of a rental: times, changes, availability and traffic
    Report {
        /// Id of the rental
        rental: String,
    },
    /// Show how renters log in to the device of a rental, with certificates
    Ssh(RentalSshArgs),
    /// Change the end, device, name, access, SSH, allowance, contacts, limits or
    /// maintenance of a rental
    #[command(
        group(clap::ArgGroup::new("change").required(true).multiple(true).args(["tcp", "udp", "icmp", "warn", "crit"])),
        override_usage = "fleetgate rental set [OPTIONS] <RENTAL>"
    )]
    Set(Box<SetArgs>),
    /// Cancel a rental that has not begun
    Cancel {
        /// Id of the rental
        rental: String,
    },
    /// End a rental that has begun
    End {
        /// Id of the rental
        rental: String,
        /// Reason: ended, returned_early, no_show, revoked or failed
        #[arg(long, default_value = "ended")]
        reason: String,
        /// Note for people
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
    /// Hand the device of a delayed rental over by hand
    HandOver {
        /// Id of the rental
        rental: String,
        /// Hand it over although its gate is shut
        #[arg(long, required = true)]
        force: bool,
        /// Reason, for the event log
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Note that a shipped device leaves for its renters
    Dispatch {
        /// Id of the rental
        rental: String,
    },
    /// Note that a shipped device is back
    Return {
        /// Id of the rental
        rental: String,
    },
    /// Show the events of rentals, the oldest first
    Events(RentalEventsArgs),
    /// Show when rentable devices are free
    Free {
        #[command(flatten)]
        at: Times,
        /// Only devices with this label
        #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
        label: Vec<(String, String)>,
        /// Only devices with this profile
        #[arg(long, value_name = "PROFILE")]
        profile: Option<String>,
    },
    /// Show or set how a device is rented
    Device(Box<DeviceArgs>),
    /// Keep a device from being booked
    Block(Box<BlockArgs>),
    /// List the blocks of a device
    Blocks {
        /// Name or id of the device
        device: String,
    },
    /// End a block
    Unblock {
        /// Name or id of the device
        device: String,
        /// Id of the block
        block: String,
    },
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Only those of the booking with this reference
    #[arg(long = "ref", value_name = "REF")]
    external_ref: Option<String>,
    /// Only those of this device
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only those of this customer (id or reference)
    #[arg(long, value_name = "CUSTOMER")]
    customer: Option<String>,
    /// Only those in this state, such as active
    #[arg(long)]
    state: Option<String>,
    /// Only those whose window ends after this time
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only those whose window begins before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
}

#[derive(Args)]
pub(crate) struct SetArgs {
    /// Id of the rental
    rental: String,
    /// New end, as RFC 3339 with an offset
    #[arg(long, value_name = "TIME", group = "change")]
    until: Option<String>,
    /// Device that takes the place of the present one
    #[arg(long, value_name = "DEVICE", group = "change")]
    device: Option<String>,
    /// New name of the device for the renters
    #[arg(long, group = "change")]
    name: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Let the renters log in to the device's account for renters
    #[arg(long, group = "change", conflicts_with = "no_ssh")]
    ssh: bool,
    /// End the logins of renters to that account
    #[arg(long, group = "change")]
    no_ssh: bool,
    /// Admit only this renter (id); repeat it for more
    #[arg(long, value_name = "RENTER", group = "change", conflicts_with = "all_renters")]
    renter: Vec<String>,
    /// Admit all renters of the customer, also those added later
    #[arg(long, group = "change")]
    all_renters: bool,
    /// Bytes that renters may send and receive, from the begin on, such as 10GB
    #[arg(long, value_name = "SIZE", group = "change", value_parser = size::parse)]
    allowance: Option<u64>,
    /// Set no limit for the bytes of renters
    #[arg(long, group = "change", conflicts_with = "allowance")]
    no_allowance: bool,
    /// Cut the renters off when the allowance is used
    #[arg(long, group = "change", conflicts_with = "no_allowance")]
    cut_at_allowance: bool,
    /// Let the renters go on when the allowance is used
    #[arg(long, group = "change", conflicts_with = "cut_at_allowance")]
    no_cut_at_allowance: bool,
    /// Use another device with the same labels after this delay, such as 10m
    #[arg(long, value_name = "TIME", group = "change")]
    other_device_after: Option<String>,
    /// Use no other device when the rental is delayed
    #[arg(long, group = "change", conflicts_with = "other_device_after")]
    no_other_device: bool,
    /// Contact for problems of the device, as NAME=MAIL or MAIL, in place of the
    /// present contacts; repeat it for more
    #[arg(long, value_name = "CONTACT", group = "change", value_parser = rental_contacts::parse)]
    contact: Vec<RentalContact>,
    /// Send no mail about problems of the device
    #[arg(long, group = "change", conflicts_with = "contact")]
    no_contacts: bool,
    #[command(flatten)]
    limits: RentalLimits,
    /// Leave the services of the device with their own limits
    #[arg(long, group = "change", conflicts_with_all = ["warn", "crit"])]
    no_limits: bool,
    /// Maintenance of the device within the rental, as FROM/UNTIL or
    /// FROM/UNTIL=COMMENT, in place of what is planned; repeat it for more
    #[arg(long, value_name = "TIMES", group = "change", value_parser = rental_maintenance::parse)]
    maintenance: Vec<RentalMaintenance>,
    /// Plan no maintenance
    #[arg(long, group = "change", conflicts_with = "maintenance")]
    no_maintenance: bool,
}

pub(crate) async fn run(client: &Client, command: RentalCommand) -> anyhow::Result<()> {
    match command {
        RentalCommand::List(args) => list(client, *args).await,
        RentalCommand::Show { rental } => {
            show(client, &client.get(&api_path!("/rentals/{}", rental), &[]).await?)
        }
        RentalCommand::Report { rental } => rental_report::run(client, &rental).await,
        RentalCommand::Ssh(args) => rental_ssh::run(client, args).await,
        RentalCommand::Set(args) => set(client, *args).await,
        RentalCommand::Cancel { rental } => {
            let gone: Value = client.post(&api_path!("/rentals/{}/cancel", rental), &json!({})).await?;
            printed(client, &gone)?;
            said(client, &format!("Rental {rental} cancelled; its device is free"))
        }
        RentalCommand::End { rental, reason, note } => {
            let body = present(json!({ "reason": reason, "note": note }));
            let ended: Value = client.post(&api_path!("/rentals/{}/end", rental), &body).await?;
            printed(client, &ended)?;
            said(client, &format!("Rental {rental} ended"))
        }
        RentalCommand::HandOver { rental, force, reason } => {
            let body = json!({ "force": force, "reason": reason });
            let done: Value = client.post(&api_path!("/rentals/{}/hand-over", rental), &body).await?;
            printed(client, &done)?;
            said(client, &format!("Rental {rental}: the device is handed over"))
        }
        RentalCommand::Dispatch { rental } => ship(client, &rental, ("dispatch", "is on its way")).await,
        RentalCommand::Return { rental } => ship(client, &rental, ("return", "is back")).await,
        RentalCommand::Events(args) => rental_events::run(client, args).await,
        RentalCommand::Free { at, label, profile } => free(client, &at, (label, profile)).await,
        RentalCommand::Device(args) => rental_device::run(client, *args).await,
        RentalCommand::Block(args) => block(client, *args).await,
        RentalCommand::Blocks { device } => blocks::blocks(client, &device).await,
        RentalCommand::Unblock { device, block } => {
            client.delete(&api_path!("/devices/{}/blocks/{}", device, block), None).await?;
            said(client, &format!("Block {block} ended"))
        }
    }
}

/// Calls what notes the way of a shipped device.
async fn ship(client: &Client, rental: &str, (call, what): (&str, &str)) -> anyhow::Result<()> {
    let changed: Value = client.post(&api_path!("/rentals/{}/{}", rental, call), &json!({})).await?;
    printed(client, &changed)?;
    let after: Rental = serde_json::from_value(changed)?;
    said(client, &format!("Rental {rental}: {} {what}", table::safe(&after.device_name)))
}

/// Formats a time in a zone, or else in UTC.
pub(super) fn clock(time: &str, zone: Option<&str>) -> String {
    let zone = zone.and_then(|name| TimeZone::get(name).ok());
    match (time.parse::<Timestamp>(), zone) {
        (Ok(at), Some(zone)) => at.to_zoned(zone).strftime("%Y-%m-%d %H:%M %Z").to_string(),
        _ => table::minute(time),
    }
}

/// Formats `from 2026-03-10 14:00 CET until 2026-03-12 18:00 CET`.
pub(super) fn window(from: &str, until: &str, zone: Option<&str>) -> String {
    format!("from {} until {}", clock(from, zone), clock(until, zone))
}

pub(super) const COLUMNS: [Column; 6] = [
    Column::whole("ID"),
    Column::whole("STATE"),
    Column::name("DEVICE"),
    Column::whole("FROM"),
    Column::whole("UNTIL"),
    Column::name("REF").optional(),
];

async fn list(client: &Client, args: ListArgs) -> anyhow::Result<()> {
    let time = |option: &str, text: Option<String>| -> anyhow::Result<Option<String>> {
        text.map(|text| Ok(moment(option, &text)?.to_string())).transpose()
    };
    let all = [
        ("external_ref", args.external_ref),
        ("device", args.device),
        ("customer", args.customer),
        ("state", args.state),
        ("from", time("--from", args.from)?),
        ("to", time("--to", args.to)?),
    ];
    let query: Vec<_> = all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let rentals: Vec<Rental> = pages(client, "/rentals", &query).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&rentals)?);
        return Ok(());
    }
    if rentals.is_empty() {
        return said(client, "No rentals");
    }
    table::print(&COLUMNS, rentals.iter().map(row).collect());
    Ok(())
}

fn row(r: &Rental) -> Vec<String> {
    vec![
        r.id.clone(),
        r.state.clone(),
        table::safe(&r.device_name),
        clock(&r.from, r.time_zone.as_deref()),
        clock(r.ended_at.as_deref().unwrap_or(&r.until), r.time_zone.as_deref()),
        table::safe(r.external_ref.as_deref().unwrap_or_default()),
    ]
}

fn show(client: &Client, r: &Rental) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(r)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    let zone = r.time_zone.as_deref();
    out::line!("{}  {}", r.state, r.id);
    line("device", &format!("{} ({})", r.device_name, r.device));
    if let Some(after) = r.other_device_after_s {
        line("or another", &format!("of the same selection, when it is delayed for {after} s"));
    }
    line("name", &r.name);
    line("address", &r.addresses.join(" "));
    line("access", &grant::access(&r.access));
    if r.ssh {
        line("SSH", &format!("fleetgate rental ssh {}", r.id));
    }
    line("renters", &renters(r));
    line("forwarded", &forwarded(r));
    line("contacts", &contacts(r));
    for threshold in &r.thresholds {
        line("limit", &rental_limits::words(threshold));
    }
    line("window", &window(&r.from, &r.until, zone));
    for planned in &r.maintenance {
        line("maintenance", &rental_maintenance::words(planned, zone));
    }
    if let Some(until) = &r.occupied_until {
        line("occupied", &window(&r.occupied_from, until, zone));
    }
    for delay in &r.delayed {
        line("delayed", &delay.text);
    }
    let times = [
        ("dispatched", &r.dispatched_at),
        ("arrived", &r.first_contact_at),
        ("handed over", &r.handed_over_at),
        ("returned", &r.returned_at),
    ];
    for (key, at) in times {
        if let Some(at) = at {
            line(key, &clock(at, zone));
        }
    }
    line("booking", &r.booking);
    line("reference", r.external_ref.as_deref().unwrap_or("none"));
    line("customer", &r.customer);
    if let Some(at) = &r.ended_at {
        let reason = end_reason(r.end_reason.as_deref(), &[r.state.as_str(), "ended"]);
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        let note = r.end_note.as_deref().map(|note| format!(": {note}")).unwrap_or_default();
        line("ended", &format!("{}{reason}{note}", clock(at, zone)));
    }
    Ok(())
}

/// Says why a rental ended, unless the words beside it say the same: `cancelled`, not `cancelled (cancelled)`.
pub(super) fn end_reason(reason: Option<&str>, said: &[&str]) -> Option<String> {
    reason.filter(|reason| !said.contains(reason)).map(|reason| reason.replace('_', " "))
}

fn renters(r: &Rental) -> String {
    match r.renters.as_deref() {
        None => "all of the customer".to_owned(),
        Some([]) => "none".to_owned(),
        Some(renters) => renters.join(" "),
    }
}

fn contacts(r: &Rental) -> String {
    let contacts: Vec<String> = r.contacts.iter().map(rental_contacts::words).collect();
    if contacts.is_empty() { "none".to_owned() } else { contacts.join(", ") }
}

/// Formats `8.1 GB of 10.0 GB (81 %), cut off there`.
fn forwarded(r: &Rental) -> String {
    let bytes = table::bytes(r.forwarded_bytes);
    let Some(allowance) = r.allowance_bytes else { return bytes };
    let percent = u128::from(r.forwarded_bytes) * 100 / u128::from(allowance.max(1));
    let cut = if r.cut_at_allowance { ", cut off there" } else { "" };
    format!("{bytes} of {} ({percent} %){cut}", table::bytes(allowance))
}

async fn set(client: &Client, args: SetArgs) -> anyhow::Result<()> {
    let SetArgs { rental, until, device, name, access, renter, all_renters, allowance, .. } = args;
    let cut = args.cut_at_allowance.then_some(true).or(args.no_cut_at_allowance.then_some(false));
    let ssh = args.ssh.then_some(true).or(args.no_ssh.then_some(false));
    let until = until.map(|text| moment("--until", &text)).transpose()?;
    let other_after = args.other_device_after.as_deref();
    let other_after = other_after.map(|text| span("--other-device-after", text)).transpose()?;
    let renters = Some(renter).filter(|renters| !renters.is_empty());
    let contacts = (args.no_contacts || !args.contact.is_empty()).then_some(args.contact);
    let limits = args.limits.given().or(args.no_limits.then(Vec::new));
    let maintenance = (args.no_maintenance || !args.maintenance.is_empty()).then_some(args.maintenance);
    let mut body = present(json!({
        "until": until.map(|at| at.to_string()), "device": device, "name": name, "access": access.given(),
        "renters": renters, "allowance_bytes": allowance, "cut_at_allowance": cut, "ssh": ssh,
        "other_device_after_s": other_after.map(|after| after.as_secs_f64()), "contacts": contacts,
        "thresholds": limits, "maintenance": maintenance,
    }));
    for (field, is_given) in [
        ("renters", all_renters),
        ("allowance_bytes", args.no_allowance),
        ("other_device_after_s", args.no_other_device),
    ] {
        if is_given {
            body[field] = Value::Null;
        }
    }
    let changed = client.patch(&api_path!("/rentals/{}", rental), &body).await?;
    printed(client, &changed)?;
    let after: Rental = serde_json::from_value(changed)?;
    let when = window(&after.from, &after.until, after.time_zone.as_deref());
    said(client, &format!("Rental {rental} changed: {} {when}", table::safe(&after.device_name)))
}

const FREE: [Column; 3] = [Column::name("DEVICE"), Column::whole("FREE FROM"), Column::whole("UNTIL")];

async fn free(
    client: &Client,
    at: &Times,
    (label, profile): (Vec<(String, String)>, Option<String>),
) -> anyhow::Result<()> {
    let (from, until) = at.body(table::now())?;
    let Some(until) = until else { anyhow::bail!("give until when you look: --until TIME or --for TIME") };
    let mut query = vec![("to", until)];
    query.extend(from.map(|from| ("from", from)));
    query.extend(label.into_iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    query.extend(profile.map(|profile| ("profile", profile)));
    let devices: Vec<DeviceAvailability> = pages(client, "/rentals/availability", &query).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&devices)?);
        return Ok(());
    }
    let windows = |device: &DeviceAvailability| -> Vec<Vec<String>> {
        let name = table::safe(&device.device_name);
        let row = |free: &crate::api::rentals::FreeWindow| {
            vec![name.clone(), table::minute(&free.from), table::minute(&free.until)]
        };
        device.free.iter().map(row).collect()
    };
    let rows: Vec<Vec<String>> = devices.iter().flat_map(windows).collect();
    if rows.is_empty() {
        return said(client, "No rentable device is free then");
    }
    table::print(&FREE, rows);
    Ok(())
}

//! `fleetgate rental`: devices in windows of time, and which devices are rented.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use reqwest::Method;
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
use crate::api::rentals::{DeviceAvailability, DeviceBlock, Rental, RentalContact, RentalMaintenance};
use crate::cli::out;

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

#[derive(Args)]
pub(crate) struct BlockArgs {
    /// Name or id of the device
    device: String,
    /// Reason, for people
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    at: Times,
    /// Also cover rentals: they stay, and their renters reach nothing meanwhile
    #[arg(long)]
    force: bool,
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
            let done: Value = client.post(&format!("/rentals/{rental}/hand-over"), &body).await?;
            printed(client, &done)?;
            said(client, &format!("Rental {rental}: the device is handed over"))
        }
        RentalCommand::Dispatch { rental } => ship(client, &rental, ("dispatch", "is on its way")).await,
        RentalCommand::Return { rental } => ship(client, &rental, ("return", "is back")).await,
        RentalCommand::Events(args) => rental_events::run(client, args).await,
        RentalCommand::Free { at, label, profile } => free(client, &at, (label, profile)).await,
        RentalCommand::Device(args) => rental_device::run(client, *args).await,
        RentalCommand::Block(args) => block(client, *args).await,
        RentalCommand::Blocks { device } => blocks(client, &device).await,
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

const COLUMNS: [Column; 6] = [
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

async fn block(client: &Client, args: BlockArgs) -> anyhow::Result<()> {
    let (from, until) = args.at.body(table::now())?;
    let force = args.force.then_some(true);
    let body = present(json!({ "from": from, "until": until, "reason": args.reason, "force": force }));
    let made = client.write(Method::POST, &api_path!("/devices/{}/blocks", args.device), &body, None).await?;
    printed(client, &made)?;
    let block: DeviceBlock = serde_json::from_value(made)?;
    let until = block.until.as_deref().map(|until| format!(" until {}", table::minute(until)));
    let over = match block.rentals.as_slice() {
        [] => String::new(),
        rentals => format!("; it covers {}", rentals.join(" ")),
    };
    let name = table::safe(&block.device_name);
    let from = table::minute(&block.from);
    said(client, &format!("Block {}: {name} from {from}{}{over}", block.id, until.unwrap_or_default()))
}

const BLOCKS: [Column; 4] =
    [Column::whole("ID"), Column::whole("FROM"), Column::whole("UNTIL"), Column::text("REASON")];

async fn blocks(client: &Client, device: &str) -> anyhow::Result<()> {
    let blocks: Vec<DeviceBlock> = pages(client, &api_path!("/devices/{}/blocks", device), &[]).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&blocks)?);
        return Ok(());
    }
    if blocks.is_empty() {
        return said(client, "No blocks");
    }
    let row = |b: &DeviceBlock| {
        let end = b.ended_at.as_deref().or(b.until.as_deref());
        let end = end.map_or("unblocked".to_owned(), table::minute);
        vec![b.id.clone(), table::minute(&b.from), end, table::safe(&b.reason)]
    };
    table::print(&BLOCKS, blocks.iter().map(row).collect());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::booking::{self, BookingCommand};
    use super::*;
    use crate::api::rentals::{Booking, DeviceRentalSettings};

    #[derive(clap::Parser)]
    enum Line {
        #[command(subcommand)]
        Rental(RentalCommand),
        #[command(subcommand)]
        Booking(BookingCommand),
    }

    async fn try_run(client: &Client, line: &str) -> anyhow::Result<()> {
        let line = <Line as clap::Parser>::try_parse_from(format!("fleetgate {line}").split(' '));
        match line.map_err(|e| anyhow::anyhow!("{e}"))? {
            Line::Rental(command) => run(client, command).await,
            Line::Booking(command) => booking::run(client, command).await,
        }
    }

    async fn shop() -> (Client, crate::api::testing::TestApi) {
        let (client, api) = crate::cli::tests::connected().await;
        for name in ["cam-1", "cam-2"] {
            let device = json!({ "name": name, "labels": { "kind": "cam" } });
            let _: Value = client.post("/devices", &device).await.unwrap();
            try_run(&client, &format!("rental device {name} --rentable --turnaround 30m --no-gate"))
                .await
                .unwrap();
        }
        let _: Value = client.post("/customers", &json!({ "external_ref": "crm-17" })).await.unwrap();
        (client, api)
    }

    #[test]
    fn the_reason_of_an_end_is_not_said_twice() {
        let said = |reason: &str, said: &[&str]| end_reason(Some(reason), said).unwrap_or_default();
        assert_eq!(said("cancelled", &["cancelled"]), "");
        assert_eq!(said("lapsed", &["cancelled"]), "lapsed");
        assert_eq!(
            (said("failed", &["failed"]), said("ended", &["closed", "ended"])),
            (String::new(), String::new())
        );
        assert_eq!(said("returned_early", &["cleaning", "ended"]), "returned early");
        assert_eq!(end_reason(None, &["closed"]), None);
    }

    #[tokio::test]
    async fn devices_are_booked_changed_and_given_back() {
        let (client, _api) = shop().await;
        let add = "booking add --customer crm-17 --any kind=cam --for 2h --ref o1 --zone Europe/Vienna";
        let add = format!("{add} --other-device-after 10m");
        try_run(&client, &format!("{add} --dry-run")).await.unwrap();
        try_run(&client, &format!("{add} --hold 30m --notes x --metadata shop=linz")).await.unwrap();
        let made: Booking = client.get("/bookings/o1", &[]).await.unwrap();
        assert_eq!((made.rentals[0].state.as_str(), made.rentals[0].device_name.as_str()), ("held", "cam-1"));
        try_run(&client, "booking set o1 --hold 1h --notes y").await.unwrap();
        try_run(&client, "booking confirm o1").await.unwrap();
        let rental = made.rentals[0].id.clone();
        assert_eq!(made.rentals[0].other_device_after_s, Some(600.0));
        try_run(&client, &format!("rental set {rental} --other-device-after 2m")).await.unwrap();
        try_run(&client, &format!("rental show {rental}")).await.unwrap();
        try_run(&client, &format!("rental set {rental} --no-other-device")).await.unwrap();
        for fine in [
            "booking list --customer crm-17",
            "booking show o1",
            "rental list --state active --ref o1",
            "rental events",
        ] {
            try_run(&client, fine).await.unwrap();
        }
        try_run(&client, &format!("rental set {rental} --device cam-2")).await.unwrap();
        try_run(&client, "rental free --for 1d --label kind=cam").await.unwrap();
        try_run(&client, &format!("rental show {rental}")).await.unwrap();
        try_run(&client, &format!("rental report {rental}")).await.unwrap();
        try_run(&client, &format!("rental end {rental} --reason returned_early --note early")).await.unwrap();
        let ended: Rental = client.get(&format!("/rentals/{rental}"), &[]).await.unwrap();
        let expected = ("cleaning", "cam-2", Some("returned_early"));
        assert_eq!((ended.state.as_str(), ended.device_name.as_str(), ended.end_reason.as_deref()), expected);
    }

    #[tokio::test]
    async fn access_name_and_renters_are_given_and_changed() {
        let (client, _api) = shop().await;
        let person: Value = client.post("/people", &json!({ "customer": "crm-17" })).await.unwrap();
        let laptop = json!({ "person": person["id"], "name": "laptop" });
        let made: Value = client.post("/renters", &laptop).await.unwrap();
        let renter = made["renter"]["id"].as_str().unwrap().to_owned();
        try_run(&client, "rental device cam-1 --tcp 22,8000-8100 --udp 53").await.unwrap();
        let add = "booking add --customer crm-17 --device cam-1 --for 2h --ref o1 --name attic --tcp 22,8000";
        try_run(&client, &format!("{add} --renter {renter}")).await.unwrap();
        let made: Booking = client.get("/bookings/o1", &[]).await.unwrap();
        let rental = &made.rentals[0];
        assert_eq!(
            (rental.name.as_str(), grant::access(&rental.access)),
            ("attic", "tcp 22 8000".to_owned())
        );
        assert_eq!((renters(rental), rental.addresses.len()), (renter.clone(), 2));
        let id = &rental.id;
        for fine in ["--udp 53 --all-renters --name cellar", "--tcp 8000-8010"] {
            try_run(&client, &format!("rental set {id} {fine}")).await.unwrap();
        }
        let after: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
        assert_eq!(
            (after.name.as_str(), grant::access(&after.access)),
            ("cellar", "tcp 8000-8010".to_owned())
        );
        assert_eq!(renters(&after), "all of the customer");
        try_run(&client, &format!("rental show {id}")).await.unwrap();
        for (line, shown) in [
            ("--allowance 10GB --cut-at-allowance", "0 B of 10.0 GB (0 %), cut off there"),
            ("--no-cut-at-allowance", "0 B of 10.0 GB (0 %)"),
            ("--no-allowance", "0 B"),
        ] {
            try_run(&client, &format!("rental set {id} {line}")).await.unwrap();
            let after: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
            assert_eq!(forwarded(&after), shown, "{line}");
        }
        let two = "booking add --customer crm-17 --device cam-1 --device cam-2 --for 2h --name x";
        for (line, says) in [
            (format!("rental set {id} --tcp 23"), "cam-1 does not allow tcp 23"),
            (format!("rental set {id}"), "required"),
            (format!("rental set {id} --renter {renter} --all-renters"), "cannot be used with"),
            (format!("rental set {id} --renter laptop"), "no renter is called"),
            (two.to_owned(), "--name is for one device"),
            (format!("rental set {id} --other-device-after 10m"), "chosen by labels"),
            (format!("rental set {id} --other-device-after 10m --no-other-device"), "cannot be used with"),
            (format!("rental set {id} --allowance lots"), "such as 10GB"),
            (format!("rental set {id} --allowance 1GB --no-allowance"), "cannot be used with"),
            (
                "booking add --customer crm-17 --device cam-1 --for 2h --cut-at-allowance".to_owned(),
                "required",
            ),
            ("rental device cam-1 --no-access --icmp".to_owned(), "cannot be used with"),
        ] {
            let refused = try_run(&client, &line).await.unwrap_err();
            assert!(format!("{refused:#}").contains(says), "{line}: {refused:#}");
        }
        try_run(&client, "rental device cam-1 --no-access").await.unwrap();
        try_run(&client, "rental device cam-1 --turnaround 1h").await.unwrap();
        let settings: DeviceRentalSettings = client.get("/devices/cam-1/rental-settings", &[]).await.unwrap();
        assert_eq!((settings.access, settings.turnaround_s), (Vec::new(), 3_600.0));
    }

    #[tokio::test]
    async fn contacts_of_a_rental_are_given_replaced_and_taken_away() {
        let (client, _api) = shop().await;
        let add = "booking add --customer crm-17 --device cam-1 --for 2h --ref o1";
        try_run(&client, &format!("{add} --contact Ada=ada@example.org --contact bob@example.org"))
            .await
            .unwrap();
        let made: Booking = client.get("/bookings/o1", &[]).await.unwrap();
        let id = &made.rentals[0].id;
        for (line, shown) in [
            ("show", "Ada <ada@example.org>, bob@example.org"),
            ("set --contact eve@example.org", "eve@example.org"),
            ("set --no-contacts", "none"),
        ] {
            let (command, options) = line.split_once(' ').unwrap_or((line, ""));
            try_run(&client, format!("rental {command} {id} {options}").trim_end()).await.unwrap();
            let after: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
            assert_eq!(contacts(&after), shown, "{line}");
        }
        for (line, says) in [
            (format!("rental set {id} --contact ada"), "such as ada@example.org"),
            (format!("rental set {id} --contact a@example.org --no-contacts"), "cannot be used with"),
            (format!("rental set {id} --contact a@b@c"), "contacts[0].email"),
        ] {
            let refused = try_run(&client, &line).await.unwrap_err();
            assert!(format!("{refused:#}").contains(says), "{line}: {refused:#}");
        }
    }

    #[tokio::test]
    async fn limits_of_a_rental_are_given_replaced_and_taken_away() {
        let (client, _api) = shop().await;
        let add = "booking add --customer crm-17 --device cam-1 --for 2h --ref o1";
        try_run(&client, &format!("{add} --warn ping:rta=200 --crit ping:rta=500")).await.unwrap();
        let made: Booking = client.get("/bookings/o1", &[]).await.unwrap();
        let id = &made.rentals[0].id;
        for (options, shown) in [
            ("--name entrance", &["ping:rta warn 200 crit 500"][..]),
            ("--crit ping:pl=50", &["ping:pl crit 50"][..]),
            ("--no-limits", &[][..]),
        ] {
            try_run(&client, &format!("rental set {id} {options}")).await.unwrap();
            let after: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
            let limits: Vec<String> = after.thresholds.iter().map(rental_limits::words).collect();
            assert_eq!(limits, shown, "{options}");
        }
        let refused = try_run(&client, &format!("rental set {id} --warn ping:rta=x")).await.unwrap_err();
        assert!(format!("{refused:#}").contains("thresholds[0].warn"), "{refused:#}");
    }

    #[tokio::test]
    async fn maintenance_of_a_rental_is_planned_replaced_and_taken_away() {
        let (client, _api) = shop().await;
        let time = |hours: i64| table::now().checked_add(jiff::SignedDuration::from_hours(hours)).unwrap();
        let times = |from, until| format!("{}/{}", time(from), time(until));
        let add = "booking add --customer crm-17 --device cam-1 --for 12h --ref o1";
        let planned = format!("--maintenance {}=lens --maintenance {}", times(3, 4), times(1, 2));
        try_run(&client, &format!("{add} {planned}")).await.unwrap();
        let made: Booking = client.get("/bookings/o1", &[]).await.unwrap();
        let id = &made.rentals[0].id;
        for (options, comments) in [
            ("--name entrance".to_owned(), &["", "lens"][..]),
            (format!("--maintenance {}=cable", times(5, 6)), &["cable"][..]),
            ("--no-maintenance".to_owned(), &[][..]),
        ] {
            try_run(&client, &format!("rental set {id} {options}")).await.unwrap();
            let after: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
            let shown: Vec<&str> = after.maintenance.iter().map(|of| of.comment.as_str()).collect();
            assert_eq!(shown, comments, "{options}");
        }
        try_run(&client, &format!("rental show {id}")).await.unwrap();
        for (line, says) in [
            (format!("rental set {id} --maintenance noon"), "a begin and an end such as"),
            (format!("rental set {id} --maintenance {}", times(11, 13)), "lies after the rental"),
            (
                format!("rental set {id} --maintenance {} --no-maintenance", times(1, 2)),
                "cannot be used with",
            ),
        ] {
            let refused = try_run(&client, &line).await.unwrap_err();
            assert!(format!("{refused:#}").contains(says), "{line}: {refused:#}");
        }
    }

    #[tokio::test]
    async fn a_device_is_handed_over_once_it_is_ready_or_by_hand() {
        let (client, _api) = shop().await;
        try_run(&client, "rental device cam-1 --not-ready battery --gate --gate-for 1m").await.unwrap();
        let settings: DeviceRentalSettings = client.get("/devices/cam-1/rental-settings", &[]).await.unwrap();
        let gate = settings.gate.as_ref().map(|gate| (gate.services.clone(), gate.ok_for_s));
        assert_eq!((settings.ready, gate), (false, Some((None, 60.0))));
        try_run(&client, "booking add --customer crm-17 --device cam-1 --for 2h --ref o1").await.unwrap();
        let made: Booking = client.get("/bookings/o1", &[]).await.unwrap();
        let id = &made.rentals[0].id;
        assert_eq!(made.rentals[0].state, "delayed");
        try_run(&client, &format!("rental show {id}")).await.unwrap();
        try_run(&client, "rental device cam-1 --no-gate").await.unwrap();
        for (line, says) in [
            (format!("rental hand-over {id} --reason x"), "--force"),
            ("rental device cam-1 --ready --not-ready x".to_owned(), "cannot be used with"),
            ("rental device cam-1 --no-gate --gate-for 1m".to_owned(), "cannot be used with"),
            ("rental device cam-1 --gate-service xyz".to_owned(), "no service"),
        ] {
            let refused = try_run(&client, &line).await.unwrap_err();
            assert!(format!("{refused:#}").contains(says), "{line}: {refused:#}");
        }
        try_run(&client, &format!("rental hand-over {id} --force --reason lens")).await.unwrap();
        let active: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
        assert_eq!((active.state.as_str(), active.delayed.len()), ("active", 0));
        try_run(&client, "rental device cam-1 --ready").await.unwrap();
        let settings: DeviceRentalSettings = client.get("/devices/cam-1/rental-settings", &[]).await.unwrap();
        assert_eq!((settings.ready, settings.not_ready_reason, settings.gate), (true, None, None));
    }

    #[tokio::test]
    async fn a_device_is_rented_as_its_profile_says_and_overrides_single_settings() {
        let (client, _api) = shop().await;
        let rental =
            json!({ "preparation_s": 60, "turnaround_s": 120, "gate": {}, "cleaning_command": "wipe" });
        let kiosk = json!({ "extends": ["default"], "rental": rental });
        client.put("/profiles/kiosk", &kiosk, None).await.unwrap();
        let rules = json!({ "rules": [{ "labels": { "kind": "cam" }, "profile": "kiosk" }] });
        client.put("/profile-rules", &rules, None).await.unwrap();
        let settings = async |line: &str| -> DeviceRentalSettings {
            try_run(&client, line).await.unwrap();
            client.get("/devices/cam-1/rental-settings", &[]).await.unwrap()
        };
        let own = settings("rental device cam-1 --no-gate --no-cleaning-command").await;
        assert_eq!((own.preparation_s, own.turnaround_s), (60.0, 1_800.0), "only one of them was given");
        assert_eq!((own.gate, own.cleaning_command), (None, None));
        assert_eq!(
            (own.origins["gate"].as_str(), own.origins["preparation_s"].as_str()),
            ("device", "profile")
        );
        let back = settings("rental device cam-1 --from-profile gate --from-profile turnaround").await;
        assert_eq!((back.gate.is_some(), back.turnaround_s, back.cleaning_command), (true, 120.0, None));
        let all = settings("rental device cam-1 --from-profile all").await;
        assert_eq!(all.cleaning_command.as_deref(), Some("wipe"));
        assert!(all.rentable && all.origins.values().all(|origin| origin != "device"));
        let both = "rental device cam-1 --from-profile gate --no-gate";
        let refused = try_run(&client, both).await.unwrap_err();
        assert!(refused.to_string().contains("gate: set it, or leave it to the profile"), "{refused:#}");
    }

    #[tokio::test]
    async fn a_shipped_device_is_dispatched_and_returned() {
        let (client, _api) = shop().await;
        try_run(&client, "rental device cam-1 --shipped --turnaround 1d").await.unwrap();
        let settings: DeviceRentalSettings = client.get("/devices/cam-1/rental-settings", &[]).await.unwrap();
        assert_eq!(settings.delivery, "shipped");
        try_run(&client, "booking add --customer crm-17 --device cam-1 --for 2h --ref o1").await.unwrap();
        let made: Booking = client.get("/bookings/o1", &[]).await.unwrap();
        let id = &made.rentals[0].id;
        let refused = try_run(&client, &format!("rental return {id}")).await.unwrap_err();
        assert!(refused.to_string().contains("cam-1 was not dispatched"), "{refused:#}");
        try_run(&client, &format!("rental dispatch {id}")).await.unwrap();
        let refused = try_run(&client, &format!("rental return {id}")).await.unwrap_err();
        assert!(refused.to_string().contains(&format!("`fleetgate rental end {id}`")), "{refused:#}");
        try_run(&client, &format!("rental end {id}")).await.unwrap();
        try_run(&client, &format!("rental show {id}")).await.unwrap();
        try_run(&client, "rental list --state returning").await.unwrap();
        try_run(&client, &format!("rental return {id}")).await.unwrap();
        let back: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
        assert_eq!((back.state.as_str(), back.returned_at.is_some()), ("cleaning", true));
        let refused = try_run(&client, "rental device cam-1 --shipped --mounted").await.unwrap_err();
        assert!(refused.to_string().contains("cannot be used with"), "{refused:#}");
        try_run(&client, "rental device cam-1 --mounted").await.unwrap();
        let settings: DeviceRentalSettings = client.get("/devices/cam-1/rental-settings", &[]).await.unwrap();
        assert_eq!(settings.delivery, "mounted");
    }

    #[tokio::test]
    async fn a_block_keeps_a_device_from_being_booked() {
        let (client, _api) = shop().await;
        try_run(&client, "rental block cam-1 --reason battery --for 1d").await.unwrap();
        let add = "booking add --customer crm-17 --device cam-1 --for 2h";
        let refused = try_run(&client, add).await.unwrap_err();
        assert!(refused.to_string().contains("cam-1 is occupied"), "{refused:#}");
        try_run(&client, "rental blocks cam-1").await.unwrap();
        let blocks: Vec<DeviceBlock> = pages(&client, "/devices/cam-1/blocks", &[]).await.unwrap();
        try_run(&client, &format!("rental unblock cam-1 {}", blocks[0].id)).await.unwrap();
        try_run(&client, add).await.unwrap();
        for (line, says) in [
            ("booking add --customer crm-17 --for 2h", "--device DEVICE"),
            ("booking add --customer crm-17 --device cam-1", "--until TIME"),
            ("booking add --customer crm-17 --device cam-1 --until noon", "--until \"noon\""),
            ("rental free", "--until TIME"),
        ] {
            let refused = try_run(&client, line).await.unwrap_err();
            assert!(format!("{refused:#}").contains(says), "{line}: {refused:#}");
        }
    }
}

//! `fleetgate booking`: devices that a customer books with one call.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::client::Client;
use super::customer::{path, printed};
use super::device::{present, said};
use super::grant::{AccessArgs, moment};
use super::host::pages;
use super::host_args::{labels, pair};
use super::rental::{clock, window};
use super::rental_contacts;
use super::rental_limits::RentalLimits;
use super::rental_maintenance;
use super::size;
use super::table::{self, Column};
use super::token::span;
use crate::api::rentals::{Booking, BookingPlan, RentalContact, RentalMaintenance};
use crate::cli::out;

#[derive(Subcommand)]
pub(crate) enum BookingCommand {
    /// Book devices for one window, all or none
    Add(Box<AddArgs>),
    /// List bookings with their rentals
    List {
        /// Only the one with this reference
        #[arg(long = "ref", value_name = "REF")]
        external_ref: Option<String>,
        /// Only those of this customer (id or reference)
        #[arg(long, value_name = "CUSTOMER")]
        customer: Option<String>,
    },
    /// Show one booking
    Show {
        /// Id or reference of the booking
        booking: String,
    },
    /// Confirm a booking that is held
    Confirm {
        /// Id or reference of the booking
        booking: String,
    },
    /// Change a booking
    #[command(
        group(clap::ArgGroup::new("change").required(true).multiple(true)),
        override_usage = "fleetgate booking set [OPTIONS] <BOOKING>"
    )]
    Set {
        /// Id or reference of the booking
        booking: String,
        /// Hold it for this long from now on, such as 30m, or until an RFC 3339 time
        #[arg(long, value_name = "TIME", group = "change")]
        hold: Option<String>,
        /// Time zone for display, such as Europe/Vienna
        #[arg(long, value_name = "ZONE", group = "change")]
        zone: Option<String>,
        /// New notes
        #[arg(long, value_name = "TEXT", group = "change")]
        notes: Option<String>,
        /// Data of your own, as key=value, that replaces the present data
        #[arg(long, value_name = "KEY=VALUE", value_parser = pair, group = "change")]
        metadata: Vec<(String, String)>,
    },
}

#[derive(Args)]
pub(crate) struct AddArgs {
    /// Customer (id or reference)
    #[arg(long, value_name = "CUSTOMER")]
    customer: String,
    /// Device to book, by name or id
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,
    /// Any rentable device with all of these labels, as key=value,key=value
    #[arg(long, value_name = "LABELS")]
    any: Vec<String>,
    /// Profile that the devices of --any must have; without --any, any rentable device of it
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Use another device of --any or --profile after this delay, such as 10m
    #[arg(long, value_name = "TIME")]
    other_device_after: Option<String>,
    #[command(flatten)]
    at: Times,
    /// Name of the device for the renters [default: device-1 or the next number]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Let the renters log in to the device's account for renters
    #[arg(long)]
    ssh: bool,
    /// Admit only this renter (id); repeat it for more [default: all]
    #[arg(long, value_name = "RENTER")]
    renter: Vec<String>,
    /// Bytes that renters may send and receive, such as 10GB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    allowance: Option<u64>,
    /// Cut the renters off when the allowance is used
    #[arg(long, requires = "allowance")]
    cut_at_allowance: bool,
    /// Contact for problems of the device, as NAME=MAIL or MAIL; repeat it for more
    #[arg(long, value_name = "CONTACT", value_parser = rental_contacts::parse)]
    contact: Vec<RentalContact>,
    #[command(flatten)]
    limits: RentalLimits,
    /// Maintenance of the device within the window, as FROM/UNTIL or
    /// FROM/UNTIL=COMMENT; repeat it for more
    #[arg(long, value_name = "TIMES", value_parser = rental_maintenance::parse)]
    maintenance: Vec<RentalMaintenance>,
    /// Your own name for the booking, such as an order number; unique
    #[arg(long = "ref", value_name = "REF")]
    external_ref: Option<String>,
    /// Hold the devices for this long without a confirmation, such as 30m, or until an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    hold: Option<String>,
    /// Time zone for display, such as Europe/Vienna
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Notes for people
    #[arg(long, value_name = "TEXT")]
    notes: Option<String>,
    /// Data of your own, as key=value
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
    /// Decide, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A window of time.
#[derive(Args)]
pub(super) struct Times {
    /// Begin, as RFC 3339 with an offset [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// End, as RFC 3339 with an offset
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Duration instead of --until, such as 2h or 5d
    #[arg(long = "for", value_name = "TIME", conflicts_with = "until")]
    pub lasts: Option<String>,
}

impl Times {
    /// Returns `from` and `until` as the API takes them.
    pub fn body(&self, now: Timestamp) -> anyhow::Result<(Option<String>, Option<String>)> {
        let from = self.from.as_deref().map(|text| moment("--from", text)).transpose()?;
        let until = self.until.as_deref().map(|text| moment("--until", text)).transpose()?;
        let until = match &self.lasts {
            Some(text) => Some(from.unwrap_or(now).checked_add(span("--for", text)?)?),
            None => until,
        };
        Ok((from.map(|at| at.to_string()), until.map(|at| at.to_string())))
    }
}

pub(crate) async fn run(client: &Client, command: BookingCommand) -> anyhow::Result<()> {
    match command {
        BookingCommand::Add(args) => add(client, *args).await,
        BookingCommand::List { external_ref, customer } => list(client, external_ref, customer).await,
        BookingCommand::Show { booking } => {
            show(client, &client.get(&path("bookings", &booking), &[]).await?)
        }
        BookingCommand::Confirm { booking } => {
            let confirmed = client.patch(&path("bookings", &booking), &json!({ "hold_until": null })).await?;
            printed(client, &confirmed)?;
            said(client, &format!("Booking {booking} confirmed"))
        }
        BookingCommand::Set { booking, hold, zone, notes, metadata } => {
            let body = json!({
                "hold_until": hold.as_deref().map(until).transpose()?, "time_zone": zone, "notes": notes,
                "metadata": own_data(metadata)?,
            });
            let changed = client.patch(&path("bookings", &booking), &present(body)).await?;
            printed(client, &changed)?;
            said(client, &format!("Booking {booking} changed"))
        }
    }
}

/// Parses `30m` from now, or a time.
fn until(text: &str) -> anyhow::Result<String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.to_string());
    }
    Ok(table::now().checked_add(span("--hold", text)?)?.to_string())
}

fn own_data(pairs: Vec<(String, String)>) -> anyhow::Result<Option<Map<String, Value>>> {
    let mut all = Map::new();
    for (key, value) in pairs {
        anyhow::ensure!(!all.contains_key(&key), "--metadata {key} is given twice: give it one value");
        all.insert(key, Value::String(value));
    }
    Ok(Some(all).filter(|all| !all.is_empty()))
}

/// Parses `kind=camera,site=hill`.
fn selection(text: &str) -> anyhow::Result<Map<String, Value>> {
    let pairs: Result<Vec<_>, String> = text.split(',').map(pair).collect();
    labels(pairs.map_err(|e| anyhow::anyhow!("--any {e}"))?)
}

async fn add(client: &Client, args: AddArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.device.is_empty() || !args.any.is_empty() || args.profile.is_some(),
        "give what to book: --device DEVICE, --any KEY=VALUE or --profile PROFILE"
    );
    anyhow::ensure!(
        args.other_device_after.is_none() || !args.any.is_empty() || args.profile.is_some(),
        "--other-device-after is for devices that are chosen: give --any KEY=VALUE or --profile PROFILE"
    );
    let (from, end) = args.at.body(table::now())?;
    anyhow::ensure!(end.is_some(), "give when it ends: --until TIME or --for TIME");
    let given = args.device.iter().map(|device| -> anyhow::Result<Value> { Ok(json!({ "device": device })) });
    let any = args.any.iter().map(|text| -> anyhow::Result<Value> {
        Ok(json!({ "labels": selection(text)?, "profile": args.profile }))
    });
    let mut items: Vec<Value> = given.chain(any).collect::<anyhow::Result<_>>()?;
    if let (Some(profile), true) = (&args.profile, args.any.is_empty()) {
        items.push(json!({ "profile": profile }));
    }
    anyhow::ensure!(
        args.name.is_none() || items.len() == 1,
        "--name is for one device: book the others by themselves, or name them with `fleetgate rental set`"
    );
    let renters = Some(args.renter).filter(|renters| !renters.is_empty());
    let other_after = args.other_device_after.as_deref();
    let other_after = other_after.map(|text| span("--other-device-after", text)).transpose()?;
    let other_after = other_after.map(|after| after.as_secs_f64());
    for item in &mut items {
        (item["from"], item["until"]) = (json!(from), json!(end));
        (item["name"], item["renters"]) = (json!(args.name), json!(renters));
        item["access"] = json!(args.access.given());
        item["ssh"] = json!(args.ssh.then_some(true));
        if item.get("device").is_none() {
            item["other_device_after_s"] = json!(other_after);
        }
        item["allowance_bytes"] = json!(args.allowance);
        item["cut_at_allowance"] = json!(args.cut_at_allowance.then_some(true));
        item["contacts"] = json!(args.contact);
        item["thresholds"] = json!(args.limits.given());
        item["maintenance"] = json!(args.maintenance);
    }
    let mut body = present(json!({
        "customer": args.customer, "external_ref": args.external_ref, "time_zone": args.zone,
        "hold_until": args.hold.as_deref().map(until).transpose()?, "notes": args.notes,
        "metadata": own_data(args.metadata)?, "dry_run": args.dry_run.then_some(true),
    }));
    body["items"] = items.into_iter().map(present).collect();
    let made: Value = client.post("/bookings", &body).await?;
    printed(client, &made)?;
    match args.dry_run {
        true => planned(client, serde_json::from_value(made)?, args.zone.as_deref()),
        false => booked(client, &serde_json::from_value(made)?),
    }
}

fn planned(client: &Client, plan: BookingPlan, zone: Option<&str>) -> anyhow::Result<()> {
    plan.rentals.iter().try_for_each(|rental| {
        let when = window(&rental.from, &rental.until, zone);
        said(client, &format!("{} would be booked {when}", table::safe(&rental.device_name)))
    })
}

fn booked(client: &Client, booking: &Booking) -> anyhow::Result<()> {
    for rental in &booking.rentals {
        let when = window(&rental.from, &rental.until, booking.time_zone.as_deref());
        let (device, at) = (table::safe(&rental.device_name), rental.addresses.join(" "));
        let name = table::safe(&rental.name);
        said(client, &format!("Rental {}: {device} as {name} at {at} {when}", rental.id))?;
    }
    let held = booking.hold_until.as_deref().map(|until| {
        let until = clock(until, booking.time_zone.as_deref());
        format!("; held until {until}: fleetgate booking confirm {}", booking.id)
    });
    said(client, &format!("Booking {}{}", booking.id, held.unwrap_or_default()))
}

pub(super) const COLUMNS: [Column; 6] = [
    Column::whole("ID"),
    Column::name("REF"),
    Column::whole("CUSTOMER"),
    Column::whole("HELD UNTIL").optional(),
    Column::name("DEVICES"),
    Column::whole("BOOKED"),
];

async fn list(client: &Client, external_ref: Option<String>, customer: Option<String>) -> anyhow::Result<()> {
    let query: Vec<_> = [("external_ref", external_ref), ("customer", customer)]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let bookings: Vec<Booking> = pages(client, "/bookings", &query).await?;
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(&bookings)?);
        return Ok(());
    }
    if bookings.is_empty() {
        return said(client, "No bookings");
    }
    table::print(&COLUMNS, bookings.iter().map(row).collect());
    Ok(())
}

fn row(b: &Booking) -> Vec<String> {
    let devices: Vec<&str> = b.rentals.iter().map(|rental| rental.device_name.as_str()).collect();
    // The time stays with a booking that was not confirmed by then.
    let is_held = b.rentals.iter().any(|rental| rental.state == "held");
    let held_until = b.hold_until.as_deref().filter(|_| is_held);
    vec![
        b.id.clone(),
        table::safe(b.external_ref.as_deref().unwrap_or_default()),
        b.customer.clone(),
        held_until.map(|at| clock(at, b.time_zone.as_deref())).unwrap_or_default(),
        table::safe(&devices.join(" ")),
        table::minute(&b.created_at),
    ]
}

fn show(client: &Client, b: &Booking) -> anyhow::Result<()> {
    if client.json {
        out::line!("{}", serde_json::to_string_pretty(b)?);
        return Ok(());
    }
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    let zone = b.time_zone.as_deref();
    out::line!("{}", b.id);
    line("customer", &b.customer);
    line("reference", b.external_ref.as_deref().unwrap_or("none"));
    if let Some(until) = &b.hold_until {
        line("held until", &clock(until, zone));
    }
    for rental in &b.rentals {
        let when = window(&rental.from, &rental.until, zone);
        line("rental", &format!("{}  {} {when} ({})", rental.id, rental.device_name, rental.state));
    }
    let data = b.metadata.iter().flatten().map(|(key, value)| format!("{key}={value}"));
    data.for_each(|entry| line("metadata", &entry));
    line("notes", b.notes.as_deref().unwrap_or_default());
    line("author", &b.author);
    line("booked", &b.created_at);
    Ok(())
}

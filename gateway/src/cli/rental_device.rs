//! `fleetgate rental device`: how a device is rented.

use clap::Args;
use serde_json::json;

use super::client::{Client, api_path};
use super::device::present;
use super::grant::{self, AccessArgs};
use super::table;
use super::token::span;
use crate::api::rentals::DeviceRentalSettings;
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
    let is_change = args.rentable
        || args.not_rentable
        || args.preparation.is_some()
        || args.turnaround.is_some()
        || access.is_some();
    let body = present(json!({
        "rentable": rentable,
        "preparation_s": seconds("--preparation", &args.preparation, before.preparation_s)?,
        "turnaround_s": seconds("--turnaround", &args.turnaround, before.turnaround_s)?,
        "access": access,
    }));
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
    Ok(())
}

//! `fleetgate rental report`: what a customer got of a rental.

use serde_json::Value;

use super::client::{Client, api_path};
use super::customer::printed;
use super::rental::{clock, window};
use super::report;
use super::table::{self, Column};
use crate::api::rentals::report::{
    RentalIncident, RentalOutage, RentalReport, RentalReportChange, RentalReportDevice, RentalTraffic,
};
use crate::cli::out;

pub(super) async fn run(client: &Client, rental: &str) -> anyhow::Result<()> {
    let found: Value = client.get(&api_path!("/rentals/{}/report", rental), &[]).await?;
    printed(client, &found)?;
    if !client.json {
        print(&serde_json::from_value(found)?);
    }
    Ok(())
}

fn print(of: &RentalReport) {
    let zone = of.time_zone.as_deref();
    head(of, zone);
    section("Changes", &CHANGES, of.changes.iter().map(|change| change_row(change, zone)).collect());
    section("Availability", &DEVICES, of.devices.iter().flat_map(device_rows).collect());
    section("Outages", &OUTAGES, of.outages.iter().map(|outage| outage_row(of, outage, zone)).collect());
    if of.outages_left_out > 0 {
        out::line!("and {} more outages", of.outages_left_out);
    }
    let incidents = of.incidents.iter().map(|incident| incident_row(of, incident, zone)).collect();
    section("Incidents", &INCIDENTS, incidents);
    if of.incidents_left_out > 0 {
        out::line!("and {} more incidents", of.incidents_left_out);
    }
}

fn head(of: &RentalReport, zone: Option<&str>) {
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}  {}", of.state, of.rental);
    let made = clock(&of.made_at, zone);
    line("report", &if of.is_final { format!("final, of {made}") } else { format!("so far, of {made}") });
    line("booked", &window(&of.booked.from, &of.booked.until, zone));
    line("window", &window(&of.window.from, &of.window.until, zone));
    let used = of.used.as_ref().map(|used| window(&used.from, &used.until, zone));
    line("used", used.as_deref().unwrap_or("never"));
    if of.delayed_s > 0.0 {
        line("delayed", &format!("{} s", of.delayed_s));
    }
    if let Some(reason) = super::rental::end_reason(of.end_reason.as_deref(), &[of.state.as_str(), "ended"]) {
        line("ended", &reason);
    }
    line("booking", &of.booking);
    line("customer", &of.customer);
    line("traffic", &traffic(&of.traffic));
}

/// Renters send to the device.
fn traffic(of: &RentalTraffic) -> String {
    let amount = |bytes: u64, packets: u64| format!("{} in {packets} packets", table::bytes(bytes));
    let (sent, received) =
        (amount(of.sent_bytes, of.sent_packets), amount(of.received_bytes, of.received_packets));
    format!("{sent} to the device, {received} from it")
}

/// A table under its title; nothing without rows.
fn section(title: &str, columns: &[Column], rows: Vec<Vec<String>>) {
    if !rows.is_empty() {
        out::line!("\n{title}");
        table::print(columns, rows);
    }
}

const CHANGES: [Column; 5] = [
    Column::whole("TIME"),
    Column::text("CHANGE"),
    Column::name("DEVICE"),
    Column::whole("UNTIL"),
    Column::name("BY"),
];

fn change_row(of: &RentalReportChange, zone: Option<&str>) -> Vec<String> {
    let what = match of.changed.as_slice() {
        [] => of.change.clone(),
        changed => format!("{}: {}", of.change, changed.join(", ")),
    };
    vec![
        clock(&of.at, zone),
        table::safe(&what),
        table::safe(&of.device_name),
        clock(&of.window.until, zone),
        table::safe(&of.author),
    ]
}

const DEVICES: [Column; 6] = [
    Column::name("DEVICE"),
    Column::name("SERVICE"),
    Column::whole("AVAILABLE"),
    Column::whole("NO MAINTENANCE"),
    Column::whole("UNAVAILABLE"),
    Column::whole("NOT KNOWN"),
];

/// The device, and then its services.
fn device_rows(of: &RentalReportDevice) -> Vec<Vec<String>> {
    let services = of.services.iter().map(|service| (service.service.as_str(), &service.availability));
    let all = std::iter::once(("", &of.availability)).chain(services);
    let row = |(service, availability)| {
        let mut row = vec![table::safe(&of.device_name), table::safe(service)];
        row.extend(report::numbers(availability));
        row
    };
    all.map(row).collect()
}

const OUTAGES: [Column; 5] = [
    Column::name("DEVICE"),
    Column::name("SERVICE"),
    Column::state("STATE"),
    Column::whole("FROM"),
    Column::whole("UNTIL"),
];

fn outage_row(report: &RentalReport, of: &RentalOutage, zone: Option<&str>) -> Vec<String> {
    vec![
        device_name(report, &of.device),
        table::safe(of.service.as_deref().unwrap_or_default()),
        table::state(&of.state),
        clock(&of.from, zone),
        clock(&of.until, zone),
    ]
}

const INCIDENTS: [Column; 5] = [
    Column::name("DEVICE"),
    Column::whole("INCIDENT"),
    Column::text("CAUSE"),
    Column::whole("FROM"),
    Column::whole("UNTIL"),
];

fn incident_row(report: &RentalReport, of: &RentalIncident, zone: Option<&str>) -> Vec<String> {
    vec![
        device_name(report, &of.device),
        table::safe(&of.incident),
        table::safe(&of.cause.replace('_', " ")),
        clock(&of.from, zone),
        clock(&of.until, zone),
    ]
}

fn device_name(report: &RentalReport, id: &str) -> String {
    let device = report.devices.iter().find(|device| device.device == id);
    table::safe(device.map_or(id, |device| &device.device_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_says_what_is_different_in_the_zone_of_the_booking() {
        let text = r#"{"at":"2026-03-01T12:00:00Z","author":"token:t_1","change":"changed","changed":["until","device"],
            "device":"h_1","device_name":"cam-1","window":{"from":"2026-03-01T11:00:00Z","until":"2026-07-01T11:00:00Z"}}"#;
        let change: RentalReportChange = serde_json::from_str(text).unwrap();
        let row = change_row(&change, Some("Europe/Vienna"));
        let expected =
            ["2026-03-01 13:00 CET", "changed: until, device", "cam-1", "2026-07-01 13:00 CEST", "token:t_1"];
        assert_eq!(row, expected);
        assert_eq!(change_row(&RentalReportChange { changed: vec![], ..change }, None)[1], "changed");
    }

    #[test]
    fn traffic_is_in_units() {
        let of = RentalTraffic { sent_packets: 3, sent_bytes: 1_500, received_packets: 9, received_bytes: 7 };
        assert_eq!(traffic(&of), "1.5 kB in 3 packets to the device, 7 B in 9 packets from it");
    }
}

//! The rentals of the demo: three customers, a rental that runs and whose renter fetches pictures, one in
//! preparation, and two to come. They are booked over the API like real ones.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use fleetgate_keys::PrivateKey;
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Client, api_path};
use crate::clock;
use crate::demo::fleet::Gateway;
use crate::demo::plan;
use crate::demo::renter::{Renter, RenterSpec};
use crate::ids;

const HOUR: Duration = Duration::from_secs(3600);
const ZONE: &str = "Europe/Vienna";
/// Before and after a rental of a camera.
const MARGINS: [Duration; 2] = [Duration::from_secs(1800), HOUR];
/// The unit is reconfigured for two days. They have begun, because its rental begins in one day.
const RECONFIGURED: [Duration; 2] = [Duration::from_secs(2 * 24 * 3600), HOUR];

/// A customer with one person, who has one renter.
struct Customer {
    reference: &'static str,
    name: &'static str,
    person: &'static str,
    email: &'static str,
    renter: &'static str,
}

const CUSTOMERS: [Customer; 3] = [
    Customer {
        reference: "crm-101",
        name: "Alpine Films",
        person: "Eva Moser",
        email: "eva@alpine-films.example",
        renter: "laptop",
    },
    Customer {
        reference: "crm-102",
        name: "Harbour Television",
        person: "Jonas Brandt",
        email: "jonas@harbour-tv.example",
        renter: "edit-suite",
    },
    Customer {
        reference: "crm-103",
        name: "City Archive",
        person: "Mira Novak",
        email: "mira@archive.example",
        renter: "desktop",
    },
];

/// One device in one window.
struct Rented {
    reference: &'static str,
    customer: &'static str,
    device: &'static str,
    name: &'static str,
    /// Hours from now; 0: it begins at once.
    begins_in: u32,
    hours: u32,
}

/// The one that begins at once is that of the first customer.
const RENTALS: [Rented; 4] = [
    Rented {
        reference: "order-1001",
        customer: "crm-101",
        device: "cam-10",
        name: "bridge",
        begins_in: 0,
        hours: 14 * 24,
    },
    Rented {
        reference: "order-1002",
        customer: "crm-102",
        device: plan::RENTAL,
        name: "unit",
        begins_in: 24,
        hours: 5 * 24,
    },
    Rented {
        reference: "order-1003",
        customer: "crm-103",
        device: "cam-13",
        name: "south-side",
        begins_in: 3 * 24,
        hours: 7 * 24,
    },
    Rented {
        reference: "order-1004",
        customer: "crm-101",
        device: "cam-16",
        name: "stadium",
        begins_in: 9 * 24,
        hours: 24,
    },
];

/// Books the rentals, and connects the renter of the one that runs. A demo begins without any.
///
/// # Errors
/// Fails when the gateway refuses a call, or the renter finds no socket.
pub(super) async fn begin(client: &Client, gateway: &Gateway) -> anyhow::Result<Renter> {
    for device in plan::RENTABLE {
        make_rentable(client, device).await.with_context(|| format!("{device} cannot be rented"))?;
    }
    let mut renters = Vec::new();
    for customer in &CUSTOMERS {
        renters.push(add(client, customer).await.with_context(|| customer.name)?);
    }
    let mut rented = Vec::new();
    for rental in &RENTALS {
        rented.push(book(client, rental).await.with_context(|| rental.reference)?);
    }
    let first = renters.into_iter().zip(rented).next();
    let (spec, rented) = first.context("nothing was booked")?;
    Ok(Renter::start(gateway, RenterSpec { rented, ..spec }).await?)
}

async fn make_rentable(client: &Client, device: &str) -> anyhow::Result<()> {
    let [preparation, turnaround] = if device == plan::RENTAL { RECONFIGURED } else { MARGINS };
    // A rental that begins at once does not wait until all services were OK for five minutes. The others do.
    let begins_now = RENTALS.iter().any(|rental| rental.device == device && rental.begins_in == 0);
    let without: &[&str] = if begins_now { &["gate"] } else { &[] };
    let settings = json!({
        "rentable": true,
        "preparation_s": preparation.as_secs_f64(),
        "turnaround_s": turnaround.as_secs_f64(),
        "without": without,
    });
    client.call(Method::PUT, &api_path!("/devices/{}/rental-settings", device), Some(&settings)).await
}

/// Adds a customer, and returns its renter, which has made its own key.
async fn add(client: &Client, customer: &Customer) -> anyhow::Result<RenterSpec> {
    let contact = json!({ "name": customer.person, "email": customer.email });
    let body = json!({ "external_ref": customer.reference, "name": customer.name, "contacts": [contact] });
    client.call(Method::POST, "/customers", Some(&body)).await?;
    let body = json!({ "customer": customer.reference, "name": customer.person, "email": customer.email });
    let person: Value = client.post("/people", &body).await?;
    let private = PrivateKey::generate();
    let body = json!({
        "person": person["id"], "name": customer.renter, "public_key": private.public().to_string(),
    });
    let made: Value = client.post("/renters", &body).await?;
    let psk = made["credentials"]["preshared_key"].as_str().map(str::parse).transpose()?;
    Ok(RenterSpec { private, psk, addresses: addresses(&made["renter"]["addresses"]), rented: Vec::new() })
}

/// Books a device, and returns the addresses at which its renters reach it.
async fn book(client: &Client, rented: &Rented) -> anyhow::Result<Vec<IpAddr>> {
    let begins = clock::wall() + HOUR * rented.begins_in;
    let until = ids::time(begins + HOUR * rented.hours);
    let mut item = json!({ "device": rented.device, "name": rented.name, "until": until });
    if rented.begins_in > 0 {
        item["from"] = ids::time(begins).into();
    }
    let body = json!({
        "customer": rented.customer, "external_ref": rented.reference, "time_zone": ZONE, "items": [item],
    });
    let booked: Value = client.post("/bookings", &body).await?;
    Ok(addresses(&booked["rentals"][0]["addresses"]))
}

fn addresses(list: &Value) -> Vec<IpAddr> {
    list.as_array().into_iter().flatten().filter_map(|a| a.as_str()?.parse().ok()).collect()
}

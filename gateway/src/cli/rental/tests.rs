//! `fleetgate rental` and `fleetgate booking` against an API.

use super::super::booking::{self, BookingCommand};
use super::*;
use crate::api::rentals::{Booking, DeviceBlock, DeviceRentalSettings};

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
    assert_eq!((rental.name.as_str(), grant::access(&rental.access)), ("attic", "tcp 22 8000".to_owned()));
    assert_eq!((renters(rental), rental.addresses.len()), (renter.clone(), 2));
    let id = &rental.id;
    for fine in ["--udp 53 --all-renters --name cellar", "--tcp 8000-8010"] {
        try_run(&client, &format!("rental set {id} {fine}")).await.unwrap();
    }
    let after: Rental = client.get(&format!("/rentals/{id}"), &[]).await.unwrap();
    assert_eq!((after.name.as_str(), grant::access(&after.access)), ("cellar", "tcp 8000-8010".to_owned()));
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
        ("booking add --customer crm-17 --device cam-1 --for 2h --cut-at-allowance".to_owned(), "required"),
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
        (format!("rental set {id} --maintenance {} --no-maintenance", times(1, 2)), "cannot be used with"),
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
    let rental = json!({ "preparation_s": 60, "turnaround_s": 120, "gate": {}, "cleaning_command": "wipe" });
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
    assert_eq!((own.origins["gate"].as_str(), own.origins["preparation_s"].as_str()), ("device", "profile"));
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

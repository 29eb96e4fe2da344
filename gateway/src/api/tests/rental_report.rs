//! The report of a rental: so far, final, and kept.

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::GATEWAY;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::rentals::{HOUR, hence, item, must, path, rented, renting, shop, text};
use super::reports::{condition, hour, hours, put, spans, turns};
use crate::api::rentals::report::freeze;
use crate::api::request::ids::{self, IdKind};
use crate::api::request::permission::Area;
use crate::api::testing::{Answer, TestApi};
use crate::maintenance::rental_reports;
use crate::store::access::Role;
use crate::store::fixture;
use crate::store::intervals::Series;

fn host(id: &Value) -> HostId {
    IdKind::Host.parse(text(id)).unwrap()
}

async fn report(api: &TestApi, rental: &Value) -> Answer {
    api.operator().get(&format!("{}/report", path(rental))).await
}

/// Makes the reports that are due.
async fn round(api: &TestApi) {
    rental_reports::round(&api.state.store, crate::clock::wall(), &freeze).await.unwrap();
}

/// Adds incidents with their members, whose times are hours. Of one the first device was a member before and after its time
/// alone.
async fn incidents(api: &TestApi, [first, second]: [HostId; 2]) {
    let incidents =
        "insert into incidents (id, extent, cause, words, site, opened_at, closed_at, merged_into) values
        (9, 'host', 'host_down', 'cam-1 is down', null, $1, $1 + 3 * 3600000, null),
        (10, 'site', 'site_lost', 'site hill: 3 hosts', 'hill', $1 - 3 * 3600000, null, null),
        (11, 'service', 'service_failed', 'cam-2: ping', null, $1, null, null),
        (12, 'host', 'host_down', 'cam-1 is down', null, $1, $1, null),
        (13, 'service', 'service_failed', 'cam-2: rental', null, $1, null, null),
        (14, 'host', 'host_down', 'cam-2 is down', null, $1, $1, 10),
        (15, 'host', 'host_down', 'switch is down', null, $1 - 3 * 3600000, null, null)";
    fixture::run(&api.state.store, incidents, &[&hour(0).as_millis().to_string()]).await;
    let member = "insert into incident_members (incident, host, service, began_at, joined_at, left_at)
        values ($1, $2, $3, $4, $4 + 60000, nullif($5, ''))";
    let other = Id::from_i64(4_711);
    for (incident, of, service, from, until) in [
        ("9", first, "", 1, Some(2)),
        ("9", first, "ping", 0, Some(1)),
        ("10", other, "", -5, None),
        ("10", second, "", -3, Some(3)),
        ("11", second, "ping", 4, None),
        ("11", first, "ping", -2, Some(0)),
        ("12", first, "", 2, Some(3)),
        ("13", second, "rental", 3, Some(4)),
        ("14", second, "", 3, Some(4)),
    ] {
        let time = |at: i64| hour(at).as_millis().to_string();
        let (of, from) = (of.as_i64().to_string(), time(from));
        let until = until.map(time).unwrap_or_default();
        fixture::run(&api.state.store, member, &[incident, &of, service, &from, &until]).await;
    }
    let came_back = "insert into incident_members (incident, host, service, began_at, joined_at) values (15, $1, '', $2, $3)";
    let (before, after) = (hour(-3).as_millis().to_string(), hour(3).as_millis().to_string());
    fixture::run(&api.state.store, came_back, &[&first.as_i64().to_string(), &after, &before]).await;
}

/// A rental of cam-1 from hour 0 to hour 4, which was extended to hour 6. The device was swapped for cam-2 at
/// hour 2, which came back at hour 5. Returns the rental and both devices.
async fn returned(api: &TestApi) -> (Value, [HostId; 2]) {
    for device in ["cam-1", "cam-2"] {
        renting(api, device, json!({ "rentable": true, "turnaround_s": 60 })).await;
    }
    let rental = rented(api, json!({ "device": "cam-1", "until": hence(4 * HOUR) })).await;
    must(&api.operator().patch(&path(&rental), json!({ "until": hence(6 * HOUR) })).await);
    let swapped = api.operator().patch(&path(&rental), json!({ "device": "cam-2" })).await;
    let devices = [host(&rental["device"]), host(&must(&swapped)["device"])];
    let end = json!({ "reason": "returned_early", "note": "for Ada" });
    must(&api.operator().post(&format!("{}/end", path(&rental)), end).await);
    for sql in [
        "update rentals set from_at = $1, prepared_from = $1, until_at = $1 + 6 * 3600000, ended_at = $1 + 5 * 3600000",
        "update occupancies set from_at = iif(id = (select min(id) from occupancies), 0, 2 * 3600000) + $1",
        "update rental_changes set from_at = $1, until_at = $1 + 4 * 3600000 where what = 'booked'",
    ] {
        fixture::run(&api.state.store, sql, &[&hour(0).as_millis().to_string()]).await;
    }
    (rental, devices)
}

/// Each device was down for an hour, the second one during a downtime. A service of it failed, and then the
/// uplink of the gateway did. Others had the devices before and after.
async fn recorded(api: &TestApi, [first, second]: [HostId; 2]) {
    let states = [(-5, "down"), (-4, "up"), (1, "down"), (2, "up"), (3, "down")];
    put(api, &states.map(|(at, to)| turns(first, "", at, to))).await;
    put(api, &[(-5, "up"), (3, "down"), (4, "up"), (6, "down")].map(|(at, to)| turns(second, "", at, to)))
        .await;
    put(api, &[(-5, "ok"), (2, "critical"), (3, "ok")].map(|(at, to)| turns(second, "ping", at, to))).await;
    put(api, &spans(second, Series::Downtime, 3, 4)).await;
    put(api, &spans(GATEWAY, Series::UplinkLost, 4, 5)).await;
    let sent = "insert into forwarded (hour, source, host, protocol, port, rental, person, grant_id, flows,
                                       sent_packets, sent_bytes, received_packets, received_bytes)
                select 492312, 5, device, 'tcp', 22, id, 60, id, 1, 3, 1500, 2, 700 from rentals";
    fixture::run(&api.state.store, sent, &[]).await;
}

fn times(from: i64, until: i64) -> Value {
    json!({ "from": ids::time(hour(from)), "until": ids::time(hour(until)) })
}

#[tokio::test]
async fn a_report_has_times_changes_availability_and_outages_of_the_time_of_the_customer() {
    let api = shop().await;
    let (rental, devices) = returned(&api).await;
    recorded(&api, devices).await;
    let answer = report(&api, &rental).await;
    let of = must(&answer);
    assert_eq!(
        (&of["final"], &of["state"], &of["end_reason"]),
        (&json!(false), &json!("closed"), &json!("returned_early"))
    );
    assert_eq!((&of["booked"], &of["window"], &of["used"]), (&times(0, 4), &times(0, 6), &times(0, 5)));
    let list = |name: &str| of[name].as_array().unwrap().clone();
    let changes: Vec<Value> =
        list("changes").iter().map(|c| json!([c["change"], c["changed"], c["device_name"]])).collect();
    let expected = [
        json!(["booked", [], "cam-1"]),
        json!(["changed", ["until"], "cam-1"]),
        json!(["changed", ["device"], "cam-2"]),
        json!(["ended", [], "cam-2"]),
    ];
    assert_eq!(changes, expected);
    assert!(
        list("changes").iter().all(|change| text(&change["author"]).starts_with("token:")),
        "{}",
        answer.text
    );
    let had: Vec<Value> =
        list("devices").iter().map(|d| json!([d["device_name"], d["from"], d["until"]])).collect();
    let [first, second] = [times(0, 2), times(2, 5)];
    assert_eq!(
        had,
        [json!(["cam-1", first["from"], first["until"]]), json!(["cam-2", second["from"], second["until"]])]
    );
    let first = &of["devices"][0]["availability"];
    assert_eq!(
        (hours(first, "known_s"), hours(first, "available_s"), &first["percent"]),
        (2.0, 1.0, &json!(50.0))
    );
    let second = &of["devices"][1]["availability"];
    assert_eq!(
        (hours(second, "known_s"), hours(second, "available_s"), condition(second, "uplink_lost")),
        (2.0, 1.0, 1.0)
    );
    assert_eq!(second["outside_maintenance"]["percent"], json!(100.0));
    let ping = &of["devices"][1]["services"][0];
    assert_eq!((&ping["service"], condition(&ping["availability"], "host_down")), (&json!("ping"), 1.0));
    let outage = |device: HostId, service: Value, state: &str, from: i64, until: i64| {
        let of = times(from, until);
        json!({ "device": IdKind::Host.text(device), "service": service, "state": state,
                "from": of["from"], "until": of["until"] })
    };
    let outages = [
        outage(devices[0], Value::Null, "down", 1, 2),
        outage(devices[1], Value::Null, "down", 3, 4),
        outage(devices[1], json!("ping"), "critical", 2, 3),
    ];
    assert_eq!(list("outages"), outages);
    let (begin, end) = (ids::time(hour(0)), ids::time(hour(5)));
    for interval in list("intervals") {
        let inside = text(&interval["from"]) >= begin.as_str() && text(&interval["until"]) <= end.as_str();
        assert!(inside, "what is before and after belongs to others: {interval}");
    }
    assert!(!answer.text.contains("Ada") && !answer.text.contains("crm-17"), "ids only: {}", answer.text);
    let traffic =
        json!({ "sent_packets": 3, "sent_bytes": 1_500, "received_packets": 2, "received_bytes": 700 });
    assert_eq!(of["traffic"], traffic);
}

#[tokio::test]
async fn a_report_has_the_incidents_of_its_devices_in_the_time_of_the_customer_and_nothing_of_other_hosts() {
    let api = shop().await;
    let (rental, devices) = returned(&api).await;
    incidents(&api, devices).await;
    let answer = report(&api, &rental).await;
    let incident = |id: i64, device: HostId, scope: &str, cause: &str, from: i64, until: i64| {
        let of = times(from, until);
        json!({ "incident": IdKind::Incident.text(Id::from_i64(id)), "scope": scope, "cause": cause,
                "device": IdKind::Host.text(device), "from": of["from"], "until": of["until"] })
    };
    let expected = json!([
        incident(9, devices[0], "host", "host_down", 0, 2),
        incident(10, devices[1], "site", "site_lost", 2, 3),
        incident(11, devices[1], "service", "service_failed", 4, 5),
    ]);
    assert_eq!((&must(&answer)["incidents"], &answer.json["incidents_left_out"]), (&expected, &json!(0)));
    assert!(!answer.text.contains("hill"), "a report may be given to the customer: {}", answer.text);
    round(&api).await;
    for sql in ["delete from incident_members", "delete from incidents"] {
        fixture::run(&api.state.store, sql, &[]).await;
    }
    let last = report(&api, &rental).await;
    assert_eq!((&must(&last)["final"], &last.json["incidents"]), (&json!(true), &expected), "it is kept");
}

#[tokio::test]
async fn a_final_report_stays_when_the_intervals_and_the_customer_are_gone() {
    let api = shop().await;
    let (rental, devices) = returned(&api).await;
    recorded(&api, devices).await;
    let before = must(&report(&api, &rental).await).clone();
    round(&api).await;
    let last = report(&api, &rental).await;
    assert_eq!(must(&last)["final"], true, "{}", last.text);
    for same in ["used", "changes", "devices", "outages", "traffic", "intervals"] {
        assert_eq!(last.json[same], before[same], "{same}");
    }
    let sha256: String = Sha256::digest(&last.text).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(last.headers["etag"], format!("\"{sha256}\"").as_str());
    fixture::run(&api.state.store, "delete from intervals", &[]).await;
    fixture::run(&api.state.store, "delete from events", &[]).await;
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
    round(&api).await;
    assert_eq!(report(&api, &rental).await.text, last.text);
    fixture::run(&api.state.store, "update rental_reports set report = replace(report, '50.0', '99.0')", &[])
        .await;
    let damaged = report(&api, &rental).await;
    assert_eq!((damaged.status, damaged.code()), (500, "internal"), "{}", damaged.text);
}

#[tokio::test]
async fn the_report_of_an_open_rental_has_the_numbers_so_far() {
    let api = shop().await;
    let planned = rented(&api, item("cam-2", HOUR, 2 * HOUR)).await;
    let none = report(&api, &planned).await;
    assert_eq!((&must(&none)["used"], &none.json["devices"]), (&Value::Null, &json!([])), "{}", none.text);
    let running = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    fixture::run(&api.state.store, "update rentals set from_at = from_at - 7200000", &[]).await;
    let so_far = report(&api, &running).await;
    let of = must(&so_far);
    assert_eq!(
        (&of["final"], &of["state"], &of["used"]["until"]),
        (&json!(false), &json!("active"), &of["made_at"])
    );
    assert!(condition(&of["devices"][0]["availability"], "no_data") > 1.9, "{}", so_far.text);
    round(&api).await;
    assert_eq!(must(&report(&api, &running).await)["final"], false);
}

#[tokio::test]
async fn a_report_is_final_some_minutes_after_the_turnaround() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "turnaround_s": 600 })).await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    for (minutes_ago, is_final) in [("9", false), ("19", false), ("21", true)] {
        let sql = "update rentals set from_at = unixepoch() * 1000 - 7200000, until_at = unixepoch() * 1000 - $1 * 60000";
        fixture::run(&api.state.store, sql, &[minutes_ago]).await;
        round(&api).await;
        assert_eq!(must(&report(&api, &rental).await)["final"], is_final, "{minutes_ago}");
    }
}

#[tokio::test]
async fn a_report_becomes_final_after_a_restore_is_confirmed_and_not_before() {
    let api = shop().await;
    let (rental, _) = returned(&api).await;
    fixture::restored(&api.state.store, crate::clock::wall()).await;
    round(&api).await;
    assert_eq!(must(&report(&api, &rental).await)["final"], false);
    let confirm = "update instance set confirmed_at = restored_at, confirmed_by = 'user:ada'";
    fixture::run(&api.state.store, confirm, &[]).await;
    round(&api).await;
    assert_eq!(must(&report(&api, &rental).await)["final"], true, "it is not lost");
}

#[tokio::test]
async fn a_rental_that_never_began_has_a_report_without_availability() {
    let api = shop().await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    fixture::run(&api.state.store, "update rentals set ended_at = ended_at - 3600000", &[]).await;
    round(&api).await;
    let answer = report(&api, &rental).await;
    let of = must(&answer);
    assert_eq!(
        (&of["final"], &of["state"], &of["end_reason"]),
        (&json!(true), &json!("cancelled"), &json!("cancelled"))
    );
    assert_eq!((&of["used"], &of["devices"], &of["intervals"]), (&Value::Null, &json!([]), &json!([])));
    assert_eq!((&of["changes"][1]["change"], &of["window"]["from"]), (&json!("cancelled"), &rental["from"]));
}

#[tokio::test]
async fn a_hold_that_was_confirmed_or_lapsed_is_a_change() {
    let api = shop().await;
    let mut rentals = Vec::new();
    for device in ["cam-1", "cam-2"] {
        let held = json!({ "customer": "crm-17", "external_ref": device, "hold_until": hence(600),
            "items": [item(device, HOUR, 2 * HOUR)] });
        rentals.push(must(&api.operator().post("/api/v1/bookings", held).await)["rentals"][0].clone());
    }
    must(&api.operator().patch("/api/v1/bookings/cam-1", json!({ "hold_until": null })).await);
    fixture::run(&api.state.store, "update bookings set hold_until = hold_until - 700000", &[]).await;
    assert_eq!(must(&report(&api, &rentals[1]).await)["end_reason"], "lapsed", "before it is written");
    assert!(api.state.store.lapse_bookings(crate::clock::wall()).await.unwrap());
    for (rental, change, by_gateway) in [(&rentals[0], "confirmed", false), (&rentals[1], "lapsed", true)] {
        let changes = must(&report(&api, rental).await)["changes"].clone();
        let names: Vec<&str> =
            changes.as_array().unwrap().iter().map(|change| text(&change["change"])).collect();
        assert_eq!(names, ["booked", change]);
        assert_eq!(changes[1]["author"] == "system", by_gateway, "{changes}");
    }
}

#[tokio::test]
async fn whoever_reads_rentals_reads_their_reports() {
    let api = shop().await;
    let rental = rented(&api, item("cam-1", HOUR, 2 * HOUR)).await;
    let one = format!("{}/report", path(&rental));
    assert_eq!(api.limited(Role::Operator, Area::Rentals).await.get(&one).await.status, 200);
    assert_eq!(api.limited(Role::Operator, Area::Devices).await.get(&one).await.code(), "scope_missing");
    assert_eq!(api.viewer().get(&one).await.code(), "role_missing");
    assert_eq!(api.anonymous().get(&one).await.status, 401);
    for unknown in ["l_0000000000007", "cam-1", "h_0000000000007"] {
        let answer = api.operator().get(&format!("/api/v1/rentals/{unknown}/report")).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{unknown}: {}", answer.text);
    }
}

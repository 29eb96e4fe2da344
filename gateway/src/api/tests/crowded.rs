//! Answers about what there is very much of: intervals of one device, and rentals of bookings.

use fleetgate_engine::id::HostId;
use serde_json::{Value, json};

use super::rentals::{HOUR, hence, must, path, rented, shop, text};
use super::reports::{condition, hour, hours};
use crate::api::reports::AT_ONCE;
use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, TestApi};
use crate::store::fixture;

/// Intervals of the day.
const CHANGES: usize = 2 * 86_400;

/// A service of the device changes twice a second for a day, which is as often as a device may send results.
async fn changes_all_day(api: &TestApi, device: HostId) {
    let sql = "with recursive n (x) as (values (0) union all select x + 1 from n where x < 2 * 86400 - 1)
               insert into intervals (host, service, series, value, began_at, ended_at)
               select $1 + 0, 'flap', 'state', iif(x % 2, 'ok', 'critical'), $2 + x * 500, $2 + (x + 1) * 500
               from n";
    let arguments = [device.as_i64(), hour(0).as_millis()].map(|number| number.to_string());
    fixture::run(&api.state.store, sql, &[&arguments[0], &arguments[1]]).await;
}

fn named<'a>(list: &'a Value, service: &str) -> &'a Value {
    let found = list.as_array().unwrap().iter().find(|item| item["service"] == service);
    &found.unwrap_or_else(|| panic!("no {service} in {list}"))["availability"]
}

fn length(report: &Value, list: &str) -> (usize, u64) {
    (report[list].as_array().unwrap().len(), report[format!("{list}_left_out")].as_u64().unwrap())
}

/// Waits for a report that comes after another one.
async fn in_its_turn(api: &TestApi, report: impl Future<Output = Answer>) -> Answer {
    let held = AT_ONCE.acquire().await.unwrap();
    let mut report = std::pin::pin!(report);
    let others = async {
        for _ in 0..20 {
            assert_eq!(api.operator().get("/api/v1/rentals").await.status, 200);
        }
    };
    tokio::select! {
        answer = &mut report => panic!("it did not wait: {}", answer.text),
        () = others => {}
    }
    drop(held);
    report.await
}

#[tokio::test]
async fn reports_of_a_device_that_changes_all_the_time_count_everything_and_list_a_part() {
    let api = shop().await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    must(&api.operator().post(&format!("{}/end", path(&rental)), json!({ "reason": "ended" })).await);
    for sql in [
        "update rentals set from_at = $1, prepared_from = $1, until_at = $1 + 86400000, ended_at = $1 + 86400000",
        "update occupancies set from_at = $1 + 0",
    ] {
        fixture::run(&api.state.store, sql, &[&hour(0).as_millis().to_string()]).await;
    }
    changes_all_day(&api, IdKind::Host.parse(text(&rental["device"])).unwrap()).await;

    let (caller, report) = (api.operator(), format!("{}/report", path(&rental)));
    let answer = in_its_turn(&api, caller.get(&report)).await;
    let of = must(&answer);
    let flap = named(&of["devices"][0]["services"], "flap");
    assert_eq!((hours(flap, "known_s"), hours(flap, "available_s")), (24.0, 12.0));
    assert_eq!(length(of, "outages"), (5_000, CHANGES as u64 / 2 - 5_000));
    assert_eq!(length(of, "intervals"), (20_000, CHANGES as u64 - 20_000));

    let day = "from=2026-03-01T00:00:00Z&to=2026-03-02T00:00:00Z";
    let fleet = api.viewer().get(&format!("/api/v1/reports/availability?{day}&service=*")).await;
    let flap = named(&must(&fleet)["items"], "flap");
    assert_eq!((hours(flap, "known_s"), condition(flap, "critical")), (24.0, 12.0));
}

#[tokio::test]
async fn a_page_of_bookings_ends_after_2_000_rentals() {
    let api = shop().await;
    for sql in [
        "with recursive n (x) as (values (0) union all select x + 1 from n where x < 59)
         insert into bookings (id, customer, author, created_at)
         select 1000 + x, (select id from customers), '', 0 from n",
        "with recursive n (x) as (values (0) union all select x + 1 from n where x < 60 * 50 - 1)
         insert into rentals (id, booking, device, from_at, until_at, prepared_from, preparation_ms, turnaround_ms,
                              ended_at, end_reason, created_at)
         select 10000 + x, 1000 + x / 50, (select id from hosts where name = 'cam-1'), 100, 200, 100, 0, 0,
                150, 'ended', 0
         from n",
    ] {
        fixture::run(&api.state.store, sql, &[]).await;
    }
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let answer = api.operator().get(&format!("/api/v1/bookings?limit=2000{after}")).await;
        let bookings = must(&answer)["items"].as_array().unwrap();
        let rentals = bookings.iter().map(|booking| booking["rentals"].as_array().unwrap().len());
        pages.push((bookings.len(), rentals.sum::<usize>()));
        match answer.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(pages, [(40, 2_000), (20, 1_000)]);
    let first = api.operator().get("/api/v1/bookings?limit=3").await;
    assert_eq!(must(&first)["items"].as_array().unwrap().len(), 3, "a page has no more than its limit");
}

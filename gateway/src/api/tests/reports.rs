//! Reports over a period.

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::GATEWAY;
use fleetgate_engine::time::Wall;
use serde_json::{Value, json};

use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, TestApi};
use crate::store::intervals::{self, Change, Series};

/// 2026-03-01T00:00:00Z.
const BEGIN: i64 = 1_772_323_200_000;
/// A day of that month, with an offset.
const DAY: &str = "from=2026-03-01T01:00:00%2B01:00&to=2026-03-02T00:00:00Z";

pub(super) fn hour(n: i64) -> Wall {
    Wall::from_millis(BEGIN + n * 3_600_000)
}

/// Adds a device and returns its id.
async fn device(api: &TestApi, name: &str, site: Option<&str>) -> HostId {
    let labels = site.map_or(json!({}), |site| json!({ "site": site, "kind": "camera" }));
    let made = api.operator().post("/api/v1/devices", json!({ "name": name, "labels": labels })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    IdKind::Host.parse(made.json["device"]["id"].as_str().unwrap()).unwrap()
}

pub(super) async fn put(api: &TestApi, changes: &[Change<'_>]) {
    let mut tx = api.state.store.begin().await.unwrap();
    intervals::write(&mut tx, changes).await.unwrap();
    tx.commit().await.unwrap();
}

pub(super) fn turns(host: HostId, service: &'static str, at: i64, to: &'static str) -> Change<'static> {
    let (series, at) = (Series::State, hour(at));
    Change { host, service, series, at, since: None, begins: Some(to), measured_at: None }
}

pub(super) fn spans(host: HostId, series: Series, from: i64, until: i64) -> [Change<'static>; 2] {
    [(from, Some("")), (until, None)].map(|(at, begins)| Change {
        host,
        service: "",
        series,
        at: hour(at),
        since: None,
        begins,
        measured_at: None,
    })
}

/// Two cameras at the site `hill`, of which one was down for 6 hours, and a host without a site.
async fn fleet() -> TestApi {
    let api = TestApi::with_endpoint().await;
    let (first, second) =
        (device(&api, "cam-1", Some("hill")).await, device(&api, "cam-2", Some("hill")).await);
    device(&api, "nas", None).await;
    put(&api, &[turns(first, "", -5, "up"), turns(first, "", 6, "down"), turns(first, "", 12, "up")]).await;
    put(&api, &[turns(second, "", 0, "up")]).await;
    put(&api, &[turns(first, "ping", 0, "ok"), turns(first, "ping", 18, "critical")]).await;
    put(&api, &spans(first, Series::Downtime, 6, 9)).await;
    put(&api, &spans(GATEWAY, Series::UplinkLost, 14, 16)).await;
    api
}

async fn report(api: &TestApi, rest: &str) -> Answer {
    api.viewer().get(&format!("/api/v1/reports/availability?{DAY}{rest}")).await
}

fn names(answer: &Answer) -> Vec<&str> {
    answer.json["items"].as_array().unwrap().iter().map(|item| item["host_name"].as_str().unwrap()).collect()
}

pub(super) fn condition(availability: &Value, name: &str) -> f64 {
    let conditions = availability["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["condition"] == name);
    found.map_or(0.0, |condition| condition["seconds"].as_f64().unwrap()) / 3_600.0
}

pub(super) fn hours(availability: &Value, field: &str) -> f64 {
    availability[field].as_f64().unwrap() / 3_600.0
}

#[tokio::test]
async fn hosts_are_reported_with_and_without_maintenance() {
    let api = fleet().await;
    let answer = report(&api, "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(names(&answer), ["cam-1", "cam-2", "nas"]);
    assert_eq!(
        (&answer.json["from"], &answer.json["to"]),
        (&json!("2026-03-01T00:00:00Z"), &json!("2026-03-02T00:00:00Z"))
    );
    let first = &answer.json["items"][0]["availability"];
    assert_eq!(
        (hours(first, "known_s"), hours(first, "available_s"), hours(first, "unknown_s")),
        (22.0, 16.0, 2.0)
    );
    assert_eq!((condition(first, "down"), condition(first, "uplink_lost")), (6.0, 2.0));
    assert_eq!(first["percent"].as_f64().unwrap(), 16.0 / 22.0 * 100.0);
    let outside = &first["outside_maintenance"];
    assert_eq!((hours(outside, "known_s"), hours(outside, "available_s")), (19.0, 16.0));
    let nas = &answer.json["items"][2]["availability"];
    assert_eq!((&nas["percent"], condition(nas, "no_data")), (&json!(null), 22.0));
    let total = &answer.json["total"];
    assert_eq!((hours(total, "known_s"), hours(total, "available_s")), (44.0, 38.0));
}

#[tokio::test]
async fn sites_have_sums_and_labels_select() {
    let api = fleet().await;
    let sites = report(&api, "").await.json["sites"].clone();
    assert_eq!((&sites[0]["site"], &sites[0]["objects"]), (&json!(null), &json!(1)));
    assert_eq!((&sites[1]["site"], &sites[1]["objects"]), (&json!("hill"), &json!(2)));
    assert_eq!(hours(&sites[1]["availability"], "available_s"), 38.0);
    for (rest, expected) in [
        ("&site=hill", vec!["cam-1", "cam-2"]),
        ("&label=kind=camera&label=site=hill", vec!["cam-1", "cam-2"]),
        ("&label=kind=nas", vec![]),
        ("&host=cam-2", vec!["cam-2"]),
        ("&host=cam-2&site=valley", vec![]),
    ] {
        assert_eq!(names(&report(&api, rest).await), expected, "{rest}");
    }
}

#[tokio::test]
async fn a_service_is_not_available_while_its_host_is_down() {
    let api = fleet().await;
    let answer = report(&api, "&service=ping&host=cam-1").await;
    let item = &answer.json["items"][0];
    assert_eq!((&item["service"], answer.json["items"].as_array().unwrap().len()), (&json!("ping"), 1));
    let of = &item["availability"];
    let parts = ["ok", "host_down", "critical", "uplink_lost"].map(|name| condition(of, name));
    assert_eq!(parts, [10.0, 6.0, 6.0, 2.0]);
    let all = report(&api, "&service=*&host=cam-1").await;
    assert!(all.json["items"].as_array().unwrap().len() > 1);
    assert!(names(&report(&api, "&service=nothing").await).is_empty());
}

#[tokio::test]
async fn pages_follow_each_other_and_have_the_sums_of_all() {
    let api = fleet().await;
    let first = report(&api, "&limit=2").await;
    assert_eq!(names(&first), ["cam-1", "cam-2"]);
    let after = format!("&limit=2&after={}", first.json["next"].as_str().unwrap());
    let second = report(&api, &after).await;
    assert_eq!((names(&second), &second.json["next"]), (vec!["nas"], &json!(null)));
    assert_eq!(second.json["total"], first.json["total"]);
    let refused = report(&api, "&after=AAAA").await;
    assert_eq!((refused.status, refused.code()), (400, "bad_query"));
}

#[tokio::test]
async fn a_removed_host_is_reported_by_its_id() {
    let api = fleet().await;
    let id = report(&api, "&host=cam-1").await.json["items"][0]["host"].as_str().unwrap().to_owned();
    assert_eq!(api.operator().delete("/api/v1/devices/cam-1").await.status, 204);
    assert_eq!(names(&report(&api, "").await), ["cam-2", "nas"]);
    let answer = report(&api, &format!("&host={id}")).await;
    assert_eq!(hours(&answer.json["items"][0]["availability"], "available_s"), 16.0);
    assert_eq!(report(&api, "&host=cam-1").await.status, 404);
}

#[tokio::test]
async fn a_period_ends_after_its_begin_and_now_at_the_latest() {
    let api = fleet().await;
    for (query, expected) in [
        ("", "missing field `from`"),
        ("from=2026-03-01", "from: a time such as"),
        ("from=2026-03-01T00:00:00", "from: a time such as"),
        ("from=2026-03-01T00:00:00Z&to=2026-03-01T00:00:00Z", "from: a time before `to`"),
        ("from=9000-01-01T00:00:00Z", "from: a time before `to`"),
        ("from=1971-01-01T00:00:00Z", "at most ten years"),
        ("from=2026-03-01T00:00:00Z&label=site", "label: key=value"),
    ] {
        let answer = api.viewer().get(&format!("/api/v1/reports/availability?{query}")).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_query"), "{query}: {}", answer.text);
        assert!(answer.json["detail"].as_str().unwrap().contains(expected), "{query}: {}", answer.text);
    }
    let query = "from=2026-03-01T00:00:00Z&to=9000-01-01T00:00:00Z";
    let answer = api.viewer().get(&format!("/api/v1/reports/availability?{query}")).await;
    assert!(answer.json["to"].as_str().unwrap() < "9000", "{}", answer.text);
    assert_eq!(api.anonymous().get(&format!("/api/v1/reports/availability?{query}")).await.status, 401);
    let unknown = IdKind::Host.text(Id::from_i64(99));
    assert_eq!(report(&api, &format!("&host={unknown}")).await.status, 404);
}

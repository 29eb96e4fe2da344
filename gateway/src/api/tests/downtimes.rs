//! Downtimes that are changed, filtered by host, and begun.

use fleetgate_engine::messages::{MonitorInput, When};
use serde_json::{Value, json};

use super::with_monitor::Ward;
use crate::api::request::ids::IdKind;
use crate::api::testing::TestApi;
use crate::engine::handle::Changes;
use crate::store::fixture;

async fn api() -> TestApi {
    let api = TestApi::with_endpoint().await;
    for (name, site) in [("cam-1", "hill"), ("cam-2", "valley")] {
        let made =
            api.operator().post("/api/v1/devices", json!({ "name": name, "labels": { "site": site } })).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    api
}

async fn plan(api: &TestApi, path: &str, body: Value) -> String {
    let made = api.operator().post(&format!("/api/v1{path}"), body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    format!("/api/v1/downtimes/{}", made.json["id"].as_str().unwrap())
}

/// When the monitor was told last that one is.
fn told(api: &mut TestApi) -> Option<When> {
    let mut last = None;
    while let Ok(input) = api.monitor.try_recv() {
        if let MonitorInput::Downtime(downtime) = input {
            last = Some(downtime.when);
        }
    }
    last
}

#[tokio::test]
async fn a_change_reaches_the_monitor() {
    let mut api = api().await;
    let work = json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z", "fixed": false,
        "duration_s": 3600, "comment": "new disk" });
    let path = plan(&api, "/hosts/cam-1/downtimes", work).await;
    let mut before = told(&mut api);
    for (field, value) in [
        ("start", json!("2099-03-10T19:00:00Z")),
        ("end", json!("2099-03-10T23:00:00Z")),
        ("duration_s", json!(60.0)),
    ] {
        let changed = api.operator().patch(&path, json!({ field: value })).await;
        assert_eq!((changed.status, &changed.json[field]), (200, &value), "{}", changed.text);
        let after = told(&mut api);
        assert_ne!(after, before, "{field}");
        before = after;
    }
    let shown = api.operator().patch(&path, json!({ "comment": null })).await.json;
    assert_eq!((&shown["comment"], &shown["version"]), (&json!(""), &json!(5)));
    let events = api.viewer().get("/api/v1/events?kind=downtime.changed").await.json;
    assert_eq!(events["items"].as_array().unwrap().len(), 4);

    let every_sunday = json!({ "labels": { "site": "hill" },
        "recurrence": { "every": "sun", "from": "02:00", "to": "04:00", "time_zone": "UTC" } });
    let path = plan(&api, "/downtimes", every_sunday).await;
    let shown = api.operator().patch(&path, json!({ "recurrence": { "to": "05:00" } })).await.json;
    let recurrence = &shown["recurrence"];
    assert_eq!((&recurrence["every"], &recurrence["to"]), (&json!("sun"), &json!("05:00")), "{shown}");
    assert!(matches!(told(&mut api), Some(When::Repeated(_))));
}

#[tokio::test]
async fn a_change_that_cannot_be_is_refused_by_name_and_what_is_over_stays() {
    let api = api().await;
    let work = json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z" });
    let path = plan(&api, "/hosts/cam-1/downtimes", work).await;
    for (field, body) in [
        ("end", json!({ "end": "2099-03-10T19:00:00Z" })),
        ("end", json!({ "end": null })),
        ("duration_s", json!({ "duration_s": 60 })),
        ("recurrence", json!({ "recurrence": { "every": "sun" } })),
    ] {
        let refused = api.operator().patch(&path, body).await;
        assert_eq!(
            (refused.status, &refused.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{}",
            refused.text
        );
    }
    assert_eq!(api.operator().delete(&path).await.status, 204);
    let refused = api.operator().patch(&path, json!({ "comment": "x" })).await;
    assert_eq!((refused.status, refused.code()), (409, "downtime_over"));
    assert_eq!(api.viewer().patch(&path, json!({})).await.status, 403);
}

#[tokio::test]
async fn a_downtime_has_an_etag_that_changes_and_removals_heed() {
    let api = api().await;
    let work = json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z" });
    let made = api.operator().post("/api/v1/hosts/cam-1/downtimes", work).await;
    let tag = made.headers["etag"].to_str().unwrap().to_owned();
    let path = format!("/api/v1/downtimes/{}", made.json["id"].as_str().unwrap());
    assert_eq!(api.viewer().get(&path).await.headers["etag"], tag.as_str());
    let caller = api.operator().header("if-match", &tag);
    let same = caller.patch(&path, json!({ "end": "2099-03-10T22:00:00Z" })).await;
    assert_eq!(same.headers["etag"], tag.as_str(), "nothing changed");
    let changed = caller.patch(&path, json!({ "comment": "x" })).await;
    assert_ne!(changed.headers["etag"], tag.as_str());
    assert_eq!(caller.patch(&path, json!({ "comment": "y" })).await.code(), "changed_meanwhile");
    assert_eq!(caller.delete(&path).await.code(), "changed_meanwhile");
    let caller = api.operator().header("if-match", changed.headers["etag"].to_str().unwrap());
    assert_eq!(caller.delete(&path).await.status, 204);
}

#[tokio::test]
async fn the_downtimes_of_a_host_are_its_own_and_those_that_its_labels_select() {
    let api = api().await;
    let work = |labels: Value| {
        let mut body = json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z" });
        body.as_object_mut().unwrap().extend(labels.as_object().unwrap().clone());
        body
    };
    let own = plan(&api, "/hosts/cam-1/downtimes", work(json!({}))).await;
    let hill = plan(&api, "/downtimes", work(json!({ "labels": { "site": "hill" } }))).await;
    let valley = plan(&api, "/downtimes", work(json!({ "labels": { "site": "valley" } }))).await;
    plan(&api, "/downtimes", work(json!({ "labels": { "site": "hill", "kind": "nas" } }))).await;
    let listed = async |host: &str| -> Vec<String> {
        let list = api.viewer().get(&format!("/api/v1/downtimes?host={host}")).await.json;
        let items = list["items"].as_array().unwrap().iter();
        items.map(|d| format!("/api/v1/downtimes/{}", d["id"].as_str().unwrap())).collect()
    };
    assert_eq!(listed("cam-1").await, [hill, own]);
    assert_eq!(listed("cam-2").await, [valley]);
    assert_eq!(listed("cam-1&from=2099-03-10T21:00:00Z&to=2099-03-10T21:00:01Z").await.len(), 2);
    for (time, when) in
        [("from=2099-03-10T22:00:00Z", "they are over"), ("to=2099-03-10T20:00:00Z", "they begin later")]
    {
        assert!(listed(&format!("cam-1&{time}")).await.is_empty(), "{when}");
    }
    assert_eq!(api.viewer().get("/api/v1/downtimes?host=nope").await.status, 404);
    let id = api.viewer().get("/api/v1/hosts/cam-1").await.json["id"].as_str().unwrap().to_owned();
    assert_eq!(listed(&id).await.len(), 2);
    assert_eq!(api.operator().delete("/api/v1/devices/cam-1").await.status, 204);
    let gone = api.viewer().get(&format!("/api/v1/downtimes?host={id}")).await;
    assert_eq!(gone.status, 404, "labels select a removed host no more: {}", gone.text);
}

#[tokio::test]
async fn a_recurrence_without_a_time_zone_falls_back_to_that_of_its_labels() {
    let mut api = TestApi::with_endpoint().await;
    let _tasks = api.start_monitor();
    let nas = json!({ "name": "nas", "labels": { "timezone": "Europe/Vienna" } });
    assert_eq!(api.operator().post("/api/v1/devices", nas).await.status, 201);
    let sundays = json!({ "every": "sun", "from": "02:00", "to": "04:00", "time_zone": "Asia/Tokyo" });
    let of_host = plan(&api, "/hosts/nas/downtimes", json!({ "recurrence": sundays })).await;
    let labels = json!({ "timezone": "Europe/Rome" });
    let of_labels = plan(&api, "/downtimes", json!({ "labels": labels, "recurrence": sundays })).await;
    let labels = json!({ "site": "hill" });
    let of_others = plan(&api, "/downtimes", json!({ "labels": labels, "recurrence": sundays })).await;
    for (path, zone) in [(of_host, "Europe/Vienna"), (of_labels, "Europe/Rome"), (of_others, "UTC")] {
        let kept = api.operator().patch(&path, json!({ "recurrence": { "to": "05:00" } })).await;
        assert_eq!(kept.json["recurrence"]["time_zone"], "Asia/Tokyo", "{}", kept.text);
        let changed = api.operator().patch(&path, json!({ "recurrence": { "time_zone": null } })).await;
        assert_eq!((changed.status, &changed.json["recurrence"]["time_zone"]), (200, &json!(zone)));
    }
}

#[tokio::test]
async fn a_flexible_downtime_says_when_it_has_begun() {
    let ward = Ward::new(json!({})).await;
    ward.sends(0).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let plan = json!({ "end": soon.to_string(), "fixed": false, "duration_s": 600 });
    let plan = ward.post("/hosts/nas/services/backup/downtimes", plan).await;
    assert_eq!((plan.status, &plan.json["begun_at"]), (201, &Value::Null), "{}", plan.text);
    let path = format!("/downtimes/{}", plan.json["id"].as_str().unwrap());
    assert_eq!(ward.get(&path).await["begun_at"], Value::Null);
    ward.sends(2).await;
    let begun = ward.get(&path).await["begun_at"].clone();
    let at: jiff::Timestamp = begun.as_str().expect("it has begun").parse().unwrap();
    assert!((jiff::Timestamp::now() - at).get_seconds() < 60, "{begun}");
}

#[tokio::test]
async fn a_flexible_downtime_that_has_begun_stays_when_it_is() {
    let ward = Ward::new(json!({})).await;
    ward.sends(0).await;
    let hours = |n| (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(n)).to_string();
    let work = json!({ "end": hours(2), "fixed": false, "duration_s": 600 });
    let made = ward.post("/hosts/nas/services/backup/downtimes", work).await;
    let path = format!("/api/v1/downtimes/{}", made.json["id"].as_str().unwrap());
    let operator = ward.api.operator();
    assert_eq!(operator.patch(&path, json!({ "end": hours(3) })).await.status, 200, "it has not begun");
    ward.sends(2).await;
    for (field, value) in [("start", json!(hours(1))), ("end", json!(hours(4))), ("duration_s", json!(900))] {
        let refused = operator.patch(&path, json!({ field: value })).await;
        let error = json!({ "field": field, "detail": "it has begun; end it and plan another one" });
        assert_eq!((refused.status, &refused.json["errors"]), (422, &json!([error])), "{}", refused.text);
    }
    let same = json!({ "duration_s": 600, "comment": "new disk" });
    let changed = operator.patch(&path, same).await;
    assert_eq!((changed.status, &changed.json["comment"]), (200, &json!("new disk")), "{}", changed.text);
}

/// Makes every downtime one whose window closed an hour ago, and which a failure began then or never.
async fn closed(api: &TestApi, begun: &'static str) {
    let closed = "update downtimes set start_at = 1000 * unixepoch() - 7200000, begun_at = null,
                      end_at = 1000 * unixepoch() - 3600000, created_at = 1000 * unixepoch() - 7200000";
    fixture::run(&api.state.store, closed, &[]).await;
    fixture::run(&api.state.store, begun, &[]).await;
}

#[tokio::test]
async fn a_flexible_downtime_that_outlasts_its_window_can_be_changed_until_it_is_over() {
    let mut api = api().await;
    let _tasks = api.start_monitor();
    let work = || {
        json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z", "fixed": false,
            "duration_s": 7200 })
    };
    let one = plan(&api, "/hosts/cam-1/downtimes", work()).await;
    let mut of_labels = work();
    of_labels["labels"] = json!({ "site": "hill" });
    let many = plan(&api, "/downtimes", of_labels).await;
    let changed = async |path: &str, comment: &str| {
        api.operator().patch(path, json!({ "comment": comment })).await.status
    };
    closed(&api, "update downtimes set begun_at = 1000 * unixepoch() - 5400000").await;
    assert_eq!((changed(&one, "a").await, changed(&many, "a").await), (200, 200), "both run");
    let end = api.viewer().get(&one).await.json["end"].clone();
    assert_eq!(api.operator().patch(&one, json!({ "end": end })).await.status, 200, "it stays");
    let later = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let moved = api.operator().patch(&one, json!({ "end": later })).await;
    assert_eq!((moved.status, &moved.json["errors"][0]["field"]), (422, &json!("end")), "{}", moved.text);
    // The hosts that the labels select begin it one by one, so another may have begun later.
    closed(&api, "update downtimes set begun_at = 1000 * unixepoch() - 7200000").await;
    assert_eq!((changed(&one, "b").await, changed(&many, "b").await), (409, 200), "the one is over");
    closed(&api, "update downtimes set begun_at = null").await;
    assert_eq!((changed(&one, "c").await, changed(&many, "c").await), (409, 409), "none has begun");
}

/// Returns what the monitor was told of downtimes.
fn heard(api: &mut TestApi) -> Vec<&'static str> {
    let inputs = std::iter::from_fn(|| api.monitor.try_recv().ok());
    let words = inputs.filter_map(|input| match input {
        MonitorInput::Downtime(_) => Some("planned"),
        MonitorInput::CancelDowntime(_) => Some("cancelled"),
        _ => None,
    });
    words.collect()
}

#[tokio::test]
async fn the_monitor_is_told_what_the_row_says() {
    let mut api = api().await;
    let work = json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z" });
    let path = plan(&api, "/hosts/cam-1/downtimes", work).await;
    assert_eq!(heard(&mut api), ["planned"]);
    api.state.handle.fail(1);
    assert_eq!(api.operator().delete(&path).await.status, 204);
    assert!(heard(&mut api).is_empty() && api.state.handle.is_behind());
    assert!(api.state.handle.repeat().await && !api.state.handle.is_behind());
    assert_eq!(heard(&mut api), ["cancelled"]);
    // A change that was committed before the removal, and whose turn comes after it.
    let id = IdKind::Downtime.parse(path.rsplit('/').next().unwrap()).ok().unwrap();
    let late = Changes { downtimes: [id].into(), ..Changes::default() };
    api.state.handle.changed(late).await;
    assert_eq!(heard(&mut api), ["cancelled"], "and does not bring it back");
}

/// As many as may be open, without the way over the API.
const OF_HOSTS: &str =
    "with recursive n (i) as (select 100000 union all select i + 1 from n where i < 109999)
    insert into downtimes (id, host, start_at, end_at, author, comment, created_at)
    select i, (select id from hosts where name = 'cam-1'), 0, 4070908800000, 'x', '', 0 from n";
const BY_LABELS: &str =
    "with recursive n (i) as (select 200000 union all select i + 1 from n where i < 200999)
    insert into downtimes (id, labels, start_at, end_at, author, comment, created_at)
    select i, '{\"site\":\"hill\"}', 0, 4070908800000, 'x', '', 0 from n";

#[tokio::test]
async fn open_downtimes_of_hosts_and_those_by_labels_have_limits_of_their_own() {
    let api = api().await;
    let of_host =
        json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z", "comment": "new disk" });
    let by_labels = json!({
        "labels": { "site": "hill" }, "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z",
        "comment": "new disk",
    });
    for (path, body, full, cancel) in [
        ("/api/v1/hosts/cam-1/downtimes", of_host, OF_HOSTS, "100000"),
        ("/api/v1/downtimes", by_labels, BY_LABELS, "200000"),
    ] {
        fixture::run(&api.state.store, full, &[]).await;
        let refused = api.operator().post(path, body.clone()).await;
        assert_eq!((refused.status, refused.code()), (409, "limit_reached"), "{}", refused.text);
        let sql = "update downtimes set cancelled_at = 5 where id = cast($1 as integer)";
        fixture::run(&api.state.store, sql, &[cancel]).await;
        let made = api.operator().post(path, body).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
}

//! The states of a host and its services as intervals, and the events of the same time.

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use serde_json::{Value, json};

use crate::api::request::ids::{self, IdKind};
use crate::api::testing::TestApi;
use crate::store::fixture;
use crate::store::intervals::{self, Change, Series};

async fn device(api: &TestApi) -> HostId {
    let made = api.operator().post("/api/v1/devices", json!({ "name": "cam-07" })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = IdKind::Host.parse(made.json["device"]["id"].as_str().unwrap()).unwrap();
    api.state.store.all_hosts(&fixture::TIMING).await.unwrap();
    id
}

async fn get(api: &TestApi, path: &str) -> Value {
    let answer = api.viewer().get(&format!("/api/v1{path}")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json
}

#[tokio::test]
async fn states_are_shown_as_intervals_the_host_first() {
    let api = TestApi::with_endpoint().await;
    let host = device(&api).await;
    let minute = |n: i64| Wall::from_millis(1_773_000_000_000 + n * 60_000);
    let change = |service: &'static str, series, at: i64, begins| Change {
        host,
        service,
        series,
        at: minute(at),
        since: None,
        begins,
        measured_at: None,
    };
    let changes = [
        change("ping", Series::State, 1, Some("ok")),
        change("", Series::State, 0, Some("up")),
        change("", Series::Downtime, 2, Some("")),
        change("", Series::Downtime, 3, None),
        change("", Series::State, 4, Some("down")),
    ];
    let mut tx = api.state.store.begin().await.unwrap();
    intervals::write(&mut tx, &changes).await.unwrap();
    tx.commit().await.unwrap();

    let path = |from: i64, to: i64, more: &str| {
        let (from, to) = (ids::time(minute(from)), ids::time(minute(to)));
        format!("/hosts/cam-07/intervals?from={from}&to={to}{more}")
    };
    let at = |n: i64| ids::time(minute(n));
    let up = json!({ "series": "state", "value": "up", "from": at(0), "until": at(4) });
    let down = json!({ "series": "state", "value": "down", "from": at(4) });
    let downtime = json!({ "series": "downtime", "value": null, "from": at(2), "until": at(3) });
    let ping = json!({ "service": "ping", "series": "state", "value": "ok", "from": at(1) });
    let all = json!([downtime, up, down, ping]);
    assert_eq!(get(&api, &path(0, 9, "")).await["items"], all);
    assert_eq!(get(&api, &path(3, 4, "")).await["items"], json!([up, ping]), "what touches the time");
    assert_eq!(get(&api, &path(5, 9, "&service=tunnel")).await["items"], json!([down]));
    for bad in ["from=yesterday", "from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"] {
        let refused = api.viewer().get(&format!("/api/v1/hosts/cam-07/intervals?{bad}")).await;
        assert_eq!((refused.status, refused.code()), (400, "bad_query"), "{bad}: {}", refused.text);
    }
    assert_eq!(api.viewer().get("/api/v1/hosts/cam-08/intervals").await.status, 404);
    assert_eq!(api.operator().delete("/api/v1/devices/cam-07").await.status, 204);
    let gone = format!("/hosts/{}/intervals?from={}&to={}", IdKind::Host.text(host), at(0), at(2));
    assert_eq!(get(&api, &gone).await["items"][0]["value"], "up", "of a removed host by its id");
}

#[tokio::test]
async fn a_time_with_too_many_intervals_is_refused_with_what_to_do() {
    let api = TestApi::with_endpoint().await;
    device(&api).await;
    let fill = "with recursive n (x) as (values (0) union all select x + 1 from n where x < 10000)
                insert into intervals (host, service, series, value, began_at, ended_at)
                select h.id, 'ping', 'state', iif(x % 2, 'ok', 'critical'), x * 1000, (x + 1) * 1000
                from n join hosts h on h.name = 'cam-07'";
    fixture::run(&api.state.store, fill, &[]).await;
    let path =
        |to: &str| format!("/api/v1/hosts/cam-07/intervals?from=1970-01-01T00:00:00Z&to=1970-01-01T{to}Z");
    let refused = api.viewer().get(&path("02:46:41")).await;
    assert_eq!(
        (refused.status, &refused.json["errors"][0]["field"]),
        (422, &json!("from")),
        "{}",
        refused.text
    );
    assert!(refused.text.contains("more than 10000 intervals: ask for a later begin"), "{}", refused.text);
    let most = api.viewer().get(&path("02:46:40")).await;
    assert_eq!(most.json["items"].as_array().map(Vec::len), Some(10_000));
}

#[tokio::test]
async fn events_of_a_host_are_selected_by_time() {
    let api = TestApi::with_endpoint().await;
    device(&api).await;
    let kinds = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    };
    let all = kinds(&get(&api, "/events?host=cam-07").await);
    assert!(all.contains(&"device.created".to_owned()), "{all:?}");
    let later = crate::clock::wall() + std::time::Duration::from_secs(60);
    let later = ids::time(later);
    assert_eq!(kinds(&get(&api, &format!("/events?host=cam-07&to={later}")).await), all);
    assert!(kinds(&get(&api, &format!("/events?host=cam-07&from={later}")).await).is_empty());
    let between = "from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z";
    assert!(kinds(&get(&api, &format!("/events?host=cam-07&{between}")).await).is_empty());
    let others = kinds(&get(&api, "/events?host=cam-07&without=device,state").await);
    let is_left_out = |kind: &String| ["device", "state"].contains(&kind.split('.').next().unwrap());
    assert_eq!(others, all.iter().filter(|kind| !is_left_out(kind)).cloned().collect::<Vec<_>>());
    assert!(others.len() < all.len(), "{all:?}");
    let backwards = "from=2020-01-02T00:00:00Z&to=2020-01-01T00:00:00Z";
    for (bad, named) in [
        (format!("/events?{between}"), "only with host"),
        ("/events?without=state".into(), "only with host"),
        ("/events?host=cam-07&from=x".into(), "from: "),
        (format!("/events?host=cam-07&{backwards}"), "from: a time before `to` is expected"),
    ] {
        let refused = api.viewer().get(&format!("/api/v1{bad}")).await;
        assert_eq!((refused.status, refused.code()), (400, "bad_query"), "{bad}: {}", refused.text);
        assert!(refused.text.contains(named), "{bad}: {}", refused.text);
    }
    let audit = api.admin().get(&format!("/api/v1/audit?host=cam-07&to={later}")).await;
    assert!(kinds(&audit.json).contains(&"device.created".to_owned()), "{}", audit.text);
}

//! Results, acknowledgements, downtimes and settings, with a real monitor and the real writer.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::testing::{Answer, TestApi};

/// An API with a running monitor, and a device that sends the results of its `backup`.
pub(super) struct Ward {
    pub(super) api: TestApi,
    _tasks: JoinSet<()>,
}

impl Ward {
    pub(super) async fn new(settings: Value) -> Ward {
        let mut api = TestApi::with_endpoint().await;
        let tasks = api.start_monitor();
        let ward = Ward { api, _tasks: tasks };
        let body = json!({ "name": "nas", "labels": { "site": "north" } });
        assert_eq!(ward.api.operator().post("/api/v1/devices", body).await.status, 201);
        let mut service = json!({ "check": { "type": "passive" }, "max_check_attempts": 1 });
        service.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let put = ward.api.operator().put("/api/v1/hosts/nas/services/backup", service).await;
        assert_eq!(put.status, 200, "{}", put.text);
        ward
    }

    pub(super) async fn post(&self, path: &str, body: Value) -> Answer {
        self.api.operator().post(&format!("/api/v1{path}"), body).await
    }

    pub(super) async fn delete(&self, path: &str) -> u16 {
        self.api.operator().delete(&format!("/api/v1{path}")).await.status
    }

    pub(super) async fn sends(&self, exit_status: u32) -> Answer {
        let body = json!({ "exit_status": exit_status, "output": "copied | size=12MB;;;0" });
        self.post("/hosts/nas/services/backup/results", body).await
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        self.api.viewer().get(&format!("/api/v1{path}")).await.json
    }

    pub(super) async fn backup(&self) -> Value {
        self.get("/hosts/nas/services/backup").await
    }

    pub(super) async fn kinds(&self) -> Vec<String> {
        let events = self.get("/events?since=0&host=nas&limit=500").await;
        let words = |e: &Value| {
            let reason = e["data"]["reason"].as_str().map(|r| format!(" {r}")).unwrap_or_default();
            format!("{}{reason}", e["kind"].as_str().unwrap())
        };
        events["items"].as_array().unwrap().iter().map(words).collect()
    }
}

#[tokio::test]
async fn a_result_is_on_disk_with_its_answer() {
    let ward = Ward::new(json!({})).await;
    let taken = ward.sends(2).await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    let service = &taken.json["service"];
    assert_eq!((&service["state"], &service["route"]), (&json!("critical"), &json!("passive")));
    assert_eq!(service["metrics"][0]["value"], 12.0);
    assert_eq!(ward.backup().await["state"], "critical");
    let older = json!({ "exit_status": 0, "timestamp": "2020-01-01T00:00:00Z" });
    let ignored = ward.post("/hosts/nas/services/backup/results", older).await;
    assert_eq!((ignored.status, ignored.json), (200, json!({ "ignored": "older" })));
    let future = json!({ "exit_status": 1, "timestamp": 4_000_000_000.0_f64 });
    assert_eq!(ward.post("/hosts/nas/services/backup/results", future).await.status, 202);
    assert_eq!(ward.sends(0).await.json["service"]["state"], "ok", "what came from the future is overridden");
    let host = ward.post("/hosts/nas/results", json!({ "exit_status": 1, "output": "here" })).await;
    assert_eq!((host.status, &host.json["host"]["state"]["state"]), (202, &json!("up")));
    let nowhere = ward.post("/hosts/nas/services/nope/results", json!({ "exit_status": 0 })).await;
    assert_eq!(nowhere.status, 404);
    let wrong = ward.post("/hosts/nas/services/backup/results", json!({ "status": 0 })).await;
    assert!((400..500).contains(&wrong.status), "{}", wrong.text);
    let viewer = ward.api.viewer().post("/api/v1/hosts/nas/results", json!({ "exit_status": 0 })).await;
    assert_eq!(viewer.status, 403);
}

#[tokio::test]
async fn a_result_of_a_host_is_shown_whole_and_judged_by_its_limits() {
    let ward = Ward::new(json!({})).await;
    let send = async |output: &str| {
        let sent = ward.post("/hosts/nas/results", json!({ "exit_status": 0, "output": output })).await;
        assert_eq!(sent.status, 202, "{}", sent.text);
        sent.json["host"]["state"].clone()
    };
    let state = send("fine | load=5;;;0 x=,\nmore").await;
    assert_eq!((&state["text"], &state["long_text"]), (&json!("fine"), &json!("more")));
    assert_eq!((&state["metrics"][0]["label"], &state["metrics"][0]["value"]), (&json!("load"), &json!(5.0)));
    assert_eq!(state["parse_warnings"].as_array().unwrap().len(), 1);
    assert_eq!(ward.get("/hosts").await["items"][0]["state"]["long_text"], "", "not in lists");
    let operator = ward.api.operator();
    let limits = json!({ "thresholds": [{ "metric": "load", "warn": "4", "crit": "8" }] });
    let set = operator.patch("/api/v1/hosts/nas", limits.clone()).await;
    assert_eq!((set.status, &set.json["thresholds"]), (200, &limits["thresholds"]), "{}", set.text);
    let bad = json!({ "thresholds": [{ "metric": "load", "warn": "-4" }] });
    let bad = operator.patch("/api/v1/hosts/nas", bad).await;
    assert_eq!((bad.status, &bad.json["errors"][0]["field"]), (422, &json!("thresholds[0].warn")));
    assert_eq!(send("fine | load=5").await["text"], "fine; load 5 is above 4 (warning)");
    assert_eq!(send("fine | load=9").await["last_result"], "down");
    assert_eq!(ward.backup().await["reachable"], true);
}

#[tokio::test]
async fn an_acknowledgement_names_its_author_and_ends_with_the_state() {
    let ward = Ward::new(json!({})).await;
    let path = "/hosts/nas/services/backup/acknowledgement";
    ward.sends(0).await;
    let well = ward.post(path, json!({ "comment": "x" })).await;
    assert_eq!((well.status, well.code()), (409, "not_a_problem"));
    ward.sends(2).await;
    let made =
        ward.post(path, json!({ "comment": "new disk is coming", "expires": "2099-01-01T00:00:00Z" })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert!(made.json["author"].as_str().unwrap().starts_with("token:t_"));
    let backup = ward.backup().await;
    assert_eq!(
        (&backup["acknowledged"], &backup["acknowledgement"]["comment"]),
        (&json!(true), &json!("new disk is coming"))
    );
    ward.sends(1).await;
    assert_eq!(ward.backup().await["acknowledged"], false, "it was not sticky");
    assert_eq!(ward.post(path, json!({ "sticky": true })).await.status, 201);
    assert_eq!((ward.delete(path).await, ward.delete(path).await), (204, 404));
    assert_eq!(ward.post(path, json!({ "expires": "2020-01-01T00:00:00Z" })).await.status, 422);
    let kinds = ward.kinds().await;
    for kind in ["acknowledgement.added", "acknowledgement.ended", "acknowledgement.withdrawn"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind} in {kinds:?}");
    }
}

#[tokio::test]
async fn what_a_service_holds_back_by_its_own_delay_is_not_said_to_wait_for_a_rules() {
    let ward = Ward::new(json!({ "notify": { "delay_s": 3600 } })).await;
    ward.sends(2).await;
    let held = ward.get("/notifications?object=nas/backup").await;
    let outcome = &held["items"][0]["outcomes"][0];
    assert_eq!((&outcome["outcome"], &outcome["reason"]), (&json!("suppressed"), &json!("delay")), "{held}");
    assert_eq!(outcome["text"], "notify.delay_s has not passed yet");
}

#[tokio::test]
async fn a_host_says_who_knows_of_its_problem() {
    let ward = Ward::new(json!({})).await;
    assert_eq!(ward.get("/hosts/nas").await["acknowledgement"], Value::Null);
    for _ in 0..3 {
        assert_eq!(ward.post("/hosts/nas/results", json!({ "exit_status": 2 })).await.status, 202);
    }
    let made = ward.post("/hosts/nas/acknowledgement", json!({ "comment": "on my way" })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(ward.get("/hosts/nas").await["acknowledgement"]["comment"], "on my way");
    assert_eq!(ward.backup().await["acknowledgement"], Value::Null, "its service is another matter");
}

#[tokio::test]
async fn a_downtime_is_in_effect_when_it_is_answered() {
    let ward = Ward::new(json!({})).await;
    ward.sends(0).await;
    let plan = json!({ "end": "2099-01-01T00:00:00Z", "comment": "moving" });
    let far = ward.post("/hosts/nas/downtimes", plan.clone()).await;
    assert_eq!((far.status, far.code()), (422, "invalid"), "a year is the longest");
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2);
    let plan = json!({ "labels": { "site": "north" }, "end": soon.to_string(), "comment": "moving" });
    let made = ward.post("/downtimes", plan.clone()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(ward.backup().await["in_downtime"], true);
    assert_eq!(ward.get("/hosts/nas").await["state"]["in_downtime"], true);
    ward.sends(2).await;
    assert!(ward.kinds().await.contains(&"notification.suppressed downtime".to_owned()));
    let id = made.json["id"].as_str().unwrap();
    assert_eq!(ward.get("/downtimes").await["items"][0]["id"], json!(id));
    assert_eq!(ward.delete(&format!("/downtimes/{id}")).await, 204);
    assert_eq!(ward.backup().await["in_downtime"], false);
    assert_eq!(ward.get("/downtimes").await["items"], json!([]));
    assert_ne!(ward.get("/downtimes?all=true").await["items"][0]["cancelled_at"], Value::Null);
    let told = &ward.get("/notifications?object=nas/backup").await["items"][0];
    assert_eq!((&told["type"], &told["outcome"]), (&json!("problem"), &json!("new")), "told at the end");
    let flexible = json!({ "end": soon.to_string(), "fixed": false, "duration_s": 600 });
    let made = ward.post("/hosts/nas/services/backup/downtimes", flexible).await;
    assert_eq!((made.status, &made.json["fixed"]), (201, &json!(false)), "{}", made.text);
    assert_eq!(ward.backup().await["in_downtime"], true, "it fails already");
    assert_eq!(ward.get("/hosts/nas").await["state"]["in_downtime"], false);
}

#[tokio::test]
async fn a_downtime_comes_again_and_its_events_say_which() {
    let ward = Ward::new(json!({})).await;
    ward.sends(0).await;
    let always = json!({ "every": "day", "from": "00:00", "to": "24:00" });
    let body = json!({ "labels": { "site": "north" }, "recurrence": always, "comment": "rework" });
    let made = ward.post("/downtimes", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let expected = json!({ "every": "day", "from": "00:00", "to": "24:00", "time_zone": "UTC",
        "first_date": null, "last_date": null });
    assert_eq!((&made.json["recurrence"], &made.json["fixed"]), (&expected, &json!(true)));
    assert_eq!(ward.backup().await["in_downtime"], true);
    let events = ward.get("/events?since=0&host=nas&kind=downtime.started").await;
    let said = &events["items"][0]["data"];
    assert_eq!((&said["id"], &said["from"]), (&made.json["id"], &made.json["start"]));
    assert_eq!(ward.delete(&format!("/downtimes/{}", made.json["id"].as_str().unwrap())).await, 204);
    assert_eq!(ward.backup().await["in_downtime"], false);

    let zoned = json!({ "labels": { "timezone": "Europe/Vienna" } });
    assert_eq!(ward.api.operator().patch("/api/v1/hosts/nas", zoned).await.status, 200);
    let next = json!({ "every": "2nd tuesday", "from": "23:00", "to": "1:00" });
    let made = ward.post("/hosts/nas/downtimes", json!({ "recurrence": next })).await;
    assert_eq!(made.json["recurrence"]["time_zone"], "Europe/Vienna", "{}", made.text);
    assert_eq!(
        (&made.json["recurrence"]["every"], &made.json["recurrence"]["to"]),
        (&json!("2nd tue"), &json!("01:00"))
    );
    assert_eq!(ward.get("/downtimes").await["items"][0]["start"], made.json["start"]);
}

#[tokio::test]
async fn a_recurrence_that_makes_no_sense_is_refused_by_its_field() {
    let ward = Ward::new(json!({})).await;
    let daily = |field: &str, value: &str| {
        let mut daily = json!({ "every": "day", "from": "02:00", "to": "04:00", "time_zone": "UTC" });
        daily[field] = json!(value);
        daily
    };
    let table = [
        (json!({ "recurrence": daily("every", "someday") }), "recurrence.every"),
        (json!({ "recurrence": daily("from", "2 am") }), "recurrence.from"),
        (json!({ "recurrence": daily("to", "02:00") }), "recurrence.to"),
        (json!({ "recurrence": daily("time_zone", "Mars") }), "recurrence.time_zone"),
        (json!({ "recurrence": daily("last_date", "2020-01-01") }), "recurrence"),
        (json!({ "recurrence": daily("every", "day"), "end": "2099-01-01T00:00:00Z" }), "end"),
        (json!({ "recurrence": daily("every", "day"), "duration_s": 60 }), "duration_s"),
        (json!({}), "end"),
    ];
    for (body, field) in table {
        let refused = ward.post("/hosts/nas/downtimes", body).await;
        assert_eq!(
            (refused.status, &refused.json["errors"][0]["field"]),
            (422, &json!(field)),
            "{}",
            refused.text
        );
    }
}

#[tokio::test]
async fn settings_of_what_is_told_are_kept_and_wrong_ones_named() {
    let ward =
        Ward::new(json!({ "freshness_s": 90, "volatile": true, "notify": { "states": ["critical"] } })).await;
    let stored = ward.get("/hosts/nas/overrides").await;
    let backup = &stored["items"][0];
    assert_eq!((&backup["freshness_s"], &backup["notify"]["states"]), (&json!(90.0), &json!(["critical"])));
    ward.sends(1).await;
    assert!(ward.kinds().await.contains(&"notification.suppressed state_filter".to_owned()));
    let change = json!({ "flapping": { "high": 50 }, "notify": { "interval_s": 3600 }, "parents": ["nas"] });
    let itself = ward.api.operator().patch("/api/v1/hosts/nas", change).await;
    assert_eq!((itself.status, &itself.json["errors"][0]["field"]), (422, &json!("parents")));
    let body = json!({ "name": "router" });
    assert_eq!(ward.post("/devices", body).await.status, 201);
    let change =
        json!({ "flapping": { "high": 50 }, "notify": { "interval_s": 3600 }, "parents": ["router"] });
    let set = ward.api.operator().patch("/api/v1/hosts/nas", change).await;
    assert_eq!(set.status, 200, "{}", set.text);
    assert_eq!((&set.json["parents"], &set.json["flapping"]["high"]), (&json!(["router"]), &json!(50.0)));
    let circle = ward.api.operator().patch("/api/v1/hosts/router", json!({ "parents": ["nas"] })).await;
    assert_eq!(circle.status, 422);
    assert!(circle.text.contains("would be a loop"), "{}", circle.text);
    let well = json!({ "notify": { "states": ["ok"] } });
    assert_eq!(ward.api.operator().patch("/api/v1/hosts/nas", well.clone()).await.status, 422);
    assert_eq!(ward.api.operator().put("/api/v1/hosts/nas/services/backup", well).await.status, 422);
    let wrong = ward.api.operator().patch("/api/v1/hosts/nas", json!({ "flapping": { "low": 60 } })).await;
    assert_eq!(wrong.status, 422, "{}", wrong.text);
    let back = ward.api.operator().patch("/api/v1/hosts/nas", json!({ "flapping": null })).await;
    assert_eq!((&back.json["flapping"], &back.json["notify"]["interval_s"]), (&Value::Null, &json!(3600.0)));
}

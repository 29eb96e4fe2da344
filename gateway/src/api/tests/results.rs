//! Results over the API: found in memory, committed before the response, and many in one call. A
//! real monitor and the real writer run.

use axum::body::Body;
use serde_json::{Value, json};

use super::repeated::{attempt, lock, patient, unlock};
use super::with_monitor::Ward;
use crate::api::testing::Answer;
use crate::store::fixture;

const BACKUP: &str = "/hosts/nas/services/backup/results";

fn ok() -> Value {
    json!({ "exit_status": 0, "output": "fine | a=1" })
}

async fn put(ward: &Ward, path: &str, body: Value) {
    let put = ward.api.operator().put(&format!("/api/v1{path}"), body).await;
    assert!(put.status < 300, "{path}: {}", put.text);
}

/// Creates a host with one passive service.
async fn another(ward: &Ward, name: &str, service: &str) {
    assert_eq!(ward.post("/devices", json!({ "name": name })).await.status, 201);
    put(ward, &format!("/hosts/{name}/services/{service}"), json!({ "check": { "type": "passive" } })).await;
}

fn of(host: &str, service: &str, exit_status: u32) -> Value {
    json!({ "host": host, "service": service, "exit_status": exit_status, "output": "x" })
}

async fn many(ward: &Ward, results: &[Value]) -> Answer {
    ward.post("/results", json!({ "results": results })).await
}

async fn with_key(ward: &Ward, key: &str, results: &[Value]) -> Answer {
    let caller = ward.api.operator().header("idempotency-key", key);
    caller.post("/api/v1/results", json!({ "results": results })).await
}

/// Returns the outcomes in order, each refusal as its code.
fn outcomes(answer: &Answer) -> Vec<&str> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let outcomes = answer.json["results"].as_array().expect("outcomes").iter();
    outcomes.filter_map(|o| o["problem"]["code"].as_str().or(o["outcome"].as_str())).collect()
}

// ------------------------------------------------------- found, and answered

#[tokio::test]
async fn the_answer_shows_what_a_reading_after_it_shows() {
    let ward = Ward::new(json!({})).await;
    ward.post("/hosts/nas/results", json!({ "exit_status": 0, "output": "here" })).await;
    let same = async |what: &str, exit_status: u32| {
        let sent = ward.sends(exit_status).await;
        assert_eq!((sent.status, &sent.json["service"]), (202, &ward.backup().await), "{what}");
        sent.json["service"].clone()
    };
    same("well", 0).await;
    let failed = same("a problem", 2).await;
    assert!(failed["incident"].is_string() && failed["metrics"][0]["uom"] == "MB", "{failed}");
    let ack = ward.post("/hosts/nas/services/backup/acknowledgement", json!({ "comment": "a disk" })).await;
    assert!(ack.status < 300, "{}", ack.text);
    let known = same("acknowledged", 2).await;
    assert_eq!(
        (&known["acknowledged"], &known["acknowledgement"]["comment"]),
        (&json!(true), &json!("a disk"))
    );
    assert_eq!(same("over", 0).await["acknowledged"], false);
    ward.post("/hosts/nas/results", json!({ "exit_status": 2, "output": "gone" })).await;
    same("its host is down", 1).await;
}

#[tokio::test]
async fn a_result_that_was_taken_before_is_answered_with_the_present_state() {
    let ward = Ward::new(json!({})).await;
    let caller = ward.api.operator().header("idempotency-key", "k");
    let path = format!("/api/v1{BACKUP}");
    assert_eq!(caller.post(&path, ok()).await.status, 202);
    ward.sends(2).await;
    let again = caller.post(&path, ok()).await;
    assert_eq!((again.status, &again.json["repeated"]), (202, &json!(true)));
    assert_eq!(again.json["service"], ward.backup().await);
}

/// Returns the status for a result at `path`, and for the same result among many.
async fn both(ward: &Ward, host: &str, service: &str) -> [u16; 2] {
    let single = ward.post(&format!("/hosts/{host}/services/{service}/results"), ok()).await.status;
    let answer = many(ward, &[of(host, service, 0)]).await;
    let outcome = &answer.json["results"][0];
    let batched =
        if outcome["outcome"] == "taken" { 202 } else { outcome["problem"]["status"].as_u64().unwrap() };
    [single, batched as u16]
}

#[tokio::test]
async fn what_was_changed_counts_for_the_next_result() {
    let ward = Ward::new(json!({})).await;
    assert_eq!(both(&ward, "nas", "backup").await, [202, 202]);
    let operator = ward.api.operator();
    let off = json!({ "check": { "type": "passive" }, "disabled": true });
    put(&ward, "/hosts/nas/services/backup", off).await;
    assert_eq!(both(&ward, "nas", "backup").await, [404, 404], "switched off");
    put(&ward, "/hosts/nas/services/backup", json!({ "check": { "type": "passive" } })).await;
    assert_eq!(both(&ward, "nas", "backup").await, [202, 202], "and on again");
    let renamed = operator.patch("/api/v1/hosts/nas", json!({ "name": "store" })).await;
    assert_eq!(renamed.status, 200, "{}", renamed.text);
    assert_eq!(
        (both(&ward, "nas", "backup").await, both(&ward, "store", "backup").await),
        ([404; 2], [202; 2])
    );
    another(&ward, "nas", "sync").await;
    assert_eq!((both(&ward, "nas", "backup").await, both(&ward, "nas", "sync").await), ([404; 2], [202; 2]));
    assert_eq!(operator.delete("/api/v1/devices/store").await.status, 204);
    assert_eq!(both(&ward, "store", "backup").await, [404, 404], "removed");
}

#[tokio::test]
async fn a_profile_that_changes_counts_for_the_next_result_of_every_host_that_has_it() {
    let ward = Ward::new(json!({})).await;
    let job = |name: &str| json!({ "services": { name: { "check": { "type": "passive" } } } });
    put(&ward, "/profiles/jobs", job("first")).await;
    for name in ["a", "b"] {
        assert_eq!(ward.post("/devices", json!({ "name": name, "profile": "jobs" })).await.status, 201);
        assert_eq!(both(&ward, name, "first").await, [202, 202]);
    }
    put(&ward, "/profiles/jobs", job("second")).await;
    for name in ["a", "b"] {
        assert_eq!(
            (both(&ward, name, "first").await, both(&ward, name, "second").await),
            ([404; 2], [202; 2])
        );
    }
}

#[tokio::test]
async fn a_change_that_the_engine_has_not_heard_of_counts_all_the_same() {
    let ward = Ward::new(json!({})).await;
    another(&ward, "other", "sync").await;
    assert_eq!(
        (both(&ward, "nas", "backup").await, both(&ward, "other", "sync").await),
        ([202; 2], [202; 2])
    );
    ward.api.state.handle.fail(9);
    put(&ward, "/hosts/nas/services/backup", json!({ "check": { "type": "passive" }, "disabled": true }))
        .await;
    assert_eq!(ward.api.operator().delete("/api/v1/devices/other").await.status, 204);
    assert!(ward.api.state.handle.is_behind());
    assert_eq!(
        (both(&ward, "nas", "backup").await, both(&ward, "other", "sync").await),
        ([404; 2], [404; 2])
    );
}

#[tokio::test]
async fn a_token_that_is_revoked_sends_nothing_more() {
    let ward = Ward::new(json!({})).await;
    let (admin, wanted) = (ward.api.admin(), json!({ "name": "ci", "role": "operator" }));
    let made = admin.post("/api/v1/tokens", wanted).await.json;
    let sender = ward.api.anonymous().bearer(made["secret"].as_str().unwrap());
    let path = format!("/api/v1{BACKUP}");
    for _ in 0..2 {
        assert_eq!(sender.post(&path, ok()).await.status, 202);
    }
    let id = made["token"]["id"].as_str().or(made["id"].as_str()).expect("an id");
    assert_eq!(admin.delete(&format!("/api/v1/tokens/{id}")).await.status, 204);
    let refused = sender.post(&path, ok()).await;
    assert_eq!((refused.status, refused.code()), (401, "token_refused"));
    let wrong =
        format!("{}x", &made["secret"].as_str().unwrap()[..made["secret"].as_str().unwrap().len() - 1]);
    assert_eq!(ward.api.anonymous().bearer(&wrong).post(&path, ok()).await.status, 401);
}

// ---------------------------------------------------------------------- many

#[tokio::test]
async fn each_of_many_has_its_outcome_and_a_refused_one_stops_no_other() {
    let ward = Ward::new(json!({})).await;
    let old = json!({ "host": "nas", "service": "backup", "exit_status": 0, "timestamp": 1_000_000_000 });
    let sent = [
        of("nas", "backup", 2),
        of("nobody", "backup", 0),
        of("nas", "nope", 0),
        json!({ "host": "nas", "service": "backup" }),
        json!({ "host": "nas", "service": "backup", "exit_status": 0, "outptu": "x" }),
        json!(["nas", "backup", 0]),
        json!({ "host": "nas", "exit_status": 0, "timestamp": "yesterday" }),
        old,
        json!({ "host": "nas", "exit_status": 0, "output": "here" }),
    ];
    let answer = many(&ward, &sent).await;
    let wanted =
        ["taken", "not_found", "not_found", "invalid", "invalid", "invalid", "invalid", "older", "taken"];
    assert_eq!(outcomes(&answer), wanted, "{}", answer.text);
    let problem = &answer.json["results"][6]["problem"];
    assert_eq!((&problem["status"], &problem["errors"][0]["field"]), (&json!(422), &json!("timestamp")));
    assert_eq!(answer.json["results"][0], json!({ "outcome": "taken" }));
    let unknown = answer.json["results"][2]["problem"]["detail"].as_str().unwrap();
    assert!(unknown.contains("backup"), "{unknown}");
    assert_eq!(ward.backup().await["state"], "critical");
    assert_eq!(ward.get("/hosts/nas").await["state"]["state"], "up");
}

#[tokio::test]
async fn results_of_one_service_count_in_the_order_of_the_call() {
    let ward = Ward::new(json!({ "max_check_attempts": 3 })).await;
    let at = |n: u32, exit_status: u32| json!({ "host": "nas", "service": "backup", "exit_status": exit_status, "output": n.to_string(), "timestamp": 4_000_000_000_u64 + u64::from(n) });
    let answer = many(&ward, &[at(1, 0), at(2, 2), at(3, 2), at(4, 2)]).await;
    assert_eq!(outcomes(&answer), ["taken"; 4]);
    let backup = ward.backup().await;
    assert_eq!((&backup["state"], &backup["text"]), (&json!("critical"), &json!("4")));
}

#[tokio::test]
async fn a_call_that_is_repeated_with_its_key_has_no_second_effect() {
    let ward = Ward::new(json!({ "max_check_attempts": 9 })).await;
    another(&ward, "other", "sync").await;
    let results =
        [of("nas", "backup", 2), of("nas", "nope", 2), of("nas", "backup", 2), of("other", "sync", 1)];
    let first = with_key(&ward, "k", &results).await;
    assert_eq!(outcomes(&first), ["taken", "not_found", "taken", "taken"], "{}", first.text);
    assert_eq!(ward.backup().await["attempt"], 2, "two of one service are two");
    for _ in 0..2 {
        let again = with_key(&ward, "k", &results).await;
        assert_eq!(outcomes(&again), ["repeated", "not_found", "repeated", "repeated"]);
        assert!(!again.headers.contains_key("idempotency-replayed"), "not all of it was");
    }
    assert_eq!(ward.backup().await["attempt"], 2);
    // Only the refused result is accepted now, under the key of the call.
    put(&ward, "/hosts/nas/services/nope", json!({ "check": { "type": "passive" } })).await;
    let mended = with_key(&ward, "k", &results).await;
    assert_eq!(outcomes(&mended), ["repeated", "taken", "repeated", "repeated"]);
    let whole = with_key(&ward, "k", &results).await;
    assert_eq!(whole.headers["idempotency-replayed"], "true");
    let other = with_key(&ward, "k", &[of("nas", "backup", 1), of("nas", "backup", 2)]).await;
    assert_eq!(outcomes(&other), ["idempotency_key_reused", "repeated"]);
    assert_eq!(outcomes(&with_key(&ward, "l", &results[..1]).await), ["taken"], "another key");
}

#[tokio::test]
async fn equal_results_of_one_call_count_once_whenever_they_reach_the_disk() {
    let ward = Ward::new(json!({ "max_check_attempts": 9 })).await;
    let mut call = vec![of("nas", "backup", 2); 2];
    // This takes the time of many commits.
    call.extend((0..900).map(|n| json!({ "host": "nas", "exit_status": 0, "output": n.to_string() })));
    call.push(of("nas", "backup", 2));
    call.push(of("nas", "backup", 1));
    let answer = many(&ward, &call).await;
    let said = outcomes(&answer);
    assert_eq!([said[0], said[1], said[902], said[903]], ["taken", "repeated", "repeated", "taken"]);
    assert_eq!(ward.backup().await["attempt"], 2);
    assert_eq!(outcomes(&many(&ward, &call[..2]).await), ["taken", "repeated"], "the next call is another");
    assert_eq!(ward.backup().await["attempt"], 3);
}

#[tokio::test]
async fn a_call_has_no_more_results_than_can_be_known_again() {
    let ward = Ward::new(json!({})).await;
    let results = vec![of("nas", "backup", 0); 33];
    let refused = with_key(&ward, "k", &results).await;
    assert_eq!((refused.status, refused.code()), (422, "invalid"), "{}", refused.text);
    assert_eq!(ward.backup().await["state"], "pending", "none of it counted");
    assert_eq!(outcomes(&with_key(&ward, "k", &results[..32]).await).len(), 32);
    assert_eq!(outcomes(&with_key(&ward, "k", &results[..32]).await), ["repeated"; 32]);
    assert_eq!(outcomes(&with_key(&ward, "l", &results[..32]).await), ["taken"; 32]);
    assert_eq!(
        outcomes(&with_key(&ward, "k", &results[..32]).await),
        ["repeated"; 32],
        "others came between"
    );
}

#[tokio::test]
async fn a_call_of_one_moment_is_known_again_and_one_of_many_by_its_newest() {
    let ward = Ward::new(json!({})).await;
    let now = crate::clock::wall().as_millis() / 1_000;
    let dated = |n: i64, at: i64| json!({ "host": "nas", "service": "backup", "exit_status": 2, "output": n.to_string(), "timestamp": at });
    // A clock that is ahead: all these results count as now.
    for ahead in [-10, 3] {
        let same: Vec<Value> = (0..33).map(|n| dated(n, now + ahead + n * i64::from(ahead > 0))).collect();
        let refused = many(&ward, &same).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid"), "{ahead}: {}", refused.text);
    }
    let course: Vec<Value> = (0..100).map(|n| dated(n, now - 200 + n)).collect();
    assert_eq!(outcomes(&many(&ward, &course).await), ["taken"; 100]);
    let answer = many(&ward, &course).await;
    let again = outcomes(&answer);
    assert!(again.iter().all(|outcome| ["older", "repeated"].contains(outcome)), "{again:?}");
    let same: Vec<Value> = (0..32).map(|n| dated(n, now - 10)).collect();
    let others: Vec<Value> = (100..132).map(|n| dated(n, now - 10)).collect();
    for (call, outcome) in [(&same, "taken"), (&others, "taken"), (&same, "repeated"), (&others, "repeated")]
    {
        assert_eq!(outcomes(&many(&ward, call).await), [outcome; 32]);
    }
}

#[tokio::test]
async fn a_thousand_results_are_taken_and_no_more() {
    let ward = Ward::new(json!({})).await;
    let result =
        |n: usize| json!({ "host": "nas", "service": "backup", "exit_status": 0, "output": n.to_string() });
    let results: Vec<Value> = (0..1_001).map(result).collect();
    assert_eq!(outcomes(&many(&ward, &results[..1_000]).await), ["taken"; 1_000]);
    assert_eq!(ward.backup().await["text"], "999");
    let refused = many(&ward, &results).await;
    assert_eq!(
        (refused.status, &refused.json["errors"][0]["field"]),
        (422, &json!("results")),
        "{}",
        refused.text
    );
    assert_eq!(ward.backup().await["text"], "999");
    assert_eq!(outcomes(&many(&ward, &[]).await), [""; 0]);
}

#[tokio::test]
async fn a_body_has_two_megabytes_at_most_and_must_be_json() {
    let ward = Ward::new(json!({})).await;
    let operator = ward.api.operator();
    let long = json!({ "host": "nas", "service": "backup", "exit_status": 0, "output": "x".repeat(60_000) });
    assert_eq!(outcomes(&many(&ward, &vec![long.clone(); 30]).await).len(), 30, "1.8 MB");
    assert_eq!(many(&ward, &vec![long; 40]).await.status, 413);
    let list = Body::from("[]".to_owned());
    assert_eq!(operator.send("POST", "/api/v1/results", list).await.status, 422);
    let cut = Body::from(r#"{"results":[{"host":"nas""#.to_owned());
    assert_eq!(operator.send("POST", "/api/v1/results", cut).await.code(), "broken_json");
    let form = operator.clone().header("content-type", "text/plain");
    assert_eq!(form.send("POST", "/api/v1/results", Body::from("{}")).await.status, 415);
    assert_eq!(
        ward.api.viewer().post("/api/v1/results", json!({ "results": [] })).await.code(),
        "role_missing"
    );
}

#[tokio::test]
async fn large_bodies_and_crowds_of_results_find_room_or_are_sent_away() {
    let ward = Ward::new(json!({})).await;
    let limits = ward.api.state.rate_limits();
    let large = json!({ "host": "nas", "service": "backup", "exit_status": 0, "output": "x".repeat(60_000) });
    let held = limits.large_batches.acquire_many(4).await.unwrap();
    assert_eq!(
        outcomes(&many(&ward, &[of("nas", "backup", 0)]).await),
        ["taken"],
        "small ones wait for nobody"
    );
    let refused = many(&ward, &[large.clone(), large.clone()]).await;
    assert_eq!((refused.status, refused.code()), (503, "busy"), "{}", refused.text);
    assert!(refused.headers.contains_key("retry-after"));
    drop(held);
    assert_eq!(outcomes(&many(&ward, &[large.clone(), large]).await), ["taken", "repeated"]);
    let held = limits.batched.acquire_many(limits.batched.available_permits() as u32).await.unwrap();
    let refused = many(&ward, &[of("nas", "backup", 0)]).await;
    assert_eq!((refused.status, refused.code()), (503, "busy"), "{}", refused.text);
    drop(held);
    assert_eq!(outcomes(&many(&ward, &[of("nas", "backup", 1)]).await), ["taken"]);
}

#[tokio::test]
async fn a_database_that_takes_nothing_refuses_many_results_as_it_refuses_one() {
    let ward = patient().await;
    let results = json!({ "results": [
        { "host": "nas", "service": "backup", "exit_status": 2, "output": "bad" },
        { "host": "nas", "service": "nope", "exit_status": 2 },
        { "host": "nas", "exit_status": 2, "output": "gone" },
    ] });
    let held = lock(&ward).await;
    let refused = ward.post("/results", results.clone()).await;
    assert_eq!((refused.status, refused.code()), (503, "busy"), "{}", refused.text);
    unlock(held).await;
    for sql in ["vacuum", "pragma max_page_count = 1"] {
        fixture::run(&ward.api.state.store, sql, &[]).await;
    }
    let refused = ward.post("/results", results.clone()).await;
    assert_eq!((refused.status, refused.code()), (507, "disk_full"), "{}", refused.text);
    assert_eq!(attempt(&ward).await, ("ok".into(), 1));
    let taken = ward.post("/results", results).await;
    let outcome = |n: usize| taken.json["results"][n]["outcome"].clone();
    assert_eq!((outcome(0), outcome(1), outcome(2)), (json!("taken"), json!("refused"), json!("taken")));
    assert_eq!(attempt(&ward).await, ("critical".into(), 1));
}

//! Hostile requests: each gets a problem document and changes nothing.

use axum::body::Body;
use futures_util::future::join_all;
use serde_json::json;

use super::mine;
use super::rentals::{HOUR, hence, must, path, rented, shop};
use crate::api::request::auth::Role;
use crate::api::request::permission::Area;
use crate::api::response::layers::BODY_LIMIT;
use crate::api::testing::TestApi;

#[tokio::test]
async fn broken_bodies_get_problem_documents() {
    let api = TestApi::with_endpoint().await;
    let deep = "[".repeat(10_000);
    let cases: [(&str, u16, &str); 9] = [
        ("{", 400, "broken_json"),
        ("\u{0}", 400, "broken_json"),
        (&deep, 422, "invalid"),
        ("[]", 422, "invalid"),
        ("null", 422, "invalid"),
        ("", 422, "invalid"),
        (r#"{"name":7}"#, 422, "invalid"),
        (r#"{"name":"cam1","name":"cam2"}"#, 422, "invalid"),
        (r#"{"name":"cam1","admin":true}"#, 422, "invalid"),
    ];
    for (body, status, code) in cases {
        let caller = api.operator().header("content-type", "application/json");
        let answer = caller.send("POST", "/api/v1/devices", Body::from(body.to_owned())).await;
        let shown = &body[..body.len().min(40)];
        assert_eq!((answer.status, answer.code()), (status, code), "{shown:?}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    assert_eq!(api.viewer().get("/api/v1/devices").await.json["items"], json!([]));
}

/// The settings of a service are read as a map of any values, which `null` also was: it took back what was set.
#[tokio::test]
async fn null_is_no_settings_of_a_service() {
    let api = TestApi::with_endpoint().await;
    api.operator().post("/api/v1/devices", json!({ "name": "cam-07" })).await;
    let path = "/api/v1/hosts/cam-07/services/ping";
    let set = api.operator().put(path, json!({ "interval_s": 900 })).await;
    assert_eq!(set.status, 200, "{}", set.text);
    for body in [json!(null), json!([])] {
        let refused = api.operator().put(path, body).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid"), "{}", refused.text);
    }
    let kept = api.viewer().get("/api/v1/hosts/cam-07/overrides").await;
    assert!(kept.text.contains("900"), "{}", kept.text);
}

#[tokio::test]
async fn an_oversized_body_is_refused_whether_it_says_so_or_not() {
    let api = TestApi::with_endpoint().await;
    let large = json!({ "name": "cam1", "notes": "x".repeat(BODY_LIMIT) }).to_string();
    let caller = api.operator().header("content-type", "application/json");
    let told = caller.clone().header("content-length", &large.len().to_string());
    for caller in [caller, told] {
        let answer = caller.send("POST", "/api/v1/devices", Body::from(large.clone())).await;
        assert_eq!((answer.status, answer.code()), (413, "too_large"));
    }
}

#[tokio::test]
async fn nothing_is_compressed_for_strangers() {
    let api = TestApi::with_endpoint().await;
    for (caller, path, encoding) in [
        (api.anonymous(), "/api/v1/openapi.json", None),
        (api.anonymous(), "/enrol.sh", None),
        (api.viewer(), "/api/v1/gateway", Some("gzip")),
    ] {
        let answer = caller.header("accept-encoding", "gzip").get(path).await;
        let sent = answer.headers.get("content-encoding").map(|value| value.to_str().expect("text"));
        assert_eq!((answer.status, sent), (200, encoding), "{path}");
    }
}

#[tokio::test]
async fn a_form_of_a_strangers_page_is_not_taken_for_json() {
    let api = TestApi::with_endpoint().await;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let caller = api.operator().header("content-type", kind);
        let answer = caller.send("POST", "/api/v1/devices", Body::from(r#"{"name":"cam1"}"#)).await;
        assert_eq!((answer.status, answer.code()), (415, "unsupported_media_type"), "{kind}");
        assert!(answer.text.contains("Content-Type: application/json"), "{}", answer.text);
    }
}

#[tokio::test]
async fn hostile_paths_and_names_find_nothing() {
    let api = TestApi::with_endpoint().await;
    for name in ["..%2f..%2fetc%2fpasswd", "%00", "h_zzzzzzzzzzzzz", "'%20or%201=1--", "%ff", "%F0%9F%92%A9"]
    {
        let answer = api.viewer().get(&format!("/api/v1/devices/{name}")).await;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{name}: {}", answer.text);
    }
}

#[tokio::test]
async fn bad_tokens_are_refused_before_the_body_is_looked_at() {
    let api = TestApi::with_endpoint().await;
    for bearer in ["", "x", "fgt_", "fge_0123456789abc_x", &"a".repeat(5_000)] {
        let answer = api.anonymous().bearer(bearer).post("/api/v1/devices", json!({ "nonsense": 1 })).await;
        assert_eq!((answer.status, answer.code()), (401, "token_refused"), "{bearer}");
        assert!(answer.headers.contains_key("www-authenticate"));
    }
    let basic = api.anonymous().header("authorization", "Basic YTpi").get("/api/v1/gateway").await;
    assert_eq!(basic.status, 401);
}

#[tokio::test]
async fn a_host_header_cannot_write_into_the_script() {
    let api = TestApi::new().await;
    let line = |text: &str| text.lines().find(|l| l.starts_with("DEFAULT_URL=")).unwrap().to_owned();
    for host in ["evil.example\"; reboot #", "x'; reboot; '", "$(reboot)", "`reboot`", "a b"] {
        let script = api.anonymous().header("host", host).get("/enrol.sh").await;
        assert_eq!(line(&script.text), "DEFAULT_URL='http://127.0.0.1:8080'", "{host}");
    }
    let script = api.anonymous().header("host", "gw.example:8080").get("/enrol.sh").await;
    assert_eq!(line(&script.text), "DEFAULT_URL='http://gw.example:8080'");
}

/// Another process locks the database for longer than any caller waits.
#[tokio::test]
async fn a_locked_database_is_said_and_not_waited_for() {
    use sqlx::ConnectOptions as _;
    let api = TestApi::with_endpoint().await;
    let unseen = api.limited(Role::Viewer, Area::Monitoring).await;
    let mut other = api.state.store.write.connect_options().connect().await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    let hold = tokio::time::Duration::from_secs(8);
    let writes = async {
        let device = api.operator().post("/api/v1/devices", json!({ "name": "cam1" })).await;
        let contact = json!({ "name": "ops", "emails": ["ops@example.org"] });
        let contact = api.operator().header("idempotency-key", "k").post("/api/v1/contacts", contact).await;
        let read = unseen.get("/api/v1/hosts").await;
        (device, contact, read)
    };
    let (device, contact, read) =
        tokio::time::timeout(hold, writes).await.expect("nobody waits for the lock");
    assert_eq!((device.status, device.code()), (503, "busy"), "{}", device.text);
    assert_eq!((contact.status, contact.code()), (503, "busy"), "{}", contact.text);
    assert_eq!(read.status, 200, "reading goes on: {}", read.text);
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    let device = api.operator().post("/api/v1/devices", json!({ "name": "cam1" })).await;
    assert_eq!(device.status, 201, "{}", device.text);
}

/// The same, for what booking systems and people of customers call.
#[tokio::test]
async fn calls_about_rentals_do_not_wait_for_a_locked_database() {
    use sqlx::ConnectOptions as _;
    let api = shop().await;
    let ada = mine::person(&api, "crm-17", "Ada").await;
    let cookie = mine::logged_in(&api, "crm-17", &ada).await;
    let link = api.operator().post("/api/v1/customers/crm-17/login-link", json!({ "person": ada })).await;
    let token = must(&link)["url"].as_str().unwrap().split_once("#token=").unwrap().1.to_owned();
    let rental = path(&rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await);
    let (by_ada, operator, stranger) = (mine::browser(&api, &cookie), api.operator(), api.anonymous());
    let items = json!([{ "device": "cam-2", "until": hence(HOUR) }]);
    let end = format!("{rental}/end");
    let calls = [
        (&operator, "POST", "/api/v1/customers", json!({ "external_ref": "crm-18" })),
        (&operator, "POST", "/api/v1/people", json!({ "customer": "crm-17", "name": "Bob" })),
        (&operator, "POST", "/api/v1/renters", json!({ "person": ada, "name": "laptop" })),
        (&operator, "POST", "/api/v1/bookings", json!({ "customer": "crm-17", "items": items })),
        (&operator, "PATCH", rental.as_str(), json!({ "until": hence(2 * HOUR) })),
        (&operator, "POST", end.as_str(), json!({ "reason": "ended" })),
        (&operator, "POST", "/api/v1/subscriptions", json!({ "url": "http://127.0.0.1:9/" })),
        (&operator, "PUT", "/api/v1/devices/cam-2/rental-settings", json!({ "rentable": false })),
        (&operator, "POST", "/api/v1/customers/crm-17/login-link", json!({ "person": ada })),
        (&stranger, "POST", "/api/v1/my/login", json!({ "token": token })),
        (&by_ada, "POST", "/api/v1/my/renters", json!({ "name": "laptop" })),
    ];
    let mut other = api.state.store.write.connect_options().connect().await.unwrap();
    sqlx::query("begin immediate").execute(&mut other).await.unwrap();
    let all = calls.iter().map(|(caller, method, path, body)| async move {
        let caller = (*caller).clone().header("content-type", "application/json");
        caller.send(method, path, Body::from(body.to_string())).await
    });
    let answers = tokio::time::timeout(tokio::time::Duration::from_secs(8), join_all(all)).await;
    for ((_, method, path, _), answer) in calls.iter().zip(answers.expect("no call waits for the lock")) {
        assert_eq!((answer.status, answer.code()), (503, "busy"), "{method} {path}: {}", answer.text);
    }
    for (caller, path) in [
        (&operator, "/api/v1/rentals/availability?to="),
        (&operator, "/api/v1/bookings"),
        (&by_ada, "/api/v1/my"),
    ] {
        let path = if path.ends_with('=') { format!("{path}{}", hence(HOUR)) } else { path.to_owned() };
        let read = caller.get(&path).await;
        assert_eq!(read.status, 200, "reading goes on: {path}: {}", read.text);
    }
    sqlx::query("rollback").execute(&mut other).await.unwrap();
    let begun = api.anonymous().post("/api/v1/my/login", json!({ "token": token })).await;
    assert_eq!(begun.status, 200, "the link is not used up: {}", begun.text);
}

/// serde would take "x" for the new name, by its place in the array.
#[tokio::test]
async fn an_array_in_place_of_an_object_is_refused_on_every_route() {
    let api = TestApi::with_endpoint().await;
    assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": "cam1" })).await.status, 201);
    must(&api.operator().post("/api/v1/customers", json!({ "external_ref": "crm-17" })).await);
    let ada = mine::person(&api, "crm-17", "Ada").await;
    let of_ada = mine::browser(&api, &mine::logged_in(&api, "crm-17", &ada).await);
    let document = crate::api::openapi();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let body = &operation["requestBody"]["content"]["application/json"];
            if body.is_null() {
                continue;
            }
            let path = path.replace("{host}", "cam1").replace("{device}", "cam1").replace(['{', '}'], "");
            let caller = if path.starts_with("/api/v1/my/") { of_ada.clone() } else { api.admin() };
            let caller = caller.header("content-type", "application/json");
            let answer = caller.send(&method.to_uppercase(), &path, Body::from(r#"["x", "y"]"#)).await;
            assert!([404, 422].contains(&answer.status), "{method} {path}: {}", answer.text);
            asked += usize::from(answer.status == 422);
        }
    }
    assert!(asked > 20, "{asked}");
    let nested = json!({ "ssh": [2222, "root"] });
    let answer = api.operator().patch("/api/v1/devices/cam1", nested).await;
    assert_eq!((answer.status, &answer.json["errors"][0]["field"]), (422, &json!("ssh")), "{}", answer.text);
    assert_eq!(api.viewer().get("/api/v1/devices/cam1").await.json["name"], "cam1");
}

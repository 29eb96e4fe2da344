//! Users, sessions and tokens: access, and the end of access.

use serde_json::{Value, json};

use crate::api::Client;
use crate::api::testing::{Answer, Caller, TestApi};

const PASSWORD: &str = "correct horse battery";

async fn user(api: &TestApi, name: &str, role: &str) {
    let body = json!({ "name": name, "role": role, "password": PASSWORD });
    let made = api.admin().post("/api/v1/users", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
}

async fn log_in(api: &TestApi, name: &str, password: &str) -> Answer {
    api.anonymous().post("/api/v1/session", json!({ "name": name, "password": password })).await
}

fn cookie(answer: &Answer) -> String {
    let set = answer.headers["set-cookie"].to_str().unwrap();
    assert!(set.contains("; HttpOnly; SameSite=Strict"), "{set}");
    set.split(';').next().unwrap().to_owned()
}

fn with_cookie<'a>(api: &'a TestApi, cookie: &str) -> Caller<'a> {
    api.anonymous().header("cookie", cookie).header("host", "gw.example")
}

#[tokio::test]
async fn a_user_logs_in_is_known_and_logs_out() {
    let api = TestApi::new().await;
    user(&api, "ada", "operator").await;
    let answer = log_in(&api, "ada", PASSWORD).await;
    assert_eq!((answer.status, &answer.json["principal"]), (200, &json!("user:ada")));
    let browser = with_cookie(&api, &cookie(&answer)).header("origin", "http://gw.example");
    let me = browser.get("/api/v1/session").await;
    assert_eq!((&me.json["name"], &me.json["role"]), (&json!("ada"), &json!("operator")));
    assert_eq!(browser.get("/api/v1/devices").await.status, 200);
    assert_eq!(browser.get("/api/v1/users").await.code(), "role_missing");
    assert_eq!(browser.delete("/api/v1/session").await.status, 204);
    assert_eq!(browser.get("/api/v1/session").await.code(), "session_over");
}

#[tokio::test]
async fn wrong_names_and_passwords_look_the_same() {
    let api = TestApi::new().await;
    user(&api, "ada", "operator").await;
    let wrong = log_in(&api, "ada", "wrong horse battery").await;
    let unknown = log_in(&api, "bob", PASSWORD).await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.json["detail"], unknown.json["detail"]);
    let half = api.anonymous().post("/api/v1/session", json!({ "name": "ada" })).await;
    assert_eq!(half.status, 422);
}

#[tokio::test]
async fn a_cookie_alone_changes_nothing_for_another_site() {
    let api = TestApi::with_endpoint().await;
    user(&api, "ada", "operator").await;
    let session = cookie(&log_in(&api, "ada", PASSWORD).await);
    let browser = || with_cookie(&api, &session);
    let body = json!({ "name": "cam1" });
    for hostile in [
        browser(),
        browser().header("origin", "https://evil.example"),
        browser().header("origin", "null"),
        browser().header("origin", "http://gw.example").header("sec-fetch-site", "cross-site"),
        browser().header("sec-fetch-site", "same-site"),
        browser().header("origin", "https://evil.example").header("x-fleetgate", "1"),
    ] {
        let answer = hostile.post("/api/v1/devices", body.clone()).await;
        assert_eq!((answer.status, answer.code()), (403, "cross_site"));
    }
    assert_eq!(browser().get("/api/v1/devices").await.json["items"], json!([]));
    let own = browser().header("origin", "http://gw.example").header("sec-fetch-site", "same-origin");
    assert_eq!(own.post("/api/v1/devices", body).await.status, 201);
    let program = browser().header("x-fleetgate", "1");
    assert_eq!(program.post("/api/v1/devices", json!({ "name": "cam2" })).await.status, 201);
    let login = api.anonymous().header("origin", "https://evil.example");
    let answer = login.post("/api/v1/session", json!({ "name": "ada", "password": PASSWORD })).await;
    assert_eq!(answer.code(), "cross_site");
}

#[tokio::test]
async fn the_cookie_is_secure_behind_https() {
    let api = TestApi::with(|c| c.public_url = "https://gw.example".parse().ok()).await;
    user(&api, "ada", "viewer").await;
    let answer = log_in(&api, "ada", PASSWORD).await;
    let set = answer.headers["set-cookie"].to_str().unwrap();
    assert!(set.starts_with("__Host-fleetgate_session=fgs_") && set.ends_with("; Secure"), "{set}");
    assert!(answer.headers.contains_key("strict-transport-security"));
}

#[tokio::test]
async fn under_a_path_of_a_proxy_links_have_it_and_the_cookie_reaches_all_of_them() {
    let api = TestApi::with(|c| c.public_url = "https://gw.example/fleet".parse().ok()).await;
    user(&api, "ada", "viewer").await;
    let link = api.admin().post("/api/v1/users/ada/login-link", json!({})).await;
    let url = link.json["url"].as_str().unwrap();
    assert!(url.starts_with("https://gw.example/fleet/login#fgl_"), "{url}");
    let script = api.anonymous().get("/enrol.sh").await;
    assert!(script.text.contains("DEFAULT_URL='https://gw.example/fleet'\n"));
    let browser = api.anonymous().header("origin", "https://gw.example");
    let answer = browser.post("/api/v1/session", json!({ "name": "ada", "password": PASSWORD })).await;
    let set = answer.headers["set-cookie"].to_str().unwrap();
    assert!(set.starts_with("__Host-") && set.contains("; Path=/; "), "{set}");
    let docs = api.admin().get("/api/v1/docs/swagger-initializer.js").await;
    assert!(docs.text.contains("\"../openapi.json\""), "{}", docs.text);
}

#[tokio::test]
async fn guessing_passwords_is_slowed_down() {
    let api = TestApi::new().await;
    user(&api, "ada", "viewer").await;
    let mut last = 0;
    for _ in 0..11 {
        last = log_in(&api, "ada", "wrong wrong wrong").await.status;
    }
    assert_eq!(last, 429);
    let waits = log_in(&api, "ada", PASSWORD).await;
    assert_eq!(waits.code(), "too_many_requests");
    assert!(waits.headers.contains_key("retry-after"));
    let elsewhere = api.anonymous().at_address("198.51.100.9");
    let body = json!({ "name": "ada", "password": PASSWORD });
    assert_eq!(elsewhere.post("/api/v1/session", body).await.status, 200);
}

#[tokio::test]
async fn a_change_of_role_or_password_ends_the_sessions() {
    let api = TestApi::new().await;
    user(&api, "ada", "operator").await;
    for change in [json!({ "role": "viewer" }), json!({ "password": PASSWORD }), json!({ "disabled": true })]
    {
        let session = cookie(&log_in(&api, "ada", PASSWORD).await);
        assert_eq!(api.admin().patch("/api/v1/users/ada", change).await.status, 200);
        assert_eq!(with_cookie(&api, &session).get("/api/v1/session").await.status, 401);
    }
    assert_eq!(log_in(&api, "ada", PASSWORD).await.code(), "login_refused");
}

#[tokio::test]
async fn an_own_password_is_changed_by_who_knows_it() {
    let api = TestApi::new().await;
    user(&api, "ada", "viewer").await;
    let browser = with_cookie(&api, &cookie(&log_in(&api, "ada", PASSWORD).await)).header("x-fleetgate", "1");
    let path = "/api/v1/session/password";
    let wrong = browser.put(path, json!({ "current": "not my password", "new": "another horse" })).await;
    assert_eq!(wrong.code(), "login_refused");
    let short = browser.put(path, json!({ "current": PASSWORD, "new": "short" })).await;
    assert_eq!((short.status, &short.json["errors"][0]["field"]), (422, &json!("new")));
    let changed = browser.put(path, json!({ "current": PASSWORD, "new": "another horse" })).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(browser.get("/api/v1/session").await.status, 401);
    assert_eq!(with_cookie(&api, &cookie(&changed)).get("/api/v1/session").await.status, 200);
    assert_eq!(log_in(&api, "ada", "another horse").await.status, 200);
}

#[tokio::test]
async fn a_one_time_login_leads_to_a_password_of_ones_own() {
    let api = TestApi::new().await;
    user(&api, "ada", "viewer").await;
    let made = api.admin().post("/api/v1/users/ada/login-link", json!({})).await;
    let link = json!({ "link": made.json["secret"] });
    let begun = api.anonymous().post("/api/v1/session", link).await;
    assert_eq!((begun.status, &begun.json["may_choose_password"]), (200, &json!(true)));
    let browser = with_cookie(&api, &cookie(&begun)).header("x-fleetgate", "1");
    assert_eq!(browser.get("/api/v1/session").await.json["may_choose_password"], true);
    let (path, new) = ("/api/v1/session/password", json!({ "new": "another horse" }));
    let short = browser.put(path, json!({ "new": "short" })).await;
    assert_eq!((short.status, &short.json["errors"][0]["field"]), (422, &json!("new")));
    let chosen = browser.put(path, new.clone()).await;
    assert_eq!((chosen.status, &chosen.json["may_choose_password"]), (200, &json!(false)));
    let browser = with_cookie(&api, &cookie(&chosen)).header("x-fleetgate", "1");
    for session in [browser, with_cookie(&api, &cookie(&log_in(&api, "ada", "another horse").await))] {
        let again = session.header("x-fleetgate", "1").put(path, new.clone()).await;
        assert_eq!(
            (again.status, &again.json["errors"][0]["field"]),
            (422, &json!("current")),
            "{}",
            again.text
        );
    }
}

#[tokio::test]
async fn a_removed_user_is_out_and_the_last_admin_stays() {
    let api = TestApi::new().await;
    let now = crate::clock::wall();
    api.state.store.ensure_first_admin(now, false).await.unwrap().unwrap();
    user(&api, "ada", "admin").await;
    let session = cookie(&log_in(&api, "ada", PASSWORD).await);
    assert_eq!(api.admin().delete("/api/v1/users/ada").await.status, 204);
    assert_eq!(with_cookie(&api, &session).get("/api/v1/session").await.status, 401);
    assert_eq!(log_in(&api, "ada", PASSWORD).await.code(), "login_refused");
    assert_eq!(api.admin().delete("/api/v1/users/ada").await.status, 404);
    let refused = api.admin().delete("/api/v1/users/admin").await;
    assert_eq!((refused.status, refused.code()), (409, "last_admin"));
    let audit = api.admin().get("/api/v1/audit").await;
    assert!(audit.text.contains("user.removed"), "{}", audit.text);
    user(&api, "ada", "viewer").await;
}

#[tokio::test]
async fn the_first_start_makes_one_admin_who_stays() {
    let api = TestApi::new().await;
    let now = crate::clock::wall();
    let first = api.state.store.ensure_first_admin(now, false).await.unwrap().unwrap();
    assert!(api.state.store.ensure_first_admin(now, false).await.unwrap().is_none());
    assert_eq!(log_in(&api, first.name, &first.password).await.status, 200);
    for change in [json!({ "role": "viewer" }), json!({ "disabled": true })] {
        let refused = api.admin().patch("/api/v1/users/admin", change.clone()).await;
        assert_eq!((refused.status, refused.code()), (409, "last_admin"), "{change}");
    }
    user(&api, "ada", "admin").await;
    let demoted = api.admin().patch("/api/v1/users/admin", json!({ "role": "viewer" })).await;
    assert_eq!(demoted.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_link_works_once() {
    let api = TestApi::new().await;
    let first = api.state.store.ensure_first_admin(crate::clock::wall(), false).await.unwrap().unwrap();
    let body = json!({ "link": first.link.reveal() });
    let attempts = (0..8).map(|n| {
        let caller = api.anonymous().at_address(&format!("198.51.100.{n}"));
        let body = body.clone();
        async move { caller.post("/api/v1/session", body).await.status }
    });
    let statuses = futures_util::future::join_all(attempts).await;
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1, "{statuses:?}");
    let made = api.admin().post("/api/v1/users/admin/login-link", json!({})).await;
    let (url, secret) = (made.json["url"].as_str().unwrap(), made.json["secret"].as_str().unwrap());
    assert!(url.ends_with(&format!("/login#{secret}")), "{url}");
    let used = api.anonymous().post("/api/v1/session", json!({ "link": secret })).await;
    assert_eq!(used.status, 200);
}

#[tokio::test]
async fn our_own_user_on_the_socket_is_admin_and_others_are_nobody() {
    let api = TestApi::new().await;
    let uid = tokio::net::UnixStream::pair().unwrap().0.peer_cred().unwrap().uid();
    let own = api.anonymous().by(Client::Local { uid });
    assert_eq!(own.get("/api/v1/session").await.json["principal"], "user:local");
    assert_eq!(own.get("/api/v1/users").await.status, 200);
    let other = api.anonymous().by(Client::Local { uid: uid + 1 });
    assert_eq!(other.get("/api/v1/users").await.status, 401);
    let with_bad_token = own.bearer("fgt_nonsense").get("/api/v1/users").await;
    assert_eq!(with_bad_token.status, 401);
}

#[tokio::test]
async fn a_token_is_shown_once_limited_and_revoked() {
    let api = TestApi::new().await;
    let body = json!({ "name": "booking", "role": "operator", "scopes": ["devices"] });
    let made = api.admin().header("idempotency-key", "k").post("/api/v1/tokens", body.clone()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let again = api.admin().header("idempotency-key", "k").post("/api/v1/tokens", body).await;
    assert_eq!((&again.json["token"], &again.json["secret"]), (&made.json["token"], &Value::Null));
    let caller = api.anonymous().bearer(made.json["secret"].as_str().unwrap());
    assert_eq!(caller.get("/api/v1/devices").await.status, 200);
    assert_eq!(caller.get("/api/v1/enrolments").await.code(), "scope_missing");
    let me = caller.get("/api/v1/session").await;
    let id = made.json["token"]["id"].as_str().unwrap();
    assert_eq!(me.json["principal"], format!("token:{id}"));
    assert!(!made.json["token"]["expires_at"].is_null());
    assert_eq!(api.admin().delete(&format!("/api/v1/tokens/{id}")).await.status, 204);
    assert_eq!(caller.get("/api/v1/devices").await.code(), "token_refused");
    let row = api.admin().get(&format!("/api/v1/tokens/{id}")).await;
    assert!(!row.json["revoked_at"].is_null() && !row.json["last_used_at"].is_null());
}

#[tokio::test]
async fn a_limited_token_makes_none_that_is_wider() {
    let api = TestApi::new().await;
    let body = json!({ "name": "a", "role": "admin", "scopes": ["access"] });
    let made = api.admin().post("/api/v1/tokens", body).await;
    let limited = api.anonymous().bearer(made.json["secret"].as_str().unwrap());
    for (scopes, status) in [(json!([]), 422), (json!(["devices"]), 422), (json!(["access"]), 201)] {
        let body = json!({ "name": "b", "role": "viewer", "scopes": scopes });
        assert_eq!(limited.post("/api/v1/tokens", body).await.status, status, "{scopes}");
    }
    let unknown = json!({ "name": "b", "role": "viewer", "scopes": ["x"] });
    assert_eq!(api.admin().post("/api/v1/tokens", unknown).await.status, 422);
}

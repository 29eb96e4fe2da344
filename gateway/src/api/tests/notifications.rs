use fleetgate_engine::id::Id;
use fleetgate_engine::messages::{GATEWAY, Message};
use fleetgate_engine::notification::{Item, NoticeId};
use fleetgate_engine::time::Wall;
use serde_json::json;

use crate::api::testing::{Answer, TestApi};
use crate::store::outbox::{self, Channel, NewMessage, OutboxKind};
use crate::store::{contacts, fixture, notices};

const CONTACTS: &str = "/api/v1/contacts";
const RULES: &str = "/api/v1/rules";

async fn ops(api: &TestApi) -> Answer {
    let new = json!({ "name": "ops", "emails": ["Ops <ops@example.org>"], "time_zone": "Europe/Berlin" });
    api.operator().post(CONTACTS, new).await
}

fn fields(answer: &Answer) -> Vec<&str> {
    answer.json["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_contact_is_made_changed_and_removed() {
    let api = TestApi::new().await;
    let made = ops(&api).await;
    assert_eq!((made.status, made.json["time_zone"].as_str()), (201, Some("Europe/Berlin")));
    assert!(made.json.get("webhook_secret").is_none());
    let digest = json!({ "digest_at": "08:30", "group_wait_s": 0 });
    let changed = api.operator().patch(&format!("{CONTACTS}/ops"), digest).await;
    assert_eq!((changed.status, changed.json["digest_at"].as_str()), (200, Some("08:30")));
    let shown = api.operator().get(&format!("{CONTACTS}/{}", made.json["id"].as_str().unwrap())).await;
    assert_eq!(
        (shown.json["group_wait_s"].as_f64(), shown.headers["etag"].to_str().unwrap()),
        (Some(0.0), "\"2\"")
    );
    let stale = api.operator().header("if-match", "\"1\"").patch(&format!("{CONTACTS}/ops"), json!({})).await;
    assert_eq!(stale.status, 412);
    assert_eq!(ops(&api).await.code(), "name_taken");
    assert_eq!(api.operator().delete(&format!("{CONTACTS}/ops")).await.status, 204);
    assert_eq!(api.operator().get(&format!("{CONTACTS}/ops")).await.status, 404);
}

#[tokio::test]
async fn a_webhook_secret_is_shown_once_and_kept_sealed() {
    let api = TestApi::new().await;
    let new = json!({ "name": "hook", "webhook_url": "https://hooks.example.org/x" });
    let made = api.operator().post(CONTACTS, new).await;
    let secret = made.json["webhook_secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("fgw_"));
    let shown = api.operator().get(&format!("{CONTACTS}/hook")).await;
    assert!(!shown.text.contains("fgw_"), "{}", shown.text);
    let same = api.operator().patch(&format!("{CONTACTS}/hook"), json!({ "name": "crew" })).await;
    assert!(same.json.get("webhook_secret").is_none());
    let renewed = api.operator().post(&format!("{CONTACTS}/crew/webhook-secret"), json!({})).await;
    assert_ne!(renewed.json["webhook_secret"].as_str().unwrap(), secret);
    let mut conn = api.state.store.reader().await.unwrap();
    let kept = contacts::find_named(&mut conn, "crew").await.unwrap().unwrap().webhook_secret.unwrap();
    assert!(!kept.windows(4).any(|w| w == b"fgw_"), "sealed");
}

#[tokio::test]
async fn what_is_no_contact_is_refused_by_field() {
    let api = TestApi::new().await;
    let bad = json!({ "name": "Ops!", "emails": ["nobody"], "webhook_url": "ftp://x/", "time_zone": "Mars/Base",
        "digest_at": "25:00", "group_wait_s": 3_600 });
    let refused = api.operator().post(CONTACTS, bad).await;
    assert_eq!(refused.status, 422);
    assert_eq!(fields(&refused), ["name", "emails", "webhook_url", "time_zone", "digest_at", "group_wait_s"]);
    let nowhere = api.operator().post(CONTACTS, json!({ "name": "ops" })).await;
    assert_eq!(fields(&nowhere), ["emails"]);
    let reserved = api.operator().post(CONTACTS, json!({ "name": "default", "emails": ["a@b.c"] })).await;
    assert_eq!(fields(&reserved), ["name"]);
}

#[tokio::test]
async fn a_rule_chooses_a_contact_that_is_there_and_keeps_it() {
    let api = TestApi::new().await;
    ops(&api).await;
    let new = json!({ "name": "nights", "contact": "ops", "labels": { "site": "*" }, "severity": "critical",
        "period": "mon-fri 22:00-06:00", "delay_s": 900 });
    let made = api.operator().post(RULES, new).await;
    assert_eq!((made.status, made.json["contact"].as_str()), (201, Some("ops")));
    assert_eq!((&made.json["period"], &made.json["delay_s"]), (&"mon-fri 22:00-06:00".into(), &900.0.into()));
    let used = api.operator().delete(&format!("{CONTACTS}/ops")).await;
    assert_eq!((used.status, used.code()), (409, "in_use"));
    assert!(used.text.contains("nights"));
    let always = api.operator().patch(&format!("{RULES}/nights"), json!({ "period": null })).await;
    assert_eq!(always.json["period"], json!(null));
    let bad = json!({ "name": "x", "contact": "ops", "severity": "bad", "period": "always", "delay_s": -1 });
    assert_eq!(fields(&api.operator().post(RULES, bad).await), ["severity", "period", "delay_s"]);
    let unknown = api.operator().post(RULES, json!({ "name": "x", "contact": "nobody" })).await;
    assert_eq!(fields(&unknown), ["contact"]);
    assert_eq!(api.operator().delete(&format!("{RULES}/nights")).await.status, 204);
    assert_eq!(api.viewer().get(RULES).await.json["items"], json!([]));
}

#[tokio::test]
async fn addresses_are_for_operators() {
    let api = TestApi::new().await;
    for path in [CONTACTS, "/api/v1/messages"] {
        assert_eq!(api.viewer().get(path).await.status, 403, "{path}");
    }
    assert_eq!(api.viewer().post(RULES, json!({})).await.status, 403);
}

#[tokio::test]
async fn the_contact_of_the_settings_is_shown_and_tested_but_not_changed() {
    let api = TestApi::with(|config| {
        config.mail = Some(crate::config::MailConfig {
            host: "mx.example.org".into(),
            port: 25,
            security: crate::config::MailSecurity::None,
            user: None,
            password: None,
            from: "fleet@example.org".parse().unwrap(),
            to: vec!["ops@example.org".parse().unwrap()],
            hello: Some("[127.0.0.1]".into()),
            ca: None,
        });
    })
    .await;
    let listed = api.operator().get(CONTACTS).await;
    assert_eq!(listed.json["items"][0]["emails"], json!(["ops@example.org"]));
    let changed = api.operator().patch(&format!("{CONTACTS}/default"), json!({})).await;
    assert_eq!((changed.status, changed.code()), (409, "built_in"));
    let test = api.operator().post(&format!("{CONTACTS}/default/test"), json!({})).await;
    assert_eq!((test.status, &test.json["items"][0]["kind"]), (202, &json!("test")));
    let message = test.json["items"][0]["id"].as_str().unwrap();
    let followed = api.operator().get(&format!("/api/v1/messages/{message}")).await;
    assert_eq!(followed.json["outcome"], "waiting");
}

/// Creates two notices of one host. The first was sent by e-mail and given up as a webhook. The
/// second was suppressed.
async fn told(api: &TestApi) -> i64 {
    let store = &api.state.store;
    let host = fixture::device(store, 7, "cam-07").await;
    let mut tx = store.begin().await.unwrap();
    let first = notices::insert(&mut tx, &fixture::down(host), None).await.unwrap();
    let second = notices::insert(&mut tx, &fixture::down(host), None).await.unwrap();
    let items = [Item { notice: first, root: first, rule: None }];
    let mut ids = Vec::new();
    for (channel, address) in
        [(Channel::Email, "ops@example.org"), (Channel::Webhook, "https://h.example/secret")]
    {
        let (contact, contact_name, kind) = (Id::from_i64(1), "ops", OutboxKind::Notices);
        let new =
            NewMessage { contact, contact_name, channel, address, kind, site: "", folded: 0, items: &items };
        ids.push(outbox::insert(&mut tx, &new, Wall::from_millis(0)).await.unwrap());
    }
    outbox::sent(&mut tx, ids[0], Wall::from_millis(5_000)).await.unwrap();
    outbox::given_up(&mut tx, ids[1], "it answered 410 Gone", Wall::from_millis(5_000)).await.unwrap();
    let event = crate::store::events::NewEvent {
        data: json!({ "reason": "no_rule" }),
        ..crate::store::events::NewEvent::new(
            Wall::from_millis(6_000),
            "notification.suppressed",
            crate::store::events::about(host, false),
            "no rule selects this host",
            "system",
        )
    };
    let seq = crate::store::events::append(&mut tx, &event).await.unwrap();
    let held = notices::HeldRow { notice: second, contact: None, event: seq, stopped: false };
    notices::hold(&mut tx, &[held]).await.unwrap();
    notices::routed(&mut tx, NoticeId(second.0), Wall::from_millis(6_000)).await.unwrap();
    tx.commit().await.unwrap();
    ids[1]
}

#[tokio::test]
async fn every_notification_says_what_became_of_it() {
    let api = TestApi::new().await;
    told(&api).await;
    let listed = api.viewer().get("/api/v1/notifications?object=cam-07").await;
    let items = listed.json["items"].as_array().unwrap();
    assert_eq!(
        (items.len(), &items[0]["outcome"], &items[1]["outcome"]),
        (2, &json!("suppressed"), &json!("sent"))
    );
    let held = &items[0]["outcomes"][0];
    assert_eq!((&held["reason"], &held["contact"]), (&json!("no_rule"), &json!(null)));
    assert_eq!(held["text"], "no rule selects this host");
    let of_first = items[1]["outcomes"].as_array().unwrap();
    assert_eq!(
        (&of_first[0]["outcome"], &of_first[0]["address"]),
        (&json!("sent"), &json!("ops@example.org"))
    );
    assert_eq!(of_first[1]["address"], "https://h.example", "the path may be a password");
    assert_eq!(of_first[1]["evidence"], "it answered 410 Gone");
    let one = api.viewer().get(&format!("/api/v1/notifications/{}", items[1]["id"].as_str().unwrap())).await;
    assert_eq!(one.json, items[1]);
    let page = api.viewer().get("/api/v1/notifications?limit=1").await;
    let next = page.json["next"].as_str().unwrap();
    let rest = api.viewer().get(&format!("/api/v1/notifications?limit=1&after={next}")).await;
    assert_eq!((&rest.json["items"][0]["id"], &rest.json["next"]), (&items[1]["id"], &json!(null)));
}

#[tokio::test]
async fn notifications_are_filtered_by_object_and_time() {
    let api = TestApi::new().await;
    told(&api).await;
    let count = async |query: &str| {
        let listed = api.viewer().get(&format!("/api/v1/notifications?{query}")).await;
        listed.json["items"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(count("object=cam-07/disk").await, 0);
    assert_eq!(count("object=cam-07&since=1970-01-01T00:00:01Z").await, 2);
    assert_eq!(count("since=1970-01-01T00:00:02Z").await, 0);
    let lost = Message { host: GATEWAY, host_name: "gateway".into(), ..fixture::down(GATEWAY) };
    let mut tx = api.state.store.begin().await.unwrap();
    notices::insert(&mut tx, &lost, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count("object=gateway").await, 1);
    assert_eq!(api.viewer().get("/api/v1/notifications?object=nobody").await.status, 404);
    assert_eq!(api.viewer().get("/api/v1/notifications?since=today").await.status, 400);
}

#[tokio::test]
async fn what_was_given_up_can_be_sent_again() {
    let api = TestApi::new().await;
    let id = format!("m_{}", Id::from_i64(told(&api).await));
    api.state.store.all_hosts(&fixture::TIMING).await.unwrap();
    fixture::run(&api.state.store, "update host_states set hard = 'down'", &[]).await;
    let given_up = api.operator().get("/api/v1/messages?outcome=given_up").await;
    assert_eq!(given_up.json["items"][0]["id"].as_str(), Some(id.as_str()));
    let again = api.operator().post(&format!("/api/v1/messages/{id}/resend"), json!({})).await;
    assert_eq!((again.status, &again.json["outcome"]), (202, &json!("waiting")));
    let twice = api.operator().post(&format!("/api/v1/messages/{id}/resend"), json!({})).await;
    assert_eq!((twice.status, twice.code()), (409, "not_given_up"));
}

#[tokio::test]
async fn what_is_over_is_not_sent_again() {
    let api = TestApi::new().await;
    let number = told(&api).await;
    let superseded = "update outbox_notices set dropped = 'superseded' where message = $1";
    fixture::run(&api.state.store, superseded, &[&number.to_string()]).await;
    let path = format!("/api/v1/messages/m_{}/resend", Id::from_i64(number));
    let refused = api.operator().post(&path, json!({})).await;
    assert_eq!((refused.status, refused.code()), (409, "superseded"));
    let kept = api.operator().get("/api/v1/messages?outcome=given_up").await;
    assert_eq!(kept.json["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_is_well_by_now_or_was_told_since_is_not_sent_again() {
    let api = TestApi::new().await;
    let path = format!("/api/v1/messages/m_{}/resend", Id::from_i64(told(&api).await));
    let store = &api.state.store;
    store.all_hosts(&fixture::TIMING).await.unwrap();
    let refused = api.operator().post(&path, json!({})).await;
    assert_eq!((refused.status, refused.code()), (409, "superseded"), "the host is up");
    fixture::run(store, "update host_states set hard = 'down' where host = 7", &[]).await;
    let newer = "insert into outbox (contact, contact_name, channel, address, kind, created_at, next_attempt, sent_at)
                 select contact, contact_name, channel, address, kind, 9, 9, $1 from outbox where channel = 'webhook'";
    fixture::run(store, newer, &["9"]).await;
    let tells = "insert into outbox_notices (message, notice, root) select max(id), 2, 1 from outbox";
    fixture::run(store, tells, &[]).await;
    let refused = api.operator().post(&path, json!({})).await;
    assert_eq!((refused.status, refused.code()), (409, "superseded"), "a newer one has told it");
    fixture::run(store, "update outbox set sent_at = null, given_up_at = 9 where id = 3", &[]).await;
    assert_eq!(api.operator().post(&path, json!({})).await.status, 202, "that did not arrive either");
}

#[tokio::test]
async fn events_name_the_contact_or_rule_that_they_are_about() {
    let api = TestApi::new().await;
    let contact = json!({ "name": "ops", "emails": ["ops@example.org"] });
    assert_eq!(api.operator().post("/api/v1/contacts", contact).await.status, 201);
    assert_eq!(
        api.operator().post("/api/v1/rules", json!({ "name": "all", "contact": "ops" })).await.status,
        201
    );
    for (kind, name, prefix) in [("contact", "ops", "c_"), ("rule", "all", "r_")] {
        let events = api.viewer().get(&format!("/api/v1/events?kind={kind}")).await.json;
        let event = &events["items"][0];
        assert_eq!((&event["object"], &event["object_name"]), (&json!(kind), &json!(name)));
        assert!(event["object_id"].as_str().unwrap().starts_with(prefix), "{event}");
    }
}

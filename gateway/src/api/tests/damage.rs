//! Lists over a database that was damaged or edited by hand: they show every row that can be read.

use serde_json::{Value, json};

use super::rentals::hence;
use crate::api::testing::TestApi;
use crate::store::fixture::run;

/// A list, and the field that tells its items apart.
type List = (&'static str, &'static str);

/// Lists with pages, and the statement that makes one of two items unreadable.
const PAGED: [(&[List], &str); 9] = [
    (&[("notifications", "host")], "update notices set labels = 'x' where host_name = 'second'"),
    (&[("removals", "name")], "update removals set kind = 'x' where name = 'second'"),
    (&[("downtimes", "comment")], "update downtimes set labels = 'x' where comment = 'second'"),
    (&[("enrolments", "name")], "update enrolments set state = 'x' where name = 'second'"),
    (
        &[("enrolment-tokens", "label")],
        "update enrolment_tokens set host_labels = 'x' where label = 'second'",
    ),
    (&[("tokens", "name")], "update tokens set scopes = 'x' where name = 'second'"),
    (&[("grants", "reason")], "update grants set access = '[{}]' where reason = 'second'"),
    (&[("operators", "user"), ("users", "name")], "update users set role = 'x' where name = 'second'"),
    (&[("devices", "name"), ("hosts", "name")], "update hosts set labels = '[1]' where name = 'second'"),
];
/// Lists that are whole.
const WHOLE: [(&str, &str); 2] = [
    ("rules", "update notification_rules set labels = 'x' where name = 'second'"),
    ("contacts", "update contacts set emails = 'x' where name = 'second'"),
];

async fn make(api: &TestApi, path: &str, body: Value) {
    let made = api.admin().post(&format!("/api/v1/{path}"), body).await;
    assert_eq!(made.status, 201, "{path}: {}", made.text);
}

/// Makes one item of this name for each list.
async fn make_all(api: &TestApi, name: &'static str) {
    make(api, "devices", json!({ "name": name })).await;
    let password = "correct horse battery";
    make(api, "users", json!({ "name": name, "role": "operator", "password": password })).await;
    make(api, "operators", json!({ "name": format!("{name}-laptop"), "user": name })).await;
    make(api, "tokens", json!({ "name": name, "role": "viewer" })).await;
    make(api, "enrolment-tokens", json!({ "label": name })).await;
    make(api, "contacts", json!({ "name": name, "emails": ["ops@example.com"] })).await;
    make(api, "rules", json!({ "name": name, "contact": name })).await;
    let grant = json!({
        "source": { "user": name }, "target": { "host": name }, "access": [{ "protocol": "icmp" }], "reason": name,
    });
    make(api, "grants", grant).await;
    let downtime = json!({ "start": "2099-03-10T20:00:00Z", "end": "2099-03-10T22:00:00Z", "comment": name });
    make(api, &format!("hosts/{name}/downtimes"), downtime).await;
    for sql in [
        "insert into enrolments (token, state, name, public_key, poll_hash, created_at)
         select id, 'rejected', label, label, x'00', 0 from enrolment_tokens where label = $1",
        "insert into removals (manager, kind, name, removed_by, removed_at) values ('apply', 'device', $1, '', 0)",
        "insert into notices (at, host, host_name, kind, problem, from_state, to_state, output, since)
         values (0, 1, $1, 'problem', 1, 'up', 'down', '', 0)",
    ] {
        run(&api.state.store, sql, &[name]).await;
    }
}

fn texts(page: &Value, field: &str) -> Vec<String> {
    let items = page["items"].as_array().expect("a list");
    items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// Reads a list page by page.
async fn read(api: &TestApi, (list, field): List) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = api.admin().get(&format!("/api/v1/{list}?limit=1{after}")).await;
        assert_eq!(page.status, 200, "{list}: {}", page.text);
        found.extend(texts(&page.json, field));
        match page.json["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return found,
        }
    }
}

async fn read_all(api: &TestApi, lists: &[List]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for list in lists {
        found.push(read(api, *list).await);
    }
    found
}

#[tokio::test]
async fn an_unreadable_row_is_left_out_and_hides_no_other() {
    let api = TestApi::with_endpoint().await;
    make_all(&api, "first").await;
    make_all(&api, "second").await;
    for (lists, damage) in PAGED {
        let mut expected = read_all(&api, lists).await;
        for texts in &mut expected {
            let before = texts.len();
            texts.retain(|text| text != "second");
            assert!(
                texts.len() + 1 == before && texts.iter().any(|text| text == "first"),
                "{damage}: {texts:?}"
            );
        }
        run(&api.state.store, damage, &[]).await;
        assert_eq!(read_all(&api, lists).await, expected, "{damage}");
    }
    for (list, damage) in WHOLE {
        run(&api.state.store, damage, &[]).await;
        let whole = api.admin().get(&format!("/api/v1/{list}")).await;
        assert_eq!(whole.status, 200, "{list}: {}", whole.text);
        let names = texts(&whole.json, "name");
        assert!(names.iter().any(|name| name == "first"), "{list}: {names:?}");
        assert!(names.iter().all(|name| name != "second"), "{list}: {names:?}");
    }
}

#[tokio::test]
async fn lists_of_a_host_leave_out_labels_that_are_no_json() {
    let api = TestApi::with_endpoint().await;
    make_all(&api, "first").await;
    let grant = json!({
        "source": { "user": "first" }, "target": { "labels": { "site": "north" } },
        "access": [{ "protocol": "icmp" }], "reason": "second",
    });
    make(&api, "grants", grant).await;
    run(&api.state.store, "update grants set target_labels = 'x' where reason = 'second'", &[]).await;
    let of_host = api.admin().get("/api/v1/grants?host=first").await;
    let reasons = texts(&of_host.json, "reason");
    let is_there = |reason: &str| reasons.iter().any(|found| found == reason);
    assert!(of_host.status == 200 && is_there("first") && !is_there("second"), "{}", of_host.text);
    run(&api.state.store, "update downtimes set host = null, labels = 'x'", &[]).await;
    let downtimes = api.admin().get("/api/v1/downtimes?host=first").await;
    assert_eq!(
        (downtimes.status, texts(&downtimes.json, "comment")),
        (200, Vec::<String>::new()),
        "{}",
        downtimes.text
    );
}

/// Two devices that are rented, and two customers.
async fn shop() -> TestApi {
    let api = TestApi::with_endpoint().await;
    for name in ["cam-1", "cam-2"] {
        make(&api, "devices", json!({ "name": name, "labels": { "kind": "cam" } })).await;
        let settings = format!("/api/v1/devices/{name}/rental-settings");
        assert_eq!(api.admin().put(&settings, json!({ "rentable": true })).await.status, 200);
    }
    for name in ["crm-1", "crm-2"] {
        make(&api, "customers", json!({ "external_ref": name })).await;
    }
    api
}

fn booking(reference: &str, of: &Value, hour: u64) -> Value {
    let mut item = json!({ "from": hence(hour * 3_600), "until": hence(hour * 3_600 + 1_800) });
    item.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
    json!({ "customer": "crm-1", "external_ref": reference, "items": [item] })
}

#[tokio::test]
async fn a_damaged_rental_hides_no_other_and_keeps_its_customer_from_no_booking() {
    let (api, device) = (shop().await, json!({ "device": "cam-1" }));
    make(&api, "bookings", booking("first", &device, 1)).await;
    make(&api, "bookings", booking("second", &device, 2)).await;
    run(&api.state.store, "update rentals set access = 'x' where name = 'device-2'", &[]).await;
    assert_eq!(read(&api, ("rentals", "name")).await, ["device-1"]);
    assert_eq!(read(&api, ("bookings", "external_ref")).await, ["second", "first"]);
    let shown = api.admin().get("/api/v1/bookings/second").await;
    assert_eq!((shown.status, &shown.json["rentals"]), (200, &json!([])), "{}", shown.text);
    make(&api, "bookings", booking("third", &device, 3)).await;
    assert_eq!(read(&api, ("rentals", "name")).await, ["device-3", "device-1"], "its name is in use");

    let open = api.admin().delete("/api/v1/customers/crm-1").await;
    assert_eq!((open.status, open.code()), (409, "rentals_open"), "{}", open.text);
    assert_eq!(open.json["rentals"].as_array().map(Vec::len), Some(3), "{}", open.text);

    run(&api.state.store, "update bookings set metadata = 'x' where external_ref = 'second'", &[]).await;
    assert_eq!(read(&api, ("bookings", "external_ref")).await, ["third", "first"]);
    run(&api.state.store, "update customers set contacts = 'x' where external_ref = 'crm-2'", &[]).await;
    assert_eq!(read(&api, ("customers", "external_ref")).await, ["crm-1"]);
}

#[tokio::test]
async fn a_device_with_damaged_settings_keeps_no_other_from_being_booked() {
    let api = shop().await;
    let damage = "update device_rental_settings set access = 'x'
                  where device = (select id from hosts where name = 'cam-1')";
    run(&api.state.store, damage, &[]).await;
    make(&api, "bookings", booking("first", &json!({ "labels": { "kind": "cam" } }), 1)).await;
    assert_eq!(read(&api, ("rentals", "device_name")).await, ["cam-2"]);
}

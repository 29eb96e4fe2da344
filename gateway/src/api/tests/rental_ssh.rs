//! SSH for renters: their keys, the rentals that give it, and the certificates.

use fleetgate_keys::SshKey;
use russh::keys::{Certificate, HashAlg, PublicKey};
use serde_json::{Value, json};

use super::rental_access::renter;
use super::rentals::{HOUR, book, device, field, hence, item, must, path, rented, renting, shop, text};
use crate::api::testing::{Answer, TestApi};
use crate::store::fixture;

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

/// The line of a `.pub` file and the key that is kept of it.
pub(super) fn key(seed: u8) -> (String, String) {
    let line = |comment| SshKey::from_seed(&[seed; 32], comment).public().to_string();
    (line("ada@laptop"), line(""))
}

/// Gives a device an account for renters, and lets the gateway know its host key.
pub(super) async fn with_account(api: &TestApi, device: &str, mode: &str) {
    let account = "update device_rental_settings set ssh_account = 'guest', ssh_mode = $2
                   where device = (select id from hosts where name = $1)";
    fixture::run(&api.state.store, account, &[device, mode]).await;
    let pinned =
        "update hosts set ssh_pin = 'SHA256:x', ssh_pin_source = 'tunnel', ssh_pin_line = $2 where name = $1";
    fixture::run(&api.state.store, pinned, &[device, HOST_KEY]).await;
}

/// The same with `cam-1`, which has an account for renters.
async fn ssh_shop() -> TestApi {
    let api = shop().await;
    with_account(&api, "cam-1", "certificates").await;
    api
}

pub(super) fn with_ssh(device: &str) -> Value {
    let mut item = item(device, HOUR, 2 * HOUR);
    item["ssh"] = json!(true);
    item
}

async fn ssh_of(api: &TestApi, rental: &Value) -> Answer {
    api.operator().get(&format!("{}/ssh", path(rental))).await
}

async fn set_keys(api: &TestApi, renter: &str, keys: Value) -> Answer {
    api.operator().patch(&format!("/api/v1/renters/{renter}"), json!({ "ssh_keys": keys })).await
}

async fn change(api: &TestApi, rental: &Value, body: Value) -> Answer {
    api.operator().patch(&path(rental), body).await
}

fn seconds(time: &Value) -> u64 {
    let at: jiff::Timestamp = text(time).parse().unwrap();
    u64::try_from(at.as_second()).unwrap()
}

#[tokio::test]
async fn a_renter_gets_a_certificate_for_the_window_of_the_rental() {
    let api = ssh_shop().await;
    let (laptop, phone) = (renter(&api, "crm-17", "laptop").await, renter(&api, "crm-17", "phone").await);
    let (first, second) = (key(1), key(2));
    must(&set_keys(&api, &laptop, json!([first.0])).await);
    must(&set_keys(&api, &phone, json!([second.0])).await);
    let mut wanted = with_ssh("cam-1");
    wanted["name"] = json!("entrance");
    let rental = rented(&api, wanted).await;
    assert_eq!(rental["ssh"], json!(true));
    let answer = ssh_of(&api, &rental).await;
    let shown = must(&answer);
    let facts = ["account", "port", "name", "mode"].map(|field| shown[field].clone());
    assert_eq!(facts, [json!("guest"), json!(22), json!("entrance"), json!("certificates")]);
    assert_eq!(shown["addresses"], rental["addresses"]);
    let [v4, v6] = [0, 1].map(|n| text(&rental["addresses"][n]));
    let known = format!("entrance,entrance.fleet.internal,{v4},{v6} {HOST_KEY}\n");
    assert_eq!(text(&shown["known_hosts"]), known);
    let all = shown["certificates"].as_array().unwrap();
    let of: Vec<(&str, &str)> = all.iter().map(|c| (text(&c["renter"]), text(&c["key"]))).collect();
    assert_eq!(of, [(laptop.as_str(), first.1.as_str()), (phone.as_str(), second.1.as_str())]);
    let gateway = api.viewer().get("/api/v1/gateway").await;
    let ca = PublicKey::from_openssh(text(&must(&gateway)["rental_ssh_ca"])).unwrap();
    let ca = ca.fingerprint(HashAlg::Sha256);
    let certificate = Certificate::from_openssh(text(&all[0]["certificate"])).unwrap();
    let principals = [0, 1].map(|n| {
        Certificate::from_openssh(text(&all[n]["certificate"])).unwrap().valid_principals().concat()
    });
    assert!(principals.iter().all(|name| name.starts_with(&format!("{}.", text(&rental["id"])))));
    assert_ne!(principals[0], principals[1], "each key has its own");
    assert_eq!(certificate.public_key(), PublicKey::from_openssh(&first.1).unwrap().key_data());
    assert!(certificate.key_id().contains(&laptop), "{}", certificate.key_id());
    let (from, until) = (seconds(&all[0]["valid_from"]), seconds(&all[0]["valid_until"]));
    let valid = |at| certificate.validate_at(at, std::slice::from_ref(&ca)).is_ok();
    assert_eq!([from - 1, from, until - 1, until].map(valid), [false, true, true, false]);
    // Whole seconds, never outside of the window.
    let window = [&rental["from"], &rental["until"]].map(seconds);
    assert!(window[0] <= from && from <= window[0] + 1 && until == window[1], "{window:?} {from} {until}");

    let only =
        must(&change(&api, &rental, json!({ "renters": [phone], "until": hence(3 * HOUR) })).await).clone();
    let answer = ssh_of(&api, &rental).await;
    let all = must(&answer)["certificates"].as_array().unwrap();
    assert_eq!((all.len(), &all[0]["renter"]), (1, &json!(phone)));
    assert_eq!(seconds(&all[0]["valid_until"]), seconds(&only["until"]), "it is made anew");
    must(&change(&api, &rental, json!({ "renters": [] })).await);
    assert_eq!(must(&ssh_of(&api, &rental).await)["certificates"], json!([]));
}

#[tokio::test]
async fn a_device_that_takes_keys_needs_no_certificates_and_another_port_is_named() {
    let api = ssh_shop().await;
    with_account(&api, "cam-1", "keys").await;
    must(&api.operator().patch("/api/v1/devices/cam-1", json!({ "ssh": { "port": 2_222 } })).await);
    let laptop = renter(&api, "crm-17", "laptop").await;
    must(&set_keys(&api, &laptop, json!([key(1).0])).await);
    let refused = book(&api, json!([with_ssh("cam-1")])).await;
    assert_eq!(field(&refused), (422, "items[0].ssh"), "{}", refused.text);
    assert!(refused.text.contains("at tcp 2222"), "{}", refused.text);
    let access = json!([{ "protocol": "tcp", "ports": [2_222] }]);
    renting(&api, "cam-1", json!({ "rentable": true, "access": access })).await;
    let rental = rented(&api, with_ssh("cam-1")).await;
    let answer = ssh_of(&api, &rental).await;
    let shown = must(&answer);
    assert_eq!((&shown["mode"], &shown["port"]), (&json!("keys"), &json!(2_222)), "the settings stay");
    assert!(text(&shown["known_hosts"]).starts_with("[device-1]:2222,["), "{}", answer.text);
    let certificate = &shown["certificates"][0];
    assert_eq!((&certificate["key"], &certificate["certificate"]), (&json!(key(1).1), &Value::Null));
    let forget = "update hosts set ssh_pin_line = null";
    fixture::run(&api.state.store, forget, &[]).await;
    assert_eq!(must(&ssh_of(&api, &rental).await)["known_hosts"], "", "only its fingerprint is known");
}

#[tokio::test]
async fn the_keys_of_a_renter_are_kept_without_comments_and_go_with_it() {
    let api = shop().await;
    let (line, bare) = key(1);
    let person = api.operator().post("/api/v1/people", json!({ "customer": "crm-17" })).await;
    let new = json!({ "person": must(&person)["id"], "name": "laptop", "ssh_keys": [line] });
    let made = api.operator().post("/api/v1/renters", new).await;
    assert!(!made.text.contains(&bare), "{}", made.text);
    let renter = text(&must(&made)["renter"]["id"]).to_owned();
    let path = format!("/api/v1/renters/{renter}");
    assert_eq!(must(&api.operator().get(&path).await)["ssh_keys"], json!([bare]));
    let other = set_keys(&api, &renter, json!([key(2).0, bare])).await;
    assert_eq!(must(&other)["ssh_keys"], json!([key(2).1, bare]));
    let same = set_keys(&api, &renter, json!([key(2).1, line])).await;
    assert_eq!(must(&same)["version"], other.json["version"], "the same changes nothing");
    let events = api.operator().get("/api/v1/events?kind=renter.changed").await;
    assert_eq!(must(&events)["items"][0]["data"]["changed"], json!(["ssh_keys"]));
    let everything = api.operator().get("/api/v1/events?limit=200").await.text;
    assert!(!everything.contains("AAAAC3"), "{everything}");
    let table = [
        ("ssh_keys[0]", json!(["nonsense"]), "as in a .pub file"),
        ("ssh_keys[1]", json!([line, "ssh-ed25519 AAAA"]), "is no ssh-ed25519 key"),
        ("ssh_keys[0]", json!(["-----BEGIN OPENSSH PRIVATE KEY-----"]), "is a private key"),
        ("ssh_keys[0]", json!([format!("no-pty {line}")]), "without options"),
        ("ssh_keys[1]", json!([line, bare]), "is the same key"),
        ("ssh_keys", json!(vec![line.clone(); 9]), "at most 8"),
    ];
    for (name, keys, says) in table {
        let refused = set_keys(&api, &renter, keys.clone()).await;
        assert_eq!(field(&refused), (422, name), "{keys}: {}", refused.text);
        assert!(refused.text.contains(says), "{says}: {}", refused.text);
        let new = json!({ "person": person.json["id"], "name": "phone", "ssh_keys": keys });
        let refused = api.operator().post("/api/v1/renters", new).await;
        assert_eq!(field(&refused), (422, name), "{}", refused.text);
    }
    assert_eq!(set_keys(&api, &renter, Value::Null).await.status, 422);
    assert_eq!(must(&api.operator().get(&path).await)["ssh_keys"], other.json["ssh_keys"], "nothing is lost");
    assert_eq!(api.operator().delete("/api/v1/customers/crm-17").await.status, 204);
    let left = fixture::texts(&api.state.store, "select ssh_keys from renters").await;
    assert_eq!(left, ["[]"]);
}

#[tokio::test]
async fn ssh_needs_an_account_of_the_device_and_access_to_its_port() {
    let api = ssh_shop().await;
    let refused = book(&api, json!([with_ssh("cam-2")])).await;
    assert_eq!(field(&refused), (422, "items[0].ssh"), "{}", refused.text);
    assert!(refused.text.contains("cam-2 has no account for renters"), "{}", refused.text);
    let mut web = with_ssh("cam-1");
    web["access"] = json!([{ "protocol": "tcp", "ports": [443] }]);
    let refused = book(&api, json!([web.clone()])).await;
    assert_eq!(field(&refused), (422, "items[0].ssh"), "{}", refused.text);
    assert!(refused.text.contains("add tcp 22"), "{}", refused.text);
    let mut any = json!({ "labels": { "kind": "cam" }, "until": hence(HOUR), "ssh": true });
    let made = rented(&api, any.clone()).await;
    assert_eq!(made["device_name"], "cam-1", "the only one that can");
    must(&api.operator().post(&format!("{}/end", path(&made)), json!({ "reason": "ended" })).await);
    any["labels"] = json!({ "name": "cam-2" });
    let refused = book(&api, json!([any])).await;
    assert!(refused.text.contains("no device of the selection"), "{}", refused.text);

    // The first is without SSH: it may be had later.
    web["ssh"] = json!(false);
    let rental = rented(&api, web).await;
    let denied = ssh_of(&api, &rental).await;
    assert_eq!((denied.status, denied.code()), (409, "ssh_not_granted"), "{}", denied.text);
    let refused = change(&api, &rental, json!({ "ssh": true })).await;
    assert_eq!(field(&refused), (422, "ssh"), "{}", refused.text);
    let access = json!([{ "protocol": "tcp", "ports": [22] }]);
    let granted = change(&api, &rental, json!({ "ssh": true, "access": access })).await;
    assert_eq!((&must(&granted)["ssh"], &granted.json["version"]), (&json!(true), &json!(2)));
    must(&ssh_of(&api, &rental).await);
    let refused = change(&api, &rental, json!({ "access": [{ "protocol": "icmp" }] })).await;
    assert_eq!(field(&refused), (422, "access"), "{}", refused.text);
    assert_eq!(change(&api, &rental, json!({ "ssh": null })).await.status, 422);
    let events = api.operator().get("/api/v1/events?kind=rental.changed").await;
    assert_eq!(must(&events)["items"][0]["data"]["changed"], json!(["access", "ssh"]));
    let without = json!({ "ssh": false, "access": [{ "protocol": "icmp" }] });
    assert_eq!(must(&change(&api, &rental, without).await)["ssh"], json!(false));
}

#[tokio::test]
async fn a_swap_keeps_ssh_where_the_device_has_it_and_tells_the_new_host_key() {
    let api = ssh_shop().await;
    let rental = rented(&api, with_ssh("cam-1")).await;
    let swap = |device: &str| json!({ "device": device });
    let refused = change(&api, &rental, swap("cam-2")).await;
    assert_eq!((refused.status, refused.code()), (409, "access_not_allowed"), "{}", refused.text);
    assert!(refused.text.contains("take SSH away"), "{}", refused.text);
    device(&api, "cam-3").await;
    with_account(&api, "cam-3", "certificates").await;
    let other = HOST_KEY.replace("ILM", "ILN");
    let its_own = "update hosts set ssh_pin_line = $1, ssh_port = 22 where name = 'cam-3'";
    fixture::run(&api.state.store, its_own, &[&other]).await;
    let its_own = "update device_rental_settings set ssh_account = 'other'
                   where device = (select id from hosts where name = 'cam-3')";
    fixture::run(&api.state.store, its_own, &[]).await;
    let swapped = change(&api, &rental, swap("cam-3")).await;
    assert_eq!((&must(&swapped)["device_name"], &swapped.json["ssh"]), (&json!("cam-3"), &json!(true)));
    let shown = ssh_of(&api, &rental).await;
    assert_eq!(must(&shown)["account"], json!("other"), "it is that of the new device");
    assert!(text(&shown.json["known_hosts"]).ends_with(&format!(" {other}\n")), "{}", shown.text);
    let without = json!({ "device": "cam-2", "ssh": false });
    assert_eq!(must(&change(&api, &rental, without).await)["device_name"], "cam-2");
    let feed = api.operator().get("/api/v1/rental-events").await;
    let events = must(&feed)["items"].as_array().unwrap();
    let keys = |n: usize| {
        events.iter().filter(|e| e["kind"] == "rental.swapped").nth(n).unwrap()["data"]["ssh_host_keys"]
            .clone()
    };
    assert_eq!((keys(0), keys(1)), (json!([other]), json!([])), "cam-2 has shown none yet");
    assert!(events.iter().all(|e| e["kind"] == "rental.swapped" || e["data"]["ssh_host_keys"].is_null()));
}

#[tokio::test]
async fn a_rental_that_is_over_or_lost_its_account_has_no_certificates() {
    let api = ssh_shop().await;
    let unknown = api.operator().get("/api/v1/rentals/l_0000000000007/ssh").await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    let rental = rented(&api, with_ssh("cam-1")).await;
    fixture::run(&api.state.store, "update device_rental_settings set ssh_account = null", &[]).await;
    let denied = ssh_of(&api, &rental).await;
    assert_eq!((denied.status, denied.code()), (409, "ssh_not_granted"), "{}", denied.text);
    assert!(denied.text.contains("cam-1 has no account"), "{}", denied.text);
    // Its earlier settings are no obstacle to other changes.
    must(&change(&api, &rental, json!({ "until": hence(3 * HOUR) })).await);
    with_account(&api, "cam-1", "certificates").await;
    must(&ssh_of(&api, &rental).await);
    must(&api.operator().post(&format!("{}/cancel", path(&rental)), json!({})).await);
    let over = ssh_of(&api, &rental).await;
    assert_eq!((over.status, over.code()), (409, "rental_over"), "{}", over.text);
}

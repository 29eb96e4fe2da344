//! Addresses in settings that the gateway connects to.

use serde_json::{Value, json};

use crate::api::testing::{Answer, TestApi};
use crate::outbound::Outbound;

fn refused(answer: &Answer, field: &str) -> bool {
    let error = &answer.json["errors"][0];
    answer.status == 422
        && error["field"] == field
        && error["detail"].as_str().is_some_and(|d| d.contains("outbound.allow"))
}

fn device(address: &str) -> Value {
    json!({ "name": "pub1", "tunnel": false, "direct_address": address })
}

#[tokio::test]
async fn a_host_is_not_watched_at_this_machine_or_where_clouds_keep_credentials() {
    let api = TestApi::with_endpoint().await;
    let made = api.operator().post("/api/v1/devices", device("192.0.2.7")).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for address in ["127.0.0.1", "::1", "localhost", "169.254.169.254", "fd00:ec2::254", "::ffff:127.0.0.1"] {
        let new = api.operator().post("/api/v1/devices", device(address)).await;
        assert!(refused(&new, "direct_address"), "{address}: {}", new.text);
        let change = json!({ "direct_address": address });
        let changed = api.operator().patch("/api/v1/devices/pub1", change).await;
        assert!(refused(&changed, "direct_address"), "{address}: {}", changed.text);
    }
    let kept = api.viewer().get("/api/v1/devices/pub1").await;
    assert_eq!(kept.json["direct_address"], "192.0.2.7");
}

#[tokio::test]
async fn a_webhook_may_be_on_this_machine_and_not_where_clouds_keep_credentials() {
    let api = TestApi::new().await;
    let contact = |url: &str| json!({ "name": "pager", "webhook_url": url });
    let made = api.operator().post("/api/v1/contacts", contact("http://127.0.0.1:9/x")).await;
    assert_eq!(made.status, 201, "{}", made.text);
    for url in [
        "http://169.254.169.254/latest",
        "http://2852039166/",
        "http://[fe80::1]/",
        "https://[fd00:ec2::254]/",
    ] {
        let new = api.operator().post("/api/v1/contacts", contact(url)).await;
        assert!(refused(&new, "webhook_url"), "{url}: {}", new.text);
        let changed = api.operator().patch("/api/v1/contacts/pager", json!({ "webhook_url": url })).await;
        assert!(refused(&changed, "webhook_url"), "{url}: {}", changed.text);
    }
}

#[tokio::test]
async fn a_setting_opens_what_somebody_needs() {
    let api = TestApi::with(|config| {
        config.outbound = Outbound::allowing(vec!["127.0.0.0/8".parse().unwrap()]);
    });
    let api = api.await;
    assert_eq!(api.operator().post("/api/v1/devices", device("127.0.0.1")).await.status, 201);
    let beside = api.operator().post("/api/v1/devices", device("::1")).await;
    assert!(refused(&beside, "direct_address"), "{}", beside.text);
}

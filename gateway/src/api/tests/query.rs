//! Query parameters: unknown ones are refused, and several labels are combined.

use axum::body::Body;
use serde_json::{Value, json};

use super::mine;
use super::openapi::operations;
use crate::api::testing::TestApi;

#[tokio::test]
async fn every_route_refuses_a_parameter_that_it_does_not_know_and_names_those_it_does() {
    let api = super::rentals::shop().await;
    let ada = mine::person(&api, "crm-17", "Ada").await;
    let of_ada = mine::browser(&api, &mine::logged_in(&api, "crm-17", &ada).await);
    for (method, path, operation) in operations() {
        let caller = if path.starts_with("/api/v1/my") { of_ada.clone() } else { api.admin() };
        let path = path.split('/').map(|part| if part.starts_with('{') { "nothing" } else { part });
        let path = format!("{}?nonsense=1", path.collect::<Vec<_>>().join("/"));
        let answer = caller.send(&method, &path, Body::empty()).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_query"), "{method} {path}: {}", answer.text);
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(detail.contains("\"nonsense\""), "{method} {path}: {detail}");
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        for name in parameters.filter(|p| p["in"] == "query").filter_map(|p| p["name"].as_str()) {
            assert!(detail.contains(name), "{method} {path} takes {name}: {detail}");
        }
    }
}

#[tokio::test]
async fn a_parameter_is_refused_once_it_is_given_twice_and_an_unknown_one_also_beside_known_ones() {
    let api = TestApi::new().await;
    for query in ["limit=1&limit=2", "limit=1&order=desc", "Limit=1", "limi%74s=1"] {
        let answer = api.viewer().get(&format!("/api/v1/events?{query}")).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_query"), "{query}: {}", answer.text);
    }
    assert_eq!(api.viewer().get("/api/v1/events?li%6Dit=1&").await.status, 200);
}

#[tokio::test]
async fn several_labels_select_what_has_all_of_them() {
    let api = TestApi::with_endpoint().await;
    for (name, labels) in [
        ("a", json!({ "site": "hill", "kind": "camera" })),
        ("b", json!({ "site": "hill", "kind": "nas" })),
        ("c", json!({ "site": "valley", "kind": "camera" })),
    ] {
        let made = api.operator().post("/api/v1/devices", json!({ "name": name, "labels": labels })).await;
        assert_eq!(made.status, 201, "{}", made.text);
    }
    for list in ["hosts", "devices"] {
        for (query, expected) in [
            ("label=site%3Dhill", json!(["a", "b"])),
            ("label=site=hill&label=kind=camera", json!(["a"])),
            ("label=kind=camera&label=site=hill&limit=1", json!(["a"])),
            ("label=site=hill&label=site=valley", json!([])),
            ("", json!(["a", "b", "c"])),
        ] {
            let answer = api.viewer().get(&format!("/api/v1/{list}?{query}")).await;
            let names: Value =
                answer.json["items"].as_array().unwrap().iter().map(|h| h["name"].clone()).collect();
            assert_eq!(names, expected, "{list}?{query}");
        }
        let many: String = (0..33).map(|n| format!("label=k{n}=v&")).collect();
        let answer = api.viewer().get(&format!("/api/v1/{list}?{many}")).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_query"), "{}", answer.text);
        let answer = api.viewer().get(&format!("/api/v1/{list}?label=site=hill&label=kind")).await;
        assert_eq!((answer.status, answer.code()), (400, "bad_query"), "{}", answer.text);
    }
}

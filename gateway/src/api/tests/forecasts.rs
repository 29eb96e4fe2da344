//! The forecast of a service.

use fleetgate_engine::forecast::Basis;
use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Wall;
use serde_json::json;

use crate::api::testing::TestApi;
use crate::clock;
use crate::store::forecasts::{self, Stored};

const DAY_MS: i64 = 86_400_000;

#[tokio::test]
async fn a_service_shows_its_forecast_and_how_far_earlier_ones_were_off() {
    let api = TestApi::with_endpoint().await;
    let made = api.operator().post("/api/v1/devices", json!({ "name": "cam-07" })).await;
    let host: HostId = made.json["device"]["id"].as_str().unwrap()[2..].parse().unwrap();
    let now = clock::wall().as_millis() / 1_000 * 1_000;
    let basis =
        Basis { from: 0, to: 86_400, peaks: 9, period_s: Some(86_400), slope_per_day: 1.5, spread: 0.25 };
    let forecast = |at: i64, full_at: i64| Stored {
        host,
        service: "ping".to_owned(),
        at: Wall::from_millis(at),
        full_at: Some(Wall::from_millis(full_at)),
        full_since: None,
        text: "full in about 9 days".to_owned(),
        basis,
    };
    let mut tx = api.state.store.begin().await.unwrap();
    // Five days ago it was to be full two days ago, and two days ago a day earlier than now.
    for (made_days, full_days) in [(-5, -2), (-2, 8), (0, 9)] {
        let made = forecast(now + made_days * DAY_MS, now + full_days * DAY_MS);
        forecasts::write(&mut tx, &[made]).await.unwrap();
    }
    tx.commit().await.unwrap();

    let service = api.viewer().get("/api/v1/hosts/cam-07/services/ping").await.json;
    let shown = &service["forecast"];
    assert_eq!(shown["text"], "full in about 9 days");
    assert_eq!((&shown["change_s"], &shown["error_is_least"]), (&json!(86_400.0), &json!(true)));
    let off = shown["error_s"].as_f64().unwrap() - 2.0 * 86_400.0;
    assert!((0.0..60.0).contains(&off), "it is over by two days: {shown}");
    let basis = json!({
        "from": "1970-01-01T00:00:00Z", "to": "1970-01-02T00:00:00Z", "peaks": 9, "period_s": 86_400,
        "slope_per_day": 1.5, "spread": 0.25,
    });
    assert_eq!(shown["basis"], basis, "{shown}");
    assert!(shown["full_at"].as_str() > shown["made_at"].as_str(), "{shown}");
    let all = api.viewer().get("/api/v1/hosts/cam-07/services").await.json;
    let with: Vec<_> =
        all["items"].as_array().unwrap().iter().filter(|s| s.get("forecast").is_some()).collect();
    assert_eq!(with, [&service]);
}

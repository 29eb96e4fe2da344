//! The traffic of a device by day.

use axum::Json;
use axum::extract::State;
use fleetgate_engine::messages::WireDay;
use fleetgate_engine::time::Wall;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::AppState;
use super::hosts::load_ever;
use super::request::extract::{Path, Query};
use super::request::ids::{self, IdKind};
use super::response::problem::Problem;
use crate::clock;

/// The default number of days, a month.
const DEFAULT_DAYS: i64 = 31;
/// Days of one answer: three years, which are kept by default.
const MOST_DAYS: i64 = 1_098;
const DAY_MS: i64 = 86_400_000;

/// The bytes of a device on the wire: datagrams of both directions with UDP and IP headers, including handshakes and
/// keepalives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// The newest first; a day without a datagram is absent.
    pub days: Vec<TrafficDay>,
    /// The present limit for the traffic of the checks. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_bytes_per_day: Option<u64>,
}

/// One day of UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrafficDay {
    /// `2026-03-01`.
    pub day: String,
    /// From the device.
    pub rx_bytes: u64,
    /// To the device.
    pub tx_bytes: u64,
    pub bytes: u64,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(traffic))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct TrafficParams {
    /// So many days back from today; 31 when absent.
    #[param(minimum = 1, maximum = 1098)]
    days: Option<i64>,
}

/// The bytes of a device on the wire, by UTC day, and its budget. Days are kept for three years by default.
#[utoipa::path(get, path = "/hosts/{host}/traffic", operation_id = "host_traffic", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])),
    params(("host" = String, Path, description = "id or name"), TrafficParams),
    responses((status = 200, body = Traffic)))]
async fn traffic(
    State(app): State<AppState>,
    Path(host): Path<String>,
    Query(wanted): Query<TrafficParams>,
) -> Result<Json<Traffic>, Problem> {
    let most = wanted.days.unwrap_or(DEFAULT_DAYS);
    if !(1..=MOST_DAYS).contains(&most) {
        return Err(Problem::bad_request("bad_query", format!("days: 1 to {MOST_DAYS} is expected")));
    }
    let mut conn = app.store.reader().await?;
    let host = load_ever(&mut conn, IdKind::Host.named(&host)).await?;
    drop(conn);
    let peer = host.id;
    let today = clock::day();
    let stored = app.store.wire_days(peer, today, most).await?;
    let live = app.live.peer(peer).map(|status| status.wire).unwrap_or_default();
    let known = live.into_iter().filter(|day| day.total() > 0 && day.day > today - most);
    let days = newest(stored, known).into_iter().map(to_api).collect();
    Ok(Json(Traffic { days, budget_bytes_per_day: host.budget }))
}

/// Prefers memory for the last two days, because it is newer than the store.
fn newest(stored: Vec<WireDay>, live: impl Iterator<Item = WireDay>) -> Vec<WireDay> {
    let mut days = stored;
    for day in live {
        days.retain(|other| other.day != day.day);
        days.push(day);
    }
    days.sort_by_key(|day| std::cmp::Reverse(day.day));
    days
}

fn to_api(day: WireDay) -> TrafficDay {
    let midnight = ids::time(Wall::from_millis(day.day * DAY_MS));
    TrafficDay {
        day: midnight.split('T').next().unwrap_or_default().to_owned(),
        rx_bytes: day.rx_bytes,
        tx_bytes: day.tx_bytes,
        bytes: day.total(),
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::messages::PeerStatus;
    use serde_json::json;

    use super::*;
    use crate::api::testing::TestApi;

    #[tokio::test]
    async fn days_are_shown_newest_first_and_memory_comes_before_the_store() {
        let api = TestApi::with_endpoint().await;
        assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": "cam" })).await.status, 201);
        let shown = api.viewer().get("/api/v1/hosts/cam").await.json;
        let peer: Id = IdKind::Host.parse(shown["id"].as_str().unwrap()).unwrap();
        let today = clock::day();
        let day = |day, rx_bytes| WireDay { day, rx_bytes, tx_bytes: 10 };
        let status = |wire| Box::new(PeerStatus { wire, ..PeerStatus::default() });
        let mut tx = api.state.store.begin().await.unwrap();
        let old = status([day(today - 2, 7), day(today - 1, 20)]);
        let older = status([day(today - 1_097, 1), day(today - 1_098, 2)]);
        crate::store::wire_days::write(&mut tx, &[(peer, old), (peer, older)]).await.unwrap();
        tx.commit().await.unwrap();
        api.state.live.set_peer(peer, *status([day(today, 5), day(today - 1, 30)]));
        let answer = api.viewer().get("/api/v1/hosts/cam/traffic").await.json;
        let bytes: Vec<i64> =
            answer["days"].as_array().unwrap().iter().map(|d| d["bytes"].as_i64().unwrap()).collect();
        assert_eq!(bytes, [15, 40, 17]);
        let one = api.viewer().get("/api/v1/hosts/cam/traffic?days=1").await.json;
        assert_eq!(one["days"].as_array().unwrap().len(), 1);
        let all = api.viewer().get("/api/v1/hosts/cam/traffic?days=1098").await.json;
        let oldest = all["days"].as_array().unwrap().last().unwrap();
        assert_eq!((&oldest["bytes"], all.get("budget_bytes_per_day")), (&json!(11), None));
        for wrong in ["0", "1099"] {
            let refused = api.viewer().get(&format!("/api/v1/hosts/cam/traffic?days={wrong}")).await;
            assert!(refused.status == 400 && refused.text.contains("days: 1 to 1098"), "{}", refused.text);
        }
        let host = api.viewer().get("/api/v1/hosts/cam").await.json;
        assert_eq!(
            (&host["tunnel"]["today_bytes"], &host["tunnel"]["yesterday_bytes"]),
            (&json!(15), &json!(40))
        );
    }

    #[tokio::test]
    async fn a_budget_is_set_shown_and_taken_back() {
        let api = TestApi::with_endpoint().await;
        assert_eq!(api.operator().post("/api/v1/devices", json!({ "name": "cam" })).await.status, 201);
        let path = "/api/v1/hosts/cam";
        let set = api.operator().patch(path, json!({ "budget_bytes_per_day": 1_000_000 })).await;
        assert_eq!((set.status, &set.json["budget_bytes_per_day"]), (200, &json!(1_000_000)), "{}", set.text);
        let shown = api.viewer().get(path).await.json;
        assert_eq!(shown["tunnel"]["budget"]["stretch"], 1);
        let traffic = api.viewer().get("/api/v1/hosts/cam/traffic").await.json;
        assert_eq!(traffic["budget_bytes_per_day"], 1_000_000);
        let small = api.operator().patch(path, json!({ "budget_bytes_per_day": 5 })).await;
        assert_eq!(small.status, 422);
        let back = api.operator().patch(path, json!({ "budget_bytes_per_day": null })).await;
        assert_eq!(back.json["budget_bytes_per_day"], json!(null));
        let outside = json!({ "name": "pub", "tunnel": false, "direct_address": "192.0.2.7" });
        assert_eq!(api.operator().post("/api/v1/devices", outside).await.status, 201);
        let refused =
            api.operator().patch("/api/v1/hosts/pub", json!({ "budget_bytes_per_day": 1_000_000 })).await;
        assert!(refused.status == 422 && refused.text.contains("pub has no tunnel"), "{}", refused.text);
    }
}

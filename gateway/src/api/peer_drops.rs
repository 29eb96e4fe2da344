//! Counts the dropped packets of each peer, by reason: in the answers of the API and in `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fleetgate_engine::id::PeerId;
use fleetgate_engine::messages::DropReason;

use super::AppState;
use super::response::problem::Problem;
use crate::store::peer_names::{self, PeerName};

/// The peers with their own counters in `/metrics`: those with the most drops. With all reasons they make
/// fewer than 6,000 series, however large the fleet is.
const LISTED: usize = 200;

const METRIC: &str = "fleetgate_peer_drops_total";

pub type Drops = BTreeMap<DropReason, u64>;

/// Returns the counts by the names of their reasons.
pub fn by_name(counted: &Drops) -> BTreeMap<String, u64> {
    counted.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
}

/// Returns the lines of `/metrics` for single peers.
pub(super) async fn metrics(app: &AppState) -> Result<String, Problem> {
    let most = app.live.most_dropped(LISTED);
    if most.is_empty() {
        return Ok(String::new());
    }
    let ids: Vec<PeerId> = most.iter().map(|(peer, _)| *peer).collect();
    let names = peer_names::of(&mut *app.store.reader().await?, &ids).await?;
    let named: Vec<(&PeerName, &Drops)> =
        most.iter().filter_map(|(peer, drops)| Some((names.get(peer)?, drops))).collect();
    Ok(lines(&named))
}

/// Names have no characters that a label would have to escape.
fn lines(peers: &[(&PeerName, &Drops)]) -> String {
    let mut text = format!("# TYPE {METRIC} counter\n");
    for (PeerName { kind, name }, drops) in peers {
        for (reason, count) in *drops {
            let reason = reason.name();
            let _ = writeln!(text, r#"{METRIC}{{kind="{kind}",peer="{name}",reason="{reason}"}} {count}"#);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::PeerStatus;
    use serde_json::json;

    use super::*;
    use crate::api::request::ids::IdKind;
    use crate::api::testing::TestApi;

    fn status(drops: &[(DropReason, u64)]) -> PeerStatus {
        PeerStatus { drops: drops.iter().copied().collect(), ..PeerStatus::default() }
    }

    #[tokio::test]
    async fn drops_of_devices_and_operators_are_shown_by_the_api_and_in_the_metrics() {
        let api = TestApi::with_endpoint().await;
        let user = json!({ "name": "anna", "role": "operator", "password": "correct horse battery" });
        assert_eq!(api.admin().post("/api/v1/users", user).await.status, 201);
        let device = api.admin().post("/api/v1/devices", json!({ "name": "cam-07" })).await;
        let laptop = json!({ "name": "anna-laptop", "user": "anna" });
        let laptop = api.admin().post("/api/v1/operators", laptop).await;
        assert!(!api.operator().get("/metrics").await.text.contains(METRIC), "nothing was dropped yet");

        let id =
            |kind: IdKind, answer: &serde_json::Value| kind.parse(answer["id"].as_str().unwrap()).unwrap();
        let device = id(IdKind::Host, &device.json["device"]);
        let laptop = id(IdKind::Operator, &laptop.json["operator"]);
        api.state.live.set_peer(device, status(&[(DropReason::NoFlow, 2)]));
        let denied = status(&[(DropReason::NotGranted, 7), (DropReason::SpoofedSource, 1)]);
        api.state.live.set_peer(laptop, denied);
        let host = api.viewer().get("/api/v1/hosts/cam-07").await.json;
        assert_eq!(host["tunnel"]["drops"], json!({ "no_flow": 2 }));
        let operator = api.operator().get("/api/v1/operators/anna-laptop").await.json;
        assert_eq!(operator["drops"], json!({ "not_granted": 7, "spoofed_source": 1 }));

        let text = api.operator().get("/metrics").await.text;
        let own: Vec<&str> = text.lines().filter(|line| line.contains(METRIC)).collect();
        let expected = [
            "# TYPE fleetgate_peer_drops_total counter",
            r#"fleetgate_peer_drops_total{kind="operator",peer="anna-laptop",reason="spoofed_source"} 1"#,
            r#"fleetgate_peer_drops_total{kind="operator",peer="anna-laptop",reason="not_granted"} 7"#,
            r#"fleetgate_peer_drops_total{kind="device",peer="cam-07",reason="no_flow"} 2"#,
        ];
        assert_eq!(own, expected);
        assert_eq!(api.admin().delete("/api/v1/operators/anna-laptop").await.status, 204);
        assert!(!api.operator().get("/metrics").await.text.contains("anna-laptop"));
    }

    #[tokio::test]
    async fn a_large_fleet_has_a_limited_number_of_series() {
        let api = TestApi::with_endpoint().await;
        for n in 0..1_000 {
            let drops = status(&[(DropReason::Replay, n)]);
            api.state.live.set_peer(fleetgate_engine::id::Id::from_i64(n as i64 + 1), drops);
        }
        let most = api.state.live.most_dropped(LISTED);
        let counts: Vec<u64> = most.iter().map(|(_, drops)| drops[&DropReason::Replay]).collect();
        assert_eq!(counts, (800..1_000).rev().collect::<Vec<u64>>());
    }
}

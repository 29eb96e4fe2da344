//! A device enrolled according to docs/enrol-devices.md has limits on its sensors.

use std::collections::BTreeMap;
use std::time::Duration;

use fleetgate_keys::{PrivateKey, SshKey};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::api::testing::TestApi;
use crate::demo::sensors::Sensors;

/// Far longer than a check with an immediate reply takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// The limits that the services of the profile `default` have.
const LIMITED: [(&str, &[&str]); 6] = [
    ("disk", &["fullness", "inodes"]),
    ("load", &["load15_per_cpu"]),
    ("memory", &["used", "swap"]),
    ("mounts", &["read_only"]),
    ("temperature", &["temperature"]),
    ("tunnel", &["clock_skew"]),
];

/// A Linux device, enrolled with a token from `fleetgate token create --enrol cams --ssh-user
/// fleet`.
struct Enrolled {
    api: TestApi,
    sensors: Sensors,
    _tasks: JoinSet<()>,
}

impl Enrolled {
    async fn new() -> Enrolled {
        let mut api = TestApi::with_endpoint().await;
        let sensors = Sensors::default();
        let tasks = api.start_monitor_of(Some(sensors.clone()));
        let wanted = json!({ "label": "cams", "ssh_user": "fleet" });
        let token = api.operator().post("/api/v1/enrolment-tokens", wanted).await;
        assert_eq!(token.status, 201, "{}", token.text);
        let body = json!({
            "token": token.json["secret"], "name": "cam", "poll_hash": "ab".repeat(32),
            "public_key": PrivateKey::from_bytes([1; 32]).public().to_string(),
            "ssh_host_key": SshKey::generate("cam").public().to_string(),
        });
        let answer = api.anonymous().post("/api/v1/enrol", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        Enrolled { api, sensors, _tasks: tasks }
    }

    async fn services(&self) -> BTreeMap<String, Value> {
        let page = self.api.viewer().get("/api/v1/hosts/cam/services").await.json;
        let items = page["items"].as_array().expect("services").clone();
        items.into_iter().map(|s| (s["name"].as_str().expect("a name").to_owned(), s)).collect()
    }

    async fn check(&self) {
        assert_eq!(self.api.operator().post("/api/v1/hosts/cam/check", json!({})).await.status, 202);
    }

    /// Checks until `service` is in that hard state. Returns its text.
    async fn becomes(&self, service: &str, state: &str) -> String {
        let mut last = Value::Null;
        let reached = async {
            loop {
                self.check().await;
                last = self.services().await.remove(service).expect("the service");
                if last["state"] == state && last["state_type"] == "hard" {
                    return last["text"].as_str().expect("a text").to_owned();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(text) => text,
            Err(_) => panic!("{service} does not become {state}: {last}"),
        }
    }
}

#[tokio::test]
async fn an_enrolled_device_has_a_limit_on_every_sensor_that_has_an_obvious_one() {
    let device = Enrolled::new().await;
    let services = device.services().await;
    let limited = services.iter().map(|(name, service)| {
        let limits = service["thresholds"].as_array().into_iter().flatten();
        (name.as_str(), limits.filter_map(|limit| limit["metric"].as_str()).collect::<Vec<_>>())
    });
    let limited: Vec<(&str, Vec<&str>)> = limited.filter(|(_, metrics)| !metrics.is_empty()).collect();
    assert_eq!(limited, LIMITED.map(|(name, metrics)| (name, metrics.to_vec())));
}

#[tokio::test]
async fn a_full_disk_of_an_enrolled_device_is_a_problem() {
    let device = Enrolled::new().await;
    assert!(device.becomes("disk", "ok").await.starts_with("disk / 41 % used"));
    device.sensors.set("disk", 90.0).expect("a disk");
    let text = device.becomes("disk", "warning").await;
    assert!(text.contains("fullness") && text.contains("(warning)"), "{text}");
    device.sensors.set("disk", 100.0).expect("a disk");
    let text = device.becomes("disk", "critical").await;
    assert!(text.starts_with("disk / 100 % used") && text.contains("(critical)"), "{text}");
    let problems = device.api.viewer().get("/api/v1/problems").await.json;
    let mut listed = problems["items"].as_array().expect("problems").iter();
    assert!(listed.any(|problem| problem["service"] == "disk"), "{problems}");
    device.sensors.set("disk", 41.0).expect("a disk");
    device.becomes("disk", "ok").await;
}

#[tokio::test]
async fn what_else_runs_out_on_an_enrolled_device_is_a_problem_too() {
    let device = Enrolled::new().await;
    // In this order: an ok value, a warning and a critical one.
    let table = [
        ("load", 0.4, 12.0, 30.0),
        ("memory", 37.0, 93.0, 99.0),
        ("temperature", 43.5, 88.0, 99.0),
        ("mounts", 0.0, 1.0, 3.0),
    ];
    for (sensor, well, bad, worse) in table {
        device.becomes(sensor, "ok").await;
        device.sensors.set(sensor, bad).expect("a sensor");
        device.becomes(sensor, if sensor == "mounts" { "critical" } else { "warning" }).await;
        device.sensors.set(sensor, worse).expect("a sensor");
        device.becomes(sensor, "critical").await;
        device.sensors.set(sensor, well).expect("a sensor");
        device.becomes(sensor, "ok").await;
    }
}

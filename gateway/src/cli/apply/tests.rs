use serde_json::json;

use super::*;
use crate::api::testing::TestApi;
use crate::cli::Connection;

const FLEET: &str = r#"
[profiles.lte]
extends = ["default"]
[profiles.lte.services.ping]
interval_s = 900
thresholds = [{ metric = "rta", warn = 500, crit = 1500 }]

[[profile_rules]]
labels = { uplink = "lte" }
profile = "lte"

[contacts.ops]
emails = ["Ops <ops@example.com>"]
webhook_url = "https://hooks.example.com/fleet"
time_zone = "Europe/Berlin"

[notification_rules.cameras]
contact = "ops"
labels = { uplink = "*" }
period = "mon-fri 08:00-18:00"

[devices.cam-07]
labels = { uplink = "lte", site = "hill" }
networks = ["192.168.1.0/24"]
interval_s = 120
[devices.cam-07.services.ping]
thresholds = [{ metric = "pl", warn = 50 }]

[hosts.nas-07]
via = "cam-07"
address = "192.168.1.5"
profile = "nas"
"#;

struct Fleet {
    api: TestApi,
    url: String,
    dir: tempfile::TempDir,
}

fn client(url: &str, token: &str) -> Client {
    let to = Connection { data: None, url: Some(url.to_owned()), token: Some(token.to_owned()), json: false };
    Client::new(&to).unwrap()
}

impl Fleet {
    async fn new() -> Fleet {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = TestApi::with_endpoint().await;
        let url = format!("http://{}", api.serve(api.router()).await);
        Fleet { api, url, dir: tempfile::tempdir().unwrap() }
    }

    fn connect(&self) -> Client {
        client(&self.url, self.api.operator_token())
    }

    async fn apply(&self, text: &str, change: impl FnOnce(&mut ApplyArgs)) -> anyhow::Result<()> {
        let file = self.dir.path().join("fleet.toml");
        std::fs::write(&file, text).unwrap();
        let mut args = ApplyArgs {
            file,
            dry_run: false,
            yes: true,
            overwrite: false,
            adopt: false,
            prune: false,
            out: Some(self.dir.path().join("conf")),
            manager: "apply".into(),
        };
        change(&mut args);
        run(self.connect(), args).await
    }

    /// What another run would do.
    async fn left(&self, text: &str, policy: Policy) -> String {
        let wanted = file::read("fleet.toml", text).unwrap();
        let policy = Policy { manager: "apply".into(), ..policy };
        let found = look(&self.connect(), &wanted, &policy).await.unwrap();
        plan::render(&plan::plan(&wanted, &found, &policy))
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.api.viewer().get(&format!("/api/v1{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        answer.json
    }
}

#[tokio::test]
async fn a_fleet_becomes_what_the_file_says_and_a_second_run_does_nothing() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |args| (args.yes, args.dry_run) = (false, true)).await.unwrap();
    assert_eq!(fleet.get("/devices").await["items"], json!([]));
    fleet.apply(FLEET, |_| {}).await.unwrap();
    let ping = fleet.get("/hosts/cam-07/services/ping").await;
    assert_eq!(ping["check_interval_s"], 900.0);
    let limits =
        json!([{ "metric": "rta", "warn": "500", "crit": "1500" }, { "metric": "pl", "warn": "50" }]);
    assert_eq!(ping["thresholds"], limits);
    assert_eq!(fleet.get("/hosts/cam-07/settings").await["interval_s"], 120.0);
    assert_eq!(fleet.get("/hosts/nas-07/settings").await["managed_by"], "apply");
    let conf = std::fs::read_to_string(fleet.dir.path().join("conf/cam-07.conf")).unwrap();
    assert!(conf.contains("PresharedKey"));
    assert!(fleet.dir.path().join("conf/ops.webhook-secret").exists());
    assert_eq!(fleet.api.operator().get("/api/v1/rules/cameras").await.json["managed_by"], "apply");
    assert_eq!(fleet.left(FLEET, Policy::default()).await, "");
}

#[tokio::test]
async fn a_limit_changed_at_night_is_told_and_kept_until_it_is_overwritten() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    let night = json!({ "thresholds": [{ "metric": "pl", "warn": "90" }] });
    let path = "/api/v1/hosts/cam-07/services/ping";
    assert_eq!(fleet.api.operator().put(path, night).await.status, 200);
    let told = fleet.left(FLEET, Policy::default()).await;
    assert!(told.starts_with("! service cam-07/ping: kept, changed by token:"), "{told}");
    assert!(told.contains("thresholds.pl.warn: \"90\" -> \"50\""), "{told}");
    fleet.apply(FLEET, |_| {}).await.unwrap();
    assert_eq!(fleet.get("/hosts/cam-07/overrides").await["items"][0]["thresholds"][0]["warn"], "90");
    fleet.apply(FLEET, |args| args.overwrite = true).await.unwrap();
    assert_eq!(fleet.left(FLEET, Policy::default()).await, "");
}

#[tokio::test]
async fn what_left_the_file_is_removed_and_devices_only_when_that_is_said() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    let by_hand = fleet.api.operator().post("/api/v1/devices", json!({ "name": "own" })).await;
    assert_eq!(by_hand.status, 201);
    let told = fleet.left("", Policy::default()).await;
    for line in [
        "! host nas-07: kept, no longer in the file",
        "- service cam-07/ping",
        "- profile lte",
        "- profile rules",
        "- contact ops",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    fleet.apply("", |args| args.prune = true).await.unwrap();
    let left = fleet.get("/devices").await;
    assert_eq!((left["items"].as_array().unwrap().len(), &left["items"][0]["name"]), (1, &json!("own")));
    assert_eq!(fleet.api.viewer().get("/api/v1/profiles/lte").await.status, 404);
}

#[tokio::test]
async fn what_was_made_by_hand_is_taken_over_only_when_that_is_said() {
    let fleet = Fleet::new().await;
    let body = json!({ "name": "cam-07", "networks": ["192.168.1.0/24"] });
    assert_eq!(fleet.api.operator().post("/api/v1/devices", body).await.status, 201);
    let told = fleet.left(FLEET, Policy::default()).await;
    assert!(told.contains("! device cam-07: kept, managed by api; --adopt takes it over"), "{told}");
    fleet.apply(FLEET, |args| args.adopt = true).await.unwrap();
    assert_eq!(fleet.left(FLEET, Policy::default()).await, "");
    assert_eq!(fleet.get("/devices/cam-07").await["managed_by"], "apply");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_anything_is() {
    let fleet = Fleet::new().await;
    let refused = fleet.apply(FLEET, |args| args.out = None).await.unwrap_err().to_string();
    assert!(refused.contains("fleet.toml:22: device cam-07 is new"), "{refused}");
    assert_eq!(fleet.api.viewer().get("/api/v1/profiles/lte").await.status, 404);
    let refused = fleet.apply("[devices.x]\nlables = {}\n", |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("fleet.toml:2: unknown field `lables`"), "{refused}");
    let circle = "[profiles.a]\nextends = [\"b\"]\n[profiles.b]\nextends = [\"a\"]\n";
    let refused = format!("{:#}", fleet.apply(circle, |_| {}).await.unwrap_err());
    assert!(refused.contains("fleet.toml:1: profile a") && refused.contains("extends"), "{refused}");
}

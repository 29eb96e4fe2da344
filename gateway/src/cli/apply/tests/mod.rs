use serde_json::json;

use super::*;
use crate::api::testing::TestApi;
use crate::cli::Connection;
use crate::store::access::Role;

mod hostile;

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

[sites.hill]
router = "hill-router"
labels = { uplink = "lte" }

[devices.hill-router]
site = "hill"
tunnel = false
direct_address = "router.example.com"
[devices.cam-07]
site = "hill"
notify = { interval_s = 3600, states = ["down"] }
thresholds = [{ metric = "rtt", warn = 200 }]
networks = ["192.168.1.0/24"]
mtu = 1400
interval_s = 120
[devices.cam-07.services.ping]
thresholds = [{ metric = "pl", warn = 50 }]

[hosts.nas-07]
via = "cam-07"
address = "192.168.1.5"
profile = "nas"
max_check_attempts = 5
thresholds = [{ metric = "rtt", crit = "~:900" }]
flapping = { enabled = false }
[hosts.nas-07.services.ping]
notify = { delay_s = 300 }

[downtimes.patches]
labels = { site = "hill" }
every = "sunday"
from = "02:00"
to = "4:00"
time_zone = "Europe/Vienna"
last_date = 2099-01-01
comment = "updates"

[downtimes.long-ago]
host = "cam-07"
start = 2020-01-01T00:00:00Z
end = "2020-01-02T00:00:00Z"
"#;

struct Fleet {
    api: TestApi,
    role: Role,
    url: String,
    dir: tempfile::TempDir,
    /// The monitor must accept a downtime before the response to it.
    _monitor: tokio::task::JoinSet<()>,
}

fn client(url: &str, token: &str) -> Client {
    let to = Connection { data: None, url: Some(url.to_owned()), token: Some(token.to_owned()), json: false };
    Client::new(&to).unwrap()
}

impl Fleet {
    async fn new() -> Fleet {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut api = TestApi::with_endpoint().await;
        let monitor = api.start_monitor();
        let url = format!("http://{}", api.serve(api.router()).await);
        Fleet { api, role: Role::Operator, url, dir: tempfile::tempdir().unwrap(), _monitor: monitor }
    }

    fn connect(&self) -> Client {
        client(&self.url, self.api.token(self.role))
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

    /// Returns the steps of another run.
    async fn left(&self, text: &str, policy: Policy) -> String {
        let mut wanted = file::read("fleet.toml", text).unwrap();
        wanted.retain(|w| !downtime::is_over(w) && !grant::is_over(w));
        let policy = Policy { manager: "apply".into(), ..policy };
        let (found, names) = look(&self.connect(), &wanted, &policy).await.unwrap();
        report::render(&steps(wanted, &found, &names, &policy))
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
    let nas = fleet.get("/hosts/nas-07/settings").await;
    assert_eq!((&nas["managed_by"], &nas["flapping"]["enabled"]), (&json!("apply"), &json!(false)));
    assert_eq!((&nas["labels"]["site"], &nas["max_check_attempts"]), (&json!("hill"), &json!(5)));
    let cam = fleet.get("/hosts/cam-07/settings").await;
    assert_eq!(fleet.get("/devices/cam-07").await["mtu"], 1_400);
    assert_eq!((&cam["parents"], &cam["notify"]["interval_s"]), (&json!(["hill-router"]), &json!(3600.0)));
    let planned = fleet.get("/downtimes").await;
    assert_eq!(
        (planned["items"].as_array().unwrap().len(), &planned["items"][0]["name"]),
        (1, &json!("patches"))
    );
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
async fn a_downtime_changes_in_place_and_stays_cancelled_when_a_person_did_that() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    let later = FLEET.replace("to = \"4:00\"", "to = \"05:00\"");
    let told = fleet.left(&later, Policy::default()).await;
    assert_eq!(told, "~ downtime patches\n      recurrence.to: \"04:00\" -> \"05:00\"\n");
    let before = fleet.get("/downtimes").await;
    fleet.apply(&later, |_| {}).await.unwrap();
    let open = fleet.get("/downtimes?all=true").await;
    assert_eq!(
        (open["items"].as_array().unwrap().len(), &open["items"][0]["recurrence"]["to"]),
        (1, &json!("05:00"))
    );
    assert_eq!(open["items"][0]["id"], before["items"][0]["id"], "it is the same one");
    let id = open["items"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(fleet.api.operator().delete(&format!("/api/v1/downtimes/{id}")).await.status, 204);
    let told = fleet.left(&later, Policy::default()).await;
    assert!(told.starts_with("! downtime patches: cancelled by token:"), "{told}");
    fleet.apply(&later, |_| {}).await.unwrap();
    assert_eq!(fleet.get("/downtimes").await["items"], json!([]));
    fleet.apply(&later, |args| args.overwrite = true).await.unwrap();
    assert_eq!(fleet.left(&later, Policy::default()).await, "");
    let gone = later.split("[downtimes.patches]").next().unwrap();
    assert_eq!(fleet.left(gone, Policy::default()).await, "- downtime patches\n");
    fleet.apply(gone, |_| {}).await.unwrap();
    assert_eq!(fleet.get("/downtimes").await["items"], json!([]));
    fleet.apply(&later, |_| {}).await.unwrap();
    assert_eq!(fleet.get("/downtimes").await["items"].as_array().unwrap().len(), 1, "it is back in the file");
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
async fn what_is_named_and_nowhere_is_refused_before_anything_is_done() {
    let fleet = Fleet::new().await;
    let table = [
        (
            "[devices.d]\n[hosts.d]\nvia = \"e\"\naddress = \"10.0.0.1\"\n[devices.e]",
            "fleet.toml:3: d is a device already, in line 2",
        ),
        (
            "[hosts.nas]\nvia = \"gone\"\naddress = \"10.0.0.1\"",
            "host nas: via: no device is called \"gone\"",
        ),
        ("[sites.s]\nrouter = \"gone\"\n[devices.d]\nsite = \"s\"", "device d: parents: no host or device"),
        ("[devices.d]\nprofile = \"gone\"", "device d: profile: no profile is called \"gone\""),
        ("[[profile_rules]]\nprofile = \"gone\"", "profile rules: profile: no profile is called \"gone\""),
        ("[profiles.p]\nextends = [\"gone\"]", "profile p: extends: no profile is called \"gone\""),
        ("[notification_rules.r]\ncontact = \"gone\"", "rule r: contact: no contact is called \"gone\""),
        (
            "[downtimes.t]\nhost = \"gone\"\nstart = 2099-01-01T00:00:00Z\nend = 2099-01-02T00:00:00Z",
            "downtime t: host: no host or device is called \"gone\"",
        ),
    ];
    for (text, expected) in table {
        let text = format!("[profiles.first]\n{text}\n");
        let refused = fleet.apply(&text, |_| {}).await.unwrap_err().to_string();
        assert!(refused.contains(expected) && refused.contains("fleet.toml:"), "{refused}");
        assert!(fleet.apply(&text, |args| (args.yes, args.dry_run) = (false, true)).await.is_err());
    }
    assert_eq!(fleet.api.viewer().get("/api/v1/profiles/first").await.status, 404);
}

/// One resource of every removable kind, in a possible order of removal.
const REMOVALS: [(&str, &str); 6] = [
    ("/hosts/cam-07/services/ping", "service cam-07/ping"),
    ("/hosts/nas-07", "host nas-07"),
    ("/rules/cameras", "notification rule cameras"),
    ("/contacts/ops", "contact ops"),
    ("/devices/hill-router", "device hill-router"),
    ("/profiles/spare", "profile spare"),
];

/// The router is the parent of other hosts.
fn along(path: &str) -> &'static str {
    if path.starts_with("/devices/") { "?cascade=true" } else { "" }
}

#[tokio::test]
async fn what_a_person_removes_stays_removed_unless_told_otherwise() {
    let fleet = Fleet::new().await;
    let file = format!("{FLEET}[profiles.spare]\n");
    fleet.apply(&file, |_| {}).await.unwrap();
    for (path, _) in REMOVALS {
        let gone = fleet.api.operator().delete(&format!("/api/v1{path}{}", along(path))).await;
        assert_eq!(gone.status, 204, "{path}: {}", gone.text);
    }
    for _ in 0..2 {
        let told = fleet.left(&file, Policy::default()).await;
        for (_, what) in REMOVALS {
            assert!(told.contains(&format!("! {what}: removed by token:")), "{what}: {told}");
        }
        assert!(told.contains("! service nas-07/ping: skipped: nas-07 does not exist\n"), "{told}");
        assert!(told.lines().all(|line| line.starts_with('!')), "its parents go without a word: {told}");
        fleet.apply(&file, |_| {}).await.unwrap();
    }
    assert_eq!(fleet.get("/removals?managed_by=apply").await["items"].as_array().unwrap().len(), 6);
    fleet
        .apply(&file, |args| (args.overwrite, args.out) = (true, Some(fleet.dir.path().join("anew"))))
        .await
        .unwrap();
    assert_eq!(fleet.left(&file, Policy::default()).await, "");
    assert_eq!(fleet.get("/removals").await["items"], json!([]));
    assert_eq!(fleet.get("/hosts/cam-07/settings").await["parents"], json!(["hill-router"]));
}

#[tokio::test]
async fn a_removal_is_forgotten_with_the_file_and_a_hand_s_own_is_the_hand_s() {
    let fleet = Fleet::new().await;
    let text = "[profiles.a]\n[contacts.b]\nemails = [\"b@example.com\"]\n";
    fleet.apply(text, |_| {}).await.unwrap();
    for path in ["/profiles/a", "/contacts/b"] {
        assert_eq!(fleet.api.operator().delete(&format!("/api/v1{path}")).await.status, 204);
    }
    let own = json!({ "name": "b", "emails": ["c@example.com"] });
    assert_eq!(fleet.api.operator().post("/api/v1/contacts", own).await.status, 201);
    let told = fleet.left(text, Policy::default()).await;
    assert!(told.contains("! contact b: kept, managed by api; --adopt takes it over"), "{told}");
    fleet.apply(text, |args| args.adopt = true).await.unwrap();
    assert_eq!(fleet.get("/removals").await["items"].as_array().unwrap().len(), 1);
    let told = fleet.left("[contacts.b]\n", Policy::default()).await;
    assert!(told.starts_with("~ profile a: removed by ") && told.ends_with("and forgotten\n"), "{told}");
    fleet.apply("[contacts.b]\n", |_| {}).await.unwrap();
    assert_eq!(fleet.get("/removals").await["items"], json!([]));
    fleet.apply(text, |_| {}).await.unwrap();
    assert_eq!(fleet.api.viewer().get("/api/v1/profiles/a").await.status, 200, "it is back in the file");
}

#[tokio::test]
async fn a_name_that_a_person_gave_is_told_and_kept_and_goes_back_when_that_is_said() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    for (path, name) in
        [("/devices/hill-router", "gate"), ("/devices/cam-07", "eye"), ("/contacts/ops", "crew")]
    {
        let named = fleet.api.operator().patch(&format!("/api/v1{path}"), json!({ "name": name })).await;
        assert_eq!(named.status, 200, "{}", named.text);
    }
    let told = fleet.left(FLEET, Policy::default()).await;
    for (what, from) in [("device gate", "hill-router"), ("device eye", "cam-07"), ("contact crew", "ops")] {
        let name = what.split(' ').next_back().unwrap();
        assert!(told.contains(&format!("! {what}: kept, changed by token:")), "{told}");
        assert!(told.contains(&format!("      name: \"{name}\" -> \"{from}\"\n")), "{told}");
    }
    assert_eq!(told.lines().count(), 6, "{told}");
    fleet.apply(FLEET, |args| args.overwrite = true).await.unwrap();
    assert_eq!(fleet.left(FLEET, Policy::default()).await, "");
    assert_eq!(fleet.get("/devices").await["items"].as_array().unwrap().len(), 2);
    assert_eq!(fleet.get("/removals").await["items"], json!([]));
}

#[tokio::test]
async fn limits_of_a_host_that_a_person_changed_are_told_and_kept() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    let of = async |host: &str| fleet.get(&format!("/hosts/{host}/settings")).await["thresholds"].clone();
    assert_eq!(of("cam-07").await, json!([{ "metric": "rtt", "warn": "200" }]));
    assert_eq!(of("nas-07").await, json!([{ "metric": "rtt", "crit": "~:900" }]));
    for host in ["cam-07", "nas-07"] {
        let night = json!({ "thresholds": [{ "metric": "rtt", "warn": "700" }] });
        assert_eq!(fleet.api.operator().patch(&format!("/api/v1/hosts/{host}"), night).await.status, 200);
    }
    let told = fleet.left(FLEET, Policy::default()).await;
    assert!(told.contains("! device cam-07: kept, changed by token:"), "{told}");
    assert!(told.contains("      thresholds.rtt.warn: \"700\" -> \"200\"\n"), "{told}");
    assert!(told.contains("      thresholds.rtt.crit: \"~:900\"\n"), "{told}");
    fleet.apply(FLEET, |_| {}).await.unwrap();
    assert_eq!(of("cam-07").await[0]["warn"], "700");
    fleet.apply(FLEET, |args| args.overwrite = true).await.unwrap();
    assert_eq!(fleet.left(FLEET, Policy::default()).await, "");
    let none = FLEET.replace("thresholds = [{ metric = \"rtt\", warn = 200 }]", "thresholds = []");
    fleet.apply(&none, |_| {}).await.unwrap();
    assert_eq!(of("cam-07").await, json!([]));
    assert_eq!(fleet.left(&none, Policy::default()).await, "");
}

#[tokio::test]
async fn a_downtime_whose_successor_was_made_and_that_was_not_ended_is_ended_by_the_next_run() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    let again = json!({ "every": "sunday", "from": "02:00", "to": "04:00", "time_zone": "Europe/Vienna",
                        "last_date": "2099-01-01" });
    let body =
        json!({ "name": "patches", "labels": { "site": "hill" }, "recurrence": again, "comment": "updates" });
    let client = fleet.connect().managed_by("apply");
    let _: Value = client.post("/downtimes", &body).await.unwrap();
    let told = fleet.left(FLEET, Policy::default()).await;
    assert_eq!(told, "- downtime patches: replaced by another one\n");
    fleet.apply(FLEET, |_| {}).await.unwrap();
    assert_eq!(fleet.get("/downtimes").await["items"].as_array().unwrap().len(), 1);
    assert_eq!(fleet.left(FLEET, Policy::default()).await, "");
}

#[tokio::test]
async fn what_somebody_changes_while_a_file_is_applied_stays_as_it_is() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    let policy = Policy { manager: "apply".into(), ..Policy::default() };
    let text = FLEET.replace("interval_s = 120", "interval_s = 60").replace("mon-fri", "mon-sat");
    let wanted = file::read("fleet.toml", &text).unwrap();
    let (found, _) = look(&fleet.connect(), &wanted, &policy).await.unwrap();
    let changes =
        [("/devices/cam-07", json!({ "notes": "by hand" })), ("/rules/cameras", json!({ "delay_s": 60 }))];
    for (path, change) in changes {
        assert_eq!(fleet.api.operator().patch(&format!("/api/v1{path}"), change).await.status, 200);
    }
    let client = fleet.connect().managed_by("apply");
    for step in plan::plan(&wanted, &found, &policy).iter().filter(|s| s.act == Act::Change) {
        let refused = act(&client, step, None).await.unwrap_err().to_string();
        assert!(refused.contains("this was changed meanwhile"), "{}: {refused}", step.name);
    }
    assert_eq!(fleet.get("/hosts/cam-07/settings").await["interval_s"], 120.0);
}

#[tokio::test]
async fn a_downtime_for_another_host_or_of_another_kind_replaces_the_old_one() {
    let fleet = Fleet::new().await;
    let text = |of: &str, more: &str| {
        format!(
            "[devices.a]\n[devices.b]\n[downtimes.move]\nhost = \"{of}\"\nstart = 2099-01-01T00:00:00Z\n\
             end = 2099-01-02T00:00:00Z\n{more}\n"
        )
    };
    let mut ids = Vec::new();
    for (text, is_same) in [
        (text("a", ""), false),
        (text("a", "comment = \"move\""), true),
        (text("b", "comment = \"move\""), false),
        (text("b", "duration_s = 3600"), false),
        (text("b", "duration_s = 7200"), true),
    ] {
        fleet.apply(&text, |_| {}).await.unwrap();
        assert_eq!(fleet.left(&text, Policy::default()).await, "", "{text}");
        let open = fleet.get("/downtimes").await;
        let [one] = &open["items"].as_array().unwrap()[..] else { panic!("{open}") };
        let before = ids.last().cloned();
        ids.push(one["id"].clone());
        assert_eq!(before == Some(one["id"].clone()), is_same, "{text}");
    }
}

#[tokio::test]
async fn a_device_that_is_made_anew_has_the_downtime_of_its_name() {
    let fleet = Fleet::new().await;
    let text = "[devices.d]\n[downtimes.move]\nhost = \"d\"\nstart = 2099-01-01T00:00:00Z\n\
                end = 2099-01-02T00:00:00Z\n";
    fleet.apply(text, |_| {}).await.unwrap();
    assert_eq!(fleet.api.operator().delete("/api/v1/devices/d").await.status, 204);
    let anew = fleet.dir.path().join("anew");
    fleet.apply(text, |args| (args.overwrite, args.out) = (true, Some(anew))).await.unwrap();
    let (planned, device) = (fleet.get("/downtimes").await, fleet.get("/devices/d").await);
    assert_eq!(planned["items"][0]["host"], device["id"]);
    assert_eq!(fleet.left(text, Policy::default()).await, "");
}

#[tokio::test]
async fn a_dry_run_needs_no_place_for_configurations() {
    let fleet = Fleet::new().await;
    let dry = fleet.apply(FLEET, |args| (args.yes, args.dry_run, args.out) = (false, true, None)).await;
    assert!(dry.is_ok(), "{dry:?}");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_before_anything_is() {
    let fleet = Fleet::new().await;
    let refused = fleet.apply(FLEET, |args| args.out = None).await.unwrap_err().to_string();
    assert!(refused.contains("fleet.toml:30: device cam-07 is new"), "{refused}");
    assert_eq!(fleet.api.viewer().get("/api/v1/profiles/lte").await.status, 404);
    let refused = fleet.apply("[devices.x]\nlables = {}\n", |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("fleet.toml:2: unknown field `lables`"), "{refused}");
    let circle = "[profiles.a]\nextends = [\"b\"]\n[profiles.b]\nextends = [\"a\"]\n";
    let refused = format!("{:#}", fleet.apply(circle, |_| {}).await.unwrap_err());
    assert!(refused.contains("fleet.toml:2: profile a") && refused.contains("extends"), "{refused}");
}

#[tokio::test]
async fn a_gate_and_the_services_that_it_names_change_in_one_run() {
    let fleet = Fleet::new().await;
    let profiles = |service: &str, port: u16, gate: &str| {
        format!(
            "[profiles.base]\nextends = [\"default\"]\n[profiles.base.services.{service}]\n\
             check = {{ type = \"tcp\", port = {port} }}\n[profiles.kiosk]\nextends = [\"base\"]\n\
             [profiles.kiosk.rental]\ngate = {{ services = [\"{gate}\"] }}\n"
        )
    };
    fleet.apply(&profiles("lens", 4711, "lens"), |_| {}).await.unwrap();
    let after = profiles("optics", 4712, "optics");
    fleet.apply(&after, |_| {}).await.unwrap();
    assert_eq!(fleet.left(&after, Policy::default()).await, "");
    let kiosk = fleet.get("/profiles/kiosk").await;
    assert_eq!(kiosk["rental"]["gate"]["services"], json!(["optics"]));
    let base = fleet.get("/profiles/base").await;
    assert!(base["services"]["lens"].is_null() && base["services"]["optics"].is_object(), "{base}");
    let wrong = profiles("zoom", 4713, "optics");
    let refused = fleet.apply(&wrong, |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("the gate of kiosk names the service \"optics\""), "{refused}");
    assert_eq!(fleet.get("/profiles/base").await["version"], base["version"], "nothing was changed");
}

const GRANTS: &str = r#"
[devices.cam-07]
labels = { site = "north" }

[grants.night-work]
user = "anna"
host = "cam-07"
icmp = true
tcp = [443, 22, "8000-8100"]
until = 2030-01-01T00:00:00Z
reason = "a new disk"

[grants.cameras]
role = "admin"
labels = { site = "north" }
udp = [53]

[grants.long-ago]
user = "anna"
all_devices = true
icmp = true
until = 2020-01-01T00:00:00Z
"#;

#[tokio::test]
async fn grants_become_what_the_file_says() {
    let mut fleet = Fleet::new().await;
    let unknown = fleet.apply(GRANTS, |_| {}).await.unwrap_err();
    assert!(format!("{unknown:#}").contains("role"), "an operator may not read users: {unknown:#}");
    fleet.role = Role::Admin;
    let unknown = fleet.apply(GRANTS, |_| {}).await.unwrap_err();
    assert!(format!("{unknown:#}").contains("user: no user is called \"anna\""), "{unknown:#}");
    let user = json!({ "name": "anna", "role": "operator", "password": "correct horse battery" });
    assert_eq!(fleet.api.admin().post("/api/v1/users", user).await.status, 201);
    fleet.apply(GRANTS, |_| {}).await.unwrap();
    let made = fleet.api.admin().get("/api/v1/grants/night-work").await.json;
    assert_eq!((&made["managed_by"], &made["matches"]), (&json!("apply"), &json!(1)));
    assert_eq!(fleet.api.admin().get("/api/v1/grants/long-ago").await.status, 404);
    assert_eq!(fleet.left(GRANTS, Policy::default()).await, "", "a second run does nothing");

    let other = GRANTS.replace("until = 2030-01-01T00:00:00Z\n", "").replace("udp = [53]", "udp = [54]");
    let said = fleet.left(&other, Policy::default()).await;
    assert!(said.contains("~ grant night-work") && said.contains("until: \"2030"), "{said}");
    fleet.apply(&other, |_| {}).await.unwrap();
    let changed = fleet.api.admin().get("/api/v1/grants/night-work").await.json;
    assert_eq!((&changed["until"], &changed["id"]), (&json!(null), &made["id"]));

    assert_eq!(fleet.api.admin().delete("/api/v1/grants/cameras").await.status, 204);
    let said = fleet.left(&other, Policy::default()).await;
    assert!(said.starts_with("! grant cameras: removed by token:"), "{said}");
    fleet.apply("[devices.cam-07]\nlabels = { site = \"north\" }\n", |_| {}).await.unwrap();
    assert_eq!(fleet.api.admin().get("/api/v1/grants/night-work").await.status, 404, "withdrawn");
    let open = fleet.api.admin().get("/api/v1/grants").await.json;
    assert_eq!(open["items"].as_array().unwrap().len(), 2, "others stay");
}

#[tokio::test]
async fn a_name_of_a_peer_that_another_user_has_taken_gets_no_grant() {
    const TO_PEER: &str = "[devices.cam-07]\nlabels = { site = \"north\" }\n\n[grants.disk]\nuser = \"anna\"\npeer = \"laptop\"\n\
        host = \"cam-07\"\nicmp = true\n";
    let mut fleet = Fleet::new().await;
    fleet.role = Role::Admin;
    for name in ["anna", "eve"] {
        let user = json!({ "name": name, "role": "operator", "password": "correct horse battery" });
        assert_eq!(fleet.api.admin().post("/api/v1/users", user).await.status, 201);
    }
    let laptop = |user: &str| json!({ "name": "laptop", "user": user });
    assert_eq!(fleet.api.admin().post("/api/v1/operators", laptop("anna")).await.status, 201);
    fleet.apply(TO_PEER, |_| {}).await.unwrap();
    let made = fleet.api.admin().get("/api/v1/grants/disk").await.json;
    assert_eq!(made["source"], json!({ "peer": "laptop" }));
    assert_eq!(fleet.left(TO_PEER, Policy::default()).await, "", "a second run does nothing");

    let renamed = json!({ "name": "old-laptop" });
    assert_eq!(fleet.api.admin().patch("/api/v1/operators/laptop", renamed).await.status, 200);
    assert_eq!(fleet.api.admin().post("/api/v1/operators", laptop("eve")).await.status, 201);
    let refused = fleet.apply(TO_PEER, |args| args.overwrite = true).await.unwrap_err();
    let says = "grant disk: peer: laptop belongs to eve, and not to anna";
    assert!(format!("{refused:#}").contains(says), "{refused:#}");
    let kept = fleet.api.admin().get("/api/v1/grants/disk").await.json;
    assert_eq!(kept["source"], json!({ "peer": "old-laptop" }), "the grant stays with the peer that it had");

    // It ends with that peer. Another one of the same name and user is told, and not granted.
    for gone in ["old-laptop", "laptop"] {
        assert_eq!(fleet.api.admin().delete(&format!("/api/v1/operators/{gone}")).await.status, 204);
    }
    assert_eq!(fleet.api.admin().post("/api/v1/operators", laptop("anna")).await.status, 201);
    let said = fleet.left(TO_PEER, Policy::default()).await;
    assert!(said.starts_with("! grant disk: removed by token:"), "{said}");
    fleet.apply(TO_PEER, |_| {}).await.unwrap();
    assert_eq!(fleet.api.admin().get("/api/v1/grants/disk").await.status, 404);
}

#[test]
fn a_wrong_grant_is_named_with_its_line() {
    for (text, line, says) in [
        ("role = \"admin\"\nicmp = true", 1, "exactly one of host, labels and all_devices"),
        ("host = \"a\"\nicmp = true", 1, "user, role, or peer with its user"),
        ("user = \"a\"\nrole = \"admin\"\nhost = \"a\"", 1, "user, role, or peer with its user"),
        ("role = \"admin\"\npeer = \"a\"\nhost = \"a\"", 1, "user, role, or peer with its user"),
        ("peer = \"laptop\"\nhost = \"a\"\nicmp = true", 1, "peer \"laptop\" needs its user too"),
        ("role = \"admin\"\nlabels = {}\nicmp = true", 3, "at least one label"),
        ("role = \"admin\"\nhost = \"a\"", 1, "icmp = true, tcp or udp"),
        ("role = \"admin\"\nhost = \"a\"\ntcp = [0]", 4, "tcp: \"0\": a port from 1"),
        ("role = \"admin\"\nhost = \"a\"\ntcp = [\"90-80\"]", 4, "the first port"),
        ("role = \"admin\"\nhost = \"a\"\nicmp = true\nfrom = \"noon\"", 5, "a time such as"),
    ] {
        let error = file::read("fleet.toml", &format!("[grants.x]\n{text}\n")).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.what.contains(says), "{text}: {error}");
    }
}

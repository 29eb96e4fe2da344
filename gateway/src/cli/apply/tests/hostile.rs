//! Invalid files and disturbed runs.

use super::*;

/// Files that are refused with the line, before their first profile is created.
const REFUSED: [(&str, &str); 30] = [
    (
        "[devices.x]\nparents = [\"y\"]\n[devices.y]\nparents = [\"x\"]",
        ":3: device x: parents: x is its own parent",
    ),
    (
        "[devices.x]\nnetworks = [\"10.9.0.0/24\"]\nparents = [\"n\"]\n[hosts.n]\nvia = \"x\"\naddress = \"10.9.0.1\"",
        "is its own parent (n behind x behind n)",
    ),
    (
        "[profiles.a]\nextends = [\"b\"]\n[profiles.b]\nextends = [\"a\"]",
        ":3: profile a: profile a extends itself",
    ),
    ("[profiles.a]\n[profiles.a.services.new]\ninterval_s = 5", "service new of profile a has no check"),
    (
        "[devices.x]\n[devices.x.services.new]\ninterval_s = 5",
        ":3: service x/new: the profiles of x (default)",
    ),
    ("[contacts.c]\nemails = [\"a@b.example\"]\ntime_zone = \"Mars\"", ":4: contact c: time_zone: "),
    ("[contacts.c]\nemails = [\"a@b.example\"]\ndigest_at = \"25:00\"", ":4: contact c: digest_at: "),
    ("[contacts.c]", ":2: contact c: emails: an e-mail address or a webhook"),
    ("[contacts.c]\nwebhook_url = \"ftp://x\"", ":3: contact c: webhook_url: "),
    (
        "[contacts.c]\nemails = [\"a@b.example\"]\n[notification_rules.r]\ncontact = \"c\"\n\nseverity = \"bad\"",
        ":7: notification rule r: severity: ",
    ),
    ("[devices.x]\n\ninterval_s = -5", ":4: device x: interval_s: seconds from"),
    ("[devices.x]\n\ninterval_s = nan", ":4: a number with an end"),
    ("[devices.x.services.web]\n\ninterval_s = inf", ":4: a number with an end"),
    ("[devices.x]\ninterval_s = 5\ntimeout_s = 9", ":4: device x: timeout_s: must be shorter"),
    ("[devices.x]\nssh = { user = \"-x\" }", ":3: device x: ssh.user: a login name"),
    ("[devices.x]\nroute = \"space\"", ":3: device x: route: "),
    ("[devices.x]\ntunnel = false", ":2: device x: direct_address: a device without a tunnel"),
    (
        "[devices.x]\ntunnel = false\ndirect_address = \"x.example\"\nbudget_bytes_per_day = 100000",
        ":5: device x: budget_bytes_per_day: traffic is counted only in a tunnel",
    ),
    ("[devices.x]\npublic_key = \"x\"", ":3: device x: public_key: "),
    ("[devices.x]\nnetworks = [\"10.112.0.0/24\"]", ":3: device x: networks: 10.112.0.0/24: this overlaps"),
    ("[devices.x]\nnetworks = [\"224.0.0.0/24\"]", ":3: device x: networks: 224.0.0.0/24: no network"),
    (
        "[devices.x]\nnetworks = [\"10.1.0.0/24\"]\n[hosts.n]\nvia = \"x\"\n\naddress = \"10.2.0.1\"",
        ":7: host n: address: 10.2.0.1 is in none of the networks behind x",
    ),
    (
        "[devices.x]\nnetworks = [\"10.1.0.0/24\"]\n[hosts.n]\nvia = \"x\"\naddress = \"10.1.0.1\"\n\
         [hosts.m]\nvia = \"n\"\naddress = \"10.1.0.2\"",
        ":8: host m: via: n is not a device",
    ),
    (
        "[devices.x]\ntunnel = false\ndirect_address = \"x.example\"\n[hosts.n]\nvia = \"x\"\naddress = \"10.1.0.1\"",
        ":6: host n: via: x has no tunnel",
    ),
    (
        "[devices.x]\n[downtimes.d]\nhost = \"x\"\nstart = 2099-01-02T00:00:00Z\nend = 2099-01-01T00:00:00Z",
        ":6: downtime d: end: a time after start",
    ),
    (
        "[devices.x]\n[downtimes.d]\nhost = \"x\"\nservice = \"new\"\nstart = 2099-01-02T00:00:00Z\n\
         end = 2099-01-03T00:00:00Z",
        ":5: downtime d: service: x has no service new",
    ),
    (
        "[downtimes.d]\nlabels = {}\nstart = 2099-01-02T00:00:00Z\nend = 2099-01-03T00:00:00Z",
        ":3: at least one label",
    ),
    (
        "[devices.x]\nthresholds = [\n { metric = \"a\" },\n { metric = \"a\" }]",
        "thresholds[1].metric: is given twice",
    ),
    ("[devices.x]\nlabels = { timezone = \"Mars\" }", ":3: device x: labels: timezone=Mars"),
    ("[devices.x]\n[devices.X]", ":3: a name has"),
];

#[tokio::test]
async fn what_the_gateway_would_refuse_is_refused_before_anything_is_done() {
    let fleet = Fleet::new().await;
    for (text, expected) in REFUSED {
        let text = format!("[profiles.first]\n{text}\n");
        let refused = format!("{:#}", fleet.apply(&text, |_| {}).await.unwrap_err());
        assert!(refused.contains(expected) && refused.contains("fleet.toml:"), "{expected}\n{refused}");
        let dry = fleet.apply(&text, |args| (args.yes, args.dry_run) = (false, true)).await;
        assert_eq!(format!("{:#}", dry.unwrap_err()), refused, "a dry run says the same");
    }
    assert_eq!(fleet.api.viewer().get("/api/v1/profiles/first").await.status, 404);
    assert!(!fleet.dir.path().join("conf").exists(), "no key was made");
}

#[tokio::test]
async fn a_file_of_another_system_is_the_same_file() {
    let fleet = Fleet::new().await;
    fleet.apply(FLEET, |_| {}).await.unwrap();
    assert_eq!(fleet.left(&FLEET.replace('\n', "\r\n"), Policy::default()).await, "");
    assert_eq!(fleet.left(&format!("\u{feff}{FLEET}"), Policy::default()).await, "");
}

#[tokio::test]
async fn what_is_said_twice_is_said_once() {
    let fleet = Fleet::new().await;
    let text =
        "[devices.y]\n[devices.x]\nparents = [\"y\", \"y\"]\nnetworks = [\"10.3.0.0/24\", \"10.3.0.7/24\"]\n";
    fleet.apply(text, |_| {}).await.unwrap();
    assert_eq!(fleet.left(text, Policy::default()).await, "");
}

#[tokio::test]
async fn a_profile_goes_before_those_that_it_extends() {
    let fleet = Fleet::new().await;
    let text = "[profiles.a]\n[profiles.b]\nextends = [\"a\"]\n[profiles.c]\nextends = [\"b\"]\n";
    fleet.apply(text, |_| {}).await.unwrap();
    fleet.apply("", |_| {}).await.unwrap();
    assert_eq!(fleet.left("", Policy::default()).await, "");
}

#[tokio::test]
async fn a_device_stays_with_a_host_behind_it_that_a_person_changed() {
    let fleet = Fleet::new().await;
    let text = "[devices.d]\nnetworks = [\"10.4.0.0/24\"]\n[hosts.h]\nvia = \"d\"\naddress = \"10.4.0.1\"\n\
                [hosts.other]\nvia = \"d\"\naddress = \"10.4.0.2\"\n";
    fleet.apply(text, |_| {}).await.unwrap();
    let by_hand = fleet.api.operator().patch("/api/v1/hosts/h", json!({ "notes": "mine" })).await;
    assert_eq!(by_hand.status, 200, "{}", by_hand.text);
    let prune = Policy { prune: true, ..Policy::default() };
    let told = fleet.left("", prune.clone()).await;
    for line in [
        "! host h: kept, no longer in the file, but changed by",
        "- host other\n",
        "! device d: kept, host h",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    fleet.apply("", |args| args.prune = true).await.unwrap();
    assert_eq!(fleet.get("/hosts/h/settings").await["via"], "d");
    assert_eq!(fleet.api.viewer().get("/api/v1/hosts/other").await.status, 404);
    fleet.apply("", |args| (args.prune, args.overwrite) = (true, true)).await.unwrap();
    assert_eq!(fleet.get("/devices").await["items"], json!([]), "host and device go together");
    assert_eq!(fleet.left("", prune).await, "");
}

#[tokio::test]
async fn a_parent_that_goes_leaves_those_that_stay() {
    let fleet = Fleet::new().await;
    let text = "[devices.gate]\n[devices.mast]\n[devices.cam]\nparents = [\"gate\", \"mast\"]\n";
    fleet.apply(text, |_| {}).await.unwrap();
    let prune = Policy { prune: true, ..Policy::default() };
    // The file names the remaining parents.
    let less = "[devices.mast]\n[devices.cam]\nparents = [\"mast\"]\n";
    fleet.apply(less, |args| args.prune = true).await.unwrap();
    assert_eq!(fleet.get("/hosts/cam/settings").await["parents"], json!(["mast"]));
    assert_eq!(fleet.api.viewer().get("/api/v1/hosts/gate").await.status, 404);
    assert_eq!(fleet.left(less, prune.clone()).await, "");
    // The file no longer names any parents.
    let none = "[devices.cam]\n";
    let told = fleet.left(none, prune.clone()).await;
    assert!(told.contains("- device mast: no longer a parent of cam\n"), "{told}");
    fleet.apply(none, |args| args.prune = true).await.unwrap_or_else(|error| panic!("{told}{error:#}"));
    assert_eq!(fleet.get("/hosts/cam/settings").await["parents"], json!([]));
    assert_eq!(fleet.left(none, prune).await, "");
}

#[tokio::test]
async fn a_parent_that_the_host_of_a_person_needs_does_not_go() {
    let fleet = Fleet::new().await;
    fleet.apply("[devices.gate]\n[devices.other]\n", |_| {}).await.unwrap();
    let made = fleet.api.operator().post("/api/v1/devices", json!({ "name": "own" })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let set = fleet.api.operator().patch("/api/v1/hosts/own", json!({ "parents": ["gate"] })).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let behind = json!({ "networks": ["10.4.0.0/24"] });
    assert_eq!(fleet.api.operator().patch("/api/v1/devices/own", behind).await.status, 200);
    let guest = json!({ "name": "guest", "via": "own", "address": "10.4.0.1" });
    assert_eq!(fleet.api.operator().post("/api/v1/hosts", guest).await.status, 201);
    let set = fleet.api.operator().patch("/api/v1/hosts/guest", json!({ "parents": ["other"] })).await;
    assert_eq!(set.status, 200, "{}", set.text);
    let told = fleet.left("", Policy { prune: true, ..Policy::default() }).await;
    let kept = "! device other: kept, host guest has it as a parent and is managed by api: remove that first";
    assert!(told.contains(kept), "{told}");
    fleet.apply("", |args| args.prune = true).await.unwrap_or_else(|error| panic!("{told}{error:#}"));
    assert_eq!(fleet.get("/hosts/own/settings").await["parents"], json!(["gate"]));
    assert_eq!(fleet.get("/hosts/guest/settings").await["parents"], json!(["other"]));
}

#[tokio::test]
async fn what_somebody_else_needs_does_not_go() {
    let fleet = Fleet::new().await;
    let text = "[profiles.a]\n[profiles.b]\nextends = [\"a\"]\n[contacts.c]\nemails = [\"c@example.com\"]\n\
                [devices.d]\nnetworks = [\"10.4.0.0/24\"]\n";
    fleet.apply(text, |_| {}).await.unwrap();
    let made = [
        ("/devices", json!({ "name": "own", "profile": "b" })),
        ("/rules", json!({ "name": "own", "contact": "c" })),
        ("/hosts", json!({ "name": "guest", "via": "d", "address": "10.4.0.1" })),
    ];
    for (path, body) in made {
        assert_eq!(fleet.api.operator().post(&format!("/api/v1{path}"), body).await.status, 201, "{path}");
    }
    let told = fleet.left("", Policy { prune: true, ..Policy::default() }).await;
    for line in [
        "! device d: kept, host guest is behind it and is managed by api: remove that first",
        "! contact c: kept, no longer in the file, but notification rule own needs it",
        "! profile b: kept, no longer in the file, but host own needs it",
        "! profile a: kept, no longer in the file, but profile b needs it",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    fleet.apply("", |args| args.prune = true).await.unwrap();
    assert_eq!(fleet.get("/hosts/guest/settings").await["via"], "d");
}

#[tokio::test]
async fn a_key_has_its_place_before_it_is_made() {
    let fleet = Fleet::new().await;
    let out = fleet.dir.path().join("conf");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("x.conf"), "of another").unwrap();
    let refused = fleet.apply("[devices.x]\n", |_| {}).await.unwrap_err().to_string();
    assert!(refused.contains("fleet.toml:1: device x: ") && refused.contains("exists already"), "{refused}");
    assert_eq!(fleet.get("/devices").await["items"], json!([]));
    // Found only by trying, because no user can create a file there.
    let nowhere = Some(PathBuf::from("/proc"));
    let text = "[devices.y]\n[contacts.z]\nwebhook_url = \"https://hooks.example.com/\"\n";
    let refused = fleet.apply(text, |args| args.out = nowhere).await.unwrap_err();
    assert!(format!("{refused:#}").contains("cannot write /proc/"), "{refused:#}");
    assert_eq!(fleet.get("/devices").await["items"], json!([]));
    let contacts = fleet.api.operator().get("/api/v1/contacts").await.json;
    assert!(!contacts.to_string().contains("hooks.example.com"), "{contacts}");
}

#[tokio::test]
async fn a_run_that_was_killed_before_it_kept_a_configuration_is_seen_by_the_next() {
    let fleet = Fleet::new().await;
    fleet
        .apply("[devices.x]\n[devices.own]\ntunnel = false\ndirect_address = \"x.example\"\n", |_| {})
        .await
        .unwrap();
    let wanted = file::read("fleet.toml", "[devices.x]\n[devices.own]\n").unwrap();
    let policy = Policy { manager: "apply".into(), ..Policy::default() };
    let (_, names) = look(&fleet.connect(), &wanted, &policy).await.unwrap();
    assert_eq!(secrets::unheard(&wanted, &names), ["x"]);
}

#[test]
fn what_is_no_text_or_has_no_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleet.toml");
    std::fs::write(&file, b"\n\n# \xff\n").unwrap();
    assert!(file::text(&file).unwrap_err().to_string().ends_with("fleet.toml:3: this is not UTF-8 text"));
    let endless = file::text(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(endless.contains("larger than 32 MiB"), "{endless}");
}

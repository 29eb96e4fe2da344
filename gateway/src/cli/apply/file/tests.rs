use super::*;

fn refused(text: &str) -> String {
    read("fleet.toml", text).unwrap_err().to_string()
}

#[test]
fn a_fleet_is_read_in_the_order_in_which_it_can_be_made() {
    let text = r#"
[devices.cam-07]
labels = { site = "hill" }
networks = ["192.168.1.7/24"]
[devices.cam-07.services.disk]
thresholds = [{ metric = "used", warn = 80, crit = "90" }]

[[profile_rules]]
labels = { kind = "camera" }
profile = "lte"

[profiles.lte]
extends = ["timelapse-camera"]
"#;
    let wanted = read("fleet.toml", text).unwrap();
    let shown: Vec<_> = wanted.iter().map(|w| (w.kind, w.name.as_str(), w.line)).collect();
    let expected = [
        (ResourceKind::Profile, "lte", 12),
        (ResourceKind::ProfileRules, "", 8),
        (ResourceKind::Device, "cam-07", 2),
        (ResourceKind::Service, "cam-07/disk", 5),
    ];
    assert_eq!(shown, expected);
    assert_eq!(wanted[2].fields["networks"], json!(["192.168.1.0/24"]));
    assert_eq!(wanted[3].fields["thresholds"][0]["warn"], "80");
}

#[test]
fn a_profile_says_how_its_devices_are_rented() {
    let text = r#"
[profiles.kiosk]
[profiles.kiosk.rental]
preparation_s = 1800
access = [{ protocol = "tcp", ports = [443, 22] }]
gate = {}
"#;
    let wanted = read("fleet.toml", text).unwrap();
    let rental = &wanted[0].fields["rental"];
    assert_eq!((&rental["preparation_s"], &rental["gate"]["ok_for_s"]), (&json!(1800.0), &json!(300.0)));
    assert_eq!(rental["access"][0]["ports"], json!([22, 443]));
    let wrong = refused("[profiles.kiosk.rental]\ndelivery = \"carried\"");
    assert!(wrong.contains("rental: delivery: mounted or shipped is expected"), "{wrong}");
    assert!(refused("[profiles.kiosk.rental]\nrentable = true").contains("unknown field"));
}

#[test]
fn a_site_gives_its_devices_labels_and_a_router() {
    let text = r#"
[sites.hill]
router = "hill-router"
time_zone = "Europe/Vienna"
labels = { uplink = "lte" }

[devices.cam-07]
site = "hill"
labels = { uplink = "dsl" }
[devices.hill-router]
site = "hill"
[devices.other]
labels = { site = "sea" }
[hosts.nas-07]
via = "cam-07"
address = "192.168.1.5"
"#;
    let wanted = read("fleet.toml", text).unwrap();
    let of = |name: &str| wanted.iter().find(|w| w.name == name).unwrap().fields.clone();
    let labels = |uplink: &str| json!({ "site": "hill", "timezone": "Europe/Vienna", "uplink": uplink });
    assert_eq!(of("cam-07")["labels"], labels("dsl"));
    assert_eq!(of("cam-07")["parents"], json!(["hill-router"]));
    assert_eq!(
        (of("hill-router")["labels"].clone(), of("hill-router").get("parents")),
        (labels("lte"), None)
    );
    assert_eq!(of("nas-07")["labels"], labels("lte"));
    assert_eq!(of("other")["labels"], json!({ "site": "sea" }));
}

#[test]
fn what_is_not_understood_is_refused_with_its_line() {
    let table = [
        ("\n[device.x]\n", "fleet.toml:2: unknown field `device`"),
        ("[devices.x]\n\nlables = {}\n", "fleet.toml:3: unknown field `lables`"),
        ("[devices.x]\nlabels = { A = \"b\" }\n", "fleet.toml:2: a label's key"),
        ("[devices.X]\n", "fleet.toml:1: a name has"),
        ("[devices.x]\nnetworks = [\n \"10.0.0.0/99\"]\n", "fleet.toml:3: a prefix"),
        ("[devices.x]\ninterval_s = \"5\"\n", "fleet.toml:2: invalid type"),
        ("[hosts.nas]\naddress = \"192.168.1.5\"\n", "fleet.toml:1: missing field `via`"),
        (
            "[profiles.p.services.ping]\ninterval_s = 5\nintervall = 5\n",
            "fleet.toml:3: service ping: intervall",
        ),
        (
            "[profiles.p.services.ping]\nthresholds = [{ metric = \"rta\", warn = \"-10\" }]\n",
            "fleet.toml:2: service ping: thresholds[0].warn: range",
        ),
        ("[devices.x]\nlabels = \n", "fleet.toml:2: "),
        ("[devices.x]\n[devices.x]\n", "fleet.toml:2: duplicate key"),
        ("[devices.x]\n\nsite = \"hill\"\n", "fleet.toml:3: no [sites.hill]"),
        ("[sites.hill]\ntime_zone = \"Mars\"\n", "fleet.toml:2: the name of a time zone"),
        ("[sites.hill]\nrouters = []\n", "fleet.toml:2: unknown field `routers`"),
        ("[devices.x]\nnotify = { states = [\"bad\"] }\n", "fleet.toml:2: notify.states"),
        ("[devices.x]\nflapping = { low = 90 }\n", "fleet.toml:2: flapping.low"),
        (
            "[devices.x]\n\nthresholds = [{ metric = \"rtt\", warn = \"9:1\" }]\n",
            "fleet.toml:3: thresholds[0].warn: ",
        ),
        ("\n[profiles.default]\n", "fleet.toml:2: default is built in: "),
        ("[devices.x]\nnotifyy = {}\n", "fleet.toml:2: unknown field `notifyy`"),
        ("[downtimes.d]\nhost = \"x\"\n", "fleet.toml:1: start and end are expected"),
        ("[downtimes.d]\nend = 5\n", "fleet.toml:2: a time such as"),
        (
            "[downtimes.d]\nevery = \"someday\"\nfrom = \"02:00\"\nto = \"04:00\"\ntime_zone = \"UTC\"\nhost = \"x\"\n",
            "fleet.toml:2: \"someday\"",
        ),
        (
            "[downtimes.d]\nevery = \"day\"\nfrom = \"02:00\"\nto = \"04:00\"\nhost = \"x\"\n",
            "fleet.toml:1: every needs from, to and time_zone",
        ),
        (
            "[downtimes.d]\nstart = \"2026-12-01T08:00:00Z\"\nend = 2026-12-01T10:00:00Z\n",
            "fleet.toml:1: either host or labels",
        ),
    ];
    for (text, expected) in table {
        let said = refused(text);
        assert!(said.starts_with(expected), "{said}");
    }
}

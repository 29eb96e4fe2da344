//! `--json` of a list is the array of the items that the API has.

use std::collections::BTreeSet;

use serde_json::Value;

use super::gateway::Gateway;

/// Commands that list, and the paths of the API that have the same items.
const LISTS: [(&str, &str); 18] = [
    ("booking list", "bookings"),
    ("contact list", "contacts"),
    ("customer list", "customers"),
    ("customer person list", "people"),
    ("device list", "devices"),
    ("downtime list", "downtimes"),
    ("enrolment list", "enrolments"),
    ("grant list", "grants"),
    ("host list", "hosts"),
    ("incident list", "incidents?state=open"),
    ("metrics cam", "hosts/cam/metrics"),
    ("operator list", "operators"),
    ("profile list", "profiles"),
    ("rental blocks nas", "devices/nas/blocks"),
    ("rental list", "rentals"),
    ("renter list", "renters"),
    ("rule list", "rules"),
    ("user list", "users"),
];

/// Lists that may be empty here.
const EMPTY: [&str; 1] = ["enrolment list"];

/// A gateway with an object of each kind.
fn furnished() -> Gateway {
    let gateway = Gateway::start();
    for line in [
        "device add cam",
        "service set cam backup --check {\"type\":\"passive\"} --attempts 1",
        "result cam/backup critical files|files=0",
        "user add anna --role operator",
        "operator add anna-laptop --user anna",
        "contact add ops --email ops@example.com",
        "rule add all --contact ops",
        "downtime add cam --for 2h",
        "rental device cam --rentable --no-gate",
        "customer add --ref crm-17",
        "booking add --customer crm-17 --device cam --for 2d",
        "device add nas",
        "rental block nas --reason repair --for 2d",
    ] {
        gateway.must(&line.split(' ').collect::<Vec<_>>());
    }
    let person = gateway.json(&["customer", "person", "add", "crm-17"]);
    gateway.must(&["renter", "add", "laptop", "--person", person["id"].as_str().expect("an id")]);
    gateway
}

/// The id of each item, and the names of its fields. Values such as the last check change meanwhile.
fn shape(items: &Value) -> Vec<(Value, BTreeSet<String>)> {
    let fields =
        |item: &Value| item.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let items = items.as_array().expect("a list");
    items.iter().map(|item| (item["id"].clone(), fields(item))).collect()
}

#[test]
fn a_list_as_json_is_what_the_api_lists() {
    let gateway = furnished();
    for (command, path) in LISTS {
        let printed = shape(&gateway.json(&command.split(' ').collect::<Vec<_>>()));
        assert_eq!(printed, shape(&gateway.api(path)["items"]), "{command}");
        assert!(!printed.is_empty() || EMPTY.contains(&command), "{command} lists nothing to compare");
    }
}

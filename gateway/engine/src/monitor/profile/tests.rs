use std::time::Duration;

use fleetgate_probes::plugin::PluginResult;
use fleetgate_probes::range::Thresholds;
use fleetgate_probes::sample::{Metric, Status};
use fleetgate_probes::sensors::Sensor;

use super::*;
use crate::monitor::thresholds::judge;

const VPN: Facts = Facts { tunnel: true, behind: false, login: false, direct: false };
const PACE: CheckDefaults = CheckDefaults { timing: Timing::DEFAULT, ping: Duration::from_secs(300) };

fn catalogue(own: &[Profile]) -> Catalogue {
    Catalogue::new(own.to_vec(), Vec::new()).unwrap()
}

fn fold(profile: &str, facts: Facts, overrides: &[ServiceOverride]) -> Vec<ServiceSpec> {
    catalogue(&[]).fold(&[profile], facts, PACE, overrides).unwrap()
}

fn names(facts: Facts, overrides: &[ServiceOverride]) -> Vec<String> {
    fold(DEFAULT, facts, overrides).into_iter().map(|s| s.name).collect()
}

fn change(service: &str) -> ServiceOverride {
    ServiceOverride { service: service.into(), ..ServiceOverride::default() }
}

fn limit(metric: &str, warn: &str) -> Threshold {
    let limits = Thresholds { warn: warn.parse().ok(), crit: None };
    Threshold { metric: metric.into(), limits }
}

fn profile(name: &str, extends: &[&str], services: Vec<ServiceOverride>) -> Profile {
    let extends = extends.iter().map(|e| (*e).to_owned()).collect();
    Profile { name: name.into(), extends, services, ..Profile::default() }
}

fn labels(text: &str) -> BTreeMap<String, String> {
    text.split_whitespace().filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

#[test]
fn the_default_profile_grows_with_what_a_host_has() {
    assert_eq!(names(VPN, &[]), ["tunnel", "ping"]);
    let with_login = Facts { login: true, ..VPN };
    let all = ["tunnel", "ping", "ssh", "disk", "mounts", "load", "memory", "temperature", "uptime"];
    assert_eq!(names(with_login, &[]), all);
    let behind = Facts { behind: true, ..VPN };
    assert_eq!(names(behind, &[]), ["ping"]);
    let outside = Facts { login: true, direct: true, ..Facts::default() };
    assert_eq!(names(outside, &[]), all[2..]);
    assert_eq!(names(Facts { direct: true, ..Facts::default() }, &[]), ["ssh"]);
    assert_eq!(names(Facts::default(), &[]), Vec::<String>::new());
}

#[test]
fn an_override_switches_off_and_adds() {
    let off = ServiceOverride { disabled: true, ..change("ping") };
    let sensor = Check::Sensor(Sensor::Temperature { name: None });
    let add = ServiceOverride { check: Some(sensor), ..change("temperature") };
    let nothing = change("no-such-service");
    assert_eq!(names(VPN, &[off, add, nothing]), ["tunnel", "temperature"]);
}

#[test]
fn an_override_changes_only_what_it_names() {
    let fast = ServiceOverride { interval: Some(Duration::from_secs(5)), ..change("ping") };
    let services = fold(DEFAULT, VPN, &[fast]);
    let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(4));
    let expected = Timing { interval, timeout, ..Timing::DEFAULT };
    assert_eq!((&services[1].check, services[1].timing), (&Check::Ping { count: PING_COUNT }, expected));
}

#[test]
fn a_check_ends_before_the_next_one_begins_wherever_the_interval_is_set() {
    let seconds = |s| Some(Duration::from_secs(s));
    let table = [
        (seconds(5), None, 4_000),
        (seconds(10), None, 8_000),
        (seconds(11), None, 10_000),
        (None, seconds(300), 48_000),
        (seconds(5), Some(Duration::from_millis(4_900)), 4_900),
    ];
    for (interval, timeout, expected_ms) in table {
        let named = ServiceOverride { interval, timeout, ..change("tunnel") };
        let added =
            ServiceOverride { check: Some(Check::Tcp { port: 443 }), service: "web".into(), ..named.clone() };
        let services = fold(DEFAULT, VPN, &[named, added]);
        for name in ["tunnel", "web"] {
            let timing = services.iter().find(|s| s.name == name).expect("a service").timing;
            assert_eq!(timing.timeout, Duration::from_millis(expected_ms), "{name} {interval:?}");
            assert!(timing.timeout < timing.interval);
        }
    }
}

#[test]
fn a_profile_s_service_fits_a_host_of_any_interval() {
    let paced = |secs| CheckDefaults {
        timing: Timing { interval: Duration::from_secs(secs), ..Timing::DEFAULT },
        ..PACE
    };
    let slow = catalogue(&[]).fold(&[DEFAULT], VPN, paced(3600), &[]).unwrap();
    assert!(slow.iter().all(|s| s.timing.interval == Duration::from_secs(3600)));
    let patient = ServiceOverride { timeout: Some(Duration::from_secs(50)), ..change("tunnel") };
    let own = catalogue(&[profile("patient", &[DEFAULT], vec![patient])]);
    let quick = own.fold(&["patient"], VPN, paced(10), &[]).unwrap();
    assert_eq!(quick[0].timing.timeout, Duration::from_secs(8));
}

#[test]
fn a_profile_inherits_how_its_devices_are_rented() {
    let rented = |name: &str, extends: &[&str], rental: Terms| Profile {
        rental,
        ..profile(name, extends, Vec::new())
    };
    let secs = |secs| Some(Duration::from_secs(secs));
    let site =
        Terms { preparation: secs(60), cleaning_command: Some(Some("wipe".into())), ..Terms::default() };
    let office = Terms { turnaround: secs(30), cleaning_command: Some(None), ..Terms::default() };
    let own = catalogue(&[rented("site", &[DEFAULT], site.clone()), rented("office", &["site"], office)]);
    assert_eq!(own.rental(&[DEFAULT]), Terms::default());
    assert_eq!(own.rental(&["site"]), site);
    let both = own.rental(&["office"]);
    assert_eq!((both.preparation, both.turnaround, both.cleaning_command), (secs(60), secs(30), Some(None)));
}

#[test]
fn a_profile_inherits_differs_and_switches_off() {
    let limits = ServiceOverride { thresholds: Some(vec![limit("rta", "100")]), ..change("ping") };
    let web = ServiceOverride { check: Some(Check::Tcp { port: 443 }), ..change("web") };
    let off = ServiceOverride { disabled: true, ..change("tunnel") };
    let stricter = ServiceOverride { thresholds: Some(vec![limit("pl", "20")]), ..change("ping") };
    let own = catalogue(&[
        profile("site", &[DEFAULT], vec![limits, web]),
        profile("office", &["site", DEFAULT], vec![off, stricter]),
    ]);
    let services = own.fold(&["office"], VPN, PACE, &[]).unwrap();
    let shown: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(shown, ["ping", "web"]);
    assert_eq!(services[0].thresholds, [limit("rta", "100"), limit("pl", "20")]);
    assert!(own.descends("office", DEFAULT) && !own.descends("site", "office"));
}

#[test]
fn a_threshold_of_a_host_replaces_that_of_its_profile() {
    let limits = Some(vec![limit("rta", "100"), limit("pl", "20")]);
    let own = catalogue(&[profile(
        "site",
        &[DEFAULT],
        vec![ServiceOverride { thresholds: limits, ..change("ping") }],
    )]);
    let night =
        ServiceOverride { thresholds: Some(vec![limit("rta", "300"), limit("pl", "")]), ..change("ping") };
    let services = own.fold(&["site"], VPN, PACE, &[night]).unwrap();
    assert_eq!(services[1].thresholds, [limit("rta", "300")]);
}

#[test]
fn a_threshold_of_a_rental_replaces_that_of_a_service_and_leaves_the_usual_ones() {
    let limits = ServiceOverride { thresholds: Some(vec![limit("a", "1"), limit("b", "2")]), ..change("x") };
    let passive = ServiceOverride { check: Some(Check::Passive), ..limits };
    let mut services = fold(DEFAULT, VPN, &[passive]);
    let before = services.clone();
    limit_for_rental(&mut services, "none", &[limit("a", "9")]);
    assert_eq!(services, before, "the host has no such service");
    limit_for_rental(&mut services, "x", &[limit("a", "9"), limit("b", "")]);
    let own = services.iter().find(|service| service.name == "x").unwrap();
    assert_eq!(own.thresholds, [limit("a", "9")]);
    assert_eq!(own.usual, Some(vec![limit("a", "1"), limit("b", "2")]));
}

#[test]
fn rules_choose_by_labels_and_a_host_s_own_profile_wins() {
    let rule = |selector: &str, profile: &str| ProfileRule {
        selector: Selector(labels(selector)),
        profile: profile.to_owned(),
    };
    let rules =
        vec![rule("kind=camera", "linux"), rule("uplink=*", "router"), rule("kind=camera site=a", "nas")];
    let catalogue = Catalogue::new(Vec::new(), rules).unwrap();
    let table: [(Option<&str>, &str, &[&str]); 5] = [
        (None, "kind=camera", &["linux"]),
        (None, "kind=camera uplink=lte site=a", &["linux", "router", "nas"]),
        (None, "kind=gateway", &[DEFAULT]),
        (None, "", &[DEFAULT]),
        (Some("router"), "kind=camera", &["router"]),
    ];
    for (own, has, expected) in table {
        assert_eq!(catalogue.of_host(own, &labels(has)), expected, "{has}");
    }
}

#[test]
fn a_contradictory_profile_is_refused_with_the_name_of_the_setting() {
    let bad = |own: &[Profile], rules: Vec<ProfileRule>| {
        Catalogue::new(own.to_vec(), rules).unwrap_err().to_string()
    };
    let circle = [profile("a", &["b"], vec![]), profile("b", &["c"], vec![]), profile("c", &["a"], vec![])];
    assert_eq!(bad(&circle, vec![]), "profile a extends itself: a -> b -> c -> a");
    assert!(bad(&[profile("a", &["a"], vec![])], vec![]).ends_with("a -> a"));
    assert!(
        bad(&[profile("a", &["b"], vec![])], vec![])
            .starts_with("profile a extends \"b\", which there is not")
    );
    let nothing = bad(&[profile("a", &[], vec![change("web")])], vec![]);
    assert!(nothing.starts_with("service web of profile a has no check"), "{nothing}");
    let rule = ProfileRule { selector: Selector::default(), profile: "toaster".into() };
    assert!(bad(&[], vec![rule]).contains("toaster"));
    assert!(catalogue(&[]).fold(&["toaster"], VPN, PACE, &[]).is_err());
}

#[test]
fn a_sensor_board_is_evaluated_by_its_own_metrics() {
    let login = Facts { login: true, ..VPN };
    let services = fold("timelapse-camera", login, &[]);
    let board = services.iter().find(|s| s.name == "sensors").expect("a board");
    let judged = |values: &[(&str, f64)]| {
        let metrics = values.iter().map(|(label, value)| Metric::plain(label, *value, "")).collect();
        let said = PluginResult::new(Status::Ok, "", metrics);
        judge(said, &board.check, &board.thresholds, &[]).result.status
    };
    let usual = [("temperature", 21.5), ("humidity", 48.0), ("pressure", 1_013.0), ("luminosity", 350.0)];
    assert_eq!(judged(&usual), Status::Ok);
    assert_eq!(
        judged(&[("pressure", 820.0), ("age", 10.0)]),
        Status::Ok,
        "in the mountains, and nothing else"
    );
    let table = [
        ("temperature", 55.0, Status::Warning),
        ("temperature", -35.0, Status::Critical),
        ("humidity", 90.0, Status::Warning),
        ("humidity", 99.0, Status::Critical),
        ("pressure", 500.0, Status::Warning),
        ("pressure", 0.0, Status::Critical),
        ("luminosity", -1.0, Status::Critical),
        ("age", 1_000.0, Status::Critical),
    ];
    for (metric, value, expected) in table {
        assert_eq!(judged(&[(metric, value)]), expected, "{metric} {value}");
    }
}

#[test]
fn a_time_lapse_camera_has_every_check_that_it_is_known_for() {
    let login = Facts { login: true, ..VPN };
    let services = fold("timelapse-camera", login, &[]);
    let names: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
    let expected = [
        "tunnel",
        "ping",
        "ssh",
        "disk",
        "mounts",
        "load",
        "memory",
        "temperature",
        "uptime",
        "processes",
        "cpu",
        "users",
        "traffic",
        "camera",
        "board",
        "capture",
        "pictures",
        "sensors",
    ];
    assert_eq!(names, expected);
    let limits: Vec<_> = services[3].thresholds.iter().map(|t| (t.metric.as_str(), warning(t))).collect();
    assert_eq!(limits, [("inodes", "90".to_owned()), ("used", "92".to_owned())]);
}

fn warning(limit: &Threshold) -> String {
    limit.limits.warn.map(|range| range.to_string()).unwrap_or_default()
}

/// Every limit that an enrolled Linux device has before its operator sets any.
#[test]
fn the_default_profile_has_a_limit_on_everything_that_has_an_obvious_one() {
    let login = Facts { login: true, ..VPN };
    for profile in [DEFAULT, "linux", "router"] {
        let services = fold(profile, login, &[]);
        let limited = |service: &str, metric: &str| {
            let found = services.iter().find(|s| s.name == service);
            found.is_some_and(|s| s.thresholds.iter().any(|t| t.metric == metric && t.limits.crit.is_some()))
        };
        for (service, metric) in [
            ("disk", "fullness"),
            ("disk", "inodes"),
            ("mounts", "read_only"),
            ("load", "load15_per_cpu"),
            ("memory", "used"),
            ("memory", "swap"),
            ("temperature", "temperature"),
            ("tunnel", "clock_skew"),
        ] {
            assert!(limited(service, metric), "{profile}: {service} {metric}");
        }
    }
    let own = ServiceOverride { thresholds: Some(vec![limit("free", "1000:")]), ..change("disk") };
    let services = fold(DEFAULT, login, &[own]);
    let metrics: Vec<&str> = services[3].thresholds.iter().map(|t| t.metric.as_str()).collect();
    assert_eq!(metrics, ["inodes", "free"], "an own limit of how full a disk is takes the place of fullness");
}

#[test]
fn the_built_in_profiles_fit_together() {
    let catalogue = catalogue(&[]);
    let names: Vec<&str> = catalogue.profiles().map(|p| p.name.as_str()).collect();
    assert_eq!(names, [DEFAULT, "linux", "nas", "router", "timelapse-camera"]);
    assert!(names.iter().all(|name| catalogue.descends(name, DEFAULT)));
}

#[test]
fn the_first_failure_of_a_job_is_hard_unless_attempts_are_set() {
    use fleetgate_probes::job::{Due, Job};
    let job = Check::Heartbeat(Job { due: Due::Every(Duration::from_secs(60)), grace: Duration::ZERO });
    let backup = ServiceOverride { check: Some(job), ..change("backup") };
    let patient = ServiceOverride { attempts: Some(4), ..backup.clone() };
    let attempts = |profile: ServiceOverride, host: ServiceOverride| {
        let own = catalogue(&[super::tests::profile("jobs", &[], vec![profile])]);
        own.fold(&["jobs"], VPN, PACE, &[host]).unwrap()[0].timing.attempts
    };
    assert_eq!(attempts(backup.clone(), change("backup")), 1);
    assert_eq!(attempts(backup.clone(), patient.clone()), 4);
    assert_eq!(attempts(patient, change("backup")), 4);
    let passive = ServiceOverride { check: Some(Check::Passive), ..change("backup") };
    assert_eq!((attempts(passive.clone(), change("backup")), attempts(passive, backup)), (3, 1));
}

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

const MAIL: &str = "[mail]\nhost = \"mail.example\"\nfrom = \"gate@example.org\"\n";

fn load(toml: &str, mode: u32, environment: &[(&str, &str)]) -> anyhow::Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("fleetgate.toml");
    fs::write(&file, toml).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    let all = environment.iter().map(|(name, value)| (format!("FLEETGATE_{name}"), (*value).to_owned()));
    Config::load_with(dir.path(), None, own_variables(all))
}

fn refused(toml: &str, environment: &[(&str, &str)]) -> String {
    format!("{:#}", load(toml, 0o600, environment).unwrap_err())
}

#[test]
fn a_file_with_a_password_is_not_for_others() {
    let text = format!("{MAIL}to = [\"ops@example.org\"]\nuser = \"gate\"\npassword = \"secret\"\n");
    assert!(load(&text, 0o600, &[]).is_ok());
    assert!(load(&text, 0o640, &[]).is_ok());
    for mode in [0o660, 0o604] {
        let error = format!("{:#}", load(&text, mode, &[]).unwrap_err());
        assert!(error.contains("fleetgate.toml") && error.contains("chmod 640"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let without = format!("{MAIL}to = [\"ops@example.org\"]\n");
    assert!(load(&without, 0o644, &[]).is_ok());
    let elsewhere = [("MAIL__USER", "gate"), ("MAIL__PASSWORD", "0123")];
    let config = load(&without, 0o644, &elsewhere).unwrap();
    assert_eq!(config.mail.unwrap().password.unwrap().reveal(), "0123");
}

#[test]
fn lists_come_from_the_environment_separated_by_commas() {
    let environment = [
        ("MAIL__TO", "ops@example.org, \"Lovelace, Ada\" <ada@example.org>"),
        ("TRUSTED_PROXIES", "127.0.0.1, ::1"),
    ];
    let config = load(MAIL, 0o600, &environment).unwrap();
    let to: Vec<String> = config.mail.unwrap().to.iter().map(|m| m.email.to_string()).collect();
    assert_eq!(to, ["ops@example.org", "ada@example.org"]);
    assert_eq!(config.trusted_proxies, ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    let file = load("trusted_proxies = [\"10.0.0.1\"]", 0o600, &[]).unwrap();
    assert_eq!(file.trusted_proxies, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_list_with_something_else_in_it_is_named() {
    let error = refused(MAIL, &[("MAIL__TO", "ops at example")]);
    assert!(error.contains("mail.to: \"ops at example\" is not an e-mail address"), "{error}");
    let error = refused("trusted_proxies = [\"proxy\"]", &[]);
    assert!(error.contains("trusted_proxies: \"proxy\" is not an IP address"), "{error}");
    for nobody in ["", "to = []"] {
        assert!(refused(&format!("{MAIL}{nobody}"), &[]).contains("mail.to is empty"));
    }
}

#[test]
fn a_public_url_that_cannot_stand_in_a_script_is_refused() {
    assert_eq!(
        load("public_url = \"https://gw.example/\"", 0o600, &[]).unwrap().public_url.unwrap().as_str(),
        "https://gw.example"
    );
    let error = refused("", &[("PUBLIC_URL", "https://gw.example'; reboot #")]);
    assert!(error.contains("public_url") && error.contains("https://fleet.example.com"), "{error}");
}

#[test]
fn a_mail_password_does_not_travel_in_clear() {
    let text =
        format!("{MAIL}to = [\"ops@example.org\"]\nuser = \"gate\"\npassword = \"p\"\nsecurity = \"none\"\n");
    let error = refused(&text, &[]);
    assert!(error.contains("would travel in clear to mail.example"), "{error}");
    assert!(load(&text, 0o600, &[("MAIL__HOST", "127.0.0.1")]).is_ok(), "a relay on this machine");
    let half = refused(MAIL, &[("MAIL__TO", "ops@example.org"), ("MAIL__USER", "gate")]);
    assert!(half.contains("belong together"), "{half}");
}

#[test]
fn what_the_build_and_the_tests_read_is_no_setting() {
    assert!(load("", 0o600, &[("WEB_DIST", "/x"), ("TEST_BLESS", "1"), ("SIM_SEED", "7")]).is_ok());
    assert!(refused("", &[("LISTN", "x")]).contains("listn"));
}

#[test]
fn history_is_kept_for_days_that_make_sense() {
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let history = |text: &str| load(text, 0o600, &[]).unwrap().history;
    let usual = Keep { raw: days(30), five_minutes: days(90), hours: days(1_098), days: None };
    assert_eq!(history(""), usual);
    assert_eq!(history("[history]\nkeep = 7"), Keep { raw: days(7), ..usual }, "the older name");
    assert_eq!(history("[history]\nkeep = 1").raw, days(2), "a day is rolled up after its end");
    assert_eq!(history("[history]\nraw = 365"), Keep { raw: days(365), five_minutes: days(365), ..usual });
    let all = "[history]\nraw = 7\nfive_minutes = 30\nhours = 400\ndays = 4000\ntraffic = 62";
    let set = Keep { raw: days(7), five_minutes: days(30), hours: days(400), days: Some(days(4_000)) };
    assert_eq!((history(all), load(all, 0o600, &[]).unwrap().traffic_days), (set, 62));
    for (name, wrong) in [
        ("KEEP", "0"),
        ("KEEP", "3661"),
        ("RAW", "1"),
        ("FIVE_MINUTES", "29"),
        ("HOURS", "89"),
        ("DAYS", "1097"),
        ("TRAFFIC", "61"),
        ("DAYS", "36501"),
    ] {
        let variable = format!("HISTORY__{name}");
        let error = refused("", &[(variable.as_str(), wrong)]);
        let key = format!("history.{} = {wrong}", name.to_lowercase());
        assert!(error.contains(&key) && error.contains("days"), "{error}");
    }
    let twice = refused("[history]\nkeep = 7\nraw = 7", &[]);
    assert!(twice.contains("history.raw alone"), "{twice}");
}

#[test]
fn the_history_stops_before_results_are_refused() {
    let disk = |text: &str| load(text, 0o600, &[]).unwrap().disk;
    let mb = |history: u64, reserve: u64| DiskSettings { history: history << 20, reserve: reserve << 20 };
    assert_eq!(disk(""), mb(256, 64));
    assert_eq!(disk("[disk]\nhistory_mb = 10\nreserve_mb = 20"), mb(20, 20));
    for key in ["HISTORY_MB", "RESERVE_MB"] {
        let variable = format!("DISK__{key}");
        let error = refused("", &[(variable.as_str(), "0")]);
        assert!(error.contains(&format!("disk.{} = 0", key.to_lowercase())), "{error}");
    }
}

#[test]
fn events_are_kept_for_two_years_and_the_audit_for_ever() {
    let days = |n: u64| Duration::from_secs(n * 86_400);
    let usual = load("", 0o600, &[]).unwrap().retention;
    assert_eq!(usual, Retention { keep: days(730), audit: None, intervals: days(1_098) });
    let set = load("[retention]\nkeep = 90\naudit = 3650", 0o600, &[]).unwrap().retention;
    assert_eq!(set, Retention { keep: days(90), audit: Some(days(3_650)), intervals: days(1_098) });
    let longer = load("[retention]\nkeep = 3650", 0o600, &[]).unwrap().retention;
    assert_eq!(longer.intervals, days(3_650), "intervals are never kept shorter than events");
    for (name, key) in [("RETENTION__KEEP", "retention.keep"), ("RETENTION__AUDIT", "retention.audit")] {
        for wrong in ["0", "36501"] {
            let error = refused("", &[(name, wrong)]);
            assert!(error.contains(&format!("{key} = {wrong}: expected 1 to 36500 days")), "{error}");
        }
    }
    for wrong in ["keep = \"2y\"", "keep = -1", "events = 90"] {
        let error = refused(&format!("[retention]\n{wrong}"), &[]);
        assert!(error.contains("retention"), "{error}");
    }
}

#[test]
fn the_mtu_of_peers_without_their_own_is_one_that_a_peer_may_have() {
    let usual = load("", 0o600, &[]).unwrap();
    assert_eq!(usual.mtu, 1_280);
    let set = load("[tunnel]\nmtu = 1420", 0o600, &[]).unwrap();
    assert_eq!((set.mtu, load("", 0o600, &[("TUNNEL__MTU", "1400")]).unwrap().mtu), (1_420, 1_400));
    assert!(usual.fixed_differences(&set).contains(&"tunnel.mtu"), "a start reads it");
    for wrong in ["0", "1279", "1421"] {
        let error = refused(&format!("[tunnel]\nmtu = {wrong}"), &[]);
        assert!(error.contains(&format!("tunnel.mtu = {wrong}: expected 1280 to 1420 bytes")), "{error}");
    }
}

#[test]
fn a_customer_gets_a_power_of_two_of_addresses() {
    let usual = load("", 0o600, &[]).unwrap();
    assert_eq!(usual.alias_slots, 64);
    let set = load("[rentals]\nalias_slots = 8", 0o600, &[]).unwrap();
    let variable = load("", 0o600, &[("RENTALS__ALIAS_SLOTS", "4096")]).unwrap();
    assert_eq!((set.alias_slots, variable.alias_slots), (8, 4_096));
    assert!(usual.fixed_differences(&set).contains(&"rentals.alias_slots"), "a start reads it");
    for wrong in ["0", "4", "63", "100", "8192"] {
        let error = refused(&format!("[rentals]\nalias_slots = {wrong}"), &[]);
        let expected = format!("rentals.alias_slots = {wrong}: expected a power of two from 8 to 4096");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn an_endpoint_that_no_device_can_use_is_named() {
    assert_eq!(load("", 0o600, &[("ENDPOINT", "gw.example:5")]).unwrap().endpoint.unwrap().port(), 5);
    for bad in ["0.0.0.0:51820", "[::]:51820", "300.1.1.1:5", "-:1", "host:+5", "host:051820"] {
        let error = refused("", &[("ENDPOINT", bad)]);
        assert!(error.contains(&format!("endpoint = {bad:?}")), "{error}");
    }
}

#[test]
fn a_pool_that_would_hijack_a_device_is_refused_with_what_is_allowed() {
    for good in ["10.0.0.0/8", "172.24.0.0/14", "192.168.0.0/16", "100.64.0.0/10"] {
        assert_eq!(load("", 0o600, &[("POOL_V4", good)]).unwrap().pool_v4.to_string(), good);
    }
    for bad in ["0.0.0.0/0", "127.0.0.0/8", "172.0.0.0/8", "192.0.2.0/24", "224.0.0.0/8"] {
        let error = refused("", &[("POOL_V4", bad)]);
        assert!(error.contains("pool_v4") && error.contains("172.16.0.0/12"), "{error}");
    }
    for bad in ["::/0", "2001:db8::/64", "fe80::/64", "ff00::/8"] {
        let error = refused("", &[("POOL_V6", bad)]);
        assert!(error.contains("pool_v6") && error.contains("fc00::/7"), "{error}");
    }
    assert!(refused("", &[("POOL_V4", "172.24.0.1/14")]).contains("did you mean 172.24.0.0/14"));
    assert!(refused("", &[("POOL_V6", "fd72::1/64")]).contains("did you mean fd72::/64"));
}

#[test]
fn an_installation_keeps_its_pools_where_the_settings_name_none() {
    let stored = Pools { v4: "172.24.0.0/14".parse().unwrap(), v6: "fd00::/64".parse().unwrap() };
    let mut config = load("", 0o600, &[]).unwrap();
    let fresh = config.pools();
    config.keep_pools(stored);
    assert_eq!(config.pools(), stored);
    let reloaded = config.fixed_differences(&load("", 0o600, &[]).unwrap());
    assert!(!reloaded.contains(&"pool_v4"), "a reload changes nothing: {reloaded:?}");
    let named = load("", 0o600, &[("POOL_V4", "10.9.0.0/16")]).unwrap();
    assert!(config.fixed_differences(&named).contains(&"pool_v4"));
    let mut named = named;
    named.keep_pools(stored);
    assert_eq!(named.pools(), Pools { v4: "10.9.0.0/16".parse().unwrap(), v6: stored.v6 });
    // Docker takes its networks from these.
    for docker in ["172.16.0.0/12", "192.168.0.0/16"] {
        let docker: ipnet::Ipv4Net = docker.parse().unwrap();
        assert!(!docker.contains(&fresh.v4.network()) && !fresh.v4.contains(&docker.network()));
    }
}

#[test]
fn the_heartbeat_goes_nowhere_that_gives_credentials_away_unless_that_is_opened() {
    let heartbeat = "[heartbeat]\nurl = \"http://169.254.169.254/latest\"\n";
    let error = refused(heartbeat, &[]);
    assert!(error.contains("heartbeat.url") && error.contains("outbound.allow"), "{error}");
    assert!(load(heartbeat, 0o600, &[("OUTBOUND__ALLOW", "169.254.0.0/16, ::1")]).is_ok());
    assert!(load(&format!("{heartbeat}[outbound]\nallow = [\"169.254.169.254\"]"), 0o600, &[]).is_ok());
    let error = refused("[outbound]\nallow = [\"10.0.0.0/33\"]", &[]);
    assert!(error.contains("outbound.allow: \"10.0.0.0/33\""), "{error}");
}

#[test]
fn the_form_of_the_log_and_its_filter_are_two_settings() {
    let config = load("", 0o600, &[("LOG", "json"), ("LOG_FILTER", "debug,fleetgate=trace")]).unwrap();
    assert_eq!((config.log_json, config.log_filter.as_deref()), (true, Some("debug,fleetgate=trace")));
    assert!(!load("log = \"text\"", 0o600, &[]).unwrap().log_json);
    assert!(refused("", &[("LOG", "debug")]).contains("FLEETGATE_LOG_FILTER"));
    for bad in ["debg", "fleetgate=loud", "json"] {
        assert!(refused("", &[("LOG_FILTER", bad)]).contains(&format!("log_filter = {bad:?}")), "{bad}");
    }
}

#[test]
fn names_are_answered_below_a_domain_and_others_by_resolvers_that_are_named() {
    let usual = load("", 0o600, &[]).unwrap().dns.unwrap();
    assert_eq!((usual.suffix.as_str(), usual.engine().forwards), ("fleet.internal", false));
    let set = [("DNS__SUFFIX", "Cams.example.net."), ("DNS__RESOLVERS", "192.0.2.53, [2001:db8::53]:5353")];
    let set = load("", 0o600, &set).unwrap().dns.unwrap();
    let resolvers = ["192.0.2.53:53", "[2001:db8::53]:5353"].map(|text| text.parse().unwrap());
    assert_eq!((set.suffix.as_str(), &set.resolvers[..]), ("cams.example.net", &resolvers[..]));
    assert!(set.engine().forwards);
    assert!(load("[dns]\nenabled = false", 0o600, &[]).unwrap().dns.is_none());
    for bad in ["fleet..internal", "-x.internal", "fleet internal", "10.112", ".", "fleet.local"] {
        let error = refused("", &[("DNS__SUFFIX", bad)]);
        assert!(error.contains("dns.suffix") && error.contains("fleet.internal"), "{error}");
    }
    for bad in ["dns.example.net", "192.0.2.53:0", "0.0.0.0"] {
        assert!(refused("", &[("DNS__RESOLVERS", bad)]).contains(&format!("dns.resolvers: {bad:?}")));
    }
    let many = refused("", &[("DNS__RESOLVERS", "192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4")]);
    assert!(many.contains("names 4: expected at most 3"), "{many}");
}

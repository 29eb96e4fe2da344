//! The work of the gateway on devices for renters, with devices that answer as the helper does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::{CommandEnd, CommandReply, MonitorInput};
use fleetgate_engine::time::Wall;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::rental_access::renter;
use super::rental_ssh::key;
use super::rentals::{self, HOUR, field, hence, item, must, path, rented, renting, shop, text};
use crate::api::request::ids::IdKind;
use crate::api::testing::{Answer, TestApi};
use crate::identity::ssh_ca::mark;
use crate::rental_access::{self, Call, Parts, Runner};
use crate::store::fixture::{restored, run};

/// Devices that have done what they were called for, or fail.
#[derive(Clone, Default)]
pub(super) struct Devices(Arc<Mutex<Called>>);

#[derive(Default)]
struct Called {
    calls: Vec<String>,
    /// The whole lines.
    lines: Vec<String>,
    /// A grant is answered with the status.
    is_other: bool,
    /// How the calls begin that fail.
    fails: Option<&'static str>,
}

impl Devices {
    fn failing(self, calls: Option<&'static str>) -> Devices {
        self.0.lock().unwrap().fails = calls;
        self
    }

    /// The first word of each call, once for all that follow each other.
    fn verbs(&self) -> Vec<String> {
        let first = |call: &String| call.split(' ').next().unwrap_or_default().to_owned();
        let mut verbs: Vec<String> = self.0.lock().unwrap().calls.iter().map(first).collect();
        verbs.dedup();
        verbs
    }

    fn was_called(&self, call: &str) -> bool {
        self.0.lock().unwrap().calls.iter().any(|made| made.starts_with(call))
    }
}

impl Runner for Devices {
    async fn run(&self, _: HostId, call: Call) -> Result<CommandReply, String> {
        let helper = call.line.split("$r $h ").nth(1);
        let made = helper.map_or(call.line.as_str(), |arguments| arguments.trim_end_matches([';', '}']));
        let (fails, is_other) = {
            let mut called = self.0.lock().unwrap();
            called.calls.push(made.to_owned());
            called.lines.push(call.line.clone());
            (called.fails, called.is_other)
        };
        let (status, stdout) = match made.split(' ').next() {
            _ if fails.is_some_and(|fails| made.starts_with(fails)) => (3, "left: processes 7"),
            Some("grant") if is_other => {
                (1, "status account=renter mode=certificates principal=- until=- processes=0")
            }
            Some("status") => (0, "status account=renter mode=certificates principal=- until=- processes=0"),
            Some("grant") => (0, "granted it"),
            Some("revoke") => (0, "revoked"),
            _ => (0, "clean"),
        };
        Ok(CommandReply {
            name: String::new(),
            end: CommandEnd::Exit(status),
            stdout: format!("fleetgate-rental 2 {stdout}\n").into_bytes(),
            stderr: Vec::new(),
            truncated: false,
            took: Duration::ZERO,
        })
    }
}

/// A device with the access of a rental, and whether it was taken away.
#[derive(Clone)]
struct Holding(String, Arc<AtomicBool>);

impl Runner for Holding {
    async fn run(&self, _: HostId, call: Call) -> Result<CommandReply, String> {
        let is_revoke = call.line.contains("$r $h revoke");
        self.1.fetch_or(is_revoke, Ordering::Relaxed);
        let status =
            format!("status account=renter mode=certificates principal={} until=- processes=0", self.0);
        let said = if is_revoke { "revoked" } else { status.as_str() };
        Ok(CommandReply {
            name: String::new(),
            end: CommandEnd::Exit(0),
            stdout: format!("fleetgate-rental 2 {said}\n").into_bytes(),
            stderr: Vec::new(),
            truncated: false,
            took: Duration::ZERO,
        })
    }
}

/// A gateway that calls its devices, until it is stopped.
pub(super) struct Running(JoinSet<()>, CancellationToken);

impl Running {
    pub(super) fn start<R: Runner>(api: &TestApi, devices: &R) -> Running {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let (store, handle) = (api.state.store.clone(), api.state.handle.clone());
        rental_access::start(&mut tasks, Parts { store, handle, runner: devices.clone() }, stop.clone());
        Running(tasks, stop)
    }

    pub(super) async fn stop(mut self) {
        self.1.cancel();
        while self.0.join_next().await.is_some() {}
    }
}

async fn settings(api: &TestApi) -> Value {
    must(&api.operator().get("/api/v1/devices/cam-1/rental-settings").await).clone()
}

async fn set(api: &TestApi, body: Value) -> Answer {
    api.operator().put("/api/v1/devices/cam-1/rental-settings", body).await
}

/// Waits until the settings of the device are as expected.
async fn until(api: &TestApi, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..1_000 {
        let now = settings(api).await;
        if is_so(&now) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {}", settings(api).await);
}

async fn called(devices: &Devices, call: &str) {
    for _ in 0..1_000 {
        if devices.was_called(call) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{call}: {:?}", devices.verbs());
}

/// A rental that lasts from now, whose renters may log in.
pub(super) async fn begun(api: &TestApi) -> Value {
    let rental = rented(api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    run(&api.state.store, "update rentals set ssh = 1", &[]).await;
    rental
}

async fn end(api: &TestApi, rental: &Value) {
    must(&api.operator().post(&format!("{}/end", path(rental)), json!({ "reason": "ended" })).await);
}

/// Waits until these calls were made, each once for all that follow each other.
pub(super) async fn calls_are(devices: &Devices, expected: &[&str]) {
    for _ in 0..1_000 {
        if devices.verbs() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{expected:?}: {:?}", devices.verbs());
}

/// Why the renters cannot log in.
pub(super) async fn not_granted_reason(api: &TestApi, rental: &Value) -> Value {
    let ssh = api.operator().get(&format!("{}/ssh", path(rental))).await;
    must(&ssh)["not_granted_reason"].clone()
}

/// Waits for a reason that contains these words.
async fn reason_says(api: &TestApi, rental: &Value, words: &str) {
    for _ in 0..1_000 {
        if not_granted_reason(api, rental).await.as_str().is_some_and(|why| why.contains(words)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{words}: {}", not_granted_reason(api, rental).await);
}

/// Waits until nothing keeps the renters from logging in.
pub(super) async fn are_let_in(api: &TestApi, rental: &Value) {
    for _ in 0..1_000 {
        if not_granted_reason(api, rental).await.is_null() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{}", not_granted_reason(api, rental).await);
}

async fn set_keys(api: &TestApi, renter: &str, keys: Value) {
    must(&api.operator().patch(&format!("/api/v1/renters/{renter}"), json!({ "ssh_keys": keys })).await);
}

/// Whether the monitor was told last that the device can be handed over.
fn is_ready(api: &mut TestApi) -> bool {
    let mut ready = false;
    while let Ok(input) = api.monitor.try_recv() {
        if let MonitorInput::Handover(spec) = input {
            ready = spec.is_ready;
        }
    }
    ready
}

#[tokio::test]
async fn a_rental_is_delayed_until_its_renters_can_log_in() {
    let mut api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let rental = begun(&api).await;
    let devices = Devices::default().failing(Some("grant"));
    let running = Running::start(&api, &devices);
    called(&devices, "grant").await;
    running.stop().await;
    assert_eq!(settings(&api).await["ssh_mode"], json!("certificates"));
    let shown = must(&api.operator().get(&path(&rental)).await).clone();
    assert_eq!((&shown["state"], &shown["delayed"][0]["kind"]), (&json!("delayed"), &json!("ssh")));
    assert!(text(&shown["delayed"][0]["text"]).starts_with("SSH access for the renters is not set up: "));
    assert!(!is_ready(&mut api));
    let running = Running::start(&api, &devices.clone().failing(None));
    for _ in 0..1_000 {
        if is_ready(&mut api) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.stop().await;
    let shown = must(&api.operator().get(&path(&rental)).await).clone();
    assert_eq!(shown["delayed"][0]["kind"], json!("settling"), "{shown}");
    assert!(devices.was_called(&format!("grant {} ", text(&rental["id"]))), "{:?}", devices.verbs());
    assert_eq!(devices.verbs(), ["status", "grant"]);
}

#[tokio::test]
async fn a_device_is_not_ready_until_the_access_is_removed_also_after_a_restart() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let rental = begun(&api).await;
    let devices = Devices::default().failing(Some("revoke"));
    let running = Running::start(&api, &devices);
    called(&devices, "grant").await;
    let other = json!({ "rentable": true, "ssh_account": null });
    let refused = set(&api, other.clone()).await;
    assert_eq!((refused.status, refused.code()), (409, "access_not_removed"), "{}", refused.text);
    end(&api, &rental).await;
    let left =
        |now: &Value| now["not_ready_reason"].as_str().is_some_and(|why| why.contains("left: processes 7"));
    let now = until(&api, "the removal failed", left).await;
    let reason = format!("the access of {} is not removed: left: processes 7", text(&rental["id"]));
    assert_eq!((&now["ready"], text(&now["not_ready_reason"])), (&json!(false), reason.as_str()));
    running.stop().await;
    let running = Running::start(&api, &devices.clone().failing(None));
    until(&api, "the removal is repeated", |now| now["ready"] == json!(true)).await;
    running.stop().await;
    assert_eq!(devices.verbs(), ["status", "grant", "revoke"]);
    must(&set(&api, other).await);
}

#[tokio::test]
async fn access_of_which_a_backup_does_not_know_is_removed() {
    let api = shop().await;
    let rental = begun(&api).await;
    end(&api, &rental).await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let device = Holding(text(&rental["id"]).to_owned(), Arc::default());
    let running = Running::start(&api, &device);
    for _ in 0..1_000 {
        if device.1.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(device.1.load(Ordering::Relaxed), "it is taken away");
    until(&api, "it is removed", |now| now["ready"] == json!(true)).await;
    running.stop().await;
}

#[tokio::test]
async fn access_of_a_rental_that_a_backup_does_not_have_is_removed() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter", "ssh_root": true })).await;
    let device = Holding(IdKind::Rental.text(Id::from_i64(77)), Arc::default());
    let running = Running::start(&api, &device);
    let exposed =
        |now: &Value| now["not_ready_reason"].as_str().is_some_and(|why| why.contains("new WireGuard"));
    until(&api, "its keys may be known", exposed).await;
    assert!(device.1.load(Ordering::Relaxed), "it is taken away");
    running.stop().await;
}

#[tokio::test]
async fn a_forced_block_takes_the_access_away_and_its_end_gives_it_back() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let rental = begun(&api).await;
    let devices = Devices::default();
    let running = Running::start(&api, &devices);
    calls_are(&devices, &["status", "grant"]).await;
    are_let_in(&api, &rental).await;
    let blocks = "/api/v1/devices/cam-1/blocks";
    let block = json!({ "reason": "lens", "until": hence(2 * HOUR), "force": true });
    let block = must(&api.operator().post(blocks, block).await).clone();
    calls_are(&devices, &["status", "grant", "revoke"]).await;
    assert_eq!(not_granted_reason(&api, &rental).await, json!("cam-1 is blocked"));
    let ended = api.operator().delete(&format!("{blocks}/{}", text(&block["id"]))).await;
    assert_eq!(ended.status, 204, "{}", ended.text);
    calls_are(&devices, &["status", "grant", "revoke", "grant"]).await;
    are_let_in(&api, &rental).await;
    running.stop().await;
}

#[tokio::test]
async fn a_key_that_is_removed_during_a_rental_is_taken_from_the_device_at_once() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let laptop = renter(&api, "crm-17", "laptop").await;
    let phone = renter(&api, "crm-17", "phone").await;
    let (first, second) = (key(1), key(2));
    set_keys(&api, &laptop, json!([first.0])).await;
    set_keys(&api, &phone, json!([second.0])).await;
    let rental = begun(&api).await;
    let devices = Devices::default();
    let running = Running::start(&api, &devices);
    let has = async |keys: &[&str]| {
        let marks: String = keys.iter().map(|key| format!(" {}", mark(key))).collect();
        let line = format!("printf '%s\\n'{marks}|");
        for _ in 0..1_000 {
            if devices.0.lock().unwrap().lines.last().is_some_and(|last| last.starts_with(&line)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{line}: {:?}", devices.0.lock().unwrap().lines);
    };
    has(&[&first.1, &second.1]).await;
    set_keys(&api, &laptop, json!([])).await;
    has(&[&second.1]).await;
    set_keys(&api, &laptop, json!([first.0])).await;
    has(&[&first.1, &second.1]).await;
    let only = api.operator().patch(&path(&rental), json!({ "renters": [laptop] })).await;
    must(&only);
    has(&[&first.1]).await;
    are_let_in(&api, &rental).await;
    running.stop().await;
    assert!(!devices.was_called("revoke"), "the rental keeps its access");
}

#[tokio::test]
async fn more_keys_than_a_device_takes_are_a_reason_and_not_left_out() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    run(&api.state.store, "update device_rental_settings set ssh_mode = 'keys'", &[]).await;
    for n in 0..9 {
        let laptop = renter(&api, "crm-17", &format!("laptop-{n}")).await;
        let keys: Vec<String> = (0..8).map(|k| key(1 + n * 8 + k).0).collect();
        set_keys(&api, &laptop, json!(keys)).await;
    }
    let rental = begun(&api).await;
    let devices = Devices::default();
    let running = Running::start(&api, &devices);
    reason_says(&api, &rental, "have 72 SSH keys, and the device takes at most 64 (keys)").await;
    for _ in 0..1_000 {
        let shown = must(&api.operator().get(&path(&rental)).await).clone();
        if shown["delayed"][0]["text"].as_str().is_some_and(|why| why.contains("have 72 SSH keys")) {
            running.stop().await;
            assert!(!devices.was_called("grant"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the rental does not say why it is delayed");
}

#[tokio::test]
async fn an_account_that_is_taken_away_is_the_reason_of_its_rentals_and_an_event() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let mut planned = item("cam-1", HOUR, 2 * HOUR);
    planned["ssh"] = json!(true);
    let refused = rentals::book(&api, json!([planned.clone()])).await;
    assert_eq!(field(&refused), (422, "items[0].ssh"), "the helper has not answered: {}", refused.text);
    run(&api.state.store, "update device_rental_settings set ssh_mode = 'certificates'", &[]).await;
    let rental = rented(&api, planned).await;
    let lost = async || {
        must(&api.operator().get("/api/v1/events?kind=device.rental_account_lost").await)["items"].clone()
    };
    must(&set(&api, json!({ "rentable": true, "ssh_account": "guest" })).await);
    must(&set(&api, json!({ "rentable": true, "ssh_account": null })).await);
    let events = lost().await;
    assert_eq!(events.as_array().map(Vec::len), Some(2), "{events}");
    assert_eq!(events[0]["data"]["rentals"], json!([rental["id"]]));
    let ssh = api.operator().get(&format!("{}/ssh", path(&rental))).await;
    assert_eq!((ssh.status, ssh.code()), (409, "ssh_not_granted"), "{}", ssh.text);
    // It begins, and waits for the account.
    let now = "update rentals set from_at = created_at - 1000, prepared_from = created_at - 1000";
    run(&api.state.store, now, &[]).await;
    let shown = must(&api.operator().get(&path(&rental)).await).clone();
    assert_eq!(
        (&shown["state"], &shown["delayed"][0]["kind"]),
        (&json!("delayed"), &json!("ssh")),
        "{shown}"
    );
    assert!(
        text(&shown["delayed"][0]["text"]).contains("has no account for its renters any more"),
        "{shown}"
    );
    end(&api, &rental).await;
    must(&set(&api, json!({ "rentable": true, "ssh_account": "renter" })).await);
    must(&set(&api, json!({ "rentable": true, "ssh_account": null })).await);
    assert_eq!(lost().await.as_array().map(Vec::len), Some(2), "no rental needs it");
}

#[tokio::test]
async fn a_device_with_another_account_than_its_settings_is_named_and_an_event_warns() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "guest" })).await;
    run(&api.state.store, "update device_rental_settings set ssh_mode = 'certificates'", &[]).await;
    let rental = begun(&api).await;
    let devices = Devices::default();
    devices.0.lock().unwrap().is_other = true;
    let running = Running::start(&api, &devices);
    reason_says(&api, &rental, "the account of renters on the device is \"renter\", and \"guest\"").await;
    running.stop().await;
    let shown = must(&api.operator().get(&path(&rental)).await).clone();
    assert!(text(&shown["delayed"][0]["text"]).contains("and \"guest\" in its settings"), "{shown}");
    assert_eq!(settings(&api).await["ssh_mode"], Value::Null);
    let events = api.operator().get("/api/v1/events?kind=device.rental_account_lost").await;
    assert_eq!(must(&events)["items"].as_array().map(Vec::len), Some(1), "{}", events.text);
    assert_eq!(events.json["items"][0]["data"]["rentals"], json!([rental["id"]]));
}

#[tokio::test]
async fn a_device_is_not_removed_before_the_access_of_its_renters_unless_that_is_meant() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter" })).await;
    let rental = begun(&api).await;
    let devices = Devices::default().failing(Some("revoke"));
    let running = Running::start(&api, &devices);
    called(&devices, "grant").await;
    end(&api, &rental).await;
    let left =
        |now: &Value| now["not_ready_reason"].as_str().is_some_and(|why| why.contains("left: processes 7"));
    until(&api, "the removal failed", left).await;
    running.stop().await;
    let refused = api.operator().delete("/api/v1/devices/cam-1").await;
    assert_eq!((refused.status, refused.code()), (409, "access_not_removed"), "{}", refused.text);
    assert!(refused.text.contains(text(&rental["id"])), "{}", refused.text);
    assert!(refused.text.contains("left: processes 7"), "{}", refused.text);
    let removed = api.operator().delete("/api/v1/devices/cam-1?cascade=true").await;
    assert_eq!(removed.status, 204, "{}", removed.text);
    let events = api.operator().get("/api/v1/events?kind=device.removed").await;
    let cause = text(&must(&events)["items"][0]["cause"]).to_owned();
    assert!(cause.contains(text(&rental["id"])), "{cause}");
}

#[tokio::test]
async fn a_device_is_cleaned_after_each_rental() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "cleaning_command": "wipe --all" })).await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let devices = Devices::default().failing(Some("wipe"));
    let running = Running::start(&api, &devices);
    tokio::time::sleep(Duration::from_millis(200)).await;
    end(&api, &rental).await;
    let failed =
        |now: &Value| now["not_ready_reason"].as_str().is_some_and(|why| why.contains("exit status 3"));
    let now = until(&api, "the cleaning failed", failed).await;
    let begins = format!("it is not cleaned after {}: the cleaning command failed", text(&rental["id"]));
    assert!(text(&now["not_ready_reason"]).starts_with(&begins), "{now}");
    running.stop().await;
    let running = Running::start(&api, &devices.clone().failing(None));
    until(&api, "it is cleaned", |now| now["ready"] == json!(true)).await;
    running.stop().await;
    assert_eq!(devices.verbs(), ["wipe"]);
}

#[tokio::test]
async fn a_device_is_neither_opened_nor_cleaned_while_a_restore_is_not_confirmed() {
    let api = shop().await;
    let given = json!({ "rentable": true, "ssh_account": "renter", "cleaning_command": "wipe --all" });
    renting(&api, "cam-1", given).await;
    let rental = begun(&api).await;
    let devices = Devices::default();
    let running = Running::start(&api, &devices);
    called(&devices, "grant").await;
    running.stop().await;
    end(&api, &rental).await;
    begun(&api).await;
    restored(&api.state.store, crate::clock::wall()).await;
    let running = Running::start(&api, &devices);
    called(&devices, "revoke").await;
    // Several looks.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(devices.verbs(), ["status", "grant", "revoke"]);
    let confirm = "update instance set confirmed_at = restored_at, confirmed_by = 'user:ada'";
    run(&api.state.store, confirm, &[]).await;
    called(&devices, "wipe").await;
    for _ in 0..1_000 {
        if devices.verbs().len() == 5 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.stop().await;
    assert_eq!(devices.verbs(), ["status", "grant", "revoke", "wipe", "grant"]);
}

#[tokio::test]
async fn after_a_restore_no_device_is_cleaned_before_the_confirmation() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "cleaning_command": "wipe" })).await;
    let rental = rented(&api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    let used = "insert into device_ssh_access (device, used_by) select device, id from rentals";
    run(&api.state.store, used, &[]).await;
    end(&api, &rental).await;
    restored(&api.state.store, Wall::from_millis(1_790_000_000_250)).await;
    let devices = Devices::default();
    let running = Running::start(&api, &devices);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!devices.was_called("wipe"), "the rental may have been extended after the backup");
    run(&api.state.store, "update instance set confirmed_at = restored_at", &[]).await;
    called(&devices, "wipe").await;
    running.stop().await;
}

#[tokio::test]
async fn the_monitor_hears_that_the_next_rental_waits_for_what_the_present_one_has() {
    for (settings, calls) in [
        (json!({ "rentable": true, "cleaning_command": "wipe" }), None),
        (json!({ "rentable": true, "ssh_account": "renter" }), Some("grant")),
    ] {
        let mut api = shop().await;
        renting(&api, "cam-1", settings.clone()).await;
        begun(&api).await;
        let next = rented(&api, item("cam-1", 2 * HOUR, 3 * HOUR)).await;
        let next = IdKind::Rental.parse(text(&next["id"])).unwrap_or_else(|unknown| panic!("{}", unknown.0));
        assert!(is_ready(&mut api), "{settings}: the present one has nothing yet");
        let running = Running::start(&api, &Devices::default().failing(calls));
        let mut ready = None;
        for _ in 0..1_000 {
            while let Ok(input) = api.monitor.try_recv() {
                if let MonitorInput::Handover(spec) = input
                    && spec.rental == next
                {
                    ready = Some(spec.is_ready);
                }
            }
            if ready == Some(false) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.stop().await;
        assert_eq!(ready, Some(false), "{settings}");
    }
}

#[tokio::test]
async fn a_device_whose_renters_could_become_root_needs_new_keys() {
    let api = shop().await;
    renting(&api, "cam-1", json!({ "rentable": true, "ssh_account": "renter", "ssh_root": true })).await;
    let rental = begun(&api).await;
    let devices = Devices::default();
    let running = Running::start(&api, &devices);
    called(&devices, "grant").await;
    end(&api, &rental).await;
    let exposed =
        |now: &Value| now["not_ready_reason"].as_str().is_some_and(|why| why.contains("new WireGuard"));
    until(&api, "its keys may be known", exposed).await;
    running.stop().await;
    must(&api.operator().post("/api/v1/devices/cam-1/credentials", json!({})).await);
    assert_eq!(settings(&api).await["ready"], json!(true));
}

#[tokio::test]
async fn what_is_wrong_with_an_account_or_a_command_is_named() {
    let api = shop().await;
    let long = "a".repeat(33);
    for bad in ["root", "", "Renter", "a b", "-a", "a\n", long.as_str()] {
        let refused = set(&api, json!({ "rentable": true, "ssh_account": bad })).await;
        assert_eq!(field(&refused), (422, "ssh_account"), "{bad:?}: {}", refused.text);
    }
    for bad in ["", " ", "a\nb", "x".repeat(1_001).as_str()] {
        let refused = set(&api, json!({ "rentable": true, "cleaning_command": bad })).await;
        assert_eq!(field(&refused), (422, "cleaning_command"), "{bad:?}: {}", refused.text);
    }
    must(&api.operator().patch("/api/v1/devices/cam-1", json!({ "ssh": { "user": "fleet" } })).await);
    let own = set(&api, json!({ "rentable": true, "ssh_account": "fleet" })).await;
    assert_eq!(field(&own), (422, "ssh_account"), "{}", own.text);
    let given =
        json!({ "rentable": true, "ssh_account": "renter", "ssh_root": true, "cleaning_command": "wipe" });
    must(&set(&api, given).await);
    let login = api.operator().patch("/api/v1/devices/cam-1", json!({ "ssh": { "user": "renter" } })).await;
    assert_eq!(field(&login), (422, "ssh.user"), "{}", login.text);
    let kept = must(&set(&api, json!({ "rentable": true })).await).clone();
    let kept = (&kept["ssh_account"], &kept["ssh_root"], &kept["cleaning_command"]);
    assert_eq!(kept, (&json!("renter"), &json!(true), &json!("wipe")));
}

/// Devices that fail once, and do not answer any more then.
#[derive(Clone, Default)]
struct Away(Arc<Mutex<BTreeMap<HostId, usize>>>);

impl Away {
    /// How many devices were called so often.
    fn called(&self, times: usize) -> usize {
        self.0.lock().unwrap().values().filter(|calls| **calls == times).count()
    }

    async fn until_called(&self, devices: usize, times: usize) {
        for _ in 0..1_000 {
            if self.called(times) >= devices {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{devices} called {times} times: {:?}", self.0.lock().unwrap());
    }
}

impl Runner for Away {
    async fn run(&self, device: HostId, _: Call) -> Result<CommandReply, String> {
        let calls = {
            let mut called = self.0.lock().unwrap();
            let calls = called.entry(device).or_default();
            *calls += 1;
            *calls
        };
        if calls > 1 {
            std::future::pending::<()>().await;
        }
        Err("the device is not reached".to_owned())
    }
}

#[tokio::test]
async fn devices_that_do_not_answer_keep_no_other_one_waiting() {
    let api = shop().await;
    let account = json!({ "rentable": true, "ssh_account": "renter" });
    for n in 10..30 {
        let name = format!("away-{n}");
        rentals::device(&api, &name).await;
        renting(&api, &name, account.clone()).await;
    }
    let devices = Away::default();
    let running = Running::start(&api, &devices);
    devices.until_called(20, 1).await;
    devices.until_called(8, 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(devices.called(2), 8, "the others wait");
    renting(&api, "cam-1", account).await;
    devices.until_called(13, 1).await;
    running.stop().await;
}

//! What the gateway does on devices for renters, with devices that answer as the helper does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{CommandEnd, CommandReply, MonitorInput};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::rentals::{HOUR, field, hence, must, path, rented, renting, shop, text};
use crate::api::testing::{Answer, TestApi};
use crate::rental_access::{self, Call, Parts, Runner};
use crate::store::fixture::run;

/// Devices that have done what they were called for, or fail.
#[derive(Clone, Default)]
struct Devices(Arc<Mutex<Called>>);

#[derive(Default)]
struct Called {
    calls: Vec<String>,
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
        let fails = {
            let mut called = self.0.lock().unwrap();
            called.calls.push(made.to_owned());
            called.fails
        };
        let (status, stdout) = match made.split(' ').next() {
            _ if fails.is_some_and(|fails| made.starts_with(fails)) => (3, "left: processes 7"),
            Some("status") => (0, "status account=renter mode=certificates principal=- until=- processes=0"),
            Some("grant") => (0, "granted it"),
            Some("revoke") => (0, "revoked"),
            _ => (0, "clean"),
        };
        Ok(CommandReply {
            name: String::new(),
            end: CommandEnd::Exit(status),
            stdout: format!("fleetgate-rental 1 {stdout}\n").into_bytes(),
            stderr: Vec::new(),
            truncated: false,
            took: Duration::ZERO,
        })
    }
}

/// A gateway that calls its devices, until it is stopped.
struct Running(JoinSet<()>, CancellationToken);

impl Running {
    fn start<R: Runner>(api: &TestApi, devices: &R) -> Running {
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        let (store, handle) = (api.state.store.clone(), api.state.handle.clone());
        rental_access::start(&mut tasks, Parts { store, handle, runner: devices.clone() }, stop.clone());
        Running(tasks, stop)
    }

    async fn stop(mut self) {
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
async fn begun(api: &TestApi) -> Value {
    let rental = rented(api, json!({ "device": "cam-1", "until": hence(HOUR) })).await;
    run(&api.state.store, "update rentals set ssh = 1", &[]).await;
    rental
}

async fn end(api: &TestApi, rental: &Value) {
    must(&api.operator().post(&format!("{}/end", path(rental)), json!({ "reason": "ended" })).await);
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
        super::rentals::device(&api, &name).await;
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

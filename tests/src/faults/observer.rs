//! Polls the API and records the responses with their times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use serde_json::Value;

use super::truth::Host;
use crate::lab::Api;

/// Time between two rounds of requests.
const EVERY: Duration = Duration::from_millis(400);
/// Limit for notifications and incidents of one cell; there are about ten.
const LISTED: usize = 500;

/// Milliseconds since 1970, by the clock that the gateway uses too.
pub type Millis = i64;

pub fn now() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_millis()).expect("in this age")
}

/// The API's report on one host at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Times before the request and after the response.
    pub asked: Millis,
    pub answered: Millis,
    pub host: Host,
    /// The hard state, and the last result.
    pub state: String,
    pub last_result: String,
    pub text: String,
    pub reachable: bool,
    pub last_check: Option<Millis>,
    /// When a check was requested that has not ended.
    pub check_requested: Option<Millis>,
    pub last_handshake: Option<Millis>,
    pub kind: String,
    pub candidates: Vec<String>,
    pub words: String,
    pub evidence: Vec<String>,
}

/// A notification.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedNotification {
    pub at: Millis,
    pub host: String,
    pub service: Option<String>,
    pub kind: String,
    pub state: String,
    pub outcome: String,
    pub cause: String,
}

/// The claim of an incident from this moment on.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    pub at: Millis,
    pub id: String,
    pub cause: String,
    pub text: String,
}

/// All reports in one cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Timeline {
    pub seen: Vec<Seen>,
    pub told: Vec<ObservedNotification>,
    pub incidents: Vec<Incident>,
    /// Subjects of the messages that arrived.
    pub subjects: Vec<String>,
    /// Requests that the API did not answer.
    pub failures: Vec<String>,
}

/// A running observer; it ends when dropped.
pub struct Observer {
    api: Api,
    stop: Arc<AtomicBool>,
    notes: Arc<Mutex<Timeline>>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    pub fn start(api: Api, hosts: Vec<Host>) -> Observer {
        let (stop, notes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Timeline::default())));
        let watching = (api.clone(), stop.clone(), notes.clone());
        let thread = std::thread::spawn(move || watch(&watching.0, &hosts, &watching.1, &watching.2));
        Observer { api, stop, notes, thread: Some(thread) }
    }

    /// Returns the last report on a host.
    pub fn last(&self, host: Host) -> Option<Seen> {
        let notes = self.notes.lock().expect("no panic while noting");
        notes.seen.iter().rev().find(|seen| seen.host == host).cloned()
    }

    /// Stops and returns all records.
    pub fn end(mut self, subjects: Vec<String>) -> Timeline {
        self.stop();
        let mut notes = self.notes.lock().expect("no panic while noting").clone();
        notes.subjects = subjects;
        notes.told = list(&self.api, "notifications?").iter().filter_map(told).collect();
        notes
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn watch(api: &Api, hosts: &[Host], stop: &AtomicBool, notes: &Mutex<Timeline>) {
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        for host in hosts {
            let asked = now();
            let answer = api.get(&format!("hosts/{}", host.name()));
            let mut notes = notes.lock().expect("no panic while noting");
            match answer {
                Ok(row) => notes.seen.push(seen(*host, asked, &row)),
                Err(e) => notes.failures.push(format!("{asked} {}: {e:#}", host.name())),
            }
        }
        note_incidents(api, notes);
        sleep(EVERY.saturating_sub(begin.elapsed()));
    }
}

/// Records the causes of incidents. A cause may change: a host that is down may turn out to be a
/// lost site.
fn note_incidents(api: &Api, notes: &Mutex<Timeline>) {
    let rows = list(api, "incidents?state=open&");
    let mut notes = notes.lock().expect("no panic while noting");
    for row in rows {
        let new = Incident {
            at: now(),
            id: text(&row["id"]),
            cause: text(&row["cause"]),
            text: text(&row["text"]),
        };
        let last = notes.incidents.iter().rev().find(|known| known.id == new.id);
        if last.is_none_or(|last| last.cause != new.cause) {
            notes.incidents.push(new);
        }
    }
}

fn seen(host: Host, asked: Millis, row: &Value) -> Seen {
    let (state, verdict) = (&row["state"], &row["verdict"]);
    Seen {
        asked,
        answered: now(),
        host,
        state: text(&state["state"]),
        last_result: text(&state["last_result"]),
        text: text(&state["text"]),
        reachable: state["reachable"] == true,
        last_check: time(&state["last_check"]),
        check_requested: time(&state["check_requested_at"]),
        last_handshake: time(&row["tunnel"]["last_handshake"]),
        kind: text(&verdict["kind"]),
        candidates: texts(&verdict["candidates"]),
        words: text(&verdict["text"]),
        evidence: texts(&verdict["evidence"]),
    }
}

fn told(row: &Value) -> Option<ObservedNotification> {
    Some(ObservedNotification {
        at: time(&row["at"])?,
        host: text(&row["host"]),
        service: row["service"].as_str().map(str::to_owned),
        kind: text(&row["type"]),
        state: text(&row["state"]),
        outcome: text(&row["outcome"]),
        cause: text(&row["cause"]),
    })
}

/// Lists rows in order of time. `what` ends where one more parameter follows.
fn list(api: &Api, what: &str) -> Vec<Value> {
    let page = api.get(&format!("{what}limit={LISTED}")).unwrap_or_default();
    page["items"].as_array().cloned().unwrap_or_default().into_iter().rev().collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn time(value: &Value) -> Option<Millis> {
    let at: Timestamp = value.as_str()?.parse().ok()?;
    Some(at.as_millisecond())
}

//! Server-sent events: a snapshot first, then changes. Changes are gathered briefly and rendered
//! once for all listeners.
//!
//! | event | data |
//! |---|---|
//! | `snapshot` | `{"overview": Overview}`: load the lists now |
//! | `host` | a `Host` as in the list, after a change of its state, of a service or of its tunnel |
//! | `checked` | news without a change of state: `{"last_check", "hosts": [CHECKED]}`, see below |
//! | `host_removed` | `{"id"}` |
//! | `overview` | an `Overview` |
//! | `event` | an `Event`; viewers get none about people and their access |
//! | `enrolment` | `{"id"}` |
//! | `reload` | there were too many changes: connect again. The stream ends |
//!
//! `checked` has the time of the newest check, and each host with a new result of its own or of a
//! service, or with a new packet: `{"id", "last_check", "next_check", "tunnel"}`. A field other
//! than `id` is present only if it is known and may have changed.
//!
//! Without listeners, no work is done. A caller whose login ends is cut off within half a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_stream::stream;
use axum::extract::State;
use axum::http::request::Parts;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use fleetgate_engine::id::{HostId, Id};
use fleetgate_engine::messages::PeerStatus;
use fleetgate_engine::time::{Mono, Wall};
use futures_util::Stream;
use serde::Serialize;
use serde_json::json;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::overview::summary;
use super::request::auth::Principal;
use super::request::ids::{self, IdKind};
use super::request::permission;
use super::response::problem::Problem;
use super::{AppState, events, hosts};
use crate::clock;
use crate::engine::live_state::Change;
use crate::store::events::{EventFilter, EventRow, Span, Topic};
use crate::store::hosts as rows;

/// The time that changes gather before they are sent. A person sees no faster.
const TICK: Duration = Duration::from_millis(250);
/// Hosts rendered in one tick, at some 50 us each. The rest follow in the next one.
const HOSTS_A_TICK: usize = 500;
/// Hosts read by one statement.
const HOSTS_AT_ONCE: usize = 100;
/// The longest queue of hosts. Beyond it, reloading the list is faster.
const MAX_WAITING: usize = 5_000;
const EVENTS_A_TICK: i64 = 200;
/// The part of the time that counting may take, as a divisor. The counters of a large fleet follow
/// more slowly.
const COUNTING_SHARE: u32 = 100;
/// Ticks that a slow reader may lag behind, a quarter of a minute.
const BACKLOG: usize = 64;
/// Open streams. Each is a dashboard.
const MAX_STREAMS: usize = 256;
/// Open streams of one user or token. One wall of screens must not use up the limit for all.
const MAX_STREAMS_OF_ONE: usize = 32;
/// Proxies close connections that are silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The time that a stream may outlive the login that opened it.
const STILL_ALLOWED: Duration = Duration::from_secs(30);

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(listen))
}

/// One rendered event.
#[derive(Clone, Debug)]
struct Frame {
    name: &'static str,
    data: String,
    /// What an event about people and their access says, which not all callers get.
    topic: Option<Topic>,
}

impl Frame {
    fn new(name: &'static str, data: &impl Serialize) -> Frame {
        let data = serde_json::to_string(data).expect("types of the API are JSON");
        Frame { name, data, topic: None }
    }

    fn of_event(row: EventRow) -> Frame {
        let topic = Topic::of(&row.kind);
        Frame { topic, ..Frame::new("event", &events::event(row)) }
    }

    fn is_about(&self, topics: &[Topic]) -> bool {
        self.topic.is_some_and(|topic| topics.contains(&topic))
    }
}

/// The events of one tick. `None` means too many: the client must reload.
type Tick = Option<Arc<Vec<Frame>>>;

/// Renders changes once for all streams.
pub(super) struct Hub {
    ticks: broadcast::Sender<Tick>,
    running: AtomicBool,
    listeners: Listeners,
}

/// The number of open streams of each user or token. Cheap to clone.
#[derive(Clone, Default)]
struct Listeners(Arc<Mutex<BTreeMap<String, usize>>>);

/// An open stream, which is counted until it is dropped.
struct Listener {
    all: Listeners,
    who: String,
}

impl Listeners {
    /// Counts a stream. Returns `None` if the user or token has reached its limit.
    fn enter(&self, who: String) -> Option<Listener> {
        let mut open = self.open();
        let count = open.get(&who).copied().unwrap_or_default();
        if count >= MAX_STREAMS_OF_ONE {
            return None;
        }
        open.insert(who.clone(), count + 1);
        drop(open);
        Some(Listener { all: self.clone(), who })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().expect("no holder panics")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut open = self.all.open();
        match open.get(&self.who).copied().unwrap_or_default() {
            0 | 1 => drop(open.remove(&self.who)),
            count => drop(open.insert(self.who.clone(), count - 1)),
        }
    }
}

impl Default for Hub {
    fn default() -> Self {
        Hub {
            ticks: broadcast::channel(BACKLOG).0,
            running: AtomicBool::new(false),
            listeners: Listeners::default(),
        }
    }
}

impl Hub {
    fn subscribe(&self, app: &AppState) -> broadcast::Receiver<Tick> {
        let ticks = self.ticks.subscribe();
        if !self.running.swap(true, Ordering::SeqCst) {
            let changes = app.live.listen();
            tokio::spawn(run(app.clone(), changes));
        }
        ticks
    }

    /// Whether the work can end because there is no listener. A listener that arrives meanwhile is
    /// either seen here or starts the work again.
    fn leave(&self) -> bool {
        if self.ticks.receiver_count() > 0 {
            return false;
        }
        self.running.store(false, Ordering::SeqCst);
        self.ticks.receiver_count() == 0 || self.running.swap(true, Ordering::SeqCst)
    }
}

/// The changed values of a host other than its state, as they are sent.
#[derive(Clone, Debug, Default, Serialize)]
struct Checked {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_check: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Figures>,
}

#[derive(Clone, Debug, Serialize)]
struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    last_packet: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_handshake: Option<String>,
    rx_bytes: u64,
    tx_bytes: u64,
    handshakes: u64,
}

impl Figures {
    fn of(status: &PeerStatus) -> Figures {
        Figures {
            last_packet: status.last_packet.map(ids::time),
            last_handshake: status.last_handshake.map(ids::time),
            rx_bytes: status.rx_bytes,
            tx_bytes: status.tx_bytes,
            handshakes: status.handshakes,
        }
    }
}

/// The changes by a check or packet: the times of a check, and whether the tunnel's figures have
/// changed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Routine {
    last_check: Option<Wall>,
    next_check: Option<Wall>,
    traffic: bool,
}

/// Changes that are not rendered yet.
#[derive(Default)]
struct Changes {
    hosts: BTreeSet<HostId>,
    checked: BTreeMap<HostId, Routine>,
    removed: BTreeSet<HostId>,
    enrolments: BTreeSet<i64>,
    /// Whether the counters may have changed.
    overview: bool,
    /// The earliest time for the next counters.
    next_overview: Mono,
    events: bool,
    lost: bool,
}

impl Changes {
    fn note(&mut self, change: Change) {
        self.overview |= change.moves_summary();
        match change {
            Change::Host(id) | Change::Peer(id) => drop(self.hosts.insert(id)),
            Change::Traffic(id) => self.checked.entry(id).or_default().traffic = true,
            Change::Checked { host, last_check, next_check } => {
                let routine = self.checked.entry(host).or_default();
                routine.last_check = last_check.or(routine.last_check);
                routine.next_check = next_check.or(routine.next_check);
            }
            Change::HostRemoved(id) => {
                self.hosts.remove(&id);
                self.checked.remove(&id);
                self.removed.insert(id);
            }
            Change::Problems => {}
            Change::Event(_) => self.events = true,
            Change::Enrolment(id) => drop(self.enrolments.insert(id)),
        }
        self.lost |= self.hosts.len() > MAX_WAITING;
    }

    fn is_empty(&self) -> bool {
        let quiet = !(self.overview || self.events || self.lost);
        let hosts = self.hosts.is_empty() && self.checked.is_empty() && self.removed.is_empty();
        quiet && hosts && self.enrolments.is_empty()
    }
}

async fn run(app: AppState, mut changes: broadcast::Receiver<Change>) {
    let mut waiting = Changes::default();
    let mut last_event = app.store.last_event().await.unwrap_or_default();
    while !app.shutdown.is_cancelled() {
        gather(&app, &mut changes, &mut waiting).await;
        if app.hub().leave() {
            return;
        }
        let tick = render_tick(&app, &mut waiting, &mut last_event).await;
        if tick.as_ref().is_none_or(|frames| !frames.is_empty()) {
            // The next round detects that the last listener has gone.
            let _ = app.hub().ticks.send(tick);
        }
    }
}

/// Waits for the first change and then for one more tick.
async fn gather(app: &AppState, changes: &mut broadcast::Receiver<Change>, waiting: &mut Changes) {
    let idle = if waiting.is_empty() { STILL_ALLOWED } else { TICK };
    let mut over = Box::pin(tokio::time::sleep(idle));
    let mut first = waiting.is_empty();
    loop {
        tokio::select! {
            () = &mut over => return,
            () = app.shutdown.cancelled() => return,
            change = changes.recv() => match change {
                Ok(change) => waiting.note(change),
                Err(RecvError::Lagged(_)) => waiting.lost = true,
                Err(RecvError::Closed) => return,
            },
        }
        if first {
            over = Box::pin(tokio::time::sleep(TICK));
            first = false;
        }
    }
}

async fn render_tick(app: &AppState, waiting: &mut Changes, last_event: &mut i64) -> Tick {
    if waiting.lost {
        *waiting = Changes::default();
        *last_event = app.store.last_event().await.unwrap_or(*last_event);
        return None;
    }
    match try_render(app, waiting, last_event).await {
        Ok(frames) => Some(Arc::new(frames)),
        Err(error) => {
            tracing::warn!("the dashboards are told to load again: {error:?}");
            *waiting = Changes::default();
            None
        }
    }
}

async fn try_render(
    app: &AppState,
    waiting: &mut Changes,
    last_event: &mut i64,
) -> Result<Vec<Frame>, Problem> {
    let mut frames = Vec::new();
    let removed = |id: HostId| Frame::new("host_removed", &json!({ "id": IdKind::Host.text(id) }));
    frames.extend(std::mem::take(&mut waiting.removed).into_iter().map(removed));
    frames.extend(host_frames(app, waiting).await?);
    frames.extend(checked_frame(app, waiting));
    let enrolment = |id| Frame::new("enrolment", &json!({ "id": IdKind::Enrolment.text(Id::from_i64(id)) }));
    frames.extend(std::mem::take(&mut waiting.enrolments).into_iter().map(enrolment));
    if std::mem::take(&mut waiting.events) {
        let new = app.store.events(Span::Since(*last_event), &EventFilter::default(), EVENTS_A_TICK).await?;
        waiting.events = new.len() as i64 == EVENTS_A_TICK;
        *last_event = new.last().map_or(*last_event, |e| e.seq);
        frames.extend(new.into_iter().map(Frame::of_event));
    }
    frames.extend(overview_frame(app, waiting).await?);
    Ok(frames)
}

async fn overview_frame(app: &AppState, waiting: &mut Changes) -> Result<Option<Frame>, Problem> {
    if !waiting.overview || clock::now().mono < waiting.next_overview {
        return Ok(None);
    }
    // Later changes belong to the next one.
    waiting.overview = false;
    let summary = app.summary().await?;
    waiting.next_overview = clock::now().mono + (summary.took * COUNTING_SHARE).min(summary::KEPT);
    Ok(Some(Frame::new("overview", &summary.overview)))
}

/// Renders hosts. A peer that is no host and a host removed meanwhile produce nothing.
async fn host_frames(app: &AppState, waiting: &mut Changes) -> crate::store::Result<Vec<Frame>> {
    let due: Vec<HostId> = std::iter::from_fn(|| waiting.hosts.pop_first()).take(HOSTS_A_TICK).collect();
    let (mut conn, mut frames) = (app.store.reader().await?, Vec::new());
    for ids in due.chunks(HOSTS_AT_ONCE) {
        waiting.checked.retain(|id, _| !ids.contains(id));
        let rows = rows::by_ids(&mut conn, ids).await?;
        frames.extend(rows.into_iter().map(|row| Frame::new("host", &hosts::to_api(app, row))));
    }
    Ok(frames)
}

/// Renders changes from memory alone. Hosts whose row is still to come are included.
fn checked_frame(app: &AppState, waiting: &mut Changes) -> Option<Frame> {
    let checked = |(id, routine): (HostId, Routine)| Checked {
        id: IdKind::Host.text(id),
        last_check: routine.last_check.map(ids::time),
        next_check: routine.next_check.map(ids::time),
        tunnel: app.live.peer(id).filter(|_| routine.traffic).as_ref().map(Figures::of),
    };
    let list: Vec<Checked> = std::mem::take(&mut waiting.checked).into_iter().map(checked).collect();
    let newest = app.live.last_check().map(ids::time);
    (!list.is_empty()).then(|| Frame::new("checked", &json!({ "last_check": newest, "hosts": list })))
}

/// Changes as they happen, as server-sent events.
#[utoipa::path(get, path = "/stream", operation_id = "stream", tag = "monitoring",
    security(("token" = ["monitoring:viewer"])),
    responses((status = 200, content_type = "text/event-stream", body = String,
        description = "`snapshot`, then `host`, `checked`, `host_removed`, `overview`, `event`, `enrolment`, `reload`")))]
async fn listen(
    State(app): State<AppState>,
    who: Principal,
    parts: Parts,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    if app.hub().ticks.receiver_count() >= MAX_STREAMS {
        return Err(Problem::too_many("too many streams are open: close a dashboard", 60));
    }
    let listener = app.hub().listeners.enter(who.to_string()).ok_or_else(|| {
        let detail =
            format!("{who} has {MAX_STREAMS_OF_ONE} streams open, which is the limit: close a dashboard");
        Problem::too_many(detail, 60)
    })?;
    // Subscribe before reading the snapshot. Changes in between may arrive twice, but none is lost.
    let ticks = app.hub().subscribe(&app);
    let snapshot = Frame::new("snapshot", &json!({ "overview": app.summary().await?.overview }));
    let events = follow(app, parts, listener, snapshot, ticks);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn follow(
    app: AppState,
    mut parts: Parts,
    listener: Listener,
    snapshot: Frame,
    mut ticks: broadcast::Receiver<Tick>,
) -> impl Stream<Item = Result<Event, Infallible>> {
    stream! {
        let _listener = listener;
        yield sent(&snapshot);
        let mut asked = Box::pin(tokio::time::sleep(STILL_ALLOWED));
        loop {
            tokio::select! {
                () = app.shutdown.cancelled() => return,
                () = &mut asked => {
                    if permission::again(&app, &mut parts).await.is_err() {
                        return;
                    }
                    asked = Box::pin(tokio::time::sleep(STILL_ALLOWED));
                }
                tick = ticks.recv() => {
                    let Ok(Some(frames)) = tick else {
                        yield sent(&Frame::new("reload", &json!({})));
                        return;
                    };
                    let hidden = hidden_from(&parts);
                    for frame in frames.iter().filter(|frame| !frame.is_about(&hidden)) {
                        yield sent(frame);
                    }
                }
            }
        }
    }
}

/// The topics of which the caller, with the role of now, gets no events.
fn hidden_from(parts: &Parts) -> Vec<Topic> {
    parts.extensions.get::<Principal>().map_or_else(|| Topic::ALL.to_vec(), events::hidden_from)
}

fn sent(frame: &Frame) -> Result<Event, Infallible> {
    Ok(Event::default().event(frame.name).data(&frame.data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_cannot_take_the_streams_of_all() {
        let listeners = Listeners::default();
        let enter = |who: &str| listeners.enter(who.to_owned());
        let mut open: Vec<Listener> = (0..MAX_STREAMS_OF_ONE).map(|_| enter("user:ada").unwrap()).collect();
        assert!(enter("user:ada").is_none());
        assert!(enter("user:bob").is_some(), "another has a share of its own");
        open.pop();
        let again = enter("user:ada");
        assert!(again.is_some() && enter("user:ada").is_none());
        drop((open, again));
        assert!(listeners.open().is_empty());
    }

    #[test]
    fn changes_of_one_host_gather_and_a_removal_wins() {
        let (a, b) = (Id::from_i64(1), Id::from_i64(2));
        let mut changes = Changes::default();
        for change in [Change::Host(a), Change::Peer(a), Change::Host(b), Change::HostRemoved(b)] {
            changes.note(change);
        }
        assert_eq!((changes.hosts, changes.removed), (BTreeSet::from([a]), BTreeSet::from([b])));
        assert!(changes.overview && !changes.lost);
    }

    #[test]
    fn figures_and_checks_that_change_no_state_leave_the_strip_and_the_rows_alone() {
        let mut changes = Changes::default();
        let id = Id::from_i64(1);
        changes.note(Change::Peer(id));
        assert!(!changes.overview && changes.hosts.contains(&id));
        let mut changes = Changes::default();
        let at = |seconds: i64| Some(Wall::from_millis(seconds * 1_000));
        changes.note(Change::Checked { host: id, last_check: at(1), next_check: at(61) });
        changes.note(Change::Traffic(id));
        changes.note(Change::Checked { host: id, last_check: None, next_check: None });
        assert!(!changes.overview && changes.hosts.is_empty() && !changes.is_empty());
        let routine = Routine { last_check: at(1), next_check: at(61), traffic: true };
        assert_eq!(changes.checked, BTreeMap::from([(id, routine)]));
    }

    #[test]
    fn too_many_changes_mean_loading_again() {
        let mut changes = Changes::default();
        for n in 0..=MAX_WAITING as i64 {
            changes.note(Change::Host(Id::from_i64(n)));
        }
        assert!(changes.lost);
    }
}

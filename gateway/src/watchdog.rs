//! The gateway's own heartbeat: a ping to an external monitor, and systemd's watchdog. Both stop when
//! the scheduler, the store, the router or the outbox hangs.
//!
//! A component that has finished no round for a while is asked for one. If it does not finish one in
//! time, it counts as hung: the heartbeat stops, and `/healthz` names the component. When in doubt, the
//! heartbeat stops: the external monitor then alerts the operator.

use std::time::Duration;

use fleetgate_engine::time::Mono;
use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::HeartbeatTarget;
use crate::engine::handle::Handle;
use crate::health::progress::{Component, Progress};
use crate::notification::{Settings, Wakeups, webhook};
use crate::writer::Writer;

/// Interval between two examinations when there is neither a ping nor a watchdog: `/healthz` alone
/// reads the result.
const LOOK: Duration = Duration::from_secs(30);
/// Time within which a component finishes the round it was asked for. A commit on a slow disk takes a
/// second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Timeout of one ping.
const PING_PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(50);

/// Handles to the components that are asked for a round.
pub struct Components {
    pub pulse: Progress,
    pub handle: Handle,
    pub writer: Writer,
    pub wakeups: Wakeups,
}

pub fn start(
    tasks: &mut JoinSet<()>,
    components: Components,
    settings: watch::Receiver<Settings>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let http = webhook::http(PING_PATIENCE, &settings.borrow().outbound)?;
    let watchdog = sd_notify::watchdog_enabled();
    tasks.spawn(Watchdog { components, settings, http, watchdog, pings: JoinSet::new() }.run(stop));
    Ok(())
}

struct Watchdog {
    components: Components,
    settings: watch::Receiver<Settings>,
    http: reqwest::Client,
    watchdog: Option<Duration>,
    /// At most one: a receiver that does not reply must not keep the watchdog from being fed.
    pings: JoinSet<()>,
}

impl Watchdog {
    async fn run(mut self, stop: CancellationToken) {
        let mut pinged = None;
        while !stop.is_cancelled() {
            let target = self.settings.borrow_and_update().heartbeat.clone();
            let every = self.every(target.as_ref());
            let begin = clock::now().mono;
            if self.examine(every).await {
                self.beat(target.as_ref(), &mut pinged);
            }
            let rest = every.saturating_sub(clock::now().mono.since(begin));
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                changed = self.settings.changed() => if changed.is_err() { return },
                () = stop.cancelled() => {}
            }
        }
    }

    /// Half of the watchdog's timeout, but at least as often as the ping is due.
    fn every(&self, target: Option<&HeartbeatTarget>) -> Duration {
        let watchdog = self.watchdog.map_or(LOOK, |w| w / 2);
        watchdog.min(LOOK).min(target.map_or(LOOK, |t| t.interval))
    }

    /// Whether every component finished a round lately, or finishes one when asked for it.
    async fn examine(&self, every: Duration) -> bool {
        let now = clock::now().mono;
        let still: Vec<Component> = self.standing(now - every);
        still.iter().for_each(|component| self.ask(*component));
        let patience = PATIENCE.min(every);
        let mut hung = still;
        while !hung.is_empty() && clock::now().mono.since(now) < patience {
            tokio::time::sleep(GLANCE).await;
            hung.retain(|component| self.components.pulse.last(*component) < now);
        }
        self.report(&hung);
        hung.is_empty()
    }

    fn standing(&self, since: Mono) -> Vec<Component> {
        Component::ALL
            .into_iter()
            .filter(|component| self.components.pulse.last(*component) <= since)
            .collect()
    }

    fn ask(&self, component: Component) {
        match component {
            Component::Scheduler => self.components.handle.nudge(),
            Component::Store => self.components.writer.nudge(),
            Component::Router => self.components.wakeups.notices(),
            Component::Outbox => self.components.wakeups.messages(),
        }
    }

    fn report(&self, hung: &[Component]) {
        if !self.components.pulse.found(hung) {
            return;
        }
        let names: Vec<&str> = hung.iter().map(|o| o.name()).collect();
        if names.is_empty() {
            tracing::info!("everything goes round again; the heartbeat goes on");
        } else {
            tracing::error!("hangs: {}; the heartbeat stops until it goes round again", names.join(", "));
        }
    }

    fn beat(&mut self, target: Option<&HeartbeatTarget>, pinged: &mut Option<Mono>) {
        if self.watchdog.is_some() {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
        let Some(target) = target else { return };
        let now = clock::now().mono;
        // Slightly early is better than a whole round late.
        let due = pinged.is_none_or(|last| now.since(last) + GLANCE * 10 >= target.interval);
        while self.pings.try_join_next().is_some() {}
        if due && self.pings.is_empty() {
            *pinged = Some(now);
            let asked = self.http.get(target.url.reveal()).send();
            self.pings.spawn(async { note(asked.await.and_then(reqwest::Response::error_for_status)) });
        }
    }
}

/// Omits the URL from the log, because it is a secret.
fn note(answer: reqwest::Result<reqwest::Response>) {
    let outcome = match answer {
        Ok(_) => "sent",
        Err(error) => {
            tracing::warn!("the heartbeat's ping was not taken: {}", error.without_url());
            "failed"
        }
    };
    metrics::counter!("fleetgate_heartbeat_pings_total", "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use crate::outbound::Outbound;
    use std::sync::{Arc, Mutex};

    use fleetgate_engine::messages::DEFAULT_MTU;
    use tokio::sync::mpsc;

    use super::*;
    use crate::engine::live_state::LiveState;
    use crate::history::{Keep, Recorder};
    use crate::notification::test_sink::{HookSink, Manner};
    use crate::store::{Store, fixture};

    /// A heartbeat with a real writer; the test drives the other components.
    struct Body {
        pulse: Progress,
        store: Store,
        sink: HookSink,
        /// The component that hangs.
        still: Arc<Mutex<Option<Component>>>,
        _dir: tempfile::TempDir,
        _tunnel: mpsc::Receiver<fleetgate_engine::messages::Command>,
        _settings: watch::Sender<Settings>,
        _tasks: JoinSet<()>,
    }

    const INTERVAL: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_millis(800);

    async fn body(manners: &[Manner]) -> Body {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, dir) = fixture::store().await;
        let (mut tasks, live) = (JoinSet::new(), LiveState::default());
        let (to_tunnel, tunnel) = mpsc::channel(4);
        let (to_monitor, mut monitor) = mpsc::channel(4);
        let handle =
            Handle::new(store.clone(), live.clone(), (fixture::TIMING, DEFAULT_MTU), to_tunnel, to_monitor);
        let (pulse, wakeups) = (live.pulse().clone(), Wakeups::default());
        let history = Recorder::open(store.clone(), Keep::ALL).await.unwrap();
        let writer = Writer::start(&mut tasks, store.clone(), live, wakeups.clone(), history);
        let still = Arc::new(Mutex::new(None));
        let (beats, stands) = (pulse.clone(), still.clone());
        tasks.spawn(async move {
            loop {
                while monitor.try_recv().is_ok() {}
                let goes = |component: &Component| Some(*component) != *stands.lock().unwrap();
                let by_hand = [Component::Scheduler, Component::Router, Component::Outbox];
                by_hand.into_iter().filter(goes).for_each(|component| beats.beat(component));
                tokio::time::sleep(INTERVAL / 10).await;
            }
        });
        let sink = HookSink::start(manners).await;
        let target = HeartbeatTarget { url: sink.url().into(), interval: INTERVAL };
        let quiet = Settings {
            mail: None,
            public_url: None,
            group_wait: Duration::ZERO,
            digest: None,
            heartbeat: Some(target),
            outbound: Outbound::default(),
            timing: fixture::TIMING,
        };
        let (settings, listener) = watch::channel(quiet);
        let components = Components { pulse: pulse.clone(), handle, writer, wakeups };
        let http = webhook::http(PING_PATIENCE, &Outbound::default()).unwrap();
        let watchdog =
            Watchdog { components, settings: listener, http, watchdog: None, pings: JoinSet::new() };
        tasks.spawn(watchdog.run(CancellationToken::new()));
        Body { pulse, store, sink, still, _dir: dir, _tunnel: tunnel, _settings: settings, _tasks: tasks }
    }

    /// Asserts that pings arrive while everything runs, that none follows once `component` hangs, and that they
    /// resume afterwards.
    async fn stops_with(component: Component) {
        let body = body(&[Manner::Answer(200)]).await;
        body.sink.wait_for(2).await;
        assert!(Component::ALL.iter().all(|o| !body.pulse.hangs(*o)));

        *body.still.lock().unwrap() = Some(component);
        // An open write transaction makes the store hang.
        let tx = if component == Component::Store { Some(body.store.begin().await.unwrap()) } else { None };
        tokio::time::sleep(LONG).await;
        let silent = body.sink.calls().len();
        let hung: Vec<Component> = Component::ALL.into_iter().filter(|o| body.pulse.hangs(*o)).collect();
        assert_eq!(hung, [component]);
        tokio::time::sleep(LONG).await;
        assert_eq!(body.sink.calls().len(), silent, "nothing is heard any more");

        drop(tx);
        *body.still.lock().unwrap() = None;
        body.sink.wait_for(silent + 2).await;
        assert!(!body.pulse.hangs(component));
    }

    #[tokio::test]
    async fn the_heartbeat_stops_with_the_scheduler() {
        stops_with(Component::Scheduler).await;
    }

    #[tokio::test]
    async fn the_heartbeat_stops_with_the_store() {
        stops_with(Component::Store).await;
    }

    #[tokio::test]
    async fn the_heartbeat_stops_with_the_router() {
        stops_with(Component::Router).await;
    }

    #[tokio::test]
    async fn the_heartbeat_stops_with_the_outbox() {
        stops_with(Component::Outbox).await;
    }

    #[tokio::test]
    async fn an_unanswered_heartbeat_delays_nothing() {
        let body = body(&[Manner::Hang]).await;
        body.sink.wait_for(1).await;
        let before = body.pulse.last(Component::Store);
        tokio::time::sleep(LONG).await;
        assert!(body.pulse.last(Component::Store) > before, "it looks after the components meanwhile");
        assert_eq!(body.sink.calls().len(), 1, "one ping at a time");
    }
}

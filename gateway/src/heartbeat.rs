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
use crate::handle::Handle;
use crate::notify::{Bell, Settings, webhook};
use crate::pulse::{Organ, Pulse};
use crate::secret_url::SecretUrl;
use crate::writer::Writer;

/// Interval between two examinations when there is neither a ping nor a watchdog: `/healthz` alone
/// reads the result.
const LOOK: Duration = Duration::from_secs(30);
/// Time within which a component finishes the round it was asked for. A commit on a slow disk takes a
/// second.
const PATIENCE: Duration = Duration::from_secs(10);
/// The shortest interval that the settings may give: more frequent pings would flood the receiver.
pub const SHORTEST: Duration = Duration::from_secs(5);
/// Timeout of one ping.
const PING_PATIENCE: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(50);

/// The address and the interval of the ping.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: SecretUrl,
    pub interval: Duration,
}

/// Handles to the components that are asked for a round.
pub struct Organs {
    pub pulse: Pulse,
    pub handle: Handle,
    pub writer: Writer,
    pub bell: Bell,
}

pub fn start(
    tasks: &mut JoinSet<()>,
    organs: Organs,
    settings: watch::Receiver<Settings>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let http = webhook::http(PING_PATIENCE, &settings.borrow().outbound)?;
    let watchdog = sd_notify::watchdog_enabled();
    tasks.spawn(Heart { organs, settings, http, watchdog, pings: JoinSet::new() }.run(stop));
    Ok(())
}

struct Heart {
    organs: Organs,
    settings: watch::Receiver<Settings>,
    http: reqwest::Client,
    watchdog: Option<Duration>,
    /// At most one: a receiver that does not reply must not keep the watchdog from being fed.
    pings: JoinSet<()>,
}

impl Heart {
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
    fn every(&self, target: Option<&Target>) -> Duration {
        let watchdog = self.watchdog.map_or(LOOK, |w| w / 2);
        watchdog.min(LOOK).min(target.map_or(LOOK, |t| t.interval))
    }

    /// Whether every component finished a round lately, or finishes one when asked for it.
    async fn examine(&self, every: Duration) -> bool {
        let now = clock::now().mono;
        let still: Vec<Organ> = self.standing(now - every);
        still.iter().for_each(|organ| self.ask(*organ));
        let patience = PATIENCE.min(every);
        let mut hung = still;
        while !hung.is_empty() && clock::now().mono.since(now) < patience {
            tokio::time::sleep(GLANCE).await;
            hung.retain(|organ| self.organs.pulse.last(*organ) < now);
        }
        self.report(&hung);
        hung.is_empty()
    }

    fn standing(&self, since: Mono) -> Vec<Organ> {
        Organ::ALL.into_iter().filter(|organ| self.organs.pulse.last(*organ) <= since).collect()
    }

    fn ask(&self, organ: Organ) {
        match organ {
            Organ::Scheduler => self.organs.handle.nudge(),
            Organ::Store => self.organs.writer.nudge(),
            Organ::Router => self.organs.bell.notices(),
            Organ::Outbox => self.organs.bell.messages(),
        }
    }

    fn report(&self, hung: &[Organ]) {
        if !self.organs.pulse.found(hung) {
            return;
        }
        let names: Vec<&str> = hung.iter().map(|o| o.name()).collect();
        if names.is_empty() {
            tracing::info!("everything goes round again; the heartbeat goes on");
        } else {
            tracing::error!("hangs: {}; the heartbeat stops until it goes round again", names.join(", "));
        }
    }

    fn beat(&mut self, target: Option<&Target>, pinged: &mut Option<Mono>) {
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

    use tokio::sync::mpsc;

    use super::*;
    use crate::live::Live;
    use crate::notify::sink::{HookSink, Manner};
    use crate::store::{Store, fixture};

    /// A heartbeat with a real writer; the test drives the other components.
    struct Body {
        pulse: Pulse,
        store: Store,
        sink: HookSink,
        /// The component that hangs.
        still: Arc<Mutex<Option<Organ>>>,
        _dir: tempfile::TempDir,
        _tunnel: mpsc::Receiver<fleetgate_engine::wire::Command>,
        _settings: watch::Sender<Settings>,
        _tasks: JoinSet<()>,
    }

    const INTERVAL: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_millis(800);

    async fn body(manners: &[Manner]) -> Body {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (store, dir) = fixture::store().await;
        let (mut tasks, live) = (JoinSet::new(), Live::default());
        let (to_tunnel, tunnel) = mpsc::channel(4);
        let (to_monitor, mut monitor) = mpsc::channel(4);
        let handle = Handle::new(store.clone(), live.clone(), fixture::TIMING, to_tunnel, to_monitor);
        let (pulse, bell) = (live.pulse().clone(), Bell::default());
        let writer =
            Writer::start(&mut tasks, store.clone(), live, bell.clone(), Duration::from_secs(86_400));
        let still = Arc::new(Mutex::new(None));
        let (beats, stands) = (pulse.clone(), still.clone());
        tasks.spawn(async move {
            loop {
                while monitor.try_recv().is_ok() {}
                let goes = |organ: &Organ| Some(*organ) != *stands.lock().unwrap();
                let by_hand = [Organ::Scheduler, Organ::Router, Organ::Outbox];
                by_hand.into_iter().filter(goes).for_each(|organ| beats.beat(organ));
                tokio::time::sleep(INTERVAL / 10).await;
            }
        });
        let sink = HookSink::start(manners).await;
        let target = Target { url: sink.url().into(), interval: INTERVAL };
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
        let organs = Organs { pulse: pulse.clone(), handle, writer, bell };
        let http = webhook::http(PING_PATIENCE, &Outbound::default()).unwrap();
        let heart = Heart { organs, settings: listener, http, watchdog: None, pings: JoinSet::new() };
        tasks.spawn(heart.run(CancellationToken::new()));
        Body { pulse, store, sink, still, _dir: dir, _tunnel: tunnel, _settings: settings, _tasks: tasks }
    }

    /// Asserts that pings arrive while everything runs, that none follows once `organ` hangs, and that they
    /// resume afterwards.
    async fn stops_with(organ: Organ) {
        let body = body(&[Manner::Answer(200)]).await;
        body.sink.wait_for(2).await;
        assert!(Organ::ALL.iter().all(|o| !body.pulse.hangs(*o)));

        *body.still.lock().unwrap() = Some(organ);
        // An open write transaction makes the store hang.
        let tx = if organ == Organ::Store { Some(body.store.begin().await.unwrap()) } else { None };
        tokio::time::sleep(LONG).await;
        let silent = body.sink.calls().len();
        let hung: Vec<Organ> = Organ::ALL.into_iter().filter(|o| body.pulse.hangs(*o)).collect();
        assert_eq!(hung, [organ]);
        tokio::time::sleep(LONG).await;
        assert_eq!(body.sink.calls().len(), silent, "nothing is heard any more");

        drop(tx);
        *body.still.lock().unwrap() = None;
        body.sink.wait_for(silent + 2).await;
        assert!(!body.pulse.hangs(organ));
    }

    #[tokio::test]
    async fn the_heart_stops_with_the_scheduler() {
        stops_with(Organ::Scheduler).await;
    }

    #[tokio::test]
    async fn the_heart_stops_with_the_store() {
        stops_with(Organ::Store).await;
    }

    #[tokio::test]
    async fn the_heart_stops_with_the_router() {
        stops_with(Organ::Router).await;
    }

    #[tokio::test]
    async fn the_heart_stops_with_the_outbox() {
        stops_with(Organ::Outbox).await;
    }

    #[tokio::test]
    async fn a_ping_that_nobody_takes_holds_up_nothing() {
        let body = body(&[Manner::Hang]).await;
        body.sink.wait_for(1).await;
        let before = body.pulse.last(Organ::Store);
        tokio::time::sleep(LONG).await;
        assert!(body.pulse.last(Organ::Store) > before, "it looks after the organs meanwhile");
        assert_eq!(body.sink.calls().len(), 1, "one ping at a time");
    }
}

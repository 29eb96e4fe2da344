//! From the monitor's notifications to the messages that contacts receive.
//!
//! ```text
//! writer ─▶ notices ─▶ dispatcher (the router, and a copy of its memory) ─▶ outbox ─▶ delivery ─▶ mail, webhook
//! ```
//!
//! Everything between two arrows is in the database, written in one transaction with its cause: a kill
//! at any moment repeats one step at most. The dispatcher only executes the decisions of the engine's router.
//! The delivery only decides when to retry. The texts are in `reason_text`,
//! `incident_text`, `mail/render` and `webhook`.

mod delivery;
mod dispatcher;
mod gateway_message;
pub mod incident_text;
pub mod mail;
pub mod reason_text;
mod routing;
mod rule_trace;
#[cfg(test)]
pub(crate) mod test_sink;
pub mod webhook;

use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Time;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use delivery::DeliveryTiming;
pub use delivery::Failure;
pub use delivery::doubled;
pub use gateway_message::gateway_message;
pub use routing::BUILT_IN_NAME;

use crate::config::{Config, HeartbeatTarget, MailConfig};
use crate::engine::live_state::LiveState;
use crate::history::Recorder;
use crate::notification::mail::smtp::Smtp;
use crate::outbound::Outbound;
use crate::store::Store;
use crate::store::TimingDefaults;
use delivery::DeliveryWorker;
use dispatcher::Dispatcher;

/// Returns the router's contacts and rules as text.
#[cfg(test)]
pub(crate) async fn heard(store: &Store, config: &Config) -> String {
    let mut conn = store.reader().await.expect("a connection");
    format!("{:?}", routing::load(&mut conn, &Settings::from(config)).await.expect("rows"))
}

/// The settings of notifications. They may change while the gateway runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub mail: Option<MailConfig>,
    pub public_url: Option<String>,
    pub group_wait: Duration,
    /// Digest time of the built-in contact, in the machine's time zone.
    pub digest: Option<Time>,
    pub heartbeat: Option<HeartbeatTarget>,
    /// The rule for addresses of webhooks and the heartbeat; read at the start.
    pub outbound: Outbound,
    /// Timing of checks for hosts without their own.
    pub timing: TimingDefaults,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Settings {
            mail: config.mail.clone(),
            public_url: config.public_url.as_ref().map(ToString::to_string),
            group_wait: config.group_wait,
            digest: config.digest,
            heartbeat: config.heartbeat.clone(),
            outbound: config.outbound.clone(),
            timing: config.timing,
        }
    }
}

/// Wakes the tasks that have work. Cheap to clone; without a listener it has no effect.
#[derive(Clone, Default)]
pub struct Wakeups(Arc<Signals>);

#[derive(Default)]
struct Signals {
    dispatcher: Notify,
    routing: Notify,
    delivery: Notify,
}

impl Wakeups {
    /// Signals that the writer has committed notices.
    pub fn notices(&self) {
        self.0.dispatcher.notify_one();
    }

    /// Signals that contacts or rules have changed. This also affects waiting messages.
    pub fn routing(&self) {
        self.0.routing.notify_one();
        self.0.delivery.notify_one();
    }

    /// Signals that the outbox contains messages.
    pub fn messages(&self) {
        self.0.delivery.notify_one();
    }
}

/// The interface of dispatcher and delivery for the rest of the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Notifications {
    pub wakeups: Wakeups,
    settings: Arc<watch::Sender<Settings>>,
}

impl Notifications {
    pub fn new(config: &Config) -> Notifications {
        let (settings, _) = watch::channel(Settings::from(config));
        Notifications { wakeups: Wakeups::default(), settings: Arc::new(settings) }
    }

    pub fn settings(&self) -> Settings {
        self.settings.borrow().clone()
    }

    pub fn listen(&self) -> watch::Receiver<Settings> {
        self.settings.subscribe()
    }

    /// Applies other settings from now on.
    ///
    /// # Errors
    /// Names the unusable setting; then everything stays as it was.
    pub fn change(&self, settings: Settings) -> anyhow::Result<()> {
        if let Some(mail) = &settings.mail {
            Smtp::new(mail, DeliveryTiming::default().patience)?;
        }
        self.settings.send_replace(settings);
        Ok(())
    }

    /// Starts dispatcher and delivery. `history` gives mails the recent values.
    ///
    /// # Errors
    /// Fails when the settings for TLS cannot be used.
    pub fn start(
        &self,
        tasks: &mut JoinSet<()>,
        store: Store,
        history: Recorder,
        live: LiveState,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let (settings, wakeups) = (self.settings.subscribe(), self.wakeups.clone());
        let delivery = DeliveryWorker::new(
            settings.clone(),
            (store.clone(), history),
            live.clone(),
            wakeups.clone(),
            DeliveryTiming::default(),
        )?;
        tasks.spawn(Dispatcher::new(settings, store, live, wakeups).run(stop.clone()));
        tasks.spawn(delivery.run(stop));
        Ok(())
    }
}

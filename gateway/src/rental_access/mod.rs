//! Lets renters log in to their devices, takes that away again, and cleans devices after rentals.
//!
//! ```text
//! store ─▶ next_action (engine) ─▶ the helper on the device, over SSH ─▶ store ─▶ the gate of the monitor
//! ```
//!
//! Each turn reads what devices have and what they are to have, so that a stop of the gateway loses nothing: a call
//! without an answer is repeated. While the clock is behind what it has shown before, nothing is done, because no
//! rental would have begun.

mod calls;
mod over_ssh;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::CommandReply;
use fleetgate_engine::rental::device_access::{Action, Attempts, LEAD, next_action};
use fleetgate_engine::time::{Mono, Now};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::engine::handle::{Changes, Handle};
use crate::ids::Kind;
use crate::store::policy::PolicyRows;
use crate::store::rentals::device_access::{self as stored, Upkeep};
use crate::store::rentals::policy;
use crate::store::{self, Store, settings};
pub use calls::Call;
use calls::{Outcome, call, outcome};
pub use over_ssh::OverSsh;

/// Pause between two looks, each of which reads the devices with an account for renters or a cleaning command.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two turns of which the first has left something to do.
const BREATH: Duration = Duration::from_millis(20);
/// Pause after the database has failed.
const RETRY: Duration = Duration::from_secs(5);
/// Beside as many calls none that has failed is repeated: devices that are not reached, such as those on their way back,
/// keep no other one waiting.
const MOST_REPEATED: usize = 8;
/// Devices with a call at the same time. It leaves most SSH sessions to the checks.
const MOST_CALLS: usize = 16;

/// Runs a command on a device.
pub trait Runner: Clone + Send + Sync + 'static {
    /// Runs a command within its timeout and a little. An error says why it was not run, in words for operators.
    fn run(&self, device: HostId, call: Call) -> impl Future<Output = Result<CommandReply, String>> + Send;
}

pub struct Parts<R> {
    pub store: Store,
    pub handle: Handle,
    pub runner: R,
}

/// Starts the task.
pub fn start<R: Runner>(tasks: &mut JoinSet<()>, parts: Parts<R>, stop: CancellationToken) {
    tasks.spawn(async move {
        let mut driver = Driver::new(parts);
        while !stop.is_cancelled() {
            let wait = match driver.begin(clock::now()).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!("the access of renters to devices is not looked after yet: {error}");
                    RETRY
                }
            };
            let ended = tokio::select! {
                Some(ended) = driver.calls.join_next() => ended.ok(),
                () = tokio::time::sleep(wait) => None,
                () = stop.cancelled() => None,
            };
            if let Some(ended) = ended {
                driver.note(ended, clock::now().mono).await;
            }
        }
    });
}

/// A call that has ended.
struct Ended {
    device: Upkeep,
    action: Action,
    result: Result<Outcome, String>,
}

struct Driver<R> {
    parts: Parts<R>,
    /// What failed.
    attempts: BTreeMap<HostId, Attempts>,
    /// Devices with a call in progress.
    running: BTreeSet<HostId>,
    calls: JoinSet<Ended>,
    /// Devices whose keys a renter may know.
    exposed: BTreeSet<HostId>,
    /// Devices of which the monitor has not heard yet that they may be ready.
    changed: BTreeSet<HostId>,
}

impl<R: Runner> Driver<R> {
    fn new(parts: Parts<R>) -> Self {
        let (running, exposed, changed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Driver { parts, attempts: BTreeMap::new(), running, calls: JoinSet::new(), exposed, changed }
    }

    /// Begins what is to be done now. Returns the time until the next turn.
    async fn begin(&mut self, now: Now) -> store::Result<Duration> {
        self.announce().await?;
        let mut conn = self.parts.store.reader().await?;
        let devices = self.in_order(stored::devices(&mut conn).await?);
        if devices.is_empty() {
            return Ok(LOOK_EVERY);
        }
        let is_behind = settings::clock_floor(&mut conn).await?.at().is_some_and(|floor| now.wall < floor);
        if is_behind {
            return Ok(LOOK_EVERY);
        }
        let rentals = stored::rented(&mut conn, (now.wall, now.wall + LEAD)).await?;
        drop(conn);
        self.note_new_keys(&devices);
        let mut wait = LOOK_EVERY;
        for device in devices {
            if self.running.contains(&device.id) || self.running.len() >= MOST_CALLS {
                continue;
            }
            let rented = rentals.get(&device.id).map(Vec::as_slice).unwrap_or_default();
            let Some(action) = next_action(&device.state, rented, now.wall) else {
                self.attempts.remove(&device.id);
                continue;
            };
            if self.attempts.get(&device.id).is_none_or(|before| before.permit(&action, now.mono)) {
                // What is only noted makes room for the next action.
                wait = if matches!(action, Action::Use(_)) { BREATH } else { wait };
                self.act(device, action).await?;
            }
        }
        Ok(wait)
    }

    /// First those of which no call has failed, then those that have waited longest.
    fn in_order(&self, mut devices: Vec<Upkeep>) -> Vec<Upkeep> {
        devices.sort_by_key(|device| self.attempts.get(&device.id).map(Attempts::due));
        devices
    }

    /// Whether there is no room to repeat a call to a device.
    fn is_crowded(&self, device: HostId, action: &Action) -> bool {
        let is_call = !matches!(action, Action::Use(_));
        is_call && self.attempts.contains_key(&device) && self.running.len() >= MOST_REPEATED
    }

    /// A device that got new keys can be handed over.
    fn note_new_keys(&mut self, devices: &[Upkeep]) {
        let exposed = devices.iter().filter(|device| device.state.is_exposed).map(|device| device.id);
        let before = std::mem::replace(&mut self.exposed, exposed.collect());
        self.changed.extend(before.difference(&self.exposed));
    }

    async fn act(&mut self, device: Upkeep, action: Action) -> store::Result<()> {
        if self.is_crowded(device.id, &action) {
            return Ok(());
        }
        note_begin(&self.parts.store, device.id, &action).await?;
        let Some(call) = call(&action, device.cleaning_command.as_deref()) else { return Ok(()) };
        self.running.insert(device.id);
        let runner = self.parts.runner.clone();
        self.calls.spawn(async move {
            let id = device.id;
            // A panic of a call ends there.
            let called = AbortOnDropHandle::new(tokio::spawn(async move { runner.run(id, call).await }));
            let reply =
                called.await.unwrap_or_else(|_| Err("the call has failed inside the gateway".to_owned()));
            let result = reply.and_then(|reply| outcome(&action, device.account.as_deref(), &reply));
            Ended { device, action, result }
        });
        Ok(())
    }

    /// Notes what came of a call. What cannot be stored is called again.
    async fn note(&mut self, ended: Ended, now: Mono) {
        let (device, action) = (ended.device.id, ended.action.clone());
        self.running.remove(&device);
        let is_done = match note_end(&self.parts.store, &ended).await {
            Ok(()) => ended.result.is_ok(),
            Err(error) => {
                tracing::warn!("what was done on {} is not stored: {error}", Kind::Host.text(device));
                false
            }
        };
        let before = self.attempts.remove(&device);
        if is_done {
            tracing::info!("{} on {} is done", in_words(&action), Kind::Host.text(device));
            self.changed.insert(device);
        } else {
            self.attempts.insert(device, Attempts::failed(before, action, now));
        }
    }

    /// The gates of the rentals of changed devices are judged again.
    async fn announce(&mut self) -> store::Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let rentals = policy::of_devices(&mut *self.parts.store.reader().await?, &self.changed).await?;
        self.changed.clear();
        let policy = PolicyRows { rentals, ..PolicyRows::default() };
        self.parts.handle.changed(Changes { policy, ..Changes::default() }).await;
        Ok(())
    }
}

/// Stores what may be on the device from now on. A call that is interrupted may have done it.
async fn note_begin(store: &Store, device: HostId, action: &Action) -> store::Result<()> {
    if matches!(action, Action::Ask | Action::Revoke(_) | Action::Clean(_)) {
        return Ok(());
    }
    let mut tx = store.begin().await?;
    match action {
        Action::Use(rental) => stored::used(&mut tx, device, *rental).await?,
        Action::Grant(access) => stored::granting(&mut tx, device, access.rental).await?,
        Action::Ask | Action::Revoke(_) | Action::Clean(_) => {}
    }
    tx.commit().await
}

/// Stores what came of a call.
async fn note_end(store: &Store, ended: &Ended) -> store::Result<()> {
    let (device, name) = (ended.device.id, Kind::Host.text(ended.device.id));
    let mut tx = store.begin().await?;
    match (&ended.result, &ended.action) {
        (Err(why), action) => {
            if stored::failed(&mut tx, device, why).await? {
                tracing::warn!("{} on {name} failed and is tried again: {why}", in_words(action));
            }
        }
        (Ok(Outcome::Mode(mode)), _) => {
            let account = ended.device.account.as_deref().unwrap_or_default();
            stored::asked(&mut tx, device, (account, *mode)).await?;
        }
        (Ok(Outcome::Done), Action::Grant(access)) => stored::granted_now(&mut tx, device, access).await?,
        (Ok(Outcome::Done), Action::Revoke(rental)) => stored::revoked(&mut tx, device, *rental).await?,
        (Ok(Outcome::Done), Action::Clean(rental)) => stored::cleaned(&mut tx, device, *rental).await?,
        (Ok(Outcome::Done), Action::Ask | Action::Use(_)) => {}
    }
    tx.commit().await
}

fn in_words(action: &Action) -> String {
    match action {
        Action::Ask => "the question for the account of renters".to_owned(),
        Action::Grant(access) => format!("the SSH access of {}", Kind::Rental.text(access.rental)),
        Action::Revoke(rental) => format!("the removal of the SSH access of {}", Kind::Rental.text(*rental)),
        Action::Use(rental) | Action::Clean(rental) => {
            format!("the cleaning after {}", Kind::Rental.text(*rental))
        }
    }
}

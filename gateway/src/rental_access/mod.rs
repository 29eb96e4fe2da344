//! Lets renters log in to their devices, takes that away again, and cleans devices after rentals.
//!
//! ```text
//! store ─▶ next_action (engine) ─▶ the helper on the device, over SSH ─▶ store ─▶ the gate of the monitor
//! ```
//!
//! Each turn reads what devices have and what they are to have, so that a stop of the gateway loses nothing: a call
//! without an answer is repeated. While the clock is behind what it has shown before, nothing is done, because no
//! rental would have begun. While a restore waits for an admin, and for some minutes after the clock was set, access is
//! only taken away: a rental that seems to be over may go on, and a cleaning cannot be undone.

mod calls;
mod over_ssh;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use fleetgate_engine::id::{HostId, RentalId};
use fleetgate_engine::messages::CommandReply;
use fleetgate_engine::rental::device_access::{Action, Attempts, LEAD, next_action};
use fleetgate_engine::time::{Mono, Now};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use crate::engine::handle::{Changes, Handle};
use crate::ids::IdKind;
use crate::maintenance::rental_times::Doubt;
use crate::store::policy::PolicyRows;
use crate::store::rentals::device_access::{self as stored, Upkeep};
use crate::store::rentals::policy;
use crate::store::{self, Store, instance, settings};
pub use calls::{Call, too_many_keys};
use calls::{Outcome, call, outcome, too_many};
pub use over_ssh::OverSsh;

/// Pause between two looks, each of which reads the devices with an account for renters or a cleaning command.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two turns of which the first has left something to do.
const BREATH: Duration = Duration::from_millis(20);
/// Pause after the database has failed.
const RETRY: Duration = Duration::from_secs(5);
/// A device is asked again so long after it has last said how renters log in: `enrol.sh` may have run there again.
const ASK_AGAIN: Duration = Duration::from_secs(15 * 60);
/// Devices with a call at the same time. It leaves most SSH sessions to the checks.
const MOST_CALLS: usize = 16;
/// Devices with a call beyond which none that has failed is repeated: devices that are not reached, such as those on
/// their way back, keep no other one waiting.
const MOST_REPEATED: usize = 8;
/// No cleaning begins beside as many calls: it may take minutes, and the end of a rental does not wait for it.
const MOST_BESIDE_CLEANING: usize = MOST_CALLS / 2;

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
    /// A clock that is wrong for some seconds takes access away, and cleans no device of a renter.
    doubt: Doubt,
    /// What failed.
    attempts: BTreeMap<HostId, Attempts>,
    /// When devices have last said how renters log in, or were first seen.
    asked: BTreeMap<HostId, Mono>,
    /// Rentals whose access devices have said that they have, until it is granted anew or removed.
    said: BTreeMap<HostId, RentalId>,
    /// Devices with a call in progress.
    running: BTreeSet<HostId>,
    calls: JoinSet<Ended>,
    /// Devices whose keys a renter may know.
    exposed: BTreeSet<HostId>,
    /// Devices of which the monitor has not heard yet that they may be ready, or are not any more.
    changed: BTreeSet<HostId>,
}

impl<R: Runner> Driver<R> {
    fn new(parts: Parts<R>) -> Self {
        let (running, exposed, changed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (doubt, attempts, asked) = (Doubt::default(), BTreeMap::new(), BTreeMap::new());
        let said = BTreeMap::new();
        Driver { parts, doubt, attempts, asked, said, running, calls: JoinSet::new(), exposed, changed }
    }

    /// Begins what is to be done now. Returns the time until the next turn.
    async fn begin(&mut self, now: Now) -> store::Result<Duration> {
        let is_doubted = self.doubt.holds(now);
        self.announce().await?;
        let mut conn = self.parts.store.reader().await?;
        let devices = stored::devices(&mut conn).await?;
        let known: BTreeSet<HostId> = devices.iter().map(|device| device.id).collect();
        forget_others(&mut self.attempts, &known);
        forget_others(&mut self.asked, &known);
        forget_others(&mut self.said, &known);
        if devices.is_empty() {
            return Ok(LOOK_EVERY);
        }
        let is_behind = settings::clock_floor(&mut conn).await?.at().is_some_and(|floor| now.wall < floor);
        if is_behind {
            return Ok(LOOK_EVERY);
        }
        let is_doubted = is_doubted || instance::awaits_review(&mut conn).await?;
        let rentals = stored::rented(&mut conn, (now.wall, now.wall + LEAD)).await?;
        drop(conn);
        self.note_new_keys(&devices);
        let mut wait = LOOK_EVERY;
        for device in self.in_order(devices) {
            if self.running.contains(&device.id) {
                continue;
            }
            let rented = rentals.get(&device.id).map(Vec::as_slice).unwrap_or_default();
            let times = self.parts.handle.rental_times();
            let action = times.decide(now, |known| next_action(&device.state, rented, known, now));
            let action = action.or_else(|| self.question(&device, now.mono));
            let Some(action) = action.filter(|action| !is_doubted || takes_away(action)) else {
                self.attempts.remove(&device.id);
                continue;
            };
            if !has_room(self.running.len(), &action, self.attempts.contains_key(&device.id)) {
                continue;
            }
            if self.attempts.get(&device.id).is_none_or(|before| before.permit(&action, now.mono)) {
                // An action that is only noted makes room for the next one.
                wait = if matches!(action, Action::Use(_)) { BREATH } else { wait };
                self.act(device, action).await?;
            }
        }
        Ok(wait)
    }

    /// Asks a device again that has nothing else to do. One that has access of a rental of which the database does not
    /// know loses that first.
    fn question(&mut self, device: &Upkeep, now: Mono) -> Option<Action> {
        let asked = *self.asked.entry(device.id).or_insert(now);
        let knows =
            device.state.has_account && device.state.mode.is_some() && device.state.lent_until.is_none();
        if let Some(rental) = self.said.get(&device.id)
            && knows
            && device.state.held.is_none()
        {
            return Some(Action::Revoke(*rental));
        }
        (knows && now.since(asked) >= ASK_AGAIN).then_some(Action::Ask)
    }

    /// First those of which no call has failed, then those that have waited longest.
    fn in_order(&self, mut devices: Vec<Upkeep>) -> Vec<Upkeep> {
        devices.sort_by_key(|device| self.attempts.get(&device.id).map(Attempts::due));
        devices
    }

    /// A device that got new keys can be handed over.
    fn note_new_keys(&mut self, devices: &[Upkeep]) {
        let exposed = devices.iter().filter(|device| device.state.is_exposed).map(|device| device.id);
        let before = std::mem::replace(&mut self.exposed, exposed.collect());
        self.changed.extend(before.difference(&self.exposed));
    }

    async fn act(&mut self, device: Upkeep, action: Action) -> store::Result<()> {
        note_begin(&self.parts.store, device.id, &action).await?;
        if matches!(action, Action::Use(_) | Action::Grant(_)) {
            // From now on the next rental of the device waits until this is undone.
            self.changed.insert(device.id);
        }
        let settings = (device.account.as_deref(), device.cleaning_command.as_deref());
        let Some(call) = call(&action, settings) else { return Ok(()) };
        self.running.insert(device.id);
        let runner = self.parts.runner.clone();
        self.calls.spawn(async move {
            let id = device.id;
            if let Some(why) = too_many(&action) {
                return Ended { device, action, result: Err(why) };
            }
            // A panic of a call ends there.
            let called = AbortOnDropHandle::new(tokio::spawn(async move { runner.run(id, call).await }));
            let reply =
                called.await.unwrap_or_else(|_| Err("the call has failed inside the gateway".to_owned()));
            let result = reply.and_then(|reply| outcome(&action, device.account.as_deref(), &reply));
            Ended { device, action, result }
        });
        Ok(())
    }

    /// Notes what came of a call. The gateway repeats a call whose result cannot be stored.
    async fn note(&mut self, ended: Ended, now: Mono) {
        let (device, action) = (ended.device.id, ended.action.clone());
        self.running.remove(&device);
        if action == Action::Ask {
            self.asked.insert(device, now);
        }
        let is_done = match note_end(&self.parts.store, &ended).await {
            Ok(event) => {
                event.into_iter().for_each(|seq| self.parts.handle.event(seq));
                !matches!(&ended.result, Err(_) | Ok(Outcome::NoAccount(_)))
            }
            Err(error) => {
                tracing::warn!("what was done on {} is not stored: {error}", IdKind::Host.text(device));
                false
            }
        };
        if let Ok(Outcome::Account { has, .. }) = &ended.result
            && let Ok(rental) = IdKind::Rental.parse(has)
        {
            self.said.insert(device, rental);
        } else if is_done && matches!(action, Action::Grant(_) | Action::Revoke(_)) {
            self.said.remove(&device);
        }
        let before = self.attempts.remove(&device);
        if is_done {
            tracing::info!("{} on {} is done", in_words(&action), IdKind::Host.text(device));
            self.changed.insert(device);
        } else {
            if matches!(ended.result, Ok(Outcome::NoAccount(_))) {
                // Its rentals with SSH wait now.
                self.changed.insert(device);
            }
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

/// Forgets devices that were removed, or have nothing for renters any more. A later one with the same id begins anew.
fn forget_others<T>(notes: &mut BTreeMap<HostId, T>, known: &BTreeSet<HostId>) {
    notes.retain(|device, _| known.contains(device));
}

/// Whether an action may begin beside so many calls. What is only noted calls nothing.
fn has_room(calls: usize, action: &Action, has_failed: bool) -> bool {
    match action {
        Action::Use(_) => true,
        Action::Clean(_) => calls < MOST_BESIDE_CLEANING,
        Action::Ask | Action::Grant(_) | Action::Revoke(_) if has_failed => calls < MOST_REPEATED,
        Action::Ask | Action::Grant(_) | Action::Revoke(_) => calls < MOST_CALLS,
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

/// Stores what came of a call. Returns the number of an event about it.
async fn note_end(store: &Store, ended: &Ended) -> store::Result<Option<i64>> {
    let (device, name) = (ended.device.id, IdKind::Host.text(ended.device.id));
    let mut event = None;
    let mut tx = store.begin().await?;
    match (&ended.result, &ended.action) {
        // The answer that is known stays: the device may be away for a while.
        (Err(_), Action::Ask) if ended.device.state.mode.is_some() => {}
        (Err(why), action) => {
            if stored::failed(&mut tx, device, why).await? {
                tracing::warn!("{} on {name} failed and is tried again: {why}", in_words(action));
            }
        }
        (Ok(Outcome::Account { mode, has }), _) => {
            let account = ended.device.account.as_deref().unwrap_or_default();
            stored::asked(&mut tx, device, (account, *mode)).await?;
            match (&ended.device.state.held, IdKind::Rental.parse(has)) {
                (Some(held), _) if IdKind::Rental.text(held.rental) != *has => {
                    stored::not_granted(&mut tx, device).await?;
                }
                // The database is a backup of before the grant. From now on it is to be removed, or given anew.
                (None, Ok(rental)) => stored::found(&mut tx, device, rental).await?,
                (Some(_) | None, _) => {}
            }
        }
        (Ok(Outcome::NoAccount(why)), action) => {
            if stored::failed(&mut tx, device, why).await? {
                tracing::warn!("{} on {name} failed and is tried again: {why}", in_words(action));
            }
            event = stored::lost(&mut tx, device, why, clock::wall()).await?;
        }
        (Ok(Outcome::Done), Action::Grant(access)) => stored::granted_now(&mut tx, device, access).await?,
        (Ok(Outcome::Done), Action::Revoke(_)) => {
            let held = ended.device.state.held.as_ref().map(|held| held.rental);
            stored::revoked(&mut tx, device, held).await?;
        }
        (Ok(Outcome::Done), Action::Clean(rental)) => stored::cleaned(&mut tx, device, *rental).await?,
        (Ok(Outcome::Done), Action::Ask | Action::Use(_)) => {}
    }
    tx.commit().await?;
    Ok(event)
}

fn in_words(action: &Action) -> String {
    match action {
        Action::Ask => "the question for the account of renters".to_owned(),
        Action::Grant(access) => format!("the SSH access of {}", IdKind::Rental.text(access.rental)),
        Action::Revoke(rental) => {
            format!("the removal of the SSH access of {}", IdKind::Rental.text(*rental))
        }
        Action::Use(rental) | Action::Clean(rental) => {
            format!("the cleaning after {}", IdKind::Rental.text(*rental))
        }
    }
}

/// Whether an action is right also by a clock that may be wrong, and by rentals that may have changed since a backup:
/// renters only lose access by it.
const fn takes_away(action: &Action) -> bool {
    match action {
        Action::Ask | Action::Revoke(_) => true,
        Action::Grant(_) | Action::Use(_) | Action::Clean(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;
    use fleetgate_engine::rental::device_access::{Access, Mode};
    use fleetgate_engine::time::Wall;

    use super::*;

    #[test]
    fn renters_are_shut_out_while_many_devices_are_cleaned_and_others_do_not_answer() {
        let rental = Id::from_i64(1);
        let room = |calls, has_failed| {
            let all = [Action::Clean(rental), Action::Revoke(rental), Action::Use(rental)];
            all.map(|action| has_room(calls, &action, has_failed))
        };
        assert_eq!(room(MOST_BESIDE_CLEANING - 1, false), [true; 3]);
        assert_eq!(room(MOST_BESIDE_CLEANING, false), [false, true, true]);
        assert_eq!(room(MOST_REPEATED, true), [false, false, true]);
        assert_eq!(room(MOST_CALLS, false), [false, false, true]);
    }

    #[test]
    fn nothing_is_kept_of_a_device_that_was_removed() {
        let [kept, removed] = [1, 2].map(Id::from_i64);
        let failed = || Attempts::failed(None, Action::Ask, Mono::ZERO);
        let mut attempts = BTreeMap::from([(kept, failed()), (removed, failed())]);
        forget_others(&mut attempts, &BTreeSet::from([kept]));
        assert_eq!(attempts.into_keys().collect::<Vec<HostId>>(), [kept]);
    }

    #[test]
    fn in_doubt_renters_only_lose_access() {
        let rental = Id::from_i64(5);
        let access =
            Access { rental, until: Wall::from_millis(1), mode: Mode::Certificates, keys: Vec::new() };
        assert!(takes_away(&Action::Revoke(rental)) && takes_away(&Action::Ask));
        for action in [Action::Grant(access), Action::Use(rental), Action::Clean(rental)] {
            assert!(!takes_away(&action), "{action:?}");
        }
    }
}

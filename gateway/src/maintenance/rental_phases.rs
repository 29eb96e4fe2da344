//! Passes to the monitor what the rentals of devices mean for it: which devices are in maintenance for a rental, the
//! state of the service `rental`, which a device has while a rental concerns it or has left something on it, and the
//! thresholds of the rental that is active.
//!
//! While the database cannot be read, and while a clock that was set is doubted, all of it stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::RentalPhase;
use fleetgate_engine::rental::phase;
use fleetgate_engine::time::Wall;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::rental_times::Doubt;
use crate::clock;
use crate::engine::handle::{Changes, Handle};
use crate::rental_events::Wakeups;
use crate::store::Store;
use crate::store::rentals::{phases, thresholds};

/// Longest time until the next look: the clock may be set, and a sleep does not count a suspend.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Shortest time until the next look: the clock has milliseconds.
const AT_LEAST: Duration = Duration::from_millis(1);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// What the monitor knows of the devices that rentals concern.
#[derive(Debug, Default)]
pub struct PublishedPhases {
    pub phases: BTreeMap<HostId, RentalPhase>,
    /// The thresholds of the rentals that are active, as they are stored.
    limits: BTreeMap<HostId, String>,
}

impl PublishedPhases {
    /// Returns the devices whose definition is another one: their service `rental` or their thresholds.
    fn differing(&self, other: &PublishedPhases) -> BTreeSet<HostId> {
        let all = self.phases.keys().chain(other.phases.keys());
        let served =
            all.filter(|device| self.phases.contains_key(*device) != other.phases.contains_key(*device));
        let all = self.limits.keys().chain(other.limits.keys());
        let limited = all.filter(|device| self.limits.get(*device) != other.limits.get(*device));
        served.chain(limited).copied().collect()
    }
}

/// Returns what the rentals mean now, and when time alone may change it.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn read(store: &Store, now: Wall) -> crate::store::Result<(PublishedPhases, Option<Wall>)> {
    let mut conn = store.reader().await?;
    let (rentals, left) = (phases::open(&mut conn, now).await?, phases::left(&mut conn).await?);
    let swapped = phases::swapped(&mut conn, now).await?;
    let limits = thresholds::in_force(&mut conn).await?;
    let next = rentals.values().filter_map(|of| phase::changes_at(of, now)).min();
    let known = rentals.iter().map(|(device, of)| (*device, phase::phase(*device, of, now)));
    let mut phases: BTreeMap<HostId, RentalPhase> = known.collect();
    for (device, left) in &left {
        let of_rentals = phases.remove(device).unwrap_or_else(|| RentalPhase::none(*device));
        phases.insert(*device, phase::with_leftover(of_rentals, left, now));
    }
    for (device, rental) in swapped {
        let others = phases.remove(&device).unwrap_or_else(|| RentalPhase::none(device));
        phases.insert(device, phase::with_swapped(others, rental));
    }
    Ok((PublishedPhases { phases, limits }, next))
}

/// `known`: what the monitor was started with.
pub fn start(
    tasks: &mut JoinSet<()>,
    (store, handle): (Store, Handle),
    (known, wakeups): (PublishedPhases, Wakeups),
    stop: CancellationToken,
) {
    tasks.spawn(async move {
        let (mut phases, mut doubt) = (Phases { store, handle, known }, Doubt::default());
        while !stop.is_cancelled() {
            let now = clock::now();
            let wait = match doubt.holds(now) {
                true => LOOK_EVERY,
                false => phases.turn(now.wall).await.unwrap_or_else(|error| {
                    tracing::warn!("the monitor does not learn of rentals yet: {error}");
                    RETRY
                }),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = wakeups.phases() => {}
                () = stop.cancelled() => {}
            }
        }
    });
}

pub struct Phases {
    store: Store,
    handle: Handle,
    known: PublishedPhases,
}

impl Phases {
    #[cfg(test)]
    pub fn new(store: Store, handle: Handle) -> Phases {
        Phases { store, handle, known: PublishedPhases::default() }
    }

    /// Sends what has changed. Returns the time until the next turn.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn turn(&mut self, now: Wall) -> crate::store::Result<Duration> {
        let (known, next) = read(&self.store, now).await?;
        let hosts = self.known.differing(&known);
        if !hosts.is_empty() {
            self.handle.changed(Changes { hosts, ..Changes::default() }).await;
        }
        let before = std::mem::replace(&mut self.known, known).phases;
        let phases = &self.known.phases;
        for device in before.keys().filter(|device| !phases.contains_key(*device)) {
            self.handle.rental_phase(RentalPhase::none(*device)).await;
        }
        for phase in phases.values().filter(|phase| before.get(&phase.device) != Some(*phase)) {
            self.handle.rental_phase(phase.clone()).await;
        }
        Ok(next.map_or(LOOK_EVERY, |at| at.since(now)).clamp(AT_LEAST, LOOK_EVERY))
    }
}

//! Delivers events to subscriptions: at least once, in order for each rental, one event in one call.
//!
//! A row goes after the other side has accepted the event. Outcomes that could not be written keep their
//! place, so that a full disk sends nothing again and again. An event that fails holds up the later ones
//! of its rental, and no other. The database is read and written between the calls, never during one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::time::{ClockStep, Mono, Now, Wall};
use serde_json::json;
use tokio::task::{Id as TaskId, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Wakeups;
use crate::clock;
use crate::engine::live_state::{Change, LiveState};
use crate::ids::IdKind;
use crate::notification::Failure;
use crate::notification::webhook::{Call, Client};
use crate::outbound::Outbound;
use crate::store::events::{self, NewEvent, Object, SYSTEM};
use crate::store::rentals::events::EventRow;
use crate::store::subscriptions::deliveries::{self, At, Due, Failed};
use crate::store::subscriptions::{self, Subscription, secret_place};
use crate::store::{Store, Tx, instance};

/// Calls to one subscription at the same time. As many may hang before its other events wait.
const IN_FLIGHT: usize = 4;
/// Events that a subscription has taken. Further ones wait in the log, where they cost nothing.
const MAX_WAITING: i64 = 1_000;
/// Longest time until the next look: a sleep does not count a suspend of the machine.
const LOOK_EVERY: Duration = Duration::from_secs(60);
const EVENT_ID: &str = "x-fleetgate-event";

/// Time limits and pauses of the delivery.
#[derive(Clone, Copy, Debug)]
pub struct SubscriptionTiming {
    /// Time limit of a response: a program that needs longer should defer its work.
    pub patience: Duration,
    /// Pause after the first failure of an event. It doubles with each failure, up to `longest_pause`.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// Attempts after which the failure is reported. The clock may be set, so it does not decide. The attempts go on as
    /// long as the event is kept.
    pub reported_after: u32,
    /// Time that a call in progress gets at a stop.
    pub farewell: Duration,
}

impl Default for SubscriptionTiming {
    fn default() -> Self {
        SubscriptionTiming {
            patience: Duration::from_secs(10),
            first_pause: Duration::from_secs(10),
            longest_pause: Duration::from_secs(3_600),
            // Nine pauses that double: an hour and a half.
            reported_after: 10,
            farewell: Duration::from_secs(4),
        }
    }
}

impl SubscriptionTiming {
    /// Returns the pause after a failure. `attempts`: those before it; `wish`: the pause that the server
    /// requested.
    fn after(self, attempts: u32, wish: Option<Duration>) -> Duration {
        let doubled = self.first_pause.saturating_mul(2u32.saturating_pow(attempts.min(16)));
        wish.map_or(doubled, |wish| wish.max(self.first_pause)).min(self.longest_pause)
    }
}

/// The parts that the delivery works with.
pub struct Parts {
    pub store: Store,
    pub live: LiveState,
    pub wakeups: Wakeups,
    pub outbound: Outbound,
    /// Writes the body: the event as the feed has it.
    pub body: fn(&EventRow) -> serde_json::Result<Vec<u8>>,
}

/// Starts the delivery, which ends after the calls in progress.
///
/// # Errors
/// Fails when TLS cannot be set up.
pub fn start(
    tasks: &mut JoinSet<()>,
    parts: Parts,
    pace: SubscriptionTiming,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let client = Client::new(pace.patience, &parts.outbound)?;
    tasks.spawn(Arc::new(EventDelivery { parts, client, pace }).run(stop));
    Ok(())
}

struct EventDelivery {
    parts: Parts,
    client: Client,
    pace: SubscriptionTiming,
}

/// A subscription and the number of an event.
type DeliveryKey = (Id, i64);

/// A call.
#[derive(Clone, Copy)]
struct Flight {
    place: DeliveryKey,
    /// Those before it.
    attempts: u32,
    /// The version of the subscription.
    version: i64,
}

/// The calls in progress, and what became of others.
#[derive(Default)]
struct Flights {
    tasks: JoinSet<Result<(), Failure>>,
    calls: HashMap<TaskId, Flight>,
    /// Outcomes that are not on disk yet.
    landed: Vec<Landed>,
    /// Subscriptions whose servers requested a pause, each with its version: one that was resumed or has
    /// another address since does not wait.
    pauses: BTreeMap<Id, (i64, Mono)>,
    /// The clocks at the last round.
    looked: Option<Now>,
}

struct Landed {
    flight: Flight,
    result: Result<(), Failure>,
}

impl Flights {
    fn places(&self) -> impl Iterator<Item = DeliveryKey> {
        let landed = self.landed.iter().map(|landed| &landed.flight);
        self.calls.values().chain(landed).map(|flight| flight.place)
    }

    /// Returns how long a subscription waits, because its server requested it.
    fn pause(&self, subscription: &Subscription, now: Mono) -> Option<Duration> {
        let (version, until) = self.pauses.get(&subscription.id)?;
        (*version == subscription.version).then(|| until.since(now))
    }

    /// Whether the clock was set back since the last round.
    fn clock_went_back(&self, now: Now) -> bool {
        let step = self.looked.and_then(|before| ClockStep::between(before, now));
        step.is_some_and(|step| step.ahead_ms() < 0)
    }

    /// Records a call that has ended, and all others that have.
    fn land(&mut self, ended: Result<(TaskId, Result<(), Failure>), JoinError>) {
        let mut next = Some(ended);
        while let Some(ended) = next {
            let (task, result) = match ended {
                Ok(ended) => ended,
                Err(error) => {
                    tracing::error!("the delivery of an event has ended: {error}");
                    (error.id(), Err(Failure::Server("it ended inside the gateway".to_owned())))
                }
            };
            let flight = self.calls.remove(&task);
            self.landed.extend(flight.map(|flight| Landed { flight, result }));
            next = self.tasks.try_join_next_with_id();
        }
    }
}

impl EventDelivery {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut flights = Flights::default();
        while !stop.is_cancelled() {
            let wait = self.round(&mut flights, &stop).await.unwrap_or_else(|error| {
                tracing::warn!("events of rentals wait for the database: {error}");
                self.pace.first_pause
            });
            tokio::select! {
                Some(ended) = flights.tasks.join_next_with_id() => flights.land(ended),
                () = tokio::time::sleep(wait) => {}
                () = self.parts.wakeups.deliveries() => {}
                () = stop.cancelled() => {}
            }
        }
        while let Some(ended) = flights.tasks.join_next_with_id().await {
            flights.land(ended);
        }
        if let Err(error) = self.settle(&mut flights).await {
            tracing::warn!("events of rentals that were delivered last will be repeated: {error}");
        }
    }

    /// Writes what has ended, and starts what is due. Returns the time until the next is.
    async fn round(
        self: &Arc<Self>,
        flights: &mut Flights,
        stop: &CancellationToken,
    ) -> crate::store::Result<Duration> {
        self.settle(flights).await?;
        let now = clock::now();
        flights.pauses.retain(|_, (_, until)| *until > now.mono);
        if flights.clock_went_back(now) {
            self.hasten(now.wall).await?;
        }
        flights.looked = Some(now);
        let mut conn = self.parts.store.reader().await?;
        if instance::awaits_review(&mut conn).await? {
            // A subscription may have been removed after the backup.
            return Ok(LOOK_EVERY);
        }
        let all = subscriptions::list(&mut conn).await?;
        drop(conn);
        let mut wait = LOOK_EVERY;
        for subscription in all.into_iter().filter(|subscription| subscription.paused_at.is_none()) {
            wait = wait.min(self.serve(subscription, flights, now, stop).await?);
        }
        Ok(wait)
    }

    /// Lets what waits for a later time be tried now: that time was read from a clock that was ahead.
    async fn hasten(&self, now: Wall) -> crate::store::Result<()> {
        let mut tx = self.parts.store.begin().await?;
        deliveries::hasten(&mut tx, now).await?;
        tx.commit().await
    }

    /// Starts the calls to one subscription. Returns the time until the next is due.
    async fn serve(
        self: &Arc<Self>,
        subscription: Subscription,
        flights: &mut Flights,
        now: Now,
        stop: &CancellationToken,
    ) -> crate::store::Result<Duration> {
        let more = self.take(&subscription).await?;
        let (id, version) = (subscription.id, subscription.version);
        if let Some(pause) = flights.pause(&subscription, now.mono) {
            return Ok(pause);
        }
        let in_flight: Vec<i64> =
            flights.places().filter(|(of, _)| *of == id).map(|(_, event)| event).collect();
        let (due, next) = self.due(id, now.wall).await?;
        let due = due.into_iter().filter(|due| !in_flight.contains(&due.event.seq));
        let due: Vec<Due> = due.take(IN_FLIGHT.saturating_sub(in_flight.len())).collect();
        let subscription = Arc::new(subscription);
        for Due { event, attempts } in due {
            let flight = Flight { place: (id, event.seq), attempts, version };
            let task = flights.tasks.spawn(self.clone().send(subscription.clone(), event, stop.clone()));
            flights.calls.insert(task.id(), flight);
        }
        let next = next.map_or(LOOK_EVERY, |at| at.since(now.wall));
        Ok(if more { Duration::ZERO } else { next })
    }

    /// Takes events from the log. Returns whether more of them may follow at once.
    async fn take(&self, subscription: &Subscription) -> crate::store::Result<bool> {
        let room = MAX_WAITING - subscription.waiting;
        if room <= 0 {
            return Ok(false);
        }
        let store = &self.parts.store;
        let through = deliveries::takes(&mut *store.reader().await?, subscription.cursor, room).await?;
        let Some(through) = through else { return Ok(false) };
        let mut tx = store.begin().await?;
        deliveries::take(&mut tx, subscription.id, through).await?;
        tx.commit().await?;
        Ok(through - subscription.cursor >= room)
    }

    /// Returns what is due, with those in flight, and when the next one is.
    async fn due(&self, subscription: Id, now: Wall) -> crate::store::Result<(Vec<Due>, Option<Wall>)> {
        let mut conn = self.parts.store.reader().await?;
        let at = At { now, longest: self.pace.longest_pause };
        let limit = i64::try_from(2 * IN_FLIGHT).unwrap_or(i64::MAX);
        let due = deliveries::due(&mut conn, subscription, at, limit).await?;
        Ok((due, deliveries::next_due(&mut conn, subscription, now).await?))
    }

    async fn send(
        self: Arc<Self>,
        subscription: Arc<Subscription>,
        event: EventRow,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(self.pace.farewell).await;
        };
        tokio::select! {
            ended = self.call(&subscription, &event) => ended,
            () = stopped => Err(Failure::Stopped),
        }
    }

    async fn call(&self, subscription: &Subscription, event: &EventRow) -> Result<(), Failure> {
        let refused = |e: anyhow::Error| Failure::Refused(Failure::shorten(&format!("{e:#}")));
        let secret = self.parts.store.unseal(&secret_place(subscription.id), &subscription.secret);
        let secret = secret.map_err(refused)?;
        let body = (self.parts.body)(event).map_err(|e| refused(e.into()))?;
        let id = (EVENT_ID, IdKind::RentalEvent.text(event.id));
        self.client.call(Call { url: subscription.url.reveal(), id, body, secret: &secret }).await
    }

    /// Writes what became of the calls that have ended. Until then they count as in flight.
    async fn settle(&self, flights: &mut Flights) -> crate::store::Result<()> {
        if flights.landed.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        let mut tx = self.parts.store.begin().await?;
        let mut last = None;
        for landed in &flights.landed {
            last = self.record(&mut tx, landed, now.wall).await?.or(last);
        }
        tx.commit().await?;
        last.into_iter().for_each(|seq| self.parts.live.tell(Change::Event(seq)));
        let Flights { landed, pauses, .. } = flights;
        for landed in landed.drain(..) {
            if let Err(Failure::Busy(_, pause)) = landed.result {
                let until = now.mono + pause.min(self.pace.longest_pause);
                pauses.insert(landed.flight.place.0, (landed.flight.version, until));
            }
        }
        Ok(())
    }

    /// Writes one outcome. Returns the number of the event of the gateway about it, if there is one.
    async fn record(&self, tx: &mut Tx, landed: &Landed, now: Wall) -> crate::store::Result<Option<i64>> {
        let Flight { place: (subscription, event), attempts, .. } = landed.flight;
        let (error, wish) = match &landed.result {
            Ok(()) => {
                deliveries::accepted(tx, (subscription, event), self.pace.reported_after, now).await?;
                return Ok(None);
            }
            Err(Failure::Stopped) => return Ok(None),
            Err(Failure::Busy(error, pause)) => (error, Some(*pause)),
            Err(Failure::Server(error) | Failure::Refused(error)) => (error, None),
        };
        let id = IdKind::Subscription.text(subscription);
        tracing::info!(subscription = %id, attempts = attempts + 1, "event not delivered: {error}");
        let next = now + self.pace.after(attempts, wish);
        let is_reported = attempts.saturating_add(1) >= self.pace.reported_after;
        let failed = Failed { attempts, error, next, is_reported };
        if !deliveries::failed(tx, landed.flight.place, failed, now).await? {
            return Ok(None);
        }
        let about = (Object::Subscription, Some(subscription));
        let cause = "an event of a rental could not be delivered in many attempts, which go on";
        let data = json!({ "id": id, "error": error });
        let event = NewEvent { data, ..NewEvent::new(now, "subscription.failing", about, cause, SYSTEM) };
        events::append(tx, &event).await.map(Some)
    }
}

//! Watches the gateway's clock: keeps the greatest time that it has shown, notes its steps, and notifies
//! when it is behind that time. Two other parts depend on that time and have the same turn: when the gateway
//! did not run ([`StopRecords`]), and what a clock that was ahead has left ([`FutureIntervals`]).
//!
//! The engine decides which grants pass (`fleetgate_engine::forward`). It notices a step by itself, before
//! the next packet; this module loads the grants that are open again after a step back.

use std::time::Duration;

use fleetgate_engine::time::{Now, Wall};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::handle::Handle;
use crate::engine::live_state::{Change, LiveState};
use crate::health::ClockProblem;
use crate::maintenance::clock_messages::{TRUSTED, is_worth_a_message, message};
use crate::maintenance::clock_readings::{Clock, ListedStep};
use crate::maintenance::future_intervals::FutureIntervals;
use crate::maintenance::stop_records::StopRecords;
use crate::notification::Wakeups;
use crate::store::events::{self, NewEvent};
use crate::store::settings;
use crate::store::{Store, intervals, notices};

/// Interval between two looks at the clocks. A step opens nothing for minutes, so it may be noted late.
const EVERY: Duration = Duration::from_secs(2);

/// The other parts that the watch works with.
pub struct Parts {
    pub store: Store,
    pub live: LiveState,
    pub handle: Handle,
    pub wakeups: Wakeups,
}

/// Starts the watch. `begun`: the clocks before the grants were read. NTP often corrects a clock while the
/// gateway starts.
///
/// # Errors
/// Fails when the database cannot be read.
pub async fn start(
    tasks: &mut JoinSet<()>,
    parts: Parts,
    begun: Now,
    stop: CancellationToken,
) -> crate::store::Result<()> {
    let mut conn = parts.store.reader().await?;
    let floor = settings::clock_floor(&mut conn).await?;
    let told = events::clock_is_untrusted(&mut conn).await?;
    let ran_until = intervals::ran_until(&mut conn, floor).await?;
    drop(conn);
    let now = clock::now();
    let (stops, future) = (StopRecords::new(ran_until, now), FutureIntervals::new(now.mono));
    let mut watch = Watch { clock: Clock::new(floor, begun), stops, future, parts, told };
    watch.look().await;
    tasks.spawn(watch.run(stop));
    Ok(())
}

struct Watch {
    parts: Parts,
    clock: Clock,
    stops: StopRecords,
    future: FutureIntervals,
    /// People were notified that the clock is not trusted.
    told: bool,
}

impl Watch {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.parts.handle.clock_accepted() => self.read_floor().await,
                () = stop.cancelled() => {
                    self.clock.keep_next();
                    return self.look().await;
                }
            }
            self.look().await;
        }
    }

    /// Reads what an admin has accepted.
    async fn read_floor(&mut self) {
        let read = async { settings::clock_floor(&mut *self.parts.store.reader().await?).await };
        match read.await {
            Ok(floor) => {
                self.clock.accept(floor);
                self.stops.accept();
                self.future.may_exist(clock::now().mono);
            }
            Err(error) => tracing::warn!("the accepted time is not read: {error}"),
        }
    }

    async fn look(&mut self) {
        let now = clock::now();
        let seen = self.clock.look(now);
        if seen.went_back {
            self.future.may_exist(now.mono);
        }
        if seen.went_back || self.parts.handle.lacks_grants() {
            self.parts.handle.reload_grants().await;
        }
        if let Some(listed) = seen.listed
            && let Err(error) = self.note_step(&listed, now.wall).await
        {
            tracing::warn!("the event log lacks a step of the clock: {error}");
        }
        if let Some(floor) = seen.keep {
            match self.keep(floor).await {
                Ok(()) => self.clock.kept(floor),
                Err(error) => tracing::warn!("the time is not kept for the next start: {error}"),
            }
        }
        self.stops.look(&self.parts.store, now).await;
        self.future.look(&self.parts.store, now, self.clock.is_behind(now.wall)).await;
        self.report(seen.problem, now.wall).await;
        self.stops.looked(clock::now());
    }

    async fn keep(&self, floor: Wall) -> crate::store::Result<()> {
        let mut tx = self.parts.store.begin().await?;
        settings::raise_clock_floor(&mut tx, floor).await?;
        tx.commit().await
    }

    async fn note_step(&self, step: &ListedStep, at: Wall) -> crate::store::Result<()> {
        let cause = step.text();
        tracing::warn!("{cause}");
        let data = json!({ "ahead_s": step.ahead_ms as f64 / 1_000.0, "not_listed": step.not_listed });
        let event = NewEvent::new(at, "gateway.clock_stepped", events::NOBODY, &cause, events::SYSTEM);
        let mut tx = self.parts.store.begin().await?;
        let seq = events::append(&mut tx, &NewEvent { data, ..event }).await?;
        tx.commit().await?;
        self.parts.live.tell(Change::Event(seq));
        Ok(())
    }

    /// Shows what is wrong with the clock, and notifies people once.
    async fn report(&mut self, problem: Option<ClockProblem>, at: Wall) {
        if self.parts.live.health().clock_is(problem) {
            match &problem {
                Some(problem) => tracing::error!("{problem}"),
                None => tracing::info!("{TRUSTED}"),
            }
            self.parts.live.tell(Change::Problems);
        }
        let tells = match problem {
            Some(problem) => !self.told && is_worth_a_message(problem, at),
            None => self.told,
        };
        if tells {
            match self.notify(problem, at).await {
                Ok(()) => self.told = problem.is_some(),
                Err(error) => tracing::warn!("the state of the clock is not notified yet: {error}"),
            }
        }
    }

    /// Adds the event and the notification in one transaction.
    async fn notify(&self, problem: Option<ClockProblem>, at: Wall) -> crate::store::Result<()> {
        let text = problem.map_or_else(|| TRUSTED.to_owned(), |problem| problem.to_string());
        let kind = if problem.is_some() { events::CLOCK_UNTRUSTED } else { events::CLOCK_TRUSTED };
        let floor = problem.and_then(|problem| problem.floor());
        let data = if problem.is_some() { json!({ "floor": floor }) } else { json!({}) };
        let event = NewEvent::new(at, kind, events::NOBODY, &text, events::SYSTEM);
        let mut tx = self.parts.store.begin().await?;
        let seq = events::append(&mut tx, &NewEvent { data, ..event }).await?;
        notices::insert(&mut tx, &message(problem.is_some(), &text, at), Some(seq)).await?;
        tx.commit().await?;
        self.parts.live.tell(Change::Event(seq));
        self.parts.wakeups.notices();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::{Command, DEFAULT_MTU};
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::fixture;
    use crate::store::settings::ClockFloor;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A watch over a store of its own whose engine takes every command.
    struct Room {
        store: Store,
        live: LiveState,
        handle: Handle,
        commands: mpsc::Receiver<Command>,
        _inputs: mpsc::Receiver<fleetgate_engine::messages::MonitorInput>,
        _dir: tempfile::TempDir,
    }

    impl Room {
        async fn new(floor: &str) -> Room {
            let (store, dir) = fixture::store().await;
            let put = "insert into settings (name, value) values ('clock_floor', $1)";
            fixture::run(&store, put, &[floor]).await;
            let live = LiveState::default();
            let (commands_in, commands) = mpsc::channel(64);
            let (inputs_in, inputs) = mpsc::channel(64);
            let usual = (fixture::TIMING, DEFAULT_MTU);
            let handle = Handle::new(store.clone(), live.clone(), usual, commands_in, inputs_in);
            Room { store, live, handle, commands, _inputs: inputs, _dir: dir }
        }

        fn parts(&self) -> Parts {
            Parts {
                store: self.store.clone(),
                live: self.live.clone(),
                handle: self.handle.clone(),
                wakeups: Wakeups::default(),
            }
        }

        async fn watch(&self) -> Watch {
            let mut conn = self.store.reader().await.unwrap();
            let floor = settings::clock_floor(&mut conn).await.unwrap();
            let told = events::clock_is_untrusted(&mut conn).await.unwrap();
            let ran_until = intervals::ran_until(&mut conn, floor).await.unwrap();
            let now = clock::now();
            Watch {
                parts: self.parts(),
                clock: Clock::new(floor, now),
                stops: StopRecords::new(ran_until, now),
                future: FutureIntervals::new(now.mono),
                told,
            }
        }

        /// Returns the notifications as `kind to`.
        async fn notices(&self) -> Vec<String> {
            fixture::texts(
                &self.store,
                "select kind || ' ' || to_state || ' ' || service from notices where host = 0 order by id",
            )
            .await
        }
    }

    #[tokio::test]
    async fn a_gateway_that_starts_with_its_clock_behind_notifies_once_and_of_the_recovery() {
        let ahead = clock::wall() + HOUR;
        let mut room = Room::new(&ahead.as_millis().to_string()).await;
        let mut watch = room.watch().await;
        watch.look().await;
        watch.look().await;
        assert_eq!(room.notices().await, ["problem critical clock"]);
        let shown = room.live.health().clock_problem();
        assert_eq!(shown, Some(ClockProblem::Behind { floor: ahead, withheld: true }));
        let mut watch = room.watch().await;
        watch.look().await;
        assert_eq!(room.notices().await.len(), 1, "a restart repeats nothing");
        let mut tx = room.store.begin().await.unwrap();
        settings::accept_clock(&mut tx, clock::wall()).await.unwrap();
        tx.commit().await.unwrap();
        room.handle.accept_clock().await;
        assert!(matches!(room.commands.recv().await, Some(Command::Policy(_))));
        watch.parts.handle.clock_accepted().await;
        watch.read_floor().await;
        watch.look().await;
        assert_eq!(room.notices().await, ["problem critical clock", "recovery ok clock"]);
        assert_eq!(room.live.health().clock_problem(), None);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_during_the_start_loads_the_grants_again() {
        use fleetgate_engine::messages::PolicyChange;

        let mut room = Room::new("0").await;
        let now = clock::now();
        let begun = Now { wall: now.wall + HOUR, ..now };
        let mut tasks = JoinSet::new();
        start(&mut tasks, room.parts(), begun, CancellationToken::new()).await.unwrap();
        let Some(Command::Policy(changes)) = room.commands.recv().await else { panic!("the policy") };
        let is_grant = |change: &PolicyChange| matches!(change, PolicyChange::Grant(_));
        assert!(changes.len() == 2 && changes.iter().all(is_grant), "the default grants, not {changes:?}");
    }

    #[tokio::test]
    async fn the_time_before_a_start_is_recorded_once() {
        let floor = clock::wall() - HOUR;
        let room = Room::new(&floor.as_millis().to_string()).await;
        let mut watch = room.watch().await;
        watch.look().await;
        watch.look().await;
        let sql =
            "select host || ' ' || series || ' ' || began_at || ' ' || (ended_at > began_at) from intervals";
        let expected = format!("0 gateway_stopped {} 1", floor.as_millis());
        assert_eq!(fixture::texts(&room.store, sql).await, [expected]);
    }

    #[tokio::test]
    async fn a_floor_that_is_no_time_withholds_until_an_admin_accepts_the_clock() {
        let room = Room::new("soon").await;
        let mut watch = room.watch().await;
        watch.look().await;
        assert_eq!(room.live.health().clock_problem(), Some(ClockProblem::NoFloor));
        assert_eq!(room.notices().await, ["problem critical clock"]);
        let mut tx = room.store.begin().await.unwrap();
        settings::raise_clock_floor(&mut tx, clock::wall()).await.unwrap();
        assert_eq!(settings::clock_floor(&mut tx).await.unwrap(), ClockFloor::Unreadable, "nothing hides it");
        settings::accept_clock(&mut tx, Wall::from_millis(7_000)).await.unwrap();
        assert_eq!(settings::clock_floor(&mut tx).await.unwrap(), ClockFloor::At(Wall::from_millis(7_000)));
    }
}

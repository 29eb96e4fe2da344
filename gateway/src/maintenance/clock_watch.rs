//! Watches the gateway's clock: keeps the greatest time that it has shown, notes its steps, and notifies
//! when it is behind that time. It also records when the gateway did not run, which that time shows.
//!
//! The engine decides which grants pass (`fleetgate_engine::forward`). It notices a step by itself, before
//! the next packet; this module loads the grants that are open again after a step back.

use std::collections::VecDeque;
use std::time::Duration;

use fleetgate_engine::time::{Mono, Now, Step, Wall};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::engine::handle::Handle;
use crate::engine::live_state::{Change, LiveState};
use crate::health::ClockProblem;
use crate::maintenance::steady_clock::SteadyClock;
use crate::maintenance::stops::{Stop, Stops};
use crate::notification::{Wakeups, gateway_message};
use crate::store::events::{self, NewEvent};
use crate::store::settings::{self, ClockFloor};
use crate::store::{Store, intervals, notices};

/// Interval between two looks at the clocks. A step opens nothing for minutes, so it may be noted late.
const EVERY: Duration = Duration::from_secs(2);
/// A larger change between two looks is a step.
const STEP: Duration = Duration::from_secs(1);
/// Interval at which the greatest time is kept.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How long a clock must have run evenly before its time counts as shown: a minute in a wrong year would keep
/// grants shut for years. NTP corrects a step of its own within that time.
const PROVED: Duration = Duration::from_secs(5 * 60);
/// Steps that the event log lists in an hour. A clock that jumps to and fro makes thousands.
const LISTED_AN_HOUR: usize = 10;
const HOUR: Duration = Duration::from_secs(3_600);
/// How long after a step back, an acceptance or a start the intervals are looked at: a clock that was ahead
/// may have left some in the future, and it may be set more than once.
const CUT_AFTER: Duration = Duration::from_secs(60);
/// A clock that is less behind is right again before anybody has read the message.
const WORTH_A_MESSAGE: Duration = Duration::from_secs(60);

/// The service in a notification.
const SERVICE: &str = events::CLOCK_SERVICE;

/// What the watch works with.
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
    let (stops, cut_at) = (Stops::new(ran_until, now), Some(now.mono + CUT_AFTER));
    let mut watch = Watch { clock: Clock::new(floor, begun), stops, cut_at, parts, told };
    watch.look().await;
    tasks.spawn(watch.run(stop));
    Ok(())
}

struct Watch {
    parts: Parts,
    clock: Clock,
    stops: Stops,
    /// When intervals in the future are cut, once the clock is right.
    cut_at: Option<Mono>,
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
                self.cut_at = self.cut_at.or(Some(clock::now().mono + CUT_AFTER));
            }
            Err(error) => tracing::warn!("the accepted time is not read: {error}"),
        }
    }

    async fn look(&mut self) {
        let now = clock::now();
        let seen = self.clock.look(now);
        if seen.went_back {
            self.cut_at = self.cut_at.or(Some(now.mono + CUT_AFTER));
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
        if let Some(stop) = self.stops.look(now) {
            match self.record(stop).await {
                Ok(()) => self.stops.recorded(),
                Err(error) => tracing::warn!("when the gateway did not run is not recorded yet: {error}"),
            }
        }
        self.cut_future(now).await;
        self.report(seen.problem, now.wall).await;
        self.stops.looked(clock::now());
    }

    /// Cuts what a clock that was ahead has left.
    async fn cut_future(&mut self, now: Now) {
        let is_due = self.cut_at.is_some_and(|at| at <= now.mono);
        if !is_due || is_behind(self.clock.floor, now.wall) {
            return;
        }
        self.cut_at = match self.remove_future(now.wall).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!("intervals in the future stay for now: {error}");
                Some(now.mono + CUT_AFTER)
            }
        };
    }

    async fn remove_future(&self, now: Wall) -> crate::store::Result<()> {
        if !intervals::has_future(&mut *self.parts.store.reader().await?, now).await? {
            return Ok(());
        }
        let mut tx = self.parts.store.begin().await?;
        intervals::remove_future(&mut tx, now).await?;
        tx.commit().await
    }

    async fn record(&self, stop: Stop) -> crate::store::Result<()> {
        let mut tx = self.parts.store.begin().await?;
        intervals::add_stop(&mut tx, stop.from, stop.until).await?;
        tx.commit().await
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
        notices::insert(&mut tx, &gateway_message(SERVICE, problem.is_some(), &text, at), Some(seq)).await?;
        tx.commit().await?;
        self.parts.live.tell(Change::Event(seq));
        self.parts.wakeups.notices();
        Ok(())
    }
}

/// The text of the recovery.
const TRUSTED: &str = "the gateway's clock is trusted again: grants with a window pass as it says";

fn is_worth_a_message(problem: ClockProblem, now: Wall) -> bool {
    match problem {
        ClockProblem::Behind { floor, .. } => floor.since(now) > WORTH_A_MESSAGE,
        ClockProblem::NoFloor => true,
    }
}

/// A step that the event log lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ListedStep {
    ahead_ms: i64,
    /// Steps before it that the log does not list.
    not_listed: u64,
}

impl ListedStep {
    fn text(&self) -> String {
        let seconds = self.ahead_ms.unsigned_abs() as f64 / 1_000.0;
        let to = if self.ahead_ms < 0 { "back" } else { "ahead" };
        let more = match self.not_listed {
            0 => String::new(),
            count => format!(". {count} more steps before it are not listed"),
        };
        format!("the gateway's clock was set {to} by {seconds:.1} s{more}")
    }
}

/// What a look at the clocks shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    listed: Option<ListedStep>,
    went_back: bool,
    /// The time to keep as the greatest one.
    keep: Option<Wall>,
    problem: Option<ClockProblem>,
}

/// Decides what the readings of the clocks mean. Pure.
struct Clock {
    last: Now,
    steady: SteadyClock,
    floor: ClockFloor,
    /// The floor at the start. The engine passes no grant with a window while the clock is behind it.
    start_floor: ClockFloor,
    behind_since: Option<Mono>,
    kept_at: Option<Mono>,
    /// The steps of the last hour that were listed.
    listed: VecDeque<Mono>,
    not_listed: u64,
}

impl Clock {
    fn new(floor: ClockFloor, now: Now) -> Clock {
        Clock {
            last: now,
            steady: SteadyClock::new(now, STEP),
            floor,
            start_floor: floor,
            behind_since: None,
            kept_at: None,
            listed: VecDeque::new(),
            not_listed: 0,
        }
    }

    /// An admin has accepted the clock, and this is the floor since.
    fn accept(&mut self, floor: ClockFloor) {
        (self.floor, self.start_floor, self.behind_since) = (floor, ClockFloor::None, None);
    }

    fn kept(&mut self, floor: Wall) {
        self.floor = ClockFloor::At(floor);
    }

    /// The next look keeps the time if it is proved, because the gateway stops.
    fn keep_next(&mut self) {
        self.kept_at = None;
    }

    fn look(&mut self, now: Now) -> Seen {
        let step = Step::between(self.last, now);
        let even_for = self.steady.look(now);
        self.last = now;
        Seen {
            listed: step.and_then(|step| self.list(step, now.mono)),
            went_back: step.is_some_and(|step| step.ahead_ms() < 0),
            keep: self.keep(even_for, now),
            problem: self.problem(now),
        }
    }

    /// Decides whether the log lists a step, or only counts it.
    fn list(&mut self, step: Step, now: Mono) -> Option<ListedStep> {
        while self.listed.front().is_some_and(|at| now.since(*at) >= HOUR) {
            self.listed.pop_front();
        }
        if self.listed.len() >= LISTED_AN_HOUR {
            self.not_listed += 1;
            return None;
        }
        self.listed.push_back(now);
        Some(ListedStep { ahead_ms: step.ahead_ms(), not_listed: std::mem::take(&mut self.not_listed) })
    }

    fn keep(&mut self, even_for: Duration, now: Now) -> Option<Wall> {
        let is_due = self.kept_at.is_none_or(|at| now.mono.since(at) >= KEEP_EVERY);
        let is_later = match self.floor {
            ClockFloor::None => true,
            ClockFloor::At(floor) => floor < now.wall,
            ClockFloor::Unreadable => false,
        };
        if even_for < PROVED || !is_due || !is_later {
            return None;
        }
        self.kept_at = Some(now.mono);
        Some(now.wall)
    }

    /// A clock that was set back while the gateway runs has as long as NTP needs for a correction.
    fn problem(&mut self, now: Now) -> Option<ClockProblem> {
        if !is_behind(self.floor, now.wall) {
            self.behind_since = None;
            return None;
        }
        let withheld = is_behind(self.start_floor, now.wall);
        let since = *self.behind_since.get_or_insert(now.mono);
        match self.floor {
            ClockFloor::Unreadable => Some(ClockProblem::NoFloor),
            ClockFloor::At(floor) if withheld || now.mono.since(since) >= PROVED => {
                Some(ClockProblem::Behind { floor, withheld })
            }
            ClockFloor::At(_) | ClockFloor::None => None,
        }
    }
}

fn is_behind(floor: ClockFloor, now: Wall) -> bool {
    floor.at().is_some_and(|floor| now < floor)
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::{Command, DEFAULT_MTU};
    use tokio::sync::mpsc;

    use super::*;
    use crate::store::fixture;

    fn wall(s: i64) -> Wall {
        Wall::from_millis(s * 1_000)
    }

    fn at(mono_s: u64, wall_s: i64) -> Now {
        Now { mono: Mono::from_secs(mono_s), wall: wall(wall_s) }
    }

    /// Looks every two seconds while the clock runs evenly, and returns the times that were kept.
    fn run(clock: &mut Clock, from: Now, s: u64) -> Vec<Wall> {
        let later =
            |s| Now { mono: from.mono + Duration::from_secs(s), wall: from.wall + Duration::from_secs(s) };
        (2..=s).step_by(2).filter_map(|s| clock.look(later(s)).keep.inspect(|at| clock.kept(*at))).collect()
    }

    #[test]
    fn the_floor_moves_each_minute_once_the_clock_has_run_evenly_for_five() {
        let mut clock = Clock::new(ClockFloor::None, at(10, 1_000));
        assert_eq!(run(&mut clock, at(10, 1_000), 298), []);
        assert_eq!(run(&mut clock, at(308, 1_298), 62), [wall(1_300), wall(1_360)]);
        // A clock in a wrong year for four minutes keeps no grant shut.
        let wrong = at(372, 9_000_000);
        assert_eq!(clock.look(wrong).keep, None);
        assert_eq!(run(&mut clock, wrong, 240), []);
        let right = at(614, 1_604);
        assert_eq!(clock.look(right).keep, None);
        assert_eq!(run(&mut clock, right, 298), []);
        assert_eq!(run(&mut clock, at(912, 1_902), 2), [wall(1_904)]);
    }

    #[test]
    fn steps_in_both_directions_are_listed_ten_times_an_hour() {
        let mut clock = Clock::new(ClockFloor::None, at(10, 1_000));
        assert_eq!(clock.look(at(12, 1_003)).listed, None, "a second is slewing");
        let listed = |ahead_ms, not_listed| Some(ListedStep { ahead_ms, not_listed });
        let ahead = clock.look(at(14, 1_025));
        assert_eq!((ahead.listed, ahead.went_back), (listed(20_000, 0), false));
        let back = clock.look(at(16, 1_007));
        assert_eq!((back.listed, back.went_back), (listed(-20_000, 0), true));
        let mut to_and_fro = (0..20).map(|n| {
            let now =
                Now { mono: Mono::from_secs(18 + 2 * n), wall: wall(1_009 + 20 * ((n as i64 + 1) % 2)) };
            clock.look(now)
        });
        assert_eq!(to_and_fro.by_ref().take(8).filter(|seen| seen.listed.is_some()).count(), 8);
        assert!(to_and_fro.all(|seen| seen.listed.is_none()), "ten in this hour");
        let last = clock.last;
        let later = Now { mono: last.mono + HOUR, wall: last.wall };
        assert_eq!(clock.look(later).listed.map(|step| step.not_listed), Some(12));
        let step = ListedStep { ahead_ms: -12_340, not_listed: 3 };
        assert_eq!(
            step.text(),
            "the gateway's clock was set back by 12.3 s. 3 more steps before it are not listed"
        );
    }

    #[test]
    fn a_start_behind_the_floor_is_a_problem_until_the_clock_passes_it() {
        let floor = ClockFloor::At(wall(5_000));
        let mut clock = Clock::new(floor, at(10, 1_000));
        let behind = ClockProblem::Behind { floor: wall(5_000), withheld: true };
        assert_eq!(clock.look(at(12, 1_002)).problem, Some(behind));
        assert!(is_worth_a_message(behind, wall(4_939)));
        assert!(!is_worth_a_message(behind, wall(4_940)), "it is right in a minute");
        assert_eq!(clock.look(at(14, 5_000)).problem, None);
        let accepted = &mut Clock::new(floor, at(10, 1_000));
        accepted.accept(ClockFloor::At(wall(1_004)));
        assert_eq!(accepted.look(at(14, 1_004)).problem, None);
    }

    #[test]
    fn a_clock_that_is_set_back_later_has_five_minutes() {
        let mut clock = Clock::new(ClockFloor::At(wall(1_000)), at(10, 5_000));
        clock.kept(wall(5_000));
        assert_eq!(clock.look(at(12, 2_000)).problem, None);
        assert_eq!(clock.look(at(311, 2_299)).problem, None);
        let problem = clock.look(at(312, 2_300)).problem;
        assert_eq!(problem, Some(ClockProblem::Behind { floor: wall(5_000), withheld: false }));
    }

    #[test]
    fn a_floor_that_cannot_be_read_is_a_problem_and_stays() {
        let mut clock = Clock::new(ClockFloor::Unreadable, at(10, 1_000));
        let later = run(&mut clock, at(10, 1_000), 600);
        assert_eq!((later, clock.look(at(612, 1_602)).problem), (vec![], Some(ClockProblem::NoFloor)));
    }

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
                stops: Stops::new(ran_until, now),
                cut_at: None,
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
    async fn what_a_clock_ahead_has_recorded_is_cut_when_the_clock_is_right() {
        let now = clock::wall();
        let (floor, ahead) = (now - HOUR, now + HOUR);
        let room = Room::new(&floor.as_millis().to_string()).await;
        let mut tx = room.store.begin().await.unwrap();
        intervals::add_stop(&mut tx, floor, ahead).await.unwrap();
        tx.commit().await.unwrap();
        let mut watch = room.watch().await;
        watch.stops.accept();
        watch.cut_at = Some(clock::now().mono);
        watch.look().await;
        let ends = fixture::texts(&room.store, "select cast(ended_at as text) from intervals").await;
        let ends: Vec<i64> = ends.iter().map(|end| end.parse().unwrap()).collect();
        assert!(ends.len() == 1 && ends[0] < ahead.as_millis(), "{ends:?}");
        assert_eq!(watch.cut_at, None);
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
        settings::accept_clock(&mut tx, wall(7)).await.unwrap();
        assert_eq!(settings::clock_floor(&mut tx).await.unwrap(), ClockFloor::At(wall(7)));
    }
}

//! Sends committed changes of the database to the engine: commit first, then send.
//!
//! It loads the changed rows from the store and sends them to the two engine threads; it makes no
//! decisions. A change that cannot be loaded is remembered and sent later: a committed change is never
//! lost to the engine. The names and services of hosts are kept as loaded (`definitions.rs`).
//!
//! Callers that only ask are served by `tunnel_questions.rs`, and those that send results by
//! `submission.rs`.

mod changes;
mod submission;
#[cfg(test)]
mod tests;
mod tunnel_questions;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use fleetgate_engine::id::{HostId, Id, PeerId, RentalId};
use fleetgate_engine::messages::{
    Command, DnsDecision, Explanation, ForwardProbeReply, FullAt, HostSpec, MonitorInput, Outcome,
    PolicyChange, RentalPhase, UplinkReading,
};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::engine::definitions::{Definition, Definitions};
use crate::engine::live_state::{Change, LiveState};
use crate::engine::questions::Questions;
use crate::engine::rental_times::RentalTimes;
use crate::store::TimingDefaults;
use crate::store::policy::{self, PolicyRows};
use crate::store::rentals::handovers;
use crate::store::{Store, downtimes, grants, rentals, snapshot};
use crate::tunnel::thread::sleep;

pub use changes::Changes;
pub use submission::{NotTaken, Offered};

/// Commands in flight to each thread. They are drained each turn: a full queue means a hung thread, and
/// the sender waits.
pub const QUEUE: usize = 4096;
/// Hosts whose rows are brought in line together: some 20 ms of the writing connection, and less of the
/// monitor.
const SLICE: usize = 128;
/// Grants that are loaded together: a few milliseconds of the tunnel thread.
const GRANTS_AT_ONCE: usize = 500;
/// Longest wait for the monitor between two slices. If it takes longer, it is slow for other reasons.
const PASSED: Duration = Duration::from_millis(50);
/// Pauses between attempts to send failed changes: a removed device must not keep its tunnel for long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Time after which the caller's change counts as made although the engine does not have all of it. The
/// time limit of the request would otherwise report a failure.
const CALLER_WAITS: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    store: Store,
    live: LiveState,
    timing: TimingDefaults,
    /// The inner MTU of peers without one of their own.
    mtu: u16,
    definitions: Definitions,
    tunnel: mpsc::Sender<Command>,
    explanations: Questions<Explanation>,
    names: Questions<DnsDecision>,
    forward_probes: Questions<ForwardProbeReply>,
    monitor: mpsc::Sender<MonitorInput>,
    /// Locked from the read of a row until it is sent: of two changes the later one is sent last. Each
    /// thread has a lock of its own, because what a change withdraws must not wait for the monitor.
    tunnel_order: tokio::sync::Mutex<()>,
    monitor_order: tokio::sync::Mutex<()>,
    /// Changes that are committed and that the engine does not have yet.
    behind: Mutex<Changes>,
    fell_behind: Notify,
    /// Failed attempts since the last time that nothing was pending.
    failed: AtomicU64,
    /// Rows that permit nothing because they cannot be read.
    unreadable: Mutex<PolicyRows>,
    /// The clock was set or accepted, and not every grant that is open by it was loaded since.
    lacks_grants: AtomicBool,
    clock_accepted: Notify,
    rental_times: RentalTimes,
    #[cfg(test)]
    failures: Mutex<std::ops::Range<usize>>,
}

impl Handle {
    pub fn new(
        store: Store,
        live: LiveState,
        (timing, mtu): (TimingDefaults, u16),
        tunnel: mpsc::Sender<Command>,
        monitor: mpsc::Sender<MonitorInput>,
    ) -> Self {
        Handle(Arc::new(Inner {
            store,
            live,
            timing,
            mtu,
            definitions: Definitions::default(),
            tunnel,
            explanations: Questions::default(),
            names: Questions::default(),
            forward_probes: Questions::default(),
            monitor,
            tunnel_order: tokio::sync::Mutex::default(),
            monitor_order: tokio::sync::Mutex::default(),
            behind: Mutex::default(),
            fell_behind: Notify::new(),
            failed: AtomicU64::new(0),
            unreadable: Mutex::default(),
            lacks_grants: AtomicBool::new(false),
            clock_accepted: Notify::new(),
            rental_times: RentalTimes::default(),
            #[cfg(test)]
            failures: Mutex::default(),
        }))
    }

    /// Loads committed changes into the engine. A failure is repeated until it succeeds
    /// ([`Handle::keep_up`]). The work continues when the caller is gone or has waited long enough.
    pub async fn changed(&self, changes: Changes) {
        let changes = changes.with_policy();
        // This comes first: no later failure can lose the change.
        self.behind().add(&changes);
        self.0.definitions.forget(&changes.hosts);
        let told = tokio::spawn(self.clone().tell(changes));
        // The change is committed. On a slow disk the hosts of a large profile take longer than a caller
        // waits.
        let _ = tokio::time::timeout(CALLER_WAITS, told).await;
    }

    /// Sends the changes. A failure, even a panic, is queued for another attempt.
    async fn tell(self, changes: Changes) {
        let (this, attempt) = (self.clone(), changes.clone());
        let failed = tokio::spawn(async move { this.catch_up(attempt).await }).await.unwrap_or(changes);
        if !failed.is_empty() {
            self.0.definitions.forget(&failed.resettled);
            // Another caller's success may have removed it from the list, though it read the row before this
            // commit.
            self.behind().add(&failed);
            self.has_failed();
        }
    }

    /// Lets grants with a window pass again: an admin says that the clock is right.
    pub async fn accept_clock(&self) {
        self.send_policy(vec![PolicyChange::AcceptClock]).await;
        self.reload_grants().await;
        self.0.clock_accepted.notify_one();
        // It comes last: a monitor that is busy keeps no grant waiting.
        self.monitor(MonitorInput::AcceptClock).await;
    }

    /// Waits until an admin accepts the clock.
    pub async fn clock_accepted(&self) {
        self.0.clock_accepted.notified().await;
    }

    /// Loads every grant and rental that has not ended by the clock: the clock of before may have said that it
    /// has. The engine keeps what it knows already.
    pub async fn reload_grants(&self) {
        self.0.lacks_grants.store(true, Ordering::Relaxed);
        match self.load_grants().await {
            Ok(()) => self.0.lacks_grants.store(false, Ordering::Relaxed),
            Err(error) => tracing::warn!("grants are not loaded after a change of the clock yet: {error}"),
        }
    }

    /// Whether [`Handle::reload_grants`] has failed.
    pub fn lacks_grants(&self) -> bool {
        self.0.lacks_grants.load(Ordering::Relaxed)
    }

    async fn load_grants(&self) -> crate::store::Result<()> {
        let mut conn = self.0.store.reader().await?;
        let now = crate::clock::wall();
        let grants = grants::open_ids(&mut conn, now).await?;
        let rentals = rentals::policy::open_ids(&mut conn, now).await?;
        drop(conn);
        for slice in grants.chunks(GRANTS_AT_ONCE) {
            let policy = PolicyRows { grants: slice.iter().copied().collect(), ..PolicyRows::default() };
            self.changed(Changes { policy, ..Changes::default() }).await;
        }
        for slice in rentals.chunks(GRANTS_AT_ONCE) {
            let policy = PolicyRows { rentals: slice.iter().copied().collect(), ..PolicyRows::default() };
            self.changed(Changes { policy, ..Changes::default() }).await;
        }
        Ok(())
    }

    /// Notes which of these rows cannot be read.
    pub(crate) fn note_unreadable(&self, read: &PolicyRows, unreadable: &PolicyRows) {
        let mut known = self.0.unreadable.lock().expect("no holder panics");
        known.remove(read);
        known.add(unreadable);
        metrics::gauge!("fleetgate_unreadable_policy_rows").set(known.len() as f64);
    }

    /// The number of users, hosts, grants and rentals that permit nothing because their rows cannot be read.
    pub fn unreadable_rows(&self) -> usize {
        self.0.unreadable.lock().expect("no holder panics").len()
    }

    fn has_failed(&self) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
        self.measure();
        self.0.fell_behind.notify_one();
    }

    /// Takes over the hosts with which the engine is restored.
    pub(crate) fn begin_with<'a>(&self, specs: impl IntoIterator<Item = &'a HostSpec>) {
        specs.into_iter().for_each(|spec| self.0.definitions.put(Definition::from(spec)));
    }

    /// The names and services of hosts as the engine has them.
    pub(crate) fn definitions(&self) -> &Definitions {
        &self.0.definitions
    }

    /// Repeats failed changes at growing intervals until the gateway stops.
    pub async fn keep_up(self, stop: CancellationToken) {
        let pauses = || {
            let steps = ExponentialBuilder::new().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
            steps.without_max_times().build()
        };
        let mut steps = pauses();
        loop {
            let wait = self.is_behind().then(|| steps.next().unwrap_or(LONGEST_PAUSE));
            tokio::select! {
                () = sleep(wait) => {}
                () = self.0.fell_behind.notified() => continue,
                () = stop.cancelled() => return,
            }
            if self.repeat().await {
                tracing::info!("the engine has received every change again");
                steps = pauses();
            }
        }
    }

    /// Attempts all failed changes once. Returns whether none is left.
    pub(crate) async fn repeat(&self) -> bool {
        let failed = self.0.failed.load(Ordering::Relaxed);
        let changes = self.behind().clone();
        let missing = self.catch_up(changes).await;
        let done = missing.is_empty();
        // Both threads hear of a rental. The first one took it off the list.
        self.behind().add(&missing);
        if done {
            // A failure in the meantime concerns a change that this attempt did not include.
            let _ = self.0.failed.compare_exchange(failed, 0, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
        }
        self.measure();
        done
    }

    /// Whether the engine lacks a change because of a failure. Hosts of a profile that wait for their slice
    /// do not count.
    pub fn is_behind(&self) -> bool {
        self.0.failed.load(Ordering::Relaxed) > 0 && !self.behind().is_empty()
    }

    fn behind(&self) -> MutexGuard<'_, Changes> {
        self.0.behind.lock().expect("no holder panics")
    }

    fn measure(&self) {
        let behind = if self.is_behind() { self.behind().len() } else { 0 };
        metrics::gauge!("fleetgate_changes_behind").set(behind as f64);
    }

    /// Sends the changes. Returns those that failed.
    async fn catch_up(&self, changes: Changes) -> Changes {
        let mut failed = Changes::default();
        // The policy comes first: what it withdraws must not wait for hosts.
        let told = self.policy_changed(&changes.policy).await;
        if !heard("who may reach what", told) {
            failed.policy = changes.policy.clone();
        }
        let told = self.handovers_changed(&changes.policy.rentals).await;
        if !heard("the handover of rentals", told) {
            failed.policy.rentals.extend(&changes.policy.rentals);
        }
        let settled: Vec<RentalId> = changes.settled.into_iter().collect();
        for slice in settled.chunks(GRANTS_AT_ONCE) {
            let told = self.rentals_settled(slice).await;
            if !heard(&format!("{} rentals", slice.len()), told) {
                failed.settled.extend(slice);
            }
            self.let_others_pass().await;
        }
        for id in changes.peers {
            let told = self.peer_changed(id).await;
            failed.peers.extend(Some(id).filter(|_| !heard(&format!("peer {id}"), told)));
        }
        for id in changes.hosts {
            let told = self.host_changed(id).await;
            failed.hosts.extend(Some(id).filter(|_| !heard(&format!("host {id}"), told)));
        }
        for id in changes.downtimes {
            let told = self.downtime_changed(id).await;
            failed.downtimes.extend(Some(id).filter(|_| !heard(&format!("downtime {id}"), told)));
        }
        let resettled: Vec<HostId> = changes.resettled.into_iter().collect();
        for slice in resettled.chunks(SLICE) {
            let told = self.hosts_resettled(slice).await;
            if !heard(&format!("{} hosts", slice.len()), told) {
                failed.resettled.extend(slice);
            }
            self.let_others_pass().await;
        }
        failed
    }

    /// Sends the changes of who may reach what: the rows decide. All of them take effect together.
    async fn policy_changed(&self, asked: &PolicyRows) -> anyhow::Result<()> {
        if asked.is_empty() {
            return Ok(());
        }
        let _in_turn = self.0.tunnel_order.lock().await;
        let mut conn = self.0.store.reader().await?;
        let (rows, read) = policy::all_changes(&mut conn, asked).await?;
        drop(conn);
        self.note_unreadable(&rows, &read.unreadable);
        if !read.changes.is_empty() {
            self.send_policy(read.changes).await;
        }
        // Of other rentals that were read too the monitor may not have heard.
        self.behind().policy.remove(asked);
        Ok(())
    }

    /// Sends some rentals of devices whose profile says otherwise how they are rented.
    async fn rentals_settled(&self, rentals: &[RentalId]) -> anyhow::Result<()> {
        let rentals: BTreeSet<RentalId> = rentals.iter().copied().collect();
        let policy = PolicyRows { rentals, ..PolicyRows::default() };
        self.policy_changed(&policy).await?;
        self.handovers_changed(&policy.rentals).await?;
        self.behind().settled.retain(|id| !policy.rentals.contains(id));
        Ok(())
    }

    /// Sends the rentals that begin when their device is handed over: the rows decide.
    async fn handovers_changed(&self, rentals: &BTreeSet<RentalId>) -> anyhow::Result<()> {
        if rentals.is_empty() {
            return Ok(());
        }
        let _in_turn = self.0.monitor_order.lock().await;
        self.fails_in_tests()?;
        let mut gated = handovers::these(&mut *self.0.store.reader().await?, rentals).await?;
        for rental in rentals {
            self.monitor(match gated.remove(rental) {
                Some(spec) => MonitorInput::Handover(Box::new(spec)),
                None => MonitorInput::ForgetHandover(*rental),
            })
            .await;
        }
        Ok(())
    }

    /// Sends a peer that was added, changed or removed: its row decides.
    async fn peer_changed(&self, id: PeerId) -> anyhow::Result<()> {
        let _in_turn = self.0.tunnel_order.lock().await;
        self.fails_in_tests()?;
        let command = match self.0.store.peer_spec(id, self.0.mtu).await? {
            Some((spec, memory)) => Command::Upsert(Box::new(spec), memory),
            None => {
                self.0.live.forget_peer(id);
                Command::Remove(id)
            }
        };
        self.tunnel(command).await;
        self.behind().peers.remove(&id);
        Ok(())
    }

    /// Sends a host that was added, changed or removed: its row decides.
    async fn host_changed(&self, id: HostId) -> anyhow::Result<()> {
        let _in_turn = self.0.monitor_order.lock().await;
        // The previous holder of the lock may have loaded the old row.
        self.0.definitions.forget([&id]);
        self.fails_in_tests()?;
        let store = &self.0.store;
        let (input, change) = match store.host_spec(id, &self.0.timing).await? {
            Some(spec) => {
                store.settle(&spec).await?;
                self.0.definitions.put(Definition::from(&spec));
                (MonitorInput::Upsert(Box::new(spec)), Change::Host(id))
            }
            None => {
                store.forget_states(id).await?;
                (MonitorInput::Remove(id), Change::HostRemoved(id))
            }
        };
        self.monitor(input).await;
        self.0.live.tell(change);
        self.behind().hosts.remove(&id);
        Ok(())
    }

    /// Sends a downtime that was planned, changed or cancelled: its row decides.
    async fn downtime_changed(&self, id: Id) -> anyhow::Result<()> {
        let _in_turn = self.0.monitor_order.lock().await;
        self.fails_in_tests()?;
        let mut conn = self.0.store.reader().await?;
        let found = downtimes::find(&mut conn, id).await?;
        drop(conn);
        let input = match found.filter(|row| row.cancelled_at.is_none()) {
            Some(row) => MonitorInput::Downtime(Box::new(row.plan)),
            None => MonitorInput::CancelDowntime(id),
        };
        self.monitor(input).await;
        self.behind().downtimes.remove(&id);
        Ok(())
    }

    /// Brings the rows of states in line after a change of these hosts' profiles, and updates the monitor.
    /// As after a change of one host, the monitor briefly has the old services. A gateway that ends between
    /// two slices handles the others at its next start.
    async fn hosts_resettled(&self, hosts: &[HostId]) -> anyhow::Result<()> {
        let _in_turn = self.0.monitor_order.lock().await;
        self.0.definitions.forget(hosts);
        self.fails_in_tests()?;
        let mut conn = self.0.store.reader().await?;
        let specs = snapshot::host_specs(&mut conn, hosts, &self.0.timing).await?;
        drop(conn);
        self.0.store.settle_these(&specs).await?;
        for spec in specs {
            let id = spec.id;
            self.0.definitions.put(Definition::from(&spec));
            self.monitor(MonitorInput::Upsert(Box::new(spec))).await;
            self.0.live.tell(Change::Host(id));
        }
        let done: BTreeSet<&HostId> = hosts.iter().collect();
        self.behind().resettled.retain(|id| !done.contains(id));
        Ok(())
    }

    /// Waits until the monitor has taken its inputs, so that no result waits behind more than one slice.
    /// The writer gets its turn as well.
    async fn let_others_pass(&self) {
        let drained = || self.0.monitor.capacity() == self.0.monitor.max_capacity();
        for _ in 0..PASSED.as_millis() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if drained() {
                return;
            }
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the tests have one that fails")]
    fn fails_in_tests(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Fails as many reads as a test requests.
    #[cfg(test)]
    fn fails_in_tests(&self) -> anyhow::Result<()> {
        let mut failures = self.0.failures.lock().unwrap();
        let fails = failures.start == 0 && failures.end > 0;
        *failures = failures.start.saturating_sub(1)..failures.end.saturating_sub(1);
        anyhow::ensure!(!fails, "a test wants this reading to fail");
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn fail(&self, times: usize) {
        self.fail_those(0..times);
    }

    /// Fails these of the reads to come.
    #[cfg(test)]
    pub(crate) fn fail_those(&self, readings: std::ops::Range<usize>) {
        *self.0.failures.lock().unwrap() = readings;
    }

    pub async fn reset_clock(&self, peer: PeerId) {
        self.tunnel(Command::ResetClock(peer)).await;
    }

    pub async fn check_now(&self, host: HostId, service: Option<String>) {
        self.0.live.check_requested(host, service.as_deref(), crate::clock::wall());
        self.monitor(MonitorInput::CheckNow { host, service }).await;
    }

    /// Sends an input to the monitor and waits until its effects are on disk.
    pub async fn settle(&self, input: MonitorInput) -> Option<Outcome> {
        self.monitor(input).await;
        self.settled().await
    }

    /// Waits until the effects of all that was sent before are on disk.
    pub async fn settled(&self) -> Option<Outcome> {
        let (ticket, waiter) = self.0.live.tickets().draw();
        self.monitor(MonitorInput::Mark(ticket)).await;
        waiter.outcome().await
    }

    /// Sends what the rentals of a device mean for its monitoring.
    pub async fn rental_phase(&self, phase: RentalPhase) {
        self.monitor(MonitorInput::RentalPhase(Box::new(phase))).await;
    }

    /// Sends when services are full, for their next results.
    pub async fn forecasts(&self, forecasts: Vec<FullAt>) {
        if !forecasts.is_empty() {
            self.monitor(MonitorInput::Forecasts(forecasts)).await;
        }
    }

    /// Shows an event that was stored.
    pub fn event(&self, seq: i64) {
        self.0.live.tell(Change::Event(seq));
    }

    /// Sends a reading of the gateway's own uplink.
    pub async fn uplink(&self, reading: UplinkReading) {
        self.monitor(MonitorInput::Uplink(reading)).await;
    }

    /// Makes the monitor's thread run one round. Never waits: a full queue wakes the thread too.
    pub fn nudge(&self) {
        let _ = self.0.monitor.try_send(MonitorInput::Timeout);
    }

    /// The times of rentals by both clocks.
    pub fn rental_times(&self) -> &RentalTimes {
        &self.0.rental_times
    }

    async fn send_policy(&self, changes: Vec<PolicyChange>) {
        self.0.rental_times.note(&changes, crate::clock::now());
        self.tunnel(Command::Policy(changes)).await;
    }

    /// Whether both engine threads still receive.
    pub fn is_running(&self) -> bool {
        !self.0.tunnel.is_closed() && !self.0.monitor.is_closed()
    }

    async fn tunnel(&self, command: Command) {
        if self.0.tunnel.send(command).await.is_err() {
            tracing::warn!("the tunnel thread has ended; a command was dropped");
        }
    }

    async fn monitor(&self, input: MonitorInput) {
        if self.0.monitor.send(input).await.is_err() {
            tracing::warn!("the monitor thread has ended; a command was dropped");
        }
    }
}

fn heard(what: &str, told: anyhow::Result<()>) -> bool {
    if let Err(error) = &told {
        tracing::warn!("the engine has not received a change of {what}; it is sent again: {error:#}");
    }
    told.is_ok()
}

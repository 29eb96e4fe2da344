//! How the shell tells the engine that the database changed: commit first, then tell.
//!
//! Carries values to the two engine threads; loads them from the store; decides nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::wire::{Command, MonitorInput, Outcome, Submission, Ticket, UplinkReading};
use tokio::sync::mpsc;

use crate::config::TimingDefaults;
use crate::live::{Change, Live};
use crate::store::{Refusal, Store, Trouble};
use crate::tickets::{Admission, Content};

/// Commands in flight to each thread. They are drained each turn; a full queue means a hung
/// thread, and the sender waits.
pub const QUEUE: usize = 4096;

/// Why a result has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The database takes nothing: nothing changed.
    Refused(Refusal),
    /// It counts, and is not on disk in good time. The same one again is this one.
    NotYet,
}

#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    store: Store,
    live: Live,
    timing: TimingDefaults,
    tunnel: mpsc::Sender<Command>,
    monitor: mpsc::Sender<MonitorInput>,
    /// Held from the reading of a row to its sending: of two changes the later one is sent last.
    order: tokio::sync::Mutex<()>,
}

impl Handle {
    pub fn new(
        store: Store,
        live: Live,
        timing: TimingDefaults,
        tunnel: mpsc::Sender<Command>,
        monitor: mpsc::Sender<MonitorInput>,
    ) -> Self {
        let order = tokio::sync::Mutex::default();
        Handle(Arc::new(Inner { store, live, timing, tunnel, monitor, order }))
    }

    /// A peer was added, changed or removed: its row decides which.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn peer_changed(&self, id: PeerId) -> anyhow::Result<()> {
        let _in_turn = self.0.order.lock().await;
        let command = match self.0.store.peer_spec(id).await? {
            Some((spec, memory)) => Command::Upsert(Box::new(spec), memory),
            None => {
                self.0.live.forget_peer(id);
                Command::Remove(id)
            }
        };
        self.tunnel(command).await;
        Ok(())
    }

    /// A host was added, changed or removed: its row decides which.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn host_changed(&self, id: HostId) -> anyhow::Result<()> {
        let _in_turn = self.0.order.lock().await;
        let store = &self.0.store;
        let (input, change) = match store.host_spec(id, &self.0.timing).await? {
            Some(spec) => {
                store.settle(&spec).await?;
                (MonitorInput::Upsert(Box::new(spec)), Change::Host(id))
            }
            None => {
                store.forget_states(id).await?;
                (MonitorInput::Remove(id), Change::HostRemoved(id))
            }
        };
        self.monitor(input).await;
        self.0.live.tell(change);
        Ok(())
    }

    /// Profiles changed under these hosts, and their rows of states with them.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn hosts_resettled(&self, hosts: &BTreeSet<HostId>) -> anyhow::Result<()> {
        let _in_turn = self.0.order.lock().await;
        for spec in self.0.store.host_specs(hosts, &self.0.timing).await? {
            let id = spec.id;
            self.monitor(MonitorInput::Upsert(Box::new(spec))).await;
            self.0.live.tell(Change::Host(id));
        }
        Ok(())
    }

    pub async fn reset_clock(&self, peer: PeerId) {
        self.tunnel(Command::ResetClock(peer)).await;
    }

    pub async fn check_now(&self, host: HostId, service: Option<String>) {
        self.0.live.check_requested(host, service.as_deref(), crate::clock::wall());
        self.monitor(MonitorInput::CheckNow { host, service }).await;
    }

    /// A result that somebody sent. One of the same `content` that waits for its commit is that one;
    /// any other takes effect only when the database takes writes.
    ///
    /// # Errors
    /// [`NotTaken`]: whether it may still be taken.
    pub async fn submit(
        &self,
        content: Option<Content>,
        make: impl FnOnce(Ticket) -> Submission,
    ) -> Result<Outcome, NotTaken> {
        let (tickets, now) = (self.0.live.tickets(), || crate::clock::now().mono);
        let waiting = content.and_then(|content| tickets.find(content, now()));
        let admission = match waiting {
            Some(waiting) => waiting,
            None => {
                self.0.store.prove().await.map_err(NotTaken::Refused)?;
                tickets.admit(content, now())
            }
        };
        match admission {
            Admission::New(ticket, waiter) => {
                self.monitor(MonitorInput::Submit(Box::new(make(ticket)))).await;
                waiter.outcome().await.ok_or(NotTaken::NotYet)
            }
            Admission::Joined(waiter) => waiter.outcome().await.ok_or(NotTaken::NotYet),
            Admission::Known(outcome) => Ok(outcome),
            Admission::Full => Err(NotTaken::Refused(Some(Trouble::Busy))),
        }
    }

    /// Tells the monitor and waits until what follows is on disk.
    pub async fn settle(&self, input: MonitorInput) -> Option<Outcome> {
        let (ticket, waiter) = self.0.live.tickets().draw();
        self.monitor(input).await;
        self.monitor(MonitorInput::Mark(ticket)).await;
        waiter.outcome().await
    }

    /// What was seen of the gateway's own way out.
    pub async fn uplink(&self, reading: UplinkReading) {
        self.monitor(MonitorInput::Uplink(reading)).await;
    }

    /// The monitor's thread is to go round once. Never waits: a full queue wakes it too.
    pub fn nudge(&self) {
        let _ = self.0.monitor.try_send(MonitorInput::Timeout);
    }

    /// Whether both engine threads still listen.
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

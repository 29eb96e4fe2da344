//! What only memory knows: the peers' counters of this moment, and who wants to hear of changes.
//!
//! Decides nothing and stores nothing; everything in here is lost at a restart, by design.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::wire::PeerStatus;
use tokio::sync::broadcast;

use crate::health::Health;
use crate::pulse::Pulse;
use crate::tickets::Tickets;

/// A slow reader of an event stream that falls this far behind is told to load again.
const BACKLOG: usize = 4096;

/// Something that a dashboard would redraw. Sent after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The host's row, its state, or one of its services.
    Host(HostId),
    HostRemoved(HostId),
    /// Tunnel figures of a device.
    Peer(PeerId),
    /// The newest sequence number of the event log.
    Event(i64),
    Enrolment(i64),
}

#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    peers: RwLock<HashMap<PeerId, PeerStatus>>,
    changes: broadcast::Sender<Change>,
    health: Health,
    pulse: Pulse,
    tickets: Tickets,
}

impl Default for Live {
    fn default() -> Self {
        let (changes, _) = broadcast::channel(BACKLOG);
        let (peers, health, tickets) = (RwLock::default(), Health::default(), Tickets::default());
        Live(Arc::new(Inner { peers, changes, health, pulse: Pulse::default(), tickets }))
    }
}

impl Live {
    pub fn peer(&self, id: PeerId) -> Option<PeerStatus> {
        self.0.peers.read().expect("no holder panics").get(&id).cloned()
    }

    pub fn set_peer(&self, id: PeerId, status: PeerStatus) {
        self.0.peers.write().expect("no holder panics").insert(id, status);
        self.tell(Change::Peer(id));
    }

    pub fn forget_peer(&self, id: PeerId) {
        self.0.peers.write().expect("no holder panics").remove(&id);
    }

    pub fn tickets(&self) -> &Tickets {
        &self.0.tickets
    }

    /// Nobody listening is no error.
    pub fn tell(&self, change: Change) {
        let _ = self.0.changes.send(change);
    }

    /// Whether the databases take what is written.
    pub fn pulse(&self) -> &Pulse {
        &self.0.pulse
    }

    pub fn health(&self) -> &Health {
        &self.0.health
    }

    pub fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }
}

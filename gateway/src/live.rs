//! What only memory knows: the peers' counters of this moment, and who wants to hear of changes.
//!
//! Decides nothing and stores nothing; everything in here is lost at a restart, by design.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::time::Wall;
use fleetgate_engine::verdict::Turns;
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

/// Where a peer's last packet came from, and when.
type Place = (Option<SocketAddr>, Option<Wall>);

#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    peers: RwLock<HashMap<PeerId, PeerStatus>>,
    /// Of those that have moved.
    turns: RwLock<HashMap<PeerId, Turns>>,
    changes: broadcast::Sender<Change>,
    health: Health,
    pulse: Pulse,
    tickets: Tickets,
}

impl Default for Live {
    fn default() -> Self {
        let (changes, _) = broadcast::channel(BACKLOG);
        Live(Arc::new(Inner {
            peers: RwLock::default(),
            turns: RwLock::default(),
            changes,
            health: Health::default(),
            pulse: Pulse::default(),
            tickets: Tickets::default(),
        }))
    }
}

impl Live {
    pub fn peer(&self, id: PeerId) -> Option<PeerStatus> {
        self.0.peers.read().expect("no holder panics").get(&id).cloned()
    }

    pub fn set_peer(&self, id: PeerId, status: PeerStatus) {
        let at = (status.endpoint, status.last_packet);
        let before = self.0.peers.write().expect("no holder panics").insert(id, status);
        self.note_move(id, before.map(|before| (before.endpoint, before.last_packet)), at);
        self.tell(Change::Peer(id));
    }

    pub fn forget_peer(&self, id: PeerId) {
        self.0.peers.write().expect("no holder panics").remove(&id);
        self.forget_moves(id);
    }

    /// Under another key it is another device.
    pub fn forget_moves(&self, id: PeerId) {
        self.0.turns.write().expect("no holder panics").remove(&id);
    }

    /// The addresses that packets of a peer come from in turn.
    pub fn in_turn(&self, id: PeerId, now: Wall) -> Vec<SocketAddr> {
        let turns = self.0.turns.read().expect("no holder panics");
        turns.get(&id).map(|turns| turns.in_turn(now)).unwrap_or_default()
    }

    fn note_move(&self, id: PeerId, before: Option<Place>, after: Place) {
        let (Some((Some(from), Some(left))), (Some(to), Some(at))) = (before, after) else { return };
        if from != to {
            let mut turns = self.0.turns.write().expect("no holder panics");
            let turns = turns.entry(id).or_default();
            turns.note(from, left);
            turns.note(to, at);
        }
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

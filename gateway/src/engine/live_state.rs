//! State that exists in memory only: the peers' current counters, and the subscribers to changes.
//!
//! It makes no decisions and stores nothing. A restart loses all of it, by design.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use fleetgate_engine::id::{HostId, PeerId};
use fleetgate_engine::messages::{Attempts, DropReason, PeerStatus};
use fleetgate_engine::time::{Now, Wall};
use fleetgate_engine::verdict::EndpointFlaps;
use fleetgate_keys::PublicKey;
use tokio::sync::broadcast;

use crate::engine::commit_wait::CommitWaits;
use crate::engine::unknown_keys::{UnknownKey, UnknownKeys};
use crate::health::Health;
use crate::health::progress::Progress;

/// An event-stream client that falls this far behind is asked to load everything again.
const BACKLOG: usize = 4096;

/// A change that a dashboard would redraw. Sent after the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The host's row, its state, or one of its services.
    Host(HostId),
    HostRemoved(HostId),
    /// The tunnel of a device: whether it has a session, its endpoint, and the last refusal.
    Peer(PeerId),
    /// Only the figures of the tunnel: the time of the last packet and the bytes.
    Traffic(PeerId),
    /// A result of a host or of one of its services that changed no state. The times are the host's own.
    Checked {
        host: HostId,
        last_check: Option<Wall>,
        next_check: Option<Wall>,
    },
    /// An entry of the problem counts or the list of problems that belongs to no single host.
    Problems,
    /// The newest sequence number of the event log.
    Event(i64),
    Enrolment(i64),
}

impl Change {
    /// Whether the counters, the list of problems or a verdict in it may look different now. A result that
    /// changed no state affects only its time.
    pub fn moves_summary(&self) -> bool {
        match self {
            Change::Host(_) | Change::HostRemoved(_) | Change::Enrolment(_) | Change::Problems => true,
            Change::Peer(_) | Change::Traffic(_) | Change::Checked { .. } | Change::Event(_) => false,
        }
    }
}

/// The endpoint of a peer's last packet, and its time.
type LastPacket = (Option<SocketAddr>, Option<Wall>);

/// How long a requested check is shown, unless its result comes first. The result comes by the deadline
/// of the check, but a service of a host that is down is not probed.
const REQUEST_SHOWN: Duration = Duration::from_secs(60);

/// A check of a host (`None`) or of one of its services.
type Checked = (HostId, Option<String>);

#[derive(Clone)]
pub struct LiveState(Arc<Inner>);

struct Inner {
    peers: RwLock<HashMap<PeerId, PeerStatus>>,
    /// For peers whose endpoint has changed.
    turns: RwLock<HashMap<PeerId, EndpointFlaps>>,
    /// Requested checks, and the times of the requests.
    requests: RwLock<BTreeMap<Checked, Wall>>,
    unknown_keys: RwLock<UnknownKeys>,
    changes: broadcast::Sender<Change>,
    /// Counts the changes that affect a summary.
    revision: AtomicU64,
    /// Time of the newest result since the start, in milliseconds; 0 when there is none yet.
    last_check: AtomicI64,
    health: Health,
    pulse: Progress,
    tickets: CommitWaits,
}

impl Default for LiveState {
    fn default() -> Self {
        let (changes, _) = broadcast::channel(BACKLOG);
        LiveState(Arc::new(Inner {
            peers: RwLock::default(),
            turns: RwLock::default(),
            requests: RwLock::default(),
            unknown_keys: RwLock::default(),
            changes,
            revision: AtomicU64::new(0),
            last_check: AtomicI64::new(0),
            health: Health::default(),
            pulse: Progress::default(),
            tickets: CommitWaits::default(),
        }))
    }
}

impl LiveState {
    pub fn peer(&self, id: PeerId) -> Option<PeerStatus> {
        self.0.peers.read().expect("no holder panics").get(&id).cloned()
    }

    pub fn set_peer(&self, id: PeerId, status: PeerStatus) {
        let (at, essence) = ((status.endpoint, status.last_packet), essence(&status));
        let before = self.0.peers.write().expect("no holder panics").insert(id, status);
        let is_same =
            before.as_ref().is_some_and(|before| crate::engine::live_state::essence(before) == essence);
        self.note_move(id, before.map(|before| (before.endpoint, before.last_packet)), at);
        self.tell(if is_same { Change::Traffic(id) } else { Change::Peer(id) });
    }

    /// Returns the peers of which the most was dropped, with their counts by reason, the most first.
    pub fn most_dropped(&self, most: usize) -> Vec<(PeerId, BTreeMap<DropReason, u64>)> {
        let peers = self.0.peers.read().expect("no holder panics");
        let count = |status: &PeerStatus| status.drops.values().sum::<u64>();
        let mut ranked: Vec<(u64, PeerId)> =
            peers.iter().map(|(id, status)| (count(status), *id)).filter(|(count, _)| *count > 0).collect();
        ranked.sort_unstable_by_key(|(count, id)| (Reverse(*count), *id));
        ranked.truncate(most);
        let with_counts = |(_, id): (u64, PeerId)| Some((id, peers.get(&id)?.drops.clone()));
        ranked.into_iter().filter_map(with_counts).collect()
    }

    pub fn forget_peer(&self, id: PeerId) {
        self.0.peers.write().expect("no holder panics").remove(&id);
        self.forget_moves(id);
    }

    /// Forgets the changes of endpoint: with another key it is another device.
    pub fn forget_moves(&self, id: PeerId) {
        self.0.turns.write().expect("no holder panics").remove(&id);
    }

    /// Returns the endpoints between which packets of a peer alternate.
    pub fn in_turn(&self, id: PeerId, now: Wall) -> Vec<SocketAddr> {
        let turns = self.0.turns.read().expect("no holder panics");
        turns.get(&id).map(|turns| turns.in_turn(now)).unwrap_or_default()
    }

    /// Returns the time since when packets of a peer come from their present endpoint.
    pub fn moved(&self, id: PeerId) -> Option<Wall> {
        self.0.turns.read().expect("no holder panics").get(&id).and_then(EndpointFlaps::moved)
    }

    fn note_move(&self, id: PeerId, before: Option<LastPacket>, after: LastPacket) {
        let (Some((Some(from), Some(left))), (Some(to), Some(at))) = (before, after) else { return };
        if from != to {
            let mut turns = self.0.turns.write().expect("no holder panics");
            let turns = turns.entry(id).or_default();
            turns.note(from, left);
            turns.note(to, at);
        }
    }

    /// Records that a check was requested, of the host with its services or of one service.
    pub fn check_requested(&self, host: HostId, service: Option<&str>, now: Wall) {
        let mut requests = self.0.requests.write().expect("no holder panics");
        requests.retain(|_, at| is_shown(*at, now));
        requests.insert((host, service.map(str::to_owned)), now);
        drop(requests);
        self.tell(Change::Host(host));
    }

    /// Returns the time of the requested check, if it is later than the last check.
    pub fn requested(
        &self,
        host: HostId,
        service: Option<&str>,
        last_check: Option<Wall>,
        now: Wall,
    ) -> Option<Wall> {
        let requests = self.0.requests.read().expect("no holder panics");
        let of_all = requests.get(&(host, None));
        let own = service.and_then(|name| requests.get(&(host, Some(name.to_owned()))));
        let newest = of_all.max(own).copied()?;
        let open = last_check.is_none_or(|done| done < newest);
        (open && is_shown(newest, now)).then_some(newest)
    }

    /// Records a handshake with a key that belongs to no device. Returns whether to log it; see
    /// [`UnknownKeys::note`].
    pub fn note_unknown_key(&self, key: PublicKey, from: SocketAddr, now: Now) -> Option<u64> {
        self.0.unknown_keys.write().expect("no holder panics").note(key, from, now)
    }

    /// Returns the last keys that belong to no device, the newest first.
    pub fn unknown_keys(&self) -> Vec<UnknownKey> {
        self.0.unknown_keys.read().expect("no holder panics").recent()
    }

    pub fn tickets(&self) -> &CommitWaits {
        &self.0.tickets
    }

    /// Notifies the subscribers. It is no error if there are none.
    pub fn tell(&self, change: Change) {
        if change.moves_summary() {
            self.0.revision.fetch_add(1, Ordering::AcqRel);
        }
        let _ = self.0.changes.send(change);
    }

    /// Returns a number that grows with each change that affects a summary, after its commit. Data that was
    /// read at the same number is current.
    pub fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    /// Records that a result of this time is on disk. A time from before the clock was set back does not
    /// stay the newest.
    pub fn checked(&self, at: Wall, now: Wall) {
        let newest =
            |known: i64| (at.as_millis() > known || known > now.as_millis()).then_some(at.as_millis());
        let _ = self.0.last_check.fetch_update(Ordering::AcqRel, Ordering::Acquire, newest);
    }

    /// Returns the time of the newest result. `None` when there is none since the start; the rows have it
    /// then.
    pub fn last_check(&self) -> Option<Wall> {
        Some(self.0.last_check.load(Ordering::Acquire)).filter(|at| *at > 0).map(Wall::from_millis)
    }

    /// The times of the last rounds of the components.
    pub fn pulse(&self) -> &Progress {
        &self.0.pulse
    }

    pub fn health(&self) -> &Health {
        &self.0.health
    }

    pub fn listen(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }
}

/// The part of a status that is not a mere figure: whether there is a session, its endpoint, and the
/// outcome of handshakes. Times and counters change with each packet.
fn essence(status: &PeerStatus) -> impl PartialEq + use<> {
    let Attempts { refused, unproved, replaced, pending: _ } = status.attempts;
    (status.established, status.endpoint, status.last_refusal, refused, unproved, replaced)
}

/// The first comparison prevents that a request is shown for ever after the clock was set back.
fn is_shown(requested: Wall, now: Wall) -> bool {
    requested <= now && now.since(requested) < REQUEST_SHOWN
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;

    const HOST: HostId = Id::from_i64(7);

    fn at(seconds: i64) -> Wall {
        Wall::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_request_is_shown_until_its_result_and_not_for_ever() {
        let live = LiveState::default();
        let mut changes = live.listen();
        live.check_requested(HOST, None, at(100));
        assert_eq!(changes.try_recv().ok(), Some(Change::Host(HOST)));
        let host = |done, now| live.requested(HOST, None, done, at(now));
        assert_eq!(host(None, 100), Some(at(100)));
        assert_eq!(host(Some(at(99)), 110), Some(at(100)));
        assert_eq!((host(Some(at(101)), 110), host(Some(at(99)), 160), host(None, 90)), (None, None, None));
        assert_eq!(live.requested(HOST, Some("ping"), None, at(101)), Some(at(100)), "with its services");
        assert_eq!(live.requested(Id::from_i64(8), None, None, at(101)), None);
    }

    #[test]
    fn a_packet_moves_no_summary_and_a_state_does() {
        let live = LiveState::default();
        let mut changes = live.listen();
        let status = PeerStatus { established: true, ..PeerStatus::default() };
        live.set_peer(HOST, status.clone());
        live.set_peer(HOST, PeerStatus { rx_bytes: 32, last_packet: Some(at(9)), ..status.clone() });
        live.set_peer(HOST, PeerStatus { established: false, ..status });
        let told: Vec<Change> = std::iter::from_fn(|| changes.try_recv().ok()).collect();
        assert_eq!(told, [Change::Peer(HOST), Change::Traffic(HOST), Change::Peer(HOST)]);
        live.tell(Change::Checked { host: HOST, last_check: None, next_check: None });
        assert_eq!(live.revision(), 0);
        live.tell(Change::Host(HOST));
        assert_eq!(live.revision(), 1);
    }

    #[test]
    fn the_newest_result_is_none_of_the_future() {
        let live = LiveState::default();
        assert_eq!(live.last_check(), None);
        for (result, now, newest) in [(100, 100, 100), (90, 101, 100), (110, 110, 110), (50, 51, 50)] {
            live.checked(at(result), at(now));
            assert_eq!(live.last_check(), Some(at(newest)));
        }
    }

    #[test]
    fn a_request_for_one_service_is_its_own_and_old_ones_are_let_go() {
        let live = LiveState::default();
        live.check_requested(HOST, Some("ping"), at(100));
        assert_eq!(live.requested(HOST, Some("ping"), None, at(101)), Some(at(100)));
        assert_eq!(
            (live.requested(HOST, None, None, at(101)), live.requested(HOST, Some("x"), None, at(101))),
            (None, None)
        );
        live.check_requested(HOST, Some("ssh"), at(500));
        assert_eq!(live.0.requests.read().unwrap().len(), 1);
    }
}

//! The records that wait for the disk, and their deadline. Pure: the caller passes the time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id, PeerId};
use fleetgate_engine::messages::{
    Event, HostKey, HostState, IncidentRecord, Message, Outcome, PeerStatus, Record, Sample, ServiceState,
    Tai64n, Ticket, TunnelEvent,
};
use fleetgate_engine::time::{Mono, Now, Wall};
use fleetgate_keys::PublicKey;

use crate::history;

/// How long results wait for others to share their commit. An operator does not notice it, and the disk
/// syncs ten times a second.
const GATHER: Duration = Duration::from_millis(100);
/// A commit that this many results, events and messages shared shows that many senders wait side by side. The next
/// one waits until as many are there again, but not for long: a commit for each few of them would cost more than
/// their results. A few senders are never held up.
const CROWD: usize = 16;
const CROWD_GATHERS: Duration = Duration::from_millis(40);
/// Longest wait of a handshake timestamp or an endpoint: half of the second that is promised.
const LEARNT: Duration = Duration::from_millis(500);
/// Shortest interval between two writes of the counters and times of a peer.
const STATUS: Duration = Duration::from_secs(10);
/// Peers whose counters go into one commit, so that none takes long; the others follow.
const STATUS_ROWS: usize = 2_000;
const STATUS_NEXT: Duration = Duration::from_millis(200);
/// Events and messages that may wait. A fleet of 100,000 that goes down at once makes about as many
/// within its three attempts. More can only mean that the disk has failed.
pub(super) const MAX_LOG: usize = if cfg!(test) { 4_096 } else { 65_536 };
/// Results whose metrics may wait, about 300 bytes each.
pub(super) const MAX_SAMPLES: usize = 65_536;

/// An update of a peer from the tunnels.
#[derive(Clone, Debug, PartialEq)]
pub enum MemoryUpdate {
    Stamp(PeerId, Tai64n),
    Endpoint(PeerId, SocketAddr),
    Status(PeerId, Box<PeerStatus>),
    RetiredStamp(PublicKey, Tai64n),
    /// Everything stored before belongs to another key.
    Rekeyed(PeerId),
    /// The timestamps stored before are no longer valid.
    ClockReset(PeerId),
}

impl MemoryUpdate {
    /// `None` when the news contains nothing to be stored.
    pub fn from_news(news: &TunnelEvent) -> Option<Self> {
        match news {
            TunnelEvent::Stamp(peer, stamp) => Some(MemoryUpdate::Stamp(*peer, *stamp)),
            TunnelEvent::Endpoint(peer, endpoint) => Some(MemoryUpdate::Endpoint(*peer, *endpoint)),
            TunnelEvent::Status(peer, status) => Some(MemoryUpdate::Status(*peer, status.clone())),
            TunnelEvent::RetiredStamp(key, stamp) => Some(MemoryUpdate::RetiredStamp(*key, *stamp)),
            TunnelEvent::Rekeyed(peer) => Some(MemoryUpdate::Rekeyed(*peer)),
            TunnelEvent::ClockReset(peer) => Some(MemoryUpdate::ClockReset(*peer)),
            _ => None,
        }
    }
}

/// A record that must keep its order and may not be lost.
#[derive(Debug, PartialEq)]
pub(super) enum Entry {
    Event(Event),
    Message(Message),
    Pinned { host: HostId, key: HostKey },
    AckEnded(Id, Wall),
    Incident(IncidentRecord),
}

/// The content of one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub hosts: HashMap<HostId, HostState>,
    /// Shared with the senders that wait for them.
    pub services: HashMap<HostId, Vec<Arc<ServiceState>>>,
    pub log: Vec<Entry>,
    /// Applied before the updates below: an earlier batch, or one that the API's change overtook, may have
    /// written values that are to be removed.
    pub rekeyed: BTreeSet<PeerId>,
    pub clock_reset: BTreeSet<PeerId>,
    pub stamps: HashMap<PeerId, Tai64n>,
    pub retired_stamps: HashMap<PublicKey, Tai64n>,
    pub endpoints: HashMap<PeerId, (SocketAddr, Wall)>,
    pub statuses: Vec<(PeerId, Box<PeerStatus>)>,
    /// A commit was requested as a proof.
    pub proof: bool,
    /// In the order of the results: of two of one second, the last counts.
    pub samples: Vec<Sample>,
    /// Not part of the transaction: the tickets that wait for it.
    pub replies: Vec<(Ticket, Outcome)>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.services.is_empty()
            && self.log.is_empty()
            && self.rekeyed.is_empty()
            && self.clock_reset.is_empty()
            && self.stamps.is_empty()
            && self.retired_stamps.is_empty()
            && self.endpoints.is_empty()
            && self.statuses.is_empty()
            && !self.proof
            && self.samples.is_empty()
            && self.replies.is_empty()
    }

    /// Returns the hosts whose row changes.
    pub fn changed_hosts(&self) -> BTreeSet<HostId> {
        self.hosts.keys().chain(self.services.keys()).copied().collect()
    }

    /// Returns the time of the newest result in the batch.
    pub fn last_check(&self) -> Option<Wall> {
        let services = self.services.values().flatten().map(|state| state.last_check);
        self.hosts.values().map(|state| state.last_check).chain(services).max().flatten()
    }

    /// Returns the state of a service in the batch.
    pub fn service(&self, host: HostId, name: &str) -> Option<&Arc<ServiceState>> {
        self.services.get(&host)?.iter().find(|state| state.name == name)
    }

    pub fn describe(&self) -> String {
        let services: usize = self.services.values().map(Vec::len).sum();
        let states = self.hosts.len() + services;
        let stamps = self.stamps.len() + self.retired_stamps.len();
        let learnt = stamps + self.endpoints.len() + self.statuses.len();
        format!("{} events and messages, {states} states and {learnt} facts of tunnels", self.log.len())
    }
}

#[derive(Default)]
pub(super) struct Pending {
    batch: Batch,
    statuses: BTreeMap<PeerId, Box<PeerStatus>>,
    next_statuses: Mono,
    /// The size of the last commit if it was shared by a crowd, and until when the next one waits for as many.
    crowd: usize,
    crowd_until: Mono,
    deadline: Option<Mono>,
}

impl Pending {
    pub fn has_room(&self) -> bool {
        self.batch.log.len() < MAX_LOG
    }

    pub fn due(&self) -> Option<Mono> {
        self.deadline
    }

    /// Queues records. Returns whether the deadline moved forward.
    pub fn add(&mut self, records: Vec<Record>, now: Mono) -> bool {
        let urgent =
            records.iter().any(|r| matches!(r, Record::Event(_) | Record::Message(_) | Record::Reply(..)));
        for record in records {
            self.add_one(record);
        }
        let urgent_at = if self.urgent() < self.crowd { now.max(self.crowd_until) } else { now };
        self.not_later_than(if urgent { urgent_at } else { now + GATHER })
    }

    fn add_one(&mut self, record: Record) {
        let batch = &mut self.batch;
        match record {
            Record::Host(state) => drop(batch.hosts.insert(state.host, *state)),
            Record::Service(host, state) => replace(batch.services.entry(host).or_default(), Arc::new(state)),
            Record::Sample(sample) if batch.samples.len() < MAX_SAMPLES => batch.samples.push(sample),
            Record::Sample(sample) => history::dropped("lag", sample.metrics.len() as u64),
            Record::Event(event) => batch.log.push(Entry::Event(event)),
            Record::Message(message) => batch.log.push(Entry::Message(message)),
            Record::Pinned { host, key } => batch.log.push(Entry::Pinned { host, key }),
            Record::AckEnded(id, at) => batch.log.push(Entry::AckEnded(id, at)),
            Record::Incident(record) => batch.log.push(Entry::Incident(record)),
            Record::Reply(ticket, outcome) => batch.replies.push((ticket, outcome)),
        }
    }

    /// Returns the number of records that somebody waits for.
    fn urgent(&self) -> usize {
        self.batch.replies.len() + self.batch.log.len()
    }

    /// Queues an update of a peer. Returns whether the deadline moved forward.
    pub fn learn(&mut self, update: MemoryUpdate, now: Now) -> bool {
        let at = match update {
            MemoryUpdate::Stamp(peer, stamp) => {
                self.batch.stamps.insert(peer, stamp);
                now.mono + LEARNT
            }
            MemoryUpdate::RetiredStamp(key, stamp) => {
                self.batch.retired_stamps.insert(key, stamp);
                now.mono + LEARNT
            }
            MemoryUpdate::Endpoint(peer, endpoint) => {
                self.batch.endpoints.insert(peer, (endpoint, now.wall));
                now.mono + LEARNT
            }
            MemoryUpdate::Status(peer, status) => {
                self.statuses.insert(peer, status);
                self.next_statuses.max(now.mono + GATHER)
            }
            MemoryUpdate::Rekeyed(peer) => {
                self.batch.stamps.remove(&peer);
                self.batch.endpoints.remove(&peer);
                self.statuses.remove(&peer);
                self.batch.rekeyed.insert(peer);
                now.mono + LEARNT
            }
            MemoryUpdate::ClockReset(peer) => {
                self.batch.stamps.remove(&peer);
                self.batch.clock_reset.insert(peer);
                now.mono + LEARNT
            }
        };
        self.not_later_than(at)
    }

    /// Requests a commit now, even of an empty batch.
    pub fn prove(&mut self, now: Mono) {
        self.batch.proof = true;
        self.not_later_than(now);
    }

    fn not_later_than(&mut self, at: Mono) -> bool {
        let sooner = self.deadline.is_none_or(|deadline| at < deadline);
        if sooner {
            self.deadline = Some(at);
        }
        sooner
    }

    /// Takes everything that is due now.
    pub fn take(&mut self, now: Mono) -> Batch {
        if now >= self.next_statuses {
            self.sweep(now, STATUS_ROWS);
        }
        self.deadline = (!self.statuses.is_empty()).then_some(self.next_statuses);
        let urgent = self.urgent();
        self.crowd = if urgent < CROWD { 0 } else { urgent };
        self.crowd_until = now + CROWD_GATHERS;
        std::mem::take(&mut self.batch)
    }

    /// Takes everything, at the end.
    pub fn take_all(&mut self) -> Batch {
        self.sweep(Mono::ZERO, usize::MAX);
        self.deadline = None;
        std::mem::take(&mut self.batch)
    }

    fn sweep(&mut self, now: Mono, most: usize) {
        while self.batch.statuses.len() < most {
            let Some(next) = self.statuses.pop_first() else { break };
            self.batch.statuses.push(next);
        }
        self.next_statuses = now + if self.statuses.is_empty() { STATUS } else { STATUS_NEXT };
    }
}

fn replace(services: &mut Vec<Arc<ServiceState>>, state: Arc<ServiceState>) {
    match services.iter_mut().find(|s| s.name == state.name) {
        Some(old) => *old = state,
        None => services.push(state),
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::messages::EventKind;
    use fleetgate_probes::sample::Status;

    use super::*;
    use crate::store::fixture;

    const HOST: HostId = Id::from_i64(7);

    fn at(ms: u64) -> Mono {
        Mono::from_millis(ms)
    }

    fn now(ms: u64) -> Now {
        Now { mono: at(ms), wall: Wall::from_millis(0) }
    }

    fn event() -> Record {
        Record::Event(Event {
            at: Wall::from_millis(0),
            host: HOST,
            service: None,
            kind: EventKind::FirstHandshake,
            cause: String::new(),
            evidence: "".into(),
            by: None,
        })
    }

    #[test]
    fn results_are_batched_and_changes_are_committed_at_once() {
        let mut pending = Pending::default();
        assert!(pending.add(vec![Record::Host(Box::new(fixture::up(HOST)))], at(1_000)));
        assert_eq!(pending.due(), Some(at(1_100)));
        assert!(!pending.add(vec![Record::Host(Box::new(fixture::up(HOST)))], at(1_050)));
        assert!(pending.add(vec![event()], at(1_060)));
        assert_eq!(pending.due(), Some(at(1_060)));
        let batch = pending.take(at(1_060));
        assert_eq!((batch.hosts.len(), batch.log.len()), (1, 1));
        assert_eq!(pending.due(), None);
    }

    /// Queues events one after the other, a millisecond apart, and returns when they are committed.
    fn committed_at(pending: &mut Pending, count: u64, from_ms: u64) -> Mono {
        for ms in from_ms..from_ms + count {
            pending.add(vec![event()], at(ms));
        }
        let due = pending.due().unwrap();
        pending.take(due);
        due
    }

    #[test]
    fn a_crowd_shares_commits_and_few_senders_do_not_wait() {
        let mut pending = Pending::default();
        assert_eq!(committed_at(&mut pending, 15, 1_000), at(1_000));
        assert_eq!(committed_at(&mut pending, 1, 1_016), at(1_016), "few came before it");
        assert_eq!(committed_at(&mut pending, 30, 2_000), at(2_000));
        assert_eq!(committed_at(&mut pending, 30, 2_001), at(2_030), "as many are there again");
        assert_eq!(committed_at(&mut pending, 20, 2_035), at(2_070), "no more came in time");
        assert_eq!(committed_at(&mut pending, 15, 2_071), at(2_110));
        assert_eq!(committed_at(&mut pending, 1, 2_111), at(2_111));
        assert_eq!(committed_at(&mut pending, 16, 2_200), at(2_200));
        assert_eq!(committed_at(&mut pending, 1, 9_000), at(9_000), "long after the crowd");
    }

    #[test]
    fn a_proof_does_not_wait_for_a_crowd() {
        let mut pending = Pending::default();
        pending.add(vec![event(); CROWD], at(1_000));
        pending.take(at(1_000));
        pending.add(vec![event()], at(1_002));
        pending.prove(at(1_003));
        assert_eq!(pending.due(), Some(at(1_003)));
    }

    #[test]
    fn the_newest_state_of_a_service_wins() {
        let mut pending = Pending::default();
        for status in [Status::Ok, Status::Critical] {
            pending.add(vec![Record::Service(HOST, fixture::service("ping", status))], at(0));
        }
        pending.add(vec![Record::Service(HOST, fixture::service("disk", Status::Ok))], at(0));
        let services = &pending.take(at(0)).services[&HOST];
        assert_eq!((services.len(), services[0].hard), (2, Some(Status::Critical)));
    }

    #[test]
    fn stamps_are_committed_within_a_second_and_counters_every_ten() {
        let mut pending = Pending::default();
        let status = || MemoryUpdate::Status(HOST, Box::default());
        pending.learn(status(), now(1_000));
        assert_eq!(pending.due(), Some(at(1_100)));
        assert_eq!(pending.take(at(1_100)).statuses.len(), 1);

        pending.learn(status(), now(2_000));
        assert_eq!(pending.due(), Some(at(11_100)));
        pending.learn(MemoryUpdate::Stamp(HOST, Tai64n([0; 12])), now(3_000));
        assert_eq!(pending.due(), Some(at(3_500)));
        let batch = pending.take(at(3_500));
        assert_eq!((batch.stamps.len(), batch.statuses.len()), (1, 0));
        assert_eq!(pending.due(), Some(at(11_100)));
        assert_eq!(pending.take(at(11_100)).statuses.len(), 1);
    }

    #[test]
    fn updates_of_a_replaced_key_are_not_written() {
        let mut pending = Pending::default();
        let stamp = |n| MemoryUpdate::Stamp(HOST, Tai64n([n; 12]));
        let endpoint = MemoryUpdate::Endpoint(HOST, ([192, 0, 2, 1], 1).into());
        for update in [stamp(1), endpoint, MemoryUpdate::Status(HOST, Box::default())] {
            pending.learn(update, now(0));
        }
        pending.learn(MemoryUpdate::Rekeyed(HOST), now(0));
        pending.learn(stamp(2), now(0));
        let batch = pending.take_all();
        assert_eq!((batch.endpoints.len(), batch.statuses.len()), (0, 0));
        assert_eq!((batch.stamps[&HOST], batch.rekeyed.len()), (Tai64n([2; 12]), 1));
        pending.learn(stamp(3), now(0));
        pending.learn(MemoryUpdate::ClockReset(HOST), now(0));
        let batch = pending.take_all();
        assert_eq!((batch.stamps.len(), batch.clock_reset.len()), (0, 1));
    }

    #[test]
    fn the_counters_of_many_peers_are_committed_in_parts() {
        let mut pending = Pending::default();
        for n in 0..STATUS_ROWS as i64 + 1 {
            pending.learn(MemoryUpdate::Status(Id::from_i64(n), Box::default()), now(0));
        }
        assert_eq!(pending.take(at(100)).statuses.len(), STATUS_ROWS);
        assert_eq!(pending.due(), Some(at(300)));
        assert_eq!(pending.take(at(300)).statuses.len(), 1);
        assert_eq!(pending.due(), None);
    }

    #[test]
    fn samples_are_bounded_and_full_logs_report_no_room() {
        let mut pending = Pending::default();
        let sample =
            Sample { host: HOST, service: String::new(), at: Wall::from_millis(0), metrics: [].into() };
        let samples = vec![Record::Sample(sample); MAX_SAMPLES + 5];
        pending.add(samples, at(0));
        pending.add(vec![event(); MAX_LOG], at(0));
        assert!(!pending.has_room());
        assert_eq!(pending.take(at(0)).samples.len(), MAX_SAMPLES);
        assert!(pending.has_room());
    }

    #[test]
    fn only_events_with_stored_data_become_updates() {
        assert!(MemoryUpdate::from_news(&TunnelEvent::Up(HOST)).is_none());
        assert!(MemoryUpdate::from_news(&TunnelEvent::Stamp(HOST, Tai64n([1; 12]))).is_some());
    }
}

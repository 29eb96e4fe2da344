//! How many queries wait for resolvers, in total and for one peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use fleetgate_engine::id::PeerId;

/// Each takes a socket and some kilobytes for as long as the resolver is silent.
const MAX: usize = 256;
/// A browser with many tabs has some dozens in flight.
const MAX_OF_PEER: usize = 64;

/// Cheap to clone.
#[derive(Clone, Default)]
pub struct InFlight(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    all: usize,
    peers: HashMap<PeerId, usize>,
}

/// The permit of a query, which is free again when it is dropped.
pub struct QueryPermit {
    of: InFlight,
    peer: PeerId,
}

impl InFlight {
    /// Takes a permit for a query of this peer, if one is free.
    pub fn enter(&self, peer: PeerId) -> Option<QueryPermit> {
        let mut counts = self.lock();
        let of_peer = counts.peers.get(&peer).copied().unwrap_or(0);
        if counts.all >= MAX || of_peer >= MAX_OF_PEER {
            return None;
        }
        counts.all += 1;
        counts.peers.insert(peer, of_peer + 1);
        Some(QueryPermit { of: self.clone(), peer })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().expect("no holder panics")
    }
}

impl Drop for QueryPermit {
    fn drop(&mut self) {
        let mut counts = self.of.lock();
        counts.all -= 1;
        let left = counts.peers.remove(&self.peer).unwrap_or(0).saturating_sub(1);
        if left > 0 {
            counts.peers.insert(self.peer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;

    #[test]
    fn no_peer_takes_all_places_and_places_come_back() {
        let in_flight = InFlight::default();
        let enter = |n: i64, times: usize| -> Vec<QueryPermit> {
            (0..times).filter_map(|_| in_flight.enter(Id::from_i64(n))).collect()
        };
        let first = enter(1, 1_000);
        assert_eq!(first.len(), MAX_OF_PEER);
        let others: Vec<QueryPermit> = (2..10).flat_map(|n| enter(n, MAX_OF_PEER)).collect();
        assert_eq!(first.len() + others.len(), MAX);
        drop(first);
        assert_eq!(enter(1, 1).len(), 1);
        drop(others);
        assert!(in_flight.lock().peers.is_empty());
    }
}

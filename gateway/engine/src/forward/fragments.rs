//! Fragments follow the decision about their first fragment.
//!
//! The first fragment holds the whole transport header and is judged as a packet. The later ones
//! name no ports: they pass only after a first one of the same packet, as long as its flow is
//! permitted, and only if they do not overlap the header that was judged.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::headers::Bits;
use super::lists::Slot;
use super::tcp_state::Direction;
use crate::id::PeerId;
use crate::messages::DropReason;
use crate::time::Mono;

/// Receivers give up reassembly after 30 s (Linux) to 60 s.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Fragmented packets under way from one peer. The search is linear. At 1,000 fragmented packets a
/// second it covers the 60 ms that their fragments may be out of order.
const PER_PEER: usize = 64;

/// In total: half a megabyte. When all places are taken, the peer with the most of them loses its oldest one.
const TOTAL: usize = 4_096;

/// The fields that all fragments of a packet have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketId {
    pub v6: bool,
    pub src: Bits,
    pub dst: Bits,
    pub protocol: u8,
    pub id: u32,
}

/// The flow that a first fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    pub slot: Slot,
    pub serial: u64,
    pub direction: Direction,
    /// The bytes of the transport header, which later fragments must not overlap.
    pub header: usize,
}

struct Entry {
    packet: PacketId,
    followed: Followed,
    until: Mono,
}

#[derive(Default)]
pub struct Fragments {
    peers: HashMap<PeerId, VecDeque<Entry>>,
    len: usize,
}

impl Fragments {
    /// Notes a first fragment that passes. The oldest packet of the same peer leaves for it, or that of a peer
    /// that has more than its share.
    pub fn note(&mut self, peer: PeerId, packet: PacketId, followed: Followed, now: Mono) {
        self.forget(peer, |entry| entry.packet == packet || entry.until <= now);
        if self.peers.get(&peer).is_some_and(|entries| entries.len() >= PER_PEER) {
            self.forget_oldest(peer);
        }
        if self.len >= TOTAL {
            self.forget_expired(now);
        }
        if self.len >= TOTAL {
            self.forget_of_largest();
        }
        let entry = Entry { packet, followed, until: now + TIMEOUT };
        self.peers.entry(peer).or_default().push_back(entry);
        self.len += 1;
    }

    /// Returns the flow that a later fragment belongs to.
    ///
    /// # Errors
    /// Fails when no first fragment was seen, or when this one overlaps its header.
    pub fn follow(
        &self,
        peer: PeerId,
        packet: &PacketId,
        offset: usize,
        now: Mono,
    ) -> Result<Followed, DropReason> {
        let entries = self.peers.get(&peer).ok_or(DropReason::Fragment)?;
        let entry = entries.iter().find(|entry| entry.packet == *packet && now < entry.until);
        let followed = entry.ok_or(DropReason::Fragment)?.followed;
        if offset < followed.header { Err(DropReason::Fragment) } else { Ok(followed) }
    }

    fn forget(&mut self, peer: PeerId, is_gone: impl Fn(&Entry) -> bool) {
        let Some(entries) = self.peers.get_mut(&peer) else { return };
        let before = entries.len();
        entries.retain(|entry| !is_gone(entry));
        self.len -= before - entries.len();
        if entries.is_empty() {
            self.peers.remove(&peer);
        }
    }

    fn forget_oldest(&mut self, peer: PeerId) {
        let oldest = self.peers.get_mut(&peer).and_then(|entries| entries.pop_front());
        self.len -= usize::from(oldest.is_some());
    }

    /// Forgets the oldest packet of the peer that has most. A peer below its share loses none.
    fn forget_of_largest(&mut self) {
        let largest = self.peers.iter().max_by_key(|(peer, entries)| (entries.len(), **peer));
        let Some(peer) = largest.map(|(peer, _)| *peer) else { return };
        self.forget_oldest(peer);
        if self.peers.get(&peer).is_some_and(VecDeque::is_empty) {
            self.peers.remove(&peer);
        }
    }

    fn forget_expired(&mut self, now: Mono) {
        for entries in self.peers.values_mut() {
            while entries.front().is_some_and(|entry| entry.until <= now) {
                entries.pop_front();
                self.len -= 1;
            }
        }
        self.peers.retain(|_, entries| !entries.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    const FOLLOWED: Followed = Followed { slot: 1, serial: 1, direction: Direction::Out, header: 20 };

    fn packet(id: u32) -> PacketId {
        PacketId { v6: false, src: 1, dst: 2, protocol: 6, id }
    }

    fn peer(n: usize) -> PeerId {
        Id::from_i64(n as i64)
    }

    #[test]
    fn later_fragments_follow_the_first_one_of_the_same_packet_and_peer() {
        let mut fragments = Fragments::default();
        let now = Mono::from_secs(1);
        fragments.note(peer(1), packet(7), FOLLOWED, now);
        assert_eq!(fragments.follow(peer(1), &packet(7), 24, now), Ok(FOLLOWED));
        for (from, id, offset) in [(2, 7, 24), (1, 8, 24), (1, 7, 16), (1, 7, 8)] {
            let followed = fragments.follow(peer(from), &packet(id), offset, now);
            assert_eq!(followed, Err(DropReason::Fragment), "{from} {id} {offset}");
        }
        assert!(fragments.follow(peer(1), &packet(7), 24, Mono::from_secs(30)).is_ok());
        assert!(fragments.follow(peer(1), &packet(7), 24, Mono::from_secs(31)).is_err());
    }

    #[test]
    fn the_table_is_bounded_per_peer_and_in_total() {
        let mut fragments = Fragments::default();
        let now = Mono::from_secs(1);
        for id in 0..1_000 {
            fragments.note(peer(1), packet(id), FOLLOWED, now);
        }
        assert_eq!(fragments.len, PER_PEER);
        assert!(fragments.follow(peer(1), &packet(999), 24, now).is_ok());
        assert!(fragments.follow(peer(1), &packet(0), 24, now).is_err());
        fill(&mut fragments, now);
        fragments.note(peer(999), packet(1), FOLLOWED, now);
        assert_eq!(fragments.len, TOTAL);
        fragments.note(peer(998), packet(5), FOLLOWED, Mono::from_secs(31));
        assert_eq!(fragments.len, 1, "the others have expired");
    }

    /// So many peers that all places are taken, each with as many as it may have.
    fn fill(fragments: &mut Fragments, now: Mono) {
        for n in 1..=TOTAL / PER_PEER {
            (0..64).for_each(|id| fragments.note(peer(n), packet(id), FOLLOWED, now));
        }
        assert_eq!(fragments.len, TOTAL);
    }

    #[test]
    fn peers_that_hold_all_places_keep_none_from_another_one() {
        let mut fragments = Fragments::default();
        let now = Mono::from_secs(1);
        fill(&mut fragments, now);
        for id in 0..40 {
            fragments.note(peer(999), packet(id), FOLLOWED, now);
            // The others go on.
            (1..=TOTAL / PER_PEER).for_each(|n| fragments.note(peer(n), packet(100 + id), FOLLOWED, now));
        }
        assert!((0..40).all(|id| fragments.follow(peer(999), &packet(id), 24, now).is_ok()));
        let places = fragments.peers.values().map(VecDeque::len);
        assert_eq!((places.clone().sum::<usize>(), fragments.len), (TOTAL, TOTAL));
        assert!(places.min() >= Some(40), "no peer loses more than its share");
    }
}

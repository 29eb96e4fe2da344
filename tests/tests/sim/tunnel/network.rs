//! A network that delays, loses, duplicates and reorders, and a stranger who captures datagrams.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;

use fleetgate_engine::time::Mono;

use super::random::Random;

/// Datagrams that the stranger keeps at most.
const MEMORY: usize = 64;

/// The quality of the network.
#[derive(Clone, Copy)]
pub struct Weather {
    pub delay_ms: (u64, u64),
    /// Per mille.
    pub loss: u64,
    pub doubling: u64,
}

pub const CALM: Weather = Weather { delay_ms: (10, 30), loss: 0, doubling: 0 };

impl Weather {
    pub fn draw(random: &mut Random) -> Self {
        let shortest = 1 + random.below(50);
        let longest = shortest + random.below(400);
        Weather { delay_ms: (shortest, longest), loss: random.below(150), doubling: random.below(50) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct Network {
    pub weather: Weather,
    under_way: BinaryHeap<Reverse<(Mono, u64)>>,
    datagrams: BTreeMap<u64, Datagram>,
    count: u64,
    /// Datagrams that recently arrived at the gateway.
    seen: Vec<Datagram>,
}

impl Network {
    pub fn new() -> Self {
        Network {
            weather: CALM,
            under_way: BinaryHeap::new(),
            datagrams: BTreeMap::new(),
            count: 0,
            seen: Vec::new(),
        }
    }

    pub fn send(&mut self, datagram: Datagram, random: &mut Random, now: Mono) {
        if random.chance(self.weather.loss) {
            return;
        }
        let copies = 1 + u64::from(random.chance(self.weather.doubling));
        for _ in 0..copies {
            let (from, to) = self.weather.delay_ms;
            self.put(datagram.clone(), now + random.millis(from, to));
        }
    }

    fn put(&mut self, datagram: Datagram, at: Mono) {
        self.count += 1;
        self.datagrams.insert(self.count, datagram);
        self.under_way.push(Reverse((at, self.count)));
    }

    pub fn next(&self) -> Option<Mono> {
        self.under_way.peek().map(|Reverse((at, _))| *at)
    }

    pub fn arrive(&mut self, now: Mono) -> Option<Datagram> {
        let Reverse((at, _)) = self.under_way.peek()?;
        if *at > now {
            return None;
        }
        let Reverse((_, number)) = self.under_way.pop()?;
        self.datagrams.remove(&number)
    }

    /// Lets the stranger capture a datagram that arrives at the gateway.
    pub fn overhear(&mut self, datagram: &Datagram, random: &mut Random) {
        if self.seen.len() < MEMORY {
            self.seen.push(datagram.clone());
        } else {
            self.seen[random.below(MEMORY as u64) as usize] = datagram.clone();
        }
    }

    /// Replays a captured datagram from the stranger's address.
    pub fn replay(&mut self, stranger: SocketAddr, random: &mut Random, now: Mono) {
        if self.seen.is_empty() {
            return;
        }
        let choice = random.below(self.seen.len() as u64) as usize;
        let datagram = Datagram { from: stranger, ..self.seen[choice].clone() };
        self.put(datagram, now);
    }
}

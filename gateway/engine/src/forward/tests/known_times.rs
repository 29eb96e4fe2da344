//! The times of rentals that are known beside the filter, at random: they keep renters out when the filter does.

use proptest::prelude::*;

use super::rentals::{CUSTOMER, rented, udp_to_rental};
use super::world::*;
use crate::forward::{Block, KnownTimes};
use crate::messages::{Gate, GrantSpec, PolicyChange};
use crate::time::Wall;

const RENTAL: i64 = 41;

#[derive(Clone, Debug)]
enum Deed {
    Pass(u64),
    /// By seconds.
    SetClock(i64),
    /// The rental has this end and these blocks, in seconds from now.
    Put(i64, Vec<(i64, i64)>),
    Floor(i64),
    Accept,
}

fn deed() -> impl Strategy<Value = Deed> {
    let block = (-100i64..400, 1i64..300);
    let blocks = prop::collection::vec(block, 0..3);
    prop_oneof![
        8 => (1u64..200).prop_map(Deed::Pass),
        2 => prop_oneof![-900i64..-10, 10i64..900].prop_map(Deed::SetClock),
        3 => (1i64..2_000, blocks).prop_map(|(until, blocks)| Deed::Put(until, blocks)),
        1 => (-200i64..200).prop_map(Deed::Floor),
        1 => Just(Deed::Accept),
    ]
}

/// The filter, and what is known beside it.
struct Both {
    world: World,
    known: KnownTimes,
    /// The end and the blocks of the rental.
    rental: Option<(Wall, Vec<Block>)>,
}

impl Both {
    fn new() -> Both {
        let mut both = Both { world: rented(), known: KnownTimes::default(), rental: None };
        both.known.look(both.world.now);
        // It acts between the seconds at which something begins or ends.
        both.world.advance(std::time::Duration::from_millis(500));
        both.known.look(both.world.now);
        both
    }

    /// A full second so far from now.
    fn at(&self, offset: i64) -> Wall {
        let second = (self.world.now.wall.as_millis() - START).div_euclid(1_000);
        wall(second + offset)
    }

    fn run(&mut self, deed: Deed) {
        let now = self.world.now;
        match deed {
            Deed::Pass(count) => self.world.advance(seconds(count)),
            Deed::SetClock(by) => {
                self.world.set_clock(Wall::from_millis(now.wall.as_millis() + by * 1_000));
            }
            Deed::Put(until, blocks) if !self.is_over() => self.put(until, &blocks),
            Deed::Put(..) => {}
            Deed::Floor(offset) => {
                let floor = self.at(offset);
                self.world.change(PolicyChange::Floor(floor));
                self.known.set_floor(floor);
            }
            Deed::Accept => {
                self.world.change(PolicyChange::AcceptClock);
                self.known.accept_clock(now);
            }
        }
        self.world.work();
        self.known.look(self.world.now);
    }

    fn put(&mut self, until: i64, blocks: &[(i64, i64)]) {
        let until = self.at(until);
        let blocks: Vec<Block> =
            blocks.iter().map(|(from, length)| (self.at(*from), self.at(from + length))).collect();
        let gate = Gate { blocks: blocks.clone(), ..Gate::default() };
        let spec = GrantSpec { gate, ..rental_grant(RENTAL, CUSTOMER, None, Some(until)) };
        self.world.change(PolicyChange::Grant(spec));
        self.known.put(id(RENTAL), Some(until), &blocks, self.world.now);
        self.rental = Some((until, blocks));
    }

    fn is_over(&self) -> bool {
        let until = self.rental.as_ref().map(|(until, _)| *until);
        until.is_some_and(|until| self.known.is_over(id(RENTAL), until, self.world.now))
    }

    fn is_blocked(&self) -> bool {
        let blocks = self.rental.as_ref().map(|(_, blocks)| blocks.as_slice()).unwrap_or_default();
        let (now, rental) = (self.world.now, id(RENTAL));
        let is_blocked = self.known.is_blocked(rental, blocks, now);
        assert_eq!(is_blocked, now.mono < self.known.free_from(rental, blocks, now), "{blocks:?} at {now:?}");
        is_blocked
    }
}

proptest! {
    #![proptest_config(at_least(300))]

    #[test]
    fn renters_are_kept_out_beside_the_filter_when_the_filter_does_it(
        deeds in prop::collection::vec(deed(), 1..60),
    ) {
        let mut both = Both::new();
        for deed in deeds {
            both.run(deed.clone());
            let is_behind = both.world.forwarder.is_clock_behind(both.world.now.wall);
            let is_open = both.rental.is_some() && !both.is_over() && !both.is_blocked() && !is_behind;
            let passes = both.world.passes(3, &udp_to_rental(3, RENTAL, 53));
            prop_assert_eq!(passes, is_open, "{:?} at {:?} after {:?}", both.rental, both.world.now, deed);
        }
    }
}

//! The naive model of a block by both clocks: what `forward/tests/model.rs` says of it.

use std::time::Duration;

use crate::time::{Mono, Now, Wall};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug)]
struct Block {
    from: Wall,
    until: Wall,
    /// When it begins by the boot-time clock.
    begin: Mono,
    /// That is computed anew when the doubt is over.
    provisional: bool,
}

/// Both clocks at the first step, as they would be without it, and the end of the doubt.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    trusted: Now,
    until: Mono,
    unproved: bool,
}

#[derive(Debug)]
pub struct Clocks {
    block: Option<Block>,
    doubt: Option<Doubt>,
    /// The greatest time of a clock that had run for five minutes when it was set.
    shown: Option<Wall>,
    proved_at: Mono,
}

impl Clocks {
    pub fn started(now: Mono) -> Clocks {
        Clocks { block: None, doubt: None, shown: None, proved_at: now + FIVE_MINUTES }
    }

    pub fn plan(&mut self, block: Option<(Wall, Wall)>, now: Now) {
        self.settle(now);
        let latest = match self.doubt {
            Some(Doubt { trusted, .. }) => now.wall.max(trusted.wall + now.mono.since(trusted.mono)),
            None => now.wall,
        };
        let known = self.block;
        self.block = block.map(|(from, until)| match known.filter(|known| known.from == from) {
            Some(known) => Block { until, ..known },
            None => {
                let begin = now.mono + from.since(latest);
                Block { from, until, begin, provisional: self.doubt.is_some() }
            }
        });
    }

    pub fn step(&mut self, expected: Wall, now: Now) {
        let before = Now { wall: expected, ..now };
        self.settle(before);
        let unproved = self.doubt.map_or(now.mono < self.proved_at, |doubt| doubt.unproved);
        let trusted = self.doubt.map_or(before, |doubt| doubt.trusted);
        if self.doubt.is_none() && !unproved {
            self.shown = self.shown.max(Some(expected));
        }
        if let Some(block) = self.block.as_mut().filter(|_| unproved) {
            block.provisional = true;
        }
        self.doubt = Some(Doubt { trusted, until: now.mono + FIVE_MINUTES, unproved });
    }

    pub fn settle(&mut self, now: Now) {
        let is_behind = self.shown.is_some_and(|shown| now.wall < shown);
        let ends = self.doubt.take_if(|doubt| doubt.until <= now.mono).is_some();
        let is_doubted = self.doubt.is_some();
        let Some(block) = &mut self.block else { return };
        let by_wall = now.mono + block.from.since(now.wall);
        if block.provisional && !is_behind && !is_doubted {
            (block.begin, block.provisional) = (by_wall, false);
        } else if ends {
            block.begin = by_wall.min(block.begin);
        }
    }

    pub fn is_blocked(&self, now: Now) -> bool {
        let Some(block) = self.block else { return false };
        let goes_on = self.doubt.is_some_and(|doubt| (block.from..block.until).contains(&doubt.trusted.wall));
        let has_begun = block.from <= now.wall || block.begin <= now.mono;
        goes_on || now.wall < block.until && has_begun
    }
}

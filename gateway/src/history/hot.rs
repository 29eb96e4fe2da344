//! The samples that no block has yet, by generation. Pure.
//!
//! A generation is what was committed between two rotations. Its samples leave memory after they were sealed, all
//! together.

use std::collections::BTreeMap;
use std::ops::Bound;

use fleetgate_engine::history::packed::Packed;
use fleetgate_engine::history::{Point, Second, SeriesKind, merged, ordered};

use crate::store::history::steps::Sealable;

/// What a series costs beside its bytes: the entry in the tree and the head of its buffer.
const ENTRY: usize = 96;

#[derive(Default)]
pub(super) struct Hot {
    generations: BTreeMap<i64, Generation>,
}

#[derive(Default)]
struct Generation {
    series: BTreeMap<u32, Held>,
    bytes: usize,
}

struct Held {
    kind: SeriesKind,
    packed: Packed,
}

impl Hot {
    pub fn push(&mut self, generation: i64, series: u32, kind: SeriesKind, point: Point) {
        let Generation { series: all, bytes } = self.generations.entry(generation).or_default();
        let held = all.entry(series).or_insert_with(|| {
            *bytes += ENTRY;
            Held { kind, packed: Packed::default() }
        });
        let before = held.packed.len_bytes();
        held.packed.push(point, kind);
        held.kind = kind;
        *bytes += held.packed.len_bytes().saturating_sub(before);
    }

    /// Returns the samples of a series in `[from, to)`, in order.
    pub fn points(&self, series: u32, from: Second, to: Second) -> Vec<Point> {
        let held = self.generations.values().filter_map(|generation| generation.series.get(&series));
        let mut found = held.fold(Vec::new(), |older, held| merged(&older, &ordered(held.packed.points())));
        found.retain(|point| (from..to).contains(&point.at));
        found
    }

    /// Returns the first series of a generation after `after`, each with its samples as they came: at most `most`, and
    /// none after so many samples.
    pub fn part(
        &self,
        generation: i64,
        after: Option<u32>,
        (most, samples): (usize, usize),
    ) -> Vec<Sealable> {
        let Some(generation) = self.generations.get(&generation) else { return Vec::new() };
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut before = 0;
        let has_room = |(_, held): &(&u32, &Held)| {
            let has_room = before < samples;
            before += held.packed.count() as usize;
            has_room
        };
        let part = generation.series.range((first, Bound::Unbounded)).take(most).take_while(has_room);
        part.map(|(series, held)| Sealable { series: *series, kind: held.kind, points: held.packed.points() })
            .collect()
    }

    /// Returns the generations before this one that are still here, oldest first.
    pub fn before(&self, generation: i64) -> Vec<i64> {
        self.generations.range(..generation).map(|(number, _)| *number).collect()
    }

    pub fn forget(&mut self, generation: i64) {
        self.generations.remove(&generation);
    }

    /// Returns the bytes of one generation.
    pub fn bytes_of(&self, generation: i64) -> usize {
        self.generations.get(&generation).map_or(0, |generation| generation.bytes)
    }

    pub fn bytes(&self) -> usize {
        self.generations.values().map(|generation| generation.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: Second, value: f64) -> Point {
        Point { at, value: Some(value) }
    }

    fn filled() -> Hot {
        let mut hot = Hot::default();
        for (generation, series, at, value) in
            [(1, 7, 60, 1.0), (1, 7, 120, 2.0), (1, 9, 60, 5.0), (2, 7, 120, 3.0), (2, 7, 90, 4.0)]
        {
            hot.push(generation, series, SeriesKind::Gauge, point(at, value));
        }
        hot
    }

    #[test]
    fn the_later_generation_counts_where_two_have_a_sample_of_one_second() {
        let hot = filled();
        assert_eq!(hot.points(7, 0, 999), [point(60, 1.0), point(90, 4.0), point(120, 3.0)]);
        assert_eq!(hot.points(7, 61, 120), [point(90, 4.0)]);
        assert!(hot.points(8, 0, 999).is_empty());
    }

    #[test]
    fn a_generation_is_given_in_parts_in_order_of_series_and_forgotten_as_a_whole() {
        let mut hot = filled();
        assert_eq!((hot.before(1), hot.before(3)), (vec![], vec![1, 2]));
        let series = |part: Vec<Sealable>| part.into_iter().map(|s| s.series).collect::<Vec<_>>();
        let part = |hot: &Hot, after| series(hot.part(1, after, (1, 99)));
        assert_eq!((part(&hot, None), part(&hot, Some(7)), part(&hot, Some(9))), (vec![7], vec![9], vec![]));
        let of_samples = |samples| series(hot.part(1, None, (9, samples)));
        assert_eq!((of_samples(1), of_samples(2), of_samples(3)), (vec![7], vec![7], vec![7, 9]));
        let (all, second) = (hot.bytes(), hot.bytes_of(2));
        assert!(second > ENTRY && all > second + 2 * ENTRY, "{all} {second}");
        hot.forget(1);
        assert_eq!((hot.bytes(), hot.before(9)), (second, vec![2]));
        assert!(hot.part(1, None, (9, 9)).is_empty() && hot.points(9, 0, 999).is_empty());
    }
}

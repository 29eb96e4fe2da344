//! Intervals of one kind in the order of time.

use super::Period;
use crate::time::Wall;

/// Intervals that do not overlap, in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Series<T>(Vec<Interval<T>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval<T> {
    from: i64,
    until: i64,
    value: T,
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Series(Vec::new())
    }
}

impl<T: Copy> Series<T> {
    /// Puts intervals in order; one without an end lasts. An interval ends where a later one begins:
    /// a clock that was set may have left two that overlap. The last of equal begins counts. One that
    /// does not end after its begin ends no other.
    pub fn new(intervals: impl IntoIterator<Item = (Wall, Option<Wall>, T)>) -> Series<T> {
        let interval = |(from, until, value): (Wall, Option<Wall>, T)| Interval {
            from: from.as_millis(),
            until: until.map_or(i64::MAX, Wall::as_millis),
            value,
        };
        let lasts = |interval: &Interval<T>| interval.from < interval.until;
        let mut all: Vec<Interval<T>> = intervals.into_iter().map(interval).filter(lasts).collect();
        all.sort_by_key(|interval| interval.from);
        let mut next = i64::MAX;
        for interval in all.iter_mut().rev() {
            interval.until = interval.until.min(next);
            next = interval.from;
        }
        all.retain(lasts);
        Series(all)
    }

    /// Returns the intervals that touch a period, cut to it, in the order of time.
    pub fn within(&self, period: Period) -> impl Iterator<Item = (Period, T)> {
        let cut = move |interval: &Interval<T>| {
            let from = period.from().max(Wall::from_millis(interval.from));
            let until = period.until().min(Wall::from_millis(interval.until));
            Period::new(from, until).map(|cut| (cut, interval.value))
        };
        self.0.iter().filter_map(cut)
    }

    pub(super) fn cursor(&self) -> Cursor<'_, T> {
        Cursor(&self.0)
    }
}

impl Series<()> {
    /// Returns the times of both.
    #[must_use]
    pub fn or(self, other: Series<()>) -> Series<()> {
        let mut all = self.0;
        all.extend(other.0);
        all.sort_by_key(|interval| interval.from);
        let mut merged: Vec<Interval<()>> = Vec::with_capacity(all.len());
        for interval in all {
            match merged.last_mut() {
                Some(last) if interval.from <= last.until => last.until = last.until.max(interval.until),
                _ => merged.push(interval),
            }
        }
        Series(merged)
    }
}

/// The value at a moment, and until when it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub value: Option<T>,
    pub until: i64,
}

/// Reads a series at times that only grow.
pub(super) struct Cursor<'a, T>(&'a [Interval<T>]);

impl<T: Copy> Cursor<'_, T> {
    pub fn at(&mut self, at: i64) -> At<T> {
        while let [first, rest @ ..] = self.0
            && first.until <= at
        {
            self.0 = rest;
        }
        match self.0.first() {
            None => At { value: None, until: i64::MAX },
            Some(next) if next.from > at => At { value: None, until: next.from },
            Some(current) => At { value: Some(current.value), until: current.until },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_two_series_are_those_of_either() {
        let series = |rows: &[(i64, Option<i64>)]| {
            Series::new(rows.iter().map(|(from, until)| (at(*from), until.map(at), ())))
        };
        let both =
            series(&[(2, Some(5)), (9, Some(10))]).or(series(&[(0, Some(3)), (5, Some(7)), (20, None)]));
        assert_eq!(both, series(&[(0, Some(7)), (9, Some(10)), (20, None)]));
        assert_eq!(Series::default().or(series(&[(1, Some(2))])), series(&[(1, Some(2))]));
    }

    fn at(ms: i64) -> Wall {
        Wall::from_millis(ms)
    }

    fn read(series: &Series<char>, end: i64) -> String {
        let mut cursor = series.cursor();
        (0..end).map(|ms| cursor.at(ms).value.unwrap_or('.')).collect()
    }

    #[test]
    fn an_interval_begins_at_its_begin_and_ends_before_its_end() {
        let series = Series::new([(at(1), Some(at(3)), 'a'), (at(4), None, 'b')]);
        assert_eq!(read(&series, 7), ".aa.bbb");
        let mut cursor = series.cursor();
        assert_eq!(cursor.at(0), At { value: None, until: 1 });
        assert_eq!(cursor.at(1), At { value: Some('a'), until: 3 });
        assert_eq!(cursor.at(6), At { value: Some('b'), until: i64::MAX });
    }

    #[test]
    fn intervals_are_cut_to_a_period() {
        let series = Series::new([(at(0), Some(at(3)), 'a'), (at(4), Some(at(6)), 'b'), (at(6), None, 'c')]);
        let within = |from, until| -> Vec<(i64, i64, char)> {
            let period = Period::new(at(from), at(until)).unwrap();
            let flat =
                |(cut, value): (Period, char)| (cut.from().as_millis(), cut.until().as_millis(), value);
            series.within(period).map(flat).collect()
        };
        assert_eq!(within(2, 9), [(2, 3, 'a'), (4, 6, 'b'), (6, 9, 'c')]);
        assert!(within(3, 4).is_empty());
        assert_eq!(within(5, 6), [(5, 6, 'b')]);
    }

    #[test]
    fn the_interval_that_begins_later_counts() {
        let open = (at(1), None, 'a');
        assert_eq!(read(&Series::new([(at(3), Some(at(5)), 'b'), open]), 7), ".aabb..");
        assert_eq!(read(&Series::new([open, (at(1), Some(at(4)), 'b')]), 6), ".bbb..");
        assert_eq!(read(&Series::new([(at(5), Some(at(2)), 'x')]), 7), ".......");
        assert_eq!(read(&Series::new([open, (at(1), Some(at(1)), 'x')]), 4), ".aaa", "it has no time");
    }
}

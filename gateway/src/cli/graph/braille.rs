//! A curve as text. Each character of Braille is two dots wide and four dots high. Pure.

/// Dots of one character.
const DOTS: (usize, usize) = (2, 4);
/// The character of Braille without dots. The others follow it, by their bits.
const EMPTY: u32 = 0x2800;
/// The bit of each dot, by its row and column in the character.
const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
/// The half span of an axis around a value that never changes, as a share of it.
const FLAT: f64 = 0.05;

/// The ends of the vertical axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
}

/// Returns the axis of these values. A limit that is farther away than the values reach is not on it: it
/// would press them together. `None` if there is no value.
pub(super) fn axis(values: &[Option<f64>], limits: &[f64]) -> Option<Axis> {
    let known = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = (known().reduce(f64::min)?, known().reduce(f64::max)?);
    let reach = (high - low).max(high.abs().max(low.abs()) * FLAT * 2.0);
    let near = |limit: &&f64| (low - reach..=high + reach).contains(*limit);
    let ends = |ends: (f64, f64), limit: &f64| (ends.0.min(*limit), ends.1.max(*limit));
    let (low, high) = limits.iter().filter(near).fold((low, high), ends);
    match (high > low, reach > 0.0) {
        (true, _) => Some(Axis { low, high }),
        (false, true) => Some(Axis { low: low - reach / 2.0, high: high + reach / 2.0 }),
        (false, false) => Some(Axis { low, high: low + 1.0 }),
    }
}

/// Draws the values from the left to the right, and limits as dashes. A gap is blank.
///
/// `size`: columns and lines. The values are spread over the width; where several share a column of dots,
/// all of them are on it.
pub(super) fn draw(values: &[Option<f64>], limits: &[f64], size: (usize, usize)) -> Vec<String> {
    let mut canvas = Canvas::new(size);
    if let Some(axis) = axis(values, limits) {
        limits.iter().for_each(|limit| canvas.dashes(axis, *limit));
        canvas.curve(axis, values);
    }
    canvas.lines()
}

/// Characters of dots, line by line from the top.
struct Canvas {
    columns: usize,
    rows: usize,
    cells: Vec<u8>,
}

impl Canvas {
    fn new((columns, rows): (usize, usize)) -> Canvas {
        Canvas { columns, rows, cells: vec![0; columns * rows] }
    }

    /// Sets one dot. `y` counts from the top.
    fn set(&mut self, x: usize, y: usize) {
        let at = y / DOTS.1 * self.columns + x / DOTS.0;
        if let Some(cell) = self.cells.get_mut(at).filter(|_| x / DOTS.0 < self.columns) {
            *cell |= BITS[y % DOTS.1][x % DOTS.0];
        }
    }

    /// Returns the row of dots of a value. `None` if it is not on the axis.
    fn row(&self, axis: Axis, value: f64) -> Option<usize> {
        let last = (self.rows * DOTS.1).checked_sub(1)?;
        let share = (value - axis.low) / (axis.high - axis.low);
        (0.0..=1.0).contains(&share).then(|| last - (share * last as f64).round() as usize)
    }

    /// Draws every second character of a line.
    fn dashes(&mut self, axis: Axis, value: f64) {
        let Some(y) = self.row(axis, value) else { return };
        let dashed = (0..self.columns).step_by(2).flat_map(|column| [column * DOTS.0, column * DOTS.0 + 1]);
        dashed.for_each(|x| self.set(x, y));
    }

    /// Draws each value, and joins it to the one before it.
    fn curve(&mut self, axis: Axis, values: &[Option<f64>]) {
        let mut before = None;
        for (at, value) in values.iter().enumerate() {
            let x = at * self.columns * DOTS.0 / values.len();
            let until = ((at + 1) * self.columns * DOTS.0 / values.len()).max(x + 1);
            let y = value.and_then(|value| self.row(axis, value));
            if let (Some(y), Some(before)) = (y, before) {
                joined(before, y).for_each(|y| self.set(x, y));
            }
            if let Some(y) = y {
                (x..until).for_each(|x| self.set(x, y));
            }
            before = y;
        }
    }

    fn lines(&self) -> Vec<String> {
        // Some fonts show the character without dots as circles.
        let drawn = |cell: u8| char::from_u32(EMPTY + u32::from(cell)).filter(|_| cell != 0);
        let shown = |cell: &u8| drawn(*cell).unwrap_or(' ');
        let line = |row: usize| {
            self.cells.iter().skip(row * self.columns).take(self.columns).map(shown).collect::<String>()
        };
        (0..self.rows).map(line).collect()
    }
}

/// Returns the rows from a value to its neighbour, without that of the neighbour.
fn joined(from: usize, to: usize) -> std::ops::Range<usize> {
    if from < to { from + 1..to } else { to + 1..from }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64], limits: &[f64], size: (usize, usize)) -> Vec<String> {
        draw(&values.iter().copied().map(Some).collect::<Vec<_>>(), limits, size)
    }

    #[test]
    fn a_rise_goes_from_the_bottom_left_to_the_top_right() {
        assert_eq!(of(&[0.0, 1.0, 2.0, 3.0], &[], (2, 1)), ["⡠⠊"]);
        assert_eq!(of(&[3.0, 2.0, 1.0, 0.0], &[], (2, 1)), ["⠑⢄"]);
        assert_eq!(of(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], &[], (4, 2)), ["  ⡠⠊", "⡠⠊  "]);
    }

    #[test]
    fn a_step_is_joined_and_a_gap_is_blank() {
        assert_eq!(of(&[0.0, 3.0], &[], (1, 1)), ["⡸"]);
        assert_eq!(of(&[3.0, 0.0], &[], (1, 1)), ["⢱"]);
        let gap = [Some(0.0), Some(0.0), None, None, Some(3.0), Some(3.0)];
        assert_eq!(draw(&gap, &[], (3, 1)), ["⣀ ⠉"]);
    }

    #[test]
    fn a_limit_is_a_line_of_dashes() {
        assert_eq!(of(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0], &[3.0], (4, 1)), ["⣉⣀⣉⡸"]);
        assert_eq!(of(&[0.0, 3.0], &[7.0], (1, 1)), ["⡸"], "too far away");
    }

    #[test]
    fn values_are_spread_over_the_width() {
        assert_eq!(of(&[0.0, 3.0], &[], (2, 1)), ["⣀⠏"]);
        assert_eq!(of(&[0.0, 3.0, 0.0, 3.0], &[], (1, 1)), ["⣿"], "two of them in each column");
    }

    #[test]
    fn a_value_that_never_changes_is_in_the_middle() {
        assert_eq!(of(&[5.0, 5.0], &[], (1, 1)), ["⠒"]);
        assert_eq!(of(&[0.0, 0.0], &[], (1, 1)), ["⣀"]);
        assert_eq!(axis(&[Some(85.0)], &[90.0]), Some(Axis { low: 85.0, high: 90.0 }), "with a near limit");
    }

    #[test]
    fn without_a_value_there_is_nothing_but_room() {
        assert_eq!(draw(&[None, None], &[1.0], (3, 2)), ["   ", "   "]);
        assert_eq!(draw(&[], &[], (1, 1)), [" "]);
        assert_eq!(axis(&[Some(f64::NAN)], &[]), None);
    }

    proptest! {
        #[test]
        fn a_picture_has_its_size_whatever_the_values(
            values in prop::collection::vec(prop::option::of(any::<f64>()), 0..40),
            limits in prop::collection::vec(any::<f64>(), 0..4),
            size in (1usize..20, 1usize..8),
        ) {
            let lines = draw(&values, &limits, size);
            prop_assert_eq!(lines.len(), size.1);
            prop_assert!(lines.iter().all(|line| line.chars().count() == size.0));
        }
    }
}

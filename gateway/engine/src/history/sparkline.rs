//! A line of bars for text: one character for each value. Pure.

/// The bars, from the lowest to the highest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws one bar for each value, scaled from the lowest value to the highest. A gap is a blank. Equal
/// values all have the lowest bar.
pub fn sparkline(values: &[Option<f64>]) -> String {
    let known = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
    values.iter().map(|value| value.filter(|v| v.is_finite()).map_or(' ', |v| bar(v, low, high))).collect()
}

fn bar(value: f64, low: f64, high: f64) -> char {
    // Halves, because the difference of two large values can be infinite.
    let (above, span) = (value / 2.0 - low / 2.0, high / 2.0 - low / 2.0);
    let share = if span > 0.0 { above / span } else { 0.0 };
    let highest = BARS.len() - 1;
    BARS[((share * highest as f64).round() as usize).min(highest)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> String {
        sparkline(&values.iter().copied().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn bars_rise_from_the_lowest_value_to_the_highest() {
        assert_eq!(of(&[1.0, 8.0, 4.5]), "▁█▅");
        assert_eq!(of(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "▁▂▃▄▅▆▇█");
        assert_eq!([of(&[3.0, 3.0]), of(&[])], ["▁▁", ""]);
        assert_eq!(of(&[f64::MIN, 0.0, f64::MAX]), "▁▅█");
    }

    #[test]
    fn a_gap_is_a_blank() {
        assert_eq!(sparkline(&[Some(1.0), None, Some(2.0)]), "▁ █");
        assert_eq!(sparkline(&[None, None]), "  ");
        assert_eq!(sparkline(&[Some(f64::NAN), Some(2.0), Some(f64::INFINITY), Some(4.0)]), " ▁ █");
    }
}

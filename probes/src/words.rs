//! Numbers, sizes, times and foreign text in a form that suits people and logs.
//!
//! Output has no control characters and is bounded. The module knows nothing about checks.

use std::time::Duration;

use crate::escapes;

/// Formats a number with at most three decimals, for sentences and never for storage.
pub(crate) fn brief(value: f64) -> String {
    if value != 0.0 && (value.abs() >= 1e15 || value.abs() < 0.001) {
        return format!("{value:e}");
    }
    let fixed = format!("{value:.3}");
    let text = fixed.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Formats a number that parses back to the same bits, in at most 25 characters.
pub(crate) fn exact(value: f64) -> String {
    if value != 0.0 && (value.abs() >= 1e15 || value.abs() < 1e-5) {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

/// Formats a value with its unit of measurement, as performance data name it: `78 °C`, `1.5 GB`.
pub(crate) fn quantity(value: f64, uom: &str) -> String {
    match uom {
        "C" => format!("{} °C", brief(value)),
        "B" | "s" | "c" | "" => bound(value, uom),
        _ => format!("{} {uom}", brief(value)),
    }
    .trim_end()
    .to_owned()
}

/// Formats a bound beside a value of the same unit. It repeats the unit only where that depends on
/// the size.
pub(crate) fn bound(value: f64, uom: &str) -> String {
    match uom {
        "B" => bytes(value),
        "s" if value.abs() >= 60.0 => age(value),
        "s" => format!("{} s", brief(value)),
        _ => brief(value),
    }
}

/// Formats bytes in decimal units, as disks are sold: `12.3 GB`.
pub(crate) fn bytes(value: f64) -> String {
    let mut rest = value;
    for unit in ["B", "kB", "MB", "GB"] {
        if rest.abs() < 999.5 {
            return if unit == "B" { format!("{rest:.0} B") } else { format!("{rest:.1} {unit}") };
        }
        rest /= 1000.0;
    }
    format!("{rest:.1} TB")
}

/// Formats an age or a waiting time in its two largest units: `0.4 s`, `35 s`, `12 min 5 s`, `3 h
/// 20 min`, `12 d 3 h`.
pub(crate) fn age(seconds: f64) -> String {
    if seconds.is_nan() {
        return "an unknown time".to_owned();
    }
    if seconds.abs() < 10.0 {
        return format!("{} s", brief((seconds * 10.0).round() / 10.0));
    }
    // A float beyond the range of i64 saturates.
    let s = seconds.abs().round() as i64;
    let sign = if seconds < 0.0 { "-" } else { "" };
    let (large, small) = match s {
        0..60 => return format!("{sign}{s} s"),
        60..3_600 => ((s / 60, "min"), (s % 60, "s")),
        3_600..86_400 => ((s / 3_600, "h"), (s % 3_600 / 60, "min")),
        _ => ((s / 86_400, "d"), (s % 86_400 / 3_600, "h")),
    };
    match small.0 {
        0 => format!("{sign}{} {}", large.0, large.1),
        rest => format!("{sign}{} {} {rest} {}", large.0, large.1, small.1),
    }
}

/// Formats a round trip or connection time: `12.3 ms`, `1.52 s`.
pub(crate) fn latency(took: Duration) -> String {
    let ms = took.as_secs_f64() * 1000.0;
    match ms {
        _ if ms < 9.995 => format!("{ms:.2} ms"),
        _ if ms < 999.5 => format!("{ms:.1} ms"),
        _ => format!("{:.2} s", ms / 1000.0),
    }
}

/// Makes foreign text of several lines safe to show anywhere. Terminal escape sequences are
/// removed. Other characters that could control a terminal or change the writing direction become
/// the replacement character. Line feeds and tabs stay.
pub(crate) fn harmless_lines(text: &str) -> String {
    let tame_in_line = |c| if c == '\t' { c } else { tame(c) };
    escapes::removed(text).replace("\r\n", "\n").chars().map(tame_in_line).collect()
}

/// Does the same for a single line: tabs and line feeds become blanks.
pub(crate) fn harmless(text: &str) -> String {
    harmless_lines(text).replace(['\t', '\n'], " ")
}

fn tame(c: char) -> char {
    match c {
        '\n' => c,
        '\t' => ' ',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Returns one harmless line of at most `chars` characters; an ellipsis marks a cut.
pub(crate) fn line(text: &str, chars: usize) -> String {
    let text = escapes::removed(text);
    let first = text.trim().lines().next().unwrap_or_default();
    // Only the shown part is processed, because the input may be long.
    let mut rest = first.trim_end().chars();
    let mut shown: String = rest.by_ref().take(chars).map(tame).collect();
    if rest.next().is_some() {
        shown.pop();
        shown.push('…');
    }
    shown
}

/// Returns `text` cut to at most `max` bytes at a character boundary, and whether it was cut.
pub(crate) fn cut(text: &str, max: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(max);
    (&text[..end], end < text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let table =
            [(0.0, "0"), (-0.0, "0"), (97.0, "97"), (97.3456, "97.346"), (1e20, "1e20"), (-0.0004, "-4e-4")];
        for (value, text) in table {
            assert_eq!(brief(value), text);
        }
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(bytes(12_340_000_000.0), "12.3 GB");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(3.2e15), "3200.0 TB");
        assert_eq!(age(35.2), "35 s");
        assert_eq!((age(0.4), age(-5.0)), ("0.4 s".into(), "-5 s".into()));
        assert_eq!(age(-90.0), "-1 min 30 s");
        assert_eq!(age(1_051_200.0), "12 d 4 h");
        assert_eq!(age(f64::INFINITY), "106751991167300 d 15 h");
        assert_eq!(latency(Duration::from_micros(12_340)), "12.3 ms");
        assert_eq!(latency(Duration::from_millis(1_520)), "1.52 s");
    }

    #[test]
    fn foreign_text_is_tamed() {
        assert_eq!(harmless_lines("a\r\nb\tc\x1b[31m\u{202e}\x07"), "a\nb\tc\u{fffd}\u{fffd}");
        assert_eq!(harmless("a\nb\tc"), "a b c");
        assert_eq!(line("  first \nsecond", 10), "first");
        assert_eq!(line("\x1b[1m\n  \x1b[32mfirst\x1b[0m\nsecond", 10), "first");
        assert_eq!(line("abcdef", 4), "abc…");
        assert_eq!(cut("aé", 2), ("a", true));
    }
}

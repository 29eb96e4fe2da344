//! Tables and colours for a terminal, plain text for everything else.

use std::io::IsTerminal as _;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use owo_colors::OwoColorize as _;

use crate::cli::out;
use crate::clock;
pub(crate) use crate::text::{harmless as safe, harmless_output as safe_output};

/// Lines broken by the terminal are easier to read than columns of one letter.
const NARROWEST: u16 = 60;

/// Prints rows under headers. A pipe gets no colours and the full width.
pub(crate) fn print(headers: &[&str], rows: Vec<Vec<String>>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headers);
    if std::io::stdout().is_terminal() {
        fit(&mut table);
    }
    table.add_rows(rows);
    for line in table.lines() {
        out::line!("{}", line.trim_end());
    }
}

/// Fits the table to the terminal. A terminal of unknown width (a serial line, a container) gets
/// full lines.
fn fit(table: &mut Table) {
    table.set_content_arrangement(ContentArrangement::Dynamic);
    match table.width() {
        None | Some(0) => table.set_content_arrangement(ContentArrangement::Disabled),
        Some(width) => table.set_width(width.max(NARROWEST)),
    };
}

pub(crate) fn now() -> Timestamp {
    Timestamp::from_millisecond(clock::wall().as_millis()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns a state's word in its colour.
pub(crate) fn state(word: &str) -> String {
    coloured(&word.replace('_', " ").to_uppercase(), word)
}

/// Returns a state's word without emphasis.
pub(crate) fn calm_state(word: &str) -> String {
    word.replace('_', " ").to_uppercase().dimmed().to_string()
}

/// Returns the marks beside a state, in words.
pub(crate) fn marks(acknowledged: bool, in_downtime: bool, flapping: bool) -> String {
    let all = [(acknowledged, "acknowledged"), (in_downtime, "in downtime"), (flapping, "flapping")];
    let words: Vec<&str> = all.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect();
    if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")).dimmed().to_string() }
}

/// Formats `user:ada until 2026-01-02 12:00:00Z: on it`.
pub(crate) fn known_to(author: &str, expires: Option<&str>, comment: &str) -> String {
    let until = expires.map(|at| format!(" until {}", clock_time(at))).unwrap_or_default();
    let comment = if comment.is_empty() { String::new() } else { format!(": {}", safe(comment)) };
    format!("{}{until}{comment}", safe(author))
}

/// `anstream` removes the colours if there is no terminal.
pub(crate) fn coloured(shown: &str, state: &str) -> String {
    match state {
        "up" | "ok" | "approved" => shown.green().to_string(),
        "warning" | "awaiting_approval" => shown.yellow().to_string(),
        "down" | "critical" | "rejected" => shown.red().bold().to_string(),
        "unknown" | "unreachable" => shown.magenta().to_string(),
        _ => shown.dimmed().to_string(),
    }
}

/// Formats an RFC 3339 time as `3m ago`, and a missing one as a dash.
pub(crate) fn ago(time: Option<&str>, now: Timestamp) -> String {
    let Some(then) = time.and_then(|t| t.parse::<Timestamp>().ok()) else { return "-".to_owned() };
    let secs = now.duration_since(then).as_secs();
    match secs {
        i64::MIN..=0 => "now".to_owned(),
        1..60 => format!("{secs}s ago"),
        60..3_600 => format!("{}m ago", secs / 60),
        3_600..86_400 => format!("{}h {}m ago", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d {}h ago", secs / 86_400, secs / 3_600 % 24),
    }
}

/// Formats an RFC 3339 time to the second.
pub(crate) fn clock_time(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| safe(time), |t| t.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Formats a number with at most three decimals, without trailing zeros.
pub(crate) fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_read_well() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let of = |t| ago(Some(t), now);
        assert_eq!(of("2026-01-02T11:59:30Z"), "30s ago");
        assert_eq!(of("2026-01-02T10:30:00Z"), "1h 30m ago");
        assert_eq!(of("2026-01-01T11:00:00Z"), "1d 1h ago");
        assert_eq!(of("2026-01-02T12:00:05Z"), "now");
        assert_eq!(ago(None, now), "-");
    }

    #[test]
    fn what_stands_beside_a_state_is_said_in_words() {
        assert_eq!(marks(false, false, false), "");
        assert!(marks(true, false, true).contains("(acknowledged, flapping)"));
    }

    #[test]
    fn who_knows_is_said_with_the_end_and_the_reason_that_were_given() {
        assert_eq!(known_to("user:ada", None, ""), "user:ada");
        let until = Some("2026-01-02T12:00:00.5Z");
        assert_eq!(known_to("user:ada", until, "on it"), "user:ada until 2026-01-02 12:00:00Z: on it");
    }

    #[test]
    fn numbers_say_no_more_than_they_know() {
        assert_eq!([number(78.0), number(0.874079066), number(-2.5)], ["78", "0.874", "-2.5"]);
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!([bytes(999), bytes(1_500), bytes(2_000_000)], ["999 B", "1.5 kB", "2.0 MB"]);
    }
}

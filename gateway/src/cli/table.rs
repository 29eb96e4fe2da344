//! Tables and colours for a terminal, plain text for everything else.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use owo_colors::OwoColorize as _;
use unicode_width::UnicodeWidthChar as _;

use crate::cli::out;
use crate::clock;
pub(crate) use crate::sanitize::{harmless as safe, harmless_output as safe_output};

const GAP: &str = "  ";
const ELLIPSIS: char = '…';
/// Below that a column says nothing any more.
const NARROWEST: usize = 6;
/// Columns of one letter are harder to read than lines that the terminal breaks.
const NARROWEST_TABLE: usize = 60;

/// How much of a column may be cut on a narrow terminal, in the order in which that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Text,
    Name,
    State,
    Never,
}

const CUT: [Cut; 3] = [Cut::Text, Cut::Name, Cut::State];

/// The head of a column, and what becomes of it where there is no room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    cut: Cut,
    /// Not cut below this width while another column can be.
    floor: usize,
    optional: bool,
}

impl Column {
    /// Ids, times and numbers: half of one is useless.
    pub const fn whole(title: &'static str) -> Column {
        Column { title, cut: Cut::Never, floor: usize::MAX, optional: false }
    }

    /// A state with what stands beside it; the state itself fits the floor.
    pub const fn state(title: &'static str) -> Column {
        Column { title, cut: Cut::State, floor: 11, optional: false }
    }

    pub const fn name(title: &'static str) -> Column {
        Column { title, cut: Cut::Name, floor: 12, optional: false }
    }

    /// Outputs, comments and lists.
    pub const fn text(title: &'static str) -> Column {
        Column { title, cut: Cut::Text, floor: 16, optional: false }
    }

    /// Left out where the others have no room with it.
    pub const fn optional(self) -> Column {
        Column { optional: true, ..self }
    }
}

/// Prints rows under their heads; to a pipe without colours and at full width.
pub(crate) fn print(columns: &[Column], rows: Vec<Vec<String>>) {
    for line in render(columns, rows, terminal_width()) {
        out::line!("{line}");
    }
}

/// `None`: nothing is cut. That is also a terminal that does not say how wide it is (a serial line, a container).
pub(crate) fn terminal_width() -> Option<usize> {
    screen_width().map(|width| width.max(NARROWEST_TABLE))
}

/// The columns of the terminal, for what must not be broken into lines.
pub(crate) fn screen_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(usize::from(width.0)).filter(|width| *width > 0)
}

/// The lines of a table, with its heads.
pub(super) fn render(columns: &[Column], rows: Vec<Vec<String>>, room: Option<usize>) -> Vec<String> {
    let heads = columns.iter().map(|c| c.title.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let widest = |at: usize| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0);
    let full: Vec<usize> = (0..columns.len()).map(widest).collect();
    let widths = room.map_or(full.iter().copied().map(Some).collect(), |room| fit(columns, &full, room));
    rows.iter().map(|row| line(row, &widths)).collect()
}

/// One line of what is no table, such as an event of a stream.
pub(crate) fn row(columns: &[Column], cells: &[String], room: Option<usize>) -> String {
    let full: Vec<usize> = cells.iter().map(|cell| width(cell)).collect();
    let widths = room.map_or(full.iter().copied().map(Some).collect(), |room| fit(columns, &full, room));
    line(cells, &widths)
}

/// The width of each column; `None`: it is left out.
fn fit(columns: &[Column], full: &[usize], room: usize) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = full.iter().copied().map(Some).collect();
    let least = |at: usize, full: usize| full.min(columns[at].floor.max(width(columns[at].title)));
    loop {
        let floors: Vec<Option<usize>> =
            widths.iter().enumerate().map(|(at, w)| w.map(|w| least(at, w))).collect();
        let optional = (0..columns.len()).rev().find(|at| columns[*at].optional && widths[*at].is_some());
        match optional {
            Some(at) if total(&floors) > room => widths[at] = None,
            _ => break,
        }
    }
    for cut in CUT {
        shrink(&mut widths, room, |at| (columns[at].cut == cut).then(|| least(at, full[at])));
    }
    for cut in CUT {
        shrink(&mut widths, room, |at| (columns[at].cut == cut).then_some(NARROWEST));
    }
    widths
}

/// Takes from the widest of the columns that have a floor, until all fit or all are at theirs.
fn shrink(widths: &mut [Option<usize>], room: usize, floor: impl Fn(usize) -> Option<usize>) {
    while total(widths) > room {
        let above = |at: &usize| widths[*at].zip(floor(*at)).is_some_and(|(width, floor)| width > floor);
        let Some(widest) = (0..widths.len()).filter(above).max_by_key(|at| widths[*at]) else { return };
        widths[widest] = widths[widest].map(|width| width - 1);
    }
}

fn total(widths: &[Option<usize>]) -> usize {
    let shown = widths.iter().flatten();
    shown.clone().sum::<usize>() + shown.count().saturating_sub(1) * GAP.len()
}

fn line(cells: &[String], widths: &[Option<usize>]) -> String {
    let mut line = String::new();
    for (cell, room) in cells.iter().zip(widths).filter_map(|(cell, room)| Some((cell, (*room)?))) {
        if !line.is_empty() {
            line.push_str(GAP);
        }
        let cell = cut(cell, room);
        let missing = room.saturating_sub(width(&cell));
        line.push_str(&cell);
        line.extend(std::iter::repeat_n(' ', missing));
    }
    line.truncate(line.trim_end().len());
    line
}

/// How many columns of a terminal a text takes; colours take none.
fn width(text: &str) -> usize {
    characters(text).filter(|(_, shown)| *shown).map(|(c, _)| c.width().unwrap_or(0)).sum()
}

/// Each character, and whether a terminal shows it or takes it as part of a colour.
fn characters(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut in_colour = false;
    text.chars().map(move |c| {
        let shown = !in_colour && c != '\u{1b}';
        in_colour = if in_colour { c != 'm' } else { c == '\u{1b}' };
        (c, shown)
    })
}

/// So much of a text as has room, with an ellipsis where that is not all. Colours stay, and end.
fn cut(text: &str, room: usize) -> String {
    let text = text.trim_end();
    if width(text) <= room {
        return text.to_owned();
    }
    let (mut kept, mut taken) = (String::new(), 0);
    for (c, shown) in characters(text) {
        let before = taken;
        taken += if shown { c.width().unwrap_or(0) } else { 0 };
        match () {
            () if !shown || taken < room => kept.push(c),
            () if before < room => {
                kept.push(ELLIPSIS);
                taken = room;
            }
            () => {}
        }
    }
    kept
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

/// `user:ada until 2026-01-02 12:00:00Z: on it`.
pub(crate) fn acknowledged_by(author: &str, expires: Option<&str>, comment: &str) -> String {
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
    match now.duration_since(then).as_secs() {
        i64::MIN..=0 => "now".to_owned(),
        secs => format!("{} ago", span(secs)),
    }
}

/// `3m` since an RFC 3339 time: how long something has been so.
pub(crate) fn lasting(since: Option<&str>, now: Timestamp) -> String {
    let Some(then) = since.and_then(|t| t.parse::<Timestamp>().ok()) else { return "-".to_owned() };
    span(now.duration_since(then).as_secs())
}

/// Formats a duration in seconds, such as `3m`; a part of a second is not zero.
pub(crate) fn time_span(seconds: f64) -> String {
    if seconds > 0.0 && seconds < 1.0 { "<1s".to_owned() } else { span(seconds as i64) }
}

fn span(secs: i64) -> String {
    match secs {
        i64::MIN..60 => format!("{}s", secs.max(0)),
        60..3_600 => format!("{}m", secs / 60),
        3_600..86_400 => format!("{}h {}m", secs / 3_600, secs / 60 % 60),
        _ => format!("{}d {}h", secs / 86_400, secs / 3_600 % 24),
    }
}

/// Formats an RFC 3339 time to the second.
pub(crate) fn clock_time(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| safe(time), |t| t.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// An RFC 3339 time to the minute, for tables.
pub(crate) fn minute(time: &str) -> String {
    time.parse::<Timestamp>().map_or_else(|_| safe(time), |t| t.strftime("%Y-%m-%d %H:%MZ").to_string())
}

/// Three digits behind the point at most, none that say nothing.
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

/// Formats counts by reason, the greatest first: `not_granted 7, no_flow 2`.
pub(crate) fn counts(by_reason: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<(&String, &u64)> = by_reason.iter().filter(|(_, count)| **count > 0).collect();
    all.sort_by_key(|(_, count)| Reverse(**count));
    let words: Vec<String> =
        all.into_iter().map(|(reason, count)| format!("{} {count}", safe(reason))).collect();
    words.join(", ")
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
        assert_eq!(acknowledged_by("user:ada", None, ""), "user:ada");
        let until = Some("2026-01-02T12:00:00.5Z");
        assert_eq!(acknowledged_by("user:ada", until, "on it"), "user:ada until 2026-01-02 12:00:00Z: on it");
    }

    #[test]
    fn numbers_say_no_more_than_they_know() {
        assert_eq!([number(78.0), number(0.874079066), number(-2.5)], ["78", "0.874", "-2.5"]);
    }

    #[test]
    fn counts_begin_with_the_greatest() {
        let drops = [("no_flow", 2), ("not_granted", 7), ("replay", 0)];
        assert_eq!(
            counts(&drops.map(|(reason, n)| (reason.to_owned(), n)).into()),
            "not_granted 7, no_flow 2"
        );
        assert_eq!(counts(&BTreeMap::new()), "");
    }

    #[test]
    fn bytes_read_well() {
        assert_eq!([bytes(999), bytes(1_500), bytes(2_000_000)], ["999 B", "1.5 kB", "2.0 MB"]);
    }
}

//! The output and the ending of a plugin, by the Nagios plugin conventions.
//!
//! Any bytes and any ending give one bounded, harmless result. The exit code decides, never the
//! text. The module knows neither where the command ran nor which state follows from the result.

use std::sync::Arc;
use std::time::Duration;

use crate::cause::Cause;
use crate::perfdata;
use crate::range::Thresholds;
use crate::sample::{Metric, Status};
use crate::words;

/// Bytes of standard output that are read; Nagios takes 8 KiB. Output that a person would scroll
/// through is far shorter.
pub const MAX_OUTPUT: usize = 64 * 1024;

/// Characters of standard error that a result quotes: the line that explains the failure, not a
/// log.
const STDERR_CHARS: usize = 300;
/// Characters of a metric's name in a summary; the names of the built-in checks are shorter than 20.
const LABEL_CHARS: usize = 40;

/// A result in its final form, for every kind of check.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginResult {
    pub status: Status,
    /// The cause of the result. Decisions use the cause and never the text.
    pub cause: Cause,
    /// The first line, without performance data. Empty if the plugin printed no text before them.
    pub text: String,
    /// The further lines, with their blanks, tabs and empty lines.
    pub long_text: String,
    /// Shared by all copies of the result: a state and a sample are made of each.
    pub metrics: Arc<[Metric]>,
    /// Reports of skipped performance data and of truncation.
    pub warnings: Vec<String>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Exit(u32),
    /// The name of the signal as in SSH, without `SIG`.
    Signal(String),
    /// The command ran for this time, and its channel was then closed.
    Timeout(Duration),
    /// The connection ended before the command did.
    Lost,
}

impl PluginResult {
    /// Makes a result without long text.
    pub fn new(status: Status, text: impl Into<String>, metrics: Vec<Metric>) -> Self {
        PluginResult {
            status,
            cause: Cause::Answered,
            text: text.into(),
            long_text: String::new(),
            metrics: metrics.into(),
            warnings: Vec::new(),
        }
    }

    /// Returns the same result with another cause than a reply.
    #[must_use]
    pub fn because(self, cause: Cause) -> Self {
        PluginResult { cause, ..self }
    }

    /// Adds metrics to those that it has.
    pub fn add_metrics(&mut self, more: impl IntoIterator<Item = Metric>) {
        let mut more = more.into_iter().peekable();
        if more.peek().is_some() {
            self.metrics = self.metrics.iter().cloned().chain(more).collect();
        }
    }

    pub fn ok(text: impl Into<String>) -> Self {
        PluginResult::new(Status::Ok, text, Vec::new())
    }

    pub fn critical(text: impl Into<String>) -> Self {
        PluginResult::new(Status::Critical, text, Vec::new())
    }

    pub fn unknown(text: impl Into<String>) -> Self {
        PluginResult::new(Status::Unknown, text, Vec::new())
    }

    /// Makes the result of a command. `truncated`: the output was cut to a limit earlier.
    pub fn from_run(ending: &Ending, stdout: &[u8], stderr: &[u8], truncated: bool) -> Self {
        let (output, truncated) = readable(stdout, truncated);
        let printed = Printed::split(&output, truncated);
        let text = if output.trim().is_empty() { placeholder(stderr) } else { printed.text };
        let (status, text) = match regular_status(ending) {
            Some(status) => (status, text),
            None => (Status::Unknown, joined(&abnormality(ending), ": ", &text)),
        };
        let regular = regular_status(ending).is_some();
        let found = if regular { perfdata::parse(&printed.perfdata) } else { perfdata::Perfdata::default() };
        let mut result = PluginResult::new(status, text, found.metrics).because(ending.into());
        result.long_text = printed.long_text;
        result.warnings = found.warnings;
        if truncated {
            result.warnings.push(format!("the output is cut at {} KiB", MAX_OUTPUT / 1024));
        }
        result
    }

    /// Applies the thresholds set on the server. They can worsen a status, but never improve it. A
    /// metric with a threshold and without a value is UNKNOWN. The text names each metric over its
    /// limit, and the metric carries the limits that judged it.
    #[must_use]
    pub fn apply(mut self, limits: &[(String, Thresholds)]) -> Self {
        let own = self.status;
        for (label, limits) in limits.iter().filter(|(_, limits)| !limits.is_unset()) {
            let metric = Arc::make_mut(&mut self.metrics).iter_mut().find(|m| m.label == *label);
            let value = metric.as_ref().and_then(|m| m.value);
            let judged = limits.judge(value);
            if let Some(remark) = remark(own, judged, label, metric.as_deref(), limits) {
                self.text = joined(&self.text, "; ", &remark);
            }
            if let Some(metric) = metric {
                metric.warn = limits.warn.or(metric.warn);
                metric.crit = limits.crit.or(metric.crit);
            }
            self.status = self.status.worst(judged);
        }
        self
    }

    /// Returns the value that explains a WARNING or CRITICAL status, with the limit that it crossed:
    /// `78 °C, limit 70`. `None` if no metric explains the status. The name of the metric comes
    /// first, unless it is the only one or is called like the `service`.
    pub fn crossed_limit(&self, service: &str) -> Option<String> {
        let limit = |m: &Metric| match self.status {
            Status::Critical => m.crit,
            Status::Warning => m.warn,
            Status::Ok | Status::Unknown => None,
        };
        let (metric, value, range) = self.metrics.iter().find_map(|m| {
            let (value, range) = (m.value?, limit(m)?);
            range.alerts(value).then_some((m, value, range))
        })?;
        let uom = &metric.uom;
        let reading = format!("{}, {}", words::quantity(value, uom), range.limit_of(value, uom));
        let is_plain = self.metrics.len() == 1 || metric.label == service;
        Some(if is_plain {
            reading
        } else {
            format!("{} {reading}", words::line(&metric.label, LABEL_CHARS))
        })
    }
}

/// Joins two parts of a text; either may be empty.
fn joined(first: &str, separator: &str, second: &str) -> String {
    let parts = [first, second].into_iter().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(separator)
}

/// Converts standard output to text: bounded, valid, and without control characters other than line
/// feeds and tabs.
fn readable(stdout: &[u8], truncated: bool) -> (String, bool) {
    let bytes = &stdout[..stdout.len().min(MAX_OUTPUT)];
    let text = words::harmless_lines(&String::from_utf8_lossy(bytes));
    // A replacement character may be longer than the bytes it replaces.
    let (kept, cut) = words::cut(&text, MAX_OUTPUT);
    (kept.to_owned(), truncated || cut || bytes.len() < stdout.len())
}

/// Standard output, split at its pipes.
#[derive(Debug, Default, PartialEq)]
struct Printed {
    text: String,
    long_text: String,
    perfdata: String,
}

impl Printed {
    /// Splits output. The first line is `text | perfdata`. Long text follows until a line with a
    /// pipe; everything after that pipe is performance data. The last token of a truncated output
    /// may be incomplete (`12` of `123`) and is left out.
    fn split(output: &str, truncated: bool) -> Printed {
        let output = output.trim_start();
        let (first, rest) = split_at(output, '\n');
        let (text, mut perfdata) = split_at(first, '|');
        let (long_text, mut more) = split_at(rest, '|');
        if truncated {
            more = without_last_token(more);
            perfdata = if output.contains('\n') { perfdata } else { without_last_token(perfdata) };
        }
        Printed {
            text: words::harmless(text.trim()),
            long_text: without_last_end(long_text, rest.len() > long_text.len()),
            perfdata: format!("{perfdata} {more}"),
        }
    }
}

/// Returns the long text as printed, without the end of its last line. `before_pipe`: that line
/// continues with performance data, and the blanks before these belong to neither.
fn without_last_end(long_text: &str, before_pipe: bool) -> String {
    let text = if before_pipe { long_text.trim_end_matches([' ', '\t']) } else { long_text };
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.trim().is_empty() { String::new() } else { text.to_owned() }
}

fn without_last_token(perfdata: &str) -> &str {
    &perfdata[..perfdata.rfind(char::is_whitespace).unwrap_or(0)]
}

fn split_at(text: &str, separator: char) -> (&str, &str) {
    text.split_once(separator).unwrap_or((text, ""))
}

/// Returns the text for a command that printed nothing.
fn placeholder(stderr: &[u8]) -> String {
    let bytes = &stderr[..stderr.len().min(MAX_OUTPUT)];
    match words::line(&String::from_utf8_lossy(bytes), STDERR_CHARS) {
        line if line.is_empty() => "(no output)".to_owned(),
        line => format!("(no output) stderr: {line}"),
    }
}

fn regular_status(ending: &Ending) -> Option<Status> {
    match ending {
        Ending::Exit(code) => Status::from_exit_code(*code),
        _ => None,
    }
}

fn abnormality(ending: &Ending) -> String {
    match ending {
        Ending::Exit(126) => "exit code 126 (the command is not executable)".to_owned(),
        Ending::Exit(127) => "exit code 127 (command not found)".to_owned(),
        Ending::Exit(code @ 129..=192) => {
            format!("exit code {code} (a shell's way to say: killed by signal {})", code - 128)
        }
        Ending::Exit(code) => format!("exit code {code} (plugins end with 0 to 3)"),
        Ending::Signal(name) => format!("killed by signal {}", words::line(name, 20)),
        Ending::Timeout(after) => format!("timed out after {}", words::age(after.as_secs_f64())),
        Ending::Lost => "the connection was lost before the command ended".to_owned(),
    }
}

/// Returns the remark about one judged metric. A missing metric is mentioned only if the result
/// does not already explain more.
fn remark(
    own: Status,
    judged: Status,
    label: &str,
    metric: Option<&Metric>,
    limits: &Thresholds,
) -> Option<String> {
    let explains_more = matches!(own, Status::Critical | Status::Unknown);
    let range = match judged {
        Status::Ok => return None,
        Status::Unknown if explains_more => return None,
        Status::Unknown if metric.is_some() => return Some(format!("{label} has a limit but no value")),
        Status::Unknown => return Some(format!("{label} has a limit but is not among the metrics")),
        Status::Warning => limits.warn?,
        Status::Critical => limits.crit?,
    };
    let metric = metric?;
    let value = metric.value?;
    let unit = if metric.uom.is_empty() { String::new() } else { format!(" {}", metric.uom) };
    Some(format!("{label} {}{unit} is {} ({})", words::brief(value), range.place_of(value), judged.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(code: u32, stdout: &str) -> PluginResult {
        PluginResult::from_run(&Ending::Exit(code), stdout.as_bytes(), b"", false)
    }

    fn values(result: &PluginResult) -> Vec<(&str, Option<f64>)> {
        result.metrics.iter().map(|m| (m.label.as_str(), m.value)).collect()
    }

    fn limits(metric: &str, warn: &str, crit: &str) -> Vec<(String, Thresholds)> {
        vec![(metric.to_owned(), Thresholds { warn: warn.parse().ok(), crit: crit.parse().ok() })]
    }

    #[test]
    fn a_crossed_limit_is_named_with_the_value_that_crossed_it() {
        let judged = |stdout: &str, metric: &str, warn: &str, crit: &str| {
            run(0, stdout).apply(&limits(metric, warn, crit)).crossed_limit("temperature")
        };
        let crossed = |stdout: &str, metric: &str, warn: &str, crit: &str| {
            judged(stdout, metric, warn, crit).expect("a limit is crossed")
        };
        assert_eq!(crossed("x | temperature=78C", "temperature", "60", "70"), "78 °C, limit 70");
        assert_eq!(crossed("x | temperature=65C fan=3", "temperature", "60", "70"), "65 °C, limit 60");
        assert_eq!(crossed("x | used=91% free=9%", "used", "80", "90"), "used 91 %, limit 90");
        assert_eq!(crossed("x | free=2000000B", "free", "", "5000000:"), "2.0 MB, minimum 5.0 MB");
        assert_eq!(crossed("x | age=7200s", "age", "", "3600"), "2 h, limit 1 h");
        assert_eq!(crossed("x | level=15", "level", "", "@10:20"), "15, within 10 to 20");
        assert_eq!(judged("x | temperature=50C", "temperature", "60", "70"), None, "no limit is crossed");
        assert_eq!(judged("x | temperature=U", "temperature", "60", "70"), None, "there is no value");
        let own = run(2, "DISK CRITICAL | /=97%;80;90");
        assert_eq!(own.crossed_limit("disk").as_deref(), Some("97 %, limit 90"), "the limits of a plugin");
        assert_eq!(run(2, "x | /=85%;80;90").crossed_limit("disk"), None, "its limit does not explain it");
    }

    #[test]
    fn one_line_is_text_and_perfdata() {
        let r = run(0, "DISK OK - free: 3326 MB; all fine | /=2643MB;5948;5958;0;5968\n");
        assert_eq!((r.status, r.text.as_str()), (Status::Ok, "DISK OK - free: 3326 MB; all fine"));
        assert_eq!(values(&r), [("/", Some(2643.0))]);
        assert_eq!((r.long_text.as_str(), r.warnings.len()), ("", 0));
    }

    #[test]
    fn later_perfdata_begins_at_the_next_pipe_and_takes_all_that_follows() {
        let r = run(1, "text | a=1\r\nlong 1\r\nlong 2 | b=2\nc=3 d=4\n'x|y'=5\n");
        assert_eq!((r.status, r.long_text.as_str()), (Status::Warning, "long 1\nlong 2"));
        assert_eq!(values(&r).iter().map(|v| v.0).collect::<Vec<_>>(), ["a", "b", "c", "d", "x|y"]);
    }

    #[test]
    fn the_first_pipe_splits() {
        let r = run(0, "a | 'b|c'=1 | d=2");
        assert_eq!(r.text, "a");
        assert_eq!(values(&r), [("b|c", Some(1.0)), ("d", Some(2.0))]);
        assert_eq!(r.warnings.len(), 1);
    }

    #[test]
    fn text_without_metrics_is_normal() {
        let r = run(2, "  CRITICAL: it burns  \n");
        assert_eq!((r.status, r.text.as_str()), (Status::Critical, "CRITICAL: it burns"));
        assert_eq!((r.metrics.len(), r.warnings.len()), (0, 0));
    }

    #[test]
    fn abnormal_endings_are_unknown_say_why_and_lose_their_metrics() {
        let table = [
            (Ending::Exit(4), "exit code 4"),
            (Ending::Exit(126), "not executable"),
            (Ending::Exit(127), "command not found"),
            (Ending::Exit(137), "killed by signal 9"),
            (Ending::Exit(255), "exit code 255"),
            (Ending::Exit(70_000), "exit code 70000"),
            (Ending::Signal("KILL".into()), "killed by signal KILL"),
            (Ending::Timeout(Duration::from_secs(10)), "timed out after 10 s"),
            (Ending::Lost, "connection was lost"),
        ];
        for (ending, reason) in table {
            let r = PluginResult::from_run(&ending, b"half a text | a=1", b"", false);
            assert_eq!((r.status, r.metrics.len()), (Status::Unknown, 0));
            assert!(r.text.contains(reason) && r.text.contains("half a text"), "{}", r.text);
        }
    }

    #[test]
    fn a_regular_unknown_keeps_its_metrics() {
        assert_eq!(values(&run(3, "hm | a=1")), [("a", Some(1.0))]);
    }

    #[test]
    fn empty_output_shows_the_first_line_of_stderr() {
        let r =
            PluginResult::from_run(&Ending::Exit(127), b" \n", b"\nsh: check_x: not found\nmore\n", false);
        assert_eq!(r.text, "exit code 127 (command not found): (no output) stderr: sh: check_x: not found");
        assert_eq!(run(0, "").text, "(no output)");
    }

    #[test]
    fn metrics_without_a_text_have_an_empty_one() {
        for output in ["|a=1", " | a=1\n", "\n|a=1", "\x1b[32m|a=1\x1b[0m"] {
            let r = PluginResult::from_run(&Ending::Exit(0), output.as_bytes(), b"noise", false);
            assert_eq!((r.text.as_str(), values(&r)), ("", vec![("a", Some(1.0))]), "{output:?}");
        }
        let r = run(1, "|a=1\nlong");
        assert_eq!((r.text.as_str(), r.long_text.as_str(), r.metrics.len()), ("", "long", 1));
        assert_eq!(run(4, "|a=1").text, "exit code 4 (plugins end with 0 to 3)");
        assert_eq!(run(0, "|a=1").apply(&limits("a", "", "0")).text, "a 1 is above 0 (critical)");
    }

    #[test]
    fn long_output_keeps_its_blanks_tabs_and_empty_lines() {
        let table = [
            ("t\n  two blanks\n", "  two blanks"),
            ("t\n\ta tab\tand another\n", "\ta tab\tand another"),
            ("t\n\n\nafter two empty lines\n", "\n\nafter two empty lines"),
            ("t\na\n\n  b\n\n", "a\n\n  b\n"),
            ("t\r\n  a\r\n\r\n  b\r\n", "  a\n\n  b"),
            ("t\n  a | x=1", "  a"),
            ("t\n  a\n| x=1", "  a"),
            ("t\n\ta\t| x=1\n", "\ta"),
            ("t | x=1\n  a", "  a"),
            ("t\n \x1b[1mbold\x1b[0m \n", " bold "),
            ("t\n \n\n", ""),
        ];
        for (output, long) in table {
            assert_eq!(run(0, output).long_text, long, "{output:?}");
            assert_eq!(run(0, output).text, "t", "{output:?}");
        }
    }

    #[test]
    fn escape_sequences_are_removed_from_every_part() {
        let output =
            "\x1b[1;32mOK\x1b[0m\tfine | '\x1b[1ma b\x1b[0m'=1\x1b[31mms\x1b[0m;2\n\x1b]0;title\x07long\n";
        let r = run(0, output);
        assert_eq!((r.text.as_str(), r.long_text.as_str()), ("OK fine", "long"));
        assert_eq!((values(&r), r.metrics[0].uom.as_str()), (vec![("a b", Some(1.0))], "ms"));
        let r = PluginResult::from_run(&Ending::Exit(0), b"\x1b[0m\n", b"\x1b[31mno disk\x1b[0m", false);
        assert_eq!(r.text, "(no output) stderr: no disk");
    }

    #[test]
    fn long_output_is_cut_flagged_and_its_last_token_is_not_trusted() {
        let r = PluginResult::from_run(&Ending::Exit(0), b"t | a=1 b=12", b"", true);
        assert_eq!(values(&r), [("a", Some(1.0))]);
        assert!(r.warnings[0].contains("cut at 64 KiB"));
        let r = PluginResult::from_run(&Ending::Exit(0), b"t | a=1 b=12\nlong te", b"", true);
        assert_eq!(values(&r), [("a", Some(1.0)), ("b", Some(12.0))]);
        let long = run(0, &"x".repeat(MAX_OUTPUT + 1));
        assert_eq!((long.text.len(), long.warnings.len()), (MAX_OUTPUT, 1));
        assert_eq!(run(0, &"x".repeat(MAX_OUTPUT)).warnings.len(), 0);
    }

    #[test]
    fn foreign_bytes_are_made_harmless() {
        let r = PluginResult::from_run(&Ending::Exit(0), b"a\xff\x08\tb\0 | m=1\nl\x07", b"", false);
        assert_eq!(r.text, "a\u{fffd}\u{fffd} b\u{fffd}");
        assert_eq!(r.long_text, "l\u{fffd}");
    }

    #[test]
    fn server_thresholds_worsen_and_name_the_metric() {
        let r = run(0, "fine | used=97.25% free=5").apply(&limits("used", "80", "90"));
        assert_eq!(r.status, Status::Critical);
        assert_eq!(r.text, "fine; used 97.25 % is above 90 (critical)");
        assert_eq!(r.metrics[0].crit, "90".parse().ok());
        let r = run(0, "fine | used=85").apply(&limits("used", "80", "90"));
        assert_eq!((r.status, r.text.as_str()), (Status::Warning, "fine; used 85 is above 80 (warning)"));
    }

    #[test]
    fn server_thresholds_never_better_a_status() {
        let r = run(2, "bad | a=1").apply(&limits("a", "10", "20"));
        assert_eq!((r.status, r.text.as_str()), (Status::Critical, "bad"));
    }

    #[test]
    fn a_limit_on_a_missing_metric_is_unknown() {
        let r = run(0, "fine | a=U").apply(&limits("a", "10", ""));
        assert_eq!((r.status, r.text.as_str()), (Status::Unknown, "fine; a has a limit but no value"));
        let r = run(1, "so so").apply(&limits("b", "", "10"));
        assert_eq!(
            (r.status, r.text.as_str()),
            (Status::Unknown, "so so; b has a limit but is not among the metrics")
        );
        let r = run(2, "burning").apply(&limits("b", "", "10"));
        assert_eq!((r.status, r.text.as_str()), (Status::Critical, "burning"));
        let r = run(0, "fine").apply(&[("b".to_owned(), Thresholds::default())]);
        assert_eq!(r.status, Status::Ok);
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_bounded_harmless_result(
            stdout in proptest::collection::vec(any::<u8>(), 0..2000),
            stderr in proptest::collection::vec(any::<u8>(), 0..200),
            code: u32, truncated: bool,
        ) {
            let r = PluginResult::from_run(&Ending::Exit(code), &stdout, &stderr, truncated);
            prop_assert!(!r.text.is_empty() || stdout.contains(&b'|'));
            prop_assert!(r.text.len() + r.long_text.len() <= MAX_OUTPUT + 2_000);
            prop_assert!(!r.text.chars().any(char::is_control));
            prop_assert!(!r.long_text.chars().any(|c| c.is_control() && !"\n\t".contains(c)));
            prop_assert_eq!(Status::from_exit_code(code).unwrap_or(Status::Unknown), r.status);
        }

        #[test]
        fn long_output_is_what_was_printed(long in "[ \ta-z\n]{0,60}") {
            let shown = if long.trim().is_empty() { "" } else { long.as_str() };
            let result = run(0, &format!("text | a=1\n{long}\n"));
            prop_assert_eq!(result.long_text, shown);
        }
    }
}

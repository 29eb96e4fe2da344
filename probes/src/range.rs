//! Nagios threshold ranges, parsed strictly: `[@][start:][end]`.
//!
//! An accepted text has exactly one meaning and prints back to the same range. The module does not
//! know units: a range is compared with the number as the check reports it.

use std::fmt;
use std::str::FromStr;

use crate::sample::Status;
use crate::words;

/// Longest text of a range. Two numbers at full precision take 52 characters, so a longer text is
/// not a limit that a person intended.
pub const MAX_RANGE_LEN: usize = 80;

/// A range as an operator wrote it. It alerts when a value is outside `[start, end]` or, with
/// `inside`, within it. Both ends are inclusive, without tolerance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub start: f64,
    pub end: f64,
    pub inside: bool,
}

/// The thresholds of a metric. Critical is tested first, then warning; an unset one never alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    pub warn: Option<Range>,
    pub crit: Option<Range>,
}

/// The reason why a text is not a range, with a suggestion for what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error(
        "the range is empty: write 10 (alert outside 0 to 10), 10: (below 10), ~:10 (above 10) or @10:20 (inside)"
    )]
    Empty,
    #[error("the range is longer than {MAX_RANGE_LEN} characters: write fewer digits")]
    TooLong,
    #[error("range {0:?} has a blank inside: write it without")]
    InnerBlank(String),
    #[error("range {0:?} has no number: write start:end, such as 10:20, or ~: for never")]
    NoNumber(String),
    #[error("range {0:?} has more than one colon: write start:end")]
    Colons(String),
    #[error("range {0:?}: ~ stands only before the colon; write ~:10 for no lower end, 10: for no upper end")]
    Tilde(String),
    #[error("range {range:?}: {part:?} is not a decimal number; {hint}")]
    Number { range: String, part: String, hint: &'static str },
    #[error("range {0:?} goes from 0 down to {1}: write {1}: (alert below) or ~:{1} (alert above)")]
    BelowZero(String, String),
    #[error("range {range:?} starts above its end: write {end}:{start}")]
    Reversed { range: String, start: String, end: String },
}

impl Range {
    /// Returns whether the range alerts at `value`. NaN never alerts; [`Thresholds::judge`] turns
    /// it into UNKNOWN first.
    pub fn alerts(&self, value: f64) -> bool {
        let within = self.start <= value && value <= self.end;
        !value.is_nan() && within == self.inside
    }

    /// Returns the bound that `value` crosses, for a summary: `limit 70`, `minimum 5`.
    pub(crate) fn limit_of(&self, value: f64, uom: &str) -> String {
        match () {
            () if self.inside => self.place_of(value),
            () if value > self.end => format!("limit {}", words::bound(self.end, uom)),
            () => format!("minimum {}", words::bound(self.start, uom)),
        }
    }

    /// Returns the position of `value` for the sentence that explains an alert: `above 90`.
    pub(crate) fn place_of(&self, value: f64) -> String {
        let (start, end) = (words::brief(self.start), words::brief(self.end));
        match () {
            () if self.inside => match (self.start.is_finite(), self.end.is_finite()) {
                (true, true) => format!("within {start} to {end}"),
                (true, false) => format!("{start} or more"),
                (false, true) => format!("{end} or less"),
                (false, false) => "a number at all".to_owned(),
            },
            () if value > self.end => format!("above {end}"),
            () => format!("below {start}"),
        }
    }
}

impl Thresholds {
    pub fn is_unset(&self) -> bool {
        self.warn.is_none() && self.crit.is_none()
    }

    /// Returns the status of one value. A gap (or NaN) under a set threshold is UNKNOWN, because it
    /// cannot be compared and must not pass as ok.
    pub fn judge(&self, value: Option<f64>) -> Status {
        let alerts = |range: Option<Range>, value| range.is_some_and(|r| r.alerts(value));
        match value.filter(|v| !v.is_nan()) {
            _ if self.is_unset() => Status::Ok,
            None => Status::Unknown,
            Some(v) if alerts(self.crit, v) => Status::Critical,
            Some(v) if alerts(self.warn, v) => Status::Warning,
            Some(_) => Status::Ok,
        }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Range, RangeError> {
        let text = text.trim();
        check_shape(text)?;
        let (inside, bounds) = match text.strip_prefix('@') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (start, end) = match bounds.split_once(':') {
            Some((start, end)) => (lower(text, start)?, upper(text, end)?),
            None => (0.0, bound(text, bounds)?),
        };
        if start > end {
            return Err(reversed(text, bounds, start, end));
        }
        Ok(Range { start, end, inside })
    }
}

fn check_shape(text: &str) -> Result<(), RangeError> {
    if text.is_empty() {
        return Err(RangeError::Empty);
    }
    if text.len() > MAX_RANGE_LEN {
        return Err(RangeError::TooLong);
    }
    let owned = || text.to_owned();
    if text.contains(char::is_whitespace) {
        return Err(RangeError::InnerBlank(owned()));
    }
    let bounds = text.strip_prefix('@').unwrap_or(text);
    if matches!(bounds, "" | "~" | ":") {
        return Err(RangeError::NoNumber(owned()));
    }
    if bounds.matches(':').count() > 1 {
        return Err(RangeError::Colons(owned()));
    }
    Ok(())
}

fn lower(range: &str, part: &str) -> Result<f64, RangeError> {
    match part {
        "" => Ok(0.0),
        "~" => Ok(f64::NEG_INFINITY),
        _ => bound(range, part),
    }
}

fn upper(range: &str, part: &str) -> Result<f64, RangeError> {
    if part.is_empty() { Ok(f64::INFINITY) } else { bound(range, part) }
}

fn bound(range: &str, part: &str) -> Result<f64, RangeError> {
    if part.contains('~') {
        return Err(RangeError::Tilde(range.to_owned()));
    }
    number(part).ok_or_else(|| RangeError::Number {
        range: range.to_owned(),
        part: part.to_owned(),
        hint: hint_for(part),
    })
}

fn hint_for(part: &str) -> &'static str {
    let lower = part.to_ascii_lowercase();
    match () {
        () if part.contains(',') => "write the decimals after a point, as in 1.5",
        () if part.ends_with('%') => "write it without %: the limit has the unit of the metric",
        () if part.contains('@') => "@ stands only at the very beginning",
        () if lower.contains("0x") => "write it without hexadecimal digits",
        () if lower.contains("inf") || lower.contains("nan") => {
            "leave an end open instead: ~:10 has no lower end, 10: no upper end"
        }
        () if decimal(part).is_some() => "it is too large",
        () => "write only digits, sign, point and exponent, without a unit",
    }
}

fn reversed(range: &str, bounds: &str, start: f64, end: f64) -> RangeError {
    let (range, end) = (range.to_owned(), words::exact(end));
    let start_is_implied = !bounds.contains(':') || bounds.starts_with(':');
    if start_is_implied {
        return RangeError::BelowZero(range, end);
    }
    RangeError::Reversed { range, start: words::exact(start), end }
}

/// Parses a finite decimal number: optional sign, `5`, `5.`, `.5`, exponent; nothing else.
pub(crate) fn number(text: &str) -> Option<f64> {
    decimal(text).filter(|value| value.is_finite())
}

/// Parses like `number`, but too large numbers become infinite.
fn decimal(text: &str) -> Option<f64> {
    // The standard parser has the right grammar once `inf` and `nan` are excluded.
    let only_number_bytes = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    text.parse().ok().filter(|_| only_number_bytes)
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.inside { "@" } else { "" })?;
        if self.start == f64::NEG_INFINITY {
            f.write_str("~:")?;
        } else if self.start != 0.0 || self.end == f64::INFINITY || self.inside {
            write!(f, "{}:", words::exact(self.start))?;
        }
        if self.end == f64::INFINITY { Ok(()) } else { f.write_str(&words::exact(self.end)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn refusal(text: &str) -> String {
        text.parse::<Range>().expect_err(text).to_string()
    }

    #[test]
    fn ranges_alert_as_the_plugin_guidelines_say() {
        let table: &[(&str, &[f64], &[f64])] = &[
            ("10", &[-0.1, 10.1], &[0.0, 5.0, 10.0]),
            ("10:", &[9.9, -5.0], &[10.0, 1e300]),
            ("~:10", &[10.1], &[10.0, -1e300]),
            ("10:20", &[9.9, 20.1], &[10.0, 20.0]),
            ("@10:20", &[10.0, 15.0, 20.0], &[9.9, 20.1]),
            ("0", &[0.1, -0.1], &[0.0]),
            ("~:", &[], &[-1e300, 0.0, 1e300]),
            ("@~:", &[-1e300, 0.0, 1e300], &[]),
            (":10", &[-1.0, 11.0], &[0.0, 10.0]),
            ("@10", &[0.0, 10.0], &[-1.0, 11.0]),
            ("-10:", &[-11.0], &[-10.0, 0.0]),
            ("~:-10", &[-9.0], &[-10.0]),
            ("010", &[11.0], &[10.0]),
            (" 5. ", &[5.1], &[5.0]),
            (".5", &[0.6], &[0.5]),
            ("1e2:+2.5E+2", &[99.0, 251.0], &[100.0, 250.0]),
        ];
        for (text, alerting, calm) in table {
            for value in *alerting {
                assert!(range(text).alerts(*value), "{text} with {value}");
            }
            for value in *calm {
                assert!(!range(text).alerts(*value), "{text} with {value}");
            }
        }
    }

    #[test]
    fn what_is_not_a_range_is_refused() {
        let bad = [
            "", "  ", "@", "~", ":", "@~", "@:", "-10", ":-1", "10:~", "~:~", "~10", "20:10", "1:2:3", "1,5",
            "0x10", "inf", "nan", "~:inf", "5%", "5 %", "1 0", "1e", "e5", ".", "-", "+", "10:@20", "@@1",
            "1e999", "--1", "1.2.3", "ten", "1_000",
        ];
        for text in bad {
            assert!(text.parse::<Range>().is_err(), "{text:?}");
        }
        assert_eq!("1".repeat(MAX_RANGE_LEN + 1).parse::<Range>(), Err(RangeError::TooLong));
    }

    #[test]
    fn a_refusal_says_how_to_write_it() {
        let table = [
            ("-10", "write -10: (alert below) or ~:-10 (alert above)"),
            (":-1", "write -1: (alert below) or ~:-1 (alert above)"),
            ("20:10", "write 10:20"),
            ("10:~", "10: for no upper end"),
            ("1,5", "after a point"),
            ("90%", "without %"),
            ("1e999", "too large"),
            ("~:inf", "leave an end open"),
            ("1: 2", "has a blank inside"),
        ];
        for (text, advice) in table {
            assert!(refusal(text).contains(advice), "{}", refusal(text));
        }
    }

    #[test]
    fn critical_is_asked_before_warning_and_unset_never_alerts() {
        let both = Thresholds { warn: Some(range("80")), crit: Some(range("90")) };
        assert_eq!(both.judge(Some(80.0)), Status::Ok);
        assert_eq!(both.judge(Some(85.0)), Status::Warning);
        assert_eq!(both.judge(Some(95.0)), Status::Critical);
        let only_warn = Thresholds { warn: both.warn, crit: None };
        assert_eq!(only_warn.judge(Some(95.0)), Status::Warning);
        assert_eq!(Thresholds::default().judge(Some(1e9)), Status::Ok);
    }

    #[test]
    fn a_gap_under_a_threshold_is_unknown() {
        let never = Thresholds { warn: Some(range("~:")), crit: None };
        assert_eq!(never.judge(None), Status::Unknown);
        assert_eq!(never.judge(Some(f64::NAN)), Status::Unknown);
        assert_eq!(Thresholds::default().judge(None), Status::Ok);
    }

    #[test]
    fn the_place_of_an_alerting_value_reads_well() {
        assert_eq!(range("90").place_of(97.0), "above 90");
        assert_eq!(range("10:20").place_of(9.5), "below 10");
        assert_eq!(range("@10:20").place_of(15.0), "within 10 to 20");
        assert_eq!(range("@~:5").place_of(1.0), "5 or less");
    }

    fn any_range() -> impl Strategy<Value = Range> {
        let bound = prop_oneof![
            any::<f64>().prop_filter("finite", |v| v.is_finite()),
            (-1000i32..1000).prop_map(f64::from),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
        ];
        (bound.clone(), bound, any::<bool>()).prop_filter_map("a range", |(a, b, inside)| {
            let (start, end) = (a.min(b), a.max(b));
            (start != f64::INFINITY && end != f64::NEG_INFINITY).then_some(Range { start, end, inside })
        })
    }

    /// The definition in its most naive form.
    fn naive_alert(start: Option<i32>, end: Option<i32>, inside: bool, value: i32) -> bool {
        let too_low = start.is_some_and(|s| value < s);
        let too_high = end.is_some_and(|e| value > e);
        if inside { !(too_low || too_high) } else { too_low || too_high }
    }

    proptest! {
        #[test]
        fn a_range_survives_its_text(range in any_range()) {
            let text = range.to_string();
            prop_assert!(text.len() <= MAX_RANGE_LEN, "{}", text);
            prop_assert_eq!(text.parse::<Range>(), Ok(range), "{}", text);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>(), near in "[-@~:0-9.e ,]{0,12}") {
            for candidate in [text, near] {
                if let Ok(range) = candidate.parse::<Range>() {
                    prop_assert!(range.start <= range.end);
                }
            }
        }

        #[test]
        fn alerts_agree_with_the_naive_reading(
            a in proptest::option::of(-20i32..20), width in proptest::option::of(0i32..20),
            inside: bool, value in -60i32..60,
        ) {
            let end = width.map(|w| a.unwrap_or(0) + w);
            let text = format!(
                "{}{}:{}",
                if inside { "@" } else { "" },
                a.map_or("~".to_owned(), |a| a.to_string()),
                end.map_or(String::new(), |e| e.to_string()),
            );
            prop_assert_eq!(range(&text).alerts(f64::from(value)), naive_alert(a, end, inside, value), "{}", text);
        }
    }
}

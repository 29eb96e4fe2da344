//! Performance data: `'label'=value[UOM];[warn];[crit];[min];[max]`.
//!
//! Tokens are separated by whitespace, or by a comma and whitespace. A malformed token costs only
//! itself and is reported. Nothing is guessed: a comma is no decimal point, and a gap is no zero.
//! The output is bounded. The module does not know how the plugin ended.

use std::collections::HashSet;
use std::str::FromStr;

use crate::range::{self, Range};
use crate::sample::Metric;
use crate::words;

/// Metrics kept of one result. `check_disk` on a crowded server prints some 60. Each costs a series
/// in the history, so a device that invents labels must not make thousands.
pub const MAX_METRICS: usize = 256;
/// Longest label in characters; mount points and interface names stay far below.
pub const MAX_LABEL: usize = 200;
/// Longest unit in characters. It is shown next to each value.
pub const MAX_UOM: usize = 16;
/// Warnings kept of one result: enough to show what a plugin does wrong.
pub const MAX_WARNINGS: usize = 20;

/// Characters of a malformed token that a warning quotes.
const QUOTED_CHARS: usize = 60;

/// The parsed metrics, and the warnings about skipped tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Perfdata {
    pub metrics: Vec<Metric>,
    pub warnings: Vec<String>,
}

/// Reads performance data. Line feeds separate tokens like blanks. A comma before a blank or the
/// end closes its token. The first of two equal labels wins.
pub fn parse(text: &str) -> Perfdata {
    let mut found = Reader::default();
    let mut rest = behind_separators(text);
    while !rest.is_empty() && !found.full() {
        let (token, after) = next_token(rest);
        found.take(token.original, token.read());
        rest = behind_separators(after);
    }
    if !rest.is_empty() {
        found.skipped.insert(0, format!("only the first {MAX_METRICS} metrics are kept"));
    }
    found.finish()
}

/// Writes metrics in a form that [`parse`] reads back.
pub fn render(metrics: &[Metric]) -> String {
    metrics.iter().map(render_one).collect::<Vec<_>>().join(" ")
}

#[derive(Default)]
struct Reader {
    metrics: Vec<Metric>,
    labels: HashSet<String>,
    skipped: Vec<String>,
    unnamed: usize,
}

impl Reader {
    fn full(&self) -> bool {
        self.metrics.len() == MAX_METRICS
    }

    fn take(&mut self, original: &str, read: Result<(Metric, Vec<String>), String>) {
        match read {
            Err(why) => self.warn(original, &why),
            Ok((metric, _)) if self.labels.contains(&metric.label) => {
                self.warn(original, "skipped: this label came before; the first one counts");
            }
            Ok((metric, remarks)) => {
                remarks.iter().for_each(|remark| self.warn(original, remark));
                self.labels.insert(metric.label.clone());
                self.metrics.push(metric);
            }
        }
    }

    fn warn(&mut self, original: &str, why: &str) {
        if self.skipped.len() < MAX_WARNINGS {
            self.skipped.push(format!("{}: {why}", words::line(original, QUOTED_CHARS)));
        } else {
            self.unnamed += 1;
        }
    }

    fn finish(mut self) -> Perfdata {
        if self.unnamed > 0 {
            self.skipped.push(format!("and {} more", self.unnamed));
        }
        Perfdata { metrics: self.metrics, warnings: self.skipped }
    }
}

/// Skips blanks and commas. No label begins with a comma, unless it is quoted.
fn behind_separators(text: &str) -> &str {
    text.trim_start_matches(|c: char| c == ',' || c.is_whitespace())
}

/// One token, cut out but not yet parsed.
struct Token<'a> {
    original: &'a str,
    label: Result<String, &'static str>,
    /// The text after the `=`.
    data: &'a str,
}

/// Cuts one token from a text that does not begin with a blank.
fn next_token(text: &str) -> (Token<'_>, &str) {
    let quoted = text.strip_prefix('\'').map(closing_quote);
    let (label, data_at) = match quoted {
        // A quote is never closed, or closed by the quote of another token. The token then ends at
        // its first blank, so that its neighbours survive.
        Some(None) => (Err("skipped: its quote is not closed before an ="), None),
        Some(Some(end)) => (Ok(text[1..=end].replace("''", "'")), Some(end + 3)),
        None => match text[..blank_from(text, 0)].find('=') {
            Some(end) => (Ok(text[..end].to_owned()), Some(end + 1)),
            None => (Err("skipped: no = between a label and a value"), None),
        },
    };
    let end = blank_from(text, data_at.unwrap_or(0));
    let data = data_at.map_or("", |at| text[at..end].trim_end_matches(','));
    let token = Token { original: &text[..end], label, data };
    (token, &text[end..])
}

/// Returns the length of a quoted label (after its opening quote) up to the closing quote, which
/// must be followed by `=`. A doubled quote is part of the label.
fn closing_quote(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        at += text[at..].find('\'')?;
        match text.as_bytes().get(at + 1) {
            Some(b'\'') => at += 2,
            Some(b'=') => return Some(at),
            _ => return None,
        }
    }
}

fn blank_from(text: &str, at: usize) -> usize {
    text[at..].find(char::is_whitespace).map_or(text.len(), |n| at + n)
}

impl Token<'_> {
    /// Returns the metric, and remarks about ignored fields.
    fn read(self) -> Result<(Metric, Vec<String>), String> {
        let label = self.label?;
        if label.is_empty() {
            return Err("skipped: the label is empty".to_owned());
        }
        if label.chars().count() > MAX_LABEL {
            return Err(format!("skipped: the label is longer than {MAX_LABEL} characters"));
        }
        let mut fields = self.data.split(';');
        let (value, unit) = value_and_unit(fields.next().unwrap_or_default())?;
        let mut remarks = Vec::new();
        let uom = bounded_unit(unit, &mut remarks);
        let mut optional = |name| (name, fields.next().unwrap_or_default());
        let (warn, crit, min, max) = (optional("warn"), optional("crit"), optional("min"), optional("max"));
        let label = words::harmless(&label);
        let mut metric = Metric { value, ..Metric::gap(&label, uom) };
        metric.warn = lenient(warn, &mut remarks, |text| Range::from_str(text).ok());
        metric.crit = lenient(crit, &mut remarks, |text| Range::from_str(text).ok());
        metric.min = lenient(min, &mut remarks, range::number);
        metric.max = lenient(max, &mut remarks, range::number);
        if uom == "%" {
            metric.min = metric.min.or(Some(0.0));
            metric.max = metric.max.or(Some(100.0));
        }
        Ok((metric, remarks))
    }
}

/// Parses an optional field: absent when empty, absent with a remark when malformed.
fn lenient<T>(
    (name, text): (&str, &str),
    remarks: &mut Vec<String>,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let value = read(text);
    if value.is_none() && !text.is_empty() {
        remarks.push(format!("{name} is ignored, being malformed"));
    }
    value
}

fn value_and_unit(field: &str) -> Result<(Option<f64>, &str), String> {
    if let Some(unit) = field.strip_prefix('U').filter(|unit| known_unit(unit)) {
        return Ok((None, unit));
    }
    let (digits, uom) = field.split_at(number_len(field));
    if uom.starts_with(',') {
        return Err("skipped: decimals stand after a point; run the plugin with LC_ALL=C".to_owned());
    }
    let value = range::number(digits).ok_or("skipped: the value is not a finite number or U")?;
    if uom.contains(|c: char| c.is_ascii_digit() || "=',\"".contains(c) || c.is_control()) {
        return Err("skipped: the unit has digits, quotes, = or a comma".to_owned());
    }
    Ok((Some(value), uom))
}

/// Cuts an overlong unit. The value still counts.
fn bounded_unit<'a>(unit: &'a str, remarks: &mut Vec<String>) -> &'a str {
    let Some((end, _)) = unit.char_indices().nth(MAX_UOM) else { return unit };
    remarks.push(format!("the unit is cut at {MAX_UOM} characters"));
    &unit[..end]
}

fn known_unit(uom: &str) -> bool {
    let plain = ["", "s", "ms", "us", "ns", "%", "B", "c"];
    plain.contains(&uom) || uom.strip_suffix('B').is_some_and(|prefix| ["K", "M", "G", "T"].contains(&prefix))
}

/// Returns the length of the leading number. An `e` without digits belongs to the unit.
fn number_len(field: &str) -> usize {
    let mantissa = field.find(|c: char| !c.is_ascii_digit() && !"+-.".contains(c)).unwrap_or(field.len());
    let Some(exponent) = field[mantissa..].strip_prefix(['e', 'E']) else { return mantissa };
    let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 { mantissa } else { field.len() - unsigned.len() + digits }
}

fn render_one(metric: &Metric) -> String {
    let value = metric.value.map_or("U".to_owned(), words::exact);
    let range = |r: Option<Range>| r.map_or(String::new(), |r| r.to_string());
    let number = |n: Option<f64>| n.map_or(String::new(), words::exact);
    let all = format!(
        "{}={value}{};{};{};{};{}",
        render_label(&metric.label),
        metric.uom,
        range(metric.warn),
        range(metric.crit),
        number(metric.min),
        number(metric.max)
    );
    all.trim_end_matches(';').to_owned()
}

fn render_label(label: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:%".contains(c);
    if label.chars().all(plain) { label.to_owned() } else { format!("'{}'", label.replace('\'', "''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> Vec<String> {
        parse(text).metrics.into_iter().map(|m| m.label).collect()
    }

    fn one(text: &str) -> Metric {
        let found = parse(text);
        assert_eq!((found.metrics.len(), &found.warnings[..]), (1, &[][..]), "{text}");
        found.metrics[0].clone()
    }

    fn skipped(text: &str) -> String {
        let found = parse(text);
        assert_eq!(found.metrics, [], "{text}");
        assert_eq!(found.warnings.len(), 1, "{text}");
        found.warnings[0].clone()
    }

    #[test]
    fn a_full_token_is_read_field_by_field() {
        let m = one("/var=2643MB;5948;@~:5958;0;5968");
        assert_eq!((m.label.as_str(), m.value, m.uom.as_str()), ("/var", Some(2643.0), "MB"));
        assert_eq!(m.warn, "5948".parse().ok());
        assert_eq!(m.crit, "@~:5958".parse().ok());
        assert_eq!((m.min, m.max), (Some(0.0), Some(5968.0)));
    }

    #[test]
    fn quoted_labels_keep_blanks_quotes_equal_signs_and_pipes() {
        let table = [
            ("'a b'=1", "a b"),
            ("' a '=1", " a "),
            ("'it''s'=1", "it's"),
            ("''''=1", "'"),
            ("'a=b'=1", "a=b"),
            ("'a|b'=1", "a|b"),
            ("'plain'=1", "plain"),
            ("0815=1", "0815"),
            ("it's=1", "it's"),
            ("'a\nb'=1", "a b"),
        ];
        for (text, label) in table {
            assert_eq!(one(text).label, label);
        }
    }

    #[test]
    fn values_and_units_are_told_apart() {
        let table = [
            ("1", 1.0, ""),
            ("-1.5ms", -1.5, "ms"),
            ("+.5s", 0.5, "s"),
            ("5.", 5.0, ""),
            ("1e3B", 1000.0, "B"),
            ("1E-2", 0.01, ""),
            ("5e", 5.0, "e"),
            ("5eV", 5.0, "eV"),
            ("3KiB", 3.0, "KiB"),
            ("7c", 7.0, "c"),
            ("21.5°C", 21.5, "°C"),
            ("007", 7.0, ""),
        ];
        for (text, value, uom) in table {
            let m = one(&format!("a={text}"));
            assert_eq!((m.value, m.uom.as_str()), (Some(value), uom), "{text}");
        }
    }

    #[test]
    fn an_unknown_value_is_a_gap_and_never_zero() {
        let m = one("a=U;10;20");
        assert_eq!((m.value, m.warn, m.uom.as_str()), (None, "10".parse().ok(), ""));
        assert_eq!((one("a=U%").value, one("a=UMB").value), (None, None));
        assert!(skipped("a=Unknown").contains("not a finite number"));
    }

    #[test]
    fn broken_tokens_are_skipped_and_reported_one_by_one() {
        let broken = [
            "a", "a=", "=1", "''=1", "a=x", "a=nan", "a=inf", "a=1e999", "a=1,5", "a=0x10", "a=5a3", "a=5'",
            "a=1=2", "a=--1", "a=;1;2", "|", "'a", "'a'b=1", "a=5\"",
        ];
        for token in broken {
            assert!(!skipped(token).is_empty());
            let among = parse(&format!("x=1 {token} y=2"));
            assert_eq!((among.metrics.len(), among.warnings.len()), (2, 1), "{token}");
        }
    }

    #[test]
    fn a_comma_decimal_is_refused_with_advice() {
        for text in ["load=1,5;2;3", "load=1,5", "load=1,5,", "load=-0,25s, "] {
            assert!(skipped(text).contains("LC_ALL=C"), "{text}");
        }
        assert_eq!(labels("a/s=1,5, b/s=12"), ["b/s"]);
    }

    #[test]
    fn a_comma_before_a_blank_or_the_end_closes_a_token() {
        type Seen<'a> = &'a [(&'a str, f64, &'a str)];
        let table: [(&str, Seen<'_>); 14] = [
            ("a=1 ,b=2", &[("a", 1.0, ""), ("b", 2.0, "")]),
            (",a=1 ,,b=2", &[("a", 1.0, ""), ("b", 2.0, "")]),
            ("a/s=0, b/s=12", &[("a/s", 0.0, ""), ("b/s", 12.0, "")]),
            ("a/s=0,\tb/s=12,\nc=3,", &[("a/s", 0.0, ""), ("b/s", 12.0, ""), ("c", 3.0, "")]),
            ("'a b'=1ms, 'c, d'=2%", &[("a b", 1.0, "ms"), ("c, d", 2.0, "%")]),
            ("a=1;2;3;0;9, b=2", &[("a", 1.0, ""), ("b", 2.0, "")]),
            ("a=1;2;3, b=2;;;, c=3;", &[("a", 1.0, ""), ("b", 2.0, ""), ("c", 3.0, "")]),
            ("a=1 , b=2", &[("a", 1.0, ""), ("b", 2.0, "")]),
            ("a=1 ,, b=2 ,", &[("a", 1.0, ""), ("b", 2.0, "")]),
            (", a=1", &[("a", 1.0, "")]),
            ("a=1,, b=2", &[("a", 1.0, ""), ("b", 2.0, "")]),
            ("a=1B, b=2KB,", &[("a", 1.0, "B"), ("b", 2.0, "KB")]),
            ("a,b=1, c=2", &[("a,b", 1.0, ""), ("c", 2.0, "")]),
            (",", &[]),
        ];
        for (text, metrics) in table {
            let found = parse(text);
            let seen: Vec<_> = found
                .metrics
                .iter()
                .map(|m| (m.label.as_str(), m.value.unwrap_or(f64::NAN), m.uom.as_str()))
                .collect();
            assert_eq!((&seen[..], found.warnings.len()), (metrics, 0), "{text:?} {:?}", found.warnings);
        }
        assert_eq!(parse("a=U, b=1").metrics[0].value, None);
        assert_eq!(parse("a=1;2;3;0;9, b=2").metrics[0].max, Some(9.0));
    }

    #[test]
    fn a_long_unit_is_cut_and_its_value_kept() {
        for (unit, kept) in [
            ("u".repeat(MAX_UOM), "u".repeat(MAX_UOM)),
            ("u".repeat(MAX_UOM + 1), "u".repeat(MAX_UOM)),
            ("°".repeat(500), "°".repeat(MAX_UOM)),
            ("requests/second/core".to_owned(), "requests/second/".to_owned()),
        ] {
            let found = parse(&format!("a=12{unit};20;30 b=1"));
            let a = &found.metrics[0];
            assert_eq!((a.value, a.uom.as_str(), a.warn), (Some(12.0), kept.as_str(), "20".parse().ok()));
            assert_eq!((found.metrics.len(), found.warnings.len()), (2, usize::from(unit != kept)));
        }
    }

    #[test]
    fn an_unclosed_quote_costs_only_its_own_token() {
        assert_eq!(labels("a=1 'b c=2 d=3"), ["a", "c", "d"]);
        assert_eq!(labels("'a b=1 'c d'=2"), ["b", "c d"]);
    }

    #[test]
    fn a_malformed_optional_field_is_absent() {
        let found = parse("a=1;20:10;5;x;9");
        assert_eq!(found.metrics[0].warn, None);
        assert_eq!(found.metrics[0].crit, "5".parse().ok());
        assert_eq!((found.metrics[0].min, found.metrics[0].max), (None, Some(9.0)));
        assert_eq!(found.warnings.len(), 2);
    }

    #[test]
    fn surplus_and_trailing_fields_do_no_harm() {
        assert_eq!(one("a=1;;;;;;").max, None);
        assert_eq!(one("a=1;2;3;4;5;6;7").max, Some(5.0));
        assert_eq!(one("a=1;").value, Some(1.0));
    }

    #[test]
    fn percent_implies_its_bounds() {
        assert_eq!((one("a=5%").min, one("a=5%").max), (Some(0.0), Some(100.0)));
        assert_eq!(one("a=5%;;;;200").max, Some(200.0));
    }

    #[test]
    fn of_two_equal_labels_the_first_wins() {
        let found = parse("a=1 'a'=2\tb=3\r\nc=4");
        assert_eq!(
            found.metrics.iter().map(|m| m.value).collect::<Vec<_>>(),
            [Some(1.0), Some(3.0), Some(4.0)]
        );
        assert!(found.warnings[0].contains("first one counts"));
    }

    #[test]
    fn metrics_labels_and_warnings_are_bounded() {
        let many: String = (0..MAX_METRICS + 5).map(|i| format!("m{i}=1 ")).collect();
        assert_eq!(parse(&many).metrics.len(), MAX_METRICS);
        assert!(parse(&many).warnings[0].contains("only the first"));
        assert!(skipped(&format!("{}=1", "x".repeat(MAX_LABEL + 1))).contains("longer"));
        let junk = parse(&"junk ".repeat(1000));
        assert_eq!(junk.warnings.len(), MAX_WARNINGS + 1);
        assert_eq!(junk.warnings[MAX_WARNINGS], "and 980 more");
    }

    fn any_metric() -> impl Strategy<Value = Metric> {
        let number = || any::<f64>().prop_filter("finite", |v| v.is_finite());
        let range = || {
            let text = prop_oneof!["[1-9]{1,3}", "-[1-9]:", "@~:[1-9]{1,2}", "1:[2-9]"];
            proptest::option::of(text.prop_map(|t: String| t.parse::<Range>().expect("a range")))
        };
        let value = (proptest::option::of(number()), prop_oneof!["", "ms", "MB", "c", "%"]);
        let bounds = (proptest::option::of(number()), proptest::option::of(number()));
        ("[a-z0-9 '=|;/é]{1,12}", value, range(), range(), bounds).prop_map(
            |(label, (value, uom), warn, crit, (min, max))| {
                let percent = uom == "%";
                let (min, max) = (min.or(percent.then_some(0.0)), max.or(percent.then_some(100.0)));
                Metric { label, value, uom, warn, crit, min, max }
            },
        )
    }

    proptest! {
        #[test]
        fn metrics_survive_their_text(metrics in proptest::collection::vec(any_metric(), 0..8)) {
            let mut seen = HashSet::new();
            let unique: Vec<_> = metrics.into_iter().filter(|m| seen.insert(m.label.clone())).collect();
            let found = parse(&render(&unique));
            prop_assert_eq!(found, Perfdata { metrics: unique, warnings: vec![] });
        }

        #[test]
        fn what_stands_around_a_token_survives_it(junk in "[a1/;|,.%U~:@=é\"-]{0,24}", comma: bool) {
            let separator = if comma { ", " } else { " " };
            let found = parse(&format!("'be fore'=1s;2{separator}{junk}{separator}be/hind=3{separator}"));
            let label = |i: usize| found.metrics.get(i).map(|m| (m.label.clone(), m.value));
            prop_assert_eq!(label(0), Some(("be fore".to_owned(), Some(1.0))));
            let last = found.metrics.len() - 1;
            prop_assert_eq!(label(last), Some(("be/hind".to_owned(), Some(3.0))), "{:?}", found);
            prop_assert!(found.metrics.len() + found.warnings.len() >= 2 && last <= 2);
        }

        #[test]
        fn any_text_is_read_within_bounds(text in any::<String>(), near in "[a1'=;|,.% U~:@\n-]{0,60}") {
            for candidate in [text, near] {
                let found = parse(&candidate);
                prop_assert!(found.metrics.len() <= MAX_METRICS && found.warnings.len() <= MAX_WARNINGS + 2);
                prop_assert!(found.metrics.iter().all(|m| m.uom.chars().count() <= MAX_UOM));
                prop_assert!(found.metrics.iter().all(|m| m.value.is_none_or(f64::is_finite)));
                prop_assert!(found.metrics.iter().all(|m| !m.label.is_empty()));
            }
        }
    }
}

//! Makes text from a device or an operator safe for a terminal, a mail or a page. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Stands for an address in what a customer reads.
const ADDRESS: &str = "(address)";

/// Replaces characters that act on their surroundings instead of being visible: control characters,
/// marks of text direction, and characters without width, which make two different names look alike.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { '\u{fffd}' } else { c }).collect()
}

/// [`harmless`] for a line of a check's long output, in which tabs align columns.
pub fn harmless_output(line: &str) -> String {
    line.split('\t').map(harmless).collect::<Vec<_>>().join("\t")
}

/// Escapes text for an element of HTML or an attribute in double quotes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Returns the text of a device as its customer reads it: without addresses, and with the name of the rental in place of
/// the one that the operators gave the device.
pub fn discreet(text: &str, device: &str, rental: &str) -> String {
    let text = replaced(text, |c| c.is_ascii_digit() || c == '.', without::<Ipv4Addr>);
    let text = replaced(&text, |c| c.is_alphanumeric() || c == ':', without::<Ipv6Addr>);
    let renamed = |word: &str| {
        // It may be at the end of a sentence, or the beginning of a name in DNS.
        let (name, rest) = word.split_at_checked(device.len())?;
        let is_whole = rest.is_empty() || rest.starts_with('.');
        (is_whole && name.eq_ignore_ascii_case(device)).then(|| format!("{rental}{rest}"))
    };
    replaced(&text, |c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'), renamed)
}

/// Replaces those runs of characters that belong together for which `with` returns something.
fn replaced(text: &str, belongs: impl Fn(char) -> bool, with: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find(&belongs) {
        let (before, run) = rest.split_at(start);
        let (run, after) = run.split_at(run.find(|c: char| !belongs(c)).unwrap_or(run.len()));
        out.push_str(before);
        out.push_str(&with(run).unwrap_or_else(|| run.to_owned()));
        rest = after;
    }
    out + rest
}

/// Replaces an address, which may be at the end of a sentence.
fn without<A: FromStr>(run: &str) -> Option<String> {
    let cores = [run, run.trim_matches(['.', ':'])];
    let core = cores.into_iter().find(|core| core.parse::<A>().is_ok())?;
    Some(run.replacen(core, ADDRESS, 1))
}

/// Unicode's default ignorable characters and its line separators. The two variation selectors that
/// choose between emoji and plain text stay: without them half of all warning signs would break.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0d}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_a_terminal_or_turns_a_line() {
        assert_eq!(harmless("a\x1b[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!(harmless("cam\u{202e}70\u{2066}"), "cam\u{fffd}70\u{fffd}");
    }

    #[test]
    fn tabs_of_long_output_stay() {
        assert_eq!(harmless_output("\ta\tb\x1b[2J\r"), "\ta\tb\u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn what_cannot_be_seen_is_seen() {
        for hidden in ['\u{200b}', '\u{200d}', '\u{feff}', '\u{ad}', '\u{61c}', '\u{e0041}', '\u{2029}'] {
            assert_eq!(harmless(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
    }

    #[test]
    fn words_of_any_language_stay() {
        for text in ["Überhitzung", "温度 OK", "שלום", "\u{26a0}\u{fe0f} disk"] {
            assert_eq!(harmless(text), text);
        }
    }
}

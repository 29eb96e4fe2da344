//! Terminal escape sequences in foreign text, by ECMA-48: colours, titles, links.
//!
//! No sequence remains. A sequence never extends past the end of its line, and a malformed one does
//! not remove the text after it. The module knows nothing about plugins, except that a pipe is
//! kept.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

const ESCAPE: char = '\u{1b}';
const BELL: char = '\u{7}';
/// Introducers of one character (C1), as in 8-bit terminals.
const C1_CSI: char = '\u{9b}';
const C1_ST: char = '\u{9c}';

/// Returns `text` without escape sequences.
pub(crate) fn removed(text: &str) -> Cow<'_, str> {
    if !text.contains(is_introducer) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ESCAPE => escape(&mut rest),
            C1_CSI => control_sequence(&mut rest),
            c if is_c1_string(c) => control_string(&mut rest),
            C1_ST => {}
            c => kept.push(c),
        }
    }
    Cow::Owned(kept)
}

fn is_introducer(c: char) -> bool {
    matches!(c, ESCAPE | C1_CSI | C1_ST) || is_c1_string(c)
}

/// Recognizes DCS, SOS, OSC, PM and APC, which begin a string that ends with ST.
fn is_c1_string(c: char) -> bool {
    matches!(c, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}')
}

/// Skips a sequence after its ESC.
fn escape(rest: &mut Peekable<Chars<'_>>) {
    match rest.peek() {
        Some('[') => {
            rest.next();
            control_sequence(rest);
        }
        Some('P' | 'X' | ']' | '^' | '_') => {
            rest.next();
            control_string(rest);
        }
        _ => end_of_sequence(rest, '0'..='~'),
    }
}

/// Skips a sequence after its CSI: parameters, then the rest as for any escape sequence.
fn control_sequence(rest: &mut Peekable<Chars<'_>>) {
    skip_while(rest, '0'..='?');
    end_of_sequence(rest, '@'..='~');
}

/// Skips intermediate characters, then the final one. A pipe never ends a sequence of a plugin;
/// after a truncated sequence it separates text from metrics.
fn end_of_sequence(rest: &mut Peekable<Chars<'_>>, last: std::ops::RangeInclusive<char>) {
    let mut ahead = rest.clone();
    skip_while(&mut ahead, ' '..='/');
    if ahead.next_if(|c| last.contains(c) && *c != '|').is_some() {
        *rest = ahead;
    }
}

/// Skips a string after its introducer. Without an end on the same line it is no string, and the
/// text is kept.
fn control_string(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    while let Some(c) = ahead.next_if(|c| *c != '\n') {
        let ends = matches!(c, BELL | C1_ST) || c == ESCAPE && ahead.next_if_eq(&'\\').is_some();
        if ends {
            *rest = ahead;
            return;
        }
    }
}

fn skip_while(rest: &mut Peekable<Chars<'_>>, range: std::ops::RangeInclusive<char>) {
    while rest.next_if(|c| range.contains(c)).is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_kind_of_sequence_is_removed() {
        let table = [
            ("\x1b[31mred\x1b[0m", "red"),
            ("\x1b[1;38;5;196mbold\x1b[m", "bold"),
            ("\x1b[38:2::255:0:0mcolour\x1b[39m", "colour"),
            ("a\x1b[2J\x1b[Hb", "ab"),
            ("\x1b[?25lhidden\x1b[?25h", "hidden"),
            ("\x1b[1 qcursor", "cursor"),
            ("\u{9b}31mred\u{9b}0m", "red"),
            ("\x1b]0;a title\x07text", "text"),
            ("\x1b]0;a title\x1b\\text", "text"),
            ("\u{9d}0;a title\u{9c}text", "text"),
            ("\x1b]8;;http://x/?a=1|b\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bPq#0\x1b\\sixel", "sixel"),
            ("\x1b_app\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\text", "text"),
            ("\x1b(Bline\x1b(0", "line"),
            ("\x1b7saved\x1b8\x1bc\x1b=\x1b>", "saved"),
            ("\x1b#8align", "align"),
            ("plain [31m text", "plain [31m text"),
        ];
        for (text, left) in table {
            assert_eq!(removed(text), left, "{text:?}");
        }
    }

    #[test]
    fn a_broken_sequence_costs_no_text_and_no_line() {
        let table = [
            ("a\x1b", "a"),
            ("a\x1b[", "a"),
            ("a\x1b[31", "a"),
            ("a\x1b[31\nb", "a\nb"),
            ("a\x1b[31|b=1", "a|b=1"),
            ("a\x1b|b=1", "a|b=1"),
            ("a\x1b\x1b[31mb", "ab"),
            ("a\x1b[é", "aé"),
            ("a\x1b[ é", "a é"),
            ("\x1b]0;no end\nb", "0;no end\nb"),
            ("\x1b]0;no end", "0;no end"),
            ("\x1b]0;an \x1b[31minner\x1b\\b", "b"),
            ("\x1b\\a", "a"),
        ];
        for (text, left) in table {
            assert_eq!(removed(text), left, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_drives_a_terminal_is_left(text in any::<String>(), near in "[\x1b\u{9b}\u{9d}\u{9c}\x07\\\\\\[\\]0-9;?m|a\n ]{0,40}") {
            for text in [text, near] {
                let left = removed(&text);
                prop_assert!(!left.contains(is_introducer));
                prop_assert_eq!(left.matches('\n').count(), text.matches('\n').count());
            }
        }

        #[test]
        fn colours_change_nothing_but_the_colour(text in "[a-z0-9 =;|é\n]{0,40}", at in 0usize..40, code in 0u8..110) {
            let at = text.floor_char_boundary(at.min(text.len()));
            let coloured = format!("{}\x1b[{code}m{}\x1b[0m", &text[..at], &text[at..]);
            prop_assert_eq!(removed(&coloured), text);
        }
    }
}

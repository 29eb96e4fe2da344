//! The beginning of a text that came from a device, for records that are written repeatedly.
//!
//! The current state of the host or service has the whole text. Events and notifications contain an
//! excerpt, because they are kept for years and a device chooses the text of its results.

use std::fmt;
use std::ops::Deref;

/// The longest excerpt, in bytes: the first line of a plugin's output is shorter, and an event
/// stays under 2 kB.
pub const LONGEST_EXCERPT: usize = 1_024;

/// At most [`LONGEST_EXCERPT`] bytes of a text, and whether it was cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excerpt {
    text: String,
    truncated: bool,
}

impl Excerpt {
    pub fn of(text: &str) -> Self {
        let end = text.floor_char_boundary(LONGEST_EXCERPT);
        Excerpt { text: text[..end].to_owned(), truncated: end < text.len() }
    }

    /// Creates an excerpt like [`Excerpt::of`] from a text that may be an excerpt already.
    pub fn stored(text: String, truncated: bool) -> Self {
        let excerpt = Excerpt::from(text);
        Excerpt { truncated: truncated || excerpt.truncated, ..excerpt }
    }

    pub fn is_truncated(&self) -> bool {
        self.truncated
    }
}

impl Deref for Excerpt {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<&str> for Excerpt {
    fn from(text: &str) -> Self {
        Excerpt::of(text)
    }
}

impl From<&String> for Excerpt {
    fn from(text: &String) -> Self {
        Excerpt::of(text)
    }
}

impl From<String> for Excerpt {
    fn from(text: String) -> Self {
        if text.len() > LONGEST_EXCERPT { Excerpt::of(&text) } else { Excerpt { text, truncated: false } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_kept_whole() {
        for text in ["", "disk 97 % used", &"x".repeat(LONGEST_EXCERPT)] {
            let excerpt = Excerpt::of(text);
            assert_eq!((&*excerpt, excerpt.is_truncated()), (text, false));
            assert_eq!(Excerpt::from(text.to_owned()), excerpt);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_marked() {
        for text in ["x".repeat(60_000), "ü".repeat(513), format!("x{}", "温".repeat(1_000))] {
            let excerpt = Excerpt::of(&text);
            assert!(excerpt.is_truncated() && text.starts_with(&*excerpt));
            assert!((LONGEST_EXCERPT - 3..=LONGEST_EXCERPT).contains(&excerpt.len()), "{}", excerpt.len());
            assert_eq!(Excerpt::from(text), excerpt);
        }
    }
}

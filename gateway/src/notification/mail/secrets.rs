//! Recognises parts of a login in a text that a mail server sends.
//!
//! It knows the forms in which the login is sent, and their parts. It does not know the dialogue.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// Characters of a secret that a text may have in common with it by chance.
const MOST_IN_COMMON: usize = 5;

/// The forms of a login that must not be shown: the password, what `AUTH` sends, and the password in
/// base64 behind any other text.
#[derive(Default)]
pub struct LoginSecrets {
    parts: Vec<String>,
}

impl LoginSecrets {
    pub fn new(user: &str, password: &str) -> LoginSecrets {
        let sent = STANDARD_NO_PAD.encode(format!("\0{user}\0{password}"));
        let shifted = (0..3).map(|before| encoded_behind(before, password));
        let forms = [password.to_owned(), sent].into_iter().chain(shifted);
        LoginSecrets { parts: forms.flat_map(|form| parts_of(&plain(&form))).collect() }
    }

    /// Whether the text has a part of the login in it, in capitals or not, with or without spaces.
    pub fn is_repeated_in(&self, text: &str) -> bool {
        let text = plain(text);
        self.parts.iter().any(|part| text.contains(part))
    }
}

/// Returns the base64 of the password behind so many other bytes, without the characters that depend on
/// those.
fn encoded_behind(before: usize, password: &str) -> String {
    let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(password.bytes()).collect();
    STANDARD_NO_PAD.encode(bytes).split_off((before * 8).div_ceil(6))
}

fn plain(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect()
}

/// Returns each part that is longer than a chance, or a short secret whole.
fn parts_of(secret: &str) -> Vec<String> {
    let characters: Vec<char> = secret.chars().collect();
    let length = characters.len().min(MOST_IN_COMMON + 1);
    if length == 0 {
        Vec::new()
    } else {
        characters.windows(length).map(|part| part.iter().collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "fleetuser";
    const PASSWORD: &str = "Xyzzy-Plugh-9137-secret";

    fn encoded(text: &str) -> String {
        STANDARD_NO_PAD.encode(text)
    }

    #[test]
    fn a_part_of_a_login_is_found_in_each_form() {
        let secrets = LoginSecrets::new(USER, PASSWORD);
        let whole = encoded(&format!("\0{USER}\0{PASSWORD}"));
        for text in [
            format!("bad {PASSWORD}"),
            format!("unknown command: AUTH PLAIN {}", &whole[..20]),
            format!("bad {whole}=="),
            format!("bad {}", encoded(PASSWORD)),
            format!("bad {}", encoded(&format!("x{PASSWORD}"))),
            format!("bad {}", encoded(&format!("xy{PASSWORD}"))),
            format!("BAD {}", whole.to_uppercase()),
            PASSWORD.to_uppercase(),
            format!("{} and {}", &PASSWORD[..8], &PASSWORD[8..]),
            "X y z z y - P l u g h".to_owned(),
            PASSWORD.replace('-', "%2D"),
            "plugh-".to_owned(),
        ] {
            assert!(secrets.is_repeated_in(&text), "{text}");
        }
    }

    #[test]
    fn an_ordinary_answer_is_no_part_of_a_login() {
        let secrets = LoginSecrets::new(USER, PASSWORD);
        for text in ["", "authentication failed: bad user or password", "fleetuser has no mailbox", "plugh"] {
            assert!(!secrets.is_repeated_in(text), "{text}");
        }
        assert!(!LoginSecrets::default().is_repeated_in("anything"));
    }

    #[test]
    fn a_short_password_is_found_whole() {
        let secrets = LoginSecrets::new("u", "key7");
        assert!(secrets.is_repeated_in("no key7 here") && !secrets.is_repeated_in("no key here"));
        assert!(!LoginSecrets::new("u", "").is_repeated_in("denied"));
    }
}

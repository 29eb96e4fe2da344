//! Bearer secrets: their format, and how one is checked against the stored hash.
//!
//! The format is `fg<kind>_<id><...>`. A prefix per kind lets a scanner find a leaked token, and
//! the id may be logged. 256 secret bits follow, then a checksum that distinguishes a typo from a
//! revoked token. The store keeps id and hash. A fast hash suffices, because 256 random bits cannot
//! be guessed.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Crockford's base 32 in lower case, as in ids: no i, l, o, u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// `fgt_`
const PREFIX_LEN: usize = 4;
/// 63 bits.
const ID_LEN: usize = 13;
const SECRET_BYTES: usize = 32;
/// 256 bits in steps of five.
const SECRET_LEN: usize = 52;
/// 30 bits: one typo in a thousand million passes, and is then not found in the store.
const CHECK_LEN: usize = 6;
const SECRET_AT: usize = PREFIX_LEN + ID_LEN + 1;
const CHECK_AT: usize = SECRET_AT + SECRET_LEN;
/// The length of every token.
pub const TOKEN_LEN: usize = CHECK_AT + CHECK_LEN;

/// SHA-256 of a token's secret part, as stored.
pub type TokenHash = [u8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    Api,
    Enrolment,
    Replacement,
    Session,
    LoginLink,
}

impl TokenKind {
    const ALL: [TokenKind; 5] = [
        TokenKind::Api,
        TokenKind::Enrolment,
        TokenKind::Replacement,
        TokenKind::Session,
        TokenKind::LoginLink,
    ];

    pub const fn prefix(self) -> &'static str {
        match self {
            TokenKind::Api => "fgt_",
            TokenKind::Enrolment => "fge_",
            TokenKind::Replacement => "fgr_",
            TokenKind::Session => "fgs_",
            TokenKind::LoginLink => "fgl_",
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadToken {
    #[error("not a token: it begins with fgt_, fge_, fgr_, fgs_ or fgl_ and has {TOKEN_LEN} characters")]
    Form,
    #[error("the token has a typo or is cut off: its checksum does not fit")]
    Checksum,
}

/// A whole token. [`Token::reveal`] shows it once.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token {
    #[zeroize(skip)]
    kind: TokenKind,
    text: String,
}

impl Token {
    /// Makes a new token. `id` prints as 13 characters of the alphabet of ids.
    ///
    /// # Panics
    /// Panics when `id` does not, or when the operating system cannot provide randomness.
    pub fn generate(kind: TokenKind, id: impl fmt::Display) -> Self {
        let mut secret = Zeroizing::new([0u8; SECRET_BYTES]);
        getrandom::fill(secret.as_mut()).expect("the operating system gives random bytes");
        let mut text = String::with_capacity(TOKEN_LEN);
        text.push_str(kind.prefix());
        text.push_str(&id.to_string());
        text.push('_');
        assert!(text.len() == SECRET_AT, "an id has {ID_LEN} characters");
        push_base32(&mut text, secret.as_slice());
        push_checksum(&mut text);
        let token = Token { kind, text };
        assert!(token.is_in_alphabet(), "an id is made of the characters of ids");
        token
    }

    pub fn kind(&self) -> TokenKind {
        self.kind
    }

    /// Returns the part that may be logged and that finds the row.
    pub fn id(&self) -> &str {
        &self.text[PREFIX_LEN..PREFIX_LEN + ID_LEN]
    }

    pub fn hash(&self) -> TokenHash {
        Sha256::digest(&self.text.as_bytes()[SECRET_AT..CHECK_AT]).into()
    }

    /// Compares in constant time.
    pub fn matches(&self, stored: &TokenHash) -> bool {
        self.hash().ct_eq(stored).into()
    }

    /// Returns the secret itself, to be shown only to its owner.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    fn is_in_alphabet(&self) -> bool {
        let bytes = self.text.as_bytes();
        let digits = bytes[PREFIX_LEN..SECRET_AT - 1].iter().chain(&bytes[SECRET_AT..]);
        bytes[SECRET_AT - 1] == b'_' && digits.into_iter().all(|b| ALPHABET.contains(b))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let kind = TokenKind::ALL.into_iter().find(|k| text.starts_with(k.prefix()));
        let kind = kind.ok_or(BadToken::Form)?;
        if !text.is_ascii() {
            return Err(BadToken::Form);
        }
        if text.len() != TOKEN_LEN {
            return Err(BadToken::Checksum);
        }
        let token = Token { kind, text: text.to_owned() };
        let mut expected = Zeroizing::new(text[..CHECK_AT].to_owned());
        push_checksum(&mut expected);
        let whole: bool = expected.as_bytes().ct_eq(text.as_bytes()).into();
        if whole && token.is_in_alphabet() { Ok(token) } else { Err(BadToken::Checksum) }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}{}_..)", self.kind.prefix(), self.id())
    }
}

fn push_checksum(text: &mut String) {
    let digest = Sha256::digest(text.as_bytes());
    let mut check = Zeroizing::new(String::with_capacity(SECRET_LEN));
    push_base32(&mut check, &digest);
    text.push_str(&check[..CHECK_LEN]);
}

/// Encodes five bits a character, the first bits first; zeros fill up the last character.
fn push_base32(out: &mut String, bytes: &[u8]) {
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(digit(held >> bits));
        }
    }
    if bits > 0 {
        out.push(digit(held << (5 - bits)));
    }
}

fn digit(value: u32) -> char {
    char::from(ALPHABET[(value & 31) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abc";

    #[test]
    fn a_token_survives_its_text_and_names_its_kind_and_id() {
        for kind in TokenKind::ALL {
            let token = Token::generate(kind, ID);
            let again: Token = token.reveal().parse().unwrap();
            assert_eq!((again.kind(), again.id()), (kind, ID));
            assert!(again.matches(&token.hash()));
            assert!(token.reveal().starts_with(kind.prefix()));
        }
    }

    #[test]
    fn another_token_of_the_same_id_does_not_match() {
        let [one, two] = [0, 1].map(|_| Token::generate(TokenKind::Api, ID));
        assert!(!one.matches(&two.hash()));
    }

    #[test]
    fn every_single_typo_is_caught_by_the_checksum() {
        let token = Token::generate(TokenKind::Enrolment, ID);
        for at in PREFIX_LEN..TOKEN_LEN {
            let mut text = token.reveal().to_owned().into_bytes();
            text[at] = if text[at] == b'0' { b'1' } else { b'0' };
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.parse::<Token>().unwrap_err(), BadToken::Checksum, "at {at}");
        }
        let cut = &token.reveal()[..TOKEN_LEN - 1];
        assert_eq!(cut.parse::<Token>().unwrap_err(), BadToken::Checksum);
    }

    #[test]
    fn what_is_no_token_is_refused_by_its_form() {
        for bad in ["", "fgx_abc", "Bearer", "fgt-0123", "fgt_\u{e9}"] {
            assert_eq!(bad.parse::<Token>().unwrap_err(), BadToken::Form, "{bad}");
        }
    }

    #[test]
    fn a_token_redacts_its_debug() {
        let token = Token::generate(TokenKind::Session, ID);
        assert_eq!(format!("{token:?}"), "Token(fgs_0123456789abc_..)");
    }
}

//! The gateway's own SSH key (ed25519), and the public keys of others, in OpenSSH's formats.
//!
//! The module reads and writes the unencrypted `openssh-key-v1` text (PROTOCOL.key), public lines
//! and fingerprints. It does not know how a key is used; russh converts from the text.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, STANDARD_NO_PAD};
use ed25519_dalek::{SECRET_KEY_LENGTH, Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::key::PrivateKey;

const ED25519: &str = "ssh-ed25519";
const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Separates derived keys from every other use of the key that they come from.
const DERIVED: &[u8] = b"fleetgate derived SSH key, version 1\0";
/// The block size for padding without a cipher.
const BLOCK: usize = 8;
/// The width at which OpenSSH breaks the lines of a private key.
const PEM_WIDTH: usize = 70;
/// Longest text of a public key. OpenSSH's keys are below 3 kB (RSA of 16,384 bits); a line with
/// options is not much longer.
const MAX_TEXT: usize = 16 * 1024;

/// The key types that a line may contain, to distinguish the key from options and host names.
const ALGORITHMS: [&str; 7] = [
    ED25519,
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadSshKey {
    #[error("not an OpenSSH private key: the text from `{BEGIN}` on is expected")]
    NotPrivate,
    #[error("the private key has a passphrase: remove it with `ssh-keygen -p -f FILE`")]
    Encrypted,
    #[error("not an ed25519 key: make one with `ssh-keygen -t ed25519`")]
    NotEd25519,
    #[error("the private key is damaged: its parts do not fit together")]
    Damaged,
    #[error("not a public key: `ssh-ed25519 AAAA...` is expected, as in a .pub file")]
    NotPublic,
    #[error("this line marks a certificate authority or a revoked key, which cannot be pinned")]
    Marker,
}

/// An ed25519 key pair with its comment.
#[derive(Clone)]
pub struct SshKey {
    key: SigningKey,
    comment: String,
}

impl SshKey {
    /// # Panics
    /// Panics when the operating system cannot provide randomness.
    pub fn generate(comment: &str) -> Self {
        let mut seed = Zeroizing::new([0u8; SECRET_KEY_LENGTH]);
        getrandom::fill(seed.as_mut()).expect("the operating system gives random bytes");
        SshKey::from_seed(&seed, comment)
    }

    /// Makes the key of these secret bytes, always the same.
    pub fn from_seed(seed: &[u8; SECRET_KEY_LENGTH], comment: &str) -> Self {
        SshKey { key: SigningKey::from_bytes(seed), comment: one_line(comment) }
    }

    /// Derives a separate key from the gateway's for each `purpose`, always the same.
    pub fn derive(gateway: &PrivateKey, purpose: &str, comment: &str) -> Self {
        let digest = Sha256::new().chain_update(DERIVED).chain_update(gateway.as_bytes());
        let seed: Zeroizing<[u8; SECRET_KEY_LENGTH]> =
            Zeroizing::new(digest.chain_update(purpose).finalize().into());
        SshKey::from_seed(&seed, comment)
    }

    /// Returns the text of a private key file, without a passphrase.
    ///
    /// # Panics
    /// Panics when the operating system cannot provide randomness.
    pub fn to_openssh(&self) -> Zeroizing<String> {
        let mut check = [0u8; 4];
        getrandom::fill(&mut check).expect("the operating system gives random bytes");
        let mut out = Zeroizing::new(Vec::with_capacity(512));
        out.extend_from_slice(MAGIC);
        for text in ["none", "none", ""] {
            put(&mut out, text.as_bytes());
        }
        out.extend_from_slice(&1u32.to_be_bytes());
        put(&mut out, &self.public().blob);
        put(&mut out, &self.private_section(check));
        armour(&out)
    }

    fn private_section(&self, check: [u8; 4]) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        out.extend_from_slice(&check);
        out.extend_from_slice(&check);
        put(&mut out, ED25519.as_bytes());
        put(&mut out, self.key.verifying_key().as_bytes());
        put(&mut out, Zeroizing::new(self.key.to_keypair_bytes()).as_slice());
        put(&mut out, self.comment.as_bytes());
        let padding = out.len().next_multiple_of(BLOCK) - out.len();
        out.extend((1..=padding).map(|n| n as u8));
        out
    }

    pub fn public(&self) -> SshPublicKey {
        let mut blob = Vec::with_capacity(64);
        put(&mut blob, ED25519.as_bytes());
        put(&mut blob, self.key.verifying_key().as_bytes());
        SshPublicKey { algorithm: ED25519.to_owned(), blob, comment: self.comment.clone() }
    }

    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl FromStr for SshKey {
    type Err = BadSshKey;

    fn from_str(text: &str) -> Result<Self, BadSshKey> {
        let bytes = unarmour(text)?;
        let mut outer = Reader(bytes.strip_prefix(MAGIC).ok_or(BadSshKey::NotPrivate)?);
        if outer.string()? != b"none" || outer.string()? != b"none" {
            return Err(BadSshKey::Encrypted);
        }
        outer.string()?;
        if outer.u32()? != 1 {
            return Err(BadSshKey::Damaged);
        }
        outer.string()?;
        parse_private_section(outer.string()?)
    }
}

fn parse_private_section(section: &[u8]) -> Result<SshKey, BadSshKey> {
    let mut inner = Reader(section);
    if inner.u32()? != inner.u32()? {
        return Err(BadSshKey::Damaged);
    }
    if inner.string()? != ED25519.as_bytes() {
        return Err(BadSshKey::NotEd25519);
    }
    inner.string()?;
    let pair = inner.string()?.try_into().map_err(|_| BadSshKey::Damaged)?;
    let key = SigningKey::from_keypair_bytes(pair).map_err(|_| BadSshKey::Damaged)?;
    let comment = std::str::from_utf8(inner.string()?).map_err(|_| BadSshKey::Damaged)?;
    Ok(SshKey { key, comment: one_line(comment) })
}

impl fmt::Debug for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SshKey({}, ..)", self.public().fingerprint())
    }
}

/// A public key of any type that OpenSSH supports. Its `Display` is the line of a `.pub` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPublicKey {
    algorithm: String,
    blob: Vec<u8>,
    comment: String,
}

impl SshPublicKey {
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// Returns the key in its wire format (RFC 4253, section 6.6).
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    pub fn comment(&self) -> &str {
        &self.comment
    }

    pub fn fingerprint(&self) -> String {
        fingerprint(&self.blob)
    }
}

/// Returns `SHA256:...` of a public key blob, as `ssh-keygen -l` prints it.
pub fn fingerprint(blob: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(blob)))
}

impl FromStr for SshPublicKey {
    type Err = BadSshKey;

    /// Parses a line of a `.pub` file, of `authorized_keys` (options first) or of `known_hosts`
    /// (host names first).
    fn from_str(line: &str) -> Result<Self, BadSshKey> {
        let line = line.trim();
        if line.len() > MAX_TEXT || line.contains(['\n', '\r', '\0']) {
            return Err(BadSshKey::NotPublic);
        }
        if line.starts_with('@') {
            return Err(BadSshKey::Marker);
        }
        let (first, rest) = split_field(line);
        if ALGORITHMS.contains(&first) {
            return parse_public(first, rest);
        }
        let (second, rest) = split_field(rest);
        parse_public(second, rest)
    }
}

fn parse_public(algorithm: &str, rest: &str) -> Result<SshPublicKey, BadSshKey> {
    let (base64, comment) = split_field(rest);
    let blob = BASE64.decode(base64).map_err(|_| BadSshKey::NotPublic)?;
    let named = Reader(&blob).string().map_err(|_| BadSshKey::NotPublic)?;
    if !ALGORITHMS.contains(&algorithm) || named != algorithm.as_bytes() {
        return Err(BadSshKey::NotPublic);
    }
    if algorithm == ED25519 && blob.len() != 4 + ED25519.len() + 4 + 32 {
        return Err(BadSshKey::NotPublic);
    }
    Ok(SshPublicKey { algorithm: algorithm.to_owned(), blob, comment: comment.to_owned() })
}

/// Returns the first field, including blanks inside quotes, and the rest.
fn split_field(line: &str) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    let end = line.find(|c: char| {
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        !quoted && c.is_ascii_whitespace()
    });
    let (field, rest) = line.split_at(end.unwrap_or(line.len()));
    (field, rest.trim_start())
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, BASE64.encode(&self.blob))?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

/// Removes control characters. A comment ends a line of `authorized_keys` and must not begin a
/// second one.
fn one_line(comment: &str) -> String {
    comment.chars().filter(|c| !c.is_control()).collect()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).expect("the parts of a key are short");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn armour(bytes: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(BASE64.encode(bytes));
    let mut out = Zeroizing::new(String::with_capacity(base64.len() + base64.len() / 32 + 128));
    out.push_str(BEGIN);
    for (i, c) in base64.char_indices() {
        if i % PEM_WIDTH == 0 {
            out.push('\n');
        }
        out.push(c);
    }
    out.push('\n');
    out.push_str(END);
    out.push('\n');
    out
}

fn unarmour(text: &str) -> Result<Zeroizing<Vec<u8>>, BadSshKey> {
    let body = text.trim().strip_prefix(BEGIN).and_then(|t| t.strip_suffix(END));
    let body = body.filter(|b| b.len() <= MAX_TEXT).ok_or(BadSshKey::NotPrivate)?;
    let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
    base64.extend(body.chars().filter(|c| !c.is_ascii_whitespace()));
    Ok(Zeroizing::new(BASE64.decode(base64.as_bytes()).map_err(|_| BadSshKey::NotPrivate)?))
}

/// Reads the length-prefixed strings of RFC 4251, section 5.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Result<u32, BadSshKey> {
        let (head, rest) = self.0.split_first_chunk().ok_or(BadSshKey::Damaged)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*head))
    }

    fn string(&mut self) -> Result<&'a [u8], BadSshKey> {
        let len = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(len).ok_or(BadSshKey::Damaged)?;
        self.0 = rest;
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text() {
        let key = SshKey::generate("fleetgate@test");
        let again: SshKey = key.to_openssh().parse().unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(again.key.to_bytes(), key.key.to_bytes());
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
    }

    #[test]
    fn a_derived_key_depends_on_the_gateway_and_the_purpose_alone() {
        let [ours, others] = [[7; 32], [8; 32]].map(PrivateKey::from_bytes);
        let public = |gateway, purpose| SshKey::derive(gateway, purpose, "").public().to_string();
        assert_eq!(public(&ours, "a"), public(&ours, "a"));
        assert_ne!(public(&ours, "a"), public(&ours, "b"));
        assert_ne!(public(&ours, "a"), public(&others, "a"));
        let direct = SshKey::from_seed(ours.as_bytes(), "").public().to_string();
        assert_ne!(public(&ours, ""), direct, "the key of the gateway itself signs nothing");
    }

    #[test]
    fn a_line_of_authorized_keys_or_known_hosts_gives_its_key() {
        let key = SshKey::generate("somebody at home").public();
        let bare = SshKey { comment: String::new(), ..SshKey::generate("") }.public();
        for prefix in ["", "host,10.0.0.1 ", r#"command="echo \"1 2\"",no-pty "#, "|1|abc=|def= "] {
            assert_eq!(format!("{prefix}{key}").parse(), Ok(key.clone()), "{prefix}");
            assert_eq!(format!(" {prefix}{bare}\n").parse(), Ok(bare.clone()), "{prefix}");
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let key = SshKey::generate("x").public().to_string();
        let wrong_name = key.replace(ED25519, "ssh-rsa");
        let cut = key[..key.len() - 10].to_owned();
        for bad in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "a b c d", &wrong_name, &cut] {
            assert_eq!(bad.parse::<SshPublicKey>(), Err(BadSshKey::NotPublic), "{bad}");
        }
        let marked = format!("@revoked * {key}");
        assert_eq!(marked.parse::<SshPublicKey>(), Err(BadSshKey::Marker));
        let two = format!("{key}\n{key}");
        assert_eq!(two.parse::<SshPublicKey>(), Err(BadSshKey::NotPublic));
    }

    #[test]
    fn a_damaged_or_foreign_private_key_is_refused() {
        let text = SshKey::generate("x").to_openssh();
        let bytes = unarmour(&text).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad.truncate(at);
            assert!(armour(&bad).parse::<SshKey>().is_err(), "cut at {at}");
        }
        let mut encrypted = bytes.to_vec();
        encrypted[MAGIC.len() + 4..MAGIC.len() + 8].copy_from_slice(b"aes!");
        assert_eq!(armour(&encrypted).parse::<SshKey>().unwrap_err(), BadSshKey::Encrypted);
        assert_eq!("hello".parse::<SshKey>().unwrap_err(), BadSshKey::NotPrivate);
    }

    #[test]
    fn a_comment_cannot_begin_a_second_line() {
        let key = SshKey::generate("a\nssh-ed25519 AAAA evil");
        assert_eq!(key.public().to_string().lines().count(), 1);
    }

    #[test]
    fn the_private_key_redacts_its_debug() {
        let key = SshKey::generate("x");
        assert_eq!(format!("{key:?}"), format!("SshKey({}, ..)", key.public().fingerprint()));
    }
}

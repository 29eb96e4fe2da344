//! Passwords: hashed with argon2id, compared in constant time. Hashing is slow and takes much memory by
//! design, so callers run it outside the async threads and a few at a time.

use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use std::sync::LazyLock;

/// Above the 8 characters of NIST SP 800-63B, revision 3, and short enough to be typed.
pub const MIN_CHARS: usize = 10;
/// More than any password that a user types. Hashing megabytes would be an attack.
pub const MAX_BYTES: usize = 1_024;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadPassword {
    #[error("too short: at least {MIN_CHARS} characters are expected")]
    Short,
    #[error("too long: at most {MAX_BYTES} bytes are expected")]
    Long,
}

/// # Errors
/// Fails when the length is out of bounds.
pub fn check(password: &str) -> Result<(), BadPassword> {
    if password.len() > MAX_BYTES {
        return Err(BadPassword::Long);
    }
    if password.chars().count() < MIN_CHARS { Err(BadPassword::Short) } else { Ok(()) }
}

/// Returns the hash of a password in PHC format.
///
/// # Panics
/// Panics when the operating system provides no randomness.
pub fn hash(password: &str) -> String {
    hash_at(cost(), password)
}

/// Unit tests make hundreds of users, and guard nothing with their passwords.
fn cost() -> Params {
    let least = Params::new(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST, None);
    if cfg!(test) { least.unwrap_or_default() } else { Params::DEFAULT }
}

fn hash_at(cost: Params, password: &str) -> String {
    let salt = SaltString::generate(&mut OsRng);
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost);
    let hash = hasher.hash_password(password.as_bytes(), &salt);
    hash.expect("these parameters hash any text").to_string()
}

/// `stored` has its own cost. It is `None` for an unknown user, for whom it takes as long as for a known one.
pub fn verify(stored: Option<&str>, password: &str) -> bool {
    static NOBODY: LazyLock<String> = LazyLock::new(|| hash("the password of nobody"));
    let known = stored.is_some();
    let right = PasswordHash::new(stored.unwrap_or(&NOBODY)).is_ok_and(|hash| {
        let bytes = password.as_bytes();
        bytes.len() <= MAX_BYTES && Argon2::default().verify_password(bytes, &hash).is_ok()
    });
    known && right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_is_verified() {
        let stored = hash_at(Params::DEFAULT, "correct horse");
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        for stored in [stored, hash("correct horse")] {
            assert!(verify(Some(&stored), "correct horse"));
            assert!(!verify(Some(&stored), "battery staple"));
        }
        assert!(!verify(None, "the password of nobody"));
        assert!(!verify(Some("not a hash"), "correct horse"));
    }

    #[test]
    fn passwords_have_bounds() {
        assert_eq!(check("ninechars"), Err(BadPassword::Short));
        assert_eq!(check("ten chars!"), Ok(()));
        assert_eq!(check(&"x".repeat(MAX_BYTES + 1)), Err(BadPassword::Long));
    }
}

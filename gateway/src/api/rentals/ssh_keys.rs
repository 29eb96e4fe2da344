//! Reads the SSH public keys of renters.
//!
//! They go into certificates and into files of devices. So nothing of the text is kept but the key itself: options in
//! front would be orders for the device, and a comment often names a person.

use russh::keys::PublicKey;
use russh::keys::ssh_key::public::RsaPublicKey;

use crate::api::request::parse::Fields;

/// A person has a few keys for one laptop.
const MOST: usize = 8;
/// Characters of a line. RSA of 16,384 bits needs less than three quarters of it.
const MAX_LINE: usize = 4_096;
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=16_384;
const KINDS: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

/// Reads a list of keys. Returns each as OpenSSH writes it, without a comment.
pub fn parsed(wrong: &mut Fields, list: Vec<String>) -> Option<Vec<String>> {
    if list.len() > MOST {
        return wrong.take("ssh_keys", Err(format!("at most {MOST} keys are expected")));
    }
    let mut keys: Vec<Option<String>> = Vec::with_capacity(list.len());
    for (n, text) in list.iter().enumerate() {
        let key =
            key(text).and_then(|key| match keys.iter().position(|other| other.as_ref() == Some(&key)) {
                Some(first) => Err(format!("is the same key as ssh_keys[{first}]: give it once")),
                None => Ok(key),
            });
        keys.push(wrong.take(&format!("ssh_keys[{n}]"), key));
    }
    keys.into_iter().collect()
}

fn key(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains("PRIVATE KEY") || text.starts_with("PuTTY-User-Key-File") {
        return Err("is a private key, which its owner keeps: give the line of the .pub file of a new key, because this \
                    one has left its machine"
            .to_owned());
    }
    if text.len() > MAX_LINE || text.contains(char::is_control) {
        return Err(format!("one line of at most {MAX_LINE} characters is expected, as in a .pub file"));
    }
    let mut words = text.split_ascii_whitespace();
    let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if kind.contains("-cert-v0") {
        return Err("is a certificate: give the key that it certifies, as in the .pub file".to_owned());
    }
    if !KINDS.contains(&kind) {
        return Err("`ssh-ed25519 AAAA...` is expected, as in a .pub file: an ed25519, ecdsa or rsa key without options \
                    in front"
            .to_owned());
    }
    let damaged = || format!("is no {kind} key: copy the whole line of the .pub file");
    let key = PublicKey::from_openssh(&format!("{kind} {base64}")).map_err(|_| damaged())?;
    if let Some(bits) = key.key_data().rsa().map(bits).filter(|bits| !RSA_BITS.contains(bits)) {
        let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
        return Err(format!(
            "is an rsa key of {bits} bits: one of {least} to {most} bits, or ed25519, is expected"
        ));
    }
    Ok(key.to_openssh().map_err(|_| damaged())?.trim_end().to_owned())
}

/// Returns the length of the modulus.
fn bits(key: &RsaPublicKey) -> usize {
    let modulus = key.n().as_positive_bytes().unwrap_or_default();
    modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use fleetgate_keys::SshKey;
    use russh::keys::ssh_key::Mpint;
    use russh::keys::ssh_key::public::KeyData;

    use super::*;

    fn ed25519(seed: u8) -> String {
        SshKey::from_seed(&[seed; 32], "ada@laptop").public().to_string()
    }

    /// A key of this many bits, which nobody has.
    fn rsa(bits: usize) -> String {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= (8 - bits % 8) % 8;
        let number = |bytes: &[u8]| Mpint::from_positive_bytes(bytes);
        let key = RsaPublicKey::new(number(&[1, 0, 1]), number(&modulus)).unwrap();
        PublicKey::new(KeyData::Rsa(key), "").to_openssh().unwrap()
    }

    fn refused(list: Vec<String>) -> String {
        let mut wrong = Fields::default();
        assert_eq!(parsed(&mut wrong, list), None);
        wrong.finish().unwrap_err().detail().to_owned()
    }

    #[test]
    fn a_key_is_kept_without_its_comment() {
        let line = ed25519(1);
        let bare = line.strip_suffix(" ada@laptop").unwrap().to_owned();
        let mut wrong = Fields::default();
        let given = vec![format!("  {line}\n"), rsa(2_048), rsa(4_096)];
        let keys = parsed(&mut wrong, given).unwrap();
        assert_eq!((keys.len(), &keys[0]), (3, &bare));
        assert_eq!(key(&keys[1]).as_ref(), Ok(&keys[1]), "what is kept is read again");
        assert_eq!(parsed(&mut wrong, Vec::new()), Some(Vec::new()));
        wrong.finish().unwrap();
    }

    #[test]
    fn what_is_no_key_is_named_and_never_repeated() {
        let good = ed25519(1);
        let cut = good[..good.len() - 20].to_owned();
        let certificate = good.replace("ssh-ed25519 ", "ssh-ed25519-cert-v01@openssh.com ");
        let private = SshKey::from_seed(&[1; 32], "").to_openssh().to_string();
        let table = [
            (String::new(), "is expected, as in a .pub file"),
            ("nonsense".to_owned(), "is expected, as in a .pub file"),
            (format!("command=\"id\" {good}"), "without options"),
            (format!("cert-authority {good}"), "without options"),
            (format!("{good}\n{good}"), "one line"),
            ("ssh-ed25519 AAAA".to_owned(), "is no ssh-ed25519 key"),
            (cut, "is no ssh-ed25519 key"),
            (good.replace("ssh-ed25519 ", "ssh-rsa "), "is no ssh-rsa key"),
            (good.replace("ssh-ed25519 ", "ssh-dss "), "ed25519, ecdsa or rsa"),
            (certificate, "is a certificate"),
            (private.clone(), "is a private key"),
            (rsa(1_024), "is an rsa key of 1024 bits"),
            (rsa(2_047), "is an rsa key of 2047 bits"),
            ("x".repeat(MAX_LINE + 1), "at most 4096"),
        ];
        for (bad, says) in table {
            let detail = refused(vec![ed25519(2), bad.clone()]);
            assert!(detail.starts_with("ssh_keys[1]: ") && detail.contains(says), "{bad:?}: {detail}");
            assert!(private.lines().nth(1).is_some_and(|line| !detail.contains(line)), "{detail}");
        }
    }

    #[test]
    fn a_key_is_given_once_and_eight_are_enough() {
        let twice = refused(vec![ed25519(1), format!("{} other", ed25519(1))]);
        assert!(twice.contains("ssh_keys[1]: is the same key as ssh_keys[0]"), "{twice}");
        let many = refused((0..9).map(ed25519).collect());
        assert!(many.contains("at most 8"), "{many}");
    }
}

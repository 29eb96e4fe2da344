//! SSH public keys from the files of a command line.
//!
//! A private key is recognised here already, so that it stays on the machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::bounded_file;

/// Returns the keys of all files, each in a line; `-` is standard input. `None`: there is no file.
pub(super) fn read(files: &[PathBuf]) -> anyhow::Result<Option<Vec<String>>> {
    let mut keys = Vec::new();
    for file in files {
        keys.extend(lines(file, &text(file)?)?);
    }
    Ok((!files.is_empty()).then_some(keys))
}

fn text(file: &Path) -> anyhow::Result<String> {
    let name = || file.display().to_string();
    let bytes = match file.as_os_str() == "-" {
        true => bounded_file::at_most(std::io::stdin(), bounded_file::MOST).context("stdin")?,
        false => bounded_file::any(file, bounded_file::MOST).with_context(name)?,
    };
    String::from_utf8(bytes).with_context(name)
}

fn lines(file: &Path, text: &str) -> anyhow::Result<Vec<String>> {
    let name = file.display();
    ensure!(
        !text.contains("PRIVATE KEY") && !text.starts_with("PuTTY-User-Key-File"),
        "{name} is a private key, which was not sent: give its public part, such as {name}.pub"
    );
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    ensure!(
        !keys.is_empty(),
        "{name} has no SSH public key: a line such as `ssh-ed25519 AAAA...` is expected"
    );
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_key_and_a_private_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = dir.path().join(name);
            std::fs::write(&file, text).unwrap();
            file
        };
        let (one, two) =
            (file("1.pub", "# mine\nssh-ed25519 A a\n\nssh-rsa B\n"), file("2.pub", "ssh-rsa C"));
        let keys = read(&[one, two]).unwrap().unwrap();
        assert_eq!(keys, ["ssh-ed25519 A a", "ssh-rsa B", "ssh-rsa C"]);
        assert_eq!(read(&[]).unwrap(), None);
        let private =
            file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nxyz\n-----END OPENSSH PRIVATE KEY-----\n");
        for (bad, says) in [
            (private, "id.pub"),
            (file("empty", "\n# none\n"), "has no SSH public key"),
            (dir.path().join("absent"), "absent"),
        ] {
            let refused = format!("{:#}", read(&[bad]).unwrap_err());
            assert!(refused.contains(says) && !refused.contains("xyz"), "{refused}");
        }
    }
}

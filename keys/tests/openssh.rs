//! OpenSSH's own tools read the written keys.

use std::path::Path;
use std::process::Command;

use fleetgate_keys::SshKey;

/// Returns what `ssh-keygen` prints for a key file; `None` without OpenSSH.
fn ssh_keygen(option: &str, file: &Path) -> Option<String> {
    let output = Command::new("ssh-keygen").args([option, "-f"]).arg(file).output().ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn openssh_prints_the_same_public_key_and_fingerprint() {
    let key = SshKey::generate("fleetgate@test");
    let dir = std::env::temp_dir().join(format!("fleetgate-openssh-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("id");
    std::fs::write(&file, key.to_openssh().as_bytes()).unwrap();
    Command::new("chmod").arg("600").arg(&file).status().unwrap();
    let printed = [ssh_keygen("-y", &file), ssh_keygen("-l", &file)];
    std::fs::remove_dir_all(&dir).unwrap();
    if let [Some(public), Some(listed)] = printed {
        assert_eq!(public, key.public().to_string());
        assert!(listed.contains(&key.public().fingerprint()), "{listed}");
    }
}

//! `fleetgate rental ssh`: how renters log in to a rented device, and the files for that.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;

use super::client::{Client, api_path};
use super::device::said;
use super::rental::window;
use super::table;
use crate::api::rentals::{RentalCertificate, RentalSsh};
use crate::cli::out;

#[derive(Args)]
pub(crate) struct RentalSshArgs {
    /// Id of the rental
    rental: String,
    /// Only the keys of this renter (id)
    #[arg(long, value_name = "RENTER")]
    renter: Option<String>,
    /// Directory for certificates and known_hosts, replacing earlier ones
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) async fn run(client: &Client, args: RentalSshArgs) -> anyhow::Result<()> {
    let mut ssh: RentalSsh = client.get(&api_path!("/rentals/{}/ssh", args.rental), &[]).await?;
    ssh.certificates.retain(|of| args.renter.as_ref().is_none_or(|renter| *renter == of.renter));
    let files = match &args.out {
        Some(dir) => written(&ssh, dir)?,
        None => Vec::new(),
    };
    match client.json {
        true => out::line!("{}", serde_json::to_string_pretty(&ssh)?),
        false if args.out.is_none() => show(&ssh),
        false => files.iter().for_each(|file| out::line!("{}", command(&ssh, args.out.as_deref(), file))),
    }
    if ssh.certificates.is_empty() {
        let words = "No renter with an SSH key is admitted: fleetgate renter set RENTER --ssh-key FILE";
        return said(client, words);
    }
    Ok(())
}

fn show(ssh: &RentalSsh) {
    let line = |key: &str, value: &str| out::line!("  {key:<12}{}", table::safe(value));
    out::line!("{}@{}", table::safe(&ssh.account), table::safe(&ssh.name));
    line("address", &ssh.addresses.join(" "));
    line("port", &ssh.port.to_string());
    line("takes", ssh.mode.as_deref().unwrap_or("not known yet"));
    line(
        "known_hosts",
        Some(ssh.known_hosts.trim_end()).filter(|l| !l.is_empty()).unwrap_or("not known yet"),
    );
    if let Some(why) = &ssh.not_granted_reason {
        line("no login", why);
    }
    for of in &ssh.certificates {
        line("renter", &of.renter);
        line("key", &of.key);
        line("valid", &window(&of.valid_from, &of.valid_until, None));
        if let Some(certificate) = &of.certificate {
            line("certificate", certificate);
        }
    }
}

/// Writes the files. Returns the name of that of each certificate; `None`: the device takes the key itself.
fn written(ssh: &RentalSsh, dir: &Path) -> anyhow::Result<Vec<Option<PathBuf>>> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    if !ssh.known_hosts.is_empty() {
        write(&dir.join(KNOWN_HOSTS), &ssh.known_hosts)?;
    }
    ssh.certificates.iter().enumerate().map(|(n, of)| certificate(ssh, (n, of), dir)).collect()
}

const KNOWN_HOSTS: &str = "known_hosts";

fn certificate(
    ssh: &RentalSsh,
    (n, of): (usize, &RentalCertificate),
    dir: &Path,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(text) = &of.certificate else { return Ok(None) };
    let is_plain = of.renter.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    ensure!(is_plain, "the gateway calls a renter {:?}, which is no id", of.renter);
    let number = 1 + ssh.certificates[..n].iter().filter(|before| before.renter == of.renter).count();
    let file = dir.join(format!("{}-{number}-cert.pub", of.renter));
    write(&file, &format!("{text}\n"))?;
    Ok(Some(file))
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Returns the command with which the renter logs in. `KEY` is the file of the private key.
fn command(ssh: &RentalSsh, dir: Option<&Path>, certificate: &Option<PathBuf>) -> String {
    let mut words = vec!["ssh -i KEY -o IdentitiesOnly=yes".to_owned()];
    if let Some(file) = certificate {
        words.push(format!("-o CertificateFile={}", quoted(&file.display().to_string())));
    }
    if let Some(dir) = dir.filter(|_| !ssh.known_hosts.is_empty()) {
        words.push(format!("-o UserKnownHostsFile={}", quoted(&dir.join(KNOWN_HOSTS).display().to_string())));
    }
    let address = ssh.addresses.first().unwrap_or(&ssh.name);
    words.push(format!("-p {}", ssh.port));
    words.push(quoted(&format!("{}@{address}", ssh.account)));
    words.join(" ")
}

/// Quotes a word for a shell where it needs that.
fn quoted(word: &str) -> String {
    let word = table::safe(word);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if word.chars().all(is_plain) { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ssh(certificate: Option<&str>) -> RentalSsh {
        let of = |renter: &str| RentalCertificate {
            renter: renter.to_owned(),
            key: "ssh-ed25519 AAAA".to_owned(),
            certificate: certificate.map(str::to_owned),
            valid_from: "2026-12-10T13:00:00Z".to_owned(),
            valid_until: "2026-12-12T09:00:00Z".to_owned(),
        };
        RentalSsh {
            account: "guest".to_owned(),
            port: 22,
            name: "entrance".to_owned(),
            addresses: vec!["10.115.255.128".to_owned()],
            known_hosts: "entrance ssh-ed25519 BBBB\n".to_owned(),
            mode: None,
            not_granted_reason: None,
            certificates: vec![of("w_1"), of("w_1"), of("w_2")],
        }
    }

    #[test]
    fn each_certificate_has_a_file_and_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("new");
        for text in ["earlier", "later"] {
            let ssh = ssh(Some(text));
            let files = written(&ssh, &place).unwrap();
            for (file, name) in files.iter().zip(["w_1-1-cert.pub", "w_1-2-cert.pub", "w_2-1-cert.pub"]) {
                assert_eq!(file.as_deref(), Some(place.join(name).as_path()));
                assert_eq!(fs::read_to_string(place.join(name)).unwrap(), format!("{text}\n"));
            }
        }
        let known = fs::read_to_string(place.join("known_hosts")).unwrap();
        assert_eq!(known, "entrance ssh-ed25519 BBBB\n");
        let file = Some(PathBuf::from("/a b/w_1-1-cert.pub"));
        assert_eq!(
            command(&ssh(Some("x")), Some(Path::new("/a b")), &file),
            "ssh -i KEY -o IdentitiesOnly=yes -o CertificateFile='/a b/w_1-1-cert.pub' \
             -o UserKnownHostsFile='/a b/known_hosts' -p 22 guest@10.115.255.128"
        );
    }

    #[test]
    fn a_device_that_takes_keys_needs_no_file_and_a_strange_renter_writes_none() {
        let dir = tempfile::tempdir().unwrap();
        let files = written(&ssh(None), dir.path()).unwrap();
        assert!(files.len() == 3 && files.iter().all(Option::is_none), "{files:?}");
        let mut strange = ssh(Some("x"));
        strange.certificates[0].renter = "../w_1".to_owned();
        assert!(written(&strange, dir.path()).unwrap_err().to_string().contains("../w_1"));
    }

    #[tokio::test]
    async fn the_files_of_a_rental_are_written_and_a_rental_without_ssh_is_refused() {
        let (client, api) = crate::cli::tests::connected().await;
        let post = async |path: &str, body: Value| -> Value { client.post(path, &body).await.unwrap() };
        post("/devices", json!({ "name": "cam" })).await;
        let settings = json!({ "rentable": true, "without": ["gate"] });
        client.put("/devices/cam/rental-settings", &settings, None).await.unwrap();
        let account = "update device_rental_settings set ssh_account = 'guest', ssh_mode = 'certificates'";
        crate::store::fixture::run(&api.state.store, account, &[]).await;
        post("/customers", json!({ "external_ref": "crm-17" })).await;
        let person = post("/people", json!({ "customer": "crm-17" })).await;
        let key = fleetgate_keys::SshKey::generate("").public().to_string();
        let renter = json!({ "person": person["id"], "name": "laptop", "ssh_keys": [key] });
        let renter = post("/renters", renter).await["renter"]["id"].as_str().unwrap().to_owned();
        let item = json!({ "device": "cam", "until": "2034-12-12T09:00:00Z", "ssh": true });
        let made = post("/bookings", json!({ "customer": "crm-17", "items": [item] })).await;
        let rental = made["rentals"][0]["id"].as_str().unwrap().to_owned();
        let dir = tempfile::tempdir().unwrap();
        let args = |renter: Option<&str>, out: Option<&Path>| RentalSshArgs {
            rental: rental.clone(),
            renter: renter.map(str::to_owned),
            out: out.map(Path::to_owned),
        };
        run(&client, args(None, None)).await.unwrap();
        run(&client, args(Some("w_other"), Some(dir.path()))).await.unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        run(&client, args(Some(&renter), Some(dir.path()))).await.unwrap();
        let file = dir.path().join(format!("{renter}-1-cert.pub"));
        assert!(fs::read_to_string(file).unwrap().starts_with("ssh-ed25519-cert-v01@openssh.com "));
        client.patch(&format!("/rentals/{rental}"), &json!({ "ssh": false })).await.unwrap();
        let refused = run(&client, args(None, None)).await.unwrap_err();
        assert!(format!("{refused:#}").contains("gives no SSH"), "{refused:#}");
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_split_it() {
        assert_eq!(["a/b", "it's", "$(id)"].map(quoted), ["a/b", "'it'\\''s'", "'$(id)'"]);
    }
}

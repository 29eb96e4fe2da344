//! `fleetgate ssh`: the SSH client of the system, through `fleetgate connect`, with the host key that
//! the gateway has pinned.
//!
//! The keys and the settings are those of the user. The gateway has pinned a fingerprint, and OpenSSH
//! wants the key itself: it asks `fleetgate known-host` about the key that the server has shown.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use clap::Args;

use super::super::Connection;
use super::super::client::{Client, api_path};
use crate::api::host_settings::HostSettings;
use crate::cli::out;
use crate::names::Name;

#[derive(Args)]
pub(crate) struct SshArgs {
    /// Name or id of the host
    host: String,
    /// User on the host [default: that of ~/.ssh/config, or your own name]
    #[arg(short = 'l', long = "login", value_name = "USER")]
    login: Option<String>,
    /// Command to run on the host instead of a shell
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct KnownHostArgs {
    /// Host as OpenSSH writes it: %H
    host: String,
    /// Type of the key that the server has: %t
    key_type: String,
    /// Fingerprint of this key: %f
    fingerprint: String,
    /// The key itself: %K
    key: String,
}

/// The key of a server that OpenSSH has not seen yet. It asks for the types to prefer.
const NO_KEY: &str = "NONE";

/// Replaces this program with the SSH client of the system.
pub(in super::super) async fn ssh(to: &Connection, args: SshArgs) -> anyhow::Result<()> {
    let settings = settings(&Client::new(to)?, &args.host).await?;
    let own = std::env::current_exe().context("cannot find this program, which ssh has to run")?;
    let own = own.to_str().context("the path of this program is not UTF-8, so that ssh cannot run it")?;
    let options = options(own, &settings)?;
    let mut command = Command::new("ssh");
    for option in &options {
        command.args(["-o", option]);
    }
    if let Some(login) = &args.login {
        command.args(["-l", login]);
    }
    // Without `--`, OpenSSH looks for options in the command too.
    command.args(["--", &settings.name]).args(&args.command).envs(environment(to));
    Err(command.exec()).context("cannot run ssh: is OpenSSH installed?")
}

async fn settings(client: &Client, host: &str) -> anyhow::Result<HostSettings> {
    client.get(&api_path!("/hosts/{}/settings", host), &[]).await
}

/// The programs that ssh starts find the gateway as this one does. A token on their command lines
/// would be readable for other users.
fn environment(to: &Connection) -> Vec<(&'static str, String)> {
    let data = to.data.as_ref().map(|path| path.display().to_string());
    let given =
        [("FLEETGATE_URL", to.url.clone()), ("FLEETGATE_TOKEN", to.token.clone()), ("FLEETGATE_DATA", data)];
    given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// # Errors
/// Fails for a host whose key is not known, and for a name that is none: a shell reads it.
fn options(own: &str, settings: &HostSettings) -> anyhow::Result<Vec<String>> {
    let own = quoted(own);
    let name =
        Name::parse(&settings.name).with_context(|| format!("the host is called {:?}", settings.name))?;
    pin(settings)?;
    let mut options = vec![
        format!("ProxyCommand={own} connect {name}:{}", settings.ssh.port),
        format!("KnownHostsCommand={own} known-host %H %t %f %K"),
        format!("HostKeyAlias={name}"),
        "StrictHostKeyChecking=yes".to_owned(),
        // A connection that is open already may lead elsewhere, and its key was not compared.
        "ControlPath=none".to_owned(),
        "UserKnownHostsFile=/dev/null".to_owned(),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "FingerprintHash=sha256".to_owned(),
        "CheckHostIP=no".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "VerifyHostKeyDNS=no".to_owned(),
    ];
    // A server has a key of each type, and one of them is pinned.
    options
        .extend(settings.ssh.pin_type.as_deref().map(|of| format!("HostKeyAlgorithms={}", algorithms(of))));
    Ok(options)
}

/// Signatures of RSA keys have names of their own (RFC 8332).
fn algorithms(key_type: &str) -> &str {
    if key_type == "ssh-rsa" { "rsa-sha2-512,rsa-sha2-256" } else { key_type }
}

/// Returns the word for a shell and for the parser of OpenSSH, which replaces `%`.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''").replace('%', "%%"))
}

fn pin(settings: &HostSettings) -> anyhow::Result<&str> {
    let name = &settings.name;
    settings.ssh.pin.as_deref().with_context(|| {
        format!(
            "the gateway has no SSH host key of {name}: its first check over SSH pins one, or pin it with {}",
            pinning(settings, "HOST-KEY")
        )
    })
}

/// Returns the command that pins a key.
fn pinning(settings: &HostSettings, key: &str) -> String {
    let of = if settings.via.is_some() { "host" } else { "device" };
    format!("`fleetgate {of} trust {} {key}`", settings.name)
}

/// Prints the key that a server has shown, if it is the pinned one, as a line of `known_hosts`.
pub(in super::super) async fn known_host(to: &Connection, args: KnownHostArgs) -> anyhow::Result<()> {
    if args.key == NO_KEY {
        return Ok(());
    }
    let settings = settings(&Client::new(to)?, without_port(&args.host)).await?;
    let pinned = pin(&settings)?;
    anyhow::ensure!(
        pinned == args.fingerprint,
        "the SSH host key of {name} is {} {}, and the gateway has pinned {pinned}: if the key was changed on \
         purpose, run {}",
        args.key_type,
        args.fingerprint,
        pinning(&settings, &args.fingerprint),
        name = settings.name
    );
    out::line!("{} {} {}", args.host, args.key_type, args.key);
    Ok(())
}

/// OpenSSH writes a port other than 22 as `[cam-07]:2222`.
fn without_port(host: &str) -> &str {
    host.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or(host, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::tests::connected;

    #[test]
    fn a_word_survives_the_shell_and_the_settings_of_ssh() {
        assert_eq!(quoted("/usr/bin/fleetgate"), "'/usr/bin/fleetgate'");
        assert_eq!(quoted("/it's 100%"), r"'/it'\''s 100%%'");
        assert_eq!((without_port("cam-07"), without_port("[cam-07]:2222")), ("cam-07", "cam-07"));
    }

    #[tokio::test]
    async fn ssh_asks_for_the_pinned_key_and_no_other() {
        let (client, api) = connected().await;
        let fingerprint = format!("SHA256:{}", "a".repeat(43));
        for (name, ssh) in [("cam", json!({ "port": 2222, "host_key": fingerprint })), ("new", json!({}))] {
            let made = api.operator().post("/api/v1/devices", json!({ "name": name, "ssh": ssh })).await;
            assert_eq!(made.status, 201, "{}", made.text);
        }
        let cam = settings(&client, "cam").await.unwrap();
        let options = options("/bin/fleetgate", &cam).unwrap();
        assert_eq!(options[0], "ProxyCommand='/bin/fleetgate' connect cam:2222");
        assert!(options.iter().any(|o| o == "StrictHostKeyChecking=yes"), "{options:?}");
        assert!(options.iter().any(|o| o == "ControlPath=none"), "{options:?}");
        for name in ["cam;id", "$(id)", "-oProxyCommand=id", "cam%h", "a b", ""] {
            let hostile = HostSettings { name: name.to_owned(), ..cam.clone() };
            assert!(super::options("x", &hostile).is_err(), "{name}");
        }
        let new = settings(&client, "new").await.unwrap();
        let unknown = super::options("x", &new).unwrap_err().to_string();
        assert!(unknown.contains("`fleetgate device trust new HOST-KEY`"), "{unknown}");
        let behind = HostSettings { via: Some("cam".to_owned()), ..new };
        let unknown = super::options("x", &behind).unwrap_err().to_string();
        assert!(unknown.contains("`fleetgate host trust new HOST-KEY`"), "{unknown}");
        assert_eq!(algorithms("ssh-rsa"), "rsa-sha2-512,rsa-sha2-256");
    }
}

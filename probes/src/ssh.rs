//! The result of an SSH server's reply, for the built-in `ssh` check.
//!
//! The check reads the identification and the host key, and logs in if a login is configured. A
//! transport failure is CRITICAL for this check, and never for the checks that run over the
//! connection. The module knows no SSH library and no credentials.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::cause::Cause;
use crate::plugin::PluginResult;
use crate::sample::Status;
use crate::tcp::{self, ConnectEnd};
use crate::words;

/// RFC 4253, section 4.2: the identification line with its line end.
pub const MAX_IDENTIFICATION: usize = 255;

/// Characters of foreign text that a result quotes.
const QUOTED_CHARS: usize = 100;

/// Longest list of a server's offers, in characters. OpenSSH's longest, of key exchanges, has 300.
const LISTED_CHARS: usize = 400;

/// `SSH-protoversion-softwareversion [comments]` of RFC 4253, section 4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identification {
    /// `2.0`, or `1.99` for a server that speaks both.
    pub protocol: String,
    pub software: String,
    pub comments: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentification {
    #[error("not SSH: it says {0:?}")]
    NotSsh(String),
    #[error("speaks SSH {0} only: version 2.0 is needed")]
    OldProtocol(String),
}

impl FromStr for Identification {
    type Err = BadIdentification;

    /// Parses one line, with or without its end.
    fn from_str(line: &str) -> Result<Self, BadIdentification> {
        let not_ssh = || BadIdentification::NotSsh(words::line(line, QUOTED_CHARS));
        let bare = line.trim_end_matches(['\r', '\n']);
        let printable = bare.chars().all(|c| !c.is_control());
        let rest = bare.strip_prefix("SSH-").filter(|_| printable && line.len() <= MAX_IDENTIFICATION);
        let (protocol, rest) = rest.and_then(|r| r.split_once('-')).ok_or_else(not_ssh)?;
        let (software, comments) = match rest.split_once(' ') {
            Some((software, comments)) => (software, Some(comments.to_owned())),
            None => (rest, None),
        };
        if software.is_empty() {
            return Err(not_ssh());
        }
        if !matches!(protocol, "2.0" | "1.99") {
            return Err(BadIdentification::OldProtocol(words::line(protocol, 20)));
        }
        Ok(Identification { protocol: protocol.to_owned(), software: software.to_owned(), comments })
    }
}

/// Prints the software with its comments, the part that interests a person.
impl fmt::Display for Identification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.software)?;
        self.comments.iter().try_for_each(|comments| write!(f, " {comments}"))
    }
}

/// The host key types that a server may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyType {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    EcdsaP521,
    Rsa,
}

impl KeyType {
    /// The order in which an unknown server is asked for them.
    pub const ALL: [KeyType; 5] =
        [KeyType::Ed25519, KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::EcdsaP521, KeyType::Rsa];

    /// Returns the name as in a line of `known_hosts`.
    pub const fn name(self) -> &'static str {
        match self {
            KeyType::Ed25519 => "ssh-ed25519",
            KeyType::EcdsaP256 => "ecdsa-sha2-nistp256",
            KeyType::EcdsaP384 => "ecdsa-sha2-nistp384",
            KeyType::EcdsaP521 => "ecdsa-sha2-nistp521",
            KeyType::Rsa => "ssh-rsa",
        }
    }

    pub fn from_name(name: &str) -> Option<KeyType> {
        KeyType::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// The algorithms that both sides of a connection must agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Negotiated {
    KeyExchange,
    HostKey,
    Cipher,
    Mac,
    Compression,
}

impl Negotiated {
    const fn name(self) -> &'static str {
        match self {
            Negotiated::KeyExchange => "key exchange",
            Negotiated::HostKey => "type of host key",
            Negotiated::Cipher => "cipher",
            Negotiated::Mac => "message authentication code",
            Negotiated::Compression => "compression",
        }
    }
}

/// The reason why a server refused the gateway, whose one credential is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    Key,
    /// The key was accepted, and one of these methods is required in addition.
    SecondFactor(Vec<String>),
    /// Keys are not accepted, or not as the first factor; these methods are.
    NoKeys(Vec<String>),
}

/// The progress of one SSH connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshSeen {
    /// The server's line as received.
    pub identification: Option<String>,
    /// The user name, if a login was configured and accepted.
    pub logged_in_as: Option<String>,
    /// Time to the end of the key exchange; `None` for a kept session.
    pub connect: Option<Duration>,
    pub failure: Option<SshFailure>,
}

/// The failure of a connection. The first failure ends a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshFailure {
    Connect(ConnectEnd),
    /// The peer does not speak SSH; its first bytes.
    NotSsh(String),
    /// The key exchange or the connection failed, in the library's words.
    Protocol(String),
    HostKeyChanged {
        pinned: String,
        seen: String,
    },
    /// No key is pinned and none may be learnt on this route, so no login was attempted.
    HostKeyUnknown {
        seen: String,
    },
    /// The two sides have no algorithm in common; the server's offer.
    NothingInCommon {
        what: Negotiated,
        offered: Vec<String>,
    },
    LoginRefused {
        user: String,
        why: LoginRefusal,
    },
    /// The server accepted the connection and then fell silent.
    Timeout,
}

/// Returns the result of the `ssh` check, with the metric `time` in s if a connection was made.
///
/// An unconfirmed host key is OK with a note. The server gave its identification, the operator has
/// to confirm the key, and nothing is broken. The checks that need the login report its absence
/// themselves.
pub fn judge(seen: &SshSeen) -> PluginResult {
    let (status, text) = match &seen.failure {
        None => success(seen),
        Some(failure) => failed(failure, seen),
    };
    let metrics = seen.connect.map(tcp::time).into_iter().collect();
    let cause = seen.failure.as_ref().map_or(Cause::Answered, Cause::from);
    PluginResult::new(status, text, metrics).because(cause)
}

impl From<&SshFailure> for Cause {
    fn from(failure: &SshFailure) -> Self {
        match failure {
            SshFailure::Connect(end) => end.into(),
            SshFailure::NotSsh(_) => Cause::NotSsh,
            SshFailure::Protocol(_) | SshFailure::NothingInCommon { .. } => Cause::Protocol,
            SshFailure::HostKeyChanged { .. } => Cause::HostKeyChanged,
            SshFailure::HostKeyUnknown { .. } => Cause::Answered,
            SshFailure::LoginRefused { .. } => Cause::LoginRefused,
            SshFailure::Timeout => Cause::Stalled,
        }
    }
}

fn success(seen: &SshSeen) -> (Status, String) {
    let server = match identified(seen) {
        Ok(server) => server,
        Err(why) => return (Status::Critical, why),
    };
    let login = match &seen.logged_in_as {
        Some(user) => format!(", logged in as {}", words::line(user, QUOTED_CHARS)),
        None => String::new(),
    };
    let time = match seen.connect {
        Some(took) => format!(" in {}", words::latency(took)),
        None => String::new(),
    };
    (Status::Ok, format!("{server} answers{time}{login}"))
}

/// Returns the server's name for a sentence, or the reason why it has none.
fn identified(seen: &SshSeen) -> Result<String, String> {
    match seen.identification.as_deref().map(Identification::from_str) {
        None => Ok("SSH".to_owned()),
        Some(Ok(id)) => Ok(words::line(&id.to_string(), QUOTED_CHARS)),
        Some(Err(why)) => Err(why.to_string()),
    }
}

fn failed(failure: &SshFailure, seen: &SshSeen) -> (Status, String) {
    let short = |text: &str| words::line(text, QUOTED_CHARS);
    let text = match failure {
        SshFailure::Connect(end) => return (end.status(), end.failure().unwrap_or_default()),
        SshFailure::HostKeyUnknown { seen: key } => return unknown_key(seen, &short(key)),
        SshFailure::NotSsh(said) if said.trim().is_empty() => "not SSH: nothing was said".to_owned(),
        SshFailure::NotSsh(said) => format!("not SSH: it says {:?}", short(said)),
        SshFailure::Protocol(why) => format!("the SSH connection failed: {}", short(why)),
        SshFailure::HostKeyChanged { pinned, seen } => format!(
            "host key changed: pinned {}, seen {}; nothing was authenticated",
            short(pinned),
            short(seen)
        ),
        SshFailure::NothingInCommon { what, offered } => format!(
            "the SSH connection failed: no common {}; the server offers {}: enable a current one in its configuration",
            what.name(),
            listed(offered)
        ),
        SshFailure::LoginRefused { user, why } => {
            let server = identified(seen).unwrap_or_else(|_| "the server".to_owned());
            format!("login refused: {}", refusal(&server, &short(user), why))
        }
        SshFailure::Timeout => "connected, then no SSH answer in time".to_owned(),
    };
    (Status::Critical, text)
}

fn refusal(server: &str, user: &str, why: &LoginRefusal) -> String {
    match why {
        LoginRefusal::Key => format!("{server} does not accept the gateway's key for {user}"),
        LoginRefusal::SecondFactor(methods) => format!(
            "{server} accepts the gateway's key for {user} and wants a second factor ({}), which the gateway does \
             not have; exempt this user (sshd_config: Match User, AuthenticationMethods publickey)",
            listed(methods)
        ),
        LoginRefusal::NoKeys(methods) => format!(
            "{server} wants {} for {user}; the gateway has a key only, which this server must accept first and alone",
            listed(methods)
        ),
    }
}

/// Joins names that a server sent, up to a readable length.
fn listed(names: &[String]) -> String {
    match names.iter().map(|name| words::line(name, QUOTED_CHARS)).collect::<Vec<_>>().join(", ") {
        list if list.is_empty() => "nothing".to_owned(),
        list => words::line(&list, LISTED_CHARS),
    }
}

fn unknown_key(seen: &SshSeen, key: &str) -> (Status, String) {
    match identified(seen) {
        Err(why) => (Status::Critical, why),
        Ok(server) => (
            Status::Ok,
            format!(
                "{server} answers; no login: host key {key} is not confirmed (compare it, then: fleetgate device trust)"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DEBIAN: &str = "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3";

    fn seen(failure: Option<SshFailure>) -> SshSeen {
        SshSeen { identification: Some(DEBIAN.into()), failure, ..SshSeen::default() }
    }

    fn verdict(failure: SshFailure) -> (Status, String) {
        let r = judge(&seen(Some(failure)));
        (r.status, r.text)
    }

    fn refused(why: LoginRefusal) -> SshFailure {
        SshFailure::LoginRefused { user: "root".into(), why }
    }

    #[test]
    fn a_long_list_is_cut() {
        let offered = vec!["diffie-hellman-group1-sha1".to_owned(); 10_000];
        let text = verdict(SshFailure::NothingInCommon { what: Negotiated::KeyExchange, offered }).1;
        assert!(text.contains("no common key exchange") && text.chars().count() < 600, "{text}");
    }

    #[test]
    fn types_of_key_survive_their_names() {
        for key_type in KeyType::ALL {
            assert_eq!(KeyType::from_name(key_type.name()), Some(key_type));
        }
        assert_eq!(KeyType::from_name("ssh-dss"), None);
    }

    #[test]
    fn identification_lines_are_read_by_the_rfc() {
        let id: Identification = format!("{DEBIAN}\r\n").parse().expect("an identification");
        assert_eq!((id.protocol.as_str(), id.software.as_str()), ("2.0", "OpenSSH_9.2p1"));
        assert_eq!(id.comments.as_deref(), Some("Debian-2+deb12u3"));
        let id: Identification = "SSH-1.99-dropbear_2022.83".parse().expect("an identification");
        assert_eq!((id.to_string().as_str(), id.comments), ("dropbear_2022.83", None));
    }

    #[test]
    fn what_is_not_ssh_is_said_so() {
        let long = format!("SSH-2.0-{}", "x".repeat(MAX_IDENTIFICATION));
        for bad in ["", "HTTP/1.1 400", "SSH-2.0", "SSH-2.0-", "SSH-2.0- x", "SSH-2.0-a\x07", &long] {
            let refused = Identification::from_str(bad);
            assert!(matches!(refused, Err(BadIdentification::NotSsh(_))), "{bad:?}");
        }
        let old = Identification::from_str("SSH-1.5-old").expect_err("old");
        assert_eq!(old.to_string(), "speaks SSH 1.5 only: version 2.0 is needed");
    }

    #[test]
    fn an_answer_with_login_is_ok_and_names_both() {
        let mut seen = seen(None);
        seen.logged_in_as = Some("monitor".into());
        seen.connect = Some(Duration::from_millis(120));
        let r = judge(&seen);
        assert_eq!(r.status, Status::Ok);
        assert_eq!(r.text, "OpenSSH_9.2p1 Debian-2+deb12u3 answers in 120.0 ms, logged in as monitor");
        assert_eq!(r.metrics[0].value, Some(0.12));
    }

    #[test]
    fn a_kept_session_has_no_time() {
        let r = judge(&seen(None));
        assert_eq!((r.status, r.metrics.len()), (Status::Ok, 0));
        assert_eq!(r.text, "OpenSSH_9.2p1 Debian-2+deb12u3 answers");
    }

    #[test]
    fn a_changed_host_key_is_critical_and_nothing_was_authenticated() {
        let changed = SshFailure::HostKeyChanged { pinned: "SHA256:a".into(), seen: "SHA256:b".into() };
        let text = "host key changed: pinned SHA256:a, seen SHA256:b; nothing was authenticated";
        assert_eq!(verdict(changed), (Status::Critical, text.to_owned()));
    }

    #[test]
    fn an_unconfirmed_host_key_is_ok_but_says_what_to_do() {
        let (status, text) = verdict(SshFailure::HostKeyUnknown { seen: "SHA256:b".into() });
        assert_eq!(status, Status::Ok);
        assert!(text.contains("no login") && text.contains("SHA256:b") && text.contains("device trust"));
    }

    #[test]
    fn every_other_failure_is_critical_with_its_reason() {
        let table = [
            (SshFailure::Connect(ConnectEnd::Refused), "connection refused"),
            (SshFailure::Connect(ConnectEnd::Timeout(Duration::from_secs(5))), "no answer within 5 s"),
            (SshFailure::NotSsh("220 ftp ready\r\n".into()), "not SSH: it says \"220 ftp ready\""),
            (SshFailure::NotSsh(String::new()), "nothing was said"),
            (SshFailure::Protocol("no common cipher".into()), "no common cipher"),
            (refused(LoginRefusal::Key), "does not accept the gateway's key for root"),
            (
                refused(LoginRefusal::SecondFactor(vec!["keyboard-interactive".into()])),
                "accepts the gateway's key for root and wants a second factor (keyboard-interactive)",
            ),
            (refused(LoginRefusal::NoKeys(vec!["password".into()])), "wants password for root"),
            (
                SshFailure::NothingInCommon {
                    what: Negotiated::HostKey,
                    offered: vec!["ssh-dss".into(), "ssh-rsa\x1b[2J".into()],
                },
                "no common type of host key; the server offers ssh-dss, ssh-rsa",
            ),
            (
                SshFailure::NothingInCommon { what: Negotiated::Cipher, offered: vec![] },
                "no common cipher; the server offers nothing",
            ),
            (SshFailure::Timeout, "no SSH answer in time"),
        ];
        for (failure, reason) in table {
            let (status, text) = verdict(failure);
            assert_eq!(status, Status::Critical);
            assert!(text.contains(reason), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_server_makes_one_short_harmless_line(said in any::<String>(), other in any::<String>()) {
            for failure in [None, Some(SshFailure::NotSsh(other.clone())), Some(SshFailure::Protocol(other))] {
                let seen = SshSeen { identification: Some(said.clone()), failure, ..SshSeen::default() };
                let text = judge(&seen).text;
                prop_assert!(!text.is_empty() && text.chars().count() < 1_500);
                prop_assert!(!text.chars().any(char::is_control));
            }
        }
    }
}

//! Mail with a real server.
//!
//! Over TLS and with a login, the gateway names any obstacle, keeps the message, and sends it as
//! soon as the obstacle is gone. The server may refuse, hang, or drop the connection after DATA,
//! and the gateway may be killed. No message is lost, and no recipient waits for another.

use std::time::Duration;

use fleetgate_tests::lab::{Gateway, Lab, MailDoor, MailSink, Make, SshServer, eventually};

const PATIENCE: Duration = Duration::from_secs(90);
const CLEAR: &str = "security = \"none\"\n";
const LOGIN: Option<&str> = Some("gate:open sesame");

/// Returns the settings of a gateway with this mail configuration.
fn settings(mail: &str) -> String {
    with_wait(0, mail)
}

/// Does the same; `wait`: how long a first message waits for others.
fn with_wait(wait: u32, mail: &str) -> String {
    format!(
        r#"
endpoint = "10.77.0.2:51820"
api_listen = "10.77.0.2:8080"
api_cleartext = true

[checks]
interval = 2
retry = 1
attempts = 2
timeout = 1

[notifications]
group_wait = {wait}

[mail]
host = "{}"
port = {}
from = "fleetgate <gate@fleet.test>"
to = ["ops@fleet.test"]
{mail}"#,
        MailSink::ADDRESS,
        MailSink::PORT
    )
}

fn login(password: &str) -> String {
    format!("user = \"gate\"\npassword = \"{password}\"\n")
}

/// Restarts the gateway with other settings; the waiting message is tried at once.
fn with(gateway: &mut Gateway<'_>, mail: &str) {
    gateway.stop();
    gateway.set(&settings(mail));
    gateway.again();
}

#[test]
fn a_message_waits_until_tls_and_login_are_right_and_leaves_once() {
    let lab = Lab::new();
    let mut mail = MailSink::start_with(&lab, MailDoor::Starttls, LOGIN);
    let ca = format!("ca = \"{}\"\n", mail.ca().display());
    let right = login("open sesame");
    let says = |words: &str| {
        eventually(words, PATIENCE, || lab.log("gateway.log").contains(words));
        assert!(mail_is_empty(&lab), "nothing leaves");
    };

    let mut gateway = Gateway::start(&lab, &settings(&format!("{ca}{}", login("guessed"))));
    gateway.cli(&["device", "add", "nas-1", "--no-tunnel", "--direct", "10.77.1.2"]);
    gateway.becomes("nas-1", None, "down");
    says("check mail.user and mail.password");

    with(&mut gateway, &right);
    says("name that certificate in mail.ca");

    mail.moves_to(MailDoor::Clear, None);
    with(&mut gateway, &format!("{ca}{right}"));
    says("if it speaks TLS from the start, set mail.security to tls");

    mail.moves_to(MailDoor::Starttls, LOGIN);
    eventually("the message leaves", PATIENCE, || mail.subjects() == ["DOWN nas-1"]);

    mail.moves_to(MailDoor::Tls, LOGIN);
    with(&mut gateway, &format!("{ca}{right}security = \"tls\"\n"));
    let _sshd = SshServer::start(&lab, "d1", Make::OpenSsh, "");
    gateway.becomes("nas-1", None, "up");
    let both = ["DOWN nas-1", "RECOVERED nas-1"];
    eventually("the next one leaves through the other door", PATIENCE, || mail.subjects() == both);
    let log = lab.log("gateway.log") + &gateway.cli(&["events", "-n", "40"]);
    assert!(!log.contains("sesame"), "the password stays out of the logs");
    gateway.stop();
}

fn mail_is_empty(lab: &Lab) -> bool {
    std::fs::read_dir(lab.path("mail")).is_ok_and(|mut entries| entries.next().is_none())
}

/// Returns the messages to one address.
fn letters_to(mail: &MailSink<'_>, address: &str) -> Vec<String> {
    let to = format!("To: {address}");
    mail.messages().into_iter().filter(|m| m.lines().any(|line| line.trim_end() == to)).collect()
}

#[test]
fn a_server_that_refuses_hangs_or_drops_one_receiver_keeps_no_message_from_the_others() {
    let lab = Lab::new();
    let mail = MailSink::start(&lab);
    let mut gateway = Gateway::start(&lab, &settings(CLEAR));
    for name in ["refused", "hangs", "drops", "ops"] {
        gateway.cli(&["contact", "add", name, "--email", &format!("{name}@fleet.test")]);
        gateway.cli(&["rule", "add", &format!("all-to-{name}"), "--contact", name]);
    }
    gateway.cli(&["device", "add", "nas-1", "--no-tunnel", "--direct", "10.77.1.2"]);
    gateway.becomes("nas-1", None, "down");
    eventually("who is well is told", PATIENCE, || letters_to(&mail, "ops@fleet.test").len() == 1);
    eventually("the lost answer repeats it", PATIENCE, || letters_to(&mail, "drops@fleet.test").len() == 2);
    let ids: Vec<String> = letters_to(&mail, "drops@fleet.test").iter().map(|m| message_id(m)).collect();
    assert_eq!(ids[0], ids[1], "under the same id");
    let waits = |gateway: &Gateway<'_>, address: &str, words: &str| {
        let log = gateway.cli(&["events", "-n", "60"]);
        log.contains(&format!("mail to {address} failed")) && lab.log("gateway.log").contains(words)
    };
    eventually("the refusal is told", PATIENCE, || waits(&gateway, "refused@fleet.test", "no such user"));
    eventually("the silence is told", PATIENCE, || waits(&gateway, "hangs@fleet.test", "in time"));

    // Later recipients do not wait for those that fail.
    let _sshd = SshServer::start(&lab, "d1", Make::OpenSsh, "");
    gateway.becomes("nas-1", None, "up");
    for name in ["ops@fleet.test", "drops@fleet.test"] {
        eventually("the recovery", PATIENCE, || {
            letters_to(&mail, name).last().is_some_and(|m| m.contains("Subject: RECOVERED nas-1"))
        });
    }
    assert!(letters_to(&mail, "hangs@fleet.test").is_empty());
    gateway.stop();
}

fn message_id(letter: &str) -> String {
    letter.lines().find(|line| line.starts_with("Message-ID:")).expect("a letter has an id").to_owned()
}

fn killed(gateway: &mut Gateway<'_>) {
    gateway.process.as_mut().expect("running").kill();
}

#[test]
fn what_waits_when_the_gateway_is_killed_is_told_once_after_the_next_start() {
    let lab = Lab::new();
    let mail = MailSink::start(&lab);
    let mut gateway = Gateway::start(&lab, &with_wait(20, CLEAR));
    gateway.cli(&["device", "add", "nas-1", "--no-tunnel", "--direct", "10.77.1.2"]);
    gateway.becomes("nas-1", None, "down");
    assert!(mail.subjects().is_empty(), "it waits for others");
    killed(&mut gateway);
    gateway.again();
    eventually("it is told", PATIENCE, || mail.subjects() == ["DOWN nas-1"]);
    killed(&mut gateway);
    gateway.again();
    let _sshd = SshServer::start(&lab, "d1", Make::OpenSsh, "");
    gateway.becomes("nas-1", None, "up");
    killed(&mut gateway);
    gateway.again();
    eventually("and its end", PATIENCE, || mail.subjects() == ["DOWN nas-1", "RECOVERED nas-1"]);
    gateway.stop();
}

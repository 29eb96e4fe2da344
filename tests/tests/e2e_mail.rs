//! Mail over TLS, with a real server and a real login: what stands in the way is said in words, the
//! message waits, and it leaves as soon as the way is clear.

use std::time::Duration;

use fleetgate_tests::lab::{Gateway, Lab, MailDoor, MailSink, Make, SshServer, eventually};

const PATIENCE: Duration = Duration::from_secs(90);
const LOGIN: Option<&str> = Some("gate:open sesame");

/// A gateway that mails as it is told.
fn settings(mail: &str) -> String {
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
group_wait = 0

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

/// Starts again with other settings; the message that waits is tried at once.
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

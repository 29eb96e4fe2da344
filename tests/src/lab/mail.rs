//! A real mail server, with or without TLS, and with or without a login.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Lab, Running, eventually};

/// An SMTP server (aiosmtpd) in the namespace `m` that stores every message in a file.
pub struct MailSink<'a> {
    lab: &'a Lab,
    door: MailDoor,
    login: Option<&'static str>,
    process: Option<Running>,
}

/// The transport security of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MailDoor {
    Clear,
    /// In clear until STARTTLS, which is required before any mail.
    Starttls,
    /// TLS from the first byte.
    Tls,
}

impl<'a> MailSink<'a> {
    pub const ADDRESS: &'static str = "10.77.9.2";
    pub const PORT: u16 = 2525;

    pub fn start(lab: &'a Lab) -> MailSink<'a> {
        MailSink::start_with(lab, MailDoor::Clear, None)
    }

    /// Starts the server. `login` is `user:password`. The server signs its own certificate:
    /// [`MailSink::ca`].
    pub fn start_with(lab: &'a Lab, door: MailDoor, login: Option<&'static str>) -> MailSink<'a> {
        let made = rcgen::generate_simple_self_signed([MailSink::ADDRESS.to_owned()]).expect("a certificate");
        fs::write(lab.path("mail-cert.pem"), made.cert.pem()).expect("the lab's directory");
        fs::write(lab.path("mail-key.pem"), made.signing_key.serialize_pem()).expect("the lab's directory");
        let mut sink = MailSink { lab, door, login, process: None };
        sink.again();
        sink
    }

    /// Returns the certificate file that a client must trust.
    pub fn ca(&self) -> PathBuf {
        self.lab.path("mail-cert.pem")
    }

    /// Restarts the server with another transport security.
    pub fn moves_to(&mut self, door: MailDoor, login: Option<&'static str>) {
        self.stop();
        (self.door, self.login) = (door, login);
        self.again();
    }

    pub fn again(&mut self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/mail_sink.py");
        let port = MailSink::PORT.to_string();
        let [script, dir, cert, key] =
            [script, self.lab.path("mail"), self.ca(), self.lab.path("mail-key.pem")]
                .map(|path| path.display().to_string());
        let mut args = vec![script.as_str(), &dir, &port];
        match self.door {
            MailDoor::Clear => {}
            MailDoor::Starttls => args.extend(["--tls", "starttls", "--cert", &cert, "--key", &key]),
            MailDoor::Tls => args.extend(["--tls", "implicit", "--cert", &cert, "--key", &key]),
        }
        args.extend(self.login.iter().flat_map(|login| ["--login", login]));
        self.process = Some(self.lab.spawn("m", "mail.log", "/usr/bin/python3", &args, &[]));
        eventually("the mail sink listens", Duration::from_secs(20), || {
            self.lab.try_sh("m", &format!("ss -ltn | grep -q :{port}")).0
        });
    }

    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Returns the subjects in the order of arrival, without the incident that each names and its
    /// duration.
    pub fn subjects(&self) -> Vec<String> {
        let messages = self.messages();
        let found = messages.iter().filter_map(|m| m.lines().find_map(|l| l.strip_prefix("Subject: ")));
        let cut = |s: &str| {
            s.split(" [i_").next().and_then(|s| s.split(" after ").next()).map(str::trim).map(str::to_owned)
        };
        found.filter_map(cut).collect()
    }

    /// Returns all messages so far, in the order of arrival.
    pub fn messages(&self) -> Vec<String> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.lab.path("mail")).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        files.iter().map(|f| fs::read_to_string(f).unwrap_or_default()).collect()
    }
}

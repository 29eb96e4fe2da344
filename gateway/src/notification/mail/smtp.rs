//! Sends one mail in one SMTP dialogue: writes its headers, and classifies a failure.

use std::time::{Duration, SystemTime};

use fleetgate_engine::messages::IncidentId;
use fleetgate_engine::time::Wall;
use lettre::Message as Mail;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};

use crate::config::MailConfig;
use crate::notification::Failure;
use crate::notification::mail::dialogue;
use crate::notification::mail::render::Letter;
use crate::notification::mail::transport;
use crate::notification::mail::transport::Transport;

/// A server, and the settings of our mails.
pub struct Smtp {
    transport: Transport,
    config: MailConfig,
}

/// The headers and the recipient of a mail.
pub struct Envelope<'a> {
    pub to: &'a str,
    pub at: Wall,
    /// The id of the message, and the ids of the messages that it continues.
    pub number: i64,
    pub answers: &'a [i64],
    /// The incidents of the message. Each is the root of a thread; the root itself is never sent.
    pub incidents: &'a [IncidentId],
    /// Makes a `Message-ID` unique to this installation.
    pub installation: &'a str,
}

impl Smtp {
    /// # Errors
    /// Fails when the settings for TLS cannot be used.
    pub fn new(mail: &MailConfig, patience: Duration) -> anyhow::Result<Smtp> {
        Ok(Smtp { transport: Transport::new(mail, patience)?, config: mail.clone() })
    }

    /// # Errors
    /// Distinguishes a failure of the mail from one of the server.
    pub async fn send(&self, envelope: &Envelope<'_>, letter: Letter) -> Result<(), Failure> {
        let mail = self.mail(envelope, letter)?;
        let sent = self.transport.send(mail.envelope(), &mail.formatted()).await;
        sent.map_err(|error| self.failure(&error))
    }

    fn mail(&self, envelope: &Envelope<'_>, letter: Letter) -> Result<Mail, Failure> {
        let refused = |e: &dyn std::fmt::Display| Failure::Refused(format!("{}: {e}", envelope.to));
        let to: Mailbox = envelope.to.parse().map_err(|e| refused(&e))?;
        let domain = self.config.from.email.domain();
        let id = |number: i64| format!("<{number}.{}@{domain}>", envelope.installation);
        let mut mail = Mail::builder()
            .from(self.config.from.clone())
            .to(to)
            .date(SystemTime::UNIX_EPOCH + envelope.at.since(Wall::from_millis(0)))
            .message_id(Some(id(envelope.number)))
            .subject(letter.subject);
        let root = |incident: &IncidentId| format!("<{incident}.{}@{domain}>", envelope.installation);
        let roots = envelope.incidents.iter().map(root);
        let all: Vec<String> = roots.chain(envelope.answers.iter().map(|n| id(*n))).collect();
        if let Some(last) = all.last() {
            mail = mail.in_reply_to(last.clone()).references(all.join(" "));
        }
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mail = mail.raw_header(HeaderValue::new(automatic, "auto-generated".into()));
        let mail = match letter.html.is_empty() {
            true => mail.singlepart(SinglePart::plain(letter.text)),
            false => mail.multipart(MultiPart::alternative_plain_html(letter.text, letter.html)),
        };
        mail.map_err(|e| refused(&e))
    }

    /// Classifies a failure. A refusal at a step about the mail concerns that mail. The exceptions are
    /// codes about the login, TLS or the name in `EHLO`, and 421, with which the server closes. They and a
    /// dialogue that fails before those steps are the server's failure.
    fn failure(&self, error: &transport::Error) -> Failure {
        let text = transport::explain(error, &self.config);
        match error {
            transport::Error::Dialogue(dialogue::Error::Refused { step, code, .. })
                if step.is_about_letter() && !matches!(code, 421 | 454 | 504 | 530 | 534 | 535 | 538) =>
            {
                Failure::Refused(text)
            }
            transport::Error::Dialogue(dialogue::Error::NoUtf8) => Failure::Refused(text),
            _ => Failure::Server(text),
        }
    }
}

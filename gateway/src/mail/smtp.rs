//! One letter, one SMTP conversation.

use std::time::{Duration, SystemTime};

use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::IncidentId;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{AsyncTransport as _, Message as Mail};

use super::letter::Letter;
use super::transport::{self, Transport};
use crate::config::MailConfig;
use crate::notify::Failure;

/// A server, and who we are to it.
pub struct Smtp {
    transport: Transport,
    from: Mailbox,
    patience: Duration,
}

/// What stands on a letter.
pub struct Envelope<'a> {
    pub to: &'a str,
    pub at: Wall,
    /// The message's own number, and those of the messages that it continues.
    pub number: i64,
    pub answers: &'a [i64],
    /// The incidents it tells of: each is the root of a thread, of which nothing was ever sent.
    pub incidents: &'a [IncidentId],
    /// Makes a `Message-ID` this installation's own.
    pub installation: &'a str,
}

impl Smtp {
    /// # Errors
    /// When the settings for TLS cannot be used.
    pub fn new(mail: &MailConfig, patience: Duration) -> anyhow::Result<Smtp> {
        Ok(Smtp { transport: transport::open(mail, patience)?, from: mail.from.clone(), patience })
    }

    /// # Errors
    /// Tells what is wrong with the letter from what is wrong with the server.
    pub async fn send(&self, envelope: &Envelope<'_>, letter: Letter) -> Result<(), Failure> {
        let mail = self.mail(envelope, letter)?;
        match tokio::time::timeout(self.patience, self.transport.send(mail)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(failure(&error)),
            Err(_) => Err(Failure::Server("the server did not answer in time".into())),
        }
    }

    fn mail(&self, envelope: &Envelope<'_>, letter: Letter) -> Result<Mail, Failure> {
        let refused = |e: &dyn std::fmt::Display| Failure::Refused(format!("{}: {e}", envelope.to));
        let to: Mailbox = envelope.to.parse().map_err(|e| refused(&e))?;
        let domain = self.from.email.domain();
        let id = |number: i64| format!("<{number}.{}@{domain}>", envelope.installation);
        let mut mail = Mail::builder()
            .from(self.from.clone())
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
        mail.raw_header(HeaderValue::new(automatic, "auto-generated".into()))
            .multipart(MultiPart::alternative_plain_html(letter.text, letter.html))
            .map_err(|e| refused(&e))
    }
}

/// What a server says for good is about this message, unless it is about the login or TLS; of what it
/// says for now, only its own closing and a login that does not work today are about the server. A
/// connection that never came to an answer is the server's too.
fn failure(error: &lettre::transport::smtp::Error) -> Failure {
    let code = error.status().map(u16::from);
    let about_message =
        matches!(code, Some(code @ 400..=599) if !matches!(code, 421 | 454 | 530 | 534 | 535 | 538));
    let text = transport::explain(error);
    if about_message { Failure::Refused(text) } else { Failure::Server(text) }
}

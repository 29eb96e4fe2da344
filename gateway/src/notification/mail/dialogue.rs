//! An SMTP dialogue (RFC 5321), one command after another, over any stream.
//!
//! It does not know TLS, the settings, or the content of a mail.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::address::{Address, Envelope};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::time::{Instant, timeout_at};

use super::secrets::LoginSecrets;

/// Longest reply that is read. RFC 5321 has 512 bytes a line, and servers send some dozens of lines.
const MAX_REPLY: usize = 16_384;
/// Mechanisms of one server that are listed; about a dozen exist.
const MAX_MECHANISMS: usize = 16;
/// Longest mechanism name, in characters.
const MAX_MECHANISM: usize = 20;

/// Stands for a text that repeats a part of the login.
const HIDDEN: &str = "(the text repeats a part of the login and is not shown)";

/// The step at which a dialogue failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SmtpStep {
    Greeting,
    Hello,
    Starttls,
    Login,
    Sender,
    Recipient,
    Data,
    Content,
}

impl SmtpStep {
    /// Whether a refusal at this step concerns the mail, and not the gateway.
    pub const fn is_about_letter(self) -> bool {
        matches!(self, SmtpStep::Sender | SmtpStep::Recipient | SmtpStep::Data | SmtpStep::Content)
    }
}

impl fmt::Display for SmtpStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SmtpStep::Greeting => "the connection",
            SmtpStep::Hello => "EHLO",
            SmtpStep::Starttls => "STARTTLS",
            SmtpStep::Login => "AUTH",
            SmtpStep::Sender => "MAIL FROM",
            SmtpStep::Recipient => "RCPT TO",
            SmtpStep::Data => "DATA",
            SmtpStep::Content => "the message",
        })
    }
}

/// The reason why a dialogue failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the server did not answer {0} in time")]
    Timeout(SmtpStep),
    #[error("the server closed the connection at {0}")]
    Closed(SmtpStep),
    #[error("the connection broke at {0}: {1}")]
    Broken(SmtpStep, std::io::Error),
    #[error("the server's answer to {0} is no SMTP")]
    NoSmtp(SmtpStep),
    #[error("the server answered {step} with {code} {text}")]
    Refused { step: SmtpStep, code: u16, text: String },
    #[error("the server offers no STARTTLS")]
    NoStarttls,
    #[error("the server offers no login")]
    NoLogin,
    #[error("the server offers logins by {} alone, and fleetgate has PLAIN and LOGIN", .0.join(", "))]
    NoMechanism(Vec<String>),
    #[error("the server takes no addresses with letters beyond ASCII")]
    NoUtf8,
}

impl Error {
    /// Hides a server's text that repeats a part of the login: a server may show a command that it did not
    /// understand, cut or split anywhere.
    pub fn without(self, login: &LoginSecrets) -> Error {
        match self {
            Error::Refused { step, code, text } if login.is_repeated_in(&text) => {
                Error::Refused { step, code, text: hidden(&text) }
            }
            Error::NoMechanism(names) if login.is_repeated_in(&names.join(" ")) => {
                Error::NoMechanism(vec![HIDDEN.to_owned()])
            }
            other => other,
        }
    }
}

/// The extensions of a server that matter here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Offers {
    pub starttls: bool,
    pub eight_bit: bool,
    pub utf8: bool,
    /// Mechanisms of `AUTH`, in capitals.
    pub logins: Vec<String>,
}

impl Offers {
    fn of(lines: &[String]) -> Offers {
        let mut offers = Offers::default();
        for line in lines.iter().skip(1) {
            let upper = line.to_ascii_uppercase();
            // Some servers sent `AUTH=LOGIN` before the RFC.
            let mut words = upper.split([' ', '=']).filter(|word| !word.is_empty());
            match words.next() {
                Some("STARTTLS") => offers.starttls = true,
                Some("8BITMIME") => offers.eight_bit = true,
                Some("SMTPUTF8") => offers.utf8 = true,
                Some("AUTH") => words.for_each(|word| offers.add_login(word)),
                _ => {}
            }
        }
        offers
    }

    fn add_login(&mut self, word: &str) {
        let name: String = word.chars().filter(char::is_ascii_graphic).take(MAX_MECHANISM).collect();
        if self.logins.len() < MAX_MECHANISMS && !self.logins.contains(&name) {
            self.logins.push(name);
        }
    }

    fn has_login(&self, name: &str) -> bool {
        self.logins.iter().any(|login| login == name)
    }
}

struct Reply {
    code: u16,
    lines: Vec<String>,
}

pub struct Dialogue<S> {
    stream: BufReader<S>,
    deadline: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Dialogue<S> {
    pub fn new(stream: S, deadline: Instant) -> Dialogue<S> {
        Dialogue { stream: BufReader::new(stream), deadline }
    }

    /// Reads the greeting: the server sends first.
    ///
    /// # Errors
    /// Fails when the server is busy or sends nothing.
    pub async fn greeting(&mut self) -> Result<(), Error> {
        self.reply(SmtpStep::Greeting, 2).await.map(drop)
    }

    /// # Errors
    /// Fails when the server does not accept that name, or is not a mail server.
    pub async fn hello(&mut self, name: &str) -> Result<Offers, Error> {
        let reply = self.command(SmtpStep::Hello, &format!("EHLO {name}"), 2).await?;
        Ok(Offers::of(&reply.lines))
    }

    /// Returns the stream on which TLS begins. Bytes that arrived before TLS are rejected: an attacker on
    /// the network may have injected them.
    ///
    /// # Errors
    /// Fails when the server does not offer STARTTLS, or refuses it.
    pub async fn into_tls(mut self, offers: &Offers) -> Result<S, Error> {
        if !offers.starttls {
            return Err(Error::NoStarttls);
        }
        self.command(SmtpStep::Starttls, "STARTTLS", 2).await?;
        if !self.stream.buffer().is_empty() {
            return Err(Error::NoSmtp(SmtpStep::Starttls));
        }
        Ok(self.stream.into_inner())
    }

    /// # Errors
    /// Fails when the server refuses user and password, or offers no mechanism that we support.
    pub async fn log_in(&mut self, offers: &Offers, user: &str, password: &str) -> Result<(), Error> {
        if offers.has_login("PLAIN") {
            let secret = STANDARD.encode(format!("\0{user}\0{password}"));
            self.command(SmtpStep::Login, &format!("AUTH PLAIN {secret}"), 2).await?;
        } else if offers.has_login("LOGIN") {
            self.command(SmtpStep::Login, "AUTH LOGIN", 3).await?;
            self.command(SmtpStep::Login, &STANDARD.encode(user), 3).await?;
            self.command(SmtpStep::Login, &STANDARD.encode(password), 2).await?;
        } else if offers.logins.is_empty() {
            return Err(Error::NoLogin);
        } else {
            return Err(Error::NoMechanism(offers.logins.clone()));
        }
        Ok(())
    }

    /// Sends a mail. After `Ok` the server has accepted it.
    ///
    /// # Errors
    /// Fails when the server refuses it.
    pub async fn hand_over(
        &mut self,
        offers: &Offers,
        envelope: &Envelope,
        mail: &[u8],
    ) -> Result<(), Error> {
        let from = envelope.from().map(Address::to_string).unwrap_or_default();
        let options = options(offers, envelope, mail)?;
        self.command(SmtpStep::Sender, &format!("MAIL FROM:<{from}>{options}"), 2).await?;
        for to in envelope.to() {
            self.command(SmtpStep::Recipient, &format!("RCPT TO:<{to}>"), 2).await?;
        }
        self.command(SmtpStep::Data, "DATA", 3).await?;
        self.write(SmtpStep::Content, &stuffed(mail)).await?;
        self.reply(SmtpStep::Content, 2).await.map(drop)
    }

    /// Ends the dialogue. A mail that was accepted stays accepted.
    pub async fn quit(mut self) {
        let _ = self.command(SmtpStep::Greeting, "QUIT", 2).await;
        let _ = self.stream.shutdown().await;
    }

    async fn command(&mut self, step: SmtpStep, command: &str, class: u16) -> Result<Reply, Error> {
        self.write(step, format!("{command}\r\n").as_bytes()).await?;
        self.reply(step, class).await
    }

    async fn write(&mut self, step: SmtpStep, bytes: &[u8]) -> Result<(), Error> {
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let written = timeout_at(self.deadline, written).await.map_err(|_| Error::Timeout(step))?;
        written.map_err(|error| Error::Broken(step, error))
    }

    /// Reads a reply. `class` is the first digit of the expected code.
    async fn reply(&mut self, step: SmtpStep, class: u16) -> Result<Reply, Error> {
        let deadline = self.deadline;
        let reply = timeout_at(deadline, self.read(step)).await.map_err(|_| Error::Timeout(step))??;
        if reply.code / 100 == class {
            return Ok(reply);
        }
        Err(Error::Refused { step, code: reply.code, text: reply.lines.join(" ") })
    }

    /// Reads the lines `250-first`, `250-second`, `250 last`.
    async fn read(&mut self, step: SmtpStep) -> Result<Reply, Error> {
        let (mut lines, mut room) = (Vec::new(), MAX_REPLY);
        loop {
            let mut line = Vec::new();
            let read = (&mut self.stream).take(room as u64).read_until(b'\n', &mut line).await;
            let read = read.map_err(|error| Error::Broken(step, error))?;
            room = room.saturating_sub(read);
            if !line.ends_with(b"\n") {
                return Err(if room == 0 { Error::NoSmtp(step) } else { Error::Closed(step) });
            }
            let line = String::from_utf8_lossy(&line);
            let (code, more, text) = split(line.trim_end()).ok_or(Error::NoSmtp(step))?;
            lines.push(text.to_owned());
            if !more {
                return Ok(Reply { code, lines });
            }
        }
    }
}

/// Replaces a text. Its enhanced status code (RFC 3463) stays, which is too short for a secret.
fn hidden(text: &str) -> String {
    let first = text.split_whitespace().next().unwrap_or_default();
    if is_enhanced_code(first) { format!("{first} {HIDDEN}") } else { HIDDEN.to_owned() }
}

/// Whether the word is one like `5.7.8`.
fn is_enhanced_code(word: &str) -> bool {
    let mut parts = word.split('.');
    let class = matches!(parts.next(), Some("2" | "4" | "5"));
    let number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let [subject, detail] = [parts.next(), parts.next()].map(|part| part.is_some_and(number));
    class && subject && detail && parts.next().is_none()
}

/// Returns the code, whether more lines follow, and the text.
fn split(line: &str) -> Option<(u16, bool, &str)> {
    let (code, rest) = line.split_at_checked(3)?;
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    match rest.split_at_checked(1) {
        None => Some((code, false, "")),
        Some((" ", text)) => Some((code, false, text)),
        Some(("-", text)) => Some((code, true, text)),
        Some(_) => None,
    }
}

fn options(offers: &Offers, envelope: &Envelope, mail: &[u8]) -> Result<String, Error> {
    let mut options = String::new();
    let beyond_ascii = |address: &Address| !address.to_string().is_ascii();
    if envelope.from().into_iter().chain(envelope.to()).any(beyond_ascii) {
        if !offers.utf8 {
            return Err(Error::NoUtf8);
        }
        options.push_str(" SMTPUTF8");
    }
    // Mails are ASCII, except for addresses in their headers.
    if !mail.is_ascii() && offers.eight_bit {
        options.push_str(" BODY=8BITMIME");
    }
    Ok(options)
}

/// Encodes the content for `DATA`: a line that begins with a dot gets another one, and a single dot
/// ends it.
fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + 64);
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offered_extensions_are_read_in_any_case() {
        let lines = ["mx", "starttls", "AUTH=LOGIN PLAIN", "auth cram-md5 LOGIN", "8BITMIME", "SIZE 9"];
        let offers = Offers::of(&lines.map(str::to_owned));
        assert!(offers.starttls && offers.eight_bit && !offers.utf8);
        assert_eq!(offers.logins, ["LOGIN", "PLAIN", "CRAM-MD5"]);
    }

    #[test]
    fn the_enhanced_code_of_a_hidden_text_stays() {
        assert_eq!(hidden("5.7.8 hunter2-hunter2"), format!("5.7.8 {HIDDEN}"));
        for text in ["hunter2-hunter2", "5.7.8.9 x", "5.1234.1 x", "9.1.1 x", "5..1 x", ""] {
            assert_eq!(hidden(text), HIDDEN, "{text}");
        }
    }

    #[test]
    fn a_reply_has_a_code_and_ends_with_a_blank() {
        assert_eq!(split("250-mx hello"), Some((250, true, "mx hello")));
        assert_eq!(split("250 ok"), Some((250, false, "ok")));
        assert_eq!(split("221"), Some((221, false, "")));
        for line in ["", "2", "25x ok", "250_ok", "999 x", "SSH-2.0-x", "äöü 1"] {
            assert_eq!(split(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_with_a_dot_does_not_end_a_mail_early() {
        assert_eq!(stuffed(b"a\r\n.\r\n..b\r\nc"), b"a\r\n..\r\n...b\r\nc\r\n.\r\n");
        assert_eq!(stuffed(b""), b"\r\n.\r\n");
    }
}

//! The transport to the SMTP server: connection, TLS, login, and a description of each failure.
//!
//! With `starttls` and `tls` no mail or password is ever sent in clear: a server without TLS is a
//! failure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lettre::address::Envelope;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, InvalidMessage};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock;
use crate::config::mail_hello;
use crate::config::pem;
use crate::config::{MailConfig, MailSecurity};
use crate::notification::mail::dialogue;
use crate::notification::mail::dialogue::{Dialogue, SmtpStep};
use crate::notification::mail::secrets::LoginSecrets;
use crate::notification::mail::trust;

/// Characters kept of an error: a server's reply may be a page.
const MAX_ERROR: usize = 500;
/// Addresses of one server that are tried, each for its share of half the time limit.
const MAX_ADDRESSES: usize = 4;
/// Time limit of `QUIT` after the mail was accepted. It runs in the background.
const FAREWELL: Duration = Duration::from_secs(5);

/// The settings of a connection to the server; it does not connect by itself.
pub struct Transport {
    mail: MailConfig,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    login: LoginSecrets,
    patience: Duration,
}

/// The reason why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} is not found: {1}")]
    NotFound(String, std::io::Error),
    #[error("no connection to {0}: {1}")]
    Unreachable(String, std::io::Error),
    #[error("no TLS with the server: {0}")]
    Tls(std::io::Error),
    #[error(transparent)]
    Dialogue(#[from] dialogue::Error),
}

impl Transport {
    /// # Errors
    /// Names the settings for TLS that cannot be used.
    pub fn new(mail: &MailConfig, patience: Duration) -> anyhow::Result<Transport> {
        let tls = (mail.security != MailSecurity::None).then(|| tls(mail)).transpose()?;
        let login = match (&mail.user, &mail.password) {
            (Some(user), Some(password)) => LoginSecrets::new(user, password.reveal()),
            _ => LoginSecrets::default(),
        };
        Ok(Transport { mail: mail.clone(), tls, login, patience })
    }

    /// Sends a mail. After `Ok` the server has accepted it.
    ///
    /// # Errors
    /// Fails when the server has not, or may not have, accepted it. The error shows no part of the login,
    /// at any step: a server may remember one from an earlier connection.
    pub async fn send(&self, envelope: &Envelope, mail: &[u8]) -> Result<(), Error> {
        self.send_once(envelope, mail).await.map_err(|error| match error {
            Error::Dialogue(error) => Error::Dialogue(error.without(&self.login)),
            other => other,
        })
    }

    async fn send_once(&self, envelope: &Envelope, mail: &[u8]) -> Result<(), Error> {
        let deadline = clock::deadline(self.patience);
        let stream = self.connect(deadline).await?;
        let hello = self.hello(&stream).await;
        let letter = Letter { envelope, mail, hello: &hello };
        let Some(tls) = &self.tls else {
            return self.deliver(Dialogue::new(stream, deadline), true, letter).await;
        };
        let implicit = self.mail.security == MailSecurity::Tls;
        let stream = if implicit { stream } else { started(stream, &hello, deadline).await? };
        let stream = encrypted(tls, stream, deadline).await?;
        self.deliver(Dialogue::new(stream, deadline), implicit, letter).await
    }

    async fn deliver<S>(&self, mut to: Dialogue<S>, greets: bool, letter: Letter<'_>) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if greets {
            to.greeting().await?;
        }
        let offers = to.hello(letter.hello).await?;
        if let (Some(user), Some(password)) = (&self.mail.user, &self.mail.password) {
            to.log_in(&offers, user, password.reveal()).await?;
        }
        to.hand_over(&offers, letter.envelope, letter.mail).await?;
        tokio::spawn(timeout(FAREWELL, to.quit()));
        Ok(())
    }

    async fn hello(&self, stream: &TcpStream) -> String {
        let local = stream.local_addr().map_or(std::net::Ipv4Addr::LOCALHOST.into(), |address| address.ip());
        mail_hello::name(self.mail.hello.as_deref(), local).await
    }

    /// Tries one address after another. Each has a share of the time, so that a dead one leaves time for
    /// the next.
    async fn connect(&self, deadline: Instant) -> Result<TcpStream, Error> {
        let (host, port) = (self.mail.host.as_str(), self.mail.port);
        let name = format!("{host}:{port}");
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let found = timeout_at(deadline, tokio::net::lookup_host((host, port))).await;
        let found = found.unwrap_or_else(|_| Err(late())).map_err(|e| Error::NotFound(host.to_owned(), e))?;
        let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
        let share = self.patience / 2 / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(late())) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(Error::Unreachable(name, last))
    }
}

/// A mail, its envelope, and the name for `EHLO`.
#[derive(Clone, Copy)]
struct Letter<'a> {
    envelope: &'a Envelope,
    mail: &'a [u8],
    hello: &'a str,
}

fn tls(mail: &MailConfig) -> anyhow::Result<(TlsConnector, ServerName<'static>)> {
    let named = mail.ca.iter().map(|file| pem::certificates("mail.ca", file));
    let named = named.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
    let name = ServerName::try_from(mail.host.clone())
        .with_context(|| format!("mail.host: {:?} is neither a name nor an address", mail.host))?;
    Ok((TlsConnector::from(Arc::new(trust::client_config(named)?)), name))
}

/// Returns the stream after STARTTLS.
async fn started(stream: TcpStream, hello: &str, deadline: Instant) -> Result<TcpStream, Error> {
    let mut dialogue = Dialogue::new(stream, deadline);
    dialogue.greeting().await?;
    let offers = dialogue.hello(hello).await?;
    Ok(dialogue.into_tls(&offers).await?)
}

async fn encrypted(
    (connector, name): &(TlsConnector, ServerName<'static>),
    stream: TcpStream,
    deadline: Instant,
) -> Result<TlsStream<TcpStream>, Error> {
    let shaken = timeout_at(deadline, connector.connect(name.clone(), stream)).await;
    shaken.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(Error::Tls)
}

/// Describes the failure and the remedy, on one line.
pub fn explain(error: &Error, mail: &MailConfig) -> String {
    let text = match certificate(error) {
        Some(fault) => format!("the server's certificate is refused: {}", fault_of_certificate(fault)),
        None => error.to_string(),
    };
    let text = text.chars().take(MAX_ERROR).map(|c| if c.is_control() { ' ' } else { c });
    text.chain(advice(error, mail).chars()).collect()
}

fn rustls_error(error: &Error) -> Option<&rustls::Error> {
    let Error::Tls(error) = error else { return None };
    error.get_ref()?.downcast_ref()
}

fn certificate(error: &Error) -> Option<&CertificateError> {
    match rustls_error(error)? {
        rustls::Error::InvalidCertificate(fault) => Some(fault),
        _ => None,
    }
}

fn fault_of_certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet; is the clock of this machine right?".to_owned()
        }
        CertificateError::UnknownIssuer => "no authority that this system trusts has signed it".to_owned(),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        other => other.to_string(),
    }
}

fn advice(error: &Error, mail: &MailConfig) -> &'static str {
    match error {
        Error::Tls(_) => advice_for_tls(error, mail),
        Error::Dialogue(error) => advice_for_dialogue(error, mail),
        Error::NotFound(..) | Error::Unreachable(..) => "; are mail.host and mail.port right?",
    }
}

fn advice_for_tls(error: &Error, mail: &MailConfig) -> &'static str {
    match (rustls_error(error), certificate(error)) {
        (_, Some(CertificateError::UnknownIssuer)) if mail.ca.is_some() => {
            "; mail.ca holds neither this certificate nor that of the authority that signed it"
        }
        (_, Some(CertificateError::UnknownIssuer)) => {
            "; if it is your own, or its authority is, name that certificate in mail.ca"
        }
        (_, Some(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })) => {
            "; set mail.host to a name that stands in the certificate"
        }
        (Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)), _) => {
            "; is mail.security right for this port?"
        }
        _ => "",
    }
}

fn advice_for_dialogue(error: &dialogue::Error, mail: &MailConfig) -> &'static str {
    use dialogue::Error as E;
    match error {
        E::NoStarttls => {
            "; nothing is sent to it in clear: if it speaks TLS from the start, set mail.security to tls"
        }
        E::Timeout(SmtpStep::Greeting) if mail.security != MailSecurity::Tls => {
            "; if it speaks TLS from the start, set mail.security to tls"
        }
        E::NoSmtp(SmtpStep::Greeting) => "; is this the port of a mail server?",
        E::NoLogin if mail.security == MailSecurity::None => {
            "; it may offer one over TLS alone: set mail.security to starttls or tls, or leave mail.user and \
             mail.password out"
        }
        E::NoLogin => "; leave mail.user and mail.password out, or let the server offer one (PLAIN or LOGIN)",
        E::NoMechanism(_) => "; let the server offer one of these, which TLS protects",
        E::Refused { code: 530 | 534 | 535 | 538, .. } if mail.user.is_none() => {
            "; it wants a login: set mail.user and mail.password"
        }
        E::Refused { code: 530 | 534 | 535 | 538, .. } => "; check mail.user and mail.password",
        E::Refused { step: SmtpStep::Hello, .. } | E::Refused { code: 504, .. } => {
            "; it may not accept what the gateway calls itself: set mail.hello to its full name"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests;

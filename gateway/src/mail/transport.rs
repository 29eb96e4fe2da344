//! The way to the SMTP server: TLS, login, and in words what stands in the way.
//!
//! With `starttls` and `tls` nothing is ever sent in clear: a server that cannot is a failure.

use std::time::Duration;

use anyhow::Context as _;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, Tokio1Executor};

use crate::config::{MailConfig, MailSecurity};
use crate::pem;

/// Characters of an error that are kept: a server's answer may be a page.
const MAX_ERROR: usize = 500;

pub type Transport = AsyncSmtpTransport<Tokio1Executor>;

/// Connects to nothing yet.
///
/// # Errors
/// When the settings for TLS cannot be used, naming them.
pub fn open(mail: &MailConfig, patience: Duration) -> anyhow::Result<Transport> {
    let tls = match mail.security {
        MailSecurity::None => Tls::None,
        MailSecurity::Starttls => Tls::Required(parameters(mail)?),
        MailSecurity::Tls => Tls::Wrapper(parameters(mail)?),
    };
    let builder = Transport::builder_dangerous(&mail.host).port(mail.port).tls(tls).timeout(Some(patience));
    Ok(match (&mail.user, &mail.password) {
        (Some(user), Some(password)) => {
            builder.credentials(Credentials::new(user.clone(), password.reveal().to_owned())).build()
        }
        _ => builder.build(),
    })
}

fn parameters(mail: &MailConfig) -> anyhow::Result<TlsParameters> {
    let mut builder = TlsParameters::builder(mail.host.clone());
    for own in mail.ca.iter().map(|file| pem::certificates("mail.ca", file)) {
        for certificate in own? {
            let certificate = Certificate::from_der(certificate.to_vec()).context("mail.ca")?;
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().context(
        "mail over TLS cannot be set up: are the system's authorities installed (ca-certificates), or is \
         mail.ca right?",
    )
}

/// What went wrong and what to do about it, on one line.
pub fn explain(error: &Error) -> String {
    let text = error.to_string();
    let advice = advice(error, &text);
    let text = text.chars().take(MAX_ERROR).map(|c| if c.is_control() { ' ' } else { c });
    text.chain(advice.chars()).collect()
}

fn advice(error: &Error, text: &str) -> &'static str {
    match error.status().map(u16::from) {
        Some(530 | 534 | 535 | 538) => "; check mail.user and mail.password",
        Some(_) => "",
        None if text.contains("STARTTLS is not supported") => {
            "; nothing is sent to it in clear: if it speaks TLS from the start, set mail.security to tls"
        }
        None if text.contains("invalid peer certificate") => {
            "; if its authority is your own, name that certificate in mail.ca"
        }
        None if text.contains("InvalidContentType") => "; is mail.security right for this port?",
        None if text.contains("authentication mechanism") => "; it takes no login: leave mail.user out",
        None => "",
    }
}

//! The mail server and its receivers, as set.
//!
//! A password is sent in clear to this machine at most. This file knows no mails, and opens no connection.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use lettre::message::{Mailbox, Mailboxes};

use super::file::{List, MailFile, MailSecurity, Password};
use super::mail_hello;

#[derive(Clone, Debug)]
pub struct MailConfig {
    pub host: String,
    pub port: u16,
    pub security: MailSecurity,
    pub user: Option<String>,
    pub password: Option<Password>,
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
    /// The name that the gateway sends in `EHLO`. The default is its full host name, or else its address.
    pub hello: Option<String>,
    /// PEM file of authorities and servers' own certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
}

pub(super) fn mail(file: MailFile) -> anyhow::Result<MailConfig> {
    let to = receivers(&file.to)?;
    if to.is_empty() {
        bail!("mail.to is empty: name at least one receiver, or leave [mail] out");
    }
    if file.user.is_some() != file.password.is_some() {
        bail!("mail.user and mail.password belong together: only one of them is set");
    }
    let security = file.security.unwrap_or(MailSecurity::Starttls);
    if security == MailSecurity::None && file.password.is_some() && !is_this_machine(&file.host) {
        bail!("mail.password would travel in clear to {}: set mail.security to starttls or tls", file.host);
    }
    let port = file.port.unwrap_or(match security {
        MailSecurity::None => 25,
        MailSecurity::Starttls => 587,
        MailSecurity::Tls => 465,
    });
    Ok(MailConfig {
        host: file.host,
        port,
        security,
        user: file.user,
        password: file.password,
        from: file.from.parse().with_context(|| no_address("mail.from", &file.from))?,
        to,
        hello: file.hello.as_deref().map(hello).transpose()?,
        ca: file.ca,
    })
}

fn hello(text: &str) -> anyhow::Result<String> {
    mail_hello::setting(text).with_context(|| {
        format!("mail.hello: {text:?} is neither a name such as gateway.example.com nor an address")
    })
}

fn receivers(list: &List) -> anyhow::Result<Vec<Mailbox>> {
    match list {
        List::Text(text) => {
            let all: Mailboxes = text.parse().with_context(|| no_address("mail.to", text))?;
            Ok(all.into_iter().collect())
        }
        List::Items(items) => {
            items.iter().map(|item| item.parse().with_context(|| no_address("mail.to", item))).collect()
        }
    }
}

fn no_address(key: &str, text: &str) -> String {
    format!("{key}: {text:?} is not an e-mail address")
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

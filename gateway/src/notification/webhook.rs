//! Webhooks: signed JSON, so that the receiving program can authenticate it. A message of a contact is
//! one; an event of a rental is another (`rental_events`).
//!
//! `X-Fleetgate-Signature: t=SECONDS,v1=HEX`, where HEX is the HMAC-SHA256 of `SECONDS.BODY` under the
//! contact's secret. 2xx accepts the message. After 408, 425, 429, 5xx or a timeout it is retried
//! together with all later ones, at the time in `Retry-After` if given. Any other status refuses this
//! message. Redirects are not followed, because another program would receive the message; the error
//! says so.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use fleetgate_engine::id::Id;
use fleetgate_engine::time::Wall;
use hmac::{Hmac, Mac as _};
use reqwest::StatusCode;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::Serialize;
use sha2::Sha256;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::Failure;
use crate::clock;
use crate::ids::{self, IdKind};
use crate::outbound::{Outbound, Purpose, address};
use crate::store::Store;
use crate::store::contacts::{Contact, secret_place};
use crate::store::notices::NoticeRow;
use crate::store::outbox::{self, Contents, MessageRow};

/// Notices in one body; `count` is their total.
pub const LISTED: i64 = 500;
pub const SECRET_PREFIX: &str = "fgw_";
const SIGNATURE: &str = "x-fleetgate-signature";
const MESSAGE_ID: &str = "x-fleetgate-message";

/// The body. The fields of the first notification stand beside the list, for programs that want no
/// list: without grouping (`group_wait_s` 0) there is never more than one.
#[derive(Debug, Serialize, ToSchema)]
pub struct Body {
    /// The same at each attempt: `m_...`.
    pub id: String,
    pub contact: String,
    /// `notifications`, `digest` (what is still so) or `test`.
    pub event: &'static str,
    /// The label `site` that the hosts share.
    pub site: Option<String>,
    #[serde(flatten)]
    pub first: Option<WebhookNotification>,
    /// All of them; more than `notifications` lists at most.
    pub count: i64,
    /// In order; at most 500.
    pub notifications: Vec<WebhookNotification>,
}

/// One notification as a program gets it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WebhookNotification {
    pub notification: String,
    pub object: WebhookObject,
    /// `problem`, `recovery`, `reminder`, `flapping_start`, `flapping_end`, `acknowledged`,
    /// `downtime_start`, `downtime_end`, `downtime_cancelled`.
    #[serde(rename = "type")]
    pub kind: String,
    pub state: String,
    /// The state that was told last; `up` or `ok` where there was nothing to take back.
    pub previous_notified_state: String,
    /// When it became necessary.
    pub time: String,
    /// Since when the state holds.
    pub since: String,
    /// The output of the check that decided, 1,024 bytes at most.
    pub cause: String,
    /// The output is longer; the API has all of it while it is current.
    pub truncated: bool,
    /// The incident that it belonged to when it became necessary: `i_...`.
    pub incident: Option<String>,
    /// The author and the reason of an action, such as an acknowledgement.
    pub note: Option<String>,
    /// The page of the host, where `public_url` is set.
    pub url: Option<String>,
    /// The rental that had the device when the notification became necessary.
    pub rental: Option<WebhookRental>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WebhookRental {
    /// `l_...`.
    pub id: String,
    /// Its end.
    pub until: String,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WebhookObject {
    pub host_id: String,
    pub host: String,
    pub service: Option<String>,
    pub labels: std::collections::BTreeMap<String, String>,
}

impl Body {
    pub fn new(message: &MessageRow, contents: &Contents, public_url: Option<&str>) -> Body {
        let notifications: Vec<WebhookNotification> =
            contents.notices.iter().map(|n| told(n, contents, public_url)).collect();
        Body {
            id: IdKind::Message.text(Id::from_i64(message.id)),
            contact: message.contact_name.clone(),
            event: match message.kind {
                outbox::OutboxKind::Notices => "notifications",
                kind => kind.name(),
            },
            site: Some(message.site.clone()).filter(|s| !s.is_empty()),
            first: notifications.first().cloned(),
            count: contents.total(),
            notifications,
        }
    }
}

fn told(notice: &NoticeRow, contents: &Contents, public_url: Option<&str>) -> WebhookNotification {
    let host = &notice.host_name;
    let rental = contents.rented.get(&notice.id).map(|rented| WebhookRental {
        id: IdKind::Rental.text(rented.rental),
        until: ids::time(rented.until),
    });
    WebhookNotification {
        notification: IdKind::Notice.text(Id::from_i64(notice.id.0)),
        object: WebhookObject {
            host_id: IdKind::Host.text(notice.host),
            host: host.clone(),
            service: notice.service.clone(),
            labels: notice.labels.clone(),
        },
        kind: notice.kind.clone(),
        state: notice.to.clone(),
        previous_notified_state: notice.from.clone(),
        time: ids::time(notice.at),
        since: ids::time(notice.since),
        cause: notice.output.to_string(),
        truncated: notice.output.is_truncated(),
        incident: notice.incident.map(|id| id.to_string()),
        note: Some(notice.note.clone()).filter(|note| !note.is_empty()),
        url: public_url.map(|url| format!("{url}/hosts/{host}")),
        rental,
    }
}

/// Resolves as the system does, and leaves out refused addresses.
struct Resolver(Outbound);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let outbound = self.0.clone();
        Box::pin(async move {
            let permitted = outbound.resolve(name.as_str(), 0, Purpose::Call).await?;
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}

/// Returns a new secret, to be shown once and stored sealed.
///
/// # Panics
/// Panics when the operating system provides no randomness.
pub fn new_secret() -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut()).expect("the operating system gives random bytes");
    let mut text = Zeroizing::new(String::with_capacity(SECRET_PREFIX.len() + 2 * bytes.len()));
    text.push_str(SECRET_PREFIX);
    text.push_str(&hex(bytes.as_ref()));
    text
}

/// Returns the secret of a contact's webhook.
///
/// # Errors
/// Fails when the contact or its webhook is gone, or when another gateway sealed the secret.
pub(super) fn secret(store: &Store, contact: Option<Contact>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let gone = "the contact or its webhook is gone";
    let contact = contact.context(gone)?;
    store.unseal(&secret_place(contact.id), &contact.webhook_secret.context(gone)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Returns the value of the header.
pub(crate) fn signature(secret: &[u8], seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    format!("t={seconds},v1={}", hex(&mac.finalize().into_bytes()))
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    outbound: Outbound,
}

/// One call.
pub struct Call<'a> {
    pub url: &'a str,
    /// The header with the id of what is sent, which is the same at each attempt.
    pub id: (&'static str, String),
    /// JSON.
    pub body: Vec<u8>,
    /// The secret that signs the call.
    pub secret: &'a [u8],
}

/// Returns a client for addresses that operators configure: with a time limit, without redirects, and
/// only to permitted addresses. A URL with an IP address bypasses the resolver, so the caller checks it
/// first.
///
/// # Errors
/// Fails when TLS cannot be set up.
pub fn http(patience: Duration, outbound: &Outbound) -> anyhow::Result<reqwest::Client> {
    let builder = reqwest::Client::builder()
        .timeout(patience)
        .connect_timeout(patience)
        .redirect(reqwest::redirect::Policy::none())
        .dns_resolver(std::sync::Arc::new(Resolver(outbound.clone())))
        // Calls are rare and independent of each other, so kept connections gain nothing.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("fleetgate/", env!("CARGO_PKG_VERSION")))
        .no_proxy();
    builder.build().context("calls over TLS cannot be set up")
}

impl Client {
    /// # Errors
    /// Fails when TLS cannot be set up.
    pub fn new(patience: Duration, outbound: &Outbound) -> anyhow::Result<Client> {
        Ok(Client { http: http(patience, outbound)?, outbound: outbound.clone() })
    }

    /// # Errors
    /// Distinguishes a failure of the message from one of the other side.
    pub(super) async fn post(
        &self,
        message: &MessageRow,
        contents: &Contents,
        public_url: Option<&str>,
        secret: &[u8],
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(&Body::new(message, contents, public_url)).map_err(|e| refused(&e))?;
        let id = (MESSAGE_ID, IdKind::Message.text(Id::from_i64(message.id)));
        self.call(Call { url: message.address.reveal(), id, body, secret }).await
    }

    /// Makes a signed call.
    ///
    /// # Errors
    /// Distinguishes a refusal of this call from a failure of the other side.
    pub async fn call(&self, call: Call<'_>) -> Result<(), Failure> {
        let url = address::parse(call.url).map_err(|e| refused(&e))?;
        address::permitted(&url, &self.outbound).map_err(|e| refused(&e))?;
        let signed = signature(call.secret, clock::wall().as_millis() / 1_000, &call.body);
        let (header, id) = call.id;
        let request = self
            .http
            .post(url)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signed)
            .header(header, id)
            .body(call.body);
        match request.send().await {
            Ok(answer) => judge(answer.status(), wish(&answer)),
            Err(error) => Err(Failure::Server(Failure::shorten(&innermost(&error)))),
        }
    }
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::Refused(Failure::shorten(&error.to_string()))
}

/// Returns the pause that the server requests: `Retry-After` in seconds or as a date.
fn wish(answer: &reqwest::Response) -> Option<Duration> {
    let text = answer.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?;
    retry_after(text, clock::wall())
}

fn retry_after(text: &str, now: Wall) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let now = SystemTime::UNIX_EPOCH + now.since(Wall::from_millis(0));
    Some(at.duration_since(now).unwrap_or_default())
}

fn judge(status: StatusCode, wish: Option<Duration>) -> Result<(), Failure> {
    let text = format!("it answered {status}");
    match status.as_u16() {
        200..=299 => Ok(()),
        300..=399 => Err(Failure::Refused(format!("{text}: redirects are not followed"))),
        408 | 425 | 429 | 500..=599 => Err(match wish {
            Some(pause) => Failure::Busy(format!("{text}, and says when it wants to be called again"), pause),
            None => Failure::Server(text),
        }),
        _ => Err(Failure::Refused(text)),
    }
}

/// Omits the URL: the row has it already, and it may contain a secret.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it did not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_anybody_with_the_secret_computes() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
        let expected = "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163";
        assert_eq!(signature(b"secret", 1_700_000_000, b"{}"), expected);
    }

    #[test]
    fn a_server_may_say_when_it_wants_to_be_called_again() {
        let now = Wall::from_millis(1_445_412_480_000); // Wed, 21 Oct 2015 07:28:00 GMT
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Wed, 21 Oct 2015 07:30:00 GMT", Some(120)),
            ("Wednesday, 21-Oct-15 07:30:00 GMT", Some(120)),
            ("Wed, 21 Oct 2015 07:20:00 GMT", Some(0)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn only_plain_web_addresses_are_called() {
        for good in ["https://hooks.example.com/x?y=1", "http://127.0.0.1:9/", "http://[2001:db8::1]/"] {
            assert!(address::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "example.com", "file:///etc/passwd", "ftp://example.com/", "http://u:p@example.com/"]
        {
            assert!(address::parse(bad).is_err(), "{bad}");
        }
        for local in [
            "http://169.254.169.254/latest",
            "http://0xa9fea9fe/",
            "http://2852039166/",
            "http://[fe80::1]/",
            "http://[::ffff:169.254.169.254]/",
        ] {
            assert!(
                address::permitted(&address::parse(local).unwrap(), &Outbound::default()).is_err(),
                "{local}"
            );
        }
    }

    #[test]
    fn a_secret_has_its_prefix_and_256_bits() {
        let (one, two) = (new_secret(), new_secret());
        assert!(one.starts_with(SECRET_PREFIX) && one.len() == 68 && one != two);
    }
}

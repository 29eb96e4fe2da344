//! The delivery of the outbox.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use fleetgate_engine::time::Wall;
use jiff::tz::TimeZone;
use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::{AsyncTransport as _, Message as Mail};
use tokio_util::sync::CancellationToken;

use super::Postman;
use super::letter::{self, Letter, Place};
use super::transport::{self, Transport};
use crate::clock;
use crate::config::MailConfig;
use crate::live::{Change, Live};
use crate::store::events::{self, NewEvent, Object, SYSTEM};
use crate::store::outbox::{self, Waiting};
use crate::store::{Store, backlog, settings};

/// Messages looked at in one round.
const ROUND: i64 = 32;
/// The setting that makes a `Message-ID` this installation's own.
const INSTALLATION: &str = "installation";

/// How patient the courier is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For one whole conversation; a server under load takes half a minute.
    pub patience: Duration,
    /// After a failure of the server: doubled with each, up to `longest_pause`.
    pub first_pause: Duration,
    /// A server that is back is used after at most so long.
    pub longest_pause: Duration,
    /// A message that the server refused: doubled with each attempt, up to an hour.
    pub refused_pause: Duration,
    /// As long as mail servers try among themselves; after it nobody wants to know.
    pub give_up: Duration,
    /// What is under way at a stop may take so long.
    pub farewell: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            patience: Duration::from_secs(60),
            first_pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(300),
            refused_pause: Duration::from_secs(60),
            give_up: Duration::from_secs(5 * 86_400),
            farewell: Duration::from_secs(4),
        }
    }
}

pub struct Courier {
    store: Store,
    live: Live,
    postman: Postman,
    transport: Transport,
    from: Mailbox,
    zone: TimeZone,
    public_url: Option<String>,
    pace: Pace,
}

/// Why a message did not leave.
#[derive(Debug)]
enum Failure {
    /// The server is away, or takes nothing from us: the next message would fare the same.
    Server(String),
    /// The server does not take this message.
    Refused(String),
    /// The gateway stops.
    Stopped,
}

impl Courier {
    /// # Errors
    /// When the settings for TLS cannot be used.
    pub fn new(
        mail: &MailConfig,
        public_url: Option<String>,
        store: Store,
        live: Live,
        postman: Postman,
        pace: Pace,
    ) -> anyhow::Result<Courier> {
        let (from, zone) = (mail.from.clone(), TimeZone::system());
        let transport = transport::open(mail, pace.patience)?;
        Ok(Courier { store, live, postman, transport, from, zone, public_url, pace })
    }

    pub async fn run(self, stop: CancellationToken) {
        let mut pauses = self.pauses();
        while !stop.is_cancelled() {
            let pause = match self.round(&stop).await {
                Ok(()) => {
                    pauses = self.pauses();
                    Duration::ZERO
                }
                Err(()) => pauses.next().unwrap_or(self.pace.longest_pause),
            };
            if pause.is_zero() {
                self.wait_for_mail(&stop).await;
            } else {
                rest(pause, &stop).await;
            }
        }
    }

    fn pauses(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.pace.first_pause)
            .with_max_delay(self.pace.longest_pause)
            .without_max_times()
            .with_jitter()
            .build()
    }

    /// Until something is due.
    async fn wait_for_mail(&self, stop: &CancellationToken) {
        let next = self.store.next_message_due().await.unwrap_or_default();
        let wait = next.map_or(self.pace.longest_pause, |at| at.since(clock::wall()));
        tokio::select! {
            () = tokio::time::sleep(wait.min(self.pace.longest_pause)) => {}
            () = self.postman.woken() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Delivers what is due. `Err`: the server or the database fails, try again later.
    async fn round(&self, stop: &CancellationToken) -> Result<(), ()> {
        let collapsed = self.collapse().await;
        collapsed.map_err(|error| tracing::warn!("the outbox cannot be written: {error}"))?;
        loop {
            let due = self.store.due_messages(clock::wall(), ROUND).await;
            let due = due.map_err(|error| tracing::warn!("the outbox cannot be read: {error}"))?;
            if due.is_empty() || stop.is_cancelled() {
                return Ok(());
            }
            for waiting in due {
                self.deliver(&waiting, stop).await?;
            }
        }
    }

    /// After an outage only the final states are told.
    async fn collapse(&self) -> crate::store::Result<()> {
        let now = clock::wall();
        if !backlog::is_held_up(&mut *self.store.reader().await?, now - backlog::HELD_UP).await? {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let mut last = None;
        for dropped in backlog::collapse(&mut tx, now).await? {
            last = Some(super::note_dropped(&mut tx, "message.superseded", &dropped, now).await?);
        }
        tx.commit().await?;
        last.into_iter().for_each(|seq| self.live.tell(Change::Event(seq)));
        Ok(())
    }

    async fn deliver(&self, waiting: &Waiting, stop: &CancellationToken) -> Result<(), ()> {
        match self.send(waiting, stop).await {
            Ok(()) => self.record_sent(waiting, stop).await,
            Err(Failure::Refused(error)) => {
                let doubled = self.pace.refused_pause * 2u32.saturating_pow(waiting.attempts.min(16));
                self.record_failure(waiting, &error, doubled.min(outbox::LONGEST_PAUSE)).await
            }
            Err(Failure::Server(error)) => {
                let _ = self.record_failure(waiting, &error, Duration::ZERO).await;
                Err(())
            }
            Err(Failure::Stopped) => Err(()),
        }
    }

    async fn send(&self, waiting: &Waiting, stop: &CancellationToken) -> Result<(), Failure> {
        let mail = self.mail(waiting).await?;
        let conversation = tokio::time::timeout(self.pace.patience, self.transport.send(mail));
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(self.pace.farewell).await;
        };
        tokio::select! {
            ended = conversation => match ended {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(failure(&error)),
                Err(_) => Err(Failure::Server("the server did not answer in time".into())),
            },
            () = stopped => Err(Failure::Stopped),
        }
    }

    async fn mail(&self, waiting: &Waiting) -> Result<Mail, Failure> {
        let installation = self.installation().await.map_err(|e| Failure::Server(e.to_string()))?;
        let refused = |e: &dyn std::fmt::Display| Failure::Refused(format!("{}: {e}", waiting.recipient));
        let to: Mailbox = waiting.recipient.parse().map_err(|e| refused(&e))?;
        let place = Place { zone: &self.zone, public_url: self.public_url.as_deref() };
        let letter = Letter::write(&waiting.body, &place);
        let id = format!("<{}.{installation}@{}>", waiting.id, self.from.email.domain());
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        Mail::builder()
            .from(self.from.clone())
            .to(to)
            .date(letter::written_at(&waiting.body))
            .message_id(Some(id))
            .subject(letter.subject)
            .raw_header(HeaderValue::new(automatic, "auto-generated".into()))
            .header(ContentType::TEXT_PLAIN)
            .body(letter.text)
            .map_err(|e| refused(&e))
    }

    /// Made once, kept for ever.
    async fn installation(&self) -> crate::store::Result<String> {
        let mut conn = self.store.reader().await?;
        if let Some(known) = settings::find(&mut conn, INSTALLATION).await? {
            return Ok(known);
        }
        drop(conn);
        let made = format!("{:016x}", rand_core::RngCore::next_u64(&mut rand_core::OsRng));
        let mut tx = self.store.begin().await?;
        settings::put(&mut tx, INSTALLATION, &made).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// The letter is out: until that is on disk nothing else is sent, or a full disk would send it
    /// again and again.
    async fn record_sent(&self, waiting: &Waiting, stop: &CancellationToken) -> Result<(), ()> {
        let mut pauses = self.pauses();
        while let Err(error) = self.try_record_sent(waiting).await {
            tracing::error!("message {} was sent, but that cannot be written: {error}", waiting.id);
            if stop.is_cancelled() {
                return Err(());
            }
            rest(pauses.next().unwrap_or(self.pace.longest_pause), stop).await;
        }
        Ok(())
    }

    async fn try_record_sent(&self, waiting: &Waiting) -> crate::store::Result<()> {
        let now = clock::wall();
        let mut tx = self.store.begin().await?;
        outbox::sent(&mut tx, waiting.id, now).await?;
        let cause = format!("mail to {}", waiting.recipient);
        let seq = note(&mut tx, waiting, "message.sent", &cause, "", now).await?;
        tx.commit().await?;
        self.live.tell(Change::Event(seq));
        metrics::counter!("fleetgate_messages_total", "outcome" => "sent").increment(1);
        Ok(())
    }

    async fn record_failure(&self, waiting: &Waiting, error: &str, pause: Duration) -> Result<(), ()> {
        metrics::counter!("fleetgate_messages_total", "outcome" => "failed").increment(1);
        tracing::warn!(message = waiting.id, to = waiting.recipient, "mail not sent: {error}");
        let recorded = self.try_record_failure(waiting, error, pause).await;
        recorded.map_err(|error| tracing::error!("message {}: {error}", waiting.id))
    }

    /// The first failure and the last are events; those between are in the row.
    async fn try_record_failure(
        &self,
        waiting: &Waiting,
        error: &str,
        pause: Duration,
    ) -> crate::store::Result<()> {
        let now = clock::wall();
        let over = now.since(waiting.created_at) >= self.pace.give_up;
        let mut tx = self.store.begin().await?;
        outbox::failed(&mut tx, waiting.id, error, now + pause).await?;
        if over {
            outbox::given_up(&mut tx, waiting.id, error, now).await?;
        }
        let seq = if over || waiting.attempts == 0 {
            let (kind, outlook) = match over {
                true => ("message.given_up", "given up"),
                false => ("message.failed", "it will be tried again"),
            };
            let cause = format!("mail to {} failed, {outlook}", waiting.recipient);
            Some(note(&mut tx, waiting, kind, &cause, error, now).await?)
        } else {
            None
        };
        tx.commit().await?;
        seq.into_iter().for_each(|seq| self.live.tell(Change::Event(seq)));
        Ok(())
    }
}

async fn note(
    tx: &mut crate::store::SqliteConnection,
    waiting: &Waiting,
    kind: &str,
    cause: &str,
    evidence: &str,
    now: Wall,
) -> crate::store::Result<i64> {
    let service = waiting.body.service.as_deref();
    let object = if service.is_some() { Object::Service } else { Object::Host };
    let event = NewEvent {
        service,
        evidence,
        data: serde_json::json!({ "message": waiting.id, "to": waiting.recipient }),
        ..NewEvent::new(now, kind, (object, Some(waiting.host)), cause, SYSTEM)
    };
    events::append(tx, &event).await
}

async fn rest(pause: Duration, stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
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

#[cfg(test)]
mod tests;

//! Sends the contacts of rentals what was decided for them, by mail and at least once.
//!
//! ```text
//! states ─▶ maintenance/rental_notices ─▶ rental_messages ─▶ mail
//! ```
//!
//! The mail server and the pauses are those of the notifications. The queue is another one, so that contacts of
//! customers delay no operator. The log names rentals, never addresses: a server repeats them in its replies.

mod letter;
#[cfg(test)]
mod tests;

use std::time::Duration;

use fleetgate_engine::time::Wall;
use futures_util::future::join_all;
use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::ids::IdKind;
use crate::notification::mail::render::Letter;
use crate::notification::mail::smtp::{Envelope, Smtp};
use crate::notification::{DeliveryTiming, Failure, Settings, doubled};
use crate::store::outbox::LONGEST_PAUSE;
use crate::store::rentals::messages::{self, MessageRow};
use crate::store::rentals::{self, Rental, notices};
use crate::store::{Store, instance};
use letter::About;

/// Mails at the same time. As many may hang before the others wait.
const AT_ONCE: i64 = 4;
/// Pause between two looks at what is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Starts the delivery.
///
/// # Errors
/// Fails when the settings for TLS cannot be used.
pub fn start(
    tasks: &mut JoinSet<()>,
    store: Store,
    mut settings: watch::Receiver<Settings>,
    pace: DeliveryTiming,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let smtp = smtp(&settings.borrow_and_update(), pace)?;
    let delivery = Delivery { store, settings, smtp, pace, zone: TimeZone::system(), look_every: LOOK_EVERY };
    tasks.spawn(delivery.run(stop));
    Ok(())
}

fn smtp(settings: &Settings, pace: DeliveryTiming) -> anyhow::Result<Option<Smtp>> {
    settings.mail.as_ref().map(|mail| Smtp::new(mail, pace.patience)).transpose()
}

struct Delivery {
    store: Store,
    settings: watch::Receiver<Settings>,
    /// `None`: there is no mail server, and messages wait for one.
    smtp: Option<Smtp>,
    pace: DeliveryTiming,
    zone: TimeZone,
    look_every: Duration,
}

impl Delivery {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let farewell = self.pace.farewell;
            let stopped = async {
                stop.cancelled().await;
                tokio::time::sleep(farewell).await;
            };
            let is_busy = tokio::select! {
                turned = self.turn() => turned.unwrap_or_else(|error| {
                    tracing::warn!("messages to the contacts of rentals wait for the database: {error}");
                    false
                }),
                () = stopped => return,
            };
            let wait = if is_busy { Duration::ZERO } else { self.look_every };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = self.settings.changed() => match changed {
                    Ok(()) => self.reconfigure(),
                    Err(_) => stop.cancelled().await,
                },
                () = stop.cancelled() => {}
            }
        }
    }

    fn reconfigure(&mut self) {
        match smtp(&self.settings.borrow_and_update(), self.pace) {
            Ok(smtp) => self.smtp = smtp,
            Err(error) => tracing::error!("mail to the contacts of rentals goes on as before: {error:#}"),
        }
    }

    /// Sends what is due, for some addresses. Returns whether more may be due. After a restore nothing is sent until an
    /// admin has confirmed it: what waited in the backup may have been sent.
    async fn turn(&self) -> crate::store::Result<bool> {
        let Some(smtp) = &self.smtp else { return Ok(false) };
        let mut conn = self.store.reader().await?;
        if instance::unconfirmed(&mut conn).await?.is_some() {
            return Ok(false);
        }
        let due = messages::due(&mut conn, clock::wall(), LONGEST_PAUSE, AT_ONCE).await?;
        drop(conn);
        let sent = join_all(due.iter().map(|message| self.deliver(smtp, message))).await;
        sent.into_iter().collect::<crate::store::Result<()>>()?;
        Ok(!due.is_empty())
    }

    async fn deliver(&self, smtp: &Smtp, message: &MessageRow) -> crate::store::Result<()> {
        let (rental, now) = (self.addressed(message).await?, clock::wall());
        let Some(rental) = rental else { return self.write(message, Outcome::GivenUp, now).await };
        self.begin(message, now).await?;
        let installation = format!("rental.{}", self.store.installation().await?);
        let envelope = Envelope {
            to: &message.email,
            at: message.created_at,
            number: message.id,
            answers: &[],
            incidents: &[],
            installation: &installation,
        };
        let outcome = match smtp.send(&envelope, letter(&rental, message, &self.zone)).await {
            Ok(()) => Outcome::Sent,
            Err(failure) => self.after(message, &failure),
        };
        self.write(message, outcome, clock::wall()).await
    }

    /// Returns the rental, if it still goes on with the same device and the address is still one of its contacts. After a
    /// swap the letter would name the other device, and repeat what the former one said of itself.
    async fn addressed(&self, message: &MessageRow) -> crate::store::Result<Option<Rental>> {
        let mut conn = self.store.reader().await?;
        let (rental, now) = (rentals::find(&mut conn, message.rental).await?, clock::wall());
        let Some(rental) = rental.filter(|rental| is_addressed(rental, message, now)) else {
            return Ok(None);
        };
        let had_from = notices::rented(&mut conn, &rental, now).await?.had_from;
        Ok(Some(rental).filter(|_| had_from <= message.created_at))
    }

    /// Records the attempt. On a full disk this fails before anything is sent, so that nothing is sent again and again.
    async fn begin(&self, message: &MessageRow, now: Wall) -> crate::store::Result<()> {
        let mut tx = self.store.begin().await?;
        messages::begun(&mut tx, message.id, now + self.pace.longest_pause).await?;
        tx.commit().await
    }

    /// Returns what follows a failure.
    fn after(&self, message: &MessageRow, failure: &Failure) -> Outcome {
        let (pace, attempts) = (self.pace, message.attempts);
        let (what, pause) = match failure {
            Failure::Refused(_) => {
                ("refuses a message", doubled(pace.refused_pause, attempts, LONGEST_PAUSE))
            }
            Failure::Busy(_, pause) => ("is busy", (*pause).clamp(pace.first_pause, LONGEST_PAUSE)),
            Failure::Server(_) | Failure::Stopped => {
                ("takes no mail", doubled(pace.first_pause, attempts, pace.longest_pause))
            }
        };
        let is_over = clock::wall().since(message.created_at) >= pace.give_up;
        let outlook = if is_over { "it is given up" } else { "it is tried again" };
        let rental = IdKind::Rental.text(message.rental);
        tracing::warn!(%rental, attempts, "the mail server {what} to a contact of a rental: {outlook}");
        if is_over { Outcome::GivenUp } else { Outcome::Later(pause) }
    }

    async fn write(&self, message: &MessageRow, outcome: Outcome, now: Wall) -> crate::store::Result<()> {
        let mut tx = self.store.begin().await?;
        match outcome {
            Outcome::Sent => messages::sent(&mut tx, message.id, now).await?,
            Outcome::Later(pause) => messages::put_off(&mut tx, message.id, now + pause).await?,
            Outcome::GivenUp => messages::give_up(&mut tx, message.id, now).await?,
        }
        tx.commit().await
    }
}

fn letter(rental: &Rental, message: &MessageRow, zone: &TimeZone) -> Letter {
    let own = rental.time_zone.as_deref().and_then(|name| TimeZone::get(name).ok());
    let about = About {
        name: &rental.name,
        device_name: &rental.device_name,
        reference: rental.external_ref.as_deref(),
        ends_at: rental.life.ends_at(),
        zone: own.as_ref().unwrap_or(zone),
    };
    about.letter(message)
}

/// The outcome of a message.
enum Outcome {
    Sent,
    Later(Duration),
    GivenUp,
}

/// Whether the rental still goes on, and the address is still one of its contacts.
fn is_addressed(rental: &Rental, message: &MessageRow, now: Wall) -> bool {
    rental.sends_to_contacts(now) && rental.contacts.iter().any(|contact| contact.email == message.email)
}

//! Records the fate of a message in its row and in the log.

use std::time::Duration;

use fleetgate_engine::id::Id;
use fleetgate_engine::messages::Excerpt;
use fleetgate_engine::time::Wall;
use tokio_util::sync::CancellationToken;

use super::{Round, doubled};
use crate::clock;
use crate::engine::live_state::Change;
use crate::ids::IdKind;
use crate::store::SqliteConnection;
use crate::store::backlog::Dropped;
use crate::store::events::{self, NewEvent, SYSTEM};
use crate::store::outbox::{self, Channel, MessageRow};

impl Round {
    /// Records that the message was sent. Until that is on disk, this address gets no other message: a full
    /// disk would send the same one again and again.
    pub(super) async fn record_sent(&self, message: &MessageRow, stop: &CancellationToken) -> Result<(), ()> {
        let mut times = 0;
        while let Err(error) = self.try_record_sent(message).await {
            tracing::error!("message {} was sent, but that cannot be written: {error}", message.id);
            if stop.is_cancelled() {
                return Err(());
            }
            let pause = doubled(self.pace.first_pause, times, self.pace.longest_pause);
            times += 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    async fn try_record_sent(&self, message: &MessageRow) -> crate::store::Result<()> {
        let now = clock::wall();
        let mut tx = self.store.begin().await?;
        outbox::sent(&mut tx, message.id, now).await?;
        let seq = note(&mut tx, message, "message.sent", "", "", now).await?;
        tx.commit().await?;
        self.live.tell(Change::Event(seq));
        count("sent");
        Ok(())
    }

    pub(super) async fn record_failure(
        &self,
        message: &MessageRow,
        error: &str,
        pause: Duration,
    ) -> Result<(), ()> {
        // The other side chose the text.
        let error = &*Excerpt::of(error);
        count("failed");
        tracing::warn!(id = message.id, to = %message.address, "message not sent: {error}");
        let recorded = self.try_record_failure(message, error, pause).await;
        recorded.map_err(|error| tracing::error!("message {}: {error}", message.id))
    }

    /// The first failure, each different one, and the last are events; the row counts all.
    async fn try_record_failure(
        &self,
        message: &MessageRow,
        error: &str,
        pause: Duration,
    ) -> crate::store::Result<()> {
        let now = clock::wall();
        let over = now.since(message.created_at) >= self.pace.give_up;
        let mut tx = self.store.begin().await?;
        outbox::failed(&mut tx, message.id, error, now + pause).await?;
        let seq = if over {
            outbox::given_up(&mut tx, message.id, error, now).await?;
            Some(note(&mut tx, message, "message.given_up", " failed, given up", error, now).await?)
        } else if message.last_error.as_deref() != Some(error) {
            let outlook = " failed, it will be tried again";
            Some(note(&mut tx, message, "message.failed", outlook, error, now).await?)
        } else {
            None
        };
        tx.commit().await?;
        seq.into_iter().for_each(|seq| self.live.tell(Change::Event(seq)));
        Ok(())
    }
}

pub(super) async fn give_up_unreachable(
    tx: &mut SqliteConnection,
    message: &MessageRow,
    now: Wall,
) -> crate::store::Result<i64> {
    let why = format!("the contact {} is no longer reached at this address", message.contact_name);
    outbox::given_up(tx, message.id, &why, now).await?;
    note(tx, message, "message.given_up", " is not sent", &why, now).await
}

fn count(outcome: &'static str) {
    metrics::counter!("fleetgate_messages_total", "outcome" => outcome).increment(1);
}

/// Appends an event. A message about one host or service goes into its log.
async fn note(
    tx: &mut SqliteConnection,
    message: &MessageRow,
    kind: &str,
    outlook: &str,
    evidence: &str,
    now: Wall,
) -> crate::store::Result<i64> {
    let contents = outbox::contents(tx, message.id, 1, outbox::Order::Time).await?;
    let one = contents.notices.first().filter(|_| contents.total() == 1);
    let service = one.and_then(|n| n.service.as_deref());
    let about = one.map_or(events::NOBODY, |n| events::about(n.host, service.is_some()));
    let way = if message.channel == Channel::Email { "mail" } else { "webhook" };
    let cause = format!("{way} to {}{outlook}", message.address);
    let event = NewEvent {
        service,
        evidence: evidence.into(),
        data: serde_json::json!({
            "message": IdKind::Message.text(Id::from_i64(message.id)),
            "to": message.address.to_string(),
            "contact": message.contact_name,
            "notifications": contents.total(),
        }),
        ..NewEvent::new(now, kind, about, &cause, SYSTEM)
    };
    events::append(tx, &event).await
}

/// Records a notification that is dropped from a message.
pub(super) async fn note_dropped(
    tx: &mut SqliteConnection,
    dropped: &Dropped,
    now: Wall,
) -> crate::store::Result<i64> {
    let about = events::about(dropped.host, dropped.service.is_some());
    let event = NewEvent {
        service: dropped.service.as_deref(),
        data: serde_json::json!({
            "message": IdKind::Message.text(Id::from_i64(dropped.message)),
            "to": dropped.address.to_string(),
        }),
        ..NewEvent::new(now, "message.superseded", about, &dropped.why, SYSTEM)
    };
    events::append(tx, &event).await
}

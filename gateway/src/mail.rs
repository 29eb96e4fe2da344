//! Mail: from the outbox to an SMTP server, at least once.
//!
//! [`Postman`] puts messages in, a row per receiver, in the writer's transaction. One courier task
//! delivers them in order. A row is marked after the server took it; a crash between the two sends
//! it again under the same `Message-ID`. A server that is away holds up all, a message that is
//! refused only itself. Knows nothing of states; the wording stands in `letter.rs`.

mod courier;
mod letter;
#[cfg(test)]
mod sink;
mod transport;

use std::sync::Arc;

use crate::store::SqliteConnection;
use fleetgate_engine::time::Wall;
use fleetgate_engine::wire::Message;
use lettre::message::Mailbox;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::live::Live;
use crate::store::Store;
use crate::store::backlog::Dropped;
use crate::store::events::{self, NewEvent, Object, SYSTEM};
use crate::store::outbox;
use courier::{Courier, Pace};

/// Why a message is not sent where there is nobody to send it to.
const NOT_CONFIGURED: &str = "no [mail] section in fleetgate.toml: nobody was told";

/// Takes messages in. Cheap to clone.
#[derive(Clone)]
pub struct Postman(Arc<Rounds>);

struct Rounds {
    recipients: Vec<Mailbox>,
    wake: Notify,
}

/// Starts the courier.
///
/// # Errors
/// When the settings for TLS cannot be used.
pub fn start(
    tasks: &mut JoinSet<()>,
    config: &Config,
    store: Store,
    live: Live,
    stop: CancellationToken,
) -> anyhow::Result<Postman> {
    let recipients = config.mail.as_ref().map(|mail| mail.to.clone()).unwrap_or_default();
    let postman = Postman(Arc::new(Rounds { recipients, wake: Notify::new() }));
    match &config.mail {
        Some(mail) => {
            let url = config.public_url.as_ref().map(ToString::to_string);
            let courier = Courier::new(mail, url, store, live, postman.clone(), Pace::default())?;
            tasks.spawn(courier.run(stop));
        }
        None => drop(tasks.spawn(give_up_all(store))),
    }
    Ok(postman)
}

/// What waits from a time when mail was configured would only come out of date.
async fn give_up_all(store: Store) {
    if let Err(error) = try_give_up_all(&store, crate::clock::wall()).await {
        tracing::warn!("old messages stay in the outbox: {error}");
    }
}

async fn try_give_up_all(store: &Store, now: Wall) -> crate::store::Result<()> {
    let mut tx = store.begin().await?;
    for given_up in outbox::give_up_all(&mut tx, NOT_CONFIGURED, now).await? {
        note_dropped(&mut tx, "message.given_up", &given_up, now).await?;
    }
    tx.commit().await
}

/// Says in the log what is not sent any more.
async fn note_dropped(
    conn: &mut SqliteConnection,
    kind: &str,
    dropped: &Dropped,
    now: Wall,
) -> crate::store::Result<i64> {
    let object = if dropped.service.is_some() { Object::Service } else { Object::Host };
    let event = NewEvent {
        service: dropped.service.as_deref(),
        data: serde_json::json!({ "message": dropped.id, "to": dropped.recipient }),
        ..NewEvent::new(now, kind, (object, Some(dropped.host)), &dropped.why, SYSTEM)
    };
    events::append(conn, &event).await
}

impl Postman {
    /// A postman without a round, for a gateway without mail.
    pub fn nobody() -> Postman {
        Postman(Arc::new(Rounds { recipients: Vec::new(), wake: Notify::new() }))
    }

    /// Puts a message in for every receiver. Gives the number of the event that says why it will
    /// not be sent, where that is so.
    ///
    /// # Errors
    /// When the database refuses the write.
    pub async fn queue(
        &self,
        conn: &mut SqliteConnection,
        message: &Message,
        event: Option<i64>,
        now: Wall,
    ) -> crate::store::Result<Option<i64>> {
        if self.0.recipients.is_empty() {
            let id = outbox::insert(conn, message, "", event, now).await?;
            outbox::given_up(conn, id, NOT_CONFIGURED, now).await?;
            return refuse(conn, message, now).await.map(Some);
        }
        for recipient in &self.0.recipients {
            outbox::insert(conn, message, &recipient.to_string(), event, now).await?;
        }
        Ok(None)
    }

    /// Something was committed that may be due.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    async fn woken(&self) {
        self.0.wake.notified().await;
    }
}

async fn refuse(conn: &mut SqliteConnection, message: &Message, now: Wall) -> crate::store::Result<i64> {
    let object = if message.service.is_some() { Object::Service } else { Object::Host };
    let event = NewEvent {
        service: message.service.as_deref(),
        ..NewEvent::new(now, "message.not_sent", (object, Some(message.host)), NOT_CONFIGURED, SYSTEM)
    };
    events::append(conn, &event).await
}

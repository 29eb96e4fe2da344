//! Sends one message: reads its present content and passes it to its channel.

use fleetgate_engine::verdict::{Verdict, VerdictKind};
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use super::{Failure, Round};
use crate::clock;
use crate::notification::mail::render::{LISTED, Letter, MailContext};
use crate::notification::mail::smtp::Envelope;
use crate::notification::{routing, webhook};
use crate::store::outbox::{self, Channel, Contents, MessageRow, Order, OutboxKind};
use crate::store::{SqliteConnection, contacts, hosts, snapshot};
use crate::verdict;

impl Round {
    pub(super) async fn send(&self, message: &MessageRow, stop: &CancellationToken) -> Result<(), Failure> {
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(self.pace.farewell).await;
        };
        tokio::select! {
            ended = self.hand_over(message) => ended,
            () = stopped => Err(Failure::Stopped),
        }
    }

    async fn hand_over(&self, message: &MessageRow) -> Result<(), Failure> {
        let unread = |e: crate::store::Error| Failure::Server(format!("the database cannot be read: {e}"));
        let mut conn = self.store.reader().await.map_err(unread)?;
        let (limit, order) = match message.channel {
            Channel::Email => (LISTED, Order::Severity),
            Channel::Webhook => (webhook::LISTED, Order::Time),
        };
        let contents = outbox::contents(&mut conn, message.id, limit, order).await.map_err(unread)?;
        match message.channel {
            Channel::Email => {
                let thread = self.thread(&mut conn, message).await.map_err(unread)?;
                let verdict = self.verdict(&mut conn, &contents).await;
                let zone = routing::zone_of(&mut conn, message.contact).await.map_err(unread)?;
                drop(conn);
                self.mail(message, &contents, verdict.as_ref(), &thread, zone.as_ref()).await
            }
            Channel::Webhook => {
                let contact = contacts::find(&mut conn, message.contact).await;
                drop(conn);
                let secret = contact.map_err(anyhow::Error::from);
                let secret = secret.and_then(|contact| webhook::secret(&self.store, contact));
                let secret = secret.map_err(|e| Failure::Refused(format!("{e:#}")))?;
                self.hooks.post(message, &contents, self.public_url.as_deref(), &secret).await
            }
        }
    }

    async fn thread(
        &self,
        conn: &mut SqliteConnection,
        message: &MessageRow,
    ) -> crate::store::Result<Vec<i64>> {
        if message.kind == OutboxKind::Notices { outbox::thread(conn, message).await } else { Ok(Vec::new()) }
    }

    /// Returns the verdict on a host that the message reports as down and that still is. If it cannot be
    /// read, the mail is sent without it.
    async fn verdict(&self, conn: &mut SqliteConnection, contents: &Contents) -> Option<Verdict> {
        let one = contents.notices.first().filter(|_| contents.total() == 1)?;
        if !one.problem || one.service.is_some() {
            return None;
        }
        let found = async {
            let Some(row) = hosts::by_id(conn, one.host).await? else { return anyhow::Ok(None) };
            let Some(spec) = snapshot::host_spec(conn, one.host, &self.timing).await? else {
                return Ok(None);
            };
            Ok(verdict::of(conn, &self.live, &row, &spec, clock::wall()).await?)
        };
        let found = found.await.inspect_err(|e| tracing::warn!("a mail goes without its verdict: {e:#}"));
        found.ok().flatten().filter(|v| !matches!(v.kind, VerdictKind::Ok | VerdictKind::Pending))
    }

    async fn mail(
        &self,
        message: &MessageRow,
        contents: &Contents,
        verdict: Option<&Verdict>,
        thread: &[i64],
        zone: Option<&TimeZone>,
    ) -> Result<(), Failure> {
        let Some(smtp) = &self.smtp else {
            return Err(Failure::Refused("no [mail] section in fleetgate.toml".to_owned()));
        };
        let installation = self.store.installation().await;
        let installation = installation.map_err(|e| Failure::Server(e.to_string()))?;
        let values = self.recent_values(message, contents).await;
        let place = MailContext { zone: zone.unwrap_or(&self.zone), public_url: self.public_url.as_deref() };
        let letter = Letter::write(message, contents, verdict, values.as_ref(), &place);
        let incidents: Vec<_> = contents.incidents.iter().map(|c| c.incident.id).collect();
        let envelope = Envelope {
            to: message.address.reveal(),
            at: message.created_at,
            number: message.id,
            answers: thread,
            incidents: &incidents,
            installation: &installation,
        };
        smtp.send(&envelope, letter).await
    }
}

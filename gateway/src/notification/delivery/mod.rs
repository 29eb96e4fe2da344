//! Delivers the outbox, at least once, to each address independently.
//!
//! A row is marked after the other side has accepted the message. A crash between the two steps sends
//! it again under the same id. A failing message delays only its host for its address. A failing server
//! delays each address that failed because of it (`backoff.rs`), and no other. Which of the two has
//! failed shows when the next message is accepted.

mod backoff;
mod hand_over;
mod recent_values;
mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fleetgate_engine::time::Mono;
use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio::task::{Id as TaskId, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Settings, Wakeups};
use crate::clock;
use crate::engine::live_state::{Change, LiveState};
use crate::health::progress::Component;
use crate::history::Recorder;
use crate::notification::delivery::backoff::{AddressBackoff, Line};
use crate::notification::delivery::record::{give_up_unreachable, note_dropped};
use crate::notification::mail::smtp::Smtp;
use crate::notification::webhook;
use crate::store::TimingDefaults;
use crate::store::outbox::{self, MessageRow, withdrawn};
use crate::store::{Store, backlog};

/// Failures after which the message itself may be the cause, so that another one is tried.
const DOUBTED: u32 = 3;
/// Deliveries to one address run this long before the queue is read again: a new message must not wait
/// for hundreds that are refused slowly.
const TURN: Duration = Duration::from_secs(10);
/// Characters kept of an error: a server's reply may be a page.
const MAX_ERROR: usize = 500;

/// Time limits and pauses of the delivery.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryTiming {
    /// Time limit of a whole dialogue with a mail server; one under load takes half a minute.
    pub patience: Duration,
    /// Time limit of a webhook's response: a program that needs longer should defer its work.
    pub hook_patience: Duration,
    /// Pause after the first failure of a server. It doubles with each failure, up to `longest_pause`.
    pub first_pause: Duration,
    /// Longest time until a recovered server is used again.
    pub longest_pause: Duration,
    /// Pause after a message was refused. It doubles with each attempt, up to an hour.
    pub refused_pause: Duration,
    /// Age at which a message is given up. Mail servers retry for as long among themselves.
    pub give_up: Duration,
    /// Time that a delivery in progress gets at a stop.
    pub farewell: Duration,
}

impl Default for DeliveryTiming {
    fn default() -> Self {
        DeliveryTiming {
            patience: Duration::from_secs(60),
            hook_patience: Duration::from_secs(10),
            first_pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(300),
            refused_pause: Duration::from_secs(60),
            give_up: Duration::from_secs(5 * 86_400),
            farewell: Duration::from_secs(4),
        }
    }
}

/// The reason why a message was not delivered.
#[derive(Debug)]
pub enum Failure {
    /// The server is unreachable or accepts nothing from us: the next message would fail too.
    Server(String),
    /// The server accepts nothing for the time that it states.
    Busy(String, Duration),
    /// The server refuses this message.
    Refused(String),
    /// The gateway stops.
    Stopped,
}

impl Failure {
    /// Shortens an error for storage: one line of limited length.
    pub fn shorten(text: &str) -> String {
        text.chars().take(MAX_ERROR).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

pub(in crate::notification) struct DeliveryWorker {
    settings: watch::Receiver<Settings>,
    wakeups: Wakeups,
    round: Arc<Round>,
}

/// The resources of a delivery, replaced as a whole when the settings change.
struct Round {
    store: Store,
    history: Recorder,
    live: LiveState,
    smtp: Option<Smtp>,
    hooks: webhook::Client,
    zone: TimeZone,
    public_url: Option<String>,
    /// The addresses of the built-in contact; `None` when they are unknown.
    built_in: Option<Vec<String>>,
    timing: TimingDefaults,
    pace: DeliveryTiming,
}

/// The deliveries in progress, and their addresses.
#[derive(Default)]
struct Rounds {
    tasks: JoinSet<Served>,
    lines: HashMap<TaskId, Line>,
    traffic: AddressBackoff,
}

/// The result for one address.
struct Served {
    line: Line,
    failed: bool,
    /// The pause that its server requested.
    pause: Option<Duration>,
    sent: bool,
    next: Option<Mono>,
}

/// A server or the database failed: retry later, after the pause that the server stated, if any.
struct Later(Option<Duration>);

impl DeliveryWorker {
    /// # Errors
    /// Fails when the settings for TLS cannot be used.
    pub fn new(
        mut settings: watch::Receiver<Settings>,
        (store, history): (Store, Recorder),
        live: LiveState,
        wakeups: Wakeups,
        pace: DeliveryTiming,
    ) -> anyhow::Result<DeliveryWorker> {
        let now = settings.borrow_and_update().clone();
        let round = Round {
            hooks: webhook::Client::new(pace.hook_patience, &now.outbound)?,
            smtp: smtp(&now, pace)?,
            built_in: built_in(&now),
            store,
            history,
            live,
            zone: TimeZone::system(),
            public_url: now.public_url,
            timing: now.timing,
            pace,
        };
        Ok(DeliveryWorker { settings, wakeups, round: Arc::new(round) })
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut rounds = Rounds::default();
        while !stop.is_cancelled() {
            let wait = self.dispatch(&mut rounds, &stop).await;
            tokio::select! {
                Some(ended) = rounds.tasks.join_next_with_id() => self.round.welcome(&mut rounds, ended),
                () = tokio::time::sleep(wait) => {}
                () = self.wakeups.0.delivery.notified() => rounds.traffic.look_again(),
                changed = self.settings.changed() => match changed {
                    Ok(()) => self.reconfigure(&mut rounds.traffic),
                    Err(_) => stop.cancelled().await,
                },
                () = stop.cancelled() => {}
            }
        }
        while rounds.tasks.join_next().await.is_some() {}
    }

    fn reconfigure(&mut self, traffic: &mut AddressBackoff) {
        let now = self.settings.borrow_and_update().clone();
        let old = &self.round;
        match smtp(&now, old.pace) {
            Ok(smtp) => {
                self.round = Arc::new(Round {
                    store: old.store.clone(),
                    history: old.history.clone(),
                    live: old.live.clone(),
                    smtp,
                    hooks: old.hooks.clone(),
                    zone: old.zone.clone(),
                    built_in: built_in(&now),
                    public_url: now.public_url,
                    timing: now.timing,
                    pace: old.pace,
                });
                traffic.forgive();
            }
            Err(error) => tracing::error!("mail goes on as before: {error:#}"),
        }
    }

    /// Starts the deliveries that may start. Returns the time until the next is due.
    async fn dispatch(&self, rounds: &mut Rounds, stop: &CancellationToken) -> Duration {
        let pace = self.round.pace;
        let lines = async {
            self.round.withdraw().await?;
            self.round.collapse(rounds.traffic.busy()).await?;
            self.round.store.waiting_addresses().await
        };
        let lines = match lines.await {
            Ok(lines) => rounds.traffic.in_order(lines),
            Err(error) => {
                tracing::warn!("messages wait for the database: {error}");
                return pace.first_pause;
            }
        };
        self.round.live.pulse().beat(Component::Outbox);
        let now = clock::now().mono;
        let mut wait = pace.longest_pause;
        for line in lines {
            if !rounds.traffic.may_start(&line) {
                continue;
            }
            let not_before = rounds.traffic.not_before(&line);
            if not_before > now {
                wait = wait.min(not_before.since(now));
                continue;
            }
            let task = rounds.tasks.spawn(self.round.clone().serve(line.clone(), stop.clone()));
            rounds.traffic.begin(line.clone());
            rounds.lines.insert(task.id(), line);
        }
        wait
    }
}

impl Round {
    fn welcome(&self, rounds: &mut Rounds, ended: Result<(TaskId, Served), JoinError>) {
        let (task, served) = match ended {
            Ok((task, served)) => (task, Some(served)),
            Err(error) => {
                tracing::error!("a delivery has ended: {error}");
                (error.id(), None)
            }
        };
        let Some(line) = rounds.lines.remove(&task) else { return };
        let (traffic, now) = (&mut rounds.traffic, clock::now().mono);
        traffic.end(&line);
        let served = served.unwrap_or(Served::failed(line));
        if served.sent {
            traffic.sent(&served.line, now);
        }
        if served.failed {
            let (first, longest) = (self.pace.first_pause, self.pace.longest_pause);
            let pause = |times| served.pause.unwrap_or_else(|| doubled(first, times, longest));
            traffic.failed(served.line, now, pause);
        } else {
            traffic.idle_until(served.line, served.next.unwrap_or(now + self.pace.longest_pause));
        }
    }

    /// Delivers the messages that are due to one address.
    async fn serve(self: Arc<Self>, line: Line, stop: CancellationToken) -> Served {
        let mut served = Served { failed: false, ..Served::failed(line) };
        while !stop.is_cancelled() && !served.failed {
            let now = clock::now();
            let due = self.store.due_messages(served.line.0, &served.line.1, now.wall).await;
            let Ok(due) = due.map_err(|e| tracing::warn!("the outbox cannot be read: {e}")) else {
                served.failed = true;
                break;
            };
            served.next = due.next.map(|at| now.mono + at.since(now.wall));
            if due.messages.is_empty() {
                break;
            }
            self.deliver_in_turn(due.messages, &mut served, &stop).await;
        }
        served
    }

    /// Delivers until the server fails, or until the queue is to be read again. A message that fails
    /// repeatedly is put aside if the server accepts another one, before or after it. The other one is the
    /// message with the fewest attempts: otherwise two failing messages could block all the rest.
    async fn deliver_in_turn(&self, due: Vec<MessageRow>, served: &mut Served, stop: &CancellationToken) {
        let (mut doubted, mut taken): (Option<MessageRow>, bool) = (None, false);
        let until = clock::now().mono + TURN;
        let mut rest = due.into_iter();
        while let Some(message) = rest.next() {
            match self.deliver(&message, stop).await {
                Ok(sent) => {
                    (taken, served.sent) = (taken || sent, served.sent || sent);
                    if let Some(aside) = doubted.take_if(|_| sent) {
                        (served.failed, served.pause) = (self.put_aside(&aside).await.is_err(), None);
                    }
                    if doubted.is_none() && clock::now().mono >= until {
                        return;
                    }
                }
                Err(Later(None)) if message.attempts >= DOUBTED && !stop.is_cancelled() => {
                    if taken {
                        served.failed = self.put_aside(&message).await.is_err();
                    } else if doubted.is_none() {
                        served.failed = true;
                        doubted = Some(message);
                        rest.as_mut_slice().sort_by_key(|message| message.attempts);
                    } else {
                        return;
                    }
                }
                Err(Later(pause)) => {
                    (served.failed, served.pause) = (true, pause);
                    return;
                }
            }
        }
    }

    /// Postpones a message. Later messages go on, except those about the same hosts.
    async fn put_aside(&self, message: &MessageRow) -> Result<(), ()> {
        let put = async {
            let mut tx = self.store.begin().await?;
            outbox::put_off(&mut tx, message.id, clock::wall() + self.pace.longest_pause).await?;
            tx.commit().await
        };
        let put: crate::store::Result<()> = put.await;
        put.map_err(|error| tracing::warn!("message {} stays in the way: {error}", message.id))
    }

    /// Delivers one message. Returns whether it was sent.
    async fn deliver(&self, message: &MessageRow, stop: &CancellationToken) -> Result<bool, Later> {
        let pace = self.pace;
        if !self.begin(message).await.map_err(|()| Later(None))? {
            return Ok(false);
        }
        let again = |()| Later(None);
        match self.send(message, stop).await {
            Ok(()) => self.record_sent(message, stop).await.map(|()| true).map_err(again),
            Err(Failure::Refused(error)) => {
                let pause = doubled(pace.refused_pause, message.attempts, outbox::LONGEST_PAUSE);
                self.record_failure(message, &error, pause).await.map(|()| false).map_err(again)
            }
            Err(Failure::Server(error)) => {
                // The address waits, not the message: it goes first as soon as the address is usable.
                let _ = self.record_failure(message, &error, Duration::ZERO).await;
                Err(Later(None))
            }
            Err(Failure::Busy(error, pause)) => {
                let pause = pause.clamp(pace.first_pause, outbox::LONGEST_PAUSE);
                let _ = self.record_failure(message, &error, pause).await;
                Err(Later(Some(pause)))
            }
            Err(Failure::Stopped) => Err(Later(None)),
        }
    }

    /// Records the attempt, and returns whether the message is still due. It is written before anything is
    /// sent, so that after a kill the log cannot claim that no contact was notified.
    async fn begin(&self, message: &MessageRow) -> Result<bool, ()> {
        let begun = self.try_begin(message).await;
        begun.map_err(|error| tracing::warn!("message {} waits for the database: {error}", message.id))
    }

    async fn try_begin(&self, message: &MessageRow) -> crate::store::Result<bool> {
        let now = clock::wall();
        let mut tx = self.store.begin().await?;
        let mut events = Vec::new();
        let unreachable = withdrawn::is_unreachable(&mut tx, message.id, self.built_in.as_deref()).await?;
        if unreachable {
            events.push(give_up_unreachable(&mut tx, message, now).await?);
        } else {
            for dropped in withdrawn::drop_gone(&mut tx, &[message.id], now).await? {
                events.push(note_dropped(&mut tx, &dropped, now).await?);
            }
        }
        let goes = !unreachable && !outbox::is_superseded(&mut tx, message.id).await?;
        if goes {
            outbox::begun(&mut tx, message.id).await?;
        }
        tx.commit().await?;
        events.into_iter().for_each(|seq| self.live.tell(Change::Event(seq)));
        Ok(goes)
    }

    /// Withdraws messages whose contact or host is gone, without waiting for their next attempt.
    async fn withdraw(&self) -> crate::store::Result<()> {
        let (now, mut conn) = (clock::wall(), self.store.reader().await?);
        let unreachable = withdrawn::unreachable(&mut conn, self.built_in.as_deref()).await?;
        let about_gone = withdrawn::about_gone(&mut conn).await?;
        drop(conn);
        if unreachable.is_empty() && about_gone.is_empty() {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let mut last = None;
        for message in &unreachable {
            last = Some(give_up_unreachable(&mut tx, message, now).await?);
        }
        for dropped in withdrawn::drop_gone(&mut tx, &about_gone, now).await? {
            last = Some(note_dropped(&mut tx, &dropped, now).await?);
        }
        tx.commit().await?;
        last.into_iter().for_each(|seq| self.live.tell(Change::Event(seq)));
        Ok(())
    }

    /// Reduces the queue to the final states after an outage.
    async fn collapse(&self, busy: &[Line]) -> crate::store::Result<()> {
        let now = clock::wall();
        if !backlog::is_held_up(&mut *self.store.reader().await?, now - backlog::HELD_UP).await? {
            return Ok(());
        }
        let mut tx = self.store.begin().await?;
        let mut last = None;
        for dropped in backlog::collapse(&mut tx, busy, now).await? {
            last = Some(note_dropped(&mut tx, &dropped, now).await?);
        }
        tx.commit().await?;
        last.into_iter().for_each(|seq| self.live.tell(Change::Event(seq)));
        Ok(())
    }
}

impl Served {
    fn failed(line: Line) -> Served {
        Served { line, failed: true, pause: None, sent: false, next: None }
    }
}

/// Returns `first` after the first failure, twice that after the second, and so on, less up to a fifth.
/// Never more than `longest`: the outbox would take such a time for one from before the clock went
/// back.
pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    // A gateway that comes back must not contact all its servers at the same moments.
    let jitter =
        0.8 + f64::from(rand_core::RngCore::next_u32(&mut rand_core::OsRng)) / f64::from(u32::MAX) * 0.2;
    (first * 2u32.saturating_pow(times.min(16))).min(longest).mul_f64(jitter)
}

fn built_in(settings: &Settings) -> Option<Vec<String>> {
    settings.mail.as_ref().map(|mail| mail.to.iter().map(ToString::to_string).collect())
}

fn smtp(settings: &Settings, pace: DeliveryTiming) -> anyhow::Result<Option<Smtp>> {
    settings.mail.as_ref().map(|mail| Smtp::new(mail, pace.patience)).transpose()
}

#[cfg(test)]
mod tests;

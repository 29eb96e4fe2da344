//! Callers that wait until an input of the monitor is on disk.
//!
//! A ticket goes in with the input, comes out with its effects, and is settled by the writer after the
//! commit. For a result, its content identifies the ticket: the same result again joins it while it
//! waits, even if its first sender has given up. It makes no other decisions.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{Digest, Outcome, ServiceState, Ticket};
use fleetgate_engine::time::Mono;
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// Time limit of one caller. A commit takes milliseconds, on a slow card a second. After this,
/// something blocks the database, and the caller learns that its input is not on disk yet.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Results that wait for their commit, some 200 bytes each. While the database refuses writes, no more
/// are admitted. A full fleet sends fewer in the second until that is known.
const MAX_WAITING: usize = 65_536;
/// Results that were committed after their sender learned that they were not on disk yet.
const MAX_UNHEARD: usize = 4_096;
/// Time within which a repetition counts as one of those results. A refused sender retries within it.
const UNHEARD: Duration = Duration::from_secs(60);

/// Identifies a result without a timestamp or key: its sender, its host or service, and its content.
pub type Content = Digest;

/// A service whose committed state the caller wants to see.
pub type Shown = (HostId, String);

/// The fate of a ticket's input.
#[derive(Clone, Debug)]
pub struct Settled {
    pub outcome: Outcome,
    /// The state that was committed with it. `None` when no caller wants it, or when nothing was committed.
    pub state: Option<Arc<ServiceState>>,
}

#[derive(Default)]
pub struct CommitWaits(Mutex<Book>);

#[derive(Default)]
struct Book {
    last: u64,
    waiting: HashMap<Ticket, Entry>,
    /// The tickets in `waiting` that can be joined.
    contents: HashMap<Content, Ticket>,
    /// Outcomes of results whose senders do not know them, the oldest first.
    unheard: VecDeque<(Mono, Content, Outcome)>,
}

#[derive(Default)]
struct Entry {
    waiters: Vec<oneshot::Sender<Settled>>,
    content: Option<Content>,
    shown: Option<Shown>,
}

/// How a result is admitted.
pub enum Admission<'a> {
    /// The caller sends the input at once: the same result may join it from now on.
    New(Ticket, Waiter<'a>),
    Found(Duplicate<'a>),
    /// Too many results wait.
    Full,
}

/// The same result was sent before.
pub enum Duplicate<'a> {
    /// It waits for its commit.
    Joined(Waiter<'a>),
    /// It was committed, but no sender learned of it.
    Known(Outcome),
}

impl CommitWaits {
    /// Returns a new ticket and its waiter.
    pub fn draw(&self) -> (Ticket, Waiter<'_>) {
        let mut book = self.lock();
        let (ticket, receiver) = book.issue(Entry::default());
        (ticket, self.waiter(ticket, receiver))
    }

    /// Finds the same content if it waits, or if it was committed just now and its sender does not know.
    pub fn find(&self, content: Content, now: Mono) -> Option<Duplicate<'_>> {
        self.found(&mut self.lock(), content, now)
    }

    fn found(&self, book: &mut Book, content: Content, now: Mono) -> Option<Duplicate<'_>> {
        if let Some(outcome) = book.hear(content, now) {
            return Some(Duplicate::Known(outcome));
        }
        let ticket = *book.contents.get(&content)?;
        let (sender, receiver) = oneshot::channel();
        book.waiting.get_mut(&ticket)?.waiters.push(sender);
        Some(Duplicate::Joined(self.waiter(ticket, receiver)))
    }

    /// Admits a result: with a new ticket, unless the same result waits.
    pub fn admit(&self, content: Option<Content>, shown: Option<Shown>, now: Mono) -> Admission<'_> {
        let mut book = self.lock();
        if let Some(found) = content.and_then(|content| self.found(&mut book, content, now)) {
            return Admission::Found(found);
        }
        if book.waiting.len() >= MAX_WAITING {
            return Admission::Full;
        }
        let (ticket, receiver) = book.issue(Entry { content, shown, ..Entry::default() });
        Admission::New(ticket, self.waiter(ticket, receiver))
    }

    /// Settles a ticket whose input is on disk. `state_of` returns the state that was written with it.
    pub fn settle<'a>(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        now: Mono,
        state_of: impl FnOnce(&Shown) -> Option<&'a Arc<ServiceState>>,
    ) {
        let mut book = self.lock();
        let Some(entry) = book.waiting.remove(&ticket) else { return };
        if let Some(content) = &entry.content {
            book.contents.remove(content);
        }
        let shown = entry.shown.as_ref().filter(|_| outcome == Outcome::Done);
        let state = shown.and_then(state_of).cloned();
        let told = |waiter: oneshot::Sender<Settled>| waiter.send(Settled { outcome, state: state.clone() });
        let heard = entry.waiters.into_iter().map(told).filter(Result::is_ok).count();
        if let (0, Some(content)) = (heard, entry.content) {
            book.unheard.push_back((now, content, outcome));
            if book.unheard.len() > MAX_UNHEARD {
                book.unheard.pop_front();
            }
        }
    }

    /// Returns the number of callers that wait for a commit.
    #[cfg(test)]
    pub fn waiters(&self) -> usize {
        self.lock().waiting.values().map(|entry| entry.waiters.len()).sum()
    }

    fn waiter(&self, ticket: Ticket, receiver: oneshot::Receiver<Settled>) -> Waiter<'_> {
        Waiter { tickets: self, ticket, receiver }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.0.lock().expect("no holder panics")
    }
}

impl Book {
    fn issue(&mut self, mut entry: Entry) -> (Ticket, oneshot::Receiver<Settled>) {
        let ticket = Ticket(self.last);
        self.last += 1;
        let (sender, receiver) = oneshot::channel();
        entry.waiters.push(sender);
        self.contents.extend(entry.content.map(|content| (content, ticket)));
        self.waiting.insert(ticket, entry);
        (ticket, receiver)
    }

    /// Takes the outcome of a result that its sender does not know; it is returned once.
    fn hear(&mut self, content: Content, now: Mono) -> Option<Outcome> {
        self.unheard.retain(|(at, ..)| *at + UNHEARD > now);
        let at = self.unheard.iter().position(|(_, known, _)| *known == content)?;
        self.unheard.remove(at).map(|(.., outcome)| outcome)
    }

    /// Drops the waiter. Only a result outlives its waiters.
    fn leave(&mut self, ticket: Ticket) {
        if self.waiting.get(&ticket).is_some_and(|entry| entry.content.is_none()) {
            self.waiting.remove(&ticket);
        } else if let Some(entry) = self.waiting.get_mut(&ticket) {
            entry.waiters.retain(|waiter| !waiter.is_closed());
        }
    }
}

pub struct Waiter<'a> {
    tickets: &'a CommitWaits,
    ticket: Ticket,
    receiver: oneshot::Receiver<Settled>,
}

/// Returns the time limit of one caller for all its inputs.
pub fn patience() -> Sleep {
    tokio::time::sleep(PATIENCE)
}

impl Waiter<'_> {
    /// `None` when it is not on disk in time; it may be later.
    pub async fn outcome(self) -> Option<Outcome> {
        self.settled(std::pin::pin!(patience())).await.map(|settled| settled.outcome)
    }

    /// The same for one of several inputs with a common time limit.
    pub async fn settled(mut self, patience: Pin<&mut Sleep>) -> Option<Settled> {
        tokio::select! {
            biased;
            settled = &mut self.receiver => settled.ok(),
            () = patience => None,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        self.tickets.lock().leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_probes::sample::Status;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::store::fixture;

    const CONTENT: Content = Digest([7; 12]);

    fn at(secs: u64) -> Mono {
        Mono::from_secs(secs)
    }

    fn new(tickets: &CommitWaits) -> (Ticket, Waiter<'_>) {
        match tickets.admit(Some(CONTENT), None, at(0)) {
            Admission::New(ticket, waiter) => (ticket, waiter),
            _ => panic!("nothing like it waits"),
        }
    }

    fn joined(tickets: &CommitWaits) -> Waiter<'_> {
        match tickets.admit(Some(CONTENT), None, at(0)) {
            Admission::Found(Duplicate::Joined(waiter)) => waiter,
            _ => panic!("the same one waits"),
        }
    }

    #[tokio::test]
    async fn a_ticket_is_settled_once_and_leaves_nothing_behind() {
        let tickets = CommitWaits::default();
        let (ticket, waiter) = tickets.draw();
        let (_, gone) = tickets.draw();
        drop(gone);
        tickets.settle(ticket, Outcome::Older, at(0), |_| None);
        tickets.settle(ticket, Outcome::Done, at(0), |_| None);
        assert_eq!(waiter.outcome().await, Some(Outcome::Older));
        assert!(tickets.lock().waiting.is_empty() && tickets.lock().unheard.is_empty());
    }

    #[tokio::test]
    async fn the_same_result_joins_the_one_that_waits_whoever_has_left() {
        let tickets = CommitWaits::default();
        let (ticket, first) = new(&tickets);
        drop(first);
        let (second, third) = (joined(&tickets), joined(&tickets));
        drop(second);
        tickets.settle(ticket, Outcome::Done, at(1), |_| None);
        assert_eq!(third.outcome().await, Some(Outcome::Done));
        let (_, waiter) = new(&tickets);
        drop(waiter);
        assert!(tickets.lock().unheard.is_empty(), "somebody was told of the first one");
    }

    #[tokio::test]
    async fn whoever_asked_for_the_state_gets_it_as_it_was_committed() {
        let tickets = CommitWaits::default();
        let host = HostId::from_i64(7);
        let state = Arc::new(fixture::service("disk", Status::Critical));
        let shown = |tickets: &CommitWaits, outcome| {
            let Admission::New(ticket, waiter) = tickets.admit(None, Some((host, "disk".into())), at(0))
            else {
                panic!("there is room")
            };
            tickets.settle(ticket, outcome, at(0), |(of, name)| {
                (*of == host && name == "disk").then_some(&state)
            });
            waiter.settled(std::pin::pin!(patience())).now_or_never().flatten().unwrap()
        };
        assert_eq!(shown(&tickets, Outcome::Done).state.as_ref(), Some(&state));
        assert_eq!(shown(&tickets, Outcome::Older).state, None, "nothing of it was committed");
    }

    #[test]
    fn what_was_committed_unheard_is_said_once_and_not_for_ever() {
        let tickets = CommitWaits::default();
        let lost = |tickets: &CommitWaits| {
            let (ticket, waiter) = new(tickets);
            drop(waiter);
            tickets.settle(ticket, Outcome::Done, at(0), |_| None);
        };
        lost(&tickets);
        let said = tickets.admit(Some(CONTENT), None, at(30));
        assert!(matches!(said, Admission::Found(Duplicate::Known(Outcome::Done))));
        assert!(matches!(tickets.admit(Some(CONTENT), None, at(30)), Admission::New(..)));
        let tickets = CommitWaits::default();
        lost(&tickets);
        assert!(matches!(tickets.admit(Some(CONTENT), None, at(61)), Admission::New(..)));
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let tickets = CommitWaits::default();
        for n in 0..MAX_WAITING {
            let mut content = [0; 12];
            content[..8].copy_from_slice(&(n as u64).to_be_bytes());
            assert!(matches!(tickets.admit(Some(Digest(content)), None, at(0)), Admission::New(..)));
        }
        assert!(matches!(tickets.admit(Some(CONTENT), None, at(0)), Admission::Full));
    }
}

//! Who waits until something that the monitor was given is on disk.
//!
//! A ticket goes in with the input, comes out with what that causes, and is settled by the writer
//! after the commit. A waiter that goes away leaves nothing behind. Decides nothing.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleetgate_engine::wire::{Outcome, Ticket};
use tokio::sync::oneshot;

/// A commit takes milliseconds; after this the disk takes nothing.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Tickets {
    last: AtomicU64,
    waiting: Mutex<HashMap<Ticket, oneshot::Sender<Outcome>>>,
}

impl Tickets {
    /// A new ticket, and what waits for it.
    pub fn draw(&self) -> (Ticket, Waiter<'_>) {
        let ticket = Ticket(self.last.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(ticket, sender);
        (ticket, Waiter { tickets: self, ticket, receiver })
    }

    /// What the ticket stands for is on disk.
    pub fn settle(&self, ticket: Ticket, outcome: Outcome) {
        if let Some(waiter) = self.lock().remove(&ticket) {
            // Whoever waited may have gone.
            let _ = waiter.send(outcome);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Ticket, oneshot::Sender<Outcome>>> {
        self.waiting.lock().expect("no holder panics")
    }
}

pub struct Waiter<'a> {
    tickets: &'a Tickets,
    ticket: Ticket,
    receiver: oneshot::Receiver<Outcome>,
}

impl Waiter<'_> {
    /// `None`: it is not on disk in good time; it may be later.
    pub async fn outcome(mut self) -> Option<Outcome> {
        tokio::time::timeout(PATIENCE, &mut self.receiver).await.ok()?.ok()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.tickets.lock().remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_ticket_is_settled_once_and_leaves_nothing_behind() {
        let tickets = Tickets::default();
        let (ticket, waiter) = tickets.draw();
        let (_, gone) = tickets.draw();
        drop(gone);
        tickets.settle(ticket, Outcome::Older);
        tickets.settle(ticket, Outcome::Done);
        assert_eq!(waiter.outcome().await, Some(Outcome::Older));
        assert!(tickets.lock().is_empty());
    }
}

//! Passive results on their way to the monitor: each is offered once, and its caller waits for the commit.
//!
//! A result takes effect only while the database accepts writes. `commit_wait.rs` recognises repetitions.
//! This file knows neither hosts nor services.

use std::pin::{Pin, pin};

use fleetgate_engine::messages::{MonitorInput, Outcome, PassiveResult, Ticket};
use tokio::time::Sleep;

use super::Handle;
use crate::engine::commit_wait;
use crate::engine::commit_wait::{Admission, Content, Duplicate, Settled, Shown, Waiter};
use crate::store::{Refusal, Trouble};

/// A result that was offered to the monitor.
pub enum Offered<'a> {
    Waits(Waiter<'a>),
    /// The same result was committed before.
    Known(Outcome),
}

impl<'a> From<Duplicate<'a>> for Offered<'a> {
    fn from(found: Duplicate<'a>) -> Self {
        match found {
            Duplicate::Joined(waiter) => Offered::Waits(waiter),
            Duplicate::Known(outcome) => Offered::Known(outcome),
        }
    }
}

impl Offered<'_> {
    /// # Errors
    /// Fails when it is not on disk in time.
    pub async fn settled(self, patience: Pin<&mut Sleep>) -> Result<Settled, NotTaken> {
        match self {
            Offered::Waits(waiter) => waiter.settled(patience).await.ok_or(NotTaken::NotYet),
            Offered::Known(outcome) => Ok(Settled { outcome, state: None }),
        }
    }
}

/// The reason why a result has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The database refuses writes: nothing changed.
    Refused(Refusal),
    /// It counts, but is not on disk in time. A repetition joins it.
    NotYet,
}

impl Handle {
    /// Submits a passive result. If the same `content` waits for its commit, the caller joins it. Any other
    /// takes effect only when the database accepts writes.
    ///
    /// # Errors
    /// [`NotTaken`] states whether it may still be accepted.
    pub async fn submit(
        &self,
        content: Option<Content>,
        make: impl FnOnce(Ticket) -> PassiveResult,
    ) -> Result<Outcome, NotTaken> {
        self.submit_shown((content, None), make).await.map(|settled| settled.outcome)
    }

    /// The same for a caller that wants the state of `shown` as it was committed.
    ///
    /// # Errors
    /// As [`Handle::submit`].
    pub async fn submit_shown(
        &self,
        (content, shown): (Option<Content>, Option<Shown>),
        make: impl FnOnce(Ticket) -> PassiveResult,
    ) -> Result<Settled, NotTaken> {
        let (tickets, now) = (self.0.live.tickets(), crate::clock::now().mono);
        let offered = match content.and_then(|content| tickets.find(content, now)) {
            Some(found) => found.into(),
            None => {
                self.check_writable().await?;
                self.offer((content, shown), make).await?
            }
        };
        offered.settled(pin!(commit_wait::patience())).await
    }

    /// Checks whether the database accepts writes now.
    ///
    /// # Errors
    /// Returns the reason of the refusal.
    pub async fn check_writable(&self) -> Result<(), NotTaken> {
        self.0.store.check_writable().await.map_err(NotTaken::Refused)
    }

    /// Offers a result to the monitor without waiting for its commit. The caller has checked that the
    /// database accepts writes ([`Handle::check_writable`]).
    ///
    /// # Errors
    /// Fails when too many results wait.
    pub async fn offer(
        &self,
        (content, shown): (Option<Content>, Option<Shown>),
        make: impl FnOnce(Ticket) -> PassiveResult,
    ) -> Result<Offered<'_>, NotTaken> {
        // A caller that is cancelled leaves no ticket without an input: nothing waits between the two.
        let Ok(place) = self.0.monitor.reserve().await else { return Err(NotTaken::NotYet) };
        match self.0.live.tickets().admit(content, shown, crate::clock::now().mono) {
            Admission::New(ticket, waiter) => {
                place.send(MonitorInput::Submit(Box::new(make(ticket))));
                Ok(Offered::Waits(waiter))
            }
            Admission::Found(found) => Ok(found.into()),
            Admission::Full => Err(NotTaken::Refused(Some(Trouble::Busy))),
        }
    }
}

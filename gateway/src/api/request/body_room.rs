//! Memory for the bodies of requests that are being read, for all calls together.
//!
//! Callers with a login and strangers have separate shares, so that strangers never make a known caller
//! wait. Large bodies of results have limits of their own (`results/body.rs`).

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::response::problem::Problem;

/// A body up to this size needs no room: a login, an enrolment, or nearly every change.
pub const SMALL: usize = 4 * 1024;
/// Bytes for callers with a login: 128 of the largest ordinary bodies.
const KNOWN: usize = 8 * 1024 * 1024;
/// Bytes for strangers, whose calls have small bodies.
const STRANGERS: usize = 2 * 1024 * 1024;
/// The longest wait of a caller with a login. Tests do not wait. Strangers never do: what an unread
/// body occupies in its connection is memory too.
const WAIT: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };
const RETRY_AFTER_S: u64 = 2;

pub struct BodyRoom {
    known: Semaphore,
    strangers: Semaphore,
}

impl Default for BodyRoom {
    fn default() -> Self {
        BodyRoom { known: Semaphore::new(KNOWN), strangers: Semaphore::new(STRANGERS) }
    }
}

impl BodyRoom {
    /// Reserves room for a whole body at once, so that no two bodies wait for each other's rest.
    ///
    /// # Errors
    /// Returns 503 without enough room.
    pub async fn claim(&self, is_known: bool, bytes: usize) -> Result<SemaphorePermit<'_>, Problem> {
        let bytes = u32::try_from(bytes).map_err(Problem::internal)?;
        if !is_known {
            return self.strangers.try_acquire_many(bytes).map_err(|_| busy());
        }
        let room = tokio::time::timeout(WAIT, self.known.acquire_many(bytes)).await;
        room.map_err(|_| busy())?.map_err(Problem::internal)
    }
}

fn busy() -> Problem {
    Problem::busy("too many bodies are being read at once: send this again in a moment", RETRY_AFTER_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn strangers_take_no_room_from_known_callers() {
        let room = BodyRoom::default();
        let all = room.claim(false, STRANGERS).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(room.claim(false, SMALL).await.err().map(|e| e.code()), Some("busy"));
        let known = room.claim(true, KNOWN).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(room.claim(true, 1).await.err().map(|e| e.code()), Some("busy"), "they have a limit too");
        drop((all, known));
        assert!(room.claim(false, SMALL).await.is_ok() && room.claim(true, SMALL).await.is_ok());
    }
}

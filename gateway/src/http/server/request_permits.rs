//! Permits for the requests of strangers on HTTP/2 connections.
//!
//! A connection always has a permit for one request. Further ones at the same time share a few permits
//! until the connection has a login. So strangers cannot multiply what a request costs by the streams
//! of their connections, and a stranger with one request, such as a login, is never kept out.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::Login;

/// Shared permits of all connections: a few browsers at once that load the page before the login.
const SHARED: usize = 128;

/// The permits that connections share. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shared(Arc<Semaphore>);

/// The permits of one connection.
pub(super) struct RequestPermits {
    own: Arc<Semaphore>,
    shared: Arc<Semaphore>,
    login: Login,
}

/// A permit for one request, until it is dropped.
pub(super) struct RequestPermit {
    /// `None` for a connection with a login.
    _permit: Option<OwnedSemaphorePermit>,
    login: Login,
}

impl Shared {
    pub fn new() -> Shared {
        Shared(Arc::new(Semaphore::new(SHARED)))
    }

    /// Returns the permits of a connection on which `login` notes a login.
    pub fn of_a_connection(&self, login: Login) -> RequestPermits {
        RequestPermits { own: Arc::new(Semaphore::new(1)), shared: self.0.clone(), login }
    }
}

impl RequestPermits {
    /// Returns a permit for a request, if one is free.
    pub fn take(&self) -> Option<RequestPermit> {
        let login = self.login.clone();
        if login.is_known() {
            return Some(RequestPermit { _permit: None, login });
        }
        let free = |places: &Arc<Semaphore>| places.clone().try_acquire_owned();
        let permit = free(&self.own).or_else(|_| free(&self.shared)).ok()?;
        Some(RequestPermit { _permit: Some(permit), login })
    }
}

impl RequestPermit {
    /// Gives the permit back if the request brought a login: its response may be an event stream.
    pub fn answered(self) -> RequestPermit {
        if self.login.is_known() { RequestPermit { _permit: None, ..self } } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_share_few_places_and_each_connection_has_one() {
        let shared = Shared::new();
        let flood = shared.of_a_connection(Login::default());
        let held: Vec<RequestPermit> = std::iter::from_fn(|| flood.take()).take(1_000).collect();
        assert_eq!(held.len(), SHARED + 1);
        let other = shared.of_a_connection(Login::default());
        let one = other.take().expect("its own place");
        assert!(other.take().is_none());
        other.login.note();
        assert!(other.take().is_some(), "a connection with a login needs none");
        let _one = one.answered();
        assert_eq!(other.own.available_permits(), 1, "and gives its own back");
        drop(held);
        assert_eq!(shared.0.available_permits(), SHARED);
    }
}

//! The number of open connections of people: in total, of each caller and to each device.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use fleetgate_engine::id::PeerId;
use fleetgate_engine::tunnel::{MAX_CONNECTIONS, MAX_IN_FLIGHT};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Each has a socket, and the listener of the API has half of the descriptors of an ordinary process.
pub(super) const MAX_STREAMS: usize = 256;
/// A quarter of all: a script that leaves its connections open must not use up the limit for all.
pub(super) const MAX_OF_ONE: usize = 64;
/// Half of the connections to a device, and of all that may be in flight to it. The checks of the device
/// and of the hosts behind it keep the other half.
pub(super) const MAX_TO_DEVICE: usize = MAX_CONNECTIONS / 2;

const _: () = assert!(MAX_TO_DEVICE <= MAX_IN_FLIGHT / 2);

/// Counts the open connections. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::api) struct OpenStreams {
    counts: Arc<Mutex<Counts>>,
    sessions: TaskTracker,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by: BTreeMap<String, usize>,
    to: BTreeMap<PeerId, usize>,
}

/// An open connection, which is counted until it is dropped.
pub(super) struct OpenStream {
    all: OpenStreams,
    by: String,
    to: PeerId,
}

/// The limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Device,
    Caller,
    All,
}

impl OpenStreams {
    /// Counts a connection.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub(super) fn enter(&self, by: String, to: PeerId) -> Result<OpenStream, Full> {
        let mut counts = self.counts();
        let of = |count: Option<&usize>| count.copied().unwrap_or_default();
        if of(counts.to.get(&to)) >= MAX_TO_DEVICE {
            return Err(Full::Device);
        }
        if of(counts.by.get(&by)) >= MAX_OF_ONE {
            return Err(Full::Caller);
        }
        if counts.all >= MAX_STREAMS {
            return Err(Full::All);
        }
        counts.all += 1;
        *counts.by.entry(by.clone()).or_default() += 1;
        *counts.to.entry(to).or_default() += 1;
        drop(counts);
        Ok(OpenStream { all: self.clone(), by, to })
    }

    /// Returns a mark of a session that must end before the gateway does.
    pub(super) fn track(&self) -> TaskTrackerToken {
        self.sessions.token()
    }

    /// Waits until all sessions have recorded their ends.
    pub(in crate::api) async fn ended(&self) {
        self.sessions.close();
        self.sessions.wait().await;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("no holder panics")
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        counts.all -= 1;
        leave(&mut counts.by, &self.by);
        leave(&mut counts.to, &self.to);
    }
}

fn leave<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use fleetgate_engine::id::Id;

    use super::*;

    fn device(n: usize) -> PeerId {
        Id::from_i64(n as i64 + 1)
    }

    #[test]
    fn people_leave_half_of_a_tunnel_to_checks() {
        let streams = OpenStreams::default();
        let mut open: Vec<OpenStream> =
            (0..MAX_TO_DEVICE).map(|_| streams.enter("user:ada".into(), device(0)).ok().unwrap()).collect();
        assert_eq!(streams.enter("user:bob".into(), device(0)).err(), Some(Full::Device));
        assert!(streams.enter("user:bob".into(), device(1)).is_ok(), "another device has room");
        open.pop();
        assert!(streams.enter("user:bob".into(), device(0)).is_ok());
        drop(open);
        let counts = streams.counts();
        assert!(counts.all == 0 && counts.by.is_empty() && counts.to.is_empty());
    }

    #[test]
    fn one_caller_leaves_room_for_others_until_all_places_are_taken() {
        let streams = OpenStreams::default();
        let mut open = Vec::new();
        let mut enter = |by: &str, to| streams.enter(by.to_owned(), device(to)).map(|place| open.push(place));
        for n in 0..MAX_OF_ONE {
            assert_eq!(enter("user:ada", n), Ok(()));
        }
        assert_eq!(enter("user:ada", MAX_OF_ONE), Err(Full::Caller));
        for n in MAX_OF_ONE..MAX_STREAMS {
            assert_eq!(enter(&format!("token:{n}"), n), Ok(()));
        }
        assert_eq!(enter("user:eve", MAX_STREAMS), Err(Full::All));
    }
}

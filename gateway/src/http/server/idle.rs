//! The open connections of one listener, and the choice of the one that is closed for another.
//!
//! A connection is idle while none of its requests is in progress; half a head is not a request. When
//! places get scarce, the connection that is idle for the longest is closed. Connections with a login
//! stay, and so do new ones whose first request may be on its way. If none is idle, the one without a
//! login whose request takes the longest is closed, or else the one without a login that is open for
//! the longest: strangers who ask without a pause keep nobody out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fleetgate_engine::time::Mono;
use tokio_util::sync::CancellationToken;

use crate::api::Login;
use crate::clock;

/// Cheap to clone. It has one entry for each open connection.
#[derive(Clone)]
pub(super) struct Idle {
    /// Idle time before a connection may be closed.
    grace: Duration,
    inner: Arc<Mutex<Inner>>,
}

/// The connections by turn, each with the time since when it is listed.
type List = BTreeMap<u64, (Mono, Arc<State>)>;

#[derive(Default)]
struct Inner {
    /// Rises with each entry: the first entry is the one that has been idle for the longest.
    turn: u64,
    waiting: List,
    /// The same for connections with a request in progress.
    busy: List,
}

/// Time within which a request without a login is finished, unless its body arrives slowly. A connection
/// is open for as long at least before it has to make room for others.
const SLOW: Duration = Duration::from_secs(5);

struct State {
    opened: Mono,
    /// Its key in one of the two lists.
    turn: Mutex<Option<u64>>,
    under_way: AtomicUsize,
    asked: AtomicBool,
    login: Login,
    dismissed: CancellationToken,
    ended: AtomicBool,
}

/// One connection, until it is dropped.
pub(super) struct Visit {
    idle: Idle,
    state: Arc<State>,
}

/// One request of a connection, until it is dropped.
pub(super) struct RequestGuard {
    idle: Idle,
    state: Arc<State>,
}

impl Idle {
    pub fn new(grace: Duration) -> Idle {
        Idle { grace, inner: Arc::default() }
    }

    /// Registers a connection that has sent no request yet.
    pub fn enter(&self) -> Visit {
        let state = Arc::new(State::new(clock::now().mono));
        self.wait(&state);
        Visit { idle: self.clone(), state }
    }

    /// Closes the connection without a login that is idle for the longest, or has been asking for the
    /// longest. Returns whether there was one.
    pub fn dismiss_one(&self) -> bool {
        let now = clock::now().mono;
        let mut inner = self.inner();
        let chosen = stranger(&inner.waiting, now, self.grace)
            .or_else(|| stranger(&inner.busy, now, SLOW))
            .or_else(|| inner.oldest_stranger(now));
        let Some(turn) = chosen else { return false };
        let gone = inner.waiting.remove(&turn).or_else(|| inner.busy.remove(&turn));
        gone.inspect(|(_, state)| state.dismissed.cancel()).is_some()
    }

    fn wait(&self, state: &Arc<State>) {
        self.file(state, |inner| &mut inner.waiting);
    }

    fn file(&self, state: &Arc<State>, list: impl Fn(&mut Inner) -> &mut List) {
        self.leave(state);
        let mut inner = self.inner();
        if state.ended.load(Ordering::Relaxed) {
            return;
        }
        inner.turn += 1;
        let turn = inner.turn;
        list(&mut inner).insert(turn, (clock::now().mono, state.clone()));
        *state.place() = Some(turn);
    }

    fn leave(&self, state: &State) {
        let mut inner = self.inner();
        if let Some(turn) = state.place().take() {
            inner.waiting.remove(&turn);
            inner.busy.remove(&turn);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no holder panics")
    }
}

impl Inner {
    /// Returns the entry without a login that is open for the longest, and for [`SLOW`] at least.
    fn oldest_stranger(&self, now: Mono) -> Option<u64> {
        let all = self.waiting.iter().chain(&self.busy);
        let strangers = all.filter(|(_, (_, state))| !state.login.is_known() && state.opened + SLOW <= now);
        strangers.min_by_key(|(_, (_, state))| state.opened).map(|(turn, _)| *turn)
    }
}

/// Returns the first entry that is at least this old and has no login.
fn stranger(list: &List, now: Mono, long: Duration) -> Option<u64> {
    let old = list.iter().take_while(|(_, (since, _))| *since + long <= now);
    old.filter(|(_, (_, state))| !state.login.is_known()).map(|(turn, _)| *turn).next()
}

impl State {
    fn new(opened: Mono) -> State {
        State {
            opened,
            turn: Mutex::default(),
            under_way: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            login: Login::default(),
            dismissed: CancellationToken::new(),
            ended: AtomicBool::new(false),
        }
    }

    fn place(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().expect("no holder panics")
    }
}

impl Visit {
    /// Waits until the connection must make room.
    pub async fn dismissed(&self) {
        self.state.dismissed.cancelled().await;
    }

    /// Whether the connection ever sent a request.
    pub fn has_asked(&self) -> bool {
        self.state.asked.load(Ordering::Relaxed)
    }

    /// Registers a request.
    pub fn asked(&self) -> RequestGuard {
        self.state.asked.store(true, Ordering::Relaxed);
        if self.state.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            self.idle.file(&self.state, |inner| &mut inner.busy);
        }
        RequestGuard { idle: self.idle.clone(), state: self.state.clone() }
    }

    /// Returns the mark that authentication sets once the caller has logged in.
    pub fn login(&self) -> Login {
        self.state.login.clone()
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.state.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.idle.wait(&self.state);
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        self.idle.leave(&self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_dismissed(visit: &Visit) -> bool {
        visit.state.dismissed.is_cancelled()
    }

    #[test]
    fn the_longest_idle_stranger_goes_first() {
        let idle = Idle::new(Duration::ZERO);
        let visits: Vec<Visit> = (0..4).map(|_| idle.enter()).collect();
        let busy = visits[0].asked();
        visits[1].login().note();
        assert!(idle.dismiss_one());
        assert_eq!(visits.iter().map(is_dismissed).collect::<Vec<_>>(), [false, false, true, false]);
        // Its response makes it the one that has been idle for the shortest time.
        drop(busy);
        assert!(idle.dismiss_one() && is_dismissed(&visits[3]) && !is_dismissed(&visits[0]));
        assert!(idle.dismiss_one() && is_dismissed(&visits[0]));
        assert!(!idle.dismiss_one(), "only one with a login is left");
    }

    #[test]
    fn a_connection_whose_request_may_be_on_its_way_is_left_alone() {
        let idle = Idle::new(Duration::from_secs(60));
        let visit = idle.enter();
        assert!(!idle.dismiss_one() && !is_dismissed(&visit));
    }

    #[test]
    fn a_stranger_whose_request_takes_long_goes_where_none_is_idle() {
        let idle = Idle::new(Duration::ZERO);
        let (known, slow, other) = (idle.enter(), idle.enter(), idle.enter());
        known.login().note();
        let _asked = [known.asked(), slow.asked(), other.asked()];
        assert!(!idle.dismiss_one(), "they are being answered");
        let now = clock::now().mono;
        let inner = idle.inner();
        assert_eq!(stranger(&inner.busy, now, SLOW), None);
        let (first, _) = inner.busy.iter().find(|(_, (_, state))| Arc::ptr_eq(state, &slow.state)).unwrap();
        assert_eq!(
            stranger(&inner.busy, now + SLOW, SLOW),
            Some(*first),
            "the longest, of those without a login"
        );
    }

    #[test]
    fn strangers_who_ask_without_a_pause_make_room_in_the_order_in_which_they_came() {
        let idle = Idle::new(Duration::from_secs(1));
        let (known, first, second) = (idle.enter(), idle.enter(), idle.enter());
        known.login().note();
        // Each request is answered at once, and the next one follows.
        drop([second.asked(), first.asked(), known.asked()]);
        let _asked = first.asked();
        let turn = |visit: &Visit| *visit.state.place();
        let inner = idle.inner();
        let now = clock::now().mono;
        assert_eq!(inner.oldest_stranger(now), None, "their first requests may be on their way");
        assert_eq!(inner.oldest_stranger(now + SLOW), turn(&first));
        drop(inner);
        drop(first);
        assert_eq!(idle.inner().oldest_stranger(now + SLOW), turn(&second));
    }

    #[test]
    fn what_has_ended_is_not_kept() {
        let idle = Idle::new(Duration::ZERO);
        let visit = idle.enter();
        let asked = visit.asked();
        drop(visit);
        drop(asked);
        drop(idle.enter());
        let inner = idle.inner();
        assert!(inner.waiting.is_empty() && inner.busy.is_empty());
    }
}

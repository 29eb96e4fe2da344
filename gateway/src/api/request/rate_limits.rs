//! Limits on guessing: attempts per source and per account, and few concurrent password hashes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use fleetgate_engine::id::{HostId, Id, PersonId};
use fleetgate_engine::time::Mono;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body_room::BodyRoom;
use super::client::throttled_as;
use super::idempotency::UnderWay;
use super::in_progress::{CallPermit, InProgress};
use super::throttle::{Rate, Throttle};
use crate::api::enrol::refused::Refusals;
use crate::api::response::problem::Problem;
use crate::api::results;
use crate::api::results::body::LARGE_AT_ONCE;
use crate::password;

/// A person who mistypes succeeds within ten attempts. A program gets six a minute after that.
const LOGIN_BY_SOURCE: Rate = Rate { burst: 10, refill: Duration::from_secs(10) };
/// The shared allowance of all sources that never logged in to the account, at most 17,000 guesses
/// a day. Strangers may exhaust it. A source that logged in before does not need it.
const LOGIN_BY_USER: Rate = Rate { burst: 30, refill: Duration::from_secs(5) };
/// Refused enrolments. A script retries every few seconds at most.
const ENROL_BY_SOURCE: Rate = Rate { burst: 30, refill: Duration::from_secs(2) };
/// Results that a device sends through its tunnel: three dozen services every 20 s, after a burst
/// of results from an outage.
const RESULTS_BY_DEVICE: Rate = Rate { burst: 120, refill: Duration::from_millis(500) };
/// Audit entries about results for foreign hosts. A misconfigured script becomes visible, and a
/// hostile device writes at most 15 kB a day.
const STRAYS_BY_DEVICE: Rate = Rate { burst: 5, refill: Duration::from_secs(1_800) };
/// New values of `Idempotency-Key`, each of which is a row for 24 hours. A caller has at most
/// 100,000 of them. Half are available at once, the rest as the first ones expire.
pub const KEYS_BY_PRINCIPAL: Rate = Rate { burst: 50_000, refill: Duration::from_millis(1_728) };
/// Changes that a person of a customer makes to the own renters: a new key for each of eight, twice, and
/// some mistakes. The addresses of a removed renter rest for a day, so a person must not use up the pool by
/// adding and removing.
const CHANGES_BY_PERSON: Rate = Rate { burst: 30, refill: Duration::from_secs(300) };
/// Reads of a person of a customer, or of a token of one. The page asks three times each 10 s, in a few tabs.
const READS_BY_PERSON: Rate = Rate { burst: 120, refill: Duration::from_millis(500) };
/// Reads of one person in progress. A list of 100 rentals with their devices takes the database for a while, and the page
/// asks for three things at once.
const READS_AT_ONCE: usize = 4;
/// Connections to hosts that one caller opens, each of which is two events: a browser loads some pages
/// at once. A script that repeats a connection for ever writes 4 events a second.
const STREAMS_BY_PRINCIPAL: Rate = Rate { burst: 300, refill: Duration::from_millis(500) };
/// Probes of forwarding that one caller asks for: a person tries some ports of some hosts. Each is an
/// event.
const PROBES_BY_PRINCIPAL: Rate = Rate { burst: 30, refill: Duration::from_secs(2) };
/// Probes of forwarding in flight: half of what the tunnels take. Each lasts up to three seconds.
const PROBES_AT_ONCE: usize = 8;
/// Remembered pairs of account and source with a successful login, 100 bytes each. This is enough
/// for a thousand users with a handful of sources each.
const MAX_KNOWN: usize = 10_000;
/// Each hash takes 19 MiB and one core for a tenth of a second.
const HASHES_AT_ONCE: usize = 2;

pub struct RateLimits {
    login_by_source: Throttle<IpAddr>,
    login_by_user: Throttle<String>,
    known: Mutex<HashMap<(String, IpAddr), Mono>>,
    enrol_by_source: Throttle<IpAddr>,
    results_by_device: Throttle<HostId>,
    strays_by_device: Throttle<HostId>,
    changes_by_person: Throttle<PersonId>,
    reads_by_person: Throttle<Id>,
    reads: InProgress<Id>,
    keys_by_principal: Throttle<String>,
    streams_by_principal: Throttle<String>,
    probes_by_principal: Throttle<String>,
    probes: Semaphore,
    hashing: Semaphore,
    /// Memory for ordinary bodies.
    pub body_room: BodyRoom,
    /// Permits for large bodies through tunnels.
    pub large_bodies: Semaphore,
    /// Permits for large bodies with many results.
    pub large_batches: Semaphore,
    /// Permits for results that arrive in a batch.
    pub batched: Semaphore,
    pub refusals: Refusals,
    /// Calls with an `Idempotency-Key`.
    pub calls: UnderWay,
}

impl Default for RateLimits {
    fn default() -> Self {
        RateLimits {
            login_by_source: Throttle::new(LOGIN_BY_SOURCE),
            login_by_user: Throttle::new(LOGIN_BY_USER),
            known: Mutex::default(),
            enrol_by_source: Throttle::new(ENROL_BY_SOURCE),
            results_by_device: Throttle::new(RESULTS_BY_DEVICE),
            strays_by_device: Throttle::new(STRAYS_BY_DEVICE),
            changes_by_person: Throttle::new(CHANGES_BY_PERSON),
            reads_by_person: Throttle::new(READS_BY_PERSON),
            reads: InProgress::new(READS_AT_ONCE),
            keys_by_principal: Throttle::new(KEYS_BY_PRINCIPAL),
            streams_by_principal: Throttle::new(STREAMS_BY_PRINCIPAL),
            probes_by_principal: Throttle::new(PROBES_BY_PRINCIPAL),
            probes: Semaphore::new(PROBES_AT_ONCE),
            hashing: Semaphore::new(HASHES_AT_ONCE),
            body_room: BodyRoom::default(),
            large_bodies: Semaphore::new(LARGE_AT_ONCE),
            large_batches: Semaphore::new(results::LARGE_AT_ONCE),
            batched: Semaphore::new(results::AT_ONCE),
            refusals: Refusals::default(),
            calls: UnderWay::default(),
        }
    }
}

impl RateLimits {
    /// Counts one result of a device that sends its own.
    ///
    /// # Errors
    /// Returns 429 after too many.
    pub fn result(&self, device: HostId, now: Mono) -> Result<(), Problem> {
        self.results_by_device.take(&device, now).map_err(|wait| too_many("results", wait))
    }

    /// Counts a change that a person of a customer makes.
    ///
    /// # Errors
    /// Returns 429 after too many.
    pub fn change(&self, person: PersonId, now: Mono) -> Result<(), Problem> {
        self.changes_by_person.take(&person, now).map_err(|wait| too_many("changes", wait))
    }

    /// Counts a read of a person of a customer, or of a token of one, until the place is dropped.
    ///
    /// # Errors
    /// Returns 429 after too many, and while too many are in progress.
    pub fn read(&self, person: Id, now: Mono) -> Result<CallPermit<Id>, Problem> {
        let place = self.reads.begin(&person).ok_or_else(|| {
            Problem::too_many(format!("{READS_AT_ONCE} reads of yours are in progress: try again"), 1)
        })?;
        self.reads_by_person.take(&person, now).map_err(|wait| too_many("reads", wait))?;
        Ok(place)
    }

    /// Counts a connection to a host that this caller opens.
    ///
    /// # Errors
    /// Returns 429 after too many.
    pub fn stream(&self, principal: &String, now: Mono) -> Result<(), Problem> {
        self.streams_by_principal.take(principal, now).map_err(|wait| too_many("connections", wait))
    }

    /// Counts a probe of forwarding that this caller asks for, until the permit is dropped.
    ///
    /// # Errors
    /// Returns 429 after too many, and while too many are in flight.
    pub fn probe(&self, principal: &String, now: Mono) -> Result<SemaphorePermit<'_>, Problem> {
        let in_flight = format!("{PROBES_AT_ONCE} probes are in flight, which is the limit: try again");
        let permit = self.probes.try_acquire().map_err(|_| Problem::too_many(in_flight, 3))?;
        self.probes_by_principal.take(principal, now).map_err(|wait| too_many("probes", wait))?;
        Ok(permit)
    }

    /// Counts a new `Idempotency-Key` of this caller. [`RateLimits::key_unused`] refunds it.
    ///
    /// # Errors
    /// Returns 429 after too many.
    pub fn key(&self, principal: &String, now: Mono) -> Result<(), Problem> {
        self.keys_by_principal.take(principal, now).map_err(|wait| too_many("new keys", wait))
    }

    /// Refunds the key of a refused call, because it is not kept.
    pub fn key_unused(&self, principal: &String) {
        self.keys_by_principal.refund(principal);
    }

    /// Whether one more attempt of this device on another host should be recorded.
    pub fn stray_is_written(&self, device: HostId, now: Mono) -> bool {
        self.strays_by_device.take(&device, now).is_ok()
    }

    /// Counts a login attempt. [`RateLimits::logged_in`] refunds it. A source with an earlier login to
    /// this account has its own allowance, regardless of strangers.
    ///
    /// # Errors
    /// Returns 429 after too many.
    pub fn login(&self, source: IpAddr, user: Option<&str>, now: Mono) -> Result<(), Problem> {
        let source = throttled_as(source);
        self.login_by_source.take(&source, now).map_err(|wait| too_many("logins", wait))?;
        match user.map(account) {
            Some(user) if !self.knows(&user, source) => {
                self.login_by_user.take(&user, now).map_err(|wait| too_many("logins", wait))
            }
            _ => Ok(()),
        }
    }

    /// Refunds a successful attempt.
    pub fn logged_in(&self, source: IpAddr, user: Option<&str>, now: Mono) {
        let source = throttled_as(source);
        self.login_by_source.refund(&source);
        let Some(user) = user.map(account) else { return };
        if !self.knows(&user, source) {
            self.login_by_user.refund(&user);
        }
        self.remember(user, source, now);
    }

    fn knows(&self, user: &str, source: IpAddr) -> bool {
        self.known().contains_key(&(user.to_owned(), source))
    }

    fn remember(&self, user: String, source: IpAddr, now: Mono) {
        let mut known = self.known();
        known.insert((user, source), now);
        if known.len() > MAX_KNOWN {
            let oldest = known.iter().min_by_key(|(_, at)| **at).map(|(pair, _)| pair.clone());
            oldest.map(|pair| known.remove(&pair));
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<(String, IpAddr), Mono>> {
        self.known.lock().expect("no holder panics")
    }

    /// Counts an attempt to enrol or to poll an enrolment. [`RateLimits::enrolled`] refunds it.
    ///
    /// # Errors
    /// Returns 429 after too many.
    pub fn enrol(&self, source: IpAddr, now: Mono) -> Result<(), Problem> {
        let taken = self.enrol_by_source.take(&throttled_as(source), now);
        taken.map_err(|wait| too_many("refused enrolments", wait))
    }

    pub fn enrolled(&self, source: IpAddr) {
        self.enrol_by_source.refund(&throttled_as(source));
    }

    /// # Errors
    /// Fails when the gateway is stopping.
    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        let _turn = self.hashing.acquire().await.map_err(Problem::internal)?;
        tokio::task::spawn_blocking(move || password::hash(&password)).await.map_err(Problem::internal)
    }

    /// `stored` is `None` for an unknown user.
    ///
    /// # Errors
    /// Fails when the gateway is stopping.
    pub async fn verify(&self, stored: Option<String>, password: String) -> Result<bool, Problem> {
        let _turn = self.hashing.acquire().await.map_err(Problem::internal)?;
        let verified = move || password::verify(stored.as_deref(), &password);
        tokio::task::spawn_blocking(verified).await.map_err(Problem::internal)
    }
}

/// Returns the account for counting. User names are short. Longer ones cannot exist and count as
/// one account.
fn account(user: &str) -> String {
    if user.len() <= crate::names::MAX_NAME { user.to_owned() } else { String::new() }
}

fn too_many(what: &str, wait: Duration) -> Problem {
    let seconds = wait.as_secs() + 1;
    Problem::too_many(format!("too many {what} from here: wait {seconds} s"), seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));

    fn at(seconds: u64) -> Mono {
        Mono::from_secs(1_000 + seconds)
    }

    /// Makes guesses from as many sources as the account allows.
    fn flood(limits: &RateLimits, now: Mono) {
        for n in 0..200u32 {
            let _ = limits.login(IpAddr::V4((0x0a00_0000 + n).into()), Some("ada"), now);
        }
        assert!(limits.login([198, 51, 100, 1].into(), Some("ada"), now).is_err(), "strangers have to wait");
    }

    #[test]
    fn strangers_from_many_sources_do_not_lock_the_owner_out() {
        let limits = RateLimits::default();
        limits.login(HOME, Some("ada"), at(0)).unwrap();
        limits.logged_in(HOME, Some("ada"), at(0));
        flood(&limits, at(1));
        assert!(limits.login(HOME, Some("ada"), at(1)).is_ok());
        assert!(limits.login(HOME, Some("bob"), at(1)).is_ok(), "another account is another bucket");
    }

    #[test]
    fn a_known_source_has_no_more_than_its_own_allowance() {
        let limits = RateLimits::default();
        limits.logged_in(HOME, Some("ada"), at(0));
        let tries = (0..100).filter(|_| limits.login(HOME, Some("ada"), at(1)).is_ok()).count();
        assert_eq!(tries, LOGIN_BY_SOURCE.burst as usize);
    }

    #[test]
    fn to_have_logged_in_elsewhere_or_as_somebody_else_helps_nobody() {
        let limits = RateLimits::default();
        limits.logged_in(HOME, Some("eve"), at(0));
        flood(&limits, at(1));
        assert!(limits.login(HOME, Some("ada"), at(1)).is_err());
    }

    #[test]
    fn a_person_reads_so_much_at_once_and_over_time_and_keeps_no_other_out() {
        let limits = RateLimits::default();
        let (ada, bob) = (Id::from_i64(1), Id::from_i64(2));
        let held: Vec<_> = std::iter::from_fn(|| limits.read(ada, at(0)).ok()).take(100).collect();
        assert_eq!(held.len(), READS_AT_ONCE);
        assert!(limits.read(bob, at(0)).is_ok());
        drop(held);
        let more = (0..1_000).filter(|_| limits.read(ada, at(0)).is_ok()).count();
        assert_eq!(more, READS_BY_PERSON.burst as usize - READS_AT_ONCE);
        assert!(limits.read(bob, at(0)).is_ok() && limits.read(ada, at(1)).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let limits = RateLimits::default();
        for n in 0..MAX_KNOWN as u32 + 10 {
            limits.logged_in(IpAddr::V4(n.into()), Some("ada"), at(u64::from(n)));
        }
        assert_eq!(limits.known().len(), MAX_KNOWN);
        assert!(!limits.knows("ada", IpAddr::V4(0.into())), "the oldest goes first");
    }
}

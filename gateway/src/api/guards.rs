//! What slows guessing down: attempts per source and per account, and few passwords hashed at once.

use std::net::IpAddr;
use std::time::Duration;

use fleetgate_engine::time::Mono;
use tokio::sync::Semaphore;

use super::client::throttled_as;
use super::problem::Problem;
use super::refusals::Refusals;
use super::throttle::{Rate, Throttle};
use crate::password;

/// A person who mistypes is done within ten; a program gets six a minute after that.
const LOGIN_BY_SOURCE: Rate = Rate { burst: 10, refill: Duration::from_secs(10) };
/// Wider than a source's, so that one stranger cannot keep a user out: from many sources together
/// an account is guessed at 17,000 times a day at most.
const LOGIN_BY_USER: Rate = Rate { burst: 30, refill: Duration::from_secs(5) };
/// Refused enrolments: a script tries again at most every few seconds.
const ENROL_BY_SOURCE: Rate = Rate { burst: 30, refill: Duration::from_secs(2) };
/// Each takes 19 MiB and a core for a tenth of a second.
const HASHES_AT_ONCE: usize = 2;

pub struct Guards {
    login_by_source: Throttle<IpAddr>,
    login_by_user: Throttle<String>,
    enrol_by_source: Throttle<IpAddr>,
    hashing: Semaphore,
    pub refusals: Refusals,
}

impl Default for Guards {
    fn default() -> Self {
        Guards {
            login_by_source: Throttle::new(LOGIN_BY_SOURCE),
            login_by_user: Throttle::new(LOGIN_BY_USER),
            enrol_by_source: Throttle::new(ENROL_BY_SOURCE),
            hashing: Semaphore::new(HASHES_AT_ONCE),
            refusals: Refusals::default(),
        }
    }
}

impl Guards {
    /// Takes an attempt to log in; [`Guards::logged_in`] gives it back.
    ///
    /// # Errors
    /// 429 after too many.
    pub fn login(&self, source: IpAddr, user: Option<&str>, now: Mono) -> Result<(), Problem> {
        self.login_by_source.take(&throttled_as(source), now).map_err(|wait| too_many("logins", wait))?;
        let Some(user) = user else { return Ok(()) };
        self.login_by_user.take(&account(user), now).map_err(|wait| too_many("logins", wait))
    }

    pub fn logged_in(&self, source: IpAddr, user: Option<&str>) {
        self.login_by_source.refund(&throttled_as(source));
        if let Some(user) = user {
            self.login_by_user.refund(&account(user));
        }
    }

    /// Takes an attempt to enrol or to ask for an enrolment; [`Guards::enrolled`] gives it back.
    ///
    /// # Errors
    /// 429 after too many.
    pub fn enrol(&self, source: IpAddr, now: Mono) -> Result<(), Problem> {
        let taken = self.enrol_by_source.take(&throttled_as(source), now);
        taken.map_err(|wait| too_many("refused enrolments", wait))
    }

    pub fn enrolled(&self, source: IpAddr) {
        self.enrol_by_source.refund(&throttled_as(source));
    }

    /// # Errors
    /// When the program is stopping.
    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        let _turn = self.hashing.acquire().await.map_err(Problem::internal)?;
        tokio::task::spawn_blocking(move || password::hash(&password)).await.map_err(Problem::internal)
    }

    /// `stored` is `None` for an unknown user.
    ///
    /// # Errors
    /// When the program is stopping.
    pub async fn verify(&self, stored: Option<String>, password: String) -> Result<bool, Problem> {
        let _turn = self.hashing.acquire().await.map_err(Problem::internal)?;
        let verified = move || password::verify(stored.as_deref(), &password);
        tokio::task::spawn_blocking(verified).await.map_err(Problem::internal)
    }
}

/// Names of users are short; what is longer is nobody's, and all of it counts as one.
fn account(user: &str) -> String {
    if user.len() <= crate::names::MAX_NAME { user.to_owned() } else { String::new() }
}

fn too_many(what: &str, wait: Duration) -> Problem {
    let seconds = wait.as_secs() + 1;
    Problem::too_many(format!("too many {what} from here: wait {seconds} s"), seconds)
}

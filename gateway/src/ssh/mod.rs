//! The SSH client of the prober, over any byte stream.
//!
//! Promises one [`SshAnswer`] per run, within the run's timeout, whatever the server does: bytes,
//! time, output and sessions are bounded, each conversation has a task of its own, and a panic in
//! the protocol code is an answer like any other. No credential leaves before the host key is the
//! right one; there is no agent and no forwarding, and channels that a server opens are refused.
//!
//! It does not know what an answer means for a host, and not where its streams come from.

mod guard;
mod handler;
mod pool;
mod session;
#[cfg(test)]
mod tests;
mod wanted;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::time::Mono;
use fleetgate_engine::wire::{ConnectFailure, Negotiated, Route, SshAnswer, SshFailure, SshRun};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use pool::{Pool, Run};
use session::{Connection, Login};
use wanted::Wanted;

/// Settings of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a connection without a run is kept. Five minutes serve checks of a minute and
    /// stay below what most NATs and servers allow an idle connection.
    pub idle: Duration,
    /// How many are kept: those that are needed first. 256 cost about 8 MB.
    pub kept: usize,
    /// Conversations at the same time; a further one waits for its turn within its own timeout.
    pub concurrent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { idle: Duration::from_secs(300), kept: 256, concurrent: 128 }
    }
}

/// What a connection is kept under.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionKey {
    pub host: HostId,
    pub route: Route,
    pub port: u16,
}

#[derive(Debug, thiserror::Error)]
#[error("the gateway's SSH key cannot be read; it must be an OpenSSH private key without a passphrase")]
pub struct BadSshKey;

/// Cheap to clone; all clones share the kept connections.
#[derive(Clone)]
pub struct SshClient(Arc<Inner>);

struct Inner {
    login: Login,
    gate: Semaphore,
    pool: Mutex<Pool<Connection>>,
}

impl SshClient {
    /// `key`: the gateway's private key as OpenSSH writes it.
    ///
    /// # Errors
    /// When the text is no such key.
    pub fn new(key: &str, limits: Limits) -> Result<Self, BadSshKey> {
        Ok(SshClient(Arc::new(Inner {
            login: Login::new(key).ok_or(BadSshKey)?,
            gate: Semaphore::new(limits.concurrent),
            pool: Mutex::new(Pool::new(limits.kept, limits.idle)),
        })))
    }

    /// [`SshClient::run_within`], where opening the session may take all the time that there is.
    #[cfg(test)]
    pub async fn run<S, C>(
        &self,
        key: SessionKey,
        connect: impl Fn() -> C,
        run: SshRun,
        timeout: Duration,
    ) -> SshAnswer
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Future<Output = Result<S, ConnectFailure>>,
    {
        self.run_within(key, connect, run, (timeout, timeout)).await
    }

    /// Does one run. `connect` is called only if no kept connection serves, and more than once where only the
    /// fingerprint of the pinned key is known: a server shows one of its keys per connection. `opening`: how
    /// long all of that may take, the login included.
    pub async fn run_within<S, C>(
        &self,
        key: SessionKey,
        connect: impl Fn() -> C,
        run: SshRun,
        (opening, timeout): (Duration, Duration),
    ) -> SshAnswer
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Future<Output = Result<S, ConnectFailure>>,
    {
        let deadline = Deadline::after(timeout);
        let Some(Ok(_turn)) = deadline.limit(self.0.gate.acquire()).await else {
            return failed(SshFailure::Connect(ConnectFailure::Busy));
        };
        let begun = self.pool().begin(key.host);
        let ended = match self.resume(&key, &run, deadline).await {
            Some(ended) => ended,
            None => {
                let opening = Deadline::after(opening).or_earlier(deadline);
                self.meet(connect, &run, (opening, deadline)).await
            }
        };
        if let Some(connection) = ended.connection {
            self.keep(key, connection, &begun);
        }
        ended.answer
    }

    /// Closes what is kept for a host: it was removed, or its key or login changed.
    pub fn forget(&self, host: HostId) {
        self.pool().forget(host);
    }

    /// Connections that wait for their next run.
    pub fn kept(&self) -> usize {
        self.pool().len()
    }

    /// On a kept connection; `None` if there is none, or it turns out to be dead.
    async fn resume(&self, key: &SessionKey, run: &SshRun, deadline: Deadline) -> Option<Ended> {
        let fits = |k: &SessionKey, c: &Connection| k == key && c.serves(run);
        let kept = self.pool().take(fits, clock::now().mono)?;
        isolated(kept.resume(run.clone(), deadline)).await.unwrap_or_else(|broken| Some(broken.into()))
    }

    /// On a fresh connection, or on one after the other: until the server has shown the pinned key, or has no
    /// type of key left to show. What it showed first is then what has changed.
    async fn meet<S, C>(
        &self,
        connect: impl Fn() -> C,
        run: &SshRun,
        (opening, deadline): (Deadline, Deadline),
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Future<Output = Result<S, ConnectFailure>>,
    {
        let mut wanted = Wanted::of(run);
        let mut changed = None;
        loop {
            let ended = match opening.limit(connect()).await {
                Some(Ok(stream)) => self.converse(stream, run.clone(), &wanted, (opening, deadline)).await,
                Some(Err(failure)) => failed(SshFailure::Connect(failure)).into(),
                None => failed(SshFailure::Connect(ConnectFailure::Timeout)).into(),
            };
            match &ended.answer.failure {
                Some(SshFailure::HostKeyChanged { seen, .. }) if wanted.another_than(seen) => {
                    changed.get_or_insert(ended);
                }
                Some(SshFailure::HostKeyChanged { .. }) => return changed.unwrap_or(ended),
                Some(SshFailure::NothingInCommon { what: Negotiated::HostKey, .. }) => {
                    return changed.unwrap_or(ended);
                }
                _ => return ended,
            }
        }
    }

    async fn converse<S>(
        &self,
        stream: S,
        run: SshRun,
        wanted: &Wanted,
        deadlines: (Deadline, Deadline),
    ) -> Ended
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let login = self.0.login.asking_for(wanted.key_types());
        isolated(session::converse(stream, login, run, deadlines)).await.unwrap_or_else(Ended::from)
    }

    fn keep(&self, key: SessionKey, connection: Connection, begun: &Run) {
        let starts_sweeping = self.pool().put(key, connection, begun, clock::now().mono);
        if starts_sweeping {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Connection>> {
        self.0.pool()
    }
}

impl Inner {
    fn pool(&self) -> MutexGuard<'_, Pool<Connection>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections as they grow too old; ends when none is left.
async fn sweep(client: Weak<Inner>) {
    loop {
        let Some(inner) = client.upgrade() else { return };
        let now = clock::now().mono;
        let Some(next) = inner.pool().sweep(now) else { return };
        drop(inner);
        tokio::time::sleep(next.since(now)).await;
    }
}

/// The outcome of a conversation: what is told, and the connection if it is good for another.
struct Ended {
    answer: SshAnswer,
    connection: Option<Connection>,
}

impl From<SshAnswer> for Ended {
    fn from(answer: SshAnswer) -> Self {
        Ended { answer, connection: None }
    }
}

/// The conversation's task panicked.
struct Broken;

impl From<Broken> for Ended {
    fn from(_: Broken) -> Self {
        failed(SshFailure::Protocol("the SSH client broke on what this server sent".to_owned())).into()
    }
}

/// In a task of its own, so that a panic ends there; ends with the caller.
async fn isolated<T: Send + 'static>(
    conversation: impl Future<Output = T> + Send + 'static,
) -> Result<T, Broken> {
    AbortOnDropHandle::new(tokio::spawn(conversation)).await.map_err(|_| Broken)
}

fn failed(failure: SshFailure) -> SshAnswer {
    SshAnswer { failure: Some(failure), ..SshAnswer::default() }
}

/// When a run must have its answer.
#[derive(Clone, Copy)]
struct Deadline(Mono);

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Deadline(clock::now().mono + timeout)
    }

    fn or_earlier(self, other: Deadline) -> Deadline {
        Deadline(self.0.min(other.0))
    }

    fn remaining(self) -> Duration {
        self.0.since(clock::now().mono)
    }

    /// `None` when the time is over first.
    async fn limit<T>(self, future: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.remaining(), future).await.ok()
    }
}

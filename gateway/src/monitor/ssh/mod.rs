//! The SSH client of the prober, over any byte stream.
//!
//! Each run returns one [`SshReply`] within its timeout, however the server behaves. Bytes, time,
//! output and sessions are bounded. Each session has a task of its own, so a panic in the protocol code
//! becomes an ordinary failure. No credential is sent before the host key is verified. There is no
//! agent and no forwarding, and channels that a server opens are refused.
//!
//! It does not know what a result means for a host, nor the origin of its streams.

mod guard;
mod handler;
mod host_key_types;
mod pool;
mod session;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use fleetgate_engine::id::HostId;
use fleetgate_engine::messages::{ConnectFailure, Negotiated, Route, SshFailure, SshReply, SshRun};
use fleetgate_engine::time::Mono;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::clock;
use host_key_types::HostKeyTypes;
use pool::{Pool, Run};
use session::{Connection, Login};

/// Settings of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long an unused connection is kept. Five minutes serve checks at an interval of a minute, and are
    /// below the idle timeout of most NATs and servers.
    pub idle: Duration,
    /// Connections that are kept: those that are needed first. 256 take about 8 MB.
    pub kept: usize,
    /// Concurrent sessions. A further one waits for its turn within its own timeout.
    pub concurrent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { idle: Duration::from_secs(300), kept: 256, concurrent: 128 }
    }
}

/// The key under which a connection is kept.
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
    /// `key` is the gateway's private key in OpenSSH format.
    ///
    /// # Errors
    /// Fails when the text is not such a key.
    pub fn new(key: &str, limits: Limits) -> Result<Self, BadSshKey> {
        Ok(SshClient(Arc::new(Inner {
            login: Login::new(key).ok_or(BadSshKey)?,
            gate: Semaphore::new(limits.concurrent),
            pool: Mutex::new(Pool::new(limits.kept, limits.idle)),
        })))
    }

    /// [`SshClient::run_within`], where opening the session may take the whole timeout.
    #[cfg(test)]
    pub async fn run<S, C>(
        &self,
        key: SessionKey,
        connect: impl Fn() -> C,
        run: SshRun,
        timeout: Duration,
    ) -> SshReply
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        C: Future<Output = Result<S, ConnectFailure>>,
    {
        self.run_within(key, connect, run, (timeout, timeout)).await
    }

    /// Executes one run. `connect` is called only if no kept connection fits. It is called several times if
    /// only the fingerprint of the pinned key is known, because a server shows one of its keys per
    /// connection. `opening` limits the time until the login is complete.
    pub async fn run_within<S, C>(
        &self,
        key: SessionKey,
        connect: impl Fn() -> C,
        run: SshRun,
        (opening, timeout): (Duration, Duration),
    ) -> SshReply
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

    /// Closes the kept connections of a host that was removed, or whose key or login changed.
    pub fn forget(&self, host: HostId) {
        self.pool().forget(host);
    }

    /// Returns the number of connections that wait for their next run.
    pub fn kept(&self) -> usize {
        self.pool().len()
    }

    /// Executes the run on a kept connection. `None` if there is none, or if it turns out to be dead.
    async fn resume(&self, key: &SessionKey, run: &SshRun, deadline: Deadline) -> Option<Ended> {
        let fits = |k: &SessionKey, c: &Connection| k == key && c.serves(run);
        let kept = self.pool().take(fits, clock::now().mono)?;
        isolated(kept.resume(run.clone(), deadline)).await.unwrap_or_else(|broken| Some(broken.into()))
    }

    /// Executes the run on a new connection. It opens further ones until the server shows the pinned key,
    /// or has no other key type left. In that case the key that it showed first is reported as the changed
    /// one.
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
        let mut wanted = HostKeyTypes::of(run);
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
        wanted: &HostKeyTypes,
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

/// Closes connections as they expire, and ends when none is left.
async fn sweep(client: Weak<Inner>) {
    loop {
        let Some(inner) = client.upgrade() else { return };
        let now = clock::now().mono;
        let Some(next) = inner.pool().sweep(now) else { return };
        drop(inner);
        tokio::time::sleep(next.since(now)).await;
    }
}

/// The outcome of a session: its result, and the connection if it can be used again.
struct Ended {
    answer: SshReply,
    connection: Option<Connection>,
}

impl From<SshReply> for Ended {
    fn from(answer: SshReply) -> Self {
        Ended { answer, connection: None }
    }
}

/// The task of the session panicked.
struct Broken;

impl From<Broken> for Ended {
    fn from(_: Broken) -> Self {
        failed(SshFailure::Protocol("the SSH client broke on what this server sent".to_owned())).into()
    }
}

/// Runs a session in a task of its own, so that a panic ends there. Dropping the call aborts the task.
async fn isolated<T: Send + 'static>(
    conversation: impl Future<Output = T> + Send + 'static,
) -> Result<T, Broken> {
    AbortOnDropHandle::new(tokio::spawn(conversation)).await.map_err(|_| Broken)
}

fn failed(failure: SshFailure) -> SshReply {
    SshReply { failure: Some(failure), ..SshReply::default() }
}

/// The time by which a run must have its result.
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

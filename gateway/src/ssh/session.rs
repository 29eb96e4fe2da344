//! One conversation with one server: identification, host key, login, commands.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fleetgate_engine::wire::{CommandAnswer, CommandEnd, RemoteCommand, SshAnswer, SshFailure, SshRun};
use fleetgate_probes::remote;
use russh::client::{self, AuthResult, Msg};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{Channel, ChannelMsg, Preferred, Sig, SshId};
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::{Guard, RUN_BYTES, printable};
use super::handler::{HostKeyCheck, SeenKey, judge};
use super::{Deadline, Ended};
use crate::clock;

/// Kept of each of stdout and stderr (SEMANTICS: a plugin's output is cut at 64 KiB).
const OUTPUT_BYTES: usize = 64 * 1024;
/// A command that goes on printing is let run to its exit status up to here, then closed.
pub(super) const RUNAWAY_OUTPUT: usize = 1024 * 1024;
/// Unread bytes that a server may have under way per channel: one full output.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Messages that wait between the protocol code and us; what lies beyond waits in the stream.
const CHANNEL_MESSAGES: usize = 16;
/// A kept connection that does not answer within this time, or half of what the run has left, is
/// given up for a fresh one. Longer than any round trip over LTE.
const REUSE_PATIENCE: Duration = Duration::from_secs(5);
/// SSH_EXTENDED_DATA_STDERR (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// What the gateway logs in with, everywhere.
#[derive(Clone)]
pub(super) struct Login {
    key: Arc<PrivateKey>,
    config: Arc<client::Config>,
}

impl Login {
    pub(super) fn new(openssh: &str) -> Option<Self> {
        let key = Arc::new(decode_secret_key(openssh, None).ok()?);
        Some(Login { key, config: Arc::new(config()) })
    }
}

fn config() -> client::Config {
    // Without RSA, which this build cannot verify: a server that has nothing else is told so by
    // the negotiation. The order is part of the pin's meaning: a server with several keys always
    // shows the same one.
    const HOST_KEYS: &[Algorithm] = &[
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    ];
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed("SSH-2.0-fleetgate")),
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_MESSAGES,
        preferred: Preferred { key: Cow::Borrowed(HOST_KEYS), ..Preferred::DEFAULT },
        ..client::Config::default()
    }
}

/// A connection whose host key was accepted. The stream ends when it is dropped.
pub(super) struct Connection {
    handle: client::Handle<HostKeyCheck>,
    stream: Stream,
    seen: SeenKey,
    user: Option<String>,
    bounds: Bounds,
}

/// Whether the server runs a command under a `timeout` of the device. Found out by the first one on a
/// connection, so that no other pays for the question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bounds {
    Unknown,
    Taken,
    /// It has no shell, or a list of what it runs.
    Refused,
}

/// Our end of the guarded stream.
struct Stream(Arc<Guard>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// The whole of a run on a fresh stream.
pub(super) async fn converse<S>(stream: S, login: Login, run: SshRun, deadline: Deadline) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut answer = SshAnswer::default();
    let connection = match introduce(stream, &login, &run, deadline, &mut answer).await {
        Ok(connection) => connection.perform(&run, None, deadline, &mut answer).await,
        Err(failure) => Err(failure),
    };
    ended(answer, connection)
}

fn ended(mut answer: SshAnswer, connection: Result<Connection, SshFailure>) -> Ended {
    match connection {
        Ok(connection) => Ended { connection: connection.keepable(&answer), answer },
        Err(failure) => {
            answer.failure = Some(failure);
            Ended { answer, connection: None }
        }
    }
}

/// Up to the login.
async fn introduce<S>(
    stream: S,
    login: &Login,
    run: &SshRun,
    deadline: Deadline,
    answer: &mut SshAnswer,
) -> Result<Connection, SshFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let started = clock::now().mono;
    let guard = Guard::new();
    let guarded = guard.wrap(stream);
    let stream = Stream(guard);
    let seen = SeenKey::new(OnceLock::new());
    let check = HostKeyCheck { run: run.clone(), seen: Arc::clone(&seen) };
    let outcome = deadline.limit(client::connect_stream(Arc::clone(&login.config), guarded, check)).await;
    answer.identification = stream.0.identification();
    answer.host_key = seen.get().cloned();
    if let Some(Err(refused)) = seen.get().map(|key| judge(run, key)) {
        return Err(refused);
    }
    let handle = outcome
        .ok_or_else(|| stream.contact_failure(None))?
        .map_err(|error| stream.contact_failure(Some(&error)))?;
    answer.connect = Some(clock::now().mono.since(started));
    let mut connection = Connection { handle, stream, seen, user: run.user.clone(), bounds: Bounds::Unknown };
    answer.logged_in = connection.log_in(login, deadline).await?;
    Ok(connection)
}

impl Stream {
    /// Why there is no connection. Without an error the time was over.
    fn contact_failure(&self, error: Option<&russh::Error>) -> SshFailure {
        match (self.0.identification(), self.0.first_words(), error) {
            (None, Some(words), _) => SshFailure::NotSsh(words),
            (_, _, None) => SshFailure::Timeout,
            (None, None, Some(_)) => protocol("closed the connection without a word"),
            (Some(_), _, Some(error)) => self.broke(&error.to_string()),
        }
    }

    fn broke(&self, how: &str) -> SshFailure {
        if self.0.exhausted() {
            return protocol(&format!("sent more than {} MiB, cut off", RUN_BYTES >> 20));
        }
        protocol(how)
    }
}

fn protocol(text: &str) -> SshFailure {
    SshFailure::Protocol(printable(text.as_bytes()))
}

impl Connection {
    /// Whether a later run may use this connection: the same user, and a key it accepts.
    pub(super) fn serves(&self, run: &SshRun) -> bool {
        let accepted = self.seen.get().is_some_and(|key| judge(run, key).is_ok());
        accepted && self.user == run.user && !self.handle.is_closed()
    }

    /// A run on this connection, kept from before. `None`: it is dead, and nothing was run.
    pub(super) async fn resume(self, run: SshRun, deadline: Deadline) -> Option<Ended> {
        self.stream.0.refill();
        let patience = REUSE_PATIENCE.min(deadline.remaining() / 2);
        let first = tokio::time::timeout(patience, self.sign_of_life(&run)).await.ok()??;
        let mut answer = SshAnswer {
            identification: self.stream.0.identification(),
            host_key: self.seen.get().cloned(),
            logged_in: true,
            reused: true,
            ..SshAnswer::default()
        };
        let connection = self.perform(&run, first, deadline, &mut answer).await;
        Some(ended(answer, connection))
    }

    /// The first command's channel, or a ping where there is no command: each check costs bytes
    /// on a metered link, so that nothing is asked which the run would not ask anyway.
    async fn sign_of_life(&self, run: &SshRun) -> Option<Option<Channel<Msg>>> {
        if run.commands.is_empty() {
            self.handle.send_ping().await.ok()?;
            return (!self.handle.is_closed()).then_some(None);
        }
        self.handle.channel_open_session().await.ok().map(Some)
    }

    /// Only a connection that is logged in is worth keeping, servers drop the others soon; and
    /// only one whose commands have ended: some servers stay stuck in one that was given up.
    fn keepable(self, answer: &SshAnswer) -> Option<Self> {
        let over = |c: &CommandAnswer| matches!(c.end, CommandEnd::Exit(_) | CommandEnd::Signal(_));
        let quiet = answer.commands.iter().all(over);
        (answer.logged_in && quiet && !self.handle.is_closed()).then_some(self)
    }

    /// Whether there was a login at all.
    async fn log_in(&mut self, login: &Login, deadline: Deadline) -> Result<bool, SshFailure> {
        let Some(user) = self.user.clone() else { return Ok(false) };
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&login.key), None);
        let outcome = deadline.limit(self.handle.authenticate_publickey(&user, key)).await;
        match outcome.ok_or(SshFailure::Timeout)? {
            Ok(AuthResult::Success) => Ok(true),
            // The protocol code tells the end of the connection as a refusal without a next step.
            Ok(AuthResult::Failure { remaining_methods, .. })
                if remaining_methods.is_empty() && self.handle.is_closed() =>
            {
                Err(self.stream.broke("the connection ended during the login"))
            }
            Ok(AuthResult::Failure { .. }) => Err(SshFailure::LoginRefused { user }),
            Err(error) => Err(self.stream.broke(&error.to_string())),
        }
    }

    /// The commands in order, until one takes the connection with it.
    async fn perform(
        mut self,
        run: &SshRun,
        mut opened: Option<Channel<Msg>>,
        deadline: Deadline,
        answer: &mut SshAnswer,
    ) -> Result<Self, SshFailure> {
        let commands = if answer.logged_in { run.commands.as_slice() } else { &[] };
        for command in commands {
            let channel = match opened.take() {
                Some(channel) => channel,
                None => self.open_channel(deadline).await?,
            };
            let (ended, stop) = self.command(command, channel, deadline).await?;
            answer.commands.push(ended);
            if let Some(failure) = self.failure(stop, command, deadline) {
                return Err(failure);
            }
        }
        Ok(self)
    }

    async fn open_channel(&self, deadline: Deadline) -> Result<Channel<Msg>, SshFailure> {
        let outcome = deadline.limit(self.handle.channel_open_session()).await;
        outcome
            .ok_or(SshFailure::Timeout)?
            .map_err(|error| self.stream.broke(&format!("no session was opened: {error}")))
    }

    /// Under the device's own `timeout`; bare, where the device turns out not to take that.
    async fn command(
        &mut self,
        command: &RemoteCommand,
        channel: Channel<Msg>,
        deadline: Deadline,
    ) -> Result<(CommandAnswer, Stop), SshFailure> {
        let Some(line) = self.bounded(command) else {
            return Ok(self
                .execute((&command.name, &command.line), command.timeout, channel, deadline)
                .await);
        };
        let (mut answer, stop) =
            self.execute((&command.name, &line), command.timeout, channel, deadline).await;
        if self.bounds == Bounds::Taken {
            return Ok((answer, stop));
        }
        if remote::take_greeting(&mut answer.stderr) {
            self.bounds = Bounds::Taken;
        } else if matches!(stop, Stop::Closed | Stop::Refused) {
            // Nothing was run so far.
            self.bounds = Bounds::Refused;
            let (left, channel) =
                (command.timeout.saturating_sub(answer.took), self.open_channel(deadline).await?);
            let (bare, stop) = self.execute((&command.name, &command.line), left, channel, deadline).await;
            return Ok((CommandAnswer { took: answer.took + bare.took, ..bare }, stop));
        }
        Ok((answer, stop))
    }

    /// `None`: bare.
    fn bounded(&self, command: &RemoteCommand) -> Option<String> {
        match self.bounds {
            _ if command.bounded => None,
            Bounds::Refused => None,
            Bounds::Unknown => remote::run(&command.line, command.timeout, true),
            Bounds::Taken => remote::run(&command.line, command.timeout, false),
        }
    }

    async fn execute(
        &self,
        (name, line): (&str, &str),
        timeout: Duration,
        mut channel: Channel<Msg>,
        deadline: Deadline,
    ) -> (CommandAnswer, Stop) {
        let started = clock::now().mono;
        let limit = timeout.min(deadline.remaining());
        let mut capture = Capture::default();
        let work = listen(&mut channel, line, &mut capture);
        let stop = tokio::time::timeout(limit, work).await.unwrap_or(Stop::TimeOver);
        if stop != Stop::Closed && stop != Stop::Gone {
            // Frees the command's slot on the server; what it still sends is thrown away. Not
            // waited for: a session that is stuck must not hold up the answer.
            let _ = deadline.limit(channel.close()).await;
        }
        (capture.into_answer(name, stop, clock::now().mono.since(started)), stop)
    }

    /// What ends the whole run, not only the command.
    fn failure(&self, stop: Stop, command: &RemoteCommand, deadline: Deadline) -> Option<SshFailure> {
        match stop {
            Stop::Gone => {
                let text = format!("the connection ended during {}", command.name);
                Some(self.stream.broke(&text))
            }
            Stop::Refused => Some(protocol("the server refused to run a command")),
            Stop::TimeOver if deadline.remaining().is_zero() => Some(SshFailure::Timeout),
            Stop::TimeOver | Stop::Closed | Stop::Runaway => None,
        }
    }
}

/// Why a command is no longer listened to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Closed,
    /// The connection is gone.
    Gone,
    Refused,
    Runaway,
    TimeOver,
}

async fn listen(channel: &mut Channel<Msg>, line: &str, capture: &mut Capture) -> Stop {
    // Plugins print numbers with a comma in some locales. Servers may ignore the wish.
    let locale = channel.set_env(false, "LC_ALL", "C").await;
    if locale.is_err() || channel.exec(true, line).await.is_err() || channel.eof().await.is_err() {
        return Stop::Gone;
    }
    loop {
        let Some(message) = channel.wait().await else { return Stop::Gone };
        if let Some(stop) = capture.take(message) {
            return stop;
        }
    }
}

/// What came from one command so far.
#[derive(Default)]
struct Capture {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    truncated: bool,
    received: usize,
    end: Option<CommandEnd>,
}

impl Capture {
    fn take(&mut self, message: ChannelMsg) -> Option<Stop> {
        match message {
            ChannelMsg::Data { data } => self.output(&data, false),
            ChannelMsg::ExtendedData { data, ext: STDERR } => self.output(&data, true),
            ChannelMsg::ExitStatus { exit_status } => {
                self.end = Some(CommandEnd::Exit(exit_status));
                None
            }
            ChannelMsg::ExitSignal { signal_name, .. } => {
                self.end = Some(CommandEnd::Signal(signal(signal_name)));
                None
            }
            ChannelMsg::Failure => Some(Stop::Refused),
            ChannelMsg::Close => Some(Stop::Closed),
            _ => None,
        }
    }

    fn output(&mut self, data: &[u8], error: bool) -> Option<Stop> {
        let kept = if error { &mut self.stderr } else { &mut self.stdout };
        let room = OUTPUT_BYTES - kept.len();
        kept.extend_from_slice(&data[..data.len().min(room)]);
        self.truncated |= data.len() > room;
        self.received += data.len();
        (self.received > RUNAWAY_OUTPUT).then_some(Stop::Runaway)
    }

    fn into_answer(self, name: &str, stop: Stop, took: Duration) -> CommandAnswer {
        // A command that told its exit status is over, even if a child of it holds the channel.
        let end = match (self.end, stop) {
            (Some(end), _) => end,
            (None, Stop::TimeOver) => CommandEnd::Timeout,
            (None, _) => CommandEnd::Lost,
        };
        CommandAnswer {
            name: name.to_owned(),
            end,
            stdout: self.stdout,
            stderr: self.stderr,
            truncated: self.truncated,
            took,
        }
    }
}

fn signal(signal: Sig) -> String {
    match signal {
        Sig::Custom(name) => printable(name.as_bytes()),
        known => format!("{known:?}"),
    }
}
